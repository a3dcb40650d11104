"""Raw sound: clips as the samples that they are, of one channel or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.audio.codec import ClipCodec
from zoo.audio.reading import RATES
from zoo.audio.waveform import Waveform
from zoo.errors import ConfigError, ShapeError
from zoo.values import plain

#: no window is longer: 25 minutes at 44.1 kHz
MOST_SAMPLES = 2**26


class WaveformCodec(ClipCodec):
    """Samples (channels, L) of clips as they are, full scale -1..1: nothing is brought to a peak, and a level means what it is.

    A clip is padded behind or cropped to the window of L samples. Where there are two channels a mono clip is both of them,
    and a stereo one (`Waveform.stereo`) left and right; where there is one, a stereo clip is the mean of both. Back: samples
    outside full scale are clipped, and all lie on the steps of a 16-bit file; two channels become a stereo clip.

    Args:
        sample_rate: Hz.
        samples: of the window, L.
        channels: 1 or 2.

    Raises:
        ConfigError: numbers outside their range.
    """

    axes = ("channel", "sample")
    hop = 1

    def __init__(self, *, sample_rate: int, samples: int, channels: int = 1) -> None:
        super().__init__()
        sample_rate, samples, channels = map(plain, (sample_rate, samples, channels))
        limits = {
            "sample_rate": (sample_rate, RATES[0], RATES[-1]), "samples": (samples, 1, MOST_SAMPLES),
            "channels": (channels, 1, 2),
        }  # fmt: skip
        for name, (value, least, most) in limits.items():
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(f"raw sound: {name}={value!r}; give a whole number from {least:,} to {most:,}.")
        self.sample_rate, self.samples, self.channels, self.shape = sample_rate, samples, channels, (channels, samples)

    def _placed(self, x: Tensor, rng: torch.Generator | None) -> Tensor:
        """Samples (..., L') in the window (..., L)."""
        room = self.samples - x.shape[-1]
        if room < 0:
            start = 0 if rng is None else int(torch.randint(1 - room, (), generator=rng))
            return x[..., start : start + self.samples]
        return torch.nn.functional.pad(x, (0, room))

    def place(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        return self._placed(torch.from_numpy(self.checked(item).samples), rng)

    def anew(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        clip = self.checked(item)
        x = torch.from_numpy(clip.samples[None] if clip.sides is None or self.channels == 1 else clip.sides)
        return self._placed(x, rng).expand(self.shape).contiguous()

    def spectrograms(self, x: Tensor) -> Tensor:
        """Clips in the window (B, L) -> (B, channels, L), all channels the same."""
        return x[:, None].expand(-1, self.channels, -1).contiguous()

    def _stepped(self, x0: Tensor) -> Tensor:
        """Samples within full scale, on the steps of a 16-bit file."""
        return (x0.detach().float() * 32768).round().clamp(-32768, 32767) / 32768

    def sound(self, x0: Tensor) -> Tensor:
        """(B, channels, L) -> the mean of the channels (B, L) float32."""
        return self._stepped(x0).mean(1)

    @torch.no_grad()
    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Waveform]:
        """(B, channels, L) -> clips, stereo ones where there are two channels."""
        if tuple(x0.shape[1:]) != self.shape:
            raise ShapeError(f"encoded clips {tuple(x0.shape)} must be (B, {', '.join(map(str, self.shape))}).")
        kept, rate = x0.detach().float().cpu().clone(), self.sample_rate
        pairs = zip(self._stepped(kept), kept, strict=True)
        if self.channels == 2:
            return [Waveform.stereo(x, rate, encoded=e) for x, e in pairs]
        return [Waveform(x[0], rate, encoded=e) for x, e in pairs]

"""Between clips and encoded samples: normalised log-mel spectrograms (1, F, frames), and back by Griffin-Lim.

A clip's level carries no meaning in the data, so `encode` brings every clip to the same peak. Everything of which a
second model at another rate needs others (rate, window, hop, mels) is an option.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.audio.waveform import Waveform
from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.core import seeds
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.values import plain

PEAK = 0.9  # of every encoded clip
CEILING = 0.99  # a decoded clip above it is turned down
#: builds of torch and torchaudio that work together, for whoever has two that do not
PAIR = "install two that belong together, such as torch 2.14.1 and torchaudio 2.11.0."
#: seconds over which the ends of a decoded clip are faded: no click
FADE = 0.005
#: clips whose statistics `fit` takes, at most
FIT_CLIPS = 5000


@cache
def transforms() -> Any:
    """torchaudio.transforms; an installation in which it cannot load its library is one error with both versions."""
    try:
        import torchaudio
        import torchaudio.transforms

        return torchaudio.transforms
    except ImportError as error:
        if getattr(error, "name", None) == "torchaudio":
            raise ConfigError('torchaudio is needed: pip install "diffusion-zoo[audio]".') from None
        raise _torn(error) from error
    except (OSError, RuntimeError, AttributeError) as error:
        raise _torn(error) from error


def _torn(error: Exception) -> ConfigError:
    from importlib.metadata import version

    found = " and ".join(f"{p} {version(p)}" for p in ("torch", "torchaudio"))
    return ConfigError(f"torchaudio cannot load its library ({error}). Found {found}; {PAIR}")


class ClipCodec(Codec):
    """Between clips and spectrograms (1, F, frames) in -1..1, of a window at a rate: what data, steers and measures know.

    A subclass says how sound becomes a picture and back: `place`, `spectrograms`, `sound` and `middles`. The names of its
    options are those of `SpectrogramCodec`.

    Attributes:
        sample_rate: Hz.
        samples: of the window, L.
        hop: samples between two frames.
        range_db: decibels between -1 and 1.
        speed: by how much training plays clips faster, at most, as a share.
    """

    axes: tuple[str, ...] = ("channel", "mel", "frame")
    sample_rate: int
    samples: int
    hop: int
    range_db: float
    speed: float = 0.0

    def place(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """A clip in the window (L,) float32; `rng` feeds the augmentation.

        Raises:
            DataError: see `checked`, or a silent clip.
        """
        raise NotImplementedError

    def spectrograms(self, x: Tensor) -> Tensor:
        """Clips in the window (B, L) -> (B, 1, F, frames) in -1..1."""
        raise NotImplementedError

    def sound(self, x0: Tensor) -> Tensor:
        """(B, 1, F, frames) -> samples (B, L') float32, on the same device, on the steps of a 16-bit file."""
        raise NotImplementedError

    def middles(self) -> Tensor:
        """The middle of each mel's filter in Hz (F,)."""
        raise NotImplementedError

    def like(self, **options: Any) -> ClipCodec:
        """A codec of the same kind with some options changed."""
        return type(self)(**self.options | options)

    def checked(self, item: Any) -> Waveform:
        """The item itself.

        Raises:
            DataError: no Waveform, or one of another rate.
        """
        if not isinstance(item, Waveform):
            raise DataError(
                f"the audio codec encodes a zoo.audio Waveform, got {type(item).__name__}: Waveform(samples, rate)."
            )
        if item.sample_rate != self.sample_rate:
            raise DataError(
                f"a clip at {item.sample_rate} Hz for a model at {self.sample_rate} Hz: clip.resample({self.sample_rate})."
            )
        return item

    def encode(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """A Waveform at the codec's rate -> x0 (1, F, frames). A decoded one gives what it was decoded from, exactly."""
        known = getattr(item, "encoded", None)
        if rng is None and known is not None and tuple(known.shape) == self.shape:
            return known.clone()
        return self.anew(item, rng)

    def anew(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """As `encode`, whatever the clip was decoded from."""
        return self.spectrograms(self.place(item, rng)[None])[0]

    @torch.no_grad()
    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Waveform]:
        """(B, 1, F, frames) -> clips, on the steps of a 16-bit file."""
        if tuple(x0.shape[1:]) != self.shape:
            raise ShapeError(f"encoded clips {tuple(x0.shape)} must be (B, {', '.join(map(str, self.shape))}).")
        sound = self.sound(x0).cpu().numpy()
        return [Waveform(x, self.sample_rate, encoded=e) for x, e in zip(sound, x0.detach().float().cpu().clone(), strict=True)]

    def frames(self, start: float, end: float) -> Tensor:
        """Which frames of an encoded clip have their centre in `start` <= t < `end` seconds: bool (1, 1, frames), as the shape.

        For `model.inpaint`: `codec.frames(0, 0.3)` keeps a beginning, `~codec.frames(0.2, 0.4)` fills a gap.

        Raises:
            ConfigError: a span that is empty or lies outside the window.
        """
        times = torch.arange(self.shape[-1]) * self.hop / self.sample_rate
        where = (times >= start) & (times < end)
        if not where.any():
            raise ConfigError(
                f"{start}..{end} s holds no frame; the window is 0..{times[-1]:.3f} s, a frame {times[1] * 1000:.3g} ms."
            )
        return where.reshape(*[1] * (len(self.shape) - 1), -1)


class SpectrogramCodec(ClipCodec):
    """Log-mel spectrograms (1, F, frames) in [-1, 1]: from `range_db` below the loudest training value up to it.

    A clip is brought to peak 0.9 and no offset, padded behind (and `lead` seconds before) or cropped to the window of
    (frames - 1) hop / sample_rate seconds. Back: the least-squares linear spectrum of the mel one, nowhere negative, and
    Griffin-Lim with momentum (Perraudin et al. 2013) from the same phases always; then no offset, faded ends, no overload, and
    the steps of a 16-bit file.

    Args:
        sample_rate: Hz.
        frames, mels: shape of the spectrogram.
        n_fft, hop: samples of a Fourier window and between two of them.
        range_db: decibels of the range.
        lead: seconds of silence before a clip, where it leaves room.
        trim_db: cut silence quieter than this many decibels below the loudest frame off each clip; None: never.
        jitter, speed: augmentation in training: the lead moves by up to `jitter` seconds, tempo and pitch change
            together by up to this share.
        iterations, momentum: of Griffin-Lim.

    Raises:
        ConfigError: numbers outside their range.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        sample_rate: int = 8000,
        frames: int = 128,
        mels: int = 64,
        n_fft: int = 256,
        hop: int = 64,
        range_db: float = 70.0,
        lead: float = 0.064,
        trim_db: float | None = None,
        jitter: float = 0.0,
        speed: float = 0.0,
        iterations: int = 32,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        sample_rate, frames, mels, n_fft, hop = map(plain, (sample_rate, frames, mels, n_fft, hop))
        iterations = plain(iterations)
        whole = {"sample_rate": sample_rate, "frames": frames, "mels": mels, "n_fft": n_fft, "hop": hop}
        for name, value in (whole | {"iterations": iterations}).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"audio codec: {name}={value!r}; give a whole number of at least 1.")
        self.sample_rate, self.samples, self.hop, self.n_fft = sample_rate, (frames - 1) * hop, hop, n_fft
        if self.samples < n_fft:
            raise ConfigError(
                f"audio codec: the window of {self.samples} samples is shorter than one FFT of {n_fft}. More frames!"
            )
        if hop > n_fft // 2:
            raise ConfigError(f"audio codec: hop={hop} with n_fft={n_fft}; half of it at most, or parts of a clip are lost.")
        if mels > n_fft // 4:
            raise ConfigError(f"audio codec: mels={mels} with n_fft={n_fft}; a quarter of it at most, or filters are empty.")
        shares = {"jitter": jitter, "speed": speed, "momentum": momentum}
        if not (all(0 <= v < 1 for v in shares.values()) and range_db > 0 and lead >= jitter):
            raise ConfigError(
                f"audio codec: {shares} must be in [0, 1), range_db={range_db} above 0, lead={lead} not below the jitter."
            )
        self.shape = (1, mels, frames)
        self.range_db, self.lead, self.trim_db, self.jitter, self.speed = range_db, lead, trim_db, jitter, speed
        self.iterations, self.momentum = iterations, momentum
        # ln of mel magnitude at the two ends of the range; the values before `fit` are those of speech
        self.register_buffer("low", torch.tensor(0.2 - self._range))
        self.register_buffer("high", torch.tensor(0.2))
        self._devices: dict[torch.device, tuple[Any, Any]] = {}  # no weights: they follow from the options, in float32
        self.tools(torch.device("cpu"))

    @property
    def _range(self) -> float:
        """The range in nepers."""
        return self.range_db / 20 * float(np.log(10))

    def tools(self, device: torch.device) -> tuple[Any, Any]:
        """torchaudio's mel spectrogram of magnitudes, and the way back from mel to linear, on a device; kept."""
        if device not in self._devices:
            bank = {"sample_rate": self.sample_rate, "n_mels": self.shape[1], "norm": "slaney", "mel_scale": "slaney"}
            fourier = {"n_fft": self.n_fft, "hop_length": self.hop, "power": 1.0, "pad_mode": "constant"}
            mel = transforms().MelSpectrogram(**bank, **fourier).to(device)
            self._devices[device] = mel, transforms().InverseMelScale(self.n_fft // 2 + 1, **bank).to(device)
        return self._devices[device]

    # ---------------------------------------------------------------- clips -> spectrograms

    def fit(self, dataset: Dataset) -> None:
        """Set the upper end of the range to the loudest value of up to 5,000 clips, evenly picked."""
        rows = range(0, len(dataset), max(1, -(-len(dataset) // FIT_CLIPS)))
        self.high = self._log_mel(torch.stack([self.place(dataset[i][0]) for i in rows])).amax()
        self.low = self.high - self._range

    def continued(self, before: Codec) -> list[str]:
        """The range, where the Fourier transform is the same and no new clip is louder than its upper end."""
        if not isinstance(before, SpectrogramCodec) or self._scale != before._scale:
            return []
        return super().continued(before) if self.high.float() <= before.high.float() + 1e-3 else []

    @property
    def _scale(self) -> tuple[Any, ...]:
        """What decides how loud a clip is in the spectrogram."""
        return self.sample_rate, self.n_fft, self.hop, self.shape[1], self.range_db

    def place(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """A clip in the window: (L,) float32 of peak 0.9, L = (frames - 1) hop; `rng` feeds the augmentation.

        Raises:
            DataError: no Waveform, one of another rate, or a silent one.
        """
        item = self.checked(item)
        x = torch.from_numpy((item if self.trim_db is None else item.trim(self.trim_db)).samples)
        x = x - x.mean()
        peak = x.abs().max()
        if not peak > 0:
            raise DataError(f"a clip of {item.duration:.3f} s is silent: there is nothing to encode.")
        x, lead = x * (PEAK / peak), self.lead
        if rng is not None:
            rates = 2 * torch.rand(2, generator=rng) - 1
            x = resampled(x, 1 + self.speed * float(rates[0])) if self.speed else x
            lead += self.jitter * float(rates[1])
        room = self.samples - len(x)
        if room < 0:
            start = 0 if rng is None else int(torch.randint(1 - room, (), generator=rng))
            return x[start : start + self.samples]
        before = min(round(lead * self.sample_rate), room)
        return torch.nn.functional.pad(x, (before, room - before))

    def spectrograms(self, x: Tensor) -> Tensor:
        """Clips in the window (B, L) -> (B, 1, F, frames) in -1..1."""
        level = (self._log_mel(x) - self.low.cpu().float()) / self._range
        return (2 * level.clamp(0, 1) - 1)[:, None]

    def _log_mel(self, x: Tensor) -> Tensor:
        """(B, L) float32 on the CPU -> ln of mel magnitudes (B, F, frames)."""
        with torch.autocast("cpu", enabled=False):
            return self.tools(x.device)[0](x).clamp(min=1e-9).log()

    # ---------------------------------------------------------------- spectrograms -> clips

    def sound(self, x0: Tensor) -> Tensor:
        """(B, 1, F, frames) -> samples (B, L) float32, on the same device."""
        with torch.autocast(x0.device.type, enabled=False):
            level = (x0[:, 0].float().clamp(-1, 1) + 1) / 2 * self._range
            # the lowest value stands for all that lies below the range: silence
            magnitudes = level.expm1() * self.low.to(x0.device).float().exp()
            x = self._griffin_lim(self.tools(x0.device)[1](magnitudes))
            x = x - x.mean(1, keepdim=True)
            ramp = torch.linspace(0, 1, max(2, round(FADE * self.sample_rate)), device=x.device)
            x[:, : len(ramp)] *= ramp
            x[:, -len(ramp) :] *= ramp.flip(0)
            x = x * (CEILING / x.abs().amax(1, keepdim=True).clamp(min=CEILING))
            return (x * 32768).round() / 32768

    def _griffin_lim(self, magnitudes: Tensor) -> Tensor:
        """Magnitudes (B, bins, frames) -> samples (B, L), from the same random phases for every clip.

        torchaudio's starts from zero phases, where rounding decides signs and one clip has many sounds, or from others for
        each clip of a batch.
        """
        window, start = self.tools(magnitudes.device)[0].spectrogram.window, seeds.generator(0)
        turns = torch.rand(magnitudes.shape[1:], generator=start).to(magnitudes.device)
        phases, last = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns), torch.zeros((), device=window.device)
        for _ in range(self.iterations):
            x = torch.istft(magnitudes * phases, self.n_fft, self.hop, window=window, length=self.samples)
            found = torch.stft(x, self.n_fft, self.hop, window=window, pad_mode="constant", return_complex=True)
            phases = found - last * (self.momentum / (1 + self.momentum))
            phases, last = phases / phases.abs().clamp(min=1e-16), found
        return torch.istft(magnitudes * phases, self.n_fft, self.hop, window=window, length=self.samples)

    # ---------------------------------------------------------------- parts of a clip

    def middles(self) -> Tensor:
        """The middle of each mel's filter in Hz (F,), by its weights."""
        bank = self.tools(torch.device("cpu"))[0].mel_scale.fb
        hertz = torch.linspace(0, self.sample_rate / 2, len(bank))
        middles: Tensor = (hertz[:, None] * bank).sum(0) / bank.sum(0).clamp(min=1e-12)
        return middles


def resampled(x: Tensor, speed: float) -> Tensor:
    """A clip (L,) played `speed` times as fast: its spectrum cut or padded, so no frequency folds back."""
    n = max(1, round(len(x) / speed))
    return torch.fft.irfft(torch.fft.rfft(x)[: n // 2 + 1], n) * (n / len(x))

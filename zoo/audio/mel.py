"""Mel pictures, as those of teticio's audio-diffusion: a clip as a grey picture of bytes, and back by Griffin-Lim.

The picture is librosa's mel spectrogram in decibels below its own loudest value, in 256 steps; row 0 is the lowest frequency.
diffusers has the same as `Mel`, and the pipelines of `zoo.interop.diffusers.mel` are trained on such pictures.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.audio.codec import PEAK, ClipCodec
from zoo.audio.reading import RATES
from zoo.audio.waveform import need
from zoo.errors import ConfigError, DataError
from zoo.values import plain

#: the phases that Griffin-Lim starts from, always the same
SEED = 0
#: a larger Fourier window or picture is of no sound, and its filters would not fit into memory
MOST_FFT, MOST_MELS, MOST_FRAMES = 2**16, 4096, 16_384


class MelPictureCodec(ClipCodec):
    """Grey pictures (1, F, frames) of a clip's mel power in decibels; bytes 0..255 become -1..1.

    A clip is padded behind or cropped to the window of frames * hop - 1 samples. White is the loudest value of this very
    clip, black all that lies `range_db` or more below it, so that a clip's level has no meaning. Back: bytes, librosa's
    non-negative least squares from mel to linear power, and its Griffin-Lim with momentum (Perraudin et al. 2013) from the
    same phases always, (frames - 1) hop samples. A picture with a white pixel becomes a clip of peak 0.9, and one whose
    brightest is some decibels below white one that is as much quieter.

    Args:
        sample_rate: Hz.
        frames, mels: shape of the picture.
        n_fft, hop: samples of a Fourier window and between two of them.
        range_db: decibels from black to white.
        iterations: of Griffin-Lim.

    Raises:
        ConfigError: numbers outside their range.
    """

    def __init__(
        self, *, sample_rate: int, frames: int, mels: int, n_fft: int, hop: int, range_db: float, iterations: int
    ) -> None:
        super().__init__()
        sample_rate, frames, mels, n_fft, hop = map(plain, (sample_rate, frames, mels, n_fft, hop))
        iterations, range_db = plain(iterations), plain(range_db)
        limits = {
            "sample_rate": (sample_rate, RATES[0], RATES[-1]), "frames": (frames, 1, MOST_FRAMES), "mels": (mels, 1, MOST_MELS),
            "n_fft": (n_fft, 16, MOST_FFT), "hop": (hop, 1, n_fft), "iterations": (iterations, 1, 10_000),
        }  # fmt: skip
        for name, (value, least, most) in limits.items():
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(f"mel pictures: {name}={value!r}; give a whole number from {least:,} to {most:,}.")
        if isinstance(range_db, bool) or not isinstance(range_db, (int, float)) or not 0 < range_db < 1000:
            raise ConfigError(f"mel pictures: range_db={range_db!r}; give decibels above 0 and below 1,000.")
        self.sample_rate, self.n_fft, self.hop, self.range_db = sample_rate, n_fft, hop, range_db
        self.samples, self.shape, self.iterations = frames * hop - 1, (1, mels, frames), iterations

    # ---------------------------------------------------------------- clips -> pictures

    def place(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        x = torch.from_numpy(self.checked(item).samples)
        if not x.any():
            raise DataError(f"a clip of {item.duration:.3f} s is silent: there is nothing to encode.")
        room = self.samples - len(x)
        if room < 0:
            start = 0 if rng is None else int(torch.randint(1 - room, (), generator=rng))
            return x[start : start + self.samples]
        return torch.nn.functional.pad(x, (0, room))

    def anew(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        x = self.place(item, rng)
        # zeros that theirs pads with are of double precision, in which the picture is then computed: to the same bytes
        return self.spectrograms((x.double() if len(item) < self.samples else x)[None])[0]

    def spectrograms(self, x: Tensor) -> Tensor:
        return torch.stack([torch.from_numpy(self.picture(clip) / 255 * 2 - 1).float() for clip in x.cpu().numpy()])[:, None]

    def picture(self, samples: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Samples (L,) of the window -> bytes (F, frames), the lowest frequency first; a silent window is black."""
        if not samples.any():  # nothing is loudest there: all of it would be white
            return np.zeros(self.shape[1:], np.uint8)
        options = {"sr": self.sample_rate, "n_fft": self.n_fft, "hop_length": self.hop, "n_mels": self.shape[1]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of filters without a bin, as the model was trained
            power = need("librosa.feature").melspectrogram(y=samples, **options)
        level = need("librosa.core.spectrum").power_to_db(power, ref=np.max, top_db=self.range_db)
        steps = (level + self.range_db) * 255 / self.range_db
        return np.asarray((steps.clip(0, 255) + 0.5).astype(np.uint8))

    # ---------------------------------------------------------------- pictures -> clips

    def sound(self, x0: Tensor) -> Tensor:
        bytes_ = ((x0[:, 0].detach().float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        clips = [self.levelled(self.audio(picture), picture) for picture in bytes_]
        return torch.from_numpy(np.stack(clips)).to(x0.device)

    def audio(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Bytes (F, frames) -> samples ((frames - 1) hop,), as loud as the decibels say, which is very quiet."""
        level = picture.astype(float) * self.range_db / 255 - self.range_db
        power = need("librosa.core.spectrum").db_to_power(level)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            linear = need("librosa.feature.inverse").mel_to_stft(power, sr=self.sample_rate, n_fft=self.n_fft)
        turns = np.random.default_rng(SEED)
        found = need("librosa.core.spectrum").griffinlim(
            linear, n_iter=self.iterations, hop_length=self.hop, n_fft=self.n_fft, random_state=turns, dtype=np.float32
        )
        return np.asarray(found)

    def levelled(self, samples: NDArray[np.float32], picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A clip of peak 0.9, less the decibels that the brightest pixel is below white; on the steps of a 16-bit file."""
        below = (int(picture.max()) / 255 - 1) * self.range_db
        gain = PEAK * 10 ** (below / 20) / max(float(np.abs(samples).max()), math.ldexp(1, -100))
        return np.asarray(np.rint(samples * (gain * 32768)) / 32768, np.float32)

    # ---------------------------------------------------------------- parts of a clip

    def middles(self) -> Tensor:
        found = need("librosa.core.convert").mel_frequencies(n_mels=self.shape[1] + 2, fmin=0.0, fmax=self.sample_rate / 2)
        return torch.from_numpy(found[1:-1]).float()

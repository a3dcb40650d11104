"""Waveform: a mono clip with its sample rate. It saves itself, draws itself and plays in notebooks."""

from __future__ import annotations

import base64
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo import extras
from zoo.errors import ConfigError, DataError, ShapeError, one_of
from zoo.figure import new_figure, to_picture

need = partial(extras.need, extra="audio")
FORMATS = {".wav": "WAV", ".flac": "FLAC"}
#: decibels below the clip's maximum that a spectrogram shows
RANGE_DB = 70.0


class Waveform:
    """A mono clip.

    Attributes:
        samples: (L,) float32, full scale -1..1.
        sample_rate: in Hz.
        encoded: what a codec decoded it from, where it was: encoding it again then loses nothing.

    Raises:
        ShapeError: samples that are not (L,) with L >= 1.
        DataError: NaN or infinity among them.
        ConfigError: a rate that is no positive whole number.
    """

    def __init__(self, samples: ArrayLike, sample_rate: int, *, encoded: Any = None) -> None:
        x = np.asarray(samples, dtype=np.float32)
        if x.ndim != 1 or not x.size:
            raise ShapeError(f"a clip is samples (L,) of one channel, got {x.shape}; mix channels down first: x.mean(0).")
        if not np.isfinite(x).all():
            raise DataError(f"a clip of {x.size} samples holds NaN or infinity.")
        if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, np.integer)) or sample_rate < 1:
            raise ConfigError(f"sample_rate={sample_rate!r}: give a positive whole number of Hz.")
        self.samples, self.sample_rate, self.encoded = x, int(sample_rate), encoded

    def __repr__(self) -> str:
        return f"Waveform({self.duration:.3f} s, {self.sample_rate} Hz, peak {np.abs(self.samples).max():.3f})"

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate

    def numpy(self) -> NDArray[np.float32]:
        """(L,) float32, full scale -1..1."""
        return self.samples

    def trim(self, top_db: float = 40.0) -> Waveform:
        """Without what lies `top_db` decibels below the loudest 20 ms, at both ends; a silent clip comes back whole."""
        if not top_db > 0:
            raise ConfigError(f"top_db={top_db!r}: give the decibels below the loudest 20 ms, above 0.")
        n = min(max(1, self.sample_rate // 50), len(self))
        power = np.convolve(self.samples.astype(np.float64) ** 2, np.ones(n), "same")
        loud = np.flatnonzero(power >= power.max() * 10 ** (-top_db / 10))
        return Waveform(self.samples[loud[0] : loud[-1] + 1], self.sample_rate)

    def resample(self, sample_rate: int) -> Waveform:
        """The clip at another rate in Hz, by soxr's high quality, which is librosa's default."""
        if sample_rate == self.sample_rate:
            return self
        checked = Waveform([0.0], sample_rate).sample_rate  # a rate that cannot be raises before soxr does
        return Waveform(need("soxr").resample(self.samples, self.sample_rate, checked), checked)

    def pcm(self) -> NDArray[np.int16]:
        """(L,) int16: the nearest steps of 1 / 32768; what is outside full scale is clipped, as files must."""
        return np.clip(np.rint(self.samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)

    def save(self, path: str | Path) -> Path:
        """Write 16-bit WAV or FLAC, as the suffix says; samples outside full scale are clipped.

        Raises:
            ConfigError: another suffix.
            DataError: the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in FORMATS:
            raise one_of("sound file suffix", path.suffix, FORMATS)
        try:
            need("soundfile").write(path, self.pcm(), self.sample_rate, "PCM_16", format=FORMATS[path.suffix.lower()])
        except (OSError, RuntimeError) as error:
            raise DataError(f"cannot save {path}: {error}") from error
        return path

    def plot(self, ax: Any = None) -> Any:
        """The waveform over the spectrogram, seconds below, hertz at the side: a PIL image.

        With a matplotlib axis `ax` the spectrogram is drawn there, and its image object comes back.
        """
        if ax is not None:
            return _spectrogram(self, ax)
        return contact_sheet([self], [""], columns=1)

    def _repr_html_(self) -> str:
        memory = io.BytesIO()
        need("soundfile").write(memory, self.pcm(), self.sample_rate, "PCM_16", format="WAV")
        data = base64.b64encode(memory.getvalue()).decode()
        return f'<audio controls src="data:audio/wav;base64,{data}"></audio>'


def _spectrogram(clip: Waveform, ax: Any) -> Any:
    """Decibels below the clip's maximum over seconds and hertz, on a matplotlib axis."""
    rate, x = clip.sample_rate, clip.samples
    n = max(16, rate // 32)  # 31 ms: fine enough to see the harmonics of a voice
    padded = np.pad(x, (n // 2, n // 2 + n))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n)[:: n // 4][: max(1, -(-len(x) // (n // 4)))]
    power = np.abs(np.fft.rfft(frames * np.hanning(n), axis=1)).T ** 2
    db = 10 * np.log10(np.maximum(power, 1e-12) / max(power.max(), 1e-12))
    extent = (0.0, clip.duration, 0.0, rate / 2)
    picture = ax.imshow(db, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-RANGE_DB, vmax=0)
    ax.set(xlabel="time (s)", ylabel="frequency (Hz)")
    return picture


def contact_sheet(clips: list[Waveform], titles: list[str], columns: int | None = None) -> Any:
    """Waveforms over spectrograms of all clips, with axes, as a PIL image."""
    columns = columns or min(len(clips), max(1, round((len(clips) * 1.2) ** 0.5)))
    rows = -(-len(clips) // columns)
    size = (6.0, 3.6) if len(clips) == 1 else (2.1 * columns + 0.6, 1.9 * rows + 0.3)
    names = ("axes.labelsize", "xtick.labelsize", "ytick.labelsize")
    figure = new_figure(*size, "audio")
    with need("matplotlib").rc_context(dict.fromkeys(names, 7) | {"axes.titlesize": 9}):
        grid = figure.subplots(2 * rows, columns, squeeze=False, sharex=True, height_ratios=[1, 2.4] * rows)
        for i in range(rows * columns):
            wave, spectrum = grid[2 * (i // columns)][i % columns], grid[2 * (i // columns) + 1][i % columns]
            if i >= len(clips):
                wave.set_axis_off()
                spectrum.set_axis_off()
                continue
            wave.plot(np.arange(len(clips[i])) / clips[i].sample_rate, clips[i].samples, linewidth=0.4)
            wave.set(ylim=(-1, 1), yticks=[], title=titles[i])
            _spectrogram(clips[i], spectrum)
            spectrum.label_outer()
        grid[0][0].set_xlim(0, max(c.duration for c in clips))  # shared by all
        return to_picture(figure)

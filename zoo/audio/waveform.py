"""Waveform: a clip with its sample rate, mono or stereo. It saves itself, draws itself and plays in notebooks."""

from __future__ import annotations

import base64
import io
import operator
import textwrap
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo import extras
from zoo.disk import saving
from zoo.errors import ConfigError, DataError, ShapeError, one_of
from zoo.figure import new_figure, to_picture

FORMATS = {".wav": "WAV", ".flac": "FLAC"}
#: decibels below the clip's maximum that a spectrogram shows
RANGE_DB = 70.0
#: columns of a spectrogram, about: more than a picture has pixels, and `specshow` draws every number as a polygon
COLUMNS = 1000


def need(module: str) -> Any:
    """A module of the extra `audio`; of librosa the one that does the work, since `librosa` alone loads nothing."""
    try:
        return extras.need(module, extra="audio")
    except RuntimeError as error:  # numba, below librosa, keeps what it compiled, and finds no folder for it
        raise ConfigError(f"{module}: {error}. Set NUMBA_CACHE_DIR to a folder that can be written to.") from error


def hertz(sample_rate: Any) -> int:
    """A sample rate in Hz: an integer of Python, numpy or torch; a ConfigError for anything else and for 0 or less."""
    try:
        rate = 0 if isinstance(sample_rate, bool) or np.ndim(sample_rate) else operator.index(sample_rate)
    except TypeError:
        rate = 0
    if rate < 1:
        raise ConfigError(f"sample_rate={sample_rate!r} is invalid: give an integer number of Hz, 1 or more.")
    return rate


class Waveform:
    """A clip: samples of one channel, and where it is stereo both channels, of which the samples are the mean.

    All that measures, draws or encodes sound looks at the samples; what saves or plays it, cuts it or brings it to another rate
    keeps both channels. A stereo clip is made by `Waveform.stereo`.

    Args:
        samples: (L,), full scale -1..1, a list, a numpy array or a torch tensor; kept as float32.
        sample_rate: in Hz, an integer of Python, numpy or torch; kept as int.
        encoded: what a codec decoded the clip from, if it did: encoding the clip again then loses nothing.

    Attributes:
        sides: (2, L) float32, left and right, of a stereo clip; else None.

    Raises:
        ShapeError: samples are not numbers of the shape (L,) with L >= 1.
        DataError: NaN or infinity among the samples.
        ConfigError: the sample rate is not an integer above 0.
    """

    def __init__(self, samples: ArrayLike, sample_rate: int, *, encoded: Any = None) -> None:
        if hasattr(samples, "detach"):  # a tensor: numpy rejects one with a gradient, in bfloat16 or on a GPU
            samples = samples.detach().cpu().float()
        try:
            x = np.asarray(samples, dtype=np.float32, order="C")  # torch takes no view that runs backwards
        except (TypeError, ValueError) as error:
            raise ShapeError(f"samples are not an array of numbers (L,): {error}.") from error
        if x.ndim != 1 or not x.size:
            raise ShapeError(f"a clip is samples (L,) of one channel, got {x.shape}; mix channels down first: x.mean(0).")
        if not np.isfinite(x).all():
            raise DataError(f"a clip of {x.size} samples holds NaN or infinity.")
        self.samples, self.sample_rate, self.encoded = x, hertz(sample_rate), encoded
        self.sides: NDArray[np.float32] | None = None

    @classmethod
    def stereo(cls, sides: ArrayLike, sample_rate: int, *, encoded: Any = None) -> Waveform:
        """A stereo clip of its channels (2, L), left and right; otherwise as `Waveform`.

        Raises:
            ShapeError: not the numbers of two channels. DataError, ConfigError: as `Waveform`.
        """
        if hasattr(sides, "detach"):
            sides = sides.detach().cpu().float()
        try:
            x = np.asarray(sides, dtype=np.float32, order="C")
        except (TypeError, ValueError) as error:
            raise ShapeError(f"sides are not an array of numbers (2, L): {error}.") from error
        if x.ndim != 2 or len(x) != 2:
            raise ShapeError(f"a stereo clip is two channels (2, L), got {x.shape}; one of one: Waveform(samples, rate).")
        clip = cls(x.mean(0), sample_rate, encoded=encoded)
        clip.sides = x
        return clip

    def __repr__(self) -> str:
        stereo = "" if self.sides is None else ", stereo"
        return f"Waveform({self.duration:.3f} s, {self.sample_rate} Hz{stereo}, peak {np.abs(self._all).max():.3f})"

    @property
    def _all(self) -> NDArray[np.float32]:
        """All channels (..., L)."""
        return self.samples if self.sides is None else self.sides

    def _of(self, x: NDArray[np.float32], sample_rate: int) -> Waveform:
        """A clip of these channels, as many as this one has."""
        return Waveform(x, sample_rate) if self.sides is None else Waveform.stereo(x, sample_rate)

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
        """The clip without its quiet start and end, by `librosa.effects.trim`; a silent clip comes back whole.

        Frames of 20 ms, one every 5 ms, are quiet if their RMS level is `top_db` decibels or more below the loudest.
        A `top_db` that is not a number above 0 raises a ConfigError.
        """
        if not isinstance(top_db, SupportsFloat) or np.ndim(top_db) or not top_db > 0:
            raise ConfigError(f"top_db={top_db!r} is invalid: give decibels below the loudest 20 ms, above 0.")
        frame, hop = max(1, self.sample_rate // 50), max(1, self.sample_rate // 200)
        # at full scale: librosa takes all below 1e-5 for equally loud, and would keep the silence around a quiet clip
        loud = self.samples / (np.abs(self.samples).max() or 1)
        start, end = need("librosa.effects").trim(loud, top_db=float(top_db), frame_length=frame, hop_length=hop)[1]
        return self._of(self._all[..., start:end], self.sample_rate)

    def resample(self, sample_rate: int) -> Waveform:
        """The clip at another rate in Hz (not an integer above 0: a ConfigError), by `librosa.resample` at soxr's HQ."""
        if (new := hertz(sample_rate)) == (old := self.sample_rate):
            return self
        # fix=False: the length that soxr gives, nearest to the duration; librosa would add a zero to round it up
        resample = need("librosa.core.audio").resample
        return self._of(resample(self._all, orig_sr=old, target_sr=new, res_type="soxr_hq", fix=False), new)

    def pcm(self) -> NDArray[np.int16]:
        """(L,) int16, of a stereo clip (L, 2): the nearest steps of 1 / 32768; what is outside full scale is clipped, as files
        must."""
        return np.clip(np.rint(self._all.T.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)

    def save(self, path: str | Path) -> Path:
        """Write 16-bit WAV or FLAC, as the suffix says; samples outside full scale are clipped.

        Raises:
            ConfigError: another suffix.
            DataError: the format cannot hold the clip, or there is no such folder.
            ResourceError: the file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in FORMATS:
            raise one_of("sound file suffix", path.suffix, FORMATS)
        memory = io.BytesIO()
        try:
            need("soundfile").write(memory, self.pcm(), self.sample_rate, "PCM_16", format=FORMATS[path.suffix.lower()])
        except (OSError, RuntimeError) as error:
            raise DataError(f"cannot save {path}: {error}") from error
        with saving(path) as temporary:
            temporary.write_bytes(memory.getvalue())
        return path

    def plot(self, ax: Any = None) -> Any:
        """The waveform over the spectrogram as a PIL image; with a matplotlib axis the spectrogram, drawn there."""
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
    spectrum, rate = need("librosa.core.spectrum"), clip.sample_rate
    n = max(16, rate // 32)  # 31 ms: fine enough to see the harmonics of a voice
    hop = max(n // 8, len(clip) // COLUMNS)
    # one hop more, so that the picture reaches the end of the clip; librosa warns of less than one window
    x = np.pad(clip.samples, (0, max(hop, n - len(clip))))
    level = np.abs(spectrum.stft(x, n_fft=n, hop_length=hop))[:, : 1 + max(1, round(len(clip) / hop))]
    db = spectrum.amplitude_to_db(level / (level.max() or 1), top_db=None)  # a silent clip is dark
    style = {"cmap": "magma", "vmin": -RANGE_DB, "vmax": 0, "ax": ax}
    picture = need("librosa.display").specshow(db, sr=rate, n_fft=n, hop_length=hop, x_axis="s", y_axis="hz", **style)
    ax.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])  # specshow's ticks touch each other in a narrow picture
    ax.set(xlabel="time (s)", ylabel="frequency (Hz)", xlim=(0, clip.duration), ylim=(0, rate / 2))
    return picture


def contact_sheet(clips: list[Waveform], titles: list[str], columns: int | None = None) -> Any:
    """Waveforms over spectrograms of all clips, with axes, as a PIL image."""
    columns = int(columns or min(len(clips), max(1, round((len(clips) * 1.2) ** 0.5))))
    rows = -(-len(clips) // columns)
    size = (6.0, 3.6) if len(clips) == 1 else (2.1 * columns + 0.6, 1.9 * rows + 0.3)
    figure, rates = new_figure(*size, "audio"), {c.sample_rate for c in clips}
    with need("matplotlib").rc_context({f"{n}.labelsize": 7 for n in ("axes", "xtick", "ytick")} | {"axes.titlesize": 9}):
        grid = figure.subplots(2 * rows, columns, squeeze=False, sharex=True, height_ratios=[1, 2.4] * rows)
        for ax in grid[-2:, len(clips) - (rows - 1) * columns :].ravel():
            ax.set_axis_off()
        for i, (clip, title) in enumerate(zip(clips, titles, strict=True)):
            wave, spectrum = grid[2 * (i // columns) :, i % columns][:2]
            wave.plot(np.arange(len(clip)) / clip.sample_rate, clip.samples, linewidth=0.4)
            wave.set(ylim=(-1, 1), yticks=[], title=textwrap.fill(title, 28))  # as wide as a column
            _spectrogram(clip, spectrum)
            first, last = i % columns == 0, i + columns >= len(clips)  # of its row, of its column
            spectrum.tick_params(labelleft=first or len(rates) > 1, labelbottom=last)
            spectrum.set(xlabel=spectrum.get_xlabel() * last, ylabel=spectrum.get_ylabel() * first)
        grid[0][0].set_xlim(0, max(c.duration for c in clips))  # shared by all
        return to_picture(figure)

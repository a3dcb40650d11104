"""Recordings to train on: short ones whole, of long ones windows, which are read without decoding all of it.

A window is the same to the bit whether it comes from the cache or not: a file of which any part can be read is read there,
any other is decoded whole (once, where there is a cache), and the window is resampled with what lies around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.audio.reading import read_part, read_sound
from zoo.audio.waveform import Waveform
from zoo.data.decoded import Entry, Store, known, prepared
from zoo.errors import DataError

#: seconds up to which a recording is decoded whole and kept at the rate that is asked for
SHORT = 30.0
#: seconds of a block whose loudness is measured
BLOCK = 0.1
#: a window so many decibels below the loudest block of its recording is silent: no one wants to hear it learnt
QUIET_DB = 50.0
#: random windows that are tried for one that is not silent
TRIES = 8
#: samples of the slower of two rates that resampling looks at on each side of one: the filter of soxr's HQ is shorter
EDGE = 256


@dataclass(frozen=True)
class Recording:
    """What is known of a file that was read whole once.

    Attributes:
        sample_rate, frames: of the file: Hz, and samples of each channel.
        channels, channel, seeks, packed: see `zoo.audio.reading.Sound`.
        power: (blocks + 1,) float64, the sum of the squares of the loudness of all blocks before each one.
        quiet: the loudness of a window that is silent.
        stamp: size and time of the file when it was read.
    """

    path: Path
    sample_rate: int
    frames: int
    channels: int
    channel: int | None
    seeks: bool
    packed: bool
    power: NDArray[np.float64]
    quiet: float
    stamp: tuple[int, int]

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.sample_rate

    def starts(self, seconds: float) -> list[float]:
        """When windows begin that cover the recording to its end, without those that are silent; one alone means: all of it."""
        count = int(self.duration / seconds)
        if count < 2:
            return [0.0]
        found = [i * self.distance(seconds) for i in range(count)]
        loud = [start for start in found if self.is_heard(start, seconds)]
        return loud or [max(found, key=lambda start: self.loudness(start, seconds))]

    def distance(self, seconds: float) -> float:
        """Seconds from one of the windows of `starts` to the next."""
        return (self.duration - seconds) / (int(self.duration / seconds) - 1)

    def loudness(self, start: float, seconds: float) -> float:
        """The root of the mean square of a window, of what its blocks have beside their mean."""
        first = min(int(start / BLOCK), len(self.power) - 2)
        last = max(first + 1, min(math.ceil((start + seconds) / BLOCK), len(self.power) - 1))
        return math.sqrt(max(0.0, float(self.power[last] - self.power[first])) / (last - first))

    def is_heard(self, start: float, seconds: float) -> bool:
        """Whether a window is not silent."""
        return self.loudness(start, seconds) > self.quiet

    def somewhere(self, start: float, seconds: float, longer: float, rng: torch.Generator) -> float:
        """When a random window begins, about `start`, one of `starts(seconds)`: it is heard, or is the window there.

        Args:
            longer: seconds that it lasts.
        """
        for _ in range(TRIES):
            shift = float(torch.rand((), dtype=torch.float64, generator=rng)) - 0.5
            found = min(max(0.0, start + shift * self.distance(seconds)), max(0.0, self.duration - longer))
            if self.is_heard(found, longer):
                return found
        return start


def look(cache: Store | None, path: Path, rate: int) -> Recording:
    """Read a file whole, or what the cache knows of it.

    Args:
        rate: in Hz, at which a short one is kept; 0 for its own.

    Raises:
        DataError: as `zoo.audio.reading.read_clip`.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    entry = decoded(cache, path, rate, path)
    loud, facts = entry.arrays["loudness"].astype(np.float64), entry.facts
    return Recording(
        path,
        facts["rate"],
        facts["frames"],
        facts["channels"],
        facts["channel"],
        facts["seeks"],
        facts["packed"],
        np.concatenate([[0.0], np.cumsum(loud**2)]),
        float(loud.max()) * 10 ** (-QUIET_DB / 20),
        (about.st_size, about.st_mtime_ns),
    )


def short(entry: Entry, rate: int) -> Waveform | None:
    """The recording of an entry of `decoded`; None where it is a long one, which has no samples at this rate."""
    return Waveform(entry.arrays["samples"].copy(), rate or entry.facts["rate"]) if entry.facts["short"] else None


def window(cache: Store | None, recording: Recording, rate: int, start: float, count: int) -> Waveform:
    """`count` samples at `rate` Hz from `start` seconds on, or before, where the recording ends before that."""
    if recording.duration <= SHORT:
        clip = short(decoded(cache, recording.path, rate, recording.path), rate)
        if clip is None:
            raise DataError(f"{recording.path}: was changed while it was in use. Start again")
        first = max(0, min(round(start * rate), len(clip) - count))
        return Waveform(clip.samples[first : first + count], rate)
    own, frames = recording.sample_rate, recording.frames
    needed = min(frames, math.ceil(count * own / rate) + 1)
    first = max(0, min(round(start * own), frames - needed))
    # a whole number of steps of both rates lies before the window: its first sample is then one of the resampled
    common = math.gcd(own, rate)
    margin = math.ceil(EDGE * max(own, rate) / rate)
    before = min(math.ceil(margin * common / own), first * common // own) * (own // common) if own != rate else 0
    after = min(margin, frames - first - needed) if own != rate else 0
    samples = _part(cache, recording, rate, first - before, before + needed + after)
    skip = before * rate // own
    return Waveform(Waveform(samples, own).resample(rate).samples[skip : skip + count], rate)


def _part(cache: Store | None, recording: Recording, rate: int, first: int, count: int) -> NDArray[np.float32]:
    """Samples of a long recording at its own rate."""
    if recording.seeks:
        entry = known(cache, recording.path, _how(rate)) if recording.packed else None
        if entry is None or "samples" not in entry.arrays:
            return read_part(recording.path, first, count, recording.channel, recording.stamp)
    else:
        entry = decoded(cache, recording.path, rate, recording.path)
    samples = entry.arrays.get("samples", ())
    if len(samples) != recording.frames:
        raise DataError(f"{recording.path}: was changed while it was in use. Start again")
    return np.array(samples[first : first + count])


def _how(rate: int, file: bool = True) -> dict[str, Any]:
    """What the entry of a recording hangs on beside its content: where there is no file none is read in parts."""
    return {"kind": "sound", "rate": rate, "file": file}


def decoded(cache: Store | None, source: Path | bytes, rate: int, name: str | Path) -> Entry:
    """What is kept of a recording: what is known of it, its loudness, and samples.

    A short one's are at `rate` Hz (0: its own), a long one's at its own rate, and there are none where any part of its file
    can be read by itself at once.

    Args:
        name: of the source, for errors.

    Raises:
        DataError: as `zoo.audio.reading.read_clip`.
    """

    def make(data: bytes) -> Entry:
        sound = read_sound(name, data)
        facts: dict[str, Any] = {"rate": sound.sample_rate, "frames": len(sound.samples)}
        facts |= {"channels": sound.channels, "channel": sound.channel, "seeks": sound.seeks, "packed": sound.packed}
        facts["short"] = len(sound.samples) <= SHORT * sound.sample_rate
        arrays = {"loudness": _loudness(sound.samples, sound.sample_rate)}
        if facts["short"]:
            arrays["samples"] = Waveform(sound.samples, sound.sample_rate).resample(rate or sound.sample_rate).samples
        elif sound.packed or not isinstance(source, Path):
            arrays["samples"] = sound.samples
        return Entry(arrays, facts)

    try:
        return prepared(cache, source, _how(rate, isinstance(source, Path)), make)
    except OSError as error:
        raise DataError(f"{name}: {error.strerror or error}") from error


def _loudness(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """The deviation of each block of `BLOCK` seconds from its mean; what is left over at the end is a block, too."""
    size = max(1, round(BLOCK * rate))
    whole = len(samples) // size * size
    found = [samples[:whole].reshape(-1, size).std(1, dtype=np.float64)] if whole else []
    found += [samples[whole:].std(keepdims=True, dtype=np.float64)] if whole < len(samples) else []
    return np.concatenate(found).astype(np.float32)

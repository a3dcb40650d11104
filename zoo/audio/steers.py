"""Steers of sounds, in seconds, hertz and decibels: a continuation, a gap, a band of the spectrum, a level."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.audio.codec import ClipCodec
from zoo.audio.raw import WaveformCodec
from zoo.audio.reading import read_clip
from zoo.audio.waveform import Waveform
from zoo.core.correction import Made, Steer
from zoo.core.measure import measure
from zoo.core.predict import Steering
from zoo.core.steer import Hold
from zoo.core.within import Within
from zoo.errors import ConfigError
from zoo.values import number


def made(make: Callable[[ClipCodec], Steering], gradients: bool, named: str, raw: bool = False) -> Steer:
    """A steer of spectrograms; with `raw` also of samples as they are."""

    def checked(codec: Any) -> Steering:
        if not isinstance(codec, ClipCodec) or (isinstance(codec, WaveformCodec) and not raw):
            raise ConfigError(f"{named}: a steer of spectrograms, and this model's codec is a {type(codec).__name__}.")
        return make(codec)

    return Made(checked, gradients, named)


def encoded(clip: Any, codec: ClipCodec, named: str) -> Tensor:
    """A clip, or the file of one, as a model at this rate encodes it."""
    if isinstance(clip, (str, Path)):
        clip = read_clip(clip, stereo=isinstance(codec, WaveformCodec))
    if not isinstance(clip, Waveform):
        raise ConfigError(f"{named}: clip is a {type(clip).__name__}; give a Waveform, or the path of a sound file.")
    return codec.encode(clip.resample(codec.sample_rate))


def span(start: Any, end: Any) -> tuple[float, float]:
    """Two times in seconds."""
    first, last = number(start, "start", 0, what="seconds"), number(end, "end", 0, what="seconds")
    if not first < last:
        raise ConfigError(f"start={start!r}, end={end!r}: give seconds, the first below the second.")
    return first, last


def continuation(clip: Any, seconds: float) -> Steer:
    """Sounds that begin as a clip does: its first `seconds` are held, the rest is drawn.

    As `model.inpaint(clip, codec.frames(0, seconds))` with the method "replace"; the others are asked for there.

    Args:
        clip: a Waveform, or the path of a sound file; another rate is resampled.
        seconds: above 0, of the model's window.

    Raises:
        ConfigError: no clip, or no such time (when it samples, one outside of the window). DataError: a file that is no sound.
    """
    _, end = span(0.0, seconds)
    return made(lambda codec: Hold(encoded(clip, codec, "continuation"), codec.frames(0.0, end)), False, "continuation", True)


def gap(clip: Any, start: float, end: float) -> Steer:
    """Sounds that are a clip but from `start` to `end` seconds, where they are drawn anew.

    As `model.inpaint(clip, ~codec.frames(start, end))` with the method "replace"; the others are asked for there.

    Raises: as `continuation`.
    """
    first, last = span(start, end)
    return made(lambda codec: Hold(encoded(clip, codec, "gap"), ~codec.frames(first, last)), False, "gap", True)


def band(low: float = 0.0, high: float | None = None, *, interval: tuple[float, float] = (0.0, math.inf)) -> Steer:
    """Sounds of a band of the spectrum: mels whose middle lies outside of it are silent, those inside are drawn.

    Args:
        low, high: Hz; None: up to half of the rate.
        interval: (lo, hi): acts where lo < sigma / alpha <= hi.

    Raises:
        ConfigError: no band; when it samples, one in which no mel has its middle.
    """
    least = number(low, "low", 0, what="Hz")
    most = math.inf if high is None else number(high, "high", 0, what="Hz")
    if not least < most:
        raise ConfigError(f"band: low={low!r}, high={high!r}: give Hz, the first below the second.")

    def make(codec: ClipCodec) -> Steering:
        middles = codec.middles()
        inside = (middles >= least) & (middles <= most)
        if not inside.any():
            raise ConfigError(
                f"band: no mel of this model has its middle from {least:g} to {most:g} Hz; they go from {middles[0]:.0f} to "
                f"{middles[-1]:.0f} Hz."
            )

        def silent(x0: Tensor) -> Tensor:
            return torch.where(inside.to(x0.device)[:, None], x0, x0.clamp(max=-1.0))

        return Within(silent, interval, "encoded", "band")

    return made(make, False, "band")


def loudness(level: float, start: float | None = None, end: float | None = None, *, noise: float = 0.5) -> Steer:
    """Sounds of a mean level: the mean of their spectrogram in decibels below the loudest value of the training data.

    All clips have the same peak, so that this is how dense a sound is, or how loud one part of it is beside the others. It is
    a measurement of that mean, see `zoo.steer.measure`.

    Args:
        level: dB, 0 (the loudest) down to minus the codec's range.
        start, end: seconds of the part that is meant; default: all.
        noise: standard deviation of the mean, dB.

    Raises:
        ConfigError: numbers of another kind; when it samples, a level below the range, or times outside of the window.
    """
    wanted = number(level, "level", None, 0, what="dB below the loudest")
    spread = number(noise, "noise", 0, what="dB")
    if (start is None) != (end is None):
        raise ConfigError(f"loudness: start={start!r}, end={end!r}; give both, or none for all of a clip.")
    part = None if start is None else span(start, end)

    def make(codec: ClipCodec) -> Steering:
        if wanted < -codec.range_db:
            raise ConfigError(f"loudness: level={wanted:g} dB; this model's sounds go down to {-codec.range_db:g} dB.")
        frames = None if part is None else codec.frames(*part)[0, 0]

        def mean(x0: Tensor) -> Tensor:
            own = x0 if frames is None else x0[..., frames.to(x0.device)]
            return ((own - 1) / 2 * codec.range_db).mean((1, 2, 3))[:, None]

        return measure([wanted], mean, spread, products=1, units="encoded")

    return made(make, True, "loudness")

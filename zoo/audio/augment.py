"""What training may do to clips: move them, play them faster or slower, put silence around them, add noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field

from zoo.audio.codec import resampled
from zoo.audio.waveform import Waveform
from zoo.contract.augment import Augment, uniform
from zoo.contract.codec import Codec
from zoo.errors import DataError


class AudioAugment(Augment):
    """Time, tempo, silence and noise of clips, beside the codec's own `jitter` and `speed`, which come after it.

    There is no gain: the codec brings every clip to one peak, so that a level means nothing.
    """

    shift: float = Field(
        0.0, ge=0, description="seconds by which the sound moves, at most; what leaves at one end is silence at the other",
        examples=[0.05],
    )  # fmt: skip
    speed: float = Field(0.0, ge=0, lt=1, description="tempo and pitch change together by up to this share", examples=[0.1])
    silence: float = Field(0.0, ge=0, description="seconds of silence before and behind the clip, at most", examples=[0.05])
    noise: float = Field(
        0.0, ge=0, le=1, description="root mean square of white noise, at most, as a share of the clip's peak", examples=[0.01]
    )

    def apply(
        self, item: Waveform, given: Mapping[str, Any], rng: torch.Generator, codec: Codec
    ) -> tuple[Waveform, Mapping[str, Any]]:
        if item.sides is not None:
            raise DataError(
                "a stereo clip: the augmentations of sounds are of one channel. Leave them out, or mix it down first."
            )
        x, rate = torch.from_numpy(item.samples), item.sample_rate
        if self.speed:
            x = resampled(x, 1 + uniform(-self.speed, self.speed, rng))
        if self.shift:
            # half of a short clip stays in any case
            steps = round(max(-len(x) / 2, min(len(x) / 2, rate * uniform(-self.shift, self.shift, rng))))
            moved = torch.zeros_like(x)
            moved[max(0, steps) : len(x) + min(0, steps)] = x[max(0, -steps) : len(x) - max(0, steps)]
            x = moved if moved.any() else x  # a click in the part that left the clip was all of its sound
        if self.silence:
            before, behind = (round(rate * uniform(0, self.silence, rng)) for _ in range(2))
            x = torch.nn.functional.pad(x, (before, behind))
        if self.noise:
            level = uniform(0, self.noise, rng) * float(x.abs().max())
            x = x + level * torch.randn(len(x), generator=rng)
        return Waveform(np.asarray(x), rate), given

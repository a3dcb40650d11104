"""What training may do to windows of demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field

from zoo.contract.augment import Augment
from zoo.contract.codec import Codec
from zoo.policy.codec import PolicyCodec


class PolicyAugment(Augment):
    """Noise on what is observed, so that small errors of sensors and of the policy itself have been seen.

    The actions stay those of the demonstration. A mirror image is one more demonstration only where the task says so: Push-T's
    reader adds it.
    """

    noise: float = Field(
        0.0, ge=0, le=0.5, description="standard deviation on each observed number, in halves of its range in training",
        examples=[0.02],
    )  # fmt: skip

    def apply(self, item: Any, given: Mapping[str, Any], rng: torch.Generator, codec: Codec) -> tuple[Any, Mapping[str, Any]]:
        observed = given.get("observation")
        if observed is None or not isinstance(codec, PolicyCodec):
            return item, given
        noise = torch.randn(np.shape(observed), generator=rng).numpy()
        return item, {**given, "observation": np.asarray(observed + self.noise * codec.half_range * noise, np.float32)}

"""What training may do to backbones, beside the random orientation, which the codec gives every one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field

from zoo.contract.augment import Augment
from zoo.contract.codec import Codec
from zoo.protein.backbone import Backbone
from zoo.protein.trace import Trace


class BackboneAugment(Augment):
    """Noise on the coordinates. No mirror image: proteins are of one hand. No part of a chain: it is not compact."""

    noise: float = Field(
        0.0, ge=0, le=1, description="standard deviation in angstrom by which atoms move along each axis", examples=[0.02]
    )

    def apply(
        self, item: Backbone | Trace, given: Mapping[str, Any], rng: torch.Generator, codec: Codec
    ) -> tuple[Backbone | Trace, Mapping[str, Any]]:
        still = item.numpy()
        moved = still + self.noise * torch.randn(still.shape, generator=rng).numpy()
        return type(item)(moved, item.name, item.remark), given

"""What training may do to backbones, beside the random orientation, which the codec gives every one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field

from zoo.contract.augment import Augment
from zoo.contract.codec import Codec
from zoo.protein.backbone import Backbone


class BackboneAugment(Augment):
    """Noise on the coordinates. No mirror image: proteins are of one hand. No part of a chain: it is not compact."""

    noise: float = Field(
        0.0, ge=0, le=1, description="standard deviation in angstrom by which atoms move along each axis", examples=[0.02]
    )

    def apply(
        self, item: Backbone, given: Mapping[str, Any], rng: torch.Generator, codec: Codec
    ) -> tuple[Backbone, Mapping[str, Any]]:
        moved = item.atoms + self.noise * torch.randn(item.atoms.shape, generator=rng).numpy()
        return Backbone(moved, item.name, item.remark), given

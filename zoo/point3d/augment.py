"""What training may do to clouds: turn, scale and mirror them, and move their points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field

from zoo.contract.augment import Augment, chance, uniform
from zoo.contract.codec import Codec
from zoo.point3d.cloud import PointCloud


class PointAugment(Augment):
    """Turns, sizes and mirror images of clouds, beside those of the codec, which come after."""

    yaw: float = Field(0.0, ge=0, le=math.pi, description="radians about the up axis, at most", examples=[0.5])
    scale: float = Field(0.0, ge=0, lt=1, description="the whole cloud grows or shrinks by up to this share", examples=[0.2])
    mirror: float = Field(
        0.0, ge=0, le=1, description="share that are mirrored, across the plane to which they are nearer to symmetric",
        examples=[0.5],
    )  # fmt: skip
    jitter: float = Field(
        0.0, ge=0, le=0.5, description="standard deviation by which points move, in radii of the cloud", examples=[0.01]
    )

    def apply(
        self, item: PointCloud, given: Mapping[str, Any], rng: torch.Generator, codec: Codec
    ) -> tuple[PointCloud, Mapping[str, Any]]:
        turn, size = uniform(-self.yaw, self.yaw, rng), uniform(1 - self.scale, 1 + self.scale, rng)
        factors = np.full(3, size, np.float32)
        if chance(self.mirror, rng):
            factors[item.mirror_axis] *= -1
        c, s = math.cos(turn), math.sin(turn)
        points = (item.points * factors) @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], np.float32)
        if self.jitter:
            points = points + self.jitter * torch.randn(points.shape, generator=rng).numpy()
        found = PointCloud(points, item.centre, item.scale)
        # the codec's own mirror asks for it, and to find it costs more than all of the above: it is that of the cloud before
        # it was turned
        found.__dict__["mirror_axis"] = item.mirror_axis
        return found, given

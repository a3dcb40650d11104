"""What a judge of the user's own shapes sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.evaluation import own
from zoo.point3d.codec import PointCodec
from zoo.point3d.judge import Judge

#: points of a cloud that a step of training, or a measurement, takes
POINTS, SHOWN = 512, 2048


class PointSight(own.Sight):
    """Clouds in a unit sphere. Training takes other points each time, turned, stretched, mirrored and moved a little."""

    kind = Judge
    augmentation: Mapping[str, Any] = {"jitter": 0.01, "scale": 0.1}
    batch_size = 48
    lr = 3e-3
    chunk = 50

    def __init__(self) -> None:
        self.codec = PointCodec(train_points=POINTS, yaw=0.3, stretch=0.2, mirror=True)

    def build(self, class_names: tuple[str, ...]) -> Judge:
        return Judge((64, 192, 128), class_names)

    def see(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        x = torch.from_numpy(item.points)
        if rng is not None:
            return self.codec.augment(x, item.mirror_axis, rng)
        # clouds of several sizes are measured together: always the same points, small clouds' more than once
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        return x[rows.repeat(-(-SHOWN // len(x)))[:SHOWN]]

    @property
    def facts(self) -> dict[str, Any]:
        return {"points": POINTS}

"""Between point clouds and encoded samples (N, 3): one scale for all clouds, and the augmentation of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.core.likelihood import Units
from zoo.errors import ConfigError, DataError
from zoo.point3d.cloud import PointCloud
from zoo.values import plain

#: how many points a sample may have; below it no shape is told, above it memory of a small machine ends
FEWEST, MOST = 64, 65_536
#: clouds whose standard deviation `fit` takes, at most
FIT_CLOUDS = 5000
#: a cloud that reaches so far from the origin is not normalised
FAR = 4.0


class PointCodec(Codec):
    """Points (N, 3) of unit variance over the training data; y is up.

    Args:
        points: how many a sample has where nobody asks.
        train_points: how many of a cloud's points training takes, others each time.
        yaw: augmentation: turned about y by up to so many radians,
        stretch: each axis made longer or shorter by up to this share,
        mirror: every other time mirrored, across the plane x = 0 or z = 0 to which the cloud is nearer to symmetric,
        warp: and parts of it made longer or shorter by up to about this share, see `proportioned`.

    Raises:
        ConfigError: numbers outside their range.
    """

    axes = ("point", "coordinate")
    size_name = "n_points"
    scale: Tensor

    def __init__(
        self,
        points: int = 2048,
        train_points: int = 2048,
        yaw: float = 0.0,
        stretch: float = 0.0,
        mirror: bool = False,
        warp: float = 0.0,
    ) -> None:
        super().__init__()
        points, train_points = plain(points), plain(train_points)
        for name, value in {"points": points, "train_points": train_points}.items():
            if isinstance(value, bool) or not isinstance(value, int) or not FEWEST <= value <= MOST:
                raise ConfigError(f"point codec: {name}={value!r}; give a whole number from {FEWEST} to {MOST:,}.")
        if not (0 <= yaw <= math.pi and 0 <= stretch < 1 and 0 <= warp <= 0.7):
            raise ConfigError(
                f"point codec: yaw={yaw}, stretch={stretch}, warp={warp}; give 0 <= yaw <= pi, 0 <= stretch < 1 and "
                "0 <= warp <= 0.7."
            )
        self.shape = (points, 3)
        self.train_points, self.yaw, self.stretch, self.mirror, self.warp = train_points, yaw, stretch, mirror, warp
        # standard deviation of the training clouds' coordinates; before `fit` that of the furniture
        self.register_buffer("scale", torch.tensor(0.324))

    def sample_size(self, value: int | None, rng: torch.Generator) -> int:
        if value is None:
            return self.shape[0]
        if not FEWEST <= value <= MOST:
            raise ConfigError(f"n_points={value}: give {FEWEST} to {MOST:,} points.")
        return value

    def fit(self, dataset: Dataset) -> None:
        """Take the scale from up to 5,000 clouds, evenly picked."""
        rows = range(0, len(dataset), max(1, -(-len(dataset) // FIT_CLOUDS)))
        squares = [float((dataset[i][0].points.astype("float64") ** 2).mean()) for i in rows]
        self.scale = torch.tensor(math.sqrt(sum(squares) / len(squares)))

    def encode(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """A normalised PointCloud -> x0 (N, 3) float32; for training (train_points, 3), augmented.

        Raises:
            DataError: no PointCloud, too few or too many points, or one that is not normalised.
        """
        if not isinstance(item, PointCloud):
            raise DataError(f"the point codec encodes a zoo.point3d PointCloud, got {type(item).__name__}.")
        if not FEWEST <= len(item) <= MOST:
            raise DataError(f"a cloud of {len(item)} points: this model takes {FEWEST} to {MOST:,}.")
        if not item.points.max() - item.points.min() < 2 * FAR:
            raise DataError(
                f"the cloud reaches from {item.points.min():.3g} to {item.points.max():.3g}; models work in a unit sphere: "
                "PointCloud.normalised(points)."
            )
        x = torch.from_numpy(item.points)
        return (x if rng is None else self.augment(x, item.mirror_axis, rng)) / self.scale.cpu()

    def augment(self, x: Tensor, axis: int, rng: torch.Generator) -> Tensor:
        """Other points of the same cloud, (train_points, 3): turned, stretched, mirrored along `axis`."""
        rows = torch.randperm(len(x), generator=rng)
        if len(x) < self.train_points:  # a small cloud's points come more than once
            rows = torch.cat([rows, torch.randint(len(x), (self.train_points - len(x),), generator=rng)])
        x = x[rows[: self.train_points]]
        turn, flip, *stretch = torch.rand(5, generator=rng).mul(2).sub(1).tolist()
        if self.warp:
            x = self.proportioned(x, rng)
        factors = torch.tensor([1 + self.stretch * s for s in stretch])
        if self.mirror and flip > 0:
            factors[axis] *= -1
        c, s = math.cos(self.yaw * turn), math.sin(self.yaw * turn)
        return (x * factors) @ torch.tensor([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])

    def proportioned(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """A cloud (N, 3) of other proportions: longer legs, a wider middle, and what was straight or flat along an axis stays.

        Along an axis u from -1 to 1, the cloud's ends, becomes u + (a sin(pi u) + b (1 + cos(pi u))) / pi with random a and
        b up to `warp`: no point passes another, the ends stay. Only along y, where shapes are not symmetric, b is not 0.
        """
        low, high = x.aminmax(dim=0)
        half = ((high - low) / 2).clamp(min=1e-6)
        u = (x - low) / half - 1
        a, b = torch.rand(2, 3, generator=rng).mul(2).sub(1) * self.warp
        b = b * torch.tensor([0.0, 1.0, 0.0])
        return low + half * (1 + u + (a * (math.pi * u).sin() + b * (1 + (math.pi * u).cos())) / math.pi)

    def in_units(self, x0: Tensor) -> Tensor:
        """Points (B, N, 3) in the clouds' own units, a unit sphere."""
        return x0 * self.scale.to(x0)

    def density_units(self, x0: Tensor) -> Units:
        """Radii of the unit sphere; the density is that of the points in their order."""
        return Units("radii of the unit sphere", -x0.numel() * math.log(float(self.scale)))

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[PointCloud]:
        return [PointCloud(x) for x in (x0.detach().float() * self.scale.float()).cpu().numpy()]

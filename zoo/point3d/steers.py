"""Steers of point clouds: what a depth camera saw, a box, mirror images. All in the clouds' own units: a unit sphere, y up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.core.steer import Symmetry, symmetry
from zoo.core.within import Within
from zoo.data.archive import read_array
from zoo.errors import ConfigError, ShapeError, one_of
from zoo.extras import need
from zoo.point3d.cloud import PointCloud
from zoo.values import known_arguments, number, numbers

AXES = {"x": 0, "y": 1, "z": 2}
#: of a cloud's points, how many lie on the seen side at most: the others are what is to be completed
SEEN = 0.5


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks at `target`.

    Pixel (row, column) is the ray through its centre; row 0 is at the top. Depth is measured along the way that the camera
    looks, not along the ray.

    Args:
        eye, target: where it is, and the place in the middle of its picture.
        up: what is upwards in its picture.
        fov: its field of view from top to bottom, in degrees.

    Raises:
        ConfigError: no such numbers, an eye at its target, or an `up` along the view.
    """

    eye: Sequence[float] = (0.0, 0.0, 3.0)
    target: Sequence[float] = (0.0, 0.0, 0.0)
    up: Sequence[float] = (0.0, 1.0, 0.0)
    fov: float = 45.0

    def __post_init__(self) -> None:
        for name in ("eye", "target", "up"):
            numbers(getattr(self, name), 3, f"camera: {name}")
        if not 0 < number(self.fov, "fov", what="degrees from top to bottom") < 180:
            raise ConfigError(f"fov={self.fov!r}: give degrees above 0 and below 180.")
        ahead = np.subtract(self.target, self.eye)
        if not np.linalg.norm(np.cross(ahead, self.up)) > 1e-9 * max(float(np.linalg.norm(ahead)), 1e-12):
            raise ConfigError(f"camera: eye={self.eye}, target={self.target}, up={self.up} leave its view open.")

    @property
    def frame(self) -> NDArray[np.float64]:
        """Rows: to the right of its picture, upwards in it, and the way that it looks (3, 3)."""
        ahead = np.subtract(self.target, self.eye, dtype=np.float64)
        ahead /= np.linalg.norm(ahead)
        right = np.cross(ahead, self.up)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(right, ahead), ahead])

    def seen(self, points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """(row, column, depth) of points (..., 3) in a picture, in pixels: row 0.5 is the centre of the first one."""
        own = (points - points.new_tensor(list(self.eye))) @ torch.from_numpy(self.frame).to(points).T
        depth = own[..., 2]
        scale = height / (2 * math.tan(math.radians(self.fov) / 2)) / depth.clamp(min=1e-9)
        return height / 2 - own[..., 1] * scale, width / 2 + own[..., 0] * scale, depth

    def points(self, row: Tensor, column: Tensor, depth: Tensor, height: int, width: int) -> Tensor:
        """What `seen` sees there: points (..., 3)."""
        size = 2 * math.tan(math.radians(self.fov) / 2) / height * depth
        own = torch.stack([(column - width / 2) * size, (height / 2 - row) * size, depth], -1)
        return own @ torch.from_numpy(self.frame).to(own) + own.new_tensor(list(self.eye))

    def depth(self, cloud: Any, height: int = 32, width: int = 32) -> NDArray[np.float32]:
        """The depth map (height, width) of a cloud or points (N, 3): of each pixel the nearest point, infinity where none is.

        A cloud has gaps between its points: take pixels that are no smaller than they are.
        """
        values = cloud.points if isinstance(cloud, PointCloud) else PointCloud(cloud).points
        row, column, depth = (v.numpy() for v in self.seen(torch.from_numpy(values).double(), height, width))
        i, j = np.floor(row).astype(int), np.floor(column).astype(int)
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width) & (depth > 0)
        found = np.full((height, width), np.inf, np.float32)
        np.minimum.at(found, (i[inside], j[inside]), depth[inside].astype(np.float32))
        return found


class DepthView(Within):
    """What `depth_view` makes, see there."""

    def __init__(self, image: NDArray[np.float64], camera: Camera, noise: float, interval: tuple[float, float]) -> None:
        self.camera, self.slack, self.shape = camera, noise, image.shape
        self.image = torch.from_numpy(image)
        solid = np.isfinite(image)
        rows, columns = (torch.from_numpy(v) for v in np.nonzero(solid))
        self.surface = camera.points(rows + 0.5, columns + 0.5, self.image[rows, columns], *self.shape)
        # of a pixel where nothing is: the nearest one where something is
        nearest = need("scipy.ndimage", "point3d").distance_transform_edt(~solid, return_distances=False, return_indices=True)
        self.nearest_row, self.nearest_column = (torch.from_numpy(v.astype(np.int64)) for v in nearest)
        super().__init__(self.fitted, interval, "domain", "depth_view")

    def share(self, n: int) -> Tensor:
        """Of a cloud of n points, those that lie on the seen surface (K, 3): at most half, evenly picked."""
        most = max(1, int(SEEN * n))
        if len(self.surface) <= most:
            return self.surface
        return self.surface[torch.linspace(0, len(self.surface) - 1, most).round().long()]

    def fitted(self, points: Tensor) -> Tensor:
        """Clouds (B, N, 3) whose first points lie on the seen surface, and whose others lie behind it."""
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ShapeError(f"depth_view: samples {tuple(points.shape)} are no clouds (B, N, 3).")
        given = self.share(points.shape[1]).to(points)
        free = self.behind(points[:, len(given) :].double()).to(points)
        return torch.cat([given.expand(len(points), -1, -1), free], 1)

    def behind(self, points: Tensor) -> Tensor:
        """Points (..., 3), those in front of what was seen moved onto it, and those where nothing is to the nearest that is."""
        height, width = self.shape
        row, column, depth = self.camera.seen(points, height, width)
        i, j = row.floor().long(), column.floor().long()
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width) & (depth > 0)
        i, j = i.clamp(0, height - 1), j.clamp(0, width - 1)
        image = self.image.to(points)
        empty = inside & (image[i, j] == math.inf)
        at_row, at_column = self.nearest_row.to(i)[i, j], self.nearest_column.to(j)[i, j]
        row = torch.where(empty, at_row + 0.5, row)
        column = torch.where(empty, at_column + 0.5, column)
        seen = torch.where(empty, image[at_row, at_column], image[i, j])
        wrong = inside & (empty | (depth < seen - self.slack))
        found = self.camera.points(row, column, torch.where(depth < seen - self.slack, seen, depth), height, width)
        return torch.where(wrong[..., None], found, points)


def depth_view(
    image: Any, camera: Any = None, *, noise: float = 0.02, interval: tuple[float, float] = (0.0, math.inf)
) -> DepthView:
    """Clouds of what a depth camera saw from one side: they have its surface, and nothing lies in front of it.

    Of each sample up to half of the points are the seen surface, first of all; of the others one in front of the surface by
    more than `noise` is moved back onto it along its ray, and one that would be seen where nothing is goes to the nearest ray
    on which something is. What lies behind is drawn. As in in-painting by "replace", what is seen is held at every step, see
    `zoo.core.within`.

    Args:
        image: depths (H, W) in the clouds' units, as `Camera.depth` makes them, or a .npy of them: infinity where nothing is,
            NaN where nothing is known.
        camera: a Camera, or its arguments by name; default: Camera().
        noise: how far in front of the seen surface a point may lie.
        interval: (lo, hi): acts where lo < sigma / alpha <= hi.

    Raises:
        ConfigError: no camera, or a picture in which nothing is seen. ShapeError: a picture that is not (H, W).
        DataError: a file that cannot be read.
    """
    if camera is None or isinstance(camera, Mapping):
        known_arguments(Camera, camera or {}, "camera argument")
        camera = Camera(**(camera or {}))
    if not isinstance(camera, Camera):
        raise ConfigError(f"depth_view: camera={camera!r}; give a zoo.point3d.Camera, or its arguments by name.")
    if isinstance(image, (str, Path)):
        image = read_array(Path(image), "a depth map")
    try:
        depths = np.asarray(image, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"depth_view: image is a {type(image).__name__}; give depths (H, W), or a .npy of them.") from None
    if depths.ndim != 2:
        raise ShapeError(f"depth_view: an image {depths.shape}; depths (H, W) are needed.")
    if not np.isfinite(depths).any() or (depths <= 0).any():
        raise ConfigError("depth_view: depths must be above 0, infinity where nothing is, and somewhere something is seen.")
    return DepthView(depths, camera, number(noise, "noise", 0, what="in the clouds' units"), interval)


def box(low: Sequence[float], high: Sequence[float], *, interval: tuple[float, float] = (0.0, math.inf)) -> Within:
    """Clouds inside a box: each point is moved to the nearest place in it.

    Args:
        low, high: its corners, three numbers each, in the clouds' units.
        interval: (lo, hi): acts where lo < sigma / alpha <= hi.

    Raises:
        ConfigError: no numbers, or a corner that is not below the other.
    """
    least, most = numbers(low, 3, "box: low"), numbers(high, 3, "box: high")
    if not all(a < b for a, b in zip(least, most, strict=True)):
        raise ConfigError(f"box: low={least} must be below high={most} along each axis.")

    def inside(points: Tensor) -> Tensor:
        return points.clamp(points.new_tensor(least), points.new_tensor(most))

    return Within(inside, interval, "domain", "box")


def mirror(axis: str = "x", *, interval: tuple[float, float] = (0.0, math.inf)) -> Symmetry:
    """Clouds of two halves that are each other's mirror image: point i is that of point N - 1 - i, see `zoo.steer.symmetry`.

    The noise is that of one half, so that both are drawn as one.

    Args:
        axis: across which they are mirrored, "x", "y" (upwards) or "z".
        interval: (lo, hi): acts where lo < sigma / alpha <= hi.

    Raises:
        ConfigError: another axis.
    """
    if axis not in AXES:
        raise one_of("axis", axis, AXES)
    turn = torch.ones(3)
    turn[AXES[axis]] = -1
    return symmetry([lambda x: x, lambda x: x.flip(1) * turn.to(x)], shared_noise=True, interval=interval)

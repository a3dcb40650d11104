"""PointCloud: a shape as points. It saves itself, draws itself, turns in notebooks and becomes a mesh."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from zoo import extras
from zoo.errors import ConfigError, DataError, ShapeError, one_of
from zoo.figure import check_axis
from zoo.files import write_atomic

need = partial(extras.need, extra="point3d")
SUFFIXES = (".ply", ".glb", ".obj", ".npz")
#: the three views of a plot: turned about y, then tipped towards the eye, in radians
VIEWS = ((0.6, 0.35), (0.0, 0.0), (math.pi / 2, 0.0))
#: colours of the points, nearest and farthest
NEAR, FAR = np.array([16, 54, 108]), np.array([190, 208, 228])


class PointCloud:
    """A cloud of points, y up.

    Attributes:
        points: (N, 3) float32; of models and their data in a unit sphere about the mean, without dimension.
        centre, scale: where and how large the original was: `original` is scale * points + centre.

    Raises:
        ShapeError: points that are not (N, 3) with N >= 1.
        DataError: NaN or infinity among them.
        ConfigError: a scale that is not positive, a centre that is not three numbers.
    """

    def __init__(self, points: ArrayLike, centre: ArrayLike = (0.0, 0.0, 0.0), scale: float = 1.0) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused below
            x = np.ascontiguousarray(points, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != 3 or not len(x):
            raise ShapeError(f"a cloud is points (N, 3) of at least one point, got {x.shape}.")
        if not np.isfinite(x).all():
            raise DataError(f"a cloud of {len(x)} points holds NaN or infinity.")
        self.points, self.centre, self.scale = x, np.asarray(centre, dtype=np.float64), float(scale)
        if self.centre.shape != (3,) or not (np.isfinite(self.centre).all() and 0 < self.scale < math.inf):
            raise ConfigError(f"centre={centre!r}, scale={scale!r}: give three numbers and a positive one.")

    @classmethod
    def normalised(cls, points: ArrayLike) -> PointCloud:
        """Points in any units, brought to mean 0 and largest radius 1; centre and scale are kept.

        Raises:
            DataError: all points are the same.
        """
        x = np.asarray(points, dtype=np.float64)
        cls(x)  # its checks come before the arithmetic
        centre = x.mean(0)
        radius = float(np.linalg.norm(x - centre, axis=1).max())
        if not radius > 1e-9 * max(1.0, float(np.abs(centre).max())):
            raise DataError(f"all {len(x)} points are in one place: there is no shape.")
        return cls((x - centre) / radius, centre, radius)

    @property
    def original(self) -> NDArray[np.float64]:
        """The points (N, 3) in the units and at the place that they came from."""
        return self.points.astype(np.float64) * self.scale + self.centre

    def __repr__(self) -> str:
        size = np.ptp(self.points, axis=0)
        return f"PointCloud({len(self)} points, {size[0]:.2f} x {size[1]:.2f} x {size[2]:.2f})"

    def __len__(self) -> int:
        return len(self.points)

    def numpy(self) -> NDArray[np.float32]:
        """(N, 3) float32."""
        return self.points

    @cached_property
    def mirror_axis(self) -> int:
        """The axis, 0 (x) or 2 (z), along which the cloud is nearer to its own mirror image."""
        tree = need("scipy.spatial").cKDTree(self.points)
        far = [tree.query(self.points * np.where(np.arange(3) == axis, -1, 1))[0].mean() for axis in (0, 2)]
        return 0 if far[0] <= far[1] else 2

    def save(self, path: str | Path) -> Path:
        """Write PLY, GLB, OBJ or NPZ, as the suffix says: the points to float32 precision, NPZ also centre and scale.

        Raises:
            ConfigError: another suffix.
            DataError: no such folder. ResourceError: the file cannot be written; what was there stays.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise one_of("point cloud suffix", path.suffix, SUFFIXES)
        if not path.parent.is_dir():
            raise DataError(f"cannot save {path}: there is no folder {path.parent}.")
        if suffix == ".npz":
            memory = io.BytesIO()
            np.savez_compressed(memory, points=self.points, centre=self.centre, scale=self.scale)
            data: Any = memory.getvalue()
        else:
            data = self.to_trimesh().export(file_type=suffix[1:])
        write_atomic(path, data.encode() if isinstance(data, str) else data)
        return path

    def to_trimesh(self) -> Any:
        """The points as a `trimesh.PointCloud`."""
        return need("trimesh").PointCloud(self.points)

    def to_mesh(self, pitch: float | None = None) -> Any:
        """A closed surface around the points as a `trimesh.Trimesh`: marching cubes over the voxels that they and what they
        enclose fill, with gaps of one voxel closed, so half a voxel outside them; then smoothed.

        Args:
            pitch: edge of a voxel, in units of the points; larger closes more holes. Default: five times the mean distance of
                a point to its nearest.

        Raises:
            ConfigError: a pitch that is not positive, or so fine that more than 512 voxels span the cloud.
        """
        need("skimage")  # trimesh's marching cubes are its
        trimesh, x = need("trimesh"), self.points.astype(np.float64)
        if pitch is None:
            pitch = 5 * float(need("scipy.spatial").cKDTree(x).query(x, min(2, len(x)))[0][:, -1].mean()) or 1.0
        if not pitch > 0 or np.ptp(x, axis=0).max() > 512 * pitch:
            raise ConfigError(f"pitch={pitch}: give a positive edge of a voxel, at most 512 of which span the cloud.")
        images, voxels, low = need("scipy.ndimage"), trimesh.voxel.ops, x.min(0)
        filled = np.pad(voxels.sparse_to_matrix(((x - low) / pitch).round().astype(int)), 2)
        solid = images.binary_fill_holes(images.binary_closing(filled, np.ones((3, 3, 3))))
        mesh = voxels.matrix_to_marching_cubes(solid, pitch)
        return trimesh.smoothing.filter_taubin(mesh.apply_translation(low - 2 * pitch))

    def plot(self, ax: Any = None) -> Any:
        """Three views, nearer points darker: a PIL image. On a matplotlib axis `ax` it is drawn there."""
        check_axis(ax)
        picture = contact_sheet([self], [""], size=256)
        return picture if ax is None else ax.imshow(picture)

    def spin(self, path: str | Path, frames: int = 36, size: int = 240) -> Path:
        """Write a GIF in which the cloud turns once, three seconds long."""
        path = Path(path)
        if path.suffix.lower() != ".gif" or frames < 2:
            raise ConfigError(f"spin({str(path)!r}, frames={frames}): give a .gif and at least 2 frames.")
        turns = (2 * math.pi * i / frames for i in range(frames))
        pictures = [Image.fromarray(render(self.points, turn, 0.35, size)).quantize(32) for turn in turns]
        memory, how = io.BytesIO(), {"save_all": True, "duration": 3000 // frames, "loop": 0}
        pictures[0].save(memory, format="GIF", append_images=pictures[1:], **how)
        write_atomic(path, memory.getvalue())
        return path

    def _repr_html_(self) -> str:
        """The cloud in 3D, to be turned by hand: trimesh's viewer, which needs no internet."""
        page = need("trimesh.viewer.notebook").scene_to_html(need("trimesh").Scene(self.to_trimesh()))
        return f'<iframe srcdoc="{html.escape(page)}" width="100%" height="360" style="border:0"></iframe>'


def render(points: NDArray[Any], turn: float, tip: float, size: int) -> NDArray[np.uint8]:
    """An orthographic picture (size, size, 3) of points (N, 3) in a unit sphere, nearer ones darker and on top.

    Args:
        turn: about y, radians; at 0 the eye is on the z axis.
        tip: of the eye above the ground, radians.
    """
    (c, s), (ct, st) = ((math.cos(a), math.sin(a)) for a in (turn, tip))
    x, depth = c * points[:, 0] - s * points[:, 2], s * points[:, 0] + c * points[:, 2]
    y, depth = ct * points[:, 1] - st * depth, st * points[:, 1] + ct * depth
    order = np.argsort(depth)  # the nearest last
    shade = np.clip((depth[order] + 1) / 2, 0, 1)[:, None]
    colours = (FAR + shade * (NEAR - FAR)).astype(np.uint8)
    dot = max(1, round(size / 90))
    column, row = ((v[order] * 0.47 + 0.5) * size - dot / 2 for v in (x, -y))
    picture = np.full((size, size, 3), 255, np.uint8)
    for dx in range(dot):
        for dy in range(dot):
            i, j = (row + dy).round().astype(int), (column + dx).round().astype(int)
            inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
            picture[i[inside], j[inside]] = colours[inside]
    return picture


def contact_sheet(clouds: Sequence[PointCloud], titles: Sequence[str], size: int = 120) -> Any:
    """Three views of each cloud side by side below its title, as a PIL image."""
    columns = max(1, min(len(clouds), round((len(clouds) / 2) ** 0.5)))
    rows, head = -(-len(clouds) // columns), 14 if any(titles) else 0
    sheet = Image.new("RGB", (columns * (3 * size + 8), rows * (size + head)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (cloud, title) in enumerate(zip(clouds, titles, strict=True)):
        left, top = i % columns * (3 * size + 8), i // columns * (size + head)
        views = np.concatenate([render(cloud.points, *view, size) for view in VIEWS], 1)
        sheet.paste(Image.fromarray(views), (left, top + head))
        draw.text((left + 4, top), title, fill="black")
    return sheet

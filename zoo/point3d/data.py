"""Shapes to train on: the furniture archive and any folder of meshes or point clouds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo.contract.dataset import Dataset
from zoo.data.archive import read_archive
from zoo.data.folder import Folder, existing
from zoo.errors import DataError, ZooError, one_of
from zoo.point3d.cloud import PointCloud, need

SPLITS = ("train", "validation", "test")
MESHES, POINTS = (".obj", ".ply", ".stl", ".glb", ".off"), (".npy", ".npz", ".xyz")
#: points that are sampled from a mesh, of which training takes others each time
POOL = 4096
#: bytes of the largest file that is read: a mesh of ten million faces
LARGEST = 512 * 2**20
FURNITURE, AIRPLANES = "pointcloud_furniture_cc.npz", "pointcloud_airplane_gpl.npz"
#: share of each category's training shapes that nothing trains on and choices are made on
VALIDATION = 0.1
#: rows of an epoch for each shape of the most frequent class; finer steps of the balance, longer epochs
REPEATS = 3


def balanced(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Rows of one epoch: each item of a class of n comes about REPEATS sqrt(n_max / n) times.

    So a class weighs as sqrt(n): rare ones are seen more often than they are, but not so often that they are learnt by heart.
    """
    counts = np.bincount(labels)
    times = np.rint(REPEATS * np.sqrt(counts.max() / counts[labels])).astype(int)
    return np.repeat(np.arange(len(labels)), times)


class Clouds(Dataset):
    """Clouds in memory.

    Args:
        clouds: normalised.
        label: class numbers (n,) or None.
        names: class names.
        balance: repeat the rows of rare classes, see `balanced`.
    """

    def __init__(
        self, clouds: Sequence[PointCloud], label: ArrayLike | None, names: Sequence[str], balance: bool = False
    ) -> None:
        self.clouds, self.label = list(clouds), None if label is None else np.asarray(label).astype(int)
        self.labels = {} if label is None else {"label": list(names)}
        self.rows = np.arange(len(self.clouds)) if self.label is None or not balance else balanced(self.label)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[PointCloud, dict[str, Any]]:
        row = self.rows[i]
        return self.clouds[row], {} if self.label is None else {"label": int(self.label[row])}


def archive(path: Path, split: str = "train") -> Clouds:
    """Shapes of 2,048 points from `pointcloud_furniture_cc.npz` or `pointcloud_airplane_gpl.npz`.

    "test" is the archive's own, "validation" a tenth of the other shapes of each category, by a fixed draw.
    """
    z = read_archive(path, ("points", "labels", "is_test", "categories"), "an archive of shapes")
    points, label, test, names = z["points"], z["labels"], z["is_test"], [str(n) for n in z["categories"]]
    fits = label.ndim == 1 and points.shape[:1] == label.shape == test.shape and test.dtype == bool
    if not fits or not np.issubdtype(label.dtype, np.integer) or not np.isin(label, np.arange(len(names))).all():
        found = ", ".join(f"{k} {z[k].shape} {z[k].dtype}" for k in ("points", "labels", "is_test"))
        raise DataError(
            f"{path} is not an archive of shapes: {found}; it needs a number below {len(names)} and a bool for each cloud."
        )
    rng, held = np.random.default_rng(0), np.zeros_like(test)
    for c in range(len(names)):
        rows = rng.permutation(np.flatnonzero((label == c) & ~test))
        held[rows[: round(VALIDATION * len(rows))]] = True
    rows = np.flatnonzero({"test": test, "validation": held, "train": ~test & ~held}[split])
    clouds = [PointCloud(x) for x in points[rows].astype(np.float32) / 32767]
    return Clouds(clouds, label[rows], names, balance=split == "train")


# ---------------------------------------------------------------- anybody's shapes


def read_shape(path: str | Path, points: int = POOL) -> PointCloud:
    """A mesh or a point cloud as a normalised cloud that remembers its centre and scale.

    The meshes of a scene are merged and `points` points sampled uniformly from their surface, always the same ones; a
    file without faces gives its own points.

    Raises:
        DataError: a file that is empty, above 512 MB, no mesh or cloud, without surface, or with NaN in it; it is named.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if not 0 < size <= LARGEST:
        raise DataError(f"{path}: {size:,} bytes; files of 1 to {LARGEST:,} bytes are read. Make a large mesh coarser first.")
    found = _arrays(path) if path.suffix.lower() in (".npy", ".npz") else _geometry(path, points)
    try:
        return PointCloud.normalised(found)
    except ZooError as error:
        raise DataError(f"{path}: {error}") from error


def _arrays(path: Path) -> NDArray[Any]:
    """The points of an NPY file, or of `points` in an NPZ file; errors as `read_shape`."""
    if path.suffix.lower() == ".npz":
        return read_archive(path, ("points",), "a cloud of points")["points"]
    try:
        with path.open("rb") as file:  # np.load would open an archive, too, whatever the name of the file
            found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: no readable array of points ({error})") from error
    return found


def _geometry(path: Path, points: int) -> NDArray[Any]:
    """Points of what trimesh reads; errors as `read_shape`."""
    trimesh = need("trimesh")
    try:
        parts = trimesh.load_scene(path, process=False, skip_materials=True).dump()
    except Exception as error:  # the readers of a dozen formats raise whatever they meet
        raise DataError(f"{path}: no readable mesh or cloud ({type(error).__name__}: {error})") from error
    meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if not all(np.isfinite(part.vertices).all() for part in parts):
        raise DataError(f"{path}: its vertices hold NaN or infinity")
    if not meshes:
        clouds = [part.vertices for part in parts if len(getattr(part, "vertices", ()))]
        if not clouds:
            raise DataError(f"{path}: holds neither faces nor points")
        return np.concatenate(clouds)
    mesh = trimesh.util.concatenate(meshes)
    if not mesh.area > 0:
        raise DataError(f"{path}: the surface of its {len(mesh.faces)} faces is zero")
    return trimesh.sample.sample_surface(mesh, points, seed=0)[0]


class ShapeFolder(Folder):
    """All meshes and clouds below a folder, see `zoo.data.folder.Folder`; kept in `clouds` by path once they are read."""

    def __init__(self, folder: str | Path, split: str, skip_unreadable: bool) -> None:
        self.clouds: dict[Path, PointCloud] = {}
        super().__init__(folder, split, (*MESHES, *POINTS), "shape", self.read, skip_unreadable)

    def read(self, path: Path) -> None:
        """Read one file; errors as `read_shape`."""
        self.clouds[path] = read_shape(path)

    def __getitem__(self, i: int) -> tuple[PointCloud, dict[str, Any]]:
        return self.clouds[self.files[i]], self.given(i)


def folder_clouds(folder: str | Path, split: str = "train", skip_unreadable: bool = False) -> Clouds:
    """The clouds of a folder with its classes.

    Where files lie in folders that are named after splits (ModelNet: class/train, PointFlow's ShapeNet: class/val), those
    are the splits; without one for validation, every tenth training shape is held out for it.
    """
    found = ShapeFolder(folder, split, skip_unreadable)
    items = [found[i] for i in range(len(found))]
    label = [cond["label"] for _, cond in items] if found.labels else None
    result = Clouds([cloud for cloud, _ in items], label, found.labels.get("label", []), balance=split == "train")
    result.origin = f"{len(found)} shapes of the folder {found.folder.resolve().name!r}"
    return result


def open_clouds(source: str | Path, split: str = "train", *, skip_unreadable: bool = False) -> Clouds:
    """The archive of shapes, or a folder of meshes and clouds, whichever `source` is."""
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    path = existing(source, f"a folder of {', '.join((*MESHES, *POINTS))} files, or {FURNITURE}")
    path = path / FURNITURE if (path / FURNITURE).exists() else path
    if path.is_file():
        if path.suffix != ".npz":
            raise DataError(f"{path} is one file: give the folder of {', '.join((*MESHES, *POINTS))} files, or {FURNITURE}.")
        return archive(path, split)
    return folder_clouds(path, split, skip_unreadable)

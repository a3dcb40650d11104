"""Shapes to train on: the furniture archive and any folder of meshes or point clouds."""

from __future__ import annotations

import math
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
from zoo.point3d.codec import FEWEST, MOST
from zoo.point3d.gltf import read_gltf
from zoo.point3d.meshfile import read_mesh
from zoo.point3d.pointfile import read_pcd, read_text

SPLITS = ("train", "validation", "test")
MESHES, POINTS = (".obj", ".ply", ".stl", ".glb", ".gltf", ".off"), (".npy", ".npz", ".xyz", ".pts", ".pcd")
#: clouds as text; a .txt counts as one unless its name is that of a list or of a note beside the shapes
TEXTS = (".xyz", ".pts", ".txt")
CLOUD_TEXT = (
    r"(?i)(?!(readme|licen[cs]e|notice|copying|changes|changelog|requirements|attribution|credits|(train|val|test|all|.*(_|-|^)"
    r"(names?|list|files?|filelist|split|train|val|test|classes|categories|labels?|ids)|synsetoffset2category)\.txt)).*\.txt"
)
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
        DataError: a file that is empty, truncated, above 512 MB, no mesh or cloud, without surface, with NaN in it, or with
            parts that cannot be read; it is named.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not 0 < size <= LARGEST:
            raise DataError(f"{size:,} bytes; files of 1 to {LARGEST:,} bytes are read. Make a large mesh coarser first.")
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of odd numbers is refused, not warned of
            return PointCloud.normalised(_points(path, points))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise DataError(f"{path}: too large for the memory of this machine") from error
    except ZooError as error:
        message = str(error).rstrip(".")  # what lists it goes on
        raise DataError(message if str(path) in message else f"{path}: {message}") from error


def _points(path: Path, points: int) -> NDArray[Any]:
    """The points (N, 3) of a file, or `points` of its surface; errors as `read_shape`."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _numbers(read_archive(path, ("points",), "a cloud of points")["points"])
    if suffix == ".npy":
        return _numbers(_array(path))
    if suffix in TEXTS:
        return read_text(path)
    if suffix == ".pcd":
        return read_pcd(path)
    parts = read_gltf(path) if suffix in (".glb", ".gltf") else read_mesh(path)
    if not all(np.isfinite(vertices).all() for vertices, _ in parts):
        raise DataError("its vertices hold NaN or infinity")
    surfaces = [(vertices, faces) for vertices, faces in parts if faces is not None and len(faces)]
    if not surfaces:
        if not parts:
            raise DataError("holds neither faces nor points")
        return np.concatenate([vertices for vertices, _ in parts])
    trimesh = need("trimesh")
    mesh = trimesh.util.concatenate([trimesh.Trimesh(vertices, faces, process=False) for vertices, faces in surfaces])
    if not 0 < mesh.area < math.inf:
        raise DataError(f"the surface of its {len(mesh.faces)} faces is {'zero' if not mesh.area > 0 else 'not finite'}")
    return np.asarray(trimesh.sample.sample_surface(mesh, points, seed=0)[0])


def _array(path: Path) -> NDArray[Any]:
    """The points of an NPY file; nothing is allocated before the file is known to hold what its header says."""
    numpy = np.lib.format
    try:
        with path.open("rb") as file:  # np.load would open an archive, too, whatever the name of the file
            major = numpy.read_magic(file)[0]
            shape, _, dtype = (numpy.read_array_header_1_0 if major == 1 else numpy.read_array_header_2_0)(file)
            if math.prod(shape) * dtype.itemsize > path.stat().st_size - file.tell():
                raise ValueError(f"it is truncated, or its header is damaged: {shape} {dtype}")
            file.seek(0)
            found: NDArray[Any] = numpy.read_array(file, allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python, with the errors of it
        raise DataError(f"no readable array of points ({error})") from error
    return found


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    """The array, where it is one of real numbers."""
    if array.dtype.kind not in "fiu":
        raise DataError(f"its points are {array.dtype}, not real numbers")
    return array


class ShapeFolder(Folder):
    """All meshes and clouds below a folder, see `zoo.data.folder.Folder`; kept in `clouds` by path once they are read."""

    def __init__(self, folder: str | Path, split: str, skip_unreadable: bool) -> None:
        self.clouds: dict[Path, PointCloud] = {}
        super().__init__(folder, split, (*MESHES, *POINTS), "shape", self.read, skip_unreadable, CLOUD_TEXT)

    def read(self, path: Path) -> None:
        """Read one file; errors as `read_shape`, also for a cloud of so few or so many points that no model takes it."""
        cloud = read_shape(path)
        if not FEWEST <= len(cloud) <= MOST:
            what = "Thin it out, or give a mesh" if len(cloud) > MOST else "Give a mesh, or a denser cloud"
            raise DataError(f"{path}: a cloud of {len(cloud):,} points: models take {FEWEST} to {MOST:,}. {what}")
        self.clouds[path] = cloud

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
    result.origin = found.origin
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

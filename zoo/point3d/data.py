"""Shapes to train on: the furniture archive and any folder of meshes or point clouds."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.domain import Dataset
from zoo.errors import DataError, one_of
from zoo.point3d.cloud import PointCloud

SPLITS = ("train", "validation", "test")
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
        self, clouds: Sequence[PointCloud], label: NDArray[Any] | None, names: Sequence[str], balance: bool = False
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
    try:
        with np.load(path, allow_pickle=False) as z:
            points, label, test = z["points"], z["labels"].astype(int), z["is_test"]
            names = [str(n) for n in z["categories"]]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an archive of shapes: {error}.") from error
    rng, held = np.random.default_rng(0), np.zeros_like(test)
    for c in range(len(names)):
        rows = rng.permutation(np.flatnonzero((label == c) & ~test))
        held[rows[: round(VALIDATION * len(rows))]] = True
    rows = np.flatnonzero({"test": test, "validation": held, "train": ~test & ~held}[split])
    clouds = [PointCloud(x) for x in points[rows].astype(np.float32) / 32767]
    return Clouds(clouds, label[rows], names, balance=split == "train")


def open_clouds(source: str | Path, split: str = "train", *, skip_unreadable: bool = False) -> Clouds:
    """The archive of shapes, or a folder of meshes and clouds, whichever `source` is."""
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    path = Path(source).expanduser()
    path = path / FURNITURE if (path / FURNITURE).exists() else path
    if not path.exists():
        raise DataError(f"no data at {path}. Give a folder of meshes or {FURNITURE}.")
    return archive(path, split)

"""Backbones to train on: the packaged chains, and any folder of structures."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.domain import Dataset
from zoo.errors import DataError, one_of
from zoo.protein.backbone import Backbone

SPLITS = ("train", "validation", "test")
CHAINS_FILE = "protein_backbones.npz"
#: share of the training clusters (25 % identity) that are held out for choices
VALIDATION = 0.08


class Chains(Dataset):
    """Backbones in memory.

    Args:
        atoms: (N, 3, 3) angstrom for each chain: N, CA, C.
        names: of the chains.
    """

    def __init__(self, atoms: Sequence[NDArray[Any]], names: Sequence[str]) -> None:
        self.items = [Backbone(x, name) for x, name in zip(atoms, names, strict=True)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Backbone, dict[str, Any]]:
        return self.items[i], {}

    def sizes(self) -> Tensor:
        return torch.tensor([len(item) for item in self.items])


def packaged(path: Path, split: str = "train", min_length: int = 32, max_length: int = 128) -> Chains:
    """The globular chains of `protein_backbones.npz`; no two splits share a cluster of 25 % identity."""
    names = ("coords", "offsets", "ids", "is_test", "cluster25", "globular")
    try:
        with np.load(path, allow_pickle=False) as z:
            coords, offsets, ids, test, cluster, globular = (z[k] for k in names)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as {CHAINS_FILE}: {error}.") from error
    order = np.random.default_rng(0).permutation(np.unique(cluster[~test]))
    held = np.isin(cluster, order[: round(VALIDATION * len(order))]) & ~test
    size = np.diff(offsets)
    fits = globular & (min_length <= size) & (size <= max_length)
    rows = np.flatnonzero(fits & {"test": test, "validation": held, "train": ~test & ~held}[split])
    return Chains([coords[offsets[i] : offsets[i + 1], :3] for i in rows], [str(ids[i]) for i in rows])


def open_chains(source: str | Path, split: str = "train", *, min_length: int = 32, max_length: int = 128) -> Dataset:
    """The packaged chains."""
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    path = Path(source).expanduser()
    path = path / CHAINS_FILE if (path / CHAINS_FILE).exists() else path
    if not path.exists():
        raise DataError(f"no data at {path}. Give a folder of structures or {CHAINS_FILE}.")
    return packaged(path, split, min_length, max_length)

"""Backbones to train on: the collected chains, and any folder of structures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.contract.dataset import Dataset
from zoo.data.archive import read_archive
from zoo.data.folder import Folder, existing
from zoo.errors import DataError, one_of
from zoo.protein.backbone import Backbone
from zoo.protein.structure import ALONE, BACKBONE, Chain, read_structure
from zoo.protein.trace import Trace

SPLITS = ("train", "validation", "test")
CHAINS_FILE = "protein_backbones.npz"
SUFFIXES, CATH = (".pdb", ".ent", ".cif", ".mmcif", ".gz"), r"\d\w{4}\d\d"  # CATH's domains have names alone: 12asA00
#: share of the training clusters (25 % identity) that are held out for choices
VALIDATION = 0.08


class Chains(Dataset):
    """Backbones, or CA traces, in memory.

    Attributes:
        rejected: what was left out of the user's own files and why, one line each.
    """

    def __init__(self, items: Sequence[Backbone | Trace], origin: str | None = None, rejected: Sequence[str] = ()) -> None:
        self.items, self.origin, self.rejected = list(items), origin, list(rejected)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Backbone | Trace, dict[str, Any]]:
        return self.items[i], {}

    def sizes(self) -> Tensor:
        return torch.tensor([len(item) for item in self.items])


def collected(path: Path, split: str = "train", min_length: int = 32, max_length: int = 128, trace: bool = False) -> Chains:
    """The globular chains of `protein_backbones.npz`; no two splits share a cluster of 25 % identity."""
    names = ("coords", "offsets", "ids", "is_test", "cluster25", "globular")
    coords, offsets, ids, test, cluster, globular = read_archive(path, names, "an archive of chains").values()
    order = np.random.default_rng(0).permutation(np.unique(cluster[~test]))
    held = np.isin(cluster, order[: round(VALIDATION * len(order))]) & ~test
    size = np.diff(offsets)
    fits = globular & (min_length <= size) & (size <= max_length)
    rows = np.flatnonzero(fits & {"test": test, "validation": held, "train": ~test & ~held}[split])
    whole = [(coords[offsets[i] : offsets[i + 1], :3], str(ids[i])) for i in rows]
    return Chains([Trace(atoms[:, 1], name) if trace else Backbone(atoms, name) for atoms, name in whole])


def atoms_of(chain: Chain, rows: Sequence[int]) -> NDArray[np.float64]:
    """The atoms (N, 3, 3) or (N, 1, 3) of some residues of a chain."""
    return np.stack([chain.residues[i].atoms for i in rows])


def read_chains(
    path: str | Path, min_length: int = 32, max_length: int = 128, trace: bool = False
) -> tuple[list[Backbone | Trace], list[str]]:
    """The backbones in a structure file (of an ensemble the first model), and what was left out and why.

    Args:
        trace: CA alone, also of files that have nothing else.

    Raises:
        DataError: a file without any that fits; the message says why.
    """
    chains: list[Backbone | Trace] = []
    rejected: list[str] = []
    for chain in read_structure(path, ALONE if trace else BACKBONE):
        if not chain.residues and chain.trace:
            rejected.append(f"{path} chain {chain.id or '_'}: no residue has N, CA and C (a CA trace?)")
        for run in chain.runs():
            if min_length <= len(run) <= max_length:
                atoms, name = atoms_of(chain, run), f"{Path(path).name}:{chain.name(run)}"
                chains.append(Trace(atoms[:, 0], name) if trace else Backbone(atoms, name))
            else:
                rejected.append(
                    f"{path} {chain.name(run)}: an unbroken run of {len(run)} residues, not {min_length} to {max_length}"
                )
    if not chains:
        raise DataError("; ".join(rejected[:5]) or f"{path}: holds no protein chain")
    return chains, rejected


def open_chains(
    source: str | Path,
    split: str = "train",
    *,
    min_length: int = 32,
    max_length: int = 128,
    trace: bool = False,
    skip_unreadable: bool = False,
) -> Chains:
    """The collected chains, or those of a folder of PDB and mmCIF files (.gz too), whichever `source` is.

    Args:
        trace: CA alone, also of files that have nothing else.
    """
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    path = existing(source, f"a folder of {', '.join(SUFFIXES)} files, or {CHAINS_FILE}")
    path = path / CHAINS_FILE if (path / CHAINS_FILE).exists() else path
    if path.suffix == ".npz" and path.is_file():
        return collected(path, split, min_length, max_length, trace)
    found: dict[Path, tuple[list[Backbone | Trace], list[str]]] = {}

    def read(file: Path) -> None:
        found[file] = read_chains(file, min_length, max_length, trace)

    folder = Folder(path, split, SUFFIXES, "structure", read, skip_unreadable, CATH)
    items = [chain for file in folder.files for chain in found[file][0]]
    rejected = [*folder.skipped.values(), *(line for file in folder.files for line in found[file][1])]
    if rejected:
        warnings.warn(f"{len(rejected)} chains are left out: {'; '.join(rejected[:5])}", stacklevel=2)
    return Chains(items, f"{len(items)} chains of {folder.origin}", rejected)

"""Backbones to train on: the collected chains, and any folder of structures; and motifs to build around."""

from __future__ import annotations

import gzip
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.contract.dataset import Dataset
from zoo.data.archive import read_archive
from zoo.data.folder import Folder, existing
from zoo.errors import ConfigError, DataError, one_of
from zoo.protein.backbone import Backbone, need

SPLITS = ("train", "validation", "test")
CHAINS_FILE = "protein_backbones.npz"
SUFFIXES, CATH = (".pdb", ".ent", ".cif", ".gz"), r"\d\w{4}\d\d"  # CATH's domains have names alone: 12asA00
#: share of the training clusters (25 % identity) that are held out for choices
VALIDATION = 0.08
#: a bond C-N longer than this, in angstrom, is a gap
GAP = 1.8


class Chains(Dataset):
    """Backbones in memory.

    Attributes:
        rejected: what was left out of the user's own files and why, one line each.
    """

    def __init__(self, items: Sequence[Backbone], origin: str | None = None, rejected: Sequence[str] = ()) -> None:
        self.items, self.origin, self.rejected = list(items), origin, list(rejected)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Backbone, dict[str, Any]]:
        return self.items[i], {}

    def sizes(self) -> Tensor:
        return torch.tensor([len(item) for item in self.items])


def collected(path: Path, split: str = "train", min_length: int = 32, max_length: int = 128) -> Chains:
    """The globular chains of `protein_backbones.npz`; no two splits share a cluster of 25 % identity."""
    names = ("coords", "offsets", "ids", "is_test", "cluster25", "globular")
    coords, offsets, ids, test, cluster, globular = read_archive(path, names, "an archive of chains").values()
    order = np.random.default_rng(0).permutation(np.unique(cluster[~test]))
    held = np.isin(cluster, order[: round(VALIDATION * len(order))]) & ~test
    size = np.diff(offsets)
    fits = globular & (min_length <= size) & (size <= max_length)
    rows = np.flatnonzero(fits & {"test": test, "validation": held, "train": ~test & ~held}[split])
    return Chains([Backbone(coords[offsets[i] : offsets[i + 1], :3], str(ids[i])) for i in rows])


def read_structure(path: str | Path) -> Any:
    """The first model of a PDB or mmCIF file (.gz too), as Biopython's.

    Raises:
        DataError: empty, truncated or no structure file; the message names it.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        text = data.decode()
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    last = text.rstrip("\n").rpartition("\n")[2]
    if last.startswith(("ATOM", "HETATM")) and len(last) < 54 and "loop_" not in text:
        raise DataError(f"{path}: truncated in the middle of an atom")
    parser = need("Bio.PDB").MMCIFParser if ".cif" in [s.lower() for s in path.suffixes] else need("Bio.PDB").PDBParser
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = next(iter(parser(QUIET=True).get_structure(path.name, io.StringIO(text))))
    except Exception as error:  # Biopython raises whatever the broken line led to
        raise DataError(f"{path}: no readable structure ({type(error).__name__}: {error})") from error
    return model


def stretches(chain: Any) -> Iterator[tuple[str, Any]]:
    """Unbroken runs of residues of one of Biopython's chains: their name ("A20-35") and residues.

    Waters and ligands do not count; a residue without N, CA or C, or a gap in the bonds, ends a run. Of alternative
    locations Biopython takes the fullest.
    """
    known = need("Bio.Data.PDBData").protein_letters_3to1_extended
    run: list[Any] = []
    for residue in [r for r in chain if r.get_resname().strip() in known]:
        whole = all(name in residue for name in ("N", "CA", "C"))
        if run and (not whole or residue["N"] - run[-1]["C"] > GAP):
            yield f"{chain.id}{run[0].id[1]}-{run[-1].id[1]}", run
            run = []
        if whole:
            run.append(residue)
    if run:
        yield f"{chain.id}{run[0].id[1]}-{run[-1].id[1]}", run


def atoms_of(run: Sequence[Any]) -> Any:
    """N, CA, C (N, 3, 3) of Biopython's residues."""
    return np.stack([np.stack([r[name].coord for name in ("N", "CA", "C")]) for r in run])


def read_chains(path: str | Path, min_length: int = 32, max_length: int = 128) -> tuple[list[Backbone], list[str]]:
    """The backbones in a structure file (of an ensemble the first model), and what was left out and why.

    Raises:
        DataError: a file without any that fits; the message says why.
    """
    chains, rejected = [], []
    for chain in read_structure(path):
        runs = list(stretches(chain))
        if not runs and any("CA" in r for r in chain):
            rejected.append(f"{path} chain {chain.id}: no residue has N, CA and C (a CA trace?)")
        for name, run in runs:
            if min_length <= len(run) <= max_length:
                chains.append(Backbone(atoms_of(run), f"{Path(path).name}:{name}"))
            else:
                rejected.append(f"{path} {name}: an unbroken run of {len(run)} residues, not {min_length} to {max_length}")
    if not chains:
        raise DataError("; ".join(rejected[:5]) or f"{path}: holds no protein chain")
    return chains, rejected


def read_motif(text: str) -> Backbone:
    """The residues of a motif "file.pdb:A20-35": chain A, 20 to 35 as the file numbers them, unbroken and whole."""
    found = re.fullmatch(r"(.+):([A-Za-z]+|\d)(-?\d+)-(-?\d+)", text)
    if not found:
        raise ConfigError(f'motif={text!r}: give a file, a chain and residues as in "1abc.pdb:A20-35".')
    path, name, first, last = found[1], found[2], int(found[3]), int(found[4])
    model = read_structure(path)
    if name not in model:
        raise one_of(f"chain of {path}", name, [c.id for c in model])
    for _, run in stretches(model[name]):
        numbers = [r.id[1] for r in run]
        if first <= last and first in numbers and last in numbers:
            return Backbone(atoms_of([r for r, k in zip(run, numbers, strict=True) if first <= k <= last]), text)
    whole = ", ".join([name for name, _ in stretches(model[name])][:9])
    raise DataError(f"{text}: not an unbroken run of residues with N, CA and C. There are: {whole or 'none'}.")


def open_chains(
    source: str | Path, split: str = "train", *, min_length: int = 32, max_length: int = 128, skip_unreadable: bool = False
) -> Chains:
    """The collected chains, or those of a folder of PDB and mmCIF files (.gz too), whichever `source` is."""
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    path = existing(source, f"a folder of {', '.join(SUFFIXES)} files, or {CHAINS_FILE}")
    path = path / CHAINS_FILE if (path / CHAINS_FILE).exists() else path
    if path.suffix == ".npz" and path.is_file():
        return collected(path, split, min_length, max_length)
    found: dict[Path, tuple[list[Backbone], list[str]]] = {}

    def read(file: Path) -> None:
        found[file] = read_chains(file, min_length, max_length)

    folder = Folder(path, split, SUFFIXES, "structure", read, skip_unreadable, CATH)
    items = [chain for file in folder.files for chain in found[file][0]]
    rejected = [*folder.skipped.values(), *(line for file in folder.files for line in found[file][1])]
    if rejected:
        warnings.warn(f"{len(rejected)} chains are left out: {'; '.join(rejected[:5])}", stacklevel=2)
    return Chains(items, f"{len(items)} chains of {folder.origin}", rejected)

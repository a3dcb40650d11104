"""Chains around a motif that may lie anywhere in space."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.contract.domain import Generator
from zoo.core.steer import Place
from zoo.errors import ConfigError, DataError, one_of
from zoo.protein.backbone import Backbone
from zoo.protein.codec import FOLLOW
from zoo.protein.data import atoms_of
from zoo.protein.rigid import lay
from zoo.protein.structure import GAP, Chain, read_structure
from zoo.values import plain, whole

#: residues of a chain, by number ("20-35", "-3-52A") or by index from 1 ("#20-35")
RANGE = re.compile(r"(?:(#)(\d+)-(\d+)|(-?\d+[A-Za-z]?)-(-?\d+[A-Za-z]?))")
#: how a motif is named, for messages
HOW = (
    'give a file, a chain and residues as in "1abc.pdb:A20-35"; "A#20-35" counts the chain\'s residues from 1, "AB/20-35" has '
    'a slash after a longer chain, "20-35" means the chain without a name'
)


def read_motif(text: str) -> Backbone:
    """The residues of a motif: "file.pdb:A20-35" is chain A, 20 to 35 as the file numbers them, unbroken and whole.

    Chain: its name, also of several letters, with a slash behind it where it would run into the number ("file.cif:2B1/20-35");
    nothing, or "_", for one without a name; or "#2/", the second chain of the file.
    Residues: numbers of the authors, with insertion codes ("H52-52C"), in the order of the file, whatever the numbers do; or,
    after "#", by their place in the chain from 1 ("A#20-35"). In a cyclic chain they may go on over its end.

    Raises:
        ConfigError: a text that names no residues, or a chain that is not there.
        DataError: residues that are not there, are not one unbroken run, or come twice; or a file that cannot be read.
    """
    path, _, rest = text.rpartition(":")
    if not path or not re.fullmatch(rf".*?{RANGE.pattern}", rest):
        raise ConfigError(f"motif={text!r}: {HOW}.")
    chains = read_structure(path)
    asked = list(_asked(rest, chains))
    if not asked:
        name = re.sub(rf"/?{RANGE.pattern}$", "", rest) or rest
        raise one_of(f"chain of {path}", name, [c.id or "_" for c in chains])
    found = [(chain, rows) for chain, wanted in asked for rows in _rows(chain, wanted)]
    if len(found) == 1:
        chain, rows = found[0]
        return Backbone(atoms_of(chain, rows), text)
    if found:
        several = ", ".join(f"{_prefix(c)}#{rows[0] + 1}-{rows[-1] + 1}" for c, rows in found[:5])
        raise DataError(f"{text}: there are {len(found)} such runs. Name one by index: {several}.")
    whole = ", ".join([chain.name(run) for chain, _ in asked for run in chain.runs()][:9])
    raise DataError(f"{text}: not an unbroken run of residues with N, CA and C. There are: {whole or 'none'}.")


def _prefix(chain: Chain) -> str:
    """A chain as motifs name it, in front of "#"."""
    return chain.id if len(chain.id) < 2 else f"{chain.id}/"


def _asked(rest: str, chains: list[Chain]) -> Iterator[tuple[Chain, re.Match[str]]]:
    """The chains that "A20-35" may mean, each with the residues asked for: where a chain's name ends may be open."""
    for i, chain in enumerate(chains, 1):
        names = {chain.id, f"{chain.id}/", f"#{i}/"} | ({"_", "_/", " "} if not chain.id else set())
        for name in names:
            wanted = RANGE.fullmatch(rest[len(name) :]) if rest.startswith(name) else None
            if wanted:
                yield chain, wanted


def _rows(chain: Chain, wanted: re.Match[str]) -> Iterator[list[int]]:
    """Rows of the residues asked for, of each unbroken run that has both ends."""
    labels = [r.label for r in chain.residues]
    for run in chain.runs():
        if wanted[1]:
            firsts, lasts = ([k] if k in run else [] for k in (int(wanted[2]) - 1, int(wanted[3]) - 1))
        else:
            firsts, lasts = ([k for k in run if labels[k] == label] for label in (wanted[4], wanted[5]))
        for first in firsts:
            for last in lasts:
                if first <= last:
                    yield list(range(first, last + 1))
                elif chain.closed(run):
                    yield [*range(first, run.stop), *range(run.start, last + 1)]


def scaffold(model: Generator, motif: Backbone | str, length: Any, start: Any = None) -> Place:
    """The steer of a motif, whose backbone comes out as it went in, turned and shifted as a whole.

    At each step the motif is superposed on the prediction and takes its place; the net is told so, and the last step of
    every sampler returns it.

    Args:
        motif: residues of a file, "1abc.pdb:A20-35", or a `Backbone`.
        length: residues of the whole chain.
        start: number of the motif's first residue in the chain, from 1; None: in the middle.

    Raises:
        ConfigError: no length, or a motif that does not fit into it.
        DataError: a motif that cannot be read, or whose bonds from C to the next N are broken.
    """
    held = read_motif(motif) if isinstance(motif, str) else motif
    if not isinstance(held, Backbone):
        raise ConfigError(f"motif={held!r}: {HOW}; or give a Backbone.")
    bonds = np.linalg.norm(held.atoms[1:, 0] - held.atoms[:-1, 2], axis=1)
    if len(bonds) and not bonds.max() <= GAP:
        k = int(bonds.argmax())
        raise DataError(
            f"{held!r} is not one unbroken run: {bonds[k]:.2f} angstrom from C of its residue {k + 1} to the next N, where a "
            f"bond has 1.33 (up to {GAP} is taken). Give one run of residues."
        )
    total, size = plain(length), len(held)
    if isinstance(total, bool) or not isinstance(total, int):
        raise ConfigError(f"length={length!r}: a chain around a motif needs one length, a whole number.")
    first = (total - size) // 2 if start is None else whole(start, "start") - 1
    if not 0 <= first <= total - size:
        place = "" if start is None else f" from residue {start} on"
        raise ConfigError(f"a motif of {size} residues{place} does not fit into length={total}.")
    codec, encoded = model.codec, model.encoded(held)
    fixed = encoded.flatten(0, 1)
    where = torch.zeros(total, 1, 1, dtype=torch.bool, device=encoded.device)
    where[first : first + size] = True

    def laid(x0: Tensor) -> Tensor:
        return codec.project(lay(fixed, x0.flatten(1, 2), 3 * first, FOLLOW).view_as(x0))

    return Place(laid, where)

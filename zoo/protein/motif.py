"""Chains around a motif that may lie anywhere in space."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.contract.domain import Generator
from zoo.core.steer import Place
from zoo.errors import ConfigError, DataError, one_of
from zoo.protein.backbone import Backbone, Given
from zoo.protein.codec import FOLLOW
from zoo.protein.data import atoms_of
from zoo.protein.geometry import LENGTHS, idealise
from zoo.protein.rigid import lay_bodies
from zoo.protein.structure import GAP, Chain, read_structure
from zoo.protein.trace import TraceCodec, lacking
from zoo.protein.wishes import overlap
from zoo.values import plain, several, whole

#: residues of a chain, by number ("20-35", "-3-52A") or by index from 1 ("#20-35")
RANGE = re.compile(r"(?:(#)(\d+)-(\d+)|(-?\d+[A-Za-z]?)-(-?\d+[A-Za-z]?))")
#: how the pieces of a motif lie to each other, the default first
POSES = ("fixed", "free")
#: from CA to the next CA of a chain that is nearly stretched, angstrom
STRIDE = 3.5
#: bonds to a motif that are off by more than the first, and by less than the second, are mended, angstrom; and residues that
#: move for it, the last of which stays
CLOSE, TORN, BESIDE = 0.02, 0.5, 4
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
        residues = [chain.residues[i] for i in rows]
        labels, names = tuple(f"{chain.id}{r.label}" for r in residues), tuple(r.name for r in residues)
        return Backbone(atoms_of(chain, rows), text, given=[Given(1, f"{Path(path).name}:{rest}", labels, names)])
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


class Scaffold(Place):
    """The steer of a motif's pieces in a chain, and what its files say of them.

    Args:
        given: the pieces where they are.
        place, where, reward: as of `Place`.
    """

    def __init__(
        self, place: Callable[[Tensor], Tensor], where: Tensor, given: Sequence[Given], reward: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(place, where, reward)
        self.given = tuple(given)

    def marked(self, item: Any) -> Any:
        """The sample with the residues that were given, and bonds to them of their length."""
        return Backbone(mended(item.atoms, self.given), item.name, item.remark, item.copies, self.given)


def mended(atoms: NDArray[Any], given: Sequence[Given]) -> NDArray[Any]:
    """A chain (N, 3, 3) whose bonds C-N to residues that were given are of their length, by moves of the residues beside them.

    A given piece lies best as a whole on what the net predicts, which leaves its ends a little off. Bonds that are off by less
    than CLOSE stay, and so do those that are off by more than TORN, which no small move mends. Given residues do not move, but
    for the mean of all, which is 0.
    """
    held = torch.zeros(len(atoms), dtype=torch.bool)
    for g in given:
        held[g.first - 1 : g.last] = True
    x, moved = torch.tensor(atoms, dtype=torch.float64), False
    for k in (held[1:] != held[:-1]).nonzero()[:, 0].tolist():
        if not CLOSE < abs(float((x[k + 1, 0] - x[k, 2]).norm()) - LENGTHS[2]) < TORN:
            continue
        low, high = max(k - BESIDE, 0), min(k + 2 + BESIDE, len(x))
        fixed = held[low:high].clone()
        fixed[0], fixed[-1] = fixed[0] | (low > 0), fixed[-1] | (high < len(x))
        x[low:high], moved = idealise(x[low:high], fixed=fixed), True
    return (x - x.mean((0, 1))).numpy() if moved else atoms


def scaffold(
    model: Generator,
    motif: Any,
    length: Any,
    start: Any = None,
    gaps: Any = None,
    pose: Any = "fixed",
    seed: int | None = None,
) -> Scaffold:
    """The steer of a motif, whose backbone comes out as it went in, turned and shifted as a whole.

    At each step the motif is superposed on the prediction and takes its place; the net is told so, and the last step of
    every sampler returns it.

    Args:
        motif: residues of a file, "1abc.pdb:A20-35", or a `Backbone`; or a list of such pieces in the order of the chain.
        length: residues of the whole chain.
        start: number of the motif's first residue in the chain, from 1, or a list of one for each piece; None: such that the
            residues around the pieces are spread evenly, for one piece in the middle.
        gaps: residues before the first piece, between two, and after the last one, a list: whole numbers, ranges "5-15" or
            (5, 15), and None for any. What they leave open is drawn with the seed, one layout for all samples of a call.
        pose: "fixed": all pieces are one rigid body, as where they are from; "free": each is one by itself.
        seed: of what `gaps` leaves open.

    Raises:
        ConfigError: no length, pieces that do not fit into it, or a model that does not make N, CA and C in space.
        DataError: a motif that cannot be read, or whose bonds from C to the next N are broken.
    """
    if isinstance(model.codec, TraceCodec):
        raise lacking("motif")
    pieces = [_piece(m) for m in (motif if isinstance(motif, list | tuple) else [motif])]
    if not pieces:
        raise ConfigError(f"motif=[]: {HOW}.")
    if pose not in POSES:
        raise one_of("pose of a motif's pieces", pose, POSES)
    total = plain(length)
    if isinstance(total, bool) or not isinstance(total, int):
        raise ConfigError(f"length={length!r}: a chain around a motif needs one length, a whole number.")
    firsts = layout(pieces, total, start, gaps, pose == "fixed", seed)
    if model.codec.period is not None:
        raise ConfigError("motif: this model makes angles, and a motif is held in space: take a model of coordinates.")
    codec, device = model.codec, model.encoded(pieces[0]).device
    where, bodies = torch.zeros(total, 1, 1, dtype=torch.bool, device=device), []
    for piece, first in zip(pieces, firsts, strict=True):
        own = torch.zeros(total, dtype=torch.bool, device=device)
        own[first : first + len(piece)] = True
        bodies.append((piece, own))
        where[own] = True
    if pose == "fixed":
        bodies = [(Backbone(np.concatenate([piece.atoms for piece in pieces])), where.flatten())]
    parts = [(model.encoded(body).flatten(0, 1), own.repeat_interleave(3)) for body, own in bodies]

    def laid(x0: Tensor) -> Tensor:
        return codec.project(lay_bodies(parts, x0.flatten(1, 2), FOLLOW).view_as(x0))

    def fewer_clashes(x0: Tensor) -> Tensor:
        return -overlap(codec.in_units(x0))

    return Scaffold(laid, where, [told(piece, first) for piece, first in zip(pieces, firsts, strict=True)], fewer_clashes)


def told(piece: Backbone, first: int) -> Given:
    """What is said of a piece that starts at a row of a chain."""
    if len(piece.given) == 1 and len(piece.given[0].labels) == len(piece):
        return replace(piece.given[0], first=first + 1)
    source = piece.name or "a backbone"
    return Given(first + 1, source, tuple(str(k) for k in range(1, len(piece) + 1)), ("GLY",) * len(piece))


def _piece(motif: Any) -> Backbone:
    """A piece of a motif, one unbroken run of residues."""
    held = read_motif(motif) if isinstance(motif, str) else motif
    if not isinstance(held, Backbone):
        raise ConfigError(f"motif={held!r}: {HOW}; or give a Backbone.")
    bonds = np.linalg.norm(held.atoms[1:, 0] - held.atoms[:-1, 2], axis=1)
    if len(bonds) and not bonds.max() <= GAP:
        k = int(bonds.argmax())
        raise DataError(
            f"{held!r} is not one unbroken run: {bonds[k]:.2f} angstrom from C of its residue {k + 1} to the next N, where a "
            f"bond has 1.33 (up to {GAP} is taken). Give one run of residues, or a list of runs."
        )
    return held


def layout(pieces: Sequence[Backbone], total: int, start: Any, gaps: Any, fixed: bool, seed: int | None) -> list[int]:
    """The row of the first residue of each piece in a chain of `total` residues, see `scaffold`."""
    size, many = sum(len(piece) for piece in pieces), len(pieces)
    if start is not None and gaps is not None:
        raise ConfigError("start and gaps both say where the motif lies: give one of them.")
    if start is not None:
        starts = [whole(v, "start") for v in (several(start) or [start])]
        if len(starts) not in (1, many):
            raise ConfigError(f"start={start!r} for {many} pieces: give one number, or one for each.")
        ends = [0, *(first - 1 + len(piece) for first, piece in zip(starts, pieces, strict=False))]
        asked: list[Any] = [first - 1 - end for first, end in zip(starts, ends, strict=False)]
        asked += [None] * (many + 1 - len(asked))
        if min(v for v in asked if v is not None) < 0:
            raise ConfigError(
                f"a motif of {size} residues from residue {start} on does not fit into length={total}: pieces come one after "
                "the other, from 1 on."
            )
    else:
        asked = [None] * (many + 1) if gaps is None else several(gaps) or [gaps]
        if len(asked) != many + 1:
            raise ConfigError(f"gaps={gaps!r}: give {many + 1}, before, between and behind {many} pieces; None for any.")
    bounds = [_bounds(v, total) for v in asked]
    for k in range(1, many):
        least = _least(pieces[k - 1], pieces[k]) if fixed else 1
        if asked[k] is None:
            bounds[k] = (least, max(least, bounds[k][1]))
        elif bounds[k][0] < least:
            raise ConfigError(
                f"{bounds[k][0]} residues between pieces {k} and {k + 1} of the motif: at least {least} are needed, by how far "
                "their ends are from each other."
            )
    spare = total - size
    if not sum(low for low, _ in bounds) <= spare <= sum(high for _, high in bounds):
        place = f" from residue {start} on" if start is not None else f" with gaps={gaps!r}" if gaps is not None else ""
        least = sum(low for low, _ in bounds[1:many])
        between = f", and {least} or more between its pieces," if many > 1 else ""
        raise ConfigError(f"a motif of {size} residues{between}{place} does not fit into length={total}.")
    found = _even(bounds, spare) if gaps is None else _drawn(bounds, spare, random.Random(seed))
    rows, first = [], 0
    for gap, piece in zip(found, pieces, strict=False):
        rows.append(first + gap)
        first += gap + len(piece)
    return rows


def _bounds(gap: Any, most: int) -> tuple[int, int]:
    """The least and the largest number of residues of a gap."""
    if gap is None:
        return 0, most
    ends = re.fullmatch(r"(\d{1,4})-(\d{1,4})", gap) if isinstance(gap, str) else None
    pair = [int(ends[1]), int(ends[2])] if ends else several(gap) or [gap, gap]
    if len(pair) != 2:
        raise ConfigError(f'gaps: {gap!r}; give a whole number, a range "5-15", or None for any.')
    low, high = (whole(v, "gaps", 0) for v in pair)
    if low > high:
        raise ConfigError(f"gaps: {gap!r}; the least number of residues comes first.")
    return low, min(high, most)


def _least(before: Backbone, after: Backbone) -> int:
    """The fewest residues that reach from one piece to the next one, each STRIDE angstrom long."""
    apart = float(np.linalg.norm(after.atoms[0, 1].astype(float) - before.atoms[-1, 1]))
    return max(1, math.ceil(apart / STRIDE) - 1)


def _even(bounds: Sequence[tuple[int, int]], spare: int) -> list[int]:
    """Gaps within bounds that add up to `spare`, as even as may be; of two alike the later one is longer."""
    gaps = [low for low, _ in bounds]
    for _ in range(spare - sum(gaps)):
        k = min((k for k in range(len(gaps)) if gaps[k] < bounds[k][1]), key=lambda k: (gaps[k], -k))
        gaps[k] += 1
    return gaps


def _drawn(bounds: Sequence[tuple[int, int]], spare: int, rng: random.Random) -> list[int]:
    """Gaps within bounds that add up to `spare`, each such list equally likely."""
    ways = [[0] * (spare + 1) for _ in range(len(bounds))] + [[1] + [0] * spare]
    for k in range(len(bounds) - 1, -1, -1):
        low, high = bounds[k]
        for rest in range(spare + 1):
            ways[k][rest] = sum(ways[k + 1][rest - gap] for gap in range(low, min(high, rest) + 1))
    gaps, rest = [], spare
    for k, (low, high) in enumerate(bounds):
        options = range(low, min(high, rest) + 1)
        gap = rng.choices(options, [ways[k + 1][rest - gap] / ways[k][rest] for gap in options])[0]
        gaps.append(gap)
        rest -= gap
    return gaps

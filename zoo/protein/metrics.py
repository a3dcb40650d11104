"""What a backbone is like, chain by chain, and how a set of them compares with real ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import DataError
from zoo.extras import need
from zoo.protein.geometry import ANGLES, LENGTHS, build, secondary_structure, torsions
from zoo.protein.rigid import dihedral

#: measure of one chain -> which way is good in the mean
MEASURES = {
    "bond_error": "lower",  # mean |C-N - 1.329|, angstrom
    "angle_error": "lower",  # mean deviation of the three backbone angles, degrees
    "step_error": "lower",  # mean |CA-CA - 3.80| of neighbours (2.95 for cis), angstrom
    "ca_clashes": "lower",  # pairs of CA closer than CA_CLASH, per residue
    "backbone_clash": "lower",  # 1 where N, CA, C of residues two or more apart come closer than CLASH
    "left_turns": "lower",  # left-handed turns of the CA trace, per residue
    "positive_phi": "near ceiling",
    "helix": "near ceiling",
    "strand": "near ceiling",
    "ordered": "near ceiling",  # helix and strand
    "radius": "near 1",  # radius of gyration over 2.2 L^0.38 angstrom (Skolnick et al. 1997)
    "contact_order": "near ceiling",  # mean separation of CA contacts over the length (Plaxco et al. 1998)
}
CA_CLASH, CLASH, TURN, CONTACT = 3.5, 2.8, 7.0, 8.0
#: residues of the shortest chain that is measured, and of a fragment of the trivial baseline
SHORTEST, FRAGMENT = 6, 9
#: bins of phi and psi
BINS = 24


def measure_ca(points: NDArray[Any] | Tensor) -> dict[str, float]:
    """The figures of MEASURES that CA alone say, of one chain (N, 3) in angstrom.

    Raises:
        DataError: fewer than SHORTEST residues.
    """
    ca = torch.as_tensor(points).double()
    N = len(ca)
    if N < SHORTEST:
        raise DataError(f"a chain of {N} residues is too short to measure: give at least {SHORTEST}.")
    steps = (ca.diff(dim=0)).norm(dim=1)
    apart = (torch.arange(N)[:, None] - torch.arange(N)).abs()
    between = torch.cdist(ca, ca)
    turn = (ca[3:] - ca[:-3]).norm(dim=1) < TURN
    left = dihedral(ca[:-3], ca[1:-2], ca[2:-1], ca[3:]) < 0
    contact = (between < CONTACT) & (apart > 2)
    return {
        "step_error": float(torch.minimum((steps - 3.8).abs(), (steps - 2.95).abs()).mean()),
        "ca_clashes": float(((between < CA_CLASH) & (apart > 1)).sum() / 2 / N),
        "left_turns": float((turn & left).sum() / N),
        "radius": float((ca - ca.mean(0)).square().sum(1).mean().sqrt() / (2.2 * N**0.38)),
        "contact_order": float(apart[contact].double().mean() / N) if contact.any() else 0.0,
    }


def measure(atoms: NDArray[Any] | Tensor) -> dict[str, float]:
    """The figures of MEASURES of one backbone (N, 3, 3) in angstrom.

    Raises:
        DataError: fewer than SHORTEST residues.
    """
    x = torch.as_tensor(atoms).double()
    N, own = len(x), measure_ca(x[:, 1])
    line = x.reshape(-1, 3)
    step = line.diff(dim=0)
    cosine = -(step[:-1] * step[1:]).sum(1) / (step[:-1].norm(dim=1) * step[1:].norm(dim=1)).clamp(min=1e-6)
    ideal = torch.tensor([ANGLES[1], ANGLES[2], ANGLES[0]], dtype=x.dtype).repeat(N)[: 3 * N - 2]
    angles = torch.acos(cosine.clamp(-1, 1)) - ideal
    apart = (torch.arange(N)[:, None] - torch.arange(N)).abs()
    close = torch.cdist(line, line)[(apart > 1).repeat_interleave(3, 0).repeat_interleave(3, 1)]
    kind = secondary_structure(x)
    found = {
        "bond_error": float((step[2::3].norm(dim=1) - LENGTHS[2]).abs().mean()),
        "angle_error": math.degrees(angles.abs().mean()),
        "backbone_clash": float(close.min() < CLASH),
        "positive_phi": float((torsions(x)[1:, 0] > 0).double().mean()),
        "helix": float((kind == 1).double().mean()),
        "strand": float((kind == 2).double().mean()),
        "ordered": float((kind > 0).double().mean()),
    }
    return {k: (found | own)[k] for k in MEASURES}


def ramachandran(chains: Sequence[NDArray[Any]]) -> Tensor:
    """Counts of (phi, psi) in equal bins (BINS * BINS,) over all inner residues of some chains."""
    angles = torch.cat([torsions(torch.as_tensor(x).double())[1:-1, :2] for x in chains])
    bins = ((angles / (2 * math.pi) + 0.5) * BINS).long().clamp(0, BINS - 1)
    return (BINS * bins[:, 0] + bins[:, 1]).bincount(minlength=BINS * BINS)


def tm_score(a: NDArray[Any], b: NDArray[Any]) -> float:
    """TM-score of two backbones (N, 3, 3) by their CA, over the length of `a` (Zhang & Skolnick 2005)."""
    first, second = (np.ascontiguousarray(x[:, 1], dtype=float) for x in (a, b))
    return float(need("tmtools", "protein").tm_align(first, second, "A" * len(first), "A" * len(second)).tm_norm_chain1)


def glued(chains: Sequence[NDArray[Any]], lengths: Sequence[int], seed: int) -> list[NDArray[Any]]:
    """The trivial baseline: chains of the given lengths from random fragments of real ones, ideal bonds between them."""
    rng = np.random.default_rng(seed)
    angles = [torsions(torch.as_tensor(x).double()).nan_to_num(math.pi) for x in chains]
    out = []
    for length in lengths:
        parts = []
        for _ in range(-(-length // FRAGMENT)):
            a = angles[rng.integers(len(angles))]
            start = rng.integers(1, len(a) - FRAGMENT)
            parts.append(a[start : start + FRAGMENT])
        out.append(build(torch.cat(parts)[:length]).numpy())
    return out


def table(chains: Sequence[NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """{measure: (n,)} of n chains."""
    rows = [measure(x) for x in chains]
    return {k: np.array([row[k] for row in rows]) for k in MEASURES}

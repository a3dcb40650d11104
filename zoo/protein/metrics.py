"""What a backbone is like, chain by chain, and how a set of them compares with real ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ConfigError, DataError
from zoo.protein.geometry import ANGLES, LENGTHS, build, dihedral, secondary_structure, torsions

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
    "radius": "near 1",  # radius of gyration over 2.2 L^0.38 angstrom (Skolnick et al. 1997)
    "contact_order": "near ceiling",  # mean separation of CA contacts over the length (Plaxco et al. 1998)
}
CA_CLASH, CLASH, TURN, CONTACT = 3.5, 2.8, 7.0, 8.0
#: bins of phi and psi
BINS = 24
#: share of real chains within the range of each measure of a plausible one
USUAL = 0.95
#: above this TM-score two chains are the same fold; above COPY a sample is a copy
COPY = 0.8
#: residues of a fragment of the trivial baseline
FRAGMENT = 9


def measure(atoms: NDArray[Any] | Tensor) -> dict[str, float]:
    """The figures of MEASURES of one backbone (N, 3, 3) in angstrom."""
    x = torch.as_tensor(atoms).double()
    N, ca = len(x), x[:, 1]
    if N < 6:
        raise DataError(f"a chain of {N} residues is too short to measure: give at least 6.")
    line = x.reshape(-1, 3)
    step = line.diff(dim=0)
    cosine = -(step[:-1] * step[1:]).sum(1) / (step[:-1].norm(dim=1) * step[1:].norm(dim=1)).clamp(min=1e-6)
    ideal = torch.tensor([ANGLES[1], ANGLES[2], ANGLES[0]], dtype=x.dtype).repeat(N)[: 3 * N - 2]
    angles = torch.acos(cosine.clamp(-1, 1)) - ideal
    steps = (ca.diff(dim=0)).norm(dim=1)
    apart = (torch.arange(N)[:, None] - torch.arange(N)).abs()
    between = torch.cdist(ca, ca)
    close = torch.cdist(line, line)[(apart > 1).repeat_interleave(3, 0).repeat_interleave(3, 1)]
    turn = (ca[3:] - ca[:-3]).norm(dim=1) < TURN
    left = dihedral(ca[:-3], ca[1:-2], ca[2:-1], ca[3:]) < 0
    kind = secondary_structure(x)
    contact = (between < CONTACT) & (apart > 2)
    return {
        "bond_error": float((step[2::3].norm(dim=1) - LENGTHS[2]).abs().mean()),
        "angle_error": math.degrees(angles.abs().mean()),
        "step_error": float(torch.minimum((steps - 3.8).abs(), (steps - 2.95).abs()).mean()),
        "ca_clashes": float(((between < CA_CLASH) & (apart > 1)).sum() / 2 / N),
        "backbone_clash": float(close.min() < CLASH),
        "left_turns": float((turn & left).sum() / N),
        "positive_phi": float((torsions(x)[1:, 0] > 0).double().mean()),
        "helix": float((kind == 1).double().mean()),
        "strand": float((kind == 2).double().mean()),
        "radius": float((ca - ca.mean(0)).square().sum(1).mean().sqrt() / (2.2 * N**0.38)),
        "contact_order": float(apart[contact].double().mean() / N) if contact.any() else 0.0,
    }


def ramachandran(chains: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Shares of (phi, psi) in BINS x BINS equal bins over all inner residues of some chains."""
    angles = np.concatenate([torsions(torch.as_tensor(x).double())[1:-1, :2].numpy() for x in chains])
    counts = np.histogram2d(angles[:, 0], angles[:, 1], bins=BINS, range=[(-math.pi, math.pi)] * 2)[0]
    return counts / counts.sum()


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Jensen-Shannon divergence of two distributions in nats (Lin 1991, Eq. 3.1)."""
    both = (p + q) / 2

    def towards(a: NDArray[np.float64]) -> float:
        return float(np.sum(a[a > 0] * np.log(a[a > 0] / both[a > 0])))

    return (towards(p) + towards(q)) / 2


def tm_score(a: NDArray[Any], b: NDArray[Any]) -> float:
    """TM-score of two backbones (N, 3, 3) by their CA, over the length of `a` (Zhang & Skolnick 2005)."""
    try:
        from tmtools import tm_align
    except ImportError:
        raise ConfigError('TM-scores need tmtools: pip install "diffusion-zoo[protein]".') from None
    first, second = (np.ascontiguousarray(x[:, 1], dtype=float) for x in (a, b))
    return float(tm_align(first, second, "A" * len(first), "A" * len(second)).tm_norm_chain1)


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


class Evaluator:
    """Measures sets of backbones against real ones; what depends on real chains alone is computed once.

    Args:
        reference: real held-out chains (N, 3, 3), angstrom.
        train: those that the generator was trained on.
        split: what the reference is.
        tm_samples: how many samples are compared with every training chain, at about 6 ms a pair.
    """

    def __init__(
        self, reference: Sequence[NDArray[Any]], train: Sequence[NDArray[Any]], *, split: str = "test", tm_samples: int = 50
    ) -> None:
        self.reference, self.train, self.split, self.tm_samples = list(reference), list(train), split, tm_samples

    @cached_property
    def real(self) -> dict[str, NDArray[np.float64]]:
        """The measures of the training chains."""
        return table(self.train)

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The range of each measure: that of the middle 95 % of the training chains."""
        tail = (1 - USUAL) / 2
        found = {k: tuple(np.quantile(v, [tail, 1 - tail])) for k, v in self.real.items()}
        # of errors the range starts at 0; of content and clashes the quantile may lie on real values: all of them count
        return {k: (0.0 if MEASURES[k] == "lower" else lo, hi) for k, (lo, hi) in found.items()}

    def plausible(self, measures: dict[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
        """Which chains lie within the ranges of all measures at once."""
        inside = [(v >= self.ranges[k][0] - 1e-9) & (v <= self.ranges[k][1] + 1e-9) for k, v in measures.items()]
        return np.logical_and.reduce(inside)

    def compare(self, chains: Sequence[NDArray[Any]]) -> dict[str, float]:
        """Means of the measures, Ramachandran divergence and the share of plausible chains."""
        measures = table(chains)
        own = {k: float(v.mean()) for k, v in measures.items()}
        own["ramachandran"] = divergence(ramachandran(chains), ramachandran(self.train))
        own["plausible"] = float(self.plausible(measures).mean())
        return own

    def folds(self, chains: Sequence[NDArray[Any]], *, train: Sequence[NDArray[Any]] | None = None) -> dict[str, float]:
        """Nearest training chain and mean pairwise TM-score of the first `tm_samples` chains."""
        from tqdm import tqdm

        some, known = list(chains)[: self.tm_samples], self.train if train is None else train
        nearest = [max(tm_score(x, y) for y in known) for x in tqdm(some, "TM-scores", delay=2, leave=False)]
        pairs = [tm_score(x, y) for i, x in enumerate(some) for y in some[:i]]
        own = {"nearest_tm": float(np.mean(nearest)), "copy_rate": float(np.mean(np.array(nearest) > COPY))}
        return own | {"pairwise_tm": float(np.mean(pairs)) if pairs else math.nan}


def table(chains: Sequence[NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """{measure: (n,)} of n chains."""
    rows = [measure(x) for x in chains]
    return {k: np.array([row[k] for row in rows]) for k in MEASURES}

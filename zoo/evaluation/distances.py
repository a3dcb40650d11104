"""Distances between two sets of features, and intervals for shares: tensors in, numbers out.

The features are whatever a domain's judge gives, so these are not the published FID and KID (Inception-v3
features) and must not be compared with them. All sums run in float64.

The Frechet and the kernel distance come from torchmetrics, which takes any `nn.Module` as feature net: an
identity module makes it work on features. (torch-fidelity has the same formulae on tensors, but not as public
names, and it brings torchvision, which is tied to one torch release; the tests use it as a peer where it is
installed.) Precision and recall are written out here: neither torchmetrics nor a maintained package without
torchvision has them. The Jensen-Shannon divergence and the Wilson interval come from scipy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ConfigError, DataError, ShapeError, ZooError
from zoo.extras import need

#: neighbours that span the manifold in `precision_recall`: the value of the paper
NEIGHBOURS = 3


class KernelDistance(NamedTuple):
    """Mean and standard deviation of the kernel distance over random subsets."""

    mean: float
    std: float


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: generated among real (fidelity), real among generated (variety)."""

    precision: float
    recall: float


#: each process measures what it has: in a group torchmetrics would add what the others have, and wait for them
ALONE = {"sync_on_compute": False}


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance between Gaussians that are fitted to two sets.

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), Heusel et al. 2017 (arXiv:1706.08500), Eq. 6, with
    unbiased covariances. The estimate falls with the number of rows: compare only sets of equal size.

    Args:
        a, b: features (N, D) and (M, D), floating point.

    Returns:
        A number >= 0 in squared units of the features.

    Raises:
        ShapeError: not two-dimensional, different D, or fewer than two rows.
        DataError: features that are not floating point or not finite.
        ZooError: torchmetrics is not installed.
    """
    a, b = _pair(a, b, rows=2)
    metric = _torchmetrics("fid", "FrechetInceptionDistance")(feature=_Identity(a.shape[1]), **ALONE)
    metric.set_dtype(torch.float64)
    # a common shift changes nothing, but torchmetrics sums x x^T before it subtracts the mean: without the
    # shift a mean far from zero would cancel the covariance away
    centre = a.mean(0)
    metric.update(a - centre, real=True)
    metric.update(b - centre, real=False)
    return max(0.0, float(metric.compute()))  # rounding can leave -1e-12 for equal sets


def kernel_distance(a: Tensor, b: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> KernelDistance:
    """Unbiased squared MMD with the kernel k(x, y) = (x . y / D + 1)^3 over random subsets (KID).

    mean k(a_i, a_j) + mean k(b_i, b_j) - 2 mean k(a_i, b_j), the first two over i != j: Binkowski et al. 2018
    (arXiv:1801.01401), section 4. Without bias: two sets of one distribution give values around 0, also
    below it, at any size.

    Args:
        a, b: features (N, D) and (M, D), floating point.
        subsets: how many subsets; the spread over them is the standard deviation.
        subset_size: rows of a subset, drawn without replacement; at most min(N, M).
        seed: of the draws; the global random state is left alone.

    Returns:
        Mean and standard deviation over the subsets.

    Raises:
        ShapeError: not two-dimensional, different D, or fewer than two rows.
        ConfigError: fewer than one subset, or a subset_size outside 2..min(N, M).
        DataError: features that are not floating point or not finite.
        ZooError: torchmetrics is not installed.
    """
    a, b = _pair(a, b, rows=2)
    if subsets < 1 or not 2 <= subset_size <= min(len(a), len(b)):
        most = min(len(a), len(b))
        raise ConfigError(f"{subsets} subsets of {subset_size} rows: give at least 1 subset of 2..{most} rows")
    kid = _torchmetrics("kid", "KernelInceptionDistance")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save", UserWarning)
        torch.manual_seed(seed)  # torchmetrics draws from the global generator
        metric = kid(feature=_Identity(a.shape[1]), subsets=subsets, subset_size=subset_size, **ALONE)
        metric.update(a, real=True)
        metric.update(b, real=False)
        mean, std = metric.compute()
    return KernelDistance(mean.item(), std.item())


def neighbour_radii(features: Tensor, k: int = NEIGHBOURS, *, chunk: int = 1000) -> Tensor:
    """Distance of each row to its k-th nearest other row: the balls that cover a set's manifold.

    Kynkaanniemi et al. 2019 (arXiv:1904.06991), Eq. 1.

    Args:
        features: (N, D) floating point.
        k: which neighbour, 1..N-1.
        chunk: rows at a time; chunk x N distances are in memory.

    Returns:
        (N,) float64.

    Raises:
        ShapeError: not two-dimensional, or no more than k rows.
        ConfigError: k or chunk below 1.
        DataError: features that are not floating point or not finite.
    """
    if k < 1:
        raise ConfigError(f"k={k}: give at least 1 neighbour")
    features, _ = _pair(features, features, rows=k + 1)
    # row i is its own nearest: the k-th other one is entry k of the k + 1 smallest
    return torch.cat([d.topk(k + 1, largest=False).values[:, k] for d in _distances(features, features, chunk)])


def precision_recall(
    generated: Tensor,
    real: Tensor,
    *,
    k: int = NEIGHBOURS,
    generated_radii: Tensor | None = None,
    real_radii: Tensor | None = None,
    chunk: int = 1000,
) -> PrecisionRecall:
    """Share of generated rows within the real manifold, and of real rows within the generated one.

    Kynkaanniemi et al. 2019 (arXiv:1904.06991), Eq. 1 and 2: a manifold is the union of balls around a set's
    rows that reach to the k-th neighbour. Both shares depend on k and on the sizes of the sets: compare only
    equal ones.

    Args:
        generated, real: features (N, D) and (M, D), floating point.
        k: neighbours; below both N and M.
        generated_radii, real_radii: `neighbour_radii` of the sets where they are known already; they must be
            for the same k.
        chunk: rows at a time; chunk x max(N, M) distances are in memory.

    Raises:
        ShapeError: not two-dimensional, different D, no more than k rows, or radii of the wrong length.
        ConfigError: k or chunk below 1.
        DataError: features that are not floating point or not finite.
    """
    if k < 1:
        raise ConfigError(f"k={k}: give at least 1 neighbour")
    generated, real = _pair(generated, real, rows=k + 1)
    ours = neighbour_radii(generated, k, chunk=chunk) if generated_radii is None else generated_radii
    theirs = neighbour_radii(real, k, chunk=chunk) if real_radii is None else real_radii
    for what, radii, rows in (("generated", ours, len(generated)), ("real", theirs, len(real))):
        if radii.shape != (rows,):
            raise ShapeError(f"{what}_radii must be ({rows},) as {what} has {rows} rows, got {tuple(radii.shape)}")
    within, covered = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    start = 0
    for d in _distances(generated, real, chunk):
        within += int((d <= theirs).any(1).sum())
        covered |= (d <= ours[start : start + len(d), None]).any(0)
        start += len(d)
    return PrecisionRecall(within / len(generated), covered.double().mean().item())


def nearest_distances(a: Tensor, b: Tensor, *, chunk: int = 500) -> tuple[Tensor, Tensor]:
    """Euclidean distance of each row of `a` to its nearest row of `b`, and that row.

    Args:
        a, b: (N, D) and (M, D), floating point.
        chunk: rows of `a` at a time; chunk x M numbers are in memory.

    Returns:
        Distances (N,) float64 in units of the rows, and indices (N,) int64 into `b`.

    Raises:
        ShapeError: not two-dimensional, different D, or an empty set.
        ConfigError: chunk below 1.
        DataError: rows that are not floating point or not finite.
    """
    _check(a, b, rows=1)
    if chunk < 1:
        raise ConfigError(f"chunk={chunk}: give at least 1 row")
    from tqdm import tqdm

    norms, distances, indices = b.square().sum(1), [], []
    for rows in tqdm(torch.split(a, chunk), "nearest neighbours", delay=2, leave=False):
        found = torch.addmm(norms, rows, b.T, alpha=-2).argmin(1)  # |b|^2 - 2 a.b: |a|^2 does not choose
        indices.append(found)
        # the fast form above cancels for near copies, exactly the ones asked about: measure the winner
        # directly
        distances.append((rows.double() - b[found].double()).norm(dim=1))
    return torch.cat(distances), torch.cat(indices)


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Jensen-Shannon divergence of two distributions over the same bins (Lin 1991, Eq. 3.1).

    Args:
        p, q: counts or probabilities (N,) on any device; each is divided by its sum.

    Returns:
        The divergence in nats, 0 to ln 2.

    Raises:
        ShapeError: not one-dimensional, or different N.
        DataError: a negative, infinite or NaN entry, or no entry above zero.
        ConfigError: scipy is not installed.
    """
    if p.ndim != 1 or p.shape != q.shape:
        raise ShapeError(f"two distributions must be (N,) over the same bins, got {tuple(p.shape)} and {tuple(q.shape)}")
    p, q = p.detach().cpu().double(), q.detach().cpu().double()
    for x in (p, q):
        if not x.isfinite().all() or (x < 0).any() or not x.sum() > 0:
            raise DataError("a distribution must be finite, without negative entries, and with at least one above zero")
    with np.errstate(invalid="ignore"):
        distance = float(need("scipy.spatial.distance", "eval").jensenshannon(p.numpy(), q.numpy()))
    # of two almost equal distributions, rounding can leave a sum just below zero, and scipy then returns its root: NaN
    return 0.0 if math.isnan(distance) else distance**2


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share of `successes` in `n` independent trials (Wilson 1927); it stays inside [0, 1].

    Args:
        successes, n: whole numbers; scalars of numpy and torch are accepted, too.
        confidence: how often such an interval contains the true share, in (0, 1).

    Returns:
        The lower and the upper end, as shares.

    Raises:
        ConfigError: n below 1, successes outside 0..n or not whole, a confidence outside (0, 1), or scipy is not installed.
    """
    try:
        whole, trials = int(successes), int(n)
        valid = whole == successes and trials == n and 0 <= whole <= trials and trials >= 1 and 0 < confidence < 1
    except (TypeError, ValueError, OverflowError, RuntimeError):  # not a scalar, NaN, infinity
        valid = False
    if not valid:
        raise ConfigError(
            f"{successes} successes of {n} at confidence {confidence}: give whole numbers 0 <= successes <= n, n >= 1, "
            "and 0 < confidence < 1"
        )
    found = need("scipy.stats", "eval").binomtest(whole, trials).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


class _Identity(torch.nn.Module):
    """The feature net of features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features  # torchmetrics would otherwise probe with a picture

    def forward(self, x: Tensor) -> Tensor:
        return x


def _torchmetrics(module: str, name: str) -> Any:
    """A class of torchmetrics.image; imported late, as it costs seconds."""
    import importlib

    try:
        return getattr(importlib.import_module(f"torchmetrics.image.{module}"), name)
    except ImportError as e:
        raise ZooError(f'{name} needs torchmetrics, which is not installed: pip install "diffusion-zoo[eval]"') from e


def _check(a: Tensor, b: Tensor, rows: int) -> None:
    """Refuse anything but two finite float matrices of one width with enough rows."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] < 1:
        raise ShapeError(f"features must be (N, D) and (M, D), got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < rows:
        raise ShapeError(f"at least {rows} rows are needed in each set, got {len(a)} and {len(b)}")
    if not (a.is_floating_point() and b.is_floating_point()):
        raise DataError(f"features must be floating point, got {a.dtype} and {b.dtype}")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise DataError("features hold NaN or infinity; look at the samples before measuring them")


def _pair(a: Tensor, b: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Checked, detached and float64."""
    _check(a, b, rows)
    return a.detach().double(), b.detach().double()


def _distances(a: Tensor, b: Tensor, chunk: int) -> Iterator[Tensor]:
    """Euclidean distances (<= chunk, M) of the rows of `a`, chunk after chunk."""
    if chunk < 1:
        raise ConfigError(f"chunk={chunk}: give at least 1 row")
    from tqdm import tqdm

    centre = b.mean(0)  # the matrix-product form, three times as fast, loses digits far from the origin
    for rows in tqdm(torch.split(a - centre, chunk), "distances", delay=2, leave=False):
        yield torch.cdist(rows, b - centre, compute_mode="use_mm_for_euclid_dist")

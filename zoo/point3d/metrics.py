"""Distances between clouds and between sets of clouds, and what is told of one cloud: numbers in, numbers out.

No extension is compiled: neighbours come from scipy's k-d trees, which find the exact ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from zoo.errors import ConfigError, ShapeError
from zoo.point3d.cloud import need

Array = NDArray[np.float64]
#: neighbours whose plane is fitted for the thickness of a surface
PLANE = 12
#: clouds of more points than this leave the exact assignment to POT's network simplex, which is exact as well but faster
ASSIGNED = 512


def trees(clouds: Iterable[NDArray[Any]]) -> list[Any]:
    """k-d trees of clouds (N, 3), ready for `chamfer`."""
    tree = need("scipy.spatial").cKDTree
    return [tree(np.asarray(x, np.float64)) for x in clouds]


def chamfer(a: Any, b: Any) -> float:
    """Chamfer distance of two clouds given as k-d trees: mean squared distance to the nearest, both ways, summed.

    mean_x min_y |x - y|^2 + mean_y min_x |x - y|^2 (Fan et al. 2017, Eq. 1, with means for sums), as PointFlow and
    Luo & Hu 2021 have it; in squared units.
    """
    return float((b.query(a.data)[0] ** 2).mean() + (a.query(b.data)[0] ** 2).mean())


def earth_mover(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Earth mover's distance of two clouds (N, 3): the least mean distance over all pairings (Fan et al. 2017, Eq. 2).

    Up to 512 points by scipy's assignment, above by POT; both are exact.

    Raises:
        ShapeError: clouds of different size.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ShapeError(f"the earth mover's distance pairs clouds of equal size (N, 3), got {a.shape} and {b.shape}.")
    cost = need("scipy.spatial.distance").cdist(a, b)
    if len(a) > ASSIGNED:
        weights = np.full(len(a), 1 / len(a))
        return float(need("ot").emd2(weights, weights, cost, numItermax=10_000_000))
    return float(cost[need("scipy.optimize").linear_sum_assignment(cost)].mean())


def distances(a: Sequence[Any], b: Sequence[Any], distance: Callable[[Any, Any], float] = chamfer) -> Array:
    """All distances (n, m) of two lists; where both are the same list only half are measured."""
    same, out = a is b, np.zeros((len(a), len(b)))
    for i in tqdm(range(len(a)), "distances of clouds", delay=2, leave=False):
        for j in range(i + 1 if same else 0, len(b)):
            out[i, j] = distance(a[i], b[j])
    return out + out.T if same else out


class Sets(NamedTuple):
    """What a set of samples is to a reference set, one number for each member; their means are the metrics.

    Attributes:
        nearest: (n + m,) 1 where the nearest other member, of both sets together, is of the own set. The mean is the accuracy
            of the 1-nearest-neighbour classifier (Lopez-Paz & Oquab 2017; Yang et al. 2019, Eq. 15): 0.5 is perfect.
        covered: (m,) 1 where a reference cloud is the nearest one of some sample (coverage, Achlioptas et al. 2018).
        matched: (m,) distance of each reference cloud to its nearest sample (their mean is MMD).
    """

    nearest: Array
    covered: Array
    matched: Array


def compare_sets(own: Array, across: Array, reference: Array) -> Sets:
    """`Sets` from distances sample-sample (n, n), sample-reference (n, m) and reference-reference (m, m).

    Raises:
        ShapeError: sizes that do not fit together, or sets of different size, on which 1-NNA is not 0.5 for equal ones.
    """
    n, m = across.shape
    if own.shape != (n, n) or reference.shape != (m, m) or n != m or n < 2:
        raise ShapeError(f"distances {own.shape}, {across.shape}, {reference.shape}: give two sets of one size, at least 2.")
    far = np.diag(np.full(n, np.inf))
    mine = np.concatenate([(own + far).min(1), (reference + far).min(1)])
    other = np.concatenate([across.min(1), across.min(0)])
    covered = np.isin(np.arange(m), across.argmin(1))
    return Sets((mine < other) + 0.5 * (mine == other), covered.astype(float), across.min(0))


def interval(draws: Sequence[Array], rounds: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): the mean of draws of member values, and its 95 % bootstrap interval over draws and members.

    Args:
        draws: one array (k,) for each random draw of the samples, members in the same order.
    """
    if not draws or rounds < 1:
        raise ConfigError(f"{len(draws)} draws, {rounds} rounds: give at least 1 of each.")
    values, rng = np.stack(draws), np.random.default_rng(seed)
    means = [
        values[rng.integers(len(values)), rng.integers(values.shape[1], size=values.shape[1])].mean() for _ in range(rounds)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def thickness(tree: Any) -> float:
    """How thick the surface of a cloud is: root mean square distance of its points' 12 neighbours to their best plane.

    The mean over the points, in units of the points. Real clouds have some, too: where surfaces bend or lie close.
    """
    neighbours = tree.data[tree.query(tree.data, PLANE + 1)[1]]
    centred = neighbours - neighbours.mean(1, keepdims=True)
    least = np.linalg.eigvalsh(centred.transpose(0, 2, 1) @ centred / (PLANE + 1))[:, 0]
    return float(np.sqrt(least.clip(0)).mean())


def spacing(tree: Any) -> float:
    """Mean distance of a point to its nearest other point, in units of the points."""
    return float(tree.query(tree.data, 2)[0][:, 1].mean())

"""DDIM run backwards: the noise from which the deterministic sampler makes a given sample, and ways between two noises."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from zoo.core.predict import Predict
from zoo.core.schedule import Level

#: calls of the net for a step, at most, and the root mean square of what may be left of one
ROUNDS, TOLERANCE = 12, 1e-5
#: rounds that are mixed, and rounds without gain after which a row is left as it is
PAST, PATIENCE = 4, 2
#: no direction of the data has a larger variance, for the rate at which a step is solved
WIDEST = 100.0


@dataclass(frozen=True)
class Inverted:
    """The noise that gives objects back.

    Attributes:
        noise: (n,*S) of about unit deviation, in encoded units; padded where samples have sizes of their own.
        left: (n,) what is left of the worst step: the root mean square of what the sampler makes of its solution less what it
            should, in encoded units.
        settings: the sampler and its grid, as `Model.sample` takes them.
    """

    noise: Tensor
    left: Tensor
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Back:
    """The state after a step backwards: x (B,*S) at `level`, and what is left of the equation (B,)."""

    level: Level
    x: Tensor
    left: Tensor


def invert_ddim(predict: Predict, x0: Tensor, levels: Sequence[Level]) -> Iterator[Back]:
    """DDIM (Song et al. 2020, Eq. 12, eta 0) from the clean sample back to levels[0], each step solved.

    A step makes F(x) = alpha_b x0(x) + sigma_b eps(x) of x at level a. The usual inversion takes x0 and eps from level b in
    the place of a, and the errors add up. Here F(x) = x_b is solved by x <- x + g (x_b - F(x)) from that start, accelerated.
    For data of variance V the slope of F is k alpha_b / alpha_a + (1 - k) sigma_b / sigma_a, and k is from 0 to 1, so that
    g = 2 / (largest + smallest slope) closes in on the solution for all V at once. Rows stop one by one, where nothing is
    gained or little is left.

    The last step, to the clean sample, gives what the net believes: it has a solution only for samples that it can believe in.
    What cannot be reached there is at most of about the size of the least sigma.

    Args:
        x0: (B,*S).
        levels: of the sampler, noisiest first, the clean one last.
    """
    x, believed = x0, (x0, torch.zeros_like(x0))
    for b, a in pairwise(reversed(levels)):
        guess = a.alpha * believed[0] + a.sigma * believed[1]
        x, believed, left = _solved(predict, x, guess, a, b)
        yield Back(a, x, left)


def _solved(
    predict: Predict, target: Tensor, guess: Tensor, a: Level, b: Level
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """(x at level a from which a step makes `target` at level b, (x0, eps) there, what is left (B,))."""
    gain = _gain(a, b)
    x = best = guess
    believed = (guess, guess)
    left = torch.full((len(x),), math.inf, dtype=torch.float64, device=x.device)
    idle = torch.zeros(len(x), dtype=torch.long, device=x.device)
    wide = [-1] + [1] * (x.ndim - 1)
    past: list[tuple[Tensor, Tensor]] = []
    for _ in range(ROUNDS):
        x0, eps = predict(x, a)
        off = target - (b.alpha * x0 + b.sigma * eps)
        size = off.double().square().flatten(1).mean(1).sqrt()
        idle = torch.where(size < 0.95 * left, 0, idle + 1)
        better = size < left
        rows = better.reshape(wide)
        best = torch.where(rows, x, best)
        believed = torch.where(rows, x0, believed[0]), torch.where(rows, eps, believed[1])
        left = torch.where(better, size, left)
        going = (idle < PATIENCE) & (left > TOLERANCE)
        if not bool(going.any()):
            break
        past = [*past[-PAST:], (x, gain * off)]
        x = torch.where(going.reshape(wide), _mixed(past), x)
    return best, believed, left


def _mixed(past: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The next x (B,*S) of pairs (x, step) before, the last one last: Anderson's acceleration (Walker & Ni 2011), row by row.

    Of the steps before, that mixture is followed which leaves the least. For data whose directions have m different
    variances m rounds solve the equation.
    """
    x, step = (v.double().flatten(1) for v in past[-1])
    found = x + step
    if len(past) > 1:
        xs, steps = (torch.stack([v.double().flatten(1) for v in side], -1) for side in zip(*past, strict=True))
        dx, ds = xs.diff(dim=-1), steps.diff(dim=-1)
        square = ds.mT @ ds
        scale = square.diagonal(dim1=1, dim2=2).amax(1).clamp(min=1e-20)  # of rows that stopped
        ridge = 1e-10 * scale[:, None, None] * torch.eye(ds.shape[-1], dtype=ds.dtype, device=ds.device)
        share = torch.linalg.solve(square + ridge, ds.mT @ step[..., None])
        found = found - ((dx + ds) @ share)[..., 0]
    return found.reshape(past[-1][0].shape).to(past[-1][0].dtype)


def _gain(a: Level, b: Level) -> float:
    """The share of what is left that x takes on in a round."""
    low = b.sigma / a.sigma
    if a.alpha == 0:
        return 1 / low if low else 1.0
    share = a.alpha**2 * WIDEST / (a.alpha**2 * WIDEST + a.sigma**2)
    high = share * b.alpha / a.alpha + (1 - share) * low
    gain: float = 2 / (low + high) if low else 1 / high
    return gain


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Between two noises along the sphere, (k,*S) for shares (k,) of the second (Shoemake 1985): noise stays as large as noise.

    Args:
        a, b: (*S).
    """
    first, second = a.double().flatten(), b.double().flatten()
    cosine = (first @ second / (first.norm() * second.norm()).clamp(min=1e-300)).clamp(-1, 1)
    angle = torch.acos(cosine)
    t = share.to(first)[:, None]
    if float(torch.sin(angle)) < 1e-6:  # the same direction, or opposite ones, between which there is no one way
        found = torch.lerp(first, second, t)
    else:
        found = (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)
    return found.reshape(-1, *a.shape).to(a.dtype)

"""How likely a sample is: the density of the probability-flow ODE, and the variational bound of a discrete schedule.

Both see only `predict(x, level) -> (x0, eps)`, as samplers do. The ODE is written for the angle theta between signal and
noise, tan(theta) = sigma / alpha, which makes it one for all schedules:

    u = x / sqrt(alpha^2 + sigma^2) = cos(theta) x0 + sin(theta) eps
    du / dtheta = v(u, theta) = cos(theta) eps - sin(theta) x0
    ln p(x0) = ln p(u at the noisiest level) + integral of the divergence of v over theta

(Song et al. 2021, "Score-based generative modeling through SDEs", Eq. 39, with another clock.) For data of unit variance
nothing has to be integrated, and for Gaussian data each direction passes once, within about one unit of
lambda = ln(alpha / sigma), whatever its variance: so steps are even in lambda.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from zoo.core import seeds
from zoo.core.predict import Predict
from zoo.core.samplers import LEARNED, VARIANCES, learned_variance, posterior_variances
from zoo.core.schedule import NOISIEST, DiscreteSchedule, Level, Schedule
from zoo.errors import ConfigError, one_of

#: values (B,*S) at the leaf (B,*S) that they depend on -> the trace of their Jacobian (B,), float64
Trace = Callable[[Tensor, Tensor], Tensor]


# ---------------------------------------------------------------- what is counted


@dataclass(frozen=True)
class Units:
    """How the density of an encoded sample becomes that of its object.

    Attributes:
        name: what a number of the object is measured in, such as "steps of 8-bit pictures".
        log_det: ln |det| of the derivative of the encoded sample by the object's numbers, over all of them.
        step: width in encoded units of the steps that the object's numbers are rounded to; None where they are not.
        ends: the lowest and the highest value of a rounded number, encoded.
    """

    name: str
    log_det: float = 0.0
    step: float | None = None
    ends: tuple[float, float] = (-math.inf, math.inf)


#: no units: the numbers that the net sees
ENCODED = Units("encoded units, as the net sees them")


@dataclass(frozen=True)
class Likelihood:
    """How likely each of n objects is.

    Attributes:
        nats: (n,) float64, ln of the density, or of the probability where numbers are rounded; of a bound the bound of it.
        nats_error: (n,) standard error of `nats` over the random draws; 0 where nothing is random, NaN for one draw.
        free: (n,) how many numbers of each object are free.
        unit: what a number of the object is measured in.
        counted: what was computed, in words.
        parts: of a bound what it is made of, each (n,) in nats: "L_T", "L_t" and "L_0", whose sum is -nats without the
            share of the unit.
    """

    nats: Tensor
    nats_error: Tensor
    free: Tensor
    unit: str
    counted: str
    parts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def bits(self) -> Tensor:
        """(n,) bits per dimension, -log2 p / free: lower is more likely."""
        return -self.nats / self.free / math.log(2)

    @property
    def error(self) -> Tensor:
        """(n,) standard error of `bits` over the random draws."""
        return self.nats_error / self.free / math.log(2)

    @property
    def mean(self) -> tuple[float, float]:
        """Mean of `bits` over the objects, and its standard error over them (NaN for a single one)."""
        spread = self.bits.std().item() if len(self.bits) > 1 else math.nan
        return self.bits.mean().item(), spread / math.sqrt(len(self.bits))

    def __len__(self) -> int:
        return len(self.nats)

    def __str__(self) -> str:
        mean, error = self.mean
        shown = f"{mean:.3f}" if math.isnan(error) else f"{mean:.3f} +- {error:.3f}"
        return f"{shown} bits per dimension over {len(self)} objects; {self.counted}; {self.unit}"


class Draws:
    """Random numbers of rows, one CPU generator each: a row draws the same in every batch.

    Args:
        parts: of each row the whole numbers that seed it.
        sizes, axis: as of `zoo.core.seeds.SampleRng`.
    """

    def __init__(self, parts: Sequence[Sequence[int]], sizes: Sequence[int] | None = None, axis: int = 0) -> None:
        self.generators, self.sizes, self.axis = [seeds.generator(*p) for p in parts], sizes, axis

    def _drawn(self, like: Tensor, draw: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        out = torch.zeros(like.shape, dtype=torch.float32)
        for i, (row, rng) in enumerate(zip(out, self.generators, strict=True)):
            real = row if self.sizes is None else row.narrow(self.axis, 0, self.sizes[i])
            real.copy_(draw(real, rng))
        return out.to(device=like.device, dtype=like.dtype)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers (B,*S); 0 in the padding."""
        return self._drawn(like, lambda x, rng: torch.randn(x.shape, generator=rng))

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers (B,*S) in [-1/2, 1/2); 0 in the padding."""
        return self._drawn(like, lambda x, rng: torch.rand(x.shape, generator=rng) - 0.5)

    def signs(self, like: Tensor) -> Tensor:
        """-1 or 1 (B,*S), each in half of the cases (Rademacher); 0 in the padding."""
        return self._drawn(like, lambda x, rng: 2.0 * torch.randint(2, x.shape, generator=rng) - 1.0)


# ---------------------------------------------------------------- traces


def hutchinson(probes: Tensor) -> Trace:
    """The unbiased estimate z' J z of a trace (Hutchinson 1989), with the same probe at every level.

    Args:
        probes: z (B,*S) of zero mean and unit covariance on the space where samples lie.
    """

    def trace(out: Tensor, leaf: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(out, leaf, probes)
        return (product.double() * probes.double()).flatten(1).sum(1)

    return trace


def exact_trace(out: Tensor, leaf: Tensor) -> Tensor:
    """The trace of the Jacobian, one product with the net's Jacobian for each number of a sample."""
    total = torch.zeros(len(out), dtype=torch.float64, device=out.device)
    flat = out.flatten(1)
    for i in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, i].sum(), leaf, retain_graph=True)
        total += row.flatten(1)[:, i].double()
    return total


# ---------------------------------------------------------------- the density of the probability-flow ODE


def reach(schedule: Schedule) -> tuple[float, float]:
    """The least and the largest sigma / alpha between which a schedule's ODE is integrated: those of its Karras grid."""
    found = schedule.ends
    if found is None:
        ratios = [level.ratio for level in schedule.levels(min(100, schedule.max_steps))[:-1]]
        found = min(ratios), max(ratios)
    return found[0], min(found[1], NOISIEST)


class _Flow:
    """The ODE of a prediction in u and theta, with the divergence of its field."""

    def __init__(self, predict: Predict, trace: Trace, real: Tensor | None) -> None:
        self.predict, self.trace, self.real = predict, trace, real

    def believed(self, u: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """(leaf, x0, eps) at u (B,*S), with the graph from the leaf; 0 in the padding."""
        leaf = u.detach().requires_grad_()
        x0, eps = self.predict(math.hypot(level.alpha, level.sigma) * leaf, level)
        if self.real is not None:
            x0, eps = torch.where(self.real, x0, 0), torch.where(self.real, eps, 0)
        return leaf, x0, eps

    def field(self, u: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(du / dtheta (B,*S), its divergence (B,))."""
        norm = math.hypot(level.alpha, level.sigma)
        with torch.enable_grad():
            leaf, x0, eps = self.believed(u, level)
            v = (level.alpha / norm) * eps - (level.sigma / norm) * x0
            divergence = self.trace(v, leaf)
        return v.detach(), divergence

    def mean(self, like: Tensor, level: Level) -> Tensor:
        """The mean of the data (B,*S), as far as the net tells it at a noisy level, of u without and then with that mean."""
        norm = math.hypot(level.alpha, level.sigma)
        x = torch.zeros_like(like)
        for _ in range(2):
            with torch.no_grad():
                x = self.believed((level.alpha / norm) * x, level)[1].detach()
        return x


def flow_log_density(
    predict: Predict,
    x0: Tensor,
    schedule: Schedule,
    trace: Trace,
    *,
    free: Tensor,
    real: Tensor | None = None,
    steps: int = 30,
    to_clean: bool = True,
) -> Tensor:
    """ln of the density of x0 in encoded units, (B,) float64: Song et al. 2021, Eq. 39.

    The ODE is walked by the classic Runge-Kutta rule of order 4, in steps even in log-SNR between the least and the noisiest
    level that nets know, and in one step each from the clean sample and to pure noise, where u is N(0, 1) exactly. Without
    these two a small variance or the mean of the data would show: at sigma / alpha = 80, where grids start, a mean of 0.7
    still moves a single number by 0.01 bits.

    Args:
        x0: (B,*S), 0 in the padding.
        trace: of a Jacobian: `exact_trace`, or `hutchinson(probes)`.
        free: (B,) float64, how many numbers of each sample are free.
        real: bool, broadcast to (B,*S): what is not padding; None for all.
        steps: of the solver, four calls of the net each.
        to_clean: the stretch below the schedule's least level is walked as well, see `_to_least`; else x0 is taken for the
            sample at the least level, as in the paper.
    """
    flow = _Flow(predict, trace, real)
    low, high = reach(schedule)
    least = schedule.at(low)
    if to_clean:
        u, total = _to_least(flow, x0, least)
    else:
        norm = math.hypot(least.alpha, least.sigma)
        u, total = x0 / norm, torch.full((len(x0),), -math.log(norm), dtype=torch.float64, device=x0.device) * free
    first, last = -math.log(low), -math.log(high)
    h = (last - first) / steps

    def slope(u: Tensor, lam: float) -> tuple[Tensor, Tensor]:
        # a rounded end must not lie beyond the schedule, where `at` is clipped
        level = schedule.at(min(max(math.exp(-lam), low), high))
        rate = -level.alpha * level.sigma / (level.alpha**2 + level.sigma**2)  # d theta / d lambda
        v, divergence = flow.field(u, level)
        return rate * v, rate * divergence

    for i in range(steps):
        u, gain = _runge_kutta(slope, u, first + i * h, h)
        total = total + gain
    u, gain = _to_noise(flow, u, schedule.at(high))
    return total + gain - 0.5 * (u.double().square().flatten(1).sum(1) + free * math.log(2 * math.pi))


def _runge_kutta(
    slope: Callable[[Tensor, float], tuple[Tensor, Tensor]], u: Tensor, at: float, h: float
) -> tuple[Tensor, Tensor]:
    """One step of the classic rule of order 4: (u after it, what the integral of the divergence gains)."""
    v1, d1 = slope(u, at)
    v2, d2 = slope(u + h / 2 * v1, at + h / 2)
    v3, d3 = slope(u + h / 2 * v2, at + h / 2)
    v4, d4 = slope(u + h * v3, at + h)
    return u + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4), h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)


def _to_least(flow: _Flow, x0: Tensor, least: Level) -> tuple[Tensor, Tensor]:
    """From the clean sample to the schedule's least level: (u there, the integral of the divergence).

    No net is trained below that level. The expected noise is -sigma times the score, so that for every smooth density v
    falls to 0 with theta in a straight line: v(u, theta) = theta / theta_least v(u, theta_least). One step of order 4 for
    half of theta_least follows that field. It is exact up to (theta^2 / variance)^2 for Gaussian data, and a flow like any
    other, with its true volume, for all.
    """

    def slope(u: Tensor, at: float) -> tuple[Tensor, Tensor]:
        return flow.field(u, least)

    return _runge_kutta(slope, x0, 0.0, math.atan2(least.sigma, least.alpha) / 2)


def _to_noise(flow: _Flow, u: Tensor, noisiest: Level) -> tuple[Tensor, Tensor]:
    """From the noisiest level to pure noise: (u there, the integral of the divergence).

    There v is minus the mean of the data, whatever they are, and towards it v goes in a straight line, for Gaussian data up
    to the square of the angle that is left.
    """
    left = math.atan2(noisiest.alpha, noisiest.sigma)
    mean = flow.mean(u, noisiest)

    def slope(u: Tensor, at: float) -> tuple[Tensor, Tensor]:
        share = 1 - at / left
        v, divergence = flow.field(u, noisiest)
        return share * v - (1 - share) * mean, share * divergence

    return _runge_kutta(slope, u, 0.0, left)


# ---------------------------------------------------------------- the variational bound


def variational_bound(
    predict: Predict,
    x0: Tensor,
    schedule: DiscreteSchedule,
    noise: Callable[[Tensor], Tensor],
    *,
    free: Tensor,
    units: Units = ENCODED,
    real: Tensor | None = None,
    variance: str = "small",
    times: Sequence[tuple[int, float]] | None = None,
    share: Callable[[], Tensor] | None = None,
) -> dict[str, Tensor]:
    """The three parts of the bound of -ln p(x0) (Ho et al. 2020, Eq. 5), each (B,) float64 in nats.

    L_T compares x_T with N(0, 1); L_t compares each step of ancestral sampling with the true posterior (Eq. 8), and one draw
    of noise is taken for each t; L_0 is -ln of what the last step gives x0: for rounded numbers the probability of
    their step under a normal one whose outermost steps are open (Eq. 13), else its density. The variance of that step is the
    posterior's of the step before, as its own is 0.

    Args:
        noise: like (B,*S) -> standard normal noise shaped like it, 0 in the padding.
        free, real: as of `flow_log_density`.
        units: of the last step: `step` and `ends`; `log_det` is not applied here.
        variance: of a step: "small" is beta-tilde, "large" beta, "learned" what the net says, see `zoo.core.samplers.ddpm`.
        times: (t, weight) of the terms of L_t, t from 1 to T - 1; None for all of them with weight 1.
        share: for the learned variance: what the last prediction said, (B,*S).

    Raises:
        ConfigError: an unknown variance; a learned one of samples whose elements are not all free, such as centred points.
    """
    if variance not in VARIANCES:
        raise one_of("variance", variance, VARIANCES)
    if variance == LEARNED:
        elements = x0[0].numel() if real is None else real.expand_as(x0).flatten(1).sum(1).to(free)
        if share is None or not bool((free == elements).all()):
            raise ConfigError("variance='learned': not all elements of a sample are free. Give 'small' or 'large'.")
    last = schedule.level(schedule.T - 1)
    square = x0.double().square().flatten(1).sum(1)
    prior = 0.5 * (free * (last.sigma**2 - 1 - math.log(last.sigma**2)) + last.alpha**2 * square)
    steps = torch.zeros_like(prior)
    for t, weight in times or [(t, 1.0) for t in range(schedule.T - 1, 0, -1)]:
        a, b = schedule.level(t), schedule.level(t - 1)
        beta, tilde = posterior_variances(a, b)
        off = (b.alpha * beta / a.sigma**2) ** 2 * _squared(predict, x0, a, noise, real)
        if share is not None and variance == LEARNED:
            used = learned_variance(share().double(), a, b)
            each = 0.5 * (off / used + tilde / used - 1 - torch.log(tilde / used))
            steps = steps + weight * _real(each, real).flatten(1).sum(1)
        else:
            one = tilde if variance == "small" else beta
            same = 0.5 * free * (tilde / one - 1 - math.log(tilde / one))
            steps = steps + weight * (off.flatten(1).sum(1) / (2 * one) + same)
    first, second = schedule.level(0), schedule.level(1)
    spread = first.sigma / second.sigma * math.sqrt(second.sigma**2 - (second.alpha / first.alpha * first.sigma) ** 2)
    guess, _ = predict(first.alpha * x0 + first.sigma * noise(x0), first)
    guess = guess.detach()
    if units.step is None:
        off = _real((x0 - guess).double().square(), real).flatten(1).sum(1)
        decoded = 0.5 * (off / spread**2 + free * math.log(2 * math.pi * spread**2))
    else:
        decoded = -_real(log_step(x0.double(), guess.double(), spread, units), real).flatten(1).sum(1)
    return {"L_T": prior, "L_t": steps, "L_0": decoded}


def _squared(predict: Predict, x0: Tensor, level: Level, noise: Callable[[Tensor], Tensor], real: Tensor | None) -> Tensor:
    """(x0 - what is believed of it at a level)^2 (B,*S), float64, at one draw of noise."""
    with torch.no_grad():
        guess, _ = predict(level.alpha * x0 + level.sigma * noise(x0), level)
    return _real((x0 - guess).double().square(), real)


def _real(x: Tensor, real: Tensor | None) -> Tensor:
    return x if real is None else torch.where(real, x, 0)


def log_step(x: Tensor, mean: Tensor, spread: float, units: Units) -> Tensor:
    """ln of the probability of rounded numbers x under N(mean, spread^2): that of their step (Ho et al. 2020, Eq. 13).

    The lowest step reaches down to minus infinity and the highest one up. All tensors are float64 of one shape.
    """
    half = (units.step or 0.0) / 2
    low, high = units.ends
    above = torch.where(x >= high - half, math.inf, (x + half - mean) / spread)
    below = torch.where(x <= low + half, -math.inf, (x - half - mean) / spread)
    # on the upper side the mirrored tails are taken: there 1 - Phi keeps its digits
    flip = below + above > 0
    upper, lower = torch.where(flip, -below, above), torch.where(flip, -above, below)
    top, bottom = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    found: Tensor = top + torch.log1p(-torch.exp(bottom - top).clamp(max=1 - 1e-15))
    return found


def drawn_times(T: int, terms: int, rng: torch.Generator) -> list[tuple[int, float]]:
    """`terms` of the times 1..T-1, one drawn from each of as many equal stretches, with weights that leave the sum right."""
    edges = [1 + round(i * (T - 1) / terms) for i in range(terms + 1)]
    found = []
    for first, after in pairwise(edges):
        found.append((first + int(torch.randint(after - first, (), generator=rng)), float(after - first)))
    return found[::-1]

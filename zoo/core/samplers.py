"""Samplers: pure generators over an explicit list of levels.

A sampler sees `predict(x, level) -> (x0, eps)` and levels [noisiest, ..., clean]; step i goes from levels[i] to
levels[i + 1]. It knows nothing of conditions, guidance, prediction types or kinds of schedule, so each one runs on
every Gaussian process. A new one is a decorated generator:

    @sampler("euler")
    def euler(predict, x, levels, *, rng):
        for a, b in pairwise(levels):
            x0, eps = predict(x, a)
            x = b.alpha * x0 + b.sigma * eps
            yield Step(b, x, x0)
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.core.predict import Predict
from zoo.core.schedule import Level, Schedule
from zoo.errors import ConfigError, one_of
from zoo.extras import Registry
from zoo.values import number


class Rng(Protocol):
    """Source of noise: `SampleRng`, or a test's own."""

    def normal(self, like: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """The state after a step: x at `level`, and the x0 (B,*S) that the step believed in. The last x is the sample."""

    level: Level
    x: Tensor
    x0: Tensor


@dataclass(frozen=True)
class Sampler:
    """A registered sampler, its options, and how often a step calls the prediction; the last one, to sigma = 0, once.

    Attributes:
        begins: how many calls more the first of several steps makes, unless it starts from noise alone (alpha = 0).
        looks_back: whether a step also uses what an earlier one predicted.
    """

    name: str
    run: Callable[..., Iterator[Step]]
    options: tuple[str, ...]
    calls: int = 1
    begins: int = 0
    looks_back: bool = False

    def evaluations(self, levels: Sequence[Level]) -> int:
        """How often the steps between these levels call the prediction."""
        steps = len(levels) - 1
        return self.calls * steps - (self.calls - 1) + (self.begins if steps > 1 and levels[0].alpha else 0)

    def __call__(self, predict: Predict, x: Tensor, levels: list[Level], *, rng: Rng, **options: Any) -> Iterator[Step]:
        for name in options:
            if name not in self.options:
                raise one_of(f"option of the sampler {self.name!r}", name, self.options)
        return self.run(predict, x, levels, rng=rng, **options)


#: of DDPM's steps; the last one is what the net says
VARIANCES = ("small", "large", LEARNED := "learned")
#: arguments of samplers that a model gives, and nobody else
GIVEN = ("share",)
#: where DDPM's large variance is too large for the step, see `_surplus`; its own thousand steps reach 1.3
SURPLUS = 2.0
#: log of the fall of sigma / alpha in a step of Heun's beyond which sounds become noise (`benchmarks/few_steps.py`)
STRIDE = 4.0

SAMPLERS: Registry[Sampler] = Registry("sampler", "zoo.samplers")


def sampler(
    name: str, calls: int = 1, begins: int = 0, looks_back: bool = False
) -> Callable[[Callable[..., Iterator[Step]]], Sampler]:
    """Register a generator as the sampler `name`. Keyword arguments after `rng` are its public options.

    Args:
        calls, begins: how often a step calls the prediction, and how often more the first of several.
        looks_back: whether a step also uses what an earlier one predicted: such a sampler does not work with angles, see
            `zoo.core.circle`.
    """

    def register(run: Callable[..., Iterator[Step]]) -> Sampler:
        options = tuple(p for p in inspect.signature(run).parameters if p not in ("predict", "x", "levels", "rng"))
        return SAMPLERS.register(name, Sampler(name, run, options, calls, begins, looks_back))

    return register


def get_sampler(name: str) -> Sampler:
    """The sampler of this name, ours or another package's; an unknown one raises with the list."""
    return SAMPLERS[name]


def posterior_variances(a: Level, b: Level) -> tuple[float, float]:
    """(variance of x_a given x_b, variance of x_b given x_a and x0): beta and beta-tilde of DDPM for any pair of levels."""
    beta = a.sigma**2 - (a.alpha / b.alpha * b.sigma) ** 2
    return beta, b.sigma**2 / a.sigma**2 * beta


def learned_variance(share: Tensor, a: Level, b: Level) -> Tensor:
    """Variance of x_b given x_a, of a net that says its share v: exp(v ln beta + (1 - v) ln beta-tilde), shaped like v.

    Nichol & Dhariwal 2021, Eq. 15; the two ends are those of the step, whatever the grid (their section 4).
    """
    beta, tilde = posterior_variances(a, b)
    found: Tensor = torch.exp(share * math.log(beta) + (1 - share) * math.log(tilde))
    return found


def _surplus(a: Level, b: Level, noise_scale: float) -> float:
    """How much variance the large one of DDPM adds at b beside what b has, as a share of that."""
    beta, tilde = posterior_variances(a, b)
    share: float = (noise_scale**2 * beta - tilde) / b.sigma**2
    return share


@sampler("ddpm")
def ddpm(
    predict: Predict,
    x: Tensor,
    levels: list[Level],
    *,
    rng: Rng,
    variance: str = "small",
    noise_scale: float = 1.0,
    share: Callable[[], Tensor] | None = None,
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, Algorithm 2), between any two levels: x_b = mean + noise_scale sqrt(variance) z.

    Args:
        variance: "small" is the posterior variance beta-tilde (Eq. 7), "large" is beta (section 3.2), "learned" what the net
            says of it, see `learned_variance`.
        noise_scale: of the noise of each step but not of x_T; 1 is DDPM. Below 1 samples are drawn more surely and vary less
            (Lin & AlQuraishi 2023, "Genie", who take 0.6); with 0 no noise is added.
        share: for the learned one: what the last prediction said, (B,*S). A model gives it by itself.
    """
    if variance not in VARIANCES:
        raise one_of("variance", variance, VARIANCES)
    if variance == LEARNED and share is None:
        raise ConfigError("variance='learned': give `share`, which says what the net said of it.")
    noise_scale = number(noise_scale, "noise_scale", 0.0, what="of the noise of each step")
    surplus = (_surplus(a, b, noise_scale) for a, b in pairwise(levels) if b.sigma)
    if variance == "large" and (worst := max(surplus, default=0.0)) > SURPLUS:
        warnings.warn(
            f"variance='large' with {len(levels) - 1} steps leaves up to {math.sqrt(1 + worst):.1f} times the noise that the "
            "net is told of, and samples stay noisy: take more steps, or variance='small'.",
            stacklevel=2,
        )
    for a, b in pairwise(levels):
        x0, _ = predict(x, a)
        beta, tilde = posterior_variances(a, b)
        ratio = a.alpha / b.alpha
        x = (ratio * b.sigma**2 / a.sigma**2) * x + (b.alpha * beta / a.sigma**2) * x0
        if b.sigma and share is not None and variance == LEARNED:
            x = x + noise_scale * learned_variance(share(), a, b).sqrt() * rng.normal(x)
        elif b.sigma:
            x = x + noise_scale * math.sqrt(tilde if variance == "small" else beta) * rng.normal(x)
        yield Step(b, x, x0)


@sampler("ddim")
def ddim(predict: Predict, x: Tensor, levels: list[Level], *, rng: Rng, eta: float = 0.0) -> Iterator[Step]:
    """DDIM (Song et al. 2020, Eq. 12).

    Args:
        eta: 0 is the deterministic sampler, 1 is DDPM with the small variance.
    """
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta={eta}: give a number from 0 (deterministic) to 1 (DDPM).")
    for a, b in pairwise(levels):
        x0, eps = predict(x, a)
        variance = eta**2 * posterior_variances(a, b)[1] if eta else 0.0
        x = b.alpha * x0 + math.sqrt(max(b.sigma**2 - variance, 0.0)) * eps
        if variance:
            x = x + math.sqrt(variance) * rng.normal(x)
        yield Step(b, x, x0)


@sampler("dpmpp", looks_back=True)
def dpmpp(predict: Predict, x: Tensor, levels: list[Level], *, rng: Rng, lower_order_final: bool = True) -> Iterator[Step]:
    """DPM-Solver++ 2M, the multistep solver of second order (Lu et al. 2022b, Algorithm 2; midpoint form).

    Args:
        lower_order_final: make the last step first order when there are fewer than 15 (their advice for stability).
            A last step to sigma = 0 is first order in any case: log-SNR is infinite there.
    """
    last: Tensor | None = None  # the x0 of the step before
    previous = math.inf  # and its step in log-SNR
    n = len(levels) - 1
    for i, (a, b) in enumerate(pairwise(levels)):
        x0, _ = predict(x, a)
        h = b.lam - a.lam  # infinite from alpha = 0 or to sigma = 0
        d = x0
        second = math.isfinite(h) and math.isfinite(previous) and not (lower_order_final and i == n - 1 and n < 15)
        if last is not None and second:
            d = x0 + (h / (2 * previous)) * (x0 - last)
        x = (b.sigma / a.sigma) * x - (b.alpha * math.expm1(-h)) * d
        last, previous = x0, h
        yield Step(b, x, x0)


#: Adams-Bashforth's weights of the last slopes, the newest first, by how many there are
BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


#: what PLMS takes for x0 in a step from noise alone, and along what it goes to no noise
STARTS, ENDS = ("x0", "zero"), ("x0", "sum")


@sampler("plms", begins=1, looks_back=True)
def plms(predict: Predict, x: Tensor, levels: list[Level], *, rng: Rng, start: str = "x0", end: str = "x0") -> Iterator[Step]:
    """PLMS, the pseudo linear multistep method of fourth order (Liu et al. 2022b, "PNDM", Eq. 9 and 12), one prediction a step.

    DDIM's step along a sum of the last four eps, with Adams-Bashforth's weights for even steps; the first step is improved
    Euler's (the trapezoid rule), which calls the prediction twice, and a last one to sigma = 0 takes x0. It is what Stable
    Diffusion's first releases are sampled with, and is here for their sake: `dpmpp` knows how long its steps are.

    Where the first level holds no signal there is no trapezoid, and all steps are of Adams-Bashforth's orders 1, 2, 3, 4, 4,
    ..., which is iPNDM (Zhang & Chen 2022, "Fast sampling of diffusion models with exponential integrator").

    Args:
        start: of a step from noise alone (alpha = 0), where eps does not say x0: "x0" takes what the net says, "zero" takes
            0, as diffusers' IPNDMScheduler does, so that the first prediction has no effect.
        end: of a step to sigma = 0: "x0" takes the last x0, so that what a steer holds comes out as it is, "sum" goes along
            the sum of the slopes once more, as diffusers' schedulers do.
    """
    for name, given, allowed in (("start", start, STARTS), ("end", end, ENDS)):
        if given not in allowed:
            raise one_of(name, given, allowed)
    slopes: list[Tensor] = []  # eps of the last steps, the newest first
    for i, (a, b) in enumerate(pairwise(levels)):
        x0, eps = predict(x, a)
        slopes = [eps, *slopes[: len(BASHFORTH) - 1]]
        euler = b.alpha * x0 + b.sigma * eps
        if not a.alpha or (not b.sigma and end == "x0"):
            x = euler if a.alpha or not b.sigma or start == "x0" else b.sigma * eps
        else:
            along = torch.zeros_like(eps)
            for weight, slope in zip(BASHFORTH[len(slopes) - 1], slopes, strict=True):
                along = along + weight * slope
            if i == 0 and len(levels) > 2:
                along = (eps + predict(euler, b)[1]) / 2
            x = (b.alpha / a.alpha) * (x - a.sigma * along) + b.sigma * along
        yield Step(b, x, x0)


@sampler("heun", calls=2)
def heun(
    predict: Predict, x: Tensor, levels: list[Level], *, rng: Rng, churned: list[Level] | None = None, s_noise: float = 1.0
) -> Iterator[Step]:
    """Heun's second-order step of the probability-flow ODE (Karras et al. 2022, Algorithm 2), two predictions a step.

    Along the path dx = x0 d(alpha) + eps d(sigma), so the trapezoid rule needs no division by alpha or sigma: it is
    EDM's rule at alpha = 1, the plain one for a flow, and of second order for variance-preserving schedules.

    Warns:
        of steps so long that the trapezoid rule is worse than none: it takes more steps, or a grid with nearer bounds.

    Args:
        churned: one noisier level for each step (the same level for no churn), see `churn`; None never adds noise.
        s_noise: standard deviation of the noise that churn adds.
    """
    strides = [math.log(a.ratio / b.ratio) for a, b in pairwise(levels) if b.sigma and math.isfinite(a.ratio)]
    if strides and max(strides) > STRIDE:
        warnings.warn(
            f"heun with {len(levels) - 1} steps lets sigma / alpha fall by {math.exp(max(strides)):.0f} times in one, which is "
            "too far for its second order, and samples may be noise: take more steps, nearer bounds, or dpmpp.",
            stacklevel=2,
        )
    for a, b, c in _churning(levels, churned):
        x, a = _raise(x, a, c, rng, s_noise), c
        x0, eps = predict(x, a)
        euler = b.alpha * x0 + b.sigma * eps
        if not b.sigma:
            yield Step(b, euler, x0)
            return
        x0_b, eps_b = predict(euler, b)
        # written as a correction of the Euler step, which keeps x = alpha x0 + sigma eps exact
        x = euler + (b.alpha - a.alpha) / 2 * (x0_b - x0) + (b.sigma - a.sigma) / 2 * (eps_b - eps)
        yield Step(b, x, x0_b)


@sampler("euler")
def euler(
    predict: Predict,
    x: Tensor,
    levels: list[Level],
    *,
    rng: Rng,
    churned: list[Level] | None = None,
    s_noise: float = 1.0,
    step_scale: float = 1.0,
) -> Iterator[Step]:
    """Euler's step after churn, one prediction a step (Karras et al. 2022, Algorithm 2, without its second half).

    Args:
        churned, s_noise: as for `heun`.
        step_scale: eta of AlphaFold 3's sampler (Abramson et al. 2024, Algorithm 18): the fall of the noise ratio
            sigma / alpha that the direction is followed for is eta times that of the levels, at most down to 0. Above 1
            with churn samples are drawn more surely, and vary less.
    """
    if not step_scale > 0:
        raise ConfigError(f"step_scale={step_scale}: give a positive number (1 is the plain step).")
    for a, b, c in _churning(levels, churned):
        x = _raise(x, a, c, rng, s_noise)
        x0, eps = predict(x, c)
        sigma = b.sigma
        if step_scale != 1 and math.isfinite(c.ratio):
            sigma = b.alpha * max(c.ratio + step_scale * (b.ratio - c.ratio), 0.0)
        x = b.alpha * x0 + (sigma if b.sigma else 0.0) * eps
        yield Step(b, x, x0)


def _churning(levels: list[Level], churned: list[Level] | None) -> Iterator[tuple[Level, Level, Level]]:
    """(from, to, raised) of each step."""
    churned = churned or levels[:-1]
    if len(churned) != len(levels) - 1:
        raise ConfigError(f"{len(churned)} churned levels for {len(levels) - 1} steps.")
    return ((a, b, c if c.ratio > a.ratio else a) for (a, b), c in zip(pairwise(levels), churned, strict=True))


def _raise(x: Tensor, a: Level, c: Level, rng: Rng, s_noise: float) -> Tensor:
    """x at level a, its noise raised to level c: (alpha_c / alpha_a) x + noise."""
    if c is a:
        return x
    up = c.alpha / a.alpha
    raised: Tensor = up * x + s_noise * math.sqrt(max(c.sigma**2 - (up * a.sigma) ** 2, 0.0)) * rng.normal(x)
    return raised


def churn(schedule: Schedule, levels: list[Level], s_churn: float, s_min: float = 0.0, s_max: float = math.inf) -> list[Level]:
    """The raised levels of EDM's churn (Karras et al. 2022, Algorithm 2): sigma (1 + gamma) inside [s_min, s_max].

    gamma = min(s_churn / steps, sqrt(2) - 1); noise levels are sigma / alpha, clipped to the schedule's range.
    """
    if s_churn < 0:
        raise ConfigError(f"s_churn={s_churn}: give a number >= 0.")
    noisy = levels[:-1]
    gamma = min(s_churn / len(noisy), math.sqrt(2) - 1)
    raised = [schedule.at(a.ratio * (1 + gamma)) if s_min <= a.ratio <= s_max else a for a in noisy]
    return [c if c.ratio > a.ratio else a for a, c in zip(noisy, raised, strict=True)]

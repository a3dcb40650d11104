"""How in-painting draws what is not known: five methods, from the cheapest to those that are right as a conditional.

| method | what it is | evaluations of the net a step |
| --- | --- | --- |
| replace | known parts are put into each x0 | 1 |
| resample | the same, each step taken several times, with noise put back between (RePaint) | `times` |
| posterior | x0 is moved by the net's own covariance until known parts are met | 1, and `products` backwards |
| particles | weighted samples, the unlikely ones replaced by others (TDS) | `particles`, each also backwards |
| select | several candidates, of which those go on that known parts like best | `candidates` |
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.core.correction import Setting, shifted, traced
from zoo.core.measure import PRODUCTS, Known
from zoo.core.predict import Memory, Predict, Steering
from zoo.core.samplers import LEARNED, Rng, Sampler, Step, posterior_variances
from zoo.core.schedule import Level
from zoo.core.steer import Hold, Place, Steer
from zoo.errors import ConfigError, one_of
from zoo.values import whole

#: the noise, sigma / alpha, at which `Select` chooses: of a chain about 4 angstrom, where it is seen who lies in whose way
CHOSEN = 0.6


class ParticleRng(Rng, Protocol):
    """Noise of each particle, and numbers of each sample: `zoo.core.seeds.ParticleRng`."""

    def uniform(self) -> Tensor:
        """(B,) float64 in [0, 1), one a sample."""
        ...


@dataclass(frozen=True)
class Method:
    """A way of in-painting: a steer of known parts, and how the sampler is run.

    Attributes:
        name: by which it is asked for.
        copies: how many rows of a batch make one sample.
        gradients: whether the net is also called backwards.
        steered: whether the prediction that it runs on has the steer of known parts in it; else it asks that steer itself.
    """

    name = "replace"
    copies = 1
    gradients = False
    steered = True

    def steer(self, held: Steering) -> Steering:
        """The steer of known parts as this method uses it.

        Raises:
            ConfigError: known parts that the method cannot make use of.
        """
        return held

    def run(
        self,
        sampler: Sampler,
        predict: Predict,
        x: Tensor,
        levels: list[Level],
        rng: Any,
        options: Mapping[str, Any],
        *,
        held: Steering | None = None,
        setting: Setting | None = None,
        memory: Memory | None = None,
    ) -> Iterator[Step]:
        """The steps of a sampler, from x (B * copies,*S), the copies of a sample one after the other. Steps hold B rows.

        Args:
            held: the steer of known parts.
            setting: of the samples.
            memory: of a net that conditions itself: what it was told goes with the rows that go on.

        Raises:
            ConfigError: a sampler, or known parts, that the method does not work with.
        """
        return sampler(predict, x, levels, rng=rng, **options)

    def steps(self, steps: int) -> int:
        """How many steps are made where a grid has `steps`."""
        return steps

    def evaluations(self, calls: int) -> tuple[int, int]:
        """(forwards, backwards) of the net for one sample, where the sampler calls it so many times."""
        return calls, 0

    def cost(self, calls: int) -> str:
        """What one sample costs, in words, where the sampler calls the net so many times."""
        forwards, backwards = self.evaluations(calls)
        return f"{forwards:,} evaluations of the net a sample" + (f", {backwards:,} calls backwards" if backwards else "")

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that ask for it."""
        return {"method": self.name} | {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Resample(Method):
    """RePaint (Lugmayr et al. 2022, Algorithm 1): noise is put back and the steps are taken again, so that both parts agree.

    From the level b after a step (or after `jump` of them) back to the level a before it:

        x_a = (alpha_a / alpha_b) x_b + sqrt(sigma_a^2 - (alpha_a / alpha_b)^2 sigma_b^2) noise

    Args:
        times: r of the paper, how often each step is taken.
        jump: j of the paper, steps that are taken again together; a multistep sampler starts anew after each jump.
    """

    times: int = 10
    jump: int = 10
    name = "resample"

    def __post_init__(self) -> None:
        whole(self.times, "times", 1)
        whole(self.jump, "jump", 1)

    def run(
        self,
        sampler: Sampler,
        predict: Predict,
        x: Tensor,
        levels: list[Level],
        rng: Any,
        options: Mapping[str, Any],
        *,
        held: Steering | None = None,
        setting: Setting | None = None,
        memory: Memory | None = None,
    ) -> Iterator[Step]:
        for first in range(0, len(levels) - 1, self.jump):
            part = levels[first : first + self.jump + 1]
            own = options_of(options, first, first + self.jump)
            for again in range(self.times):
                if again:
                    x = renoised(x, part[-1], part[0], rng)
                for step in sampler(predict, x, part, rng=rng, **own):
                    x = step.x
                    yield step

    def steps(self, steps: int) -> int:
        return self.times * steps

    def evaluations(self, calls: int) -> tuple[int, int]:
        return self.times * calls, 0


def options_of(options: Mapping[str, Any], first: int, last: int) -> dict[str, Any]:
    """A sampler's options for the steps from level `first` to level `last` alone."""
    return {k: v[first:last] if k == "churned" else v for k, v in options.items()}


def renoised(x: Tensor, b: Level, a: Level, rng: Rng) -> Tensor:
    """x at the level b, with the noise of the noisier level a."""
    up = a.alpha / b.alpha
    noisier: Tensor = up * x + math.sqrt(max(a.sigma**2 - (up * b.sigma) ** 2, 0.0)) * rng.normal(x)
    return noisier


class Both(Steer):
    """Known parts by the posterior of x0, and then exactly."""

    def __init__(self, known: Known, held: Hold) -> None:
        self.measured, self.held, self.known, self.gradients = known, held, held.known, True

    def bound(self, setting: Setting) -> Steering:
        found = copy.copy(self)
        found.measured = self.measured.bound(setting)
        return found

    def __call__(self, predict: Predict) -> Predict:
        return self.held(self.measured(predict))


@dataclass(frozen=True)
class Posterior(Method):
    """x0 given the known parts, by the net's own covariance: `zoo.core.measure.measure` with next to no noise, and held.

    Args:
        products: of conjugate gradients a step.
    """

    products: int = PRODUCTS
    name = "posterior"
    gradients = True

    def __post_init__(self) -> None:
        whole(self.products, "products", 1)

    def steer(self, held: Steering) -> Steering:
        if not isinstance(held, Hold):
            raise ConfigError(
                "method='posterior': these known parts may lie anywhere, or move others along, and are no measurement of x0. "
                "Use method='replace', 'resample' or 'particles'."
            )
        return Both(Known(held.values, held.where, self.products), held)

    def evaluations(self, calls: int) -> tuple[int, int]:
        return calls, self.products * calls


@dataclass(frozen=True)
class Particles(Method):
    """The twisted diffusion sampler (Wu et al. 2023, Algorithm 1): sequential Monte Carlo of each sample by itself.

    Each particle takes ancestral steps of an x0 that is moved towards the known parts y, by the slope of a twist

        log p~(y | x) = -|y - x0(x)|^2 / (2 r^2)   over the known elements,   r^2 = s^2 sigma^2 / (alpha^2 s^2 + sigma^2)

    and is weighted by p(x_b | x_a) p~(y | x_b) / (q(x_b | x_a, y) p~(y | x_a)), which makes up for what the twist has wrong,
    as the number of particles grows. Where the effective number of them falls below half, unlikely ones are replaced by
    copies of others (systematic resampling). One of them, drawn by weight, is the sample.

    Args:
        particles: how many a sample.
    """

    particles: int = 16
    name = "particles"
    gradients = True
    steered = False

    def __post_init__(self) -> None:
        whole(self.particles, "particles", 2)

    @property
    def copies(self) -> int:  # type: ignore[override]
        return self.particles

    def steer(self, held: Steering) -> Steering:
        return self._known(held)

    def _known(self, held: Steering | None) -> Hold | Place:
        """The steer of known parts, which must be one that puts them into an x0."""
        if not isinstance(held, (Hold, Place)):
            raise ConfigError("method='particles': the steer of known parts is neither a Hold nor a Place of zoo.core.steer.")
        return held

    def evaluations(self, calls: int) -> tuple[int, int]:
        return self.particles * calls, self.particles * calls

    def run(
        self,
        sampler: Sampler,
        predict: Predict,
        x: Tensor,
        levels: list[Level],
        rng: ParticleRng,
        options: Mapping[str, Any],
        *,
        held: Steering | None = None,
        setting: Setting | None = None,
        memory: Memory | None = None,
    ) -> Iterator[Step]:
        """As of `Method`: of each sample the likeliest particle, and in the end the one that is drawn.

        Raises:
            ConfigError: a sampler without noise, whose copies of a particle would stay the same; other known parts.
        """
        known, setting, variance_of = self._known(held), setting or Setting(), kernel(sampler.name, options)
        many, shape = self.particles, x.shape
        rows = len(x) // many
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        weights = torch.zeros(rows, many, dtype=wide, device=x.device)
        carried = torch.zeros_like(weights)
        start = torch.arange(rows, device=x.device)[:, None] * many
        for a, b in pairwise(levels):
            x0, eps, twist, slope = twists(predict, x, a, known, setting)
            weights = weights + (twist.to(wide).view(rows, many) - carried)
            weights = weights - weights.logsumexp(1, keepdim=True)
            few = (2 * weights).logsumexp(1).neg().exp() < many / 2
            drawn = rng.uniform().to(weights)
            if not b.sigma:
                chosen = start[:, 0] + draw(weights, drawn)
                if memory is not None:
                    memory.take(chosen)
                last = put_into(known, (x0[chosen], eps[chosen]), x[chosen], a)
                yield Step(b, last, last)
                return
            # all samples draw, few take: a sample's numbers do not depend on who else is in the batch
            kept = torch.arange(many, device=x.device).expand(rows, many)
            index = (start + torch.where(few[:, None], systematic(weights, drawn), kept)).flatten()
            weights = torch.where(few[:, None], torch.zeros_like(weights), weights)
            x, x0, eps, twist, slope = (v[index] for v in (x, x0, eps, twist, slope))
            if memory is not None:
                memory.take(index)
            pushed = shifted(x0, eps, slope, a)
            variance = variance_of(a, b)
            plain, moved = (mean(x, *pair, a, b, variance) for pair in ((x0, eps), pushed))
            noise = rng.normal(x)
            x = moved + math.sqrt(variance) * noise
            # log p(x_b | x_a) - log q(x_b | x_a, y), two Gaussians of one variance
            gap = (moved - plain).to(wide)
            ratio = -(gap.square() / 2 + math.sqrt(variance) * gap * noise.to(wide)).flatten(1).sum(1) / variance
            carried = twist.to(wide).view(rows, many) - ratio.view(rows, many)
            best = start[:, 0] + weights.argmax(1)
            yield Step(b, x.view(shape)[best], pushed[0][best])


@dataclass(frozen=True)
class Select(Method):
    """Several candidates of each sample, of which the best one goes on: the steer of known parts says what is better.

    Steering by a reward of x0 (Singhal et al. 2025, "A general framework for inference-time scaling and steering of diffusion
    models", Algorithm 1) with so large a weight that the best candidate alone is copied. A choice is made where sigma / alpha
    first is at most `CHOSEN`, by the x0 that is predicted there, and another one among the finished candidates, which the
    noise of the sampler has made different again. Samples are better than those of the model by that reward, and no draws of
    the conditional. With a sampler that draws no noise, the first choice is the only one.

    Args:
        candidates: how many a sample.
    """

    candidates: int = 4
    name = "select"

    def __post_init__(self) -> None:
        whole(self.candidates, "candidates", 2)

    @property
    def copies(self) -> int:  # type: ignore[override]
        return self.candidates

    def steer(self, held: Steering) -> Steering:
        self._reward(held)
        return held

    def _reward(self, held: Steering | None) -> Callable[[Tensor], Tensor]:
        """What is better, which known parts must say."""
        if not isinstance(held, Place) or held.reward is None:
            raise ConfigError(
                "method='select': these known parts do not say which of two candidates is the better one, as a motif's do. Use "
                "method='replace', 'resample' or 'particles', or give their steer a `reward`."
            )
        return held.reward

    def evaluations(self, calls: int) -> tuple[int, int]:
        return self.candidates * calls, 0

    def run(
        self,
        sampler: Sampler,
        predict: Predict,
        x: Tensor,
        levels: list[Level],
        rng: Any,
        options: Mapping[str, Any],
        *,
        held: Steering | None = None,
        setting: Setting | None = None,
        memory: Memory | None = None,
    ) -> Iterator[Step]:
        """As of `Method`: of each sample the first candidate, and where it is chosen the best one."""
        reward, many, end = self._reward(held), self.candidates, len(levels) - 1
        one = torch.arange(len(x) // many, device=x.device) * many
        cut = next((k for k, level in enumerate(levels) if level.ratio <= CHOSEN), end)
        for first, last in ((0, cut), (cut, end)):
            if first == last:
                continue
            part, rows = levels[first : last + 1], one
            for step in sampler(predict, x, part, rng=rng, **options_of(options, first, last)):
                x, rows = step.x, one
                if step.level == part[-1]:
                    rows = one + reward(step.x0).view(-1, many).argmax(1)
                yield Step(step.level, x[rows], step.x0[rows])
            index = rows.repeat_interleave(many)
            x = x[index]
            if memory is not None:
                memory.take(index)


def put_into(held: Steering, prediction: tuple[Tensor, Tensor], x: Tensor, level: Level) -> Tensor:
    """The x0 of a prediction with the known parts in it."""
    return held(lambda x, level: prediction)(x, level)[0].detach()


def twists(
    predict: Predict, x: Tensor, level: Level, held: Hold | Place, setting: Setting
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x0, eps, log twist (B,), what its slope adds to x0)."""
    if not level.alpha:
        x0, eps = predict(x, level)
        return x0, eps, torch.zeros(len(x), dtype=x.dtype, device=x.device), torch.zeros_like(x0)
    with torch.enable_grad():
        leaf, x0, eps = traced(predict, x, level)
        put = put_into(held, (x0.detach(), eps.detach()), x, level)
        where = held.known
        away = put - x0 if where is None else torch.where(where.to(x.device), put - x0, 0)
        twist = -away.square().flatten(1).sum(1) / (2 * setting.variance(level))
        (slope,) = torch.autograd.grad(twist.sum(), leaf)
    return x0.detach(), eps.detach(), twist.detach(), level.sigma**2 / level.alpha * slope


def kernel(name: str, options: Mapping[str, Any]) -> Callable[[Level, Level], float]:
    """The variance of a sampler's step between two levels, of those whose steps are Gaussian.

    Raises:
        ConfigError: another sampler.
    """
    eta = options.get("eta", 0.0) if name == "ddim" else 1.0
    if name not in ("ddpm", "ddim") or not eta:
        raise ConfigError(
            f"method='particles' weights noise that is drawn in each step, and sampler={name!r} draws none that it knows of: "
            "give sampler='ddpm', or 'ddim' with eta above 0."
        )
    if options.get("variance") == LEARNED:
        raise ConfigError("method='particles' weights steps of one variance: give variance='small' or 'large'.")
    if options.get("noise_scale", 1.0) != 1:
        raise ConfigError("method='particles' weights steps by the noise that the process has: give noise_scale=1.")
    large = options.get("variance") == "large"

    def variance(a: Level, b: Level) -> float:
        beta, tilde = posterior_variances(a, b)
        return beta if large else eta**2 * tilde

    return variance


def mean(x: Tensor, x0: Tensor, eps: Tensor, a: Level, b: Level, variance: float) -> Tensor:
    """Of x at b given x at a: DDIM's (Song et al. 2020, Eq. 12), which with the small variance is DDPM's.

    The large variance of DDPM has the mean of the small one.
    """
    own = min(variance, posterior_variances(a, b)[1])
    found: Tensor = b.alpha * x0 + math.sqrt(max(b.sigma**2 - own, 0.0)) * eps
    return found


def systematic(weights: Tensor, drawn: Tensor) -> Tensor:
    """Particles (B,K) by systematic resampling of log weights (B,K) that are normalised, with one number (B,) a sample."""
    many = weights.shape[1]
    points = (drawn[:, None] + torch.arange(many, device=weights.device)) / many
    return torch.searchsorted(weights.exp().cumsum(1), points.contiguous()).clamp(max=many - 1)


def draw(weights: Tensor, drawn: Tensor) -> Tensor:
    """One particle (B,) of log weights (B,K) that are normalised, with one number (B,) a sample."""
    return torch.searchsorted(weights.exp().cumsum(1), drawn[:, None].contiguous())[:, 0].clamp(max=weights.shape[1] - 1)


#: the methods by name, the default one first
METHODS: dict[str, type[Method]] = {
    "replace": Method,
    "resample": Resample,
    "posterior": Posterior,
    "particles": Particles,
    "select": Select,
}
#: their own arguments
OPTIONS = tuple(f.name for kind in METHODS.values() for f in fields(kind))


def method_of(name: Any, options: Mapping[str, Any]) -> Method:
    """A method of in-painting by its name and its own arguments.

    Raises:
        ConfigError: an unknown method, or an argument that it does not take.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise one_of("method of in-painting", name, METHODS)
    for key in options:
        if key not in (f.name for f in fields(METHODS[name])):
            owner = next(k for k, kind in METHODS.items() if key in (f.name for f in fields(kind)))
            raise ConfigError(f"{key}: an argument of method={owner!r}, not of method={name!r}.")
    return METHODS[name](**options)

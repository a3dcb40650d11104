"""Objectives: what a training step makes smaller. One is named by its recipe (`training.objective`).

An objective takes a batch and gives a scalar. All of its random numbers come from the generator that it receives, so that
a resumed run goes on exactly. Another one is registered, here or through an entry point of the group `zoo.objectives`:

    @objective("weighted")
    class Weighted(Denoise): ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.contract.dataset import Batch, Dataset
from zoo.contract.samples import Samples
from zoo.core.circle import wrapped
from zoo.core.device import send
from zoo.core.diffusion import Diffusion, from_x0_eps, like, to_x0_eps
from zoo.core.guidance import drop, null_like
from zoo.core.samplers import posterior_variances
from zoo.core.schedule import DiscreteSchedule, Level
from zoo.errors import ConfigError, ShapeError, one_of
from zoo.extras import Registry
from zoo.values import known_arguments, number, whole

#: how many times noisier than x_t, at most, is what a net guesses x0 from in training, where it is told its guess
FURTHER = 2.0


class Trained(Protocol):
    """What an objective sees of a model: recipe, diffusion, denoiser and codec."""

    recipe: Any
    diffusion: Diffusion
    denoiser: nn.Module
    codec: Any


class Objective(Protocol):
    """What a training step makes smaller."""

    def loss(self, model: Trained, batch: Batch, rng: torch.Generator | None) -> Tensor:
        """The loss of a batch, a scalar with a graph to the parameters of `model.denoiser`.

        An objective of models that sample nothing has a further method, `preview(model, dataset, n) -> Samples`: what a run
        shows instead of samples.
        """
        ...


#: makers of objectives by the name that a recipe gives
OBJECTIVES: Registry[Callable[..., Objective]] = Registry("objective", "zoo.objectives")

O = TypeVar("O", bound=Callable[..., Objective])  # noqa: E741  # the letter of objectives


def objective(name: str) -> Callable[[O], O]:
    """Register a class as the objective `name`."""

    def register(made: O) -> O:
        OBJECTIVES.register(name, made)
        return made

    return register


def objective_of(training: Any) -> Objective:
    """The objective that a recipe's training names, with its options.

    Raises:
        ConfigError: an unknown name, or an unknown or invalid option.
    """
    name, options = training.objective, training.objective_options
    if name not in OBJECTIVES:
        raise one_of("objective", name, OBJECTIVES)
    made = OBJECTIVES[name]
    known_arguments(made, options, f"option of the objective {name!r}")
    try:
        return made(**options)
    except TypeError as error:
        raise ConfigError(f"objective {name!r}: {error}.") from error


@objective("denoise")
class Denoise:
    """Mean weighted squared error of the prediction (Ho et al. 2020, Eq. 14, with the weights of `Diffusion.weight`).

    Parts of it: conditions that are left out (Ho & Salimans 2022, Algorithm 1), a first guess for nets that condition
    themselves (Chen et al. 2022, "Analog bits", section 3), and the codec's further loss.

    Args:
        dropout: leave conditions out as the recipe says; False keeps them all, as a loss on held-out data does.
    """

    def __init__(self, dropout: bool = True) -> None:
        self.dropout = dropout

    def loss(self, model: Trained, batch: Batch, rng: torch.Generator | None) -> Tensor:
        """The mean over the real elements of a batch: a scalar.

        Args:
            rng: CPU generator of levels, noise and dropped conditions; the same state gives the same loss.

        Raises:
            ShapeError: a mask that does not fit the samples.
        """
        batch = replace(batch, x0=model.codec.lift(batch.x0, rng), cond=self._derived(model, batch, rng))
        x0, diffusion = batch.x0, model.diffusion
        real = self._real(model, batch)
        cond = self._without_single_ones(model, batch.cond, len(x0), rng)
        drawn = diffusion.schedule.draw(len(x0), rng)
        level = drawn.to(x0.device)
        eps = send(torch.randn(x0.shape, generator=rng, dtype=x0.dtype), x0.device)
        cond = self._without_all(model, cond, x0, rng)
        eps = model.codec.project(eps, batch.mask)
        x_t = diffusion.q_sample(x0, level, eps)
        if model.codec.period is not None:
            x_t = wrapped(x_t, model.codec.period)
        if diffusion.self_condition:
            cond = cond | self._guesses(model, batch, x_t, drawn, cond, rng)
        out, share = diffusion.denoise_both(model.denoiser, x_t, level, cond, mask=batch.mask)
        guess = to_x0_eps(out, x_t, level, diffusion.prediction)[0]
        # before the error: gradients of `out` add up in this order, and a resumed run has the same digits as before
        further = model.codec.auxiliary(guess, x0, level, batch.mask)
        error = (out - from_x0_eps(x0, eps, level, diffusion.prediction)) ** 2
        error = like(diffusion.weight(level), x0) * error
        return mean(error, real) + further + self._of_variance(diffusion, share, x0, guess, level, real)

    def _of_variance(
        self, diffusion: Diffusion, share: Tensor | None, x0: Tensor, guess: Tensor, level: Level, real: Tensor | None
    ) -> Tensor | float:
        """What a net's second output adds to the loss."""
        if share is not None:
            raise ConfigError("diffusion.learned_variance: the objective 'denoise' trains no variance. Take 'hybrid'.")
        return 0.0

    @staticmethod
    def _derived(model: Trained, batch: Batch, rng: torch.Generator | None) -> dict[str, Tensor]:
        """The conditions, those included that are made of the samples themselves, in the recipe's order."""
        wanted = {k: c for k, c in model.recipe.conditions.items() if c.derived and k not in batch.cond}
        return batch.cond | {k: c.derive(batch.x0, rng) for k, c in wanted.items()}

    @staticmethod
    def _real(model: Trained, batch: Batch) -> Tensor | None:
        """Which elements are not padding, ready to broadcast to x0 (B,*S)."""
        if batch.mask is None:
            return None
        sizes = (len(batch.x0), batch.x0.shape[1 + model.codec.size_axis])
        if batch.mask.shape != sizes:
            raise ShapeError(f"mask {tuple(batch.mask.shape)} must be {sizes} for x0 {tuple(batch.x0.shape)}.")
        found: Tensor = model.codec.spread(batch.mask, batch.x0.ndim)
        return found

    def _without_single_ones(
        self, model: Trained, cond: Mapping[str, Tensor], n: int, rng: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Where there are several conditions, each one is left out alone, so that every part of them may be in sampling."""
        if len(cond) < 2:
            return dict(cond)
        rate = model.recipe.training.single_dropout if self.dropout else 0.0
        alone = torch.rand(len(cond), n, generator=rng) < rate
        return {k: drop({k: v}, send(rows, v.device))[k] for (k, v), rows in zip(cond.items(), alone, strict=True)}

    def _without_all(
        self, model: Trained, cond: Mapping[str, Tensor], x0: Tensor, rng: torch.Generator | None
    ) -> dict[str, Tensor]:
        """All conditions of some samples are left out together (Ho & Salimans 2022, Algorithm 1)."""
        rate = model.recipe.training.condition_dropout if self.dropout else 0.0
        rows = torch.rand(len(x0), generator=rng) < rate
        return drop(cond, send(rows, x0.device))

    # ------------------------------------------------------------ nets that condition themselves

    def _guesses(
        self,
        model: Trained,
        batch: Batch,
        x_t: Tensor,
        level: Level,
        cond: Mapping[str, Tensor],
        rng: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """The further conditions "x0" and "known" (B,*S): a guess and hints for the first half of the rows, NaN for others.

        `level` is on the CPU, where it was drawn.
        """
        n = (len(x_t) + 1) // 2
        mask = None if batch.mask is None else batch.mask[:n]
        guess, known = null_like(x_t), torch.zeros_like(x_t, dtype=torch.bool)
        first = self._first_guess(model, x_t[:n], part(level, n), {k: v[:n] for k, v in cond.items()}, mask, rng)
        guess[:n], known[:n] = model.codec.hint(first, batch.x0[:n], mask, rng)
        return {"x0": guess, "known": known}

    @torch.no_grad()
    def _first_guess(
        self,
        model: Trained,
        x: Tensor,
        level: Level,
        cond: Mapping[str, Tensor],
        mask: Tensor | None,
        rng: torch.Generator | None,
    ) -> Tensor:
        """What the net says of x0 (n,*S) without a guess.

        It is said of x with up to FURTHER times the noise: in sampling, too, a guess comes from a noisier step. Of x itself
        it would know all that x does, and the net would learn to repeat it.
        """
        diffusion, n = model.diffusion, len(x)
        wanted = level.ratio * (1 + (FURTHER - 1) * torch.rand(n, generator=rng, dtype=torch.float64))
        raised = self._raised(diffusion, level, wanted).to(x.device)
        level = level.to(x.device)
        up = raised.alpha / level.alpha
        noise = send(torch.randn(x.shape, generator=rng, dtype=x.dtype), x.device)
        noise = model.codec.project(noise, mask)
        more = (raised.sigma**2 - (up * level.sigma) ** 2).clamp(min=0).sqrt()
        noisier = like(up, x) * x + like(more, x) * noise
        out = diffusion.denoise(model.denoiser, noisier, raised, cond, mask=mask)
        return to_x0_eps(out, noisier, raised, diffusion.prediction)[0]

    @staticmethod
    def _raised(diffusion: Diffusion, level: Level, ratios: Tensor) -> Level:
        """The levels of the wanted noise ratios (n,); past the schedule's end a row keeps its own level."""
        found = [diffusion.schedule.at(float(r)) for r in ratios]
        t = torch.tensor([a.t for a in found], dtype=torch.float64)
        alpha = torch.tensor([a.alpha for a in found], dtype=torch.float64)
        sigma = torch.tensor([a.sigma for a in found], dtype=torch.float64)
        fits = sigma / alpha > level.ratio
        return Level(
            t=torch.where(fits, t, level.t),
            alpha=torch.where(fits, alpha, level.alpha),
            sigma=torch.where(fits, sigma, level.sigma),
        )


@objective("hybrid")
class Hybrid(Denoise):
    """`Denoise`, and the variational bound for a learned variance (Nichol & Dhariwal 2021, Eq. 16: L_simple + weight L_vlb).

    L_vlb is the sum over the T steps of the mean over elements of KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)), in nats, of
    which a batch draws terms. Its gradient reaches the variance alone: the mean is taken as it is. The last step, to the clean
    sample, is left out: no noise is drawn in it.

    Args:
        weight: of the bound.
        dropout: as of `Denoise`.
    """

    def __init__(self, weight: float = 1e-3, dropout: bool = True) -> None:
        super().__init__(dropout)
        self.weight = number(weight, "weight", 0)

    def _of_variance(
        self, diffusion: Diffusion, share: Tensor | None, x0: Tensor, guess: Tensor, level: Level, real: Tensor | None
    ) -> Tensor | float:
        schedule = diffusion.schedule
        if share is None or not isinstance(schedule, DiscreteSchedule):
            raise ConfigError(
                "objective 'hybrid': it trains the variance of a discrete schedule's steps. Set "
                "diffusion.learned_variance=true and a discrete schedule, or take the objective 'denoise'."
            )
        rows = torch.as_tensor(level.t) > 0
        a = Level(*(torch.where(rows, v, second) for v, second in zip(_parts(level), _parts(schedule.level(1)), strict=True)))
        before = schedule.of(a.t - 1)
        beta, tilde = posterior_variances(a, before)
        off = like(before.alpha * beta / a.sigma**2, x0) * (x0 - guess.detach())
        log_ratio = like(torch.as_tensor(tilde / beta).log(), x0) * share  # of the true variance to the net's
        kl = 0.5 * (off.square() / like(tilde, x0) * torch.exp(log_ratio) + torch.exp(log_ratio) - 1 - log_ratio)
        return self.weight * schedule.T * mean(like(rows, x0) * kl, real)


def _parts(level: Level) -> tuple[Any, Any, Any]:
    """t, alpha and sigma."""
    return level.t, level.alpha, level.sigma


def part(level: Level, n: int) -> Level:
    """The first n rows of the levels of a batch; a coefficient that all rows share stays as it is."""
    first = [v[:n] if isinstance(v, Tensor) else v for v in (level.t, level.alpha, level.sigma)]
    return Level(*first)


def mean(error: Tensor, real: Tensor | None) -> Tensor:
    """The mean of an error (B,*S) over its real elements."""
    if real is None:
        return error.mean()
    keep = real.expand_as(error)
    return torch.where(keep, error, error.new_zeros(())).sum() / keep.sum()


@objective("autoencode")
class Autoencode:
    """Reconstruction of a first stage, and the Kullback-Leibler divergence of its latents (Kingma & Welling 2013, Eq. 10).

    The error is the mean absolute one of the values, and that of their differences between neighbours at several scales: edges
    count as much as areas, so that lines stay sharp without a net that judges them.

    Args:
        kl: weight of the divergence from a standard Gaussian, a mean over the latents' numbers.
        edges: weight of the differences.
        scales: so many times the differences are taken, of samples that are half as large each time.
    """

    def __init__(self, kl: float = 1e-3, edges: float = 1.0, scales: int = 3) -> None:
        self.kl, self.edges = number(kl, "kl", 0), number(edges, "edges", 0)
        self.scales = whole(scales, "scales", 1)

    def loss(self, model: Trained, batch: Batch, rng: torch.Generator | None) -> Tensor:
        """The mean over a batch: a scalar.

        Args:
            rng: CPU generator of the draws of latents.
        """
        x, net = batch.x0, model.denoiser
        shape = (len(x), *net.latent_shape)  # type: ignore[misc]  # the net of a first stage
        noise = send(torch.randn(shape, generator=rng, dtype=x.dtype), x.device)
        out, mean_, log_variance = net(x, noise=noise)
        out, mean_, log_variance = (v.float() for v in (out, mean_, log_variance))
        divergence = 0.5 * (mean_.square() + log_variance.exp() - 1 - log_variance).mean()
        return (out - x).abs().mean() + self.edges * edge_error(out, x, self.scales) + self.kl * divergence

    @torch.no_grad()
    def preview(self, model: Any, dataset: Dataset, n: int) -> Samples:
        """Objects of the data above what the model leaves of them, in rows."""
        side = max(2, 2 * (math.isqrt(2 * n) // 2))
        rows = [i % len(dataset) for i in range(side * side // 2)]
        codec = model.codec
        originals = [codec.decode(codec.encode(dataset[i][0])[None], {})[0] for i in rows]
        made = list(model.reconstruct(originals))
        items = [item for k in range(0, len(rows), side) for item in (*originals[k : k + side], *made[k : k + side])]
        return Samples.of(items, domain=model.domain)


def edge_error(a: Tensor, b: Tensor, scales: int = 1) -> Tensor:
    """The mean absolute difference of the differences between neighbours, of a and b (B, C, *places), over several scales.

    Each scale has half the places of the one before: the mean of 2 along each axis.
    """
    total, pool = torch.zeros((), device=a.device), {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}[a.ndim]
    error, count = a - b, 0
    for scale in range(scales):
        if scale:
            if min(error.shape[2:]) < 4:
                break
            error = pool(error, 2)
        # differences are linear: those of the error are the error of those
        parts = [error.diff(dim=axis).abs().mean() for axis in range(2, error.ndim)]
        total, count = total + sum(parts) / len(parts), count + 1
    return total / max(count, 1)

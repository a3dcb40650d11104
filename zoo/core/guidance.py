"""What wraps a prediction: classifier-free guidance, its interval and rescale, and known parts (in-painting)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.core.diffusion import Denoiser, Diffusion
from zoo.core.schedule import Level
from zoo.errors import ConfigError, ShapeError

Predict = Callable[[Tensor, Level], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: out = (1 + w) out_cond - w out_null (Ho & Salimans 2022, Eq. 6).

    Args:
        weight: the paper's w; 0 is plain conditional sampling, -1 unconditional. diffusers' scale is 1 + w.
        interval: guide only where lo < sigma / alpha <= hi (Kynkaanniemi et al. 2024).
        rescale: pull the standard deviation of the guided prediction back to the conditional one by this share
            (Lin et al. 2023, Eq. 15 and 16).
    """

    weight: float = 0.0
    interval: tuple[float, float] = (0.0, math.inf)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ConfigError(f"guidance_weight={self.weight}: give a finite number (0 = plain conditional).")
        if not 0 <= self.interval[0] < self.interval[1]:
            raise ConfigError(f"guidance interval {self.interval}: give 0 <= lo < hi, in sigma / alpha.")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"guidance rescale {self.rescale}: give a share from 0 to 1.")

    @staticmethod
    def from_public(weight: float | None, scale: float | None, default: float = 0.0) -> float:
        """The one number w from the two public forms: guidance_weight = w, guidance_scale = 1 + w."""
        if weight is not None and scale is not None:
            raise ConfigError(
                f"guidance_weight={weight} and guidance_scale={scale} are two forms of one number "
                "(scale = 1 + weight): give one of them."
            )
        if scale is not None:
            return scale - 1.0
        return default if weight is None else weight

    def active(self, level: Level) -> bool:
        """Whether the null rows are needed at this level."""
        return self.weight != 0 and self.interval[0] < level.ratio <= self.interval[1]

    def combine(self, cond: Tensor, null: Tensor) -> Tensor:
        """The guided prediction (B,*S) from the conditional and the null one."""
        out = torch.lerp(null, cond, 1 + self.weight)
        if not self.rescale:
            return out
        axes = tuple(range(1, out.ndim))
        ratio = cond.std(axes, keepdim=True) / out.std(axes, keepdim=True)
        return out * (self.rescale * ratio + 1 - self.rescale)


def predictor(
    diffusion: Diffusion,
    denoiser: Denoiser,
    cond: dict[str, Tensor],
    *,
    guidance: Guidance | None = None,
    clip: float | None = None,
    mask: Tensor | None = None,
    drop: Tensor | None = None,
    project: Callable[[Tensor, Tensor | None], Tensor] | None = None,
) -> Predict:
    """The `predict(x, level) -> (x0, eps)` that samplers see: net -> guide -> (x0, eps) -> clip -> project.

    Conditional and null rows run as one batch of 2B; where guidance is off the null rows are skipped.

    Args:
        cond: {name: (B,...)}; empty for an unconditional sample.
        drop: (B,) bool, rows without a condition: they are sampled from the null, whatever the guidance.
    """
    guidance = guidance or Guidance()
    twice = {k: torch.cat([c, c]) for k, c in cond.items()} if guidance.weight else cond
    mask2 = torch.cat([mask, mask]) if mask is not None and guidance.weight else mask

    def predict(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        B = len(x)
        rows = torch.zeros(B, dtype=torch.bool, device=x.device) if drop is None else drop
        if guidance.active(level):
            both = torch.cat([rows, torch.ones_like(rows)])
            out = diffusion.denoise(denoiser, torch.cat([x, x]), level, twice, drop=both, mask=mask2)
            out = guidance.combine(*out.chunk(2))
        else:
            out = diffusion.denoise(denoiser, x, level, cond, drop=rows, mask=mask)
        x0, eps = diffusion.predict(out, x, level, clip)
        if project is None:
            return x0, eps
        return project(x0, mask), project(eps, mask)

    return predict


def constrain(predict: Predict, known: Tensor, where: Tensor) -> Predict:
    """A predict that knows part of the sample: x0 is `known` where `where` is True, and eps is re-derived there.

    The last step of every sampler returns x0, so known parts come out exact, for every sampler, schedule and domain.

    Args:
        known: clean values, shaped like x (B,*S) or broadcast to it.
        where: bool, shaped like x or broadcast to it.
    """
    if where.dtype != torch.bool:
        raise ShapeError(f"`where` must be a bool tensor, got {where.dtype}.")

    def constrained(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        x0, eps = predict(x, level)
        x0 = torch.where(where, known.to(x0), x0)
        return x0, torch.where(where, (x - level.alpha * x0) / level.sigma, eps)

    return constrained

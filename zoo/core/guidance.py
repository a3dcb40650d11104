"""What wraps a prediction: classifier-free guidance, its interval and rescale, and known parts (in-painting)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.core.diffusion import Denoiser, Diffusion
from zoo.core.schedule import Level
from zoo.errors import ConfigError, ShapeError

Predict = Callable[[Tensor, Level], tuple[Tensor, Tensor]]
Known = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: out = (1 + w) out_cond - w out_null (Ho & Salimans 2022, Eq. 6).

    Args:
        weight: the paper's w; 0 is plain conditional sampling, -1 unconditional. diffusers' scale is 1 + w.
        interval: guide only where lo < sigma / alpha <= hi (Kynkaanniemi et al. 2024).
        rescale: pull the standard deviation of the guided prediction back to the conditional one by this share
            (Lin et al. 2023, Eq. 15 and 16).
        each: {condition: w_k} guides single conditions: out + sum_k w_k (out_cond - out_without_k), where only k is
            replaced by the null (Liu et al. 2022, "Compositional visual generation", Eq. 11, with the other conditions kept).
    """

    weight: float = 0.0
    interval: tuple[float, float] = (0.0, math.inf)
    rescale: float = 0.0
    each: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, weight in {"": self.weight, **self.each}.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
                of = f" of {name}" if name else ""
                raise ConfigError(f"guidance_weight{of}={weight!r}: give a finite number (0 = plain conditional).")
        if not 0 <= self.interval[0] < self.interval[1]:
            raise ConfigError(f"guidance interval {self.interval}: give 0 <= lo < hi, in sigma / alpha.")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"guidance rescale {self.rescale}: give a share from 0 to 1.")

    @staticmethod
    def from_public(weight: Any, scale: Any, default: float = 0.0) -> tuple[float, dict[str, float]]:
        """(w, {condition: w_k}) from the two public forms, guidance_weight = w and guidance_scale = 1 + w.

        Each is one number for all conditions together, or {condition: number}.
        """
        if weight is not None and scale is not None:
            raise ConfigError(
                f"guidance_weight={weight} and guidance_scale={scale} are two forms of one number "
                "(scale = 1 + weight): give one of them."
            )
        if isinstance(scale, Mapping):
            return 0.0, {k: s - 1.0 for k, s in scale.items()}
        if isinstance(weight, Mapping):
            return 0.0, dict(weight)
        if scale is not None:
            return scale - 1.0, {}
        return (default if weight is None else weight), {}

    def active(self, level: Level) -> bool:
        """Whether null rows are needed at this level."""
        return bool(self.weight or self.each) and self.interval[0] < level.ratio <= self.interval[1]

    def combine(self, cond: Tensor, null: Tensor | None, *without: Tensor) -> Tensor:
        """The guided prediction (B,*S).

        Args:
            cond: the conditional prediction.
            null: the one without any condition; None for weight 0.
            *without: the ones without one condition each, in the order of `each`.
        """
        out = cond if null is None else torch.lerp(null, cond, 1 + self.weight)
        for weight, other in zip(self.each.values(), without, strict=True):
            out = out + weight * (cond - other)
        if not self.rescale:
            return out
        axes = tuple(range(1, out.ndim))
        ratio = cond.std(axes, keepdim=True) / out.std(axes, keepdim=True)
        return out * (self.rescale * ratio + 1 - self.rescale)


def null_like(condition: Tensor) -> Tensor:
    """The value that stands for "not given" in a condition (B,...): -1 in labels, NaN in arrays of numbers."""
    return torch.full_like(condition, math.nan if condition.is_floating_point() else -1)


def is_null(condition: Tensor) -> Tensor:
    """(B,) bool: which rows of a condition (B,...) are not given."""
    if not condition.is_floating_point():
        return condition < 0
    return condition.isnan().flatten(1).any(1)


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
    guess_below: float = math.inf,
    known: Known | None = None,
    where: Tensor | None = None,
) -> Predict:
    """The `predict(x, level) -> (x0, eps)` that samplers see: net -> guide -> (x0, eps) -> clip -> project -> known parts.

    Conditional and null rows run as one batch; where guidance is off the null rows are skipped. A net that conditions
    itself hears the x0 of the call before as the sampler saw it, known parts included.

    Args:
        cond: {name: (B,...)}; empty for an unconditional sample. What is not given is as `null_like` says.
        drop: (B,) bool, rows without a condition: they are sampled from the null, whatever the guidance.
        guess_below: a net that conditions itself hears its guess where sigma / alpha is at most this.
        known, where: as for `constrain`; both or none.
    """
    if (known is None) != (where is None):
        raise ConfigError("known and where belong together: give both, or none.")
    guidance = guidance or Guidance()
    # the copies of the batch that guidance needs: as asked for, without everything, without one condition each
    copies = [cond] * (2 if guidance.weight else 1) + [cond | {k: null_like(cond[k])} for k in guidance.each]
    all_cond = {k: torch.cat([c[k] for c in copies]) for k in cond}
    all_mask = None if mask is None else mask.repeat(len(copies), *[1] * (mask.ndim - 1))

    last: Tensor | None = None

    def predict(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        nonlocal last
        own: dict[str, Tensor] = {}
        if diffusion.self_condition:
            heard = None if level.ratio > guess_below else last
            own["x0"] = null_like(x) if heard is None else heard
            own["known"] = torch.zeros_like(x, dtype=torch.bool) if heard is None or where is None else where.expand_as(x)
        rows = torch.zeros(len(x), dtype=torch.bool, device=x.device) if drop is None else drop
        if guidance.active(level):
            null = [torch.ones_like(rows)] if guidance.weight else []
            drops = torch.cat([rows, *null, *[rows] * len(guidance.each)])
            repeated = all_cond | {k: torch.cat([v] * len(copies)) for k, v in own.items()}
            out = diffusion.denoise(denoiser, torch.cat([x] * len(copies)), level, repeated, drop=drops, mask=all_mask)
            parts = list(out.chunk(len(copies)))
            out = guidance.combine(parts[0], parts[1] if null else None, *parts[1 + len(null) :])
        else:
            out = diffusion.denoise(denoiser, x, level, cond | own, drop=rows, mask=mask)
        x0, eps = diffusion.predict(out, x, level, clip)
        if project is not None:
            x0, eps = project(x0, mask), project(eps, mask)
        if known is not None and where is not None:
            x0, eps = constrain(x0, eps, x, level, known, where)
        last = x0
        return x0, eps

    return predict


def constrain(x0: Tensor, eps: Tensor, x: Tensor, level: Level, known: Known, where: Tensor) -> tuple[Tensor, Tensor]:
    """(x0, eps) of a prediction at x that knows part of the sample: x0 is `known` there, and eps is re-derived.

    The last step of every sampler returns x0, so known parts come out exact, for every sampler, schedule and domain.

    Args:
        known: clean values, shaped like x (B,*S) or broadcast to it; or a function that puts them into the predicted x0, such
            as a motif that is laid onto it, and may move the rest to fit.
        where: bool, shaped like x or broadcast to it: True where the sample is known.
    """
    if where.dtype != torch.bool:
        raise ShapeError(f"`where` must be a bool tensor, got {where.dtype}.")
    if not isinstance(known, Tensor):
        x0 = known(x0)
        return x0, (x - level.alpha * x0) / level.sigma
    x0 = torch.where(where, known.to(x0), x0)
    return x0, torch.where(where, (x - level.alpha * x0) / level.sigma, eps)

"""Classifier-free guidance: the combination of predictions with and without conditions, its interval and its rescaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.core.schedule import Level
from zoo.errors import ConfigError
from zoo.values import interval, number, plain


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
        weight = number(self.weight, "guidance_weight", what="0 is plain conditional")
        object.__setattr__(self, "weight", weight)
        for name, weight in self.each.items():
            number(weight, f"guidance_weight of {name}", what="0 is plain conditional")
        interval(self.interval, "guidance_interval", what="in sigma / alpha")
        number(self.rescale, "guidance_rescale", 0, 1, what="a share")

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
            return 0.0, {k: number(s, f"guidance_scale of {k}") - 1.0 for k, s in scale.items()}
        if isinstance(weight, Mapping):
            return 0.0, {k: plain(w) for k, w in weight.items()}
        if scale is not None:
            return number(scale, "guidance_scale", what="1 is plain conditional") - 1.0, {}
        return (default if weight is None else plain(weight)), {}

    def active(self, level: Level) -> bool:
        """Whether predictions without conditions are needed at this level."""
        return bool(self.weight or self.each) and self.interval[0] < level.ratio <= self.interval[1]

    def combine(self, cond: Tensor, null: Tensor | None, *without: Tensor, real: Tensor | None = None) -> Tensor:
        """The guided prediction (B,*S).

        Args:
            cond: the conditional prediction.
            null: the one without any condition; None for weight 0.
            *without: the ones without one condition each, in the order of `each`.
            real: bool, broadcast to (B,*S), which elements are not padding; None for all of them.
        """
        out = cond if null is None else torch.lerp(null, cond, 1 + self.weight)
        for weight, other in zip(self.each.values(), without, strict=True):
            out = out + weight * (cond - other)
        if not self.rescale:
            return out
        ratio = deviation(cond, real) / deviation(out, real)
        return out * (self.rescale * ratio + 1 - self.rescale)


def deviation(x: Tensor, real: Tensor | None = None) -> Tensor:
    """Standard deviation of each sample (B,1,...) of x (B,*S), over its real elements: a padded sample has its own alone."""
    axes = tuple(range(1, x.ndim))
    if real is None:
        return x.std(axes, keepdim=True)
    real = real.expand_as(x)
    count = real.sum(axes, keepdim=True)
    mean = torch.where(real, x, 0).sum(axes, keepdim=True) / count
    squares = torch.where(real, x - mean, 0).square().sum(axes, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def null_like(condition: Tensor) -> Tensor:
    """The one form of "not given" in a condition (B,...): -1 in whole numbers, NaN in others.

    Raises:
        ConfigError: a dtype that has neither, such as bool, where "not given" would be a value like any other.
    """
    if not condition.dtype.is_signed:
        raise ConfigError(
            f"a condition of {condition.dtype} has no value for "
            "'not given': give whole numbers with a sign, such as int64, or floats."
        )
    return torch.full_like(condition, math.nan if condition.is_floating_point() else -1)


def is_null(condition: Tensor) -> Tensor:
    """(B,) bool: which rows of a condition (B,...) are not given."""
    none = condition.isnan() if condition.is_floating_point() else condition < 0
    return none.reshape(len(condition), -1).any(1)


def drop(cond: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Conditions {name: (B,...)} of which `rows` (B,) bool are not given."""
    return {k: torch.where(rows.reshape(-1, *[1] * (v.ndim - 1)), null_like(v), v) for k, v in cond.items()}

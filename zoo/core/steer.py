"""Steers: what pushes a prediction, in every domain, alone or together.

A steer takes the prediction that samplers see and returns another one; it may keep a state of its own:

    def towards(target, share):
        def steer(predict):
            def pulled(x, level):
                x0 = torch.lerp(predict(x, level)[0], target, share)
                return x0, noise_of(x, x0, level)
            return pulled
        return steer

    model.sample(4, steer=[towards(target, 0.1)])

Gradients flow only where a steer asks for them, by `gradient` or `traced`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.core.predict import Predict, Steering, noise_of
from zoo.core.schedule import Level
from zoo.errors import ConfigError, ShapeError
from zoo.extras import Registry

__all__ = ["STEERS", "Hold", "Place", "Steer", "gradient", "hold", "mask_of", "noise_of", "traced"]

#: makers of steers by name: those of other packages are attributes of this module, too
STEERS: Registry[Callable[..., Steering]] = Registry("steer", "zoo.steers")


class Steer:
    """Base of steers that are objects; any function from a prediction to a prediction is a steer as well.

    Attributes:
        known: bool, broadcast to (B,*S): the parts of x0 that the steer holds for certain, of which nets that condition
            themselves are told. None for none.
    """

    known: Tensor | None = None

    def __call__(self, predict: Predict) -> Predict:
        """The steered prediction."""
        raise NotImplementedError


class Hold(Steer):
    """Known parts of the sample: x0 is `values` where `where` is True, and eps is derived again there.

    The last step of every sampler returns x0, so known parts come out exact for every sampler, schedule and domain.
    As a conditional this is only an approximation: the other parts are not drawn from the right distribution.

    Args:
        values: clean values, broadcast to x (B,*S), a tensor or what makes one.
        where: bool, broadcast to x.

    Raises:
        ShapeError: `where` is not of bool, or one of them does not broadcast to the other or to x.
        ConfigError: values that are not numbers, or not finite where they are held.
    """

    def __init__(self, values: Any, where: Any) -> None:
        self.values, self.where = values_of(values), mask_of(where)
        try:
            held = torch.where(self.where.to(self.values.device), self.values, 0)
        except RuntimeError:
            shapes = f"known {tuple(self.values.shape)} and where {tuple(self.where.shape)}"
            raise ShapeError(f"{shapes} do not broadcast to each other.") from None
        if not torch.isfinite(held).all():
            raise ConfigError("known: NaN or infinity where it is held; every number of it must be finite there.")
        self.known = self.where

    def __call__(self, predict: Predict) -> Predict:
        def held(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            x0, eps = predict(x, level)
            for name, given in (("known", self.values), ("where", self.where)):
                if not broadcasts(given.shape, x0.shape):
                    raise ShapeError(f"{name} {tuple(given.shape)} does not broadcast to the samples {tuple(x0.shape)}.")
            where = self.where.to(x0.device)
            x0 = torch.where(where, self.values.to(x0), x0)
            return x0, torch.where(where, noise_of(x, x0, level), eps)

        return held


class Place(Steer):
    """Known parts that lie anywhere: `place` puts them into the predicted x0, and may move the rest to fit.

    Args:
        place: x0 (B,*S) -> x0 with the known parts in it, such as a motif that is laid onto it.
        where: bool, broadcast to x: where the known parts are.

    Raises:
        ShapeError: `where` is not of bool. ConfigError: `place` is not a function.
    """

    def __init__(self, place: Callable[[Tensor], Tensor], where: Any) -> None:
        if not callable(place):
            raise ConfigError(f"place={place!r}: give a function x0 (B,*S) -> x0 with the known parts in it.")
        self.place, self.known = place, mask_of(where)

    def __call__(self, predict: Predict) -> Predict:
        def placed(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            x0 = self.place(predict(x, level)[0])
            return x0, noise_of(x, x0, level)

        return placed


def hold(known: Any, where: Any) -> Steer:
    """The steer of known parts: values (*S) as a tensor or an array, or a function that puts them into the predicted x0."""
    return Place(known, where) if callable(known) and not isinstance(known, Tensor) else Hold(known, where)


def values_of(known: Any) -> Tensor:
    """Known values as a tensor; a ConfigError for what are no numbers."""
    try:
        return torch.as_tensor(known)
    except (TypeError, ValueError, RuntimeError):
        what = f"a {type(known).__name__}"
        raise ConfigError(f"known: {what}; give encoded values (*S) as a tensor or an array, see Model.encoded.") from None


def mask_of(where: Any, name: str = "where") -> Tensor:
    """The mask of known parts as a tensor: of torch, numpy or lists.

    Raises:
        ShapeError: not of bool. ConfigError: None, or no mask at all.
    """
    try:
        mask = torch.as_tensor(where)
    except (TypeError, ValueError, RuntimeError):
        given = "None" if where is None else f"a {type(where).__name__} that makes no tensor"
        raise ConfigError(f"{name}: {given}; give a bool array or tensor, True for what is kept.") from None
    if mask.dtype != torch.bool:
        raise ShapeError(f"`{name}` must be a bool tensor, got {mask.dtype}.")
    return mask


def broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a tensor of the first shape broadcasts to the second."""
    try:
        return bool(torch.broadcast_shapes(shape, to) == to)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False


def gradient(predict: Predict, x: Tensor, level: Level, energy: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(x0, eps, slope): a prediction, and the gradient (B,*S) of an energy of its x0 in x, through the net.

    Args:
        energy: x0 (B,*S) -> (B,) or a scalar; it must be differentiable.

    Raises:
        ShapeError: an energy of another shape. ConfigError: one that is no tensor, or does not depend on x0.
    """
    with torch.enable_grad():
        leaf, x0, eps = traced(predict, x, level)
        found = energy(x0)
        if not isinstance(found, Tensor):
            raise ConfigError(f"the energy {energy!r} gave a {type(found).__name__}; it must give a tensor (B,) or a scalar.")
        if found.shape not in ((), (1,), (len(x),)):
            raise ShapeError(f"the energy {energy!r} gave {tuple(found.shape)}; it must give one number a sample, {(len(x),)}.")
        if not found.requires_grad:
            raise ConfigError(f"the energy {energy!r} has no gradient: compute it of x0 by torch, without detach or numpy.")
        (slope,) = torch.autograd.grad(found.sum(), leaf)
    return x0.detach(), eps.detach(), slope


def traced(predict: Predict, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
    """(x, x0, eps) with the graph from x to both, for a steer that needs more than one gradient, such as a posterior.

    The x that comes back is a leaf: `torch.autograd.grad(x0, x, v, retain_graph=True)` is v times the Jacobian. What is
    computed of x0 has a graph only inside `torch.enable_grad()`. What a steer returns is cut off the graph by `detach`, or
    memory would grow with the steps.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        x0, eps = predict(leaf, level)
    return leaf, x0, eps


def __getattr__(name: str) -> Any:
    # steers of other packages, by the name of their entry point
    if not name.startswith("_") and name in STEERS:
        return STEERS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. It has: {', '.join([*__all__, *STEERS])}.")


class Blend(Steer):
    """What is believed under other conditions, mixed into a prediction: x0 and eps alike.

    Args:
        other: the prediction under the other conditions.
        share: (B,) of it in each sample, 0 to 1.
    """

    def __init__(self, other: Predict, share: Tensor) -> None:
        self.other, self.share = other, share

    def __call__(self, predict: Predict) -> Predict:
        def mixed(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            weight = self.share.to(x).reshape(-1, *[1] * (x.ndim - 1))
            (x0, eps), (x0_other, eps_other) = predict(x, level), self.other(x, level)
            return torch.lerp(x0, x0_other, weight), torch.lerp(eps, eps_other, weight)

        return mixed

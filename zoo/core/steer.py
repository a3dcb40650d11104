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
from zoo.errors import ShapeError
from zoo.extras import Registry

__all__ = ["STEERS", "Hold", "Place", "Steer", "gradient", "hold", "noise_of", "traced"]

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
        values: clean values, broadcast to x (B,*S).
        where: bool, broadcast to x.

    Raises:
        ShapeError: `where` is not a bool tensor.
    """

    def __init__(self, values: Tensor, where: Tensor) -> None:
        self.values, self.where = values, checked(where)
        self.known = self.where

    def __call__(self, predict: Predict) -> Predict:
        def held(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            x0, eps = predict(x, level)
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
        ShapeError: `where` is not a bool tensor.
    """

    def __init__(self, place: Callable[[Tensor], Tensor], where: Tensor) -> None:
        self.place, self.known = place, checked(where)

    def __call__(self, predict: Predict) -> Predict:
        def placed(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            x0 = self.place(predict(x, level)[0])
            return x0, noise_of(x, x0, level)

        return placed


def hold(known: Tensor | Callable[[Tensor], Tensor], where: Tensor) -> Steer:
    """The steer of known parts: values (*S), or a function that puts them into the predicted x0."""
    return Hold(known, where) if isinstance(known, Tensor) else Place(known, where)


def checked(where: Tensor) -> Tensor:
    """The mask of known parts itself, or a ShapeError unless it is of bool."""
    if where.dtype != torch.bool:
        raise ShapeError(f"`where` must be a bool tensor, got {where.dtype}.")
    return where


def gradient(predict: Predict, x: Tensor, level: Level, energy: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(x0, eps, slope): a prediction, and the gradient (B,*S) of an energy of its x0 in x, through the net.

    Args:
        energy: x0 (B,*S) -> (B,) or a scalar; it must be differentiable.
    """
    with torch.enable_grad():
        leaf, x0, eps = traced(predict, x, level)
        (slope,) = torch.autograd.grad(energy(x0).sum(), leaf)
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

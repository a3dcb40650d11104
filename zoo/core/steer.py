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
    model.sample(4, steer=[energy(loss, 2.0), measure(y, operator, noise=0.05), classifier(judge, "seven")])

Gradients flow only where a steer asks for them, by `gradient` or `traced`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.core.correction import Correction, Informed, Made, Setting, Steer, bound, gradient, is_traced, shifted, traced
from zoo.core.energy import classifier, energy
from zoo.core.measure import Known, Measured, measure
from zoo.core.predict import Predict, Steering, known_parts, noise_of
from zoo.core.schedule import Level
from zoo.core.within import Within, limit, within
from zoo.errors import ConfigError, ShapeError
from zoo.extras import Registry
from zoo.values import interval as checked_interval
from zoo.values import number, several

__all__ = [
    "STEERS",
    "Blend",
    "Correction",
    "Hold",
    "Informed",
    "Known",
    "Made",
    "Measured",
    "Place",
    "Setting",
    "Steer",
    "Within",
    "bound",
    "classifier",
    "energy",
    "gradient",
    "hold",
    "is_traced",
    "limit",
    "mask_of",
    "measure",
    "noise_of",
    "product",
    "shifted",
    "symmetry",
    "traced",
    "within",
]

#: makers of steers by name: those of other packages are attributes of this module, too
STEERS: Registry[Callable[..., Steering]] = Registry("steer", "zoo.steers")
#: makers of steers by name that a command line can ask of every domain: what they take can be typed
NAMED: dict[str, Callable[..., Steering]] = {"limit": limit}


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
        reward: x0 (B,*S) with the known parts in it -> (B,), more where the rest goes better with them, see
            `zoo.core.inpaint.Select`; None: nothing is said of it.

    Raises:
        ShapeError: `where` is not of bool. ConfigError: `place` or `reward` is not a function.
    """

    def __init__(self, place: Callable[[Tensor], Tensor], where: Any, reward: Callable[[Tensor], Tensor] | None = None) -> None:
        if not callable(place):
            raise ConfigError(f"place={place!r}: give a function x0 (B,*S) -> x0 with the known parts in it.")
        if not (reward is None or callable(reward)):
            raise ConfigError(f"reward={reward!r}: give a function x0 (B,*S) -> (B,), or None.")
        self.place, self.known, self.reward = place, mask_of(where), reward

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


class Symmetry(Informed):
    """What `symmetry` makes, see there."""

    def __init__(self, group: Sequence[Any], shared: bool, interval: tuple[float, float]) -> None:
        moves = several(group) or []
        if not moves or not all(callable(move) for move in moves):
            raise ConfigError(
                f"symmetry: {group!r}; give the group's members as functions x0 (B,*S) -> (B,*S), the identity too."
            )
        if not isinstance(shared, bool):
            raise ConfigError(f"symmetry: shared_noise={shared!r}; give True or False.")
        self.moves, self.shared = moves, shared
        self.interval = checked_interval(interval, "interval", what="in sigma / alpha")
        self._seen: set[tuple[int, ...]] = set()

    def mean(self, x: Tensor) -> Tensor:
        """The mean over the group, which is the nearest invariant of x (B,*S) where the members are isometries.

        A member may move elements, such as a flip: padding would come among a sample's own ones, so it is taken off.
        """
        setting = self.setting
        if setting.sizes is None or all(size == x.shape[1 + setting.size_axis] for size in setting.sizes):
            return self._mean(x)
        rows = []
        for i in range(len(x)):
            row, own = torch.zeros_like(x[i : i + 1]), setting.own(x, i)
            rows.append(torch.slice_scatter(row, self._mean(own), 1 + setting.size_axis, 0, own.shape[1 + setting.size_axis]))
        return torch.cat(rows)

    def _mean(self, x: Tensor) -> Tensor:
        moved = [move(x) for move in self.moves]
        for move, found in zip(self.moves, moved, strict=True):
            if not isinstance(found, Tensor) or found.shape != x.shape:
                got = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
                raise ShapeError(f"symmetry: {move!r} gave {got} for {tuple(x.shape)}; it must move samples onto samples.")
        mean = torch.stack(moved).mean(0)
        if tuple(x.shape[1:]) not in self._seen:
            self._check(mean)
            self._seen.add(tuple(x.shape[1:]))
        return mean

    def _check(self, mean: Tensor) -> None:
        """What is invariant stays where it is under each member, or they are no group."""
        size = float(mean.abs().max())
        for move in self.moves:
            if float((move(mean) - mean).abs().max()) > 1e-3 * max(size, 1e-12):
                raise ConfigError(
                    f"symmetry: {move!r} moves the mean over all {len(self.moves)} members: they are not a group of linear "
                    "maps. Give each member once, the identity too, such as all turns of a cycle."
                )

    def noise(self, drawn: Tensor) -> Tensor:
        return self.mean(drawn) * math.sqrt(len(self.moves)) if self.shared else drawn

    def __call__(self, predict: Predict) -> Predict:
        def symmetric(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            x0, eps = predict(x, level)
            if not self.interval[0] < level.ratio <= self.interval[1]:
                return x0, eps
            x0 = self.mean(x0)
            return x0, self.mean(eps) if self.shared else noise_of(x, x0, level)

        return symmetric


def symmetry(group: Sequence[Any], *, shared_noise: bool = False, interval: tuple[float, float] = (0.0, math.inf)) -> Symmetry:
    """Samples that a finite group of isometries leaves as they are: x0 <- 1/|G| sum over g of g x0.

    The mean over the group is the orthogonal projector onto what is invariant (Reynolds operator), so this is in-painting by
    "replace" of the rest of x0, which is known to be 0. As a conditional it is exact for Gaussian data that the group leaves
    alone; symmetric the samples are for all data, since every sampler's last step returns x0.

    Args:
        group: all members, the identity too: each a linear function (B,*S) -> (B,*S), such as
            [lambda x: x, lambda x: x.flip(-1)]. Samples that have sizes of their own come without padding.
        shared_noise: noise is that of one part, moved onto the others, as in symmetric design of proteins (Watson et al. 2023,
            RFdiffusion, supplement; Ingraham et al. 2023, Chroma, supplement): each noise is replaced by sqrt(|G|) times its
            mean, which keeps each element's variance where a part has |G| copies. x is then symmetric at all times: what nets
            that pass symmetry on need; beyond the theory, since elements' noise is not independent.
        interval: (lo, hi): acts where lo < sigma / alpha <= hi; with 0 the samples are symmetric, exactly.

    Raises:
        ConfigError: members that are not a group (when it samples). ShapeError: one that gives another shape.
    """
    return Symmetry(group, shared_noise, interval)


class Product(Steer):
    """What `product` makes, see there."""

    def __init__(self, steers: Sequence[Steering], weights: Sequence[float] | None) -> None:
        found = several(steers) or []
        if not found or not all(callable(steer) for steer in found):
            raise ConfigError(f"product: {steers!r}; give a list of steers.")
        given = [1.0] * len(found) if weights is None else several(weights)
        if given is None or len(given) != len(found):
            raise ConfigError(f"product: weights={weights!r} for {len(found)} steers; give one number for each.")
        self.steers = found
        self.weights = [number(w, "weight", what="how strongly it steers") for w in given]
        # a plain function may ask for gradients without saying so
        self.gradients = any(getattr(steer, "gradients", not isinstance(steer, Steer)) for steer in found)
        known = known_parts(found)
        if known is not None:
            raise ConfigError("product: one of the steers holds known parts, which are certain: give it beside the product.")

    def bound(self, setting: Setting) -> Steering:
        found = copy.copy(self)
        found.steers = [bound(steer, setting) for steer in self.steers]
        return found

    def noise(self, drawn: Tensor) -> Tensor:
        for steer in self.steers:
            drawn = steer.noise(drawn) if isinstance(steer, Steer) else drawn
        return drawn

    def told(self, x: Tensor, level: Level) -> Mapping[str, Tensor]:
        found: dict[str, Tensor] = {}
        for steer in self.steers:
            found |= steer.told(x, level) if isinstance(steer, Steer) else {}
        return found

    def marked(self, item: Any) -> Any:
        for steer in self.steers:
            item = steer.marked(item) if isinstance(steer, Steer) else item
        return item

    def __call__(self, predict: Predict) -> Predict:
        def together(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            leaf = x
            if self.gradients:
                leaf, x0, eps = traced(predict, x, level)
            else:
                x0, eps = predict(x, level)
            delta = torch.zeros_like(x0)
            with torch.set_grad_enabled(self.gradients or torch.is_grad_enabled()):
                for steer, weight in zip(self.steers, self.weights, strict=True):
                    delta = delta + weight * (steer(lambda x, level: (x0, eps))(leaf, level)[0] - x0).detach()
            if not is_traced(x):
                x0, eps = x0.detach(), eps.detach()
            return shifted(x0, eps, delta, level)

        return together


def product(steers: Sequence[Steering], weights: Sequence[float] | None = None) -> Product:
    """Several steers at once: x0 <- x0 + sum_k w_k (x0_k - x0), where each one k steers the same plain prediction.

    That is a product of their likelihoods, p(x0) prod_k L_k(x0)^w_k, in scores (Liu et al. 2022, Eq. 11), where a list of
    steers is one around the other. The net is called once for all of them.

    Args:
        steers: energies, measurements, classifiers, any functions from a prediction to a prediction; no known parts.
        weights: w_k; default 1.

    Raises:
        ConfigError: no steers, or another number of weights.
    """
    return Product(steers, weights)


def __getattr__(name: str) -> Any:
    # steers of other packages, by the name of their entry point
    if not name.startswith("_") and name in STEERS:
        return STEERS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. It has: {', '.join([*__all__, *STEERS])}.")

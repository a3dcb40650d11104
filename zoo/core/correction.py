"""What steers are made of: their base, gradients through the net, and steers that correct x0 by a likelihood.

A steer that multiplies p(x0) by a likelihood L(x0) shifts the score by the slope of log L, and so (Tweedie's formula) x0 by

    delta = sigma^2 / alpha  d log L / dx,        eps by -(alpha / sigma) delta.

`Correction` does this for whoever says delta: where it acts, how strongly, with which graph.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from zoo.core.predict import Predict, Steering
from zoo.core.schedule import NOISIEST, Level
from zoo.errors import ConfigError, NumericsError, ShapeError, one_of
from zoo.values import interval as checked_interval
from zoo.values import number

Told = TypeVar("Told", bound="Informed")
#: in which units a steer sees x0: those of the domain's objects, or those that the net sees
UNITS = ("domain", "encoded")
#: sigma / alpha at which steers with gradients act: above it x shows nothing of the data, and sigma^2 / alpha times a gradient
#: of float32 has no digits left
INTERVAL = (0.0, NOISIEST)


@dataclass(frozen=True)
class Setting:
    """What a model tells its steers of the samples that are made.

    Attributes:
        units: x0 (B,*S) -> the same in the domain's units, with gradients; None: there are none beside those of x0.
        sizes: how many elements each sample has, where they have sizes of their own; None where all are whole.
        size_axis: the axis of a sample (*S) that has these sizes.
        clip: bound of x0; None for none.
        deviation: about the standard deviation of an element of x0 in the data.
        codec: what encodes the domain's objects, for steers that are made of such; None where there is none.
    """

    units: Callable[[Tensor], Tensor] | None = None
    sizes: Sequence[int] | None = None
    size_axis: int = 0
    clip: float | None = None
    deviation: float = 1.0
    codec: Any = None

    def each(self, call: Callable[[Tensor], Tensor], x0: Tensor) -> Tensor:
        """What a function makes of x0 (B,*S), padding taken off: of samples of several sizes one after the other."""
        if self.sizes is None or all(size == x0.shape[1 + self.size_axis] for size in self.sizes):
            return call(x0)
        return torch.cat([call(self.own(x0, i)) for i in range(len(x0))])

    def own(self, x0: Tensor, i: int) -> Tensor:
        """Sample i alone (1,*S), without padding."""
        row = x0[i : i + 1]
        return row if self.sizes is None else row.narrow(1 + self.size_axis, 0, self.sizes[i])

    def variance(self, level: Level) -> float:
        """Of an element of x0, given its x at a level, if elements were independent: s^2 sigma^2 / (alpha^2 s^2 + sigma^2).

        This is r_t^2 of PiGDM (Song et al. 2023a, section 3.2), there with s = 1.
        """
        s, a, n = self.deviation**2, level.alpha**2, level.sigma**2
        return float(s * n / (a * s + n))


class Steer:
    """Base of steers that are objects; any function from a prediction to a prediction is a steer as well.

    Attributes:
        known: bool, broadcast to (B,*S): the parts of x0 that the steer holds for certain, of which nets that condition
            themselves are told. None for none.
        gradients: whether it keeps a graph of the net for gradients: a model then makes fewer samples at a time.
    """

    known: Tensor | None = None
    gradients: bool = False

    def __call__(self, predict: Predict) -> Predict:
        """The steered prediction."""
        raise NotImplementedError

    def bound(self, setting: Setting) -> Steering:
        """The steer as a model uses it for some samples; the default is the steer itself."""
        return self

    def noise(self, drawn: Tensor) -> Tensor:
        """What becomes of noise (B,*S) that is drawn for the samples; the default leaves it."""
        return drawn

    def told(self, x: Tensor, level: Level) -> Mapping[str, Tensor]:
        """What nets with these names in `hears` are told of x (B,*S) at a level, {name: (B,...)}; the default is nothing."""
        return {}

    def marked(self, item: Any) -> Any:
        """A decoded sample with what the steer knows of it, such as the parts that were given; the default leaves it."""
        return item


class Informed(Steer):
    """A steer that is told of the samples: for each batch it is a copy that has their `setting`."""

    setting = Setting()

    def bound(self: Told, setting: Setting) -> Told:
        found = copy.copy(self)
        found.setting = setting
        return found


class Made(Steer):
    """A steer that is made when it meets a model, since it needs its codec: of a file, say, or in seconds.

    Args:
        make: codec -> the steer.
        gradients: whether that one keeps a graph of the net.
        named: what it is called in messages.
    """

    def __init__(self, make: Callable[[Any], Steering], gradients: bool, named: str) -> None:
        self.make, self.gradients, self.named = make, gradients, named

    def bound(self, setting: Setting) -> Steering:
        if setting.codec is None:
            raise ConfigError(f"{self.named}: it belongs to a model, whose codec it asks: model.sample(steer=[...]).")
        return bound(self.make(setting.codec), setting)

    def __call__(self, predict: Predict) -> Predict:
        raise ConfigError(f"{self.named}: it belongs to a model, whose codec it asks: model.sample(steer=[...]).")


class Noised:
    """A source of noise of which steers make theirs."""

    def __init__(self, rng: Any, steers: Sequence[Steering]) -> None:
        self.rng, self.steers = rng, [steer for steer in steers if isinstance(steer, Steer)]

    def normal(self, like: Tensor) -> Tensor:
        """Noise like `like` (B,*S)."""
        drawn: Tensor = self.rng.normal(like)
        for steer in self.steers:
            drawn = steer.noise(drawn)
        return drawn

    def uniform(self) -> Tensor:
        """As of the source."""
        found: Tensor = self.rng.uniform()
        return found


def bound(steer: Steering, setting: Setting) -> Steering:
    """A steer of any kind as a model uses it."""
    return steer.bound(setting) if isinstance(steer, Steer) else steer


def gradient(predict: Predict, x: Tensor, level: Level, energy: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(x0, eps, slope): a prediction, and the gradient (B,*S) of an energy of its x0 in x, through the net.

    Args:
        energy: x0 (B,*S) -> (B,) or a scalar; it must be differentiable.

    Raises:
        ShapeError: an energy of another shape. ConfigError: one that is no tensor, or does not depend on x0.
    """
    within = is_traced(x)
    with torch.enable_grad():
        leaf, x0, eps = traced(predict, x, level)
        found = checked_energy(energy(x0), energy, len(x))
        (slope,) = torch.autograd.grad(found.sum(), leaf, retain_graph=within, allow_unused=True)
        slope = dependent(slope, f"the energy {energy!r}")
    return (x0, eps, slope) if within else (x0.detach(), eps.detach(), slope)


def checked_energy(found: Any, energy: object, n: int) -> Tensor:
    """An energy's value, or an error that says what is wrong with it."""
    if not isinstance(found, Tensor):
        raise ConfigError(f"the energy {energy!r} gave a {type(found).__name__}; it must give a tensor (B,) or a scalar.")
    if found.shape not in ((), (1,), (n,)):
        raise ShapeError(f"the energy {energy!r} gave {tuple(found.shape)}; it must give one number a sample, {(n,)}.")
    if not found.is_floating_point():
        raise ConfigError(f"the energy {energy!r} gave numbers of {found.dtype}; it must give real ones, of a float type.")
    if not found.requires_grad:
        raise ConfigError(f"the energy {energy!r} has no gradient: compute it of x0 by torch, without detach or numpy.")
    return found


def dependent(slope: Tensor | None, what: str) -> Tensor:
    """A gradient, or an error where what was asked for has a graph, but none that leads to x0."""
    if slope is None:
        raise ConfigError(f"{what} does not depend on x0: compute it of the x0 that it is given, by torch, without detach.")
    return slope


def is_traced(x: Tensor) -> bool:
    """Whether a steer further out asks for gradients: x is then part of its graph."""
    return torch.is_grad_enabled() and x.requires_grad


def traced(predict: Predict, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
    """(x, x0, eps) with the graph from x to both, for a steer that needs more than one gradient, such as a posterior.

    The x that comes back has a graph: `torch.autograd.grad(x0, x, v, retain_graph=True)` is v times the Jacobian. What is
    computed of x0 has a graph only inside `torch.enable_grad()`. What a steer returns is cut off the graph by `detach`, or
    memory would grow with the steps; only where a steer further out traces, which is where `is_traced(x)`, x is taken as it is,
    x0 must keep its graph, and what is added to it is cut off alone.
    """
    leaf = x if is_traced(x) else x.detach().requires_grad_()
    with torch.enable_grad():
        x0, eps = predict(leaf, level)
    return leaf, x0, eps


def shifted(x0: Tensor, eps: Tensor, delta: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """A prediction whose x0 is moved by delta, and whose noise is moved so that both still add up to x."""
    return x0 + delta, eps - (level.alpha / level.sigma) * delta


class Correction(Informed):
    """A steer that adds something to x0, from a likelihood of x0, in a range of noise.

    Where several follow one another, the gradient of an outer one flows through the plain prediction, not through what an
    inner one added: second derivatives of the net are never taken, and the net is called once for all of them.

    Args:
        weight: how many times the correction counts, at least 0: the likelihood's exponent.
        interval: (lo, hi): it acts where lo < sigma / alpha <= hi.
        through_net: whether the gradient flows through the net. That costs a call backwards, and memory.
        units: in which it sees x0, "domain" or "encoded".
    """

    def __init__(self, weight: float, interval: tuple[float, float], through_net: bool, units: str) -> None:
        self.weight = number(weight, "weight", 0, what="how strongly it steers")
        self.interval = checked_interval(interval, "interval", what="in sigma / alpha")
        if not isinstance(through_net, bool):
            raise ConfigError(f"through_net={through_net!r}: give True or False.")
        if units not in UNITS:
            raise one_of("units", units, UNITS)
        self.units, self.through_net, self.gradients = units, through_net, through_net

    def correction(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """What is added to x0 (B,*S), before its weight. Gradients are recorded, and x0 has its graph to x or is a leaf."""
        raise NotImplementedError

    def acts(self, level: Level) -> bool:
        """Whether it does anything at a level; through the net never where x holds no signal, of which it says nothing."""
        low, high = self.interval
        return bool(self.weight) and low < level.ratio <= high and (level.alpha > 0 or not self.through_net)

    def seen(self, x0: Tensor) -> Tensor:
        """x0 in the units that were asked for."""
        return x0 if self.units == "encoded" or self.setting.units is None else self.setting.units(x0)

    def scale(self, level: Level) -> float:
        """What makes a correction of x0 out of a slope: in x, through the net, or in x0 itself."""
        return float(level.sigma**2 / level.alpha) if self.through_net else self.setting.variance(level)

    def slope(self, of: Tensor, x: Tensor, x0: Tensor, along: Tensor | None = None) -> Tensor:
        """Gradient of `of` (times `along`), in x through the net, or in x0 itself."""
        leaf = x if self.through_net else x0
        (found,) = torch.autograd.grad(of, leaf, along, retain_graph=True, allow_unused=True)
        return dependent(found, f"what the steer {self.named()} makes").detach()

    def named(self) -> str:
        """The steer in messages: by what it was made of."""
        made_of = getattr(self, "loss", getattr(self, "operator", None))
        return type(self).__name__.lower() + ("" if made_of is None else f" of {made_of!r}")

    def added(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """The correction with its weight, cut off the graph; x0 as `traced` gives it."""
        if not self.acts(level):
            return torch.zeros_like(x0)
        with torch.enable_grad():
            given = x0 if self.through_net else x0.detach().requires_grad_()
            delta = self.weight * self.correction(x, given, level).detach()
        if not torch.isfinite(delta).all() and torch.isfinite(x0).all():
            raise NumericsError(
                f"the steer {self.named()} gave a correction that is not finite, at sigma / alpha = {level.ratio:.4g}: what it "
                "asks for has no finite slope there, such as a root or a logarithm at 0, or its weight is too large."
            )
        if self.setting.clip is not None:
            delta = (x0.detach() + delta).clamp(-self.setting.clip, self.setting.clip) - x0.detach()
        return delta

    def __call__(self, predict: Predict) -> Predict:
        def corrected(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            if not self.acts(level):
                return predict(x, level)
            leaf = x
            if self.through_net:
                leaf, x0, eps = traced(predict, x, level)
            else:
                x0, eps = predict(x, level)
            delta = self.added(leaf, x0, level)
            if not is_traced(x):
                x0, eps = x0.detach(), eps.detach()
            return shifted(x0, eps, delta, level)

        return corrected

"""Steers that keep x0 inside a set: it is moved to the nearest object that has what is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.core.correction import Correction
from zoo.core.schedule import Level
from zoo.errors import ConfigError, NumericsError, ShapeError
from zoo.values import number

#: how far, as a share of the largest number, x0 may be from what was asked for where units are not of each element by itself
LOOSE = 1e-3
#: how often x0 is moved into the set and back into its bounds, where it has any
TURNS = 8


class Within(Correction):
    """What `within` makes, see there."""

    def __init__(self, nearest: Callable[[Tensor], Tensor], interval: tuple[float, float], units: str, named: str = "") -> None:
        super().__init__(1.0, interval, False, units)
        if not callable(nearest):
            raise ConfigError(f"within: {nearest!r}; give a function x0 (B,*S) -> (B,*S), the nearest that is allowed.")
        self.nearest, self.called = nearest, named

    def named(self) -> str:
        return self.called or f"within of {self.nearest!r}"

    def correction(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        setting = self.setting
        if setting.clip is None:
            return self._each(x0)
        # inside the set and inside the bounds of x0: from one to the other, in turn
        at = x0.detach()
        for _ in range(TURNS):
            moved = at + self._each(at.requires_grad_()).detach()
            at = moved.clamp(-setting.clip, setting.clip)
            if torch.equal(at, moved):
                break
        return at - x0.detach()

    def _each(self, x0: Tensor) -> Tensor:
        """What is added to samples (B,*S), each without its padding."""
        setting = self.setting
        if setting.sizes is None or all(size == x0.shape[1 + setting.size_axis] for size in setting.sizes):
            return self._moved(x0)
        rows = []
        for i in range(len(x0)):
            own = self._moved(setting.own(x0, i))
            row = torch.zeros_like(x0[i : i + 1])
            rows.append(torch.slice_scatter(row, own, 1 + setting.size_axis, 0, own.shape[1 + setting.size_axis]))
        return torch.cat(rows)

    def _moved(self, x0: Tensor) -> Tensor:
        """What is added to samples (B,*S) without padding."""
        if self.units == "encoded" or self.setting.units is None:
            return self._asked(x0.detach()) - x0.detach()
        seen = self.seen(x0)
        if seen.shape != x0.shape:
            raise ConfigError(
                f"{self.named()}: x0 {tuple(x0.shape)} has other units {tuple(seen.shape)}, as of a latent model, into which "
                "nothing can be moved. Say it by zoo.steer.energy or zoo.steer.measure, or give units='encoded'."
            )
        wanted = self._asked(seen.detach())
        gap = wanted - seen.detach()
        # each number has a unit of its own (a scale, an offset), so that the way back is a division
        (scale,) = torch.autograd.grad(seen.sum(), x0)
        delta = torch.where(gap == 0, 0, gap / scale)
        found = self.seen(x0.detach() + delta)
        if not float((found - wanted).abs().max()) <= LOOSE * max(float(wanted.abs().max()), 1e-12):
            raise ConfigError(
                f"{self.named()}: this domain's units are not those of each number by itself, so that what is asked for has "
                "no x0. Say it by zoo.steer.energy or zoo.steer.measure, or give units='encoded'."
            )
        return delta

    def _asked(self, values: Tensor) -> Tensor:
        wanted = self.nearest(values)
        if not isinstance(wanted, Tensor) or wanted.shape != values.shape:
            got = tuple(wanted.shape) if isinstance(wanted, Tensor) else f"a {type(wanted).__name__}"
            raise ShapeError(f"{self.named()}: gave {got} for samples {tuple(values.shape)}; it must give samples like them.")
        if not torch.isfinite(wanted).all() and torch.isfinite(values).all():
            raise NumericsError(f"{self.named()}: gave numbers that are not finite.")
        return wanted.to(values)


def within(
    nearest: Callable[[Tensor], Tensor],
    *,
    interval: tuple[float, float] = (0.0, math.inf),
    units: str = "domain",
) -> Within:
    """Samples inside a set: each x0 is replaced by the nearest that lies in it (projected diffusion, Christopher et al. 2024).

        x0 <- argmin over z in the set of |z - x0|,    with eps so that both still add up to x

    The last step of every sampler returns x0, so that the samples lie in the set, exactly, where it acts down to 0. As a
    conditional this is an approximation, as "replace" is for known parts: what must hold is held, and the net makes the rest
    of it, step by step. The net is not differentiated.

    Args:
        nearest: x0 (B,*S) in the domain's units -> the nearest (B,*S) in the set; what lies in it must stay. Samples that
            have sizes of their own come without padding.
        interval: (lo, hi): acts where lo < sigma / alpha <= hi.
        units: "domain", where each number has a unit of its own (pictures, points, coordinates, actions), or "encoded".

    Raises:
        ConfigError: no function; when it samples, units that mix numbers, as those of latent models.
        ShapeError: when it samples, a function that gives another shape. NumericsError: one that gives NaN or infinity.
    """
    return Within(nearest, interval, units)


def limit(
    low: float | None = None,
    high: float | None = None,
    *,
    interval: tuple[float, float] = (0.0, math.inf),
    units: str = "domain",
) -> Within:
    """Samples of which every number lies from `low` to `high`: x0 <- min(max(x0, low), high), see `within`.

    Args:
        low, high: in the domain's units; None: no bound on that side.
        interval, units: as of `within`.

    Raises:
        ConfigError: no bound at all, or low above high.
    """
    bounds = {name: None if v is None else number(v, name, what="a bound") for name, v in (("low", low), ("high", high))}
    low, high = bounds["low"], bounds["high"]
    if low is None and high is None:
        raise ConfigError("limit: give low, high or both.")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"limit: low={low:g} is above high={high:g}.")
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    return Within(lambda values: values.clamp(least, most), interval, units, f"limit from {least:g} to {most:g}")

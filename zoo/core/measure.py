"""Measurements y = A(x0) + noise as steers, with the net's own posterior covariance, by a few products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.core.correction import INTERVAL, Correction, dependent
from zoo.core.schedule import Level
from zoo.errors import ConfigError, ShapeError, one_of
from zoo.values import number, whole

#: how the covariance of x0 given x is known, see `measure`
METHODS = ("posterior", "pigdm")
#: conjugate-gradient products, where nobody asks
PRODUCTS = 3
#: least variance of what is measured, as a share of sigma^2 / alpha^2: without noise, products of float32 stay solvable
RIDGE = 1e-6
#: how sure known parts of in-painting are taken to be, in deviations of the data: where a trained net is surer than this of
#: what it gets wrong, the correction would be divided by next to nothing
FLOOR = 0.01


class Linear(Protocol):
    """A function of x0, linearised at a guess: what it gives there (B,*M), and its derivative both ways."""

    value: Tensor

    def forward(self, v: Tensor) -> Tensor:
        """The derivative along v (B,*S): (B,*M)."""
        ...

    def back(self, u: Tensor) -> Tensor:
        """The transposed derivative of u (B,*M): (B,*S)."""
        ...


class Derivative:
    """Any differentiable function, linearised by torch: the way forward is the derivative of the way back, which is linear."""

    def __init__(self, function: Callable[[Tensor], Tensor], at: Tensor, named: object) -> None:
        with torch.enable_grad():
            self.at = at.detach().requires_grad_()
            value = function(self.at)
            if not isinstance(value, Tensor):
                raise ConfigError(f"the operator {named!r} gave a {type(value).__name__}; it must give a tensor (B, ...).")
            if value.ndim < 1 or len(value) != len(at):
                raise ShapeError(f"the operator {named!r} gave {tuple(value.shape)} for {len(at)} samples; (B, ...) is needed.")
            if not value.requires_grad:
                raise ConfigError(
                    f"the operator {named!r} has no gradient: compute it of x0 by torch, without detach or numpy, or give "
                    "transpose= of a linear one."
                )
            self._value, self.value = value, value.detach()
            self._along = torch.zeros_like(value).requires_grad_()
            (back,) = torch.autograd.grad(value, self.at, self._along, create_graph=True, allow_unused=True)
            self._back = dependent(back, f"the operator {named!r}")

    def back(self, u: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(self._value, self.at, u, retain_graph=True)
        return found.detach()

    def forward(self, v: Tensor) -> Tensor:
        if not self._back.requires_grad:
            return torch.zeros_like(self.value)  # constant: it depends on nothing of x0
        (found,) = torch.autograd.grad(self._back, self._along, v, retain_graph=True)
        return found.detach()


class Given:
    """A linear operator with its transpose, which need not be torch's, after the units of x0."""

    def __init__(
        self, operator: Callable[[Tensor], Tensor], transpose: Callable[[Tensor], Tensor], units: Derivative | None, at: Tensor
    ) -> None:
        self.operator, self.transpose, self.units = operator, transpose, units
        self.value = operator((at if units is None else units.value).detach())
        self._check(at if units is None else units.value)

    def _check(self, at: Tensor) -> None:
        """<A v, u> = <v, A' u>, and A 0 = 0: a wrong transpose would steer anywhere."""
        for name, found, like in (("operator", self.value, None), ("transpose", self.transpose(self.value), at)):
            if not isinstance(found, Tensor) or (like is not None and found.shape != like.shape):
                got = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
                wanted = "(B, ...)" if like is None else tuple(like.shape)
                raise ShapeError(f"measure: the {name} gave {got}; a tensor {wanted} is needed.")
        zero = self.operator(torch.zeros_like(at))
        ones, seen = torch.ones_like(at), self.operator(torch.ones_like(at))
        there, back = (seen * self.value).sum(), (ones * self.transpose(self.value)).sum()
        size = float((seen.norm() * self.value.norm()).clamp(min=1e-12))
        if (
            float(zero.abs().max()) > 1e-4 * float(seen.abs().max().clamp(min=1e-12))
            or float((there - back).abs()) > 1e-3 * size
        ):
            raise ConfigError(
                "measure: `transpose` is not that of a linear `operator`: <A v, u> must be <v, A' u>, and A 0 = 0."
            )

    def forward(self, v: Tensor) -> Tensor:
        return self.operator(v if self.units is None else self.units.forward(v))

    def back(self, u: Tensor) -> Tensor:
        found = self.transpose(u)
        return found if self.units is None else self.units.back(found)


class Mask:
    """What in-painting measures: the elements that are known, of x0 itself."""

    def __init__(self, where: Tensor, at: Tensor) -> None:
        self.where, self.value = where, torch.where(where, at.detach(), 0)

    def forward(self, v: Tensor) -> Tensor:
        return torch.where(self.where, v, 0)

    back = forward


def conjugate_gradient(
    product: Callable[[Tensor], tuple[Tensor, Tensor]], residual: Tensor, products: int
) -> tuple[Tensor, Tensor]:
    """(u, w): u about solves M u = residual for each sample by itself, and w is what the products found for it on their way.

    Args:
        product: u (B,*M) -> (M u, what belongs to it, linear in u).
        residual: (B,*M).
        products: how many.

    A sample stops where M has no positive curvature along its direction, or its residual is zero.
    """
    axes = tuple(range(1, residual.ndim))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(axes, keepdim=True) if axes else a * b

    found, made = torch.zeros_like(residual), None
    r = direction = residual
    square = first = dot(r, r)
    for _ in range(products):
        image, beside = product(direction)
        curvature = dot(direction, image)
        goes = (curvature > 0) & (square > 1e-14 * first)
        step = torch.where(goes, square / curvature.where(goes, torch.ones_like(curvature)), 0)
        found = found + step * direction
        part = step.reshape(-1, *[1] * (beside.ndim - 1)) * beside
        made = part if made is None else made + part
        r = r - step * image
        last, square = square, dot(r, r)
        direction = torch.where(goes, r + square / last.where(goes, torch.ones_like(last)) * direction, 0)
    if made is None:
        raise ConfigError("no products: give a whole number of at least 1.")
    return found, made


class Measured(Correction):
    """What `measure` makes, see there. `linear` of a class of its own says what is measured."""

    def __init__(
        self,
        y: Tensor,
        operator: Any,
        noise: float,
        method: str,
        products: int,
        transpose: Any,
        weight: float,
        interval: tuple[float, float],
        units: str,
    ) -> None:
        super().__init__(weight, interval, True, units)
        if method not in METHODS:
            raise one_of("method of measure", method, METHODS)
        for name, call in (("operator", operator), ("transpose", transpose)):
            if not (callable(call) or (name == "transpose" and call is None)):
                raise ConfigError(f"measure: {name}={call!r}; give a function of x0 (B,*S), or a matrix.")
        self.y, self.operator, self.transpose, self.method = y, operator, transpose, method
        self.deviation = number(noise, "noise", 0, what="standard deviation of each number of y")
        self.products = whole(products, "products", 1)

    def linear(self, x0: Tensor) -> Linear:
        """What is measured, linearised at the guess x0 (B,*S)."""

        def values(x0: Tensor) -> Tensor:
            return self.setting.each(self.seen, x0)

        def measured(x0: Tensor) -> Tensor:
            return self.setting.each(lambda rows: self.operator(self.seen(rows)), x0)

        if self.transpose is None:
            return Derivative(measured, x0, self.operator)
        if self.setting.sizes is not None and len(set(self.setting.sizes)) > 1:
            raise ConfigError(
                "measure: transpose= for samples of several sizes in one batch; leave it out, or ask for one size."
            )
        plain = self.units == "encoded" or self.setting.units is None
        return Given(self.operator, self.transpose, None if plain else Derivative(values, x0, "units"), x0)

    def target(self, value: Tensor) -> Tensor:
        """What was measured, for each sample (B,*M)."""
        y = self.y.to(value)
        try:
            fits = torch.broadcast_shapes(y.shape, value.shape) == value.shape  # type: ignore[no-untyped-call]
        except RuntimeError:
            fits = False
        if not fits:
            raise ShapeError(
                f"measure: y {tuple(y.shape)} does not broadcast to what the operator gives, {tuple(value.shape)}."
            )
        return y

    def uncertainty(self) -> float:
        """Standard deviation of what was measured."""
        return self.deviation

    def correction(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        seen = self.linear(x0.detach())
        residual = self.target(seen.value) - seen.value
        ratio, ridge = self.scale(level), self.uncertainty() ** 2 + RIDGE * level.ratio**2
        spread = self.setting.variance(level)

        def through(u: Tensor) -> tuple[Tensor, Tensor]:
            moved = ratio * self.slope(x0, x, x0, seen.back(u))
            return seen.forward(moved) + ridge * u, moved

        def beside(u: Tensor) -> tuple[Tensor, Tensor]:
            moved = spread * seen.back(u)
            return seen.forward(moved) + ridge * u, moved

        if self.method == "pigdm":
            u, _ = conjugate_gradient(beside, residual, self.products)
            delta = ratio * self.slope(x0, x, x0, seen.back(u))
        else:
            _, delta = conjugate_gradient(through, residual, self.products)
        return delta


def measure(
    y: Any,
    operator: Any,
    noise: float,
    *,
    method: str = "posterior",
    products: int = PRODUCTS,
    transpose: Callable[[Tensor], Tensor] | None = None,
    weight: float = 1.0,
    interval: tuple[float, float] = INTERVAL,
    units: str = "domain",
) -> Measured:
    """Samples of about p(x0 | y), of which y = A(x0) + noise is known: deblurring, a low resolution, a projection, a part.

    What is known of x0 at a level is taken as Gaussian, N(x0(x), C), so that given y

        x0 <- x0 + C A' (A C A' + noise^2)^-1 (y - A x0)

    * "posterior": C = sigma^2 / alpha J, the net's own covariance (J = d x0 / dx: Tweedie's second moment), as in moment
      matching posterior sampling (Rozet et al. 2024, section 4.2) and TMPD (Boys et al. 2023). Exact for Gaussian data. The
      inverse takes `products` conjugate-gradient products, each a call of the net backwards with A' u, which gives J' A' u.
      A perfect net's Jacobian is symmetric; a trained one's is only about so, and J' stands for it. A sample stops where its
      direction u has no positive u' A J' A' u, of which only the symmetric part of J counts. Later products are along what
      the net takes to be nearly fixed, where its errors count most: few are enough.
    * "pigdm": the inverse is that of C = r^2, r^2 = s^2 sigma^2 / (alpha^2 s^2 + sigma^2), and only the last product is the
      net's (pseudoinverse guidance, Song et al. 2023a, section 3.2; for any operator and noise). One call of the net backwards.

    A is linearised at the guess where it is not linear.

    Args:
        y: what was measured (*M), a tensor or an array, of one object for all samples.
        operator: x0 (B,*S), in the domain's units -> (B,*M), differentiable by torch (twice where it is not linear); or a
            matrix (M, D) that multiplies each sample, flattened to (D,). Samples that have sizes of their own come without
            padding.
        noise: standard deviation of each number of y; 0: y is exact.
        transpose: (B,*M) -> (B,*S) of a linear operator, which then need not be torch's.
        method, products: see above.
        weight: 1; the correction's weight, at least 0.
        interval: (lo, hi): acts where lo < sigma / alpha <= hi; by default up to 80: above that x shows nothing.
        units: "domain" or "encoded", as of `energy`.

    Raises:
        ConfigError: an argument that is invalid; when it samples, an operator without a gradient, a wrong transpose.
        ShapeError: when it samples, y that is not what the operator gives.
    """
    try:
        target = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"measure: y is a {type(y).__name__}; give what was measured as a tensor or an array.") from None
    if target.is_complex() or not torch.isfinite(target).all():
        raise ConfigError("measure: y must be finite real numbers.")
    if isinstance(operator, Tensor) or hasattr(operator, "__array__"):
        operator = Matrix(torch.as_tensor(operator))
    return Measured(target, operator, noise, method, products, transpose, weight, interval, units)


class Matrix:
    """A matrix (M, D) as an operator on samples, flattened."""

    def __init__(self, rows: Tensor) -> None:
        if rows.ndim != 2 or not rows.is_floating_point() or not torch.isfinite(rows).all():
            raise ShapeError(f"measure: an operator {tuple(rows.shape)} of {rows.dtype}; a matrix (M, D) of floats is needed.")
        self.rows = rows

    def __repr__(self) -> str:
        return f"a matrix {tuple(self.rows.shape)}"

    def __call__(self, x0: Tensor) -> Tensor:
        flat = x0.flatten(1)
        if flat.shape[1] != self.rows.shape[1]:
            raise ShapeError(f"measure: {self!r} does not multiply samples {tuple(x0.shape[1:])} of {flat.shape[1]} numbers.")
        return flat @ self.rows.to(flat).T


class Known(Measured):
    """Known elements of x0 as a measurement of next to no noise, for in-painting; who holds them exactly comes around it."""

    def __init__(self, values: Tensor, where: Tensor, products: int = PRODUCTS, interval: tuple[float, float] = INTERVAL):
        super().__init__(values, lambda x0: x0, 0.0, "posterior", products, None, 1.0, interval, "encoded")
        self.where = where

    def uncertainty(self) -> float:
        return FLOOR * self.setting.deviation

    def linear(self, x0: Tensor) -> Linear:
        return Mask(self.where.to(x0.device).expand_as(x0), x0)

    def target(self, value: Tensor) -> Tensor:
        where = self.where.to(value.device).expand_as(value)
        return torch.where(where, self.y.to(value).expand_as(value), 0)

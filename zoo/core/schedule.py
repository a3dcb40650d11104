"""Noise schedules: which levels training draws and which grid sampling walks.

A level is (t, alpha, sigma) with x_t = alpha x0 + sigma eps. Everything that comes after a schedule (loss, samplers,
guidance) is written in alpha and sigma, so a new Gaussian process is a new `Schedule` and nothing else.
Coefficients are float64 throughout; tensors of data are never touched here.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from zoo.core.device import send
from zoo.errors import ConfigError, one_of
from zoo.extras import Registry
from zoo.values import interval, number, several, whole

#: sigma / alpha where a Karras grid starts, at most: EDM's sigma_max (Karras et al. 2022, table 1). A cosine schedule goes
#: on to 20,000, and most of the steps would be taken where nothing of the data can be seen.
NOISIEST = 80.0
#: the least sigma / alpha that a grid may be asked for, and the largest is as far from 1: their squares are numbers of float32
FAINTEST = 1e-12


@dataclass(frozen=True)
class Level:
    """A noise level: x_t = alpha x0 + sigma eps.

    Sampling uses plain floats; training uses float64 tensors (B,), one entry a sample. `t` is the coordinate
    that the denoiser receives: the step index of a discrete schedule, ln(sigma) / 4 for EDM, the time of a flow.
    """

    t: Any
    alpha: Any
    sigma: Any

    @property
    def ratio(self) -> Any:
        """sigma / alpha: the noise level of the same process rescaled to alpha = 1."""
        return self.sigma / self.alpha if isinstance(self.alpha, Tensor) or self.alpha else math.inf

    @property
    def snr(self) -> Any:
        """Signal-to-noise ratio alpha^2 / sigma^2."""
        return (self.alpha / self.sigma) ** 2 if isinstance(self.sigma, Tensor) or self.sigma else math.inf

    @property
    def lam(self) -> float:
        """log(alpha / sigma), half the log-SNR (a sampling level: floats)."""
        if not self.sigma:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha else -math.inf

    def to(self, device: torch.device | str) -> Level:
        """The same levels with their tensors on a device; numbers stay numbers."""
        t, alpha, sigma = (send(v, device) if isinstance(v, Tensor) else v for v in (self.t, self.alpha, self.sigma))
        return Level(t, alpha, sigma)


@dataclass(frozen=True)
class NetLevel(Level):
    """The level of what a net is given: gain * x_t = alpha x0 + sigma eps.

    A preconditioned net sees x_t divided by `gain`, its standard deviation; others see x_t as it is, at a gain of 1.
    """

    gain: Any = 1.0


class Schedule(ABC):
    """A Gaussian process between data and noise."""

    #: the name in a recipe, see `schedule`
    kind: str = ""
    #: the spacings that `levels` takes, the default one first
    spacings: tuple[str, ...] = ()
    #: how a Karras grid is spaced: even in (sigma / alpha)^(1 / rho)
    rho: float = 7.0

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that build this schedule again: those of a dataclass; other schedules override this."""
        if not is_dataclass(self):
            return {}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    @abstractmethod
    def draw(self, n: int, rng: torch.Generator | None = None) -> Level:
        """Levels for a training batch: a `Level` of float64 tensors (n,).

        The draws are stratified (one in each n-th of the distribution, in random order), which leaves the expected
        loss as it is and lowers its variance.
        """

    @abstractmethod
    def points(self, steps: int, spacing: str) -> list[Level]:
        """The `steps` noisy levels of the sampling grid, noisiest first; of a Karras grid only where there are no `ends`."""

    @abstractmethod
    def at(self, ratio: float) -> Level:
        """The level with this sigma / alpha, clipped to the range of the schedule."""

    def of(self, t: Tensor) -> Level:
        """The levels of the coordinates t (B,), tensors (B,) of t's dtype: what a net that asks for its level is told.

        Raises:
            ConfigError: the schedule does not say it.
        """
        raise ConfigError(f"{type(self).__name__} has no method `of`, which a net that asks for its level needs.")

    @property
    @abstractmethod
    def clean(self) -> Level:
        """The level after the last step: alpha 1, sigma 0."""

    @property
    def last(self) -> Level:
        """The level where sampling ends: the clean one, unless a schedule was told to stop before it."""
        return self.clean

    def levels(self, steps: int, spacing: str | None = None, bounds: tuple[float, float] | None = None) -> list[Level]:
        """The sampling grid: `steps` noisy levels and the last one. Sampler step i goes from [i] to [i + 1].

        Args:
            bounds: the least and the largest sigma / alpha of a Karras grid; default: the schedule's own, up to `NOISIEST`.

        Raises:
            ConfigError: a spacing that this schedule does not have, a number of steps out of range, or bounds that are not
                two numbers 0 < low < high, are of another spacing, or so wide that steps fall together at the schedule's ends.
        """
        spacing = spacing or self.spacings[0]
        if spacing not in self.spacings:
            raise one_of(f"spacing for a {type(self).__name__}", spacing, self.spacings)
        steps = whole(steps, "steps", 1, self.max_steps)
        if bounds is not None and spacing != "karras":
            raise ConfigError(
                f"bounds={bounds!r} are those of spacing='karras'; this grid is {spacing!r}. Leave one of them out."
            )
        ends = self.ends if bounds is None else interval(bounds, "bounds", open=True, what="in sigma / alpha")
        if bounds is not None and ends is not None and not FAINTEST <= ends[0] < ends[1] <= 1 / FAINTEST:
            raise ConfigError(f"bounds={bounds!r}, in sigma / alpha: give two numbers from {FAINTEST:g} to {1 / FAINTEST:g}.")
        if spacing != "karras" or ends is None:
            return [*self.points(steps, spacing), self.last]
        noisy = [self.at(ratio) for ratio in karras(steps, *ends, self.rho)]
        if any(not second.ratio < first.ratio for first, second in itertools.pairwise(noisy)):
            raise ConfigError(
                f"bounds={bounds!r} reach beyond this schedule: steps fall together at its ends, {noisy[-1].ratio:.3g} and "
                f"{noisy[0].ratio:.3g}. Give bounds within them."
            )
        return [*noisy, self.last]

    @property
    def ends(self) -> tuple[float, float] | None:
        """The least and the largest sigma / alpha of a Karras grid; None where `points` makes that grid, or there is none."""
        return None

    @property
    def max_steps(self) -> int:
        """The largest number of sampling steps."""
        return 100_000

    def prior_std(self, level: Level) -> float:
        """Standard deviation of x_T when sampling starts from pure noise at `level`."""
        return float(level.sigma)

    def _strata(self, n: int, rng: torch.Generator | None) -> Tensor:
        """n stratified uniform numbers in [0, 1), in random order, float64."""
        u = torch.rand(n, generator=rng, dtype=torch.float64)
        order = torch.randperm(n, generator=rng)
        return ((order + u) / n).clamp(max=1 - 2**-53)


#: the schedules by the kind that a recipe names
SCHEDULES: Registry[type[Schedule]] = Registry("kind of schedule", "zoo.schedules")

S = TypeVar("S", bound=type[Schedule])


def schedule(kind: str) -> Callable[[S], S]:
    """Register a class as the schedule `kind` of recipes."""

    def register(found: S) -> S:
        SCHEDULES.register(kind, found)
        found.kind = kind
        return found

    return register


def make_schedule(kind: str, options: Mapping[str, Any]) -> Schedule:
    """The schedule of a kind with its options.

    Raises:
        ConfigError: an unknown kind, or options that it does not take.
    """
    try:
        return SCHEDULES[kind](**options)
    except TypeError as error:
        raise ConfigError(f"schedule {kind!r}: {error}.") from error


#: the named curves of a discrete schedule
CURVES = ("linear", "scaled_linear", "cosine", "sigmoid")


def _alpha_bar(curve: str, T: int, beta_start: float, beta_end: float) -> Tensor:
    """Cumulative products (T,) float64 of the usual curves."""
    if curve == "linear":  # Ho et al. 2020, section 4
        return torch.cumprod(1 - torch.linspace(beta_start, beta_end, T, dtype=torch.float64), 0)
    if curve == "scaled_linear":  # Rombach et al. 2022: linear in the roots of the ends
        roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), T, dtype=torch.float64)
        return torch.cumprod(1 - roots**2, 0)
    u = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    if curve == "cosine":  # Nichol & Dhariwal 2021, Eq. 17, with their cap of 0.999 on beta
        f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    elif curve == "sigmoid":  # Jabri et al. 2022, section 3, start -3, end 3, tau 1
        ends = torch.sigmoid(torch.tensor([-3.0, 3.0], dtype=torch.float64))
        f = (ends[1] - torch.sigmoid(6 * u - 3)) / (ends[1] - ends[0])
    else:
        raise one_of("curve", curve, CURVES)
    return torch.cumprod(1 - (1 - f[1:] / f[:-1]).clamp(max=0.999), 0)


@schedule("discrete")
@dataclass(frozen=True)
class DiscreteSchedule(Schedule):
    """The variance-preserving process of DDPM (Ho et al. 2020, Eq. 4): alpha = sqrt(alpha_bar), T steps.

    Args:
        curve: "linear", "scaled_linear", "cosine" or "sigmoid".
        T: number of training steps; t = 0 is the least noise, the clean level comes after it as t = -1.
        beta_start, beta_end: ends of the linear curves (the others ignore them).
        zero_terminal_snr: shift and rescale sqrt(alpha_bar) so that the last is 0 (Lin et al. 2023, Algorithm 1).
            Eps prediction cannot work there: `Diffusion` refuses it.
        betas: the T variances themselves, in place of a curve.
        steps_offset: added to the steps of the leading grids, whose last step is 0 without it.
        final: where sampling ends: "clean", or "least": at step 0, whose noise then stays in the samples.

    Grids: "trailing", "leading" and "linspace" are those of Lin et al. 2023, table 2. "open-leading" and "open-linspace" are
    made for one step more and leave the least noisy one out.
    """

    curve: str = "linear"
    T: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_terminal_snr: bool = False
    betas: tuple[float, ...] | None = None
    steps_offset: int = 0
    final: str = "clean"
    alpha_bar: Tensor = field(init=False, repr=False, compare=False)

    spacings = ("trailing", "leading", "linspace", "karras", "open-leading", "open-linspace")

    def __post_init__(self) -> None:
        object.__setattr__(self, "T", whole(self.T, "T", 2))
        object.__setattr__(self, "steps_offset", whole(self.steps_offset, "steps_offset", 0, self.T - 1))
        if self.final not in ("clean", "least"):
            raise one_of("final", self.final, ("clean", "least"))
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ConfigError(f"beta_start={self.beta_start}, beta_end={self.beta_end}: give 0 < beta_start <= beta_end < 1.")
        if self.betas is None:
            alpha_bar = _alpha_bar(self.curve, self.T, self.beta_start, self.beta_end)
        else:
            alpha_bar = self._of_betas(self.betas)
        if self.zero_terminal_snr:
            root = alpha_bar.sqrt()
            alpha_bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        object.__setattr__(self, "alpha_bar", alpha_bar)

    def _of_betas(self, betas: Sequence[float]) -> Tensor:
        """Cumulative products of betas that are given one by one.

        Raises:
            ConfigError: not T numbers between 0 and 1; the last alone may be 1, which leaves nothing of the data.
        """
        found = several(betas)
        if found is None or len(found) != self.T:
            count = "no list" if found is None else f"{len(found)} of them"
            raise ConfigError(f"betas: {count}; give T={self.T} numbers, one a step.")
        values = tuple(number(beta, "betas") for beta in found)
        odd = [beta for beta in values[:-1] if not 0 < beta < 1] + [beta for beta in values[-1:] if not 0 < beta <= 1]
        if odd:
            raise ConfigError(f"betas: {odd[0]!r}; each is between 0 and 1, and only the last may be 1.")
        object.__setattr__(self, "betas", values)
        return torch.cumprod(1 - torch.tensor(values, dtype=torch.float64), 0)

    @property
    def ends(self) -> tuple[float, float]:
        return self.level(0).ratio, min(self.level(self.T - 1).ratio, NOISIEST)

    @property
    def last(self) -> Level:
        return self.clean if self.final == "clean" else self.level(0)

    @property
    def max_steps(self) -> int:
        return self.T

    @property
    def clean(self) -> Level:
        return Level(-1, 1.0, 0.0)

    def prior_std(self, level: Level) -> float:
        return 1.0  # data of unit variance keep it at every level, so x_T is N(0, 1) wherever the grid starts

    def level(self, t: int) -> Level:
        """The level of step index t in 0..T-1."""
        if not 0 <= t < self.T:
            raise ConfigError(f"t={t}: this schedule has steps 0 to {self.T - 1}.")
        return Level(t, math.sqrt(self.alpha_bar[t].item()), math.sqrt(1 - self.alpha_bar[t].item()))

    def draw(self, n: int, rng: torch.Generator | None = None) -> Level:
        t = (self._strata(n, rng) * self.T).long()
        return Level(t.double(), self.alpha_bar[t].sqrt(), (1 - self.alpha_bar[t]).sqrt())

    def points(self, steps: int, spacing: str) -> list[Level]:
        T = self.T
        if spacing == "trailing":  # T, T - T/n, ... (Lin et al. 2023, table 2), 1-based there
            ts = [round(T - i * T / steps) - 1 for i in range(steps)]
        elif spacing.startswith("open-"):  # of one step more, without the least noisy one
            if steps == T:
                raise ConfigError(f"steps={steps}: the spacing {spacing!r} leaves one of {T} steps out; take fewer.")
            return self.points(steps + 1, spacing.removeprefix("open-"))[:-1]
        elif spacing == "leading":  # multiples of T // n, the largest first
            ts = [(steps - 1 - i) * (T // steps) + self.steps_offset for i in range(steps)]
        else:  # both ends included
            ts = [round((T - 1) * (steps - 1 - i) / (steps - 1)) if steps > 1 else T - 1 for i in range(steps)]
        return [self.level(t) for t in ts]

    @cached_property
    def _log_ratio(self) -> Tensor:
        return 0.5 * (torch.log1p(-self.alpha_bar) - torch.log(self.alpha_bar))

    def at(self, ratio: float) -> Level:
        if ratio <= 0:
            return self.clean
        table, x = self._log_ratio, math.log(ratio)
        hi = int(torch.searchsorted(table, x).clamp(1, self.T - 1))
        lo, up = table[hi - 1].item(), table[hi].item()
        w = 0.0 if math.isinf(up) else min(max((x - lo) / (up - lo), 0.0), 1.0)
        t = hi - 1 + w
        r = math.exp(lo + w * (up - lo)) if w else math.exp(lo)
        return Level(t, 1 / math.hypot(1, r), r / math.hypot(1, r))

    def of(self, t: Tensor) -> Level:
        place = t.double().clamp(0, self.T - 1)
        below = place.long()
        above = (below + 1).clamp(max=self.T - 1)
        share = place - below
        table = self._log_ratio.to(t.device)
        low, high = table[below], table[above]
        # the last step of zero terminal SNR is at infinity, where lerp gives NaN
        ahead = torch.where(high.isinf(), high, torch.lerp(low, high, share))
        between = torch.where(share > 0, ahead, low)
        variance = torch.sigmoid(2 * between)
        clean = t < 0
        alpha = torch.where(clean, 1.0, (1 - variance).sqrt())
        sigma = torch.where(clean, 0.0, variance.sqrt())
        return Level(t, alpha.to(t), sigma.to(t))


def karras(steps: int, low: float, high: float, rho: float) -> list[float]:
    """`steps` noise levels from high to low, even in sigma^(1/rho) (Karras et al. 2022, Eq. 5)."""
    a, b = high ** (1 / rho), low ** (1 / rho)
    return [(a + i / max(steps - 1, 1) * (b - a)) ** rho for i in range(steps)]


@schedule("edm")
@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """The continuous-sigma process of EDM (Karras et al. 2022): alpha = 1, t = ln(sigma) / 4.

    Training draws ln(sigma) ~ N(P_mean, P_std^2) (table 1); sampling walks sigma_max .. sigma_min by Eq. 5.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    P_mean: float = -1.2
    P_std: float = 1.2
    rho: float = 7.0

    spacings = ("karras", "linspace")

    def __post_init__(self) -> None:
        if not FAINTEST <= self.sigma_min < self.sigma_max <= 1 / FAINTEST:
            raise ConfigError(
                f"sigma_min={self.sigma_min}, sigma_max={self.sigma_max}: give {FAINTEST:g} <= sigma_min < sigma_max <= "
                f"{1 / FAINTEST:g}."
            )
        if self.P_std <= 0 or self.rho <= 0:
            raise ConfigError(f"P_std={self.P_std}, rho={self.rho}: both must be positive.")

    @property
    def clean(self) -> Level:
        return Level(-math.inf, 1.0, 0.0)

    @property
    def ends(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def level(self, sigma: float) -> Level:
        """The level with this standard deviation of noise."""
        return Level(math.log(sigma) / 4, 1.0, float(sigma))

    def at(self, ratio: float) -> Level:
        return self.level(min(ratio, self.sigma_max)) if ratio > 0 else self.clean

    def of(self, t: Tensor) -> Level:
        return Level(t, torch.ones_like(t), (4 * t).exp())

    def draw(self, n: int, rng: torch.Generator | None = None) -> Level:
        u = self._strata(n, rng).clamp(min=1e-9)
        log_sigma = self.P_mean + self.P_std * torch.special.ndtri(u)
        return Level(log_sigma / 4, torch.ones_like(log_sigma), log_sigma.exp())

    def points(self, steps: int, spacing: str) -> list[Level]:
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)  # even in t = ln(sigma) / 4
        return [self.level(math.exp(high + i / max(steps - 1, 1) * (low - high))) for i in range(steps)]


@schedule("flow")
@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """Rectified flow (Liu et al. 2022; Lipman et al. 2022): alpha = 1 - t, sigma = t, t in (0, 1].

    Args:
        logit_std: training draws t = sigmoid(logit_mean + logit_std z) (Esser et al. 2024, Eq. 19); 0 draws uniformly.
        shift: times are moved to t' = shift t / (1 + (shift - 1) t), in training and sampling (Esser et al. 2024, Eq. 23).
        t_min: the last noisy time of the grid "linspace", which is even from 1 on, before it is moved.
    """

    logit_mean: float = 0.0
    logit_std: float = 0.0
    shift: float = 1.0
    t_min: float = 0.001

    spacings = ("trailing", "karras", "linspace")

    def __post_init__(self) -> None:
        if not 0 < self.t_min < 1:
            raise ConfigError(f"t_min={self.t_min}: give a time between 0 and 1.")
        if self.logit_std < 0 or self.shift <= 0:
            raise ConfigError(f"logit_std={self.logit_std}, shift={self.shift}: give logit_std >= 0 and shift > 0.")

    @property
    def clean(self) -> Level:
        return Level(0.0, 1.0, 0.0)

    @property
    def ends(self) -> tuple[float, float]:
        return 0.002, NOISIEST  # the first is about that of t = 0.002

    def level(self, t: float) -> Level:
        """The level of time t in (0, 1]."""
        return Level(t, 1.0 - t, t)

    def at(self, ratio: float) -> Level:
        return self.level(1.0 if math.isinf(ratio) else ratio / (1 + ratio)) if ratio > 0 else self.clean

    def of(self, t: Tensor) -> Level:
        return Level(t, 1 - t, t)

    def _moved(self, t: Any) -> Any:
        """A time, shifted."""
        return self.shift * t / (1 + (self.shift - 1) * t)

    def draw(self, n: int, rng: torch.Generator | None = None) -> Level:
        u = self._strata(n, rng).clamp(min=1e-9)
        t = torch.sigmoid(self.logit_mean + self.logit_std * torch.special.ndtri(u)) if self.logit_std else u
        t = self._moved(t)
        return Level(t, 1 - t, t)

    def points(self, steps: int, spacing: str) -> list[Level]:
        if spacing == "linspace":
            even = [1 + i / max(steps - 1, 1) * (self.t_min - 1) for i in range(steps)]
        else:
            even = [1 - i / steps for i in range(steps)]
        return [self.level(self._moved(t)) for t in even]


@schedule("cosine")
@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """The cosine process in continuous time: alpha = cos(pi t / 2), sigma = sin(pi t / 2), t in (0, 1] (Salimans & Ho 2022).

    Args:
        crash: times are those of Dance Diffusion (Harmonai 2022), in training and sampling: sigma = sin(pi u / 2)^2 for an even
            u, which dwells where there is little noise. Without it t is even.
    """

    crash: bool = False

    spacings = ("trailing", "karras")

    def __post_init__(self) -> None:
        if not isinstance(self.crash, bool):
            raise ConfigError(f"crash={self.crash!r}: give true or false.")

    @property
    def clean(self) -> Level:
        return Level(0.0, 1.0, 0.0)

    @property
    def ends(self) -> tuple[float, float]:
        return 0.002, NOISIEST

    def prior_std(self, level: Level) -> float:
        return 1.0  # data of unit variance keep it at every level

    def level(self, t: float) -> Level:
        """The level of time t in (0, 1]."""
        return Level(t, math.cos(math.pi * t / 2) if t < 1 else 0.0, math.sin(math.pi * t / 2))

    def at(self, ratio: float) -> Level:
        return self.level(2 / math.pi * math.atan(ratio)) if ratio > 0 else self.clean

    def of(self, t: Tensor) -> Level:
        angle = math.pi / 2 * t
        return Level(t, torch.where(t < 1, angle.cos(), 0.0), angle.sin())

    def _moved(self, u: Tensor) -> Tensor:
        """The times t of even ones."""
        if not self.crash:
            return u
        sigma = torch.sin(math.pi / 2 * u) ** 2
        return 2 / math.pi * torch.atan2(sigma, (1 - sigma**2).clamp(min=0).sqrt())

    def draw(self, n: int, rng: torch.Generator | None = None) -> Level:
        return self.of(self._moved(self._strata(n, rng).clamp(min=1e-9)))

    def points(self, steps: int, spacing: str) -> list[Level]:
        even = 1 - torch.arange(steps, dtype=torch.float64) / steps
        return [self.level(t) for t in self._moved(even).tolist()]

"""Diffusion = schedule + prediction type + loss weighting (+ preconditioning): how a net and a process belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from zoo.core.schedule import Level, NetLevel, Schedule
from zoo.errors import ConfigError, ShapeError, one_of

Prediction = Literal["eps", "x0", "v", "flow"]
Weighting = Literal["simple", "min_snr", "edm"]
PREDICTIONS = ("eps", "x0", "v", "flow")
WEIGHTINGS = ("simple", "min_snr", "edm")


class Denoiser(Protocol):
    """Any net, usually an `nn.Module` with this forward: x_t (B,*S) -> a prediction shaped like x_t.

    t (B,) is the schedule's noise coordinate (step index, or ln sigma / 4, or a flow's time), float32 or wider; cond
    {name: (B,...)} holds the conditions, where a row that is not given holds `null_like`: -1 in whole numbers, NaN in
    others; mask (B,N) bool, where samples have sizes of their own, is True for real elements.

    A net with a true attribute `needs_level` receives `level`, too: a `NetLevel` of tensors (B,), which says what x_t
    holds: gain * x_t = alpha x0 + sigma eps.

    A net of a diffusion with `learned_variance` gives two tensors shaped like x_t: (prediction, v). The second one says where
    the variance of a step of DDPM lies: (v + 1) / 2 is 0 at the small one and 1 at the large one, in logarithms.
    """

    def __call__(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]: ...


def like(value: Any, x: Tensor) -> Any:
    """A level's number ready to multiply x: floats stay floats; (B,) float64 becomes (B, 1, ...) of x's dtype."""
    if not isinstance(value, Tensor):
        return value
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))


def to_x0_eps(out: Tensor, x: Tensor, level: Level, prediction: str) -> tuple[Tensor, Tensor]:
    """What a prediction says about the clean sample and the noise, from x = alpha x0 + sigma eps.

    v = alpha eps - sigma x0 (Salimans & Ho 2022, appendix D); flow = eps - x0 (Liu et al. 2022).
    Both hold for any alpha and sigma: v divides by alpha^2 + sigma^2, which is 1 when variance is preserved.
    """
    a, s = like(level.alpha, x), like(level.sigma, x)
    if prediction == "eps":
        return (x - s * out) / a, out
    if prediction == "x0":
        return out, (x - a * out) / s
    if prediction == "v":
        n = a * a + s * s
        return (a * x - s * out) / n, (s * x + a * out) / n
    if prediction == "flow":
        return (x - s * out) / (a + s), (x + a * out) / (a + s)
    raise one_of("prediction", prediction, PREDICTIONS)


def from_x0_eps(x0: Tensor, eps: Tensor, level: Level, prediction: str) -> Tensor:
    """The prediction that a perfect net would make; the inverse of `to_x0_eps`."""
    a, s = like(level.alpha, x0), like(level.sigma, x0)
    if prediction == "eps":
        return eps
    if prediction == "x0":
        return x0
    if prediction == "v":
        v: Tensor = a * eps - s * x0
        return v
    if prediction == "flow":
        return eps - x0
    raise one_of("prediction", prediction, PREDICTIONS)


def x0_gain(level: Level, prediction: str) -> Any:
    """|d x0 / d out|: how an error of the prediction shows in x0. Turns a weight on x0 into one on the prediction."""
    a, s = level.alpha, level.sigma
    if prediction == "eps":
        return s / a
    if prediction == "x0":
        return 1.0
    if prediction == "v":
        return s / (a * a + s * s)
    if prediction == "flow":
        return s / (a + s)
    raise one_of("prediction", prediction, PREDICTIONS)


def dtype_of(net: Any) -> torch.dtype | None:
    """The dtype of a net's weights; None for a function without any."""
    if not isinstance(net, nn.Module):
        return None
    return next((p.dtype for p in net.parameters() if p.is_floating_point()), None)


@dataclass(frozen=True)
class Diffusion:
    """A process and how a net is trained on it.

    Args:
        schedule: the noise levels.
        prediction: what the net outputs: "eps", "x0", "v" or "flow".
        weighting: "simple" (Ho et al. 2020, Eq. 14: squared error of the prediction), "min_snr" (Hang et al. 2023:
            min(SNR, 5) on the error of x0) or "edm" (Karras et al. 2022, table 1: lambda(sigma) on the error of x0).
        sigma_data: standard deviation of the data; used by preconditioning and "edm" weighting.
        precondition: wrap the net as in EDM (Karras et al. 2022, Eq. 7): it sees c_in x and predicts
            (x0 - c_skip x) / c_out. Then `prediction` must be "x0", which is what the wrapped net gives.
        self_condition: the net also receives its last guess of x0, as cond["x0"] (Chen et al. 2022, "Analog bits",
            section 3): NaN where there is none yet, which is half of the rows in training; and as cond["known"], bool and
            shaped like it, which parts of the guess are given, as in in-painting.
        learned_variance: the net has a second output, the variance of DDPM's steps (Nichol & Dhariwal 2021, "Improved
            denoising diffusion probabilistic models", Eq. 15), see `Denoiser` and `zoo.core.samplers.learned_variance`.

    Raises:
        ConfigError: eps prediction on a schedule whose noisiest level has alpha = 0: it does not determine x0.
    """

    schedule: Schedule
    prediction: Prediction = "eps"
    weighting: Weighting = "simple"
    sigma_data: float = 0.5
    precondition: bool = False
    self_condition: bool = False
    learned_variance: bool = False

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise one_of("prediction", self.prediction, PREDICTIONS)
        if self.weighting not in WEIGHTINGS:
            raise one_of("weighting", self.weighting, WEIGHTINGS)
        if self.prediction == "eps" and self.schedule.levels(1)[0].alpha == 0:
            raise ConfigError(
                "eps prediction cannot work where the noisiest level holds no signal (zero terminal SNR, flow): "
                "x0 = (x_t - sigma eps) / 0. Use prediction 'v', 'x0' or 'flow'."
            )
        if self.precondition and self.prediction != "x0":
            raise ConfigError(f"EDM preconditioning predicts x0: set prediction='x0' (got {self.prediction!r}).")
        if not self.sigma_data > 0:
            raise ConfigError(f"sigma_data={self.sigma_data}: the standard deviation of the data must be positive.")

    def q_sample(self, x0: Tensor, level: Level, eps: Tensor) -> Tensor:
        """The forward process: alpha x0 + sigma eps, shaped and typed like x0."""
        x_t: Tensor = like(level.alpha, x0) * x0 + like(level.sigma, x0) * eps
        return x_t

    def denoise(
        self, net: Denoiser, x: Tensor, level: Level, cond: Mapping[str, Tensor], *, mask: Tensor | None = None
    ) -> Tensor:
        """One call of the net with its preconditioning: the prediction, shaped and typed like x (B,*S)."""
        return self.denoise_both(net, x, level, cond, mask=mask)[0]

    def denoise_both(
        self, net: Denoiser, x: Tensor, level: Level, cond: Mapping[str, Tensor], *, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The same, and beside it the share of the large variance (B,*S), of a net that says it; else None."""
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        t = level.t if isinstance(level.t, Tensor) else torch.full((len(x),), float(level.t), dtype=wide)
        t = t.to(device=x.device, dtype=wide)
        if not self.precondition:
            return self.answers(net, x, t, cond, mask=mask)
        # in float64: at sigma 80 and alpha 1 the sum of squares loses half of float32's digits
        a, s, d = level.alpha, level.sigma, self.sigma_data
        n = a * a * d * d + s * s
        c_in = n**-0.5
        c_skip = a * d * d / n
        c_out = s * d * n**-0.5
        out, share = self.answers(net, like(c_in, x) * x, t, cond, mask=mask)
        denoised: Tensor = like(c_skip, x) * x + like(c_out, x) * out
        return denoised, share

    def ask(self, net: Denoiser, x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        """What the net predicts of its own input, typed like x_t. Weights of another dtype receive x_t and cond in theirs."""
        return self.answers(net, x_t, t, cond, mask=mask)[0]

    def answers(
        self, net: Denoiser, x_t: Tensor, t: Tensor, cond: Mapping[str, Tensor], *, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The same, and the share of the large variance that the second output of a net says; None where there is none."""
        dtype = dtype_of(net) or x_t.dtype
        given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in cond.items()}
        further = {"level": self.seen(t)} if getattr(net, "needs_level", False) else {}
        out = net(x_t.to(dtype), t, given, mask=mask, **further)
        many: tuple[Any, ...] = out if isinstance(out, tuple) else (out,)
        wanted = 2 if self.learned_variance else 1
        if len(many) != wanted or not all(isinstance(o, Tensor) and o.shape == x_t.shape for o in many):
            found = " and ".join(f"shape {tuple(o.shape)}" if isinstance(o, Tensor) else f"a {type(o).__name__}" for o in many)
            count = "two tensors" if self.learned_variance else "one tensor"
            why = ", as its diffusion has a learned variance" if self.learned_variance else ""
            raise ShapeError(f"{type(net).__name__} gave {found}; a net gives {count} shaped like x: {tuple(x_t.shape)}{why}.")
        out, *second = (o.to(x_t.dtype) for o in many)
        return out, (second[0] + 1) / 2 if second else None

    def seen(self, t: Tensor) -> NetLevel:
        """The levels of what a net receives at the coordinates t (B,)."""
        level, d = self.schedule.of(t), self.sigma_data
        gain = torch.ones_like(level.alpha)
        if self.precondition:
            gain = (level.alpha * level.alpha * d * d + level.sigma**2).sqrt()
        return NetLevel(level.t, level.alpha, level.sigma, gain)

    def weight(self, level: Level) -> Any:
        """Weight of a level's squared error of the prediction: 1, or a weight on x0's error times the gain squared."""
        if self.weighting == "simple":
            return torch.ones_like(level.alpha) if isinstance(level.alpha, Tensor) else 1.0
        gain, snr = x0_gain(level, self.prediction), level.snr
        if self.weighting == "min_snr":
            capped = snr.clamp(max=5.0) if isinstance(snr, Tensor) else min(snr, 5.0)
            return capped * gain * gain
        return (1 / self.sigma_data**2 + snr) * gain * gain

"""Diffusion = schedule + prediction type + loss weighting (+ preconditioning): `q_sample`, `loss`, `predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from zoo.core.schedule import Level, Schedule
from zoo.errors import ConfigError, ShapeError, one_of

Prediction = Literal["eps", "x0", "v", "flow"]
Weighting = Literal["simple", "min_snr", "edm"]
PREDICTIONS = ("eps", "x0", "v", "flow")
WEIGHTINGS = ("simple", "min_snr", "edm")
#: how many times noisier than x_t, at most, is what a net guesses x0 from in training, where it hears its guess
FURTHER = 2.0


class Denoiser(Protocol):
    """Any net: x_t (B,*S), t (B,), cond {name: (B,...)} -> a prediction shaped like x_t. See `zoo.contract.domain.Denoiser`."""

    def __call__(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, drop: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor: ...


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
    gains = {"eps": s / a if prediction == "eps" else 1, "x0": 1.0, "v": s / (a * a + s * s), "flow": s / (a + s)}
    return gains[prediction]


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
        self_condition: the net also hears its last guess of x0, as cond["x0"] (Chen et al. 2022, "Analog bits", section
            3): NaN where there is none yet, which is half of the rows in training; and as cond["known"], bool and shaped
            like it, which parts of the guess are given, as in in-painting.

    Raises:
        ConfigError: eps prediction on a schedule whose noisiest level has alpha = 0: x0 cannot be had from it.
    """

    schedule: Schedule
    prediction: Prediction = "eps"
    weighting: Weighting = "simple"
    sigma_data: float = 0.5
    precondition: bool = False
    self_condition: bool = False

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
        self,
        denoiser: Denoiser,
        x: Tensor,
        level: Level,
        cond: dict[str, Tensor],
        *,
        drop: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """One call of the net with its preconditioning: the prediction, shaped like x (B,*S)."""
        t = level.t if isinstance(level.t, Tensor) else torch.full((len(x),), float(level.t))
        t = t.to(device=x.device, dtype=x.dtype)
        if not self.precondition:
            return denoiser(x, t, cond, drop=drop, mask=mask)
        # in float64: at sigma 80 and alpha 1 the sum of squares loses half of float32's digits
        a, s, d = level.alpha, level.sigma, self.sigma_data
        n = a * a * d * d + s * s
        c_in, c_skip, c_out = n**-0.5, a * d * d / n, s * d * n**-0.5
        out = denoiser(like(c_in, x) * x, t, cond, drop=drop, mask=mask)
        denoised: Tensor = like(c_skip, x) * x + like(c_out, x) * out
        return denoised

    def weight(self, level: Level) -> Any:
        """Weight of a level's squared error of the prediction: 1, or a weight on x0's error times the gain squared."""
        if self.weighting == "simple":
            return level.alpha * 0 + 1.0
        gain = x0_gain(level, self.prediction)
        snr = level.snr
        if self.weighting == "min_snr":
            return (snr.clamp(max=5.0) if isinstance(snr, Tensor) else min(snr, 5.0)) * gain * gain
        return (1 / self.sigma_data**2 + snr) * gain * gain

    def loss(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        cond: dict[str, Tensor],
        *,
        generator: torch.Generator | None = None,
        drop_rate: float = 0.0,
        mask: Tensor | None = None,
        project: Any = None,
        auxiliary: Any = None,
        hint: Any = None,
    ) -> Tensor:
        """Mean weighted squared error of the prediction over a batch: a scalar.

        Args:
            x0: clean samples (B,*S).
            cond: conditions {name: (B,...)}.
            generator: CPU generator of levels, noise and dropped conditions; the same state gives the same loss.
            drop_rate: probability of replacing a sample's conditions by the null (Ho & Salimans 2022, Algorithm 1).
            mask: (B,N) bool, True where S = (N, ...) is real; the mean divides by the number of real elements.
            project: the codec's linear projector, applied to the noise.
            auxiliary: the codec's further loss, a scalar from (guess of x0, x0, level, mask), which is added.
            hint: what a net that conditions itself hears for its guess: (guess of x0, x0, mask, generator) -> (guess, known),
                both (b,*S), some rows with true parts in it where `known` is True, as in-painting has them.
        """
        B = len(x0)
        if mask is not None and mask.shape != x0.shape[:2]:
            raise ShapeError(f"mask {tuple(mask.shape)} must be the first two axes of x0 {tuple(x0.shape)}.")
        level = self.schedule.draw(B, generator)
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        drop = (torch.rand(B, generator=generator) < drop_rate).to(x0.device)
        if project is not None:
            eps = project(eps, mask)
        x_t = self.q_sample(x0, level, eps)
        if self.self_condition:
            guess = self._first_guesses(denoiser, x_t, level, cond, drop, mask, project, generator)
            known = torch.zeros_like(guess, dtype=torch.bool)
            if hint is not None:
                n = self._guessed(B)
                guess[:n], known[:n] = hint(guess[:n], x0[:n], None if mask is None else mask[:n], generator)
            cond = cond | {"x0": guess, "known": known}
        out = self.denoise(denoiser, x_t, level, cond, drop=drop, mask=mask)
        further = 0.0
        if auxiliary is not None:
            further = auxiliary(to_x0_eps(out.to(x0), x_t, level, self.prediction)[0], x0, level, mask)
        error: Tensor = (out.to(x0.dtype) - from_x0_eps(x0, eps, level, self.prediction)) ** 2
        error = like(self.weight(level), x0) * error
        if mask is None:
            return error.mean() + further
        keep = mask.reshape(*mask.shape, *[1] * (x0.ndim - 2)).expand_as(error)
        return torch.where(keep, error, error.new_zeros(())).sum() / keep.sum() + further

    @staticmethod
    def _guessed(rows: int) -> int:
        """How many rows of a batch, the first ones, have a guess."""
        return (rows + 1) // 2

    @torch.no_grad()
    def _first_guesses(
        self,
        denoiser: Denoiser,
        x: Tensor,
        level: Level,
        cond: dict[str, Tensor],
        drop: Tensor,
        mask: Tensor | None,
        project: Any,
        generator: torch.Generator | None,
    ) -> Tensor:
        """What the net says of x0 without a guess, for the first half of the rows; NaN for the others (B,*S).

        It is said of x with up to FURTHER times the noise: in sampling, too, a guess comes from a noisier step. Of x itself
        it would know all that x does, and the net would learn to repeat it.
        """
        n = self._guessed(len(x))
        wanted = level.ratio[:n] * (1 + (FURTHER - 1) * torch.rand(n, generator=generator, dtype=torch.float64))
        found = [self.schedule.at(float(r)) for r in wanted]
        t, alpha, sigma = (torch.tensor([getattr(a, k) for a in found], dtype=torch.float64) for k in ("t", "alpha", "sigma"))
        fits = sigma / alpha > level.ratio[:n]  # past the schedule's end a row keeps its own level
        part = Level(*(torch.where(fits, a, b[:n]) for a, b in ((t, level.t), (alpha, level.alpha), (sigma, level.sigma))))
        up = part.alpha / level.alpha[:n]
        noise = torch.randn(x[:n].shape, generator=generator, dtype=x.dtype).to(x.device)
        noise = noise if project is None else project(noise, None if mask is None else mask[:n])
        more = (part.sigma**2 - (up * level.sigma[:n]) ** 2).clamp(min=0).sqrt()
        noisier = like(up, x) * x[:n] + like(more, x) * noise
        own = {k: v[:n] for k, v in cond.items()}
        out = self.denoise(denoiser, noisier, part, own, drop=drop[:n], mask=None if mask is None else mask[:n])
        guesses = torch.full_like(x, torch.nan)
        guesses[:n] = to_x0_eps(out.to(x), noisier, part, self.prediction)[0]
        return guesses

    def predict(self, out: Tensor, x: Tensor, level: Level, clip: float | None = None) -> tuple[Tensor, Tensor]:
        """(x0, eps) from a (guided) prediction at x. With `clip`, x0 is clamped to [-clip, clip] and eps re-derived."""
        x0, eps = to_x0_eps(out, x, level, self.prediction)
        if clip is not None:
            x0 = x0.clamp(-clip, clip)
            eps = (x - level.alpha * x0) / level.sigma
        return x0, eps

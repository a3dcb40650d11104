"""Energies and classifiers as steers: samples of p(x0) exp(-w E(x0)), and of p(x0) p(label | x0)^w."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.correction import INTERVAL, Correction, Setting, checked_energy
from zoo.core.schedule import Level
from zoo.errors import ConfigError, ShapeError, one_of
from zoo.values import plain


class Energy(Correction):
    """What `energy` makes, see there."""

    def __init__(
        self,
        loss: Callable[[Tensor], Tensor],
        weight: float,
        interval: tuple[float, float],
        through_net: bool,
        units: str,
    ) -> None:
        super().__init__(weight, interval, through_net, units)
        if not callable(loss):
            raise ConfigError(f"energy: {loss!r}; give a function of x0 (B,*S) that makes one number a sample, (B,).")
        self.loss = loss

    def correction(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        return -self.scale(level) * self.slope(self.total(x0), x, x0)

    def total(self, x0: Tensor) -> Tensor:
        """The energies of all samples together, each of its own sample alone."""
        if len(x0) > 1:
            found = self.setting.each(lambda rows: self._of(rows), x0)
            if found.shape == (len(x0),):
                return found.sum()
        # a sum or a mean over the batch: each sample's energy would depend on how many there are
        return torch.cat([self._of(self.setting.own(x0, i)).reshape(1) for i in range(len(x0))]).sum()

    def _of(self, rows: Tensor) -> Tensor:
        found = checked_energy(self.loss(self.seen(rows)), self.loss, len(rows))
        return found.reshape(1) if len(rows) == 1 else found


def energy(
    loss: Callable[[Tensor], Tensor],
    weight: float = 1.0,
    *,
    interval: tuple[float, float] = INTERVAL,
    through_net: bool = True,
    units: str = "domain",
) -> Energy:
    """Samples of about p(x0) exp(-weight loss(x0)): any differentiable wish (loss-guided diffusion, Song et al. 2023b).

    The slope of log E[exp(-w loss(x0)) | x] is taken as that of -w loss(E[x0 | x]) (diffusion posterior sampling, Chung et al.
    2022, Theorem 1), through the net, so that with Tweedie's formula

        x0 <- x0 - w sigma^2 / alpha  d loss(x0(x)) / dx

    which is exact for Gaussian data and a linear loss. For a square of what is measured, `measure` also knows how sure the net
    is, and needs no weight. DPS itself is a loss of (y - A x0)^2 / (2 noise^2) here.

    Args:
        loss: x0 (B,*S) in the domain's units -> (B,), or a scalar, which is then asked of each sample by itself. Samples that
            have sizes of their own come without padding.
        weight: w, at least 0.
        interval: (lo, hi): acts where lo < sigma / alpha <= hi; by default up to 80: above that x shows nothing.
        through_net: False: the slope is that in x0, times the variance of x0 if its elements were independent, s^2 sigma^2 /
            (alpha^2 s^2 + sigma^2): cheaper by the call backwards, without what the net knows of how elements hang together.
        units: "domain": of a decoded sample, where decoding has a gradient, see `Codec.in_units`; "encoded": of x0 as it is.

    Raises:
        ConfigError: an invalid argument; when it samples, a loss without a gradient, or a domain whose decoding has none.
        ShapeError: when it samples, a loss of another shape.
    """
    return Energy(loss, weight, interval, through_net, units)


class Classified(Energy):
    """What `classifier` makes, see there."""

    def __init__(self, judge: Any, label: Any, weight: float, interval: tuple[float, float], through_net: bool, units: str):
        if not callable(judge):
            raise ConfigError(
                f"classifier: {judge!r}; give a judge, or any function of x0 (B,*S) that makes logits (B, classes)."
            )
        super().__init__(self.surprise, weight, interval, through_net, units)
        if isinstance(judge, nn.Module) and judge.training:
            raise ConfigError("classifier: the judge is in training mode, where it is random: call judge.eval() first.")
        names = getattr(judge, "class_names", None)
        self.judge, self.names, self.index = judge, names, index_of(label, names)

    def bound(self, setting: Setting) -> Classified:
        found = super().bound(setting)
        found.loss = found.surprise  # its own, not that of the one it is a copy of
        return found

    def surprise(self, x0: Tensor) -> Tensor:
        """-log p(label | x0), (B,)."""
        own = next((p for p in self.judge.parameters()), None) if isinstance(self.judge, nn.Module) else None
        if own is not None and own.device != x0.device:
            raise ConfigError(
                f"classifier: the judge is on {own.device}, the samples on {x0.device}: judge.to({x0.device.type!r})."
            )
        logits = self.judge(x0 if own is None else x0.to(own.dtype))
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x0):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ShapeError(f"classifier: the judge gave {found} for {tuple(x0.shape)}; logits (B, classes) are needed.")
        if not self.index < logits.shape[1]:
            raise ConfigError(f"classifier: label={self.index} of a judge with {logits.shape[1]} classes.")
        return -logits.log_softmax(1)[:, self.index].to(x0.dtype)


def index_of(label: Any, names: Sequence[str] | None) -> int:
    """The number of a class by its name or its number."""
    found = plain(label)
    if isinstance(found, str):
        if not names:
            raise ConfigError(f"classifier: label={label!r} of a judge that names no classes (class_names): give its number.")
        for i, name in enumerate(names):
            if name.lower() == found.lower():
                return i
        raise one_of("label of the judge", label, names)
    least = isinstance(found, int) and not isinstance(found, bool) and found >= 0
    if not least or (names and found >= len(names)):
        raise ConfigError(f"classifier: label={label!r}; give the name of a class, or its number from 0.")
    return int(found)


def classifier(
    judge: Any,
    label: Any,
    weight: float = 1.0,
    *,
    interval: tuple[float, float] = INTERVAL,
    through_net: bool = True,
    units: str = "domain",
) -> Classified:
    """Samples of about p(x0) p(label | x0)^weight by a judge (Dhariwal & Nichol 2021, Eq. 14).

        eps <- eps - w sigma d log p(label | x) / dx,   with p(label | x) taken as the judge's of the guess, p(label | x0(x))

    The paper trains its classifier on noisy x; a judge of clean samples sees the net's guess of x0 in its place, as in
    universal guidance (Bansal et al. 2023, section 3).

    Args:
        judge: samples (B,*S) -> logits (B, classes), such as a judge of `zoo.evaluation`, in evaluation mode.
        label: the name of a class of the judge's `class_names`, or its number.
        weight, interval, through_net, units: as of `energy`.

    Raises:
        ConfigError: an unknown label, a judge in training mode or on another device; and as `energy`.
        ShapeError: when it samples, what is no logits.
    """
    return Classified(judge, label, weight, interval, through_net, units)

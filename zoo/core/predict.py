"""The prediction that samplers see, as a stack of wrappers: net -> guidance -> (x0, eps) -> clip -> project -> steers.

    network = Network(diffusion, net, cond, mask=mask)
    predict = believed(guided(network, Guidance(0.5)), diffusion)
    predict = projected(clipped(predict, 1.0), project)
    predict = steered(predict, [hold(known, where)])

Each is a function of (x, level); a new one needs no change of the others. `assemble` is the usual stack.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.core.diffusion import Denoiser, Diffusion, to_x0_eps
from zoo.core.guidance import Guidance, null_like
from zoo.core.schedule import Level
from zoo.errors import ConfigError, ShapeError

#: x (B,*S) at a level -> the prediction of a net, shaped like x
Output = Callable[[Tensor, Level], Tensor]
#: x (B,*S) at a level -> what is believed of the clean sample and of the noise: (x0, eps), both shaped like x
Predict = Callable[[Tensor, Level], tuple[Tensor, Tensor]]
#: a linear projector of x0 and of noise
Project = Callable[[Tensor], Tensor]
#: what a steer is: it wraps a prediction
Steering = Callable[[Predict], Predict]


@dataclass
class Memory:
    """What a net that conditions itself is told of the call before.

    Attributes:
        guess: the x0 (B,*S) that the sampler saw, steers included; None before the first call.
        known: bool, broadcast to (B,*S): which parts of it are given; None for none.
        below: the guess is told where sigma / alpha is at most this.
    """

    guess: Tensor | None = None
    known: Tensor | None = None
    below: float = math.inf

    def take(self, rows: Tensor) -> None:
        """Go on with these rows (K,) of the batch alone, in their order."""
        if self.guess is not None:
            self.guess = self.guess[rows]

    def conditions(self, x: Tensor, level: Level) -> dict[str, Tensor]:
        """The two further conditions of the net, shaped like x: "x0" and "known"."""
        if self.guess is None or level.ratio > self.below:
            return {"x0": null_like(x), "known": torch.zeros_like(x, dtype=torch.bool)}
        known = torch.zeros_like(x, dtype=torch.bool) if self.known is None else self.known.to(x.device).expand_as(x)
        return {"x0": self.guess, "known": known}


class Network:
    """A net with the conditions of a batch: (x, level) -> prediction (B,*S). The innermost part of a stack.

    Args:
        cond: {name: (B,...)}; what is not given is as `null_like` says.
        mask: (B,N) bool for the net, where samples have sizes of their own.
        real: the same, ready to broadcast to (B,*S); None for all elements.
        memory: what a net that conditions itself is told; None for other nets.
        half: the dtype in which the net alone multiplies (autocast); None: that of its weights. x, t and what is made of
            the prediction stay as they are.

    Attributes:
        share: (B,*S), what a net with a learned variance said of it in the last call, under its conditions; else None.
        told: functions of x (B,*S) and its level that give further conditions {name: (B,...)}, of which a net receives those
            that its attribute `hears` names.
    """

    def __init__(
        self,
        diffusion: Diffusion,
        net: Denoiser,
        cond: Mapping[str, Tensor],
        *,
        mask: Tensor | None = None,
        real: Tensor | None = None,
        memory: Memory | None = None,
        half: torch.dtype | None = None,
    ) -> None:
        self.diffusion, self.net, self.cond = diffusion, net, dict(cond)
        self.mask, self.real, self.memory, self.half = mask, real, memory, half
        self.share: Tensor | None = None
        self.told: list[Callable[[Tensor, Level], Mapping[str, Tensor]]] = []

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        return self._asked(x, level, self.cond | self._own(x, level), self.mask)

    def _own(self, x: Tensor, level: Level) -> dict[str, Tensor]:
        """What the net is told beside its conditions: of its last guess, and by steers."""
        found, hears = {} if self.memory is None else self.memory.conditions(x, level), getattr(self.net, "hears", ())
        for tell in self.told if hears else ():
            found |= {k: v for k, v in tell(x, level).items() if k in hears}
        return found

    def _asked(self, x: Tensor, level: Level, cond: Mapping[str, Tensor], mask: Tensor | None) -> Tensor:
        """One call of the net, in its precision."""
        with nullcontext() if self.half is None else torch.autocast(x.device.type, self.half):
            out, share = self.diffusion.denoise_both(self.net, x, level, cond, mask=mask)
        self.share = None if share is None else share.detach()
        return out

    def learned(self) -> Tensor:
        """What the last call said of the variance: of guided predictions that under all conditions.

        Raises:
            ConfigError: the net says nothing of it.
        """
        if self.share is None:
            raise ConfigError("variance='learned': this model's net says no variance. Give 'small' or 'large'.")
        return self.share

    def under(self, conds: Sequence[Mapping[str, Tensor]]) -> Callable[[Tensor, Level], list[Tensor]]:
        """The predictions of the same x under several sets of conditions, from one call of the net."""
        n = len(conds)
        cond = {k: torch.cat([c[k] for c in conds]) for k in self.cond}
        mask = None if self.mask is None else self.mask.repeat(n, *[1] * (self.mask.ndim - 1))

        def outputs(x: Tensor, level: Level) -> list[Tensor]:
            given = cond | {k: torch.cat([v] * n) for k, v in self._own(x, level).items()}
            out = self._asked(torch.cat([x] * n), level, given, mask)
            self.share = None if self.share is None else self.share[: len(x)]
            return list(out.chunk(n))

        return outputs


def guided(network: Network, guidance: Guidance, negative: Mapping[str, Tensor] | None = None) -> Output:
    """The net's prediction under guidance. Where guidance is off, only the conditional one is computed.

    Args:
        negative: {name: (B,...)} what the predictions without a condition are told in its place, so that guidance leads
            away from it; None for nothing.
    """
    null = {k: null_like(v) for k, v in network.cond.items()} | dict(negative or {})
    asked: list[Mapping[str, Tensor]] = [network.cond]
    if guidance.weight:
        asked.append(null)
    asked += [network.cond | {k: null[k]} for k in guidance.each]
    together = network.under(asked)

    def output(x: Tensor, level: Level) -> Tensor:
        if not guidance.active(level):
            return network(x, level)
        cond, *others = together(x, level)
        without = others.pop(0) if guidance.weight else None
        return guidance.combine(cond, without, *others, real=network.real)

    return output


def believed(output: Output, diffusion: Diffusion) -> Predict:
    """What a net's output says of x0 and eps."""

    def predict(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return to_x0_eps(output(x, level), x, level, diffusion.prediction)

    return predict


def noise_of(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """The noise that belongs to a clean sample x0 at x: (x - alpha x0) / sigma."""
    eps: Tensor = (x - level.alpha * x0) / level.sigma
    return eps


class Clamp(torch.autograd.Function):
    """x clamped to [-bound, bound], through which gradients pass as if it were not.

    A steer asks with them where x0 should move: an element at the bound may still move inwards, and the posterior
    covariance of x0 stays that of the net, symmetric.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        return x.clamp(-bound, bound)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


def clipped(predict: Predict, bound: float) -> Predict:
    """x0 clamped to [-bound, bound], and eps derived again from it."""

    def clamped(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        x0: Tensor = Clamp.apply(predict(x, level)[0], bound)
        return x0, noise_of(x, x0, level)

    return clamped


def projected(predict: Predict, project: Project) -> Predict:
    """x0 and eps through a linear projector, such as that of a codec."""

    def within(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        x0, eps = predict(x, level)
        return project(x0), project(eps)

    return within


def steered(predict: Predict, steers: Sequence[Steering]) -> Predict:
    """A prediction with steers around it, the first one innermost.

    Raises:
        ConfigError: a steer that does not take a prediction, or gives none; when it predicts, one that gives no pair of
            tensors.
        ShapeError: when it predicts, one whose tensors are not shaped like x.
    """
    for steer in steers:
        if not takes(steer, 1):
            raise ConfigError(
                f"the steer {steer!r} does not take a prediction; give steer(predict) -> predict, see zoo.core.steer."
            )
        inner, predict = predict, steer(predict)
        if not callable(predict) or not (predict is inner or takes(predict, 2)):
            raise ConfigError(
                f"the steer {steer!r} gave {predict!r}; a steer gives a prediction (x, level) -> (x0, eps), see zoo.core.steer."
            )
        predict = looked_at(predict, steer)
    return predict


def takes(call: Callable[..., object], n: int) -> bool:
    """Whether a function takes n arguments; True where nobody can say."""
    try:
        inspect.signature(call).bind(*range(n))
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def looked_at(predict: Predict, steer: Steering) -> Predict:
    """A steered prediction, of which a sampler would broadcast or cut what is not a pair of tensors like x."""

    def checked(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        found = predict(x, level)
        if not isinstance(found, (tuple, list)) or len(found) != 2 or not all(isinstance(f, Tensor) for f in found):
            given = f"{len(found)} values" if isinstance(found, (tuple, list)) and len(found) != 2 else _kinds(found)
            raise ConfigError(f"the steer {steer!r} predicted {given}; give two tensors, (x0, eps).")
        x0, eps = found
        for name, value in (("x0", x0), ("eps", eps)):
            if value.shape != x.shape:
                raise ShapeError(
                    f"the steer {steer!r} gave {name} {tuple(value.shape)} for x {tuple(x.shape)}; they must be alike."
                )
            if not value.is_floating_point():
                raise ConfigError(f"the steer {steer!r} gave {name} of {value.dtype}; give floating-point numbers like x.")
        return x0, eps

    return checked


def _kinds(found: object) -> str:
    if isinstance(found, (tuple, list)):
        return ", ".join(type(f).__name__ for f in found)
    return f"a {type(found).__name__}"


def remembered(predict: Predict, memory: Memory) -> Predict:
    """A prediction whose x0 is kept for a net that conditions itself. The outermost part of a stack."""

    def kept(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        x0, eps = predict(x, level)
        memory.guess = x0.detach()
        return x0, eps

    return kept


def known_parts(steers: Sequence[Steering]) -> Tensor | None:
    """Which parts the steers hold for certain, bool, broadcast to (B,*S); None where none of them does."""
    found: Tensor | None = None
    for steer in steers:
        known = getattr(steer, "known", None)
        if known is not None:
            found = known if found is None else found | known
    return found


def assemble(
    network: Network,
    *,
    guidance: Guidance | None = None,
    negative: Mapping[str, Tensor] | None = None,
    clip: float | None = None,
    project: Project | None = None,
    steers: Sequence[Steering] = (),
) -> Predict:
    """The usual stack around a net.

    Args:
        guidance: None for plain conditional sampling.
        negative: what guidance leads away from, see `guided`.
        clip: bound of x0; None for no clipping.
        project: linear projector of x0 and eps; None for the identity.
        steers: what pushes the prediction, the first one innermost, see `zoo.core.steer`.
    """
    predict = believed(guided(network, guidance or Guidance(), negative), network.diffusion)
    if clip is not None:
        predict = clipped(predict, clip)
    if project is not None:
        predict = projected(predict, project)
    predict = steered(predict, steers)
    network.told = [steer.told for steer in steers if hasattr(steer, "told")]
    if network.memory is None:
        return predict
    network.memory.known = known_parts(steers)
    return remembered(predict, network.memory)

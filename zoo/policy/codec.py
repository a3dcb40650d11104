"""Between actions and observations in the robot's units and what the net sees: by default [-1, 1] over the data's range."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.core.likelihood import Units
from zoo.errors import CheckpointError, ConfigError, DataError, ShapeError, brief, one_of
from zoo.policy.actions import Actions
from zoo.policy.data import Episodes
from zoo.values import number, plain, several

#: an observation is far outside where it lies this many half widths of the training range from its middle
FAR = 2.0
#: a number lies outside the training range where it is this many half widths from its middle
OUTSIDE = 1.1
#: it is too small where it lies outside, and no number of it is larger than this share of the training data's
SMALL = 0.1
#: numbers near zero, or a spread, below this share of half the training range say nothing to the net
NOTHING = 0.01
#: dimensions that are named in a message
NAMED = 5
#: how numbers are scaled: [-1, 1] over their range, mean 0 and deviation 1, or not at all
NORMS = ("min_max", "mean_std", "identity")
#: channels of a picture, and how far rounding may take a colour out of [0, 1]
RGB, ROUNDED = 3, 1e-3
#: a deviation is at least so much where numbers are divided by it
LEAST_STD = 1e-8


class PolicyCodec(Codec):
    """Chunks of actions (horizon, Da), and windows of observations (n_obs, Do).

    Args:
        horizon: steps of a chunk.
        n_obs: observations that a chunk starts from.
        executed: steps of a chunk that are carried out before the next one, from index n_obs - 1.
        observation_names, action_names, unit, rate: what the numbers are, see `zoo.policy.data.Robot`.
        keys: where observations come as dictionaries, their parts in order, e.g. those of a Gymnasium environment.
        action_norm, observation_norm: how numbers are scaled for the net, one of `NORMS` for all of them, or one for each:
            "min_max" takes the training data's range to [-1, 1], "mean_std" their mean to 0 and their deviation to 1 (the
            buffers `*_mean` and `*_std` are there only then), "identity" leaves them.
        constant: what a number that never moves in the data is to the net under "min_max".
        clip: whether actions outside the training data's range are moved to its edge.
        cameras: (name, height, width) of each camera's pictures, which an observation then has beside its numbers: a row of
            an observation holds them behind those, flat, the channels first.
        picture_norm: how colours in [0, 1] are scaled, one word for all cameras, or one for each.

    A range whose low end lies above its high end is one that is not known, as of other people's models: nothing is clipped
    to it, and no observation is doubted for it.

    Raises:
        ConfigError: sizes that do not fit together, or another norm.
    """

    axes = ("step", "action")
    action_low: Tensor
    action_high: Tensor
    observation_low: Tensor
    observation_high: Tensor

    def __init__(
        self,
        horizon: int = 16,
        n_obs: int = 2,
        executed: int = 8,
        observation_names: Sequence[str] = (),
        action_names: Sequence[str] = (),
        unit: str = "",
        rate: float | None = None,
        keys: Sequence[str] = (),
        action_norm: str | Sequence[str] = "min_max",
        observation_norm: str | Sequence[str] = "min_max",
        constant: float = 0.0,
        clip: bool = True,
        cameras: Sequence[Sequence[Any]] = (),
        picture_norm: str | Sequence[str] = "identity",
    ) -> None:
        super().__init__()
        horizon, n_obs, executed, rate = map(plain, (horizon, n_obs, executed, rate))
        if min(horizon, n_obs, executed) < 1 or n_obs - 1 + executed > horizon:
            raise ConfigError(
                f"policy codec: horizon={horizon}, n_obs={n_obs}, executed={executed}; give whole numbers of at least 1 with "
                "n_obs - 1 + executed <= horizon."
            )
        if not action_names or not observation_names:
            raise ConfigError("policy codec: name the dimensions of the action and of the observation.")
        if rate is not None and not rate > 0:
            raise ConfigError(f"policy codec: rate={rate}; give steps a second, above 0.")
        self.horizon, self.n_obs, self.executed = horizon, n_obs, executed
        self.observation_names, self.action_names = tuple(observation_names), tuple(action_names)
        self.unit, self.rate, self.keys = unit, rate, tuple(keys)
        self.shape = (horizon, len(self.action_names))
        self.norms = {
            "action": _norms("action_norm", action_norm, len(self.action_names)),
            "observation": _norms("observation_norm", observation_norm, len(self.observation_names)),
        }
        self.constant, self.clip = number(constant, "constant"), bool(plain(clip))
        self.cameras = _cameras(cameras, self.keys)
        if self.cameras:  # one for each channel
            found = _norms("picture_norm", picture_norm, len(self.cameras))
            self.norms["picture"] = tuple(norm for norm in found for _ in range(RGB))
        # empty ranges stand for statistics that were never fitted
        for what, norms in self.norms.items():
            self.register_buffer(f"{what}_low", torch.zeros(len(norms)))
            self.register_buffer(f"{what}_high", torch.zeros(len(norms)))
            if "mean_std" in norms:
                self.register_buffer(f"{what}_mean", torch.zeros(len(norms)))
                self.register_buffer(f"{what}_std", torch.ones(len(norms)))

    def fit(self, dataset: Dataset) -> None:
        """The range of every dimension over all steps of the training episodes; where it counts, mean and deviation, too."""
        if not isinstance(dataset, Episodes):
            raise ConfigError(f"a policy learns from episodes, not from {type(dataset).__name__}.")
        check_recorded(self.cameras)
        for what, index in (("observation", 0), ("action", 1)):
            rows = np.concatenate([episode[index] for episode in dataset.episodes])
            getattr(self, f"{what}_low").copy_(torch.from_numpy(rows.min(0)))
            getattr(self, f"{what}_high").copy_(torch.from_numpy(rows.max(0)))
            if "mean_std" in self.norms[what]:
                wide = rows.astype(np.float64)
                getattr(self, f"{what}_mean").copy_(torch.from_numpy(wide.mean(0)))
                getattr(self, f"{what}_std").copy_(torch.from_numpy(wide.std(0)))
        if not self._fitted:
            raise DataError("the demonstrations are zeros throughout: there is nothing to learn from them.")

    def continued(self, before: Codec) -> list[str]:
        """The range of each dimension of the same robot, where the new data lie in it and fill a tenth of it or more.

        Others keep the new data's range: what lies outside of a range is clipped, and what fills none of it is not seen.
        """
        if not isinstance(before, PolicyCodec):
            return []
        taken = []
        for what in ("action", "observation"):
            same = getattr(self, f"{what}_names") == getattr(before, f"{what}_names") and self.unit == before.unit
            if not same or not before._fitted or self.norms[what] != before.norms[what]:
                continue
            low, high = getattr(self, f"{what}_low"), getattr(self, f"{what}_high")
            first, last = getattr(before, f"{what}_low").to(low), getattr(before, f"{what}_high").to(high)
            rim = 1e-3 * (last - first)
            holds = (low >= first - rim) & (high <= last + rim) & (high > low) & (high - low >= SMALL * (last - first))
            low.copy_(torch.where(holds, first, low))
            high.copy_(torch.where(holds, last, high))
            if "mean_std" in self.norms[what]:
                for name in (f"{what}_mean", f"{what}_std"):
                    own = getattr(self, name)
                    own.copy_(torch.where(holds, getattr(before, name).to(own), own))
            if holds.all():
                taken += [f"{what}_low", f"{what}_high"]
            elif holds.any():
                names = [n for n, kept in zip(getattr(self, f"{what}_names"), holds.tolist(), strict=True) if kept]
                taken.append(f"{what} range of {', '.join(names)}")
        return taken

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PolicyCodec:
        """Moves to another device; the ranges stay float32 in a model of any dtype.

        In bfloat16 an edge of 490 pixels would become 488 or 492, and every action with it.
        """
        kept = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            if not buffer.is_meta:
                setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    @property
    def _fitted(self) -> bool:
        """Whether there are statistics: without any, every range is 0..0."""
        return any(bool(getattr(self, f"{what}_{end}").any()) for what in self.norms for end in ("low", "high"))

    def check_fitted(self) -> None:
        """Raise a CheckpointError unless there are statistics."""
        if not self._fitted:
            raise CheckpointError("this policy has no statistics of its training data: train it, or load a trained one.")

    def _is(self, what: str, norm: str) -> Tensor:
        """Which numbers are scaled so (D,), bool."""
        return torch.tensor([n == norm for n in self.norms[what]], device=getattr(self, f"{what}_low").device)

    def _range(self, what: str) -> tuple[Tensor, Tensor]:
        """(middle, half width) of a range, float32; 1 for the width of a dimension that never moves or is not known."""
        self.check_fitted()
        low, high = getattr(self, f"{what}_low").float(), getattr(self, f"{what}_high").float()
        half = (high - low) / 2
        return (low + high) / 2, torch.where(half > 0, half, torch.ones_like(half))

    def _affine(self, what: str) -> tuple[Tensor, Tensor]:
        """(shift, scale), float32: numbers are shift + scale times what the net sees, but for `_still`."""
        shift, scale = self._range(what)
        if "mean_std" in self.norms[what]:
            spread = self._is(what, "mean_std")
            shift = torch.where(spread, getattr(self, f"{what}_mean").float(), shift)
            scale = torch.where(spread, getattr(self, f"{what}_std").float(), scale)
        if "identity" in self.norms[what]:
            bare = self._is(what, "identity")
            shift, scale = torch.where(bare, 0.0, shift), torch.where(bare, 1.0, scale)
        return shift, scale

    def _divisor(self, what: str) -> tuple[Tensor, Tensor]:
        """`_affine` to divide by: a deviation of 0 has no inverse."""
        shift, scale = self._affine(what)
        if "mean_std" in self.norms[what]:
            scale = torch.where(self._is(what, "mean_std"), scale + LEAST_STD, scale)
        return shift, scale

    def _still(self, what: str) -> Tensor:
        """What is added to each number as the net sees it (D,): `constant` where it never moves.

        Not a part of the shift: beside a large number it would be rounded.
        """
        still = self._is(what, "min_max") & (getattr(self, f"{what}_low") == getattr(self, f"{what}_high"))
        return torch.where(still, self.constant, 0.0)

    def _scaled(self, what: str, array: Tensor) -> Tensor:
        """Numbers (..., D) as the net sees them, on their device."""
        shift, scale = (r.to(array.device) for r in self._divisor(what))
        found = (array - shift) / scale
        return found + self._still(what).to(found) if self.constant else found

    def _unscaled(self, what: str, x: Tensor) -> Tensor:
        """The way back of `_scaled`, with gradients."""
        shift, scale = self._affine(what)
        x = x - self._still(what).to(x) if self.constant else x
        return x * scale.to(x) + shift.to(x)

    def _moves(self) -> tuple[Tensor, Tensor]:
        """(which observed numbers have a range that is known, which of them move in the data), on the CPU."""
        low, high = self.observation_low.cpu(), self.observation_high.cpu()
        return high >= low, high > low

    def places(self, array: Tensor) -> Tensor:
        """Where observations (..., Do) lie in the training data's range, on the CPU: -1 and 1 are its ends.

        Of rows with pictures their numbers, as everywhere where observations are doubted.
        """
        middle, half = (r.cpu() for r in self._range("observation"))
        return (self._numbers_of(array).cpu() - middle) / half

    def _numbers_of(self, array: Tensor) -> Tensor:
        """Rows (..., Do) without the pictures that may lie behind their numbers."""
        return array[..., : len(self.observation_names)]

    @property
    def width(self) -> int:
        """How long a row of an observation is: its numbers, and those of its pictures."""
        return len(self.observation_names) + sum(RGB * height * width for _, height, width in self.cameras)

    def wanted(self, *axes: int) -> str:
        """What an observation with these first axes is, for messages."""
        if not self.cameras:
            return f"{(*axes, len(self.observation_names))}"
        numbers = f"{', '.join(self.keys)} ({len(self.observation_names)} numbers)"
        return ", ".join([numbers, *(f"{name} {(*axes, h, w, RGB)}" for name, h, w in self.cameras)])

    @property
    def half_range(self) -> NDArray[np.float32]:
        """Half of the training range of each observed number (Do,), in the robot's units; 0 for one that never moves.

        Also 0 for one whose range is not known.
        """
        return ((self.observation_high - self.observation_low) / 2).clamp(min=0).float().cpu().numpy()

    def encode(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """`Actions`, or an array (horizon, Da) or (n, horizon, Da) in the robot's units -> the same shape, scaled."""
        array = torch.as_tensor(np.asarray(item.values if isinstance(item, Actions) else item), dtype=torch.float32)
        if tuple(array.shape[-2:]) != self.shape or array.ndim > 3:
            raise ShapeError(f"actions {tuple(array.shape)} must be {self.shape}: {', '.join(self.action_names)}.")
        return self._scaled("action", array)

    def density_units(self, x0: Tensor) -> Units:
        """The robot's own units; a dimension that never moves in the data counts as it is."""
        scale = self._divisor("action")[1].double().expand(x0.shape)
        return Units(self.unit or "the robot's units", -float(scale.log().sum()))

    def stack(self, items: Sequence[Any], rng: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """Windows of episodes, all in one go: one after the other would be a tenth of a training step."""
        return self.encode(np.stack([getattr(actions, "values", actions) for actions in items])), None

    def in_units(self, x0: Tensor) -> Tensor:
        """Actions (B, horizon, Da) in the robot's units; not clipped to the data's range, where no gradient would come from."""
        return self._unscaled("action", x0)

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Actions]:
        """(B, horizon, Da) -> actions in the robot's units.

        What lies outside the data's range is clipped to its edge and counted, unless `clip` is False or the range is not
        known. A dimension that never moves in the data comes out as exactly that value; it has no range to lie outside of,
        and is not counted.
        """
        if tuple(x0.shape[1:]) != self.shape:
            raise ShapeError(f"encoded actions {tuple(x0.shape)} must be (B, {self.shape[0]}, {self.shape[1]}).")
        low, high = self.action_low.float(), self.action_high.float()
        known = high >= low
        x0 = x0.detach().to(low.device).float()
        clipped = [0] * len(x0)
        if self.clip:
            # where -1 and 1 are the edges, they bound x0, too; the second clamp takes what rounding adds at them, and all of
            # a range without width
            edge = torch.where(self._is("action", "min_max") & known, 1.0, math.inf)
            first, last = torch.where(known, low, -math.inf), torch.where(known, high, math.inf)
            raw = self._unscaled("action", x0)
            outside = torch.where(edge.isinf(), (raw < first) | (raw > last), x0.abs() > 1 + 1e-6) & (high > low)
            clipped = outside.flatten(1).sum(1).tolist()
            found = self._unscaled("action", torch.maximum(torch.minimum(x0, edge), -edge)).clamp(first, last)
        else:
            found = self._unscaled("action", x0)
        facts: dict[str, Any] = {"names": self.action_names, "unit": self.unit, "rate": self.rate}
        if known.all():
            facts |= {"low": low.cpu().numpy(), "high": high.cpu().numpy()}
        return [Actions(v, clipped=int(c), **facts) for v, c in zip(found.cpu().numpy(), clipped, strict=True)]

    def flat(self, observation: Any) -> Tensor:
        """An observation as one array (..., D): dictionaries are joined in the order of `keys`, then of cameras, float32.

        Raises:
            ShapeError: missing or foreign keys, another number of dimensions, or pictures of another size.
            ConfigError: what is not an array of real numbers, or no picture.
        """
        if self.cameras:
            return self._flat_views(observation)
        if isinstance(observation, Mapping):
            if not self.keys or set(observation) != set(self.keys):
                want = ", ".join(self.keys) or "an array"
                raise ShapeError(f"observation: has {', '.join(map(str, observation)) or 'nothing'}; give {want}.")
            parts = [np.atleast_1d(_numbers(observation[k], k)) for k in self.keys]
            if len({part.shape[:-1] for part in parts}) > 1:
                shapes = ", ".join(f"{k} {part.shape}" for k, part in zip(self.keys, parts, strict=True))
                raise ShapeError(f"observation: {shapes} must have the same axes but for the last.")
            array = np.concatenate(parts, -1)
        else:
            array = _numbers(observation)
        return self._row(array)

    def _row(self, array: NDArray[np.float64]) -> Tensor:
        """The numbers of an observation (..., Do), float32."""
        if array.ndim < 1 or array.shape[-1] != len(self.observation_names):
            names = ", ".join(self.observation_names)
            raise ShapeError(
                f"observation {tuple(array.shape)}: its last axis must hold {len(self.observation_names)}: {names}."
            )
        with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, which is refused by name
            return torch.from_numpy(np.array(array, np.float32))

    def _flat_views(self, observation: Any) -> Tensor:
        """`flat` of numbers and pictures."""
        names = [*self.keys, *(name for name, _, _ in self.cameras)]
        if not isinstance(observation, Mapping):
            raise ShapeError(f"observation: got {type(observation).__name__}; give a dictionary of {', '.join(names)}.")
        missing = [k for k in names if k not in observation]
        foreign = [str(k) for k in observation if k not in names]
        if missing or foreign:
            wrong = [f"lacks {', '.join(missing)}"] if missing else []
            wrong += [f"has {', '.join(foreign)}, which this policy does not see"] if foreign else []
            raise ShapeError(f"observation: {' and '.join(wrong)}; give {', '.join(names)}.")
        parts = [np.atleast_1d(_numbers(observation[k], k)) for k in self.keys]
        leads = {k: part.shape[:-1] for k, part in zip(self.keys, parts, strict=True)}
        pictures = []
        for name, height, width in self.cameras:
            pictures.append(_pictures(observation[name], name, height, width))
            leads[name] = tuple(pictures[-1].shape[:-1])
        if len(set(leads.values())) > 1:
            found = ", ".join(f"{name} {lead}" for name, lead in leads.items())
            raise ShapeError(f"observation: the axes before numbers and pictures are {found}; they must be the same.")
        return torch.cat([self._row(np.concatenate(parts, -1)), *pictures], -1)

    def _scaled_views(self, array: Tensor) -> Tensor:
        """Rows (..., D) of numbers and pictures as the net sees them, on the CPU."""
        first = len(self.observation_names)
        found = [self._scaled("observation", array[..., :first].cpu())]
        shift, scale = (r.cpu() for r in self._divisor("picture"))
        still = self._still("picture").cpu()
        for i, (_, height, width) in enumerate(self.cameras):
            last, own = first + RGB * height * width, slice(RGB * i, RGB * (i + 1))
            colours = array[..., first:last].unflatten(-1, (RGB, -1))
            colours = (colours - shift[own, None]) / scale[own, None] + still[own, None]
            found.append(colours.flatten(-2))
            first = last
        return torch.cat(found, -1)

    def condition(self, name: str, value: Any) -> Tensor:
        """Observations in the robot's units -> windows in encoded units, (n_obs, D) or (n, n_obs, D).

        Args:
            value: a window (n_obs, Do) of the last observations, oldest first, or n windows (n, n_obs, Do), as arrays or as
                dictionaries of their parts. A single observation (Do,) is the start of an episode: it repeats, as it does
                in the controller and in training.
                Pictures are (height, width, 3): uint8, numbers with a point in [0, 1], or PIL's; as many as there are numbers.

        Raises:
            ShapeError: another shape.
            ConfigError: NaN or infinity (a robot must not move on them), or other units than the training data's.

        Warns:
            of numbers that the training data make unlikely, see `doubt`.
        """
        array = self.flat(value)
        if array.ndim == 1:
            array = array.expand(self.n_obs, -1)
        encoded = self.encode_windows(array)
        if doubt := self.doubt(array):
            warnings.warn(f"observation: {doubt}", stacklevel=2)
        return encoded

    def encode_windows(self, array: Tensor) -> Tensor:
        """`condition` of an array that `flat` made, without its warnings."""
        if array.ndim not in (2, 3) or array.shape[-2] != self.n_obs:
            size = len(self.observation_names)
            found = f"with the first axes {tuple(array.shape[:-1])}" if self.cameras else f"{tuple(array.shape)}"
            one = "without them" if self.cameras else f"({size},)"
            raise ShapeError(
                f"observation {found} must be the last {self.n_obs} of them, oldest first: {self.wanted(self.n_obs)}, or n "
                f"such windows; or one alone, {one}, at the start of an episode."
            )
        rows, array = array, self._numbers_of(array)  # pictures were looked at when they became rows
        if not torch.isfinite(array).all():
            bad = sorted({self.observation_names[i] for i in (~torch.isfinite(array)).nonzero()[:, -1].tolist()})
            raise ConfigError(f"observation: {', '.join(bad)} is NaN or infinite; a robot must not move on that.")
        encoded = self._scaled_views(rows) if self.cameras else self._scaled("observation", array.cpu())
        # other units (metres for pixels) put most numbers of an observation far outside; a rare state puts a few a little
        _, moves = self._moves()
        far = ((self.places(array).abs() > FAR) & moves).sum(-1) > 0.5 * int(moves.sum())
        if far.any():
            raise ConfigError(
                f"observation: most numbers ({_span(array[far])}) lie far outside the training data's "
                f"{self._training()}; are these its units?"
            )
        return encoded

    def _training(self) -> str:
        """The range of all observed numbers of the training data, for messages."""
        known = self.observation_high >= self.observation_low
        low, high = self.observation_low[known], self.observation_high[known]
        return f"{float(low.min()):g} to {float(high.max()):g}" if known.any() else "range, which is not known"

    def too_small(self, array: Tensor) -> str:
        """What is wrong where observations (..., Do) are far smaller than the training data's, as 0..1 for pixels; else "".

        Then most numbers lie outside the training range, towards zero, and none is a tenth as large as the data's.
        """
        array, low, high = self._numbers_of(array), self.observation_low.float().cpu(), self.observation_high.float().cpu()
        known, _ = self._moves()
        if not known.any():
            return ""
        usual = torch.maximum(low.abs(), high.abs())[known].median()
        outside = (((array < low) | (array > high)) & known).float().mean(-1) > 0.5
        small = outside & (array.abs().amax(-1) < SMALL * usual)
        if not small.any():
            return ""
        return (
            f"the numbers ({_span(array[small])}) are far smaller than the training data's {self._training()}; are these its "
            "units, or were they scaled?"
        )

    def doubt(self, array: Tensor) -> str:
        """Why observations (..., Do) are unlikely to be what the policy was trained on, or "".

        Said are: numbers far smaller than the training data's; single dimensions far outside their range, or most of them
        outside it, as from another origin; dimensions that never moved in the data, at another value; and observations that
        all lie in a hundredth of the range around zero.
        """
        array = self._numbers_of(array)
        if small := self.too_small(array):
            return small
        low, high = self.observation_low.float().cpu(), self.observation_high.float().cpu()
        known, moves = self._moves()
        placed = self.places(array)
        named = lambda bad: self._named(array, bad.reshape(-1, bad.shape[-1]).any(0))  # noqa: E731
        far = (placed.abs() > FAR) & moves
        if far.any():
            return f"{named(far)} lies far outside the training range; the policy has seen nothing like it."
        outside = ((placed.abs() > OUTSIDE) & moves).sum(-1) > 0.5 * int(moves.sum())
        if outside.any():
            return (
                f"most numbers ({_span(array[outside])}) lie outside the training range of their dimensions; are these its "
                "units and its origin?"
            )
        still = ((array - low).abs() > 0.01 * low.abs() + 1e-6) & known & ~moves
        if still.any():
            return f"{named(still)} never moved in the training data, and has another value now."
        near_zero = (array.abs() < NOTHING * (high - low) / 2) | ~moves
        if int(moves.sum()) >= 3 and near_zero.all():
            return (
                f"all numbers ({_span(array)}) are near zero, within {NOTHING:.0%} of the training range; are these its units, "
                "or were they scaled?"
            )
        return ""

    def _named(self, array: Tensor, which: Tensor) -> str:
        """Dimensions by name, with their value and the range of the training data."""
        rows = array.reshape(-1, array.shape[-1])
        numbers = which.nonzero()[:, 0].tolist()
        texts = [
            f"{self.observation_names[i]} = {float(rows[rows[:, i].abs().argmax(), i]):g} "
            f"({float(self.observation_low[i]):g} to {float(self.observation_high[i]):g})"
            for i in numbers[:NAMED]
        ]
        more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
        return ", ".join(texts) + more


def check_recorded(cameras: Sequence[Sequence[Any]]) -> None:
    """Raise a ConfigError where recordings do not hold what a policy sees, whose codec has these cameras."""
    if cameras:
        named = ", ".join(str(name) for name, _, _ in cameras)
        raise ConfigError(
            f"this policy sees pictures ({named}), and recordings here hold numbers alone: it samples, and is neither trained "
            "on them nor compared with them. Train it where it comes from, and load it again."
        )


def _norms(name: str, given: str | Sequence[str], count: int) -> tuple[str, ...]:
    """A norm for each of `count` numbers.

    Raises:
        ConfigError: another norm, or another number of them.
    """
    found = (given,) * count if isinstance(given, str) else tuple(several(given) or ())
    if len(found) != count:
        raise ConfigError(f"{name}: {len(found)} norms of {count} numbers; give one word for all of them, or one for each.")
    for norm in found:
        if norm not in NORMS:
            raise one_of(name, norm, NORMS)
    return found


def _cameras(given: Sequence[Sequence[Any]], keys: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """(name, height, width) of each camera, checked.

    Raises:
        ConfigError: something else, two of one name, or no names of the numbers beside them.
    """
    found: list[tuple[str, int, int]] = []
    rows = several(given)
    for part in [given] if rows is None else rows:
        name, *sizes = several(part) or [None]
        whole = len(sizes) == 2 and all(isinstance(s, int) and not isinstance(s, bool) and s >= 1 for s in sizes)
        if not isinstance(name, str) or not whole:
            raise ConfigError(f"cameras={brief(given)}: give [name, height, width] of each.")
        found.append((name, sizes[0], sizes[1]))
    names = [name for name, _, _ in found]
    if found and not keys:
        raise ConfigError("cameras: give keys, too, the names of the numbers that come beside pictures.")
    if twice := [name for name in names if names.count(name) > 1 or name in keys]:
        raise ConfigError(f"cameras: the name {twice[0]!r} is there twice; each part of an observation needs its own.")
    return tuple(found)


def _pictures(value: Any, name: str, height: int, width: int) -> Tensor:
    """Pictures (..., H, W, 3) of uint8, floats in [0, 1] or PIL's -> (..., 3 H W) float32 in [0, 1], the channels first.

    Raises:
        ShapeError: another size. ConfigError: other numbers, or none.
    """
    what = f"observation {name!r}"
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ConfigError(f"{what}: has masked values; a robot must not move on that.")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        raise ConfigError(f"{what}: pictures of several sizes; give ({height}, {width}, 3).") from None
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        kind = type(value).__name__ if array.ndim == 0 or array.dtype.kind in "OUS" else f"numbers of {array.dtype}"
        raise ConfigError(f"{what}: got {kind}; give a picture ({height}, {width}, 3) of uint8, or of numbers in [0, 1].")
    if array.shape[-3:] != (height, width, RGB):
        first = " That is with the channels first; give them last." if array.shape[-3:] == (RGB, height, width) else ""
        raise ShapeError(
            f"{what} {array.shape}: the policy sees RGB pictures ({height}, {width}, 3), height, width and channels.{first}"
        )
    if array.dtype == np.uint8:
        found = torch.from_numpy(np.ascontiguousarray(array)).float() / 255
    else:
        if not np.isfinite(array).all():
            raise ConfigError(f"{what}: has NaN or infinite numbers; a robot must not move on that.")
        if array.size and (array.min() < -ROUNDED or array.max() > 1 + ROUNDED):
            raise ConfigError(
                f"{what}: numbers {array.min():g} to {array.max():g}; give colours in [0, 1], or uint8 for 0 to 255."
            )
        found = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    return found.movedim(-1, -3).flatten(-3)


def _span(array: Tensor) -> str:
    return f"{float(array.min()):g} to {float(array.max()):g}"


def _numbers(value: Any, name: str = "") -> NDArray[np.float64]:
    """Real numbers of Python, numpy or torch as an array of float64.

    Raises:
        ConfigError: anything else: None, texts, ragged lists, complex numbers, masked values.
    """
    what = f"observation {name!r}" if name else "observation"
    if isinstance(value, Tensor):
        value = value.detach().cpu().to(torch.float64 if value.is_floating_point() else value.dtype).resolve_conj().numpy()
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ConfigError(f"{what}: has masked values; a robot must not move on that.")
    try:
        array = np.asarray(value)
    except ValueError:
        raise ConfigError(f"{what}: a ragged list; give an array of numbers.") from None
    if array.dtype.kind not in "fiub":
        kind = type(value).__name__ if array.ndim == 0 or array.dtype.kind == "O" else f"array of {array.dtype}"
        raise ConfigError(f"{what}: got {kind}; give an array of real numbers.")
    return array.astype(np.float64)

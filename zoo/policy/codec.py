"""Between actions and observations in the robot's units and what the net sees: [-1, 1] over the training data's range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.errors import CheckpointError, ConfigError, ShapeError
from zoo.policy.actions import Actions
from zoo.policy.data import Episodes
from zoo.values import plain


class PolicyCodec(Codec):
    """Chunks of actions (horizon, Da), and windows of observations (n_obs, Do).

    Args:
        horizon: steps of a chunk.
        n_obs: observations that a chunk starts from.
        executed: steps of a chunk that are carried out before the next one, from index n_obs - 1.
        observation_names, action_names, unit, rate: what the numbers are, see `zoo.policy.data.Robot`.
        keys: where observations come as dictionaries, their parts in order, e.g. those of a Gymnasium environment.

    Raises:
        ConfigError: sizes that do not fit together.
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
        # empty ranges stand for statistics that were never fitted
        for what, names in (("action", self.action_names), ("observation", self.observation_names)):
            self.register_buffer(f"{what}_low", torch.zeros(len(names)))
            self.register_buffer(f"{what}_high", torch.zeros(len(names)))

    def fit(self, dataset: Dataset) -> None:
        """The range of every dimension over all steps of the training episodes."""
        if not isinstance(dataset, Episodes):
            raise ConfigError(f"a policy learns from episodes, not from {type(dataset).__name__}.")
        for what, index in (("observation", 0), ("action", 1)):
            rows = np.concatenate([episode[index] for episode in dataset.episodes])
            getattr(self, f"{what}_low").copy_(torch.from_numpy(rows.min(0)))
            getattr(self, f"{what}_high").copy_(torch.from_numpy(rows.max(0)))

    def _range(self, what: str) -> tuple[Tensor, Tensor]:
        """(middle, half width) of a range; 1 for the width of a dimension that never moves."""
        if not (self.action_high > self.action_low).any():
            raise CheckpointError("this policy has no statistics of its training data: train it, or load a trained one.")
        low, high = getattr(self, f"{what}_low"), getattr(self, f"{what}_high")
        half = (high - low) / 2
        return (low + high) / 2, torch.where(half > 0, half, torch.ones_like(half))

    def encode(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """`Actions`, or an array (horizon, Da) or (n, horizon, Da) in the robot's units -> the same shape in [-1, 1]."""
        array = torch.as_tensor(np.asarray(item.values if isinstance(item, Actions) else item), dtype=torch.float32)
        if tuple(array.shape[-2:]) != self.shape or array.ndim > 3:
            raise ShapeError(f"actions {tuple(array.shape)} must be {self.shape}: {', '.join(self.action_names)}.")
        middle, half = (r.to(array.device) for r in self._range("action"))
        return (array - middle) / half

    def stack(self, items: Sequence[Any], rng: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """Windows of episodes, all in one go: one after the other would be a tenth of a training step."""
        return self.encode(np.stack([getattr(actions, "values", actions) for actions in items])), None

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Actions]:
        """(B, horizon, Da) -> actions in the robot's units; what lies outside the data's range is clipped and counted."""
        if tuple(x0.shape[1:]) != self.shape:
            raise ShapeError(f"encoded actions {tuple(x0.shape)} must be (B, {self.shape[0]}, {self.shape[1]}).")
        middle, half = self._range("action")
        x0 = x0.detach().to(middle.device).float()
        outside = (x0.abs() > 1 + 1e-6).flatten(1).sum(1).tolist()
        values = (x0.clamp(-1, 1) * half + middle).cpu().numpy()
        facts: dict[str, Any] = {"names": self.action_names, "unit": self.unit, "rate": self.rate}
        facts |= {"low": self.action_low.cpu().numpy(), "high": self.action_high.cpu().numpy()}
        return [Actions(v, clipped=int(c), **facts) for v, c in zip(values, outside, strict=True)]

    def flat(self, observation: Any) -> Tensor:
        """An observation as one array (..., Do): dictionaries are joined in the order of `keys`, float32.

        Raises:
            ShapeError: missing or foreign keys, or another number of dimensions.
        """
        if isinstance(observation, Mapping):
            if set(observation) != set(self.keys):
                want = ", ".join(self.keys) or "an array"
                raise ShapeError(f"observation: has {', '.join(map(str, observation))}; give {want}.")
            observation = np.concatenate([np.atleast_1d(np.asarray(observation[k], np.float64)) for k in self.keys], -1)
        array = torch.as_tensor(np.asarray(observation), dtype=torch.float32)
        if array.ndim < 1 or array.shape[-1] != len(self.observation_names):
            names = ", ".join(self.observation_names)
            raise ShapeError(
                f"observation {tuple(array.shape)}: its last axis must hold {len(self.observation_names)}: {names}."
            )
        return array

    def condition(self, name: str, value: Any) -> Tensor:
        """Observations (n_obs, Do) or (n, n_obs, Do), or dictionaries of their parts -> the same in encoded units.

        Raises:
            ShapeError: another shape.
            ConfigError: NaN or infinity (a robot must not move on them), or other units than the training data's.
        """
        array = self.flat(value)
        if array.ndim not in (2, 3) or array.shape[-2] != self.n_obs:
            raise ShapeError(
                f"observation {tuple(array.shape)} must be the last {self.n_obs} of them, oldest first: "
                f"({self.n_obs}, {len(self.observation_names)}), or n such windows."
            )
        if not torch.isfinite(array).all():
            bad = sorted({self.observation_names[i] for i in (~torch.isfinite(array)).nonzero()[:, -1].tolist()})
            raise ConfigError(f"observation: {', '.join(bad)} is NaN or infinite; a robot must not move on that.")
        middle, half = (r.cpu() for r in self._range("observation"))
        encoded = (array.cpu() - middle) / half
        # other units (metres for pixels) put most numbers far outside; a rare state puts a few a little outside
        if (encoded.abs() > 2).float().mean() > 0.5:
            low, high = float(self.observation_low.min()), float(self.observation_high.max())
            raise ConfigError(
                f"observation: most numbers ({float(array.min()):g} to {float(array.max()):g}) lie far outside the training "
                f"data's {low:g} to {high:g}; are these its units?"
            )
        return encoded

"""Evaluation of a policy without its environment: how far its actions are from those of demonstrations that it has not seen."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.contract.domain import Generator
from zoo.errors import ConfigError
from zoo.evaluation import evaluate
from zoo.evaluation.distances import kernel_distance, nearest_distances
from zoo.evaluation.evaluate import draw, sample_timed
from zoo.policy.codec import PolicyCodec, check_recorded
from zoo.policy.data import Episodes

#: training windows among which neighbours are looked for, at most
MOST = 20_000


class Offline(evaluate.Evaluator):
    """Distances of actions from held-out demonstrations, in halves of each action's range in training.

    It tells whether a policy does what the demonstrators do, not whether that succeeds: small errors add up in closed loop.

    Args:
        held, train: windows of demonstrations that the policy has not seen, and those that it learnt from.
        codec: of the policy. split: what `held` is, for the protocol. seed: of all that is drawn.
    """

    better = {
        "action_error": "lower",
        "first_error": "lower",
        "kid": "lower",
        "roughness": "near 1",
        "nearest_chunk": "near ceiling",
    }

    def __init__(self, held: Episodes, train: Episodes, codec: PolicyCodec, *, split: str = "test", seed: int = 0) -> None:
        check_recorded(codec.cameras)
        for name, own in (("observation_names", held.robot.observation_names), ("action_names", held.robot.action_names)):
            wanted = getattr(codec, name)
            if tuple(own) != tuple(wanted):
                raise ConfigError(f"the data's {name} are {', '.join(own)}, the policy's {', '.join(wanted)}.")
        self.held, self.train, self.codec, self.split, self.seed = held, train, codec, split, seed
        #: steps of a chunk that a robot carries out
        self.steps = slice(codec.n_obs - 1, codec.n_obs - 1 + codec.executed)

    def _windows(self, data: Episodes, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Observations (n, n_obs, Do) and actions (n, executed, Da) of some windows, both encoded."""
        items = [data[i] for i in rows]
        observations = torch.from_numpy(np.stack([given["observation"] for _, given in items]))
        return self.codec.encode_windows(observations), self._actions(np.stack([actions for actions, _ in items]))

    def _actions(self, chunks: NDArray[Any]) -> Tensor:
        return self.codec.encode(chunks).cpu()[:, self.steps]

    @cached_property
    def _known(self) -> tuple[Tensor, Tensor]:
        return self._windows(self.train, draw(len(self.train), MOST, self.seed))

    # ---------------------------------------------------------------- the frame

    def generate(self, model: Generator, n: int, *, seed: int, **settings: Any) -> tuple[Any, dict[str, Any]]:
        """One chunk for each of n windows, drawn at random."""
        rows = draw(len(self.held), n, self.seed)
        observations = np.stack([self.held[i][1]["observation"] for i in rows])
        samples, how = sample_timed(model, len(rows), seed=seed, observation=observations, **settings)
        return (rows, samples), how

    def measure(self, made: Any, **options: Any) -> dict[str, Any]:
        start = time.perf_counter()
        rows, samples = made
        observations, true = self._windows(self.held, rows)
        seen, done = self._known
        neighbours = done[nearest_distances(observations.flatten(1), seen.flatten(1))[1]]
        shuffled = true.roll(1, 0)
        columns = {
            "value": self._actions(np.stack([s.values for s in samples])),
            "ceiling": neighbours,
            "floor": done.mean((0, 1)).expand_as(true),
        }
        found = {k: self.compare(x, true, done) for k, x in columns.items()}
        # chunks without their observations: real held-out ones, and as many of training
        found["ceiling"]["nearest_chunk"] = self.compare(true, true, done)["nearest_chunk"]
        found["ceiling"]["kid"] = self.compare(done[draw(len(done), len(true), self.seed)], true, done)["kid"]
        metrics: dict[str, dict[str, Any]] = {
            k: {column: found[column][k] for column in columns} | {"better": way} for k, way in self.better.items()
        }
        for k, value in self.compare(shuffled, true, done).items():
            metrics[k]["shuffled"] = value
        same = len(self.held) == len(self.train) and self.held.windows == self.train.windows
        protocol = {
            "samples": len(rows),
            "reference": f"{len(rows)} of {len(self.held)} {self.split} windows of {len(self.held.episodes)} episodes, drawn "
            f"at random (seed {self.seed})" + ("; too few episodes to hold any out: those of training" if same else ""),
            "action_error": f"root mean square over the {self.steps.stop - self.steps.start} steps that are carried out, in "
            "halves of each action's training range; first_error: of the first of them",
            "kid": "unbiased cubic-kernel MMD (arXiv:1801.01401) of the chunks as vectors, without their observations",
            "roughness": "mean absolute second difference over time, relative to the demonstrations'",
            "nearest_chunk": "mean root mean square distance to the nearest chunk of training: 0 for copies of it",
            "ceiling": "the action of the training window with the nearest observation: what one demonstrator does where "
            "another was; of kid as many training chunks, of nearest_chunk the held-out ones",
            "floor": "the mean action of the training data; shuffled: the demonstrations' chunks at each other's observations",
            "environment": "none: success is measured only where there is a simulator",
            "seed": self.seed,
            "measuring_seconds": round(time.perf_counter() - start, 1),
        }
        return {"metrics": metrics, "protocol": protocol}

    def compare(self, chunks: Tensor, true: Tensor, known: Tensor) -> dict[str, float]:
        """All metrics of chunks (n, steps, Da) at the observations of the demonstrations' `true` (n, steps, Da)."""
        error = (chunks - true).square()
        a, b = chunks.flatten(1), true.flatten(1)
        size = min(1000, len(a))
        kid = kernel_distance(a, b, subsets=50, subset_size=size, seed=self.seed).mean if size > 1 else float("nan")
        return {
            "action_error": float(error.mean().sqrt()),
            "first_error": float(error[:, 0].mean().sqrt()),
            "kid": kid,
            "roughness": _rough(chunks) / max(_rough(true), 1e-9),
            "nearest_chunk": float(nearest_distances(a, known.flatten(1))[0].mean()) / a.shape[1] ** 0.5,
        }


def _rough(chunks: Tensor) -> float:
    """Mean absolute second difference over time; of chunks below three steps the first one."""
    d = chunks.diff(n=2 if chunks.shape[1] > 2 else 1, dim=1) if chunks.shape[1] > 1 else chunks * 0
    return float(d.abs().mean())

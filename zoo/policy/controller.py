"""From a policy to a robot's next action: queue, receding horizon, ensembling, warm start and a deadline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.core import seeds
from zoo.errors import ConfigError, ShapeError
from zoo.model.model import Model
from zoo.model.plan import Chunk
from zoo.policy.codec import PolicyCodec
from zoo.values import plain, several, whole


@dataclass
class _Robot:
    """What the controller remembers of one environment."""

    history: list[Tensor] = field(default_factory=list)  # the last n_obs observations, oldest first
    queue: list[NDArray[np.float32]] = field(default_factory=list)  # actions still to be carried out
    spare: list[NDArray[np.float32]] = field(default_factory=list)  # the chunk's actions after those
    chunk: Tensor | None = None  # the last chunk, encoded
    past: list[tuple[int, NDArray[np.float32]]] = field(default_factory=list)  # (step, chunk from that step on)
    step: int = 0
    chunks: int = 0
    time: float | None = None
    stream: int = 0  # its own stream of noise


class Controller:
    """Receding-horizon control (Chi et al. 2023, section 2.3): plan a chunk, carry out its first part, plan again.

    Args:
        policy: the model.
        n: environments driven together; None for one, without a batch axis.
        sampler, steps, **settings: as for `policy.sample`; default DDIM with 10 steps. The seed gives the same actions again.
        executed: actions carried out before the next plan; default the recipe's.
        ensemble: temporal ensembling (Zhao et al. 2023, section 4.2): plan at every step and average all chunks' actions for
            it with weights exp(-ensemble * age), the oldest weighing most; None does without.
        warm_start: start each plan from the last chunk, moved on, and run only this share of the sampling steps.
        deadline: seconds that `act` may take. A plan that cannot be finished in time gives the x0 it has; where not even
            one step fits, the last chunk's further actions are carried out, and then its last one is held.
        streams: a number for each environment, whose noise then is the same whatever runs beside it; default 0 to n - 1.

    Attributes:
        seconds: how long each call of `act` took.
        late: calls that had no time for a plan; cut: plans that ended before their last step.
        clipped: numbers of actions that lay outside the training data's range.
    """

    def __init__(
        self,
        policy: Model,
        n: int | None = None,
        *,
        sampler: str = "ddim",
        steps: int = 10,
        seed: int = 0,
        executed: int | None = None,
        ensemble: float | None = None,
        warm_start: float | None = None,
        deadline: float | None = None,
        streams: Sequence[int] | None = None,
        **settings: Any,
    ) -> None:
        codec = policy.codec
        if not isinstance(codec, PolicyCodec):
            raise ConfigError(f"{policy!r} is not a policy: its codec is a {type(codec).__name__}.")
        self.policy, self.codec, self.seed = policy, codec, seeds.check_seed(seed)
        self.n = None if n is None else whole(n, "n", 1)
        most = codec.horizon - codec.n_obs + 1
        self.executed = codec.executed if executed is None else whole(executed, "executed", 1, most)
        self.ensemble, self.deadline = plain(ensemble), plain(deadline)
        if self.ensemble is not None and not self.ensemble >= 0:
            raise ConfigError(f"ensemble={ensemble!r}: give a number >= 0, or None.")
        if self.deadline is not None and not self.deadline > 0:
            raise ConfigError(f"deadline={deadline!r}: give seconds above 0, or None.")
        self.plan = policy.plan(1, sampler=sampler, steps=steps, **settings)
        self.warm = None if warm_start is None else self.plan.after(warm_start)
        numbers = range(self.n or 1) if streams is None else (several(streams) or [])
        self.robots = [_Robot(stream=whole(s, "streams")) for s in numbers]
        self.seconds: list[float] = []
        self.late = self.cut = self.clipped = 0
        self._step_seconds = 0.0  # the slowest sampling step so far: what the next one may take

    def reset(self, which: Sequence[int] | None = None) -> None:
        """Forget the episode of some environments (default all); their plans go on to be new ones."""
        for i in range(len(self.robots)) if which is None else which:
            self.robots[i] = _Robot(chunks=self.robots[i].chunks, stream=self.robots[i].stream)

    def act(self, observation: Any, which: Sequence[int] | None = None, *, time_s: float | None = None) -> NDArray[np.float32]:
        """The next action of every environment.

        Args:
            observation: the newest one, in the robot's units: (Do,) or a dictionary of parts; with n environments
                (n, Do) or a dictionary of stacked parts. Every observation enters the window of the last n_obs.
            which: the environments that it is of, where some have ended; default all.
            time_s: when it was made; where it is given, the rate is checked.

        Returns:
            (Da,) or (n, Da) float32 in the robot's units.

        Raises:
            ShapeError, ConfigError: an observation of another shape, with NaN, in other units or at another rate.
        """
        begin = time.perf_counter()
        flat = self.codec.flat(observation)
        rows = flat[None] if self.n is None else flat
        robots = self.robots if which is None else [self.robots[i] for i in which]
        if rows.ndim != 2 or len(rows) != len(robots):
            raise ShapeError(f"observation {tuple(flat.shape)}: give one of {len(robots)} environments each.")
        windows = torch.stack([self._window(robot, row) for robot, row in zip(robots, rows, strict=True)])
        encoded = self.codec.condition("observation", windows)  # refused before anything is remembered
        for robot, window in zip(robots, windows, strict=True):
            self._check_rate(robot, time_s)
            robot.history = list(window)
        due = [i for i, robot in enumerate(robots) if self.ensemble is not None or not robot.queue]
        if due:
            self._plan([robots[i] for i in due], encoded[due], begin)
        actions = np.stack([self._next(robot) for robot in robots])
        self.seconds.append(time.perf_counter() - begin)
        return actions[0] if self.n is None else actions

    def _window(self, robot: _Robot, row: Tensor) -> Tensor:
        """The last n_obs observations (n_obs, Do); at the start of an episode the first one repeats."""
        history = [*robot.history, row] if robot.history else [row] * self.codec.n_obs
        return torch.stack(history[-self.codec.n_obs :])

    def _check_rate(self, robot: _Robot, now: float | None) -> None:
        rate = self.codec.rate
        if now is not None and robot.time is not None and rate is not None and not 0.5 < (now - robot.time) * rate < 2:
            raise ConfigError(
                f"observations come {now - robot.time:g} s apart; this policy was trained at {rate:g} Hz, {1 / rate:g} s apart."
            )
        robot.time = now

    def _plan(self, robots: list[_Robot], observations: Tensor, begin: float) -> None:
        """New chunks for some environments, in one batch."""
        if self.deadline is not None and time.perf_counter() - begin + self._step_seconds > self.deadline:
            self.late += 1
            return
        rng = seeds.SampleRng(self.seed, [seeds.derive_seed(robot.stream, robot.chunks) for robot in robots])
        plan, start = self.plan, None
        if self.warm is not None and all(robot.chunk is not None for robot in robots):
            plan, start = self.warm, torch.stack([self._moved_on(robot.chunk) for robot in robots if robot.chunk is not None])
        x, mark = None, time.perf_counter()
        for step in self.policy.run(plan, Chunk({"observation": observations}, rng), start=start):
            now = time.perf_counter()
            self._step_seconds, mark = max(self._step_seconds, now - mark), now
            x = step.x
            if self.deadline is not None and step.level.sigma and now - begin + self._step_seconds > self.deadline:
                x, self.cut = step.x0, self.cut + 1
                break
        if x is None:
            raise ConfigError(f"the sampler {plan.sampler!r} made no step.")
        first = self.codec.n_obs - 1
        for robot, encoded, actions in zip(robots, x, self.codec.decode(x, {}), strict=True):
            robot.chunk, robot.chunks = encoded, robot.chunks + 1
            self.clipped += actions.clipped
            coming = list(actions.values[first:])
            robot.queue, robot.spare = coming[: self.executed], coming[self.executed :]
            robot.past = [*robot.past, (robot.step, actions.values[first:])] if self.ensemble is not None else []

    def _moved_on(self, chunk: Tensor) -> Tensor:
        """A chunk (horizon, Da) moved on by the executed steps; its last action repeats."""
        return torch.cat([chunk[self.executed :], chunk[-1:].expand(min(self.executed, len(chunk)), -1)])[: len(chunk)]

    def _next(self, robot: _Robot) -> NDArray[np.float32]:
        """The action of this step; takes it off the queue."""
        if self.ensemble is not None:
            robot.past = [(s, c) for s, c in robot.past if robot.step < s + len(c)]
            if robot.past:
                votes = np.stack([c[robot.step - s] for s, c in robot.past])  # the oldest first
                weights = np.exp(-self.ensemble * np.arange(len(votes)))
                robot.queue = [(weights @ votes / weights.sum()).astype(np.float32)]
        if not robot.queue:  # late: what the last chunk says further, then its end
            if not robot.spare:
                raise ConfigError(f"deadline={self.deadline:g} s leaves no time for a first plan. Give more.")
            robot.queue = [robot.spare[0]]
            robot.spare = robot.spare[1:] or robot.spare
        robot.step += 1
        return robot.queue.pop(0)

    def latency(self) -> dict[str, float]:
        """Milliseconds of the calls that planned: median, 95 % and largest."""
        planned = np.array(self.seconds)
        planned = planned[planned > planned.max(initial=0.0) / 10] * 1e3
        shares = {"median": 0.5, "p95": 0.95, "largest": 1.0} if len(planned) else {}
        return {name: round(float(np.quantile(planned, q)), 1) for name, q in shares.items()}

"""From a policy to a robot's next action: queue, receding horizon, joins, ensembling, warm start, delay and a deadline."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.core import seeds
from zoo.core.predict import Predict, Steering, noise_of
from zoo.core.schedule import Level
from zoo.errors import ConfigError, NumericsError, ShapeError, one_of
from zoo.model.model import Model, listed
from zoo.model.plan import Chunk, Plan
from zoo.policy.codec import NOTHING, PolicyCodec
from zoo.values import number, plain, several, whole

#: sampling steps whose durations tell how long the next one may take
RECENT = 50
#: calls without time for a plan after which one is tried in any case: the machine may be free again
PATIENCE = 20
#: steps that a plan from noise has at least: the x0 of its first one is noise, cut to the edges of the actions' range
LEAST = 2
#: observations of an episode after which at least one of their numbers should have moved
STILL = 50
#: how a plan begins where the last one still has actions: drawn anew, or going on with it
REPLANS = ("anew", "overlap")


@dataclass
class _Robot:
    """What the controller remembers of one environment."""

    history: list[Tensor] = field(default_factory=list)  # the last n_obs observations, oldest first
    queue: list[NDArray[np.float32]] = field(default_factory=list)  # actions still to be carried out
    spare: list[NDArray[np.float32]] = field(default_factory=list)  # the chunk's actions after those
    chunk: Tensor | None = None  # the last chunk, encoded
    at: int = 0  # the index in it of the next action
    early: bool = False  # whether a stall makes the next plan come early, which then goes on with the last one
    past: list[tuple[int, NDArray[np.float32]]] = field(default_factory=list)  # (step, chunk from that step on)
    step: int = 0
    chunks: int = 0
    time: float | None = None
    stream: int = 0  # its own stream of noise
    seen: int = 0  # observations, and what they span in encoded units
    low: Tensor | None = None
    high: Tensor | None = None


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
        join: whether a new plan goes on with the last one (as in real-time chunking, Black et al. 2025, section 3): actions
            that are carried out already are held in it, and the others are pulled to the last plan's, less and less up to
            its end. Default: where plans come more often than the recipe's (`executed` below it), or `delay` is given. A plan
            that comes early because of a stall always goes on with the last one.
        replan: "anew" or "overlap", in the place of `join`: how a plan begins where the last one still has actions. "overlap"
            is real-time chunking with the weights of Black et al. 2025 (Eq. 5): what is carried out already and `frozen`
            further actions are held, the others are pulled to the last plan's by weights that decay to 0 at its end.
        frozen: actions of the last plan that "overlap" carries out as they are, at the beginning of the next one (default: 0).
        steer: further steers of the plans, such as `zoo.policy.avoid`, one or a list; they come after what joins plans.
        delay: steps between an observation and the action that its `act` returns, as where plans are made while the robot
            moves. The actions of these steps are taken as those of the last plan.
        deadline: seconds that `act` may take. Where a whole plan does not fit, one of fewer steps is made. One that a slow
            step stops gives the x0 it has, and the next call plans again; where it had not made half of its steps nothing
            of it is carried out, but the next action of the last chunk. Where not even two steps fit, the last chunk's
            further actions are carried out, and then its last one is held; after 20 such calls they are tried in any case.
            The first plan of an episode always has at least two steps, however long they take. How long a step takes is
            known from the last 50, at first from some that are made when the controller is.
        streams: a number for each environment, whose noise then is the same whatever runs beside it; default 0 to n - 1.

    Attributes:
        seconds: how long each call of `act` took.
        late: calls that made no plan for want of time; cut: plans of fewer steps than asked for.
        overran: calls that took longer than the deadline.
        clipped: numbers of actions that lay outside the training data's range.
        doubtful: calls whose observations were unlike the training data's, see `PolicyCodec.doubt`; the first is a warning.
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
        join: bool | None = None,
        replan: str | None = None,
        frozen: int | None = None,
        steer: Sequence[Steering] | Steering = (),
        delay: int = 0,
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
        self.delay = whole(delay, "delay", 0, most - 1)
        self.executed = whole(executed, "executed", 1, most - self.delay) if executed is not None else codec.executed
        if self.executed > most - self.delay:
            raise ConfigError(f"delay={delay} leaves {most - self.delay} actions of a chunk: give executed, at most as many.")
        self.ensemble = None if ensemble is None else number(ensemble, "ensemble", 0, what="None for none")
        self.deadline = None if deadline is None else number(deadline, "deadline", what="seconds above 0, or None")
        if self.deadline is not None and not self.deadline > 0:
            raise ConfigError(f"deadline={deadline!r}: give seconds above 0, or None.")
        if join is not None and not isinstance(plain(join), (bool, np.bool_)):
            raise ConfigError(f"join={join!r}: give True, False, or None for the default.")
        often = self.executed < codec.executed and self.ensemble is None and warm_start is None
        self.join = bool(often or self.delay) if join is None else bool(join)
        if replan is not None and replan not in REPLANS:
            raise one_of("replan", replan, REPLANS)
        if replan is not None and join is not None:
            raise ConfigError("join and replan say the same: give one of them.")
        if frozen is not None and replan != "overlap":
            raise ConfigError(f"frozen={frozen!r}: actions that replan='overlap' holds; give it, too.")
        self.replan = replan or ("join" if self.join else "anew")
        self.join = self.replan != "anew"
        self.frozen = 0 if frozen is None else whole(frozen, "frozen", 0, most - 1)
        self.steer = listed(steer)
        self._settings = {"sampler": sampler, **settings}
        self.plan = policy.plan(1, steps=steps, **self._settings)
        self.warm_start = plain(warm_start)
        self.warm = None if warm_start is None else self.plan.after(warm_start)
        self._shorter: dict[int, Plan] = {}  # plans of fewer steps
        numbers = list(range(self.n or 1)) if streams is None else (several(streams) or [])
        if len(numbers) != (self.n or 1):
            raise ConfigError(f"streams={streams!r}: give {self.n or 1} numbers, one for each environment.")
        self.robots = [_Robot(stream=whole(s, "streams")) for s in numbers]
        self.seconds: list[float] = []
        self.late = self.cut = self.overran = self.clipped = self.doubtful = 0
        self._planned: list[float] = []  # seconds of the calls that planned
        self._recent: deque[float] = deque(maxlen=RECENT)  # seconds of the last sampling steps
        self._waited = 0  # calls without time for a plan, one after the other
        self._warned = False
        if self.deadline is not None:
            self._warm_up()

    def _warm_up(self) -> None:
        """Some steps of a plan whose result nobody uses: the net's first ones are slow, the others say how long one takes."""
        rng = seeds.SampleRng(self.seed, [seeds.derive_seed(robot.stream, 0) for robot in self.robots])
        mark = time.perf_counter()
        for i, _ in enumerate(self.policy.run(self.plan, Chunk({}, rng))):
            now = time.perf_counter()
            if i:
                self._recent.append(now - mark)
            mark = now
            if i == 3:
                break
        needed = self._usual(0.5) * self.plan.steps
        if self.deadline is not None and needed > self.deadline:
            warnings.warn(
                f"deadline={self.deadline:g} s: a plan of {self.plan.steps} steps takes about {needed:.2g} s here: fewer are "
                "made. Give more time or fewer steps; on a busy machine torch.set_num_threads(1) makes steps quicker.",
                stacklevel=4,
            )

    def reset(self, which: Sequence[int] | int | None = None) -> None:
        """Forget the episode of some environments (default all); their plans go on to be new ones.

        What is known of the machine's speed stays, but the next plan of these environments is made however slow it was.
        """
        for i in range(len(self.robots)) if which is None else self._which(which):
            self.robots[i] = _Robot(chunks=self.robots[i].chunks, stream=self.robots[i].stream)
        self._waited, self._warned = 0, False

    def _which(self, which: Any) -> list[int]:
        """The numbers of environments, checked."""
        found = several(which)
        numbers = [whole(i, "which", 0, len(self.robots) - 1) for i in ([which] if found is None else found)]
        if len(set(numbers)) != len(numbers):
            raise ConfigError(f"which={numbers}: names an environment twice.")
        return numbers

    def act(self, observation: Any, which: Sequence[int] | None = None, *, time_s: float | None = None) -> NDArray[np.float32]:
        """The next action of every environment.

        Args:
            observation: the newest one, in the robot's units: (Do,) or a dictionary of parts; with n environments
                (n, Do) or a dictionary of stacked parts. Every observation enters the window of the last n_obs. Pictures
                are (height, width, 3): uint8, numbers with a point in [0, 1], or PIL's.
            which: the environments that it is of, where some have ended; default all.
            time_s: when it was made; where it is given, the rate is checked.

        Returns:
            (Da,) or (n, Da) float32 in the robot's units.

        Raises:
            ShapeError, ConfigError: an observation of another shape, with NaN, in other units or at another rate. Only this
                call is refused. An observation that comes too early leaves no trace; after one that comes too late (or
                before the last) the clock goes on from it, and the episode as from its start.
            NumericsError: the net gave actions that are not finite.
        """
        begin = time.perf_counter()
        flat = self.codec.flat(observation)
        rows = flat[None] if self.n is None else flat
        numbers = list(range(len(self.robots))) if which is None else self._which(which)
        robots = [self.robots[i] for i in numbers]
        if rows.ndim != 2 or len(rows) != len(robots):
            wanted = self.codec.wanted(*(() if self.n is None else (len(robots),)))
            found = tuple(flat.shape[:-1] if self.codec.cameras else flat.shape)
            raise ShapeError(f"observation {found}: give one of {len(robots)} environments each, {wanted}.")
        if not robots:
            raise ShapeError("observation of no environment: give at least one.")
        now = None if time_s is None else number(time_s, "time_s", what="seconds")
        windows = torch.stack([self._window(robot, row) for robot, row in zip(robots, rows, strict=True)])
        encoded = self.codec.encode_windows(windows)  # refused before anything is remembered
        if small := self.codec.too_small(rows):
            raise ConfigError(f"observation: {small} A robot must not move on that.")
        self._check_rate(numbers, rows, now)
        for robot, window in zip(robots, windows, strict=True):
            robot.history, robot.time = list(window), now
        self._doubt(robots, windows)
        due = [i for i, robot in enumerate(robots) if self.ensemble is not None or not robot.queue]
        planned = bool(due) and self._plan([robots[i] for i in due], encoded[due], begin)
        actions = np.stack([self._next(robot) for robot in robots])
        seconds = time.perf_counter() - begin
        self.seconds.append(seconds)
        self._planned += [seconds] if planned else []
        self.overran += self.deadline is not None and seconds > self.deadline
        return actions[0] if self.n is None else actions

    def _window(self, robot: _Robot, row: Tensor) -> Tensor:
        """The last n_obs observations (n_obs, Do); at the start of an episode the first one repeats."""
        history = [*robot.history, row] if robot.history else [row] * self.codec.n_obs
        return torch.stack(history[-self.codec.n_obs :])

    def _check_rate(self, numbers: list[int], rows: Tensor, now: float | None) -> None:
        """Refuse observations that come at another rate than the training data's, so that later ones are not refused."""
        rate, last = self.codec.rate, [self.robots[i].time for i in numbers]
        if now is None or rate is None:
            return
        gaps = {i: now - then for i, then in zip(numbers, last, strict=True) if then is not None}
        wrong = {i: gap for i, gap in gaps.items() if not 0.5 < gap * rate < 2}
        if not wrong:
            return
        for i, row in zip(numbers, rows, strict=True):
            robot = self.robots[i]
            if 0 <= wrong.get(i, -1.0) * rate <= 0.5:
                continue  # too early: as if it had not come
            if i in wrong:  # its plan is of another time
                robot = self.robots[i] = _Robot(chunks=robot.chunks, stream=robot.stream)
            robot.history, robot.time = list(self._window(robot, row)), now
        gap = next(iter(wrong.values()))
        raise ConfigError(f"observations come {gap:g} s apart; this policy was trained at {rate:g} Hz, {1 / rate:g} s apart.")

    def _doubt(self, robots: list[_Robot], windows: Tensor) -> None:
        """Count observations that are unlike the training data's, and warn of the first of them."""
        doubt = self.codec.doubt(windows)
        moves = (self.codec.observation_high > self.codec.observation_low).cpu()
        for robot, window in zip(robots, self.codec.places(windows), strict=True):
            newest = window[-1]
            robot.low = newest if robot.low is None else torch.minimum(robot.low, newest)
            robot.high = newest if robot.high is None else torch.maximum(robot.high, newest)
            robot.seen += 1
            if robot.seen == STILL and moves.any() and float((robot.high - robot.low)[moves].max()) < 2 * NOTHING:
                doubt = doubt or (
                    f"the first {STILL} of an episode hardly move, by less than {NOTHING:.0%} of the training range in every "
                    "dimension; are these its units, or were they scaled?"
                )
        self.doubtful += bool(doubt)
        if doubt and not self._warned:
            self._warned = True
            warnings.warn(f"observation: {doubt}", stacklevel=3)

    def _usual(self, share: float) -> float:
        """How long a sampling step takes: this quantile of the last ones, the lower one of two, so that of two or more the
        slowest never counts; 0 where nothing is known.
        """
        found = sorted(self._recent)
        return found[int(share * (len(found) - 1))] if found else 0.0

    def _least(self) -> int:
        """The fewest steps of a plan whose x0 is worth anything; one that starts warm needs one."""
        return min(LEAST, self.plan.steps) if self.warm is None else 1

    def _has_time(self, robots: list[_Robot], begin: float) -> bool:
        """Whether a plan is made; without time for its least steps only where a robot has none, or after `PATIENCE` calls."""
        if self.deadline is None:
            return True
        needed = self._least() * self._usual(0.5)
        if time.perf_counter() - begin + needed > self.deadline and all(r.chunk is not None for r in robots):
            if self._waited < PATIENCE:
                self._waited += 1
                return False
            self._recent.clear()  # of another time
        self._waited = 0
        return True

    def _plan(self, robots: list[_Robot], observations: Tensor, begin: float) -> bool:
        """New chunks for some environments, in one batch; False where there was no time."""
        if not self._has_time(robots, begin):
            self.late += 1
            return False
        rng = seeds.SampleRng(self.seed, [seeds.derive_seed(robot.stream, robot.chunks) for robot in robots])
        start, steer = None, list(self.steer)
        last, binds = (torch.stack(parts) for parts in zip(*map(self._moved_on, robots), strict=True))
        if self.warm is not None and all(robot.chunk is not None for robot in robots):
            start = last
        if binds.any():
            steer = [self._pull(last, binds), *steer]
        plan = self._fitting(begin, start is not None)
        x, done, mark = None, 0, time.perf_counter()
        short = plan is not (self.plan if start is None else self.warm)
        stalled = False
        going_on = all(robot.chunk is not None and robot.at < self.codec.horizon for robot in robots)
        least = min(LEAST, plan.steps) if start is None else 1
        for step in self.policy.run(plan, Chunk({"observation": observations}, rng), start=start, steer=steer):
            now = time.perf_counter()
            usual = self._usual(0.5) * plan.steps
            self._recent.append(now - mark)
            x, done, mark = step.x, done + 1, now
            enough = done >= least or going_on
            if self.deadline is not None and enough and step.level.sigma and now - begin + self._usual(0.9) > self.deadline:
                x, short = step.x0, True
                stalled = 0 < usual <= self.deadline  # by one slow step, not by a slow net
                break
        self.cut += short
        if x is None:
            raise ConfigError(f"the sampler {plan.sampler!r} made no step.")
        if not torch.isfinite(x).all():
            raise NumericsError(f"{self.policy!r}: an action is not finite; the weights or the settings are broken.")
        if going_on and (done < least or (stalled and 2 * done < plan.steps)):
            self.late += 1  # what is left of the last plan is better than one of a few steps
            for robot in robots:
                robot.early = True
            return True
        first = self.codec.n_obs - 1
        for robot, encoded, actions in zip(robots, x, self.codec.decode(x, {}), strict=True):
            # before the first action of an episode nothing was carried out that a delay could skip
            robot.at = first + (self.delay if robot.chunk is not None else 0)
            robot.chunk, robot.chunks, robot.early = encoded, robot.chunks + 1, stalled and 2 * done >= plan.steps
            self.clipped += actions.clipped
            coming = list(actions.values[robot.at :])
            many = 1 if stalled else self.executed  # an unfinished plan is not kept for longer than it must
            robot.queue, robot.spare = coming[:many], coming[many:] or coming[-1:]
            if self.ensemble is not None:
                robot.past.append((robot.step, np.stack(coming)))
                robot.spare = coming[-1:]
        return True

    def _fitting(self, begin: float, warm: bool) -> Plan:
        """The plan with as many of its steps as fit into the time that is left, but at least those that it needs.

        A whole plan of few steps is a chunk; the x0 of one that is cut in its middle is a mean of many.
        """
        plan = self.warm if warm and self.warm is not None else self.plan
        usual = self._usual(0.75)
        if self.deadline is None or not usual or usual * plan.steps <= self.deadline - (time.perf_counter() - begin):
            return plan
        fit = max(1 if warm else min(LEAST, plan.steps), int((self.deadline - (time.perf_counter() - begin)) / usual + 1e-6))
        if warm:  # the same share of fewer steps
            fit = max(1, int(fit * self.plan.steps / plan.steps))
        if fit not in self._shorter:
            try:
                self._shorter[fit] = self.policy.plan(1, steps=fit, **self._settings)
            except ConfigError:  # settings that need more steps: it is cut instead
                self._shorter[fit] = self.plan
        found = self._shorter[fit]
        return found.after(self.warm_start) if warm else found

    def _moved_on(self, robot: _Robot) -> tuple[Tensor, Tensor]:
        """The last chunk (horizon, Da) moved on to the next one's time, its last action repeated, and how much each of its
        steps binds the next chunk (horizon, 1): 1 what is carried out by then, then less and less up to the chunk's end; 0
        where the next chunk is drawn anew.
        """
        horizon = self.codec.horizon
        if robot.chunk is None:
            nothing = torch.zeros(self.codec.shape, device=self.policy.device, dtype=self.policy.wide)
            return nothing, nothing[:, :1]
        bound = self.codec.n_obs - 1 + self.delay  # the next chunk's first action that is not settled
        shift = max(robot.at - bound, 0)
        index = torch.arange(horizon, device=robot.chunk.device)
        left = horizon - shift  # how many steps of the next chunk the last one knows
        if self.replan == "overlap":
            bound += min(self.frozen, max(left - bound, 0))
        binds = ((left - index) / max(left - bound + 1, 1)).clamp(0, 1)
        if self.replan == "overlap":
            binds = binds * binds.exp().sub(1) / (math.e - 1)
        binds = torch.where(index < bound, (index < left).to(binds), binds) * (self.join or robot.early)
        return robot.chunk[(index + shift).clamp(max=horizon - 1)], binds[:, None].to(robot.chunk)

    def _pull(self, last: Tensor, binds: Tensor) -> Steering:
        """The steer that pulls a predicted chunk towards the last one (B, horizon, Da), as far as it binds (B, horizon, 1)."""

        def steer(predict: Predict) -> Predict:
            def pulled(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
                x0, _ = predict(x, level)
                x0 = torch.lerp(x0, last.to(x0), binds.to(x0))
                return x0, noise_of(x, x0, level)

            return pulled

        return steer

    def _next(self, robot: _Robot) -> NDArray[np.float32]:
        """The action of this step; takes it off the queue."""
        if self.ensemble is not None:
            robot.past = [(s, c) for s, c in robot.past if robot.step < s + len(c)]
            if robot.past:
                votes = np.stack([c[robot.step - s] for s, c in robot.past])  # the oldest first
                weights = np.exp(-self.ensemble * np.arange(len(votes)))
                robot.queue = [(weights @ votes / weights.sum()).astype(np.float32)]
        if not robot.queue:  # late: what the last chunk says further, then its end
            robot.queue = [robot.spare[0]]
            robot.spare = robot.spare[1:] or robot.spare
        robot.step, robot.at = robot.step + 1, robot.at + 1
        return robot.queue.pop(0)

    def latency(self) -> dict[str, float]:
        """Milliseconds of the calls that planned: median, 95 % and largest."""
        planned = np.array(self._planned) * 1e3
        shares = {"median": 0.5, "p95": 0.95, "largest": 1.0} if len(planned) else {}
        return {name: round(float(np.quantile(planned, q)), 1) for name, q in shares.items()}

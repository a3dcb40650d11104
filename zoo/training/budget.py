"""Time as the measure of a run: how many steps fit into it, what the learning rate is, and when something is to be seen.

A run of so many minutes measures its first steps and plans the rest. A plan is (from which step on, steps in all). All that
follows from it, above all the learning rate of a step, is a function of the plans made so far, and a plan is in a checkpoint
before the first step that follows it is made. So a run that is killed and resumed ends with the weights of one that was
never stopped and had the same plans.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from zoo.contract.recipe import Training

#: a plan: (from which step on, steps in all)
Plan = tuple[int, int]
#: what stands for the number of steps of a run that has no plan yet, and the most that any has
ENDLESS = 1 << 40
#: share of a run, at most, in which the learning rate rises, where a budget of time makes the run short
MOST_WARMUP = 0.2


def clock_time() -> float:
    """Seconds of the clock that all of a run's time is told by."""
    return time.monotonic()


# ---------------------------------------------------------------- the learning rate


def learning_rate(step: int, plans: Sequence[Plan], training: Training) -> float:
    """Linear warm-up, a plateau, then a linear way down to 0 over the last `decay` share of the steps.

    Before the way down has begun, a new plan moves its beginning and its end, and the run is that of so many steps from
    the first on. Later, a new plan bends the way down: straight from where it is to 0 at the new end.
    """
    return training.lr * min(rise(step, plans, training.warmup), fall(step, plans, training.decay), 1.0)


def rise(step: int, plans: Sequence[Plan], warmup: int) -> float:
    """The warm-up as a share of the full learning rate, above 1 after it.

    Where a first plan is made within a warm-up that is longer than `MOST_WARMUP` of that plan, the rest of it is shortened.
    """
    up = (step + 1) / max(warmup, 1)
    if not plans or plans[0][0] == 0 or step < plans[0][0]:
        return up
    at, steps = plans[0]
    least = max(at + 1, int(MOST_WARMUP * steps))
    if warmup <= least:
        return up
    start = at / warmup
    return start + (1 - start) * (step + 1 - at) / (least - at)


def fall(step: int, plans: Sequence[Plan], decay: float) -> float:
    """The way down as a share of the full learning rate; 1 before it."""
    end: int | None = None
    bend: tuple[int, float, int] | None = None

    def share(step: int) -> float:
        if bend is not None:
            at, top, last = bend
            return top * (last - step) / max(last - at, 1)
        return 1.0 if end is None else min((end - step) / max(decay * end, 1), 1.0)

    for at, steps in plans:
        if at > step:
            break
        if bend is not None or not all(at <= (1 - decay) * n for n in (steps, end) if n is not None):
            bend = (at, share(at), steps)
        end = steps
    return share(step)


def falls(step: int, plans: Sequence[Plan], decay: float) -> bool:
    """Whether the learning rate has begun to fall."""
    return fall(step, plans, decay) < 1.0


def begin_of_fall(step: int, plans: Sequence[Plan], decay: float) -> int:
    """The first step from `step` on at which the learning rate falls; the last plan's end where it does not."""
    coming = range(step, plans[-1][1])
    return step + bisect_left(coming, True, key=lambda k: falls(k, plans, decay))


# ---------------------------------------------------------------- what a step and everything else takes


@dataclass
class Clock:
    """Where the time of a run goes: steps, and what is done between them.

    Args:
        before: seconds of earlier parts of the run.
        wait: until the device has done what it was told; nothing to wait for on a CPU.
        now: a clock (seconds), for tests.

    Attributes:
        cost: {what is done between steps: seconds that it took the last time}.
    """

    before: float = 0.0
    began: float | None = None
    wait: Callable[[], None] = lambda: None
    now: Callable[[], float] = lambda: clock_time()  # asked for anew each time: a test may replace it
    cost: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start = self.now() if self.began is None else self.began
        self.between = 0.0
        self._marks: list[tuple[float, int]] = []

    @property
    def seconds(self) -> float:
        """Of the whole run until now."""
        return self.before + self.now() - self.start

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Something between steps."""
        self.wait()
        start = self.now()
        try:
            yield
        finally:
            self.cost[what] = self.now() - start
            self.between += self.cost[what]

    def mark(self, step: int) -> None:
        """Remember when `step` steps were done, without what was done between them."""
        self.wait()
        self._marks.append((self.now() - self.start - self.between, step))

    def forget(self) -> None:
        """Measure from now on."""
        self._marks.clear()

    def measured(self, window: float = math.inf) -> tuple[int, float]:
        """(steps, seconds) between the last mark and the newest one that is `window` seconds older; the first where none is."""
        if not self._marks:
            return 0, 0.0
        end, last = self._marks[-1]
        since = next((m for m in reversed(self._marks) if end - m[0] >= window and last > m[1]), self._marks[0])
        return last - since[1], end - since[0]


# ---------------------------------------------------------------- what is seen and saved


@dataclass
class Times:
    """When something is due that is done at growing distances: at `first` seconds of the run, then at `following(last)`."""

    first: float
    following: Callable[[float], float]

    def __post_init__(self) -> None:
        self.next = self.first

    def due(self, seconds: float) -> bool:
        """Whether it is time, at so many seconds of the run."""
        return seconds >= self.next

    def done(self, seconds: float) -> None:
        """It was done, or had been when a run goes on at so many seconds."""
        while self.next <= seconds:
            self.next = max(self.following(self.next), math.nextafter(self.next, math.inf))

    def until(self, seconds: float) -> int:
        """How often it will still be done before so many seconds of the run."""
        count, at = 0, self.next
        while at < seconds and count < 10_000:
            count, at = count + 1, max(self.following(at), math.nextafter(at, math.inf))
        return count


#: the first preview comes so many seconds after a run began, with all of its preparation
FIRST_PREVIEW = 55.0
#: a checkpoint comes at most so many seconds after the one before: at first, and later
SAVES = (120.0, 600.0)


def preview_times(budget: float | None) -> Times:
    """After about a minute, then after 2, 4, 8, ... minutes; sooner where the whole run has but a few."""
    first = FIRST_PREVIEW if budget is None else min(FIRST_PREVIEW, 0.4 * budget)
    return Times(first, lambda last: 2 * (60.0 if last == FIRST_PREVIEW else last))


def save_times(budget: float | None) -> Times:
    """Every two minutes at first, and never more than ten apart; sooner where the whole run has but a few."""
    first = SAVES[0] if budget is None else min(SAVES[0], budget / 4)
    return Times(first, lambda last: last + min(max(first, last / 6), SAVES[1]))


# ---------------------------------------------------------------- the plan


#: steps at the start that are not measured: memory is taken, kernels are chosen
WARM = 3
#: what is measured before the first plan: so many steps and seconds, or this share of the budget
MEASURED = (10, 2.0, 0.05)
#: share of the budget after which the first step is measured, where no other was
WORST = 0.3
#: between two looks at whether the plan still fits: this share of the budget
LOOK = 0.05
#: share of the time that is left which a plan does not use
SPARE = 0.005


class Budget:
    """So many seconds for a run.

    Args:
        seconds: the whole budget; infinite for a run of so many steps, whose speed alone is measured.
        clock: of the run.
        decay: the share of the steps in which the learning rate falls.
        rest: seconds that everything but the steps will still take, as far as it is known, the end of the run included.
        slow_start: the first steps take far longer than the others, as where kernels are compiled: no plan is made by them,
            however much of the time they took.
    """

    def __init__(self, seconds: float, clock: Clock, decay: float, rest: Callable[[], float], slow_start: bool = False) -> None:
        self.seconds, self.clock, self.decay, self.rest = seconds, clock, decay, rest
        self.slow_start = slow_start
        self._began = clock.now()
        self._first: int | None = None
        self._warm = False
        self._ready = False
        self._next, self._next_step = 0.0, math.inf

    def ready(self, step: int) -> bool:
        """Whether enough steps of this session were measured to plan by; asked before the first step, and after each."""
        if self._ready:
            return True
        if self._first is None:
            self._first = step
        spent = self.clock.now() - self._began
        # where a step takes long, or the budget is short: then one step counts, and at worst the first, slow as it is
        hurry, worst = spent > 2 * MEASURED[2] * self.seconds, spent > WORST * self.seconds
        if self.slow_start and step - self._first < WARM:
            hurry = worst = False
        if not self._warm and not worst and step > self._first and (hurry or step - self._first >= WARM):
            self._warm = True
            self.clock.forget()
        if step == self._first or hurry or self._warm:
            self.clock.mark(step)
        steps, seconds = self.clock.measured()
        self._ready = steps > 0 and (
            hurry or (steps >= MEASURED[0] and seconds >= min(MEASURED[1], MEASURED[2] * self.seconds))
        )
        return self._ready

    def look(self, step: int, plans: Sequence[Plan]) -> Plan | None:
        """A new plan, where one is due after `step` steps: the first, or another as the machine is not so fast as thought."""
        if not self.ready(step):
            return None
        now = self.clock.seconds
        if now < min(self._next, self.seconds) and step < self._next_step:
            return None
        if step >= self._next_step:
            self._next_step = math.inf
        self.clock.mark(step)
        spare = self.seconds - now
        left = spare - self.rest() - SPARE * max(spare, 0)
        self._next = now + max(0.5, min(LOOK * self.seconds, left / 4))
        each = self.each(max(1.0, min(0.1 * self.seconds, left / 2)))
        # where no time is left, and the learning rate is not near 0 yet, a few steps bring it there
        least = max(1, math.ceil(0.02 * step * fall(step, plans, self.decay)))
        end = min(step + max(int(left / each), least), ENDLESS)  # batches are made up to there
        # where the steps turn out to be far faster than a new plan thought, it is seen before the learning rate falls
        soon = step + max((end - step) // 4, 1)
        if not plans:
            self._next_step = soon
            return step, end
        excess = (plans[-1][1] - step) * each - left  # seconds that it would take too long
        cost = self.clock.cost.get("save", 0.0)  # a new plan is saved at once
        late, early = max(0.5, 0.01 * left, cost), max(0.5, 0.02 * self.seconds, 4 * cost)
        if (excess > late and end < plans[-1][1]) or (excess < -early and end > plans[-1][1]):
            self._next_step = soon
            return step, end
        return None

    def each(self, window: float = math.inf) -> float:
        """Seconds of a step, by the newest `window` seconds that were measured."""
        steps, seconds = self.clock.measured(window)
        return max(seconds / max(steps, 1), 1e-9)

"""What stalls do to a robot: Push-T with a slow sampling step now and then, beside the undisturbed policy.

    OMP_NUM_THREADS=1 python benchmarks/stalls.py policy/pusht-keypoints --episodes 50 --stall 0.3 --every 40 --deadline 0.5
    OMP_NUM_THREADS=1 python benchmarks/stalls.py policy/pusht-keypoints --simulated --together 10 --deadline 0.05

Once in every 40 calls of a controller, at a random one of them, a sampling step of the next plan takes so much longer. Time is
real, and the step sleeps; or it is simulated (`--simulated`): a clock on which a step of the net takes `--step` seconds and
nothing else any time, so that a busy machine does not disturb the comparison, and several robots are driven together and stall
together. The environment waits for its action in both: what is measured is what the controller makes of a stall (plans that are
cut, chunks that go on), not what a robot would do in the meantime. The same episodes run twice by the same noise, once without
stalls and with the same deadline (only so with `--stall 0`). Printed are the success of both with 95 % intervals, in how many
episodes they differ, and how many calls passed at most from a stall to the next whole plan.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
from curves import settings as parsed

import zoo
from zoo.evaluation.distances import wilson_interval
from zoo.policy.envs import Episode, get_task, rollout
from zoo.policy.evaluate import FIRST_SEED


class Clock:
    """Time as `zoo.policy.controller` asks for it: that of the machine, or one that moves only when it is told."""

    def __init__(self, simulated: bool, step: float) -> None:
        self.simulated, self.step, self.now = simulated, step, 0.0

    def perf_counter(self) -> float:
        """Seconds."""
        return self.now if self.simulated else time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        if not self.simulated:
            time.sleep(seconds)


class Stalls:
    """The net of a policy, one of whose steps takes `seconds` more once in `every` calls of a controller."""

    def __init__(self, policy: Any, clock: Clock, seconds: float, every: int, rng: np.random.Generator) -> None:
        self.clock, self.seconds, self.every, self.rng = clock, seconds, every, rng
        self.forward = policy.denoiser.forward
        self.due = self.stalled = False
        self.calls = self.next = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The net, after a stall that is due."""
        if self.clock.simulated:
            self.clock.sleep(self.clock.step)
        if self.due and self.rng.random() < 0.2:  # some step of the plan, not always the first
            self.due, self.stalled = False, True
            self.clock.sleep(self.seconds)
        return self.forward(*args, **options)

    def tick(self) -> None:
        """One more call of the controller."""
        self.stalled = False
        if self.calls % self.every == 0:
            self.next = self.calls + int(self.rng.integers(self.every))
        self.due, self.calls = self.due or (self.seconds > 0 and self.calls == self.next), self.calls + 1


class Counted:
    """A controller that stalls, and what became of it: `act` is that of a rollout."""

    def __init__(self, controller: Any, stalls: Stalls) -> None:
        self.controller, self.stalls = controller, stalls
        self.count, self.waiting, self.longest = 0, False, 0
        self.since = 0

    def act(self, observation: Any, running: Sequence[int]) -> Any:
        """The actions of the running episodes."""
        controller, before = self.controller, self.state()
        self.stalls.tick()
        actions = controller.act(observation, running)
        after = self.state()
        whole = after[0] > before[0] and after[1:] == before[1:]
        self.since += 1
        if self.stalls.stalled:
            self.count, self.waiting, self.since = self.count + 1, not whole, 0
        elif self.waiting and whole:
            self.longest, self.waiting = max(self.longest, self.since), False
        return actions

    def state(self) -> tuple[int, int, int]:
        """(calls that planned, those without time, plans that were cut)."""
        return len(self.controller._planned), self.controller.late, self.controller.cut


def play(
    policy: Any, seeds: Sequence[int], clock: Clock, args: argparse.Namespace, stall: float, chosen: dict[str, Any]
) -> tuple[list[Episode], dict[str, Any]]:
    """One episode a seed, `args.together` at a time, and what their controllers counted."""
    task, episodes, found = get_task(policy.recipe.name), list[Episode](), list[Counted]()
    for first in range(0, len(seeds), args.together):
        part = seeds[first : first + args.together]
        stalls = Stalls(policy, clock, stall, args.every, np.random.default_rng(part[0]))
        with mock.patch.object(policy.denoiser, "forward", stalls):
            controller = policy.controller(len(part), streams=part, deadline=args.deadline, **chosen)
            found.append(Counted(controller, stalls))
            episodes += rollout(task, found[-1].act, part)
    seconds = np.concatenate([c.controller._planned for c in found])
    counts: dict[str, Any] = {"calls": sum(c.stalls.calls for c in found), "stalls": sum(c.count for c in found)}
    counts |= {name: sum(getattr(c.controller, name) for c in found) for name in ("late", "cut", "overran")}
    counts["latency_ms"] = [round(1e3 * float(np.quantile(seconds, q)), 1) for q in (0.5, 0.95)]
    return episodes, counts | {"calls_to_the_next_whole_plan": max(c.longest for c in found)}


def main() -> None:
    """Read the command line, play twice, print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("name", help="of the policy")
    p.add_argument("controller", nargs="*", help="name=value,name=value of the controller")
    p.add_argument("--episodes", type=int, default=50)
    p.add_argument("--stall", type=float, default=0.3, help="seconds")
    p.add_argument("--every", type=int, default=40, help="calls")
    p.add_argument("--deadline", type=float, default=0.5, help="seconds")
    p.add_argument("--together", type=int, default=1, help="robots of one controller")
    p.add_argument("--simulated", action="store_true", help="a clock that only the net and the stalls move")
    p.add_argument("--step", type=float, default=0.003, help="seconds of a sampling step, where time is simulated")
    args = p.parse_intermixed_args()
    policy, chosen = zoo.load(args.name), dict[str, Any]()
    for text in args.controller:
        chosen |= parsed(text)
    task, clock = get_task(policy.recipe.name), Clock(args.simulated, args.step)
    seeds = [FIRST_SEED["validation"] + i for i in range(args.episodes)]
    won = []
    for stall in (0.0, args.stall) if args.stall else (0.0,):
        begin = time.process_time()
        with mock.patch("zoo.policy.controller.time", clock):
            episodes, counts = play(policy, seeds, clock, args, stall, chosen)
        won.append(np.array([task.successes["success"](e.score) for e in episodes]))
        interval = [round(v, 3) for v in wilson_interval(int(won[-1].sum()), len(won[-1]))]
        row = {"stall": stall, "deadline": args.deadline, "clock": "simulated" if args.simulated else "real", **chosen}
        row |= {"success": float(won[-1].mean()), "interval": interval, **counts}
        print(json.dumps(row | {"cpu_seconds": round(time.process_time() - begin)}), flush=True)
    if len(won) == 1:
        return
    better, worse = int((won[1] & ~won[0]).sum()), int((won[0] & ~won[1]).sum())
    print(f"of {args.episodes} episodes {worse} succeed only without stalls, {better} only with them")


if __name__ == "__main__":
    main()

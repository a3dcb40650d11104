"""The evaluator of policies: episodes in closed loop, beside the demonstrators and a policy that does nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.contract.domain import Generator
from zoo.errors import ConfigError
from zoo.evaluation import evaluate
from zoo.evaluation.distances import wilson_interval
from zoo.policy.codec import PolicyCodec
from zoo.policy.controller import Controller
from zoo.policy.data import open_episodes
from zoo.policy.envs import Episode, Task, delayed, get_task, rollout, save_video
from zoo.policy.offline import Offline

#: first seed of the environments' starts: those of "test" are for reports, those of "validation" for every choice
FIRST_SEED = {"test": 100_000, "validation": 200_000}
BATCH = 50  # episodes in step with each other
DRAWN = 0  # seed of the episodes that are drawn for the floor

#: {recipe: what its demonstrators reach}, measured by benchmarks/demonstrators.py
DEMONSTRATORS = json.loads(Path(__file__).with_name("demonstrators.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Rollouts:
    """What is measured: finished episodes, and where their film goes."""

    episodes: Sequence[Episode]
    video: str | Path | None = None


def run(
    policy: Any, task: Task, seeds: Sequence[int], *, record: int = 0, **settings: Any
) -> tuple[list[Episode], list[Controller]]:
    """Episodes of these seeds, BATCH at a time, and the controllers that drove them.

    A controller with a `delay` is given observations that are so many steps old.
    """
    episodes, controllers = [], []
    for first in range(0, len(seeds), BATCH):
        part = seeds[first : first + BATCH]
        controller = policy.controller(len(part), streams=part, **settings)
        episodes += rollout(task, delayed(controller.act, controller.delay), part, record=max(0, record - first))
        controllers.append(controller)
    return episodes, controllers


def summary(task: Task, episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean best reward, and the share of episodes that succeed, by each of the task's measures."""
    shares = {name: float(np.mean([test(e.score) for e in episodes])) for name, test in task.successes.items()}
    return {"best_reward": float(np.mean([e.reward for e in episodes]))} | shares


class Evaluator(evaluate.Evaluator):
    """Success of a policy in its environment, beside its demonstrators and a policy that stays where it is.

    Args:
        task: the environment.
        name: of the recipe that its demonstrators are known for.
        split: "test" starts the environments from seeds 100000 on, "validation" from 200000 on.
        rate: frames a second of a film.
    """

    shares = False

    def __init__(self, task: Task, name: str, split: str = "test", rate: float = 10.0) -> None:
        self.task, self.name, self.split, self.rate = task, name, split, rate

    def check(self, model: Generator) -> None:
        if not isinstance(model.codec, PolicyCodec) or model.recipe.name != self.name:
            raise ConfigError(f"{model!r} is not a policy of {self.name}.")

    def generate(
        self,
        model: Any,
        n: int,
        *,
        seed: int,
        video: str | Path | None = None,
        progress: bool | None = None,
        **settings: Any,
    ) -> tuple[Rollouts, dict[str, Any]]:
        """n episodes in closed loop.

        Args:
            seed: of the policy's own noise.
            video: whether the first episodes are recorded, see `measure`.
            **settings: of the controller: sampler, steps, executed, ensemble, warm_start, join, delay; default DDIM with 10
                steps.
        """
        seeds = [FIRST_SEED[self.split] + i for i in range(n)]
        start = time.perf_counter()
        episodes, controllers = run(model, self.task, seeds, record=4 if video else 0, seed=seed, **settings)
        seconds, first = time.perf_counter() - start, controllers[0]
        how = {
            "sampler": first.plan.sampler,
            "steps": first.plan.steps,
            "guidance_weight": first.plan.guidance.weight,
            "precision": first.plan.precision,
            "controller": {
                "executed": first.executed,
                "ensemble": first.ensemble,
                "warm_start": settings.get("warm_start"),
                "join": first.join,
                "delay": first.delay,
                "seed": seed,
                **first.plan.options,
            },
            "clipped": f"{sum(c.clipped for c in controllers)} numbers of actions outside the training data's range",
            "latency_ms_batch": {"environments": min(n, BATCH), **first.latency()},
            "seconds": round(seconds, 1),
            "hardware": evaluate.hardware(),
            "weights": "EMA",
        }
        return Rollouts(episodes, video), how

    def measure(self, made: Rollouts, **options: Any) -> dict[str, Any]:
        """The shares of success and the mean of the best reward, with intervals; a film where one was asked for."""
        episodes, task, n = made.episodes, self.task, len(made.episodes)
        seeds = [e.seed for e in episodes]
        if made.video is not None:
            save_video(episodes, made.video, self.rate)
        still = rollout(task, task.still, [seeds[i] for i in sorted(evaluate.draw(n, BATCH, DRAWN))])
        own, floor, best = summary(task, episodes), summary(task, still), DEMONSTRATORS[self.name]
        metrics: dict[str, dict[str, Any]] = {
            k: {"value": v, "ceiling": best["metrics"][k], "floor": floor[k], "better": "higher"} for k, v in own.items()
        }
        for k in task.successes:
            metrics[k]["interval"] = list(wilson_interval(round(own[k] * n), n))
        deviation = float(np.std([e.reward for e in episodes], ddof=1)) if n > 1 else 0.0
        half = 1.96 * deviation / n**0.5
        metrics["best_reward"]["interval"] = [own["best_reward"] - half, own["best_reward"] + half]
        times = [e.success for e in episodes if e.success is not None]
        if times:
            metrics["steps_to_success"] = {
                "value": float(np.median(times)),
                "ceiling": None,
                "floor": None,
                "better": "lower",
            }
        per_episode = [{"seed": e.seed, "reward": e.reward, "score": e.score, "success": e.success} for e in episodes]
        protocol = {
            "samples": n,
            "reference": f"{n} {self.split} episodes of at most {task.limit} steps, "
            f"environment seeds {seeds[0]} to {seeds[-1]}",
            "best_reward": "mean over episodes of the best reward; interval 95 % (normal)",
            "success": f"share of episodes whose best score passes the threshold; intervals 95 % (Wilson); score: {task.unit}",
            "steps_to_success": "median over those that succeed",
            "ceiling": best["who"],
            "floor": f"a policy that stays where it is, {len(still)} of these episodes, drawn at random (seed {DRAWN})",
        }
        return {"metrics": metrics, "per_episode": per_episode, "protocol": protocol}


def evaluator(
    data: str | Path | None = None, split: str = "test", model: Generator | None = None, skip_unreadable: bool = False
) -> Evaluator | Offline:
    """The `Evaluator` of a policy in its environment, which the name of its recipe says; with data, distances from these.

    Args:
        data: demonstrations; None: the environment.

    Raises:
        ConfigError: no model, one without an environment and without data, or data of another robot.
    """
    if model is None or not isinstance(model.codec, PolicyCodec):
        raise ConfigError(f"{model!r} is not a policy: give the model that is to act.")
    if data is not None:
        window: dict[str, Any] = {k: getattr(model.codec, k) for k in ("horizon", "n_obs", "executed")}
        window["skip_unreadable"] = skip_unreadable
        held, train = (open_episodes(data, part, **window) for part in (split, "train"))
        return Offline(held, train, model.codec, split=split)
    if skip_unreadable:
        raise ConfigError("skip_unreadable: a policy in its simulation reads no files. Give demonstrations, or leave it out.")
    return Evaluator(get_task(model.recipe.name), model.recipe.name, split, model.codec.rate or 10.0)


def film(policy: Any, folder: Path, n: int = 4) -> None:
    """rollouts.gif of n validation episodes, and samples.png: each at five moments, from left to right."""
    task = get_task(policy.recipe.name)
    seeds = [FIRST_SEED["validation"] + i for i in range(n)]
    episodes, _ = run(policy, task, seeds, record=n, seed=0)
    save_video(episodes, folder / "rollouts.gif", policy.codec.rate or 10.0)
    moments = [[e.frames[round(k * (len(e.frames) - 1) / 4)] for k in range(5)] for e in episodes]
    page = np.concatenate([np.concatenate(row, 1) for row in moments])
    Image.fromarray(page).save(folder / "samples.png")

"""`zoo eval` of policies: episodes in closed loop, beside the demonstrators and a policy that does nothing."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from zoo.errors import ConfigError
from zoo.evaluation.distances import wilson_interval
from zoo.policy.controller import Controller, Policy
from zoo.policy.envs import Episode, Task, get_task, rollout, save_video

#: first seed of the environments' starts: those of "test" are for reports, those of "validation" for every choice
FIRST_SEED = {"test": 100_000, "validation": 200_000}
BATCH = 50  # episodes in step with each other

#: {recipe: what its demonstrators reach}, measured by benchmarks/demonstrators.py
DEMONSTRATORS = json.loads(Path(__file__).with_name("demonstrators.json").read_text(encoding="utf-8"))


def run(
    policy: Policy, task: Task, seeds: Sequence[int], *, record: int = 0, **settings: Any
) -> tuple[list[Episode], list[Controller]]:
    """Episodes of these seeds, BATCH at a time, and the controllers that drove them."""
    episodes, controllers = [], []
    for first in range(0, len(seeds), BATCH):
        part = seeds[first : first + BATCH]
        controller = policy.controller(len(part), streams=part, **settings)
        episodes += rollout(task, controller.act, part, record=max(0, record - first))
        controllers.append(controller)
    return episodes, controllers


def summary(task: Task, episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean best reward, and the share of episodes that succeed, by each of the task's measures."""
    shares = {name: float(np.mean([test(e.score) for e in episodes])) for name, test in task.successes.items()}
    return {"best_reward": float(np.mean([e.reward for e in episodes]))} | shares


def evaluate_policy(
    model: Any,
    n: int = 200,
    *,
    split: str = "test",
    seed: int = 0,
    data: Any = None,
    judge: Any = None,
    video: str | Path | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Success of a policy over n episodes.

    Args:
        split: "test" starts the environments from seeds 100000 on, "validation" from 200000 on.
        seed: of the policy's own noise.
        video: a GIF or MP4 of the first four episodes is written to this path.
        **settings: of the controller: sampler, steps, executed, ensemble, warm_start; default DDIM with 10 steps.

    Raises:
        ConfigError: a model without an environment, or an environment that is not installed.
    """
    if not isinstance(model, Policy):
        raise ConfigError(f"{model!r} is no policy.")
    if n < 1:
        raise ConfigError(f"n={n}: give at least one episode.")
    name = model.recipe.name
    task, seeds = get_task(name), [FIRST_SEED[split] + i for i in range(n)]
    start = time.perf_counter()
    episodes, controllers = run(model, task, seeds, record=4 if video else 0, seed=seed, **settings)
    seconds, first = time.perf_counter() - start, controllers[0]
    if video:
        save_video(episodes, video, model.codec.rate or 10.0)
    still = rollout(task, task.still, seeds[:BATCH])
    own, floor, best = summary(task, episodes), summary(task, still), DEMONSTRATORS[name]
    metrics: dict[str, dict[str, Any]] = {
        k: {"value": v, "ceiling": best["metrics"][k], "floor": floor[k], "better": "higher"} for k, v in own.items()
    }
    for k in task.successes:
        metrics[k]["interval"] = list(wilson_interval(round(own[k] * n), n))
    deviation = float(np.std([e.reward for e in episodes], ddof=1)) if n > 1 else 0.0
    metrics["best_reward"]["interval"] = [own["best_reward"] + s * 1.96 * deviation / n**0.5 for s in (-1, 1)]
    times = [e.success for e in episodes if e.success is not None]
    if times:
        metrics["steps_to_success"] = {"value": float(np.median(times)), "ceiling": None, "floor": None, "better": "lower"}
    return {
        "metrics": metrics,
        "per_episode": [{"seed": e.seed, "reward": e.reward, "score": e.score, "success": e.success} for e in episodes],
        "protocol": {
            "samples": n,
            "reference": f"{n} {split} episodes of at most {task.limit} steps, environment seeds {seeds[0]} to {seeds[-1]}",
            "sampler": first.plan.sampler,
            "steps": len(first.plan.levels) - 1,
            "guidance_weight": first.plan.guidance.weight,
            "controller": {
                "executed": first.executed, "ensemble": first.ensemble, "warm_start": settings.get("warm_start"),
                "seed": seed, **first.plan.options,
            },
            "best_reward": "mean over episodes of the best reward; interval 95 % (normal)",
            "success": f"share of episodes whose best score passes the threshold; intervals 95 % (Wilson); score: {task.unit}",
            "steps_to_success": "median over those that succeed",
            "ceiling": best["who"],
            "floor": f"a policy that stays where it is, {len(still)} episodes",
            "clipped": f"{sum(c.clipped for c in controllers)} numbers of actions outside the training data's range",
            "latency_ms_batch": {"environments": min(n, BATCH), **first.latency()},
            "seconds": round(seconds, 1),
            "hardware": f"{torch.get_num_threads()} threads, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
            "weights": "EMA",
        },
    }  # fmt: skip


def film(policy: Any, folder: Path, n: int = 4) -> None:
    """rollouts.gif of n validation episodes, and samples.png: each at five moments, from left to right."""
    task = get_task(policy.recipe.name)
    seeds = [FIRST_SEED["validation"] + i for i in range(n)]
    episodes, _ = run(policy, task, seeds, record=n, seed=0)
    save_video(episodes, folder / "rollouts.gif", policy.codec.rate or 10.0)
    moments = [[e.frames[round(k * (len(e.frames) - 1) / 4)] for k in range(5)] for e in episodes]
    page = np.concatenate([np.concatenate(row, 1) for row in moments])
    Image.fromarray(page).save(folder / "samples.png")

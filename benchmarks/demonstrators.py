"""What the demonstrators of the policies reach themselves: the ceilings that evaluations show (zoo/policy/demonstrators.json).

    python benchmarks/demonstrators.py --data pusht_demos.npz

Push-T: every human demonstration is replayed, its actions open loop from its own start. Meta-World: the scripted expert
acts in the test episodes, 50 from seed 100000 on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from metaworld.policies import SawyerPushV3Policy
from tqdm import tqdm

import zoo.policy
from zoo.evaluation.distances import wilson_interval
from zoo.files import dump_json, write_atomic
from zoo.policy.envs import TASKS, Episode, Task
from zoo.policy.evaluate import BATCH, FIRST_SEED, summary

OUT = Path(zoo.policy.__file__).with_name("demonstrators.json")


def play(task: Task, env: Any, seed: int, observation: Any, choose: Callable[[int, Any], np.ndarray], limit: int) -> Episode:
    """An episode whose step k does choose(k, observation)."""
    episode = Episode(seed)
    for k in range(limit):
        observation, reward, terminated, truncated, info = env.step(choose(k, observation))
        episode.add(task, float(reward), info)
        if terminated or truncated:
            break
    return episode


def pusht(data: Path) -> tuple[list[Episode], str]:
    """All human demonstrations, replayed."""
    task, env = TASKS["pusht-keypoints"], TASKS["pusht-keypoints"].make(0, False)
    z, first, episodes = np.load(data, allow_pickle=False), 0, []
    for i, end in enumerate(tqdm(z["episode_ends"].tolist(), "Push-T")):
        state, actions = z["state"][first].astype(float), z["action"][first:end].astype(float)
        env.reset(seed=0)
        base = env.unwrapped
        base.block.angle, base.block.position = state[4], tuple(state[2:4])  # in this order: an angle moves the position
        base.agent.position, base.agent.velocity = tuple(state[:2]), (0, 0)
        # to the last action, also where the environment would call it a success before
        episodes.append(play(task, env, i, None, lambda k, _, actions=actions: actions[k], len(actions)))
        first = end
    return episodes, f"the {len(episodes)} human demonstrations of the training data, replayed"


def metaworld() -> tuple[list[Episode], str]:
    """The scripted expert in the test episodes."""
    task, episodes = TASKS["metaworld-push"], []
    for seed in tqdm(range(FIRST_SEED["test"], FIRST_SEED["test"] + BATCH), "Meta-World"):
        env, expert = task.make(seed, False), SawyerPushV3Policy()
        observation, _ = env.reset(seed=seed)
        act = lambda k, seen, expert=expert: np.clip(expert.get_action(seen), -1, 1).astype(np.float32)  # noqa: E731
        episodes.append(play(task, env, seed, observation, act, task.limit))
        env.close()
    return episodes, f"the scripted expert that made the training data, in {len(episodes)} test episodes"


def main() -> None:
    """Read the command line, play, write."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, required=True)
    args = p.parse_args()
    result: dict[str, Any] = {}
    for name, (episodes, who) in {"pusht-keypoints": pusht(args.data), "metaworld-push": metaworld()}.items():
        metrics, n = summary(TASKS[name], episodes), len(episodes)
        intervals = {k: list(wilson_interval(round(metrics[k] * n), n)) for k in TASKS[name].successes}
        result[name] = {"who": who, "metrics": metrics, "intervals": intervals}
        print(name, result[name])
    write_atomic(OUT, dump_json(result))


if __name__ == "__main__":
    main()

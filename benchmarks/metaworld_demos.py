"""Demonstrations of Meta-World's scripted expert as episodes.npz, for `policy/metaworld-push`.

    python benchmarks/metaworld_demos.py --out runs/metaworld/episodes.npz --episodes 200

The expert's action is carried out with Gaussian noise and recorded without it, so that the data show how to come back
from small errors (Laskey et al. 2017, DART). Episodes in which it fails are left out. Starts have seeds from 0 on, those
of the evaluation from 100,000 on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from metaworld.policies import SawyerPushV3Policy
from tqdm import tqdm

from zoo.policy.envs import METAWORLD_SEEN, TASKS
from zoo.policy.recipes import RECIPES

TASK = TASKS["metaworld-push"]
AFTER = 16  # steps that are kept after the first success: how to hold still
SHARED = 25  # episodes of one environment: building one takes seconds, and it knows 50 starts


def episode(env: Any, seed: int, noise: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """(observations, actions) of one episode, or None where the expert fails."""
    expert = SawyerPushV3Policy()
    observation, _ = env.reset(seed=seed)
    seen, acted, left = [], [], AFTER
    for _ in range(TASK.limit):
        action = np.clip(expert.get_action(observation), -1, 1).astype(np.float32)
        seen.append(observation[list(METAWORLD_SEEN)])
        acted.append(action)
        observation, _, _, _, info = env.step(np.clip(action + noise * rng.normal(size=4), -1, 1).astype(np.float32))
        left -= left < AFTER or bool(info["success"])
        if not left:
            break
    return (np.stack(seen), np.stack(acted)) if left < AFTER else None


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--episodes", type=int, default=200)
    p.add_argument("--noise", type=float, default=0.2)
    args = p.parse_args()
    rng, kept, seed, env = np.random.default_rng(0), [], 0, None
    with tqdm(total=args.episodes, unit="episode") as bar:
        while len(kept) < args.episodes:
            if seed % SHARED == 0:
                env = TASK.make(seed, False)
            found = episode(env, seed, args.noise, rng)
            seed += 1
            if found is not None:
                kept.append(found)
                bar.update()
    codec = RECIPES["metaworld-push"].codec
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.out,
        observation=np.concatenate([o for o, _ in kept]).astype(np.float32),
        action=np.concatenate([a for _, a in kept]),
        episode_ends=np.cumsum([len(a) for _, a in kept]),
        observation_names=codec["observation_names"],
        action_names=codec["action_names"],
        unit=codec["unit"],
        rate=codec["rate"],
    )
    print(f"{len(kept)} of {seed} episodes, {sum(len(a) for _, a in kept)} steps in {args.out}")


if __name__ == "__main__":
    main()

"""Closed loops: a controller drives many copies of an environment until each episode ends."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from zoo.errors import ConfigError, DataError, one_of
from zoo.extras import need
from zoo.figure import save_film


@dataclass(frozen=True)
class Task:
    """An environment and how its episodes are read.

    Attributes:
        make: builds one copy, from the seed of its start and whether pictures will be asked for.
        limit: steps of an episode.
        observe: what the policy is given of the environment's observation.
        score: the figure of a step, from (reward, info), whose best over the episode counts.
        successes: {name: whether an episode's best score is one}.
        unit: what the score is, for the protocol.
        still: the actions of doing nothing, from stacked observations of which episodes, for the floor.
    """

    make: Callable[[int, bool], Any]
    limit: int
    observe: Callable[[Any], Any]
    score: Callable[[float, dict[str, Any]], float]
    successes: dict[str, Callable[[float], bool]]
    unit: str
    still: Callable[[Any, Sequence[int]], Any]


@dataclass
class Episode:
    """One finished episode: its seed, best reward, best score, the step of the first success, and pictures if asked for."""

    seed: int
    reward: float = 0.0
    score: float = 0.0
    success: int | None = None
    length: int = 0
    frames: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, task: Task, reward: float, info: dict[str, Any]) -> None:
        """One more step."""
        self.length += 1
        self.reward, self.score = max(self.reward, reward), max(self.score, task.score(reward, info))
        if self.success is None and task.successes["success"](self.score):
            self.success = self.length


def _make(package: str, extra: str, name: str, **options: Any) -> Any:
    """A Gymnasium environment that `package` registers. (Only `make` gives Push-T its limit of 300 steps.)"""
    need(package, extra)
    return need("gymnasium", extra).make(name, **options)


def _pusht(seed: int, pictures: bool) -> Any:
    size: dict[str, Any] = {"visualization_width": 192, "visualization_height": 192} if pictures else {}
    options: dict[str, Any] = {"obs_type": "environment_state_agent_pos", "render_mode": "rgb_array"} | size
    return _make("gym_pusht", "policy", "gym_pusht/PushT-v0", **options)


def _metaworld(seed: int, pictures: bool) -> Any:
    warnings.filterwarnings("ignore", module="gymnasium")  # its observations leave its own observation space
    view = {"render_mode": "rgb_array", "width": 192, "height": 192, "camera_name": "corner4"} if pictures else {}
    return _make("metaworld", "metaworld", "Meta-World/MT1", env_name="push-v3", seed=seed, **view)


#: what the policy sees of Meta-World's 39 numbers: hand, gripper, puck and goal
METAWORLD_SEEN = (0, 1, 2, 3, 4, 5, 6, 36, 37, 38)

TASKS: dict[str, Task] = {
    "pusht-keypoints": Task(
        make=_pusht,
        limit=300,
        observe=lambda observation: observation,
        score=lambda reward, info: float(info["coverage"]),
        successes={"success": lambda score: score > 0.95, "success_90": lambda score: score > 0.90},
        unit="share of the goal that the block covers",
        still=lambda observed, running: observed["agent_pos"],
    ),
    "metaworld-push": Task(
        make=_metaworld,
        limit=200,
        observe=lambda observation: np.asarray(observation)[list(METAWORLD_SEEN)],
        score=lambda reward, info: float(info["success"]),
        successes={"success": lambda score: score >= 1},
        unit="1 when the puck is within 5 cm of its goal",
        still=lambda observed, running: np.zeros((len(running), 4), np.float32),
    ),
}


def get_task(name: str) -> Task:
    """The task of a recipe's name."""
    if name not in TASKS:
        raise one_of("policy with an environment", name, TASKS)
    return TASKS[name]


def stack(observations: Sequence[Any]) -> Any:
    """Observations of several environments as one: arrays stacked, dictionaries part by part."""
    if isinstance(observations[0], dict):
        return {k: np.stack([o[k] for o in observations]) for k in observations[0]}
    return np.stack(observations)


def delayed(
    act: Callable[[Any, Sequence[int]], NDArray[np.float32]], steps: int
) -> Callable[[Any, Sequence[int]], NDArray[np.float32]]:
    """What acts in a rollout on observations that are so many steps old; before there are such, on the first one."""
    if not steps:
        return act
    seen: dict[int, deque[Any]] = {}

    def late(observed: Any, running: Sequence[int]) -> NDArray[np.float32]:
        for row, i in enumerate(running):
            one = {k: v[row] for k, v in observed.items()} if isinstance(observed, dict) else observed[row]
            seen.setdefault(i, deque(maxlen=steps + 1)).append(one)
        return act(stack([seen[i][0] for i in running]), running)

    return late


def rollout(
    task: Task, act: Callable[[Any, Sequence[int]], NDArray[np.float32]], seeds: Sequence[int], *, record: int = 0
) -> list[Episode]:
    """One episode a seed, all of them in step with each other.

    Args:
        act: (stacked observations of the running episodes, which they are) -> their actions (running, Da).
        seeds: of the environments' starts.
        record: of how many episodes every step's picture is kept.
    """
    episodes = [Episode(seed) for seed in seeds]
    envs = [task.make(int(seed), i < record) for i, seed in enumerate(seeds)]
    try:
        observations = [env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=True)]
        running = list(range(len(seeds)))
        with tqdm(total=task.limit, desc="rollout", unit="step", leave=False, delay=2) as bar:
            while running:
                actions = act(stack([task.observe(observations[i]) for i in running]), running)
                for i, action in zip(list(running), actions, strict=True):
                    observation, reward, terminated, truncated, info = envs[i].step(action)
                    episode, observations[i] = episodes[i], observation
                    episode.add(task, float(reward), info)
                    if i < record:
                        episode.frames.append(picture(envs[i]))
                    if terminated or truncated or episode.length >= task.limit:
                        running.remove(i)
                bar.update()
    finally:
        for env in envs:
            env.close()
    return episodes


#: why MuJoCo could draw nothing; asked a second time, it would end the whole program
_undrawn: list[str] = []


def picture(env: Any) -> NDArray[np.uint8]:
    """What an environment looks like now (H, W, 3).

    Raises:
        ConfigError: its simulator cannot draw here.
    """
    mujoco = type(getattr(env, "unwrapped", env)).__module__.startswith("metaworld")
    if mujoco and _undrawn:
        raise ConfigError(_undrawn[0])
    try:
        return np.asarray(env.render(), np.uint8)
    except Exception as error:  # each simulator has its own
        said = f"no pictures: {error}. Without a display Meta-World needs libegl1 and MUJOCO_GL=egl."
        if mujoco:
            _undrawn.append(said)
        raise ConfigError(said) from error


def save_video(episodes: Sequence[Episode], path: str | Path, rate: float = 10.0) -> Path:
    """The recorded episodes side by side as GIF or MP4, `rate` frames a second; finished ones hold their last picture."""
    films = [e.frames for e in episodes if e.frames]
    if not films:
        raise DataError("no episode was recorded: ask for pictures (record=4).")
    frames = [np.concatenate([f[min(k, len(f) - 1)] for f in films], 1) for k in range(max(map(len, films)))]
    return save_film(frames, path, rate, "policy")

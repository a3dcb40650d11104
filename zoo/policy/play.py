"""A policy at work in its simulation, for a page in the browser: a start that is asked for, and pictures while it acts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from zoo.contract.page import Board, Film, Handle, Picture, Question, View
from zoo.errors import ConfigError
from zoo.policy.codec import PolicyCodec
from zoo.policy.envs import TASKS, picture

#: steps of the simulation between two pictures of a page
EVERY = 10
#: what is asked of Push-T's start, in pixels of its table of 512 and in degrees: name -> (label, least, most, at first)
PUSHT = {
    "agent_x": ("Agent x", 50, 450, 220),
    "agent_y": ("Agent y", 50, 450, 400),
    "block_x": ("T x", 100, 400, 200),
    "block_y": ("T y", 100, 400, 300),
    "angle": ("T turned by (degrees)", -180, 180, 45),
}
#: and of its goal; at first it is that of the demonstrations, the only one that a policy learnt
GOALS = {
    "goal_x": ("Goal x", 100, 400, 256),
    "goal_y": ("Goal y", 100, 400, 256),
    "goal_angle": ("Goal turned by (degrees)", -180, 180, 45),
}
LEARNT = tuple(usual for *_, usual in GOALS.values())
#: pixels of the table, and the T's corners from its place
TABLE = 512
TEE = ((-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30))


def edits(name: str) -> dict[str, Question]:
    """What is asked of the start of an episode of a recipe's environment."""
    if name not in TASKS:
        return {}
    asked = {"seed": Question("number", "Seed of the start", low=0, high=2**31 - 1, value=0)}
    if name == "pusht-keypoints":
        asked = {k: Question("number", label, low=a, high=b, value=v) for k, (label, a, b, v) in {**PUSHT, **GOALS}.items()}
    return asked | {"most": Question("number", "Steps at most", low=EVERY, high=TASKS[name].limit, step=EVERY, value=100)}


def board(name: str) -> Board | None:
    """Push-T's table: the goal, the T and the agent."""
    if name != "pusht-keypoints":
        return None
    circle = [(15 * math.cos(2 * math.pi * k / 24), 15 * math.sin(2 * math.pi * k / 24)) for k in range(24)]
    return Board(
        TABLE,
        TABLE,
        [
            Handle("Goal", "goal_x", "goal_y", "goal_angle", TEE, "#90ee90"),
            # the simulation turns the block about its centre of gravity, after it has put it there
            Handle("T", "block_x", "block_y", "angle", TEE, "#778899", (0, 45)),
            Handle("Agent", "agent_x", "agent_y", "", circle, "#4169e1"),
        ],
    )


def goal_of(answers: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """The goal that was asked for: x, y and an angle in radians; None for the one that is always there."""
    x, y, degrees = (asked_number(answers.get(k, GOALS[k][-1]), *GOALS[k][:3]) for k in GOALS)
    return None if (x, y, degrees) == LEARNT else (x, y, math.radians(degrees))


class Moved:
    """The table as a policy that learnt one goal sees another one: moved and turned so that the goal lies where it always lay.

    What the policy sees and does is the same up to the walls, which are not where it knows them.

    Args:
        goal: x, y, angle in radians.
    """

    def __init__(self, goal: tuple[float, float, float]) -> None:
        *usual, degrees = LEARNT
        angle = math.radians(degrees) - goal[2]
        self.turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        self.goal, self.usual = np.array(goal[:2]), np.array(usual, np.float64)

    def seen(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """An observation of the table, parts of (K * 2,) pixels, as the policy sees it."""
        return {
            k: ((np.asarray(v, np.float64).reshape(-1, 2) - self.goal) @ self.turn.T + self.usual).reshape(-1)
            for k, v in observation.items()
        }

    def done(self, action: Any) -> Any:
        """An action (2,) of the policy on the table, within its edges."""
        return np.clip((np.asarray(action, np.float64) - self.usual) @ self.turn + self.goal, 0, TABLE).astype(np.float32)


def asked_number(value: Any, label: str, low: float, high: float) -> float:
    """A number that a field asks, within its bounds."""
    found = float(value)
    if not low <= found <= high:
        raise ConfigError(f"{label}: {found:g}; give {low} to {high}.")
    return found


def start(answers: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The seed and the options of an environment's `reset`.

    Raises:
        ConfigError: a place off the table.
    """
    if "angle" not in answers:
        return int(answers.get("seed") or 0), {}
    state = []
    for name, (label, low, high, _) in PUSHT.items():
        value = asked_number(answers[name], label, low, high)
        state.append(math.radians(value) if name == "angle" else value)
    return 0, {"options": {"reset_to_state": state}}


def situation(name: str, codec: PolicyCodec, seed: int) -> dict[str, Any]:
    """The observation at the start of an episode, as often as the policy sees one (n_obs, Do); {} without an environment."""
    if name not in TASKS:
        return {}
    task = TASKS[name]
    env = task.make(seed, False)
    try:
        seen = codec.flat(task.observe(env.reset(seed=seed)[0]))
    finally:
        env.close()
    return {"observation": np.stack([seen.numpy()] * codec.n_obs)}


def played(model: Any, answers: Mapping[str, Any], **settings: Any) -> Iterator[View]:
    """A picture of the simulation every few steps, then the film of all of them.

    Args:
        answers: to `edits`. settings: of the controller: sampler, steps, seed.
    """
    name = model.recipe.name
    task, (seed, options) = TASKS[name], start(answers)
    controller = model.controller(**settings)
    env = task.make(seed, True)
    goal = goal_of(answers) if name == "pusht-keypoints" else None
    moved = None if goal is None else Moved(goal)
    frames: list[Any] = []
    most = min(int(answers.get("most") or task.limit), task.limit)
    try:
        observation, _ = env.reset(seed=seed, **options)
        if goal is not None:
            env.unwrapped.goal_pose = np.array(goal)
        frames.append(picture(env))
        for step in range(1, most + 1):
            told = task.observe(observation)
            action = controller.act(told if moved is None else moved.seen(told))
            observation, _, terminated, truncated, _ = env.step(action if moved is None else moved.done(action))
            frames.append(picture(env))
            if terminated or truncated:
                break
            if step % EVERY == 0:
                seen = Image.fromarray(frames[-1])
                yield Picture(seen.resize((2 * seen.width, 2 * seen.height)))  # as large as its film is shown
    finally:
        env.close()
    yield Film(frames, model.codec.rate or 10.0)

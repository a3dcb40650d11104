"""A policy at work in its simulation, for a page in the browser: a start that is asked for, and pictures while it acts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from zoo.contract.page import Film, Picture, Question, View
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


def edits(name: str) -> dict[str, Question]:
    """What is asked of the start of an episode of a recipe's environment."""
    if name not in TASKS:
        return {}
    asked = {"seed": Question("number", "Seed of the start", low=0, high=2**31 - 1, value=0)}
    if name == "pusht-keypoints":
        asked = {k: Question("number", label, low=a, high=b, value=v) for k, (label, a, b, v) in PUSHT.items()}
    return asked | {"most": Question("number", "Steps at most", low=EVERY, high=TASKS[name].limit, step=EVERY, value=100)}


def start(answers: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The seed and the options of an environment's `reset`.

    Raises:
        ConfigError: a place off the table.
    """
    if "angle" not in answers:
        return int(answers.get("seed") or 0), {}
    state = []
    for name, (label, low, high, _) in PUSHT.items():
        value = float(answers[name])
        if not low <= value <= high:
            raise ConfigError(f"{label}: {value:g}; give {low} to {high}.")
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
    frames: list[Any] = []
    most = min(int(answers.get("most") or task.limit), task.limit)
    try:
        observation, _ = env.reset(seed=seed, **options)
        frames.append(picture(env))
        for step in range(1, most + 1):
            observation, _, terminated, truncated, _ = env.step(controller.act(task.observe(observation)))
            frames.append(picture(env))
            if terminated or truncated:
                break
            if step % EVERY == 0:
                yield Picture(Image.fromarray(frames[-1]))
    finally:
        env.close()
    yield Film(frames, model.codec.rate or 10.0)

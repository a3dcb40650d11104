"""The policy plug-in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contract.dataset import Dataset
from zoo.contract.domain import Domain, Generator
from zoo.contract.page import Board, Question, View
from zoo.contract.recipe import Recipe
from zoo.contract.samples import Samples
from zoo.errors import ConfigError
from zoo.figure import grid, to_picture
from zoo.policy.augment import PolicyAugment
from zoo.policy.codec import PolicyCodec, check_recorded
from zoo.policy.data import Episodes, Robot, open_episodes
from zoo.policy.denoiser import PolicyUNet
from zoo.policy.recipes import RECIPES
from zoo.policy.steers import avoid, goal, speed_limit


def controller(model: Any, n: int | None = None, **settings: Any) -> Any:
    """What turns observations into actions, one at a time: `model.controller(...)` of every policy.

    Args:
        n: how many environments are driven together; None drives one, without a batch axis.
        **settings: of `zoo.policy.controller.Controller`, and of `sample`: sampler, steps, eta and so on.
    """
    from zoo.policy.controller import Controller

    return Controller(model, n, **settings)


class PolicyDomain(Domain):
    """Chunks of robot actions."""

    name = "policy"
    suffix = ".npz"
    reads = (".hdf5", ".h5")
    archives = ("episodes.npz", "pusht_demos.npz")
    hub_task = "robotics"
    methods = {"controller": controller}
    steers = {"avoid": avoid, "goal": goal, "speed_limit": speed_limit}
    measured = 200
    denoisers = {"unet": PolicyUNet}
    codecs = PolicyCodec
    augmentations = PolicyAugment
    situation_names = ("observation",)

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_episodes(source, split, **options)

    def traits(self, item: Any) -> dict[str, float | str]:
        """Steps and numbers of a window of actions."""
        return {"steps a window": len(item), "numbers an action": item.shape[-1]}

    def data_options(self, recipe: Recipe) -> dict[str, Any]:
        return {k: recipe.codec[k] for k in ("horizon", "n_obs", "executed") if k in recipe.codec}

    def adapt(self, recipe: Recipe, dataset: Dataset) -> Recipe:
        if not isinstance(dataset, Episodes):
            raise ConfigError(f"a policy learns from episodes, not from {type(dataset).__name__}.")
        check_recorded(recipe.codec.get("cameras", ()))
        robot, codec = dataset.robot, dict(recipe.codec)
        if robot.observation_names != tuple(codec["observation_names"]):
            codec["keys"] = []  # another robot: its observations come as arrays
        codec |= {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(robot).items()}
        return recipe.model_copy(update={"codec": codec, "conditions": dataset.conditions()})

    def example_data(self, recipe: Recipe, n: int = 8) -> Episodes:
        """n windows of one episode of random numbers in -1..1: without any ranges a policy neither encodes nor decodes."""
        codec, rng = PolicyCodec(**recipe.codec), np.random.default_rng(n)
        robot = Robot(codec.observation_names, codec.action_names, codec.unit, codec.rate)
        steps = max(codec.executed, n + codec.horizon - codec.executed - codec.n_obs + 1)
        observations, actions = (rng.uniform(-1, 1, (steps, len(k))) for k in (robot.observation_names, robot.action_names))
        window = self.data_options(recipe)
        return Episodes(observations, actions, np.array([steps]), robot, source="made-up episodes", **window)

    def plot(self, samples: Samples) -> Any:
        """Paths of two dimensions in one frame; curves each in a frame of its own."""
        n = 1 if len(samples[0].names) == 2 else len(samples)
        figure, axes = grid(n, 3, "policy")
        for i, actions in enumerate(samples):
            actions.plot(axes[i % n])
        return to_picture(figure)

    def situation(self, model: Generator, seed: int) -> dict[str, Any]:
        from zoo.policy.play import situation

        codec = model.codec
        if not isinstance(codec, PolicyCodec) or codec.cameras:  # no simulation here gives pictures, whatever a policy's name
            return {}
        return situation(model.recipe.name, codec, seed)

    def edits(self, recipe: Recipe) -> dict[str, Question]:
        from zoo.policy.play import edits

        return {} if recipe.codec.get("cameras") else edits(recipe.name)

    def board(self, recipe: Recipe) -> Board | None:
        from zoo.policy.play import board

        return None if recipe.codec.get("cameras") else board(recipe.name)

    def played(self, model: Generator, answers: Mapping[str, Any], **settings: Any) -> Iterator[View]:
        from zoo.policy.play import played

        return played(model, answers, **settings)

    def showcase(self, model: Generator, folder: Path) -> None:
        from zoo.policy.evaluate import film

        film(model, folder)

    def evaluator(
        self,
        data: str | Path | None = None,
        split: str = "test",
        model: Generator | None = None,
        skip_unreadable: bool = False,
    ) -> Any:
        from zoo.policy.evaluate import evaluator

        return evaluator(data, split, model, skip_unreadable)


DOMAIN = PolicyDomain()

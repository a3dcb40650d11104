"""The policy plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.contract.domain import Dataset, Domain, Samples
from zoo.contract.recipe import ArrayCondition, Recipe
from zoo.errors import ConfigError
from zoo.figure import grid, to_picture
from zoo.policy.codec import PolicyCodec
from zoo.policy.data import Episodes, open_episodes
from zoo.policy.denoiser import PolicyUNet
from zoo.policy.recipes import RECIPES

if TYPE_CHECKING:
    from zoo.model.model import Model


class PolicyDomain(Domain):
    """Chunks of robot actions."""

    name = "policy"
    suffix = ".npz"
    measured = 200
    denoisers = {"unet": PolicyUNet}
    codecs = PolicyCodec

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_episodes(source, split, **options)

    def data_options(self, recipe: Recipe) -> dict[str, Any]:
        return {k: recipe.codec[k] for k in ("horizon", "n_obs", "executed") if k in recipe.codec}

    def adapt(self, recipe: Recipe, dataset: Dataset) -> Recipe:
        if not isinstance(dataset, Episodes):
            raise ConfigError(f"a policy learns from episodes, not from {type(dataset).__name__}.")
        robot, codec = dataset.robot, dict(recipe.codec)
        if robot.observation_names != tuple(codec["observation_names"]):
            codec["keys"] = []  # another robot: its observations come as arrays
        codec |= {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(robot).items()}
        conditions = {"observation": ArrayCondition(shape=(dataset.n_obs, len(robot.observation_names)))}
        return recipe.model_copy(update={"codec": codec, "conditions": conditions})

    def model(self, recipe: Recipe) -> Model:
        from zoo.policy.controller import Policy

        return Policy(recipe, self)

    def plot(self, samples: Samples) -> Any:
        """Paths of two dimensions in one frame; curves each in a frame of its own."""
        n = 1 if len(samples[0].names) == 2 else len(samples)
        figure, axes = grid(n, 3, "policy")
        for i, actions in enumerate(samples):
            actions.plot(axes[i % n])
        return to_picture(figure)

    def showcase(self, model: Model, folder: Path) -> None:
        from zoo.policy.evaluate import film

        film(model, folder)

    def metrics(self, model: Model, n: int, **options: Any) -> dict[str, Any]:
        from zoo.policy.evaluate import evaluate_policy

        return evaluate_policy(model, n, **options)


DOMAIN = PolicyDomain()

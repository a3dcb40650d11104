"""The point3d plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.domain import Dataset, Domain, Samples
from zoo.errors import ConfigError
from zoo.point3d.cloud import contact_sheet
from zoo.point3d.codec import PointCodec
from zoo.point3d.data import open_clouds
from zoo.point3d.denoiser import PointLatents
from zoo.point3d.recipes import RECIPES
from zoo.recipe import Condition, Recipe

#: clouds on one picture; more would be too small to see
SHOWN = 60


class Point3dDomain(Domain):
    """Point clouds."""

    name = "point3d"
    suffix = ".ply"
    measured = 300
    denoisers = {"latents": PointLatents}

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def codec(self, options: Mapping[str, Any]) -> PointCodec:
        try:
            return PointCodec(**options)
        except TypeError as error:
            raise ConfigError(f"point codec: {error}.") from error

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_clouds(source, split, **options)

    def adapt(self, recipe: Recipe, dataset: Dataset) -> Recipe:
        """The recipe with the dataset's labels."""
        conditions = {k: Condition(values=tuple(v)) for k, v in dataset.labels.items()}
        return recipe if conditions == recipe.conditions else recipe.model_copy(update={"conditions": conditions})

    def plot(self, samples: Samples) -> Any:
        """Three views of each cloud with its conditions; the first 60 of more."""
        titles = [" ".join(str(v[i]) for v in samples.conditions.values() if v[i] is not None) for i in range(len(samples))]
        return contact_sheet(list(samples)[:SHOWN], titles[:SHOWN])

    def metrics(self, model: Any, n: int, **options: Any) -> dict[str, Any]:
        raise NotImplementedError


DOMAIN = Point3dDomain()

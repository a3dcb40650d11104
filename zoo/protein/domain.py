"""The protein plug-in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.domain import Dataset, Domain, Samples
from zoo.errors import ConfigError
from zoo.figure import new_figure, to_picture
from zoo.model import Model
from zoo.protein.codec import BackboneCodec
from zoo.protein.data import open_chains
from zoo.protein.denoiser import BackboneNet
from zoo.protein.recipes import RECIPES
from zoo.recipe import Recipe

#: chains on one picture
SHOWN = 40


class ProteinDomain(Domain):
    """Protein backbones."""

    name = "protein"
    suffix = ".pdb"
    measured = 200
    denoisers = {"residues": BackboneNet}

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def codec(self, options: Mapping[str, Any]) -> BackboneCodec:
        try:
            return BackboneCodec(**options)
        except TypeError as error:
            raise ConfigError(f"protein codec: {error}.") from error

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_chains(source, split, **options)

    def data_options(self, recipe: Recipe) -> dict[str, Any]:
        return {k: recipe.codec[k] for k in ("min_length", "max_length") if k in recipe.codec}

    def plot(self, samples: Samples) -> Any:
        shown = list(samples)[:SHOWN]
        columns = min(len(shown), max(4, math.ceil(math.sqrt(len(shown)))))
        rows = math.ceil(len(shown) / columns)
        figure = new_figure(2.6 * columns, 2.6 * rows, "protein")
        for ax in (axes := figure.subplots(rows, columns, squeeze=False).ravel()):
            ax.set_axis_off()
        for ax, chain in zip(axes, shown, strict=False):
            chain.plot(ax)
        return to_picture(figure)

    def metrics(self, model: Model, n: int, **options: Any) -> dict[str, Any]:
        from zoo.protein.evaluate import evaluate_model

        return evaluate_model(model, n, **options)


DOMAIN = ProteinDomain()

"""The protein plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.contract.domain import Dataset, Domain, Samples
from zoo.contract.recipe import Recipe
from zoo.figure import grid, to_picture
from zoo.model.model import Model
from zoo.protein.codec import BackboneCodec
from zoo.protein.data import open_chains
from zoo.protein.denoiser import BackboneNet
from zoo.protein.evaluate import LIMITS, evaluate_model, evaluator
from zoo.protein.motif import BackboneModel
from zoo.protein.recipes import RECIPES

#: chains on one picture
SHOWN = 40


class ProteinDomain(Domain):
    """Protein backbones."""

    name = "protein"
    suffix = ".pdb"
    measured = 200
    denoisers = {"residues": BackboneNet}
    codecs = BackboneCodec

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_chains(source, split, **options)

    def data_options(self, recipe: Recipe) -> dict[str, Any]:
        return {k: recipe.codec[k] for k in LIMITS if k in recipe.codec}

    def plot(self, samples: Samples) -> Any:
        shown = list(samples)[:SHOWN]
        figure, axes = grid(len(shown), 2.6, "protein")
        for ax, chain in zip(axes, shown, strict=True):
            chain.plot(ax)
        return to_picture(figure)

    def model(self, recipe: Recipe) -> Model:
        return BackboneModel(recipe, self)

    def showcase(self, model: Model, folder: Path) -> None:
        model.sample(SHOWN, seed=0).plot(folder / "samples.png")

    def evaluator(self, data: str | Path | None = None, split: str = "test", model: Model | None = None) -> Any:
        return evaluator(data, split, model)

    def metrics(self, model: Model, n: int, **options: Any) -> dict[str, Any]:
        return evaluate_model(model, n, **options)


DOMAIN = ProteinDomain()

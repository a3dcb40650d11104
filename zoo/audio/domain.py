"""The audio plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.audio.codec import SpectrogramCodec
from zoo.audio.data import AudioFolder, Clips, TableClips, open_audio
from zoo.audio.recipes import RECIPES
from zoo.audio.waveform import contact_sheet
from zoo.contract.domain import Dataset, Domain, Samples
from zoo.contract.recipe import Condition, Recipe
from zoo.evaluation.judged import Evaluator
from zoo.model.model import Model
from zoo.nets.grid import GridTransformer, GridUNet

#: clips on one picture; more would be too small to see
SHOWN = 48


class AudioDomain(Domain):
    """Mono clips through spectrograms."""

    name = "audio"
    suffix = ".wav"
    denoisers = {"unet": GridUNet, "transformer": GridTransformer}
    codecs = SpectrogramCodec

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_audio(source, split, **options)

    def adapt(self, recipe: Recipe, dataset: Dataset) -> Recipe:
        """The recipe with the dataset's labels; the dataset's clips come at the recipe's rate from now on."""
        if isinstance(dataset, (Clips, AudioFolder, TableClips)):
            rate: Any = self.codec(recipe.codec).sample_rate
            dataset.at(rate)
        found = {k: tuple(v) for k, v in dataset.labels.items()}
        if found == {k: c.values for k, c in recipe.labels.items()}:
            return recipe
        conditions = {k: Condition(values=v, free="draw" if k == "speaker" else "drop") for k, v in found.items()}
        return recipe.model_copy(update={"conditions": conditions})

    def plot(self, samples: Samples) -> Any:
        """Waveforms over spectrograms with their conditions; the first 48 of more."""
        shown = samples[:SHOWN]
        return contact_sheet(shown, [" ".join(samples.words(i)) for i in range(len(shown))])

    def metrics(self, model: Model, n: int, **options: Any) -> dict[str, Any]:
        from zoo.audio.evaluate import evaluate_model

        return evaluate_model(model, n, **options)

    def evaluator(self, data: str | Path | None = None, split: str = "test", model: Model | None = None) -> Evaluator:
        from zoo.audio.evaluate import evaluator

        return evaluator(data, split, model)


DOMAIN = AudioDomain()

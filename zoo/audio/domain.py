"""The audio plug-in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.audio.augment import AudioAugment
from zoo.audio.codec import ClipCodec, SpectrogramCodec
from zoo.audio.data import FSDD_FILE, WORDS_FILE, AudioFolder, Clips, TableClips, open_audio
from zoo.audio.mel import MelPictureCodec
from zoo.audio.raw import WaveformCodec
from zoo.audio.reading import SUFFIXES, read_clip
from zoo.audio.recipes import RECIPES
from zoo.audio.steers import band, continuation, gap, loudness
from zoo.audio.waveform import contact_sheet
from zoo.contract.conditions import Label
from zoo.contract.dataset import Dataset
from zoo.contract.domain import Domain, Generator
from zoo.contract.page import Picture, Question, Sound, View
from zoo.contract.recipe import Recipe
from zoo.contract.samples import Samples
from zoo.errors import ConfigError
from zoo.evaluation.judged import Evaluator
from zoo.nets.grid import GridTransformer, GridUNet

#: clips on one picture; more would be too small to see
SHOWN = 48


class AudioDomain(Domain):
    """Clips through spectrograms, or as their samples."""

    name = "audio"
    suffix = ".wav"
    reads = SUFFIXES
    archives = (FSDD_FILE, WORDS_FILE)
    hub_tags = ("audio-generation",)
    denoisers = {"unet": GridUNet, "transformer": GridTransformer}
    codecs = SpectrogramCodec
    codec_kinds = {"mel-picture": MelPictureCodec, "waveform": WaveformCodec}
    augmentations = AudioAugment
    steers = {"continuation": continuation, "gap": gap, "band": band, "loudness": loudness}
    views = (Sound, Picture)
    opens = SUFFIXES

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_audio(source, split, **options)

    def suited(self, recipe: Recipe, source: str | Path, chosen: Collection[str] = ()) -> tuple[Recipe, str]:
        """More guidance for models of a folder of the user's own sounds."""
        folder = Path(source)
        own = folder.is_dir() and not any((folder / name).exists() for name in self.archives)
        return recipe.guided(chosen) if own else recipe, ""

    def read(self, path: str | Path, recipe: Recipe) -> Any:
        """A clip at the model's rate."""
        codec = self.codec(recipe.codec)
        clip = read_clip(path, stereo=isinstance(codec, WaveformCodec) and codec.channels == 2)
        return clip.resample(codec.sample_rate) if isinstance(codec, ClipCodec) else clip

    def data_options(self, recipe: Recipe) -> dict[str, Any]:
        """The rate and the window of the clips: files are read only once, and for these."""
        codec = self.codec(recipe.codec)
        return {"sample_rate": codec.sample_rate, "window": codec.samples} if isinstance(codec, ClipCodec) else {}

    def traits(self, item: Any) -> dict[str, float | str]:
        """Length and rate of a clip."""
        return {"seconds": len(item.samples) / item.sample_rate, "sample rate": item.sample_rate}

    def adapt(self, recipe: Recipe, dataset: Dataset) -> Recipe:
        """The recipe with the dataset's conditions; the dataset's clips come at the recipe's rate from now on."""
        if isinstance(dataset, (Clips, AudioFolder, TableClips)):
            rate: Any = self.codec(recipe.codec).sample_rate
            dataset.at(rate)
        found = dataset.conditions()
        speaker = found.get("speaker")
        if isinstance(speaker, Label):
            found["speaker"] = speaker.model_copy(update={"free": "draw"})
        same = {k: c.classes for k, c in found.items()} == {k: c.classes for k, c in recipe.conditions.items()}
        return recipe if same else recipe.model_copy(update={"conditions": found})

    def plot(self, samples: Samples) -> Any:
        """Waveforms over spectrograms with their conditions; the first 48 of more."""
        shown = samples[:SHOWN]
        return contact_sheet(shown, [" ".join(samples.words(i)) for i in range(len(shown))])

    def view(self, samples: Samples) -> tuple[View, ...]:
        """The first clip, to be heard and to be seen."""
        clip = samples[0]
        return Sound(clip.samples, clip.sample_rate), Picture(clip.plot())

    def edits(self, recipe: Recipe) -> dict[str, Question]:
        codec: Any = self.codec(recipe.codec)
        length = round(codec.samples / codec.sample_rate, 3)
        return {
            name: Question("number", f"{label} (s)", low=0, high=length, step=0.01, value=round(share * length, 2))
            for name, label, share in (("first", "Gap from", 0.35), ("last", "to", 0.65))
        }

    def edited(self, model: Generator, item: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
        """A gap from `first` to `last` seconds: the frames that it reaches are made anew."""
        codec: Any = model.codec.inner
        frames, length = codec.shape[-1], codec.samples / codec.sample_rate
        first, last = (float(answers[k]) for k in ("first", "last"))
        at = (np.arange(frames) + 0.5) * length / frames
        gap = (at >= first) & (at <= last)
        if not gap.any() or gap.all():
            raise ConfigError(
                f"a gap from {first:g} to {last:g} s: give one of 0 to {length:g} s that leaves a part of the clip."
            )
        return {"known": item, "where": ~gap.reshape(*[1] * (len(codec.shape) - 1), -1)}

    def sight(self, recipe: Recipe, dataset: Dataset | None = None) -> Any:
        from zoo.audio.sight import AudioSight, natural

        codec: Any = self.codec(recipe.codec)
        return AudioSight(codec if dataset is None else codec.like(**natural(dataset)))

    def evaluator(
        self,
        data: str | Path | None = None,
        split: str = "test",
        model: Generator | None = None,
        judge: str | Path | None = None,
        skip_unreadable: bool = False,
    ) -> Evaluator:
        from zoo.audio.evaluate import evaluator

        return evaluator(data, split, model, judge, skip_unreadable)


DOMAIN = AudioDomain()

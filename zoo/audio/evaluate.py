"""The evaluators of audio models, with the packaged judges and real clips."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from zoo.audio.codec import SpectrogramCodec
from zoo.audio.data import FSDD_FILE, WORDS_FILE, Clips, open_audio
from zoo.audio.judge import load_judge
from zoo.audio.metrics import Evaluator
from zoo.audio.recipes import DIGITS, RECIPES, WORDS
from zoo.contract.domain import Generator
from zoo.errors import ConfigError, DataError
from zoo.evaluation.evaluate import real_data

#: class names -> (judge of labels, judge of voices or none, file of real data, what to type)
KNOWN: dict[tuple[str, ...], tuple[str, str | None, str, str]] = {
    DIGITS: ("digits-judge", "speaker-judge", FSDD_FILE, f"--data {FSDD_FILE}, or --data fsdd to fetch it"),
    WORDS: ("words-judge", None, WORDS_FILE, f"--data {WORDS_FILE}"),
}


def through(codec: SpectrogramCodec, clips: Tensor) -> Tensor:
    """Clips (n, L) encoded and decoded again."""
    bar = tqdm(clips.split(50), "real clips through the codec", delay=2, leave=False)
    return torch.cat([codec.sound(codec.spectrograms(chunk)) for chunk in bar])


def evaluator(data: str | Path | None = None, split: str = "test", model: Generator | None = None) -> Evaluator:
    """The `Evaluator` of the packaged judges on real clips; keep it to measure many settings.

    Args:
        model: gives its codec and its classes; default: the digits' recipe, its codec fitted to the data.
    """
    recipe = RECIPES["spec-ddpm"] if model is None else model.recipe
    classes = recipe.classes("label")
    if classes not in KNOWN:
        raise ConfigError(f"{model!r}: the judges know models with the labels {DIGITS} or {WORDS} only.")
    name, voices, file, hint = KNOWN[classes]
    source, judge = real_data(data, f"audio/{file}", hint), load_judge(name)
    codec = SpectrogramCodec(**recipe.codec) if model is None else model.codec
    if not isinstance(codec, SpectrogramCodec) or (codec.sample_rate, codec.samples) != (judge.sample_rate, judge.samples):
        raise ConfigError(f"{model!r}: its judge takes clips of {judge.samples} samples at {judge.sample_rate} Hz only.")
    held, own = open_audio(source, split), open_audio(source, "train")
    if not isinstance(held, Clips) or not isinstance(own, Clips) or tuple(held.labels.get("label", ())) != classes:
        raise DataError(f"{source} has the labels {held.labels.get('label')}, the judge knows {classes}: give {hint}.")
    if model is None:
        codec.fit(own)
    raw, train = (torch.stack([codec.place(data[i][0]) for i in range(len(data))]) for data in (held, own))
    reference = through(codec, raw), torch.from_numpy(held.targets["label"])
    speakers = load_judge(voices) if voices else None
    return Evaluator(judge, reference, through(codec, train), raw=raw, speakers=speakers, split=split)

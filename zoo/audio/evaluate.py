"""The evaluators of audio models, with the packaged judges and real clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from zoo.audio.codec import ClipCodec, SpectrogramCodec
from zoo.audio.data import FSDD_FILE, WORDS_FILE, Clips, open_audio
from zoo.audio.judge import Judge, load_judge
from zoo.audio.metrics import Evaluator
from zoo.audio.recipes import DIGITS, RECIPES, WORDS
from zoo.audio.sight import PACKAGED, Resampled, candidates
from zoo.contract.domain import Generator
from zoo.errors import ConfigError, DataError
from zoo.evaluation import own
from zoo.evaluation.evaluate import real_data
from zoo.evaluation.judge import Features
from zoo.evaluation.judged import Own

#: clips of a split that go through the codec at most: each takes about 10 ms
MOST = 2000
#: class names -> (judge of labels, judge of voices or none, file of real data, what to type)
KNOWN: dict[tuple[str, ...], tuple[str, str | None, str, str]] = {
    DIGITS: ("digits-judge", "speaker-judge", FSDD_FILE, f"--data {FSDD_FILE}, or --data fsdd to fetch it"),
    WORDS: ("words-judge", None, WORDS_FILE, f"--data {WORDS_FILE}"),
}


def through(codec: ClipCodec, clips: Tensor) -> Tensor:
    """Clips (n, L) encoded and decoded again."""
    bar = tqdm(clips.split(50), "real clips through the codec", delay=2, leave=False)
    return torch.cat([codec.sound(codec.spectrograms(chunk)) for chunk in bar])


def evaluator(
    data: str | Path | None = None,
    split: str = "test",
    model: Generator | None = None,
    judge: str | Path | None = None,
    skip_unreadable: bool = False,
) -> Evaluator:
    """The `Evaluator` of a model; keep it to measure many settings.

    Of the packaged models' data, or of no data, it is the packaged judges'. Of any other clips it is that of `judge`, else of
    the judge in the model's folder, else of features.

    Args:
        model: gives its codec and its classes; default: the digits' recipe, its codec fitted to the data.
    """
    recipe = RECIPES["spec-ddpm"] if model is None else model.recipe
    classes = recipe.classes("label")
    if model is not None and data is not None and not (judge is None and _packaged(data, split, model, skip_unreadable)):
        return _of_own(data, split, model, judge, skip_unreadable)
    if judge is not None:
        raise ConfigError("judge: give the data whose labels it knows as well, and the model.")
    if classes not in KNOWN:
        raise ConfigError(
            f"{model!r}: the packaged judges know models with the labels {DIGITS} or {WORDS} only. Give the data of "
            "the model: --data DIR."
        )
    name, voices, file, hint = KNOWN[classes]
    source, found = real_data(data, f"audio/{file}", hint), load_judge(name)
    codec = SpectrogramCodec(**recipe.codec) if model is None else model.codec
    if not isinstance(codec, ClipCodec) or not _takes(found, codec):
        raise ConfigError(f"{model!r}: its judge takes clips of {found.samples} samples at {found.sample_rate} Hz only.")
    held, real = (open_audio(source, part, skip_unreadable=skip_unreadable) for part in (split, "train"))
    if not isinstance(held, Clips) or not isinstance(real, Clips) or tuple(held.labels.get("label", ())) != classes:
        raise DataError(f"{source} has the labels {held.labels.get('label')}, the judge knows {classes}: give {hint}.")
    if model is None:
        codec.fit(real)
    raw, train = (torch.stack([codec.place(data[i][0]) for i in range(len(data))]) for data in (held, real))
    reference = through(codec, raw), torch.from_numpy(held.targets["label"])
    speakers = load_judge(voices) if voices else None
    return Evaluator(found, reference, through(codec, train), raw=raw, speakers=speakers, split=split)


def _takes(judge: Judge, codec: ClipCodec) -> bool:
    return (codec.sample_rate, codec.samples) == (judge.sample_rate, judge.samples)


def _packaged(data: str | Path, split: str, model: Generator, skip_unreadable: bool) -> bool:
    """Whether data and model are those of a packaged judge."""
    classes, codec = model.recipe.classes("label"), model.codec
    if classes not in KNOWN or not isinstance(codec, ClipCodec) or not _takes(load_judge(KNOWN[classes][0]), codec):
        return False
    return isinstance(open_audio(data, split, skip_unreadable=skip_unreadable), Clips)


def _of_own(source: str | Path, split: str, model: Generator, given: str | Path | None, skip_unreadable: bool) -> Evaluator:
    """The evaluator of any clips, in the window of the model."""
    codec = model.codec
    if not isinstance(codec, ClipCodec):
        raise ConfigError(f"{model!r}: its codec is not one of sound.")
    judge, where = own.judge_of(Judge, given, model)
    # long recordings in the windows that training cuts them into
    how: dict[str, Any] = {"sample_rate": codec.sample_rate, "window": codec.samples}
    datasets = [open_audio(source, part, skip_unreadable=skip_unreadable, **how) for part in (split, "train")]
    for dataset in datasets:
        dataset.at(codec.sample_rate)
    names, own_names = tuple(datasets[0].labels.get("label", ())), model.recipe.classes("label")
    for name in PACKAGED:
        if judge is None and own_names and set(own_names) <= set(load_judge(name).class_names):
            judge, where = load_judge(name), f"the packaged {name}"
    if judge is not None:
        own.matched(judge, model, names)
    only = own_names if own_names and set(own_names) <= set(names) else None
    held, train = (own.Labelled(d, codec.place, most=MOST, only=only) for d in datasets)
    raw = torch.stack(held.items)
    reference, real = through(codec, raw), through(codec, torch.stack(train.items))
    found: Judge | Features | None = judge
    if found is None:
        found = own.choose(candidates(codec.sample_rate), reference, real, 0)
        where = found.name
    elif judge is not None and not _takes(judge, codec):
        found = Resampled(judge, codec.sample_rate)
        where += f", which hears {judge.samples / judge.sample_rate:.2f} s at {judge.sample_rate} Hz"
    labels = torch.tensor([found.class_names.index(n) if found.class_names else 0 for n in held.names])
    known = Own(where, held.names if only else None, own.taken(held, train))
    return Evaluator(found, (reference, labels), real, raw=raw, split=split, own=known, sample_rate=codec.sample_rate)

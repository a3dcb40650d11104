"""The evaluator of image models: with the packaged judge on its own data, and of any pictures."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from zoo.contract.domain import Generator
from zoo.errors import ConfigError, DataError
from zoo.evaluation import own
from zoo.evaluation.evaluate import real_data
from zoo.evaluation.judge import Features
from zoo.evaluation.judged import Own
from zoo.image import caption_metrics, reconstruction
from zoo.image.caption_judge import PACKAGED, CaptionJudge, load_caption_judge
from zoo.image.caption_metrics import Captioned
from zoo.image.captions import CaptionedImages
from zoo.image.codec import ImageCodec
from zoo.image.data import ArrayImages, kind_of_archive, open_images
from zoo.image.judge import Fitted, Judge, fitted, load_judge
from zoo.image.metrics import Evaluator, check
from zoo.image.recipes import FASHION
from zoo.image.sight import candidates

#: bytes of real pictures of a split that are kept at most, as float32
MOST_BYTES = 2**30


def pictures_and_labels(source: str | Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A split as the judge takes it: (n, 1, 28, 28) float in [-1, 1] and labels (n,)."""
    data = open_images(source, split)
    if not isinstance(data, ArrayImages) or data.targets is None:
        raise DataError(f"{source} is a folder of pictures: the judge knows Fashion-MNIST only.")
    return torch.from_numpy(data.pixels)[:, None].float() / 127.5 - 1, torch.from_numpy(data.targets).long()


def evaluator(
    data: str | Path | None = None,
    split: str = "test",
    model: Generator | None = None,
    judge: str | Path | None = None,
    skip_unreadable: bool = False,
) -> Evaluator | caption_metrics.Evaluator | reconstruction.StageEvaluator:
    """The `Evaluator` of a model; keep it to measure many settings.

    Of a first stage it measures what comes back of pictures, see `zoo.image.reconstruction`.

    Of Fashion-MNIST, or of no data, it is the packaged judge's. Of any other pictures it is that of `judge`, else of the judge
    in the model's folder, else of the packaged one where its labels are the model's, else of features. A model that is asked by
    text is measured on captioned pictures in several styles by a judge of captions.
    """
    if model is not None and model.recipe.role == "first_stage":
        source = real_data(data, "image/emoji_styles.npz", "--data, the pictures")
        return _of_stage(source, split, judge, skip_unreadable)
    if model is not None and "text" in model.recipe.conditions:
        source = real_data(data, "image/emoji_styles.npz", "--data emoji_styles.npz")
        if kind_of_archive(source) == "styles":
            return _of_captions(source, split, judge)
    packaged = load_judge()
    if model is not None and (data is not None or judge is not None):
        source = real_data(data, "image/fashion_mnist.npz", "--data DIR")
        held = open_images(source, split, skip_unreadable=skip_unreadable)
        if judge is not None or not isinstance(held, ArrayImages) or not _known(model, packaged):
            return _of_own(source, split, model, judge, skip_unreadable)
    elif model is not None:
        check(model, packaged)
    elif judge is not None:
        raise ConfigError("judge: an evaluator of your own data needs the model, whose codec says what pictures are like.")
    hint = "--data fashion_mnist.npz, or --data fashion-mnist to fetch them"
    source = real_data(data, "image/fashion_mnist.npz", hint)
    return Evaluator(packaged, pictures_and_labels(source, split), pictures_and_labels(source, "train")[0], split=split)


def _of_stage(source: str | Path, split: str, given: str | Path | None, skip_unreadable: bool) -> reconstruction.StageEvaluator:
    """The evaluator of first stages; of captioned pictures in several styles also by what a judge of captions sees in them."""
    further: tuple[reconstruction.Further, ...] = ()
    if kind_of_archive(source) == "styles" and (given is not None or PACKAGED.is_dir()):
        judge = load_caption_judge(PACKAGED if given is None else Path(given).expanduser())
        further = (caption_metrics.through_stage(judge, captioned(source, split, judge)),)
    elif given is not None:
        raise ConfigError(
            "judge: a first stage is measured without a judge, except on captioned pictures in styles: emoji_styles.npz."
        )
    return reconstruction.evaluator(source, split, further, skip_unreadable)


def _of_captions(source: str | Path, split: str, given: str | Path | None) -> caption_metrics.Evaluator:
    """The evaluator of captioned pictures in several styles, with the packaged judge of captions where none is given."""
    judge = load_caption_judge(PACKAGED if given is None else Path(given).expanduser())
    return caption_metrics.Evaluator(judge, captioned(source, split, judge), captioned(source, "train", judge), split=split)


def captioned(source: str | Path, split: str, judge: CaptionJudge) -> Captioned:
    """A split of captioned pictures in the styles that the judge knows, at its size."""
    data = open_images(source, split)
    if not isinstance(data, CaptionedImages) or tuple(data.labels.get("style", ())) != judge.class_names:
        raise DataError(f"{source} has no captioned pictures in the styles {', '.join(judge.class_names)}.")
    pictures = torch.stack([torch.from_numpy(data.picture(i)).permute(2, 0, 1) for i in range(len(data))])
    parts = [fitted(p.float() / 127.5 - 1, judge.shape) for p in pictures.split(1000)]
    return Captioned(torch.cat(parts), data.captions, torch.from_numpy(data.targets), data.parts)


def _known(model: Generator, packaged: Judge) -> bool:
    try:
        check(model, packaged)
    except ConfigError:
        return False
    return True


def _of_own(source: str | Path, split: str, model: Generator, given: str | Path | None, skip_unreadable: bool) -> Evaluator:
    """The evaluator of any pictures, at the size of the model."""
    codec = model.codec.inner
    if not isinstance(codec, ImageCodec):
        raise ConfigError(f"{model!r}: its codec is not one of pictures.")
    judge, where = own.judge_of(Judge, given, model)
    found: Judge | Features | None = judge
    datasets = [open_images(source, part, skip_unreadable=skip_unreadable) for part in (split, "train")]
    names = tuple(datasets[0].labels.get("label", ()))
    own_names = model.recipe.classes("label")
    packaged = copy.copy(load_judge())
    packaged.class_names = FASHION  # its own names of the same classes are those of the data's authors: "T-shirt/top"
    if judge is None and own_names and set(own_names) <= set(packaged.class_names):
        found = judge = packaged
        where = "the packaged judge of clothes"
    classes = own.matched(judge, model, names) if judge is not None else None
    only = own_names if own_names and set(own_names) <= set(names) else None
    most = MOST_BYTES // (4 * codec.shape[0] * codec.size**2)
    held, train = (own.Labelled(d, codec.encode, most=min(own.MOST, most), only=only) for d in datasets)
    reference, real = torch.stack(held.items), torch.stack(train.items)
    if found is None:
        found = own.choose(candidates(), reference, real, 0)
        where = found.name
    elif isinstance(found, Judge) and found.shape != codec.shape:
        found = Fitted(found)
    labels = torch.tensor([found.class_names.index(n) if classes else 0 for n in held.names])
    texts = held.texts if "text" in model.recipe.conditions and any(held.texts) else None
    told = Own(where, held.names if only else None, own.taken(held, train), texts)
    return Evaluator(found, (reference, labels), real, split=split, own=told)

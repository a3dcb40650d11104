"""`zoo eval` of image models: sample, measure, and write down how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from zoo.errors import ConfigError, DataError
from zoo.evaluation.judged import real_data, sample_timed
from zoo.image.data import ArrayImages, open_images
from zoo.image.judge import load_judge
from zoo.image.metrics import Evaluator
from zoo.model.model import Model


def pictures_and_labels(source: str | Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A split as the judge takes it: (n, 1, 28, 28) float in [-1, 1] and labels (n,)."""
    data = open_images(source, split)
    if not isinstance(data, ArrayImages) or data.targets is None:
        raise DataError(f"{source} is a folder of pictures: the judge knows Fashion-MNIST only.")
    return torch.from_numpy(data.pixels)[:, None].float() / 127.5 - 1, torch.from_numpy(data.targets).long()


def evaluator(data: str | Path | None = None, split: str = "test") -> Evaluator:
    """The `Evaluator` of the packaged judge on real pictures; keep it to measure many settings."""
    hint = "--data fashion_mnist.npz, or --data fashion-mnist to fetch them"
    source = real_data(data, "image/fashion_mnist.npz", hint)
    return Evaluator(load_judge(), pictures_and_labels(source, split), pictures_and_labels(source, "train")[0], split=split)


def evaluate_model(
    model: Model,
    n: int = 1000,
    *,
    data: str | Path | None = None,
    split: str = "test",
    seed: int = 0,
    judge: Evaluator | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """All figures of a Fashion-MNIST model from n samples, the classes in turn.

    Args:
        judge: an `evaluator(...)` to use again; default a fresh one.
        **settings: arguments of `model.sample`; what is left out is the model's default.
    """
    if model.codec.shape != (1, 28, 28) or "label" not in model.recipe.labels:
        raise ConfigError(f"{model!r}: the judge knows labelled 28 x 28 grey pictures of clothes only.")
    judge = judge or evaluator(data, split)
    labels = torch.arange(n) % len(model.recipe.labels["label"].values)
    samples, how = sample_timed(model, n, label=labels.tolist(), seed=seed, **settings)
    result = judge.evaluate(samples.tensor, labels)
    result["protocol"] |= how
    return result

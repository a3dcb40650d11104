"""The evaluator of image models, with the packaged judge and real pictures."""

from __future__ import annotations

from pathlib import Path

import torch

from zoo.contract.domain import Generator
from zoo.errors import DataError
from zoo.evaluation.evaluate import real_data
from zoo.image.data import ArrayImages, open_images
from zoo.image.judge import load_judge
from zoo.image.metrics import Evaluator, check


def pictures_and_labels(source: str | Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A split as the judge takes it: (n, 1, 28, 28) float in [-1, 1] and labels (n,)."""
    data = open_images(source, split)
    if not isinstance(data, ArrayImages) or data.targets is None:
        raise DataError(f"{source} is a folder of pictures: the judge knows Fashion-MNIST only.")
    return torch.from_numpy(data.pixels)[:, None].float() / 127.5 - 1, torch.from_numpy(data.targets).long()


def evaluator(data: str | Path | None = None, split: str = "test", model: Generator | None = None) -> Evaluator:
    """The `Evaluator` of the packaged judge on real pictures; keep it to measure many settings."""
    judge = load_judge()
    if model is not None:
        check(model, judge)
    hint = "--data fashion_mnist.npz, or --data fashion-mnist to fetch them"
    source = real_data(data, "image/fashion_mnist.npz", hint)
    return Evaluator(judge, pictures_and_labels(source, split), pictures_and_labels(source, "train")[0], split=split)

"""`zoo eval` of image models: sample, measure, and write down how."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from zoo.core.guidance import Guidance
from zoo.errors import ConfigError, DataError
from zoo.image.data import ArrayImages, open_images
from zoo.model import Model


def real_pictures(data: str | Path | None) -> str | Path:
    """What Fashion-MNIST is read from: the argument, else $ZOO_DATA/image/fashion_mnist.npz."""
    if data is not None:
        return data
    if root := os.environ.get("ZOO_DATA"):
        return Path(root) / "image" / "fashion_mnist.npz"
    raise DataError(
        "evaluation compares with real pictures: give --data fashion_mnist.npz, or --data fashion-mnist to fetch them, "
        "or set ZOO_DATA."
    )


def pictures_and_labels(source: str | Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A split as the judge takes it: (n, 1, 28, 28) float in [-1, 1] and labels (n,)."""
    data = open_images(source, split)
    if not isinstance(data, ArrayImages) or data.targets is None:
        raise DataError(f"{source} is a folder of pictures: the judge knows Fashion-MNIST only.")
    return torch.from_numpy(data.pixels)[:, None].float() / 127.5 - 1, torch.from_numpy(data.targets).long()


def evaluator(data: str | Path | None = None, split: str = "test") -> Any:
    """The `Evaluator` of the packaged judge on real pictures; keep it to measure many settings."""
    from zoo.image.judge import load_judge
    from zoo.image.metrics import Evaluator

    source = real_pictures(data)
    return Evaluator(load_judge(), pictures_and_labels(source, split), pictures_and_labels(source, "train")[0], split=split)


def evaluate_model(
    model: Model,
    n: int = 1000,
    *,
    data: str | Path | None = None,
    split: str = "test",
    seed: int = 0,
    judge: Any = None,
    **settings: Any,
) -> dict[str, Any]:
    """All figures of a Fashion-MNIST model from n samples, the classes in turn.

    Args:
        judge: an `evaluator(...)` to use again; default a fresh one.
        **settings: arguments of `model.sample`; what is left out is the model's default.
    """
    if model.codec.shape != (1, 28, 28) or "label" not in model.recipe.conditions:
        raise ConfigError(f"{model!r}: the judge knows labelled 28 x 28 grey pictures of clothes only.")
    judge = judge or evaluator(data, split)
    labels = torch.arange(n) % len(model.recipe.conditions["label"].values)
    start = time.perf_counter()
    samples = model.sample(n, label=labels.tolist(), seed=seed, **settings)
    seconds = time.perf_counter() - start
    result: dict[str, Any] = judge.evaluate(samples.tensor, labels)
    used = model.recipe.sampling.model_dump() | settings  # the model's defaults, where nothing else was asked for
    used |= used.pop("options") if used["sampler"] == model.recipe.sampling.sampler else {}
    if "guidance_scale" in used:
        used["guidance_weight"] = Guidance.from_public(None, used.pop("guidance_scale"))
    result["protocol"] |= {k: used.pop(k) for k in ("sampler", "steps", "guidance_weight")}
    result["protocol"] |= {
        "other_settings": {k: v for k, v in used.items() if v is not None and k not in ("options", "progress")},
        "sampling_seconds": round(seconds, 1),
        "hardware": f"{torch.get_num_threads()} threads, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "weights": "EMA",
    }
    return result

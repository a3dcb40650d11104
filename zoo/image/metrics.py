"""How good generated Fashion-MNIST pictures are (see `zoo.evaluation.judged`).

Everything is measured on the pictures that a PNG would hold: samples are clamped to [-1, 1] and rounded to
256 levels first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.contract.domain import Generator
from zoo.errors import ConfigError, DataError
from zoo.evaluation import judged
from zoo.evaluation.evaluate import draw
from zoo.evaluation.judge import Features, Judge
from zoo.image import inception
from zoo.image.judge import SHAPE, Fitted


def quantise(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] at the 256 levels of a saved file; values outside are clamped, as saving does.

    Args:
        pictures: floating point, any shape.

    Returns:
        float32 of the same shape: k / 127.5 - 1 for k in 0..255.

    Raises:
        DataError: not floating point, or NaN or infinity.
    """
    if not pictures.is_floating_point():
        raise DataError(f"pictures must be floating point in [-1, 1], got {pictures.dtype}; use x / 127.5 - 1")
    if not pictures.isfinite().all():
        raise DataError("pictures hold NaN or infinity: the sampler or the training went wrong")
    return ((pictures.detach().float() + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


class Evaluator(judged.JudgedEvaluator):
    """Pictures (n, 1, 28, 28) in [-1, 1]; copies are looked for among the pixels.

    Its own metric is pixel_deviation: the standard deviation over pictures, averaged over pixels, divided by the
    reference's (below 1: less variety than real).
    """

    noun = "pictures"
    better = judged.JudgedEvaluator.better | {"pixel_deviation": "near 1"}

    def check(self, model: Generator) -> None:
        if self.own is None:
            check(model, self.judge)
        elif tuple(model.codec.inner.shape) != tuple(self.reference.shape[1:]):
            raise ConfigError(f"{model!r}: this evaluator was made for pictures {tuple(self.reference.shape[1:])}.")

    def prepare(self, x: Tensor) -> Tensor:
        return quantise(x)

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        return quantise(torch.rand(n, *self.reference.shape[1:], generator=generator) * 2 - 1)

    def extra(self, x: Tensor, features: Tensor) -> dict[str, float]:
        return {"pixel_deviation": _deviation(x) / _deviation(self.reference)}

    def protocol(self, n: int) -> dict[str, Any]:
        return {
            "pixels": "clamped to [-1, 1] and rounded to 256 levels, as in a saved file; copies are looked for among them",
            "pixel_deviation": "std over pictures, averaged over pixels, relative to the reference",
            "floor": f"{n} pictures of uniform noise; for copying, training pictures",
        } | ({} if self.own is None else {"size": self.size()})

    def held_out(self, model: Generator, n: int, seed: int) -> tuple[list[Tensor], dict[str, Any]]:
        """Pictures of the reference, encoded, with the labels and captions by which the model is asked."""
        if model.codec.inner is not model.codec:
            raise ConfigError("likelihood: a model on latents has no density of pictures.")
        rows = draw(len(self.reference), n, seed)
        given: dict[str, Any] = {}
        if self.own is None:
            given["label"] = self.labels[rows].tolist()
        else:
            known = {"label": self.own.names, "text": self.own.texts}
            given = {k: [v[i] for i in rows] for k, v in known.items() if v is not None}
        return [self.reference[i] for i in rows], given

    def evaluate(self, samples: Tensor, labels: Tensor) -> dict[str, Any]:
        """As `JudgedEvaluator.evaluate`, and Inception-v3 FID where its weights are on the machine."""
        result = super().evaluate(samples, labels)
        n = len(samples)
        real = self.train[self._draw(len(self.train), n)]
        noise = self.noise(n, torch.Generator().manual_seed(self.seed))
        found, told = inception.fid(self.prepare(samples.cpu()), self.reference, real, noise)
        if found is not None:
            result["metrics"]["inception_fid"] = found
        result["protocol"]["inception_fid"] = told
        return result

    def size(self) -> str:
        """What is done to pictures before they are judged, in words."""
        own = tuple(self.reference.shape[1:])
        shown = self.judge.judge.shape if isinstance(self.judge, Fitted) else own
        told = f"pictures of {own[1]} x {own[2]}, {'grey' if own[0] == 1 else 'colour'}"
        return told if shown == own else f"{told}, resized with a low-pass to {shown[1]} x {shown[2]} for the judge"


def check(model: Generator, judge: Judge | Features) -> None:
    """Refuse a model of other pictures than the judge's."""
    if model.codec.inner.shape != SHAPE or len(model.recipe.classes("label")) != len(judge.class_names):
        raise ConfigError(
            f"{model!r}: the judge knows labelled 28 x 28 grey pictures of clothes only. Give the data that the model is of: "
            "--data DIR."
        )


def _deviation(pictures: Tensor) -> float:
    """Standard deviation over pictures, averaged over pixels."""
    return pictures.double().std(0).mean().item()

"""How much of a picture a first stage gives back: the measurements of an autoencoder.

Everything is measured on the pictures that a PNG would hold, of a split that nothing was trained on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.contract.dataset import Dataset
from zoo.contract.domain import Generator
from zoo.errors import ConfigError, DataError
from zoo.evaluation.evaluate import Evaluator, draw, hardware
from zoo.image.codec import ImageCodec
from zoo.image.data import open_images

#: training pictures of which the mean picture is made
AVERAGED = 2000
#: the least mean squared error that counts (of values in 0..1), so that a picture that comes back whole has 60 dB
EXACT = 1e-6
#: levels of a byte in -1..1: in these an edge error is told
LEVELS = 127.5


@dataclass(frozen=True)
class Reconstructed:
    """Pictures and what a first stage gave back of them.

    Attributes:
        rows: which of the split they are.
        originals, copies: (n, C, H, W) float32 in [-1, 1], at the 256 levels of a saved file.
        latents: (n, *S) their latents.
    """

    rows: list[int]
    originals: Tensor
    copies: Tensor
    latents: Tensor


#: a further measurement: {name: metric} of pictures and what came back of them
Further = Callable[[Reconstructed], dict[str, dict[str, Any]]]


class StageEvaluator(Evaluator):
    """Peak signal-to-noise ratio and edge error of what a first stage gives back, beside two that know nothing.

    The floor keeps as many numbers as the latents have, and spends them on a smaller picture: the mean of each box of pixels,
    drawn large again. `mean_picture` is that of the training split, whatever the picture is.

    Args:
        held: the pictures that are measured.
        train: those of which the mean picture is made.
        further: more measurements of the same pictures, such as a judge's.
    """

    shares = False

    def __init__(self, held: Dataset, train: Dataset, split: str = "test", further: tuple[Further, ...] = ()) -> None:
        if not len(held) or not len(train):
            raise DataError(f"the split {split!r} or the training split holds no pictures.")
        self.held, self.train, self.split, self.further = held, train, split, further

    def check(self, model: Generator) -> None:
        if model.recipe.role != "first_stage":
            raise ConfigError(f"{model!r} is not a first stage: an autoencoder is measured by what it gives back.")

    def generate(self, model: Any, n: int, *, seed: int, **settings: Any) -> tuple[Reconstructed, dict[str, Any]]:
        """The first stage's copies of n pictures of the split, drawn at random where there are more."""
        if settings:
            raise ConfigError(f"{', '.join(settings)}: settings of sampling, and nothing is sampled from a first stage.")
        codec = model.codec
        for data in (self.held, self.train):
            data.prepare_for(codec, model.recipe)
        rows = draw(len(self.held), n, seed)
        items = [self.held[i][0] for i in rows]
        start = time.perf_counter()
        latents = model.encode(items)
        copies = list(model.decode(latents))
        seconds = time.perf_counter() - start
        originals = torch.stack([codec.encode(item) for item in items])
        # encoded again, copies are at the levels of a file
        made = Reconstructed(rows, originals, torch.stack([codec.encode(c) for c in copies]), latents.float().cpu())
        return made, {"pictures": len(rows), "seed": seed, "seconds": round(seconds, 1), "hardware": hardware()}

    def measure(self, made: Reconstructed, **options: Any) -> dict[str, Any]:
        originals = made.originals
        some = draw(len(self.train), AVERAGED, 0)
        size, channels = originals.shape[-1], originals.shape[1]
        mean = self._mean_picture(some, tuple(originals.shape[1:]))
        numbers = math.prod(made.latents.shape[1:])
        side = max(1, min(size, math.isqrt(numbers // channels)))
        small = F.interpolate(originals, (side, side), mode="area")
        boxed = quantised(F.interpolate(small, originals.shape[2:], mode="bilinear", align_corners=False))
        found = {}
        for name, measured, better, ceiling in (
            ("psnr", psnr, "higher", None),
            ("edge_error", edges, "lower", 0.0),
        ):
            value = measured(made.copies, originals)
            half = 1.96 * float(value.std()) / len(value) ** 0.5 if len(value) > 1 else 0.0
            found[name] = {
                "value": float(value.mean()),
                "interval": [float(value.mean()) - half, float(value.mean()) + half],
                "ceiling": ceiling,
                "floor": float(measured(boxed, originals).mean()),
                "mean_picture": float(measured(quantised(mean.expand_as(originals)), originals).mean()),
                "better": better,
            }
        deviation = float(made.latents.std()) if made.latents.numel() > 1 else 0.0
        found["latent_deviation"] = {"value": deviation, "ceiling": None, "floor": None, "better": "near 1"}
        for more in self.further:
            found |= more(made)
        return {
            "metrics": found,
            "protocol": {
                "split": self.split,
                "reference": f"{len(made.rows)} of the {len(self.held)} pictures of the {self.split} split",
                "psnr": "decibels, the mean over pictures; values are clamped and rounded to bytes as in a file",
                "edge_error": "mean absolute error of the differences between neighbouring pixels, in levels of 255",
                "floor": f"{side} x {side} means of boxes, as many as the latents have numbers ({numbers}), drawn large again",
                "mean_picture": f"the mean of {len(some)} training pictures",
            },
        }

    def _mean_picture(self, rows: list[int], shape: tuple[int, ...]) -> Tensor:
        """The mean of training pictures, (C, H, W)."""
        codec = ImageCodec(size=shape[1], channels=shape[0])
        total = torch.zeros(shape, dtype=torch.float64)
        for i in rows:
            total += codec.encode(self.train[i][0])
        return (total / len(rows)).float()


def quantised(x: Tensor) -> Tensor:
    """Pictures in [-1, 1] at the 256 levels of a file."""
    return ((x + 1) * LEVELS).round().clamp(0, 255) / LEVELS - 1


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (n,) in decibels of pictures (n, C, H, W) in [-1, 1], whose peak to peak is 2."""
    error = ((a - b) / 2).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp(min=EXACT))


def edges(a: Tensor, b: Tensor) -> Tensor:
    """The edge error (n,) of pictures (n, C, H, W) in [-1, 1], in levels of 255."""
    error = a - b
    parts = [error.diff(dim=axis).abs().flatten(1).mean(1) for axis in (2, 3)]
    return LEVELS * (parts[0] + parts[1]) / 2


def evaluator(
    source: str | Path, split: str, further: tuple[Further, ...] = (), skip_unreadable: bool = False
) -> StageEvaluator:
    """The evaluator of first stages on pictures, see `open_images`."""
    held, train = (open_images(source, part, skip_unreadable=skip_unreadable) for part in (split, "train"))
    return StageEvaluator(held, train, split, further)

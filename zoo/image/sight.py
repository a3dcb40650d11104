"""What a judge of the user's own pictures sees, and the features where there are no labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.contract.dataset import Dataset
from zoo.evaluation import own
from zoo.evaluation.judge import Features
from zoo.image.codec import ImageCodec, ImageSample, fit
from zoo.image.judge import Judge, fitted, load_judge
from zoo.model.loading import load

#: pixels of the largest pictures that a judge sees; larger ones are resized
LARGEST = 64
#: whose denoiser gives features, and the noise at which it is asked: t of 1000
DENOISER, TIME = "image/fashion-ddpm", 60


class ImageSight(own.Sight):
    """Pictures at the size and in the channels of a recipe, of at most 64 pixels.

    Training cuts out squares and changes colours a little. No flips: letters, clocks and left shoes are other things then.
    """

    kind = Judge
    augmentation: Mapping[str, Any] = {"crop": 0.2, "colour": 0.2}
    batch_size = 64
    lr = 4e-3

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.codec = ImageCodec(**{k: v for k, v in options.items() if k != "stage"})
        side = min(self.codec.size, LARGEST)
        self.shape = (self.codec.channels, side, side)

    def build(self, class_names: tuple[str, ...]) -> Judge:
        return Judge((32, 64, 128), class_names, shape=self.shape)

    def keep(self, item: Any) -> np.ndarray:
        picture = item.pil() if isinstance(item, ImageSample) else item
        picture = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))
        return np.asarray(fit(picture, self.codec.size, self.codec.channels))

    def see(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        return fitted(self.codec.encode(item)[None], self.shape)[0]

    @property
    def facts(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}


def natural(dataset: Dataset) -> dict[str, Any]:
    """Size and channels as most pictures of a dataset have them, by up to 50 of them: a multiple of 4 up to `LARGEST`."""
    rows = range(0, len(dataset), max(1, len(dataset) // 50))
    pictures = [np.asarray(dataset[i][0]) for i in rows]
    side = int(np.median([min(p.shape[:2]) for p in pictures]))
    grey = all(p.ndim == 2 or bool((p[..., :3] == p[..., :1]).all()) for p in pictures)
    return {"size": max(8, min(LARGEST, side // 4 * 4)), "channels": 1 if grey else 3}


def candidates() -> list[Features]:
    """Nets of ours that know nothing of the pictures' labels: the packaged judge, and the packaged denoiser.

    Both know grey pictures: each channel of one in colour is shown to them by itself.
    """
    judge, model = load_judge(), load(DENOISER, "cpu")

    def middle(x: Tensor) -> Tensor:
        return own.middle_features(model.denoiser, x, torch.full((len(x),), float(TIME)))

    return [
        Features("the packaged judge of clothes", partial(_by_channel, judge.embed)),
        Features(f"the denoiser of {DENOISER}", partial(_by_channel, middle)),
    ]


def _by_channel(net: Any, x: Tensor) -> Tensor:
    """Features (n, C * width) of pictures (n, C, H, W): those of each channel, at the size of the packaged nets."""
    grey = fitted(x.flatten(0, 1)[:, None], (1, 28, 28))
    found: Tensor = net(grey)
    return found.view(len(x), -1)

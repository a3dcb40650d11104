"""What training may do to pictures: flips, crops, colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field

from zoo.contract.augment import Augment, chance, uniform
from zoo.contract.codec import Codec
from zoo.image.codec import ImageSample

#: Pillow's modes on which all that is done here works; others become the nearest of these, as the codec does, too
MODES = ("L", "LA", "RGB", "RGBA")


class ImageAugment(Augment):
    """Flips, crops and colours of pictures. A flip changes what text, clocks and left shoes mean: only you know."""

    flip: float = Field(0.0, ge=0, le=1, description="share of the pictures that are mirrored left to right", examples=[0.5])
    flip_vertical: float = Field(0.0, ge=0, le=1, description="share that are turned upside down in a mirror", examples=[0.5])
    crop: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="a random square is cut out, up to this share smaller than the shorter side",
        examples=[0.3],
    )
    colour: float = Field(
        0.0, ge=0, lt=1, description="brightness, contrast and saturation each change by up to this share", examples=[0.3]
    )

    def apply(self, item: Any, given: Mapping[str, Any], rng: torch.Generator, codec: Codec) -> tuple[Any, Mapping[str, Any]]:
        picture, back = _picture(item)
        if chance(self.flip, rng):
            picture = ImageOps.mirror(picture)
        if chance(self.flip_vertical, rng):
            picture = ImageOps.flip(picture)
        if self.crop:
            side = max(1, round(min(picture.size) * uniform(1 - self.crop, 1, rng)))
            left, top = (int(torch.randint(length - side + 1, (), generator=rng)) for length in picture.size)
            picture = picture.crop((left, top, left + side, top + side))
        if self.colour:
            for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                picture = change(picture).enhance(uniform(1 - self.colour, 1 + self.colour, rng))
        return back(picture), given


def _picture(item: Any) -> tuple[Image.Image, Callable[[Image.Image], Any]]:
    """An item of a dataset as a picture of one of `MODES`, and the way back to an item of the same type."""
    if isinstance(item, Image.Image):
        if item.mode in MODES and "transparency" not in item.info:
            return item, lambda picture: picture
        clear = item.mode == "PA" or "transparency" in item.info
        grey = item.mode in ("1", "L")
        return item.convert("RGBA" if clear else "L" if grey else "RGB"), lambda picture: picture
    if isinstance(item, ImageSample):
        return item.pil(), lambda picture: ImageSample(np.asarray(picture))
    if isinstance(item, torch.Tensor):
        return Image.fromarray(item.cpu().numpy()), lambda picture: torch.from_numpy(np.array(picture))
    return Image.fromarray(item), np.asarray

"""Steers of pictures: a part that is known, a low resolution, a colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageColor
from torch import Tensor

from zoo.core.correction import Made, Steer
from zoo.core.measure import measure
from zoo.core.predict import Steering
from zoo.core.steer import Hold, mask_of
from zoo.errors import ConfigError
from zoo.image.codec import ImageCodec, ImageSample
from zoo.image.data import read_mask, read_picture
from zoo.values import number, several, whole


def made(make: Callable[[ImageCodec], Steering], gradients: bool, named: str, latent: bool) -> Steer:
    """A steer of pictures; `latent`: of those of latent models, too, which it sees decoded."""

    def checked(codec: Any) -> Steering:
        inner = getattr(codec, "inner", codec)
        if not isinstance(inner, ImageCodec):
            raise ConfigError(f"{named}: a steer of pictures, and this model's codec is a {type(inner).__name__}.")
        if inner is not codec and not latent:
            raise ConfigError(f"{named}: a latent model has no pixels to hold; use model.inpaint(picture, where).")
        return make(inner)

    return Made(checked, gradients, named)


def picture_of(value: Any, named: str) -> Any:
    """A picture, or the file of one."""
    if isinstance(value, (str, Path)):
        return read_picture(Path(value), str(value))
    if not isinstance(value, (Image.Image, ImageSample, np.ndarray, Tensor)):
        raise ConfigError(f"{named}: picture is a {type(value).__name__}; give a picture, uint8 pixels, or a path.")
    return value


def mask(picture: Any, where: Any) -> Steer:
    """Pictures of which a part is known: it is held, the rest is drawn.

    As `model.inpaint(picture, where)` with the method "replace"; the others are asked for there.

    Args:
        picture: as the codec encodes it, or the path of one.
        where: bool, broadcast to (C, H, W), True where it is kept; or the path of a .npy of it, or of a picture, of which what
            is brighter than the middle is kept.

    Raises:
        ConfigError: no picture. ShapeError: a mask that is not of bool, or does not fit (when it samples).
        DataError: a file that cannot be read.
    """
    known = picture_of(picture, "mask")
    if isinstance(where, (str, Path)):
        where = read_mask(Path(where))
    kept = mask_of(where)
    return made(lambda codec: Hold(codec.encode(known), kept), False, "mask", False)


def low_resolution(picture: Any, factor: int, *, noise: float = 0.05) -> Steer:
    """Pictures that are a given one when they are made smaller: a measurement by means over blocks, see `zoo.steer.measure`.

    Args:
        picture: the small picture, or the path of one: as many pixels as the model's have blocks; one of another size is
            made so large.
        factor: sides of a block, a divisor of the model's pixels.
        noise: standard deviation of each small pixel, of 2 from black to white.

    Raises:
        ConfigError: no picture; when it samples, a factor that does not divide. DataError: a file that cannot be read.
    """
    small, side = picture_of(picture, "low_resolution"), whole(factor, "factor", 2)
    spread = number(noise, "noise", 0, what="of 2 from black to white")

    def make(codec: ImageCodec) -> Steering:
        if codec.size % side:
            raise ConfigError(f"low_resolution: factor={side} does not divide the {codec.size} pixels of this model.")
        seen = ImageCodec(codec.size // side, codec.channels).encode(small)
        return measure(seen, lambda x0: F.avg_pool2d(x0, side), spread)

    return made(make, True, "low_resolution", True)


def colour(value: Any, *, noise: float = 0.02) -> Steer:
    """Pictures of a mean colour: a measurement of the mean over all pixels, see `zoo.steer.measure`.

    Args:
        value: a name or a code, "teal" or "#008080"; red, green and blue, 0 to 255; or one grey value, 0 to 255. For grey
            pictures a colour counts by its lightness.
        noise: standard deviation of the mean, of 2 from black to white.

    Raises:
        ConfigError: no colour.
    """
    spread = number(noise, "noise", 0, what="of 2 from black to white")
    bytes_: tuple[float, ...]
    if isinstance(value, str):
        try:
            bytes_ = ImageColor.getrgb(value)[:3]
        except ValueError:
            raise ConfigError(f"colour: {value!r}; give a name such as 'teal', '#008080', or 0 to 255.") from None
    else:
        given = several(value)
        given = [value] * 3 if given is None else given
        if len(given) != 3:
            raise ConfigError(f"colour: {value!r}; give red, green and blue, or one grey value, 0 to 255.")
        bytes_ = tuple(number(v, "colour", 0, 255) for v in given)
    rgb = torch.tensor([float(v) for v in bytes_]) / 127.5 - 1

    def make(codec: ImageCodec) -> Steering:
        # lightness as Pillow takes it of a colour (ITU-R 601-2)
        seen = rgb if codec.channels == 3 else (rgb * torch.tensor([0.299, 0.587, 0.114])).sum()[None]
        return measure(seen, lambda x0: x0.mean((2, 3)), spread, products=1)

    return made(make, True, "colour", True)

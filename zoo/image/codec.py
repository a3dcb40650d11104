"""Between pictures and encoded samples (C, H, W) in [-1, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.core.likelihood import Units
from zoo.disk import saving
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.values import plain


class ImageSample:
    """A picture: uint8 (H, W) grey or (H, W, 3) RGB."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels

    def numpy(self) -> NDArray[np.float32]:
        """(C, H, W) float32 in [-1, 1]."""
        chw = self.pixels[None] if self.pixels.ndim == 2 else self.pixels.transpose(2, 0, 1)
        return chw.astype(np.float32) / 127.5 - 1

    def pil(self) -> Image.Image:
        """The picture as a PIL image."""
        return Image.fromarray(self.pixels)

    def save(self, path: str | Path) -> Path:
        """Write the picture; the suffix names the format (PNG is lossless)."""
        path = Path(path)
        try:
            with saving(path) as temporary:
                self.pil().save(temporary)
        except ValueError as error:
            raise DataError(f"cannot save {path}: {error}. Use a .png name.") from error
        return path

    def plot(self, ax: Any = None) -> Any:
        """Draw on a matplotlib axis, or return the PIL image enlarged eight times."""
        if ax is None:
            w, h = self.pil().size
            return self.pil().resize((8 * w, 8 * h), Image.Resampling.NEAREST)
        return ax.imshow(self.pixels, cmap="gray", vmin=0, vmax=255)

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


class ImageCodec(Codec):
    """Pictures of one size and 1 (grey) or 3 (RGB) channels; bytes 0..255 become -1..1."""

    axes = ("channel", "height", "width")

    def __init__(self, size: int = 28, channels: int = 1) -> None:
        super().__init__()
        size, channels = plain(size), plain(channels)
        if channels not in (1, 3):
            raise ConfigError(f"image codec: channels={channels!r}; allowed are 1 (grey) and 3 (RGB).")
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"image codec: size={size!r}; give a whole number of pixels.")
        self.size, self.channels, self.shape = size, channels, (channels, size, size)

    def encode(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """A PIL image, an ImageSample or uint8 pixels (H, W[, 3]) -> (C, H, W); other sizes are resized and cropped."""
        pixels = item.pixels if isinstance(item, ImageSample) else item
        if isinstance(pixels, Tensor):
            pixels = pixels.cpu().numpy()
        if isinstance(pixels, np.ndarray):
            if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
                raise ShapeError(f"a picture must be uint8 (H, W) or (H, W, 3); got {pixels.dtype} {pixels.shape}.")
            if pixels.shape == ((self.size, self.size) if self.channels == 1 else (self.size, self.size, 3)):
                chw = pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)
                return torch.from_numpy(chw.astype(np.float32)) / 127.5 - 1
            pixels = Image.fromarray(pixels)
        return self.encode(np.asarray(fit(pixels, self.size, self.channels)))

    def in_units(self, x0: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1], black to white, which is how they are encoded."""
        return x0

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[ImageSample]:
        """(B, C, H, W) -> pictures, rounded to the nearest byte."""
        if tuple(x0.shape[1:]) != self.shape:
            raise ShapeError(f"encoded pictures {tuple(x0.shape)} must be (B, {', '.join(map(str, self.shape))}).")
        pixels = ((x0.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        return [ImageSample(p[0] if self.channels == 1 else np.ascontiguousarray(p.transpose(1, 2, 0))) for p in pixels]

    def density_units(self, x0: Tensor) -> Units:
        """Steps of 8-bit pictures: a byte is one of 256 steps of 1 / 127.5."""
        return Units("steps of 8-bit pictures", -x0.numel() * math.log(127.5), 1 / 127.5, (-1.0, 1.0))


def fit(
    picture: Image.Image, size: int, channels: int, margins: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """The largest centred square of a picture, resized; transparency is laid on white.

    Args:
        margins: pixels at the left, top, right and bottom that are not of the picture, also parts of one.
    """
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    picture = picture.convert("L" if channels == 1 else "RGB")
    if margins is not None:
        width, height = picture.width - margins[0] - margins[2], picture.height - margins[1] - margins[3]
        extent = min(width, height)
        x, y = margins[0] + (width - extent) / 2, margins[1] + (height - extent) / 2
        return picture.resize((size, size), Image.Resampling.LANCZOS, box=(x, y, x + extent, y + extent))
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    return picture if side == size else picture.resize((size, size), Image.Resampling.LANCZOS)

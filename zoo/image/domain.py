"""The image plug-in."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from zoo.contract.dataset import Dataset
from zoo.contract.domain import Domain, Generator
from zoo.contract.page import Gallery, Picture, Question, View
from zoo.contract.recipe import Recipe
from zoo.contract.samples import Samples
from zoo.errors import ConfigError
from zoo.image.augment import ImageAugment
from zoo.image.autoencoder import GridAutoencoder
from zoo.image.codec import ImageCodec
from zoo.image.data import SUFFIXES, Header, fitting, glance, open_images, read_picture
from zoo.image.recipes import RECIPES
from zoo.image.steers import colour, low_resolution, mask
from zoo.nets.grid import GridTransformer, GridUNet

#: pixels of the pictures that are learnt where nobody says it and the user's own are large enough
SIZE = 32
#: pixels of a letter under a picture, about, and lines of one text there at most
LETTER, LINES = 6, 2


def _lines(text: str, width: int) -> list[str]:
    """A text in up to `LINES` lines of so many pixels."""
    return textwrap.wrap(text, max(4, width // LETTER), max_lines=LINES, placeholder=" ...")


class ImageDomain(Domain):
    """Grey or RGB pictures."""

    name = "image"
    suffix = ".png"
    reads = SUFFIXES
    archives = ("fashion_mnist.npz", "emoji_styles.npz", "flowers64.npz", "tiles_dcss.npz")
    hub_task = "unconditional-image-generation"
    denoisers = {"unet": GridUNet, "transformer": GridTransformer, "autoencoder": GridAutoencoder}
    codecs = ImageCodec
    augmentations = ImageAugment
    inpainting = {"method": "posterior", "products": 1}
    steers = {"mask": mask, "low_resolution": low_resolution, "colour": colour}
    views = (Picture, Gallery)
    shown = 4
    opens = SUFFIXES

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_images(source, split, **options)

    def read(self, path: str | Path, recipe: Recipe) -> Any:
        """A picture, whole and upright."""
        return read_picture(Path(path), str(path))

    def suited(self, recipe: Recipe, source: str | Path, chosen: Collection[str] = ()) -> tuple[Recipe, str]:
        """Colour where a folder's pictures have it, and 32 pixels (or the model's, if more) where they have at least so many;
        and more guidance.

        A latent model has the pictures of its first stage.
        """
        seen = None if "codec" in chosen or recipe.stage is not None else glance(source)
        if seen is None:
            return recipe, ""
        sizes = [size for size in (recipe.codec.get("size", SIZE), SIZE) if SIZE <= size <= seen.side]
        wanted = {"channels": seen.channels} | ({"size": sizes[0]} if sizes else {})
        codec = recipe.codec | {k: v for k, v in wanted.items() if f"codec.{k}" not in chosen}
        said = ""
        if codec != recipe.codec:
            size, colour = codec["size"], "in colour" if seen.channels == 3 else "grey"
            said = (
                f"pictures: {colour}, {seen.side} pixels. The model's have {size} x {size} and {codec['channels']} channels; "
                "others: --set codec.size=64 --set codec.channels=1"
            )
        return recipe.guided(chosen).model_copy(update={"codec": codec}), said

    def data_options(self, recipe: Recipe) -> dict[str, Any]:
        """The size of the pictures: files are read only once, and at the size that is needed."""
        codec = self.codec(recipe.codec)
        return dict(fitting(codec, recipe)) if isinstance(codec, ImageCodec) else {}

    def traits(self, item: Any) -> dict[str, float | str]:
        """Width, height and mode of a picture."""
        picture = item if isinstance(item, (Image.Image, Header)) else Image.fromarray(getattr(item, "pixels", item))
        return {"width": picture.width, "height": picture.height, "mode": picture.mode}

    def plot(self, samples: Samples) -> Image.Image:
        """A grid, as square as it gets, enlarged, with what was asked for under the pictures."""
        n = len(samples)
        columns = math.ceil(math.sqrt(n))
        w, h = samples[0].pil().size
        zoom = max(1, math.ceil(84 / w))
        texts = [[line for word in samples.words(i) for line in _lines(word, w * zoom)] for i in range(n)]
        caption = 14 * max(map(len, texts))
        cell = (w * zoom + 4, h * zoom + 4 + caption)
        page = Image.new("RGB", (columns * cell[0], math.ceil(n / columns) * cell[1]), "white")
        draw = ImageDraw.Draw(page)
        for i, sample in enumerate(samples):
            x, y = i % columns * cell[0] + 2, i // columns * cell[1] + 2
            page.paste(sample.pil().resize((w * zoom, h * zoom), Image.Resampling.NEAREST).convert("RGB"), (x, y))
            for k, line in enumerate(texts[i]):
                draw.text((x, y + h * zoom + 1 + 14 * k), line, fill="black")
        return page

    def view(self, samples: Samples) -> tuple[View, ...]:
        """All of them in one picture, and each alone, enlarged."""
        return Picture(self.plot(samples)), Gallery([(s.plot(), " ".join(samples.words(i))) for i, s in enumerate(samples)])

    def edits(self, recipe: Recipe) -> dict[str, Question]:
        return {"mask": Question("mask", "Paint over what is to be made anew")}

    def edited(self, model: Generator, item: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
        """A mask (H, W) of any size, True where it was painted: a pixel of which any part was painted is made anew."""
        mask = answers.get("mask")
        if mask is None or not np.any(mask):
            raise ConfigError("nothing is painted: paint over the part of the picture that is to be made anew.")
        height, width = model.codec.inner.shape[-2:]
        painted = Image.fromarray(np.asarray(mask, bool)).convert("F").resize((width, height), Image.Resampling.BOX)
        new = np.asarray(painted) > 0
        return {"known": item, "where": ~new[None]}

    def sight(self, recipe: Recipe, dataset: Dataset | None = None) -> Any:
        from zoo.image.sight import ImageSight, natural

        return ImageSight(recipe.codec if dataset is None else recipe.codec | natural(dataset))

    def evaluator(
        self,
        data: str | Path | None = None,
        split: str = "test",
        model: Generator | None = None,
        judge: str | Path | None = None,
        skip_unreadable: bool = False,
    ) -> Any:
        from zoo.image.evaluate import evaluator

        return evaluator(data, split, model, judge, skip_unreadable)


DOMAIN = ImageDomain()

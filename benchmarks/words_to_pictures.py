"""Words to pictures: a row for each caption, a column for each drawing style, in one picture. The README's first one.

python benchmarks/words_to_pictures.py --out docs/words.png
python benchmarks/words_to_pictures.py runs/mine --text "a cat with a party hat" --text "blue car" --out words.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

import zoo
from zoo.contract.samples import save_picture
from zoo.errors import ConfigError

MODEL = "image/emoji-text"
#: captions of the README's picture
TEXTS = ("red sports car", "rocket", "cat with a party hat", "blue heart", "slice of cake", "house with garden")
#: pixels between pictures, and of the captions' margin for each letter
GAP, LETTER = 6, 8


def sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], columns: Sequence[str], side: int = 96) -> Image.Image:
    """Captions on the left, styles above, pictures between.

    Args:
        rows: of each caption its pictures, one for each of `columns`.
        side: pixels of each picture on the sheet.
    """
    font = ImageFont.load_default(14)
    left = LETTER * max(len(text) for text, _ in rows) + 2 * GAP
    top = 18 + GAP
    page = Image.new("RGB", (left + len(columns) * (side + GAP), top + len(rows) * (side + GAP)), "white")
    draw = ImageDraw.Draw(page)
    for c, name in enumerate(columns):
        draw.text((left + c * (side + GAP) + side / 2, GAP), name, "black", font, anchor="mt")
    for r, (text, pictures) in enumerate(rows):
        y = top + r * (side + GAP)
        draw.text((left - 2 * GAP, y + side / 2), text, "black", font, anchor="rm")
        for c, picture in enumerate(pictures):
            shown = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
            page.paste(shown, (left + c * (side + GAP), y))
    return page


def pictures_of(
    model: Any, texts: Sequence[str], styles: Sequence[str], seed: int, **settings: Any
) -> list[tuple[str, list[Image.Image]]]:
    """Of each text a picture in each style, all from one call; a model without styles draws as many as there are columns."""
    arguments: dict[str, Any] = {"text": [text for text in texts for _ in styles]}
    if "style" in model.recipe.conditions:
        arguments["style"] = list(styles) * len(texts)
    samples = model.sample(len(texts) * len(styles), seed=seed, **arguments, **settings)
    drawn = [sample.pil() for sample in samples]
    return [(text, drawn[i * len(styles) : (i + 1) * len(styles)]) for i, text in enumerate(texts)]


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, draw, write."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model", nargs="?", default=MODEL, help="a name, a folder or hub:owner/name (default %(default)s)")
    p.add_argument("--text", action="append", help="a caption; several times for several rows (default: the README's)")
    p.add_argument("--style", action="append", help="a style; several times for several columns (default: all of the model's)")
    p.add_argument("--out", type=Path, default=Path("words.png"), metavar="FILE")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int)
    p.add_argument("--guidance-weight", type=float)
    p.add_argument("--side", type=int, default=96, help="pixels of each picture on the sheet (default %(default)s)")
    args = p.parse_args(argv)

    model = zoo.load(args.model)
    if "text" not in model.recipe.conditions:
        raise ConfigError(f"{args.model} has no condition 'text'. Give a model that has: zoo list 'image/*'.")
    styles = args.style or list(model.recipe.classes("style")) or [str(i + 1) for i in range(4)]
    settings = {k: v for k, v in (("steps", args.steps), ("guidance_weight", args.guidance_weight)) if v is not None}
    rows = pictures_of(model, args.text or TEXTS, styles, args.seed, **settings)
    save_picture(sheet(rows, styles, args.side), args.out)
    print(f"{len(rows)} captions in {len(styles)} styles: {args.out}")


if __name__ == "__main__":
    main()

"""Pictures with captions, or labels, from the archives of arrays that recipes of this domain are trained on.

Nothing here is chosen by hand: what is held out of training is a fixed function of the captions.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from zoo.contract.conditions import Condition
from zoo.contract.dataset import Dataset
from zoo.contract.recipe import Recipe
from zoo.contract.text import Text
from zoo.data.archive import member_names, read_archive
from zoo.data.captions import Caption, drawn
from zoo.errors import DataError, one_of
from zoo.image.codec import ImageCodec

SPLITS = ("train", "validation", "test")
#: parts of what is held out: pairs of a caption and a style whose caption is in training in other styles, and captions that
#: are in training in no style
PARTS = ("pairs", "captions")
CAPTIONED_SPLITS = (*SPLITS, *(f"{split}-{part}" for split in ("validation", "test") for part in PARTS))
#: how many captions, and pairs of other captions, are held out of the archive's training rows for choices
HELD_CAPTIONS, HELD_PAIRS = 60, 250
#: pictures of a caption in training that make it one of those: with fewer, training would lose the thing
ENOUGH = 3
#: share of the training rows of other archives that is held out for choices
HELD_OUT = 0.05
#: {kind of archive: names that its arrays have}
ARCHIVES = {
    "styles": ("index64", "palette", "caption", "keywords", "style", "style_names", "split", "is_duplicate"),
    "tiles": ("rgba", "caption", "category", "is_test"),
    "photos": ("jpeg", "offsets", "label", "label_names", "source_file", "is_test"),
}


def archive_kind(path: Path) -> str | None:
    """Which of `ARCHIVES` a file is; None for another one."""
    found = member_names(path)
    return next((kind for kind, names in ARCHIVES.items() if set(names) <= set(found)), None)


class CaptionedImages(Dataset):
    """Pictures in memory, with a caption each, further words for it, and a label.

    Attributes:
        captions: of the rows.
        keywords: further words for each row's caption; empty where there are none.
        targets: (n,) int64 the number of each row's label.
        label_name: what the label is called: "style", "category".
        parts: of each row: "train", "pairs", "captions"; see `PARTS`.
        rows: (n,) int64 where each row is in its archive.
        is_duplicate: (n,) bool, whether the same picture is there under another caption.

    Args:
        pixels: uint8 (n, H, W, 3), or what gives such a picture by its row.
        box: pixels of each side that are averaged into one.
    """

    def __init__(
        self,
        pixels: Any,
        captions: Sequence[str],
        keywords: Sequence[tuple[str, ...]],
        targets: NDArray[Any],
        names: Sequence[str],
        label_name: str,
        parts: Sequence[str],
        rows: NDArray[Any],
        is_duplicate: NDArray[Any],
        box: int = 1,
    ) -> None:
        self.pixels, self.captions, self.keywords = pixels, list(captions), list(keywords)
        self.targets, self.label_name, self.labels = targets.astype(np.int64), label_name, {label_name: list(names)}
        self.parts, self.rows, self.is_duplicate, self.box = list(parts), rows.astype(np.int64), is_duplicate, box

    def __len__(self) -> int:
        return len(self.captions)

    def prepare_for(self, codec: nn.Module, recipe: Recipe) -> None:
        """Give pictures at the codec's size, where a box average leads to it; else the codec resizes them."""
        size = getattr(codec, "size", None)
        if isinstance(codec, ImageCodec):
            self.box = box_for(self.pixels.size, size)

    def picture(self, i: int) -> NDArray[np.uint8]:
        """(H, W, 3)."""
        return boxed(self.pixels[i], self.box)

    def conditions(self) -> dict[str, Condition]:
        return {"text": Text(), **super().conditions()}

    def given(self, i: int) -> dict[str, Any]:
        return {"text": self.captions[i], self.label_name: int(self.targets[i])}

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        return self.picture(i), self.given(i)

    def original(self, i: int) -> Any:
        return self.pixels[i]

    def draw(self, i: int, rng: torch.Generator) -> tuple[Any, dict[str, Any]]:
        """Sample i, of which some keywords take the caption's place now and then."""
        given = self.given(i) | {"text": drawn(Caption(self.captions[i], self.keywords[i]), rng)}
        return self.picture(i), given


class Palettes:
    """Pictures (side, side, 3) uint8 from palettes (n, 256, 3) and indices (n, side, side), looked up when asked for."""

    def __init__(self, index: NDArray[np.uint8], palette: NDArray[np.uint8]) -> None:
        self.index, self.palette = index, palette
        self.size = index.shape[1]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self.palette[i].take(self.index[i], axis=0)
        return picture


class Pictures:
    """Pictures (n, side, side, 3) uint8 as they are."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels, self.size = pixels, pixels.shape[1]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self.pixels[i]
        return picture


def box_for(side: int, wanted: int | None) -> int:
    """How many pixels of a side become one for pictures of `wanted` pixels; 1 where no whole number does."""
    return side // wanted if wanted and side % wanted == 0 else 1


def boxed(picture: NDArray[np.uint8], box: int) -> NDArray[np.uint8]:
    """A picture (H, W, 3) whose boxes of box x box pixels are averaged, rounded to the nearest byte."""
    if box == 1:
        return picture
    height, width, channels = picture.shape
    total = picture.reshape(height // box, box, width // box, box, channels).sum((1, 3), dtype=np.uint32)
    found: NDArray[np.uint8] = ((total + box * box // 2) // (box * box)).astype(np.uint8)
    return found


def order_of(texts: Sequence[str], purpose: str) -> list[str]:
    """The different texts in an order that looks random and never changes: by the SHA-256 of purpose and text."""
    return sorted(set(texts), key=lambda text: hashlib.sha256(f"{purpose}:{text}".encode()).hexdigest())


def held_out_rows(
    captions: Sequence[str],
    styles: Sequence[int],
    twins: Sequence[Hashable],
    *,
    n_captions: int = HELD_CAPTIONS,
    n_pairs: int = HELD_PAIRS,
) -> list[str]:
    """For each training row "train", "pairs" or "captions": what is held out of training for choices.

    Args:
        captions, styles: of the rows.
        twins: of each row what is the same for the same picture: a picture that is also in training is never held out.
        n_captions, n_pairs: how many captions, and pairs of others with a style, are held out.
    """
    count = Counter(captions)
    owners: dict[Hashable, set[str]] = defaultdict(set)
    seen = Counter(twins)
    for caption, twin in zip(captions, twins, strict=True):
        owners[twin].add(caption)
    shared = {caption for caption, twin in zip(captions, twins, strict=True) if len(owners[twin]) > 1}
    usable = [c for c in count if count[c] >= ENOUGH and c not in shared]
    chosen = set(order_of(usable, "captions")[:n_captions])
    others = set(usable) - chosen
    own = [i for i, c in enumerate(captions) if c in others]
    one: dict[str, int] = {}
    by_pair = Counter(zip(captions, styles, strict=True))
    for pair in order_of([f"{captions[i]}/{styles[i]}/{i}" for i in own], "pairs"):
        i = int(pair.rsplit("/", 1)[1])
        if seen[twins[i]] == 1 and by_pair[captions[i], styles[i]] == 1:
            one.setdefault(captions[i], i)
    pairs = {one[c] for c in order_of(list(one), "pairs")[:n_pairs]}
    return ["captions" if c in chosen else "pairs" if i in pairs else "train" for i, c in enumerate(captions)]


def open_archive(path: Path, kind: str, split: str = "train", size: int | None = None) -> Dataset:
    """The rows of a split of an archive.

    Args:
        kind: of `ARCHIVES`.
        split: "train", "validation" or "test"; of pictures in styles also a part, such as "test-pairs".
        size: pixels that the pictures are to have, where a box average leads to it.

    Raises:
        ConfigError: an unknown split. DataError: an archive that is damaged, or of another form than its names say.
    """
    allowed = CAPTIONED_SPLITS if kind == "styles" else SPLITS
    if split not in allowed:
        raise one_of("split", split, allowed)
    arrays = read_archive(path, ARCHIVES[kind], "an archive of pictures")
    check_lengths(path, kind, arrays)
    if kind == "styles":
        return _styles(arrays, split, size, path)
    return _tiles(arrays, split, size, path) if kind == "tiles" else _photos(arrays, split, path)


def check_lengths(path: Path, kind: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse an archive whose arrays do not belong together."""
    n = len(arrays["caption" if "caption" in arrays else "label"])
    odd = {k: len(v) for k, v in arrays.items() if len(v) != n and not k.endswith("_names") and k not in ("jpeg", "offsets")}
    if odd or not n:
        raise DataError(f"{path}: {n} rows, but {', '.join(f'{v} of {k}' for k, v in odd.items()) or 'none'}.")
    forms = {"index64": (np.uint8, 3), "palette": (np.uint8, 3), "rgba": (np.uint8, 4), "jpeg": (np.uint8, 1)}
    for name, (dtype, ndim) in forms.items():
        if name in arrays and (arrays[name].dtype != dtype or arrays[name].ndim != ndim):
            raise DataError(f"{path}: {name} is {arrays[name].dtype} {arrays[name].shape}, not bytes with {ndim} axes.")


def _styles(arrays: Mapping[str, NDArray[Any]], split: str, size: int | None, path: Path) -> CaptionedImages:
    """Captioned pictures in drawing styles: `emoji_styles.npz`."""
    index, palette, where = arrays["index64"], arrays["palette"], arrays["split"]
    names, styles = [str(s) for s in arrays["style_names"]], arrays["style"].astype(np.int64)
    if palette.shape[1:] != (256, 3) or index.shape[1] != index.shape[2] or styles.min() < 0 or styles.max() >= len(names):
        raise DataError(f"{path}: palettes {palette.shape}, indices {index.shape} or the styles of the rows do not fit.")
    captions = [str(c) for c in arrays["caption"]]
    parts = np.array(["out"] * len(captions), dtype="<U8")
    parts[where == 1], parts[where == 2] = "pairs", "captions"
    own = np.flatnonzero(where == 0)
    twins = [hash(palette[i][index[i]].tobytes()) for i in own]  # only whether two are equal is asked
    held = np.array(held_out_rows([captions[i] for i in own], styles[own].tolist(), twins))
    parts[own] = held
    name, _, part = split.partition("-")
    here = np.isin(where, (1, 2)) if name == "test" else np.zeros(len(captions), dtype=bool)
    if name != "test":
        here[own] = (held == "train") == (name == "train")
    rows = np.flatnonzero(here & (parts == part if part else True))
    keywords = [tuple(w.replace("_", " ") for w in str(k).split("|") if w) for k in arrays["keywords"][rows]]
    return CaptionedImages(
        Palettes(index[rows], palette[rows]),
        [captions[i] for i in rows],
        keywords,
        styles[rows],
        names,
        "style",
        [str(p) for p in parts[rows]],
        rows,
        arrays["is_duplicate"][rows],
        box_for(index.shape[1], size),
    )


def _split_rows(texts: Sequence[str], is_test: NDArray[Any], split: str) -> NDArray[np.int64]:
    """Rows of a split of an archive that says only what is for tests: of the others' texts some are held out for choices."""
    own = order_of([t for t, test in zip(texts, is_test, strict=True) if not test], "validation")
    held = set(own[: round(HELD_OUT * len(own))])
    wanted = {
        "train": [not test and t not in held for t, test in zip(texts, is_test, strict=True)],
        "validation": [not test and t in held for t, test in zip(texts, is_test, strict=True)],
        "test": [bool(test) for test in is_test],
    }[split]
    return np.flatnonzero(wanted)


def _tiles(arrays: Mapping[str, NDArray[Any]], split: str, size: int | None, path: Path) -> CaptionedImages:
    """Captioned tiles, laid on white: `tiles_dcss.npz`."""
    captions = [str(c) for c in arrays["caption"]]
    rows = _split_rows(captions, arrays["is_test"], split)
    names = sorted({str(c) for c in arrays["category"]})
    number = {name: k for k, name in enumerate(names)}
    rgba = arrays["rgba"][rows].astype(np.uint32)
    if rgba.shape[1] != rgba.shape[2] or rgba.shape[3] != 4:
        raise DataError(f"{path}: pictures {rgba.shape[1:]} are not square RGBA ones.")
    alpha = rgba[..., 3:]
    pixels = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return CaptionedImages(
        Pictures(pixels),
        [captions[i] for i in rows],
        [()] * len(rows),
        np.array([number[str(arrays["category"][i])] for i in rows]),
        names,
        "category",
        ["train" if split == "train" else "captions"] * len(rows),
        rows,
        np.zeros(len(rows), dtype=bool),
        box_for(pixels.shape[1], size),
    )


class LabelledPhotos(Dataset):
    """Photographs (n, H, W, 3) uint8 in memory, with labels (n,); `rows` says where each is in its archive."""

    def __init__(self, pixels: NDArray[np.uint8], targets: NDArray[Any], names: Sequence[str], rows: NDArray[Any]) -> None:
        self.pixels, self.targets, self.rows = pixels, targets.astype(np.int64), rows
        self.labels = {"label": list(names)}

    def __len__(self) -> int:
        return len(self.pixels)

    def given(self, i: int) -> dict[str, Any]:
        return {"label": int(self.targets[i])}

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        return self.pixels[i], self.given(i)


def _photos(arrays: Mapping[str, NDArray[Any]], split: str, path: Path) -> LabelledPhotos:
    """Photographs with labels: `flowers64.npz`."""
    rows = _split_rows([str(f) for f in arrays["source_file"]], arrays["is_test"], split)
    data, offsets = arrays["jpeg"], arrays["offsets"]
    if len(offsets) != len(arrays["label"]) + 1:
        raise DataError(f"{path}: {len(arrays['label'])} labels, but the offsets of {len(offsets) - 1} pictures.")
    pictures = []
    for i in rows:
        try:
            with Image.open(io.BytesIO(data[offsets[i] : offsets[i + 1]].tobytes()), formats=["JPEG"]) as picture:
                pictures.append(np.asarray(picture.convert("RGB")))
        except Exception as error:  # whatever damaged bytes led to
            raise DataError(f"{path}: picture {i} cannot be read: {error}.") from error
    if len({p.shape for p in pictures}) != 1:
        raise DataError(f"{path}: the pictures have different sizes; they must have one.")
    names = [str(n) for n in arrays["label_names"]]
    return LabelledPhotos(np.stack(pictures), arrays["label"][rows], names, rows)

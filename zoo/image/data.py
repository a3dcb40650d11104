"""Pictures to train on: Fashion-MNIST, and any folder of pictures that Pillow reads by itself."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import nn

from zoo.contract.conditions import Condition
from zoo.contract.dataset import Dataset
from zoo.contract.recipe import Recipe
from zoo.contract.text import Text
from zoo.data.archive import read_archive, read_array, read_gzip
from zoo.data.cache import cache_folder, download, md5
from zoo.data.captions import captions_file, drawn, read_captions
from zoo.data.decoded import Entry, Store, prepared, store
from zoo.data.folder import Folder, choose, existing, search, threads_of_reading
from zoo.data.table import Part, Rows, Table, is_table, open_rows, table_options
from zoo.errors import ConfigError, DataError, one_of
from zoo.image.captions import archive_kind, open_archive
from zoo.image.codec import ImageCodec, fit
from zoo.image.recipes import FASHION

#: {Pillow's name of a format: suffixes}. Of all that Pillow knows those are missing that it reads by running another program
#: (EPS), that are stubs of other libraries, and that hold layers (PSD), fonts, films or palettes.
FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "ICO": (".ico",),
    "ICNS": (".icns",),
    "PCX": (".pcx",),
    "DDS": (".dds",),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "SUN": (".ras",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
#: what stands for white in a picture of whole numbers or of floats whose file does not say it: the least that fits
WHITE = {"int": (255.0, 65535.0, 2147483647.0, 4294967295.0), "float": (1.0, 255.0, 65535.0)}
#: how a picture is brought upright, by its EXIF orientation
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: pixels that a JPEG is decoded to for each pixel that is needed: with fewer, what decoding leaves out would show
ENOUGH = 2
#: (rows, columns) of the left, top, right and bottom pixels around the middle one of 3 x 3
MIDDLES = ((1, 0, 1, 2), (0, 1, 2, 1))
MOST_IDX = 2**28  # bytes of an unpacked file of MNIST's format; Fashion-MNIST's largest has 47 MB
HELD_OUT = 5_000  # of the training rows: nothing trains on them, choices are made on them


class ArrayImages(Dataset):
    """Pictures in memory: uint8 (n, H, W) or (n, H, W, 3), and labels (n,) or None."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray | None, names: Sequence[str]) -> None:
        self.pixels, self.targets = pixels, labels
        self.labels = {} if labels is None else {"label": list(names)}

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        return self.pixels[i], {} if self.targets is None else {"label": int(self.targets[i])}


def fashion_mnist(source: str | Path, split: str = "train") -> ArrayImages:
    """Fashion-MNIST from `fashion_mnist.npz`, or from a folder with it or with the four original .gz files.

    "test" is the official test set; "validation" the last 5,000 training rows, which "train" leaves out.

    Raises:
        DataError: a file that is missing, damaged or of another form, or too few training rows to hold any out.
    """
    path = Path(source)
    if path.is_dir():
        npz = path / "fashion_mnist.npz"
        path = npz if npz.exists() else path
    if path.is_dir():
        part = "t10k" if split == "test" else "train"
        images, labels = (read_idx(path / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    else:
        part = "test" if split == "test" else "train"
        images, labels = read_archive(path, (f"{part}_images", f"{part}_labels"), "Fashion-MNIST").values()
    fits = images.dtype == np.uint8 and images.ndim == 3 and images.shape[1:] == (28, 28) and labels.shape == images.shape[:1]
    if not fits or not np.isin(labels, np.arange(len(FASHION))).all():
        raise DataError(
            f"{path} is not Fashion-MNIST: images {images.shape} {images.dtype} and labels {labels.shape}; it needs uint8 "
            f"(n, 28, 28) and n labels below {len(FASHION)}."
        )
    if split != "test" and len(images) <= HELD_OUT:
        raise DataError(f"{path} has {len(images):,} training rows; more than {HELD_OUT:,} are needed, which are held out.")
    rows = {"train": slice(0, -HELD_OUT), "validation": slice(-HELD_OUT, None), "test": slice(None)}[split]
    return ArrayImages(images[rows], labels[rows], FASHION)


def read_idx(path: Path) -> np.ndarray:
    """An array of the original MNIST format (gzip, big-endian header)."""
    data = read_gzip(path, MOST_IDX, "a file of MNIST's format")
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path} is not an IDX file of bytes.")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3]))
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if body.size != math.prod(shape):
        raise DataError(f"{path} holds {body.size} bytes, its header says {shape}.")
    return body.reshape(shape)


PUBLIC = "fashion-mnist"  # the name by which users ask for the public data
#: the public home of the data, with the MD5 sums that its authors publish
FASHION_HOME = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def download_fashion_mnist(folder: str | Path, home: str | None = None) -> Path:
    """Fetch the four files into `folder`, each checked by hash before it gets its name. Whole ones are not fetched again."""
    from zoo.files import write_atomic

    folder, home = Path(folder), home or FASHION_HOME
    for name, digest in FASHION_FILES.items():
        path = folder / name
        if not path.exists() or md5(path.read_bytes()) != digest:
            write_atomic(path, download(home + name, advice=f"Put the file into {folder} by hand.", expected_md5=digest))
    return folder


@dataclass
class Seen:
    """What is said once of many pictures that were read.

    Attributes:
        largest: {"int" or "float": the largest value} of pictures that do not say which value is white.
        frames: of how many frames only the first was taken, by name of the picture ("several" where it is not counted).
        margins: of one picture that was decoded at a part of its size, see `zoo.image.codec.fit`.
    """

    largest: dict[str, float] = field(default_factory=dict)
    frames: list[str] = field(default_factory=list)
    margins: tuple[float, float, float, float] | None = None

    def add(self, other: Seen) -> None:
        """Take in what was seen of another picture."""
        for kind, largest in other.largest.items():
            self.largest[kind] = max(self.largest.get(kind, 0.0), largest)
        self.frames += other.frames

    def white(self, kind: str) -> float:
        """What stands for white in all these pictures: the least of `WHITE` that is not below any of their values."""
        return next(w for w in WHITE[kind] if w >= self.largest[kind])


def read_picture(
    source: Path | io.BytesIO, name: str, seen: Seen | None = None, white: Seen | None = None, *, least: int = 0
) -> Image.Image:
    """Read one picture whole and upright; of several frames the first.

    Greys of more than 8 bits come out as 8 bits: 16 bits by their full range. Whole numbers of 32 bits and floats have no
    white of their own: it is the least of `WHITE` that fits the picture, or all pictures that `white` has seen.

    Args:
        seen: gets what is to be said of the picture.
        least: pixels of each side that are enough: a larger JPEG is decoded at 1/2, 1/4 or 1/8 of its size, where that leaves
            as many. To make a tenth of the pixels takes a third of the time. 0: as it is.

    Raises:
        DataError: a truncated or foreign file, or values without a meaning (negative, NaN, too large); it is named.
    """
    try:
        # of the known formats only, whatever the suffix says: Pillow reads EPS by running Ghostscript on it
        with Image.open(source, formats=_formats()) as picture:
            several = bool(getattr(picture, "is_animated", False))
            picture.seek(0)
            seen, (width, height) = seen or Seen(), picture.size
            if least and picture.draft(None, (least, least)) is not None and picture.width < width:
                # the last row and column stand for less than a whole pixel where the size is no multiple
                scale = next(s for s in (2, 4, 8) if picture.size == (-(-width // s), -(-height // s)))
                seen.margins = (0.0, 0.0, picture.width - width / scale, picture.height - height / scale)
            picture.load()
            result = _upright(_eight_bits(picture, name, seen, white), seen)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not a picture of a kind that is read. Save it as PNG") from error
    except Exception as error:  # the decoders of twenty formats raise whatever a damaged byte led to
        raise DataError(f"{name}: {error or type(error).__name__}") from error
    if several:
        seen.frames.append(name)
    return result


def read_mask(path: Path) -> NDArray[Any]:
    """A mask from a file: a .npy as it is, or a picture (H, W) bool, of which what is brighter than the middle is True.

    Raises:
        DataError: a file that cannot be read.
    """
    if path.suffix == ".npy":
        return read_array(path, "a mask")
    return np.asarray(read_picture(path, str(path)).convert("L")) > 127


def _formats() -> list[str]:
    """The formats that this Pillow has been built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _orientation(picture: Image.Image) -> int | None:
    """The picture's EXIF orientation, if it has one."""
    try:
        found: int | None = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data, which viewers pass over, too
        return None
    return found


def _upright(picture: Image.Image, seen: Seen) -> Image.Image:
    """The picture as a viewer shows it, its margins too. Pillow turns TIFF by itself, and then says so in the EXIF data."""
    turn = _orientation(picture)
    if turn not in UPRIGHT:
        return picture.copy()
    if seen.margins is not None:  # they turn as the four middles of a border around one pixel
        sides = np.zeros((3, 3), np.float32)
        sides[MIDDLES] = seen.margins
        left, top, right, bottom = np.asarray(Image.fromarray(sides).transpose(UPRIGHT[turn]))[MIDDLES].tolist()
        seen.margins = (left, top, right, bottom)
    return picture.transpose(UPRIGHT[turn])


def _eight_bits(picture: Image.Image, name: str, seen: Seen, white: Seen | None) -> Image.Image:
    """The picture with 8 bits a channel, where it has more."""
    if picture.mode == "LAB":
        raise DataError(f"{name}: colours in LAB. Save the picture as RGB.")
    tags = picture.tag_v2 if hasattr(picture, "tag_v2") else {}  # of a TIFF
    bits, unsigned = tags.get(258, (0,))[0], tags.get(339, (1,))[0] == 1  # BitsPerSample, SampleFormat
    if picture.mode != "F" and not picture.mode.startswith("I"):
        if tags.get(339, (1,))[0] == 2:  # Pillow takes -1 for 255
            raise DataError(f"{name}: signed numbers of {bits} bits. Save the picture with unsigned ones.")
        return picture
    values = np.asarray(picture)
    if picture.mode == "I" and bits == 32 and unsigned:
        values = values.view(np.uint32)  # Pillow has no such mode
    kind = "float" if picture.mode == "F" else "int"
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > WHITE[kind][-1]:
        raise DataError(
            f"{name}: values {values.min():.10g} to {values.max():.10g}; a picture of {kind} values holds numbers from 0 to "
            f"{WHITE[kind][-1]:.10g}. Scale them first."
        )
    if picture.mode.startswith("I;16"):
        most = 4095.0 if bits == 12 else 65535.0
    elif picture.mode == "I" and picture.format in ("PNG", "PPM", "JPEG2000"):  # Pillow has brought them to 16 bits
        most = 65535.0
    elif picture.mode == "I" and bits == 16:  # signed
        most = 32767.0
    else:
        seen.largest[kind] = max(seen.largest.get(kind, 0.0), float(values.max()))
        most = (white or Seen({kind: float(values.max())})).white(kind)
        if values.max() > most:
            raise DataError(f"{name}: {kind} values up to {values.max():.10g}, and white is {most:.10g}. Scale them first.")
    grey = _bytes(values, most)
    if tags.get(262) == 0 and picture.mode != "1":  # WhiteIsZero: Pillow inverts 8 bits only
        grey = 255 - grey
    result = Image.fromarray(grey)
    if isinstance(clear := picture.info.get("transparency"), int):  # a value of the 16 bits
        result = Image.merge("LA", (result, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))))
    result.info |= {key: value for key, value in picture.info.items() if key in ("exif", "xmp", "XML:com.adobe.xmp")}
    return result


def _bytes(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """Values 0 to `white` as 0 to 255."""
    return np.rint(values.astype(np.float64) * (255.0 / white)).clip(0, 255).astype(np.uint8)


#: of how many pictures of a folder is looked whether they have colour; the share of them that makes it one in colour; by how
#: many of 256 levels their channels differ
GLANCES, COLOURED, COLOUR_LEVELS = 64, 0.05, 2.0
#: pixels at which that is looked at
SIDE = 32


@dataclass(frozen=True)
class Glance:
    """What most pictures of a folder are like: the median of their shorter sides (pixels), and 1 or 3 channels."""

    side: int
    channels: int


def glance(source: str | Path) -> Glance | None:
    """What the pictures of a folder are like, by some of them, always the same ones; None for anything else than such a folder.

    Pictures that cannot be read are passed over here: they are named when the folder is opened.
    """
    folder = Path(source)
    if not folder.is_dir() or (folder / "fashion_mnist.npz").exists():
        return None
    files = search(folder, lambda p: p.suffix.lower() in SUFFIXES).files
    sides, coloured = [], []
    for path in files[:: max(1, len(files) // GLANCES)]:
        try:
            with Image.open(path, formats=_formats()) as header:
                sides.append(min(header.size))
            pixels = np.asarray(fit(read_picture(path, str(path), least=SIDE), SIDE, 3)).astype(float)
            coloured.append(float(np.ptp(pixels, axis=-1).mean()) > COLOUR_LEVELS)
        except Exception:  # whatever a damaged file led to
            continue
    if not coloured:
        return None
    return Glance(int(np.median(sides)), 3 if np.mean(coloured) >= COLOURED else 1)


def fitting(codec: ImageCodec, recipe: Recipe) -> dict[str, int]:
    """The size and channels that pictures are read at: twice the codec's size where training cuts random parts out of them."""
    room = 2 if getattr(recipe, "augment", {}).get("crop") else 1
    return {"size": room * codec.size, "channels": codec.channels}


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture's file say: pixels, and Pillow's mode."""

    width: int
    height: int
    mode: str


#: EXIF orientations of pictures that lie on their side
SIDEWAYS = (5, 6, 7, 8)


class _Fitted:
    """Pictures that are read when they are asked for: as they are, or at one size, kept in the cache of decoded files.

    Attributes:
        size, channels: of the pictures, uint8 (size, size[, 3]); None: each is a PIL image as its file holds it.
        cache: None for none.
    """

    size: int | None = None
    channels: int | None = None
    cache: Store | None = None

    def at(self, size: int, channels: int) -> None:
        """From now on as the largest centred square, resized to `size` pixels, with 1 (grey) or 3 (RGB) channels."""
        self.size, self.channels = size, channels

    def prepare_for(self, codec: nn.Module, recipe: Recipe) -> None:
        if isinstance(codec, ImageCodec):
            self.at(**fitting(codec, recipe))

    def fitted(self, source: Path | bytes, name: str, seen: Seen, white: Seen | None = None) -> NDArray[np.uint8]:
        """One picture at the size; errors as `read_picture`.

        Args:
            seen: gets what is to be said of the picture, also where it comes from the cache.
        """
        size, channels = self.size or 1, self.channels or 1

        def make(data: bytes) -> Entry:
            own = Seen()
            picture = read_picture(io.BytesIO(data), name, own, white, least=ENOUGH * size)
            seen.add(Seen(own.largest))
            # where a picture does not say what is white, its greys hang on the others of the folder
            facts = {"frames": bool(own.frames)}
            return Entry({"pixels": np.asarray(fit(picture, size, channels, own.margins))}, facts, keep=not own.largest)

        try:
            found = prepared(self.cache, source, {"kind": "picture", "size": size, "channels": channels}, make)
        except OSError as error:
            raise DataError(f"{name}: {error}") from error
        if found.facts["frames"]:
            seen.frames.append(name)
        return found.arrays["pixels"]


class TableImages(_Fitted, Table):
    """Pictures of a Hub dataset or of Parquet files, see `zoo.data.table.open_rows`; labels where it has a column of them.

    No row is read before it is asked for, so white is fixed where a picture does not say it: 1 for floats, 2**32 - 1 for whole
    numbers of 32 bits.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__(rows)
        self.cache = store()

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        data, name, cond = self.item(i, "image")
        white = Seen({"float": 1.0, "int": WHITE["int"][-1]})
        if self.size is None:
            return read_picture(io.BytesIO(data), name, white=white), cond
        return self.fitted(data, name, Seen(), white), cond


class ImageFolder(_Fitted, Folder):
    """All pictures below a folder, see `zoo.data.folder.Folder`; upright, 8 bits a channel, of films the first frame.

    Args:
        size, channels: what the pictures are fitted to, see `at`; None: they come as they are, and nothing is kept of them.
        beside: a file that is read beside the pictures, such as their captions.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        *,
        skip_unreadable: bool = False,
        size: int | None = None,
        channels: int | None = None,
        beside: Path | None = None,
    ) -> None:
        self.size, self.channels, self.cache = size, channels, store()
        found: dict[Path, Seen] = {}

        def look(path: Path) -> None:
            found[path] = own = Seen()
            if self.size is None:
                read_picture(path, str(path), own)
            else:
                self.fitted(path, str(path), own)

        threads = threads_of_reading()
        super().__init__(folder, split, SUFFIXES, "picture", look, skip_unreadable, threads=threads, beside=beside)
        self.seen = Seen()
        for path in sorted(found):
            self.seen.add(found[path])
        for kind, largest in self.seen.largest.items():
            warnings.warn(
                f"{self.folder}: pictures of {kind} values up to {largest:.10g}: "
                f"white is taken to be {self.seen.white(kind):.10g}.",
                stacklevel=2,
            )
        if frames := self.seen.frames:
            warnings.warn(f"{len(frames)} picture(s) have several frames, of which the first counts: {frames[0]}", stacklevel=2)

    def open(self, path: Path) -> Image.Image:
        """Read one picture whole, on the grey scale of the whole folder; errors as `read_picture`."""
        return read_picture(path, str(path), white=self.seen)

    def original(self, i: int) -> Header:
        """Size and mode of picture i in its file, as it is shown."""
        with Image.open(self.files[i], formats=_formats()) as picture:
            width, height = picture.size[::-1] if _orientation(picture) in SIDEWAYS else picture.size
            return Header(width, height, picture.mode)

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        path = self.files[i]
        if self.size is None:
            return self.open(path), self.given(i)
        return self.fitted(path, str(path), Seen(), self.seen), self.given(i)


class CaptionedFolder(ImageFolder):
    """The pictures of a folder that a file of captions names, see `zoo.data.captions`; folders of classes are labels as ever.

    Args:
        captions: the file, by its own path or by its name in the folder.
    """

    def __init__(self, folder: str | Path, split: str, captions: str | Path, **options: Any) -> None:
        folder = existing(folder, "a folder of pictures")
        if not folder.is_dir():
            raise DataError(f"{folder} is one file: captions are of the pictures of a folder.")
        path = captions_file(captions, folder)
        found = {file.resolve(): caption for file, caption in read_captions(path).items()}
        super().__init__(folder, split, beside=path, **options)
        self.captions = {p: found[p.resolve()] for p in self.readable if p.resolve() in found}
        silent = len(self.readable) - len(self.captions)
        if not self.captions:
            raise DataError(f"{path} names no picture of {folder}.")
        if outside := len(found) - len({p.resolve() for p in self.captions}):
            raise DataError(f"{path} names {outside} file(s) that are not among the readable pictures of {folder}.")
        self.readable = [p for p in self.readable if p in self.captions]
        self._splits = {p: s for p, s in self._splits.items() if p in self.captions}
        self.files = choose(split, self._splits, self.readable)
        if not self.files:
            raise DataError(f"{path} leaves no captioned picture for the split {split!r}.")
        if silent:
            self._left_out = ", ".join(w for w in (self._left_out, f"{silent} without a caption") if w)
            warnings.warn(f"{folder}: {silent} picture(s) without a caption in {path.name} are left out.", stacklevel=2)
        if len(self.labels.get("label", [])) == 1:  # one folder of all pictures is no class
            self.labels, self._classes = {}, {}
        self.origin = f"{len(self.files)} captioned pictures of the folder {folder.resolve().name!r}"

    def conditions(self) -> dict[str, Condition]:
        return {"text": Text(), **super().conditions()}

    def given(self, i: int) -> dict[str, Any]:
        return {"text": self.captions[self.files[i]].text, **super().given(i)}

    def draw(self, i: int, rng: torch.Generator) -> tuple[Any, dict[str, Any]]:
        item, given = self[i]
        return item, given | {"text": drawn(self.captions[self.files[i]], rng)}


def kind_of_archive(source: str | Path) -> str | None:
    """Which archive of pictures with captions or labels a source is, see `zoo.image.captions.ARCHIVES`; None for another."""
    if not isinstance(source, (str, os.PathLike)) or not str(source).endswith(".npz"):
        return None
    path = Path(source).expanduser()
    return archive_kind(path) if path.is_file() else None


def open_images(
    source: str | Path,
    split: str = "train",
    *,
    skip_unreadable: bool = False,
    size: int | None = None,
    channels: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    captions: str | Path | None = None,
    **table: Any,
) -> Dataset:
    """Fashion-MNIST (the .npz or the .gz files), an archive of pictures with captions or labels, a folder of pictures, a Hub
    dataset or Parquet files, whichever it is.

    Args:
        source: a path; "hub:owner/name[@revision]"; or "fashion-mnist", where nothing of that name exists: the public
            data, fetched once into $ZOO_CACHE (~/.cache/zoo).
        skip_unreadable: of a folder: leave unreadable files out.
        size, channels: of a folder, Hub dataset or Parquet files: what the pictures are fitted to, see `ImageFolder`.
        captions: of a folder: the file that says what its pictures show, see `CaptionedFolder`.
        image_column, label_column, **table: of a Hub dataset or Parquet files, see `zoo.data.table.open_rows`.
    """
    kind = kind_of_archive(source)
    if captions is not None and (kind is not None or is_table(source)):
        raise ConfigError(f"captions={str(captions)!r}: they are of the pictures of a folder; {source} is not one.")
    if kind is not None:
        return open_archive(Path(source).expanduser(), kind, split, size)
    if split not in ("train", "validation", "test"):
        raise one_of("split", split, ("train", "validation", "test"))
    columns = {"image_column": image_column, "label_column": label_column}
    if table_options(source, columns, table, "picture"):
        parts = (
            Part("image", "Image", ("image", "img", "picture", "png", "jpg"), image_column),
            Part("label", "ClassLabel", ("label", "labels", "class", "cls"), label_column, needed=False),
        )
        pictures = TableImages(open_rows(source, split, parts, **table))
        pictures.size, pictures.channels = size, channels
        return pictures
    if captions is not None:
        return CaptionedFolder(source, split, captions, skip_unreadable=skip_unreadable, size=size, channels=channels)
    if str(source) == PUBLIC and not Path(PUBLIC).exists():
        source = download_fashion_mnist(cache_folder(PUBLIC))
    wanted = f"a folder of pictures (PNG, JPEG, TIFF, ...), fashion_mnist.npz, or {PUBLIC!r}"
    path = existing(source, wanted)
    if path.is_file() and path.suffix.lower() != ".npz":
        raise DataError(f"{path} is one file. Give {wanted}.")
    if path.is_file() or (path / "fashion_mnist.npz").exists() or (path / "t10k-labels-idx1-ubyte.gz").exists():
        return fashion_mnist(path, split)
    return ImageFolder(path, split, skip_unreadable=skip_unreadable, size=size, channels=channels)

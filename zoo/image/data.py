"""Pictures to train on: Fashion-MNIST, and any folder of PNG, JPEG or WebP files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from zoo.contract.dataset import Dataset
from zoo.data.archive import read_archive
from zoo.data.cache import cache_folder, download, md5
from zoo.data.folder import Folder, existing
from zoo.data.table import Part, Table, open_rows, table_options
from zoo.errors import DataError, one_of
from zoo.image.recipes import FASHION

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
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
    import gzip

    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is missing or truncated: {error}.") from error
    if len(data) < 4 or data[2] != 8:
        raise DataError(f"{path} is not an IDX file of bytes.")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3]))
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if body.size != np.prod(shape):
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


def read_picture(source: Path | io.BytesIO, name: str) -> Image.Image:
    """Read one picture whole; a truncated or foreign one is a DataError that names it."""
    try:
        with Image.open(source) as picture:
            picture.load()
            return picture.copy()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: {error}") from error


class TableImages(Table):
    """Pictures of a Hub dataset or of Parquet files, see `zoo.data.table.open_rows`; labels where it has a column of them."""

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        data, name, cond = self.item(i, "image")
        return read_picture(io.BytesIO(data), name), cond


class ImageFolder(Folder):
    """All pictures below a folder, see `zoo.data.folder.Folder`."""

    def __init__(self, folder: str | Path, split: str = "train", *, skip_unreadable: bool = False) -> None:
        super().__init__(folder, split, SUFFIXES, "picture", self.open, skip_unreadable)

    @staticmethod
    def open(path: Path) -> Image.Image:
        """Read one picture whole; a truncated or foreign file is a DataError that names it."""
        return read_picture(path, str(path))

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        return self.open(self.files[i]), self.given(i)


def open_images(
    source: str | Path,
    split: str = "train",
    *,
    skip_unreadable: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    **table: Any,
) -> Dataset:
    """Fashion-MNIST (the .npz or the .gz files), a folder of pictures, a Hub dataset or Parquet files, whichever it is.

    Args:
        source: a path; "hub:owner/name[@revision]"; or "fashion-mnist", where nothing of that name exists: the public
            data, fetched once into $ZOO_CACHE (~/.cache/zoo).
        skip_unreadable: of a folder: leave unreadable files out.
        image_column, label_column, **table: of a Hub dataset or Parquet files, see `zoo.data.table.open_rows`.
    """
    if split not in ("train", "validation", "test"):
        raise one_of("split", split, ("train", "validation", "test"))
    columns = {"image_column": image_column, "label_column": label_column}
    if table_options(source, columns, table, "picture"):
        parts = (
            Part("image", "Image", ("image", "img", "picture", "png", "jpg"), image_column),
            Part("label", "ClassLabel", ("label", "labels", "class", "cls"), label_column, needed=False),
        )
        return TableImages(open_rows(source, split, parts, **table))
    if str(source) == PUBLIC and not Path(PUBLIC).exists():
        source = download_fashion_mnist(cache_folder(PUBLIC))
    wanted = f"a folder of {', '.join(SUFFIXES)} files, fashion_mnist.npz, or {PUBLIC!r}"
    path = existing(source, wanted)
    if path.is_file() and path.suffix.lower() != ".npz":
        raise DataError(f"{path} is one file. Give {wanted}.")
    if path.is_file() or (path / "fashion_mnist.npz").exists() or (path / "t10k-labels-idx1-ubyte.gz").exists():
        return fashion_mnist(path, split)
    return ImageFolder(path, split, skip_unreadable=skip_unreadable)

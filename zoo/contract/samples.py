"""What `model.sample` returns."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from zoo.disk import clear_leftovers, disk_errors, path_of, write_atomic
from zoo.errors import ConfigError, DataError, ResourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def picture_format(path: str | Path) -> str:
    """Pillow's name of the format that a suffix stands for; a ConfigError for one that no picture is written in."""
    suffix = path_of(path, "path").suffix.lower()
    written = {k: v for k, v in Image.registered_extensions().items() if v in Image.SAVE}
    if suffix not in written:
        raise ConfigError(f"cannot save a picture as {str(path)!r}: give a name that ends in .png, .jpg, .webp or the like.")
    return written[suffix]


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Write a picture, whole or not at all; a ConfigError or a ResourceError says what does not work."""
    memory, kind = io.BytesIO(), picture_format(path)
    try:
        picture.save(memory, format=kind)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"cannot save a picture {picture.size} {picture.mode} as {str(path)!r}: {error}.") from error
    write_atomic(Path(path), memory.getvalue())


@runtime_checkable
class Sample(Protocol):
    """One generated object in its domain's units."""

    def save(self, path: str | Path) -> Path:
        """Write the sample to a file whose suffix names the format; returns the path."""
        ...

    def plot(self, ax: Any = None) -> Any:
        """Draw the sample; returns a picture."""
        ...

    def numpy(self) -> NDArray[Any]:
        """The sample as an array in domain units."""
        ...


class Shows(Protocol):
    """What samples need of their domain: how it is called, how its files end, how several samples are drawn."""

    name: str
    suffix: str

    def plot(self, samples: Samples) -> Any:
        """All samples in one PIL image."""
        ...


#: bytes of the name of a sample's file without its suffix: a text may be a long one
MOST_NAME = 160


class Samples(Sequence[Any]):
    """A sequence of samples that can be saved and drawn together.

    Attributes:
        tensor: (n, ...) all samples stacked in domain units; ragged ones are padded and `mask` (n, N) marks the real part.
        conditions: what each sample was asked to be, {name: [value, ...]}.
        rows: the number of each sample within its call, by which its file is called: 0, 1, ..., or those of a shard.
        plan: the settings that were used, where a model made the samples: `samples.plan.settings()`.
    """

    def __init__(
        self,
        items: Sequence[Any],
        tensor: Tensor,
        *,
        domain: Shows,
        mask: Tensor | None = None,
        conditions: Mapping[str, Sequence[Any]] | None = None,
        plan: Any = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.rows = list(range(len(items)) if rows is None else rows)
        self._items, self._domain = list(items), domain
        self.tensor, self.mask, self.plan = tensor, mask, plan
        self.conditions = {k: list(v) for k, v in (conditions or {}).items()}

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, i: int) -> Any: ...
    @overload
    def __getitem__(self, i: slice) -> list[Any]: ...
    def __getitem__(self, i: int | slice) -> Any:
        return self._items[i]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"Samples(n={len(self)}, domain={self._domain.name!r}, tensor={tuple(self.tensor.shape)})"

    def words(self, i: int) -> list[str]:
        """What sample i was asked to be, without what was left out."""
        return [str(v[i]) for v in self.conditions.values() if v[i] is not None]

    def name(self, i: int) -> str:
        """A file stem that sorts and says what the sample is: "0003-sneaker"."""
        safe = ["".join(c if c.isalnum() else "_" for c in w).strip("_") for w in self.words(i)]
        name = "-".join([f"{self.rows[i]:04d}", *(word for word in safe if word)])
        # systems take 255 bytes at most, with a suffix, and that of a file that is not whole yet
        return name.encode()[:MOST_NAME].decode(errors="ignore").rstrip("_-")

    def save(self, folder: str | Path) -> list[Path]:
        """Write one file a sample into `folder` (made when missing); returns the paths.

        Raises:
            DataError: the folder is a file. ResourceError: the disk is full, or refuses; no part of a file is left.
        """
        folder = path_of(folder, "folder")
        with disk_errors(folder):
            if folder.exists() and not folder.is_dir():
                raise DataError(f"cannot save into {folder}: it is a file. Give a folder.")
            folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        return [self._write(s, folder / f"{self.name(i)}{self._domain.suffix}") for i, s in enumerate(self)]

    def _write(self, sample: Any, path: Path) -> Path:
        """One sample's file. Those of zoo's own domains appear whole; of others a part of a new file is taken away."""
        new = not path.exists()
        try:
            with disk_errors(path):
                return Path(sample.save(path))
        except ResourceError:
            if new:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise

    @classmethod
    def of(
        cls,
        items: Sequence[Any],
        *,
        domain: Shows,
        conditions: Mapping[str, Sequence[Any]] | None = None,
        plan: Any = None,
        rows: Sequence[int] | None = None,
    ) -> Samples:
        """Samples from decoded items; those of different sizes are padded with zeros, with a mask."""
        arrays = [torch.as_tensor(item.numpy()) for item in items]
        if len({tuple(a.shape) for a in arrays}) == 1:
            return cls(items, torch.stack(arrays), domain=domain, conditions=conditions, plan=plan, rows=rows)
        sizes = torch.tensor([len(a) for a in arrays])
        padded = torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True)
        mask = torch.arange(padded.shape[1]) < sizes[:, None]
        return cls(items, padded, domain=domain, conditions=conditions, plan=plan, mask=mask, rows=rows)

    def plot(self, path: str | Path | None = None) -> Any:
        """One picture of all samples (a PIL image), also written to `path` when given."""
        if path is not None:
            picture_format(path)  # before the drawing, which takes a while
        picture = self._domain.plot(self)
        if path is not None:
            save_picture(picture, path)
        return picture

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()

"""Files of a folder as training data: which ones, of which class, and which cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zoo.contract.dataset import Dataset
from zoo.errors import DataError

HELD_OUT = 10  # every so many files one is not for training


def rows_of(split: str, count: int, every: int = HELD_OUT) -> list[int]:
    """Numbers 0..count - 1 of the items of a split: the last of each `every` is not for training, the others are."""
    return [i for i in range(count) if (i % every == every - 1) == (split != "train")]


class Folder(Dataset):
    """All files of some kinds below a folder; with class subfolders their names become the labels.

    Every file is read once at the start, so that a bad one is named before training, not in the middle of it.

    Args:
        folder: holds files, or one subfolder a class.
        split: "train" leaves out every tenth file of the sorted list, which is "validation" and "test".
        suffixes: of the files that count, in lower case.
        what: what a file holds, in words ("picture").
        read: reads one file whole, or raises a DataError that names it.
        skip_unreadable: leave unreadable files out (they are listed in `skipped`) instead of raising.
        names: a regular expression of whole file names that count as well.

    Attributes:
        files: of the split, sorted. readable: of all splits. folder, skipped: see above.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        suffixes: Sequence[str],
        what: str,
        read: Callable[[Path], Any],
        skip_unreadable: bool = False,
        names: str = "",
    ) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"no folder {folder}. Give a folder of {', '.join(suffixes)} files.")
        counts = [p for p in folder.rglob("*") if p.suffix.lower() in suffixes or (names and re.fullmatch(names, p.name))]
        files = sorted(p for p in counts if p.is_file())
        if not files:
            raise DataError(f"{folder} holds no {', '.join(suffixes)} files.")
        loose = [p for p in files if p.parent == folder]
        if loose and len(loose) < len(files):
            raise DataError(f"{folder} mixes loose {what}s ({loose[0].name}, ...) and class subfolders. Use one or the other.")
        self.skipped: dict[Path, str] = {}
        for path in files:
            try:
                read(path)
            except DataError as error:
                self.skipped[path] = str(error)
        if self.skipped and not skip_unreadable:
            shown = "; ".join(list(self.skipped.values())[:5])
            raise DataError(
                f"{len(self.skipped)} unreadable {what}(s): {shown}. Mend or remove them, or use --skip-unreadable."
            )
        files = [p for p in files if p not in self.skipped]
        self.readable = files
        classes = [] if loose else sorted({p.relative_to(folder).parts[0] for p in files})
        if len(files) >= HELD_OUT or split != "train":
            files = [files[i] for i in rows_of(split, len(files))]
        if not files:
            raise DataError(f"{folder} leaves no readable {what} for the split {split!r}.")
        self.files, self.folder = files, folder
        self.origin = f"{len(files)} {what}s of the folder {folder.resolve().name!r}"
        self.labels: dict[str, list[str]] = {"label": classes} if classes else {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        return self.files[i], self.given(i)

    def given(self, i: int) -> dict[str, int]:
        """{"label": class number} of file i where there are classes."""
        names = self.labels.get("label")
        return {} if names is None else {"label": names.index(self.files[i].relative_to(self.folder).parts[0])}

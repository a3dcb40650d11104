"""Files of a folder as training data: which ones, of which class and split, what is left out, and which cannot be read."""

from __future__ import annotations

import copy
import itertools
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from zoo.contract.dataset import Dataset
from zoo.disk import CHECKPOINT
from zoo.errors import DataError

HELD_OUT = 10  # every so many files one is not for training
#: what folders and files of splits are called elsewhere: ImageFolder, ModelNet, PointFlow's ShapeNet, Kaggle, the Hub
SPELLINGS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
_SPLIT_OF = {word: split for split, words in SPELLINGS.items() for word in words}
_SPLIT_NAME = re.compile(rf"({'|'.join(_SPLIT_OF)})([ _-]?(set|split|data))?", re.IGNORECASE)
#: a split's word within a longer name: train2017, dev-clean, images_test, 01_train
_SPLIT_WORD = re.compile(rf"(?<![A-Za-z])(?i:{'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))})(?![a-z])")
#: what systems put into folders beside the user's files, in lower case; names with a dot before them are left out as hidden
SYSTEM = {
    "__macosx", "__pycache__", "$recycle.bin", "system volume information", "lost+found", "@eadir", "#recycle", "#snapshot",
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
}  # fmt: skip

#: files that tell the folder of a model, or of a run, in which previews, cards and samples lie that are no data
OF_MODELS = {CHECKPOINT, "model.safetensors"}


def rows_of(split: str, count: int, every: int = HELD_OUT) -> list[int]:
    """Numbers 0..count - 1 of the items of a split: the last of each `every` is not for training, the others are."""
    return [i for i in range(count) if (i % every == every - 1) == (split != "train")]


def split_named(name: str) -> str | None:
    """The split that a folder of this name holds ("val", "Testing", "training_set"), or None: it is a name like any other."""
    found = _SPLIT_NAME.fullmatch(name)
    return _SPLIT_OF[found[1].lower()] if found else None


def existing(source: str | Path, wanted: str) -> Path:
    """The path of the user's data, which must be there.

    Args:
        wanted: what the domain reads, in words, for the error ("a folder of .png files").

    Raises:
        DataError: nothing is there, or what was given is not a path.
    """
    if not isinstance(source, (str, os.PathLike)) or not str(source).strip():
        raise DataError(f"data={source!r} names no data. Give {wanted}.")
    try:
        path = Path(source).expanduser()
    except RuntimeError as error:  # ~nobody
        raise DataError(f"no data at {source}: {error} Give {wanted}.") from None
    if os.path.lexists(path) and not os.path.exists(path):
        raise DataError(f"{path} is a link to nothing. Give {wanted}.")
    if not os.path.exists(path):  # unlike Path.exists, this raises nothing for a name that is too long or holds a null
        raise DataError(f"no data at {path}. Give {wanted}.")
    return path


# ---------------------------------------------------------------- what lies in a folder


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        files: that can be data, sorted; links to files too, also broken ones: reading them says so.
        left_out: {"hidden folder": 2, ".psd": 3}, how many were not taken of each kind.
        closed: folders that could not be listed, with the reason.
    """

    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    closed: dict[Path, str] = field(default_factory=dict)

    def words(self) -> str:
        """What was left out, as in "3 .psd, 1 hidden folder"; "" where nothing was."""
        return ", ".join(f"{n} {_plural(kind, n)}" for kind, n in sorted(self.left_out.items(), key=lambda kn: (-kn[1], kn[0])))


def _plural(kind: str, count: int) -> str:
    """ "hidden folder" -> "hidden folders"; a suffix stays as it is."""
    if count == 1 or kind.startswith("."):
        return kind
    for one in ("folder", "file", "link"):
        kind = re.sub(rf"\b{one}\b", f"{one}s", kind, count=1)
    return kind


def search(folder: Path, wanted: Callable[[Path], bool]) -> Found:
    """All files below a folder that are wanted, without hidden and system ones and those of models and their training.

    Links are followed, and each folder is read once: by its own name where it lies below `folder`, else by its first link.
    So a ring of links ends, and no file comes twice because of a link like `latest`.
    """
    found, known, links = Found(), set[tuple[int, int]](), list[Path]()

    def look(place: Path) -> None:
        waiting = [place]
        while waiting:
            here = waiting.pop()
            try:
                about = os.stat(here)
                if (about.st_dev, about.st_ino) in known:
                    found.left_out["link to a folder that is read already"] += 1
                    continue
                known.add((about.st_dev, about.st_ino))
                entries = sorted(os.scandir(here), key=lambda e: e.name)
            except OSError as error:
                found.closed[here] = f"{here}: cannot be listed ({error.strerror or error})"
                continue
            if here != folder and any(entry.name in OF_MODELS for entry in entries):
                found.left_out["folder of a model or of its training"] += 1
                continue
            folders = list[Path]()
            for entry in entries:
                path, is_folder = here / entry.name, os.path.isdir(entry.path)
                kind = "folder" if is_folder else "file"
                if entry.name.startswith("."):
                    found.left_out[f"hidden {kind}"] += 1
                elif entry.name.lower() in SYSTEM:
                    found.left_out[f"system {kind}"] += 1
                elif is_folder:
                    (links if entry.is_symlink() or os.path.islink(entry.path) else folders).append(path)
                elif not wanted(path):
                    found.left_out[path.suffix.lower() or "file without suffix"] += 1
                elif os.path.exists(path) and not os.path.isfile(path):
                    found.left_out["file that is a device, pipe or socket"] += 1  # to read one can wait for ever
                else:
                    found.files.append(path)
            waiting += reversed(folders)

    look(folder)
    while links:
        links.sort(reverse=True)
        look(links.pop())
    found.files.sort()
    return found


def arrange(folder: Path, files: Sequence[Path], what: str = "file") -> tuple[dict[Path, str], dict[Path, str]]:
    """({file: split}, {file: class}) as the folders' names say; each empty where they say none.

    Folders of splits may stand above those of classes (`train/cat/1.png`) or below (`cat/train/1.png`). Where all have longer
    names (`train2017`, `val2017`), these count, too. A class is named by the first folder in which the files differ.

    Raises:
        DataError: folders that may be splits or classes (`train-station`, `test-tube`); a class that has another spelling in
            another split; only some of the files lie in folders of splits; or loose files beside class folders.
    """
    parts = {p: p.relative_to(folder).parts[:-1] for p in files}
    levels = _split_levels(folder, parts, what)
    splits = {p: str(split_named(parts[p][k]) or split_within(parts[p][k])[0]) for p, k in levels.items()}
    rest = {p: names[: levels[p]] + names[levels[p] + 1 :] if p in levels else names for p, names in parts.items()}
    # unpacked/cat/1.png, unpacked/dog/2.png: a folder around those of all classes is no class
    while rest and len({names[:1] for names in rest.values()}) == 1 and all(len(names) > 1 for names in rest.values()):
        rest = {p: names[1:] for p, names in rest.items()}
    for split in sorted(set(splits.values())) or [""]:
        own = [p for p in files if splits.get(p, "") == split]
        loose = [p for p in own if not rest[p]]
        if loose and len(loose) < len(own):
            where = f" in its split {split!r}" if split else ""
            raise DataError(
                f"{folder} mixes loose {what}s ({loose[0].name}, ...) and class subfolders{where}. Use one or the other."
            )
    classes = {p: names[0] for p, names in rest.items() if names}
    for name in set(classes.values()):
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # Python's stand-ins for bytes that are no UTF-8
            raise DataError(f"the name of the class folder {name!r} in {folder} is not UTF-8. Rename it.")
    _check_spelling(folder, splits, classes)
    return splits, classes


def _check_spelling(folder: Path, splits: Mapping[Path, str], classes: Mapping[Path, str]) -> None:
    """No class is `Cat` in one split and `cat` in another; in one and the same split both may be meant: letters, say."""
    by_split: dict[str, set[str]] = {}
    for p, name in classes.items():
        by_split.setdefault(splits.get(p, ""), set()).add(name)
    for one, two in itertools.combinations(sorted(set(classes.values())), 2):
        if one.casefold() == two.casefold() and not any({one, two} <= names for names in by_split.values()):
            raise DataError(f"{folder}: the classes {one!r} and {two!r} of different splits differ in case alone. Rename one.")


def split_within(name: str) -> tuple[str | None, str]:
    """(the split that a word of a longer name says, the rest): ("train", "2017") of "train2017"; (None, name) without one."""
    found = _SPLIT_WORD.search(name)
    return (_SPLIT_OF[found[0].lower()], name[: found.start()] + name[found.end() :]) if found else (None, name)


def _split_levels(folder: Path, parts: Mapping[Path, tuple[str, ...]], what: str) -> dict[Path, int]:
    """Which of the folders above each file names its split: the same for all where possible, else the first; {} for none."""
    for k in range(min((len(names) for names in parts.values()), default=0)):
        if all(split_named(names[k]) for names in parts.values()):
            return dict.fromkeys(parts, k)
        if _longer_names(folder, sorted({names[k] for names in parts.values()})):
            return dict.fromkeys(parts, k)
    first = {p: next((k for k, name in enumerate(names) if split_named(name)), -1) for p, names in parts.items()}
    within = {p: k for p, k in first.items() if k >= 0}
    if len(within) == len(parts):
        return within
    # a folder "train" among bus and car is a class: a vehicle. One that has folders of its own is not, nor is "test"
    if all(split_named(parts[p][k]) == "train" and len(parts[p]) == k + 1 for p, k in within.items()):
        return {}
    inside, outside = next(iter(within)), next(p for p in parts if p not in within)
    raise DataError(
        f"{folder} mixes folders of splits ({inside.relative_to(folder)}, ...) and {what}s outside them "
        f"({outside.relative_to(folder)}, ...). Put all into folders of splits, or rename those."
    )


def _longer_names(folder: Path, names: Sequence[str]) -> bool:
    """Whether the folders of one level all name a split within a longer name, as train2017 and val2017.

    Raises:
        DataError: they may or may not, as train-station and test-tube; or several of them name one split.
    """
    found = [split_within(name) for name in names]
    splits, rests = {split for split, _ in found}, {re.sub(r"\d", "", rest) for _, rest in found}
    if None in splits or len(splits) < 2 or "train" not in splits:
        return False
    if len(splits) < len(names) or len(rests) == len(names):
        raise DataError(
            f"{folder}: the folders {', '.join(names[:5])} may be splits or classes. Rename them: splits to train, validation "
            "and test."
        )
    return True


def choose(split: str, splits: Mapping[Path, str], files: Sequence[Path]) -> list[Path]:
    """The files of a split, in their order.

    Without folders of splits every tenth file is held out (of fewer than ten none, all are for training). With them,
    those count; "validation" without one of its own is every tenth training file; "test" without one is the validation.
    """
    if not splits:
        return [files[i] for i in rows_of(split, len(files))] if len(files) >= HELD_OUT or split != "train" else list(files)
    there = set(splits.values())
    wanted = "validation" if split == "test" and "test" not in there else split
    if wanted == "test" or "validation" in there:
        return [p for p in files if splits[p] == wanted]
    return choose(wanted, {}, [p for p in files if splits[p] == "train"])


# ---------------------------------------------------------------- a dataset


class Folder(Dataset):
    """All files of some kinds below a folder; class subfolders become labels, folders named after splits the splits.

    Every file is read once at the start, so that a bad one is named before training, not in the middle of it; what that costs
    is the first epoch's reading where the domain keeps what it read, see `zoo.data.decoded`. Hidden and system files and
    folders are never data. What is not taken is counted in a warning.

    Args:
        folder: holds files, or one subfolder a class; below or above these, subfolders named after splits, see `arrange`.
        split: "train", "validation" or "test", see `choose`.
        suffixes: of the files that count, in lower case.
        what: what a file holds, in words ("picture").
        read: reads one file whole, or raises a DataError that names it.
        skip_unreadable: leave unreadable files out (they are listed in `skipped`) instead of raising.
        names: a regular expression of whole file names that count as well.
        beside: a file that is read beside the data: it is not counted as left out.
        threads: of the reading at the start, at once; more than 1 where the decoder lets other threads run and `read` may be
            called by several.

    Attributes:
        files: of the split, sorted. readable: of all splits. folder, skipped: see above.
        left_out: what else lies in the folder, counted: {".psd": 3, "hidden folder": 1}.
        summary: "412 pictures in 5 classes; left out: 3 .psd, 1 hidden folder", of all splits.
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
        threads: int = 1,
        beside: Path | None = None,
    ) -> None:
        shown = _shown(suffixes)
        folder = existing(folder, f"a folder of {shown} files")
        if not folder.is_dir():
            raise DataError(f"{folder} is one file: give the folder of {shown} files that it lies in.")
        found = search(folder, lambda p: p.suffix.lower() in suffixes or bool(names and re.fullmatch(names, p.name)))
        if beside is not None and beside.resolve().is_relative_to(folder.resolve()):
            found.left_out -= Counter({beside.suffix.lower(): 1})
        if not found.files and not found.closed:
            raise DataError(f"{folder} holds no {shown} files{f'; it holds {found.words()}' if found.left_out else ''}.")
        splits, classes = arrange(folder, found.files, what)
        self.skipped = dict(found.closed)
        with closing(_each(_fault(read), found.files, threads)) as faults:
            bar = tqdm(faults, f"reading {what}s", len(found.files), unit=what, delay=2, leave=False)
            self.skipped |= {path: fault for path, fault in zip(found.files, bar, strict=True) if fault is not None}
        if self.skipped and not skip_unreadable:
            first = "; ".join(list(self.skipped.values())[:5])
            raise DataError(
                f"{len(self.skipped)} unreadable {what}(s): {first}. Mend or remove them, or use --skip-unreadable."
            )
        self.readable = [p for p in found.files if p not in self.skipped]
        splits, self._classes = ({p: names[p] for p in self.readable if p in names} for names in (splits, classes))
        self.files, self.folder, self.left_out = choose(split, splits, self.readable), folder, dict(found.left_out)
        self._splits, self._left_out = splits, _left_out(found, len(self.skipped))
        if not self.files:
            raise DataError(f"{folder} leaves no readable {what} for the split {split!r}.")
        labels = sorted(set(self._classes.values()))
        self.origin = f"{len(self.files)} {what}{'' if len(self.files) == 1 else 's'} of the folder {folder.resolve().name!r}"
        self.labels: dict[str, list[str]] = {"label": labels} if labels else {}
        self.summary = _summary(self.readable, what, labels, splits, found, len(self.skipped))
        if found.left_out:
            warnings.warn(f"{folder}: {self.summary}", stacklevel=2)
        unseen = sorted(set(labels) - {self._classes[p] for p in choose("train", splits, self.readable) if p in self._classes})
        if unseen:
            shown = ", ".join(unseen[:5]) + (", ..." if len(unseen) > 5 else "")
            warnings.warn(f"{folder}: no {what} to train on in {len(unseen)} of {len(labels)} classes: {shown}", stacklevel=2)

    def held_out(self) -> Folder | None:
        """The validation files, for a folder that was opened to train on; None where it has none."""
        files = choose("validation", self._splits, self.readable)
        if not files or set(files) & set(self.files):
            return None
        other = copy.copy(self)
        other.files = files
        return other

    def left_out_words(self) -> str:
        return self._left_out

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        return self.files[i], self.given(i)

    def given(self, i: int) -> dict[str, int]:
        """{"label": class number} of file i where there are classes."""
        name = self._classes.get(self.files[i])
        return {} if name is None else {"label": self.labels["label"].index(name)}


def _fault(read: Callable[[Path], Any]) -> Callable[[Path], str | None]:
    """What is wrong with a file, by the function that reads it."""

    def fault(path: Path) -> str | None:
        try:
            read(path)
        except DataError as error:
            return str(error)
        return None

    return fault


def _each(function: Callable[[Path], Any], paths: Sequence[Path], threads: int) -> Generator[Any, None, None]:
    """The results for all paths, in their order."""
    if threads == 1 or len(paths) < 2:
        yield from map(function, paths)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(function, paths)


def threads_of_reading() -> int:
    """How many threads decode files at once, where the decoders let each other run."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, there)


def _shown(suffixes: Iterable[str]) -> str:
    """Suffixes in words; of a long list the first ones."""
    names = list(suffixes)
    return ", ".join(names) if len(names) <= 9 else f"{', '.join(names[:8])}, ... ({len(names)} kinds)"


def _summary(
    files: Sequence[Path], what: str, classes: Sequence[str], splits: Mapping[Path, str], found: Found, unreadable: int
) -> str:
    """One line: what was taken, and what was not."""
    text = f"{len(files)} {what}{'' if len(files) == 1 else 's'}"
    if classes:
        text += f" in {len(classes)} class{'' if len(classes) == 1 else 'es'}"
    if splits:
        counts = Counter(splits[p] for p in files)
        text += f" ({', '.join(f'{counts[s]} {s}' for s in SPELLINGS if counts[s])})"
    out = _left_out(found, unreadable)
    return f"{text}; left out: {out}" if out else text


def _left_out(found: Found, unreadable: int) -> str:
    """What was not taken, in words; "" where all was."""
    out = [found.words()] if found.left_out else []
    out += [f"{unreadable} unreadable"] if unreadable else []
    return ", ".join(out)

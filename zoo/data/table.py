"""Datasets of the Hugging Face Hub, and Parquet files, as rows by number: what a domain turns into (object, conditions).

Why a stream becomes a file of ours: batches are made of row numbers, and that is what lets a run that was killed go on
bit for bit. A stream has no row numbers. Its shuffle buffer would have to be saved with every checkpoint or be filled
again by reading all that came before, and its order would hang on the number of processes. So the stream is read once,
in its own order, in bounded memory and only the columns that are needed, into one Arrow file named after the commit it
came from. From then on every row is at hand at random through a memory map, for all processes and offline; and a
resumed run meets the same rows or is told that the data has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.contract.dataset import Dataset
from zoo.data.cache import cache_folder, file_sha256
from zoo.data.folder import HELD_OUT, SYSTEM, existing, rows_of, split_named
from zoo.errors import ConfigError, DataError, HubError, ZooError, one_of
from zoo.hub import client as hub
from zoo.hub.address import PREFIX, Address

SPLITS = ("train", "validation", "test")
VALIDATION = ("validation", "valid", "val", "dev")  # what others call it
CHUNK = 256  # rows held in memory at a time
MOST_LABELS = 10_000
FORMAT = 2  # of the copies in the cache: those of another one are made anew
PLAIN = ("ClassLabel", "Value")  # types of columns that name no file
TABLES = (".parquet", ".arrow")
TABLE_OPTIONS = ("config", "max_rows", "token")  # of `open_rows`, which a domain's `dataset` passes on


@dataclass(frozen=True)
class Part:
    """What a domain needs of each row.

    Attributes:
        name: "image", "audio", "label": the key in a row, and `--NAME-column` on the command line.
        feature: the `datasets` type by which its column is known: "Image", "Audio", "ClassLabel".
        usual: names by which it is known otherwise.
        column: the user's own choice.
    """

    name: str
    feature: str
    usual: tuple[str, ...] = ()
    column: str | None = None
    needed: bool = True


@dataclass
class Rows(Sequence[dict[str, Any]]):
    """Rows of a split: {part: value}. Media are the bytes of their file (PNG, WAV, ...), labels class numbers.

    Attributes:
        labels: {part: class names} of the parts that are labels.
        origin: the data in words, with their commit, for the card.
    """

    path: Path
    labels: dict[str, list[str]]
    origin: str
    classes: dict[str, list[Any]]
    numbers: range | list[int]
    _reader: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        if self._reader is None:
            import pyarrow

            self._reader = pyarrow.ipc.open_file(pyarrow.memory_map(str(self.path)))
        chunk, place = divmod(self.numbers[i], CHUNK)
        batch = self._reader.get_batch(chunk)
        row = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
        for name, values in self.classes.items():
            row[name] = values.index(row[name]) if row[name] is not None and row[name] in values else -1
        return row

    def __reduce__(self) -> tuple[Any, ...]:
        # to another process without the open file
        return Rows, (self.path, self.labels, self.origin, self.classes, self.numbers)


class Table(Dataset):
    """Rows as a dataset; a domain's own adds `__getitem__`, from `item`."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.labels, self.origin = rows, rows.labels, rows.origin

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, i: int, part: str) -> tuple[bytes, str, dict[str, Any]]:
        """(the medium's bytes, what to call it, its labels) of row i."""
        row = self.rows[i]
        return row[part], f"row {i} of {self.origin}", {k: row[k] for k in self.labels}


def is_table(source: str | Path) -> bool:
    """Whether this names a Hub dataset ("hub:owner/name[@revision]") or Parquet or Arrow files."""
    if str(source).startswith(PREFIX):
        return True
    if not isinstance(source, (str, os.PathLike)):
        return False
    path = Path(os.path.expanduser(source))
    return path.suffix.lower() in TABLES or bool(_tables(path))


def _tables(folder: Path) -> list[Path]:
    """The Parquet and Arrow files of a folder: in itself, in its `data`, or in folders named after splits, as on the Hub."""
    found, places = list[Path](), [folder]
    while places:
        place = places.pop()
        try:
            entries = sorted(place.iterdir())
        except (OSError, ValueError):
            continue
        entries = [p for p in entries if not p.name.startswith(".") and p.name.lower() not in SYSTEM]
        found += [p for p in entries if p.suffix.lower() in TABLES and p.is_file()]
        if len(place.relative_to(folder).parts) < 2:
            places += [p for p in entries if p.is_dir() and (p.name == "data" or split_named(p.name))]
    return sorted(found)


def _by_split(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """{split: files}, by the folders or the names of the files (train/0.parquet, train-00000-of-00002.parquet), or all "train".

    Raises:
        DataError: only some of the files say their split, or they are of two kinds.
    """
    if len({p.suffix.lower() for p in files}) > 1:
        raise DataError(f"{folder} holds both Parquet and Arrow files. Give a folder of one kind.")
    said = {p: split_named(p.parent.name) if p.parent != folder else None for p in files}
    said = {p: split or split_named(re.split(r"[-_.\d]", p.name)[0]) for p, split in said.items()}
    if not any(said.values()):
        return {"train": list(files)}
    if not all(said.values()):
        names = [next(p.relative_to(folder) for p, split in said.items() if bool(split) == of) for of in (True, False)]
        raise DataError(
            f"{folder} mixes files of splits ({names[0]}, ...) and others ({names[1]}, ...). Name or move them alike."
        )
    return {split: [p for p in files if said[p] == split] for split in SPLITS if split in said.values()}


def table_options(source: str | Path, columns: Mapping[str, str | None], table: Mapping[str, Any], what: str) -> bool:
    """Whether `source` is a table, with the options for one checked: the columns a domain asks for, and all others.

    Raises:
        ConfigError: an unknown option, or one that is given of data that are not a table. `what` says what data these are.
    """
    for key in table:
        if key not in TABLE_OPTIONS:
            raise one_of(f"option of {what} data", key, (*columns, *TABLE_OPTIONS))
    if is_table(source):
        return True
    if given := [k for k, v in {**columns, **table}.items() if v is not None]:
        raise ConfigError(f"{', '.join(given)}: only Hub datasets and Parquet files have columns; {source} is not one of them.")
    return False


def open_rows(
    source: str | Path,
    split: str,
    parts: Sequence[Part],
    *,
    config: str | None = None,
    max_rows: int | None = None,
    token: str | bool | None = None,
) -> Rows:
    """Rows of a split; read from the Hub once, later from the copy in $ZOO_CACHE (~/.cache/zoo).

    Args:
        source: "hub:owner/name[@revision]", a Parquet or Arrow file, or a folder of such files.
        split: "train", "validation" or "test". Where the dataset has no validation split, every tenth training row is
            held out for it (and for the test, where there is none either).
        config: the dataset's configuration, where it has several.
        max_rows: only the first rows of the stream.

    Raises:
        HubError: the dataset cannot be had. DataError: it has no such split, column or readable rows.
        ConfigError: the `datasets` library is missing, or an option is invalid.
    """
    if split not in SPLITS:
        raise one_of("split", split, SPLITS)
    if max_rows is not None and (isinstance(max_rows, bool) or max_rows < 1):
        raise ConfigError(f"max_rows={max_rows!r}: give a whole number of at least 1.")
    place, root, name = _source(source, token)
    table = _Table(place, root, name, config, token)
    available = table.splits()
    chosen, held = _choose(split, available, name)
    wish = [[p.name, p.feature, p.column] for p in parts]
    key = hashlib.sha256(json.dumps([config, chosen, wish, max_rows]).encode()).hexdigest()[:16]
    folder = table.folder / key
    facts = _facts(folder, table.root)
    if facts is None:
        shutil.rmtree(folder, ignore_errors=True)
        table.copy(chosen, parts, max_rows, folder)
        facts = _facts(folder, table.root)
    if facts is None:
        raise DataError(f"the copy of {name} in {folder} was changed while it was made. Try again.")
    count = facts["count"]
    numbers = rows_of(split, count) if held and count >= HELD_OUT else range(count)
    origin = f"{name}, split {chosen!r}, {len(numbers)} rows"
    return Rows(folder / "rows.arrow", facts["labels"], origin, facts["classes"], numbers)


def _facts(folder: Path, root: Path | None) -> dict[str, Any] | None:
    """What is known of a copy; None where there is none, it is damaged, or files that its rows point at have changed."""
    try:
        facts = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        if facts["format"] != FORMAT or facts["sha256"] != file_sha256(folder / "rows.arrow"):
            return None
        if root is not None and any(_stamp(root / name) != stamp for name, stamp in facts["files"].items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return dict(facts)


def _stamp(path: Path) -> list[int]:
    """Size and time of a file that rows point at: a copy made before it was changed is not used."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _choose(split: str, available: Sequence[str], name: str) -> tuple[str, bool]:
    """(the dataset's split, whether it is shared between training and validation)"""
    validation = next((s for s in VALIDATION if s in available), None)
    train = "train" if "train" in available else available[0] if len(available) == 1 else None
    found = {"train": train, "validation": validation or train, "test": "test" if "test" in available else validation or train}
    if (chosen := found[split]) is None:
        raise DataError(f"{name} has no split for {split!r}: its splits are {', '.join(available)}.")
    return chosen, validation is None and chosen == train


def _source(source: str | Path, token: str | bool | None) -> tuple[hub.Snapshot | dict[str, list[Path]], Path | None, str]:
    """(the commit, or the local files by split; the folder in which rows may point at files; a name that says exactly which)"""
    if str(source).startswith(PREFIX):
        snapshot = hub.resolve(Address.parse(str(source), "dataset"), token)
        return snapshot, None, f"{PREFIX}{snapshot.address.repo}@{snapshot.commit}"
    wanted = f"hub:owner/name, or {' or '.join(TABLES)} files"
    path = existing(source, wanted)
    if path.is_file():
        return {"train": [path]}, None, path.name  # what lies beside it was not given
    if not (files := _tables(path)):
        raise DataError(f"no data at {path}. Give {wanted}.")
    return _by_split(path, files), path, path.resolve().name


def _cache() -> Path:
    return cache_folder("datasets")


@dataclass(frozen=True)
class _Table:
    """One configuration of a dataset at one commit."""

    place: hub.Snapshot | dict[str, list[Path]]
    root: Path | None
    name: str
    config: str | None
    token: str | bool | None

    @property
    def folder(self) -> Path:
        """Where its copies are."""
        if isinstance(self.place, hub.Snapshot):
            return _cache() / self.place.address.repo.replace("/", "--") / self.place.commit
        try:
            facts = [[split, os.path.realpath(p), file_sha256(p)] for split, files in self.place.items() for p in files]
        except OSError as error:
            raise DataError(f"cannot read {error.filename or self.name}: {error.strerror or error}.") from error
        return _cache() / "local" / hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    @contextmanager
    def errors(self, doing: str) -> Iterator[Any]:
        """The `datasets` library; its failures and those below it become one error."""
        try:
            import datasets
            import pyarrow  # noqa: F401
        except ImportError:
            raise ConfigError('tables and Hub datasets need `datasets`: pip install "diffusion-zoo[hub-data]".') from None
        address = self.place.pinned if isinstance(self.place, hub.Snapshot) else None
        try:
            if address is None:
                yield datasets
            else:
                with hub.explained(address, doing, self.token):
                    yield datasets
        except ZooError:
            raise
        except Exception as error:  # the libraries read what comes in good faith: odd data can end in any error
            text = " ".join(str(error).split())[:500]
            raise DataError(f"cannot {doing} {self.name}: {type(error).__name__}: {text}") from None

    def stream(self, datasets: Any) -> Mapping[str, Any]:
        """{split: stream}"""
        if isinstance(self.place, hub.Snapshot):
            # a commit, so that it is what was resolved; scripts of a repository never run (`datasets` 4 and later)
            repo, commit = self.place.address.repo, self.place.commit
            if Path(repo).exists():  # the library would take that instead
                raise DataError(f"the folder {repo} here has the name of the dataset. Start from another folder.")
            hub.check_access(self.place, self.token)
            builder = datasets.load_dataset_builder(repo, self.config, revision=commit, token=self.token)
            for files in (builder.config.data_files or {}).values():
                for file in files:  # a card may name any file, also one of this machine
                    self.inside(str(file))
            return dict(builder.as_streaming_dataset())
        files = {split: [str(p) for p in paths] for split, paths in self.place.items()}
        kind = next(iter(self.place.values()))[0].suffix.lower().removeprefix(".")
        return dict(datasets.load_dataset(kind, data_files=files, streaming=True))

    def inside(self, path: str) -> str | Path:
        """Where a file lies that a row, or the dataset's card, names; only files of the dataset itself can be named.

        Raises:
            DataError: any other: an absolute path, one with "..", a link out of the folder, an address.
        """
        refused = DataError(f"{self.name} points at {path!r}, which is not a file of the dataset itself: it is not opened.")
        if isinstance(self.place, hub.Snapshot):
            home = f"hf://datasets/{self.place.address.repo}@{self.place.commit}/"
            archived, _, outer = path.rpartition("::")
            if archived and re.fullmatch(r"(zip|tar|gzip|bz2|xz|zstd|lz4)://[^:]*", archived) is None:
                raise refused
            if "://" not in outer and not archived:
                outer = home + outer
            name = outer.removeprefix(home)
            if name == outer or "://" in name or _unsafe(name):
                raise refused
            return f"{archived}::{outer}" if archived else outer
        if self.root is None:
            raise DataError(f"{refused} Give the folder of the file, not the file alone.")
        root = self.root.resolve()
        try:
            found = (root / path).resolve()
            name = found.relative_to(root).as_posix()
        except (ValueError, OSError, RuntimeError):
            raise refused from None
        if "://" in path or _unsafe(name) or not found.is_file():
            raise refused
        return found

    def splits(self) -> list[str]:
        """The names of the splits; remembered, so that the copy is enough the next time."""
        from zoo.files import write_atomic

        known = self.folder / f"{hashlib.sha256(repr(self.config).encode()).hexdigest()[:16]}.json"
        with suppress(OSError, ValueError, RecursionError):
            names = json.loads(known.read_text(encoding="utf-8"))
            if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
                return names
        if isinstance(self.place, hub.Snapshot) and hub.offline():
            raise HubError(f"cannot read {self.place.pinned}: offline, and no copy of it in {_cache()}. Go online once.")
        with self.errors("read") as datasets:
            names = sorted(self.stream(datasets))
        write_atomic(known, json.dumps(names).encode())
        return names

    def copy(self, split: str, parts: Sequence[Part], max_rows: int | None, folder: Path) -> None:
        """Read the stream into folder/rows.arrow; the folder appears when all of it is there."""
        from zoo.files import disk_errors

        if isinstance(self.place, hub.Snapshot) and hub.offline():
            raise HubError(f"cannot read {self.place.pinned}: offline, and no copy of it in {_cache()}. Go online once.")
        with disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = folder.parent / f".reading-{secrets.token_hex(8)}"
            temporary.mkdir()  # not mkdtemp: the folder stays, and the user's umask decides who may read it
        try:
            with self.errors("read") as datasets:
                _write(datasets, self, self.stream(datasets)[split], parts, max_rows, temporary)
            with suppress(OSError):  # another process was quicker, with the same rows
                os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _unsafe(name: str) -> bool:
    """Whether a path below a folder leaves it, or goes through hidden folders: keys and settings lie there, not data."""
    parts = re.split(r"[/\\]", name)
    return not name or "\0" in name or any(not part or part.startswith(".") for part in parts)


def _columns(features: Mapping[str, Any], parts: Sequence[Part], name: str) -> dict[str, str]:
    """{part: column}: the user's choice, else the only one of the type, else one with a usual name."""
    found = {}
    shown = ", ".join(f"{k} ({getattr(v, 'dtype', type(v).__name__)})" for k, v in features.items())
    for part in parts:
        of_type = [k for k, v in features.items() if type(v).__name__ == part.feature]
        usual = [k for k in part.usual if k in features]
        if part.column is not None and part.column not in features:
            raise DataError(f"{name} has no column {part.column!r}. Its columns: {shown}.")
        column = part.column or (
            of_type[0] if len(of_type) == 1 else next((k for k in usual if k in of_type or not of_type), None)
        )
        if column is None and part.needed:
            raise DataError(f"{name}: which column is the {part.name}? Say it: --{part.name}-column. Its columns: {shown}.")
        if column is not None:
            found[part.name] = column
    return found


def _write(
    datasets: Any,
    table: _Table,
    stream: Any,
    parts: Sequence[Part],
    max_rows: int | None,
    folder: Path,
) -> None:
    import pyarrow
    from tqdm.auto import tqdm

    name, pointed = table.name, dict[str, list[int]]()
    stream = stream if stream.features is not None else stream._resolve_features()
    features, columns = stream.features, _columns(stream.features, parts, name)
    for part, column in columns.items():
        # any other type would be decoded by the library, which opens whatever file a row points at
        if (
            part not in [p.name for p in parts if p.feature in ("Image", "Audio")]
            and type(features[column]).__name__ not in PLAIN
        ):
            raise DataError(f"{name}: the column {column!r} is no {part}: it holds {type(features[column]).__name__}.")
    media = {p.name: p.feature for p in parts if p.name in columns and p.feature in ("Image", "Audio")}
    stream = stream.select_columns(list(dict.fromkeys(columns.values())))
    for part, kind in media.items():
        # as the file it is: smaller, and decoded by the domain, not by whatever library is there
        stream = stream.cast_column(columns[part], getattr(datasets, kind)(decode=False))
    types = features.arrow_schema
    schema = pyarrow.schema([(p, pyarrow.binary() if p in media else types.field(c).type) for p, c in columns.items()])
    seen: dict[str, set[Any]] = {p.name: set() for p in parts if p.feature == "ClassLabel" and p.name in columns}
    count, rows = 0, list[dict[str, Any]]()
    with pyarrow.OSFile(str(folder / "rows.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, schema) as writer:

        def flush() -> None:
            writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema))
            rows.clear()

        for row in tqdm(
            stream if max_rows is None else stream.take(max_rows), f"reading {name}", unit="row", delay=2, leave=False
        ):
            taken = {p: _bytes(datasets, table, row[c], pointed) if p in media else row[c] for p, c in columns.items()}
            for part in media:
                if taken[part] is None:
                    raise DataError(f"{name}: row {count} has no {part} in its column {columns[part]!r}.")
            for part, values in seen.items():
                if taken[part] is not None:
                    values.add(taken[part])
                if len(values) > MOST_LABELS:
                    raise DataError(f"{name}: the column {columns[part]!r} has over {MOST_LABELS} values: it is not a label.")
            rows.append(taken)
            count += 1
            hub.progressed()
            if len(rows) == CHUNK:
                flush()
        if rows:
            flush()
    if not count:
        raise DataError(f"{name}: the split has no rows.")
    labels, classes = {}, {}
    for part, values in seen.items():
        names = getattr(features[columns[part]], "names", None)
        if names and (odd := [v for v in values if v != -1 and not 0 <= v < len(names)]):
            raise DataError(f"{name}: the column {columns[part]!r} has the class {odd[0]}, and {len(names)} names.")
        # -1 means "no label"; a column of plain numbers or words has those as its classes
        classes[part] = list(range(len(names))) if names else sorted(v for v in values if v != -1)
        labels[part] = list(names) if names else [str(v) for v in classes[part]]
    facts = {
        "format": FORMAT, "sha256": file_sha256(folder / "rows.arrow"), "files": pointed,
        "count": count, "columns": columns, "labels": labels, "classes": classes,
    }  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(facts), encoding="utf-8")


def _bytes(datasets: Any, table: _Table, value: Any, pointed: dict[str, list[int]]) -> bytes | None:
    """The bytes of a picture's or a recording's file, which a row holds, or points at within the dataset.

    Args:
        pointed: gets the local files that were read.
    """
    if value is None or value.get("bytes") is not None:
        return None if value is None else value["bytes"]
    if not value.get("path"):
        return None
    place = table.inside(str(value["path"]))
    if isinstance(place, Path):
        pointed[os.path.relpath(place, table.root)] = _stamp(place)
        return place.read_bytes()
    from datasets.utils.file_utils import xopen

    with xopen(place, "rb", download_config=datasets.DownloadConfig(token=table.token)) as file:
        return bytes(file.read())

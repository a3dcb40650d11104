"""Captions of files in a folder: the Hub's imagefolder layout (metadata.jsonl), or a table (CSV, TSV)."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from zoo.errors import DataError

#: what the columns are called, the Hub's names first
NAMES = {
    "file": ("file_name", "file", "filename", "image", "path"),
    "text": ("text", "caption", "prompt", "description", "title"),
    "keywords": ("keywords", "tags", "words"),
}
#: suffixes of files of captions, with the character between the columns; None for JSON lines
KINDS = {".jsonl": None, ".ndjson": None, ".csv": ",", ".tsv": "\t"}
#: how often training takes keywords for the caption, and how many of them at most
KEYWORDS, MOST_KEYWORDS = 0.3, 3
#: characters of one line, at most: more is no caption
MOST_LINE = 1_000_000


@dataclass(frozen=True)
class Caption:
    """What is written of a file.

    Attributes:
        text: None where nothing is.
        keywords: further words for it.
    """

    text: str | None
    keywords: tuple[str, ...] = ()


def drawn(caption: Caption, rng: torch.Generator) -> str | None:
    """The text of one sample in training: some keywords take the caption's place now and then."""
    words = caption.keywords
    if not words or float(torch.rand((), generator=rng)) >= KEYWORDS:
        return caption.text
    count = 1 + int(torch.randint(min(MOST_KEYWORDS, len(words)), (), generator=rng))
    order = torch.randperm(len(words), generator=rng)[:count].tolist()
    return " ".join(words[k] for k in order)


def captions_file(captions: str | Path, folder: Path) -> Path:
    """The file of captions: as it is given, or in the folder of the data.

    Raises:
        DataError: it is not there, or of no kind that is read.
    """
    path = Path(captions).expanduser()
    found = path if path.is_file() else folder / path
    if not found.is_file():
        raise DataError(
            f"no captions at {path}, nor at {folder / path}. Give a {', '.join(KINDS)} file with file_name and text."
        )
    if found.suffix.lower() not in KINDS:
        raise DataError(f"{found}: captions are read from {', '.join(KINDS)} files.")
    return found


def read_captions(path: Path) -> dict[Path, Caption]:
    """{file: caption} of a file of captions; the names in it are relative to its own folder.

    Raises:
        DataError: a line that is not read, columns that are missing, a file that is named twice or is not below the folder,
            or one that does not exist. One error names all of a kind.
    """
    found: dict[Path, Caption] = {}
    twice: Counter[str] = Counter()
    missing: list[str] = []
    for where, row in _rows(path):
        name = _value(row, "file", path, where)
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{path}, {where}: the name of the file is {name!r}.")
        file = _inside(path, name.strip(), where)
        if file in found:
            twice[file.relative_to(path.parent).as_posix()] += 1
        elif not file.is_file():
            missing.append(name)
        found[file] = Caption(_text(_value(row, "text", path, where), path, where), _keywords(row, path, where))
    if not found:
        raise DataError(f"{path} holds no captions.")
    if twice:
        listed = ", ".join(f"{n} ({k + 1} times)" for n, k in twice.most_common(5))
        raise DataError(f"{path} names {len(twice)} file(s) more than once: {_more(listed, len(twice))}. Give each one line.")
    if missing:
        listed = ", ".join(missing[:5])
        raise DataError(
            f"{path} names {len(missing)} of {len(found)} files that are not there: {_more(listed, len(missing))}. "
            f"Names are relative to {path.parent}."
        )
    return found


def _more(listed: str, count: int) -> str:
    return f"{listed}, ..." if count > 5 else listed


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place in words, {column: value}) of each line."""
    separator = KINDS[path.suffix.lower()]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if separator is None:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield f"line {number}", _object(line, path, number)
                return
            csv.field_size_limit(MOST_LINE)
            table = csv.DictReader(file, delimiter=separator, strict=True)
            for row in table:
                if None in row or None in row.values():
                    raise DataError(f"{path}, line {table.line_num}: another number of columns than {table.fieldnames}.")
                yield f"line {table.line_num}", row
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from None
    except csv.Error as error:
        raise DataError(f"{path} is not a table: {error}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line) if len(line) <= MOST_LINE else None
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f'{path}, line {number}: not a JSON object, such as {{"file_name": "cat.png", "text": "a cat"}}.')
    return row


def _value(row: dict[str, Any], column: str, path: Path, where: str) -> Any:
    """The value of a column by one of its names."""
    for name in NAMES[column]:
        if name in row:
            return row[name]
    raise DataError(
        f"{path}, {where}: no column {' or '.join(NAMES[column][:2])}; it has {', '.join(map(str, row)) or 'none'}."
    )


def _inside(path: Path, name: str, where: str) -> Path:
    """The file of a name, which leads nowhere out of the folder of its captions."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise DataError(f"{path}, {where}: {name!r} leads out of the folder. Name files below {path.parent}.")
    return path.parent.joinpath(*pure.parts)


def _text(value: Any, path: Path, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise DataError(f"{path}, {where}: the caption is {value!r}; give a text.")
    return value.strip() or None if value else None


def _keywords(row: dict[str, Any], path: Path, where: str) -> tuple[str, ...]:
    """A list of texts, or one text with bars, commas or semicolons between."""
    value = next((row[n] for n in NAMES["keywords"] if n in row), None)
    if value is None:
        return ()
    words: Sequence[Any] = re.split(r"[|,;]", value) if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)) or not all(isinstance(w, str) for w in words):
        raise DataError(f"{path}, {where}: the keywords are {value!r}; give a list of texts, or one text with commas between.")
    return tuple(w.strip() for w in words if w.strip())

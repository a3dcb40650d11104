"""Files of points: text (XYZ, TXT, PTS) and PCD. Of these trimesh reads plain XYZ only, without a header."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError

Points = NDArray[np.float64]
#: how a PCD names the types of its fields
KINDS = {"F": "f", "I": "i", "U": "u"}


# ---------------------------------------------------------------- text


def read_text(path: Path) -> Points:
    """Points (N, 3) of a text file: a point a line, its first three columns, or those that a line of names calls x, y and z.

    Columns stand apart by spaces, tabs, commas or semicolons. A line with one whole number says how many points follow (PTS).

    Raises:
        DataError: no such file, a line that is not numbers, rows of different length, or fewer points than are announced; the
            message does not name `path`.
    """
    data = path.read_bytes()
    if b"\0" in data:
        raise DataError("it is not text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if re.match(r"\s*\d+[ \t]*\r?\n[ \t]*\r?\n\s*\d+\s", text):  # a count, an empty remark, and elements by their number
        raise DataError("it is a molecule (chemical XYZ): its lines start with elements, not with points")
    lines = [line for line in (re.split(r"#|//", line, maxsplit=1)[0].strip() for line in text.splitlines()) if line]
    if not lines:
        raise DataError("it holds no points")
    columns, blocks, first, counted = None, [], 0, ""
    if not re.fullmatch(r"\d+", lines[0]) and not _numbers(lines[0]):
        columns, first = _named(lines[0]), 1
    while first < len(lines):
        last = len(lines)
        if re.fullmatch(r"\d+", lines[first]):
            last, counted = first + 1 + int(lines[first]), lines[first]
            if last > len(lines):
                raise DataError(f"it announces {lines[first]} points and has {len(lines) - first - 1}")
            first += 1
            if columns is None and not _numbers(lines[first]) and first + 1 < len(lines):
                raise DataError("it is a molecule (chemical XYZ): its lines start with elements, not with numbers")
        elif counted:
            raise DataError(f"it announces {counted} points, and more lines follow")
        if last > first:
            blocks.append(_table(lines[first:last], columns))
        first = last
    if not blocks:
        raise DataError("it holds no points")
    return np.concatenate(blocks)


def _fields(line: str) -> list[str]:
    """The columns of a line."""
    if "," in line and (";" in line or (re.search(r"\S,\S", line) and re.search(r"[^,\s]\s+[^,\s]", line))):
        raise DataError(
            f"it has commas and spaces in one line, {line[:60]!r}: write decimals with points, columns apart by one of them"
        )
    return re.split(r"\s*[,;]\s*|\s+", line.strip(" \t,;"))


def _numbers(line: str) -> bool:
    """Whether a line is numbers alone."""
    try:
        [float(v) for v in _fields(line)]
    except ValueError:
        return False
    return True


def _named(line: str) -> list[int]:
    """Which columns are x, y and z by a line of names."""
    names = [v.strip("\"'").lower() for v in _fields(line)]
    if any(names.count(axis) != 1 for axis in "xyz"):
        raise DataError(f"its first line, {line[:60]!r}, is neither numbers nor names of columns with x, y and z")
    return [names.index(axis) for axis in "xyz"]


def _table(lines: Sequence[str], columns: Sequence[int] | None) -> Points:
    """The points of lines of numbers."""
    rows = [_fields(line) for line in lines]
    width = len(rows[0])
    if width < 3:
        raise DataError(f"a line of it, {lines[0][:60]!r}, has {width} columns: a point has x, y and z")
    odd = next((i for i, row in enumerate(rows) if len(row) != width), None)
    if odd is not None:
        raise DataError(
            f"a line of it, {lines[odd][:60]!r}, has {len(rows[odd])} columns, others have {width}: is it truncated?"
        )
    try:
        if any("_" in line for line in lines):  # float() would take it for a separator
            raise ValueError("an underscore")
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise DataError(f"it holds what is not a number ({error})") from error
    return values[:, columns or [0, 1, 2]]


# ---------------------------------------------------------------- PCD


def read_pcd(path: Path) -> Points:
    """Points (N, 3) of a PCD file: ascii, binary or binary_compressed. The viewpoint is not applied, nor does PCL apply it.

    Raises:
        DataError: a damaged header, one without x, y and z, or data that do not fit it; the message does not name `path`.
    """
    data = path.read_bytes()
    head: dict[str, list[str]] = {}
    place = 0
    while "DATA" not in head:
        end = data.find(b"\n", place)
        if end < 0 or end - place > 10_000 or place > 100_000:
            raise DataError("it is not a PCD file, or its header is truncated: it has no line DATA")
        line = data[place:end].decode("latin-1").split("#")[0].split()
        place = end + 1
        if line:
            head[line[0].upper()] = line[1:]
    names = head.get("FIELDS", head.get("COLUMNS", []))
    if any(names.count(axis) != 1 for axis in "xyz"):
        raise DataError(f"its fields are {' '.join(names) or 'not given'}: x, y and z are needed")
    try:
        sizes, counts = [int(v) for v in head["SIZE"]], [int(v) for v in head.get("COUNT", ["1"] * len(names))]
        kinds = [KINDS[v.upper()] for v in head["TYPE"]]
        dtypes = [np.dtype(f"<{kind}{size}") for kind, size in zip(kinds, sizes, strict=True)]
        width, height = (int(head[k][0]) for k in ("WIDTH", "HEIGHT"))
        n, kind = int(head["POINTS"][0]) if "POINTS" in head else width * height, head["DATA"][0].lower()
        layout = list(zip(names, dtypes, counts, strict=True))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"its PCD header is damaged ({type(error).__name__}: {error})") from error
    if n < 1 or n != width * height or any(c < 1 for c in counts):
        raise DataError(f"its PCD header is damaged: {n} points, {width} x {height}")
    row = sum(dtype.itemsize * count for _, dtype, count in layout)
    body = data[place:]
    if kind == "ascii":
        return _pcd_ascii(body, layout, n)
    if kind == "binary":
        if len(body) < n * row:
            raise DataError(f"it is truncated: {len(body):,} of {n * row:,} bytes of points")
        if len(body) >= (n + 1) * row and body[n * row :].strip(b"\0"):
            raise DataError(f"it announces {n:,} points of {row} bytes and has {len(body):,} bytes")
        table = np.frombuffer(body, np.dtype([(f"f{i}", dtype, (count,)) for i, (_, dtype, count) in enumerate(layout)]), n)
        return np.stack([table[f"f{names.index(axis)}"][:, 0].astype(np.float64) for axis in "xyz"], 1)
    if kind == "binary_compressed":
        if len(body) < 8:
            raise DataError("it is truncated")
        packed, size = struct.unpack("<II", body[:8])
        if size != n * row or packed > len(body) - 8:
            raise DataError(f"it is damaged: {packed:,} bytes that unpack to {size:,}, for {n:,} points of {row} bytes")
        raw, out, start = _lzf(body[8 : 8 + packed], size), {}, 0
        for name, dtype, count in layout:  # field after field
            out[name] = np.frombuffer(raw, dtype, n * count, start).reshape(n, count)[:, 0]
            start += n * count * dtype.itemsize
        return np.stack([out[axis].astype(np.float64) for axis in "xyz"], 1)
    raise DataError(f"its data are {kind!r}; ascii, binary and binary_compressed are read")


def _pcd_ascii(body: bytes, layout: Sequence[tuple[str, np.dtype[Any], int]], n: int) -> Points:
    lines = [line for line in body.decode("latin-1").splitlines() if line.strip()]
    if len(lines) != n:
        raise DataError(f"it announces {n:,} points and has {len(lines):,}")
    places = np.cumsum([0, *(count for _, _, count in layout)])
    names = [name for name, _, _ in layout]
    rows = [line.split() for line in lines]
    odd = next((row for row in rows if len(row) != places[-1]), None)
    if odd is not None:
        raise DataError(f"a point of it has {len(odd)} numbers, not {places[-1]}: is it truncated?")
    try:
        return np.array([[row[places[names.index(axis)]] for axis in "xyz"] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise DataError(f"it holds what is not a number ({error})") from error


def _lzf(data: bytes, size: int) -> bytes:
    """LZF (Lehmann's liblzf): runs as they are, and copies of what came before."""
    out, i = bytearray(), 0
    try:
        while i < len(data):
            control = data[i]
            i += 1
            if control < 32:
                out += data[i : i + control + 1]
                i += control + 1
            else:
                length = control >> 5
                if length == 7:
                    length += data[i]
                    i += 1
                start = len(out) - ((control & 31) << 8) - data[i] - 1
                i += 1
                if start < 0:
                    raise IndexError("a copy from before the start")
                length += 2
                piece = bytes(out[start : start + length])
                while len(piece) < length:  # it copies what it is writing
                    piece += piece[: length - len(piece)]
                out += piece
            if len(out) > size:
                raise IndexError("more than announced")
    except IndexError as error:
        raise DataError(f"its compressed points are damaged ({error})") from error
    if len(out) != size:
        raise DataError(f"its compressed points are damaged: {len(out):,} of {size:,} bytes")
    return bytes(out)

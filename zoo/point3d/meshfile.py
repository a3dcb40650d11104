"""Mesh files of trimesh (OBJ, PLY, STL, OFF), and what must be checked around it.

Where a file ends early trimesh takes the faces that are there, and in OBJ files it takes all relative indices from the file's
end: both give another shape without a word. So what the file announces is compared with what was read.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import DataError
from zoo.point3d.cloud import need
from zoo.point3d.gltf import Part


def read_mesh(path: Path) -> list[Part]:
    """The parts of a mesh file: vertices (n, 3) with triangles (m, 3), or None where a file has no faces.

    Raises:
        DataError: a damaged or truncated file, or one with surfaces that are not triangles or polygons; the message does not
            name `path`.
    """
    trimesh, kind = need("trimesh"), path.suffix.lower().lstrip(".")
    data = path.read_bytes()
    if data.lstrip()[:1] == b"<" and b"<html" in data[:1000].lower():
        raise DataError("it is a web page (HTML). Download the file itself again")
    if kind in ("obj", "off"):
        data = data.removeprefix(b"\xef\xbb\xbf")
    triangles = 0
    if kind == "obj":
        data, triangles = _obj(data)
    log = logging.getLogger("trimesh")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # it tells its log, with tracebacks, what the errors below say
    try:
        # from memory: a file that it names beside it is never opened
        found = trimesh.load_scene(io.BytesIO(data), file_type=kind, process=False, skip_materials=True).dump()
        parts = [_part(mesh) for mesh in found if len(getattr(mesh, "vertices", ()))]
    except DataError:
        raise
    except Exception as error:  # the readers of a dozen formats raise whatever they meet
        if kind == "ply" and "unexpected length" in str(error):
            raise DataError(
                "it is truncated, or it is a binary PLY whose faces have different numbers of corners, which is not read. "
                "Export it as triangles, or as text"
            ) from error
        raise DataError(f"no readable mesh or cloud ({type(error).__name__}: {error})") from error
    finally:
        log.setLevel(level)
    if kind == "obj" and _triangles(parts) != triangles:
        raise DataError(f"only {_triangles(parts):,} of its {triangles:,} triangles were read")
    if kind == "off":
        _check_off(data, parts)
    elif kind == "ply":
        _check_ply(data, found, parts)
    elif kind == "stl":
        _check_stl(data, parts)
    return parts


def _part(mesh: Any) -> Part:
    """Vertices and faces of trimesh's mesh or cloud."""
    x = np.asarray(mesh.vertices, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != 3:
        raise DataError(f"its vertices are {x.shape}: some have fewer than three numbers")
    faces = np.asarray(getattr(mesh, "faces", np.zeros((0, 3))), dtype=np.int64)
    if not len(faces):
        return x, None
    if faces.min() < 0 or faces.max() >= len(x):
        raise DataError(f"its faces name vertices {faces.min()} to {faces.max()}, of {len(x)}")
    return x, faces


def _triangles(parts: Sequence[Part]) -> int:
    return sum(0 if faces is None else len(faces) for _, faces in parts)


def _text(data: bytes) -> str:
    return data.decode("latin-1")


# ---------------------------------------------------------------- OBJ


def _obj(data: bytes) -> tuple[bytes, int]:
    """An OBJ file's vertices and faces alone, and the number of triangles in them.

    trimesh drops lines that start with a space or go on with a tab, without a word, so each is written as it knows them:
    apart by one space, without textures, normals and comments, faces with vertices counted from the start. Checked are the
    numbers of vertices, and faces within them.
    """
    text = re.sub(r"\r\n?", "\n", _text(data)).replace("\\\n", " ")
    if found := re.search(r"(?m)^\s*(surf|curv2?|cstype|call)\b", text):
        what = "another file" if found[1] == "call" else "free-form surfaces"
        raise DataError(f"it holds {what} ({found[1]}), which is not read. Export it as polygons")
    out, vertices, triangles = list[str](), 0, 0
    for i, line in enumerate(text.split("\n")):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        if fields[0] == "v":
            vertices += 1
            if len(fields) < 4:
                raise DataError(
                    f"its line {i + 1}, {line[:60]!r}, is a vertex of fewer than three numbers: is the file truncated?"
                )
            out.append(" ".join(fields[:4]))
        elif fields[0] in ("f", "fo"):  # the second one is of old files
            if len(fields) < 4:
                raise DataError(
                    f"its line {i + 1}, {line[:60]!r}, is a face of fewer than three corners: is the file truncated?"
                )
            corners = [_absolute(corner, vertices) for corner in fields[1:]]
            if not all(_is_count(corner) and int(corner) > 0 for corner in corners):
                raise DataError(f"its line {i + 1}, {line[:60]!r}, names vertices that are not there")
            triangles += len(corners) - 2
            out.append(" ".join(["f", *corners]))
    return "\n".join([*out, ""]).encode("latin-1"), triangles


def _is_count(word: str) -> bool:
    """Whether a word is a whole number of plain digits; "3³" has only digits too, as Python counts them."""
    return word.isascii() and word.isdigit()


def _absolute(corner: str, vertices: int) -> str:
    """The vertex of a corner "-1/-2/-3", counted from the start."""
    vertex = corner.partition("/")[0]
    if not vertex.startswith("-"):
        return vertex
    try:
        return str(vertices + 1 + int(vertex))
    except ValueError as error:
        raise DataError(f"a face has the corner {corner!r}") from error


# ---------------------------------------------------------------- OFF, PLY, STL


def _check_off(data: bytes, parts: Sequence[Part]) -> None:
    """As many vertices and faces as the header says, and each face whole."""
    lines = [line for line in (line.partition("#")[0].split() for line in _text(data).splitlines()) if line]
    if re.match(r"\S*[4n]+OFF", lines[0][0] if lines else ""):
        raise DataError(f"it is {lines[0][0]}: vertices of other than three numbers are not read")
    words = [word for line in lines[:2] for word in line]
    counts = re.findall(r"\d+", re.sub(r"^\S*?OFF", "", " ".join(words)))
    try:
        vertices, faces = int(counts[0]), int(counts[1])
        start = 2 if not re.search(r"OFF\s*\d", " ".join(lines[0])) else 1
        corners = [(line, int(line[0])) for line in lines[start + vertices : start + vertices + faces]]
    except (ValueError, IndexError) as error:
        raise DataError(f"its OFF header or faces are damaged ({error})") from error
    read = sum(len(x) for x, _ in parts)
    if read != vertices or len(corners) != faces or any(len(line) < n + 1 or n < 3 for line, n in corners):
        raise DataError(f"it is truncated or damaged: it announces {vertices:,} vertices and {faces:,} faces")
    if _triangles(parts) != sum(n - 2 for _, n in corners):
        raise DataError(f"only {_triangles(parts):,} triangles of its {faces:,} faces were read")


def _check_ply(data: bytes, found: Sequence[Any], parts: Sequence[Part]) -> None:
    """As many vertices and faces as the header says, and in text each face whole."""
    head, _, body = data.partition(b"end_header")
    elements = {m[1].lower(): int(m[2]) for m in re.finditer(r"(?m)^\s*element\s+(\S+)\s+(\d+)", _text(head))}
    strips = [name for name in elements if name in ("tristrips", "trifan", "triangle_strip") and elements[name]]
    if strips:
        raise DataError(f"its surface is {strips[0]}, which is not read. Export it with faces")
    vertices, faces = elements.get("vertex", 0), elements.get("face", 0)
    if faces and not _triangles(parts):
        raise DataError(f"none of its {faces:,} faces could be read")
    raw: dict[str, Any] = next((p.metadata.get("_ply_raw", {}) for p in found if getattr(p, "metadata", None)), {})
    for name, count in (("vertex", vertices), ("face", faces)):
        values = raw.get(name, {}).get("data")
        rows = next(iter(values.values())) if isinstance(values, dict) else values
        if count and rows is not None and len(rows) != count:
            raise DataError(f"it is truncated: it announces {count:,} rows of {name} and has {len(rows):,}")
    if re.search(r"(?m)^\s*format\s+ascii", _text(head)) and faces:
        _check_ply_text(_text(head), _text(body), vertices, faces)


def _check_ply_text(head: str, body: str, vertices: int, faces: int) -> None:
    """Each face of a text PLY, whose only list is that of its corners, has as many corners as it says."""
    section = re.split(r"(?m)^\s*element\s+", head)
    own = next((s for s in section if s.startswith("face")), "")
    properties = re.findall(r"(?m)^\s*property\s+(list)?", own)
    if properties.count("list") != 1 or properties[0] != "list" or [s.split()[0] for s in section[1:3]] != ["vertex", "face"]:
        return
    rows = [line.split() for line in body.splitlines()[1:] if line.strip()][vertices : vertices + faces]
    if any(not _is_count(row[0]) or len(row) < int(row[0]) + len(properties) for row in rows):
        raise DataError("it is truncated or damaged: a face has fewer corners than it says")


def _check_stl(data: bytes, parts: Sequence[Part]) -> None:
    """A binary STL is as long as its header says, which trimesh checks; in a text one each facet and solid ends."""
    if not parts:
        raise DataError("it is truncated, or not an STL file")
    if len(data) >= 84 and 84 + 50 * int.from_bytes(data[80:84], "little") == len(data):
        return
    text = _text(data).lower()
    facets, ends = len(re.findall(r"\bfacet\s+normal\b", text)), len(re.findall(r"\bendfacet\b", text))
    solids, closed = len(re.findall(r"(?m)^\s*solid\b", text)), len(re.findall(r"(?m)^\s*endsolid\b", text))
    if not facets == ends == _triangles(parts) or closed < solids:
        raise DataError(
            f"it is truncated or damaged: {facets:,} facets begin, {ends:,} end, {_triangles(parts):,} could be read"
        )

"""glTF 2.0 (.glb, .gltf) as triangles and points where the scene has them.

Read here and not by trimesh, which leaves zeros where an accessor is sparse or cannot be decoded, draws an instanced mesh
once, and knows neither skins, morph targets nor normalised positions: parts of a shape would be dropped or misplaced without a
word. What this reader does not know is refused by its name.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np
from numpy.typing import NDArray

from zoo.errors import ConfigError, DataError
from zoo.extras import need

Array = NDArray[Any]
#: vertices (n, 3), and triangles (m, 3) or None where the part is points
Part = tuple[NDArray[np.float64], NDArray[np.int64] | None]
#: bytes of the largest file beside a .gltf, and vertices of the largest scene
LARGEST, MOST_VERTICES = 512 * 2**20, 40_000_000
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
MODES = {1: "lines", 2: "a line loop", 3: "a line strip"}
DRACO, INSTANCING = "KHR_draco_mesh_compression", "EXT_mesh_gpu_instancing"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
#: extensions that change where points are and are read here, and beginnings of those that change only how they look
KNOWN = (DRACO, INSTANCING, "KHR_mesh_quantization")
LOOKS = (
    "KHR_materials_",
    "KHR_texture_",
    "EXT_texture_",
    "MSFT_texture_",
    "KHR_lights_",
    "EXT_lights_",
    "KHR_xmp",
    "KHR_animation_",
)


def read_gltf(path: Path) -> list[Part]:
    """All parts of a file's scene, in the units and at the places of the scene (y up).

    Node transforms, skins in the pose of the file, morph weights, instances, sparse, quantised and normalised attributes are
    applied; Draco is decoded with the extra "draco". Buffers may lie in files of the same folder.

    Raises:
        DataError: a damaged file, or one with parts that cannot be read, each named: meshopt compression, unknown extensions
            that the file requires, lines, files outside its folder. The message does not name `path`.
    """
    try:
        return _Scene(path).parts()
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError, AttributeError, struct.error) as error:
        if isinstance(error, DataError | ConfigError):
            raise
        raise DataError(f"its glTF structure is damaged ({type(error).__name__}: {error})") from error


class _Scene:
    """The header and buffers of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        text, self.binary = _chunks(data) if data[:4] == b"glTF" else (data, None)
        try:
            header = json.loads(text.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"its glTF header is not JSON ({error})") from error
        if not isinstance(header, dict):
            raise DataError("its glTF header is not a JSON object")
        self.header: dict[str, Any] = header
        version = str(header.get("asset", {}).get("version"))
        if version.split(".")[0] != "2":
            raise DataError(f"it is glTF version {version}; version 2 is read")
        for name in header.get("extensionsRequired", []):
            if name not in (*KNOWN, *MESHOPT) and not str(name).startswith(LOOKS):
                raise DataError(f"it requires the glTF extension {name}, which is not read. Export it without")
        self.buffers: dict[int, bytes] = {}
        self.vertices = 0

    def get(self, kind: str, index: Any) -> dict[str, Any]:
        """An entry of one of the header's lists, with the error for one that is not there."""
        found = self.header.get(kind, [])
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(found):
            raise DataError(f"it refers to {kind}[{index!r}], of {len(found)}")
        entry: dict[str, Any] = found[index]
        return entry

    # ---------------------------------------------------------------- bytes

    def buffer(self, index: int) -> bytes:
        """The bytes of a buffer: the binary chunk, a data URI or a file of the same folder."""
        if index not in self.buffers:
            entry = self.get("buffers", index)
            uri, length = entry.get("uri"), _count(entry["byteLength"], "the length of a buffer", 1)
            if uri is None:
                if index or self.binary is None:
                    raise DataError(f"its buffer {index} has no data")
                data = self.binary
            else:
                data = self.fetched(str(uri))
            if len(data) < length:
                raise DataError(f"its buffer {index} is truncated: {len(data):,} of {length:,} bytes")
            self.buffers[index] = data
        return self.buffers[index]

    def fetched(self, uri: str) -> bytes:
        """What a URI of the header names; a path is resolved inside the file's folder alone."""
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            try:
                return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
            except binascii.Error as error:
                raise DataError(f"a data URI of it is damaged ({error})") from error
        name, folder = unquote(uri), self.path.resolve().parent
        target = (folder / name).resolve()
        if urlsplit(uri).scheme or not target.is_relative_to(folder):
            raise DataError(
                f"it refers to {uri!r}, outside its folder: only files beside it are read. Put it there, or export a .glb"
            )
        try:
            if not target.is_file() or target.stat().st_size > LARGEST:
                raise DataError(f"its buffer {name!r} is missing beside it, or larger than {LARGEST:,} bytes")
            return target.read_bytes()
        except OSError as error:
            raise DataError(f"its buffer {name!r} cannot be read ({error.strerror or error})") from error

    def view(self, index: int) -> tuple[bytes, int]:
        """The bytes of a buffer view, and its stride or 0."""
        entry = self.get("bufferViews", index)
        owner = self.get("buffers", entry["buffer"])
        for name in MESHOPT:
            packed = name in entry.get("extensions", {})
            if packed and (("uri" not in owner and (entry["buffer"] or self.binary is None)) or self.required(name)):
                raise DataError(f"it is compressed with meshopt ({name}), which is not read. Export it without")
        start = _count(entry.get("byteOffset", 0), "an offset", 0)
        length, data = _count(entry["byteLength"], "the length of a view", 1), self.buffer(entry["buffer"])
        if start + length > len(data):
            raise DataError(f"its buffer view {index} ends at byte {start + length:,} of {len(data):,}")
        return data[start : start + length], _count(entry.get("byteStride", 0), "a stride", 0)

    def required(self, extension: str) -> bool:
        return extension in self.header.get("extensionsRequired", [])

    def block(self, view: int, offset: Any, count: int, dtype: np.dtype[Any], width: int) -> Array:
        """(count, width) numbers of a view; nothing is allocated before the view is known to hold them."""
        data, stride = self.view(view)
        start, row = _count(offset, "an offset", 0), dtype.itemsize * width
        stride = stride or row
        if stride < row or start + (count - 1) * stride + row > len(data):
            raise DataError(f"an accessor of {count:,} rows does not fit its buffer view {view} of {len(data):,} bytes")
        return np.ndarray((count, width), dtype, data, start, (stride, dtype.itemsize)).copy()

    def accessor(self, index: int) -> Array:
        """The numbers of an accessor (count, width), sparse ones put in, normalised ones divided."""
        entry = self.get("accessors", index)
        if entry.get("componentType") not in COMPONENTS or entry.get("type") not in WIDTHS:
            raise DataError(
                f"its accessor {index} is {entry.get('componentType')!r} {entry.get('type')!r}, which glTF does not have"
            )
        dtype, width = np.dtype(COMPONENTS[entry["componentType"]]), WIDTHS[entry["type"]]
        count, sparse = _count(entry["count"], "the count of an accessor", 1), entry.get("sparse")
        if "bufferView" in entry:
            values = self.block(entry["bufferView"], entry.get("byteOffset", 0), count, dtype, width)
        elif sparse is None:
            raise DataError(f"its accessor {index} has no data")
        elif count > MOST_VERTICES:
            raise DataError(f"its accessor {index} declares {count:,} rows; up to {MOST_VERTICES:,} are read")
        else:
            values = np.zeros((count, width), dtype)
        if sparse is not None:
            changed, at, new = _count(sparse["count"], "the count of sparse rows", 1), sparse["indices"], sparse["values"]
            kind = np.dtype(COMPONENTS[at["componentType"]])
            rows = self.block(at["bufferView"], at.get("byteOffset", 0), changed, kind, 1)[:, 0]
            if rows.dtype.kind != "u" or rows.max() >= count:
                raise DataError(f"its accessor {index} has sparse rows outside its {count:,}")
            values[rows] = self.block(new["bufferView"], new.get("byteOffset", 0), changed, dtype, width)
        if entry.get("normalized") and dtype.kind in "iu":
            return np.maximum(values / np.iinfo(dtype).max, -1.0)
        return values

    # ---------------------------------------------------------------- meshes

    def attributes(self, primitive: Mapping[str, Any]) -> tuple[dict[str, Array], Array | None]:
        """Attributes of a primitive that say where it is, and its indices (n,) or None."""
        names = {k: v for k, v in primitive["attributes"].items() if k == "POSITION" or k.startswith(("JOINTS_", "WEIGHTS_"))}
        if "POSITION" not in names:
            raise DataError("a part of it has no positions")
        packed = primitive.get("extensions", {}).get(DRACO)
        plain = "bufferView" in self.get("accessors", names["POSITION"]) and not self.required(DRACO)
        if packed is not None and not plain:
            return self.unpacked(primitive, packed, names)
        indices = primitive.get("indices")
        return {k: self.accessor(v) for k, v in names.items()}, None if indices is None else self.accessor(indices)[:, 0]

    def unpacked(
        self, primitive: Mapping[str, Any], packed: Mapping[str, Any], names: Mapping[str, int]
    ) -> tuple[dict[str, Array], Array | None]:
        """As `attributes`, of a primitive that Draco compressed."""
        try:
            draco = need("DracoPy", "draco")
        except ConfigError as error:
            raise DataError(f"a part of it is compressed with Draco ({DRACO}): {error}") from error
        data, _ = self.view(packed["bufferView"])
        try:
            found = draco.decode(data)
            by_id = {a["unique_id"]: np.asarray(a["data"]) for a in found.attributes}
            values = {k: by_id[packed["attributes"][k]] for k in names}
            faces = np.asarray(getattr(found, "faces", np.zeros((0, 3), int)))
        except Exception as error:  # a damaged blob raises whatever it led to
            raise DataError(
                f"a part of it is compressed with Draco ({DRACO}) and cannot be decoded by DracoPy of the extra "
                f'"diffusion-zoo[draco]" ({type(error).__name__}: {error})'
            ) from error
        for k, accessor in names.items():
            entry = self.get("accessors", accessor)
            if len(values[k]) != entry["count"]:
                raise DataError(f"a part of it that Draco compressed has {len(values[k])} rows of {k}, not {entry['count']}")
            if entry.get("normalized") and values[k].dtype.kind in "iu":
                values[k] = np.maximum(values[k] / np.iinfo(COMPONENTS[entry["componentType"]]).max, -1.0)
        return values, faces.reshape(-1) if "indices" in primitive else None

    def primitives(self, mesh: Mapping[str, Any]) -> list[tuple[dict[str, Array], NDArray[np.int64] | None, Mapping[str, Any]]]:
        """Attributes, triangles or None for points, and the header of each primitive of a mesh."""
        out = []
        for primitive in mesh["primitives"]:
            mode = primitive.get("mode", TRIANGLES)
            if mode in MODES:
                raise DataError(
                    f"a part of it ({mesh.get('name', 'no name')}) is {MODES[mode]}, which has no surface. Take it out"
                )
            if mode not in (POINTS, TRIANGLES, STRIP, FAN):
                raise DataError(f"a part of it has the mode {mode!r}, which glTF does not have")
            values, indices = self.attributes(primitive)
            size = len(values["POSITION"])
            if any(len(v) != size for v in values.values()):
                raise DataError("attributes of a part of it have different lengths")
            if values["POSITION"].shape[1] != 3:
                raise DataError("positions of a part of it are not three numbers each")
            if indices is not None and (indices.dtype.kind not in "iu" or indices.max(initial=0) >= size):
                raise DataError(f"a part of it has indices outside its {size:,} vertices")
            order = np.arange(size) if indices is None else indices.astype(np.int64)
            triangulated = TRIANGLES if DRACO in primitive.get("extensions", {}) and mode == STRIP else mode
            if mode == POINTS:
                values, faces = {k: v[order] for k, v in values.items()}, None
            else:
                faces = _triangles(order, triangulated)
            out.append((values, faces, primitive))
        return out

    # ---------------------------------------------------------------- the scene

    def parts(self) -> list[Part]:
        nodes = self.header.get("nodes", [])
        parents = self.parents(nodes)
        worlds: dict[int, NDArray[np.float64]] = {}
        for i in range(len(nodes)):
            chain = [i]
            while chain[-1] not in worlds and chain[-1] in parents:
                chain.append(parents[chain[-1]])
                if len(chain) > len(nodes):
                    raise DataError("its nodes go round in a circle")
            for k in reversed(chain):
                if k not in worlds:
                    own = _matrix(nodes[k])
                    worlds[k] = worlds[parents[k]] @ own if k in parents else own
        out: list[Part] = []
        if not nodes:  # a library of meshes
            for mesh in self.header.get("meshes", []):
                out += self.placed(mesh, {}, np.eye(4)[None], worlds)
        for i in self.shown(nodes, parents):
            node = nodes[i]
            if node.get("extensions", {}).get("KHR_node_visibility", {}).get("visible", True) is not True:
                raise DataError(f"its node {node.get('name', i)!r} is hidden (KHR_node_visibility). Take it out, or show it")
            if "mesh" in node:
                out += self.placed(self.get("meshes", node["mesh"]), node, worlds[i] @ self.instances(node), worlds)
        surfaces = [part for part in out if part[1] is not None]
        if surfaces and len(surfaces) < len(out):
            raise DataError("it mixes surfaces and loose points: points have no surface. Keep one of them")
        return out

    def parents(self, nodes: Sequence[Any]) -> dict[int, int]:
        """{node: its parent}; a node has one at most."""
        found: dict[int, int] = {}
        for i, node in enumerate(nodes):
            for child in node.get("children", []):
                self.get("nodes", child)
                if child in found:
                    raise DataError(f"its node {child} has two parents")
                found[child] = i
        return found

    def shown(self, nodes: Sequence[Any], parents: Mapping[int, int]) -> list[int]:
        """The nodes of the scene, children too; without a scene all nodes."""
        scenes = self.header.get("scenes", [])
        if not scenes:
            return list(range(len(nodes)))
        if "scene" not in self.header and len(scenes) > 1:
            raise DataError(f'it holds {len(scenes)} scenes and does not say which one counts ("scene"). Export one')
        queue, seen = list(self.get("scenes", self.header.get("scene", 0)).get("nodes", [])), []
        for root in queue:
            if root in parents:
                raise DataError(f"its node {root} is a root of the scene and a child")
        while queue:
            i = queue.pop()
            queue += self.get("nodes", i).get("children", [])
            seen.append(i)
            if len(seen) > len(nodes):
                raise DataError("its nodes go round in a circle")
        return sorted(seen)

    def instances(self, node: Mapping[str, Any]) -> NDArray[np.float64]:
        """(k, 4, 4), where a node's mesh is drawn, relative to the node: once, or once for each instance."""
        extension = node.get("extensions", {}).get(INSTANCING)
        if extension is None:
            return np.eye(4)[None]
        values = {
            k: self.accessor(extension["attributes"][k])
            for k in ("TRANSLATION", "ROTATION", "SCALE")
            if k in extension["attributes"]
        }
        counts = {len(v) for v in values.values()}
        if len(counts) != 1:
            raise DataError(f"its instances ({INSTANCING}) have attributes of {sorted(counts)} rows")
        names = {"TRANSLATION": "translation", "ROTATION": "rotation", "SCALE": "scale"}
        return np.stack([_matrix({names[k]: v[i].tolist() for k, v in values.items()}) for i in range(counts.pop())])

    def placed(
        self,
        mesh: Mapping[str, Any],
        node: Mapping[str, Any],
        places: NDArray[np.float64],
        worlds: Mapping[int, NDArray[np.float64]],
    ) -> list[Part]:
        """The parts of a mesh at all places (k, 4, 4) where it is drawn."""
        out: list[Part] = []
        weights = node.get("weights", mesh.get("weights", []))
        for values, faces, primitive in self.primitives(mesh):
            x = values["POSITION"].astype(np.float64)
            self.vertices += len(x) * len(places) + (0 if faces is None else len(faces) * len(places))
            if self.vertices > MOST_VERTICES:
                raise DataError(f"its scene has more than {MOST_VERTICES:,} vertices and faces. Make it coarser first")
            for weight, target in zip(weights, primitive.get("targets", []), strict=False):
                if weight and "POSITION" in target:
                    x = x + _finite([weight])[0] * self.accessor(target["POSITION"])
            if "skin" in node:  # its joints alone say where it is
                x, places_here = self.skinned(x, values, self.get("skins", node["skin"]), worlds), np.eye(4)[None]
            else:
                places_here = places
            for place in places_here:
                out.append((x @ place[:3, :3].T + place[:3, 3], faces))
        return out

    def skinned(
        self,
        x: NDArray[np.float64],
        values: Mapping[str, Array],
        skin: Mapping[str, Any],
        worlds: Mapping[int, NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Vertices (n, 3) moved by the joints of a skin, as they stand in the file."""
        joints = [worlds[int(j)] for j in skin["joints"]]
        if "inverseBindMatrices" in skin:
            bind = self.accessor(skin["inverseBindMatrices"]).astype(np.float64)
            if bind.shape != (len(joints), 16):
                raise DataError(f"a skin of it has {len(joints)} joints and {len(bind)} inverse bind matrices")
            joints = [world @ matrix.reshape(4, 4).T for world, matrix in zip(joints, bind, strict=True)]
        moves, out, total = np.stack(joints), np.zeros_like(x), np.zeros(len(x))
        sets = [k.removeprefix("JOINTS_") for k in values if k.startswith("JOINTS_")]
        if not sets:
            raise DataError("a part of it has a skin, but no joints")
        for k in sets:
            of, weight = values[f"JOINTS_{k}"].astype(int), values[f"WEIGHTS_{k}"].astype(np.float64)
            if of.min() < 0 or of.max() >= len(moves) or of.shape != weight.shape:
                raise DataError(f"a part of it names joints outside its skin's {len(moves)}")
            for j, w in zip(of.T, weight.T, strict=True):
                out += w[:, None] * (np.einsum("nij,nj->ni", moves[j, :3, :3], x) + moves[j, :3, 3])
                total += w
        if not (total > 0).all():
            raise DataError("a part of it has vertices that no joint of its skin moves")
        return out / total[:, None]


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """The JSON and the binary chunk of a GLB file."""
    if len(data) < 20:
        raise DataError("it is truncated within its header")
    version, length = struct.unpack("<II", data[4:12])
    if version != 2:
        raise DataError(f"it is GLB version {version}; version 2 is read")
    if length > len(data):
        raise DataError(f"it is truncated: {len(data):,} of {length:,} bytes")
    found, place = [], 12
    while place + 8 <= length:
        size, kind = struct.unpack("<I4s", data[place : place + 8])
        if place + 8 + size > length:
            raise DataError(f"it is damaged: a chunk of {size:,} bytes does not fit its {length:,}")
        found.append((kind, data[place + 8 : place + 8 + size]))
        place += 8 + size
    if not found or found[0][0] != b"JSON":
        raise DataError("it is damaged: its first chunk is not JSON")
    return found[0][1], next((chunk for kind, chunk in found[1:] if kind == b"BIN\0"), None)


def _count(value: Any, what: str, least: int) -> int:
    """A whole number of a header."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(f"{what} is {value!r}, not a whole number from {least} on")
    return value


def _finite(values: Any) -> NDArray[np.float64]:
    found = np.array(values, dtype=np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise DataError(f"it holds {values!r} in place of finite numbers")
    return found


def _matrix(node: Mapping[str, Any]) -> NDArray[np.float64]:
    """The transform (4, 4) of a node: its matrix, or translation, rotation and scale."""
    if "matrix" in node:
        matrix = _finite(node["matrix"]).reshape(4, 4).T
        if not np.array_equal(matrix[3], [0, 0, 0, 1]):
            raise DataError("a node's matrix is not affine")
        return matrix
    x, y, z, w = _finite(node.get("rotation", (0, 0, 0, 1)))
    size = math.sqrt(x * x + y * y + z * z + w * w)
    if not size > 0:
        raise DataError("a node's rotation is zero")
    x, y, z, w = x / size, y / size, z / size, w / size
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    out = np.eye(4)
    out[:3, :3] = turn * _finite(node.get("scale", (1, 1, 1))).reshape(3)
    out[:3, 3] = _finite(node.get("translation", (0, 0, 0))).reshape(3)
    return out


def _triangles(order: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    """Triangles (m, 3) of vertices in order."""
    if mode == TRIANGLES:
        if len(order) % 3:
            raise DataError(f"a part of it has {len(order)} corners of triangles, which is not a multiple of 3")
        return order.reshape(-1, 3)
    if len(order) < 3:
        raise DataError("a strip or fan of it has fewer than 3 corners")
    if mode == FAN:
        return np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], 1)
    found = np.stack([order[:-2], order[1:-1], order[2:]], 1)
    found[1::2] = found[1::2, ::-1]  # every other triangle of a strip turns the other way
    return found

"""glTF: every part where the scene has it, or refused by name. The expected places are worked out by hand here."""

import base64
import json
import math
import struct
from contextlib import suppress

import numpy as np
import pytest
import trimesh

from zoo.errors import DataError
from zoo.point3d import gltf
from zoo.point3d.data import read_shape
from zoo.point3d.gltf import read_gltf

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
KINDS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
SHAPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class File:
    """A glTF file in the making."""

    def __init__(self):
        self.data = b""
        self.header = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}]}
        self.header |= {"accessors": [], "bufferViews": [], "meshes": []}

    def view(self, data, **more):
        self.data += bytes(-len(self.data) % 4)
        self.header["bufferViews"].append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **more})
        self.data += data
        return len(self.header["bufferViews"]) - 1

    def accessor(self, values, **more):
        values = np.atleast_1d(values)
        width = 1 if values.ndim == 1 else values.shape[1]
        entry = {"bufferView": self.view(values.tobytes()), "componentType": KINDS[values.dtype.str[1:]]}
        self.header["accessors"].append(entry | {"count": len(values), "type": SHAPES[width], **more})
        return len(self.header["accessors"]) - 1

    def mesh(self, x=TRIANGLE, faces=(0, 1, 2), normalized=False, mesh=None, **more):
        """A mesh of one primitive; returns its number."""
        attributes = {"POSITION": self.accessor(x, **({"normalized": True} if normalized else {}))}
        attributes |= more.pop("attributes", {})
        own = {"attributes": attributes, **more}
        if faces is not None:
            own["indices"] = self.accessor(np.array(faces, "<u2"))
        self.header["meshes"].append({"primitives": [own], **(mesh or {})})
        return len(self.header["meshes"]) - 1

    def glb(self, path):
        header = self.header | {"buffers": [{"byteLength": len(self.data)}]} if "buffers" not in self.header else self.header
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4)
        binary = self.data + bytes(-len(self.data) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks)
        return path


@pytest.fixture
def file():
    return File()


@pytest.fixture
def read(tmp_path):
    return lambda file: read_gltf(file.glb(tmp_path / "a.glb"))


def places(parts):
    return sorted(np.round(np.concatenate([x for x, _ in parts]), 5).tolist())


TURN = [0, 0, math.sin(math.pi / 4), math.cos(math.pi / 4)]  # a quarter about z


def test_plain_scenes_are_read_as_trimesh_reads_them(tmp_path):
    scene = trimesh.Scene()
    rng = np.random.default_rng(0)
    parent = None
    for i in range(3):
        move = trimesh.transformations.random_rotation_matrix(rng.random(3))
        move[:3, 3] = rng.standard_normal(3)
        parent = scene.add_geometry(trimesh.creation.box((1, 2, 1 + i)), f"n{i}", transform=move, parent_node_name=parent)
    scene.export(tmp_path / "a.glb")
    own = read_gltf(tmp_path / "a.glb")
    theirs = trimesh.load_scene(tmp_path / "a.glb", process=False).dump()
    assert len(own) == 3 and all(len(faces) == 12 for _, faces in own)
    np.testing.assert_allclose(places(own), places([(m.vertices, None) for m in theirs]), atol=1e-5)


def test_nodes_are_placed_by_translation_rotation_and_scale_and_by_matrix(file, read):
    file.mesh()
    file.header["nodes"] = [
        {"children": [1], "translation": [10, 0, 0]},
        {"mesh": 0, "rotation": TURN, "scale": [2, 3, 1]},
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 7, 1], "camera": 0},
    ]
    file.header["scenes"] = [{"nodes": [0, 2]}]
    (first, _), (second, _) = read(file)
    np.testing.assert_allclose(first, [[10, 0, 0], [10, 2, 0], [7, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(second, TRIANGLE + np.array([0, 0, 7]))


def test_only_the_scene_counts_and_without_one_everything(file, read):
    file.mesh()
    file.header["nodes"] = [{"mesh": 0}, {"mesh": 0, "translation": [5, 0, 0]}]
    file.header |= {"scenes": [{"nodes": [0]}, {"nodes": [1]}], "scene": 1}
    assert len(read(file)) == 1 and read(file)[0][0].max() == 6
    del file.header["scene"]
    with pytest.raises(DataError, match="2 scenes"):
        read(file)
    del file.header["scenes"]
    assert len(read(file)) == 2
    del file.header["nodes"]
    assert len(read(file)) == 1


def test_sparse_accessors_are_put_in(file, read):
    file.mesh()
    rows, values = file.view(np.array([1, 2], "<u2").tobytes()), file.view(np.array([[5, 0, 0], [0, 6, 0]], "<f4").tobytes())
    sparse = {"count": 2, "indices": {"bufferView": rows, "componentType": 5123}, "values": {"bufferView": values}}
    file.header["accessors"][0]["sparse"] = sparse
    np.testing.assert_allclose(read(file)[0][0], [[0, 0, 0], [5, 0, 0], [0, 6, 0]])
    del file.header["accessors"][0]["bufferView"]  # zeros, but for the sparse rows
    np.testing.assert_allclose(read(file)[0][0], [[0, 0, 0], [5, 0, 0], [0, 6, 0]])


@pytest.mark.parametrize(("dtype", "one"), [("u1", 255), ("i1", 127), ("u2", 65535), ("i2", 32767)])
def test_quantised_positions_are_numbers_or_shares(file, read, dtype, one):
    file.header |= {"extensionsUsed": ["KHR_mesh_quantization"], "extensionsRequired": ["KHR_mesh_quantization"]}
    file.mesh((TRIANGLE * one).astype(f"<{dtype}"), normalized=True)
    file.mesh((TRIANGLE * 9).astype(f"<{dtype}"))
    file.header["nodes"] = [{"mesh": 0}, {"mesh": 1, "scale": [1 / 9] * 3}]
    file.header["scenes"] = [{"nodes": [0, 1]}]
    for x, _ in read(file):
        np.testing.assert_allclose(x, TRIANGLE, atol=1e-7)


def test_interleaved_vertices_are_taken_by_their_stride(file, read):
    rows = np.concatenate([TRIANGLE, np.full((3, 2), 9, "<f4")], 1)
    file.mesh()
    file.header["accessors"][0]["bufferView"] = file.view(rows.astype("<f4").tobytes(), byteStride=20)
    np.testing.assert_allclose(read(file)[0][0], TRIANGLE)


def test_instances_are_all_drawn(file, read):
    file.mesh()
    move = file.accessor(np.array([[0, 0, 0], [5, 0, 0]], "<f4"))
    turn = file.accessor(np.array([[0, 0, 0, 1], TURN], "<f4"))
    size = file.accessor(np.array([[1, 1, 1], [2, 2, 2]], "<f4"))
    where = {"TRANSLATION": move, "ROTATION": turn, "SCALE": size}
    file.header["nodes"] = [
        {"mesh": 0, "translation": [0, 0, 1], "extensions": {"EXT_mesh_gpu_instancing": {"attributes": where}}}
    ]
    (first, _), (second, _) = read(file)
    np.testing.assert_allclose(first, TRIANGLE + np.array([0, 0, 1]))
    np.testing.assert_allclose(second, [[5, 0, 1], [5, 2, 1], [3, 0, 1]], atol=1e-6)


def test_skins_are_in_the_pose_of_the_file(file, read):
    """The mesh's own node does not count; vertex 0 follows joint 0, vertex 1 joint 1, vertex 2 both half."""
    joints = file.accessor(np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], "<u1"))
    weights = file.accessor(np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0, 0]], "<f4"))
    file.mesh(attributes={"JOINTS_0": joints, "WEIGHTS_0": weights})
    bind = np.stack([np.eye(4), np.eye(4)]).astype("<f4")
    bind[1, 3, 0] = -1  # column-major: the second joint stood at x = 1
    file.header["skins"] = [{"joints": [1, 2], "inverseBindMatrices": file.accessor(bind.reshape(2, 16))}]
    file.header["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},
        {"translation": [0, 0, 3], "children": [2]},
        {"translation": [1, 0, 4]},
    ]
    file.header["scenes"] = [{"nodes": [0, 1]}]
    ((x, _),) = read(file)
    np.testing.assert_allclose(x, [[0, 0, 3], [1, 0, 7], [0, 1, 5]])


def test_morph_targets_have_their_weight(file, read):
    move = file.accessor(np.array([[0, 0, 2]] * 3, "<f4"))
    file.mesh(targets=[{"POSITION": move}], mesh={"weights": [0.5]})
    np.testing.assert_allclose(read(file)[0][0], TRIANGLE + np.array([0, 0, 1]))
    file.header["nodes"][0]["weights"] = [1.0]
    np.testing.assert_allclose(read(file)[0][0], TRIANGLE + np.array([0, 0, 2]))


def test_strips_fans_and_faces_without_indices(file, read):
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], "<f4")
    file.mesh(square, (0, 1, 2, 3), mode=5)
    assert read(file)[0][1].tolist() == [[0, 1, 2], [3, 2, 1]]
    file.header["meshes"][0]["primitives"][0]["mode"] = 6
    assert read(file)[0][1].tolist() == [[0, 1, 2], [0, 2, 3]]
    other = File()
    other.mesh(faces=None)
    assert read(other)[0][1].tolist() == [[0, 1, 2]]


def test_points_are_points(file, tmp_path):
    x = np.random.default_rng(0).standard_normal((200, 3)).astype("<f4")
    file.mesh(x, None, mode=0)
    cloud = read_shape(file.glb(tmp_path / "a.glb"))
    np.testing.assert_allclose(cloud.original, x, atol=1e-5)
    file.mesh()
    file.header["nodes"] = [{"mesh": 0}, {"mesh": 1}]
    file.header["scenes"] = [{"nodes": [0, 1]}]
    with pytest.raises(DataError, match=r"a\.glb: it mixes surfaces and loose points"):
        read_shape(file.glb(tmp_path / "a.glb"))


@pytest.mark.parametrize("where", ["my%20mesh.bin", "parts/mesh.bin", "data"])
def test_buffers_lie_beside_the_file_or_in_it(file, tmp_path, where):
    file.mesh()
    uri = "data:application/octet-stream;base64," + base64.b64encode(file.data).decode() if where == "data" else where
    if where != "data":
        target = tmp_path / where.replace("%20", " ")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.data)
    file.header["buffers"] = [{"uri": uri, "byteLength": len(file.data)}]
    (tmp_path / "a.gltf").write_text(json.dumps(file.header))
    np.testing.assert_allclose(read_gltf(tmp_path / "a.gltf")[0][0], TRIANGLE)
    assert len(read_shape(tmp_path / "a.gltf", 100)) == 100


@pytest.mark.parametrize(
    "uri", ["../secret.bin", "/etc/hostname", "file:///etc/hostname", "http://a.b/c.bin", "link.bin", "gone.bin"]
)
def test_no_file_outside_the_folder_is_read(file, tmp_path, uri):
    file.mesh()
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(file.data)
    (tmp_path / "in" / "secret.bin").write_bytes(file.data)  # what a reader would take that looks for the name alone
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    file.header["buffers"] = [{"uri": uri, "byteLength": len(file.data)}]
    path = tmp_path / "in" / "a.gltf"
    path.write_text(json.dumps(file.header))
    with pytest.raises(DataError, match=r"a\.gltf: it.*(outside its folder|missing)"):
        read_shape(path)


def packed(name, **more):
    def change(file):
        file.header["meshes"][0]["primitives"][0]["extensions"] = {name: {"bufferView": 0, "attributes": {"POSITION": 0}}}
        file.header["extensionsRequired"] = [name]

    return change


def meshopt(file):
    file.header["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {"buffer": 0, "byteLength": 8}}
    file.header["extensionsRequired"] = ["EXT_meshopt_compression"]


def setting(*keys, value):
    """A change of one entry of the header."""

    def change(file):
        entry = file.header
        for key in keys[:-1]:
            entry = entry[key]
        entry[keys[-1]] = value

    return change


LOOP = [{"mesh": 0, "children": [1]}, {"children": [0]}]
BAD = {
    "draco": (packed("KHR_draco_mesh_compression"), r"Draco.*diffusion-zoo\[draco\]"),
    "meshopt": (meshopt, "meshopt.*EXT_meshopt_compression"),
    "unknown extension": (setting("extensionsRequired", value=["ACME_shape"]), "requires the glTF extension ACME_shape"),
    "lines": (setting("meshes", 0, "primitives", 0, "mode", value=1), "is lines"),
    "mode": (setting("meshes", 0, "primitives", 0, "mode", value=9), "the mode 9"),
    "hidden": (setting("nodes", 0, "extensions", value={"KHR_node_visibility": {"visible": False}}), "hidden"),
    "no data": (setting("accessors", 0, value={"componentType": 5126, "count": 3, "type": "VEC3"}), "has no data"),
    "huge": (setting("accessors", 0, "count", value=10**12), "1,000,000,000,000 rows does not fit"),
    "negative": (setting("accessors", 0, "count", value=-3), "count of an accessor is -3"),
    "bool": (setting("accessors", 0, "count", value=True), "count of an accessor is True"),
    "view": (setting("bufferViews", 0, "byteLength", value=10**9), "of .* bytes|ends at byte"),
    "offset": (setting("bufferViews", 0, "byteOffset", value=-4), "an offset is -4"),
    "buffer": (setting("buffers", value=[{"byteLength": 10**9}]), "truncated"),
    "corners": (setting("accessors", 1, "count", value=2), "multiple of 3"),
    "index": (setting("accessors", 0, "count", value=2), "indices outside its 2"),
    "loop": (setting("nodes", value=LOOP), "circle|a child"),
    "two parents": (setting("nodes", value=[{"children": [2]}, {"children": [2]}, {"mesh": 0}]), "two parents"),
    "nan": (setting("nodes", 0, "translation", value=["nan", 0, 0]), "nan|finite"),
    "gone": (setting("nodes", 0, "mesh", value=7), r"meshes\[7\], of 1"),
    "odd": (setting("meshes", value={"a": 1}), "damaged|refers"),
    "version": (setting("asset", value={"version": "1.0"}), "version 1.0"),
    "skin": (setting("nodes", 0, "skin", value=0), r"skins\[0\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_named(file, tmp_path, name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "DracoPy", None)
    file.mesh()
    change, message = BAD[name]
    change(file)
    with pytest.raises(DataError, match=rf"a\.glb: .*({message})"):
        read_shape(file.glb(tmp_path / "a.glb"))


def test_a_part_that_draco_compressed_beside_a_plain_one_is_not_dropped(file, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "DracoPy", None)
    file.mesh()
    file.mesh()
    file.header["nodes"] = [{"mesh": 0}, {"mesh": 1, "translation": [5, 5, 5]}]
    file.header["scenes"] = [{"nodes": [0, 1]}]
    for accessor in file.header["accessors"][:2]:
        del accessor["bufferView"]
    packed("KHR_draco_mesh_compression")(file)
    with pytest.raises(DataError, match=r"a\.glb: a part of it is compressed with Draco .*diffusion-zoo\[draco\]"):
        read_shape(file.glb(tmp_path / "a.glb"))


def test_draco_is_decoded(file, read):
    draco = pytest.importorskip("DracoPy")
    blob = draco.encode(TRIANGLE, np.array([[0, 1, 2]], np.uint32), preserve_order=True)
    file.mesh()
    for accessor in file.header["accessors"]:
        del accessor["bufferView"]
    extension = {"bufferView": file.view(blob), "attributes": {"POSITION": draco.decode(blob).attributes[0]["unique_id"]}}
    file.header["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": extension}
    file.header["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    file.header["nodes"] = [{"mesh": 0, "translation": [0, 0, 2]}]
    ((x, faces),) = read(file)
    np.testing.assert_allclose(x, TRIANGLE + np.array([0, 0, 2]), atol=1e-3)
    assert faces.tolist() == [[0, 1, 2]]
    file.header["bufferViews"][extension["bufferView"]]["byteLength"] = 16
    with pytest.raises(DataError, match=r'Draco.*"diffusion-zoo\[draco\]"'):
        read(file)


def test_a_scene_that_unpacks_to_too_much_is_refused(file, read, monkeypatch):
    monkeypatch.setattr(gltf, "MOST_VERTICES", 100)
    file.mesh()
    move = file.accessor(np.zeros((40, 3), "<f4"))
    file.header["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": move}}}
    with pytest.raises(DataError, match="more than 100"):
        read(file)


def test_cut_and_flipped_files_are_one_error_or_a_shape(file, tmp_path):
    """Every cut is an error; a flipped byte is an error or, where it hits a number, another shape."""
    file.mesh()
    whole = file.glb(tmp_path / "a.glb").read_bytes()
    for size in range(1, len(whole), 19):
        (tmp_path / "a.glb").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"a\.glb"):
            read_shape(tmp_path / "a.glb")
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        (tmp_path / "a.glb").write_bytes(damaged)
        with suppress(DataError):
            assert np.isfinite(read_shape(tmp_path / "a.glb", 64).points).all()

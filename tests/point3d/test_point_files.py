"""Clouds as text and as PCD, meshes that end early, and what a file may not do."""

import struct
import warnings
from contextlib import suppress

import numpy as np
import pytest
import trimesh

from zoo.errors import DataError
from zoo.point3d.codec import FEWEST, MOST
from zoo.point3d.data import folder_clouds, open_clouds, read_shape
from zoo.point3d.meshfile import read_mesh

X = np.random.default_rng(0).uniform(-3, 3, (100, 3)).round(4)


def text(rows=X, apart=" ", head=(), tail=""):
    lines = [*head, *(apart.join(f"{v:.4f}" for v in row) + tail for row in rows)]
    return "\n".join(lines).encode() + b"\n"


def lzf(data):
    """Runs of up to 32 bytes as they are, and one copy for bytes that repeat: enough to try both kinds."""
    out, i = b"", 0
    while i < len(data):
        run = 1
        while i + run < len(data) and run < 264 and data[i + run] == data[i] and i:
            run += 1
        if i and run > 8 and data[i - 1] == data[i]:
            out += bytes([7 << 5, run - 9, 0])
        else:
            run = min(32, len(data) - i) if run <= 8 else 1
            out += bytes([run - 1]) + data[i : i + run]
        i += run
    return out


def pcd(kind, x=X, n=None, body=None, fields="intensity x y z"):
    """A PCD with a field of one byte in front of the coordinates."""
    n = len(x) if n is None else n
    head = f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE 1 4 4 8\nTYPE U F F F\nCOUNT 2 1 1 1\nWIDTH {n}\nHEIGHT 1\n"
    head += f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {n}\nDATA {kind}\n"
    table = np.zeros(len(x), np.dtype([("i", "u1", 2), ("x", "<f4"), ("y", "<f4"), ("z", "<f8")]))
    table["x"], table["y"], table["z"] = np.transpose(x)
    if body is None and kind == "ascii":
        body = text(np.concatenate([np.ones((len(x), 2)), x], 1))
    elif body is None and kind == "binary":
        body = table.tobytes()
    elif body is None:
        raw = b"".join(table[name].tobytes() for name in "ixyz")
        packed = lzf(raw)
        body = struct.pack("<II", len(packed), len(raw)) + packed
    return head.encode() + body


GOOD = {
    "a.xyz": text(),
    "normals.xyz": text(np.concatenate([X, X], 1)),
    "comment.xyz": text(head=["# made by hand", "// x y z"]),
    "csv.txt": text(apart=","),
    "csv_space.txt": text(apart=", "),
    "semicolon.txt": text(apart=";"),
    "tabs.txt": text(apart="\t", tail="\t"),
    "names.txt": text(np.concatenate([np.ones((100, 1)), X[:, ::-1]], 1), head=["i z y x"]),
    "bom.txt": b"\xef\xbb\xbf" + text(head=['"X","Y","Z"'], apart=","),
    "crlf.xyz": text().replace(b"\n", b"\r\n"),
    "count.pts": text(np.concatenate([X, np.ones((100, 4))], 1), head=["100"]),
    "plain.pts": text(),
    "a.pcd": pcd("ascii"),
    "b.pcd": pcd("binary"),
    "c.pcd": pcd("binary_compressed"),
}


@pytest.mark.parametrize("name", GOOD)
def test_points_are_read_as_they_are(tmp_path, name):
    (tmp_path / name).write_bytes(GOOD[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(read_shape(tmp_path / name).original, X, atol=1e-5)


def test_scans_of_a_pts_file_are_joined(tmp_path):
    (tmp_path / "a.pts").write_bytes(text(X[:60], head=["60"]) + text(X[60:], head=["40"]))
    np.testing.assert_allclose(read_shape(tmp_path / "a.pts").original, X, atol=1e-5)


BAD = {
    "short.pts": (text(head=["101"]), "announces 101 points and has 100"),
    "more.pts": (text(head=["99"]), "announces 99 points, and more lines follow"),
    "numbers.xyz": (b"3\n\n8 0 0 0\n1 1 0 0\n1 0 1 0\n", "molecule"),
    "more.pcd": (pcd("binary", n=90), "announces 90 points of 18 bytes and has 1,800"),
    "ragged.xyz": (text()[:-9], "is it truncated|columns"),
    "two.xyz": (text(X[:, :2]), "2 columns"),
    "word.xyz": (text(tail=" chair"), "neither numbers nor names|not a number"),
    "late.xyz": (text(X[:3]) + b"x y z\n" + text(), "not a number"),
    "nan.xyz": (text(np.where(X > 2.9, np.nan, X)), "NaN"),
    "water.xyz": (b"3\nwater\nO 0 0 0\nH 1 0 0\nH 0 1 0\n", "molecule"),
    "decimal.txt": (b"\n".join(b"1,5 2,3 4,4" for _ in range(9)), "commas and spaces"),
    "prose.txt": (b"A note about these shapes\nand more of it\n", "neither numbers nor names"),
    "bytes.txt": (b"\0\1\2\3" * 9, "not text"),
    "none.xyz": (b"# nothing\n", "no points"),
    "landmarks.pts": (b"version: 1\nn_points: 68\n{\n1 2\n}\n", "neither numbers nor names"),
    "cut.pcd": (pcd("binary")[:-1], "truncated"),
    "cut2.pcd": (pcd("ascii")[:-30], "announces 100 points|numbers"),
    "cut3.pcd": (pcd("binary_compressed")[:-5], "damaged"),
    "head.pcd": (pcd("binary")[:100], "truncated"),
    "huge.pcd": (pcd("binary", n=10**15), "truncated: .* of 18,000,000,000,000,000"),
    "bomb.pcd": (pcd("binary_compressed", n=2**27, body=struct.pack("<II", 9, 18 * 2**27 % 2**32) + bytes(9)), "damaged"),
    "kind.pcd": (pcd("gzip", body=b""), "'gzip'"),
    "fields.pcd": (pcd("binary", fields="a b c d"), "x, y and z are needed"),
    "nan.pcd": (pcd("binary", np.where(X > 2.9, np.nan, X)), "NaN"),
    "text.npy": (None, "not real numbers"),
    "complex.npy": (None, "complex128, not real"),
    "huge.npy": (
        np.lib.format.magic(1, 0)
        + b"\x76\x00"
        + f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**12}, 3), }}".ljust(117).encode()
        + b"\n",
        "truncated",
    ),
    "page.obj": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_cloud_is_named(tmp_path, name):
    content, message = BAD[name]
    if content is None:
        np.save(tmp_path / name, X.astype("U9") if name == "text.npy" else X * 1j)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_shape(tmp_path / name)
    assert str(caught.value).count(name) == 1


def test_clouds_of_a_size_that_no_model_takes_are_named_and_may_be_skipped(tmp_path):
    for name, n in {"few": FEWEST - 1, "many": MOST + 1, "least": FEWEST, "most": MOST}.items():
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).standard_normal((n, 3)))
    with pytest.raises(
        DataError, match=r"2 unreadable.*few\.npy: a cloud of 63 points: models take 64 to 65,536.*many\.npy.*65,537"
    ):
        folder_clouds(tmp_path)
    assert sorted(len(c) for c in open_clouds(tmp_path, skip_unreadable=True).clouds) == [FEWEST, MOST]
    assert len(read_shape(tmp_path / "few.npy")) == 63, "a cloud all the same"


def test_notes_and_lists_beside_the_shapes_are_not_shapes(tmp_path):
    for name in ("README.txt", "chair/license.txt", "modelnet40_shape_names.txt", "train.txt", "chair_test.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not a shape")
    for i in range(3):
        (tmp_path / "chair" / f"chair_{i:04d}.txt").write_bytes(text(X, apart=","))
    clouds = folder_clouds(tmp_path)
    assert len(clouds.clouds) == 3 and clouds.labels == {"label": ["chair"]}


# ---------------------------------------------------------------- meshes

HEAD = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nelement face 2\n"
HEAD += "property list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
SOLID = "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"
CORNERS = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
SPOILT = {
    "few.off": ("OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "announces 3 vertices and 2 faces"),
    "cut.off": ("OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n3 0 1", "announces"),
    "few.ply": (HEAD, "announces 2 rows of face and has 1"),
    "cut.ply": (HEAD + "3 0 1", "corners"),
    "range.ply": (HEAD + "3 0 1 9\n", "name vertices 0 to 9, of 3"),
    "strips.ply": (HEAD.replace("element face", "element tristrips"), "tristrips"),
    "cut.stl": (SOLID, "truncated"),
    "second.stl": (SOLID + "endsolid a\n" + SOLID, "2 facets begin"),
    "cut.obj": (CORNERS + "f 1 2 3\nf 1 2", "line 5.*fewer than three corners"),
    "vertex.obj": (CORNERS + "f 1 2 3\nv 1 2", "line 5.*fewer than three numbers"),
    "zero.obj": (CORNERS + "f 0 1 2\n", "not there"),
    "far.obj": (CORNERS + "f 1 2 4\n", "no readable mesh"),
    "back.obj": (CORNERS + "f -4 -2 -1\n", "not there"),
    "call.obj": (CORNERS + "call b.obj\nf 1 2 3\n", "another file"),
    "four.off": ("4OFF\n3 1 0\n0 0 0 2\n1 0 0 2\n0 1 0 2\n3 0 1 2\n", "it is 4OFF"),
    "nurbs.obj": (CORNERS + "cstype bspline\nsurf 0 1 0 1 1 2 3\n", "free-form"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_mesh_that_is_not_whole_is_refused(tmp_path, name):
    (tmp_path / name).write_text(SPOILT[name][0])
    with pytest.raises(DataError, match=rf"{name}: .*{SPOILT[name][1]}"):
        read_shape(tmp_path / name)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_no_line_of_an_obj_is_dropped_however_it_is_written(tmp_path, end):
    """trimesh reads those alone that start with "v " and "f "."""
    lines = [
        "# a\x0cb",
        "v\t0 0 0",
        "  v 2  0 0 # two",
        "v 0 2 0",
        "v 0\t0 2 1 1 1",
        "vt 0 0",
        "usemtl a",
        " f 1 2 3",
        "usemtl b",
    ]
    lines += ["f\t1/1 2/1 4/1 # f", "o \x85f 1 2 3", "fo 2 3 \\", "4"]
    (tmp_path / "a.obj").write_bytes(end.join(lines).encode("latin-1"))
    ((x, faces),) = read_mesh(tmp_path / "a.obj")
    assert x.tolist() == [[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]] and faces.tolist() == [[0, 1, 2], [0, 1, 3], [1, 2, 3]]


def test_relative_indices_count_from_where_they_stand(tmp_path):
    (tmp_path / "a.obj").write_text(
        "\ufeff" + CORNERS + "f -3/-1/-1 -2/-1/-1 -1/-1/-1\nv 0 0 5\nv 1 0 5\nv 0 1 5\nf -3 -2 \\\n-1\n"
    )
    ((x, faces),) = read_mesh(tmp_path / "a.obj")
    assert sorted(x[faces].mean(1)[:, 2].tolist()) == [0, 5]


def test_a_binary_ply_of_triangles_and_quads_says_what_to_do(tmp_path):
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 4\n" + "".join(f"property float {a}\n" for a in "xyz")
    head += "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    faces = struct.pack("<B3iB4i", 3, 0, 1, 2, 4, 0, 1, 2, 3)
    (tmp_path / "a.ply").write_bytes(head.encode() + np.eye(4, 3, dtype="<f4").tobytes() + faces)
    with pytest.raises(DataError, match=r"a\.ply: it is truncated, or it is a binary PLY .*as triangles, or as text"):
        read_shape(tmp_path / "a.ply")


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "off"])
def test_cut_and_flipped_meshes_are_one_error_or_a_shape(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    trimesh.creation.box().export(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(15):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        for data in (damaged, whole[: rng.integers(len(whole))]):
            path.write_bytes(data)
            with suppress(DataError):
                assert np.isfinite(read_shape(path, 64).points).all()

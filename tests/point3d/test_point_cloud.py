"""PointCloud: files, pictures, surfaces, and what it refuses."""

import errno
import json
import os
import re
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from zoo.contract.registry import get_domain
from zoo.contract.samples import Samples
from zoo.errors import ConfigError, DataError, ResourceError, ShapeError
from zoo.point3d.cloud import PointCloud, contact_sheet, render

rng = np.random.default_rng(0)


def sphere(n=400):
    x = rng.standard_normal((n, 3))
    return PointCloud(x / np.linalg.norm(x, axis=1, keepdims=True))


def read_glb(path):
    """Positions of a GLB by its specification (glTF 2.0, sections 4.4 and 3.6)."""
    data = path.read_bytes()
    magic, version, total = struct.unpack("<4sII", data[:12])
    size = struct.unpack("<I", data[12:16])[0]
    assert (magic, version, total) == (b"glTF", 2, len(data))
    facts, binary = json.loads(data[20 : 20 + size]), data[28 + size :]
    (primitive,) = facts["meshes"][0]["primitives"]
    assert primitive["mode"] == 0, "points"
    accessor = facts["accessors"][primitive["attributes"]["POSITION"]]
    assert (accessor["componentType"], accessor["type"]) == (5126, "VEC3")
    start = facts["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) + accessor.get("byteOffset", 0)
    return np.frombuffer(binary, "<f4", 3 * accessor["count"], start).reshape(-1, 3)


def read_obj(path):
    return np.array([line.split()[1:4] for line in path.read_text().splitlines() if line.startswith("v ")], np.float32)


@pytest.mark.parametrize(("suffix", "second"), [(".ply", None), (".glb", read_glb), (".obj", read_obj)])
def test_files_hold_the_same_points_for_trimesh_and_a_second_reader(suffix, second, tmp_path):
    cloud = sphere()
    path = cloud.save(tmp_path / f"cloud{suffix}")
    (part,) = trimesh.load_scene(path, process=False).geometry.values()
    np.testing.assert_allclose(part.vertices, cloud.points, rtol=0, atol=1e-7)
    if second is not None:  # PLY has its own in tests/contract.py
        np.testing.assert_allclose(second(path), cloud.points, rtol=0, atol=1e-7)


def test_centre_and_scale_are_kept(tmp_path):
    metres = np.array([10.0, 2.0, -3.0]) + 0.4 * rng.standard_normal((100, 3))
    cloud = PointCloud.normalised(metres)
    assert abs(cloud.points.mean(0)).max() < 1e-6 and np.linalg.norm(cloud.points, axis=1).max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(cloud.original, metres, atol=1e-6)
    with np.load(cloud.save(tmp_path / "a.npz")) as z:
        again = PointCloud(z["points"], z["centre"], float(z["scale"]))
    np.testing.assert_array_equal(again.original, cloud.original)


def test_files_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'\.stl'.*\.ply"):
        sphere().save(tmp_path / "a.stl")
    with pytest.raises(DataError, match="cannot save"):
        sphere().save(tmp_path / "missing" / "a.ply")


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        (np.zeros((0, 3)), ShapeError, r"\(0, 3\)"),
        (np.zeros((5, 2)), ShapeError, r"\(5, 2\)"),
        (np.full((5, 3), np.nan), DataError, "NaN"),
        (np.ones((5, 3)), DataError, "one place"),
    ],
)
def test_points_that_cannot_be_are_refused(points, error, message):
    with pytest.raises(error, match=message):
        PointCloud.normalised(points)
    for wrong in ({"scale": 0.0}, {"scale": np.inf}, {"centre": (0, 0)}):
        with pytest.raises(ConfigError, match="positive"):
            PointCloud(np.ones((5, 3)), **wrong)


def test_the_mirror_axis_is_that_of_the_symmetry():
    half = rng.uniform(0, 1, (200, 3)) * (1, 1, 0.5)
    x = np.concatenate([half, half * (1, 1, -1)])  # symmetric along z
    x[:, 0] += 0.5 * (x[:, 1] > 0.3)  # and not along x
    assert PointCloud(x).mirror_axis == 2 and PointCloud(x[:, [2, 1, 0]]).mirror_axis == 0


def test_a_picture_shows_where_points_are_and_which_are_nearer():
    def mark(*point):
        picture = render(np.array([point]), 0.0, 0.0, 100)
        rows, columns = np.nonzero(picture.sum(2) < 765)
        return rows.mean(), columns.mean(), picture[rows[0], columns[0]].sum()

    middle, up, right, near = mark(0, 0, 0), mark(0, 0.9, 0), mark(0.9, 0, 0), mark(0, 0, 0.9)
    assert up[0] < middle[0] - 30 and abs(up[1] - middle[1]) < 1.5, "y is up"
    assert right[1] > middle[1] + 30 and near[2] < middle[2]
    hidden = render(np.array([[0, 0, 0.9], [0, 0, -0.9]]), 0.0, 0.0, 100)
    assert hidden.sum() == render(np.array([[0, 0, 0.9]]), 0.0, 0.0, 100).sum(), "the nearer one is on top"
    assert contact_sheet([sphere()] * 5, list("abcde")).size[0] > 300 and sphere().plot().size == (776, 256)


def test_it_turns_in_a_gif_and_in_a_notebook(tmp_path):
    cloud = PointCloud(rng.standard_normal((50, 3)) * (0.3, 0.1, 0.02))
    with Image.open(cloud.spin(tmp_path / "a.gif", frames=6, size=64)) as film:
        assert film.n_frames == 6
        frames = []
        for i in range(6):
            film.seek(i)
            frames.append(np.asarray(film.convert("L")))
    assert not np.array_equal(frames[0], frames[2])
    with pytest.raises(ConfigError, match="gif"):
        cloud.spin(tmp_path / "a.mp4")
    page = cloud._repr_html_()
    assert page.startswith("<iframe") and not re.search(r"(src|href)=&quot;http", page), "needs no internet"


def test_a_surface_around_a_ball():
    mesh = sphere(3000).to_mesh()
    assert mesh.is_watertight and mesh.volume == pytest.approx(4.19, rel=0.4)
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert radius.min() > 0.9 and radius.max() < 1.25, "half a voxel outside, and nothing inside"
    for wrong in (0.0, -1.0, 1e-4):
        with pytest.raises(ConfigError, match="pitch"):
            sphere().to_mesh(wrong)


def test_a_file_name_is_not_an_axis(tmp_path):
    with pytest.raises(ConfigError, match=r"plot\('x\.xyz'\): give a matplotlib axis.*save"):
        sphere().plot("x.xyz")
    samples = Samples.of([sphere(), sphere()], domain=get_domain("point3d"))
    for name in ("x.xyz", "x", "x.pdf.gz"):
        with pytest.raises(ConfigError, match=r"cannot save a picture as .*\.png"):
            samples.plot(tmp_path / name)
    samples.plot(tmp_path / "new" / "a.PNG")
    assert [p.name for p in tmp_path.rglob("*")] == ["new", "a.PNG"], "and nothing half written"


def test_a_disk_without_room_leaves_the_old_file(tmp_path, monkeypatch):
    sphere().save(tmp_path / "a.ply")
    old = (tmp_path / "a.ply").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for save in (sphere(300).save, sphere(300).spin, Samples.of([sphere()], domain=get_domain("point3d")).plot):
        name = {"save": "a.ply", "spin": "a.gif", "plot": "a.png"}[save.__name__]
        with pytest.raises(ResourceError, match="no room"):
            save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"] and (tmp_path / "a.ply").read_bytes() == old

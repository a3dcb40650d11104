"""The archive of shapes, and folders of anybody's meshes and clouds."""

import io

import numpy as np
import pytest
import trimesh

import zoo
from zoo.contract.registry import get_domain, get_recipe
from zoo.errors import ConfigError, DataError
from zoo.point3d import data
from zoo.point3d.data import balanced, folder_clouds, open_clouds, read_shape
from zoo.point3d.recipes import SHAPES

BOX = trimesh.creation.box((2.0, 1.0, 0.5))


@pytest.fixture
def folder(tmp_path):
    """Meshes in every format that is read, and clouds, in two classes of six."""
    root = tmp_path / "things"
    for name in ("box", "cloud"):
        (root / name).mkdir(parents=True)
    for i, suffix in enumerate(data.MESHES):
        BOX.copy().apply_scale(1 + i).export(root / "box" / f"{i}{suffix}")
    BOX.export(root / "box" / "9.STL", file_type="stl_ascii")
    points = np.random.default_rng(0).standard_normal((200, 3))
    np.save(root / "cloud" / "a.npy", points)
    np.savez(root / "cloud" / "b.npz", points=points)
    np.savetxt(root / "cloud" / "c.xyz", points)
    for suffix in ("ply", "glb", "obj"):
        trimesh.PointCloud(points).export(root / "cloud" / f"d.{suffix}")
    return root


# ---------------------------------------------------------------- the archive


def test_no_shape_is_in_two_splits(shapes_file):
    seen = set()
    for split, size in {"train": 56, "validation": 8, "test": 16}.items():
        clouds = open_clouds(shapes_file, split)
        assert len(clouds.clouds) == len(open_clouds(shapes_file.parent, split).clouds) == size
        assert (np.bincount(clouds.label) == size // 4).all(), "a share of every category"
        seen |= {c.points.tobytes() for c in clouds.clouds}
        assert clouds.labels == {"label": ["ball", "box", "rod", "sheet"]}
    assert len(seen) == 80
    cloud, cond = open_clouds(shapes_file, "test")[6]
    assert (
        cond == {"label": 1} and len(cloud) == 256 and np.linalg.norm(cloud.points, axis=1).max() == pytest.approx(1, abs=1e-4)
    )


def test_rare_classes_come_more_often_in_training_alone(shapes_file):
    counts = np.bincount(balanced(np.repeat([0, 1, 2], [100, 25, 4])))
    assert (counts[[0, 100, 125]] == [3, 6, 15]).all(), "3 sqrt(n_max / n)"
    assert len(open_clouds(shapes_file, "test")) == 16


def test_a_recipe_takes_the_classes_of_the_data(shapes_file):
    recipe, domain = get_recipe("point3d/shapes-ddpm"), get_domain("point3d")
    clouds = domain.dataset(shapes_file)
    adapted = clouds.attributed(domain.adapt(recipe, clouds))
    assert adapted.classes("label") == ("ball", "box", "rod", "sheet") and adapted.data == recipe.data
    clouds.labels["label"] = list(SHAPES)
    assert domain.adapt(recipe, clouds) is recipe


@pytest.mark.data
def test_the_furniture_is_what_its_readme_says(zoo_data):
    clouds = {split: open_clouds(zoo_data / "point3d", split) for split in data.SPLITS}
    assert [len(c.clouds) for c in clouds.values()] == [455, 50, 89]
    assert clouds["train"].labels == {"label": list(SHAPES)}
    assert np.bincount(clouds["test"].label).tolist() == [3, 13, 5, 12, 6, 9, 1, 6, 4, 9, 14, 7]
    planes = open_clouds(zoo_data / "point3d" / data.AIRPLANES, "test")
    assert planes.labels == {"label": ["airplane"]} and len(planes.clouds) == 16


# ---------------------------------------------------------------- folders


def test_every_format_is_read_and_class_folders_are_labels(folder):
    clouds = folder_clouds(folder)
    assert clouds.labels == {"label": ["box", "cloud"]} and len(clouds.clouds) == 12, "every tenth is held out"
    assert clouds.origin == "12 shapes of the folder 'things'"
    boxes = [c for c, label in zip(clouds.clouds, clouds.label, strict=True) if label == 0]
    for cloud in boxes:
        assert len(cloud) == data.POOL
        size = np.ptp(cloud.original, axis=0)
        np.testing.assert_allclose(size / size[0], [1, 0.5, 0.25], atol=0.02)
    sizes = sorted(round(float(np.ptp(c.original, axis=0)[0])) for c in boxes)
    assert sizes[:2] == [2, 2] and sizes[-1] >= 8, "the scale of each is kept"
    held = folder_clouds(folder, "test")
    assert len(held.clouds) == 1 and (zoo.create("point3d/shapes-ddpm").codec.encode(held.clouds[0]).isfinite().all())


def test_points_are_spread_evenly_over_the_surface(tmp_path):
    BOX.export(tmp_path / "box.off")
    x = read_shape(tmp_path / "box.off", 20000).original
    top = np.isclose(np.abs(x[:, 2]), 0.25).mean()
    assert top == pytest.approx(2 * 2 * 1 / BOX.area, abs=0.015)
    np.testing.assert_array_equal(x, read_shape(tmp_path / "box.off", 20000).original)


def test_the_meshes_of_a_scene_are_merged_where_they_stand(tmp_path):
    scene = trimesh.Scene([trimesh.creation.box((1, 1, 1))])
    scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=trimesh.transformations.translation_matrix((9, 0, 0)))
    scene.export(tmp_path / "scene.glb")
    x = read_shape(tmp_path / "scene.glb").original
    assert np.ptp(x[:, 0]) == pytest.approx(10, abs=0.01) and (x[:, 0] > 4).mean() == pytest.approx(0.5, abs=0.05)


def test_one_triangle_is_a_shape(tmp_path):
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]).export(tmp_path / "a.ply")
    x = read_shape(tmp_path / "a.ply").original
    assert np.allclose(x[:, 2], 0, atol=1e-6) and (x.min() > -1e-6) and (x[:, :2].sum(1) < 1 + 1e-6).all()


def test_own_splits_are_kept(folder, tmp_path):
    for i in range(12):
        for split in ("train", "test"):
            (tmp_path / "net" / "chair" / split).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "net" / "chair" / split / f"{i}.npy", np.random.default_rng(i).standard_normal((100, 3)))
    sizes = {split: len(folder_clouds(tmp_path / "net", split).clouds) for split in data.SPLITS}
    assert sizes == {"train": 11, "validation": 1, "test": 12}
    (tmp_path / "net" / "chair" / "val").mkdir()
    np.save(tmp_path / "net" / "chair" / "val" / "0.npy", np.eye(3).repeat(30, 0))
    sizes = {split: len(folder_clouds(tmp_path / "net", split).clouds) for split in data.SPLITS}
    assert sizes == {"train": 12, "validation": 1, "test": 12}


def npz(**arrays):
    memory = io.BytesIO()
    np.savez(memory, **arrays)
    return memory.getvalue()


def obj(*lines):
    return "\n".join(lines).encode()


BAD = {
    "empty.obj": (b"", "0 bytes"),
    "nothing.obj": (b"# a comment\n", "no"),
    "garbage.glb": (b"glTF" + bytes(40), "GLB version 0"),
    "text.ply": (b"hello\n", "no readable mesh"),
    "superscript.obj": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\u00b3\n".encode("latin-1"), "not there"),
    "flat.obj": (obj("v 0 0 0", "v 1 1 1", "v 2 2 2", "f 1 2 3"), "zero"),
    "nan.obj": (obj("v 0 0 nan", "v 1 0 0", "v 0 1 0", "f 1 2 3"), "NaN"),
    "pickle.npy": (np.lib.format.magic(1, 0) + b"\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "array"),
    "archive.npy": (npz(points=np.eye(3)), "no readable array"),
    "text.npz": (b"hello", "not an NPZ file"),
    "other.npz": (npz(a=np.eye(3)), "lacks points; it has a"),
    "square.npy": (None, r"\(4, 2\)"),
    "onepoint.npy": (None, "one place"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_and_may_be_skipped(name, folder):
    content, message = BAD[name]
    path = folder / "box" / name
    if content is None:
        np.save(path, np.zeros((4, 2) if name == "square.npy" else (90, 3)))
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"(?s){name}.*{message}"):
        folder_clouds(folder)
    clouds = open_clouds(folder, skip_unreadable=True)
    assert len(clouds.clouds) == 12


def test_a_scene_without_geometry_is_refused(tmp_path):
    path = tmp_path / "none.gltf"
    path.write_text('{"asset": {"version": "2.0"}, "scenes": [{"nodes": []}], "scene": 0}')
    with pytest.raises(DataError, match=r"none\.gltf"):
        read_shape(path)


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.obj"
    with path.open("wb") as file:
        file.truncate(2**30)  # a gigabyte of nothing
    with pytest.raises(DataError, match=r"huge.obj: 1,073,741,824 bytes.*536,870,912"):
        read_shape(path)


def test_what_is_no_data_is_said(tmp_path, folder):
    for source in (tmp_path / "missing", tmp_path):
        with pytest.raises(DataError, match=r"\.obj"):
            open_clouds(source / "nothing")
    with pytest.raises(DataError, match="one file"):
        open_clouds(folder / "box" / "0.obj")
    with pytest.raises(DataError, match=r"b\.npz cannot be read as an archive of shapes: it lacks labels, is_test, categories"):
        open_clouds(folder / "cloud" / "b.npz")
    with pytest.raises(ConfigError, match=r"'dev'.*train"):
        open_clouds(folder, "dev")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.zeros(79, int)},
        {"labels": np.zeros(80)},
        {"labels": np.full(80, 4)},
        {"labels": np.array("ball")},
        {"is_test": np.zeros(80, int)},
        {"points": np.zeros((79, 256, 3), np.int16)},
    ],
)
def test_arrays_of_an_archive_that_do_not_fit_are_refused(tmp_path, shapes_file, change):
    with np.load(shapes_file) as arrays:
        np.savez(tmp_path / "a.npz", **{**arrays, **change})
    with pytest.raises(DataError, match=r"a\.npz is not an archive of shapes: points \("):
        open_clouds(tmp_path / "a.npz")


def test_a_file_is_named_once(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError) as caught:
        read_shape(tmp_path / "text.npz")
    assert str(caught.value).count("text.npz") == 1


def test_a_folder_trains(folder, tmp_path):
    small = {"net.dim": 16, "net.width": 16, "net.latents": 4, "net.rounds": 1, "net.inner": 8, "net.heads": 1}
    small |= {"codec.points": 64, "codec.train_points": 64, "training.batch_size": 4}
    model = zoo.train(
        "point3d/shapes-ddpm", data=folder, steps=2, out=tmp_path / "run", cpu=True, overrides=small, preview_every=2
    )
    assert model.recipe.data == "12 shapes of the folder 'things'" and model.recipe.classes("label") == ("box", "cloud")
    assert (tmp_path / "run" / "previews" / "0000002.png").exists()
    assert zoo.load(tmp_path / "run").verify() == 0

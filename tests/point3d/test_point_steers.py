"""Steers of clouds: depth maps and rays in closed form, boxes, mirror images."""

import math

import numpy as np
import pytest
import torch

import zoo
from zoo.cli import steer_of
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.point3d.cloud import PointCloud
from zoo.point3d.steers import Camera, box, depth_view, mirror

SMALL = {"net.width": 32, "net.latents": 8, "net.depth": 1, "net.heads": 2}


@pytest.fixture(scope="module")
def clouds():
    return zoo.load("point3d/shapes-ddpm")


def test_a_camera_sees_and_gives_back():
    camera = Camera(eye=(0, 0, 3), fov=90)
    row, column, depth = camera.seen(torch.tensor([[0.0, 0, 0], [1, 0, 1], [0, 1, 2]]), 10, 20)
    # at depth d a picture of 90 degrees spans 2 d from top to bottom
    assert depth.tolist() == pytest.approx([3, 2, 1])
    assert row.tolist() == pytest.approx([5, 5, 0]) and column.tolist() == pytest.approx([10, 12.5, 10])
    odd = Camera(eye=(2, 1, -1), target=(0.1, 0, 0.2), up=(0.2, 1, 0), fov=50)
    points = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.4
    torch.testing.assert_close(odd.points(*odd.seen(points, 17, 23), 17, 23), points)
    np.testing.assert_allclose(odd.frame @ odd.frame.T, np.eye(3), atol=1e-12)


def test_the_depth_map_of_a_known_cloud():
    # a wall at z = 0.2 and another one behind it, both wider than the picture
    grid = np.linspace(-2, 2, 161)
    x, y = (v.ravel() for v in np.meshgrid(grid, grid))
    walls = np.concatenate([np.stack([x, y, np.full_like(x, z)], 1) for z in (-0.5, 0.2)])
    image = Camera(eye=(0, 0, 3), fov=45).depth(PointCloud(walls), 24, 16)
    assert image.shape == (24, 16) and image == pytest.approx(np.full((24, 16), 2.8))
    alone = Camera(eye=(0, 0, 3)).depth([[0.0, 0.0, 1.0]], 5, 5)
    assert alone[2, 2] == 2 and np.isinf(alone).sum() == 24


def test_points_in_front_are_moved_back_along_their_ray():
    image = np.full((9, 9), np.inf)
    image[3:6, 3:6] = 2.8
    image[0, 0] = np.nan
    camera = Camera(eye=(0, 0, 3), fov=45)
    steer = depth_view(image, camera, noise=0.05)
    assert steer.surface.shape == (9, 3) and steer.surface[:, 2].numpy() == pytest.approx(np.full(9, 0.2))
    pixel = 2 * math.tan(math.radians(22.5)) / 9  # at depth 1
    points = torch.tensor(
        [[0.1, 0, 1.0], [0, 0, 0.24], [0, 0, -0.7], [3 * pixel * 3, 0, 0], [0, 0, 4], [-4 * pixel, 4 * pixel, 2]]
    )
    found = steer.behind(points.double())
    torch.testing.assert_close(found[0], torch.tensor([0.14, 0, 0.2], dtype=torch.float64))  # twice as far, so 1.4 times
    for i, why in ((1, "within the noise"), (2, "behind"), (4, "behind the camera"), (5, "where nothing is known")):
        torch.testing.assert_close(found[i], points[i].double(), msg=why)
    torch.testing.assert_close(
        found[3], torch.tensor([pixel * 3, 0, 0], dtype=torch.float64)
    )  # to the nearest pixel with something


def test_a_cloud_is_completed_from_one_side(clouds):
    whole = clouds.sample(1, label="chair", n_points=512, steps=6, seed=3)[0]
    camera = zoo.point3d.Camera(eye=(0, 0.5, 3))
    image = camera.depth(whole, 24, 24)
    steer = depth_view(image, camera, noise=0.02)
    made = clouds.sample(2, n_points=256, steps=4, seed=0, steer=[steer])
    given = steer.share(256).numpy()
    assert 32 < len(given) <= 128
    for cloud in made:
        np.testing.assert_allclose(cloud.points[: len(given)], given, atol=1e-4)
        row, column, depth = (v.numpy() for v in camera.seen(torch.from_numpy(cloud.points).double(), 24, 24))
        i, j = np.floor(row).astype(int), np.floor(column).astype(int)
        inside = (i >= 0) & (i < 24) & (j >= 0) & (j < 24)
        at = image[i[inside], j[inside]]
        rim = np.minimum(abs(row - row.round()), abs(column - column.round()))[inside] < 1e-3  # between two pixels
        assert ((depth[inside] > at - 0.021) | rim).all() and inside.mean() > 0.9


def test_a_box_holds_every_point(clouds):
    points = torch.tensor([[[2.0, 0.1, -3], [0, 0, 0]]])
    assert box((-1, -1, -1), (1, 1, 1)).nearest(points).tolist() == [[[1, pytest.approx(0.1), -1], [0, 0, 0]]]
    steer = steer_of(clouds, 'box={"low": [-0.2, -0.3, -0.4], "high": [0.2, 0.3, 0.4]}')
    made = clouds.sample(1, n_points=64, steps=3, seed=0, steer=[steer])[0].points
    assert (abs(made) <= np.array([0.2, 0.3, 0.4]) + 1e-5).all()


def test_a_cloud_is_its_own_mirror_image(clouds):
    for n, axis in ((64, 0), (65, 2)):
        steer = steer_of(clouds, f"mirror={'xyz'[axis]}")
        made = clouds.sample(1, n_points=n, steps=3, seed=0, steer=[steer])[0].points
        turned = made[::-1] * np.where(np.arange(3) == axis, -1, 1)
        np.testing.assert_allclose(made, turned, atol=1e-5)
        assert made.std() > 0.1


def test_what_they_refuse(clouds, tmp_path):
    np.save(tmp_path / "depth.npy", np.full((4, 4), 2.0))
    assert steer_of(clouds, f'depth_view={{"image": "{tmp_path}/depth.npy", "camera": {{"eye": [0, 0, 4]}}}}').camera.eye == [
        0,
        0,
        4,
    ]
    good = np.full((4, 4), 2.0)
    bad = [
        lambda: depth_view("nowhere.npy"), lambda: depth_view(np.full((4, 4), np.inf)), lambda: depth_view(-good),
        lambda: depth_view(good[0]), lambda: depth_view([[1, 2], [3]]), lambda: depth_view(good, camera=3),
        lambda: depth_view(good, camera={"eyes": 3}), lambda: depth_view(good, noise=-1), lambda: Camera(eye=(0, 0)),
        lambda: Camera(eye=(0, 0, 0)), lambda: Camera(eye=(0, 3, 0)), lambda: Camera(fov=180), lambda: box((0, 0), (1, 1, 1)),
        lambda: box((0, 0, 0), (1, 0, 1)), lambda: mirror("w"), lambda: steer_of(clouds, "depth_view"),
    ]  # fmt: skip
    for make in bad:
        with pytest.raises((ConfigError, DataError, ShapeError)):
            make()

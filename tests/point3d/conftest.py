"""A small stand-in of the archive of shapes, in its own layout."""

import numpy as np
import pytest

NAMES = ("ball", "box", "rod", "sheet")


def shape(kind, size, n, rng):
    """n points of the surface of a ball, a box, a thin rod or a sheet, `size` (3,) its half axes."""
    x = rng.standard_normal((n, 3))
    if kind == 0:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    else:
        x = rng.uniform(-1, 1, (n, 3))
        x[np.arange(n), rng.integers(0, 3, n) if kind == 1 else kind // 3] = rng.choice([-1, 1], n)
        x *= {1: (1, 1, 1), 2: (0.05, 1, 0.05), 3: (1, 0.02, 1)}[kind]
    return x * size


def normal(x):
    x = x - x.mean(0)
    return x / np.linalg.norm(x, axis=1).max()


@pytest.fixture(scope="session")
def shapes_file(tmp_path_factory):
    """4 x 20 shapes of 256 points, of which 4 of each kind test: as `pointcloud_furniture_cc.npz` holds them."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 20).astype(np.int16)
    points = [normal(shape(c, rng.uniform(0.6, 1.4, 3), 256, rng)) for c in labels]
    path = tmp_path_factory.mktemp("shapes") / "pointcloud_furniture_cc.npz"
    np.savez(
        path,
        points=np.rint(np.stack(points) * 32767).astype(np.int16),
        labels=labels,
        categories=np.array(NAMES),
        is_test=np.arange(80) % 20 < 4,
    )
    return path

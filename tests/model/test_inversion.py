"""`Model.invert`, and what starts from it: `sample(noise=)`, `vary(inverted=)` and `interpolate` between objects."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.contract.codec import Codec
from zoo.contract.conditions import Label
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import ConfigError, ShapeError
from zoo.model.loading import create
from zoo.point3d.cloud import PointCloud

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from exact_net import ExactNet, ar1

QUIET = {"progress": False}


class Vector:
    def __init__(self, values):
        self.values = values

    def numpy(self):
        return self.values


class Plain(Codec):
    """Vectors as they are."""

    shape = (3,)

    def encode(self, item, rng=None):
        return torch.as_tensor(item.values if isinstance(item, Vector) else item, dtype=torch.float64)

    def decode(self, x0, cond):
        return [Vector(x.numpy()) for x in x0]


@pytest.fixture(scope="module")
def model():
    """Exact for Gaussian data around -1 and around 1."""
    net = ExactNet(torch.tensor([[-1.0] * 3, [1.0] * 3]), ar1(0.8, 3, 0.2), "v")
    labels = {"label": Label(values=("low", "high"))}
    return zoo.Model.of(Diffusion(DiscreteSchedule("cosine"), "v"), net, Plain(), conditions=labels)


ITEMS = torch.tensor([[-1.2, -0.9, -0.5], [1.1, 0.7, 1.6]], dtype=torch.float64)


def test_objects_come_back_from_their_noise(model):
    labels = {"label": ["low", "high"]}
    found = model.invert(ITEMS, steps=12, **labels, **QUIET)
    assert found.noise.shape == (2, 3) and found.left.max() < 1e-4 and found.settings["sampler"] == "ddim"
    again = model.sample(2, noise=found.noise, **found.settings, **labels, **QUIET)
    assert (again.tensor - ITEMS).abs().max() < 1e-3
    one = model.invert([Vector(v.numpy()) for v in ITEMS], steps=12, batch_size=1, **labels, **QUIET)
    torch.testing.assert_close(one.noise, found.noise)
    chunks = model.sample(2, noise=found.noise, batch_size=1, **found.settings, **labels, **QUIET)
    torch.testing.assert_close(chunks.tensor, again.tensor)


def test_an_object_changes_into_what_is_asked_for(model):
    """The deterministic path of one label back, that of the other forth: for Gaussian data the object moves by the means."""
    settings = {"steps": 25, "spacing": "karras", "clip": None, "guidance_weight": 0.0, "seed": 0, **QUIET}
    same = model.vary(ITEMS[0], 1.0, inverted=True, label="low", **settings)
    assert (same.tensor[0] - ITEMS[0]).abs().max() < 1e-3 and same.plan.sampler == "ddim"
    moved = model.vary(ITEMS[0], 1.0, 2, inverted={"label": "low"}, label="high", **settings)
    assert (moved.tensor - (ITEMS[0] + 2)).abs().max() < 0.1
    part = model.vary(ITEMS[0], 0.3, inverted={"label": "low"}, label="high", **settings)
    assert (part.tensor[0] - ITEMS[0]).abs().max() < 1
    with pytest.raises(ConfigError, match="unknown condition of inverted 'lable'"):
        model.vary(ITEMS[0], inverted={"lable": "low"}, **settings)
    with pytest.raises(ConfigError, match="inverted='low': give True, False, or the conditions"):
        model.vary(ITEMS[0], inverted="low", **settings)


def test_between_two_objects(model):
    made = model.interpolate(ITEMS[0], ITEMS[1], 3, steps=12, batch_size=2, **QUIET, label="high")
    assert (made.tensor[[0, -1]] - ITEMS).abs().max() < 1e-3 and len(made) == 3
    assert made.conditions == {"label": ["high"] * 3}
    for wrong, message in (
        ({"guidance_weight": 1.0}, "guidance_weight: guidance cannot be inverted"),
        ({"stepz": 3}, "unknown argument or condition of .*'stepz'"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.interpolate(ITEMS[0], ITEMS[1], 3, **wrong, **QUIET)
    with pytest.raises(ConfigError, match=r"end=.*: give conditions"):
        model.interpolate({"label": "low"}, ITEMS[1], 3, **QUIET)


def test_noise_that_does_not_fit_is_refused(model):
    for wrong, message in ((torch.zeros(3), r"\(3,\) of torch.float32"), (np.zeros((1, 3)), "a ndarray")):
        with pytest.raises(ShapeError, match=f"noise: {message}.*give a tensor .1, 3. of floats"):
            model.sample(1, noise=wrong, steps=2, **QUIET)
    with pytest.raises(ConfigError, match="noise: NaN or infinity"):
        model.sample(1, noise=torch.full((1, 3), torch.nan), steps=2, **QUIET)


def test_clouds_of_several_sizes():
    small = create("point3d/shapes-ddpm", **{"net.dim": 16, "net.depth": 1, "net.heads": 2})
    rng = np.random.default_rng(0)
    clouds = [PointCloud(rng.uniform(-0.5, 0.5, (n, 3)).astype(np.float32)) for n in (64, 70)]
    found = small.invert(clouds, steps=3, batch_size=1, **QUIET)
    assert found.noise.shape == (2, 70, 3) and not found.noise[0, 64:].any()
    again = small.sample(2, noise=found.noise, n_points=[64, 70], batch_size=1, **found.settings, **QUIET)
    assert [len(c) for c in again] == [64, 70]
    with pytest.raises(ShapeError, match="must be alike"):
        small.interpolate(*clouds, 2, **QUIET)


@pytest.mark.slow
def test_pictures_come_back_from_their_noise():
    """The packaged model, on pictures that it made itself and on one that it cannot believe in."""
    model = zoo.load("image/fashion-ddpm")
    made = model.sample(2, label=["bag", "sneaker"], seed=0, progress=False)
    found = model.invert(list(made), steps=20, label=["bag", "sneaker"], **QUIET)
    again = model.sample(2, noise=found.noise, label=["bag", "sneaker"], **found.settings, **QUIET)
    wrong = (again.tensor - made.tensor).abs()
    assert wrong.square().mean().sqrt() < 0.01 and 0.7 < found.noise.std() < 1.3
    between = model.interpolate(made[0], made[1], 3, steps=10, **QUIET)
    assert torch.isfinite(between.tensor).all() and len(between) == 3

"""Steers of pictures by name: known pixels, a low resolution, a colour."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import zoo
from zoo.cli import main, steer_of
from zoo.core.correction import Setting, bound
from zoo.core.predict import noise_of
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.image.codec import ImageCodec
from zoo.image.steers import colour, low_resolution, mask

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


@pytest.fixture(scope="module")
def small():
    return zoo.create("image/fashion-ddpm", **SMALL)


def independent(x, level):
    """What is believed of x0 where its numbers are independent and normal, exactly."""
    x0 = level.alpha * x / (level.alpha**2 + level.sigma**2)
    return x0, noise_of(x, x0, level)


def steered(steer, codec, n=2, t=300):
    level, setting = DiscreteSchedule().level(t), Setting(codec.in_units, codec=codec)
    x = torch.randn(n, *codec.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return independent(x, level)[0], bound(steer, setting)(independent)(x, level)[0]


def test_known_pixels_are_held(small, tmp_path):
    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    where = np.zeros((28, 28), dtype=bool)
    where[:, :10] = True
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(np.uint8(where) * 255).save(tmp_path / "where.png")
    np.save(tmp_path / "where.npy", where)
    files = [
        steer_of(small, f'mask={{"picture": "{tmp_path}/a.png", "where": "{tmp_path}/where.{end}"}}') for end in ("png", "npy")
    ]
    for steer in (mask(pixels, where), *files):
        made = small.sample(2, steps=2, seed=0, steer=[steer])
        assert all((m.pixels[:, :10] == pixels[:, :10]).all() and (m.pixels[:, 10:] != pixels[:, 10:]).any() for m in made)
    same = small.inpaint(pixels, where, n=2, steps=2, seed=0)
    assert torch.equal(made.tensor, same.tensor), "as in-painting by replacing"


def test_a_low_resolution_is_a_measurement_of_blocks():
    codec = ImageCodec(8, 3)
    seen = np.full((2, 2, 3), 51, np.uint8)
    seen[0, 1] = 204
    free, found = steered(low_resolution(seen, 4, noise=0.1), codec)
    y = torch.from_numpy(seen.transpose(2, 0, 1)).double() / 127.5 - 1
    # numbers are independent: a block of 16 has the variance v / 16, and each of its pixels moves alike
    level = DiscreteSchedule().level(300)
    v = level.sigma**2 / (level.alpha**2 + level.sigma**2)
    gap = (y - F.avg_pool2d(free, 4)) * (v / 16) / (v / 16 + 0.1**2)
    torch.testing.assert_close(found, free + F.interpolate(gap, scale_factor=4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("value", "rgb"), [("#ff8000", (255, 128, 0)), ("teal", (0, 128, 128)), ([10, 20, 30], (10, 20, 30)), (90, (90,) * 3)]
)
def test_a_colour_is_a_measurement_of_the_mean(value, rgb):
    wanted = torch.tensor(rgb, dtype=torch.float64) / 127.5 - 1
    _, found = steered(colour(value, noise=1e-4), ImageCodec(8, 3))
    torch.testing.assert_close(found.mean((2, 3)), wanted.expand(2, 3), rtol=0, atol=2e-3)
    _, grey = steered(colour(value, noise=1e-4), ImageCodec(8, 1))
    assert grey.mean().item() == pytest.approx(float((wanted * torch.tensor([0.299, 0.587, 0.114])).sum()), abs=2e-3)


def test_all_are_asked_on_the_command_line(tmp_path):
    small = zoo.create("image/fashion-ddpm", **SMALL)
    small.save_pretrained(tmp_path / "model")
    Image.fromarray(np.full((7, 7), 200, np.uint8)).save(tmp_path / "small.png")
    line = ["sample", str(tmp_path / "model"), "-n", "1", "--steps", "2", "--seed", "0", "-o", str(tmp_path / "out")]
    assert main([*line, "--steer", f"low_resolution={tmp_path}/small.png,4", "--steer", "colour=120"]) == 0
    assert main([*line, "--steer", f"low_resolution={tmp_path}/small.png,5"]) == 2


def test_what_they_refuse(small):
    grey = np.zeros((28, 28), np.uint8)
    for make, error in [
        (lambda: mask(3, grey > 0), ConfigError), (lambda: mask(grey, grey), ShapeError),
        (lambda: mask("nowhere.png", grey > 0), DataError),
        (lambda: low_resolution(grey, 1), ConfigError), (lambda: low_resolution(grey, 2, noise=-1), ConfigError),
        (lambda: colour("reddish"), ConfigError), (lambda: colour([1, 2]), ConfigError), (lambda: colour(256), ConfigError),
        (lambda: steer_of(small, "colour"), ConfigError), (lambda: steer_of(small, "color=red"), ConfigError),
    ]:  # fmt: skip
        with pytest.raises(error):
            make()
    for steer in (low_resolution(grey, 3), mask(grey, np.ones((5, 5), bool))):
        with pytest.raises((ConfigError, ShapeError)):
            small.sample(1, steps=2, seed=0, steer=[steer])
    with pytest.raises(ConfigError, match="belongs to a model"):
        colour("red")(independent)(torch.zeros(1, 1, 8, 8), DiscreteSchedule().level(300))
    with pytest.raises(ConfigError, match="pictures"):
        steered(colour("red"), zoo.create("point3d/shapes-ddpm").codec)

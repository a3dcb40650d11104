"""From one wish to another: one noise, and what is believed under both."""

import pytest
import torch

import zoo
from zoo.core import seeds
from zoo.core.schedule import Level
from zoo.core.steer import Blend
from zoo.errors import ConfigError
from zoo.model.loading import create

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}
QUICK = {"steps": 3, "seed": 4, "progress": False}


@pytest.fixture(scope="module")
def model():
    model = create("image/fashion-ddpm", **SMALL)
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=seeds.generator(i))
    return model


def test_the_ends_are_the_samples_of_the_two_wishes(model):
    made = model.interpolate({"label": "bag"}, {"label": "sandal"}, 3, guidance_weight=1.0, **QUICK)
    assert len(made) == 3 and made.conditions == {"label": ["bag to sandal"] * 3}
    for i, label in ((0, "bag"), (2, "sandal")):
        alone = model.sample(1, label=label, guidance_weight=1.0, **QUICK)
        torch.testing.assert_close(made.tensor[i], alone.tensor[0], atol=0.02, rtol=0)
    apart = (made.tensor[0] - made.tensor[2]).abs().mean()
    between = [(made.tensor[1] - made.tensor[i]).abs().mean() for i in (0, 2)]
    assert apart > 0 and max(between) < apart


def test_the_share_of_the_other_rises_evenly():
    other = Blend(lambda x, level: (x + 4, x - 4), torch.linspace(0, 1, 5))
    x0, eps = other(lambda x, level: (x, x))(torch.zeros(5, 1, 2), Level(0, 1.0, 1.0))
    assert x0[:, 0, 0].tolist() == [0, 1, 2, 3, 4] and eps[:, 0, 1].tolist() == [0, -1, -2, -3, -4]


def test_nothing_is_a_wish_and_what_both_have_stays(model):
    made = model.interpolate({"label": None}, {"label": "bag"}, 2, **QUICK)
    assert made.conditions == {"label": ["nothing to bag"] * 2}
    same = model.interpolate({}, {}, 2, label="bag", **QUICK)
    assert same.conditions == {"label": ["bag", "bag"]}
    torch.testing.assert_close(same.tensor[0], same.tensor[1], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bag", {"label": "bag"}), "start='bag': give conditions"),
        (({"label": "bag"}, {"lable": "bag"}), r"unknown condition of end 'lable'.*'label'"),
        (({"label": "bag"}, {"label": "bag"}, 1), "k=1: give a whole number of at least 2"),
        (({"label": "bag"}, {"label": "cloud"}), "unknown label 'cloud'"),
    ],
)
def test_what_is_no_wish_is_refused(model, arguments, message):
    with pytest.raises(ConfigError, match=message):
        model.interpolate(*arguments, **QUICK)
    with pytest.raises(ConfigError, match="'label' is in start and beside it"):
        model.interpolate({"label": "bag"}, {}, label="coat", **QUICK)


def test_samples_with_sizes_of_their_own_need_one():
    points = zoo.create("point3d/shapes-ddpm", **{"net.dim": 16, "net.depth": 1, "net.heads": 2})
    label = next(iter(points.recipe.conditions))
    wishes = [{label: points.recipe.classes(label)[i]} for i in (0, 1)]
    with pytest.raises(ConfigError, match="one size: give n_points"):
        points.interpolate(*wishes, **QUICK)
    made = points.interpolate(*wishes, 2, n_points=64, **QUICK)
    assert made.tensor.shape == (2, 64, 3)

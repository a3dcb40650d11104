"""A packaged recipe on a user's own pictures: colour and size as most of them have it, unless the user says otherwise."""

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.contract.registry import get_domain, get_recipe
from zoo.image.data import Glance, glance

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16, "training.batch_size": 2}


def folder(path, pictures, names=()):
    path.mkdir()
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(path / (names[i] if names else f"{i}.png"))
    return path


def grey(side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def coloured(side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def as_rgb(pixels):
    return np.repeat(pixels[..., None], 3, -1)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([grey(40), grey(50), grey(60)], Glance(50, 1)),
        ([as_rgb(grey(40))] * 3, Glance(40, 1)),  # RGB files of grey pictures
        ([coloured(16), grey(16)], Glance(16, 3)),
        ([grey(30)] * 30 + [coloured(30)], Glance(30, 1)),  # one of many
        ([np.dstack([as_rgb(grey(33)), grey(33)])], Glance(33, 1)),  # RGBA
    ],
)
def test_most_pictures_count(tmp_path, pictures, expected):
    assert glance(folder(tmp_path / "a", pictures)) == expected


def test_what_cannot_be_looked_at_is_left_to_the_reader(tmp_path):
    whole = folder(tmp_path / "a", [coloured(40)])
    (whole / "b.png").write_bytes(b"no picture")
    assert glance(whole) == Glance(40, 3)
    assert glance(tmp_path / "nowhere") is None and glance("fashion-mnist") is None
    (tmp_path / "empty").mkdir()
    assert glance(tmp_path / "empty") is None


def test_the_recipe_follows_the_pictures_and_the_user_goes_first(tmp_path):
    recipe, domain = get_recipe("image/fashion-ddpm"), get_domain("image")
    pictures = folder(tmp_path / "a", [coloured(40)])
    found, said = domain.suited(recipe, pictures)
    assert found.codec == recipe.codec | {"size": 32, "channels": 3} and "in colour, 40 pixels" in said
    assert domain.suited(recipe, pictures, {"codec.size"})[0].codec == recipe.codec | {"channels": 3}
    assert domain.suited(recipe, pictures, {"codec": {}}) == (recipe, "")
    small = folder(tmp_path / "b", [grey(20)])
    found, said = domain.suited(recipe, small, {"sampling.steps"})
    assert (found, said) == (recipe, "")
    assert domain.suited(recipe, small)[0].codec == recipe.codec


def test_models_of_own_pictures_are_guided_more_unless_the_user_says_how(tmp_path):
    recipe, domain = get_recipe("image/fashion-ddpm"), get_domain("image")
    small = folder(tmp_path / "a", [grey(20)])
    sampling = domain.suited(recipe, small)[0].sampling
    assert sampling.guidance_weight > 1 > recipe.sampling.guidance_weight and sampling.guidance_interval is None
    for chosen in ({"sampling.guidance_weight": 0.1}, {"sampling": {}}):
        assert domain.suited(recipe, small, chosen)[0].sampling == recipe.sampling


def test_training_and_resuming_by_the_packaged_name(tmp_path, capsys):
    pictures = folder(tmp_path / "a", [coloured(40, i) for i in range(4)])
    options = {"data": pictures, "out": tmp_path / "run", "cpu": True, "preview_every": 0, "overrides": SMALL}
    zoo.train("image/fashion-ddpm", steps=2, max_minutes=0.0, **options)
    assert zoo.load(tmp_path / "run").codec.shape == (3, 32, 32)
    assert "in colour" in capsys.readouterr().out
    zoo.train("image/fashion-ddpm", resume=True, **options)
    assert zoo.load(tmp_path / "run").codec.shape == (3, 32, 32)

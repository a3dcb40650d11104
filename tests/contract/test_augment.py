"""Augmentation as a part of the recipe: named, seeded by place, off where nothing is said; the same over a resume."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.contract.augment import Augment
from zoo.contract.dataset import Items
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain, get_recipe
from zoo.errors import ConfigError
from zoo.training.fingerprint import fingerprint
from zoo.training.train import train

SMALL = {
    "net.channels": 8, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 8, "codec.size": 8,
    "training.batch_size": 4,
}  # fmt: skip


def pictures(n=12):
    rng = np.random.default_rng(0)
    return Items([(rng.integers(0, 256, (8, 8), np.uint8), {"label": i % 2}) for i in range(n)], labels={"label": ["a", "b"]})


def test_a_recipe_without_it_has_none_and_old_files_load():
    recipe = get_recipe("image/fashion-ddpm")
    old = recipe.model_dump(mode="json")
    del old["augment"]
    assert Recipe.parse(old) == recipe and recipe.augment == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"flp": 0.5}, "Did you mean 'flip'"), ({"flip": 1.5}, "flip"), ({"flip": None}, "flip"), ({"colour": "much"}, "colour")],
)
def test_what_is_no_augmentation_is_told_before_anything_is_built(options, words):
    with pytest.raises(ConfigError, match=words):
        zoo.create("image/fashion-ddpm", **SMALL, augment=options)


def test_the_command_line_spells_them_as_paths():
    recipe = get_recipe("image/fashion-ddpm").override({"augment.flip": "0.5", "augment.crop": "0.1"})
    assert get_domain("image").augment(recipe.augment).on == {"flip": 0.5, "crop": 0.1}
    assert json.loads(recipe.model_dump_json())["augment"] == {"flip": 0.5, "crop": 0.1}


def test_a_domain_without_any_says_so():
    class Bare(Augment):
        pass

    bare = type("B", (type(get_domain("image")),), {"augmentations": Bare, "name": "bare"})()
    with pytest.raises(ConfigError, match="'bare' has no augmentations, got flip"):
        bare.augment({"flip": 1})


def weights(model):
    return torch.cat([p.flatten() for p in model.denoiser.parameters()])


@pytest.mark.slow
def test_a_run_that_goes_on_ends_with_the_same_weights_and_another_augmentation_is_another_run(tmp_path):
    settings = {"data": pictures(), "seed": 1, "cpu": True, "preview_every": 0}
    on = SMALL | {"augment.flip": 0.5, "augment.crop": 0.2}
    whole = train("image/fashion-ddpm", steps=6, out=tmp_path / "a", overrides=on, **settings)
    train("image/fashion-ddpm", steps=6, out=tmp_path / "b", overrides=on, **settings, max_minutes=0)
    with pytest.raises(zoo.errors.CheckpointError, match="augment was"):
        train("image/fashion-ddpm", steps=6, out=tmp_path / "b", overrides=SMALL, resume=True, **settings)
    again = train("image/fashion-ddpm", steps=6, out=tmp_path / "b", overrides=on, resume=True, **settings, workers=1)
    assert torch.equal(weights(whole), weights(again))
    plain = train("image/fashion-ddpm", steps=6, out=tmp_path / "c", overrides=SMALL, **settings)
    assert not torch.equal(weights(whole), weights(plain))


def test_the_fingerprint_and_plain_batches_do_not_see_it():
    data = pictures()
    on, off = (zoo.create("image/fashion-ddpm", **SMALL, augment=a) for a in ({"flip": 1.0}, {}))
    assert fingerprint(data, on.codec) == fingerprint(data, off.codec)
    items = [data[i] for i in range(4)]
    assert torch.equal(on.batch(items).x0, off.batch(items).x0)


def one(domain, options, item, position=0, given=None, codec=None):
    ((found, conditions),) = get_domain(domain).augment(options).batch([(item, given or {})], codec, 0, position)
    return found if given is None else (found, conditions)


def test_a_flip_is_a_mirror_image_of_any_kind_of_picture():
    grey = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    assert (one("image", {"flip": 1}, grey) == grey[:, ::-1]).all()
    assert (one("image", {"flip_vertical": 1}, grey) == grey[::-1]).all()
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    assert (np.asarray(one("image", {"flip": 1}, Image.fromarray(colours))) == colours[:, ::-1]).all()
    shares = [(one("image", {"flip": 0.3}, grey, k) != grey).any() for k in range(300)]
    assert 0.2 < np.mean(shares) < 0.4


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pictures_of_all_modes_stay_pictures_that_the_codec_takes(mode):
    codec = get_domain("image").codec({"size": 8, "channels": 3})
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 12, 3), np.uint8))
    picture = (
        picture.convert("P").convert("PA") if mode == "PA" else picture.convert("RGBA" if mode == "LA" else mode).convert(mode)
    )
    for k in range(5):
        found = one("image", {"flip": 0.5, "crop": 0.5, "colour": 0.5, "flip_vertical": 0.5}, picture, k)
        assert min(found.size) <= 12 and found.size[0] == found.size[1]
        assert codec.encode(found).isfinite().all()


def test_a_transparent_ground_stays_white():
    codec = get_domain("image").codec({"size": 8, "channels": 3})
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    for k in range(5):
        assert (codec.encode(one("image", {"colour": 0.9}, clear, k)) == 1).all()


def test_a_crop_keeps_at_least_its_share_and_may_lie_anywhere():
    rows = np.arange(100, dtype=np.uint8)[:, None].repeat(50, 1)
    found = [one("image", {"crop": 0.4}, rows, k) for k in range(200)]
    sides = [f.shape[0] for f in found]
    assert min(sides) >= 30 and max(sides) <= 50 and max(sides) - min(sides) > 10
    assert min(f[0, 0] for f in found) < 10 and max(f[-1, 0] for f in found) > 90


def test_clips_are_moved_stretched_and_surrounded():
    from zoo.audio.waveform import Waveform

    x = np.zeros(1000, np.float32)
    x[400:500] = 1.0
    clip = Waveform(x, 1000)
    starts = [int(np.flatnonzero(one("audio", {"shift": 0.1}, clip, k).samples)[0]) for k in range(100)]
    assert 300 <= min(starts) < 330 and 470 < max(starts) <= 500
    lengths = [len(one("audio", {"speed": 0.2}, clip, k)) for k in range(50)]
    assert 833 <= min(lengths) < 900 and 1150 < max(lengths) <= 1250
    assert 1000 <= len(one("audio", {"silence": 0.1}, clip)) <= 1200
    rms = [float(np.sqrt(np.square(one("audio", {"noise": 0.1}, clip, k).samples - x).mean())) for k in range(50)]
    assert max(rms) < 0.11 and np.mean(rms) > 0.03
    click = Waveform(np.eye(1, 1000, dtype=np.float32)[0], 1000)
    assert all(
        one("audio", {"shift": 5.0}, click, k).samples.any() for k in range(20)
    )  # never silent: the codec refuses silence
    assert len(one("audio", {"shift": 5.0}, Waveform([1.0], 1000))) == 1


def test_clouds_are_turned_about_the_up_axis_and_scaled():
    from zoo.point3d.cloud import PointCloud

    cloud = PointCloud(np.random.default_rng(0).normal(size=(64, 3)))
    turned = one("point3d", {"yaw": 3.0}, cloud)
    assert np.allclose(turned.points[:, 1], cloud.points[:, 1])
    assert np.allclose(np.linalg.norm(turned.points, axis=1), np.linalg.norm(cloud.points, axis=1), atol=1e-5)
    ratio = np.linalg.norm(one("point3d", {"scale": 0.5}, cloud).points) / np.linalg.norm(cloud.points)
    assert 0.5 <= ratio <= 1.5 and ratio != 1
    mirrored = one("point3d", {"mirror": 1}, cloud).points
    axis = cloud.mirror_axis
    assert np.allclose(mirrored[:, axis], -cloud.points[:, axis])
    moved = one("point3d", {"jitter": 0.02}, cloud).points - cloud.points
    assert 0.015 < moved.std() < 0.025
    assert cloud.points is not turned.points


def test_backbones_move_by_the_noise():
    from zoo.protein.backbone import Backbone

    chain = Backbone(np.random.default_rng(0).normal(size=(40, 3, 3)) * 5, "x")
    moved = one("protein", {"noise": 0.1}, chain)
    assert 0.08 < (moved.atoms - chain.atoms).std() < 0.12 and moved.name == "x"


def test_observations_of_a_policy_get_noise_of_their_range_and_actions_none():
    domain = get_domain("policy")
    data = domain.example_data(get_recipe("policy/pusht-keypoints"), 40)
    codec = domain.codec(get_recipe("policy/pusht-keypoints").codec)
    codec.fit(data)
    codec.observation_low[3] = codec.observation_high[3] = 0.5  # one that never moves
    augment = domain.augment({"noise": 0.1})
    items = [data[i] for i in range(20)]
    found = augment.batch(items, codec, 0, 0)
    assert all(a[0] is b[0] for a, b in zip(found, items, strict=True))
    noise = np.stack([a[1]["observation"] - b[1]["observation"] for a, b in zip(found, items, strict=True)])
    share = noise[..., codec.half_range > 0] / codec.half_range[codec.half_range > 0]
    assert 0.08 < share.std() < 0.12 and not noise[..., 3].any()

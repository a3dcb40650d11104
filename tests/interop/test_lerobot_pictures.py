"""Policies of lerobot that see pictures; what lerobot computes with them is stored, see benchmarks/lerobot_goldens.py."""

import json
import os
import shutil
from pathlib import Path

import lerobot_goldens
import numpy as np
import pytest
import torch
from folders import edited
from PIL import Image
from replayed import actions, off

import zoo
from zoo import files
from zoo.cli import main
from zoo.contract.conditions import Views, parse_condition
from zoo.errors import CheckpointError, ConfigError, ShapeError, ZooError
from zoo.interop.lerobot.format import peer_net
from zoo.interop.lerobot.vision import BACKBONES, Eye, resnet, vision_options
from zoo.nets.once import Once
from zoo.policy.codec import PolicyCodec

SEEING = lerobot_goldens.SEEING
NAMES = sorted(p.name for p in SEEING.iterdir() if p.is_dir())
STATE, ENVIRONMENT, ACTION = lerobot_goldens.STATE, lerobot_goldens.ENVIRONMENT, lerobot_goldens.ACTION
IMAGE = "observation.image"
SIZES = {"one": (47, 64), "two": (40, 72), "resized": (33, 70)}
PROCESSOR = "policy_preprocessor_step_3_normalizer_processor.safetensors"


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """{name: the folder with its weights}, made once, and kept as short as these tests run."""
    home = tmp_path_factory.mktemp("seeing")

    def get(name):
        return home / name if (home / name).exists() else lerobot_goldens.whole(SEEING / name, home / name)

    yield get
    shutil.rmtree(home)


def expected(name):
    return files.load_tensors(SEEING / f"{name}.expected.safetensors")


def seen_by(model, stored, n=None):
    """Observations of the stored case: windows of numbers, and pictures as uint8."""
    codec = model.codec
    seen = {k: stored[k][:n] for k in codec.keys}
    for name, height, width in codec.cameras:
        seen[name] = lerobot_goldens.pictures(name, lerobot_goldens.N, codec.n_obs, height, width)[:n]
    return seen


def check(model, stored):
    """The promise: what eyes say, the net, whole chunks, and what an episode begins with."""
    seen = seen_by(model, stored)
    told = model.codec.condition("observation", seen)
    x, t = stored["net.x"], stored["net.t"].float()
    with torch.no_grad():
        eyes = model.denoiser.seen(told, len(told), told.dtype, told.device)
        out = model.denoiser(x, t, {"observation": told})
    assert float((eyes.flatten(1) - stored["net.told"]).abs().max()) < 1e-5
    assert float(stored["net.out"].std()) > 0.1 and float((out - stored["net.out"]).abs().max()) < 1e-5
    assert off(actions(model, seen, stored["noise"]), stored["actions"]) < 1e-4
    n_obs, count = model.codec.n_obs, model.codec.executed
    first = {k: torch.as_tensor(v)[:, :1].expand(-1, n_obs, *v.shape[2:]) for k, v in seen.items()}
    chunk = actions(model, first, stored["first.noise"])[:, n_obs - 1 : n_obs - 1 + count]
    assert off(chunk, stored["first.actions"]) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_that_sees_does_what_lerobot_does(folder_of, name):
    model, case = zoo.load(folder_of(name)), name.split("_")[1]
    check(model, expected(name))
    options, modes, cameras = lerobot_goldens.PICTURES[case]
    codec, net = model.codec, model.recipe.net
    order = sorted(cameras) if name.startswith("2024") else cameras  # what it saved then was sorted
    assert codec.cameras == tuple((k, *cameras[k]) for k in order)
    assert codec.norms["picture"] == ({"MEAN_STD": "mean_std", "MIN_MAX": "min_max"}.get(modes["VISUAL"], "identity"),) * (
        3 * len(cameras)
    )
    assert net["vision"]["vision_backbone"] == options["vision_backbone"]
    assert isinstance(model.recipe.conditions["observation"], Views)
    assert model.recipe.description.startswith("Diffusion policy of lerobot, which sees observation.state (2) and ")


def test_what_is_stored_depends_on_the_pictures(folder_of):
    """Else a parity of actions would say nothing of eyes."""
    model, stored = zoo.load(folder_of("0-3-3_one")), expected("0-3-3_one")
    seen = seen_by(model, stored)
    other = seen | {IMAGE: 255 - seen[IMAGE]}
    found, wanted = (actions(model, s, stored["noise"]) for s in (other, seen))
    assert off(found, wanted) > 0.01


@pytest.mark.parametrize("name", ["0-3-3_one", "0-4-4_two"])
def test_convert_verify_and_back(folder_of, tmp_path, name, capsys):
    assert main(["convert", str(folder_of(name)), str(tmp_path / "mine")]) == 0
    assert main(["verify", str(tmp_path / "mine")]) == 0
    model = zoo.load(tmp_path / "mine")
    check(model, expected(name))
    assert '"observation.state": np.zeros((' in (tmp_path / "mine" / "README.md").read_text()
    assert parse_condition(model.recipe.conditions["observation"].json()) == model.recipe.conditions["observation"]


@pytest.mark.parametrize("name", NAMES)
def test_what_came_from_there_goes_back_as_it_was(folder_of, tmp_path, name):
    model = zoo.load(folder_of(name))
    model.export("lerobot", tmp_path / "out")
    before, after = (files.load_tensors(p / "model.safetensors") for p in (folder_of(name), tmp_path / "out"))
    assert all(torch.equal(after[k], v) for k, v in before.items()), "weights and statistics to the bit"
    added = {k for k in after.keys() - before.keys() if "normalize" not in k}
    assert not added, "and no other"
    again = zoo.load(tmp_path / "out")
    kept = {"description": "", "name": ""}
    assert again.recipe.model_copy(update=kept) == model.recipe.model_copy(update=kept)
    assert all(torch.equal(a, b) for a, b in zip(again.codec.buffers(), model.codec.buffers(), strict=True))
    theirs, ours = (json.loads((p / "config.json").read_text()) for p in (folder_of(name), tmp_path / "out"))
    vision = ("vision_backbone", "crop_shape", "use_group_norm", "spatial_softmax_num_keypoints", "resize_shape")
    assert {k: ours.get(k) for k in vision} == {k: theirs.get(k) for k in vision}
    assert "crop_ratio" in ours or "resized" not in name, "what older releases do not know is left out"
    check(again, expected(name))


# ---- the loop --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one(folder_of):
    return zoo.load(folder_of("0-3-3_one"))


def view(model, stored, i=0, step=-1):
    """One observation as a robot gives it."""
    return {k: np.asarray(v[i, step]) for k, v in seen_by(model, stored).items()}


def test_the_controller_and_sample_take_the_same(one, recwarn):
    stored = expected("0-3-3_one")
    seen = view(one, stored)
    a = one.controller(sampler="ddim", steps=2, seed=0)
    wanted = [a.act(seen) for _ in range(5)]
    pil = seen | {IMAGE: Image.fromarray(seen[IMAGE])}
    floats = seen | {IMAGE: torch.from_numpy(seen[IMAGE]).double() / 255}
    for same in (pil, floats):
        b = one.controller(sampler="ddim", steps=2, seed=0)
        assert np.allclose([b.act(same) for _ in range(5)], wanted, rtol=1e-5)
    many = one.controller(2, sampler="ddim", steps=2, seed=0)
    both = {k: np.stack([v, v]) for k, v in seen.items()}
    assert many.act(both).shape == (2, 2)
    np.testing.assert_allclose(many.act(both)[0], wanted[1], rtol=1e-4)
    chunk = one.sample(3, observation=seen, seed=0, sampler="ddim", steps=2)
    window = {k: np.stack([v, v]) for k, v in seen.items()}
    again = one.sample(3, observation=window, seed=0, sampler="ddim", steps=2)
    pils = one.sample(3, observation=window | {IMAGE: [pil[IMAGE]] * 2}, seed=0, sampler="ddim", steps=2)
    for other in (again, pils):
        np.testing.assert_array_equal([c.values for c in chunk], [c.values for c in other])
    assert one.sample(1, seed=0, steps=2, sampler="ddim")[0].values.shape == (8, 2), "nothing given is zeros"
    chunk.plot()
    assert not [w for w in recwarn if "observation" in str(w.message)]


def test_the_history_is_one_of_pictures_too(one):
    """The second observation comes with the first one's picture before it."""
    stored = expected("0-3-3_one")
    first, second = view(one, stored, 0), view(one, stored, 1)
    robot = one.controller(sampler="ddim", steps=2, seed=0, executed=1, join=False)
    robot.act(first)
    robot.act(second)
    rows = torch.stack(robot.robots[0].history)
    wanted = one.codec.flat({k: np.stack([first[k], second[k]]) for k in first})
    assert torch.equal(rows, wanted) and not torch.equal(rows[0], rows[1])


def test_the_eyes_look_once_in_a_run(one):
    calls = []
    handle = one.denoiser.rgb_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        one.sample(2, observation=view(one, expected("0-3-3_one")), seed=0, sampler="ddim", steps=6)
        assert len(calls) == 1
        robot = one.controller(sampler="ddim", steps=5, seed=0)
        robot.act(view(one, expected("0-3-3_one")))
        assert len(calls) == 2, "and once for a plan"
        with torch.no_grad():
            told = one.codec.condition("observation", seen_by(one, expected("0-3-3_one")))
            x, t = torch.zeros(2, 8, 2), torch.tensor([1.0, 3.0])
            with Once():
                a = one.denoiser(x, t, {"observation": told})
                told[0] += 1  # another window in the same place
                b = one.denoiser(x, t, {"observation": told})
        assert not torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    finally:
        handle.remove()


WRONG_VIEWS = {
    "another size": (lambda s: s | {IMAGE: s[IMAGE][:, :-1]}, ShapeError, r"image' \(47, 63, 3\).*RGB pictures \(47, 64, 3\)"),
    "channels first": (lambda s: s | {IMAGE: s[IMAGE].transpose(2, 0, 1)}, ShapeError, r"channels first; give them last"),
    "grey": (lambda s: s | {IMAGE: Image.fromarray(s[IMAGE]).convert("L")}, ShapeError, r"\(47, 64\): the policy sees RGB"),
    "0 to 255 as floats": (lambda s: s | {IMAGE: s[IMAGE].astype(float)}, ConfigError, r"colours in \[0, 1\], or uint8"),
    "below zero": (lambda s: s | {IMAGE: s[IMAGE] / 127.5 - 1}, ConfigError, r"numbers -1 to 1; give colours in \[0, 1\]"),
    "whole numbers": (lambda s: s | {IMAGE: s[IMAGE].astype(int)}, ConfigError, "numbers of int64; give a picture"),
    "NaN": (lambda s: s | {IMAGE: np.full((47, 64, 3), np.nan)}, ConfigError, "NaN or infinite"),
    "masked": (lambda s: s | {IMAGE: np.ma.masked_less(s[IMAGE], 9)}, ConfigError, "has masked values"),
    "a path": (lambda s: s | {IMAGE: "x.png"}, ConfigError, "got str; give a picture"),
    "None": (lambda s: s | {IMAGE: None}, ConfigError, "got NoneType; give a picture"),
    "ragged": (lambda s: s | {IMAGE: [s[IMAGE], s[IMAGE][1:]]}, ConfigError, "of several sizes"),
    "no picture": (lambda s: {STATE: s[STATE]}, ShapeError, r"lacks observation\.image; give observation\.state, obs"),
    "no state": (lambda s: {IMAGE: s[IMAGE]}, ShapeError, r"lacks observation\.state"),
    "another key": (lambda s: s | {"observation.images.top": s[IMAGE]}, ShapeError, r"has observation\.images\.top, which"),
    "numbers alone": (lambda s: s[STATE], ShapeError, "got ndarray; give a dictionary of observation.state, observation.image"),
    "other axes": (lambda s: s | {IMAGE: np.stack([s[IMAGE]] * 2)}, ShapeError, r"observation\.state \(\), .*image \(2,\)"),
    "NaN state": (lambda s: s | {STATE: np.array([np.nan, 1])}, ConfigError, "state_0 is NaN"),
    "state of another size": (lambda s: s | {STATE: np.zeros(3)}, ShapeError, r"must hold 2: state_0, state_1"),
    "units": (lambda s: s | {STATE: np.array([1e5, 1e5])}, ConfigError, "far outside the training data's"),
}


@pytest.mark.parametrize("name", WRONG_VIEWS)
def test_a_wrong_observation_is_one_error_that_names_it(one, name):
    change, kind, said = WRONG_VIEWS[name]
    seen = change(view(one, expected("0-3-3_one")))
    robot = one.controller(sampler="ddim", steps=2)
    for ask in (robot.act, lambda seen: one.sample(1, observation=seen, steps=2, sampler="ddim")):
        with pytest.raises(kind, match=said):
            ask(seen)
    assert not robot.robots[0].history, "a refused call leaves no trace"


def test_a_wrong_number_of_observations(one):
    seen = view(one, expected("0-3-3_one"))
    many = {k: np.stack([v] * 3) for k, v in seen.items()}
    with pytest.raises(ShapeError, match=r"first axes \(3,\) must be the last 2.*image \(2, 47, 64, 3\)"):
        one.sample(1, observation=many)
    with pytest.raises(ShapeError, match=r"give one of 2 environments each, .*image \(2, 47, 64, 3\)"):
        one.controller(2, steps=2, sampler="ddim").act(many)
    windows = {k: np.stack([np.stack([v] * 2)] * 3) for k, v in seen.items()}
    with pytest.raises(ShapeError, match=r"3 windows for n=2 samples.*observation\.image \(47, 64, 3\)"):
        one.sample(2, observation=windows)
    assert len(one.sample(3, observation=windows, steps=2, sampler="ddim")) == 3


def test_it_is_not_trained(one, folder_of, tmp_path):
    data = tmp_path / "episodes.npz"
    rng = np.random.default_rng(0)
    np.savez(data, observation=rng.normal(size=(60, 2)), action=rng.normal(size=(60, 2)), episode_ends=[60])
    for start in (
        lambda: zoo.fit(one, zoo.policy.DOMAIN.dataset(data, horizon=8, n_obs=2, executed=4), steps=1),
        lambda: zoo.train(one.recipe, data=data, steps=1, out=tmp_path / "run"),
        lambda: zoo.evaluate(one, data=data),
    ):
        with pytest.raises(ConfigError, match=r"sees pictures \(observation\.image\), and recordings here hold numbers alone"):
            start()


def test_a_page_does_without_its_pictures(one):
    """The page asks a policy for no observation that a simulation does not give."""
    assert zoo.policy.DOMAIN.situation(one, 0) == {} and zoo.policy.DOMAIN.edits(one.recipe) == {}
    named = one.recipe.model_copy(update={"name": "pusht-keypoints"})
    other = type("M", (), {"recipe": named, "codec": one.codec})()
    assert zoo.policy.DOMAIN.situation(other, 0) == {}, "not the observation of another policy of this name"
    assert zoo.policy.DOMAIN.edits(named) == {} and zoo.policy.DOMAIN.board(named) is None


# ---- bad files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(folder_of, tmp_path):
    """A copy of a folder, of which one file is changed; its weights are linked where they are not what changes."""

    def change(name, file, edit):
        source, folder = folder_of(name), tmp_path / "theirs"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in source.iterdir():
            if path.name == file or path.name != "model.safetensors":
                shutil.copyfile(path, folder / path.name)
            else:
                os.link(path, folder / path.name)
        edited(folder / file, edit)
        return folder

    return change


def shaped(name, shape, key="input_features"):
    return lambda c: c[key][name].update(shape=shape)


OLD, NEW, TWO, RESIZED = "0-3-3_one", "0-4-4_one", "0-4-4_two", "0-4-4_resized"
MEAN, EYE = "normalize_inputs.buffer_observation_image.mean", "diffusion.rgb_encoder."
WRONG = {
    "backbone": (OLD, "config.json", lambda c: c.update(vision_backbone="vit"), "unknown vision_backbone .*'vit'.*resnet18"),
    "another backbone": (OLD, "config.json", lambda c: c.update(vision_backbone="resnet34"), r"missing rgb_encoder\.backbone"),
    "no backbone": (OLD, "config.json", lambda c: c.pop("vision_backbone"), "no key 'vision_backbone'"),
    "norm": (OLD, "config.json", lambda c: c.update(use_group_norm=False), r"missing rgb_encoder\.backbone.*running_mean"),
    "norm of no kind": (OLD, "config.json", lambda c: c.update(use_group_norm="yes"), "use_group_norm='yes'"),
    "keypoints": (OLD, "config.json", lambda c: c.update(spatial_softmax_num_keypoints=0), "keypoints=0"),
    "another number of keypoints": (OLD, "config.json", lambda c: c.update(spatial_softmax_num_keypoints=5), "has shape"),
    "separate": (OLD, "config.json", lambda c: c.update(use_separate_rgb_encoder_per_camera=True), r"rgb_encoder\.0"),
    "crop": (OLD, "config.json", lambda c: c.update(crop_shape=[48, 64]), r"crop_shape=\[48, 64\] of pictures \[47, 64\]"),
    "crop of no kind": (OLD, "config.json", lambda c: c.update(crop_shape=[40]), r"crop_shape=\[40\]; it must be \[height"),
    "a larger crop": (OLD, "config.json", lambda c: c.update(crop_shape=[47, 65]), r"crop_shape=\[47, 65\] of pictures"),
    "a crop beside a ratio": (RESIZED, "config.json", lambda c: c.update(crop_ratio=0.5), r"crop_ratio=0\.5, which make it"),
    "ratio": (RESIZED, "config.json", lambda c: c.update(crop_ratio=1.5), r"crop_ratio=1\.5; it must be above 0"),
    "resize": (RESIZED, "config.json", lambda c: c.update(resize_shape=[50, 10**6]), r"resize_shape=\[50, 1000000\]"),
    "grey": (OLD, "config.json", shaped(IMAGE, [1, 47, 64]), r"shape \[1, 47, 64\] of observation\.image; .* be RGB"),
    "flat": (OLD, "config.json", shaped(IMAGE, [3, 47]), r"shape \[3, 47\] of observation\.image"),
    "huge": (OLD, "config.json", shaped(IMAGE, [3, 47, 10**6]), r"shape \[3, 47, 1000000\]"),
    "two sizes": (TWO, "config.json", shaped("observation.images.front", [3, 40, 64]), "those of all cameras must have"),
    "a state of the type of pictures": (OLD, "config.json", lambda c: c["input_features"][STATE].update(type="VISUAL"),
                                        "shape .* of observation.state; pictures"),
    "mode": (OLD, "config.json", lambda c: c["normalization_mapping"].update(VISUAL="QUANTILES"), "'QUANTILES'"),
    "no pictures": (OLD, "config.json", lambda c: c["input_features"].pop(IMAGE), "rgb_encoder"),
    "no statistics": (OLD, "model.safetensors", lambda t: t.pop(MEAN), "no mean of observation.image"),
    "statistics of another size": (OLD, "model.safetensors", lambda t: t.update({MEAN: torch.zeros(3)}),
                                   r"mean of observation.image is torch.float32 \(3,\); it must be \(3, 1, 1\)"),
    "never set": (OLD, "model.safetensors", lambda t: t[MEAN].fill_(torch.inf), "mean of observation.image is not finite"),
    "a missing tensor": (OLD, "model.safetensors", lambda t: t.pop(f"{EYE}out.bias"), "missing rgb_encoder.out.bias"),
    "a foreign tensor": (OLD, "model.safetensors", lambda t: t.update({f"{EYE}fc.bias": torch.zeros(3)}), "unexpected rgb_enc"),
    "a wrong tensor": (OLD, "model.safetensors", lambda t: t.update({f"{EYE}out.bias": torch.zeros(3)}), r"out\.bias has"),
    "a processor's statistics": (NEW, PROCESSOR, lambda t: t.pop(f"{IMAGE}.std"), "no std of observation.image"),
    "a processor's feature": (NEW, "policy_preprocessor.json",
                              lambda c: c["steps"][3]["config"]["features"][IMAGE].update(shape=[3, 47, 63]),
                              r"observation.image is .*; config.json says VISUAL \[3, 47, 64\]"),
    "without a processor's feature": (NEW, "policy_preprocessor.json",
                                      lambda c: c["steps"][3]["config"]["features"].pop(IMAGE), "says no feature obs"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_folder_is_one_error_that_names_it(broken, name):
    golden, file, edit, said = WRONG[name]
    with pytest.raises(ZooError, match=said) as error:
        zoo.load(broken(golden, file, edit))
    assert isinstance(error.value, (CheckpointError, ConfigError, ShapeError)) and len(str(error.value)) < 900


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("config.json", lambda c: c.update(pretrained_backbone_weights="ResNet18_Weights.IMAGENET1K_V1")),
        ("config.json", lambda c: c.update(crop_is_random=False)),
        ("config.json", lambda c: c.pop("use_separate_rgb_encoder_per_camera")),  # which came later
    ],
)
def test_what_means_nothing_where_weights_are_there(broken, file, edit):
    check(zoo.load(broken(OLD, file, edit)), expected(OLD))


# ---- the net ---------------------------------------------------------------------------------------------------------------

VISION = {
    "vision_backbone": "resnet18", "use_group_norm": True, "spatial_softmax_num_keypoints": 2, "resize_shape": None,
    "crop_shape": None, "use_separate_rgb_encoder_per_camera": False,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_the_resnet_is_that_of_torchvision(kind):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(*list(getattr(models, kind)(weights=None).children())[:-2]).eval()
    ours = resnet(kind, group_norm=False).eval()
    state = {k: lerobot_goldens.made(k, tuple(v.shape)) if v.is_floating_point() else v for k, v in theirs.state_dict().items()}
    for net in (theirs, ours):
        net.load_state_dict(state)
    x = torch.randn(1, 3, 45, 70)
    with torch.no_grad():
        found, wanted = ours(x), theirs(x)
    assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("kind", BACKBONES)
def test_the_tensors_of_each_resnet_have_torchvisions_names(kind):
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = torch.nn.Sequential(*list(getattr(models, kind)(weights=None).children())[:-2]).state_dict()
        ours = resnet(kind, group_norm=False).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize(("size", "shape"), [((47, 64), (40, 55)), ((40, 55), (40, 55)), ((9, 8), (4, 3)), ((10, 7), (3, 4))])
def test_resize_and_crop_are_those_of_torchvision(size, shape):
    transforms = pytest.importorskip("torchvision.transforms")
    x = torch.rand(2, 3, *size)
    with torch.device("cpu"):
        eye = Eye(size, VISION | {"crop_shape": list(shape)})
    eye.backbone, eye.pool, eye.out = torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity()
    assert torch.equal(eye(x), transforms.CenterCrop(shape)(x).flatten(1))
    eye.crop, eye.resize = None, (11, 13)
    assert torch.allclose(eye(x), transforms.Resize((11, 13))(x).flatten(1), atol=1e-6)


def test_the_places_of_a_new_net_are_lerobots():
    """Of one that is loaded they come from the file."""
    stored = expected("0-3-3_one")["state.diffusion.rgb_encoder.pool.pos_grid"]
    assert torch.equal(Eye((47, 64), VISION | {"crop_shape": [40, 55]}).pool.pos_grid, stored)
    assert torch.equal(
        Eye((40, 72), VISION).pool.pos_grid, expected("0-3-3_two")["state.diffusion.rgb_encoder.0.pool.pos_grid"]
    )


def test_options_of_the_eyes_that_are_none():
    for options, said in (
        ({"vision_backbone": "resnet19"}, "unknown vision_backbone 'resnet19'"),
        ({"use_group_norm": 1}, "vision.use_group_norm=1; give true or false"),
        ({"spatial_softmax_num_keypoints": -1}, "keypoints=-1"),
        ({"crop_shape": [4]}, r"crop_shape=\[4\]"),
        ({"wobble": 1}, "unknown option of lerobot-unet1d's vision 'wobble'"),
    ):
        with pytest.raises(ConfigError, match=said):
            vision_options(VISION | options)
    with pytest.raises(ConfigError, match="vision lacks crop_shape"):
        vision_options({k: v for k, v in VISION.items() if k != "crop_shape"})
    with pytest.raises(ConfigError, match=r"crop of \(9, 9\) from pictures of \(8, 8\)"):
        Eye((8, 8), VISION | {"crop_shape": [9, 9]})


def test_recipes_that_do_not_fit(one):
    recipe = one.recipe
    views = recipe.conditions["observation"]
    for codec, condition, net, said in (
        ({}, views, {"vision": None}, "has no options for them"),
        ({}, zoo.contract.conditions.Array(shape=(2, 2)), {}, "sees no pictures"),
    ):
        other = recipe.model_copy(update={"codec": recipe.codec | codec, "conditions": {"observation": condition}})
        other = other.model_copy(update={"net": dict(recipe.net) | net})
        with pytest.raises(ConfigError, match=said):
            zoo.model.model.Model(other, zoo.policy.DOMAIN)
    for options, said in (
        ({"cameras": [["a", 4]]}, "name, height, width"),
        ({"cameras": [3]}, "name, height, width"),
        ({"cameras": [[]]}, "name, height, width"),
        ({"cameras": "abc"}, "name, height, width"),
        ({"cameras": [["a", 4, 4.5]]}, "name, height, width"),
        ({"cameras": [["a", 4, 4], ["a", 4, 4]]}, "'a' is there twice"),
        ({"cameras": [["s", 4, 4]]}, "'s' is there twice"),
        ({"cameras": [["a", 4, 4]], "keys": []}, "give keys"),
        ({"cameras": [["a", 4, 4]], "picture_norm": "mean"}, "unknown picture_norm 'mean'"),
    ):
        with pytest.raises(ConfigError, match=said):
            PolicyCodec(8, 2, 4, ["x"], ["y"], **{"keys": ["s"]} | options)
    with pytest.raises(ConfigError, match="have 49 together"):
        Views(shape=(2, 50), numbers=[("s", 1)], cameras=[("a", 4, 4)])
    with pytest.raises(ConfigError, match="needs a name of its own"):
        Views(shape=(2, 49), numbers=[("a", 1)], cameras=[("a", 4, 4)])


# ---- lerobot itself --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lerobot():
    """lerobot, from the sources in $ZOO_LEROBOT (see benchmarks/lerobot_goldens.py)."""
    if not (sources := os.environ.get("ZOO_LEROBOT")):
        pytest.skip("lerobot runs beside older packages: $ZOO_LEROBOT names its unpacked sources")
    return lerobot_goldens.policies(Path(sources))


def test_lerobot_loads_what_is_exported(lerobot, folder_of, tmp_path):
    if lerobot.old:
        pytest.skip("what is written has features, which came with 0.1")
    for name in NAMES:
        model, folder = zoo.load(folder_of(name)), tmp_path / name
        model.export("lerobot", folder)
        if "resized" in name and not hasattr(lerobot.Config, "resize_shape"):
            continue
        policy, processors = lerobot_goldens.loaded(lerobot, folder)
        check(model, lerobot_goldens.computed(lerobot, policy.eval(), processors))
        assert peer_net(model, folder) is not None
        shutil.rmtree(folder)

"""Devices and dtypes by name, objects that a codec cannot encode, names that are none: one clear error each."""

import numpy as np
import pytest
import torch

import zoo
from zoo.errors import ConfigError, ResourceError, ShapeError, ZooError
from zoo.model.place import DTYPES, device_named, dtype_named

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


@pytest.fixture(scope="module")
def model():
    return zoo.create("image/fashion-ddpm", **SMALL)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return model.save_pretrained(tmp_path_factory.mktemp("place") / "m")


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x", 3.5, [], "meta"])
def test_a_device_that_torch_does_not_know_is_refused(folder, device):
    with pytest.raises(ConfigError, match="device="):
        zoo.load(folder, device=device)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ResourceError, match="cuda:99"):
        device_named("cuda:99")
    assert device_named(None) is None and device_named("cpu") == device_named(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float33", "int8", "", 3, torch.int64, torch.complex64, torch.float8_e4m3fn, np.int32])
def test_a_dtype_in_which_no_net_computes_is_refused(folder, dtype):
    with pytest.raises(ConfigError, match=r"unknown dtype.*bfloat16"):
        zoo.load(folder, dtype=dtype)


def test_dtypes_have_the_names_that_are_in_use(folder):
    assert zoo.load(folder, device="cpu", dtype="fp64").dtype == torch.float64
    assert dtype_named("torch.float16") == dtype_named("half") == torch.float16 and dtype_named("bf16") == torch.bfloat16
    assert set(DTYPES.values()) == {torch.float16, torch.bfloat16, torch.float32, torch.float64}


NO_OBJECTS = {"a file's name": "a.png", "nothing": None, "a number": 5, "several": [torch.zeros(1, 28, 28)], "none of them": [],
              "fields": {"a": 1}, "ragged": [[1.0, 2.0], [1.0]], "not finite": torch.full((1, 28, 28), float("inf")),
              "other channels": torch.zeros(7, 28, 28)}  # fmt: skip


@pytest.mark.parametrize("name", NO_OBJECTS)
def test_what_the_codec_cannot_encode_is_one_clear_error(model, name):
    settings = {"seed": 0, "steps": 1, "progress": False}
    with pytest.raises(ZooError):
        model.vary(NO_OBJECTS[name], **settings)
    with pytest.raises(ZooError):
        model.inpaint(NO_OBJECTS[name], np.ones((28, 28), bool), **settings)


def test_the_error_of_an_object_says_what_to_do(model):
    with pytest.raises(ConfigError, match="Read the file first"):
        model.vary("a.png")
    with pytest.raises(ConfigError, match="one at a time"):
        model.vary([np.zeros((28, 28), np.uint8)] * 2)
    with pytest.raises(ConfigError, match="`where`"):
        model.inpaint(torch.zeros(1, 28, 28), None)
    with pytest.raises(ConfigError, match="replace"):
        model.inpaint(torch.zeros(1, 28, 28), np.ones((28, 28), bool), method=["replace"])


@pytest.mark.parametrize("name", [None, 3, b"image/fashion-ddpm", ["a"], "a" * 5000, "a\0b"])
def test_what_names_no_model_is_one_clear_error(name):
    for call in (zoo.load, zoo.info, zoo.create):
        with pytest.raises(ZooError):
            call(name)


UNKNOWN = {
    "training.lrr": "'lr'",
    "schedule.curv": "'curve'",
    "sampling.step": "'steps'",
    "net.chanels": "'channels'",
    "codec.siz": "'size'",
    "conditions.label.valus": "'values'",
    "trainng.lr": "'training'",
}


@pytest.mark.parametrize("key", UNKNOWN)
def test_an_unknown_key_of_a_recipe_gives_the_nearest(key):
    with pytest.raises(ConfigError, match=f"Did you mean {UNKNOWN[key]}"):
        zoo.create("image/fashion-ddpm", **{key: 1})


def test_an_unknown_key_of_one_kind_of_schedule_gives_the_keys_of_that_kind():
    with pytest.raises(
        ConfigError, match=r"Did you mean 'sigma_min'.*Allowed: kind, sigma_min, sigma_max, P_mean, P_std, rho\."
    ):
        zoo.create("image/fashion-ddpm", schedule={"kind": "edm", "sigma_mim": 1})


def test_a_shape_error_is_still_a_shape_error(model):
    with pytest.raises(ShapeError):
        model.inpaint(torch.zeros(1, 28, 28), np.ones((5, 5), bool))


def test_a_model_moves_by_name(model):
    assert model.to("bf16").dtype == torch.bfloat16
    assert model.to("cpu", "float64").dtype == torch.float64
    assert model.to(torch.device("cpu"), dtype="fp32") is model and model.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        (("gpu",), {}, ConfigError, "device='gpu'"),
        (("cuda:99",), {}, ResourceError, "cuda:99"),
        (("meta",), {}, ConfigError, "holds no values"),
        ((), {"dtype": "int8"}, ConfigError, "unknown dtype"),
        ((torch.float8_e4m3fn,), {}, ConfigError, "unknown dtype"),
        ((), {"device": "cpu:x"}, ConfigError, "device="),
    ],
)
def test_a_model_moves_nowhere_else(model, arguments, options, error, match):
    with pytest.raises(error, match=match):
        model.to(*arguments, **options)

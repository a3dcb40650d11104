"""Nets as ONNX files: another program computes the same, and the file beside it says all that one samples with."""

import json
import sys

import numpy as np
import pytest
import torch

import zoo
from zoo.cli import main
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError
from zoo.interop.onnx import Called, example
from zoo.testing import awake

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

IMAGE = {
    "codec.size": 8, "net.channels": 16, "net.multipliers": [1], "net.attention": [True], "net.blocks": 1, "net.emb_dim": 16,
}  # fmt: skip


def small(name="image/fashion-ddpm", **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return awake(zoo.create(name, **options))


def opened(folder):
    return onnxruntime.InferenceSession(folder / "denoiser.onnx", providers=["CPUExecutionProvider"])


def off(model, folder, rows=3):
    """The largest difference of the file's outputs from the net's, relative to the largest one, for another number of rows."""
    inputs = {k: torch.cat([v, v.flip(0)])[:rows] for k, v in example(model).items()}
    names = [k for k in inputs if k not in ("x", "t")]
    with torch.no_grad():
        expected = Called(model, names)(*inputs.values())
    (found,) = opened(folder).run(None, {k: v.numpy() for k, v in inputs.items()})
    assert found.shape == expected.shape and float(expected.abs().max()) > 1e-3
    return float(np.abs(found - expected.numpy()).max() / expected.abs().max().clamp(min=1))


MODELS = {
    "a transformer and a flow": (
        "image/fashion-ddpm",
        {
            "denoiser": "transformer", "codec.size": 8, "schedule": {"kind": "flow"}, "diffusion.prediction": "flow",
            "diffusion.weighting": "simple",
            "net": {"patch": 4, "dim": 32, "heads": 4, "emb_dim": 16, "depth": 1, "time_scale": 1000},
        },
    ),
    "preconditioned": (
        "image/fashion-ddpm",
        IMAGE | {"schedule": {"kind": "edm"}, "diffusion.prediction": "x0", "diffusion.precondition": True},
    ),
    "arrays": ("policy/pusht-keypoints", {"net.channels": 16}),
    "told nothing": ("image/fashion-ddpm", IMAGE | {"conditions": {}}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "options"), MODELS.values(), ids=MODELS)
def test_another_program_computes_the_same(tmp_path, name, options):
    model = small(name, **options)
    model.export("onnx", tmp_path / "out")
    assert off(model, tmp_path / "out") < 1e-5
    said = json.loads((tmp_path / "out" / "denoiser.json").read_text())
    session = opened(tmp_path / "out")
    assert [i["name"] for i in said["inputs"]] == [i.name for i in session.get_inputs()]
    for one, there in zip(said["inputs"], session.get_inputs(), strict=True):
        assert one["shape"][1:] == there.shape[1:] and there.shape[0] == "batch"
    assert said["output"]["is"] == model.recipe.diffusion.prediction


RAGGED = {
    "clouds": ("point3d/shapes-ddpm", {"net.dim": 32, "net.heads": 2, "net.latents": 8, "net.rounds": 1}),
    "backbones": ("protein/backbone-ddpm", {"net.dim": 32, "net.heads": 2, "net.depth": 1, "net.pair": 8}),
}  # fmt: skip


@pytest.mark.parametrize(("name", "options"), RAGGED.values(), ids=RAGGED)
def test_samples_have_sizes_of_their_own(tmp_path, name, options):
    """Clouds and backbones of any size, padded ones beside whole ones, and with a last guess and without."""
    model = small(name, **options)
    model.export("onnx", tmp_path)
    assert off(model, tmp_path) < 1e-4
    session, inputs = opened(tmp_path), example(model)
    names, sized = [k for k in inputs if k not in ("x", "t")], {"x", "x0", "known", "mask"} & inputs.keys()
    said = {i["name"]: i["shape"] for i in json.loads((tmp_path / "denoiser.json").read_text())["inputs"]}
    assert all(said[k][:2] == ["batch", "elements"] for k in sized) and said["t"] == ["batch"]
    for seed, n in enumerate((11, 37, 150)):
        rng = seeds.generator(seed)
        x = torch.randn(2, n, *model.codec.shape[1:], generator=rng)
        given = inputs | {"x": x, "mask": torch.arange(n) < torch.tensor([[n], [n - 5]])}
        if "x0" in inputs:
            guess = torch.randn(x.shape, generator=rng)
            guess[seed % 2] = torch.nan
            given |= {"x0": guess, "known": torch.zeros(x.shape, dtype=torch.bool)}
        with torch.no_grad():
            expected = Called(model, names)(*(given[k] for k in inputs)).numpy()
        (found,) = session.run(None, {k: given[k].numpy() for k in inputs})
        assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())
        assert not found[1, -5:].any() and np.abs(found[1, :-5]).max() > 1e-3  # padding is 0


def test_small_numbers_are_kept(tmp_path):
    """A chain of atoms in one place has directions of length 0, which 1e-12 keeps from being divided by 0."""
    model = small(*RAGGED["backbones"][:1], **RAGGED["backbones"][1])
    model.export("onnx", tmp_path)
    inputs = {k: v.clone() for k, v in example(model).items()}
    inputs["x0"] = torch.zeros_like(inputs["x"])
    with torch.no_grad():
        expected = Called(model, [k for k in inputs if k not in ("x", "t")])(*inputs.values())
    (found,) = opened(tmp_path).run(None, {k: v.numpy() for k, v in inputs.items()})
    assert np.isfinite(found).all() and float(np.abs(found - expected.numpy()).max()) < 1e-4


def test_words_are_numbers_of_a_vocabulary(tmp_path):
    """The net is told numbers, and the vocabulary beside it says of which words: no zoo is needed to read a text of them."""
    model = zoo.load("image/emoji-text")
    model.export("onnx", tmp_path)
    assert off(model, tmp_path) < 1e-4
    said = json.loads((tmp_path / "vocabulary.json").read_text())
    assert list(said) == ["text"] and said["text"]["length"] == 16
    words = said["text"]["words"]
    for text, numbers in said["text"]["examples"].items():
        assert numbers == model.recipe.conditions["text"].read(text, 1).values[0].tolist()
        assert " ".join(words[k - 1] for k in numbers if k > 0)
    assert said["text"]["examples"]["rocket"][:2] == [1 + words.index("rocket"), 0]


def test_the_two_files_are_enough_to_sample(tmp_path):
    """DDIM with guidance, written with numpy and what the file says."""
    model = small(**IMAGE, **{"sampling.steps": 6, "sampling.few": [], "sampling.clip": None})
    assert model.export("onnx", tmp_path) == tmp_path
    assert not (tmp_path / "vocabulary.json").exists()
    assert off(model, tmp_path) < 1e-5
    said = json.loads((tmp_path / "denoiser.json").read_text())
    assert said["opset"] == 18 and said["model"] == "image/fashion-ddpm" and said["output"]["is"] == "v"
    assert said["x0"] == "(alpha x - sigma prediction) / (alpha^2 + sigma^2)"
    session, label, weight = opened(tmp_path), np.array([3, 5], np.int64), 2.0
    x = said["start"] * seeds.SampleRng(7, range(2)).normal(torch.zeros(2, 1, 8, 8)).numpy()
    for now, then in zip(said["levels"], said["levels"][1:], strict=False):
        t, a, s = np.full(2, now["t"], np.float32), np.float32(now["alpha"]), np.float32(now["sigma"])
        (towards,) = session.run(None, {"x": x, "t": t, "label": label})
        (plain,) = session.run(None, {"x": x, "t": t, "label": np.full(2, -1)})
        out = plain + (1 + weight) * (towards - plain)
        x0 = (a * x - s * out) / (a * a + s * s)
        eps = (x - a * x0) / s
        x = np.float32(then["alpha"]) * x0 + np.float32(then["sigma"]) * eps
    *_, last = model.sample_iter(2, seed=7, label=[3, 5], sampler="ddim", guidance_weight=weight, guidance_interval=None)
    assert np.abs(last.x.numpy() - x).max() < 1e-4
    with pytest.raises(ConfigError, match="wobble"):
        model.export("onnx", tmp_path, wobble=1)
    with pytest.raises(CheckpointError, match="is not a folder of the format 'onnx'"):
        zoo.load(tmp_path, format="onnx")


def test_what_is_not_written(tmp_path, monkeypatch):
    model = small(**IMAGE)
    with pytest.raises(ConfigError, match=r"opset=7: give a whole number from 18 to 23"):
        model.export("onnx", tmp_path / "out", opset=7)
    with pytest.raises(ConfigError, match="is a first stage, which has no noise"):
        zoo.create("image/autoencoder", **{"codec.size": 16, "net.channels": 16}).export("onnx", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"weights in torch\.float16; load it in float32"):
        small(**IMAGE).to("fp16").export("onnx", tmp_path / "out")
    mine = small(**IMAGE).save_pretrained(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"holds other things \(README.md, config.json"):
        model.export("onnx", mine)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript is needed .*diffusion-zoo\[onnx\]"):
        model.export("onnx", tmp_path / "out")
    assert main(["convert", str(mine), str(tmp_path / "out"), "--to", "onnx"]) == 2
    assert not (tmp_path / "out").exists()


def test_a_file_of_one_number_of_samples_is_not_written(tmp_path):
    """The exporter says nothing where a net of EDM makes it write the two samples of the example alone."""
    from interop_goldens import Golden

    model = zoo.load(Golden("edm-song").converted(tmp_path))
    with pytest.raises(ConfigError, match=r"writes its net for 2 samples of one size alone \(input x, "):
        model.export("onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_net_that_cannot_be_written_is_one_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("read on") from RuntimeError("\x1b[96mno such\n operator\x1b[0m")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ConfigError, match=r"exporter does not write its net \(ValueError: no such operator\)"):
        small(**IMAGE).export("onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()

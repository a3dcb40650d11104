"""Formats whose originals are pickles: what the authors' own nets and samplers said, stored, against ours once converted.

`benchmarks/interop_goldens.py` makes the files of goldens/ with the authors' sources and names the commits.
"""

import importlib
import json
import pickle
import re
import sys

import convert_edm
import convert_pickle
import interop_goldens
import pytest
import torch
from interop_goldens import Golden

import zoo
from zoo import files
from zoo.cli import main as cli
from zoo.errors import CheckpointError, ConfigError
from zoo.hub.card import model_card
from zoo.interop.convert import convert
from zoo.interop.origin import read_origin

STEPS = interop_goldens.STEPS


def off(found, expected):
    assert torch.isfinite(expected).all() and float(expected.std()) > 0.1
    return interop_goldens.off(found, expected)


@torch.no_grad()
def check_net(golden, model):
    found = golden.asked(model)
    assert found.keys() == golden.said.keys() & interop_goldens.ANSWERS
    for name, value in found.items():
        assert off(value, golden.said[name]) < 1e-5


# ---- guided-diffusion, improved-diffusion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", interop_goldens.GUIDED)
def test_a_net_of_guided_diffusion_says_what_theirs_said(tmp_path, name):
    golden = Golden(name)
    model = zoo.load(golden.converted(tmp_path))
    labels = len(model.recipe.conditions["label"].values) if "label" in model.recipe.conditions else 0
    assert labels == golden.labels == (1000 if golden.config["class_cond"] else 0)
    assert model.diffusion.learned_variance == golden.config["learn_sigma"]
    check_net(golden, model)


@pytest.mark.filterwarnings("ignore:variance='large' with 24 steps")
@pytest.mark.parametrize(("name", "run"), [(name, run) for name, (*_, runs) in interop_goldens.GUIDED.items() for run in runs])
def test_samples_of_guided_diffusion_are_theirs(tmp_path, name, run):
    """Their own loops: all steps or respaced ones, a variance that is large or learned, and DDIM."""
    golden, (sampler, respacing, ddim) = Golden(name), run
    model = zoo.load(golden.converted(tmp_path, timestep_respacing=respacing, use_ddim=ddim))
    assert model.recipe.sampling.sampler == sampler
    assert off(golden.sampled(model), golden.said[f"{sampler} {respacing}"]) < 1e-4


def test_a_folder_of_guided_diffusion_becomes_one_of_zoo(tmp_path):
    golden = Golden("guided-learned")
    folder = golden.converted(tmp_path, timestep_respacing="5")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nWhat they say.\n")
    model, _ = convert(folder, tmp_path / "mine")
    assert model.verify() == 0 and model.recipe.licence == "mit"
    assert "What they say." in (tmp_path / "mine" / "README.md").read_text()
    again = zoo.load(tmp_path / "mine")
    assert again.recipe.denoiser == "guided-diffusion"
    assert torch.equal(golden.sampled(again), golden.sampled(zoo.load(folder)))
    assert model.sample(2, seed=0, steps=2)[0].pixels.shape == (8, 8, 3)
    assert "guided-diffusion" in model_card(model.recipe, domain=model.domain, source="here")


def test_a_folder_is_not_converted_into_itself(tmp_path):
    """Its flags, which no tensor says, would be lost."""
    folder = Golden("edm-song").converted(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for target in (folder, tmp_path / "link"):
        with pytest.raises(ConfigError, match="is the source, and would be overwritten"):
            convert(folder, target)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_what_zoo_info_and_verify_say_of_a_folder_of_theirs(tmp_path, capsys):
    """Its config.json is not one of zoo's, which is no error of it."""
    folder = Golden("guided-plain").converted(tmp_path)
    assert cli(["info", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "U-Net of guided-diffusion, imported from folder theirs" in told and "weights: its own" in told
    assert cli(["verify", str(folder)]) == 2
    assert "zoo convert FOLDER NEW" in capsys.readouterr().err


def test_what_tensors_say_need_not_be_given(tmp_path):
    golden = Golden("guided-plain")
    torch.save(golden.state, tmp_path / "a.pt")
    model = convert_pickle.convert_guided(
        tmp_path / "a.pt", tmp_path / "a", {"image_size": 8, "num_heads": 2, "noise_schedule": "linear"}
    )
    net = model.recipe.net
    assert (net["model_channels"], net["channel_mult"], net["num_res_blocks"]) == (32, [1, 1, 2], 2)
    assert net["attention_resolutions"] == [1, 4] and not net["resblock_updown"] and not net["use_scale_shift_norm"]
    # defaults of the two packages differ
    assert net["time_scale"] == 1.0
    given = {"image_size": 8, "num_heads": 2, "noise_schedule": "linear", "diffusion_steps": 4000}
    other = convert_pickle.convert_guided(tmp_path / "a.pt", tmp_path / "b", given, "improved-diffusion")
    assert other.recipe.net["time_scale"] == 0.25


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_channels": 64}, "num_channels=64 where the tensors say 32"),
        ({"channel_mult": "1,3"}, r"channel_mult=\[1, 3\] where the tensors say \[1, 2\]"),
        ({"num_res_blocks": 2}, "num_res_blocks=2 where the tensors say 1"),
        ({"attention_resolutions": "8"}, r"attention_resolutions=\[8\] where the tensors say \[4\]"),
        ({"class_cond": False}, "class_cond=False where the tensors say True"),
        ({"learn_sigma": False}, "learn_sigma=False where the tensors say True"),
        ({"resblock_updown": False}, "resblock_updown=False where the tensors say True"),
        ({"use_scale_shift_norm": False}, "use_scale_shift_norm=False where the tensors say True"),
        ({"num_head_channels": 24}, "do not divide by num_heads"),
        ({"noise_schedule": "square"}, "noise_schedule of the guided-diffusion"),
        ({"diffusion_steps": 10}, "diffusion_steps=10"),
        ({"timestep_respacing": "10,10"}, "is a grid that zoo does not have"),
        ({"timestep_respacing": "ddim30"}, "is a grid that zoo does not have"),
        ({"image_size": 9}, "do not divide by 2"),
        ({"dropout": "nan"}, "a finite number"),
        ({"wobble": 3}, "wobble"),
        ({"learn_sigma": "perhaps"}, "must be true or false"),
        ({"num_heads": "many"}, "a whole number"),
        ({"noise_schedule": None}, "does not say noise_schedule"),
        ({"num_head_channels": None, "num_heads": None}, "does not say num_heads"),
    ],
)
def test_flags_that_do_not_fit_leave_no_folder(tmp_path, capsys, changed, said):
    golden = Golden("guided-learned")
    torch.save(golden.state, tmp_path / "a.pt")
    code = convert_pickle.main([golden.package, str(tmp_path / "a.pt"), str(tmp_path / "a"), *golden.words(**changed)])
    told = capsys.readouterr()
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(told.err)
    assert code == 1 and told.out == "" and sorted(p.name for p in tmp_path.iterdir()) == ["a.pt"]


class Trap:
    def __reduce__(self):
        return (print, ("run",))


def test_what_is_no_checkpoint_of_guided_diffusion_is_one_error(tmp_path, capsys):
    golden = Golden("guided-learned")
    flags = {"image_size": 8, "num_head_channels": 16, "noise_schedule": "cosine"}
    state = golden.state
    cases = [
        (3, "holds no state of a net"),
        ({"state": state}, "holds no state of a net"),
        ({"a.weight": torch.zeros(2)}, "holds no net of guided-diffusion or improved-diffusion: its tensors are a.weight"),
        (state | {"trap": Trap()}, "weights-only loader refuses it"),
        (state | {"label_emb.weight": torch.zeros(3)}, "label_emb.weight has shape"),
        (state | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}, "takes 6 channels and gives 6: .*super-resolution"),
        (state | {"wobble": torch.zeros(2)}, "unexpected wobble"),
        ({k: v for k, v in state.items() if k != "out.2.bias"}, "missing out.2.bias"),
        (state | {"out.2.bias": torch.zeros(7)}, r"out.2.bias has shape \(7,\)"),
        (state | {"out.2.bias": torch.full((6,), torch.nan)}, "not finite"),
    ]
    for held, said in cases:
        torch.save(held, tmp_path / "a.pt")
        with pytest.raises(CheckpointError, match=said):
            convert_pickle.convert_guided(tmp_path / "a.pt", tmp_path / "a", flags)
    assert "run" not in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="is missing"):
        convert_pickle.convert_guided(tmp_path / "none.pt", tmp_path / "a", flags)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt"]
    (tmp_path / "a").mkdir()
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="exists: give the name of a new folder"):
        convert_pickle.convert_guided(tmp_path / "a.pt", tmp_path / "a", flags)


def test_a_checkpoint_of_an_old_torch_is_read(tmp_path):
    """Before 1.6 a file was no zip archive, and cannot be mapped into memory."""
    golden = Golden("guided-plain")
    torch.save(golden.state, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert convert_pickle.main([golden.package, str(tmp_path / "a.pt"), str(tmp_path / "a"), *golden.words()]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--diffusion_steps", "-1"], "--diffusion_steps -1: it must be a whole number of at least 1"),
        (["--dropout", "-1"], "dropout probability"),
        (["--config", "a.json"], "--config and --weights are not of guided-diffusion"),
        (["--weights", "model"], "--config and --weights are not of guided-diffusion"),
        (["--learn_sigma", "True"], "a is not written. config.json: options that do not fit .*learn_sigma=True"),
    ],
)
def test_what_is_said_of_a_checkpoint_is_never_passed_over(tmp_path, capsys, words, said):
    """-1 stands for a default where theirs takes it for one, and no message names a folder that is gone."""
    golden = Golden("guided-plain")
    torch.save(golden.state, tmp_path / "a.pt")
    assert convert_pickle.main([golden.package, str(tmp_path / "a.pt"), str(tmp_path / "a"), *golden.words(), *words]) == 1
    told = capsys.readouterr().err
    assert re.search(said, told) and ".converting" not in told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt"]


@pytest.mark.parametrize(
    ("weights", "config", "said"),
    [
        ({}, {"more": torch.ones(2)}, "not plain data"),
        ({}, {"more": b"x"}, "not plain data"),
        ({}, {"more": float("nan")}, "not plain data"),
        ({"proj_in.bias": torch.zeros(32, device="meta")}, {}, "proj_in.bias is sparse, quantised or without numbers"),
        ({"proj_in.bias": torch.zeros(1).expand(10**12)}, {}, "fewer numbers than that"),
    ],
)
def test_what_no_file_of_safetensors_and_json_holds_is_one_error(tmp_path, capsys, weights, config, said):
    golden = Golden("k-patched")
    torch.save({"model_ema": golden.state | weights, "config": golden.config | config}, tmp_path / "a.pth")
    assert convert_pickle.main(["k-diffusion", str(tmp_path / "a.pth"), str(tmp_path / "a")]) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path, capsys):
    golden = Golden("guided-plain")
    torch.save(golden.state, tmp_path / "a.pt")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder, said in (("a.pt/a", "cannot be made"), ("link", "exists: give the name of a new folder")):
        assert convert_pickle.main([golden.package, str(tmp_path / "a.pt"), str(tmp_path / folder), *golden.words()]) == 1
        assert said in capsys.readouterr().err


def test_a_folder_that_was_changed_is_one_error(tmp_path):
    folder = Golden("guided-learned").converted(tmp_path)
    whole = json.loads((folder / "config.json").read_text())

    def said(config):
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises((CheckpointError, ConfigError)) as error:
            zoo.load(folder)
        return str(error.value)

    options = whole["options"]
    assert "has no key 'noise_schedule'" in said(
        whole | {"options": {k: v for k, v in options.items() if k != "noise_schedule"}}
    )
    assert "does not know: wobble=3" in said(whole | {"options": options | {"wobble": 3}})
    assert "learn_sigma='yes'" in said(whole | {"options": options | {"learn_sigma": "yes"}})
    assert "channel_mult=['a']" in said(whole | {"options": options | {"channel_mult": ["a"]}})
    assert "has no object 'options'" in said({"format": "guided-diffusion"})
    assert "keys that zoo does not know: more" in said(whole | {"more": 1})
    (folder / "config.json").write_text(json.dumps(whole))
    (folder / "model.safetensors").rename(folder / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt is a pickle.*convert_pickle\.py guided-diffusion FILE FOLDER"):
        zoo.load(folder)


# ---- k-diffusion ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", interop_goldens.KARRAS)
def test_a_net_of_k_diffusion_says_what_theirs_said(tmp_path, name):
    golden = Golden(name)
    check_net(golden, zoo.load(golden.converted(tmp_path)))


@pytest.mark.parametrize("sampler", interop_goldens.SAMPLERS)
@pytest.mark.parametrize("name", interop_goldens.KARRAS)
def test_samples_of_k_diffusion_are_theirs(tmp_path, name, sampler):
    golden = Golden(name)
    model = zoo.load(golden.converted(tmp_path))
    assert off(golden.sampled(model, sampler=sampler, steps=STEPS), golden.said[sampler]) < 1e-4


def test_which_weights_of_k_diffusion_are_read(tmp_path):
    golden = Golden("k-patched")
    averaged = zoo.load(golden.converted(tmp_path))
    arguments = ["k-diffusion", str(tmp_path / "theirs.pt"), str(tmp_path / "plain"), "--weights", "model"]
    assert convert_pickle.main(arguments) == 0
    plain = zoo.load(tmp_path / "plain")
    assert "(model_ema.safetensors)" in averaged.recipe.description and "(model.safetensors)" in plain.recipe.description
    key = "proj_in.bias"
    assert torch.equal(averaged.denoiser.state_dict()[key], golden.state[key])
    assert torch.equal(plain.denoiser.state_dict()[key], golden.state[key] + 1)
    # both in one folder: the averaged ones, which their own scripts sample with
    (tmp_path / "plain" / "model.safetensors").rename(tmp_path / "theirs" / "model.safetensors")
    assert torch.equal(zoo.load(tmp_path / "theirs").denoiser.state_dict()[key], golden.state[key])
    torch.save({"model": golden.state}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"with the weights 'model_ema': it holds model\b"):
        convert_pickle.convert_k(tmp_path / "b.pth", tmp_path / "b")
    with pytest.raises(CheckpointError, match="holds no config"):
        convert_pickle.convert_k(tmp_path / "b.pth", tmp_path / "b", weights="model")
    (tmp_path / "c.json").write_text(json.dumps(golden.config))
    model = convert_pickle.convert_k(tmp_path / "b.pth", tmp_path / "b", tmp_path / "c.json", "model")
    assert model.recipe.diffusion.sigma_data == golden.config["model"]["sigma_data"]


def test_a_slim_checkpoint_of_k_diffusion(tmp_path):
    """As their convert_for_inference writes it: half precision, and the config in the file's metadata."""
    golden = Golden("k-augmented")
    half = {k: v.half() for k, v in golden.state.items()}
    files.save_tensors(tmp_path / "slim_00100000.safetensors", half, {"config": json.dumps(golden.config)})
    model = zoo.load(tmp_path, format="k-diffusion")
    x, _ = interop_goldens.inputs(model.codec.shape, 0)
    sigma = torch.tensor([0.01, 1.0, 80.0])
    with torch.no_grad():
        assert off(model.denoiser(x, sigma.log() / 4, {}), golden.said["out"]) < 0.02
    made, _ = convert(tmp_path, tmp_path / "mine")
    assert made.verify() == 0
    files.save_tensors(tmp_path / "slim_00100000.safetensors", half, {"config": "{"})
    with pytest.raises(CheckpointError, match="is not a folder of the format 'k-diffusion'"):
        zoo.load(tmp_path, format="k-diffusion")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"type": "image_transformer_v2"}, "image_transformer_v2"),
        ({"sigma_data": None}, "has no key 'sigma_data'"),
        ({"wobble": 3}, "does not know: wobble=3"),
        ({"input_channels": 1}, r"input_channels \* patch_size\^2=1 where the tensors say 3"),
        ({"augment_wrapper": False}, "augment_wrapper=False where the tensors say True"),
        ({"has_variance": True}, "has_variance=True where the tensors say False"),
        ({"mapping_out": 64}, "mapping_out=64 where the tensors say 32"),
        ({"channels": [64, 128]}, r"channels\[0\]=64 where the tensors say 32"),
        ({"channels": [32, 64]}, "the model needs"),
        ({"depths": [1, 1]}, "missing u_net.u_blocks.0.2.kernel"),
        ({"depths": [1]}, "give as many of each"),
        ({"self_attn_depths": [True, True]}, "missing u_net"),
        ({"self_attn_depths": ["yes", True]}, "list of true and false"),
        ({"mapping_cond_dim": 9}, "mapping_cond_dim=9"),
        ({"skip_stages": 1}, "skip_stages=1"),
        ({"cross_cond_dim": 4}, "cross_cond_dim=4"),
        ({"input_size": [8, 16]}, r"input_size=\[8, 16\]"),
        ({"input_size": [9, 9]}, "do not divide by 2"),
        ({"sigma_min": 90}, "the first is the smaller"),
        ({"sigma_min": "0.1"}, "a finite number above 0"),
        ({"dropout_rate": 1.5}, "dropout_rate=1.5"),
    ],
)
def test_a_config_of_k_diffusion_that_does_not_fit_is_one_error(tmp_path, changed, said):
    golden = Golden("k-augmented")
    folder = golden.converted(tmp_path)
    model = {k: v for k, v in (golden.config["model"] | changed).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(golden.config | {"model": model}))
    with pytest.raises((CheckpointError, ConfigError, zoo.errors.ShapeError), match=said):
        zoo.load(folder)


def test_what_is_no_folder_of_k_diffusion_is_one_error(tmp_path):
    golden = Golden("k-augmented")
    folder = golden.converted(tmp_path)
    labels = golden.config | {"dataset": {"num_classes": 10}}
    (folder / "config.json").write_text(json.dumps(labels))
    with pytest.raises(CheckpointError, match="num_classes=10"):
        zoo.load(folder)
    (folder / "config.json").write_text(json.dumps(golden.config))
    files.save_tensors(folder / "model_ema.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="holds no net of k-diffusion: its tensors are a"):
        zoo.load(folder)
    (folder / "model_ema.safetensors").rename(folder / "model_ema.pth")
    with pytest.raises(CheckpointError, match=r"model_ema\.pth is a pickle.*convert_pickle\.py k-diffusion FILE FOLDER"):
        zoo.load(folder)


# ---- EDM --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", interop_goldens.EDM)
def test_a_net_of_edm_says_what_theirs_said(tmp_path, name):
    golden = Golden(name)
    model = zoo.load(golden.converted(tmp_path))
    check_net(golden, model)
    if golden.labels:
        x, _ = interop_goldens.inputs(model.codec.shape, golden.labels)
        with torch.no_grad():
            none = model.denoiser(x, torch.zeros(3), {"label": torch.full((3,), -1)})
            assert torch.equal(model.denoiser(x, torch.zeros(3), {}), none)


@pytest.mark.parametrize("name", interop_goldens.EDM)
def test_samples_of_edm_are_theirs(tmp_path, name):
    golden = Golden(name)
    model = zoo.load(golden.converted(tmp_path))
    assert (model.recipe.sampling.sampler, model.recipe.sampling.steps) == ("heun", 18)
    assert off(golden.sampled(model, steps=STEPS), golden.said["heun"]) < 1e-4
    made, _ = convert(tmp_path / "theirs", tmp_path / "mine")
    assert made.verify() == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"precond": "VPPrecond"}, "VPPrecond"),
        ({"model_type": "OtherUNet"}, "OtherUNet"),
        ({"decoder_type": "skip"}, "decoder_type"),
        ({"encoder_type": "skip"}, "encoder_type of edm"),
        ({"embedding_type": "none"}, "embedding_type of edm"),
        ({"img_channels": 1}, "img_channels=1 where the tensors say 3"),
        ({"model_channels": 32}, "model_channels=32 where the tensors say 16"),
        ({"channel_mult_emb": 4}, r"model_channels \* channel_mult_emb=64 where the tensors say 32"),
        ({"label_dim": 0}, "label_dim=0 where the tensors say 5"),
        ({"augment_dim": 0}, "augment_dim=0 where the tensors say 9"),
        ({"img_resolution": 16}, "no net of edm for pictures of 16 x 16"),
        ({"num_blocks": 2}, "missing dec.4x4_block2"),
        ({"attn_resolutions": []}, "unexpected"),
        ({"resample_filter": [1, 3, 3, 1]}, "resample_filter has shape"),
        ({"resample_filter": [1]}, "an even number of weights"),
        ({"sigma_data": None}, "has no key 'sigma_data'"),
        ({"sigma_data": 0}, "a finite number above 0"),
        ({"sigma_min": 90}, "no noise between them"),
        ({"wobble": 1}, "does not know: wobble=1"),
    ],
)
def test_options_of_edm_that_do_not_fit_are_one_error(tmp_path, changed, said):
    folder = Golden("edm-song").converted(tmp_path, **changed)
    with pytest.raises((CheckpointError, ConfigError), match=said):
        zoo.load(folder)


def test_a_pickle_of_edm_is_refused_and_its_converter_named(tmp_path, capsys):
    with (tmp_path / "edm-cifar10-32x32-uncond-vp.pkl").open("wb") as file:
        pickle.dump({"ema": Trap()}, file)
    with pytest.raises(CheckpointError, match=r"is a pickle, which can run code.*benchmarks/convert_edm\.py"):
        zoo.load(tmp_path / "edm-cifar10-32x32-uncond-vp.pkl")
    with pytest.raises(CheckpointError, match=r"is a pickle, which can run code.*benchmarks/convert_pickle\.py"):
        zoo.load(tmp_path / "edm-cifar10-32x32-uncond-vp.pkl", format="edm")
    # the weights-only loader of the other converter refuses it, too
    with pytest.raises(CheckpointError, match="weights-only loader refuses it"):
        convert_pickle.convert_k(tmp_path / "edm-cifar10-32x32-uncond-vp.pkl", tmp_path / "a")
    for read in (zoo.load, lambda folder: convert(folder, tmp_path / "mine")):  # a folder of nothing else
        with pytest.raises(CheckpointError, match=r"vp\.pkl is a pickle.*benchmarks/convert_edm\.py"):
            read(tmp_path)
    folder = Golden("edm-song").converted(tmp_path)
    (folder / "model.safetensors").rename(folder / "model.pkl")
    with pytest.raises(CheckpointError, match=r"model\.pkl is a pickle.*convert_edm\.py SOURCES FILE FOLDER"):
        zoo.load(folder)
    assert "run" not in capsys.readouterr().out


SOURCES = '''
import torch


def persistent(plain):
    """Keeps what it was made with, as their decorator does."""

    class Kept(plain):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._args, self._kwargs = args, kwargs

        init_args = property(lambda self: self._args)
        init_kwargs = property(lambda self: self._kwargs)

    Kept.__name__ = Kept.__qualname__ = plain.__name__
    return Kept


@persistent
class SongUNet(torch.nn.Module):
    def __init__(self, img_resolution, in_channels, out_channels, label_dim=0, dropout=0.1, channel_mult=[2, 2]):
        super().__init__()
        self.conv = torch.nn.Conv2d(in_channels, out_channels, 1).double()


@persistent
class EDMPrecond(torch.nn.Module):
    def __init__(self, img_resolution, img_channels, label_dim=0, sigma_min=0, sigma_max=float("inf"), **model_kwargs):
        super().__init__()
        self.model = SongUNet(img_resolution, img_channels, img_channels, label_dim=label_dim, **model_kwargs)
'''


def test_the_converter_of_edm_keeps_all_options(tmp_path, monkeypatch, capsys):
    """It runs with its authors' sources, of which some lines that do the same stand here."""
    (tmp_path / "edm").mkdir()
    (tmp_path / "edm" / "theirs_of_edm.py").write_text(SOURCES)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "edm"), *sys.path])
    net = importlib.import_module("theirs_of_edm").EDMPrecond(8, 3, dropout=0.2)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": net}))
    arguments = [str(tmp_path / name) for name in ("edm", "a.pkl", "out")]
    assert convert_edm.main(arguments) == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {
        "format": "edm",
        "options": {
            "precond": "EDMPrecond", "img_resolution": 8, "img_channels": 3, "label_dim": 0, "sigma_min": 0, "sigma_max": None,
            "dropout": 0.2, "channel_mult": [2, 2],
        },
    }  # fmt: skip
    tensors = files.load_tensors(tmp_path / "out" / "model.safetensors")
    assert set(tensors) == {"model.conv.weight", "model.conv.bias"} and tensors["model.conv.bias"].dtype == torch.float32
    assert convert_edm.main(arguments) == 1 and "exists: give the name of a new folder" in capsys.readouterr().err
    assert not hasattr(convert_edm, "zoo")
    assert not (tmp_path / "out" / "README.md").exists()
    arguments[-1] = str(tmp_path / "said")
    assert convert_edm.main([*arguments, "--licence", "cc-by-nc-sa-4.0", "--origin", 'NVIDIA: "EDM"']) == 0
    origin = read_origin(tmp_path / "said")
    assert (origin.licence, origin.place) == ("cc-by-nc-sa-4.0", 'NVIDIA: "EDM" (folder said)')

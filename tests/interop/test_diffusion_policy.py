"""Checkpoints that Diffusion Policy's own code wrote, and what it computes with them (benchmarks/policy_goldens.py)."""

import json
import re
import shutil
import sys
import types
import zipfile

import convert_pickle
import convert_policy
import numpy as np
import policy_goldens
import pytest
import torch
from replayed import actions, off

import zoo
from zoo import files
from zoo.cli import main
from zoo.errors import CheckpointError, ConfigError, ShapeError, ZooError

GOLDENS, CASES = policy_goldens.GOLDENS, list(policy_goldens.CASES)
#: what was imported before a checkpoint was opened
BEFORE = {n.partition(".")[0] for n in sys.modules}
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def converted(tmp_path, case, *words):
    """The folder of a stored checkpoint, as the program writes it."""
    folder = tmp_path / f"{case}-theirs"
    assert convert_pickle.main(["diffusion-policy", str(GOLDENS / f"{case}.ckpt"), str(folder), *words]) == 0
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{case: its folder}."""
    home = tmp_path_factory.mktemp("policies")
    return {case: converted(home, case) for case in CASES}


def expected(case):
    return files.load_tensors(GOLDENS / f"{case}.expected.safetensors")


def check(model, stored):
    """The promise: scaled observations, the net, whole chunks, and those that are carried out."""
    told = model.codec.condition("observation", {"obs": stored["obs"]})
    assert float((told.flatten(1) - stored["net.told"]).abs().max()) < 1e-5
    with torch.no_grad():
        out = model.denoiser(stored["net.x"], stored["net.t"].float(), {"observation": told})
    assert float(stored["net.out"].std()) > 0.1 and float((out - stored["net.out"]).abs().max()) < 1e-5
    found = actions(model, {"obs": stored["obs"]}, stored["noise"])
    assert off(found, stored["actions"]) < 1e-4
    first = model.codec.n_obs - 1
    assert off(found[:, first : first + model.codec.executed], stored["carried"]) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_a_policy_does_what_its_own_code_does(folders, case):
    model = zoo.load(folders[case])
    check(model, expected(case))
    sampling, codec = model.recipe.sampling, model.codec
    if case == "limits":
        assert (sampling.sampler, sampling.steps, sampling.clip, model.recipe.diffusion.prediction) == ("ddpm", 20, 1.0, "eps")
        assert codec.norms == {"action": ("min_max",) * 2, "observation": ("min_max",) * 5} and codec.clip
        assert (codec.n_obs, codec.executed) == (2, 4)
    else:
        assert (sampling.sampler, sampling.steps, sampling.clip, model.recipe.diffusion.prediction) == ("ddim", 8, None, "x0")
        # a number that does not move goes to 0 in both ways
        assert codec.norms == {"action": ("mean_std",) * 4, "observation": ("mean_std", "min_max", "mean_std")}
        assert not codec.clip
        assert (codec.n_obs, codec.executed) == (1, 6), "with the steps that it waits"
    data = policy_goldens.data(len(codec.observation_names), len(codec.action_names))
    assert torch.equal(codec.observation_low, data["obs"].amin(0)) and torch.equal(codec.action_high, data["action"].amax(0))


def test_the_averaged_weights_are_taken_where_there_are_some(folders, tmp_path):
    plain, averaged = (zoo.load(f).denoiser.state_dict() for f in (converted(tmp_path, "limits", "--weights", "model"),
                                                                     folders["limits"]))  # fmt: skip
    assert all(torch.allclose(0.9 * plain[k], averaged[k]) for k in plain)
    assert convert_pickle.main(["diffusion-policy", str(GOLDENS / "gaussian.ckpt"), str(tmp_path / "x"), "--weights",
                                "ema_model"]) == 1  # fmt: skip
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_policy_as_any_other(folders, tmp_path, case):
    assert main(["convert", str(folders[case]), str(tmp_path / "mine")]) == 0
    assert main(["verify", str(tmp_path / "mine")]) == 0
    model = zoo.load(tmp_path / "mine")
    check(model, expected(case))
    seen = expected(case)["obs"][0, -1].numpy()
    robot = model.controller(sampler="ddim", steps=2, seed=0)
    assert np.array_equal(robot.act({"obs": seen}), model.controller(sampler="ddim", steps=2, seed=0).act(seen))
    with pytest.raises(ShapeError, match="give obs"):
        robot.act({"observation.state": seen})


def test_nothing_of_theirs_is_imported(folders, tmp_path):
    """A class that the configuration does not have is refused, and none of those it has is loaded."""
    with zipfile.ZipFile(GOLDENS / "limits.ckpt") as archive:
        held = {n: archive.read(n) for n in archive.namelist()}
    name = next(n for n in held if n.endswith("data.pkl"))
    metadata, bad = b"comegaconf.base\nMetadata\n", tmp_path / "bad.ckpt"
    assert metadata in held[name]
    for theirs in (metadata, b"cos\nsystem\n", b"cbuiltins\neval\n", b"comegaconf.nodes\nStringNode\n"):
        with zipfile.ZipFile(bad, "w") as archive:
            for n, content in held.items():
                archive.writestr(n, content.replace(metadata, theirs) if n == name else content)
        if theirs == metadata:
            assert convert_policy.policy_of(bad)
        else:
            with pytest.raises(CheckpointError, match="weights-only loader refuses it"):
                convert_policy.policy_of(bad)
    assert not {"omegaconf", "dill", "hydra", "diffusion_policy"} & {n.partition(".")[0] for n in sys.modules} - BEFORE


# ---- bad files -------------------------------------------------------------------------------------------------------------


class DictConfig:
    """Stands for omegaconf's, which holds a configuration so."""

    def __init__(self, content):
        self._content = content


DictConfig.__module__ = "omegaconf.dictconfig"


def checkpoint(path, config, states, monkeypatch):
    """A checkpoint as theirs."""
    module = types.ModuleType("omegaconf.dictconfig")
    module.DictConfig = DictConfig
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
        patched.setitem(sys.modules, "omegaconf.dictconfig", module)
        torch.save({"cfg": DictConfig(config), "state_dicts": states, "pickles": {}}, path)
    return path


def parts(case="limits"):
    """The configuration and the states of a stored checkpoint."""
    held = convert_policy.opened(GOLDENS / f"{case}.ckpt", convert_policy.STAND_INS)
    return convert_policy.plain(held["cfg"]), held["state_dicts"]


def policy(**changes):
    return lambda config, states: config["policy"].update(changes)


def target(place, name):
    def change(config, states):
        inner = config["policy"] if place is None else config["policy"][place]
        inner["_target_"] = name

    return change


BAD_CHECKPOINTS = {
    "another policy": (target(None, "x.DiffusionUnetImagePolicy"), "made of 'x.DiffusionUnetImagePolicy'; read is a Diffusion"),
    "another net": (target("model", "x.TransformerForDiffusion"), "TransformerForDiffusion"),
    "another scheduler": (target("noise_scheduler", "x.PNDMScheduler"), "'PNDMScheduler'.*Supported: DDPMScheduler, DDIM"),
    "no policy": (lambda c, s: c.pop("policy"), "made of None"),
    "in-painting": (policy(obs_as_global_cond=False), "obs_as_global_cond=False .* not supported: its net is then told"),
    "local": (policy(obs_as_local_cond=True), "obs_as_local_cond=True .* not supported: .*beside each action"),
    "a reference": (lambda c, s: c.update(obs_as_global_cond=False), "obs_as_global_cond=False"),
    "actions alone": (policy(pred_action_steps_only=True), "pred_action_steps_only=True"),
    "another convention": (policy(oa_step_convention=False), "oa_step_convention=False"),
    "the convention of before": (lambda c, s: c["policy"].pop("oa_step_convention"), "oa_step_convention=False"),
    "to compute": (policy(horizon="${eval:'__import__(\"os\").system(\"true\")'}"), "policy.horizon is .*to be computed"),
    "to nothing": (policy(horizon="${task.nothing}"), "refers to 'task.nothing'"),
    "in a circle": (policy(horizon="${policy.horizon}"), "to be computed"),
    "an option missing": (lambda c, s: c["policy"].pop("horizon"), "has no horizon of the policy"),
    "an unknown option": (policy(wobble=3), "does not know: wobble=3"),
    "no weights": (lambda c, s: s.clear(), "holds no weights 'model'"),
    "another net's weights": (lambda c, s: s["ema_model"].update({"obs_encoder.x": torch.zeros(2)}), "obs_encoder.x"),
    "local weights": (lambda c, s: s["ema_model"].update({"model.local_cond_encoder.0.x": torch.zeros(2)}),
                      "obs_as_local_cond=False where the tensors say True"),
    "no normalizer": (lambda c, s: [s["ema_model"].pop(k) for k in list(s["ema_model"]) if "normalizer" in k],
                      "no normalizer.params_dict.obs.scale"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_a_checkpoint_that_is_not_read_is_one_error(tmp_path, name, capsys, monkeypatch):
    change, said = BAD_CHECKPOINTS[name]
    config, states = parts()
    change(config, states)
    path = checkpoint(tmp_path / "x.ckpt", config, states, monkeypatch)
    assert convert_pickle.main(["diffusion-policy", str(path), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and len(error) < 1000 and not (tmp_path / "out").exists()
    assert re.search(said, error), error


def test_other_files_are_refused(tmp_path, capsys):
    torch.save({"model": {}}, tmp_path / "a.ckpt")
    torch.save([torch.zeros(2)], tmp_path / "b.ckpt")
    for path, said in (("a.ckpt", "holds model, and no cfg"), ("b.ckpt", "holds list"), ("c.ckpt", "is missing")):
        assert convert_pickle.main(["diffusion-policy", str(tmp_path / path), str(tmp_path / "out")]) == 1
        assert said in capsys.readouterr().err
    for words in (["--weights", "train"], ["--config", "x.json"], ["--horizon", "8"]):
        assert convert_pickle.main(["diffusion-policy", str(GOLDENS / "limits.ckpt"), str(tmp_path / "out"), *words]) == 1
    with pytest.raises(ZooError):
        zoo.load(GOLDENS / "limits.ckpt")


def option(**changes):
    return CONFIG, lambda c: c["options"].update(changes)


def tensor(name, value):
    def change(tensors):
        if value is None:
            tensors.pop(name)
        else:
            tensors[name] = value

    return WEIGHTS, change


SCALE = "normalizer.params_dict.obs.scale"
WRONG = {
    "another format": ((CONFIG, lambda c: c.update(further=1)), "does not know|keys that zoo"),
    "a missing option": ((CONFIG, lambda c: c["options"].pop("kernel_size")), "no key 'kernel_size'"),
    "an unknown option": (option(wobble=1), "does not know: wobble=1"),
    "horizon": (option(horizon=7), "divides by 2"),
    "a huge horizon": (option(horizon=2**30), "horizon=1,073,741,824"),
    "executed": (option(n_action_steps=8), "executed=8"),
    "steps": (option(num_inference_steps=21), "num_inference_steps=21"),
    "widths": (option(down_dims=[8, "8"]), "down_dims"),
    "kernel": (option(kernel_size=5), "kernel_size=5 where the tensors say 3"),
    "actions": (option(action_dim=3), r"action.*must be \(3,\) numbers"),
    "observations": (option(obs_dim=4), r"obs\..*must be \(4,\) numbers"),
    "film": (option(cond_predict_scale=False), "has shape"),
    "film of no kind": (option(cond_predict_scale=1), "cond_predict_scale=1"),
    "scheduler": (option(noise_scheduler=3), "noise_scheduler=3"),
    "scheduler's option": (option(noise_scheduler={"_target_": "a.DDPMScheduler", "wobble": 1}), "num_train_timesteps"),
    "a missing tensor": (tensor("model.final_conv.1.bias", None), "missing final_conv.1.bias"),
    "a wrong tensor": (tensor("model.final_conv.1.bias", torch.zeros(3)), r"final_conv\.1\.bias has shape"),
    "a foreign tensor": (tensor("model.wobble", torch.zeros(3)), "unexpected wobble"),
    "another part's tensor": (tensor("critic.wobble", torch.zeros(3)), "no such policy has: critic.wobble"),
    "further statistics": (tensor("normalizer.params_dict.force.scale", torch.zeros(3)), "needs: force.scale"),
    "no statistics": (tensor(SCALE, None), f"no {SCALE}"),
    "no scale": (tensor(SCALE, torch.zeros(5)), "scale that is not above 0"),
    "one scale for all": (tensor(SCALE, torch.ones(1)), r"it must be \(5,\) numbers"),
    "NaN": (tensor(SCALE, torch.full((5,), torch.nan)), "not finite"),
    "upside down": (tensor("normalizer.params_dict.obs.input_stats.min", torch.full((5,), 1e5)), "min above its max"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_folder_is_one_error_that_names_it(folders, tmp_path, name):
    (file, edit), said = WRONG[name]
    folder = tmp_path / "theirs"
    shutil.copytree(folders["limits"], folder)
    if file == CONFIG:
        config = json.loads((folder / file).read_text())
        edit(config)
        (folder / file).write_text(json.dumps(config))
    else:
        tensors = files.load_tensors(folder / file)
        edit(tensors)
        files.save_tensors(folder / file, tensors)
    with pytest.raises(ZooError, match=said) as error:
        zoo.load(folder, format="diffusion-policy")
    assert isinstance(error.value, (CheckpointError, ConfigError, ShapeError)) and len(str(error.value)) < 900


def test_numbers_that_are_scaled_in_other_ways(folders, tmp_path):
    """One that hardly moves, and a scale that is neither a range nor a deviation: theirs is x * scale + offset in any case."""
    folder = tmp_path / "theirs"
    shutil.copytree(folders["limits"], folder)
    tensors = files.load_tensors(folder / WEIGHTS)
    place = "normalizer.params_dict.obs."
    tensors[f"{place}input_stats.max"][1] += 5e-5  # below what moves to theirs
    tensors[f"{place}scale"][0], tensors[f"{place}offset"][0] = 0.01, 0.5
    tensors["normalizer.params_dict.action.scale"][1] = 1.0  # an action that never moves
    tensors["normalizer.params_dict.action.offset"][1] = -3.0
    for end in ("min", "max"):
        tensors[f"normalizer.params_dict.action.input_stats.{end}"][1] = 3.0
    files.save_tensors(folder / WEIGHTS, tensors)
    codec = zoo.load(folder).codec
    assert codec.norms["observation"] == ("mean_std", "mean_std", "min_max", "min_max", "min_max") and not codec.clip
    obs = expected("limits")["obs"]
    wanted = obs * tensors[f"{place}scale"] + tensors[f"{place}offset"]
    assert float((codec.encode_windows(obs) - wanted).abs().max()) < 1e-5
    x0 = torch.rand(2, 8, 2) * 2 - 1
    back = (x0 - tensors["normalizer.params_dict.action.offset"]) / tensors["normalizer.params_dict.action.scale"]
    found = torch.stack([torch.from_numpy(a.values) for a in codec.decode(x0, {})])
    assert torch.allclose(found, back, atol=1e-4), "theirs does not hold it at its value, and clips nothing"

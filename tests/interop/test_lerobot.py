"""Policies of lerobot: small ones that it wrote itself, with what it computes with them (benchmarks/lerobot_goldens.py)."""

import json
import os
import shutil
from pathlib import Path

import lerobot_goldens
import numpy as np
import pytest
import torch
from folders import edited
from replayed import actions, off

import zoo
from zoo import files
from zoo.cli import main
from zoo.errors import CheckpointError, ConfigError, ShapeError, ZooError
from zoo.interop.lerobot.folder import VISION, WITHOUT_EFFECT, files_of
from zoo.interop.lerobot.format import peer_net
from zoo.interop.lerobot.unet import ConditionalUNet1D
from zoo.testing import awake

GOLDENS = lerobot_goldens.GOLDENS
FOLDERS = sorted(p.name for p in GOLDENS.iterdir() if p.is_dir())
STATE, ENVIRONMENT, ACTION = lerobot_goldens.STATE, lerobot_goldens.ENVIRONMENT, lerobot_goldens.ACTION
OLDEST, MIDDLE, NEWEST = "2024-12_ddpm", "0-3-3_ddpm", "0-4-4_ddpm"


def expected(name):
    return files.load_tensors(GOLDENS / f"{name}.expected.safetensors")


def seen_in(stored):
    return {k: stored[k] for k in (STATE, ENVIRONMENT)}


def check(model, stored):
    """The promise: scaled observations, the net, whole chunks, and what an episode begins with."""
    told = model.codec.condition("observation", seen_in(stored))
    assert float((told.flatten(1) - stored["net.told"]).abs().max()) < 1e-5
    with torch.no_grad():
        out = model.denoiser(stored["net.x"], stored["net.t"].float(), {"observation": told})
    assert float(stored["net.out"].std()) > 0.1 and float((out - stored["net.out"]).abs().max()) < 1e-5
    assert off(actions(model, seen_in(stored), stored["noise"]), stored["actions"]) < 1e-4
    first = {k: v[:, :1].expand(-1, model.codec.n_obs, -1) for k, v in seen_in(stored).items()}  # an episode repeats its first
    begin, count = model.codec.n_obs - 1, model.codec.executed
    chunk = actions(model, first, stored["first.noise"])[:, begin : begin + count]
    assert off(chunk, stored["first.actions"]) < 1e-4


@pytest.mark.parametrize("name", FOLDERS)
def test_a_policy_does_what_lerobot_does(name):
    model, stored = zoo.load(GOLDENS / name), expected(name)
    assert model.domain.name == "policy" and model.recipe.denoiser == "lerobot-unet1d"
    check(model, stored)
    sampling, ddim = model.recipe.sampling, name.endswith("ddim")
    assert (sampling.sampler, sampling.steps, sampling.clip) == (("ddim", 10, None) if ddim else ("ddpm", 20, 1.0))
    assert model.recipe.diffusion.prediction == ("x0" if ddim else "eps")


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_known_of_the_data(name):
    codec, data = zoo.load(GOLDENS / name).codec, lerobot_goldens.statistics()
    spread = name.endswith("ddim")
    assert codec.norms["action"] == (("mean_std",) * 2 if spread else ("min_max",) * 2)
    assert codec.norms["observation"] == ("mean_std",) * 2 + ("identity",) * 5 if spread else ("min_max",) * 7
    if not spread or name.startswith("0-4-4"):  # the old files hold what they scale by, and nothing else
        assert torch.equal(codec.action_low, data[ACTION]["min"]) and torch.equal(codec.action_high, data[ACTION]["max"])
        assert torch.equal(codec.observation_high, torch.cat([data[STATE]["max"], data[ENVIRONMENT]["max"]]))
    else:
        assert (codec.action_low > codec.action_high).all() and (codec.observation_low > codec.observation_high).all()
    if spread:
        assert torch.equal(codec.action_mean, data[ACTION]["mean"]) and torch.equal(codec.action_std, data[ACTION]["std"])
    assert codec.clip is not spread


@pytest.mark.parametrize("name", ["0-3-3_ddim", NEWEST])
def test_it_is_a_policy_as_any_other(name, recwarn):
    model = zoo.load(GOLDENS / name)
    seen = {k: v[0].numpy() for k, v in seen_in(expected(name)).items()}
    for step in (3, None):
        found = model.sample(3, observation=seen, seed=0, **({} if step is None else {"sampler": "ddim", "steps": step}))
        assert found[0].values.shape == (8, 2) and np.isfinite(found[0].values).all()
    controller = model.controller(2, sampler="ddim", steps=2, seed=0)
    one = {k: np.stack([v[-1]] * 2) for k, v in seen.items()}
    assert np.isfinite([controller.act(one) for _ in range(6)]).all()
    found[0].plot()
    assert not [w for w in recwarn if "observation" in str(w.message)]
    assert model.sample(1, seed=0)[0].values.shape == (8, 2), "a window that is not given is zeros"
    with pytest.raises(ShapeError, match=r"give observation\.state, observation\.environment_state"):
        model.sample(1, observation={"agent_pos": np.zeros(2)})


@pytest.mark.parametrize("name", FOLDERS)
def test_convert_and_verify(tmp_path, name, capsys):
    shutil.copytree(GOLDENS / name, tmp_path / "theirs")
    card = "---\nlicense: cc-by-4.0\ndatasets:\n- somebody/pushes\n---\n# Somebody's policy\n\nTrained with care.\n"
    (tmp_path / "theirs" / "README.md").write_text(card)
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "mine")]) == 0
    assert main(["verify", str(tmp_path / "mine")]) == 0
    model = zoo.load(tmp_path / "mine")
    assert (model.recipe.licence, model.recipe.data) == ("cc-by-4.0", "somebody/pushes")
    card = (tmp_path / "mine" / "README.md").read_text()
    for text in ("license: cc-by-4.0", "Trained with care.", "## Origin", "imported from folder theirs"):
        assert text in card
    check(model, expected(name))


# ---- out -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDERS)
def test_what_came_from_there_goes_back_as_it_was(tmp_path, name):
    model = zoo.load(GOLDENS / name)
    model.export("lerobot", tmp_path / "out")
    model.export("lerobot", tmp_path / "out")  # anew
    before, after = (files.load_tensors(p / "model.safetensors") for p in (GOLDENS / name, tmp_path / "out"))
    assert all(torch.equal(after[k], v) for k, v in before.items()), "weights and statistics to the bit"
    again = zoo.load(tmp_path / "out")
    kept = {"description": "", "name": ""}
    assert again.recipe.model_copy(update=kept) == model.recipe.model_copy(update=kept)
    assert all(torch.equal(a, b) for a, b in zip(again.codec.buffers(), model.codec.buffers(), strict=True))
    config, theirs = (json.loads((p / "config.json").read_text()) for p in (tmp_path / "out", GOLDENS / name))
    # a number of steps that theirs leaves open is all of them
    theirs["num_inference_steps"] = theirs["num_inference_steps"] or theirs["num_train_timesteps"]
    other = {
        *WITHOUT_EFFECT,
        *VISION,
        "normalization_mapping",
        "input_features",
        "output_features",
    }  # pictures, and how it is said
    same = (config.keys() & theirs.keys()) - other
    assert len(same) > 15 and {k: config[k] for k in same} == {k: theirs[k] for k in same}
    check(again, expected(name))


NET = {"down_dims": [8, 8], "n_groups": 4, "kernel_size": 3, "diffusion_step_embed_dim": 8}
PARTS = [[ENVIRONMENT, 16], [STATE, 2]]


def ours(norm="min_max", **options):
    """A policy for Push-T of ours with lerobot's net; the last corner never moves."""
    net = {"denoiser": "lerobot-unet1d", "net": NET | {"parts": PARTS}, "codec.observation_norm": norm}
    net |= {"schedule.T": 20, "sampling.sampler": "ddpm", "sampling.steps": 20, "sampling.options": {}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = awake(zoo.create("policy/pusht-keypoints", **net | options))
    rng = np.random.default_rng(0)
    low, high = torch.from_numpy(rng.uniform(50, 450, (2, 20)).astype(np.float32)).sort(0).values
    high[15] = low[15]
    state = {"observation_low": low[:18], "observation_high": high[:18], "action_low": low[18:], "action_high": high[18:]}
    if norm == "mean_std":
        state |= {"observation_mean": (low + high)[:18] / 2, "observation_std": (high - low)[:18] / 4}
    model.codec.load_state_dict(state)
    return model


def window(model, n=2):
    """Observations within the range, in our order."""
    low, high = model.codec.observation_low, model.codec.observation_high
    return torch.lerp(low, high, torch.rand(n, model.codec.n_obs, 18, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("norm", ["min_max", "mean_std", "identity"])
def test_a_policy_of_ours_with_their_net_goes_out_and_comes_back(tmp_path, norm):
    model = ours(norm)
    model.export("lerobot", tmp_path / "out")
    back = zoo.load(tmp_path / "out")
    assert back.codec.keys == (STATE, ENVIRONMENT)
    seen = window(model)
    parts = {ENVIRONMENT: seen[..., :16], STATE: seen[..., 16:]}
    noise = torch.randn(20, 2, 16, 2, generator=torch.Generator().manual_seed(6))
    found, wanted = actions(back, parts, noise), actions(model, seen, noise)
    assert off(found, wanted) < 1e-4
    assert (back.recipe.licence, back.recipe.sampling.sampler) == (model.recipe.licence, "ddpm")


def test_the_parts_of_an_observation_have_their_order(tmp_path):
    model = ours()
    told = model.codec.condition("observation", window(model))
    x, t = torch.randn(2, 16, 2), torch.tensor([3.0, 19.0])
    plain = zoo.load(model.export("lerobot", tmp_path / "out")).denoiser
    moved = torch.cat([told[..., 16:], told[..., :16]], -1)
    with torch.no_grad():
        assert torch.equal(model.denoiser(x, t, {"observation": told}), plain(x, t, {"observation": moved}))
        assert not torch.allclose(model.denoiser(x, t, {"observation": told}), plain(x, t, {"observation": told}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"denoiser": "unet", "net": {"channels": 16, "blocks": 1, "multipliers": [1, 2], "attention": [False, False]}},
         "its net 'unet' is another one than lerobot's.*--set denoiser=lerobot-unet1d"),
        ({"net": NET}, "neither pictures nor observation.environment_state"),
        ({"diffusion.prediction": "v"}, "predicts 'v'"),
        ({"schedule": {"kind": "flow"}, "diffusion.prediction": "flow", "sampling.sampler": "euler"}, "discrete schedules"),
        ({"schedule.curve": "sigmoid"}, "discrete schedules"),
        ({"sampling.sampler": "dpmpp"}, "unknown sampler of lerobot 'dpmpp'"),
        ({"sampling.steps": 10}, r"leading spacing alone.*sampler='ddpm', steps=20"),
        ({"sampling.options": {"variance": "large"}}, "small variance"),
        ({"codec.horizon": 18, "codec.executed": 8}, "horizon that divides by 4"),
        ({"codec.observation_norm": ["identity"] + ["min_max"] * 17}, "scaled by identity, min_max"),
        ({"sampling.guidance_weight": 1.0}, "no guidance"),
        ({"codec.constant": 0.5}, "codec.constant=0.5"),
    ],
)  # fmt: skip
def test_what_lerobot_does_not_express_is_refused_by_name(tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        ours(**options).export("lerobot", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_has_the_sampler_that_is_asked_for(tmp_path):
    model = ours(**{"sampling.sampler": "ddim", "sampling.steps": 10, "sampling.options": {"eta": 1.0}})
    model.export("lerobot", tmp_path / "a", sampler="ddim", steps=15)
    found = zoo.load(tmp_path / "a").recipe.sampling
    assert (found.sampler, found.steps, found.spacing, found.options, found.clip) == ("ddim", 15, "leading", {"eta": 0.0}, 1.0)
    model.export("lerobot", tmp_path / "d", steps=15)
    assert zoo.load(tmp_path / "d").recipe.sampling.sampler == "ddpm", "which DDIM with eta 1 is"
    with pytest.raises(ConfigError, match="unknown sampler of lerobot 'heun'"):
        model.export("lerobot", tmp_path / "b", sampler="heun")
    with pytest.raises(ConfigError, match="steps=200"):
        model.export("lerobot", tmp_path / "b", steps=200)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        model.export("lerobot", tmp_path / "c", sampler="ddpm", steps=20)
    with pytest.raises(ConfigError, match="policies alone"):
        zoo.create("image/fashion-ddpm", **{"net.channels": 16}).export("lerobot", tmp_path / "b")
    assert not (tmp_path / "b").exists()


# ---- bad input -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path):
    """A copy of a folder, of which one file is changed."""

    def change(name, file, edit):
        folder = tmp_path / "theirs"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(GOLDENS / name, folder)
        edited(folder / file, edit)
        return folder

    return change


STATES = "policy_preprocessor_step_3_normalizer_processor.safetensors"
#: statistics among the weights, of other data than those in the processors' files
OTHERS = {
    f"{place}.buffer_{name}.{key}": torch.full((size,), value)
    for place, name, size in (
        ("normalize_inputs", "observation_state", 2),
        ("normalize_inputs", "observation_environment_state", 5),
        ("normalize_targets", "action", 2),
        ("unnormalize_outputs", "action", 2),
    )
    for key, value in (("min", 0.0), ("max", 1.0))
}
WRONG = {
    "another type": (NEWEST, "config.json", lambda c: c.update(type="act"), "unknown type .* 'act'.*Supported: diffusion"),
    "no type": (NEWEST, "config.json", lambda c: c.pop("type"), "no key 'type'"),
    "another feature": (NEWEST, "config.json",
                        lambda c: c["input_features"].update({"observation.force": {"type": "STATE", "shape": [2]}}),
                        "observation.force"),
    "another output": (NEWEST, "config.json",
                       lambda c: c["output_features"].update({"reward": {"type": "REWARD", "shape": [1]}}), "reward"),
    "no state": (NEWEST, "config.json", lambda c: c["input_features"].pop(STATE), "observation.state zoo does not know"),
    "shape": (NEWEST, "config.json", lambda c: c["output_features"][ACTION].update(shape=[2, 2]), r"shape \[2, 2\] of action"),
    "a huge shape": (OLDEST, "config.json", lambda c: c["input_shapes"].update({ENVIRONMENT: [10**9]}), r"1000000000"),
    "no feature": (NEWEST, "config.json", lambda c: c.update(input_features=None), "must hold features"),
    "unknown option": (NEWEST, "config.json", lambda c: c.update(wobble=3), "does not know: wobble=3"),
    "a missing option": (NEWEST, "config.json", lambda c: c.pop("horizon"), "no key 'horizon'"),
    "a missing option of the noise": (MIDDLE, "config.json", lambda c: c.pop("clip_sample_range"), "'clip_sample_range'"),
    "scheduler": (NEWEST, "config.json", lambda c: c.update(noise_scheduler_type="PNDM"), "'PNDM'.*Supported: DDPM, DDIM"),
    "betas": (NEWEST, "config.json", lambda c: c.update(beta_schedule="wobble"), "beta_schedule .*'wobble'.*squaredcos_cap_v2"),
    "prediction": (NEWEST, "config.json", lambda c: c.update(prediction_type="x"), "prediction_type .*'x'"),
    "too many steps": (NEWEST, "config.json", lambda c: c.update(num_inference_steps=21), "num_inference_steps=21"),
    "steps": (NEWEST, "config.json", lambda c: c.update(num_inference_steps="all"), "num_inference_steps='all'"),
    "clip": (NEWEST, "config.json", lambda c: c.update(clip_sample="yes"), "clip_sample='yes'"),
    "width": (NEWEST, "config.json", lambda c: c.update(down_dims=[8, "16"]), "down_dims"),
    "huge": (NEWEST, "config.json", lambda c: c.update(down_dims=[8, 2**20]), "down_dims|memory|larger|hold"),
    "mode": (MIDDLE, "config.json", lambda c: c["normalization_mapping"].update(STATE="QUANTILES"), "'QUANTILES'.*MIN_MAX"),
    "peft": (NEWEST, "config.json", lambda c: c.update(use_peft=True), "use_peft=True"),
    "horizon": (NEWEST, "config.json", lambda c: c.update(horizon=9), "divides by 2"),
    "a huge horizon": (NEWEST, "config.json", lambda c: c.update(horizon=2**30), r"horizon=1,073,741,824 steps"),
    "executed": (NEWEST, "config.json", lambda c: c.update(n_action_steps=8), "executed=8"),
    "a missing tensor": (NEWEST, "model.safetensors", lambda t: t.pop("diffusion.unet.final_conv.1.bias"),
                         "missing final_conv.1.bias"),
    "a wrong tensor": (NEWEST, "model.safetensors",
                       lambda t: t.update({"diffusion.unet.final_conv.1.bias": torch.zeros(3)}), r"conv\.1\.bias has shape"),
    "a foreign tensor": (NEWEST, "model.safetensors", lambda t: t.update({"model.wobble": torch.zeros(3)}), "model.wobble"),
    "an encoder of pictures": (NEWEST, "model.safetensors",
                               lambda t: t.update({"diffusion.rgb_encoder.out.bias": torch.zeros(3)}), "rgb_encoder"),
    "a tensor of no numbers": (NEWEST, "model.safetensors",
                               lambda t: t.update({"diffusion.unet.final_conv.1.bias": torch.full((2,), torch.nan)}), "finite"),
    "no statistics": (MIDDLE, "model.safetensors",
                      lambda t: [t.pop(k) for k in list(t) if "normalize" in k], "no min and no max of observation.state"),
    "one is missing": (MIDDLE, "model.safetensors", lambda t: t.pop("unnormalize_outputs.buffer_action.max"),
                       "no max of action"),
    "never set": (MIDDLE, "model.safetensors",
                  lambda t: t["normalize_inputs.buffer_observation_state.min"].fill_(torch.inf), "never set"),
    "more than float32 holds": (NEWEST, STATES,
                                lambda t: t.update({f"{STATE}.max": torch.full((2,), 1e300, dtype=torch.float64)}),
                                "max of observation.state is not finite"),
    "more than needed": (MIDDLE, "model.safetensors",
                         lambda t: t.update({"normalize_inputs.buffer_observation_force.min": torch.zeros(2)}), "no use for"),
    "two in one": (MIDDLE, "model.safetensors",
                   lambda t: t["normalize_targets.buffer_action.min"].sub_(1), "other statistics in training"),
    "upside down": (MIDDLE, "model.safetensors",
                    lambda t: t["normalize_inputs.buffer_observation_state.min"].add_(1e4), "lies above its max"),
    "below 0": ("0-3-3_ddim", "model.safetensors",
                lambda t: t["normalize_inputs.buffer_observation_state.std"].neg_(), "std of observation.state is below 0"),
    "two sets": (NEWEST, "model.safetensors", lambda t: t.update(OTHERS), "two sets of statistics"),
    "a step of code": (NEWEST, "policy_preprocessor.json",
                       lambda c: c["steps"].insert(0, {"class": "somebody.Step", "config": {}}), "somebody.Step' is code"),
    "an unknown step": (NEWEST, "policy_preprocessor.json",
                        lambda c: c["steps"].insert(0, {"registry_name": "delta_processor", "config": {}}), "delta_processor"),
    "renamed": (NEWEST, "policy_preprocessor.json",
                lambda c: c["steps"][0]["config"].update(rename_map={"a": "b"}), "rename_map is {'a': 'b'}"),
    "renamed by a number": (NEWEST, "policy_preprocessor.json",
                            lambda c: c["steps"][0]["config"].update(rename_map=7), "rename_map is 7"),
    "no step": (NEWEST, "policy_preprocessor.json", lambda c: c["steps"].pop(), "no step normalizer_processor"),
    "no steps": (NEWEST, "policy_preprocessor.json", lambda c: c.pop("steps"), "no list of steps"),
    "quantiles": (NEWEST, "policy_preprocessor.json",
                  lambda c: c["steps"][3]["config"]["norm_map"].update(STATE="QUANTILES"), "'QUANTILES'"),
    "eps": (NEWEST, "policy_postprocessor.json", lambda c: c["steps"][0]["config"].update(eps=0.1), "eps=0.1"),
    "an option of a step": (NEWEST, "policy_postprocessor.json",
                            lambda c: c["steps"][0]["config"].update(wobble=1), "does not know: wobble"),
    "another mode out": (NEWEST, "policy_postprocessor.json",
                         lambda c: c["steps"][0]["config"]["norm_map"].update(ACTION="MEAN_STD"), "different modes"),
    "another size": (NEWEST, "policy_preprocessor.json",
                     lambda c: c["steps"][3]["config"]["features"][STATE].update(shape=[3]), "config.json says STATE"),
    "no state file": (NEWEST, "policy_preprocessor.json", lambda c: c["steps"][3].pop("state_file"), "no min and no max"),
    "a file elsewhere": (NEWEST, "policy_preprocessor.json",
                         lambda c: c["steps"][3].update(state_file="../secret.safetensors"), "names no file of statistics"),
    "a file that is not there": (NEWEST, "policy_preprocessor.json",
                                 lambda c: c["steps"][3].update(state_file="other.safetensors"), "is missing"),
    "statistics of another size": (NEWEST, STATES, lambda t: t.update({f"{STATE}.min": torch.zeros(3)}), r"be \(2,\) numbers"),
    "whole numbers": (NEWEST, STATES, lambda t: t.update({f"{STATE}.min": torch.zeros(2, dtype=torch.int64)}), "int64"),
    "one of a pair": (NEWEST, STATES, lambda t: t.pop(f"{STATE}.max"), "no max of observation.state"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_folder_is_one_error_that_names_it(broken, name):
    golden, file, edit, said = WRONG[name]
    folder = broken(golden, file, edit)
    with pytest.raises(ZooError, match=said) as error:
        zoo.load(folder)
    assert isinstance(error.value, (CheckpointError, ConfigError, ShapeError))


def test_nothing_is_written_of_a_wrong_folder(broken, tmp_path, capsys):
    for name in ("another type", "a missing tensor", "never set"):
        golden, file, edit, _ = WRONG[name]
        assert main(["convert", str(broken(golden, file, edit)), str(tmp_path / "mine")]) == 2
        assert capsys.readouterr().err.count("zoo: ") == 1 and not (tmp_path / "mine").exists()


def test_a_pickle_alone_a_part_alone_and_code_beside(tmp_path):
    folder = tmp_path / "theirs"
    shutil.copytree(GOLDENS / NEWEST, folder)
    (folder / "modeling.py").write_text("raise SystemExit('it ran')")
    assert zoo.load(folder).recipe.domain == "policy", "code beside it is not run"
    (folder / "policy_postprocessor.json").unlink()
    with pytest.raises(CheckpointError, match=r"policy_preprocessor\.json without policy_postprocessor\.json"):
        zoo.load(folder)
    (folder / "policy_preprocessor.json").unlink()
    with pytest.raises(CheckpointError, match="no min and no max"):
        zoo.load(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="zoo never opens"):
        zoo.load(folder)
    (folder / "pytorch_model.bin").rename(folder / "other.txt")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        zoo.load(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a folder of the format 'lerobot'"):
        zoo.load(folder, format="lerobot")


def test_which_files_of_a_repository_are_needed():
    new = ["config.json", "model.safetensors", "README.md", "policy_preprocessor.json", "policy_postprocessor.json", STATES]
    assert files_of([*new, "modeling.py", "eval.mp4", ".gitattributes", "train_config.json"]) == sorted(new)
    assert files_of(["config.json", "config.yaml", "model.safetensors"]) == ["config.json", "model.safetensors"]
    assert files_of(["config.json", "model.safetensors"]) is None, "other packages have these two"
    assert files_of(["train_config.json", "model.safetensors"]) is None
    assert files_of(["config.json", "train_config.json", "adapter.safetensors"]) is None
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin of this repository are a pickle"):
        files_of(["config.json", "train_config.json", "pytorch_model.bin"])


def test_a_net_of_numbers_that_do_not_fit():
    from zoo.contract.conditions import Array

    told = {"observation": Array(shape=(2, 7))}
    for options, said in (
        ({"down_dims": [12]}, "the first of them also by 8"),
        ({"n_groups": 3}, "divide by n_groups"),
        ({"kernel_size": 4}, "odd kernel"),
        ({"diffusion_step_embed_dim": 2}, "give 4 or more"),
        ({"down_dims": []}, "positive whole numbers"),
        ({"parts": [[STATE, 2]]}, "7 numbers together"),
        ({"parts": [[STATE, 2], [STATE, 5]]}, "7 numbers together"),
        ({"parts": [["force", 7]]}, "7 numbers together"),
    ):
        with pytest.raises(ConfigError, match=said):
            ConditionalUNet1D((16, 2), told, **{"down_dims": [8, 16], "n_groups": 4} | options)
    with pytest.raises(ConfigError, match='"observation" alone'):
        ConditionalUNet1D((16, 2), {}, down_dims=[8])
    with pytest.raises(ShapeError, match="divides by 4"):
        ConditionalUNet1D((6, 2), told, down_dims=[8, 8, 8])


# ---- lerobot itself --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lerobot():
    """lerobot, from the sources in $ZOO_LEROBOT (see benchmarks/lerobot_goldens.py)."""
    if not (sources := os.environ.get("ZOO_LEROBOT")):
        pytest.skip("lerobot runs beside older packages: $ZOO_LEROBOT names its unpacked sources")
    return lerobot_goldens.policies(Path(sources))


def test_what_is_stored_is_what_lerobot_writes(lerobot, tmp_path):
    for case in lerobot_goldens.CASES:
        folder = lerobot_goldens.write(lerobot, case, tmp_path / case)
        check(zoo.load(folder), files.load_tensors(folder.with_suffix(".expected.safetensors")))


def test_lerobot_loads_what_is_exported(lerobot, tmp_path):
    if lerobot.old:
        pytest.skip("what is written has features, which came with 0.1")
    models = [(zoo.load(GOLDENS / name), None) for name in FOLDERS] + [(ours(norm), norm) for norm in ("min_max", "mean_std")]
    for i, (model, own) in enumerate(models):
        folder = tmp_path / str(i)
        model.export("lerobot", folder)
        policy, processors = lerobot_goldens.loaded(lerobot, folder)
        stored = lerobot_goldens.computed(lerobot, policy.eval(), processors)
        check(model if own is None else zoo.load(folder), stored)
        if own is not None:  # ours has the environment first
            parts = seen_in(stored)
            seen = torch.cat([parts[ENVIRONMENT], parts[STATE]], -1)
            assert off(actions(model, seen, stored["noise"]), stored["actions"]) < 1e-4


def test_the_golden_output_is_that_of_lerobot(lerobot, tmp_path, capsys):
    if lerobot.old:
        pytest.skip("the importer asks for lerobot by its names of today")
    assert main(["convert", str(GOLDENS / MIDDLE), str(tmp_path / "mine")]) == 0
    model = zoo.load(tmp_path / "mine")
    assert peer_net(model, GOLDENS / MIDDLE) is not None
    assert "the net of lerobot itself" in capsys.readouterr().out and model.verify() < 1e-5

"""Genie: what the authors' own net and sampler gave, stored, against ours once converted.

`benchmarks/interop_goldens.py` makes the files of goldens/ with the authors' sources and names the commit.
"""

import json
import pickle
import warnings

import convert_pickle
import interop_goldens
import numpy as np
import pytest
import torch
from chains import chain
from folders import refused_by_the_converter
from interop_goldens import GENIE, GENIE_SCALES, LENGTHS, Golden

import zoo
from zoo import cli, files
from zoo.contract.dataset import Items
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError
from zoo.interop.convert import convert
from zoo.interop.genie import FORMAT, GenieNet, betas_of, frenet, rotation
from zoo.protein.backbone import Backbone
from zoo.protein.rigid import random_rotation
from zoo.protein.trace import Trace

NAME = "genie-cosine"


@pytest.fixture
def folder(tmp_path):
    return Golden(NAME).converted(tmp_path)


# ---- what theirs said -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENIE)
@torch.no_grad()
def test_a_net_says_what_theirs_said(tmp_path, name):
    golden = Golden(name)
    model = zoo.load(golden.converted(tmp_path))
    assert golden.state.keys() == model.denoiser.state_dict().keys()
    assert all(float(v.abs().min()) > 0 for v in golden.state.values())
    wanted = golden.said["out"]
    assert torch.isfinite(wanted).all() and float(wanted.std()) > 0.5
    assert interop_goldens.off(golden.asked(model)["out"], wanted) < 1e-5


@pytest.mark.parametrize("name", GENIE)
@pytest.mark.filterwarnings("ignore:variance='large'")
def test_chains_are_theirs(tmp_path, name):
    """Their loop of all steps with the noise that ours draws. Theirs wander, ours stay around their mean: the net sees no
    difference."""
    golden = Golden(name)
    model = zoo.load(golden.converted(tmp_path))
    sampling = model.recipe.sampling
    assert (sampling.sampler, sampling.steps) == ("ddpm", golden.config["numTimesteps"])
    assert sampling.options == {"variance": "large", "noise_scale": 0.6}
    for scale in GENIE_SCALES:
        found = golden.traced(model, scale)
        assert found.keys() == {k for k in golden.said if k.endswith(str(scale))} and len(found) == len(LENGTHS)
        for key, value in found.items():
            wanted = golden.said[key] - golden.said[key].mean(0)
            assert float(wanted.std()) > 0.5 and float(golden.said[key].mean(0).norm()) > 0.01
            assert interop_goldens.off(value, wanted) < 1e-4
    # the first scale is the model's own
    usual = model.sample(2, seed=interop_goldens.SEED, length=list(LENGTHS))
    assert abs(usual[0].ca - golden.traced(model, 0.6)["ca 0 0.6"].numpy()).max() < 1e-3


@pytest.mark.parametrize(("schedule", "T"), [("cosine", 1000), ("cosine", 40), ("linear", 1000), ("linear", 30)])
def test_betas_are_the_formulas(schedule, T):
    """In float64, to the rounding of the float32 in which theirs are made."""
    found, u = np.array(betas_of(schedule, T)), np.arange(T + 1) / (T + 1)
    bar = np.cos(u * np.pi / 2) ** 2
    wanted = np.clip(1 - bar[1:] / bar[:-1], 0, 0.999) if schedule == "cosine" else np.linspace(1e-4, 0.02, T)
    assert len(found) == T and found.min() > 0 and np.abs(found - wanted).max() < 5e-5
    assert all(float(np.float32(b)) == b for b in found)


def test_frames_turn_with_the_chain_and_are_those_of_the_definition():
    x = torch.from_numpy(chain(12, -75.0, 140.0, seed=1)[:, 1]).float()[None].repeat(2, 1, 1)
    mask = torch.arange(12) < torch.tensor([[12], [7]])
    turn = random_rotation(seeds.generator(0))
    frames, other = frenet(x, mask), frenet(x @ turn.T + 3, mask)
    assert torch.allclose(turn @ frames, other, atol=1e-5)
    for row, size in ((0, 12), (1, 7)):
        for i in range(1, size - 1):
            before, after = x[row, i] - x[row, i - 1], x[row, i + 1] - x[row, i]
            normal = torch.linalg.cross(before, after)
            expected = torch.stack([after / after.norm(), normal / normal.norm()], -1)
            assert torch.allclose(frames[row, i, :, :2], expected, atol=1e-5)
        assert torch.equal(frames[row, 0], frames[row, 1]) and torch.equal(frames[row, size - 1], frames[row, size - 2])
    assert torch.allclose(torch.linalg.det(frames), torch.tensor(-1.0), atol=1e-5)
    assert torch.allclose(frames.mT @ frames, torch.eye(3), atol=1e-5)
    turns = rotation(torch.randn(5, 3, generator=seeds.generator(1)))
    assert torch.allclose(turns @ turns.mT, torch.eye(3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(turns), torch.tensor(1.0), atol=1e-5)


@torch.no_grad()
def test_the_noise_turns_with_the_chain_and_no_shift_changes_it(folder):
    net = zoo.load(folder).denoiser.double()
    x = 3 * torch.randn(1, 15, 3, generator=seeds.generator(2), dtype=torch.float64).cumsum(1)
    turn, t = rotation(torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)), torch.tensor([20.0])
    out = net(x, t, {})
    assert torch.allclose(net(x @ turn.T + 5, t, {}), out @ turn.T, atol=1e-8)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    assert float((net(x @ mirror, t, {}) - out @ mirror).abs().max()) > 1e-2  # it knows the hand of a chain


# ---- a model of ours --------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_one_of_zoo(tmp_path, capsys):
    folder = Golden(NAME).converted(tmp_path, maximumNumResidues=128, numTimesteps=20)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nWhat they say.\n")
    model = zoo.load(folder)
    assert model.domain.name == "protein" and model.codec.usual == (50, 128) and model.codec.shape == (64, 3)
    made = model.sample(2, length=60, seed=0)
    assert all(isinstance(s, Trace) and len(s) == 60 for s in made) and made.tensor.shape == (2, 60, 3)
    assert cli.main(["convert", str(folder), str(tmp_path / "mine")]) in (0, None)
    assert cli.main(["verify", str(tmp_path / "mine")]) in (0, None)
    again = zoo.load(tmp_path / "mine")
    assert again.recipe.denoiser == "genie" and again.recipe.licence == "apache-2.0" and again.verify() == 0
    assert "What they say." in (tmp_path / "mine" / "README.md").read_text()
    for a, b in zip(made, again.sample(2, length=60, seed=0), strict=True):
        assert np.array_equal(a.ca, b.ca)
    assert cli.main(["sample", str(tmp_path / "mine"), "-n", "2", "--length", "60", "-o", str(tmp_path / "out")]) in (0, None)
    found = sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix == ".pdb")
    assert len(found) == 2 and (tmp_path / "out" / found[0]).read_text().count(" CA  GLY A ") == 60
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "drawn", "least"),
    [({}, range(8, 25), 1), ({"minimumNumResidues": 20}, range(20, 25), 20), ({"maximumNumResidues": 300}, range(50, 129), 1)],
)
def test_lengths_that_nobody_gives(tmp_path, changed, drawn, least):
    model = zoo.load(Golden(NAME).converted(tmp_path, **changed))
    assert {model.codec.sample_size(None, seeds.generator(i)) for i in range(900)} == set(drawn)
    assert model.codec.min_length == least
    with pytest.raises(ConfigError, match=f"chains of 8 to {model.codec.max_length} residues"):
        model.sample(1, length=model.codec.max_length + 1)


def test_it_is_trained_on_backbones_and_on_traces(tmp_path):
    folder = Golden(NAME).converted(tmp_path)
    model = zoo.load(folder)
    model.recipe = model.recipe.override({"training.batch_size": 2})
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    items = [Backbone(chain(n, -75.0, 140.0, seed=n)) for n in (12, 17, 20, 24)]
    for kind in (items, [Trace(item.ca) for item in items]):
        data = Items([(item, {}) for item in kind], conditions={}, origin="made")
        zoo.fit(model, data, steps=2, cpu=True, preview_every=0)
        after = model.denoiser.state_dict()
        assert all(torch.isfinite(v).all() for v in after.values())
        assert sum(not torch.equal(v, before[k]) for k, v in after.items()) > len(before) * 0.9
        assert all(len(s) in (12, 17, 20, 24) for s in model.sample(3, steps=2, seed=0))


def test_padding_changes_nothing(folder):
    model = zoo.load(folder, dtype="float64")  # roundings grow in a net of random weights
    both = model.sample(2, seed=5, steps=4, length=[24, 11])
    alone = [model.sample(2, seed=5, steps=4, length=size)[i] for i, size in enumerate((24, 11))]
    for a, b in zip(both, alone, strict=True):
        assert np.abs(a.ca - b.ca).max() < 1.1e-3


@torch.no_grad()
def test_half_precision_rounds_no_coordinates(folder):
    whole, half = zoo.load(folder), zoo.load(folder, dtype="bf16")
    x, t = 2 * torch.randn(1, 20, 3, generator=seeds.generator(0)).cumsum(1).bfloat16().float(), torch.tensor([9.0])
    exact, rounded = (m.diffusion.ask(m.denoiser, x, t, {}) for m in (whole, half))
    assert 0 < interop_goldens.off(rounded, exact) < 0.1
    for model, options in ((half, {}), (whole, {"precision": "bf16"})):
        assert len(model.sample(2, seed=0, steps=3, length=[12, 20], **options)) == 2


def test_a_net_is_refused_other_chains_and_numbers(folder):
    net = zoo.load(folder).denoiser
    for size in (25, 2):
        with pytest.raises(ConfigError, match=f"chains of {size} residues; this net takes 3 to 24"):
            net(torch.zeros(1, size, 3), torch.zeros(1), {})
    options = zoo.load(folder).recipe.net
    for changed, said in (
        ({"shape": (9, 5)}, r"the net takes \(N, 3\)"), ({"conditions": {"label": 1}}, "is told nothing"),
        ({"c_s": 0}, "c_s=0; give a whole number of at least 1"), ({"relpos_k": -1}, "relpos_k=-1; give .* at least 0"),
        ({"ipa_dropout": 1.0}, "a probability below 1"), ({"template_type": "v2"}, "template_type 'v2'; there is v1"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            GenieNet(**{"shape": (9, 3)} | options | changed)


# ---- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"maximumNumResidues": None}, "does not say maximumNumResidues"),
        ({"maximumNumResidues": 7}, "maximumNumResidues=7 of a genie.*the largest from 8"),
        ({"minimumNumResidues": 30}, "minimumNumResidues=30, maximumNumResidues=24"),
        ({"singleFeatureDimension": 32}, "singleFeatureDimension=32 where the tensors say 16"),
        ({"pairFeatureDimension": None}, "pairFeatureDimension=128 where the tensors say 8"),
        ({"timestepEmbeddingDimension": 8}, "Dimension=20 where the tensors say 22"),
        ({"relativePositionK": 32}, "relativePositionK=32 where the tensors say 6"),
        ({"numPairTransformLayers": 3}, "numPairTransformLayers=3 where the tensors say 2"),
        ({"includeTriangularAttention": "True"}, "includeTriangularAttention=True where the tensors say False"),
        ({"includeTriangularAttention": "yes"}, "includeTriangularAttention yes: it must be true or false"),
        ({"triangularMultiplicativeHiddenDimension": 9}, "triangularMultiplicativeHiddenDimension=9 where"),
        ({"pairTransitionN": 4}, "pairTransitionN=4 where the tensors say 2"),
        ({"ipaNumHeads": 5}, "ipaNumHeads=5 where the tensors say 3"),
        ({"ipaNumVPoints": 8}, "ipaNumVPoints=8 where the tensors say 4"),
        ({"ipaDropout": "much"}, "ipaDropout much: it must be a finite number"),
        ({"ipaDropout": "1.5"}, "ipaDropout=1.5 of a genie; it must be a probability below 1"),
        ({"numStructureTransitionLayers": 2}, "numStructureTransitionLayers=2 where the tensors say 1"),
        ({"numTimesteps": 1}, "numTimesteps=1 "),
        ({"numTimesteps": "many"}, "numTimesteps many: it must be a whole number"),
        ({"numTimesteps": 50000}, "has steps without noise in float32"),
        ({"schedule": "sigmoid"}, "unknown schedule .* 'sigmoid'"),
        ({"templateType": "v2"}, "unknown templateType .* 'v2'"),
        ({"wobble": 3}, "unknown option of .*configuration 'wobble'"),
        ({"numTimestep": 30}, "Did you mean 'numTimesteps'"),
        ({"datasetNames": "scope cath"}, "line 21, 'datasetNames scope cath', has not one name and one value"),
    ],
)
def test_options_that_do_not_fit_are_one_error_and_leave_no_folder(tmp_path, capsys, changed, said):
    refused_by_the_converter(Golden(NAME), tmp_path, capsys, changed, said, "run")


def test_options_of_a_folder_are_all_there_and_known(folder):
    path = folder / "config.json"
    config = files.read_json(path)
    assert "learningRate" not in config["options"] and config["options"]["structureTransitionDropout"] == 0.1
    for changed, said in (
        ({"ipaNumHeads": ...}, "has no key 'ipaNumHeads'"), ({"wobble": 3}, "that zoo does not know: wobble=3"),
        ({"ipaNumHeads": "3"}, "ipaNumHeads='3' of a genie; it must be a whole"), ({"minimumNumResidues": None}, None),
    ):  # fmt: skip
        options = {k: v for k, v in (config["options"] | changed).items() if v is not ...}
        path.write_text(json.dumps(config | {"options": options}))
        if said is None:
            zoo.load(folder)
        else:
            with pytest.raises(CheckpointError, match=said):
                zoo.load(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("structure_net.net.1.bb_update.linear.bias"), "missing structure_net.net.1.bb_update.linear.bias"),
        (lambda s: s.update(wobble=torch.zeros(2)), "unexpected wobble"),
        (lambda s: s.update({"structure_net.net.0.ipa.linear_out.bias": torch.zeros(3)}), "linear_out.bias has shape"),
        (lambda s: s.update({"single_feature_net.linear.bias": torch.full((16,), torch.nan)}), "not finite"),
        (lambda s: s.pop("single_feature_net.linear.weight"), "holds no net of genie: its tensors are"),
    ],
)
def test_tensors_that_do_not_fit_are_one_error(folder, change, said):
    path = folder / "model.safetensors"
    state = files.load_tensors(path)
    change(state)
    files.save_tensors(path, {k: v.clone() for k, v in state.items()})
    with pytest.raises(CheckpointError, match=said):
        zoo.load(folder)


class Trap:
    def __reduce__(self):
        return (print, ("run",))


def test_pickles_are_refused_and_their_converter_named(tmp_path, folder, capsys):
    run = tmp_path / "run"
    last = run / "version_1" / "checkpoints" / "epoch=49.ckpt"
    with pytest.raises(CheckpointError, match=r"\.ckpt is a pickle.*convert_pickle\.py genie RUN FOLDER"):
        zoo.load(last)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        zoo.load(folder)
    for held, said in (
        (pickle.dumps({"state_dict": Trap()}), "weights-only loader refuses it"),
        ({"state": 3}, "it holds no state_dict"),
        ({"state_dict": {"model.a": 3}}, "holds no state of a net"),
        ({"state_dict": {"a": torch.zeros(2)}}, "a is not of its model"),
    ):
        last.write_bytes(held) if isinstance(held, bytes) else torch.save(held, last)
        with pytest.raises(CheckpointError, match=said):
            convert_pickle.convert_genie(run, tmp_path / "new")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no epoch=N\.ckpt"):
        convert_pickle.convert_genie(tmp_path / "empty", tmp_path / "new")
    assert "run" not in capsys.readouterr().out and not (tmp_path / "new").exists()
    assert convert_pickle.main(["genie", str(run), str(tmp_path / "new"), "--weights", "model"]) == 1
    assert "genie takes --config alone" in capsys.readouterr().err


def test_the_latest_checkpoint_is_taken_or_the_one_that_is_named(tmp_path, folder):
    golden, run, key = Golden(NAME), tmp_path / "run", "structure_net.net.1.bb_update.linear.bias"
    assert torch.equal(zoo.load(folder).denoiser.state_dict()[key], golden.state[key])  # version 1, epoch 49
    other = run / "version_0" / "checkpoints" / "epoch=99.ckpt"
    assert convert_pickle.main(["genie", str(other), str(tmp_path / "other")]) == 0
    assert torch.equal(zoo.load(tmp_path / "other").denoiser.state_dict()[key], golden.state[key] + 1)
    published = tmp_path / "published"  # as their weights/ are
    published.mkdir()
    other.rename(published / "epoch=99.ckpt")
    with pytest.raises(CheckpointError, match=r"cannot be read.*--config FILE"):
        convert_pickle.convert_genie(published, tmp_path / "third")
    convert_pickle.convert_genie(published, tmp_path / "third", run / "configuration")
    (run / "configuration").rename(published / "configuration")
    assert convert_pickle.main(["genie", str(published), str(tmp_path / "fourth")]) == 0


def test_other_folders_are_not_recognised(tmp_path, folder):
    assert FORMAT.recognises(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert(folder, tmp_path / "mine")
    assert not FORMAT.recognises(tmp_path / "mine") and not FORMAT.recognises(tmp_path)

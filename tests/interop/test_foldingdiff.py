"""FoldingDiff: what the authors' own net, sampler and chains were, stored, against ours once converted.

`benchmarks/interop_goldens.py` makes the files of goldens/ with the authors' sources and names the commit.
"""

import json
import math
import pickle

import convert_pickle
import interop_goldens
import numpy as np
import pytest
import torch
from folders import refused_by_the_converter
from interop_goldens import FOLDING, LENGTHS, MEANS, PRECISIONS, Golden

import zoo
from zoo import cli, files
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError
from zoo.interop.convert import convert
from zoo.interop.foldingdiff import FORMAT, AngleBert, betas_of
from zoo.protein.backbone import Backbone

NAME = "folding-relative"


@pytest.fixture
def folder(tmp_path):
    return Golden(NAME).converted(tmp_path)


def edit(path, **changed):
    """Change keys of a JSON file; None takes one out."""
    data = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({k: v for k, v in data.items() if k not in changed or v is not None}))


# ---- what theirs said -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDING)
@torch.no_grad()
def test_a_net_says_what_theirs_said(tmp_path, name):
    golden = Golden(name)
    model = zoo.load(golden.converted(tmp_path))
    assert golden.state.keys() == model.denoiser.state_dict().keys()
    assert all(float(v.abs().min()) > 0 for k, v in golden.state.items() if v.ndim > 1 and v.is_floating_point())
    wanted = golden.said["out"]
    assert torch.isfinite(wanted).all() and float(wanted.std()) > 0.5
    assert interop_goldens.off(golden.asked(model)["out"], wanted) < 1e-5


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, d) for n, (_, trained) in FOLDING.items() for d in PRECISIONS[trained["variance_schedule"]]]
)
def test_chains_are_theirs(tmp_path, name, dtype):
    """Their loop of all steps with the noise that ours draws, their means, and their chains of these angles."""
    golden = Golden(name)
    model = zoo.load(golden.converted(tmp_path))
    assert (model.recipe.sampling.sampler, model.recipe.sampling.steps) == ("ddpm", golden.config["trained"]["timesteps"])
    found = golden.folded(model, dtype)
    assert found.keys() == {k for k in golden.said if k.endswith(str(dtype))} and len(found) == 2 * len(LENGTHS)
    for key, value in found.items():
        wanted = golden.said[key]
        assert float(wanted.std()) > 1
        if key.startswith("angles"):
            assert interop_goldens.turned(value, wanted) < 1e-4
        else:
            assert float((value - wanted).abs().max()) < 1e-3


@pytest.mark.parametrize(("schedule", "T"), [("cosine", 1000), ("linear", 250), ("quadratic", 30)])
def test_betas_are_the_formulas(schedule, T):
    """In float64, to the rounding of the float32 in which theirs are made."""
    found, u = np.array(betas_of(schedule, T)), np.arange(T + 1) / T
    if schedule == "cosine":
        bar = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
        wanted = np.clip(1 - bar[1:] / bar[:-1], 1e-4, 0.9999)
    else:
        place = np.linspace(-6, 6, T) if schedule == "quadratic" else np.linspace(0, 1, T)
        share = 1 / (1 + np.exp(-place)) if schedule == "quadratic" else place
        wanted = 1e-4 + share * (0.02 - 1e-4)
    assert len(found) == T and np.abs(found - wanted).max() < (1e-4 if schedule == "cosine" else 1e-6)
    assert all(float(np.float32(b)) == b for b in found)


# ---- a model of ours --------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_one_of_zoo(tmp_path, folder, capsys):
    (folder / "README.md").write_text("---\nlicense: mit\n---\nWhat they say.\n")
    model = zoo.load(folder)
    assert model.domain.name == "protein" and torch.allclose(model.codec.mean, torch.tensor(MEANS))
    made = model.sample(2, seed=0, steps=5)
    assert all(isinstance(s, Backbone) and 10 <= len(s) <= 24 for s in made)
    assert cli.main(["convert", str(folder), str(tmp_path / "mine")]) in (0, None)
    assert cli.main(["verify", str(tmp_path / "mine")]) in (0, None)
    again = zoo.load(tmp_path / "mine")
    assert again.recipe.denoiser == "foldingdiff" and again.recipe.licence == "mit" and again.verify() == 0
    assert "What they say." in (tmp_path / "mine" / "README.md").read_text()
    for a, b in zip(made, again.sample(2, seed=0, steps=5), strict=True):
        assert np.array_equal(a.atoms, b.atoms)
    (one,) = again.sample(1, seed=0, steps=5, length=17)
    assert len(one) == 17 and one.save(tmp_path / "x.pdb").read_text().count(" CA ") == 17
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trained", "drawn", "least"),
    [({}, range(10, 25), 10), ({"min_seq_len": 0}, range(8, 25), 1), ({"min_seq_len": 24}, range(24, 25), 24)],
)
def test_lengths_that_nobody_gives(tmp_path, trained, drawn, least):
    model = zoo.load(Golden(NAME).converted(tmp_path, **trained))
    assert {model.codec.sample_size(None, seeds.generator(i)) for i in range(300)} == set(drawn)
    assert model.codec.min_length == least
    for length in (7, 25):
        with pytest.raises(ConfigError, match="chains of 8 to 24 residues"):
            model.sample(1, length=length)


def test_long_models_draw_the_lengths_of_their_script(tmp_path):
    """As many of each from 50 to 127, where the model takes them."""
    options = FOLDING[NAME][0] | {"max_position_embeddings": 128}
    net = AngleBert(
        (64, 6),
        **{k: options[k] for k in NET},
        max_position_embeddings=128,
        time_encoding="sinusoidal",
        decoder="mlp",
    )
    trained = FOLDING[NAME][1] | {"max_seq_len": 128, "time_encoding": "sinusoidal", "min_seq_len": 40}
    results = interop_goldens.folding_results(tmp_path / "results", options, trained, net.state_dict())
    model = convert_pickle.convert_folding(results, tmp_path / "out")
    assert model.codec.usual == (50, 127) and model.codec.shape == (64, 6)


NET = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "position_embedding_type")


def test_a_net_is_refused_longer_chains_and_conditions(folder):
    net = zoo.load(folder).denoiser
    with pytest.raises(ConfigError, match="chains of 25 residues; this net has positions for 24"):
        net(torch.zeros(1, 25, 6), torch.zeros(1), {})
    options = {k: FOLDING[NAME][0][k] for k in NET} | {"max_position_embeddings": 8, "decoder": "mlp"}
    options["time_encoding"] = "sinusoidal"
    for changed, said in (
        ({"shape": (9, 5)}, "the net takes"), ({"conditions": {"label": 1}}, "is told nothing"),
        ({"num_attention_heads": 5}, "divides by the heads"), ({"hidden_size": 2, "num_attention_heads": 1}, "4 or more"),
        ({"hidden_dropout_prob": 1.0}, "a probability below 1"), ({"decoder": "mpl"}, "Did you mean 'mlp'"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            AngleBert(**{"shape": (9, 6)} | options | changed)


def test_padding_changes_nothing(folder):
    model = zoo.load(folder, dtype="float64")  # roundings grow in a net of random weights
    both = model.sample(2, seed=5, steps=4, length=[24, 11])
    alone = [model.sample(2, seed=5, steps=4, length=size)[i] for i, size in enumerate((24, 11))]
    for a, b in zip(both, alone, strict=True):
        assert np.abs(a.atoms - b.atoms).max() < 1.1e-3


@torch.no_grad()
def test_half_precision_leaves_the_times_whole(folder):
    """A frequency of 20 that is rounded to bf16 is off by 0.06, which at step 1000 are turns."""
    whole, half = zoo.load(folder), zoo.load(folder, dtype="bf16")
    assert half.denoiser.time_embed.W.dtype == torch.float32 and half.dtype == torch.bfloat16
    t, mask = torch.tensor([99.0]), torch.ones(1, 12, dtype=torch.bool)
    assert torch.equal(whole.denoiser.time_embed(t), half.denoiser.time_embed(t))
    x = torch.randn(1, 12, 6, generator=seeds.generator(0))
    exact, rounded = (m.diffusion.ask(m.denoiser, x, t, {}, mask=mask) for m in (whole, half))
    assert 0 < interop_goldens.off(rounded, exact) < 0.05
    assert len(half.sample(2, seed=0, steps=3, length=[12, 20])) == 2
    assert len(whole.sample(2, seed=0, steps=3, length=[12, 20], precision="bf16")) == 2


# ---- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hidden_size": 48}, "hidden_size=48 where the tensors say 24"),
        ({"num_hidden_layers": 3}, "num_hidden_layers=3 where the tensors say 2"),
        ({"hidden_act": "gelu_new"}, "unknown hidden_act .* 'gelu_new'"),
        ({"hidden_act": None}, "has no key 'hidden_act'"),
        ({"position_embedding_type": "rotary"}, "position_embedding_type"),
        ({"position_embedding_type": None}, "has no key 'position_embedding_type'"),
        ({"layer_norm_eps": 0}, "layer_norm_eps=0.*above 0"),
        ({"num_attention_heads": 2}, "num_attention_heads=2 where the tensors say 3"),
        ({"position_embedding_type": "relative_key_query"}, "position_embedding_type='relative_key' where that has pos"),
        ({"num_heads": 4}, "num_heads=4 where that has num_attention_heads=3"),
        ({"position_embedding_type": "absolute"}, "relative positions=False where the tensors say True"),
        ({"wobble": 3}, "training of foldingdiff that zoo does not know: wobble=3"),
        ({"angles_definitions": "cart-coords"}, "unknown angles_definitions .* 'cart-coords'"),
        ({"angles_definitions": "canonical"}, "Supported: canonical-full-angles"),
        ({"variance_scale": 3.14}, "variance_scale=3.14 .* Supported: 1.0"),
        ({"variance_schedule": "square"}, "unknown variance_schedule"),
        ({"variance_schedule": None}, "has no key 'variance_schedule'"),
        ({"time_encoding": "sinusoidal"}, "time_encoding='sinusoidal' where the tensors say 'gaussian_fourier'"),
        ({"time_encoding": "fourier"}, "unknown time_encoding"),
        ({"decoder": "linear"}, "decoder='linear' where the tensors say 'mlp'"),
        ({"timesteps": 1}, "timesteps=1 "),
        ({"timesteps": "many"}, "timesteps='many'"),
        ({"max_seq_len": 30}, "not of the training that wrote config.json: max_seq_len=30 where that has max_position_emb"),
        ({"min_seq_len": 25}, "min_seq_len=25, max_seq_len=24"),
        ({"zero_center": False}, "zero_center=False"),
        ({"syn_noiser": "halfhalf"}, "syn_noiser='halfhalf'"),
        ({"single_angle_debug": 2}, "single_angle_debug=2"),
    ],
)
def test_options_that_do_not_fit_are_one_error_and_leave_no_folder(tmp_path, capsys, changed, said):
    refused_by_the_converter(Golden(NAME), tmp_path, capsys, changed, said, "results")


def test_an_option_of_training_that_is_not_known(folder):
    edit(folder / "training_args.json", wobble=4)
    with pytest.raises(CheckpointError, match="options of a training of foldingdiff that zoo does not know: wobble=4"):
        zoo.load(folder)
    edit(folder / "training_args.json", wobble=None, _note="by hand")
    zoo.load(folder)
    edit(folder / "config.json", is_decoder=True)
    with pytest.raises(CheckpointError, match="is_decoder=True of a BERT of foldingdiff is not supported"):
        zoo.load(folder)
    edit(folder / "config.json", is_decoder=None, wobble=3)
    with pytest.raises(CheckpointError, match="BERT of foldingdiff that zoo does not know: wobble=3"):
        zoo.load(folder)
    edit(folder / "training_args.json", angles_definitions=None)
    with pytest.raises(CheckpointError, match="is not a folder of the format 'foldingdiff'"):
        zoo.load(folder, format="foldingdiff")


def save_means(folder, array, **options):
    np.save(folder / "training_mean_offset.npy", array, **options)


class Trap:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "training_mean_offset.npy").unlink(), r"training_mean_offset\.npy is missing: angles"),
        (lambda f: save_means(f, np.zeros(5)), r"float64 \(5,\); the means are 6 real numbers"),
        (lambda f: save_means(f, np.zeros(6, dtype=int)), "int64"),
        (lambda f: save_means(f, np.full(6, 4.0)), "between -pi and pi"),
        (lambda f: save_means(f, np.full(6, np.nan)), "between -pi and pi"),
        (lambda f: save_means(f, np.array([Trap()] * 6), allow_pickle=True), "holds Python objects"),
        (lambda f: (f / "training_mean_offset.npy").write_bytes(b"abc"), "training_mean_offset.npy"),
    ],
)
def test_means_that_are_none_are_one_error(folder, capsys, change, said):
    change(folder)
    with pytest.raises(CheckpointError, match=said):
        zoo.load(folder)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("token_decoder.dense2.bias"), "missing token_decoder.dense2.bias"),
        (lambda s: s.update(wobble=torch.zeros(2)), "unexpected wobble"),
        (lambda s: s.update({"inputs_to_hidden_dim.weight": torch.zeros(24, 9)}), "angles=6 where the tensors say 9"),
        (lambda s: s.update({"time_embed.W": torch.zeros(5)}), "time_embed.W has shape"),
        (lambda s: s.update({"time_embed.W": torch.full((12,), math.nan)}), "not finite"),
        (lambda s: s.pop("inputs_to_hidden_dim.weight"), "holds no net of foldingdiff: its tensors are"),
    ],
)
def test_tensors_that_do_not_fit_are_one_error(folder, change, said):
    path = folder / "model.safetensors"
    state = files.load_tensors(path)
    change(state)
    files.save_tensors(path, {k: v.clone() for k, v in state.items()})
    with pytest.raises(CheckpointError, match=said):
        zoo.load(folder)


def test_pickles_are_refused_and_their_converter_named(tmp_path, folder, capsys):
    results = tmp_path / "results"
    with pytest.raises(CheckpointError, match=r"epoch=19.*\.ckpt is a pickle.*convert_pickle\.py foldingdiff RESULTS FOLDER"):
        zoo.load(results)
    with pytest.raises(CheckpointError, match=r"\.ckpt is a pickle.*convert_pickle\.py foldingdiff RESULTS FOLDER"):
        zoo.load(results / "models" / "best_by_valid" / "epoch=7-step=700.ckpt")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        zoo.load(folder)
    newest = results / "models" / "best_by_valid" / "epoch=30-step=1.ckpt"
    for held, said in (
        (pickle.dumps({"state_dict": Trap()}), "weights-only loader refuses it"),
        ({"state": 3}, "it holds no state_dict"),
        ({"state_dict": {"a": 3}}, "holds no state of a net"),
    ):
        newest.write_bytes(held) if isinstance(held, bytes) else torch.save(held, newest)
        with pytest.raises(CheckpointError, match=said):
            convert_pickle.convert_folding(results, tmp_path / "new")
    with pytest.raises(CheckpointError, match="holds no models/best_by_train"):
        convert_pickle.convert_folding(results, tmp_path / "new", "train")
    assert "run" not in capsys.readouterr().out and not (tmp_path / "new").exists()
    assert convert_pickle.main(["foldingdiff", str(results), str(tmp_path / "new"), "--weights", "model"]) == 1
    assert "takes --weights valid or train alone" in capsys.readouterr().err


def test_the_latest_epoch_and_the_asked_loss_are_taken(tmp_path, folder):
    golden, results, key = Golden(NAME), tmp_path / "results", "token_decoder.dense2.bias"
    assert torch.equal(zoo.load(folder).denoiser.state_dict()[key], golden.state[key])  # epoch 19, not 7
    (results / "models" / "best_by_valid").rename(results / "models" / "best_by_train")
    (results / "models" / "best_by_train" / "epoch=19-step=1840.ckpt").unlink()
    assert convert_pickle.main(["foldingdiff", str(results), str(tmp_path / "other"), "--weights", "train"]) == 0
    assert torch.equal(zoo.load(tmp_path / "other").denoiser.state_dict()[key], golden.state[key] + 1)


def test_which_files_of_a_repository_are_fetched():
    ours = {"config.json", "training_args.json", "training_mean_offset.npy", "model.safetensors", "README.md"}
    assert FORMAT.wanted({*ours, "plots/losses.pdf", "more.safetensors"}) == sorted(ours)
    assert FORMAT.wanted({"config.json", "model.safetensors"}) is None
    assert FORMAT.wanted({"config.json", "training_args.json"}) is None
    with pytest.raises(CheckpointError, match=r"models/a\.ckpt of this repository are a pickle.*foldingdiff RESULTS FOLDER"):
        FORMAT.wanted({"config.json", "training_args.json", "models/a.ckpt"})


def test_other_folders_are_not_recognised(tmp_path, folder):
    assert FORMAT.recognises(folder)
    made, _ = convert(folder, tmp_path / "mine")
    assert made is not None and not FORMAT.recognises(tmp_path / "mine")
    edit(folder / "config.json", model_type="gpt2")
    assert not FORMAT.recognises(folder)
    (folder / "config.json").write_text("{")
    assert not FORMAT.recognises(folder) and not FORMAT.recognises(tmp_path)

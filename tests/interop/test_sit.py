"""SiT: what the authors' own net and ODE sampler gave, stored, against ours once converted.

`benchmarks/interop_goldens.py` makes the files of goldens/ with the authors' sources and names the commit.
"""

import convert_dit
import convert_pickle
import interop_goldens
import pytest
import torch
from interop_goldens import POINTS, SIT, STEPS, Golden

import zoo
from zoo.core.schedule import FlowSchedule
from zoo.errors import CheckpointError, ConfigError
from zoo.interop.sit import SiT

NAME = "sit-spare"


@pytest.fixture(autouse=True)
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.mark.parametrize("name", SIT)
@torch.no_grad()
def test_net_and_samples_are_theirs(tmp_path, name, capsys):
    """The sampler is their Euler, of one step less than it has points; the label -1 is their null."""
    golden = Golden(name)
    model = zoo.load(golden.converted(tmp_path))
    assert golden.state.keys() == {*model.denoiser.state_dict(), "pos_embed"}
    assert all(float(v.abs().min()) > 0 for k, v in golden.state.items() if k != "pos_embed")
    for key, found in golden.asked(model).items():
        wanted = golden.said[key]
        assert float(wanted.std()) > 0.5 and interop_goldens.off(found, wanted) < 1e-5
    assert float((golden.said["out"] - golden.said["unlabelled"]).abs().max()) > 0.1
    assert STEPS == POINTS - 1
    found = golden.sampled(model, sampler="euler", steps=STEPS, guidance_weight=0.0)
    assert interop_goldens.off(found, golden.said["euler"]) < 1e-4
    assert "error" not in capsys.readouterr().err


def test_a_checkpoint_becomes_a_model_of_zoo(tmp_path, capsys):
    model = zoo.load(Golden(NAME).converted(tmp_path))
    recipe = model.recipe
    assert type(model.diffusion.schedule) is FlowSchedule and model.diffusion.prediction == "flow"
    assert recipe.denoiser == "sit" and recipe.net["learn_sigma"] is True and not model.diffusion.learned_variance
    assert (recipe.sampling.sampler, recipe.sampling.steps, recipe.sampling.guidance_weight) == ("euler", 250, 3.0)
    assert "SiT, converted from theirs.pt" in recipe.description and "Ma et al. 2024" in recipe.paper
    assert model.verify() == 0 and model.codec.shape == (4, 8, 8)
    picture = model.sample(2, label=[1, "3"], steps=3, seed=0)[0]
    assert picture.pixels.shape == (16, 16, 3)
    with pytest.raises(ConfigError, match="says no variance"):
        model.sample(1, label=1, sampler="ddpm", variance="learned", steps=2)
    model.save_pretrained(tmp_path / "again")
    again = zoo.load(tmp_path / "again").sample(2, label=[1, "3"], steps=3, seed=0)[0]
    assert (again.pixels == picture.pixels).all() and "error" not in capsys.readouterr().err


@torch.no_grad()
def test_the_velocity_of_an_exact_net_is_turned_round():
    """A net that says data - noise at theirs' times is one that says noise - data at ours."""
    from zoo.contract.conditions import Label

    net = SiT((4, 8, 8), {"label": Label(values=("a", "b"))}, width=8, depth=1, heads=2, learn_sigma=True)
    seen = []
    net.t_embedder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    out = net(torch.zeros(2, 4, 8, 8), torch.tensor([1.0, 0.25]), {})
    assert out.shape == (2, 4, 8, 8) and seen[0].tolist() == [0.0, 0.75]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--path-type", "GVP"], "--path-type GVP --prediction velocity is not supported"),
        (["--prediction", "score"], "--path-type Linear --prediction score is not supported"),
    ],
)
def test_other_interpolants_are_refused(tmp_path, capsys, words, said):
    torch.save(Golden(NAME).state, tmp_path / "a.pt")
    vae = str(interop_goldens.autoencoder(tmp_path / "vae"))
    arguments = ["sit", str(tmp_path / "a.pt"), str(tmp_path / "mine"), "--vae", vae, "--heads", "3", *words]
    assert convert_pickle.main(arguments) == 1
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not (tmp_path / "mine").exists()


def test_files_that_do_not_fit_are_one_error(tmp_path):
    vae, state, path = interop_goldens.autoencoder(tmp_path / "vae"), Golden(NAME).state, tmp_path / "a.pt"
    for held, said in (
        ({k: v for k, v in state.items() if k != "blocks.1.mlp.fc2.bias"}, r"missing blocks\.1\.mlp\.fc2\.bias"),
        (state | {"wobble": torch.zeros(2)}, "unexpected wobble"),
        (state | {"final_layer.linear.weight": torch.zeros(48, 24)}, "shapes that no DiT has"),
        ({"x": torch.zeros(2)}, "is no checkpoint of DiT or SiT"),
        (3, "holds no state of a net"),
    ):
        torch.save(held, path)
        with pytest.raises(CheckpointError, match=said):
            convert_dit.convert(path, tmp_path / "mine", vae, 3, kind="sit")
    assert not (tmp_path / "mine").exists()
    with pytest.raises(CheckpointError, match=r"is a pickle.*DiT or SiT by python benchmarks/convert_dit\.py"):
        zoo.load(path)

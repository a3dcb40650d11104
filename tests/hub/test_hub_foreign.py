"""Repositories in other people's formats: fetched by the names of their files, and nothing but what is needed."""

import json
from pathlib import Path

import pytest
import torch
from interop_goldens import Golden

import zoo
from zoo import files
from zoo.errors import CheckpointError, HubError

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The files of a small pipeline of diffusers."""
    folder = tmp_path_factory.mktemp("theirs")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.UNet2DModel(
            sample_size=8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        )  # fmt: skip
    diffusers.DDPMPipeline(net, diffusers.DDIMScheduler()).save_pretrained(folder)
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    card = b"---\nlicense: cc-by-4.0\ndatasets:\n- somebody/pictures\n---\n# Small\n"
    return files | {"README.md": card, "unet/trap.py": b"raise SystemExit\n", "unet/diffusion_pytorch_model.bin": b"\x80\x02."}


def test_a_repository_of_diffusers_loads_by_its_name(hub, theirs):
    hub.add("somebody/small", theirs | {"samples/large.png": b"x" * 1000})
    model = zoo.load("hub:somebody/small")
    assert model.recipe.name == "small" and model.recipe.licence == "cc-by-4.0" and model.recipe.data == "somebody/pictures"
    assert "imported from hub:somebody/small@" in model.recipe.description
    assert model.sample(1, steps=1, seed=0)[0].pixels.shape == (8, 8, 3)
    asked = " ".join(hub.paths("GET"))
    for name in ("trap.py", ".bin", "large.png"):
        assert name not in asked
    hub.log.clear()
    assert zoo.load("hub:somebody/small", local_files_only=True).recipe == model.recipe and not hub.log


def test_a_net_alone_in_a_repository(hub, theirs):
    files = {n.removeprefix("unet/"): data for n, data in theirs.items() if n.startswith("unet/")}
    scheduler = {"scheduler_config.json": theirs["scheduler/scheduler_config.json"]}
    hub.add("somebody/net", files | scheduler)
    assert zoo.load("hub:somebody/net", format="diffusers").recipe.denoiser == "unet2d"


def test_a_repository_of_pickles_is_refused_before_anything_is_fetched(hub, theirs):
    hub.add("somebody/old", {n: data for n, data in theirs.items() if not n.endswith(".safetensors")})
    with pytest.raises(CheckpointError, match=r"unet/diffusion_pytorch_model\.bin .* a pickle.*use_safetensors=False"):
        zoo.load("hub:somebody/old")
    assert "resolve" not in " ".join(hub.paths("GET"))


GOLDENS = Path(__file__).parents[1] / "interop" / "lerobot"


@pytest.mark.parametrize(
    ("layout", "sign"), [("0-4-4_ddpm", "eval.json"), ("0-3-3_ddim", "train_config.json"), ("0-3-3_ddim", "")]
)
def test_a_repository_of_lerobot(hub, layout, sign):
    files = {p.name: p.read_bytes() for p in (GOLDENS / layout).iterdir()}
    card = b"---\nlicense: mit\ndatasets: lerobot/pusht\n---\n# Pushes\n"
    further = {"README.md": card, "modeling.py": b"raise SystemExit\n", "eval.mp4": b"x", **({sign: b"{}"} if sign else {})}
    hub.add("somebody/pushes", files | further)
    model = zoo.load("hub:somebody/pushes")
    assert model.recipe.denoiser == "lerobot-unet1d" and model.recipe.name == "pushes"
    # with nothing but config.json and model.safetensors, which other packages have, too, the card is not known to be wanted
    assert (model.recipe.licence, model.recipe.data) == (("mit", "lerobot/pusht") if sign else ("", ""))
    asked = " ".join(hub.paths("GET"))
    assert "model.safetensors" in asked and not any(name in asked for name in ("modeling.py", "eval.mp4", "train_config"))
    hub.log.clear()
    assert zoo.load("hub:somebody/pushes", local_files_only=True).recipe == model.recipe and not hub.log


@pytest.mark.parametrize("name", ["k-augmented", "guided-plain", "edm-song"])
def test_a_repository_of_a_converted_folder(hub, tmp_path, name):
    held = {p.name: p.read_bytes() for p in Golden(name).converted(tmp_path).iterdir()}
    hub.add("somebody/pictures", held | {"README.md": b"# Pictures\n", "modeling.py": b"raise SystemExit\n"})
    model = zoo.load("hub:somebody/pictures")
    assert model.recipe.name == "pictures" and "imported from hub:somebody/pictures@" in model.recipe.description
    assert "modeling.py" not in " ".join(hub.paths("GET"))
    assert str(zoo.info("hub:somebody/pictures").recipe) == str(model.recipe)


def test_of_two_sets_of_weights_in_a_repository_the_averaged_ones_are_taken(hub, tmp_path):
    """As in a folder with both."""
    golden = Golden("k-patched")
    folder = golden.converted(tmp_path)
    files.save_tensors(folder / "model.safetensors", {k: v + 1 for k, v in golden.state.items()})
    hub.add("somebody/both", {p.name: p.read_bytes() for p in folder.iterdir()})
    model = zoo.load("hub:somebody/both")
    assert torch.equal(model.denoiser.state_dict()["proj_in.bias"], golden.state["proj_in.bias"])


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """The files of a small pipeline of mel pictures, laid out as teticio's, with safetensors."""
    folder = tmp_path_factory.mktemp("sounds")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.UNet2DModel(
            sample_size=16, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        )  # fmt: skip
    mel = diffusers.Mel(x_res=16, y_res=16, sample_rate=8000, n_fft=256, hop_length=64, n_iter=2)
    diffusers.AudioDiffusionPipeline(None, net, mel, diffusers.DDIMScheduler()).save_pretrained(folder)
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    index = json.loads(files["model_index.json"])
    index |= {"mel": ["audio_diffusion", "Mel"], "_diffusers_version": "0.8.0.dev0"}
    del index["vqvae"]
    card = b"---\nlicense: gpl-3.0\ndatasets:\n- somebody/loops\ntags:\n- audio\n---\n# Loops\n"
    further = {
        "README.md": card,
        "mel/mel.py": b"raise SystemExit\n",
        "logs/events.out": b"x",
        "audio_diffusion.py": b"raise\n",
    }
    return files | {"model_index.json": json.dumps(index).encode()} | further


def test_a_repository_of_sounds(hub, sounds):
    hub.add("somebody/loops", sounds)
    model = zoo.load("hub:somebody/loops")
    recipe = model.recipe
    assert (recipe.domain, recipe.licence, recipe.data) == ("audio", "gpl-3.0", "somebody/loops")
    assert "imported from hub:somebody/loops@" in recipe.description
    assert model.sample(1, steps=1, seed=0)[0].sample_rate == 8000
    asked = " ".join(hub.paths("GET"))
    assert "mel/mel_config.json" in asked and not any(name in asked for name in ("mel.py", "events", "audio_diffusion.py"))
    hub.log.clear()
    assert zoo.load("hub:somebody/loops", local_files_only=True).recipe == recipe and not hub.log


def test_sounds_as_latents_and_as_pickles_are_refused_before_anything_is_fetched(hub, sounds):
    hub.add("somebody/latents", sounds | {"vqvae/config.json": b"{}", "vqvae/diffusion_pytorch_model.safetensors": b"x"})
    with pytest.raises(CheckpointError, match=r"on the latents of a vqvae \(vqvae/config\.json\) is not supported"):
        zoo.load("hub:somebody/latents")
    weights = "unet/diffusion_pytorch_model"
    hub.add("somebody/old", {n: d for n, d in sounds.items() if weights not in n} | {f"{weights}.bin": b"\x80\x02."})
    with pytest.raises(CheckpointError, match=r"unet/diffusion_pytorch_model\.bin .* a pickle.*use_safetensors=False"):
        zoo.load("hub:somebody/old")
    assert "resolve" not in " ".join(hub.paths("GET"))


def test_what_nobody_knows_is_refused_as_before(hub):
    hub.add("somebody/else", {"README.md": b"# x\n", "weights.safetensors": b"x"})
    with pytest.raises(HubError, match=r"is not a model of zoo: it has no config\.json"):
        zoo.load("hub:somebody/else")

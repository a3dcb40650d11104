"""Models of ours as folders that diffusers loads, and foreign ones as folders of ours."""

import json

import pytest
import torch

import zoo
from zoo.cli import main
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError
from zoo.testing import awake

diffusers = pytest.importorskip("diffusers")

N = 2
SMALL = {
    "codec.size": 8,
    "net.channels": 16,
    "net.multipliers": [1],
    "net.attention": [True],
    "net.blocks": 1,
    "net.emb_dim": 16,
}
DDIM = {
    "sampling.sampler": "ddim",
    "sampling.steps": 10,
    "sampling.spacing": "trailing",
    "sampling.clip": None,
    "sampling.few": [],
}


def ours(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return awake(zoo.create("image/fashion-ddpm", **SMALL | DDIM | options))


def sampled(model, **arguments):
    *_, last = model.sample_iter(N, seed=3, guidance_weight=0, **arguments)
    return last.x


def theirs(pipeline, module, monkeypatch, shape, steps=10, **options):
    """The pictures of their pipeline, from the noise that ours draws."""
    rng = seeds.SampleRng(3, range(N))
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: rng.normal(torch.zeros(N, *shape)))
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(N, num_inference_steps=steps, output_type="np", **options).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize("options", [
    {}, {"schedule.curve": "linear", "diffusion.prediction": "eps"}, {"schedule.curve": "sigmoid"}, {"sampling.clip": 1.0},
    {"schedule.zero_terminal_snr": True},
], ids=str)  # fmt: skip
def test_their_ddim_pipeline_makes_our_pictures(tmp_path, monkeypatch, options):
    model = ours(**options)
    model.export("diffusers", tmp_path / "out")
    pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True)
    found = theirs(pipeline, diffusers.pipelines.ddim.pipeline_ddim, monkeypatch, (1, 8, 8), use_clipped_model_output=True)
    assert float((found - (sampled(model) / 2 + 0.5).clamp(0, 1)).abs().max()) < 1e-5
    again = zoo.load(tmp_path / "out")
    assert again.recipe == model.recipe and torch.equal(sampled(again, label=3), sampled(model, label=3))


def test_a_flow_and_a_transformer(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = {
        "denoiser": "transformer",
        "codec.size": 8,
        "net": {"patch": 4, "dim": 32, "heads": 4, "emb_dim": 16, "depth": 1, "time_scale": 1000},
    }
    options = net | {"schedule": {"kind": "flow"}, "diffusion.prediction": "flow", "diffusion.weighting": "simple"}
    sampling = DDIM | {"sampling.sampler": "euler", "sampling.spacing": "linspace"}
    model = awake(zoo.create("image/fashion-ddpm", **options | sampling))
    model.export("diffusers", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["scheduler"][1] == "FlowMatchEulerDiscreteScheduler"
    unet = diffusers.DDPMPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True).unet
    x = torch.randn(2, 1, 8, 8, generator=seeds.generator(1))
    with torch.no_grad():
        found = unet(x, torch.tensor(250.0)).sample
        assert float((found - model.denoiser(x, torch.full((2,), 0.25), {})).abs().max()) < 1e-5
    assert zoo.load(tmp_path / "out").recipe == model.recipe


def said(net):
    """The options of a net of theirs."""
    return {k: list(v) if isinstance(v, (list, tuple)) else v for k, v in net.config.items() if not k.startswith("_")}


def foreign(folder, scheduler, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.UNet2DModel(
            sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), **options,
        ).eval()  # fmt: skip
    diffusers.DDPMPipeline(net, scheduler).save_pretrained(folder)
    card = "---\nlicense: cc-by-4.0\ndatasets:\n- somebody/pictures\n---\n# Somebody's net\n\nTrained with care.\n"
    (folder / "README.md").write_text(card)
    return net


SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(set_alpha_to_one=False, steps_offset=1, clip_sample=False),
    "ddpm": lambda: diffusers.DDPMScheduler(20, trained_betas=[0.001 * t for t in range(1, 21)], variance_type="fixed_large"),
    "dpm": lambda: diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear", final_sigmas_type="sigma_min"),
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
}  # fmt: skip


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_what_came_from_there_goes_back_as_it_was(tmp_path, scheduler):
    net = foreign(tmp_path / "theirs", scheduler(), num_class_embeds=3)
    model = zoo.load(tmp_path / "theirs")
    model.export("diffusers", tmp_path / "out")
    back = diffusers.DDPMPipeline.from_pretrained(tmp_path / "out")
    assert type(back.scheduler) is type(scheduler()) and type(back.unet) is type(net)
    assert all(torch.equal(v, back.unet.state_dict()[k]) for k, v in net.state_dict().items())
    assert said(net) == said(back.unet)
    again = zoo.load(tmp_path / "out")
    kept = {"description": "", "name": "", "data": "", "licence": ""}
    assert again.recipe.model_copy(update=kept) == model.recipe.model_copy(update=kept)
    assert torch.equal(sampled(again, steps=3, label=1), sampled(model, steps=3, label=1))


def test_convert_keeps_origin_and_licence_and_checks_against_their_net(tmp_path, capsys):
    foreign(tmp_path / "theirs", diffusers.DDIMScheduler(), num_class_embeds=3)
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "mine")]) == 0
    said = capsys.readouterr().out
    assert "the net of diffusers itself within" in said
    model = zoo.load(tmp_path / "mine")
    off = model.verify()
    assert 0 < off < 1e-5  # theirs, not ours written down again
    card = (tmp_path / "mine" / "README.md").read_text()
    for text in ("license: cc-by-4.0", "Trained with care.", "## Origin", "imported from folder theirs"):
        assert text in card
    assert model.recipe.licence == "cc-by-4.0" and model.recipe.data == "somebody/pictures"
    model.save_pretrained(tmp_path / "mine")
    assert "Trained with care." in (tmp_path / "mine" / "README.md").read_text()
    assert main(["convert", str(tmp_path / "mine"), str(tmp_path / "back"), "--to", "diffusers"]) == 0
    assert (tmp_path / "back" / "model_index.json").exists()


def test_what_cannot_be_written_or_converted(tmp_path):
    model = ours()
    with pytest.raises(ConfigError, match=r"unknown format 'difusers'"):
        model.export("difusers", tmp_path / "out")
    with pytest.raises(ConfigError, match="wobble"):
        model.export("diffusers", tmp_path / "out", wobble=1)
    edm = ours(**{"schedule": {"kind": "edm"}, "diffusion.prediction": "x0"})
    with pytest.raises(ConfigError, match=r"no pipeline of diffusers samples a schedule 'edm'"):
        edm.export("diffusers", tmp_path / "out")
    with pytest.raises(ConfigError, match="only models of pictures"):
        zoo.create("audio/spec-ddpm").export("diffusers", tmp_path / "out")
    model.save_pretrained(tmp_path / "mine")
    from zoo.interop.convert import convert

    with pytest.raises(CheckpointError, match=r"in no format that zoo converts\. Known formats: .*diffusers"):
        convert(tmp_path / "mine", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_written_into(tmp_path):
    """The old card would be gone, and two models would be in one folder."""
    model = ours()
    with pytest.raises(ConfigError, match="unknown format"):
        model.export(["diffusers"], tmp_path)
    mine = model.save_pretrained(tmp_path / "mine")
    before = (mine / "README.md").read_bytes()
    with pytest.raises(ConfigError, match=r"holds other things \(config.json"):
        model.export("diffusers", mine)
    assert (mine / "README.md").read_bytes() == before and not (mine / "unet").exists()
    out = model.export("diffusers", tmp_path / "out")
    model.export("diffusers", out)  # written anew
    (out / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")  # theirs would read its parts
    with pytest.raises(ConfigError, match=r"unet/diffusion_pytorch_model\.safetensors\.index\.json"):
        model.export("diffusers", out)


# ---- a learned variance ----------------------------------------------------------------------------------------------------

RANGED = {"diffusion.learned_variance": True, "training.objective": "hybrid", "sampling.sampler": "ddpm"}
RANGED |= {"sampling.options": {"variance": "learned"}, "sampling.spacing": "leading"}


def pictures_of_ddpm(folder, monkeypatch, channels=1, **loading):
    """What their DDPMPipeline makes of a folder, from the noise that ours draws."""
    rng = seeds.SampleRng(3, range(N))
    for module in (diffusers.pipelines.ddpm.pipeline_ddpm, diffusers.schedulers.scheduling_ddpm):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: rng.normal(torch.zeros(N, channels, 8, 8)))
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder, **loading)
    assert pipeline.scheduler.config.variance_type == "learned_range"
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(N, num_inference_steps=10, output_type="pt").images


def test_their_ddpm_takes_our_variance(tmp_path, monkeypatch):
    model = ours(**RANGED)
    model.export("diffusers", tmp_path / "out")
    found = pictures_of_ddpm(tmp_path / "out", monkeypatch, trust_remote_code=True)
    assert float((found - (sampled(model) / 2 + 0.5).clamp(0, 1)).abs().max()) < 1e-4
    assert float((sampled(model) - sampled(model, variance="small")).abs().max()) > 1e-3
    again = zoo.load(tmp_path / "out")
    assert again.recipe == model.recipe and torch.equal(sampled(again, label=3), sampled(model, label=3))


def test_a_variance_that_came_from_there_goes_back(tmp_path, monkeypatch):
    net = foreign(tmp_path / "theirs", diffusers.DDPMScheduler(variance_type="learned_range"), out_channels=6)
    model = zoo.load(tmp_path / "theirs")
    model.export("diffusers", tmp_path / "out")
    back = diffusers.DDPMPipeline.from_pretrained(tmp_path / "out")
    assert said(net) == said(back.unet)
    assert all(torch.equal(v, back.unet.state_dict()[k]) for k, v in net.state_dict().items())
    found = pictures_of_ddpm(tmp_path / "out", monkeypatch, 3)
    assert float((found - (sampled(model, steps=10) / 2 + 0.5).clamp(0, 1)).abs().max()) < 1e-4


def test_convert_and_verify_a_net_with_a_variance(tmp_path, capsys):
    foreign(tmp_path / "theirs", diffusers.DDPMScheduler(variance_type="learned_range"), out_channels=6)
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "mine")]) == 0
    assert "the net of diffusers itself within" in capsys.readouterr().out
    assert 0 < zoo.load(tmp_path / "mine").verify() < 1e-5


def test_schedulers_that_fail_with_a_second_output_are_not_written(tmp_path):
    for options in (
        {"sampling.sampler": "ddim", "sampling.options": {}}, {"sampling.options": {"variance": "small"}},
        {"sampling.sampler": "dpmpp", "sampling.options": {}, "sampling.spacing": "trailing"},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"has a second output, the variance, with which a \w+ of diffusers fails"):
            ours(**RANGED | options).export("diffusers", tmp_path / "out")
    scheduler = diffusers.DPMSolverMultistepScheduler(variance_type="learned_range", beta_schedule="squaredcos_cap_v2")
    foreign(tmp_path / "theirs", scheduler, out_channels=6)
    zoo.load(tmp_path / "theirs").export("diffusers", tmp_path / "out")
    again = zoo.load(tmp_path / "out")
    assert again.diffusion.learned_variance and again.recipe.sampling.sampler == "dpmpp"
    options = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert options["variance_type"] == "learned_range"

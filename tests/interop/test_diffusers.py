"""Folders of diffusers: their own classes, small and of random weights, write them, and zoo reads and samples them."""

import itertools
import json
from fractions import Fraction

import pytest
import torch
from folders import change

import zoo
from zoo.core import seeds
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import CheckpointError, ConfigError
from zoo.interop.diffusers.schedulers import read_scheduler

diffusers = pytest.importorskip("diffusers")

T = 1000
SMALL = {
    "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (8, 16), "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}  # fmt: skip
N = 2  # samples


def small_net(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return diffusers.UNet2DModel(**SMALL | options).eval()


def written(folder, scheduler, net=None, pipeline=None):
    """A folder by the peer's own save_pretrained."""
    net = small_net() if net is None else net
    (pipeline or diffusers.DDPMPipeline)(net, scheduler).save_pretrained(folder)
    return net


class Noise:
    """What both sides draw: x_T first, then the noise of each step, one generator a sample."""

    def __init__(self, seed):
        self.rng = seeds.SampleRng(seed, range(N))

    def __call__(self, shape, **ignored):
        return self.rng.normal(torch.zeros(tuple(shape)))


@pytest.fixture
def same_noise(monkeypatch):
    """The peer draws what ours does under this seed."""

    def use(seed):
        noise = Noise(seed)
        for module in (
            diffusers.schedulers.scheduling_ddpm, diffusers.schedulers.scheduling_ddim,
            diffusers.schedulers.scheduling_euler_ancestral_discrete,
            diffusers.pipelines.ddpm.pipeline_ddpm, diffusers.pipelines.ddim.pipeline_ddim,
        ):  # fmt: skip
            monkeypatch.setattr(module, "randn_tensor", noise)
        return noise

    return use


def ours(model, seed=3, **arguments):
    *_, last = model.sample_iter(N, seed=seed, **arguments)
    return last.x


@torch.no_grad()
def theirs(net, scheduler, steps, noise, start=1.0, **options):
    """The peer's net and scheduler, its own grid."""
    scheduler.set_timesteps(steps)
    x = start * noise((N, 3, 8, 8))
    for t in scheduler.timesteps:
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t).sample, t, x, **options).prev_sample
    return x


@torch.no_grad()
def by_pairs(net, scheduler, levels, noise, **options):
    """The peer's net and its own step of DDIM, from level to level of a grid: `step` takes the distance from T / n."""
    x, steps = noise((N, 3, 8, 8)), [int(level.t) for level in levels]
    for a, b in itertools.pairwise(steps):
        scheduler.num_inference_steps = Fraction(T, a - b)
        x = scheduler.step(net(x, a).sample, a, x, **options).prev_sample
    return x


def close(found, expected, bound):
    assert torch.isfinite(expected).all()
    assert float((found - expected).abs().max() / expected.abs().max().clamp(min=1)) < bound


# ---- the net ---------------------------------------------------------------------------------------------------------------

NETS = {
    "plain": {},
    "first": {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "attention_head_dim": None},
    "film": {"resnet_time_scale_shift": "scale_shift", "attention_head_dim": 4},
    "film with groups": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 2},
    "labels": {"num_class_embeds": 5},
    "others": {"add_attention": False, "mid_block_scale_factor": 1.4142, "center_input_sample": True, "act_fn": "gelu"},
    "wide time": {"time_embedding_dim": 24, "act_fn": "mish", "layers_per_block": 2},
    "no middle": {"mid_block_type": None, "act_fn": "relu"},
    "odd width": {"block_out_channels": (12, 12), "norm_num_groups": 3, "attention_head_dim": 6},
    "three levels": {
        "block_out_channels": (8, 8, 16), "down_block_types": ("AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D"),
    },
    "variance": {"out_channels": 6},
}  # fmt: skip


@pytest.mark.parametrize("options", NETS.values(), ids=NETS)
def test_a_net_says_what_theirs_says(tmp_path, options):
    net = written(tmp_path, diffusers.DDIMScheduler(), small_net(**options))
    model = zoo.load(tmp_path)
    assert model.recipe.denoiser == "unet2d"
    x, t = torch.randn(3, 3, 8, 8, generator=seeds.generator(1)), torch.tensor([0.0, 499.0, 999.0])
    label = torch.tensor([0, 4, 2]) if "num_class_embeds" in options else None
    with torch.no_grad():
        expected = net(x, t, class_labels=label).sample[:, :3]
        found = model.diffusion.ask(model.denoiser, x, t, {} if label is None else {"label": label})
    assert float((found - expected).abs().max()) < 1e-5


def test_a_grey_net(tmp_path):
    net = written(tmp_path, diffusers.DDIMScheduler(), small_net(in_channels=1, out_channels=1))
    model = zoo.load(tmp_path)
    assert model.sample(2, seed=0, steps=2)[0].pixels.shape == (8, 8)
    x = torch.randn(1, 1, 8, 8, generator=seeds.generator(1))
    with torch.no_grad():
        assert float((net(x, 7).sample - model.denoiser(x, torch.tensor([7.0]), {})).abs().max()) < 1e-5


BEYOND = {
    "resnet down and up": {"downsample_type": "resnet", "upsample_type": "resnet"},
    "other blocks": {
        "down_block_types": ("ResnetDownsampleBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "ResnetUpsampleBlock2D")
    },
    "learned times": {"time_embedding_type": "learned", "num_train_timesteps": T},
    "labels": {"downsample_type": "resnet", "num_class_embeds": 3},
}  # fmt: skip


@pytest.mark.parametrize("options", BEYOND.values(), ids=BEYOND)
def test_a_net_that_ours_does_not_have_is_theirs(tmp_path, options):
    net = written(tmp_path / "theirs", diffusers.DDIMScheduler(), small_net(**options))
    model = zoo.load(tmp_path / "theirs")
    assert model.recipe.denoiser == "diffusers-class" and model.recipe.net["class_name"] == "UNet2DModel"
    x, t = torch.randn(2, 3, 8, 8, generator=seeds.generator(1)), torch.tensor([3.0, 999.0])
    with torch.no_grad():
        label = torch.tensor([0, 2]) if "num_class_embeds" in options else None
        cond = {} if label is None else {"label": label}
        expected = net(x, t.long(), class_labels=label).sample
        assert float((model.diffusion.ask(model.denoiser, x, t, cond) - expected).abs().max()) < 1e-5
    model.save_pretrained(tmp_path / "ours")
    assert len(model.recipe.net["sha256"]) == 64 and model.recipe.net["version"] == diffusers.__version__
    again = zoo.load(tmp_path / "ours")
    assert again.verify() == 0
    with torch.no_grad():
        assert torch.equal(again.diffusion.ask(again.denoiser, x, t, cond), model.diffusion.ask(model.denoiser, x, t, cond))


# ---- samples ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log"])
def test_ddpm_is_their_pipeline(tmp_path, same_noise, clip, variance):
    scheduler = diffusers.DDPMScheduler(clip_sample=clip, variance_type=variance, beta_schedule="squaredcos_cap_v2")
    net = written(tmp_path, scheduler)
    model = zoo.load(tmp_path)
    assert (model.recipe.sampling.sampler, model.recipe.sampling.steps) == ("ddpm", T)
    same_noise(3)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(N, num_inference_steps=20, output_type="pt").images
    close((ours(model, steps=20) / 2 + 0.5).clamp(0, 1), expected, 1e-4)
    close(ours(model, steps=20), theirs(net, scheduler, 20, same_noise(3)), 1e-4)


def test_ddpm_with_the_large_variance(tmp_path, same_noise):
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=40, variance_type="fixed_large")
    net = written(tmp_path, scheduler)
    close(ours(zoo.load(tmp_path)), theirs(net, scheduler, 40, same_noise(3)), 1e-4)


RANGED = {
    "the usual": (3, {"beta_schedule": "squaredcos_cap_v2"}, {}),
    "grey, clean, no bound": (1, {"prediction_type": "sample", "clip_sample": False, "timestep_spacing": "linspace"}, {}),
    "their class": (3, {"prediction_type": "v_prediction"}, {"downsample_type": "resnet", "upsample_type": "resnet"}),
}  # fmt: skip


@pytest.mark.parametrize(("channels", "options", "net"), RANGED.values(), ids=RANGED)
def test_ddpm_with_a_learned_variance_is_their_pipeline(tmp_path, same_noise, channels, options, net):
    """`learned_range`: the second half of the output says where between the small and the large one it lies, as for ours."""
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", **options)
    net = written(tmp_path, scheduler, small_net(in_channels=channels, out_channels=2 * channels, **net))
    model = zoo.load(tmp_path)
    assert model.diffusion.learned_variance and model.recipe.sampling.options == {"variance": "learned"}
    x, t = torch.randn(2, channels, 8, 8, generator=seeds.generator(1)), torch.tensor([3.0, 999.0])
    with torch.no_grad():
        expected = net(x, t).sample
        out, share = model.diffusion.answers(model.denoiser, x, t, {})
    assert float((torch.cat([out, 2 * share - 1], 1) - expected).abs().max()) < 1e-5
    same_noise(3)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(N, num_inference_steps=20, output_type="pt").images
    close((ours(model, steps=20) / 2 + 0.5).clamp(0, 1), images, 1e-4)
    off = ours(model, steps=20, variance="small") - ours(model, steps=20)
    assert float(off.abs().max()) > 1e-2  # the variance of the net is no other one
    model.save_pretrained(tmp_path / "ours")
    again = zoo.load(tmp_path / "ours")
    assert again.recipe == model.recipe and again.verify() == 0
    assert model.recipe.training.objective == "hybrid"  # which goes on with the variance, too


def test_a_net_with_a_variance_is_trained_on(tmp_path):
    from PIL import Image

    written(tmp_path / "theirs", diffusers.DDPMScheduler(variance_type="learned_range"), small_net(out_channels=6))
    model = zoo.load(tmp_path / "theirs")
    (tmp_path / "data").mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 0, 200)).save(tmp_path / "data" / f"{i}.png")
    before = model.denoiser.conv_out.weight.detach().clone()
    data = model.domain.dataset(tmp_path / "data", "train")
    zoo.fit(model, data, steps=2, cpu=True, preview_every=0)
    moved = (model.denoiser.conv_out.weight - before).abs().amax((1, 2, 3))
    assert bool((moved > 0).all())  # those of the variance, too


def test_a_step_that_ends_above_0_has_noise_after_it_in_their_ddpm(tmp_path, same_noise):
    """With fewer trailing steps than T theirs adds noise to the finished sample, as with the large variance."""
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", timestep_spacing="trailing", clip_sample=False)
    net = written(tmp_path, scheduler, small_net(out_channels=6))
    found, expected = ours(zoo.load(tmp_path), steps=10), theirs(net, scheduler, 10, same_noise(3))
    assert int(scheduler.timesteps[-1]) > 0 and float((found - expected).abs().max()) > 1e-4


def test_a_variance_that_is_left_out_is_still_there_for_ddpm(tmp_path, same_noise):
    """Their DPM-Solver++ drops the second half of the output; of what it says the file keeps the meaning."""
    scheduler = diffusers.DPMSolverMultistepScheduler(variance_type="learned_range", beta_schedule="squaredcos_cap_v2")
    net = written(tmp_path, scheduler, small_net(out_channels=6))
    model = zoo.load(tmp_path)
    close(ours(model, steps=10), theirs(net, scheduler, 10, same_noise(3)), 1e-4)
    ranged = diffusers.DDPMScheduler.from_config(scheduler.config, variance_type="learned_range", timestep_spacing="leading")
    expected = theirs(net, ranged, 10, same_noise(3))
    settings = {"sampler": "ddpm", "variance": "learned", "spacing": "leading", "steps": 10}
    close(ours(model, **settings, clip=1.0), expected, 1e-4)


def test_a_learned_variance_needs_a_net_that_says_it(tmp_path):
    written(tmp_path / "a", diffusers.DDPMScheduler(variance_type="learned_range"))
    with pytest.raises(CheckpointError, match=r"out_channels=3 for 3 channels.*variance_type='learned_range'.*give 6"):
        zoo.load(tmp_path / "a")
    written(tmp_path / "b", diffusers.DPMSolverMultistepScheduler(variance_type="learned_range"))
    assert not zoo.load(tmp_path / "b").diffusion.learned_variance
    written(tmp_path / "c", diffusers.DDIMScheduler(), small_net(out_channels=6))
    with pytest.raises(ConfigError, match="says no variance"):
        zoo.load(tmp_path / "c").sample(1, sampler="ddpm", variance="learned", steps=2)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [10, 13, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_ddim(tmp_path, same_noise, spacing, steps, eta):
    """Over the same pairs of levels their step is ours. Their own pairs are those of the grid only where T divides."""
    scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing, clip_sample=False, beta_schedule="squaredcos_cap_v2")
    net = written(tmp_path, scheduler)
    model = zoo.load(tmp_path)
    assert model.recipe.sampling.spacing == spacing
    found = ours(model, steps=steps, eta=eta)
    levels = model.plan(N, steps=steps).levels
    close(found, by_pairs(net, scheduler, levels, same_noise(3), eta=eta), 1e-4)
    expected = theirs(net, scheduler, steps, same_noise(3), eta=eta)
    grid = [int(t) for t in scheduler.timesteps]
    if spacing == "leading" or (spacing == "trailing" and T % steps == 0):
        assert grid == [level.t for level in levels[:-1]]
        close(found, expected, 1e-4)
    else:  # theirs is wrong: it steps by T // steps, whatever the distance of its own grid, or makes a step too many
        jumps = {a - b for a, b in itertools.pairwise(grid)}
        assert jumps != {T // steps} or len(grid) != steps
        assert float((found - expected).abs().max()) > 1e-3


def test_their_grid_of_13_trailing_steps_is_not_walked_by_their_ddim():
    """999, 922, 845, ... are 76 or 77 apart; their step goes 76 down from each, where the next one does not start."""
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(13)
    assert {int(a - b) for a, b in zip(scheduler.timesteps, scheduler.timesteps[1:], strict=False)} == {76, 77}
    assert T // 13 == 76


@pytest.mark.parametrize("again", [True, False])
def test_a_clipped_guess_has_the_noise_that_belongs_to_it(tmp_path, same_noise, again):
    """Theirs keeps the noise of the guess before it was clipped, unless it is told not to: ours derives it again."""
    scheduler = diffusers.DDIMScheduler(clip_sample=True, timestep_spacing="trailing")
    net = written(tmp_path, scheduler, small_net(seed=1))
    model = zoo.load(tmp_path)
    assert model.recipe.sampling.clip == 1.0
    expected = theirs(net, scheduler, 10, same_noise(3), use_clipped_model_output=again)
    off = float((ours(model, steps=10) - expected).abs().max())
    assert off < 1e-4 if again else off > 1e-2
    same_noise(3)
    pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(N, num_inference_steps=10, output_type="np", use_clipped_model_output=True).images
    close((ours(model, steps=10) / 2 + 0.5).clamp(0, 1), torch.from_numpy(images).permute(0, 3, 1, 2), 1e-4)


PROCESSES = {
    "scaled linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "betas": {"trained_betas": [0.0001 + 0.00002 * t for t in range(T)]},
    "zero snr": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    "zero snr, clean": {"rescale_betas_zero_snr": True, "prediction_type": "sample", "timestep_spacing": "trailing"},
    "clean": {"prediction_type": "sample"},
    "velocity": {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"},
    "as Stable Diffusion's": {
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "set_alpha_to_one": False, "steps_offset": 1
    },
    "a bound of its own": {"clip_sample": True, "clip_sample_range": 2.0},
}  # fmt: skip


@pytest.mark.parametrize("options", PROCESSES.values(), ids=PROCESSES)
def test_processes_of_ddim(tmp_path, same_noise, options):
    scheduler = diffusers.DDIMScheduler(**{"clip_sample": False} | options)
    net = written(tmp_path, scheduler)
    expected = theirs(net, scheduler, 10, same_noise(3), use_clipped_model_output=True)
    close(ours(zoo.load(tmp_path), steps=10), expected, 1e-4)


def test_the_sigmoid_betas_of_ddpm(tmp_path):
    scheduler = diffusers.DDPMScheduler(beta_schedule="sigmoid")
    scheduler.save_pretrained(tmp_path)
    options = read_scheduler(tmp_path / "scheduler_config.json").schedule
    found = DiscreteSchedule(**{k: v for k, v in options.items() if k != "kind"}).alpha_bar
    torch.testing.assert_close(found.float(), scheduler.alphas_cumprod, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("steps", [10, 13, 25])
@pytest.mark.parametrize("options", [
    {"timestep_spacing": "linspace"}, {"timestep_spacing": "leading"}, {"timestep_spacing": "trailing"},
    {"timestep_spacing": "leading", "steps_offset": 1, "prediction_type": "v_prediction"},
    {"timestep_spacing": "linspace", "final_sigmas_type": "sigma_min"},
    {"timestep_spacing": "linspace", "prediction_type": "sample", "lower_order_final": False},
], ids=str)  # fmt: skip
def test_dpm_solver(tmp_path, same_noise, options, steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", **options)
    net = written(tmp_path, scheduler)
    model = zoo.load(tmp_path)
    expected = theirs(net, scheduler, steps, same_noise(3))
    grid = [level.t for level in model.plan(N, steps=steps).levels[:-1]]
    assert grid == [int(t) for t in scheduler.timesteps][:steps]
    if len(scheduler.timesteps) == steps:
        close(ours(model, steps=steps), expected, 1e-4)
    else:  # its trailing grid of 13 has a 14th step, at -1
        assert int(scheduler.timesteps[-1]) == -1


@pytest.mark.parametrize("steps", [2, 13, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (10, 50))])
def test_plms_of_stable_diffusion(tmp_path, same_noise, steps):
    """Its scheduler's file; the prediction is called once more than there are steps."""
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    net = written(tmp_path, scheduler)
    model = zoo.load(tmp_path)
    assert (model.recipe.sampling.sampler, model.recipe.sampling.steps, model.recipe.schedule.final) == ("plms", 50, "least")
    close(ours(model, steps=steps), theirs(net, scheduler, steps, same_noise(3)), 1e-4)
    assert model.plan(1, steps=steps).calls == len(scheduler.timesteps) == steps + 1


@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("spacing", "steps"), [("leading", 13), *(pytest.param(s, 10, marks=pytest.mark.slow) for s in ("leading", "trailing"))]
)
def test_euler(tmp_path, same_noise, kind, prediction, spacing, steps):
    """In sigma / alpha it is DDIM, and with noise DDPM; where the first level is the last one of training, theirs starts
    from a little less noise, which is said."""
    scheduler = getattr(diffusers, kind)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing=spacing, steps_offset=1,
        prediction_type=prediction,
    )  # fmt: skip
    net = written(tmp_path, scheduler)
    model = zoo.load(tmp_path)
    assert model.recipe.sampling.sampler == ("ddpm" if "Ancestral" in kind else "ddim")
    assert ("a little less" in model.recipe.description) == (spacing != "leading")
    scheduler.set_timesteps(steps)
    start = float(scheduler.sigmas[0] ** 2 + 1) ** 0.5
    close(ours(model, steps=steps), theirs(net, scheduler, steps, same_noise(3), start), 1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("grid", ["karras", "exponential"])
def test_edm(tmp_path, same_noise, prediction, grid):
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction, sigma_schedule=grid, sigma_max=20.0, sigma_data=0.7)
    net = written(tmp_path, scheduler)
    model = zoo.load(tmp_path)
    # theirs starts from noise of deviation sqrt(sigma_max^2 + 1), as if the data had one of 1: ours from sigma_max
    expected = theirs(net, scheduler, 12, same_noise(3), start=20.0)
    close(ours(model, steps=12), expected, 1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow(tmp_path, same_noise, shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    net = written(tmp_path, scheduler)
    model = zoo.load(tmp_path)
    plan = model.plan(N, steps=7)
    scheduler.set_timesteps(7)
    assert [T * level.t for level in plan.levels[:-1]] == pytest.approx(scheduler.timesteps.tolist(), rel=1e-6)
    noise, x = same_noise(3), None
    with torch.no_grad():
        x = noise((N, 3, 8, 8))
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t).sample, t, x).prev_sample
    close(ours(model, steps=7), x, 1e-4)


def test_other_samplers_run_on_their_nets(tmp_path):
    written(tmp_path, diffusers.DDPMScheduler())
    model = zoo.load(tmp_path)
    for sampler in ("dpmpp", "heun", "euler", "ddim"):
        samples = model.sample(2, sampler=sampler, steps=3, seed=0, spacing="trailing")
        assert samples[0].pixels.shape == (8, 8, 3)


def test_labels_are_drawn_where_nobody_gives_one(tmp_path):
    written(tmp_path, diffusers.DDIMScheduler(), small_net(num_class_embeds=3))
    model = zoo.load(tmp_path)
    assert model.recipe.conditions["label"].classes == ("0", "1", "2")
    drawn = model.sample(4, steps=1, seed=0)
    assert None not in drawn.conditions["label"]
    assert model.sample(2, steps=1, seed=0, label=["2", 0]).conditions["label"] == ["2", "0"]


# ---- files -----------------------------------------------------------------------------------------------------------------


def test_a_saved_model_is_the_same_one(tmp_path):
    written(tmp_path / "theirs", diffusers.DDIMScheduler(), small_net(num_class_embeds=3))
    model = zoo.load(tmp_path / "theirs")
    model.save_pretrained(tmp_path / "ours")
    again = zoo.load(tmp_path / "ours")
    assert again.recipe == model.recipe and again.verify() == 0
    assert torch.equal(ours(model, steps=2, label=1), ours(again, steps=2, label=1))


def test_all_files_in_one_folder_as_in_the_first_versions(tmp_path):
    net = small_net(**NETS["first"])
    net.save_pretrained(tmp_path)
    diffusers.DDPMScheduler(variance_type="fixed_large").save_pretrained(tmp_path)
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": "0.1.1",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    config = json.loads((tmp_path / "config.json").read_text())
    for key in LATER:
        config.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    scheduler = {
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, "beta_schedule": "linear",
        "beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": T, "trained_betas": None,
        "variance_type": "fixed_large",
    }  # fmt: skip
    (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler))
    model = zoo.load(tmp_path)
    assert model.recipe.schedule.curve == "linear" and model.recipe.sampling.options == {"variance": "large"}
    assert model.recipe.diffusion.prediction == "eps"
    x = torch.randn(1, 3, 8, 8, generator=seeds.generator(1))
    with torch.no_grad():
        assert float((net(x, 7).sample - model.denoiser(x, torch.tensor([7.0]), {})).abs().max()) < 1e-5


LATER = [
    "resnet_time_scale_shift", "add_attention", "mid_block_type", "attn_norm_num_groups", "time_embedding_dim",
    "class_embed_type", "num_class_embeds", "num_train_timesteps", "downsample_type", "upsample_type", "dropout",
]  # fmt: skip


def test_the_old_names_of_attention(tmp_path):
    from safetensors.torch import load_file, save_file

    net = written(tmp_path, diffusers.DDIMScheduler())
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(path)
    renamed = {}
    for key, value in tensors.items():
        for new, before in old.items():
            key = key.replace(new, before)
        renamed[key] = value
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path)
    x = torch.randn(1, 3, 8, 8, generator=seeds.generator(1))
    with torch.no_grad():
        assert float((net(x, 7).sample - zoo.load(tmp_path).denoiser(x, torch.tensor([7.0]), {})).abs().max()) < 1e-5
    save_file(renamed | {k: v.clone() for k, v in tensors.items() if "to_q" in k}, path)
    with pytest.raises(CheckpointError, match=r"two tensors are .*attentions\.0\.to_q"):
        zoo.load(tmp_path)


def test_weights_in_parts_and_in_half(tmp_path):
    net = small_net()
    diffusers.DDPMPipeline(net, diffusers.DDIMScheduler()).save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    assert len(list((tmp_path / "parts" / "unet").glob("*-of-*.safetensors"))) > 2
    model = zoo.load(tmp_path / "parts")
    found = model.denoiser.state_dict()
    assert all(torch.equal(found[k], v) for k, v in net.state_dict().items()) and len(found) == len(net.state_dict())
    next((tmp_path / "parts" / "unet").glob("*-00002-of-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"00002-of-\d+\.safetensors of \d+ parts are missing"):
        zoo.load(tmp_path / "parts")
    diffusers.DDPMPipeline(small_net().half(), diffusers.DDIMScheduler()).save_pretrained(tmp_path / "half", variant="fp16")
    assert zoo.load(tmp_path / "half").dtype == torch.float32


def test_a_net_alone_needs_its_noise(tmp_path):
    net = small_net()
    net.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"no scheduler_config\.json: which noise .* is not guessed"):
        zoo.load(tmp_path)
    model = zoo.load(tmp_path, diffusion=Diffusion(DiscreteSchedule("linear"), "eps"))
    assert model.recipe.schedule.curve == "linear" and model.recipe.diffusion.prediction == "eps"
    assert model.sample(1, steps=2, seed=0)[0].pixels.shape == (8, 8, 3)
    diffusers.DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(tmp_path)
    assert zoo.load(tmp_path, format="diffusers").recipe.schedule.curve == "scaled_linear"


SCHEDULER, UNET, INDEX = "scheduler/scheduler_config.json", "unet/config.json", "model_index.json"


@pytest.mark.parametrize(
    ("name", "keys", "match"),
    [
        (SCHEDULER, {"_class_name": "PNDMScheduler"}, r"is that of a PNDMScheduler, and the index .* DDIMScheduler"),
        (SCHEDULER, {"wobble": 3}, r"options of a DDIMScheduler that zoo does not know: wobble=3"),
        (SCHEDULER, {"thresholding": True}, r"thresholding=True of a DDIMScheduler is not supported"),
        (SCHEDULER, {"beta_schedule": "laplace"}, r"unknown beta_schedule .* 'laplace'"),
        (SCHEDULER, {"beta_start": ...}, r"has no key 'beta_start'.*defaults are not guessed"),
        (SCHEDULER, {"clip_sample": ...}, r"has no key 'clip_sample'"),
        (SCHEDULER, {"prediction_type": "flow"}, r"unknown prediction_type .* 'flow'"),
        (SCHEDULER, {"timestep_spacing": "even"}, r"unknown timestep_spacing .* 'even'"),
        (SCHEDULER, {"clip_sample": "yes"}, r"clip_sample='yes'.*true or false"),
        (SCHEDULER, {"_class_name": ["DDIMScheduler"]}, r"is that of a \['DDIMScheduler'\]"),
        (SCHEDULER, {"beta_schedule": ["linear"]}, r"unknown beta_schedule"),
        (SCHEDULER, {"prediction_type": {}}, r"unknown prediction_type"),
        (SCHEDULER, {"num_train_timesteps": "1000"}, r"num_train_timesteps='1000'.*a whole number from 2"),
        (SCHEDULER, {"num_train_timesteps": 10**9}, r"num_train_timesteps=1000000000"),
        (SCHEDULER, {"trained_betas": [0.1, 0.2]}, r"betas: 2 of them; give T=1000"),
        (UNET, {"wobble": 3}, r"options of a UNet2DModel that zoo does not know: wobble=3"),
        (UNET, {"norm_eps": ...}, r"has no key 'norm_eps'"),
        (UNET, {"act_fn": ["silu"]}, r"act_fn=\['silu'\] of a UNet2DModel; it must be a text"),
        (UNET, {"down_block_types": None}, r"down_block_types=None .*a list of texts"),
        (UNET, {"attention_head_dim": -1}, r"attention_head_dim=-1 .*at least 1"),
        (UNET, {"attn_norm_num_groups": 0.5}, r"attn_norm_num_groups=0\.5"),
        (UNET, {"flip_sin_to_cos": "false"}, r"flip_sin_to_cos='false' .*true or false"),
        (UNET, {"freq_shift": float("inf")}, r"freq_shift=inf .*finite"),
        (UNET, {"freq_shift": float("nan")}, r"NaN"),
        (UNET, {"norm_eps": -1}, r"norm_eps=-1 .*above 0"),
        (UNET, {"mid_block_scale_factor": 0}, r"mid_block_scale_factor=0 .*above 0"),
        (UNET, {"sample_size": 10**9}, r"sample_size=1000000000; zoo has square pictures"),
        (UNET, {"sample_size": None}, r"sample_size=None; zoo has square pictures"),
        (UNET, {"sample_size": [8, 16]}, r"sample_size=\[8, 16\]"),
        (UNET, {"in_channels": 4}, r"in_channels=4; pictures have 1 \(grey\) or 3"),
        (UNET, {"class_embed_type": "timestep"}, r"class_embed_type='timestep' is not supported"),
        (
            UNET,
            {"_class_name": "UNet3DConditionModel"},
            r"is that of a UNet3DConditionModel; model_index.json says UNet2DModel",
        ),
        (UNET, {"block_out_channels": [8, 4096]}, "do not belong together|describes a net with"),
        (UNET, {"layers_per_block": 2}, r"does not fit its config.json: missing"),
        (UNET, {"block_out_channels": [8, 17]}, r"divide by the number of groups"),
        (INDEX, {"unet": ["diffusers", "UNet3DConditionModel"]}, "UNet3DConditionModel"),
        (INDEX, {"unet": ["my_unet", "MyUNet"]}, r"its unet is MyUNet of my_unet, which is code of the repository"),
        (INDEX, {"_class_name": ["pipeline", "Mine"]}, r"is code of the repository: zoo runs none"),
        (INDEX, {"unet": ...}, r"no unet"),
        (INDEX, {"scheduler": ["diffusers", "DDPMScheduler"]}, r"is that of a DDIMScheduler, and the index .* DDPMScheduler"),
        (INDEX, {"../unet": ["diffusers", "UNet2DModel"]}, r"'\.\./unet' names no part"),
        (INDEX, {"k" * 5000: ["diffusers", "UNet2DModel"]}, r"k' names no part"),
        (INDEX, {"vqvae": ["diffusers", "VQModel"]}, r"not supported: vqvae"),
    ],
    ids=str,
)
def test_what_is_wrong_or_unknown_is_named(tmp_path, name, keys, match):
    written(tmp_path, diffusers.DDIMScheduler())
    change(tmp_path, name, **keys)
    with pytest.raises((CheckpointError, ConfigError), match=match):
        zoo.load(tmp_path)


@pytest.mark.parametrize(
    ("scheduler", "keys", "match"),
    [
        ("DDPMScheduler", {"variance_type": "learned"}, r"variance_type='learned': .*is the variance itself.*'learned_range'"),
        ("DDPMScheduler", {"variance_type": ["fixed_small"]}, r"unknown variance_type"),
        ("DPMSolverMultistepScheduler", {"num_train_timesteps": None}, r"num_train_timesteps=None"),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": "false"}, r"unknown use_karras_sigmas .* 'false'"),
        ("DDPMScheduler", {"variance_type": "fixed_large_log"}, r"unknown variance_type .*fixed_large"),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, r"solver_order=3"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, r"algorithm_type='sde-dpmsolver\+\+'"),
        ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}, r"use_lu_lambdas=True"),
        ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -5.1}, r"lambda_min_clipped=-5\.1"),
        ("PNDMScheduler", {"skip_prk_steps": False}, r"unknown skip_prk_steps .* False\. Supported: True"),
        ("PNDMScheduler", {"skip_prk_steps": ...}, r"has no key 'skip_prk_steps'"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, r"use_karras_sigmas=True"),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}, r"interpolation_type='log_linear'"),
        ("EDMEulerScheduler", {"final_sigmas_type": "sigma_min"}, r"final_sigmas_type='sigma_min'"),
        ("EDMEulerScheduler", {"sigma_data": ...}, r"has no key 'sigma_data'"),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, r"use_dynamic_shifting=True"),
        ("FlowMatchEulerDiscreteScheduler", {"shift": -1}, r"shift=-1"),
    ],
)
def test_options_of_other_schedulers(tmp_path, scheduler, keys, match):
    written(tmp_path, getattr(diffusers, scheduler)())
    change(tmp_path, SCHEDULER, **keys)
    with pytest.raises(CheckpointError, match=match):
        zoo.load(tmp_path)


def test_options_that_another_scheduler_left_have_no_effect(tmp_path):
    written(tmp_path, diffusers.DPMSolverMultistepScheduler.from_config(diffusers.DDIMScheduler(clip_sample=True).config))
    assert json.loads((tmp_path / SCHEDULER).read_text())["clip_sample"] is True
    assert zoo.load(tmp_path).recipe.sampling.clip is None  # as theirs


def test_a_pickle_is_refused_with_the_way_to_convert(tmp_path):
    written(tmp_path, diffusers.DDIMScheduler())
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(
        CheckpointError, match=r"is a pickle, which can run code.*UNet2DModel\.from_pretrained.*use_safetensors=False"
    ):
        zoo.load(tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(CheckpointError, match="its weights are missing"):
        zoo.load(tmp_path)
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError):
        zoo.load(tmp_path)


def test_code_in_a_folder_is_never_run(tmp_path):
    written(tmp_path, diffusers.DDIMScheduler())
    trap = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
    for name in ("unet.py", "unet/unet.py", "unet/UNet2DModel.py", "pipeline.py", "__init__.py", "unet/__init__.py"):
        (tmp_path / name).write_text(trap)
    zoo.load(tmp_path)
    assert not list(tmp_path.rglob("*.ran"))


def test_a_format_by_name(tmp_path):
    written(tmp_path, diffusers.DDIMScheduler())
    assert zoo.load(str(tmp_path), format="diffusers").recipe.denoiser == "unet2d"
    with pytest.raises(ConfigError, match=r"unknown format 'difusers'.*'diffusers'"):
        zoo.load(tmp_path, format="difusers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"is not a folder of the format 'diffusers': it holds nothing"):
        zoo.load(tmp_path / "empty", format="diffusers")
    with pytest.raises(CheckpointError, match="no such folder"):
        zoo.load(tmp_path / "nowhere", format="diffusers")
    with pytest.raises(ConfigError, match="net=: a folder of the format 'diffusers' has its own"):
        zoo.load(tmp_path, net=torch.nn.Identity())


def test_where_the_package_is_missing_it_is_asked_for(tmp_path, monkeypatch):
    import sys

    written(tmp_path / "a", diffusers.DDIMScheduler(), small_net(downsample_type="resnet"))
    written(tmp_path / "b", diffusers.DDIMScheduler())
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"downsample_type='resnet'.*diffusion-zoo\[interop\]"):
        zoo.load(tmp_path / "a")
    assert zoo.load(tmp_path / "b").recipe.denoiser == "unet2d"  # ours needs nothing


@pytest.mark.parametrize("name", ["LMSDiscreteScheduler", ["DDIMScheduler"]])
def test_an_unknown_scheduler_is_named(tmp_path, name):
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": name}))
    with pytest.raises(CheckpointError, match=r"unknown scheduler of diffusers .*Supported.*DDIMScheduler"):
        read_scheduler(path)

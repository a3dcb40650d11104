"""The table of docs/interop.md: small random nets, written by the peer itself, read by zoo, and both compared.

    python benchmarks/interop.py            # measures, and writes the table into the page

Policies of lerobot are those that it wrote itself, with what it computed, see benchmarks/lerobot_goldens.py.

Both draw the same noise. Errors are the largest of a net's output, and of samples relative to the largest of theirs (or to 1).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import librosa
import numpy as np
import torch
import transformers
from lerobot_goldens import GOLDENS, SEEING, pictures, whole
from pages import fill

import zoo
from zoo import files
from zoo.core import seeds
from zoo.model.plan import Chunk

PAGE = Path(__file__).parents[1] / "docs" / "interop.md"
N, SEED, SIZE = 2, 3, 8
PLAIN = {
    "sample_size": SIZE, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
COSINE = {"beta_schedule": "squaredcos_cap_v2"}

#: (net's options, scheduler, its options, steps, further arguments of both)
ROWS: list[Any] = [
    ({}, "DDPMScheduler", COSINE | {"clip_sample": True}, 20, {}),
    ({}, "DDPMScheduler", COSINE | {"clip_sample": False}, 20, {}),
    ({"out_channels": 6}, "DDPMScheduler", COSINE | {"variance_type": "learned_range"}, 20, {}),
    ({"out_channels": 6}, "DPMSolverMultistepScheduler", COSINE | {"variance_type": "learned_range"}, 20, {}),
    ({}, "DDIMScheduler", COSINE | {"clip_sample": False, "timestep_spacing": "trailing"}, 10, {"eta": 0.0}),
    ({}, "DDIMScheduler", COSINE | {"clip_sample": False, "timestep_spacing": "trailing"}, 50, {"eta": 1.0}),
    ({}, "DDIMScheduler", COSINE | {"clip_sample": False, "timestep_spacing": "leading"}, 13, {"eta": 1.0}),
    ({"resnet_time_scale_shift": "scale_shift"}, "DDIMScheduler",
     {"clip_sample": False, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
     10, {}),
    ({"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6}, "DDIMScheduler",
     {"clip_sample": False, "beta_schedule": "scaled_linear", "set_alpha_to_one": False, "steps_offset": 1}, 10, {}),
    ({}, "DPMSolverMultistepScheduler", COSINE, 25, {}),
    ({}, "DPMSolverMultistepScheduler", COSINE | {"final_sigmas_type": "sigma_min", "timestep_spacing": "leading"}, 10, {}),
    ({}, "PNDMScheduler", COSINE | {"skip_prk_steps": True, "steps_offset": 1}, 50, {}),
    ({}, "EulerDiscreteScheduler", COSINE | {"timestep_spacing": "leading"}, 20, {}),
    ({}, "EulerAncestralDiscreteScheduler", COSINE | {"timestep_spacing": "leading"}, 20, {}),
    ({}, "EDMEulerScheduler", {"sigma_max": 20.0}, 12, {}),
    ({}, "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 12, {}),
    ({"downsample_type": "resnet", "upsample_type": "resnet"}, "DDIMScheduler", COSINE | {"clip_sample": False}, 10, {}),
]  # fmt: skip


@torch.no_grad()
def measure(net_options: dict[str, Any], name: str, options: dict[str, Any], steps: int, further: dict[str, Any]) -> str:
    """A line of the table."""
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(**PLAIN | net_options).eval()
    scheduler = getattr(diffusers, name)(**options)
    with tempfile.TemporaryDirectory() as folder:
        diffusers.DDPMPipeline(net, scheduler).save_pretrained(folder)
        model = zoo.load(folder, format="diffusers")
    x, t = torch.randn(N, 3, SIZE, SIZE, generator=seeds.generator(1)), torch.tensor([3.0, 998.0])
    scale = getattr(model.denoiser, "time_scale", 1.0)
    said, share = model.diffusion.answers(model.denoiser, x, t / scale, {})
    out = said if share is None else torch.cat([said, 2 * share - 1], 1)
    off = float((out - net(x, t).sample).abs().max())
    rng = seeds.SampleRng(SEED, range(N))
    drawing = ("ddpm", "ddim", "euler_ancestral_discrete")
    for module in (getattr(diffusers.schedulers, f"scheduling_{kind}") for kind in drawing):
        module.randn_tensor = lambda shape, **_: rng.normal(torch.zeros(tuple(shape)))  # type: ignore[attr-defined]
    scheduler.set_timesteps(steps)
    start = scheduler.init_noise_sigma if name.startswith("Euler") else options.get("sigma_max", 1.0)
    y = rng.normal(torch.zeros(N, 3, SIZE, SIZE)) * start
    scaled = getattr(scheduler, "scale_model_input", lambda x, _: x)  # the one of flow matching has none
    for now in scheduler.timesteps:
        y = scheduler.step(net(scaled(y, now), now).sample, now, y, **further).prev_sample
    *_, last = model.sample_iter(N, seed=SEED, steps=steps, **further)
    apart = float((last.x - y).abs().max() / y.abs().max().clamp(min=1))
    told = ", ".join(f"{k}={v}" for k, v in (options | further).items())
    own = ", ".join(f"{k}={v}" for k, v in net_options.items() if v is not None) or "the usual"
    read_as = "zoo's own net" if model.recipe.denoiser == "unet2d" else "diffusers' class"
    return f"| UNet2DModel: {own} | {read_as} | {name.removesuffix('Scheduler')}: {told} | {steps} | {off:.1e} | {apart:.1e} |"


LATENT, PICTURE, TOKENS = 8, 16, 12
TEXTS = ["a cat", "dogs"]
DDIM = {"clip_sample": False, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip
#: (kind of pipeline, scheduler, its options, steps, scale of guidance)
LATENTS: list[Any] = [
    ("words", "DDIMScheduler", DDIM, 10, 1.0),
    ("words", "DDIMScheduler", DDIM, 10, 7.5),
    ("words", "DPMSolverMultistepScheduler", {"beta_schedule": "scaled_linear", "steps_offset": 1}, 10, 7.5),
    ("words", "PNDMScheduler",
     {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True, "steps_offset": 1},
     50, 7.5),
    ("labels", "DDIMScheduler", DDIM, 10, 1.0),
    ("labels", "DDIMScheduler", DDIM, 10, 4.0),
]  # fmt: skip


def autoencoder() -> Any:
    """A small one of theirs."""
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4, sample_size=PICTURE,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()  # fmt: skip


def pipeline_of(kind: str, scheduler: Any) -> Any:
    """A small pipeline of theirs on latents, of random weights."""
    torch.manual_seed(0)
    if kind == "labels":
        net = diffusers.DiTTransformer2DModel(
            sample_size=LATENT, num_layers=2, num_attention_heads=2, attention_head_dim=8, out_channels=8
        )
        return diffusers.DiTPipeline(net.eval(), autoencoder(), scheduler)
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{c}</w>" for c in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={t: i for i, t in enumerate(tokens)}, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=TOKENS
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TOKENS, bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1, pad_token_id=0,
    )  # fmt: skip
    net = diffusers.UNet2DConditionModel(
        sample_size=LATENT, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=2,
    )  # fmt: skip
    text = transformers.CLIPTextModel(config).eval()
    return diffusers.StableDiffusionPipeline(
        autoencoder(), text, tokenizer, net.eval(), scheduler, None, None, requires_safety_checker=False
    )


@torch.no_grad()
def measure_latent(kind: str, name: str, options: dict[str, Any], steps: int, scale: float) -> str:
    """A line of the table of pipelines on latents: pictures in [0, 1]."""
    pipeline = pipeline_of(kind, getattr(diffusers, name)(**options))
    pipeline.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        model = zoo.load(folder, format="diffusers")
    noise = seeds.SampleRng(SEED, range(N)).normal(torch.zeros(N, 4, LATENT, LATENT))
    asked: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": scale, "output_type": "pt"}
    if kind == "words":
        expected, told = pipeline(TEXTS, latents=noise, **asked).images, {"text": TEXTS}
    else:
        diffusers.pipelines.dit.pipeline_dit.randn_tensor = lambda *_, **__: noise
        expected, told = pipeline([3, 999], **asked).images, {"label": [3, 999]}
    *_, last = model.sample_iter(N, seed=SEED, steps=steps, guidance_scale=scale, **told)
    apart = float(((model.codec.lower(last.x) / 2 + 0.5).clamp(0, 1) - expected).abs().max())
    said = ", ".join(f"{k}={v}" for k, v in options.items())
    return (
        f"| {type(pipeline).__name__} | {name.removesuffix('Scheduler')}: {said} | {steps} | {scale:g} | "
        f"{float(expected.std()):.2f} | {apart:.1e} |"
    )


MEL = {"x_res": 64, "y_res": 32, "sample_rate": 8000, "n_fft": 512, "hop_length": 128, "top_db": 80, "n_iter": 32}
#: (Mel's options beside these, scheduler, its options, steps, further arguments of both)
MELS: list[Any] = [
    ({}, "DDIMScheduler", {"clip_sample": False}, 50, {"eta": 0.0}),
    ({"x_res": 32, "hop_length": 256}, "DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}, 10,
     {"eta": 1.0}),
    ({"n_fft": 500, "top_db": 60.0}, "DDPMScheduler", {"clip_sample": True}, 20, {}),
    ({"n_iter": 8}, "DDPMScheduler", {"num_train_timesteps": 100, "clip_sample": False}, 100, {}),
]  # fmt: skip


@torch.no_grad()
def measure_mel(mel_options: dict[str, Any], name: str, options: dict[str, Any], steps: int, further: dict[str, Any]) -> str:
    """A line of the table of sounds: x0 of their pipeline's pictures, the bytes of clips, and the clips of pictures."""
    torch.manual_seed(0)
    mel = diffusers.Mel(**MEL | mel_options)
    net = diffusers.UNet2DModel(**PLAIN | {"sample_size": (mel.y_res, mel.x_res), "in_channels": 1, "out_channels": 1}).eval()
    pipeline = diffusers.AudioDiffusionPipeline(None, net, mel, getattr(diffusers, name)(**options))
    pipeline.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        model = zoo.load(folder, format="diffusers")
    x, t = torch.randn(N, 1, mel.y_res, mel.x_res, generator=seeds.generator(1)), torch.tensor([3.0, 98.0])
    off = float((model.diffusion.ask(model.denoiser, x, t, {}) - net(x, t).sample).abs().max())
    rng, states = seeds.SampleRng(SEED, range(N)), []
    for module in (diffusers.schedulers.scheduling_ddpm, diffusers.schedulers.scheduling_ddim):
        module.randn_tensor = lambda shape, **_: rng.normal(torch.zeros(tuple(shape)))
    step = pipeline.scheduler.step
    pipeline.scheduler.step = lambda **given: states.append(step(**given)) or states[-1]  # type: ignore[func-returns-value]
    default = np.random.default_rng
    np.random.default_rng = lambda *_: default(0)  # the phases that their Griffin-Lim starts from
    images = pipeline(noise=rng.normal(torch.zeros_like(x)), steps=steps, **further).images
    *_, last = model.sample_iter(N, seed=SEED, steps=steps, **further)
    y = states[-1].prev_sample
    apart = float((last.x - y).abs().max() / y.abs().max().clamp(min=1))
    codec: Any = model.codec
    clips = [mel.image_to_audio(image) for image in images]
    heard = max(float(np.abs(codec.audio(np.array(i)) - c).max() / np.abs(c).max()) for i, c in zip(images, clips, strict=True))
    np.random.default_rng = default
    clip = (np.random.default_rng(0).standard_normal(mel.x_res * mel.hop_length) / 9).astype(np.float32)
    mel.load_audio(raw_audio=clip)
    others = int((codec.picture(clip[: codec.samples]) != np.array(mel.audio_slice_to_image(0))).sum())
    said = ", ".join(f"{k}={v}" for k, v in (options | further).items())
    own = ", ".join(f"{k}={v}" for k, v in mel_options.items()) or "the usual"
    of = f"{others} of {mel.x_res * mel.y_res}"
    return f"| {own} | {name.removesuffix('Scheduler')}: {said} | {steps} | {off:.1e} | {apart:.1e} | {of} | {heard:.1e} |"


def sounds() -> None:
    """Measure pipelines of mel pictures and write their table into the page."""
    table = f"AudioDiffusionPipeline of diffusers {diffusers.__version__}, with librosa {librosa.__version__}; pictures in "
    table += "[-1, 1] as a share of theirs, clips as a share of their peak.\n\n"
    table += (
        "| Mel | scheduler | steps | net off by | pictures off by | bytes of a clip's picture that differ | clips off by |\n"
    )
    table += "| --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(measure_mel(*row) for row in MELS)
    fill(PAGE, "sounds", table)
    print(table)


#: (options of a UNet1DModel beside these, steps)
RAW = {"sample_size": 1024, "sample_rate": 16000, "in_channels": 2, "out_channels": 2, "extra_in_channels": 32,
       "block_out_channels": (16, 32, 32)}  # fmt: skip
RAWS: list[Any] = [({}, 100), ({}, 10), ({"in_channels": 1, "out_channels": 1}, 100),
                   ({"time_embedding_type": "positional", "extra_in_channels": 16}, 100)]  # fmt: skip


@torch.no_grad()
def measure_raw(net_options: dict[str, Any], steps: int) -> str:
    """A line of the table of raw sound: samples of their pipeline in -1..1, and ours in the ways that it can be asked."""
    torch.manual_seed(0)
    net = diffusers.UNet1DModel(**RAW | net_options).eval()
    pipeline = diffusers.DanceDiffusionPipeline(net, diffusers.IPNDMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        model = zoo.load(folder, format="diffusers")
    channels, size = model.codec.shape
    x, t = torch.randn(N, channels, size, generator=seeds.generator(1)), torch.tensor([0.02, 0.97])
    off = float((model.diffusion.ask(model.denoiser, x, t, {}) - net(x, t).sample).abs().max())
    noise = seeds.SampleRng(SEED, range(N)).normal(torch.zeros_like(x))
    module = sys.modules[type(pipeline).__module__]
    module.randn_tensor = lambda *_, **__: noise  # type: ignore[attr-defined]
    expected = torch.from_numpy(pipeline(N, num_inference_steps=steps).audios)
    apart = []
    for how in ({}, {"end": "sum"}, {"start": "x0"}):
        *_, last = model.sample_iter(N, seed=SEED, steps=steps, **how)
        apart.append(float((last.x.clamp(-1, 1) - expected).abs().max()))
    own = ", ".join(f"{k}={v}" for k, v in net_options.items()) or "the usual, stereo"
    return f"| {own} | {steps} | {off:.1e} | {' | '.join(f'{a:.1e}' for a in apart)} |"


def raw() -> None:
    """Measure pipelines of raw sound and write their table into the page."""
    table = f"DanceDiffusionPipeline of diffusers {diffusers.__version__}: samples in [-1, 1], given the same noise.\n\n"
    table += '| UNet1DModel | steps | net off by | samples off by | with end="sum" | with start="x0" |\n'
    table += "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(measure_raw(*row) for row in RAWS)
    fill(PAGE, "raw", table)
    print(table)


class Stored:
    """Noise that was drawn elsewhere, in its order, in the place of our own."""

    def __init__(self, noise: torch.Tensor) -> None:
        self.noise, self.generators = list(noise), range(noise.shape[1])

    def normal(self, like: torch.Tensor, *_: Any) -> torch.Tensor:
        return self.noise.pop(0).to(like)


@torch.no_grad()
def measure_policy(folder: Path) -> str:
    """A line of the table of lerobot's policies: actions as a share of the deviation of theirs."""
    path = folder.with_suffix(".expected.safetensors")
    stored, version = files.load_tensors(path), files.load_metadata(path)["lerobot"]
    with tempfile.TemporaryDirectory() as temporary:
        sees = folder.parent == SEEING
        model = zoo.load(whole(folder, Path(temporary) / folder.name) if sees else folder, format="lerobot")
    seen = {k: stored[k] for k in model.codec.keys}
    seen |= {k: pictures(k, N, model.codec.n_obs, h, w) for k, h, w in model.codec.cameras}
    told = model.codec.condition("observation", seen)
    out = model.denoiser(stored["net.x"], stored["net.t"].float(), {"observation": told})
    off = float((out - stored["net.out"]).abs().max())
    *_, last = model.run(model.plan(len(told)), Chunk({"observation": told}, Stored(stored["noise"])))  # type: ignore[arg-type]
    found = torch.stack([torch.from_numpy(a.values) for a in model.codec.decode(last.x, {})])
    apart = float((found - stored["actions"]).abs().max() / stored["actions"].std())
    config = json.loads((folder / "config.json").read_text())
    layout = "processors" if (folder / "policy_preprocessor.json").is_file() else "among the weights"
    layout += ", shapes without types" if "input_shapes" in config else ""
    modes = ", ".join(sorted({m.upper() for norms in model.codec.norms.values() for m in norms}))
    eyes = "none"
    if vision := model.recipe.net.get("vision"):
        count = f"{len(model.codec.cameras)} x " if vision["use_separate_rgb_encoder_per_camera"] else ""
        eyes = f"{count}{vision['vision_backbone']}, {'group' if vision['use_group_norm'] else 'batch'} norm"
        eyes += "".join(f", {k}={list(vision[k])}" for k in ("resize_shape", "crop_shape") if vision[k])
        eyes += f"; {len(model.codec.cameras)} camera{'s' * (len(model.codec.cameras) > 1)}"
    said = f"{config['noise_scheduler_type']}: {config['beta_schedule']}, {config['prediction_type']}"
    said += f", clip_sample={config['clip_sample']}"
    return f"| {version} | {layout} | {eyes} | {modes} | {said} | {model.recipe.sampling.steps} | {off:.1e} | {apart:.1e} |"


def policies() -> None:
    """Measure lerobot's policies and write their table into the page."""
    folders = sorted(p for home in (GOLDENS, SEEING) for p in home.iterdir() if p.is_dir())
    written = files.load_metadata(folders[0].with_suffix(".expected.safetensors"))["torch"]
    table = f"lerobot's own files and what it computed, both with torch {written}; float32 on a CPU.\n\n"
    table += "| lerobot | statistics | eyes | scaled by | scheduler | steps | net off by | actions off by |\n"
    table += "| --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(map(measure_policy, folders))
    fill(PAGE, "lerobot", table)
    print(table)


def main() -> None:
    policies()
    sounds()
    raw()
    latents = f"Pipelines on latents, with transformers {transformers.__version__}: pictures in [0, 1].\n\n"
    latents += "| pipeline | scheduler | steps | guidance scale | deviation of theirs | pictures off by |\n"
    latents += "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(measure_latent(*row) for row in LATENTS)
    fill(PAGE, "latents", latents)
    print(latents)
    head = f"Against diffusers {diffusers.__version__}, torch {torch.__version__.split('+')[0]}, float32 on a CPU.\n\n"
    head += "| net | read as | scheduler | steps | net off by | samples off by |\n| --- | --- | --- | --- | --- | --- |\n"
    table = head + "\n".join(measure(*row) for row in ROWS)
    fill(PAGE, "interop", table)
    print(table)


if __name__ == "__main__":
    main()

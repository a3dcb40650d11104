"""The table of docs/interop.md: small random nets, written by the peer itself, read by zoo, and both compared.

    python benchmarks/interop.py            # measures, and writes the table into the page

Both draw the same noise. Errors are the largest of a net's output, and of samples relative to the largest of theirs (or to 1).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import diffusers
import torch
from pages import fill

import zoo
from zoo.core import seeds

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
    off = float((model.diffusion.ask(model.denoiser, x, t / scale, {}) - net(x, t).sample).abs().max())
    rng = seeds.SampleRng(SEED, range(N))
    for module in (diffusers.schedulers.scheduling_ddpm, diffusers.schedulers.scheduling_ddim):
        module.randn_tensor = lambda shape, **_: rng.normal(torch.zeros(tuple(shape)))  # type: ignore[attr-defined]
    scheduler.set_timesteps(steps)
    y = rng.normal(torch.zeros(N, 3, SIZE, SIZE)) * options.get("sigma_max", 1.0)
    scaled = getattr(scheduler, "scale_model_input", lambda x, _: x)  # the one of flow matching has none
    for now in scheduler.timesteps:
        y = scheduler.step(net(scaled(y, now), now).sample, now, y, **further).prev_sample
    *_, last = model.sample_iter(N, seed=SEED, steps=steps, **further)
    apart = float((last.x - y).abs().max() / y.abs().max().clamp(min=1))
    said = ", ".join(f"{k}={v}" for k, v in (options | further).items())
    own = ", ".join(f"{k}={v}" for k, v in net_options.items() if v is not None) or "the usual"
    read_as = "zoo's own net" if model.recipe.denoiser == "unet2d" else "diffusers' class"
    return f"| UNet2DModel: {own} | {read_as} | {name.removesuffix('Scheduler')}: {said} | {steps} | {off:.1e} | {apart:.1e} |"


def main() -> None:
    head = f"Against diffusers {diffusers.__version__}, torch {torch.__version__.split('+')[0]}, float32 on a CPU.\n\n"
    head += "| net | read as | scheduler | steps | net off by | samples off by |\n| --- | --- | --- | --- | --- | --- |\n"
    table = head + "\n".join(measure(*row) for row in ROWS)
    fill(PAGE, "interop", table)
    print(table)


if __name__ == "__main__":
    main()

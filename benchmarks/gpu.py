"""How well training and sampling use a GPU: one table for the recipes of every domain and two nets of 50 million parameters.

    python benchmarks/gpu.py                                  # all of it: about three minutes
    python benchmarks/gpu.py --rows "image/*,50M*" --compile --json gpu.json
    python benchmarks/gpu.py --cpu --tiny                     # does it run at all

Training: samples/s of whole steps (loading, augmentation, forward, backward, optimizer, average of weights) on made-up
data of the recipe's shapes; their share of the bf16 peak, which a product of two large matrices reaches in the same run;
how much of the time the device idles, which is what its kernels (timed by torch's profiler) leave of a step; memory.
Sampling: seconds for four samples at the packaged default, the second of two calls, in float32 and under bf16 autocast.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from same_numbers import asked
from torch.profiler import ProfilerActivity, profile

import zoo
from zoo import files
from zoo.contract.dataset import Items
from zoo.contract.recipe import Recipe
from zoo.contract.registry import CHECKPOINTS, get_recipe, list_models
from zoo.model.loading import build
from zoo.model.model import Model
from zoo.training import COMPILED
from zoo.training.trainer import Trainer

#: row -> (recipe, overrides, batch)
TRAINING: dict[str, tuple[str, dict[str, Any], int]] = {
    "image/fashion-ddpm": ("image/fashion-ddpm", {}, 512),
    "audio/spec-ddpm": ("audio/spec-ddpm", {}, 256),
    "point3d/shapes-ddpm": ("point3d/shapes-ddpm", {}, 64),
    "policy/pusht-keypoints": ("policy/pusht-keypoints", {}, 1024),
    "protein/backbone-ddpm": ("protein/backbone-ddpm", {}, 48),
    "50M transformer 64x64": (
        "image/fashion-dit",
        {"codec": {"size": 64, "channels": 3}, "net": {"patch": 4, "dim": 768, "depth": 7, "heads": 12}},
        512,
    ),
    "50M U-Net 64x64": (
        "image/fashion-ddpm",
        {
            "codec": {"size": 64, "channels": 3},
            "net": {"channels": 192, "multipliers": [1, 2, 2], "blocks": 2, "attention": [False, False, True], "patch": 2},
        },
        256,
    ),
}
#: made-up objects of a data set
OBJECTS = 64


def given(model: Model, n: int) -> dict[str, Any]:
    """Conditions for n samples."""
    return model.recipe.showcase(n) | asked(model, n)


def data(model: Model, n: int) -> Items:
    """Samples of an untrained net: objects of the domain, with conditions."""
    cond = given(model, n)
    made = model.sample(n, steps=2, seed=0, progress=False, **cond)
    rows = [{k: v[i] for k, v in cond.items()} for i in range(n)]
    return Items([(item, row) for item, row in zip(made, rows, strict=True)], conditions=model.recipe.conditions)


def wait(device: torch.device) -> float:
    """The time when the device has done all of its work, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(device: torch.device) -> float:
    """FLOP/s of a product of large matrices in bf16."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    start = wait(device)
    for _ in range(10):
        a @ b
    return 10 * 2 * n**3 / (wait(device) - start)


def busy(trainer: Trainer, coming: Any, steps: int) -> float:
    """Seconds that the device works for one step."""
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(steps):
            trainer.train_step(coming)
        wait(trainer.device)
    return 1e-6 * sum(e.self_device_time_total for e in found.key_averages()) / steps


def training(recipe: Recipe, steps: int, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table of training."""
    torch.manual_seed(0)
    model = build(recipe).train()
    packaged = f"{recipe.domain}/{recipe.name}"
    if (CHECKPOINTS / packaged / files.WEIGHTS).exists():  # units and lengths of real data
        model.codec.load_state_dict(zoo.load(packaged).codec.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, data(model, OBJECTS if not args.tiny else 4), Path(folder), 10**6, 0, cpu=args.cpu)
        batches = trainer.batches()
        flops = trainer.flops(batches[0])
        coming = batches.ahead(trainer.positions(range(0, 10**6)), args.workers)
        if args.compile:
            trainer.compile_net(args.compile)
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(3 if args.tiny else 25):
            trainer.train_step(coming)
        start = wait(trainer.device)
        for _ in range(steps):
            trainer.train_step(coming)
        seconds = (wait(trainer.device) - start) / steps
        row: dict[str, Any] = {
            "Mparam": sum(p.numel() for p in model.denoiser.parameters()) / 1e6,
            "batch": recipe.training.batch_size,
            "step ms": 1e3 * seconds,
            "samples/s": recipe.training.batch_size / seconds,
            "TFLOP/s": flops / seconds / 1e12,
        }
        if trainer.device.type == "cuda":
            row["idle"] = max(0.0, 1 - busy(trainer, coming, 10) / seconds)
            row["GiB"] = torch.cuda.max_memory_allocated() / 2**30
        return row


def packaged(name: str) -> bool:
    """Whether a model's weights come with zoo."""
    return (CHECKPOINTS / name / files.WEIGHTS).exists()


def sampling(name: str, device: torch.device) -> dict[str, float]:
    """Seconds for four samples at the default, in float32 and bf16."""
    model = (zoo.load(name) if packaged(name) else build(get_recipe(name))).to(device=device)
    row = {}
    for precision in ("fp32", "bf16"):
        for _ in range(2):
            start = wait(device)
            model.sample(4, seed=0, progress=False, precision=precision, **given(model, 4))
            row[f"4 samples {precision} s"] = wait(device) - start
    return row


def line(name: str, row: dict[str, Any]) -> None:
    """Print a row."""
    text = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print(f"{name:24} {text}", flush=True)


def main() -> None:
    """Read the command line, print both tables."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rows", default="*", help="patterns of rows, with commas between")
    p.add_argument("--steps", type=int, default=40)
    p.add_argument("--workers", type=int, default=min(8, (os.cpu_count() or 2) // 2))
    p.add_argument(
        "--compile",
        nargs="?",
        const="default",
        default=False,
        choices=COMPILED,
        help="the nets of the first table, as zoo train",
    )
    p.add_argument("--no-sampling", action="store_true")
    p.add_argument("--json", type=Path)
    p.add_argument("--tiny", action="store_true", help="small batches and few steps")
    p.add_argument("--cpu", action="store_true")
    args = p.parse_args()
    device = torch.device("cpu" if args.cpu else "cuda")
    card = "CPU" if args.cpu else torch.cuda.get_device_name()
    best = peak(device)
    print(f"{card}, torch {torch.__version__}: {best / 1e12:.3g} TFLOP/s in bf16", flush=True)
    result: dict[str, Any] = {"device": card, "torch": str(torch.__version__), "peak": best, "training": {}, "sampling": {}}
    wanted = args.rows.split(",")
    for name, (source, overrides, batch) in TRAINING.items():
        if not any(fnmatch.fnmatch(name, w) for w in wanted):
            continue
        recipe = get_recipe(source).override(overrides | {"training.batch_size": 4 if args.tiny else batch})
        row = training(recipe, 3 if args.tiny else args.steps, args)
        row["of peak"] = row["TFLOP/s"] * 1e12 / best
        result["training"][name] = row
        line(name, row)
    # first stages sample nothing, and an untrained latent model has none
    sampled = [n for n in list_models() if get_recipe(n).role == "model" and (packaged(n) or get_recipe(n).stage is None)]
    for name in [] if args.no_sampling else sampled:
        result["sampling"][name] = row = sampling(name, device)
        line(name, row)
    if args.json:
        files.write_atomic(args.json, files.dump_json(result))


if __name__ == "__main__":
    main()

"""Speed of the backbones: parameters, work, and GFLOP/s of the forward pass and of a training step.

    python benchmarks/nets.py                                 # the table below
    python benchmarks/nets.py unet --batch 128 channels=96 blocks=2
    python benchmarks/nets.py transformer --size 28 --patch 4 dim=256 depth=6 heads=8

A training step counts three forward passes (Kaplan et al. 2020, appendix B): one forward, two backward. Each time is
the best of several: other work on the machine only ever adds. bf16 gets a small batch and a small budget where the
machine emulates it, many times slower.
"""

from __future__ import annotations

import argparse
import ast
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from zoo.core.device import native_bf16
from zoo.nets.transformer import Transformer
from zoo.nets.unet import UNet

EMB = 256
#: name -> (kind, size of the picture, options)
TABLE: dict[str, tuple[str, int, dict[str, Any]]] = {
    "unet 64 (1,2) x1": ("unet", 28, {"channels": 64, "blocks": 1, "patch": 2}),
    "unet 64 (1,2) x2": ("unet", 28, {"channels": 64, "blocks": 2, "patch": 2}),
    "unet 96 (1,1) x1": ("unet", 28, {"channels": 96, "multipliers": (1, 1), "blocks": 1, "patch": 2}),
    "unet 1-D 64 x1": ("unet1d", 1024, {"channels": 64, "blocks": 1, "patch": 4}),
    "dit 256 x6": ("transformer", 28, {"patch": 4, "dim": 256, "depth": 6, "heads": 8}),
}


def build(kind: str, size: int, batch: int, options: dict[str, Any]) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The net and inputs of it: one grey picture of size x size, or one signal of length size, a sample."""
    emb = torch.randn(batch, EMB)
    if kind == "transformer":
        options = dict(options)
        tokens = (size // options.pop("patch", 4)) ** 2
        return Transformer(**{"dim": 256} | options, emb_dim=EMB), (torch.randn(batch, tokens, options.get("dim", 256)), emb)
    dims = 1 if kind == "unet1d" else 2
    net = UNet(dims, 1, 1, emb_dim=EMB, **options)
    if dims == 2:
        net.to(memory_format=torch.channels_last)
    return net, (torch.randn(batch, 1, *[size] * dims), emb)


def best(run: Callable[[], object], seconds: float, most: int = 30) -> float:
    """The shortest time of a call, in seconds, after one to warm up; stops when the budget is spent."""
    start, shortest = time.perf_counter(), float("inf")
    for i in range(most + 1):
        begin = time.perf_counter()
        run()
        now = time.perf_counter()
        # the warm-up counts only when it alone has spent the budget
        if i or now - start > seconds:
            shortest = min(shortest, now - begin)
        if now - start > seconds:
            break
    return shortest


def measure(kind: str, size: int, batch: int, options: dict[str, Any], precision: str, seconds: float) -> dict[str, float]:
    """Parameters, MFLOP a sample, and times of one net in one precision."""
    torch.manual_seed(0)
    net, data = build(kind, size, batch, options)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(*data)
    flops = counter.get_total_flops()

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()

    def forward() -> None:
        with torch.no_grad(), autocast():
            net(*data)

    def step() -> None:
        net.zero_grad()
        with autocast():
            loss = net(*data).float().square().mean()
        loss.backward()

    ahead, training = best(forward, seconds / 3), best(step, seconds * 2 / 3)
    return {
        "Mparam": sum(p.numel() for p in net.parameters()) / 1e6,
        "MFLOP/sample": flops / batch / 1e6,
        "fwd ms": 1e3 * ahead,
        "fwd GFLOP/s": flops / ahead / 1e9,
        "step ms": 1e3 * training,
        "step GFLOP/s": 3 * flops / training / 1e9,
        "samples/s": batch / training,
    }


def main() -> None:
    """Read the command line, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=("unet", "unet1d", "transformer"), help="one net instead of the table")
    parser.add_argument("options", nargs="*", metavar="name=value", help="options of the net, as Python literals")
    parser.add_argument("--size", type=int, help="side of the picture, or length of the signal")
    parser.add_argument("--patch", type=int, help="the same as patch=")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=6.0, help="budget of a row")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    args = parser.parse_intermixed_args()
    torch.set_num_threads(args.threads)
    table = TABLE
    if args.kind:
        options = {k: ast.literal_eval(v) for k, v in (o.split("=", 1) for o in args.options)}
        if args.patch:
            options["patch"] = args.patch
        table = {args.kind: (args.kind, args.size or (1024 if args.kind == "unet1d" else 28), options)}
    heads = ["Mparam", "MFLOP/sample", "fwd ms", "fwd GFLOP/s", "step ms", "step GFLOP/s", "samples/s"]
    print(f"{'net':22} {'precision':9} {'batch':>5} " + " ".join(f"{h:>12}" for h in heads), flush=True)
    for name, (kind, size, options) in table.items():
        for precision in args.precision:
            emulated = precision == "bf16" and not native_bf16()
            batch, seconds = (min(args.batch, 4), 1.0) if emulated else (args.batch, args.seconds)
            row = measure(kind, size, batch, options, precision, seconds)
            print(f"{name:22} {precision:9} {batch:5} " + " ".join(f"{row[h]:12.2f}" for h in heads), flush=True)


if __name__ == "__main__":
    main()

"""Speed of our U-Net beside diffusers' `UNet2DModel` and lucidrains' `Unet`, and beside a plain convolution.

    python benchmarks/peers.py --json peers.json          # about four minutes on one core
    python benchmarks/peers.py --quick                    # does it run at all
    python benchmarks/peers.py --precision fp32 --threads 2

All nets have 3.6 to 4.0 M parameters and see the same batch of grey pictures of 28 x 28 with a time each. "zoo" is the
net of the packaged recipe image/fashion-ddpm, which folds 2 x 2 pixels into channels at its entry; "zoo, patch 1" is one of
about as many parameters on single pixels, as its peers are, which tells how much of the speed comes from the fold. Peers
are used as their authors build them, in torch's usual memory format and again with channels last, and the faster of
the two counts: it is in the table.

They take turns in one process, and each time is the best of all turns, since other work on the machine only ever adds.
"forward" is one pass without gradients, "step" a forward pass, a mean square and a backward pass, without an optimizer,
which is the same work for all. GFLOP/s count each net's own work, forward and backward, by torch's FlopCounterMode: nets of as
many parameters do not work equally much for a picture, so that pictures/s say which net is cheaper and GFLOP/s which
code uses the machine better. The ratios are of our GFLOP/s to a peer's. "of peak" is the share of what plain convolutions
(3 x 3, channels last, forward, the fastest of a few widths) reach in the same run.

bf16 is autocast. Where the machine emulates it the times say nothing, and are taken with a batch of 2 only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import platform
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo import files
from zoo.core.device import native_bf16

SIZE = 28
TASKS = ("forward", "step")
#: (channels, side of the picture) of the plain convolutions
PLAIN = ((96, 14), (128, 14), (128, 28), (256, 14))
#: what lucidrains' package imports for its trainer and its evaluation: its net needs none of them
NEEDLESS = ("torchvision", "ema_pytorch", "pytorch_fid", "pytorch_fid.inception", "pytorch_fid.fid_score")
#: (task, precision) -> how many times the GFLOP/s of diffusers we want to reach
BARS = {("step", "bf16"): 2.5, ("step", "fp32"): 1.7, ("forward", "bf16"): 2.2}
#: and which share of the plain convolution in bf16 steps
PEAK_BAR = 0.7


class StandIn(types.ModuleType):
    """A module that has every name, of which nothing is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


@contextmanager
def without_needless() -> Iterator[None]:
    """What is only imported by the peer, never used here, need not be installed."""
    absent = {}
    for name in NEEDLESS:
        try:
            __import__(name)
        except ImportError:
            absent[name] = sys.modules[name] = StandIn(name)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


Run = Callable[[Tensor, Tensor], Tensor]


def ours(**options: Any) -> tuple[nn.Module, Run]:
    """The denoiser of image/fashion-ddpm, or one with other options, without conditions."""
    model = zoo.create("image/fashion-ddpm", **{f"net.{k}": v for k, v in options.items()})
    net = model.denoiser.train()
    return net, lambda x, t: net(x, t, {})


def of_diffusers() -> tuple[nn.Module, Run]:
    """diffusers' U-Net: two levels with two blocks, attention in the lower one, as ours."""
    from diffusers import UNet2DModel

    net = UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        block_out_channels=(64, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return net, lambda x, t: net(x, t).sample


def of_lucidrains() -> tuple[nn.Module, Run]:
    """lucidrains' U-Net with its own defaults, in the width that has as many parameters."""
    with without_needless():
        from denoising_diffusion_pytorch import Unet

    net = Unet(40, dim_mults=(1, 2, 4), channels=1)
    return net, net


NETS: dict[str, Callable[[], tuple[nn.Module, Run]]] = {
    "zoo": ours,
    "zoo, patch 1": lambda: ours(channels=64, multipliers=[1, 2], blocks=2, patch=1, emb_dim=128),
    "diffusers": of_diffusers,
    "lucidrains": of_lucidrains,
}


@dataclass
class Contender:
    """A net of the race, or one of its two memory formats."""

    name: str
    net: nn.Module
    run: Run
    channels_last: bool = False
    best: dict[str, float] = field(default_factory=dict)

    def inputs(self, batch: int) -> tuple[Tensor, Tensor]:
        """Pictures (batch, 1, SIZE, SIZE) and times (batch,)."""
        x = torch.randn(batch, 1, SIZE, SIZE)
        # one channel: both formats are the same to torch unless the strides say which
        x = x.to(memory_format=torch.channels_last) if self.channels_last else x
        return x, torch.randint(0, 1000, (batch,)).float()

    def forward(self, batch: int) -> None:
        """One pass without gradients."""
        with torch.no_grad():
            self.run(*self.inputs(batch))

    def step(self, batch: int) -> None:
        """Forward, a mean square, backward."""
        self.net.zero_grad(set_to_none=True)
        self.run(*self.inputs(batch)).float().square().mean().backward()

    def flops(self, task: str, batch: int) -> int:
        """Floating point operations of a task, counted."""
        with FlopCounterMode(display=False) as counter:
            getattr(self, task)(batch)
        return int(counter.get_total_flops())


def contenders(names: list[str]) -> list[Contender]:
    """All nets: those of others in both memory formats."""
    found = []
    for name in names:
        torch.manual_seed(0)
        net, run = NETS[name]()
        found.append(Contender(name, net, run))
        if not name.startswith("zoo"):
            torch.manual_seed(0)
            net, run = NETS[name]()
            found.append(Contender(name, net.to(memory_format=torch.channels_last), run, channels_last=True))
    return found


def autocast(precision: str) -> Any:
    """The precision of everything inside the block."""
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def plain(batch: int, precision: str) -> list[tuple[Callable[[], object], int]]:
    """Plain convolutions as calls, with the operations of one."""
    found: list[tuple[Callable[[], object], int]] = []
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for channels, side in PLAIN:
        conv = nn.Conv2d(channels, channels, 3, padding=1).to(dtype=dtype, memory_format=torch.channels_last)
        x = torch.randn(batch, channels, side, side, dtype=dtype).to(memory_format=torch.channels_last)

        def call(conv: nn.Conv2d = conv, x: Tensor = x) -> None:
            with torch.no_grad():
                conv(x)

        found.append((call, 2 * batch * channels * channels * 9 * side * side))
    return found


def race(names: list[str], precision: str, batch: int, turns: int, budget: float) -> dict[str, Any]:
    """Everyone in turn; the best time of each.

    Args:
        turns: at most so many of each, after one that is not timed.
        budget: no turn begins after so many seconds.
    """
    nets, convolutions = contenders(names), plain(batch, precision)
    fastest = [math.inf] * len(convolutions)
    begin = time.perf_counter()
    done = 0
    for turn in range(turns + 1):
        if turn > 1 and time.perf_counter() - begin > budget:
            break
        for i, (call, _) in enumerate(convolutions):
            took = seconds(call)
            fastest[i] = min(fastest[i], took if turn else math.inf)
        for net in nets:
            for task in TASKS:
                with autocast(precision):
                    took = seconds(lambda net=net, task=task: getattr(net, task)(batch))  # type: ignore[misc]
                net.best[task] = min(net.best.get(task, math.inf), took if turn else math.inf)
        done = turn
    peak = max(flops / took for (_, flops), took in zip(convolutions, fastest, strict=True))
    rows = []
    for name in names:
        for task in TASKS:
            best = min((n for n in nets if n.name == name), key=lambda n: n.best[task])
            work = best.flops(task, 2) / 2 * batch
            took = best.best[task]
            rows.append(
                {
                    "net": name,
                    "task": task,
                    "Mparam": sum(p.numel() for p in best.net.parameters()) / 1e6,
                    "MFLOP/picture": work / batch / 1e6,
                    "ms": 1e3 * took,
                    "pictures/s": batch / took,
                    "GFLOP/s": work / took / 1e9,
                    "of peak": work / took / peak,
                    "channels last": name.startswith("zoo") or best.channels_last,
                }
            )
    return {"precision": precision, "batch": batch, "turns": done, "peak GFLOP/s": peak / 1e9, "rows": rows}


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """ "step of diffusers": how many times its GFLOP/s, and its pictures/s, the net of the packaged recipe reaches."""
    at = {(r["net"], r["task"]): r for r in found["rows"]}
    result = {}
    for (net, task), row in at.items():
        if not net.startswith("zoo"):
            for unit in ("GFLOP/s", "pictures/s"):
                result[f"{task}, {unit}, {net}"] = at["zoo", task][unit] / row[unit]
    return result


def machine() -> dict[str, Any]:
    """What the numbers were made on."""
    packages = ("torch", "diffusers", "denoising-diffusion-pytorch")
    return {
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "native bf16": native_bf16("cpu"),
        "threads": torch.get_num_threads(),
        "versions": {p: importlib.metadata.version(p) for p in packages},
    }


def table(found: dict[str, Any]) -> None:
    """Print one precision."""
    print(
        f"{found['precision']}, batch {found['batch']}, best of {found['turns']} turns; "
        f"a plain convolution: {found['peak GFLOP/s']:.0f} GFLOP/s"
    )
    heads = ("Mparam", "MFLOP/picture", "ms", "pictures/s", "GFLOP/s", "of peak")
    print(f"  {'net':14} {'task':8}" + "".join(f"{h:>15}" for h in heads))
    for row in found["rows"]:
        print(f"  {row['net']:14} {row['task']:8}" + "".join(f"{row[h]:15.2f}" for h in heads))
    for name, ratio in found["ratios"].items():
        task, unit, net = name.split(", ")
        bar = BARS.get((task, found["precision"])) if (unit, net) == ("GFLOP/s", "diffusers") else None
        print(f"  {task:8} {unit:10} zoo / {net:12} {ratio:6.2f}" + (f"   (bar {bar})" if bar else ""))
    if found["emulated"]:
        print("  this machine emulates bf16: these times say nothing.")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Read the command line, print the tables; returns what --json writes."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), help="default: both; of --quick fp32 alone")
    p.add_argument("--nets", nargs="+", choices=tuple(NETS), default=list(NETS))
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--turns", type=int, default=20)
    p.add_argument("--seconds", type=float, default=120.0, help="of a precision: no turn begins after them")
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--json", type=Path)
    p.add_argument("--quick", action="store_true", help="a batch of 2 and 2 turns")
    args = p.parse_args(argv)
    if "zoo" not in args.nets:
        p.error("--nets: the ratios are those of zoo; name it, too.")
    torch.set_num_threads(args.threads)
    batch, turns = (2, 2) if args.quick else (args.batch, args.turns)
    result: dict[str, Any] = machine() | {"size": SIZE, "bars": {f"{t}, {q}": b for (t, q), b in BARS.items()}, "found": []}
    print(" ".join(f"{k} {v};" for k, v in result.items() if k not in ("found", "bars", "size")), flush=True)
    for precision in args.precision or (["fp32"] if args.quick else ["fp32", "bf16"]):
        emulated = precision == "bf16" and not native_bf16("cpu")
        found = race(args.nets, precision, min(batch, 2) if emulated else batch, 1 if emulated else turns, args.seconds)
        found |= {"ratios": ratios(found), "emulated": emulated}
        result["found"].append(found)
        table(found)
    if args.json:
        files.write_atomic(args.json, files.dump_json(result))
    return result


if __name__ == "__main__":
    main()

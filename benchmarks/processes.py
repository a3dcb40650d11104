"""Do two processes train twice as fast as one? And what do many processes tell each other in a step?

    python benchmarks/processes.py --json processes.json       # one process, then two, in turns: about three minutes
    python benchmarks/processes.py --volume                    # the table of docs/scale.md
    python benchmarks/processes.py --quick                     # does it run at all

Each process has --threads threads (1), and its own batch, so that two of them do twice the work of one: samples/s of two
over samples/s of one is 2 at best (bar: 1.8). Both are the best of several turns, since other work on the machine only ever
adds; the machine needs as many free cores as threads in all. Processes are started by torchrun, on the CPU (gloo).

The volume is what each process sends in a step: a ring's all-reduce sends 2 (n - 1) / n times the gradients (Patarasuk &
Yuan 2009), in float32; Muon lets each process make a share of the matrices orthogonal and sends their updates in the same
way, in bf16 where the machine multiplies it, else in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu import data

import zoo
from zoo import files
from zoo.contract.registry import get_recipe, list_models
from zoo.model.loading import build
from zoo.training.muon import hidden_matrices
from zoo.training.trainer import Trainer, leave_group

BAR = 1.8


def measured(args: argparse.Namespace) -> None:
    """What one process of a group does: some steps; the first of them tells how long one took."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    recipe = get_recipe(args.name).override({"training.batch_size": args.batch, "training.precision": args.precision})
    model = build(recipe).train()
    made = data(model, 16)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, made, Path(folder), 10**6, 0, cpu=True)
        coming = trainer.batches().ahead(trainer.positions(range(0, 10**6)), 0)
        trainer.train_step(coming)
        best = float("inf")
        for _ in range(args.steps):
            start = time.perf_counter()
            trainer.train_step(coming)
            best = min(best, time.perf_counter() - start)
        if trainer.main:
            facts = {"seconds": best, "samples/s": args.batch * trainer.accelerator.num_processes / best}
            files.write_atomic(args.out, files.dump_json(facts))
    leave_group()


def started(args: argparse.Namespace, processes: int, out: Path) -> dict[str, float]:
    """`measured` in so many processes."""
    own = [__file__, args.name, "--child", "--out", str(out)]
    for key in ("threads", "batch", "steps", "precision"):
        own += [f"--{key}", str(getattr(args, key))]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {"OMP_NUM_THREADS": str(args.threads), "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([sys.executable, *launch, *own], check=True, env=os.environ | environment, timeout=600)
    found: dict[str, float] = json.loads(out.read_text())
    return found


def volume(name: str, processes: int) -> dict[str, float]:
    """Parameters in millions, and MB that each of so many processes sends in a step."""
    net = zoo.create(name).denoiser
    total = sum(p.numel() for p in net.parameters() if p.requires_grad)
    matrices = sum(p.numel() for p in hidden_matrices(net)) if get_recipe(name).training.optimizer == "muon" else 0
    share = 2 * (processes - 1) / processes
    return {
        "Mparam": total / 1e6,
        "gradients MB": share * 4 * total / 1e6,
        "Muon bf16 MB": share * 2 * matrices / 1e6,
        "Muon fp32 MB": share * 4 * matrices / 1e6,
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Read the command line, print what was measured; returns what --json writes."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("name", nargs="?", default="image/fashion-ddpm", help="a recipe of the registry")
    p.add_argument("--threads", type=int, default=1, help="of each process")
    p.add_argument("--batch", type=int, default=64, help="of each process")
    p.add_argument("--steps", type=int, default=15, help="of a turn, of which the fastest counts")
    p.add_argument("--turns", type=int, default=3)
    p.add_argument("--processes", type=int, default=2)
    p.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    p.add_argument("--volume", action="store_true", help="only the table of what is sent")
    p.add_argument("--quick", action="store_true", help="one turn of two steps with a batch of 2")
    p.add_argument("--json", type=Path)
    p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    if args.child:
        measured(args)
        return {}
    if args.volume:
        table = {}
        for name in list_models():
            try:
                table[name] = row = volume(name, 8)
            except zoo.ZooError as error:
                print(f"{name:26} {error}")  # a latent model whose first stage is not there
                continue
            print(f"{name:26}" + "".join(f"  {k} {v:6.1f}" for k, v in row.items()))
        return table
    if args.quick:
        args.batch, args.steps, args.turns = 2, 2, 1
    best = dict.fromkeys((1, args.processes), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.turns):
            for n in best:
                best[n] = max(best[n], started(args, n, Path(folder) / "found.json")["samples/s"])
    ratio = best[args.processes] / best[1]
    result = {
        "recipe": args.name,
        "torch": str(torch.__version__),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "batch": args.batch,
        "samples/s": {str(k): v for k, v in best.items()},
        "ratio": ratio,
    }
    print(" ".join(f"{k} {v};" for k, v in result.items()))
    print(
        f"{args.processes} processes train {ratio:.2f} times as fast as one" + (f" (bar {BAR})" if args.processes == 2 else "")
    )
    if args.json:
        files.write_atomic(args.json, files.dump_json(result))
    return result


if __name__ == "__main__":
    main()

"""Train a packaged recipe in a given number of minutes, on a GPU where there is one.

    python benchmarks/train_packaged.py image/fashion-ddpm --data fashion_mnist.npz --minutes 6 --out runs/fashion
    python benchmarks/train_packaged.py policy/pusht-keypoints --data pusht_demos.npz --minutes 6 --out runs/pusht \\
        --set training.batch_size=1024 --workers 4

A first short run measures the speed, from which the number of steps follows, so that the learning rate falls to 0 when
the minutes are over. All that is written is a model folder with the averaged weights in half precision, its log.csv and
training.json, which says how it was made: `benchmarks/package.py OUT NAME` measures it on test data and packages it.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import zoo
from zoo import files
from zoo.model.model import Model
from zoo.values import pairs

#: steps of the run that measures speed: the first ones wait for memory, for the choice of kernels and for compiling
PROBE = 90
#: share of the measured speed that is counted on: what else runs on the machine may take the rest
SURE = 0.95
HISTORY, LOG = "training.json", "log.csv"


def train(args: argparse.Namespace, out: Path, steps: int, **loop: Any) -> Model:
    """One run in `out`."""
    return zoo.train(
        args.name,
        data=args.data,
        steps=steps,
        out=out,
        seed=args.seed,
        init=args.init,
        cpu=args.cpu,
        overrides=pairs(args.set),
        workers=args.workers,
        compile=args.compile,
        **loop,
    )


def rows(folder: Path) -> list[dict[str, str]]:
    """The lines of a run's log."""
    with (folder / LOG).open(newline="") as file:
        return list(csv.DictReader(file))


def plan(args: argparse.Namespace, folder: Path) -> int:
    """How many steps fit into what is left of the minutes after a first run that measures them."""
    start = time.monotonic()
    probe = args.probe
    model = train(args, folder, probe, log_every=max(probe // 3, 1), save_every=0, preview_every=0)
    training = model.recipe.training
    rate = float(rows(folder)[-1]["samples_per_s"]) / (training.batch_size * training.accumulate)
    left = 60 * args.minutes - (time.monotonic() - start)
    steps = int(SURE * rate * left)
    print(f"{args.name}: {rate:.2f} steps/s, {left:.0f} s left: {steps} steps", flush=True)
    if steps < 1:
        raise SystemExit(f"--minutes {args.minutes:g}: measuring the speed took all of them; give more.")
    return steps


def main() -> None:
    """Read the command line, measure, train, write the folder."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("name", help="a recipe of the registry")
    p.add_argument("--data", required=True)
    p.add_argument("--minutes", type=float, default=8.0, help="for all of it, the measuring of speed included")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--init", help="start from the weights of this model")
    p.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override the recipe")
    p.add_argument("--workers", type=int, default=0, help="processes that read and prepare the data ahead")
    p.add_argument("--compile", action="store_true", help="run the net through torch.compile")
    p.add_argument("--probe", type=int, default=PROBE, help="steps of the run that measures speed")
    p.add_argument("--preview-every", type=int, default=0)
    p.add_argument("--cpu", action="store_true", help="stay on the CPU")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="zoo-train-") as name:
        folder = Path(name)
        steps = plan(args, folder / "probe")
        # the end of the time ends it too, whatever the speed was
        model = train(args, folder / "run", steps, max_minutes=args.minutes, save_every=0, preview_every=args.preview_every)
        shutil.copy(folder / "run" / LOG, args.out / LOG)
        last = rows(folder / "run")[-1]
        device = torch.cuda.get_device_name() if model.device.type == "cuda" else "CPU"
        model.cpu().save_pretrained(args.out, half=True)
        training = model.recipe.training
        facts = {
            "steps": int(last["step"]),
            "planned": steps,
            "samples": training.batch_size * training.accumulate,
            "seconds": 60 * float(last["minutes"]),
            "device": device,
            "torch": str(torch.__version__),
            "init": args.init or "",
        }
        files.write_atomic(args.out / HISTORY, files.dump_json(facts))
        print(f"{args.name}: {facts}", flush=True)


if __name__ == "__main__":
    main()

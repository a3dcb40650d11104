"""Train a packaged recipe in a given number of minutes, on a GPU where there is one.

    python benchmarks/train_packaged.py image/fashion-ddpm --data fashion_mnist.npz --minutes 6 --out runs/fashion
    python benchmarks/train_packaged.py policy/pusht-keypoints --data pusht_demos.npz --minutes 6 --out runs/pusht \\
        --set training.batch_size=1024 --workers 4

The trainer plans the steps by the minutes, so that the learning rate falls to 0 when they are over. All that is written is
a model folder with the averaged weights in half precision (or in eight bits), its log.csv and training.json, which says how
it was made: `benchmarks/package.py OUT NAME` measures it on test data and packages it.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from pathlib import Path

import torch

import zoo
from zoo import files
from zoo.contract.registry import get_recipe, list_models
from zoo.training import COMPILED
from zoo.values import pairs

HISTORY, LOG = "training.json", "log.csv"
#: share of the minutes in which the run itself has to end: the rest is for its start and for the files
SURE = 0.97


def last_row(log: Path) -> dict[str, str]:
    """The last line of a run's log."""
    with log.open(newline="") as file:
        return list(csv.DictReader(file))[-1]


def main(argv: list[str] | None = None) -> None:
    """Read the command line, train, write the folder."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("name", help="a recipe of the registry, or a model folder")
    p.add_argument("--data", required=True)
    p.add_argument("--minutes", type=float, default=8.0, help="for all of it")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--init", help="start from the weights of this model")
    p.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override the recipe")
    p.add_argument("--workers", type=int, help="processes that prepare the data ahead (default: as many as needed)")
    p.add_argument("--compile", nargs="?", const="default", default=False, choices=COMPILED, help="see zoo train")
    p.add_argument("--bits", type=int, default=16, choices=(8, 16), help="of a stored weight")
    p.add_argument("--preview-every", type=int, default=0)
    p.add_argument("--cpu", action="store_true", help="stay on the CPU")
    args = p.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="zoo-train-") as name:
        run = Path(name) / "run"
        model = zoo.train(
            # the recipe, not its name: a short run of a name may have a smaller batch and net than the package's
            get_recipe(args.name) if args.name in list_models() else args.name,
            data=args.data,
            minutes=SURE * args.minutes,
            out=run,
            seed=args.seed,
            init=args.init,
            cpu=args.cpu,
            overrides=pairs(args.set),
            workers=args.workers,
            compile=args.compile,
            save_every=0,
            preview_every=args.preview_every,
        )
        shutil.copy(run / LOG, args.out / LOG)
        for picture in (run / "previews").glob("*.png"):
            shutil.copy(picture, args.out / picture.name)
        last = last_row(run / LOG)
        device = torch.cuda.get_device_name() if model.device.type == "cuda" else "CPU"
        model.cpu().save_pretrained(args.out, bits=args.bits)
        training = model.recipe.training
        facts = {
            "steps": int(last["step"]),
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

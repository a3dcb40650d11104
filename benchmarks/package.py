"""Make a finished run the packaged model of its recipe: weights, evaluation on test data, pictures, card.

    python benchmarks/package.py RUN image/fashion-ddpm --n 5000 --data fashion_mnist.npz

The sampling defaults come from the recipe of today, everything else from the run, with curves.json (see curves.py) where
it has one. The evaluation is of the rounded weights that are shipped. Nothing in the card is typed: it is made from the
evaluation's JSON and the run's log.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import torch

from zoo import store
from zoo.card import model_card
from zoo.model import Model
from zoo.registry import CHECKPOINTS, get_domain, get_recipe
from zoo.training import native_bf16

LIMIT = 10_000_000  # bytes of model.safetensors


def last_row(path: Path) -> dict[str, str]:
    """The last row of a training log."""
    with path.open(newline="") as f:
        return list(csv.DictReader(f))[-1]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("run", type=Path)
    p.add_argument("name")
    p.add_argument("--n", type=int, default=5000)
    p.add_argument("--data", required=True)
    p.add_argument("--fp32", action="store_true", help="never bf16, which the evaluation uses where the machine has it")
    args = p.parse_args()

    run = Model.from_folder(args.run)
    recipe = run.recipe.model_copy(update={"sampling": get_recipe(args.name).sampling})
    model = Model(recipe, get_domain(recipe.domain))
    model.load_state_dict(run.state_dict())
    folder = CHECKPOINTS / args.name
    model.save_pretrained(folder, half=True)
    size = (folder / store.WEIGHTS).stat().st_size
    if size > LIMIT:
        raise SystemExit(f"{folder / store.WEIGHTS} has {size} bytes, the limit is {LIMIT}")

    model = Model.from_folder(folder)
    bf16 = native_bf16() and not args.fp32
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        result = model.domain.metrics(model, args.n, data=args.data, split="test")
    log = last_row(args.run / "log.csv")
    result["protocol"] |= {
        "precision": "bf16" if bf16 else "fp32",
        "training": f"{log['step']} steps of {recipe.training.batch_size} samples in {float(log['minutes']):.0f} minutes "
        "on the hardware above",
        "command": f"python benchmarks/package.py RUN {args.name} --n {args.n} --data fashion_mnist.npz",
    }
    store.write_atomic(folder / "evaluation.json", store.dump_json(result))
    labels = {k: [i % len(c.values) for i in range(40)] for k, c in recipe.conditions.items()}
    model.sample(40, seed=0, **labels).plot(folder / "samples.png")
    curves = json.loads((args.run / "curves.json").read_text()) if (args.run / "curves.json").exists() else None
    if curves:
        store.write_atomic(folder / "curves.json", store.dump_json(curves))
    store.write_atomic(folder / store.CARD, model_card(recipe, result, "samples.png", curves).encode())
    print(f"{folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

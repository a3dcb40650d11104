"""Recipes after equal minutes on this machine: validation loss and quality of samples.

    python benchmarks/compare.py --minutes 5 --data fashion_mnist.npz image/fashion-ddpm image/fashion-dit
    python benchmarks/compare.py --minutes 2 --n 0 --data ... image/fashion-ddpm image/fashion-ddpm:training.optimizer=adamw

A first short run measures the speed, from which the number of steps follows, so that each run's learning rate falls to 0
when its minutes are over. Nothing else should run meanwhile. The table also goes to --json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import zoo
from zoo import files
from zoo.contract.dataset import Dataset
from zoo.core import seeds
from zoo.evaluation.evaluate import evaluate
from zoo.model.model import Model
from zoo.training.objective import Denoise

PROBE = 30  # steps of the run that measures speed
SHOWN = ("accuracy", "r1_pairs", "r1_captions", "style", "frechet", "precision", "recall")


@torch.no_grad()
def validation_loss(model: Model, dataset: Dataset, n: int = 2000) -> float:
    """The loss on held-out samples, the same noise for every model."""
    parts = torch.randperm(len(dataset), generator=seeds.generator(1))[:n].split(200)
    losses = []
    for i, rows in enumerate(parts):
        batch = model.batch([dataset[row] for row in rows.tolist()]).to(model.device)
        noise = seeds.generator(1, i)
        losses.append(float(Denoise(dropout=False).loss(model, batch, noise)))
    return sum(losses) / len(losses)


def train(name: str, overrides: dict[str, str], steps: int, data: str) -> tuple[Model, float]:
    """(model, minutes) of one run in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        model = zoo.train(name, data=data, steps=steps, out=out, overrides=overrides, preview_every=0, save_every=10**9)
        return model, (time.perf_counter() - start) / 60


def main() -> None:
    """Read the command line, print a table row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="NAME or NAME:path=value,path=value")
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--n", type=int, default=1000, help="samples for the metrics, 0 for the loss alone")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    evaluator = None
    rows: list[dict[str, Any]] = []
    for run in args.runs:
        name, _, texts = run.partition(":")
        # semicolons where a value has commas: denoiser=transformer;net={"dim":192,"depth":8}
        overrides = dict(t.split("=", 1) for t in texts.split(";" if ";" in texts else ",") if t)
        _, probe = train(name, overrides, PROBE, args.data)
        steps = max(1, round(PROBE * args.minutes / probe))
        model, minutes = train(name, overrides, steps, args.data)
        held_out = model.domain.dataset(args.data, "validation", **model.domain.data_options(model.recipe))
        row: dict[str, Any] = {
            "run": run,
            "parameters": sum(p.numel() for p in model.denoiser.parameters()),
            "steps": steps,
            "samples": steps * model.recipe.training.batch_size,
            "minutes": round(minutes, 2),
            "validation_loss": validation_loss(model, held_out),
        }
        if args.n:
            evaluator = evaluator or model.domain.evaluator(args.data, "validation", model)
            found = evaluate(model, args.n, evaluator=evaluator, guidance_weight=0.0, progress=False)
            metrics = found["metrics"]
            row |= {k: metrics[k]["value"] for k in SHOWN if k in metrics}
        rows.append(row)
        print("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    if args.json:
        files.write_atomic(args.json, files.dump_json({"minutes": args.minutes, "n": args.n, "rows": rows}))


if __name__ == "__main__":
    main()

"""Does `ddpm` gain by a learned variance on pictures? Figures over steps, beside the small and the large one.

    python benchmarks/learned_variance.py --data fashion_mnist.npz --out runs/variance --n 500 --page

The packaged net gets a second output, which alone is trained (the hybrid objective, all else frozen), so that the mean is the
same in every row. Steps are even in t, as in Nichol & Dhariwal 2021 (section 4), without guidance. Measured on the split for
validation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pages import fill

import zoo
from zoo import files
from zoo.evaluation.evaluate import evaluate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "sampling.md"
NAME = "image/fashion-ddpm"
VARIANCES = ("small", "large", "learned")
#: all of the net but its second output
FROZEN = ["embed", "net.entry", "net.down", "net.middle", "net.up", "net.norm", "net.exit"]
OWN = {
    "diffusion.learned_variance": True,
    "training.objective": "hybrid",
    "training.freeze": FROZEN,
    "training.optimizer": "adamw",
    "training.lr": 5e-3,  # of which a run that starts from trained weights takes a fifth
    "training.ema": 0.99,
}


def page(rows: list[dict[str, Any]], bits: dict[str, float]) -> str:
    """The table: Frechet distance and accuracy of each variance."""
    steps = sorted({row["steps"] for row in rows})
    lines = [
        f"`{NAME}`, {rows[0]['n']} samples, validation data: Frechet distance (and the judge's accuracy).",
        "",
        "| variance | " + " | ".join(f"{s} steps" for s in steps) + " | bound, bits per dimension |",
        "| --- |" + " --- |" * (len(steps) + 1),
    ]
    for variance in VARIANCES:
        cells = [row for s in steps for row in rows if row["steps"] == s and row["variance"] == variance]
        told = " | ".join(f"{row['frechet']:.1f} ({row['accuracy']:.2f})" for row in cells)
        lines.append(f"| `{variance}` | {told} | {bits[variance]:.2f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Read the command line; train, measure, write."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--train", type=int, default=500, help="steps of training")
    p.add_argument("--steps", type=int, nargs="+", default=[5, 10, 25, 50], help="of sampling")
    p.add_argument("--n", type=int, default=500)
    p.add_argument("--objects", type=int, default=8, help="whose bound is measured")
    p.add_argument("--page", action="store_true", help=f"write the table into docs/{PAGE.name}")
    args = p.parse_args(argv)
    run = args.out / "run"
    if not (run / files.WEIGHTS).exists():
        settings: dict[str, Any] = {"preview_every": 0, "save_every": 0, "workers": 0}
        zoo.train(NAME, data=args.data, init=NAME, out=run, steps=args.train, overrides=OWN, **settings)
    model = zoo.load(run)
    evaluator = model.domain.evaluator(args.data, "validation", model)
    kept = args.out / "figures.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    for steps in args.steps:
        for variance in VARIANCES:
            how = {"steps": steps, "variance": variance, "n": args.n}
            if any(all(row[k] == v for k, v in how.items()) for row in rows):
                continue
            asked: dict[str, Any] = {"sampler": "ddpm", "spacing": "trailing", "guidance_weight": 0.0, "progress": False}
            found = evaluate(model, args.n, evaluator=evaluator, steps=steps, variance=variance, **asked)["metrics"]
            row = how | {k: found[k]["value"] for k in ("frechet", "accuracy")}
            print(row, flush=True)
            rows.append(row)
            files.write_atomic(kept, files.dump_json(rows))
    held, conditions = evaluator.held_out(model, args.objects, 0)
    bits = {}
    for variance in VARIANCES:
        found = model.log_likelihood(held, method="bound", variance=variance, steps=100, probes=2, progress=False, **conditions)
        bits[variance] = found.mean[0]
        print(variance, found.mean, flush=True)
    if args.page:
        fill(PAGE, "variance", page([row for row in rows if row["n"] == args.n and row["steps"] in args.steps], bits))


if __name__ == "__main__":
    main()

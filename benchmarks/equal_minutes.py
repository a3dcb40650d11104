"""Pictures from words after equal minutes of training: in latents, on patches of pixels, and by a chain of two sizes.

    python benchmarks/equal_minutes.py --data emoji_styles.npz --minutes 20 --out runs/equal --cpu --set training.batch_size=48
    python benchmarks/equal_minutes.py --data emoji_styles.npz --out runs/equal --n 300 --page     # measures what is trained

Each way gets as many minutes, one after the other; the chain's two models share theirs. The first stage of the latents is the
packaged one: its own training is not counted, and the table says so. Measured on the split for validation, since the default is
chosen by it. What is trained or measured already is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import train_packaged
from pages import fill

import zoo
from zoo import files
from zoo.evaluation.evaluate import evaluate
from zoo.model.model import Model

PAGE = Path(__file__).resolve().parents[1] / "docs" / "text.md"
#: the chain's first model gets this share of the minutes: what a picture shows is decided by it
FIRST = 0.6
#: way -> its models, with the share of minutes of each
WAYS: dict[str, dict[str, float]] = {
    "latents": {"image/emoji-text": 1.0},
    "chain": {"image/emoji-32": FIRST, "image/emoji-up": 1 - FIRST},
    "pixels": {"image/emoji-pixels": 1.0},
}
#: figures of the table: of the evaluation, and as the page calls them
FIGURES = {
    "r1_pairs": "R@1, unseen pairs",
    "r1_captions": "R@1, unseen captions",
    "style": "style",
    "frechet": "Frechet distance",
    "recall": "recall",
}


def train(args: argparse.Namespace) -> None:
    """All models that are not there yet."""
    for way in args.ways:
        for name, share in WAYS[way].items():
            folder = args.out / name
            if (folder / train_packaged.HISTORY).exists():
                continue
            line = [name, "--data", str(args.data), "--minutes", str(args.minutes * share), "--out", str(folder)]
            line += [word for given in args.set for word in ("--set", given)]
            train_packaged.main(line + ["--cpu"] * args.cpu)


def measured(way: str, args: argparse.Namespace, evaluator: Any) -> dict[str, Any]:
    """The row of a way."""
    models = [Model.from_folder(args.out / name) for name in WAYS[way]]
    whole: Any = models[0] if len(models) == 1 else zoo.Chain(models)
    found = evaluate(whole, args.n, evaluator=evaluator, seed=0, **({} if len(models) > 1 else {"progress": False}))
    told = [json.loads((args.out / name / train_packaged.HISTORY).read_text()) for name in WAYS[way]]
    figures = {k: {part: found["metrics"][k][part] for part in ("value", "ceiling")} for k in FIGURES}
    row = {
        "way": way,
        "n": args.n,
        "device": told[0]["device"],
        "minutes": sum(facts["seconds"] for facts in told) / 60,
        "steps": [facts["steps"] for facts in told],
        "samples": [facts["samples"] for facts in told],
        "parameters": sum(p.numel() for model in models for p in model.denoiser.parameters()),
        "figures": figures,
    }
    print(way, row["steps"], {k: round(v["value"], 3) for k, v in figures.items()}, flush=True)
    return row


def page(rows: list[dict[str, Any]]) -> str:
    """Rows as a table, with how they were made."""
    first = rows[0]
    lines = [
        f"After {first['minutes']:.0f} minutes of training each ({first['device']}, {torch.get_num_threads()} "
        f"thread{'s' if torch.get_num_threads() > 1 else ''}; the latents' first stage was there), {first['n']} samples, "
        "validation data:",
        "",
        "| way | parameters | steps | " + " | ".join(FIGURES.values()) + " |",
        "| --- | --- | --- |" + " --- |" * len(FIGURES),
    ]
    for row in rows:
        steps = " + ".join(f"{s} of {b}" for s, b in zip(row["steps"], row["samples"], strict=True))
        cells = " | ".join(f"{row['figures'][k]['value']:.3g}" for k in FIGURES)
        lines.append(f"| {row['way']} | {row['parameters'] / 1e6:.1f} M | {steps} | {cells} |")
    real = " | ".join(f"{first['figures'][k]['ceiling']:.3g}" for k in FIGURES)
    return "\n".join([*lines, f"| real pictures | | | {real} |"])


def main(argv: list[str] | None = None) -> None:
    """Read the command line; train, measure, write."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True, help="a folder for the models and the figures")
    p.add_argument("--minutes", type=float, default=20.0, help="of training, for each way")
    p.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override every recipe")
    p.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    p.add_argument("--cpu", action="store_true", help="stay on the CPU")
    p.add_argument("--n", type=int, default=300, help="samples that are measured")
    p.add_argument("--page", action="store_true", help=f"write the table into docs/{PAGE.name}")
    args = p.parse_args(argv)
    train(args)
    kept = args.out / "figures.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    evaluator = None
    for way in args.ways:
        if any(row["way"] == way and row["n"] == args.n for row in rows):
            continue
        if evaluator is None:
            model = Model.from_folder(args.out / next(reversed(WAYS[way])))
            evaluator = model.domain.evaluator(args.data, "validation", model)
        rows.append(measured(way, args, evaluator))
        files.write_atomic(kept, files.dump_json(rows))
    if args.page:
        fill(PAGE, "equal", page([row for row in rows if row["n"] == args.n]))


if __name__ == "__main__":
    main()

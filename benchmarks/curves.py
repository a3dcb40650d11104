"""Quality of a model over guidance weights, step counts and samplers, on validation data.

    python benchmarks/curves.py image/fashion-ddpm --data fashion_mnist.npz --n 1000
    python benchmarks/curves.py runs/mine --data fashion_mnist.npz --n 2000 guidance_weight=0 guidance_weight=0.3,steps=50
    python benchmarks/curves.py runs/chains --data protein_backbones.npz --n 100 tm_samples=0,steps=100 tm_samples=0,steps=200

Without settings it walks the two curves of the model card: over w, and over 5 to 250 steps. `--into` writes them as
curves.json into a model folder, from where `package.py` takes them into the card. The network runs in bf16 where the
machine has it (`--fp32`: never), which is noted.
"""

from __future__ import annotations

import argparse
import ast
import time
from pathlib import Path
from typing import Any

import zoo
from zoo import files
from zoo.evaluation.evaluate import evaluate

WEIGHTS = (0.0, 0.15, 0.3, 0.5, 1.0, 2.0)
STEPS = (5, 10, 20, 50, 250)
HIDDEN = ("kid", "copy_rate", "nearest_copy", "copy_style", "copy_caption")  # of little use for a choice


def settings(text: str) -> dict[str, Any]:
    """ "a=1,b=x" as keyword arguments of `sample`; values as Python literals where they are such."""
    result: dict[str, Any] = {}
    for pair in text.split(","):
        name, value = pair.split("=", 1)
        try:
            result[name] = ast.literal_eval(value.replace(":", ","))
        except (ValueError, SyntaxError):
            result[name] = value
    return result


def main() -> None:
    """Read the command line, print a table row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("settings", nargs="*", help="name=value,name=value (a tuple as 0.1:3), of `sample` or the evaluation")
    parser.add_argument("--data", required=True)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="where the net runs, e.g. cuda")
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--into", type=Path, help="model folder that gets curves.json")
    args = parser.parse_intermixed_args()

    model = zoo.load(args.model, device=args.device, precision="fp32" if args.fp32 else "auto")
    evaluator = model.domain.evaluator(args.data, "validation", model)
    walks = [settings(s) for s in args.settings]
    if not walks:
        walks = [{"guidance_weight": w} for w in WEIGHTS] + [{"steps": k} for k in STEPS]
    rows: list[dict[str, Any]] = []
    for walk in walks:
        start = time.perf_counter()
        result = evaluate(model, args.n, evaluator=evaluator, seed=args.seed, progress=False, **walk)
        metrics = result["metrics"]
        if not rows:
            ceiling = {k: v["ceiling"] for k, v in metrics.items() if k not in HIDDEN and v["ceiling"] is not None}
            shown = list(ceiling)
            print(" ".join(f"{k[:10]:>10}" for k in (*shown, "seconds")), " settings", flush=True)
            print(" ".join(f"{v:10.4f}" for v in ceiling.values()), f"{'':10}  real ones", flush=True)
        rows.append(walk | {k: metrics[k]["value"] for k in shown})
        values = [rows[-1][k] for k in shown] + [time.perf_counter() - start]
        print(" ".join(f"{v:10.4f}" for v in values), "", walk, flush=True)
    if args.into is not None:
        protocol = {"n": args.n, "split": "validation", "seed": args.seed, "precision": result["protocol"]["precision"]}
        files.write_atomic(args.into / "curves.json", files.dump_json({"protocol": protocol, "real": ceiling, "rows": rows}))


if __name__ == "__main__":
    main()

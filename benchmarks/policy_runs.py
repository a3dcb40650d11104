"""One policy from several training seeds, and by other samplers: the second table of its card (curves.json).

    python benchmarks/policy_runs.py policy/pusht-keypoints RUN RUN RUN --n 200 sampler=ddpm,steps=100

The first run is the one to package, chosen before on the validation episodes; the settings are of it alone. All figures are
of the test episodes. The table goes into the first run's folder, from where `package.py` takes it into the card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from curves import settings
from package import with_defaults

from zoo import files
from zoo.evaluation.evaluate import evaluate
from zoo.policy.evaluate import DEMONSTRATORS
from zoo.training.trainer import CHECKPOINT


def main() -> None:
    """Read the command line, print a table row by row, write it."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("name", help="of the recipe")
    p.add_argument("runs", nargs="+", help="run folders, then name=value,name=value of the controller")
    p.add_argument("--n", type=int, default=200)
    args = p.parse_intermixed_args()
    runs = [Path(r) for r in args.runs if "=" not in r]
    walks = [(run, {}) for run in runs] + [(runs[0], settings(s)) for s in args.runs if "=" in s]
    real, rows = {}, list[dict[str, Any]]()
    for run, setting in walks:
        model = with_defaults(run, args.name)
        result = evaluate(model, args.n, progress=False, **{"precision": "auto"} | setting)
        found = result["metrics"]
        seed = json.loads(files.load_tensors_metadata(run / CHECKPOINT)[1]["zoo"])["seed"]
        real = DEMONSTRATORS[model.recipe.name]["metrics"]
        rows.append({"training_seed": seed} | setting | {k: found[k]["value"] for k in real})
        print(rows[-1], flush=True)
    protocol = {"n": args.n, "split": "test", "precision": result["protocol"]["precision"]}
    files.write_atomic(runs[0] / "curves.json", files.dump_json({"protocol": protocol, "real": real, "rows": rows}))


if __name__ == "__main__":
    main()

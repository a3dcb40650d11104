"""Steers of backbones: do chains come out as they were asked to, and are they still plausible?

    python benchmarks/backbones.py --data protein_backbones.npz --n 16 --page docs/protein.md
    python benchmarks/backbones.py --data protein_backbones.npz --rows "strands(0.4)" --steps 100

Chains of validation data say what is plausible. Free samples of the same length stand beside the steered ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import fill

import zoo
from zoo.evaluation.distances import wilson_interval
from zoo.protein import wishes
from zoo.protein.backbone import Backbone
from zoo.protein.copies import symmetry, turns

LENGTH, COPY = 64, 40  # residues of a chain, and of a copy
PATTERN = "---EEEEEE----EEEEEE------HHHHHHHHHHHHHH-----EEEEEE----EEEEEE----"


def strand(chain: Backbone) -> float:
    return float((chain.structure() == 2).mean())


def helix(chain: Backbone) -> float:
    return float((chain.structure() == 1).mean())


def size(chain: Backbone) -> float:
    return float(wishes.gyration(torch.from_numpy(chain.atoms)[None]))


def followed(chain: Backbone) -> float:
    """Share of the pattern's letters that the chain follows, by hydrogen bonds."""
    found = ["LHE"[k] for k in chain.structure()]
    return float(np.mean([a == b for a, b in zip(PATTERN, found, strict=True) if a != "-"]))


def apart(chain: Backbone) -> float:
    return float(np.linalg.norm(chain.atoms[4, 1] - chain.atoms[59, 1]))


def clashes(chain: Backbone) -> float:
    return chain.measures()["backbone_clash"]


def unlike(chain: Backbone) -> float:
    """The largest RMSD in angstrom of a copy to the first one that the group turns onto it."""
    first, *others = chain.chains()
    members = turns("C3").numpy()[1:]
    return max(float(np.sqrt(np.square(first @ t.T - o).sum(-1).mean())) for t, o in zip(members, others, strict=True))


#: what is asked -> steers, residues, what is measured of each chain
ROWS: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "nothing": ((), LENGTH, {"strands": strand, "helices": helix, "radius": size, "backbone clash": clashes}),
    "strands(0.4)": (wishes.strands(0.4), LENGTH, {"strands": strand}),
    "radius(12.0)": (wishes.radius(12.0), LENGTH, {"radius": size}),
    "nothing, 40 residues": ((), COPY, {}),
    'symmetry("C3"), 3 x 40 residues': (symmetry("C3"), 3 * COPY, {"RMSD of copies": unlike}),
    "helices(0.6)": (wishes.helices(0.6), LENGTH, {"helices": helix}),
    "contact(5, 60)": (wishes.contact(5, 60), LENGTH, {"CA-CA": apart}),
    f'pattern("{PATTERN}")': (wishes.pattern(PATTERN), LENGTH, {"letters": followed}),
    "clash()": (wishes.clash(), LENGTH, {"backbone clash": clashes}),
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model", nargs="?", default="protein/backbone-ddpm")
    p.add_argument("--data", required=True)
    p.add_argument("--n", type=int, default=16)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    p.add_argument("--page", type=Path)
    args = p.parse_args()

    model = zoo.load(args.model)
    evaluator = model.domain.evaluator(args.data, "validation", model)
    lines = ["| asked | chains | measured: mean (standard deviation) | plausible |", "| --- | --- | --- | --- |"]
    for name in args.rows:
        steer, length, measures = ROWS[name]
        made = model.sample(args.n, length=length, steer=steer, steps=args.steps, seed=args.seed, progress=False)
        found = {k: [m(chain) for chain in made] for k, m in measures.items()}
        shown = "; ".join(f"{k} {np.mean(v):.3f} ({np.std(v):.3f})" for k, v in found.items())
        share = float(evaluator.plausible([chain.chains()[0] for chain in made]).mean())
        low, high = wilson_interval(round(share * args.n), args.n)
        asked = name if name.startswith("nothing") else f"`{name}`"
        lines.append(f"| {asked} | {args.n} | {shown} | {share:.2f} [{low:.2f}, {high:.2f}] |")
        print(lines[-1], flush=True)
    if args.page is not None:
        fill(args.page, "backbones", "\n".join(lines))


if __name__ == "__main__":
    main()

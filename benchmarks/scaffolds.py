"""Motif scaffolding of a protein model: is the motif kept, and are the chains around it plausible?

    python benchmarks/scaffolds.py protein/backbone-ddpm --data protein_backbones.npz --motifs 25 --each 8

Motifs are 16 residues of held-out chains, put at a random place of a chain of another length. Free samples of the same
lengths stand beside them. Then every sampler builds around one of the motifs.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import zoo
from zoo.core.metrics import wilson_interval
from zoo.core.rigid import rmsd
from zoo.core.samplers import SAMPLERS
from zoo.protein.backbone import Backbone
from zoo.protein.evaluate import LENGTHS
from zoo.training import native_bf16

SIZE = 16  # residues of a motif


def distance(chain: Any, motif: Any, start: int) -> float:
    """RMSD in angstrom of a motif's N, CA, C after superposition on its place (from 1 on) in a chain."""
    atoms = [torch.as_tensor(x).double().flatten(0, 1) for x in (chain[start - 1 : start - 1 + len(motif)], motif)]
    return float(rmsd(*atoms))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model")
    p.add_argument("--data", required=True)
    p.add_argument("--split", default="test")
    p.add_argument("--motifs", type=int, default=25)
    p.add_argument("--each", type=int, default=8, help="chains around each motif")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--fp32", action="store_true", help="never bf16, which is used where the machine has it")
    args = p.parse_args()

    model, draw = zoo.load(args.model), np.random.default_rng(args.seed)
    judge = model.domain.evaluator(args.data, args.split, model)
    held = [x for x in judge.reference if len(x) in LENGTHS]
    lengths = [len(x) for x in judge.train if len(x) in LENGTHS]
    built, free, errors, cases = [], [], [], []
    with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16() and not args.fp32):
        for i in tqdm(range(args.motifs), "motifs"):
            chain, length = held[draw.integers(len(held))], int(draw.choice(lengths))
            first, start = int(draw.integers(len(chain) - SIZE + 1)), int(draw.integers(length - SIZE + 1)) + 1
            motif = Backbone(chain[first : first + SIZE])
            cases.append({"motif": motif, "length": length, "start": start})
            found = model.inpaint(**cases[-1], n=args.each, seed=args.seed + i, progress=False)
            built += [s.atoms for s in found]
            errors += [distance(s.atoms, motif.atoms, start) for s in found]
            free += [s.atoms for s in model.sample(args.each, length=length, seed=args.seed + i, progress=False)]
        count = len(built)
        for name, chains in (("around a motif", built), ("free", free)):
            share = judge.plausible(chains).mean()
            low, high = wilson_interval(round(share * count), count)
            print(f"plausible, {name}: {share:.3f} [{low:.3f}, {high:.3f}] of {count}; {judge.compare(chains)}")
        print(f"motif after superposition: at most {max(errors):.2g} A RMSD")
        for sampler in SAMPLERS:
            case = cases[0]
            (one,) = model.inpaint(**case, n=1, seed=0, sampler=sampler, progress=False)
            print(f"  {sampler}: {distance(one.atoms, case['motif'].atoms, case['start']):.2g} A")


if __name__ == "__main__":
    main()

"""Motif scaffolding of a protein model: is the motif kept, and are the chains around it plausible?

    python benchmarks/scaffolds.py protein/backbone-ddpm --data protein_backbones.npz --motifs 25 --each 8
    python benchmarks/scaffolds.py runs/mine --data protein_backbones.npz --split validation steps=200,s_churn=80 step_scale=1.2
    python benchmarks/scaffolds.py protein/backbone-ddpm --data protein_backbones.npz --split validation --motifs 24 --each 4 \
        --page docs/protein.md free=1,steps=100 steps=100,method=replace method=select,candidates=4,steps=100
    python benchmarks/scaffolds.py protein/backbone-ddpm --data protein_backbones.npz --motifs 96 --each 4 --fp32 \
        --page docs/protein.md --block scaffolds-test-96 free=1,steps=100 method=select,candidates=4,steps=100

Motifs are 16 residues of held-out chains, put at a random place of a chain of another length. Free samples of the same
lengths stand beside them, and the real chains that the motifs are from. Then every sampler builds around one of the motifs.
Settings are those of `inpaint` (steer=clash: a steer of the domain by name; free=1: chains without a motif); where some are
given those chains alone are measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curves import settings
from pages import fill
from tqdm import tqdm

import zoo
from zoo.core.samplers import SAMPLERS
from zoo.evaluation.distances import wilson_interval
from zoo.protein.backbone import Backbone
from zoo.protein.evaluate import LENGTHS
from zoo.protein.geometry import LENGTHS as BONDS
from zoo.protein.rigid import rmsd

SIZE = 16  # residues of a motif


def distance(chain: Any, motif: Any, start: int) -> float:
    """RMSD in angstrom of a motif's N, CA, C after superposition on its place (from 1 on) in a chain."""
    atoms = [torch.as_tensor(x).double().flatten(0, 1) for x in (chain[start - 1 : start - 1 + len(motif)], motif)]
    return float(rmsd(*atoms))


def joints(chain: Any, start: int, size: int) -> list[float]:
    """Errors in angstrom of the bonds C-N by which a motif hangs in a chain."""
    ends = [k for k in (start - 2, start - 2 + size) if 0 <= k < len(chain) - 1]
    return [abs(float(np.linalg.norm(chain[k + 1, 0] - chain[k, 2])) - BONDS[2]) for k in ends]


def words(how: dict[str, Any]) -> str:
    """Settings as they are written, "method=resample, times=2"."""
    return ", ".join(f"{k}={v}" for k, v in how.items())


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model")
    p.add_argument("settings", nargs="*", help="name=value,name=value of `inpaint`")
    p.add_argument("--data", required=True)
    p.add_argument("--split", default="test")
    p.add_argument("--motifs", type=int, default=25)
    p.add_argument("--each", type=int, default=8, help="chains around each motif")
    p.add_argument("--page", type=Path, help="the page that holds the table, between its marks")
    p.add_argument("--block", help="the name of its marks (default: scaffolds, or scaffolds-test)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--fp32", action="store_true", help="never bf16, which is used where the machine has it")
    args = p.parse_intermixed_args()

    model = zoo.load(args.model, precision="fp32" if args.fp32 else "auto")
    draw = np.random.default_rng(args.seed)
    evaluator = model.domain.evaluator(args.data, args.split, model)
    held = [x for x in evaluator.reference if len(x) in LENGTHS]
    lengths = [len(x) for x in evaluator.train if len(x) in LENGTHS]
    cases: list[dict[str, Any]] = []
    hosts = []
    for _ in range(args.motifs):
        chain, length = held[draw.integers(len(held))], int(draw.choice(lengths))
        first, start = int(draw.integers(len(chain) - SIZE + 1)), int(draw.integers(length - SIZE + 1)) + 1
        hosts.append(chain)
        cases.append({"motif": Backbone(chain[first : first + SIZE]), "length": length, "start": start})
    seeds = range(args.seed, args.seed + args.motifs)

    rows = ["| chains | method | plausible | CA clashes a residue | bonds to the motif: all within, angstrom |"]
    rows.append("| --- | --- | --- | --- | --- |")

    def report(name: str, chains: list[Any]) -> None:
        share, count = evaluator.plausible(chains).mean(), len(chains)
        low, high = wilson_interval(round(share * count), count)
        print(f"plausible, {name}: {share:.3f} [{low:.3f}, {high:.3f}] of {count}", flush=True)
        clashes = evaluator.compare(chains)["ca_clashes"]
        rows.append(f"| {count} | {name.strip()} | {share:.2f} [{low:.2f}, {high:.2f}] | {clashes:.3f} | |")
        shown = {k: round(v, 4) for k, v in evaluator.compare(chains).items()}
        failed = {k: round(float(v.mean()), 3) for k, v in evaluator.outside(chains).items() if v.any()}
        print(f"  means {shown}\n  outside the usual range {failed}", flush=True)

    report("real chains that the motifs are from", hosts)

    def free(how: dict[str, Any]) -> list[Any]:
        made = []
        for seed, case in zip(tqdm(seeds, "free"), cases, strict=True):
            made += [s.atoms for s in model.sample(args.each, length=case["length"], seed=seed, progress=False, **how)]
        return made

    for how in [settings(s) for s in args.settings] or [{}]:
        if how.pop("free", False):
            report(f"free {words(how)}", free(how))
            print(rows[-1], flush=True)
            continue
        built, errors, bonds = [], [], []
        steers = [model.domain.steers[how["steer"]]()] if "steer" in how else []
        for seed, case in zip(tqdm(seeds, "motifs"), cases, strict=True):
            found = model.inpaint(**case, n=args.each, seed=seed, progress=False, **how | {"steer": steers})
            built += [s.atoms for s in found]
            errors += [distance(s.atoms, case["motif"].atoms, case["start"]) for s in found]
            bonds += [error for s in found for error in joints(s.atoms, case["start"], SIZE)]
        report(f"around a motif {words(how)}", built)
        print(f"  motif after superposition: at most {max(errors):.2g} A RMSD")
        half, most = np.quantile(bonds, (0.5, 0.95))
        print(f"  bonds to the motif: half are off by at most {half:.3f} A, 95 % by {most:.3f} A, all by {max(bonds):.3f} A")
        rows[-1] = rows[-1].removesuffix(" |") + f" {max(bonds):.3f} |"
        print(rows[-1], flush=True)
    if args.page is not None:
        default = "scaffolds" if args.split == "validation" else f"scaffolds-{args.split}"
        fill(args.page, args.block or default, "\n".join(rows))
    if args.settings:
        return
    report("free", free({}))
    for sampler in SAMPLERS:
        case = cases[0]
        (one,) = model.inpaint(**case, n=1, seed=0, sampler=sampler, progress=False)
        print(f"  {sampler}: motif {distance(one.atoms, case['motif'].atoms, case['start']):.2g} A")


if __name__ == "__main__":
    main()

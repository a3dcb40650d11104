"""The evaluator of backbones: measured raw and idealised, beside real chains and glued fragments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from zoo.contract.domain import Generator
from zoo.contract.samples import Samples
from zoo.evaluation import evaluate
from zoo.evaluation.distances import jensen_shannon, wilson_interval
from zoo.evaluation.evaluate import draw, real_data
from zoo.protein.data import CHAINS_FILE, open_chains
from zoo.protein.metrics import FRAGMENT, MEASURES, glued, ramachandran, table, tm_score
from zoo.protein.rigid import rmsd
from zoo.protein.trace import Trace, TraceCodec, lacking
from zoo.values import whole

Chain = NDArray[Any]
#: metric -> which way is good
BETTER = {"plausible": "higher", **MEASURES, "ramachandran": "lower"}
BETTER |= {"nearest_tm": "near ceiling", "copy_rate": "lower", "pairwise_tm": "lower"}
#: share of real chains inside the range of one measure; the TM-score above which a sample counts as a copy
USUAL, COPY = 0.95, 0.8
LIMITS = ("min_length", "max_length")
#: lengths that are measured, unless others are asked for
LENGTHS = range(40, 91)


class Evaluator(evaluate.Evaluator):
    """Measures sets of backbones (N, 3, 3) in angstrom; what depends on real chains alone is computed once.

    Args:
        reference, train: real held-out chains, and those that the generator was trained on. split: what the reference is.
        seed: of the chains that are drawn for TM-scores, and of the glued ones.
    """

    def __init__(self, reference: Sequence[Chain], train: Sequence[Chain], *, split: str = "test", seed: int = 0) -> None:
        self.reference, self.train, self.split, self.seed = list(reference), list(train), split, seed

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The range of each measure: of the 95 % lowest training chains for errors, of the middle 95 % for others."""
        found, tail = table(self.train), (1 - USUAL) / 2
        errors = {k: (0.0, float(np.quantile(v, USUAL))) for k, v in found.items() if MEASURES[k] == "lower"}
        return {k: (float(np.quantile(v, tail)), float(np.quantile(v, 1 - tail))) for k, v in found.items()} | errors

    def outside(self, chains: Sequence[Chain]) -> dict[str, NDArray[np.bool_]]:
        """{measure: (n,)}, which chains lie outside its range."""
        found = table(chains)
        return {k: (found[k] < lo) | (found[k] > hi) for k, (lo, hi) in self.ranges.items()}

    def plausible(self, chains: Sequence[Chain]) -> NDArray[np.bool_]:
        """Which chains lie within the ranges of all measures at once."""
        return ~np.logical_or.reduce(list(self.outside(chains).values()))

    def compare(self, chains: Sequence[Chain]) -> dict[str, float]:
        """Means of the measures, share of plausible chains, Ramachandran divergence from the training chains."""
        return {k: float(v.mean()) for k, v in table(chains).items()} | {
            "plausible": float(self.plausible(chains).mean()),
            "ramachandran": jensen_shannon(ramachandran(chains), ramachandran(self.train)),
        }

    # ---------------------------------------------------------------- the frame

    options = ("tm_samples",)

    def asked(self, model: Generator, n: int, seed: int) -> dict[str, Any]:
        """Lengths from 40 to 90, drawn as the training chains have them; where none of these, such as they have."""
        known = [len(x) for x in self.train if len(x) in LENGTHS] or [len(x) for x in self.train]
        return {"length": np.random.default_rng(seed).choice(known, n).tolist()}

    def measure(self, made: Samples, *, tm_samples: int = 50, **options: Any) -> dict[str, Any]:
        """All figures of backbones, raw ("value") and after `Backbone.idealised` ("idealised").

        Args:
            tm_samples: how many samples are compared with every training chain, and as many real and glued chains, all drawn
                at random; at about 7 ms a pair. 0 for none.

        Raises:
            ConfigError: chains of CA alone.
        """
        if any(isinstance(chain, Trace) for chain in made):
            raise lacking("evaluation")
        n, count = len(made), min(whole(tm_samples, "tm_samples", 0), len(made))
        real = [x for x in self.reference if len(x) in LENGTHS] or self.reference
        columns = {"value": [s.atoms for s in made], "idealised": [s.idealised().atoms for s in made]}
        columns |= {"ceiling": real, "floor": glued(self.train, [len(s) for s in made], self.seed)}
        found = {k: self.compare(chains) for k, chains in columns.items()}
        if count:
            # drawn, as files keep families side by side: the first ones would be each other's relatives
            drawn = {k: draw(len(columns[k]), count, self.seed) for k in ("value", "ceiling", "floor")}
            for k, rows in drawn.items():
                found[k] |= self.folds([columns[k][i] for i in rows])
        metrics: dict[str, dict[str, Any]] = {
            k: {column: found[column].get(k) for column in columns} | {"better": way}
            for k, way in BETTER.items()
            if k in found["value"]
        }
        for k, trials in (("plausible", n), ("backbone_clash", n), ("copy_rate", count)):
            if k in metrics:
                metrics[k]["interval"] = list(wilson_interval(round(found["value"][k] * trials), trials))
        protocol = {
            "samples": n,
            "split": self.split,
            "reference": f"{len(real)} {self.split} chains of {min(map(len, real))} to {max(map(len, real))} residues",
            "length": f"{min(map(len, made))} to {max(map(len, made))} residues, as often as training chains have them",
            "plausible": f"share of chains in which every measure lies where that of {USUAL:.0%} of the training chains does",
            "ramachandran": "Jensen-Shannon divergence in nats of (phi, psi) from the training chains, bins of 15 degrees",
            "floor": f"fragments of {FRAGMENT} residues of training chains, glued with ideal bonds",
            "seed": self.seed,
        }
        if count:
            protocol["tm"] = (
                f"TM-align over the sample's length: {count} samples, {len(drawn['ceiling'])} real and {count} glued chains, "
                f"drawn at random (seed {self.seed}), each against all {len(self.train)} training chains; a copy has more than "
                f"{COPY}"
            )
        return {"metrics": metrics, "protocol": protocol}

    def folds(self, chains: Sequence[Chain]) -> dict[str, float]:
        """Largest TM-score to a training chain (mean, and how often above COPY), and mean TM-score of two of the chains."""
        bar = tqdm(chains, "TM-scores", delay=2, leave=False)
        nearest = np.array([max(tm_score(x, y) for y in self.train) for x in bar])
        pairs = [tm_score(x, y) for i, x in enumerate(chains) for y in chains[:i]]
        own = {"nearest_tm": float(nearest.mean()), "copy_rate": float((nearest > COPY).mean())}
        return own | ({"pairwise_tm": float(np.mean(pairs))} if pairs else {})


def evaluator(
    data: str | Path | None = None, split: str = "test", model: Generator | None = None, skip_unreadable: bool = False
) -> Evaluator:
    """The `Evaluator` of the collected chains or a folder's; `model` says which lengths count.

    Raises:
        ConfigError: a model of CA alone.
    """
    if model is not None and isinstance(model.codec, TraceCodec):
        raise lacking("evaluation")
    source = real_data(data, f"protein/{CHAINS_FILE}", f"--data {CHAINS_FILE} or a folder of structures")
    options = {k: model.recipe.codec[k] for k in LIMITS} if model is not None else {}
    held, own = (open_chains(source, part, skip_unreadable=skip_unreadable, **options) for part in (split, "train"))
    return Evaluator([c.atoms for c in held.items], [c.atoms for c in own.items], split=split)


def designability(
    chains: Sequence[Chain], design: Callable[[Chain], Sequence[str]], fold: Callable[[str], Chain]
) -> list[float]:
    """The smallest CA RMSD in angstrom of each chain to what its designed sequences fold to; below 2 it counts as designable.

    Needs tools that are not part of zoo: `design` gives sequences for a backbone (ProteinMPNN: 8), `fold` the backbone
    (N, 3, 3) of a sequence (ESMFold).
    """
    ca = [torch.as_tensor(x[:, 1]).double() for x in chains]
    return [
        min(float(rmsd(torch.as_tensor(fold(s)[:, 1]).double(), own)) for s in design(x))
        for x, own in zip(chains, ca, strict=True)
    ]

"""`zoo eval` of point cloud models: sample, measure against held-out shapes, and write down how."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.core.metrics import wilson_interval
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.evaluation import real_data, sample_timed
from zoo.model import Model
from zoo.point3d.data import FURNITURE, Clouds, open_clouds
from zoo.point3d.judge import Judge, load_judge
from zoo.point3d.metrics import Sets, chamfer, compare_sets, distances, earth_mover, interval, spacing, thickness, trees

#: a category with fewer reference shapes than this is left out
FEWEST = 3
#: draws of as many samples of each category as it has reference shapes
DRAWS = 50
#: points of each cloud for the earth mover's distance, which is cubic in them
MOVED = 256
#: a sample nearer to a training shape than this share of real held-out shapes counts as a copy: four or five of 88
COPY_SHARE = 0.05

Cloud = NDArray[np.float32]


class Evaluator:
    """Measures sets of clouds against one reference; what depends on real data alone is computed once and kept.

    Args:
        judge: gives labels.
        reference: real held-out shapes; categories with fewer than three are left out.
        train: the shapes that the generator was trained on.
        split: what the reference is, for the protocol.
        seed: of draws and of the floor.
    """

    better = {
        "nna": "near 0.5",
        "coverage": "higher",
        "mmd": "lower (blur lowers it too)",
        "nna_emd": "near 0.5",
        "accuracy": "higher",
        "thickness": "near 1",
        "spacing": "near 1",
        "copy_rate": "lower",
        "nearest_copy": "higher",
    }

    def __init__(self, judge: Judge, reference: Clouds, train: Clouds, *, split: str = "test", seed: int = 0) -> None:
        names = tuple(reference.labels.get("label", ()))
        if reference.label is None or train.label is None or names != judge.class_names:
            raise DataError(f"the shapes have the labels {names}, the judge knows {judge.class_names}.")
        self.judge, self.split, self.seed = judge, split, seed
        counts = np.bincount(reference.label, minlength=len(names))
        self.classes = [c for c in range(len(names)) if counts[c] >= FEWEST]
        if not self.classes:
            raise DataError(
                f"no category has {FEWEST} reference shapes or more: {dict(zip(names, counts.tolist(), strict=True))}."
            )
        self.reference, self.labels = self._of(reference)
        self.train, self.train_labels = self._of(train)
        self.counts = {c: int(counts[c]) for c in self.classes}

    def _of(self, clouds: Clouds) -> tuple[list[Cloud], NDArray[np.int64]]:
        """The clouds of the measured categories, category after category, and their labels."""
        label = np.asarray(clouds.label)
        rows = [i for c in self.classes for i in np.flatnonzero(label == c)]
        return [clouds.clouds[i].points for i in rows], label[rows]

    # ---------------------------------------------------------------- what real data alone decide

    @cached_property
    def _trees(self) -> list[Any]:
        return trees(self.reference)

    @cached_property
    def _reference_distances(self) -> NDArray[np.float64]:
        return distances(self._trees, self._trees)

    @cached_property
    def _texture(self) -> dict[int, tuple[float, float]]:
        """{category: mean thickness and spacing of its reference shapes}."""
        values = np.array([(thickness(t), spacing(t)) for t in self._trees])
        return {c: tuple(values[self.labels == c].mean(0)) for c in self.classes}  # type: ignore[misc]

    @cached_property
    def _plain_train(self) -> list[Any]:
        return trees([plain(x) for x in self.train])

    @cached_property
    def _held_out(self) -> NDArray[np.float64]:
        return self._nearest(self.reference, self.labels)

    @cached_property
    def _typical(self) -> dict[int, float]:
        """{category: mean distance of its reference shapes to the nearest training shape}."""
        return {c: float(self._held_out[self.labels == c].mean()) for c in self.classes}

    def _nearest(self, clouds: Sequence[Cloud], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Chamfer distance (n,) of each cloud to the nearest training shape of its category, stretch taken away."""
        own = trees([plain(x) for x in clouds])
        return np.array(
            [
                min(chamfer(tree, self._plain_train[j]) for j in np.flatnonzero(self.train_labels == c))
                for tree, c in zip(own, labels, strict=True)
            ]
        )

    def _relative(self, distance: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return distance / np.array([self._typical[c] for c in labels])

    @cached_property
    def copy_distance(self) -> float:
        """Below it, relative to the category's mean, a distance to the nearest training shape means a copy."""
        return float(np.quantile(self._relative(self._held_out, self.labels), COPY_SHARE))

    def _copies(self, distance: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
        relative = self._relative(distance, labels)
        return {"copy_rate": float((relative < self.copy_distance).mean()), "nearest_copy": float(relative.min())}

    # ---------------------------------------------------------------- measuring

    def evaluate(self, samples: Sequence[Cloud], labels: Sequence[int]) -> dict[str, Any]:
        """All metrics of clouds (N, 3) of the categories `labels`, with ceiling, floor, protocol and each category's own.

        Raises:
            ShapeError: fewer samples of a category than it has reference shapes, or not one label a sample.
            DataError: samples of a category that is not measured.
        """
        start = time.perf_counter()
        own, per_class = self.compare(samples, np.asarray(labels))
        own |= self._copies(self._nearest(samples, np.asarray(labels)), np.asarray(labels))
        n = len(samples)
        metrics: dict[str, dict[str, Any]] = {
            name: {"value": own[name], "ceiling": self.ceiling[name], "floor": self.floor[name], "better": better}
            for name, better in self.better.items()
        }
        for name in ("nna", "coverage", "mmd", "nna_emd"):
            metrics[name]["interval"] = own[f"{name}_interval"]
        for name in ("accuracy", "copy_rate"):
            metrics[name]["interval"] = list(wilson_interval(round(own[name] * n), n))
        protocol = self._protocol(n) | {"seconds": round(time.perf_counter() - start, 1)}
        return {"metrics": metrics, "per_class": per_class, "protocol": protocol}

    def compare(self, samples: Sequence[Cloud], labels: NDArray[np.int64]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Every metric but copying of any set of clouds, and those of each category."""
        self._check(samples, labels)
        own = trees(samples)
        inner, across = distances(own, own), distances(own, self._trees)
        rng, draws = np.random.default_rng(self.seed), []
        for _ in range(DRAWS):
            draws.append(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in self.counts.items()]))
        sets = [compare_sets(inner[np.ix_(d, d)], across[d], self._reference_distances) for d in draws]
        heard = self.judge.features(torch.from_numpy(np.stack(samples)), 50)[1].argmax(1).numpy()
        ratios = np.array([np.divide((thickness(t), spacing(t)), self._texture[c]) for t, c in zip(own, labels, strict=True)])
        result: dict[str, Any] = summary(sets) | {
            "accuracy": float((heard == labels).mean()),
            "thickness": float(ratios[:, 0].mean()),
            "spacing": float(ratios[:, 1].mean()),
        }
        moved = [[x[:MOVED] for x in clouds] for clouds in ([samples[i] for i in draws[0]], self.reference)]
        a, b = moved
        apart = compare_sets(distances(a, a, earth_mover), distances(a, b, earth_mover), distances(b, b, earth_mover))
        result["nna_emd"], *ends = interval([apart.nearest])
        result["nna_emd_interval"] = ends
        per_class = {}
        for c in self.classes:
            held = np.flatnonzero(self.labels == c)
            picked = [d[held] for d in draws]  # the draws have the reference's order of categories
            part = [
                compare_sets(inner[np.ix_(d, d)], across[np.ix_(d, held)], self._reference_distances[np.ix_(held, held)])
                for d in picked
            ]
            mine = labels == c
            per_class[self.judge.class_names[c]] = {
                "n": int(mine.sum()),
                "reference": self.counts[c],
                "accuracy": float((heard[mine] == c).mean()),
                "thickness": float(ratios[mine, 0].mean()),
            } | summary(part)
        return result, per_class

    def _check(self, samples: Sequence[Cloud], labels: NDArray[np.int64]) -> None:
        if labels.shape != (len(samples),):
            raise ShapeError(f"{len(samples)} clouds need as many labels, got {labels.shape}.")
        if not np.isin(labels, self.classes).all():
            names = ", ".join(self.judge.class_names[c] for c in self.classes)
            raise DataError(f"only categories with {FEWEST} reference shapes or more are measured: {names}.")
        for c, k in self.counts.items():
            if (found := int((labels == c).sum())) < k:
                name = self.judge.class_names[c]
                raise ShapeError(f"{found} samples of {name!r}, but {k} reference shapes: give at least as many of each.")

    @cached_property
    def ceiling(self) -> dict[str, float]:
        """The best to ask for: real training shapes; for accuracy and copying, the held-out ones."""
        heard = self.judge.features(torch.from_numpy(np.stack(self.reference)), 50)[1].argmax(1).numpy()
        real = {"accuracy": float((heard == self.labels).mean())} | self._copies(self._held_out, self.labels)
        return self.compare(self.train, self.train_labels)[0] | real

    @cached_property
    def floor(self) -> dict[str, float]:
        """A trivial baseline: points of all training shapes of a category together; for copying, training shapes."""
        rng, size = np.random.default_rng(self.seed), len(self.reference[0])
        clouds = []
        for c in self.labels:
            pool = np.concatenate([x for x, own in zip(self.train, self.train_labels, strict=True) if own == c])
            clouds.append(pool[rng.permutation(len(pool))[:size]])
        return self.compare(clouds, self.labels)[0] | {"copy_rate": 1.0, "nearest_copy": 0.0}

    def _protocol(self, n: int) -> dict[str, Any]:
        """How the numbers were made, in words."""
        return {
            "samples": n,
            "reference": f"{len(self.reference)} real {self.split} shapes of {len(self.classes)} categories with "
            f"{FEWEST} or more, {min(self.counts.values())} to {max(self.counts.values())} each: too few to tell categories apart",
            "sets": f"all categories pooled, of each as many samples as it has reference shapes, mean of {DRAWS} such draws; "
            "intervals 95 %, bootstrap over draws and members",
            "nna": "accuracy of the 1-nearest-neighbour classifier with the Chamfer distance (sum of both mean squared ones), "
            f"{len(self.reference[0])} points; nna_emd: one draw with the earth mover's distance of {MOVED} points, exact",
            "mmd": "mean Chamfer distance of a reference shape to its nearest sample; blur lowers it and noise raises coverage: "
            "read the two together",
            "accuracy": f"share to which a PointNet gives the label asked for; its accuracy on real test shapes is "
            f"{self.judge.card.get('accuracy', {}).get('test', {}).get('value')}",
            "thickness": "root mean square distance of 12 neighbours to their plane, spacing: distance to the nearest point; "
            "each relative to the category's reference shapes",
            "copy_rate": f"share whose Chamfer distance to the nearest training shape of its category, all axes brought to one "
            f"spread, is below {self.copy_distance:.3f} of the category's mean for real {self.split} shapes, as {COPY_SHARE:.0%} "
            f"of these are; nearest_copy: the smallest such ratio; {len(self.train)} training shapes",
            "ceiling": f"real training shapes in place of samples; for accuracy and copying the real {self.split} shapes",
            "floor": "points of all training shapes of a category together; for copying, training shapes",
            "seed": self.seed,
        }


def plain(x: Cloud) -> Cloud:
    """A cloud moved to mean 0 with the same spread along each axis: stretching it changes nothing."""
    centred = x - x.mean(0)
    return centred / centred.std(0).clip(1e-6)


def summary(sets: Sequence[Sets]) -> dict[str, Any]:
    """Means of 1-NNA, coverage and MMD over draws, each with its 95 % interval."""
    result: dict[str, Any] = {}
    for name, draws in (
        ("nna", [s.nearest for s in sets]),
        ("coverage", [s.covered for s in sets]),
        ("mmd", [s.matched for s in sets]),
    ):
        result[name], *ends = interval(draws)
        result[f"{name}_interval"] = ends
    return result


def evaluator(data: str | Path | None = None, split: str = "test", model: Model | None = None) -> Evaluator:
    """The `Evaluator` of the packaged judge on real shapes; keep it to measure many settings."""
    source, judge = real_data(data, f"point3d/{FURNITURE}", f"--data {FURNITURE}"), load_judge()
    if model is not None and model.recipe.labels.get("label") is not None:
        known = model.recipe.labels["label"].values
        if known != judge.class_names:
            raise ConfigError(f"{model!r}: the judge knows models with the labels {judge.class_names} only.")
    return Evaluator(judge, open_clouds(source, split), open_clouds(source, "train"), split=split)


def evaluate_model(
    model: Model,
    n: int = 300,
    *,
    data: str | Path | None = None,
    split: str = "test",
    seed: int = 0,
    judge: Evaluator | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """All figures of a model from n samples, the measured categories in turn.

    Args:
        judge: an `evaluator(...)` to use again; default a fresh one.
        **settings: arguments of `model.sample`; what is left out is the model's default.
    """
    judge = judge or evaluator(data, split, model)
    labels = [judge.classes[i % len(judge.classes)] for i in range(n)]
    samples, how = sample_timed(model, n, label=labels, seed=seed, **settings)
    result: Mapping[str, Any] = judge.evaluate([s.points for s in samples], labels)
    return {**result, "protocol": result["protocol"] | how}

"""The evaluator of point cloud models: sets of samples against held-out shapes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.contract.domain import Generator
from zoo.contract.samples import Samples
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.evaluation import evaluate, own
from zoo.evaluation.distances import wilson_interval
from zoo.evaluation.evaluate import real_data
from zoo.point3d.data import FURNITURE, Clouds, open_clouds
from zoo.point3d.judge import Judge, load_judge
from zoo.point3d.metrics import chamfer, compare_sets, distances, earth_mover, interval, spacing, thickness, trees

#: a category with fewer reference shapes than this is left out
FEWEST = 3
#: reference shapes of a user's own data, at most
MOST = 200
#: draws of as many samples of each category as it has reference shapes
DRAWS = 50
#: training shapes of a category that stand for samples in the ceiling, for each of its reference shapes
CEILING = 2
#: points of each cloud for the earth mover's distance, which is cubic in them
MOVED = 256
#: a sample nearer to a training shape than this share of real held-out shapes counts as a copy: four or five of 88
COPY_SHARE = 0.05

Cloud = NDArray[np.float32]
Numbers = NDArray[Any]


class Evaluator(evaluate.Evaluator):
    """Measures sets of clouds against one reference; what depends on real data alone is computed once and kept.

    Args:
        judge: gives labels; None where there is none: accuracy is not measured then.
        reference: real held-out shapes; categories with fewer than three are left out. Without labels all are one category.
        train: the shapes that the generator was trained on.
        split: what the reference is, for the protocol.
        seed: of the draws and of the floor.
        where: whose judge it is, in words, where it is not the packaged one: its classes may then be more, and in another
            order; the labels' names tell them.

    Raises:
        DataError: labels that the judge does not know, or no category with three shapes.
    """

    better = {
        "nna": "near 0.5",
        "coverage": "higher",
        "mmd": "lower, blur too",
        "nna_emd": "near 0.5",
        "accuracy": "higher",
        "thickness": "near 1",
        "spacing": "near 1",
        "copy_rate": "lower",
        "nearest_copy": "higher",
    }

    def __init__(
        self,
        judge: Judge | None,
        reference: Clouds,
        train: Clouds,
        *,
        split: str = "test",
        seed: int = 0,
        where: str = "",
    ) -> None:
        self.judge, self.split, self.seed, self.where = judge, split, seed, where
        names = tuple(reference.labels.get("label", ()))
        if judge is not None and not where and (reference.label is None or train.label is None or names != judge.class_names):
            raise DataError(f"the shapes have the labels {names}, the judge knows {judge.class_names}.")
        if reference.label is None or train.label is None:
            names = ("shape",)
            reference, train = (Clouds(x.clouds, np.zeros(len(x.clouds), int), names) for x in (reference, train))
        if judge is None:
            self.better = {k: v for k, v in self.better.items() if k != "accuracy"}
        #: names of the categories, in the order of the labels
        self.names = names
        #: {category: how many reference shapes it has}
        trained = set(np.unique(np.asarray(train.label)).tolist())
        counts = np.bincount(np.asarray(reference.label))
        self.counts = {c: int(k) for c, k in enumerate(counts) if k >= FEWEST and c in trained}
        if not self.counts:
            raise DataError(f"{len(reference.clouds)} reference shapes: no category has {FEWEST}.")
        self.reference, self.labels = self._of(reference)
        self.train, self.train_labels = self._of(train)
        self._trees = trees(self.reference)

    def _of(self, clouds: Clouds) -> tuple[list[Cloud], Numbers]:
        """The clouds of the measured categories, category after category, and their labels."""
        label = np.asarray(clouds.label)
        rows = [i for c in self.counts for i in np.flatnonzero(label == c)]
        return [clouds.clouds[i].points for i in rows], label[rows]

    # ---------------------------------------------------------------- what real data alone decide

    @cached_property
    def _reference_distances(self) -> Numbers:
        return distances(self._trees, self._trees)

    @cached_property
    def _texture(self) -> dict[int, Numbers]:
        """{category: mean thickness and spacing of its reference shapes}."""
        values = np.array([(thickness(t), spacing(t)) for t in self._trees])
        return {c: values[self.labels == c].mean(0).clip(1e-6) for c in self.counts}  # a flat shape has no thickness

    @cached_property
    def _plain_train(self) -> list[Any]:
        return trees([plain(x) for x in self.train])

    def _nearest(self, clouds: Sequence[Cloud], labels: Numbers) -> Numbers:
        """Chamfer distance (n,) of each cloud to the nearest training shape of its category, stretch taken away."""
        mates = [[self._plain_train[j] for j in np.flatnonzero(self.train_labels == c)] for c in labels]
        return np.array([min(chamfer(t, m) for m in own) for t, own in zip(trees(map(plain, clouds)), mates, strict=True)])

    @cached_property
    def _typical(self) -> tuple[dict[int, float], Numbers]:
        """{category: its reference shapes' mean distance to the nearest training shape}, and each one's relative to it."""
        nearest = self._nearest(self.reference, self.labels)
        # held-out shapes that are all copies of training shapes have no distance
        mean = {c: max(float(nearest[self.labels == c].mean()), 1e-12) for c in self.counts}
        return mean, nearest / [mean[c] for c in self.labels]

    @property
    def copy_distance(self) -> float:
        """A distance to the nearest training shape, relative to the category's mean, below which it is a copy."""
        return float(np.quantile(self._typical[1], COPY_SHARE))

    def _copies(self, relative: Numbers) -> dict[str, float]:
        return {"copy_rate": float((relative < self.copy_distance).mean()), "nearest_copy": float(relative.min())}

    # ---------------------------------------------------------------- measuring

    def check(self, model: Generator) -> None:
        if self.judge is not None and not self.where:
            check(model, self.judge)

    def asked(self, model: Generator, n: int, seed: int) -> dict[str, Any]:
        """Of each measured category as many as it has reference shapes, the rest in turn; nothing of a model without labels."""
        if not model.recipe.classes("label") or self.names == ("shape",):
            return {}
        if not self.where:
            return {"label": [list(self.counts)[i % len(self.counts)] for i in range(n)]}
        first = [self.names[c] for c, k in self.counts.items() for _ in range(k)]
        return {"label": (first + [self.names[list(self.counts)[i % len(self.counts)]] for i in range(n)])[:n]}

    def measure(self, made: Samples, **options: Any) -> dict[str, Any]:
        if self.names == ("shape",):
            return self.evaluate([s.points for s in made], [0] * len(made))
        labels = [self.names.index(name) for name in made.conditions["label"]]
        return self.evaluate([s.points for s in made], labels)

    def evaluate(self, samples: Sequence[Cloud], labels: Sequence[int]) -> dict[str, Any]:
        """All metrics of clouds (N, 3) of the categories `labels`, with ceiling, floor, protocol and each category's own.

        Raises:
            ShapeError: fewer samples of a category than it has reference shapes, or not one label a sample.
            DataError: samples of a category that is not measured.
        """
        start, asked, n = time.perf_counter(), np.asarray(labels), len(samples)
        own, per_class = self.compare(samples, asked)
        own |= self._copies(self._nearest(samples, asked) / [self._typical[0][c] for c in asked])
        shares = [k for k in ("accuracy", "copy_rate") if k in self.better]
        own |= {f"{k}_interval": list(wilson_interval(round(own[k] * n), n)) for k in shares}
        metrics: dict[str, dict[str, Any]] = {
            name: {"value": own[name], "ceiling": self.ceiling[name], "floor": self.floor[name], "better": better}
            for name, better in self.better.items()
        }
        for name in ("nna", "coverage", "mmd", "nna_emd", *shares):
            metrics[name]["interval"] = own[f"{name}_interval"]
        protocol = self._protocol(n) | {"seconds": round(time.perf_counter() - start, 1)}
        return {"metrics": metrics, "per_class": per_class, "protocol": protocol}

    def compare(self, samples: Sequence[Cloud], labels: Numbers) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Every metric but copying of any set of clouds, and those of each category; errors as `evaluate`."""
        self._check(samples, labels)
        own = trees(samples)
        inner, across, reference = distances(own, own), distances(own, self._trees), self._reference_distances
        rng = np.random.default_rng(self.seed)
        draws = [  # in the reference's order of categories
            np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in self.counts.items()])
            for _ in range(DRAWS)
        ]
        guessed = self._guessed(samples)
        texture = np.array([(thickness(t), spacing(t)) / self._texture[c] for t, c in zip(own, labels, strict=True)])

        def summary(members: Numbers, held: Numbers) -> dict[str, Any]:
            """The metrics of some samples against some reference shapes."""
            sets = []
            for draw in draws:
                d = draw[held]
                sets.append(compare_sets(inner[np.ix_(d, d)], across[np.ix_(d, held)], reference[np.ix_(held, held)]))
            result: dict[str, Any] = {
                **({} if guessed is None else {"accuracy": float((guessed == labels)[members].mean())}),
                "thickness": float(texture[members, 0].mean()),
                "spacing": float(texture[members, 1].mean()),
            }
            for name, field in (("nna", "nearest"), ("coverage", "covered"), ("mmd", "matched")):
                result[name], *result[f"{name}_interval"] = interval([getattr(s, field) for s in sets])
            return result

        everything = summary(np.arange(len(samples)), np.arange(len(self.reference)))
        # each cloud's own draw: files may keep the points of a part side by side
        a, b = (
            [x[rng.permutation(len(x))[:MOVED]] for x in clouds] for clouds in ([samples[i] for i in draws[0]], self.reference)
        )
        moved = compare_sets(distances(a, a, earth_mover), distances(a, b, earth_mover), distances(b, b, earth_mover))
        everything["nna_emd"], *everything["nna_emd_interval"] = interval([moved.nearest])
        per_class = {}
        for c, k in self.counts.items():
            members = np.flatnonzero(labels == c)
            own_metrics = summary(members, np.flatnonzero(self.labels == c))
            per_class[self.names[c]] = {"n": len(members), "reference": k} | own_metrics
        return everything, per_class

    def _guessed(self, clouds: Sequence[Cloud]) -> Numbers | None:
        """The category (n,) that the judge sees in each cloud, -1 for one that the data do not have; None without a judge."""
        if self.judge is None:
            return None
        known = {name: c for c, name in enumerate(self.names)}
        number = np.array([known.get(name, -1) for name in self.judge.class_names])
        rows: list[Numbers] = []
        for cloud in clouds:  # of one size or of several
            rows.append(self.judge.features(torch.from_numpy(cloud)[None], 50)[1].argmax(1).numpy())
        return number[np.concatenate(rows)]

    def _check(self, samples: Sequence[Cloud], labels: Numbers) -> None:
        if labels.shape != (len(samples),):
            raise ShapeError(f"{len(samples)} clouds need as many labels, got {labels.shape}.")
        names = self.names
        if not np.isin(labels, list(self.counts)).all():
            known = ", ".join(names[c] for c in self.counts)
            raise DataError(f"only categories with {FEWEST} reference shapes or more are measured: {known}.")
        for c, k in self.counts.items():
            if (found := int((labels == c).sum())) < k:
                raise ShapeError(f"{found} samples of {names[c]!r}, but {k} reference shapes: give at least as many of each.")

    @cached_property
    def ceiling(self) -> dict[str, Any]:
        """The best to ask for: real training shapes; for accuracy and copying, the held-out ones."""
        guessed, rng = self._guessed(self.reference), np.random.default_rng(self.seed)
        right = {} if guessed is None else {"accuracy": float((guessed == self.labels).mean())}
        picked = [rng.permutation(np.flatnonzero(self.train_labels == c))[: CEILING * k] for c, k in self.counts.items()]
        rows = np.concatenate(picked)
        return self.compare([self.train[i] for i in rows], self.train_labels[rows])[0] | right | self._copies(self._typical[1])

    @cached_property
    def floor(self) -> dict[str, Any]:
        """A trivial baseline: points of all training shapes of a category together; for copying, training shapes."""
        rng, clouds = np.random.default_rng(self.seed), []
        for c in self.labels:
            pool = np.concatenate([self.train[j] for j in np.flatnonzero(self.train_labels == c)])
            clouds.append(pool[rng.permutation(len(pool))[: len(self.reference[0])]])
        return self.compare(clouds, self.labels)[0] | {"copy_rate": 1.0, "nearest_copy": 0.0}

    def _protocol(self, n: int) -> dict[str, Any]:
        """How the numbers were made, in words."""
        counts = self.counts.values()
        return {
            "samples": n,
            "reference": f"{len(self.reference)} real {self.split} shapes of the {len(self.counts)} categories of {FEWEST} or "
            f"more; {min(counts)} to {max(counts)} of one are too few to tell categories apart",
            "sets": f"all categories pooled, of each as many samples as it has reference shapes, mean of {DRAWS} such draws; "
            "intervals 95 %, bootstrap over draws and members",
            "nna": "accuracy of the 1-nearest-neighbour classifier, Chamfer distance (both mean squared ones, summed) of "
            f"{len(self.reference[0])} points; nna_emd: one draw, earth mover's distance of {MOVED} points drawn "
            "from each cloud, exact",
            "mmd": "mean Chamfer distance of a reference shape to its nearest sample; blur lowers it and noise raises "
            "coverage: read the two together",
            "accuracy": "not measured: there is no judge of these labels. Train one: zoo judge --data DIR --for MODEL"
            if self.judge is None
            else f"share to which a PointNet{' (' + self.where + ')' if self.where else ''} gives the label asked for; on real "
            f"test shapes {self.judge.card.get('accuracy', {}).get('test', {}).get('value')}",
            **({"chance": self.judge.card.get("chance", {}).get("value")} if self.judge is not None and self.where else {}),
            "thickness": "root mean square distance of 12 neighbours to their plane; spacing: distance to the nearest point; "
            "each relative to the category's reference shapes",
            "copy_rate": "share nearer to a training shape of its category (Chamfer distance, all axes brought to one spread) "
            f"than {self.copy_distance:.3f} of the category's mean for real {self.split} shapes, as {COPY_SHARE:.0%} of these "
            f"are; nearest_copy: the smallest such ratio; {len(self.train)} training shapes",
            "ceiling": f"{CEILING} real training shapes for each of the reference, drawn at random; for accuracy and copying "
            "the latter",
            "floor": "points of all training shapes of a category together; for copying, training shapes",
            "subsets": f"all drawn at random (seed {self.seed})",
            "seed": self.seed,
        }


def plain(x: Cloud) -> Cloud:
    """A cloud moved to mean 0 with the same spread along each axis: stretching it changes nothing."""
    centred = x - x.mean(0)
    return centred / centred.std(0).clip(1e-6)


def evaluator(
    data: str | Path | None = None,
    split: str = "test",
    model: Generator | None = None,
    judge: str | Path | None = None,
    skip_unreadable: bool = False,
) -> Evaluator:
    """The `Evaluator` of a model; keep it to measure many settings.

    Of shapes with the packaged judge's labels it is that one's. Of any others it is that of `judge`, else of the judge in the
    model's folder, else one without accuracy.
    """
    source, packaged = real_data(data, f"point3d/{FURNITURE}", f"--data {FURNITURE}"), load_judge()

    def opened(part: str) -> Clouds:
        return open_clouds(source, part, skip_unreadable=skip_unreadable)

    if model is None:
        return Evaluator(packaged, opened(split), opened("train"), split=split)
    found, where = own.judge_of(Judge, judge, model)
    if found is None and (data is None or model.recipe.classes("label") == packaged.class_names):
        check(model, packaged)
        held = opened(split)
        if tuple(held.labels.get("label", ())) == packaged.class_names:
            return Evaluator(packaged, held, opened("train"), split=split)
    held, train = opened(split), opened("train")
    names = tuple(held.labels.get("label", ()))
    if found is not None:
        own.matched(found, model, names)
    classes = model.recipe.classes("label")
    if classes and set(classes) <= set(names):
        held, train = (_only(x, classes) for x in (held, train))
    else:
        held, train = (Clouds(x.clouds, None, ()) for x in (held, train))
    return Evaluator(found, _drawn(held), _unbalanced(train), split=split, where=where or "no judge")


def _only(clouds: Clouds, names: Sequence[str]) -> Clouds:
    """The clouds of some categories, with the labels in their order."""
    own = [clouds.labels["label"][int(c)] for c in np.asarray(clouds.label)]
    rows = [i for i, name in enumerate(own) if name in names]
    return Clouds([clouds.clouds[i] for i in rows], [list(names).index(own[i]) for i in rows], names)


def _unbalanced(clouds: Clouds) -> Clouds:
    return Clouds(clouds.clouds, clouds.label, clouds.labels.get("label", ()))


def _drawn(clouds: Clouds) -> Clouds:
    """At most `MOST` of the clouds, drawn at random: distances of all pairs are measured."""
    rows = evaluate.draw(len(clouds.clouds), MOST, 0)
    label = None if clouds.label is None else np.asarray(clouds.label)[rows]
    return Clouds([clouds.clouds[i] for i in rows], label, clouds.labels.get("label", ()))


def check(model: Generator, judge: Judge) -> None:
    """Refuse a model of other categories than the judge's."""
    if model.recipe.classes("label") != judge.class_names:
        raise ConfigError(f"{model!r}: the judge knows models with the labels {judge.class_names} only.")

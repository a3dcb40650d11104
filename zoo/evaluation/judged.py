"""The evaluator with a judge: each number beside the same one for real data (ceiling) and for a trivial baseline (floor).

A domain's own evaluator subclasses `JudgedEvaluator` with what only it knows: how a saved file rounds a sample, where copies
are looked for, further metrics.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from zoo.contract.domain import Generator
from zoo.contract.samples import Samples
from zoo.errors import DataError, ShapeError
from zoo.evaluation.distances import (
    NEIGHBOURS,
    frechet_distance,
    kernel_distance,
    nearest_distances,
    neighbour_radii,
    precision_recall,
    wilson_interval,
)
from zoo.evaluation.evaluate import Evaluator, draw
from zoo.evaluation.judge import Features, Judge

#: a sample nearer to a training sample than this share of real held-out samples counts as a copy
COPY_SHARE = 0.01
#: held-out samples that set the copy distance
COPY_ROWS = 5000
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
#: real training subsets that the ceiling of the Frechet distance averages over: one alone can be off by half
CEILING_SUBSETS = 5


class Own:
    """What is known of the user's own data, for an evaluator.

    Args:
        where: of the judge or of the features, in words.
        names: labels of the reference (N,) by name; None where the model has none.
        drawn: what of the data was taken, in words; "" for all.
        texts: captions of the reference (N,), where the model is asked by text; None where it is not.
    """

    def __init__(
        self, where: str, names: Sequence[str] | None, drawn: str = "", texts: Sequence[str | None] | None = None
    ) -> None:
        self.where, self.names, self.drawn, self.texts = where, names, drawn, texts

    def asked(self, model: Generator, n: int, seed: int) -> dict[str, Any]:
        """Labels and captions for n samples, as often as the reference has them; nothing where the model has none."""
        given = {k: v for k, v in (("label", self.names), ("text", self.texts)) if v is not None}
        if not given:
            return {}
        total = len(next(iter(given.values())))
        order = draw(total, total, seed)
        return {k: [v[order[i % total]] for i in range(n)] for k, v in given.items()}

    def labels(self, samples: Samples, classes: Sequence[str]) -> Tensor:
        """What each sample was asked to be, as numbers (n,) of the judge's classes; zeros where there are none."""
        if not classes:
            return torch.zeros(len(samples), dtype=torch.long)
        asked = samples.conditions.get("label", [None] * len(samples))
        if wrong := [name for name in asked if name not in classes]:
            raise DataError(f"samples of the label {wrong[0]!r} cannot be judged: the judge knows {', '.join(classes)}.")
        return torch.tensor([classes.index(name) for name in asked])

    def protocol(self, judge: Judge | Features, n: int) -> dict[str, Any]:
        """Lines of the protocol, in the place of those of a packaged judge."""
        kind = "penultimate features" if judge.class_names else "features of a net that knows no labels"
        told = "the numbers compare only with others of this net and number of samples"
        lines = {"features": f"{judge.width} {kind}: {self.where}; {told}"}
        if isinstance(judge, Features) and not judge.class_names:
            lines["chosen"] = judge.note or "the one net there is"
            lines["accuracy"] = "not measured: there is no judge of these labels. Train one: zoo judge --data DIR --for MODEL"
        else:
            lines["chance"] = judge.card.get("chance", {}).get("value")
            lines["labels"] = "asked for as often as the reference has them"
        if self.texts is not None:
            lines["texts"] = (
                "the captions of the reference; whether they are shown is not measured, as there is no judge of them"
            )
        if n < judge.width:
            lines["few"] = f"{n} samples are fewer than the features: the Frechet distance says little, see kid"
        return lines | ({"drawn": self.drawn} if self.drawn else {})


class JudgedEvaluator(Evaluator):
    """Measures sets of samples against one reference; what depends on real data alone is computed once and kept.

    Args:
        judge: gives labels and features.
        reference: real held-out samples (N, *S) and labels (N,) int64.
        train: the samples (M, *S) that the generator was trained on.
        split: what the reference is, for the protocol: "test" for a report, "validation" for every choice.
        seed: of the random subsets and of the noise.
        own: what is known of the user's own data; None for the data of a packaged judge.

    A judge without classes, see `Features`, compares features alone: there is no accuracy then, and labels count for nothing.

    Raises:
        ShapeError: samples or labels of the wrong shape.
        DataError: samples that are not finite floats, or labels that the judge does not know.
    """

    #: the domain's word for samples, for the protocol
    noun = "samples"
    #: metric -> which way is good
    better: dict[str, str] = {
        "accuracy": "higher",
        "frechet": "lower",
        "kid": "lower",
        "precision": "higher",
        "recall": "higher",
        "copy_rate": "lower",
        "nearest_copy": "higher",
    }

    def __init__(
        self,
        judge: Judge | Features,
        reference: tuple[Tensor, Tensor],
        train: Tensor,
        *,
        split: str = "test",
        seed: int = 0,
        own: Own | None = None,
    ) -> None:
        self.judge, self.split, self.seed, self.own = judge, split, seed, own
        if not judge.class_names:  # features tell no labels
            self.better = {k: v for k, v in self.better.items() if k != "accuracy"}
        self.reference, self.labels = self._checked(*reference)
        judge.check(train)
        self.train = self.prepare(train)
        # kept per size; a cache on the method itself would keep the evaluator alive for ever
        self.ceiling, self.floor = cache(self._ceiling), cache(self._floor)

    # ---------------------------------------------------------------- what a domain knows

    def prepare(self, x: Tensor) -> Tensor:
        """Samples as a saved file holds them, float32 (n, *S); a DataError for what is not finite."""
        return x

    def points(self, x: Tensor) -> Tensor:
        """Samples (n, *S) as vectors (n, D) whose Euclidean distance tells a copy."""
        return x.flatten(1)

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """The trivial baseline: n prepared samples (n, *S)."""
        raise NotImplementedError

    def extra(self, x: Tensor, features: Tensor) -> dict[str, float]:
        """Further metrics of samples (n, *S), named as in `better`; the same call makes their ceiling and floor."""
        return {}

    def protocol(self, n: int) -> dict[str, Any]:
        """Further lines of the protocol."""
        return {}

    # ---------------------------------------------------------------- measuring

    def asked(self, model: Generator, n: int, seed: int) -> dict[str, Any]:
        """The classes in turn, by their numbers: a model may call them by other names than the judge.

        Of the user's own data the labels are asked for by their names, as often as the reference has them.
        """
        if self.own is not None:
            return self.own.asked(model, n, seed)
        return {"label": [i % len(self.judge.class_names) for i in range(n)]}

    def measure(self, made: Samples, **options: Any) -> dict[str, Any]:
        return self.evaluate(made.tensor, self.labels_of(made))

    def labels_of(self, samples: Samples) -> Tensor:
        """What each sample was asked to be, as class numbers (n,)."""
        if self.own is not None:
            return self.own.labels(samples, self.judge.class_names)
        labels: Tensor = samples.plan.cond["label"]
        return labels

    def evaluate(self, samples: Tensor, labels: Tensor) -> dict[str, Any]:
        """All metrics of generated samples with ceiling, floor, protocol and the accuracy of each class.

        Args:
            samples: (n, *S) float.
            labels: (n,) int64, what each sample was asked to be.

        Returns:
            JSON-ready {"metrics": {name: {"value", "ceiling", "floor", "better"}}, "per_class": {class: {"n",
            "accuracy", "interval", "ceiling"}}, "protocol": {...}}. Accuracy and copy_rate also have an
            "interval" (95 %), kid a "std" over its subsets, frechet a "ceiling_range".

        Raises:
            ShapeError: samples or labels of the wrong shape, or too few samples (more than 3 are needed).
            DataError: samples that are not finite floats, or labels that the judge does not know.
            ZooError: torchmetrics is not installed.
        """
        start = time.perf_counter()
        samples, labels = self._checked(samples, labels)
        n, features, right = len(labels), *self._judged(samples, labels)
        own = self.compare(samples, features) | self._copies(samples)
        own["accuracy"] = right.double().mean().item()
        classed = "accuracy" in self.better
        ceiling, floor = self.ceiling(n), self.floor(n)
        metrics: dict[str, dict[str, Any]] = {
            name: {"value": own[name], "ceiling": ceiling[name], "floor": floor[name], "better": better}
            for name, better in self.better.items()
        }
        if classed:
            metrics["accuracy"]["interval"] = list(wilson_interval(int(right.sum()), n))
        metrics["copy_rate"]["interval"] = list(wilson_interval(round(own["copy_rate"] * n), n))
        metrics["kid"]["std"] = own["kid_std"]
        metrics["frechet"]["ceiling_range"] = [ceiling["frechet_low"], ceiling["frechet_high"]]
        protocol = self._protocol(n) | {"seconds": round(time.perf_counter() - start, 1)}
        return {"metrics": metrics, "per_class": self._per_class(labels, right) if classed else {}, "protocol": protocol}

    def compare(self, samples: Tensor, features: Tensor | None = None) -> dict[str, float]:
        """Distances between any set of samples and the reference; needs no labels.

        Args:
            samples: (n, *S) float.
            features: those of the prepared samples, where they are known already.

        Returns:
            frechet, kid, kid_std, precision, recall and the domain's `extra` metrics.

        Raises:
            As `evaluate`.
        """
        samples = self.prepare(samples)
        features = self.judge.features(samples)[0] if features is None else features
        real, radii = self._reference_features, self._reference_radii
        shares = precision_recall(features, real, real_radii=radii)
        size = min(KID_SUBSET_SIZE, len(features), len(real))
        kid = kernel_distance(features, real, subsets=KID_SUBSETS, subset_size=size, seed=self.seed)
        return {
            "frechet": frechet_distance(features, real),
            "kid": kid.mean,
            "kid_std": kid.std,
            "precision": shares.precision,
            "recall": shares.recall,
        } | self.extra(samples, features)

    def _ceiling(self, n: int) -> dict[str, float]:
        """The best to ask for: real training samples; for accuracy and copying, held-out ones."""
        subsets = torch.split(self.train[self._draw(len(self.train), n * self._ceiling_subsets(n))], n)
        features = [self.judge.features(subset)[0] for subset in subsets]
        frechet = [frechet_distance(f, self._reference_features) for f in features]
        distance = self._held_out_distances
        return self.compare(subsets[0], features[0]) | {
            "frechet": sum(frechet) / len(frechet),
            "frechet_low": min(frechet),
            "frechet_high": max(frechet),
            "accuracy": self._reference_right.double().mean().item(),
            "copy_rate": (distance < self.copy_distance).double().mean().item(),
            "nearest_copy": distance.min().item(),
        }

    def _ceiling_subsets(self, n: int) -> int:
        """How many different subsets of n training samples there are, up to CEILING_SUBSETS."""
        return max(1, min(CEILING_SUBSETS, len(self.train) // n))

    def _floor(self, n: int) -> dict[str, float]:
        """Trivial baselines: noise with the classes in turn; for copying, training samples."""
        noise = self.noise(n, torch.Generator().manual_seed(self.seed))
        features, right = self._judged(noise, torch.arange(n) % max(1, len(self.judge.class_names)))
        copies = self._copies(self.train[self._draw(len(self.train), min(n, 100))])
        return self.compare(noise, features) | copies | {"accuracy": right.double().mean().item()}

    def _copies(self, samples: Tensor) -> dict[str, float]:
        """Share of samples that are copies of training samples, and the smallest distance."""
        distance = nearest_distances(self.points(samples), self._train_points)[0]
        return {
            "copy_rate": (distance < self.copy_distance).double().mean().item(),
            "nearest_copy": distance.min().item(),
        }

    @property
    def copy_distance(self) -> float:
        """Euclidean distance of `points` below which a sample counts as a copy."""
        return self._held_out_distances.quantile(COPY_SHARE).item()

    @cached_property
    def _train_points(self) -> Tensor:
        return self.points(self.train)

    @cached_property
    def _held_out_distances(self) -> Tensor:
        rows = self._draw(len(self.reference), COPY_ROWS)
        return nearest_distances(self.points(self.reference[rows]), self._train_points)[0]

    @cached_property
    def _reference_judged(self) -> tuple[Tensor, Tensor]:
        return self._judged(self.reference, self.labels)

    @property
    def _reference_features(self) -> Tensor:
        return self._reference_judged[0]

    @property
    def _reference_right(self) -> Tensor:
        return self._reference_judged[1]

    @cached_property
    def _reference_radii(self) -> Tensor:
        return neighbour_radii(self._reference_features)

    def _judged(self, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, D) and whether the judge sees the label (n,) bool."""
        features, logits = self.judge.features(samples)
        if not self.judge.class_names:
            return features, torch.zeros(len(features), dtype=torch.bool)
        return features, logits.argmax(1) == labels

    def _checked(self, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared samples and labels on the CPU."""
        self.judge.check(samples)
        if labels.shape != (len(samples),):
            raise ShapeError(f"{len(samples)} {self.noun} need labels ({len(samples)},), got {tuple(labels.shape)}")
        if len(labels) <= NEIGHBOURS:
            raise ShapeError(f"{len(labels)} {self.noun} are too few to measure: give more than {NEIGHBOURS}")
        classes = len(self.judge.class_names) or 1
        if labels.is_floating_point() or labels.min() < 0 or labels.max() >= classes:
            came = f"{labels.dtype} {labels.min()}..{labels.max()}"
            raise DataError(f"labels must be whole numbers 0..{classes - 1}, got {came}")
        return self.prepare(samples.cpu()), labels.cpu().long()

    def _draw(self, total: int, n: int) -> Tensor:
        """n different rows of `total` (all of them where there are fewer)."""
        return torch.tensor(draw(total, n, self.seed), dtype=torch.long)

    def _per_class(self, labels: Tensor, right: Tensor) -> dict[str, dict[str, Any]]:
        """Accuracy of each class that was asked for."""
        out = {}
        for c, name in enumerate(self.judge.class_names):
            hits, real = right[labels == c], self._reference_right[self.labels == c]
            if len(hits):
                out[name] = {
                    "n": len(hits),
                    "accuracy": hits.double().mean().item(),
                    "interval": list(wilson_interval(int(hits.sum()), len(hits))),
                    "ceiling": real.double().mean().item() if len(real) else None,
                }
        return out

    def _protocol(self, n: int) -> dict[str, Any]:
        """How the numbers were made, in words."""
        kid_rows = min(KID_SUBSET_SIZE, n, len(self.reference))
        if self.own is not None:
            return self._common(n, kid_rows) | self.own.protocol(self.judge, n) | self.protocol(n)
        return self._common(n, kid_rows) | self.protocol(n)

    def _common(self, n: int, kid_rows: int) -> dict[str, Any]:
        return {
            "samples": n,
            "reference": f"{len(self.reference)} real {self.split} {self.noun}",
            "features": f"{self.judge.width} penultimate features of this domain's judge: "
            "the numbers compare only with others of this judge at this number of samples",
            "judge_test_accuracy": self.judge.card.get("accuracy", {}).get("test", {}).get("value"),
            "accuracy": "share that the judge gives the label that was asked for; interval 95 % (Wilson)",
            "frechet": "squared Frechet distance of Gaussian fits (arXiv:1706.08500)",
            "kid": f"unbiased cubic-kernel MMD (arXiv:1801.01401), {KID_SUBSETS} subsets of {kid_rows}",
            "precision_recall": f"nearest-neighbour manifolds, k = {NEIGHBOURS} (arXiv:1904.06991)",
            "copy_rate": f"share nearer than {self.copy_distance:.4f} (Euclidean) to one "
            f"of {len(self.train)} training {self.noun}, as {COPY_SHARE:.0%} of real held-out ones are",
            "nearest_copy": f"smallest such distance; ceiling over {len(self._held_out_distances)} {self.split} {self.noun}",
            "ceiling": f"{min(n, len(self.train))} random real training {self.noun} in place of samples; for "
            f"accuracy and copying the real {self.split} {self.noun}; for the Frechet distance the mean of "
            f"{self._ceiling_subsets(n)} such subsets, with their range",
            "subsets": f"all drawn at random (seed {self.seed}): of real {self.noun} for ceilings, the copy distance and the "
            "floor of copying, and those of kid",
            "seed": self.seed,
        }

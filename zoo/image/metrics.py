"""How good generated Fashion-MNIST pictures are, each number beside the same one for real pictures and for a
trivial baseline.

Everything is measured on the pictures that a PNG would hold: samples are clamped to [-1, 1] and rounded to
256 levels first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from zoo.core.metrics import (
    NEIGHBOURS,
    frechet_distance,
    kernel_distance,
    nearest_distances,
    neighbour_radii,
    precision_recall,
    wilson_interval,
)
from zoo.errors import DataError, ShapeError
from zoo.image.judge import Judge, check_pictures

#: which way is good
BETTER = {
    "accuracy": "higher",
    "frechet": "lower",
    "kid": "lower",
    "precision": "higher",
    "recall": "higher",
    "pixel_deviation": "near 1",
    "copy_rate": "lower",
    "nearest_copy": "higher",
}
#: a sample nearer to a training picture than this share of real held-out pictures counts as a copy
COPY_SHARE = 0.01
#: held-out pictures that set the copy distance
COPY_ROWS = 5000
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
#: real training subsets that the ceiling of the Frechet distance averages over: one alone can be off by half
CEILING_SUBSETS = 5


def quantise(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] at the 256 levels of a saved file; values outside are clamped, as saving does.

    Args:
        pictures: floating point, any shape.

    Returns:
        float32 of the same shape: k / 127.5 - 1 for k in 0..255.

    Raises:
        DataError: not floating point, or NaN or infinity.
    """
    if not pictures.is_floating_point():
        raise DataError(f"pictures must be floating point in [-1, 1], got {pictures.dtype}; use x / 127.5 - 1")
    if not pictures.isfinite().all():
        raise DataError("pictures hold NaN or infinity: the sampler or the training went wrong")
    return ((pictures.detach().float() + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


class Evaluator:
    """Measures sets of pictures against one reference; what depends on real pictures alone is computed once
    and kept.

    Use it instead of `evaluate` for a curve of many settings.

    Args:
        judge: gives labels and features.
        reference: real held-out pictures (N, 1, 28, 28) in [-1, 1] and labels (N,) int64.
        train: the pictures (M, 1, 28, 28) that the generator was trained on.
        split: what the reference is, for the protocol: "test" for a report, "validation" for every choice.
        seed: of the random subsets and of the noise.

    Raises:
        ShapeError: pictures or labels of the wrong shape.
        DataError: pictures that are not finite floats, or labels that the judge does not know.
    """

    def __init__(
        self,
        judge: Judge,
        reference: tuple[Tensor, Tensor],
        train: Tensor,
        *,
        split: str = "test",
        seed: int = 0,
    ) -> None:
        self.judge, self.split, self.seed = judge, split, seed
        self.reference, self.labels = self._checked(*reference)
        check_pictures(train)
        self.train = quantise(train)
        # kept per size; a cache on the method itself would keep the evaluator alive for ever
        self.ceiling, self.floor = cache(self._ceiling), cache(self._floor)

    def evaluate(self, samples: Tensor, labels: Tensor) -> dict[str, Any]:
        """All metrics of generated pictures with ceiling, floor, protocol and the accuracy of each class.

        Args:
            samples: (n, 1, 28, 28) float in [-1, 1].
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
        ceiling, floor = self.ceiling(n), self.floor(n)
        metrics: dict[str, dict[str, Any]] = {
            name: {"value": own[name], "ceiling": ceiling[name], "floor": floor[name], "better": better}
            for name, better in BETTER.items()
        }
        metrics["accuracy"]["interval"] = list(wilson_interval(int(right.sum()), n))
        metrics["copy_rate"]["interval"] = list(wilson_interval(round(own["copy_rate"] * n), n))
        metrics["kid"]["std"] = own["kid_std"]
        metrics["frechet"]["ceiling_range"] = [ceiling["frechet_low"], ceiling["frechet_high"]]
        protocol = self._protocol(n) | {"seconds": round(time.perf_counter() - start, 1)}
        return {"metrics": metrics, "per_class": self._per_class(labels, right), "protocol": protocol}

    def compare(self, pictures: Tensor, features: Tensor | None = None) -> dict[str, float]:
        """Distances between any set of pictures and the reference; needs no labels.

        Args:
            pictures: (n, 1, 28, 28) float in [-1, 1].
            features: those of the quantised pictures, where they are known already.

        Returns:
            frechet, kid, kid_std, precision, recall and pixel_deviation: the standard deviation over
            pictures, averaged over pixels, divided by the reference's (below 1: less variety than real).

        Raises:
            As `evaluate`.
        """
        pictures = quantise(pictures)
        features = self.judge.features(pictures)[0] if features is None else features
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
            "pixel_deviation": _deviation(pictures) / _deviation(self.reference),
        }

    def _ceiling(self, n: int) -> dict[str, float]:
        """The best to ask for: real training pictures as samples; for accuracy and copying, held-out ones."""
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
        """How many different subsets of n training pictures there are, up to CEILING_SUBSETS."""
        return max(1, min(CEILING_SUBSETS, len(self.train) // n))

    def _floor(self, n: int) -> dict[str, float]:
        """Trivial baselines: uniform noise with the classes in turn; for copying, training pictures."""
        rng = torch.Generator().manual_seed(self.seed)
        noise = quantise(torch.rand(n, *self.reference.shape[1:], generator=rng) * 2 - 1)
        features, right = self._judged(noise, torch.arange(n) % len(self.judge.class_names))
        copies = self._copies(self.train[self._draw(len(self.train), min(n, 100))])
        return self.compare(noise, features) | copies | {"accuracy": right.double().mean().item()}

    def _copies(self, pictures: Tensor) -> dict[str, float]:
        """Share of pictures that are copies of training pictures, and the smallest distance."""
        distance = nearest_distances(pictures.flatten(1), self.train.flatten(1))[0]
        return {
            "copy_rate": (distance < self.copy_distance).double().mean().item(),
            "nearest_copy": distance.min().item(),
        }

    @property
    def copy_distance(self) -> float:
        """Euclidean pixel distance, in units of [-1, 1], below which a picture counts as a copy."""
        return self._held_out_distances.quantile(COPY_SHARE).item()

    @cached_property
    def _held_out_distances(self) -> Tensor:
        rows = self._draw(len(self.reference), COPY_ROWS)
        return nearest_distances(self.reference[rows].flatten(1), self.train.flatten(1))[0]

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

    def _judged(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, D) and whether the judge sees the label (n,) bool."""
        features, logits = self.judge.features(pictures)
        return features, logits.argmax(1) == labels

    def _checked(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised pictures and labels on the CPU."""
        check_pictures(pictures)
        if labels.shape != (len(pictures),):
            raise ShapeError(f"{len(pictures)} pictures need labels ({len(pictures)},), got {tuple(labels.shape)}")
        if len(labels) <= NEIGHBOURS:
            raise ShapeError(f"{len(labels)} pictures are too few to measure: give more than {NEIGHBOURS}")
        classes = len(self.judge.class_names)
        if labels.is_floating_point() or labels.min() < 0 or labels.max() >= classes:
            came = f"{labels.dtype} {labels.min()}..{labels.max()}"
            raise DataError(f"labels must be whole numbers 0..{classes - 1}, got {came}")
        return quantise(pictures.cpu()), labels.cpu().long()

    def _draw(self, total: int, n: int) -> Tensor:
        """n different rows of `total` (all of them where there are fewer)."""
        return torch.randperm(total, generator=torch.Generator().manual_seed(self.seed))[:n]

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
        return {
            "samples": n,
            "reference": f"{len(self.reference)} real {self.split} pictures",
            "pixels": "clamped to [-1, 1] and rounded to 256 levels, as in a saved file",
            "features": f"{self.judge.widths[-1]} penultimate features of the Fashion-MNIST judge, not of Inception: "
            "the numbers compare only with others of this judge at this number of samples",
            "judge_test_accuracy": self.judge.card.get("accuracy", {}).get("test", {}).get("value"),
            "accuracy": "share that the judge gives the label that was asked for; interval 95 % (Wilson)",
            "frechet": "squared Frechet distance of Gaussian fits (arXiv:1706.08500)",
            "kid": f"unbiased cubic-kernel MMD (arXiv:1801.01401), {KID_SUBSETS} subsets of {kid_rows}",
            "precision_recall": f"nearest-neighbour manifolds, k = {NEIGHBOURS} (arXiv:1904.06991)",
            "pixel_deviation": "std over pictures, averaged over pixels, relative to the reference",
            "copy_rate": f"share nearer than {self.copy_distance:.4f} (Euclidean, pixels in [-1, 1]) to one "
            f"of {len(self.train)} training pictures, as {COPY_SHARE:.0%} of real held-out pictures are",
            "nearest_copy": f"smallest such distance; ceiling over {len(self._held_out_distances)} pictures",
            "ceiling": f"{min(n, len(self.train))} random real training pictures in place of samples; for "
            f"accuracy and copying the real {self.split} pictures; for the Frechet distance the mean of "
            f"{self._ceiling_subsets(n)} such subsets, with their range",
            "floor": f"{n} pictures of uniform noise; for copying, training pictures",
            "seed": self.seed,
        }


def evaluate(
    samples: Tensor,
    labels: Tensor,
    *,
    judge: Judge,
    reference: tuple[Tensor, Tensor],
    train: Tensor,
    split: str = "test",
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics of one set of generated pictures: `Evaluator(...).evaluate(samples, labels)`; see there."""
    return Evaluator(judge, reference, train, split=split, seed=seed).evaluate(samples, labels)


def format_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The "metrics" of a result as aligned text, one metric a line."""
    lines = [f"{'metric':16}{'value':>10}{'ceiling':>10}{'floor':>10}  better"]
    for name, m in metrics.items():
        lines.append(f"{name:16}" + "".join(f"{m[k]:10.4f}" for k in ("value", "ceiling", "floor")) + f"  {m['better']}")
    return "\n".join(lines)


def _deviation(pictures: Tensor) -> float:
    """Standard deviation over pictures, averaged over pixels."""
    return pictures.double().std(0).mean().item()

"""The loss on held-out data: always the same samples, noise levels and noise, so that its values can be compared."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.contract.codec import Codec
from zoo.contract.dataset import Bare, Batch, Dataset
from zoo.contract.domain import Domain
from zoo.contract.recipe import Recipe
from zoo.core import seeds
from zoo.errors import ConfigError, DataError
from zoo.training.fingerprint import fingerprint
from zoo.training.objective import Denoise, Objective, Trained

#: held-out samples that are looked at: so many training batches of them, within these bounds
BATCHES, LEAST, MOST = 4, 64, 256
#: and so many encoded numbers, which stay in memory
MOST_NUMBERS = 32_000_000
#: stream of random numbers: which samples, and their noise
HELD_OUT = 4


class HeldOut:
    """Some held-out samples, encoded once.

    Args:
        codec: on the CPU, fitted.
    """

    def __init__(self, dataset: Dataset, codec: Codec, recipe: Recipe) -> None:
        size = recipe.training.batch_size
        each = 1
        for axis in codec.shape:
            each *= axis
        count = min(len(dataset), max(LEAST, min(MOST, BATCHES * size)), max(1, MOST_NUMBERS // each))
        rows = torch.randperm(len(dataset), generator=seeds.generator(0, HELD_OUT))[:count].tolist()
        self.samples = count
        self.batches: list[Batch] = []
        for first in range(0, count, size):
            items = [dataset[i] for i in rows[first : first + size]]
            self.batches.append(codec.batch(items, None, recipe.conditions))  # without a generator there is no augmentation

    @torch.no_grad()
    def loss(self, model: Trained, objective: Objective, device: torch.device, bf16: bool) -> float:
        """The mean loss of the model as it is, with all conditions.

        Args:
            bf16: compute in mixed precision, as training does.
        """
        if type(objective) is Denoise:
            objective = Denoise(dropout=False)
        total = 0.0
        for k, batch in enumerate(self.batches):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                found = objective.loss(model, batch.to(device), seeds.generator(0, HELD_OUT, k))
            total += float(found) * len(batch.x0)
        return total / self.samples


def held_out(
    domain: Domain, source: str | Path, options: Mapping[str, Any], training: Dataset, recipe: Recipe, codec: Codec
) -> Dataset | None:
    """The validation part of the data that a run trains on, as the domain reads it; None where there is none.

    Data that have no such part, or whose part is the training data again or has other conditions, give none.
    """
    own, bare = training.held_out(), isinstance(training, Bare)
    if own is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to say of the data was said when they were opened to train on
            try:
                found = domain.dataset(source, "validation", **options)
                own = Bare(found) if bare else found
                domain.adapt(recipe, own)  # which brings the data to the codec's rate, where they have one
            except (DataError, ConfigError):
                return None
    if len(own) == 0 or own.labels != training.labels or sorted(own[0][1]) != sorted(recipe.conditions):
        return None
    return None if fingerprint(own, codec) == fingerprint(training, codec) else own

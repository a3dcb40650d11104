"""Which rows of a dataset a training step takes, and the batches of them.

Both are pure functions of seed and position, so that a resumed run goes on exactly, whoever makes the batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Positions

from zoo.contract.augment import Augment
from zoo.contract.codec import Codec
from zoo.contract.dataset import Batch, Dataset
from zoo.contract.recipe import Recipe
from zoo.core import seeds
from zoo.errors import ZooError

#: stream of random numbers of the order of rows
BATCHES = 1
#: batches that each worker makes ahead
AHEAD = 4


def indices(step: int, batch: int, size: int, seed: int, sizes: Tensor | None = None, group: int = 1) -> list[int]:
    """The dataset rows of a step: epochs of `size` rows, each in its own random order, cut into batches.

    With the samples' `sizes` (size,) the order is one of groups of `group` rows of about the same size; what is left over
    of an epoch is dropped, other rows each time. Fewer rows than a group are not sorted.
    """
    orders: dict[int, Tensor] = {}
    rows = []
    length = size - size % group if sizes is not None and size >= group else size
    for position in range(step * batch, (step + 1) * batch):
        epoch, offset = divmod(position, length)
        if epoch not in orders:
            rng = seeds.generator(seed, BATCHES, epoch)
            orders[epoch] = torch.randperm(size, generator=rng)
            if sizes is not None and size >= group:
                orders[epoch] = _grouped(orders[epoch][:length], sizes, group, rng)
        rows.append(int(orders[epoch][offset]))
    return rows


def _grouped(order: Tensor, sizes: Tensor, group: int, rng: torch.Generator) -> Tensor:
    """An order (n,) made one of groups of like sizes: groups, and rows in a group, follow each other at random."""
    groups = order[sizes[order].argsort(stable=True)].view(-1, group)
    inside = torch.rand(groups.shape, generator=rng).argsort(1)
    return groups.gather(1, inside)[torch.randperm(len(groups), generator=rng)].flatten()


@dataclass
class Batches(Positions[Batch]):
    """The batches of a run: `batches[position]` is on the CPU, and the same at any time and in any process.

    Args:
        codec: on the CPU.
        group: how many rows in a row of the order are of about the same size, see `indices`.
        augment: what is done to the objects before they are encoded.
    """

    dataset: Dataset
    codec: Codec
    recipe: Recipe
    seed: int
    sizes: Tensor | None
    group: int
    augment: Augment = field(default_factory=Augment)

    def __getitem__(self, position: int) -> Batch:
        size = self.recipe.training.batch_size
        rows = indices(position, size, len(self.dataset), self.seed, self.sizes, self.group)
        rng = seeds.generator(self.seed, BATCHES, -1, position)
        items = self.augment.batch([self.dataset[i] for i in rows], self.codec, self.seed, position)
        return self.codec.batch(items, rng, self.recipe.conditions)

    def ahead(self, positions: range, workers: int) -> Iterator[Batch]:
        """The batches of the positions, one after the other: made when they are asked for, or ahead by worker processes."""
        if not workers:
            yield from (self[position] for position in positions)
            return
        loader = DataLoader(
            Told(self),
            batch_size=None,
            sampler=positions,
            num_workers=workers,
            prefetch_factor=AHEAD,
            worker_init_fn=apart,
        )
        for found in loader:
            if isinstance(found, ZooError):
                raise found
            yield found


def apart(worker: int) -> None:
    """Leave the run's group of processes, which a terminal asks to end as a whole: the run saves, then ends its workers."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()


@dataclass
class Told(Positions["Batch | ZooError"]):
    """Batches for worker processes: an error of ours is handed over as it is, where torch would wrap it in its traceback."""

    batches: Batches

    def __getitem__(self, position: int) -> Batch | ZooError:
        try:
            return self.batches[position]
        except ZooError as error:
            return error

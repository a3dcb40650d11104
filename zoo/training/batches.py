"""Which rows of a dataset a training step takes: a pure function of seed and step, so that a resumed run goes on exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.core import seeds

#: stream of random numbers of the order of rows
BATCHES = 1


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

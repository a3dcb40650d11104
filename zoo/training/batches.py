"""Which rows of a dataset a training step takes, and the batches of them.

Both are pure functions of seed and position, so that a resumed run goes on exactly, whoever makes the batches: torch's
DataLoader is given positions for a sampler, and has nothing to remember.
"""

from __future__ import annotations

import math
import os
import shutil
import time
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
#: the share of a step's time that a batch may take where nobody makes it ahead
WAITING = 0.02
#: seconds of a batch below which a device that works on its own does not wait for it, and above which two workers do better
UNNOTICED, SLOW = 0.001, 0.02


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
        # each object by numbers of its own: nothing is random before here, where a part of a recording is chosen
        items = [self.dataset.draw(row, seeds.generator(self.seed, BATCHES, -2, position, k)) for k, row in enumerate(rows)]
        items = self.augment.batch(items, self.codec, self.seed, position)
        return self.codec.batch(items, rng, self.recipe.conditions)

    def workers(self, positions: range, step: float | None, processes: int = 1) -> int:
        """How many worker processes keep a net from waiting, by the time that batches take here and now.

        None where batches are made in next to no time, as of data in memory; else 1, or 2 where a batch takes longer than a
        step, as of files without a cache. None, too, where workers do not begin as copies of this process (a dataset of a
        notebook could not be sent to them), or where shared memory, through which batches come, has no room.

        Args:
            positions: of the run; two of them are made.
            step: seconds of a training step; None: not known, as on a device that works on its own.
            processes: that train together on this machine.
        """
        if torch.multiprocessing.get_start_method() != "fork" or len(positions) < 2:
            return 0
        much = SLOW if step is None else step
        batch, seconds = None, math.inf
        for position in positions[:2]:
            start = time.perf_counter()
            batch = self[position]
            seconds = min(seconds, time.perf_counter() - start)
            if seconds > max(much, 1.0):
                break  # the second one would tell nothing new
        if batch is None or seconds < (UNNOTICED if step is None else WAITING * step):
            return 0
        wanted = 2 if seconds > much else 1
        tensors = [batch.x0, *batch.cond.values(), *([] if batch.mask is None else [batch.mask])]
        if sum(t.nbytes for t in tensors) * AHEAD * wanted * processes > _shared_memory() / 2:
            return 0
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(wanted, max(1, cpus // processes))

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


def _shared_memory() -> float:
    """Free bytes of the memory through which processes hand on tensors; without end where it is not a place of its own."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return math.inf


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

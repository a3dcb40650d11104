"""How judges are trained: one loop, and the average of the last weights. Packaged judges and `zoo judge` share it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

from zoo.evaluation.distances import wilson_interval
from zoo.evaluation.judge import Judge


class Choice(Protocol):
    """Which weights of a training are kept."""

    def after(self, step: int, loss: float) -> None:
        """What there is to do after each step (1, 2, ...) of training."""

    def finish(self) -> dict[str, Any]:
        """Put the chosen weights into the judge, and return what the card says about the choice."""


class AverageOfTheEnd:
    """The average of the weights over the last fifth of the steps.

    Args:
        judge: the net in training.
        steps: of the whole training.
        batches: gives augmented training samples, with which the statistics of the average's batch norms are measured.
        every: steps of which the card's curve holds the mean.
    """

    def __init__(self, judge: Judge, steps: int, batches: Iterator[Tensor], every: int = 100) -> None:
        self.judge, self.steps, self.batches, self.every = judge, steps, batches, every
        self.average = AveragedModel(judge)
        self.curve: list[dict[str, Any]] = []
        self.total = 0.0

    def after(self, step: int, loss: float) -> None:
        """What there is to do after each step (1, 2, ...) of training."""
        self.total += loss
        if step > 0.8 * self.steps:
            self.average.update_parameters(self.judge)
        if step % self.every == 0:
            self.curve.append({"step": step, "train_loss": self.total / self.every})
            self.total = 0.0

    def finish(self) -> dict[str, Any]:
        """Put the average into the judge, and return what the card says about it."""
        update_bn(self.batches, self.average)
        self.judge.load_state_dict(self.average.module.state_dict())
        return {"chosen": "average of the last fifth of the steps", "curve": self.curve}


def accuracy(judge: Judge, x: Tensor, y: Tensor, chunk: int = 500) -> dict[str, Any]:
    """Share of samples (n, ...) that the judge labels as y (n,) does, with its 95 % Wilson interval; `chunk` at a time."""
    right, n = int((judge.features(x, chunk)[1].argmax(1) == y).sum()), len(y)
    return {"value": right / n, "interval": list(wilson_interval(right, n)), "n": n}


def learn(
    judge: Judge,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    cycle: torch.optim.lr_scheduler.LRScheduler,
    choice: Choice,
    steps: int,
    *,
    log: bool = True,
) -> dict[str, Any]:
    """Train on batches of samples (b, ...) and labels (b,); the judge ends in evaluation mode with the chosen weights.

    No label smoothing: it draws each class together in feature space, where a Frechet distance would then see little.

    Returns:
        what the card says about the choice.
    """
    judge.train()
    for step, (x, y) in enumerate(tqdm(batches, "judge", steps, disable=not log), 1):
        loss = nn.functional.cross_entropy(judge(x), y)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        cycle.step()
        choice.after(step, loss.item())
    found = choice.finish()
    judge.eval()
    return found


def affordable(step: Callable[[], object], seconds: float, *, tries: int = 6, least: int = 20) -> int:
    """How many steps fit into the seconds, measured by a few; the first ones, which wait for memory, do not count.

    Args:
        step: does one step, of a copy: what is measured must not train.
        least: as many in any case.
    """
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    each = sorted(times[2:])[(tries - 2) // 2]
    return max(least, math.floor(seconds / max(each, 1e-6)))

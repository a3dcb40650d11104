"""How large a batch and a net a run of a few minutes can afford: nobody who has ten minutes waits for a net of ten hours.

What a step takes is measured on one batch, forward and backward, before the run begins. Batch and net are part of the
recipe from then on, and a run that goes on keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.contract.dataset import Batch
from zoo.contract.recipe import Recipe
from zoo.core import seeds
from zoo.errors import ConfigError, ShapeError
from zoo.training.trainer import WEIGHTS, Trainer

#: a run of fewer steps than this has a smaller batch, down to so many samples
ENOUGH_STEPS, LEAST_BATCH = 1000, 16
#: how often the widths of a net are halved at most
HALVINGS = 2
#: a pass that takes so many seconds is measured once: what torch prepares in a first one is little beside it
LONG = 1.0


def free_sizes(recipe: Recipe, overrides: Mapping[str, Any], init: str | Path | None) -> set[str]:
    """What of a packaged recipe a run may choose: "batch" where nobody says it, "net" where it has no weights to begin with."""
    free = set()
    if not {"training", "training.batch_size"} & overrides.keys():
        free.add("batch")
    if init is None and not recipe.training.freeze and not any(k.split(".")[0] in ("net", "denoiser") for k in overrides):
        free.add("net")
    return free


def fit_sizes(trainer: Trainer, free: Collection[str]) -> None:
    """A smaller batch, and then a narrower net, where the minutes would else hold fewer than `ENOUGH_STEPS` steps.

    A net that saw the same samples in more steps has learnt more, as long as the steps are few: a gradient of 16 samples
    is noisy, but at first most of it points where that of 64 does. A net of half the width takes about a third of the time,
    and one that saw three times as many samples is the better one, as long as it has not seen them often.

    Args:
        free: what may be chosen, "batch" and "net".
    """
    if not free or trainer.minutes is None or trainer.accelerator.num_processes > 1:
        return
    size, before = trainer.options.batch_size, trainer.model.recipe
    batch = trainer.batches()[0].to(trainer.device)
    each = _seconds(trainer, batch)
    if ENOUGH_STEPS * each * size <= _left(trainer):
        return
    steps = int(_left(trainer) / (each * size))
    least = min(LEAST_BATCH, size) if "batch" in free else size
    said = []
    if "net" in free:
        widths = trainer.model.domain.widths(before)
        for _ in range(HALVINGS):
            if ENOUGH_STEPS * each * least <= _left(trainer) or not _narrower(trainer):
                break
            each = _seconds(trainer, batch)
        if trainer.model.recipe != before:
            now = trainer.model.domain.widths(trainer.model.recipe)
            narrower = ", ".join(f"{k} {now[k]} in place of {v}" for k, v in widths.items())
            keep = " ".join(f"--set net.{k}={v}" for k, v in widths.items())
            said.append(f"a narrower net, {narrower} ({keep} keeps it)")
    fitting = size
    while fitting > least and ENOUGH_STEPS * each * fitting > _left(trainer):
        fitting = max(fitting // 2, least)
    if fitting != size:
        trainer.options = trainer.options.model_copy(update={"batch_size": fitting})
        trainer.model.recipe = trainer.model.recipe.model_copy(update={"training": trainer.options})
        said.append(f"batches of {fitting} in place of {size} (--set training.batch_size={size} keeps them)")
    if said:
        hold = f"{trainer.minutes:g} minutes hold about {max(1, steps)} steps of the recipe here"
        trainer.note(f"{hold}: {', and '.join(said)}.")


def _left(trainer: Trainer) -> float:
    """Seconds of the run from now on."""
    return 60 * (trainer.minutes or 0.0) - trainer.clock.seconds


def _seconds(trainer: Trainer, batch: Batch) -> float:
    """Seconds of a sample in a step; on a CPU, where each takes as long as the next, by the first ones of the batch."""
    seen = min(LEAST_BATCH, len(batch.x0)) if trainer.device.type == "cpu" else len(batch.x0)
    batch, seconds = batch.first(seen), math.inf
    for _ in range(2):  # the first pass takes memory and chooses kernels
        trainer.wait()
        start = trainer.clock.now()
        trainer.trial(batch)
        trainer.wait()
        seconds = min(seconds, trainer.clock.now() - start)
        if seconds > LONG:
            break
    return seconds * trainer.options.accumulate / seen


def _narrower(trainer: Trainer) -> bool:
    """Give the trainer a net of half the widths; False where the net has none, or cannot be narrower."""
    model = trainer.model
    widths = model.domain.widths(model.recipe)
    halved = {k: v // 2 for k, v in widths.items()}
    if not halved or min(halved.values()) < 1:
        return False
    recipe = model.recipe.model_copy(update={"net": {**model.recipe.net, **halved}})
    torch.manual_seed(seeds.derive_seed(trainer.seed, WEIGHTS))
    try:
        net = model.domain.denoiser(recipe, model.codec.shape)
    except (ConfigError, ShapeError):  # such as heads that do not divide it
        return False
    model.denoiser, model.recipe = net.train(), recipe
    trainer.set_up()
    return True

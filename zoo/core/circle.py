"""Processes of angles: a state x and x + period are the same, and x is brought back to one turn after each step.

The noise is Gaussian noise that is wrapped (Wu et al. 2024, "Protein structure generation via folding diffusion", Methods), and
the prediction is made of the wrapped x. So a step is that of any sampler from there, and the next one starts from the wrapped
end of it. A sampler that remembers something of an earlier step remembers it of another turn, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from zoo.core.predict import Predict
from zoo.core.samplers import SAMPLERS, Rng, Sampler, Step
from zoo.core.schedule import Level
from zoo.errors import ConfigError


def wrapped(x: Tensor, period: float) -> Tensor:
    """x (of any shape) within [-period / 2, period / 2), with the gradients of x."""
    return torch.remainder(x + period / 2, period) - period / 2


def steps_alone(sampler: Sampler) -> bool:
    """Whether each step of a sampler is made by one prediction at its own start, of that alone."""
    return sampler.calls == 1 and not sampler.begins and not sampler.looks_back


def around(sampler: Sampler, period: float) -> Sampler:
    """A sampler whose state is wrapped before the first step and after each one.

    Raises:
        ConfigError: a sampler that looks back at earlier steps, or predicts within one: both would mix turns.
    """
    if not steps_alone(sampler):
        ours = [name for name in SAMPLERS if name not in SAMPLERS.offered and steps_alone(SAMPLERS[name])]
        raise ConfigError(
            f"sampler={sampler.name!r}: samples of this model are angles, which are wrapped after each step, and this sampler "
            f"makes a step of more than one prediction. Take one of: {', '.join(ours)}."
        )

    def run(predict: Predict, x: Tensor, levels: list[Level], *, rng: Rng, **options: Any) -> Iterator[Step]:
        churned = options.pop("churned", None)
        x = wrapped(x, period)
        for i, (a, b) in enumerate(pairwise(levels)):
            own = options if churned is None else options | {"churned": churned[i : i + 1]}
            for step in sampler.run(predict, x, [a, b], rng=rng, **own):
                x = wrapped(step.x, period)
                yield Step(step.level, x, step.x0)

    return replace(sampler, run=run)

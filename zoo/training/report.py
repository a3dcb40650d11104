"""What a run says at its start: what the data are, what the model is, and, once it was measured, what is planned."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

import torch
from torch import nn

from zoo.contract.dataset import Dataset
from zoo.contract.domain import Domain

#: seconds that are spent on looking at samples, to say what they are
PATIENCE = 2.0
#: samples that are looked at, and classes that are named
LOOKED_AT, NAMED = 64, 12


def of_data(dataset: Dataset, domain: Domain | None = None, held_out: int | None = None, patience: float = PATIENCE) -> str:
    """What data are: "data: 1,549 pictures; label: 3 classes (cat 700, dog 849); 30 to 512 px wide; held out: 172".

    Args:
        domain: says what it sees in one object, see `Domain.traits`.
        held_out: how many samples are held out of training.
        patience: seconds, at most, to look at samples.
    """
    parts = [dataset.origin or f"{len(dataset):,} samples"]
    if dataset.origin is not None and f"{len(dataset)}" not in dataset.origin:
        parts.append(f"{len(dataset):,} samples an epoch")
    parts += of_classes(dataset, patience)
    if (sizes := dataset.sizes()) is not None and len(sizes):
        parts.append(f"sizes {int(sizes.min()):,} to {int(sizes.max()):,} (median {int(sizes.median()):,})")
    if domain is not None:
        parts += of_traits(dataset, domain, patience)
    if held_out:
        parts.append(f"held out: {held_out:,}")
    if left_out := dataset.left_out_words():
        parts.append(f"left out: {left_out}")
    return f"data: {'; '.join(parts)}"


def of_classes(dataset: Dataset, patience: float) -> list[str]:
    """How many samples each class of each label has."""
    labels = {k: list(c.classes) for k, c in dataset.conditions().items() if c.classes} | dataset.labels
    others = [k for k in dataset.conditions() if k not in labels]
    told = [f"told of each: {', '.join(others)}"] if others else []
    if not labels:
        return told or ["no labels"]
    counts: dict[str, Counter[int]] = {name: Counter() for name in labels}
    looked, end = 0, time.monotonic() + patience
    # evenly over the data, which may be sorted by class
    for i in _spread(len(dataset)):
        given = dataset.given(i)
        if not counts.keys() <= given.keys():
            given = dataset[i][1]
        for name, count in counts.items():
            if name in given:
                count[_class(given[name], labels[name])] += 1
        looked += 1
        if time.monotonic() > end:
            break
    found = told
    for name, names in labels.items():
        shown = [f"{label} {counts[name][k]:,}" for k, label in enumerate(names[:NAMED])]
        if len(names) > NAMED:
            shown.append(f"and {len(names) - NAMED} more")
        some = "" if looked == len(dataset) else f", of {looked:,} that were looked at"
        found.append(f"{name}: {len(names)} class{'' if len(names) == 1 else 'es'} ({', '.join(shown)}{some})")
    return found


def _class(value: Any, names: Sequence[str]) -> int:
    """The number of a class, given as such or by its name; -1 for a value of another kind."""
    if value in names:
        return list(names).index(value)
    return int(value) if isinstance(value, SupportsIndex) else -1


def of_traits(dataset: Dataset, domain: Domain, patience: float) -> list[str]:
    """What the domain sees in some samples: ranges of numbers, counts of words."""
    found: dict[str, list[Any]] = {}
    looked, end = 0, time.monotonic() + patience
    for i in _spread(len(dataset), LOOKED_AT):
        for key, value in domain.traits(dataset.original(i)).items():
            found.setdefault(key, []).append(value)
        looked += 1
        if time.monotonic() > end:
            break
    said = [_said(key, values) for key, values in found.items()]
    if said and looked < len(dataset):
        said[-1] += f" (of {looked} looked at)"
    return said


def _said(key: str, values: Sequence[Any]) -> str:
    if isinstance(values[0], str):
        return ", ".join(f"{word} {n}" if n < len(values) else word for word, n in Counter(values).most_common(4))
    low, high = min(values), max(values)
    return f"{key} {low:,.6g}" + ("" if low == high else f" to {high:,.6g}")


def _spread(count: int, most: int | None = None) -> list[int]:
    """Rows 0..count - 1 so that the first ones of the list are spread over all: in strides, each row once."""
    stride = max(1, count // (most or LOOKED_AT))
    rows = [i for first in range(stride) for i in range(first, count, stride)]
    return rows if most is None else rows[:most]


def of_model(
    name: str, denoiser: nn.Module, kind: str, shape: Mapping[str, int] | Sequence[int], flops: float, batch: int
) -> str:
    """What a model is: its net, parameters, work of a step and what its training keeps in memory.

    Args:
        shape: of an encoded sample, by the names of its axes where it has any.
        flops: floating point operations of a step. batch: samples of a step.
    """
    parameters = list(denoiser.parameters())
    count = sum(p.numel() for p in parameters)
    # weights, gradients, averages, and two moments of the optimizer at most
    kept = sum(p.numel() * p.element_size() for p in parameters) * 5
    words = [f"{n} {axis}" for axis, n in shape.items()] if isinstance(shape, Mapping) else map(str, shape)
    seen = " x ".join(words)
    return (
        f"model: {name}, {kind}, {count / 1e6:.2f} M parameters; samples of {seen}; {flops / 1e9:,.3g} GFLOP a step of "
        f"{batch:,} samples; {_bytes(kept)} for weights, averages and optimizer"
    )


def of_plan(
    step: int, steps: int, each: float, batch: int, rows: int, seconds: float, minutes: float | None, begins: int
) -> str:
    """What is planned, and how fast the machine is.

    Args:
        each: seconds of a step. seconds: of the run until now. minutes: the budget, if there is one. begins: first step of
            the decay.
    """
    whole = f"in {minutes:g} minutes" if minutes is not None else f"in about {_time(seconds + (steps - step) * each)}"
    return (
        f"plan: {steps:,} steps {whole} ({each:.3g} s a step, {batch / each:,.0f} samples/s, {steps * batch / rows:,.3g} "
        f"epochs of {rows:,}); the learning rate falls from step {begins:,} on; peak memory {_bytes(peak_memory())}"
    )


def peak_memory() -> float:
    """The most memory (bytes) that this process has taken: of the GPU where it has one, else of the machine; 0: not known."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated())
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"

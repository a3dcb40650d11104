"""The frame of every evaluation: ask, generate, measure, and write down how.

    result = evaluate(model, 1000, data="fashion_mnist.npz", steps=20)

What differs between domains is an `Evaluator`: what it asks samples to be, how they are made where `model.sample` is not
the way, and what it measures of them.
"""

from __future__ import annotations

import inspect
import math
import os
import platform
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from zoo.contract.domain import Generator
from zoo.contract.samples import Samples
from zoo.errors import ConfigError, DataError
from zoo.values import whole

#: settings of a plan that an evaluation tells by themselves; the others stand together
FIRST = ("sampler", "steps", "guidance_weight", "precision")


class Evaluator(ABC):
    """Measures models of a domain against one reference; what depends on real data alone is computed once and kept."""

    #: options of `evaluate` that `measure` takes; all others go to `generate`
    options: tuple[str, ...] = ()
    #: how many samples are measured where nobody says it; None: as many as the domain says
    measured: int | None = None
    #: whether all that is measured comes from `sample_timed`, so that several processes can share it
    shares = True

    def check(self, model: Generator) -> None:
        """Refuse a model that this cannot measure, by a ConfigError that says what it can. The default takes all."""
        return

    def asked(self, model: Generator, n: int, seed: int) -> dict[str, Any]:
        """What n samples are asked to be, where the caller does not say it: arguments of `model.sample`."""
        return {}

    def generate(self, model: Generator, n: int, *, seed: int, **settings: Any) -> tuple[Any, dict[str, Any]]:
        """What is measured, and how it was made, for the protocol."""
        return sample_timed(model, n, seed=seed, **self.asked(model, n, seed) | settings)

    def held_out(self, model: Generator, n: int, seed: int) -> tuple[list[Any], dict[str, Any]]:
        """n real objects that the model was not trained on, and the conditions that describe them, for a likelihood.

        Raises:
            ConfigError: there are none, as the default says.
        """
        raise ConfigError("likelihood: measured of pictures alone; use model.log_likelihood(items, units='encoded').")

    @abstractmethod
    def measure(self, made: Any, **options: Any) -> dict[str, Any]:
        """JSON-ready {"metrics": {name: {"value", "ceiling", "floor", "better"}}, "protocol": {...}} and further keys.

        Args:
            made: what `generate` gave.
        """


def evaluate(
    model: Generator,
    n: int | None = None,
    *,
    evaluator: Evaluator | None = None,
    data: str | Path | None = None,
    split: str = "test",
    seed: int = 0,
    judge: str | Path | None = None,
    skip_unreadable: bool = False,
    shared: bool = False,
    likelihood: int = 0,
    **settings: Any,
) -> dict[str, Any]:
    """All figures of a model.

    Args:
        n: how many samples; default: the evaluator's, else the domain's.
        evaluator: `model.domain.evaluator(...)`, to use again for many settings; default a fresh one.
        data: the real data to compare with; default from $ZOO_DATA.
        split: "test" for a report, "validation" for every choice.
        seed: of the samples.
        judge: a folder of `zoo judge`, with the labels of the data; default: the one in the model's folder, if there is one.
        skip_unreadable: leave unreadable files of the data out, as training does where it is told to.
        shared: each process of torchrun or accelerate launch calls this with the same arguments, makes its share of the
            samples, gets those of the others, and returns the same figures. False: a process that calls this is alone.
        likelihood: bits per dimension of so many held-out objects as well, see `Model.log_likelihood`; 0 for none, as each
            takes seconds.
        **settings: arguments of `model.sample`, and the evaluator's own options; what is left out is the default.

    Raises:
        ConfigError: a model that the domain's evaluator cannot measure, or an invalid setting. DataError: no real data.
    """
    if settings.get("shard") is not None:
        raise ConfigError("shard: an evaluation measures all of its samples. Its processes share them by shared=True.")
    count = None if n is None else whole(n, "n", 1)
    given: dict[str, Any] = {} if judge is None else {"judge": judge}
    given |= {"skip_unreadable": True} if skip_unreadable else {}
    for option, value in given.items():
        if evaluator is not None:
            raise ConfigError(f"{option}: the evaluator that is given has read its own. Give it to `model.domain.evaluator`.")
        if option not in inspect.signature(model.domain.evaluator).parameters:
            told = {"judge": "are measured without a judge", "skip_unreadable": "are measured without leaving files out"}
            shown = value if value is True else repr(str(value))
            raise ConfigError(f"{option}={shown}: models of the domain {model.domain.name!r} {told[option]}.")
    found = model.domain.evaluator(data, split, model, **given) if evaluator is None else evaluator
    found.check(model)
    own = {k: settings.pop(k) for k in found.options if k in settings}
    count = count or found.measured or model.domain.measured
    likely = whole(likelihood, "likelihood", 0)
    held = found.held_out(model, likely, seed) if likely else None
    if shared and not found.shares:
        raise ConfigError(f"shared: an evaluation of {model.domain.name!r} by {type(found).__name__} runs in one process.")
    made, how = found.generate(Sharing(model) if shared else model, count, seed=seed, **settings)
    if shared:
        how["processes"] = dist.get_world_size() if dist.is_initialized() else 1
    result: dict[str, Any] = found.measure(made, **own)
    result["protocol"] |= how
    if skip_unreadable:
        result["protocol"]["unreadable"] = "files of a folder that cannot be read are left out"
    if held is not None:
        _add_likelihood(result, model, *held, seed=seed)
    return result


class Sharing:
    """A model whose samples are made by all processes together: each makes its share, and all of them have all."""

    def __init__(self, model: Generator) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def sample(self, n: int = 1, **arguments: Any) -> Samples:
        """As `model.sample`: to the bit what one process makes with the same batch size.

        Raises:
            ConfigError: fewer batches than processes, in each of them.
        """
        if not dist.is_initialized():
            if int(os.environ.get("WORLD_SIZE", 1)) == 1:
                return self._model.sample(n, **arguments)
            dist.init_process_group("gloo")  # samples are on the CPU
        of = dist.get_world_size()
        part = self._model.sample(n, **arguments, shard=(dist.get_rank(), of))
        parts: list[Any] = [None] * of
        dist.all_gather_object(parts, (part.rows, list(part)))
        items = dict(sorted((row, item) for rows, made in parts for row, item in zip(rows, made, strict=True)))
        plan = part.plan if part.plan is None else replace(part.plan, shard=None)
        names = part.conditions if plan is None else plan.names
        return Samples.of(list(items.values()), domain=self._model.domain, conditions=names, plan=plan)


def _add_likelihood(result: dict[str, Any], model: Generator, items: list[Any], given: dict[str, Any], *, seed: int) -> None:
    """Bits per dimension of held-out objects, among the figures of a result."""
    call = getattr(model, "log_likelihood", None)
    if call is None:
        raise ConfigError(f"likelihood: {model!r} has none.")
    found = call(items, seed=seed, **given)
    mean, error = found.mean
    result["metrics"]["bits_per_dim"] = {
        "value": mean,
        "std": None if math.isnan(error) else error,
        "ceiling": None,
        "floor": 8.0,
        "better": "lower",
    }
    told = f"{found}; lower is more likely. std is the standard error over the objects. Floor: bytes drawn evenly"
    result["protocol"]["likelihood"] = told


def real_data(data: str | Path | None, file: str, hint: str) -> str | Path:
    """Where a domain's real data is: the argument, else `file` below $ZOO_DATA, else an error with the domain's hint."""
    if data is not None:
        return data
    if root := os.environ.get("ZOO_DATA"):
        return Path(root) / file
    raise DataError(f"evaluation compares with real data: give {hint}, or set ZOO_DATA.")


def draw(total: int, n: int, seed: int) -> list[int]:
    """Numbers of n different things of `total` (all of them where there are fewer), drawn at random: how a subset is taken."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:n].tolist()


def sample_timed(model: Generator, n: int, **arguments: Any) -> tuple[Samples, dict[str, Any]]:
    """`model.sample` and how it was done: every setting that was used, time and hardware, for the protocol.

    Args:
        **arguments: of `model.sample`; what is left out is the model's default, and is recorded as well.
    """
    start = time.perf_counter()
    samples = model.sample(n, **arguments)
    seconds = time.perf_counter() - start
    used = arguments if samples.plan is None else samples.plan.settings()
    return samples, {k: used.pop(k) for k in FIRST if k in used} | {
        "other_settings": used,
        "sampling_seconds": round(seconds, 1),
        "hardware": hardware(),
        "weights": "EMA",
    }


def hardware() -> str:
    """What the numbers were made on."""
    return f"{torch.get_num_threads()} threads, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"

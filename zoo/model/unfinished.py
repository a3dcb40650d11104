"""A training run's checkpoint, read as a model: what a folder holds while the run goes on, or after it was killed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, StrictInt
from torch import Tensor

from zoo import files
from zoo.contract.part import Part
from zoo.contract.recipe import Recipe
from zoo.disk import CHECKPOINT
from zoo.errors import CheckpointError, ConfigError

#: of the facts of a checkpoint; 1 had neither a hash nor `data` and `stateless`
FORMAT_VERSION = 2
#: what the tensors of a checkpoint are of
PARTS = ("net", "codec", "ema", "optimizer")


class UnfinishedWarning(UserWarning):
    """Weights of a run that is not at its end."""


class Facts(Part):
    """What a checkpoint knows beside its tensors and the recipe.

    Attributes:
        step, steps: done, and in all; None while a run of so many minutes has no plan yet.
        seconds: of training until now, with its preparation.
        rows, data: how many samples the dataset has, and what they are (None: not known).
        processes: that train together.
        init: what the weights started from.
        pace: share of the recipe's learning rate that the run takes: weights that are trained already are not thrown about.
        stateless: parameters of which the optimizer keeps nothing, since they never had a gradient.
        minutes: the run's budget of time, if it has one.
        plan: [from which step on, steps in all] of every plan that was made of it, see `zoo.training.budget`.
    """

    step: StrictInt = Field(ge=0)
    steps: StrictInt | None = Field(ge=1)
    seed: StrictInt
    seconds: float = Field(ge=0, strict=True)
    rows: StrictInt = Field(ge=1)
    processes: StrictInt = Field(1, ge=1)
    init: str = ""
    pace: float = Field(1.0, gt=0, le=1, strict=True)
    format: StrictInt = Field(1, ge=1)
    data: str | None = None
    stateless: list[str] = []
    minutes: float | None = Field(None, gt=0, strict=True)
    plan: list[tuple[StrictInt, StrictInt]] = []

    @classmethod
    def parse(cls, text: str, path: Path) -> Facts:
        """The facts of a checkpoint; what is not one is a CheckpointError."""
        data = files.parse_json(text, path)
        version = data.get("format") if isinstance(data, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format {version}; this zoo reads up to {FORMAT_VERSION}. Upgrade: pip install -U diffusion-zoo."
            )
        try:
            facts = cls.model_validate(data)
        except ConfigError as error:
            raise CheckpointError(f"{path} is not a training checkpoint of zoo: {error}.") from None
        if facts.steps is not None and facts.step > facts.steps:
            raise CheckpointError(f"{path} is damaged: it is of step {facts.step} of {facts.steps}.")
        if facts.steps is None and facts.minutes is None:
            raise CheckpointError(f"{path} is damaged: it has neither steps nor minutes.")
        starts = [at for at, _ in facts.plan]
        whole = all(0 <= at <= steps and steps for at, steps in facts.plan) and starts == sorted(set(starts))
        if not whole or (facts.plan and (facts.plan[-1][1] != facts.steps or starts[-1] > facts.step)):
            raise CheckpointError(f"{path} is damaged: its plan {facts.plan} does not fit step {facts.step} of {facts.steps}.")
        return facts

    def progress(self) -> str:
        """How far the run is, in words: "step 120 of 4,812"."""
        return f"step {self.step:,} of {'a number that is yet to be planned' if self.steps is None else f'{self.steps:,}'}"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read, its hash checked.

    Attributes:
        tensors: `net.`, `codec.`, `ema.` and `optimizer.`, with the names that they have in these.
    """

    path: Path
    facts: Facts
    recipe: Recipe
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one of the parts, by their own names."""
        prefix = f"{name}."
        return {files.plain_name(k.removeprefix(prefix)): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def averaged(self) -> dict[str, Tensor]:
        """The denoiser's state with averaged weights."""
        net, average = self.part("net"), self.part("ema")
        if odd := sorted(average.keys() - net.keys()):
            raise CheckpointError(f"{self.path} is damaged: averages of what the net does not have: {', '.join(odd[:5])}.")
        return net | average


def described(meta: dict[str, str], path: Path) -> tuple[Facts, Recipe]:
    """Facts and recipe from the metadata of a checkpoint; anything else is a CheckpointError."""
    if set(meta) != {"zoo", "recipe"}:
        raise CheckpointError(f"{path} is not a training checkpoint of zoo: its metadata are {', '.join(meta) or 'empty'}.")
    facts = Facts.parse(meta["zoo"], path)
    recipe = files.parse_json(meta["recipe"], path)
    if not isinstance(recipe, dict):
        raise CheckpointError(f"{path} is damaged: its recipe is not one.")
    return facts, Recipe.parse(recipe)


def read(path: Path, *, mapped: bool = False) -> Checkpoint:
    """A checkpoint, strictly. Its run may write the next one meanwhile: then that one is read.

    Args:
        mapped: leave the tensors in the file, for one who takes a part of each, see `zoo.files.load_tensors_metadata`.

    Raises:
        CheckpointError: a file that is damaged, of another kind, or of a newer zoo.
    """
    before = None
    while True:
        try:
            tensors, meta, sealed = files.load_sealed(path, mapped=mapped)
            break
        except CheckpointError:
            # the file was replaced between two looks at it, or it is damaged: of the same file the next look says the same
            if (now := _stamp(path)) == before:
                raise
            before = now
    facts, recipe = described(meta, path)
    if (facts.format >= 2) != sealed:
        raise CheckpointError(f"{path} is damaged: format {facts.format} goes {'with' * (not sealed) or 'without'} a hash.")
    for key in tensors:
        if key.partition(".")[0] not in PARTS:
            raise CheckpointError(f"{path} has the foreign key {key}.")
    return Checkpoint(path, facts, recipe, tensors)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a folder that holds a checkpoint, and no finished model."""
    meta = files.load_metadata(folder / CHECKPOINT)
    meta.pop(files.HASH, None)
    return described(meta, folder / CHECKPOINT)[1]


def newest(folder: Path) -> Path | None:
    """The checkpoint in a folder, where no finished model newer than it lies beside it.

    Both come from the same end of a run, so that it does not matter which is taken where a copy of the folder has lost the
    times: only the weights of a run that went on after it was finished once, or has not been yet, differ.
    """
    path, config = folder / CHECKPOINT, folder / files.CONFIG
    if not path.exists():
        return None
    files.settle(folder)
    try:
        return path if path.stat().st_mtime_ns > config.stat().st_mtime_ns else None
    except FileNotFoundError:
        return None if config.exists() else path

"""Evaluation of anybody's data: a judge of the data's own labels, and features where there are no labels.

    zoo judge --data photos/ --for runs/mine --minutes 3 --out runs/mine/judge
    zoo eval runs/mine --data photos/

A domain says by a `Sight` what a judge sees of its objects.
"""

from __future__ import annotations

import copy
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from zoo.contract.dataset import Dataset
from zoo.contract.domain import Domain, Generator
from zoo.contract.recipe import Recipe
from zoo.core import seeds
from zoo.disk import disk_errors, path_of
from zoo.errors import ConfigError, DataError, one_of
from zoo.evaluation.distances import frechet_distance
from zoo.evaluation.evaluate import draw
from zoo.evaluation.judge import CARD, Features, J, Judge, load_judge, save_judge
from zoo.evaluation.learn import AverageOfTheEnd, accuracy, affordable, learn
from zoo.values import number, whole

#: the folder of a run's judge within it
FOLDER = "judge"
#: objects of a split that are kept in memory at most, drawn at random where there are more
MOST = 20_000
#: share of the time that is counted on for training: measuring and the rest of the machine's work take theirs
SURE = 0.85
#: samples by which nets are compared, see `choose`
COMPARED = 200


class Sight(ABC):
    """How a judge sees the objects of a domain, built by `Domain.sight` for a recipe.

    Attributes:
        kind: the domain's judge.
        augmentation: of the domain's own, on in the training of a judge; none of them may change a label.
    """

    kind: type[Judge]
    augmentation: Mapping[str, Any] = {}
    batch_size = 64
    lr = 3e-3
    weight_decay = 0.05
    chunk = 500

    @abstractmethod
    def build(self, class_names: tuple[str, ...]) -> Judge:
        """A new judge of these classes."""

    @abstractmethod
    def see(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """What a judge is shown of an object (*S), float32; `rng` feeds what is random in training."""

    def keep(self, item: Any) -> Any:
        """An object as it is kept in memory while a judge is trained: what `see` takes, but no larger than needed."""
        return item

    def prepare(self, dataset: Dataset) -> None:
        """Bring a dataset to what `keep` takes, such as the rate of its clips."""
        return

    @property
    def facts(self) -> dict[str, Any]:
        """Numbers of it, for the card."""
        return {}


# ---------------------------------------------------------------- labelled objects


class Labelled:
    """The labelled objects of a split, in memory.

    Args:
        dataset: of a domain. keep: what is kept of each object. most, seed: as many at most, drawn at random.
        condition: whose labels count.

    Attributes:
        items: what was kept. names: the label of each by name; None where the data have none. total: of the split.
        texts: the caption of each; None where it has none.
        classes: all labels of the data.
    """

    def __init__(
        self,
        dataset: Dataset,
        keep: Callable[[Any], Any],
        *,
        most: int = MOST,
        seed: int = 0,
        condition: str = "label",
        only: Sequence[str] | None = None,
    ) -> None:
        self.total = len(dataset)
        self.classes = tuple(dataset.labels.get(condition, ()))
        rows = list(range(self.total)) if self.total <= most else sorted(draw(self.total, most, seed))
        self.items, self.names, self.texts = list[Any](), list[str](), list[str | None]()
        for i in tqdm(rows, "reading", delay=2, leave=False):
            item, given = dataset[i]
            name = self.classes[int(given[condition])] if self.classes else ""
            if only is None or name in only:
                self.items.append(keep(item))
                self.names.append(name)
                self.texts.append(given.get("text"))

    def __len__(self) -> int:
        return len(self.items)


def taken(held: Labelled, train: Labelled) -> str:
    """What of the data was not taken, in words; "" where all was."""
    parts = [f"{len(x)} of {x.total} {what}" for what, x in (("held-out", held), ("training", train)) if len(x) < x.total]
    if not parts:
        return ""
    return f"{' and '.join(parts)} objects count: those of the model's classes, at most {MOST:,} drawn at random"


def balance(labels: Tensor, classes: int) -> Tensor:
    """How likely each row (n,) is drawn: a class weighs as the square root of its rows, so that rare ones are learnt, too."""
    counts = labels.bincount(minlength=classes).clamp(min=1)
    return counts[labels].double().rsqrt()


# ---------------------------------------------------------------- training


def train_judge(
    domain: Domain,
    recipe: Recipe,
    source: str | Path,
    out: str | Path,
    *,
    minutes: float = 3.0,
    steps: int | None = None,
    seed: int = 0,
    condition: str = "label",
    natural: bool = False,
    data_options: Mapping[str, Any] | None = None,
    augment: Mapping[str, Any] | None = None,
    log: bool = True,
) -> Judge:
    """Train a judge of the labels of a user's data, and write it into a folder with a card of its measured accuracy.

    It learns from the split "train" and is measured on "test": the same rows as a generator's. The weights are the average of
    the last fifth of the steps, so nothing is chosen on the rows that it is measured on. Same seed, steps, machine and torch:
    same weights.

    Args:
        recipe: of the models that are to be judged: it says their size, rate and so on.
        minutes: for all of it but the reading. steps: so many instead of what the minutes allow.
        natural: see the data at the size that they have, not at that of the recipe, where the domain knows how.
        augment: further augmentations of the domain, such as those with which the generator is trained.

    Raises:
        DataError: data without labels, or without any in one of the splits.
        ConfigError: fewer than two classes, a domain without judges, or a number that is none.
        ResourceError: a folder that cannot be written.
    """
    out, seed = path_of(out, "out"), whole(seed, "seed")
    if steps is not None:
        steps = whole(steps, "steps", 1)
    elif (minutes := number(minutes, "minutes", 0)) == 0:
        raise ConfigError("minutes=0: give a time above 0.")
    options = domain.data_options(recipe) | dict(data_options or {})
    opened = {split: domain.dataset(source, split, **options) for split in ("train", "test")}
    sight: Sight = domain.sight(recipe, opened["train"] if natural else None)
    if condition not in opened["train"].labels:
        raise DataError(
            f"{source} has no labels {condition!r}: a judge learns them from class folders, or from a column of labels. "
            "`zoo eval` measures without a judge, too."
        )
    for data in opened.values():
        sight.prepare(data)
    parts = {split: Labelled(data, sight.keep, seed=seed, condition=condition) for split, data in opened.items()}
    train, classes = parts["train"], parts["train"].classes
    if len(classes) < 2:
        raise ConfigError(f"{source} has the one class {', '.join(classes)}: a judge needs two or more.")
    y = torch.tensor([classes.index(name) for name in train.names])
    settings = dict(sight.augmentation) | dict(augment or {})
    augmentation, codec = domain.augment(settings), domain.codec(recipe.codec)
    weights = balance(y, len(classes))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        """The augmented samples of a step, and their labels."""
        rng = seeds.generator(seed, step)
        rows = torch.multinomial(weights, sight.batch_size, replacement=True, generator=rng)
        return shown(rows, step), y[rows]

    def shown(rows: Tensor, step: int) -> Tensor:
        items = augmentation.batch([(train.items[int(i)], {}) for i in rows], codec, seed, step)
        return torch.stack([sight.see(item, seeds.generator(seed, step, k)) for k, (item, _) in enumerate(items)])

    with disk_errors(out):  # before minutes are spent
        out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = sight.build(classes)
        if steps is None:
            steps = affordable(trial(judge, batch, sight), SURE * 60 * minutes - (time.perf_counter() - start))
        torch.manual_seed(seed)  # dropout draws the same whether or not the speed was measured
        decayed = [p for p in judge.parameters() if p.ndim > 1]
        plain = [p for p in judge.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": sight.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, sight.lr)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, sight.lr, total_steps=steps, pct_start=0.15, final_div_factor=20)
        order = torch.randperm(len(train), generator=seeds.generator(seed, -1))[:2000].split(100)
        last: Iterator[Tensor] = (shown(rows, -2 - k) for k, rows in enumerate(order) if len(rows) > 1 or len(order) == 1)
        choice = AverageOfTheEnd(judge, steps, last, every=max(1, steps // 50))
        report = learn(judge, (batch(k) for k in range(steps)), optimizer, cycle, choice, steps, log=log)
    measured = {}
    for split, part in parts.items():
        rows = draw(len(part), 5000, seed)
        labels = torch.tensor([classes.index(part.names[i]) for i in rows])
        measured[split] = accuracy(judge, torch.stack([sight.see(part.items[i]) for i in rows]), labels, sight.chunk)
    counts = {split: {name: part.names.count(name) for name in classes} for split, part in parts.items()}
    likely = max(counts["test"].values()) / len(parts["test"])
    card = {
        "data": {
            "name": Path(str(source)).name,
            "origin": opened["train"].origin,
            "split": "train: what a generator is trained on; test: what it leaves out",
            "classes": counts,
        },
        "accuracy": measured,
        "chance": {"value": likely, "how": "always the most frequent class of the test split"},
        "training": report
        | {
            "settings": {
                "steps": steps, "batch_size": sight.batch_size, "lr": sight.lr, "weight_decay": sight.weight_decay,
                "seed": seed, "augment": augmentation.on, "rows": "drawn so that a class weighs as the root of its size",
            },
            "minutes": round((time.perf_counter() - start) / 60, 2),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
        },
        "for": {"recipe": f"{recipe.domain}/{recipe.name}"} | sight.facts,
        "parameters": sum(p.numel() for p in judge.parameters()),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }  # fmt: skip
    save_judge(judge, out, card)
    return load_judge(sight.kind, out)


def trial(judge: Judge, batch: Callable[[int], tuple[Tensor, Tensor]], sight: Sight) -> Callable[[], None]:
    """One step of a copy of the judge, to see how long it takes."""
    copied = copy.deepcopy(judge).train()
    optimizer = torch.optim.AdamW(copied.parameters(), sight.lr)

    def step() -> None:
        x, y = batch(-1)
        torch.autograd.backward(nn.functional.cross_entropy(copied(x), y))
        optimizer.step()

    return step


# ---------------------------------------------------------------- which judge


def judge_of(kind: type[J], given: str | Path | None, model: Generator) -> tuple[J | None, str]:
    """The judge that was given, else the one that lies in the model's folder, else None; and where it is from, in words."""
    if given is not None:
        return load_judge(kind, Path(given).expanduser()), f"the judge {Path(given).name!r}"
    folder = getattr(model, "folder", None)
    if folder is not None and (Path(folder) / FOLDER / CARD).is_file():
        return load_judge(kind, Path(folder) / FOLDER), "the judge in the model's folder"
    return None, ""


def matched(judge: Judge, model: Generator, data: Sequence[str], condition: str = "label") -> tuple[str, ...]:
    """The classes that are measured: those of the model, which judge and data must have under the same names.

    Raises:
        ConfigError: a class of the model that the judge does not know, or a model without labels. DataError: one that the
            data do not have.
    """
    own = tuple(model.recipe.classes(condition))
    if not own:
        raise ConfigError(
            f"{model!r} has no labels {condition!r}, and a judge tells labels: leave the judge out, and features are compared."
        )
    if missing := [name for name in own if name not in judge.class_names]:
        raise ConfigError(
            f"the judge does not know {len(missing)} of the model's {len(own)} classes: {_some(missing)}. "
            f"{one_of('class', missing[0], judge.class_names, listed='Its classes')} "
            "Train one of the same labels: zoo judge --data DIR --for MODEL --out DIR."
        )
    if lacking := [name for name in own if name not in data]:
        raise DataError(
            f"the data have none of {len(lacking)} of the model's {len(own)} classes: {_some(lacking)}. "
            f"{one_of('class', lacking[0], data, DataError, listed='The data have')} Give the data that it was trained on."
        )
    return own


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ---------------------------------------------------------------- features without labels


def choose(candidates: Sequence[Features], reference: Tensor, train: Tensor, seed: int) -> Features:
    """The net whose features see best that real samples were blurred, or mixed in pairs.

    Measured is the Frechet distance of such samples from the reference over that of untouched training samples; the worse of
    the two ratios counts. All ratios are written into the chosen one's `note`.
    """
    if len(candidates) == 1:
        return candidates[0]
    real = reference[draw(len(reference), COMPARED, seed)]
    own = train[draw(len(train), COMPARED, seed)]
    spoilt = [blurred(own), 0.7 * own + 0.3 * own.roll(1, 0)]
    ratios = []
    for net in candidates:
        target = net.features(real)[0]
        untouched = max(frechet_distance(net.features(own)[0], target), 1e-9)
        ratios.append(min(frechet_distance(net.features(x)[0], target) / untouched for x in spoilt))
    best = candidates[int(np.argmax(ratios))]
    told = ", ".join(f"{net.name} {ratio:.1f}" for net, ratio in zip(candidates, ratios, strict=True))
    best.note = f"chosen of {len(candidates)} nets, as it tells spoilt training samples best from untouched ones: {told}"
    return best


def blurred(x: Tensor) -> Tensor:
    """Samples (n, ..., L) of which each number is the mean of three along the last axis."""
    return (x + x.roll(1, -1) + x.roll(-1, -1)) / 3


def middle_features(denoiser: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Mean over positions (n, width) of what the middle of a U-Net or a transformer on a grid says to samples (n, C, H, W).

    Args:
        t: times (n,), near the end of sampling.
    """
    net: Any = denoiser.net
    place = net.middle if hasattr(net, "middle") else net.blocks[len(net.blocks) // 2]

    def stop(module: nn.Module, given: Any, out: Tensor) -> None:
        raise _Found(out)

    handle = place.register_forward_hook(stop)
    try:
        denoiser(x, t, {})
    except _Found as found:
        out = found.out.float()
        return out.mean((2, 3)) if out.ndim == 4 else out.mean(1)
    finally:
        handle.remove()
    raise ConfigError(f"{type(denoiser).__name__} does not pass its own middle: give features of another net.")


class _Found(Exception):  # noqa: N818  # it is no error
    """Ends a forward pass where its middle is known: what comes after costs as much again."""

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = out

"""Data of a domain, and batches of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.contract.conditions import Condition, Label
from zoo.contract.recipe import Recipe
from zoo.core.device import send


@dataclass
class Batch:
    """Encoded training samples.

    Attributes:
        x0: (B,*S) clean samples.
        cond: {name: (B,...)} conditions; what is not given is as `zoo.core.guidance.null_like` says.
        mask: (B,N) bool, True for real elements (points, residues, frames); None where every element is real.
    """

    x0: Tensor
    cond: dict[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        mask = None if self.mask is None else send(self.mask, device)
        return Batch(send(self.x0, device), {k: send(v, device) for k, v in self.cond.items()}, mask)

    def first(self, n: int) -> Batch:
        """The first n samples."""
        return Batch(self.x0[:n], {k: v[:n] for k, v in self.cond.items()}, None if self.mask is None else self.mask[:n])


class Dataset(ABC):
    """Training or evaluation data of a domain: `len`, and `dataset[i]` -> (object, conditions)."""

    #: {condition: class names} of the labels that the data carry
    labels: dict[str, list[str]] = {}
    #: what a card says of data that are the user's own; None: they are the recipe's, and so is what it says of them
    origin: str | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]: ...

    def draw(self, i: int, rng: torch.Generator) -> tuple[Any, dict[str, Any]]:
        """Sample i for training: where it is a part of something longer, another part each time; the default is `dataset[i]`.

        Args:
            rng: of this sample at this place of the run; nothing else may be random.
        """
        return self[i]

    def prepare_for(self, codec: nn.Module, recipe: Recipe) -> None:  # noqa: B027  # most have nothing to do
        """From now on give objects as this codec takes them, where the data can: at its size, its rate, in its windows.

        `fit` and `train` call it before they look at the data. How many samples there are may change with it.
        """

    def given(self, i: int) -> dict[str, Any]:
        """The conditions of `dataset[i]` alone; a dataset that need not read the object for them says them at once."""
        return self[i][1]

    def original(self, i: int) -> Any:
        """Object i as the user has it, for what is said of the data: `dataset[i]` may be smaller."""
        return self[i][0]

    def held_out(self) -> Dataset | None:
        """The samples that are held out of these, for a loss that is not of the training data, without reading them again.

        The default is None: the domain's `dataset(source, "validation")` is asked.
        """
        return None

    def left_out_words(self) -> str:
        """What lies beside the data and was not taken, as in "3 .psd, 1 hidden folder"; "" where nothing was."""
        return ""

    def conditions(self) -> dict[str, Condition]:
        """The conditions that a model of these data has; the default are their labels."""
        return {k: Label(values=tuple(v)) for k, v in self.labels.items()}

    def sizes(self) -> Tensor | None:
        """How many elements each sample has (n,) int64, where that differs: the trainer makes batches of like sizes."""
        return None

    def attributed(self, recipe: Recipe) -> Recipe:
        """The recipe with what its card says of the data. Of a user's own data no licence is known, and none is claimed."""
        if self.origin is None:
            return recipe
        about = f"The recipe {recipe.domain}/{recipe.name}, trained on other data."
        return recipe.model_copy(update={"data": self.origin, "licence": "", "description": about})


class Items(Dataset):
    """Objects in memory, with the conditions that belong to each.

    Args:
        items: (object, {condition: value}), as `dataset[i]` gives them.
        conditions: {name: condition} of the values; default: labels by what `labels` names.
        labels: {condition: class names}.
        origin: what a card says of the data.
    """

    def __init__(
        self,
        items: Sequence[tuple[Any, dict[str, Any]]],
        *,
        conditions: Mapping[str, Condition] | None = None,
        labels: Mapping[str, list[str]] | None = None,
        origin: str | None = None,
    ) -> None:
        self.items, self.labels, self.origin = list(items), dict(labels or {}), origin
        self._conditions = conditions

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        return self.items[i]

    def conditions(self) -> dict[str, Condition]:
        return super().conditions() if self._conditions is None else dict(self._conditions)


class Bare(Dataset):
    """The objects of another dataset without their conditions, for models that have none, such as autoencoders."""

    labels: dict[str, list[str]] = {}

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.origin = dataset, dataset.origin

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]:
        return self.dataset[i][0], {}

    def draw(self, i: int, rng: torch.Generator) -> tuple[Any, dict[str, Any]]:
        return self.dataset.draw(i, rng)[0], {}

    def prepare_for(self, codec: nn.Module, recipe: Recipe) -> None:
        self.dataset.prepare_for(codec, recipe)

    def given(self, i: int) -> dict[str, Any]:
        return {}

    def original(self, i: int) -> Any:
        return self.dataset.original(i)

    def held_out(self) -> Dataset | None:
        found = self.dataset.held_out()
        return None if found is None else Bare(found)

    def left_out_words(self) -> str:
        return self.dataset.left_out_words()

    def conditions(self) -> dict[str, Condition]:
        return {}

    def sizes(self) -> Tensor | None:
        return self.dataset.sizes()

    def attributed(self, recipe: Recipe) -> Recipe:
        return self.dataset.attributed(recipe)

    @property
    def files(self) -> Any:
        """The files of the other dataset, where it has one a sample: they are what it is known by."""
        return getattr(self.dataset, "files", None)

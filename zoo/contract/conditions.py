"""Conditions: what a sample can be asked to be. Each kind is a class; nothing outside of them branches on the kind.

A condition is read from what a user gives, becomes a tensor (n, ...) for the net, has one null for "not given", and says
what it is. A new kind is a subclass that is registered, here or through an entry point of the group `zoo.conditions`:

    @condition("tags")
    class Tags(Condition): ...

This module loads no torch by itself: recipes are made of conditions, and names are listed without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, PositiveInt, field_validator, model_validator

from zoo.contract.page import Question
from zoo.contract.part import Part
from zoo.contract.typed import typed, word
from zoo.errors import ConfigError, ShapeError, ZooError, one_of
from zoo.extras import Registry
from zoo.values import for_each, plain, several

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: the kinds of conditions by the name that a recipe gives
CONDITIONS: Registry[type[Condition]] = Registry("kind of condition", "zoo.conditions")

C = TypeVar("C", bound="type[Condition]")


def condition(kind: str) -> Callable[[C], C]:
    """Register a class as the kind `kind` of conditions."""

    def register(found: C) -> C:
        CONDITIONS.register(kind, found)
        return found

    return register


@dataclass(frozen=True)
class Reading:
    """What a condition is read with.

    Attributes:
        name: of the condition, for messages.
        encode: a value of the domain's own units -> a tensor in encoded units, see `Codec.condition`; None leaves units.
        rng: the generator of sample i, for what each sample draws for itself; None where nothing can be drawn.
    """

    name: str = "condition"
    encode: Callable[[Any], Tensor] | None = None
    rng: Callable[[int], torch.Generator] | None = None

    def encoded(self, value: Any) -> Tensor:
        """A value as a tensor in encoded units, whole numbers as int64, others as float32."""
        found = tensor_of(value) if self.encode is None else self.encode(value)
        return found.float() if found.is_floating_point() else found


@dataclass(frozen=True)
class Given:
    """A condition that was read.

    Attributes:
        values: (n, ...) what the net is told; a sample that was given nothing holds the null.
        shown: what each sample was asked to be, in the user's words, None for nothing; None alone for what has no words.
    """

    values: Tensor
    shown: list[Any] | None = None


class Condition(Part):
    """Base of all kinds. A kind's own fields are what a recipe says of it."""

    kind: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of its values, where there is a list of them."""
        return ()

    @property
    def derived(self) -> bool:
        """Whether training makes it of the sample itself, see `derive`; the data then need not have it."""
        return False

    def derive(self, x: Tensor, rng: torch.Generator | None) -> Tensor:
        """Encoded samples (B, ...) -> the condition (B, ...) that training tells the net; only where `derived`.

        Args:
            rng: CPU generator of what is random in it.
        """
        raise NotImplementedError

    def read(self, value: Any, n: int, reading: Reading | None = None) -> Given:
        """What a user gives for n samples: one value for all of them, n of them, or None for nothing.

        Raises:
            ConfigError, ShapeError: a value that the condition does not take; the message says what it takes.
        """
        raise NotImplementedError

    def among(self, found: Condition) -> Condition:
        """The condition of a model of this recipe on data whose condition of the same name is `found`; the default is that.

        A kind whose data say only that they have it keeps what the recipe says of it.
        """
        return found

    def batch(self, values: Sequence[Any], reading: Reading | None = None) -> Tensor:
        """What a dataset gives for the samples of a batch -> (n, ...)."""
        import numpy as np

        return (reading or Reading()).encoded(np.stack([np.asarray(v) for v in values]))

    def about(self, values: Sequence[Any]) -> str:
        """What is to be said of the values of a dataset, before a model is trained on them; the default is nothing."""
        return ""

    def null(self, n: int) -> Tensor:
        """(n, ...) of "not given": `zoo.core.guidance.null_like`."""
        from zoo.core.guidance import null_like

        return null_like(self.example(n))

    def example(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """(n, ...) values such as the net receives, for tests and golden outputs."""
        raise NotImplementedError

    def embedding(self, dim: int) -> nn.Module:
        """A module (values (n, ...) or None, n) -> (n, dim), with a learned null for rows that are not given."""
        raise NotImplementedError

    def showcase(self, n: int) -> list[Any] | None:
        """Values for n samples that show what the condition can do; None where only real data have any."""
        return None

    def task(self, domain: str) -> str | None:
        """The Hub's name of what a model of this domain does with the condition, where it has one; the default is None."""
        return None

    def parse(self, text: str) -> Any:
        """What a user types on the command line as a value for `read`: JSON, or words and numbers with commas between."""
        return typed(text)

    def question(self) -> Question:
        """How a page asks for it; the default is a text that `parse` reads."""
        return Question("text")

    def describe(self) -> str:
        """What it takes, in one line."""
        raise NotImplementedError

    def placeholder(self) -> str | None:
        """Python that stands for a value in an example; None where the example does without the condition."""
        return None

    def json(self) -> dict[str, Any]:  # type: ignore[override]  # pydantic's own is deprecated
        """What a recipe's file says of it."""
        return self.model_dump(mode="json")


@condition("label")
class Label(Condition):
    """One of a list of labels, by name (upper and lower case are the same) or by number.

    `free` says what a caller gets who leaves it out: "drop", the net's learned null, or "draw", a label that each sample
    draws for itself (for what every sample has but few care to name, such as a speaker).
    """

    kind: Literal["label"] = "label"
    values: tuple[str, ...] = Field(min_length=1)
    free: Literal["drop", "draw"] = "drop"

    @field_validator("values", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        found = several(value)
        return value if found is None else tuple(found)

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        """Two labels of one name could not be told apart, and one without a name could not be asked for."""
        twice = sorted({v for v in values if values.count(v) > 1})
        if twice:
            raise ConfigError(
                f"the label {twice[0]!r} is there {values.count(twice[0])} times; each label needs a name of its own."
            )
        if any(not v.strip() for v in values):
            raise ConfigError("a label without a name; give each label a word.")
        return values

    @property
    def classes(self) -> tuple[str, ...]:
        return self.values

    def index(self, name: str, value: Any) -> int:
        """The class number of a label given by name or number; anything else raises with the list."""
        value = plain(value)
        if isinstance(value, str):
            if value in self.values:
                return self.values.index(value)
            alike = [i for i, known in enumerate(self.values) if known.casefold() == value.casefold()]
            if len(alike) == 1:
                return alike[0]
        elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self.values):
            return value
        raise one_of(name, value, self.values)

    def read(self, value: Any, n: int, reading: Reading | None = None) -> Given:
        import torch

        reading = reading or Reading()
        numbers = [self._one(v, i, reading) for i, v in enumerate(for_each(value, n, reading.name))]
        shown = [None if k < 0 else self.values[k] for k in numbers]
        return Given(torch.tensor(numbers), shown)

    def _one(self, value: Any, i: int, reading: Reading) -> int:
        """The class number of sample i; -1 for none."""
        if value is not None:
            return self.index(reading.name, value)
        if self.free == "drop" or reading.rng is None:
            return -1
        import torch

        return int(torch.randint(len(self.values), (), generator=reading.rng(i)))

    def batch(self, values: Sequence[Any], reading: Reading | None = None) -> Tensor:
        import torch

        name = (reading or Reading()).name
        numbers = [-1 if v is None else plain(v) for v in values]
        return torch.tensor([-1 if v == -1 else self.index(name, v) for v in numbers])

    def example(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        import torch

        return torch.arange(n) % len(self.values)

    def embedding(self, dim: int) -> nn.Module:
        from zoo.nets.blocks import LabelEmbedding

        return LabelEmbedding(len(self.values), dim)

    def showcase(self, n: int) -> list[Any]:
        return [self.values[i % len(self.values)] for i in range(n)]

    def parse(self, text: str) -> Any:
        known = {v.casefold() for v in self.values}
        if text.startswith("[") and text.casefold() not in known:
            return typed(text)
        words = [text] if text.casefold() in known else text.split(",")
        found = [w if w.casefold() in known else word(w) for w in words]
        return found if len(found) > 1 else found[0]

    def question(self) -> Question:
        return Question("choice", choices=self.values)

    def describe(self) -> str:
        return ", ".join(self.values)


class _Numbers(Condition):
    """What `Array` and `Views` share: one array of finite numbers a sample; "not given" is NaN."""

    shape: tuple[PositiveInt, ...] = Field(min_length=1)

    def read(self, value: Any, n: int, reading: Reading | None = None) -> Given:
        import torch

        reading = reading or Reading()
        if value is None:
            return Given(self.null(n))
        try:
            array = reading.encoded(value).float()
        except ZooError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{reading.name}: not an array of numbers ({error}); give {self.describe()}.") from None
        if not torch.isfinite(array).all():
            raise ConfigError(f"{reading.name}: holds NaN or infinity; every number of it must be finite.")
        if tuple(array.shape) not in (self.shape, (n, *self.shape)):
            raise ShapeError(f"{reading.name}: {self._wanted(tuple(array.shape), n)}.")
        return Given(array.expand(n, *self.shape))

    def _wanted(self, shape: tuple[int, ...], n: int) -> str:
        """What is wrong with a shape that does not fit n samples, and what does."""
        return f"shape {shape}; give {self.shape}, or {(n, *self.shape)} for n={n} samples"

    def example(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        import torch

        return torch.randn(n, *self.shape, generator=rng)

    def null(self, n: int) -> Tensor:
        import torch

        return torch.full((n, *self.shape), math.nan)

    def embedding(self, dim: int) -> nn.Module:
        from zoo.nets.blocks import VectorEmbedding

        return VectorEmbedding(math.prod(self.shape), dim)


@condition("array")
class Array(_Numbers):
    """An array of finite numbers, such as what a robot observes; left out, it is the learned null.

    `shape` is that of one sample's value after the codec's `condition`, which takes the domain's own units.
    """

    kind: Literal["array"] = "array"

    def describe(self) -> str:
        return f"numbers {self.shape}"

    def placeholder(self) -> str:
        return f"np.zeros({self.shape})"


@condition("views")
class Views(_Numbers):
    """The last observations of a robot with cameras, given as a dictionary of numbers and pictures.

    A net receives one row an observation (n, steps, D): the numbers first, then the pictures of all cameras, each RGB with
    the channels first, flat; one without eyes of its own embeds them as a vector. How they are scaled is the codec's.

    Attributes:
        shape: (steps, D).
        numbers: (name, count) of each part that is numbers, in their order in a row.
        cameras: (name, height, width) of each camera's pictures, likewise.

    Raises:
        ConfigError: two parts of one name, or rows of another size than they are together.
    """

    kind: Literal["views"] = "views"
    shape: tuple[PositiveInt, PositiveInt]
    numbers: tuple[tuple[str, PositiveInt], ...] = Field(min_length=1)
    cameras: tuple[tuple[str, PositiveInt, PositiveInt], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Views:
        names = [name for name, _ in self.numbers] + [name for name, _, _ in self.cameras]
        size = sum(n for _, n in self.numbers) + sum(3 * height * width for _, height, width in self.cameras)
        if size != self.shape[1] or len(set(names)) < len(names):
            raise ConfigError(
                f"views: rows of {self.shape[1]} numbers for {', '.join(names)}; each part needs a name of its own, and these "
                f"have {size} together."
            )
        return self

    def _wanted(self, shape: tuple[int, ...], n: int) -> str:
        count = f"{shape[0]} windows" if len(shape) == 3 else f"shape {shape}"
        return f"{count} for n={n} samples; give one for all of them, or {n}: {self.describe()}"

    def describe(self) -> str:
        parts = [f"{name} ({size})" for name, size in self.numbers]
        parts += [f"{name} ({height}, {width}, 3)" for name, height, width in self.cameras]
        return f"the last {self.shape[0]} of {', '.join(parts)}"

    def placeholder(self) -> str:
        steps = self.shape[0]
        parts = [f'"{name}": np.zeros({(steps, size)})' for name, size in self.numbers]
        parts += [f'"{name}": np.zeros({(steps, height, width, 3)}, np.uint8)' for name, height, width in self.cameras]
        return "{" + ", ".join(parts) + "}"


def tensor_of(value: Any) -> Tensor:
    """Numbers of Python, numpy or torch as a tensor; also a list of arrays or tensors, one a sample."""
    import torch

    if isinstance(value, (list, tuple)) and value and all(getattr(v, "ndim", 0) for v in value):
        return torch.stack([torch.as_tensor(v) for v in value])
    return torch.as_tensor(value)


def parse_condition(value: Any) -> Condition:
    """A condition from its JSON, where labels need not say their kind; a condition comes back as it is."""
    if isinstance(value, Condition):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"condition {value!r}: give its fields, e.g. {{'kind': 'label', 'values': ['cat', 'dog']}}.")
    return CONDITIONS[str(value.get("kind", "label"))].model_validate(dict(value))

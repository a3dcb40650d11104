"""Augmentation: what training may do to an object of a domain before the codec encodes it.

A domain declares its own as a part: one number each, 0 for off, which is the default of all of them. A recipe holds those that
are on: `augment={"flip": 0.5}`, on the command line `--set augment.flip=0.5`. Evaluation, previews, the golden output and the
fingerprint of the data see the objects as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.contract.part import Part
from zoo.core import seeds
from zoo.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from zoo.contract.codec import Codec

A = TypeVar("A", bound="Augment")

#: stream of random numbers of the augmentation, beside that of the batches
STREAM = 4


class Augment(Part):
    """A domain's augmentations. The base has none; a domain's class has a number for each:

        class FlyAugment(Augment):
            flip: float = Field(0.0, ge=0, le=1, description="share of the flies that are mirrored", examples=[0.5])

            def apply(self, item, given, rng, codec):
                return (item.mirrored() if chance(self.flip, rng) else item), given

    Every field has the default 0, off, and in `examples` a value that changes an object: the contract suite tries it.
    """

    def apply(self, item: Any, given: Mapping[str, Any], rng: torch.Generator, codec: Codec) -> tuple[Any, Mapping[str, Any]]:
        """Another object of the domain and its conditions; what came stays as it is. Only called where something is on.

        Args:
            item, given: as the dataset gives them: the object, and its conditions by name.
            rng: gives all random numbers. It is the sample's own: how many are drawn of it does not matter.
            codec: fitted to the training data, for those that need its ranges.
        """
        return item, given

    @property
    def on(self) -> dict[str, Any]:
        """The augmentations that are not 0, by name."""
        return {k: v for k, v in self.model_dump().items() if v}

    @classmethod
    def example(cls: type[A]) -> A:
        """All of them on, each with the first of its examples."""
        return cls(**{k: (f.examples or [f.default])[0] for k, f in cls.model_fields.items()})

    @classmethod
    def about(cls) -> dict[str, str]:
        """What each of them does, in words."""
        return {k: f.description or "" for k, f in cls.model_fields.items()}

    def batch(
        self, items: Sequence[tuple[Any, Mapping[str, Any]]], codec: Codec, seed: int, position: int
    ) -> list[tuple[Any, dict[str, Any]]]:
        """The items of the batch at a position, augmented: a pure function of seed, position and place in the batch."""
        if not self.on:
            return [(item, dict(given)) for item, given in items]
        found = []
        for k, (item, given) in enumerate(items):
            item, given = self.apply(item, given, seeds.generator(seed, STREAM, position, k), codec)
            found.append((item, dict(given)))
        return found


def augment_of(kind: type[A], options: Mapping[str, Any], domain: str) -> A:
    """A domain's augmentations from a recipe's options; an unknown name or a value outside its bounds is a ConfigError."""
    if not kind.model_fields and options:
        raise ConfigError(f"augment: the domain {domain!r} has no augmentations, got {', '.join(map(str, options))}.")
    try:
        return kind.model_validate(dict(options))
    except ConfigError as error:
        raise ConfigError(f"augment of the domain {domain!r}: {error}") from None


def chance(share: float, rng: torch.Generator) -> bool:
    """True in this share of the calls. One number is drawn in any case."""
    return uniform(0.0, 1.0, rng) < share


def uniform(low: float, high: float, rng: torch.Generator) -> float:
    """A number between two."""
    import torch

    return low + (high - low) * float(torch.rand((), generator=rng))

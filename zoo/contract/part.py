"""The base of everything that a recipe is made of. Loads no torch, so that names can be listed at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.errors import ConfigError, one_of

P = TypeVar("P", bound="Part")


class Part(BaseModel):
    """Immutable, no unknown keys, no infinite numbers.

    Raises:
        ConfigError: built with values that it does not take; every bad key is named, an unknown one with the nearest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise told(error, type(self)) from None

    # for pydantic this is still its own __init__: a part inside another one is validated in one go, with its place in it
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls: type[P], obj: Any, **options: Any) -> P:
        """The part that plain data describe."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise told(error, cls) from None


def told(error: ValidationError, part: type[Part]) -> ConfigError:
    """What pydantic found wrong with a part as one error of ours: every bad key, an unknown one with the nearest."""
    lines = []
    for found in error.errors():
        text = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            text = str(one_of("key", found["loc"][-1], _fields(part, found["loc"][:-1])))
        place = ".".join(map(str, found["loc"]))
        given = "" if isinstance(found["input"], Mapping) else f" (got {_short(found['input'])})"
        lines.append(f"{place}: {text}{given}" if place else text)
    return ConfigError(f"{part.__name__.lower()}: " + "; ".join(lines))


def _fields(part: type[Part], place: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed at a place inside a part: pydantic says where a key is, not what else could be there."""
    here = [part]
    for key in place:
        inner = [p for h in here if key in h.model_fields for p in _parts(h.model_fields[str(key)].annotation)]
        # a key that is no field says which of several classes it is about
        here = (
            inner
            or [h for h in here if "kind" in h.model_fields and key in get_args(h.model_fields["kind"].annotation)]
            or here
        )
    return list(dict.fromkeys(name for h in here for name in h.model_fields))


def _parts(annotation: Any) -> list[type[Part]]:
    """The classes of parts that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [p for inner in get_args(annotation) for p in _parts(inner)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."

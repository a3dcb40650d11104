"""Numbers and lists as users give them, of Python, numpy or torch, as the plain ones that the code works with.

Neither numpy nor torch is imported here: their scalars and arrays are known by what they can do.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from zoo.errors import ConfigError, one_of

#: the largest number of float32, in which nets work: torch refuses to multiply by, or clamp to, a larger one
LARGEST = float.fromhex("0x1.fffffep+127")


def plain(value: Any) -> Any:
    """A scalar of numpy or torch, also an array or a tensor without axes, as Python's own; anything else as it is."""
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    return value


def plain_data(value: Any) -> Any:
    """The same inside mappings, lists and tuples; arrays with axes become lists. What JSON can hold comes out as such."""
    value = plain(value)
    if isinstance(value, Mapping):
        return {k: plain_data(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(plain_data(v) for v in value)
    if isinstance(value, list):
        return [plain_data(v) for v in value]
    if getattr(value, "ndim", 0) and callable(getattr(value, "tolist", None)):
        return value.tolist()
    return value


def several(value: Any) -> list[Any] | None:
    """The members of a list, a tuple, a range or an array with one axis, as plain values; None for a single value."""
    if isinstance(value, (list, tuple, range)):
        return [plain(v) for v in value]
    if getattr(value, "ndim", None) == 1 and callable(getattr(value, "tolist", None)):
        return list(value.tolist())
    return None


def for_each(value: Any, n: int, name: str) -> list[Any]:
    """A value for each of n samples: one for all of them, or a list or an array of n.

    Raises:
        ConfigError: another number of values.
    """
    values = several(value)
    if values is None:
        return [plain(value)] * n
    if len(values) != n:
        raise ConfigError(f"{name}: {len(values)} values for n={n} samples; give one, or a list of {n}.")
    return values


def whole(value: Any, name: str, least: int | None = None, most: int | None = None) -> int:
    """A whole number, checked.

    Raises:
        ConfigError: not a whole number, or outside least..most.
    """
    found = plain(value)
    fits = isinstance(found, int) and not isinstance(found, bool)
    if not fits or (least is not None and found < least) or (most is not None and found > most):
        raise ConfigError(f"{name}={found!r}: give a whole number{_range(least, most)}.")
    return int(found)


def number(value: Any, name: str, least: float | None = None, most: float | None = None, *, what: str = "") -> float:
    """A finite number that float32 holds, checked.

    Args:
        what: a hint for the message, such as "0 is plain conditional".

    Raises:
        ConfigError: not a finite number of float32, or outside least..most.
    """
    found = plain(value)
    fits = isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) <= LARGEST
    if not fits or (least is not None and found < least) or (most is not None and found > most):
        raise ConfigError(f"{name}={found!r}: give a finite number{_range(least, most)}{f' ({what})' if what else ''}.")
    return found


def numbers(value: Any, n: int, what: str) -> list[float]:
    """n finite numbers, of a list or an array.

    Raises:
        ConfigError: anything else; `what` says what they are.
    """
    try:
        found = [float(v) for v in value]
    except (TypeError, ValueError):
        found = []
    if len(found) != n or not all(map(math.isfinite, found)):
        raise ConfigError(f"{what}: got {value!r}; give {n} finite numbers.")
    return found


def interval(value: Any, name: str, *, open: bool = False, what: str = "") -> tuple[float, float]:
    """Two numbers 0 <= low < high, checked.

    Args:
        open: without its ends 0 and infinity.
        what: the unit, such as "in sigma / alpha".

    Raises:
        ConfigError: anything else.
    """
    found = several(value) or []
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in found)
    if len(found) == 2 and numbers and 0 <= found[0] < found[1] and not (open and (not found[0] or found[1] == math.inf)):
        return found[0], found[1]
    wanted = "0 < low < high, both finite" if open else "0 <= low < high"
    raise ConfigError(f"{name}={value!r}: give two numbers, {wanted}{f', {what}' if what else ''}.")


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f" of at most {most:g}"
    return f" of at least {least:g}" if most is None else f" from {least:g} to {most:g}"


def known_arguments(call: Callable[..., Any], given: Mapping[str, Any], what: str, own: Container[str] = ()) -> None:
    """Refuse a name that a function or a class does not take, with the nearest that it does.

    Args:
        what: what the arguments are called in the message.
        own: names that the caller gives itself.

    Raises:
        ConfigError: an unknown name.
    """
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):  # some of C have none
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in given:
        if name not in parameters or name in own:
            raise one_of(what, name, [p for p in parameters if p not in own])


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """["a.b=1", ...] as a dictionary.

    Raises:
        ConfigError: one without "=", or a name that is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r}: give path=value, e.g. training.batch_size=32.")
        if name in found:
            raise ConfigError(f"{name!r} is given twice, as {found[name]!r} and as {value!r}. Give it once.")
        found[name] = value
    return found

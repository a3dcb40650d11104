"""The errors of zoo. Each message says what came, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager


class ZooError(Exception):
    """Base of every error that zoo raises on purpose."""


class ConfigError(ZooError, ValueError):
    """An invalid option, recipe or argument."""


class ShapeError(ZooError, ValueError):
    """A tensor or an array of the wrong shape."""


class UnknownModelError(ZooError, KeyError):
    """A model name that the registry does not know."""

    __str__ = Exception.__str__  # KeyError would print the repr


class CheckpointError(ZooError):
    """A model folder or a checkpoint that is missing, damaged, foreign or too new."""


class DataError(ZooError):
    """Training or evaluation data that is missing or cannot be read."""


class HubError(ZooError):
    """A failed exchange with the Hugging Face Hub."""


class NumericsError(ZooError, ArithmeticError):
    """A loss, gradient or sample that is no longer finite."""


class ResourceError(ZooError):
    """The machine is out of memory or disk."""


class ContractError(ZooError, AssertionError):
    """A domain that breaks the contract of plug-ins, see `zoo.testing`."""


def brief(value: object, most: int = 200) -> str:
    """A value that came from outside for a message, cut where it is long: a list of a file may have a million entries."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = f"a {type(value).__name__} too long to be written"
    return text if len(text) <= most else f"{text[:most]}..."


def one_of(
    what: str, value: object, allowed: Iterable[object], error: type[ZooError] = ConfigError, *, listed: str = "Allowed"
) -> ZooError:
    """The error for a value outside a closed list, with the nearest allowed names first.

    Args:
        listed: what the names are, where others are allowed as well.
    """
    names = [str(a) for a in allowed]
    near = difflib.get_close_matches((value if isinstance(value, str) else brief(value))[:200], names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return error(f"unknown {what} {brief(value)}.{hint} {listed}: {', '.join(names)}.")


@contextmanager
def memory(what: str, remedy: str) -> Iterator[None]:
    """Turn an end of memory, in Python or in torch, into a `ResourceError` that names what it was for and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error).lower() for word in ("memory", "bad_alloc")):
            raise
        raise ResourceError(f"no memory for {what}. {remedy}") from error


def memory_for(rows: int) -> AbstractContextManager[None]:
    """`memory` for a chunk of `rows` samples."""
    return memory(f"a chunk of {rows} samples", f"Use a smaller batch_size, e.g. {max(1, rows // 4)}.")

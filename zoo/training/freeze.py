"""Parameters that are not trained: which ones a recipe's patterns name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import nn

from zoo import files
from zoo.errors import ConfigError


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that a pattern fits: of parameters, or of modules for all parameters in them.

    `*`, `?` and `[...]` are as in a shell, and upper and lower case differ.

    Raises:
        ConfigError: a pattern that fits nothing, with the nearest names; or patterns that leave nothing to train.
    """
    found: set[str] = set()
    for pattern in patterns:
        fits = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")]
        if not fits:
            raise _unknown(pattern, names)
        found.update(fits)
    if names and len(found) == len(names):
        raise ConfigError(f"training.freeze: {', '.join(patterns)} fits all {len(names)} parameters: nothing is left to train.")
    return [n for n in names if n in found]


def _unknown(pattern: str, names: Sequence[str]) -> ConfigError:
    modules = dict.fromkeys(".".join(n.split(".")[:k]) for n in names for k in range(1, n.count(".") + 2))
    near = difflib.get_close_matches(pattern.rstrip(".*"), modules, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    tops = dict.fromkeys(".".join(n.split(".")[:2]) for n in names)
    return ConfigError(f"training.freeze: no parameter fits {pattern!r}.{hint} The net's parts: {', '.join(tops)}.")


@contextmanager
def frozen(net: nn.Module, patterns: Sequence[str]) -> Iterator[int]:
    """The net with the parameters that the patterns fit frozen inside the block; gives how many numbers they hold."""
    parameters = {files.plain_name(k): p for k, p in net.named_parameters()}
    chosen = [parameters[k] for k in matching(list(parameters), patterns) if parameters[k].requires_grad] if patterns else []
    try:
        for p in chosen:
            p.requires_grad_(False)
        yield sum(p.numel() for p in chosen)
    finally:
        for p in chosen:
            p.requires_grad_(True)

"""What stays the same over the steps of one sampling run, such as the embeddings of its conditions, is computed once.

    run = Once()
    for level in levels:
        with torch.no_grad(), run:      # a net inside asks `once`, and from the second step on finds what it made
            net(x, t, cond)

Outside of such a block, where gradients are recorded, in training mode, and in a compiled net, `once` simply computes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

#: what a part of a net keeps at most: the conditions alone and beside those of guidance, of two precisions
KEPT = 4

_running: ContextVar[Once | None] = ContextVar("zoo_once", default=None)


class Once:
    """What the nets of one sampling run have made of things that stay the same in it. Weights must not change meanwhile."""

    def __init__(self) -> None:
        #: owner -> {key: (what it was made of, what was made)}; the tensors are held, so that no other gets their id
        self.made: dict[int, OrderedDict[Any, tuple[Any, Any]]] = {}
        self._tokens: list[Token[Once | None]] = []

    def __enter__(self) -> Once:
        self._tokens.append(_running.set(self))
        return self

    def __exit__(self, *error: object) -> None:
        _running.reset(self._tokens.pop())

    def get(self, owner: nn.Module, make: Callable[[], T], given: tuple[Any, ...]) -> T:
        """What `owner` made of the very same tensors before, else what `make` makes now."""
        key = (_precision(), *(_identity(g) for g in given))
        kept = self.made.setdefault(id(owner), OrderedDict())
        if key in kept:
            kept.move_to_end(key)
            found: T = kept[key][1]
            return found
        made = make()
        kept[key] = (owner, given), made
        if len(kept) > KEPT:
            kept.popitem(last=False)
        return made


def once(owner: nn.Module, make: Callable[[], T], *given: Any) -> T:
    """make(), or within a sampling run what it gave before.

    Args:
        owner: the part of a net that asks; one part asks for one thing.
        make: makes it of `given` and of the weights, and of nothing else.
        *given: tensors, which count as the same when they are the same object and were not written to, None, and numbers.
    """
    if torch.compiler.is_compiling() or owner.training or torch.is_grad_enabled() or (run := _running.get()) is None:
        return make()
    return run.get(owner, make, given)


def _identity(given: Any) -> Any:
    """What tells one argument from another; of a tensor also how often it was written to."""
    if not isinstance(given, Tensor):
        return given
    return id(given), 0 if given.is_inference() else given._version


def _precision() -> Any:
    """In what products inside are computed."""
    kinds = ("cpu", "cuda")
    return tuple(torch.get_autocast_dtype(k) if torch.is_autocast_enabled(k) else None for k in kinds)

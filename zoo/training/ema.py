"""The average of weights over training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class EMA:
    """Exponential moving average of a module's parameters, with the short memory at the start of Karras et al.'s code."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: p.detach().clone() for k, p in self._named(module)}

    def _named(self, module: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters that are averaged, by name."""
        return module.named_parameters()

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """After optimizer step `step` (0-based)."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        moving = [(self.shadow[k], p.detach()) for k, p in self._named(module) if p.requires_grad]
        torch._foreach_lerp_([shadow for shadow, _ in moving], [p for _, p in moving], weight)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module with averaged weights inside the block."""
        own = {k: p.data for k, p in module.named_parameters()}
        for k, p in module.named_parameters():
            p.data = self.shadow[k]
        try:
            yield
        finally:
            for k, p in module.named_parameters():
                p.data = own[k]

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """The averages become the module's own weights."""
        for k, p in self._named(module):
            p.copy_(self.shadow[k])

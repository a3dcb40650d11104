"""A smaller sample as a condition: planes beside the input of a net, and one vector that says how noisy they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.nets.blocks import TimeEmbedding


class SmallEmbedding(nn.Module):
    """Small samples with their noise (B, C + 1, h, w) -> a vector (B, dim), and planes (B, C, H, W) for the net's input.

    The last plane is the share of noise. A row with NaN is not given: its planes are zero, and its vector is the learned null.

    Attributes:
        channels: C, how many planes there are.
    """

    def __init__(self, shape: Sequence[int], dim: int) -> None:
        super().__init__()
        self.shape, self.channels = (shape[0] + 1, *shape[1:]), shape[0]
        self.share = TimeEmbedding(dim, 1000.0)
        self.null = nn.Parameter(0.02 * torch.randn(dim))

    def blank(self) -> None:
        """Zero for every sample: a condition that is added to a trained net starts so."""
        nn.init.zeros_(self.share.net[-1].weight)  # type: ignore[arg-type]  # a linear layer
        nn.init.zeros_(self.share.net[-1].bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.null)

    def planes(self, values: Tensor | None, batch: int, size: Sequence[int]) -> Tensor:
        """(batch, C, *size), enlarged by the nearest neighbour."""
        if values is None:
            return self.null.new_zeros(batch, self.channels, *size)
        self._check(values, batch)
        return F.interpolate(torch.nan_to_num(values[:, :-1]), tuple(size), mode="nearest")

    def forward(self, values: Tensor | None, batch: int) -> Tensor:
        """values (batch, C + 1, h, w) or None -> (batch, dim)."""
        null = self.null.expand(batch, -1)
        if values is None:
            return null
        self._check(values, batch)
        none = values.flatten(1).isnan().any(1)
        out = self.share(torch.nan_to_num(values[:, -1, 0, 0]))
        return torch.where(none[:, None], null.to(out.dtype), out)

    def _check(self, values: Tensor, batch: int) -> None:
        if values.shape != (batch, *self.shape):
            raise ShapeError(f"small samples {tuple(values.shape)} must be {(batch, *self.shape)}.")

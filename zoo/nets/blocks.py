"""Parts that both backbones share: embeddings of time and conditions, attention, modulation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError


class TimeEmbedding(nn.Module):
    """Noise coordinate t (B,) -> (B, dim): sinusoidal features (Vaswani et al. 2017, section 3.5) and two layers.

    Args:
        scale: multiplies t first, so that its range is about 0..1000: 1 for step indices, 1000 for a flow's time in
            0..1, 250 for EDM's ln(sigma) / 4.
    """

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        if dim % 2:
            raise ConfigError(f"TimeEmbedding dim={dim}: give an even number.")
        self.scale = scale
        half = dim // 2
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * torch.arange(half) / half), persistent=False)
        self.net = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        # the angles reach 1000: never in half precision
        angles = (self.scale * t.to(self.frequencies.dtype))[:, None] * self.frequencies
        return self.net(torch.cat([angles.cos(), angles.sin()], 1))


class LabelEmbedding(nn.Module):
    """Labels (B,) int64 -> (B, dim), with a learned null for rows that are dropped, -1 or not given at all."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.classes = classes
        self.table = nn.Embedding(classes + 1, dim)  # the last row is the null
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, label: Tensor | None, drop: Tensor | None, batch: int) -> Tensor:
        if label is None:
            label = torch.full((batch,), -1, device=self.table.weight.device)
        null = label < 0 if drop is None else (label < 0) | drop
        return self.table(torch.where(null, self.classes, label))


class VectorEmbedding(nn.Module):
    """Vectors (B, in_dim) -> (B, dim), with a learned null for rows that are dropped or not given at all."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(in_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.null = nn.Parameter(0.02 * torch.randn(dim))

    def forward(self, vector: Tensor | None, drop: Tensor | None, batch: int) -> Tensor:
        null = self.null.expand(batch, -1)
        if vector is None:
            return null
        out = self.net(vector)
        return out if drop is None else torch.where(drop[:, None], null.to(out.dtype), out)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B,N,D) (Vaswani et al. 2017), queries and keys normalised per head.

    `mask` (B,N) bool is True for real tokens: nobody attends to the others. `bias` (B or 1, heads, N, N) is added
    to the logits.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"attention: dim={dim} does not divide by heads={heads}.")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.RMSNorm(dim // heads, eps=1e-6)
        self.k_norm = nn.RMSNorm(dim // heads, eps=1e-6)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if mask is not None:
            if mask.shape != (B, N):
                raise ShapeError(f"mask {tuple(mask.shape)} must be (batch, tokens) = {(B, N)}.")
            far = torch.zeros(B, 1, 1, N, dtype=v.dtype, device=x.device).masked_fill(~mask[:, None, None], -torch.inf)
            # a row that is all padding would be NaN; it attends to everything instead and nobody reads it
            far = far.masked_fill(~mask.any(1)[:, None, None, None], 0.0)
            bias = far if bias is None else bias.to(v.dtype) + far
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(y.transpose(1, 2).reshape(B, N, D))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, for x (B,N,D) and (B,D) (Perez et al. 2017, Eq. 1)."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


def zero(module: nn.Module) -> nn.Module:
    """The module with all parameters set to zero, so that a residual branch starts as nothing."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module

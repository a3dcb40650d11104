"""A token transformer with adaptive layer norm, masks and positions: patches now, residues and points later."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.nets.blocks import Attention, modulate, zero


def sincos_positions(grid: Sequence[int], dim: int) -> Tensor:
    """Fixed positions (N, dim) of a grid of one or more axes, N = product(grid) (Vaswani et al. 2017, section 3.5)."""
    if dim % (2 * len(grid)):
        raise ConfigError(f"positions: dim={dim} must divide by {2 * len(grid)} for {len(grid)} axes.")
    part = dim // len(grid)
    frequencies = torch.exp(-math.log(10_000) * torch.arange(part // 2) / (part // 2))
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in grid], indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in axes]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)


class Block(nn.Module):
    """Attention and a two-layer net, each modulated and gated (adaLN-Zero, Peebles & Xie 2022, figure 3)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU("tanh"), nn.Dropout(dropout), nn.Linear(hidden, dim))
        # what this block adds to the modulation that all blocks share (Chen et al. 2023, adaLN-single)
        self.modulation = nn.Parameter(torch.zeros(6 * dim))

    def forward(self, x: Tensor, shared: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (shared + self.modulation).chunk(6, 1)
        x = x + gate1[:, None] * self.attention(modulate(self.norm1(x), shift1, scale1), mask, bias)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class Transformer(nn.Module):
    """Diffusion transformer on tokens (B,N,dim).

    The modulation by `emb` is one projection shared by all blocks plus a learned offset a block (PixArt's
    adaLN-single, Chen et al. 2023): a third of the parameters of one projection a block.

    Args:
        dim, depth, heads: width, number of blocks, attention heads.
        emb_dim: size of the embedding of time and conditions.
        mlp_ratio: hidden width of the two-layer nets over dim.
    """

    def __init__(
        self, dim: int, depth: int = 8, heads: int = 6, emb_dim: int = 256, mlp_ratio: float = 4.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(dim, heads, mlp_ratio, dropout) for _ in range(depth)])
        self.shared = nn.Sequential(nn.SiLU(), zero(nn.Linear(emb_dim, 6 * dim)))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.final = nn.Sequential(nn.SiLU(), zero(nn.Linear(emb_dim, 2 * dim)))

    def forward(self, tokens: Tensor, emb: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """tokens (B,N,dim), emb (B,emb_dim), mask (B,N) bool, bias (B or 1, heads, N, N) -> (B,N,dim)."""
        shared = self.shared(emb)
        for block in self.blocks:
            tokens = block(tokens, shared, mask, bias)
        return modulate(self.norm(tokens), *self.final(emb).chunk(2, 1))

"""A token transformer with adaptive layer norm, masks and positions: patches now, residues and points later."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import Attention, CrossAttention, check_mask, modulate, zero


def sincos_positions(grid: Sequence[int], dim: int) -> Tensor:
    """Fixed positions (N, dim) float32 of a grid of one or more axes, N = product(grid), the last axis fastest.

    Each axis has its share of the dimensions: sines, then cosines (Vaswani et al. 2017, section 3.5).

    Raises:
        ConfigError: `dim` does not divide by twice the number of axes, or an axis is empty.
    """
    if not grid or min(grid) < 1:
        raise ConfigError(f"positions: grid={tuple(grid)} needs one or more axes of at least 1.")
    if dim < 1 or dim % (2 * len(grid)):
        raise ConfigError(f"positions: dim={dim} must divide by {2 * len(grid)} for {len(grid)} axes.")
    part = dim // len(grid)
    frequencies = torch.exp(-math.log(10_000) * torch.arange(part // 2) / (part // 2))
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in grid], indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in axes]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)


class Block(nn.Module):
    """Attention and a two-layer net, each modulated and gated (adaLN-Zero, Peebles & Xie 2022, figure 3).

    `modulation` is what the block adds to the shared projection (Chen et al. 2023, adaLN-single), or with
    `emb_dim` a projection of its own. With `token_dim` it attends to the tokens of the conditions in between (as there).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        dropout: float,
        emb_dim: int | None = None,
        token_dim: int | None = None,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU("tanh"), nn.Dropout(dropout), nn.Linear(hidden, dim))
        self.modulation: nn.Module | nn.Parameter
        if emb_dim is None:
            self.modulation = nn.Parameter(torch.zeros(6 * dim))
        else:
            self.modulation = nn.Sequential(nn.SiLU(), zero(nn.Linear(emb_dim, 6 * dim)))
        self.cross = None if token_dim is None else CrossAttention(dim, heads, token_dim)

    def forward(
        self,
        x: Tensor,
        emb: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        told: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """x (B,N,D); emb (B,6D), the shared projection, or (B,emb_dim) for a block with its own; told: the conditions' tokens
        (B,L,token_dim) and their mask (B,L) -> (B,N,D).
        """
        own = self.modulation
        shift1, scale1, gate1, shift2, scale2, gate2 = (own(emb) if isinstance(own, nn.Module) else emb + own).chunk(6, 1)
        x = x + gate1[:, None] * self.attention(modulate(self.norm1(x), shift1, scale1), mask, bias)
        if self.cross is not None and told is not None:
            x = x + self.cross(x, *told)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class Transformer(nn.Module):
    """Diffusion transformer on tokens (B,N,dim) (DiT, Peebles & Xie 2022, arXiv:2212.09748).

    Args:
        dim, depth, heads: width, number of blocks, attention heads.
        emb_dim: size of the embedding of time and conditions.
        mlp_ratio: hidden width of the two-layer nets over dim.
        dropout: probability, between the layers of the two-layer nets.
        shared_modulation: one projection of `emb` for all blocks plus a learned offset a block (PixArt's
            adaLN-single, Chen et al. 2023, section 2.3) in place of one projection a block, which is about a third
            of a DiT's parameters.
        token_dim: size of the tokens of the conditions, where they have any: every block attends to them.

    Raises:
        ConfigError: numbers that do not fit together.
        ShapeError: tokens, emb, mask or bias of the wrong shape.
    """

    def __init__(
        self,
        dim: int,
        depth: int = 8,
        heads: int = 6,
        emb_dim: int = 256,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        shared_modulation: bool = True,
        token_dim: int | None = None,
    ) -> None:
        super().__init__()
        if depth < 1 or not mlp_ratio > 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"Transformer depth={depth}, mlp_ratio={mlp_ratio}, dropout={dropout}: give a depth of at least 1, "
                "a positive mlp_ratio and a dropout in [0, 1)."
            )
        self.dim, self.emb_dim, self.token_dim = dim, emb_dim, token_dim
        own = None if shared_modulation else emb_dim
        self.blocks = nn.ModuleList([Block(dim, heads, mlp_ratio, dropout, own, token_dim) for _ in range(depth)])
        # zero, as every gate starts: the blocks begin as the identity
        self.shared = nn.Sequential(nn.SiLU(), zero(nn.Linear(emb_dim, 6 * dim))) if shared_modulation else nn.Identity()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.final = nn.Sequential(nn.SiLU(), zero(nn.Linear(emb_dim, 2 * dim)))

    def forward(
        self,
        tokens: Tensor,
        emb: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        told: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """tokens (B,N,dim), emb (B,emb_dim), mask (B,N) bool, bias (B or 1, heads, N, N) -> (B,N,dim).

        told: the conditions' tokens (B,L,token_dim) and their mask (B,L) bool, True for real ones.

        Where the mask is False the tokens may hold anything, even NaN: no real token feels them.
        """
        if tokens.ndim != 3 or tokens.shape[2] != self.dim:
            raise ShapeError(f"tokens {tuple(tokens.shape)} must be (batch, tokens, {self.dim}).")
        B, N, _ = tokens.shape
        if emb.shape != (B, self.emb_dim):
            raise ShapeError(f"emb {tuple(emb.shape)} must be (batch, emb_dim) = {(B, self.emb_dim)}.")
        if self.token_dim is not None and told is None:
            raise ShapeError("this transformer attends to tokens of its conditions, and there are none.")
        if mask is not None:
            # a weight of 0 would still pass on a NaN
            tokens = tokens.masked_fill(~check_mask(mask, B, N)[..., None], 0.0)
        shared = self.shared(emb)
        for block in self.blocks:
            tokens = block(tokens, shared, mask, bias, told)
        return modulate(self.norm(tokens), *self.final(emb).chunk(2, 1))

"""Sets of tokens that exchange information through a few learned latents, so that cost is linear in them.

A round reads the tokens into the latents, lets those think, and writes back (Jabri et al. 2022, "Recurrent interface
networks", arXiv:2212.11972, section 2.2; Zhang et al. 2023, "3DShape2VecSet", arXiv:2301.11445, section 5.1). Nothing
depends on the order of the tokens or on how many there are.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import attend, check_mask, modulate, zero
from zoo.nets.transformer import Block


class CrossAttention(nn.Module):
    """Multi-head attention of x (B,N,dim) to others (B,M,other) -> (B,N,dim), with queries and keys normalised per head."""

    def __init__(self, dim: int, other: int, inner: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or inner % heads:
            raise ConfigError(f"attention: width {inner} does not divide by heads={heads}.")
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(dim, inner), nn.Linear(other, 2 * inner), nn.Linear(inner, dim)
        # layer norm, which unlike torch's RMS norm is one kernel, also in bf16: there are many tokens
        self.q_norm, self.k_norm = (nn.LayerNorm(inner // heads, eps=1e-6, bias=False) for _ in range(2))

    def forward(self, x: Tensor, others: Tensor, bias: Tensor | None = None) -> Tensor:
        """`bias` broadcasts to (B, heads, N, M)."""
        q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(others), "b m (two h d) -> two b h m d", two=2, h=self.heads)
        y = attend(self.q_norm(q), self.k_norm(k), v, None if bias is None else bias.to(v.dtype))
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class Round(nn.Module):
    """Latents read the tokens and think; tokens read the latents and pass a net of their own.

    The latents are modulated and gated as in a DiT. Tokens are many and every elementwise product on them takes time, so they
    are modulated once, before their net, and have no gates. Reading and both branches of the tokens are on from the start:
    with weights of zero there the first hundreds of steps learnt little.
    """

    def __init__(
        self, dim: int, width: int, inner: int, heads: int, depth: int, mlp_ratio: float, token_ratio: float, dropout: float
    ) -> None:
        super().__init__()
        hidden = int(dim * token_ratio)
        self.read = CrossAttention(width, dim, inner, heads)
        self.think = nn.ModuleList([Block(width, heads, mlp_ratio, dropout) for _ in range(depth)])
        self.write = CrossAttention(dim, width, inner, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.latent_modulation = nn.Parameter(torch.cat([torch.zeros(2 * width), torch.ones(width)]))
        self.token_modulation = nn.Parameter(torch.zeros(2 * dim))
        self.latent_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.token_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)

    def forward(
        self, x: Tensor, z: Tensor, shared: tuple[Tensor, Tensor, Tensor], bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x (B,N,dim), z (B,M,width); shared: projections for reading, thinking and the tokens; bias (B,1,1,N)."""
        reading, thinking, tokenwise = shared
        shift, scale, gate = (reading + self.latent_modulation).to(z.dtype).chunk(3, 1)
        known = self.token_norm(x)
        z = z + gate[:, None] * self.read(modulate(self.latent_norm(z), shift, scale), known, bias)
        for block in self.think:
            z = block(z, thinking, None, None)
        x = x + self.write(known, self.latent_norm(z))
        return x + self.mlp(modulate(self.token_norm(x), *(tokenwise + self.token_modulation).to(x.dtype).chunk(2, 1))), z


class LatentNet(nn.Module):
    """Tokens (B,N,dim) -> (B,N,dim), for any N, at a cost linear in N.

    Args:
        dim, width: channels of a token and of a latent.
        latents: how many there are.
        rounds, depth: of reading and writing, and blocks of the latents in each.
        inner, heads: width and heads of reading and writing.
        mlp_ratio, token_ratio: hidden width of the latents' and the tokens' nets over theirs.
        dropout: probability, in the latents' nets.
        emb_dim: size of the embedding of time and conditions.

    Raises:
        ConfigError: numbers outside their range.
        ShapeError: tokens, emb or mask of the wrong shape.
    """

    def __init__(
        self,
        dim: int,
        width: int = 256,
        latents: int = 64,
        rounds: int = 4,
        depth: int = 1,
        inner: int = 128,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        token_ratio: float = 3.0,
        dropout: float = 0.0,
        emb_dim: int = 128,
    ) -> None:
        super().__init__()
        counts = {"dim": dim, "width": width, "latents": latents, "rounds": rounds, "depth": depth}
        if min(counts.values()) < 1 or min(mlp_ratio, token_ratio) <= 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"LatentNet {counts}, mlp_ratio={mlp_ratio}, token_ratio={token_ratio}, dropout={dropout}: give counts of at "
                "least 1, positive ratios and a dropout in [0, 1)."
            )
        self.dim, self.emb_dim = dim, emb_dim
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.rounds = nn.ModuleList(
            [Round(dim, width, inner, heads, depth, mlp_ratio, token_ratio, dropout) for _ in range(rounds)]
        )
        # one projection of time and labels for all rounds (Chen et al. 2023, section 2.3)
        sizes = (3 * width, 6 * width, 2 * dim, 2 * dim)
        self.shared = nn.ModuleList([nn.Sequential(nn.SiLU(), zero(nn.Linear(emb_dim, size))) for size in sizes])
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)

    def forward(self, tokens: Tensor, emb: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens (B,N,dim), emb (B,emb_dim), mask (B,N) bool -> (B,N,dim); tokens outside the mask have no effect."""
        if tokens.ndim != 3 or tokens.shape[2] != self.dim:
            raise ShapeError(f"tokens {tuple(tokens.shape)} must be (batch, tokens, {self.dim}).")
        B, N, _ = tokens.shape
        if emb.shape != (B, self.emb_dim):
            raise ShapeError(f"emb {tuple(emb.shape)} must be (batch, emb_dim) = {(B, self.emb_dim)}.")
        bias = None
        if mask is not None:
            keep = check_mask(mask, B, N)
            tokens = tokens.masked_fill(~keep[..., None], 0.0)  # a weight of 0 would still pass on a NaN
            far = torch.zeros_like(keep, dtype=tokens.dtype).masked_fill(~keep, -torch.inf)
            # a row that is all padding would be NaN; it reads everything instead and nobody looks
            bias = far.masked_fill(~keep.any(1, keepdim=True), 0.0)[:, None, None]
        reading, thinking, tokenwise, final = (net(emb) for net in self.shared)
        z = self.latents.repeat(B, 1, 1)
        for part in self.rounds:
            tokens, z = part(tokens, z, (reading, thinking, tokenwise), bias)
        return modulate(self.norm(tokens), *final.chunk(2, 1))

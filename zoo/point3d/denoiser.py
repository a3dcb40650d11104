"""The denoiser of point clouds: points speak to each other through a few learned latents, so cost is linear in them.

A round reads the points into the latents, lets those think, and writes back (Jabri et al. 2022, "Recurrent interface
networks", arXiv:2212.11972, section 2.2; Zhang et al. 2023, "3DShape2VecSet", arXiv:2301.11445, section 5.1). Nothing
depends on the order of the points or on how many there are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import attend, check_mask, modulate, zero
from zoo.nets.grid import Conditioning
from zoo.nets.transformer import Block


class CrossAttention(nn.Module):
    """Multi-head attention of x (B,N,dim) to others (B,M,other) -> (B,N,dim), with queries and keys normalised per head."""

    def __init__(self, dim: int, other: int, inner: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or inner % heads:
            raise ConfigError(f"attention: width {inner} does not divide by heads={heads}.")
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(dim, inner), nn.Linear(other, 2 * inner), nn.Linear(inner, dim)
        self.q_norm, self.k_norm = (nn.LayerNorm(inner // heads, eps=1e-6, bias=False) for _ in range(2))

    def forward(self, x: Tensor, others: Tensor, bias: Tensor | None = None) -> Tensor:
        """`bias` broadcasts to (B, heads, N, M)."""
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(others).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = attend(self.q_norm(q), self.k_norm(k), v, None if bias is None else bias.to(v.dtype))
        return self.out(y.transpose(1, 2).flatten(2))


class Round(nn.Module):
    """Latents read the points and think; points read the latents and pass a net of their own.

    The latents are modulated and gated as in a DiT. Points are many and every elementwise product on them is felt, so they
    are modulated once, before their net, and have no gates. Reading and both branches of the points are on from the start:
    with weights of zero there the first hundreds of steps learnt little.
    """

    def __init__(
        self, points: int, width: int, inner: int, heads: int, depth: int, mlp_ratio: float, point_ratio: float, dropout: float
    ) -> None:
        super().__init__()
        hidden = int(points * point_ratio)
        self.read = CrossAttention(width, points, inner, heads)
        self.think = nn.ModuleList([Block(width, heads, mlp_ratio, dropout) for _ in range(depth)])
        self.write = CrossAttention(points, width, inner, heads)
        self.mlp = nn.Sequential(nn.Linear(points, hidden), nn.ReLU(), nn.Linear(hidden, points))
        self.latent_modulation = nn.Parameter(torch.cat([torch.zeros(2 * width), torch.ones(width)]))
        self.point_modulation = nn.Parameter(torch.zeros(2 * points))
        self.latent_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.point_norm = nn.LayerNorm(points, elementwise_affine=False, eps=1e-6)

    def forward(
        self, x: Tensor, z: Tensor, shared: tuple[Tensor, Tensor, Tensor], bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x (B,N,points), z (B,M,width); shared: projections for reading, thinking and the points; bias (B,1,1,N)."""
        reading, thinking, pointwise = shared
        shift, scale, gate = (reading + self.latent_modulation).to(z.dtype).chunk(3, 1)
        known = self.point_norm(x)
        z = z + gate[:, None] * self.read(modulate(self.latent_norm(z), shift, scale), known, bias)
        for block in self.think:
            z = block(z, thinking, None, None)
        x = x + self.write(known, self.latent_norm(z))
        return x + self.mlp(modulate(self.point_norm(x), *(pointwise + self.point_modulation).to(x.dtype).chunk(2, 1))), z


class PointLatents(nn.Module):
    """x_t (B,N,3) with labels -> (B,N,3), for any N.

    Args:
        shape, classes: see `zoo.domain.Domain.denoiser`.
        points, width: channels of a point and of a latent.
        latents: how many there are.
        rounds, depth: of reading and writing, and blocks of the latents in each.
        inner, heads: width and heads of reading and writing.
        octaves: each coordinate comes with the sines and cosines of so many wavelengths, 8 and every half of it
            (Mildenhall et al. 2020, Eq. 4).
    """

    frequencies: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: dict[str, int],
        *,
        points: int = 128,
        width: int = 256,
        latents: int = 64,
        rounds: int = 4,
        depth: int = 1,
        inner: int = 128,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        point_ratio: float = 3.0,
        octaves: int = 7,
        dropout: float = 0.0,
        emb_dim: int = 128,
        time_scale: float = 250.0,
    ) -> None:
        super().__init__()
        numbers = {"points": points, "width": width, "latents": latents, "rounds": rounds, "depth": depth, "octaves": octaves}
        if min(numbers.values()) < 1 or min(mlp_ratio, point_ratio) <= 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"PointLatents {numbers}, mlp_ratio={mlp_ratio}, point_ratio={point_ratio}, dropout={dropout}: "
                "all must be at least 1, ratios positive and dropout in [0, 1)."
            )
        self.dim = shape[1]
        self.embed = Conditioning(classes, emb_dim, time_scale)
        self.register_buffer("frequencies", 2 * math.pi / 8 * 2.0 ** torch.arange(octaves), persistent=False)
        self.entry = nn.Linear(self.dim * (1 + 2 * octaves), points)
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.rounds = nn.ModuleList(
            [Round(points, width, inner, heads, depth, mlp_ratio, point_ratio, dropout) for _ in range(rounds)]
        )
        # one projection of time and labels for all rounds (Chen et al. 2023, section 2.3)
        sizes = (3 * width, 6 * width, 2 * points, 2 * points)
        self.shared = nn.ModuleList([nn.Sequential(nn.SiLU(), zero(nn.Linear(emb_dim, size))) for size in sizes])
        self.norm = nn.LayerNorm(points, elementwise_affine=False, eps=1e-6)
        self.exit = zero(nn.Linear(points, self.dim))

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, drop: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        if x_t.ndim != 3 or x_t.shape[2] != self.dim:
            raise ShapeError(f"points {tuple(x_t.shape)} must be (batch, points, {self.dim}).")
        bias = None
        if mask is not None:
            keep = check_mask(mask, *x_t.shape[:2])
            x_t = x_t.masked_fill(~keep[..., None], 0.0)  # a weight of 0 would still pass on a NaN
            bias = torch.zeros_like(keep, dtype=x_t.dtype).masked_fill(~keep, -torch.inf)[:, None, None]
        emb = self.embed(t, cond, drop)
        reading, thinking, pointwise, final = (net(emb) for net in self.shared)
        x, z = self.entry(self.features(x_t)), self.latents.repeat(len(x_t), 1, 1)
        for part in self.rounds:
            x, z = part(x, z, (reading, thinking, pointwise), bias)
        return self.exit(modulate(self.norm(x), *final.chunk(2, 1)))

    def features(self, x: Tensor) -> Tensor:
        """Points (B,N,3) -> (B,N,3 (1 + 2 octaves)): coordinates, sines, cosines."""
        angles = (x[..., None] * self.frequencies).flatten(2)
        return torch.cat([x, angles.sin(), angles.cos()], 2)

"""Transformers of things in space: attention with a bias for each pair, which also gathers points."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.nets.blocks import end, modulate


def windows(x: Tensor, reach: int) -> Tensor:
    """Points of tokens (B,N,P,3) -> those of the tokens within `reach` of each one (B,N,P (2 reach + 1),3), 0 past the ends."""
    B, N, P = x.shape[:3]
    return F.pad(x.reshape(B, N * P, 3), (0, 0, P * reach, P * reach)).unfold(1, P * (2 * reach + 1), P).transpose(2, 3)


class PairBias(nn.Module):
    """What tokens of a chain see of each other, and how far apart they are in it, as biases of all blocks' attention.

    Args:
        features: numbers that describe a pair. emb_dim: size of the embedding. hidden: width of the layer between.
        reach: separations along the chain from -reach to reach are told apart.
    """

    def __init__(self, features: int, emb_dim: int, hidden: int, depth: int, heads: int, reach: int = 32) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.entry = end(nn.Linear(features, hidden))
        self.separation = nn.Embedding(2 * reach + 1, hidden)
        self.time = nn.Linear(emb_dim, hidden)
        self.out = nn.Linear(hidden, depth * heads)

    def forward(self, features: Tensor, emb: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """features (B,N,N,F), emb (B,emb_dim), mask (B,N) bool -> each block's bias (B,heads,N,N), -inf at padding."""
        N = mask.shape[1]
        place = torch.arange(N, device=emb.device)
        apart = (place[None] - place[:, None]).clamp(-self.reach, self.reach) + self.reach
        hidden = self.entry(features)  # then all in its dtype: pairs are many, and these sums take longer than the products
        hidden = hidden + self.separation(apart).to(hidden.dtype) + self.time(emb)[:, None, None].to(hidden.dtype)
        out = rearrange(self.out(F.relu(hidden)), "b n m (depth h) -> b depth h n m", h=self.heads)
        far = torch.zeros_like(mask, dtype=out.dtype).masked_fill(~mask, -torch.inf)
        far = far.masked_fill(~mask.any(1, keepdim=True), 0.0)  # a row that is all padding would be NaN
        return (out + far[:, None, None, None]).unbind(1)


class PairBlock(nn.Module):
    """Attention with a bias of pairs and a two-layer net, both modulated and gated (adaLN-Zero, Peebles & Xie 2022, figure 3).

    Beside its values attention gathers points that every token has, and shows them to `seen`, which says how they look from
    there: invariant point attention (Jumper et al. 2021, Algorithm 22) with points that are given, not made by the net.

    Args:
        dim, heads: width, and heads that share it.
        seen_dim: numbers that `seen` gives for each token.
        dropout: probability of dropping a hidden channel, for all tokens of a sample together: few random numbers to draw,
            and no neighbour to copy it from.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, seen_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout, hidden = heads, dropout, int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim + seen_dim, dim)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.modulation = nn.Parameter(torch.zeros(6 * dim))

    def forward(self, h: Tensor, emb: Tensor, bias: Tensor, points: Tensor, seen: Callable[[Tensor], Tensor]) -> Tensor:
        """h (B,N,D); emb (B,6D); bias (B,heads,N,N), -inf at padding; points (B,N,P) -> (B,N,D).

        `seen` takes what the heads gathered (B,N,heads,P) float32 to (B,N,seen_dim).
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = (emb + self.modulation).to(h.dtype).chunk(6, 1)
        h = h + gate1[:, None] * self._attend(modulate(self.norm1(h), shift1, scale1), bias, points, seen)
        y = F.gelu(self.up(modulate(self.norm2(h), shift2, scale2)), approximate="tanh")
        if self.training and self.dropout:
            y = y * F.dropout(y.new_ones(len(y), 1, y.shape[2]), self.dropout)
        return h + gate2[:, None] * self.down(y)

    def _attend(self, h: Tensor, bias: Tensor, points: Tensor, seen: Callable[[Tensor], Tensor]) -> Tensor:
        q, k, v = rearrange(self.qkv(h), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        # queries and keys of one length (Dehghani et al. 2023, section 2.1); how sharp attention is, the bias can say
        q, k = (F.rms_norm(z, z.shape[-1:], eps=1e-6) for z in (q, k))
        weight = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + bias, -1)
        gathered = rearrange(weight @ points[:, None].to(weight.dtype), "b h n p -> b n h p")
        values = rearrange(weight @ v, "b h n d -> b n (h d)")
        return self.out(torch.cat([values, seen(gathered.float()).to(values.dtype)], 2))

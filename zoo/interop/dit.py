"""The net of DiT (Peebles & Xie 2022, "Scalable diffusion models with transformers"), by the names of its own weights.

Its `.pt` files are pickles, which zoo opens none of: `benchmarks/convert_dit.py` makes a model folder of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.contract.conditions import Label
from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import attend

#: features of a time, and the eps of all norms, which none of the published nets changes
FEATURES, EPS = 256, 1e-6


def sinusoid(t: Tensor) -> Tensor:
    """t (B,) -> (B, FEATURES): cosines, then sines."""
    half = FEATURES // 2
    angles = t[:, None].float() * torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)[None]
    return torch.cat([angles.cos(), angles.sin()], 1)


def positions(width: int, side: int) -> Tensor:
    """(1, side * side, width): sines and cosines of the column, then of the row (section 3.2, as a vision transformer's)."""
    omega = 1 / 10_000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    at = torch.arange(side, dtype=torch.float64)
    rows, columns = at.repeat_interleave(side), at.repeat(side)
    parts = [f(place[:, None] * omega) for place in (columns, rows) for f in (torch.sin, torch.cos)]
    return torch.cat(parts, 1).float()[None]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B,N,D), moved and scaled by (B,D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class Times(nn.Module):
    """t (B,) -> (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        out: Tensor = self.mlp(sinusoid(t).to(next(self.mlp.parameters()).dtype))
        return out


class Labels(nn.Module):
    """Labels (B,) int64 -> (B, width); -1 is the learned null, the row after the last label."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.count, self.embedding_table = count, nn.Embedding(count + 1, width)

    def forward(self, label: Tensor) -> Tensor:
        out: Tensor = self.embedding_table(torch.where(label < 0, self.count, label))
        return out


class Patches(nn.Module):
    """x (B,C,H,W) -> tokens (B,N,width)."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.proj(x), "b d h w -> b (h w) d")


class Looking(nn.Module):
    """Self-attention over tokens (B,N,width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        out: Tensor = self.proj(rearrange(attend(q, k, v, None), "b h n d -> b n (h d)"))
        return out


class MLP(nn.Module):
    """Two layers with a GELU (its tanh form) between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """A block with adaLN-Zero (section 3.2): attention, then two layers, each moved, scaled and gated by the condition."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attn, self.mlp = Looking(width, heads), MLP(width, inner)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, 1)
        width = x.shape[-1:]
        x = x + gate1[:, None] * self.attn(modulate(F.layer_norm(x, width, eps=EPS), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(F.layer_norm(x, width, eps=EPS), shift2, scale2))


class Last(nn.Module):
    """Tokens (B,N,width) -> the numbers of their patches (B,N,patch * patch * out)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear, self.adaLN_modulation = nn.Linear(width, out), nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, 1)
        out: Tensor = self.linear(modulate(F.layer_norm(x, x.shape[-1:], eps=EPS), shift, scale))
        return out


class DiT(nn.Module):
    """DiT on x_t (B,C,H,W), which is told a label.

    Args:
        shape: of a sample, square.
        conditions: "label" alone.
        width, depth, heads, patch: hidden size, number of blocks, heads of attention, side of a patch.
        inner: width within the blocks' two layers; default: four times the width.
        learned_variance: there is a second output, see `zoo.core.diffusion.Denoiser`: what its authors' nets say of the
            variance has the same meaning (Nichol & Dhariwal 2021, Eq. 15).

    Raises:
        ConfigError: numbers that do not fit together, or other conditions. ShapeError: sides that do not divide by the patch.
    """

    pos_embed: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        patch: int = 2,
        inner: int | None = None,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        numbers = (width, depth, heads, patch, inner or 1)
        if any(not isinstance(n, int) or n < 1 for n in numbers) or width % 4 or width % heads:
            raise ConfigError(
                f"dit: width={width}, depth={depth}, heads={heads}, patch={patch}, inner={inner}: give positive whole numbers, "
                "and a width that divides by 4 and by the heads."
            )
        label = (conditions or {}).get("label")
        if not isinstance(label, Label) or len(conditions or {}) != 1:
            raise ConfigError('dit: the net is told a label and nothing else: its recipe needs the condition "label" alone.')
        channels, height, across = shape
        if height != across or height % patch:
            raise ShapeError(f"dit: samples of {height} x {across}; give square ones whose side divides by the patch, {patch}.")
        self.channels, self.patch, self.side = channels, patch, height // patch
        self.x_embedder = Patches(channels, patch, width)
        self.t_embedder, self.y_embedder = Times(width), Labels(len(label.values), width)
        self.register_buffer("pos_embed", positions(width, self.side), persistent=False)
        self.blocks = nn.ModuleList([Block(width, heads, inner or 4 * width) for _ in range(depth)])
        self.final_layer = Last(width, patch * patch * channels * (2 if learned_variance else 1))

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x_t (B,C,H,W), t (B,) -> the prediction (B,C,H,W), or two of them with a learned variance."""
        label = cond.get("label")
        label = torch.full((x_t.shape[0],), -1, device=x_t.device) if label is None else label
        x = self.x_embedder(x_t) + self.pos_embed.to(x_t.dtype)
        c = self.t_embedder(t) + self.y_embedder(label)
        for block in self.blocks:
            x = block(x, c)
        x = rearrange(self.final_layer(x, c), "b (h w) (p q c) -> b c (h p) (w q)", h=self.side, p=self.patch, q=self.patch)
        out, *more = (part.contiguous() for part in x.split(self.channels, dim=1))
        return (out, more[0]) if more else out

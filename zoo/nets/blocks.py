"""Parts that both backbones share: embeddings of time and conditions, attention, modulation."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.once import once


class TimeEmbedding(nn.Module):
    """Noise coordinate t (B,) -> (B, dim): sinusoidal features (Vaswani et al. 2017, section 3.5) and two layers.

    Args:
        dim: even size of the embedding.
        scale: multiplies t first, so that its range is about 0..1000: 1 for step indices, 1000 for a flow's time in
            0..1, 250 for EDM's ln(sigma) / 4.

    Raises:
        ConfigError: an odd `dim`.
        ShapeError: t is not (B,).
    """

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ConfigError(f"TimeEmbedding dim={dim}: give an even number of at least 2.")
        self.dim, self.scale = dim, scale
        self.net = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def features(self, t: Tensor) -> Tensor:
        """t (B,) -> (B, dim) cosines, then sines, of scale * t at wavelengths from 2 pi to 2 pi 10,000, in fp32 or fp64."""
        if t.ndim != 1:
            raise ShapeError(f"time of shape {tuple(t.shape)} must be (batch,).")
        # Angles reach 1000, where bf16 counts in steps of 4. So the frequencies are not a buffer, which `module.to(dtype)`
        # would round, and t never passes through half precision.
        half, exact = self.dim // 2, torch.float64 if t.dtype == torch.float64 else torch.float32
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half).to(exact)
        angles = (self.scale * t.to(exact))[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], 1)

    def forward(self, t: Tensor) -> Tensor:
        features = self.features(t)
        return self.net(features.to(next(self.net.parameters()).dtype))


class LabelEmbedding(nn.Module):
    """Labels (B,) int64 -> (B, dim), with a learned null for rows that are -1, or where no labels are given at all.

    Raises:
        ShapeError: labels that are not (batch,).
        ConfigError: a label outside -1..classes-1 (looked at on the CPU only: elsewhere it would stall the device).
    """

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        if classes < 1:
            raise ConfigError(f"LabelEmbedding classes={classes}: give at least 1.")
        self.classes = classes
        self.table = nn.Embedding(classes + 1, dim)  # the last row is the null
        nn.init.normal_(self.table.weight, std=0.02)

    def blank(self) -> None:
        """Zero for every label: a condition that is added to a trained net starts so."""
        nn.init.zeros_(self.table.weight)

    def forward(self, label: Tensor | None, batch: int) -> Tensor:
        """label (batch,) int64 or None -> (batch, dim)."""
        if label is None:
            label = torch.full((batch,), -1, device=self.table.weight.device)
        if label.shape != (batch,):
            raise ShapeError(f"labels of shape {tuple(label.shape)} must be ({batch},), one a sample.")
        looked_at = label.device.type == "cpu" and batch and not torch.compiler.is_compiling()
        if looked_at and not -1 <= int(label.min()) <= int(label.max()) < self.classes:
            raise ConfigError(f"label in {label.tolist()}: allowed are 0..{self.classes - 1}, and -1 for none.")
        return self.table(torch.where(label < 0, self.classes, label))


class VectorEmbedding(nn.Module):
    """Arrays (B, ...) of `in_dim` numbers -> (B, dim), with a learned null for rows with NaN, or where none are given at all.

    Raises:
        ShapeError: arrays of another number of numbers, or of another batch.
    """

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.net = nn.Sequential(nn.Linear(in_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.null = nn.Parameter(0.02 * torch.randn(dim))

    def blank(self) -> None:
        """Zero for every array: a condition that is added to a trained net starts so."""
        zero(self.net[-1])
        nn.init.zeros_(self.null)

    def forward(self, array: Tensor | None, batch: int) -> Tensor:
        """array (batch, ...) float or None -> (batch, dim)."""
        null = self.null.expand(batch, -1)
        if array is None:
            return null
        vector = array.flatten(1) if array.ndim > 2 else array
        if vector.shape != (batch, self.in_dim):
            raise ShapeError(f"vectors {tuple(vector.shape)} must be (batch, size) = {(batch, self.in_dim)}.")
        none = vector.isnan().any(1)
        out = self.net(torch.where(none[:, None], 0.0, vector))  # a NaN would come back in the gradient
        return torch.where(none[:, None], null.to(out.dtype), out)


class Told(NamedTuple):
    """What a condition tells a net.

    Attributes:
        vector: (B, dim), which is added to the embedding of time.
        tokens: (B, L, dim), which parts of the net attend to; None for a condition that is one vector alone.
        mask: (B, L) bool, True for real tokens, of which each row has one or more; None without tokens.
    """

    vector: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None


class Embeddable(Protocol):
    """A condition, as nets see it: it makes the module that embeds its values."""

    def embedding(self, dim: int) -> nn.Module:
        """A module (values (B,...) or None, B) -> (B, dim).

        One that has a method `told(values, B) -> Told` gives tokens, too, to nets that attend to them; one that has a method
        `planes(values, B, size) -> (B, channels, *size)` gives planes beside the input of nets on a grid.
        """
        ...


def embeddings(conditions: Mapping[str, Embeddable] | None, dim: int) -> nn.ModuleDict:
    """The embedding of each condition by its name."""
    return nn.ModuleDict({name: condition.embedding(dim) for name, condition in (conditions or {}).items()})


class Conditioning(nn.Module):
    """Time t (B,) and conditions {name: (B,...)} as one vector (B, dim): the sum of their embeddings.

    Attributes:
        token_dim: the size of the tokens that `told` gives, where a condition has any; else None.
        channels: of the planes that `beside` adds to a net's input, where a condition has any; else 0.
    """

    def __init__(self, conditions: Mapping[str, Embeddable] | None, dim: int, time_scale: float) -> None:
        super().__init__()
        self.time = TimeEmbedding(dim, time_scale)
        # stored weights call all of them labels, which they once were
        self.labels = embeddings(conditions, dim)
        self.token_dim = dim if any(callable(getattr(m, "told", None)) for m in self.labels.values()) else None
        self.channels = sum(m.channels for m in self.labels.values() if callable(getattr(m, "planes", None)))  # type: ignore[misc]

    def beside(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """x (B, C, *size) with the planes of the conditions that have some: (B, C + channels, *size)."""
        if not self.channels:
            return x
        found = [x]
        for name, embed in self.labels.items():
            planes: Any = getattr(embed, "planes", None)
            if callable(planes):
                found.append(planes(cond.get(name), x.shape[0], x.shape[2:]).to(x.dtype))
        return torch.cat(found, 1)

    def forward(self, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        return self.told(t, cond).vector

    def told(self, t: Tensor, cond: Mapping[str, Tensor]) -> Told:
        """The sum, and the tokens of all conditions that have some, one after the other.

        Of the conditions all but the sum is computed once in a sampling run, see `zoo.nets.once`.
        """
        emb = self.time(t)
        tokens, masks = [], []
        for name, embed in self.labels.items():
            tell: Any = getattr(embed, "told", None)
            given = cond.get(name), t.shape[0]
            found = once(embed, functools.partial(tell if callable(tell) else embed, *given), *given)
            emb = emb + (found.vector if callable(tell) else found)
            if callable(tell):
                tokens.append(found.tokens)
                masks.append(found.mask)
        if not tokens:
            return Told(emb)
        whole = once(self, lambda: (torch.cat(tokens, 1), torch.cat(masks, 1)), *tokens, *masks)
        return Told(emb, *whole)

    def start_as_nothing(self, name: str) -> bool:
        """Let a condition add zero, until it is trained; False where its embedding cannot (it has no `blank`)."""
        blank = getattr(self.labels[name], "blank", None)
        if not callable(blank):
            return False
        blank()
        return True

    @torch.no_grad()
    def absorb(self, constant: Tensor) -> bool:
        """Add a constant (dim,) to every sum, in the last bias of the time; False for one of another size."""
        bias: Any = self.time.net[-1].bias
        if constant.shape != bias.shape:
            return False
        bias += constant.to(bias)
        return True


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B,N,D): softmax(q k^T / sqrt(D / heads) + bias) v (Vaswani et al. 2017, Eq. 1).

    Args:
        dim, heads: width D and the number of heads that share it.
        qk_norm: normalise queries and keys per head (RMS, Dehghani et al. 2023, section 2.1), which keeps large
            learning rates from saturating the softmax.

    Raises:
        ConfigError: `dim` does not divide by `heads`.
        ShapeError: mask or bias of the wrong shape.
    """

    def __init__(self, dim: int, heads: int, qk_norm: bool = True) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ConfigError(f"attention: dim={dim} does not divide by heads={heads}.")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.RMSNorm(dim // heads, eps=1e-6) if qk_norm else None
        self.k_norm = nn.RMSNorm(dim // heads, eps=1e-6) if qk_norm else None
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """x (B,N,D); mask (B,N) bool, True for real tokens: nobody attends to the others; bias (B or 1, heads, N, N)."""
        B, N, _ = x.shape
        if bias is not None and bias.shape not in ((B, self.heads, N, N), (1, self.heads, N, N)):
            raise ShapeError(f"bias {tuple(bias.shape)} must be (batch or 1, heads, tokens, tokens) = {(B, self.heads, N, N)}.")
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        if self.q_norm is not None and self.k_norm is not None:
            exact = self.q_norm.weight.dtype  # autocast leaves the norm alone: give it the weight's dtype, not bf16
            q, k = self.q_norm(q.to(exact)).to(v.dtype), self.k_norm(k.to(exact)).to(v.dtype)
        bias = None if bias is None else bias.to(v.dtype)
        if mask is not None:
            far = torch.zeros_like(check_mask(mask, B, N), dtype=v.dtype).masked_fill(~mask, -torch.inf)
            # a row that is all padding would be NaN; it attends to everything instead and nobody reads it
            far = far.masked_fill(~mask.any(1, keepdim=True), 0.0)[:, None, None]
            bias = far if bias is None else bias + far
        y = attend(q, k, v, bias)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class CrossAttention(nn.Module):
    """Attention of tokens (B,N,D) to those of the conditions (B,L,E): softmax(q k^T / sqrt(D / heads)) v.

    Args:
        dim, heads: width D and the number of heads that share it.
        token_dim: width E.

    Queries and keys are normalised per head, as in `Attention`. It starts as the zero function.

    Raises:
        ConfigError: `dim` does not divide by `heads`.
        ShapeError: a mask of the wrong shape.
    """

    def __init__(self, dim: int, heads: int, token_dim: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ConfigError(f"attention: dim={dim} does not divide by heads={heads}.")
        self.heads = heads
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(token_dim, 2 * dim)
        self.q_norm, self.k_norm = nn.RMSNorm(dim // heads, eps=1e-6), nn.RMSNorm(dim // heads, eps=1e-6)
        self.out = zero(nn.Linear(dim, dim))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """x (B,N,D), tokens (B,L,E), mask (B,L) bool with one True or more a row -> (B,N,D)."""
        q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.heads)
        k, v, far = once(self, functools.partial(self.keys, tokens, mask), tokens, mask)
        q = self.q_norm(q.to(self.q_norm.weight.dtype)).to(v.dtype)
        return self.out(rearrange(attend(q, k, v, far), "b h n d -> b n (h d)"))

    def keys(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (B,heads,L,size) of tokens (B,L,E), and a bias (B,1,1,L), -inf where `mask` (B,L) is False."""
        check_mask(mask, *tokens.shape[:2])
        k, v = rearrange(self.kv(tokens), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        k = self.k_norm(k.to(self.k_norm.weight.dtype)).to(v.dtype)  # as in `Attention`
        far = torch.zeros_like(mask, dtype=v.dtype).masked_fill(~mask, -torch.inf)[:, None, None]
        return k, v, far


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(size) + bias) v for q (B,heads,N,size), k and v (B,heads,M,size); bias as (B,heads,N,M)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        # torch's fused backward in bf16 on a CPU takes 3 to 7 times as long as these products (49 to 256 tokens)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return torch.softmax(scores if bias is None else scores + bias, -1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, for x (B,N,D) and (B,D) (Perez et al. 2017, Eq. 1)."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


def zero(module: nn.Module) -> nn.Module:
    """The module with all parameters set to zero, so that a residual branch starts as nothing."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def end(module: nn.Module, folded: Sequence[int] | None = None) -> nn.Module:
    """Mark a layer as an end of a net: its rows or columns are data, not features. `Muon` leaves ends alone.

    Nets call it where they make their first and last layers; layers inside a marked module are ends, too.

    Args:
        folded: what that axis is made of, the slowest first: channels, then the sides of a patch that is folded into them.
            Then weights can start from those of a net for other channels or patches, see `zoo.training.init`.
    """
    module.is_end = True  # type: ignore[assignment]  # a plain attribute, not a parameter
    if folded is not None:
        module.folded = tuple(folded)  # type: ignore[assignment]
    return module


def folded(module: nn.Module | None) -> tuple[int, ...] | None:
    """What the axis of data of a layer is made of, where `end` was told."""
    found: Any = getattr(module, "folded", None)
    return found if isinstance(found, tuple) else None


def is_end(module: nn.Module) -> bool:
    """Whether a layer was marked by `end`."""
    return bool(getattr(module, "is_end", False))


def check_mask(mask: Tensor, batch: int, tokens: int) -> Tensor:
    """The mask itself, or a ShapeError unless it is (batch, tokens) bool."""
    if mask.shape != (batch, tokens) or mask.dtype != torch.bool:
        raise ShapeError(f"mask {tuple(mask.shape)} {mask.dtype} must be (batch, tokens) = {(batch, tokens)} of bool.")
    return mask

"""A residual U-Net for signals (dims=1) and pictures (dims=2) from one code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import Attention, CrossAttention, Told, end, zero


class Conv1d(nn.Conv1d):
    """`nn.Conv1d` that also takes signals as pictures of one row (B,C,1,L), which is faster with channels last.

    torch has no channels last for signals. Measured with the net of policy/pusht-keypoints on one core with AVX2, in float32:
    the forward pass takes 10 to 14 % less time with batches of 1 and 64, a training step 5 % less with 64.

    Weights keep their shape (out, in, kernel) and have the strides that the picture's convolution wants.
    """

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(cin, cout, kernel, stride, padding)
        with torch.no_grad():
            self.weight.set_(self.weight.mT.contiguous().mT)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """x (B,cin,L) or (B,cin,1,L) -> (B,cout,L') or (B,cout,1,L')."""
        if x.ndim == 3:
            return super().forward(x)
        return F.conv2d(x, self.weight[:, :, None], self.bias, (1, *self.stride), (0, *self.padding))


CONV = {1: Conv1d, 2: nn.Conv2d}


def norm(channels: int) -> nn.GroupNorm:
    """Group norm with at most 32 groups, of at least 16 channels where there are as many.

    Smaller groups take 4 to 20 times as long in bf16 with channels last: torch vectorises the kernel within a group.
    """
    groups = min(32, max(channels // 16, 1))
    return nn.GroupNorm(next(g for g in range(groups, 0, -1) if channels % g == 0), channels)


class ResBlock(nn.Module):
    """norm, SiLU, conv, norm, FiLM by the embedding, SiLU, conv, plus the input (Dhariwal & Nichol 2021, Eq. 3).

    Group norm, FiLM and SiLU are about a tenth of a training step on a CPU. One function for norm and FiLM with a
    gradient of its own, or fewer groups, made the step at most 1 % faster: less than the noise, so they stay plain.
    """

    def __init__(self, dims: int, cin: int, cout: int, emb_dim: int, kernel: int, dropout: float) -> None:
        super().__init__()
        conv = CONV[dims]
        self.norm1, self.conv1 = norm(cin), conv(cin, cout, kernel, padding=kernel // 2)
        self.film = nn.Linear(emb_dim, 2 * cout)
        self.norm2, self.conv2 = norm(cout), zero(conv(cout, cout, kernel, padding=kernel // 2))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.skip = conv(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """x (B,cin,*spatial), told.vector (B,emb_dim) with its SiLU done -> (B,cout,*spatial)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.film(told.vector).view(x.shape[0], -1, *[1] * (x.ndim - 2)).chunk(2, 1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)))


class AttentionBlock(nn.Module):
    """Self-attention over all positions of x (B,C,*spatial), added to it."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attention = norm(channels), Attention(channels, heads)
        zero(self.attention.out)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """x (B,C,*spatial); what the conditions tell goes unused -> the same shape."""
        # channels last: tokens, and what comes back, are views
        tokens = rearrange(self.norm(x), "b c ... -> b (...) c")
        return x + rearrange(self.attention(tokens), "b n c -> b c n").reshape(x.shape)


class CrossBlock(nn.Module):
    """Attention of all positions of x (B,C,*spatial) to the tokens of the conditions, added to it."""

    def __init__(self, channels: int, heads: int, token_dim: int) -> None:
        super().__init__()
        self.norm, self.attention = norm(channels), CrossAttention(channels, heads, token_dim)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """x (B,C,*spatial), told.tokens (B,L,token_dim), told.mask (B,L) -> the same shape."""
        if told.tokens is None or told.mask is None:
            raise ShapeError("this U-Net attends to tokens of its conditions, and there are none.")
        places = rearrange(self.norm(x), "b c ... -> b (...) c")
        return x + rearrange(self.attention(places, told.tokens, told.mask), "b n c -> b c n").reshape(x.shape)


class Down(nn.Module):
    """Halve every spatial axis by a strided convolution."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """x (B,C,*spatial), whose sizes are even; the conditions go unused -> (B,C,*spatial / 2)."""
        return self.conv(x)


class Up(nn.Module):
    """Double every spatial axis: repeat, then a convolution. A signal as a picture of one row (B,C,1,L) keeps its one row."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """x (B,C,*spatial); the conditions go unused -> (B,C,*spatial * 2)."""
        one_row = x.ndim == 4 and isinstance(self.conv, nn.Conv1d)
        return self.conv(F.interpolate(x, scale_factor=(1.0, 2.0) if one_row else 2.0, mode="nearest"))


class Stage(nn.ModuleList):
    """Parts that run one after the other, each with what time and conditions tell."""

    def __init__(self, *parts: nn.Module | None) -> None:
        super().__init__([p for p in parts if p is not None])

    def forward(self, x: Tensor, told: Any) -> Tensor:
        """x (B,C,*spatial), told: a `Told`, or what else the parts take -> what the last part gives."""
        for part in self:
            x = part(x, told)
        return x


class Join(Stage):
    """A stage on the way up whose input is first joined by what the way down kept at that size."""


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with residual blocks, FiLM and attention, as in Dhariwal & Nichol 2021.

    It starts as the zero function.

    Args:
        dims: 1 for signals (B,C,L), 2 for pictures (B,C,H,W).
        in_channels, out_channels: channels of x and of the output.
        channels, multipliers: level i has channels * multipliers[i] of them; each level halves the sizes of the last.
        blocks: residual blocks a level on the way down; one more on the way up.
        attention: for each level, whether its blocks are followed by self-attention.
        heads: attention heads.
        emb_dim: size of the embedding of time and conditions.
        patch: fold patch^dims positions into channels at the entry and unfold them at the exit: most of the speed on
            large inputs for little loss.
        dropout: probability, before the last convolution of each residual block.
        kernel: odd size of the convolutions.
        token_dim: size of the tokens of the conditions, where they have any: blocks attend to them.
        cross: for each level, whether its blocks do; default: those with self-attention.
        learned_variance: there is a second output shaped like the first one, see `zoo.core.diffusion.Denoiser`. It starts as
            zero, too: the geometric mean of the two variances.

    Raises:
        ConfigError: numbers that do not fit together.
        ShapeError: x or emb of the wrong shape; sizes that do not divide by patch * 2^(levels - 1).
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 2,
        attention: Sequence[bool] = (False, True),
        heads: int = 4,
        emb_dim: int = 256,
        patch: int = 1,
        dropout: float = 0.0,
        kernel: int = 3,
        token_dim: int | None = None,
        cross: Sequence[bool] | None = None,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        if dims not in CONV:
            raise ConfigError(f"UNet dims={dims}: allowed are 1 and 2.")
        if len(attention) != len(multipliers):
            raise ConfigError(f"UNet: {len(multipliers)} multipliers but {len(attention)} attention flags.")
        if cross is not None and len(cross) != len(multipliers):
            raise ConfigError(f"UNet: {len(multipliers)} multipliers but {len(cross)} cross flags.")
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"UNet kernel={kernel}: give an odd number.")
        if not multipliers or min(in_channels, out_channels, channels, blocks, patch, *multipliers) < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"UNet in_channels={in_channels}, out_channels={out_channels}, channels={channels}, multipliers={multipliers}, "
                f"blocks={blocks}, patch={patch}, dropout={dropout}: give numbers of at least 1 and a dropout in [0, 1)."
            )
        self.in_channels, self.emb_dim = in_channels, emb_dim
        self.dims, self.patch, self.factor = dims, patch, patch * 2 ** (len(multipliers) - 1)
        conv, fold, places = CONV[dims], patch**dims, [patch] * dims
        widths = [channels * m for m in multipliers]

        def res(cin: int, cout: int) -> ResBlock:
            return ResBlock(dims, cin, cout, emb_dim, kernel, dropout)

        def attend(level: int) -> nn.Module | None:
            return AttentionBlock(widths[level], heads) if attention[level] else None

        def ask(level: int) -> nn.Module | None:
            wanted = token_dim is not None and (attention if cross is None else cross)[level]
            return CrossBlock(widths[level], heads, token_dim) if token_dim is not None and wanted else None

        self.entry = end(conv(in_channels * fold, widths[0], kernel, padding=kernel // 2), (in_channels, *places))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for i, w in enumerate(widths):
            for _ in range(blocks):
                self.down.append(Stage(res(width, w), attend(i), ask(i)))
                width = w
                skips.append(w)
            if i < len(widths) - 1:
                self.down.append(Stage(Down(conv(w, w, 3, stride=2, padding=1))))
                skips.append(w)
        last = len(widths) - 1
        # a net without words has the same parts at the same places, so that its weights can start one with words
        self.middle = Stage(res(width, width), attend(last), res(width, width), ask(last))
        for i, w in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(Join(res(width + skips.pop(), w), attend(i), ask(i)))
                width = w
            if i:
                self.up.append(Stage(Up(conv(w, w, 3, padding=1))))
        self.norm = norm(width)

        def exit_() -> nn.Module:
            return end(zero(conv(width, out_channels * fold, kernel, padding=kernel // 2)), (out_channels, *places))

        self.exit = exit_()
        self.variance = exit_() if learned_variance else None

    def check(self, spatial: Sequence[int]) -> None:
        """Raise a ShapeError unless the net can halve signals or pictures of this size as often as it must."""
        if len(spatial) != self.dims or any(n < 1 or n % self.factor for n in spatial):
            raise ShapeError(
                f"U-Net input of size {tuple(spatial)}: needs {self.dims} axes whose sizes divide by {self.factor} "
                f"(patch {self.patch}, then {self.factor // self.patch}-fold downsampling)."
            )

    def fold(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C patch^dims, *spatial / patch)."""
        p = self.patch
        if p == 1:
            return x
        if self.dims == 1:
            return rearrange(x, "b c (l p) -> b (c p) l", p=p)
        return rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=p, q=p)

    def unfold(self, x: Tensor) -> Tensor:
        """The inverse of `fold`."""
        p = self.patch
        if p == 1:
            return x
        if self.dims == 1:
            return rearrange(x, "b (c p) l -> b c (l p)", p=p)
        return rearrange(x, "b (c p q) h w -> b c (h p) (w q)", p=p, q=p)

    def forward(self, x: Tensor, emb: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, in_channels, *spatial), emb (B, emb_dim) -> (B, out_channels, *spatial).

        tokens (B, L, token_dim) and mask (B, L) bool, True for real ones, are what the conditions tell beside emb.
        """
        return self.outputs(x, emb, tokens, mask)[0]

    def outputs(self, x: Tensor, emb: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """The same, and the second output of a net with a learned variance."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.in_channels:
            axes = "length" if self.dims == 1 else "height, width"
            raise ShapeError(f"U-Net input {tuple(x.shape)} must be (batch, {self.in_channels}, {axes}).")
        if emb.shape != (x.shape[0], self.emb_dim):
            raise ShapeError(f"emb {tuple(emb.shape)} must be (batch, emb_dim) = {(x.shape[0], self.emb_dim)}.")
        self.check(x.shape[2:])
        told = Told(F.silu(emb), tokens, mask)
        h = self.fold(x)
        h = h[:, :, None] if self.dims == 1 else h  # a picture of one row
        # convolutions are faster with channels last, and group norm and attention keep it
        h = self.entry(h.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for stage in self.down:
            h = stage(h, told)
            skips.append(h)
        h = self.middle(h, told)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], 1) if isinstance(stage, Join) else h, told)
        h = F.silu(self.norm(h))
        exits = [self.exit] if self.variance is None else [self.exit, self.variance]
        return tuple(self._out(exit_(h)) for exit_ in exits)

    def _out(self, h: Tensor) -> Tensor:
        """What an exit gives, as places of the output."""
        return self.unfold(h[:, :, 0] if self.dims == 1 else h).contiguous()

"""UNet2DModel of diffusers, as a net of ours: it is loaded and run without that package.

Its tensors have the names that they have there, so that a file of the one is a file of the other. What is different from
`zoo.nets.unet.UNet`: the time is embedded in four times the width, added in the middle of a block or as FiLM, groups of the
norms have one number for all widths, attention has no norm of queries and keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError, one_of
from zoo.nets.blocks import attend, end

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
}
DOWN, UP = ("DownBlock2D", "AttnDownBlock2D"), ("UpBlock2D", "AttnUpBlock2D")


def sinusoid(t: Tensor, dim: int, *, flip: bool, shift: float) -> Tensor:
    """t (B,) -> (B, dim): sines and cosines, in float32 as the weights were trained with; `flip`: cosines first."""
    half = dim // 2
    exponent = -math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / (half - shift)
    angles = t[:, None].float() * exponent.exp()[None]
    parts = [angles.cos(), angles.sin()] if flip else [angles.sin(), angles.cos()]
    found = torch.cat(parts, 1)
    return F.pad(found, (0, 1)) if dim % 2 else found


def outputs(out: Tensor, channels: int, sign: int, learned_variance: bool) -> Tensor | tuple[Tensor, Tensor]:
    """What a net of theirs says, (B, channels or twice as many, ...), as a denoiser of ours does: one output, or two."""
    first = sign * out[:, :channels].contiguous()
    return (first, out[:, channels:].contiguous()) if learned_variance else first


class TimeMLP(nn.Module):
    """(B, in_dim) -> (B, dim): two layers with a SiLU between them."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(in_dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class Classes(nn.Embedding):
    """Labels (B,) int64 -> (B, dim). A row that is -1 gets nothing added: the net was never told of a null."""

    def forward(self, label: Tensor) -> Tensor:
        found = super().forward(label.clamp(min=0))
        return torch.where((label < 0)[:, None], 0.0, found)


class Residual(nn.Module):
    """norm, act, conv, the time added (or FiLM by it around the second norm), norm, act, conv, plus the input."""

    def __init__(
        self, cin: int, cout: int, emb_dim: int, *, groups: int, eps: float, act: str, film: bool, dropout: float, scale: float
    ) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, cin, eps), nn.Conv2d(cin, cout, 3, padding=1)
        self.time_emb_proj = nn.Linear(emb_dim, 2 * cout if film else cout)
        self.norm2, self.conv2 = nn.GroupNorm(groups, cout, eps), nn.Conv2d(cout, cout, 3, padding=1)
        self.dropout, self.act = nn.Dropout(dropout), ACTIVATIONS[act]()
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None
        self.film, self.scale = film, scale

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(self.act(self.norm1(x)))
        told = self.time_emb_proj(self.act(emb))[:, :, None, None]
        if self.film:
            scale, shift = told.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + told)
        h = self.conv2(self.dropout(self.act(h)))
        return ((x if self.conv_shortcut is None else self.conv_shortcut(x)) + h) / self.scale


class SelfAttention(nn.Module):
    """Self-attention over all positions of x (B,C,H,W), added to it."""

    def __init__(self, channels: int, heads: int, *, groups: int | None, eps: float, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.group_norm = None if groups is None else nn.GroupNorm(groups, channels, eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(x if self.group_norm is None else self.group_norm(x), "b c h w -> b (h w) c")
        q, k, v = (rearrange(to(tokens), "b n (h d) -> b h n d", h=self.heads) for to in (self.to_q, self.to_k, self.to_v))
        y = self.to_out[0](rearrange(attend(q, k, v, None), "b h n d -> b n (h d)"))
        return (x + rearrange(y, "b n c -> b c n").reshape(x.shape)) / self.scale


class Smaller(nn.Module):
    """Halve height and width by a strided convolution; without padding a row and a column of zeros are added after the last."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.padding, self.conv = padding, nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))


class Larger(nn.Module):
    """Double height and width: repeat, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Down(nn.Module):
    """A level of the way down: residual blocks, each with attention where the level has it, then halving."""

    def __init__(self, resnets: list[nn.Module], attentions: list[nn.Module], smaller: nn.Module | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions) if attentions else None
        self.downsamplers = None if smaller is None else nn.ModuleList([smaller])

    def forward(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x (B,C,H,W) -> what it becomes, and what the way up will be joined with."""
        kept = []
        for i, block in enumerate(self.resnets):
            x = block(x, emb)
            x = x if self.attentions is None else self.attentions[i](x)
            kept.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            kept.append(x)
        return x, kept


class Up(nn.Module):
    """A level of the way up: residual blocks on what the way down kept, with attention where the level has it, doubling."""

    def __init__(self, resnets: list[nn.Module], attentions: list[nn.Module], larger: nn.Module | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions) if attentions else None
        self.upsamplers = None if larger is None else nn.ModuleList([larger])

    def forward(self, x: Tensor, kept: list[Tensor], emb: Tensor) -> Tensor:
        """x (B,C,H,W), joined with the last of `kept`, which are taken off the list."""
        for i, block in enumerate(self.resnets):
            x = block(torch.cat([x, kept.pop()], 1), emb)
            x = x if self.attentions is None else self.attentions[i](x)
        return x if self.upsamplers is None else self.upsamplers[0](x)


class Middle(nn.Module):
    """Two residual blocks with attention between them."""

    def __init__(self, resnets: list[nn.Module], attention: nn.Module | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = None if attention is None else nn.ModuleList([attention])

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.resnets[0](x, emb)
        return self.resnets[1](x if self.attentions is None else self.attentions[0](x), emb)


class UNet2D(nn.Module):
    """UNet2DModel of diffusers on x_t (B,C,H,W), of the kinds of blocks that are usual; see `unsupported`.

    Args:
        shape: of a sample (C,H,W).
        conditions: none, or "label" with as many labels as `num_class_embeds`.
        time_scale: multiplies t first: the number of training steps for a flow, whose time here is 0..1.
        sign: -1 where the weights predict the negative of what our preconditioning takes.
        learned_variance: the second half of `out_channels` is a second output, see `zoo.core.diffusion.Denoiser`: theirs means
            the same (`learned_range`; Nichol & Dhariwal 2021, Eq. 15). Without it that half is left out.
        others: as in that package's config.json.

    Raises:
        ConfigError: options that do not fit together, or kinds of parts that this net does not have.
        ShapeError: sizes that it cannot halve as often as it must.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        out_channels: int,
        down_block_types: Sequence[str],
        up_block_types: Sequence[str],
        block_out_channels: Sequence[int],
        layers_per_block: int,
        norm_num_groups: int,
        norm_eps: float,
        act_fn: str,
        attention_head_dim: int | None,
        downsample_padding: int,
        mid_block_scale_factor: float,
        center_input_sample: bool,
        freq_shift: float,
        flip_sin_to_cos: bool,
        resnet_time_scale_shift: str = "default",
        add_attention: bool = True,
        mid_block_type: str | None = "UNetMidBlock2D",
        attn_norm_num_groups: int | None = None,
        time_embedding_dim: int | None = None,
        num_class_embeds: int | None = None,
        dropout: float = 0.0,
        time_scale: float = 1.0,
        sign: int = 1,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        widths, levels = list(block_out_channels), len(block_out_channels)
        if not widths or not len(down_block_types) == len(up_block_types) == levels:
            raise ConfigError(
                f"unet2d: {levels} block_out_channels, {len(down_block_types)} down_block_types and {len(up_block_types)} "
                "up_block_types; give as many of each."
            )
        for what, given, allowed in (("down_block_types", down_block_types, DOWN), ("up_block_types", up_block_types, UP)):
            for name in given:
                if name not in allowed:
                    raise one_of(what, name, allowed)
        if act_fn not in ACTIVATIONS:
            raise one_of("act_fn", act_fn, ACTIVATIONS)
        if resnet_time_scale_shift not in ("default", "scale_shift"):
            raise one_of("resnet_time_scale_shift", resnet_time_scale_shift, ("default", "scale_shift"))
        numbers = (layers_per_block, norm_num_groups, *widths)
        if any(not isinstance(n, int) or n < 1 for n in numbers) or any(w % norm_num_groups for w in widths):
            raise ConfigError(
                f"unet2d: layers_per_block={layers_per_block}, block_out_channels={widths}, norm_num_groups={norm_num_groups}: "
                "give positive whole numbers, and widths that divide by the number of groups."
            )
        if attention_head_dim is not None and any(w % attention_head_dim for w in widths):
            raise ConfigError(f"unet2d: block_out_channels={widths} do not divide by attention_head_dim={attention_head_dim}.")
        if sign not in (1, -1):
            raise ConfigError(f"unet2d: sign={sign}; give 1 or -1.")
        channels, factor = shape[0], 2 ** (levels - 1)
        if any(n % factor for n in shape[1:]):
            raise ShapeError(f"pictures of {' x '.join(map(str, shape[1:]))} do not divide by {factor}, as this net needs.")
        if out_channels not in (channels, 2 * channels):
            raise ConfigError(
                f"unet2d: out_channels={out_channels}; give {channels}, as x has, or {2 * channels} for a net that predicts a "
                "variance, too."
            )
        if learned_variance and out_channels != 2 * channels:
            raise ConfigError(f"unet2d: out_channels={out_channels} and a learned variance, which needs {2 * channels}.")
        self.channels, self.center, self.time_scale, self.sign = channels, bool(center_input_sample), time_scale, sign
        self.features, self.flip, self.shift = widths[0], bool(flip_sin_to_cos), freq_shift
        self.learned_variance = learned_variance
        emb_dim = time_embedding_dim or 4 * widths[0]
        self.conv_in = end(nn.Conv2d(channels, widths[0], 3, padding=1), (channels, 1, 1))
        self.time_embedding = TimeMLP(widths[0], emb_dim)
        self.class_embedding = None if num_class_embeds is None else Classes(num_class_embeds, emb_dim)
        groups, eps = norm_num_groups, norm_eps
        film = resnet_time_scale_shift == "scale_shift"

        def res(cin: int, cout: int, scale: float = 1.0) -> nn.Module:
            return Residual(cin, cout, emb_dim, groups=groups, eps=eps, act=act_fn, film=film, dropout=dropout, scale=scale)

        def look(width: int) -> nn.Module:
            heads = 1 if attention_head_dim is None else width // attention_head_dim
            return SelfAttention(width, heads, groups=groups, eps=eps, scale=1.0)

        down: list[nn.Module] = []
        width = widths[0]
        for i, (kind, w) in enumerate(zip(down_block_types, widths, strict=True)):
            resnets = [res(width if k == 0 else w, w) for k in range(layers_per_block)]
            looks = [look(w) for _ in resnets] if kind.startswith("Attn") else []
            down.append(Down(resnets, looks, Smaller(w, downsample_padding) if i < levels - 1 else None))
            width = w
        self.down_blocks = nn.ModuleList(down)
        self.mid_block = None
        if mid_block_type is not None:
            scale, w = mid_block_scale_factor, widths[-1]
            within = attn_norm_num_groups or (None if film else groups)
            heads = 1 if attention_head_dim is None else w // attention_head_dim
            looking = SelfAttention(w, heads, groups=within, eps=eps, scale=scale) if add_attention else None
            self.mid_block = Middle([res(w, w, scale), res(w, w, scale)], looking)
        up: list[nn.Module] = []
        for i, kind in enumerate(up_block_types):
            place = levels - 1 - i
            w, below = widths[place], widths[max(place - 1, 0)]
            before = widths[min(place + 1, levels - 1)]
            resnets = []
            for k in range(layers_per_block + 1):
                joined = below if k == layers_per_block else w
                resnets.append(res((before if k == 0 else w) + joined, w))
            looks = [look(w) for _ in resnets] if kind.startswith("Attn") else []
            up.append(Up(resnets, looks, Larger(w) if i < levels - 1 else None))
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, widths[0], norm_eps)
        self.conv_out = end(nn.Conv2d(widths[0], out_channels, 3, padding=1), (out_channels, 1, 1))
        self.to(memory_format=torch.channels_last)

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x_t (B,C,H,W), t (B,) -> the prediction (B,C,H,W), or two of them with a learned variance."""
        x = 2 * x_t - 1 if self.center else x_t
        features = sinusoid(self.time_scale * t, self.features, flip=self.flip, shift=self.shift)
        emb = self.time_embedding(features.to(x.dtype))
        if self.class_embedding is not None:
            label = cond.get("label")
            if label is not None:
                emb = emb + self.class_embedding(label)
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        kept = [x]
        for block in self.down_blocks:
            x, more = block(x, emb)
            kept += more
        x = x if self.mid_block is None else self.mid_block(x, emb)
        for block in self.up_blocks:
            x = block(x, kept, emb)
        out = self.conv_out(F.silu(self.conv_norm_out(x)))
        return outputs(out, self.channels, self.sign, self.learned_variance)

"""Whole denoisers of samples on a grid (C, H, W), pictures and spectrograms alike: U-Net, and transformer on patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.nets.blocks import Conditioning, Embeddable, end, zero
from zoo.nets.transformer import Transformer, sincos_positions
from zoo.nets.unet import UNet


class GridUNet(nn.Module):
    """U-Net on x_t (B, C, H, W). Options: those of `zoo.nets.unet.UNet` and `time_scale`.

    With `learned_variance` there are two outputs, see `zoo.core.diffusion.Denoiser`.
    """

    #: the options that say how wide it is, and their defaults, see `zoo.contract.domain.Domain.widths`
    widths: ClassVar[dict[str, int]] = {"channels": 64}

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Embeddable] | None = None,
        *,
        emb_dim: int = 256,
        time_scale: float = 1.0,
        learned_variance: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        options["learned_variance"] = learned_variance
        self.embed = Conditioning(conditions, emb_dim, time_scale)
        self.net = UNet(2, shape[0] + self.embed.channels, shape[0], emb_dim=emb_dim, token_dim=self.embed.token_dim, **options)
        self.net.check(shape[1:])
        self.to(memory_format=torch.channels_last)

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        out, *more = self.net.outputs(self.embed.beside(x_t, cond), *self.embed.told(t, cond))
        return (out, more[0]) if more else out


class GridTransformer(nn.Module):
    """Diffusion transformer (Peebles & Xie 2022) on square patches of x_t (B, C, H, W)."""

    #: the options that say how wide it is, and their defaults, see `zoo.contract.domain.Domain.widths`
    widths: ClassVar[dict[str, int]] = {"dim": 192}

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Embeddable] | None = None,
        *,
        patch: int = 4,
        dim: int = 192,
        emb_dim: int = 256,
        time_scale: float = 1.0,
        learned_variance: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        C, H, W = shape
        if H % patch or W % patch:
            raise ShapeError(f"samples of {H} x {W} do not divide into patches of {patch} x {patch}.")
        self.patch, self.grid = patch, (H // patch, W // patch)
        self.embed = Conditioning(conditions, emb_dim, time_scale)
        seen = C + self.embed.channels
        self.entry = end(nn.Linear(seen * patch * patch, dim), (seen, patch, patch))
        self.register_buffer("positions", sincos_positions(self.grid, dim), persistent=False)
        self.net = Transformer(dim, emb_dim=emb_dim, token_dim=self.embed.token_dim, **options)

        def exit_() -> nn.Module:
            return end(zero(nn.Linear(dim, C * patch * patch)), (C, patch, patch))

        self.exit = exit_()
        self.variance = exit_() if learned_variance else None

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        height, width = self.grid
        size = {"h": height, "w": width, "p": self.patch, "q": self.patch}
        x = self.embed.beside(x_t, cond)
        tokens = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", **size)
        emb, *told = self.embed.told(t, cond)
        tokens = self.net(self.entry(tokens) + self.positions, emb, told=None if told[0] is None else tuple(told))
        exits = [self.exit] if self.variance is None else [self.exit, self.variance]
        out, *more = (rearrange(exit_(tokens), "b (h w) (c p q) -> b c (h p) (w q)", **size) for exit_ in exits)
        return (out, more[0]) if more else out

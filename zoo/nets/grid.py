"""Whole denoisers of samples on a grid (C, H, W), pictures and spectrograms alike: U-Net, and transformer on patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ShapeError
from zoo.nets.blocks import LabelEmbedding, TimeEmbedding, zero
from zoo.nets.transformer import Transformer, sincos_positions
from zoo.nets.unet import UNet


class Conditioning(nn.Module):
    """Time t (B,) and labels {name: (B,)} as one vector (B, dim): the sum of their embeddings."""

    def __init__(self, classes: dict[str, int], dim: int, time_scale: float) -> None:
        super().__init__()
        self.time = TimeEmbedding(dim, time_scale)
        self.labels = nn.ModuleDict({name: LabelEmbedding(n, dim) for name, n in classes.items()})

    def forward(self, t: Tensor, cond: dict[str, Tensor], drop: Tensor | None) -> Tensor:
        emb = self.time(t)
        for name, table in self.labels.items():
            emb = emb + table(cond.get(name), drop, len(t))
        return emb


class GridUNet(nn.Module):
    """U-Net on x_t (B, C, H, W). Options: those of `zoo.nets.unet.UNet` and `time_scale`."""

    def __init__(
        self, shape: tuple[int, ...], classes: dict[str, int], *, emb_dim: int = 256, time_scale: float = 1.0, **options: Any
    ) -> None:
        super().__init__()
        self.embed = Conditioning(classes, emb_dim, time_scale)
        self.net = UNet(2, shape[0], shape[0], emb_dim=emb_dim, **options)
        self.net.check(shape[1:])
        self.to(memory_format=torch.channels_last)

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, drop: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        return self.net(x_t, self.embed(t, cond, drop))


class GridTransformer(nn.Module):
    """Diffusion transformer (Peebles & Xie 2022) on square patches of x_t (B, C, H, W)."""

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: dict[str, int],
        *,
        patch: int = 4,
        dim: int = 192,
        emb_dim: int = 256,
        time_scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__()
        C, H, W = shape
        if H % patch or W % patch:
            raise ShapeError(f"samples of {H} x {W} do not divide into patches of {patch} x {patch}.")
        self.patch, self.grid = patch, (H // patch, W // patch)
        self.embed = Conditioning(classes, emb_dim, time_scale)
        self.entry = nn.Linear(C * patch * patch, dim)
        self.register_buffer("positions", sincos_positions(self.grid, dim), persistent=False)
        self.net = Transformer(dim, emb_dim=emb_dim, **options)
        self.exit = zero(nn.Linear(dim, C * patch * patch))

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, drop: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        p = self.patch
        tokens = nn.functional.unfold(x_t, p, stride=p).transpose(1, 2)
        tokens = self.net(self.entry(tokens) + self.positions, self.embed(t, cond, drop))
        return nn.functional.fold(self.exit(tokens).transpose(1, 2), x_t.shape[2:], p, stride=p)

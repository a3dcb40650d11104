"""The denoiser of point clouds: points as tokens of the shared net of latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import Conditioning, Embeddable, end, zero
from zoo.point3d.latents import LatentNet


class PointLatents(nn.Module):
    """x_t (B,N,3) with labels -> (B,N,3), for any N.

    Args:
        shape, conditions: see `zoo.contract.domain.Domain.denoiser`.
        dim: channels of a point.
        octaves: each coordinate comes with the sines and cosines of so many wavelengths, 8 and every half of it
            (Mildenhall et al. 2020, Eq. 4).
        **options: those of `zoo.point3d.latents.LatentNet`.
    """

    #: the options that say how wide it is, and their defaults, see `zoo.contract.domain.Domain.widths`
    widths: ClassVar[dict[str, int]] = {"dim": 128, "width": 256, "inner": 128}
    frequencies: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Embeddable] | None = None,
        *,
        dim: int = 128,
        octaves: int = 7,
        emb_dim: int = 128,
        time_scale: float = 250.0,
        **options: Any,
    ) -> None:
        super().__init__()
        if octaves < 1:
            raise ConfigError(f"PointLatents octaves={octaves}: give at least 1.")
        self.axes = shape[1]
        self.embed = Conditioning(conditions, emb_dim, time_scale)
        self.register_buffer("frequencies", 2 * math.pi / 8 * 2.0 ** torch.arange(octaves), persistent=False)
        self.entry = end(nn.Linear(self.axes * (1 + 2 * octaves), dim))
        self.net = LatentNet(dim, emb_dim=emb_dim, **options)
        self.exit = end(zero(nn.Linear(dim, self.axes)))

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        if x_t.ndim != 3 or x_t.shape[2] != self.axes:
            raise ShapeError(f"points {tuple(x_t.shape)} must be (batch, points, {self.axes}).")
        return self.exit(self.net(self.entry(self.features(x_t)), self.embed(t, cond), mask))

    def features(self, x: Tensor) -> Tensor:
        """Points (B,N,3) -> (B,N,3 (1 + 2 octaves)): coordinates, sines, cosines."""
        angles = (x[..., None] * self.frequencies).flatten(2)
        return torch.cat([x, angles.sin(), angles.cos()], 2)

"""The denoiser of action chunks: the shared 1-D U-Net over time, with FiLM by noise level and observations."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from zoo.nets.blocks import TimeEmbedding, VectorEmbedding
from zoo.nets.unet import UNet


class PolicyUNet(nn.Module):
    """U-Net on x_t (B, horizon, Da); `cond["observation"]` (B, n_obs, Do) (Chi et al. 2023, section 4.1).

    Options: those of `zoo.nets.unet.UNet` and `time_scale`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: dict[str, int],
        arrays: dict[str, tuple[int, ...]] | None = None,
        *,
        emb_dim: int = 256,
        time_scale: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__()
        horizon, size = shape
        self.time = TimeEmbedding(emb_dim, time_scale)
        self.arrays = nn.ModuleDict({k: VectorEmbedding(math.prod(s), emb_dim) for k, s in (arrays or {}).items()})
        self.net = UNet(1, size, size, emb_dim=emb_dim, **options)
        self.net.check((horizon,))

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, drop: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        emb = self.time(t)
        for name, embed in self.arrays.items():
            value = cond.get(name)
            emb = emb + embed(None if value is None else value.flatten(1), drop, len(t))
        return self.net(x_t.transpose(1, 2), emb).transpose(1, 2)

"""The denoiser of action chunks: the shared 1-D U-Net over time, with FiLM by noise level and observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from zoo.nets.blocks import Embeddable, TimeEmbedding, embeddings
from zoo.nets.unet import UNet


class PolicyUNet(nn.Module):
    """U-Net on x_t (B, horizon, Da); `cond["observation"]` (B, n_obs, Do) (Chi et al. 2023, section 4.1).

    Options: those of `zoo.nets.unet.UNet` and `time_scale`.
    """

    #: the options that say how wide it is, and their defaults, see `zoo.contract.domain.Domain.widths`
    widths: ClassVar[dict[str, int]] = {"channels": 64}

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Embeddable] | None = None,
        *,
        emb_dim: int = 256,
        time_scale: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__()
        horizon, size = shape
        self.time = TimeEmbedding(emb_dim, time_scale)
        self.arrays = embeddings(conditions, emb_dim)
        self.net = UNet(1, size, size, emb_dim=emb_dim, **options)
        self.net.check((horizon,))

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        emb = self.time(t)
        for name, embed in self.arrays.items():
            emb = emb + embed(cond.get(name), t.shape[0])
        return self.net(x_t.transpose(1, 2), emb).transpose(1, 2)

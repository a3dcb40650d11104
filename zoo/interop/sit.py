"""The net of SiT, by the names of its own weights: that of DiT on the way from noise to data.

Ma et al. 2024, "SiT: Exploring flow and diffusion-based generative models with scalable interpolant transformers"
(willisma/SiT). Its `.pt` files are pickles, which zoo opens none of: `benchmarks/convert_pickle.py sit` makes a model folder of
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.interop.dit import DiT


class SiT(DiT):
    """DiT as SiT trains it, on x_t (B,C,H,W) of a flow, told a label; its prediction is that of our flows, eps - x0.

    Theirs goes the other way, from noise at time 0 to data at 1, along x_t = t data + (1 - t) noise: the net is told 1 - t, and
    says the velocity data - noise, which is turned round here.

    Args:
        shape, conditions, width, depth, heads, patch, inner: as of `DiT`.
        learn_sigma: the net has a second half of outputs, which nothing trains and nothing uses: as in SiT-XL/2.

    Raises:
        ConfigError, ShapeError: as of `DiT`.
    """

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
        learn_sigma: bool = False,
    ) -> None:
        super().__init__(
            shape, conditions, width=width, depth=depth, heads=heads, patch=patch, inner=inner, learned_variance=learn_sigma
        )

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        """x_t (B,C,H,W), t (B,) of our flow, 1 at noise -> eps - x0 (B,C,H,W)."""
        out = super().forward(x_t, 1 - t, cond)
        return -(out[0] if isinstance(out, tuple) else out)

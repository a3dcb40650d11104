"""A smaller sample of the same domain as a condition, from which a net makes a larger one. Loads no torch by itself.

Its values (n, C + 1, h, w) are the encoded small sample, with some noise in it (noise-conditioning augmentation, Ho et al.
2022, "Cascaded diffusion models", section 4), and the strength of that noise as a last plane; "not given" is NaN everywhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from zoo.contract.conditions import Condition, Given, Reading, condition
from zoo.contract.page import Question
from zoo.errors import ConfigError, ShapeError, ZooError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@condition("sample")
class SmallSample(Condition):
    """A smaller sample, which a larger one is to agree with; left out, it is the null.

    Attributes:
        shape: (C, h, w) of the encoded small sample.
        most: the strongest noise of training, as the share sigma of a mixture sqrt(1 - sigma^2) small + sigma noise.
        used: that of sampling: what a net makes of the small sample's own mistakes gets better with it, and its likeness worse.
    """

    kind: Literal["sample"] = "sample"
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    most: float = Field(0.5, ge=0, lt=1)
    used: float = Field(0.1, ge=0, lt=1)

    @property
    def derived(self) -> bool:
        return True

    def derive(self, x: Tensor, rng: torch.Generator | None) -> Tensor:
        import torch

        from zoo.core.device import send

        small = self.smaller(x)
        share = self.most * torch.rand(len(x), generator=rng)
        noise = torch.randn(small.shape, generator=rng)
        return self.mixed(small, send(noise, x.device).to(small), send(share, x.device).to(small))

    def smaller(self, x: Tensor) -> Tensor:
        """Encoded samples (B, C, H, W) -> (B, C, h, w), by the mean over boxes.

        Raises:
            ShapeError: sizes that are no multiple of the small ones.
        """
        import torch.nn.functional as F

        channels, height, width = self.shape
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % height or x.shape[3] % width:
            raise ShapeError(
                f"samples {tuple(x.shape[1:])} have no smaller ones {self.shape}: the channels must be the same, and the sizes "
                "multiples."
            )
        return F.avg_pool2d(x, (x.shape[2] // height, x.shape[3] // width))

    def mixed(self, small: Tensor, noise: Tensor, share: Tensor) -> Tensor:
        """Small samples (B, C, h, w) with a share (B,) of noise -> (B, C + 1, h, w)."""
        import torch

        wide = share[:, None, None, None]
        return torch.cat([(1 - wide**2).sqrt() * small + wide * noise, wide.expand(-1, 1, *small.shape[2:])], 1)

    def read(self, value: Any, n: int, reading: Reading | None = None) -> Given:
        import torch

        reading = reading or Reading()
        if value is None:
            return Given(self.null(n))
        whole, own = (self.shape[0] + 1, *self.shape[1:]), self._tensor(value, reading.name)
        if tuple(own.shape[-3:]) == whole:  # as a net receives it
            if own.shape not in (whole, (n, *whole)):
                raise ShapeError(f"{reading.name}: shape {tuple(own.shape)}; give {(n, *whole)}.")
            return Given(own.expand(n, *whole))
        own = own[None] if own.ndim == 3 else own
        if own.ndim != 4 or len(own) not in (1, n):
            raise ShapeError(f"{reading.name}: shape {tuple(own.shape)}; give one sample {self.shape}, or {n} of them.")
        small = self.smaller(own).expand(n, -1, -1, -1)
        noise = torch.zeros_like(small)
        if reading.rng is not None and self.used:
            noise = torch.stack([torch.randn(self.shape, generator=reading.rng(i)) for i in range(n)])
        return Given(self.mixed(small, noise, torch.full((n,), self.used)))

    def _tensor(self, value: Any, name: str) -> Tensor:
        """Samples of a domain, arrays or tensors as float32."""
        import numpy as np
        import torch

        def one(item: Any) -> Any:
            own = getattr(item, "numpy", None)
            return own() if callable(own) and not isinstance(item, torch.Tensor) else item

        try:
            several = isinstance(value, (list, tuple)) or (hasattr(value, "__len__") and not hasattr(value, "shape"))
            found = np.stack([np.asarray(one(v)) for v in value]) if several else np.asarray(one(value))
            array = torch.as_tensor(found).float()
        except ZooError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{name}: not a sample ({error}); give {self.describe()}.") from None
        if array.ndim < 3:
            raise ShapeError(f"{name}: shape {tuple(array.shape)}; give {self.describe()}.")
        if not torch.isfinite(array).all():
            raise ConfigError(f"{name}: holds NaN or infinity; every number of it must be finite.")
        return array

    def example(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        import torch

        small = torch.randn(n, *self.shape, generator=rng).clamp(-1, 1)
        noise = torch.randn(n, *self.shape, generator=rng)
        return self.mixed(small, noise, self.most * torch.rand(n, generator=rng))

    def null(self, n: int) -> Tensor:
        import torch

        return torch.full((n, self.shape[0] + 1, *self.shape[1:]), math.nan)

    def embedding(self, dim: int) -> nn.Module:
        from zoo.nets.small import SmallEmbedding

        return SmallEmbedding(self.shape, dim)

    def question(self) -> Question:
        return Question("none")

    def describe(self) -> str:
        return f"a sample, or encoded numbers {self.shape}, or larger ones of which the mean is taken"

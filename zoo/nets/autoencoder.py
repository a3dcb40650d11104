"""What autoencoders of first stages share: they take the arguments of a denoiser, so that they are trained and saved as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Base of nets with a Gaussian of latents for each object (Kingma & Welling 2013): a net says `encode` and `decode`.

    Attributes:
        latent_shape: of one latent (*S).
    """

    latent_shape: tuple[int, ...]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded objects (B,*I) -> mean and log variance of their latents, each (B,*latent_shape)."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B,*latent_shape) -> encoded objects (B,*I)."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        t: Tensor | None = None,
        cond: Mapping[str, Tensor] | None = None,
        *,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Any:
        """Objects back from the mean of their latents (B,*I). t, conditions and mask go unused.

        Args:
            noise: (B,*latent_shape), for training: (objects from a draw of the latents, their mean, their log variance).
        """
        mean, log_variance = self.encode(x)
        if noise is None:
            return self.decode(mean)
        return self.decode(mean + torch.exp(0.5 * log_variance) * noise), mean, log_variance

"""The autoencoder of pictures: a convolutional first stage with a Gaussian posterior (Rombach et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError
from zoo.nets.autoencoder import Autoencoder
from zoo.nets.blocks import end, zero
from zoo.nets.unet import norm

#: bounds of the posterior's log variance: outside of them its square root is 0 or infinite in half precision
LEAST, MOST = -20.0, 10.0


class Block(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, plus the input: (B,cin,H,W) -> (B,cout,H,W). It has no embedding."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = norm(cout), zero(nn.Conv2d(cout, cout, 3, padding=1))
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class GridAutoencoder(Autoencoder):
    """Pictures x (B, C, H, W) to latents (B, latent, H / f, W / f) and back, where f is patch * 2^(levels - 1).

    It takes the arguments of a denoiser, so that it is trained, saved and verified as one: t and conditions go unused.

    Args:
        shape: of the pictures (C, H, W).
        latent: channels of the latents.
        channels, multipliers: level i has channels * multipliers[i] of them; each level halves the sizes of the last.
        blocks: residual blocks a level in the encoder, and in the decoder, which draws and has more to do.
        patch: fold patch x patch pixels into channels at the entry and unfold them at the exit.

    Attributes:
        latent_shape: of one latent.

    Raises:
        ConfigError: numbers that do not fit together. ShapeError: pictures whose sides do not divide by f.
    """

    #: the options that say how wide it is, and their defaults, see `zoo.contract.domain.Domain.widths`
    widths: ClassVar[dict[str, int]] = {"channels": 64}

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        latent: int = 4,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: Sequence[int] = (1, 2),
        patch: int = 2,
    ) -> None:
        super().__init__()
        whole = all(isinstance(n, int) and n >= 1 for n in (latent, channels, patch, *multipliers, *blocks))
        if not whole or not multipliers or len(blocks) != 2:
            raise ConfigError(
                f"autoencoder: latent={latent}, channels={channels}, multipliers={list(multipliers)}, blocks={list(blocks)}, "
                f"patch={patch}: give positive whole numbers, and two of them as blocks (of encoder and decoder)."
            )
        C, H, W = shape
        self.patch, self.factor = patch, patch * 2 ** (len(multipliers) - 1)
        if H % self.factor or W % self.factor:
            raise ShapeError(
                f"pictures of {H} x {W} do not divide by {self.factor}, by which this autoencoder makes them smaller "
                f"(patch {patch}, then {self.factor // patch}-fold downsampling)."
            )
        self.latent_shape = (latent, H // self.factor, W // self.factor)
        widths = [channels * m for m in multipliers]
        down: list[nn.Module] = [end(nn.Conv2d(C * patch**2, widths[0], 3, padding=1), (C, patch, patch))]
        width = widths[0]
        for i, w in enumerate(widths):
            if i:
                down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
            for _ in range(blocks[0]):
                down.append(Block(width, w))
                width = w
        down += [norm(width), nn.SiLU(), end(nn.Conv2d(width, 2 * latent, 3, padding=1))]
        up: list[nn.Module] = [end(nn.Conv2d(latent, width, 3, padding=1))]
        for i, w in reversed(list(enumerate(widths))):
            for _ in range(blocks[1]):
                up.append(Block(width, w))
                width = w
            if i:
                up += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, width, 3, padding=1)]
        up += [norm(width), nn.SiLU(), end(nn.Conv2d(width, C * patch**2, 3, padding=1), (C, patch, patch))]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)
        self.to(memory_format=torch.channels_last)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, H, W) -> mean and log variance of the latents' Gaussian, each (B, *latent_shape)."""
        x = rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=self.patch, q=self.patch)
        mean, log_variance = self.encoder(x.contiguous(memory_format=torch.channels_last)).chunk(2, 1)
        return mean.contiguous(), log_variance.clamp(LEAST, MOST).contiguous()

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, *latent_shape) -> pictures (B, C, H, W)."""
        x = self.decoder(z.contiguous(memory_format=torch.channels_last))
        return rearrange(x, "b (c p q) h w -> b c (h p) (w q)", p=self.patch, q=self.patch).contiguous()

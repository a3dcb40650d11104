"""Between backbones in angstrom and encoded samples (N,3,3)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.domain import Batch, Codec, Dataset
from zoo.errors import ConfigError
from zoo.protein.backbone import Backbone

if TYPE_CHECKING:
    from zoo.core.schedule import Level

#: angstrom of one unit of encoded coordinates: the usual standard deviation of a small domain's atoms
SCALE = 6.5
#: lengths that no net of ours takes
SHORTEST, LONGEST = 8, 256
#: weights of the auxiliary loss, and the noise in angstrom above which it fades: a blurred guess has no true distances
AUXILIARY, FADE = 0.3, 2.0
#: atoms apart along the backbone whose distances are held, and the largest CA distance that counts
LOCAL, CONTACT = 7, 15.0


def centred(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Atoms (B,N,...,3) with the mean of the real residues' atoms taken off, 0 in the padding."""
    if mask is None:
        return x - x.mean(tuple(range(1, x.ndim - 1)), keepdim=True)
    keep = mask.view(*mask.shape, *[1] * (x.ndim - 2))
    count = (keep.sum(1, keepdim=True) * x[0, 0].numel() / 3).clamp(min=1)
    axes = tuple(range(1, x.ndim - 1))
    return torch.where(keep, x - torch.where(keep, x, 0).sum(axes, keepdim=True) / count, 0)


class BackboneCodec(Codec):
    """Backbones as coordinates of N, CA and C around their mean, in units of SCALE.

    Args:
        min_length, max_length: the lengths that are trained on; others, up to 256, are sampled with a warning.

    Attributes:
        lengths: (257,) int64, how many training chains have each length.
    """

    size_name = "length"
    lengths: Tensor

    def __init__(self, min_length: int = 32, max_length: int = 128) -> None:
        super().__init__()
        if not SHORTEST <= min_length <= max_length <= LONGEST:
            raise ConfigError(
                f"protein codec: lengths {min_length} to {max_length}; give {SHORTEST} <= min <= max <= {LONGEST}."
            )
        self.min_length, self.max_length = min_length, max_length
        self.shape = (min(max(64, min_length), max_length), 3, 3)
        self.register_buffer("lengths", torch.zeros(LONGEST + 1, dtype=torch.int64))

    def sample_size(self, value: int | None, generator: torch.Generator) -> int:
        """The length asked for, or one drawn as those of the training chains are; the usual one before `fit`."""
        if value is None:
            if not self.lengths.any():
                return self.shape[0]
            return int(torch.multinomial(self.lengths.cpu().double(), 1, generator=generator))
        if not SHORTEST <= value <= LONGEST:
            raise ConfigError(f"length={value}: chains of {SHORTEST} to {LONGEST} residues can be sampled.")
        if not self.min_length <= value <= self.max_length:
            warnings.warn(
                f"length={value} is outside what was trained on ({self.min_length} to {self.max_length} residues): look at "
                "the samples before you use them.",
                stacklevel=2,
            )
        return value

    def fit(self, dataset: Dataset) -> None:
        sizes = torch.tensor([len(dataset[i][0]) for i in range(len(dataset))])
        self.lengths.copy_(torch.bincount(sizes, minlength=LONGEST + 1))

    def encode(self, item: Backbone, generator: torch.Generator | None = None) -> Tensor:
        """A backbone -> (N,3,3); with a generator in a random orientation, never mirrored."""
        x = torch.from_numpy(item.atoms).float()
        if generator is not None:
            # a unit quaternion of a normal draw is a uniform rotation (Shoemake 1992)
            x = x @ rotation(torch.randn(4, generator=generator))
        return centred(x[None])[0] / SCALE

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Backbone]:
        return [Backbone(x) for x in (SCALE * x0.detach()).float().cpu().numpy()]

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return centred(x, mask)

    def batch(self, items: Sequence[tuple[Any, dict[str, Any]]], generator: torch.Generator | None = None) -> Batch:
        x = [self.encode(item, generator) for item, _ in items]
        sizes = torch.tensor([len(row) for row in x])
        padded = pad_sequence(x, batch_first=True)
        return Batch(padded, {}, torch.arange(padded.shape[1]) < sizes[:, None])

    def auxiliary(self, guess: Tensor, x0: Tensor, level: Level, mask: Tensor | None = None) -> Tensor:
        """Errors of distances where the noise is low: along the backbone, and between CA in contact.

        The first are squares with EDM's weight, as the main loss has; the second one minus a smooth lDDT (Abramson et al.
        2024, Algorithm 27), which counts errors below 0.5 to 4 angstrom.
        """
        B, N = x0.shape[:2]
        mask = torch.ones(B, N, dtype=torch.bool, device=x0.device) if mask is None else mask
        sigma = level.ratio.to(x0)[:, None]
        fade = 1 / (1 + (SCALE * sigma / FADE) ** 2)
        real = mask.repeat_interleave(3, 1)
        local = x0.new_zeros(())
        atoms, true = guess.reshape(B, 3 * N, 3), x0.reshape(B, 3 * N, 3)
        for k in range(1, LOCAL + 1):
            error = distance(atoms[:, k:], atoms[:, :-k]) - distance(true[:, k:], true[:, :-k])
            keep = real[:, k:] * fade
            local = local + (keep * error**2 * (1 + sigma**-2)).sum() / real[:, k:].sum().clamp(min=1) / LOCAL
        ca, there = SCALE * guess[:, :, 1], SCALE * x0[:, :, 1]
        apart = distance(there[:, None], there[:, :, None])
        error = (distance(ca[:, None], ca[:, :, None]) - apart).abs()
        near = (apart < CONTACT) & mask[:, None] & mask[:, :, None] & ~torch.eye(N, dtype=torch.bool, device=x0.device)
        score = torch.stack([torch.sigmoid(limit - error) for limit in (0.5, 1.0, 2.0, 4.0)]).mean(0)
        lddt = ((1 - score) * near * fade[..., None]).sum() / near.sum().clamp(min=1)
        return AUXILIARY * (local + lddt)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance (...) of points (..., 3), with a finite gradient at 0."""
    return ((a - b).square().sum(-1) + 1e-8).sqrt()


def rotation(quaternion: Tensor) -> Tensor:
    """The rotation matrix (3,3) of a quaternion (4,) of any length but 0."""
    w, x, y, z = quaternion / quaternion.norm()
    return torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ]
    ).view(3, 3)  # fmt: skip

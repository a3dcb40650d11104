"""Between backbones in angstrom and encoded samples (N,3,3)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.core.likelihood import Units
from zoo.core.schedule import Level
from zoo.errors import ConfigError
from zoo.protein.backbone import Backbone
from zoo.protein.rigid import distance, lay, put, random_rotation, smooth_lddt
from zoo.values import plain

#: angstrom of one unit of encoded coordinates: the usual standard deviation of a small domain's atoms
SCALE = 6.5
#: lengths that no net of ours takes
SHORTEST, LONGEST = 8, 256
#: weights of the auxiliary loss, and the noise in angstrom above which it fades: a blurred guess has no true distances
AUXILIARY, FADE = 0.3, 2.0
#: atoms apart along the backbone whose distances are held, and the largest CA distance that counts
LOCAL, CONTACT = 7, 15.0
#: share of the guesses that hold a motif in training, and residues of the shortest one; the longest is half a chain
HINTED, MOTIF = 0.75, 6
#: atoms beside a motif over which their move, where it is laid onto a guess, falls to 1/e
FOLLOW = 3.0


def asked_length(value: int, longest: int, low: int, high: int) -> int:
    """A length that can be sampled; one outside of what was trained on, `low` to `high` residues, with a warning.

    Raises:
        ConfigError: fewer than SHORTEST residues, or more than `longest`.
    """
    if not SHORTEST <= value <= longest:
        raise ConfigError(f"length={value}: chains of {SHORTEST} to {longest} residues can be sampled.")
    if not low <= value <= high:
        warnings.warn(
            f"length={value} is outside what was trained on ({low} to {high} residues): look at the samples before you use "
            "them.",
            stacklevel=3,
        )
    return value


class BackboneCodec(Codec):
    """Backbones as coordinates of N, CA and C around their mean, in units of SCALE.

    Args:
        min_length, max_length: the lengths that are trained on; others, up to 256, are sampled with a warning.

    Attributes:
        lengths: (257,) int64, how many training chains have each length.
    """

    axes = ("residue", "atom", "coordinate")
    size_name = "length"
    lengths: Tensor

    def __init__(self, min_length: int = 32, max_length: int = 128) -> None:
        super().__init__()
        min_length, max_length = plain(min_length), plain(max_length)
        if not SHORTEST <= min_length <= max_length <= LONGEST:
            raise ConfigError(
                f"protein codec: lengths {min_length} to {max_length}; give {SHORTEST} <= min <= max <= {LONGEST}."
            )
        self.min_length, self.max_length = min_length, max_length
        self.shape = (min(max(64, min_length), max_length), 3, 3)
        self.register_buffer("lengths", torch.zeros(LONGEST + 1, dtype=torch.int64))

    def sample_size(self, value: int | None, rng: torch.Generator) -> int:
        """The length asked for, or one drawn as those of the training chains are; the usual one before `fit`."""
        if value is None:
            if not self.lengths.any():
                return self.shape[0]
            return int(torch.multinomial(self.lengths.cpu().double(), 1, generator=rng))
        return asked_length(value, LONGEST, self.min_length, self.max_length)

    def fit(self, dataset: Dataset) -> None:
        sizes = torch.tensor([len(dataset[i][0]) for i in range(len(dataset))])
        self.lengths.copy_(torch.bincount(sizes, minlength=LONGEST + 1))

    def continued(self, before: Codec) -> list[str]:
        """Nothing: how many chains have each length is about the data, and coordinates are scaled by a constant."""
        return []

    def encode(self, item: Backbone, rng: torch.Generator | None = None) -> Tensor:
        """A backbone -> (N,3,3); with a generator in a random orientation, never mirrored."""
        x = torch.from_numpy(item.atoms).float()
        if rng is not None:
            x = x @ random_rotation(rng)
        return self.project(x[None])[0] / SCALE

    def in_units(self, x0: Tensor) -> Tensor:
        """Coordinates (B, N, 3, 3) of N, CA and C in angstrom."""
        return SCALE * x0

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Backbone]:
        return [Backbone(x) for x in (SCALE * x0.detach()).float().cpu().numpy()]

    def density_units(self, x0: Tensor) -> Units:
        """Angstrom, of atoms around their mean."""
        return Units("angstrom", -self.free(x0) * math.log(SCALE))

    def free(self, x0: Tensor) -> int:
        return x0.numel() - x0.shape[-1]  # the mean is always 0

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return x - x.mean((1, 2), keepdim=True)
        keep = mask[:, :, None, None]
        x = torch.where(keep, x, 0)
        return torch.where(keep, x - x.sum((1, 2), keepdim=True) / (3 * keep.sum(1, keepdim=True)).clamp(min=1), 0)

    def stack(self, items: Sequence[Any], rng: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """As other codecs, but always with a mask: sums under a mask and plain means differ in the last digit."""
        x0, mask = super().stack(items, rng)
        return x0, torch.ones(x0.shape[:2], dtype=torch.bool) if mask is None else mask

    def hint(self, guess: Tensor, x0: Tensor, mask: Tensor | None, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Guesses of which most hold a motif: residues of the true chain, laid onto them as in sampling."""
        true, out, known = x0.flatten(1, 2), guess.flatten(1, 2).clone(), torch.zeros_like(guess, dtype=torch.bool)
        sizes = [x0.shape[1]] * len(x0) if mask is None else mask.sum(1).tolist()
        for i, (size, draw) in enumerate(zip(sizes, torch.rand(len(x0), 3, generator=rng).tolist(), strict=True)):
            if draw[0] < HINTED and size > 2 * MOTIF:
                length = MOTIF + int(draw[1] * (size // 2 - MOTIF + 1))
                first = int(draw[2] * (size - length + 1))
                out[i, : 3 * size] = lay(true[i, 3 * first : 3 * (first + length)], out[i, : 3 * size], 3 * first, FOLLOW)
                known[i, first : first + length] = True
        return self.project(out.view_as(guess), mask), known

    def held(self, known: Tensor, where: Tensor) -> Callable[[Tensor], Tensor]:
        """Residues stay where they are, and the atoms beside them move along, as beside a motif."""
        atoms = where.expand_as(known).all(-1).flatten()

        def place(x0: Tensor) -> Tensor:
            return torch.where(where, known, put(known.flatten(0, 1), x0.flatten(1, 2), atoms, FOLLOW).view_as(x0))

        return place

    def auxiliary(self, guess: Tensor, x0: Tensor, level: Level, mask: Tensor | None = None) -> Tensor:
        """Errors of distances along the backbone, with EDM's weight as in the main loss, and 1 - lDDT of CA, at low noise."""
        mask = torch.ones(x0.shape[:2], dtype=torch.bool, device=x0.device) if mask is None else mask
        sigma = level.ratio.to(x0)
        fade = 1 / (1 + (SCALE * sigma / FADE) ** 2)
        weight = (fade * (1 + sigma**-2))[:, None]
        real = mask.repeat_interleave(3, 1)
        atoms, true = guess.flatten(1, 2), x0.flatten(1, 2)
        total = x0.new_zeros(())
        for k in range(1, LOCAL + 1):
            error = distance(atoms[:, k:], atoms[:, :-k]) - distance(true[:, k:], true[:, :-k])
            total = total + (weight * real[:, k:] * error**2).sum() / real[:, k:].sum().clamp(min=1) / LOCAL
        score = smooth_lddt(SCALE * guess[:, :, 1], SCALE * x0[:, :, 1], mask, CONTACT, fade)
        return AUXILIARY * (total + score)

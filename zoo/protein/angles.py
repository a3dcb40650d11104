"""Between backbones in angstrom and six angles a residue (N,6), in radians around their means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.core.circle import wrapped
from zoo.errors import ConfigError
from zoo.protein.backbone import Backbone
from zoo.protein.codec import SHORTEST, asked_length
from zoo.protein.geometry import bends, grown, torsions
from zoo.values import several, whole

#: the longest chain that is known of; positions of a net are finite in any case
LONGEST = 4096
#: what an encoded residue holds: three torsions, and the angles N-CA-C of the next residue, CA-C-N to it, and C-N-CA there
ANGLES = ("phi", "psi", "omega", "N:CA:C", "CA:C:1N", "C:1N:1CA")
TURN = 2 * math.pi
#: FoldingDiff's lengths of the bonds N-CA, CA-C, C-N in angstrom
BONDS = (1.46, 1.54, 1.34)
#: and where it puts the first residue, in angstrom: N, CA and C of the first one of crambin (PDB entry 1CRN)
FIRST = ((17.047, 14.099, 3.625), (16.967, 12.784, 4.338), (15.685, 12.755, 5.133))


def angles_of(x: Tensor) -> Tensor:
    """`ANGLES` (..., N, 6) in radians of backbones (..., N, 3, 3); NaN where a residue has none."""
    return torch.cat([torsions(x), bends(x)], -1)


class AngleCodec(Codec):
    """Backbones as the angles that build them (Wu et al. 2024, "Protein structure generation via folding diffusion").

    Bond lengths are fixed: a chain that is encoded and decoded has the same angles and other lengths. Samples are turned and
    shifted as nobody knows: angles say nothing of it.

    Args:
        min_length, max_length: the lengths that are trained on. Longer chains are refused, shorter ones are sampled with a
            warning.
        usual: (low, high) the lengths between which one is drawn where nobody says it; default: all that are trained on.

    Attributes:
        mean: (6,) in radians, around which the angles are encoded.
        lengths: (max_length + 1,) int64, how many training chains have each length.
    """

    axes = ("residue", "angle")
    size_name = "length"
    period = TURN
    mean: Tensor
    lengths: Tensor

    def __init__(self, min_length: int = 40, max_length: int = 128, usual: tuple[int, int] | None = None) -> None:
        super().__init__()
        ends = several(usual) if usual is not None else [min_length, max_length]
        if ends is None or len(ends) != 2:
            raise ConfigError(f"protein codec: usual={usual!r}; give the least and the largest usual length.")
        low, high, first, last = (whole(v, "length") for v in (min_length, max_length, *ends))
        if not 1 <= low <= high <= LONGEST or not low <= first <= last <= high or high < SHORTEST:
            raise ConfigError(
                f"protein codec: lengths {low} to {high}, usually {first} to {last}; give 1 <= min <= max <= {LONGEST}, the "
                f"usual ones within them, and a max of {SHORTEST} or more."
            )
        self.min_length, self.max_length, self.usual = low, high, (max(first, SHORTEST), max(last, SHORTEST))
        self.shape = (min(max(64, self.usual[0]), self.usual[1]), len(ANGLES))
        self.register_buffer("mean", torch.zeros(len(ANGLES)))
        self.register_buffer("lengths", torch.zeros(high + 1, dtype=torch.int64))

    def sample_size(self, value: int | None, rng: torch.Generator) -> int:
        """The length asked for, or one drawn as those of the training chains are; before `fit` any usual one."""
        if value is None:
            if self.lengths.any():
                return int(torch.multinomial(self.lengths.cpu().double(), 1, generator=rng))
            return int(torch.randint(self.usual[0], self.usual[1] + 1, (), generator=rng))
        return asked_length(value, self.max_length, self.min_length, self.max_length)

    def fit(self, dataset: Dataset) -> None:
        """Lengths, and the mean direction of each angle."""
        chains = [torch.from_numpy(dataset[i][0].atoms).double() for i in range(len(dataset))]
        if odd := [len(x) for x in chains if len(x) > self.max_length]:
            raise ConfigError(f"a chain of {odd[0]} residues: this codec takes up to {self.max_length}. Set codec.max_length.")
        self.lengths.copy_(torch.bincount(torch.tensor([len(x) for x in chains]), minlength=self.max_length + 1))
        found = torch.cat([angles_of(x) for x in chains])
        self.mean.copy_(torch.atan2(found.sin().nanmean(0), found.cos().nanmean(0)))

    def continued(self, before: Codec) -> list[str]:
        """The means: the net knows angles around them. How many chains have each length is about the data."""
        self.mean.copy_(dict(before.named_buffers())["mean"])
        return ["mean"]

    def encode(self, item: Backbone, rng: torch.Generator | None = None) -> Tensor:
        """A backbone -> (N,6) in radians around the means; 0 where a residue at an end has no such angle."""
        x = angles_of(torch.from_numpy(item.atoms).double())
        return wrapped(x - self.mean.to(x), TURN).nan_to_num(0.0).to(self.mean)

    def in_units(self, x0: Tensor) -> Tensor:
        """Coordinates (B,N,3,3) of N, CA and C in angstrom, around no centre."""
        return grown(x0 + self.mean.to(x0), BONDS, torch.tensor(FIRST))

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Backbone]:
        # in float64 on the CPU: some hundred turns follow one another
        x = wrapped(x0.detach().cpu().double() + self.mean.cpu().double(), TURN)
        atoms = grown(x, BONDS, torch.tensor(FIRST, dtype=torch.float64))
        return [Backbone(a) for a in (atoms - atoms.mean((1, 2), keepdim=True)).numpy()]

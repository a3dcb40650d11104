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
from zoo.protein.backbone import Backbone
from zoo.protein.geometry import bends, grown, torsions
from zoo.protein.lengths import LengthsCodec

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


class AngleCodec(LengthsCodec):
    """Backbones as the angles that build them (Wu et al. 2024, "Protein structure generation via folding diffusion").

    Bond lengths are fixed: a chain that is encoded and decoded has the same angles and other lengths. Samples are turned and
    shifted as nobody knows: angles say nothing of it.

    Args:
        min_length, max_length, usual: as of `LengthsCodec`.

    Attributes:
        mean: (6,) in radians, around which the angles are encoded.
    """

    axes = ("residue", "angle")
    period = TURN
    mean: Tensor

    def __init__(self, min_length: int = 40, max_length: int = 128, usual: tuple[int, int] | None = None) -> None:
        super().__init__(min_length, max_length, usual, (len(ANGLES),))
        self.register_buffer("mean", torch.zeros(len(ANGLES)))

    def fit(self, dataset: Dataset) -> None:
        """Lengths, and the mean direction of each angle."""
        chains = [dataset[i][0] for i in range(len(dataset))]
        self.count(chains)
        found = torch.cat([angles_of(torch.from_numpy(chain.atoms).double()) for chain in chains])
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

"""What codecs of chains of other people's nets share: the lengths that such a net takes, and which one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.errors import ConfigError
from zoo.protein.codec import SHORTEST, asked_length
from zoo.values import several, whole

#: the longest chain that is known of; positions of a net are finite in any case
LONGEST = 4096
#: residues of a chain where any length is usual
USUAL = 64


class LengthsCodec(Codec):
    """A codec of chains whose net takes no more residues than it was made for.

    Args:
        min_length, max_length: the lengths that are trained on. Longer chains are refused, shorter ones are sampled with a
            warning.
        usual: (low, high) the lengths between which one is drawn where nobody says it; None: all that are trained on.
        each: the shape of one residue.

    Attributes:
        lengths: (max_length + 1,) int64, how many training chains have each length.

    Raises:
        ConfigError: lengths that do not fit together.
    """

    size_name = "length"
    lengths: Tensor

    def __init__(self, min_length: int, max_length: int, usual: tuple[int, int] | None, each: tuple[int, ...]) -> None:
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
        self.shape = (min(max(USUAL, self.usual[0]), self.usual[1]), *each)
        self.register_buffer("lengths", torch.zeros(high + 1, dtype=torch.int64))

    def sample_size(self, value: int | None, rng: torch.Generator) -> int:
        """The length asked for, or one drawn as those of the training chains are; before `fit` any usual one."""
        if value is None:
            if self.lengths.any():
                return int(torch.multinomial(self.lengths.cpu().double(), 1, generator=rng))
            return int(torch.randint(self.usual[0], self.usual[1] + 1, (), generator=rng))
        return asked_length(value, self.max_length, self.min_length, self.max_length)

    def count(self, chains: Sequence[Any]) -> None:
        """Keep how many of the training chains have each length.

        Raises:
            ConfigError: a chain that is too long.
        """
        sizes = [len(chain) for chain in chains]
        if odd := [n for n in sizes if n > self.max_length]:
            raise ConfigError(f"a chain of {odd[0]} residues: this codec takes up to {self.max_length}. Set codec.max_length.")
        self.lengths.copy_(torch.bincount(torch.tensor(sizes), minlength=self.max_length + 1))

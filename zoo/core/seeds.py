"""One CPU generator per sample: sample i of seed s is the same whatever n, batch size, device or process count."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import ConfigError

_MASK = (1 << 64) - 1


def _mix(z: int) -> int:
    """The finaliser of splitmix64: neighbouring numbers give unrelated ones."""
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def derive_seed(*parts: int) -> int:
    """A 64-bit seed from a sequence of whole numbers, e.g. (seed, sample) or (seed, step, process)."""
    z = 0
    for part in parts:
        z = _mix(z ^ (part & _MASK))
    return z


def generator(*parts: int) -> torch.Generator:
    """A CPU generator seeded by a sequence of whole numbers."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def check_seed(seed: int | None) -> int:
    """The seed itself, or a fresh random one for None."""
    if seed is None:
        return secrets.randbits(32)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"seed={seed!r}: give a whole number, or nothing for a random one.")
    return seed


class SampleRng:
    """The random numbers of samples `indices` of one seed, drawn on the CPU, one generator each.

    Args:
        sizes: how many elements (points, residues) each sample really has, where they differ: the noise of sample i is
            then the same whatever it is padded to, and 0 in the padding.
    """

    def __init__(self, seed: int, indices: Sequence[int], sizes: Sequence[int] | None = None) -> None:
        if sizes is not None and len(sizes) != len(indices):
            raise ConfigError(f"{len(indices)} samples but {len(sizes)} sizes.")
        self.generators, self.sizes = [generator(seed, i) for i in indices], sizes

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape, dtype and device of `like` (B,*S), or (B,N,...) padded to N elements."""
        if len(like) != len(self.generators):
            raise ConfigError(f"{len(like)} samples but {len(self.generators)} generators.")
        # drawn in float32 unless float64 is asked for, so that bf16 and fp32 sampling see the same noise
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        out = torch.zeros(like.shape, dtype=dtype)
        for i, (row, g) in enumerate(zip(out, self.generators, strict=True)):
            real = row if self.sizes is None else row[: self.sizes[i]]
            torch.randn(real.shape, generator=g, dtype=dtype, out=real)
        return out.to(device=like.device, dtype=like.dtype)

    def integers(self, high: int) -> Tensor:
        """(B,) whole numbers in [0, high), one of each generator."""
        return torch.stack([torch.randint(high, (), generator=g) for g in self.generators])

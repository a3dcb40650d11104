"""One CPU generator per sample: sample i of seed s is the same whatever n, batch size, device or process count."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.values import whole

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
    return secrets.randbits(32) if seed is None else whole(seed, "seed")


class SampleRng:
    """The random numbers of samples `indices` of one seed, drawn on the CPU, one generator each.

    Args:
        sizes: how many elements (points, residues, frames) each sample really has, where they differ: the noise of
            sample i is then the same whatever it is padded to, and 0 in the padding.
        axis: the axis of a sample (*S) that has these sizes.
    """

    def __init__(self, seed: int, indices: Sequence[int], sizes: Sequence[int] | None = None, axis: int = 0) -> None:
        if sizes is not None and len(sizes) != len(indices):
            raise ConfigError(f"{len(indices)} samples but {len(sizes)} sizes.")
        self.generators, self.sizes, self.axis = [generator(seed, i) for i in indices], sizes, axis

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape, dtype and device of `like` (B,*S), which may be padded.

        It is drawn in float32 and cast, so that a sample sees the same noise in every dtype.
        """
        if len(like) != len(self.generators):
            raise ConfigError(f"{len(like)} samples but {len(self.generators)} generators.")
        out = torch.zeros(like.shape, dtype=torch.float32)
        for i, (row, rng) in enumerate(zip(out, self.generators, strict=True)):
            real = row if self.sizes is None else row.narrow(self.axis, 0, self.sizes[i])
            real.copy_(torch.randn(real.shape, generator=rng))
        return out.to(device=like.device, dtype=like.dtype)


class ParticleRng:
    """The random numbers of several particles of each sample, which depend on its own generator alone.

    Args:
        rng: of the samples.
        particles: how many each of them has.
    """

    def __init__(self, rng: SampleRng, particles: int) -> None:
        self.samples = rng
        roots = [int(torch.randint(1 << 62, (), generator=g)) for g in rng.generators]
        sizes = None if rng.sizes is None else [size for size in rng.sizes for _ in range(particles)]
        self.rows = SampleRng(0, range(len(roots) * particles), sizes, rng.axis)
        self.rows.generators = [generator(root, k) for root in roots for k in range(particles)]

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise like `like` (B * particles,*S), those of a sample one after the other."""
        return self.rows.normal(like)

    def uniform(self) -> Tensor:
        """One number in [0, 1) a sample (B,), float64 on the CPU."""
        return torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in self.samples.generators])

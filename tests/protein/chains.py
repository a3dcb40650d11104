"""Backbones made from angles, and lines of files."""

import math

import numpy as np
import torch

from zoo.protein.geometry import build


def chain(n, phi=-60.0, psi=-45.0, seed=None):
    """A backbone (n, 3, 3) of n residues with these angles, all alike or with a seed scattered by 25 degrees."""
    angles = torch.tensor([phi, psi, 180.0]).mul(math.pi / 180).double().repeat(n, 1)
    if seed is not None:
        spread = torch.tensor([25.0, 25.0, 3.0]).mul(math.pi / 180)
        angles = angles + spread * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    x = build(angles)
    return (x - x.mean((0, 1))).numpy()


def put(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def atoms_of(lines, residues):
    """The ATOM lines of some residue numbers."""
    return [line for line in lines if line.startswith("ATOM") and int(line[22:26]) in residues]


def changed(lines, start, text):
    """Lines with `text` from column `start` (0-based) on."""
    return [line[:start] + text + line[start + len(text) :] for line in lines]


def mirrored(x):
    return x * np.array([1.0, 1.0, -1.0])

"""Weights in eight bits: whole numbers from -127 to 127, with one scale for each row of a matrix.

A row is what makes one output: all weights of one channel of a convolution, or of one feature of a linear layer. The largest
weight of a row is 127 scales, so that no weight is off by more than half a scale: of a row of normal numbers about a
hundredth of their deviation. Vectors (biases, norms) and small matrices stay as they are: they weigh nothing.

In a file, `name` holds the whole numbers (int8) in the weight's own shape and `name.scale8` the scales (float32, one a row).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from zoo.errors import CheckpointError

#: what a scale is called in a file, after the name of its weight
SCALE = ".scale8"
#: the largest whole number
MOST = 127
#: a weight of fewer numbers stays as it is
LEAST = 1024


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a file holds them: large float matrices (rows, ...) in eight bits, the others as they are."""
    found: dict[str, Tensor] = {}
    for name, w in weights.items():
        if not w.is_floating_point() or w.ndim < 2 or w.numel() < LEAST:
            found[name] = w
            continue
        rows = w.detach().float().reshape(len(w), -1)
        scale = rows.abs().amax(1) / MOST
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # a row of zeros
        found[name] = (rows / scale[:, None]).round().clamp(-MOST, MOST).to(torch.int8).reshape(w.shape)
        found[name + SCALE] = scale
    return found


def unpack(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights (float32) of what `pack` gave, the others as they are.

    Raises:
        CheckpointError: scales without their weights, or that do not fit them.
    """
    found = {k: v for k, v in tensors.items() if not k.endswith(SCALE)}
    for key in tensors.keys() - found.keys():
        name, scale = key.removesuffix(SCALE), tensors[key]
        w = found.get(name)
        if w is None or w.dtype != torch.int8 or w.ndim < 2 or scale.shape != (len(w),) or scale.dtype != torch.float32:
            raise CheckpointError(f"{path} does not fit its config: {key} is not the scale of the rows of int8 {name}.")
        found[name] = w.float() * scale.reshape(-1, *[1] * (w.ndim - 1))
    return found

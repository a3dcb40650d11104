"""The golden output of a model: what its net says to fixed inputs, stored with the weights and computed again by `verify`."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo import files
from zoo.core import seeds
from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from zoo.model.model import Model


def golden_inputs(model: Model) -> dict[str, Tensor]:
    """Two rows of noise, the second without its conditions and, where samples have sizes, with padding."""
    g = seeds.generator(0)
    x = torch.randn(2, *model.codec.shape, generator=g)
    inputs = {"x_t": x, "t": model.diffusion.schedule.draw(2, g).t.float(), "drop": torch.tensor([False, True])}
    if model.codec.size_name is not None:
        N = model.codec.shape[0]
        inputs["mask"] = torch.arange(N) < torch.tensor([[N], [max(1, 3 * N // 4)]])
    inputs |= {f"cond.{k}": torch.arange(2) % len(c.values) for k, c in model.recipe.labels.items()}
    return inputs | {f"cond.{k}": torch.randn(2, *c.shape, generator=g) for k, c in model.recipe.arrays.items()}


@torch.no_grad()
def golden_output(model: Model, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the net says to the inputs, float32 on the CPU, 0 in the padding."""
    moved = {k: v.to(model.device, model.dtype) if v.is_floating_point() else v.to(model.device) for k, v in inputs.items()}
    cond, mask = {k[5:]: v for k, v in moved.items() if k.startswith("cond.")}, moved.get("mask")
    out = model.denoiser(moved["x_t"], moved["t"], cond, drop=moved["drop"], mask=mask)
    if mask is not None:  # what a net says of padding means nothing
        out = out.masked_fill(~mask.view(*mask.shape, *[1] * (out.ndim - 2)), 0.0)
    return out.float().cpu()


def difference(model: Model, folder: str | PathLike[str]) -> float:
    """The largest difference of the net's output from the folder's golden one, relative to that one's size.

    Raises:
        CheckpointError: the difference is above 1e-3 (0.05 in half precision), or there is no whole golden file.
    """
    path = Path(folder) / files.GOLDEN
    golden = files.load_tensors(path)
    missing = {*golden_inputs(model), "out"} - golden.keys()
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}.")
    expected = golden.pop("out")
    error = float((golden_output(model, golden) - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    limit = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.05
    if not error <= limit:
        raise CheckpointError(f"{folder}: the net differs from its golden output by {error:.1e} (allowed {limit:g}).")
    return error

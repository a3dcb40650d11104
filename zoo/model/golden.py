"""The golden output of a model: what its net says to fixed inputs, stored with the weights and computed again by `verify`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import files
from zoo.core import seeds
from zoo.core.device import exact
from zoo.core.guidance import drop
from zoo.errors import CheckpointError

#: before the name of a condition
COND = "cond."


def golden_inputs(model: Any) -> dict[str, Tensor]:
    """Two rows of noise, the second without its conditions and, where samples have sizes, with padding.

    Files hold the conditions of both rows, and `drop` says which row does without them.
    """
    rng, codec = seeds.generator(0), model.codec
    x = torch.randn(2, *codec.shape, generator=rng)
    t = model.diffusion.schedule.draw(2, rng).t.float()
    inputs = {"x_t": x, "t": t, "drop": torch.tensor([False, True])}
    if codec.size_name is not None:
        size = codec.shape[codec.size_axis]
        inputs["mask"] = torch.arange(size) < torch.tensor([[size], [max(1, 3 * size // 4)]])
    return inputs | {f"{COND}{k}": c.example(2, rng) for k, c in model.recipe.conditions.items()}


@torch.no_grad()
def golden_output(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the net says to the inputs, float32 on the CPU, 0 in the padding."""
    moved = {k: v.to(model.device) for k, v in inputs.items()}
    cond = {k.removeprefix(COND): v for k, v in moved.items() if k.startswith(COND)}
    mask = moved.get("mask")
    x_t = moved["x_t"].to(model.wide)
    out = model.diffusion.ask(model.denoiser, x_t, moved["t"], drop(cond, moved["drop"]), mask=mask)
    if mask is not None:  # what a net says of padding means nothing
        out = out.masked_fill(~model.codec.spread(mask, out.ndim), 0.0)
    return out.float().cpu()


@torch.no_grad()
def golden_outputs(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is stored: "out", what the net says, and of a latent model "lowered", the first row through its first stage."""
    with exact() if model.device.type == "cuda" else nullcontext():
        found = {"out": golden_output(model, inputs)}
        if model.codec.inner is not model.codec:
            found["lowered"] = model.codec.lower(inputs["x_t"][:1].to(model.device, model.wide)).float().cpu()
    return found


def difference(model: Any, folder: str | PathLike[str]) -> float:
    """The largest difference of the net's output from the folder's golden one, relative to that one's size.

    Raises:
        CheckpointError: the difference is above 1e-3 (0.05 in half precision), or there is no whole golden file.
    """
    path = Path(folder) / files.GOLDEN
    stored, own = files.load_tensors(path), golden_inputs(model)
    names = ["out"] if model.codec.inner is model.codec else ["out", "lowered"]
    if missing := {*own, *names} - stored.keys():
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}.")
    expected = {name: stored.pop(name) for name in names}
    files.check_tensors(stored, own, path, exact=True)
    try:
        found = golden_outputs(model, stored)
    except IndexError as error:  # a condition that the model has not
        raise CheckpointError(f"{path} is not of this model: {error}.") from error
    limit, most = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.05, 0.0
    for name in names:
        wanted, came = expected[name], found[name]
        if wanted.shape != came.shape or wanted.dtype != came.dtype:
            what = "output" if name == "out" else "lowered latents"
            raise CheckpointError(
                f"{path}: its {what} {tuple(wanted.shape)} is not of this model, which gives {tuple(came.shape)}."
            )
        off = float((came - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))
        if not off <= limit:
            what = "net" if name == "out" else "first stage"
            raise CheckpointError(f"{folder}: the {what} differs from its golden output by {off:.1e} (allowed {limit:g}).")
        most = max(most, off)
    return most

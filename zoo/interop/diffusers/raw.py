"""Pipelines of diffusers on raw sound: Dance Diffusion (Harmonai 2022), a UNet1DModel that makes samples of one channel or two.

The net is diffusers' own class. The same class, of other blocks, plans trajectories in reinforcement learning (Janner et al.
2022, "Planning with diffusion for flexible behavior synthesis"): those are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo import files
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain
from zoo.core.diffusion import Diffusion
from zoo.errors import CheckpointError
from zoo.interop.diffusers.folder import CONFIG, INDEX, STEM, Pipeline, about, how_to_convert, process_of
from zoo.interop.diffusers.peer import described
from zoo.interop.diffusers.schedulers import IPNDM
from zoo.interop.origin import read_origin
from zoo.interop.reading import Options, checked, looked_up, read_weights, shapes_in, weights_in
from zoo.model.budget import limited
from zoo.model.model import Model

PIPELINE, NET = "DanceDiffusionPipeline", "UNet1DModel"
#: what a recipe calls the codec, and the net
KIND, DENOISER = "waveform", "diffusers-class"
#: the blocks of nets of sound, and of those of trajectories
DOWN = ("DownBlock1DNoSkip", "DownBlock1D", "AttnDownBlock1D")
UP = ("AttnUpBlock1D", "UpBlock1D", "UpBlock1DNoSkip")
MIDDLE = "UNetMidBlock1D"
TRAJECTORIES = ("DownResnetBlock1D", "UpResnetBlock1D", "MidResTemporalBlock1D", "ValueFunctionMidBlock1D", "ValueFunction")
#: the tensor of Fourier times, of half as many numbers as there are features of a time
FOURIER = "time_proj.weight"
#: options that each version writes, and their kinds
FIRST = {
    "sample_size": "whole", "sample_rate": "whole", "in_channels": "whole", "out_channels": "whole",
    "extra_in_channels": "count", "time_embedding_type": "text", "flip_sin_to_cos": "flag", "freq_shift": "number",
    "down_block_types": "texts", "up_block_types": "texts", "block_out_channels": "wholes",
}  # fmt: skip
#: options that came later -> (kind, what was so before)
LATER: dict[str, tuple[str, Any]] = {
    "use_timestep_embedding": ("flag", False), "mid_block_type": ("text", MIDDLE), "out_block_type": ("text?", None),
    "act_fn": ("text?", None), "norm_num_groups": ("whole?", 8), "layers_per_block": ("whole", 1),
    "downsample_each_block": ("flag", False), "time_embedding_dim": ("whole?", None),
}  # fmt: skip


def raw_sound(pipeline: Pipeline, diffusion: Diffusion | None = None) -> Model:
    """The model of a pipeline of a UNet1DModel and a scheduler, or of such a net alone.

    Args:
        diffusion: in place of what the scheduler's file says.

    Raises:
        CheckpointError: a net of trajectories, something that is missing or that we do not know; the message names it.
        ConfigError: diffusers is not installed.
    """
    part, index = pipeline.parts["unet"], pipeline.folder / INDEX
    path = part.folder / CONFIG
    refuse_trajectories(pipeline)
    if odd := sorted(k for k in pipeline.index if not k.startswith("_")):
        shown = ", ".join(f"{k}={pipeline.index[k]!r}"[:100] for k in odd[:5])
        raise CheckpointError(f"{index} has options of a {PIPELINE} that zoo does not know: {shown}.")
    if odd := sorted(pipeline.parts.keys() - {"unet", "scheduler"}):
        raise CheckpointError(f"{pipeline.folder} holds {pipeline.found}; not supported: {', '.join(odd)}.")
    scheduler = pipeline.part("scheduler")
    if pipeline.class_name == PIPELINE and scheduler is not None and scheduler.class_name != IPNDM:
        raise CheckpointError(
            f"{index}: a {PIPELINE} with a {scheduler.class_name}: earlier versions of diffusers make an {IPNDM} of any "
            "other, and which of the two was meant is not known. Make it that one."
        )
    origin, process = read_origin(pipeline.folder), process_of(pipeline, diffusion)
    paths = weights_in(part.folder, STEM, how_to_convert(part))
    shapes = shapes_in(paths)
    config = read_config(part.config, shapes, path)
    channels = config["in_channels"]
    further: dict[str, Any] = {k: v for k, v in (("time_scale", process.time_scale), ("sign", process.sign)) if v != 1}
    recipe = Recipe.parse(
        {
            "name": origin.name,
            "domain": "audio",
            "description": about(pipeline, origin, process.notes),
            "licence": origin.licence,
            "data": origin.data,
            "codec": {
                "kind": KIND,
                "sample_rate": config["sample_rate"],
                "samples": config["sample_size"],
                "channels": channels,
            },
            "denoiser": DENOISER,
            "net": described(NET, config) | further,
            "schedule": process.schedule,
            "diffusion": process.of_net(channels, config["out_channels"], path),
            "sampling": process.sampling,
        }
    )
    with limited({f"denoiser.net.{k}": v for k, v in shapes.items()}, part.folder, weights=paths[0].name):
        try:
            model = Model(recipe, get_domain("audio"), filled=False)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise CheckpointError(f"{path}: a {NET} cannot be made of it: {error}.") from error
    files.load_strict(model.denoiser, {f"net.{k}": v for k, v in read_weights(paths).items()}, paths[0])
    _try(model, config, path)
    return model


def refuse_trajectories(pipeline: Pipeline) -> None:
    """Refuse nets of reinforcement learning, whose folders look alike.

    Raises:
        CheckpointError: it is one, or its folder holds a value function.
    """
    given = pipeline.parts["unet"].config
    said: list[Any] = [given.get("mid_block_type"), given.get("out_block_type")]
    for key in ("down_block_types", "up_block_types"):
        said += list(given[key]) if isinstance(given.get(key), list | tuple) else []
    found = [name for name in TRAJECTORIES if name in said]
    if "value_function" in pipeline.parts:
        found.append("a value_function")
    if found:
        what = "of the value of trajectories" if "ValueFunction" in found else "of trajectories (states and actions)"
        raise CheckpointError(
            f"{pipeline.parts['unet'].folder} holds a {NET} with {', '.join(found)}: a net {what} in reinforcement learning, "
            "as bglick13/hopper-medium-v2-unet, which is not supported: no file beside it says what its numbers are and how "
            "they are scaled, and zoo's policies are nets that are told observations. Supported: nets of sound, with "
            f"{', '.join(DOWN)}."
        )


def read_config(given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path) -> dict[str, Any]:
    """All options of a UNet1DModel of sound.

    Args:
        shapes: of the weights, which say how many Fourier features a time has where the file was written before there was a
            choice.
        path: of the options, for messages.

    Raises:
        CheckpointError: an option that is missing, of another kind, unknown or not supported.
    """
    o = Options(given, NET, path)
    config = {k: o.needed(k) for k in FIRST} | {k: o.later(k, before) for k, (_, before) in LATER.items()}
    o.end()
    checked(config, FIRST | {k: kind for k, (kind, _) in LATER.items()}, NET, path)
    for key, blocks in (("down_block_types", DOWN), ("up_block_types", UP)):
        for name in config[key]:
            looked_up(name, dict.fromkeys(blocks), f"{key} of the {NET} in {path}")
    kind = config["time_embedding_type"]
    looked_up(kind, dict.fromkeys(("fourier", "positional")), f"time_embedding_type of the {NET} in {path}")
    for key, allowed in (("mid_block_type", MIDDLE), ("out_block_type", None), ("use_timestep_embedding", False)):
        if config[key] != allowed:
            raise CheckpointError(
                f"{path}: {key}={config[key]!r} of a {NET} of sound is not supported. Supported: {allowed!r}."
            )
    if "time_embedding_dim" not in given and kind == "fourier":
        if len(found := shapes.get(FOURIER, ())) != 1:
            raise CheckpointError(f"{path.parent} holds no tensor {FOURIER}, which a {NET} with Fourier times has.")
        config["time_embedding_dim"] = 2 * found[0]
    channels, size = config["in_channels"], config["sample_size"]
    if channels not in (1, 2) or config["out_channels"] != channels:
        raise CheckpointError(
            f"{path}: in_channels={channels}, out_channels={config['out_channels']}; zoo has sounds of 1 channel or 2, and as "
            "many come out as go in."
        )
    factor = 2 ** len(config["up_block_types"])
    if size % factor or size < 3 * factor:
        raise CheckpointError(
            f"{path}: sample_size={size}; its {len(config['up_block_types'])} levels need a multiple of {factor}, from "
            f"{3 * factor} on (theirs makes more samples than that and cuts them)."
        )
    return config


@torch.no_grad()
def _try(model: Model, config: Mapping[str, Any], path: Path) -> None:
    """Refuse blocks that do not fit together, which is found out in a call alone: of as few samples as the net takes."""
    x = torch.zeros(1, config["in_channels"], 4 * 2 ** len(config["up_block_types"]))
    try:
        out = model.denoiser(x, torch.ones(1), {})
    except (RuntimeError, IndexError) as error:
        raise CheckpointError(f"{path}: the blocks of its {NET} do not fit together: {error}.") from error
    if out.shape != x.shape:
        raise CheckpointError(
            f"{path}: its {NET} makes {out.shape[-1]} samples of {x.shape[-1]}: its blocks do not fit together."
        )


def is_raw(recipe: Recipe) -> bool:
    """Whether a model is one of raw sound whose net is that class."""
    named = recipe.denoiser == DENOISER and recipe.net.get("class_name") == NET
    return recipe.domain == "audio" and recipe.codec.get("kind") == KIND and named

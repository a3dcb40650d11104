"""Pipelines of diffusers on mel pictures: sounds as grey pictures (teticio's audio-diffusion).

`AudioDiffusionPipeline` is a UNet2DModel and a scheduler, as those of pictures are, and `Mel`, which says how a clip becomes
such a picture and back. Its options become those of the audio domain's codec `mel-picture`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.contract.recipe import Recipe
from zoo.errors import CheckpointError
from zoo.interop.diffusers.folder import INDEX, MEL, Pipeline
from zoo.interop.reading import Options, checked, read_object

PIPELINE, MEL_CONFIG = "AudioDiffusionPipeline", "mel_config.json"
#: what a recipe calls the codec
KIND = "mel-picture"
#: option of theirs -> (ours, what it may be); each version writes all of them
OPTIONS = {
    "x_res": ("frames", "whole"), "y_res": ("mels", "whole"), "sample_rate": ("sample_rate", "whole"),
    "n_fft": ("n_fft", "whole"), "hop_length": ("hop", "whole"), "top_db": ("range_db", "positive"),
    "n_iter": ("iterations", "whole"),
}  # fmt: skip


def read_mel(pipeline: Pipeline) -> dict[str, Any] | None:
    """The options of the codec of a pipeline of sounds; None for one of pictures.

    Raises:
        CheckpointError: a part of such a pipeline that is missing or not supported, or an option that is missing, unknown or
            of another kind; the message names it.
    """
    part, index = pipeline.part("mel"), pipeline.folder / INDEX
    if part is None and pipeline.class_name != PIPELINE:
        return None
    if part is None or pipeline.class_name != PIPELINE:
        raise CheckpointError(f"{index} holds {pipeline.found}: a {PIPELINE} and a part mel ({MEL}) belong together.")
    if part.class_name != MEL:
        raise CheckpointError(f"{index}: its mel is a {part.class_name}; supported: {MEL}.")
    if (stage := pipeline.part("vqvae")) is not None:
        raise CheckpointError(
            f"{index}: its vqvae is a {stage.class_name}: sounds as latents are not supported. Supported: a vqvae that is null."
        )
    if odd := sorted(k for k in pipeline.index if not k.startswith("_")):
        shown = ", ".join(f"{k}={pipeline.index[k]!r}"[:100] for k in odd[:5])
        raise CheckpointError(f"{index} has options of a {PIPELINE} that zoo does not know: {shown}.")
    path = part.folder / MEL_CONFIG
    data = read_object(path)
    if (found := data.get("_class_name", MEL)) != MEL:
        raise CheckpointError(f"{path} is that of a {found}; {INDEX} says {MEL}.")
    o = Options(data, MEL, path)
    given = {name: o.needed(name) for name in OPTIONS}
    o.end()
    checked(given, {name: kind for name, (_, kind) in OPTIONS.items()}, MEL, path)
    return {"kind": KIND} | {ours: given[name] for name, (ours, _) in OPTIONS.items()}


def fitting(mel: Mapping[str, Any], size: Any, channels: Any, path: Path) -> Mapping[str, Any]:
    """The codec's options, where a net is one of such pictures.

    Args:
        size, channels: `sample_size` and `in_channels` of the net.
        path: of its config, for messages.

    Raises:
        CheckpointError: pictures of another shape, or in colour.
    """
    sides = size if isinstance(size, list) else [size, size]
    wanted = [mel["mels"], mel["frames"]]
    if sides != wanted or any(isinstance(n, bool) for n in sides):
        raise CheckpointError(
            f"{path}: sample_size={size!r}, and the pictures of its mel have y_res={wanted[0]} and x_res={wanted[1]}: which of "
            "the two the net was trained on is not known. Make them one."
        )
    if channels != 1 or isinstance(channels, bool):
        raise CheckpointError(f"{path}: in_channels={channels!r}; mel pictures have 1.")
    return mel


def mel_of(recipe: Recipe) -> dict[str, Any] | None:
    """The options of `Mel` for a model's codec; None where it is another codec."""
    if recipe.domain != "audio" or recipe.codec.get("kind") != KIND:
        return None
    return {name: recipe.codec[ours] for name, (ours, _) in OPTIONS.items()}

"""The model folder: config.json, model.safetensors, golden.safetensors, README.md. Strict to read, atomic to write."""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from zoo import files
from zoo.contract.recipe import Recipe
from zoo.errors import CheckpointError
from zoo.hub.card import model_card, place, renew
from zoo.model.golden import golden_inputs, golden_output

FORMAT_VERSION = 1


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder, its format version checked."""
    if not folder.is_dir():
        raise CheckpointError(f"no model folder at {folder}. A folder has {files.CONFIG} and {files.WEIGHTS}.")
    path = folder / files.CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a model folder: it has no {files.CONFIG}.") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(version, int) or "recipe" not in config:
        raise CheckpointError(f"{path} is not a zoo config: it needs format_version and recipe.")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}; this zoo reads up to {FORMAT_VERSION}. "
            "Upgrade: pip install -U diffusion-zoo."
        )
    return config


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a model folder."""
    return Recipe.parse(read_config(folder)["recipe"])


def fill(model: Any, folder: Path) -> None:
    """The weights of a folder into a model: a missing or extra key or a wrong shape is an error."""
    path = folder / files.WEIGHTS
    tensors = files.load_tensors(path)
    for prefix, part in (("denoiser.", model.denoiser), ("codec.", model.codec)):
        own = {k.removeprefix(prefix): tensors.pop(k) for k in list(tensors) if k.startswith(prefix)}
        files.load_strict(part, own, path)
    if tensors:
        raise CheckpointError(f"{path} has foreign keys: {', '.join(sorted(tensors)[:5])}.")


def save(model: Any, folder: Path, *, half: bool = False, card: str | None = None) -> Path:
    """Write a model's folder, see `zoo.Model.save_pretrained`."""
    old = folder / files.CARD
    if card is None:  # a text that somebody wrote stays
        own = model_card(model.recipe, domain=model.domain, source=place(folder), parts=list(model.own_parts or ()))
        card = renew(old.read_bytes().decode() if old.is_file() else "", own)
    weights = {f"denoiser.{k}": v for k, v in model.denoiser.state_dict().items()}
    if half:
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    weights |= {f"codec.{k}": v for k, v in model.codec.state_dict().items()}
    inputs = golden_inputs(model)
    config = {
        "format_version": FORMAT_VERSION,
        "recipe": model.recipe.model_dump(mode="json"),
        "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
    }
    with files.new_folder(folder) as new, rounded(model, half) as stored:
        files.save_tensors(new / files.WEIGHTS, weights)
        files.save_tensors(new / files.GOLDEN, {**inputs, "out": golden_output(stored, inputs)})
        files.write_atomic(new / files.CARD, card.encode())
        files.write_atomic(new / files.CONFIG, files.dump_json(config))
    return folder


@contextmanager
def rounded(model: Any, half: bool) -> Iterator[Any]:
    """The model as its file will hold it: with `half` a copy whose weights are rounded; the model itself stays as it is."""
    if not half:
        yield model
        return
    stored = copy.copy(model)
    stored.__dict__ = model.__dict__ | {"_modules": dict(model._modules)}
    stored.denoiser = copy.deepcopy(model.denoiser)
    weights = stored.denoiser.state_dict()
    stored.denoiser.load_state_dict({k: v.half().to(v.dtype) if v.is_floating_point() else v for k, v in weights.items()})
    yield stored

"""The model folder: config.json, model.safetensors, golden.safetensors, README.md. Strict to read, atomic to write."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from zoo import files
from zoo.contract.recipe import Recipe
from zoo.contract.registry import packaged_folder
from zoo.disk import CHECKPOINT
from zoo.errors import CheckpointError, ConfigError
from zoo.hub.card import model_card, place, renew
from zoo.model import eightbit, first_stage, unfinished
from zoo.model.golden import golden_inputs, golden_outputs

FORMAT_VERSION = 2
#: the files whose hashes config.json holds, from format 2 on
HASHED = (files.GOLDEN, files.WEIGHTS)
T = TypeVar("T")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder, its format version and, from format 2 on, its own hash checked.

    Its hashes of the other files are the key `sha256` {name: hex digits}; format 1 has none.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no model folder at {folder}. A folder has {files.CONFIG} and {files.WEIGHTS}.")
    files.settle(folder)
    path = folder / files.CONFIG
    if not path.exists():
        raise CheckpointError(f"{folder} is not a model folder: it has no {files.CONFIG}.")
    config, hashes = files.read_sealed(path, FORMAT_VERSION)
    if not isinstance(config.get("recipe"), dict):
        raise CheckpointError(f"{path} is not a zoo config: it has no recipe.")
    if hashes is not None:
        if set(hashes) != set(HASHED):
            raise CheckpointError(f"{path} holds the hashes of {', '.join(hashes) or 'nothing'}, not of {', '.join(HASHED)}.")
        config[files.HASH] = hashes
    return config


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a model folder, or of a training run's folder that holds no finished model yet."""
    files.settle(folder)
    if (folder / CHECKPOINT).exists() and not (folder / files.CONFIG).exists():
        return unfinished.read_recipe(folder)
    return Recipe.parse(read_config(folder)["recipe"])


def check_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder whose weights or golden file are not those that its config.json was written with."""
    for name, digest in config.get(files.HASH, {}).items():
        files.check_hash(folder / name, digest)


def undisturbed(folder: Path, read: Callable[[], T]) -> T:
    """The result of reading a model folder, all of one save: where another process saves there meanwhile, it is read again."""
    for _ in range(20):
        before = _stamps(folder)
        try:
            found = read()
        except CheckpointError:
            files.settle(folder)
            if _stamps(folder) == before:
                raise
        else:
            if _stamps(folder) == before:
                return found
    raise CheckpointError(f"{folder} is written again and again while it is read. Wait for the run that saves there.")


def _stamps(folder: Path) -> list[tuple[int, ...] | None]:
    """What tells one state of a folder's files from the next."""
    found: list[tuple[int, ...] | None] = []
    for name in (files.CONFIG, *HASHED):
        try:
            stat = (folder / name).stat()
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


def fill(model: Any, folder: Path) -> None:
    """The weights of a folder into a model: a missing or extra key or a wrong shape is an error."""
    path = folder / files.WEIGHTS
    tensors = eightbit.unpack(files.load_tensors_metadata(path, mapped=True)[0], path)
    latent = isinstance(model.codec, first_stage.Latent)
    if latent and not any(k.startswith(first_stage.PREFIX) for k in tensors):
        tensors |= packaged_stage(model.recipe, path)
    for prefix, part in (("denoiser.", model.denoiser), ("codec.", model.codec)):
        own = {k.removeprefix(prefix): tensors.pop(k) for k in list(tensors) if k.startswith(prefix)}
        files.load_strict(part, own, path)
    if tensors:
        raise CheckpointError(f"{path} has foreign keys: {', '.join(sorted(tensors)[:5])}.")
    if latent:
        model.codec.seal()


def without_stage(folder: Path) -> bool:
    """Whether a folder is that of a latent model whose first stage lies elsewhere, in the package."""
    if read_recipe(folder).stage is None:
        return False
    return not any(k.startswith(first_stage.PREFIX) for k in files.load_shapes(folder / files.WEIGHTS))


def packaged_stage(recipe: Recipe, path: Path) -> dict[str, Tensor]:
    """The weights of a packaged model's first stage, where that is a packaged model by itself: a wheel holds them once.

    Raises:
        CheckpointError: it is not packaged.
    """
    name = "" if recipe.stage is None else recipe.stage.name
    folder = packaged_folder(name)
    if folder is None:
        raise CheckpointError(
            f"{path} lacks the weights of its first stage, {name}, and they are not packaged with zoo. Get the model again, or "
            "save it anew (save_pretrained): a folder outside of the package holds all of a model."
        )
    check_files(folder, read_config(folder))
    path = folder / files.WEIGHTS
    tensors = eightbit.unpack(files.load_tensors_metadata(path, mapped=True)[0], path)
    prefix = "denoiser."
    return {f"{first_stage.PREFIX}{k.removeprefix(prefix)}": v for k, v in tensors.items() if k.startswith(prefix)}


def save(
    model: Any,
    folder: Path,
    *,
    half: bool = False,
    bits: int | None = None,
    card: str | None = None,
    with_stage: bool = True,
    net: Mapping[str, Tensor] | None = None,
    golden: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a model's folder, see `zoo.Model.save_pretrained`.

    Args:
        net, golden: the state of the denoiser and the golden outputs, of a net that is shared out over processes.
        with_stage: False leaves the weights of a first stage out, for a packaged model on a packaged first stage.
    """
    if bits not in (None, 8, 16, 32):
        raise ConfigError(f"bits={bits!r}: give 8, 16 or 32, or None for the weights as they are.")
    if half and bits not in (None, 16):
        raise ConfigError(f"half=True and bits={bits}: half is bits=16. Give one of them.")
    bits = 16 if half else bits
    old = folder / files.CARD
    if card is None:  # a text that somebody wrote stays
        own = model_card(model.recipe, domain=model.domain, source=place(folder), parts=list(model.own_parts or ()))
        try:
            text = old.read_bytes().decode() if old.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{old} cannot be read as text, and a card that somebody wrote is kept: {error}.") from error
        card = renew(text, own)
    if net is None and any(hasattr(p, "full_tensor") for p in model.denoiser.parameters()):
        raise ConfigError(
            "the net is shared out over processes (fsdp=True), and none of them has all of it: the run has written it whole to "
            "its folder. Open that one: zoo.load(folder)."
        )
    state = files.state_of(model.denoiser) if net is None else net
    weights = {f"denoiser.{k}": v for k, v in stored_as(state, bits).items()}
    recipe = model.recipe
    if isinstance(model.codec, first_stage.Latent) and recipe.stage is not None:
        # a model that was loaded in half precision has a rounded first stage, and says so
        kept = first_stage.digest(model.codec.stage.state_dict())
        recipe = recipe.staged(recipe.stage.model_copy(update={"sha256": kept}))
    weights |= {f"codec.{k}": v for k, v in first_stage.stored(model.codec, bits in (8, 16)).items()}
    if not with_stage:
        weights = {k: v for k, v in weights.items() if not k.startswith(first_stage.PREFIX)}
    inputs = golden_inputs(model)
    config = {
        "format_version": FORMAT_VERSION,
        "recipe": recipe.model_dump(mode="json"),
        "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
    }
    with files.new_folder(folder) as new, rounded(model, bits) as stored:
        files.save_tensors(new / files.WEIGHTS, weights)
        files.save_tensors(new / files.GOLDEN, {**inputs, **(golden_outputs(stored, inputs) if golden is None else golden)})
        files.write_atomic(new / files.CARD, card.encode())
        hashes = {name: files.hash_of(new / name) for name in HASHED}
        files.write_atomic(new / files.CONFIG, files.seal(config, files.CONFIG, hashes))
    return folder


def stored_as(weights: Mapping[str, Tensor], bits: int | None) -> dict[str, Tensor]:
    """Weights as a file holds them: of 32, 16 or 8 bits (large matrices alone, the rest 16), or None for as they are."""
    if bits == 8:
        weights = eightbit.pack(weights)
    dtype = {None: None, 8: torch.float16, 16: torch.float16, 32: torch.float32}[bits]
    whole = dtype is None
    return {
        k: v if whole or not v.is_floating_point() or k.endswith(eightbit.SCALE) else v.to(dtype) for k, v in weights.items()
    }


@contextmanager
def rounded(model: Any, bits: int | None) -> Iterator[Any]:
    """The model as its file will hold it: a copy whose weights are rounded; the model itself stays as it is."""
    if bits is None:
        yield model
        return
    stored = copy.copy(model)
    stored.__dict__ = model.__dict__ | {"_modules": dict(model._modules)}
    stored.denoiser = copy.deepcopy(model.denoiser)
    weights = stored.denoiser.state_dict()
    read = eightbit.unpack(stored_as(weights, bits), Path(files.WEIGHTS))
    stored.denoiser.load_state_dict({k: v.to(weights[k].dtype) for k, v in read.items()})
    yield stored

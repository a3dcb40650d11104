"""Model files, in and out: safetensors, strict to read, and what `zoo.disk` does for all files. Knows no model.

JSON and safetensors only: nothing here can run code from a file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.disk import (
    BLOCK,
    CONFIG,
    HASH,
    SAVED,
    alive,
    born_at,
    check_hash,
    clear_leftovers,
    disk_errors,
    dump_json,
    hash_of,
    new_folder,
    opened,
    parse_json,
    path_of,
    read_json,
    read_sealed,
    replacing,
    reseal,
    seal,
    settle,
    sync_folder,
    write_atomic,
)
from zoo.errors import CheckpointError

__all__ = [
    "CARD",
    "CONFIG",
    "GOLDEN",
    "HASH",
    "SAVED",
    "WEIGHTS",
    "alive",
    "born_at",
    "check_finite",
    "check_hash",
    "check_tensors",
    "clear_leftovers",
    "disk_errors",
    "dump_json",
    "hash_of",
    "load_metadata",
    "load_sealed",
    "load_shapes",
    "load_strict",
    "load_tensors",
    "load_tensors_metadata",
    "new_folder",
    "opened",
    "parse_json",
    "path_of",
    "plain_name",
    "read_json",
    "read_sealed",
    "replacing",
    "reseal",
    "save_sealed",
    "save_tensors",
    "seal",
    "settle",
    "state_of",
    "sync_folder",
    "write_atomic",
]

WEIGHTS, GOLDEN, CARD = "model.safetensors", "golden.safetensors", "README.md"
_BLANK = "0" * 64
#: more than the header of any file of zoo has (bytes)
MOST_HEADER = 32 << 20


# ---------------------------------------------------------------- safetensors


def plain_name(key: str) -> str:
    """The name of a parameter without what `torch.compile` puts into it."""
    return key.replace("_orig_mod.", "")


def state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """The state of a module under the names that it has where it is not compiled."""
    return {plain_name(k): v for k, v in module.state_dict().items()}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Tensors to a safetensors file, atomically."""
    write_atomic(path, save(_plain(tensors), metadata))


def save_sealed(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Tensors to a safetensors file whose metadata hold the hash of all its bytes, with zeros for the hash's own digits."""
    data = memoryview(save(_plain(tensors), {**metadata, HASH: _BLANK}))
    place = bytes(data[: 8 + int.from_bytes(data[:8], "little")]).index(_own_hash(_BLANK)) + len(_own_hash(""))
    digest = hashlib.sha256(data).hexdigest().encode()
    write_atomic(path, data[: place - 1], digest, data[place - 1 + len(digest) :])


def _own_hash(digest: str) -> bytes:
    return f'"{HASH}":"{digest}"'.encode()


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def load_sealed(path: Path, *, mapped: bool = False) -> tuple[dict[str, Tensor], dict[str, str], bool]:
    """Tensors and metadata of a file of `save_sealed`, its hash checked, and whether it has one: older files have none.

    Args:
        mapped: as for `load_tensors_metadata`.
    """
    digest = load_metadata(path).get(HASH)
    if digest is not None:
        found, text = hashlib.sha256(), _own_hash(digest)
        with opened(path) as file:
            length = file.read(8)
            header = file.read(int.from_bytes(length, "little"))
            if len(digest) != 64 or header.count(text) != 1:
                raise CheckpointError(f"{path} is damaged: its metadata hold no hash of it.")
            found.update(length)
            found.update(header.replace(text, _own_hash(_BLANK)))
            while block := file.read(BLOCK):
                found.update(block)
        if found.hexdigest() != digest:
            raise CheckpointError(f"{path} is damaged: it is not the file that was saved (another SHA-256).")
    tensors, metadata = load_tensors_metadata(path, mapped=mapped)
    if metadata.pop(HASH, None) != digest:
        raise CheckpointError(f"{path} was replaced while it was read. Read it again.")
    return tensors, metadata, digest is not None


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; anything else there is a CheckpointError."""
    return load_tensors_metadata(path)[0]


def load_tensors_metadata(path: Path, *, mapped: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and the metadata of their file.

    Args:
        mapped: leave the tensors in the file, for one who copies them at once: a change on the disk shows in them.
    """
    with _opened(path) as file:
        found = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  # not a dict
        return found if mapped else {k: v.clone() for k, v in found.items()}, file.metadata() or {}


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file alone: no tensor is read."""
    with _opened(path) as file:
        return file.metadata() or {}


def load_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a safetensors file's tensors, from its header alone."""
    with _opened(path) as file:
        return {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118  # not a dict


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file; one that is not there, not whole or of another kind is a CheckpointError."""
    try:
        with opened(path) as file:
            start = file.read(9)
            size = os.fstat(file.fileno()).st_size
        # a safetensors file starts with the length of its header, whose bytes may be a pickle's mark; then comes the header
        if start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
            raise CheckpointError(f"{path} is a pickle, which can run code: zoo never opens one. Convert it to safetensors.")
        if MOST_HEADER < (header := int.from_bytes(start[:8], "little")) < size:
            raise CheckpointError(f"{path} has a header of {header} bytes, more than any model needs: it is not read.")
        with safe_open(path, "pt") as tensors:
            yield tensors
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the model folder is not complete.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or is not a safetensors file ({error}). Get it again.") from error
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        # of a shape that no memory holds, or a dtype that this torch does not have
        raise CheckpointError(f"{path} holds a tensor that cannot be read ({error}). Get it again.") from error


#: what weights may be stored as: anything else is refused, narrower numbers are no weights of zoo
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_strict(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path, *, exact: bool = False) -> None:
    """Fill a module; a missing or extra key, a wrong shape or kind of number is an error that names it.

    Args:
        exact: take only the module's own dtypes; else half precision is widened, and double precision narrowed.
    """
    own = module.state_dict()
    names = {plain_name(k): k for k in own}
    given = {plain_name(k): v for k, v in tensors.items()}
    check_tensors(given, {k: own[names[k]] for k in names}, path, exact=exact)
    filled = {names[k]: v.to(own[names[k]].dtype) for k, v in given.items()}
    check_finite(filled, path)
    module.load_state_dict(filled)


def check_tensors(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path, *, exact: bool = False) -> None:
    """Refuse tensors of other names, shapes or kinds of numbers than `own`; all that is wrong is one error."""
    problems = [f"missing {k}" for k in own.keys() - tensors.keys()]
    problems += [f"unexpected {k}" for k in tensors.keys() - own.keys()]
    for k in own.keys() & tensors.keys():
        found, needed = tensors[k], own[k]
        if found.shape != needed.shape:
            problems.append(f"{k} has shape {tuple(found.shape)}, the model needs {tuple(needed.shape)}")
        elif found.dtype != needed.dtype and (exact or not {found.dtype, needed.dtype} <= set(FLOATS)):
            widths = "" if exact or needed.dtype not in FLOATS else " (or another of float16 to float64)"
            problems.append(f"{k} has dtype {_dtype(found)}, the model needs {_dtype(needed)}{widths}")
    if problems:
        shown = "; ".join(sorted(problems)[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{path} does not fit its {CONFIG}: {shown}.")


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse infinities and NaN."""
    for key, value in tensors.items():
        if not _finite(value):
            raise CheckpointError(f"{path}: {plain_name(key)} holds values that are not finite.")


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _finite(x: Tensor) -> bool:
    """Whether all values are finite. A sum tells it in one pass; one that overflows is looked at again, value by value."""
    if not x.is_floating_point() and not x.is_complex():
        return True
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())

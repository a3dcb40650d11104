"""Files, in and out: atomic writes, JSON, safetensors. Strict to read; knows no model, only the names of its files.

JSON and safetensors only: nothing here can run code from a file.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.errors import CheckpointError, ResourceError

CONFIG, WEIGHTS, GOLDEN, CARD = "config.json", "model.safetensors", "golden.safetensors", "README.md"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a refused write into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(f"no room on the disk to write {path}. Nothing was changed there; free some space.") from error
        raise ResourceError(f"cannot write {path}: {error.strerror or error}. Nothing was changed there.") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the new one, never a part."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        # not mkstemp, whose files only their owner can read, nor chmod: the user's umask decides who may read a file
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(handle, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(name, path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise


def dump_json(data: Any) -> bytes:
    """Readable JSON that is the same for the same data."""
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Tensors to a safetensors file, atomically."""
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_atomic(path, save(plain, metadata))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; anything else there is a CheckpointError."""
    return load_tensors_metadata(path)[0]


def load_tensors_metadata(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and the metadata of their file."""
    with _opened(path) as file:
        # copies: the file is mapped into memory, where a change on the disk would show
        return {k: file.get_tensor(k).clone() for k in file.keys()}, file.metadata() or {}  # noqa: SIM118  # not a dict


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file alone: no tensor is read."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file; one that is not there, not whole or of another kind is a CheckpointError."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        # a safetensors file starts with the length of its header, whose bytes may be a pickle's mark; then comes the header
        if start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
            raise CheckpointError(f"{path} is a pickle, which can run code: zoo never opens one. Convert it to safetensors.")
        with safe_open(path, "pt") as tensors:
            yield tensors
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the model folder is not complete.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or is not a safetensors file ({error}). Get it again.") from error


def load_strict(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill a module; a missing or extra key or a wrong shape is an error that names it. Half precision is widened."""
    own = module.state_dict()
    problems = [f"missing {k}" for k in own.keys() - tensors.keys()]
    problems += [f"unexpected {k}" for k in tensors.keys() - own.keys()]
    problems += [
        f"{k} has shape {tuple(tensors[k].shape)}, the model needs {tuple(own[k].shape)}"
        for k in own.keys() & tensors.keys()
        if own[k].shape != tensors[k].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{path} does not fit its {CONFIG}: {shown}.")
    for key, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {key} holds values that are not finite.")
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()})


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files replace those of `folder` when the block ends well; else nothing changes there."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"cannot save a model to {folder}: it is a file. Give a folder.")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".saving-"))
        try:
            yield temporary
            # config.json last: without it a folder is not a model
            for path in sorted(temporary.iterdir(), key=lambda p: p.name == CONFIG):
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

"""Checkpoints that are pickles, for programs that make safetensors of them: zoo itself opens none."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import CheckpointError


def opened(path: Path, stand_ins: Iterable[tuple[Any, str]] = ()) -> Any:
    """What torch's weights-only loader reads: tensors and plain containers.

    Args:
        stand_ins: (a class of ours, the full name of somebody's for which it stands): what the file has of that class becomes
            an object of ours, and nothing of theirs is imported or runs.

    Raises:
        CheckpointError: the file is missing, or holds something else.
    """
    try:
        # files of torch before 1.6 are no zip archives, and are read whole
        with torch.serialization.safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    except Exception as error:  # the loader ends in many
        said = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} is not read: torch's weights-only loader refuses it ({said}).") from None


def state(found: Any, path: Path) -> dict[str, Tensor]:
    """A state of a net.

    Raises:
        CheckpointError: something else, or a tensor that is none of plain numbers in memory.
    """
    if not isinstance(found, dict) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise CheckpointError(f"{path} holds no state of a net.")
    for key, tensor in found.items():
        if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
            raise CheckpointError(f"{path}: {key} is sparse, quantised or without numbers; weights are plain tensors.")
        # a view with steps of 0 repeats its numbers: a small file could be written as terabytes
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: {key} has shape {tuple(tensor.shape)} and fewer numbers than that.")
    return {str(k): v for k, v in found.items()}

"""What a dataset is, as one hash: the same data in another folder have the same, other data of the same number have not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.core import seeds

#: samples that are looked at, of larger datasets always the same ones
SAMPLED = 256
#: samples that are looked at twice, to learn whether a dataset gives the same each time
TWICE = 3


def fingerprint(dataset: Dataset, codec: Codec) -> str | None:
    """The SHA-256 of a dataset: number, labels, sizes, the names and sizes of its files, and the content of `SAMPLED` samples.

    Args:
        codec: encodes objects that are no arrays and have no `numpy()`.

    Returns: None for data that are other ones each time they are read.
    """
    found, count = hashlib.sha256(), len(dataset)
    _add(found, [count, {k: list(v) for k, v in dataset.labels.items()}, dataset.sizes(), _names(dataset)])
    rows = list(range(count))
    if count > SAMPLED:
        rows = sorted(torch.randperm(count, generator=seeds.generator(0))[:SAMPLED].tolist())
    for k, i in enumerate(rows):
        digest = _item(dataset[i], codec)
        if k < TWICE and _item(dataset[i], codec) != digest:
            return None
        found.update(digest)
    return found.hexdigest()


def _item(item: tuple[Any, dict[str, Any]], codec: Codec) -> bytes:
    content, conditions = item
    found = hashlib.sha256()
    _add(found, content, codec)
    _add(found, conditions)
    return found.digest()


def _names(dataset: Dataset) -> list[list[Any]]:
    """Name and size of every file of a dataset that has one a sample, as they are below the folder that holds all of them."""
    paths = getattr(dataset, "files", None)
    if not isinstance(paths, (list, tuple)) or not paths or not all(isinstance(p, Path) for p in paths):
        return []
    try:
        top = os.path.commonpath([p.parent for p in paths])
        return [[os.path.relpath(p, top), p.stat().st_size] for p in paths]
    except (OSError, ValueError):
        return []


def _add(found: Any, value: Any, codec: Codec | None = None) -> None:
    """Take a value into a hash, so that no two different ones leave the same bytes."""
    if isinstance(value, Mapping):
        found.update(b"{%d" % len(value))
        for key in sorted(value, key=str):
            _add(found, str(key))
            _add(found, value[key])
    elif isinstance(value, (list, tuple)):
        found.update(b"[%d" % len(value))
        for part in value:
            _add(found, part)
    elif isinstance(value, (bytes, str)):
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        found.update(b"%s%d:" % (type(value).__name__.encode(), len(raw)) + raw)
    elif value is None or isinstance(value, (bool, int, float)):
        found.update(repr(value).encode() + b";")
    elif isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous()
        _bytes(found, str(flat.dtype), tuple(flat.shape), flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        _bytes(found, value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
    elif callable(getattr(value, "numpy", None)):
        _add(found, np.asarray(value.numpy()))
    elif hasattr(value, "__array_interface__"):  # a picture of PIL
        _add(found, np.asarray(value))
    elif codec is not None:
        _add(found, codec.encode(value))
    else:
        _add(found, repr(value) if type(value).__repr__ is not object.__repr__ else type(value).__name__)


def _bytes(found: Any, kind: str, shape: tuple[int, ...], data: bytes) -> None:
    found.update(f"{kind}{shape}".encode() + data)

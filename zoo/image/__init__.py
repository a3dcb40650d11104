"""Images: Fashion-MNIST and folders of pictures."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: public name -> where it lives; lazily, so that the recipes can be listed without loading torch
_PUBLIC = {"DOMAIN": "domain", "mask": "steers", "low_resolution": "steers", "colour": "steers"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"zoo.image.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'zoo.image' has no attribute {name!r}")

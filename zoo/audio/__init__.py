"""Audio: spoken digits and words, and folders of anybody's recordings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: public name -> where it lives; lazily, so that the recipes can be listed without loading torch
_PUBLIC = {"DOMAIN": "domain", "continuation": "steers", "gap": "steers", "band": "steers", "loudness": "steers"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"zoo.audio.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'zoo.audio' has no attribute {name!r}")

"""Audio: spoken digits and words, and folders of anybody's recordings."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # lazily, so that the recipes can be listed without loading torch
    if name == "DOMAIN":
        from zoo.audio.domain import DOMAIN

        return DOMAIN
    raise AttributeError(f"module 'zoo.audio' has no attribute {name!r}")

"""Audio: spoken digits and words, and folders of anybody's recordings."""

from __future__ import annotations

from typing import Any

#: what `zoo.audio.steers` has for users
_STEERS = ("continuation", "gap", "band", "loudness")


def __getattr__(name: str) -> Any:
    # lazily, so that the recipes can be listed without loading torch
    if name == "DOMAIN":
        from zoo.audio.domain import DOMAIN

        return DOMAIN
    if name in _STEERS:
        from zoo.audio import steers

        return getattr(steers, name)
    raise AttributeError(f"module 'zoo.audio' has no attribute {name!r}")

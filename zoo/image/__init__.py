"""Images: Fashion-MNIST and folders of pictures."""

from __future__ import annotations

from typing import Any

#: what `zoo.image.steers` has for users
_STEERS = ("mask", "low_resolution", "colour")


def __getattr__(name: str) -> Any:
    # lazily, so that the recipes can be listed without loading torch
    if name == "DOMAIN":
        from zoo.image.domain import DOMAIN

        return DOMAIN
    if name in _STEERS:
        from zoo.image import steers

        return getattr(steers, name)
    raise AttributeError(f"module 'zoo.image' has no attribute {name!r}")

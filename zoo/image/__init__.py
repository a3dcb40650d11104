"""Images: Fashion-MNIST and folders of pictures."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # lazily, so that the recipes can be listed without loading torch
    if name == "DOMAIN":
        from zoo.image.domain import DOMAIN

        return DOMAIN
    raise AttributeError(f"module 'zoo.image' has no attribute {name!r}")

"""Proteins: backbones of small domains, and folders of anybody's structures."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # lazily, so that the recipes can be listed without loading torch
    if name == "DOMAIN":
        from zoo.protein.domain import DOMAIN

        return DOMAIN
    raise AttributeError(f"module 'zoo.protein' has no attribute {name!r}")

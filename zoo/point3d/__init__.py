"""3D: point clouds of everyday shapes, and folders of anybody's meshes."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # lazily, so that the recipes can be listed without loading torch
    if name == "DOMAIN":
        from zoo.point3d.domain import DOMAIN

        return DOMAIN
    raise AttributeError(f"module 'zoo.point3d' has no attribute {name!r}")

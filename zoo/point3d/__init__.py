"""3D: point clouds of everyday shapes, and folders of anybody's meshes."""

from __future__ import annotations

from typing import Any

#: what `zoo.point3d.steers` has for users
_STEERS = ("Camera", "depth_view", "box", "mirror")


def __getattr__(name: str) -> Any:
    # lazily, so that the recipes can be listed without loading torch
    if name == "DOMAIN":
        from zoo.point3d.domain import DOMAIN

        return DOMAIN
    if name in _STEERS:
        from zoo.point3d import steers

        return getattr(steers, name)
    raise AttributeError(f"module 'zoo.point3d' has no attribute {name!r}")

"""3D: point clouds of everyday shapes, and folders of anybody's meshes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: public name -> where it lives; lazily, so that the recipes can be listed without loading torch
_PUBLIC = {"DOMAIN": "domain", "Camera": "steers", "depth_view": "steers", "box": "steers", "mirror": "steers"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"zoo.point3d.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'zoo.point3d' has no attribute {name!r}")

"""Robot policies: actions from observations, by receding-horizon diffusion."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: public name -> where it lives; lazily, so that the recipes can be listed without loading torch
_PUBLIC = {"DOMAIN": "domain", "Obstacle": "steers", "avoid": "steers", "goal": "steers", "speed_limit": "steers"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"zoo.policy.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'zoo.policy' has no attribute {name!r}")

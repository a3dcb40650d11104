"""Robot policies: actions from observations, by receding-horizon diffusion."""

from __future__ import annotations

from typing import Any

#: what `zoo.policy.steers` has for users
_STEERS = ("Obstacle", "avoid", "goal", "speed_limit")


def __getattr__(name: str) -> Any:
    # lazily, so that the recipes can be listed without loading torch
    if name == "DOMAIN":
        from zoo.policy.domain import DOMAIN

        return DOMAIN
    if name in _STEERS:
        from zoo.policy import steers

        return getattr(steers, name)
    raise AttributeError(f"module 'zoo.policy' has no attribute {name!r}")

"""Packages of the extras: imported where they are needed, and missed with one clear error."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from zoo.errors import ConfigError


def need(module: str, extra: str) -> Any:
    """An imported module of a package that `extra` installs; where it is missing, a ConfigError that names the extra."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(f'{package} is needed ({error}): pip install "diffusion-zoo[{extra}]".') from None

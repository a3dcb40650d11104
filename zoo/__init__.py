"""zoo: the diffusion model zoo that goes beyond images.

zoo.load("image/fashion-ddpm").sample(n=4)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

#: public name -> where it lives. Imported on first use, so that `import zoo` loads no torch.
_PUBLIC = {
    "list_models": "zoo.contract.registry",
    "register": "zoo.contract.registry",
    "info": "zoo.model.loading",
    "create": "zoo.model.loading",
    "load": "zoo.model.loading",
    "train": "zoo.training.train",
    "fit": "zoo.training.train",
    "evaluate": "zoo.evaluation.evaluate",
    "Model": "zoo.model.model",
    "Chain": "zoo.model.chain",
    "Recipe": "zoo.contract.recipe",
    "ZooError": "zoo.errors",
}
#: public name -> the module that it is
_MODULES = {"steer": "zoo.core.steer", "testing": "zoo.testing"}
#: rooms whose own steers are used by name, such as zoo.policy.avoid
_MODULES |= {room: f"zoo.{room}" for room in ("audio", "image", "point3d", "policy", "protein")}

__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _PUBLIC:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}. It has: {', '.join(__all__)}.")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

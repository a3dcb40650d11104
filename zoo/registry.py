"""Names -> recipes and packaged weights. Domains are found through the entry-point group `zoo.domains`."""

from __future__ import annotations

import fnmatch
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, UnknownModelError, one_of

if TYPE_CHECKING:
    from zoo.domain import Domain
    from zoo.model import Model
    from zoo.recipe import Recipe

CHECKPOINTS = Path(__file__).parent / "checkpoints"
BUILT_IN = {"audio": "zoo.audio:DOMAIN", "image": "zoo.image:DOMAIN"}


@dataclass(frozen=True)
class Card:
    """What is known of a registered model without loading it."""

    name: str
    domain: str
    description: str
    packaged: bool
    config: dict[str, Any]
    evaluation: dict[str, Any] | None

    def __str__(self) -> str:
        from zoo.card import metrics_table

        lines = [self.name, f"  {self.description}", f"  weights: {'packaged' if self.packaged else 'on the Hub or untrained'}"]
        for name, c in self.config.get("conditions", {}).items():
            lines.append(f"  {name}: {', '.join(c['values']) if c['kind'] == 'label' else c['shape']}")
        if self.evaluation:
            lines += ["", metrics_table(self.evaluation)]
        return "\n".join(lines)


def domain_names() -> list[str]:
    """The names of all installed domains."""
    return sorted(_targets())


@cache
def _targets() -> dict[str, str]:
    # the package's own domains need no installed metadata, so that a source tree works as it is
    return BUILT_IN | {e.name: e.value for e in entry_points(group="zoo.domains")}


@cache
def get_domain(name: str) -> Domain:
    """The plug-in of this name."""
    if name not in _targets():
        raise one_of("domain", name, domain_names())
    module, _, attribute = _targets()[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


@cache
def _recipes(domain: str) -> Mapping[str, Recipe]:
    # a domain's `recipes` module loads no torch, so that names can be listed at once
    return importlib.import_module(f"{_targets()[domain].partition(':')[0]}.recipes").RECIPES


def _packaged() -> dict[str, Path]:
    return {f"{p.parent.parent.name}/{p.parent.name}": p.parent for p in sorted(CHECKPOINTS.glob("*/*/config.json"))}


def _recipe_names(pattern: str, domain: str | None) -> list[str]:
    names = {f"{d}/{m}" for d in domain_names() for m in _recipes(d)}
    if domain is not None and domain not in domain_names():
        raise one_of("domain", domain, domain_names())
    return sorted(n for n in names if fnmatch.fnmatch(n, pattern) and domain in (None, n.split("/")[0]))


def list_models(pattern: str = "*", domain: str | None = None) -> list[str]:
    """The names of all models, e.g. list_models("image/*"), list_models(domain="image")."""
    return _recipe_names(pattern, domain)


def _known(name: str) -> str:
    names = list_models()
    if name not in names:
        raise one_of("model", name, names, UnknownModelError)
    return name


def get_recipe(name: str) -> Recipe:
    """The recipe of a registered model."""
    domain, _, model = _known(name).partition("/")
    return _recipes(domain)[model]


def info(name: str) -> Card:
    """The card of a registered model."""
    recipe = get_recipe(name)
    folder = _packaged().get(name)
    report = folder / "evaluation.json" if folder else None
    evaluation = json.loads(report.read_text(encoding="utf-8")) if report and report.exists() else None
    return Card(name, recipe.domain, recipe.description, folder is not None, recipe.model_dump(mode="json"), evaluation)


def create(name: str, **overrides: Any) -> Model:
    """An untrained model of a registered recipe; overrides are dotted recipe paths: create(n, **{"net.channels": 32})."""
    from zoo.model import Model

    recipe = get_recipe(name).override(overrides)
    return Model(recipe, get_domain(recipe.domain))


def load(source: str, device: Any = None, dtype: Any = None) -> Model:
    """Load a model.

    Args:
        source: a registry name ("image/fashion-ddpm"), a folder (starts with "/", "." or "~", or exists with a
            config.json), or later a Hub repository ("hub:owner/name@revision").
        device, dtype: where and in which dtype to put the weights.
    """
    from zoo.model import Model

    text = str(source)
    if text.startswith("hub:"):
        raise ConfigError("loading from the Hub is not part of this version yet; give a registry name or a folder.")
    if isinstance(source, Path) or text.startswith(("/", ".", "~")) or text not in list_models():
        folder = Path(text).expanduser()
        if isinstance(source, Path) or text.startswith(("/", ".", "~")) or (folder / "config.json").exists():
            return Model.from_folder(folder, device=device, dtype=dtype)
    packaged = _packaged().get(_known(text))
    if packaged is None:
        raise UnknownModelError(f"{text!r} has no packaged weights yet. Train it: zoo train {text} --data DIR --out runs/mine.")
    return Model.from_folder(packaged, device=device, dtype=dtype)

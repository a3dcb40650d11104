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

from zoo.errors import CheckpointError, HubError, UnknownModelError, one_of

if TYPE_CHECKING:
    from zoo.contract.domain import Domain
    from zoo.contract.recipe import Recipe
    from zoo.model.model import Model

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
BUILT_IN = {name: f"zoo.{name}:DOMAIN" for name in ("audio", "image", "point3d", "policy", "protein")}


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
        from zoo.hub.card import metrics_table

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


def packaged_folder(name: str) -> Path | None:
    """The folder of a model's packaged weights, if it has any."""
    return _packaged().get(name)


def info(name: str) -> Card:
    """The card of a registered model, of a model folder or of a repository ("hub:owner/name[@revision]")."""
    folder: Path | None
    if name.startswith("hub:") or _is_folder(name):
        from zoo import files
        from zoo.contract.recipe import Recipe
        from zoo.hub import client as hub

        folder = hub.pull(name, ("evaluation.json",)) if name.startswith("hub:") else Path(name).expanduser()
        recipe, packaged = Recipe.parse(files.read_config(folder)["recipe"]), False
    else:
        recipe, folder = get_recipe(name), packaged_folder(name)
        packaged = folder is not None
    evaluation = read_evaluation(folder) if folder else None
    return Card(name, recipe.domain, recipe.description, packaged, recipe.model_dump(mode="json"), evaluation)


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """evaluation.json of a model folder, or None where it has none; another content is a CheckpointError."""
    path = folder / "evaluation.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = all({"value", "better"} <= m.keys() for m in found["metrics"].values()) and isinstance(found["protocol"], dict)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise CheckpointError(f"{path} is no evaluation of zoo (metrics and their protocol). Make it: zoo eval --json.")
    return dict(found)


def _is_folder(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or (name not in list_models() and (Path(name) / "config.json").exists())


def create(name: str, **overrides: Any) -> Model:
    """An untrained model of a registered recipe; overrides are dotted recipe paths: create(n, **{"net.channels": 32})."""
    recipe = get_recipe(name).override(overrides)
    return get_domain(recipe.domain).model(recipe)


def load(
    source: str | Path,
    device: Any = None,
    dtype: Any = None,
    *,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Model:
    """Load a model.

    Args:
        source: a registry name ("image/fashion-ddpm"), a folder (starts with "/", "." or "~", or exists with a
            config.json), or a Hub repository ("hub:owner/name", "hub:owner/name@revision"). A registry name without
            packaged weights is looked for on the Hub, see `zoo.hub.address.namespace`.
        device, dtype: where and in which dtype to put the weights.
        token: for the Hub: an access token; None is the user's own, if any, False is none.
        local_files_only: make no request: the Hub's files must be in the cache.
    """
    from zoo.model.model import Model

    folder = locate(source, token=token, local_files_only=local_files_only)
    return Model.from_folder(folder, device=device, dtype=dtype)


def locate(source: str | Path, *, token: str | bool | None = None, local_files_only: bool = False) -> Path:
    """The folder of a model that is given as for `load`; from the Hub it is fetched first."""
    text = str(source)
    if isinstance(source, Path) or _is_folder(text):
        return Path(text).expanduser()
    folder = None if text.startswith("hub:") else packaged_folder(_known(text))
    if folder is not None:
        return folder
    from zoo.hub import client as hub
    from zoo.hub.address import GOLDEN, WEIGHTS

    try:
        return hub.pull(text, (WEIGHTS, GOLDEN), token=token, local_files_only=local_files_only)
    except HubError as error:
        if text.startswith("hub:"):
            raise
        raise HubError(
            f"{text!r} has no packaged weights, and the Hub gave none: {error} Or train it: zoo train {text} --data DIR "
            "--out runs/mine. $ZOO_HUB_NAMESPACE names another owner of the registry's models."
        ) from None

"""Names: domains, recipes, packaged weights. Knows no model and loads no torch."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.contract.recipe import Recipe
from zoo.disk import read_json
from zoo.errors import CheckpointError, ConfigError, UnknownModelError, one_of

if TYPE_CHECKING:
    from zoo.contract.codec import Codec
    from zoo.contract.domain import Domain

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
BUILT_IN = {name: f"zoo.{name}:DOMAIN" for name in ("audio", "image", "point3d", "policy", "protein")}
#: domains that a program registered
_REGISTERED: dict[str, Domain] = {}


def register(domain: Domain) -> Domain:
    """Add a domain to this process, without packaging it; its recipes are then found by name. Returns the domain.

    Raises:
        ConfigError: another domain has the name.
    """
    name = domain.name
    if name in _targets() or _REGISTERED.get(name, domain) is not domain:
        raise ConfigError(f"there is already a domain {name!r}. Give yours another name.")
    _REGISTERED[name] = domain
    return domain


def unregister(name: str) -> None:
    """Take a domain away that `register` added; of others nothing is changed."""
    _REGISTERED.pop(name, None)


def domain_names() -> list[str]:
    """The names of all domains: installed ones, and those that a program registered."""
    return sorted({*_targets(), *_REGISTERED})


@cache
def _targets() -> dict[str, str]:
    # the package's own domains need no installed metadata, so that a source tree works as it is
    return BUILT_IN | {e.name: e.value for e in entry_points(group="zoo.domains")}


def get_domain(name: str) -> Domain:
    """The plug-in of this name."""
    return _REGISTERED[name] if name in _REGISTERED else _installed(name)


@cache
def _installed(name: str) -> Domain:
    if name not in _targets():
        raise one_of("domain", name, domain_names())
    module, _, attribute = _targets()[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _recipes(domain: str) -> Mapping[str, Recipe]:
    """The recipes of a domain. A package's module `recipes` loads no torch, so that names can be listed at once."""
    if domain in _REGISTERED:
        return _REGISTERED[domain].recipes()
    package = _targets()[domain].partition(":")[0]
    try:
        return importlib.import_module(f"{package}.recipes").RECIPES
    except ModuleNotFoundError as error:
        if error.name != f"{package}.recipes":
            raise
        return get_domain(domain).recipes()  # a plug-in of one file


def _packaged() -> dict[str, Path]:
    return {f"{p.parent.parent.name}/{p.parent.name}": p.parent for p in sorted(CHECKPOINTS.glob("*/*/config.json"))}


def list_models(pattern: str = "*", domain: str | None = None) -> list[str]:
    """The names of all models, e.g. list_models("image/*"), list_models(domain="image")."""
    if domain is not None and domain not in domain_names():
        raise one_of("domain", domain, domain_names())
    names = {f"{d}/{m}" for d in domain_names() if domain in (None, d) for m in _recipes(d)}
    return sorted(n for n in names if fnmatch.fnmatch(n, pattern))


def known(name: str) -> str:
    """The name itself, or an UnknownModelError with the nearest ones."""
    names = list_models()
    if name not in names:
        raise one_of("model", name, names, UnknownModelError)
    return name


def get_recipe(name: str) -> Recipe:
    """The recipe of a registered model."""
    domain, _, model = known(name).partition("/")
    return _recipes(domain)[model]


def packaged_folder(name: str) -> Path | None:
    """The folder of a model's packaged weights, if it has any."""
    return _packaged().get(name)


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """evaluation.json of a model folder, or None where it has none; another content is a CheckpointError."""
    path = folder / "evaluation.json"
    if not path.exists():
        return None
    try:
        found = read_json(path)
        whole = all(_is_metric(m) for m in found["metrics"].values()) and isinstance(found["protocol"], dict)
    except (CheckpointError, ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise CheckpointError(f"{path} is not an evaluation of zoo (metrics and their protocol). Make it: zoo eval --json.")
    return dict(found)


#: the figures of a metric, of which each is a number or None; its interval is a list of two
FIGURES = ("value", "idealised", "ceiling", "raw", "retrieval", "floor")


def _is_metric(metric: Mapping[str, Any]) -> bool:
    """Whether a metric is one: a value, what is better, and its other figures; further keys are its domain's own."""

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    interval = metric.get("interval") or [0.0, 0.0]
    fits = isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
    figures = [metric.get(k) for k in FIGURES]
    return "value" in metric and isinstance(metric["better"], str) and fits and all(f is None or is_number(f) for f in figures)


def domain_of(codec: Codec) -> Domain | None:
    """The domain that builds such codecs, if there is one; plug-ins that are not loaded are looked for by their package."""
    for name in domain_names():
        if may_define(name, type(codec).__module__):
            domain = get_domain(name)
            if type(codec) in (domain.codecs, *domain.codec_kinds.values()):
                return domain
    return None


def may_define(name: str, module: str) -> bool:
    """Whether a module may be part of a domain, so that others need not be loaded, with packages that may be missing."""
    if name not in _targets():  # a program registered it: it is loaded
        return True
    own = _targets()[name].partition(":")[0]
    if own.startswith("zoo."):
        return module.startswith(f"{own}.")
    # another package's DOMAIN may lie in any of its modules, or be all of it in one file
    return module.partition(".")[0] == own.partition(".")[0]

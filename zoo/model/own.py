"""Models of parts that a program brings itself: the recipe that says what can be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from zoo.contract.codec import Codec
from zoo.contract.conditions import Condition
from zoo.contract.domain import Domain, OwnDomain
from zoo.contract.recipe import Recipe, Sampling, Training
from zoo.contract.registry import domain_of
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import SCHEDULES, Schedule
from zoo.errors import ConfigError, one_of
from zoo.model.first_stage import Latent
from zoo.values import plain_data

#: what a recipe calls a net, and a domain, that only their author has
OWN = "own"


def own_domain() -> Domain:
    """The domain of codecs that belong to no plug-in."""
    return OwnDomain(OWN)


def own_recipe(
    diffusion: Diffusion,
    net: nn.Module,
    codec: Codec,
    name: str,
    conditions: Mapping[str, Condition] | None,
    domain: Domain | None,
    sampling: Sampling | None,
    training: Training | None,
) -> tuple[Recipe, Domain]:
    """The recipe and the domain of a model of own parts; arguments as for `zoo.Model.of`.

    Raises:
        ConfigError: parts of the wrong kind.
    """
    check_parts(diffusion=diffusion, net=net, codec=codec)
    found = domain or domain_of(codec.inner) or own_domain()
    options = dict(codec.inner.options) | ({"kind": codec.inner.kind} if codec.inner.kind else {})
    if isinstance(codec, Latent):
        options["stage"] = codec.seal().spec.model_dump(mode="json")
    data: dict[str, Any] = {
        "name": name,
        "domain": found.name,
        "description": f"A model of {type(net).__name__} and {type(codec).__name__}.",
        "codec": {} if found.name == OWN else plain_data(options),
        "denoiser": OWN,
        "conditions": dict(conditions or {}),
        "schedule": {"kind": kind_of(diffusion.schedule), **diffusion.schedule.options},
        "diffusion": {
            "prediction": diffusion.prediction,
            "weighting": diffusion.weighting,
            "sigma_data": diffusion.sigma_data,
            "precondition": diffusion.precondition,
            "self_condition": diffusion.self_condition,
            "learned_variance": diffusion.learned_variance,
        },
        "sampling": sampling or Sampling(),
        "training": training or Training(),
    }
    return Recipe.parse(data), found


def check_parts(**parts: Any) -> None:
    """Refuse parts of the wrong kind: diffusion, net, codec."""
    kinds = {"diffusion": Diffusion, "net": nn.Module, "codec": Codec}
    for name, part in parts.items():
        if name not in kinds:
            raise one_of("part", name, kinds)
        if isinstance(part, type):
            raise ConfigError(f"{name}: the class {part.__name__}; give an instance of it: {part.__name__}(...).")
        if not isinstance(part, kinds[name]):
            raise ConfigError(f"{name}: a {type(part).__name__}; give a {kinds[name].__name__}.")


def check_diffusion(recipe: Recipe, diffusion: Diffusion) -> None:
    """Refuse a diffusion that is not the recipe's: weights that were trained on another one would make noise."""
    for name, wanted in recipe.diffusion.model_dump().items():
        if (found := getattr(diffusion, name)) != wanted:
            raise ConfigError(f"diffusion: {name}={found!r}, but the model was trained with {wanted!r}.")
    kind = kind_of(diffusion.schedule)
    if kind != recipe.schedule.kind:
        raise ConfigError(f"diffusion: a schedule {kind!r}, but the model was trained with {recipe.schedule.kind!r}.")


def kind_of(schedule: Schedule) -> str:
    """What a recipe calls a schedule: its registered name; that of the class for one that no registry has.

    A subclass inherits the name of its parent, and a recipe that gave it would build the parent.
    """
    kind = schedule.kind
    return kind if kind in SCHEDULES and SCHEDULES[kind] is type(schedule) else type(schedule).__name__

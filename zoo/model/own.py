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
from zoo.errors import ConfigError
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
    for what, part, kind in (("diffusion", diffusion, Diffusion), ("net", net, nn.Module), ("codec", codec, Codec)):
        if not isinstance(part, kind):
            raise ConfigError(f"{what}: a {type(part).__name__}; give a {kind.__name__}.")
    found = domain or domain_of(codec) or own_domain()
    data: dict[str, Any] = {
        "name": name,
        "domain": found.name,
        "description": f"A model of {type(net).__name__} and {type(codec).__name__}.",
        "codec": {} if found.name == OWN else plain_data(codec.options),
        "denoiser": OWN,
        "conditions": dict(conditions or {}),
        "schedule": {"kind": diffusion.schedule.kind or type(diffusion.schedule).__name__, **diffusion.schedule.options},
        "diffusion": {
            "prediction": diffusion.prediction,
            "weighting": diffusion.weighting,
            "sigma_data": diffusion.sigma_data,
            "precondition": diffusion.precondition,
            "self_condition": diffusion.self_condition,
        },
        "sampling": sampling or Sampling(),
        "training": training or Training(),
    }
    return Recipe.parse(data), found

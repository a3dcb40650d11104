"""Chains: each model makes its sample from that of the model before, such as large pictures from small ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from zoo.contract.codec import Codec
from zoo.contract.domain import Domain
from zoo.contract.recipe import Recipe
from zoo.contract.samples import Samples
from zoo.core import seeds
from zoo.errors import ConfigError, ShapeError, one_of
from zoo.model.model import Model
from zoo.values import several

#: the stream of seeds of the models after the first
STAGES = 5
#: arguments of the whole chain, which no stage has of its own
SHARED = ("n", "seed")


class Chain:
    """Models one after the other (cascaded diffusion, Ho et al. 2022): one `sample` call, one seed.

    Args:
        models: the first makes samples by itself; each other one has a condition of the kind "sample" (`SmallSample`), which is
            given what the model before it made.

    Attributes:
        models: as given.
        links: of each model after the first the name of that condition.

    Raises:
        ConfigError: fewer than two models, one without such a condition or with several, or models of several domains.
        ShapeError: a model whose samples are not those that the next one takes.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        found = several(models) or []
        if len(found) < 2 or not all(isinstance(m, Model) for m in found):
            raise ConfigError(f"a chain of {models!r}: give two models or more, the first one first.")
        if len({m.recipe.domain for m in found}) > 1:
            raise ConfigError(f"a chain of the domains {', '.join(m.recipe.domain for m in found)}: give models of one.")
        self.models: list[Model] = found
        self.links = [self._link(before, model) for before, model in pairwise(found)]

    @staticmethod
    def _link(before: Model, model: Model) -> str:
        """The name of the condition that takes the sample of the model before."""
        takes = [k for k, c in model.recipe.conditions.items() if c.derived]
        if len(takes) != 1:
            kinds = ", ".join(f"{k} ({c.kind})" for k, c in model.recipe.conditions.items()) or "none"
            raise ConfigError(
                f"{model!r} cannot follow another model: of its conditions ({kinds}) one must be of the kind 'sample', a "
                "smaller sample, see zoo.contract.small."
            )
        given, wanted = before.codec.inner.shape, tuple(getattr(model.recipe.conditions[takes[0]], "shape", ()))
        fits = len(given) == len(wanted) and given[0] == wanted[0]
        if not fits or any(a % b for a, b in zip(given[1:], wanted[1:], strict=True)):
            raise ShapeError(f"{before!r} makes samples {given}, and {model!r} takes {wanted}.")
        return takes[0]

    def __repr__(self) -> str:
        return f"Chain({', '.join(f'{m.recipe.domain}/{m.recipe.name}' for m in self.models)})"

    @property
    def recipe(self) -> Recipe:
        """That of the last model, as domain and codec are: by them `evaluate` measures a chain like a model."""
        return self.models[-1].recipe

    @property
    def domain(self) -> Domain:
        return self.models[-1].domain

    @property
    def codec(self) -> Codec:
        return self.models[-1].codec

    @property
    def conditions(self) -> list[str]:
        """What a sample can be asked to be: the conditions of all models but those that take a sample of another one."""
        names = [k for m in self.models for k in m.recipe.conditions]
        return [k for k in dict.fromkeys(names) if k not in self.links]

    def sample(
        self,
        n: int = 1,
        *,
        seed: int | None = None,
        stages: Sequence[Mapping[str, Any]] | None = None,
        **conditions: Any,
    ) -> Samples:
        """n samples of the last model, each made from that of the model before.

        Args:
            n, seed: as of `Model.sample`: sample i of a seed is the same whatever n is.
            stages: further arguments of each model's `sample`, such as [{"steps": 25}, {"steps": 8}].
            **conditions: each is given to every model that has it.

        Raises:
            ConfigError: an unknown condition, arguments for another number of models, and as `Model.sample`.
        """
        *_, last = self.sample_iter(n, seed=seed, stages=stages, **conditions)
        return last

    def sample_iter(
        self,
        n: int = 1,
        *,
        seed: int | None = None,
        stages: Sequence[Mapping[str, Any]] | None = None,
        **conditions: Any,
    ) -> Iterator[Samples]:
        """The samples of each model, one after the other; arguments and errors as `sample`."""
        given: list[Mapping[str, Any]] = [{}] * len(self.models) if stages is None else list(several(stages) or [])
        if len(given) != len(self.models) or not all(isinstance(g, Mapping) for g in given):
            raise ConfigError(f"stages={stages!r}: give {len(self.models)} dictionaries, one for each model of {self!r}.")
        for options in given:
            for name in options:
                if name in (*SHARED, *self.links):
                    raise ConfigError(f"stages: {name!r} is the chain's; give it once, or leave it out.")
        for name in conditions:
            if name not in self.conditions:
                raise one_of(f"condition of {self!r}", name, self.conditions)
        first = seeds.check_seed(seed)
        made: Samples | None = None
        for k, (model, options) in enumerate(zip(self.models, given, strict=True)):
            asked = {name: v for name, v in conditions.items() if name in model.recipe.conditions}
            if made is not None:
                asked[self.links[k - 1]] = made
            own = first if k == 0 else seeds.derive_seed(first, STAGES, k) >> 1
            made = model.sample(n, seed=own, **{**asked, **options})
            yield made

"""One call of `model.sample`, planned: every argument checked, every default of the recipe filled in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.core import seeds
from zoo.core.guidance import Guidance, is_null
from zoo.core.samplers import churn, get_sampler
from zoo.core.schedule import Level
from zoo.errors import ConfigError, ShapeError, one_of

if TYPE_CHECKING:
    from zoo.contract.domain import Codec
    from zoo.contract.recipe import Recipe
    from zoo.core.schedule import Schedule

#: streams of random numbers that free conditions and sizes are drawn from, never that of a sample's noise
DRAWN, SIZE = 1, 2
#: arguments of `model.sample` that every model takes, beside its conditions and the sampler's own options
COMMON = ("spacing", "guidance_interval", "guidance_rescale", "clip", "guess_below")
#: and those that samplers with churn take for it, see `zoo.core.samplers.churn`
CHURN = ("s_churn", "s_min", "s_max")


@dataclass(frozen=True)
class Plan:
    """One call of `sample`.

    Attributes:
        cond: {name: (n,) int64 or (n, *shape) float32} what the net is told; `null_like` where nothing is.
        names: {name: n labels} the labels in the user's words, None for nothing.
        sizes: how many elements (points, residues) each sample has; None where all have the codec's shape.
    """

    n: int
    seed: int
    batch_size: int
    sampler: str
    levels: list[Level]
    guidance: Guidance
    clip: float | None
    options: dict[str, Any]
    cond: dict[str, Tensor]
    names: dict[str, list[Any]]
    sizes: list[int] | None = None
    guess_below: float = math.inf

    def after(self, strength: float) -> Plan:
        """The last share `strength` of the steps."""
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 < strength <= 1:
            raise ConfigError(f"strength={strength!r}: give a share of the steps, above 0 (no change) up to 1 (all new).")
        steps = len(self.levels) - 1
        start = steps - max(1, round(strength * steps))
        options = {k: v[start:] if k == "churned" else v for k, v in self.options.items()}
        return replace(self, levels=self.levels[start:], options=options)


def make_plan(recipe: Recipe, schedule: Schedule, codec: Codec, n: int, arguments: Mapping[str, Any]) -> Plan:
    """The plan of n samples.

    Args:
        arguments: those of `Model.sample` that say what to sample and how; None stands for one that was not given.

    Raises:
        ConfigError: any argument that cannot be.
    """
    default, given = recipe.sampling, {k: v for k, v in arguments.items() if v is not None or k == "clip"}
    batch_size = given.pop("batch_size", 1)
    for what, value in (("n", n), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{what}={value!r}: give a whole number of at least 1.")
    batch_size = batch_size if "batch_size" in arguments and arguments["batch_size"] is not None else min(n, 64)
    seed = seeds.check_seed(given.pop("seed", None))
    name = given.pop("sampler", default.sampler)
    chosen = get_sampler(name)
    names = {k: _labels(recipe, k, given.pop(k, None), n, seed) for k in recipe.labels}
    arrays = {k: _array(recipe, codec, k, given.pop(k, None), n) for k in recipe.arrays}
    sizes = None if codec.size_name is None else _sizes(codec, given.pop(codec.size_name, None), n, seed)
    guidance = _guidance(recipe, given)
    levels = schedule.levels(given.pop("steps", default.steps), given.pop("spacing", default.spacing))
    clip = given.pop("clip", default.clip)
    if clip is not None and not clip > 0:
        raise ConfigError(f"clip={clip!r}: give a positive bound of x0, or None for no clipping.")
    below = given.pop("guess_below", default.guess_below)
    if below is not None and not below >= 0:
        raise ConfigError(f"guess_below={below!r}: give a noise level sigma / alpha of at least 0.")
    options = dict(default.options) if name == default.sampler else {}
    strength = {k: given.pop(k, options.pop(k, None)) for k in CHURN} if "churned" in chosen.options else {}
    for key in given:
        if key not in chosen.options:
            known = [*COMMON, *chosen.options, *recipe.conditions, *([codec.size_name] if codec.size_name else [])]
            raise one_of(f"argument or condition of {recipe.domain}/{recipe.name}", key, sorted(known))
    options |= given
    if strength.get("s_churn"):
        options["churned"] = churn(schedule, levels, **{k: v for k, v in strength.items() if v is not None})
    cond = arrays | {
        k: torch.tensor([-1 if v is None else recipe.labels[k].index(k, v) for v in values]) for k, values in names.items()
    }
    if all(is_null(c).all() for c in cond.values()):
        guidance = Guidance()  # nothing is asked for: the null rows would be guided away from themselves
    below = math.inf if below is None else below
    return Plan(n, seed, batch_size, name, levels, guidance, clip, options, cond, names, sizes, below)


def _guidance(recipe: Recipe, given: dict[str, Any]) -> Guidance:
    """The guidance asked for, or the recipe's; takes its arguments out of `given`."""
    default = recipe.sampling
    weight, scale = given.pop("guidance_weight", None), given.pop("guidance_scale", None)
    asked = [k for k, v in (("guidance_weight", weight), ("guidance_scale", scale)) if v is not None]
    if asked and not recipe.conditions:
        raise ConfigError(f"{' and '.join(asked)}: this model is unconditional, there is nothing to guide. Leave it out.")
    joint, each = Guidance.from_public(weight, scale, default.guidance_weight)
    for key in each:
        if key not in recipe.conditions:
            raise one_of("condition to guide", key, recipe.conditions)
    interval = given.pop("guidance_interval", default.guidance_interval) or (0.0, float("inf"))
    return Guidance(joint, tuple(interval), given.pop("guidance_rescale", default.guidance_rescale), each)


def _labels(recipe: Recipe, name: str, value: Any, n: int, seed: int) -> list[Any]:
    """A condition as n label names: one for all, a list of n, or None for a free choice.

    A free one is None, the learned null, or where the recipe says so a label that sample i draws for itself: the same
    whatever n and batch size.
    """
    spec, place = recipe.labels[name], list(recipe.labels).index(name)
    values = list(value) if isinstance(value, (list, tuple)) else [value] * n
    if len(values) != n:
        raise ConfigError(f"{name}: {len(values)} values for n={n} samples; give one, or a list of {n}.")

    def drawn(i: int) -> str | None:
        if spec.free == "drop":
            return None
        return spec.values[int(torch.randint(len(spec.values), (), generator=seeds.generator(seed, i, DRAWN, place)))]

    return [drawn(i) if v is None else spec.values[spec.index(name, v)] for i, v in enumerate(values)]


def _array(recipe: Recipe, codec: Codec, name: str, value: Any, n: int) -> Tensor:
    """An array condition in encoded units (n, *shape): one value for all samples, or n of them; NaN where it is left out."""
    shape = recipe.arrays[name].shape
    if value is None:
        return torch.full((n, *shape), torch.nan)
    array = codec.condition(name, value)
    if not torch.isfinite(array).all():
        raise ConfigError(f"{name}: holds NaN or infinity; every number of it must be finite.")
    if tuple(array.shape) not in (shape, (n, *shape)):
        raise ShapeError(f"{name}: shape {tuple(array.shape)}; give {shape}, or {(n, *shape)} for n={n} samples.")
    return array.expand(n, *shape)


def _sizes(codec: Codec, value: Any, n: int, seed: int) -> list[int]:
    """The size of each sample: one for all, a list of n, or None for a free one, which sample i draws for itself."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * n
    if len(values) != n:
        raise ConfigError(f"{codec.size_name}: {len(values)} values for n={n} samples; give one, or a list of {n}.")
    for v in values:
        if v is not None and (isinstance(v, bool) or not isinstance(v, int) or v < 1):
            raise ConfigError(f"{codec.size_name}={v!r}: give a whole number of at least 1.")
    return [codec.sample_size(v, seeds.generator(seed, i, SIZE)) for i, v in enumerate(values)]

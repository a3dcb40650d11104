"""One call of `model.sample`, planned: every argument checked, every default of the recipe filled in."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.contract.conditions import Given
from zoo.contract.recipe import Recipe, Sampling
from zoo.core import seeds
from zoo.core.guidance import Guidance, is_null
from zoo.core.inpaint import OPTIONS
from zoo.core.samplers import GIVEN, SAMPLERS, Sampler, churn, get_sampler
from zoo.core.schedule import Level, Schedule
from zoo.errors import ConfigError, one_of
from zoo.values import for_each, number, plain, several, whole

#: streams of random numbers that free conditions and sizes are drawn from, never that of a sample's noise
DRAWN, SIZE = 1, 2
#: samples made at a time, where nobody asks; and where a steer or a method keeps a graph of the net for gradients
CHUNK, TRACED = 64, 16
#: arguments of `model.sample` by which every plan is made, by name
ASKED = ("seed", "sampler", "steps", "batch_size", "precision", "guidance_weight", "guidance_scale")
#: and further ones that every model takes, beside its conditions and the sampler's own options
COMMON = ("spacing", "bounds", "guidance_interval", "guidance_rescale", "clip", "guess_below", "negative")
#: those of them that None turns off, whatever the recipe has: no clipping, guidance everywhere, a guess at every level
NONE = ("clip", "guidance_interval", "guess_below")
#: how many samples one call makes at most; what it keeps of each would not fit into memory
MOST = 10_000_000
#: and those that samplers with churn take for it, see `zoo.core.samplers.churn`
CHURN = ("s_churn", "s_min", "s_max")
#: names that no condition can have: arguments of the methods of a model, and what a net that conditions itself is told
TAKEN = (
    "n",
    *ASKED,
    "shard",
    "steer",
    "progress",
    "on_step",
    "known",
    "where",
    "method",
    *OPTIONS,
    "item",
    "strength",
    "start",
    "end",
    "k",
    "x0",
    "items",
    "trace",
    "probes",
    "units",
    "to_clean",
    "noise",
    "inverted",
)


@dataclass(frozen=True)
class Chunk:
    """The samples that are made at a time.

    Attributes:
        cond: {name: (B,...)} what the net is told; `null_like` where nothing is.
        rng: the noise of each sample.
        sizes: how many elements (points, residues, frames) each sample has; None where all have the codec's shape.
        negative: {name: (B,...)} what guidance leads away from.
    """

    cond: Mapping[str, Tensor]
    rng: seeds.SampleRng
    sizes: Sequence[int] | None = None
    negative: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rng.generators)

    def repeated(self, times: int, rng: seeds.SampleRng) -> Chunk:
        """Every sample so many times, one copy after the other, with the noise of the copies."""
        cond, away = ({k: v.repeat_interleave(times, 0) for k, v in c.items()} for c in (self.cond, self.negative))
        sizes = None if self.sizes is None else [size for size in self.sizes for _ in range(times)]
        return Chunk(cond, rng, sizes, away)


@dataclass(frozen=True)
class Plan:
    """One call of `sample`.

    Attributes:
        n, seed: how many samples, and whose.
        batch_size: how many are made at a time.
        sampler, levels, options: the sampler, its grid and its options, as it takes them.
        guidance, clip, guess_below: of the prediction.
        precision: in which the net multiplies, see `zoo.model.place.PRECISIONS`.
        cond: {name: (n, ...)} what the net is told; `null_like` where nothing is.
        names: {name: n labels} what was asked for in the user's words, None for nothing.
        sizes: how many elements each sample has; None where all have the codec's shape.
        public: the sampler's options as the user gives them.
        negative: {name: what was read} that guidance leads away from.
        shard: (r, of): of several processes that share the call, this one makes every `of`-th batch, from batch r on.
        method: the arguments of the method of in-painting; empty where nothing is in-painted.
        cost: what that method costs a sample, in words.
        strength, whole: of a plan that runs only the last of its steps: their share, and how many the whole grid has.
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
    size_axis: int = 0
    guess_below: float = math.inf
    precision: str = "fp32"
    spacing: str | None = None
    bounds: tuple[float, float] | None = None
    public: Mapping[str, Any] = field(default_factory=dict)
    negative: Mapping[str, Given] = field(default_factory=dict)
    strength: float | None = None
    whole: int | None = None
    shard: tuple[int, int] | None = None
    method: Mapping[str, Any] = field(default_factory=dict)
    cost: str = ""

    @property
    def calls(self) -> int:
        """How often the sampler calls the net for one sample, where no method of in-painting repeats its steps."""
        return get_sampler(self.sampler).evaluations(self.levels)

    @property
    def steps(self) -> int:
        """How many steps the sampler makes."""
        return len(self.levels) - 1

    def settings(self) -> dict[str, Any]:
        """Every setting that was used, by the name that the methods of a model take it by: the same call again.

        None stands for no clipping, no interval and no bound of the guess. `steps` are those of the whole grid, of which
        `strength` is the share that was run, where `model.vary` ran only the last of them.
        """
        found = {
            "sampler": self.sampler,
            "steps": self.steps if self.whole is None else self.whole,
            "guidance_weight": dict(self.guidance.each) or self.guidance.weight,
            "guidance_interval": None if self.guidance.interval == (0.0, math.inf) else self.guidance.interval,
            "guidance_rescale": self.guidance.rescale,
            "clip": self.clip,
            "guess_below": None if math.isinf(self.guess_below) else self.guess_below,
            "precision": self.precision,
            **self.public,
            **self.method,
        }
        away = {k: v.shown for k, v in self.negative.items() if v.shown is not None}
        known = {"spacing": self.spacing, "bounds": self.bounds, "strength": self.strength, "negative": away or None}
        known["shard"] = self.shard
        return found | {k: v for k, v in known.items() if v is not None}

    def after(self, strength: float) -> Plan:
        """The last share `strength` of the steps."""
        share = plain(strength)
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ConfigError(f"strength={share!r}: give a share of the steps, above 0 (no change) up to 1 (all new).")
        start = self.steps - max(1, round(share * self.steps))
        options = {k: v[start:] if k == "churned" else v for k, v in self.options.items()}
        return replace(self, levels=self.levels[start:], options=options, strength=share, whole=self.steps)

    def chunk(self, rows: range) -> Chunk:
        """Samples `rows`."""
        sizes = None if self.sizes is None else self.sizes[rows.start : rows.stop]
        cond = {k: v[rows.start : rows.stop] for k, v in self.cond.items()}
        away = {k: v.values[rows.start : rows.stop] for k, v in self.negative.items()}
        return Chunk(cond, seeds.SampleRng(self.seed, rows, sizes, self.size_axis), sizes, away)

    def rows(self) -> Iterator[range]:
        """The rows of each chunk, one after the other; of a shard, of its own chunks."""
        first, of = self.shard or (0, 1)
        for begin in range(first * self.batch_size, self.n, of * self.batch_size):
            yield range(begin, min(begin + self.batch_size, self.n))


def shard_of(value: Any) -> tuple[int, int] | None:
    """(r, of) from "r/of" or a pair of whole numbers, 0 <= r < of; None from None.

    Raises:
        ConfigError: anything else.
    """
    if value is None:
        return None
    pair = value.split("/") if isinstance(value, str) else several(value)
    try:
        first, of = (int(v) if isinstance(value, str) else whole(v, "shard") for v in pair or ())
    except ValueError:
        first, of = 0, 0
    if not 0 <= first < of:
        raise ConfigError(
            f"shard={value!r}: give which of how many processes this is, counted from 0, such as '0/4' or (0, 4)."
        )
    return first, of


class Arguments:
    """The arguments of a call, taken one by one, so that what nobody took can be named in the end.

    None stands for an argument that was not given, except for those of `NONE`, where it means "none".
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.left = {k: plain(v) for k, v in given.items() if v is not None or k in NONE}

    def take(self, name: str, default: Any = None) -> Any:
        """The argument, or the default."""
        return self.left.pop(name, default)

    def numbers(self, name: str, default: Any = None) -> Any:
        """The argument as a tuple of plain numbers, or the default."""
        value = self.take(name, default)
        found = several(value)
        return value if found is None else tuple(found)


def check_names(conditions: Iterable[str], codec: Codec) -> None:
    """Refuse conditions that nobody could give by their name, since an argument has it.

    Raises:
        ConfigError: a name that is taken, or that is no word of Python.
    """
    ours = [SAMPLERS[name].options for name in SAMPLERS if name not in SAMPLERS.offered]  # no other package is imported
    taken = {*TAKEN, *COMMON, *CHURN, *(option for options in ours for option in options), codec.size_name}
    for name in conditions:
        if name in taken or not name.isidentifier():
            why = "is an argument of model.sample already" if name in taken else "is no name of a Python argument"
            raise ConfigError(f"a condition cannot be called {name!r}: that {why}. Give it another name.")


def make_plan(recipe: Recipe, schedule: Schedule, codec: Codec, n: int, arguments: Mapping[str, Any]) -> Plan:
    """The plan of n samples.

    Args:
        arguments: those of `Model.sample` that say what to sample and how; None stands for one that was not given.

    Raises:
        ConfigError: an argument that is unknown or invalid.
    """
    n = whole(n, "n", 1)
    if n > MOST:
        raise ConfigError(f"n={n}: one call makes at most {MOST:,} samples. Make several calls, each with a seed of its own.")
    given = Arguments(arguments)
    batch_size = whole(given.take("batch_size", min(n, CHUNK)), "batch_size", 1)
    seed = seeds.check_seed(given.take("seed"))
    steps = whole(given.take("steps", recipe.sampling.steps), "steps", 1, schedule.max_steps)
    default = recipe.sampling.at(steps)
    name = _text(given.take("sampler", default.sampler), "sampler")
    sampler = get_sampler(name)
    read = _conditions(recipe, codec, given, n, seed)
    sizes = None if codec.size_name is None else _sizes(codec, given.take(codec.size_name), n, seed)
    said = any(arguments.get(k) is not None for k in ("guidance_weight", "guidance_scale"))
    guidance = _guidance(recipe, default, given)
    negative = _negative(recipe, codec, given.take("negative"), n, guidance)
    spacing = given.take("spacing", default.spacing)
    if spacing is not None:
        _text(spacing, "spacing")
    karras = (spacing or schedule.spacings[0]) == "karras"  # the bounds of a recipe are those of such a grid
    bounds = given.numbers("bounds", default.bounds if karras and spacing == default.spacing else None)
    levels = schedule.levels(steps, spacing, bounds)
    if len(levels) == 2 and recipe.sampling.steps > 1 and all(few.steps > 1 for few in recipe.sampling.few):
        warnings.warn(
            "1 step: the sample is the net's first guess from pure noise, the mean of all that it might be at best. Take more.",
            stacklevel=4,
        )
    clip = given.take("clip", default.clip)
    if clip is not None and not number(clip, "clip", what="a bound of x0; None for no clipping") > 0:
        raise ConfigError(f"clip={clip!r}: give a positive bound of x0, or None for no clipping.")
    below = given.take("guess_below", default.guess_below)
    if below is not None and below != math.inf:
        number(below, "guess_below", 0, what="a noise level sigma / alpha")
    public = (dict(default.options) if name == default.sampler else {}) | given.left
    options = _sampler_options(recipe, schedule, codec, sampler, levels, public, given.left)
    if 1 < len(levels) - 1 < (least := recipe.sampling.enough(name, public)):
        more = f"take {least} or more, or another sampler" if math.isfinite(least) else "take another sampler"
        warnings.warn(
            f"{name} with {len(levels) - 1} steps gives poor samples of this model: {more}, such as {recipe.sampling.sampler}.",
            stacklevel=4,
        )
    cond = {k: v.values for k, v in read.items()}
    if all(bool(is_null(c).all()) for c in (*cond.values(), *(v.values for v in negative.values()))):
        if said and (guidance.weight or guidance.each):
            warnings.warn("guidance does nothing: no condition is given that it could be towards.", stacklevel=4)
        guidance = Guidance()  # nothing is asked for: the null rows would be guided away from themselves
    elif (guidance.weight or guidance.each) and not any(guidance.active(level) for level in levels[:-1]):
        low, high = guidance.interval
        warnings.warn(
            f"guidance acts at no step: none of the {len(levels) - 1} has {low:g} < sigma / alpha <= {high:g}. "
            "Take more steps, or a wider guidance_interval.",
            stacklevel=4,
        )
    return Plan(
        n=n,
        seed=seed,
        batch_size=batch_size,
        sampler=name,
        levels=levels,
        guidance=guidance,
        clip=clip,
        options=options,
        cond=cond,
        names={k: v.shown for k, v in read.items() if v.shown is not None},
        sizes=sizes,
        size_axis=codec.size_axis,
        guess_below=math.inf if below is None else below,
        spacing=spacing,
        bounds=bounds,
        public=public,
        negative=negative,
    )


def _text(value: Any, name: str) -> str:
    """A name, checked."""
    if not isinstance(value, str):
        raise ConfigError(f"{name}={value!r}: give its name as a text.")
    return value


def _conditions(recipe: Recipe, codec: Codec, given: Arguments, n: int, seed: int) -> dict[str, Given]:
    """Every condition of the recipe, read from its argument."""
    found = {}
    for place, (name, condition) in enumerate(recipe.conditions.items()):

        def rng(i: int, place: int = place) -> torch.Generator:
            return seeds.generator(seed, i, DRAWN, place)

        found[name] = condition.read(given.take(name), n, codec.reading(name, rng))
    return found


def _negative(recipe: Recipe, codec: Codec, value: Any, n: int, guidance: Guidance) -> dict[str, Given]:
    """What guidance is to lead away from, read as conditions are.

    Raises:
        ConfigError: no {condition: value}, an unknown condition, or one that no guidance acts on.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        named = next(iter(recipe.conditions), "label")
        raise ConfigError(f"negative={value!r}: give {{condition: value}}, such as negative={{{named!r}: ...}}.")
    found = {}
    for name, one in value.items():
        if name not in recipe.conditions:
            raise one_of("condition of negative", name, recipe.conditions)
        if one is None:
            continue
        if not guidance.weight and not guidance.each.get(name):
            raise ConfigError(
                f"negative: guidance leads away from it, and none acts on {name!r}. Give guidance_weight, such as "
                f"guidance_weight=2 or guidance_weight={{{name!r}: 2}}."
            )
        found[name] = recipe.conditions[name].read(one, n, codec.reading(f"negative {name}"))
    return found


def _guidance(recipe: Recipe, default: Sampling, given: Arguments) -> Guidance:
    """The guidance asked for, or the default."""
    weight, scale = given.take("guidance_weight"), given.take("guidance_scale")
    asked = [k for k, v in (("guidance_weight", weight), ("guidance_scale", scale)) if v is not None]
    joint, each = Guidance.from_public(weight, scale, default.guidance_weight)
    if asked and (joint or each) and not recipe.conditions:  # a weight of 0 asks for nothing: so the settings of a plan say it
        raise ConfigError(f"{' and '.join(asked)}: this model is unconditional, there is nothing to guide. Leave it out.")
    for key in each:
        if key not in recipe.conditions:
            raise one_of("condition to guide", key, recipe.conditions)
    interval = given.numbers("guidance_interval", default.guidance_interval) or (0.0, math.inf)
    return Guidance(joint, interval, given.take("guidance_rescale", default.guidance_rescale), each)


def _sampler_options(
    recipe: Recipe,
    schedule: Schedule,
    codec: Codec,
    sampler: Sampler,
    levels: list[Level],
    public: Mapping[str, Any],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """The sampler's options as it takes them: a public strength of churn becomes raised levels."""
    churns = "churned" in sampler.options
    for key in given:
        if key in GIVEN or (key not in sampler.options and not (churns and key in CHURN)):
            size = [codec.size_name] if codec.size_name else []
            own = [option for option in sampler.options if option not in GIVEN]
            known = [*ASKED, *COMMON, *own, *(CHURN if churns else ()), *recipe.conditions, *size]
            raise one_of(f"argument or condition of {recipe.domain}/{recipe.name}", key, sorted(known))
    _check_kinds(sampler.run, public)
    if churns:
        _check_kinds(churn, {k: v for k, v in public.items() if k in CHURN})
    options = {k: v for k, v in public.items() if not (churns and k in CHURN)}
    if churns and public.get("s_churn"):
        strength = {k: public[k] for k in CHURN if public.get(k) is not None}
        options["churned"] = churn(schedule, levels, **strength)
    return options


def _check_kinds(call: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse an option of another kind than its default: samplers compute with what they are given."""
    for name, parameter in inspect.signature(call).parameters.items():
        if name not in given:
            continue
        value, default = given[name], parameter.default
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise ConfigError(f"{name}={value!r}: give True or False.")
        elif isinstance(default, (int, float)) or parameter.annotation in (float, "float"):
            if not (value == math.inf and default == math.inf):
                number(value, name)
        elif isinstance(default, str):
            _text(value, name)


def _sizes(codec: Codec, value: Any, n: int, seed: int) -> list[int]:
    """The size of each sample: one for all, a list of n, or None for a free one, which sample i draws for itself."""
    name = codec.size_name or "size"
    checked = [None if v is None else whole(v, name, 1) for v in for_each(value, n, name)]
    return [codec.sample_size(v, seeds.generator(seed, i, SIZE)) for i, v in enumerate(checked)]

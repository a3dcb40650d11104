"""The contract suite: what every domain must do, for the author of a plug-in to run on his own.

    import zoo

    zoo.testing.check_domain(DOMAIN)

Each check is a function of an untrained model of one recipe, some also of data. It raises a `ContractError` that says what
was expected, what came and what to do; where there is nothing to check it returns why. `CHECKS` holds all of them by name.
No test runner is needed; with pytest, each check is a test of its own:

    @pytest.mark.parametrize("name", zoo.testing.CHECKS)
    def test_the_contract(name):
        model, data = zoo.testing.prepared(DOMAIN, RECIPE)
        zoo.testing.run(name, model, data)

The models are untrained, so no check depends on how good a net is: only on what it must do with any weights.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.contract.augment import Augment
from zoo.contract.conditions import CONDITIONS, Condition, Label, Reading, parse_condition
from zoo.contract.dataset import Bare, Batch, Dataset, Items
from zoo.contract.domain import DENOISERS, Domain
from zoo.contract.recipe import Recipe
from zoo.contract.registry import domain_names, get_domain, get_recipe, register, unregister
from zoo.contract.samples import Sample
from zoo.core import seeds
from zoo.core.circle import steps_alone
from zoo.core.guidance import is_null, null_like
from zoo.core.predict import Predict
from zoo.core.samplers import SAMPLERS, Step
from zoo.core.schedule import Level
from zoo.errors import ConfigError, ContractError, ShapeError, ZooError, one_of
from zoo.evaluation.evaluate import Evaluator, evaluate
from zoo.model.first_stage import Latent
from zoo.model.loading import load
from zoo.model.model import Model
from zoo.training.objective import OBJECTIVES, objective_of

#: what a check returns: None where all is well, or why there is nothing to check
Skipped = str | None

#: all checks by name
CHECKS: dict[str, Callable[..., Skipped]] = {}

#: those that sample, or ask a net for what only a denoiser knows: first stages go without
SAMPLING = {
    "every_input_changes_the_output",
    "the_same_sample_for_every_batch_size",
    "inpainting_keeps_what_is_known",
    "a_variation_starts_from_its_object",
    "samples_are_written_and_drawn",
}

#: numbers that agree up to rounding, and numbers that differ for a reason, as shares of the largest
SAME, OTHER = 1e-4, 1e-4
#: how far samples may differ between batch sizes, as a share of the largest number: rounding grows from step to step
GROWN = 0.01
#: a word that nobody has an option for
UNKNOWN = "spead"
#: the fewest elements of a sample with a size of its own that checks work with, where they are free to choose
FEW = 16


# ---------------------------------------------------------------- running


def check_domain(
    domain: Domain,
    *,
    data: Dataset | None = None,
    recipes: Iterable[str] | None = None,
    evaluator: Evaluator | None = None,
    measured: int = 16,
) -> list[str]:
    """Run every check on every recipe of a domain; returns what ran, each as "recipe: check".

    Args:
        data: of the domain; default: what `domain.example_data` makes up for each recipe.
        recipes: the names of those to check; default: all.
        evaluator: measures samples of each recipe; without one it is only seen that the domain says what it needs.
        measured: how many samples the evaluator measures.

    Raises:
        ContractError: the first check that failed, with the recipe.
        ConfigError: a recipe that the domain does not have.
    """
    known = domain.recipes()
    require(len(known) > 0, "a domain with recipes", "none", "Return at least one from recipes().")
    ran: list[str] = []
    for key in known if recipes is None else recipes:
        if key not in known:
            raise one_of(f"recipe of the domain {domain.name!r}", key, known)
        model, found = prepared(domain, known[key], data)
        ran += [f"{key}: {name}" for name in CHECKS if run(name, model, found, evaluator, measured) is None]
    return ran


def prepared(domain: Domain, recipe: Recipe, data: Dataset | None = None) -> tuple[Model, Dataset]:
    """An untrained model of a recipe, adapted and fitted to data as for training, and the data.

    Args:
        data: of the domain; default: what `domain.example_data` makes up.

    Raises:
        ContractError: the model cannot be built.
    """
    with told(domain, recipe, "a model can be built and fitted to data"):
        found = domain.example_data(recipe) if data is None else data
        if recipe.role == "first_stage":
            found = Bare(found)
        adapted, stage = domain.adapt(recipe, found), untrained_stage(domain, recipe)
        with seeded(0):  # the same weights whatever ran before
            model = Model(adapted, domain, stage=stage)
        model.codec.fit(found)
        return awake(model), found


def untrained_stage(domain: Domain, recipe: Recipe) -> Model | None:
    """An untrained first stage as a latent recipe names it, or as the model that it is of describes it; None for others."""
    spec = recipe.stage
    if spec is None:
        return None
    with registered(domain), seeded(2):
        own = Recipe.parse(spec.recipe) if spec.recipe is not None else get_recipe(spec.name)
        stage = Model(own, domain)
    return awake(stage)


def rebuilt(model: Model, recipe: Recipe) -> Model:
    """A new model of a recipe that is like the one of another model, with the first stage that this has."""
    stage = model.first_stage() if isinstance(model.codec, Latent) else None
    return Model(recipe, model.domain, stage=stage)


def run(
    name: str, model: Model, data: Dataset | None = None, evaluator: Evaluator | None = None, measured: int = 16
) -> Skipped:
    """Run one check of `CHECKS`; returns None where it held, or why there is nothing to check. Arguments as `check_domain`.

    Raises:
        ContractError: it did not hold, or the domain's code raised another error.
    """
    if name not in CHECKS:
        raise one_of("check", name, CHECKS)
    if model.is_first_stage and name in SAMPLING:
        return "a first stage samples nothing"
    function, given = CHECKS[name], {"data": data, "evaluator": evaluator, "measured": measured}
    further = {k: v for k, v in given.items() if k in inspect.signature(function).parameters}
    # another seed than that of the weights: what is built again must come from a file, not from the same random numbers
    with told(model.domain, model.recipe, name.replace("_", " ")), seeded(1):
        return function(model, **further)


def awake(model: Model) -> Model:
    """A model whose weights were moved: nets start as the zero function, moved weights make every part of them count."""
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p.add_(0.05 * torch.randn(p.shape, generator=seeds.generator(i)).to(p))
    return model


def check(function: Callable[..., Skipped]) -> Callable[..., Skipped]:
    """Add a function `check_...(model)` to `CHECKS`. Those with further arguments of `run` receive them, too."""
    CHECKS[function.__name__.removeprefix("check_")] = function
    return function


@contextmanager
def told(domain: Domain, recipe: Recipe, what: str) -> Iterator[None]:
    """Any error as a `ContractError` that names domain, recipe and what was checked."""
    place = f"{domain.name}/{recipe.name}, {what}"
    try:
        yield
    except ContractError as error:
        raise ContractError(f"{place}: {error}") from None
    except Exception as error:
        raise ContractError(f"{place}: {type(error).__name__}: {error}") from error


@contextmanager
def registered(domain: Domain) -> Iterator[None]:
    """A domain that can be found by its name, as a packaged one is."""
    if domain.name in domain_names() and get_domain(domain.name) is domain:
        yield
        return
    register(domain)
    try:
        yield
    finally:
        unregister(domain.name)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global generator in a known state; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


# ---------------------------------------------------------------- comparing


def require(holds: Any, expected: str, came: object, advice: str) -> None:
    """Raise a `ContractError` unless something holds."""
    if not bool(holds):
        raise ContractError(f"expected {expected}; got {came}. {advice}")


def refused(call: Callable[[], Any], what: str, advice: str, *mentioned: str) -> None:
    """Raise a `ContractError` unless a call raises a `ZooError` whose message mentions some words."""
    try:
        call()
    except ZooError as error:
        silent = [word for word in mentioned if word not in str(error)]
        require(not silent, f"an error for {what} that names {', '.join(silent)}", repr(str(error)), advice)
        return
    except Exception as error:
        raise ContractError(
            f"expected an error of zoo.errors for {what}; got {type(error).__name__}: {error}. {advice}"
        ) from error
    raise ContractError(f"expected an error for {what}; got none. {advice}")


def apart(a: Any, b: Any) -> float:
    """The largest difference of two arrays as a share of the largest number in them; infinite for different shapes."""
    a, b = (torch.as_tensor(v).detach().double() for v in (a, b))
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    return float((a - b).abs().max() / torch.cat([a.flatten(), b.flatten()]).abs().max().clamp(min=1e-6))


def same(a: Any, b: Any) -> bool:
    """Whether two tensors are equal in shape, dtype and every number; NaN equals NaN."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a.nan_to_num(nan=1e30), b.nan_to_num(nan=1e30)))


def close(a: Any, b: Any, expected: str, advice: str, within: float = SAME) -> None:
    """Raise a `ContractError` unless two arrays agree."""
    far = apart(a, b)
    require(far <= within, expected, f"a difference of {far:.1e}", advice)


def unlike(a: Any, b: Any, expected: str, advice: str, beyond: float = OTHER) -> None:
    """Raise a `ContractError` unless two arrays differ."""
    far = apart(a, b)
    require(far > beyond, expected, f"a difference of {far:.1e}", advice)


def alike(a: Tensor, b: Tensor) -> float:
    """The cosine of the angle between two tensors: 1 for the same direction, about 0 for unrelated ones."""
    return float(torch.nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


# ---------------------------------------------------------------- what models are given


@dataclass(frozen=True)
class Question:
    """What a net is asked: x_t (n,*S), t (n,), conditions {name: (n,...)}, mask (n,N) or None."""

    x: Tensor
    t: Tensor
    cond: Mapping[str, Tensor]
    mask: Tensor | None = None

    def rows(self, which: slice) -> Question:
        """Some of the rows."""
        mask = None if self.mask is None else self.mask[which]
        return Question(self.x[which], self.t[which], {k: v[which] for k, v in self.cond.items()}, mask)

    def told(self, **cond: Tensor) -> Question:
        """The same with other conditions."""
        return replace(self, cond=dict(self.cond) | cond)


def sizes(model: Model) -> tuple[int, int] | None:
    """A small size that samples may have, and a smaller one for padding; None where all samples have the codec's shape."""
    codec = model.codec
    if codec.size_name is None:
        return None
    usual = codec.shape[codec.size_axis]
    size = next((k for k in (usual // 8, usual // 4, usual // 2) if k >= FEW and _allowed(model, k)), usual)
    return size, max(1, 3 * size // 4)


def _allowed(model: Model, size: int) -> bool:
    """Whether samples may have a size, without a warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return model.codec.sample_size(size, seeds.generator(0)) == size
    except (ConfigError, Warning):
        return False


def shape(model: Model) -> tuple[int, ...]:
    """The shape of a small encoded sample."""
    found, small = list(model.codec.shape), sizes(model)
    if small is not None:
        found[model.codec.size_axis] = small[0]
    return tuple(found)


def short_mask(model: Model, n: int) -> Tensor | None:
    """(n,N) bool for small samples of which the last one is shorter; None where all samples have the codec's shape."""
    small = sizes(model)
    if small is None:
        return None
    mask = torch.ones(n, small[0], dtype=torch.bool)
    mask[-1, small[1] :] = False
    return mask


def real(model: Model, mask: Tensor, x: Tensor) -> Tensor:
    """Which numbers of x (n,*S) are not padding, shaped like x."""
    return model.codec.spread(mask, x.ndim).expand_as(x)


def noise(model: Model, n: int, seed: int = 3) -> Tensor:
    """Small encoded samples (n,*S), float32: projected noise in -1..1."""
    x0: Tensor = model.codec.project(torch.randn(n, *shape(model), generator=seeds.generator(seed)).clamp(-1, 1))
    return x0


def object_noise(model: Model, n: int, seed: int = 3) -> Tensor:
    """Small samples as the codec of objects encodes them (n,*I): the same as `noise`, but for latent models."""
    codec = model.codec
    if codec.inner is codec:
        return noise(model, n, seed)
    x: Tensor = codec.inner.project(torch.randn(n, *codec.inner.shape, generator=seeds.generator(seed)).clamp(-1, 1))
    return x


def objects(model: Model, n: int, seed: int = 3) -> list[Any]:
    """Small objects of the domain: noise, decoded."""
    return [item for row in object_noise(model, n, seed).split(1) for item in model.codec.decode(row, {})]


def question(model: Model, n: int, *, seed: int = 7) -> Question:
    """Random small inputs of the net, all elements real."""
    rng = seeds.generator(seed)
    x = torch.randn(n, *shape(model), generator=rng)
    t = model.diffusion.schedule.draw(n, rng).t.float()
    cond = {k: c.example(n, rng) for k, c in model.recipe.conditions.items()}
    if model.diffusion.self_condition:
        cond["x0"] = model.codec.project(torch.randn(x.shape, generator=rng).clamp(-1, 1))
        cond["known"] = beginning(model, x[0]).expand_as(x).clone()
    mask = None if sizes(model) is None else torch.ones(n, x.shape[1 + model.codec.size_axis], dtype=torch.bool)
    return Question(x, t, cond, mask)


def beginning(model: Model, x0: Tensor) -> Tensor:
    """A mask (broadcast to *S) of the first half of a sample: of its elements, or along its longest axis."""
    axis = model.codec.size_axis if model.codec.size_name is not None else int(np.argmax(x0.shape))
    length = x0.shape[axis]
    where = torch.arange(length) < max(1, length // 2)
    return where.reshape([length if i == axis else 1 for i in range(x0.ndim)])


@torch.no_grad()
def answer(model: Model, asked: Question) -> Tensor:
    """What the net says."""
    return model.diffusion.ask(model.denoiser, asked.x, asked.t, asked.cond, mask=asked.mask)


def training_batch(model: Model, n: int = 4) -> Batch:
    """Small samples to train on; the first row is given no condition, and the last one is shorter where it may be."""
    x0, mask = object_noise(model, n), short_mask(model, n)
    if mask is not None:
        x0 = model.codec.project(x0 * real(model, mask, x0), mask)
    cond = {}
    for name, condition in model.recipe.conditions.items():
        cond[name] = condition.example(n, seeds.generator(5)).clone()
        cond[name][:1] = null_like(cond[name][:1])
    return Batch(x0, cond, mask)


def quick(model: Model, seed: int = 0, **settings: Any) -> dict[str, Any]:
    """Arguments of `model.sample` for a few small samples."""
    small = sizes(model)
    size = {} if small is None or model.codec.size_name is None else {model.codec.size_name: small[0]}
    return {"seed": seed, "steps": 2, "progress": False} | size | settings


def data_of(model: Model, data: Dataset | None) -> Dataset:
    """The data, or some that the domain makes up."""
    return model.domain.example_data(model.recipe) if data is None else data


# ---------------------------------------------------------------- domain, recipe, codec


@check
def check_the_domain_is_whole(model: Model) -> Skipped:
    """A domain has a name, a suffix of its files, and recipes that are found by their names and say what a card must say.

    A recipe under a wrong name would be listed and then not be found; a card without licence and source cannot be shared.
    """
    domain = model.domain
    require(isinstance(domain, Domain), "a zoo.contract.domain.Domain", type(domain).__name__, "Inherit from it.")
    name, suffix = domain.name, domain.suffix
    right = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", name)
    require(right, "a name of letters, digits, - and _", repr(name), "Names of models are domain/recipe.")
    right = isinstance(suffix, str) and re.fullmatch(r"\.\w+", suffix)
    require(right, "a suffix such as '.png'", repr(suffix), "Set the suffix of a saved sample.")
    with registered(domain):
        for key, recipe in domain.recipes().items():
            whose = f"the recipe under {key!r}"
            require(recipe.name == key, f"{whose} to have that name", repr(recipe.name), "Use the recipe's own name as key.")
            require(recipe.domain == name, f"{whose} to be of {name!r}", repr(recipe.domain), "Set domain= of the recipe.")
            found = get_recipe(f"{name}/{key}")
            require(found == recipe, f"{name}/{key} to be {whose}", repr(found), "`recipes()` and RECIPES must be the same.")
            for field in ("description", "licence", "data", "paper"):
                text = getattr(recipe, field)
                require(text.strip(), f"{whose} to say its {field}", repr(text), "The card of a model shows it.")
            for what, value, known in (
                ("denoiser", recipe.denoiser, [*domain.denoisers, *DENOISERS]),
                ("sampler", recipe.sampling.sampler, SAMPLERS),
                ("objective", recipe.training.objective, OBJECTIVES),
            ):
                require(value in known, f"{whose} to name a {what} of {', '.join(known)}", repr(value), "Correct the name.")
    for method, function in domain.methods.items():
        free = callable(function) and not hasattr(Model, method)
        require(free, f"a function for the method {method!r}, a name that Model does not use", function, "Rename it.")
    takes = inspect.signature(domain.hold).parameters
    for option in domain.inpaint_options:
        advice = "List in inpaint_options what hold takes."
        require(option in takes, f"`hold` to take {option!r}", ", ".join(takes), advice)
    return None


@check
def check_the_recipe_survives_json(model: Model) -> Skipped:
    """A recipe that was written and read is the same, and a misspelled option is an error everywhere.

    config.json is the recipe; an option that is silently ignored trains another model than the one that was asked for.
    """
    domain, recipe = model.domain, model.recipe
    text = json.dumps(recipe.model_dump(mode="json"))
    again = Recipe.parse(json.loads(text))
    require(again == recipe, "the same recipe after JSON", repr(again), "Recipes hold only what JSON can: no arrays.")
    refused(lambda: Recipe.parse(json.loads(text) | {UNKNOWN: 1}), "an unknown key", "Part forbids them.", UNKNOWN)
    options = {**recipe.codec, UNKNOWN: 1}
    advice = "Build the codec with all options, and turn a TypeError into a ConfigError."
    refused(lambda: domain.codec(options), "an unknown option of the codec", advice, UNKNOWN)
    wrong = recipe.model_copy(update={"net": {**recipe.net, UNKNOWN: 1}})
    advice = "Let the net's class name its options, without **options that nobody reads."
    refused(lambda: domain.denoiser(wrong, model.codec.shape), "an unknown option of the net", advice, UNKNOWN)
    return None


@check
def check_the_codec_is_whole(model: Model) -> Skipped:
    """A codec has a shape and names of its axes that fit, and all that `fit` found lies in its buffers.

    Buffers are saved with the weights; statistics that are plain attributes are lost with the process. A size that is asked
    for is the size that comes, and an impossible one is an error.
    """
    codec = model.codec
    right = isinstance(codec.shape, tuple) and all(type(k) is int and k > 0 for k in codec.shape)
    require(right and codec.shape, "a shape of positive whole numbers", repr(codec.shape), "Set self.shape as a tuple.")
    named = len(codec.axes) in (0, len(codec.shape))
    require(named, f"no axes, or a name for each of {codec.shape}", codec.axes, "Set the codec's `axes`.")
    again = type(codec)(**codec.options)
    require(again.shape == codec.shape, "the same shape from the codec's own options", again.shape, "Set nothing afterwards.")
    fresh = rebuilt(model, model.recipe).codec
    fresh.load_state_dict(codec.state_dict())
    x0 = noise(model, 1)
    with torch.no_grad():
        ours, theirs = (c.decode(c.lower(x0), {})[0].numpy() for c in (codec, fresh))
    advice = "Keep what `fit` finds in buffers (register_buffer)."
    close(ours, theirs, "the same decoded sample from a codec that was given the buffers", advice, within=0)
    if codec.size_name is None:
        return None
    axis = codec.size_axis
    require(0 <= axis < len(codec.shape), f"size_axis to be an axis of {codec.shape}", axis, "Set the codec's `size_axis`.")
    drawn, once_more = (codec.sample_size(None, seeds.generator(1)) for _ in range(2))
    same_draw = type(drawn) is int and drawn == once_more
    require(same_draw, "one whole number for one rng", f"{drawn!r}, then {once_more!r}", "Draw free sizes from the rng.")
    for size in (drawn, drawn - 1, drawn + 1):
        try:
            kept = codec.sample_size(size, seeds.generator(2))
        except ConfigError:
            continue
        require(kept == size, f"the size {size} where it is asked for", kept, "Return what was asked for, or refuse it.")
    refused(lambda: codec.sample_size(0, seeds.generator(0)), "a sample of size 0", "sample_size checks what is asked for.")
    return None


@check
def check_the_projector_is_linear_and_idempotent(model: Model) -> Skipped:
    """`project` is a linear projector: P(ax + y) = aP(x) + P(y), P(P(x)) = P(x), each row on its own, padding left out.

    Only then does noise stay in the space of the data at every level, and a padded sample equals itself alone.
    """
    codec = model.codec
    x, y = (torch.randn(2, *shape(model), generator=seeds.generator(i), dtype=torch.float64) for i in (0, 1))
    advice = "Let `project` be linear, e.g. a mean that is taken off each sample."
    for mask in (None, short_mask(model, 2)):

        def project(v: Tensor, mask: Tensor | None = mask) -> Tensor:
            return codec.project(v) if mask is None else codec.project(v, mask)

        once = project(x)
        right = once.shape == x.shape and once.dtype == x.dtype
        require(right, f"{tuple(x.shape)} {x.dtype}", f"{tuple(once.shape)} {once.dtype}", advice)
        close(project(once), once, "project(project(x)) to be project(x)", advice, within=1e-6)
        close(
            project(2 * x + y), 2 * once + project(y), "project(2 x + y) to be 2 project(x) + project(y)", advice, within=1e-6
        )
        close(codec.project(x[:1]), once[:1], "each row to be projected on its own", advice, within=1e-6)
        if mask is None:
            continue
        keep, size = real(model, mask, x), int(mask[1].sum())
        garbage = torch.where(keep, x, 9.0)
        close(
            torch.where(keep, project(garbage), 0),
            torch.where(keep, once, 0),
            "a projection that the padding does not change",
            "Use the mask.",
            within=1e-6,
        )
        axis = 1 + codec.size_axis
        close(
            once[1:].narrow(axis, 0, size),
            codec.project(x[1:].narrow(axis, 0, size)),
            "a padded sample to be projected as it is alone",
            "Use the mask.",
            within=1e-6,
        )
    return None


# ---------------------------------------------------------------- data, encoding


def _real(value: Any) -> bool:
    """Whether something is numbers of which one may be NaN."""
    return np.asarray(value).dtype.kind == "f"


@check
def check_the_data_keep_their_protocol(model: Model, data: Dataset | None = None) -> Skipped:
    """A dataset has a length, `dataset[i]` is (object, conditions), the same each time, and it says its conditions and sizes.

    A resumed run goes on exactly only if an item is the same whenever it is asked for; what is random is the codec's.
    """
    found, codec = data_of(model, data), model.codec
    require(len(found) > 0, "at least one item", 0, "Give data that are not empty.")
    named = found.conditions()
    for name, condition in named.items():
        require(isinstance(condition, Condition), f"conditions()[{name!r}] to be a Condition", condition, "Make it one.")
    for i in (0, len(found) - 1):
        pair = found[i]
        right = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Mapping)
        require(right, f"dataset[{i}] to be (object, {{condition: value}})", repr(pair)[:80], "Return such a pair.")
        require(set(pair[1]) == set(named), f"values of {sorted(named)} with item {i}", sorted(pair[1]), "See conditions().")
        given = found.given(i)
        told = set(given) == set(pair[1]) and all(
            np.array_equal(given[k], pair[1][k], equal_nan=_real(given[k])) for k in given
        )
        require(told, f"given({i}) to be the conditions of dataset[{i}]", repr(given)[:80], "Or leave `given` out.")
        again = found[i]
        advice = "Leave augmentation to `Codec.encode`, which receives an rng."
        close(codec.encode(pair[0]), codec.encode(again[0]), f"item {i} to be the same each time", advice, within=0)
    counted = found.sizes()
    if counted is not None:
        right = counted.shape == (len(found),) and counted.dtype == torch.int64
        require(right, f"sizes ({len(found)},) int64", f"{tuple(counted.shape)} {counted.dtype}", "Or return None.")
        own = codec.size_of(codec.encode(found[0][0]))
        require(int(counted[0]) == own, f"sizes()[0] to be {own}, as encoded", int(counted[0]), "Count elements as encoded.")
    card = found.attributed(model.recipe)
    kept = isinstance(card, Recipe) and card.net == model.recipe.net
    require(kept, "`attributed` to give the recipe with another card", repr(card), "Change only what the card says.")
    return None


@check
def check_the_recipe_adapts_to_data(model: Model, data: Dataset | None = None) -> Skipped:
    """`adapt` gives a recipe whose conditions are those of the data and that can be built; a second time it changes nothing.

    Data with other labels give a model with those labels, or an error: else a net learns classes that it does not name.
    """
    domain, recipe, found = model.domain, model.recipe, data_of(model, data)
    _adapts(domain, recipe, found)
    options = domain.data_options(recipe)
    require(isinstance(options, Mapping), "data_options to be a mapping", repr(options), "Return a dict.")
    classed = [k for k, c in found.conditions().items() if c.classes]
    if not classed:
        return None
    relabelled = found.conditions() | {k: Label(values=("one", "two")) for k in classed}
    item, given = found[0]
    other = Items([(item, dict(given) | dict.fromkeys(classed, i)) for i in (0, 1)], conditions=relabelled)
    try:
        _adapts(domain, recipe, other)
    except ContractError:
        raise
    except ZooError:
        return None  # a domain of a fixed list of classes
    return None


def _adapts(domain: Domain, recipe: Recipe, data: Dataset) -> None:
    adapted, wanted = domain.adapt(recipe, data), data.conditions()
    kept = isinstance(adapted, Recipe) and (adapted.name, adapted.domain) == (recipe.name, recipe.domain)
    require(kept, f"a recipe {recipe.domain}/{recipe.name}", repr(adapted), "`adapt` changes the conditions only.")
    classes = {k: c.classes for k, c in adapted.conditions.items()}
    expected = {k: c.classes for k, c in wanted.items()}
    require(classes == expected, f"the data's conditions {expected}", classes, "Take dataset.conditions() in `adapt`.")
    again = domain.adapt(adapted, data)
    require(again == adapted, "`adapt` to change nothing the second time", repr(again), "Let it depend on the data alone.")
    with seeded(0):
        built = Model(adapted, domain, stage=untrained_stage(domain, recipe))
    built.codec.fit(data)
    built.batch([data[0]])


@check
def check_a_batch_holds_what_the_data_gave(model: Model, data: Dataset | None = None) -> Skipped:
    """A batch has each object as `encode` gives it, padded with zeros under a mask, and each condition as its kind reads it.

    What is lost or mixed up here is lost to training, and nobody sees it.
    """
    found, codec = data_of(model, data), model.codec
    items = [found[i] for i in range(min(3, len(found)))]
    batch, n = model.batch(items), len(items)
    require(isinstance(batch, Batch), "a Batch", type(batch).__name__, "Override `stack`, not `batch`.")
    require(batch.x0.dtype == torch.float32, "x0 of float32", batch.x0.dtype, "Encode to float32.")
    require(len(batch.x0) == n, f"{n} rows", len(batch.x0), "`stack` gives one row an object.")
    encoded = [codec.encode(item) for item, _ in items]
    counts = {codec.size_of(x) for x in encoded} if codec.size_name is not None else set()
    needed = len(counts) > 1 or (bool(counts) and batch.mask is not None)
    advice = "`stack` gives a mask where samples have sizes of their own, else None."
    require((batch.mask is not None) == needed, f"a mask: {needed}", batch.mask, advice)
    for i, x0 in enumerate(encoded):
        row = batch.x0[i]
        if batch.mask is not None:
            size = int(batch.mask[i].sum())
            right = size == codec.size_of(x0) and bool(batch.mask[i, :size].all())
            advice = "`stack` puts padding, which is zero, behind the real elements."
            require(right, f"the first {codec.size_of(x0)} elements of row {i} to be real", f"{size} of them", advice)
            rest = row.narrow(codec.size_axis, size, row.shape[codec.size_axis] - size)
            require(not rest.any(), "zeros in the padding", "other numbers", advice)
            row = row.narrow(codec.size_axis, 0, size)
        close(row, x0, f"row {i} to be its encoded object", "`stack` encodes each object.", within=1e-6)
    wanted = list(model.recipe.conditions)
    require(list(batch.cond) == wanted, f"the conditions {wanted}", list(batch.cond), "`dataset[i]` gives all of them.")
    for name, condition in model.recipe.conditions.items():
        kind, example = batch.cond[name], condition.example(n, seeds.generator(0))
        right = kind.shape == example.shape and kind.dtype == example.dtype
        came = f"{tuple(kind.shape)} {kind.dtype}"
        require(right, f"{name} {tuple(example.shape)} {example.dtype}", came, "`batch` makes what `example` shows.")
        for i, (_, given) in enumerate(items):
            alone = condition.batch([given[name]], codec.reading(name))
            require(same(alone[0], kind[i]), f"{name} of row {i} to be its own", kind[i], "`batch` keeps the order of rows.")
    return None


@check
def check_encode_undoes_decode(model: Model) -> Skipped:
    """An object that was decoded is encoded to what it came from, as near as its own units allow, and decodes to itself.

    In-painting, variations and training all start from encoded objects: a codec that does not come back moves them.
    """
    codec, n = model.codec.inner, 3
    x0, items = object_noise(model, n), objects(model, n)
    for item in items:
        advice = "A sample has save, plot and numpy."
        require(isinstance(item, Sample), "a sample of the protocol", type(item).__name__, advice)
        array = item.numpy()
        right = isinstance(array, np.ndarray) and bool(np.isfinite(array).all())
        require(right, "numpy() to be a finite array", type(array).__name__, advice)
    encoded = [codec.encode(item) for item in items]
    for item, x in zip(items, encoded, strict=True):
        wanted = tuple(x0.shape[1:])
        right = tuple(x.shape) == wanted and x.dtype == torch.float32
        require(right, f"an encoded sample {wanted} float32", f"{tuple(x.shape)} {x.dtype}", "See Codec.encode.")
        advice = "`encode` must be the inverse of `decode`."
        close(codec.decode(x[None], {})[0].numpy(), item.numpy(), "decode(encode(item)) to be the item", advice)
    distances = torch.stack([(x - x0).flatten(1).abs().mean(1) for x in encoded])
    nearest, least = distances.argmin(1).tolist(), float(distances.diagonal().max())
    spread = float((x0 - x0.roll(1, 0)).abs().mean())
    advice = "`encode` must be the inverse of `decode`, which must not lose the sample."
    require(
        nearest == list(range(n)) and least < 0.5 * spread,
        "encode(decode(x0)) to be near its own x0",
        f"a mean difference of {least:.2g} where two samples differ by {spread:.2g}",
        advice,
    )
    return None


@check
def check_augmentation_follows_its_rng(model: Model, data: Dataset | None = None) -> Skipped:
    """`encode` takes all its random numbers from the rng that it receives, and without one it takes none.

    A run that is resumed goes on exactly only so, and the held-out loss would change from call to call.
    """
    item, codec = data_of(model, data)[0][0], model.codec.inner
    results = []
    for seed in (1, 2):
        with seeded(seed):
            results.append((codec.encode(item), codec.encode(item, seeds.generator(4))))
    for k, what in enumerate(("no rng", "one rng")):
        advice = "Draw from the rng that `encode` receives, never from torch's or numpy's own."
        close(results[0][k], results[1][k], f"the same encoded object for {what}", advice, within=0)
    made = results[0][1]
    free = codec.size_axis if codec.size_name is not None else None
    right = made.ndim == len(codec.shape) and all(
        a == b or i == free for i, (a, b) in enumerate(zip(made.shape, codec.shape, strict=True))
    )
    require(right, f"an augmented sample like {codec.shape}", tuple(made.shape), "Augmentation keeps the shape.")
    require(torch.isfinite(made).all(), "finite numbers", "NaN or infinity", "See `encode` with an rng.")
    return None


@check
def check_augmentations_are_declared(model: Model, data: Dataset | None = None) -> Skipped:
    """A domain's augmentations are off by default, follow the seed and the position of a batch alone, and give valid objects.

    Off means what the codec alone makes of the data. A field's `examples` hold a value that changes an object.
    """
    domain, codec, found, recipe = model.domain, model.codec, data_of(model, data), model.recipe
    kind = domain.augmentations
    right = isinstance(kind, type) and issubclass(kind, Augment)
    require(right, "`augmentations` to be a class of zoo.contract.augment.Augment", repr(kind), "Inherit from it.")
    refused(lambda: domain.augment({UNKNOWN: 1}), f"the augmentation {UNKNOWN!r}", "Leave `augment` as it is.", UNKNOWN)
    require(not kind().on, "all augmentations off by default", kind().on, "Give each field the default 0.")
    items = [found[i % len(found)] for i in range(4)]
    kept = all(a is b for (a, _), (b, _) in zip(kind().batch(items, codec, 0, 0), items, strict=True))
    require(kept, "the objects themselves where all is off", "other ones", "Leave `batch` as it is; change `apply`.")
    plain = codec.batch(items, seeds.generator(5), recipe.conditions)
    for name, field in kind.model_fields.items():
        examples, advice = field.examples or [], "Field(0.0, ge=0, le=1, description=..., examples=[0.5])"
        require(examples and any(examples), f"an example of {name} that is not 0", examples, advice)
        require(bool(field.description), f"a description of {name}", "none", advice)
        one, made = domain.augment({name: examples[0]}), []
        for seed in (1, 2):
            with seeded(seed):
                made.append(codec.batch(one.batch(items, codec, 3, 8), seeds.generator(5), recipe.conditions))
        advice = "Draw from the rng that `apply` receives, never from torch's or numpy's own."
        close(made[0].x0, made[1].x0, f"the same batch of {name} for the same seed and position", advice, within=0)
        for k in range(9, 17):  # other places of the run: something must change at one of them
            batch = made[0]
            whole = bool(torch.isfinite(batch.x0).all()) and batch.x0.ndim == plain.x0.ndim
            require(whole, f"finite samples of {name}", f"{tuple(batch.x0.shape)}", "`apply` gives an object of the domain.")
            require(list(batch.cond) == list(plain.cond), f"the conditions {list(plain.cond)}", list(batch.cond), "Keep them.")
            if not _equal(batch, plain):
                break
            made[0] = codec.batch(one.batch(items, codec, 3, k), seeds.generator(5), recipe.conditions)
        else:
            require(False, f"{name}={examples[0]} to change one of {4 * 8} objects", "none changed", advice)
    again = codec.batch(items, seeds.generator(5), recipe.conditions)
    advice = "`apply` gives a new object and leaves what came as it is."
    require(_equal(again, plain), "the data to be as before", "other numbers", advice)
    return None if kind.model_fields else "the domain declares no augmentations"


def _equal(a: Batch, b: Batch) -> bool:
    """Whether two batches are equal in every number."""
    return same(a.x0, b.x0) and all(same(a.cond[k], v) for k, v in b.cond.items())


# ---------------------------------------------------------------- conditions


@check
def check_conditions_agree_with_themselves(model: Model) -> Skipped:
    """What a condition reads, batches, embeds, shows and writes down is one and the same thing.

    Values of numpy and torch are as good as Python's, labels match without regard to case, and nothing given is the null.
    """
    if not model.recipe.conditions:
        return "the model is unconditional"
    for name, condition in model.recipe.conditions.items():
        check_condition(name, condition)
    return None


def check_condition(name: str, condition: Condition) -> None:
    """One condition alone, for the author of a new kind; `name` is for messages.

    Raises:
        ContractError: its parts do not agree.
    """
    _describes(name, condition)
    _has_examples(name, condition)
    _reads_back(name, condition)
    _embeds(name, condition)


def _describes(name: str, condition: Condition) -> None:
    kind = getattr(condition, "kind", None)
    known = kind in CONDITIONS and CONDITIONS[str(kind)] is type(condition)
    require(known, f"{name}'s kind {kind!r} to be registered", sorted(CONDITIONS), 'Decorate the class: @condition("...").')
    again = parse_condition(json.loads(json.dumps(condition.json())))
    require(again == condition, f"the same {name} after JSON", repr(again), "Let `json` give every field.")
    text = condition.describe()
    right = isinstance(text, str) and text and "\n" not in text
    require(right, f"{name}.describe() in one line", repr(text), "Say what the condition takes.")


def _has_examples(name: str, condition: Condition) -> None:
    n = 3
    a, b = (condition.example(n, seeds.generator(1)) for _ in range(2))
    require(len(a) == n and same(a, b), f"{n} examples of {name}, the same for one rng", f"{a}, then {b}", "Use the rng.")
    require(not is_null(a).any(), f"examples of {name} that are given", a, "No -1 and no NaN in `example`.")
    none = condition.null(n)
    advice = "`null` is -1 in whole numbers and NaN in others, as null_like says."
    require(same(none, null_like(a)), f"the null of {name} to be {null_like(a)[0]}", none, advice)
    reading = Reading(name)
    nothing = condition.read(None, n, reading)
    require(same(nothing.values, none), f"{name} to be the null where nothing is given", nothing.values, "`read(None)`.")


def _reads_back(name: str, condition: Condition) -> None:
    n, reading = 3, Reading(name)
    example, words = condition.example(n, seeds.generator(1)), condition.showcase(n)
    advice = "`read` takes Python's, numpy's and torch's values alike (zoo.values)."

    def read(value: Any, count: int = n) -> Tensor:
        return condition.read(value, count, reading).values

    try:
        read(example)
        readable = True
    except (ConfigError, ShapeError):  # e.g. an embedded text, which nobody types
        readable = False
    require(readable or words is not None, f"{name} to read its own examples, or a showcase", "neither", "See `read`.")
    if readable:
        for form in (example, example.numpy(), example.tolist(), list(example), list(example.numpy())):
            came = read(form)
            require(same(came, example), f"{name}={example.tolist()} of any type to be read alike", came.tolist(), advice)
        single = example[:1].expand_as(example)
        for form in (example[0], example[0].numpy(), example[0].numpy()[()], example[0].tolist()):
            came = read(form)
            require(same(came, single), f"one {name} of any type for all samples", came.tolist(), advice)
        for form in (list(example), list(example.numpy()), example.tolist()):
            came = condition.batch(form, reading)
            require(same(came, example), f"{name}.batch of any type to be what is read", came.tolist(), advice)
    if words is not None:
        _reads_words(name, condition, words)
    several = words if words is not None else list(example)
    advice = "`read` refuses what it does not know by a ConfigError or ShapeError."
    refused(lambda: read(object()), f"an object as {name}", advice)
    refused(lambda: read([[1.0, 2.0], [3.0]]), f"lists of different lengths as {name}", advice)
    refused(lambda: read([*several, several[0]]), f"{n + 1} values of {name} for {n} samples", advice)


def _reads_words(name: str, condition: Condition, words: list[Any]) -> None:
    n, reading = len(words), Reading(name)
    given = condition.read(words, n, reading)
    wanted = list(words)
    require(given.shown in (None, wanted), f"{name} to be shown as {wanted}", given.shown, "`shown` is the user's words.")
    if condition.classes:
        _reads_classes(name, condition, given.values, words)
    for i, word in enumerate(words):
        if isinstance(word, str):
            came = condition.read(condition.parse(word), 1, reading).values
            require(same(came[0], given.values[i]), f"{name}={word} of a command line to be read alike", came, "See `parse`.")


def _reads_classes(name: str, condition: Condition, values: Tensor, words: list[Any]) -> None:
    n, reading = len(words), Reading(name)
    came = condition.batch(words, reading)
    require(same(came, values), f"{name}.batch({words}) to be {values.tolist()}", came.tolist(), "Names are values, too.")
    came = condition.read(np.array(words), n, reading).values
    require(same(came, values), f"{name} as an array of names to be {values.tolist()}", came.tolist(), "See zoo.values.")
    came = condition.read([words[0], None, *words[2:]], n, reading).values
    require(bool(is_null(came)[1]), f"None in a list of {name} to be the null", came.tolist(), "None is nothing given.")
    for i, word in enumerate(words):
        if sum(str(k).casefold() == str(word).casefold() for k in condition.classes) > 1:
            continue
        for form in (word.upper(), word.lower(), word.swapcase()):
            came = condition.read(form, 1, reading).values
            require(same(came[0], values[i]), f"{form!r} to be {name} {word!r}", came, "Compare names by casefold().")
    refused(lambda: condition.read(UNKNOWN, 1, reading), f"{name}={UNKNOWN!r}", "Name the known ones.", str(words[0]))


def _embeds(name: str, condition: Condition) -> None:
    n, dim = 3, 8
    with seeded(0):
        module = condition.embedding(dim)
    values = condition.example(n, seeds.generator(1)).clone()
    given = module(values, n)
    right = given.shape == (n, dim) and bool(torch.isfinite(given).all())
    require(right, f"{name} embedded as ({n}, {dim}), finite", tuple(given.shape), "See Condition.embedding.")
    nothing = module(None, n)
    values[1:2] = null_like(values[1:2])
    mixed = module(values, n)
    advice = "A row that is null is the learned null, and only that row."
    far = max(apart(mixed[1], nothing[1]), apart(mixed[[0, 2]], given[[0, 2]]))
    require(far <= SAME, f"the null of {name} in its own row", f"a difference of {far:.1e}", advice)
    require(apart(nothing[0], given[0]) > OTHER, f"a null of {name} unlike a value", "the same embedding", advice)
    learned = {k: p for k, p in module.named_parameters() if p.requires_grad}
    if learned:
        gradients = torch.autograd.grad(mixed.sum(), list(learned.values()), allow_unused=True)
        dead = [k for k, g in zip(learned, gradients, strict=True) if g is None or not torch.isfinite(g).all()]
        require(not dead, f"finite gradients in the embedding of {name}", f"none for {', '.join(dead)}", advice)


@check
def check_conditions_are_read_as_the_data_give_them(model: Model, data: Dataset | None = None) -> Skipped:
    """What a dataset gives as a condition, a user may ask for: both become the same tensor.

    A model that is asked in other units than it was trained in answers another question.
    """
    if not model.recipe.conditions:
        return "the model is unconditional"
    item = data_of(model, data)[0]
    batch = model.batch([item])
    for name, value in item[1].items():
        asked = model.plan(1, seed=0, **{name: value}).cond[name]
        far = apart(asked, batch.cond[name])
        advice = "`Codec.condition` turns units of the domain into encoded ones, for data and for users."
        right = asked.dtype == batch.cond[name].dtype and far <= 1e-6
        require(right, f"{name} to be {batch.cond[name].tolist()} as in a batch", asked.tolist(), advice)
    return None


# ---------------------------------------------------------------- the net


@check
def check_the_net_takes_what_it_is_given(model: Model) -> Skipped:
    """The net is a module whose forward takes (x_t, t, cond, *, mask), and `level` if it asks for it by `needs_level`.

    Every part of zoo calls nets in this way, see `zoo.core.diffusion.Denoiser`.
    """
    net = model.denoiser
    require(isinstance(net, nn.Module), "a torch.nn.Module", type(net).__name__, "Weights are saved by their names.")
    further = {"level": None} if getattr(net, "needs_level", False) else {}
    try:
        inspect.signature(net.forward).bind(None, None, {}, mask=None, **further)
    except TypeError as error:
        words = "".join(f", {k}" for k in further)
        raise ContractError(
            f"expected a forward(x_t, t, cond, *, mask{words}); got {type(net).__name__}{inspect.signature(net.forward)} "
            f"({error}). See zoo.core.diffusion.Denoiser."
        ) from None
    return None


@check
def check_the_output_is_like_the_input(model: Model) -> Skipped:
    """What the net returns is shaped like x_t, in the dtype of its weights, and finite, for any number of rows.

    Weights may be in another dtype: float64 for exact sampling, bfloat16 to save memory.
    """
    advice = "Compute in the dtype of x_t, which is that of the weights."
    for n, dtype in ((1, model.dtype), (3, model.dtype), (1, torch.float64), (1, torch.bfloat16)):
        net = model.denoiser if dtype == model.dtype else copy.deepcopy(model.denoiser).to(dtype)
        made: list[Any] = []
        hook = net.register_forward_hook(lambda _, __, out, made=made: made.append(out))
        asked = question(model, n)
        try:
            with torch.no_grad():
                model.diffusion.ask(net, asked.x, asked.t, asked.cond, mask=asked.mask)
        finally:
            hook.remove()
        out = made[-1]
        require(isinstance(out, Tensor), "a tensor", type(out).__name__, "Return the prediction alone.")
        right = out.shape == asked.x.shape and out.dtype == dtype
        wanted = f"{tuple(asked.x.shape)} {dtype} from weights of {dtype}"
        require(right, wanted, f"{tuple(out.shape)} {out.dtype}", advice)
        require(torch.isfinite(out).all(), "finite numbers", f"NaN or infinity from weights of {dtype}", advice)
    return None


@check
def check_every_input_changes_the_output(model: Model) -> Skipped:
    """x_t, t and every condition count: another one gives another output, and a condition that is not given does, too.

    A net that ignores a condition trains well and then does not do what it is asked.
    """
    asked, other = (question(model, 2, seed=seed) for seed in (7, 8))
    out = answer(model, asked)
    changed = {"x_t": replace(asked, x=other.x), "t": replace(asked, t=other.t)}
    for name, condition in model.recipe.conditions.items():
        values = asked.cond[name]
        changed[f"{name}, not given"] = asked.told(**{name: condition.null(2)})
        if not same(values.flip(0), values):
            changed[name] = asked.told(**{name: values.flip(0)})
    if model.diffusion.self_condition:
        guess, known = asked.cond["x0"], asked.cond["known"]
        changed["guess of x0"] = asked.told(x0=other.cond["x0"])
        changed["part of the guess that is known"] = asked.told(known=~known)
        changed["guess of x0, not given"] = asked.told(x0=null_like(guess), known=torch.zeros_like(known))
    advice = "See that the net uses it in forward, and that its path is not multiplied by zero."
    for what, question_ in changed.items():
        unlike(answer(model, question_), out, f"another output for another {what}", advice)
    return None


@check
def check_the_null_is_of_its_rows_alone(model: Model) -> Skipped:
    """A row whose condition is the null is as if nothing had been given at all, and the other rows are as they were.

    Guidance compares rows with and without conditions in one call, and training leaves conditions out row by row.
    """
    if not model.recipe.conditions:
        return "the model is unconditional"
    asked = question(model, 3)
    nulls = {k: c.null(3) for k, c in model.recipe.conditions.items()}
    row = torch.tensor([False, True, False])
    mixed = {k: torch.where(row.reshape(-1, *[1] * (v.ndim - 1)), v, asked.cond[k]) for k, v in nulls.items()}
    out, nothing, some = (answer(model, asked.told(**cond)) for cond in ({}, nulls, mixed))
    advice = "Replace the embedding of each null row (-1 or NaN) by a learned null."
    close(some[[0, 2]], out[[0, 2]], "the other rows to be as they were", advice)
    close(some[1], nothing[1], "a null row to be as if nothing were given", advice)
    require(apart(some[1], out[1]) > OTHER, "a null row to be unlike a given one", "the same output", advice)
    return None


@check
def check_rows_do_not_see_each_other(model: Model) -> Skipped:
    """The output of a row is the same alone and beside others.

    Else a sample would depend on the batch that it is drawn in; normalisation over the batch is the usual reason.
    """
    asked = question(model, 3)
    out = answer(model, asked)
    for i in range(3):
        advice = "Use no statistics over the batch (axis 0)."
        close(answer(model, asked.rows(slice(i, i + 1)))[0], out[i], f"row {i} to be the same alone", advice)
    return None


@check
def check_padding_is_ignored(model: Model) -> Skipped:
    """Where the mask is False, whatever stands there changes nothing elsewhere: a padded sample equals itself alone."""
    mask, axis = short_mask(model, 2), 1 + model.codec.size_axis
    if mask is None:
        return "all samples have one size"
    asked = replace(question(model, 2), mask=mask)
    keep, size = real(model, mask, asked.x), int(mask[1].sum())
    out = answer(model, asked)
    other = {"x0": torch.where(keep, asked.cond["x0"], 9.0)} if model.diffusion.self_condition else {}
    changed = answer(model, replace(asked, x=torch.where(keep, asked.x, 9.0)).told(**other))
    advice = "Leave padding out of attention, means and neighbours: use the mask."
    close(torch.where(keep, changed, 0), torch.where(keep, out, 0), "the same output for other numbers in the padding", advice)
    row = asked.rows(slice(1, 2))
    cut = {k: v.narrow(axis, 0, size) if k in ("x0", "known") and other else v for k, v in row.cond.items()}
    alone = Question(row.x.narrow(axis, 0, size), row.t, cut, mask[1:, :size])
    close(answer(model, alone)[0], out[1].narrow(axis - 1, 0, size), "a padded sample to be as it is alone", advice)
    return None


# ---------------------------------------------------------------- first stages and latents


@check
def check_a_first_stage_gives_objects_back(model: Model) -> Skipped:
    """A first stage encodes objects to latents of the shape that it names, each alone, decodes them, and samples nothing."""
    if not model.is_first_stage:
        return "the model is not a first stage"
    net: Any = model.denoiser
    items = objects(model, 3)
    latents = model.encode(items)
    wanted = (3, *net.latent_shape)
    advice = "See zoo.model.first_stage.Autoencoder."
    require(tuple(latents.shape) == wanted, f"latents {wanted}", tuple(latents.shape), advice)
    alone = model.encode(items[1:2])
    close(alone[0], latents[1], "the latents of an object to be the same alone", "Use no statistics over the batch.")
    made = model.decode(latents)
    kept = len(made) == 3 and all(a.numpy().shape == b.numpy().shape for a, b in zip(made, items, strict=True))
    require(kept, "an object for each latent", made, advice)
    again = model.reconstruct(items)
    require(same(again.tensor, made.tensor), "reconstruct to be encode and decode", "another result", advice)
    with torch.no_grad():
        mean, log_variance = net.encode(object_noise(model, 2).to(model.device))
    right = mean.shape == log_variance.shape == (2, *net.latent_shape) and bool(torch.isfinite(log_variance).all())
    require(right, "mean and log variance of the latents", f"{tuple(mean.shape)}, {tuple(log_variance.shape)}", advice)
    refused(lambda: model.sample(1), "samples of a first stage", "Leave `role` of the recipe as it is.", "first stage")
    return None


@check
@torch.no_grad()
def check_latents_are_made_and_undone(model: Model, data: Dataset | None = None) -> Skipped:
    """Latents have the shape that the net sees and unit deviation on the data, each row its own; the first stage is frozen.

    In training they are drawn from the posterior by the rng; else they are its mean. A folder holds the first stage.
    """
    codec = model.codec
    if not isinstance(codec, Latent):
        return "the model has no first stage"
    x = object_noise(model, 3).to(model.device)
    x0 = codec.lift(x)
    require(tuple(x0.shape[1:]) == codec.shape, f"latents {codec.shape}", tuple(x0.shape[1:]), "See Codec.lift.")
    lowered = codec.lower(x0)
    require(lowered.shape == x.shape, f"{tuple(x.shape)} lowered again", tuple(lowered.shape), "See Codec.lower.")
    close(codec.lift(x[1:2])[0], x0[1], "the latents of a row to be the same alone", "Use no statistics over the batch.")
    drawn, again = (codec.lift(x, seeds.generator(4)) for _ in range(2))
    require(same(drawn, again), "one draw of latents for one rng", "another", "Draw from the rng.")
    frozen = not any(p.requires_grad for p in codec.parameters()) and not codec.stage.training
    model.train()
    frozen = frozen and not codec.stage.training
    model.eval()
    require(frozen, "a first stage that is frozen and never in training mode", "one that is trained", "See Latent.")
    found = data_of(model, data)
    rows = range(min(len(found), 64))
    lifted = codec.lift(torch.stack([codec.encode(found[i][0]) for i in rows]).to(model.device), seeds.generator(5))
    off = float((lifted.std() - 1).abs())
    require(off < 0.3, "latents of about unit deviation on the data", f"{float(lifted.std()):.2f}", "See `fit`.")
    other = rebuilt(model, model.recipe).codec
    if not isinstance(other, Latent):
        raise ContractError("expected a latent codec from the recipe; got another one. Leave `stage` in the recipe's codec.")
    next(iter(other.stage.parameters())).add_(1.0)
    refused(other.seal, "a first stage with other weights", "Keep the SHA-256 of its weights in the recipe.", "SHA-256")
    return None


# ---------------------------------------------------------------- training


@check
@torch.no_grad()
def check_a_hint_holds_true_parts(model: Model) -> Skipped:
    """What `hint` calls known is true: nearer to x0 than the guess was, and x0 itself where the guess is right.

    In-painting tells such nets which parts are given. A net that was told wrong ones learns to distrust them.
    """
    codec, n = model.codec, 6
    batch = training_batch(model, n)
    x0, mask = batch.x0, batch.mask
    keep = torch.ones_like(x0, dtype=torch.bool) if mask is None else real(model, mask, x0)
    guess = x0 + 0.05 * codec.project(torch.randn(x0.shape, generator=seeds.generator(6)) * keep, mask)
    held = False
    for seed in range(3):
        (told_, known), (again, _) = (codec.hint(guess, x0, mask, seeds.generator(seed)) for _ in range(2))
        right = told_.shape == known.shape == x0.shape and known.dtype == torch.bool
        advice = "Return (guess, known), both shaped like x0, known of bool."
        require(right, f"two tensors {tuple(x0.shape)}", f"{tuple(told_.shape)}, {tuple(known.shape)} {known.dtype}", advice)
        require(same(told_, again), "one hint for one rng", "another", "Draw from the rng.")
        require(not (known & ~keep).any(), "known parts among the real elements", "some in the padding", "Use the mask.")
        if not known.any():
            continue
        held = True
        before, after = (float((v - x0)[known].abs().mean()) for v in (guess, told_))
        advice = "Put true parts of x0 where `known` is True; a part that is placed lies as well as it can on the guess."
        came = f"a mean difference of {after:.2g} from x0, and of {before:.2g} before"
        require(after <= 0.7 * before, "known parts to be true", came, advice)
        exact, where = codec.hint(x0, x0, mask, seeds.generator(seed))
        close(exact[where], x0[where], "a right guess to stay right", advice)
    return None if held else "the codec gives no hints: nothing is known in training"


@check
def check_the_further_loss_is_a_finite_scalar(model: Model) -> Skipped:
    """`auxiliary` is a number for every level, finite with its gradient, and does not see the padding."""
    codec, n = model.codec, 4
    batch, rng = training_batch(model, n), seeds.generator(9)
    level = model.diffusion.schedule.draw(n, rng)
    x0, mask = batch.x0, batch.mask
    guess = (x0 + 0.3 * torch.randn(x0.shape, generator=rng)).requires_grad_()
    found = codec.auxiliary(guess, x0, level, mask)
    value = torch.as_tensor(found)
    advice = "Return one number: a sum or a mean over the real elements."
    require(value.ndim == 0 and bool(torch.isfinite(value)), "a finite scalar", found, advice)
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, guess)
        require(torch.isfinite(gradient).all(), "a finite gradient", "NaN or infinity", "Mind 0/0 and sqrt(0).")
    if mask is not None:
        keep = real(model, mask, x0)
        changed = torch.as_tensor(codec.auxiliary(torch.where(keep, guess, 9.0), torch.where(keep, x0, 7.0), level, mask))
        close(changed.detach(), value.detach(), "the same for other numbers in the padding", "Use the mask.")
    return None


@check
def check_the_loss_teaches_every_parameter(model: Model) -> Skipped:
    """The loss of the recipe's objective is a finite scalar, and every parameter of the net has a gradient from it.

    Rows without conditions are among them, so that nulls learn. A parameter without gradient is dead weight, or a slip.
    """
    batch, objective = training_batch(model), objective_of(model.recipe.training)
    dead = {k: p for k, p in model.denoiser.named_parameters() if p.requires_grad}
    require(dead, "a net with parameters to train", "none", "Give the net weights.")
    for seed in range(3):  # what happens to some rows only may miss all of one batch
        loss = objective.loss(model, batch, seeds.generator(2, seed))
        right = isinstance(loss, Tensor) and loss.ndim == 0 and bool(torch.isfinite(loss)) and loss.requires_grad
        require(right, "a loss that is a finite scalar with a graph", loss, "See zoo.training.objective.")
        gradients = torch.autograd.grad(loss, list(dead.values()), allow_unused=True)
        broken = [k for k, g in zip(dead, gradients, strict=True) if g is not None and not torch.isfinite(g).all()]
        require(not broken, "finite gradients", f"NaN or infinity in {', '.join(broken)}", "Mind 0/0 and sqrt(0).")
        dead = {k: p for (k, p), g in zip(dead.items(), gradients, strict=True) if g is None or not g.any()}
        if not dead:
            return None
    raise ContractError(
        f"expected a gradient for every parameter; got none for {', '.join(dead)}. Use them in forward, or take them away."
    )


@check
@torch.no_grad()
def check_the_loss_follows_its_rng(model: Model) -> Skipped:
    """The same rng gives the same loss, whatever torch's own generator is at; another one gives another; padding is ignored.

    Everything random of a training step comes from the rng of that step, so that a resumed run goes on exactly.
    """
    batch, objective = training_batch(model), objective_of(model.recipe.training)
    losses = []
    for seed in (1, 2):
        with seeded(seed):
            losses.append(float(objective.loss(model, batch, seeds.generator(2))))
    advice = "Draw from the rng in `hint`, `auxiliary` and the objective, never from torch's own generator."
    require(losses[0] == losses[1], "one loss for one rng", losses, advice)
    other = float(objective.loss(model, batch, seeds.generator(3)))
    require(other != losses[0], "another loss for another rng", other, "Levels and noise come from the rng.")
    if batch.mask is not None:
        garbage = torch.where(real(model, batch.mask, batch.x0), batch.x0, 7.0)
        changed = float(objective.loss(model, replace(batch, x0=garbage), seeds.generator(2)))
        right = abs(changed - losses[0]) <= SAME * abs(losses[0])
        require(right, f"the loss {losses[0]:.6g} for other numbers in the padding", f"{changed:.6g}", "Use the mask.")
    return None


# ---------------------------------------------------------------- sampling


@check
def check_the_same_sample_for_every_batch_size(model: Model) -> Skipped:
    """Sample i of a seed is the same whatever n, batch size or other use of random numbers; another seed gives another.

    So a sample that somebody likes can be made again from its seed, on a smaller machine too.
    """
    settings = quick(model, seed=5)
    name, small = model.codec.size_name, sizes(model)
    if name is not None and small is not None:
        settings[name] = [small[0], None, small[0]]  # a free size is each sample's own, too

    def draw(n: int = 3, state: int = 1, **other: Any) -> Tensor:
        given = {k: v[:n] if k == name else v for k, v in (settings | other).items()}
        with seeded(state):
            return model.sample(n, **given).tensor

    whole, first = draw(), draw(2)
    advice = "Let nothing in net, codec and projector look at other rows, or draw from torch's own generator."
    close(draw(state=2, batch_size=2), whole, "the same samples with batch_size=2", advice, within=GROWN)
    beside = whole[:2] if name is None else whole[:2, : first.shape[1]]
    close(first, beside, "the same first samples for a smaller n", advice, within=GROWN)
    other = draw(2, seed=6)
    unlike(other, first, "other samples for another seed", "The noise makes the sample.", beyond=GROWN)
    return None


@check
def check_inpainting_keeps_what_is_known(model: Model) -> Skipped:
    """`inpaint` returns the known parts as they are, exactly, with every sampler of such samples, and makes the others new.

    A codec whose values hang together may move the neighbours of known values (`held`), never the known values.
    """
    item = objects(model, 1)[0]
    x = model.objects_encoded(item)
    where = beginning(model, x)
    x0, inside = x, where.expand_as(x)
    if model.codec.inner is not model.codec:
        x0, inside = model.codec.lift_known(x, inside)
    advice = "Let `held` and `hold` put the known values themselves into every prediction."
    usable = [name for name in SAMPLERS if model.codec.period is None or steps_alone(SAMPLERS[name])]
    for n, sampler in ((2 if i == 0 else 1, name) for i, name in enumerate(usable)):
        steps: list[Step] = []
        made = model.inpaint(item, where, n, sampler=sampler, on_step=steps.append, **quick(model))
        last = steps[-1].x
        for row in last:
            close(row[inside], x0[inside], f"known values to be kept by {sampler}", advice)
        if n == 2 and not inside.all():
            unlike(last[0][~inside], last[1][~inside], "other parts in each sample", advice)
        kept = [sample.numpy().shape == item.numpy().shape for sample in made]
        require(all(kept), f"samples of the object's size {item.numpy().shape}", made, "See Held.size.")
    refused(lambda: model.inpaint(None, None, **quick(model)), "in-painting of nothing", "`hold` says what is needed.")
    if model.codec.inner is not model.codec:
        _puts_back(model, where, item, made)
    wrong = torch.ones([k + 1 for k in x.shape], dtype=torch.bool)
    refused(lambda: model.inpaint(item, wrong, **quick(model)), "a mask of another shape", "`hold` compares both shapes.")
    return None


def _puts_back(model: Model, where: Tensor, item: Any, made: Iterable[Any]) -> None:
    """Samples of a latent model hold what is known of an object itself, and nothing of the rest of it."""
    codec, x = model.codec, model.objects_encoded(item)
    inside, advice = where.expand_as(x), "`Held.put_back` puts the known values into what was lowered."
    for sample in made:
        came = codec.encode(sample)
        close(came[inside], codec.encode(item)[inside], "the known values in the samples themselves", advice, within=1e-6)
    changed = codec.decode(torch.where(inside, x, 0.5 - x)[None], {})[0]
    a, b = (codec.lift_known(model.objects_encoded(v), inside) for v in (item, changed))
    close(b[0][a[1]], a[0][a[1]], "known latents that do not hang on what is not known", "See `Codec.lift_known`.")


@check
def check_a_variation_starts_from_its_object(model: Model) -> Skipped:
    """`vary` starts from the object with noise: with little strength it is nearly the object, with full strength it is not."""
    item = objects(model, 1)[0]
    x0, n = model.encoded(item), 4
    near: dict[float, float] = {}
    for strength, steps in ((0.1, 10), (1.0, 1)):
        started: list[Tensor] = []

        def seen(predict: Predict, started: list[Tensor] = started) -> Predict:
            def predicted(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
                started.append(x)
                return predict(x, level)

            return predicted

        made = model.vary(item, strength, n, steer=[seen], **quick(model, steps=steps))
        near[strength] = alike(started[0], x0.expand_as(started[0]))
        kept = [sample.numpy().shape == item.numpy().shape for sample in made]
        require(all(kept), f"samples of the object's size {item.numpy().shape}", made, "See Codec.size_of.")
    came = ", ".join(f"{v:.2f} at strength {k}" for k, v in near.items())
    advice = "See that `encode` gives encoded samples of about unit size, and what the schedule's lowest levels are."
    require(near[0.1] > max(0.5, near[1.0]), "a start near the object at little strength", f"a cosine of {came}", advice)
    return None


# ---------------------------------------------------------------- files, pictures, figures


@check
def check_saved_and_loaded_it_draws_the_same_samples(model: Model) -> Skipped:
    """A model folder holds all of the model: read again it has the same weights and statistics, and draws the same samples.

    The folder's golden output is what its net said when it was saved; `verify` computes it again.
    """
    advice = "Keep everything that sampling depends on in the recipe, the weights and the codec's buffers."
    with tempfile.TemporaryDirectory(prefix="zoo-testing-") as root, registered(model.domain):
        model.save_pretrained(Path(root) / "model")
        again = load(Path(root) / "model")
        require(again.recipe == model.recipe, "the same recipe", repr(again.recipe), advice)
        wrong = again.verify()
        require(wrong == 0, "the golden output again", f"a difference of {wrong:.1e}", advice)
    ours, theirs = model.state_dict(), again.state_dict()
    require(list(ours) == list(theirs), "the same names of tensors", sorted(set(ours) ^ set(theirs)), advice)
    lost = [k for k, v in ours.items() if not same(v, theirs[k])]
    require(not lost, "the same tensors", f"others in {', '.join(lost)}", advice)
    if model.is_first_stage:
        items = objects(model, 2)
        a, b = (m.reconstruct(items).tensor for m in (model, again))
    else:
        a, b = (m.sample(2, **quick(model, seed=1)).tensor for m in (model, again))
    require(same(a, b), "the same samples", f"a difference of {apart(a, b):.1e}", advice)
    return None


@check
def check_samples_are_written_and_drawn(model: Model) -> Skipped:
    """Samples say what they were asked for, are written to one file each with the domain's suffix, and give one picture."""
    domain, n = model.domain, 2
    asked: dict[str, Any] = dict(model.recipe.showcase(n))
    samples = model.sample(n, **quick(model, steps=1), **asked)
    said = {k: v for k, v in samples.conditions.items() if k in asked}
    require(said == asked, f"samples that say {asked}", said, "`Given.shown` is what was asked for.")
    with tempfile.TemporaryDirectory(prefix="zoo-testing-") as root:
        paths = samples.save(Path(root) / "out")
        right = len(set(paths)) == n and all(p.suffix == domain.suffix for p in paths)
        require(right, f"{n} files that end in {domain.suffix}", [p.name for p in paths], "`save` returns its path.")
        empty = [p.name for p in paths if not p.is_file() or not p.stat().st_size]
        require(not empty, "files with something in them", f"none in {', '.join(empty)}", "See `save` of a sample.")
        picture = samples.plot(Path(root) / "all.png")
        right = isinstance(picture, Image.Image) and min(picture.size) > 0 and (Path(root) / "all.png").is_file()
        require(right, "one PIL image of all samples", type(picture).__name__, "See Domain.plot.")
    require(samples[0].plot() is not None, "a picture of one sample", None, "See `plot` of a sample.")
    return None


@check
def check_the_metrics_are_whole(model: Model, evaluator: Evaluator | None = None, measured: int = 16) -> Skipped:
    """Every figure stands beside its ceiling and floor, says which way is better, and how it was measured; all goes to JSON.

    Without an evaluator it is seen that the domain gives one, or says what it needs.
    """
    if evaluator is None:
        with tempfile.TemporaryDirectory(prefix="zoo-testing-") as root:
            try:
                found = model.domain.evaluator(Path(root) / "no-such-data", "test", model)
            except ZooError as error:
                words = str(error).split()
                require(len(words) > 3, "an error that says what is needed", repr(str(error)), "Name the data to give.")
                return None
        require(isinstance(found, Evaluator), "a zoo.evaluation.evaluate.Evaluator", type(found).__name__, "Inherit from it.")
        return None
    result = evaluate(model, measured, evaluator=evaluator, seed=0, steps=2, progress=False)
    advice = 'See zoo.evaluation.evaluate.Evaluator.measure: {"metrics": {...}, "protocol": {...}}.'
    try:
        json.dumps(result, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContractError(f"expected a result that JSON can hold; got {error}. {advice}") from None
    right = isinstance(result.get("protocol"), dict)
    require(right, "a protocol that says how it was measured", result.get("protocol"), advice)
    metrics = result.get("metrics")
    require(isinstance(metrics, dict) and metrics, "metrics by name", metrics, advice)
    for name, metric in result["metrics"].items():
        missing = {"value", "ceiling", "floor", "better"} - set(metric)
        require(not missing, f"{name} to have value, ceiling, floor and better", f"no {', '.join(sorted(missing))}", advice)
    return None

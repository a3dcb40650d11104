"""The contract suite can fail: a domain as a third party writes it keeps the contract, and breaks it in one way at a time."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from torch import nn

import zoo
from zoo import testing
from zoo.contract.augment import Augment, chance
from zoo.contract.codec import Codec
from zoo.contract.conditions import CONDITIONS, Array, Label, condition
from zoo.contract.dataset import Items
from zoo.contract.domain import Domain
from zoo.contract.recipe import EDM, DiffusionPart, Recipe, Sampling, Training
from zoo.contract.registry import domain_names
from zoo.core.samplers import SAMPLERS, Sampler, Step
from zoo.errors import ConfigError, ContractError, DataError, ZooError
from zoo.evaluation.evaluate import Evaluator
from zoo.training.objective import OBJECTIVES, Denoise

# ---- a domain as a third party writes it ---------------------------------------------------------------------


class Dots:
    """A few points of a plane (N, 2)."""

    def __init__(self, points):
        self.points = points

    def numpy(self):
        return self.points

    def save(self, path):
        with path.open("wb") as file:
            np.save(file, self.points)
        return path

    def plot(self, ax=None):
        picture = Image.new("L", (32, 32), 255)
        for x, y in np.clip(self.points * 4 + 16, 0, 31).astype(int):
            picture.putpixel((int(x), int(y)), 0)
        return picture


class DotsCodec(Codec):
    """Points around their mean, in units of their standard deviation; winds in units of 10."""

    axes = ("point", "coordinate")
    size_name = "n_points"

    def __init__(self, points=6):
        super().__init__()
        self.shape = (points, 2)
        self.register_buffer("scale", torch.tensor(2.0))

    def sample_size(self, value, rng):
        if value is None:
            return int(torch.randint(4, self.shape[0] + 1, (), generator=rng))
        if not 2 <= value <= 20:
            raise ConfigError(f"n_points={value}: give 2 to 20.")
        return value

    def fit(self, dataset):
        points = np.concatenate([dataset[i][0].points for i in range(len(dataset))])
        self.scale = torch.tensor(points.std()).float()

    def encode(self, item, rng=None):
        x = torch.from_numpy(item.points).float() / self.scale
        if rng is not None and torch.rand((), generator=rng) < 0.5:
            x = x * torch.tensor([-1.0, 1.0])
        return self.project(x[None])[0]

    def decode(self, x0, cond):
        return [Dots((x * self.scale).numpy()) for x in x0.detach().float()]

    def condition(self, name, value):
        found = super().condition(name, value)
        return found / 10 if name == "wind" else found

    def project(self, x, mask=None):
        if mask is None:
            return x - x.mean(1, keepdim=True)
        keep = mask[..., None]
        x = torch.where(keep, x, 0)
        return torch.where(keep, x - x.sum(1, keepdim=True) / keep.sum(1, keepdim=True), 0)

    def hint(self, guess, x0, mask, rng):
        known = (torch.rand(len(x0), generator=rng) < 0.8)[:, None, None].expand_as(x0).clone()
        known[:, 2:] = False
        return torch.where(known, x0, guess), known

    def auxiliary(self, guess, x0, level, mask=None):
        keep = torch.ones(x0.shape[:2], dtype=torch.bool) if mask is None else mask
        return 0.1 * ((guess - x0).abs().sum(2) * keep).nan_to_num().sum() / keep.sum()


class Net(nn.Module):
    """Each point sees itself, the guess of it, and the mean of all real points."""

    def __init__(self, shape, conditions, width=16):
        super().__init__()
        self.entry = nn.Linear(6, width)
        self.time = nn.Linear(1, width)
        self.given = nn.ModuleDict({k: c.embedding(width) for k, c in conditions.items()})
        self.body = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x_t, t, cond, *, mask=None):
        keep = torch.ones(x_t.shape[:2], dtype=torch.bool) if mask is None else mask
        guess = cond.get("x0", torch.zeros_like(x_t)).nan_to_num()
        known = cond.get("known", torch.zeros_like(x_t)).to(x_t)
        h = self.entry(torch.cat([x_t, guess, known], 2))
        mean = torch.where(keep[..., None], h, 0).sum(1, keepdim=True) / keep.sum(1)[:, None, None]
        h = h + mean + self.time(t[:, None].to(x_t))[:, None]
        return self.body(h + self.conditions(cond, len(t))[:, None])

    def conditions(self, cond, n):
        found = [embed(cond.get(name), n) for name, embed in self.given.items()]
        return sum(found, torch.zeros(n, 1, dtype=self.time.weight.dtype))


RECIPE = Recipe(
    name="tiny",
    domain="dots",
    description="A few points.",
    licence="CC0",
    data="made here",
    paper="none",
    codec={"points": 6},
    denoiser="net",
    net={"width": 16},
    conditions={"colour": Label(values=("red", "Green", "blue")), "wind": Array(shape=(2,))},
    schedule=EDM(kind="edm", sigma_min=0.02, sigma_max=10.0),
    diffusion=DiffusionPart(prediction="x0", weighting="edm", precondition=True, self_condition=True),
    sampling=Sampling(sampler="ddim", steps=4, guidance_weight=0.5),
)


class DotsAugment(Augment):
    """Mirror images, and a wind that is less certain."""

    flip: float = Field(0.0, ge=0, le=1, description="share that are mirrored", examples=[0.5])
    gusts: float = Field(0.0, ge=0, description="standard deviation of the wind", examples=[1.0])

    def apply(self, item, given, rng, codec):
        item = Dots(item.points * [-1, 1]) if chance(self.flip, rng) else item
        return item, {**given, "wind": given["wind"] + self.gusts * torch.randn(2, generator=rng).numpy()}


class DotsDomain(Domain):
    name, suffix = "dots", ".npy"
    denoisers, codecs, augmentations = {"net": Net}, DotsCodec, DotsAugment
    recipe = RECIPE

    def recipes(self):
        return {"tiny": self.recipe}

    def dataset(self, source, split="train", **options):
        raise DataError(f"no dots at {source}: give made-up ones.")

    def plot(self, samples):
        return samples[0].plot()

    def example_data(self, recipe, n=8):
        rng = np.random.default_rng(0)
        found = [rng.normal(size=(6 - i % 2, 2)) * 3 for i in range(n)]
        given = [{"colour": i % 3, "wind": rng.normal(size=2) * 10} for i in range(n)]
        items = [(Dots(x - x.mean(0)), c) for x, c in zip(found, given, strict=True)]
        return Items(items, conditions=recipe.conditions)


class Radius(Evaluator):
    """The mean distance of points from the middle."""

    metric = {"ceiling": 1.0, "floor": 0.0, "better": "near 1"}

    def measure(self, made, **options):
        value = float(np.mean([np.linalg.norm(sample.numpy(), axis=1).mean() for sample in made]))
        return {"metrics": {"radius": {"value": value, **self.metric}}, "protocol": {"samples": len(made)}}


def other(base, **changes):
    """A class like `base` with other attributes; `codec`, `net` and `recipe` are those of a domain."""
    return type("Other", (base,), changes)


def domain(codec=None, net=None, **changes):
    """The domain above with one thing changed."""
    changes |= {} if codec is None else {"codecs": codec}
    changes |= {} if net is None else {"denoisers": {"net": net}}
    return other(DotsDomain, **changes)()


def recipe(**changes):
    return RECIPE.model_copy(update=changes)


# ---- it keeps the contract -----------------------------------------------------------------------------------


def test_a_domain_that_keeps_the_contract_passes_every_check():
    before = torch.get_rng_state()
    ran = testing.check_domain(DotsDomain(), evaluator=Radius())
    assert ran == [f"tiny: {name}" for name in testing.CHECKS], "nothing of this domain is left out"
    assert "dots" not in domain_names(), "it is registered while it is checked only"
    assert torch.equal(torch.get_rng_state(), before)


def test_data_and_recipes_may_be_chosen():
    mine = Items(
        [(Dots(np.random.default_rng(i).normal(size=(5, 2))), {"colour": i % 2}) for i in range(4)],
        conditions={"colour": Label(values=("cyan", "pink"))},
    )
    two = domain(recipes=lambda self: {"tiny": RECIPE, "second": recipe(name="second", net={"width": 8})})
    assert {line.partition(":")[0] for line in testing.check_domain(two, recipes=["second"])} == {"second"}
    model, data = testing.prepared(two, two.recipes()["second"], mine)
    assert data is mine and model.recipe.classes("colour") == ("cyan", "pink") and list(model.recipe.conditions) == ["colour"]
    testing.run("a_batch_holds_what_the_data_gave", model, mine)
    with pytest.raises(ConfigError, match="second"):
        testing.check_domain(two, recipes=["secnd"])
    with pytest.raises(ConfigError, match="padding_is_ignored"):
        testing.run("padding_is_ignord", model, mine)


def test_a_registered_domain_stays_registered():
    mine = DotsDomain()
    zoo.register(mine)
    try:
        testing.check_domain(mine, recipes=["tiny"])
        assert "dots" in domain_names()
        with pytest.raises(ContractError, match="already a domain 'dots'"):
            testing.check_domain(DotsDomain())
    finally:
        zoo.contract.registry.unregister("dots")


def test_what_does_not_apply_says_why():
    plain = domain(recipe=recipe(conditions={}), example_data=lambda self, recipe, n=8: unconditional(n), augmentations=Augment)
    model, data = testing.prepared(plain, plain.recipe)
    assert testing.run("conditions_agree_with_themselves", model, data) == "the model is unconditional"
    assert "tiny: the_null_is_of_its_rows_alone" not in testing.check_domain(plain)


def unconditional(n):
    rng = np.random.default_rng(0)
    return Items([(Dots(rng.normal(size=(5, 2))), {}) for _ in range(n)])


def test_the_error_is_one_of_zoo_and_of_a_test():
    assert issubclass(ContractError, ZooError) and issubclass(ContractError, AssertionError)
    with pytest.raises(ContractError, match="a domain with recipes"):
        testing.check_domain(domain(recipes=lambda self: {}))
    with pytest.raises(ContractError, match=r"dots/tiny, a model can be built.*CheckpointError: no statistics"):
        testing.check_domain(domain(example_data=fails))


def fails(self, recipe, n=8):
    raise zoo.errors.CheckpointError("no statistics")


class SpotCodec(Codec):
    """One point of a plane (2,)."""

    shape = (2,)

    def encode(self, item, rng=None):
        return torch.from_numpy(item.points[0]).float()

    def decode(self, x0, cond):
        return [Dots(x[None].numpy()) for x in x0.detach().float()]


class SpotNet(nn.Module):
    def __init__(self, shape, conditions):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 2))

    def forward(self, x_t, t, cond, *, mask=None):
        return self.net(torch.cat([x_t, t[:, None].to(x_t) / 1000], 1))


class SpotDomain(DotsDomain):
    """The smallest domain: one size, no conditions, nothing that is not asked for."""

    name, codecs, denoisers = "spots", SpotCodec, {"net": SpotNet}
    recipe = Recipe(
        name="tiny", domain="spots", description="A point.", licence="CC0", data="none", paper="none", denoiser="net"
    )
    augmentations = Augment
    example_data = Domain.example_data


def test_the_smallest_domain_passes_what_applies_to_it():
    ran = {line.removeprefix("tiny: ") for line in testing.check_domain(SpotDomain())}
    assert set(testing.CHECKS) - ran == {
        "conditions_agree_with_themselves",
        "conditions_are_read_as_the_data_give_them",
        "the_null_is_of_its_rows_alone",
        "padding_is_ignored",
        "a_hint_holds_true_parts",
        "augmentations_are_declared",
    }


def test_a_condition_is_checked_alone():
    testing.check_condition("colour", Label(values=("red", "Green")))
    with pytest.raises(ContractError, match="kind 'quiet'"):
        testing.check_condition("wind", other(Array, kind="quiet", __annotations__={"kind": str})(shape=(2,)))


# ---- it breaks it, in one way at a time ----------------------------------------------------------------------


def method(name, base, change):
    """A class like `base` whose method gives what `change` makes of the right result: change(self, result, *arguments)."""
    right = getattr(base, name)

    def changed(self, *arguments, **options):
        return change(self, right(self, *arguments, **options), *arguments, **options)

    return other(base, **{name: changed})


class Forgets(DotsCodec):
    """What `fit` finds is a plain attribute."""

    def fit(self, dataset):
        super().fit(dataset)
        self.found, self.scale = float(self.scale), torch.tensor(1.0)

    def decode(self, x0, cond):
        return [Dots((x * getattr(self, "found", 2.0)).numpy()) for x in x0.detach().float()]

    def encode(self, item, rng=None):
        return super().encode(item, rng) / getattr(self, "found", 2.0)


class Shaking(Items):
    """Objects that are other ones each time."""

    def __getitem__(self, i):
        item, given = super().__getitem__(i)
        return Dots(item.points + np.random.default_rng().normal(size=item.points.shape)), given


class Deaf(Net):
    """A net that ignores the colours."""

    def conditions(self, cond, n):
        return super().conditions({"wind": cond["wind"]} if "wind" in cond else {}, n) + 0 * self.given["colour"](None, n)


class AllOrNothing(Net):
    """A net for which one row without a colour takes the colours of all."""

    def conditions(self, cond, n):
        colour = cond.get("colour")
        if colour is not None and (colour < 0).any():
            cond = {**cond, "colour": torch.full_like(colour, -1)}
        return super().conditions(cond, n)


class Crowd(Net):
    """A net that looks at the mean over the batch."""

    def forward(self, x_t, t, cond, *, mask=None):
        return super().forward(x_t, t, cond, mask=mask) + x_t.mean(0)


class Unmasked(Net):
    def forward(self, x_t, t, cond, *, mask=None):
        return super().forward(x_t, t, cond)


class NoMask(Net):
    def forward(self, x_t, t, cond):
        return super().forward(x_t, t, cond)


class Wide(Net):
    def forward(self, x_t, t, cond, *, mask=None):
        return super().forward(x_t, t, cond, mask=mask).double()


class Narrow(Net):
    """A net that computes in float32 whatever its weights are."""

    def forward(self, x_t, t, cond, *, mask=None):
        return super().forward(x_t, t, cond, mask=mask).float()


class Unused(Net):
    def __init__(self, shape, conditions, width=16):
        super().__init__(shape, conditions, width)
        self.spare = nn.Parameter(torch.ones(3))


class Moody(Net):
    """A net with a constant that no file holds."""

    def __init__(self, shape, conditions, width=16):
        super().__init__(shape, conditions, width)
        self.mood = float(torch.rand(()))

    def forward(self, x_t, t, cond, *, mask=None):
        return super().forward(x_t, t, cond, mask=mask) + self.mood


class Plain(nn.Module):
    """A module without a forward: one that `isinstance` takes for a denoiser."""

    def __init__(self, shape, conditions, width=16):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))


class Swallowing(Net):
    """A net that takes any option, and says nothing of those it does not know."""

    def __init__(self, shape, conditions, width=16, **options):
        super().__init__(shape, conditions, width)


def careless(self, options):
    return DotsCodec(options.get("points", 6))


def reversed_rows(self, found, items, rng=None):
    x0, mask = found
    return x0.flip(0), None if mask is None else mask.flip(0)


def unlabelled(self, recipe, dataset):
    return recipe


def shaken(self, recipe, n=8):
    return Shaking(DotsDomain().example_data(recipe, n).items, conditions=recipe.conditions)


def without_wind(self, recipe, n=8):
    items = DotsDomain().example_data(recipe, n).items
    return Items([(item, {"colour": given["colour"]}) for item, given in items], conditions=recipe.conditions)


class Misnamed(Items):
    def given(self, i):
        return super().given(len(self) - 1 - i)


def misnamed(self, recipe, n=8):
    return Misnamed(DotsDomain().example_data(recipe, n).items, conditions=recipe.conditions)


def nonlinear(self, found, x, mask=None):
    return found / found.abs().amax((1, 2), keepdim=True).clamp(min=1e-6)


def guesses_only(self, found, guess, x0, mask, rng):
    return guess, found[1]


def from_nowhere(self, found, guess, x0, mask, rng):
    return found[0] + torch.rand(()) * 1e-3, found[1]


def jumpy(self, found, item, rng=None):
    return found if rng is None else self.project((found + torch.randn(found.shape))[None])[0]


@pytest.fixture(autouse=True)
def extensions():
    """What a program may register; taken away again."""

    @condition("strict")
    class Strict(Label):
        kind: str = "strict"

        def index(self, name, value):
            if isinstance(value, str) and value not in self.values:
                raise ConfigError(f"{name}={value!r}: one of {self.values}.")
            return super().index(name, value)

    @condition("raw")
    class Raw(Array):
        kind: str = "raw"

        def batch(self, values, reading=None):
            return super().batch(values)  # without the codec's units

    @condition("untold")
    class Untold(Array):
        kind: str = "untold"

        def null(self, n):
            return torch.zeros(n, *self.shape)

    def leaky(predict, x, levels, *, rng):
        for a, b in pairwise(levels):
            x0, _ = predict(x, a)
            x = b.alpha * x0 + b.sigma * torch.randn(x.shape)
            yield Step(b, x, x0)

    class Careless(Denoise):
        def loss(self, model, batch, rng):
            return super().loss(model, batch, rng) * (1 + torch.rand(()))

    SAMPLERS.register("leaky", Sampler("leaky", leaky, ()))
    OBJECTIVES.register("careless", Careless)
    yield {"strict": Strict, "raw": Raw, "untold": Untold}
    SAMPLERS.remove("leaky")
    OBJECTIVES.remove("careless")
    for kind in ("strict", "raw", "untold"):
        CONDITIONS.remove(kind)


def conditions(**kinds):
    """A recipe with other conditions, by their JSON."""
    return Recipe.parse(json.loads(RECIPE.model_dump_json()) | {"conditions": RECIPE.conditions | kinds})


COLOURS = list(RECIPE.classes("colour"))


def applying(change):
    """Augmentations that make of an object and its conditions what change(object, conditions) says."""
    return other(DotsAugment, apply=lambda self, item, given, rng, codec: change(item, given))


def pushed(dots):
    dots.points += 0.1
    return dots


class Always(DotsAugment):
    flip: float = 0.5


class Unexplained(DotsAugment):
    flip: float = 0.0


#: (check that must see it, what is broken in words, the broken domain)
BROKEN = [
    ("the_domain_is_whole", "recipe under a wrong name", lambda: domain(recipes=lambda self: {"tyni": RECIPE})),
    ("the_domain_is_whole", "no licence", lambda: domain(recipe=recipe(licence=""))),
    ("the_domain_is_whole", "suffix without a dot", lambda: domain(suffix="npy")),
    ("the_domain_is_whole", "a method that Model has", lambda: domain(methods={"sample": lambda model: None})),
    ("the_recipe_survives_json", "options of the codec ignored", lambda: other(DotsDomain, codec=careless)()),
    ("the_recipe_survives_json", "options of the net ignored", lambda: domain(net=Swallowing)),
    ("the_codec_is_whole", "statistics outside of buffers", lambda: domain(codec=Forgets)),
    (
        "the_codec_is_whole",
        "another size than was asked for",
        lambda: domain(codec=method("sample_size", DotsCodec, lambda self, found, value, rng: 6 if value != 0 else found)),
    ),
    (
        "the_projector_is_linear_and_idempotent",
        "a projector that is not linear",
        lambda: domain(codec=method("project", DotsCodec, nonlinear)),
    ),
    ("the_data_keep_their_protocol", "other objects each time", lambda: domain(example_data=shaken)),
    ("the_data_keep_their_protocol", "conditions of another item", lambda: domain(example_data=misnamed)),
    ("the_data_keep_their_protocol", "a condition that is missing", lambda: domain(example_data=without_wind)),
    ("the_recipe_adapts_to_data", "the labels of other data", lambda: domain(adapt=unlabelled)),
    (
        "a_batch_holds_what_the_data_gave",
        "rows in another order than their conditions",
        lambda: domain(codec=method("stack", DotsCodec, reversed_rows)),
    ),
    (
        "encode_undoes_decode",
        "encode that is not the inverse",
        lambda: domain(codec=method("encode", DotsCodec, lambda self, found, item, rng=None: 2 * found)),
    ),
    (
        "encode_undoes_decode",
        "decode that loses the sample",
        lambda: domain(codec=method("decode", DotsCodec, lambda self, found, x0, cond: [Dots(0 * d.points) for d in found])),
    ),
    (
        "augmentation_follows_its_rng",
        "augmentation from torch's own generator",
        lambda: domain(codec=method("encode", DotsCodec, jumpy)),
    ),
    (
        "augmentations_are_declared",
        "numbers from torch's own generator",
        lambda: domain(augmentations=applying(lambda item, given: (Dots(item.points + torch.randn(1, 2).numpy()), given))),
    ),
    (
        "augmentations_are_declared",
        "objects that are changed in their place",
        lambda: domain(augmentations=applying(lambda item, given: (pushed(item), given))),
    ),
    ("augmentations_are_declared", "nothing changes", lambda: domain(augmentations=applying(lambda *found: found))),
    (
        "augmentations_are_declared",
        "a condition that is lost",
        lambda: domain(augmentations=applying(lambda item, given: (item, {"colour": given["colour"]}))),
    ),
    ("augmentations_are_declared", "on by default", lambda: domain(augmentations=Always)),
    ("augmentations_are_declared", "no examples", lambda: domain(augmentations=Unexplained)),
    (
        "conditions_agree_with_themselves",
        "labels with regard to case",
        lambda: domain(recipe=conditions(colour={"kind": "strict", "values": COLOURS})),
    ),
    (
        "conditions_agree_with_themselves",
        "a null of its own",
        lambda: domain(recipe=conditions(wind={"kind": "untold", "shape": [2]})),
    ),
    (
        "conditions_are_read_as_the_data_give_them",
        "a batch in other units than users ask in",
        lambda: domain(recipe=conditions(wind={"kind": "raw", "shape": [2]})),
    ),
    ("the_net_takes_what_it_is_given", "a module without a forward", lambda: domain(net=Plain)),
    ("the_net_takes_what_it_is_given", "a net without mask", lambda: domain(net=NoMask)),
    ("the_output_is_like_the_input", "float64 out of float32", lambda: domain(net=Wide)),
    ("the_output_is_like_the_input", "always float32", lambda: domain(net=Narrow)),
    ("every_input_changes_the_output", "a condition that is ignored", lambda: domain(net=Deaf)),
    ("the_null_is_of_its_rows_alone", "one null for all rows", lambda: domain(net=AllOrNothing)),
    ("rows_do_not_see_each_other", "a mean over the batch", lambda: domain(net=Crowd)),
    ("padding_is_ignored", "a mask that is ignored", lambda: domain(net=Unmasked)),
    ("a_hint_holds_true_parts", "known parts that are guesses", lambda: domain(codec=method("hint", DotsCodec, guesses_only))),
    ("a_hint_holds_true_parts", "a hint from nowhere", lambda: domain(codec=method("hint", DotsCodec, from_nowhere))),
    (
        "the_further_loss_is_a_finite_scalar",
        "a loss of each row",
        lambda: domain(codec=method("auxiliary", DotsCodec, lambda self, found, guess, *_, **__: found.expand(len(guess)))),
    ),
    ("the_loss_teaches_every_parameter", "a weight that is not used", lambda: domain(net=Unused)),
    (
        "the_loss_follows_its_rng",
        "an objective with numbers from nowhere",
        lambda: domain(recipe=recipe(training=Training(objective="careless"))),
    ),
    (
        "the_same_sample_for_every_batch_size",
        "a sampler with noise from nowhere",
        lambda: domain(recipe=recipe(sampling=Sampling(sampler="leaky", steps=2))),
    ),
    (
        "inpainting_keeps_what_is_known",
        "a codec that moves known parts",
        lambda: domain(codec=method("held", DotsCodec, lambda self, found, known, where: found + 0.1)),
    ),
    (
        "a_variation_starts_from_its_object",
        "a schedule that never comes near the data",
        lambda: domain(recipe=recipe(schedule=EDM(kind="edm", sigma_min=8.0, sigma_max=10.0))),
    ),
    ("saved_and_loaded_it_draws_the_same_samples", "a constant that is not saved", lambda: domain(net=Moody)),
    ("samples_are_written_and_drawn", "no picture", lambda: domain(plot=lambda self, samples: None)),
    ("the_metrics_are_whole", "an error that says nothing", lambda: domain(evaluator=refuse)),
    ("the_metrics_are_whole", "no evaluator", lambda: domain(evaluator=lambda self, data, split, model: model)),
]


def refuse(self, data, split, model):
    raise ConfigError("no.")


def test_every_check_is_seen_to_fail():
    assert {name for name, *_ in BROKEN} == set(testing.CHECKS)


@pytest.mark.parametrize(("name", "what", "made"), BROKEN, ids=[f"{n}-{w}" for n, w, _ in BROKEN])
def test_a_broken_domain_fails_in_the_check_that_is_made_for_it(name, what, made):
    with pytest.raises(ContractError) as caught:
        testing.check_domain(made())
    assert f"/tiny, {name.replace('_', ' ')}: " in str(caught.value) or f"/tyni, {name.replace('_', ' ')}: " in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("metric", "message"),
    [({"ceiling": 1.0, "better": "near 1"}, "no floor"), ({"ceiling": float("nan"), "floor": 0.0, "better": "x"}, "JSON")],
)
def test_a_figure_without_its_floor_is_seen(metric, message):
    with pytest.raises(ContractError, match=message):
        testing.check_domain(DotsDomain(), evaluator=other(Radius, metric=metric)())

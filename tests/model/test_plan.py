"""Plans: every argument of `sample` in whatever form it comes, and the settings that samples keep."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.contract.codec import Codec
from zoo.contract.recipe import Few, Sampling
from zoo.core import seeds
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import FlowSchedule
from zoo.errors import ConfigError
from zoo.model.loading import build

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


@pytest.fixture(scope="module")
def model():
    model = zoo.create("image/fashion-ddpm", **SMALL)
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=seeds.generator(i))
    return model


#: what Python gives, and the same from numpy and torch
FORMS = [
    lambda value: np.asarray(value)[()] if np.ndim(value) == 0 else np.asarray(value),
    lambda value: (
        value if isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], str)) else torch.tensor(value)
    ),
    lambda value: np.array(value),
]


@pytest.mark.parametrize("form", FORMS, ids=["numpy", "torch", "0-d array"])
def test_numbers_labels_and_lists_of_numpy_and_torch_are_as_good_as_pythons(model, form):
    given = {"n": 2, "sampler": "heun", "steps": 3, "guidance_weight": 0.5, "seed": 4, "batch_size": 1, "s_churn": 1.0,
             "guidance_interval": [0.25, 5.0], "guidance_rescale": 0.5, "clip": 1.0, "label": [3, 7]}  # fmt: skip
    expected = model.sample(**given, progress=False)
    found = model.sample(**{k: v if k == "sampler" else form(v) for k, v in given.items()}, progress=False)
    assert torch.equal(found.tensor, expected.tensor) and found.conditions == expected.conditions
    assert found.plan.settings() == expected.plan.settings()
    named = model.sample(2, label=np.array(["Dress", "sneaker"]), seed=0, steps=1, progress=False)
    assert named.conditions == {"label": ["dress", "sneaker"]}
    varied = model.vary(expected[0], form(0.5), n=form(1), seed=0, steps=2, progress=False)
    assert varied.plan.steps == 1


def test_arrays_of_torch_and_numpy_are_as_good_as_each_other(model):
    known = model.sample(1, seed=0, steps=1, progress=False)[0]
    where = np.zeros((28, 28), dtype=bool)
    where[:, :14] = True
    settings = {"seed": 1, "steps": 2, "progress": False}
    expected = model.inpaint(known, where, **settings).tensor
    pixels = torch.from_numpy(known.pixels)
    for form in (known.pixels, pixels, model.codec.encode(known)):
        assert torch.equal(model.inpaint(form, torch.from_numpy(where), **settings).tensor, expected)


def test_samples_keep_the_settings_that_were_used(model):
    default = model.recipe.sampling
    used = model.sample(1, label="bag", seed=0, steps=2, progress=False).plan.settings()
    assert used == {
        "sampler": default.sampler,
        "steps": 2,
        "guidance_weight": default.guidance_weight,
        "spacing": default.spacing,
        "bounds": default.at(2).bounds,
        "guidance_interval": default.guidance_interval,
        "guidance_rescale": 0.0,
        "clip": default.clip,
        "guess_below": None,
        "precision": "fp32",
    }
    free = model.sample(1, seed=0, steps=2, progress=False).plan.settings()
    assert free["guidance_weight"] == 0.0 and free["guidance_interval"] is None, "nothing was asked for, so nothing is guided"
    given = {"sampler": "heun", "steps": 3, "s_churn": 2.0, "s_noise": 1.01, "clip": None, "guidance_scale": 1.5}
    used = model.sample(1, label="bag", seed=0, progress=False, **given).plan.settings()
    assert used["s_churn"] == 2.0 and used["s_noise"] == 1.01 and used["guidance_weight"] == 0.5 and used["clip"] is None
    again = model.sample(1, label="bag", seed=0, progress=False, **used)
    assert torch.equal(again.tensor, model.sample(1, label="bag", seed=0, progress=False, **given).tensor)
    each = model.plan(1, label="bag", guidance_weight={"label": 2.0}).settings()["guidance_weight"]
    assert each == {"label": 2.0}


#: a recipe whose defaults are all something, so that what a call turned off must be said
SOME = SMALL | {
    "sampling.clip": 0.5, "sampling.guidance_interval": [0.3, 5.0], "sampling.guess_below": 1.0,
    "sampling.guidance_weight": 1.0, "diffusion.self_condition": True,
}  # fmt: skip


def test_the_settings_of_a_call_replay_it_whatever_it_turned_off():
    model = zoo.create("image/fashion-ddpm", **SMALL)
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.2 * torch.randn(p.shape, generator=seeds.generator(i))
    parts = {"diffusion.self_condition": False}
    other = zoo.create("image/fashion-ddpm", **SOME | parts)
    other.load_state_dict(model.state_dict())
    fixed = {"label": "bag", "seed": 3, "progress": False}
    off = {"clip": None, "guidance_interval": None, "guess_below": None}
    free = other.sample(1, steps=4, guidance_weight=2.0, **off, **fixed)
    assert {k: free.plan.settings()[k] for k in off} == off
    assert torch.equal(other.sample(1, **free.plan.settings(), **fixed).tensor, free.tensor)
    assert not torch.equal(other.sample(1, steps=4, guidance_weight=2.0, **fixed).tensor, free.tensor)
    assert math.isinf(other.plan(1, guess_below=None).guess_below) and other.plan(1).guess_below == 1.0


def test_the_settings_of_a_variation_have_all_its_steps(model):
    item = model.sample(1, seed=0, steps=1, progress=False)[0]
    varied = model.vary(item, 0.3, seed=1, steps=10, progress=False)
    settings = varied.plan.settings()
    assert (varied.plan.steps, settings["steps"], settings["strength"]) == (3, 10, 0.3)
    again = model.vary(item, seed=1, progress=False, **settings)
    assert torch.equal(again.tensor, varied.tensor) and again.plan.settings() == settings


ODD_ARGUMENTS = [
    ({"n": 10**30}, "n="),
    ({"sampler": []}, "sampler"),
    ({"sampler": {}}, "sampler"),
    ({"spacing": []}, "spacing"),
    ({"sampler": "ddim", "eta": "a"}, "eta"),
    ({"sampler": "ddim", "eta": [1]}, "eta"),
    ({"sampler": "heun", "s_churn": "a"}, "s_churn"),
    ({"sampler": "dpmpp", "lower_order_final": "no"}, "lower_order_final"),
    ({"sampler": "ddpm", "variance": 3}, "variance"),
    ({"guidance_interval": [True, 2]}, "interval"),
    ({"on_step": 3}, "on_step"),
    ({"progress": "yes"}, "progress"),
]


@pytest.mark.parametrize(("given", "word"), ODD_ARGUMENTS)
def test_an_argument_of_another_kind_is_one_clear_error(model, given, word):
    with pytest.raises(ConfigError, match=word):
        model.sample(**{"n": 1, "steps": 1, "progress": False} | given)


def test_a_plan_says_what_sample_would_do_without_doing_it(model):
    plan = model.plan(5, steps=4, batch_size=2, seed=3)
    assert [list(rows) for rows in plan.rows()] == [[0, 1], [2, 3], [4]]
    assert plan.steps == 4 and len(plan.levels) == 5 and plan.seed == 3
    chunk = plan.chunk(range(2, 4))
    assert len(chunk) == 2 and chunk.sizes is None
    noise = chunk.rng.normal(torch.zeros(2, 1, 28, 28))
    assert torch.equal(noise, seeds.SampleRng(3, range(5)).normal(torch.zeros(5, 1, 28, 28))[2:4])
    with pytest.raises(ConfigError, match="colour"):
        model.plan(1, colour="red")


def test_options_of_churn_are_refused_where_nothing_churns(model):
    with pytest.raises(ConfigError, match=r"unknown argument or condition.*s_churn"):
        model.plan(1, sampler="ddim", s_churn=1.0)
    assert math.isinf(model.plan(1).guess_below)


class Frames:
    def __init__(self, values):
        self.values = values

    def numpy(self):
        return self.values.T  # frames first, as samples of different sizes are stacked


class FrameCodec(Codec):
    """Bands of so many frames: the second axis has a size of its own."""

    shape, axes, size_name, size_axis = (3, 6), ("band", "frame"), "frames", 1

    def sample_size(self, value, rng):
        return 6 if value is None else value

    def encode(self, item, rng=None):
        return torch.as_tensor(item.values if isinstance(item, Frames) else item, dtype=torch.float32)

    def decode(self, x0, cond):
        return [Frames(x.numpy()) for x in x0]

    def project(self, x, mask=None):
        keep = torch.ones_like(x, dtype=torch.bool) if mask is None else mask[:, None].expand_as(x)
        mean = torch.where(keep, x, 0).sum(2, keepdim=True) / keep.sum(2, keepdim=True)
        return torch.where(keep, x - mean, 0)


class FrameNet(nn.Module):
    """Adds the mean over the real frames, so that padding would show."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.3))

    def forward(self, x_t, t, cond, *, mask=None):
        keep = torch.ones_like(x_t, dtype=torch.bool) if mask is None else mask[:, None].expand_as(x_t)
        mean = torch.where(keep, x_t, 0).sum(2, keepdim=True) / keep.sum(2, keepdim=True)
        return self.gain * (x_t + mean + t[:, None, None])


def test_the_axis_of_sizes_need_not_be_the_first(tmp_path):
    model = zoo.Model.of(Diffusion(FlowSchedule(), "flow"), FrameNet(), FrameCodec())
    settings = {"seed": 2, "sampler": "ddpm", "steps": 4, "progress": False}
    together = model.sample(3, frames=[2, 5, 9], **settings)
    assert [s.values.shape for s in together] == [(3, 2), (3, 5), (3, 9)]
    apart = model.sample(3, frames=[2, 5, 9], batch_size=1, **settings)
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-6)
        assert abs(a.values.mean(1)).max() < 1e-6
    known = together[1]
    where = torch.tensor([True, True, False, False, False])
    (filled,) = model.inpaint(known, where, n=1, **settings)
    assert filled.values.shape == (3, 5)
    np.testing.assert_allclose(filled.values[:, :2], known.values[:, :2], atol=1e-6)
    batch = model.batch([(torch.ones(3, n), {}) for n in (2, 5)])
    assert batch.x0.shape == (2, 3, 5) and batch.mask.sum(1).tolist() == [2, 5] and not batch.x0[0, :, 2:].any()
    assert model.save_pretrained(tmp_path / "m") and model.verify(tmp_path / "m") == 0.0


def test_guidance_that_acts_at_no_step_warns(model):
    with pytest.warns(UserWarning, match=r"acts at no step: none of the 2 .* Take more steps"):
        model.plan(1, label="bag", steps=2, guidance_weight=5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.plan(1, label="bag", steps=5, guidance_weight=5.0)
        model.plan(1, label="bag", steps=2, guidance_weight=0.0)
        model.plan(1, steps=2)  # nothing is asked for, neither a label nor guidance
    with pytest.warns(UserWarning, match="no condition is given"):
        model.plan(1, steps=5, guidance_weight=5.0)


def test_one_step_warns_unless_the_recipe_is_made_for_it(model):
    with pytest.warns(UserWarning, match="1 step: .* first guess from pure noise"):
        model.plan(1, steps=1)
    for sampling in (Sampling(steps=1), Sampling(few=(Few(steps=1),))):
        made_for_it = build(model.recipe.model_copy(update={"sampling": sampling}))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made_for_it.plan(1, steps=1)


def test_samplers_that_need_more_steps_with_a_model_warn(model):
    sampling = model.recipe.sampling.model_copy(update={"least": {"ddpm": 20, "ddpm variance=large": 60, "heun": None}})
    measured = build(model.recipe.model_copy(update={"sampling": sampling}))
    with pytest.warns(UserWarning, match="ddpm with 19 steps gives poor samples of this model: take 20 or more"):
        measured.plan(1, sampler="ddpm", steps=19)
    with pytest.warns(UserWarning, match="ddpm with 59 steps .* take 60 or more"):
        measured.plan(1, sampler="ddpm", variance="large", steps=59)
    with pytest.warns(UserWarning, match="heun with 400 steps gives poor samples of this model: take another sampler"):
        measured.plan(1, sampler="heun", steps=400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured.plan(1, sampler="ddpm", steps=20)
        measured.plan(1, sampler="ddpm", variance="small", steps=20)
        measured.plan(1, sampler="ddpm", variance="large", steps=60)
        measured.plan(1, sampler="ddim", steps=2)
        model.plan(1, sampler="ddpm", steps=19)


def test_bounds_are_those_of_the_grid_and_kept_in_the_settings(model):
    plan = model.plan(1, steps=4, bounds=[0.03, 20.0])
    assert [plan.levels[i].ratio for i in (0, 3)] == pytest.approx([20.0, 0.03])
    assert plan.settings()["bounds"] == (0.03, 20.0)
    assert model.plan(1, **plan.settings()).levels == plan.levels
    with pytest.raises(ConfigError, match="spacing='karras'"):
        model.plan(1, spacing="trailing", bounds=(0.03, 20.0))


def test_a_recipe_has_other_defaults_for_few_steps(model):
    few = [
        {"steps": 10, "bounds": [0.03, 60.0], "guidance_weight": 0.1},
        {"steps": 4, "sampler": "heun", "spacing": "trailing"},
    ]
    other = zoo.create("image/fashion-ddpm", **SMALL, **{"sampling.few": few})
    found = {steps: other.plan(1, label="bag", steps=steps).settings() for steps in (3, 5, 10, 11)}
    assert [found[k]["sampler"] for k in found] == ["heun", "dpmpp", "dpmpp", "dpmpp"]
    assert [found[k].get("bounds") for k in found] == [None, (0.03, 60.0), (0.03, 60.0), other.recipe.sampling.bounds]
    assert [found[k]["guidance_weight"] for k in found] == [0.3, 0.1, 0.1, 0.3]
    assert other.plan(1, steps=5, bounds=(0.1, 9.0)).settings()["bounds"] == (0.1, 9.0), "what is asked for counts"
    for settings in found.values():
        assert other.plan(1, label="bag", **settings).settings() == settings


# ---------------------------------------------------------------- precision


class Watched(nn.Module):
    """A net that keeps in which dtype it multiplied, and which it received."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(28, 28), []

    def forward(self, x, t, cond, *, mask=None):
        out = self.layer(x)
        self.seen.append((x.dtype, t.dtype, out.dtype))
        return out


@pytest.fixture
def watched(model):
    return zoo.Model.of(model.diffusion, Watched(), zoo.create("image/fashion-ddpm", **SMALL).codec)


def test_bf16_is_of_the_net_alone(watched):
    steps = list(watched.sample_iter(2, seed=0, steps=2, precision="bf16"))
    assert watched.denoiser.seen == [(torch.float32, torch.float32, torch.bfloat16)] * 2
    assert all(step.x.dtype == step.x0.dtype == torch.float32 for step in steps)
    assert watched.denoiser.layer.weight.dtype == torch.float32, "the weights stay"


def test_bf16_is_of_a_guided_net_too(model):
    watched = build(model.recipe)
    watched.denoiser = Watched()
    list(watched.sample_iter(2, seed=0, steps=4, label="bag", guidance_weight=1.0, guidance_interval=None, precision="bf16"))
    assert watched.denoiser.seen == [(torch.float32, torch.float32, torch.bfloat16)] * 4


def test_a_sample_in_bf16_is_close_to_that_in_fp32_and_its_settings_say_so(model):
    fine, coarse = (model.sample(2, label="bag", seed=3, steps=4, progress=False, precision=p) for p in ("fp32", "bf16"))
    error = (fine.tensor - coarse.tensor).abs().max()
    assert 0 < error < 0.1
    assert (fine.plan.settings()["precision"], coarse.plan.settings()["precision"]) == ("fp32", "bf16")
    again = model.sample(2, label="bag", seed=3, progress=False, **coarse.plan.settings())
    assert torch.equal(again.tensor, coarse.tensor)


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_where_the_machine_multiplies_it(model, monkeypatch, native):
    monkeypatch.setattr("zoo.model.model.native_bf16", lambda device: native)
    assert model.plan(1, precision="auto").precision == ("bf16" if native else "fp32")
    assert model.plan(1).precision == "fp32", "the default is the same on every machine"


def test_load_sets_the_precision_of_its_samples(model, tmp_path):
    model.save_pretrained(tmp_path / "m")
    loaded = zoo.load(tmp_path / "m", precision="bf16")
    assert loaded.plan(1).precision == "bf16" and loaded.plan(1, precision="fp32").precision == "fp32"
    assert loaded.dtype == torch.float32
    for wrong in ("half", 16, True, np.array(["bf16", "fp32"])):
        with pytest.raises(ConfigError, match="precision"):
            zoo.load(tmp_path / "m", precision=wrong)
        with pytest.raises(ConfigError, match="precision"):
            model.plan(1, precision=wrong)
    with pytest.raises(ConfigError, match="Did you mean 'precision'"):
        model.plan(1, precison="bf16")
    with pytest.raises(ConfigError, match="float64"):
        zoo.load(tmp_path / "m", dtype="float64").plan(1, precision="bf16")


# ---------------------------------------------------------------- what guidance leads away from


def test_negative_conditions_stand_where_nothing_would():
    model = zoo.load("image/fashion-ddpm")
    plain = model.sample(2, label="bag", seed=0, steps=3, guidance_weight=2.0, progress=False).tensor
    away = model.sample(2, label="bag", seed=0, steps=3, guidance_weight=2.0, negative={"label": "trouser"}, progress=False)
    assert not torch.equal(torch.as_tensor(away.tensor), torch.as_tensor(plain))
    single = model.sample(
        2, label="bag", seed=0, steps=3, guidance_weight={"label": 2.0}, negative={"label": "trouser"}, progress=False
    )
    torch.testing.assert_close(single.tensor, away.tensor, atol=0.02, rtol=0)
    none = model.sample(2, label="bag", seed=0, steps=3, guidance_weight=2.0, negative={"label": None}, progress=False)
    assert torch.equal(torch.as_tensor(none.tensor), torch.as_tensor(plain))
    some = model.sample(
        2, label="bag", seed=0, steps=3, guidance_weight=2.0, negative={"label": [None, "trouser"]}, progress=False
    )
    torch.testing.assert_close(some.tensor[0], plain[0], atol=0.02, rtol=0)
    torch.testing.assert_close(some.tensor[1], away.tensor[1], atol=0.02, rtol=0)
    assert away.plan.settings()["negative"] == {"label": ["trouser"] * 2} and "negative" not in none.plan.settings()
    alone = model.sample(1, seed=0, steps=3, guidance_weight=2.0, negative={"label": "trouser"}, progress=False).tensor
    nothing = model.sample(1, seed=0, steps=3, progress=False).tensor
    assert not torch.equal(torch.as_tensor(alone), torch.as_tensor(nothing)), "away from something is also a wish"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negative": "bag"}, r"give \{condition: value\}"),
        ({"negative": {"lable": "bag"}}, "Did you mean 'label'"),
        ({"negative": {"label": "cloud"}}, "unknown negative label 'cloud'"),
        ({"negative": {"label": "bag"}, "guidance_weight": 0}, "none acts on 'label'"),
    ],
)
def test_a_negative_that_would_do_nothing_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        zoo.load("image/fashion-ddpm").plan(2, label="bag", **arguments)

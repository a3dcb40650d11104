"""Steers: known parts, parts that are laid anywhere, and steers that differentiate through the net."""

import pytest
import torch
from oracle import SCHEDULES, predict

import zoo
from zoo.core import steer
from zoo.core.samplers import SAMPLERS, get_sampler
from zoo.core.schedule import DiscreteSchedule
from zoo.core.seeds import SampleRng
from zoo.core.steer import STEERS, Hold, Place, gradient, hold, noise_of, traced
from zoo.errors import ConfigError, ShapeError

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}

WHERE = torch.zeros(28, 28, dtype=torch.bool)
WHERE[:, :14] = True


@pytest.fixture(scope="module")
def small():
    return zoo.create("image/fashion-ddpm", **SMALL)


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_known_parts_come_out_exact(name, schedule):
    levels = SCHEDULES[schedule].levels(6)
    where = torch.tensor([True, False, True, False])
    known = torch.tensor([0.25, 9.0, -0.5, 9.0], dtype=torch.float64)
    *_, step = get_sampler(name)(Hold(known, where)(predict), X, levels, rng=SampleRng(0, range(3)))
    torch.testing.assert_close(step.x[:, where], known[where].expand(3, 2), rtol=0, atol=1e-15)
    assert torch.isfinite(step.x).all()
    assert (step.x[:, ~where] != 9).all()


def test_held_eps_belongs_to_the_known_x0():
    level = DiscreteSchedule().level(300)
    where = torch.ones(4, dtype=torch.bool)
    x0, eps = Hold(torch.zeros(4, dtype=torch.float64), where)(predict)(X, level)
    torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, X)
    half = torch.tensor([True, False, False, False])
    _, eps = Hold(torch.zeros(4, dtype=torch.float64), half)(predict)(X, level)
    assert torch.equal(eps[:, ~half], predict(X, level)[1][:, ~half]), "unknown parts keep the prediction's own noise"
    for kind, what in ((Hold, x0), (Place, lambda x0: x0)):
        with pytest.raises(ShapeError, match="bool"):
            kind(what, where.float())


def test_what_is_known_may_depend_on_the_prediction():
    level, where = DiscreteSchedule().level(300), torch.tensor([True, False, False, True])
    found = hold(lambda x0: torch.where(where, 2 * x0, 3 * x0), where)
    x0, eps = found(predict)(X, level)
    torch.testing.assert_close(x0, torch.where(where, 2, 3) * predict(X, level)[0])
    torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, X)
    assert isinstance(found, Place) and isinstance(hold(X, where), Hold)


def towards(target, strength):
    """A steer of an energy |x0 - target|^2: one step down its gradient, through the net."""

    def wrap(inner):
        def pushed(x, level):
            x0, _, slope = gradient(inner, x, level, lambda x0: (x0 - target).square().flatten(1).sum(1))
            better = x0 - strength * slope
            return better, noise_of(x, better, level)

        return pushed

    return wrap


def test_gradients_flow_only_where_a_steer_asks():
    model = zoo.create("image/fashion-ddpm", **SMALL)
    with torch.no_grad():
        for p in model.denoiser.parameters():
            p += 0.02
    graphs = []

    def spy(inner):
        def watched(x, level):
            graphs.append((torch.is_grad_enabled(), x.requires_grad))
            return inner(x, level)

        return watched

    settings = {"seed": 0, "steps": 3, "sampler": "ddim", "progress": False}
    plain = model.sample(2, steer=[spy], **settings)
    assert set(graphs) == {(False, False)}, "no graph is built where nobody asks"
    graphs.clear()
    target = torch.full((1, 28, 28), -1.0)
    pushed = model.sample(2, steer=[spy, towards(target, 0.5)], **settings)
    assert set(graphs) == {(True, True)}
    far, near = ((s.tensor - target).square().mean() for s in (plain, pushed))
    assert near < far, "the energy is lower"
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model.sample(2, steer=towards(target, 0.5), **settings).tensor, pushed.tensor), "one steer alone"


def test_the_gradient_is_that_of_the_oracle():
    """E[x0 | x] is affine in x for Gaussian data: x0 = c + g x, so d |x0 - 1|^2 / dx = 2 g (x0 - 1)."""
    level = DiscreteSchedule().level(300)
    x0, eps, slope = gradient(predict, X, level, lambda x0: (x0 - 1).square().sum(1))
    gain = (predict(X + 1, level)[0] - predict(X, level)[0])[0, 0]
    torch.testing.assert_close(slope, 2 * gain * (x0 - 1))
    torch.testing.assert_close((x0, eps), predict(X, level))
    assert not (x0.requires_grad or eps.requires_grad or slope.requires_grad)
    leaf, x0, _ = traced(predict, X, level)
    (product,) = torch.autograd.grad(x0, leaf, torch.ones_like(x0))
    torch.testing.assert_close(product, torch.full_like(X, gain))


def test_steers_work_alike_in_inpainting_variation_and_iteration():
    model = zoo.create("image/fashion-ddpm", **SMALL)
    known = model.sample(1, seed=0, steps=1, progress=False)[0]
    where = torch.zeros(28, 28, dtype=torch.bool)
    where[:, :14] = True
    white = lambda inner: lambda x, level: (torch.ones_like(x), noise_of(x, torch.ones_like(x), level))  # noqa: E731
    (held,) = model.inpaint(known, where, steer=[white], seed=0, steps=2, progress=False)
    assert (held.pixels == 255).all(), "a further steer comes around that of the known parts"
    assert (model.vary(known, 0.5, steer=[white], seed=0, steps=2, progress=False)[0].pixels == 255).all()
    *_, last = model.sample_iter(1, steer=[white], seed=0, steps=2)
    torch.testing.assert_close(last.x, torch.ones(1, 1, 28, 28))
    *_, last = model.sample_iter(1, known=torch.zeros(1, 28, 28), where=where, seed=0, steps=2)
    assert (last.x[..., :14] == 0).all()
    with pytest.raises(ConfigError, match="both, or none"):
        model.sample_iter(1, known=torch.zeros(1, 28, 28))


def test_steers_of_other_packages_are_attributes(monkeypatch):
    STEERS.register("towards", towards)
    try:
        assert zoo.steer.towards is towards and steer.towards is towards
    finally:
        STEERS.remove("towards")
    with pytest.raises(AttributeError, match="no attribute 'towards'"):
        _ = zoo.steer.towards


PAIR = (torch.zeros(2, 1, 28, 28), torch.zeros(2, 1, 28, 28))
ODD_STEERS = {
    "nothing": lambda predict: lambda x, level: None,
    "one tensor": lambda predict: lambda x, level: predict(x, level)[0],
    "three": lambda predict: lambda x, level: (*predict(x, level), 1),
    "both in one": lambda predict: lambda x, level: torch.stack(predict(x, level)),
    "numpy": lambda predict: lambda x, level: (predict(x, level)[0].numpy(), PAIR[1]),
    "another shape": lambda predict: lambda x, level: (PAIR[0][:, :, :3], PAIR[1]),
    "one sample for all": lambda predict: lambda x, level: (PAIR[0][:1], PAIR[1]),
    "noise that broadcasts": lambda predict: lambda x, level: (PAIR[0], torch.zeros(1)),
    "whole numbers": lambda predict: lambda x, level: (PAIR[0].long(), PAIR[1]),
    "a prediction without arguments": lambda predict: lambda: PAIR,
    "a steer without arguments": lambda: PAIR,
    "a class in place of its object": Hold,
    "known parts of another shape": Hold(torch.zeros(5, 5), torch.ones(5, 5, dtype=torch.bool)),
}


@pytest.mark.parametrize("name", ODD_STEERS)
def test_a_steer_that_gives_no_prediction_like_x_is_named(small, name):
    with pytest.raises((ConfigError, ShapeError)):
        small.sample(2, steer=ODD_STEERS[name], sampler="ddim", steps=1, seed=0, progress=False)


ODD_ENERGIES = {
    "a number": lambda x0: 3.0,
    "nothing": lambda x0: None,
    "cut off": lambda x0: x0.detach().sum(),
    "every pixel": lambda x0: x0.square(),
}


@pytest.mark.parametrize("name", ODD_ENERGIES)
def test_an_energy_without_a_gradient_is_named(name):
    with pytest.raises((ConfigError, ShapeError), match="energy"):
        gradient(predict, X, DiscreteSchedule().level(300), ODD_ENERGIES[name])


ODD_KNOWN = {
    "not finite": (torch.full((1, 28, 28), float("nan")), WHERE),
    "another shape": (torch.zeros(5, 5), WHERE),
    "an object": ("a.png", WHERE),
    "a mask of another shape": (torch.zeros(1, 28, 28), torch.ones(5, 5, dtype=torch.bool)),
    "a text for a mask": (torch.zeros(1, 28, 28), "left"),
    "a ragged mask": (torch.zeros(1, 28, 28), [[True], [True, False]]),
    "a mask of numbers": (torch.zeros(1, 28, 28), WHERE.float()),
}


@pytest.mark.parametrize("name", ODD_KNOWN)
def test_known_parts_that_do_not_fit_are_refused_before_the_first_step(small, name):
    known, where = ODD_KNOWN[name]
    with pytest.raises((ConfigError, ShapeError)):
        small.sample_iter(1, known=known, where=where, steps=1, seed=0)
    with pytest.raises((ConfigError, ShapeError)):
        small.inpaint(known, where, steps=1, seed=0, progress=False)


def test_known_parts_of_numpy_are_as_good_as_tensors(small):
    known = torch.linspace(-1, 1, 28).expand(1, 28, 28)
    settings = {"sampler": "ddim", "steps": 2, "seed": 0}
    *_, expected = small.sample_iter(2, known=known, where=WHERE, **settings)
    *_, found = small.sample_iter(2, known=known.numpy(), where=WHERE.tolist(), **settings)
    assert torch.equal(found.x, expected.x) and torch.equal(found.x[:, 0][:, WHERE], known[0][WHERE].expand(2, -1))


def test_what_is_not_finite_may_lie_where_nothing_is_held():
    values = torch.tensor([0.5, float("nan")])
    assert Hold(values, torch.tensor([True, False])).known.tolist() == [True, False]
    with pytest.raises(ConfigError, match="finite"):
        Hold(values, torch.tensor([False, True]))

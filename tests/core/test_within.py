"""Steers that keep x0 in a set: bounds, projections, units, refusals."""

import pytest
import torch
from oracle import predict

import zoo
from zoo.core.correction import Setting, bound
from zoo.core.samplers import get_sampler
from zoo.core.schedule import DiscreteSchedule
from zoo.core.seeds import SampleRng
from zoo.core.steer import limit, within
from zoo.errors import ConfigError, NumericsError, ShapeError

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


def test_what_lies_within_stays_and_the_rest_is_moved_to_the_nearest():
    level = DiscreteSchedule().level(300)
    plain, _ = predict(X, level)
    x0, eps = limit(-0.2, 0.3)(predict)(X, level)
    torch.testing.assert_close(x0, plain.clamp(-0.2, 0.3))
    torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, X)
    torch.testing.assert_close(limit(high=0.3)(predict)(X, level)[0], plain.clamp(max=0.3))
    # onto a sphere about (1, 0, 0, 0)
    middle = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    sphere = within(lambda x0: middle + torch.nn.functional.normalize(x0 - middle, dim=1))
    x0, _ = sphere(predict)(X, level)
    torch.testing.assert_close((x0 - middle).norm(dim=1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp"])
def test_samples_lie_within(name):
    levels = DiscreteSchedule().levels(6)
    *_, step = get_sampler(name)(limit(0.1, 0.2)(predict), X, levels, rng=SampleRng(0, range(3)))
    assert step.x.min() >= 0.1 - 1e-12 and step.x.max() <= 0.2 + 1e-12


def test_what_lies_within_a_set_also_keeps_the_bounds_of_x0():
    """From one to the other in turn: numbers of a given sum, of which one bound stops some."""
    level = DiscreteSchedule().level(300)
    total = within(lambda x0: x0 + (3.0 - x0.sum(1, keepdim=True)) / 4, units="encoded")
    plain, _ = predict(X, level)
    assert (plain + (3.0 - plain.sum(1, keepdim=True)) / 4).max() > 1.05, "else the bound has nothing to do"
    x0, eps = bound(total, Setting(clip=1.0))(predict)(X, level)
    assert x0.abs().max() <= 1
    torch.testing.assert_close(x0.sum(1), torch.full((3,), 3.0, dtype=torch.float64), atol=0.02, rtol=0)
    torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, X)


def test_it_is_asked_in_the_domain_s_units_and_without_padding():
    level, seen = DiscreteSchedule().level(300), []

    def ask(values):
        seen.append(tuple(values.shape))
        return values.clamp(min=6.0)

    setting = Setting(units=lambda x0: 2 * x0 + 5, sizes=[4, 2, 4])
    plain, _ = predict(X, level)
    x0, _ = bound(within(ask), setting)(predict)(X, level)
    expected = plain.clamp(min=0.5)
    expected[1, 2:] = plain[1, 2:]  # padding stays
    torch.testing.assert_close(x0, expected)
    assert seen == [(1, 4), (1, 2), (1, 4)]
    x0, _ = bound(within(ask, units="encoded"), setting)(predict)(X, level)
    assert x0[0].min() == 6


def test_what_it_refuses():
    level = DiscreteSchedule().level(300)
    for make in (lambda: limit(), lambda: limit(2, 1), lambda: limit("a"), lambda: within(3), lambda: limit(0, interval=3)):
        with pytest.raises(ConfigError):
            make()
    for nearest, error in ((lambda v: v[:, :2], ShapeError), (lambda v: 1.0, ShapeError), (lambda v: v / 0, NumericsError)):
        with pytest.raises(error):
            within(nearest)(predict)(X, level)
    mixed = Setting(units=lambda x0: x0.cumsum(1))
    with pytest.raises(ConfigError, match="each number by itself"):
        bound(limit(0.5), mixed)(predict)(X, level)
    latent = Setting(units=lambda x0: x0[:, :2])
    with pytest.raises(ConfigError, match="latent"):
        bound(limit(0.5), latent)(predict)(X, level)


def test_every_domain_has_it_by_name_on_the_command_line():
    from zoo.cli import steer_of

    model = zoo.create("image/fashion-ddpm", **SMALL)
    samples = model.sample(2, steps=2, seed=0, steer=[steer_of(model, 'limit={"low": -0.5, "high": 0.25}')])
    assert samples.tensor.min() >= -0.5 and samples.tensor.max() <= 0.25
    for text in ("limit", "limit=2,1", 'limit={"lowest": 1}', "limits=1"):
        with pytest.raises(ConfigError, match="limit"):
            steer_of(model, text)

"""Processes of angles: states that are wrapped, and which samplers may be run so."""

import math
from itertools import pairwise

import pytest
import torch

from zoo.core import seeds
from zoo.core.circle import around, steps_alone, wrapped
from zoo.core.samplers import SAMPLERS, churn, get_sampler
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import ConfigError

TURN = 2 * math.pi
OURS = ["ddim", "ddpm", "euler"]
SCHEDULE = DiscreteSchedule("linear", T=100)
LEVELS = SCHEDULE.levels(6)


def predict(x, level):
    """A net that says the noise of angles, and the same one turn further."""
    eps = torch.sin(x) + 0.3 * torch.cos(2 * x)
    return (x - level.sigma * eps) / level.alpha, eps


def start(seed=0):
    return 3 * torch.randn(4, 5, 6, generator=seeds.generator(seed), dtype=torch.float64)


def run(sampler, x, levels=LEVELS, **options):
    return list(sampler(predict, x, levels, rng=seeds.SampleRng(1, range(len(x))), **options))


def test_what_is_wrapped_is_the_same_angle_within_one_turn():
    x = torch.linspace(-40, 40, 1001, dtype=torch.float64, requires_grad=True)
    y = wrapped(x, TURN)
    assert float(y.detach().min()) >= -math.pi and float(y.detach().max()) < math.pi
    assert torch.allclose(y.sin(), x.sin()) and torch.allclose(y.cos(), x.cos())
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones_like(x))
    assert wrapped(torch.tensor([0.0, math.pi / 2, -1.0]), TURN).tolist() == pytest.approx([0, math.pi / 2, -1])
    assert wrapped(torch.tensor([0.75, -0.5, 0.5]), 1.0).tolist() == [-0.25, -0.5, -0.5]


@pytest.mark.parametrize("name", OURS)
def test_each_step_is_the_samplers_own_from_the_wrapped_state(name):
    options = {"ddim": {"eta": 0.5}, "ddpm": {"variance": "large"}}.get(name, {})
    if name == "euler":
        options = {"churned": churn(SCHEDULE, LEVELS, 2.0), "step_scale": 1.2}
    found, rng, x = run(around(get_sampler(name), TURN), start(), **options), seeds.SampleRng(1, range(4)), start()
    for i, (a, b) in enumerate(pairwise(LEVELS)):
        x = torch.atan2(x.sin(), x.cos())
        own = options | ({"churned": options["churned"][i : i + 1]} if "churned" in options else {})
        (step,) = get_sampler(name)(predict, x, [a, b], rng=rng, **own)
        x = torch.atan2(step.x.sin(), step.x.cos())
        assert found[i].level == b and torch.allclose(found[i].x, x, atol=1e-12) and torch.allclose(found[i].x0, step.x0)
    assert len(found) == len(LEVELS) - 1


@pytest.mark.parametrize("name", OURS)
def test_a_turn_more_at_the_start_changes_nothing(name):
    turns = torch.randint(-2, 3, (4, 5, 6), generator=seeds.generator(2)).double()
    sampler = get_sampler(name)
    assert torch.allclose(*(run(around(sampler, TURN), x)[-1].x for x in (start(), start() + TURN * turns)), atol=1e-8)
    plain = [run(sampler, x)[-1].x for x in (start(), start() + TURN * turns)]
    assert not torch.allclose(plain[0].sin(), plain[1].sin(), atol=0.1)  # which without wrapping is not so


def test_which_samplers_make_each_step_alone():
    """Run one by one, and on so large a circle that nothing is wrapped: as in one run, but for those that say otherwise."""
    alone = [name for name in sorted(SAMPLERS) if steps_alone(get_sampler(name))]
    assert alone == OURS
    for name in SAMPLERS:
        whole, x, steps = run(get_sampler(name), start())[-1].x, start(), seeds.SampleRng(1, range(4))
        for a, b in pairwise(LEVELS):
            (step,) = get_sampler(name)(predict, x, [a, b], rng=steps)
            x = step.x
        if get_sampler(name).looks_back:
            assert not torch.allclose(x, whole, atol=1e-3)
        else:
            assert torch.allclose(x, whole, atol=1e-8)
        if name in OURS:
            assert torch.allclose(run(around(get_sampler(name), 2.0**20), start())[-1].x, whole, atol=1e-6)


@pytest.mark.parametrize("name", ["dpmpp", "heun", "plms"])
def test_others_are_refused(name):
    with pytest.raises(ConfigError, match=f"sampler='{name}'.* are angles.*Take one of: .*ddpm"):
        around(get_sampler(name), TURN)

"""Learned variance: with the true one, ancestral sampling of Gaussian data is exact in few steps, and the bound tight."""

import math
from itertools import pairwise

import pytest
import torch
from oracle import SCHEDULES, Impulses, M, V, predict

from zoo.core.diffusion import Diffusion
from zoo.core.guidance import Guidance
from zoo.core.likelihood import variational_bound
from zoo.core.predict import Network, believed, guided
from zoo.core.samplers import get_sampler, learned_variance, posterior_variances
from zoo.core.schedule import DiscreteSchedule, Level
from zoo.errors import ConfigError, ShapeError


def true_share(a, b):
    """Where the variance of x_b given x_a of N(M, V) lies between the small one and the large one, by Bayes' rule."""
    noise = a.sigma**2 - (a.alpha / b.alpha) ** 2 * b.sigma**2  # of x_a given x_b
    before = b.alpha**2 * V + b.sigma**2
    true = 1 / (1 / before + (a.alpha / b.alpha) ** 2 / noise)
    beta, tilde = posterior_variances(a, b)
    return math.log(true / tilde) / math.log(beta / tilde)


class Told:
    """The exact prediction, which remembers at which level it was asked last."""

    def __init__(self, levels):
        self.next = {a.t: (a, b) for a, b in pairwise(levels)}

    def __call__(self, x, level):
        self.like, self.level = x, level
        return predict(x, level)

    def share(self):
        return torch.full_like(self.like, true_share(*self.next[self.level.t]))


@pytest.mark.parametrize("steps", [2, 3, 10])
@pytest.mark.parametrize("name", SCHEDULES)
def test_with_the_true_variance_few_steps_are_exact(name, steps):
    schedule = SCHEDULES[name]
    levels = schedule.levels(steps)
    first = levels[0]
    start, spread = first.alpha * M, math.sqrt(first.alpha**2 * V + first.sigma**2)

    def variance_of(**options):
        told = Told(levels)
        given = {"share": told.share} if options.get("variance") == "learned" else {}
        rows = torch.full((steps + 2,), start, dtype=torch.float64)
        rows[1] += spread
        for step in get_sampler("ddpm")(told, rows, levels, rng=Impulses(), **options, **given):
            if step.level is levels[-2]:
                mean, *others = step.x.tolist()
                assert mean == pytest.approx(step.level.alpha * M, abs=1e-9)
                return step.level, sum((x - mean) ** 2 for x in others)

    level, found = variance_of(variance="learned")
    true = level.alpha**2 * V + level.sigma**2
    assert found == pytest.approx(true, rel=1e-9)
    assert variance_of(variance="small")[1] < true < variance_of(variance="large")[1]


def test_the_variance_lies_between_the_two_in_logarithms():
    a, b = (DiscreteSchedule().level(t) for t in (700, 300))
    beta, tilde = posterior_variances(a, b)
    found = learned_variance(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), a, b).tolist()
    assert found == pytest.approx([tilde, math.sqrt(beta * tilde), beta])


def test_with_the_true_variance_the_bound_is_tight():
    """Over the data's moments it is the entropy, but for the two ends; see `test_likelihood` for the other variances."""
    schedule = DiscreteSchedule("cosine", T=40)
    levels = [schedule.level(t) for t in range(schedule.T)]
    told = Told(levels[::-1])
    x0 = M + V**0.5 * torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None]
    free = torch.ones(2, dtype=torch.float64)

    def bound(**options):
        signs = (
            variational_bound(told, x0, schedule, lambda like, s=s: torch.full_like(like, s), free=free, **options)
            for s in (1.0, -1.0)
        )
        return sum(v.mean().item() for found in signs for v in found.values()) / 2

    first, second, last = levels[0], levels[1], levels[-1]
    tilde = first.sigma**2 / second.sigma**2 * posterior_variances(second, first)[0]
    ratio = V * first.sigma**2 / (first.alpha**2 * V + first.sigma**2) / tilde
    total = last.alpha**2 * V + last.sigma**2
    want = 0.5 * math.log(2 * math.pi * math.e * V) + 0.5 * (ratio - 1 - math.log(ratio))
    want += 0.5 * (total + last.alpha**2 * M**2 - 1 - math.log(total))
    assert bound(variance="learned", share=told.share) == pytest.approx(want, abs=1e-9)
    assert bound(variance="large") > want + 0.01
    with pytest.raises(ConfigError, match="not all elements of a sample are free"):
        variational_bound(told, x0, schedule, torch.zeros_like, free=free / 2, variance="learned", share=told.share)


def both(x, t, cond, *, mask=None):
    """A net with two outputs: the second one tells the label."""
    v = torch.where(cond["label"] < 0, -1.0, 2.0 * cond["label"])
    return x / 2, v[:, None].expand_as(x)


def test_the_second_output_is_asked_for_and_belongs_to_the_conditions():
    diffusion = Diffusion(DiscreteSchedule(), "v", learned_variance=True)
    x, label = torch.randn(3, 4), torch.tensor([0, 1, 2])
    level = diffusion.schedule.level(500)
    network = Network(diffusion, both, {"label": label})
    with pytest.raises(ConfigError, match="says no variance"):
        network.learned()
    for weight in (0.0, 2.0):
        output = guided(network, Guidance(weight))
        believed(output, diffusion)(x, level)
        assert network.learned().tolist() == [[0.5] * 4, [1.5] * 4, [2.5] * 4]
    out, share = diffusion.denoise_both(both, x, level, {"label": label})
    assert torch.equal(out, x / 2) and torch.equal(share, network.learned())
    assert torch.equal(diffusion.denoise(both, x, level, {"label": label}), x / 2)


@pytest.mark.parametrize("given", [lambda x: x, lambda x: (x,), lambda x: (x, x[:, :1]), lambda x: (x, 1.0)])
def test_a_net_without_a_second_output_is_refused(given):
    diffusion = Diffusion(DiscreteSchedule(), learned_variance=True)
    level = diffusion.schedule.level(5)
    with pytest.raises(ShapeError, match=r"a net gives two tensors shaped like x: \(2, 3\), as its diffusion has a learned"):
        diffusion.denoise(lambda x, *_, mask=None: given(x), torch.zeros(2, 3), level, {})
    with pytest.raises(ShapeError, match="a net gives one tensor"):
        Diffusion(DiscreteSchedule()).denoise(lambda x, *_, mask=None: (x, x), torch.zeros(2, 3), level, {})


def test_the_sampler_needs_what_the_net_said():
    levels = [Level(1, 0.1, 0.9), Level(0, 0.9, 0.1)]
    run = get_sampler("ddpm")
    with pytest.raises(ConfigError, match="give `share`"):
        next(run(predict, torch.zeros(1, 1), levels, rng=Impulses(), variance="learned"))
    with pytest.raises(ConfigError, match="unknown variance 'huge'"):
        next(run(predict, torch.zeros(1, 1), levels, rng=Impulses(), variance="huge"))

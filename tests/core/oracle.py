"""Gaussian data N(m, v): the exact denoiser is affine, so every sampler's mean and variance are known numbers."""

import torch

from zoo.core.samplers import get_sampler
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule

M, V = 0.7, 0.25

SCHEDULES = {
    "linear": DiscreteSchedule("linear"),
    "cosine": DiscreteSchedule("cosine"),
    "sigmoid": DiscreteSchedule("sigmoid"),
    "zero-snr": DiscreteSchedule("linear", zero_terminal_snr=True),
    "edm": EDMSchedule(),
    "flow": FlowSchedule(),
}


def predict(x, level):
    """E[x0 | x] for Gaussian data, and the noise that goes with it."""
    a, s = level.alpha, level.sigma
    x0 = M + a * V / (a * a * V + s * s) * (x - a * M)
    return x0, (x - a * x0) / s


class Impulse:
    """A source of noise that is 1 at one draw and 0 at the others."""

    def __init__(self, at=None):
        self.at, self.count = at, 0

    def normal(self, like):
        self.count += 1
        return torch.full_like(like, float(self.count - 1 == self.at))


def last(name, x, levels, rng, **options):
    *_, step = get_sampler(name)(predict, torch.tensor([x], dtype=torch.float64), levels, rng=rng, **options)
    return step.x.item()


def moments(name, schedule, levels, **options):
    """Mean and variance of a sampler's output, exactly: its map is affine in x_T and in each draw of noise."""
    counter = Impulse()
    mean = last(name, 0.0, levels, counter, **options)
    std = schedule.prior_std(levels[0])
    variance = (std * (last(name, 1.0, levels, Impulse(), **options) - mean)) ** 2
    for draw in range(counter.count):
        variance += (last(name, 0.0, levels, Impulse(draw), **options) - mean) ** 2
    return mean, variance

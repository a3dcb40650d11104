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


class Impulses:
    """A source of noise that at draw k is 1 in row 2 + k, if there is one, and 0 in all others."""

    def __init__(self):
        self.count = 0

    def normal(self, like):
        noise = torch.zeros_like(like)
        noise[2 + self.count :][:1] = 1.0
        self.count += 1
        return noise


def last(name, x, levels, rng, **options):
    *_, step = get_sampler(name)(predict, torch.tensor(x, dtype=torch.float64), levels, rng=rng, **options)
    return step.x


def moments(name, schedule, levels, **options):
    """Mean and variance of a sampler's output, exactly: its map is affine in x_T and in each draw of noise."""
    counter = Impulses()
    last(name, [0.0], levels, counter, **options)
    # a row without anything, one with x_T = 1, and one for each draw of noise
    mean, start, *draws = last(name, [0.0, 1.0] + [0.0] * counter.count, levels, Impulses(), **options).tolist()
    variance = (schedule.prior_std(levels[0]) * (start - mean)) ** 2
    return mean, variance + sum((draw - mean) ** 2 for draw in draws)

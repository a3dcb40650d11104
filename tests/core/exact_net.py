"""Gaussian data N(m, C): the exact net, as a module of any prediction, on any schedule."""

import torch
from torch import nn

from zoo.core.diffusion import from_x0_eps, like
from zoo.core.schedule import Level


def ar1(rho, size, scale=1.0):
    """Covariance (size, size) float64 of an AR(1) process."""
    i = torch.arange(size)
    return scale * rho ** (i[:, None] - i[None]).abs().double()


class ExactNet(nn.Module):
    """E[x0 | x_t] of N(mean, covariance) as the prediction asks for it; with labels, one mean for each."""

    needs_level = True

    def __init__(self, mean, covariance, prediction, shape=None, precondition_data=None):
        super().__init__()
        values, vectors = torch.linalg.eigh(covariance.double())
        self.mean = nn.Parameter(mean.double().reshape(-1, len(values)))
        self.register_buffer("values", values)
        self.register_buffer("vectors", vectors)
        self.prediction, self.calls = prediction, 0
        self.precondition_data = precondition_data

    def forward(self, x_t, t, cond, *, mask=None, level=None):
        self.calls += len(x_t)
        shape, x = x_t.shape, x_t.flatten(1).double()
        a, s, gain = (like(v, x) for v in (level.alpha, level.sigma, level.gain))
        x = gain * x
        mean = self.mean[cond["label"]] if "label" in cond else self.mean[:1]
        slope = a * self.values / (a * a * self.values + s * s)
        x0 = mean + ((x - a * mean) @ self.vectors * slope) @ self.vectors.T
        if self.precondition_data is not None:  # what the wrapper of EDM asks for: (x0 - c_skip x) / c_out
            d = self.precondition_data
            n = a * a * d * d + s * s
            return ((x0 - a * d * d / n * x) * n.sqrt() / (s * d)).reshape(shape).to(x_t)
        eps = (x - a * x0) / s
        return from_x0_eps(x0, eps, Level(t, a, s), self.prediction).reshape(shape).to(x_t)


def log_density(x, mean, covariance):
    """ln N(x; mean, covariance), (n,) float64, of x (n, *S)."""
    found = torch.distributions.MultivariateNormal(mean.double().flatten(), covariance.double())
    return found.log_prob(x.double().flatten(1))

"""Gaussian data with a covariance: exact nets, exact conditionals, and noise whose sample moments are exact."""

import torch

from zoo.core.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule

#: eight numbers in a row, neighbours correlated
N = 8


def ar1(rho):
    """The covariance of stationary AR(1) data."""
    place = torch.arange(N)
    return rho ** (place[:, None] - place).abs().double()


#: covariance, and which coordinates are known
DATA = {".8": (ar1(0.8), torch.arange(N) % 2 == 0), ".95": (ar1(0.95), torch.arange(N) < N // 2)}
SCHEDULES = {"cosine": DiscreteSchedule("cosine"), "linear": DiscreteSchedule(), "edm": EDMSchedule(), "flow": FlowSchedule()}


def net(covariance):
    """E[x0 | x] of N(0, covariance), and the noise that goes with it, as a prediction."""
    values, vectors = torch.linalg.eigh(covariance)

    def predict(x, level):
        a, s = level.alpha, level.sigma
        gain = (vectors * (a * values / (a * a * values + s * s))) @ vectors.T
        x0 = x @ gain.to(x)
        return x0, (x - a * x0) / s

    return predict


def draw(covariance, seed=5):
    """One sample of the data."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.cholesky(covariance) @ torch.randn(N, dtype=torch.float64, generator=generator)


def conditional(covariance, operator, noise, y):
    """Mean and covariance of x0 given y = operator x0 + noise, in closed form."""
    seen = operator @ covariance @ operator.T + noise**2 * torch.eye(len(operator), dtype=torch.float64)
    gain = covariance @ operator.T @ torch.linalg.inv(seen)
    return gain @ y, covariance - gain @ operator @ covariance


class Matched:
    """Noise whose mean over the samples is 0, whose covariance is the identity, and which no sample's x goes along with.

    Where a sampler's steps are affine, the moments of a few samples are then those of infinitely many, without any sampling
    error; a few hundred are enough where they are nearly so.
    """

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, like):
        z = torch.randn(like.shape, generator=self.generator, dtype=torch.float64)
        seen = torch.cat([torch.ones(len(z), 1, dtype=torch.float64), like.double()], 1)
        basis, size, _ = torch.linalg.svd(seen, full_matrices=False)
        basis = basis[:, size > 1e-9 * size[0]]
        z = z - basis @ (basis.T @ z)
        root = torch.linalg.cholesky(z.T @ z / (len(z) - 1))
        return torch.linalg.solve_triangular(root, z.T, upper=False).T.to(like)


class Independent:
    """Plain noise, and the numbers that particles are drawn with."""

    def __init__(self, rows, seed=0):
        self.generator, self.rows = torch.Generator().manual_seed(seed), rows

    def normal(self, like):
        return torch.randn(like.shape, generator=self.generator, dtype=torch.float64).to(like)

    def uniform(self):
        return torch.rand(self.rows, generator=self.generator, dtype=torch.float64)


def errors(x, mean, covariance, where=None):
    """(worst error of the mean in conditional standard deviations, least and largest variance ratio) of the unknown parts."""
    if where is not None:
        x, mean, covariance = x[:, ~where], mean[~where], covariance[~where][:, ~where]
    variance = covariance.diagonal()
    ratio = x.double().var(0) / variance
    return float(((x.double().mean(0) - mean).abs() / variance.sqrt()).max()), float(ratio.min()), float(ratio.max())

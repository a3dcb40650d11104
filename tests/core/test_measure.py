"""Measurements of Gaussian data, whose posterior is known in closed form; operators of every kind."""

import gaussian
import numpy as np
import pytest
import torch

import zoo
from zoo.core.correction import Setting, bound
from zoo.core.measure import Derivative, Known, Mask, conjugate_gradient
from zoo.core.samplers import get_sampler
from zoo.core.steer import hold, measure, noise_of
from zoo.errors import ConfigError, ShapeError

NOISE = 0.3
#: random projections, each of about the size of a coordinate
PROJECTIONS = torch.randn(4, gaussian.N, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / gaussian.N**0.5
LEVELS = gaussian.SCHEDULES["cosine"].levels(40)
X = torch.randn(3, gaussian.N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def measured(data):
    covariance, _ = gaussian.DATA[data]
    noise = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return covariance, PROJECTIONS @ gaussian.draw(covariance) + NOISE * noise


def sampled(steer, covariance, sampler, steps, rows=200):
    rng, levels = gaussian.Matched(), gaussian.SCHEDULES["cosine"].levels(steps)
    x = rng.normal(torch.zeros(rows, gaussian.N, dtype=torch.float64))
    with torch.no_grad():
        *_, step = get_sampler(sampler)(steer(gaussian.net(covariance)), x, levels, rng=rng)
    return step.x


#: samplers and their steps; few of them need a solver of second order
STEPS = [("dpmpp", 60), *(pytest.param(name, 250, marks=pytest.mark.slow) for name in ("ddpm", "ddim", "dpmpp"))]


@pytest.mark.parametrize(("sampler", "steps"), STEPS)
@pytest.mark.parametrize("data", gaussian.DATA)
def test_random_projections_with_noise(data, sampler, steps):
    covariance, y = measured(data)
    x = sampled(measure(y, PROJECTIONS, NOISE), covariance, sampler, steps)
    mean, least, most = gaussian.errors(x, *gaussian.conditional(covariance, PROJECTIONS, NOISE, y))
    assert mean < 0.05 and least > 0.90 and most < 1.10


def test_as_many_products_as_measurements_are_exact():
    covariance, y = measured(".8")
    x = sampled(measure(y, PROJECTIONS, NOISE, products=4), covariance, "dpmpp", 50, rows=50)
    mean, least, most = gaussian.errors(x, *gaussian.conditional(covariance, PROJECTIONS, NOISE, y))
    assert mean < 0.02 and least > 0.95 and most < 1.03


def test_pigdm_is_near_and_no_more():
    covariance, y = measured(".8")
    x = sampled(measure(y, PROJECTIONS, NOISE, method="pigdm"), covariance, "ddpm", 50, rows=50)
    mean, least, most = gaussian.errors(x, *gaussian.conditional(covariance, PROJECTIONS, NOISE, y))
    assert mean < 0.3 and least > 0.75 and most < 1.2


@pytest.mark.parametrize("level", [LEVELS[5], LEVELS[20], LEVELS[-2]])
def test_one_call_is_the_posterior_mean(level):
    """x0 given x and y of Gaussian data: the mean under N(D(x), C) with C = (Sigma^-1 + a^2 / s^2)^-1, in closed form."""
    covariance, y = measured(".95")
    a, s = level.alpha, level.sigma
    spread = torch.linalg.inv(torch.linalg.inv(covariance) + a * a / s / s * torch.eye(8))
    plain = gaussian.net(covariance)(X, level)[0]
    gain = spread @ PROJECTIONS.T @ torch.linalg.inv(PROJECTIONS @ spread @ PROJECTIONS.T + NOISE**2 * torch.eye(4))
    x0, eps = measure(y, PROJECTIONS, NOISE, products=4)(gaussian.net(covariance))(X, level)
    torch.testing.assert_close(x0, plain + (y - plain @ PROJECTIONS.T) @ gain.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(eps, noise_of(X, x0, level))
    assert not (x0.requires_grad or eps.requires_grad)
    isotropic = Setting().variance(level)
    gain = spread @ PROJECTIONS.T @ torch.linalg.inv(isotropic * PROJECTIONS @ PROJECTIONS.T + NOISE**2 * torch.eye(4))
    x0, _ = measure(y, PROJECTIONS, NOISE, method="pigdm", products=4)(gaussian.net(covariance))(X, level)
    torch.testing.assert_close(x0, plain + (y - plain @ PROJECTIONS.T) @ gain.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [LEVELS[5], LEVELS[-2]])
def test_known_parts_are_a_measurement_of_themselves(level):
    covariance, where = gaussian.DATA[".8"]
    rows = torch.eye(8, dtype=torch.float64)[where]
    known = Known(torch.full((8,), 0.5, dtype=torch.float64), where)(gaussian.net(covariance))(X, level)[0]
    seen = measure(torch.full((4,), 0.5, dtype=torch.float64), rows, 0.01)(gaussian.net(covariance))(X, level)[0]
    torch.testing.assert_close(known, seen)


def test_operators_of_every_kind_are_alike():
    covariance, y = measured(".8")
    level = LEVELS[20]

    def by_numpy(x0):
        return torch.from_numpy(x0.numpy() @ PROJECTIONS.numpy().T)

    def back(u):
        return torch.from_numpy(u.numpy() @ PROJECTIONS.numpy())

    steers = [
        measure(y, PROJECTIONS, NOISE),
        measure(y.tolist(), PROJECTIONS.numpy(), NOISE),
        measure(np.asarray(y), lambda x0: x0 @ PROJECTIONS.T, np.float32(NOISE)),
        measure(y, by_numpy, NOISE, transpose=back),
        measure(y + 1, lambda x0: x0 @ PROJECTIONS.T + 1, NOISE),
        measure(y[:, None], lambda x0: (x0 @ PROJECTIONS.T)[..., None], NOISE),
        measure(2 * y, lambda x0: x0 @ PROJECTIONS.T, 2 * NOISE),
        measure(2 * y, by_numpy, 2 * NOISE, transpose=back),
    ]
    setting = Setting(units=lambda x0: 2 * x0)
    found = [bound(s, setting if i > 5 else Setting())(gaussian.net(covariance))(X, level)[0] for i, s in enumerate(steers)]
    for x0 in found[1:]:
        torch.testing.assert_close(x0, found[0], rtol=1e-4, atol=1e-5)


def test_a_curved_operator_is_linearised_where_the_guess_is():
    covariance, _ = gaussian.DATA[".8"]
    level = LEVELS[-4]
    plain = gaussian.net(covariance)(X, level)[0]
    y = torch.tensor([1.2], dtype=torch.float64)
    curved = measure(y, lambda x0: x0.square().sum(1, keepdim=True), 0.1)(gaussian.net(covariance))(X, level)[0]
    for i in range(len(X)):
        slope = 2 * plain[i : i + 1]
        seen = measure(y - plain[i].square().sum() + slope @ plain[i], slope, 0.1)
        torch.testing.assert_close(curved[i], seen(gaussian.net(covariance))(X, level)[0][i], rtol=1e-6, atol=1e-7)


def test_derivatives_of_an_operator_both_ways():
    found = Derivative(lambda x: x.sin().cumsum(1)[:, :5], X, "sines")
    jacobian = torch.autograd.functional.jacobian(lambda x: x.sin().cumsum(0)[:5], X[0])
    v, u = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(found.forward(v)[0], jacobian @ v[0])
    torch.testing.assert_close(found.back(u)[0], u[0] @ jacobian)
    where = torch.arange(8) < 3
    assert Mask(where, X).forward(v)[:, 3:].eq(0).all() and torch.equal(Mask(where, X).back(v)[:, :3], v[:, :3])


def test_conjugate_gradients_solve_each_sample_by_itself():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 6, 6, dtype=torch.float64, generator=generator)
    matrix = root @ root.mT + torch.eye(6)
    right = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    right[2] = 0

    def product(u):
        image = torch.einsum("bij,bj->bi", matrix, u)
        return image, 3 * u

    found, beside = conjugate_gradient(product, right, 6)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, right), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(beside, 3 * found)
    assert (found[2] == 0).all()
    alone, _ = conjugate_gradient(lambda u: (u @ matrix[1], u), right[1:2], 3)
    torch.testing.assert_close(conjugate_gradient(product, right, 3)[0][1:2], alone)
    wrong, _ = conjugate_gradient(lambda u: (-u, u), right, 3)
    assert (wrong == 0).all(), "no positive curvature: nothing is done"


def test_the_range_of_noise_and_the_weight():
    covariance, y = measured(".8")
    plain = gaussian.net(covariance)
    for level in LEVELS[:-1]:
        inside = 0.5 < level.ratio <= 5
        x0 = measure(y, PROJECTIONS, NOISE, interval=(0.5, 5))(plain)(X, level)[0]
        assert torch.equal(x0, plain(X, level)[0]) != inside
    none = measure(y, PROJECTIONS, NOISE, weight=0)(plain)(X, LEVELS[20])[0]
    full, half = (measure(y, PROJECTIONS, NOISE, weight=w)(plain)(X, LEVELS[20])[0] for w in (1, 0.5))
    torch.testing.assert_close(half, (none + full) / 2)


def test_pure_noise_says_nothing_of_x0():
    covariance, y = measured(".8")
    level = gaussian.SCHEDULES["flow"].levels(3)[0]
    steered = measure(y, PROJECTIONS, NOISE)(gaussian.net(covariance))(X, level)[0]
    assert level.alpha == 0 and torch.equal(steered, gaussian.net(covariance)(X, level)[0])


ODD = {
    "a complex y": lambda: measure(torch.zeros(4) * 1j, PROJECTIONS, 0.1),
    "no numbers": lambda: measure("y", PROJECTIONS, 0.1),
    "not finite": lambda: measure([float("nan")], PROJECTIONS, 0.1),
    "no operator": lambda: measure([0.0], None, 0.1),
    "a vector": lambda: measure([0.0], torch.zeros(8), 0.1),
    "noise below 0": lambda: measure([0.0], PROJECTIONS, -0.1),
    "noise that is no number": lambda: measure([0.0], PROJECTIONS, "little"),
    "an unknown method": lambda: measure([0.0], PROJECTIONS, 0.1, method="dps"),
    "no products": lambda: measure([0.0], PROJECTIONS, 0.1, products=0),
    "unknown units": lambda: measure([0.0], PROJECTIONS, 0.1, units="metres"),
    "an empty interval": lambda: measure([0.0], PROJECTIONS, 0.1, interval=(2, 1)),
    "a negative weight": lambda: measure([0.0], PROJECTIONS, 0.1, weight=-1),
    "a transpose that is none": lambda: measure([0.0], PROJECTIONS, 0.1, transpose=PROJECTIONS),
}


@pytest.mark.parametrize("name", ODD)
def test_a_measurement_that_is_invalid_is_refused_at_once(name):
    with pytest.raises((ConfigError, ShapeError)):
        ODD[name]()


ODD_OPERATORS = {
    "a number": (lambda x0: 3.0, None, "must give a tensor"),
    "one for all": (lambda x0: x0.sum(), None, "B, ..."),
    "cut off": (lambda x0: x0.detach()[:, :4], None, "no gradient"),
    "another shape": (lambda x0: x0[:, :5], None, "does not broadcast"),
    "a wrong transpose": (lambda x0: x0 @ PROJECTIONS.T, lambda u: u @ PROJECTIONS.roll(1), "transpose"),
    "a transpose of another shape": (lambda x0: x0 @ PROJECTIONS.T, lambda u: u, "transpose"),
    "not linear": (lambda x0: x0 @ PROJECTIONS.T + 1, lambda u: u @ PROJECTIONS, "transpose"),
}


@pytest.mark.parametrize("name", ODD_OPERATORS)
def test_an_operator_that_does_not_fit_is_named(name):
    operator, transpose, said = ODD_OPERATORS[name]
    covariance, y = measured(".8")
    with pytest.raises((ConfigError, ShapeError), match=said):
        measure(y, operator, NOISE, transpose=transpose)(gaussian.net(covariance))(X, LEVELS[20])


def test_it_is_public():
    assert zoo.steer.measure is measure and zoo.steer.hold is hold

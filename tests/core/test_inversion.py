"""DDIM run backwards, on Gaussian data, where every step is an affine map."""

import math

import pytest
import torch
from exact_net import ar1
from oracle import SCHEDULES, M, V, predict

from zoo.core.inversion import TOLERANCE, invert_ddim, slerp
from zoo.core.samplers import get_sampler
from zoo.core.schedule import DiscreteSchedule
from zoo.core.seeds import SampleRng


def there_and_back(predict, x0, levels):
    *_, back = invert_ddim(predict, x0, levels)
    *_, step = get_sampler("ddim")(predict, back.x, levels, rng=SampleRng(0, range(len(x0))))
    return back, step.x


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 5, 15])
def test_the_sampler_gives_the_sample_back(name, steps):
    """On every kind of grid, also from levels without any signal; the naive inversion is off by a tenth with five steps."""
    x0 = torch.tensor([[M], [M + 2.5 * V**0.5], [-0.4]], dtype=torch.float64)
    schedule = SCHEDULES[name]
    for spacing in ("karras", schedule.spacings[0]):
        levels = schedule.levels(steps, spacing)
        back, again = there_and_back(predict, x0, levels)
        if steps == 1:  # one step makes the mean of all data from anything: nothing gives the others back
            assert again[0] == pytest.approx(M, abs=1e-3)
        else:
            assert (again - x0).abs().max() < 30 * TOLERANCE and back.left.max() < 30 * TOLERANCE


def test_correlated_data_come_back_in_all_directions():
    covariance = ar1(0.95, 4)
    values, vectors = torch.linalg.eigh(covariance)

    def exact(x, level):
        a, s = level.alpha, level.sigma
        x0 = x @ (vectors * (a * values / (a * a * values + s * s)) @ vectors.T)
        return x0, (x - a * x0) / s

    x0 = (
        torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    )
    _, again = there_and_back(exact, x0, SCHEDULES["cosine"].levels(12, "karras"))
    assert (again - x0).abs().max() < 30 * TOLERANCE


def test_the_noise_of_many_steps_is_that_of_the_ode():
    """u = cos m + sqrt(cos^2 V + sin^2) z along the path, with z of the sample itself."""
    schedule = SCHEDULES["edm"]
    levels = schedule.levels(150)
    x0 = torch.tensor([[M + 1.3 * V**0.5]], dtype=torch.float64)
    *_, back = invert_ddim(predict, x0, levels)
    assert back.level == levels[0]
    z = (back.x.item() - M) / math.hypot(V**0.5, back.level.sigma)
    assert z == pytest.approx(1.3, rel=0.03)


def test_what_the_net_does_not_believe_is_left_and_no_more():
    """A net that knows one point only: the rest of a sample cannot be reached, and does not grow without end."""

    def point(x, level):
        x0 = torch.zeros_like(x)
        return x0, x / level.sigma

    levels = DiscreteSchedule("cosine").levels(10, "karras")
    x0 = torch.tensor([[0.02], [0.0]], dtype=torch.float64)
    steps = list(invert_ddim(point, x0, levels))
    assert steps[0].left[0] == pytest.approx(0.02) and steps[0].left[1] == 0
    assert torch.isfinite(steps[-1].x).all() and steps[-1].x.abs().max() < 10


def test_rows_do_not_hang_on_each_other():
    levels = SCHEDULES["flow"].levels(6)
    x0 = torch.tensor([[M], [1.9], [-0.4]], dtype=torch.float64)
    *_, together = invert_ddim(predict, x0, levels)
    *_, alone = invert_ddim(predict, x0[1:2], levels)
    torch.testing.assert_close(together.x[1:2], alone.x, rtol=0, atol=0)


def test_between_noises_the_length_stays():
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 40, 50, generator=rng)
    found = slerp(a, b, torch.linspace(0, 1, 5))
    torch.testing.assert_close(found[0], a)
    torch.testing.assert_close(found[-1], b)
    assert (found.flatten(1).std(1) - 1).abs().max() < 0.08 and found.shape == (5, 1, 40, 50)
    torch.testing.assert_close(slerp(a, a, torch.tensor([0.3])), a[None])
    torch.testing.assert_close(slerp(a, 2 * a, torch.tensor([0.5])), 1.5 * a[None])

"""Likelihoods against closed forms: the density of Gaussian data, Bayes' rule for the bound, sums of probabilities to 1."""

import math
from itertools import pairwise

import pytest
import torch
from exact_net import ar1, log_density
from oracle import SCHEDULES, M, V
from oracle import predict as predict_one
from torch.distributions import Normal, kl_divergence

from zoo.core.likelihood import (
    Draws,
    Likelihood,
    Units,
    drawn_times,
    exact_trace,
    flow_log_density,
    hutchinson,
    log_step,
    reach,
    variational_bound,
)
from zoo.core.schedule import DiscreteSchedule, EDMSchedule
from zoo.errors import ConfigError

BITS = math.log(2)


def exact(mean, covariance):
    """The exact prediction of N(mean, covariance) for x (B, D)."""

    values, vectors = torch.linalg.eigh(covariance)

    def predict(x, level):
        a, s = level.alpha, level.sigma
        gain = vectors * (a * values / (a * a * values + s * s)) @ vectors.T
        x0 = mean + (x - a * mean) @ gain
        return x0, (x - a * x0) / s

    return predict


def data(mean, covariance, n=6):
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn(n, len(covariance), generator=rng, dtype=torch.float64)
    x = mean + noise @ torch.linalg.cholesky(covariance).T
    return x, torch.full((n,), float(len(covariance)), dtype=torch.float64)


CASES = {
    "a number": (torch.tensor([0.7], dtype=torch.float64), torch.tensor([[0.25]], dtype=torch.float64)),
    "ar1 .8": (torch.zeros(4, dtype=torch.float64), ar1(0.8, 4)),
    "ar1 .95, shifted": (torch.full((4,), -1.5, dtype=torch.float64), ar1(0.95, 4)),
    "wide": (torch.tensor([-2.0, 3.0], dtype=torch.float64), ar1(0.5, 2, 4.0)),
}


@pytest.mark.parametrize(
    ("name", "case"),
    [(n, "a number") for n in SCHEDULES] + [(n, c) for n in ("cosine", "edm", "flow") for c in CASES if c != "a number"],
)
def test_the_density_of_gaussian_data_is_exact(name, case):
    mean, covariance = CASES[case]
    x, free = data(mean, covariance)
    found = flow_log_density(exact(mean, covariance), x, SCHEDULES[name], exact_trace, free=free)
    wrong = (found - log_density(x, mean, covariance)).abs() / free / BITS
    assert wrong.max() < 2e-4  # of single samples, in bits per dimension; the bar is 1e-3


def test_the_solver_is_of_order_four():
    mean, covariance = CASES["ar1 .8"]
    x, free = data(mean, covariance)
    schedule = EDMSchedule(sigma_min=1e-3)
    probes = hutchinson(torch.ones_like(x))
    coarse, middle, fine = (
        flow_log_density(exact(mean, covariance), x, schedule, probes, free=free, steps=n) for n in (20, 40, 80)
    )
    assert 12 < (coarse - middle).abs().sum() / (middle - fine).abs().sum() < 40


def test_without_the_clean_end_the_density_is_that_at_the_least_level():
    mean, covariance = CASES["a number"]
    x, free = data(mean, covariance)
    schedule = EDMSchedule(sigma_min=0.2)
    found = flow_log_density(exact(mean, covariance), x, schedule, exact_trace, free=free, to_clean=False, steps=40)
    want = log_density(x, mean, covariance + 0.2**2)
    assert (found - want).abs().max() < 1e-4


def test_hutchinsons_trace_is_unbiased_and_its_error_is_that_of_the_probes():
    mean, covariance = CASES["ar1 .8"]
    x, free = data(mean, covariance, 2)
    signs = torch.tensor(list(torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).tolist()), dtype=torch.float64)
    rows, n = x.repeat_interleave(len(signs), 0), len(signs)
    # all sixteen probes together are the exact trace, since their mean of z z' is the unit matrix
    found = flow_log_density(
        exact(mean, covariance), rows, SCHEDULES["cosine"], hutchinson(signs.repeat(2, 1)), free=free.repeat_interleave(n)
    ).reshape(2, n)
    assert ((found.mean(1) - log_density(x, mean, covariance)).abs() / 4 / BITS).max() < 2e-4
    assert found.std(1).min() > 0.1


def test_independent_numbers_need_one_probe_alone():
    """Rademacher probes have z'z = D, so a diagonal Jacobian has no error: normal ones would have."""
    mean, covariance = torch.full((3,), 0.3, dtype=torch.float64), torch.diag(torch.tensor([1.0, 0.2, 0.05])).double()
    x, free = data(mean, covariance)
    probes = Draws([(0, i) for i in range(len(x))]).signs(x)
    assert set(probes.flatten().tolist()) == {-1.0, 1.0}
    found = flow_log_density(exact(mean, covariance), x, SCHEDULES["edm"], hutchinson(probes), free=free)
    assert ((found - log_density(x, mean, covariance)).abs() / free / BITS).max() < 2e-4


def test_padding_has_no_part_in_it():
    mean, covariance = CASES["a number"]
    x, free = data(mean, covariance)
    wide = torch.cat([x, torch.zeros_like(x)], 1)
    real = torch.tensor([[True, False]]).expand_as(wide)

    def predict(x, level):
        x0, eps = predict_one(x, level)
        return x0 + 7 * x.sum(1, keepdim=True).where(x == 0, 0), eps + (~real) * 5

    with_padding = flow_log_density(predict, wide, SCHEDULES["cosine"], exact_trace, free=free, real=real)
    alone = flow_log_density(predict_one, x, SCHEDULES["cosine"], exact_trace, free=free)
    torch.testing.assert_close(with_padding, alone)


def test_the_reach_is_that_of_the_karras_grid():
    linear = SCHEDULES["linear"]
    assert reach(linear) == (linear.level(0).ratio, 80.0)
    assert reach(SCHEDULES["edm"]) == (0.002, 80.0) and reach(SCHEDULES["zero-snr"])[1] == 80.0

    class Own(EDMSchedule):
        ends = None

        def points(self, steps, spacing):
            return [self.level(s) for s in (500.0, 3.0, 0.01)]

    assert reach(Own()) == (0.01, 80.0)


# ---------------------------------------------------------------- the bound


def both_signs(predict, x0, schedule, **options):
    """The bound at noise 1 and at noise -1, averaged: exact for squared errors of an affine prediction of one number."""
    free = torch.ones(len(x0), dtype=torch.float64)
    up, down = (
        variational_bound(predict, x0, schedule, lambda like, s=s: torch.full_like(like, s), free=free, **options)
        for s in (1.0, -1.0)
    )
    return {k: (up[k] + down[k]) / 2 for k in up}


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("zero", [False, True])
def test_the_bound_is_the_sum_of_divergences_by_bayes_rule(variance, zero):
    schedule = DiscreteSchedule("linear", T=12, beta_start=0.01, beta_end=0.4, zero_terminal_snr=zero)
    x0 = torch.tensor([[0.1], [1.4]], dtype=torch.float64)
    found = both_signs(predict_one, x0, schedule, variance=variance)
    levels = [schedule.level(t) for t in range(schedule.T)]
    torch.testing.assert_close(
        found["L_T"], kl_divergence(Normal(levels[-1].alpha * x0, levels[-1].sigma), Normal(0.0, 1.0))[:, 0].double()
    )
    total = torch.zeros(2, dtype=torch.float64)
    for b, a in pairwise(levels):
        for eps in (1.0, -1.0):
            x = a.alpha * x0 + a.sigma * eps
            guess, _ = predict_one(x, a)
            r = a.alpha / b.alpha
            noise = a.sigma**2 - r * r * b.sigma**2  # of x_a given x_b
            spread = 1 / (1 / b.sigma**2 + r * r / noise)
            mean = [spread * (r / noise * x + b.alpha / b.sigma**2 * clean) for clean in (x0, guess)]
            used = spread if variance == "small" else noise
            total += 0.5 * kl_divergence(Normal(mean[0], spread**0.5), Normal(mean[1], used**0.5))[:, 0]
    torch.testing.assert_close(found["L_t"], total)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_over_the_data_the_bound_is_the_entropy_and_what_each_step_misses(variance):
    """Each true step back is normal with a variance that ancestral sampling does not use: that alone keeps the bound loose."""
    schedule = DiscreteSchedule("cosine", T=40)
    x0 = M + V**0.5 * torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None]  # the moments of the data
    found = sum(p.mean().item() for p in both_signs(predict_one, x0, schedule, variance=variance).values())

    def missed(true, used):
        return 0.5 * (true / used - 1 - math.log(true / used))

    levels = [schedule.level(t) for t in range(schedule.T)]
    want = 0.5 * math.log(2 * math.pi * math.e * V)
    for b, a in pairwise(levels):
        beta = a.sigma**2 - (a.alpha / b.alpha * b.sigma) ** 2
        tilde = b.sigma**2 / a.sigma**2 * beta
        of_x0 = V * a.sigma**2 / (a.alpha**2 * V + a.sigma**2)  # variance of x0 at a
        true = tilde + (b.alpha * beta / a.sigma**2) ** 2 * of_x0
        want += missed(true, tilde if variance == "small" else beta)
        if b is levels[0]:
            want += missed(V * b.sigma**2 / (b.alpha**2 * V + b.sigma**2), tilde)
    last = levels[-1]
    total = last.alpha**2 * V + last.sigma**2
    want += 0.5 * (total + last.alpha**2 * M**2 - 1 - math.log(total))
    assert found == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 0.003), (0.4, 0.05), (-0.999, 0.01), (1.3, 0.02), (-3.0, 0.5)])
def test_the_probabilities_of_all_steps_sum_to_one(mean, spread):
    units = Units("bytes", 0.0, 1 / 127.5, (-1.0, 1.0))
    x = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    found = log_step(x, torch.full_like(x, mean), spread, units)
    assert found.logsumexp(0).abs() < 1e-9 and (found < 1e-12).all()
    if abs(mean) < 0.5:
        i = int((x - mean).abs().argmin())
        exact = Normal(mean, spread).cdf(x[i] + 1 / 255) - Normal(mean, spread).cdf(x[i] - 1 / 255)
        assert found[i].exp() == pytest.approx(exact.item(), rel=1e-4)


def test_far_steps_keep_their_digits():
    units = Units("bytes", 0.0, 1 / 127.5, (-1.0, 1.0))
    x = torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64)
    found = log_step(x, torch.tensor([-0.5, 0.5, 0.5], dtype=torch.float64), 0.01, units)
    # about ln of the density at the near edge, (0.5 - 1 / 255) / 0.01 deviations away
    assert torch.isfinite(found).all() and found[0] == found[1]
    assert found[0].item() == pytest.approx(-0.5 * ((0.5 - 1 / 255) / 0.01) ** 2, rel=0.01)


def test_drawn_terms_leave_the_sum_right():
    T, terms = 41, 7
    f = torch.arange(T, dtype=torch.float64) ** 2
    draws = [drawn_times(T, terms, torch.Generator().manual_seed(i)) for i in range(400)]
    assert all(sum(w for _, w in d) == T - 1 and len(d) == terms and d == sorted(d, reverse=True) for d in draws)
    sums = torch.tensor([sum(f[t].item() * w for t, w in d) for d in draws])
    assert sums.mean() == pytest.approx(f[1:].sum().item(), rel=0.02)
    assert drawn_times(T, T - 1, torch.Generator()) == [(t, 1.0) for t in range(T - 1, 0, -1)]


def test_an_unknown_variance_is_refused():
    with pytest.raises(ConfigError, match="unknown variance 'medium'"):
        both_signs(predict_one, torch.zeros(1, 1), SCHEDULES["linear"], variance="medium")


def test_bits_are_nats_per_free_number():
    found = Likelihood(torch.tensor([-8.0, -4.0]), torch.tensor([2.0, 0.0]), torch.tensor([4.0, 4.0]), "inches", "by hand")
    assert found.bits.tolist() == pytest.approx([2 / BITS, 1 / BITS]) and found.error.tolist() == pytest.approx([0.5 / BITS, 0])
    assert found.mean == pytest.approx((1.5 / BITS, 0.5 / BITS))
    assert "2.164 +- 0.721 bits per dimension over 2 objects; by hand; inches" in str(found)

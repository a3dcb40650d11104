import math
import warnings
from itertools import pairwise

import pytest
import torch
from oracle import SCHEDULES, M, V, moments, predict

from zoo.core.diffusion import Diffusion
from zoo.core.predict import believed, clipped
from zoo.core.samplers import SAMPLERS, churn, get_sampler, sampler
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, Level
from zoo.core.seeds import SampleRng
from zoo.errors import ConfigError

GRIDS = [(name, spacing) for name, s in SCHEDULES.items() for spacing in s.spacings]


def posterior_recursion(levels, std, large=False, noise_scale=1.0):
    """Mean and variance of ancestral sampling by Bayes' rule in (x_a, x0) for each step, independent of the sampler's code."""
    mean, var = 0.0, std**2
    for a, b in pairwise(levels):
        gain = a.alpha * V / (a.alpha**2 * V + a.sigma**2)  # x0 = M + gain (x - alpha M)
        noise = a.sigma**2 - (a.alpha / b.alpha) ** 2 * b.sigma**2  # var of x_a given x_b
        # x_b | x0 ~ N(alpha_b x0, sigma_b^2) and x_a | x_b ~ N(r x_b, noise): product of Gaussians
        r = a.alpha / b.alpha
        if b.sigma == 0:
            on_x, on_x0, post = 0.0, b.alpha, 0.0
        else:
            post = 1 / (1 / b.sigma**2 + r * r / noise)
            on_x, on_x0 = post * r / noise, post * b.alpha / b.sigma**2
        mean, slope = on_x * mean + on_x0 * (M + gain * (mean - a.alpha * M)), on_x + on_x0 * gain
        var = slope**2 * var + noise_scale**2 * (0.0 if b.sigma == 0 else (noise if large else post))
    return mean, var


def ode_recursion(levels, std):
    """Mean and variance of first-order DDIM: x' = alpha' x0 + sigma' eps with the affine denoiser."""
    mean, var = 0.0, std**2
    for a, b in pairwise(levels):
        gain = a.alpha * V / (a.alpha**2 * V + a.sigma**2)
        slope = b.alpha * gain + b.sigma * (1 - a.alpha * gain) / a.sigma
        x0 = M + gain * (mean - a.alpha * M)
        mean = b.alpha * x0 + b.sigma * (mean - a.alpha * x0) / a.sigma
        var = slope**2 * var
    return mean, var


@pytest.mark.parametrize(("name", "spacing"), GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 13, 50])
def test_gaussian_oracle(name, spacing, steps):
    schedule = SCHEDULES[name]
    levels = schedule.levels(steps, spacing)
    std = schedule.prior_std(levels[0])
    ddim, ddpm, large = ode_recursion(levels, std), posterior_recursion(levels, std), posterior_recursion(levels, std, True)
    assert moments("ddim", schedule, levels) == pytest.approx(ddim, rel=1e-10, abs=1e-10)
    assert moments("ddpm", schedule, levels) == pytest.approx(ddpm, rel=1e-10, abs=1e-10)
    assert moments("ddpm", schedule, levels, variance="large") == pytest.approx(large, rel=1e-10, abs=1e-10)
    assert moments("ddim", schedule, levels, eta=1.0) == pytest.approx(ddpm, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("name", ["linear", "cosine", "edm", "flow"])
@pytest.mark.parametrize("noise_scale", [0.0, 0.6, 1.0, 1.3])
@pytest.mark.filterwarnings("ignore:variance='large'")
def test_the_noise_of_ddpms_steps_is_scaled(name, noise_scale):
    """x_b = mean + noise_scale sqrt(variance) z; x_T is as it was, and 1 is DDPM to the bit."""
    schedule = SCHEDULES[name]
    levels = schedule.levels(10, schedule.spacings[0])
    std = schedule.prior_std(levels[0])
    for variance in ("small", "large"):
        expected = posterior_recursion(levels, std, variance == "large", noise_scale)
        found = moments("ddpm", schedule, levels, variance=variance, noise_scale=noise_scale)
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-10)
        if noise_scale == 1:
            assert found == moments("ddpm", schedule, levels, variance=variance)
        else:
            plain = moments("ddpm", schedule, levels, variance=variance)[1]
            assert (found[1] < plain) == (noise_scale < 1)


def test_the_scale_of_the_noise_counts_where_the_large_variance_is_too_large():
    levels = SCHEDULES["cosine"].levels(10, "karras")
    x = torch.zeros(1, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(get_sampler("ddpm")(predict, x, levels, rng=SampleRng(0, [0]), variance="large", noise_scale=0.2))
    with pytest.warns(UserWarning, match="variance='large' with 10 steps"):
        list(get_sampler("ddpm")(predict, x, levels, rng=SampleRng(0, [0]), variance="large", noise_scale=1.5))


#: a cosine schedule to its ends
WHOLE = (0.0064254, 20291.2)


@pytest.mark.parametrize(("steps", "warned"), [(5, True), (10, True), (50, False)])
def test_the_large_variance_of_too_few_steps_warns(steps, warned):
    levels = SCHEDULES["cosine"].levels(steps, "karras")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        x = torch.zeros(1, dtype=torch.float64)
        list(get_sampler("ddpm")(predict, x, levels, rng=SampleRng(0, [0]), variance="large"))
        list(get_sampler("ddpm")(predict, x, levels, rng=SampleRng(0, [0])))
    assert len(found) == warned
    assert all("variance='small'" in str(w.message) for w in found)


@pytest.mark.parametrize(
    ("bounds", "steps", "warned"),
    [
        (WHOLE, 5, True),
        (WHOLE, 13, False),
        ((0.03, 80.0), 5, False),
        ((0.03, 80.0), 3, True),
        (WHOLE, 1, False),
        (None, 250, False),
    ],
)
def test_heun_warns_of_steps_that_are_too_long_for_it(bounds, steps, warned):
    levels = SCHEDULES["cosine"].levels(steps, "karras", bounds)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for name in ("heun", "euler"):
            list(get_sampler(name)(predict, torch.zeros(1, dtype=torch.float64), levels, rng=SampleRng(0, [0])))
    assert len(found) == warned
    assert all("heun with" in str(w.message) and "take more steps" in str(w.message) for w in found)


def test_the_designs_numbers():
    """N(0.7, var 0.25), linear, T = 1000, trailing, 10 steps."""
    levels = SCHEDULES["linear"].levels(10, "trailing")
    assert moments("ddim", SCHEDULES["linear"], levels)[1] == pytest.approx(0.136867, abs=5e-7)
    assert moments("ddpm", SCHEDULES["linear"], levels)[1] == pytest.approx(0.1112, abs=5e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 10, 16, 25, 40])
def test_every_step_count_ends_clean(steps):
    for schedule in SCHEDULES.values():
        for spacing in schedule.spacings:
            levels = schedule.levels(steps, spacing)
            assert len(levels) == steps + 1
            assert (levels[-1].alpha, levels[-1].sigma) == (1.0, 0.0)
            assert all(a.ratio > b.ratio for a, b in pairwise(levels))
            for s in SAMPLERS:
                *_, step = get_sampler(s)(predict, torch.zeros(1, dtype=torch.float64), levels, rng=SampleRng(0, [0]))
                assert torch.isfinite(step.x).all()
                assert torch.equal(step.x, step.x0) or s == "heun"


def even_grid(n, lo=-3.0, hi=3.0):
    """Variance-preserving levels even in log-SNR, fine enough to measure orders."""
    lams = [lo + i * (hi - lo) / n for i in range(n + 1)]
    return [Level(0, math.sqrt(1 / (1 + math.exp(-2 * lam))), math.sqrt(1 / (1 + math.exp(2 * lam)))) for lam in lams]


def exact(levels, x):
    """The probability-flow ODE of Gaussian data keeps (x - mean) / std."""

    def std(level):
        return math.sqrt(level.alpha**2 * V + level.sigma**2)

    a, b = levels[0], levels[-1]
    return b.alpha * M + std(b) / std(a) * (x - a.alpha * M)


def rectified(levels):
    """The same noise ratios on the path alpha + sigma = 1."""
    return [Level(0, a.alpha / (a.alpha + a.sigma), a.sigma / (a.alpha + a.sigma)) for a in levels]


def exploding(levels):
    return [Level(0, 1.0, a.ratio) for a in levels]


@pytest.mark.parametrize("path", [lambda x: x, rectified, exploding])
@pytest.mark.parametrize(
    ("name", "order", "options"), [("ddim", 1, {}), ("dpmpp", 2, {"lower_order_final": False}), ("heun", 2, {})]
)
def test_order_of_convergence(name, order, options, path):
    def error(n):
        levels = path(even_grid(n))
        *_, step = get_sampler(name)(
            predict, torch.tensor([1.3], dtype=torch.float64), levels, rng=SampleRng(0, [0]), **options
        )
        return abs(step.x.item() - exact(levels, 1.3))

    measured = math.log2(error(80) / error(160))
    assert measured == pytest.approx(order, abs=0.15)


def test_plms_is_of_third_order_or_more():
    """On a grid that is even in sigma / alpha, for which its weights are: fourth order after a step of second order."""

    def error(n):
        ratios = [8.0 + i * (0.5 - 8.0) / n for i in range(n + 1)]
        levels = [Level(0, 1 / math.sqrt(1 + r * r), r / math.sqrt(1 + r * r)) for r in ratios]
        *_, step = get_sampler("plms")(predict, torch.tensor([1.3], dtype=torch.float64), levels, rng=SampleRng(0, [0]))
        return abs(step.x.item() - exact(levels, 1.3))

    assert math.log2(error(160) / error(320)) > 2.9


def test_plms_starts_and_ends_as_it_is_told():
    levels = [Level(1, 0.0, 1.0), Level(0.5, 0.6, 0.8), Level(0, 1.0, 0.0)]

    def guess(x, level):
        return x + 5, x

    def run(**options):
        return [s.x.item() for s in get_sampler("plms")(guess, torch.tensor([2.0]), levels, rng=SampleRng(0, [0]), **options)]

    assert run()[0] == pytest.approx(0.6 * 7 + 0.8 * 2) and run()[1] == pytest.approx(5.8 + 5)
    assert run(start="zero")[0] == pytest.approx(0.8 * 2)
    eps = (3 * 5.8 - 2.0) / 2
    assert run(end="sum")[1] == pytest.approx((5.8 - 0.8 * eps) / 0.6, rel=1e-5)
    for option in ("start", "end"):
        with pytest.raises(ConfigError, match=f"unknown {option} 'noise'"):
            run(**{option: "noise"})


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("schedule", ["linear", "zero-snr", "flow"])
def test_a_sampler_calls_the_prediction_as_often_as_it_says(name, steps, schedule):
    calls = []

    def counted(x, level):
        calls.append(level)
        return predict(x, level)

    levels = SCHEDULES[schedule].levels(steps)
    list(get_sampler(name)(counted, torch.zeros(1, dtype=torch.float64), levels, rng=SampleRng(0, [0])))
    assert len(calls) == get_sampler(name).evaluations(levels)


def test_ddpm_is_ddim_with_eta_1_also_when_clipped():
    schedule = DiscreteSchedule("linear")
    levels = schedule.levels(20)
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def clipped(x, level):
        x0 = torch.tanh(3 * x).clamp(-0.5, 0.5)
        return x0, (x - level.alpha * x0) / level.sigma

    *_, a = get_sampler("ddpm")(clipped, x, levels, rng=SampleRng(1, range(3)))
    *_, b = get_sampler("ddim")(clipped, x, levels, rng=SampleRng(1, range(3)), eta=1.0)
    torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-14)


def test_heun_is_edms_algorithm_2():
    """Against the paper's own formulas in sigma, with churn."""
    schedule = EDMSchedule()
    n, s_churn, s_noise = 12, 8.0, 1.007
    levels = schedule.levels(n)
    source = SampleRng(5, [0])
    x = 80.0 * source.normal(torch.zeros(1, 4, dtype=torch.float64))
    *_, step = get_sampler("heun")(predict, x, levels, rng=source, churned=churn(schedule, levels, s_churn), s_noise=s_noise)

    source = SampleRng(5, [0])
    y = 80.0 * source.normal(torch.zeros(1, 4, dtype=torch.float64))
    sigmas = [(80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(n)] + [0.0]

    def denoised(y, s):
        return M + V / (V + s * s) * (y - M)

    gamma = min(s_churn / n, math.sqrt(2) - 1)
    for i in range(n):
        t, u = sigmas[i], sigmas[i + 1]
        t_hat = min(t * (1 + gamma), 80.0)
        if t_hat > t:
            y = y + math.sqrt(t_hat**2 - t**2) * s_noise * source.normal(y)
        d = (y - denoised(y, t_hat)) / t_hat
        nxt = y + (u - t_hat) * d
        y = nxt if u == 0 else y + (u - t_hat) * (d + (nxt - denoised(nxt, u)) / u) / 2
    torch.testing.assert_close(step.x, y, rtol=1e-10, atol=1e-10)


def test_goldens_of_the_references():
    """x0 = arange(768)/768, model = x t / (t + 1), ten steps: recomputed in plain numpy by others."""
    schedule = DiscreteSchedule("linear")
    start = (torch.arange(768, dtype=torch.float64) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)

    def run(name, levels, prediction, clip=None):
        predict = believed(lambda x, level: x * level.t / (level.t + 1), Diffusion(schedule, prediction))
        predict = predict if clip is None else clipped(predict, clip)
        *_, step = get_sampler(name)(predict, start, levels, rng=SampleRng(0, range(4)), **opts)
        return step.x.abs()

    opts = {}
    leading = schedule.levels(10, "leading")
    eps, v = run("ddim", leading, "eps", 1.0), run("ddim", leading, "v", 1.0)
    assert (eps.sum().item(), eps.mean().item()) == pytest.approx((172.0067, 0.223967), abs=5e-4)
    assert (v.sum().item(), v.mean().item()) == pytest.approx((52.5302, 0.0684), abs=5e-4)
    opts = {"lower_order_final": False}
    inclusive = [schedule.level(t) for t in (round(999 * (10 - i) / 10) for i in range(11))]
    assert run("dpmpp", inclusive, "eps").mean().item() == pytest.approx(0.3301, abs=5e-4)
    assert run("dpmpp", inclusive, "v").mean().item() == pytest.approx(0.2251, abs=5e-4)


def test_first_order_last_step_of_dpmpp_only_below_15_steps():
    schedule = DiscreteSchedule("cosine")
    for n, differs in ((14, True), (15, False)):
        levels = [schedule.level(t) for t in range(900, 900 - 20 * (n + 1), -20)]
        ends = [moments("dpmpp", schedule, levels, lower_order_final=f)[1] for f in (True, False)]
        assert (ends[0] != ends[1]) == differs


@pytest.mark.parametrize("name", ["linear", "edm", "flow"])
@pytest.mark.parametrize(
    ("s_churn", "s_noise", "scale"), [(0.0, 1.0, 1.0), (5.0, 1.003, 1.0), (5.0, 1.003, 1.5), (0.0, 1.0, 0.8)]
)
def test_euler_by_recursion_in_the_noise_ratio(name, s_churn, s_noise, scale):
    """u = x / alpha at ratio r: churn adds noise up to r', then u falls along (u - x0) / r' by scale (r' - r_b)."""
    schedule = SCHEDULES[name]
    levels = schedule.levels(12)
    raised = churn(schedule, levels, s_churn)
    mean, var = (0.0, (schedule.prior_std(levels[0]) / levels[0].alpha) ** 2) if levels[0].alpha else (None, None)
    for (a, b), c in zip(pairwise(levels), raised, strict=True):
        if mean is None:  # pure noise of no signal: x0 is the mean, and x / sigma the noise
            mean, var = M, b.ratio**2
            continue
        var += s_noise**2 * (c.ratio**2 - a.ratio**2)
        gain = V / (V + c.ratio**2)  # x0 = M + gain (u - M)
        keep = max(1 - scale * (1 - b.ratio / c.ratio), 0.0) if b.sigma else 0.0
        slope = gain + keep * (1 - gain)
        mean, var = M + slope * (mean - M), slope**2 * var
    got = moments("euler", schedule, levels, churned=raised, s_noise=s_noise, step_scale=scale)
    assert got == pytest.approx((mean, var), rel=1e-9, abs=1e-10)


def test_euler_without_churn_is_ddim():
    schedule = DiscreteSchedule("cosine")
    levels = schedule.levels(9)
    assert moments("euler", schedule, levels) == pytest.approx(moments("ddim", schedule, levels), rel=1e-12)


def test_churn_raises_within_bounds_and_stops_at_the_schedules_end():
    schedule = EDMSchedule()
    levels = schedule.levels(10)
    raised = churn(schedule, levels, 100.0, s_min=0.1, s_max=50.0)
    for a, c in zip(levels, raised, strict=False):
        factor = math.sqrt(2) if 0.1 <= a.sigma <= 50 else 1.0
        assert c.sigma == pytest.approx(min(a.sigma * factor, 80.0))


def test_a_sampler_is_one_decorated_generator():
    @sampler("test-euler")
    def euler(predict, x, levels, *, rng, boost=1.0):
        for a, b in pairwise(levels):
            x0, eps = predict(x, a)
            x = b.alpha * x0 + b.sigma * eps
            yield type(first)(b, x, x0)

    try:
        levels = DiscreteSchedule().levels(5)
        x = torch.ones(1, dtype=torch.float64)
        *_, first = get_sampler("ddim")(predict, x, levels, rng=SampleRng(0, [0]))
        *_, own = get_sampler("test-euler")(predict, x, levels, rng=SampleRng(0, [0]))
        assert torch.equal(own.x, first.x)
        assert get_sampler("test-euler").options == ("boost",)
    finally:
        SAMPLERS.remove("test-euler")


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: get_sampler("ddmi"), "ddim"),
        (lambda: list(get_sampler("ddim")(predict, torch.zeros(1), [], rng=None, et=1)), "eta"),
        (lambda: list(get_sampler("ddim")(predict, torch.zeros(1), [], rng=None, eta=1.5)), "eta=1.5"),
        (lambda: list(get_sampler("ddpm")(predict, torch.zeros(1), [], rng=None, variance="big")), "small, large"),
        (
            lambda: list(get_sampler("ddpm")(predict, torch.zeros(1), [], rng=None, noise_scale=-1)),
            "noise_scale=-1: give a f",
        ),
        (lambda: list(get_sampler("ddpm")(predict, torch.zeros(1), [], rng=None, noise_scale=math.nan)), "noise_scale=nan"),
        (lambda: churn(EDMSchedule(), EDMSchedule().levels(3), -1.0), "s_churn"),
        (lambda: list(get_sampler("euler")(predict, torch.zeros(1), [], rng=None, step_scale=0)), "step_scale=0"),
        (
            lambda: list(get_sampler("euler")(predict, torch.zeros(1), EDMSchedule().levels(3), rng=None, churned=[1])),
            "1 churned",
        ),
    ],
)
def test_errors_say_what_is_allowed(call, match):
    with pytest.raises(ConfigError, match=match):
        call()

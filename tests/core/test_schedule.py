import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch

import zoo
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import SCHEDULES, CosineSchedule, DiscreteSchedule, EDMSchedule, FlowSchedule, Schedule, schedule
from zoo.errors import ConfigError

ALL = [DiscreteSchedule(c) for c in ("linear", "cosine", "sigmoid")] + [
    EDMSchedule(),
    FlowSchedule(),
    FlowSchedule(logit_std=1.0, shift=3.0),
    CosineSchedule(),
    CosineSchedule(crash=True),
]


def test_linear_is_the_product_of_one_minus_beta():
    s = DiscreteSchedule("linear")
    product = 1.0
    for t in range(1000):
        product *= 1 - (1e-4 + t * (0.02 - 1e-4) / 999)
        assert s.alpha_bar[t].item() == pytest.approx(product, rel=1e-12)
    assert s.alpha_bar.dtype == torch.float64


def test_cosine_follows_the_papers_curve():
    s = DiscreteSchedule("cosine", T=100)

    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (0, 1, 50, 97):
        assert s.alpha_bar[t].item() == pytest.approx(f((t + 1) / 100) / f(0), rel=1e-12)


def test_the_cosine_process_and_the_times_of_dance_diffusion():
    plain, crash = CosineSchedule(), CosineSchedule(crash=True)
    assert [level.t for level in plain.levels(4)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert (plain.levels(4)[0].alpha, plain.levels(4)[2].alpha) == (0.0, pytest.approx(math.sqrt(0.5)))
    assert [level.sigma for level in crash.levels(4)[:-1]] == pytest.approx(
        [math.sin(math.pi / 2 * u) ** 2 for u in (1, 0.75, 0.5, 0.25)]
    )
    sigma = crash.draw(20_000, torch.Generator().manual_seed(0)).sigma  # of even u: half of them are below that of u = 1/2
    assert float((sigma < 0.5).double().mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(sigma.mean()) == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(ConfigError, match="crash=1: give true or false"):
        CosineSchedule(crash=1)


@pytest.mark.parametrize("curve", ["linear", "cosine", "sigmoid"])
def test_zero_terminal_snr_keeps_the_first_and_zeroes_the_last(curve):
    plain, zero = DiscreteSchedule(curve), DiscreteSchedule(curve, zero_terminal_snr=True)
    assert zero.alpha_bar[-1].item() == 0
    assert zero.alpha_bar[0].item() == pytest.approx(plain.alpha_bar[0].item(), rel=1e-12)
    assert (zero.alpha_bar.diff() < 0).all()


def test_grids_of_the_literature():
    """Table 2 of Lin et al. 2023, 1-based there: T = 1000, 10 steps."""
    s = DiscreteSchedule()

    def ts(n, spacing):
        return [level.t for level in s.levels(n, spacing)]

    assert ts(10, "trailing") == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99, -1]
    assert ts(10, "leading") == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0, -1]
    assert ts(4, "linspace") == [999, 666, 333, 0, -1]
    assert ts(1, "trailing") == [999, -1]
    assert ts(1000, "trailing") == ts(1000, "leading") == ts(1000, "linspace") == [*range(999, -1, -1), -1]
    assert ts(13, "trailing")[:3] == [999, 922, 845]
    assert ts(4, "open-linspace") == [999, 749, 500, 250, -1]
    assert ts(4, "open-leading") == [800, 600, 400, 200, -1]
    ahead = DiscreteSchedule(steps_offset=1)
    assert [level.t for level in ahead.levels(4, "leading")] == [751, 501, 251, 1, -1]
    assert [level.t for level in ahead.levels(4, "open-leading")] == [801, 601, 401, 201, -1]
    assert [level.t for level in ahead.levels(4)] == ts(4, "trailing")  # other grids have no offset


def test_scaled_linear_is_linear_in_the_roots():
    s = DiscreteSchedule("scaled_linear", beta_start=0.00085, beta_end=0.012)
    product = 1.0
    for t in range(1000):
        product *= 1 - (math.sqrt(0.00085) + t * (math.sqrt(0.012) - math.sqrt(0.00085)) / 999) ** 2
        assert s.alpha_bar[t].item() == pytest.approx(product, rel=1e-12)


def test_betas_of_ones_own():
    s = DiscreteSchedule(T=3, betas=[0.1, 0.2, 1.0])
    assert s.alpha_bar.tolist() == pytest.approx([0.9, 0.72, 0.0])
    assert s == DiscreteSchedule(T=3, betas=(0.1, 0.2, 1.0)) and s.options["betas"] == (0.1, 0.2, 1.0)
    linear = DiscreteSchedule("linear")
    steps = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert DiscreteSchedule(betas=steps).alpha_bar.equal(linear.alpha_bar)


def test_a_grid_may_end_at_the_least_noise():
    s = DiscreteSchedule("linear", final="least")
    assert [level.t for level in s.levels(4)] == [999, 749, 499, 249, 0]
    assert s.levels(4, "karras")[-1] == s.level(0) != s.clean
    assert s.clean.sigma == 0


def test_an_even_grid_of_a_flow_ends_at_its_least_time():
    assert [level.t for level in FlowSchedule(t_min=0.1).levels(4, "linspace")] == pytest.approx([1.0, 0.7, 0.4, 0.1, 0.0])
    moved = [level.t for level in FlowSchedule(t_min=0.1, shift=3.0).levels(2, "linspace")]
    assert moved == pytest.approx([1.0, 0.3 / 1.2, 0.0])
    assert FlowSchedule().levels(1, "linspace")[0].t == 1.0


def test_karras_grid_of_edm():
    sigmas = [level.sigma for level in EDMSchedule().levels(18)]
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[-2] == pytest.approx(0.002)
    assert sigmas[-1] == 0
    assert [level.t for level in EDMSchedule().levels(3)][1] == pytest.approx(math.log(EDMSchedule().levels(3)[1].sigma) / 4)


@pytest.mark.parametrize("schedule", ALL)
def test_at_finds_the_level_of_a_ratio(schedule):
    for level in schedule.levels(7)[1:-1]:
        found = schedule.at(level.ratio)
        assert (found.t, found.alpha, found.sigma) == pytest.approx((level.t, level.alpha, level.sigma), rel=1e-9, abs=1e-9)
    assert schedule.at(0.0) == schedule.clean


@pytest.mark.parametrize("schedule", ALL)
def test_draws_are_levels_of_the_schedule_and_the_same_for_the_same_generator(schedule):
    a, b = (schedule.draw(512, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a.t, b.t)
    assert a.t.dtype == a.alpha.dtype == a.sigma.dtype == torch.float64
    for i in range(0, 512, 64):
        level = schedule.at((a.sigma[i] / a.alpha[i]).item())
        if level.ratio < 70:  # EDM's range ends at 80, its training distribution does not
            assert (level.t, level.alpha) == pytest.approx((a.t[i].item(), a.alpha[i].item()), rel=1e-6, abs=1e-6)


def test_discrete_draws_are_uniform_and_stratified():
    s = DiscreteSchedule(T=1000)
    t = s.draw(1000, torch.Generator().manual_seed(0)).t
    assert sorted(t.tolist()) == [float(i) for i in range(1000)]  # exactly one in each stratum
    assert (t.diff() > 0).float().mean().item() == pytest.approx(0.5, abs=0.1)  # and in random order


def test_edm_draws_are_log_normal():
    log_sigma = EDMSchedule().draw(100_000, torch.Generator().manual_seed(0)).sigma.log()
    assert log_sigma.mean().item() == pytest.approx(-1.2, abs=0.01)
    assert log_sigma.std().item() == pytest.approx(1.2, abs=0.01)


def test_flow_shift_moves_times_towards_noise():
    assert FlowSchedule(shift=3.0).levels(2)[1].t == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: DiscreteSchedule().levels(0), "1 to 1000"),
        (lambda: DiscreteSchedule().levels(1001), "1 to 1000"),
        (lambda: DiscreteSchedule().levels(2.5), "whole number"),
        (lambda: DiscreteSchedule().levels(True), "whole number"),
        (lambda: DiscreteSchedule().levels(5, "trailling"), "'trailing'"),
        (lambda: EDMSchedule().levels(5, "leading"), "karras"),
        (lambda: DiscreteSchedule("cosin"), "cosine"),
        (lambda: DiscreteSchedule(T=1), "at least 2"),
        (lambda: DiscreteSchedule(beta_start=0.5, beta_end=0.1), "beta_start"),
        (lambda: DiscreteSchedule().levels(5, "karras", (3.0, 0.1)), "0 < low < high"),
        (lambda: DiscreteSchedule().levels(5, "karras", (0.1, float("inf"))), "0 < low < high"),
        (lambda: DiscreteSchedule().levels(5, "karras", 3.0), "give two numbers"),
        (lambda: DiscreteSchedule().levels(5, "trailing", (0.1, 3.0)), "spacing='karras'"),
        (lambda: DiscreteSchedule().level(1000), "0 to 999"),
        (lambda: EDMSchedule(sigma_min=2, sigma_max=1), "sigma_min"),
        (lambda: EDMSchedule(sigma_min=1e-300), "sigma_min=1e-300.*1e-12 <= sigma_min"),
        (lambda: EDMSchedule(sigma_max=1e300), r"sigma_max=1e\+300.*sigma_max <= 1e\+12"),
        (lambda: DiscreteSchedule().levels(5, "karras", (1e-300, 1.0)), r"from 1e-12 to 1e\+12"),
        (lambda: FlowSchedule(shift=0), "shift"),
        (lambda: FlowSchedule(t_min=1.0), "t_min"),
        (lambda: DiscreteSchedule(betas=(0.1, 0.2)), r"2 of them; give T=1000"),
        (lambda: DiscreteSchedule(betas=0.1), "no list"),
        (lambda: DiscreteSchedule(T=2, betas=(1.0, 0.2)), "only the last may be 1"),
        (lambda: DiscreteSchedule(T=2, betas=(0.2, 1.1)), r"betas: 1\.1"),
        (lambda: DiscreteSchedule(T=2, betas=(0.2, float("nan"))), "finite number"),
        (lambda: DiscreteSchedule(steps_offset=1000), "0 to 999"),
        (lambda: DiscreteSchedule(steps_offset=1).levels(1000, "leading"), "t=1000"),
        (lambda: DiscreteSchedule().levels(1000, "open-leading"), "leaves one of 1000 steps out"),
        (lambda: DiscreteSchedule(final="first"), "'clean', 'least'|clean, least"),
    ],
)
def test_errors(call, match):
    with pytest.raises(ConfigError, match=match):
        call()


@pytest.mark.parametrize("schedule", [DiscreteSchedule("cosine"), EDMSchedule(), FlowSchedule()])
def test_a_karras_grid_has_the_ends_that_are_asked_for_and_else_starts_at_80(schedule):
    ratios = [level.ratio for level in schedule.levels(9, "karras", (0.03, 20.0))[:-1]]
    assert (ratios[0], ratios[-1]) == pytest.approx((20.0, 0.03))
    roots = [r ** (1 / 7) for r in ratios]  # Karras et al. 2022, Eq. 5
    steps = [a - b for a, b in pairwise(roots)]
    assert steps == pytest.approx([steps[0]] * 8)
    assert schedule.levels(9, "karras")[0].ratio == pytest.approx(80.0)


def test_a_karras_grid_does_not_start_above_what_the_schedule_has():
    assert DiscreteSchedule("linear", beta_end=0.01).levels(9, "karras")[0].ratio < 20
    zero_snr = DiscreteSchedule(zero_terminal_snr=True).levels(9, "karras")[0]
    assert 40 < zero_snr.ratio <= 80, "its last level is at infinity, and the one before it lower"


@pytest.mark.parametrize(
    "schedule",
    [DiscreteSchedule("cosine"), DiscreteSchedule("linear", zero_terminal_snr=True), EDMSchedule(), FlowSchedule(shift=2.0)],
    ids=["discrete", "zero terminal SNR", "edm", "flow"],
)
def test_the_level_of_a_coordinate_is_the_one_that_was_drawn(schedule):
    drawn = schedule.draw(200, torch.Generator().manual_seed(0))
    found = schedule.of(drawn.t)
    torch.testing.assert_close(torch.as_tensor(found.alpha).expand(200).double(), drawn.alpha, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.sigma, drawn.sigma, rtol=1e-9, atol=1e-9)
    assert schedule.of(drawn.t.float()).sigma.dtype == torch.float32
    grid = schedule.levels(7)
    t = torch.tensor([level.t for level in grid[:-1]], dtype=torch.float64)
    for k in ("alpha", "sigma"):
        want = torch.tensor([getattr(level, k) for level in grid[:-1]], dtype=torch.float64)
        torch.testing.assert_close(torch.as_tensor(getattr(schedule.of(t), k)).expand(7).double(), want, rtol=1e-9, atol=1e-9)


def test_between_two_steps_and_after_the_last_one_a_discrete_level_is_where_sampling_says():
    schedule = DiscreteSchedule("cosine")
    for ratio in (0.02, 0.3, 1.0, 20.0):
        level = schedule.at(ratio)
        found = schedule.of(torch.tensor([level.t], dtype=torch.float64))
        assert found.alpha.item() == pytest.approx(level.alpha) and found.sigma.item() == pytest.approx(level.sigma)
    clean = schedule.of(torch.tensor([-1.0]))
    assert (clean.alpha.item(), clean.sigma.item()) == (1.0, 0.0)


def test_a_schedule_of_another_package_is_used_by_its_name():
    @schedule("warm")
    @dataclass(frozen=True)
    class Warm(FlowSchedule):
        heat: float = 1.0

    try:
        small = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}
        model = zoo.create("image/fashion-ddpm", **small, schedule={"kind": "warm", "heat": 2.0}, **{"sampling.spacing": None})
        assert model.diffusion.schedule == Warm(heat=2.0) and model.recipe.schedule.model_dump() == {
            "kind": "warm",
            "heat": 2.0,
        }
        assert type(model.recipe).parse(model.recipe.model_dump(mode="json")) == model.recipe
        assert model.sample(1, steps=1, progress=False).plan.steps == 1
        with pytest.raises(ConfigError, match=r"schedule 'warm'.*cold"):
            zoo.create("image/fashion-ddpm", **small, schedule={"kind": "warm", "cold": 2.0})
    finally:
        SCHEDULES.remove("warm")
    with pytest.raises(ConfigError, match="kind of schedule 'warm'"):
        zoo.create("image/fashion-ddpm", schedule={"kind": "warm"})


def test_a_schedule_that_does_not_say_it_is_refused_where_a_net_asks():
    class Silent(FlowSchedule):
        of = Schedule.of

    with pytest.raises(ConfigError, match="Silent has no method `of`"):
        Silent().of(torch.zeros(1))


def test_net_levels_say_what_the_net_receives():
    """gain * x_t = alpha x0 + sigma eps, for every process, with and without preconditioning."""
    x0, eps = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for process in (DiscreteSchedule(), EDMSchedule(), FlowSchedule()):
        for options in ({}, {"precondition": True, "sigma_data": 0.7}):
            seen = []

            class Net:
                needs_level = True

                def __call__(self, x_t, t, cond, *, mask=None, level, seen=seen):
                    seen.append((x_t, level))
                    return x_t

            diffusion = Diffusion(process, "x0", **options)
            level = process.draw(50, torch.Generator().manual_seed(2))
            diffusion.denoise(Net(), diffusion.q_sample(x0[:, None], level, eps[:, None]), level, {})
            ((x_t, told),) = seen
            torch.testing.assert_close(told.gain * x_t[:, 0], told.alpha * x0 + told.sigma * eps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", [*ALL, DiscreteSchedule("linear", zero_terminal_snr=True)], ids=str)
@pytest.mark.parametrize("precondition", [False, True])
def test_net_levels_are_tensors_without_nan_everywhere(schedule, precondition):
    diffusion = Diffusion(schedule, "x0", precondition=precondition)
    ends = [schedule.levels(10)[k].t for k in (0, 1, 8)]
    level = diffusion.seen(torch.tensor([*ends, ends[0] - 0.5], dtype=torch.float64))
    for part in (level.alpha, level.sigma, level.gain):
        assert part.shape == (4,) and torch.isfinite(part).all()


def test_a_schedule_under_a_name_that_is_taken_keeps_its_own():
    class Mine(EDMSchedule):
        kind = "mine"

    with pytest.raises(ConfigError, match="exists already"):
        schedule("edm")(Mine)
    assert Mine.kind == "mine"


@pytest.mark.parametrize("bounds", [(1e-12, 1e12), (1e5, 1e6), (True, 80)])
def test_bounds_that_no_grid_can_keep_are_refused(bounds):
    """Else two steps are one and the same, and a multistep sampler divides by their distance."""
    with pytest.raises(ConfigError, match="bounds="):
        DiscreteSchedule("cosine").levels(5, "karras", bounds)
    assert len(DiscreteSchedule("cosine").levels(5, "karras", (1e-3, 80))) == 6

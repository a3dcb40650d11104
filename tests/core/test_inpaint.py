"""In-painting of Gaussian data, whose conditional is known in closed form: each method, each sampler, with its bounds."""

import re
from pathlib import Path

import gaussian
import pytest
import torch

from zoo.core.correction import Setting
from zoo.core.inpaint import (
    CHOSEN,
    METHODS,
    OPTIONS,
    Method,
    Particles,
    Posterior,
    Resample,
    Select,
    draw,
    method_of,
    renoised,
    systematic,
)
from zoo.core.predict import Memory, remembered
from zoo.core.samplers import get_sampler
from zoo.core.seeds import ParticleRng, SampleRng
from zoo.core.steer import Hold, Place, hold
from zoo.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "steering.md"
#: errors of the mean in conditional standard deviations, and of the variance, of what must be right
MEAN, LEAST, MOST = 0.05, 0.90, 1.10


def made(method, data, sampler, steps, *, rows=200, schedule="cosine", dtype=torch.float64, **options):
    """(worst error of the conditional mean in conditional deviations, least and largest variance ratio)."""
    covariance, where = gaussian.DATA[data]
    levels = gaussian.SCHEDULES[schedule].levels(steps)
    y = gaussian.draw(covariance)
    truth = gaussian.conditional(covariance, torch.eye(gaussian.N, dtype=torch.float64)[where], 0, y[where])
    predict, held = gaussian.net(covariance), Hold(torch.where(where, y, 0), where)
    start = torch.zeros(rows * method.copies, gaussian.N, dtype=dtype)
    rng = gaussian.Independent(rows) if method.copies > 1 else gaussian.Matched()
    x = rng.normal(start) * gaussian.SCHEDULES[schedule].prior_std(levels[0])
    known = method.steer(held)(predict) if method.steered else predict
    run = method.run(get_sampler(sampler), known, x, levels, rng, options, held=held, setting=Setting())
    with torch.no_grad():
        *_, step = run
    torch.testing.assert_close(step.x[:, where], y[where].to(dtype).expand(rows, -1), rtol=0, atol=0)
    return gaussian.errors(step.x, *truth, where)


#: samplers and their steps; few of them need a solver of second order
STEPS = [("dpmpp", 60), *(pytest.param(name, 250, marks=pytest.mark.slow) for name in ("ddpm", "ddim", "dpmpp"))]


@pytest.mark.parametrize(("sampler", "steps"), STEPS)
@pytest.mark.parametrize("data", gaussian.DATA)
def test_posterior_is_the_conditional(data, sampler, steps):
    mean, least, most = made(Posterior(), data, sampler, steps)
    assert mean < MEAN and least > LEAST and most < MOST


@pytest.mark.parametrize("schedule", ["linear", "edm", "flow"])
def test_posterior_is_the_conditional_on_every_schedule(schedule):
    mean, least, most = made(Posterior(), ".95", "dpmpp", 60, rows=50, schedule=schedule)
    assert mean < MEAN and least > LEAST and most < MOST


def test_posterior_in_float32_is_the_same():
    wide, narrow = (made(Posterior(), ".95", "ddim", 20, rows=50, dtype=d) for d in (torch.float64, torch.float32))
    assert wide == pytest.approx(narrow, abs=0.01)


@pytest.mark.parametrize("data", gaussian.DATA)
def test_more_products_are_exact(data):
    """As many products as there are known parts solve the system, and the mean has no error but that of the steps."""
    mean, least, most = made(Posterior(products=6), data, "dpmpp", 50, rows=50)
    assert mean < 0.03 and least > 0.95 and most < 1.05


# (data, sampler): error of the mean at most, variance ratio at least and at most
REPLACE = {
    (".8", "ddpm"): (0.5, 1.3, 1.7),
    (".8", "ddim"): (0.8, 1.3, 2.6),
    (".8", "dpmpp"): (0.8, 1.3, 2.6),
    (".95", "ddpm"): (0.7, 1.4, 2.6),
    (".95", "ddim"): (0.8, 1.4, 4.2),
    (".95", "dpmpp"): (0.8, 1.4, 4.2),
}


@pytest.mark.parametrize(("data", "sampler"), REPLACE)
def test_replace_is_no_conditional(data, sampler):
    """What the pages say of it: too wide, at any number of steps."""
    mean, least, most = made(Method(), data, sampler, 100)
    top, low, high = REPLACE[data, sampler]
    assert mean < top and low < least and most < high


RESAMPLE = {
    (".8", "ddpm"): (0.10, 0.80, 1.05),
    (".8", "ddim"): (0.10, 0.90, 1.15),
    (".8", "dpmpp"): (0.10, 0.90, 1.15),
    (".95", "ddpm"): (0.25, 0.80, 1.10),
    (".95", "ddim"): (0.25, 0.85, 1.25),
    (".95", "dpmpp"): (0.25, 0.85, 1.25),
}


@pytest.mark.slow
@pytest.mark.parametrize(("data", "sampler"), RESAMPLE)
def test_resample_comes_near(data, sampler):
    mean, least, most = made(Resample(), data, sampler, 100)
    top, low, high = RESAMPLE[data, sampler]
    assert mean < top and low < least and most < high


@pytest.mark.parametrize("data", gaussian.DATA)
def test_resample_comes_near_in_few_steps(data):
    mean, least, most = made(Resample(times=5), data, "ddim", 40, rows=50)
    top, low, high = 0.3, 0.8, 1.6
    assert mean < top and low < least and most < high


@pytest.mark.slow
@pytest.mark.parametrize("data", gaussian.DATA)
@pytest.mark.parametrize("options", [{"sampler": "ddpm"}, {"sampler": "ddim", "eta": 0.7}, {"sampler": "ddim", "eta": 1.0}])
def test_particles_come_near(data, options):
    mean, least, most = made(Particles(), data, steps=50, rows=2000, **options)
    assert mean < 0.15 and least > 0.70 and most < 1.10


@pytest.mark.parametrize("data", gaussian.DATA)
def test_particles_come_near_in_few_samples(data):
    mean, least, most = made(Particles(), data, "ddpm", 25, rows=200)
    assert mean < 0.3 and least > 0.55 and most < 1.25


def shown(mean, least, most):
    """Figures as docs/steering.md has them: without the 0 in front, a range as one number where both ends are the same."""
    numbers = [f"{x:.2f}".removeprefix("0") for x in (mean, least, most)]
    ratio = numbers[1] if numbers[1] == numbers[2] else "-".join(numbers[1:])
    return f"{numbers[0]}; {ratio}"


ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| `\w+`, \w+ \d+ \|", line)]


@pytest.mark.slow
@pytest.mark.parametrize("line", ROWS)
def test_the_page_tells_what_is_measured(line):
    name, sampler, steps, *told = re.match(r"\| `(\w+)`, (\w+) (\d+) \| (.*?) \| (.*?) \|", line).groups()
    rows = 2000 if name == "particles" else 200
    found = [made(METHODS[name](), data, sampler, int(steps), rows=rows) for data in (".8", ".95")]
    assert [shown(*figures) for figures in found] == told


def test_the_page_has_a_row_for_each_method():
    assert {line.split("`")[1] for line in ROWS} == set(METHODS) - {"select"}, "known numbers say of no other what is better"


def test_particles_need_noise_that_they_know():
    for sampler, options in (("dpmpp", {}), ("ddim", {}), ("heun", {}), ("ddim", {"eta": 0.0})):
        with pytest.raises(ConfigError, match="ddpm"):
            made(Particles(2), ".8", sampler, 3, rows=2, **options)
    with pytest.raises(ConfigError, match="give noise_scale=1"):
        made(Particles(2), ".8", "ddpm", 3, rows=2, noise_scale=0.6)


def test_weights_are_the_ratio_of_two_kernels():
    """Without a twist (nothing is known) all particles weigh the same, and none is replaced."""
    covariance, _ = gaussian.DATA[".8"]
    levels, rng = gaussian.SCHEDULES["cosine"].levels(5), gaussian.Independent(3)
    nothing = Hold(torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.bool))
    x = rng.normal(torch.zeros(12, 8, dtype=torch.float64))
    drawn = []
    rng.uniform = lambda: drawn.append(1) or torch.full((3,), 0.3, dtype=torch.float64)
    run = Particles(4).run(get_sampler("ddpm"), gaussian.net(covariance), x, levels, rng, {}, held=nothing, setting=Setting())
    *_, step = run
    same = gaussian.Independent(3)
    *_, plain = get_sampler("ddpm")(gaussian.net(covariance), same.normal(torch.zeros_like(x)), levels, rng=same)
    torch.testing.assert_close(step.x, plain.x[1::4], msg="0.3 of four equal weights is the second particle")


def test_what_a_net_was_told_follows_the_particles():
    covariance, where = gaussian.DATA[".95"]
    memory, told = Memory(), []
    plain = gaussian.net(covariance)

    def predict(x, level):
        told.append(None if memory.guess is None else memory.guess.clone())
        seen.append(x.detach().clone())
        return plain(x, level)

    seen = []
    levels, rng = gaussian.SCHEDULES["cosine"].levels(8), gaussian.Independent(2)
    held = Hold(torch.where(where, 3.0, 0.0).double(), where)
    x = rng.normal(torch.zeros(8, 8, dtype=torch.float64))
    run = Particles(4).run(
        get_sampler("ddpm"), remembered(predict, memory), x, levels, rng, {}, held=held, setting=Setting(), memory=memory
    )
    list(run)
    moved = 0
    for k in range(1, len(told)):
        before = plain(seen[k - 1], levels[k - 1])[0]
        rows = [[bool(torch.allclose(told[k][i], before[j])) for j in range(8)] for i in range(8)]
        assert all(any(row[i // 4 * 4 : i // 4 * 4 + 4]) for i, row in enumerate(rows)), "the guess of a particle of the sample"
        moved += sum(not row[i] for i, row in enumerate(rows))
    assert moved, "particles were replaced, or nothing was tried"


def test_known_parts_that_lie_anywhere():
    covariance, where = gaussian.DATA[".8"]
    place = Place(lambda x0: torch.where(where, x0.mean(-1, keepdim=True), x0), where)
    with pytest.raises(ConfigError, match="may lie anywhere"):
        Posterior().steer(place)
    levels, rng = gaussian.SCHEDULES["cosine"].levels(5), gaussian.Independent(2)
    x = rng.normal(torch.zeros(6, 8, dtype=torch.float64))
    *_, step = Particles(3).run(
        get_sampler("ddpm"), gaussian.net(covariance), x, levels, rng, {}, held=place, setting=Setting()
    )
    assert step.x.shape == (2, 8) and (step.x[:, where] == step.x[:, :1]).all()
    with pytest.raises(ConfigError, match="neither a Hold nor a Place"):
        Particles().steer(lambda predict: predict)
    assert Resample().steer(place) is place


def larger(x0):
    """A reward: the sum of what is not known."""
    return x0[:, ~gaussian.DATA[".8"][1]].sum(1)


def selection(many, sampler="ddpm", rows=3, seed=2, memory=None, asked=None):
    """Rows by `Select` and all that it made: the last step, and the x and x0 of each step before the choice."""
    covariance, where = gaussian.DATA[".8"]
    place = Place(lambda x0: torch.where(where, 0.5, x0), where, larger)
    levels, rng = gaussian.SCHEDULES["cosine"].levels(12), gaussian.Independent(seed)
    x, plain = rng.normal(torch.zeros(rows * many, 8, dtype=torch.float64)), gaussian.net(covariance)

    def predict(x, level):
        if asked is not None:
            asked.append((level, x.clone(), None if memory is None or memory.guess is None else memory.guess.clone()))
        return plain(x, level)

    known = place(predict) if memory is None else remembered(place(predict), memory)
    steps = list(Select(many).run(get_sampler(sampler), known, x, levels, rng, {}, held=place, memory=memory))
    assert [s.level for s in steps] == levels[1:] and all(s.x.shape == (rows, 8) for s in steps)
    return steps[-1].x, levels


def test_the_better_candidates_go_on():
    one, _ = selection(2, rows=200)
    four, _ = selection(8, rows=200)
    where = gaussian.DATA[".8"][1]
    assert (one[:, where] == 0.5).all() and (four[:, where] == 0.5).all(), "known parts are exact"
    levels, rng = gaussian.SCHEDULES["cosine"].levels(12), gaussian.Independent(2)
    place = Place(lambda x0: torch.where(where, 0.5, x0), where)
    x = rng.normal(torch.zeros(200, 8, dtype=torch.float64))
    *_, plain = get_sampler("ddpm")(place(gaussian.net(gaussian.DATA[".8"][0])), x, levels, rng=rng)
    means = [float(larger(v).mean()) for v in (plain.x, one, four)]
    assert means[0] + 0.5 < means[1] and means[1] + 0.5 < means[2]


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp"])
def test_a_choice_is_made_once_on_the_way(sampler):
    """All candidates of a sample are copies of one where the noise is small enough, and of none before."""
    asked = []
    _, levels = selection(3, sampler, asked=asked)
    cut = next(level for level in levels if level.ratio <= CHOSEN)
    kinds = {level.ratio: [len(rows.unique(dim=0)) for rows in x.split(3)] for level, x, _ in asked}
    assert kinds[cut.ratio] == [1, 1, 1] and all(k == [3, 3, 3] for ratio, k in kinds.items() if ratio > cut.ratio)
    below = [k for ratio, k in kinds.items() if ratio < cut.ratio]
    assert below and all(k == ([3, 3, 3] if sampler == "ddpm" else [1, 1, 1]) for k in below)


def test_a_grid_that_ends_before_the_choice_has_the_last_one_alone():
    _, where = gaussian.DATA[".8"]
    place = Place(lambda x0: torch.where(where, 0.5, x0), where, larger)
    levels, rng = gaussian.SCHEDULES["cosine"].levels(12)[:4], gaussian.Independent(2)
    assert levels[-1].ratio > CHOSEN
    x, seen = rng.normal(torch.zeros(6, 8, dtype=torch.float64)), []

    def predict(x, level):
        seen.append(x)
        return gaussian.net(gaussian.DATA[".8"][0])(x, level)

    steps = list(Select(3).run(get_sampler("ddim"), place(predict), x, levels, rng, {}, held=place))
    assert [s.level for s in steps] == levels[1:] and all(len(x.unique(dim=0)) == 6 for x in seen)
    *_, every = get_sampler("ddim")(place(predict), x, levels, rng=rng)
    best = larger(every.x0).view(2, 3).argmax(1) + torch.tensor([0, 3])
    assert torch.equal(steps[-1].x, every.x[best])


def test_what_a_net_was_told_follows_the_candidates():
    asked, memory = [], Memory()
    _, levels = selection(3, memory=memory, asked=asked)
    (told,) = [guess for level, _, guess in asked if level.ratio == next(v.ratio for v in levels if v.ratio <= CHOSEN)]
    assert [len(rows.unique(dim=0)) for rows in told.split(3)] == [1, 1, 1]


def test_known_parts_say_what_is_better():
    _, where = gaussian.DATA[".8"]
    place = Place(lambda x0: x0, where, larger)
    assert Select().steer(place) is place
    for held in (Place(lambda x0: x0, where), hold(torch.zeros(8), where)):
        with pytest.raises(ConfigError, match="which of two candidates"):
            Select().steer(held)
    with pytest.raises(ConfigError, match="reward"):
        Place(lambda x0: x0, where, 3)


def test_noise_that_is_put_back_is_that_of_the_level():
    levels = gaussian.SCHEDULES["flow"].levels(4)
    rng = gaussian.Matched()
    x = levels[2].alpha * 2 + levels[2].sigma * rng.normal(torch.zeros(100, 8, dtype=torch.float64))
    for a in levels[:2]:  # the first holds no signal
        found = renoised(x, levels[2], a, rng)
        torch.testing.assert_close(found.mean(0), torch.full((8,), 2 * a.alpha, dtype=torch.float64), atol=1e-9, rtol=0)
        torch.testing.assert_close(found.std(0), torch.full((8,), a.sigma, dtype=torch.float64), atol=1e-9, rtol=0)


def test_systematic_resampling_keeps_what_weights_say():
    weights = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64).log()
    points = torch.linspace(0, 1, 101, dtype=torch.float64)[:-1]
    counts = sum(torch.nn.functional.one_hot(systematic(weights, p.expand(2)), 4).sum(1) for p in points) / len(points)
    torch.testing.assert_close(counts.double(), 4 * weights.exp(), atol=0.05, rtol=0)
    assert (torch.nn.functional.one_hot(systematic(weights, points[70].expand(2)), 4).sum(1)[0, 0] == 2).all()
    assert draw(weights, torch.tensor([0.6, 0.999], dtype=torch.float64)).tolist() == [1, 1]


def test_numbers_of_particles_are_those_of_their_sample():
    like = torch.zeros(6, 5)
    both = ParticleRng(SampleRng(3, [4, 7]), 3)
    alone = ParticleRng(SampleRng(3, [7]), 3)
    assert torch.equal(both.normal(like)[3:], alone.normal(like[3:])) and torch.equal(both.uniform()[1:], alone.uniform())
    assert len(both.normal(like).unique(dim=0)) == 6, "each particle has noise of its own"
    ragged = ParticleRng(SampleRng(3, [4, 7], sizes=[2, 5]), 3).normal(like)
    assert (ragged[:3, 2:] == 0).all() and (ragged[3:] != 0).all()


def test_methods_by_name():
    assert list(METHODS) == ["replace", "resample", "posterior", "particles", "select"]
    assert method_of("resample", {"times": 3}) == Resample(3)
    assert method_of("particles", {}).settings == {"method": "particles", "particles": 16}
    assert set(OPTIONS) == {"times", "jump", "products", "particles", "candidates"}
    for name, options, said in (
        ("repaint", {}, "resample"),
        (["replace"], {}, "unknown method"),
        ("replace", {"times": 3}, "'resample'"),
        ("resample", {"times": 0}, "times"),
        ("resample", {"jump": 1.5}, "jump"),
        ("posterior", {"products": -1}, "products"),
        ("particles", {"particles": 1}, "particles"),
        ("select", {"candidates": 1}, "candidates"),
        ("select", {"particles": 3}, "'particles'"),
    ):
        with pytest.raises(ConfigError, match=said):
            method_of(name, options)


def test_what_each_method_costs():
    costs = {name: method_of(name, {}).evaluations(250) for name in METHODS}
    once = {"replace": (250, 0), "resample": (2500, 0), "posterior": (250, 750)}
    assert costs == once | {"particles": (4000, 4000), "select": (1000, 0)}
    assert Posterior().cost(250) == "250 evaluations of the net a sample, 750 calls backwards"
    calls = []

    def predict(x, level):
        calls.append(x.requires_grad)
        return gaussian.net(gaussian.DATA[".8"][0])(x, level)

    for sampler in ("ddim", "heun"):
        found = get_sampler(sampler)
        for method in (Resample(3, 2), Posterior(2)):
            calls.clear()
            known = method.steer(hold(torch.zeros(8, dtype=torch.float64), gaussian.DATA[".8"][1]))(predict)
            rng, levels = gaussian.Matched(), gaussian.SCHEDULES["cosine"].levels(4)
            x = rng.normal(torch.zeros(20, 8, dtype=torch.float64))
            with torch.no_grad():
                steps = list(method.run(found, known, x, levels, rng, {}))
            assert len(steps) == method.steps(4)
            assert len(calls) == method.evaluations(found.calls * 4 - (found.calls - 1))[0]

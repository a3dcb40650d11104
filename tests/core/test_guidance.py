import math

import pytest
import torch
from oracle import SCHEDULES, predict

from zoo.core.diffusion import Diffusion, from_x0_eps, to_x0_eps
from zoo.core.guidance import Guidance, constrain, predictor
from zoo.core.samplers import SAMPLERS, get_sampler
from zoo.core.schedule import DiscreteSchedule, EDMSchedule
from zoo.core.seeds import SampleRng
from zoo.errors import ConfigError, ShapeError

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Net:
    """cond c and null n are different constants; remembers its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, cond, drop=None, mask=None):
        self.calls.append((len(x), drop.tolist()))
        return torch.where(drop[:, None], torch.full_like(x, -2.0), torch.full_like(x, 3.0) + cond["label"][:, None])


def test_guided_prediction_is_the_papers_equation_in_one_batch():
    net, diffusion, level = Net(), Diffusion(DiscreteSchedule(), "eps"), DiscreteSchedule().level(500)
    label = torch.tensor([0, 1, 2])
    _, eps = predictor(diffusion, net, {"label": label}, guidance=Guidance(1.5))(X, level)
    want = (1 + 1.5) * (3.0 + label[:, None]) - 1.5 * -2.0
    torch.testing.assert_close(eps, want.expand_as(X).to(X))
    assert net.calls == [(6, [False] * 3 + [True] * 3)]


class Sum:
    """label + 10 speaker, where a null counts as 0; remembers the rows it was asked for."""

    def __call__(self, x, t, cond, drop=None, mask=None):
        self.rows = len(x)
        label, speaker = (torch.where(drop | (cond[k] < 0), 0, cond[k]) for k in ("label", "speaker"))
        return (label + 10.0 * speaker)[:, None].expand_as(x).to(x)


def test_single_conditions_are_guided_on_their_own():
    """out + w_label (out - out without label) + w_speaker (out - out without speaker), beside the joint w."""
    net, diffusion, level = Sum(), Diffusion(DiscreteSchedule(), "eps"), DiscreteSchedule().level(500)
    cond = {"label": torch.tensor([1, 2, 3]), "speaker": torch.tensor([4, 5, -1])}

    def eps(**guidance):
        return predictor(diffusion, net, cond, guidance=Guidance(**guidance))(X, level)[1][:, 0].tolist()

    assert eps(each={"label": 2.0}) == pytest.approx([41 + 2 * 1, 52 + 2 * 2, 3 + 2 * 3])
    assert net.rows == 6
    assert eps(each={"speaker": 0.5, "label": -1.0}) == pytest.approx([41 + 20 - 1, 52 + 25 - 2, 3 - 3])
    assert net.rows == 9
    assert eps(weight=1.0, each={"label": 2.0}) == pytest.approx([2 * 41 + 2, 2 * 52 + 4, 2 * 3 + 6])
    outside = predictor(diffusion, net, cond, guidance=Guidance(0.0, (1e5, 1e6), each={"label": 2.0}))(X, level)[1][:, 0]
    assert outside.tolist() == pytest.approx([41, 52, 3])
    assert net.rows == 3


def test_weight_0_skips_the_null_rows():
    net = Net()
    predictor(Diffusion(DiscreteSchedule()), net, {"label": torch.zeros(3)})(X, DiscreteSchedule().level(5))
    assert net.calls == [(3, [False] * 3)]


def test_scale_is_weight_plus_one():
    assert Guidance.from_public(None, 3.0) == Guidance.from_public(2.0, None) == (2.0, {})
    assert Guidance.from_public(None, None, 0.5) == (0.5, {})
    assert (
        Guidance.from_public({"label": 2.0}, None, 0.5) == Guidance.from_public(None, {"label": 3.0}) == (0.0, {"label": 2.0})
    )
    with pytest.raises(ConfigError, match="two forms of one number"):
        Guidance.from_public(1.0, 2.0)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_guidance_commutes_with_the_conversions(prediction):
    level, g = DiscreteSchedule().level(400), Guidance(2.0)
    c, n = torch.tanh(X), torch.sin(X)
    guided = to_x0_eps(g.combine(c, n), X, level, prediction)
    parts = [to_x0_eps(o, X, level, prediction) for o in (c, n)]
    for got, a, b in zip(guided, *parts, strict=True):
        torch.testing.assert_close(got, 3 * a - 2 * b, rtol=1e-10, atol=1e-10)


def test_interval_is_open_below_and_closed_above():
    s = DiscreteSchedule()
    lo, hi = s.level(200).ratio, s.level(600).ratio
    g = Guidance(1.0, (lo, hi))
    assert [g.active(s.level(t)) for t in (199, 200, 201, 600, 601)] == [False, False, True, True, False]


def test_rescale_brings_the_deviation_back():
    c, n = X, -X
    out = Guidance(3.0, rescale=1.0).combine(c, n)
    torch.testing.assert_close(out.std(1), c.std(1))
    half = Guidance(3.0, rescale=0.5).combine(c, n)
    torch.testing.assert_close(half, 0.5 * out + 0.5 * Guidance(3.0).combine(c, n))


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_known_parts_come_out_exact(name, schedule):
    levels = SCHEDULES[schedule].levels(6)
    where = torch.tensor([True, False, True, False])
    known = torch.tensor([0.25, 9.0, -0.5, 9.0], dtype=torch.float64)

    def held(x, level):
        return constrain(*predict(x, level), x, level, known, where)

    *_, step = get_sampler(name)(held, X, levels, rng=SampleRng(0, range(3)))
    torch.testing.assert_close(step.x[:, where], known[where].expand(3, 2), rtol=0, atol=1e-15)
    assert torch.isfinite(step.x).all()
    assert (step.x[:, ~where] != 9).all()


def test_constrained_eps_belongs_to_the_known_x0():
    level = DiscreteSchedule().level(300)
    where = torch.ones(4, dtype=torch.bool)
    x0, eps = constrain(*predict(X, level), X, level, torch.zeros(4, dtype=torch.float64), where)
    torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, X)
    with pytest.raises(ShapeError, match="bool"):
        constrain(x0, eps, X, level, x0, where.float())


def test_the_net_sees_x_and_gives_any_prediction():
    """The whole chain against the oracle: net -> prediction -> (x0, eps)."""
    for name in ("x0", "v", "flow"):
        diffusion, level = Diffusion(DiscreteSchedule(), name), DiscreteSchedule().level(300)

        def net(x, t, cond, drop=None, mask=None, level=level, name=name):
            assert t.tolist() == [300.0] * len(x)
            return from_x0_eps(*predict(x, level), level, name)

        torch.testing.assert_close(predictor(diffusion, net, {})(X, level), predict(X, level), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{"weight": math.nan}, {"interval": (2.0, 1.0)}, {"rescale": 2.0}, {"each": {"label": "x"}}]
)
def test_errors(options):
    with pytest.raises(ConfigError, match="guidance"):
        Guidance(**options)


def test_a_net_that_conditions_itself_hears_its_last_guess_below_a_level():
    heard = []

    def net(x, t, cond, drop=None, mask=None):
        heard.append(cond["x0"].clone())
        return x + cond["x0"].nan_to_num() + cond["label"][:, None]

    diffusion, schedule = Diffusion(EDMSchedule(), "x0", self_condition=True), EDMSchedule()
    label = {"label": torch.tensor([1, 0, 0])}
    for guidance, rows in ((Guidance(), 3), (Guidance(0.5), 6)):
        predict = predictor(diffusion, net, label, guidance=guidance, guess_below=2.0)
        heard.clear()
        said = [predict(X, schedule.level(s))[0] for s in (5.0, 3.0, 2.0, 1.0)]
        assert [h.isnan().all().item() for h in heard] == [True, True, False, False]
        assert all(len(h) == rows for h in heard)
        assert torch.equal(heard[2], said[1].repeat(rows // 3, 1)) and torch.equal(heard[3], said[2].repeat(rows // 3, 1))


def test_what_is_known_may_depend_on_the_prediction():
    level, where = DiscreteSchedule().level(300), torch.tensor([True, False, False, True])
    x0, eps = constrain(*predict(X, level), X, level, lambda x0: torch.where(where, 2 * x0, 3 * x0), where)
    torch.testing.assert_close(x0, torch.where(where, 2, 3) * predict(X, level)[0])
    torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, X)


def test_a_net_that_conditions_itself_hears_what_is_known():
    """Its guess is what the sampler saw: a net that heard its own idea of a known part would build onto that."""
    heard, marked, known, where = [], [], torch.full((4,), 7.0, dtype=torch.float64), torch.tensor([False, True, False, False])

    def net(x, t, cond, drop=None, mask=None):
        heard.append(cond["x0"].clone())
        marked.append(cond["known"])
        return 0.5 * x

    diffusion, schedule = Diffusion(EDMSchedule(), "x0", self_condition=True), EDMSchedule()
    project = lambda x, mask: x - x.mean(1, keepdim=True)  # noqa: E731
    predict = predictor(diffusion, net, {}, known=known, where=where, project=project)
    x0, eps = predict(X, schedule.level(3.0))
    assert (x0[:, 1] == 7).all() and (x0[:, ~where] != 7).all()
    torch.testing.assert_close((x0 + 3.0 * eps)[:, 1], X[:, 1])
    predict(X, schedule.level(1.0))
    assert heard[0].isnan().all() and torch.equal(heard[1], x0)
    assert not marked[0].any() and torch.equal(marked[1], where.expand_as(X)), "nothing is known of no guess"
    for half in ({"known": known}, {"where": where}):
        with pytest.raises(ConfigError, match="both, or none"):
            predictor(diffusion, net, {}, **half)

"""The stack of a prediction: net, guidance, (x0, eps), clip, projector, steers, and what a net is told of itself."""

import pytest
import torch
from oracle import predict
from torch import nn

from zoo.core.diffusion import Diffusion, from_x0_eps
from zoo.core.guidance import Guidance, is_null
from zoo.core.predict import Memory, Network, assemble, clipped, known_parts, projected, steered
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, Level
from zoo.core.steer import Hold, Place, Steer

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Net:
    """What is given and what is not are different constants; remembers its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, cond, mask=None):
        none = cond["label"] < 0
        self.calls.append(none.tolist())
        return torch.where(none[:, None], torch.full_like(x, -2.0), torch.full_like(x, 3.0) + cond["label"][:, None])


def test_guided_prediction_is_the_papers_equation_in_one_batch():
    net, diffusion, level = Net(), Diffusion(DiscreteSchedule(), "eps"), DiscreteSchedule().level(500)
    label = torch.tensor([0, 1, 2])
    _, eps = assemble(Network(diffusion, net, {"label": label}), guidance=Guidance(1.5))(X, level)
    want = (1 + 1.5) * (3.0 + label[:, None]) - 1.5 * -2.0
    torch.testing.assert_close(eps, want.expand_as(X).to(X))
    assert net.calls == [[False] * 3 + [True] * 3]


class Sum:
    """label + 10 speaker, where a null counts as 0; remembers the rows it was asked for."""

    def __call__(self, x, t, cond, mask=None):
        self.rows = len(x)
        label, speaker = (torch.where(cond[k] < 0, 0, cond[k]) for k in ("label", "speaker"))
        return (label + 10.0 * speaker)[:, None].expand_as(x).to(x)


def test_single_conditions_are_guided_on_their_own():
    """out + w_label (out - out without label) + w_speaker (out - out without speaker), beside the joint w."""
    net, diffusion, level = Sum(), Diffusion(DiscreteSchedule(), "eps"), DiscreteSchedule().level(500)
    network = Network(diffusion, net, {"label": torch.tensor([1, 2, 3]), "speaker": torch.tensor([4, 5, -1])})

    def eps(guidance):
        return assemble(network, guidance=guidance)(X, level)[1][:, 0].tolist()

    assert eps(Guidance(each={"label": 2.0})) == pytest.approx([41 + 2 * 1, 52 + 2 * 2, 3 + 2 * 3])
    assert net.rows == 6
    assert eps(Guidance(each={"speaker": 0.5, "label": -1.0})) == pytest.approx([41 + 20 - 1, 52 + 25 - 2, 3 - 3])
    assert net.rows == 9
    assert eps(Guidance(1.0, each={"label": 2.0})) == pytest.approx([2 * 41 + 2, 2 * 52 + 4, 2 * 3 + 6])
    assert eps(Guidance(0.0, (1e5, 1e6), each={"label": 2.0})) == pytest.approx([41, 52, 3])
    assert net.rows == 3, "outside the interval only the conditional prediction is computed"


def test_weight_0_skips_the_null_rows():
    net = Net()
    assemble(Network(Diffusion(DiscreteSchedule()), net, {"label": torch.zeros(3)}))(X, DiscreteSchedule().level(5))
    assert net.calls == [[False] * 3]


def test_a_mask_reaches_every_copy_of_the_batch():
    seen = []

    def net(x, t, cond, mask=None):
        seen.append(mask)
        return x

    mask = torch.tensor([[True, False, True, True]] * 3)
    network = Network(Diffusion(DiscreteSchedule(), "x0"), net, {"label": torch.zeros(3)}, mask=mask, real=mask)
    assemble(network, guidance=Guidance(1.0))(X, DiscreteSchedule().level(5))
    assert torch.equal(seen[0], mask.repeat(2, 1))


def test_guidance_rescale_uses_the_real_elements():
    def net(x, t, cond, mask=None):
        return torch.where(cond["label"][:, None] < 0, torch.sin(x), x)

    level, guidance = DiscreteSchedule().level(300), Guidance(2.0, rescale=1.0)
    diffusion, cond = Diffusion(DiscreteSchedule(), "x0"), {"label": torch.zeros(3)}
    alone = assemble(Network(diffusion, net, cond), guidance=guidance)(X, level)[0]
    padded = torch.cat([X, torch.full((3, 2), 40.0, dtype=X.dtype)], 1)
    real = torch.arange(6).expand(3, 6) < 4
    found = assemble(Network(diffusion, net, cond, mask=real, real=real), guidance=guidance)(padded, level)[0]
    torch.testing.assert_close(found[:, :4], alone)


def test_the_net_sees_x_and_gives_any_prediction():
    """The whole chain against the oracle: net -> prediction -> (x0, eps)."""
    for name in ("x0", "v", "flow"):
        diffusion, level = Diffusion(DiscreteSchedule(), name), DiscreteSchedule().level(300)

        def net(x, t, cond, mask=None, level=level, name=name):
            assert t.tolist() == [300.0] * len(x)
            return from_x0_eps(*predict(x, level), level, name)

        torch.testing.assert_close(assemble(Network(diffusion, net, {}))(X, level), predict(X, level), rtol=1e-9, atol=1e-9)


def test_after_clipping_x0_and_eps_still_make_x():
    diffusion, level = Diffusion(DiscreteSchedule(), "eps"), DiscreteSchedule().level(700)
    x0, eps = assemble(Network(diffusion, lambda x, t, cond, mask=None: torch.zeros_like(x), {}), clip=0.5)(3 * X, level)
    assert x0.abs().max() == 0.5
    torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, 3 * X)
    torch.testing.assert_close(clipped(predict, 1e9)(X, level)[0], predict(X, level)[0])


def test_nets_hear_what_steers_tell_them():
    """Of the names that a net has in `hears`, and of no others; under several sets of conditions each hears it."""
    heard = []

    class Net(torch.nn.Module):
        hears = ("place",)

        def forward(self, x, t, cond, *, mask=None):
            heard.append(dict(cond))
            return x

    class Teller(Steer):
        def __call__(self, predict):
            return predict

        def told(self, x, level):
            return {"place": torch.arange(len(x)) + level.sigma, "other": torch.zeros(len(x))}

    x, level = torch.zeros(2, 3), Level(0.5, 1.0, 2.0)
    for net in (Net(), lambda x, t, cond, *, mask=None: heard.append(dict(cond)) or x):
        for guidance in (Guidance(), Guidance(1.0)):
            network = Network(Diffusion(EDMSchedule()), net, {"label": torch.zeros(2, dtype=torch.int64)})
            assemble(network, guidance=guidance, steers=[Teller()])(x, level)
    assert [sorted(h) for h in heard] == 2 * [["label", "place"]] + 2 * [["label"]]
    assert heard[0]["place"].tolist() == [2, 3] and heard[1]["place"].tolist() == [2, 3, 2, 3]


def test_the_projector_comes_after_the_clip_and_before_the_steers():
    level = DiscreteSchedule().level(300)
    stack = projected(clipped(predict, 0.1), lambda x: x - x.mean(1, keepdim=True))
    x0, eps = stack(X, level)
    torch.testing.assert_close(x0.mean(1), torch.zeros(3, dtype=X.dtype))
    torch.testing.assert_close(eps.mean(1), torch.zeros(3, dtype=X.dtype))
    seen = []

    def spy(inner):
        def steered(x, level):
            seen.append(inner(x, level)[0])
            return inner(x, level)

        return steered

    network = Network(Diffusion(DiscreteSchedule(), "x0"), lambda x, t, cond, mask=None: predict(x, level)[0], {})
    assemble(network, clip=0.1, project=lambda x: x - x.mean(1, keepdim=True), steers=[spy])(X, level)
    torch.testing.assert_close(seen[0], x0)


def test_steers_compose_the_first_one_innermost():
    def times(factor, plus):
        return lambda inner: lambda x, level: (factor * inner(x, level)[0] + plus, inner(x, level)[1])

    level = DiscreteSchedule().level(300)
    x0, _ = steered(predict, [times(2, 0), times(1, 5)])(X, level)
    torch.testing.assert_close(x0, 2 * predict(X, level)[0] + 5)


# ---- nets that condition themselves ------------------------------------------------------------------------


def test_a_net_is_told_its_last_guess_below_a_level():
    told = []

    def net(x, t, cond, mask=None):
        told.append(cond["x0"].clone())
        label = torch.where(cond["label"] < 0, 0, cond["label"])
        return x + cond["x0"].nan_to_num() + label[:, None]

    diffusion, schedule = Diffusion(EDMSchedule(), "x0", self_condition=True), EDMSchedule()
    label = {"label": torch.tensor([1, 0, 0])}
    for guidance, rows in ((Guidance(), 3), (Guidance(0.5), 6)):
        stack = assemble(Network(diffusion, net, label, memory=Memory(below=2.0)), guidance=guidance)
        told.clear()
        said = [stack(X, schedule.level(s))[0] for s in (5.0, 3.0, 2.0, 1.0)]
        assert [h.isnan().all().item() for h in told] == [True, True, False, False]
        assert all(len(h) == rows for h in told)
        assert torch.equal(told[2], said[1].repeat(rows // 3, 1)) and torch.equal(told[3], said[2].repeat(rows // 3, 1))


def test_a_net_is_told_what_the_sampler_saw_and_what_of_it_is_known():
    """Its guess is what the sampler saw: a net that was told its own idea of a known part would build onto that."""
    told, marked = [], []
    known, where = torch.full((4,), 7.0, dtype=torch.float64), torch.tensor([False, True, False, False])

    def net(x, t, cond, mask=None):
        told.append(cond["x0"].clone())
        marked.append(cond["known"])
        return 0.5 * x

    diffusion, schedule = Diffusion(EDMSchedule(), "x0", self_condition=True), EDMSchedule()
    network = Network(diffusion, net, {}, memory=Memory())
    stack = assemble(network, project=lambda x: x - x.mean(1, keepdim=True), steers=[Hold(known, where)])
    x0, eps = stack(X, schedule.level(3.0))
    assert (x0[:, 1] == 7).all() and (x0[:, ~where] != 7).all()
    torch.testing.assert_close((x0 + 3.0 * eps)[:, 1], X[:, 1])
    stack(X, schedule.level(1.0))
    assert told[0].isnan().all() and torch.equal(told[1], x0)
    assert not marked[0].any() and torch.equal(marked[1], where.expand_as(X)), "nothing is known of no guess"


def test_known_parts_of_several_steers_are_united():
    first, second = torch.tensor([True, False, False]), torch.tensor([False, False, True])
    steers = [Hold(torch.zeros(3), first), lambda inner: inner, Place(lambda x0: x0, second)]
    assert known_parts(steers).tolist() == [True, False, True]
    assert known_parts([lambda inner: inner]) is None


# ---- dtypes ------------------------------------------------------------------------------------------------


class Affine(nn.Module):
    """The exact net of Gaussian data N(0, 1/4) under DDPM, with a weight of its own dtype."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, x_t, t, cond, *, mask=None):
        self.seen.append((x_t.dtype, t.dtype, {k: v.dtype for k, v in cond.items()}))
        return self.one * x_t


def test_a_net_receives_its_own_dtype_and_the_sampler_keeps_a_wide_one():
    for dtype in (torch.bfloat16, torch.float16):
        net = Affine().to(dtype)
        cond = {"array": torch.zeros(3, 2), "label": torch.zeros(3, dtype=torch.int64)}
        level = DiscreteSchedule().level(500)
        x0, eps = assemble(Network(Diffusion(DiscreteSchedule(), "v"), net, cond))(X.float(), level)
        assert net.seen == [(dtype, torch.float32, {"array": dtype, "label": torch.int64})]
        assert x0.dtype == eps.dtype == torch.float32
    net = Affine().double()
    assemble(Network(Diffusion(DiscreteSchedule(), "v"), net, {}))(X, level)
    assert net.seen == [(torch.float64, torch.float64, {})]
    assert is_null(torch.tensor([-1])).all()

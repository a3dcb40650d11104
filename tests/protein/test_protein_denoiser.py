import pytest
import torch
from chains import chain

from zoo.contract.conditions import Label
from zoo.core import seeds
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule
from zoo.errors import ConfigError, ShapeError
from zoo.protein.codec import SCALE
from zoo.protein.denoiser import STEP, BackboneNet
from zoo.protein.rigid import smooth

MIRROR = torch.tensor([1.0, 1.0, -1.0])
#: the process of the packaged model
EDM = Diffusion(EDMSchedule(0.002, 10.0), "x0", "edm", sigma_data=1.0, precondition=True, self_condition=True)


def say(net, x, t, cond, mask=None):
    """What the net says, told its level as in sampling."""
    return EDM.ask(net, x, t, cond, mask=mask)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = BackboneNet((64, 3, 3), {}, dim=32, depth=2, heads=2, pair=16).eval()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=seeds.generator(i))
    return net


@pytest.fixture
def given():
    x = torch.from_numpy(chain(24, seed=3)).float() / 6.5
    x = torch.stack([x, x @ torch.linalg.qr(torch.randn(3, 3, generator=seeds.generator(9)))[0]])
    noisy = x + 0.1 * torch.randn(x.shape, generator=seeds.generator(4))
    return noisy / (1 + 0.1**2) ** 0.5, torch.full((2,), 0.1).log() / 4, x


@torch.no_grad()
def test_padding_changes_nothing(net, given):
    x, t, guess = given
    mask = torch.arange(30) < torch.tensor([[24], [24]])
    for fill in (0.0, 7.0, float("nan")):
        padded = torch.full((2, 30, 3, 3), fill)
        padded[:, :24] = x
        for cond in ({}, {"x0": torch.nn.functional.pad(guess, (0, 0, 0, 0, 0, 6))}):
            out = say(net, padded, t, cond, mask=mask)[:, :24]
            plain = say(net, x, t, {k: v[:, :24] for k, v in cond.items()})
            torch.testing.assert_close(out, plain, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_last_guess_counts_row_by_row(net, given):
    x, t, guess = given
    none = say(net, x, t, {})
    torch.testing.assert_close(say(net, x, t, {"x0": torch.full_like(x, torch.nan)}), none)
    half = guess.clone()
    half[1] = torch.nan
    out = say(net, x, t, {"x0": half})
    torch.testing.assert_close(out[1], none[1], atol=1e-5, rtol=1e-5)
    assert (out[0] - none[0]).abs().max() > 1e-3


@torch.no_grad()
def test_a_residue_is_known_where_all_of_it_is(net, given):
    x, t, guess = given
    plain, known = say(net, x, t, {"x0": guess}), torch.zeros_like(guess, dtype=torch.bool)
    torch.testing.assert_close(say(net, x, t, {"x0": guess, "known": known}), plain, rtol=0, atol=0)
    known[0, 3:9, :2] = True
    torch.testing.assert_close(say(net, x, t, {"x0": guess, "known": known}), plain, rtol=0, atol=0)
    known[0, 3:9] = True
    out = say(net, x, t, {"x0": guess, "known": known})
    assert (out[0] - plain[0]).abs().max() > 1e-3
    torch.testing.assert_close(out[1], plain[1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_mirror_images_are_different_things(net, given):
    x, t, guess = given
    for cond in ({}, {"x0": guess}):
        out = say(net, x, t, cond)
        other = say(net, x * MIRROR, t, {k: v * MIRROR for k, v in cond.items()})
        assert (other * MIRROR - out).abs().max() > 0.05


@torch.no_grad()
def test_what_residues_see_does_not_depend_on_orientation(net, given):
    """Without the global stream the output turns with the input."""
    x, t, _ = given
    mask = torch.ones(2, 24, dtype=torch.bool)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=seeds.generator(1)))[0]
    turn = turn * torch.linalg.det(turn).sign()
    views = [net.look(y, EDM.seen(t), None, mask)[0] for y in (x, x @ turn.T)]
    torch.testing.assert_close(views[0].pairs(), views[1].pairs(), atol=1e-4, rtol=1e-3)
    gathered = [v.points()[:, :, None].expand(-1, -1, 2, -1) for v in views]
    torch.testing.assert_close(views[0].seen(gathered[0]), views[1].seen(gathered[1]), atol=1e-4, rtol=1e-3)


def test_smoothing_keeps_clean_chains_and_quiets_noisy_ones():
    clean = torch.from_numpy(chain(60, seed=1)).float().view(1, 180, 3)
    mask = torch.ones(1, 180, dtype=torch.bool)
    torch.testing.assert_close(smooth(clean, torch.tensor([0.01]), mask, STEP), clean, atol=0.01, rtol=0)
    for sigma in (3.0, 10.0):
        noisy = clean + sigma * torch.randn(clean.shape, generator=seeds.generator(0))
        error = [(y - clean).square().mean().sqrt() for y in (smooth(noisy, torch.tensor([sigma]), mask, STEP), noisy)]
        assert error[0] < 0.55 * error[1]


@torch.no_grad()
def test_every_length_works_in_every_precision(net):
    for length in (8, 256):
        out = say(net, torch.randn(1, length, 3, 3), torch.zeros(1), {})
        assert out.shape == (1, length, 3, 3) and torch.isfinite(out).all()
    t = torch.tensor([0.002, 10.0]).log() / 4
    for level in t:  # the ends of the schedule
        assert torch.isfinite(say(net, torch.randn(1, 20, 3, 3), level[None], {})).all()
    x = torch.randn(1, 20, 3, 3, generator=seeds.generator(0))
    exact = say(net, x, t[:1], {})
    with torch.autocast("cpu", torch.bfloat16):
        rough = say(net, x, t[:1], {})
    assert rough.dtype == torch.float32 and (rough - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    "diffusion",
    [
        Diffusion(DiscreteSchedule("cosine"), "v", self_condition=True),
        Diffusion(FlowSchedule(), "flow", self_condition=True),
        Diffusion(EDMSchedule(0.002, 10.0), "x0", self_condition=True),
        Diffusion(EDMSchedule(0.002, 10.0), "x0", sigma_data=2.0, precondition=True, self_condition=True),
    ],
    ids=["discrete", "flow", "edm without preconditioning", "edm of another spread"],
)
@torch.no_grad()
def test_on_every_process_the_net_sees_angstrom(net, given, diffusion, monkeypatch):
    """What it looks at is SCALE (x0 + sigma / alpha eps), however the process scales its own input."""
    x0 = given[2]
    eps = torch.randn(x0.shape, generator=seeds.generator(2))
    seen = []
    look = net.look

    def spy(x_t, level, last, mask):
        seen.append(look(x_t, level, last, mask)[0])
        return look(x_t, level, last, mask)

    monkeypatch.setattr(net, "look", spy)
    for level in (diffusion.schedule.levels(10)[k] for k in (3, 6, 9)):
        diffusion.denoise(net, diffusion.q_sample(x0, level, eps), level, {})
        views = seen.pop()
        torch.testing.assert_close(views.x, SCALE * (x0 + level.ratio * eps), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(views.sigma.flatten(), torch.full((2,), SCALE * level.ratio), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", [FlowSchedule(), DiscreteSchedule("linear", zero_terminal_snr=True), EDMSchedule()])
def test_it_works_where_nothing_of_the_data_is_left(schedule):
    net = BackboneNet((64, 3, 3), {}, dim=16, depth=1, heads=1, pair=8)
    torch.nn.init.normal_(net.exit.weight)  # a new net gives 0, whatever it sees
    diffusion = Diffusion(schedule, "v")
    x = torch.randn(2, 12, 3, 3, generator=seeds.generator(2))
    for level in (schedule.levels(4)[0], schedule.levels(4)[1]):
        assert torch.isfinite(diffusion.denoise(net, x, level, {})).all()


def test_errors():
    with pytest.raises(ConfigError, match="heads divide"):
        BackboneNet((64, 3, 3), {}, dim=30, heads=4)
    with pytest.raises(ConfigError, match="no conditions"):
        BackboneNet((64, 3, 3), {"label": Label(values=("a",))})
    net = BackboneNet((64, 3, 3), {}, dim=16, depth=1, heads=1, pair=8)
    with pytest.raises(ConfigError, match="receives its level"):
        net(torch.zeros(1, 5, 3, 3), torch.zeros(1), {})
    with pytest.raises(ShapeError, match="residues, 3, 3"):
        say(net, torch.zeros(1, 5, 4, 3), torch.zeros(1), {})
    with pytest.raises(ShapeError, match="last guess"):
        say(net, torch.zeros(1, 5, 3, 3), torch.zeros(1), {"x0": torch.zeros(1, 4, 3, 3)})

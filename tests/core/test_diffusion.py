import pytest
import torch

from zoo.core.diffusion import PREDICTIONS, Diffusion, from_x0_eps, to_x0_eps, x0_gain
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule, Level
from zoo.core.seeds import generator
from zoo.errors import ConfigError, ShapeError


def rand(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", [DiscreteSchedule(), EDMSchedule(), FlowSchedule()])
def test_conversions_round_trip(prediction, schedule):
    x0, eps = rand(16, 3), rand(16, 3, seed=1)
    level = schedule.draw(16, torch.Generator().manual_seed(2))
    x = Diffusion(DiscreteSchedule()).q_sample(x0, level, eps)
    got = to_x0_eps(from_x0_eps(x0, eps, level, prediction), x, level, prediction)
    torch.testing.assert_close(got, (x0, eps), rtol=1e-9, atol=1e-9)


def test_definitions_of_the_papers():
    level, x0, eps = Level(5, 0.6, 0.8), rand(4), rand(4, seed=1)
    torch.testing.assert_close(from_x0_eps(x0, eps, level, "v"), 0.6 * eps - 0.8 * x0)
    torch.testing.assert_close(from_x0_eps(x0, eps, level, "flow"), eps - x0)
    torch.testing.assert_close(Diffusion(DiscreteSchedule()).q_sample(x0, level, eps), 0.6 * x0 + 0.8 * eps)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gain_is_the_slope_of_x0_in_the_prediction(prediction):
    level, x, out = Level(1, 0.6, 0.8), rand(3), rand(3, seed=1)
    slope = (to_x0_eps(out + 1, x, level, prediction)[0] - to_x0_eps(out, x, level, prediction)[0]).abs()
    torch.testing.assert_close(slope, torch.full_like(slope, x0_gain(level, prediction)))


def test_min_snr_weights_of_the_paper():
    """Hang et al. 2023: eps min(SNR,5)/SNR, x0 min(SNR,5), v min(SNR,5)/(SNR+1)."""
    for alpha in (0.2, 0.7, 0.99):
        level = Level(0, alpha, (1 - alpha**2) ** 0.5)
        snr = level.snr
        want = {"eps": min(snr, 5) / snr, "x0": min(snr, 5), "v": min(snr, 5) / (snr + 1)}
        for prediction, weight in want.items():
            assert Diffusion(DiscreteSchedule(), prediction, "min_snr").weight(level) == pytest.approx(weight)


def test_edm_weight_and_preconditioning_of_the_paper():
    """Karras et al. 2022, table 1: lambda = (s^2 + d^2) / (s d)^2; lambda c_out^2 = 1, and D = c_skip x + c_out F(c_in x)."""
    d, s = 0.5, 2.0
    diffusion = Diffusion(EDMSchedule(), "x0", "edm", sigma_data=d, precondition=True)
    level = EDMSchedule().level(s)
    assert diffusion.weight(level) == pytest.approx((s * s + d * d) / (s * d) ** 2)
    seen = {}

    def net(x, t, cond, drop=None, mask=None):
        seen["x"], seen["t"] = x, t
        return torch.ones_like(x)

    x = rand(2, 3)
    out = diffusion.denoise(net, x, level, {})
    n = s * s + d * d
    torch.testing.assert_close(seen["x"], x / n**0.5)
    torch.testing.assert_close(seen["t"], torch.full((2,), level.t, dtype=torch.float64))
    torch.testing.assert_close(out, d * d / n * x + s * d / n**0.5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("weighting", ["simple", "min_snr", "edm"])
def test_loss_of_the_perfect_net_is_zero_and_of_a_shifted_one_is_the_weight(prediction, weighting):
    schedule = DiscreteSchedule()
    diffusion = Diffusion(schedule, prediction, weighting)
    x0 = rand(64, 2)

    def perfect(x, t, cond, drop=None, mask=None, add=0.0):
        i = t.long()
        level = Level(t, schedule.alpha_bar[i].sqrt(), (1 - schedule.alpha_bar[i]).sqrt())
        eps = (x - level.alpha[:, None] * x0) / level.sigma[:, None]
        return from_x0_eps(x0, eps, level, prediction) + add

    assert diffusion.loss(perfect, x0, {}, generator=generator(1)).item() < 1e-12
    off = diffusion.loss(lambda *a, **k: perfect(*a, **k, add=1.0), x0, {}, generator=generator(1))
    level = schedule.draw(64, generator(1))
    want = diffusion.weight(level).mean().item() if weighting != "simple" else 1.0
    assert off.item() == pytest.approx(want, rel=1e-6)


def test_loss_divides_by_the_real_elements_and_ignores_padding():
    diffusion = Diffusion(DiscreteSchedule(), "eps")
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x0 = rand(2, 3, 4)

    def net(x, t, cond, drop=None, mask=None):
        return torch.where(mask[..., None], 0.0, 1e6) * torch.ones_like(x)

    g = generator(4)
    diffusion.schedule.draw(2, g)
    eps = torch.randn(2, 3, 4, generator=g, dtype=torch.float64)
    got = diffusion.loss(net, x0, {}, generator=generator(4), mask=mask)
    assert got.item() == pytest.approx((eps[mask] ** 2).mean().item())
    with pytest.raises(ShapeError, match="mask"):
        diffusion.loss(net, x0, {}, mask=mask.T)


def test_conditions_are_dropped_at_the_given_rate():
    seen = []

    def net(x, t, cond, drop=None, mask=None):
        seen.append(drop)
        return x

    Diffusion(DiscreteSchedule()).loss(net, rand(20_000, 1), {}, generator=generator(0), drop_rate=0.1)
    assert seen[0].float().mean().item() == pytest.approx(0.1, abs=0.01)


class Repeater:
    """Says x0 = its guess where it has one, else x; remembers what it was given."""

    def __init__(self):
        self.calls, self.known = [], []

    def __call__(self, x, t, cond, drop=None, mask=None):
        self.calls.append((x, t, cond.get("x0"), drop))
        self.known.append(cond.get("known"))
        guess = cond.get("x0", torch.full_like(x, torch.nan))
        return torch.where(guess.isnan(), x, guess)


def test_half_of_the_rows_hear_a_guess_from_a_noisier_version_of_themselves():
    diffusion, net = Diffusion(EDMSchedule(), "x0", self_condition=True), Repeater()
    x0 = torch.randn(7, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    diffusion.loss(net, x0, {}, generator=torch.Generator().manual_seed(1), project=lambda x, mask: x)
    (noisier, t_first, none, _), (x, t, guess, _) = net.calls
    assert none is None and noisier.shape == (4, 500)
    assert torch.equal(guess[:4], noisier), "what the net said, without a guess"
    assert guess[4:].isnan().all()
    sigma, first = (4 * t[:4]).exp(), (4 * t_first).exp()
    assert (first >= sigma).all() and (first <= 2 * sigma + 1e-9).all() and (first > 1.01 * sigma).any()
    added = (noisier - x[:4]).std(1)
    torch.testing.assert_close(added, (first**2 - sigma**2).sqrt(), rtol=0.15, atol=1e-6)


def test_the_first_guess_keeps_its_level_at_the_end_of_the_schedule():
    diffusion, net = Diffusion(EDMSchedule(sigma_max=0.01), "x0", self_condition=True), Repeater()
    diffusion.loss(net, torch.zeros(6, 5), {}, generator=torch.Generator().manual_seed(1))
    (noisier, t_first, _, _), (x, t, _, _) = net.calls
    beyond = (4 * t[:3]).exp() > 0.01
    assert beyond.any()
    assert torch.equal(t_first[beyond], t[:3][beyond]) and torch.equal(noisier[beyond], x[:3][beyond])


def test_a_hint_takes_the_place_of_the_guesses_that_there_are():
    diffusion, net, seen = Diffusion(EDMSchedule(), "x0", self_condition=True), Repeater(), []
    x0, mask = torch.randn(5, 6), torch.ones(5, 6, dtype=torch.bool)

    def hint(guess, true, real, generator):
        seen.append((guess.clone(), true, real, generator))
        known = (torch.arange(6) < 2).expand_as(guess)
        return torch.where(known, true, guess), known

    draw = torch.Generator().manual_seed(1)
    diffusion.loss(net, x0, {}, generator=draw, mask=mask, hint=hint)
    (noisier, *_), (_, _, heard, _) = net.calls
    ((guess, true, real, generator),) = seen
    assert torch.equal(guess, noisier) and torch.equal(true, x0[:3]) and torch.equal(real, mask[:3]) and generator is draw
    assert torch.equal(heard[:3, :2], x0[:3, :2]) and torch.equal(heard[:3, 2:], noisier[:, 2:])
    assert heard[3:].isnan().all(), "rows without a guess stay without"
    assert torch.equal(net.known[-1], (torch.arange(6) < 2) & (torch.arange(5) < 3)[:, None])
    diffusion.loss(net, x0, {}, generator=draw, mask=mask)
    assert not net.known[-1].any()


def test_a_further_loss_hears_guess_target_level_and_mask():
    heard = []

    def auxiliary(guess, x0, level, mask):
        heard.append((guess, x0, level, mask))
        return guess.new_tensor(5.0)

    x0, mask = torch.randn(3, 4, 2), torch.ones(3, 4, dtype=torch.bool)
    diffusion = Diffusion(EDMSchedule(), "x0")

    def loss(**options):
        return diffusion.loss(Repeater(), x0, {}, generator=torch.Generator().manual_seed(3), mask=mask, **options)

    torch.testing.assert_close(loss(auxiliary=auxiliary), loss() + 5.0)
    guess, target, level, seen = heard[0]
    assert torch.equal(target, x0) and torch.equal(seen, mask) and level.sigma.shape == (3,) and guess.shape == x0.shape


def test_after_clipping_x0_and_eps_still_make_x():
    diffusion, level = Diffusion(DiscreteSchedule(), "eps"), DiscreteSchedule().level(700)
    x = 3 * rand(5)
    x0, eps = diffusion.predict(torch.zeros_like(x), x, level, clip=0.5)
    assert x0.abs().max() == 0.5
    torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, x)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Diffusion(DiscreteSchedule(zero_terminal_snr=True), "eps"), "eps prediction cannot work"),
        (lambda: Diffusion(FlowSchedule(), "eps"), "eps prediction cannot work"),
        (lambda: Diffusion(DiscreteSchedule(), "noise"), "Allowed: eps"),
        (lambda: Diffusion(DiscreteSchedule(), "eps", "snr"), "min_snr"),
        (lambda: Diffusion(EDMSchedule(), "v", precondition=True), "prediction='x0'"),
        (lambda: Diffusion(EDMSchedule(), "x0", sigma_data=0), "sigma_data"),
    ],
)
def test_errors(call, match):
    with pytest.raises(ConfigError, match=match):
        call()

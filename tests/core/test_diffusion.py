import pytest
import torch

from zoo.core.diffusion import PREDICTIONS, Diffusion, from_x0_eps, to_x0_eps, x0_gain
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule, Level
from zoo.errors import ConfigError


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

    def net(x, t, cond, mask=None):
        seen["x"], seen["t"] = x, t
        return torch.ones_like(x)

    x = rand(2, 3)
    out = diffusion.denoise(net, x, level, {})
    n = s * s + d * d
    torch.testing.assert_close(seen["x"], x / n**0.5)
    torch.testing.assert_close(seen["t"], torch.full((2,), level.t, dtype=torch.float64))
    torch.testing.assert_close(out, d * d / n * x + s * d / n**0.5)


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

"""Parity with diffusers, a test-only peer, where its answer is the formula's.

It keeps schedules in float32, so figures agree to about 1e-4, not to 1e-10 as with the Gaussian oracle.
"""

import pytest
import torch

from zoo.core import seeds
from zoo.core.diffusion import Diffusion
from zoo.core.predict import Network, assemble
from zoo.core.samplers import get_sampler
from zoo.core.schedule import CosineSchedule, DiscreteSchedule


class Later:
    """The peer, imported when a test asks for something of it: every worker collects this file, and one runs it."""

    def __getattr__(self, name):
        if name.startswith("_"):  # pytest looks for its own marks at whatever a module holds
            raise AttributeError(name)
        return getattr(pytest.importorskip("diffusers"), name)


diffusers = Later()

T = 1000
LINEAR = {"num_train_timesteps": T, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def net(x, t, cond=None, *, mask=None):
    """A smooth stand-in for a net, the same for both sides."""
    t = t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    return torch.tanh(0.7 * x + 0.3 * torch.cos(t / 200)) + 0.1 * x.roll(1, -1)


class Shared:
    """One generator for both sides: noise is drawn in the order of the steps."""

    def __init__(self):
        self.generator = seeds.generator(9)

    def normal(self, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def ours(name, x, steps, *, prediction="eps", spacing="trailing", clip=None, schedule=None, **options):
    schedule = schedule or DiscreteSchedule()
    predict = assemble(Network(Diffusion(schedule, prediction), net, {}), clip=clip)
    *_, last = get_sampler(name)(predict, x, schedule.levels(steps, spacing), rng=Shared(), **options)
    return last.x


def theirs(scheduler, x, steps, **options):
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t.expand(len(x))), t, x, **options).prev_sample
    return x


@pytest.fixture
def x():
    return torch.randn(4, 3, 8, generator=seeds.generator(0))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("steps", [1, 10, 50])
def test_ddim(x, prediction, spacing, steps):
    scheduler = diffusers.DDIMScheduler(
        **LINEAR, clip_sample=False, prediction_type=PREDICTIONS[prediction], timestep_spacing=spacing, steps_offset=0
    )
    expected = theirs(scheduler, x, steps)
    torch.testing.assert_close(ours("ddim", x, steps, prediction=prediction, spacing=spacing), expected, atol=5e-4, rtol=1e-3)


def test_ddim_with_noise_and_clipping(x):
    scheduler = diffusers.DDIMScheduler(**LINEAR, clip_sample=True, clip_sample_range=1.0, timestep_spacing="trailing")
    expected = theirs(scheduler, x, 20, eta=0.6, use_clipped_model_output=True, generator=Shared().generator)
    torch.testing.assert_close(ours("ddim", x, 20, clip=1.0, eta=0.6), expected, atol=5e-4, rtol=1e-3)


# not ("large", 20): with fewer steps than T theirs adds that variance to the finished sample too
@pytest.mark.parametrize(
    ("variance", "steps"), [("small", 20), pytest.param("small", 1000, marks=pytest.mark.slow), ("large", 1000)]
)
def test_ddpm(x, variance, steps):
    scheduler = diffusers.DDPMScheduler(
        **LINEAR, variance_type=f"fixed_{variance}", clip_sample=True, timestep_spacing="trailing"
    )
    expected = theirs(scheduler, x, steps, generator=Shared().generator)
    torch.testing.assert_close(ours("ddpm", x, steps, clip=1.0, variance=variance), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [5, 10, 25])
def test_dpmpp(x, prediction, steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **LINEAR, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", final_sigmas_type="zero",
        prediction_type=PREDICTIONS[prediction], timestep_spacing="trailing",
    )  # fmt: skip
    expected = theirs(scheduler, x, steps)
    assert [int(t) for t in scheduler.timesteps] == [int(level.t) for level in DiscreteSchedule().levels(steps)[:-1]]
    torch.testing.assert_close(ours("dpmpp", x, steps, prediction=prediction), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 10, 50])
def test_plms(x, steps):
    """As Stable Diffusion's files have it: the last step ends at the least noise of training."""
    scheduler = diffusers.PNDMScheduler(
        **LINEAR, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading"
    )
    schedule = DiscreteSchedule(steps_offset=1, final="least")
    expected = theirs(scheduler, x, steps)
    torch.testing.assert_close(ours("plms", x, steps, spacing="leading", schedule=schedule), expected, atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 10, 100])
def test_plms_on_the_times_of_dance_diffusion(x, steps):
    """As IPNDMScheduler: its grid, its lower orders first, a first step that takes nothing of the net, and a last sum."""
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(steps)
    diffusion = Diffusion(CosineSchedule(crash=True), "v")
    levels = diffusion.schedule.levels(steps)
    torch.testing.assert_close(torch.tensor([level.t for level in levels[:-1]]), scheduler.timesteps, atol=1e-5, rtol=0)

    def slow(x, t, cond=None, *, mask=None):  # its times are of 0 to 1
        return net(x, 1000 * t)

    expected = x
    for t in scheduler.timesteps:
        expected = scheduler.step(slow(expected, t.expand(len(x))), t, expected).prev_sample
    found = {}
    for name, options in {"both": {"start": "zero", "end": "sum"}, "start": {"start": "zero"}, "ours": {}}.items():
        *_, step = get_sampler("plms")(assemble(Network(diffusion, slow, {})), x, levels, rng=Shared(), **options)
        found[name] = float((step.x - expected).abs().max())
    assert found["both"] < 1e-4
    assert found["start"] < 1e-4 or steps < 50  # the last sum matters little then
    assert found["ours"] > 1e-3  # the first prediction does


@pytest.mark.parametrize("rescaled", [False, True])
def test_the_schedules(rescaled):
    peer = diffusers.DDIMScheduler(**LINEAR, rescale_betas_zero_snr=rescaled)
    mine = DiscreteSchedule(zero_terminal_snr=rescaled)
    torch.testing.assert_close(mine.alpha_bar.float(), peer.alphas_cumprod, atol=1e-5, rtol=1e-4)
    peer = diffusers.DDIMScheduler(num_train_timesteps=T, beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(DiscreteSchedule("cosine").alpha_bar.float(), peer.alphas_cumprod, atol=1e-5, rtol=1e-4)

"""The usual objective: weighted error, left-out conditions, first guesses, hints and a codec's further loss."""

import math
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.contract.codec import Codec
from zoo.contract.conditions import Label
from zoo.contract.dataset import Batch
from zoo.contract.recipe import Training
from zoo.core.diffusion import PREDICTIONS, Diffusion, from_x0_eps
from zoo.core.guidance import is_null
from zoo.core.samplers import posterior_variances
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, Level
from zoo.core.seeds import generator
from zoo.errors import ConfigError, ShapeError
from zoo.training.objective import OBJECTIVES, Denoise, Hybrid, objective, objective_of

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


class Plain(Codec):
    """A codec that adds nothing."""

    shape = (4,)


def rand(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def model(diffusion, net, *, codec=None, conditions=(), **training):
    """What an objective sees of a model."""
    recipe = SimpleNamespace(training=Training(**training), conditions=dict.fromkeys(conditions, Label(values=("a", "b"))))
    return SimpleNamespace(recipe=recipe, diffusion=diffusion, denoiser=net, codec=codec or Plain())


def loss(diffusion, net, x0, *, cond=None, mask=None, rng=None, **options):
    return Denoise().loss(model(diffusion, net, **options), Batch(x0, cond or {}, mask), rng)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("weighting", ["simple", "min_snr", "edm"])
def test_loss_of_the_perfect_net_is_zero_and_of_a_shifted_one_is_the_weight(prediction, weighting):
    schedule = DiscreteSchedule()
    diffusion = Diffusion(schedule, prediction, weighting)
    x0 = rand(64, 2)

    def perfect(x, t, cond, mask=None, add=0.0):
        i = t.long()
        level = Level(t, schedule.alpha_bar[i].sqrt(), (1 - schedule.alpha_bar[i]).sqrt())
        eps = (x - level.alpha[:, None] * x0) / level.sigma[:, None]
        return from_x0_eps(x0, eps, level, prediction) + add

    assert loss(diffusion, perfect, x0, rng=generator(1)).item() < 1e-12
    off = loss(diffusion, lambda *a, **k: perfect(*a, **k, add=1.0), x0, rng=generator(1))
    level = schedule.draw(64, generator(1))
    want = diffusion.weight(level).mean().item() if weighting != "simple" else 1.0
    assert off.item() == pytest.approx(want, rel=1e-6)


def test_loss_divides_by_the_real_elements_and_ignores_padding():
    diffusion = Diffusion(DiscreteSchedule(), "eps")
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x0 = rand(2, 3, 4)

    def net(x, t, cond, mask=None):
        return torch.where(mask[..., None], 0.0, 1e6) * torch.ones_like(x)

    g = generator(4)
    diffusion.schedule.draw(2, g)
    eps = torch.randn(2, 3, 4, generator=g, dtype=torch.float64)
    got = loss(diffusion, net, x0, mask=mask, rng=generator(4))
    assert got.item() == pytest.approx((eps[mask] ** 2).mean().item())
    with pytest.raises(ShapeError, match="mask"):
        loss(diffusion, net, x0, mask=mask.T)


def test_padding_may_be_along_another_axis():
    class Last(Plain):
        size_axis = 1

    mask = torch.tensor([[True, True, False], [True, False, False]])
    x0 = rand(2, 4, 3)
    garbage = torch.where(mask[:, None], x0, 7.0)

    def net(x, t, cond, mask=None):
        return 0.5 * x

    found = [
        loss(Diffusion(DiscreteSchedule(), "x0"), net, x, mask=mask, rng=generator(1), codec=Last()) for x in (x0, garbage)
    ]
    assert found[0] == found[1]


def test_conditions_are_left_out_together_at_the_given_rate():
    seen = []

    def net(x, t, cond, mask=None):
        seen.append(cond)
        return x

    cond = {"label": torch.ones(20_000, dtype=torch.int64)}
    options = {"cond": cond, "conditions": ("label",), "condition_dropout": 0.1}
    loss(Diffusion(DiscreteSchedule()), net, rand(20_000, 1), rng=generator(0), **options)
    assert is_null(seen[0]["label"]).double().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (cond["label"] == 1).all(), "the batch's own tensors are left alone"
    held_out = model(Diffusion(DiscreteSchedule()), net, conditions=("label",), condition_dropout=1.0)
    Denoise(dropout=False).loss(held_out, Batch(rand(20, 1), {"label": cond["label"][:20]}), generator(0))
    assert not is_null(seen[1]["label"]).any()


class Repeater:
    """Says x0 = its guess where it has one, else x; remembers what it was given."""

    def __init__(self):
        self.calls, self.known = [], []

    def __call__(self, x, t, cond, mask=None):
        self.calls.append((x, t, cond.get("x0")))
        self.known.append(cond.get("known"))
        guess = cond.get("x0", torch.full_like(x, torch.nan))
        return torch.where(guess.isnan(), x, guess)


def test_half_of_the_rows_are_told_a_guess_from_a_noisier_version_of_themselves():
    diffusion, net = Diffusion(EDMSchedule(), "x0", self_condition=True), Repeater()
    x0 = torch.randn(7, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss(diffusion, net, x0, rng=torch.Generator().manual_seed(1))
    (noisier, t_first, none), (x, t, guess) = net.calls
    assert none is None and noisier.shape == (4, 500)
    assert torch.equal(guess[:4], noisier), "what the net said, without a guess"
    assert guess[4:].isnan().all()
    sigma, first = (4 * t[:4]).exp(), (4 * t_first).exp()
    assert (first >= sigma).all() and (first <= 2 * sigma + 1e-9).all() and (first > 1.01 * sigma).any()
    added = (noisier - x[:4]).std(1)
    torch.testing.assert_close(added, (first**2 - sigma**2).sqrt(), rtol=0.15, atol=1e-6)


def test_the_first_guess_keeps_its_level_at_the_end_of_the_schedule():
    diffusion, net = Diffusion(EDMSchedule(sigma_max=0.01), "x0", self_condition=True), Repeater()
    loss(diffusion, net, torch.zeros(6, 5), rng=torch.Generator().manual_seed(1))
    (noisier, t_first, _), (x, t, _) = net.calls
    beyond = (4 * t[:3]).exp() > 0.01
    assert beyond.any()
    assert torch.equal(t_first[beyond], t[:3][beyond]) and torch.equal(noisier[beyond], x[:3][beyond])


def test_a_hint_takes_the_place_of_the_guesses_that_there_are():
    seen = []

    class Hinting(Plain):
        def hint(self, guess, x0, mask, rng):
            seen.append((guess.clone(), x0, mask, rng))
            known = (torch.arange(6) < 2).expand_as(guess)
            return torch.where(known, x0, guess), known

    diffusion, net = Diffusion(EDMSchedule(), "x0", self_condition=True), Repeater()
    x0, mask, draw = torch.randn(5, 6), torch.ones(5, 6, dtype=torch.bool), torch.Generator().manual_seed(1)
    loss(diffusion, net, x0, mask=mask, rng=draw, codec=Hinting())
    (noisier, *_), (_, _, told) = net.calls
    ((guess, true, real, rng),) = seen
    assert torch.equal(guess, noisier) and torch.equal(true, x0[:3]) and torch.equal(real, mask[:3]) and rng is draw
    assert torch.equal(told[:3, :2], x0[:3, :2]) and torch.equal(told[:3, 2:], noisier[:, 2:])
    assert told[3:].isnan().all(), "rows without a guess stay without"
    assert torch.equal(net.known[-1], (torch.arange(6) < 2) & (torch.arange(5) < 3)[:, None])
    loss(diffusion, net, x0, mask=mask, rng=draw)
    assert not net.known[-1].any()


def test_a_further_loss_receives_guess_target_level_and_mask():
    seen = []

    class Further(Plain):
        def auxiliary(self, guess, x0, level, mask=None):
            seen.append((guess, x0, level, mask))
            return guess.new_tensor(5.0)

    x0, mask = torch.randn(3, 4, 2), torch.ones(3, 4, dtype=torch.bool)
    diffusion = Diffusion(EDMSchedule(), "x0")

    def found(codec):
        return loss(diffusion, Repeater(), x0, mask=mask, rng=torch.Generator().manual_seed(3), codec=codec)

    torch.testing.assert_close(found(Further()), found(Plain()) + 5.0)
    guess, target, level, real = seen[0]
    assert torch.equal(target, x0) and torch.equal(real, mask) and level.sigma.shape == (3,) and guess.shape == x0.shape


def test_the_noise_goes_through_the_codecs_projector():
    seen = []

    class Centred(Plain):
        def project(self, x, mask=None):
            return x - x.mean(1, keepdim=True)

    def net(x, t, cond, mask=None):
        seen.append(x)
        return x

    loss(Diffusion(DiscreteSchedule(), "eps"), net, torch.zeros(8, 5), rng=generator(0), codec=Centred())
    torch.testing.assert_close(seen[0].mean(1), torch.zeros(8), atol=1e-6, rtol=0)


class Half:
    """Half of the usual loss."""

    def loss(self, model, batch, rng):
        return 0.5 * Denoise().loss(model, batch, rng)


def test_a_registered_objective_is_what_a_recipe_names():
    found = objective("half")(Half)
    try:
        assert found is Half and isinstance(OBJECTIVES["half"](), Half)
        assert zoo.create("image/fashion-ddpm", **SMALL, **{"training.objective": "half"}).recipe.training.objective == "half"
        with pytest.raises(ConfigError, match="objective 'half' exists already"):
            objective("half")(Denoise)
    finally:
        OBJECTIVES.remove("half")
    with pytest.raises(ConfigError, match="denoise"):
        _ = OBJECTIVES["denose"]


class TwoOutputs(torch.nn.Module):
    """The exact prediction of N(0, v) as v, and one number for the variance."""

    def __init__(self, schedule, v):
        super().__init__()
        self.schedule, self.v = schedule, v
        self.shift, self.second = torch.nn.Parameter(torch.zeros(())), torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t, cond, mask=None):
        level = self.schedule.of(t.double())
        a, s = level.alpha[:, None].to(x), level.sigma[:, None].to(x)
        x0 = a * self.v / (a * a * self.v + s * s) * x
        return from_x0_eps(x0, (x - a * x0) / s, Level(t, a, s), "v") + self.shift, self.second.expand_as(x)


def test_the_bound_is_least_at_the_true_variance_and_reaches_nothing_else():
    """Two steps, of which one draws noise: its true variance is known by Bayes' rule."""
    schedule, v = DiscreteSchedule("linear", T=2, beta_start=0.3, beta_end=0.6), 0.5
    b, a = schedule.level(0), schedule.level(1)
    noise, before = a.sigma**2 - (a.alpha / b.alpha * b.sigma) ** 2, b.alpha**2 * v + b.sigma**2
    true = 1 / (1 / before + (a.alpha / b.alpha) ** 2 / noise)
    beta, tilde = posterior_variances(a, b)
    share = math.log(true / tilde) / math.log(beta / tilde)
    assert 0.05 < share < 0.95
    diffusion = Diffusion(schedule, "v", learned_variance=True)
    net = TwoOutputs(schedule, v).double()
    x0 = v**0.5 * rand(40_000, 1)

    def slope(at, objective, **options):
        net.second.data.fill_(2 * at - 1)
        net.zero_grad()
        value = objective(**options).loss(model(diffusion, net), Batch(x0, {}, None), generator(1))
        value.backward()
        return value.item(), net.second.grad.item(), net.shift.grad.item()

    low, high = (slope(share + off, Hybrid, weight=1.0) for off in (-0.02, 0.02))
    assert low[1] < 0 < high[1] and low[2] == pytest.approx(high[2])
    plain = slope(0.9, Hybrid, weight=0.0)
    # that of the mean is that of the plain loss
    assert plain[1] == 0 and low[2] == pytest.approx(plain[2])
    # T = 2 and one of two levels: the sum is its divergence, at v = 1 that of the large variance from the true posterior
    half = slope(1.0, Hybrid, weight=1.0)[0] - slope(1.0, Hybrid, weight=0.0)[0]
    off = (b.alpha * beta / a.sigma**2) ** 2 * v * a.sigma**2 / (a.alpha**2 * v + a.sigma**2)
    assert half == pytest.approx(0.5 * (off / beta + tilde / beta - 1 - math.log(tilde / beta)), rel=0.02)


def test_hybrid_and_learned_variance_need_each_other():
    x0 = rand(4, 3)
    diffusion = Diffusion(DiscreteSchedule(), "v", learned_variance=True)
    net = TwoOutputs(diffusion.schedule, 1.0).double()
    with pytest.raises(ConfigError, match=r"'denoise' trains no variance. Take 'hybrid'"):
        loss(diffusion, net, x0, rng=generator(0))
    for other in (Diffusion(DiscreteSchedule(), "v"), Diffusion(EDMSchedule(), "v", learned_variance=True)):
        wrapped = net if other.learned_variance else lambda *a, **k: net(*a, **k)[0]
        with pytest.raises(ConfigError, match=r"objective 'hybrid'.*learned_variance=true"):
            Hybrid().loss(model(other, wrapped), Batch(x0, {}, None), generator(0))
    with pytest.raises(ConfigError, match="weight"):
        Hybrid(weight=-1)


@pytest.mark.parametrize("name", ["image/fashion-ddpm", "image/fashion-dit"])
def test_a_recipe_with_a_learned_variance_trains_samples_and_is_saved(name, tmp_path):
    small = SMALL | {"net.patch": 4} if name.endswith("ddpm") else {"net.dim": 16, "net.depth": 1, "net.heads": 2}
    own = {"diffusion.learned_variance": True, "training.objective": "hybrid"}
    torch.manual_seed(0)
    made = zoo.create(name, **small, **own)
    batch = Batch(torch.rand(2, 1, 28, 28), {"label": torch.tensor([0, 1])}, None)
    for weight in (p for k, p in made.denoiser.named_parameters() if "variance" in k):
        torch.nn.init.normal_(weight, std=0.1)  # it starts as zero; of large ones the logarithms of variances leave all numbers
    objective_of(made.recipe.training).loss(made, batch, generator(0)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for k, p in made.denoiser.named_parameters() if "variance" in k)
    quick = {"sampler": "ddpm", "steps": 3, "seed": 0, "progress": False}
    learned = made.sample(2, variance="learned", **quick)
    assert not torch.equal(learned.tensor, made.sample(2, variance="small", **quick).tensor)
    again = zoo.load(made.save_pretrained(tmp_path / "kept") or tmp_path / "kept")
    assert torch.equal(again.sample(2, variance="learned", **quick).tensor, learned.tensor)
    assert again.sample(1, variance="learned", guidance_weight=1.0, **quick).tensor.isfinite().all()
    with pytest.raises(ConfigError, match=r"unknown argument.*'share'"):
        made.sample(1, share=0.5, **quick)
    with pytest.raises(ConfigError, match=r"says no variance.*training.objective=hybrid"):
        zoo.create(name, **small).sample(1, variance="learned", **quick)
    with pytest.raises(ConfigError, match="method='particles' weights steps of one variance"):
        made.inpaint(learned[0], torch.ones(28, 28, dtype=torch.bool), method="particles", variance="learned", **quick)


def test_a_net_without_a_second_output_is_named():
    with pytest.raises(ConfigError, match=r"learned_variance: the denoiser .* of the domain 'point3d' has no second output"):
        zoo.create("point3d/shapes-ddpm", **{"diffusion.learned_variance": True})

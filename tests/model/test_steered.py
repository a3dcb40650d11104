"""Steers and methods of in-painting through a model: seeds, batches, guidance, sizes, units, what is said of the cost."""

import pytest
import torch
from torch import nn

import zoo
from zoo.core import steer as steers
from zoo.core.diffusion import Diffusion
from zoo.core.inpaint import METHODS
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import ConfigError, ShapeError
from zoo.image.judge import load_judge
from zoo.point3d.cloud import PointCloud

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}
WHERE = torch.zeros(28, 28, dtype=torch.bool)
WHERE[:, :14] = True
QUICK = {"seed": 3, "steps": 3, "progress": False}
#: what makes each method quick
FEW = {"replace": {}, "resample": {"times": 2, "jump": 2}, "posterior": {"products": 2}, "particles": {"particles": 3}}

#: the methods that go with any known parts
EVERYWHERE = [name for name in METHODS if name != "select"]


def filled(model):
    """A model whose net is not zero at its end, as a new one is."""
    with torch.no_grad():
        for p in model.denoiser.parameters():
            p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return model


@pytest.fixture(scope="module")
def small():
    return filled(zoo.create("image/fashion-ddpm", **SMALL))


@pytest.fixture(scope="module")
def picture(small):
    return small.sample(1, seed=0, steps=1, progress=False)[0]


class Row(nn.Module):
    """An exact net of eight numbers in a row, N(0, AR(1)), which predicts the noise."""

    def __init__(self):
        super().__init__()
        place = torch.arange(8)
        values, vectors = torch.linalg.eigh(0.9 ** (place[:, None] - place).abs().double())
        self.register_buffer("values", values.float())
        self.register_buffer("vectors", vectors.float())
        self.schedule = DiscreteSchedule("cosine")

    def forward(self, x, t, cond, *, mask=None):
        level = self.schedule.of(t)
        a, s = level.alpha.to(x)[:, None], level.sigma.to(x)[:, None]
        return (s / (a * a * self.values + s * s) * (x @ self.vectors)) @ self.vectors.T


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_sample_is_the_same_in_every_batch(small, picture, name):
    how = FEW[name] | QUICK
    many = small.inpaint(picture, WHERE, 3, method=name, label=["bag", "coat", "dress"], guidance_weight=0.5, **how)
    assert torch.equal(many.tensor[..., :14], many.tensor[:1, ..., :14].expand(3, -1, -1, -1))
    assert (many.tensor[0, ..., 14:] - many.tensor[1, ..., 14:]).abs().max() > 0.05
    one = small.inpaint(
        picture, WHERE, 3, method=name, label=["bag", "coat", "dress"], guidance_weight=0.5, batch_size=1, **how
    )
    assert (many.tensor - one.tensor).abs().max() <= 2 / 255 + 1e-6, "to the rounding of a byte"
    settings = many.plan.settings()
    assert settings["method"] == name and FEW[name].items() <= settings.items()
    again = small.inpaint(picture, WHERE, 3, seed=3, progress=False, label=["bag", "coat", "dress"], **settings)
    assert torch.equal(again.tensor, many.tensor), "settings make the same call again"


def test_what_it_costs_is_said(small, picture):
    costs = {n: small.inpaint(picture, WHERE, method=n, **FEW[n] | QUICK).plan.cost for n in EVERYWHERE}
    assert costs == {
        "replace": "3 evaluations of the net a sample",
        "resample": "6 evaluations of the net a sample",
        "posterior": "3 evaluations of the net a sample, 6 calls backwards",
        "particles": "9 evaluations of the net a sample, 9 calls backwards",
    }
    assert small.inpaint(picture, WHERE, sampler="heun", **QUICK).plan.cost.startswith("5 ")
    assert small.sample(1, **QUICK).plan.cost == "" and "method" not in small.sample(1, **QUICK).plan.settings()


def test_particles_take_a_sampler_with_noise_where_none_is_named(small, picture):
    assert small.inpaint(picture, WHERE, method="particles", particles=2, **QUICK).plan.sampler == "ddpm"
    with pytest.raises(ConfigError, match="'ddpm'"):
        small.inpaint(picture, WHERE, method="particles", sampler="dpmpp", **QUICK)
    found = small.inpaint(picture, WHERE, method="particles", particles=2, sampler="ddim", eta=0.5, **QUICK)
    assert found.plan.settings()["eta"] == 0.5


def test_steps_and_bars_count_what_is_done(small, picture):
    seen = []
    small.inpaint(picture, WHERE, 2, method="resample", times=3, jump=1, on_step=seen.append, **QUICK)
    assert len(seen) == 9 and all(step.x.shape == (2, 1, 28, 28) for step in seen)
    seen.clear()
    small.inpaint(picture, WHERE, 2, method="particles", particles=2, on_step=seen.append, **QUICK)
    assert len(seen) == 3 and all(step.x.shape == (2, 1, 28, 28) for step in seen)
    known = small.encoded(picture)
    *_, last = small.sample_iter(2, known=known, where=WHERE, method="posterior", seed=3, steps=3)
    found = small.inpaint(picture, WHERE, 2, method="posterior", **QUICK)
    assert (last.x.clamp(-1, 1) - found.tensor).abs().max() <= 1 / 127 and torch.equal(last.x[..., :14][0], known[..., :14])


ODD = [
    ({"method": "repaint"}, "resample"),
    ({"method": 3}, "method"),
    ({"times": 3}, "'resample'"),
    ({"method": "posterior", "particles": 3}, "'particles'"),
    ({"method": "resample", "times": 0}, "times"),
]


@pytest.mark.parametrize(("arguments", "said"), ODD)
def test_methods_that_are_invalid_are_refused(small, picture, arguments, said):
    with pytest.raises(ConfigError, match=said):
        small.inpaint(picture, WHERE, **QUICK, **arguments)
    with pytest.raises(ConfigError):
        small.sample_iter(1, known=small.encoded(picture), where=WHERE, steps=2, **arguments)


def test_a_domain_s_own_method_is_taken_where_nobody_says_one(small, picture):
    own = small.inpaint(picture, WHERE, 2, **QUICK)
    assert own.plan.method == {"method": "posterior", "products": 1} and own.plan.batch_size <= 16
    said = small.inpaint(picture, WHERE, 2, method="posterior", products=1, **QUICK)
    assert torch.equal(own.tensor, said.tensor)
    assert small.inpaint(picture, WHERE, 1, products=2, **QUICK).plan.method == {"method": "posterior", "products": 2}
    assert not torch.equal(own.tensor, small.inpaint(picture, WHERE, 2, method="replace", **QUICK).tensor)


def test_a_way_of_holding_nothing_is_refused(small):
    with pytest.raises(ConfigError, match="none are given"):
        small.sample_iter(1, method="posterior", steps=2)


def test_energies_see_the_units_of_the_domain():
    cloud = zoo.create("point3d/shapes-ddpm")
    seen = []

    def loss(points):
        seen.append(points.detach())
        return points.square().mean((1, 2))

    cloud.sample(2, n_points=[64, 80], steer=[zoo.steer.energy(loss)], seed=0, steps=1, progress=False)
    assert [tuple(points.shape) for points in seen] == [(1, 64, 3), (1, 80, 3)], "without padding, each by itself"
    seen.clear()
    made = cloud.sample(1, n_points=64, steer=[zoo.steer.energy(loss, 0.0001)], seed=0, steps=2, progress=False)
    encoded = []
    watch = zoo.steer.energy(lambda x: (encoded.append(x.detach()), x.square().mean((1, 2)))[1], 0.0001, units="encoded")
    cloud.sample(1, n_points=64, steer=[watch], seed=0, steps=2, progress=False)
    torch.testing.assert_close(seen[0], encoded[0] * cloud.codec.scale)
    assert isinstance(made[0], PointCloud)


def test_a_domain_that_decodes_without_a_gradient_says_so():
    model = zoo.create("audio/spec-ddpm")
    with pytest.raises(ConfigError, match="units='encoded'"):
        model.sample(1, steer=[zoo.steer.energy(lambda x: x.square().mean())], seed=0, steps=3, progress=False)


def test_steers_compose_with_guidance_and_with_one_another(small, picture):
    dark = zoo.steer.energy(lambda x: x.mean((1, 2, 3)), 200.0)
    low = zoo.steer.measure(torch.zeros(1, 7, 7), lambda x: nn.functional.avg_pool2d(x, 4), 0.05)
    settings = {"label": "bag", "guidance_weight": 1.0} | QUICK
    plain = small.sample(2, **settings)
    for steer in ([dark], [low], [dark, low], zoo.steer.product([dark, low], [0.5, 1])):
        many = small.sample(2, steer=steer, **settings)
        assert torch.isfinite(many.tensor).all() and not torch.equal(many.tensor, plain.tensor)
        one = small.sample(2, steer=steer, batch_size=1, **settings)
        assert (many.tensor - one.tensor).abs().max() <= 2 / 255 + 1e-6
    assert small.sample(2, steer=[dark], **settings).tensor.mean() < plain.tensor.mean()
    held = small.inpaint(picture, WHERE, steer=[dark], method="posterior", **QUICK)
    assert (held[0].pixels[:, :14] == picture.pixels[:, :14]).all() or held.tensor.mean() < plain.tensor.mean()
    varied = small.vary(picture, 0.7, steer=[low], **QUICK)
    assert torch.isfinite(varied.tensor).all()
    assert all(p.grad is None for p in small.parameters())


def test_fewer_samples_at_a_time_where_a_graph_is_kept(small, picture):
    sizes = []

    def spy(predict):
        def watched(x, level):
            sizes.append(len(x))
            return predict(x, level)

        return watched

    quick = {"seed": 0, "steps": 1, "progress": False, "sampler": "ddim"}
    dark = zoo.steer.energy(lambda x: x.mean((1, 2, 3)))
    small.sample(20, steer=[spy, dark], **quick)
    small.sample(20, steer=[spy, zoo.steer.energy(lambda x: x.mean((1, 2, 3)), through_net=False)], **quick)
    small.sample(20, steer=[spy, dark], batch_size=20, **quick)
    assert sizes == [16, 4, 20, 20]
    sizes.clear()
    small.inpaint(picture, WHERE, 3, method="particles", particles=8, steer=[spy], seed=0, steps=1, progress=False)
    assert sizes == [16, 8]


def test_symmetric_pictures(small):
    mirror = zoo.steer.symmetry([lambda x: x, lambda x: x.flip(-1)], shared_noise=True)
    made = small.sample(2, steer=[mirror], sampler="ddpm", **QUICK)
    assert torch.equal(made.tensor, made.tensor.flip(-1)) and not torch.equal(made.tensor[0], made.tensor[1])


def test_a_judge_steers(small):
    judge = load_judge()
    steer = zoo.steer.classifier(judge, "Sneaker", 1.0)
    made = small.sample(1, steer=[steer], **QUICK)
    assert torch.isfinite(made.tensor).all()
    with pytest.raises(ConfigError, match="sneaker"):
        zoo.steer.classifier(judge, "sneakers")


def test_self_conditioned_nets_of_several_sizes():
    """A protein model is told its last guess, and each chain has a length of its own."""
    model = filled(zoo.create("protein/backbone-ddpm"))
    settings = {"seed": 0, "steps": 2, "progress": False}
    radius = zoo.steer.energy(lambda x: x[:, :, 1].square().sum(-1).mean(1), 0.01)
    both = model.sample(2, length=[32, 36], steer=[radius], **settings)
    alone = model.sample(2, length=[32, 36], steer=[radius], batch_size=1, **settings)
    for a, b in zip(both, alone, strict=True):
        torch.testing.assert_close(torch.as_tensor(a.atoms), torch.as_tensor(b.atoms), atol=2e-2, rtol=0)
    chain = both[1]
    where = torch.zeros(36, 1, 1, dtype=torch.bool)
    where[4:9] = True
    for method in ("resample", "particles"):
        (made,) = model.inpaint(chain, where, method=method, **FEW[method], **settings)
        assert len(made) == 36
    with pytest.raises(ConfigError, match="may lie anywhere"):
        model.inpaint(chain, where, method="posterior", **settings)


def test_a_steer_that_acts_at_no_step_is_told(small):
    never = zoo.steer.energy(lambda x: x.mean((1, 2, 3)), interval=(1e-9, 1e-8))
    with pytest.warns(UserWarning, match="energy: the steer acts at no step"):
        small.sample(1, steer=[never], **QUICK)


def test_an_operator_that_does_not_fit_is_told(small):
    low = zoo.steer.measure(torch.zeros(1, 5, 5), lambda x: nn.functional.avg_pool2d(x, 4), 0.05)
    with pytest.raises(ShapeError, match="does not broadcast"):
        small.sample(1, steer=[low], **QUICK)


def test_the_model_itself_is_exact_where_its_net_is():
    """Through `Model.of`, float32 and all: the posterior of half a row of Gaussian numbers."""
    from zoo.contract.codec import Codec

    class RowCodec(Codec):
        shape = (8,)

        def encode(self, item, rng=None):
            return torch.as_tensor(item)

        def decode(self, x0, cond):
            return list(x0)

    net = Row()
    model = zoo.Model.of(Diffusion(net.schedule), net, RowCodec())
    where = torch.arange(8) < 4
    y = torch.tensor([1.0, 0.5, 0.2, -0.3, 0, 0, 0, 0])
    made = model.inpaint(y, where, 400, method="posterior", sampler="dpmpp", steps=40, seed=0, batch_size=400, progress=False)
    place = torch.arange(8)
    mean = y[3] * 0.9 ** (place[4:] - 3)
    variance = 1 - 0.81 ** (place[4:] - 3)
    assert ((made.tensor[:, 4:].mean(0) - mean) / variance.sqrt()).abs().max() < 0.2, "four deviations of 400 samples"
    ratio = made.tensor[:, 4:].var(0) / variance
    assert ratio.min() > 0.7 and ratio.max() < 1.35


@pytest.mark.parametrize("shared", [False, True])
def test_symmetry_of_samples_of_several_sizes_leaves_padding_out(shared):
    """A flip would move the padding of a small sample among its points."""
    model = filled(zoo.create("point3d/shapes-ddpm", **{"net.dim": 16, "net.depth": 1, "net.heads": 2}))
    flips = steers.symmetry([lambda x: x, lambda x: x.flip(1)], shared_noise=shared)
    arguments = {"n_points": [64, 70], "steer": steers.product([flips]) if not shared else flips} | QUICK
    together, alone = model.sample(2, **arguments), model.sample(2, batch_size=1, **arguments)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(model.encoded(a), model.encoded(b), rtol=0, atol=1e-5)

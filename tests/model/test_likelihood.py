"""`Model.log_likelihood`: exact nets of every prediction, units of objects, conditions, sizes, and what is refused."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.contract.codec import Codec
from zoo.contract.conditions import Label
from zoo.core.diffusion import Diffusion
from zoo.core.likelihood import Draws
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule
from zoo.errors import ConfigError, NumericsError
from zoo.image.codec import ImageCodec
from zoo.model.loading import create
from zoo.model.model import DENSITY
from zoo.point3d.cloud import PointCloud

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from exact_net import ExactNet, ar1, log_density

QUIET = {"progress": False}
BITS = math.log(2)
SCHEDULES = {
    "linear": DiscreteSchedule("linear"),
    "cosine": DiscreteSchedule("cosine"),
    "zero-snr": DiscreteSchedule("cosine", zero_terminal_snr=True),
    "edm": EDMSchedule(),
    "flow": FlowSchedule(),
}
PAIRS = [("linear", "eps"), ("cosine", "x0"), ("zero-snr", "v"), ("edm", "eps"), ("edm", "x0"), ("flow", "flow"), ("flow", "v")]


class Plain(Codec):
    """Vectors as they are."""

    def __init__(self, size=3):
        super().__init__()
        self.shape = (size,)

    def encode(self, item, rng=None):
        return torch.as_tensor(item)

    def decode(self, x0, cond):
        return [zoo.contract.samples for _ in x0]


def gaussian(schedule, prediction, size=3, *, mean=0.7, scale=0.5, codec=None, labels=None, precondition=False):
    """A model of Gaussian data with its exact net, the mean, and the covariance."""
    covariance = ar1(0.8, size, scale)
    means = torch.full((size,), mean) if labels is None else torch.stack([torch.full((size,), m) for m in labels.values()])
    net = ExactNet(means, covariance, prediction, precondition_data=0.5 if precondition else None)
    conditions = None if labels is None else {"label": Label(values=tuple(labels))}
    diffusion = Diffusion(schedule, prediction, precondition=precondition)
    return zoo.Model.of(diffusion, net, codec or Plain(size), conditions=conditions), means, covariance


def drawn(mean, covariance, n):
    noise = torch.randn(n, len(covariance), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return mean + noise @ torch.linalg.cholesky(covariance).T


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
def test_gaussian_data_are_exact_for_every_schedule_and_prediction(schedule, prediction):
    precondition = (schedule, prediction) == ("edm", "x0")
    model, mean, covariance = gaussian(SCHEDULES[schedule], prediction, precondition=precondition)
    x = drawn(mean, covariance, 4)
    want = -log_density(x, mean, covariance) / 3 / BITS
    found = model.log_likelihood(x, trace="exact", units="encoded", **QUIET)
    assert (found.bits - want).abs().max() < 3e-4 and found.error.tolist() == [0] * 4
    assert "exact trace" in found.counted and found.unit.startswith("encoded units")
    probed = model.log_likelihood(list(x), probes=64, steps=12, units="encoded", **QUIET)
    assert ((probed.bits - want).abs() < 4 * probed.error + 1e-3).all() and 0 < probed.error.max() < 0.1


def test_an_item_has_the_same_likelihood_in_every_batch():
    model, mean, covariance = gaussian(SCHEDULES["cosine"], "v")
    x = drawn(mean, covariance, 3)
    settings = {"steps": 2, "probes": 2, "units": "encoded", **QUIET}
    together = model.log_likelihood(x, **settings)
    torch.testing.assert_close(model.log_likelihood(x, batch_size=1, **settings).nats, together.nats)
    torch.testing.assert_close(model.log_likelihood(x[:1], **settings).nats, together.nats[:1])
    assert (model.log_likelihood(x, seed=1, **settings).nats != together.nats).all()
    for more in ({}, {"steps": 9}):
        bound = {"method": "bound", "probes": 2, "units": "encoded", **QUIET} | more
        model.diffusion = Diffusion(DiscreteSchedule("cosine", T=12), "v")
        a, b = model.log_likelihood(x, **bound), model.log_likelihood(x[:2], batch_size=1, **bound)
        torch.testing.assert_close(a.nats[:2], b.nats)
        assert all(a.parts[k].shape == (3,) for k in ("L_T", "L_t", "L_0"))
        torch.testing.assert_close(-sum(a.parts.values()), a.nats)


def test_a_label_is_a_condition_and_guidance_is_refused():
    model, means, covariance = gaussian(SCHEDULES["cosine"], "v", labels={"low": -1.0, "high": 1.0})
    x = drawn(means[1], covariance, 2)
    settings = {"trace": "exact", "units": "encoded", **QUIET}
    found = model.log_likelihood(x, label=["high", "LOW"], **settings)
    want = [log_density(x[i : i + 1], means[1 - i], covariance).item() for i in range(2)]
    assert found.nats.tolist() == pytest.approx(want, abs=1e-3)
    with pytest.raises(ConfigError, match="guidance_weight: guidance has no density"):
        model.log_likelihood(x, label="high", guidance_weight=1.0, **settings)
    with pytest.raises(ConfigError, match=r"unknown .*'lable'.*'label'"):
        model.log_likelihood(x, lable="high", **settings)


# ---------------------------------------------------------------- units


def test_pictures_count_in_steps_of_eight_bits():
    """Bits per dimension of bytes: the density at the dequantised pixels, times a step."""
    model, mean, covariance = gaussian(SCHEDULES["edm"], "x0", 4, mean=0.0, scale=0.09, codec=ImageCodec(2))
    pixels = np.array([[[90, 120], [130, 160]], [[0, 40], [20, 10]]], np.uint8)
    settings = {"trace": "exact", "probes": 1, **QUIET}
    found = model.log_likelihood(list(pixels), **settings)
    encoded = torch.stack([model.encoded(p) for p in pixels])
    noise = Draws([(0, i, DENSITY, 0) for i in range(2)]).uniform(encoded)
    assert noise.abs().max() <= 0.5
    inside = encoded + noise / 127.5
    want = -(log_density(inside, mean, covariance) - 4 * math.log(127.5)) / 4 / BITS
    assert (found.bits - want).abs().max() < 1e-3 and found.error.isnan().all()
    assert found.unit == "steps of 8-bit pictures" and "uniform dequantisation" in found.counted
    # over many draws it is the mean of the density over the step, and the error bar says how well that is known
    many = model.log_likelihood(list(pixels), probes=40, steps=8, **QUIET)
    centre = -(log_density(encoded, mean, covariance) - 4 * math.log(127.5)) / 4 / BITS
    assert ((many.bits - centre).abs() < 4 * many.error + 0.01).all()
    given = model.log_likelihood(encoded, **settings)
    torch.testing.assert_close(given.nats, found.nats)
    with pytest.raises(ConfigError, match="that of rounded numbers, and this encoded sample has others"):
        model.log_likelihood(encoded + 0.5 / 127.5, **settings)
    with pytest.raises(ConfigError, match="rounded numbers"):
        model.log_likelihood(encoded * 3, **settings)


def test_the_bound_of_pictures_is_that_of_their_bytes():
    """A bound of the probability is above -ln of it, here that of the steps of a normal distribution."""
    model, _, _ = gaussian(DiscreteSchedule("cosine", T=60), "v", 1, mean=0.0, scale=0.09, codec=ImageCodec(1))
    pixels = [np.array([[p]], np.uint8) for p in (60, 127, 200)]
    found = model.log_likelihood(pixels, method="bound", probes=4, **QUIET)
    x = torch.tensor([60.0, 127.0, 200.0], dtype=torch.float64) / 127.5 - 1
    normal = torch.distributions.Normal(0.0, 0.3)
    want = -(normal.cdf(x + 1 / 255) - normal.cdf(x - 1 / 255)).log() / BITS
    assert (found.bits > want - 4 * found.error).all() and ((found.bits - want) < 1.6 + 4 * found.error).all()
    assert "all 59 steps" in found.counted


SMALL = {
    "point3d/shapes-ddpm": {"net.dim": 16, "net.depth": 1, "net.heads": 2},
    "image/fashion-ddpm": {"net.channels": 8, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 8},
}


def test_clouds_of_several_sizes_count_their_own_points():
    model = create("point3d/shapes-ddpm", **SMALL["point3d/shapes-ddpm"])
    rng = np.random.default_rng(0)
    clouds = [PointCloud(rng.uniform(-0.5, 0.5, (n, 3)).astype(np.float32)) for n in (70, 64)]
    settings = {"steps": 1, "probes": 1, **QUIET}
    found = model.log_likelihood(clouds, **settings)
    assert found.free.tolist() == [210, 192] and found.unit == "radii of the unit sphere"
    alone = model.log_likelihood(clouds, batch_size=1, units="encoded", **settings)
    want = alone.nats - found.free * math.log(float(model.codec.scale))
    torch.testing.assert_close(found.nats, want, rtol=1e-4, atol=1e-2)


def test_what_has_no_units_says_so(monkeypatch):
    model, _, _ = gaussian(SCHEDULES["edm"], "x0")
    x = torch.zeros(1, 3)
    with pytest.raises(ConfigError, match=r"Plain does not say how a density.*units='encoded'"):
        model.log_likelihood(x, **QUIET)
    for wrong, message in (
        ({"method": "odd"}, "unknown method of a likelihood 'odd'.*Did you mean 'ode'"),
        ({"method": "bound", "units": "encoded"}, "EDMSchedule has no such steps. Use method='ode'"),
        ({"trace": "all"}, "unknown trace 'all'"),
        ({"units": "bytes"}, "units='bytes': give None"),
        ({"probes": 0}, "probes=0"),
        ({"steps": 0, "units": "encoded"}, "steps=0"),
        ({"to_clean": 1}, "to_clean=1: give True, False, or None"),
        ({"progress": 1}, "progress=1"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.log_likelihood(x, **QUIET | wrong)
    for items, message in (([], "no objects"), ("a.png", "a str; give a list"), (np.zeros((3, 3)), "a ndarray; give a list")):
        with pytest.raises(ConfigError, match=message):
            model.log_likelihood(items, **QUIET)
    monkeypatch.setattr(ExactNet, "forward", lambda self, x, *a, **k: x * math.nan)
    with pytest.raises(NumericsError, match="a likelihood is not finite"):
        model.log_likelihood(x, units="encoded", steps=1, **QUIET)


@pytest.mark.slow
@pytest.mark.data
def test_clothes_score_better_than_other_pictures(zoo_data):
    """The packaged model on pictures of its test split, and on others: drawings, and its own inverted or scrambled."""
    model = zoo.load("image/fashion-ddpm")
    with np.load(zoo_data / "image" / "fashion_mnist.npz") as file:
        pixels = file["test_images"][:4]
    with np.load(zoo_data / "image" / "emoji_styles.npz") as file:
        chosen = [0, 3000, 6000, 9000]
        drawings = file["palette"][chosen][np.arange(4)[:, None, None], file["index64"][chosen]]
    grey = [Image.fromarray(255 - d).convert("L").resize((28, 28), Image.Resampling.LANCZOS) for d in drawings]
    scrambled = np.random.default_rng(0).permuted(pixels.reshape(4, -1), axis=1).reshape(pixels.shape)

    def bits(pictures):
        return model.log_likelihood(list(pictures), probes=1, steps=8, **QUIET).mean[0]

    own = bits(pixels)
    assert own < 4
    assert own + 0.3 < bits(grey) and all(own + 1 < bits(p) for p in (255 - pixels, scrambled))
    # what is simpler than any of the data is likelier: docs/likelihood.md says so
    bars = np.zeros((4, 28, 28), np.uint8)
    for i in range(4):
        bars[i, 4:24, 6 + 3 * i : 10 + 3 * i] = 255
    assert bits(bars) < own


def test_a_condition_that_samples_draw_is_said_of_objects():
    """Drawn, it would be the wrong one of every other object: a density and a noise of something else."""
    model, _, _ = gaussian(SCHEDULES["cosine"], "eps", labels={"low": -2.0, "high": 2.0})
    model.recipe.conditions["label"] = Label(values=("low", "high"), free="draw")
    x = torch.full((2, 3), 2.0)
    for call in (model.log_likelihood, model.invert):
        for given in ({}, {"label": ["high", None]}):
            with pytest.raises(ConfigError, match=r"label: a sample draws one .* Known: low, high"):
                call(x, **given)
    found = model.log_likelihood(x, label="high", units="encoded", trace="exact", **QUIET).nats
    assert float(found[0]) == float(found[1]) > -2
    assert model.invert(x, label=["high", "high"], steps=2, **QUIET).noise.shape == x.shape

"""Energies, classifiers, symmetry and products of steers, against what is known of Gaussian data in closed form."""

import gaussian
import pytest
import torch

from zoo.core.correction import Setting, bound
from zoo.core.energy import index_of
from zoo.core.predict import clipped, steered
from zoo.core.samplers import get_sampler
from zoo.core.seeds import SampleRng
from zoo.core.steer import Hold, classifier, energy, gradient, measure, noise_of, product, symmetry, traced
from zoo.errors import ConfigError, NumericsError, ShapeError

COVARIANCE, WHERE = gaussian.DATA[".8"]
PLAIN = gaussian.net(COVARIANCE)
LEVELS = gaussian.SCHEDULES["cosine"].levels(40)
LEVEL = LEVELS[20]
X = torch.randn(3, gaussian.N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TOWARDS = torch.linspace(-1, 1, gaussian.N, dtype=torch.float64)


def sampled(steer, rows=50, levels=LEVELS):
    rng = gaussian.Matched()
    x = rng.normal(torch.zeros(rows, gaussian.N, dtype=torch.float64))
    with torch.no_grad():
        *_, step = get_sampler("dpmpp")(steer(PLAIN), x, levels, rng=rng)
    return step.x


def linear(x0):
    return -(x0 * TOWARDS).sum(1)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_a_linear_energy_tilts_the_data(weight):
    """exp(w a.x) times N(0, Sigma) is N(w Sigma a, Sigma)."""
    mean, least, most = gaussian.errors(sampled(energy(linear, weight)), weight * COVARIANCE @ TOWARDS, COVARIANCE)
    assert mean < 0.02 + 0.06 * weight, "three in a hundred of the way, by the steps"
    assert least > 0.93 and most < 1.03


def test_the_slope_is_that_of_the_closed_form():
    """x0 - w (sigma^2 / alpha) J' grad, with J the gain of the oracle; without the net r^2 stands for sigma^2 / alpha J."""
    level = LEVEL
    jacobian = PLAIN(torch.eye(8, dtype=torch.float64), level)[0]
    plain, _ = PLAIN(X, level)
    grad = 2 * (plain - TOWARDS)

    def square(x0):
        return (x0 - TOWARDS).square().sum(1)

    x0, eps = energy(square, 0.3)(PLAIN)(X, level)
    torch.testing.assert_close(x0, plain - 0.3 * level.sigma**2 / level.alpha * grad @ jacobian)
    torch.testing.assert_close(eps, noise_of(X, x0, level))
    asked = []

    def spied(x, level):
        asked.append(x.requires_grad)
        return PLAIN(x, level)

    setting = Setting(deviation=0.5)
    with torch.no_grad():
        x0, _ = bound(energy(square, 0.3, through_net=False), setting)(spied)(X, level)
    assert asked == [False], "no graph of the net where nobody asks"
    torch.testing.assert_close(x0, plain - 0.3 * setting.variance(level) * grad)
    assert setting.variance(level) == pytest.approx(1 / (1 / 0.25 + level.alpha**2 / level.sigma**2))


def test_each_sample_has_its_own_energy_whatever_the_batch():
    losses = {
        "one a sample": lambda x0: x0.square().mean(1),
        "a mean over the batch": lambda x0: x0.square().mean(),
        "with an axis": lambda x0: x0.square().mean().reshape(1),
    }
    found = [energy(loss)(PLAIN)(X, LEVEL)[0] for loss in losses.values()]
    alone = energy(losses["a mean over the batch"])(PLAIN)(X[1:2], LEVEL)[0]
    for x0 in found:
        torch.testing.assert_close(x0, found[0])
        torch.testing.assert_close(x0[1:2], alone)


def test_samples_of_several_sizes_are_seen_without_padding():
    sizes = []

    def loss(x0):
        sizes.append(x0.shape[1])
        return x0.square().mean(1)

    setting = Setting(units=lambda x0: 10 * x0, sizes=[8, 3, 5])
    x0 = bound(energy(loss), setting)(PLAIN)(X, LEVEL)[0]
    assert sizes == [8, 3, 5]

    def own(x0):
        return torch.stack([(10 * x0[i, :n]).square().mean() for i, n in enumerate(setting.sizes)])

    torch.testing.assert_close(x0, energy(own)(PLAIN)(X, LEVEL)[0])
    encoded = bound(energy(lambda x0: x0.square().mean(1), 100, units="encoded"), setting)(PLAIN)(X, LEVEL)[0]
    torch.testing.assert_close(x0, encoded)


def test_steers_around_one_another_ask_the_net_once():
    calls = []

    def spied(x, level):
        calls.append(1)
        return PLAIN(x, level)

    y, rows = torch.ones(2, dtype=torch.float64), torch.eye(8, dtype=torch.float64)[:2]
    steers = [Hold(torch.ones(8, dtype=torch.float64), WHERE), energy(linear, 0.5), measure(y, rows, 0.1)]
    with torch.no_grad():
        x0, eps = steered(spied, steers)(X, LEVEL)
    assert len(calls) == 1 and not x0.requires_grad and not eps.requires_grad
    plain, _ = PLAIN(X, LEVEL)

    def own(predict):  # of somebody who writes his own
        def pushed(x, level):
            x0, eps, slope = gradient(predict, x, level, lambda x0: x0.square().sum(1))
            return x0 - 0.01 * slope, eps

        return pushed

    inner, outer = steered(PLAIN, [energy(linear, 0.5), own])(X, LEVEL), steered(PLAIN, [own, energy(linear, 0.5)])(X, LEVEL)
    assert not torch.equal(inner[0], plain) and not torch.equal(outer[0], plain)
    assert not inner[0].requires_grad and not outer[0].requires_grad
    torch.testing.assert_close(outer[0] - own(PLAIN)(X, LEVEL)[0], energy(linear, 0.5)(PLAIN)(X, LEVEL)[0] - plain)


def test_a_product_adds_what_each_steer_does_alone():
    calls = []

    def spied(x, level):
        calls.append(1)
        return PLAIN(x, level)

    y, rows = torch.ones(2, dtype=torch.float64), torch.eye(8, dtype=torch.float64)[:2]
    white = lambda predict: lambda x, level: (torch.ones_like(x), noise_of(x, torch.ones_like(x), level))  # noqa: E731
    parts = [energy(linear, 0.5), measure(y, rows, 0.1), energy(linear, 1.0, through_net=False), white]
    plain, _ = PLAIN(X, LEVEL)
    alone = [part(PLAIN)(X, LEVEL)[0] - plain for part in parts]
    x0, noise = product(parts, [1, 2, 0.5, 0.25])(spied)(X, LEVEL)
    torch.testing.assert_close(x0, plain + alone[0] + 2 * alone[1] + 0.5 * alone[2] + 0.25 * alone[3])
    torch.testing.assert_close(noise, noise_of(X, x0, LEVEL))
    assert len(calls) == 1 and not x0.requires_grad

    def own(predict):
        def pushed(x, level):
            x0, eps, slope = gradient(predict, x, level, lambda x0: x0.square().sum(1))
            return x0 - 0.01 * slope, eps

        return pushed

    torch.testing.assert_close(product([own], [2])(PLAIN)(X, LEVEL)[0], plain + 2 * (own(PLAIN)(X, LEVEL)[0] - plain))
    again = steered(PLAIN, [product([energy(linear, 0.5)]), energy(linear, 0.5)])(X, LEVEL)[0]
    torch.testing.assert_close(again, plain + 2 * alone[0])


def test_a_product_of_tilts_is_the_tilt_of_the_sum():
    both = product([energy(linear), energy(lambda x0: -x0[:, 0])], [0.5, 0.3])
    first = torch.eye(8, dtype=torch.float64)[0]
    mean, least, most = gaussian.errors(sampled(both), COVARIANCE @ (0.5 * TOWARDS + 0.3 * first), COVARIANCE)
    assert mean < 0.05 and least > 0.93 and most < 1.03


class Judge(torch.nn.Module):
    """Two classes, whose logits are linear: p(up | x0) = sigmoid(2 a.x0)."""

    class_names = ("Up", "down")

    def forward(self, x0):
        return torch.stack([x0 @ TOWARDS.to(x0), -x0 @ TOWARDS.to(x0)], 1)


def test_a_classifier_follows_the_slope_of_its_log_probability():
    plain, _ = PLAIN(X, LEVEL)
    jacobian = PLAIN(torch.eye(8, dtype=torch.float64), LEVEL)[0]
    up = torch.sigmoid(2 * plain @ TOWARDS)[:, None]
    expected = plain + 0.7 * LEVEL.sigma**2 / LEVEL.alpha * (2 * (1 - up) * TOWARDS) @ jacobian
    for label in ("up", "UP", 0):
        x0, _ = classifier(Judge().eval(), label, 0.7)(PLAIN)(X, LEVEL)
        torch.testing.assert_close(x0, expected)
    assert float((sampled(classifier(Judge().eval(), "down", 3.0)) @ TOWARDS).mean()) < -1
    setting = Setting(units=lambda x0: 3 * x0)
    thrice, _ = bound(classifier(Judge().eval(), "up"), setting)(PLAIN)(X, LEVEL)
    by_hand, _ = energy(lambda x0: -torch.nn.functional.logsigmoid(6 * x0 @ TOWARDS))(PLAIN)(X, LEVEL)
    torch.testing.assert_close(thrice, by_hand)


def test_labels_of_judges():
    assert index_of(torch.tensor(1), None) == 1
    for label, names, said in (
        ("upp", ("up", "down"), "Did you mean 'up'"),
        ("up", None, "class_names"),
        (2, ("up", "down"), "number from 0"),
        (-1, None, "number from 0"),
        (True, None, "number from 0"),
        (None, None, "number from 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            index_of(label, names)
    with pytest.raises(ConfigError, match="training mode"):
        classifier(Judge(), "up")
    with pytest.raises(ConfigError, match="logits"):
        classifier("judge", "up")
    with pytest.raises(ShapeError, match="logits"):
        classifier(lambda x0: x0.sum(1), 0)(PLAIN)(X, LEVEL)
    with pytest.raises(ConfigError, match="2 classes"):
        classifier(lambda x0: x0[:, :2], 5)(PLAIN)(X, LEVEL)


MIRROR = [lambda x: x, lambda x: x.flip(-1)]


def test_symmetric_samples_are_drawn_as_they_are_distributed():
    """N(0, Sigma) given x = x mirrored: AR(1) data that are the same both ways. In closed form by conditioning on x - x'."""
    difference = torch.eye(8, dtype=torch.float64)[:4] - torch.eye(8, dtype=torch.float64).flip(-1)[:4]
    mean, covariance = gaussian.conditional(COVARIANCE, difference, 0.0, torch.zeros(4, dtype=torch.float64))
    x = sampled(symmetry(MIRROR))
    assert torch.equal(x, x.flip(-1))
    error, least, most = gaussian.errors(x, mean, covariance)
    assert error < 0.02 and least > 0.93 and most < 1.03


def test_shared_noise_is_symmetric_with_the_variance_of_noise():
    steer = symmetry(MIRROR, shared_noise=True)
    drawn = steer.noise(SampleRng(0, range(2000)).normal(torch.zeros(2000, 8)))
    assert torch.equal(drawn, drawn.flip(-1)) and float(drawn.std()) == pytest.approx(1, abs=0.02)
    x0, eps = steer(PLAIN)(X, LEVEL)
    assert torch.equal(x0, x0.flip(-1)) and torch.equal(eps, eps.flip(-1))
    plain = symmetry(MIRROR)
    assert torch.equal(plain.noise(X), X)
    x0, eps = plain(PLAIN)(X, LEVEL)
    torch.testing.assert_close(eps, noise_of(X, x0, LEVEL))
    assert torch.equal(symmetry(MIRROR, interval=(0, 1e-9))(PLAIN)(X, LEVEL)[0], PLAIN(X, LEVEL)[0])


def test_what_is_no_group_is_refused():
    for group, said in (([lambda x: x, lambda x: x.roll(1, -1)], "not a group"), ([lambda x: x.flip(-1)], "not a group")):
        with pytest.raises(ConfigError, match=said):
            symmetry(group)(PLAIN)(X, LEVEL)
    with pytest.raises(ShapeError, match="samples onto samples"):
        symmetry([lambda x: x[:, :3]])(PLAIN)(X, LEVEL)
    for group in ([], None, [3]):
        with pytest.raises(ConfigError, match="members"):
            symmetry(group)
    with pytest.raises(ConfigError, match="shared_noise"):
        symmetry(MIRROR, shared_noise=1)
    for steers, weights in (([], None), ([3], None), ([energy(linear)], [1, 2]), ([energy(linear)], ["a"])):
        with pytest.raises(ConfigError, match=r"product|weight"):
            product(steers, weights)
    with pytest.raises(ConfigError, match="certain"):
        product([Hold(torch.ones(8), WHERE)])


def test_gradients_pass_the_bound_of_x0():
    """An element at the bound may still move inwards, and x0 stays within it."""
    bounded = clipped(PLAIN, 0.1)
    leaf, x0, _ = traced(bounded, X, LEVEL)
    assert float(x0.detach().abs().max()) == pytest.approx(0.1)
    (through,) = torch.autograd.grad(x0.sum(), leaf)
    leaf, x0, _ = traced(PLAIN, X, LEVEL)
    torch.testing.assert_close(through, torch.autograd.grad(x0.sum(), leaf)[0])
    strong = bound(energy(linear, 100.0), Setting(clip=0.1))(bounded)(X, LEVEL)[0]
    assert float(strong.abs().max()) <= 0.1 + 1e-12 and not torch.equal(strong, bounded(X, LEVEL)[0])


ODD = {
    "no function": lambda: energy(3.0),
    "a negative weight": lambda: energy(linear, -1),
    "a text": lambda: energy(linear, "much"),
    "a flag of another kind": lambda: energy(linear, through_net="yes"),
    "unknown units": lambda: energy(linear, units="pixels"),
    "an interval of one": lambda: energy(linear, interval=3),
}


@pytest.mark.parametrize("name", ODD)
def test_an_energy_that_is_invalid_is_refused_at_once(name):
    with pytest.raises(ConfigError):
        ODD[name]()


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda x0: 3.0, "gave a float"),
        (lambda x0: x0.detach().sum(1), "no gradient"),
        (lambda x0: x0.square(), "one number a sample"),
        (lambda x0: torch.zeros(len(x0), requires_grad=True), "does not depend on x0"),
        (lambda x0: x0.sum(1).to(torch.complex64), "of a float type"),
    ],
)
def test_a_loss_without_a_gradient_is_named(loss, said):
    with pytest.raises((ConfigError, ShapeError), match=said):
        energy(loss)(PLAIN)(X, LEVEL)


def test_a_steer_without_a_finite_slope_says_so_itself():
    """Not the weights: a root at 0 has none."""
    with pytest.raises(NumericsError, match=r"the steer energy of .* is not finite, at sigma / alpha"):
        energy(lambda x0: (x0 - x0.detach()).abs().sum(1).sqrt())(PLAIN)(X, LEVEL)
    with pytest.raises(NumericsError, match="the steer measured of"):
        measure(1.0, lambda x0: x0.log(), 0.1)(PLAIN)(-X.abs(), LEVEL)
    with pytest.raises(ConfigError, match=r"the operator .* does not depend on x0"):
        measure(1.0, lambda x0: torch.zeros(len(x0), 2, requires_grad=True), 0.1)(PLAIN)(X, LEVEL)

"""A smaller sample as a condition: how it is made, read, and seen by a net."""

import numpy as np
import pytest
import torch

from zoo.contract.conditions import Reading, parse_condition
from zoo.contract.dataset import Batch
from zoo.contract.small import SmallSample
from zoo.core import seeds
from zoo.errors import ConfigError, ShapeError
from zoo.image.codec import ImageSample
from zoo.image.domain import DOMAIN
from zoo.image.recipes import RECIPES
from zoo.model.model import Model
from zoo.nets.blocks import Conditioning
from zoo.nets.grid import GridTransformer, GridUNet
from zoo.testing import check_condition
from zoo.training.objective import Denoise

LOW = SmallSample(shape=(1, 2, 2), most=0.5, used=0.1)


def test_a_small_sample_keeps_the_contract():
    check_condition("low", LOW)
    assert parse_condition(LOW.json()) == LOW and LOW.derived


def test_training_makes_it_of_the_sample_with_noise_of_a_known_strength():
    x = torch.arange(16.0).view(1, 1, 4, 4).expand(2000, -1, -1, -1)
    made = LOW.derive(x, seeds.generator(0))
    share = made[:, 1]
    assert (share == share[:, :1, :1]).all() and share.min() >= 0 and 0.49 < share.max() < 0.5
    small = torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    share = share[:, :1, :1]
    noise = (made[:, 0] - (1 - share**2).sqrt() * small) / share
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    torch.testing.assert_close(LOW.derive(x[:2], seeds.generator(3)), LOW.derive(x[:2], seeds.generator(3)))


def test_sampling_adds_the_noise_of_each_sample():
    reading = Reading("low", rng=seeds.generator)
    pictures = [ImageSample(np.full((2, 2), 255 * k, np.uint8)) for k in range(2)]
    given = LOW.read(pictures, 2, reading).values
    assert given.shape == (2, 2, 2, 2) and (given[:, 1] == 0.1).all()
    for i in range(2):
        noise = torch.randn(1, 2, 2, generator=seeds.generator(i))
        torch.testing.assert_close(given[i, :1], (1 - 0.01) ** 0.5 * (2 * i - 1) + 0.1 * noise)
    torch.testing.assert_close(LOW.read(pictures[1], 2, reading).values[1], given[1])
    array = np.stack([p.numpy() for p in pictures])
    for form in (array, torch.from_numpy(array), list(array), tuple(pictures)):
        torch.testing.assert_close(LOW.read(form, 2, reading).values, given)
    larger = np.repeat(np.repeat(array, 2, 2), 2, 3)
    torch.testing.assert_close(LOW.read(larger, 2, reading).values, given)


@pytest.mark.parametrize(
    "value",
    [5, "cat", np.zeros((2, 2)), np.zeros((3, 1, 2, 2)), np.zeros((2, 3, 2, 2)), np.zeros((2, 1, 3, 2)),
     np.full((1, 2, 2), np.nan), object(), [np.zeros((1, 2, 2)), np.zeros((1, 4, 4))]],
)  # fmt: skip
def test_what_is_no_small_sample_is_refused(value):
    with pytest.raises((ConfigError, ShapeError)):
        LOW.read(value, 2, Reading("low"))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GridUNet, {"channels": 8, "multipliers": [1], "attention": [False], "blocks": 1, "emb_dim": 16}),
        (GridTransformer, {"patch": 2, "dim": 16, "depth": 1, "heads": 2, "emb_dim": 16}),
    ],
)
def test_a_net_sees_it_beside_its_input(kind, options):
    torch.manual_seed(0)
    net = kind((1, 4, 4), {"low": LOW}, **options)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x, t = torch.randn(2, 1, 4, 4), torch.zeros(2)
    low = LOW.example(2, seeds.generator(0))
    out = net(x, t, {"low": low})
    other = low.clone()
    other[:, 0, 0, 0] += 1  # one place alone, which no vector tells
    assert out.shape == x.shape and not torch.allclose(net(x, t, {"low": other}), out, atol=1e-4)
    mixed = net(x, t, {"low": torch.cat([low[:1], LOW.null(1)])})
    torch.testing.assert_close(mixed[0], out[0])
    torch.testing.assert_close(mixed[1], net(x, t, {})[1])


def test_the_strength_of_the_noise_is_told():
    torch.manual_seed(0)
    embed = LOW.embedding(16)
    low = LOW.example(2, seeds.generator(0))
    low[:, 1] = torch.tensor([0.1, 0.4])[:, None, None]
    a, b = embed(low, 2)
    assert not torch.allclose(a, b, atol=1e-3)
    low[:, 0] = 0.0
    torch.testing.assert_close(embed(low, 2)[0], a)


def test_planes_are_enlarged_and_nothing_is_zero():
    embed = Conditioning({"low": LOW}, 16, 1.0)
    low = LOW.example(1, seeds.generator(0))
    seen = embed.beside(torch.zeros(1, 1, 4, 4), {"low": low})
    assert embed.channels == 1 and seen.shape == (1, 2, 4, 4)
    assert torch.equal(seen[0, 1], low[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert not embed.beside(torch.zeros(1, 1, 4, 4), {"low": LOW.null(1)}).any()


def test_data_need_not_have_what_training_makes():
    recipe = RECIPES["emoji-up"]
    small = recipe.override({"codec.size": 8, "net.channels": 8, "net.multipliers": [1, 1], "net.attention": [False, False],
                             "net.patch": 1, "net.cross": [False, False]})  # fmt: skip
    small = small.model_copy(update={"conditions": small.conditions | {"low": SmallSample(shape=(3, 4, 4))}})
    data = DOMAIN.example_data(RECIPES["emoji-pixels"].override({"codec.size": 8, "net.patch": 1}), 4)
    adapted = DOMAIN.adapt(small, data)
    assert list(adapted.conditions) == ["text", "style", "low"] and adapted.conditions == small.conditions
    model = Model(adapted, DOMAIN)
    batch = model.batch([data[i] for i in range(4)])
    assert "low" not in batch.cond

    class Spy(Denoise):
        def _without_single_ones(self, model, cond, n, rng):
            self.seen = cond
            return super()._without_single_ones(model, cond, n, rng)

    objective = Spy()
    assert torch.isfinite(objective.loss(model, batch, seeds.generator(0)))
    assert objective.seen["low"].shape == (4, 4, 4, 4)
    given = Batch(batch.x0, batch.cond | {"low": torch.zeros(4, 4, 4, 4)})
    objective.loss(model, given, seeds.generator(0))
    assert not objective.seen["low"].any(), "data that have it are believed"

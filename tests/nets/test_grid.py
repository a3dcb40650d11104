"""Whole denoisers of samples on a grid: sizes, options, and learning."""

import pytest
import torch

from zoo.contract.conditions import Label
from zoo.core import seeds
from zoo.errors import ShapeError
from zoo.nets.grid import GridTransformer, GridUNet

KINDS = {"unet": GridUNet, "transformer": GridTransformer}

SMALL = {
    "unet": {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [False, True], "patch": 2, "emb_dim": 32},
    "transformer": {"patch": 4, "dim": 32, "depth": 2, "heads": 2, "emb_dim": 32},
}


def build(kind, shape=(1, 28, 28), conditions=None, **options):
    torch.manual_seed(0)
    return KINDS[kind](shape, conditions, **(SMALL[kind] | options))


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 16, 24)])
def test_shapes(kind, shape):
    net = build(kind, shape)
    x = torch.randn(2, *shape)
    out = net(x, torch.tensor([0.0, 500.0]), {})
    assert out.shape == x.shape and not out.any(), "a fresh net is the zero function"


@pytest.mark.parametrize(("kind", "shape"), [("unet", (1, 27, 28)), ("unet", (1, 30, 28)), ("transformer", (1, 30, 28))])
def test_sizes_that_do_not_divide(kind, shape):
    with pytest.raises(ShapeError, match="divide"):
        build(kind, shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_it_learns_where_things_are_and_what_the_label_says(kind):
    """A few steps towards a target that needs the position and the label; position-blind nets cannot do it."""
    small = {"patch": 2, "channels": 8} if kind == "unet" else {"patch": 4}
    net = build(kind, (1, 8, 8), {"label": Label(values=("top", "right"))}, **small)
    target = torch.zeros(2, 1, 8, 8)
    target[0, :, :4], target[1, :, :, 4:] = 1.0, -1.0
    label = torch.tensor([0, 1]).repeat(8)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    g = seeds.generator(0)
    for _ in range(80):
        out = net(torch.randn(16, 1, 8, 8, generator=g), 999 * torch.rand(16, generator=g), {"label": label})
        loss = (out - target[label]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.08, "the mean over both labels and all positions would leave 0.44"


@pytest.mark.parametrize("kind", SMALL)
def test_time_scale(kind):
    """EDM's time is ln(sigma) / 4: `time_scale` spreads it to where the embedding resolves it."""
    for scale, resolves in ((1.0, False), (1000.0, True)):
        net = build(kind, time_scale=scale)
        with torch.no_grad():
            a, b = net.embed(torch.tensor([0.1, 0.12]), {})
        assert ((a - b).norm() > 0.05 * a.norm()) == resolves

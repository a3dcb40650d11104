"""What stays the same in a sampling run is computed once, and changes no sample."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import zoo
from zoo.model import model as models
from zoo.nets.once import KEPT, Once, once
from zoo.testing import awake

TINY = {"net.channels": 16, "net.multipliers": [1, 2], "net.emb_dim": 32, "net.heads": 2}


class Never(nullcontext):
    """In place of `Once`: nothing is kept."""


@pytest.fixture(scope="module")
def model():
    return awake(zoo.create("image/emoji-32", **TINY))


def pushing(predict):
    """A steer that takes a gradient through the net."""

    def pushed(x, level):
        with torch.enable_grad():
            free = x.detach().requires_grad_()
            x0, eps = predict(free, level)
            (grad,) = torch.autograd.grad(x0.square().sum(), free)
        return x0.detach() - 0.01 * grad, eps.detach()

    return pushed


@pytest.mark.parametrize(
    "options",
    [{}, {"guidance_interval": (0.5, 5.0)}, {"steer": pushing}, {"precision": "bf16"}],
    ids=["plain", "interval", "steered", "bf16"],
)
def test_samples_are_the_same_to_the_bit(model, monkeypatch, options):
    asked = {"text": ["a red apple", None], "style": None, "steps": 3, "seed": 0, "progress": False} | options
    got = model.sample(2, **asked).tensor
    monkeypatch.setattr(models, "Once", Never)
    assert torch.equal(model.sample(2, **asked).tensor, got)


@pytest.mark.parametrize(("options", "times"), [({}, 1), ({"guidance_interval": (0.5, 5.0)}, 2), ({"guidance_weight": 0}, 1)])
def test_conditions_are_embedded_once_in_a_run(model, monkeypatch, options, times):
    """And once more where guidance is off at some steps, whose batch is half as large."""
    seen, embed = [], model.denoiser.embed.labels["text"]
    told = embed.told
    monkeypatch.setattr(embed, "told", lambda values, batch: (seen.append(batch), told(values, batch))[1], raising=False)
    keys, crosses = [], [m for m in model.denoiser.modules() if hasattr(m, "keys") and hasattr(m, "kv")]
    crosses[0].kv.register_forward_hook(lambda *_: keys.append(0))
    model.sample(2, text="a red apple", steps=6, seed=0, progress=False, **options)
    assert len(seen) == len(keys) == times
    model.sample(2, text="a red apple", steps=2, seed=0, progress=False)
    assert len(seen) > times  # another run computes again


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        def make():
            self.calls += 1
            return 2 * x

        return once(self, make, x)


def test_what_is_told_apart():
    part, x = Twice().eval(), torch.ones(2)
    with torch.no_grad(), Once():
        assert part(x) is part(x)
        x += 1
        assert torch.equal(part(x), torch.full((2,), 4.0))  # the same object, written to
        part(x.clone())
        with torch.autocast("cpu", torch.bfloat16):
            part(x)
        assert part.calls == 4
        part(x)
        assert part.calls == 4


def test_nothing_is_kept_where_gradients_or_training_are_on():
    part, x = Twice().eval(), torch.ones(2, requires_grad=True)
    with Once():
        assert part(x).requires_grad
        part(x)
        with torch.no_grad():
            part.train()
            part(x)
            part(x)
    with torch.no_grad():
        part.eval()
        part(x)
        part(x)
    assert part.calls == 6


def test_few_things_are_kept():
    part, run = Twice().eval(), Once()
    with torch.no_grad(), run:
        for _ in range(3 * KEPT):
            part(torch.ones(1))
    assert len(run.made[id(part)]) == KEPT


def test_a_run_that_pauses_leaves_nothing_to_its_caller(model):
    part, x = Twice().eval(), torch.ones(2)
    steps = model.sample_iter(1, text="a red apple", steps=3, seed=0)
    with torch.no_grad():
        for _ in steps:
            part(x)
    assert part.calls == 3

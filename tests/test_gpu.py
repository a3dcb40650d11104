"""What a GPU gives is what a CPU gives. These tests need one: `pytest -m gpu tests/test_gpu.py`."""

from __future__ import annotations

import time

import pytest
import torch
from gpu import given

import zoo
from zoo.contract.registry import CHECKPOINTS, list_models
from zoo.core import seeds
from zoo.core.device import exact, send

pytestmark = pytest.mark.gpu


@pytest.fixture(params=[name for name in list_models() if (CHECKPOINTS / name / "model.safetensors").exists()])
def name(request) -> str:
    return request.param


def last(model: zoo.Model, n: int = 2) -> torch.Tensor:
    """The encoded samples (n,*S) of seed 0 at the default setting, on the CPU."""
    *_, step = model.sample_iter(n, seed=0, **given(model, n))
    return step.x.cpu()


def test_samples_of_both_are_the_same(name):
    here = last(zoo.load(name, device="cpu"))
    there = last(zoo.load(name, device="cuda"))
    difference = float((here - there).abs().max() / (here.max() - here.min()))
    print(f"{name}: {difference:.1e} of range")
    if name == "protein/backbone-ddpm" and difference >= 1e-3:
        # measured on a CPU: weights changed by 1e-7 give x0 that differs by 1e-5 after 5 steps, 1e-3 after 10, .26 in the end
        pytest.xfail("the sampler of chains is chaotic: it multiplies a difference in the last digit by a million")
    assert difference < 1e-3


def test_four_samples_take_less_than_a_second(name):
    model = zoo.load(name, device="cuda")
    for _ in range(2):
        begin = time.perf_counter()
        model.sample(4, seed=0, progress=False, **given(model, 4))
        seconds = time.perf_counter() - begin
    print(f"{name}: {seconds:.2f} s")
    assert seconds < 1


def test_convolutions_are_as_exact_as_on_a_cpu():
    conv = torch.nn.Conv2d(64, 64, 3)
    x = torch.randn(8, 64, 32, 32, generator=seeds.generator(0))
    with torch.no_grad(), exact():
        here, there = conv(x), conv.cuda()(send(x, "cuda"))
    assert float((here - there.cpu()).abs().max()) < 1e-5

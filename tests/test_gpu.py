"""What a GPU gives is what a CPU gives. These tests need one: `pytest -m gpu tests/test_gpu.py`."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from gpu import given

import zoo
from zoo import testing
from zoo.contract.dataset import Items
from zoo.contract.registry import CHECKPOINTS, get_recipe, list_models
from zoo.core import seeds
from zoo.core.device import exact, send
from zoo.image.latent_recipes import FLOWERS

pytestmark = pytest.mark.gpu


SAMPLING = [name for name in list_models() if get_recipe(name).role == "model"]


@pytest.fixture(params=[name for name in SAMPLING if (CHECKPOINTS / name / "model.safetensors").exists()])
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


def test_a_first_stage_and_latents_are_the_same_on_both(tmp_path):
    small = {"codec.size": 32, "net.channels": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stage = testing.awake(zoo.create("image/flowers-kl", **small)).save_pretrained(tmp_path / "ae")
        latent = {"codec.size": 32, "codec.stage": str(stage), "net.channels": 16, "net.multipliers": [1, 1]}
        folder = testing.awake(zoo.create("image/flowers-latent", **latent)).save_pretrained(tmp_path / "latent")
    here, there = (zoo.load(folder, device=device) for device in ("cpu", "cuda"))
    there.verify()
    item = here.domain.example_data(here.recipe, 1)[0][0]
    assert float((here.encode([item]) - there.encode([item]).cpu()).abs().max()) < 1e-3
    a, b = (m.sample(2, seed=0, steps=4, progress=False).tensor for m in (here, there))
    assert float((a - b).abs().max()) <= 2 / 127.5  # a level of a byte


def test_an_autoencoder_and_a_latent_model_are_trained(tmp_path):
    data = Items([(i, {"label": k % 5}) for k, i in enumerate(pictures())], labels={"label": list(FLOWERS)})
    small = {"codec.size": 16, "net.channels": 16, "training.batch_size": 8}
    quiet = {"steps": 3, "preview_every": 0, "log_every": 1}
    zoo.train("image/flowers-kl", data=data, out=tmp_path / "ae", overrides=small, **quiet)
    net = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "training.batch_size": 8}
    model = zoo.train(
        "image/flowers-latent", data=data, out=tmp_path / "m", overrides=net | {"codec.stage": str(tmp_path / "ae")}, **quiet
    )
    assert model.device.type == "cuda" and model.codec.mean.device.type == "cuda"
    assert zoo.load(tmp_path / "m", device="cpu").verify() < 1e-3


def pictures() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8))


def test_a_net_that_is_replayed_as_graphs_learns_the_same(tmp_path):
    """20 steps on the same seeds: as near to the plain run as the compiled one is."""
    data = Items([(np.full((28, 28), 10 * k, np.uint8), {"label": k}) for k in range(10)])
    options = {"data": data, "steps": 20, "log_every": 0, "save_every": 0, "workers": 0}
    small = {"net.channels": 16, "training.batch_size": 8, "training.warmup": 1}
    ends = {}
    for way in (False, "default", "reduce-overhead"):
        model = zoo.train("image/fashion-ddpm", out=tmp_path / str(way), compile=way, overrides=small, **options)
        ends[way] = torch.cat([p.detach().flatten().cpu() for p in model.denoiser.parameters()])
    apart = {way: float((end - ends[False]).norm() / ends[False].norm()) for way, end in ends.items()}
    print(apart)
    assert apart["reduce-overhead"] < max(2 * apart["default"], 1e-3)

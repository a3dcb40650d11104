"""The examples run, and are as short as they are said to be."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
import zoo.testing
from zoo.contract import registry

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    """An example as a module."""
    spec = spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_net_of_ones_own_takes_less_than_60_lines(tmp_path):
    assert len((EXAMPLES / "own_net.py").read_text(encoding="utf-8").splitlines()) < 60
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (30, 28), dtype=np.uint8)).save(tmp_path / "pictures" / label / f"{i}.png")
    example("own_net").main(tmp_path / "pictures", tmp_path, steps=2)
    assert len(list((tmp_path / "samples").glob("*-cat.png"))) == 4
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.fixture
def toy():
    module = example("own_domain")
    zoo.register(module.DOMAIN)
    yield module
    registry.unregister("toy")


def test_a_domain_of_ones_own_takes_one_file(toy, tmp_path):
    assert "toy/moons" in zoo.list_models()
    figures = toy.main(tmp_path, steps=60)["distance"]
    assert figures["ceiling"] < figures["value"] < figures["floor"]
    assert (tmp_path / "moons.png").exists()


def test_it_keeps_the_contract(toy):
    assert zoo.testing.check_domain(toy.DOMAIN)

"""Small models of each kind, and a page of them."""

import os
import tempfile

import pytest
import torch

import zoo

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


def moved(model):
    """A model whose weights are not all zero at the end."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.denoiser.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of a small picture model."""
    torch.manual_seed(0)
    return str(moved(zoo.create("image/fashion-ddpm", **SMALL)).save_pretrained(tmp_path_factory.mktemp("demo") / "m"))


@pytest.fixture(scope="session")
def clouds(tmp_path_factory):
    """A folder of an untrained model of clouds: samples with sizes of their own."""
    small = {"net.dim": 32, "net.depth": 1, "net.heads": 2, "codec.points": 256, "codec.train_points": 256}
    return str(zoo.create("point3d/shapes-ddpm", **small).save_pretrained(tmp_path_factory.mktemp("demo") / "c"))


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """A folder of a small model of sounds."""
    return str(moved(zoo.create("audio/spec-ddpm", **SMALL)).save_pretrained(tmp_path_factory.mktemp("demo") / "s"))


@pytest.fixture(scope="session")
def chains(tmp_path_factory):
    """A folder of an untrained model of backbones."""
    small = {"net.dim": 16, "net.depth": 1, "net.heads": 2, "net.pair": 8}
    return str(zoo.create("protein/backbone-ddpm", **small).save_pretrained(tmp_path_factory.mktemp("demo") / "p"))


@pytest.fixture
def own_folder(monkeypatch):
    """A folder of the page's own files."""
    with tempfile.TemporaryDirectory(prefix="zoo-demo-") as folder:
        monkeypatch.setenv("GRADIO_TEMP_DIR", folder)
        monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield folder
    os.environ.pop("GRADIO_TEMP_DIR", None)

"""The real client against a Hub of ours on this machine, with a cache of its own for each test."""

import time

import huggingface_hub.constants
import huggingface_hub.utils
import pytest
import torch
from hubserver import Server

import zoo
from zoo.model.prepare import prepared

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16, "sampling.steps": 2}


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """The server, empty; the client talks to it, with an empty cache, no token, and without waiting between tries."""
    constants = huggingface_hub.constants
    server.reset()
    huggingface_hub.utils.disable_progress_bars()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    server.slept = []
    monkeypatch.setattr(time, "sleep", server.slept.append)
    yield server
    server.stop_stalling.set()


@pytest.fixture(scope="session")
def model():
    """A small model with weights that are not all zero at the end."""
    torch.manual_seed(0)
    model = zoo.create("image/fashion-ddpm", **SMALL)
    with torch.no_grad():
        for p in model.denoiser.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


@pytest.fixture(scope="session")
def folder(model, tmp_path_factory):
    return model.save_pretrained(tmp_path_factory.mktemp("hub") / "m")


@pytest.fixture(scope="session")
def ready(folder):
    """What is pushed of the model: (files, recipe, card)."""
    model = zoo.load(folder)
    with prepared(model, "me/new", samples=False) as (files, card):
        yield files, model.recipe, card


@pytest.fixture
def files(folder):
    """The model's files as {name: bytes}."""
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def repo(hub, files):
    """me/m on the server, with files that zoo must never touch."""
    bad = dict.fromkeys(("pytorch_model.bin", "model.pt", "x.pkl", "modeling.py", "a.JSON.exe"), b"import os")
    return hub.add("me/m", files | bad)

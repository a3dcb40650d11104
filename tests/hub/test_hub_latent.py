"""First stages and latent models on the Hub: a pushed model is whole, and a first stage comes from there only when asked to."""

import shutil

import pytest
import torch
from hubserver import OWNER

import zoo
from zoo.errors import ConfigError, HubError
from zoo.testing import awake

STAGE = {"codec.size": 16, "net.channels": 16, "net.blocks": [1, 1]}
NET = {"codec.size": 16, "net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.blocks": 1}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return awake(zoo.create("image/flowers-kl", **STAGE)).save_pretrained(tmp_path_factory.mktemp("stage") / "ae")


def test_a_latent_model_is_pushed_and_pulled_whole(hub, stage, tmp_path):
    here = shutil.copytree(stage, tmp_path / "ae")
    model = awake(zoo.create("image/flowers-latent", **NET | {"codec.stage": str(here)}))
    folder = model.save_pretrained(tmp_path / "m", half=True)
    mine = zoo.load(folder)
    mine.push_to_hub("me/latent", token=OWNER, samples=False)
    shutil.rmtree(here)
    got = zoo.load("hub:me/latent")
    assert got.verify() == 0 and got.recipe == mine.recipe
    ask = {"n": 2, "steps": 2, "seed": 0, "progress": False}
    assert torch.equal(got.sample(**ask).tensor, mine.sample(**ask).tensor)
    assert "hub:me/latent" in hub.repos["model", "me/latent"].files["README.md"].decode()


def test_a_first_stage_is_taken_from_the_hub_where_its_name_says_so(hub, stage, tmp_path):
    zoo.load(stage).push_to_hub("me/ae", token=OWNER)
    assert "samples.png" not in hub.repos["model", "me/ae"].files
    assert 'zoo.load("hub:me/ae")' in hub.repos["model", "me/ae"].files["README.md"].decode()
    model = zoo.create("image/flowers-latent", **NET | {"codec.stage": "hub:me/ae"})
    assert model.recipe.stage.name == "hub:me/ae"
    folder = model.save_pretrained(tmp_path / "m")
    hub.log.clear()
    assert zoo.load(folder).recipe.stage.sha256 == model.recipe.stage.sha256
    with pytest.raises(ConfigError, match="no packaged weights"):
        zoo.create("image/flowers-latent", **NET)
    assert not hub.log, "a folder and a name ask nobody"
    with pytest.raises(HubError):
        zoo.create("image/flowers-latent", **NET | {"codec.stage": "hub:me/none"})

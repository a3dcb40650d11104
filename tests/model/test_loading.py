"""Folders of other people's formats, which another package teaches `zoo.load` to read."""

import json

import pytest
import torch

import zoo
from zoo.contract.formats import FORMATS
from zoo.errors import CheckpointError, ResourceError

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


class Foreign:
    """A format whose folders hold other.json."""

    def __init__(self):
        self.loaded = []

    def recognises(self, folder):
        return (folder / "other.json").exists()

    def load(self, folder):
        self.loaded.append(folder)
        return zoo.create("image/fashion-ddpm", **SMALL)


@pytest.fixture
def foreign():
    yield FORMATS.register("other", Foreign())
    FORMATS.remove("other")


def test_a_foreign_folder_is_read_by_its_format(foreign, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "SomebodysNet"}))  # others call theirs config.json too
    model = zoo.load(tmp_path, dtype=torch.float64)
    assert foreign.loaded == [tmp_path] and model.dtype == torch.float64


def test_a_folder_of_zoo_is_never_given_away(foreign, tmp_path):
    zoo.create("image/fashion-ddpm", **SMALL).save_pretrained(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    assert zoo.load(tmp_path).verify() == 0.0 and foreign.loaded == []


def test_a_folder_that_nobody_knows_is_refused(foreign, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a zoo config"):
        zoo.load(tmp_path)
    with pytest.raises(CheckpointError, match="no model folder"):
        zoo.load(tmp_path / "nowhere")


def test_a_net_that_does_not_fit_into_memory_is_one_error():
    with pytest.raises(ResourceError, match=r"no memory for the net of image/fashion-ddpm\. Make it smaller"):
        zoo.create("image/fashion-ddpm", **{"net.emb_dim": 10**9})

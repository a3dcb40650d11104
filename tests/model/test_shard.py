"""Several processes share one call of `sample`: together they make what one makes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

import zoo
from zoo.cli import main
from zoo.errors import ConfigError
from zoo.evaluation.evaluate import Sharing, evaluate
from zoo.testing import awake

TINY = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}
ASKED = {"label": [3, None, "bag", 5, 0, "coat", 9], "seed": 4, "steps": 2, "guidance_weight": 0, "progress": False}


@pytest.fixture(scope="module")
def model():
    return awake(zoo.create("image/fashion-ddpm", **TINY))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return str(model.save_pretrained(tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize(("of", "batch_size"), [(1, 2), (2, 2), (3, 2), (4, 2), (7, 1), (2, None)])
def test_shards_are_one_call(model, tmp_path, of, batch_size):
    """To the bit, in the samples, in what was asked, and in the names of the files."""
    alone = model.sample(7, batch_size=batch_size or 3, **ASKED)
    alone.save(tmp_path / "alone")
    rows = []
    for r in range(of):
        part = model.sample(7, batch_size=batch_size, shard=f"{r}/{of}" if r % 2 else (r, of), **ASKED)
        assert len(part) == len(part.rows) == len(part.tensor)
        for i, row in enumerate(part.rows):
            assert torch.equal(part.tensor[i], alone.tensor[row])
            assert part.name(i) == alone.name(row)
        part.save(tmp_path / "shared")
        rows += part.rows
    assert sorted(rows) == list(range(7))
    read = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("alone", "shared")]
    assert read[0] == read[1]


def test_ragged_samples_of_shards():
    points = zoo.create("point3d/shapes-ddpm", **{"net.dim": 16, "net.width": 16, "net.inner": 16, "net.rounds": 1})
    asked = {"n_points": [80, 70, 90, 64], "seed": 0, "steps": 2, "batch_size": 1, "progress": False}
    alone = points.sample(4, **asked)
    for r in (0, 1):
        part = points.sample(4, shard=(r, 2), **asked)
        assert [np.array_equal(s.numpy(), alone[row].numpy()) for s, row in zip(part, part.rows, strict=True)] == [True] * 2


def test_settings_say_the_shard(model):
    part = model.sample(7, shard=(1, 2), batch_size=2, **ASKED)
    assert part.plan.settings()["shard"] == (1, 2)
    again = model.sample(7, seed=4, label=ASKED["label"], batch_size=2, progress=False, **part.plan.settings())
    assert torch.equal(again.tensor, part.tensor)
    assert "shard" not in model.plan(2, seed=0).settings()


@pytest.mark.parametrize("shard", ["4/4", "-1/4", "0/0", "1", "1/2/3", "a/b", "", (0, 0), (0.5, 2), 3, (1,), "1.0/2", True])
def test_what_is_no_shard(model, shard):
    with pytest.raises(ConfigError, match="shard"):
        model.sample(7, shard=shard, **ASKED)


def test_what_shards_cannot_do(model):
    with pytest.raises(ConfigError, match="Give seed="):
        model.sample(7, shard=(0, 2))
    for r in range(4):  # told to all, before any has written its part
        with pytest.raises(ConfigError, match="leave nothing for some of the processes"):
            model.sample(7, shard=(r, 4), batch_size=4, **ASKED)
        with pytest.raises(ConfigError, match="leave nothing"):
            model.sample(3, shard=(r, 4), seed=0)
    with pytest.raises(ConfigError, match="shard"):
        next(model.sample_iter(7, shard=(0, 2), **ASKED))
    with pytest.raises(ConfigError, match="shard"):
        model.interpolate({"label": 1}, {"label": 2}, shard=(0, 2), seed=0)
    with pytest.raises(ConfigError, match="shared=True"):
        evaluate(model, 8, shard=(0, 2))


def test_an_evaluation_is_shared(model, monkeypatch):
    """Each process makes its share, and all of them have all samples in order."""
    parts = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 3)

    def gather(out, mine):
        parts.append(mine)
        out[: len(parts)] = parts

    monkeypatch.setattr(dist, "all_gather_object", gather)
    for r in range(3):
        monkeypatch.setattr(dist, "get_rank", lambda group=None, r=r: r)
        if r < 2:  # what the others made is not there yet
            with pytest.raises(TypeError):
                Sharing(model).sample(7, **ASKED)
    samples = Sharing(model).sample(7, **ASKED)
    alone = model.sample(7, batch_size=2, **ASKED)
    assert [rows for rows, _ in parts] == [[0, 1, 6], [2, 3], [4, 5]]
    assert torch.equal(samples.tensor, alone.tensor) and samples.conditions == alone.conditions
    assert "shard" not in samples.plan.settings()


def test_what_an_evaluation_cannot_share(model, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 4)
    for r in range(4):  # in every process, so that none waits for the others
        monkeypatch.setattr(dist, "get_rank", lambda group=None, r=r: r)
        for n, size in ((3, None), (7, 3)):
            with pytest.raises(ConfigError, match="take fewer processes"):
                Sharing(model).sample(n, batch_size=size, seed=0)
    policy = zoo.create("policy/pusht-keypoints", **{"net.channels": 8})
    with pytest.raises(ConfigError, match="runs in one process"):
        evaluate(policy, 2, shared=True)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(model, folder, tmp_path):
    pictures = tmp_path / "pictures"
    for k, label in enumerate(model.recipe.classes("label")):
        for i in range(4):
            place = pictures / ("train", "test")[i % 2] / label
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((28, 28), 5 * k + i, np.uint8)).save(place / f"{i}.png")
    asked = ["eval", folder, "-n", "12", "--steps", "2", "--data", str(pictures), "--option", "batch_size=4", "--json"]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "zoo"]
    subprocess.run([*run, *asked, str(tmp_path / "two.json")], check=True, timeout=300)
    assert main([*asked, str(tmp_path / "one.json")]) == 0
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["metrics"] == two["metrics"]
    assert two["protocol"]["processes"] == 2


def files(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_the_command_line_shares_a_call(folder, tmp_path, capsys, monkeypatch):
    """By --shard, and by what torchrun tells each process."""
    command = ["sample", folder, "-n", "5", "--seed", "1", "--steps", "2", "--batch-size", "2", "-o"]
    assert main([*command, str(tmp_path / "alone")]) == 0
    for r in range(2):
        assert main([*command, str(tmp_path / "said"), "--shard", f"{r}/2"]) == 0
    assert "2 of 5 samples" in capsys.readouterr().out
    monkeypatch.setenv("WORLD_SIZE", "3")
    for r in range(3):
        monkeypatch.setenv("RANK", str(r))
        assert main([*command, str(tmp_path / "torchrun")]) == 0
    alone = files(tmp_path / "alone")
    del alone["samples.png"]  # the picture of all
    assert files(tmp_path / "said") == files(tmp_path / "torchrun") == alone
    capsys.readouterr()
    assert main(["sample", folder, "-n", "5", "-o", str(tmp_path / "drawn")]) != 0
    assert "one seed" in capsys.readouterr().err


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    from zoo.cli import own_device

    assert [own_device(d) for d in (None, "cpu", "cuda", "cuda:1")] == [None, "cpu", "cuda", "cuda:1"]
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [own_device(d) for d in (None, "cpu", "cuda", "cuda:1")] == [None, "cpu", "cuda:3", "cuda:1"]

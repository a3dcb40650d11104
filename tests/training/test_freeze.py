"""Layers that are not trained: which ones a pattern names, and that they stay as they are."""

import numpy as np
import pytest
import torch

import zoo
from zoo import files
from zoo.contract.registry import get_recipe
from zoo.errors import CheckpointError, ConfigError
from zoo.image.data import ArrayImages
from zoo.training import trainer as training
from zoo.training.command import add_arguments, overrides
from zoo.training.freeze import frozen, matching

NAMES = ["embed.time.net.0.weight", "net.down.0.conv.weight", "net.down.0.conv.bias", "net.down.1.conv.weight", "net.exit.bias"]
TINY = {
    "net.channels": 16, "net.multipliers": [1], "net.attention": [True], "net.emb_dim": 32, "training.batch_size": 4,
    "training.warmup": 0, "training.precision": "fp32", "training.weight_decay": 0.1,
}  # fmt: skip


def train(out, steps: int = 3, patterns: tuple[str, ...] = ("net.down", "embed.*"), **options):
    labels = get_recipe("image/fashion-ddpm").conditions["label"].values
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    changes = TINY | {"training.freeze": list(patterns)} | options.pop("overrides", {})
    data = ArrayImages(pixels, np.arange(12) % 10, labels)
    given = {"data": data, "preview_every": 0, "save_every": 2, "cpu": True, "overrides": changes} | options
    return zoo.train("image/fashion-ddpm", out=out, steps=steps, **given)


def state(out) -> dict[str, torch.Tensor]:
    return files.load_tensors(out / training.CHECKPOINT)


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["net.down"], NAMES[1:4]),
        (["net.down.*"], NAMES[1:4]),
        (["*.bias", "embed"], [NAMES[0], NAMES[2], NAMES[4]]),
        (["net.down.[0-9].conv.weight"], [NAMES[1], NAMES[3]]),
        (["net.exit.bias"], NAMES[4:]),
        ([], []),
    ],
)
def test_a_pattern_names_parameters_and_modules(patterns, found):
    assert matching(NAMES, patterns) == found


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ["net.dwon.*"],
            r"no parameter fits 'net.dwon.\*'. Did you mean 'net.down'.*The net's parts: embed.time, net.down, net.exit",
        ),
        (["net.down", "nothing at all"], "no parameter fits 'nothing at all'"),
        (["net.Down"], "Did you mean 'net.down'"),
        (["*"], "fits all 5 parameters: nothing is left to train"),
        (["embed", "net"], "nothing is left"),
    ],
)
def test_a_pattern_that_fits_nothing_or_all_is_an_error(patterns, message):
    with pytest.raises(ConfigError, match=message):
        matching(NAMES, patterns)


def test_a_net_is_as_before_after_the_block():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    net[1].bias.requires_grad_(False)  # by its owner
    with frozen(net, ["0"]) as count:
        assert count == 9 and [p.requires_grad for p in net.parameters()] == [False, False, True, False]
    assert [p.requires_grad for p in net.parameters()] == [True, True, True, False]
    with pytest.raises(KeyError), frozen(net, ["1"]):
        raise KeyError
    assert net[1].weight.requires_grad and not net[1].bias.requires_grad


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_frozen_parameters_stay_and_cost_no_state(tmp_path, capsys, optimizer):
    made = train(tmp_path / "run", 2, overrides={"training.optimizer": optimizer})
    torch.manual_seed(zoo.core.seeds.derive_seed(0, training.WEIGHTS))
    before = files.state_of(zoo.create("image/fashion-ddpm", **TINY).denoiser)
    found, count, moved = state(tmp_path / "run"), 0, 0
    for name, value in before.items():
        held = name.startswith(("net.down.", "embed."))
        assert any(k.startswith(f"optimizer.{name}.") for k in found) != held, name
        if held:
            assert torch.equal(found[f"net.{name}"], value) and torch.equal(found[f"ema.{name}"], value), name
            count += value.numel()
        moved += not held and not torch.equal(found[f"net.{name}"], value)
    assert moved > 10
    assert (
        f"frozen: {count:,} of {sum(v.numel() for v in before.values()):,} parameters (net.down, embed.*)."
        in capsys.readouterr().out
    )
    assert all(p.requires_grad for p in made.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_with_frozen_layers_goes_on_exactly(tmp_path, optimizer):
    change = {"overrides": {"training.optimizer": optimizer}}
    train(tmp_path / "whole", **change)
    train(tmp_path / "parts", max_minutes=0.0, **change)
    with pytest.raises(CheckpointError, match="training was"):
        train(tmp_path / "parts", resume=True, patterns=("net.down",), **change)
    train(tmp_path / "parts", resume=True, **change)
    one, two = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_a_pattern_that_fits_nothing_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"no parameter fits 'net\.dwon'"):
        train(tmp_path / "run", patterns=("net.dwon",))
    assert not (tmp_path / "run").exists()


def test_the_command_freezes_by_its_own_option_and_by_set():
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = ["--data", "x", "--out", "y"]
    assert overrides(parser.parse_args([*given, "--freeze", "a.*", "--freeze", "b"])) == {"training.freeze": ["a.*", "b"]}
    assert overrides(parser.parse_args([*given, "--set", "training.lr=1", "--set", "sampling.clip=none"])) == {
        "training.lr": "1",
        "sampling.clip": None,
    }

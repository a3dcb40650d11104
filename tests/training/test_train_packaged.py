"""benchmarks/train_packaged.py: minutes of training of each domain's recipe, from data to a model folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import train_packaged
from same_numbers import asked

import zoo
from zoo.contract.registry import domain_names, get_domain, get_recipe

UNET = {"channels": 8, "multipliers": [1], "attention": [False], "emb_dim": 16, "blocks": 1}
#: domain -> (recipe, options of a net so small that seconds hold a run)
NETS = {
    "image": ("image/fashion-ddpm", UNET),
    "audio": ("audio/spec-ddpm", UNET),
    "point3d": (
        "point3d/shapes-ddpm",
        {"dim": 16, "width": 16, "inner": 16, "latents": 4, "rounds": 1, "heads": 2, "emb_dim": 16},
    ),
    "policy": ("policy/pusht-keypoints", UNET | {"kernel": 3}),
    "protein": ("protein/backbone-ddpm", {"dim": 16, "depth": 1, "heads": 2, "pair": 4}),
}


def test_the_package_gets_the_net_and_the_batch_of_its_recipe(tmp_path, monkeypatch):
    given = []

    def train(source, **options):
        given.append((source, options["overrides"]))
        raise InterruptedError

    monkeypatch.setattr(zoo, "train", train)
    with pytest.raises(InterruptedError):
        train_packaged.main(["image/fashion-ddpm", "--data", "x", "--out", str(tmp_path)])
    assert given == [(get_recipe("image/fashion-ddpm"), {})]  # of a recipe, not of a name, no run makes anything smaller


def test_every_domain_is_tried():
    assert sorted(NETS) == sorted(domain_names())


@pytest.mark.slow
@pytest.mark.parametrize("domain", sorted(NETS))
@pytest.mark.parametrize("bits", [16, 8])
def test_minutes_of_training_leave_a_model_a_log_and_their_history(domain, bits, tmp_path, monkeypatch):
    """On made-up data of the domain, in place of those of --data."""
    name, net = NETS[domain]
    train, given = zoo.train, {}

    def made_up(recipe, **options):
        given.update(options)
        return train(recipe, **options | {"data": get_domain(domain).example_data(get_recipe(name))})

    monkeypatch.setattr(train_packaged.zoo, "train", made_up)
    out = tmp_path / "out"
    options = [f"net.{k}={json.dumps(v)}" for k, v in net.items()] + ["training.batch_size=2", "training.precision=fp32"]
    words = [word for option in options for word in ("--set", option)]
    minutes = 0.15
    train_packaged.main(
        [
            name,
            "--data",
            "DIR",
            "--minutes",
            f"{minutes}",
            "--cpu",
            "--workers",
            "0",
            "--bits",
            f"{bits}",
            "--out",
            str(out),
            *words,
        ]
    )
    assert given["data"] == "DIR" and given["minutes"] < minutes
    model = zoo.load(out)
    assert model.verify() < 0.05
    assert len(model.sample(2, seed=0, steps=2, progress=False, **asked(model, 2))) == 2
    history = json.loads((out / train_packaged.HISTORY).read_text())
    assert history["steps"] >= 1 and history["samples"] == 2 and history["device"] == "CPU"
    assert 0 < history["seconds"] < 60 * minutes + 30
    assert int(train_packaged.last_row(out / train_packaged.LOG)["step"]) == history["steps"]
    assert {p.suffix for p in Path(out).iterdir()} <= {".json", ".csv", ".safetensors", ".md"}, "no checkpoint is left"

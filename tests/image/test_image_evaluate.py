"""`zoo eval` of pictures: protocol, refusals, and real data as its own answer."""

import json

import numpy as np
import pytest
import torch

import zoo
from zoo.cli import main
from zoo.errors import ConfigError, DataError
from zoo.evaluation.evaluate import evaluate as measure
from zoo.image import evaluate

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


@pytest.fixture(scope="module")
def model():
    return zoo.create("image/fashion-ddpm", **SMALL)


@pytest.fixture
def source(tmp_path):
    """Noise in the shape of Fashion-MNIST."""
    rng = np.random.default_rng(0)
    sizes = {"train": 5300, "test": 200}
    arrays = {f"{s}_images": rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for s, n in sizes.items()}
    arrays |= {f"{s}_labels": np.uint8(np.arange(n) % 10) for s, n in sizes.items()}
    np.savez(tmp_path / "fashion_mnist.npz", **arrays)
    return tmp_path / "fashion_mnist.npz"


@pytest.mark.slow
def test_the_result_says_how_it_was_made(model, source):
    result = measure(model, 40, data=source, steps=2, sampler="ddim", guidance_weight=0.5, seed=3)
    protocol = result["protocol"]
    assert (protocol["sampler"], protocol["steps"], protocol["guidance_weight"]) == ("ddim", 2, 0.5)
    assert protocol["precision"] == "fp32" and "precision" not in protocol["other_settings"]
    assert protocol["reference"] == "200 real test pictures" and protocol["samples"] == 40
    assert protocol["other_settings"]["guidance_interval"] == model.recipe.sampling.guidance_interval
    for metric in result["metrics"].values():
        assert {"value", "ceiling", "floor", "better"} <= metric.keys()
    json.dumps(result, allow_nan=False)
    scaled = measure(model, 40, data=source, steps=2, sampler="ddim", guidance_scale=1.5, seed=3)
    assert scaled["protocol"]["guidance_weight"] == 0.5 and scaled["metrics"] == result["metrics"]
    again = measure(model, 40, data=source, steps=2, sampler="ddim", guidance_weight=0.5, seed=3)
    assert again["metrics"] == result["metrics"]


def test_bits_per_dimension_stand_among_the_figures(model):
    """Of held-out pictures with their labels, as the judged evaluator of pictures gives them."""
    from zoo.evaluation.evaluate import Evaluator
    from zoo.image.metrics import Evaluator as Pictures

    seen = {}

    class Quick(Evaluator):
        held_out = Pictures.held_out
        reference = torch.arange(30.0)[:, None, None, None].expand(30, 1, 28, 28) / 127.5 - 1
        labels, own = torch.arange(30) % 10, None

        def generate(self, model, n, *, seed, **settings):
            return None, settings

        def measure(self, made, **options):
            return {"metrics": {}, "protocol": {}}

    class Fake:
        domain, codec, recipe = model.domain, model.codec, model.recipe

        def log_likelihood(self, items, **given):
            seen["items"], seen["given"] = items, given
            return model.log_likelihood(items, steps=1, probes=2, progress=False, **given)

    result = measure(Fake(), 4, evaluator=Quick(), likelihood=3, seed=5)
    bits, rows = result["metrics"]["bits_per_dim"], [int((x[0, 0, 0] + 1) * 127.5 + 0.5) for x in seen["items"]]
    assert len(set(rows)) == 3 and seen["given"] == {"seed": 5, "label": [i % 10 for i in rows]}
    assert bits["floor"] == 8 and bits["better"] == "lower" and bits["std"] > 0
    assert "over 3 objects" in result["protocol"]["likelihood"]
    json.dumps(result, allow_nan=False)
    with pytest.raises(ConfigError, match="likelihood=-1"):
        measure(Fake(), 4, evaluator=Quick(), likelihood=-1)
    Quick.held_out = Evaluator.held_out
    with pytest.raises(ConfigError, match="likelihood: measured of pictures alone"):
        measure(Fake(), 4, evaluator=Quick(), likelihood=3)


@pytest.mark.slow
def test_the_command_writes_json(model, source, tmp_path, capsys):
    folder = model.save_pretrained(tmp_path / "m")
    out = tmp_path / "r.json"
    arguments = ["eval", str(folder), "--n", "30", "--data", str(source), "--steps", "1", "--split", "validation"]
    assert main([*arguments, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["protocol"]["reference"] == "5000 real validation pictures"
    assert str(out) in capsys.readouterr().out


def test_no_data_says_what_to_give(model, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    with pytest.raises(DataError, match="ZOO_DATA"):
        measure(model, 10)


def test_models_that_the_judge_does_not_know_need_their_data():
    for overrides in ({"codec.size": 32}, {"conditions": {}}):
        with pytest.raises(ConfigError, match=r"28 x 28.*--data DIR"):
            measure(zoo.create("image/fashion-ddpm", **SMALL, **overrides), 10)


@pytest.mark.slow
def test_larger_pictures_of_clothes_are_fitted_to_the_packaged_judge(source):
    protocol = measure(zoo.create("image/fashion-ddpm", **SMALL, **{"codec.size": 32}), 10, data=source, steps=1)["protocol"]
    assert "the packaged judge of clothes" in protocol["features"] and "to 28 x 28 for the judge" in protocol["size"]


@pytest.mark.data
def test_real_pictures_reach_their_own_ceiling(zoo_data):
    source = zoo_data / "image" / "fashion_mnist.npz"
    judge = evaluate.evaluator(source, "validation")
    pictures, labels = evaluate.pictures_and_labels(source, "train")
    result = judge.evaluate(pictures[:2000], labels[:2000])["metrics"]
    noise = judge.evaluate(torch.rand(500, 1, 28, 28) * 2 - 1, labels[:500])["metrics"]
    assert result["frechet"]["value"] < 3 * result["frechet"]["ceiling"]
    assert noise["frechet"]["value"] > 100 * result["frechet"]["value"]
    assert result["accuracy"]["value"] > 0.9 > 0.3 > noise["accuracy"]["value"]


@pytest.mark.data
@pytest.mark.skipif(not zoo.info("image/fashion-ddpm").packaged, reason="no packaged weights")
def test_the_packaged_model_draws_what_its_card_says(zoo_data):
    """A fresh measurement on fewer samples, between the card's figure and what would be another model."""
    card = zoo.info("image/fashion-ddpm").evaluation["metrics"]
    model = zoo.load("image/fashion-ddpm")
    result = measure(model, 300, data=zoo_data / "image" / "fashion_mnist.npz", seed=123)["metrics"]
    assert abs(result["accuracy"]["value"] - card["accuracy"]["value"]) < 0.05
    assert abs(result["precision"]["value"] - card["precision"]["value"]) < 0.1

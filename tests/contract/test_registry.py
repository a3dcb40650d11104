"""Names, recipes and `zoo.load`."""

import json

import pytest

import zoo
from zoo.contract import registry
from zoo.contract.recipe import Recipe
from zoo.errors import CheckpointError, ConfigError, HubError, UnknownModelError
from zoo.image.recipes import RECIPES

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


def test_names_and_patterns():
    assert "image/fashion-ddpm" in zoo.list_models()
    assert zoo.list_models("image/*") == zoo.list_models(domain="image") == sorted(f"image/{n}" for n in RECIPES)
    assert zoo.list_models("*fashion-d*t") == ["image/fashion-dit"]
    assert zoo.list_models("nothing*") == []


@pytest.mark.parametrize("name", ["image/fashion-dpm", "fashion-ddpm", "image/fashion_ddpm", "Image/Fashion-DDPM"])
def test_an_unknown_model_is_answered_with_the_nearest(name):
    for call in (zoo.load, zoo.info, zoo.create):
        with pytest.raises(UnknownModelError, match="image/fashion-ddpm"):
            call(name)


def test_an_unknown_domain_is_answered_with_the_list():
    with pytest.raises(ConfigError, match="image"):
        zoo.list_models(domain="video")


def test_info_needs_no_weights():
    card = zoo.info("image/fashion-ddpm")
    assert card.domain == "image" and card.config["conditions"]["label"]["values"][7] == "sneaker"
    assert "sneaker" in str(card)


def test_create_takes_dotted_overrides():
    model = zoo.create("image/fashion-ddpm", **SMALL, **{"diffusion.prediction": "eps"})
    assert model.recipe.net["channels"] == 16 and model.diffusion.prediction == "eps"
    assert sum(p.numel() for p in model.parameters()) < 100_000


WRONG = [
    ({"net.chanels": 16}, "chanels"),
    ({"nets.channels": 16}, "nets"),
    ({"training.lr": -1}, "training.lr"),
    ({"training.lr": "fast"}, "fast"),
    ({"schedule.curve": "quadratic"}, "linear"),
    ({"schedule.kind": "cold"}, "schedule"),
    ({"denoiser": "resnet"}, "transformer"),
    ({"codec.size": 0}, "size=0"),
    ({"codec.size": 27}, "27"),
    ({"codec.colour": True}, "colour"),
    ({"diffusion.prediction": "eps", "schedule.zero_terminal_snr": True}, "no signal"),
    ({"conditions": {"label": {"values": []}}}, "conditions.label"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG)
def test_a_wrong_override_is_one_clear_error(overrides, message):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.create("image/fashion-ddpm", **overrides)


def test_strings_of_the_command_line_are_read_as_json():
    recipe = registry.get_recipe("image/fashion-ddpm")
    changed = recipe.override({"training.lr": "2e-4", "net.multipliers": "[1, 1]", "schedule.curve": "linear"})
    assert (changed.training.lr, changed.net["multipliers"], changed.schedule.curve) == (2e-4, [1, 1], "linear")
    assert recipe.training.lr != 2e-4, "the registered recipe is not touched"


def test_a_recipe_names_every_bad_key():
    with pytest.raises(ConfigError) as caught:
        Recipe.parse({"name": "a", "denoiser": 3, "sampling": {"steps": 0}, "typo": 1})
    for word in ("domain", "denoiser", "sampling.steps", "typo"):
        assert word in str(caught.value)


def test_a_path_a_folder_and_a_name_are_told_apart(tmp_path, monkeypatch):
    zoo.create("image/fashion-ddpm", **SMALL).save_pretrained(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path / "mine", str(tmp_path / "mine"), "./mine", "mine"):
        assert zoo.load(source).recipe.net["channels"] == 16
    with pytest.raises(CheckpointError, match="no model folder at"):
        zoo.load("./yours")
    with pytest.raises(UnknownModelError):
        zoo.load("yours")


def test_weights_that_are_not_packaged_are_said_so(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr("zoo.hub.client.ATTEMPTS", 1)
    with pytest.raises(HubError, match=r"cannot be reached.*zoo train image/fashion-ddpm"):
        zoo.load("image/fashion-ddpm")
    assert not zoo.info("image/fashion-ddpm").packaged


def test_a_packaged_folder_is_found(monkeypatch, tmp_path):
    folder = tmp_path / "image" / "fashion-ddpm"
    zoo.create("image/fashion-ddpm", **SMALL).save_pretrained(folder)
    metric = {"value": 1.0, "ceiling": 0.5, "floor": 9.0, "better": "lower"}
    (folder / "evaluation.json").write_text(json.dumps({"metrics": {"frechet": metric}, "protocol": {}}))
    monkeypatch.setattr(registry, "CHECKPOINTS", tmp_path)
    card = zoo.info("image/fashion-ddpm")
    assert card.packaged and "| frechet | 1 | 0.5 | 9 | lower |" in str(card)
    assert zoo.load("image/fashion-ddpm").verify() == 0.0


METRIC = {"value": 0.5, "better": "higher", "ceiling": None, "interval": [0.25, 0.75], "unit": "of its own"}


@pytest.mark.parametrize(
    "odd",
    [
        {"value": "0.5"},
        {"value": True},
        {"floor": []},
        {"interval": True},
        {"interval": [0.25]},
        {"interval": ["a", "b"]},
        {"better": 3},
    ],
)
def test_a_measured_figure_that_is_no_number_is_one_clear_error(tmp_path, odd):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"metrics": {"a": METRIC}, "protocol": {}}))
    assert registry.read_evaluation(tmp_path)["metrics"]["a"] == METRIC
    path.write_text(json.dumps({"metrics": {"a": METRIC | odd}, "protocol": {}}))
    with pytest.raises(CheckpointError, match=r"evaluation\.json is not an evaluation"):
        registry.read_evaluation(tmp_path)

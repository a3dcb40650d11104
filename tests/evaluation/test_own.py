"""Evaluation of anybody's data: a judge of its labels, classes by name, and features where there are no labels."""

import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.cli import main
from zoo.contract.registry import get_domain, get_recipe
from zoo.errors import CheckpointError, ConfigError, DataError, ResourceError, ShapeError
from zoo.evaluation import own
from zoo.evaluation.evaluate import evaluate
from zoo.evaluation.judge import Features
from zoo.evaluation.judged import Own
from zoo.image import evaluate as pictures
from zoo.image import inception
from zoo.image.judge import Judge, fitted, load_judge
from zoo.image.sight import natural

SMALL = {
    "net.channels": 8,
    "net.multipliers": [1],
    "net.attention": [False],
    "net.emb_dim": 8,
    "codec.size": 8,
    "codec.channels": 3,
}
COLOURS = {"blue": (30, 30, 200), "green": (30, 200, 30), "red": (200, 30, 30)}


def write(folder, colours, train=14, test=6, size=8):
    """Pictures of one colour each with noise, in class folders with the splits train and test."""
    rng = np.random.default_rng(0)
    for split, n in (("train", train), ("test", test)):
        for name in colours:
            place = folder / split / name if name else folder / split
            place.mkdir(parents=True)
            for i in range(n):
                noisy = np.array(COLOURS.get(name, (90, 90, 90))) + rng.normal(0, 25, (size, size, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("photos"), COLOURS)


def labelled(names):
    return {"label": {"kind": "label", "values": names}} if names else {}


def model_of(labels):
    return zoo.create("image/fashion-ddpm", **SMALL, conditions=labelled(labels))


def trained(folder, out, **options):
    recipe = get_recipe("image/fashion-ddpm").override({"codec.size": 8, "codec.channels": 3})
    return own.train_judge(get_domain("image"), recipe, folder, out, log=False, **({"steps": 12} | options))


@pytest.fixture(scope="module")
def judge(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("judge")
    trained(folder, out)
    return out


@pytest.mark.slow
def test_a_judge_learns_the_labels_and_its_card_says_how_well(judge):
    found = load_judge(judge)
    assert found.class_names == ("blue", "green", "red") and found.shape == (3, 8, 8)
    card = found.card
    assert card["accuracy"]["test"]["value"] > 0.9 and card["accuracy"]["test"]["n"] == 18
    assert card["accuracy"]["train"]["n"] == 38 and card["chance"]["value"] == pytest.approx(1 / 3)
    settings = card["training"]["settings"]
    assert settings["steps"] == 12 and settings["augment"] == {"crop": 0.2, "colour": 0.2}
    assert card["data"]["classes"]["test"] == {"blue": 6, "green": 6, "red": 6}


def weights(judge):
    return torch.cat([p.flatten() for p in judge.state_dict().values()])


@pytest.mark.slow
def test_seed_and_steps_are_all_that_decide(folder, judge, tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert torch.equal(weights(trained(folder, tmp_path / "a")), weights(load_judge(judge)))
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's generator is left alone"
    assert not torch.equal(weights(trained(folder, tmp_path / "b", seed=1)), weights(load_judge(judge)))


@pytest.mark.slow
def test_the_minutes_say_how_many_steps(monkeypatch, folder, tmp_path):
    seen = []
    monkeypatch.setattr(own, "affordable", lambda step, seconds: (step(), seen.append(seconds))[0] or 9)
    found = trained(folder, tmp_path / "a", steps=None, minutes=2.0)
    assert found.card["training"]["settings"]["steps"] == 9 and 90 < seen[0] < 105
    assert torch.equal(weights(found), weights(trained(folder, tmp_path / "b", steps=9))), "the trial has trained nothing"


def test_steps_are_counted_from_the_usual_one(monkeypatch):
    from zoo.evaluation import learn

    clock = iter([0.0, 9.0, 9.0, 12.0, *np.repeat(np.arange(12, 17), 2)[1:], 16.0])  # two slow ones, then a second each
    monkeypatch.setattr(learn.time, "perf_counter", lambda: float(next(clock)))
    assert learn.affordable(lambda: None, 30.0) == 30
    monkeypatch.undo()
    assert learn.affordable(lambda: None, -5.0) == 20


@pytest.mark.slow
def test_data_without_labels_or_of_one_class_have_no_judge(tmp_path):
    with pytest.raises(DataError, match="has no labels 'label'"):
        trained(write(tmp_path / "plain", [""]), tmp_path / "j")
    one = tmp_path / "one"
    write(one, ["red"])
    with pytest.raises((ConfigError, DataError), match=r"labels 'label'|one class"):
        trained(one, tmp_path / "j")
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("change", [{"minutes": 0}, {"minutes": float("nan")}, {"minutes": -1}, {"steps": 0}, {"seed": 0.5}])
def test_numbers_that_are_none_are_refused_before_anything_is_read(tmp_path, change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        trained(tmp_path / "missing", tmp_path / "j", **({"steps": None} | change))


def test_a_folder_that_cannot_be_written_is_told_before_minutes_are_spent(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(own, "learn", lambda *given, **options: pytest.fail("it has trained"))
    with pytest.raises(ResourceError, match="cannot write"):
        trained(folder, tmp_path / "file", steps=1)


@pytest.mark.slow
def test_the_command_trains_one_and_the_evaluation_finds_it(folder, tmp_path, capsys):
    run = model_of(["red", "blue"]).save_pretrained(tmp_path / "run")
    arguments = ["judge", "--data", str(folder), "--for", str(run), "--out", str(run / "judge"), "--steps", "12"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "held out accuracy" in told and "chance 0.333; 3 classes" in told
    out = tmp_path / "r.json"
    assert main(["eval", str(run), "--data", str(folder), "--n", "12", "--steps", "1", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert "the judge in the model's folder" in result["protocol"]["features"]
    assert set(result["per_class"]) == {"red", "blue"}, "those of the model, of the judge's three"
    assert result["protocol"]["reference"] == "12 real test pictures" and "12 of 18 held-out" in result["protocol"]["drawn"]
    assert result["metrics"]["accuracy"]["ceiling"] > 0.9
    assert "torch-fidelity" in result["protocol"]["inception_fid"] or "inception_fid" in result["metrics"]
    assert main(["judge", "--data", str(folder), "--out", str(tmp_path / "j")]) == 2
    assert "give --for MODEL" in capsys.readouterr().err


class Made(SimpleNamespace):
    """Samples as an evaluator sees them."""

    def __len__(self):
        return len(self.tensor)


@pytest.mark.slow
def test_labels_are_matched_by_name_whatever_their_order(folder, judge):
    model = model_of(["red", "green", "blue"])
    found = model.domain.evaluator(folder, "test", model, judge)
    names = ["red", "green", "blue", "blue"]
    made = Made(conditions={"label": names}, tensor=torch.zeros(4, 3, 8, 8))
    assert found.labels_of(made).tolist() == [2, 1, 0, 0]
    x = torch.stack([torch.tensor(COLOURS[n])[:, None, None].expand(3, 8, 8) / 127.5 - 1 for n in names])
    made.tensor = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert found.measure(made)["metrics"]["accuracy"]["value"] == 1.0
    asked = found.asked(model, 36, 0)["label"]
    assert {n: asked.count(n) for n in COLOURS} == dict.fromkeys(COLOURS, 12)


@pytest.mark.slow
def test_classes_that_do_not_match_are_an_error_that_names_them(folder, judge, tmp_path):
    for labels, error, words in (
        (["red", "blu"], ConfigError, r"does not know 1 of the model's 2 classes: blu.*Did you mean 'blue'"),
        ([], ConfigError, "has no labels"),
    ):
        model = model_of(labels)
        with pytest.raises(error, match=words):
            model.domain.evaluator(folder, "test", model, judge)
    model = model_of(["red", "green"])
    with pytest.raises(DataError, match="the data have none of 1 of the model's 2 classes: green"):
        model.domain.evaluator(write(tmp_path / "two", ["red", "blue"]), "test", model, judge)
    with pytest.raises(CheckpointError, match="no readable judge"):
        model.domain.evaluator(folder, "test", model, tmp_path)


def test_a_domain_without_judges_says_so():
    chains = SimpleNamespace(domain=get_domain("protein"))
    with pytest.raises(ConfigError, match="'protein' are measured without a judge"):
        evaluate(chains, 4, judge="runs/judge")


@pytest.mark.slow
def test_data_with_an_unreadable_file_are_measured_as_they_are_trained_on(tmp_path):
    data = write(tmp_path / "photos", COLOURS)
    for split in ("train", "test"):
        (data / split / "red" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"damaged")
    model = model_of(list(COLOURS))
    model.save_pretrained(tmp_path / "model")
    command = [
        "eval",
        str(tmp_path / "model"),
        "--data",
        str(data),
        "--n",
        "4",
        "--steps",
        "2",
        "--json",
        str(tmp_path / "r.json"),
    ]
    with pytest.raises(DataError, match=r"damaged\.png.*--skip-unreadable"):
        evaluate(model, 4, data=data, steps=2)
    assert main(command) == 2
    assert main([*command, "--skip-unreadable"]) == 0
    protocol = json.loads((tmp_path / "r.json").read_text())["protocol"]
    assert protocol["samples"] == 4 and "left out" in protocol["unreadable"]


@pytest.mark.parametrize(
    ("name", "module", "opens"),
    [
        ("image/fashion-ddpm", "zoo.image.evaluate", "open_images"),
        ("image/emoji-kl", "zoo.image.reconstruction", "open_images"),
        ("audio/spec-ddpm", "zoo.audio.evaluate", "open_audio"),
        ("point3d/shapes-ddpm", "zoo.point3d.evaluate", "open_clouds"),
        ("protein/backbone-ddpm", "zoo.protein.evaluate", "open_chains"),
        ("policy/pusht-keypoints", "zoo.policy.evaluate", "open_episodes"),
    ],
)
def test_every_domain_leaves_unreadable_files_out_where_it_is_told_to(name, module, opens, tmp_path, monkeypatch):
    class OpenedError(Exception):
        pass

    def opened(source, split, **options):
        raise OpenedError(options["skip_unreadable"])

    monkeypatch.setattr(importlib.import_module(module), opens, opened)
    model = zoo.load(name)
    for asked in (True, False):
        with pytest.raises(OpenedError) as told:
            evaluate(model, 4, data=tmp_path, skip_unreadable=asked)
        assert told.value.args == (asked,)


def test_a_domain_whose_evaluator_leaves_no_files_out_says_so():
    other = SimpleNamespace(name="other", evaluator=lambda data, split, model: None)
    with pytest.raises(ConfigError, match=r"skip_unreadable=True: .*'other' are measured without leaving files"):
        evaluate(SimpleNamespace(domain=other), 4, skip_unreadable=True)
    with pytest.raises(ConfigError, match="a policy in its simulation reads no files"):
        evaluate(zoo.load("policy/pusht-keypoints"), 1, skip_unreadable=True)
    with pytest.raises(ConfigError, match="no judges of labels"):
        get_domain("protein").sight(get_recipe("protein/backbone-ddpm"))


# ---------------------------------------------------------------- without labels


def brightness(x):
    return torch.cat([x.flatten(1), x.flatten(1).square()], 1)


@pytest.mark.slow
def test_without_labels_features_are_compared_and_nothing_is_said_of_accuracy(monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "candidates", lambda: [Features("a net of the test", lambda x: brightness(x[:, :, :2, :2]))])
    model = model_of([])
    result = evaluate(model, 8, data=write(tmp_path / "plain", [""], 20, 12), steps=1)
    assert "accuracy" not in result["metrics"] and result["per_class"] == {}
    assert {"frechet", "kid", "precision", "recall", "copy_rate", "nearest_copy"} <= set(result["metrics"])
    assert "a net of the test" in result["protocol"]["features"] and "zoo judge" in result["protocol"]["accuracy"]
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
def test_a_labelled_folder_without_a_judge_asks_for_its_labels_all_the_same(monkeypatch, folder):
    monkeypatch.setattr(pictures, "candidates", lambda: [Features("a net of the test", lambda x: brightness(x[:, :, :2, :2]))])
    model = model_of(["red", "blue"])
    found = model.domain.evaluator(folder, "test", model)
    assert sorted(set(found.asked(model, 10, 0)["label"])) == ["blue", "red"] and len(found.reference) == 12


def test_the_net_that_tells_spoilt_samples_best_is_chosen():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(300, 1, 6, 6, generator=rng)
    blind = Features("blind", lambda x: x.flatten(1).mean(1, keepdim=True) * torch.ones(1, 3))
    seeing = Features("seeing", lambda x: x.flatten(1)[:, :8])
    found = own.choose([blind, seeing], x[:150], x[150:], 0)
    assert found is seeing and "seeing" in found.note and "blind" in found.note
    assert own.choose([blind], x[:150], x[150:], 0) is blind and not blind.note


@pytest.mark.slow
@pytest.mark.skipif(not zoo.info("image/fashion-ddpm").packaged, reason="no packaged weights")
def test_the_packaged_nets_take_pictures_of_any_size_and_colour():
    from zoo.image.sight import candidates

    for net in candidates():
        for shape in ((2, 3, 20, 20), (2, 1, 32, 32)):
            features, logits = net.features(torch.rand(shape) * 2 - 1)
            assert features.shape[0] == 2 and features.shape[1] % shape[1] == 0 and logits.shape == (2, 0)


# ---------------------------------------------------------------- pictures


@pytest.mark.slow
def test_a_judge_of_another_size_sees_pictures_fitted_to_it(folder, judge, tmp_path):
    big = zoo.create("image/fashion-ddpm", **SMALL | {"codec.size": 16}, conditions=labelled(["red"]))
    found = big.domain.evaluator(folder, "test", big, judge)
    assert found.reference.shape[1:] == (3, 16, 16) and found.ceiling(4)["accuracy"] > 0.9
    assert "resized with a low-pass to 8 x 8" in found.size()


def test_fitting_keeps_colours_and_greys():
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.equal(fitted(x, (3, 8, 8)), x)
    assert torch.allclose(fitted(torch.ones(1, 3, 8, 8) * 0.5, (1, 4, 4)), torch.full((1, 1, 4, 4), 0.5))
    assert torch.equal(fitted(x[:, :1], (3, 8, 8))[:, 2], x[:, 0])


@pytest.mark.parametrize(("size", "colour", "expected"), [(32, True, (32, 3)), (90, False, (64, 1)), (30, True, (28, 3))])
def test_without_a_model_a_judge_sees_pictures_as_they_are(size, colour, expected):
    shape = (size, size + 7, 3)
    rows = [(np.random.default_rng(i).integers(0, 256, shape if colour else shape[:2], np.uint8), {}) for i in range(3)]
    found = natural(zoo.testing.Items(rows))
    assert (found["size"], found["channels"]) == expected


@pytest.mark.parametrize("size", [8, 28, 41, 64])
def test_a_judge_takes_its_own_size_only(size):
    judge = Judge((4, 4, 8), ("a", "b"), shape=(3, size, size)).eval()
    assert judge(torch.zeros(2, 3, size, size)).shape == (2, 2)
    with pytest.raises(ShapeError, match="resize them first"):
        judge.check(torch.zeros(2, 3, size + 1, size))
    assert type(judge)(**judge.config).shape == judge.shape


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 8), (1, 2, 2)])
def test_a_judge_of_no_picture_is_refused(shape):
    with pytest.raises(ConfigError, match="a judge of pictures takes"):
        Judge((4, 4, 8), ("a", "b"), shape=shape)


def test_inception_is_measured_where_its_weights_are_and_never_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found, told = inception.fid(x, x, x, -x)
    assert found is None and inception.FILE in told and str(tmp_path) in told
    monkeypatch.setattr(inception, "find_spec", lambda name: object())
    assert inception.fid(x, x, x, -x)[0] is None
    (tmp_path / "checkpoints").mkdir()
    inception.weights().write_bytes(b"")
    shown = []

    def net(pictures):
        shown.append((pictures.dtype, tuple(pictures.shape[1:])))
        return pictures.float().mean((2, 3)) + torch.arange(3)

    monkeypatch.setattr(inception, "net", lambda: net)
    found, told = inception.fid(x, x, x, -x)
    assert found["value"] == found["ceiling"] == pytest.approx(0, abs=1e-6) and found["better"] == "lower"
    assert set(shown) == {(torch.uint8, (3, 8, 8))} and "299 x 299" in told and "8 reference pictures" in told


# ---------------------------------------------------------------- other domains


def test_shapes_without_labels_are_measured_without_a_judge(tmp_path):
    for split, n in (("train", 8), ("test", 5)):
        (tmp_path / split).mkdir()
        for i in range(n):
            np.save(tmp_path / split / f"{i}.npy", np.random.default_rng(i + 100 * n).normal(size=(80, 3)))
    from zoo.point3d.evaluate import evaluator

    model = SimpleNamespace(recipe=get_recipe("point3d/shapes-ddpm").model_copy(update={"conditions": {}}), folder=None)
    found = evaluator(tmp_path, "test", model)
    assert found.asked(model, 6, 0) == {} and "accuracy" not in found.better and found.counts == {0: 5}
    result = found.evaluate(found.train[:6], [0] * 6)
    assert result["metrics"]["copy_rate"]["value"] == 1.0 and set(result["per_class"]) == {"shape"}
    json.dumps(result, allow_nan=False)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("robot") / "episodes.npz"
    observation = np.cumsum(rng.normal(size=(40 * 30, 3)), 0).reshape(40, 30, 3)
    observation -= observation[:, :1]
    action = np.concatenate([np.sin(observation[..., :1]), observation[..., 1:2] / 5], -1)
    np.savez(
        path,
        observation=observation.reshape(-1, 3).astype(np.float32),
        action=action.reshape(-1, 2).astype(np.float32),
        episode_ends=np.arange(30, 1201, 30),
    )
    return path


@pytest.mark.slow
def test_a_policy_without_an_environment_is_measured_by_demonstrations(demonstrations):
    from zoo.policy.data import open_episodes
    from zoo.policy.domain import DOMAIN
    from zoo.policy.offline import Offline

    recipe = get_recipe("policy/pusht-keypoints").override({"net.channels": 16})
    data = open_episodes(demonstrations)
    model = zoo.model.loading.build(DOMAIN.adapt(recipe, data))
    model.codec.fit(data)
    found = DOMAIN.evaluator(demonstrations, "test", model)
    assert isinstance(found, Offline) and len(found.held.episodes) == 2
    result = evaluate(model, 20, evaluator=found, steps=1)
    assert set(result["metrics"]) == set(Offline.better) and result["protocol"]["samples"] == 20
    assert {"value", "ceiling", "floor", "better", "shuffled"} <= set(result["metrics"]["action_error"])
    json.dumps(result, allow_nan=False)
    rows = list(range(20))
    perfect = [SimpleNamespace(values=found.held[i][0]) for i in rows]
    metrics = found.measure((rows, perfect))["metrics"]
    assert metrics["action_error"]["value"] == 0 and metrics["roughness"]["value"] == pytest.approx(1)
    assert metrics["action_error"]["ceiling"] > 0 and metrics["action_error"]["shuffled"] > 0
    assert metrics["nearest_chunk"]["ceiling"] == metrics["nearest_chunk"]["value"]


def test_demonstrations_of_another_robot_are_refused(demonstrations):
    from zoo.policy.domain import DOMAIN

    with pytest.raises(ConfigError, match="the data's observation_names are observation_0"):
        DOMAIN.evaluator(demonstrations, "test", zoo.create("policy/pusht-keypoints", **{"net.channels": 16}))


def test_captions_are_asked_for_with_the_label_of_the_same_picture():
    told = Own("here", ["a", "b", "c"], texts=["of a", "of b", None])
    asked = told.asked(None, 6, 0)
    assert set(zip(asked["label"], asked["text"], strict=True)) == {("a", "of a"), ("b", "of b"), ("c", None)}
    assert Own("here", None, texts=["x", "y"]).asked(None, 1, 0).keys() == {"text"}
    assert Own("here", None).asked(None, 2, 0) == {}
    assert "captions" in told.protocol(Features("net", lambda x: x), 9)["texts"]

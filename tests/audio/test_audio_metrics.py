"""Judges and metrics of clips: known answers, refusals, and real data as its own answer."""

import json

import numpy as np
import pytest
import torch
from train_judge import KINDS, main

import zoo
from zoo.audio import evaluate, metrics
from zoo.audio.data import SPLITS, open_audio
from zoo.audio.judge import CHECKPOINTS, Judge, load_judge
from zoo.audio.metrics import Evaluator, quantise
from zoo.audio.recipes import DIGITS, SPEAKERS
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.evaluation import judge as judges
from zoo.evaluation.evaluate import evaluate as measure

RATE, L = 8000, 4096
SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


def clips(n, seed=0):
    """Tones, chirps, clicks and hiss in turn, of random pitch and length, and their labels 0..3."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    t = torch.arange(L) / RATE
    pitch = 400 + 800 * torch.rand(n, 1, generator=g)
    hiss = torch.randn(n, L, generator=g)
    kinds = torch.stack([
        torch.sin(2 * torch.pi * pitch * t),
        torch.sin(2 * torch.pi * (pitch + 2500 * t) * t),
        hiss * (t * (20 + pitch / 60) % 1 < 0.1),
        hiss,
    ])  # fmt: skip
    length = 0.2 + 0.2 * torch.rand(n, 1, generator=g)
    return 0.3 * kinds[labels, torch.arange(n)] * ((t > 0.05) & (t < length)), labels


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    made = Judge((4, 8, 16), ("a", "b", "c", "d"), RATE, L)
    x, y = clips(40, seed=9)
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    made.train()
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(made(x), y)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return made.eval()


@pytest.fixture(scope="module")
def measured(judge):
    reference, train = clips(80, 1), clips(120, 2)[0]
    voices = Judge((4, 4, 8), ("high", "low"), RATE, L).eval()
    return Evaluator(judge, reference, train, raw=0.5 * reference[0], speakers=voices, split="validation")


@pytest.mark.slow
def test_the_clips_of_a_spread_are_drawn(measured, monkeypatch):
    """Every other clip is of one kind: clips picked at even steps would all be that."""
    monkeypatch.setattr(metrics, "PAIRS", 20)
    features = torch.tensor([0.0, 1.0]).repeat(20)[:, None]
    assert measured.spread(features) == measured.spread(features) == pytest.approx(0.5, abs=0.2)


# ---------------------------------------------------------------- the judge


def test_a_judge_hears_but_not_how_loud(judge):
    x, y = clips(40, 5)
    features, logits = judge.features(x)
    assert features.shape == (40, 16) == (40, judge.width) and (features >= 0).all()
    assert (logits.argmax(1) == y).double().mean() > 0.9
    torch.testing.assert_close(judge.features(0.1 * x)[0], features, atol=1e-3, rtol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert (judge.features(x)[1].argmax(1) == logits.argmax(1)).double().mean() > 0.9
    assert judge.features(torch.zeros(1, L))[0].isfinite().all(), "silence is no reason for NaN"


def test_a_judge_survives_its_folder(judge, tmp_path):
    judges.save_judge(judge, tmp_path, {"accuracy": {}})
    again = load_judge(tmp_path)
    x = clips(3)[0]
    assert torch.equal(again.features(x)[1], judge.features(x)[1])


def test_what_a_judge_cannot_hear_is_refused(judge):
    for call in (judge.check, judge.features, judge):
        with pytest.raises(ShapeError, match=rf"\(N, {L}\) at 8000 Hz"):
            call(torch.zeros(3, 99))
    with pytest.raises(DataError, match="int16"):
        judge.check(torch.zeros(2, L, dtype=torch.int16))
    for options in (((4, 4), ("a", "b"), RATE, L), ((4, 4, 4), ("a",), RATE, L), ((4, 4, 4), ("a", "b"), RATE, 700)):
        with pytest.raises(ConfigError):
            Judge(*options)


# ---------------------------------------------------------------- the metrics


def test_clips_are_measured_as_a_file_holds_them():
    x = torch.tensor([0.5, 1.7, -2.0, 1.4 / 32768, 1.6 / 32768])
    assert (quantise(x) * 32768).tolist() == [16384, 32767, -32768, 1, 2]
    for wrong, message in ((torch.tensor([1]), "floating"), (torch.tensor([float("nan")]), "NaN")):
        with pytest.raises(DataError, match=message):
            quantise(wrong)


@pytest.mark.slow
def test_good_clips_and_noise_are_told_apart(measured):
    good = measured.evaluate(*clips(60, 3))
    noise = measured.evaluate(torch.randn(60, L), clips(60, 3)[1])["metrics"]
    own = good["metrics"]
    assert own["accuracy"]["value"] > 0.9 > 0.6 > noise["accuracy"]["value"]
    assert noise["frechet"]["value"] > 20 * own["frechet"]["value"] and noise["recall"]["value"] < 0.1
    assert own["diversity"]["value"] == pytest.approx(1, abs=0.3)
    assert own["accuracy"]["raw"] == own["accuracy"]["ceiling"], "loudness is not heard"
    same = measured.evaluate(clips(4, 3)[0][:1].expand(60, -1), torch.zeros(60, dtype=torch.long))
    assert same["metrics"]["diversity"]["value"] == pytest.approx(0, abs=1e-3), "one clip over and over"
    json.dumps(good, allow_nan=False)
    assert good["protocol"]["reference"] == "80 real validation clips"


def test_confusions_are_counted_by_what_was_asked(measured):
    x, y = clips(40, 3)
    asked = torch.where(y == 0, 1, y)  # class a shows where b was asked for
    result = measured.evaluate(x, asked)
    heard = measured.judge.features(quantise(x))[1].argmax(1)
    assert result["confusion"]["b"] == {
        n: int(k) for n, k in zip("abcd", heard[asked == 1].bincount(minlength=4), strict=True) if k
    }
    assert result["confusion"]["b"]["a"] >= 9 and result["confusion"]["a"] == {}
    assert sum(sum(row.values()) for row in result["confusion"].values()) == 40


def test_voices_are_counted_by_their_judge(measured):
    x = clips(40, 3)[0]
    counts = measured.voices(quantise(x))
    assert counts.sum() == 40 and len(counts) == 2
    result = measured.evaluate(x, clips(40, 3)[1])
    assert result["voices"]["high"]["heard"] == int(counts[0]) / 40
    assert result["metrics"]["voices"]["value"] == float((counts >= 1).sum())


def test_a_training_clip_is_a_copy_wherever_it_starts(measured):
    x, y = clips(120, 2)
    moved = torch.nn.functional.pad(x, (704, 0))[:, :L] * 0.5
    assert measured.evaluate(moved, y)["metrics"]["copy_rate"]["value"] > 0.9
    assert measured.evaluate(*clips(60, 3))["metrics"]["copy_rate"]["value"] < 0.2
    points = measured.points(x)
    torch.testing.assert_close(measured.points(torch.nn.functional.pad(x, (0, 640))), points, atol=0.5, rtol=0)


# ---------------------------------------------------------------- zoo eval


@pytest.fixture
def packaged(monkeypatch, tmp_path):
    """Untrained judges in place of the packaged ones."""
    for name, classes, rate, samples in (
        ("digits-judge", DIGITS, 8000, 8128), ("speaker-judge", SPEAKERS, 8000, 8128),
        ("words-judge", ("yes", "no", "stop", "go"), 16000, 16256),
    ):  # fmt: skip
        torch.manual_seed(0)
        judges.save_judge(Judge((4, 4, 8), classes, rate, samples), tmp_path / name, {})
    monkeypatch.setattr("zoo.audio.judge.CHECKPOINTS", tmp_path)


@pytest.fixture(scope="module")
def model():
    return zoo.create("audio/spec-ddpm", **SMALL, **{"codec.iterations": 2})


@pytest.mark.slow
def test_the_result_says_how_it_was_made(packaged, model, fsdd_file):
    measured = model.domain.evaluator(fsdd_file, "validation", model)
    options = {"evaluator": measured, "steps": 2, "sampler": "ddim", "guidance_weight": 0.5, "seed": 3}
    result = measure(model, 40, **options)
    protocol = result["protocol"]
    assert (protocol["sampler"], protocol["steps"], protocol["guidance_weight"]) == ("ddim", 2, 0.5)
    assert protocol["reference"] == "60 real validation clips" and 0 <= protocol["voice_accuracy"] <= 1
    assert set(result["per_class"]) == set(DIGITS) and set(result["voices"]) == set(SPEAKERS)
    for metric in result["metrics"].values():
        assert {"value", "ceiling", "floor", "better"} <= metric.keys()
    json.dumps(result, allow_nan=False)
    assert measure(model, 40, **options)["metrics"] == result["metrics"]


@pytest.mark.slow
def test_words_have_a_judge_of_their_own(packaged, words_file):
    words = zoo.create("audio/words-ddpm", **SMALL, **{"codec.iterations": 2})
    measured = evaluate.evaluator(words_file, "test", words)
    assert measured.judge.class_names == ("yes", "no", "stop", "go") and "voices" not in measured.better
    assert measured.reference.shape == (20, 16256)


def test_the_codec_of_an_evaluator_alone_is_fitted(packaged, fsdd_file, monkeypatch):
    recipe = evaluate.RECIPES["spec-ddpm"]
    quick = recipe.model_copy(update={"codec": recipe.codec | {"iterations": 1}})
    monkeypatch.setitem(evaluate.RECIPES, "spec-ddpm", quick)
    measured = evaluate.evaluator(fsdd_file)
    assert measured.reference.shape == (60, 8128) and measured.train.shape == (120, 8128)


def test_models_that_the_judges_do_not_know_are_refused_without_data_of_their_own(packaged, words_file, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    for overrides in ({"conditions": {}}, {"codec.sample_rate": 4000}, {"codec.frames": 64}):
        with pytest.raises(ConfigError, match="judge"):
            evaluate.evaluator(None, "test", zoo.create("audio/spec-ddpm", **SMALL, **overrides))
    with pytest.raises(DataError, match="labels"):
        evaluate.evaluator(words_file)


def test_no_data_says_what_to_give(packaged, model, monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    with pytest.raises(DataError, match="--data fsdd"):
        measure(model, 10)


# ---------------------------------------------------------------- the training script of the judges


@pytest.mark.slow
def test_a_judge_is_trained_and_reported(fsdd_file, tmp_path, capsys):
    main(["speaker", "--data", str(fsdd_file), "--out", str(tmp_path / "j"), "--epochs", "1"])
    card = json.loads((tmp_path / "j" / "judge.json").read_text())["card"]
    assert card["training"]["chosen_epoch"] == 1 and set(card["accuracy"]) == set(SPLITS)
    assert "test       accuracy" in capsys.readouterr().out
    assert card["training"]["settings"]["speed"] == 0.05 and card["command"].startswith(
        "python benchmarks/train_judge.py speaker --data fsdd_8k.npz --out DIR --epochs 1 "
    )
    assert load_judge(tmp_path / "j").class_names == SPEAKERS


def test_words_have_no_speakers_to_judge(words_file, tmp_path):
    with pytest.raises(DataError, match="has no 'speaker' of its clips, only label"):
        main(["speaker", "--data", str(words_file), "--out", str(tmp_path)])


def test_training_clips_are_moved_and_noisy(fsdd_file):
    rows = torch.full((30,), 13)
    x, y = KINDS["digits"].batch(open_audio(fsdd_file), rows, torch.Generator().manual_seed(0))
    assert x.shape == (30, 8128) and len(x.unique(dim=0)) == 30
    assert y.tolist() == [open_audio(fsdd_file)[13][1]["label"]] * 30
    tail = x[:, 4000:].abs().amax(1)
    assert 10 <= (tail > 1e-4).sum() <= 27, "two of three with noise"


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize(("name", "least"), [("digits-judge", 0.97), ("speaker-judge", 0.95), ("words-judge", 0.9)])
@pytest.mark.skipif(not (CHECKPOINTS / "digits-judge").exists(), reason="no packaged judges")
def test_the_packaged_judges_are_small_and_good(name, least):
    card = load_judge(name).card
    assert card["accuracy"]["test"]["value"] >= least
    assert (CHECKPOINTS / name / judges.WEIGHTS).stat().st_size < 1_500_000
    assert card["command"].startswith("python benchmarks/train_")


@pytest.mark.data
def test_real_clips_reach_their_own_ceiling_and_copies_are_found(zoo_data):
    source = zoo_data / "audio" / "fsdd_8k.npz"
    model = zoo.create("audio/spec-ddpm")
    clips = open_audio(source)
    model.codec.fit(clips)
    measured = evaluate.evaluator(source, "validation", model)
    labels = torch.from_numpy(clips.targets["label"])
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:600]
    result = measured.evaluate(measured.train[rows], labels[rows])["metrics"]
    assert result["accuracy"]["value"] > 0.97 and result["accuracy"]["raw"] > 0.97
    assert result["frechet"]["value"] < 3 * result["frechet"]["ceiling"] and result["voices"]["value"] == 6
    g = torch.Generator().manual_seed(1)
    copies = torch.stack([model.codec.place(clips[int(i)][0], g) for i in rows[:200]])
    found = measured.evaluate(evaluate.through(model.codec, copies), labels[rows[:200]])["metrics"]
    assert found["copy_rate"]["value"] > 0.5, "moved and up to 6 % faster or slower"


@pytest.mark.data
@pytest.mark.skipif(not zoo.info("audio/spec-ddpm").packaged, reason="no packaged weights")
def test_the_packaged_model_says_what_its_card_says(zoo_data):
    card = zoo.info("audio/spec-ddpm").evaluation["metrics"]
    result = measure(zoo.load("audio/spec-ddpm"), 60, data=zoo_data / "audio" / "fsdd_8k.npz", seed=123)
    assert abs(result["metrics"]["accuracy"]["value"] - card["accuracy"]["value"]) < 0.05
    assert np.isfinite(result["metrics"]["frechet"]["value"])

"""The judge and the evaluation of pictures, on synthetic data; on real data where ZOO_DATA is set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from train_judge import KINDS, SPLITS, main, shifted, train_judge

from zoo.disk import reseal
from zoo.errors import CheckpointError, ConfigError, DataError, ShapeError
from zoo.evaluation.judge import CARD, WEIGHTS, save_judge
from zoo.evaluation.table import format_table
from zoo.image.data import ArrayImages
from zoo.image.judge import PACKAGED, Judge, load_judge
from zoo.image.metrics import Evaluator, quantise

NAMES = ("left", "right", "top")
FASHION = KINDS["fashion"]


class Split(NamedTuple):
    """Pictures (N, 1, 28, 28) float32 in [-1, 1] and labels (N,) int64."""

    pictures: torch.Tensor
    labels: torch.Tensor


def pictures(n: int, seed: int) -> Split:
    """Three easy classes: a bright half on a noisy background."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = torch.rand(n, 1, 28, 28, generator=rng) * 0.4 - 1
    bright = torch.rand(n, 1, 1, 1, generator=rng) + torch.rand(n, 1, 28, 28, generator=rng) * 0.3
    halves = torch.zeros(3, 1, 28, 28)
    halves[0, :, :, :14], halves[1, :, :, 14:], halves[2, :, :14] = 1, 1, 1
    return Split(quantise((x + bright * halves[labels]).clamp(-1, 1)), labels)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Nets this small are slower on several threads, and far slower where other work shares the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    return {"train": pictures(240, 0), "validation": pictures(60, 1), "test": pictures(120, 2)}


def datasets(splits: dict[str, Split]) -> dict[str, ArrayImages]:
    """The same pictures as their files hold them: levels 0..255."""
    levels = {k: ((v.pictures[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy() for k, v in splits.items()}
    return {k: ArrayImages(levels[k], v.labels.numpy(), NAMES) for k, v in splits.items()}


@pytest.fixture(scope="module")
def judge(splits) -> Judge:
    return train_judge(replace(FASHION, widths=(4, 8, 8), length=3, batch_size=24), datasets(splits), log=False)[0]


@pytest.fixture(scope="module")
def evaluator(judge, splits) -> Evaluator:
    return Evaluator(judge, splits["test"], splits["train"].pictures)


# ---- judge -------------------------------------------------------------------------------------------------


def test_training_is_deterministic_and_never_looks_at_the_test_set(splits):
    blind = {k: v for k, v in datasets(splits).items() if k != "test"}
    kind = replace(FASHION, widths=(2, 2, 4), length=2, batch_size=48)
    runs = [train_judge(kind, blind, seed=seed, log=False)[0] for seed in (3, 3, 4)]
    first, again, other = (torch.cat([p.flatten() for p in j.parameters()]) for j in runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_chosen_epoch_is_the_best_on_validation(splits):
    kind = replace(FASHION, widths=(2, 2, 4), length=4, batch_size=48)
    judge, report = train_judge(kind, datasets(splits), log=False)
    best = max(report["curve"], key=lambda e: e["validation_accuracy"])
    assert report["chosen_epoch"] == best["epoch"]
    right = judge.features(splits["validation"].pictures)[1].argmax(1) == splits["validation"].labels
    assert right.double().mean().item() == pytest.approx(best["validation_accuracy"])


def test_shift_moves_whole_pictures_and_fills_with_background():
    x = torch.full((64, 1, 28, 28), -1.0)
    x[:, 0, 10, 12] = 1
    y = shifted(x, 2, torch.Generator().manual_seed(0))
    spots = {tuple(p[0].nonzero()[0].tolist()) for p in (y > 0)}
    assert y.shape == x.shape
    assert ((y > 0).sum((1, 2, 3)) == 1).all()
    assert {r for r, _ in spots} == set(range(8, 13))
    assert {c for _, c in spots} == set(range(10, 15))
    assert len(spots) > 15  # of the 25: the two directions are drawn apart


def test_features_do_not_depend_on_the_batch_and_leave_the_mode(judge, splits):
    x = splits["test"].pictures[:30]
    judge.train()
    features, logits = judge.features(x, batch_size=7)
    assert judge.training
    judge.eval()
    whole, _ = judge.features(x)
    assert torch.allclose(features, whole, atol=1e-5)
    assert features.shape == (30, 8)
    assert logits.shape == (30, 3)
    assert torch.allclose(judge.classifier(features), judge(x), atol=1e-5)  # the penultimate layer, nothing in between
    assert judge.features(x[:0])[0].shape == (0, 8)


@pytest.mark.parametrize("shape", [(4, 1, 32, 32), (4, 3, 28, 28), (1, 28, 28), (4, 784)])
def test_the_judge_refuses_other_shapes(judge, shape):
    for call in (judge, judge.features):
        with pytest.raises(ShapeError, match=r"\(N, 1, 28, 28\)"):
            call(torch.zeros(shape))


def test_the_judge_refuses_levels(judge):
    with pytest.raises(DataError, match="uint8"):
        judge(torch.zeros(4, 1, 28, 28, dtype=torch.uint8))


def test_a_saved_judge_gives_the_same_features(judge, splits, tmp_path):
    save_judge(judge, tmp_path / "j", {"accuracy": {"test": {"value": 0.5}}})
    loaded = load_judge(tmp_path / "j")
    x = splits["test"].pictures[:9]
    assert torch.equal(loaded.features(x)[0], judge.features(x)[0])
    assert loaded.card["accuracy"]["test"]["value"] == 0.5
    assert loaded.class_names == NAMES
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_damaged_judge_is_one_clear_error(judge, tmp_path):
    def broken(change) -> None:
        save_judge(judge, tmp_path, {})
        change()
        with pytest.raises(CheckpointError, match=str(tmp_path)):
            load_judge(tmp_path)

    def edit(**changes) -> None:
        meta = json.loads((tmp_path / CARD).read_text())
        (tmp_path / CARD).write_text(json.dumps(meta | changes))

    broken(lambda: (tmp_path / WEIGHTS).unlink())
    broken(lambda: (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:-9]))
    broken(lambda: (tmp_path / CARD).write_text("{"))
    broken(lambda: edit(format_version=99))
    broken(lambda: edit(config={"widths": [4, 8, 16], "class_names": NAMES}))
    broken(lambda: edit(config={"depth": 3}))
    with pytest.raises(CheckpointError):
        load_judge(tmp_path / "nowhere")


@pytest.mark.parametrize("widths", [[4, 8, 10**6], [10**6] * 3, [10**30, 1, 1]])
def test_a_judge_that_its_file_cannot_be_for_is_refused_before_it_is_built(judge, tmp_path, widths):
    save_judge(judge, tmp_path, {})
    reseal(tmp_path / CARD, config=judge.config | {"widths": widths})
    with pytest.raises(CheckpointError, match=r"do not belong together|cannot be built"):
        load_judge(tmp_path)


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="widths"):
        Judge((4, 8), NAMES)
    with pytest.raises(ConfigError, match="classes"):
        Judge((4, 8, 8), ("one",))


# ---- data and the script -----------------------------------------------------------------------------------


def archive(path: Path, rows: int = 5060, **changes) -> Path:
    rng = np.random.default_rng(0)
    arrays = {"class_names": np.array(NAMES)}
    for split, n in (("train", rows), ("test", 30)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 3).astype(np.uint8)
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def test_the_last_5000_training_rows_are_the_validation_set(tmp_path):
    path = archive(tmp_path / "f.npz")
    data = {split: FASHION.open(path, split) for split in SPLITS}
    with np.load(path) as arrays:
        raw = arrays["train_images"]
    assert FASHION.build(data["train"]).class_names == NAMES
    assert {k: len(v) for k, v in data.items()} == {"train": 60, "validation": 5000, "test": 30}
    pictures, labels = FASHION.samples(data["validation"])
    assert np.array_equal(((pictures[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy(), raw[-5000:])
    assert labels.tolist() == [i % 3 for i in range(60, 5060)]
    train = FASHION.samples(data["train"])[0]
    assert torch.equal(quantise(train), train)  # a saved file holds exactly these levels


def test_bad_data_is_refused(tmp_path):
    bad = {
        "lacks test_labels": {"test_labels": None},
        "lacks class_names": {"class_names": None},
        "is not Fashion-MNIST": {"test_images": np.zeros((30, 32, 32), np.uint8)},
        "3 class_names, but labels up to 7": {"test_labels": np.full(30, 7, np.uint8)},
        "300 training rows": {"rows": 300},
    }
    for message, change in bad.items():
        path = archive(tmp_path / "f.npz", **change)
        with pytest.raises(DataError, match=message):
            main(["fashion", "--data", str(path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_script_writes_a_judge_with_measured_numbers(tmp_path, capsys):
    options = ["--epochs", "1", "--batch-size", "20", "--widths", "2", "2", "4", "--seed", "5"]
    main(["fashion", "--data", str(archive(tmp_path / "f.npz")), "--out", str(tmp_path / "out"), *options])
    card = load_judge(tmp_path / "out").card
    assert card["accuracy"]["test"]["n"] == 30
    assert 0 <= card["accuracy"]["test"]["value"] <= 1
    assert card["training"]["settings"]["seed"] == 5
    assert str(tmp_path) not in json.dumps(card)
    assert card["command"] == (
        "python benchmarks/train_judge.py fashion --data f.npz --out DIR --epochs 1 --batch-size 20 --lr 0.1 "
        "--widths 2 2 4 --seed 5"
    )
    assert "validation accuracy" in capsys.readouterr().out


# ---- evaluation --------------------------------------------------------------------------------------------


def test_quantise_gives_the_levels_of_a_saved_file():
    x = torch.tensor([-2.0, -1.0, -0.9999, 0.0, 1.0, 5.0])
    assert ((quantise(x) + 1) * 127.5).tolist() == pytest.approx([0, 0, 0, 128, 255, 255])
    assert quantise(x.double()).dtype == torch.float32
    assert torch.equal(quantise(quantise(x)), quantise(x))


def test_a_perfect_model_scores_as_the_ceiling(evaluator):
    samples, labels = pictures(120, 7)
    result = evaluator.evaluate(samples, labels)
    m = result["metrics"]
    assert list(m) == list(Evaluator.better)
    assert json.loads(json.dumps(result)) == result
    for name, entry in m.items():
        assert all(isinstance(entry[k], float) for k in ("value", "ceiling", "floor")), name
    assert m["accuracy"]["value"] > 0.95 < m["accuracy"]["ceiling"]
    low, high = m["frechet"]["ceiling_range"]
    assert low < m["frechet"]["ceiling"] < high  # two subsets of 120 in 240
    assert m["precision"]["value"] > 0.8
    assert m["recall"]["value"] > 0.8
    assert m["frechet"]["value"] < 5 * m["frechet"]["ceiling"]
    assert abs(m["pixel_deviation"]["value"] - 1) < 0.1
    assert m["copy_rate"]["value"] < 0.1
    assert m["nearest_copy"]["value"] > 0
    assert sum(c["n"] for c in result["per_class"].values()) == 120
    assert set(result["per_class"]) == set(NAMES)
    assert all(name in format_table(m) for name in m)


def test_a_table_has_the_columns_that_there_are():
    bond = {"value": 0.00451, "idealised": 0.0003, "ceiling": 0.0096, "floor": None, "better": "lower"}
    assert format_table({"bond": bond}).splitlines() == [
        f"{'metric':16}     value idealised   ceiling     floor  better",
        f"{'bond':16}    0.0045    0.0003    0.0096         -  lower",
    ]
    plain = {k: v for k, v in bond.items() if k != "idealised"}
    assert "idealised" not in format_table({"bond": plain})


def test_noise_scores_as_the_floor(evaluator):
    noise = torch.rand(120, 1, 28, 28, generator=torch.Generator().manual_seed(9)) * 2 - 1
    m = evaluator.evaluate(noise, torch.arange(120) % 3)["metrics"]
    assert m["frechet"]["value"] == pytest.approx(m["frechet"]["floor"], rel=0.3)
    assert m["precision"]["value"] == m["precision"]["floor"] == 0
    assert m["frechet"]["floor"] > 10 * m["frechet"]["ceiling"]
    assert m["kid"]["floor"] > 10 * abs(m["kid"]["ceiling"])
    assert m["accuracy"]["floor"] < 0.6


def test_accuracy_is_that_of_the_label_that_was_asked_for(evaluator):
    samples, labels = pictures(60, 8)
    wrong = labels.clone()
    wrong[labels == 1] = 2  # asked for "top", drawn "right"
    result = evaluator.evaluate(samples, wrong)
    accuracy = result["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx(40 / 60, abs=0.05)
    assert accuracy["interval"][0] < accuracy["value"] < accuracy["interval"][1]
    assert result["per_class"]["top"]["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert result["per_class"]["left"]["accuracy"] > 0.9
    assert "right" not in result["per_class"]


def test_copies_are_found_and_the_ceiling_is_one_percent(evaluator, splits):
    fresh, labels = pictures(60, 10)
    samples = torch.cat([fresh[:40], splits["train"].pictures[:20] + 0.001])  # rounding takes the difference away
    m = evaluator.evaluate(samples, labels)["metrics"]
    assert m["copy_rate"]["value"] == pytest.approx(20 / 60, abs=0.06)
    assert m["nearest_copy"]["value"] == 0
    assert m["copy_rate"]["ceiling"] == pytest.approx(0.01, abs=0.01)  # 120 held-out pictures: 1.2 of them
    assert (m["copy_rate"]["floor"], m["nearest_copy"]["floor"]) == (1, 0)
    assert m["nearest_copy"]["ceiling"] > 0


def test_a_model_that_collapsed_loses_recall_and_deviation(evaluator):
    samples, labels = pictures(120, 11)
    mean = torch.stack([samples[labels == c].mean(0) for c in range(3)])[labels]
    m = evaluator.evaluate(mean + 0.05 * (samples - mean), labels)["metrics"]
    assert m["recall"]["value"] < 0.5 * m["recall"]["ceiling"]
    assert m["pixel_deviation"]["value"] < 0.95 * m["pixel_deviation"]["ceiling"]


def test_the_same_input_gives_the_same_numbers(judge, splits, evaluator):
    samples, labels = pictures(30, 12)
    one = Evaluator(judge, splits["test"], splits["train"].pictures).evaluate(samples, labels)
    assert one["metrics"] == evaluator.evaluate(samples, labels)["metrics"]


def test_bad_samples_are_refused(evaluator):
    x, y = pictures(30, 13)
    cases = [
        (x[:, :, :27], y, ShapeError),
        (x, y[:29], ShapeError),
        (x[:3], y[:3], ShapeError),
        (x[:0], y[:0], ShapeError),
        (x, y + 1, DataError),
        (x, y.float(), DataError),
        (x.byte(), y, DataError),
        (x.where(x < 0, torch.nan), y, DataError),
    ]
    for samples, labels, error in cases:
        with pytest.raises(error):
            evaluator.evaluate(samples, labels)


# ---- the packaged judge ------------------------------------------------------------------------------------


def test_the_packaged_judge_loads_and_is_small():
    judge = load_judge()
    assert len(judge.class_names) == 10
    assert judge.card["accuracy"]["test"]["n"] == 10000
    assert 0.925 < judge.card["accuracy"]["test"]["value"] < 0.95
    assert sum(p.stat().st_size for p in PACKAGED.iterdir()) < 1.5e6


@pytest.mark.data
def test_the_packaged_judge_keeps_its_numbers_on_real_pictures(zoo_data):
    path = zoo_data / "image" / "fashion_mnist.npz"
    data = {split: Split(*FASHION.samples(FASHION.open(path, split))) for split in SPLITS}
    judge = load_judge()
    right = judge.features(data["test"].pictures)[1].argmax(1) == data["test"].labels
    assert judge.class_names == FASHION.build(FASHION.open(path, "test")).class_names
    # a rounding of another CPU may turn a picture or two
    assert right.double().mean().item() == pytest.approx(judge.card["accuracy"]["test"]["value"], abs=5e-4)
    few = Evaluator(judge, (data["test"].pictures[:1000], data["test"].labels[:1000]), data["train"].pictures[:5000])
    m = few.evaluate(data["validation"].pictures[:500], data["validation"].labels[:500])["metrics"]
    assert m["accuracy"]["value"] > 0.88
    assert m["frechet"]["value"] < 0.1 * m["frechet"]["floor"]

"""Distances, sets, textures and the judge of clouds: known answers, refusals, and real data as its own answer."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from train_judge import KINDS, accuracy, train_judge

import zoo
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.evaluation.evaluate import evaluate as measure
from zoo.point3d import evaluate, metrics
from zoo.point3d.cloud import PointCloud
from zoo.point3d.data import SPLITS, Clouds, open_clouds
from zoo.point3d.evaluate import Evaluator, plain
from zoo.point3d.judge import PACKAGED, Judge, load_judge
from zoo.point3d.metrics import chamfer, compare_sets, distances, earth_mover, interval, spacing, thickness, trees
from zoo.point3d.recipes import SHAPES

rng = np.random.default_rng(0)

# ---------------------------------------------------------------- two clouds


def test_chamfer_of_known_points():
    a, b = trees([np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([[0.0, 0, 0], [0, 2, 0], [0, 4, 0]])])
    # 0 -> 0 and 1 -> 0 at distance 1; back 0, 2 and 4
    assert chamfer(a, b) == pytest.approx((0 + 1) / 2 + (0 + 4 + 16) / 3)
    assert chamfer(a, b) == chamfer(b, a) and chamfer(a, a) == 0


@pytest.mark.parametrize("largest", [40, 10])
def test_the_earth_mover_pairs_what_belongs_together(largest, monkeypatch):
    """By scipy and, above the largest size for it, by POT."""
    n = 40
    monkeypatch.setattr(metrics, "ASSIGNED", largest)
    grid = np.stack(np.meshgrid(*[np.arange(9.0)] * 3), -1).reshape(-1, 3)[:n]
    assert earth_mover(grid, grid[rng.permutation(n)]) == pytest.approx(0, abs=1e-9)
    assert earth_mover(grid, grid[rng.permutation(n)] + (0, 0.3, 0.4)) == pytest.approx(0.5), "less than half a step: all shift"
    # on a line the best pairing is by rank
    line = np.zeros((2, n, 3))
    line[:, :, 0] = rng.standard_normal((2, n))
    want = np.abs(np.sort(line[0, :, 0]) - np.sort(line[1, :, 0])).mean()
    assert earth_mover(*line) == pytest.approx(want)
    with pytest.raises(ShapeError, match="equal size"):
        earth_mover(grid, grid[1:])


def test_all_distances_of_two_lists():
    clouds = trees(rng.standard_normal((4, 20, 3)))
    both = distances(clouds, clouds)
    np.testing.assert_allclose(both, [[chamfer(a, b) for b in clouds] for a in clouds])
    np.testing.assert_allclose(distances(clouds, clouds[:2]), both[:, :2])


# ---------------------------------------------------------------- two sets


def sets(a, b):
    """`compare_sets` of numbers on a line."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return compare_sets(*(abs(x[:, None] - y) for x, y in ((a, a), (a, b), (b, b))))


def test_a_classifier_of_sets_that_lie_apart_is_right_and_of_pairs_wrong():
    apart = sets([0, 1, 2], [10, 11, 12])
    assert apart.nearest.mean() == 1 and apart.covered.tolist() == [1, 0, 0] and apart.matched.tolist() == [8, 9, 10]
    copies = sets([0, 10, 20], [0.1, 10.1, 20.1])
    assert copies.nearest.mean() == 0 and copies.covered.mean() == 1
    np.testing.assert_allclose(copies.matched, 0.1)
    assert sets([0, 1], [-1, 3]).nearest.tolist() == [0.5, 1, 0, 0], "0 has a neighbour of each set at the same distance"


def test_sets_of_one_kind_come_near_a_half():
    values = [sets(rng.standard_normal(60), rng.standard_normal(60)).nearest.mean() for _ in range(30)]
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)
    collapsed = sets(0.01 * rng.standard_normal(60), rng.standard_normal(60))
    assert collapsed.nearest.mean() > 0.8 and collapsed.covered.mean() < 0.1
    with pytest.raises(ShapeError, match="one size"):
        compare_sets(np.zeros((3, 3)), np.zeros((3, 2)), np.zeros((2, 2)))


@pytest.mark.slow
def test_an_interval_holds_the_mean_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        mean, low, high = interval([np.random.default_rng(seed).random(40) < 0.3], 200, seed)
        hits += low <= 0.3 <= high
        assert low <= mean <= high
    assert hits >= 50
    assert interval([np.ones(5), np.ones(5)]) == (1, 1, 1)
    with pytest.raises(ConfigError, match="draws"):
        interval([])


# ---------------------------------------------------------------- one cloud


def test_a_plane_has_no_thickness_and_a_slab_that_of_its_noise():
    plane = np.c_[rng.uniform(-1, 1, (3000, 2)), np.zeros(3000)]
    slab = plane + [0, 0, 1] * (0.002 * rng.standard_normal((3000, 1)))
    flat, tilted, thick = trees([plane, plane @ np.linalg.qr(rng.standard_normal((3, 3)))[0] + 5, slab])
    assert thickness(flat) < 1e-7 and thickness(tilted) < 1e-7
    # the plane that fits 13 points best takes up 3 of their 13 degrees of freedom
    assert thickness(thick) == pytest.approx(0.002 * np.sqrt(10 / 13), rel=0.05)


def test_the_spacing_of_a_grid_is_its_step():
    grid = 0.25 * np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3)
    assert spacing(trees([grid])[0]) == pytest.approx(0.25)


# ---------------------------------------------------------------- judge and evaluator


@pytest.fixture(scope="module")
def judge(shapes_file):
    small = replace(KINDS["shapes"], points=64, widths=(16, 32, 32), length=80, batch_size=16, lr=0.01)
    made, report = train_judge(small, {"train": small.open(shapes_file, "train")}, log=False)
    assert report["settings"]["steps"] == 80 and report["settings"]["points"] == 64
    return made


@pytest.fixture(scope="module")
def measured(shapes_file, judge):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "MOVED", 16)
        patch.setattr(evaluate, "DRAWS", 8)
        patch.setattr(evaluate, "CEILING", 100)  # all of them
        yield Evaluator(judge, open_clouds(shapes_file, "test"), open_clouds(shapes_file), split="test")


def test_the_judge_knows_its_shapes_in_any_order_of_points(judge, shapes_file, tmp_path):
    x, y = KINDS["shapes"].samples(open_clouds(shapes_file, "test"))
    assert accuracy(judge, x, y)["value"] > 0.9
    torch.testing.assert_close(judge.features(x)[1], judge.features(x[:, torch.randperm(256)])[1])
    zoo.evaluation.judge.save_judge(judge, tmp_path, {"a": 1})
    again = load_judge(tmp_path)
    assert again.card == {"a": 1} and torch.equal(again.features(x)[1], judge.features(x)[1])
    with pytest.raises(ShapeError, match="points, 3"):
        judge.features(x[..., :2])
    with pytest.raises(DataError, match="int16"):
        judge.features(x.to(torch.int16))
    with pytest.raises(ConfigError, match="widths"):
        Judge((4, 4), ("a", "b"))


@pytest.mark.slow
def test_real_shapes_come_near_the_ceiling_and_copies_are_found(measured, shapes_file):
    train = open_clouds(shapes_file)
    result = measured.evaluate([c.points for c in train.clouds], train.label)
    assert set(result["metrics"]) == set(measured.better) and result["protocol"]["samples"] == 56
    figures = {k: m["value"] for k, m in result["metrics"].items()}
    assert figures["copy_rate"] == 1 and figures["nearest_copy"] == 0
    for name in ("nna", "coverage", "mmd", "nna_emd", "thickness", "spacing"):
        assert figures[name] == pytest.approx(result["metrics"][name]["ceiling"], abs=0.1)
    assert 0.3 < figures["nna"] < 0.7 and 0.9 < figures["thickness"] < 1.1 and figures["accuracy"] > 0.9
    low, high = result["metrics"]["nna"]["interval"]
    assert low < figures["nna"] < high
    assert list(result["per_class"]) == ["ball", "box", "rod", "sheet"] and result["per_class"]["rod"]["reference"] == 4
    floor = {k: m["floor"] for k, m in result["metrics"].items()}
    assert floor["nna"] > figures["nna"] + 0.1 and floor["thickness"] > 1.3 and floor["copy_rate"] == 1
    assert result["metrics"]["copy_rate"]["ceiling"] == pytest.approx(0.05, abs=0.08)
    json.dumps(result)


def test_the_points_that_earth_is_moved_from_are_drawn(measured, monkeypatch):
    seen = []
    monkeypatch.setattr(evaluate, "earth_mover", lambda a, b: seen.append(b) or 1.0)
    monkeypatch.setattr(evaluate, "interval", lambda draws: (0.0, 0.0, 0.0))  # takes its time
    measured.compare(measured.reference, measured.labels)
    assert {len(x) for x in seen} == {16}
    starts = {x[:16].tobytes() for x in measured.reference}
    assert not any(x.tobytes() in starts for x in seen), "not the first ones of the file"


@pytest.mark.slow
def test_worse_clouds_measure_worse(measured, shapes_file):
    test = open_clouds(shapes_file, "test")
    noisy = [x + np.float32(0.05) * rng.standard_normal(x.shape).astype("f4") for x in measured.reference]
    thick = measured.compare(noisy, measured.labels)[0]
    assert thick["thickness"] > 1.2
    wrong = measured.compare(measured.reference, np.roll(measured.labels, 4))[0]
    assert wrong["accuracy"] < 0.1
    stretched = [PointCloud(c.points * np.float32([1.1, 1, 0.9])) for c in open_clouds(shapes_file).clouds[:10]]
    copies = measured._nearest([c.points for c in stretched], open_clouds(shapes_file).label[:10])
    assert copies.max() < 1e-9, "stretching hides no copy"
    np.testing.assert_allclose(plain(test.clouds[0].points).std(0), 1, rtol=1e-4)


def test_what_cannot_be_measured_is_said(measured, judge, shapes_file):
    clouds, labels = measured.reference, measured.labels
    with pytest.raises(ShapeError, match="as many labels"):
        measured.evaluate(clouds, labels[:-1])
    with pytest.raises(ShapeError, match="3 samples of 'ball', but 4"):
        measured.evaluate(clouds[1:], labels[1:])
    with pytest.raises(DataError, match="ball, box, rod, sheet"):
        measured.evaluate(clouds, np.where(labels == 0, 7, labels))
    test = open_clouds(shapes_file, "test")
    with pytest.raises(DataError, match="the judge knows"):
        Evaluator(judge, Clouds(test.clouds, test.label, ["a", "b", "c", "d"]), test)
    with pytest.raises(DataError, match="no category has 3"):
        Evaluator(judge, Clouds(test.clouds[:2], test.label[:2], test.labels["label"]), test)


@pytest.mark.slow
def test_a_model_is_evaluated_with_its_settings(measured, monkeypatch):
    small = {"net.dim": 16, "net.width": 16, "net.latents": 4, "net.rounds": 1, "net.inner": 8, "net.heads": 1}
    small |= {"codec.points": 256, "conditions.label.values": list(measured.judge.class_names)}
    model = zoo.create("point3d/shapes-ddpm", **small)
    result = measure(model, 16, evaluator=measured, steps=2, progress=False)
    assert result["protocol"]["steps"] == 2 and result["protocol"]["samples"] == 16
    assert result["metrics"]["nna"]["value"] > 0.8, "noise"
    monkeypatch.setattr(evaluate, "load_judge", lambda: measured.judge)
    monkeypatch.setenv("ZOO_DATA", "nowhere")
    with pytest.raises(ConfigError, match="the judge knows models"):
        evaluate.evaluator(model=zoo.create("point3d/shapes-ddpm"))
    with pytest.raises(DataError, match="no data at elsewhere"):
        evaluate.evaluator("elsewhere", model=zoo.create("point3d/shapes-ddpm"))
    monkeypatch.delenv("ZOO_DATA", raising=False)
    with pytest.raises(DataError, match="ZOO_DATA"):
        evaluate.evaluator()


# ---------------------------------------------------------------- what is packaged


@pytest.mark.skipif(not PACKAGED.exists(), reason="no packaged judge")
def test_the_packaged_judge_is_whole():
    judge = load_judge()
    assert judge.class_names == SHAPES and {"train", "validation", "test"} == set(judge.card["accuracy"]) == set(SPLITS)
    assert (PACKAGED / "judge.safetensors").stat().st_size < 1_000_000


@pytest.mark.data
def test_the_packaged_judge_does_what_its_card_says(zoo_data):
    judge = load_judge()
    found = accuracy(judge, *KINDS["shapes"].samples(open_clouds(zoo_data / "point3d", "test")), KINDS["shapes"].chunk)
    assert found["value"] == judge.card["accuracy"]["test"]["value"]


@pytest.mark.data
@pytest.mark.skipif(not zoo.info("point3d/shapes-ddpm").packaged, reason="no packaged weights")
def test_the_packaged_model_says_what_its_card_says(zoo_data):
    card = zoo.info("point3d/shapes-ddpm").evaluation["metrics"]
    model = zoo.load("point3d/shapes-ddpm")
    judge = model.domain.evaluator(zoo_data / "point3d", "test", model)
    labels = judge.labels.tolist()  # as many of each category as there are real ones: the least that can be compared
    samples = model.sample(len(labels), label=labels, seed=123, progress=False, precision="auto")  # as `benchmarks/package.py`
    found, _ = judge.compare([s.points for s in samples], np.array(labels))
    for name, far in (("nna", 0.12), ("coverage", 0.12), ("accuracy", 0.1), ("thickness", 0.3)):
        assert abs(found[name] - card[name]["value"]) < far

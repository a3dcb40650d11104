"""The frame in which judges are trained, on points of a plane; the kinds are tested with their domains."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import train_judge as script
from torch import nn
from train_judge import KINDS, AverageOfTheEnd, BestEpoch, Kind, accuracy, parser, train_judge

from zoo.errors import ConfigError, DataError
from zoo.evaluation.judge import Judge


class PlaneJudge(Judge):
    """Classifier of points (B, 2) with a batch norm, as all judges have one."""

    def __init__(self, widths: tuple[int, ...], class_names: tuple[str, ...], dropout: float = 0.2) -> None:
        super().__init__(widths, class_names, dropout)
        self.net = nn.Sequential(nn.Linear(2, widths[-1]), nn.BatchNorm1d(widths[-1]), nn.ReLU())
        self.classifier = nn.Linear(widths[-1], len(class_names))

    def check(self, x: torch.Tensor) -> None:
        pass

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@dataclass(frozen=True, kw_only=True)
class Plane(Kind):
    """Left or right of a line; remembers nothing, moves points a little."""

    file: str = "plane.npz"
    split: str = ""
    widths: tuple[int, ...] = (4, 4, 8)
    length: int = 3
    batch_size: int = 8
    lr: float = 0.05

    @property
    def augmentation(self):
        return {"moved": 0.1}

    def build(self, data):
        return PlaneJudge(self.widths, ("left", "right"))

    def samples(self, data):
        return data, (data[:, 0] > 0).long()

    def batch(self, data, rows, rng):
        x, y = self.samples(data)
        return x[rows] + 0.1 * torch.randn(len(rows), 2, generator=rng), y[rows]

    def optimizer(self, judge, steps):
        optimizer = torch.optim.AdamW(judge.parameters(), self.lr)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)


@pytest.fixture(scope="module")
def data() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {split: torch.randn(n, 2, generator=rng) for split, n in {"train": 60, "validation": 20}.items()}


def weights(judge: Judge) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in judge.parameters()])


def test_a_judge_learns_and_the_report_says_how(data):
    judge, report = train_judge(Plane(length=6), data, seed=1, log=False)
    assert not judge.training
    assert accuracy(judge, *Plane().samples(data["validation"]))["value"] > 0.8
    settings = {"widths": [4, 4, 8], "epochs": 6, "batch_size": 8, "lr": 0.05, "seed": 1, "moved": 0.1}
    assert report["settings"] == settings
    assert [e["epoch"] for e in report["curve"]] == [1, 2, 3, 4, 5, 6]


def test_the_seed_is_all_that_decides(data):
    torch.manual_seed(99)
    first = weights(train_judge(Plane(), data, seed=1, log=False)[0])
    torch.rand(7)
    assert torch.equal(first, weights(train_judge(Plane(), data, seed=1, log=False)[0]))
    assert not torch.equal(first, weights(train_judge(Plane(), data, seed=2, log=False)[0]))


def test_an_epoch_is_every_row_once_and_whole_batches():
    kind = Plane(length=2, batch_size=8)
    batches = list(kind.batches(30, torch.Generator().manual_seed(0)))
    assert [len(rows) for rows in batches] == [8] * kind.steps(30) == [8] * 6
    first, second = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert len(first.unique()) == len(second.unique()) == 24
    assert not torch.equal(first, second)
    (few,) = Plane(length=1).batches(5, torch.Generator())  # fewer rows than a batch are one
    assert sorted(few.tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("later", "epoch"), [(False, 2), (True, 4)])
def test_the_best_epoch_is_kept_the_first_or_the_last_of_equals(later, epoch, monkeypatch, capsys):
    judge = PlaneJudge((2, 2, 2), ("a", "b"))
    values = iter([0.5, 0.9, 0.7, 0.9, 0.8])
    monkeypatch.setattr(script, "accuracy", lambda *_: {"value": next(values)})
    choice = BestEpoch(judge, (torch.zeros(1), torch.zeros(1)), 500, steps=2, later=later, log=True)
    for step in range(1, 11):
        nn.init.constant_(judge.classifier.weight, float(step))
        choice.after(step, loss=step / 2)
    report = choice.finish()
    assert report["chosen_epoch"] == epoch
    assert (judge.classifier.weight == 2 * epoch).all(), "its weights, not the last ones"
    assert [e["train_loss"] for e in report["curve"]] == [0.75, 1.75, 2.75, 3.75, 4.75]
    assert "epoch 2: train loss 1.7500, validation accuracy 0.9000" in capsys.readouterr().out


def test_the_last_fifth_is_averaged_and_its_batch_norm_measured():
    judge = PlaneJudge((2, 2, 2), ("a", "b"))
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    choice = AverageOfTheEnd(judge, 200, iter([points[:25], points[25:]]))
    for step in range(1, 201):
        nn.init.constant_(judge.classifier.weight, float(step))
        choice.after(step, loss=1.0 if step <= 100 else 3.0)
    report = choice.finish()
    assert (judge.classifier.weight - sum(range(161, 201)) / 40).abs().max() < 1e-3
    expected = torch.stack([judge.net[0](half).mean(0) for half in points.split(25)]).mean(0)
    torch.testing.assert_close(judge.net[1].running_mean, expected)
    assert report["curve"] == [{"step": 100, "train_loss": 1.0}, {"step": 200, "train_loss": 3.0}]


@pytest.mark.parametrize("change", [{"length": 0}, {"length": -1}, {"batch_size": 1}])
def test_training_that_is_not_possible_is_refused(data, change):
    with pytest.raises(ConfigError, match=r"epochs must be >= 1 and batch_size >= 2"):
        train_judge(replace(Plane(), **change), data, log=False)
    with pytest.raises(ConfigError, match=r"steps must be >= 5"):
        train_judge(replace(KINDS["shapes"], length=4), {}, log=False)


@pytest.mark.parametrize("name", KINDS)
def test_the_command_has_each_kind_with_its_defaults(name, tmp_path):
    kind = KINDS[name]
    args = parser().parse_args([name, "--data", "a.npz", "--out", "b"])
    assert (args.length, args.batch_size, args.lr, tuple(args.widths)) == (kind.length, kind.batch_size, kind.lr, kind.widths)
    assert parser().parse_args([name, "--data", "a", "--out", "b", f"--{kind.unit}", "7"]).length == 7
    for path in (tmp_path, tmp_path / "nowhere.npz"):
        with pytest.raises(DataError, match=f"no file {path}; give the path of {kind.file}"):
            script.main([name, "--data", str(path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_kind_must_be_named(capsys):
    for arguments in ([], ["cats", "--data", "a", "--out", "b"], ["shapes", "--data", "a", "--out", "b", "--epochs", "3"]):
        with pytest.raises(SystemExit):
            parser().parse_args(arguments)
    assert "KIND" in capsys.readouterr().err

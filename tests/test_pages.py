"""What programs write into pages."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import completion
import equal_minutes
import learned_variance
import pages
import pytest
import torch

import zoo


def test_a_part_of_a_page_is_replaced_and_nothing_else():
    text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb <!-- y:begin -->\n<!-- y:end -->\n"
    assert pages.filled(text, "x", "new\\1") == text.replace("old", "new\\1")
    assert pages.filled(text, "y", "") == text
    with pytest.raises(SystemExit, match="0 parts named 'z'"):
        pages.filled(text, "z", "new")


def test_completions_are_measured_once_and_told_in_the_page(tmp_path, monkeypatch, capsys):
    """With all that takes long replaced: a row is that of its method, and what the file has is not measured again."""
    asked = []

    class Model:
        domain = SimpleNamespace(name="image")

        def inpaint(self, *, seed, **settings):
            asked.append(settings)
            return ["wrong" if settings["steps"] == 8 and seed else "right"]

    monkeypatch.setattr(completion.zoo, "load", lambda name: Model())
    monkeypatch.setattr(completion, "JUDGES", {"image/fashion-ddpm": lambda: None})
    monkeypatch.setattr(completion, "rows_of", lambda *_: (["right", "right"], ["right", "right"], ["others"]))
    monkeypatch.setattr(completion, "halved", lambda model, item: {})
    monkeypatch.setattr(completion, "features", lambda model, judge, items: (items, items))
    monkeypatch.setattr(completion, "frechet_distance", lambda a, b: 2.0)
    page, kept = tmp_path / "page.md", tmp_path / "kept.json"
    page.write_text("<!-- completion:begin -->\n<!-- completion:end -->\n")
    monkeypatch.setattr(completion, "PAGE", page)
    line = ["completion.py", "--data", str(tmp_path), "--n", "2", "--calls", "8", "--json", str(kept), "--ways"]
    monkeypatch.setattr(sys, "argv", [*line, "real*;replace"])
    completion.main()
    assert [a["steps"] for a in asked] == [8, 8] and all(a["guidance_weight"] == 0 for a in asked)
    assert {a["method"] for a in asked} == {"replace"}, "else it is what the domain takes where nobody names one"
    monkeypatch.setattr(sys, "argv", [*line, "*product*;replace", "--page"])
    completion.main()
    assert [a["steps"] for a in asked[2:]] == [4, 4, 2, 2]
    assert [row["kept"] for row in json.loads(kept.read_text())] == [1.0, 0.5, 1.0, 1.0]
    assert "| `image/fashion-ddpm` | 2 | 8 | replace | 0.50 [0.09, 0.91] | 2.0 |" in page.read_text()
    assert "| `image/fashion-ddpm` | 2 |  | real ones | 1.00 [0.34, 1.00] | 2.0 |" in page.read_text()


@pytest.mark.parametrize("name", ["image/fashion-ddpm", "point3d/shapes-ddpm", "audio/spec-ddpm"])
def test_half_of_an_object_is_known(name):
    model = zoo.load(name)
    (item, _), *_ = model.domain.example_data(model.recipe, 1)
    asked = completion.halved(model, model.codec.decode(model.codec.encode(item)[None], {})[0])
    held = model.domain.hold(model, asked.get("known"), asked.get("where"), {})
    shape = model.encoded(asked["known"]).shape if "where" in asked else model.codec.shape
    known = held.steer.known.expand(1, *shape).float().mean() if "where" in asked else len(asked["known"]) / asked["n_points"]
    assert known == pytest.approx({"image": 0.5, "point3d": 0.5}.get(model.domain.name, 0.8), abs=0.12)


def test_ways_are_trained_for_equal_minutes_once(tmp_path, monkeypatch, capsys):
    """With training and measuring replaced: the chain's models share their minutes, and what is there is not made again."""
    trained, asked = [], []

    def train(line):
        options = dict(zip(line[1:-1:2], line[2::2], strict=True))
        trained.append((line[0], float(options["--minutes"]), options["--set"], "--cpu" in line))
        folder = Path(options["--out"])
        folder.mkdir(parents=True)
        facts = {"steps": 5, "samples": 4, "seconds": 60 * float(options["--minutes"]), "device": "CPU"}
        (folder / equal_minutes.train_packaged.HISTORY).write_text(json.dumps(facts))

    class Net(zoo.Model):
        from_folder = classmethod(lambda cls, folder: SimpleNamespace(denoiser=torch.nn.Linear(1, 1), domain=domain))

    def evaluate(whole, n, **how):
        asked.append((whole if isinstance(whole, list) else "one", n, how["evaluator"]))
        return {"metrics": {k: {"value": len(asked), "ceiling": 9.5} for k in equal_minutes.FIGURES}}

    domain = SimpleNamespace(evaluator=lambda data, split, model: split)
    monkeypatch.setattr(equal_minutes.train_packaged, "main", train)
    monkeypatch.setattr(equal_minutes, "Model", Net)
    monkeypatch.setattr(equal_minutes.zoo, "Chain", list)
    monkeypatch.setattr(equal_minutes, "evaluate", evaluate)
    page = tmp_path / "page.md"
    page.write_text("<!-- equal:begin -->\n<!-- equal:end -->\n")
    monkeypatch.setattr(equal_minutes, "PAGE", page)
    line = [
        "--data",
        "data.npz",
        "--out",
        str(tmp_path / "out"),
        "--minutes",
        "10",
        "--set",
        "training.lr=1",
        "--cpu",
        "--page",
    ]
    for _ in range(2):
        equal_minutes.main([*line, "--cpu", "--page", "--n", "8"])
    assert [(name.split("/")[1], minutes) for name, minutes, *_ in trained] == [
        ("emoji-text", 10), ("emoji-32", 6), ("emoji-up", 4), ("emoji-pixels", 10),
    ]  # fmt: skip
    assert all(given == "training.lr=1" and cpu for *_, given, cpu in trained)
    assert [(isinstance(whole, list), n, split) for whole, n, split in asked] == [
        (False, 8, "validation"), (True, 8, "validation"), (False, 8, "validation"),
    ]  # fmt: skip
    text = page.read_text()
    assert "After 10 minutes of training each (CPU" in text and "8 samples, validation data" in text
    assert "| chain | 0.0 M | 5 of 4 + 5 of 4 | 2 | 2 | 2 | 2 | 2 |" in text and "| real pictures | | | 9.5 |" in text


def test_variances_are_compared_in_a_page():
    rows = [
        {"steps": s, "variance": v, "n": 9, "frechet": 10.0 / s, "accuracy": 0.5}
        for s in (2, 5)
        for v in learned_variance.VARIANCES
    ]
    text = learned_variance.page(rows, {"small": 4.0, "large": 3.0, "learned": 2.5})
    assert "9 samples" in text and "| variance | 2 steps | 5 steps | bound, bits per dimension |" in text
    assert "| `learned` | 5.0 (0.50) | 2.0 (0.50) | 2.50 |" in text

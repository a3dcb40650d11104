"""The `zoo` command: what it prints, what it writes, how it fails."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.cli import main, mask_of
from zoo.contract.registry import get_domain
from zoo.core.steer import STEERS
from zoo.evaluation.evaluate import Evaluator

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(zoo.create("image/fashion-ddpm", **SMALL).save_pretrained(tmp_path_factory.mktemp("cli") / "m"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (40, 33), dtype=np.uint8)).save(root / label / f"{i}.png")
    return root


def test_list(capsys):
    assert main(["list", "image/*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == zoo.list_models("image/*")


def test_info(capsys):
    assert main(["info", "image/fashion-ddpm"]) == 0
    assert "sneaker" in capsys.readouterr().out


def test_sample_writes_pictures_and_says_where(folder, tmp_path, capsys):
    out = tmp_path / "out"
    conditions = ["-n", "3", "--label", "sneaker,bag,7", "--guidance-weight", "1", "--seed", "0"]
    options = [*conditions, "--steps", "2", "--sampler", "ddim", "--option", "eta=0.5"]
    assert main(["sample", folder, *options, "-o", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["0000-sneaker.png", "0001-bag.png", "0002-sneaker.png", "samples.png"]
    assert str(out / "samples.png") in capsys.readouterr().out
    expected = zoo.load(folder).sample(
        3, label=["sneaker", "bag", 7], steps=2, guidance_weight=1.0, seed=0, sampler="ddim", eta=0.5
    )
    for path, sample in zip(sorted(out.glob("0*.png")), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), sample.pixels)


def test_eval_prints_the_figures_and_writes_what_there_is_of_each_sample(folder, tmp_path, capsys, monkeypatch):
    asked = []
    metrics = {"success": {"value": 1.0, "better": "higher"}}

    class Counting(Evaluator):
        options = ("extra",)

        def generate(self, model, n, *, seed, **settings):
            asked.append((n, settings))
            return n, {"sampler": "none"}

        def measure(self, made, *, extra=0):
            return {"metrics": metrics, "per_episode": [{"seed": extra}], "protocol": {"samples": made}}

    monkeypatch.setattr(type(get_domain("image")), "evaluator", lambda self, data, split, model: Counting())
    assert main(["eval", folder, "--steps", "3"]) == 0
    assert json.loads(capsys.readouterr().out) == {"metrics": metrics, "protocol": {"samples": 1000, "sampler": "none"}}
    assert main(["eval", folder, "--n", "7", "--option", "extra=5", "--json", str(tmp_path / "e.json")]) == 0
    assert "success             1.0000  higher" in capsys.readouterr().out
    assert json.loads((tmp_path / "e.json").read_text())["per_episode"] == [{"seed": 5}]
    assert asked == [(1000, {"steps": 3}), (7, {})]
    assert main(["eval", folder, "--n", "0"]) == 2
    assert "n=0" in capsys.readouterr().err


def test_any_condition_of_the_model_is_an_option(tmp_path):
    conditions = {"label": {"values": ["a", "b"]}, "left_foot": {"values": ["x", "y"], "free": "draw"}}
    zoo.create("image/fashion-ddpm", **SMALL, conditions=conditions).save_pretrained(tmp_path / "m")
    command = ["sample", str(tmp_path / "m"), "-n", "2", "--left-foot", "y,x", "--steps", "1", "-o", str(tmp_path / "out")]
    assert main([*command, "--label=b"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("0*")) == ["0000-b-y.png", "0001-b-x.png"]
    with pytest.raises(SystemExit):
        main(["verify", str(tmp_path / "m"), "--left-foot", "y"])


def test_verify(folder, capsys):
    assert main(["verify", folder]) == 0
    assert re.search(r"within \d\.\de[-+]\d\d$", capsys.readouterr().out.strip())


def test_the_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out == f"zoo {zoo.__version__}\n"


def test_a_pattern_that_fits_nothing_is_an_error_for_people_and_an_empty_list_for_programs(capsys):
    assert main(["list", "image/fashon*"]) == 2
    assert "unknown model 'image/fashon*'. Did you mean 'image/fashion-" in capsys.readouterr().err
    assert main(["list", "image/fashon*", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_list_and_info_speak_json_to_programs(folder, capsys):
    assert main(["list", "image/*", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [m["name"] for m in found] == zoo.list_models("image/*")
    assert set(found[0]) == {"name", "domain", "description", "packaged", "first_stage"}
    assert main(["info", folder, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["config"] == zoo.info(folder).config and card["evaluation"] is None and card["domain"] == "image"


def test_a_drawn_seed_is_printed_and_gives_the_same_again(folder, tmp_path, capsys):
    assert main(["sample", folder, "-n", "1", "--steps", "1", "-o", str(tmp_path / "a")]) == 0
    seed = re.search(r"--seed (\d+)", capsys.readouterr().out)[1]
    assert main(["sample", folder, "-n", "1", "--steps", "1", "--seed", seed, "-o", str(tmp_path / "b")]) == 0
    assert f"seed {seed}" in capsys.readouterr().out
    assert (tmp_path / "a" / "0000.png").read_bytes() == (tmp_path / "b" / "0000.png").read_bytes()


OPTIONS = [
    ("guidance_interval=[0.2,5]", [0.2, 5]),
    ("guidance_interval=0.2,5", [0.2, 5]),
    ("guidance_interval=[0.2, Infinity]", [0.2, float("inf")]),
    ("guidance_interval=none", None),
    ("clip=None", None),
    ("clip=0.5", 0.5),
    ('guidance_weight={"label": 2}', {"label": 2}),
    ("spacing=karras", "karras"),
    ("lower_order_final=false", False),
]


@pytest.mark.parametrize(("text", "value"), OPTIONS)
def test_an_option_may_be_none_a_pair_or_json(folder, tmp_path, monkeypatch, text, value):
    asked = {}

    def sample(self, n, **arguments):
        asked.update(arguments)
        raise zoo.ZooError("seen")

    monkeypatch.setattr(zoo.Model, "sample", sample)
    assert main(["sample", folder, "--option", text, "-o", str(tmp_path / "out")]) == 2
    assert asked[text.partition("=")[0]] == value


def test_a_reader_that_goes_away_is_no_error():
    line = [sys.executable, "-m", "zoo", "list"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # before the first line is written: the interpreter alone takes longer to start
        error = process.stderr.read()
    assert process.returncode == 141 and error == ""


FAILURES = [
    (["sample", "FOLDER", "--option", "eta=1", "--option", "eta=0"], "given twice"),
    (["sample", "FOLDER", "--label-two", "a", "--label-two", "b"], "given twice"),
    (["sample", "FOLDER", "--option", "guidance_interval=[0.2,"], "not JSON"),
    (["train", "image/fashion-ddpm", "--data", "OUT", "--out", "OUT", "--set", "training.lrr=1"], "Did you mean 'lr'"),
    (["sample", "FOLDER", "--option", "n=3"], "given by -n"),
    (["sample", "FOLDER", "--steps", "2", "--option", "steps=3"], "given by --steps"),
    (["sample", "FOLDER", "--option", "steer=3"], "steer"),
    (["train", "image/fashion-ddpm", "--data", "OUT", "--out", "OUT", "--set", "training.lr=none"], "training.lr"),
    (["sample", "image/fashion-dpm"], "image/fashion-ddpm"),
    (["sample", "FOLDER", "--label", "shoe"], "sneaker"),
    (["sample", "FOLDER", "-n", "0"], "n=0"),
    (["sample", "FOLDER", "--steps", "2000"], "1 to 1000"),
    (["sample", "FOLDER", "--guidance-weight", "1", "--guidance-scale", "2"], "two forms"),
    (["sample", "FOLDER", "--option", "eta"], "path=value"),
    (["sample", "FOLDER", "--colour", "red"], "unknown option or condition of"),
    (["sample", "FOLDER", "--label=shoe", "red"], "--NAME VALUE"),
    (["sample", "FOLDER", "--colour"], "--NAME VALUE"),
    (["verify", "./nowhere"], "no model folder"),
    (["train", "image/fashion-ddpm", "--data", "./nowhere", "--out", "OUT"], "no data at"),
    (["train", "image/fashion-ddpm", "--data", "OUT", "--out", "OUT", "--set", "training.lr"], "path=value"),
]


@pytest.mark.parametrize(("arguments", "message"), FAILURES)
def test_a_failure_is_one_line_and_exit_code_2(folder, tmp_path, capsys, arguments, message):
    places = {"FOLDER": folder, "OUT": str(tmp_path / "out")}
    extra = ["-o", str(tmp_path / "out")] if arguments[0] == "sample" else []
    assert main([places.get(a, a) for a in arguments] + extra) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("zoo: ") and message in captured.err and captured.err.count("\n") == 1
    assert captured.out == "" and not (tmp_path / "out").exists(), "nothing half-done is left"


def test_a_wrong_option_is_argparse_s_own_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["sample"])
    assert caught.value.code == 2


def test_train_on_own_pictures_then_sample(pictures, tmp_path, capsys, monkeypatch):
    out, left = tmp_path / "run", []
    monkeypatch.setattr("accelerate.PartialState.destroy_process_group", lambda self: left.append(self))
    sets = [f"--set={k}={json.dumps(v)}" for k, v in (SMALL | {"training.batch_size": 4}).items()]
    arguments = ["train", "image/fashion-ddpm", "--data", str(pictures), "--out", str(out), "--cpu", *sets]
    assert main([*arguments, "--steps", "2", "--preview-every", "2"]) == 0
    assert len(left) == 1, "several processes leave their group before the interpreter ends"
    model = zoo.load(out)
    assert model.recipe.conditions["label"].values == ("cat", "dog")
    assert (out / "previews" / "0000002.png").exists()
    assert main(["sample", str(out), "-n", "1", "--label", "dog", "--steps", "1", "-o", str(tmp_path / "s")]) == 0
    assert [p.name for p in (tmp_path / "s").glob("0*")] == ["0000-dog.png"]
    capsys.readouterr()
    assert main([*arguments, "--steps", "2"]) == 2, "a run is not overwritten"
    assert "--resume" in capsys.readouterr().err


@pytest.mark.slow
def test_the_module_of_the_domain_trains_too(pictures, tmp_path):
    sets = [f"--set={k}={json.dumps(v)}" for k, v in (SMALL | {"training.batch_size": 4}).items()]
    done = subprocess.run(
        [sys.executable, "-m", "zoo.image.train", "--data", pictures, "--out", tmp_path / "run", "--steps", "1", "--cpu",
         *sets], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert zoo.load(tmp_path / "run").verify() == 0.0


@pytest.mark.slow
@pytest.mark.skipif(not zoo.info("image/fashion-ddpm").packaged, reason="no packaged weights")
def test_the_packaged_default_is_quick():
    """Load and sample(n=16) at the default: under 10 s after imports."""
    start = time.monotonic()
    samples = zoo.load("image/fashion-ddpm").sample(n=16, seed=0)
    assert time.monotonic() - start < 10
    assert len(samples) == 16


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_an_output_for_which_there_is_no_room_is_told(capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["list"]) == 2
    assert capsys.readouterr().err == "zoo: no room on the disk for the output.\n"


def test_a_closed_output_is_none(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert main(["list"]) == 0


def test_inpaint_keeps_what_the_mask_says(folder, pictures, tmp_path, capsys):
    out, picture = tmp_path / "out", pictures / "cat" / "0.png"
    quick = ["-n", "2", "--steps", "3", "--seed", "0", "--label", "bag", "-o", str(out)]
    line = ["inpaint", folder, "--known", str(picture), "--where", "..., :14", "--method", "posterior", "--products", "2"]
    assert main([*line, *quick]) == 0
    said = capsys.readouterr().out
    assert "3 evaluations of the net a sample, 6 calls backwards" in said and "seed 0" in said
    model = zoo.load(folder)
    where = np.zeros((28, 28), dtype=bool)
    where[:, :14] = True
    given = {"method": "posterior", "products": 2, "label": "bag", "steps": 3, "seed": 0}
    expected = model.inpaint(Image.open(picture), where, 2, **given)
    for path, sample in zip(sorted(out.glob("0*.png")), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), sample.pixels)


def test_vary_starts_from_a_file(folder, pictures, tmp_path):
    out, picture = tmp_path / "out", pictures / "dog" / "1.png"
    assert (
        main(["vary", folder, str(picture), "--strength", "0.4", "--steps", "5", "--seed", "1", "-n", "1", "-o", str(out)]) == 0
    )
    (expected,) = zoo.load(folder).vary(Image.open(picture), 0.4, 1, steps=5, seed=1)
    (path,) = out.glob("0*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), expected.pixels)


def test_masks_of_the_command_line(tmp_path):
    half = np.zeros((1, 4, 6), dtype=bool)
    half[..., :3] = True
    np.save(tmp_path / "half.npy", half)
    Image.fromarray(np.uint8(half[0]) * 255).save(tmp_path / "half.png")
    for text in ("..., :3", ":,:,0:3", "~..., 3:", str(tmp_path / "half.npy"), str(tmp_path / "half.png")):
        assert (np.broadcast_to(mask_of(text, (1, 4, 6)), half.shape) == half).all(), text
    assert mask_of("0:2", (4, 3)).sum() == 6 and mask_of(f"~{tmp_path / 'half.npy'}", (1, 4, 6)).sum() == 12
    for text in ("left", "0", ":,:,:,:", "1:2:3:4", "a:b", ""):
        with pytest.raises(zoo.ZooError, match="--where"):
            mask_of(text, (1, 4, 6))


def test_steers_by_name(folder, tmp_path):
    seen = []

    def darker(by=1.0, twice=False):
        seen.append((by, twice))
        return lambda predict: predict

    STEERS.register("darker", darker)
    line = ["sample", folder, "-n", "1", "--steps", "1", "--seed", "0", "-o", str(tmp_path / "out")]
    try:
        steers = ["darker", "darker=2", 'darker={"twice": true}', "darker=[3, true]"]
        assert main([*line, *(part for steer in steers for part in ("--steer", steer))]) == 0
        assert seen == [(1.0, False), (2, False), (1.0, True), (3, True)]
        for steer in ("lighter", "darker=1,2,3", 'darker={"much": 1}'):
            assert main([*line, "--steer", steer]) == 2
    finally:
        STEERS.remove("darker")


LOST = [
    (["inpaint", "FOLDER", "--where", "..., :14"], "--known FILE"),
    (["inpaint", "FOLDER", "--known", "PICTURE"], "where"),
    (["inpaint", "FOLDER", "--known", "PICTURE", "--where", "left"], "--where 'left'"),
    (["inpaint", "FOLDER", "--known", "PICTURE", "--where", "..., :14", "--method", "repaint"], "resample"),
    (["inpaint", "FOLDER", "--known", "PICTURE", "--where", "..., :14", "--times", "3"], "method='resample'"),
    (["inpaint", "FOLDER", "--known", "./nowhere.png", "--where", "..., :14"], "nowhere.png"),
    (["vary", "FOLDER", "PICTURE", "--strength", "2"], "strength=2.0"),
    (["vary", "FOLDER", "PICTURE", "--motif", "a.pdb:1-2"], "unknown option or condition"),
    (["sample", "FOLDER", "--steer", "lighter"], "steer"),
]


@pytest.mark.parametrize(("arguments", "message"), LOST)
def test_what_is_asked_wrongly_of_known_objects_is_one_line(folder, pictures, tmp_path, capsys, arguments, message):
    places = {"FOLDER": folder, "PICTURE": str(pictures / "cat" / "0.png")}
    out = tmp_path / "out"
    assert main([*(places.get(a, a) for a in arguments), "--steps", "2", "-o", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("zoo: ") and message in captured.err and captured.err.count("\n") == 1
    assert not out.exists()

"""`zoo data`, recipes from files, what a run says, held-out parts of data, and folders of running runs by name."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo import files
from zoo.cli import main
from zoo.contract.dataset import Items
from zoo.contract.registry import get_domain
from zoo.errors import ConfigError, DataError
from zoo.image.codec import ImageCodec
from zoo.image.data import ArrayImages
from zoo.training import report, watch
from zoo.training import trainer as training
from zoo.training.heldout import HeldOut, held_out
from zoo.training.look import guess, look
from zoo.training.objective import Denoise
from zoo.training.train import read_recipe_file

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16, "training.batch_size": 4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label, n in (("cat", 12), ("dog", 8)):
        (folder / label).mkdir()
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (40, 33 + i, 3), dtype=np.uint8)).save(folder / label / f"{i}.png")
    (folder / "notes.psd").write_bytes(b"x")
    return folder


def quiet(call, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **options)


def test_the_data_are_counted_and_drawn_as_the_net_sees_them(photos, tmp_path):
    found = quiet(look, photos, n=4, out=tmp_path / "sheet.png", overrides={"codec.size": 32, "codec.channels": 3})
    assert (found["domain"], found["model"], found["samples"]) == ("image", "image/fashion-ddpm", 18)
    assert (
        found["classes"] == {"label": {"cat": 11, "dog": 7}} and found["left_out"] == "1 .psd" and found["sees"] == [3, 32, 32]
    )
    assert Image.open(tmp_path / "sheet.png").size == (2 * (3 * 32 + 4), 2 * (3 * 32 + 18))
    data = found["text"][0]
    for part in ("label: 2 classes (cat 11, dog 7)", "width 33 to 44", "height 40", "RGB", "held out: 2", "left out: 1 .psd"):
        assert part in data
    assert "3 channel x 32 height x 32 width" in found["text"][1]


def test_the_command_prints_it_or_its_json(photos, tmp_path, capsys):
    command = ["data", str(photos), "-n", "1", "-o", str(tmp_path / "s.png")]
    assert quiet(main, command) == 0
    assert "cat 11, dog 7" in capsys.readouterr().out
    assert quiet(main, [*command, "--for", "image/fashion-dit", "--split", "validation", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "image/fashion-dit" and found["classes"] == {"label": {"cat": 1, "dog": 1}}
    assert quiet(main, [*command, "--domain", "imge"]) == 2
    assert "image" in capsys.readouterr().err


def test_the_domain_is_what_most_files_are_of(tmp_path, photos):
    assert guess(photos) == "image" and guess(photos / "cat" / "0.png") == "image"
    for name, suffix in (("audio", ".wav"), ("point3d", ".stl"), ("protein", ".pdb"), ("policy", ".hdf5")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"a{suffix}").write_bytes(b"")
        (tmp_path / name / "README.md").write_bytes(b"")
        assert guess(tmp_path / name) == name
    (tmp_path / "audio" / "cover.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"audio.*image.*--domain"):
        guess(tmp_path / "audio")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.xyzzy").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"1 \.xyzzy, which no domain"):
        guess(tmp_path / "none")
    archives = {
        "episodes.npz": "policy",
        "fashion_mnist.npz": "image",
        "fsdd_8k.npz": "audio",
        "protein_backbones.npz": "protein",
    }
    for name, domain in archives.items():
        (tmp_path / name).write_bytes(b"")
        assert guess(tmp_path / name) == domain
    with pytest.raises(ConfigError, match="Hub dataset"):
        guess("hub:a/b")
    with pytest.raises(DataError, match="no data at"):
        guess(tmp_path / "missing")


def test_a_bad_name_of_the_sheet_is_told_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot save a picture"):
        look(tmp_path / "missing", out="sheet.doc")


def test_a_sheet_among_the_data_is_refused(photos, tmp_path):
    with pytest.raises(ConfigError, match="would lie among the data"):
        look(photos, out=photos / "cat" / "sheet.png")
    assert not (photos / "cat" / "sheet.png").exists()


def test_a_run_in_the_folder_of_its_data_is_refused(photos):
    with pytest.raises(ConfigError, match="holds the data"):
        zoo.train("image/fashion-ddpm", data=photos, out=photos, steps=1)
    assert not (photos / "checkpoint.safetensors").exists()


def test_a_recipe_from_a_file_is_that_of_a_name_or_of_an_edited_config(tmp_path):
    path, recipe = tmp_path / "recipe.json", zoo.info("image/fashion-ddpm").config
    path.write_text(json.dumps(recipe))
    assert read_recipe_file(path) == zoo.info("image/fashion-ddpm").recipe
    folder = zoo.create("image/fashion-ddpm", **SMALL).save_pretrained(tmp_path / "m")
    config = json.loads((folder / files.CONFIG).read_text())
    config["recipe"]["training"]["lr"] = 0.5
    (folder / files.CONFIG).write_text(json.dumps(config))
    assert read_recipe_file(folder / files.CONFIG).training.lr == 0.5
    for text, message in (
        ("[]", "holds no recipe"),
        ("{}", "holds no recipe"),
        ("{", "JSON"),
        ('{"recipe": {"domain": 1}}', "no recipe"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_recipe_file(path)
    path.write_text(json.dumps(recipe | {"more": 1}))
    with pytest.raises(ConfigError, match="more"):
        read_recipe_file(path)
    for missing in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(ConfigError, match="config"):
            read_recipe_file(missing)


@pytest.mark.parametrize("given", [{}, {"source": "image/fashion-ddpm", "config": "recipe.json"}])
def test_one_recipe_is_trained(tmp_path, given):
    source = [given["source"]] if "source" in given else []
    with pytest.raises(ConfigError, match="what is trained"):
        zoo.train(*source, data="x", steps=1, out=tmp_path / "a", **{k: v for k, v in given.items() if k == "config"})
    command = ["train", *source, "--data", "x", "--out", str(tmp_path / "a")]
    assert main([*command, "--config", "recipe.json"] if source else command) == 2


# ---------------------------------------------------------------- held-out parts


def test_held_out_files_of_a_folder_are_the_validation_split_and_not_read_again(photos, monkeypatch):
    domain = get_domain("image")
    data, validation = (quiet(domain.dataset, photos, split) for split in ("train", "validation"))
    assert data.held_out().files == validation.files and not set(validation.files) & set(data.files)
    assert data.held_out().labels == data.labels
    assert validation.held_out() is None, "nothing is held out of itself"


def test_data_without_a_validation_part_have_no_held_out_loss(tmp_path, photos):
    domain, recipe = get_domain("image"), zoo.info("image/fashion-ddpm").recipe
    for i in range(4):
        Image.new("L", (28, 28), 60 * i).save(tmp_path / f"{i}.png")
    few = domain.dataset(tmp_path)
    bare = recipe.model_copy(update={"conditions": {}})
    assert held_out(domain, tmp_path, {}, few, bare, ImageCodec()) is None

    class Same:
        """A domain whose validation is its training data."""

        def dataset(self, source, split, **options):
            return Items(few_items)

        def adapt(self, recipe, dataset):
            return recipe

    few_items = [few[i] for i in range(len(few))]
    assert held_out(Same(), tmp_path, {}, Items(few_items), bare, ImageCodec()) is None
    assert held_out(Same(), tmp_path, {}, Items(few_items[1:]), bare, ImageCodec()) is not None


def test_the_held_out_loss_is_the_same_each_time_and_that_of_all_conditions():
    model = zoo.create("image/fashion-ddpm", **SMALL)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    data = ArrayImages(pixels, np.arange(5), model.recipe.conditions["label"].values)
    held = HeldOut(data, model.codec, model.recipe)
    assert held.samples == 5 and [len(b.x0) for b in held.batches] == [4, 1]
    one = held.loss(model, Denoise(), model.device, False)
    assert one == held.loss(model, Denoise(dropout=False), model.device, False) > 0
    again = HeldOut(data, model.codec, model.recipe)
    assert all(torch.equal(a.x0, b.x0) for a, b in zip(held.batches, again.batches, strict=True))


# ---------------------------------------------------------------- what is said


def test_classes_are_named_up_to_a_dozen_and_samples_in_number():
    items = [(np.zeros(2), {"label": i % 20}) for i in range(40)]
    said = report.of_data(Items(items, labels={"label": [f"c{i}" for i in range(20)]}))
    assert said.startswith("data: 40 samples; label: 20 classes (c0 2, c1 2,") and "c11 2, and 8 more)" in said
    assert report.of_data(Items(items[:1])) == "data: 1 sample; no labels"
    assert "14 samples an epoch" in report.of_data(Items(items[:14], origin="140 clips"))
    assert "epoch" not in report.of_data(Items(items[:14], origin="14 clips"))


@pytest.mark.slow
def test_a_loaded_folder_is_that_of_the_run_at_work_also_by_a_plain_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watch.Watch, "introduce", lambda self, held: None)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    data = ArrayImages(pixels, np.arange(12) % 10, zoo.info("image/fashion-ddpm").recipe.conditions["label"].values)
    options = {"data": data, "cpu": True, "overrides": SMALL, "preview_every": 0}
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "export", lambda self: None)  # as one that was killed at its end
        zoo.train("image/fashion-ddpm", out="runs/mine", steps=3, **options)
    assert main(["sample", "runs/mine", "-n", "1", "--steps", "1", "--seed", "0", "-o", "out"]) == 0
    said = capsys.readouterr()
    assert "is a run that is not at its end: sampling the averaged weights of its checkpoint, step 3 of 3." in said.out
    assert "UnfinishedWarning" not in said.err and (tmp_path / "out" / "samples.png").exists()
    assert zoo.info("runs/mine").recipe.net["channels"] == 16
    assert main(["verify", "runs/mine"]) == 2
    zoo.train("runs/mine", out="runs/two", steps=1, **options | {"overrides": {}})  # its recipe
    assert zoo.info("runs/two").recipe.net["channels"] == 16

"""Datasets of the Hub and Parquet files, through the real `datasets` library and over real HTTP."""

import io
import json
import multiprocessing
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from hubserver import OWNER
from PIL import Image

import zoo
from zoo.data import table as hub_data
from zoo.data.table import Part, is_table, open_rows
from zoo.errors import ConfigError, DataError, HubError
from zoo.hub import limits
from zoo.image.data import TableImages, open_images

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")

NAMES = ["cat", "dog", "owl"]
PARTS = (Part("image", "Image", ("image",)), Part("label", "ClassLabel", ("label",), needed=False))


def png(i: int, size: int = 12) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size), i % 256, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def table(rows: int, start: int = 0, **columns):
    """A dataset with pictures, labels and a column that is not needed."""
    n = range(start, start + rows)
    data = {"picture": [{"bytes": png(i), "path": None} for i in n], "kind": [i % 3 for i in n], "note": [f"{i}" for i in n]}
    types = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=NAMES), "note": datasets.Value("string")}
    for name, (values, kind) in columns.items():
        data[name], types[name] = values, kind
    return datasets.Dataset.from_dict(data, features=datasets.Features(types))


def parquet(path: Path, **arguments) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table(**arguments).to_parquet(path)
    return path


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "zoo-cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets-cache"))
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> dict[str, bytes]:
    """The files of a dataset repository."""
    root = tmp_path_factory.mktemp("parquet")
    splits = "[{split: train, path: 'data/train-*'}, {split: test, path: 'data/test-*'}]"
    card = f"---\nconfigs: [{{config_name: default, data_files: {splits}}}]\n---\n"
    one, two = parquet(root / "1.parquet", rows=300), parquet(root / "2.parquet", rows=100, start=300)
    test = parquet(root / "t.parquet", rows=7, start=1000)
    return {
        "README.md": card.encode(), "data/train-0.parquet": one.read_bytes(), "data/train-1.parquet": two.read_bytes(),
        "data/test-0.parquet": test.read_bytes(), "fashion.py": b"raise SystemExit('remote code ran')",
    }  # fmt: skip


@pytest.fixture
def remote(hub, shards, monkeypatch):
    """me/pets as a dataset on the server."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HUB_DATASETS_URL", hub.url + "/datasets/{repo_id}/resolve/{revision}/{path}")
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)  # it is on a host of its own
    from huggingface_hub import HfFileSystem

    HfFileSystem.clear_instance_cache()
    return hub.add("me/pets", shards, kind="dataset")


# ---------------------------------------------------------------- local files


def test_rows_of_a_parquet_file(tmp_path):
    file = parquet(tmp_path / "pets.parquet", rows=600)
    rows = open_rows(file, "train", PARTS)
    assert len(rows) == 540 and len(open_rows(file, "validation", PARTS)) == len(open_rows(file, "test", PARTS)) == 60
    assert rows.labels == {"label": NAMES}
    kept = [i for i in range(600) if i % 10 != 9]
    for k in (0, 8, 9, 300, 539, -1):
        assert rows[k] == {"image": png(kept[k]), "label": kept[k] % 3}
    assert rows[1:3] == [rows[1], rows[2]] and set(rows[0]) == {"image", "label"}
    with pytest.raises(IndexError):
        rows[540]


def test_the_stream_is_read_once(tmp_path, monkeypatch):
    file = parquet(tmp_path / "pets.parquet", rows=30)
    first = list(open_rows(file, "train", PARTS))
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert list(open_rows(file, "train", PARTS)) == first
    assert len(open_rows(file, "validation", PARTS)) == 3


def test_a_changed_file_is_another_dataset(tmp_path):
    file = parquet(tmp_path / "pets.parquet", rows=30)
    open_rows(file, "train", PARTS)
    parquet(file, rows=20)
    assert len(open_rows(file, "train", PARTS)) == 18


def test_a_folder_of_files_and_max_rows(tmp_path):
    for i in range(2):
        parquet(tmp_path / "d" / f"{i}.parquet", rows=20, start=20 * i)
    assert is_table(tmp_path / "d") and not is_table(tmp_path) and is_table("hub:a/b") and not is_table("fashion-mnist")
    assert [r["image"] for r in open_rows(tmp_path / "d", "train", PARTS)][-1] == png(38)
    assert len(open_rows(tmp_path / "d", "train", PARTS, max_rows=5)) == 5
    with pytest.raises(ConfigError, match="max_rows=0"):
        open_rows(tmp_path / "d", "train", PARTS, max_rows=0)


def test_arrow_files(tmp_path):
    table(rows=20).save_to_disk(tmp_path / "d")
    files = [p for p in (tmp_path / "d").iterdir() if p.suffix == ".arrow"]
    assert len(open_rows(files[0], "train", PARTS)) == 18


def test_columns_are_found_or_said(tmp_path, monkeypatch):
    two = {
        "photo": ([{"bytes": png(5), "path": None}] * 20, datasets.Image()),
        "word": (["b", "a"] * 10, datasets.Value("string")),
    }
    file = parquet(tmp_path / "two.parquet", rows=20, **two)
    with pytest.raises(DataError, match=r"which column is the image\? Say it: --image-column. Its columns: picture .*photo"):
        open_rows(file, "train", PARTS)
    with pytest.raises(DataError, match=r"no column 'nothing'. Its columns: picture"):
        open_images(file, image_column="nothing")
    data = open_images(file, image_column="photo", label_column="word")
    assert data.labels == {"label": ["a", "b"]} and [data[i][1]["label"] for i in range(4)] == [1, 0, 1, 0]
    assert np.asarray(data[0][0]).max() == 5
    monkeypatch.setattr(hub_data, "MOST_LABELS", 3)
    with pytest.raises(DataError, match="is not a label"):
        open_images(file, image_column="photo", label_column="note")


def test_numbers_and_gaps_as_labels(tmp_path):
    years = ([1999, None, 2001, -1] * 5, datasets.Value("int64"))
    file = parquet(tmp_path / "years.parquet", rows=20, year=years)
    data = open_images(file, label_column="year")
    assert data.labels == {"label": ["1999", "2001"]} and [data[i][1]["label"] for i in range(4)] == [0, -1, 1, -1]


def test_a_class_without_a_name_is_refused(tmp_path):
    rows = [{"image": {"bytes": png(1), "path": None}, "label": i} for i in (0, -1, 7)]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    with pytest.raises(DataError, match="the column 'label' has the class 7, and 3 names"):
        open_images(written(tmp_path / "x.parquet", features, rows))
    assert open_images(written(tmp_path / "x.parquet", features, rows[:2]))[1][1] == {"label": -1}


@pytest.mark.parametrize("suffix", [".parquet", pytest.param(".arrow", marks=pytest.mark.slow)])
def test_every_damaged_byte_of_a_table_is_one_error_or_rows(tmp_path, suffix):
    file = parquet(tmp_path / "x.parquet", rows=9)
    if suffix == ".arrow":
        arrow, file = pyarrow.parquet.read_table(file), tmp_path / "x.arrow"
        with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, arrow.schema) as writer:
            writer.write_table(arrow)
    content = file.read_bytes()
    for place in [*range(0, len(content), 1 + len(content) // 12), *range(len(content) - 900, len(content), 90)]:
        for damaged in (content[:place], content[:place] + b"\xff\xff\xff\x7f" + content[place + 4 :]):
            file.write_bytes(damaged)
            with suppress(DataError):
                data = open_images(file)
                [data[i] for i in range(len(data))]


def test_pictures_without_labels(tmp_path):
    datasets.Dataset.from_dict(
        {"image": [{"bytes": png(1), "path": None}] * 3}, features=datasets.Features({"image": datasets.Image()})
    ).to_parquet(tmp_path / "x.parquet")
    data = open_images(tmp_path / "x.parquet")
    assert data.labels == {} and data[0][1] == {} and len(data) == 3


@pytest.mark.slow
def test_sounds_with_labels(tmp_path):
    from zoo.audio.data import open_audio
    from zoo.audio.waveform import Waveform
    from zoo.contract.registry import get_domain, get_recipe

    sounds = [Waveform(0.2 * np.sin(np.arange(900) / (3 + i)).astype(np.float32), 4000) for i in range(20)]
    paths = [sound.save(tmp_path / f"{i}.wav") for i, sound in enumerate(sounds)]
    columns = {
        "word": [("no", "yes")[i % 2] for i in range(20)],
        "clip": [{"bytes": p.read_bytes(), "path": p.name} for p in paths],
    }
    # cast, as encoding needs another library
    datasets.Dataset.from_dict(columns).cast_column("clip", datasets.Audio(decode=False)).to_parquet(tmp_path / "x.parquet")
    train, held = (open_audio(tmp_path / "x.parquet", split, label_column="word") for split in ("train", "validation"))
    assert (len(train), len(held)) == (18, 2) and train.labels == {"label": ["no", "yes"]}
    clip, cond = train[9]
    assert (clip.sample_rate, cond) == (4000, {"label": 0}), "row 9 is held out, row 10 is a no"
    np.testing.assert_allclose(clip.samples, sounds[10].samples, atol=2**-15)
    recipe = get_domain("audio").adapt(get_recipe("audio/spec-ddpm"), train)
    assert recipe.conditions.keys() == {"label"} and train[0][0].sample_rate == 8000
    assert train.attributed(recipe).licence == "", "of a user's own data no licence is known"
    with pytest.raises(ConfigError, match="audio_column: only Hub datasets and Parquet files"):
        open_audio(tmp_path / "0.wav", audio_column="x")


BAD = [
    ("truncated", lambda p: p.write_bytes(p.read_bytes()[:-40]), "cannot read bad.parquet"),
    ("empty", lambda p: p.write_bytes(b""), "cannot read bad.parquet"),
    ("foreign", lambda p: p.write_bytes(b"PK\3\4" * 99), "cannot read bad.parquet"),
    ("no rows", lambda p: table(rows=0).to_parquet(p), "no rows|cannot read"),
    ("no picture", lambda p: table(rows=2, image=([None] * 2, datasets.Image())).to_parquet(p), "row 0 has no image"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "message"), BAD, ids=[b[0] for b in BAD])
def test_a_bad_table_is_one_clear_error_and_leaves_nothing(tmp_path, kind, change, message):
    file = parquet(tmp_path / "bad.parquet", rows=9)
    change(file)
    with pytest.raises(DataError, match=message):
        open_images(file, image_column="image" if kind == "no picture" else None)
    assert not list((tmp_path / "zoo-cache").rglob("*.arrow")) and not list((tmp_path / "zoo-cache").rglob(".reading*"))


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    broken = {"image": ([{"bytes": b"no picture", "path": None}] * 9, datasets.Image())}
    file = parquet(tmp_path / "x.parquet", rows=9, **broken)
    with pytest.raises(DataError, match=r"row 4 of x.parquet, split 'train', 9 rows"):
        open_images(file, image_column="image")[4]


def test_options_that_do_not_fit_are_said(tmp_path):
    with pytest.raises(ConfigError, match="image_column: only Hub datasets and Parquet files"):
        open_images(tmp_path, image_column="x")
    with pytest.raises(ConfigError, match=r"audio_column.*image_column"):
        open_images("hub:a/b", audio_column="x")
    with pytest.raises(ConfigError, match="train, validation, test"):
        open_rows("hub:a/b", "dev", PARTS)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    file = parquet(tmp_path / "x.parquet", rows=2)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=re.escape('pip install "diffusion-zoo[hub-data]"')):
        open_rows(file, "train", PARTS)


@pytest.mark.slow
def test_rows_go_to_another_process(tmp_path):
    rows = open_rows(parquet(tmp_path / "x.parquet", rows=20), "train", PARTS)
    assert rows[3]["label"] == 0
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(rows.__getitem__, [3]) == [rows[3]]


# ---------------------------------------------------------------- what rows point at


def pointing(folder, *paths):
    """A folder with a table whose rows point at files; one of them, `in.png`, lies in it, and `secret.png` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "in.png").write_bytes(png(7))
    (folder / "deep" / "er.png").write_bytes(png(8))
    (folder / ".hidden.png").write_bytes(png(6))
    (folder.parent / "secret.png").write_bytes(png(9))
    if not (folder / "link.png").is_symlink():
        (folder / "link.png").symlink_to(folder.parent / "secret.png")
    written(folder / "x.parquet", {"image": datasets.Image()}, [{"image": {"bytes": None, "path": str(p)}} for p in paths])
    return folder


def written(path, features, rows):
    """A Parquet file of rows as they are: the library would put the files that they point at into it."""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, datasets.Features(features).arrow_schema), path)
    return path


def test_rows_may_point_at_files_of_their_own_folder(tmp_path):
    folder = pointing(tmp_path / "d", "in.png", "deep/er.png", "./in.png", "deep/../in.png", tmp_path / "d" / "in.png")
    data = open_images(folder)
    assert [int(np.asarray(data[i][0]).max()) for i in range(5)] == [7, 8, 7, 7, 7]


OUTSIDE = [
    "{secret}", "../secret.png", "deep/../../secret.png", "link.png", "file://{secret}", "https://127.0.0.1:9/x.png", "~/x.png",
    "hf://datasets/me/private@main/x.png", "zip://in.png::{secret}", "gone.png", "deep", ".hidden.png", "/etc/passwd", "a\0b",
    "/dev/zero",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_rows_open_no_file_outside_their_folder(tmp_path, path, monkeypatch):
    from datasets.utils import file_utils

    monkeypatch.setattr(file_utils, "xopen", lambda *_, **__: pytest.fail("a file was opened"))
    path = path.format(secret=tmp_path / "secret.png")
    folder = pointing(tmp_path / "d", "in.png", path)
    with pytest.raises(DataError, match=r"d points at .* which is not a file of the dataset itself: it is not opened"):
        open_images(folder)
    assert not list((tmp_path / "zoo-cache").rglob("*.arrow"))


def test_a_table_given_alone_points_at_nothing(tmp_path):
    folder = pointing(tmp_path / "d", "in.png")
    with pytest.raises(DataError, match="Give the folder of the file, not the file alone"):
        open_images(folder / "x.parquet")


def test_no_other_column_opens_files(tmp_path):
    """A label of the type Image would be decoded by the library, which opens what the row points at."""
    row = {"image": {"bytes": png(1), "path": None}, "label": {"bytes": None, "path": "/etc/passwd"}}
    for kind in (datasets.Image(), datasets.Audio()):
        file = written(tmp_path / "x.parquet", {"image": datasets.Image(), "label": kind}, [row])
        for options in ({}, {"label_column": "label"}):
            with pytest.raises(DataError, match=f"the column 'label' is no label: it holds {type(kind).__name__}"):
                open_images(file, image_column="image", **options)


def test_a_file_that_rows_point_at_may_change(tmp_path):
    folder = pointing(tmp_path / "d", "in.png")
    assert np.asarray(open_images(folder)[0][0]).max() == 7
    (folder / "in.png").write_bytes(png(77, 13))
    assert np.asarray(open_images(folder)[0][0]).max() == 77


ELSEWHERE = (
    "/etc/passwd",
    "../x.png",
    "hf://datasets/me/other@main/x",
    "https://x/y.png",
    "zip://a::/etc/x.zip",
    "a//b",
    ".git/x",
)


@pytest.mark.parametrize("path", ELSEWHERE)
def test_rows_of_the_hub_open_files_of_their_own_commit_only(path):
    from zoo.hub.address import Address
    from zoo.hub.client import Snapshot

    commit = 40 * "a"
    table = hub_data._Table(Snapshot(Address("me/pets", None, "dataset"), commit, {}), None, "hub:me/pets", None, None)
    home = f"hf://datasets/me/pets@{commit}/"
    assert table.inside("a/b.png") == table.inside(f"{home}a/b.png") == f"{home}a/b.png"
    assert table.inside(f"zip://in/x.png::{home}a.zip") == f"zip://in/x.png::{home}a.zip"
    for one in (path, f"{home}../x.png", f"zip://x::{path}", f"https://x::{home}a.zip", f"{home}a/../../x"):
        with pytest.raises(DataError, match="it is not opened"):
            table.inside(one)


# ---------------------------------------------------------------- splits and copies


def test_local_files_say_their_split(tmp_path):
    def sizes(folder):
        return [len(open_rows(folder, s, PARTS)) for s in ("train", "validation", "test")]

    layouts = [("train-00000-of-00001", "validation-0", "test"), ("data/train", "data/dev", "data/test-1")]
    for train, val, test in [*layouts, ("train/0", "val/0", "test/0")]:
        folder = tmp_path / train.replace("/", "-")
        for name, rows in ((train, 30), (val, 4), (test, 5)):
            parquet(folder / f"{name}.parquet", rows=rows)
        assert sizes(folder) == [30, 4, 5]
    parquet(folder / "more.parquet", rows=3)
    with pytest.raises(DataError, match="mixes files of splits"):
        sizes(folder)
    saved = datasets.DatasetDict({"train": table(rows=20), "test": table(rows=3)})
    saved.save_to_disk(tmp_path / "saved")
    assert sizes(tmp_path / "saved") == [18, 2, 3]


def test_two_kinds_of_files_are_refused_and_hidden_ones_passed_over(tmp_path):
    parquet(tmp_path / "a.parquet", rows=3)
    (tmp_path / "._a.parquet").write_bytes(b"Mac")
    assert len(open_rows(tmp_path, "train", PARTS)) == 3
    (tmp_path / "b.arrow").write_bytes(b"x")
    with pytest.raises(DataError, match="both Parquet and Arrow"):
        open_rows(tmp_path, "train", PARTS)


def test_copies_are_of_a_content_in_a_folder(tmp_path):
    one, two = parquet(tmp_path / "one" / "x.parquet", rows=9), tmp_path / "two" / "x.parquet"
    two.parent.mkdir()
    content, about = one.read_bytes(), one.stat()
    place = content.index(png(3))
    other = content[:place] + png(4) + content[place + len(png(3)) :]
    two.write_bytes(other if len(other) == len(content) else content)
    os.utime(two, ns=(about.st_atime_ns, about.st_mtime_ns))
    pictures = [[row["image"] for row in open_rows(file, "train", PARTS)] for file in (one, two)]
    assert one.stat().st_size == two.stat().st_size and one.stat().st_mtime_ns == two.stat().st_mtime_ns
    assert pictures[0][3] == png(3) and pictures[1][3] == png(4), "name, size and time are the same, the content is not"


def test_a_damaged_copy_is_made_anew(tmp_path):
    file = parquet(tmp_path / "x.parquet", rows=9)
    expected = list(open_rows(file, "train", PARTS))
    for name in ("rows.arrow", "rows.json"):
        for damage in (lambda b: b[: len(b) // 2], lambda b: b[:99] + bytes([b[99] ^ 1]) + b[100:], lambda b: b"[" * 9999):
            (copy,) = (tmp_path / "zoo-cache").rglob(name)
            copy.write_bytes(damage(copy.read_bytes()))
            assert list(open_rows(file, "train", PARTS)) == expected


# ---------------------------------------------------------------- over the network


def test_a_hub_dataset_is_streamed_once_and_then_offline(remote, hub, monkeypatch):
    data = open_images("hub:me/pets")
    assert isinstance(data, TableImages) and len(data) == 360 and data.labels == {"label": NAMES}
    assert data.origin == f"hub:me/pets@{remote.commits[0][0]}, split 'train', 360 rows"
    assert [np.asarray(data[i][0])[0, 0] for i in (0, 9, 359)] == [0, 10, 398 % 256]
    assert not any(p.endswith("/fashion.py") for p in hub.paths())
    assert len(open_images("hub:me/pets", "test")) == 7 and len(open_images("hub:me/pets", "validation")) == 40
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    again = open_images("hub:me/pets")
    assert len(again) == 360 and again[5][1] == data[5][1] and hub.log == []
    with pytest.raises(HubError, match=r"offline, and no copy of it"):
        open_images("hub:me/pets", max_rows=3)
    with pytest.raises(HubError, match=r"dataset me/other@main: offline"):
        open_images("hub:me/other")


def test_a_pinned_revision_stays_what_it_is(remote, hub, shards):
    first = remote.commits[0][0]
    remote.commit({k: v for k, v in shards.items() if k != "data/train-1.parquet"})
    assert len(open_images(f"hub:me/pets@{first}")) == 360
    assert len(open_images("hub:me/pets")) == 270


@pytest.mark.parametrize(("change", "source", "message"), [
    ({"private": True}, "hub:me/pets", "dataset me/pets@main: there is no such repository, or it is private"),
    ({}, "hub:me/nothing", "dataset me/nothing@main: there is no such repository"),
    ({}, "hub:me/pets@v9", "dataset me/pets@v9: the repository has no revision 'v9'"),
    ({"gated": True}, "hub:me/pets", "read dataset me/pets@.*: the repository is gated"),
])  # fmt: skip
def test_a_dataset_that_cannot_be_had(remote, change, source, message):
    for name, value in change.items():
        setattr(remote, name, value)
    with pytest.raises((HubError, DataError), match=message):
        open_images(source)


def test_a_private_dataset_with_a_token(remote, hub):
    remote.private = True
    assert len(open_images("hub:me/pets", token=OWNER)) == 360
    assert all(OWNER not in s.path + s.query + s.agent for s in hub.log)


def test_an_unknown_config_is_said(remote):
    with pytest.raises(HubError, match=r"dataset me/pets@.*Available: \['default'\]"):
        open_images("hub:me/pets", config="nothing")


def test_a_dataset_with_a_script_is_refused(remote, hub):
    remote.commit(remote.files | {"pets.py": remote.files["fashion.py"]})
    with pytest.raises(HubError, match="dataset me/pets@main is made by a script of its own: zoo runs no code"):
        open_images("hub:me/pets")
    assert hub.paths() == ["/api/datasets/me/pets"]


def test_a_card_that_names_a_file_of_this_machine_is_refused(remote, tmp_path):
    secret = parquet(tmp_path / "secret.parquet", rows=3)
    for path in (secret, f"file://{secret}", "../../me/other/data/x.parquet", "hf://datasets/me/other/x.parquet"):
        card = f"---\nconfigs: [{{config_name: default, data_files: [{{split: train, path: '{path}'}}]}}]\n---\n"
        remote.commit(remote.files | {"README.md": card.encode()})
        with pytest.raises((HubError, DataError)):
            open_images("hub:me/pets")
    assert not list((tmp_path / "zoo-cache").rglob("*.arrow"))


def test_a_local_folder_of_the_same_name_is_not_taken(remote, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parquet(tmp_path / "me" / "pets" / "x.parquet", rows=3)
    with pytest.raises(DataError, match="the folder me/pets here"):
        open_images("hub:me/pets")


@pytest.mark.slow
def test_a_stream_that_breaks_leaves_nothing(remote, hub, tmp_path):
    hub.fault("train-1.parquet", "status", times=99, status=404)
    with pytest.raises((HubError, DataError), match="me/pets"):
        open_images("hub:me/pets")
    assert not list((tmp_path / "zoo-cache").rglob("*.arrow"))
    hub.faults.clear()
    assert len(open_images("hub:me/pets")) == 360


READS = [
    ("GET", "/api/datasets/me/pets$"), ("GET", "auth-check"), ("GET", "/revision/"), ("GET", "/tree/"), ("HEAD", "README.md"),
    ("GET", "README.md"), ("GET", "train-0.parquet"), ("GET", "train-1.parquet"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["silent", *(pytest.param(k, marks=pytest.mark.slow) for k in ("drip", "drip-body", "wait"))])
@pytest.mark.parametrize(
    ("method", "pattern"), [pytest.param(*r, marks=() if r == READS[6] else pytest.mark.slow) for r in READS]
)
def test_reading_a_dataset_ends_in_time_whichever_request_hangs(remote, hub, monkeypatch, tmp_path, method, pattern, kind):
    monkeypatch.setenv("ZOO_HUB_TIMEOUT", "1.5")
    monkeypatch.setattr(limits, "RATE", 10**9)
    if kind == "wait":
        hub.fault(pattern, "status", method=method, status=429, times=999, Retry_After="100000")
    else:
        hub.fault(pattern, kind, method=method, times=999)
    started = time.monotonic()
    if (pattern, kind) in {("auth-check", "drip-body"), ("README.md", "drip-body")}:  # two bytes, or none
        monkeypatch.setenv("ZOO_HUB_TIMEOUT", "60")
        hub.faults.clear()
        assert len(open_images("hub:me/pets")) == 360
        return
    with pytest.raises(HubError, match=r"dataset me/pets@.*The limits: 0.25 s without an answer, 0.5 s for a request, 1.5 s"):
        open_images("hub:me/pets")
    assert time.monotonic() - started < 4 and sum(hub.slept) <= 1.5
    assert not list((tmp_path / "zoo-cache").rglob("*.arrow"))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "pattern"), READS)
def test_odd_answers_to_a_reader(remote, hub, monkeypatch, tmp_path, method, pattern):
    """A table or one clear error: never another table, and nothing foreign."""
    from test_hub_odd import BODIES, STATUSES

    rng = np.random.default_rng(0)
    faults = [("answer", {"body": b, **h}) for b, h in BODIES.values()] if method == "GET" else []
    faults += [("status", {"status": s}) for s in rng.choice(STATUSES, 5, replace=False).tolist()]
    faults += [("status", {"status": 302, "Location": t}) for t in ("", "http://[", "file:///etc/passwd", "//")]
    monkeypatch.setenv("ZOO_HUB_TIMEOUT", "6")
    for i, (kind, options) in enumerate(faults):
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / f"zoo-cache{i}"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / f"hf{i}"))
        hub.faults.clear()
        hub.fault(pattern, kind, method=method, times=999, **options)
        try:
            data = open_images("hub:me/pets")
        except (HubError, DataError) as error:
            text = str(error)
            assert "me/pets" in text and "\n" not in text and len(text) < 1000, text  # it may end well
        else:
            assert [np.asarray(data[k][0])[0, 0] for k in (0, 9, -1)] == [0, 10, data.rows.numbers[-1] % 256], (kind, options)


SMALL = {
    "net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16, "codec.size": 12, "net.patch": 2,
    "training.batch_size": 4,
}  # fmt: skip


@pytest.mark.slow
def test_training_on_a_hub_dataset_goes_on_bit_for_bit(remote, tmp_path):
    """A run that was stopped and resumed has the weights of one that was not; a changed dataset is noticed."""
    arguments = {"data": "hub:me/pets", "cpu": True, "overrides": SMALL, "preview_every": 0}
    whole = zoo.train("image/fashion-ddpm", steps=4, out=tmp_path / "a", **arguments)
    zoo.train("image/fashion-ddpm", steps=4, out=tmp_path / "b", max_minutes=0, **arguments)
    resumed = zoo.train("image/fashion-ddpm", steps=4, out=tmp_path / "b", resume=True, **arguments)
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert whole.recipe.classes("label") == tuple(NAMES)
    commit = remote.commits[0][0]
    assert whole.recipe.data.startswith(f"hub:me/pets@{commit}") and whole.recipe.licence == ""
    text = (tmp_path / "a" / "README.md").read_text()
    assert "datasets:\n- me/pets" in text and "Fashion-MNIST" not in text and "license" not in text
    remote.commit(remote.files | {"more.txt": b"x"})  # another commit with the same rows: the same data
    zoo.train("image/fashion-ddpm", steps=4, out=tmp_path / "b", resume=True, **arguments)
    other = parquet(tmp_path / "other.parquet", rows=300, start=500).read_bytes()
    remote.commit(remote.files | {"data/train-0.parquet": other})
    with pytest.raises(zoo.ZooError, match="the data are others than before, though as many"):
        zoo.train("image/fashion-ddpm", steps=4, out=tmp_path / "b", resume=True, **arguments)


def test_the_facts_beside_a_copy_are_plain_json(tmp_path):
    open_rows(parquet(tmp_path / "x.parquet", rows=20), "train", PARTS)
    (facts,) = (tmp_path / "zoo-cache").rglob("rows.json")
    assert json.loads(facts.read_text())["columns"] == {"image": "picture", "label": "kind"}


def test_a_copy_can_be_read_by_whom_the_user_s_umask_lets(tmp_path):
    before = os.umask(0o022)
    try:
        rows = open_rows(parquet(tmp_path / "x.parquet", rows=20), "train", PARTS)
    finally:
        os.umask(before)
    assert [p.stat().st_mode & 0o777 for p in (rows.path.parent, rows.path)] == [0o755, 0o644]

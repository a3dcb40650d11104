"""Files of captions: the Hub's layout and tables, and what is wrong with one."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.captions import Caption, captions_file, drawn, read_captions
from zoo.errors import ConfigError, DataError
from zoo.image.data import open_images
from zoo.image.domain import DOMAIN
from zoo.image.recipes import RECIPES


def pictures(folder: Path, names) -> Path:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (k, 0, 0)).save(folder / name)
    return folder


def write(path: Path, *rows) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), encoding="utf-8")
    return path


def test_the_hubs_layout_and_tables_say_the_same(tmp_path):
    pictures(tmp_path, ["a.png", "in/b.png"])
    want = {
        tmp_path / "a.png": Caption("a red cat", ("pet", "animal")),
        tmp_path / "in" / "b.png": Caption(None),
    }
    lines = write(
        tmp_path / "metadata.jsonl",
        {"file_name": "a.png", "text": " a red cat ", "keywords": ["pet", " animal ", ""]},
        "",
        {"file_name": "./in/b.png", "text": None},
    )
    assert read_captions(lines) == want
    table = write(tmp_path / "c.csv", "file_name,text,keywords", '"a.png","a red cat","pet; animal"', "in/b.png,,")
    assert read_captions(table) == want
    table = write(tmp_path / "c.tsv", "image\tcaption\ttags", "a.png\ta red cat\tpet|animal", "in\\b.png\t\t")
    assert read_captions(table) == want
    marked = tmp_path / "bom.csv"
    marked.write_bytes(b"\xef\xbb\xbffile_name,text\r\na.png,caf\xc3\xa9\r\n")
    assert read_captions(marked) == {tmp_path / "a.png": Caption("café")}


GOOD = {"file_name": "a.png", "text": "a cat"}


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("m.jsonl", [GOOD, GOOD, {"file_name": "./a.png", "text": "b"}], r"1 file\(s\) more than once: a.png \(3 times\)"),
        ("m.jsonl", [GOOD, {"file_name": "no.png", "text": "b"}], "1 of 2 files that are not there: no.png"),
        ("m.jsonl", [GOOD, "{broken"], "line 2: not a JSON object"),
        ("m.jsonl", ["[1, 2]"], "line 1: not a JSON object"),
        ("m.jsonl", ["[" * 100_000], "line 1: not a JSON object"),
        ("m.jsonl", [{"file_name": "a.png"}], "no column text or caption; it has file_name"),
        ("m.jsonl", [{"text": "a"}], "no column file_name or file"),
        ("m.jsonl", [{"file_name": 3, "text": "a"}], "the name of the file is 3"),
        ("m.jsonl", [GOOD | {"text": 5}], "the caption is 5"),
        ("m.jsonl", [GOOD | {"keywords": [1]}], "the keywords are"),
        ("m.jsonl", [GOOD | {"file_name": "../a.png"}], "leads out of the folder"),
        ("m.jsonl", [GOOD | {"file_name": "/etc/passwd"}], "leads out of the folder"),
        ("m.jsonl", [GOOD | {"file_name": "C:\\a.png"}], "leads out of the folder"),
        ("m.jsonl", [""], "holds no captions"),
        ("m.csv", ["file_name,text", "a.png,a,b"], "another number of columns"),
        ("m.csv", ["file_name,text", "a.png"], "another number of columns"),
        ("m.csv", ["name,words", "a.png,x"], "no column file_name"),
        ("m.csv", ["file_name,text", '"a.png,x'], "not a table"),
    ],
)
def test_what_is_wrong_is_one_clear_error(tmp_path, name, rows, message):
    pictures(tmp_path, ["a.png"])
    with pytest.raises(DataError, match=message):
        read_captions(write(tmp_path / name, *rows))


def test_other_files_are_no_captions(tmp_path):
    pictures(tmp_path, ["a.png"])
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_captions(tmp_path / "m.jsonl")
    with pytest.raises(DataError, match="no captions at"):
        captions_file("none.jsonl", tmp_path)
    with pytest.raises(DataError, match=r"read from \.jsonl"):
        captions_file("a.png", tmp_path)
    assert captions_file("m.jsonl", tmp_path) == captions_file(tmp_path / "m.jsonl", tmp_path / "other")


def test_keywords_take_the_captions_place_now_and_then():
    rng = torch.Generator().manual_seed(0)
    made = [drawn(Caption("cat", ("a", "b", "c", "d")), rng) for _ in range(500)]
    words = [m.split() for m in made if m != "cat"]
    assert 100 < len(words) < 200 and {len(w) for w in words} == {1, 2, 3} and all(len(set(w)) == len(w) for w in words)
    assert drawn(Caption("cat"), rng) == "cat" and drawn(Caption(None), rng) is None


def test_a_folder_with_captions_is_data_of_a_recipe_of_words(tmp_path):
    pictures(tmp_path, [f"flat/{k}.png" for k in range(6)] + [f"line/{k}.png" for k in range(6)] + ["line/more.png"])
    write(
        tmp_path / "metadata.jsonl",
        *[{"file_name": f"{s}/{k}.png", "text": f"thing {k}"} for s in ("flat", "line") for k in range(6)],
    )
    with pytest.warns(UserWarning, match=r"1 picture\(s\) without a caption in metadata\.jsonl are left out"):
        data = open_images(tmp_path, "train", captions="metadata.jsonl", size=4, channels=3)
    with pytest.warns(UserWarning, match="without a caption"):
        held = open_images(tmp_path, "validation", captions=tmp_path / "metadata.jsonl", size=4, channels=3)
    assert len(data) == 11 and len(held) == 1 and data.labels == {"label": ["flat", "line"]}
    assert data[0][0].shape == (4, 4, 3) and data[0][1] == {"text": "thing 0", "label": 0}
    assert data.draw(0, torch.Generator())[1] == data[0][1] and "without a caption" in data.left_out_words()
    assert data.held_out().given(0) == held.given(0)
    recipe = DOMAIN.adapt(RECIPES["fashion-ddpm"], data)
    assert list(recipe.conditions) == ["text", "label"]
    batch = DOMAIN.codec({"size": 4, "channels": 3}).batch([data[0], data[1]], None, recipe.conditions)
    assert batch.cond["text"].shape == (2, 16) and np.asarray(batch.cond["text"])[0, 0] > 0


def test_one_folder_of_all_pictures_is_no_class(tmp_path):
    pictures(tmp_path, [f"images/{k}.png" for k in range(3)])
    write(tmp_path / "m.csv", "file_name,text", *[f"images/{k}.png,thing" for k in range(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_images(tmp_path, captions="m.csv")
    assert data.labels == {} and data[0][1] == {"text": "thing"} and not data.left_out_words()


def test_captions_of_other_data_are_refused(tmp_path):
    pictures(tmp_path / "one", ["a.png"])
    pictures(tmp_path / "two", ["b.png"])
    write(tmp_path / "two" / "m.jsonl", {"file_name": "b.png", "text": "b"})
    with pytest.raises(DataError, match="names no picture of"):
        open_images(tmp_path / "one", captions=tmp_path / "two" / "m.jsonl")
    with pytest.raises(ConfigError, match="of the pictures of a folder"):
        open_images("hub:owner/name", captions="m.jsonl")
    with pytest.raises(DataError, match="is one file"):
        open_images(tmp_path / "one" / "a.png", captions="m.jsonl")
    (tmp_path / "two" / "text.txt").write_text("no picture")
    write(tmp_path / "two" / "m.jsonl", {"file_name": "b.png", "text": "b"}, {"file_name": "text.txt", "text": "b"})
    with pytest.raises(DataError, match=r"1 file\(s\) that are not among the readable pictures"):
        open_images(tmp_path / "two", captions="m.jsonl")

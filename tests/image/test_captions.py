"""Archives of captioned pictures: which rows are for what, and that a picture is what the archive says."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.contract.conditions import Label
from zoo.contract.text import Text
from zoo.errors import ConfigError, DataError
from zoo.image import captions
from zoo.image.captions import CAPTIONED_SPLITS, archive_kind, boxed, held_out_rows
from zoo.image.codec import ImageCodec
from zoo.image.data import open_images
from zoo.image.domain import DOMAIN
from zoo.image.recipes import RECIPES
from zoo.training.report import of_classes

STYLES = ("flat", "round", "line", "old")


def styles(folder: Path, side: int = 4, things: int = 12, **changed) -> Path:
    """An archive of `things` things in four styles; two of them are test captions, and a row of each style is left out."""
    rng = np.random.default_rng(0)
    rows = [(f"thing {k}", s) for k in range(things) for s in range(len(STYLES))]
    n = len(rows)
    index = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
    split = np.array([2 if k < 2 else 1 if (k == 2 and s == 0) else 3 if (k == 3 and s == 1) else 0 for k, s in
                      ((int(c.split()[1]), s) for c, s in rows)], np.uint8)  # fmt: skip
    arrays = {
        "index64": index,
        "palette": rng.integers(0, 256, (n, 256, 3), dtype=np.uint8),
        "caption": np.array([c for c, _ in rows]),
        "keywords": np.array([f"key_{i}|word-{i}" if i % 2 else "" for i in range(n)]),
        "style": np.array([s for _, s in rows], np.uint8),
        "style_names": np.array(STYLES),
        "split": split,
        "is_duplicate": np.zeros(n, bool),
    }
    path = folder / "styles.npz"
    np.savez_compressed(path, **(arrays | changed))
    return path


@pytest.fixture
def held(monkeypatch):
    plain = held_out_rows
    monkeypatch.setattr(captions, "held_out_rows", lambda *a: plain(*a, n_captions=2, n_pairs=3))


def test_every_row_has_one_part_and_what_is_held_out_is_not_trained_on(tmp_path, held):
    path = styles(tmp_path)
    found = {split: open_images(path, split) for split in CAPTIONED_SPLITS}
    rows = {k: set(d.rows.tolist()) for k, d in found.items()}
    assert sum(len(rows[k]) for k in ("train", "validation", "test")) == len(rows["train"] | rows["validation"] | rows["test"])
    assert rows["validation"] == rows["validation-pairs"] | rows["validation-captions"]
    assert rows["test"] == rows["test-pairs"] | rows["test-captions"]
    assert not rows["validation-pairs"] & rows["validation-captions"]
    assert len(rows["test-captions"]) == 8 and len(rows["test-pairs"]) == 1 and len(rows["validation-pairs"]) == 3
    seen = set(found["train"].captions)
    assert len(set(found["validation-captions"].captions)) == 2 and not set(found["validation-captions"].captions) & seen
    assert not set(found["test-captions"].captions) & seen
    pairs = found["validation-pairs"]
    assert set(pairs.captions) <= seen and set(pairs.parts) == {"pairs"} and set(found["train"].parts) == {"train"}
    trained = set(zip(found["train"].captions, found["train"].targets.tolist(), strict=True))
    assert not set(zip(pairs.captions, pairs.targets.tolist(), strict=True)) & trained
    assert 13 not in rows["train"] | rows["validation"] | rows["test"], "split 3 is left out"
    again = open_images(path, "validation")
    assert again.rows.tolist() == found["validation"].rows.tolist(), "a fixed rule"


def test_a_picture_in_training_is_never_held_out():
    texts = [f"t{k}" for k in range(8) for _ in range(4)]
    twins = [str(i) for i in range(32)]
    twins[0] = twins[4] = "the same picture under two captions"
    twins[8] = twins[9] = "the same picture in two styles"
    parts = held_out_rows(texts, [i % 4 for i in range(32)], twins, n_captions=8, n_pairs=99)
    assert parts[:8] == ["train"] * 8 and parts[8:12] == ["captions"] * 4
    parts = held_out_rows(texts, [i % 4 for i in range(32)], twins, n_captions=0, n_pairs=99)
    pairs = [t for t, part in zip(texts, parts, strict=True) if part == "pairs"]
    assert parts[8:10] == ["train"] * 2 and len(pairs) == 6 == len(set(pairs)), "one of each caption"
    few = held_out_rows(["a", "a", "b", "b", "b"], [0, 1, 0, 1, 2], list("vwxyz"), n_captions=9, n_pairs=9)
    assert few == ["train"] * 2 + ["captions"] * 3, "a thing that training would lose stays"


def test_pictures_are_looked_up_in_their_palettes(tmp_path, held):
    path = styles(tmp_path)
    arrays = np.load(path)
    for size, box in ((4, 1), (2, 2), (3, 1)):
        data = open_images(path, "train", size=size)
        i = data.rows[5]
        whole = arrays["palette"][i][arrays["index64"][i]]
        want = whole if box == 1 else np.floor(whole.reshape(2, 2, 2, 2, 3).mean((1, 3)) + 0.5)
        np.testing.assert_array_equal(data[5][0], want)
        assert data[5][0].dtype == np.uint8 and data[5][1] == {"text": data.captions[5], "style": int(arrays["style"][i])}
    data.prepare_for(ImageCodec(2, 3), RECIPES["emoji-pixels"])
    assert data[0][0].shape == (2, 2, 3) and data.original(0).shape == (4, 4, 3)


def test_an_average_is_rounded_to_the_nearest_byte():
    picture = np.array([[[0], [1]], [[1], [0]]], np.uint8).repeat(3, 2)
    assert boxed(picture, 2).tolist() == [[[1, 1, 1]]]
    assert boxed(np.full((2, 2, 3), 255, np.uint8), 2).tolist() == [[[255] * 3]]


def test_training_draws_keywords_for_the_caption(tmp_path, held):
    data = open_images(styles(tmp_path), "train")
    rng = torch.Generator().manual_seed(0)
    with_words, without = (next(i for i in range(len(data)) if bool(data.keywords[i]) is b) for b in (True, False))
    assert data.keywords[with_words][0].startswith("key ") and len(data.keywords[with_words]) == 2
    drawn = [data.draw(with_words, rng)[1]["text"] for _ in range(400)]
    words = [t for t in drawn if t != data.captions[with_words]]
    assert 0.2 < len(words) / 400 < 0.4 and len(set(words)) == 4, "one of two, or both in either order"
    assert {data.draw(without, rng)[1]["text"] for _ in range(50)} == {data.captions[without]}
    a, b = (data.draw(with_words, torch.Generator().manual_seed(3)) for _ in range(2))
    assert a[1] == b[1] and data[with_words][1]["text"] == data.captions[with_words]


def test_a_recipe_of_words_is_fitted_to_the_archive(tmp_path):
    data = open_images(styles(tmp_path), "train")
    recipe = DOMAIN.adapt(RECIPES["emoji-pixels"], data)
    assert recipe.conditions == {"text": RECIPES["emoji-pixels"].conditions["text"], "style": Label(values=STYLES)}
    assert DOMAIN.adapt(RECIPES["fashion-ddpm"], data).conditions["text"] == Text()


def tiles(folder: Path) -> Path:
    rgba = np.zeros((40, 2, 2, 4), np.uint8)
    rgba[0] = (0, 100, 200, 128)
    rgba[1:, ..., 3] = 255
    path = folder / "tiles.npz"
    names = np.array([f"rock {i // 2}" for i in range(40)])
    np.savez(path, rgba=rgba, caption=names, category=np.array(["wall", "item"] * 20), is_test=np.arange(40) >= 36)
    return path


def test_tiles_are_laid_on_white(tmp_path):
    path = tiles(tmp_path)
    sizes = {split: open_images(path, split) for split in ("train", "validation", "test")}
    assert [len(sizes[k]) for k in sizes] == [34, 2, 4]
    assert not set(sizes["train"].captions) & set(sizes["validation"].captions)
    every = {int(r): d[i][0] for d in sizes.values() for i, r in enumerate(d.rows)}
    assert every[0][0, 0].tolist() == [127, 177, 227]
    assert sizes["train"].labels == {"category": ["item", "wall"]}
    with pytest.raises(ConfigError, match="test-pairs"):
        open_images(path, "test-pairs")


def photos(folder: Path, damaged: bool = False) -> Path:
    parts = []
    for k in range(10):
        memory = io.BytesIO()
        Image.new("RGB", (8, 8), (20 * k, 50, 90)).save(memory, format="JPEG", quality=95)
        parts.append(memory.getvalue())
    if damaged:
        parts[1] = b"no picture at all"
    path = folder / "photos.npz"
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(parts), np.uint8),
        offsets=np.cumsum([0, *map(len, parts)]),
        label=np.arange(10, dtype=np.uint8) % 2,
        label_names=np.array(["daisy", "tulip"]),
        source_file=np.array([f"{k}.jpg" for k in range(10)]),
        is_test=np.arange(10) >= 8,
    )
    return path


def test_photographs_have_labels(tmp_path):
    data = open_images(photos(tmp_path), "test")
    assert len(data) == 2 and data.labels == {"label": ["daisy", "tulip"]} and data[1][1] == {"label": 1}
    assert abs(data[0][0].astype(int) - (160, 50, 90)).max() < 6 and data[0][0].shape == (8, 8, 3)
    with pytest.raises(DataError, match="picture 1 cannot be read"):
        open_images(photos(tmp_path, damaged=True), "train")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"caption": np.array(["a"])}, "rows, but"),
        ({"index64": np.zeros((48, 4, 4), np.float32)}, "not bytes"),
        ({"palette": np.zeros((48, 16, 3), np.uint8)}, "do not fit"),
        ({"style": np.full(48, 9, np.uint8)}, "do not fit"),
    ],
)
def test_an_archive_of_another_form_is_refused(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        open_images(styles(tmp_path, **changed))


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown split 'valid'.*validation-pairs"):
        open_images(styles(tmp_path), "valid")
    (tmp_path / "other.npz").write_bytes(b"no archive")
    assert archive_kind(tmp_path / "other.npz") is None


@pytest.mark.data
@pytest.mark.skipif("ZOO_DATA" not in os.environ, reason="real data")
def test_the_real_archive_is_split_as_its_readme_says():
    path = Path(os.environ["ZOO_DATA"]) / "image" / "emoji_styles.npz"
    sizes = {split: len(open_images(path, split)) for split in CAPTIONED_SPLITS}
    assert sizes == {
        "train": 9122, "validation": 607, "test": 1246,
        "validation-pairs": 250, "validation-captions": 357, "test-pairs": 454, "test-captions": 792,
    }  # fmt: skip


def test_a_run_says_how_many_texts_there_are(tmp_path, held):
    found = of_classes(open_images(styles(tmp_path), "train"), 10.0)
    assert found[0] == "text: 8 different texts", "of twelve things two are for tests, two held out for choices"
    assert found[1].startswith("style: 4 classes")

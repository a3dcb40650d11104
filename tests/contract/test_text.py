"""Text as a condition: what is read as which words, and what is said of the others."""

import time
import warnings

import numpy as np
import pytest
import torch

from zoo.contract import words
from zoo.contract.conditions import Label, Reading, parse_condition
from zoo.contract.registry import get_recipe
from zoo.contract.text import MINILM, MINILM_SHA256, Text
from zoo.contract.words import WordTable, add_table, table, table_names, tokens
from zoo.core.guidance import is_null
from zoo.disk import read_json
from zoo.errors import CheckpointError, ConfigError
from zoo.files import save_tensors
from zoo.hub.card import metadata, model_card
from zoo.testing import check_condition

_WORDS = """
a cat cats red car kitten skateboard fire truck party hat rocket woman astronaut moon family man 9 1 baby dance run leaf o
clock pinata wave
"""
KNOWN = tuple(_WORDS.split())


@pytest.fixture
def small():
    """A table of a few words."""
    return WordTable(KNOWN, np.zeros((len(KNOWN), 4), np.int8), np.ones(len(KNOWN), np.float32))


def read(found, text):
    return [found.words[i] for i in found.read(text).rows]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Red CAR!", "red car"),
        ("  a\tred -- car.  ", "a red car"),
        ("red_car/cat", "red car cat"),
        ("cars", "car"),
        ("cats", "cats"),  # a known form stays
        ("babies", "baby"),
        ("leaves", "leaf"),
        ("dancing", "dance"),
        ("running", "run"),
        ("woman\u2019s cat's", "woman cat"),
        ("four o\u2019clock", "o clock"),
        ("piñata", "pinata"),
        ("\ufb01re", "fire"),  # a ligature
        ("\uff23\uff21\uff34", "cat"),  # full width
        ("firetruck", "fire truck"),
        ("firetrucks", "fire truck"),
        ("skateboarder", "skateboard"),
        ("911", "9 1 1"),
        ("1st car", "1 car"),
        ("٩", "9"),  # an Arabic digit
        ("①", ""),  # its name's words are not in this small table
        ("family: man, woman", "family man woman"),
        ("\N{ROCKET}", "rocket"),
        ("\N{WOMAN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}\N{ZERO WIDTH JOINER}\N{ROCKET}", "woman rocket"),
        ("", ""),
    ],
)
def test_case_plural_and_punctuation_do_not_matter(small, text, wanted):
    assert " ".join(read(small, text)) == wanted


def test_flags_are_read_by_their_letters():
    assert list(tokens("\N{REGIONAL INDICATOR SYMBOL LETTER F}\N{REGIONAL INDICATOR SYMBOL LETTER R}")) == ["flag", "fr"]


@pytest.mark.parametrize("text", ["caxt", "кот", "猫", "xx", "rockt", "carcarcarcar", "123456789"])
def test_what_stands_for_no_known_word_is_unknown(small, text):
    assert small.read(f"red {text} car").unknown == (text,)
    assert read(small, f"red {text} car") == ["red", "car"]


def test_a_long_word_takes_no_time(small):
    start = time.perf_counter()
    assert small.read("a" * 3_990).unknown and small.nearest("a" * 3_990) == []
    assert time.perf_counter() - start < 2


def test_the_nearest_words_are_named(small):
    assert small.nearest("rockt") == ["rocket"]
    said = small.unknown_words(["rockt", *[f"{c}{c}{c}q" for c in "abcdefghij"]])
    assert "'rockt' (nearest: rocket)" in said and said.count("'") == 2 * words.NAMED and "and 3 more" in said
    assert "Latin letters" in small.unknown_words(["кот"]) and "Latin letters" not in said


# ---------------------------------------------------------------- the packaged table


def test_the_packaged_table_is_the_one_that_recipes_name():
    about = read_json(words.TABLES / MINILM / "encoder.json")
    found = table(MINILM, MINILM_SHA256)
    assert about["sha256"] == MINILM_SHA256 and len(found) == about["words"] == 23_818
    assert found.vectors.dtype == np.int8 and found.vectors.shape == (23_818, 96)
    vectors = found.vectors.astype(np.float32) * found.scale[:, None] / 127
    near = vectors @ vectors[found.row["cat"]]
    near /= np.linalg.norm(vectors, axis=1)
    assert {found.words[i] for i in np.argsort(-near)[:6]} >= {"cat", "cats"}
    assert MINILM in table_names()
    assert not list(words.TABLES.glob("*/config.json")), "which would make it a model"


@pytest.mark.parametrize("pair", ["cats cat", "dogs dog", "babies baby", "leaves leaf", "hearts heart", "dresses dress"])
def test_a_plural_is_read_as_its_singular_where_it_means_the_same(pair):
    many, one = pair.split()
    assert Text().words_used(many) == Text().words_used(one) == (one,)


@pytest.mark.parametrize("word", ["glasses", "news", "jeans", "mars", "bus", "this", "sunglasses", "lens", "bass", "scissors"])
def test_what_only_looks_like_a_plural_stays(word):
    assert Text().words_used(word) == (word,)


def test_another_table_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="another one than the model was trained with"):
        table(MINILM, "0" * 64)
    with pytest.raises(ConfigError, match=r"unknown text encoder 'minilm'.*minilm-words"):
        table("minilm", MINILM_SHA256)
    with pytest.raises(ConfigError, match="packaged with zoo"):
        add_table(MINILM, tmp_path)
    with pytest.raises(CheckpointError, match=r"no encoder\.safetensors"):
        add_table("mine", tmp_path)


def test_a_program_adds_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "_ADDED", {})
    tensors = {"vectors": torch.zeros(2, 8, dtype=torch.int8), "scale": torch.ones(2)}
    save_tensors(tmp_path / words.FILE, tensors | {"words": torch.frombuffer(bytearray(b"cat\ndog"), dtype=torch.uint8)})
    add_table("mine", tmp_path)
    condition = Text(encoder="mine", sha256=words.hash_of(tmp_path / words.FILE), length=3)
    assert condition.read("dog cat", 1).values.tolist() == [[2, 1, 0]]
    save_tensors(tmp_path / words.FILE, tensors | {"words": torch.frombuffer(bytearray(b"cat\ncat"), dtype=torch.uint8)})
    table.cache_clear()
    with pytest.raises(CheckpointError, match="not a table of words"):
        table("mine", words.hash_of(tmp_path / words.FILE))


@pytest.mark.parametrize("field", [{"encoder": "../x"}, {"encoder": "a/b"}, {"sha256": "abc"}, {"length": 0}, {"width": 0}])
def test_a_text_condition_is_checked(field):
    with pytest.raises(ConfigError):
        Text(**field)


# ---------------------------------------------------------------- the condition


def test_a_text_becomes_rows_of_the_table_and_empty_text_is_nothing():
    text = Text(length=4)
    row = text.table.row
    given = text.read(["Red CARS!", "", None, "  "], 4)
    assert given.values.tolist() == [[row["red"] + 1, row["car"] + 1, 0, 0]] + [[-1] * 4] * 3
    assert given.shown == ["Red CARS!", None, None, None]
    assert is_null(given.values).tolist() == [False, True, True, True]
    assert torch.equal(text.read("red cars", 1).values, text.read("RED, cars", 1).values)
    assert torch.equal(text.read("cat with 2 hats", 1).values, text.read("Cats with 2 hat!", 1).values)
    assert torch.equal(text.batch(["red cars", None]), text.read(["red cars", None], 2).values)
    assert not torch.equal(text.read("man bites dog", 1).values, text.read("dog bites man", 1).values), "their order counts"


def test_one_warning_says_what_was_used():
    with pytest.warns(UserWarning, match="not known and left out") as said:
        given = Text(length=4).read(["red rockt", "qqqqq", "red cat dog car hat house", "кот"], 4, Reading("text"))
    assert len(said) == 1 and given.shown == ["red rockt", None, "red cat dog car hat house", None]
    message = str(said[0].message)
    for part in ("'rockt' (nearest: rocket", "Used: 'red'", "No known word in 'qqqqq', 'кот'", "as without a text"):
        assert part in message
    assert "More than 4 words, of which the first 4 were used: 'red cat dog car'" in message


def test_known_and_empty_texts_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Text().read(["a red car", "", None], 3)


@pytest.mark.parametrize(
    "value",
    [5, 1.5, True, b"cat", bytearray(b"cat"), object(), {"a": 1}, ["cat", 5], [["cat"], "dog"], [b"cat", "dog"],
     float("nan"), np.int64(3), torch.tensor(2), np.array([1.5, 2.0]), [1, 2], ["cat"], ["a", "b", "c"], {"cat", "dog"}],
)  # fmt: skip
def test_what_is_not_text_is_refused(value):
    with pytest.raises(ConfigError, match="text"):
        Text().read(value, 2, Reading("text"))


def test_ten_thousand_words_are_refused_at_once():
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"a text of 49,999 characters.*at most 4,000"):
        Text().read(" ".join(f"w{i % 1000:03d}" for i in range(10_000)), 1)
    assert time.perf_counter() - start < 1
    with pytest.warns(UserWarning, match="More than 16 words"):
        Text().read("cat " * 900, 1)


def test_many_unknown_words_take_no_time():
    Text().read("cat", 1)
    start = time.perf_counter()
    with pytest.warns(UserWarning, match=r"and \d+ more"):
        Text().read(" ".join(f"qx{chr(97 + i // 26)}{chr(97 + i % 26)}zz" for i in range(490)), 1)
    assert time.perf_counter() - start < 2


def test_numbers_of_words_are_as_good_as_words():
    text = Text(length=3)
    known = text.read("red cat", 1).values[0]
    for value in (known, known.numpy(), known.tolist(), known.expand(2, 3), [known, known], np.stack([known, known])):
        given = text.read(value, 2)
        assert given.values.tolist() == [known.tolist()] * 2 and given.shown == ["red cat"] * 2
    assert is_null(text.batch([torch.zeros(3, dtype=torch.int64)])).all(), "no word at all"
    for wrong in ([1, 2], [1, 2, 3, 4], [1, 2, 99_999], [1, 2, -2]):
        with pytest.raises(ConfigError, match="give a text"):
            text.batch([wrong])


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("a cat, with a hat", "a cat, with a hat"),
        ("7", "7"),
        ("true", "true"),
        ("none", None),
        ('["a cat", "a dog"]', ["a cat", "a dog"]),
        ("[sic] a cat", "[sic] a cat"),
    ],
)
def test_a_text_of_the_command_line_stays_whole(typed, wanted):
    assert Text().parse(typed) == wanted


def test_a_text_condition_keeps_the_contract():
    text = Text(length=5, width=16, depth=1, heads=2, examples=("a red car", "a cat"))
    check_condition("text", text)
    check_condition("text", text.model_copy(update={"examples": ()}))
    assert parse_condition(text.json()) == text
    assert text.showcase(3) == ["a red car", "a cat", "a red car"] and text.placeholder() == '"a red car"'


def test_a_recipe_keeps_how_texts_are_read():
    mine = Text(length=5)
    assert mine.among(Text()) == mine
    assert mine.among(Label(values=("a",))) == Label(values=("a",))


def test_a_card_says_that_words_lead_to_pictures():
    assert metadata(get_recipe("image/emoji-pixels"))["pipeline_tag"] == "text-to-image"
    assert "numpy" not in (card := model_card(get_recipe("image/emoji-pixels"))) and 'text="red sports car"' in card
    assert metadata(get_recipe("image/fashion-ddpm"))["pipeline_tag"] == "unconditional-image-generation"


def test_the_licence_of_a_recipe_names_all_nine_sets():
    recipe = get_recipe("image/emoji-text")
    names = ("Fluent Emoji, flat and colour", "Twemoji", "Noto Emoji and its first version", "FxEmojis", "Emoji One 2",
             "Streamline Emojis", "Flat Color Icons", "all-MiniLM-L6-v2")  # fmt: skip
    assert all(name in recipe.licence for name in names) and len(recipe.classes("style")) == 9


def test_what_data_say_that_is_not_known_is_told_before_training():
    said = Text().about(["a red rockt", "a red rockt", None, "turkiye", "cat"])
    assert said.startswith("3 different texts, 2 words not known: 'rockt' (nearest: rocket")
    assert said.endswith("2 samples without a known word") and Text().about(["cat"]) == "1 different text"

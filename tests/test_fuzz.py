"""The fuzzer: what it calls silent, that its trials can be made again, and a thousand of them."""

import json
import random
from collections import Counter

import fuzz
import pytest


def found(*items, finite=True, said=""):
    return fuzz.Result(list(items), finite, said)


WHOLE, OTHER = found("a", "b"), found("a", "c")
SUMS, COUNTS = (fuzz.Kind("k", None, None, **{key: True}) for key in ("sums", "counts"))
WORDS = fuzz.Kind("k", None, None, counts=True, text=True)
BARE, SET = fuzz.Kind("k", None, None), fuzz.Kind("k", None, None, whole=True)
FLIP, CUT, SEALED, GONE = (
    fuzz.Damage("d", b"x"), fuzz.Damage("d", b"x", cut=True), fuzz.Damage("d", b"x", sealed=True), fuzz.Damage("d", None),
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "damage", "result", "outcome"),
    [
        (SUMS, FLIP, WHOLE, "right"),
        (SUMS, FLIP, OTHER, "silent"),
        (SUMS, SEALED, OTHER, "visible"),
        (BARE, FLIP, OTHER, "visible"),
        (BARE, CUT, OTHER, "visible"),
        (COUNTS, CUT, OTHER, "silent"),
        (COUNTS, FLIP, OTHER, "visible"),
        (SET, GONE, OTHER, "silent"),
        (BARE, FLIP, found("a", "c", finite=False), "silent"),
        (SUMS, FLIP, found("a", "c", said="1 clip is left out"), "visible"),
    ],
)
def test_what_counts_as_silent(kind, damage, result, outcome):
    assert fuzz.judged(kind, damage, b"x y", WHOLE, result) == outcome


def test_a_cut_inside_the_last_word_of_a_text_can_not_be_known():
    assert fuzz.judged(WORDS, fuzz.Damage("cut", b"1 2.2", cut=True), b"1 2.25", WHOLE, OTHER) == "visible"
    assert fuzz.judged(WORDS, fuzz.Damage("cut", b"1 ", cut=True), b"1 2.25", WHOLE, OTHER) == "silent"


@pytest.mark.parametrize("name", ["image npz", "model format 1", "point3d xyz", "image .png L"])
def test_the_damage_of_a_trial_is_the_same_each_time(tmp_path, name):
    kind = fuzz.KINDS[name]
    kind.make(tmp_path)
    paths = [p for pattern in kind.files for p in sorted(tmp_path.glob(pattern))]
    damages = [[fuzz.damaged(random.Random(i), kind, p).data for i in range(12) for p in paths] for _ in range(2)]
    assert damages[0] == damages[1] and len(set(damages[0])) > 6


def test_odd_json_is_mostly_json():
    counts = Counter()
    for i in range(200):
        data = fuzz.odd_json(random.Random(i), json.dumps({"a": {"b": [1, 2]}, "c": "x"}).encode())
        try:
            json.loads(data)
            counts["json"] += 1
        except (ValueError, RecursionError):
            counts["none"] += 1
    assert counts["json"] > 120 and counts["none"] > 5


def test_the_table_counts_each_kind_and_all():
    trials = [fuzz.Trial(0, "x", "clear"), fuzz.Trial(1, "y", "silent"), fuzz.Trial(2, "x", "clear")]
    lines = [line.split() for line in fuzz.table(trials).splitlines()]
    assert lines[0] == ["kind", "tried", *fuzz.OUTCOMES]
    assert lines[1:] == [["x", "2", "2", *"00000"], ["y", "1", *"000100"], ["all", "3", *"200100"]]


@pytest.mark.slow
def test_readers_that_do_wrong_are_seen(tmp_path):
    wanted = {"refuses": "clear", "is silent": "silent", "gives nan": "silent", "repairs": "right", "raises": "foreign",
              "takes all memory": "foreign", "dies": "foreign", "waits": "hang"}  # fmt: skip
    assert wanted.keys() == fuzz.WRONG.keys()
    trials, left_out = fuzz.fuzz(len(wanted), 0, tmp_path, kinds=list(wanted), seconds=5)
    assert not left_out and {t.kind: t.outcome for t in trials} == wanted


@pytest.mark.slow
def test_a_thousand_damaged_inputs_end_in_a_clear_error_or_a_right_answer(tmp_path):
    trials, left_out = fuzz.fuzz(1000, 17, tmp_path)
    assert all(why.startswith("needs ") for why in left_out.values()), left_out
    bad = [f"{t.outcome}: trial {t.number}, {t.kind}, {t.damage}: {t.detail}" for t in trials if t.outcome in fuzz.BAD]
    assert len(trials) == 1000 and not bad, "\n".join(bad) + "\n" + fuzz.table(trials)

"""Numbers and lists of Python, numpy and torch."""

import numpy as np
import pytest
import torch

from zoo.contract.typed import word
from zoo.errors import ConfigError, brief, one_of
from zoo.values import for_each, number, pairs, plain, plain_data, several, whole

SEVEN = [7, np.int64(7), np.uint8(7), np.array(7), torch.tensor(7), torch.tensor(7, dtype=torch.int16)]


@pytest.mark.parametrize("value", SEVEN)
def test_a_whole_number_in_every_form(value):
    assert plain(value) == 7 and type(plain(value)) is int
    assert whole(value, "n") == 7 == number(value, "n", 7, 7)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).bfloat16()])
def test_a_number_in_every_form(value):
    assert number(value, "w") == 0.5 and type(number(value, "w")) is float


@pytest.mark.parametrize("value", [True, np.bool_(True), torch.tensor(True), 2.0, np.float64(2), "2", None, [2], np.array([2])])
def test_what_is_not_a_whole_number_is_refused(value):
    with pytest.raises(ConfigError, match=r"n=.*give a whole number of at least 1"):
        whole(value, "n", 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.inf, torch.tensor(float("nan")), True, "x", None, -0.1, 1.1])
def test_what_is_not_a_number_in_range_is_refused(value):
    with pytest.raises(ConfigError, match=r"share=.*from 0 to 1 \(a hint\)"):
        number(value, "share", 0, 1, what="a hint")


def test_bounds_are_said():
    with pytest.raises(ConfigError, match="n=0: give a whole number from 1 to 9"):
        whole(0, "n", 1, 9)
    with pytest.raises(ConfigError, match="n=10: give a whole number of at most 9"):
        whole(10, "n", most=9)


def test_other_values_stay_as_they_are():
    for value in ("text", None, [1], np.array([1, 2]), torch.ones(2), {"a": 1}):
        assert plain(value) is value


@pytest.mark.parametrize(
    "value", [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), torch.tensor([1, 2]), [np.int64(1), torch.tensor(2)]]
)
def test_several_values_in_every_form(value):
    assert several(value) == [1, 2] and [type(v) for v in several(value)] == [int, int]
    assert for_each(value, 2, "x") == [1, 2]
    with pytest.raises(ConfigError, match="x: 2 values for n=3 samples"):
        for_each(value, 3, "x")


def test_one_value_is_for_all():
    assert for_each("text", 3, "x") == ["text"] * 3 and for_each(np.float64(2), 2, "x") == [2.0, 2.0]
    assert several("text") is None and several(np.ones((2, 2))) is None and several(None) is None


def test_data_becomes_what_json_holds():
    data = {"a": np.int64(1), "b": [torch.tensor(2.0), (np.array([1, 2]), "x")], "c": {"d": torch.eye(2)}}
    assert plain_data(data) == {"a": 1, "b": [2.0, ([1, 2], "x")], "c": {"d": [[1.0, 0.0], [0.0, 1.0]]}}


def test_words_of_a_command_line():
    assert [word(w) for w in ("3", "2.5", "1e-3", "x")] == [3, 2.5, 0.001, "x"]
    assert pairs(["a.b=1", "c=x=y"]) == {"a.b": "1", "c": "x=y"}
    with pytest.raises(ConfigError, match="path=value"):
        pairs(["a"])


def test_a_number_too_large_for_a_float_is_refused():
    with pytest.raises(ConfigError, match="finite"):
        number(10**400, "x")


@pytest.mark.parametrize("value", [1e39, -1e300, 10**39])
def test_a_number_that_float32_does_not_hold_is_refused(value):
    """torch would refuse it where it is multiplied with, or clamped to, with an error of its own."""
    with pytest.raises(ConfigError, match="give a finite number"):
        number(value, "clip")
    assert number(3.4e38, "clip") == 3.4e38


@pytest.mark.parametrize("value", [[1] * 10**6, "x" * 10**6, 10**5000], ids=["list", "text", "number"])
def test_a_long_value_is_cut_in_messages(value):
    """As a config of somebody's may hold."""
    assert len(brief(value)) < 250 and len(str(one_of("word", value, ["a"]))) < 500
    assert brief([1, 2]) == "[1, 2]"

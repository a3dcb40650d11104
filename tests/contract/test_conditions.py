"""Conditions as objects: what is read, what stands for nothing, and a kind that somebody else adds."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.contract.conditions import CONDITIONS, Array, Condition, Given, Label, Reading, Views, condition, parse_condition
from zoo.contract.dataset import Items
from zoo.core.guidance import is_null
from zoo.errors import ConfigError, ShapeError
from zoo.testing import check_condition

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}


def test_labels_are_read_without_regard_to_case():
    label = Label(values=("T-shirt", "bag", "Bag"))
    given = label.read(["t-SHIRT", "bag", "Bag", 0, None], 5)
    assert given.values.tolist() == [0, 1, 2, 0, -1] and given.shown == ["T-shirt", "bag", "Bag", "T-shirt", None]
    with pytest.raises(ConfigError, match=r"unknown thing 'BAG'.*T-shirt, bag, Bag"):
        label.read("BAG", 1, Reading("thing"))


@pytest.mark.parametrize(
    "value",
    [1, np.int64(1), torch.tensor(1), np.array(1), "b", np.str_("B"), [1, 1], np.array([1, 1]), torch.tensor([1, 1]),
     np.array(["b", "B"]), (np.int8(1), torch.tensor(1))],
)  # fmt: skip
def test_labels_come_in_every_form(value):
    assert Label(values=("a", "b")).read(value, 2).values.tolist() == [1, 1]


@pytest.mark.parametrize("value", ["c", 2, -1, True, 1.0, np.float64(1), [0], [0, 1, 0]])
def test_a_wrong_label_is_refused(value):
    with pytest.raises(ConfigError, match="pick"):
        Label(values=("a", "b")).read(value, 2, Reading("pick"))


@pytest.mark.parametrize("value", [7, -2, 1.0, True, "dog"])
def test_a_wrong_label_of_the_data_is_refused(value):
    label = Label(values=("cat", "bird"))
    assert label.batch([None, -1, "CAT", 1]).tolist() == [-1, -1, 0, 1]
    with pytest.raises(ConfigError, match="Allowed: cat, bird"):
        label.batch(["cat", value])


def test_a_free_label_is_drawn_by_each_sample_or_left_out():
    drawn = Label(values=("a", "b", "c"), free="draw")

    def rng(i):
        return torch.Generator().manual_seed(i)

    given = drawn.read([None, "a", None], 3, Reading(rng=rng))
    assert given.values[1] == 0 and (given.values >= 0).all()
    assert drawn.read(None, 3, Reading(rng=rng)).values[2] == given.values[2], "the same whatever the others are"
    assert drawn.read(None, 2).values.tolist() == [-1, -1], "nothing to draw from"
    assert Label(values=("a",)).read(None, 2, Reading(rng=rng)).values.tolist() == [-1, -1]


def test_arrays_come_in_every_form_and_are_checked():
    array = Array(shape=(2, 3))
    value = np.arange(6.0).reshape(2, 3)
    expected = torch.arange(6.0).view(2, 3)
    for form in (value, value.tolist(), torch.from_numpy(value), value.astype(np.int32), np.stack([value] * 4)):
        given = array.read(form, 4)
        assert given.values.dtype == torch.float32 and given.shown is None
        assert torch.equal(given.values, expected.expand(4, 2, 3))
    assert is_null(array.read(None, 4).values).all() and is_null(array.null(2)).all()
    with pytest.raises(ShapeError, match=r"seen: shape \(3, 2\); give \(2, 3\), or \(4, 2, 3\)"):
        array.read(value.T, 4, Reading("seen"))
    with pytest.raises(ConfigError, match="NaN or infinity"):
        array.read(value * np.nan, 4)
    with pytest.raises(ConfigError, match="not an array of numbers"):
        array.read("words", 1)


VIEWS = Views(shape=(2, 26), numbers=[("joints", 2)], cameras=[("hand", 2, 3), ("head", 1, 2)])


def test_views_are_rows_of_numbers_and_pictures():
    check_condition("seen", VIEWS)
    rows = np.random.default_rng(0).normal(size=(4, 2, 26)).astype(np.float32)
    assert torch.equal(VIEWS.read(rows, 4).values, torch.from_numpy(rows))
    assert torch.equal(VIEWS.read(rows[0], 4).values, torch.from_numpy(rows[:1]).expand(4, -1, -1))
    assert VIEWS.describe() == "the last 2 of joints (2), hand (2, 3, 3), head (1, 2, 3)"
    assert eval(VIEWS.placeholder())["hand"].shape == (2, 2, 3, 3)
    with pytest.raises(ShapeError, match=r"seen: 3 windows for n=4 samples; give one for all of them, or 4: the last 2 of"):
        VIEWS.read(rows[:3], 4, Reading("seen"))
    with pytest.raises(ShapeError, match=r"shape \(2, 25\) for n=4"):
        VIEWS.read(rows[0, :, 1:], 4)
    with pytest.raises(ConfigError, match="have 26 together"):
        VIEWS.model_copy().model_validate(VIEWS.json() | {"shape": [2, 27]})
    with pytest.raises(ConfigError, match="needs a name of its own"):
        Views(shape=(1, 7), numbers=[("a", 1)], cameras=[("a", 1, 2)])


@pytest.mark.parametrize("found", [Label(values=("a", "b")), Array(shape=(3,)), VIEWS])
def test_a_condition_says_what_it_is_and_gives_examples(found):
    example = found.example(5, torch.Generator().manual_seed(0))
    assert not is_null(example).any() and is_null(found.null(5)).all() and found.null(5).shape == example.shape
    net = found.embedding(8)
    out = net(torch.cat([example, found.null(1)]), 6)
    assert out.shape == (6, 8) and torch.equal(out[5], net(None, 1)[0])
    again = CONDITIONS[found.kind].model_validate(found.json())
    assert again == found and found.describe()
    batch = found.batch(list(example.numpy()))
    assert torch.equal(batch, example)


def test_the_command_line_reads_labels_as_words_or_numbers():
    label = Label(values=("a", "b", "7", "x,y"))
    assert label.parse("a,B,1") == ["a", "B", 1] and label.parse("7") == "7" and label.parse("x,y") == "x,y"
    assert Array(shape=(2,)).parse("[1, 2]") == [1, 2] and Array(shape=(2,)).parse("1,2.5") == [1, 2.5]


# ---- a third kind, as another package would add it ---------------------------------------------------------


class Embedding(nn.Module):
    def __init__(self, words, dim):
        super().__init__()
        self.net, self.null = nn.Linear(words, dim), nn.Parameter(torch.zeros(dim))

    def forward(self, tags, batch):
        if tags is None:
            return self.null.expand(batch, -1)
        none = is_null(tags)[:, None]
        return torch.where(none, self.null, self.net(torch.where(none, 0.0, tags)))


@pytest.fixture
def tags():
    """Several words at once, as 0 and 1 for each word that is known."""

    @condition("tags")
    class Tags(Condition):
        kind: Literal["tags"] = "tags"
        words: tuple[str, ...]

        def vector(self, name, value):
            unknown = set(value.split()) - set(self.words)
            if unknown:
                raise ConfigError(f"{name}: unknown words {sorted(unknown)}; known are {', '.join(self.words)}.")
            return [float(w in value.split()) for w in self.words]

        def read(self, value, n, reading=None):
            texts = [value] * n if value is None or isinstance(value, str) else list(value)
            rows = [[float("nan")] * len(self.words) if t is None else self.vector(reading.name, t) for t in texts]
            return Given(torch.tensor(rows), texts)

        def batch(self, values, reading=None):
            return torch.tensor([self.vector("tags", v) for v in values])

        def example(self, n, rng=None):
            return torch.eye(len(self.words))[torch.arange(n) % len(self.words)]

        def embedding(self, dim):
            return Embedding(len(self.words), dim)

        def showcase(self, n):
            return [self.words[i % len(self.words)] for i in range(n)]

        def describe(self):
            return f"words of {', '.join(self.words)}"

    yield Tags
    CONDITIONS.remove("tags")


def test_a_new_kind_of_condition_works_everywhere_without_a_change(tags, tmp_path, capsys):
    spec = {"what": {"kind": "tags", "words": ["red", "old", "big"]}, "label": {"values": ["a", "b"]}}
    model = zoo.create("image/fashion-ddpm", **SMALL, conditions=spec, **{"training.batch_size": 4})
    assert isinstance(model.recipe.conditions["what"], tags)
    rng = np.random.default_rng(0)
    items = [(rng.integers(0, 256, (28, 28), dtype=np.uint8), {"what": w, "label": "a"}) for w in ("red", "old big", "big")]
    zoo.fit(model, Items(items, conditions=model.recipe.conditions), steps=2, out=tmp_path / "run", preview_every=2, cpu=True)
    assert (tmp_path / "run" / "previews" / "0000002.png").exists()
    again = zoo.load(tmp_path / "run")
    assert again.verify() == 0.0
    with torch.no_grad():  # two steps from zero say next to nothing
        for p in again.denoiser.parameters():
            p += 0.05
    assert again.recipe == model.recipe
    settings = {"seed": 0, "steps": 2, "progress": False, "guidance_interval": (0, 1e9)}
    asked = again.sample(2, what=["red old", None], label="B", guidance_weight={"what": 2.0}, **settings)
    assert asked.conditions == {"what": ["red old", None], "label": ["b", "b"]}
    plain = again.sample(2, what=["red old", None], label="b", guidance_weight=0.0, **settings)
    assert not torch.equal(asked.tensor[0], plain.tensor[0]), "its guidance has an effect"
    with pytest.raises(ConfigError, match="unknown words"):
        again.sample(1, what="green")
    assert "what: words of red, old, big" in str(zoo.info(str(tmp_path / "run")))


def test_an_unknown_kind_is_named():
    with pytest.raises(ConfigError, match=r"unknown kind of condition 'smell'.*label"):
        zoo.create("image/fashion-ddpm", conditions={"nose": {"kind": "smell"}})


@pytest.mark.parametrize(
    ("kind", "fields", "word"),
    [
        (Label, {"values": []}, "values"),
        (Label, {"values": "abc"}, "values"),
        (Label, {"values": ["a", "b", "a"]}, "'a' is there 2 times"),
        (Label, {"values": ["a", " "]}, "without a name"),
        (Label, {"valus": ["a"]}, "Did you mean 'values'"),
        (Label, {"values": ["a"], "free": "x"}, "free"),
        (Array, {"shape": ()}, "shape"),
        (Array, {"shape": [0]}, "shape"),
        (Array, {"shap": [1]}, "Did you mean 'shape'"),
    ],
)
def test_a_condition_with_wrong_fields_is_our_own_error(kind, fields, word):
    with pytest.raises(ConfigError, match=word):
        kind(**fields)
    with pytest.raises(ConfigError, match=word):
        kind.model_validate(fields)
    with pytest.raises(ConfigError, match=word):
        parse_condition({"kind": kind.model_fields["kind"].default} | fields)


def test_labels_that_differ_in_case_alone_are_two():
    assert Label(values=["a", "A"]).index("label", "A") == 1


def test_what_is_typed_for_a_condition_may_be_none_or_json():
    label, array = Label(values=["bag", "None of these", "true"]), Array(shape=(2,))
    assert label.parse("bag,none") == ["bag", None] and label.parse('["bag", null]') == ["bag", None]
    assert label.parse("none of these") == "none of these" and label.parse("none") is None and label.parse("true") == "true"
    assert array.parse("[0.2, 5]") == array.parse("0.2,5") == [0.2, 5] and array.parse("none") is None
    with pytest.raises(ConfigError, match="not JSON"):
        array.parse("[0.2, 5")

"""Model cards: what their metadata say, when they count as edited, what of them is kept."""

import re
import time
from pathlib import Path

import huggingface_hub
import pytest
import readme
import torch
import yaml

import zoo
from zoo.contract.registry import CHECKPOINTS, get_recipe, list_models
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import FlowSchedule
from zoo.errors import ConfigError
from zoo.hub import card
from zoo.hub.push import check_card
from zoo.model.model import Model

RECIPE = get_recipe("image/fashion-ddpm")
EVALUATION = {
    "metrics": {"accuracy": {"value": 0.9, "ceiling": 0.95, "floor": 0.1, "better": "higher", "interval": [0.88, 0.92]},
                "precision": {"value": 1e-5, "ceiling": None, "better": "higher"}},
    "protocol": {"samples": 500, "reference": "100 real: test", "split": "test", "sampler": "ddim", "steps": 9,
                 "precision": "bf16", "guidance_weight": 0.5, "accuracy": "share",
                 "precision_recall": "k = 3", "training": "9 steps",
                 "command": "a\nb"},
}  # fmt: skip
#: what the Hub itself knows, from its documentation
HUB_TASKS = {"unconditional-image-generation", "text-to-image", "robotics", None}


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_client_reads_every_figure():
    text = card.model_card(RECIPE, EVALUATION, "samples.png")
    data = huggingface_hub.ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "zoo", "unconditional-image-generation")
    assert data.tags == ["diffusion", "image"] and data.model_name == "image/fashion-ddpm"
    one, two = data.eval_results
    assert (one.metric_type, one.metric_value, one.dataset_name, one.dataset_split) == (
        "accuracy",
        0.9,
        "Fashion-MNIST",
        "test",
    )
    assert one.metric_args == {"ceiling": 0.95, "floor": 0.1, "better": "higher", "interval": [0.88, 0.92], "protocol": "share"}
    assert two.metric_args == {"better": "higher", "protocol": "k = 3"} and two.metric_value == 1e-5
    assert one.dataset_args["sampler"] == "ddim" and one.dataset_args["precision"] == "bf16"


def test_the_metadata_are_the_clients_own_and_read_back():
    recipe = RECIPE.model_copy(update={"data": "hub:me/pets@abc, 3 rows"})
    metrics = {"far": {"value": None, "better": "lower"}, "near": {"value": 0.5, "better": "lower", "interval": (0.25, 0.75)}}
    text = card.model_card(recipe, {"metrics": metrics, "protocol": {}})
    data = huggingface_hub.ModelCard(text, ignore_metadata_errors=False).data
    assert data.datasets == ["me/pets"] and data.model_name == "image/fashion-ddpm"
    (near,) = data.eval_results  # a metric without a value is none of the Hub's
    assert near.metric_args["interval"] == [0.25, 0.75] and near.dataset_args is None
    assert card.metadata(recipe)["datasets"] == ["me/pets"] and not {"model-index", "model_name"} & set(card.metadata(recipe))


def test_the_text_says_how_to_load_how_it_was_made_and_whose_data():
    text = card.model_card(RECIPE, EVALUATION, "samples.png", source="hub:me/m")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    compile(code, "card", "exec")
    assert 'zoo.load("hub:me/m")' in code
    for words in (
        "![samples](samples.png)",
        "9 steps\n\n    a\n    b\n",
        RECIPE.data,
        RECIPE.licence,
        RECIPE.paper,
        "* steps: 9",
    ):
        assert words in text
    assert "* command" not in text


def test_the_table_has_the_columns_that_there_are_and_intervals():
    table = card.metrics_table(EVALUATION).splitlines()
    assert table[0] == "| metric | model | real data (ceiling) | baseline (floor) | better |"
    assert table[2] == "| accuracy | 0.9 [0.88, 0.92] | 0.95 | 0.1 | higher |"
    metrics = {"bond": {"value": 0.5, "idealised": 0.1, "better": "lower"}, "angle": {"value": 2.0, "better": "lower"}}
    table = card.metrics_table({"metrics": metrics}).splitlines()
    assert table == [
        "| metric | model | idealised | better |",
        "| --- | --- | --- | --- |",
        "| bond | 0.5 | 0.1 | lower |",
        "| angle | 2 |  | lower |",
    ]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("1,067 chains of the PDB (wwPDB), split.", "1,067 chains of the PDB"),
        ("Faces, aligned; 3", "Faces"),
        ("Words; 4", "Words"),
        ("", "own data"),
    ],
)
def test_the_data_set_has_the_name_before_the_first_clause(data, name):
    found = front(card.model_card(RECIPE.model_copy(update={"data": data}), EVALUATION))
    assert found["model-index"][0]["results"][0]["dataset"]["name"] == name


@pytest.mark.parametrize(("domain", "task", "tags"), [
    ("image", "unconditional-image-generation", []), ("audio", None, ["audio-generation"]),
    ("point3d", None, ["point-cloud", "3d"]), ("protein", None, ["biology"]), ("policy", "robotics", []),
    ("weather", None, []),
])  # fmt: skip
def test_task_and_tags_by_domain(domain, task, tags):
    data = front(card.model_card(RECIPE.model_copy(update={"domain": domain}), EVALUATION))
    assert data.get("pipeline_tag") == task and data["tags"] == ["diffusion", domain, *tags] and task in HUB_TASKS
    assert data["model-index"][0]["results"][0]["task"]["type"] == (task or f"{domain}-generation")


@pytest.mark.parametrize(("text", "expected"), [
    ("Apache-2.0 (weights); data MIT.", {"license": "apache-2.0"}), ("MIT.", {"license": "mit"}), ("", {}),
    ("My-Own-1.0, ask", {"license": "other", "license_name": "my-own-1.0"}), ("CC-BY-4.0", {"license": "cc-by-4.0"}),
    ("CC BY-SA 4.0 (weights)", {"license": "cc-by-sa-4.0"}), ("CC0 1.0.", {"license": "cc0-1.0"}),
    ("MIT-0", {"license": "other", "license_name": "mit-0"}),
])  # fmt: skip
def test_licences(text, expected):
    data = card.metadata(RECIPE.model_copy(update={"licence": text}))
    assert {k: v for k, v in data.items() if k.startswith("license")} == expected


def test_sounds_are_played_from_their_whole_address():
    text = card.model_card(RECIPE, sounds=["samples/a.wav"], base="https://x/resolve/main/")
    assert '<audio controls src="https://x/resolve/main/samples/a.wav"></audio>' in text


def test_only_a_text_that_somebody_wrote_counts_as_edited():
    text = card.model_card(RECIPE, EVALUATION)
    assert not card.edited(text) and not card.edited(text.replace("\n", "\r\n")) and not card.edited("")
    assert not card.edited(text.replace("library_name: zoo", "library_name: x")), "metadata are no text"
    for change in (text.replace("clothes", "cloth"), text + "more", "# mine", text.replace("zoo-card", "card")):
        assert card.edited(change)


def test_renew_keeps_the_text_byte_for_byte_and_foreign_metadata():
    old = "---\nlanguage: de\nlicense: mit\nmodel-index: []\npipeline_tag: x\ntags: [mine]\n---\n\n# Mein  \r\nText \n"
    bare = RECIPE.model_copy(update={"licence": "", "domain": "weather"})
    new = card.renew(old, card.model_card(bare))
    assert new.endswith("\n---\n\n# Mein  \r\nText \n")
    assert front(new) == {"library_name": "zoo", "tags": ["diffusion", "weather", "mine"], "language": "de", "license": "mit"}
    assert card.renew(new, card.model_card(bare)) == new, "again changes nothing"
    empty = card.renew("---\nlicense_link:\nmodel-index: 3\n1: 2\n---\nmine", card.model_card(bare))
    assert front(empty) == {"library_name": "zoo", "tags": ["diffusion", "weather"], "license_link": None, 1: 2}
    assert card.renew("words without metadata", card.model_card(RECIPE)).endswith("---\nwords without metadata")
    fresh = card.model_card(RECIPE, EVALUATION)
    assert card.renew(card.model_card(RECIPE), fresh) == fresh


@pytest.mark.parametrize("text", ["---\na: [\n---\nx", "---\n- a\n---\nx", "---\n!!python/object/apply:os.system [x]\n---\nx"])
def test_bad_metadata_are_one_clear_error(text):
    with pytest.raises(ConfigError, match=r"README.md: its metadata"):
        card.split(text)


MARK = "<!-- zoo-card " + "0" * 64 + " -->"
LONG = {
    "blank lines": "\n" * 400_000,
    "blank lines of Windows": "\r\n" * 200_000,
    "spaces": " " * 400_000,
    "blank lines before a mark": "a" + "\n" * 400_000 + MARK + "b",
    "marks": MARK[:20] * 20_000,
    "rules": "---\n" * 100_000,
    "rules with spaces": "---\n" + ("---" + " " * 2000 + "x\n") * 150,
    "blank metadata": "---\n" + "\n" * 30_000 + "\n---\nb",
    "metadata without an end": "---\n" + "\n" * 400_000,
    "a text of blank lines": "---\na: |\n  b\n" + "\n" * 30_000 + "  c\n---\nb",
    "a quoted text": "---\na: '" + "\n" * 30_000 + "'\n---\nb",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_no_card_takes_long(text):
    """Each was quadratic, or is so in the client's own reader: minutes."""
    started = time.perf_counter()
    assert card.edited(text) == bool(card.split(text)[1].strip())
    new = card.renew(text, card.model_card(RECIPE))
    check_card(new)
    assert time.perf_counter() - started < 3.0


BOMBS = {
    "aliases": "a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]",
    "merges": "a: &a {x: 1}\nb: {<<: [*a, *a]}",
    "nested": "a: " + "[" * 60 + "]" * 60,
    "nested without an end": "[" * 60_000,
    "a long number": "a: " + "9" * 50_000,
    "a number of base 60": "a: " + "1:" * 20_000 + "1",
    "a date that is none": "a: 2024-99-99",
    "much": "a: " + "b" * 70_000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_metadata_that_grow_are_refused(text):
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=r"README.md: its metadata .*(not YAML|more than 64 kB)") as caught:
        card.split(f"---\n{text}\n---\nb")
    assert time.perf_counter() - started < 2.0 and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_card_has_a_size():
    with pytest.raises(ConfigError, match="more than 1 MB"):
        card.edited("a" * (card.MOST_CARD + 1))


@pytest.mark.parametrize("folder", sorted(p.parent for p in CHECKPOINTS.glob("*/*/config.json")), ids=lambda p: p.name)
def test_packaged_cards_are_what_the_program_makes(folder: Path):
    assert (folder / "README.md").read_text(encoding="utf-8") == readme.card(folder), "run: python benchmarks/readme.py"


PACKAGED = [name for name in list_models() if (CHECKPOINTS / name / "model.safetensors").exists()]


@pytest.mark.parametrize("name", [n if n == readme.SHOWN else pytest.param(n, marks=pytest.mark.slow) for n in PACKAGED])
def test_the_code_of_a_packaged_card_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    sample = Model.sample
    monkeypatch.setattr(Model, "sample", lambda self, n, **asked: sample(self, n, steps=2, **asked))
    code = re.search(r"```python\n(.*?)```", (CHECKPOINTS / name / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    exec(compile(code, name, "exec"), {})
    assert len(list((tmp_path / "out").iterdir())) == 4


def code_of(folder):
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]


@pytest.mark.parametrize("form", [lambda p, root: p, lambda p, root: p.relative_to(root)], ids=["absolute", "relative"])
def test_the_card_of_ones_own_model_shows_the_code_that_loads_it(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zoo.contract.samples.Samples.save", lambda self, folder: None)
    conditions = {"label": {"values": ["mine", "yours"]}}
    folder = form(tmp_path / "image" / "fashion-ddpm", tmp_path)  # the name of a packaged model
    small = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16, "sampling.steps": 1}
    model = zoo.create("image/fashion-ddpm", **small, conditions=conditions)
    model.save_pretrained(folder)
    names = {}
    exec(compile(code_of(folder), "card", "exec"), names)
    assert torch.equal(names["samples"].tensor, model.sample(4, seed=0, progress=False).tensor)


def test_the_card_of_a_net_of_ones_own_says_what_to_give(tmp_path):
    net = torch.nn.Conv2d(1, 1, 1)
    codec = zoo.create("image/fashion-ddpm", **{"net.channels": 16, "net.multipliers": [1], "net.attention": [False]}).codec
    folder = tmp_path / "m"
    zoo.Model.of(Diffusion(FlowSchedule(), "flow"), Wrapped(net), codec).save_pretrained(folder)
    assert f'zoo.load("{folder.as_posix()}", net=YourNet(), codec=YourCodec(), diffusion=YourDiffusion())' in code_of(folder)


class Wrapped(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x_t, t, cond, *, mask=None):
        return self.net(x_t)


@pytest.mark.parametrize("line", ["a: !!timestamp x", "a: !!bool x", 'a: !!int ""', 'a: !!float ""'])
def test_a_value_that_is_not_what_its_tag_says(line):
    with pytest.raises(ConfigError, match="are not YAML"):
        card.split(f"---\n{line}\n---\ntext")


@pytest.mark.parametrize("lines", ["a: 1\na: 2", "b:\n- {a: 1, a: 2}"])
def test_a_key_that_is_there_twice(lines):
    with pytest.raises(ConfigError, match="'a' is there twice"):
        card.split(f"---\n{lines}\n---\ntext")

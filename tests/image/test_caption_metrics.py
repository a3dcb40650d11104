"""The judge of captions and the evaluator of pictures that are asked for by text, on made-up pictures of coloured shapes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import train_caption_judge as script

import zoo
from zoo.cli import main
from zoo.contract.conditions import Label
from zoo.contract.samples import Samples
from zoo.errors import CheckpointError, ConfigError, DataError, ShapeError
from zoo.evaluation.evaluate import evaluate as measure
from zoo.evaluation.judge import load_judge, save_judge
from zoo.image import captions, evaluate
from zoo.image.caption_judge import CaptionJudge, fill_words, load_caption_judge, ranks, words_of
from zoo.image.caption_metrics import Captioned, Evaluator, through_stage
from zoo.image.codec import ImageCodec
from zoo.image.domain import DOMAIN
from zoo.image.reconstruction import Reconstructed, StageEvaluator

COLOURS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255), "black": (0, 0, 0), "pink": (255, 120, 200)}
SHAPES = ("ball", "box", "bar")
STYLES = ("plain", "framed")
WORDS = (*COLOURS, *SHAPES, "a", "the")


def picture(caption: str, style: str, rng: np.random.Generator) -> np.ndarray:
    """(16, 16, 3) uint8: a coloured shape on white."""
    colour, shape = caption.split()
    y, x = np.mgrid[:16, :16] - 7.5
    y, x = y + rng.uniform(-1, 1), x + rng.uniform(-1, 1)
    inside = {"ball": x**2 + y**2 < 25, "box": np.maximum(abs(x), abs(y)) < 4, "bar": abs(y) < 2}[shape]
    page = np.full((16, 16, 3), 255, np.uint8)
    page[inside] = COLOURS[colour]
    if style == "framed":
        page[[0, -1]] = page[:, [0, -1]] = 128
    return page


def captioned(prompts: list[tuple[str, str, str]], seed: int) -> Captioned:
    """Pictures of (caption, style, part)."""
    rng = np.random.default_rng(seed)
    pixels = np.stack([picture(c, s, rng) for c, s, _ in prompts]).transpose(0, 3, 1, 2)
    return Captioned(
        torch.from_numpy(pixels).float() / 127.5 - 1,
        [c for c, _, _ in prompts],
        torch.tensor([STYLES.index(s) for _, s, _ in prompts]),
        [p for _, _, p in prompts],
    )


def word_vectors() -> tuple[np.ndarray, np.ndarray]:
    """Of WORDS, as int8 and scales; "pink" is near "red", and nothing else is near."""
    vectors = np.random.default_rng(0).normal(size=(len(WORDS), 8))
    vectors[WORDS.index("pink")] = vectors[WORDS.index("red")] + 0.1
    scales = np.abs(vectors).max(1)
    return np.round(127 * vectors / scales[:, None]).astype(np.int8), scales.astype(np.float32)


TRAIN = [(f"{c} {s}", style, "train") for c in list(COLOURS)[:4] for s in SHAPES for style in STYLES]
TRAIN.remove(("green box", "framed", "train"))
TRAIN.remove(("blue bar", "plain", "train"))
HELD = [(f"pink {s}", style, "captions") for s in SHAPES for style in STYLES]
HELD += [("green box", "framed", "pairs"), ("blue bar", "plain", "pairs")]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def judge() -> CaptionJudge:
    torch.manual_seed(0)
    found = CaptionJudge((4, 4, 8), STYLES, shape=(3, 16, 16), words=WORDS, dim=8, vector=8, caption_width=8)
    fill_words(found, *word_vectors(), [c for c, _, _ in TRAIN])
    return found.eval()


@pytest.fixture(scope="module")
def evaluator(judge) -> Evaluator:
    return Evaluator(judge, captioned(HELD, 1), captioned(TRAIN * 3, 2))


@dataclass
class Fake:
    """A model that answers prompts by a function of (caption, style); it keeps what it was asked."""

    answer: object
    conditions: dict = field(default_factory=lambda: {"text": SimpleNamespace(classes=()), "style": Label(values=STYLES)})
    domain: object = DOMAIN
    codec: object = field(default_factory=lambda: ImageCodec(16, 3))

    @property
    def recipe(self):
        def classes(name):
            return self.conditions[name].classes if name in self.conditions else ()

        return SimpleNamespace(role="model", conditions=self.conditions, classes=classes)

    def sample(self, n=1, *, seed, **given):
        assert set(given) == set(self.conditions)
        asked = list(zip(given["text"], given.get("style", [None] * n), strict=True))
        tensor = torch.stack([self.answer(text, style) for text, style in asked])
        return Samples(self.codec.decode(tensor, {}), tensor, domain=DOMAIN, conditions=given)


def retrieved(evaluator):
    """The picture of the nearest caption, found in another way than the evaluator does."""
    judge, train = evaluator.judge, evaluator.trained

    def answer(text, style):
        best = [-2.0, 0]
        for i, caption in enumerate(train.captions):
            if STYLES[train.style[i]] == style:
                near = float(judge.meanings([text])[0] @ judge.meanings([caption])[0])
                best = max(best, [near, i], key=lambda pair: pair[0])
        return train.pictures[best[1]]

    return answer


def real(evaluator):
    """The held-out picture of the prompt."""
    held = evaluator.held
    rows = {(c, STYLES[s]): i for i, (c, s) in enumerate(zip(held.captions, held.style, strict=True))}
    return lambda text, style: held.pictures[rows[text, style]]


# ---------------------------------------------------------------- the judge


def test_words_are_letters_and_digits_by_name():
    assert words_of("Jack-O'-Lantern: keycap 10, piñata") == ["jack", "o", "lantern", "keycap", "one", "zero", "pinata"]


def test_a_judge_is_saved_with_its_words_in_half_the_size(judge, tmp_path):
    save_judge(judge, tmp_path / "whole", {"a": 1})
    save_judge(judge, tmp_path / "half", {"a": 1}, half=True)
    whole, half = (load_judge(CaptionJudge, tmp_path / name) for name in ("whole", "half"))
    assert half.words == WORDS and half.card == {"a": 1} and torch.equal(half.vectors, judge.vectors)
    assert torch.equal(whole.captions(["red ball"]), judge.captions(["red ball"]))
    assert (half.captions(["red ball"]) - judge.captions(["red ball"])).abs().max() < 0.01
    weights = sum(p.numel() for p in judge.parameters())
    saved = [(tmp_path / name / "judge.safetensors").stat().st_size for name in ("whole", "half")]
    assert saved[0] - saved[1] > 1.9 * weights
    (tmp_path / "half" / "judge.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError):
        load_judge(CaptionJudge, tmp_path / "half")


def test_captions_are_read_with_their_words_in_order_and_no_others(judge):
    one, two, other = judge.captions(["red ball", "RED, ball!", "ball red"])
    assert torch.allclose(one, two) and not torch.allclose(one, other)
    assert torch.allclose(one, judge.captions(["a longer caption: the red box", "red ball"])[1]), (
        "of its batch it knows nothing"
    )
    assert torch.allclose(judge.captions(["red zeppelin ball"])[0], one), "a word that is not known is left out"
    with pytest.raises(DataError, match="no word of the caption 'zeppelin'"):
        judge.captions(["red ball", "zeppelin"])
    assert torch.allclose(judge.meanings(["ball red"]), judge.meanings(["red ball"]))
    vectors, scales = word_vectors()
    ball = torch.from_numpy(vectors[5].astype(np.float32) * scales[5])
    assert torch.allclose(judge.meanings(["ball"])[0], ball / ball.norm(), atol=1e-6), "of one word it is that word's vector"
    assert judge.place_tokens(judge.tokens(["red ball"])).norm().item() == pytest.approx(1)


def test_rare_words_count_more(judge):
    weight = dict(zip(WORDS, judge.weights.tolist(), strict=True))
    assert weight["pink"] > weight["red"] > weight["ball"] > 0, "no caption, 6 and 8 of them"


def test_pictures_are_checked(judge):
    with pytest.raises(ShapeError, match="3, 16, 16"):
        judge.embed(torch.zeros(1, 3, 8, 8))
    with pytest.raises(DataError, match="uint8"):
        judge.embed(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    for wrong in ({"words": ()}, {"words": ("a", "a")}, {"words": WORDS, "shape": (16, 16)}):
        with pytest.raises(ConfigError):
            CaptionJudge((4, 4, 8), STYLES, **{"shape": (3, 16, 16)} | wrong)


def test_ranks_count_what_is_nearer_and_not_what_is_the_same():
    captions = torch.eye(3)
    pictures = torch.tensor([[0.9, 0.4, 0.1], [0.1, 0.2, 0.9], [0.5, 0.5, 0.5]])
    assert ranks(pictures, captions, torch.tensor([0, 0, 2])).tolist() == [0, 2, 0]
    assert ranks(pictures[:1], captions, torch.tensor([1])).tolist() == [1]


# ---------------------------------------------------------------- the evaluator


def test_retrieval_and_real_pictures_score_what_the_table_says(evaluator):
    for answer, column in ((retrieved(evaluator), "retrieval"), (real(evaluator), "ceiling")):
        result = measure(Fake(answer), evaluator=evaluator)
        metrics = result["metrics"]
        assert list(metrics)[:5] == ["r1_pairs", "r5_pairs", "r1_captions", "r5_captions", "style"]
        assert result["protocol"]["samples"] == len(HELD), "every prompt once"
        for name, metric in metrics.items():
            if column == "ceiling" and name in (
                "frechet",
                "kid",
                "precision",
                "recall",
                "copy_rate",
                "copy_style",
                "copy_caption",
            ):
                continue  # of training pictures, or of a threshold that rounding moves
            assert metric["value"] == pytest.approx(metric[column], abs=1e-9), (name, column)
    assert metrics["copy_rate"]["retrieval"] == 1 and metrics["nearest_copy"]["retrieval"] == 0


def test_retrieval_is_of_the_style_and_the_nearest_caption(evaluator):
    train = evaluator.trained
    for row, (caption, style, _) in enumerate(HELD):
        found = int(evaluator.retrieved[row])
        assert STYLES[train.style[found]] == style
        if caption.startswith("pink"):
            assert train.captions[found] == caption.replace("pink", "red")


def test_what_is_found_is_counted_by_hand(judge, monkeypatch):
    evaluator = Evaluator(judge, captioned(HELD, 1), captioned(TRAIN, 2))
    # the first feature says which captions are nearer than the own one
    monkeypatch.setattr(evaluator.judge, "places", lambda features: features)
    for part in ("pairs", "captions"):
        monkeypatch.setattr(type(evaluator.captions[part]), "ranks", lambda self, found, captions: found[:, 0].long())
    features, copied = torch.zeros(len(HELD), judge.dim), torch.zeros(len(HELD), judge.dim)
    features[:, 0] = torch.tensor([0, 5, 4, 0, 9, 9, 0, 7])
    row = torch.arange(len(HELD))
    metrics = evaluator._found(features, copied, row)
    assert (metrics["r1_captions"]["value"], metrics["r5_captions"]["value"]) == (2 / 6, 3 / 6)
    assert (metrics["r1_pairs"]["value"], metrics["r1_pairs"]["retrieval"]) == (1 / 2, 1)
    prompts = evaluator._prompts(features, torch.eye(2)[[0, 1] * 4], row)
    assert [p["rank"] for p in prompts] == [1, 6, 5, 1, 10, 10, 1, 8]
    assert [p["text"] for p in prompts] == [c for c, _, _ in HELD] and prompts[6]["part"] == "pairs"
    assert [p["style_seen"] for p in prompts] == [*STYLES] * 4 and prompts[7]["style"] == "plain"


def test_prompts_are_asked_once_each_or_several_times_in_a_row(evaluator):
    model = Fake(real(evaluator))
    once = evaluator.asked(model, len(HELD), 0)
    assert sorted(zip(once["text"], once["style"], strict=True)) == sorted((c, s) for c, s, _ in HELD)
    assert once != evaluator.asked(model, len(HELD), 1), "in another order"
    twice = evaluator.asked(model, 4, 0, each=2)
    assert twice["text"] == [t for t in once["text"][:2] for _ in range(2)]
    assert set(evaluator.asked(model, 5, 0, part="pairs")["text"]) == {"green box", "blue bar"}
    unstyled = Fake(real(evaluator), {"text": None})
    assert set(evaluator.asked(unstyled, 5, 0)) == {"text"}
    result = measure(model, 16, evaluator=evaluator, each=2)
    assert result["metrics"]["variety"]["value"] == 0 and result["metrics"]["variety"]["ceiling"] > 0
    assert "2 of each" in result["protocol"]["each"]
    assert "variety" not in measure(model, 8, evaluator=evaluator)["metrics"]
    only = measure(model, 4, evaluator=evaluator, part="pairs")["metrics"]
    assert "r1_pairs" in only and "r1_captions" not in only
    only = measure(model, 4, evaluator=evaluator, part="captions")["metrics"]
    assert "copy_caption" not in only and "copy_style" in only


def test_a_model_without_styles_is_measured_without_them(evaluator):
    def answer(text, style):
        return evaluator.held.pictures[[c for c, _, _ in HELD].index(text)]

    result = measure(Fake(answer, {"text": SimpleNamespace(classes=())}), evaluator=evaluator)
    assert "style" not in result["metrics"] and result["per_class"] == {} and "r1_pairs" in result["metrics"]


def test_variety_is_of_the_samples_of_one_prompt(evaluator):
    rng = torch.Generator().manual_seed(0)
    varied = Fake(lambda text, style: torch.rand(3, 16, 16, generator=rng) * 2 - 1)
    assert measure(varied, 8, evaluator=evaluator, each=2)["metrics"]["variety"]["value"] > 0


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"each": 0}, ConfigError, "each=0"),
        ({"each": True}, ConfigError, "each=True"),
        ({"part": "words"}, ConfigError, "pairs"),
        ({"text": "red ball"}, DataError, "'red ball' in the style"),
        ({"style": "painted"}, DataError, "plain"),
    ],
)
def test_what_is_not_measured_is_said(evaluator, settings, error, match):
    def answer(text, style):
        return torch.zeros(3, 16, 16)

    spread = {k: [v] * 8 if isinstance(v, str) and k != "part" else v for k, v in settings.items()}
    with pytest.raises(error, match=match):
        measure(Fake(answer), 8, evaluator=evaluator, **spread)


def test_models_without_text_or_of_other_styles_are_refused(evaluator):
    with pytest.raises(ConfigError, match="no condition 'text'"):
        evaluator.check(Fake(None, {}))
    with pytest.raises(ConfigError, match="'etched'"):
        evaluator.check(Fake(None, {"text": None, "style": Label(values=("etched", "plain"))}))


def test_pictures_of_another_size_are_fitted_to_the_judge(evaluator):
    answer = real(evaluator)

    def halved(text, style):
        return torch.nn.functional.avg_pool2d(answer(text, style), 2)

    result = measure(Fake(halved, codec=ImageCodec(8, 3)), evaluator=evaluator)
    assert "resized with a low-pass to (3, 16, 16)" in result["protocol"]["size"]


def test_a_copy_is_found_in_any_style(evaluator):
    train = evaluator.trained
    other = {c: p for c, p, s in zip(train.captions, train.pictures, train.style, strict=True) if STYLES[s] == "plain"}
    result = measure(Fake(lambda text, style: other["red ball"]), evaluator=evaluator)["metrics"]
    assert result["copy_rate"]["value"] == 1 and result["nearest_copy"]["value"] == 0
    plain = sum(s == "plain" for _, s, _ in HELD) / len(HELD)
    assert result["copy_style"]["value"] == plain, "only those that were asked to be plain"
    assert result["copy_caption"]["value"] == 0, "none was asked to be a red ball"


def test_a_picture_of_the_caption_in_another_style_is_a_copy(evaluator):
    train = evaluator.trained
    other = {(c, STYLES[s]): p for c, p, s in zip(train.captions, train.pictures, train.style, strict=True)}

    def answer(text, style):
        return other.get((text, STYLES[1 - STYLES.index(style)]), torch.zeros(3, 16, 16))

    result = measure(Fake(answer), evaluator=evaluator)["metrics"]
    assert result["copy_caption"]["value"] == 1, "both pairs; of the other captions training has no picture"
    assert result["copy_style"]["value"] == 0


def test_what_went_through_a_first_stage_is_judged_beside_itself(judge):
    held = captioned(HELD, 1)
    see = through_stage(judge, held)
    rows = [7, 0, 3]
    same = see(Reconstructed(rows, held.pictures[rows], held.pictures[rows], torch.zeros(3, 1)))
    assert list(same) == ["r1_pairs", "r5_pairs", "r1_captions", "r5_captions", "style"]
    assert all(m["value"] == m["ceiling"] for m in same.values())
    assert (same["r1_pairs"]["floor"], same["r1_captions"]["floor"], same["r5_captions"]["floor"]) == (1 / 2, 1 / 3, 1)
    evaluator = Evaluator(judge, held, captioned(TRAIN, 2))
    ranks = evaluator._prompts(*judge.features(held.pictures), torch.arange(len(HELD)))
    assert same["r1_captions"]["value"] == sum(ranks[i]["rank"] == 1 for i in (0, 3)) / 2
    assert "r1_pairs" not in see(Reconstructed([0], held.pictures[:1], held.pictures[:1], torch.zeros(1, 1)))


# ---------------------------------------------------------------- training


def archive(path, side=16):
    """A tiny archive in the form of emoji_styles.npz: three plain pictures of each caption of training, one with a frame."""
    rows = [(c, s, 0) for c, s, _ in TRAIN for _ in range(3 if s == "plain" else 1)]
    rows += [(c, s, 1 if p == "pairs" else 2) for c, s, p in HELD]
    rng = np.random.default_rng(3)
    pixels = [picture(c, s, rng) for c, s, _ in rows]
    for page in pixels:
        page[2, 2] = rng.integers(256, size=3)  # no two are the same
    palettes, indices = [], []
    for page in pixels:
        colours, index = np.unique(page.reshape(-1, 3), axis=0, return_inverse=True)
        palettes.append(np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)]))
        indices.append(index.reshape(side, side).astype(np.uint8))
    np.savez(
        path,
        index64=np.stack(indices),
        palette=np.stack(palettes).astype(np.uint8),
        caption=np.array([c for c, _, _ in rows]),
        keywords=np.array(["the|a_ball" if "ball" in c else "" for c, _, _ in rows]),
        style=np.array([STYLES.index(s) for _, s, _ in rows], np.uint8),
        style_names=np.array(STYLES),
        split=np.array([k for _, _, k in rows], np.uint8),
        is_duplicate=np.zeros(len(rows), bool),
    )
    vectors, scales = word_vectors()
    np.savez(path.with_name("words.npz"), words=np.array(WORDS), vectors=vectors, scale=scales)


def test_mirrors_covers_and_colours_leave_white_white_and_are_drawn_anew():
    torch.manual_seed(0)
    white = torch.full((6, 3, 16, 16), 255, dtype=torch.uint8)
    quiet = script.Augmentation(noise=0.0)
    assert (quiet(white, torch.ones(6, dtype=torch.bool)) > 0.999).all()
    still = {"smaller": 1, "larger": 1, "shift": 0, "turn": 0, "stretch": 0, "hue": 0, "colour": 0}
    nothing = script.Augmentation(**still, cover=0, blur=0, noise=0)
    page = torch.from_numpy(picture("red bar", "framed", np.random.default_rng(0))).permute(2, 0, 1)[None].repeat(64, 1, 1, 1)
    page[..., :4] = 0
    same = nothing(page, torch.zeros(64, dtype=torch.bool))
    torch.testing.assert_close(same, page.float() / 127.5 - 1, atol=1e-5, rtol=0)
    mirrored = nothing(page, torch.ones(64, dtype=torch.bool))
    flipped = (mirrored - same.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    kept = (mirrored - same).abs().amax((1, 2, 3)) < 1e-4
    assert (flipped ^ kept).all() and 16 < flipped.sum() < 48
    assert (script.Augmentation()(page, torch.ones(64, dtype=torch.bool)).std(0) > 0).float().mean() > 0.5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    archive(folder / "tiny.npz")
    arguments = ["--data", folder / "tiny.npz", "--words", folder / "words.npz", "--out", folder / "judge"]
    options = ["--steps", 4, "--batch-size", 8, "--looks", 2, "--widths", 4, 4, 8]
    with pytest.MonkeyPatch.context() as patch:  # so few rows would all be held out
        patch.setattr(captions, "held_out_rows", partial(captions.held_out_rows, n_captions=2, n_pairs=2))
        script.main([str(a) for a in [*arguments, *options]])
        yield folder


def test_the_script_writes_a_judge_and_a_card_of_what_it_measured(trained):
    judge = load_caption_judge(trained / "judge")
    assert judge.class_names == STYLES and judge.shape == (3, 16, 16) and judge.vector == 8
    card = json.loads((trained / "judge" / "judge.json").read_text())["card"]
    rows = card["data"]["rows"]
    assert (rows["validation-pairs"], rows["test-pairs"], rows["test-captions"]) == (2, 2, 6)
    assert rows["train"] + 2 + rows["validation-captions"] == 44
    assert set(card["retrieval"]) == {*script.PARTS[1:], "train pictures of validation-pairs"}
    for found in card["retrieval"].values():
        assert 0 <= found["r1"] <= found["r5"] <= 1 and found["chance"] == 1 / found["captions"]
    assert [e["step"] for e in card["training"]["curve"]] == [2, 4]
    assert all(name in card["licence"] for name in ("Microsoft", "Twitter", "Google", "Mozilla", "Streamline", "Icons8"))


def test_the_domain_measures_models_of_text_by_the_judge_of_captions(trained):
    source = trained / "tiny.npz"
    made = evaluate.evaluator(source, "test", Fake(None), trained / "judge")
    assert isinstance(made, Evaluator) and made.measured == 8 and made.parts == ["pairs", "captions"]
    result = measure(Fake(real(made)), data=source, judge=trained / "judge")
    assert result["protocol"]["reference"] == "8 real test pictures"
    json.dumps(result, allow_nan=False)


def test_a_first_stage_is_judged_where_the_pictures_have_captions_and_styles(trained, tmp_path):
    stage = SimpleNamespace(recipe=SimpleNamespace(role="first_stage", conditions={}))
    found = evaluate.evaluator(trained / "tiny.npz", "test", stage, trained / "judge")
    assert isinstance(found, StageEvaluator) and len(found.further) == 1 and len(found.held) == 8
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(ConfigError, match=r"emoji_styles\.npz"):
        evaluate.evaluator(tmp_path / "other.npz", "test", stage, trained / "judge")


@pytest.mark.slow
def test_a_real_model_is_measured_by_the_command(trained, tmp_path, capsys):
    small = {
        "channels": 8, "multipliers": [1], "blocks": 1, "attention": [False], "cross": [True], "patch": 2, "emb_dim": 8,
    }  # fmt: skip
    conditions = {"text": {"kind": "text"}, "style": {"kind": "label", "values": STYLES}}
    model = zoo.create("image/emoji-pixels", **{"net": small, "codec.size": 8, "conditions": conditions})
    folder = model.save_pretrained(tmp_path / "m")
    arguments = ["--data", trained / "tiny.npz", "--judge", trained / "judge", "--steps", "1", "--json", tmp_path / "r.json"]
    assert main(["eval", str(folder), *map(str, arguments), "--option", "each=2", "--n", "16"]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["metrics"]["variety"]["value"] > 0 and len(result["prompts"]) == 16
    assert "retrieval" in capsys.readouterr().out
    assert result["protocol"]["size"].startswith("(3, 8, 8), resized")


def test_training_tells_what_it_lacks(tmp_path):
    with pytest.raises(DataError, match=r"no file .*emoji_styles\.npz"):
        script.main(["--data", str(tmp_path / "none.npz"), "--out", str(tmp_path / "out")])


def test_a_batch_shows_each_thing_twice_in_different_pictures_where_there_are_some(trained):
    args = script.parser().parse_args(["--data", "a", "--out", "b", "--batch-size", "16"])
    pictures = script.open_pictures(trained / "tiny.npz")
    trainer = script.Trainer(load_caption_judge(trained / "judge"), pictures, args)
    for _ in range(5):
        rows = trainer.rows()
        one, other = rows.split(8)
        assert torch.equal(trainer.thing[one], trainer.thing[other])
        several = trainer.counts[trainer.thing[one]] > 1
        assert (one != other)[several].all() and several.any()
        assert len(trainer.thing[one].unique()) > 4
    vectors, weights = trainer.words(rows)
    assert vectors.shape == (16, script.LENGTH, 8) and (weights.sum(1) > 0).all(), "no picture without a word"

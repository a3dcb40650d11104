"""What a run takes from another model: labels by name, first and last layers, and all that is new, told."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo import files
from zoo.contract.conditions import Array, Condition, Label
from zoo.contract.registry import get_recipe
from zoo.errors import CheckpointError, ConfigError
from zoo.image.data import ArrayImages
from zoo.model.loading import build
from zoo.nets.blocks import end
from zoo.training import trainer as training
from zoo.training.init import PACE, continued, grouped, matched, refolded, start, started

UNET = {"net.channels": 16, "net.multipliers": [1], "net.attention": [True], "net.emb_dim": 32}
#: the smallest net of every domain
SMALL = {
    "image/fashion-ddpm": UNET,
    "audio/spec-ddpm": UNET,
    "policy/pusht-keypoints": UNET | {"net.attention": [False]},
    "point3d/shapes-ddpm": {"net.dim": 16, "net.width": 16, "net.latents": 4, "net.rounds": 1, "net.inner": 16},
    "protein/backbone-ddpm": {"net.dim": 32, "net.depth": 1, "net.heads": 2, "net.pair": 8},
}  # fmt: skip
PICTURES = "image/fashion-ddpm"
DIT = {"denoiser": "transformer", "net": {"patch": 4, "dim": 16, "depth": 1, "heads": 2, "emb_dim": 16}}


def model(name: str = PICTURES, conditions: dict[str, Condition] | None = None, trained: bool = False, **options):
    """A tiny model; a trained one has weights that no fresh net has."""
    recipe = get_recipe(name).override(SMALL[name] | {k.replace("__", "."): v for k, v in options.items()})
    if conditions is not None:
        recipe = recipe.model_copy(update={"conditions": conditions})
    torch.manual_seed(1 if trained else 2)
    made = build(recipe)
    if trained:
        with torch.no_grad():
            for p in made.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return made


def labels(*names: str) -> dict[str, Condition]:
    return {"label": Label(values=names)}


def say(net: nn.Module, x: torch.Tensor, **cond: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net(x, torch.full((len(x),), 300.0), cond)


@pytest.mark.parametrize("name", SMALL)
def test_the_same_recipe_takes_everything_in_every_domain(name):
    old, new = model(name, trained=True), model(name)
    found = start(new, old, name)
    assert found.share == 1 and not found.adapted and not found.new and len(found.lines()) == 1
    for a, b in zip(old.denoiser.parameters(), new.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_label_that_both_know_makes_the_same_sample_and_a_new_one_that_of_no_label():
    old, new = model(trained=True), model(conditions=labels("Sneaker", "hat", "bag"))
    found = start(new, old, "there")
    asked = {"seed": 3, "sampler": "ddim", "steps": 2, "guidance_weight": 1.5, "guidance_interval": [0, 1e9], "progress": False}
    for name in ("sneaker", "bag"):
        assert torch.equal(old.sample(2, label=name, **asked).tensor, new.sample(2, label=name, **asked).tensor)
    x, time = torch.randn(2, 1, 28, 28), torch.full((2,), 300.0)
    none, hat = old.denoiser(x, time, {"label": torch.tensor([-1, -1])}), new.denoiser(x, time, {"label": torch.tensor([1, 1])})
    assert torch.equal(none, hat)
    said = "\n".join(found.lines())
    assert "2 known by name (Sneaker, bag); 1 new, starting as no label does (hat); 8 left out (t-shirt," in said
    assert "labels by their names, and the row of no label" in said


def test_as_many_other_labels_are_other_labels():
    old = model(conditions=labels("a", "b", "c"), trained=True)
    new = model(conditions=labels("c", "x", "a"))
    start(new, old, "there")
    was, now = (m.denoiser.embed.labels["label"].table.weight for m in (old, new))
    assert torch.equal(now, was[[2, 3, 0, 3]])


def test_without_a_trained_null_a_new_label_starts_as_the_mean_of_the_others():
    old = model(conditions=labels("a", "b"), trained=True, training__condition_dropout=0.0)
    new = model(conditions=labels("b", "x"))
    start(new, old, "there")
    was, now = (m.denoiser.embed.labels["label"].table.weight for m in (old, new))
    assert torch.equal(now[0], was[1])
    torch.testing.assert_close(now[1], was[:2].mean(0))


def test_labels_match_as_they_do_elsewhere():
    assert matched(["BAG", "bag", "Shoe", "shoe", "x"], ["bag", "SHOE", "shoe"]) == [0, 0, None, 2, None]


@pytest.mark.parametrize("options", [{"net__patch": 2}, DIT], ids=["unet", "transformer"])
def test_grey_to_colour_and_back_keeps_the_response(options):
    grey, colour, back = (model(trained=c == 1, codec__channels=n, **options) for c, n in ((1, 1), (2, 3), (3, 1)))
    found = start(colour, grey, "there")
    assert found.share == 1 and "1 channel to 3" in "\n".join(found.lines())
    x, label = torch.randn(2, 1, 28, 28), torch.tensor([1, -1])
    want = say(grey.denoiser, x, label=label)
    got = say(colour.denoiser, x.expand(-1, 3, -1, -1), label=label)
    torch.testing.assert_close(got, want.expand(-1, 3, -1, -1), atol=1e-5, rtol=1e-5)
    assert "3 channels to 1" in "\n".join(start(back, colour, "there").lines())
    torch.testing.assert_close(say(back.denoiser, x, label=label), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("old", "new"), [((1, 2, 2), (3, 4, 4)), ((1, 4, 4), (1, 2, 2)), ((3, 2), (3, 6)), ((2, 3), (1, 3))])
def test_a_first_layer_sees_resized_patches_as_before_and_a_last_one_says_resized_ones(old, new):
    from torch.nn.functional import interpolate

    def resized(x: torch.Tensor, like: tuple[int, ...]) -> torch.Tensor:
        flat = x[None] if x.ndim == 3 else x[None, :, None]
        out = interpolate(flat, size=like[1:] if x.ndim == 3 else (1, *like[1:]), mode="bilinear", antialias=True)
        return out.reshape(x.shape[0], *like[1:])

    size, other = np.prod(old), np.prod(new)
    weight, seen = torch.randn(5, size), torch.randn(1, *new[1:]).expand(*new)
    first = refolded(weight, 1, old, new, first=True)
    assert first.shape == (5, other)
    shown = resized(seen, old)[:1].expand(*old)  # all channels alike
    torch.testing.assert_close(first @ seen.flatten(), weight @ shown.flatten(), atol=1e-4, rtol=1e-4)
    weight, hidden = torch.randn(size, 5), torch.randn(5)
    last = refolded(weight, 0, old, new, first=False)
    said = resized((weight @ hidden).view(*old), (old[0], *new[1:]))
    said = said if old[0] == new[0] else said.mean(0, keepdim=True).expand(*new)
    torch.testing.assert_close((last @ hidden).view(*new), said, atol=1e-4, rtol=1e-4)


def test_other_sizes_and_patches_fit_and_say_so():
    old = model(trained=True)
    assert start(model(codec__size=32), old, "there").share == 1
    found = start(model(codec__size=56, net__patch=4), old, "there")
    assert found.share == 1 and "patches of 2 x 2 to 4 x 4" in "\n".join(found.lines())


def test_what_does_not_fit_is_new_whole_and_told_with_a_warning():
    old, new = model(trained=True), model(net__channels=24)
    before = files.state_of(new.denoiser)
    kept = {k: v.clone() for k, v in before.items()}
    with pytest.warns(UserWarning, match="only .* % of the net's parameters come from there"):
        found = start(new, old, "there")
    sizes = {k: v.numel() for k, v in kept.items()}
    assert set(found.taken) | set(found.adapted) | set(found.new) == set(sizes) and found.share < 0.5
    for k in found.new:
        assert torch.equal(files.state_of(new.denoiser)[k], kept[k])
    line = next(line for line in found.lines() if line.startswith("  new:"))
    assert "another shape" in line and f"{sum(sizes[k] for k in found.new):,} parameters" in line
    assert "net.channels was 16, is 24." in "\n".join(found.lines())


def test_a_condition_that_is_gone_counts_as_not_given():
    old = model("audio/spec-ddpm", trained=True)
    new = model("audio/spec-ddpm", conditions=labels("one", "seven"))
    found = start(new, old, "there")
    x, none = torch.randn(2, 1, 64, 128), torch.tensor([-1, -1])
    want = say(old.denoiser, x, label=torch.tensor([1, 7]), speaker=none)
    torch.testing.assert_close(say(new.denoiser, x, label=torch.tensor([0, 1])), want, atol=1e-5, rtol=1e-5)
    assert "left out: embed.labels.speaker" in "\n".join(found.lines()) and "speaker: the condition is gone" in found.notes[-1]


def test_a_new_condition_changes_nothing_at_first():
    conditions = {**get_recipe(PICTURES).conditions, "size": Label(values=("s", "l")), "place": Array(shape=(2,))}
    old, new = model(trained=True), model(conditions=conditions)
    found = start(new, old, "there")
    x, label = torch.randn(2, 1, 28, 28), torch.tensor([1, 7])
    given = {"label": label, "size": torch.tensor([0, 1]), "place": torch.randn(2, 2)}
    torch.testing.assert_close(say(new.denoiser, x, **given), say(old.denoiser, x, label=label), atol=1e-6, rtol=1e-6)
    assert "new: embed.labels.size, embed.labels.place" in "\n".join(found.lines())
    loss = new.denoiser(x, torch.full((2,), 300.0), given).square().sum()
    gradients = torch.autograd.grad(loss, list(new.denoiser.embed.labels["size"].parameters()))
    assert all(g.abs().max() > 0 for g in gradients)  # and it can be learnt


def test_a_robot_of_other_sizes_has_new_first_and_last_layers():
    name = "policy/pusht-keypoints"
    names = {"codec__action_names": ["a", "b", "c"], "codec__observation_names": list("xyz"), "codec__keys": []}
    old = model(name, trained=True)
    new = model(name, conditions={"observation": Array(shape=(2, 3))}, **names)
    found = start(new, old, "there")
    first_and_last = {"arrays.observation.net.0.weight", "net.entry.weight", "net.exit.weight", "net.exit.bias"}
    assert set(found.new) == first_and_last and not found.adapted and found.share > 0.5
    assert "codec.action_names was ['x', 'y'], is ['a', 'b', 'c']." in found.notes


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("audio/spec-ddpm", {}, "is a model of the domain image, and audio/spec-ddpm is one of audio"),
        (PICTURES, DIT, r"nothing of .* fits: its net is a GridUNet \(unet\)"),
    ],
    ids=["domain", "net"],
)
def test_a_start_that_is_none_is_one_error(tmp_path, name, options, message):
    model(trained=True).save_pretrained(tmp_path / "there")
    data = model(name).domain.example_data(model(name).recipe)
    overrides = SMALL[name] | options
    with pytest.raises(ConfigError, match=message):
        zoo.train(name, data=data, steps=1, out=tmp_path / "run", init=tmp_path / "there", overrides=overrides, cpu=True)
    assert not (tmp_path / "run").exists()


def test_weights_that_were_trained_for_something_else_are_told():
    old, new = model(trained=True, diffusion__prediction="eps"), model()
    assert "diffusion.prediction was eps, is v." in start(new, old, "there").notes


def test_a_condition_of_another_kind_is_new():
    old, new = model(trained=True), model(conditions={"label": Array(shape=(3,))})
    found = start(new, old, "there")
    assert all(k.startswith("embed.labels.label.") for k in found.new) and len(found.new) == 5


def test_a_card_says_the_whole_way_of_the_weights():
    recipe = get_recipe(PICTURES).model_copy(update={"description": "Shoes.", "licence": "MIT."})
    one = recipe.model_copy(update={"description": started("Mine.", "image/shoes", recipe), "licence": ""})
    assert one.description == "Mine. Started from the weights of image/shoes (MIT)."
    two = started(one.description, "./mine", one)
    assert two == "Mine. Started from the weights of ./mine; those started from the weights of image/shoes (MIT)."


# ---------------------------------------------------------------- nets of others


class Own(nn.Module):
    """A net that says nothing of itself: labels in an embedding of its own, learnt positions, plain convolutions."""

    def __init__(self, shape, conditions=None, *, width=8):
        super().__init__()
        self.classes = nn.Embedding(len(conditions["label"].classes), width)
        self.position = nn.Parameter(torch.randn(1, (shape[1] // 4) * (shape[2] // 4), width))
        self.first = nn.Conv2d(shape[0], width, 4, stride=4)
        self.inner, self.share = nn.Linear(width, width), nn.Parameter(torch.rand(()))
        self.last = nn.ConvTranspose2d(width, shape[0], 4, stride=4)

    def forward(self, x_t, t, cond, *, mask=None):
        raise NotImplementedError


def own(size: int, channels: int, *names: str) -> zoo.Model:
    found = model(conditions=labels(*names), codec__size=size, codec__channels=channels)
    torch.manual_seed(len(names))
    found.denoiser = Own(found.codec.shape, found.recipe.conditions)
    return found


def test_a_net_that_says_nothing_of_itself_is_matched_by_names_and_shapes():
    old, new = own(16, 1, "a", "b", "c"), own(32, 3, "c", "x")
    fresh = files.state_of(new.denoiser)["last.weight"].clone()
    found = start(new, old, "there")
    was, now = files.state_of(old.denoiser), files.state_of(new.denoiser)
    assert torch.equal(now["classes.weight"], torch.stack([was["classes.weight"][2], was["classes.weight"].mean(0)]))
    torch.testing.assert_close(now["first.weight"].sum(1), was["first.weight"][:, 0])
    assert now["position"].shape == (1, 64, 8) and "positions of 4 x 4 interpolated to 8 x 8" in found.adapted["position"]
    for k in range(8):  # each feature as a picture of its own
        table, big = was["position"][0, :, k].view(1, 1, 4, 4), now["position"][0, :, k].view(1, 1, 8, 8)
        torch.testing.assert_close(big, torch.nn.functional.interpolate(table, size=(8, 8), mode="bicubic"))
    assert set(found.taken) == {"first.bias", "inner.weight", "inner.bias", "share"}
    assert torch.equal(now["last.weight"], fresh) and {"last.weight", "last.bias"} >= set(found.new)


def test_the_same_size_of_other_make_is_not_taken():
    """4 channels, and 1 channel in patches of 2 x 2: a layer of the same shape that means something else."""
    old, new = own(16, 1, "a"), own(16, 1, "a")
    for net, made in ((old.denoiser, (4, 1, 1)), (new.denoiser, (1, 2, 2))):
        net.inner = end(nn.Linear(4, 8), made)
    assert start(new, old, "there").new == {"inner.weight": "another shape"}


def test_names_are_grouped_where_a_whole_module_is_meant():
    among = dict.fromkeys(["a.x.w", "a.x.b", "a.y.w", "c.w"], 1)
    assert grouped(["a.x.w", "a.x.b", "c.w"], among) == ["a.x", "c"]
    assert grouped(list(among), among) == ["all of the net"]
    assert grouped(["a.x.w", "a.y.w"], among) == ["a.x.w", "a.y"]


# ---------------------------------------------------------------- codecs


def test_the_range_of_clips_stays_unless_a_new_clip_is_louder_or_the_transform_another():
    from zoo.audio.codec import SpectrogramCodec

    def codec(high: float, **options) -> SpectrogramCodec:
        made = SpectrogramCodec(**options)
        made.high, made.low = torch.tensor(high), torch.tensor(high - made._range)
        return made

    quiet, there = codec(0.1), codec(0.3)
    assert continued(quiet, there) == ["codec: low, high as there: the net sees what it knows."]
    assert quiet.high == there.high and quiet.low == there.low
    for other in (codec(0.5), codec(0.1, hop=32), codec(0.1, range_db=60.0)):
        high = other.high.clone()
        assert continued(other, there) == ["codec: low, high fitted to the new data."] and other.high == high


def test_each_range_of_a_robot_stays_where_it_holds_the_new_data():
    name = "policy/pusht-keypoints"

    def codec(low: list[float], high: list[float], **options):
        made = model(name, **options).codec
        made.action_low.copy_(torch.tensor(low)), made.action_high.copy_(torch.tensor(high))
        made.observation_low.fill_(-1), made.observation_high.fill_(1)
        return made

    there = codec([0, 0], [500, 500])
    inside = codec([50, 100], [400, 300])
    assert "action_low, action_high, observation_low, observation_high as there" in continued(inside, there)[0]
    assert torch.equal(inside.action_high, there.action_high)
    beyond = codec([50, 100], [400, 900])
    lines = continued(beyond, there)
    assert beyond.action_low.tolist() == [0, 100] and beyond.action_high.tolist() == [500, 900]
    assert "action range of x" in lines[0] and "action_low, action_high fitted" in lines[1]
    for low, high in (([0, 0], [1, 1]), ([7, 7], [7, 7])):  # in other units, and a dimension that never moves
        other = codec(low, high)
        continued(other, there)
        assert other.action_high.tolist() == high
    other = codec([0, 0], [400, 400], codec__action_names=["left", "right"])
    continued(other, there)
    assert other.action_high.tolist() == [400, 400]


def test_lengths_of_chains_are_those_of_the_new_ones_and_the_scale_of_clouds_stays():
    there, here = (model("protein/backbone-ddpm").codec for _ in range(2))
    there.lengths[40], here.lengths[80] = 3, 5
    assert continued(here, there) == ["codec: lengths fitted to the new data."]
    assert here.lengths[80] == 5 and here.lengths[40] == 0
    there, here = (model("point3d/shapes-ddpm").codec for _ in range(2))
    there.scale = torch.tensor(0.25)
    assert continued(here, there)[0].startswith("codec: scale as there") and here.scale == 0.25


# ---------------------------------------------------------------- runs

TINY = UNET | {"training.batch_size": 4, "training.warmup": 2, "training.precision": "fp32"}


def pictures(n: int, size: int, names: tuple[str, ...], colour: bool = False) -> ArrayImages:
    shape = (n, size, size, 3) if colour else (n, size, size)
    pixels = np.random.default_rng(n).integers(0, 256, shape, dtype=np.uint8)
    return ArrayImages(pixels, np.arange(n) % len(names), names)


def train(out, steps: int = 4, **options):
    options = {"data": pictures(12, 28, ("cat", "dog")), "preview_every": 0, "save_every": 2, "cpu": True} | options
    source = options.pop("source", PICTURES)
    overrides = ({} if source != PICTURES else TINY) | options.pop("overrides", {})
    return zoo.train(source, out=out, steps=steps, overrides=overrides, **options)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return model(conditions=labels("cat", "dog"), trained=True).save_pretrained(tmp_path_factory.mktemp("init") / "mine")


@pytest.fixture
def begun(monkeypatch):
    """Runs that begin, write their first checkpoint and take no step; what they begin with is noted."""
    found = []
    monkeypatch.setattr(training.Trainer, "run", lambda self, **loop: found.append((self.pace, self.step)))
    return found


def test_a_run_starts_from_a_folder_with_other_labels_colours_and_sizes_and_says_so(first, tmp_path, capsys, begun):
    data = pictures(8, 32, ("Dog", "bird", "cat"), colour=True)
    options = {"data": data, "overrides": {"codec.size": 32, "codec.channels": 3}, "source": str(first)}
    found = train(tmp_path / "two", init=first, **options)
    said = capsys.readouterr().out
    assert "1 channel to 3" in said and "label: 2 known by name (Dog, cat); 1 new" in said
    facts = json.loads(files.load_metadata(tmp_path / "two" / training.CHECKPOINT)["zoo"])
    assert facts["init"] == str(first)
    assert found.recipe.classes("label") == ("Dog", "bird", "cat") and found.codec.shape == (3, 32, 32)
    assert f"Started from the weights of {first} (Apache-2.0" in found.recipe.description


def test_the_average_starts_at_the_weights_that_were_taken(first, tmp_path, begun):
    train(tmp_path / "run", init=first)
    state = files.load_tensors(tmp_path / "run" / training.CHECKPOINT)
    old = files.load_tensors(first / files.WEIGHTS)
    for name, value in old.items():
        if name.startswith("denoiser."):
            for part in ("ema.", "net."):
                assert torch.equal(state[name.replace("denoiser.", part)], value)


@pytest.mark.slow
def test_a_run_that_goes_on_does_not_read_where_it_started_from(first, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(first, there)
    train(tmp_path / "whole", init=there, steps=3)
    train(tmp_path / "parts", init=there, steps=3, max_minutes=0.0)
    shutil.rmtree(there)
    with pytest.warns(UserWarning, match=f"began with the weights of {there} .*: elsewhere is not read"):
        train(tmp_path / "parts", init="elsewhere", steps=3, resume=True, max_minutes=0.0)
    train(tmp_path / "parts", steps=3, resume=True)
    one, two = (files.load_tensors(tmp_path / k / training.CHECKPOINT) for k in ("whole", "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert zoo.load(tmp_path / "parts").recipe == zoo.load(tmp_path / "whole").recipe


def test_a_model_that_is_not_there_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(CheckpointError, match="no model folder"):
        train(tmp_path / "run", init=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_is_a_part_of_the_recipes_unless_it_is_said(first, tmp_path, capsys, begun):
    few = {"net.channels": 64}
    for k, options in enumerate([{"init": first}, {"init": first, "overrides": {"training.lr": 1e-3}}, {}]):
        train(tmp_path / str(k), **options)
    with pytest.warns(UserWarning, match="nearly from scratch"):
        train(tmp_path / "few", init=first, overrides=few)
    train(tmp_path / "0", resume=True)
    assert [pace for pace, _ in begun] == [PACE, 1.0, 1.0, 1.0, PACE]
    assert capsys.readouterr().out.count(f"learning rate: {PACE * 1.5e-3:.2g}, ") == 1


def test_frozen_layers_that_nobody_trained_are_told(first, tmp_path, begun):
    with pytest.warns(UserWarning, match=r"frozen, but new and never trained: net.entry.weight\. Freeze only what"):
        train(tmp_path / "run", init=first, overrides={"net.kernel": 1, "training.freeze": ["net.entry"]})

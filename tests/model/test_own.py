"""Models of parts that a program brings itself: `zoo.Model.of`, `zoo.fit`, and folders that never name code."""

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.contract.codec import Codec
from zoo.contract.conditions import Label
from zoo.contract.dataset import Items
from zoo.contract.recipe import Sampling, Training
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import SCHEDULES, DiscreteSchedule, EDMSchedule, FlowSchedule
from zoo.errors import CheckpointError, ConfigError, DataError, ShapeError
from zoo.image.codec import ImageCodec
from zoo.nets.blocks import LabelEmbedding

QUICK = {"steps": 2, "seed": 0, "progress": False}


class Net(nn.Module):
    """A user's own: one hidden layer, time and label added."""

    def __init__(self, size=64, classes=2):
        super().__init__()
        self.label = LabelEmbedding(classes, 16)
        self.entry, self.time, self.exit = nn.Linear(size, 16), nn.Linear(1, 16), nn.Linear(16, size)

    def forward(self, x_t, t, cond, *, mask=None):
        h = self.entry(x_t.flatten(1)) + self.time(t[:, None] / 1000) + self.label(cond.get("label"), len(t))
        return self.exit(torch.relu(h)).view_as(x_t)


class Point:
    def __init__(self, place):
        self.place = place

    def numpy(self):
        return self.place

    def save(self, path):
        np.savez(path, self.place)
        return path

    def plot(self, ax=None):
        raise NotImplementedError


class PointCodec(Codec):
    """Points of a plane."""

    shape = (2,)

    def encode(self, item, rng=None):
        return torch.as_tensor(item.place if isinstance(item, Point) else item, dtype=torch.float32)

    def decode(self, x0, cond):
        return [Point(x.numpy()) for x in x0]


def pictures(n=8):
    rng = np.random.default_rng(0)
    return Items(
        [(rng.integers(0, 256, (8, 8), dtype=np.uint8), {"label": i % 2}) for i in range(n)], labels={"label": ["a", "B"]}
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    conditions = {"label": Label(values=("a", "B"))}
    return zoo.Model.of(
        Diffusion(DiscreteSchedule("cosine", T=50), "v"), Net(), ImageCodec(8, channels=1), conditions=conditions, name="tiny"
    )


def test_a_codec_of_a_domain_brings_its_files_and_pictures(model, tmp_path):
    assert model.recipe.domain == "image" and model.recipe.codec == {"size": 8, "channels": 1}
    samples = model.sample(3, label=["b", "A", None], **QUICK)
    assert samples.conditions == {"label": ["B", "a", None]}
    assert [p.suffix for p in samples.save(tmp_path)] == [".png"] * 3
    assert samples.plot().size[0] > 8


def test_it_is_fitted_and_ends_with_averaged_weights(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    training = zoo.fit(model, pictures(), steps=3, cpu=True)
    assert training is model and not model.training
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_run_in_a_folder_is_kept_and_read_again_with_its_net(model, tmp_path):
    zoo.fit(model, pictures(), steps=2, out=tmp_path / "run", preview_every=2, cpu=True)
    assert (tmp_path / "run" / "previews" / "0000002.png").exists()
    with pytest.raises(ConfigError, match=r"never names code: give net="):
        zoo.load(tmp_path / "run")
    again = zoo.load(tmp_path / "run", net=Net())
    assert again.verify() == 0.0
    assert torch.equal(again.sample(2, **QUICK).tensor, model.sample(2, **QUICK).tensor)
    with pytest.raises(CheckpointError, match="shape"):
        zoo.load(tmp_path / "run", net=Net(classes=5))
    with pytest.raises(CheckpointError, match="already holds a run"):
        zoo.fit(model, pictures(), steps=2, out=tmp_path / "run", cpu=True)


def test_a_resumed_fit_is_the_whole_one(model, tmp_path):
    other = zoo.Model.of(model.diffusion, Net(), ImageCodec(8, channels=1), conditions=model.recipe.conditions)
    other.denoiser.load_state_dict(model.denoiser.state_dict())
    zoo.fit(model, pictures(), steps=4, out=tmp_path / "whole", cpu=True)
    fresh = {k: v.clone() for k, v in other.denoiser.state_dict().items()}
    zoo.fit(other, pictures(), steps=4, out=tmp_path / "parts", max_minutes=0.0, cpu=True)
    other.denoiser.load_state_dict(fresh)
    zoo.fit(other, pictures(), steps=4, out=tmp_path / "parts", resume=True, cpu=True)
    for (k, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), k


def test_what_was_not_kept_is_not_resumed(model):
    with pytest.raises(ConfigError, match="give out"):
        zoo.fit(model, pictures(), steps=2, resume=True, cpu=True)


def test_a_codec_of_ones_own_needs_no_domain(tmp_path):
    schedule = EDMSchedule(sigma_max=10.0)
    diffusion = Diffusion(schedule, "x0", "edm", sigma_data=1.0, precondition=True)
    sampling, training = Sampling(sampler="heun", steps=3), Training(batch_size=4, warmup=1)
    net, codec = Net(2), PointCodec()
    model = zoo.Model.of(diffusion, net, codec, sampling=sampling, training=training)
    data = Items([(np.float32([i, -i]), {}) for i in range(4)])
    zoo.fit(model, data, steps=2, cpu=True)
    samples = model.sample(2, seed=0, progress=False)
    assert samples.tensor.shape == (2, 2) and samples.plan.sampler == "heun" and samples.plan.steps == 3
    assert [p.suffix for p in samples.save(tmp_path / "out")] == [".npz"] * 2
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(ConfigError, match="codec=YourCodec"):
        zoo.load(tmp_path / "m", net=Net(2))
    again = zoo.load(tmp_path / "m", net=Net(2), codec=PointCodec())
    assert again.diffusion == diffusion
    assert torch.equal(again.sample(2, seed=0, progress=False).tensor, samples.tensor)


@pytest.mark.parametrize("schedule", [DiscreteSchedule("sigmoid", T=20), EDMSchedule(P_mean=0.5), FlowSchedule(shift=2.0)])
def test_the_recipe_builds_the_same_diffusion_again(schedule, tmp_path):
    model = zoo.Model.of(Diffusion(schedule, "v", "min_snr"), Net(2), PointCodec())
    model.save_pretrained(tmp_path / "m")
    assert zoo.load(tmp_path / "m", net=Net(2), codec=PointCodec()).diffusion == model.diffusion


def test_a_schedule_that_nobody_registered_must_be_given_again(tmp_path):
    class Warm(FlowSchedule):
        kind = ""

    diffusion = Diffusion(Warm(), "v")
    zoo.Model.of(diffusion, Net(2), PointCodec()).save_pretrained(tmp_path / "m")
    with pytest.raises(ConfigError, match="unknown kind of schedule 'Warm'"):
        zoo.load(tmp_path / "m", net=Net(2), codec=PointCodec())
    again = zoo.load(tmp_path / "m", net=Net(2), codec=PointCodec(), diffusion=diffusion)
    assert again.verify() == 0.0
    assert "Warm" not in SCHEDULES


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_part_of_the_wrong_kind_is_named(place):
    parts = [Diffusion(FlowSchedule(), "v"), Net(2), PointCodec()]
    what = ("diffusion", "net", "codec")[place]
    parts[place] = "something"
    with pytest.raises(ConfigError, match=f"{what}: a str; give a"):
        zoo.Model.of(*parts)


class Tilted(DiscreteSchedule):
    """A user's own schedule, which inherits the name of its parent."""


def test_a_schedule_that_no_registry_has_is_never_taken_for_its_parent(tmp_path):
    mine = Diffusion(Tilted("cosine", T=50), "v")
    model = zoo.Model.of(mine, Net(2), PointCodec())
    assert model.recipe.schedule.kind == "Tilted"
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(ConfigError, match="Tilted"):
        zoo.load(tmp_path / "m", net=Net(2), codec=PointCodec())
    assert zoo.load(tmp_path / "m", net=Net(2), codec=PointCodec(), diffusion=mine).verify() == 0.0


def test_parts_that_do_not_fit_the_folder_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path / "m")
    for parts, message in (
        ({"net": Net}, r"net: the class Net; give an instance of it: Net\(\.\.\.\)"),
        ({"net": 5}, "net: a int; give a Module"),
        ({"net": Net(), "codec": Net()}, "codec: a Net; give a Codec"),
        ({"net": Net(), "sampler": 1}, "unknown part 'sampler'"),
        ({"net": Net(), "diffusion": Diffusion(DiscreteSchedule("cosine", T=50), "eps")}, "trained with 'v'"),
        ({"net": Net(), "diffusion": Diffusion(FlowSchedule(), "v")}, "trained with 'discrete'"),
    ):
        with pytest.raises(ConfigError, match=message):
            zoo.load(tmp_path / "m", **parts)


@pytest.mark.parametrize("name", ["seed", "steps", "eta", "clip", "s_churn", "known", "two words"])
def test_no_condition_can_have_the_name_of_an_argument(name):
    with pytest.raises(ConfigError, match="Give it another name"):
        zoo.Model.of(Diffusion(FlowSchedule(), "v"), Net(2), PointCodec(), conditions={name: Label(values=("a", "b"))})


def test_data_that_do_not_fit_the_model_are_refused(model):
    plain = zoo.Model.of(Diffusion(FlowSchedule(), "v"), Net(), ImageCodec(8, channels=1))
    with pytest.raises(ConfigError, match=r"data carry the conditions label, the model has none"):
        zoo.fit(plain, pictures(), steps=1, cpu=True)
    items = pictures().items
    with pytest.raises(ConfigError, match=r"data carry the conditions none, the model has label"):
        zoo.fit(model, Items([(x, {}) for x, _ in items]), steps=1, cpu=True)
    with pytest.raises(ConfigError, match=r"data have the labels B, a, the model a, B"):
        zoo.fit(model, Items(items, labels={"label": ["B", "a"]}), steps=1, cpu=True)
    with pytest.raises(ConfigError, match="give a Dataset"):
        zoo.fit(model, items, steps=1, cpu=True)
    with pytest.raises(DataError, match=r"must be \(object"):
        zoo.fit(model, Items([x for x, _ in items]), steps=1, cpu=True)
    with pytest.raises(DataError, match="all must have the same ones"):
        zoo.fit(model, Items([*items, (items[0][0], {})]), steps=9, cpu=True)


@pytest.mark.parametrize("steer", [5, [None], "harder", [lambda predict: None]])
def test_what_is_no_steer_is_refused(model, steer):
    with pytest.raises(ConfigError, match="steer"):
        model.sample(1, steer=steer, **QUICK)


@pytest.mark.parametrize(
    "argument",
    [
        {"clip": "1"},
        {"clip": [1]},
        {"clip": float("nan")},
        {"guess_below": "x"},
        {"guidance_interval": 3},
        {"guidance_rescale": "a"},
    ],
)
def test_a_setting_of_another_kind_is_named(model, argument):
    with pytest.raises(ConfigError, match=next(iter(argument)).replace("_", ".")):
        model.sample(1, label="a", **argument, **QUICK)


def test_a_net_that_gives_something_else_is_told_so(model):
    class Wide(Net):
        def forward(self, x_t, t, cond, *, mask=None):
            return super().forward(x_t, t, cond)[..., :1]

    class Pair(Net):
        def forward(self, x_t, t, cond, *, mask=None):
            return x_t, t

    for net, found in ((Wide(), "shape"), (Pair(), r"shape .* and shape \(1,\)")):
        odd = zoo.Model.of(model.diffusion, net, model.codec, conditions=model.recipe.conditions)
        with pytest.raises(ShapeError, match=f"gave {found}"):
            odd.sample(1, **QUICK)

"""Latent models: which autoencoder they work on, what lifts and lowers, and how it travels with them."""

import json
import re
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

import zoo
from zoo import files
from zoo.contract import registry
from zoo.contract.dataset import Items
from zoo.contract.domain import DENOISERS
from zoo.contract.recipe import FirstStage, Recipe
from zoo.contract.registry import get_domain, get_recipe
from zoo.core import seeds
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import DiscreteSchedule
from zoo.errors import CheckpointError, ConfigError, NumericsError, ShapeError
from zoo.hub.card import model_card
from zoo.hub.push import training_command
from zoo.image.codec import ImageCodec, ImageSample
from zoo.model import checkpoint
from zoo.model.first_stage import Latent, digest, filled
from zoo.model.loading import build, open_stage
from zoo.model.model import Model
from zoo.model.prepare import prepared
from zoo.testing import awake

SIZE = 16
STAGE = {"codec.size": SIZE, "net.channels": 16, "net.blocks": [1, 1]}
NET = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.blocks": 1, "net.emb_dim": 16}
QUICK = {"steps": 2, "progress": False, "seed": 0}


class Folding(nn.Module):
    """An autoencoder that loses nothing: patches of 4 x 4 pixels become channels, times a weight."""

    def __init__(self, shape, conditions=None):
        super().__init__()
        self.latent_shape = (16 * shape[0], shape[1] // 4, shape[2] // 4)
        self.weight = nn.Parameter(torch.tensor(3.0))

    def encode(self, x):
        z = self.weight * rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=4, q=4) + 0.5
        return z, torch.full_like(z, 0.5)

    def decode(self, z):
        return rearrange((z - 0.5) / self.weight, "b (c p q) h w -> b c (h p) (w q)", p=4, q=4)

    def forward(self, x, t=None, cond=None, *, mask=None, noise=None):
        z, log_variance = self.encode(x)
        return self.decode(z) if noise is None else (self.decode(z + (0.5 * log_variance).exp() * noise), z, log_variance)


@pytest.fixture(autouse=True, scope="module")
def folding():
    DENOISERS.register("folding", Folding)
    yield
    DENOISERS.remove("folding")


def pictures(n=6, size=SIZE, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8))


def stage_of(**overrides):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return awake(zoo.create("image/flowers-kl", **STAGE | overrides))


def latent_of(stage, **overrides):
    recipe = get_recipe("image/flowers-latent").override({"codec.size": SIZE} | NET | overrides)
    model = awake(build(recipe, stage))
    model.codec.fit(Items([(p, {}) for p in pictures(12)]))
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a first stage."""
    return stage_of().save_pretrained(tmp_path_factory.mktemp("stage") / "ae")


@pytest.fixture(scope="module")
def model(saved):
    return latent_of(None, **{"codec.stage": str(saved)})


@pytest.fixture(scope="module")
def exact_model():
    """On a first stage that loses nothing."""
    recipe = get_recipe("image/flowers-kl").override({"codec.size": SIZE})
    recipe = recipe.model_copy(update={"denoiser": "folding", "net": {}})
    return latent_of(Model(recipe, get_domain("image")))


# ---------------------------------------------------------------- which first stage


def test_the_recipe_says_which_first_stage_by_name_and_hash(saved, model):
    stage = zoo.load(saved)
    spec = model.recipe.stage
    assert spec is not None and spec.name == str(saved)
    assert spec.sha256 == digest(stage.denoiser.state_dict())
    assert Recipe.parse(spec.recipe) == stage.recipe
    assert get_recipe("image/flowers-latent").stage == FirstStage(name="image/flowers-kl")
    assert get_recipe("image/fashion-ddpm").stage is None
    assert model.codec.shape == (4, 4, 4) and model.codec.inner.shape == (3, SIZE, SIZE)


@pytest.mark.parametrize("value", [3, ["a"], {"sha256": "ab"}, {"name": "x", "sha256": "short"}, {"name": "x", "other": 1}])
def test_what_names_no_first_stage_is_one_error(value):
    recipe = get_recipe("image/flowers-latent")
    wrong = recipe.model_copy(update={"codec": recipe.codec | {"stage": value}})
    with pytest.raises(ConfigError):
        build(wrong)


def test_a_name_without_weights_is_never_fetched(network_guard):
    with pytest.raises(ConfigError, match=r"image/flowers-kl .* has no packaged weights. Train it: zoo train image/flowers-kl"):
        zoo.create("image/flowers-latent")
    assert network_guard.stopped == []


def test_a_folder_that_is_not_there_and_a_model_that_is_no_first_stage(tmp_path):
    with pytest.raises(ConfigError, match="there is no such folder"):
        zoo.create("image/flowers-latent", **{"codec.stage": str(tmp_path / "none")})
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        zoo.create("image/flowers-latent", **{"codec.stage": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"image/fashion-ddpm, which is not a first stage"):
        zoo.create("image/flowers-latent", **{"codec.stage": "image/fashion-ddpm"})
    with pytest.raises(ConfigError, match="has no first stage"):
        open_stage(get_recipe("image/fashion-ddpm"))
    with pytest.raises(ConfigError, match="build it with"):
        Model(get_recipe("image/flowers-latent"), get_domain("image"))


def test_an_autoencoder_of_another_shape_is_one_error(saved):
    with pytest.raises(ConfigError, match=r"autoencoder of ImageCodec samples \(3, 16, 16\), the recipe's are .*\(3, 32, 32\)"):
        zoo.create("image/flowers-latent", **{"codec.stage": str(saved), "codec.size": 32})
    with pytest.raises(ConfigError, match=r"--set codec.size=16 --set codec.channels=3"):
        zoo.create("image/flowers-latent", **{"codec.stage": str(saved), "codec.size": SIZE, "codec.channels": 1})


def test_an_autoencoder_of_another_hash_is_one_error(saved, model):
    wrong = {"name": str(saved), "sha256": "0" * 64}
    with pytest.raises(CheckpointError, match="latents of another autoencoder mean something else"):
        zoo.create("image/flowers-latent", **{"codec.stage": wrong, "codec.size": SIZE} | NET)
    right = {"name": str(saved), "sha256": model.recipe.stage.sha256}
    assert zoo.create("image/flowers-latent", **{"codec.stage": right, "codec.size": SIZE} | NET).codec.shape == (4, 4, 4)


def test_another_latent_models_folder_gives_its_first_stage(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "latent")
    again = zoo.create("image/flowers-latent", **{"codec.stage": str(folder), "codec.size": SIZE} | NET)
    assert again.recipe.stage.sha256 == model.recipe.stage.sha256
    with pytest.raises(ConfigError, match="only one is supported"):
        Latent(model.codec, zoo.load(model.recipe.stage.name))


def test_a_stage_has_a_digest_whatever_its_precision(saved, tmp_path):
    stage = zoo.load(saved)
    half = zoo.load(stage.save_pretrained(tmp_path / "half", half=True))
    again = zoo.load(half.save_pretrained(tmp_path / "again"))
    state = half.denoiser.state_dict()
    assert digest(state) == digest(again.denoiser.state_dict()) == digest({k: v.half() for k, v in state.items()})
    assert digest(state) != digest(stage.denoiser.state_dict())
    assert digest({"b": torch.ones(2), "a": torch.zeros(1)}) == digest({"a": torch.zeros(1), "b": torch.ones(2)})
    assert len({digest({"a": torch.zeros(2, 1)}), digest({"a": torch.zeros(1, 2)}), digest({"b": torch.zeros(1, 2)})}) == 3


# ---------------------------------------------------------------- lift and lower


def test_latents_of_the_data_have_zero_mean_and_unit_deviation(exact_model):
    codec = exact_model.codec
    x = torch.stack([codec.encode(p) for p in pictures(12)])
    drawn = torch.cat([codec.lift(x, seeds.generator(k)) for k in range(16)])
    assert drawn.mean((0, 2, 3)).abs().max() < 0.05
    assert (drawn.std((0, 2, 3)) - 1).abs().max() < 0.05


def test_a_channel_that_never_changes_is_not_divided_by_zero(exact_model):
    recipe = exact_model.first_stage().recipe
    net = Model(recipe, get_domain("image"))
    codec = Latent(ImageCodec(SIZE, 3), net)
    codec.stage.encode = lambda x: (torch.zeros(len(x), *codec.shape), torch.full((len(x), *codec.shape), -60.0))
    codec.fit(Items([(p, {}) for p in pictures(2)]))
    assert torch.isfinite(codec.lift(torch.zeros(1, 3, SIZE, SIZE))).all() and (codec.deviation > 0).all()


def test_lower_undoes_lift_and_an_object_comes_back(exact_model):
    codec = exact_model.codec
    x = torch.stack([codec.encode(p) for p in pictures(3)])
    assert torch.allclose(codec.lower(codec.lift(x)), x, atol=1e-5)
    given = pictures(3)
    assert all((a.pixels == b).all() for a, b in zip(exact_model.reconstruct(given), given, strict=True))
    latents = exact_model.encode(given)
    assert latents.shape == (3, *codec.shape)
    assert torch.equal(exact_model.encoded(given[1]), exact_model.encode(given[1:2])[0])
    assert torch.equal(exact_model.encoded(latents[1]), latents[1])


def test_lift_takes_the_mean_without_an_rng_and_a_draw_with_one(exact_model):
    codec = exact_model.codec
    x = torch.stack([codec.encode(p) for p in pictures(3)])
    mean = codec.lift(x)
    assert torch.equal(mean, codec.lift(x))
    off = (codec.lift(x, seeds.generator(0)) - mean) * codec.deviation
    assert float(off.std()) == pytest.approx(np.exp(0.25), rel=0.1)  # half the log variance is 0.25


def test_the_codec_of_objects_is_the_codec_elsewhere():
    codec = ImageCodec(8, 1)
    x = torch.randn(2, 1, 8, 8)
    assert codec.inner is codec and codec.lift(x) is x and codec.lower(x) is x
    model = zoo.create("image/fashion-ddpm", **NET)
    item = np.zeros((28, 28), dtype=np.uint8)
    assert torch.equal(model.encode([item])[0], model.encoded(item))
    assert (model.reconstruct([item])[0].pixels == item).all()
    with pytest.raises(ConfigError, match="has no first stage"):
        model.first_stage()


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 4, 3, 3), torch.zeros(4, 4, 4), torch.zeros(2, 4, 4, 4, dtype=torch.int64), 3]
)
def test_decode_refuses_what_is_no_latent(model, wrong):
    with pytest.raises(ShapeError, match=r"give a tensor \(n, 4, 4, 4\)"):
        model.decode(wrong)


def test_models_of_samples_with_sizes_say_what_encodes_one():
    model = zoo.create("point3d/primitives-rf") if "point3d/primitives-rf" in zoo.list_models() else None
    name = next(n for n in zoo.list_models("point3d/*"))
    model = model or zoo.create(name)
    with pytest.raises(ConfigError, match=r"sizes of their own .*model\.encoded"):
        model.encode([])


def test_a_first_stage_that_makes_infinity_is_told(exact_model):
    broken = latent_of(exact_model.first_stage())
    with torch.no_grad():
        broken.codec.stage.weight.fill_(float("nan"))
    with pytest.raises(NumericsError, match="its first stage made something that is not finite"):
        broken.sample(1, **QUICK)


# ---------------------------------------------------------------- sampling


def test_samples_have_the_objects_shape_and_chunks_do_not_matter(model):
    whole = model.sample(3, label=["roses", "tulips", "daisy"], **QUICK)
    assert whole.tensor.shape == (3, 3, SIZE, SIZE) and all(isinstance(s, ImageSample) for s in whole)
    parts = model.sample(3, label=["roses", "tulips", "daisy"], batch_size=2, **QUICK)
    assert (whole.tensor - parts.tensor).abs().max() <= 1 / 127.5 + 1e-6
    steps = list(model.sample_iter(2, steps=2, seed=0))
    assert steps[-1].x.shape == (2, 4, 4, 4)


def test_inpainting_keeps_known_pixels_exactly_and_ignores_the_others(model):
    given, where = pictures(1)[0], torch.zeros(SIZE, SIZE, dtype=torch.bool)
    where[:, :9] = True
    made = model.inpaint(given, where, 2, **QUICK)
    assert all((s.pixels[:, :9] == given[:, :9]).all() for s in made)
    assert (made[0].pixels[:, 9:] != made[1].pixels[:, 9:]).any()
    other = given.copy()
    other[:, 9:] = 7
    assert torch.equal(model.inpaint(other, where, 2, **QUICK).tensor, made.tensor)
    # cells of 4 x 4 pixels are known where all of their pixels are
    x0, cells = model.codec.lift_known(model.objects_encoded(given), where)
    assert cells.shape == x0.shape == (4, 4, 4)
    assert cells[:, :, :2].all() and not cells[:, :, 2:].any()


def test_inpainting_holds_the_known_latents(exact_model):
    given, where = pictures(1)[0], torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    where[:, 4:12] = True
    steps = []
    exact_model.inpaint(given, where, on_step=steps.append, **QUICK)
    x0, cells = exact_model.codec.lift_known(exact_model.objects_encoded(given), where)
    assert torch.allclose(steps[-1].x[0][cells], x0[cells])
    latents = exact_model.encoded(given)
    made = exact_model.inpaint(latents, torch.ones(4, 4, dtype=torch.bool), **QUICK)
    assert (made[0].pixels == given).all()


def test_a_known_part_without_a_whole_cell_is_told(model):
    where = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    where[::2] = True
    with pytest.warns(UserWarning, match="no cell of the latents lies within the known part"):
        made = model.inpaint(pictures(1)[0], where, **QUICK)
    assert (made[0].pixels[::2] == pictures(1)[0][::2]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.inpaint(pictures(1)[0], torch.zeros(SIZE, SIZE, dtype=torch.bool), **QUICK)
    with pytest.raises(ShapeError, match="does not broadcast"):
        model.inpaint(pictures(1)[0], torch.ones(4, 4, dtype=torch.bool), **QUICK)


def test_unknown_places_are_filled_from_the_nearest_known_ones():
    x = torch.arange(64.0).reshape(1, 8, 8)
    known = torch.zeros(1, 8, 8, dtype=torch.bool)
    known[:, :, 0] = True
    out = filled(x, known)
    assert torch.equal(out[known], x[known])
    assert torch.allclose(out[0, 4, 1], x[0, 3:6, 0].mean())
    assert torch.isfinite(out).all() and out.max() <= x[:, :, 0].max()
    assert torch.equal(filled(torch.where(known, x, -7.0), known), out)
    assert torch.equal(filled(x, torch.ones_like(known)), x)
    assert not filled(x, torch.zeros_like(known)).any()


def test_vary_starts_from_the_latents(model):
    made = model.vary(pictures(1)[0], 0.5, 2, steps=4, seed=0, progress=False)
    assert made.tensor.shape == (2, 3, SIZE, SIZE)


# ---------------------------------------------------------------- first stages


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.sample(1),
        lambda m: m.plan(1),
        lambda m: next(m.sample_iter(1)),
        lambda m: m.inpaint(pictures(1)[0], torch.ones(SIZE, SIZE, dtype=torch.bool)),
        lambda m: m.vary(pictures(1)[0]),
    ],
)
def test_a_first_stage_samples_nothing(saved, ask):
    with pytest.raises(ConfigError, match=r"is a first stage: .* nothing to sample .*model\.reconstruct"):
        ask(zoo.load(saved))


def test_a_first_stage_encodes_and_decodes(saved):
    stage = zoo.load(saved)
    latents = stage.encode(pictures(3))
    assert latents.shape == (3, 4, 4, 4) and stage.decode(latents).tensor.shape == (3, 3, SIZE, SIZE)
    assert torch.equal(stage.reconstruct(pictures(3)).tensor, stage.decode(latents).tensor)
    assert stage.encode([]).shape == (0, 4, 4, 4)
    assert stage.verify() == 0
    with pytest.raises(ConfigError, match="not an object of the domain"):
        stage.encode(["a.png"])
    for wrong in (pictures(1)[0], np.stack(pictures(2)), stage.decode(latents)[0].pil(), "a.png", None):
        with pytest.raises(ConfigError, match="give a list of objects"):
            stage.reconstruct(wrong)


def test_lists_cards_and_infos_say_what_a_first_stage_is(saved, model, capsys, tmp_path, monkeypatch):
    from zoo.cli import main

    assert main(["list", "image/flowers-*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "First stage." in lines[0] and "First stage." not in lines[1]
    assert main(["list", "image/flowers-*", "--json"]) == 0
    assert [m["first_stage"] for m in json.loads(capsys.readouterr().out)] == [True, False]
    assert "nothing is sampled" in str(zoo.info("image/emoji-kl"))
    assert "first stage image/flowers-kl" in str(zoo.info("image/flowers-latent"))
    card = model_card(model.recipe)
    assert "## First stage" in card and str(saved) in card and "photographers listed in LICENSE.txt" in card
    card = model_card(get_recipe("image/emoji-kl"))
    code = re.search(r"```python\n(.*?)```", model_card(zoo.load(saved).recipe, source=str(saved)), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), {})
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert "model.encode(objects)" in card and ".sample(" not in card and "Nothing is sampled" in card
    assert "FxEmojis" in card and "Streamline" in card
    assert main(["sample", str(saved), "-o", str(saved / "out")]) == 2
    assert "is a first stage" in capsys.readouterr().err


# ---------------------------------------------------------------- in files


def test_a_latent_models_folder_is_whole(tmp_path):
    stage = stage_of().save_pretrained(tmp_path / "ae")
    model = latent_of(None, **{"codec.stage": str(stage)})
    folder = model.save_pretrained(tmp_path / "latent")
    shutil.rmtree(stage)
    again = zoo.load(folder)
    assert again.recipe == model.recipe and again.verify() == 0
    assert torch.equal(again.sample(2, **QUICK).tensor, model.sample(2, **QUICK).tensor)
    assert torch.equal(again.codec.mean, model.codec.mean) and torch.equal(again.codec.deviation, model.codec.deviation)
    assert {"config.json", "golden.safetensors", "model.safetensors", "README.md"} == {p.name for p in folder.iterdir()}


def test_half_precision_never_rounds_a_first_stage(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "full-stage", half=True)
    again = zoo.load(folder)
    assert again.recipe == model.recipe  # with the same SHA-256
    stored = files.load_tensors(folder / files.WEIGHTS)
    assert stored["denoiser.net.entry.weight"].dtype == torch.float16
    assert stored["codec.stage.encoder.0.weight"].dtype == torch.float32
    assert stored["codec.mean"].dtype == torch.float32
    narrow = zoo.load(model.first_stage().save_pretrained(tmp_path / "ae", half=True))
    small = latent_of(narrow).save_pretrained(tmp_path / "half-stage", half=True)
    stored = files.load_tensors(small / files.WEIGHTS)
    assert stored["codec.stage.encoder.0.weight"].dtype == torch.float16
    assert zoo.load(small).recipe.stage.sha256 == digest(narrow.denoiser.state_dict())


def test_a_model_loaded_in_half_precision_is_saved_with_the_first_stage_that_it_has(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "full")
    rounded = zoo.load(folder, dtype="bf16")
    again = zoo.load(rounded.save_pretrained(tmp_path / "bf16"))
    assert again.recipe.stage.sha256 == digest(again.codec.stage.state_dict()) != model.recipe.stage.sha256


def test_other_weights_of_the_first_stage_in_a_folder_are_found(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "latent")
    stored = files.load_tensors(folder / files.WEIGHTS)
    stored["codec.stage.encoder.0.weight"] += 0.01
    files.save_tensors(folder / files.WEIGHTS, stored)
    with pytest.raises(CheckpointError, match="SHA-256"):
        zoo.load(folder)
    config, hashes = files.read_sealed(folder / files.CONFIG, checkpoint.FORMAT_VERSION)
    config = {k: v for k, v in config.items() if k != files.HASH}
    hashes[files.WEIGHTS] = files.hash_of(folder / files.WEIGHTS)  # by somebody who seals the folder anew
    files.write_atomic(folder / files.CONFIG, files.seal(config, files.CONFIG, hashes))
    with pytest.raises(CheckpointError, match="latents of another autoencoder"):
        zoo.load(folder)


def test_verify_computes_the_first_stage_again(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "latent")
    again = zoo.load(folder)
    with torch.no_grad():
        again.codec.stage.decoder[-1].bias.add_(0.5)
    with pytest.raises(CheckpointError, match="the first stage differs from its golden output"):
        again.verify()
    golden = files.load_tensors(folder / files.GOLDEN)
    del golden["lowered"]
    files.save_tensors(folder / files.GOLDEN, golden)
    with pytest.raises(CheckpointError, match="lacks lowered"):
        zoo.load(model.save_pretrained(tmp_path / "b")).verify(folder)


def test_a_folder_that_describes_no_first_stage_is_refused(model, tmp_path):
    own = get_recipe("image/fashion-ddpm").model_dump(mode="json")
    for wrong in ({"name": "x"}, {"name": "x", "recipe": own}, {"name": "x", "recipe": model.recipe.model_dump(mode="json")}):
        recipe = model.recipe.model_copy(update={"codec": model.recipe.codec | {"stage": wrong}})
        with pytest.raises(CheckpointError, match="first stage"):
            Model.first_stage_of(recipe)


def packaged(monkeypatch, tmp_path, model):
    """A package that holds a first stage, and a latent model on it that does not hold it again."""
    root = tmp_path / "checkpoints"
    monkeypatch.setattr(registry, "CHECKPOINTS", root)
    stage = model.first_stage()
    stage.save_pretrained(root / "image" / "flowers-kl")
    latent = latent_of(stage)
    latent.recipe = latent.recipe.staged(latent.recipe.stage.model_copy(update={"name": "image/flowers-kl"}))
    folder = root / "image" / "flowers-latent"
    checkpoint.save(latent, folder, with_stage=False)
    return latent, folder


def test_a_packaged_model_may_name_a_packaged_first_stage(monkeypatch, tmp_path, model):
    latent, folder = packaged(monkeypatch, tmp_path, model)
    assert not any(k.startswith("codec.stage.") for k in files.load_shapes(folder / files.WEIGHTS))
    again = zoo.load("image/flowers-latent")
    assert again.verify() == 0
    assert torch.equal(again.sample(1, **QUICK).tensor, latent.sample(1, **QUICK).tensor)
    whole = again.save_pretrained(tmp_path / "mine")
    assert any(k.startswith("codec.stage.") for k in files.load_shapes(whole / files.WEIGHTS))
    (folder / "evaluation.json").write_text('{"metrics": {}, "protocol": {}}')
    with prepared(again, "me/model", samples=False) as (pushed, _):
        assert "evaluation.json" in pushed
        assert any(k.startswith("codec.stage.") for k in files.load_shapes(pushed["model.safetensors"]))
    with prepared(zoo.load("image/flowers-kl"), "me/stage", samples=True) as (pushed, _):
        assert "samples.png" not in pushed


def test_a_packaged_first_stage_of_other_weights_is_refused(monkeypatch, tmp_path, model):
    _, folder = packaged(monkeypatch, tmp_path, model)
    stage = zoo.load("image/flowers-kl")
    with torch.no_grad():
        stage.denoiser.encoder[0].bias.add_(1.0)
    stage.save_pretrained(stage.folder)
    with pytest.raises(CheckpointError, match="latents of another autoencoder"):
        zoo.load("image/flowers-latent")
    shutil.rmtree(stage.folder)
    with pytest.raises(CheckpointError, match="lacks the weights of its first stage"):
        zoo.load(folder)


def test_the_command_that_made_a_model_names_its_first_stage(model, tmp_path):
    facts = json.dumps({"steps": 3, "seed": 0})
    files.save_tensors(tmp_path / "checkpoint.safetensors", {"x": torch.zeros(1)}, {"zoo": facts})
    command = training_command(model.recipe, tmp_path)
    assert f"--set codec.stage={json.dumps(model.recipe.stage.name)}" in command
    assert "sha256" not in command and "codec.stage.recipe" not in command


# ---------------------------------------------------------------- own parts


class Net(nn.Module):
    """A denoiser of latents in a line."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, x_t, t, cond, *, mask=None):
        return self.layer(x_t)


def test_a_model_of_own_parts_on_a_first_stage(saved, tmp_path):
    codec = Latent(ImageCodec(SIZE, 3), zoo.load(saved))
    model = Model.of(Diffusion(DiscreteSchedule(), "v"), Net(), codec)
    assert model.recipe.domain == "image" and model.recipe.stage.sha256 == digest(codec.stage.state_dict())
    assert model.sample(2, **QUICK).tensor.shape == (2, 3, SIZE, SIZE)
    again = zoo.load(model.save_pretrained(tmp_path / "mine"), net=Net())
    assert torch.equal(again.sample(2, **QUICK).tensor, model.sample(2, **QUICK).tensor)


def test_statistics_of_another_first_stage_do_not_count(model, exact_model):
    fresh = latent_of(model.first_stage())
    fresh.codec.mean.fill_(9.0)
    assert fresh.codec.continued(model.codec) == ["mean", "deviation"]
    assert torch.equal(fresh.codec.mean, model.codec.mean)
    other = latent_of(stage_of(**{"net.channels": 32}))
    before = other.codec.mean.clone()
    assert other.codec.continued(model.codec) == [] and torch.equal(other.codec.mean, before)
    assert other.codec.continued(ImageCodec(SIZE, 3)) == []


def test_objects_with_sizes_of_their_own_have_no_first_stage(saved):
    codec = get_domain("point3d").codec(get_recipe(zoo.list_models("point3d/*")[0]).codec)
    with pytest.raises(ConfigError, match="sizes of their own"):
        Latent(codec, zoo.load(saved))
    with pytest.raises(ConfigError, match="not a first stage"):
        Latent(codec, SimpleNamespace(recipe=get_recipe("image/fashion-ddpm"), codec=codec, denoiser=Net()))

"""Training of autoencoders, and of models on their latents."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo import files
from zoo.contract.conditions import Label
from zoo.contract.dataset import Bare, Batch, Items
from zoo.contract.recipe import Training
from zoo.contract.registry import get_recipe
from zoo.core.seeds import generator
from zoo.errors import CheckpointError, ConfigError
from zoo.model.first_stage import digest
from zoo.training.objective import Autoencode, Denoise, edge_error, objective_of
from zoo.training.train import check_data, objects_of

SIZE = 16
NAMES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
STAGE = {"codec.size": SIZE, "net.channels": 16, "net.blocks": [1, 1], "training.batch_size": 4}
NET = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.blocks": 1, "net.emb_dim": 16}
LATENT = NET | {"training.batch_size": 4}
QUIET = {"cpu": True, "preview_every": 0, "workers": 0, "log_every": 0, "save_every": 0}


def data(n=12, seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    items = [(p, {"label": i % 5}) for i, p in enumerate(pictures)]
    return Items(items, conditions={"label": Label(values=NAMES)}, labels={"label": list(NAMES)}, origin="made up")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """The folder of an autoencoder that was trained a little."""
    out = tmp_path_factory.mktemp("stage") / "ae"
    zoo.train("image/flowers-kl", data=data(), steps=3, out=out, overrides=STAGE, **QUIET)
    return out


# ---------------------------------------------------------------- the objective


class Copies(torch.nn.Module):
    """An autoencoder that adds `off`, with latents of a given mean and log variance."""

    def __init__(self, off=0.0, mean=0.0, log_variance=0.0):
        super().__init__()
        self.off, self.numbers, self.latent_shape = off, (mean, log_variance), (2, 1, 1)
        self.drawn = []

    def forward(self, x, *, noise):
        self.drawn.append(noise)
        mean, log_variance = (torch.full((len(x), 2, 1, 1), v) for v in self.numbers)
        return x + self.off, mean, log_variance


def loss(net, x, seed=0, **options):
    model = type("M", (), {"denoiser": net})()
    return float(Autoencode(**options).loss(model, Batch(x), generator(seed)))


def test_the_loss_of_a_copy_is_the_divergence_alone():
    x = torch.randn(3, 1, 8, 8, generator=generator(1))
    assert loss(Copies(), x) == 0
    # the divergence of N(2, e) from N(0, 1): (4 + e - 1 - 1) / 2
    assert loss(Copies(mean=2.0, log_variance=1.0), x, kl=0.1) == pytest.approx(0.1 * (4 + np.e - 2) / 2, rel=1e-5)


def test_the_loss_of_a_shifted_copy_is_the_shift_and_edges_count():
    x = torch.randn(3, 1, 8, 8, generator=generator(1))
    assert loss(Copies(off=0.25), x) == pytest.approx(0.25, rel=1e-5)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8).clone()
    off = Copies(off=ramp)
    plain = float(ramp.mean())
    # one step a pixel along one of two axes; at the next scales steps of 2 and 4
    assert loss(off, x[:1], edges=0.0) == pytest.approx(plain, rel=1e-5)
    assert loss(off, x[:1], scales=1) == pytest.approx(plain + 0.5, rel=1e-5)
    assert loss(off, x[:1], scales=2, edges=2.0) == pytest.approx(plain + 2 * (0.5 + 1.0) / 2, rel=1e-5)


def test_edge_error_of_a_shift_is_zero_and_small_pictures_have_fewer_scales():
    x = torch.randn(2, 3, 8, 8, generator=generator(2))
    assert float(edge_error(x + 1, x, 3)) == pytest.approx(0, abs=1e-6)
    assert torch.equal(edge_error(x, 0 * x, 9), edge_error(x, 0 * x, 3))  # of 8, 4 and 2 pixels
    assert float(edge_error(x[..., 0], 0 * x[..., 0])) > 0


def test_draws_come_from_the_rng():
    net, x = Copies(), torch.zeros(2, 1, 8, 8)
    for seed in (1, 1, 2):
        loss(net, x, seed)
    assert torch.equal(net.drawn[0], net.drawn[1]) and not torch.equal(net.drawn[0], net.drawn[2])
    assert net.drawn[0].shape == (2, 2, 1, 1)


def test_a_recipe_gives_the_objective_its_options():
    made = objective_of(Training(objective="autoencode", objective_options={"kl": 0.5, "scales": 1}))
    assert (made.kl, made.scales, made.edges) == (0.5, 1, 1.0)
    for options, message in (({"kI": 1}, "kl"), ({"kl": -1}, "kl=-1"), ({"scales": 0}, "scales=0")):
        with pytest.raises(ConfigError, match=message):
            objective_of(Training(objective="autoencode", objective_options=options))
    with pytest.raises(ConfigError, match="autoencode"):
        objective_of(Training(objective="autoencoder"))


# ---------------------------------------------------------------- the autoencoder


def test_an_autoencoder_takes_objects_without_their_conditions(stage):
    model = zoo.load(stage)
    assert model.recipe.conditions == {} and model.is_first_stage
    bare = objects_of(data(), model.recipe)
    assert isinstance(bare, Bare) and bare[0][1] == {} == bare.given(0) and bare.conditions() == {} and bare.labels == {}
    assert (bare[0][0] == data()[0][0]).all() and len(bare) == 12 and bare.origin == "made up"
    assert bare.draw(1, generator(0))[1] == {} and bare.held_out() is None and bare.sizes() is None
    assert objects_of(bare, model.recipe) is bare
    check_data(bare, model.recipe)
    fashion = get_recipe("image/fashion-ddpm")
    assert not isinstance(objects_of(data(), fashion), Bare)
    fitted = zoo.fit(model, data(), steps=1, **QUIET)
    assert fitted.is_first_stage


def test_training_makes_reconstructions_better(tmp_path):
    flat = Items([(np.full((SIZE, SIZE, 3), v, dtype=np.uint8), {}) for v in (10, 90, 170, 250)])
    before = zoo.create("image/flowers-kl", **STAGE)
    overrides = STAGE | {"training.warmup": 1, "training.lr": 5e-3, "training.ema": 0.5}
    after = zoo.train("image/flowers-kl", data=flat, steps=25, out=tmp_path / "ae", overrides=overrides, **QUIET)

    def error(model):
        items = [flat[i][0] for i in range(4)]
        return np.mean([abs(a.pixels.astype(float) - b).mean() for a, b in zip(model.reconstruct(items), items, strict=True)])

    assert error(after) < 0.5 * error(before)


def test_a_resumed_autoencoder_goes_on_to_the_bit(tmp_path):
    def run(out, steps, **more):
        return zoo.train("image/flowers-kl", data=data(), out=out, steps=steps, overrides=STAGE, **QUIET | more)

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 4, max_minutes=0)
    parts = run(tmp_path / "parts", 4, resume=True)
    ours, theirs = whole.denoiser.state_dict(), parts.denoiser.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_previews_show_originals_above_what_came_back(stage):
    model = zoo.load(stage)
    shown = Autoencode().preview(model, data(), 18)
    assert len(shown) == 36
    for k in range(0, 36, 12):
        assert all((shown[k + i].pixels == data()[(k // 2 + i) % 12][0]).all() for i in range(6))
        assert torch.equal(torch.as_tensor(shown[k + 6].numpy()), model.reconstruct([data()[(k // 2) % 12][0]]).tensor[0])
    assert len(Autoencode().preview(model, data(), 1)) == 4


def test_a_run_shows_reconstructions(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo.Model, "sample", lambda *a, **k: pytest.fail("nothing is sampled"))
    zoo.train("image/flowers-kl", data=data(), steps=2, out=tmp_path / "ae", overrides=STAGE, **QUIET | {"preview_every": 1})
    assert len(list((tmp_path / "ae" / "previews").glob("*.png"))) == 2


# ---------------------------------------------------------------- models on its latents


def test_a_latent_model_is_trained_on_a_frozen_first_stage(stage, tmp_path):
    before = digest(zoo.load(stage).denoiser.state_dict())
    overrides = LATENT | {"codec.stage": str(stage), "training.lr": 0.1}
    model = zoo.train("image/flowers-latent", data=data(), steps=3, out=tmp_path / "m", overrides=overrides, **QUIET)
    assert digest(model.codec.stage.state_dict()) == before == model.recipe.stage.sha256
    assert model.codec.inner.shape == (3, SIZE, SIZE)  # as the first stage has them: nobody said codec.size
    assert not torch.equal(model.codec.deviation, torch.ones_like(model.codec.deviation))
    again = zoo.load(tmp_path / "m")
    assert torch.equal(again.codec.deviation, model.codec.deviation)
    # the folder of a latent model is itself a recipe to train, with the first stage in it
    more = zoo.train(tmp_path / "m", data=data(), steps=1, out=tmp_path / "n", **QUIET)
    assert more.recipe.stage.sha256 == before
    with pytest.raises(ConfigError, match="Give another first stage, or the recipe its samples"):
        zoo.train(
            "image/flowers-latent", data=data(), steps=1, out=tmp_path / "o", overrides=overrides | {"codec.size": 32}, **QUIET
        )


def test_a_resumed_latent_model_needs_no_other_folder_and_goes_on_to_the_bit(stage, tmp_path):
    moved = Path(shutil.copytree(stage, tmp_path / "ae"))
    overrides = LATENT | {"codec.stage": str(moved)}

    def run(out, **more):
        return zoo.train("image/flowers-latent", data=data(), out=out, steps=4, overrides=overrides, **QUIET | more)

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", max_minutes=0)
    running = zoo.load(tmp_path / "parts")
    assert running.recipe.stage.sha256 == whole.recipe.stage.sha256
    shutil.rmtree(moved)
    parts = run(tmp_path / "parts", resume=True)
    ours, theirs = whole.state_dict(), parts.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_run_does_not_go_on_with_another_first_stage(stage, tmp_path):
    overrides = LATENT | {"codec.stage": str(stage)}
    zoo.train("image/flowers-latent", data=data(), steps=2, out=tmp_path / "m", overrides=overrides, max_minutes=0, **QUIET)
    other = zoo.load(stage)
    with torch.no_grad():
        other.denoiser.encoder[0].bias.add_(1.0)
    folder = other.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"codec was .*SHA-256") as caught:
        zoo.train(
            "image/flowers-latent",
            data=data(),
            steps=2,
            out=tmp_path / "m",
            resume=True,
            overrides=overrides | {"codec.stage": str(folder)},
            **QUIET,
        )
    assert len(str(caught.value)) < 700
    path = tmp_path / "m" / "checkpoint.safetensors"
    tensors, meta, _ = files.load_sealed(path)
    tensors["codec.stage.encoder.0.bias"] += 1.0
    files.save_sealed(path, tensors, meta)  # by somebody who seals it anew
    with pytest.raises(CheckpointError, match="latents of another autoencoder"):
        zoo.train("image/flowers-latent", data=data(), out=tmp_path / "m", resume=True, overrides=overrides, **QUIET)


def test_a_first_stage_must_not_be_a_run_that_goes_on(stage, tmp_path):
    run = Path(shutil.copytree(stage, tmp_path / "ae"))
    (run / files.CONFIG).unlink()
    with pytest.raises(CheckpointError, match="a training run that is not at its end"):
        zoo.create("image/flowers-latent", **NET | {"codec.stage": str(run), "codec.size": SIZE})


def test_a_run_started_from_another_model_keeps_its_latents_only_on_the_same_first_stage(stage, tmp_path, capsys):
    overrides = LATENT | {"codec.stage": str(stage)}
    first = zoo.train("image/flowers-latent", data=data(), steps=1, out=tmp_path / "m", overrides=overrides, **QUIET)
    other = data(seed=7)
    again = zoo.train(
        "image/flowers-latent", data=other, steps=1, out=tmp_path / "n", overrides=overrides, init=tmp_path / "m", **QUIET
    )
    assert torch.equal(again.codec.mean, first.codec.mean)


def test_the_held_out_loss_is_that_of_latents(stage, tmp_path):
    overrides = LATENT | {"codec.stage": str(stage)}
    quiet = QUIET | {"log_every": 1}
    zoo.train(
        "image/flowers-latent", data=data(), held_out=data(seed=3), steps=1, out=tmp_path / "m", overrides=overrides, **quiet
    )
    lines = (tmp_path / "m" / "log.csv").read_text().splitlines()
    assert "held_out_loss" in lines[0] and float(lines[-1].split(",")[2]) > 0


def test_training_draws_latents_by_the_rng_of_its_step(stage, monkeypatch):
    model = zoo.create("image/flowers-latent", **NET | {"codec.stage": str(stage), "codec.size": SIZE})
    lifted, lift = [], model.codec.lift
    monkeypatch.setattr(model.codec, "lift", lambda x, rng=None: lifted.append(lift(x, rng)) or lifted[-1])
    batch = model.batch([data()[i] for i in range(4)])
    losses = [float(Denoise().loss(model, batch, generator(seed))) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(lifted[0], lifted[1]) and not torch.equal(lifted[0], lifted[2])
    assert not torch.equal(lifted[0], lift(batch.x0)), "a draw, not the mean"
    assert batch.x0.shape == (4, 3, SIZE, SIZE)

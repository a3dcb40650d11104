"""The autoencoder of pictures, and how it is measured."""

import json

import numpy as np
import pytest
import torch

import zoo
from zoo.contract.dataset import Items
from zoo.contract.registry import get_domain, get_recipe
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.evaluation.evaluate import evaluate
from zoo.image.autoencoder import GridAutoencoder
from zoo.image.latent_recipes import LATENT
from zoo.image.reconstruction import EXACT, StageEvaluator, edges, psnr, quantised

SIZE = 16


def net(**options):
    return GridAutoencoder((3, SIZE, SIZE), channels=16, blocks=(1, 1), **options)


def pictures(n=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("options", "shape"), [({}, (4, 4, 4)), ({"patch": 1}, (4, 8, 8)), ({"latent": 2, "patch": 4}, (2, 2, 2))]
)
def test_latents_have_the_shape_that_it_says(options, shape):
    made = net(**options)
    x = torch.randn(2, 3, SIZE, SIZE)
    mean, log_variance = made.encode(x)
    assert made.latent_shape == shape and mean.shape == log_variance.shape == (2, *shape)
    assert made.decode(mean).shape == x.shape
    out, again, _ = made(x, noise=torch.zeros_like(mean))
    assert torch.equal(out, made(x)) and torch.equal(again, mean)
    assert torch.equal(made(x, torch.zeros(2), {}, mask=None), out)


def test_the_log_variance_is_bounded():
    made = net()
    torch.nn.init.constant_(made.encoder[-1].bias, 1e6)
    assert made.encode(torch.zeros(1, 3, SIZE, SIZE))[1].max() == 10
    torch.nn.init.constant_(made.encoder[-1].bias, -1e6)
    assert made.encode(torch.zeros(1, 3, SIZE, SIZE))[1].min() == -20


@pytest.mark.parametrize("wrong", [{"latent": 0}, {"blocks": (1,)}, {"multipliers": ()}, {"channels": 1.5}, {"patch": -1}])
def test_numbers_that_make_no_autoencoder_are_one_error(wrong):
    with pytest.raises(ConfigError, match="give positive whole numbers"):
        GridAutoencoder((3, SIZE, SIZE), **wrong)


def test_pictures_that_do_not_divide_are_one_error():
    with pytest.raises(ShapeError, match="18 x 18 do not divide by 4"):
        GridAutoencoder((3, 18, 18))


def test_the_recipes_fit_their_bounds():
    for recipe in LATENT:
        if recipe.role == "first_stage":
            made = get_domain("image").denoiser(recipe, (3, 64, 64))
            assert made.latent_shape == (4, 16, 16)
            assert 2 * sum(p.numel() for p in made.parameters()) <= 3_000_000  # bytes in half precision
    assert get_recipe("image/emoji-kl").role == "first_stage"


# ---------------------------------------------------------------- how it is measured


def test_psnr_and_edge_error_are_those_of_their_definitions():
    a = torch.zeros(2, 1, 4, 4)
    b = torch.full_like(a, 0.2)
    assert psnr(a, b).tolist() == pytest.approx([20.0, 20.0], rel=1e-5)  # an error of a tenth of the range
    assert psnr(a, a).tolist() == pytest.approx([-10 * np.log10(EXACT)] * 2)
    assert edges(a, b).tolist() == pytest.approx([0, 0], abs=1e-6)
    b[:, :, :, 1::2] += 2 / 127.5  # two levels at every second column
    assert edges(a, b).tolist() == pytest.approx([1.0, 1.0], rel=1e-4)
    assert quantised(torch.tensor([-2.0, 0.001, 2.0])).tolist() == pytest.approx([-1, 1 / 255, 1], abs=1e-6)


@pytest.fixture(scope="module")
def model():
    return zoo.create("image/flowers-kl", **{"codec.size": SIZE, "net.channels": 16, "net.blocks": [1, 1]})


def items(n=6, seed=0):
    return Items([(p, {"label": 0}) for p in pictures(n, seed)])


def test_an_evaluation_stands_beside_what_knows_nothing(model):
    further = lambda made: {"rows": {"value": len(made.rows), "ceiling": None, "floor": None, "better": "higher"}}  # noqa: E731
    found = evaluate(model, 4, evaluator=StageEvaluator(items(), items(seed=1), "test", (further,)), seed=0)
    json.dumps(found, allow_nan=False)
    metrics = found["metrics"]
    assert set(metrics) == {"psnr", "edge_error", "latent_deviation", "rows"} and metrics["rows"]["value"] == 4
    low, high = metrics["psnr"]["interval"]
    assert low <= metrics["psnr"]["value"] <= high
    assert metrics["psnr"]["floor"] > metrics["psnr"]["mean_picture"] > 0
    # 64 numbers in a latent: 4 x 4 means of 3 channels
    assert found["protocol"]["floor"].startswith("4 x 4 means of boxes, as many as the latents have numbers (64)")
    assert found["protocol"]["pictures"] == 4 and found["protocol"]["split"] == "test"


def test_what_comes_back_whole_is_measured_as_such(model):
    evaluator = StageEvaluator(items(), items(seed=1))
    made, _ = evaluator.generate(model, 3, seed=0)
    whole = type(made)(made.rows, made.originals, made.originals, made.latents)
    metrics = evaluator.measure(whole)["metrics"]
    assert metrics["psnr"]["value"] == pytest.approx(60) and metrics["edge_error"]["value"] == 0


def test_what_is_not_measured_is_one_error(model):
    evaluator = StageEvaluator(items(), items(seed=1))
    with pytest.raises(ConfigError, match="steps: settings of sampling"):
        evaluate(model, 2, evaluator=evaluator, steps=3)
    with pytest.raises(ConfigError, match="is not a first stage"):
        evaluate(zoo.create("image/fashion-ddpm"), 2, evaluator=evaluator)
    with pytest.raises(DataError, match="holds no pictures"):
        StageEvaluator(Items([]), items())
    with pytest.raises(ConfigError, match="without a judge"):
        evaluate(model, 2, data="nowhere", judge="nowhere")


def test_a_users_own_pictures_set_the_size_of_an_autoencoder(tmp_path):
    from PIL import Image

    domain = get_domain("image")
    for side, size in ((100, 64), (40, 32), (20, 64)):
        folder = tmp_path / str(side)
        folder.mkdir()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / "a.png")
        assert domain.suited(get_recipe("image/autoencoder"), folder)[0].codec == {"size": size, "channels": 3}
        latent = get_recipe("image/flowers-latent")
        assert domain.suited(latent, folder) == (latent, "")
    assert domain.suited(get_recipe("image/fashion-ddpm"), tmp_path / "100")[0].codec == {"size": 32, "channels": 3}

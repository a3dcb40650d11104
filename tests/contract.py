"""The plug-in contract (zoo/contract/domain.py), for every registered recipe of every domain.

A new domain adds a reader of its files to READERS; everything else it gets from here.
"""

import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import png
import pytest
import torch

import zoo
from zoo.contract.domain import Batch, Codec, Denoiser, Domain, Sample
from zoo.contract.registry import domain_names, get_domain, get_recipe
from zoo.core import seeds
from zoo.core.guidance import null_like
from zoo.errors import ConfigError
from zoo.model.model import Model


def read_png(path: Path) -> np.ndarray:
    """Pixels of a PNG by a reader that is not the one that wrote it."""
    width, height, rows, facts = png.Reader(filename=str(path)).read()
    pixels = np.vstack([np.uint8(row) for row in rows]).reshape(height, width, facts["planes"])
    return pixels[..., 0] if facts["planes"] == 1 else pixels


def read_wav(path: Path) -> np.ndarray:
    """Samples of a 16-bit mono WAV by the standard library."""
    with wave.open(str(path), "rb") as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            pytest.fail(f"{path} is no mono 16-bit file")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def read_pdb(path: Path) -> np.ndarray:
    """N, CA and C of a PDB file by gemmi (the writer is Biopython)."""
    chain = gemmi.read_structure(str(path))[0]["A"]
    return np.array([[residue[name][0].pos.tolist() for name in ("N", "CA", "C")] for residue in chain], np.float32)


def read_ply(path: Path) -> np.ndarray:
    """Vertices (N, 3) of a binary PLY, read by its header (Turk 1994)."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode().split("\n")
    if "format binary_little_endian 1.0" not in lines or [w for w in lines if "property" in w] != [
        f"property float {axis}" for axis in "xyz"
    ]:
        pytest.fail(f"{path} is no binary PLY of x, y and z: {lines}")
    count = next(int(w.split()[2]) for w in lines if w.startswith("element vertex"))
    return np.frombuffer(body, "<f4").reshape(count, 3)


#: file suffix -> a second reader of it, which gives what the sample's `numpy()` gives
READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".wav": read_wav,
    ".png": lambda path: np.atleast_3d(read_png(path)).transpose(2, 0, 1) / np.float32(127.5) - 1,
    ".pdb": read_pdb,
    ".ply": read_ply,
    ".npz": lambda path: np.load(path, allow_pickle=False)["action"],
}


def fit_policy(model: Model) -> None:
    """Ranges of random episodes: without any, a policy refuses to act."""
    from zoo.policy.data import Episodes, Robot

    codec, rng = model.codec, np.random.default_rng(0)
    robot = Robot(codec.observation_names, codec.action_names)
    sizes = len(robot.observation_names), len(robot.action_names)
    codec.fit(Episodes(*(rng.uniform(-1, 1, (40, n)) for n in sizes), np.array([20, 40]), robot))


#: domain -> how an untrained model gets statistics, where it does nothing without
FITTED: dict[str, Callable[[Model], None]] = {"policy": fit_policy}


def awake(model: Model) -> Model:
    """Nets start as the zero function; moved weights make every part of them count."""
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=seeds.generator(i))
    return model


@pytest.fixture(scope="module", params=zoo.list_models())
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)  # the same weights whatever ran before
    model = zoo.create(request.param)
    if model.recipe.domain in FITTED:
        FITTED[model.recipe.domain](model)
    return awake(model)


def inputs(model: Model, n: int) -> dict[str, Any]:
    """What the denoiser takes, random."""
    g = seeds.generator(7)
    cond = {k: torch.arange(n) % len(c.values) for k, c in model.recipe.labels.items()}
    cond |= {k: torch.randn(n, *c.shape, generator=g) for k, c in model.recipe.arrays.items()}
    level = model.diffusion.schedule.draw(n, g)
    return {"x_t": torch.randn(n, *model.codec.shape, generator=g), "t": level.t.float(), "cond": cond}


def objects(model: Model, n: int) -> list[Any]:
    """Some objects of the domain: noise, decoded."""
    x0 = torch.randn(n, *model.codec.shape, generator=seeds.generator(3)).clamp(-1, 1)
    return model.codec.decode(model.codec.project(x0), {})


@pytest.mark.parametrize("name", domain_names())
def test_a_domain_is_whole(name: str) -> None:
    domain = get_domain(name)
    assert isinstance(domain, Domain) and domain.name == name
    assert domain.suffix in READERS, "a second reader proves that the files are what they say"
    for recipe_name, recipe in domain.recipes().items():
        assert (recipe.domain, recipe.name) == (name, recipe_name)
        assert get_recipe(f"{name}/{recipe_name}") is recipe
        assert recipe.description and recipe.licence and recipe.data and recipe.paper


def test_the_parts_keep_their_protocols(model: Model) -> None:
    assert isinstance(model.codec, Codec) and isinstance(model.denoiser, Denoiser)
    assert all(isinstance(item, Sample) for item in objects(model, 2))


def test_the_recipe_survives_json_and_a_wrong_key_does_not(model: Model) -> None:
    data = model.recipe.model_dump(mode="json")
    assert type(model.recipe).parse(data) == model.recipe
    with pytest.raises(ConfigError, match="spead"):
        type(model.recipe).parse(data | {"spead": 1})


def test_the_output_is_shaped_and_typed_like_the_input(model: Model) -> None:
    for n in (1, 3):
        given = inputs(model, n)
        with torch.no_grad():
            out = model.denoiser(given["x_t"], given["t"], given["cond"])
        assert out.shape == given["x_t"].shape and out.dtype == given["x_t"].dtype
        assert torch.isfinite(out).all()


def test_every_input_changes_the_output(model: Model) -> None:
    given = inputs(model, 3)
    with torch.no_grad():
        out = model.denoiser(**given)
        assert not torch.allclose(out, model.denoiser(given["x_t"] + 0.1, given["t"], given["cond"]), atol=1e-4)
        assert not torch.allclose(out, model.denoiser(given["x_t"], given["t"] * 0.5, given["cond"]), atol=1e-4)
        for k, v in given["cond"].items():
            assert not torch.allclose(out, model.denoiser(given["x_t"], given["t"], given["cond"] | {k: v.flip(0)}), atol=1e-4)


def test_drop_replaces_the_condition_of_its_rows_alone(model: Model) -> None:
    if not model.recipe.conditions:
        pytest.skip("unconditional")
    given = inputs(model, 3)
    none = {k: null_like(v) for k, v in given["cond"].items()}
    with torch.no_grad():
        out = model.denoiser(**given)
        dropped = model.denoiser(**given, drop=torch.tensor([False, True, False]))
        null = model.denoiser(given["x_t"], given["t"], none)
    torch.testing.assert_close(dropped[[0, 2]], out[[0, 2]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dropped[1], null[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(dropped[1], out[1], atol=1e-4)


def test_rows_do_not_see_each_other(model: Model) -> None:
    given = inputs(model, 3)
    one = {"x_t": given["x_t"][1:2], "t": given["t"][1:2], "cond": {k: v[1:2] for k, v in given["cond"].items()}}
    with torch.no_grad():
        torch.testing.assert_close(model.denoiser(**given)[1:2], model.denoiser(**one), atol=1e-5, rtol=1e-4)


def test_padding_is_ignored(model: Model) -> None:
    batch = model.codec.batch([(item, {}) for item in objects(model, 2)])
    if batch.mask is None:
        pytest.skip("samples of one size: no padding")
    given = inputs(model, 2)
    other = torch.where(batch.mask.reshape(*batch.mask.shape, *[1] * (batch.x0.ndim - 2)), given["x_t"], torch.tensor(9.0))
    with torch.no_grad():
        out, changed = (model.denoiser(x, given["t"], given["cond"], mask=batch.mask) for x in (given["x_t"], other))
    torch.testing.assert_close(out[batch.mask], changed[batch.mask])


def test_the_projector_is_linear_and_idempotent(model: Model) -> None:
    x, y = (torch.randn(2, *model.codec.shape, generator=seeds.generator(i), dtype=torch.float64) for i in (0, 1))
    once = model.codec.project(x)
    torch.testing.assert_close(model.codec.project(once), once)
    torch.testing.assert_close(model.codec.project(2 * x + y), 2 * once + model.codec.project(y))


def test_encode_undoes_decode(model: Model) -> None:
    items = objects(model, 3)
    x0 = torch.stack([model.codec.encode(item) for item in items])
    assert x0.shape == (3, *model.codec.shape) and x0.dtype == torch.float32
    for item, again in zip(items, model.codec.decode(x0, {}), strict=True):
        np.testing.assert_allclose(item.numpy(), again.numpy(), atol=1e-6)


def test_a_batch_holds_what_the_dataset_gave(model: Model) -> None:
    items = objects(model, 3)
    labels, arrays = model.recipe.labels, model.recipe.arrays
    given = [dict.fromkeys(labels, i) | {k: np.full(c.shape, i / 4) for k, c in arrays.items()} for i in range(3)]
    batch = model.codec.batch(list(zip(items, given, strict=True)))
    assert isinstance(batch, Batch) and batch.x0.shape == (3, *model.codec.shape)
    assert list(batch.cond) == [*labels, *arrays]
    assert all(batch.cond[k].tolist() == [0, 1, 2] for k in labels)
    for k, spec in arrays.items():
        assert batch.cond[k].shape == (3, *spec.shape)
        torch.testing.assert_close(batch.cond[k], torch.stack([model.codec.condition(k, g[k]) for g in given]))


def test_the_loss_has_a_gradient_for_every_parameter(model: Model) -> None:
    given = inputs(model, 4)
    for k in model.recipe.arrays:
        given["cond"][k][0] = torch.nan  # not given: the null learns, too
    loss = model.loss(Batch(given["x_t"].clamp(-1, 1), given["cond"]), generator=seeds.generator(2))
    gradients = torch.autograd.grad(loss, list(model.denoiser.parameters()), allow_unused=True)
    dead = [k for (k, _), g in zip(model.denoiser.named_parameters(), gradients, strict=True) if g is None or not g.any()]
    assert not dead


def test_the_same_sample_for_every_batch_size(model: Model) -> None:
    settings: dict[str, Any] = {"seed": 5, "steps": 2, "progress": False}
    whole = model.sample(5, **settings).tensor
    for size in (1, 2):
        torch.testing.assert_close(model.sample(5, batch_size=size, **settings).tensor, whole, atol=0.01, rtol=0)
    torch.testing.assert_close(model.sample(3, **settings).tensor, whole[:3], atol=0.01, rtol=0)
    assert not torch.allclose(model.sample(5, **settings | {"seed": 6}).tensor, whole, atol=0.1)


def test_saved_and_loaded_it_draws_the_same_samples(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    again = zoo.load(tmp_path / "m")
    assert again.recipe == model.recipe
    assert again.verify() == 0.0
    for (k, a), (_, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), k
    settings: dict[str, Any] = {"seed": 1, "steps": 2, "progress": False}
    assert torch.equal(model.sample(2, **settings).tensor, again.sample(2, **settings).tensor)


def test_files_open_in_a_second_reader(model: Model, tmp_path: Path) -> None:
    samples = model.sample(2, seed=0, steps=1, progress=False)
    paths = samples.save(tmp_path / "out")
    assert [p.suffix for p in paths] == [model.domain.suffix] * 2 and len(set(paths)) == 2
    for sample, path in zip(samples, paths, strict=True):
        np.testing.assert_allclose(READERS[path.suffix](path), sample.numpy(), atol=1e-6)
    picture = samples.plot(tmp_path / "all.png")
    assert png.Reader(filename=str(tmp_path / "all.png")).read()[:2] == picture.size


@pytest.mark.parametrize("name", [n for n in zoo.list_models() if zoo.info(n).packaged])
def test_packaged_weights_are_whole(name: str) -> None:
    model = zoo.load(name)
    registered = get_recipe(name)
    trained = model.recipe.model_copy(update={"training": registered.training})  # the config tells the weights' own training
    assert trained == registered, "the packaged config is the registered recipe"
    model.verify()
    assert model.folder is not None
    weights = model.folder / "model.safetensors"
    assert weights.stat().st_size <= 10_000_000
    card = zoo.info(name)
    assert card.evaluation is not None, "packaged weights come with their evaluation"
    assert "test" in card.evaluation["protocol"]["reference"]
    for metric in card.evaluation["metrics"].values():
        assert {"value", "ceiling", "floor", "better"} <= metric.keys()

"""The contract suite (zoo/testing.py), for every registered recipe of every domain.

A new domain adds a reader of its files to READERS; everything else it gets from the suite.
"""

import wave
from collections.abc import Callable
from pathlib import Path

import gemmi
import numpy as np
import png
import pytest

import zoo
from zoo import testing
from zoo.contract.dataset import Dataset
from zoo.contract.recipe import Recipe
from zoo.contract.registry import domain_names, get_domain, get_recipe
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


#: recipes whose net and codec are those of another one here: what they could break, that one breaks as well
ALIKE = (
    "audio/words-ddpm",
    "policy/metaworld-push",
    "image/autoencoder",
    "image/emoji-kl",
    "image/emoji-pixels",
    "image/emoji-pixels-dit",
    "image/emoji-text-dit",
    "image/emoji-32",
)
#: first stages and models on their latents are checked small: their own size changes only how long it takes
STAGE = {"codec.size": 16, "net.channels": 16, "net.blocks": [1, 1]}
LATENT = {"codec.size": 16, "net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.blocks": 1}
WORDS = {"net.cross": [True]}
TOKENS = {"codec.size": 16, "net.dim": 32, "net.depth": 1, "net.heads": 2}
RECIPES = [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in zoo.list_models()]


def small(name: str) -> Recipe:
    """The recipe of a model as it is checked here."""
    recipe = get_recipe(name)
    if recipe.role == "first_stage":
        return recipe.override(STAGE)
    if recipe.stage is None:
        return recipe
    stage = {"name": recipe.stage.name, "recipe": small(recipe.stage.name).model_dump(mode="json")}
    net = TOKENS if recipe.denoiser == "transformer" else LATENT | (WORDS if "text" in recipe.conditions else {})
    return recipe.override(net | {"codec.stage": stage})


@pytest.fixture(scope="module", params=RECIPES)
def prepared(request: pytest.FixtureRequest) -> tuple[Model, Dataset]:
    domain, _, _ = request.param.partition("/")
    return testing.prepared(get_domain(domain), small(request.param))


@pytest.mark.parametrize("name", testing.CHECKS)
def test_a_recipe_keeps_the_contract(prepared: tuple[Model, Dataset], name: str) -> None:
    reason = testing.run(name, *prepared)
    if reason is not None:
        pytest.skip(reason)


def test_files_open_in_a_second_reader(prepared: tuple[Model, Dataset], tmp_path: Path) -> None:
    model, _ = prepared
    if model.is_first_stage:
        pytest.skip("a first stage samples nothing")
    samples = model.sample(2, seed=0, steps=1, progress=False)
    for sample, path in zip(samples, samples.save(tmp_path / "out"), strict=True):
        np.testing.assert_allclose(READERS[path.suffix](path), sample.numpy(), atol=1e-6)
    picture = samples.plot(tmp_path / "all.png")
    assert png.Reader(filename=str(tmp_path / "all.png")).read()[:2] == picture.size


def test_made_up_data_change_no_recipe(prepared: tuple[Model, Dataset]) -> None:
    model, _ = prepared
    assert by_name(model.recipe) == by_name(small(f"{model.recipe.domain}/{model.recipe.name}"))


def by_name(recipe: Recipe) -> Recipe:
    """The recipe with its first stage, if it has one, by name alone, as a registered recipe has it."""
    return recipe.staged(recipe.stage.name if recipe.stage else None)


def test_every_kind_of_file_has_a_second_reader() -> None:
    assert {get_domain(name).suffix for name in domain_names()} <= set(READERS)


@pytest.mark.parametrize("name", [n for n in zoo.list_models() if zoo.info(n).packaged])
def test_packaged_weights_are_whole(name: str) -> None:
    model = zoo.load(name)
    registered = get_recipe(name)
    trained = model.recipe.model_copy(update={"training": registered.training})  # the config tells the weights' own training
    assert by_name(trained) == by_name(registered), "the packaged config is the registered recipe"
    model.verify()
    assert model.folder is not None
    weights = model.folder / "model.safetensors"
    assert weights.stat().st_size <= 10_000_000
    card = zoo.info(name)
    assert card.evaluation is not None, "packaged weights come with their evaluation"
    assert "test" in card.evaluation["protocol"]["reference"]
    for metric in card.evaluation["metrics"].values():
        assert {"value", "ceiling", "floor", "better"} <= metric.keys()

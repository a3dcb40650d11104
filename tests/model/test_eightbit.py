"""Weights stored in eight bits."""

import pytest
import torch

import zoo
from zoo import files
from zoo.errors import CheckpointError, ConfigError
from zoo.model.eightbit import LEAST, SCALE, pack, unpack

SMALL = {"net": {"channels": 32, "multipliers": [1], "blocks": 1, "attention": [True], "patch": 4}}


def weights(rows=32, columns=64, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_no_weight_is_off_by_more_than_half_a_scale(tmp_path):
    w = weights() * torch.logspace(-6, 6, 32)[:, None]
    packed = pack({"w": w})
    assert packed["w"].dtype == torch.int8
    assert packed["w"].abs().amax(1).eq(127).all()
    off = (unpack(packed, tmp_path)["w"] - w).abs()
    assert (off <= 0.5001 * packed["w" + SCALE][:, None]).all()
    assert torch.equal(packed["w" + SCALE], w.abs().amax(1) / 127)


def test_what_was_rounded_once_stays(tmp_path):
    once = unpack(pack({"w": weights()}), tmp_path)
    assert torch.allclose(unpack(pack(once), tmp_path)["w"], once["w"], rtol=1e-6, atol=0)


def test_rows_of_a_convolution_are_its_output_channels(tmp_path):
    w = torch.ones(4, 16, 5, 5) * torch.tensor([1.0, 10.0, 0.0, -3.0])[:, None, None, None]
    packed = pack({"w": w})
    assert packed["w"].shape == w.shape
    assert torch.allclose(unpack(packed, tmp_path)["w"], w)


@pytest.mark.parametrize("w", [torch.ones(LEAST), torch.ones(2, 3), torch.ones(64, 64, dtype=torch.int64)])
def test_vectors_small_matrices_and_whole_numbers_stay(w):
    assert pack({"w": w})["w"] is w


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.pop("w"),
        lambda t: t.update(w=t["w"].float()),
        lambda t: t.update({"w" + SCALE: t["w" + SCALE][:-1]}),
        lambda t: t.update({"w" + SCALE: t["w" + SCALE].half()}),
    ],
)
def test_a_scale_that_fits_no_weight_is_refused(tmp_path, spoil):
    packed = pack({"w": weights()})
    spoil(packed)
    with pytest.raises(CheckpointError, match="scale"):
        unpack(packed, tmp_path)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = zoo.create("image/fashion-ddpm", **SMALL)
    for p in model.denoiser.parameters():  # nets begin as the zero function
        p.data += 0.05 * torch.randn_like(p)
    return model


def test_a_folder_in_eight_bits_loads_verifies_and_is_half_of_one_in_sixteen(model, tmp_path):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.save_pretrained(tmp_path / "eight", bits=8)
    model.save_pretrained(tmp_path / "half", half=True)
    sizes = [(tmp_path / k / files.WEIGHTS).stat().st_size for k in ("eight", "half")]
    assert sizes[0] < 0.65 * sizes[1]
    loaded = zoo.load(tmp_path / "eight")
    loaded.verify()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    a, b = (m.sample(2, steps=3, seed=0, progress=False).tensor for m in (model, loaded))
    assert 0 < (a - b).abs().max() < 0.1


def test_a_missing_scale_is_told(model, tmp_path):
    model.save_pretrained(tmp_path, bits=8)
    tensors = files.load_tensors(tmp_path / files.WEIGHTS)
    del tensors[next(k for k in tensors if k.endswith(SCALE))]
    files.save_tensors(tmp_path / files.WEIGHTS, tensors)
    files.reseal(tmp_path / files.CONFIG)
    with pytest.raises(CheckpointError, match="int8"):
        zoo.load(tmp_path)


def test_other_numbers_of_bits_are_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="8, 16 or 32"):
        model.save_pretrained(tmp_path / "m", bits=4)
    with pytest.raises(ConfigError, match="one of them"):
        model.save_pretrained(tmp_path / "m", half=True, bits=8)
    assert not (tmp_path / "m").exists()

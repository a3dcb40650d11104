"""Pictures to numbers and back."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.errors import ConfigError, DataError, ShapeError
from zoo.image.codec import ImageCodec, ImageSample


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_every_byte_survives():
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    codec = ImageCodec(16)
    x0 = codec.encode(every)
    assert x0.shape == (1, 16, 16) and x0.min() == -1 and x0.max() == 1
    np.testing.assert_array_equal(codec.decode(x0[None], {})[0].pixels, every)


def test_values_outside_are_clamped_and_the_nearest_byte_is_taken():
    codec = ImageCodec(2)
    x0 = torch.tensor([[[[-3.0, 9.0], [0.4999 / 127.5 - 1, 0.5001 / 127.5 - 1]]]])
    assert codec.decode(x0, {})[0].pixels.tolist() == [[0, 255], [0, 1]]


@pytest.mark.parametrize(("channels", "shape"), [(1, (20, 20)), (3, (20, 20, 3))])
def test_grey_and_rgb(channels, shape):
    codec = ImageCodec(20, channels)
    picture = pixels(*shape)
    x0 = codec.encode(picture)
    assert x0.shape == (channels, 20, 20)
    sample = codec.decode(x0[None], {})[0]
    np.testing.assert_array_equal(sample.pixels, picture)
    assert sample.pil().mode == ("L" if channels == 1 else "RGB") and sample.numpy().shape == x0.shape
    torch.testing.assert_close(torch.from_numpy(sample.numpy()), x0)


def test_other_sizes_are_cropped_to_the_centred_square_and_resized():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    assert (ImageCodec(10).encode(wide) == 200 / 127.5 - 1).all()
    tall = Image.fromarray(np.zeros((90, 30), np.uint8))
    assert ImageCodec(15).encode(tall).shape == (1, 15, 15)


def test_colour_becomes_grey_and_grey_becomes_colour():
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert ImageCodec(4, 1).decode(ImageCodec(4, 1).encode(red)[None], {})[0].pixels[0, 0] == 76  # ITU-R 601
    grey = Image.new("L", (4, 4), 9)
    assert (ImageCodec(4, 3).decode(ImageCodec(4, 3).encode(grey)[None], {})[0].pixels == 9).all()


def test_transparency_is_laid_on_white():
    for mode in ("RGBA", "LA"):
        clear = Image.new(mode, (4, 4), (0,) * len(mode))
        assert (ImageCodec(4, 1).encode(clear) == 1).all()


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 2.5}, {"size": "28"}, {"channels": 2}, {"channels": 4}])
def test_wrong_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ImageCodec(**options)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), np.zeros((4,), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)])
def test_wrong_arrays(wrong):
    with pytest.raises(ShapeError, match="uint8"):
        ImageCodec(4).encode(wrong)


def test_wrong_tensors():
    with pytest.raises(ShapeError, match=r"\(B, 1, 28, 28\)"):
        ImageCodec().decode(torch.zeros(2, 1, 14, 28), {})


def test_saving_formats(tmp_path):
    sample = ImageSample(pixels(8, 8))
    for suffix in (".png", ".webp", ".jpg"):
        assert Image.open(sample.save(tmp_path / f"a{suffix}")).size == (8, 8)
    with pytest.raises(DataError, match=r"\.png"):
        sample.save(tmp_path / "a.xyz")
    assert not (tmp_path / "a.xyz").exists()
    assert sample._repr_png_().startswith(b"\x89PNG")

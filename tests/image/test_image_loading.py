"""Pictures of a folder at one size: decoded at a part of theirs, as good as whole; the same in every state of the cache."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from zoo.contract.domain import Domain
from zoo.contract.registry import get_domain, get_recipe
from zoo.data import decoded
from zoo.data.decoded import Store, switched_off
from zoo.errors import DataError
from zoo.image.codec import ImageCodec, fit
from zoo.image.data import UPRIGHT, ImageFolder, Seen, TableImages, open_images, read_picture


def picture(seed=0, width=640, height=480, mode="RGB"):
    """Smooth colours with edges, of which the corners differ."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    x = np.array(small)
    x[height // 3 : height // 2, width // 4 : width // 2] //= 2
    return Image.fromarray(x).convert(mode)


def jpeg(image, orientation=1, **options):
    memory, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    image.save(memory, "JPEG", quality=90, exif=exif, **options)
    return memory.getvalue()


def whole(data, size, channels=3):
    return np.asarray(fit(read_picture(io.BytesIO(data), "a"), size, channels)).astype(int)


def reduced(data, size, channels=3):
    seen = Seen()
    read = read_picture(io.BytesIO(data), "a", seen, least=2 * size)
    return np.asarray(fit(read, size, channels, seen.margins)).astype(int), read.size


# whole multiples of 8, and sizes whose last row and column stand for 1 to 7 pixels
@pytest.mark.parametrize("shape", [(640, 480), (641, 487), (487, 641), (999, 333), (700, 700), (255, 1021)])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_shows_the_same(shape):
    for size in (16, 28, 32):
        data = jpeg(picture(1, *shape))
        found, decoded_size = reduced(data, size)
        assert 2 * size <= min(decoded_size) < min(shape)
        error = np.abs(found - whole(data, size))
        assert error.mean() < 0.6 and error.max() <= 6


@pytest.mark.parametrize("orientation", [1, *UPRIGHT])
def test_a_turned_jpeg_is_cut_where_the_whole_one_is(orientation):
    data = jpeg(picture(2, 487, 331), orientation)
    found, _ = reduced(data, 20)
    error = np.abs(found - whole(data, 20))
    assert error.mean() < 0.6 and error.max() <= 6


def test_without_the_margins_the_cut_would_be_elsewhere():
    data, seen = jpeg(picture(2, 487, 331), 3), Seen()
    read = read_picture(io.BytesIO(data), "a", seen, least=40)
    assert seen.margins[0] > 0 and seen.margins[1] > 0  # upside down, what was at the right and the bottom
    assert np.abs(np.asarray(fit(read, 20, 3)).astype(int) - whole(data, 20)).mean() > 0.8


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_reduced_as_well(mode):
    data = jpeg(picture(3, mode=mode))
    for channels in (1, 3):
        found, size = reduced(data, 24, channels)
        assert min(size) < 480 and np.abs(found - whole(data, 24, channels)).mean() < 0.6


def test_what_is_small_or_no_jpeg_is_decoded_as_it_is():
    memory = io.BytesIO()
    picture().save(memory, "PNG")
    for data, size in ((memory.getvalue(), 16), (jpeg(picture(0, 60, 50)), 28), (jpeg(picture()), 300)):
        found, _ = reduced(data, size)
        assert np.array_equal(found, whole(data, size))


# ---------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for k, name in enumerate(["cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "dog/4.png"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(k, 160, 120).save(root / name)
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that keeps all, for files as young as those of a test."""
    monkeypatch.setattr(decoded, "SETTLED", -1e9)
    found = Store(tmp_path / "cache", 10**8, worth=0)
    monkeypatch.setattr(decoded, "_store", lambda *key: found)
    return found


def pixels(data):
    return [data[i][0].tobytes() for i in range(len(data))]


def test_a_folder_gives_the_same_cold_warm_and_without_a_cache(folder, cache):
    cold = ImageFolder(folder, size=24, channels=3)
    assert cache.misses == 4 and cold[0][0].shape == (24, 24, 3) and cold[0][0].dtype == np.uint8
    first = pixels(cold)
    assert cache.misses == 4  # opening was the first epoch's decoding
    warm = ImageFolder(folder, size=24, channels=3)
    assert pixels(warm) == first and cache.misses == 4
    with switched_off():
        none = ImageFolder(folder, size=24, channels=3)
    assert none.cache is None and pixels(none) == first
    late = ImageFolder(folder)
    assert isinstance(late[0][0], Image.Image)
    late.prepare_for(ImageCodec(24, 3), get_recipe("image/fashion-ddpm"))
    assert pixels(late) == first
    late.at(24, 1)
    assert late[0][0].shape == (24, 24) and pixels(late) != first


def test_the_codec_takes_a_fitted_picture_as_it_is(folder, cache):
    codec = ImageCodec(24, 3)
    data = ImageFolder(folder, size=24, channels=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written to
        encoded = codec.encode(data[0][0])
    assert np.array_equal(codec.decode(encoded[None], {})[0].pixels, data[0][0])


def test_a_bad_file_is_named_also_where_the_others_are_known(folder, cache):
    ImageFolder(folder, size=24, channels=3)
    (folder / "cat" / "5.jpg").write_bytes((folder / "cat" / "1.jpg").read_bytes()[:-2000])
    for _ in range(2):
        with pytest.raises(DataError, match=r"1 unreadable picture\(s\): .*5\.jpg"):
            ImageFolder(folder, size=24, channels=3)


def test_what_is_said_of_the_pictures_is_said_from_the_cache_too(folder, cache):
    frames = [picture(k, 40, 30) for k in range(2)]
    frames[0].save(folder / "dog" / "film.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.linspace(0, 200, 48 * 64, dtype=np.float32).reshape(48, 64)).save(folder / "dog" / "deep.tiff")
    for _ in range(2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            data = ImageFolder(folder, size=24, channels=3)
        text = " ".join(str(w.message) for w in said)
        assert "white is taken to be 255" in text and "have several frames, of which the first counts: " in text
        deep = data.files.index(folder / "dog" / "deep.tiff")
        assert 190 < data[deep][0].max() < 205  # white hangs on the other pictures of the folder: nothing of it is kept
    assert cache.misses == 5


def test_training_opens_a_folder_at_the_size_of_its_recipe(folder, cache, monkeypatch):
    domain: Domain = get_domain("image")
    recipe = get_recipe("image/fashion-ddpm").override({"codec.size": 20, "codec.channels": 3})
    assert domain.data_options(recipe) == {"size": 20, "channels": 3}
    assert open_images(folder, **domain.data_options(recipe))[0][0].shape == (20, 20, 3)


def test_rows_of_a_table_are_kept_by_their_bytes(cache):
    class Rows:
        labels, origin = {}, "made-up rows"

        def __len__(self):
            return 2

        def __getitem__(self, i):
            return {"image": jpeg(picture(i))}

    table = TableImages(Rows())
    assert isinstance(table[0][0], Image.Image)
    table.at(24, 3)
    first = pixels(table)
    assert pixels(table) == first and cache.misses == 2

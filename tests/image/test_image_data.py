"""Fashion-MNIST in both of its forms, and folders of anybody's pictures."""

import functools
import gzip
import hashlib
import http.server
import io
import struct
import subprocess
import threading
import warnings
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, features

import zoo
from zoo.errors import DataError
from zoo.image import data
from zoo.image.codec import fit
from zoo.image.data import FORMATS, ImageFolder, download_fashion_mnist, fashion_mnist, open_images, read_picture

rng = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    for label, suffix in (("dog", ".png"), ("cat", ".jpg"), ("bird", ".webp")):
        (root / label).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(root / label / f"{i}{suffix}")
    return root


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


@pytest.fixture
def arrays():
    n, m = data.HELD_OUT + 7, 5
    return {
        "train_images": rng.integers(0, 256, (n, 28, 28), dtype=np.uint8),
        "train_labels": rng.integers(0, 10, n, dtype=np.uint8),
        "test_images": rng.integers(0, 256, (m, 28, 28), dtype=np.uint8),
        "test_labels": rng.integers(0, 10, m, dtype=np.uint8),
    }


NAMES = {
    "train_images": "train-images-idx3-ubyte.gz", "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz", "test_labels": "t10k-labels-idx1-ubyte.gz",
}  # fmt: skip


def write_gz(folder, arrays):
    folder.mkdir(exist_ok=True)
    for key, name in NAMES.items():
        (folder / name).write_bytes(idx(arrays[key]))
    return folder


def test_both_forms_give_the_same_and_the_splits_do_not_meet(tmp_path, arrays):
    np.savez(tmp_path / "fashion_mnist.npz", **arrays)
    write_gz(tmp_path / "gz", arrays)
    sizes = {"train": 7, "validation": data.HELD_OUT, "test": 5}
    for split, size in sizes.items():
        forms = [open_images(source, split) for source in (tmp_path / "fashion_mnist.npz", tmp_path, tmp_path / "gz")]
        assert [len(f) for f in forms] == [size] * 3
        for other in forms[1:]:
            np.testing.assert_array_equal(forms[0].pixels, other.pixels)
            np.testing.assert_array_equal(forms[0].targets, other.targets)
    train, validation = (fashion_mnist(tmp_path, s).pixels for s in ("train", "validation"))
    np.testing.assert_array_equal(np.concatenate([train, validation]), arrays["train_images"])
    picture, cond = open_images(tmp_path)[3]
    assert picture.shape == (28, 28) and cond == {"label": int(arrays["train_labels"][3])}
    assert open_images(tmp_path).labels["label"][7] == "sneaker"


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"not gzip",
        lambda b: gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc"),
        lambda b: gzip.compress(b"\0\0\x08\x03\0\0\xff\xff" + 2 * b"\xff\xff\xff\xff"),
        lambda b: gzip.compress(b"\0\0\x08\xff"),
        lambda b: b[:15] + b"\xff" + b[16:],
    ],
)
def test_damaged_files_are_named(tmp_path, arrays, damage):
    root = write_gz(tmp_path / "gz", arrays)
    path = root / NAMES["train_images"]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="train-images"):
        fashion_mnist(root)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"plain text"])
def test_a_damaged_npz_is_named(tmp_path, content):
    (tmp_path / "fashion_mnist.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"fashion_mnist\.npz"):
        open_images(tmp_path)


def test_an_npz_of_something_else_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(DataError, match=r"other\.npz"):
        open_images(tmp_path / "other.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"train_images": np.zeros((data.HELD_OUT + 7, 32, 32), np.uint8)},
        {"train_images": np.zeros((data.HELD_OUT + 7, 28, 28), np.float32)},
        {"train_labels": np.zeros(data.HELD_OUT, np.uint8)},
        {"train_labels": np.full(data.HELD_OUT + 7, 10)},
        {"train_labels": np.full(data.HELD_OUT + 7, -1)},
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, arrays, change):
    np.savez(tmp_path / "fashion_mnist.npz", **arrays | change)
    with pytest.raises(DataError, match=r"fashion_mnist\.npz is not Fashion-MNIST"):
        open_images(tmp_path / "fashion_mnist.npz")
    assert len(open_images(tmp_path / "fashion_mnist.npz", "test")) == 5, "of the test set nothing was changed"


def test_training_rows_that_are_all_held_out_are_refused(tmp_path, arrays):
    few = {k: arrays[k][: data.HELD_OUT] for k in ("train_images", "train_labels")}
    np.savez(tmp_path / "few.npz", **arrays | few)
    for split in ("train", "validation"):
        with pytest.raises(DataError, match="5,000 training rows; more than 5,000 are needed"):
            open_images(tmp_path / "few.npz", split)


# ---------------------------------------------------------------- download


@pytest.fixture
def server(tmp_path, arrays):
    """Loopback HTTP over a folder; counts what is asked."""
    root = write_gz(tmp_path / "home", arrays)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=root))
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield root, f"http://127.0.0.1:{running.server_port}/", asked
    running.shutdown()
    running.server_close()


def test_download_checks_every_hash_and_fetches_once(tmp_path, server, monkeypatch):
    root, home, asked = server
    monkeypatch.setattr(data, "FASHION_FILES", {n: hashlib.md5((root / n).read_bytes()).hexdigest() for n in NAMES.values()})
    got = download_fashion_mnist(tmp_path / "got", home)
    assert {p.name for p in got.iterdir()} == set(NAMES.values()) and len(asked) == 4
    assert len(open_images(got)) == 7
    download_fashion_mnist(got, home)
    assert len(asked) == 4, "whole files are not fetched again"
    (got / NAMES["test_labels"]).write_bytes(b"damaged")
    download_fashion_mnist(got, home)
    assert len(asked) == 5, "a damaged one is"


def test_users_ask_for_the_public_data_by_name(tmp_path, server, monkeypatch):
    root, home, asked = server
    monkeypatch.setattr(data, "FASHION_FILES", {n: hashlib.md5((root / n).read_bytes()).hexdigest() for n in NAMES.values()})
    monkeypatch.setattr(data, "FASHION_HOME", home)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert [len(open_images("fashion-mnist", s)) for s in ("train", "test")] == [7, 5]
    assert len(asked) == 4 and (tmp_path / "cache" / "fashion-mnist").is_dir()


def test_a_wrong_hash_keeps_nothing(tmp_path, server):
    _, home, _ = server
    with pytest.raises(DataError, match="expected 8d4fb7e6c68d591d4c3dfef9ec88bf0d: not kept"):
        download_fashion_mnist(tmp_path / "got", home)
    assert not list(tmp_path.glob("got/*"))


def test_a_missing_file_or_server_says_what_to_do(tmp_path, server):
    root, home, _ = server
    (root / NAMES["train_images"]).unlink()
    for place in (home, "http://127.0.0.1:9/"):
        with pytest.raises(DataError, match="by hand"):
            download_fashion_mnist(tmp_path / "got", place)


# ---------------------------------------------------------------- folders


def test_class_subfolders_become_labels(folder):
    pictures = open_images(folder)
    assert len(pictures) == 6 and pictures.labels == {"label": ["bird", "cat", "dog"]}
    picture, cond = pictures[5]
    assert picture.size == (20, 30) and cond == {"label": 2}


def test_loose_pictures_have_no_labels(folder):
    pictures = open_images(folder / "dog")
    assert len(pictures) == 2 and pictures.labels == {} and pictures[0][1] == {}


def test_a_tenth_is_held_out(tmp_path):
    for i in range(25):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / f"{i:02d}.png")
    train, held = (set(ImageFolder(tmp_path, s).files) for s in ("train", "validation"))
    assert len(train) == 23 and len(held) == 2 and not train & held


def test_unreadable_pictures_are_named_and_skipped_only_when_asked(folder):
    whole = (folder / "dog" / "0.png").read_bytes()
    (folder / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "text.jpg").write_text("no picture")
    with pytest.raises(DataError) as caught:
        open_images(folder)
    for word in ("2 unreadable", "cut.png", "text.jpg", "--skip-unreadable"):
        assert word in str(caught.value)
    pictures = open_images(folder, skip_unreadable=True)
    assert len(pictures) == 6 and {p.name for p in pictures.skipped} == {"cut.png", "text.jpg"}


# ---------------------------------------------------------------- pictures as a viewer shows them

LETTER = np.zeros((30, 20, 3), np.uint8)  # an L: no turn and no mirror leaves it as it is
LETTER[4:26, 4:8] = LETTER[22:26, 4:16] = 255


def read(path, **options):
    """The picture in a file, as grey values."""
    return np.asarray(read_picture(path, str(path), **options).convert("L")).astype(int)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_are_read_upright(tmp_path, suffix, turn):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    turned = {1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
              6: lambda x: np.rot90(x, 1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: lambda x: np.rot90(x, 3)}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    picture = Image.fromarray(np.ascontiguousarray(turned[turn](LETTER)))
    picture.save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    found = read(tmp_path / f"a{suffix}")
    assert found.shape == (30, 20) and np.abs(found - LETTER[..., 0]).mean() < 8


def test_damaged_exif_data_is_passed_over(tmp_path):
    Image.fromarray(LETTER).save(tmp_path / "a.jpg", exif=b"Exif\0\0XX*\0\x08\0\0\0", quality=95)
    assert read(tmp_path / "a.jpg").shape == (30, 20)


RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)


def tiff(path, values, photometric=1):
    Image.fromarray(values).save(path, tiffinfo={262: photometric})
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".jp2"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    Image.fromarray(RAMP * 257).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read(tmp_path / f"a{suffix}"), RAMP)
    dark = (RAMP * 257 // 16).astype(np.uint16)
    Image.fromarray(dark).save(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(read(tmp_path / f"b{suffix}"), np.rint(dark / 257)), "16 bits have their white"
    np.testing.assert_array_equal(np.asarray(open_images(tmp_path)[0][0]), RAMP)


def test_sixteen_bits_with_white_at_zero_and_with_a_clear_value(tmp_path):
    tiff(tmp_path / "a.tif", RAMP * 257, 0)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), 255 - RAMP)
    Image.fromarray(RAMP * 257).save(tmp_path / "a.png", transparency=257)
    picture = read_picture(tmp_path / "a.png", "a")
    assert picture.mode == "LA" and np.asarray(picture)[0, :3].tolist() == [[0, 255], [1, 0], [2, 255]]
    assert np.asarray(fit(picture, 16, 1))[0, 1] == 255, "what is clear lies on white"


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (RAMP.astype(np.int32), 255),
        (RAMP.astype(np.int32) * 257, 65535),
        (RAMP.astype(np.int32) * 0x7F7F7F, 2**31 - 1),
        ((RAMP / 255).astype(np.float32), 1),
        (RAMP.astype(np.float32), 255),
        (RAMP.astype(np.float32) * 257, 65535),
    ],
)
def test_numbers_without_a_white_get_one_for_the_whole_folder_and_it_is_said(tmp_path, values, white):
    tiff(tmp_path / "a.tif", values)
    tiff(tmp_path / "b.tif", (values / 300).astype(values.dtype))
    with pytest.warns(UserWarning, match=rf"values up to .*: white is taken to be {white:.10g}\."):
        pictures = open_images(tmp_path)
    bright, dark = (np.asarray(pictures[i][0]) for i in range(2))
    np.testing.assert_allclose(bright, np.rint(values.astype(float) * 255 / white), atol=1)
    assert dark.max() <= 1, "a dark picture stays dark"


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, 1e9])
def test_numbers_without_a_meaning_are_refused(tmp_path, value):
    tiff(tmp_path / "a.tif", np.array([[0.5, value], [0, 0]], np.float32))
    with pytest.raises(DataError, match=r"a\.tif: values .* holds numbers from 0 to 65535"):
        open_images(tmp_path)


def raw_tiff(path, values):
    """A TIFF of numbers that Pillow does not write."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8 * values.itemsize), (259, 3, 1, 1), (262, 3, 1, 1),
               (273, 4, 1, 200), (277, 3, 1, 1), (278, 3, 1, 16), (279, 4, 1, values.nbytes), (339, 3, 1, kind)]  # fmt: skip
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries) + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + values.tobytes())
    return path


def test_unsigned_numbers_of_32_bits(tmp_path):
    values = (RAMP.astype(np.uint64) * 0x01010101).astype(np.uint32)
    np.testing.assert_array_equal(read(raw_tiff(tmp_path / "a.tif", values)), RAMP)


def test_signed_numbers_have_their_own_white_or_are_refused(tmp_path):
    dark = (RAMP * 64).astype(np.int16)
    np.testing.assert_array_equal(read(raw_tiff(tmp_path / "a.tif", dark)), np.rint(dark * (255 / 32767)))
    with pytest.raises(DataError, match=r"b\.tif: signed numbers of 8 bits"):  # Pillow takes -1 for 255
        read(raw_tiff(tmp_path / "b.tif", (RAMP - 128).astype(np.int8)))
    with pytest.raises(DataError, match=r"c\.tif: not a picture of a kind that is read"):
        read(raw_tiff(tmp_path / "c.tif", RAMP.astype(np.float64)))


@pytest.mark.parametrize("white", [1, 5, 255])
def test_floats_of_a_pfm_are_scaled_not_clipped(tmp_path, white):
    values = (RAMP / 255 * white).astype("<f4")
    (tmp_path / "a.pfm").write_bytes(b"Pf\n16 16\n-1.0\n" + values[::-1].tobytes())
    scale = 1 if white == 1 else 255
    np.testing.assert_array_equal(read(tmp_path / "a.pfm"), np.rint(values * (255 / scale)))
    with pytest.warns(UserWarning, match=f"white is taken to be {scale}"):
        open_images(tmp_path)


def test_every_format_is_read_or_named(tmp_path):
    grey, options = Image.fromarray(LETTER), {name: {"quality": 95} for name in ("JPEG", "WEBP", "AVIF")}
    for name in (n for n, _ in FORMATS.items() if n in Image.SAVE and n not in ("ICNS", "ICO", "DDS", "MPO", "XBM")):
        picture = grey.convert("L") if name in ("PCX",) else grey
        picture.save(tmp_path / f"{name}{FORMATS[name][-1]}", name, **options.get(name, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = open_images(tmp_path)
    names = {p.stem for p in pictures.readable}
    assert {"PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA", "SGI"} <= names
    for path in pictures.readable:
        assert np.abs(read(path) - LETTER[..., 0]).mean() < 8, path


def test_of_a_film_the_first_frame_counts_and_it_is_said(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (10, 200)]
    for suffix in (".gif", ".tif", ".png", ".webp"):
        frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"4 picture.s. have several frames, of which the first counts: .*a\.gif"):
        pictures = open_images(tmp_path)
    assert all(abs(read(p).max() - 10) < 4 for p in pictures.files)


def test_a_picture_starts_no_program_whatever_its_suffix(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("Ghostscript was asked"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(DataError, match=r"a\.png: not a picture"):
        open_images(tmp_path)


def test_every_damaged_byte_is_one_error_or_a_picture(tmp_path):
    """Decoders raise struct.error, IndexError, zlib.error and more, which is none of a user's concern."""
    for suffix in (".png", ".gif", ".tif", ".bmp", ".jpg", ".webp", ".ico", ".qoi"):
        memory = io.BytesIO()
        Image.fromarray(LETTER[:12, :12]).save(memory, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:]))
        whole = memory.getvalue()
        for place in range(0, min(len(whole), 600), 7):
            damaged = bytearray(whole)
            damaged[place] ^= int(rng.integers(1, 256))
            with suppress(DataError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_picture(io.BytesIO(damaged), "a picture")


def test_one_file_says_what_is_meant(tmp_path):
    Image.fromarray(LETTER).save(tmp_path / "one.png")
    with pytest.raises(DataError, match=r"one\.png is one file\. Give a folder of pictures"):
        open_images(tmp_path / "one.png")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: p / "nowhere", "no data at"),
        (lambda p: p, r"holds no \.png"),
        (
            lambda p: (
                Image.new("L", (2, 2)).save(p / "a.png"),
                (p / "c").mkdir(),
                Image.new("L", (2, 2)).save(p / "c" / "b.png"),
                p,
            )[-1],
            "mixes loose",
        ),
    ],
)
def test_wrong_folders(tmp_path, build, message):
    with pytest.raises(DataError, match=message):
        open_images(build(tmp_path))


def test_an_unknown_split(folder):
    with pytest.raises(zoo.ZooError, match="validation"):
        open_images(folder, "dev")


@pytest.mark.data
def test_the_real_files(zoo_data):
    source = zoo_data / "image" / "fashion_mnist.npz"
    train, validation, test = (open_images(source, s) for s in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (55_000, 5_000, 10_000)
    for part in (train, validation, test):
        assert set(np.unique(part.targets)) == set(range(10)) and part.pixels.dtype == np.uint8
    assert np.bincount(np.concatenate([train.targets, validation.targets])).tolist() == [6000] * 10
    assert np.bincount(test.targets).tolist() == [1000] * 10
    assert np.bincount(validation.targets).min() > 400, "the held-out rows are a fair share of every class"

"""Fashion-MNIST in both of its forms, and folders of anybody's pictures."""

import functools
import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.errors import DataError
from zoo.image import data
from zoo.image.data import ImageFolder, download_fashion_mnist, fashion_mnist, open_images

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
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"not gzip", lambda b: gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc")]
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
    threading.Thread(target=running.serve_forever, daemon=True).start()
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

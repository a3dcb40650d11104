"""NPZ archives: what is read, and one error that names file, purpose and fault for everything that is not one."""

import gzip
import io
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from zoo.data.archive import read_archive, read_array, read_gzip
from zoo.errors import DataError

ARRAYS = {"points": np.arange(6.0).reshape(2, 3), "names": np.array(["ann", "bob"]), "rate": np.array(8000)}


@pytest.fixture
def file(tmp_path):
    np.savez_compressed(tmp_path / "good.npz", **ARRAYS)
    return tmp_path / "good.npz"


def refused(path, message, names=("points",)):
    """The file is refused with its name, what it was read as, and `message`."""
    with pytest.raises(DataError, match=message) as caught:
        read_archive(path, names, "an archive of shapes")
    assert str(caught.value).startswith(f"{path} cannot be read as an archive of shapes: ")
    assert str(caught.value).endswith(".") and not str(caught.value).endswith("..")


def test_all_arrays_are_read_or_those_that_are_named_in_their_order(file):
    everything = read_archive(file)
    assert list(everything) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(everything[name], array)
        assert everything[name].dtype == array.dtype
    assert list(read_archive(str(file), ("rate", "points"))) == ["rate", "points"]
    assert read_archive(file, ()) == {}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", [0x110000, 0x7FFFFFFF, 0xD800, 0xDFFF])
def test_text_that_is_no_text_is_refused(tmp_path, code, order):
    """Python can print no such character: the error that quoted it would be lost."""
    codes = np.array([[0x61, 0x10FFFF, 0xE000], [0x62, 0xD7FF, 0]], f"{order}u4")
    np.savez(tmp_path / "text.npz", points=codes.view(f"{order}U3"))
    assert read_archive(tmp_path / "text.npz")["points"].ravel().tolist() == ["a\U0010ffff\ue000", "b\ud7ff"]
    codes[1, 2] = code
    np.savez(tmp_path / "text.npz", points=codes.view(f"{order}U3"))
    refused(tmp_path / "text.npz", f"a character of number {code:,}, which Unicode has not")


def test_an_archive_without_arrays_is_empty(tmp_path):
    np.savez(tmp_path / "none.npz")
    assert read_archive(tmp_path / "none.npz") == {}
    refused(tmp_path / "none.npz", "it lacks points; it has nothing")


def test_arrays_that_are_missing_are_named(file):
    refused(file, "it lacks labels, is_test; it has points, names, rate", ("points", "labels", "is_test"))


def test_a_file_or_a_folder_that_is_not_there(tmp_path):
    refused(tmp_path / "nowhere.npz", "No such file")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", "it is a folder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04 half", "cut off or damaged"),
        (b"PK nothing", "not an NPZ file"),
        (b"plain text", "not an NPZ file"),
        (b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.", "not an NPZ file"),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz", message)


def test_a_single_array_is_not_an_archive(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, ARRAYS["points"])
    refused(tmp_path / "a.npz", r"single array \(NPY\)")


def test_a_truncated_archive(file):
    whole = file.read_bytes()
    for size in (5, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        refused(file, "cut off or damaged")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_damaged_byte_is_one_error_or_harmless(tmp_path, save):
    """The readers below raise zlib.error, NotImplementedError, RuntimeError and more, which is none of a user's concern."""
    memory, path, rng = io.BytesIO(), tmp_path / "a.npz", np.random.default_rng(0)
    save(memory, **ARRAYS)
    whole, errors = memory.getvalue(), []
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_archive(path)
        except DataError as error:
            errors.append(str(error))
    assert len(errors) > len(whole) // 20
    assert all(error.startswith(f"{path} cannot be read as an archive of arrays: ") for error in errors)


def test_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.array([{"a": 1}], dtype=object))
    refused(tmp_path / "a.npz", "points holds Python objects, which can run code")
    refused(tmp_path / "a.npz", "Python objects", None)


def test_a_member_that_is_not_an_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("points.npy", "hello")
    for names in (("points",), None):
        refused(tmp_path / "a.npz", "its member points is not an array", names)


# ---------------------------------------------------------------- headers that declare what cannot be


def member(header: bytes, body: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """An NPY file with a header of one's own."""
    size = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + size + header + body


HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (50000000000,), }\n"
HEADERS = {
    "400 GB": (member(HUGE, bytes(80)), "declares float64 .50000000000,., 400,000,000,000 bytes, and 80 bytes follow"),
    "overflow": (
        member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693952, 8)}\n", bytes(8)),
        "declares",
    ),
    "negative": (member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }\n", bytes(8)), "declares"),
    "wide": (member(b"{'descr': '<U400000000', 'fortran_order': False, 'shape': (), }\n", bytes(8)), "declares"),
    "more": (member(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\n", bytes(80)), "80 bytes follow"),
    "objects": (member(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", bytes(8)), "Python objects"),
    "open bracket": (member(b"{'descr': '<f8', 'fortran_order': False, 'shape': ((((\n", bytes(8)), "."),
    "open string": (member(b"{'descr': '''<f8L, (\n", bytes(8)), "."),
    "deep": (member(b"(" * 9000 + b")" * 900, bytes(8)), "."),
    "long": (member(b" " * 60000 + HUGE, bytes(8)), "."),
    "version": (member(HUGE, bytes(8), b"\3\0"), "version 3.0"),
    "cut": (member(HUGE)[:30], "."),
    "list": (member(b"[1, 2]\n", bytes(8)), "."),
    "type": (member(b"{'descr': 'quark', 'fortran_order': False, 'shape': (1,), }\n", bytes(8)), "."),
}


@pytest.mark.parametrize("name", HEADERS)
def test_odd_headers_are_one_error_and_take_no_memory(tmp_path, name):
    content, message = HEADERS[name]
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", content)
    tracemalloc.start()
    refused(tmp_path / "a.npz", message)
    with pytest.raises(DataError, match=rf"a\.npy cannot be read as a cloud: .*{message}"):
        read_array(tmp_path / "a.npy", "a cloud")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_a_single_array_is_read_and_others_are_refused(tmp_path, file):
    for array in ARRAYS.values():
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)
    for content, message in (
        (b"", "empty"),
        (b"text", "not an NPY"),
        (file.read_bytes(), "not a single array"),
    ):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_array(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"gone\.npy cannot be read as an array: No such file"):
        read_array(tmp_path / "gone.npy")


def test_members_that_no_file_can_hold_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("points.npy", member(HUGE, bytes(80)))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    place = content.index(b"PK\1\2") + 24  # the size in the table of contents
    content[place : place + 4] = b"\xf0\xff\xff\xff"
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz", "its members declare 4,294,967,280 bytes, which a file of .* bytes cannot hold")


def test_two_members_of_one_name_and_other_compressions_are_refused(tmp_path):
    memory = io.BytesIO()
    np.save(memory, np.eye(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("points.npy", memory.getvalue())
    refused(tmp_path / "a.npz", "two of its members have the same name")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("points.npy", memory.getvalue())
    refused(tmp_path / "a.npz", "compressed by a method that NPZ files do not use")


def test_gzip_is_read_whole_or_refused(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"abc" * 99) + gzip.compress(b"more"))
    assert read_gzip(path) == b"abc" * 99 + b"more" == read_gzip(path, 301)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[12] ^= 0xFF
    for content, message in (
        (whole[:-9], "."), (b"text", "Not a gzipped file"), (bytes(damaged), "."), (whole + b"x", "."),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.gz cannot be read as a structure: {message}"):
            read_gzip(path, what="a structure")
    path.write_bytes(gzip.compress(bytes(2**24)))
    tracemalloc.start()
    with pytest.raises(DataError, match="it holds more than 65,536 bytes"):
        read_gzip(path, 2**16)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()

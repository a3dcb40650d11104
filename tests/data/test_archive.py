"""NPZ archives: what is read, and one error that names file, purpose and fault for everything that is not one."""

import io
import zipfile

import numpy as np
import pytest

from zoo.data.archive import read_archive
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
    for place in range(0, len(whole), 2):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_archive(path)
        except DataError as error:
            errors.append(str(error))
    assert len(errors) > len(whole) // 8
    assert all(error.startswith(f"{path} cannot be read as an archive of arrays: ") for error in errors)


def test_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.array([{"a": 1}], dtype=object))
    refused(tmp_path / "a.npz", "allow_pickle=False")
    refused(tmp_path / "a.npz", "allow_pickle=False", None)


def test_a_member_that_is_not_an_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("points.npy", "hello")
    for names in (("points",), None):
        refused(tmp_path / "a.npz", "its member points is not an array", names)

"""The cache of decoded files: the same arrays in every state of it, keyed by content, bounded, and shared."""

import errno
import os
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from zoo import disk
from zoo.data import decoded
from zoo.data.decoded import Entry, Store, prepared
from zoo.errors import ConfigError, DataError

HOW = {"kind": "test", "size": 3}


class Counted:
    """A decoder that counts its calls: the bytes of a file as an array."""

    def __init__(self, **entry):
        self.calls, self.entry = 0, entry

    def __call__(self, data):
        self.calls += 1
        return Entry({"x": np.frombuffer(data, np.uint8), "empty": np.zeros((0, 2), ">f4")}, {"n": len(data)}, **self.entry)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache", 10**8, worth=0)


@pytest.fixture
def source(tmp_path):
    return written(tmp_path / "a.bin", b"hello")


def written(path, data, seconds=100):
    """A file that was last changed so many seconds ago, as far as the cache looks at the clock."""
    path.write_bytes(data)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    """A file is as old as it says: ctime cannot be set."""
    monkeypatch.setattr(decoded, "SETTLED", -1e9)


def again(store):
    """The cache as another process sees it."""
    return Store(store.folder, store.most, worth=0)


def test_what_comes_from_the_cache_is_what_was_made(store, source):
    make = Counted()
    first, second, third = (s.prepared(source, HOW, make) for s in (store, store, again(store)))
    assert make.calls == 1
    for found in (second, third):
        assert found.facts == first.facts == {"n": 5}
        for name, array in first.arrays.items():
            assert np.array_equal(found.arrays[name], array) and found.arrays[name].dtype.newbyteorder(
                "="
            ) == array.dtype.newbyteorder("=")
            assert found.arrays[name].shape == array.shape and not found.arrays[name].flags.writeable


def test_a_large_entry_is_mapped_and_stays_when_its_file_goes(store, tmp_path):
    data = np.random.default_rng(0).integers(0, 256, 2 * decoded.LARGE, np.uint8).tobytes()
    source, make = written(tmp_path / "big", data), Counted()
    store.prepared(source, HOW, make)
    other = again(store)
    found = other.prepared(source, HOW, make)
    assert len(other._mapped) == 1
    for path in store.folder.glob("??/*"):
        path.unlink()
    assert found.arrays["x"].tobytes() == data and other.prepared(source, HOW, make) is found and make.calls == 1


def test_a_file_is_known_by_its_content_wherever_it_lies(store, source, tmp_path):
    make = Counted()
    store.prepared(source, HOW, make)
    (tmp_path / "elsewhere").mkdir()
    moved = source.rename(tmp_path / "elsewhere" / "b.bin")
    copy = written(tmp_path / "copy.bin", b"hello", 5)
    for path in (moved, copy):
        again(store).prepared(path, HOW, make)
    again(store).prepared(b"hello", HOW, make)
    assert make.calls == 1


def test_a_changed_file_of_the_same_size_and_time_is_another(store, source):
    make, before = Counted(), source.stat()
    store.prepared(source, HOW, make)
    source.write_bytes(b"HELLO")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    for found in (store, again(store)):
        assert found.prepared(source, HOW, make).arrays["x"].tobytes() == b"HELLO"
    source.write_bytes(b"hello")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.prepared(source, HOW, make).arrays["x"].tobytes() == b"hello" and make.calls == 2


def test_a_file_that_was_just_written_is_known_by_its_content_alone(store, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "SETTLED", 2.0)
    source, make = tmp_path / "new", Counted()
    source.write_bytes(b"one")
    store.prepared(source, HOW, make)
    assert len(list(store.folder.glob("??/*"))) == 1  # two changes may share one time of the clock: no name by the times
    assert not store._contents
    monkeypatch.setattr(decoded, "SETTLED", -1e9)
    store.prepared(source, HOW, make)
    assert len(list(store.folder.glob("??/*"))) == 2 and make.calls == 1


@pytest.mark.parametrize("other", [{"size": 4}, {"kind": "other"}, {"more": None}])
def test_another_preparation_is_another_entry(store, source, other):
    make = Counted()
    store.prepared(source, HOW, make)
    store.prepared(source, HOW | other, make)
    assert make.calls == 2


def test_another_format_finds_nothing(store, source, monkeypatch):
    make = Counted()
    store.prepared(source, HOW, make)
    monkeypatch.setattr(decoded, "FORMAT", decoded.FORMAT + 1)
    again(store).prepared(source, HOW, make)
    assert make.calls == 2


@pytest.mark.parametrize("damage", ["every byte", "cut", "empty", "longer"])
def test_a_damaged_entry_is_made_again(store, source, damage):
    make = Counted()
    whole = store.prepared(source, HOW, make).arrays["x"]
    path = next(store.folder.glob("??/*"))
    data = path.read_bytes()
    changed = {"cut": [data[:-1], data[:40], data[:7]], "empty": [b""], "longer": [data + b"\0"]}.get(damage)
    for place in range(0, len(data), 7) if changed is None else ():
        changed = [*(changed or []), data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]]
    for k, bad in enumerate(changed):
        path.write_bytes(bad)
        assert np.array_equal(again(store).prepared(source, HOW, make).arrays["x"], whole)
        assert make.calls == k + 2
        path = next(store.folder.glob("??/*"))
        assert path.read_bytes() == data


def test_errors_and_what_hangs_on_more_than_the_file_are_not_kept(store, source, tmp_path):
    def fails(data):
        raise DataError("odd")

    for _ in range(2):
        with pytest.raises(DataError, match="odd"):
            store.prepared(source, HOW, fails)
    make = Counted(keep=False)
    store.prepared(source, HOW, make)
    store.prepared(source, HOW, make)
    assert make.calls == 2
    with pytest.raises(FileNotFoundError):
        store.prepared(tmp_path / "none", HOW, make)


def test_what_is_made_in_no_time_is_not_kept(tmp_path, source):
    cache, make = Store(tmp_path / "cache", 10**8, worth=10), Counted()
    cache.prepared(source, HOW, make)
    cache.prepared(source, HOW, make)
    assert make.calls == 2 and not list(cache.folder.glob("??/*"))


def test_no_cache_makes_the_same(source, store):
    made = prepared(None, source, HOW, Counted())
    assert np.array_equal(made.arrays["x"], store.prepared(source, HOW, Counted()).arrays["x"])
    assert np.array_equal(made.arrays["x"], prepared(None, b"hello", HOW, Counted()).arrays["x"])


# ---------------------------------------------------------------- room


def bytes_of(store):
    return sum(p.stat().st_blocks * 512 for p in {p.stat().st_ino: p for p in store.folder.glob("??/*")}.values())


def fill(store, names, make=None, size=20_000):
    for name in names:
        store.prepared(bytes([name]) * size, HOW, make or Counted())


def ended(store):
    """Let the runs that used the cache have ended."""
    for lease in (store.folder / "runs").iterdir():
        lease.unlink()


def test_the_oldest_entries_of_ended_runs_make_room(tmp_path):
    store = Store(tmp_path / "cache", 200_000, worth=0)
    fill(store, range(7))
    old = list(store.folder.glob("??/*"))
    for k, path in enumerate(sorted(old, key=lambda p: p.stat().st_mtime_ns)):
        os.utime(path, (1000 + k, 1000 + k))
    ended(store)
    other = again(store)
    make = Counted()
    fill(other, [6], make)  # the newest is used by this run: it stays
    fill(other, range(10, 15))
    fill(again(store), [6], make)
    assert make.calls == 0 and bytes_of(store) <= 200_000 and not other.closed
    make = Counted()
    fill(again(store), range(3), make)
    assert make.calls == 3


def test_nothing_that_a_living_run_uses_goes_and_one_line_says_that_no_more_is_kept(tmp_path):
    store = Store(tmp_path / "cache", 200_000, worth=0)
    with pytest.warns(UserWarning, match=r"takes nothing more: it has its 0.0002 GB \(ZOO_CACHE_GB\)") as said:
        fill(store, range(20))
    assert len(said) == 1 and bytes_of(store) <= 200_000
    kept = {p.name for p in store.folder.glob("??/*")}
    other = again(store)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        make = Counted()
        fill(other, range(30, 40), make)
    assert make.calls == 10 and len(said) == 1
    assert {p.name for p in store.folder.glob("??/*")} == kept


def test_a_cache_that_holds_more_than_it_may_says_so_and_not_that_the_disk_is_full(tmp_path):
    fill(Store(tmp_path / "cache", 200_000, worth=0), range(4))
    smaller = Store(tmp_path / "cache", 50_000, worth=0)
    with pytest.warns(UserWarning, match=r"it has its 5e-05 GB \(ZOO_CACHE_GB\)"):
        fill(smaller, [9])


def test_a_cache_that_is_cleared_meanwhile_goes_on(store, source, monkeypatch):
    (store.folder / "ab").mkdir(parents=True)
    monkeypatch.setattr(decoded, "clear_leftovers", shutil.rmtree)  # what comes before a shelf is looked at
    store.prepared(source, HOW, Counted())
    assert not store.closed and list(store.folder.glob("??/*"))


def test_the_lease_of_a_killed_run_is_forgotten(tmp_path):
    store = Store(tmp_path / "cache", 200_000, worth=0)
    fill(store, range(7))
    lease = next((store.folder / "runs").iterdir())
    lease.rename(lease.with_name(f"{disk.host_name()}-{2**22 + 1}-5"))  # no process has such a number
    store = again(store)
    fill(store, range(20, 25))
    assert not store.closed and bytes_of(store) <= 200_000
    assert [p.name.split("-")[1] for p in (store.folder / "runs").iterdir()] == [str(os.getpid())]


@pytest.mark.parametrize("kind", ["no space", "little space", "read only"])
def test_a_disk_without_room_is_one_line_and_no_cache(store, source, monkeypatch, kind):
    if kind == "no space":

        def full(*args, **options):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
    elif kind == "little space":
        monkeypatch.setattr(decoded, "RESERVE", 1 << 60)
    else:
        store.folder.write_bytes(b"")  # a file where the folder should be
    make = Counted()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for k in range(3):
            assert store.prepared(bytes([k]) * 9, HOW, make).facts == {"n": 9}
    assert make.calls == 3 and len(said) == 1 and "All goes on" in str(said[0].message)
    assert store.folder.is_file() or not list(store.folder.glob("??/*"))


def test_a_file_system_without_links_still_has_a_cache(store, source, monkeypatch):
    def none(*args, **options):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", none)
    make = Counted()
    for found in (store, store, again(store)):
        found.prepared(source, HOW, make)
    assert make.calls == 1 and len(list(store.folder.glob("??/*"))) == 1


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    store = Store(tmp_path / "cache", 200_000, worth=0)
    fill(store, [1])
    shelf = next(store.folder.glob("??/*")).parent
    left = shelf / f".zoo-tmp-{disk.host_name()}-{2**22 + 1}-abc"
    left.write_bytes(bytes(1000))
    again(store)._tidy(1)
    assert not left.exists()


# ---------------------------------------------------------------- settings


def test_the_size_is_a_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("ZOO_CACHE_GB", "0.5")
    found = decoded.store()
    assert found.most == 500_000_000 and found.folder == tmp_path / "decoded" and decoded.store() is found
    with decoded.switched_off():
        assert decoded.store() is None
    monkeypatch.setenv("ZOO_CACHE_GB", "0")
    assert decoded.store() is None
    monkeypatch.delenv("ZOO_CACHE_GB")
    assert decoded.store().most == 4_000_000_000
    for odd in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("ZOO_CACHE_GB", odd)
        with pytest.raises(ConfigError, match="ZOO_CACHE_GB"):
            decoded.store()

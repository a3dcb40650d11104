"""A cache of what files decode to, on the disk: `$ZOO_CACHE/decoded`, for every domain whose files are slow to read.

What is kept is what comes before anything random, so nothing random is frozen: a picture at the size of its codec, a
recording as samples. A reader gets the same arrays to the bit whether the cache is cold, warm, full or off.

An entry is named by the content of its source, by how that was prepared, and by the version of this format; so a file that
was moved, copied or renamed has its entry, and one that was changed has another one. To know a file's content all of it has
to be read. That is done once: an entry has a second name (a hard link) by the file's device, inode, size and times, under
which it is found without reading the source. The time of the last change of the inode (ctime) is among them: a program can
set back the time of a file's content, but not this one.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import shutil
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.cache import cache_folder
from zoo.disk import alive, born_at, clear_leftovers, host_name, replacing
from zoo.errors import ConfigError, ResourceError

#: of an entry's layout, and of what every domain puts into its entries: a change of either needs another number
FORMAT = 1
#: gigabytes of all entries together, where $ZOO_CACHE_GB does not say another number
USUAL_GB = 4.0
#: bytes of the disk that stay free: they are for checkpoints
RESERVE = 1 << 30
#: seconds of computing from which on a result is kept: to read an entry takes a tenth of a millisecond
WORTH = 0.001
#: seconds that a file must be unchanged before its times stand for its content: two changes may share one time
SETTLED = 2.0
#: entries of at least so many bytes stay mapped, up to so many at once, and their hash is checked once in a process
LARGE, MAPPED = 1 << 20, 256
#: of the room that is left, the part that is filled before the disk is looked at again
PART = 8
#: days after which a run on another machine, which cannot be asked whether it lives, counts as ended
FOREIGN_DAYS = 7
_DIGEST = 32


@dataclass
class Entry:
    """What a file decodes to.

    Attributes:
        arrays: by name; those that come from the cache cannot be written to.
        facts: what else is known of the file, as JSON.
        keep: False where it must not go to the cache, since it hangs on more than the file's content.
    """

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    keep: bool = True


_off: ContextVar[bool] = ContextVar("zoo_decoded_off", default=False)


@contextmanager
def switched_off() -> Iterator[None]:
    """Datasets that are opened inside the block use no cache."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def store() -> Store | None:
    """The cache of this process, as $ZOO_CACHE and $ZOO_CACHE_GB say now; None where it is off.

    Raises:
        ConfigError: $ZOO_CACHE_GB is no size.
    """
    text = os.environ.get("ZOO_CACHE_GB") or str(USUAL_GB)
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise ConfigError(f"ZOO_CACHE_GB={text!r}: give the gigabytes of the cache of decoded files, 0 for none.")
    return None if _off.get() or size == 0 else _store(cache_folder("decoded"), int(size * 1e9))


_stores: dict[tuple[Path, int], Store] = {}


def _store(folder: Path, most: int) -> Store:
    """One for each folder, so that all datasets of a process share what they know of it."""
    return _stores.setdefault((folder, most), Store(folder, most))


def prepared(
    cache: Store | None, source: Path | bytes, preparation: Mapping[str, Any], make: Callable[[bytes], Entry]
) -> Entry:
    """What a file, or its bytes, decode to: from the cache, or made and then kept there.

    Args:
        cache: None for none.
        preparation: all that the result hangs on beside the content, as JSON: {"kind": "picture", "size": 64, ...}.
        make: decodes; its errors go to the caller, and nothing is kept.

    Raises:
        OSError: the file cannot be read.
    """
    if cache is None:
        return make(source if isinstance(source, bytes) else source.read_bytes())
    return cache.prepared(source, preparation, make)


def known(cache: Store | None, source: Path, preparation: Mapping[str, Any]) -> Entry | None:
    """What `prepared` kept of a file, found without reading it; None where there is nothing, or the file has to be read."""
    return None if cache is None else cache.known(source, preparation)


class Store:
    """Entries in a folder, of at most so many bytes together.

    Several processes and runs may use one at once: entries appear whole or not at all, and no two write different things
    under one name. Where there is no room, entries that no living run has used go, the oldest first; where that is not
    enough, nothing more is kept, and one line says so. A damaged entry is made again.

    Args:
        most: bytes.
        worth: seconds of computing from which on a result is kept.
    """

    def __init__(self, folder: Path, most: int, worth: float = WORTH) -> None:
        self.folder, self.most, self.worth = folder, most, worth
        self.closed = ""  # why nothing more is written
        self.hits = self.misses = 0
        self._spare = 0  # bytes that may be written before the folder is looked at again
        self._leased = False
        self._used: set[int] = set()
        self._mapped: OrderedDict[str, tuple[mmap.mmap, Entry]] = OrderedDict()
        self._checked: set[tuple[str, int, int]] = set()  # large entries whose hash was right
        self._contents: dict[tuple[int, ...], str] = {}  # {file as it was: hash of its content}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.folder, self.most, self.worth)  # to another process without what is open

    def known(self, source: Path, preparation: Mapping[str, Any]) -> Entry | None:
        """As `zoo.data.decoded.known`."""
        how = json.dumps([FORMAT, preparation], sort_keys=True)
        try:
            about = _about(source)
        except OSError:  # who reads the file says what is wrong
            return None
        content = self._contents.get(about)
        return self._read(_name("file", *about, how), how) or (
            self._read(_name("content", content, how), how) if content else None
        )

    def prepared(self, source: Path | bytes, preparation: Mapping[str, Any], make: Callable[[bytes], Entry]) -> Entry:
        """As `zoo.data.decoded.prepared`."""
        how = json.dumps([FORMAT, preparation], sort_keys=True)
        about: tuple[int, ...] = ()
        alias = ""
        if isinstance(source, Path):
            about = _about(source)
            alias = _name("file", *about, how)
            if found := self.known(source, preparation):
                return found
        data = source if isinstance(source, bytes) else source.read_bytes()
        content = hashlib.sha256(data).hexdigest()
        # what was read is what the file's times stand for only where nobody wrote to it meanwhile, or just before
        if isinstance(source, Path) and (_about(source) != about or time.time() - max(about[3:]) / 1e9 < SETTLED):
            about, alias = (), ""
        if about:
            self._contents[about] = content
        name = _name("content", content, how)
        found = self._read(name, how)
        if found is None:
            start = time.thread_time()
            found = make(data)
            if not found.keep or time.thread_time() - start < self.worth:
                return found
            with self._lock:
                self.misses += 1
            self._write(name, how, found)
        if alias and not self.closed:
            with suppress(OSError):  # there already, or a file system without links: the source is read and hashed again
                self._path(alias).parent.mkdir(parents=True, exist_ok=True)
                os.link(self._path(name), self._path(alias))
        return found

    # ------------------------------------------------------------ one entry

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _read(self, name: str, how: str) -> Entry | None:
        """The entry of a name; None where there is none, or a damaged one, which is removed."""
        with self._lock:
            if name in self._mapped:
                self._mapped.move_to_end(name)
                self.hits += 1
                return self._mapped[name][1]
        path = self._path(name)
        try:
            with path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_size < LARGE:
                    data: bytes | mmap.mmap = file.read()
                else:
                    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        version = name, about.st_ino, about.st_size
        entry = _unpacked(data, how, trusted=version in self._checked)
        if entry is None:
            with suppress(OSError):
                path.unlink()
            return None
        self._use(name, path)
        with self._lock:
            self.hits += 1
            if isinstance(data, mmap.mmap):
                self._checked.add(version)
                self._mapped[name] = data, entry
                while len(self._mapped) > MAPPED:
                    self._mapped.popitem(last=False)  # arrays that are still in use keep their map
        return entry

    def _write(self, name: str, how: str, entry: Entry) -> None:
        """Keep an entry, if there is room."""
        data = _packed(entry, how)
        try:
            self._lease()
            if not self._room(len(data)):
                return
            with replacing(self._path(name), sync=False) as temporary:
                temporary.write_bytes(data)
        except (OSError, ResourceError) as error:
            self._close(str(error).rstrip("."))

    def _close(self, why: str) -> None:
        """Write nothing more; what is there is still read."""
        with self._lock:
            if self.closed:
                return
            self.closed = why
        warnings.warn(
            f"the cache of decoded files in {self.folder} takes nothing more: {why}. All goes on, slower.", stacklevel=2
        )

    # ------------------------------------------------------------ room, and who uses what

    def _lease(self) -> None:
        """Say that this process uses entries from now on: a file whose time is that of the beginning.

        Processes that it starts are covered by it: they end before it.
        """
        if self._leased:
            return
        runs = self.folder / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (runs / f"{host_name()}-{os.getpid()}-{born_at(os.getpid()) or 0}").touch(exist_ok=False)
        self._leased = True

    def _use(self, name: str, path: Path) -> None:
        """Note in the entry's time that it is in use, once in a process."""
        number = int(name[:16], 16)
        if number in self._used:
            return
        self._used.add(number)
        with suppress(OSError):  # a cache that can only be read
            self._lease()
            os.utime(path)

    def _room(self, size: int) -> bool:
        """Whether `size` more bytes may be written; from time to time this looks at the folder, and makes room."""
        with self._lock:
            if self.closed:
                return False
            if size <= self._spare:
                self._spare -= size
                return True
        left = self._tidy(size)
        if left < size:
            full = (
                f"the disk has less than {RESERVE / 1e9:.0f} GB left"
                if left < 0
                else f"it has its {self.most / 1e9:g} GB (ZOO_CACHE_GB)"
            )
            self._close(full)
            return False
        with self._lock:
            self._spare = max(0, left // PART - size)
        return True

    def _tidy(self, wanted: int) -> int:
        """Make room for `wanted` bytes and more; returns how many there are, below 0 where the disk has none."""
        entries: dict[tuple[int, int], tuple[float, int, list[Path]]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        for shelf in [self.folder / name for name in os.listdir(self.folder) if len(name) == 2]:
            clear_leftovers(shelf)
            names = list[str]()
            with suppress(FileNotFoundError, NotADirectoryError):  # others may clear the folder at this moment
                names = os.listdir(shelf)
            for path in (shelf / name for name in names):
                with suppress(OSError):
                    about = path.lstat()
                    known = entries.setdefault((about.st_dev, about.st_ino), (about.st_mtime, _blocks(about), []))
                    known[2].append(path)
        total = sum(size for _, size, _ in entries.values())
        free = shutil.disk_usage(self.folder).free - RESERVE
        if min(self.most - total, free) < wanted:
            begun = self._oldest_run()
            for used, size, paths in sorted(entries.values(), key=lambda e: e[0]):
                # a tenth more than is needed, so that not every entry asks again
                if used >= begun or min(self.most - total, free) >= wanted + self.most // 10:
                    break
                for path in paths:
                    with suppress(OSError):
                        path.unlink()
                total, free = total - size, free + size
        return -1 if free < wanted else max(0, min(self.most - total, free))

    def _oldest_run(self) -> float:
        """When the oldest run that lives began to use entries; those of ended ones are forgotten."""
        oldest = math.inf
        with suppress(OSError):
            for lease in os.scandir(self.folder / "runs"):
                host, _, process = lease.name.partition("-")
                pid, _, born = process.partition("-")
                with suppress(OSError, ValueError):
                    since = lease.stat().st_mtime
                    if host == host_name():
                        lives = alive(int(pid), int(born) or None)
                    else:
                        lives = time.time() - since < FOREIGN_DAYS * 86400
                    if lives:
                        oldest = min(oldest, since)
                    else:
                        os.unlink(lease.path)
        return oldest


def _about(path: Path) -> tuple[int, ...]:
    """What tells a file, as it is now, from all others without reading it."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _blocks(about: os.stat_result) -> int:
    """Bytes that a file takes of the disk."""
    return max(about.st_size, 512 * getattr(about, "st_blocks", 0))


def _name(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


# ---------------------------------------------------------------- the bytes of an entry


def _packed(entry: Entry, how: str) -> bytes:
    """An entry as bytes: the SHA-256 of all that follows, the length of a header, the header as JSON, the arrays."""
    parts, places, end = list[bytes](), dict[str, Any](), 0
    for name, array in entry.arrays.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}: an array of {array.dtype} is not kept.")
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        places[name] = [little.dtype.str, list(array.shape), end]
        parts += [little.tobytes(), bytes(-little.nbytes % 64)]
        end += little.nbytes + -little.nbytes % 64
    header = json.dumps({"how": how, "arrays": places, "facts": entry.facts}).encode()
    header += b" " * (-(len(header) + _DIGEST + 8) % 64)
    body = b"".join([len(header).to_bytes(8, "little"), header, *parts])
    return hashlib.sha256(body).digest() + body


def _unpacked(data: bytes | mmap.mmap, how: str, *, trusted: bool = False) -> Entry | None:
    """The entry of `_packed`, its arrays in `data` itself; None for what is damaged or was prepared in another way.

    Args:
        trusted: its hash was checked before.
    """
    view = memoryview(data)
    if len(view) < _DIGEST + 8 or not (trusted or hashlib.sha256(view[_DIGEST:]).digest() == view[:_DIGEST]):
        return None
    start = _DIGEST + 8 + int.from_bytes(view[_DIGEST : _DIGEST + 8], "little")
    header = json.loads(bytes(view[_DIGEST + 8 : start]))
    if header["how"] != how:
        return None
    arrays = {}
    for name, (dtype, shape, place) in header["arrays"].items():
        array = np.frombuffer(data, dtype, math.prod(shape), start + place).reshape(shape)
        array.flags.writeable = False
        arrays[name] = array
    return Entry(arrays, header["facts"])

"""The disk: files and folders that appear whole or not at all, strict JSON, hashes. Loads no torch."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from zoo.errors import CheckpointError, ConfigError, DataError, ResourceError

CONFIG = "config.json"
#: of a training run: everything that its next step depends on
CHECKPOINT = "checkpoint.safetensors"
#: a save of a folder that is whole, but whose files are not all in their places yet
SAVED = ".zoo-saved"
#: the key of hashes, in JSON and in the metadata of safetensors
HASH = "sha256"

BLOCK = 1 << 20
#: more than any file of zoo has: a larger one is not read into memory (bytes)
MOST_JSON = 64 << 20


# ---------------------------------------------------------------- writing


def path_of(value: Any, name: str) -> Path:
    """A path as users give it.

    Args:
        name: of the argument, for the error.

    Raises:
        ConfigError: neither a text nor a path, or a text that no path can be.
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(text := os.fspath(value), str) or "\0" in text:
        raise ConfigError(f"{name}={value!r}: give a path, as a text or a pathlib.Path.")
    return Path(text)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a refused write into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(f"no room on the disk to write {path}. Nothing was changed there; free some space.") from error
        raise ResourceError(f"cannot write {path}: {error.strerror or error}. Nothing was changed there.") from error


#: names of temporary files and folders say whose they are: host and process
_TEMPORARY = re.compile(r"\.zoo-tmp-([0-9a-f]{8})-([0-9]+)-[0-9a-f]+(?:\..*)?")
_ours: set[str] = set()


def host_name() -> str:
    """This machine, as eight hex digits: a name that any file name may hold."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _temporary(folder: Path, suffix: str = "") -> Path:
    """A new name in a folder, for something that is not whole yet."""
    name = f".zoo-tmp-{host_name()}-{os.getpid()}-{os.urandom(6).hex()}{suffix}"
    _ours.add(name)
    return folder / name


def born_at(pid: int) -> int | None:
    """When a process started, in the kernel's clock; 0 for one that has ended, None where that cannot be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:
        return 0 if Path("/proc/self/stat").exists() else None
    except OSError:
        return None
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(pid: int, born: object = None) -> bool:
    """Whether a process of this machine lives; with `born`, whether it is still the same one."""
    found = born_at(pid)
    if found is not None:
        return found != 0 and born in (None, found)
    if os.name == "nt":
        return True  # where asking would end it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # of another user
    return True


def clear_leftovers(folder: Path) -> None:
    """Remove what processes of this machine were writing into a folder when they were killed."""
    with suppress(OSError):
        for path in folder.glob(".zoo-tmp-*"):
            found = _TEMPORARY.fullmatch(path.name)
            if found is None or found[1] != host_name() or path.name in _ours:
                continue
            pid = int(found[2])
            if pid != os.getpid() and alive(pid):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk; file systems that cannot do that are left alone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folders
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """The name of a new file beside `path`, with its suffix, that takes its place when the block ends well.

    A reader sees the old file or the new one, never a part; after an error the old one stays, and nothing else is left.

    Args:
        sync: wait until the disk has it; without, a sudden end of power may leave a damaged file.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path.parent, path.suffix)
        try:
            yield temporary
            if sync:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
            if sync:
                sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            _ours.discard(temporary.name)


@contextmanager
def saving(path: Path) -> Iterator[Path]:
    """As `replacing`, for a file that somebody names himself: its folder must be there, or the name is a mistake."""
    if not path.parent.is_dir():
        raise DataError(f"cannot save {path}: there is no folder {path.parent}. Make it first.")
    with replacing(path) as temporary:
        yield temporary


def write_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        for part in parts:
            file.write(part)


def dump_json(data: Any) -> bytes:
    """Readable JSON that is the same for the same data."""
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


# ---------------------------------------------------------------- reading


def opened(path: Path) -> BinaryIO:
    """A file, open to be read. What is none is an OSError: a pipe may be waited for without end, a device may have none."""
    if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):  # a folder has an error of its own
        raise OSError(errno.EINVAL, "it is a device, pipe or socket, not a file", str(path))
    return path.open("rb")


# ---------------------------------------------------------------- JSON


def parse_json(text: str | bytes, what: object, *, infinite: bool = False) -> Any:
    """Strict JSON: UTF-8, no key twice in an object, only finite numbers, not nested without end.

    Args:
        what: the file, or what else it is, for the error.
        infinite: take Infinity and -Infinity, which JSON does not have and other people's files do.

    Raises:
        CheckpointError: anything else.
    """

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [k for k, _ in found]
        if len(set(keys)) < len(keys):
            raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
        return dict(found)

    def constant(name: str) -> float:
        if infinite and name != "NaN":
            return float(name)
        raise ValueError(f"{name} is not a number of JSON")

    def real(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise ValueError(f"{digits[:20]} is too large a number")
        return number

    def whole(digits: str) -> int:
        if len(digits) > 40:
            raise ValueError(f"{digits[:20]}... is too large a number")
        return int(digits)

    try:
        plain = text.decode("utf-8") if isinstance(text, bytes) else text
        data = json.loads(plain, object_pairs_hook=pairs, parse_constant=constant, parse_float=real, parse_int=whole)
        json.dumps(data, ensure_ascii=False).encode()  # half a character, written as an escape, cannot be encoded
        return data
    except RecursionError:
        raise CheckpointError(f"{what} cannot be read as JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise CheckpointError(f"{what} cannot be read as JSON: {error}.") from error


def read_json(path: Path, *, infinite: bool = False) -> Any:
    """The strict JSON of a file; see `parse_json`.

    Raises:
        CheckpointError: missing, unreadable, or of another kind.
    """
    return parse_json(_read(path), path, infinite=infinite)


def _read(path: Path) -> bytes:
    try:
        with opened(path) as file:
            data = file.read(MOST_JSON + 1)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(data) > MOST_JSON:
        raise CheckpointError(f"{path} has more than {MOST_JSON >> 20} MB: it is not a file of zoo.")
    return data


# ---------------------------------------------------------------- hashes


def hash_of(path: Path) -> str:
    """The SHA-256 of a file, in hex digits; a file that is missing or cannot be read is a CheckpointError."""
    found = hashlib.sha256()
    try:
        with opened(path) as file:
            while block := file.read(BLOCK):
                found.update(block)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the folder is not complete.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    return found.hexdigest()


def seal(data: Mapping[str, Any], own: str, hashes: Mapping[str, str]) -> bytes:
    """JSON that carries the hashes of other files, and under its own name that of itself without this one line.

    Args:
        data: the content, without hashes.
        own: name of the file that this is for.
        hashes: {name of another file of the folder: its SHA-256}.
    """
    body = {k: v for k, v in data.items() if k != HASH}
    found = dict(sorted(hashes.items()))
    digest = hashlib.sha256(dump_json(body | {HASH: found})).hexdigest()
    return dump_json(body | {HASH: {own: digest} | found})


def read_sealed(path: Path, newest: int) -> tuple[dict[str, Any], dict[str, str] | None]:
    """JSON as `seal` writes it, checked byte for byte, and the hashes of the files beside it; None where it has none.

    Args:
        newest: the largest `format_version` that is known; format 1 has no hashes.

    Raises:
        CheckpointError: it is not JSON of an object, or not as it was written.
    """
    raw = _read(path)
    data = parse_json(raw, path)
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a file of zoo: it holds no JSON object.")
    version = data.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise CheckpointError(f"{path} is not a zoo config: its format_version is {version!r}, not a whole number.")
    if version > newest:
        raise CheckpointError(
            f"{path} has format version {version}; this zoo reads up to {newest}. Upgrade: pip install -U diffusion-zoo."
        )
    if version < 1 or (version == 1) != (HASH not in data):
        raise CheckpointError(f"{path} is damaged: format version {version} {'with' if HASH in data else 'without'} hashes.")
    if version == 1:
        return data, None
    hashes = data.pop(HASH)
    known = isinstance(hashes, dict) and all(isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) for v in hashes.values())
    if not known or path.name not in hashes:
        raise CheckpointError(f"{path} is damaged: its {HASH} holds no hashes.")
    del hashes[path.name]
    # bytes, not content: spaces, escapes and the order of keys count, too
    if seal(data, path.name, hashes) != raw:
        raise CheckpointError(
            f"{path} is damaged: it is not as it was saved (another SHA-256). Get the folder again; if you changed it on "
            f"purpose, write its hashes anew: zoo.files.reseal({str(path)!r})."
        )
    return data, hashes


def reseal(path: str | Path, names: Sequence[str] | None = None, **change: Any) -> Path:
    """Write the hashes of a folder's files anew, for what was changed on purpose: loading then takes it as it is.

    Args:
        path: the JSON file that holds the hashes.
        names: of the files beside it; default: those that it names.
        **change: keys of the JSON that become something else.
    """
    path = Path(path)
    data = read_json(path)
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a file of zoo: it holds no JSON object.")
    known = names if names is not None else [k for k in data.get(HASH, ()) if k != path.name]
    write_atomic(path, seal(data | change, path.name, {k: hash_of(path.parent / k) for k in known}))
    return path


def check_hash(path: Path, digest: str) -> None:
    """Refuse a file whose content has another SHA-256."""
    if hash_of(path) != digest:
        raise CheckpointError(f"{path} is damaged: it is not the file that was saved (another SHA-256). Get the folder again.")


# ---------------------------------------------------------------- folders


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files replace those of `folder`, all or none, when the block ends well.

    The files become those of `folder` by one rename, to `SAVED`; from there they take their places. A process that is killed
    before it leaves the old files, one that is killed after it the new ones: `settle` finishes the moves.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"cannot save a model to {folder}: it is a file. Give a folder.")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        settle(folder)
        clear_leftovers(folder)
        with temporary_folder(folder) as temporary:
            yield temporary
            for path in temporary.rglob("*"):
                name = path.relative_to(temporary)
                if (folder / name).is_dir() and not path.is_dir():
                    raise CheckpointError(f"cannot save a model to {folder}: {name} is a folder there. Remove it.")
                if (folder / name).is_file() and path.is_dir():
                    raise CheckpointError(f"cannot save a model to {folder}: {name} is a file there. Remove it.")
                if path.is_dir():
                    sync_folder(path)
            sync_folder(temporary)
            _commit(temporary, folder)
    settle(folder)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder in `folder` for the time of the block. One that a killed process leaves is known by `clear_leftovers`."""
    temporary = _temporary(folder)
    try:
        temporary.mkdir()
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _ours.discard(temporary.name)


def _commit(temporary: Path, folder: Path) -> None:
    """Make a temporary folder the saved one; another save that is not in place yet is put there first."""
    for _ in range(100):
        try:
            os.rename(temporary, folder / SAVED)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            settle(folder)
    else:
        raise ResourceError(f"cannot write {folder}: other processes save there all the time.")
    with suppress(OSError):  # it is there; whether a sudden end of power keeps it is all that is open
        sync_folder(folder)


def settle(folder: Path) -> None:
    """Finish a save that was whole when its process ended: its files take their places. Most times there is nothing to do.

    Raises:
        CheckpointError: the save is a link: what is behind it is not of this folder, and would be taken from there.
        ResourceError: the folder cannot be written.
    """
    saved = folder / SAVED
    if saved.is_symlink():
        raise CheckpointError(f"{saved} is a link, which no save of zoo makes: what it leads to stays there. Remove the link.")
    if not saved.is_dir():
        return
    try:
        # others may do the same at this moment: each file is moved once, and all of them are then in place
        found = set(saved.rglob("*"))
        folders = {path for path in found if path.is_dir() and not path.is_symlink()}
        for path in sorted(found - folders, key=lambda p: p.name == CONFIG):
            place = folder / path.relative_to(saved)
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                os.replace(path, place)
        sync_folder(folder)
        with suppress(OSError):  # it is gone, or it is the next save
            for path in [*sorted(folders, reverse=True), saved]:
                path.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ResourceError(
            f"{folder} holds a model that was saved whole, but its files cannot be put into their places from {SAVED}: "
            f"{error.strerror or error}. Make the folder writable, or give room, and read it again."
        ) from error

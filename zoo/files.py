"""Files, in and out: atomic writes, JSON, safetensors, hashes. Strict to read; knows no model, only the names of its files.

JSON and safetensors only: nothing here can run code from a file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.errors import CheckpointError, ResourceError
from zoo.values import parse_json

CONFIG, WEIGHTS, GOLDEN, CARD = "config.json", "model.safetensors", "golden.safetensors", "README.md"
#: a save of a folder that is whole, but whose files are not all in their places yet
SAVED = ".zoo-saved"
#: the key of hashes, in JSON and in the metadata of safetensors
HASH = "sha256"

_BLOCK = 1 << 20
_BLANK = "0" * 64
#: more than any file of zoo has: a larger one is not read into memory (bytes)
MOST_JSON, MOST_HEADER = 64 << 20, 32 << 20


# ---------------------------------------------------------------- writing


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


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _temporary(folder: Path, suffix: str = "") -> Path:
    """A new name in a folder, for something that is not whole yet."""
    name = f".zoo-tmp-{_host()}-{os.getpid()}-{secrets.token_hex(6)}{suffix}"
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
            if found is None or found[1] != _host() or path.name in _ours:
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
def replacing(path: Path) -> Iterator[Path]:
    """The name of a new file beside `path`, with its suffix, that takes its place when the block ends well.

    A reader sees the old file or the new one, never a part; after an error the old one stays, and nothing else is left.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path.parent, path.suffix)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            _ours.discard(temporary.name)


def write_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        for part in parts:
            file.write(part)


def dump_json(data: Any) -> bytes:
    """Readable JSON that is the same for the same data."""
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


# ---------------------------------------------------------------- JSON


def read_json(path: Path) -> Any:
    """The strict JSON of a file; see `zoo.values.parse_json`.

    Raises:
        CheckpointError: missing, unreadable, or of another kind.
    """
    return parse_json(_read(path), path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
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
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
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
        raise CheckpointError(f"{path} is not a file of zoo: its format_version is {version!r}, not a whole number.")
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


# ---------------------------------------------------------------- safetensors


def plain_name(key: str) -> str:
    """The name of a parameter without what `torch.compile` puts into it."""
    return key.replace("_orig_mod.", "")


def state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """The state of a module under the names that it has where it is not compiled."""
    return {plain_name(k): v for k, v in module.state_dict().items()}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Tensors to a safetensors file, atomically."""
    write_atomic(path, save(_plain(tensors), metadata))


def save_sealed(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Tensors to a safetensors file whose metadata hold the hash of all its bytes, with zeros for the hash's own digits."""
    data = memoryview(save(_plain(tensors), {**metadata, HASH: _BLANK}))
    place = bytes(data[: 8 + int.from_bytes(data[:8], "little")]).index(_own_hash(_BLANK)) + len(_own_hash(""))
    digest = hashlib.sha256(data).hexdigest().encode()
    write_atomic(path, data[: place - 1], digest, data[place - 1 + len(digest) :])


def _own_hash(digest: str) -> bytes:
    return f'"{HASH}":"{digest}"'.encode()


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def load_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, str], bool]:
    """Tensors and metadata of a file of `save_sealed`, its hash checked, and whether it has one: older files have none."""
    digest = load_metadata(path).get(HASH)
    if digest is not None:
        found, text = hashlib.sha256(), _own_hash(digest)
        with path.open("rb") as file:
            length = file.read(8)
            header = file.read(int.from_bytes(length, "little"))
            if len(digest) != 64 or header.count(text) != 1:
                raise CheckpointError(f"{path} is damaged: its metadata hold no hash of it.")
            found.update(length)
            found.update(header.replace(text, _own_hash(_BLANK)))
            while block := file.read(_BLOCK):
                found.update(block)
        if found.hexdigest() != digest:
            raise CheckpointError(f"{path} is damaged: it is not the file that was saved (another SHA-256).")
    tensors, metadata = load_tensors_metadata(path)
    if metadata.pop(HASH, None) != digest:
        raise CheckpointError(f"{path} was replaced while it was read. Read it again.")
    return tensors, metadata, digest is not None


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; anything else there is a CheckpointError."""
    return load_tensors_metadata(path)[0]


def load_tensors_metadata(path: Path, *, mapped: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and the metadata of their file.

    Args:
        mapped: leave the tensors in the file, for one who copies them at once: a change on the disk shows in them.
    """
    with _opened(path) as file:
        found = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  # not a dict
        return found if mapped else {k: v.clone() for k, v in found.items()}, file.metadata() or {}


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file alone: no tensor is read."""
    with _opened(path) as file:
        return file.metadata() or {}


def load_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a safetensors file's tensors, from its header alone."""
    with _opened(path) as file:
        return {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118  # not a dict


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file; one that is not there, not whole or of another kind is a CheckpointError."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
            size = os.fstat(file.fileno()).st_size
        # a safetensors file starts with the length of its header, whose bytes may be a pickle's mark; then comes the header
        if start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
            raise CheckpointError(f"{path} is a pickle, which can run code: zoo never opens one. Convert it to safetensors.")
        if MOST_HEADER < (header := int.from_bytes(start[:8], "little")) < size:
            raise CheckpointError(f"{path} has a header of {header} bytes, more than any model needs: it is not read.")
        with safe_open(path, "pt") as tensors:
            yield tensors
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the model folder is not complete.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or is not a safetensors file ({error}). Get it again.") from error
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        # of a shape that no memory holds, or a dtype that this torch does not have
        raise CheckpointError(f"{path} holds a tensor that cannot be read ({error}). Get it again.") from error


#: what weights may be stored as: anything else is refused, narrower numbers are no weights of zoo
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_strict(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path, *, exact: bool = False) -> None:
    """Fill a module; a missing or extra key, a wrong shape or kind of number is an error that names it.

    Args:
        exact: take only the module's own dtypes; else half precision is widened, and double precision narrowed.
    """
    own = module.state_dict()
    names = {plain_name(k): k for k in own}
    given = {plain_name(k): v for k, v in tensors.items()}
    check_tensors(given, {k: own[names[k]] for k in names}, path, exact=exact)
    filled = {names[k]: v.to(own[names[k]].dtype) for k, v in given.items()}
    check_finite(filled, path)
    module.load_state_dict(filled)


def check_tensors(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path, *, exact: bool = False) -> None:
    """Refuse tensors of other names, shapes or kinds of numbers than `own`; all that is wrong is one error."""
    problems = [f"missing {k}" for k in own.keys() - tensors.keys()]
    problems += [f"unexpected {k}" for k in tensors.keys() - own.keys()]
    for k in own.keys() & tensors.keys():
        found, needed = tensors[k], own[k]
        if found.shape != needed.shape:
            problems.append(f"{k} has shape {tuple(found.shape)}, the model needs {tuple(needed.shape)}")
        elif found.dtype != needed.dtype and (exact or not {found.dtype, needed.dtype} <= set(FLOATS)):
            widths = "" if exact or needed.dtype not in FLOATS else " (or another of float16 to float64)"
            problems.append(f"{k} has dtype {_dtype(found)}, the model needs {_dtype(needed)}{widths}")
    if problems:
        shown = "; ".join(sorted(problems)[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{path} does not fit its {CONFIG}: {shown}.")


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse infinities and NaN."""
    for key, value in tensors.items():
        if not _finite(value):
            raise CheckpointError(f"{path}: {plain_name(key)} holds values that are not finite.")


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _finite(x: Tensor) -> bool:
    """Whether all values are finite. A sum tells it in one pass; one that overflows is looked at again, value by value."""
    if not x.is_floating_point() and not x.is_complex():
        return True
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())


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
        temporary = _temporary(folder)
        temporary.mkdir()
        try:
            yield temporary
            for path in temporary.iterdir():
                if (folder / path.name).is_dir():
                    raise CheckpointError(f"cannot save a model to {folder}: {path.name} is a folder there. Remove it.")
            sync_folder(temporary)
            _commit(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            _ours.discard(temporary.name)
    settle(folder)


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
        ResourceError: the folder cannot be written.
    """
    saved = folder / SAVED
    if not saved.is_dir():
        return
    try:
        # others may do the same at this moment: each file is moved once, and all of them are then in place
        for path in sorted(saved.iterdir(), key=lambda p: p.name == CONFIG):
            with suppress(FileNotFoundError):
                os.replace(path, folder / path.name)
        sync_folder(folder)
        with suppress(OSError):  # it is gone, or it is the next save
            saved.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ResourceError(
            f"{folder} holds a model that was saved whole, but its files cannot be put into their places from {SAVED}: "
            f"{error.strerror or error}. Make the folder writable, or give room, and read it again."
        ) from error

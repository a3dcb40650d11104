"""Archives of arrays (NPZ), single arrays (NPY) and gzip: one way to read them, and one error for what is wrong with a file.

Nothing is allocated because a header says so: what it declares is compared with what the file can hold first.
"""

from __future__ import annotations

import gzip
import math
import sys
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from zoo.disk import opened
from zoo.errors import DataError

#: how a zip archive starts: with its first member, or empty
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
NPY = b"\x93NUMPY"
#: bytes that one byte of deflate can stand for, at most (zlib's own figure, which no valid stream exceeds)
DEFLATE = 1032
#: characters of an NPY header, which says type and shape (128 as a rule): numpy takes seconds to give up on a long odd one
HEADER = 1000
#: the first and the last of the numbers that stand for halves of characters in UTF-16, and are none
SURROGATES = (0xD800, 0xDFFF)


def read_archive(
    path: str | Path, names: Sequence[str] | None = None, what: str = "an archive of arrays"
) -> dict[str, NDArray[Any]]:
    """Arrays of an NPZ file. Pickled objects are never loaded: they can run code.

    Args:
        path: the file.
        names: of the arrays to read, all of which the file must have; default: all that are in it.
        what: the file is expected to be, in words, for the error ("Fashion-MNIST").

    Returns:
        {name: array}, in the order of `names`, or in that of the file.

    Raises:
        DataError: a missing, damaged or foreign file, an array that is missing, or one of Python objects. The message names
            the file, `what` it was read as, and what is missing or wrong.
    """
    path, wanted = Path(path), None if names is None else list(names)
    try:
        return _read(path, wanted)
    except Exception as error:  # the readers of zip, of its compressions and of numpy raise whatever a damaged byte led to
        raise _refused(path, what, error) from error


def member_names(path: str | Path) -> list[str]:
    """The names of the arrays of an NPZ file; none of a file that is not one. No array is read."""
    try:
        with opened(Path(path)) as file, zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception:  # the reader of zip raises whatever a damaged byte led to; who reads the file is told what
        return []


def read_array(path: str | Path, what: str = "an array") -> NDArray[Any]:
    """The array of an NPY file; arguments and errors as `read_archive`."""
    path = Path(path)
    try:
        with opened(path) as file:
            start = file.read(6)
            if start != NPY:
                raise DataError(
                    "it is an archive (NPZ), not a single array (NPY)" if start[:4] in ZIP else _foreign(start, "NPY")
                )
            file.seek(0)
            _check_header(file, path.stat().st_size)
            file.seek(0)
            return _array(file)
    except Exception as error:  # as above
        raise _refused(path, what, error) from error


def read_gzip(path: str | Path, most: int = 2**30, what: str = "a gzip file") -> bytes:
    """What a gzip file holds, whole.

    Args:
        most: bytes; a file of more is refused before they are in memory: a few kB can stand for as many GB.

    Raises:
        DataError: a missing, damaged or foreign file, or one of more than `most` bytes.
    """
    path = Path(path)
    try:
        with opened(path) as packed, gzip.open(packed) as file:
            data = file.read(most)
            if file.read(1):
                raise DataError(f"it holds more than {most:,} bytes")
    except Exception as error:  # zlib.error, EOFError and OSError
        raise _refused(path, what, error) from error
    return data


def _refused(path: Path, what: str, error: Exception) -> DataError:
    """The one error for a file that cannot be read as `what`."""
    reason = (error.strerror if isinstance(error, OSError) else str(error)) or str(error) or type(error).__name__
    return DataError(f"{path} cannot be read as {what}: {reason.rstrip('.')}.")


def _read(path: Path, names: list[str] | None) -> dict[str, NDArray[Any]]:
    """As `read_archive`; errors of any type."""
    if path.is_dir():
        raise DataError("it is a folder, not a file")
    size = path.stat().st_size
    with opened(path) as file:
        start = file.read(6)
        if not start.startswith(ZIP) or not zipfile.is_zipfile(file):
            raise DataError(_foreign(start))
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise DataError("two of its members have the same name")
            if missing := [name for name in names or () if name not in members]:
                raise DataError(f"it lacks {', '.join(missing)}; it has {', '.join(members) or 'nothing'}")
            taken = list(members) if names is None else names
            declared = sum(members[name].file_size for name in taken)
            if declared > DEFLATE * size:
                raise DataError(f"its members declare {declared:,} bytes, which a file of {size:,} bytes cannot hold")
            return {name: _member(archive, members[name], name) for name in taken}


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> NDArray[Any]:
    """One array; its header is checked against the size of the member before memory is taken."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"its member {name} is compressed by a method that NPZ files do not use")
    with archive.open(info) as file:
        if file.read(6) != NPY:
            raise DataError(f"its member {name} is not an array")
    with archive.open(info) as file:
        _check_header(file, info.file_size, f" of its member {name}")
    with archive.open(info) as file:
        array = _array(file)
        if file.read(1):  # at the end of the member its check sum is compared
            raise DataError(f"its member {name} is longer than its array")
        return array


def _check_header(file: IO[bytes], size: int, where: str = "") -> None:
    """Compare what the header of an NPY file declares with the `size` of the file in bytes."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # 3.0 is for the names of structured arrays
        raise DataError(f"the header{where} is of version {'.'.join(map(str, version))}; 1.0 and 2.0 are read")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "created on Python 2"
        shape, _, dtype = read_header(file, max_header_size=HEADER)
    if dtype.hasobject:
        raise DataError(f"the array{where} holds Python objects, which can run code: they are never loaded")
    declared = math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or declared != size - file.tell():
        raise DataError(
            f"the header{where} declares {dtype} {shape}, {declared:,} bytes, and {size - file.tell():,} bytes follow it"
        )


def _array(file: IO[bytes]) -> NDArray[Any]:
    """An array whose header was checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False, max_header_size=HEADER)
    if array.dtype.kind == "U" and array.dtype.itemsize:
        codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        # numpy makes strings of anything, which Python then cannot print, and no error could quote
        odd = (codes > sys.maxunicode) | ((codes >= SURROGATES[0]) & (codes <= SURROGATES[1]))
        if odd.any():
            raise DataError(f"its text has a character of number {int(codes[odd][0]):,}, which Unicode has not")
    return array


def _foreign(start: bytes, kind: str = "NPZ") -> str:
    """What is wrong with a file that is not a whole archive, or no array, by its first bytes."""
    if not start:
        return "the file is empty"
    if start.startswith(ZIP):
        return "the archive is cut off or damaged"
    if start == NPY:
        return "it is a single array (NPY), not an archive of named arrays (NPZ)"
    return f"it is not an {kind} file"

"""NPZ archives of arrays: one way to read them, and one error for what is wrong with a file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError

#: how a zip archive starts: with its first member, or empty
ZIP = (b"PK\x03\x04", b"PK\x05\x06")


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
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
        raise DataError(f"{path} cannot be read as {what}: {reason.rstrip('.')}.") from error


def _read(path: Path, names: list[str] | None) -> dict[str, NDArray[Any]]:
    """As `read_archive`; errors of any type."""
    if path.is_dir():
        raise DataError("it is a folder, not a file")
    with path.open("rb") as file:
        start = file.read(6)
        if not start.startswith(ZIP) or not zipfile.is_zipfile(file):
            raise DataError(_foreign(start))
        file.seek(0)
        with np.load(file, allow_pickle=False) as members:
            known = members.files
            if missing := [name for name in names or () if name not in known]:
                raise DataError(f"it lacks {', '.join(missing)}; it has {', '.join(known) or 'nothing'}")
            arrays = {name: members[name] for name in (known if names is None else names)}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # of a member without numpy's header, numpy returns the bytes
            raise DataError(f"its member {name} is not an array")
    return arrays


def _foreign(start: bytes) -> str:
    """What is wrong with a file that is not a whole zip archive, by its first bytes."""
    if not start:
        return "the file is empty"
    if start.startswith(ZIP):
        return "the archive is cut off or damaged"
    if start == b"\x93NUMPY":
        return "it is a single array (NPY), not an archive of named arrays (NPZ)"
    return "it is not an NPZ file"

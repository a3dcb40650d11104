"""What is fetched once and kept: the folder for it, and one way to fetch a file."""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
import time
import urllib.request
from pathlib import Path

from zoo.errors import DataError


def cache_folder(name: str) -> Path:
    """The folder `name` in $ZOO_CACHE (~/.cache/zoo); it may not exist yet."""
    return Path(os.environ.get("ZOO_CACHE") or "~/.cache/zoo").expanduser() / name


def md5(data: bytes) -> str:
    """The MD5 sum in hexadecimal: authors publish it to tell a damaged file, it does not protect from a forged one."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal; remembered in this process for as long as the file is not written to."""
    about = path.stat()
    return _sha256(path, about.st_size, about.st_mtime_ns, about.st_ino)


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, *version: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def download(
    url: str, *, advice: str, expected_md5: str | None = None, seconds: float = 60, total: float = 1800, most: int = 2**30
) -> bytes:
    """The bytes behind an address, whole.

    Args:
        url: http or https.
        advice: what the user can do where it fails; the end of the error ("Put the file into ... by hand.").
        expected_md5: bytes with another MD5 sum are refused.
        seconds: how long the server may send nothing before it is given up.
        total: how long all may take: a server that sends a byte now and then is given up, too.
        most: bytes that are taken.

    Raises:
        DataError: no answer in time, a refusal, an answer that breaks off or is too long, or another MD5 sum.
    """
    end, blocks, size = time.monotonic() + total, list[bytes](), 0
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            while block := answer.read1(2**20):
                blocks.append(block)
                size += len(block)
                if size > most:
                    raise DataError(f"cannot fetch {url}: it sends more than {most:,} bytes. {advice}")
                if time.monotonic() > end:
                    raise DataError(f"cannot fetch {url}: {size:,} bytes in {total:g} seconds, and no end. {advice}")
            if answer.length:  # read1 ends without an error where the connection does
                raise http.client.IncompleteRead(b"".join(blocks), answer.length)
    except (OSError, http.client.HTTPException, ValueError) as error:  # HTTPException: fewer bytes than were announced
        raise DataError(f"cannot fetch {url}: {error}. {advice}") from error
    data = b"".join(blocks)
    if expected_md5 is not None and (found := md5(data)) != expected_md5:
        raise DataError(f"{url} has MD5 {found}, expected {expected_md5}: not kept. Try again later.")
    return data

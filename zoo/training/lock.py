"""One run in a folder at a time: a lock file that says whose it is."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from zoo import files
from zoo.errors import CheckpointError

#: who trains in a folder
LOCK = ".zoo-lock"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
#: how long the lock of another machine, whose processes cannot be seen, counts after its last sign of life (seconds)
SILENCE = 300.0
#: how often an owner gives one (seconds)
PULSE = 30.0
#: the open files of the locks that this process holds
_held: set[int] = set()


def _let_go() -> None:
    """In a forked child: the kernel's lock would else live on with a worker of the loader, after its run was killed."""
    for file in _held:
        with suppress(OSError):
            os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class Lock:
    """The right of one process to write a folder: its file `.zoo-lock` says who has it.

    The kernel's lock of the file ends with its process, however that ends, so a lock that a killed run left is taken over.
    Where a file system has none, and for files that were written without it, the owner that the file names decides.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self._file, self._last = folder / LOCK, -1, 0.0

    def take(self) -> None:
        """Become the owner.

        Raises:
            CheckpointError: another process is.
        """
        for _ in range(100):
            with files.disk_errors(self.path):
                file = os.open(self.path, _FLAGS, 0o666)
            try:
                if self._flock(file):
                    # the last owner may have removed the file after it was opened here: then this lock is of nothing
                    with suppress(FileNotFoundError):
                        if os.path.samestat(os.fstat(file), os.stat(self.path)):
                            self._check_owner(file)
                            self._write(file)
                            self._file = file
                            _held.add(file)
                            return
                    os.close(file)
                    continue
                self._refuse(self._owner(file))
            except BaseException:
                os.close(file)
                raise
        raise CheckpointError(f"{self.path} changes all the time: other runs start and end there.")

    def _flock(self, file: int) -> bool:
        """The kernel's lock; False where another process has it, True where there is none to be had."""
        try:
            import fcntl
        except ImportError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
        return True

    def _owner(self, file: int) -> dict[str, Any]:
        try:
            found = files.parse_json(os.pread(file, 4096, 0), self.path)
        except (OSError, CheckpointError):
            return {}
        return found if isinstance(found, dict) else {}

    def _check_owner(self, file: int) -> None:
        owner = self._owner(file)
        pid, host = owner.get("pid"), owner.get("host")
        if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 1 << 31 or not isinstance(host, str):
            return
        if host != socket.gethostname():
            if time.time() - os.fstat(file).st_mtime < SILENCE:
                self._refuse(owner)
        elif pid != os.getpid() and files.alive(pid, owner.get("born")):
            self._refuse(owner)

    def _refuse(self, owner: Mapping[str, Any]) -> NoReturn:
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, since {owner.get('start', '?')}"
        raise CheckpointError(
            f"another run is in {self.path.parent} ({who}). Give another folder, or wait until it ends; a run that is over for "
            f"certain leaves its place when {self.path} is removed."
        )

    def _write(self, file: int) -> None:
        start = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "start": start, "born": files.born_at(os.getpid())}
        with files.disk_errors(self.path):
            os.ftruncate(file, 0)
            os.pwrite(file, files.dump_json(owner), 0)
        self._last = time.monotonic()

    def pulse(self) -> None:
        """Give a sign of life, for machines that cannot see this process."""
        if self._file >= 0 and time.monotonic() - self._last > PULSE:
            self._last = time.monotonic()
            with suppress(OSError):
                os.utime(self._file)

    def holds(self) -> bool:
        """Whether the folder still has this lock: it may have been removed, and another run have come."""
        try:
            return self._file >= 0 and os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except OSError:
            return False

    def leave(self) -> None:
        """Give the folder free."""
        if self._file in _held:  # else it was left, or it is the parent's
            if self.holds():
                with suppress(OSError):
                    self.path.unlink()
            os.close(self._file)
            _held.discard(self._file)
        self._file = -1

    def __enter__(self) -> Lock:
        self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

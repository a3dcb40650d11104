"""The logs of a training run: log.csv and TensorBoard events."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from zoo import files
from zoo.errors import CheckpointError


class Log:
    """log.csv, and TensorBoard events where it is installed. Rows after the resumed step are dropped.

    Args:
        step: the resumed one. columns: of every row; those of an earlier part of the run stay, too.

    Raises:
        ResourceError: the disk is full, or refuses.
        CheckpointError: what is in the folder is not such a log.
    """

    def __init__(self, folder: Path, step: int, columns: Sequence[str] = ()) -> None:
        self.path = folder / "log.csv"
        rows = self._rows(step) if self.path.exists() and step else []
        self.columns = list(dict.fromkeys([*(rows[0] if rows else ()), *columns]))
        self.writer: csv.DictWriter[str] | None = None
        self.board: Any = None
        self._hook, threading.excepthook = threading.excepthook, self._thread_ended
        try:
            with files.disk_errors(self.path):
                if rows:
                    self._keep(rows)
                self._open(step, "a" if rows else "w")
        except BaseException:
            threading.excepthook = self._hook
            raise

    def _open(self, step: int, mode: str) -> None:
        self.file = self.path.open(mode, newline="", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return  # the CSV alone
        self.board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=step)

    def _rows(self, step: int) -> list[dict[str, str]]:
        """The rows of an earlier part of the run; the last one may be a part, where it was killed."""
        try:
            with self.path.open(newline="", encoding="utf-8") as f:
                reader = csv.DictReader(f, strict=True)
                found, names = list(reader), reader.fieldnames
        except (OSError, ValueError, csv.Error) as error:
            raise CheckpointError(f"{self.path} cannot be read as the log of this run: {error}. Move it away.") from error
        if names and "step" not in names:
            raise CheckpointError(f"{self.path} is not the log of a run: it has no column step. Move it away.")
        rows = []
        for i, row in enumerate(found):
            whole = None not in row and None not in row.values() and str(row.get("step")).isdecimal()
            if not whole and i < len(found) - 1:
                raise CheckpointError(f"{self.path} is not the log of a run: line {i + 2} has not its columns. Move it away.")
            if whole and int(row["step"]) <= step:
                rows.append(row)
        return rows

    def _keep(self, rows: list[dict[str, str]]) -> None:
        """Make these rows the log, at once: a kill leaves the old one or this."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        files.write_atomic(self.path, text.getvalue().encode())

    def _row(self, row: Mapping[str, Any]) -> None:
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, self.columns or list(row), restval="")
            if not self.file.tell():
                self.writer.writeheader()
        self.writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        self.file.flush()

    def write(self, row: dict[str, Any]) -> None:
        """Append one row. Where the folder was removed in the middle of the run, a new log begins."""
        with files.disk_errors(self.path):
            if not self.path.exists():
                tqdm.write(
                    f"{self.path.parent} was removed while the run was in it: it is made again, with what is still to come."
                )
                self._close()
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.writer = None
                self._open(row["step"], "w")
            self._row(row)
            if self.board is not None:
                for key, value in row.items():
                    if key != "step" and value != "":
                        self.board.add_scalar(key, value, row["step"])

    def _close(self) -> None:
        self.file.close()
        if self.board is not None:
            with suppress(FileNotFoundError):  # the folder was removed
                self.board.close()

    def _thread_ended(self, told: Any) -> None:
        """Leave a failed write of TensorBoard's thread to the next call of it, which raises the same: it is told once."""
        if not (isinstance(told.exc_value, OSError) and type(told.thread).__module__.startswith("tensorboard.")):
            self._hook(told)

    def close(self) -> None:
        """Flush and close the files."""
        try:
            with files.disk_errors(self.path):
                self._close()
        finally:
            threading.excepthook = self._hook

"""The logs of a training run: log.csv and TensorBoard events."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import files
from zoo.errors import CheckpointError


class Log:
    """log.csv, and TensorBoard events where it is installed. Rows after the resumed step are dropped.

    Raises:
        ResourceError: the disk is full, or refuses.
        CheckpointError: what is in the folder is not such a log.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.csv"
        rows = self._rows(step) if self.path.exists() and step else []
        self.writer: csv.DictWriter[str] | None = None
        self.board: Any = None
        self._hook = threading.excepthook
        with files.disk_errors(self.path):
            if rows:
                self._keep(rows)
            self.file = self.path.open("a" if rows else "w", newline="", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return  # the CSV alone
        self._hook, threading.excepthook = threading.excepthook, self._thread_ended
        with files.disk_errors(folder / "tensorboard"):
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def _rows(self, step: int) -> list[dict[str, str]]:
        """The rows of an earlier part of the run; the last one may be a part, where it was killed."""
        try:
            with self.path.open(newline="", encoding="utf-8") as f:
                found = list(csv.DictReader(f, strict=True))
        except (OSError, ValueError, csv.Error) as error:
            raise CheckpointError(f"{self.path} cannot be read as the log of this run: {error}. Move it away.") from error
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
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        files.write_atomic(self.path, text.getvalue().encode())

    def _row(self, row: Mapping[str, Any]) -> None:
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, list(row))
            if not self.file.tell():
                self.writer.writeheader()
        self.writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        self.file.flush()

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        with files.disk_errors(self.path):
            self._row(row)
            if self.board is not None:
                for key, value in row.items():
                    if key != "step":
                        self.board.add_scalar(key, value, row["step"])

    def _thread_ended(self, told: Any) -> None:
        """Leave a failed write of TensorBoard's thread to the next call of it, which raises the same: it is told once."""
        if not (isinstance(told.exc_value, OSError) and type(told.thread).__module__.startswith("tensorboard.")):
            self._hook(told)

    def close(self) -> None:
        """Flush and close the files."""
        try:
            with files.disk_errors(self.path):
                self.file.close()
                if self.board is not None:
                    self.board.close()
        finally:
            threading.excepthook = self._hook

"""The logs of a training run: log.csv and TensorBoard events."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Log:
    """log.csv, and TensorBoard events where it is installed. Rows after the resumed step are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.csv"
        rows = []
        if self.path.exists() and step:
            with self.path.open(newline="") as f:
                rows = [r for r in csv.DictReader(f) if int(r["step"]) <= step]
        self.file = self.path.open("w", newline="")
        self.writer: csv.DictWriter[str] | None = None
        for row in rows:
            self._row(row)
        self.board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
        except ImportError:
            pass  # the CSV alone

    def _row(self, row: Mapping[str, Any]) -> None:
        if self.writer is None:
            self.writer = csv.DictWriter(self.file, list(row))
            self.writer.writeheader()
        self.writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        self.file.flush()

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._row(row)
        if self.board is not None:
            for key, value in row.items():
                if key != "step":
                    self.board.add_scalar(key, value, row["step"])

    def close(self) -> None:
        """Flush and close the files."""
        self.file.close()
        if self.board is not None:
            self.board.close()

"""The loss curve of a run as a picture, from its log."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from zoo.contract.samples import save_picture
from zoo.errors import ConfigError
from zoo.figure import new_figure, to_picture

PICTURE = "loss.png"


def draw(folder: Path) -> Path | None:
    """Draw log.csv of a run as loss.png beside it: loss and held-out loss above, the learning rate below.

    Returns: the picture; None where there is nothing to draw yet, or matplotlib is not installed.

    Raises:
        ResourceError: the disk is full, or refuses.
    """
    steps, columns = read(folder / "log.csv", ("loss", "held_out_loss", "lr"))
    if len(steps) < 2:
        return None
    try:
        figure = new_figure(7, 5, "train")
    except ConfigError:
        return None
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    names = {"loss": "training", "held_out_loss": "held-out data, averaged weights"}
    for key, name in names.items():
        points = [(k, v) for k, v in zip(steps, columns[key], strict=True) if math.isfinite(v)]
        if points:
            above.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 40 else None)
    values = [v for key in names for v in columns[key] if math.isfinite(v)]
    if values and min(values) > 0:
        above.set_yscale("log")
    above.set_ylabel("loss")
    above.legend()
    below.plot(steps, columns["lr"], color="grey")
    below.set_ylabel("learning rate")
    below.set_ylim(bottom=0)
    below.set_xlabel("step")
    for ax in (above, below):
        ax.grid(alpha=0.3)
    save_picture(to_picture(figure), folder / PICTURE)
    return folder / PICTURE


def read(path: Path, columns: tuple[str, ...]) -> tuple[list[int], dict[str, list[float]]]:
    """(steps, {column: values}) of a log; NaN where a line has no value."""
    steps: list[int] = []
    found: dict[str, list[float]] = {k: [] for k in columns}
    if not path.exists():
        return steps, found
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not str(row.get("step")).isdecimal():
                continue  # a part of a line, where the run was killed
            steps.append(int(row["step"]))
            for key in columns:
                try:
                    found[key].append(float(row.get(key) or "nan"))
                except ValueError:
                    found[key].append(math.nan)
    return steps, found

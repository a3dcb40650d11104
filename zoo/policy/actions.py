"""What a policy samples: a chunk of actions in the robot's own units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from zoo.errors import DataError, ShapeError

SIDE = 288  # pixels of a plot
COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75))


class Actions:
    """Actions (horizon, Da) float32.

    Attributes:
        values: the array, in `unit`.
        names: of the Da dimensions.
        unit: of the values, "" where it is not known.
        rate: steps a second, None where it is not known.
        clipped: how many numbers lay outside the range of the training data and were moved to its edge.
        low, high: that range (Da,), which a plot of two dimensions spans.
    """

    def __init__(
        self,
        values: NDArray[np.float32],
        *,
        names: tuple[str, ...] = (),
        unit: str = "",
        rate: float | None = None,
        clipped: int = 0,
        low: NDArray[np.float32] | None = None,
        high: NDArray[np.float32] | None = None,
    ) -> None:
        if values.ndim != 2:
            raise ShapeError(f"actions {values.shape} must be (horizon, dimensions).")
        self.values, self.unit, self.rate, self.clipped = values, unit, rate, clipped
        self.names = names or tuple(f"action_{i}" for i in range(values.shape[1]))
        self.low, self.high = low, high

    def numpy(self) -> NDArray[np.float32]:
        """(horizon, Da) float32 in the robot's units."""
        return self.values

    def __repr__(self) -> str:
        rate = f", {self.rate:g} Hz" if self.rate else ""
        return f"Actions({self.values.shape[0]} x {', '.join(self.names)} [{self.unit}]{rate})"

    def save(self, path: str | Path) -> Path:
        """Write an .npz with action, action_names, unit and rate, as `episodes.npz` names them."""
        path = Path(path)
        if path.suffix != ".npz":
            raise DataError(f"cannot save {path}: actions are saved as .npz.")
        extra: dict[str, Any] = {} if self.rate is None else {"rate": self.rate}
        np.savez(path, action=self.values, action_names=np.array(self.names), unit=self.unit, **extra)
        return path

    def plot(self, ax: Any = None) -> Any:
        """The path (two dimensions) or the curves over time: on a matplotlib axis, or as a PIL image."""
        if ax is not None:
            if self.values.shape[1] == 2:
                return ax.plot(*self.values.T, marker="o")
            return ax.plot(self.values, label=list(self.names))
        page = Image.new("RGB", (SIDE, SIDE), "white")
        draw_path(page, self) if self.values.shape[1] == 2 else draw_curves(page, self)
        return page

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


def _span(actions: Actions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The range that a plot covers, never empty."""
    low = actions.values.min(0) if actions.low is None else actions.low
    high = actions.values.max(0) if actions.high is None else actions.high
    return low, np.maximum(high, low + 1e-6)


def draw_path(page: Image.Image, actions: Actions, colour: tuple[int, int, int] = COLOURS[0]) -> None:
    """Two dimensions as a path, y downwards as in a picture; the first step is the largest dot."""
    low, high = _span(actions)
    draw, side = ImageDraw.Draw(page), min(page.size)
    points = [tuple(p) for p in ((actions.values - low) / (high - low) * (side - 20) + 10).tolist()]
    draw.line(points, fill=colour, width=2)
    for i, (x, y) in enumerate(points):
        r = 5 if i == 0 else 3
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    draw.text((4, 2), f"{actions.names[0]}, {actions.names[1]} [{actions.unit}]", fill="black")


def draw_curves(page: Image.Image, actions: Actions) -> None:
    """Every dimension over the steps, each scaled to its own range."""
    low, high = _span(actions)
    draw, (w, h) = ImageDraw.Draw(page), page.size
    scaled = 1 - (actions.values - low) / (high - low)
    for d, name in enumerate(actions.names):
        colour = COLOURS[d % len(COLOURS)]
        steps = np.linspace(10, w - 10, len(scaled))
        draw.line(
            [(float(x), float(10 + y * (h - 20))) for x, y in zip(steps, scaled[:, d], strict=True)], fill=colour, width=2
        )
        draw.text((4, 2 + 11 * d), name, fill=colour)

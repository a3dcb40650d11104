"""What a policy samples: a chunk of actions in the robot's own units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.disk import saving
from zoo.errors import DataError, ShapeError
from zoo.figure import new_figure, to_picture


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
        return f"Actions({self.values.shape[0]} x {', '.join(self.names)} [{self.unit}], {self.rate} Hz)"

    def save(self, path: str | Path) -> Path:
        """Write an .npz with action, action_names, unit and rate, as `episodes.npz` names them."""
        path = Path(path)
        if path.suffix != ".npz":
            raise DataError(f"cannot save {path}: actions are saved as .npz.")
        extra: dict[str, Any] = {} if self.rate is None else {"rate": self.rate}
        with saving(path) as temporary:
            np.savez(temporary, action=self.values, action_names=np.array(self.names), unit=self.unit, **extra)
        return path

    def plot(self, ax: Any = None) -> Any:
        """A path over the scene (two dimensions, y downwards) or curves: on a matplotlib axis, or as a PIL image."""
        figure = None if ax is not None else new_figure(4, 4, "policy")
        ax = figure.add_subplot() if figure is not None else ax
        if len(self.names) == 2:
            (line,) = ax.plot(*self.values.T, marker=".", linewidth=1)
            ax.plot(*self.values[0], marker="o", color=line.get_color())
            ax.set(xlabel=f"{self.names[0]} ({self.unit})", ylabel=f"{self.names[1]} ({self.unit})", aspect="equal")
            if self.low is not None and self.high is not None:
                ax.set(xlim=(self.low[0], self.high[0]), ylim=(self.high[1], self.low[1]))
        else:
            steps = np.arange(len(self.values)) / (self.rate or 1)
            ax.plot(steps, self.values, label=list(self.names))
            ax.set(xlabel="time (s)" if self.rate else "step", ylabel=self.unit)
            ax.legend(fontsize=7)
        return ax if figure is None else to_picture(figure)

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()

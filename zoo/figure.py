"""Figures of samples, matplotlib without a window, as PIL images; and films."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.errors import ConfigError, DataError


def new_figure(width: float, height: float, extra: str) -> Any:
    """An empty matplotlib figure of so many inches; without matplotlib a ConfigError that names the domain's `extra`."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(f'drawing needs matplotlib: pip install "diffusion-zoo[{extra}]".') from None
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")  # no pyplot: it would keep it and pick a window
    FigureCanvasAgg(figure)
    return figure


def grid(n: int, size: float, extra: str, columns: int | None = None) -> tuple[Any, Any]:
    """A figure of n square frames of `size` inches in rows, and its frames (n,); default: about as many rows as columns."""
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    figure = new_figure(max(4, size * columns), max(4, size * rows), extra)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[n:]:
        ax.set_axis_off()
    return figure, axes[:n]


def to_picture(figure: Any) -> Image.Image:
    """A figure, drawn, as an RGB picture."""
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def save_film(frames: Sequence[NDArray[np.uint8]], path: str | Path, rate: float, extra: str) -> Path:
    """Pictures (H,W,3), `rate` a second, as MP4, or as GIF at most 10 of them; a ConfigError names a missing `extra`."""
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise DataError(f"cannot save {path}: a film is saved as .gif or .mp4.")
    try:
        import imageio.v3 as imageio
    except ImportError:
        raise ConfigError(f'films need imageio: pip install "diffusion-zoo[{extra}]".') from None
    path.parent.mkdir(parents=True, exist_ok=True)
    gif, step = path.suffix == ".gif", max(2, math.ceil(rate / 10))
    how: dict[str, Any] = {"duration": 1000 * step / rate, "loop": 0} if gif else {"fps": rate, "codec": "libx264"}
    imageio.imwrite(path, np.stack(frames[::step] if gif else frames), **how)
    return path

"""Figures of samples, matplotlib without a window, as PIL images; and films."""

from __future__ import annotations

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


def to_picture(figure: Any) -> Image.Image:
    """A figure, drawn, as an RGB picture."""
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def save_film(frames: Sequence[NDArray[np.uint8]], path: str | Path, rate: float, extra: str) -> Path:
    """Pictures (H,W,3), `rate` a second, as a GIF (every other one) or MP4; without imageio a ConfigError names the `extra`."""
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise DataError(f"cannot save {path}: a film is saved as .gif or .mp4.")
    try:
        import imageio.v3 as imageio
    except ImportError:
        raise ConfigError(f'films need imageio: pip install "diffusion-zoo[{extra}]".') from None
    path.parent.mkdir(parents=True, exist_ok=True)
    gif = path.suffix == ".gif"
    how: dict[str, Any] = {"duration": 2000 / rate, "loop": 0} if gif else {"fps": rate, "codec": "libx264"}
    imageio.imwrite(path, np.stack(frames[::2] if gif else frames), **how)
    return path

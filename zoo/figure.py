"""Figures of samples: matplotlib without a window, as PIL images."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from zoo.errors import ConfigError


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

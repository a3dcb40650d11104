"""Figures of samples, matplotlib without a window, as PIL images; films; and a view in three dimensions for notebooks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.disk import replacing
from zoo.errors import ConfigError, DataError
from zoo.extras import need


def new_figure(width: float, height: float, extra: str) -> Any:
    """An empty matplotlib figure of so many inches; without matplotlib a ConfigError that names the domain's `extra`."""
    # no pyplot: it would keep the figure and pick a window
    figure = need("matplotlib.figure", extra).Figure(figsize=(width, height), dpi=100, layout="constrained")
    need("matplotlib.backends.backend_agg", extra).FigureCanvasAgg(figure)
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


def check_axis(ax: Any) -> None:
    """Refuse what is not a matplotlib axis, above all the name of a file."""
    if ax is not None and not hasattr(ax, "imshow"):
        raise ConfigError(f"plot({ax!r}): give a matplotlib axis, or nothing; the picture is saved by plot().save('name.png').")


def to_picture(figure: Any) -> Image.Image:
    """A figure, drawn, as an RGB picture."""
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def save_film(frames: Sequence[NDArray[np.uint8]], path: str | Path, rate: float, extra: str) -> Path:
    """Pictures (H,W,3), `rate` a second, as MP4, or as GIF at most 10 of them; a ConfigError names a missing `extra`."""
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise DataError(f"cannot save {path}: a film is saved as .gif or .mp4.")
    imageio = need("imageio.v3", extra)
    gif, step = path.suffix == ".gif", max(2, math.ceil(rate / 10))
    how: dict[str, Any] = {"duration": 1000 * step / rate, "loop": 0} if gif else {"fps": rate, "codec": "libx264"}
    with replacing(path) as temporary:
        imageio.imwrite(temporary, np.stack(frames[::step] if gif else frames), **how)
    return path


#: a line that turns with the mouse: points, colours and size are put in; no other file is loaded. (py3Dmol would draw it too,
#: but its page loads 3Dmol.js from the internet, and a notebook here works offline.)
VIEWER = """<canvas width=360 height=360 style="cursor:grab"></canvas><script>(() => {
const c = document.currentScript.previousElementSibling, g = c.getContext("2d"), P = %s, K = %s, s = 165 / %s;
let a = 0.4, b = 0.3; g.lineCap = "round";
function draw() { g.clearRect(0, 0, 360, 360);
  const q = P.map(([x, y, z]) => { const u = x * Math.cos(a) + z * Math.sin(a), w = z * Math.cos(a) - x * Math.sin(a);
    return [180 + s * u, 180 - s * (y * Math.cos(b) - w * Math.sin(b)), w * Math.cos(b) + y * Math.sin(b)]; });
  [...K.keys()].sort((i, j) => q[i][2] + q[i + 1][2] - q[j][2] - q[j + 1][2]).forEach(i => [["#fff", 9], [K[i], 6]].forEach(
    ([colour, width]) => { g.strokeStyle = colour; g.lineWidth = width; g.beginPath();
      g.moveTo(q[i][0], q[i][1]); g.lineTo(q[i + 1][0], q[i + 1][1]); g.stroke(); })); }
c.onmousemove = e => { if (e.buttons) { a += e.movementX / 80; b += e.movementY / 80; draw(); } }; draw(); })();</script>"""


def turning_line(points: NDArray[np.floating[Any]], colours: Sequence[str]) -> str:
    """A line through points (N, 3) with a colour a step (N - 1), as HTML: it turns with the mouse."""
    centred = points - points.mean(0)
    size = max(float(np.linalg.norm(centred, axis=1).max()), 1e-6)
    return VIEWER % (json.dumps((centred / size).round(4).tolist()), json.dumps(list(colours)), 1)

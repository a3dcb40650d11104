"""Each kind of view and of question as a part of a gradio page: the only place that knows both."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.contract.page import Gallery, Picture, Question, Scene, Sound, View
from zoo.extras import need
from zoo.figure import save_film

#: pixels of a scene's and a picture's height
HEIGHT = 360
#: folders of files that were given away and are kept at a time
FOLDERS = 64
_folders: deque[Path] = deque()
_lock = threading.Lock()


def gr() -> Any:
    """gradio; a ConfigError names the extra where it is missing."""
    return need("gradio", "demo")


def place(kind: type[View], label: str, name: str) -> Any:
    """An empty part of the page for a kind of view.

    Args:
        name: its id in the page.
    """
    g = gr()
    common: dict[str, Any] = {"label": label, "elem_id": name}
    if kind is Picture:
        return g.Image(type="pil", format="png", interactive=False, height=HEIGHT, buttons=["fullscreen"], **common)
    if kind is Gallery:
        return g.Gallery(type="pil", format="png", interactive=False, columns=4, height=HEIGHT, object_fit="contain", **common)
    if kind is Sound:
        return g.Audio(type="numpy", format="wav", interactive=False, **common)
    if kind is Scene:
        return g.Plot(**common)
    return g.Video(format="mp4", interactive=False, autoplay=True, loop=True, height=HEIGHT, **common)


def value(view: View | None) -> Any:
    """What a part of the page is given to show a view."""
    if view is None:
        return None
    if isinstance(view, Picture):
        return view.image
    if isinstance(view, Gallery):
        return list(view.pictures)
    if isinstance(view, Sound):
        # whole numbers: gradio brings floats to the loudest there is
        return view.sample_rate, np.clip(np.rint(view.samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
    if isinstance(view, Scene):
        return scene(view)
    return str(save_film(view.frames, new_folder() / "film.mp4", view.rate, "policy"))


def own_folder() -> str | None:
    """The folder of the page's own files, which goes with it; None for the system's where no page is started."""
    return os.environ.get("GRADIO_TEMP_DIR")


def new_folder() -> Path:
    """A folder for files that the page gives away, which gradio copies; the oldest of more than `FOLDERS` are removed."""
    found = Path(tempfile.mkdtemp(prefix="zoo-out-", dir=own_folder()))
    with _lock:
        _folders.append(found)
        while len(_folders) > FOLDERS:
            shutil.rmtree(_folders.popleft(), ignore_errors=True)
    return found


def scene(view: Scene) -> Any:
    """A scene as a figure of plotly.js, which gradio brings along and draws with WebGL."""
    points = np.asarray(view.points, np.float64).round(3)
    x, y, z = (points[:, i].tolist() for i in range(3))
    height = points[:, 1 if view.up == "y" else 2].tolist()
    trace: dict[str, Any] = {"type": "scatter3d", "x": x, "y": y, "z": z, "hoverinfo": "none"}
    if view.line:
        # plotly colours a line by its points: a step has the colour of its first one
        colours = [*view.colours, view.colours[-1]] if len(view.colours) else height
        trace |= {"mode": "lines", "line": {"width": 10, "color": colours}}
    else:
        colours = list(view.colours) or height
        trace |= {"mode": "markers", "marker": {"size": 2, "color": colours, "colorscale": "Viridis"}}
    hidden = {"visible": False, "showbackground": False}
    up = {"x": 0, "y": 1, "z": 0} if view.up == "y" else {"x": 0, "y": 0, "z": 1}
    layout = {
        "height": HEIGHT,
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "showlegend": False,
        "uirevision": "turned",  # the eye stays where it is from step to step
        "scene": {
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "data",
            "dragmode": "orbit",
            "camera": {"up": up, "eye": {"x": 1.0, "y": 0.7, "z": 1.3}},
        },
    }
    return figure([trace], layout)


def curve(values: Sequence[float], share: float, here: float) -> Any:
    """log-SNR over the share of noise, 1 .. 0 as the levels come, with the point where the object is."""
    shares = np.linspace(1, 0, len(values) + 1)[: len(values)]
    rows = [(float(a), float(v)) for a, v in zip(shares, values, strict=True) if np.isfinite(v)]
    line = {"type": "scatter", "mode": "lines", "x": [a for a, _ in rows], "y": [v for _, v in rows], "name": "schedule"}
    point = {"type": "scatter", "mode": "markers", "x": [share], "y": [here], "marker": {"size": 14}, "name": "here"}
    layout = {
        "height": 300,
        "margin": {"l": 50, "r": 10, "t": 10, "b": 40},
        "showlegend": False,
        "xaxis": {"title": {"text": "share of the schedule"}},
        "yaxis": {"title": {"text": "log-SNR"}},
    }
    return figure([line, point] if np.isfinite(here) else [line], layout)


def figure(traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> Any:
    """A figure of plotly.js."""
    data: Any = need("gradio.components.plot", "demo").PlotData
    return data(type="plotly", plot=json.dumps({"data": list(traces), "layout": dict(layout)}))


def ask(question: Question, label: str, name: str, visible: bool = True) -> Any:
    """A part of the page that asks."""
    g = gr()
    common: dict[str, Any] = {"elem_id": name, "visible": visible}
    label = question.label or label
    if question.kind == "choice":
        return g.Dropdown(choices=list(question.choices), value=question.value, label=label, **common)
    if question.kind == "text":
        return g.Textbox(value=question.value, label=label, **common)
    if question.kind == "mask":
        brush = g.Brush(default_size=24, colors=["#ff0000"], color_mode="fixed")
        return g.ImageEditor(
            type="pil",
            format="png",
            image_mode="RGBA",
            sources=[],
            transforms=[],
            brush=brush,
            eraser=g.Eraser(),
            layers=False,
            label=label,
            **common,
        )
    return g.Number(
        value=question.value, minimum=question.low, maximum=question.high, step=question.step, label=label, **common
    )


def answer(question: Question, given: Any) -> Any:
    """What a part of the page was told, as a domain takes it: of a mask (H, W) bool, True where it was painted."""
    if question.kind != "mask":
        return given
    layers = (given or {}).get("layers") or []
    painted = [np.asarray(layer.convert("RGBA"))[..., 3] > 0 for layer in layers]
    return np.logical_or.reduce(painted) if painted else None

"""What a domain says of itself for a page in the browser: how things are asked, and how samples are shown.

Nothing here knows of a page's library: `zoo.demo` turns each kind of question and of view into a part of its page, so that a
domain, another package's too, needs no code of a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Question:
    """How one thing is asked.

    Attributes:
        kind: "choice" of a list, "text", "number" from `low` to `high`, or "mask", which is painted over a picture. What no
            page asks, such as another sample, is "none".
        choices: of a choice, and examples of a text.
        value: what is there at the start.
    """

    kind: Literal["choice", "text", "number", "mask", "none"]
    label: str = ""
    choices: Sequence[str] = ()
    low: float = 0.0
    high: float = 1.0
    step: float = 1.0
    value: Any = None


@dataclass(frozen=True)
class Handle:
    """A thing on a board that is dragged, and turned where its angle is asked.

    Attributes:
        label: what it is called.
        x, y, angle: names of the questions that its place answers; the angle in degrees, clockwise, "" of what does not turn.
        outline: its corners (K, 2) from its place, before it is turned.
        colour: "#rrggbb".
        pivot: the point that it is turned about, from its place.
    """

    label: str
    x: str
    y: str
    angle: str
    outline: Sequence[tuple[float, float]]
    colour: str
    pivot: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Board:
    """A table seen from above, y downwards, on which things are dragged in place of typing the numbers of their places.

    Attributes:
        width, height: in the units of the questions.
        handles: those below come first.
    """

    width: float
    height: float
    handles: Sequence[Handle]


@dataclass(frozen=True)
class Picture:
    """One picture."""

    image: Image.Image


@dataclass(frozen=True)
class Gallery:
    """Pictures, each with what it is called."""

    pictures: Sequence[tuple[Image.Image, str]]


@dataclass(frozen=True)
class Sound:
    """A clip (L,), full scale -1..1, that is played."""

    samples: NDArray[np.float32]
    sample_rate: int


@dataclass(frozen=True)
class Scene:
    """Points (N, 3) that turn with the mouse; y or z is up, as `up` says.

    Attributes:
        colours: one a point, or of a line one a step (N - 1), as "#rrggbb"; empty: by height.
        line: whether they are joined in their order.
    """

    points: NDArray[np.floating[Any]]
    colours: Sequence[str] = field(default=())
    line: bool = False
    up: Literal["y", "z"] = "y"


@dataclass(frozen=True)
class Film:
    """Pictures (H, W, 3), so many a second."""

    frames: Sequence[NDArray[np.uint8]]
    rate: float


View: TypeAlias = Picture | Gallery | Sound | Scene | Film

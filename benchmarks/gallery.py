"""The gallery of the documentation, and the README's film of the reverse process, from the packaged models.

python benchmarks/gallery.py            # draws docs/reverse.gif anew: half a minute or so
`make docs` writes the gallery itself: its pictures, sounds and shapes are made when the site is built, by the code that the
page shows. The page (`lay`) has a place for each, filled (`fill`) with what another process has drawn meanwhile (`draw`).
"""

from __future__ import annotations

import base64
import html
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

import zoo
from zoo.contract.registry import CHECKPOINTS
from zoo.point3d.cloud import render
from zoo.protein.backbone import COLOURS, Backbone

ROOT = Path(__file__).resolve().parents[1]
FILM = ROOT / "docs" / "reverse.gif"
#: most bytes of the film
MOST = 2_000_000
#: the HTML of all parts, among the files that they made
SHOWN = "shown.json"


# ---------------------------------------------------------------- the page


@dataclass(frozen=True)
class Part:
    """A section of the page.

    Attributes:
        code: what is run and shown; later parts know its names.
        show: the names and the folder of files -> the HTML that stands below the code.
    """

    title: str
    text: str
    code: str
    show: Callable[[dict[str, Any], Path], str]


def row(figures: list[tuple[str, str]]) -> str:
    """Pieces of HTML side by side, each with its caption."""
    shown = "".join(f"<figure>{body}<figcaption>{html.escape(words)}</figcaption></figure>" for body, words in figures)
    return f'<div class="shown">{shown}</div>'


def picture(image: Any, folder: Path, name: str, about: str) -> str:
    """A picture of the page."""
    image.save(folder / name)
    return seen(name, about)


def seen(name: str, about: str) -> str:
    """A file of the page as a picture."""
    return f'<p><img src="_static/gallery/{name}" alt="{html.escape(about)}"></p>'


def players(samples: Any, folder: Path, name: str) -> str:
    """A player for each clip."""
    figures = []
    for i, clip in enumerate(samples):
        file = f"{name}-{i}.wav"
        clip.save(folder / file)
        words = ", ".join(samples.words(i))
        figures.append((f'<audio controls preload="none" src="_static/gallery/{file}"></audio>', words))
    return row(figures)


def turning(points: Any, colours: list[str] | None = None, size: int = 260) -> str:
    """A canvas on which points (N, 3) turn (docs/_static/turn.js), joined by a line where their steps have colours."""
    centred = points - points.mean(0)
    unit = centred / max(float(np.linalg.norm(centred, axis=1).max()), 1e-6)
    data = base64.b64encode((unit * 32767).round().astype("<i2").tobytes()).decode()
    more = f" data-colours='{json.dumps(colours)}'" if colours else ""
    return f'<canvas class="turn" width="{size}" height="{size}" data-points="{data}"{more}></canvas>'


def clouds(names: dict[str, Any], folder: Path) -> str:
    shapes = names["shapes"]
    return row([(turning(cloud.points), ", ".join(shapes.words(i))) for i, cloud in enumerate(shapes)])


def colours_of(chain: Backbone) -> list[str]:
    """The colour of each step of a chain's trace: helices, strands and the rest."""
    return [COLOURS[a if a == b else 0] for a, b in pairwise(chain.structure())]


def chains(names: dict[str, Any], folder: Path) -> str:
    drawn = [(turning(c.atoms[:, 1], colours_of(c)), f"{len(c)} residues") for c in names["chains"]]
    return row(drawn)


def steps(names: dict[str, Any], folder: Path) -> str:
    """Noisy pictures above what the net believes in."""
    found = names["steps"]
    shown = [found[round(i)] for i in np.linspace(0, len(found) - 1, 8)]
    rows = [np.concatenate([grey(getattr(s, part)[0, 0]) for s in shown], 1) for part in ("x", "x0")]
    image = Image.fromarray(np.concatenate(rows, 0)).resize((8 * 84, 2 * 84), Image.Resampling.NEAREST)
    return picture(image, folder, "steps.png", "above the noisy picture at eight steps, below what the net believes in")


def grey(x: torch.Tensor) -> np.ndarray:
    """Numbers of -1 to 1 as bytes."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


PARTS = (
    Part(
        "Words to pictures",
        "Two captions in four drawing styles, made in the latents of an autoencoder.",
        'import zoo\n\nwords = ["house with garden", "blue heart"]\n'
        'styles = ["twemoji", "noto", "fluent-color", "streamline"]\n'
        "captions = [text for text in words for _ in styles]\n"
        'drawn = zoo.load("image/emoji-text").sample(8, text=captions, style=2 * styles, seed=0)',
        lambda names, folder: picture(names["drawn"].plot(), folder, "drawn.png", "two captions in four drawing styles"),
    ),
    Part(
        "Pictures",
        "Ten kinds of clothes, twelve steps each.",
        'clothes = zoo.load("image/fashion-ddpm")\n'
        'labels = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]\n'
        "pictures = clothes.sample(10, label=labels, seed=0)",
        lambda names, folder: picture(names["pictures"].plot(), folder, "pictures.png", "ten pictures of clothes"),
    ),
    Part(
        "Step by step",
        "Above, what the sampler has; below, what the net believes is behind the noise.",
        'steps = list(clothes.sample_iter(1, label="sneaker", seed=0, steps=16))',
        steps,
    ),
    Part(
        "Sound",
        "Digits in six voices, at 8 kHz.",
        'digits = zoo.load("audio/spec-ddpm").sample(3, label=["three", "seven", "nine"], speaker="jackson", seed=0)',
        lambda names, folder: (
            players(names["digits"], folder, "digit")
            + picture(names["digits"].plot(), folder, "digits.png", "their waveforms and spectrograms")
        ),
    ),
    Part(
        "Words",
        "Four words at 16 kHz, in voices that the model makes up.",
        'words = zoo.load("audio/words-ddpm").sample(2, label=["yes", "stop"], seed=0)',
        lambda names, folder: players(names["words"], folder, "word"),
    ),
    Part(
        "Shapes",
        "Clouds of 2,048 points. They turn; take one with the mouse.",
        'shapes = zoo.load("point3d/shapes-ddpm").sample(2, label=["chair", "lamp"], seed=0)',
        clouds,
    ),
    Part(
        "Proteins",
        "Backbones: helices red, strands blue. A sequence for them comes from other tools.",
        'chains = zoo.load("protein/backbone-ddpm").sample(2, length=64, seed=0)',
        chains,
    ),
    Part(
        "Robots",
        "Plans of sixteen actions for the start of an episode: where the robot goes to push the T onto its goal.",
        "import gym_pusht  # registers the environment\nimport gymnasium\nimport numpy as np\n\n"
        'scene = gymnasium.make("gym_pusht/PushT-v0", obs_type="environment_state_agent_pos")\n'
        "seen, _ = scene.reset(seed=0)\n"
        'now = np.concatenate([seen["environment_state"], seen["agent_pos"]])\n'
        'plans = zoo.load("policy/pusht-keypoints").sample(8, observation=now, seed=0)',
        lambda names, folder: (
            picture(names["plans"].plot(), folder, "plans.png", "eight plans over the table")
            + "<p>Episodes of the same policy, as its card has them:</p>"
            + film("policy/pusht-keypoints", folder)
        ),
    ),
    Part(
        "An arm",
        "Plans for an arm that pushes a puck onto its goal: the hand's way, and how far its fingers close.",
        "# hand, fingers, puck and goal at the start of an episode of Meta-World\n"
        "hand, puck, goal = [0.0046, 0.6014, 0.1951], [0.0005, 0.6922, 0.0194], [0.0847, 0.883, 0.0194]\n"
        'moves = zoo.load("policy/metaworld-push").sample(3, observation=[*hand, 1.0, *puck, *goal], seed=0)',
        lambda names, folder: (
            picture(names["moves"].plot(), folder, "moves.png", "three plans, a curve for each number of an action")
            + "<p>Episodes of the same policy, as its card has them:</p>"
            + film("policy/metaworld-push", folder)
        ),
    ),
)


def film(model: str, folder: Path) -> str:
    """The film of a packaged policy."""
    name = f"{model.split('/')[1]}.gif"
    (folder / name).write_bytes((CHECKPOINTS / model / "rollouts.gif").read_bytes())
    return seen(name, "episodes in simulation")


def place(i: int) -> str:
    """Where the page shows what the code of a part made."""
    return f'<div id="drawn-{i}"></div>'


def lay(source: Path) -> None:
    """Write the page into the sources of the site."""
    text = [
        "# Gallery",
        "",
        "Everything here was drawn when this page was built, by the code that stands above it, from the packaged models.",
        "Nothing was chosen: the seeds are the first ones.",
    ]
    for i, part in enumerate(PARTS):
        text += ["", f"## {part.title}", "", part.text, "", "```python", part.code, "```", "", place(i)]
    (source / "gallery.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def draw(folder: Path) -> None:
    """Run the code of all parts; an empty folder then holds what they made, and the HTML that shows it."""
    names: dict[str, Any] = {}
    shown = []
    for part in PARTS:
        exec(compile(part.code, f"gallery: {part.title}", "exec"), names)
        shown.append(part.show(names, folder))
    (folder / SHOWN).write_text(json.dumps(shown), encoding="utf-8")


def fill(page: Path, folder: Path) -> None:
    """Put what was drawn into the page that Sphinx has made, and its files beside it."""
    text, shown = page.read_text(encoding="utf-8"), json.loads((folder / SHOWN).read_text(encoding="utf-8"))
    for i, body in enumerate(shown):
        if text.count(place(i)) != 1:
            raise SystemExit(f"{page} has no place for what {PARTS[i].title!r} made")
        text = text.replace(place(i), body)
    page.write_text(text, encoding="utf-8")
    files = shutil.ignore_patterns(SHOWN)
    shutil.copytree(folder, page.parent / "_static" / "gallery", ignore=files)


# ---------------------------------------------------------------- the film of the README

#: pixels of a panel, steps of each sampler, and milliseconds of a frame and of the last one
PANEL, STEPS, FRAME, REST = 168, 24, 120, 3000


def unit(x: torch.Tensor, level: Any, spread: float) -> torch.Tensor:
    """What a sampler has, at the size of data with this spread: an EDM's noise is up to eighty times as large."""
    return x * spread / float((level.alpha**2 * spread**2 + level.sigma**2) ** 0.5)


def film_pictures(x: torch.Tensor) -> np.ndarray:
    """Four pictures (4, 1, 28, 28)."""
    tiles = grey(x[:, 0])
    square = np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)], 0)
    return np.repeat(np.kron(square, np.ones((3, 3), np.uint8))[..., None], 3, 2)


def film_sounds(x: torch.Tensor) -> np.ndarray:
    """Two spectrograms (2, 1, 64, 128), low notes below."""
    import matplotlib

    small = torch.nn.functional.adaptive_avg_pool2d(x.float(), (42, 84)).clamp(-1, 1).flip(2)[:, 0]
    colours = matplotlib.colormaps["magma"](((small + 1) / 2 * 15).round().numpy() / 15)[..., :3]
    both = (np.concatenate(list(colours), 0) * 255).astype(np.uint8)
    return both.repeat(2, 0).repeat(2, 1)


def film_line(points: np.ndarray, colours: list[str], turn: float) -> np.ndarray:
    """A chain (N, 3) of about unit radius, seen from a turning eye."""
    c, s, big = np.cos(turn), np.sin(turn), 4 * PANEL
    x, depth = c * points[:, 0] - s * points[:, 2], s * points[:, 0] + c * points[:, 2]
    place = np.stack([big / 2 + 0.44 * big * x, big / 2 - 0.44 * big * points[:, 1]], 1)
    image = Image.new("RGB", (big, big), "white")
    draw = ImageDraw.Draw(image)
    for i in np.argsort(depth[:-1] + depth[1:]):
        for colour, width in (("white", 26), (colours[i], 16)):
            draw.line([tuple(place[i]), tuple(place[i + 1])], fill=colour, width=width)
    return np.asarray(image.resize((PANEL, PANEL), Image.Resampling.LANCZOS))


def film_plans(x: torch.Tensor) -> np.ndarray:
    """Plans (B, 16, 2) in -1..1, y downwards as on the table."""
    big = 4 * PANEL
    image = Image.new("RGB", (big, big), "white")
    draw = ImageDraw.Draw(image)
    for k, path in enumerate(x.float().numpy()):
        shade = ("#1f77b4", "#d62728", "#101010", "#777777")[k % 4]
        draw.line([tuple((v + 1) / 2 * big) for v in path], fill=shade, width=6)
        for v in (path + 1) / 2 * big:
            draw.ellipse([*(v - 9), *(v + 9)], fill=shade)
    return np.asarray(image.resize((PANEL, PANEL), Image.Resampling.LANCZOS))


def pushed() -> np.ndarray:
    """The start of an episode, as the policy sees it."""
    import gym_pusht  # noqa: F401  # registers the environment
    import gymnasium

    scene = gymnasium.make("gym_pusht/PushT-v0", obs_type="environment_state_agent_pos")
    seen, _ = scene.reset(seed=0)
    return np.concatenate([seen["environment_state"], seen["agent_pos"]])


def panels() -> Iterator[tuple[str, list[np.ndarray]]]:
    """What each model's panel shows: STEPS frames of noise becoming a sample."""

    def walk(name: str, n: int, spread: float, **asked: Any) -> list[torch.Tensor]:
        asked = {"steps": STEPS, "seed": 0} | asked
        found = list(zoo.load(name).sample_iter(n, **asked))
        chosen = [found[round(i)] for i in np.linspace(0, len(found) - 1, STEPS)]
        return [unit(s.x, s.level, spread) for s in chosen]

    labels = ["sneaker", "dress", "bag", "coat"]
    yield "image", [film_pictures(x) for x in walk("image/fashion-ddpm", 4, 1.0, label=labels)]
    yield "audio", [film_sounds(x) for x in walk("audio/spec-ddpm", 2, 1.0, label=["seven", "three"])]
    x = walk("point3d/shapes-ddpm", 1, 0.4, label="chair")
    radius = float(x[-1][0].norm(dim=1).max())  # the net's units are not those of a unit sphere
    yield "point3d", [render(x[i][0].numpy() / radius, 0.9 - i / STEPS, 0.35, PANEL) for i in range(STEPS)]
    x = walk("policy/pusht-keypoints", 4, 0.5, observation=pushed())
    yield "policy", [film_plans(a) for a in x]
    x = walk("protein/backbone-ddpm", 1, 1.0, length=64, steps=100)
    (chain,) = zoo.load("protein/backbone-ddpm").codec.decode(x[-1], {})
    radius = float((x[-1][0, :, 1] - x[-1][0, :, 1].mean(0)).norm(dim=1).max())
    lines = [a[0, :, 1].numpy() / radius for a in x]
    lines = [p - p.mean(0) for p in lines]
    yield "protein", [film_line(p, colours_of(chain), 0.9 - i / STEPS) for i, p in enumerate(lines)]


def draw_film() -> bytes:
    """The film as a GIF: all panels side by side below their names."""
    shown = list(panels())
    frames = []
    for i in range(STEPS):
        page = Image.new("RGB", (len(shown) * (PANEL + 8) - 8, PANEL + 16), "white")
        draw = ImageDraw.Draw(page)
        for k, (name, panel) in enumerate(shown):
            page.paste(Image.fromarray(np.asarray(panel[i])), (k * (PANEL + 8), 16))
            draw.text((k * (PANEL + 8), 2), name, fill="black")
        frames.append(page)
    mixed = Image.new("RGB", (frames[0].width, 3 * frames[0].height))
    for k, i in enumerate((0, 2 * STEPS // 3, STEPS - 1)):
        mixed.paste(frames[i], (0, k * frames[0].height))
    palette = mixed.quantize(63)  # one for all frames: colours do not flicker
    drawn = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    memory, times = io.BytesIO(), [FRAME] * (STEPS - 1) + [REST]
    drawn[0].save(memory, format="GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0, optimize=False)
    return memory.getvalue()


if __name__ == "__main__":
    data = draw_film()
    if len(data) > MOST:
        raise SystemExit(f"the film has {len(data)} bytes, more than {MOST}: fewer STEPS or a smaller PANEL")
    FILM.write_bytes(data)
    print(f"{FILM.relative_to(ROOT)}: {len(data) / 1e3:.0f} kB")

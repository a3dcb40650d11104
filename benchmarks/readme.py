"""Fill the README's picture, models and metrics, and every packaged card, from the packaged models: no figure is typed.

python benchmarks/readme.py            # rewrite README.md and zoo/checkpoints/*/*/README.md
"""

from __future__ import annotations

import json
from pathlib import Path

from gallery import FILM
from pages import filled

import zoo
from zoo.contract.recipe import Recipe
from zoo.contract.registry import CHECKPOINTS, read_evaluation
from zoo.hub.card import metrics_table, model_card

ROOT = Path(__file__).resolve().parents[1]
WORDS = ROOT / "docs" / "words.png"  # of words_to_pictures.py
SHOWN = "image/fashion-ddpm"  # the model whose picture and metrics are shown


def picture() -> str:
    """Words to pictures (`words_to_pictures.py`), the film of noise that becomes samples (`gallery.py`): what has been drawn.

    If neither is there, what the shown model really drew.
    """
    films = {
        WORDS: "captions in several styles, all drawn by image/emoji-text",
        FILM: "noise becomes samples of the packaged models, step by step",
    }
    drawn = {path: about for path, about in films.items() if path.exists()}
    if not drawn and (own := CHECKPOINTS / SHOWN / "samples.png").exists():
        drawn = {own: f"{SHOWN}, its own samples"}
    return "\n\n".join(f"![{about}]({path.relative_to(ROOT).as_posix()})" for path, about in drawn.items())


def models() -> str:
    """The table of all models."""
    lines = ["| model | draws | weights |", "| --- | --- | --- |"]
    for name in zoo.list_models():
        card, weights = zoo.info(name), CHECKPOINTS / name / "model.safetensors"
        size = f"packaged, {weights.stat().st_size / 1e6:.1f} MB" if card.packaged else "train it"
        lines.append(f"| `{name}` | {card.description} | {size} |")
    return "\n".join(lines)


def metrics() -> str:
    """The metrics of the shown model with their protocol."""
    evaluation = zoo.info(SHOWN).evaluation
    if evaluation is None:
        return ""
    p = evaluation["protocol"]
    how = (
        f"{p['samples']} samples, `{p['sampler']}`, {p['steps']} steps, w = {p['guidance_weight']:g}, against {p['reference']}"
    )
    where = f"more in [its card](zoo/checkpoints/{SHOWN}/README.md)"
    return f"`{SHOWN}`: {how}; {where}.\n\n{metrics_table(evaluation)}"


def card(folder: Path) -> str:
    """The card of a packaged model."""
    recipe = Recipe.parse(json.loads((folder / "config.json").read_text(encoding="utf-8"))["recipe"])
    curves = folder / "curves.json"
    return model_card(
        recipe,
        read_evaluation(folder),
        "samples.png",
        json.loads(curves.read_text(encoding="utf-8")) if curves.exists() else None,
        sounds=sorted(p.relative_to(folder).as_posix() for p in folder.glob("samples/*.wav")),
    )


def render(text: str) -> str:
    """The README with everything between its markers made anew."""
    for name, make in {"picture": picture, "models": models, "metrics": metrics}.items():
        text = filled(text, name, make())
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text(encoding="utf-8")), encoding="utf-8")
    for config in CHECKPOINTS.glob("*/*/config.json"):
        (config.parent / "README.md").write_text(card(config.parent), encoding="utf-8")

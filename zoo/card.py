"""Model cards: README.md of a model folder, made from the recipe and the evaluation's JSON, never typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.recipe import Recipe


def metrics_table(evaluation: Mapping[str, Any]) -> str:
    """The metrics of an evaluation as a Markdown table: value, ceiling (real data), floor (noise)."""
    lines = ["| metric | model | real data (ceiling) | noise (floor) | better |", "| --- | --- | --- | --- | --- |"]
    for name, m in evaluation["metrics"].items():
        cells = [f"{m[k]:.4g}" if m.get(k) is not None else "" for k in ("value", "ceiling", "floor")]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} | {m['better']} |")
    return "\n".join(lines)


def model_card(recipe: Recipe, evaluation: Mapping[str, Any] | None = None, picture: str | None = None) -> str:
    """The card as Markdown with YAML front matter."""
    name = f"{recipe.domain}/{recipe.name}"
    parts = [
        f"---\nlibrary_name: zoo\ntags:\n- diffusion\n- {recipe.domain}\n---\n",
        f"# {name}\n\n{recipe.description}\n",
        f'```python\nimport zoo\nsamples = zoo.load("{name}").sample(n=4, seed=0)\nsamples.save("out/")\n```\n',
    ]
    if picture:
        parts.append(f"![samples]({picture})\n")
    if evaluation:
        protocol = "\n".join(f"* {k.replace('_', ' ')}: {v}" for k, v in evaluation["protocol"].items())
        parts.append(f"## Quality\n\n{metrics_table(evaluation)}\n\nProtocol:\n\n{protocol}\n")
    facts = [("Data", recipe.data), ("Licence", recipe.licence), ("Method", recipe.paper)]
    parts += [f"## {title}\n\n{text}\n" for title, text in facts if text]
    return "\n".join(parts)

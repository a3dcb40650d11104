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


def curves_table(curves: Mapping[str, Any]) -> str:
    """Quality over settings (benchmarks/curves.py) as a Markdown table, the real pictures' own figures first."""
    names = list(curves["real"])
    lines = [f"| setting | {' | '.join(n.replace('_', ' ') for n in names)} |", "| --- |" + " --- |" * len(names)]
    for row in [{"real data": None} | curves["real"], *curves["rows"]]:
        setting = ", ".join(f"{k}={v}" if v is not None else k for k, v in row.items() if k not in names)
        lines.append(f"| {setting} | {' | '.join(f'{row[n]:.3f}' for n in names)} |")
    return "\n".join(lines)


def model_card(
    recipe: Recipe,
    evaluation: Mapping[str, Any] | None = None,
    picture: str | None = None,
    curves: Mapping[str, Any] | None = None,
) -> str:
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
    if curves:
        p = curves["protocol"]
        how = f"{p['n']} samples each against the {p['split']} set, the network in {p['precision']}; the rest at the defaults."
        parts.append(f"## Other settings\n\n{how}\n\n{curves_table(curves)}\n")
    setting = ", ".join(f"{k} = {v}" for k, v in recipe.sampling.model_dump().items() if v)
    parts.append(f"## Default setting\n\n{setting}\n")
    facts = [("Data", recipe.data), ("Licence", recipe.licence), ("Method", recipe.paper)]
    parts += [f"## {title}\n\n{text}\n" for title, text in facts if text]
    return "\n".join(parts)

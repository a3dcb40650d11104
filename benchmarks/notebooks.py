"""Notebooks of examples/ from their scripts, which are what is edited and reviewed: python benchmarks/notebooks.py

A script has cells as editors know them (`# %%`, and `# %% [markdown]` for words); the notebook beside it has the same cells, no
outputs, and the same names of cells each time. tests/test_examples.py runs them with smaller settings, in a cell behind
the one with the tag "parameters".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbformat

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def scripts() -> list[Path]:
    """The scripts that have a notebook."""
    return [p for p in sorted(EXAMPLES.glob("*.py")) if p.read_text(encoding="utf-8").startswith("# %%")]


def notebook(script: Path) -> Any:
    """The notebook of a script."""
    found = jupytext.read(script, fmt="py:percent")
    for i, cell in enumerate(found.cells):
        cell["id"] = f"cell-{i}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    return nbformat.from_dict(
        {"cells": found.cells, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5},
    )


def text(script: Path) -> str:
    """The notebook's file."""
    return nbformat.writes(notebook(script), version=4) + "\n"


if __name__ == "__main__":
    for script in scripts():
        script.with_suffix(".ipynb").write_text(text(script), encoding="utf-8")
        print(script.with_suffix(".ipynb").relative_to(EXAMPLES.parent))

"""Figures as aligned text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The "metrics" of a result as aligned text, one metric a line, "-" for what was not measured."""
    columns = [k for k in ("value", "idealised", "ceiling", "retrieval", "floor") if any(k in m for m in metrics.values())]
    lines = [f"{'metric':16}" + "".join(f"{k:>10}" for k in columns) + "  better"]
    for name, m in metrics.items():
        cells = [f"{m[k]:10.4f}" if m.get(k) is not None else f"{'-':>10}" for k in columns]
        lines.append(f"{name:16}{''.join(cells)}  {m['better']}")
    return "\n".join(lines)

"""What programs write into pages: the text between `<!-- name:begin -->` and `<!-- name:end -->`."""

from __future__ import annotations

import re
from pathlib import Path


def filled(text: str, name: str, body: str) -> str:
    """A text whose part of this name is a body."""
    pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
    end = "\n" if body else ""
    text, found = re.subn(pattern, lambda m: f"{m[1]}{body}{end}{m[2]}", text, flags=re.DOTALL)
    if found != 1:
        raise SystemExit(f"{found} parts named {name!r} in the page, it needs one")
    return text


def fill(page: Path, name: str, body: str) -> None:
    """Write a body into a page's part of this name."""
    page.write_text(filled(page.read_text(encoding="utf-8"), name, body), encoding="utf-8")

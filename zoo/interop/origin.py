"""Where a model of other people comes from, and what the card that came with it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from zoo import files
from zoo.errors import ConfigError
from zoo.hub.card import MOST_CARD, split

_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})")


@dataclass(frozen=True)
class Origin:
    """Where a folder comes from, and what its own card says.

    Attributes:
        name: short, for a recipe.
        place: "hub:owner/name@commit", or the folder's name.
        licence, data: of the card's metadata; empty where it says nothing.
        text: of the card.
    """

    name: str
    place: str
    licence: str = ""
    data: str = ""
    text: str = ""


def read_origin(folder: Path) -> Origin:
    """The origin of a folder; a card that cannot be read is none."""
    cached = _CACHED.search(folder.absolute().as_posix())
    place = f"hub:{cached[1]}/{cached[2]}@{cached[3]}" if cached else f"folder {folder.absolute().name}"
    name = re.sub(r"[^\w.-]+", "-", cached[2] if cached else folder.absolute().name).strip("-.") or "model"
    card = folder / files.CARD
    try:
        # a larger file is no card that anybody wrote
        raw = card.read_bytes() if card.is_file() and card.stat().st_size <= MOST_CARD else b""
        facts, text = split(raw.decode("utf-8", "replace"))
    except (OSError, ConfigError):
        return Origin(name, place)
    licence = facts.get("license")
    named = facts.get("license_name") if licence == "other" else None
    data = facts.get("datasets")
    listed = data if isinstance(data, list) else [data] if data else []
    return Origin(name, place, str(named or licence or ""), ", ".join(map(str, listed)), text.strip())

"""Where a model of other people comes from, and what the card that came with it says."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from zoo import files
from zoo.errors import ConfigError
from zoo.hub.card import MOST_CARD, split

#: the licence of a model of which nobody says it
UNKNOWN = "unknown"
#: files of a model's own folder that hold its licence
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md", "COPYING")
#: how the texts of licences begin -> their keys; a text that begins otherwise is named and not guessed at
TITLES = (
    (r"(The )?MIT License", "mit"),
    (r"Apache License,?\s+Version 2\.0", "apache-2.0"),
    (r"(BSD 3-Clause License|The 3-Clause BSD License)", "bsd-3-clause"),
    (r"(BSD 2-Clause License|The 2-Clause BSD License)", "bsd-2-clause"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 3", "gpl-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3", "lgpl-3.0"),
    (r"Mozilla Public License,? [Vv]ersion 2\.0", "mpl-2.0"),
    (r"(Creative Commons )?Attribution-NonCommercial-ShareAlike 4\.0 International", "cc-by-nc-sa-4.0"),
    (r"(Creative Commons )?Attribution-NonCommercial 4\.0 International", "cc-by-nc-4.0"),
    (r"(Creative Commons )?Attribution-ShareAlike 4\.0 International", "cc-by-sa-4.0"),
    (r"(Creative Commons )?Attribution 4\.0 International", "cc-by-4.0"),
)  # fmt: skip
#: characters of a licence's text that are looked at
BEGINNING = 2000
_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})")


@dataclass(frozen=True)
class Origin:
    """Where a folder comes from, and what its own card says.

    Attributes:
        name: short, for a recipe.
        place: "hub:owner/name@commit", or the folder's name.
        licence, data: of the card's metadata, else the licence of the file LICENSE beside it; empty where nothing says it.
        text: of the card.
    """

    name: str
    place: str
    licence: str = ""
    data: str = ""
    text: str = ""


def read_origin(folder: Path) -> Origin:
    """The origin of a folder; a card that cannot be read is none.

    A card of `written_card` says in `origin` where the model is from, which a folder does not.
    """
    cached = _CACHED.search(folder.absolute().as_posix())
    place = f"hub:{cached[1]}/{cached[2]}@{cached[3]}" if cached else f"folder {folder.absolute().name}"
    name = re.sub(r"[^\w.-]+", "-", cached[2] if cached else folder.absolute().name).strip("-.") or "model"
    card = folder / files.CARD
    try:
        # a larger file is no card that anybody wrote
        raw = card.read_bytes() if card.is_file() and card.stat().st_size <= MOST_CARD else b""
        facts, text = split(raw.decode("utf-8", "replace"))
    except (OSError, ConfigError):
        return Origin(name, place, _of_file(folder))
    licence = facts.get("license")
    named = facts.get("license_name") if licence == "other" else None
    data = facts.get("datasets")
    listed = data if isinstance(data, list) else [data] if data else []
    if isinstance(said := facts.get("origin"), str) and said.strip():
        place = f"{said.strip()} ({place})"
    found = str(named or licence or "") or _of_file(folder)
    return Origin(name, place, found, ", ".join(map(str, listed)), text.strip())


def _of_file(folder: Path) -> str:
    """The licence whose text lies in a folder: its key, or the first line of a text that we do not know; "" for none."""
    for name in LICENCE_FILES:
        path = folder / name
        try:
            text = path.read_bytes()[:BEGINNING].decode("utf-8", "replace").strip() if path.is_file() else ""
        except OSError:
            continue
        if text:
            known = (key for begin, key in TITLES if re.match(begin, text.lstrip("# \n")))
            return next(known, None) or f"{name}: {' '.join(text.partition(chr(10))[0].split())[:100]}"
    return ""


def told(origin: Origin, licence: str | None, place: str | None) -> Origin:
    """An origin with what the one who converts it knows.

    Args:
        licence, place: None: nobody says it, and a licence that the folder does not say either is `UNKNOWN`.

    Raises:
        ConfigError: an empty text, or another licence than the folder says.
    """
    for name, text in (("licence", licence), ("origin", place)):
        if text is not None and not text.strip():
            raise ConfigError(f"{name}={text!r}: give a text, or leave it out.")
    if licence is not None and origin.licence and licence.strip().lower() != origin.licence.lower():
        raise ConfigError(
            f"licence={licence!r}: the model comes with the licence {origin.licence!r}, which stays. Leave yours out, or "
            "correct its card."
        )
    found = origin.licence or (UNKNOWN if licence is None else licence.strip())
    return replace(origin, licence=found, place=origin.place if place is None else f"{place.strip()} ({origin.place})")


def written_card(licence: str | None, place: str | None, text: str = "") -> str:
    """The card of a folder that a converter writes, which `read_origin` reads: "" where nobody says anything.

    Args:
        licence, place: of the model, as its publisher says.
        text: of the card that came with it.
    """
    facts = {k: v.strip() for k, v in (("license", licence), ("origin", place)) if v is not None}
    front = f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---\n" if facts else ""
    return front + (f"\n{text.strip()}\n" if text.strip() else "")

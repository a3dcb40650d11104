"""A folder or repository of another package as a model folder of zoo: recipe, safetensors, golden output and card."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo import files
from zoo.contract.formats import FORMATS
from zoo.errors import CheckpointError, ConfigError
from zoo.hub.card import model_card, place
from zoo.interop.origin import read_origin, told
from zoo.model import checkpoint
from zoo.model.golden import golden_inputs
from zoo.model.loading import check_pickles, foreign, format_of, locate

_MARK = re.compile(r"<!-- zoo-card [0-9a-f]{64} -->\s*\Z")


def convert(
    source: str | Path, folder: Path, *, format: str | None = None, licence: str | None = None, origin: str | None = None
) -> tuple[Any, str]:
    """Write a foreign model as a folder of zoo's.

    The golden output is that of the other package's own net, where that package is installed and the net is one of ours:
    `model.verify()` then compares the two.

    Args:
        source: a folder, or hub:owner/name[@revision].
        folder: to write.
        format: of the source; default: by its files.
        licence, origin: of the model, where the source does not say them: who published it under which licence. A licence that
            nobody says is "unknown" in recipe and card.

    Returns:
        the model as it is read from the new folder, and in words what its golden output is of.

    Raises:
        CheckpointError: the source is in no format that we know, or lacks something; and what `zoo.load` raises.
        ConfigError: the folder to write is the source, whose own config.json would be lost; or another licence than the
            source says.
    """
    home = locate(source, format=format)
    if folder.exists() and home.exists() and folder.samefile(home):
        raise ConfigError(f"{folder} is the source, and would be overwritten. Give another folder to write.")
    name = format or format_of(home)
    if name is None:
        check_pickles(home)
        raise CheckpointError(f"{source} is in no format that zoo converts. Known formats: {', '.join(FORMATS)}.")
    model = foreign(home, name)
    if model is None:
        raise CheckpointError(f"{source} is not a folder of the format {name!r}.")
    known = replace(read_origin(home), licence=model.recipe.licence)
    found = told(known, licence, origin)
    # a description says "imported from PLACE", as each format writes it
    about = model.recipe.description.replace(known.place, found.place)
    model.recipe = model.recipe.model_copy(update={"licence": found.licence, "description": about})
    stage = model.recipe.stage
    if stage is not None and stage.recipe and not stage.recipe.get("licence"):  # it came in the same folder
        about_it = dict(stage.recipe) | {"licence": found.licence}
        model.recipe = model.recipe.staged(stage.model_copy(update={"recipe": about_it}))
    card = _MARK.sub("", model_card(model.recipe, domain=model.domain, source=place(folder))).rstrip()
    card += f"\n\n## Origin\n\n{model.recipe.description}\n"
    read = getattr(FORMATS[name], "card", None)
    if read is not None and (text := read(home)):
        card += f"\n## The card that came with it\n\n{text}\n"
    checkpoint.save(model, folder, card=card)
    said = "zoo's own net"
    peer = getattr(FORMATS[name], "golden", None)
    if peer is not None:
        inputs = golden_inputs(model)
        out = peer(model, home, inputs)
        if out is not None:
            path = folder / files.GOLDEN
            files.save_tensors(path, files.load_tensors(path) | {"out": out})
            files.reseal(folder / files.CONFIG)
            said = f"the net of {name} itself"
    from zoo.model.loading import load

    return load(folder), said

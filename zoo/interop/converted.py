"""What formats share whose originals are pickles: folders that a converter wrote, and nets that their tensors must fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import files
from zoo.contract.conditions import Condition, Label
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain
from zoo.errors import CheckpointError, ConfigError, brief
from zoo.interop.origin import Origin, read_origin
from zoo.interop.reading import read_object, read_weights, shapes_in, weights_in
from zoo.model.budget import limited
from zoo.model.model import Model

#: the keys of a converted folder's config.json: the format, and all options of the net and of its noise
FORMAT, OPTIONS = "format", "options"
#: no picture is larger, and no net is told more labels
MOST_SIDE, MOST_LABELS = 16_384, 100_000


def marked(folder: Path, name: str) -> bool:
    """Whether a folder's config.json says that a converter wrote it for this format."""
    try:
        return (folder / files.CONFIG).is_file() and read_object(folder / files.CONFIG).get(FORMAT) == name
    except CheckpointError:
        return False


def read_marked(folder: Path, name: str) -> dict[str, Any]:
    """The options of a folder that `marked` says to be of a format.

    Raises:
        CheckpointError: it holds other keys, or no options.
    """
    path = folder / files.CONFIG
    data = read_object(path)
    options = data.get(OPTIONS)
    if odd := sorted(k for k in data.keys() - {FORMAT, OPTIONS} if not k.startswith("_")):
        raise CheckpointError(
            f"{path} has keys that zoo does not know: {', '.join(odd[:5])}. A folder of {name} says {FORMAT!r} and {OPTIONS!r}."
        )
    if not isinstance(options, dict):
        raise CheckpointError(
            f"{path} has no object {OPTIONS!r}, which holds the options of {name}. Convert the checkpoint again."
        )
    return options


def agree(facts: Mapping[str, tuple[Any, Any]], path: Path) -> None:
    """Refuse options that are not those of the tensors.

    Args:
        facts: {option: (what was said, what the tensors say)}.
        path: of the options, for messages.

    Raises:
        CheckpointError: it names all of them.
    """
    wrong = [f"{k}={brief(said)} where the tensors say {brief(found)}" for k, (said, found) in facts.items() if said != found]
    if wrong:
        raise CheckpointError(f"{path}: options that do not fit the tensors beside it: {'; '.join(wrong)}. Correct them.")


def pictures(
    origin: Origin, kind: str, path: Path, *, size: int, channels: int, labels: int = 0, notes: Iterable[str] = (), **parts: Any
) -> Recipe:
    """The recipe of an imported model of square pictures.

    Args:
        kind: what it is, for its description, and for messages.
        path: of its options, for messages.
        labels: how many it is told; each sample draws one where nobody gives it, since the net was told of no null.
        notes: further sentences of the description.
        parts: further keys of the recipe.

    Raises:
        CheckpointError: pictures that zoo has not, or more labels than any net.
    """
    if not 1 <= size <= MOST_SIDE or channels not in (1, 3):
        raise CheckpointError(
            f"{path}: pictures of {size} x {size} with {channels} channels; zoo has 1 (grey) or 3 (RGB), and up to "
            f"{MOST_SIDE:,} pixels a side."
        )
    if labels > MOST_LABELS:
        raise CheckpointError(f"{path}: {labels:,} labels; zoo has up to {MOST_LABELS:,}.")
    conditions: dict[str, Condition] = {}
    if labels:
        conditions["label"] = Label(values=tuple(map(str, range(labels))), free="draw")
    return Recipe.parse(
        {
            "name": origin.name,
            "domain": "image",
            "description": " ".join([f"{kind}, imported from {origin.place}.", *notes]),
            "licence": origin.licence,
            "data": origin.data,
            "codec": {"size": size, "channels": channels},
            "conditions": conditions,
        }
        | parts
    )


def label_of(conditions: Mapping[str, Condition] | None, named: str) -> Label | None:
    """The label that a net is told beside the picture and the noise; None where it is told nothing.

    Raises:
        ConfigError: other conditions; `named` is the net's, for the message.
    """
    label = (conditions or {}).get("label")
    if len(conditions or {}) != (label is not None) or not isinstance(label, Label | None):
        raise ConfigError(f'{named}: the net is told a label or nothing: its recipe has the condition "label" alone.')
    return label


def built(recipe: Recipe, paths: list[Path], rename: Callable[[str], str] = str) -> Model:
    """A model whose net is filled by these files, after `rename`; nothing larger than they are is built.

    Raises:
        CheckpointError: weights that are not those of the net.
    """
    with limited(shapes_in(paths), paths[0].parent, weights=paths[0].name):
        model = Model(recipe, get_domain(recipe.domain), filled=False)
    files.load_strict(model.denoiser, read_weights(paths, rename), paths[0])
    return model


@dataclass(frozen=True)
class ConvertedFormat:
    """Folders that a converter wrote: config.json with the format and all options, and model.safetensors.

    Attributes:
        name: of the format.
        how: what converts a checkpoint, for messages.
        read: (options, shapes of the weights, path of the options, origin) -> recipe.
        rename: name of a tensor of the file -> that in the net.
    """

    name: str
    how: str
    read: Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]], Path, Origin], Recipe]
    rename: Callable[[str], str] = str

    def recognises(self, folder: Path) -> bool:
        """By a config.json that names the format."""
        return marked(folder, self.name)

    def load(self, folder: Path) -> Model:
        """The model of a folder.

        Raises:
            CheckpointError, ConfigError: an option that is missing, unknown, not supported or another than the tensors say;
                wrong weights.
        """
        options, paths = read_marked(folder, self.name), weights_in(folder, "model", self.how)
        return built(self.read(options, shapes_in(paths), folder / files.CONFIG, read_origin(folder)), paths, self.rename)

    def card(self, folder: Path) -> str:
        """The text of a folder's own card."""
        return read_origin(folder).text

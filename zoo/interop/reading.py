"""What all formats need: JSON of other people's folders, checked key by key, and their weights as safetensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo import files
from zoo.errors import CheckpointError, brief, one_of
from zoo.model.loading import PICKLES

#: how many parts a weights file comes in: model-00001-of-00003.safetensors
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")


@dataclass(frozen=True)
class Options:
    """The keys of somebody's JSON, taken one by one, so that what nobody took can be named in the end.

    Args:
        given: the JSON object. Keys that start with "_" are notes of its writer and are passed over.
        what: whose it is, for messages.
        path: the file, for messages.
    """

    given: Mapping[str, Any]
    what: str
    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "_left", {k: v for k, v in self.given.items() if not k.startswith("_")})

    def _take(self, key: str) -> Any:
        left: dict[str, Any] = self._left  # type: ignore[attr-defined]
        return left.pop(key)

    def __contains__(self, key: str) -> bool:
        return key in self._left  # type: ignore[attr-defined]

    def needed(self, key: str) -> Any:
        """A key that each version writes: its absence is an error, since defaults moved between versions."""
        if key not in self:
            raise CheckpointError(
                f"{self.path} has no key {key!r}, without which a {self.what} is not known: defaults are not guessed. Add it "
                "as the model was trained."
            )
        return self._take(key)

    def later(self, key: str, before: Any) -> Any:
        """A key that came with a later version; `before` is what was so before there was a choice."""
        return self._take(key) if key in self else before

    def only(self, key: str, *allowed: Any) -> None:
        """A key of which we can do these values alone; absent is as good as the first.

        Raises:
            CheckpointError: another value.
        """
        value = self.later(key, allowed[0])
        if value not in allowed:
            raise CheckpointError(
                f"{self.path}: {key}={brief(value)} of a {self.what} is not supported. Supported: "
                f"{', '.join(repr(a) for a in allowed)}."
            )

    def choice(self, key: str, table: Mapping[Any, Any], *, before: Any = None, needed: bool = False) -> Any:
        """What a table says of a key's value; a value that is not in it is an error with what is."""
        value = self.needed(key) if needed else self.later(key, before)
        return looked_up(value, table, f"{key} of the {self.what} in {self.path}")

    def number(self, key: str, before: float | None = None) -> Any:
        """A number; without `before` it is needed."""
        value = self.needed(key) if before is None else self.later(key, before)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CheckpointError(f"{self.path}: {key}={brief(value)} of a {self.what}; it must be a number.")
        return value

    def flag(self, key: str, before: bool | None = None) -> bool:
        """True or false; without `before` it is needed."""
        value = self.needed(key) if before is None else self.later(key, before)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.path}: {key}={brief(value)} of a {self.what}; it must be true or false.")
        return value

    def end(self, without_effect: Iterable[str] = ()) -> None:
        """Refuse keys that nobody took: an option that we do not know may change what the model does.

        Args:
            without_effect: keys that are known to do nothing here.
        """
        left: dict[str, Any] = self._left  # type: ignore[attr-defined]
        if odd := sorted(left.keys() - set(without_effect)):
            shown = ", ".join(f"{k}={brief(left[k])}"[:100] for k in odd[:5])
            raise CheckpointError(
                f"{self.path} has options of a {self.what} that zoo does not know: {shown}. What they change is not known, so "
                "the model is not loaded."
            )


def looked_up(value: Any, table: Mapping[Any, Any], what: str) -> Any:
    """What a table says of a value of somebody's JSON, which may also be a list or an object.

    Raises:
        CheckpointError: it is not in the table.
    """
    if isinstance(value, list | dict) or value not in table:
        raise one_of(what, value, table, CheckpointError, listed="Supported")
    return table[value]


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number that a net can have."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


#: of each kind of value what is said of it, and whether a value is one
FITS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "whole": ("a whole number of at least 1", lambda v: is_whole(v) and v >= 1),
    "count": ("a whole number of at least 0", lambda v: is_whole(v) and v >= 0),
    "number": ("a finite number", lambda v: is_whole(v) or (isinstance(v, float) and math.isfinite(v))),
    "positive": ("a finite number above 0", lambda v: FITS["number"][1](v) and v > 0),
    "flag": ("true or false", lambda v: isinstance(v, bool)),
    "text": ("a text", lambda v: isinstance(v, str)),
    "wholes": ("a list of whole numbers of at least 1", lambda v: isinstance(v, list) and all(map(FITS["whole"][1], v))),
    "list": ("a list", lambda v: isinstance(v, list)),
    "texts": ("a list of texts", lambda v: isinstance(v, list) and all(isinstance(t, str) for t in v)),
}


def checked(options: Mapping[str, Any], kinds: Mapping[str, str], what: str, path: Path) -> None:
    """Refuse options of another kind than a class takes: it would fail far from here, or take a text for True.

    Args:
        kinds: {option: kind of `FITS`}, with "?" behind it where it may be null; several divided by "|" are all allowed.
        what: the class, for messages.

    Raises:
        CheckpointError: it names the option.
    """
    for key, kind in kinds.items():
        if key not in options:
            continue
        value, named = options[key], kind.removesuffix("?").split("|")
        if not (any(FITS[n][1](value) for n in named) or (value is None and kind.endswith("?"))):
            raise CheckpointError(
                f"{path}: {key}={brief(value)} of a {what}; it must be {' or '.join(FITS[n][0] for n in named)}."
            )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        CheckpointError: it is missing, is not JSON, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: the folder is not complete.")
    found = files.read_json(path, infinite=True)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return found


def weights_in(folder: Path, stem: str, how: str) -> list[Path]:
    """The safetensors files of a folder that hold one set of weights, whole or in parts.

    Args:
        stem: of their names: "diffusion_pytorch_model".
        how: to convert pickles, for the error where there is nothing else.

    Raises:
        CheckpointError: there are none, a part is missing, or only pickles.
    """
    names = sorted(p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    whole = [n for n in names if n == f"{stem}.safetensors"] or [n for n in names if n == f"{stem}.fp16.safetensors"]
    if whole:
        return [folder / whole[0]]
    parts = [n for n in names if n.startswith(f"{stem}-") and n.endswith(".safetensors")]
    numbered = {n: m for n in parts if (m := _PART.search(n.removesuffix(".safetensors")))}
    if numbered:
        count = int(next(iter(numbered.values()))[2])
        wanted = [f"{stem}-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)] if count <= 1000 else []
        if missing := [n for n in wanted if n not in names]:
            raise CheckpointError(f"{folder} is not complete: {', '.join(missing[:3])} of {count} parts are missing.")
        if sorted(numbered) != wanted:
            raise CheckpointError(f"{folder} holds parts of several sets of weights: {', '.join(sorted(numbered)[:5])}.")
        return [folder / n for n in wanted]
    if pickles := [n for n in names if n.endswith(PICKLES)]:
        raise CheckpointError(f"{folder / pickles[0]} is a pickle, which can run code: zoo never opens one. {how}")
    raise CheckpointError(f"{folder} holds no {stem}.safetensors: its weights are missing.")


def read_weights(paths: Iterable[Path], rename: Callable[[str], str] = str) -> dict[str, Tensor]:
    """The tensors of some files together, by their names after `rename`; the tensors stay in the files.

    Raises:
        CheckpointError: two tensors of one name.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        for key, tensor in files.load_tensors_metadata(path, mapped=True)[0].items():
            if (name := rename(key)) in found:
                raise CheckpointError(f"{path}: two tensors are {name}; the one that is meant is not known.")
            found[name] = tensor
    return found


def shapes_in(paths: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of some files, from their headers alone."""
    return {k: shape for path in paths for k, shape in files.load_shapes(path).items()}

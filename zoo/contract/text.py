"""Text as a condition: words of a frozen table, in their order. Loads no torch by itself.

A text becomes whole numbers (length,): row + 1 of each word, then zeros; "not given" is -1 everywhere.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from zoo.contract.conditions import Condition, Given, Reading, condition
from zoo.contract.page import Question
from zoo.contract.typed import typed
from zoo.contract.words import WordTable, table
from zoo.errors import ConfigError
from zoo.values import for_each

if TYPE_CHECKING:
    from torch import Tensor, nn

#: the packaged table, and the SHA-256 of its file
MINILM, MINILM_SHA256 = "minilm-words", "3b62adad589019c79bbc59e04ed34bb6453e746342098006a8099b686218f69b"

#: the Hub's names of what models make of text
TASKS = {"image": "text-to-image", "audio": "text-to-audio", "point3d": "text-to-3d", "video": "text-to-video"}


class Written(Condition):
    """Base of conditions that are texts, however they are read.

    Attributes:
        examples: texts that show what the model can do, for its card.
    """

    examples: tuple[str, ...] = ()

    def showcase(self, n: int) -> list[Any] | None:
        return [self.examples[i % len(self.examples)] for i in range(n)] if self.examples else None

    def task(self, domain: str) -> str | None:
        return TASKS.get(domain)

    def parse(self, text: str) -> Any:
        """A text as it is, commas included; a JSON list is one text a sample, and "none" is none."""
        if text.strip().startswith("["):
            try:
                found = typed(text)
            except ConfigError:
                return text
            if isinstance(found, list):
                return found
        return None if text.strip().casefold() == "none" else text

    def question(self) -> Question:
        return Question("text", choices=self.examples)

    def placeholder(self) -> str | None:
        return json.dumps(self.examples[0] if self.examples else "a red car", ensure_ascii=False)


@condition("text")
class Text(Written):
    """English words, in their order; left out, or empty, it is the learned null.

    Attributes:
        encoder, sha256: id of the frozen table of words, and the hash of its file. Another table is an error.
        length: words that are read at most.
        width, depth, heads: of the small transformer that is trained on top of the table.
    """

    kind: Literal["text"] = "text"
    encoder: str = MINILM
    sha256: str = MINILM_SHA256
    length: int = Field(16, ge=1, le=256)
    width: int = Field(128, ge=8, le=4096)
    depth: int = Field(2, ge=1, le=64)
    heads: int = Field(4, ge=1)

    @field_validator("encoder")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", value):
            raise ConfigError(f"the text encoder {value!r}: an id has lower-case letters, digits, '.', '_' and '-'.")
        return value

    @field_validator("sha256")
    @classmethod
    def _digest(cls, value: str) -> str:
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise ConfigError("give the SHA-256 of the encoder's file: 64 hex digits.")
        return value

    @property
    def table(self) -> WordTable:
        """The frozen table; an error where it is not here, or another one."""
        return table(self.encoder, self.sha256)

    def read(self, value: Any, n: int, reading: Reading | None = None) -> Given:
        import torch

        name = (reading or Reading()).name
        if value is None:
            return Given(self.null(n), [None] * n)
        given = [_text(v, name) for v in self._each(value, n, name)]
        unknown: list[str] = []
        empty: list[str] = []
        changed: list[str] = []
        long: list[str] = []
        rows, shown = [], []
        for one in given:
            if not isinstance(one, str):
                rows.append(self._ids(one, name))
                shown.append(self._words(rows[-1]))
                continue
            found = self.table.read(one)
            unknown += [w for w in found.unknown if w not in unknown]
            if one.strip() and not found.rows and one not in empty:
                empty.append(one)
            used = " ".join(self.words_used(one))
            if found.unknown and used and used not in changed:
                changed.append(used)
            if len(found.rows) > self.length and used not in long:
                long.append(used)
            rows.append(self._row(one))
            shown.append(one if found.rows else None)
        self._warn(name, unknown, changed, empty, long)
        return Given(torch.tensor(rows, dtype=torch.int64).reshape(n, self.length), shown)

    def among(self, found: Condition) -> Condition:
        """Data have texts: how they are read is the recipe's."""
        return self if isinstance(found, Text) else found

    def _each(self, value: Any, n: int, name: str) -> list[Any]:
        """The value of each of n samples; a row of whole numbers (length,) is one text."""
        if hasattr(value, "ndim") and not isinstance(value, str) and value.ndim:
            value = value.tolist()
        if isinstance(value, (list, tuple)) and value and all(is_row(v) for v in value):
            value = [v.tolist() if hasattr(v, "tolist") else list(v) for v in value]
        elif is_row(value) and len(value) == self.length:
            return [list(value)] * n
        return for_each(value, n, name)

    def words_used(self, text: str) -> tuple[str, ...]:
        """The words of the table that a text is read as."""
        found = self.table
        return tuple(found.words[i] for i in found.read(text).rows[: self.length])

    def _words(self, row: list[int]) -> str | None:
        """A row of whole numbers as words; None for the null."""
        found = [self.table.words[k - 1] for k in row if k > 0]
        return " ".join(found) or None

    def _row(self, text: str) -> list[int]:
        """A text as (length,) whole numbers."""
        rows = [k + 1 for k in self.table.read(text).rows[: self.length]]
        return rows + [0] * (self.length - len(rows)) if rows else [-1] * self.length

    def _ids(self, value: Any, name: str) -> list[int]:
        """None, or whole numbers as a net receives them, checked."""
        if value is None:
            return [-1] * self.length
        row = [int(v) for v in value]
        if len(row) != self.length or max(row) > len(self.table) or min(row) < -1:
            raise ConfigError(
                f"{name}: {len(row)} whole numbers from {min(row)} to {max(row)}; give a text, or {self.length} numbers from 0 "
                f"to {len(self.table)} (row + 1 of each word, then zeros)."
            )
        return [-1] * self.length if min(row) < 0 or not any(row) else row

    def _warn(self, name: str, unknown: list[str], changed: list[str], empty: list[str], long: list[str]) -> None:
        """One warning of all that was not read as it was written, and of what was used in its place.

        Args:
            unknown: words that are left out.
            changed: what is left of texts without them.
            empty: texts without any known word.
            long: what was used of texts with more words than are read.
        """
        said = []
        if unknown:
            used = f" Used: {_listed(changed)}." if changed else ""
            said.append(f"not known and left out: {self.table.unknown_words(unknown)}{used}")
        if empty:
            said.append(f"No known word in {_listed(empty)}: sampled as without a text.")
        if long:
            said.append(f"More than {self.length} words, of which the first {self.length} were used: {_listed(long)}.")
        if said:
            warnings.warn(f"{name}: {' '.join(said)}", stacklevel=5)

    def batch(self, values: Sequence[Any], reading: Reading | None = None) -> Tensor:
        import torch

        name = (reading or Reading()).name
        rows = []
        for value in values:
            one = _text(value.tolist() if hasattr(value, "tolist") else value, name)
            rows.append(self._row(one) if isinstance(one, str) else self._ids(one, name))
        return torch.tensor(rows, dtype=torch.int64)

    def about(self, values: Sequence[Any]) -> str:
        """How many different texts there are, and which words of them are not known."""
        texts = dict.fromkeys(v for v in values if isinstance(v, str))
        unknown = dict.fromkeys(word for text in texts for word in self.table.read(text).unknown)
        found = f"{len(texts):,} different text{'' if len(texts) == 1 else 's'}"
        if unknown:
            found += f", {len(unknown):,} words not known: {self.table.unknown_words(list(unknown)).rstrip('.')}"
        silent = sum(not isinstance(v, str) or not self.table.read(v).rows for v in values)
        return found + (f", {silent:,} samples without a known word" if silent else "")

    def null(self, n: int) -> Tensor:
        import torch

        return torch.full((n, self.length), -1)

    def example(self, n: int, rng: torch.Generator | None = None) -> Tensor:  # type: ignore[name-defined]  # noqa: F821
        import torch

        from zoo.core import seeds

        rng = seeds.generator(n) if rng is None else rng
        values = torch.randint(1, len(self.table) + 1, (n, self.length), generator=rng)
        count = torch.randint(1, self.length + 1, (n, 1), generator=rng)
        return torch.where(torch.arange(self.length) < count, values, 0)

    def embedding(self, dim: int) -> nn.Module:
        import torch

        from zoo.nets.text import TextEmbedding

        found = self.table
        vectors, scale = torch.from_numpy(found.vectors), torch.from_numpy(found.scale)
        return TextEmbedding(vectors, scale, dim, self.length, self.width, self.depth, self.heads)

    def describe(self) -> str:
        return f"English words{f', such as {self.examples[0]!r}' if self.examples else ''}"


def is_row(value: Any) -> bool:
    """Whether this is a row of whole numbers: what a net receives, and no text."""
    if getattr(value, "ndim", None) == 1:
        value = value.tolist()
    return isinstance(value, (list, tuple)) and bool(value) and all(type(v) is int for v in value)


def _listed(texts: Sequence[str], most: int = 3) -> str:
    """The first of some texts, cut to a length that is read."""
    shown = [repr(t if len(t) <= 100 else f"{t[:100]}...") for t in texts[:most]]
    return ", ".join(shown) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _text(value: Any, name: str) -> Any:
    """A text, None, or a row of whole numbers; anything else raises."""
    if value is None or is_row(value):
        return value
    if isinstance(value, (bytes, bytearray)):
        raise ConfigError(f"{name}={bytes(value[:20])!r}: these are bytes; give a text: value.decode().")
    if not isinstance(value, str):
        raise ConfigError(f"{name}={_short(value)} ({type(value).__name__}) is not a text: give one, e.g. 'red sports car'.")
    return str(value)

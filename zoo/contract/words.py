"""A frozen table of words: the reading of a text as rows of it. Loads no torch by itself.

A table is named by its id and by the SHA-256 of its file. It is packaged with zoo, or a program adds its own by `add_table`;
none is ever fetched.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from zoo.disk import hash_of
from zoo.errors import CheckpointError, ConfigError, one_of

#: where the packaged tables are, a folder each
TABLES = Path(__file__).parents[1] / "checkpoints" / "text"
FILE = "encoder.safetensors"
#: {id: folder} of tables that a program added
_ADDED: dict[str, Path] = {}
#: characters of a text that are read at most
MOST_CHARACTERS = 4_000
#: letters of the shortest part that an unknown word is split into, and parts at most
SHORTEST, MOST_PARTS = 3, 3
#: letters of the longest word that is looked at: longer ones are no words
LONGEST = 40
#: digits of the longest number that is read digit by digit
LONGEST_NUMBER = 6
#: unknown words that a message names, and of how many the nearest known ones are looked for
NAMED, NEAREST = 8, 3
#: endings of a word, and what its stem ends in instead: tried where the word itself is not known
ENDINGS = (
    ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""),
    ("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"), ("er", ""), ("er", "e"), ("ish", ""), ("ly", ""), ("y", ""),
)  # fmt: skip
_POSSESSIVE = re.compile("(?<=\\w)['`\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}\N{ACUTE ACCENT}]s\\b")
#: plural endings, what the singular ends in instead, and how alike the two vectors are at least (cosine) where it is one:
#: "dogs" and "dog" are at .70, "glasses" and "glass" at .69, "news" and "new" at .13
PLURALS = (("s", "", 0.7), ("es", "", 0.7), ("ies", "y", 0.3), ("ves", "f", 0.7), ("ves", "fe", 0.7))
_ORDINAL = re.compile(r"(?<=\d)(st|nd|rd|th)\b")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
#: marks that say how an emoji is shown, and join several: skin tones, variation selectors, joiners, tags
_SILENT = re.compile("[\U0001f3fb-\U0001f3ff\ufe00-\ufe0f\u200b-\u200d\u20e3\U000e0020-\U000e007f]")
_FLAG = re.compile("([\U0001f1e6-\U0001f1ff])([\U0001f1e6-\U0001f1ff])")


@dataclass(frozen=True)
class Read:
    """What a text is for a table.

    Attributes:
        rows: of the table, one a word, in the order of the text.
        unknown: words of the text that are left out.
    """

    rows: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class WordTable:
    """Words and their vectors, never trained.

    Attributes:
        words: as they are looked up: in lower case, without accents.
        vectors: (n, size) int8; word i is vectors[i] * scale[i] / 127.
        scale: (n,) float32.
    """

    words: Sequence[str]
    vectors: Any
    scale: Any
    _read: dict[str, Read] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def row(self) -> dict[str, int]:
        """The row of each word."""
        return {word: i for i, word in enumerate(self.words)}

    def read(self, text: str) -> Read:
        """A text as rows. Case, plural, accents and punctuation do not matter; other forms lead to a known one.

        Raises:
            ConfigError: a text of more than `MOST_CHARACTERS`.
        """
        found = self._read.get(text)
        if found is None:
            if len(text) > MOST_CHARACTERS:
                raise ConfigError(
                    f"a text of {len(text):,} characters ({text[:40]!r}...): at most {MOST_CHARACTERS:,} are read. "
                    "Give a caption."
                )
            found = self._look_up(text)
            if len(self._read) < 100_000:
                self._read[text] = found
        return found

    def _look_up(self, text: str) -> Read:
        rows: list[int] = []
        unknown: list[str] = []
        for token in tokens(text):
            parts = self.parts(token)
            if parts:
                rows += [self.row[part] for part in parts]
            elif token not in unknown:
                unknown.append(token)
        return Read(tuple(rows), tuple(unknown))

    def parts(self, word: str) -> list[str]:
        """The known words that a word of a text stands for: itself, its stem, or those that it is made of; none if none."""
        if word in self.row:
            return [self.singular(word)]
        if word.isdigit():
            return list(word) if len(word) <= LONGEST_NUMBER else []
        for ending, instead in ENDINGS:
            stem = word[: len(word) - len(ending)] + instead
            if word.endswith(ending) and len(stem) >= SHORTEST:
                undoubled = stem[:-1] if len(stem) > SHORTEST and stem[-1] == stem[-2] and ending not in ("s", "es") else stem
                for one in (stem, undoubled):
                    if one in self.row:
                        return [one]
        found = self._split(word)
        if not found and word.endswith("s"):  # fire trucks in one word
            found = self._split(word[:-1])
        return found

    def singular(self, word: str) -> str:
        """The singular of a known word, where it is known and means the same; else the word."""
        for ending, instead, least in PLURALS:
            one = word[: len(word) - len(ending)] + instead
            if word.endswith(ending) and len(one) >= SHORTEST and one in self.row and self.alike(word, one) >= least:
                return one
        return word

    def alike(self, one: str, other: str) -> float:
        """The cosine between the vectors of two known words."""
        a, b = (self.vectors[self.row[word]].astype("float64") for word in (one, other))
        sizes = float((a @ a) * (b @ b))
        return float(a @ b) / sizes**0.5 if sizes else 0.0

    def _split(self, word: str) -> list[str]:
        """The word cut into as few known ones as possible, the first of them as long as it can be; none if it cannot be cut."""
        if len(word) > LONGEST:
            return []
        best: list[list[str] | None] = [None] * len(word) + [[]]
        for start in range(len(word) - SHORTEST, -1, -1):
            for end in range(len(word), start + SHORTEST - 1, -1):
                rest, before = best[end], best[start]
                if rest is None or word[start:end] not in self.row:
                    continue
                if before is None or len(rest) + 1 < len(before):
                    best[start] = [word[start:end], *rest]
        found = best[0] or []
        return found if len(found) <= MOST_PARTS else []

    def nearest(self, word: str) -> list[str]:
        """Known words that are spelled about like this one."""
        alike = [w for w in self.words if abs(len(w) - len(word)) <= 2 and (w[0] == word[0] or w[-2:] == word[-2:])]
        return difflib.get_close_matches(word, alike, n=2, cutoff=0.7) if len(word) <= LONGEST else []

    def unknown_words(self, unknown: Sequence[str]) -> str:
        """What a message says of unknown words: the first of them with the nearest known ones."""
        said = []
        for k, word in enumerate(unknown[:NAMED]):
            near = self.nearest(word) if k < NEAREST and word.isascii() else []
            shown = word if len(word) <= LONGEST else f"{word[:LONGEST]}..."
            said.append(repr(shown) + (f" (nearest: {', '.join(near)})" if near else ""))
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        foreign = "" if all(word.isascii() for word in unknown) else " Words are English ones, in Latin letters."
        return f"{', '.join(said)}{more}.{foreign}"


def tokens(text: str) -> Iterator[str]:
    """Words and whole numbers of a text, in lower case and without accents; an emoji and other signs by their Unicode names."""
    text = _FLAG.sub(lambda m: f" flag {''.join(chr(ord(c) - 0x1F1E6 + ord('a')) for c in m.groups())} ", text)
    text = _SILENT.sub("", text)
    spelled = []
    for letter in text:
        if not letter.isascii() and unicodedata.category(letter) in ("So", "Sm", "Sc", "No"):
            spelled.append(f" {unicodedata.name(letter, '').replace('-', ' ')} ")
        else:
            spelled.append(letter)
    plain = unicodedata.normalize("NFKD", "".join(spelled)).casefold()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    for token in _TOKEN.findall(_ORDINAL.sub("", _POSSESSIVE.sub("", plain))):
        yield str(int(token)) if token.isdecimal() and not token.isascii() else token


def add_table(name: str, folder: str | Path) -> None:
    """Let conditions of this program name the table in `folder`/encoder.safetensors.

    Raises:
        ConfigError: a packaged table has the name. CheckpointError: there is no such file.
    """
    if (TABLES / name / FILE).exists():
        raise ConfigError(f"the text encoder {name!r} is packaged with zoo. Give yours another name.")
    if not (Path(folder) / FILE).is_file():
        raise CheckpointError(f"{folder} holds no {FILE}: it is not a text encoder.")
    _ADDED[name] = Path(folder)
    table.cache_clear()


def table_names() -> list[str]:
    """The ids of all tables that are here."""
    return sorted({path.parent.name for path in TABLES.glob(f"*/{FILE}")} | set(_ADDED))


@lru_cache(maxsize=8)
def table(name: str, sha256: str) -> WordTable:
    """The table of this id, whose file has this hash.

    Raises:
        ConfigError: no table has the id. CheckpointError: a file with another hash, or one that is not a table.
    """
    if name not in table_names():
        raise one_of("text encoder", name, table_names())
    from zoo.files import load_tensors

    path = _ADDED.get(name, TABLES / name) / FILE
    found = hash_of(path)
    if found != sha256:
        raise CheckpointError(
            f"the text encoder {name!r} is another one than the model was trained with: {path} has the SHA-256 "
            f"{found[:12]}..., the recipe names {sha256[:12]}... Use the file that the recipe names."
        )
    tensors = load_tensors(path)
    try:
        words = tensors["words"].numpy().tobytes().decode().split("\n")
        vectors, scale = tensors["vectors"].numpy(), tensors["scale"].numpy()
        fits = vectors.ndim == 2 and str(vectors.dtype) == "int8" and scale.shape == (len(words),) == vectors.shape[:1]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not a table of words ({error}).") from None
    if not fits or len(set(words)) != len(words):
        raise CheckpointError(f"{path} is not a table of words: {len(words)} words, vectors {vectors.shape}.")
    return WordTable(words, vectors, scale)

"""Texts as the text encoders of Stable Diffusion read them: the byte pairs of CLIP (Radford et al. 2021), as a condition.

The vocabulary is part of the recipe, so that a model's folder is whole; what reads with it is transformers' own class. A text
becomes whole numbers (length,); "not given" is -1 everywhere, and so is a text without any word: both are the empty text, which
is what such nets were trained with in its place.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from zoo import files
from zoo.contract.conditions import Condition, Given, Reading, condition
from zoo.contract.text import Written, is_row
from zoo.errors import CheckpointError, ConfigError
from zoo.extras import need
from zoo.interop.reading import Options, read_object
from zoo.values import for_each

if TYPE_CHECKING:
    from torch import Tensor, nn

EXTRA = "interop"
#: the tokens that have a meaning of their own
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
#: what a file of merges may have: CLIP's has half a MB (bytes)
MOST_MERGES = 32 << 20
#: how much of a text messages show
SHOWN = 80
CONFIG, WHOLE, VOCABULARY, MERGES, MAP = (
    "tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json"
)  # fmt: skip


@functools.lru_cache(maxsize=4)
def reader(tokens: str, merges: str, special: tuple[tuple[str, str], ...], length: int) -> Any:
    """transformers' reader of a vocabulary.

    Raises:
        ConfigError: transformers is not installed, or the vocabulary is not one.
    """
    package = need("transformers", EXTRA)
    if int(package.__version__.partition(".")[0]) < 5:
        raise ConfigError(
            f"transformers {package.__version__} makes no tokenizer of a vocabulary that is not in files: "
            f'pip install "diffusion-zoo[{EXTRA}]" installs one that does.'
        )
    table = {token: i for i, token in enumerate(tokens.split("\n"))}
    pairs = [tuple(line.split(" ")) for line in merges.split("\n") if line]
    try:
        return package.CLIPTokenizer(vocab=table, merges=pairs, model_max_length=length, **dict(special))
    except Exception as error:  # its library raises plain ones
        raise ConfigError(f"the vocabulary of a text condition is not one of CLIP's kind: {error}.") from error


@condition("clip-text")
class Prompt(Written):
    """A text, as CLIP's byte pairs; left out, or empty, it is the empty text.

    Attributes:
        tokens: the vocabulary, a token a line: the first line is number 0.
        merges: pairs of tokens that become one, two with a blank between on a line, the first ones first.
        special: the tokens at the beginning and at the end, of padding, and for what is not known.
        blank: the numbers of the empty text; as many are read of each text.
    """

    kind: Literal["clip-text"] = "clip-text"
    tokens: str = Field(repr=False, min_length=1)
    merges: str = Field(repr=False)
    special: dict[str, str]
    blank: tuple[int, ...] = Field(repr=False, min_length=2, max_length=4096)

    @field_validator("special")
    @classmethod
    def _named(cls, value: dict[str, str]) -> dict[str, str]:
        if set(value) != set(SPECIAL):
            raise ConfigError(f"special: {', '.join(sorted(value)) or 'nothing'}; give {', '.join(SPECIAL)}.")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Prompt:
        tokens = self.tokens.split("\n")
        known = set(tokens)
        if len(known) != len(tokens):
            raise ConfigError("the vocabulary of a text condition has a token twice.")
        if missing := sorted(set(self.special.values()) - known):
            raise ConfigError(f"the vocabulary of a text condition lacks {', '.join(map(repr, missing))}.")
        if not all(0 <= i < len(tokens) for i in self.blank):
            raise ConfigError(f"blank: numbers of tokens from 0 to {len(tokens) - 1}.")
        return self

    @property
    def length(self) -> int:
        """How many tokens are read of a text, those at its ends counted."""
        return len(self.blank)

    @property
    def size(self) -> int:
        """How many tokens the vocabulary has."""
        return self.tokens.count("\n") + 1

    @property
    def reader(self) -> Any:
        """transformers' reader of this vocabulary."""
        return reader(self.tokens, self.merges, tuple(sorted(self.special.items())), self.length)

    def ids(self, text: str) -> list[int]:
        """A text as numbers (length,), cut at its end where it is longer; the empty one as -1 everywhere."""
        found = self.reader(text, padding="max_length", max_length=self.length, truncation=True).input_ids
        return [-1] * self.length if tuple(found) == self.blank else list(found)

    def read(self, value: Any, n: int, reading: Reading | None = None) -> Given:
        import torch

        name = (reading or Reading()).name
        if value is None:
            return Given(self.null(n), [None] * n)
        if hasattr(value, "tolist"):
            value = value.tolist()
        given = [value] * n if is_row(value) else for_each(value, n, name)
        rows = [self._row(one, name) for one in given]
        shown = [one if isinstance(one, str) and max(row) >= 0 else None for one, row in zip(given, rows, strict=True)]
        long = dict.fromkeys(one for one in given if isinstance(one, str) and self._is_long(one))
        if long:
            texts = ", ".join(repr(t if len(t) <= SHOWN else f"{t[:SHOWN]}...") for t in list(long)[:3])
            warnings.warn(f"{name}: longer than {self.length} tokens, of which the first are used: {texts}.", stacklevel=5)
        return Given(torch.tensor(rows, dtype=torch.int64).reshape(n, self.length), shown)

    def _is_long(self, text: str) -> bool:
        """Whether a text has more tokens than are read."""
        return len(text) > self.length - 2 and len(self.reader(text, truncation=False).input_ids) > self.length

    def _row(self, value: Any, name: str) -> list[int]:
        """A text, None or numbers as the net receives them."""
        if value is None:
            return [-1] * self.length
        if isinstance(value, str):
            return self.ids(value)
        if is_row(value):
            row = [int(v) for v in value]
            if len(row) != self.length or max(row) >= self.size:
                raise ConfigError(f"{name}: {len(row)} whole numbers up to {max(row)}; give {self.length} below {self.size}.")
            return [-1] * self.length if min(row) < 0 else row
        shown = repr(value)[:SHOWN]
        raise ConfigError(f"{name}={shown} ({type(value).__name__}) is not a text: give one, e.g. 'a red car'.")

    def batch(self, values: Sequence[Any], reading: Reading | None = None) -> Tensor:
        import torch

        name = (reading or Reading()).name
        rows = [self._row(v.tolist() if hasattr(v, "tolist") else v, name) for v in values]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(values), self.length)

    def among(self, found: Condition) -> Condition:
        """Data have texts: how they are read is the model's."""
        return self if found.kind in ("text", self.kind) else found  # type: ignore[attr-defined]

    def about(self, values: Sequence[Any]) -> str:
        texts = dict.fromkeys(v for v in values if isinstance(v, str))
        long = sum(map(self._is_long, texts))
        cut = f", {long:,} longer than {self.length} tokens" if long else ""
        return f"{len(texts):,} different text{'' if len(texts) == 1 else 's'}{cut}"

    def null(self, n: int) -> Tensor:
        import torch

        return torch.full((n, self.length), -1)

    def example(self, n: int, rng: torch.Generator | None = None) -> Tensor:  # type: ignore[name-defined]  # noqa: F821
        import torch

        from zoo.core import seeds

        rng = seeds.generator(n) if rng is None else rng
        return torch.randint(0, self.size, (n, self.length), generator=rng)

    def embedding(self, dim: int) -> nn.Module:
        raise ConfigError(
            "a text in CLIP's byte pairs is read by the text encoder that came with its net, and by no other net."
        )

    def describe(self) -> str:
        return f"a text, of which {self.length} tokens are read"


# ---------------------------------------------------------------- files


def read_tokenizer(folder: Path) -> Prompt:
    """The condition of a folder with a CLIPTokenizer: tokenizer.json, or vocab.json and merges.txt, and its config.

    Raises:
        CheckpointError: a file that is missing, or options that we do not know. ConfigError: transformers is not installed.
    """
    path = folder / CONFIG
    o = Options(read_object(path), "CLIPTokenizer", path)
    length = o.needed("model_max_length")
    if not isinstance(length, int) or isinstance(length, bool) or not 2 <= length <= 4096:
        raise CheckpointError(f"{path}: model_max_length={length!r}; it must be a whole number from 2 to 4,096.")
    o.only("tokenizer_class", "CLIPTokenizer", "CLIPTokenizerFast")
    marked = read_object(folder / MAP) if (folder / MAP).is_file() else {}
    special: dict[str, str] = {}
    for key in SPECIAL:
        value = o.later(key, None)
        value = marked.get(key) if value is None else value
        content = value.get("content") if isinstance(value, dict) else value
        if not isinstance(content, str):
            raise CheckpointError(f"{path} has no {key!r}, without which texts are not read as they were: add it.")
        special[key] = content
    added = o.later("added_tokens_decoder", {})
    named = [v.get("content") if isinstance(v, dict) else v for v in added.values()] if isinstance(added, dict) else [added]
    o.only("add_prefix_space", False, None)
    o.only("do_lower_case", True, None)
    o.only("padding_side", "right", None)
    o.only("truncation_side", "right", None)
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = o.later(key, None)
        named += more if isinstance(more, list) else list(more.values()) if isinstance(more, dict) else []
    if odd := [t for t in named if t not in special.values()]:
        raise CheckpointError(f"{path} has tokens of its own, {', '.join(map(str, odd[:5]))}: zoo knows none beside CLIP's.")
    o.end(
        (
            "backend", "clean_up_tokenization_spaces", "errors", "is_local", "local_files_only", "max_length",
            "model_input_names", "name_or_path", "pad_to_multiple_of", "pad_token_type_id", "processor_class",
            "special_tokens_map_file", "split_special_tokens", "stride", "tokenizer_file", "truncation_strategy", "use_fast",
        )
    )  # fmt: skip
    table, merges = _vocabulary(folder)
    numbers = sorted(table.values())
    if numbers != list(range(len(table))):
        raise CheckpointError(f"{folder}: the numbers of its {len(table)} tokens are not 0 to {len(table) - 1}.")
    for token in special.values():
        if token not in table:
            raise CheckpointError(f"{folder}: its vocabulary has no {token!r}, which {CONFIG} names.")
    tokens = sorted(table, key=table.__getitem__)
    if broken := [t for t in tokens if "\n" in t] + [m for m in merges if m.count(" ") != 1 or "\n" in m]:
        raise CheckpointError(f"{folder}: {broken[0]!r} is not what a vocabulary of CLIP's kind has.")
    text, pairs = "\n".join(tokens), "\n".join(merges)
    made = reader(text, pairs, tuple(sorted(special.items())), length)
    blank = made("", padding="max_length", max_length=length, truncation=True).input_ids
    return Prompt(tokens=text, merges=pairs, special=special, blank=tuple(blank))


def _vocabulary(folder: Path) -> tuple[dict[str, int], list[str]]:
    """{token: number} and the merges of a folder.

    Raises:
        CheckpointError: they are not there, or are of another kind.
    """
    if (folder / WHOLE).is_file():
        path = folder / WHOLE
        data = files.read_json(path)
        model = data.get("model") if isinstance(data, dict) else None
        if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("end_of_word_suffix") != "</w>":
            raise CheckpointError(f"{path} is not the vocabulary of a CLIPTokenizer: byte pairs, whose words end in '</w>'.")
        table, merges = model.get("vocab"), model.get("merges")
        added = {t.get("content"): t.get("id") for t in data.get("added_tokens") or [] if isinstance(t, dict)}
        if isinstance(table, dict):
            table = {**table, **{k: v for k, v in added.items() if k not in table}}
        if isinstance(merges, list):
            merges = [" ".join(m) if isinstance(m, list) and all(isinstance(p, str) for p in m) else m for m in merges]
    else:
        path = folder / VOCABULARY
        table = files.read_json(path)
        lines = _read(folder / MERGES).splitlines()
        merges = [line for line in lines if line.strip() and not line.startswith("#version")]
    kinds = isinstance(table, dict) and all(type(v) is int for v in table.values())
    if not kinds or not table or not isinstance(merges, list) or not all(isinstance(m, str) for m in merges):
        raise CheckpointError(f"{path}: a vocabulary gives each token a number, and lists the pairs that become one.")
    return table, merges


def _read(path: Path) -> str:
    """The text of a file of merges."""
    try:
        with files.opened(path) as file:
            data = file.read(MOST_MERGES + 1)
        if len(data) > MOST_MERGES:
            raise CheckpointError(f"{path} has more than {MOST_MERGES >> 20} MB: no vocabulary has so many pairs.")
        return data.decode()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the folder is not complete.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as text: {error}.") from error

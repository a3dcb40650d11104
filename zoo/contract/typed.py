"""Values as a user types them on a command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zoo.errors import ConfigError

#: words of a command line that stand for a value of Python
NAMED: Mapping[str, Any] = {"none": None, "null": None, "true": True, "false": False}


def word(text: str) -> Any:
    """A word of a command line as the number, the truth value or the None that it looks like, else the word itself."""
    if text.casefold() in NAMED:
        return NAMED[text.casefold()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def typed(text: str) -> Any:
    """What a user types on the command line for a value: JSON, or words and numbers with commas between; "none" is None."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        if text[:1] in ("[", "{"):
            raise ConfigError(f"{text!r}: starts as JSON and is not JSON; quote it for the shell, e.g. '[0.2, 5]'.") from None
    except ValueError:  # Python's own limit on the digits of a number
        raise ConfigError(f"{text[:20]}...: a number of {len(text)} digits.") from None
    words = [word(w) for w in text.split(",")]
    return words if len(words) > 1 else words[0]

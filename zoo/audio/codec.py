"""Between clips and encoded samples: normalised log-mel spectrograms (1, F, frames), and back by Griffin-Lim.

A clip's level carries no meaning in the data, so `encode` brings every clip to the same peak. Everything of which a
second model at another rate needs others (rate, window, hop, mels) is an option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.audio.waveform import EXTRA, Waveform
from zoo.domain import Batch, Codec, Dataset
from zoo.errors import ConfigError, DataError, ShapeError

PEAK = 0.9  # of every encoded clip
CEILING = 0.99  # a decoded clip above it is turned down
#: seconds over which the ends of a decoded clip are faded: no click
FADE = 0.005
#: clips whose statistics `fit` takes, at most
FIT_CLIPS = 5000


@cache
def transforms() -> Any:
    """torchaudio.transforms; an installation in which it cannot load its library is one error with both versions."""
    try:
        import torchaudio
        import torchaudio.transforms

        return torchaudio.transforms
    except ImportError as error:
        if getattr(error, "name", None) == "torchaudio":
            raise ConfigError(f"audio needs torchaudio: {EXTRA}.") from None
        raise _torn(error) from error
    except (OSError, RuntimeError, AttributeError) as error:
        raise _torn(error) from error


def _torn(error: Exception) -> ConfigError:
    from importlib.metadata import version

    found = " and ".join(f"{p} {version(p)}" for p in ("torch", "torchaudio"))
    return ConfigError(f"torchaudio cannot load its library ({error}). Found {found}; {PAIR}")

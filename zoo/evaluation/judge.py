"""Judges: small classifiers whose labels and features measure generated samples, one or more a domain.

A judge plays the part that Inception-v3 plays in Heusel et al. 2017 (arXiv:1706.08500): its label tells whether a sample
shows what was asked for, and its penultimate features are the space of the Frechet distance, KID, precision and recall.
Numbers measured in the features of two different judges cannot be compared, so the weights are shipped with zoo.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo.errors import CheckpointError, ConfigError
from zoo.files import (
    check_hash,
    hash_of,
    load_shapes,
    load_strict,
    load_tensors,
    new_folder,
    read_sealed,
    save_tensors,
    seal,
    settle,
    write_atomic,
)
from zoo.model.budget import limited

WEIGHTS, CARD = "judge.safetensors", "judge.json"
FORMAT_VERSION = 2

J = TypeVar("J", bound="Judge")


class Judge(nn.Module):
    """A classifier of encoded samples. A domain's judge sets the layers, `classifier`, `check` and `embed`.

    Attributes:
        widths: channels of its three stages, the last of which gives the features.
        class_names: names of the classes, in the order of the labels.
        dropout: on the features, in training only.
        card: JSON-ready numbers of its training; filled by `load_judge`.

    Raises:
        ConfigError: not three widths, fewer than two classes, or a dropout outside [0, 1).
    """

    classifier: nn.Module

    def __init__(self, widths: tuple[int, ...], class_names: tuple[str, ...], dropout: float = 0.2) -> None:
        super().__init__()
        if len(widths) != 3 or min(widths) < 1:
            raise ConfigError(f"a judge has three positive widths, got {tuple(widths)}")
        if len(class_names) < 2 or not 0 <= dropout < 1:
            raise ConfigError(f"a judge needs two classes or more and dropout in [0, 1), got {len(class_names)}, {dropout}")
        self.widths, self.class_names, self.dropout = tuple(widths), tuple(class_names), dropout
        self.card: dict[str, Any] = {}

    @property
    def config(self) -> dict[str, Any]:
        """What rebuilds this net: `type(judge)(**judge.config)`; more where a judge takes more."""
        return {"widths": list(self.widths), "class_names": list(self.class_names), "dropout": self.dropout}

    @property
    def width(self) -> int:
        """How many features there are."""
        return self.widths[-1]

    def check(self, x: Tensor) -> None:
        """Refuse what is not a batch of samples: ShapeError for the shape, DataError for the dtype."""
        raise NotImplementedError

    def embed(self, x: Tensor) -> Tensor:
        """Penultimate features (B, width) of samples (B, ...), with gradients, in the current mode; errors as `check`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of samples (B, ...). Errors as in `check`."""
        logits: Tensor = self.classifier(nn.functional.dropout(self.embed(x), self.dropout, self.training))
        return logits

    @torch.no_grad()
    def features(self, x: Tensor, batch_size: int = 500) -> tuple[Tensor, Tensor]:
        """Features (N, width) and logits (N, classes) on the CPU, in evaluation mode and in chunks of `batch_size`.

        Args:
            x: samples (N, ...), any number of them.

        Raises:
            ShapeError, DataError: as in `check`.
        """
        from tqdm import tqdm

        self.check(x)
        device, was_training, feats, logits = next(self.parameters()).device, self.training, [], []
        self.eval()
        try:
            for chunk in tqdm(torch.split(x, batch_size), "judge", delay=2, leave=False):
                h = self.embed(chunk.float().to(device))
                feats.append(h.cpu())
                logits.append(self.classifier(h).cpu())
        finally:
            self.train(was_training)
        return torch.cat(feats), torch.cat(logits)


class Features:
    """Features of a net that knows nothing of the data's labels, in the place of a judge.

    Args:
        name: of the net, for the protocol.
        net: samples (n, ...) -> features (n, width), a chunk at a time.
        check: refuses what is no sample.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, name: str, net: Callable[[Tensor], Tensor], check: Callable[[Tensor], None] | None = None) -> None:
        self.name, self.net, self.check = name, net, check or (lambda x: None)
        self.width = 0
        self.card: dict[str, Any] = {}
        self.note = ""

    @torch.no_grad()
    def features(self, x: Tensor, batch_size: int = 250) -> tuple[Tensor, Tensor]:
        """Features (n, width) float32, and logits (n, 0): there are no classes."""
        from tqdm import tqdm

        found = torch.cat([self.net(chunk.float()) for chunk in tqdm(x.split(batch_size), "features", delay=2, leave=False)])
        self.width = found.shape[1]
        return found, found[:, :0]


def save_judge(judge: Judge, folder: str | Path, card: dict[str, Any], *, half: bool = False) -> None:
    """Write `judge.safetensors` and `judge.json` into a folder (made if missing); `card` is kept beside the weights.

    Args:
        half: weights with 16 bits, which are read as 32: half the size.
    """
    with new_folder(Path(folder)) as new:
        state = judge.state_dict()
        save_tensors(new / WEIGHTS, {k: v.half() if half and v.is_floating_point() else v for k, v in state.items()})
        meta = {"format_version": FORMAT_VERSION, "config": judge.config, "card": card}
        write_atomic(new / CARD, seal(meta, CARD, {WEIGHTS: hash_of(new / WEIGHTS)}))


def load_judge(kind: type[J], folder: str | Path, device: str | torch.device | None = None) -> J:
    """A judge in evaluation mode with frozen weights; its measured numbers are in `.card`.

    Args:
        kind: the domain's judge class.
        folder: a folder written by `save_judge`.
        device: where the weights go; default the CPU.

    Raises:
        CheckpointError: a missing, damaged, foreign or newer folder. The message names file and key.
    """
    folder = Path(folder)
    settle(folder)
    if not (folder / CARD).is_file():
        raise CheckpointError(f"no readable judge in {folder}: it has no {CARD}.")
    meta, hashes = read_sealed(folder / CARD, FORMAT_VERSION)
    config, card = meta.get("config"), meta.get("card")
    if not isinstance(config, dict) or not isinstance(card, dict):
        raise CheckpointError(f"no readable judge in {folder}: {CARD} needs config and card.")
    if hashes is not None and set(hashes) != {WEIGHTS}:
        raise CheckpointError(f"{folder / CARD} holds the hashes of {', '.join(hashes) or 'nothing'}, not of {WEIGHTS}.")
    for name, digest in (hashes or {}).items():
        check_hash(folder / name, digest)
    try:
        with limited(load_shapes(folder / WEIGHTS), folder, config=CARD, weights=WEIGHTS):
            judge = kind(**config)
    except CheckpointError:
        raise
    except Exception as e:  # of whatever a number led to
        raise CheckpointError(f"{folder / CARD} does not describe a judge: {type(e).__name__}: {e}") from e
    load_strict(judge, load_tensors(folder / WEIGHTS), folder / WEIGHTS)
    judge.card = card
    return judge.eval().requires_grad_(False).to(device or "cpu")

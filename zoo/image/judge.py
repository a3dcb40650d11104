"""The judge: a small Fashion-MNIST classifier whose features measure generated pictures.

It plays the part that Inception-v3 plays in Heusel et al. 2017 (arXiv:1706.08500): its label tells whether a
sample shows what was asked for, and its penultimate features are the space of the Frechet distance, KID,
precision and recall. Numbers measured in the features of two different judges cannot be compared, so the
weights are shipped with zoo.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import CheckpointError, ConfigError, DataError, ShapeError

#: shape of one picture: channels, height, width
SHAPE = (1, 28, 28)

#: the judge that comes with zoo
PACKAGED = Path(__file__).parent.parent / "checkpoints" / "image" / "fashion-judge"

WEIGHTS, CARD = "judge.safetensors", "judge.json"
FORMAT_VERSION = 1


class _ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        # batch norm has its own offset: a bias here would be a dead parameter
        super().__init__(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Judge(nn.Module):
    """Classifier (B, 1, 28, 28) -> (B, classes) with features (B, widths[-1]).

    Three stages at 28, 14 and 7 pixels, the last one with a residual block, then the mean over the 7x7
    positions.

    Args:
        widths: channels of the three stages.
        class_names: names of the classes, in the order of the labels.
        dropout: on the features, in training only.

    Raises:
        ConfigError: not three widths, fewer than two classes, or a dropout outside [0, 1).
    """

    def __init__(self, widths: tuple[int, ...], class_names: tuple[str, ...], dropout: float = 0.2) -> None:
        super().__init__()
        if len(widths) != 3 or min(widths) < 1:
            raise ConfigError(f"a judge has three positive widths, got {tuple(widths)}")
        if len(class_names) < 2 or not 0 <= dropout < 1:
            raise ConfigError(f"a judge needs two classes or more and dropout in [0, 1), got {len(class_names)}, {dropout}")
        self.widths, self.class_names, self.dropout = tuple(widths), tuple(class_names), dropout
        self.card: dict[str, Any] = {}
        a, b, c = widths
        self.stages = nn.Sequential(
            _ConvBlock(SHAPE[0], a), nn.MaxPool2d(2), _ConvBlock(a, b), nn.MaxPool2d(2), _ConvBlock(b, c)
        )
        self.residual = _ConvBlock(c, c)
        self.classifier = nn.Linear(c, len(class_names))
        self.to(memory_format=torch.channels_last)

    @property
    def config(self) -> dict[str, Any]:
        """What rebuilds this net: `Judge(**judge.config)`."""
        return {"widths": list(self.widths), "class_names": list(self.class_names), "dropout": self.dropout}

    def embed(self, pictures: Tensor) -> Tensor:
        """Penultimate features with gradients, in the current mode.

        Args:
            pictures: (B, 1, 28, 28) float32 in [-1, 1].

        Returns:
            (B, widths[-1]) float32, not negative.

        Raises:
            ShapeError: any other shape.
            DataError: pictures that are not floating point (uint8 levels would give silent nonsense).
        """
        check_pictures(pictures)
        h = self.stages(pictures.contiguous(memory_format=torch.channels_last))
        pooled: Tensor = (h + self.residual(h)).mean(dim=(2, 3))
        return pooled

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits (B, classes) of pictures (B, 1, 28, 28) in [-1, 1]. Errors as in `embed`."""
        logits: Tensor = self.classifier(nn.functional.dropout(self.embed(pictures), self.dropout, self.training))
        return logits

    @torch.no_grad()
    def features(self, pictures: Tensor, batch_size: int = 500) -> tuple[Tensor, Tensor]:
        """Features and logits of any number of pictures, in evaluation mode and in chunks.

        Args:
            pictures: (N, 1, 28, 28) float in [-1, 1].
            batch_size: pictures per chunk; it bounds the memory.

        Returns:
            Features (N, widths[-1]) and logits (N, classes), both float32 on the CPU.

        Raises:
            ShapeError: pictures of any other shape.
            DataError: pictures that are not floating point.
        """
        from tqdm import tqdm

        check_pictures(pictures)
        was_training = self.training
        device = self.classifier.weight.device
        self.eval()  # batch statistics would let the pictures of a batch judge each other
        feats, logits = [], []
        try:
            for chunk in tqdm(torch.split(pictures, batch_size), "judge", delay=2, leave=False):
                h = self.embed(chunk.float().to(device))
                feats.append(h.cpu())
                logits.append(self.classifier(h).cpu())
        finally:
            self.train(was_training)
        return torch.cat(feats), torch.cat(logits)


def check_pictures(pictures: Tensor) -> None:
    """Refuse what is not a float tensor (N, 1, 28, 28): ShapeError for the shape, DataError for the dtype."""
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != SHAPE:
        want = ", ".join(map(str, SHAPE))
        raise ShapeError(f"the judge takes pictures (N, {want}), got {tuple(pictures.shape)}; resize them first")
    if not pictures.is_floating_point():
        raise DataError(f"the judge takes floating-point pictures in [-1, 1], got {pictures.dtype}; use x / 127.5 - 1")


def save_judge(judge: Judge, folder: str | Path, card: dict[str, Any]) -> None:
    """Write `judge.safetensors` and `judge.json` into a folder (made if missing).

    Args:
        judge: the net.
        folder: where to.
        card: JSON-ready numbers and their protocol; kept beside the weights.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().contiguous() for k, v in judge.state_dict().items()}, folder / WEIGHTS)
    text = json.dumps({"format_version": FORMAT_VERSION, "config": judge.config, "card": card}, indent=2)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")


def load_judge(folder: str | Path = PACKAGED, device: str | torch.device | None = None) -> Judge:
    """A judge in evaluation mode with frozen weights; its measured numbers are in `.card`.

    Args:
        folder: a folder written by `save_judge`; default the packaged Fashion-MNIST judge.
        device: where the weights go; default the CPU.

    Raises:
        CheckpointError: a missing, damaged, foreign or newer folder. The message names file and key.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        meta = json.loads((folder / CARD).read_text(encoding="utf-8"))
        version, config, card = meta["format_version"], meta["config"], meta["card"]
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise CheckpointError(f"no readable judge in {folder}: {type(e).__name__}: {e}") from e
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{folder / CARD} has format {version}, this zoo reads {FORMAT_VERSION}; update zoo")
    try:
        judge = Judge(**config)
        judge.load_state_dict(state)
    except (ConfigError, TypeError, RuntimeError) as e:
        raise CheckpointError(f"{folder} does not hold a judge: {e}") from e
    judge.card = card
    return judge.eval().requires_grad_(False).to(device or "cpu")

"""The judge of pictures: a small Fashion-MNIST classifier (see `zoo.evaluation.judge`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.errors import DataError, ShapeError
from zoo.evaluation import judge as judges

#: shape of one picture: channels, height, width
SHAPE = (1, 28, 28)

#: the judge that comes with zoo
PACKAGED = Path(__file__).parent.parent / "checkpoints" / "image" / "fashion-judge"


class _ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        # batch norm has its own offset: a bias here would be a dead parameter
        super().__init__(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Judge(judges.Judge):
    """Classifier (B, 1, 28, 28) -> (B, classes) with features (B, widths[-1]), which are not negative.

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
        super().__init__(widths, class_names, dropout)
        a, b, c = widths
        self.stages = nn.Sequential(
            _ConvBlock(SHAPE[0], a), nn.MaxPool2d(2), _ConvBlock(a, b), nn.MaxPool2d(2), _ConvBlock(b, c)
        )
        self.residual = _ConvBlock(c, c)
        self.classifier = nn.Linear(c, len(class_names))
        self.to(memory_format=torch.channels_last)

    def check(self, x: Tensor) -> None:
        if x.ndim != 4 or tuple(x.shape[1:]) != SHAPE:
            want = ", ".join(map(str, SHAPE))
            raise ShapeError(f"the judge takes pictures (N, {want}), got {tuple(x.shape)}; resize them first")
        if not x.is_floating_point():
            raise DataError(f"the judge takes floating-point pictures in [-1, 1], got {x.dtype}; use x / 127.5 - 1")

    def embed(self, x: Tensor) -> Tensor:
        self.check(x)  # uint8 levels would give silent nonsense
        h = self.stages(x.contiguous(memory_format=torch.channels_last))
        pooled: Tensor = (h + self.residual(h)).mean(dim=(2, 3))
        return pooled


def load_judge(folder: str | Path = PACKAGED, device: str | torch.device | None = None) -> Judge:
    """The packaged judge, or one that `zoo.evaluation.judge.save_judge` wrote into `folder`; errors as there."""
    return judges.load_judge(Judge, folder, device)

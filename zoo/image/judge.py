"""The judge of pictures: a small Fashion-MNIST classifier (see `zoo.evaluation.judge`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, DataError, ShapeError
from zoo.evaluation import judge as judges

#: shape of one picture of the packaged judge: channels, height, width
SHAPE = (1, 28, 28)

#: the judge that comes with zoo
PACKAGED = Path(__file__).parent.parent / "checkpoints" / "image" / "fashion-judge"


class _ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        # batch norm has its own offset: a bias here would be a dead parameter
        super().__init__(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Judge(judges.Judge):
    """Classifier (B, C, H, W) -> (B, classes) with features (B, widths[-1]), which are not negative.

    Three stages, of 28 x 28 pictures at 28, 14 and 7 pixels, the last one with a residual block, then the mean over all
    positions. Pictures above 40 pixels are halved by further blocks after the first.

    Args:
        widths: channels of the three stages.
        class_names: names of the classes, in the order of the labels.
        dropout: on the features, in training only.
        shape: of one picture.

    Raises:
        ConfigError: not three widths, fewer than two classes, a dropout outside [0, 1), or a shape that no picture has.
    """

    def __init__(
        self, widths: tuple[int, ...], class_names: tuple[str, ...], dropout: float = 0.2, shape: tuple[int, ...] = SHAPE
    ) -> None:
        super().__init__(widths, class_names, dropout)
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < 4:
            raise ConfigError(f"a judge of pictures takes (1 or 3, H, W) from 4 x 4 pixels on, got {tuple(shape)}")
        self.shape = tuple(shape)
        a, b, c = widths
        halved, size = list[nn.Module](), max(shape[1:])
        while size > 40:
            halved += [_ConvBlock(a, a), nn.MaxPool2d(2)]
            size //= 2
        self.stages = nn.Sequential(
            _ConvBlock(shape[0], a), nn.MaxPool2d(2), *halved, _ConvBlock(a, b), nn.MaxPool2d(2), _ConvBlock(b, c)
        )
        self.residual = _ConvBlock(c, c)
        self.classifier = nn.Linear(c, len(class_names))
        self.to(memory_format=torch.channels_last)

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"shape": list(self.shape)}

    def check(self, x: Tensor) -> None:
        check_pictures(x, self.shape)

    def embed(self, x: Tensor) -> Tensor:
        self.check(x)  # uint8 levels would give silent nonsense
        h = self.stages(x.contiguous(memory_format=torch.channels_last))
        pooled: Tensor = (h + self.residual(h)).mean(dim=(2, 3))
        return pooled


def check_pictures(x: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse what is not a batch of pictures (N, *shape) in [-1, 1]: ShapeError for the shape, DataError for the dtype."""
    if x.ndim != 4 or tuple(x.shape[1:]) != shape:
        want = ", ".join(map(str, shape))
        raise ShapeError(f"the judge takes pictures (N, {want}), got {tuple(x.shape)}; resize them first")
    if not x.is_floating_point():
        raise DataError(f"the judge takes floating-point pictures in [-1, 1], got {x.dtype}; use x / 127.5 - 1")


def load_judge(folder: str | Path = PACKAGED, device: str | torch.device | None = None) -> Judge:
    """The packaged judge, or one that `zoo.evaluation.judge.save_judge` wrote into `folder`; errors as there."""
    return judges.load_judge(Judge, folder, device)


def fitted(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Pictures (n, C, H, W) in [-1, 1] at a judge's size and channels: with a low-pass, grey by luma, or the grey thrice.

    Args:
        shape: (channels, height, width).
    """
    if x.shape[1] == 3 and shape[0] == 1:
        x = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    elif x.shape[1] == 1 and shape[0] == 3:
        x = x.expand(-1, 3, -1, -1)
    if tuple(x.shape[2:]) != tuple(shape[1:]):
        x = nn.functional.interpolate(x, shape[1:], mode="bilinear", antialias=True)
    return x.contiguous()


class Fitted(judges.Features):
    """A judge of pictures of another size or other channels than those that are judged, which are fitted first."""

    def __init__(self, judge: Judge) -> None:
        super().__init__("judge", lambda x: x)
        self.judge, self.class_names, self.card, self.width = judge, judge.class_names, judge.card, judge.width

    def features(self, x: Tensor, batch_size: int = 250) -> tuple[Tensor, Tensor]:
        return self.judge.features(fitted(x, self.judge.shape), batch_size)

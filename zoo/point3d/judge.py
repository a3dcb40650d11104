"""The judge of clouds: a small PointNet (see `zoo.evaluation.judge`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.errors import DataError, ShapeError
from zoo.evaluation import judge as judges

#: the judge that comes with zoo
PACKAGED = Path(__file__).parent.parent / "checkpoints" / "point3d" / "shapes-judge"


def _layer(c_in: int, c_out: int) -> nn.Sequential:
    """Linear, batch norm over all points, ReLU."""
    return nn.Sequential(nn.Linear(c_in, c_out, bias=False), nn.BatchNorm1d(c_out), nn.ReLU(inplace=True))


class Judge(judges.Judge):
    """PointNet (Qi et al. 2017, arXiv:1612.00593, section 4.2) without its transformers: clouds (B, N, 3) -> (B, classes).

    Each point passes two nets, after each of which the cloud's maximum is taken; the second sees the first one's beside its
    points. The clouds are in a unit sphere; N may be any.

    Args:
        widths: channels of a point in the two nets, and of the features.
        class_names: names of the classes, in the order of the labels.
        dropout: on the features, in training only.

    Raises:
        ConfigError: not three widths, fewer than two classes, or a dropout outside [0, 1).
    """

    def __init__(self, widths: tuple[int, ...], class_names: tuple[str, ...], dropout: float = 0.3) -> None:
        super().__init__(widths, class_names, dropout)
        a, b, c = widths
        self.first = nn.Sequential(_layer(3, a), _layer(a, a))
        self.second = nn.Sequential(_layer(2 * a, b), _layer(b, b))
        self.features_net = _layer(b, c)
        self.classifier = nn.Linear(c, len(class_names))

    def check(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[2] != 3 or not x.shape[1]:
            raise ShapeError(f"the judge takes clouds (N, points, 3), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise DataError(f"the judge takes floating-point clouds in a unit sphere, got {x.dtype}")

    def embed(self, x: Tensor) -> Tensor:
        self.check(x)
        B, N, _ = x.shape
        h = self.first(x.reshape(B * N, 3)).view(B, N, -1)
        h = torch.cat([h, h.amax(1, keepdim=True).expand(-1, N, -1)], 2)
        features: Tensor = self.features_net(self.second(h.flatten(0, 1)).view(B, N, -1).amax(1))
        return features


def load_judge(folder: str | Path = PACKAGED, device: str | torch.device | None = None) -> Judge:
    """The packaged judge or one in a folder; errors as `zoo.evaluation.judge.load_judge`."""
    return judges.load_judge(Judge, folder, device)

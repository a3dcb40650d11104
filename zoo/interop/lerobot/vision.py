"""The eyes of lerobot's diffusion policy: a ResNet, and where its channels look.

Each of `spatial_softmax_num_keypoints` maps of the last features becomes a place in the picture, the mean over a softmax of
the map (spatial softmax, Finn et al. 2016, "Deep spatial autoencoders", section IV; Chi et al. 2023, section 3.2), and a
linear layer mixes the places. The ResNet (He et al. 2016) is that of torchvision without its last two layers, under the names
that its tensors have in lerobot; torchvision need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ConfigError, brief, one_of

#: backbone -> (blocks of each of the four stages, whether a block has three convolutions)
BACKBONES: dict[str, tuple[tuple[int, int, int, int], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
#: channels of the first stage, channels of a group of a group norm, and by what a block of three widens
WIDTH, GROUP, WIDER = 64, 16, 4

Norm = Callable[[int], nn.Module]


class Basic(nn.Module):
    """Two convolutions of 3 x 3, plus the input."""

    def __init__(self, cin: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 3, stride, 1, bias=False), norm(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), norm(width)
        self.downsample = _shortcut(cin, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 (with the stride) and 1 x 1 to four times the width, plus the input."""

    def __init__(self, cin: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 1, bias=False), norm(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), norm(width)
        self.conv3, self.bn3 = nn.Conv2d(width, WIDER * width, 1, bias=False), norm(WIDER * width)
        self.downsample = _shortcut(cin, WIDER * width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        return F.relu(self.bn3(self.conv3(h)) + (x if self.downsample is None else self.downsample(x)))


def _shortcut(cin: int, cout: int, stride: int, norm: Norm) -> nn.Module | None:
    """What the input goes through where a block changes its size."""
    if cin == cout and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), norm(cout))


def resnet(kind: str, group_norm: bool) -> nn.Sequential:
    """Pictures (B, 3, H, W) -> features (B, 512 or 2048, H / 32, W / 32), each halving rounded up.

    Args:
        kind: one of `BACKBONES`.
        group_norm: groups of 16 channels in the place of batch norm.
    """
    blocks, deep = BACKBONES[kind]
    make: type[Basic] | type[Bottleneck] = Bottleneck if deep else Basic

    def norm(channels: int) -> nn.Module:
        return nn.GroupNorm(channels // GROUP, channels) if group_norm else nn.BatchNorm2d(channels)

    parts: list[nn.Module] = [nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False), norm(WIDTH), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    cin = WIDTH
    for i, count in enumerate(blocks):
        width, stage = WIDTH * 2**i, []
        for k in range(count):
            stage.append(make(cin, width, 2 if i and not k else 1, norm))
            cin = width * (WIDER if deep else 1)
        parts.append(nn.Sequential(*stage))
    return nn.Sequential(*parts)


class SpatialSoftmax(nn.Module):
    """Features (B, C, h, w) -> places (B, points, 2), x and y in [-1, 1]."""

    pos_grid: Tensor

    def __init__(self, channels: int, height: int, width: int, points: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, points, 1)
        # in float64 first, as there: float32 steps would end beside 1
        y, x = torch.meshgrid(_ends(height), _ends(width), indexing="ij")
        self.register_buffer("pos_grid", torch.stack([x.flatten(), y.flatten()], 1).float())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.nets(x).flatten(2).softmax(-1) @ self.pos_grid
        return out


def _ends(count: int) -> Tensor:
    return torch.linspace(-1, 1, count, dtype=torch.float64)


class Eye(nn.Module):
    """Pictures (B, 3, H, W), scaled as the codec does, -> what is told of each (B, 2 * points).

    Args:
        size: (H, W) of the pictures.
        options: see `vision_options`.
    """

    def __init__(self, size: tuple[int, int], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.resize, self.crop = _pair(options["resize_shape"]), _pair(options["crop_shape"])
        seen = self.crop or self.resize or size
        if self.crop and any(c > s for c, s in zip(self.crop, self.resize or size, strict=True)):
            raise ConfigError(
                f"lerobot-unet1d: a crop of {self.crop} from pictures of {self.resize or size}; give a smaller one."
            )
        points = options["spatial_softmax_num_keypoints"]
        self.backbone = resnet(options["vision_backbone"], options["use_group_norm"])
        channels = WIDTH * 8 * (WIDER if BACKBONES[options["vision_backbone"]][1] else 1)
        height, width = (-(-s // 32) for s in seen)  # five halvings that round up
        self.pool = SpatialSoftmax(channels, height, width, points)
        self.features = 2 * points
        self.out = nn.Linear(self.features, self.features)

    def forward(self, x: Tensor) -> Tensor:
        if self.resize is not None:
            x = F.interpolate(x, self.resize, mode="bilinear", antialias=True)
        if self.crop is not None:  # the middle; training there crops at random
            top, left = (round((s - c) / 2) for s, c in zip(x.shape[-2:], self.crop, strict=True))
            x = x[..., top : top + self.crop[0], left : left + self.crop[1]]
        out: Tensor = F.relu(self.out(self.pool(self.backbone(x)).flatten(1)))
        return out


def vision_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `Eye`, all of them and checked.

    Args:
        given: vision_backbone, one of `BACKBONES`; use_group_norm, in the place of batch norm; spatial_softmax_num_keypoints;
            use_separate_rgb_encoder_per_camera, or one for all; resize_shape and crop_shape, (height, width) or None, in this
            order.

    Raises:
        ConfigError: one is missing, is not known or is none.
    """
    names = ("vision_backbone", "use_group_norm", "spatial_softmax_num_keypoints", SEPARATE, "resize_shape", "crop_shape")
    for name in given:
        if name not in names:
            raise one_of("option of lerobot-unet1d's vision", name, names)
    if missing := [name for name in names if name not in given]:
        raise ConfigError(f"lerobot-unet1d: vision lacks {', '.join(missing)}.")
    found = dict(given)
    if found["vision_backbone"] not in BACKBONES:
        raise one_of("vision_backbone", found["vision_backbone"], BACKBONES)
    for name in ("use_group_norm", SEPARATE):
        if not isinstance(found[name], bool):
            raise ConfigError(f"lerobot-unet1d: vision.{name}={brief(found[name])}; give true or false.")
    if not _positive(found["spatial_softmax_num_keypoints"]):
        wrong = brief(found["spatial_softmax_num_keypoints"])
        raise ConfigError(f"lerobot-unet1d: vision.spatial_softmax_num_keypoints={wrong}; give a whole number above 0.")
    for name in ("resize_shape", "crop_shape"):
        shape = found[name]
        pair = isinstance(shape, list | tuple) and len(shape) == 2 and all(map(_positive, shape))
        if shape is not None and not pair:
            raise ConfigError(f"lerobot-unet1d: vision.{name}={brief(shape)}; give [height, width], or null for none.")
    return found


#: whether each camera has an eye of its own
SEPARATE = "use_separate_rgb_encoder_per_camera"


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _pair(value: Sequence[int] | None) -> tuple[int, int] | None:
    return None if value is None else (value[0], value[1])

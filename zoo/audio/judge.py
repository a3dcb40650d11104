"""The judges of clips: small classifiers of digits, words and speakers (see `zoo.evaluation.judge`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.audio.codec import transforms
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.evaluation import judge as judges

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints" / "audio"
#: what a front end's log-mel levels are about: mean and spread of ln(power / the clip's maximum + FLOOR)
FLOOR, CENTRE, SPREAD = 1e-6, -7.0, 4.0


def _block(c_in: int, c_out: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Judge(judges.Judge):
    """Classifier of clips (B, L) -> (B, classes) with features (B, widths[-1]), which are not negative.

    Its own front end turns a clip into a log-mel spectrogram relative to the clip's maximum, so that loudness does not
    count; then three stages, each followed by a halving, a residual block and the mean over time and frequency.

    Args:
        widths: channels of the three stages.
        class_names: names of the classes, in the order of the labels.
        sample_rate: Hz.
        samples: length L of a clip.
        dropout: on the features, in training only.

    Raises:
        ConfigError: not three widths, fewer than two classes, a dropout outside [0, 1), or clips below 0.1 s.
    """

    def __init__(
        self, widths: tuple[int, ...], class_names: tuple[str, ...], sample_rate: int, samples: int, dropout: float = 0.3
    ) -> None:
        super().__init__(widths, class_names, dropout)
        if samples < sample_rate / 10:
            raise ConfigError(f"a judge takes clips of 0.1 s or more, got {samples} samples at {sample_rate} Hz")
        self.sample_rate, self.samples = sample_rate, samples
        a, b, c = widths
        self.mel = transforms().MelSpectrogram(
            sample_rate,
            n_fft=sample_rate * 32 // 1000,  # 32 ms, every 10 ms
            hop_length=sample_rate // 100,
            n_mels=40,
            norm="slaney",
            mel_scale="slaney",
        )
        pool = nn.MaxPool2d(2)
        self.stages = nn.Sequential(_block(1, a), pool, _block(a, b), pool, _block(b, c), pool)
        self.residual = _block(c, c)
        self.classifier = nn.Linear(c, len(class_names))

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"sample_rate": self.sample_rate, "samples": self.samples}

    def check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.samples:
            raise ShapeError(f"this judge takes clips (N, {self.samples}) at {self.sample_rate} Hz, got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise DataError(f"the judge takes floating-point clips in [-1, 1], got {x.dtype}; use x / 32768")

    def front(self, x: Tensor) -> Tensor:
        """Clips (B, L) -> normalised log-mel levels (B, 1, mels, frames)."""
        with torch.autocast(x.device.type, enabled=False):  # half precision has no room for powers
            power = self.mel(x.float())
            power = power / power.amax((1, 2), keepdim=True).clamp(min=1e-10)
            return (((power + FLOOR).log() - CENTRE) / SPREAD)[:, None]

    def embed(self, x: Tensor) -> Tensor:
        self.check(x)
        h = self.stages(self.front(x))
        pooled: Tensor = (h + self.residual(h)).mean(dim=(2, 3))
        return pooled


def load_judge(name: str | Path, device: str | torch.device | None = None) -> Judge:
    """A packaged judge ("digits-judge", "speaker-judge", "words-judge") or a folder; see `zoo.evaluation.judge`."""
    folder = CHECKPOINTS / name if isinstance(name, str) else name
    return judges.load_judge(Judge, folder, device)

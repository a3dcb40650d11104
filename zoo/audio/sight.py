"""What a judge of the user's own clips hears, and the features where there are no labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.audio.codec import ClipCodec, transforms
from zoo.audio.data import AudioFolder, Clips, TableClips
from zoo.audio.judge import Judge, load_judge
from zoo.audio.waveform import Waveform
from zoo.contract.dataset import Dataset
from zoo.evaluation import own
from zoo.evaluation.judge import Features

#: packaged judges whose features stand in where there are no labels
PACKAGED = ("words-judge", "digits-judge")


class AudioSight(own.Sight):
    """Clips in the window of a recipe's codec, at its rate. Training moves them, changes tempo, and adds noise."""

    kind = Judge
    augmentation: Mapping[str, Any] = {"shift": 0.05, "speed": 0.05, "noise": 0.02}
    batch_size = 48
    lr = 4e-3
    weight_decay = 0.02
    chunk = 200

    def __init__(self, codec: ClipCodec) -> None:
        self.codec = codec

    def build(self, class_names: tuple[str, ...]) -> Judge:
        return Judge((24, 48, 96), class_names, self.codec.sample_rate, self.codec.samples)

    def keep(self, item: Any) -> Waveform:
        return Waveform(item.samples, item.sample_rate)  # without what a codec may remember of it

    def prepare(self, dataset: Dataset) -> None:
        if isinstance(dataset, (Clips, AudioFolder, TableClips)):
            dataset.at(self.codec.sample_rate)

    def see(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        return self.codec.place(item, rng)

    @property
    def facts(self) -> dict[str, Any]:
        return {"sample_rate": self.codec.sample_rate, "seconds": self.codec.samples / self.codec.sample_rate}


def natural(dataset: Dataset) -> dict[str, Any]:
    """The rate of most clips of a dataset, and a window that holds nine of ten of them, of up to 50: at most 4 seconds."""
    rows = range(0, len(dataset), max(1, len(dataset) // 50))
    clips = [dataset[i][0] for i in rows]
    rates = [clip.sample_rate for clip in clips]
    rate = max(set(rates), key=rates.count)
    seconds = sorted(clip.duration for clip in clips)[int(0.9 * (len(clips) - 1))]
    hop = max(16, round(rate * 0.008))
    frames = max(8, min(int(min(seconds, 4.0) * rate / hop) + 2, 512))
    return {"sample_rate": rate, "hop": hop, "n_fft": 4 * hop, "frames": frames, "mels": min(64, hop)}


class Resampled(Features):
    """A judge of clips at another rate or of another length than those that are judged, which are brought to it first."""

    def __init__(self, judge: Judge, sample_rate: int) -> None:
        super().__init__("judge", lambda x: x)
        self.judge, self.sample_rate, self.class_names, self.card = judge, sample_rate, judge.class_names, judge.card
        self.width = judge.width

    def features(self, x: Tensor, batch_size: int = 200) -> tuple[Tensor, Tensor]:
        x = resampled(x, self.sample_rate, self.judge.sample_rate)
        room = self.judge.samples - x.shape[1]
        x = torch.nn.functional.pad(x, (0, room)) if room >= 0 else x[:, : self.judge.samples]
        return self.judge.features(x, batch_size)


def resampled(x: Tensor, old: int, new: int) -> Tensor:
    """Clips (n, L) at another rate in Hz."""
    found: Tensor = x if old == new else transforms().Resample(old, new)(x)
    return found


def candidates(sample_rate: int) -> list[Features]:
    """Nets of ours that know nothing of the clips' labels: the packaged judges, whose features of all windows are averaged."""
    return [Features(f"the packaged {name}", windows(load_judge(name), sample_rate)) for name in PACKAGED]


def windows(judge: Judge, sample_rate: int) -> Any:
    """Features (n, 2 width) of clips (n, L): mean and largest over the windows of a judge."""

    def features(x: Tensor) -> Tensor:
        x = resampled(x, sample_rate, judge.sample_rate)
        x = torch.nn.functional.pad(x, (0, -x.shape[1] % judge.samples))
        parts = x.view(-1, judge.samples)
        found = judge.embed(parts).view(len(x), -1, judge.width)
        return torch.cat([found.mean(1), found.amax(1)], 1) if found.shape[1] > 1 else found[:, 0]

    return features

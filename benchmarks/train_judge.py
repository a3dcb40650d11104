"""Train a judge: a small classifier whose labels and features measure generated samples.

    python benchmarks/train_judge.py fashion --data fashion_mnist.npz --out zoo/checkpoints/image/fashion-judge
    python benchmarks/train_judge.py digits --data fsdd_8k.npz --out zoo/checkpoints/audio/digits-judge
    python benchmarks/train_judge.py speaker --data fsdd_8k.npz --out zoo/checkpoints/audio/speaker-judge
    python benchmarks/train_judge.py words --data speech_commands_4w_16k.npz --out zoo/checkpoints/audio/words-judge
    python benchmarks/train_judge.py shapes --data pointcloud_furniture_cc.npz --out zoo/checkpoints/point3d/shapes-judge

Real data only, in the splits of the domain: "train" for the weights, "validation" for the choice of an epoch, and "test" is
read once, after the choice, for the report. Same seed, threads, machine and torch: same weights.

A `Kind` is what differs, all else is the same for all. Older cards name the three scripts of which this one was made:
train_judge.py without a kind (fashion), train_audio_judge.py, and train_point_judge.py (shapes).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import zoo.audio.judge
import zoo.image.judge
import zoo.point3d.judge
from zoo.audio.codec import SpectrogramCodec
from zoo.audio.data import FSDD_FILE, WORDS_FILE, Clips, open_audio
from zoo.audio.recipes import RECIPES
from zoo.data.archive import read_archive
from zoo.errors import ConfigError, DataError
from zoo.evaluation.judge import CARD, WEIGHTS, Judge, load_judge, save_judge
from zoo.evaluation.learn import AverageOfTheEnd, accuracy, learn
from zoo.image.data import HELD_OUT, ArrayImages, fashion_mnist
from zoo.point3d.codec import PointCodec
from zoo.point3d.data import FURNITURE, Clouds, open_clouds

SPLITS = ("train", "validation", "test")


# ---------------------------------------------------------------- which weights are kept


class BestEpoch:
    """The weights of the epoch that is best on the validation split.

    Args:
        judge: the net in training.
        held: the validation split's samples (n, ...) and labels (n,).
        chunk: samples that are measured at a time.
        steps: of an epoch.
        later: of equal epochs the last one is kept, not the first one.
        log: print each epoch.
    """

    def __init__(self, judge: Judge, held: tuple[Tensor, Tensor], chunk: int, steps: int, later: bool, log: bool) -> None:
        self.judge, self.held, self.chunk, self.steps, self.later, self.log = judge, held, chunk, steps, later, log
        self.value, self.epoch = -1.0, 0
        self.weights: dict[str, Any] = {}
        self.curve: list[dict[str, Any]] = []
        self.total = 0.0

    def after(self, step: int, loss: float) -> None:
        """What there is to do after each step (1, 2, ...) of training."""
        self.total += loss
        if step % self.steps:
            return
        epoch, value = step // self.steps, accuracy(self.judge, *self.held, self.chunk)["value"]
        self.curve.append({"epoch": epoch, "train_loss": self.total / self.steps, "validation_accuracy": value})
        if self.log:
            tqdm.write(f"epoch {epoch}: train loss {self.total / self.steps:.4f}, validation accuracy {value:.4f}")
        self.total = 0.0
        if value > self.value or (self.later and value == self.value):
            self.value, self.epoch, self.weights = value, epoch, copy.deepcopy(self.judge.state_dict())

    def finish(self) -> dict[str, Any]:
        """Put the chosen weights into the judge, and return what the card says about the choice."""
        self.judge.load_state_dict(self.weights)
        return {"chosen_epoch": self.epoch, "chosen_on": "validation accuracy", "curve": self.curve}


# ---------------------------------------------------------------- what differs


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A judge of one sort of data: its data, net, augmentation, optimizer and choice of weights.

    Attributes:
        file: the archive of the data.
        split: how that is split, for the card.
        widths: of the net's three stages.
        length: of the training, in `unit`s.
        batch_size, lr: of the training.
        unit: "epochs" (each sample once, the rest of a batch left out) or "steps".
        least: how long training must be for a choice.
        chunk: samples that are measured at a time.
        later: see `BestEpoch`.
    """

    file: str
    split: str
    widths: tuple[int, ...]
    length: int
    batch_size: int
    lr: float
    unit: ClassVar[str] = "epochs"
    least: ClassVar[int] = 1
    chunk: ClassVar[int] = 500
    later: ClassVar[bool] = True

    @property
    def augmentation(self) -> dict[str, Any]:
        """Numbers of the augmentation, for the card."""
        raise NotImplementedError

    def open(self, path: Path, split: str) -> Any:
        """The split of an archive as the domain's dataset, or a DataError."""
        raise NotImplementedError

    def build(self, data: Any) -> Judge:
        """A new judge of the classes of the data."""
        raise NotImplementedError

    def samples(self, data: Any) -> tuple[Tensor, Tensor]:
        """All samples (n, ...) as they are, and their labels (n,) int64."""
        raise NotImplementedError

    def batch(self, data: Any, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augmented samples (b, ...) of some rows (b,), and their labels (b,) int64."""
        raise NotImplementedError

    def optimizer(self, judge: Judge, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimizer, and one cycle of its learning rate over all steps."""
        raise NotImplementedError

    def epoch(self, n: int) -> int:
        """How many steps an epoch of n samples has."""
        return max(1, n // self.batch_size)

    def steps(self, n: int) -> int:
        """How many steps the training on n samples has."""
        return self.length * self.epoch(n)

    def batches(self, n: int, rng: torch.Generator) -> Iterator[Tensor]:
        """Rows (b,) of n samples, for each step."""
        for _ in range(self.length):
            order = torch.randperm(n, generator=rng)
            yield from order[: self.epoch(n) * self.batch_size].split(self.batch_size)

    def choice(self, judge: Judge, data: Mapping[str, Any], rng: torch.Generator, log: bool) -> BestEpoch | AverageOfTheEnd:
        """The rule by which weights are kept."""
        held = self.samples(data["validation"])
        return BestEpoch(judge, held, self.chunk, self.epoch(len(data["train"])), self.later, log)


@dataclass(frozen=True, kw_only=True)
class Pictures(Kind):
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747).

    SGD with Nesterov momentum; pictures are moved by up to `shift` pixels. No flips: the shoes of Fashion-MNIST point left,
    and features should tell a flipped one.
    """

    file: str = "fashion_mnist.npz"
    split: str = f"validation = the last {HELD_OUT} training rows, train = the rest, test = official"
    widths: tuple[int, ...] = (24, 64, 128)
    length: int = 14
    batch_size: int = 128
    lr: float = 0.1
    shift: int = 2
    later: ClassVar[bool] = False

    @property
    def augmentation(self) -> dict[str, Any]:
        return {"shift": self.shift}

    def open(self, path: Path, split: str) -> ArrayImages:
        data = fashion_mnist(path, split)
        names = [str(n) for n in read_archive(path, ("class_names",), "Fashion-MNIST")["class_names"]]
        if (largest := data.targets.max(initial=0)) >= len(names):
            raise DataError(f"{path} has {len(names)} class_names, but labels up to {largest}.")
        return ArrayImages(data.pixels, data.targets, names)

    def build(self, data: ArrayImages) -> Judge:
        return zoo.image.judge.Judge(self.widths, tuple(data.labels["label"]))

    def samples(self, data: ArrayImages) -> tuple[Tensor, Tensor]:
        return self._tensors(data, np.arange(len(data)))

    def batch(self, data: ArrayImages, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = self._tensors(data, rows.numpy())
        return shifted(x, self.shift, rng), y

    def _tensors(self, data: ArrayImages, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures (b, 1, 28, 28) float32 in [-1, 1], and labels (b,) int64."""
        return torch.from_numpy(data.pixels[rows])[:, None].float() / 127.5 - 1, torch.from_numpy(data.targets[rows]).long()

    def optimizer(self, judge: Judge, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        # weight decay is for matrices: on norm scales and offsets it only costs accuracy
        decayed = [p for p in judge.parameters() if p.ndim > 1]
        plain = [p for p in judge.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 2e-4}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=0.9, nesterov=True)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps, pct_start=0.2)


def shifted(pictures: Tensor, pixels: int, rng: torch.Generator) -> Tensor:
    """Move each picture (B, C, H, W) by up to `pixels` in both directions; the border is background (-1)."""
    b, c, h, w = pictures.shape
    padded = nn.functional.pad(pictures, (pixels,) * 4, value=-1)
    dy, dx = torch.randint(0, 2 * pixels + 1, (2, b, 1), generator=rng)
    rows, cols = torch.arange(h) + dy, torch.arange(w) + dx
    batch, channel = torch.arange(b)[:, None, None, None], torch.arange(c)[None, :, None, None]
    return padded[batch, channel, rows[:, None, :, None], cols[:, None, None, :]]


@dataclass(frozen=True, kw_only=True)
class Sounds(Kind):
    """Digits or voices of FSDD, or four words of Speech Commands; none of the clips went through a codec and back.

    Attributes:
        condition: what is judged.
        recipe: the window of its clips is used.
        speed: clips are played up to this share faster or slower.
    """

    file: str = FSDD_FILE
    split: str = "those of zoo.audio.data: test = official takes 0-4, validation = takes 5-9, train = the rest"
    widths: tuple[int, ...] = (24, 48, 96)
    batch_size: int = 64
    lr: float = 4e-3
    condition: str
    recipe: str = "spec-ddpm"
    speed: float

    @property
    def augmentation(self) -> dict[str, Any]:
        return {"speed": self.speed}

    @cached_property
    def codec(self) -> SpectrogramCodec:
        """The codec in whose window the clips are placed, with the judge's augmentation."""
        return SpectrogramCodec(**RECIPES[self.recipe].codec | {"lead": 0.064, "jitter": 0.06, "speed": self.speed})

    def open(self, path: Path, split: str) -> Clips:
        clips = open_audio(path, split)
        if not isinstance(clips, Clips) or self.condition not in clips.targets:
            raise DataError(f"{path} has no {self.condition!r} of its clips, only {', '.join(clips.labels) or 'clips'}.")
        return clips

    def build(self, data: Clips) -> Judge:
        names = tuple(data.labels[self.condition])
        return zoo.audio.judge.Judge(self.widths, names, self.codec.sample_rate, self.codec.samples)

    def samples(self, data: Clips) -> tuple[Tensor, Tensor]:
        return torch.stack([self.codec.place(data[i][0]) for i in range(len(data))]), self._labels(data)

    def batch(self, data: Clips, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.stack([self.codec.place(data[int(i)][0], rng) for i in rows])
        # two of three with noise that is 20 to 60 dB below full scale
        level = 10 ** (-(20 + 40 * torch.rand(len(x), 1, generator=rng)) / 20)
        level *= torch.rand(len(x), 1, generator=rng) < 2 / 3
        return x + level * torch.randn(x.shape, generator=rng), self._labels(data)[rows]

    def _labels(self, data: Clips) -> Tensor:
        return torch.from_numpy(data.targets[self.condition])

    def optimizer(self, judge: Judge, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer = torch.optim.AdamW(judge.parameters(), self.lr, weight_decay=0.02)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)


@dataclass(frozen=True, kw_only=True)
class Shapes(Kind):
    """Furniture and other shapes. The validation split is 50 clouds, too few to choose an epoch by: weights are averaged.

    Attributes:
        points: of a cloud that a step takes, others each time.
        yaw, stretch: clouds are turned by up to so many radians about y, and stretched by up to this share; and mirrored.
        noise: up to so much on each coordinate, in units of the cloud's radius.
    """

    file: str = FURNITURE
    split: str = "those of zoo.point3d.data: test = the archive's own, validation = a tenth of the others, train = the rest"
    widths: tuple[int, ...] = (64, 192, 128)
    length: int = 1500
    batch_size: int = 64
    lr: float = 3e-3
    points: int = 512
    yaw: float = 0.3
    stretch: float = 0.2
    noise: float = 0.02
    unit: ClassVar[str] = "steps"
    least: ClassVar[int] = 5  # a fifth of them is averaged
    chunk: ClassVar[int] = 50

    @property
    def augmentation(self) -> dict[str, Any]:
        return {"points": self.points, "yaw": self.yaw, "stretch": self.stretch, "noise": self.noise}

    @cached_property
    def codec(self) -> PointCodec:
        """The codec whose augmentation is the judge's, too."""
        return PointCodec(train_points=self.points, yaw=self.yaw, stretch=self.stretch, mirror=True)

    def open(self, path: Path, split: str) -> Clouds:
        return open_clouds(path, split)

    def build(self, data: Clouds) -> Judge:
        return zoo.point3d.judge.Judge(self.widths, tuple(data.labels["label"]))

    def samples(self, data: Clouds) -> tuple[Tensor, Tensor]:
        return torch.stack([torch.from_numpy(c.points) for c in data.clouds]), torch.as_tensor(data.label)

    def batch(self, data: Clouds, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        clouds, conditions = zip(*(data[int(i)] for i in rows), strict=True)
        x = torch.stack([self.codec.augment(torch.from_numpy(c.points), c.mirror_axis, rng) for c in clouds])
        level = self.noise * torch.rand(len(x), 1, 1, generator=rng)
        return x + level * torch.randn(x.shape, generator=rng), torch.tensor([c["label"] for c in conditions])

    def optimizer(self, judge: Judge, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer = torch.optim.AdamW(judge.parameters(), self.lr, weight_decay=0.05)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps, pct_start=0.15, final_div_factor=20)
        return optimizer, cycle

    def steps(self, n: int) -> int:
        return self.length

    def batches(self, n: int, rng: torch.Generator) -> Iterator[Tensor]:
        for _ in range(self.length):
            yield torch.randint(n, (self.batch_size,), generator=rng)

    def choice(self, judge: Judge, data: Mapping[str, Any], rng: torch.Generator, log: bool) -> AverageOfTheEnd:
        return AverageOfTheEnd(judge, self.length, self._all(data["train"], rng))

    def _all(self, data: Clouds, rng: torch.Generator) -> Iterator[Tensor]:
        """All clouds, augmented, in batches; drawn when the training has ended."""
        for rows in torch.randperm(len(data), generator=rng).split(100):
            yield self.batch(data, rows, rng)[0]


KINDS: dict[str, Kind] = {
    "fashion": Pictures(),
    "digits": Sounds(condition="label", length=24, speed=0.12),
    "speaker": Sounds(condition="speaker", length=12, speed=0.05),  # pitch is a part of a voice
    "words": Sounds(
        file=WORDS_FILE,
        split="those of zoo.audio.data: test = the file's own, validation = every ninth of the other speakers, train = rest",
        recipe="words-ddpm",
        condition="label",
        widths=(32, 64, 128),
        length=40,
        speed=0.12,
    ),
    "shapes": Shapes(),
}


# ---------------------------------------------------------------- the frame


def train_judge(kind: Kind, data: Mapping[str, Any], *, seed: int = 0, log: bool = True) -> tuple[Judge, dict[str, Any]]:
    """Train on data["train"]; the kind decides which weights are kept.

    Args:
        kind: the sort of judge, with its settings.
        data: {split: dataset of `kind.open`}: "train", and "validation" where that chooses.
        seed: of the first weights, dropout, the order of the data and the augmentation.
        log: show the progress.

    Returns:
        The judge in evaluation mode and a JSON-ready report: the settings, the choice, the curve.

    Raises:
        ConfigError: training too short for a choice, or a batch_size below 2 (batch norm).
    """
    if kind.length < kind.least or kind.batch_size < 2:
        raise ConfigError(f"{kind.unit} must be >= {kind.least} and batch_size >= 2, got {kind.length} and {kind.batch_size}")
    torch.manual_seed(seed)
    rng, train = torch.Generator().manual_seed(seed), data["train"]
    steps = kind.steps(len(train))
    judge = kind.build(train)
    optimizer, cycle = kind.optimizer(judge, steps)
    choice = kind.choice(judge, data, rng, log)
    batches = (kind.batch(train, rows, rng) for rows in kind.batches(len(train), rng))
    chosen = learn(judge, batches, optimizer, cycle, choice, steps, log=log)
    settings = {"widths": list(kind.widths), kind.unit: kind.length, "batch_size": kind.batch_size, "lr": kind.lr, "seed": seed}
    return judge, {"settings": settings | kind.augmentation, **chosen}


def parser() -> argparse.ArgumentParser:
    """The command line: one command for each kind."""
    whole = argparse.ArgumentParser(prog="python benchmarks/train_judge.py", description=__doc__.splitlines()[0])
    commands = whole.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        p = commands.add_parser(name, help=f"from {kind.file}", description=f"Train the judge {name!r} on {kind.file}.")
        p.add_argument("--data", required=True, type=Path, metavar="FILE", help=kind.file)
        p.add_argument("--out", required=True, type=Path, metavar="DIR", help=f"folder for {WEIGHTS} and {CARD}")
        p.add_argument(f"--{kind.unit}", dest="length", type=int, default=kind.length, metavar="N", help="default %(default)s")
        p.add_argument("--batch-size", type=int, default=kind.batch_size, metavar="N", help="default %(default)s")
        p.add_argument("--lr", type=float, default=kind.lr, help="the highest learning rate, default %(default)s")
        p.add_argument("--widths", type=int, nargs=3, default=kind.widths, metavar="N", help="default %(default)s")
        p.add_argument("--seed", type=int, default=0, help="default %(default)s")
    return whole


def main(argv: list[str] | None = None) -> None:
    """Train, measure and save. See the module's docstring."""
    args = parser().parse_args(argv)
    kind = replace(KINDS[args.kind], length=args.length, batch_size=args.batch_size, lr=args.lr, widths=tuple(args.widths))
    if not args.data.is_file():
        raise DataError(f"no file {args.data}; give the path of {kind.file}")
    data = {split: kind.open(args.data, split) for split in SPLITS}
    start = time.perf_counter()
    judge, report = train_judge(kind, data, seed=args.seed)
    minutes = (time.perf_counter() - start) / 60
    measured = {split: accuracy(judge, *kind.samples(part), kind.chunk) for split, part in data.items()}
    card = {
        "data": {
            "name": args.data.name,
            "sha256": hashlib.sha256(args.data.read_bytes()).hexdigest(),
            "split": kind.split,
        },
        "accuracy": measured,
        "training": report | {"minutes": round(minutes, 2), "threads": torch.get_num_threads(), "cores": os.cpu_count()},
        "parameters": sum(p.numel() for p in judge.parameters()),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "command": f"python benchmarks/train_judge.py {args.kind} --data {args.data.name} --out DIR "
        f"--{kind.unit} {kind.length} --batch-size {kind.batch_size} --lr {kind.lr} "
        f"--widths {' '.join(map(str, kind.widths))} --seed {args.seed}",
    }
    save_judge(judge, args.out, card)
    load_judge(type(judge), args.out)  # what was written can be read
    for name, found in measured.items():
        low, high = found["interval"]
        print(f"{name:10} accuracy {found['value']:.4f}  95 % {low:.4f}..{high:.4f}  n {found['n']}")
    size = (args.out / WEIGHTS).stat().st_size / 1e6
    print(f"{card['parameters']:,} parameters, {size:.2f} MB, {minutes:.1f} minutes")


if __name__ == "__main__":
    main()

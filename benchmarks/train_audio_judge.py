"""Train a judge of `zoo.audio`: of the digits or the voices of FSDD, or of four words of Speech Commands.

    python benchmarks/train_audio_judge.py digits --data fsdd_8k.npz --out zoo/checkpoints/audio/digits-judge
    python benchmarks/train_audio_judge.py speaker --data fsdd_8k.npz --out zoo/checkpoints/audio/speaker-judge
    python benchmarks/train_audio_judge.py words --data speech_commands_4w_16k.npz --out zoo/checkpoints/audio/words-judge

Real training clips only, none through the codec; the splits of `zoo.audio.data`. The epoch is chosen on the validation
split; the test split is read once, after the choice, for the report. Same seed, threads, machine and torch: same weights.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from zoo.audio.codec import SpectrogramCodec
from zoo.audio.data import Clips, open_audio
from zoo.audio.judge import Judge, load_judge
from zoo.audio.recipes import RECIPES
from zoo.errors import ConfigError, DataError
from zoo.evaluation.distances import wilson_interval
from zoo.evaluation.judge import WEIGHTS, save_judge

SPLITS = ("train", "validation", "test")


class Kind(NamedTuple):
    """What a judge judges."""

    condition: str
    recipe: str  # whose window its clips have
    widths: tuple[int, int, int]
    epochs: int
    speed: float  # clips are played up to this much faster or slower


KINDS = {
    "digits": Kind("label", "spec-ddpm", (24, 48, 96), 24, 0.12),
    "speaker": Kind("speaker", "spec-ddpm", (24, 48, 96), 12, 0.05),  # pitch is a part of a voice
    "words": Kind("label", "words-ddpm", (32, 64, 128), 40, 0.12),
}


def window(kind: Kind) -> SpectrogramCodec:
    """The codec whose window the clips are placed in, with the judge's augmentation."""
    options = RECIPES[kind.recipe].codec | {"lead": 0.064, "jitter": 0.06, "speed": kind.speed}
    return SpectrogramCodec(**options)


def moved(codec: SpectrogramCodec, clips: Clips, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Clips (n, L) in the window, moved and played faster or slower, two of three with noise 20 to 60 dB down."""
    x = torch.stack([codec.place(clips[int(i)][0], generator) for i in rows])
    level = 10 ** (-(20 + 40 * torch.rand(len(x), 1, generator=generator)) / 20)
    level *= torch.rand(len(x), 1, generator=generator) < 2 / 3
    return x + level * torch.randn(x.shape, generator=generator)


def accuracy(judge: Judge, clips: Tensor, labels: Tensor) -> dict[str, Any]:
    """Share of clips that the judge labels rightly, with its 95 % Wilson interval."""
    right, n = int((judge.features(clips)[1].argmax(1) == labels).sum()), len(labels)
    return {"value": right / n, "interval": list(wilson_interval(right, n)), "n": n}


def train_judge(
    data: dict[str, Clips],
    kind: Kind,
    *,
    epochs: int,
    batch_size: int = 64,
    lr: float = 4e-3,
    seed: int = 0,
    log: bool = True,
) -> tuple[Judge, dict[str, Any]]:
    """Train on data["train"] and keep the epoch that is best on data["validation"] (the later one of equals).

    AdamW, one learning-rate cycle. No label smoothing: it draws each class together in feature space, where a Frechet
    distance would then see little.

    Returns:
        The judge in evaluation mode and a JSON-ready report: the settings, the chosen epoch, the curve.

    Raises:
        ConfigError: epochs below 1 or batch_size below 2 (batch norm).
        DataError: data without the condition to judge.
    """
    if epochs < 1 or batch_size < 2:
        raise ConfigError(f"epochs must be >= 1 and batch_size >= 2, got {epochs} and {batch_size}")
    if kind.condition not in data["train"].targets:
        raise DataError(f"the data has no {kind.condition!r}, only {', '.join(data['train'].targets)}")
    torch.manual_seed(seed)
    rng, codec = torch.Generator().manual_seed(seed), window(kind)
    names = tuple(data["train"].labels[kind.condition])
    judge, y = Judge(kind.widths, names, codec.sample_rate, codec.samples), labels_of(data["train"], kind)
    held = placed(codec, data["validation"]), labels_of(data["validation"], kind)
    steps = max(1, len(y) // batch_size)
    optimizer = torch.optim.AdamW(judge.parameters(), lr, weight_decay=0.02)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps)
    best: tuple[float, int, dict[str, Tensor]] = (-1.0, 0, {})
    curve = []
    for epoch in range(1, epochs + 1):
        judge.train()
        order, total = torch.randperm(len(y), generator=rng), 0.0
        for rows in tqdm(
            order[: steps * batch_size].split(batch_size), f"epoch {epoch}/{epochs}", disable=not log, leave=False
        ):
            loss = nn.functional.cross_entropy(judge(moved(codec, data["train"], rows, rng)), y[rows])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            cycle.step()
            total += loss.item()
        value = accuracy(judge, *held)["value"]
        curve.append({"epoch": epoch, "train_loss": total / steps, "validation_accuracy": value})
        if log:
            print(f"epoch {epoch}: train loss {total / steps:.4f}, validation accuracy {value:.4f}", flush=True)
        if value >= best[0]:
            best = (value, epoch, copy.deepcopy(judge.state_dict()))
    judge.load_state_dict(best[2])
    settings = {
        "widths": list(kind.widths),
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "speed": kind.speed,
    }
    report = {"settings": settings, "chosen_epoch": best[1], "chosen_on": "validation accuracy", "curve": curve}
    return judge.eval(), report


def labels_of(clips: Clips, kind: Kind) -> Tensor:
    """What there is to judge, (n,) int64."""
    return torch.from_numpy(clips.targets[kind.condition])


def placed(codec: SpectrogramCodec, clips: Clips) -> Tensor:
    """All clips (n, L) in the window, as they are."""
    return torch.stack([codec.place(clips[i][0]) for i in range(len(clips))])


def main(argv: list[str] | None = None) -> None:
    """Train, measure and save. See the module's docstring."""
    p = argparse.ArgumentParser(prog="python benchmarks/train_audio_judge.py", description=__doc__.splitlines()[0])
    p.add_argument("kind", choices=KINDS)
    p.add_argument("--data", required=True, help="fsdd_8k.npz or speech_commands_4w_16k.npz")
    p.add_argument("--out", required=True, help="folder for judge.safetensors and judge.json")
    p.add_argument("--epochs", type=int, help="default: the kind's")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args(argv)
    kind = KINDS[args.kind]
    epochs = args.epochs or kind.epochs
    data = {split: open_audio(args.data, split) for split in SPLITS}
    start = time.perf_counter()
    judge, report = train_judge(data, kind, epochs=epochs, seed=args.seed)
    minutes = (time.perf_counter() - start) / 60
    codec = window(kind)
    measured = {split: accuracy(judge, placed(codec, clips), labels_of(clips, kind)) for split, clips in data.items()}
    card = {
        "data": {
            "name": Path(args.data).name,
            "sha256": hashlib.sha256(Path(args.data).read_bytes()).hexdigest(),
            "split": "those of zoo.audio.data: test = official takes 0-4 (words: the file's own), validation = takes 5-9 "
            "(words: every ninth of the other speakers), train = the rest",
        },
        "accuracy": measured,
        "training": report | {"minutes": round(minutes, 2), "threads": torch.get_num_threads(), "cores": os.cpu_count()},
        "parameters": sum(q.numel() for q in judge.parameters()),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "command": f"python benchmarks/train_audio_judge.py {args.kind} --data {Path(args.data).name} --out DIR "
        f"--epochs {epochs} --seed {args.seed}",
    }
    save_judge(judge, args.out, card)
    load_judge(Path(args.out))  # what was written can be read
    for name, a in measured.items():
        low, high = a["interval"]
        print(f"{name:10} accuracy {a['value']:.4f}  95 % {low:.4f}..{high:.4f}  n {a['n']}")
    size = (Path(args.out) / WEIGHTS).stat().st_size / 1e6
    print(f"{card['parameters']:,} parameters, {size:.2f} MB, {minutes:.1f} minutes")


if __name__ == "__main__":
    main()

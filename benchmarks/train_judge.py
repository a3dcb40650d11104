"""Train the judge of `zoo.image.metrics` on Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747).

    python benchmarks/train_judge.py --data DIR/fashion_mnist.npz --out zoo/checkpoints/image/fashion-judge

The last 5,000 training rows are the validation set: the epoch is chosen on them. The official test set is
read once, after the choice, for the report. Same seed, threads, machine and torch: same weights.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import platform
import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from zoo.errors import ConfigError, DataError
from zoo.evaluation.distances import wilson_interval
from zoo.evaluation.judge import WEIGHTS, save_judge
from zoo.image.judge import SHAPE, Judge, load_judge

#: rows at the end of the training set that neither the judge nor a diffusion model trains on
VALIDATION_ROWS = 5000
#: the packaged judge
WIDTHS, EPOCHS = (24, 64, 128), 14


class Split(NamedTuple):
    """Pictures (N, 1, 28, 28) float32 in [-1, 1] and labels (N,) int64."""

    pictures: Tensor
    labels: Tensor


def read_fashion(path: str | Path, validation_rows: int = VALIDATION_ROWS) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Read `fashion_mnist.npz`.

    Args:
        path: archive with uint8 train_images, train_labels, test_images, test_labels and class_names.
        validation_rows: how many of the last training rows become the validation set.

    Returns:
        The splits "train", "validation" and "test", and the class names.

    Raises:
        DataError: a missing or damaged file, or arrays that are not there or do not fit each other.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file {path}; give the path of fashion_mnist.npz (arrays train_images, train_labels, ...)")
    try:
        with np.load(path) as z:
            names = tuple(str(n) for n in z["class_names"])
            raw = {s: (z[f"{s}_images"], z[f"{s}_labels"]) for s in ("train", "test")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise DataError(f"cannot read {path} as fashion_mnist.npz: {type(e).__name__}: {e}") from e
    full = {}
    for s, (images, labels) in raw.items():
        if images.dtype != np.uint8 or images.shape != (len(labels), *SHAPE[1:]) or labels.max(initial=0) >= len(names):
            raise DataError(
                f"{path}: {s}_images must be (N, 28, 28) uint8 with N labels below {len(names)}, "
                f"got {images.shape} {images.dtype} and {len(labels)} labels"
            )
        full[s] = Split(torch.from_numpy(images)[:, None].float() / 127.5 - 1, torch.from_numpy(labels).long())
    train, cut = full["train"], len(full["train"].labels) - validation_rows
    if cut < 1 or validation_rows < 1:
        raise DataError(f"{path}: {len(train.labels)} training rows cannot give {validation_rows} validation rows")
    first, last = (Split(*(a[s] for a in train)) for s in (slice(None, cut), slice(cut, None)))
    return {"train": first, "validation": last, "test": full["test"]}, names


def shift(pictures: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move each picture (B, C, H, W) by up to `pixels` in both directions; the border is background (-1)."""
    b, c, h, w = pictures.shape
    padded = nn.functional.pad(pictures, (pixels,) * 4, value=-1)
    dy, dx = torch.randint(0, 2 * pixels + 1, (2, b, 1), generator=generator)
    rows, cols = torch.arange(h) + dy, torch.arange(w) + dx
    batch, channel = torch.arange(b)[:, None, None, None], torch.arange(c)[None, :, None, None]
    return padded[batch, channel, rows[:, None, :, None], cols[:, None, None, :]]


def accuracy(judge: Judge, split: Split) -> dict[str, Any]:
    """Share of pictures that the judge labels rightly, with its 95 % Wilson interval."""
    right = int((judge.features(split.pictures)[1].argmax(1) == split.labels).sum())
    return {
        "value": right / len(split.labels),
        "interval": list(wilson_interval(right, len(split.labels))),
        "n": len(split.labels),
    }


def train_judge(
    splits: dict[str, Split],
    names: tuple[str, ...],
    *,
    widths: tuple[int, ...] = WIDTHS,
    epochs: int = EPOCHS,
    batch_size: int = 128,
    lr: float = 0.1,
    seed: int = 0,
    log: bool = True,
) -> tuple[Judge, dict[str, Any]]:
    """Train on splits["train"] and keep the epoch that is best on splits["validation"].

    SGD with Nesterov momentum, one learning-rate cycle, pictures moved by up to two pixels. No flips (the
    shoes of Fashion-MNIST point left: features should tell a flipped one) and no label smoothing (it draws
    each class together in feature space, where a Frechet distance would then see little).

    Returns:
        The judge in evaluation mode and a JSON-ready report: the settings, the chosen epoch, the curve.

    Raises:
        ConfigError: epochs or batch_size below 1 (2 for the batch: batch norm).
    """
    if epochs < 1 or batch_size < 2:
        raise ConfigError(f"epochs must be >= 1 and batch_size >= 2, got {epochs} and {batch_size}")
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    judge, (x, y) = Judge(widths, names), splits["train"]
    steps = max(1, len(y) // batch_size)
    # weight decay is for matrices: on norm scales and offsets it only costs accuracy
    decayed = [p for p in judge.parameters() if p.ndim > 1]
    plain = [p for p in judge.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 2e-4}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps, pct_start=0.2)
    best: tuple[float, int, dict[str, Tensor]] = (-1.0, 0, {})
    curve = []
    for epoch in range(1, epochs + 1):
        judge.train()
        order, total = torch.randperm(len(y), generator=rng), 0.0
        batches = torch.split(order[: steps * batch_size], batch_size)
        for rows in tqdm(batches, f"epoch {epoch}/{epochs}", disable=not log, leave=False):
            loss = nn.functional.cross_entropy(judge(shift(x[rows], 2, rng)), y[rows])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            cycle.step()
            total += loss.item()
        value = accuracy(judge, splits["validation"])["value"]
        curve.append({"epoch": epoch, "train_loss": total / steps, "validation_accuracy": value})
        if log:
            print(f"epoch {epoch}: train loss {total / steps:.4f}, validation accuracy {value:.4f}", flush=True)
        if value > best[0]:
            best = (value, epoch, copy.deepcopy(judge.state_dict()))
    judge.load_state_dict(best[2])
    settings = {"widths": list(widths), "epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed}
    return judge.eval(), {
        "settings": settings,
        "chosen_epoch": best[1],
        "chosen_on": "validation accuracy",
        "curve": curve,
    }


def main(argv: list[str] | None = None) -> None:
    """Train, measure and save. See the module's docstring."""
    p = argparse.ArgumentParser(prog="python benchmarks/train_judge.py", description=__doc__.splitlines()[0])
    p.add_argument("--data", required=True, help="fashion_mnist.npz")
    p.add_argument("--out", required=True, help="folder for judge.safetensors and judge.json")
    p.add_argument("--epochs", type=int, default=EPOCHS)
    p.add_argument("--batch-size", type=int, default=128)
    p.add_argument("--lr", type=float, default=0.1)
    p.add_argument("--widths", type=int, nargs=3, default=WIDTHS, metavar=("A", "B", "C"))
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args(argv)
    splits, names = read_fashion(args.data)
    start = time.perf_counter()
    judge, report = train_judge(
        splits,
        names,
        widths=tuple(args.widths),
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        seed=args.seed,
    )
    minutes = (time.perf_counter() - start) / 60
    measured = {name: accuracy(judge, split) for name, split in splits.items()}
    card = {
        "data": {
            "name": Path(args.data).name,
            "sha256": hashlib.sha256(Path(args.data).read_bytes()).hexdigest(),
            "split": f"validation = the last {VALIDATION_ROWS} training rows, train = the rest, test = official",
        },
        "accuracy": measured,
        "training": report | {"minutes": round(minutes, 2), "threads": torch.get_num_threads(), "cores": os.cpu_count()},
        "parameters": sum(q.numel() for q in judge.parameters()),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "command": f"python benchmarks/train_judge.py --data {Path(args.data).name} --out DIR "
        f"--epochs {args.epochs} --batch-size {args.batch_size} --lr {args.lr} "
        f"--widths {' '.join(map(str, args.widths))} --seed {args.seed}",
    }
    save_judge(judge, args.out, card)
    load_judge(args.out)  # what was written can be read
    for name, a in measured.items():
        low, high = a["interval"]
        print(f"{name:10} accuracy {a['value']:.4f}  95 % {low:.4f}..{high:.4f}  n {a['n']}")
    size = (Path(args.out) / WEIGHTS).stat().st_size / 1e6
    print(f"{card['parameters']:,} parameters, {size:.2f} MB, {minutes:.1f} minutes")


if __name__ == "__main__":
    main()

"""What a packaged model is worth as a start: two of its classes, from it and from scratch, in equal steps.

    python benchmarks/finetune.py image --data fashion_mnist.npz --labels bag sneaker --steps 365
    python benchmarks/finetune.py audio --data fsdd_8k.npz --labels seven one --steps 100 --seeds 2

The two classes are written out as folders, as a user has them, and each arm trains on them by `zoo.train`; the arms take
turns. The packaged judge says how many of the samples are what was asked for, among all of its classes and among the two.
An arm is NAME or NAME:path=value;path=value, where NAME is init, scratch, or init-new, which gives the labels names that the
model does not know. `start` measures the packaged model itself, which has never seen the folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.model.model import Model

#: domain -> the packaged model
MODELS = {"image": "image/fashion-ddpm", "audio": "audio/spec-ddpm"}


def pictures(data: str, labels: list[str], folder: Path, most: int) -> None:
    """Training pictures of some classes as PNG files in class folders."""
    from PIL import Image

    from zoo.image.data import open_images
    from zoo.image.recipes import FASHION

    images = open_images(data, "train")
    for label in labels:
        rows = (images.targets == FASHION.index(label)).nonzero()[0][:most]
        (folder / label).mkdir(parents=True)
        for row in rows.tolist():
            Image.fromarray(images.pixels[row]).save(folder / label / f"{row}.png")


def clips(data: str, labels: list[str], folder: Path, most: int) -> None:
    """Training recordings of some digits as WAV files in class folders."""
    from zoo.audio.data import open_audio

    found = open_audio(data, "train")
    for label in labels:
        rows = (found.targets["label"] == found.labels["label"].index(label)).nonzero()[0][:most]
        (folder / label).mkdir(parents=True)
        for row in rows.tolist():
            found[row][0].save(folder / label / f"{row}.wav")


def judged(domain: str) -> Callable[[Any], tuple[Tensor, tuple[str, ...]]]:
    """What the packaged judge says of samples: logits (n, classes) and the classes."""
    if domain == "image":
        from zoo.image.judge import load_judge as image_judge

        judge: Any = image_judge()
    else:
        from zoo.audio.judge import load_judge as audio_judge

        judge = audio_judge("digits-judge")
    return lambda made: (judge.features(made.tensor)[1], judge.class_names)


def accuracy(model: Model, domain: str, labels: list[str], names: list[str], n: int) -> tuple[float, float]:
    """Shares of n samples that the judge takes for what was asked for: among all of its classes, and among these.

    Args:
        labels: as the judge calls them. names: as the model does.
    """
    asked = [i % len(labels) for i in range(n)]
    made = model.sample(n, label=[names[i] for i in asked], seed=1, progress=False)
    logits, classes = judged(domain)(made)
    plain = [name.casefold().replace(" ", "-") for name in classes]
    own = torch.tensor([plain.index(label.casefold()) for label in labels])
    wanted = own[torch.tensor(asked)]
    among = own[logits[:, own].argmax(1)]
    return float((logits.argmax(1) == wanted).double().mean()), float((among == wanted).double().mean())


def run(arm: str, args: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """One arm: trained and measured."""
    name, _, texts = arm.partition(":")
    names = list(args.labels)
    model_name = MODELS[args.domain]
    row: dict[str, Any] = {"arm": arm, "seed": seed}
    if name == "start":
        model, row["minutes"], row["steps"] = zoo.load(model_name), 0.0, 0
    else:
        init = None if name == "scratch" else model_name
        source = folder
        if name == "init-new":
            names = [f"kind-{i}" for i in range(len(args.labels))]
            source = folder.with_name(f"{folder.name}-new")
            source.mkdir(exist_ok=True)
            for old, new in zip(args.labels, names, strict=True):
                if not (source / new).exists():
                    (source / new).symlink_to(folder / old, target_is_directory=True)
        overrides = dict(text.split("=", 1) for text in texts.split(";") if text)
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            model = zoo.train(
                model_name,
                data=str(source),
                steps=args.steps,
                out=Path(out) / "run",
                seed=seed,
                init=init,
                cpu=args.cpu,
                overrides=overrides,
                preview_every=0,
                save_every=0,
                workers=args.workers,
            )
        row |= {"minutes": round((time.perf_counter() - begin) / 60, 2), "steps": args.steps}
    row["accuracy"], row["among_two"] = accuracy(model, args.domain, args.labels, names, args.n)
    return row


def main() -> None:
    """Read the command line, train the arms in turns, print a table row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("domain", choices=MODELS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--labels", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=365, help="365 of 64 pictures are about 3 minutes of two idle cores")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--arms", nargs="+", default=["start", "init", "scratch"])
    parser.add_argument("--most", type=int, default=1000, help="files of a class, at most")
    parser.add_argument("--n", type=int, default=200, help="samples to measure")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        {"image": pictures, "audio": clips}[args.domain](args.data, args.labels, folder, args.most)
        print("arm | seed | steps | minutes | accuracy | among the labels", flush=True)
        for seed in range(args.seeds):
            for arm in args.arms:
                row = run(arm, args, folder, seed)
                rows.append(row)
                print(" | ".join(str(row[k]) for k in ("arm", "seed", "steps", "minutes", "accuracy", "among_two")), flush=True)
                if args.json:
                    args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

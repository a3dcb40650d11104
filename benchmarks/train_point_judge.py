"""Train the judge of `zoo.point3d`, a PointNet.

    python benchmarks/train_point_judge.py --data pointcloud_furniture_cc.npz --out zoo/checkpoints/point3d/shapes-judge

Real training clouds only; the splits of `zoo.point3d.data`. The validation part is 50 clouds, too few to choose an epoch by,
so the weights are the average over the last fifth of the run. The test split is read once, at the end, for the report.
Same seed, threads, machine and torch: same weights.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

from zoo.errors import ConfigError
from zoo.evaluation.distances import wilson_interval
from zoo.evaluation.judge import WEIGHTS, save_judge
from zoo.point3d.codec import PointCodec
from zoo.point3d.data import Clouds, open_clouds
from zoo.point3d.judge import Judge, load_judge

SPLITS = ("train", "validation", "test")
WIDTHS = (64, 192, 128)
#: augmentation: points taken, turn, stretch, and noise up to so much on the points
POINTS, YAW, STRETCH, NOISE = 512, 0.3, 0.2, 0.02


def moved(codec: PointCodec, clouds: Clouds, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Clouds (n, POINTS, 3), other points of each, turned, stretched, mirrored, and with a little noise."""
    picked = [clouds[int(i)][0] for i in rows]
    x = torch.stack([codec.augment(torch.from_numpy(c.points), c.mirror_axis, generator) for c in picked])
    level = NOISE * torch.rand(len(x), 1, 1, generator=generator)
    return x + level * torch.randn(x.shape, generator=generator)


def stacked(clouds: Clouds) -> tuple[Tensor, Tensor]:
    """All clouds (n, N, 3) as they are, and their labels (n,)."""
    return torch.stack([torch.from_numpy(c.points) for c in clouds.clouds]), torch.as_tensor(clouds.label)


def accuracy(judge: Judge, clouds: Clouds) -> dict[str, Any]:
    """Share of clouds that the judge labels rightly, with its 95 % Wilson interval."""
    x, y = stacked(clouds)
    right, n = int((judge.features(x, 50)[1].argmax(1) == y).sum()), len(y)
    return {"value": right / n, "interval": list(wilson_interval(right, n)), "n": n}


def train_judge(
    clouds: Clouds, *, steps: int, batch_size: int = 64, lr: float = 3e-3, seed: int = 0, log: bool = True
) -> tuple[Judge, dict[str, Any]]:
    """Train on `clouds` by AdamW, one cycle of the learning rate; the last fifth's weights are averaged.

    Returns:
        The judge in evaluation mode and a JSON-ready report: the settings and the loss.

    Raises:
        ConfigError: steps below 5 or batch_size below 2 (batch norm).
    """
    if steps < 5 or batch_size < 2:
        raise ConfigError(f"steps must be >= 5 and batch_size >= 2, got {steps} and {batch_size}")
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    codec = PointCodec(train_points=POINTS, yaw=YAW, stretch=STRETCH, mirror=True)
    judge = Judge(WIDTHS, tuple(clouds.labels["label"]))
    average = AveragedModel(judge)
    optimizer = torch.optim.AdamW(judge.parameters(), lr, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15, final_div_factor=20)
    curve, total = [], 0.0
    for step in tqdm(range(1, steps + 1), "judge", disable=not log):
        rows = torch.randint(len(clouds), (batch_size,), generator=rng)
        y = torch.tensor([clouds[int(i)][1]["label"] for i in rows])
        loss = nn.functional.cross_entropy(judge.train()(moved(codec, clouds, rows, rng)), y)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        cycle.step()
        total += loss.item()
        if step > 0.8 * steps:
            average.update_parameters(judge)
        if step % 100 == 0:
            curve.append({"step": step, "train_loss": total / 100})
            total = 0.0
    update_bn([moved(codec, clouds, rows, rng) for rows in torch.randperm(len(clouds), generator=rng).split(100)], average)
    judge.load_state_dict(average.module.state_dict())
    settings = {"widths": list(WIDTHS), "steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}
    settings |= {"points": POINTS, "yaw": YAW, "stretch": STRETCH, "noise": NOISE}
    return judge.eval(), {"settings": settings, "chosen": "average of the last fifth of the steps", "curve": curve}


def main(argv: list[str] | None = None) -> None:
    """Train, measure and save. See the module's docstring."""
    p = argparse.ArgumentParser(prog="python benchmarks/train_point_judge.py", description=__doc__.splitlines()[0])
    p.add_argument("--data", required=True, help="pointcloud_furniture_cc.npz")
    p.add_argument("--out", required=True, help="folder for judge.safetensors and judge.json")
    p.add_argument("--steps", type=int, default=1500)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args(argv)
    data = {split: open_clouds(args.data, split) for split in SPLITS}
    start = time.perf_counter()
    judge, report = train_judge(data["train"], steps=args.steps, seed=args.seed)
    minutes = (time.perf_counter() - start) / 60
    measured = {split: accuracy(judge, clouds) for split, clouds in data.items()}
    card = {
        "data": {
            "name": Path(args.data).name,
            "sha256": hashlib.sha256(Path(args.data).read_bytes()).hexdigest(),
            "split": "those of zoo.point3d.data: test = the archive's own, validation = a tenth of the others, train = rest",
        },
        "accuracy": measured,
        "training": report | {"minutes": round(minutes, 2), "threads": torch.get_num_threads(), "cores": os.cpu_count()},
        "parameters": sum(q.numel() for q in judge.parameters()),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "command": f"python benchmarks/train_point_judge.py --data {Path(args.data).name} --out DIR "
        f"--steps {args.steps} --seed {args.seed}",
    }
    save_judge(judge, args.out, card)
    load_judge(args.out)  # what was written can be read
    for name, a in measured.items():
        low, high = a["interval"]
        print(f"{name:10} accuracy {a['value']:.4f}  95 % {low:.4f}..{high:.4f}  n {a['n']}")
    print(f"{card['parameters']:,} parameters, {(Path(args.out) / WEIGHTS).stat().st_size / 1e6:.2f} MB, {minutes:.1f} minutes")


if __name__ == "__main__":
    main()

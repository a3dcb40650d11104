"""Does another state of the code draw the same numbers? Write them down with one tree, compare with another.

    git worktree add ../before main~20
    PYTHONPATH=../before python benchmarks/same_numbers.py write runs/before --data DIR
    python benchmarks/same_numbers.py compare runs/before --data DIR        # with this tree: exit code 1 if something differs

For every packaged model: samples of seed 0 at the default, through `inpaint` and `vary`, the golden output, 20 training
steps on real data from a fresh start, and the evaluation of 100 samples. Arrays must agree within 1e-6 of their range,
evaluations in everything but seconds and hardware. Both runs need the same machine and the same number of threads.
`--parts samples,training` leaves the others out, `--models "image/*"` other models.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import zoo

SEED = 0
#: of the range of an array
TOLERANCE = 1e-6
STEPS = 20
#: where the real data of a domain's model lies below --data, and how large a batch of 20 quick steps is
DATA = {
    "image/fashion-ddpm": ("image/fashion_mnist.npz", 16),
    "image/emoji-text": ("image/emoji_styles.npz", 16),
    "audio/spec-ddpm": ("audio/fsdd_8k.npz", 8),
    "audio/words-ddpm": ("audio/speech_commands_4w_16k.npz", 8),
    "point3d/shapes-ddpm": ("point3d/pointcloud_furniture_cc.npz", 4),
    "policy/pusht-keypoints": ("policy/pusht_demos.npz", 32),
    "policy/metaworld-push": ("", 0),  # its demonstrations are made by a program
    "protein/backbone-ddpm": ("protein/protein_backbones.npz", 4),
}
#: what is measured, and further settings where a whole evaluation would take an hour
EVALUATION: dict[str, tuple[int, dict[str, Any]]] = {
    "point3d/shapes-ddpm": (170, {}),  # at least 13 of each category
    "protein/backbone-ddpm": (100, {"tm_samples": 3}),
}
#: keys of an evaluation that a clock decides
CLOCK = {"seconds", "sampling_seconds", "latency_ms_batch", "hardware"}


def asked(model: Any, n: int) -> dict[str, Any]:
    """Conditions without which a model draws nothing of interest: a policy's observations, within those of its training."""
    if model.recipe.domain != "policy":
        return {}
    low, high = model.codec.observation_low.cpu(), model.codec.observation_high.cpu()
    shape = (n, model.codec.n_obs, len(low))
    share = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    return {"observation": low + share * (high - low)}


def stacked(samples: Any) -> np.ndarray:
    """All samples of a call in one array."""
    return samples.tensor.float().numpy()


def samples(model: Any) -> dict[str, np.ndarray]:
    """Samples at the default, around known parts, and variations."""
    n, domain = 3, model.recipe.domain
    first = model.sample(n, seed=SEED, progress=False, **asked(model, n))
    found = {
        "sample": stacked(first),
        "one at a time": stacked(model.sample(n, seed=SEED, batch_size=1, progress=False, **asked(model, n))),
    }
    if domain == "protein":
        found["length"] = stacked(model.sample(2, seed=SEED, length=[40, 70], progress=False))
    if domain == "point3d":
        found["n_points"] = stacked(model.sample(2, seed=SEED, n_points=[300, 500], progress=False))
    known, one = first[0], asked(model, 1)
    shape = tuple(model.codec.encode(known).shape)
    where = torch.zeros(shape, dtype=torch.bool)
    where[
        tuple(
            slice(0, s // 2) if i == (0 if domain in ("protein", "point3d", "policy") else len(shape) - 1) else slice(None)
            for i, s in enumerate(shape)
        )
    ] = True
    found["inpaint"] = stacked(
        model.inpaint(known, where, n=2, seed=SEED, progress=False, **{k: v[:2] for k, v in asked(model, 2).items()})
    )
    found["vary"] = stacked(
        model.vary(known, 0.5, n=2, seed=SEED, progress=False, **{k: v[:2] for k, v in asked(model, 2).items()})
    )
    if domain == "protein":
        from zoo.protein.backbone import Backbone

        found["motif"] = stacked(
            model.inpaint(motif=Backbone(known.atoms[:16]), length=48, start=10, n=2, seed=SEED, progress=False)
        )
    if domain == "point3d":
        keep = torch.arange(len(known)) < len(known) // 2
        found["keep"] = stacked(model.inpaint(known, keep=keep, n=2, seed=SEED, progress=False))
    if domain == "policy":
        controller = model.controller(warm_start=0.5)
        found["controller"] = np.stack([controller.act(one["observation"][0, -1].numpy()) for _ in range(20)])
    if domain == "audio":
        found["each"] = stacked(model.sample(2, seed=SEED, label=1, guidance_weight={"label": 1.0}, progress=False))
    if domain == "image":
        for sampler in ("ddpm", "ddim", "heun", "euler"):
            found[sampler] = stacked(
                model.sample(
                    2, seed=SEED, sampler=sampler, label="bag", guidance_scale=2.0, guidance_rescale=0.5, progress=False
                )
            )
    return found


def golden(model: Any) -> dict[str, np.ndarray]:
    """How far the net is from its stored output, where 0 is the same."""
    return {"golden": np.array([model.verify()])}


def training(name: str, data: Path) -> dict[str, np.ndarray]:
    """The weights, their averages and the optimizer's state after some steps on real data."""
    file, batch = DATA[name]
    if not file:
        return {}
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as out:
        overrides = {"training.batch_size": batch, "training.precision": "fp32", "training.warmup": 5}
        zoo.train(name, data=data / file, steps=STEPS, out=out, overrides=overrides, preview_every=0, cpu=True)
        from safetensors.numpy import load_file

        for file in ("checkpoint.safetensors", "model.safetensors"):
            found |= {f"{file}: {k}": v for k, v in load_file(Path(out) / file).items()}
    return found


def evaluation(name: str, model: Any, data: Path, measure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What `zoo eval` would write, without what a clock decides."""
    n, settings = EVALUATION.get(name, (100, {}))
    if model.recipe.domain != "policy":
        settings = settings | {"data": data / DATA[name][0]}
    return without_clock(measure(model, n, seed=SEED, progress=False, **settings))


def without_clock(value: Any) -> Any:
    """JSON without the keys of CLOCK."""
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k not in CLOCK}
    return [without_clock(v) for v in value] if isinstance(value, (list, tuple)) else value


def measure(model: Any, n: int, **options: Any) -> dict[str, Any]:
    """The evaluation of a model, by the tree's own way."""
    if hasattr(model.domain, "metrics"):  # trees before zoo.evaluation.evaluate
        return model.domain.metrics(model, n, **options)
    from zoo.evaluation.evaluate import evaluate

    return evaluate(model, n, **options)


def numbers(name: str, data: Path, parts: set[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, evaluation) of a model."""
    model, arrays = zoo.load(name), {}
    if "samples" in parts:
        arrays |= samples(model) | golden(model)
    if "training" in parts:
        arrays |= training(name, data)
    return arrays, evaluation(name, model, data, measure) if "evaluation" in parts else {}


def differences(before: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> list[str]:
    """What differs between two sets of arrays, one line each."""
    found = [f"{k}: only {'before' if k in before else 'now'}" for k in sorted(before.keys() ^ now.keys())]
    for key in sorted(before.keys() & now.keys()):
        a, b = before[key], now[key]
        if a.shape != b.shape:
            found.append(f"{key}: {a.shape} before, {b.shape} now")
            continue
        if not a.size or np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            continue
        span = max(float(np.nanmax(a) - np.nanmin(a)), 1e-12)
        worst = float(np.nanmax(np.abs(a.astype(np.float64) - b))) / span
        if not worst <= TOLERANCE:
            found.append(f"{key}: differs by {worst:.2e} of its range")
    return found


def compared(before: Any, now: Any, path: str = "") -> list[str]:
    """What differs between two evaluations; numbers may differ in the last digits that float64 holds."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys(), key=str)
        return [line for k in keys for line in compared(before.get(k, "missing"), now.get(k, "missing"), f"{path}.{k}")]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [line for i, (a, b) in enumerate(zip(before, now, strict=True)) for line in compared(a, b, f"{path}[{i}]")]
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (before, now))
    if before == now or (numbers and abs(before - now) <= 1e-9 * max(1.0, abs(before))):
        return []
    return [f"{path.removeprefix('.')}: {before!r} before, {now!r} now"]


def main() -> int:
    """Write or compare; 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["write", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds image/, audio/, ...")
    parser.add_argument("--models", default="*")
    parser.add_argument("--parts", default="samples,training,evaluation")
    args = parser.parse_args()
    print(f"zoo of {Path(zoo.__file__).parent}, {torch.get_num_threads()} threads", flush=True)
    failed = 0
    for name in zoo.list_models(args.models):
        if name not in DATA or not zoo.info(name).packaged:
            continue
        parts = set(args.parts.split(","))
        stem = args.folder / name.replace("/", "-")
        if args.what == "write":
            arrays, result = numbers(name, args.data, parts)
            args.folder.mkdir(parents=True, exist_ok=True)
            for part in parts:
                path = Path(f"{stem}.{part}")
                if part == "evaluation":
                    path.with_suffix(".evaluation.json").write_text(json.dumps(result))
            if arrays:
                np.savez(f"{stem}.{'+'.join(sorted(parts - {'evaluation'}))}.npz", **arrays)
            print(f"{name}: {len(arrays)} arrays, {len(result.get('metrics', {}))} metrics", flush=True)
            continue
        arrays, result = numbers(name, args.data, parts)
        before: dict[str, np.ndarray] = {}
        for path in sorted(args.folder.glob(f"{stem.name}.*.npz")):
            if parts & set(path.name.split(".")[1].split("+")):
                with np.load(path, allow_pickle=False) as z:
                    before |= {k: z[k] for k in z.files}
        found = differences(before, arrays)
        if "evaluation" in parts:
            old = json.loads((args.folder / f"{stem.name}.evaluation.json").read_text())
            found += compared(old, json.loads(json.dumps(result)))
        failed += bool(found)
        print(f"{name}: {'the same' if not found else f'{len(found)} differences'}", flush=True)
        for line in found[:20]:
            print(f"  {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

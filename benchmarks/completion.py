"""Which way of in-painting is right on trained nets? Objects of which a part is known, completed by each method.

    python benchmarks/completion.py --data DIR --models image/fashion-ddpm --n 100
    python benchmarks/completion.py --data DIR --models "audio/spec-ddpm,point3d/shapes-ddpm" --n 24 --json completion.json
    python benchmarks/completion.py --data DIR --json completion.json --page      # writes what is there into docs/steering.md

Held-out pictures lose their right half, sounds .2 seconds in their middle, clouds their upper half. No label is given: what the
whole is has to follow from what is known. A row is a method at about so many calls of the net (`--calls`; calls backwards count
as one each). Its figures are the share of completed objects that the packaged judge takes for what they were, the Frechet
distance of its features to those of as many real objects, of clouds the Chamfer distance of the lost half to the true one, and
seconds a sample. The real objects themselves are the first row.
The split for validation is used, since defaults are chosen by this. A row that the JSON file has already is not measured again.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from few_steps import JUDGES
from pages import fill
from same_numbers import DATA
from scipy.spatial import cKDTree
from tqdm import tqdm

import zoo
from zoo import files
from zoo.evaluation.distances import frechet_distance, wilson_interval
from zoo.model.model import Model
from zoo.point3d.cloud import PointCloud
from zoo.point3d.metrics import chamfer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "steering.md"
#: what stands in the place of a method for the objects as they are
REAL = "real ones"
#: seconds of a sound that are lost
GAP = 0.2


def ways(calls: int) -> dict[str, dict[str, Any]]:
    """Each method with steps that cost about so many calls of the net."""
    return {
        "replace": {"method": "replace", "steps": calls},  # a domain may take another where nobody names one
        "resample, 4 times": {"method": "resample", "times": 4, "jump": 4, "steps": max(calls // 4, 2)},
        "resample, 10 times": {"method": "resample", "times": 10, "jump": 10, "steps": max(calls // 10, 2)},
        "posterior, 1 product": {"method": "posterior", "products": 1, "steps": max(calls // 2, 2)},
        "posterior, 3 products": {"method": "posterior", "products": 3, "steps": max(calls // 4, 2)},
        "particles, 4": {"method": "particles", "particles": 4, "steps": max(calls // 8, 2)},
    }


def halved(model: Model, item: Any) -> dict[str, Any]:
    """What of an object is known, as arguments of `inpaint`."""
    domain = model.domain.name
    if domain == "image":
        where = np.zeros((model.codec.size, model.codec.size), dtype=bool)
        where[:, : model.codec.size // 2] = True
        return {"known": item, "where": where}
    if domain == "audio":
        middle = item.duration / 2
        return {"known": item, "where": ~model.codec.frames(middle - GAP / 2, middle + GAP / 2)}
    height = item.points[:, 1]
    half = PointCloud(item.points[height < np.median(height)], item.centre, item.scale)
    return {"known": half, "n_points": len(item.points)}


def features(model: Model, judge: Any, items: list[Any]) -> tuple[torch.Tensor, list[str]]:
    """The judge's features of objects, and what it takes them for."""
    if model.domain.name == "point3d":
        x = torch.from_numpy(np.stack([item.points for item in items]))
    elif model.domain.name == "audio":
        x = torch.from_numpy(np.stack([item.samples for item in items]))
    else:
        x = torch.stack([model.codec.encode(item) for item in items])
    found, logits = judge.features(x)
    return found, [judge.class_names[i] for i in logits.argmax(1).tolist()]


def rows_of(
    model: Model, judge: Any, source: Path, n: int, points: int | None = None
) -> tuple[list[Any], list[str], list[Any]]:
    """n held-out objects of all labels in turn, their labels, and n others; clouds of so many of their points."""
    held = model.domain.dataset(source, "validation", **model.domain.data_options(model.recipe))
    held.prepare_for(model.codec, model.recipe)
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(0)).tolist()[: 2 * n]
    items = [held[i] for i in order]
    labels = [judge.class_names[int(given["label"])] for _, given in items]
    objects = [model.codec.decode(model.codec.encode(item)[None], {})[0] for item, _ in items]
    if points is not None and model.domain.name == "point3d":
        objects = [PointCloud(item.points[:points], item.centre, item.scale) for item in objects]
    return objects[:n], labels[:n], objects[n:]


def lost(items: list[Any], objects: list[Any]) -> float:
    """Mean Chamfer distance of the upper halves of completed clouds to those of the true ones, which were lost."""
    found = []
    for item, whole in zip(items, objects, strict=True):
        middle = np.median(whole.points[:, 1])
        made, true = (x.points[x.points[:, 1] >= middle] for x in (item, whole))
        if len(made):
            found.append(chamfer(cKDTree(made), cKDTree(true)))
    return float(np.mean(found))


def row_of(
    about: dict[str, Any], seen: tuple[torch.Tensor, list[str]], labels: list[str], real: torch.Tensor, seconds: float
) -> dict[str, Any]:
    """What the judge saw of completed objects beside what they were."""
    found, guessed = seen
    kept = sum(a == b for a, b in zip(guessed, labels, strict=True)) / len(labels)
    return about | {"kept": kept, "frechet": frechet_distance(found, real), "seconds": seconds}


def page(rows: list[dict[str, Any]]) -> str:
    """Rows as a table."""
    heads = ("model", "objects", "calls", "method", "the judge still sees what it was", "Frechet distance to real ones")
    lines = [" | ".join(("", *heads, "Chamfer distance of the lost half", "")).strip(), "| --- " * (len(heads) + 1) + "|"]
    for row in rows:
        low, high = wilson_interval(round(row["kept"] * row["n"]), row["n"])
        kept = f"{row['kept']:.2f} [{low:.2f}, {high:.2f}]"
        figures = f"{kept} | {row['frechet']:.1f} | " + (f"{row['chamfer']:.4f}" if "chamfer" in row else "")
        calls = "" if row["way"] == REAL else row["calls"]
        lines.append(f"| `{row['model']}` | {row['n']} | {calls} | {row['way']} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, required=True, help="the folder of all real data")
    p.add_argument("--models", default="image/fashion-ddpm", help="patterns, with commas between")
    p.add_argument("--n", type=int, default=100)
    p.add_argument("--calls", type=int, default=100, help="of the net, for each sample")
    p.add_argument("--points", type=int, help="of a cloud, the first so many; default: all")
    p.add_argument("--ways", default="*", help="patterns of methods, with semicolons between")
    p.add_argument("--json", type=Path)
    p.add_argument("--page", action="store_true", help=f"write all rows into {PAGE.name}")
    args = p.parse_args()
    table: list[dict[str, Any]] = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    there = {(row["model"], row["way"], row["n"], row["calls"]) for row in table}
    for name in [m for m in JUDGES if any(fnmatch.fnmatch(m, w) for w in args.models.split(","))]:
        wanted: dict[str, dict[str, Any]] = {REAL: {}} | ways(args.calls)
        asked = {way for way in wanted if any(fnmatch.fnmatch(way, w) for w in args.ways.split(";"))}
        todo = [way for way in wanted if way in asked and (name, way, args.n, args.calls) not in there]
        if not todo:
            continue
        model, judge = zoo.load(name), JUDGES[name]()
        objects, labels, others = rows_of(model, judge, args.data / DATA[name][0], args.n, args.points)
        real, _ = features(model, judge, others)
        for way in todo:
            start, made = time.perf_counter(), objects
            if way != REAL:
                settings: dict[str, Any] = {"progress": False, "guidance_weight": 0.0} | wanted[way]
                made = [
                    model.inpaint(**halved(model, item), seed=i, **settings)[0]
                    for i, item in enumerate(tqdm(objects, way, leave=False))
                ]
            seconds = (time.perf_counter() - start) / args.n
            about = {"model": name, "n": args.n, "calls": args.calls, "way": way}
            row = row_of(about, features(model, judge, made), labels, real, seconds)
            if model.domain.name == "point3d":
                row["chamfer"] = lost(made, objects)
            shown = f"  chamfer {row['chamfer']:.4f}" if "chamfer" in row else ""
            print(
                f"{name:22} {way:22} kept {row['kept']:.3f}  frechet {row['frechet']:8.3f}{shown}  {seconds:6.2f} s", flush=True
            )
            table.append(row)
            if args.json:
                files.write_atomic(args.json, files.dump_json(table))
    if args.page:
        fill(PAGE, "completion", page(sorted(table, key=lambda row: (row["model"], row["way"] != REAL))))


if __name__ == "__main__":
    main()

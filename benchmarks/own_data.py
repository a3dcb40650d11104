"""Folders of "the user's own data" made from arrays, and the whole way from such a folder to a table of evaluation.

    python benchmarks/own_data.py --data $ZOO_DATA --write image photos/
    python benchmarks/own_data.py --data $ZOO_DATA --run image --minutes 10 --judge-minutes 3 --out runs/own

`--write DOMAIN OUT` writes a folder with the splits train/ and test/: pictures of emoji by group, music by instrument family,
shapes by category, structures, robot episodes. `--run DOMAIN` writes it, trains on it by the one command of the README, then
trains a judge of its labels where it has labels, evaluates, and prints the table; `--run all` does so for each domain.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.evaluation.table import format_table

SPLITS = ("train", "test")


def load(data: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of an archive below the data folder."""
    with np.load(data / name, allow_pickle=False) as archive:
        return {k: archive[k] for k in archive.files}


def place(out: Path, split: str, label: str | None = None) -> Path:
    """The folder of a split and, where there are labels, of a class; made when missing."""
    safe = "" if label is None else "".join(c if c.isalnum() else "-" for c in label).strip("-")
    folder = out / split / safe if safe else out / split
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_image(data: Path, out: Path) -> None:
    """Emoji of 32 pixels in colour, by group: without twins, components (swatches) and the one wrong flag."""
    z = load(data, "image/emoji_noto.npz")
    for i, picture in enumerate(z["images32"]):
        group = str(z["group_names"][z["group"][i]])
        if z["is_duplicate"][i] or group == "Component" or i == 1700:
            continue
        Image.fromarray(picture).save(place(out, SPLITS[int(z["is_test"][i])], group) / f"{i:04d}.png")


def write_audio(data: Path, out: Path) -> None:
    """Music clips of 2 s as Ogg Opus, by family of the instrument; clips of mixed samples have none and are left out.

    Held out are the clips at random of the archive's split 1 and the held-out pairs of its split 2.
    """
    z = load(data, "audio/music_clips_16k.npz")
    for i, family in enumerate(z["family"]):
        if family >= 0:
            folder = place(out, SPLITS[int(z["split"][i] > 0)], str(z["family_names"][family]))
            (folder / f"{i:04d}.opus").write_bytes(z["opus"][z["offsets"][i] : z["offsets"][i + 1]].tobytes())


def write_point3d(data: Path, out: Path) -> None:
    """Clouds of 2,048 points by category."""
    z = load(data, "point3d/pointcloud_furniture_cc.npz")
    for i, points in enumerate(z["points"]):
        folder = place(out, SPLITS[int(z["is_test"][i])], str(z["categories"][z["labels"][i]]))
        np.save(folder / f"{i:04d}.npy", points.astype(np.float32) / 32767)


def write_protein(data: Path, out: Path) -> None:
    """Compact chains of 32 to 128 residues as PDB files."""
    from zoo.protein.backbone import Backbone

    z = load(data, "protein/protein_backbones.npz")
    sizes = np.diff(z["offsets"])
    for i in np.flatnonzero(z["globular"] & (sizes >= 32) & (sizes <= 128)):
        chain = Backbone(z["coords"][z["offsets"][i] : z["offsets"][i + 1], :3])
        chain.save(place(out, SPLITS[int(z["is_test"][i])]) / f"{i:04d}.pdb")


def write_policy(data: Path, out: Path) -> None:
    """Episodes of Push-T as an `episodes.npz` of plain numbers, which no simulator is known for; each twentieth is held out."""
    z = load(data, "policy/pusht_demos.npz")
    out.mkdir(parents=True, exist_ok=True)
    names = ["agent_x", "agent_y", "block_x", "block_y", "block_angle"]
    memory = io.BytesIO()
    np.savez_compressed(
        memory,
        observation=z["state"],
        action=z["action"],
        episode_ends=z["episode_ends"],
        observation_names=np.array(names),
        action_names=np.array(["x", "y"]),
        unit="pixel",
        rate=10.0,
    )
    (out / "episodes.npz").write_bytes(memory.getvalue())


#: domain -> what writes its folder
WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "image": write_image,
    "audio": write_audio,
    "point3d": write_point3d,
    "protein": write_protein,
    "policy": write_policy,
}
#: domain -> the one command of training: recipe, and what is set of it
RECIPES: dict[str, tuple[str, list[str]]] = {
    "image": ("image/fashion-ddpm", []),
    "audio": ("audio/words-ddpm", ["codec.frames=256"]),
    "point3d": ("point3d/shapes-ddpm", []),
    "protein": ("protein/backbone-ddpm", []),
    "policy": ("policy/pusht-keypoints", []),
}
#: domains with labels, for which a judge is trained
JUDGED = ("image", "audio", "point3d")
#: samples that are measured
MEASURED = {"image": 200, "audio": 200, "point3d": 178, "protein": 100, "policy": 200}
#: further settings of an evaluation: TM-align compares each pair of chains, 17 ms a pair
SETTINGS = {"protein": ["--option", "tm_samples=20"]}


def zoo(*arguments: str) -> None:
    """One command of zoo; it is shown first, and an error ends the script."""
    print(f"\n$ zoo {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "zoo", *arguments], check=True)


def run(domain: str, args: argparse.Namespace) -> dict[str, Any]:
    """From the folder to the table."""
    folder, out = args.out / f"{domain}-data", args.out / domain
    if not folder.exists():
        WRITERS[domain](args.data, folder)
    recipe, settings = RECIPES[domain]
    sets = [part for text in [*settings, *args.set] for part in ("--set", text)]
    length = ["--steps", str(args.steps)] if args.steps else ["--minutes", f"{args.minutes:g}"]
    start = time.monotonic()
    if not (out / "config.json").exists():
        zoo("train", recipe, "--data", str(folder), "--out", str(out), *length, *sets, *(["--cpu"] if args.cpu else []))
    print(f"{domain}: trained in {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    if domain in JUDGED and not (out / "judge" / "judge.json").exists():
        steps = ["--steps", str(args.judge_steps)] if args.judge_steps else ["--minutes", f"{args.judge_minutes:g}"]
        zoo("judge", "--data", str(folder), "--for", str(out), "--out", str(out / "judge"), *steps)
    result = out / "evaluation.json"
    measured = str(args.n or MEASURED[domain])
    zoo("eval", str(out), "--data", str(folder), "--n", measured, "--json", str(result), *SETTINGS.get(domain, []))
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def verdict(result: dict[str, Any]) -> str:
    """How much of the real held-out data's accuracy above chance the samples reach; "" without a judge."""
    accuracy, chance = result["metrics"].get("accuracy"), result["protocol"].get("chance")
    if accuracy is None or chance is None:
        return ""
    real = accuracy["ceiling"] - chance
    return f"accuracy above chance ({chance:.3f}): {accuracy['value'] - chance:.3f} of {real:.3f} for real held-out data"


def main(argv: list[str] | None = None) -> None:
    """See the module's docstring."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, default=os.environ.get("ZOO_DATA"), help="folder of the arrays (default $ZOO_DATA)")
    p.add_argument("--write", nargs=2, metavar=("DOMAIN", "OUT"), help=f"write a folder: {', '.join(WRITERS)}")
    p.add_argument("--run", choices=[*WRITERS, "all"], help="the whole way for one domain or for all")
    p.add_argument("--out", type=Path, default=Path("runs/own"), help="folder of folders and runs")
    p.add_argument("--minutes", type=float, default=10.0, help="of each training")
    p.add_argument("--steps", type=int, help="so many steps instead")
    p.add_argument("--judge-minutes", type=float, default=3.0)
    p.add_argument("--judge-steps", type=int)
    p.add_argument("--n", type=int, help="samples that are measured (default: the domain's)")
    p.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override the recipe")
    p.add_argument("--cpu", action="store_true", help="train on the CPU")
    args = p.parse_args(argv)
    if args.data is None or not Path(args.data).is_dir():
        p.error("--data: give the folder of the arrays, or set ZOO_DATA")
    args.data = Path(args.data)
    if args.write:
        if args.write[0] not in WRITERS:
            p.error(f"--write: {args.write[0]!r}; allowed are {', '.join(WRITERS)}")
        WRITERS[args.write[0]](args.data, Path(args.write[1]))
    results = {d: run(d, args) for d in (WRITERS if args.run == "all" else [args.run] if args.run else [])}
    for domain, result in results.items():
        print(f"\n{domain}\n{format_table(result['metrics'])}\n{verdict(result)}")


if __name__ == "__main__":
    main()

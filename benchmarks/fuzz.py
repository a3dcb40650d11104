"""What damaged files do: a seeded fuzzer over every kind of file that zoo reads.

    python benchmarks/fuzz.py --n 2000 --seed 0                     # the table; exit code 1 when a bar is missed
    python benchmarks/fuzz.py --seed 0 --trial 123 --keep /tmp/x    # one trial again, its damaged files kept

A trial takes a whole input of one kind, damages one of its files (flipped bits, a cut, blocks that are swapped, repeated or
gone, huge numbers, odd JSON, ...), reads it as a user would, in a process of its own with a limit of time and of memory,
and counts what came of it:

    clear     a ZooError
    right     the same as of the whole input: the damage lay where nothing is read from
    visible   another result, where the format has nothing by which a reader could know: a flipped pixel of a BMP, a digit
              of a coordinate. Also what was said in a warning. It is counted by itself for each kind, and is no merit
    silent    another result although the format has a checksum over it, although the file is cut off and says how long it
              should be, or although a file of a folder is gone; and every number that is not finite
    foreign   any other exception, the end of memory, a process that died
    hang      no end within the time limit

The bar is that of the last three: none.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

OUTCOMES = ("clear", "right", "visible", "silent", "foreign", "hang")
BAD = ("silent", "foreign", "hang")
#: of one trial: seconds on the clock, and bytes beyond what the process has before it
SECONDS, MEMORY = 60.0, 4 << 30
#: how the reason starts why a kind is left out for a module that is not installed; any other reason is a fault
NEEDS = "needs"
#: the number of a trial that only reads the whole input
PROBE = -1
SMALL = {"net.channels": 8, "net.multipliers": [1], "net.blocks": 1, "net.attention": [False], "net.emb_dim": 8}


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        make: writes a whole input into an empty folder.
        read: reads it, and returns what was read, as `Result`.
        files: which of its files are damaged, as patterns.
        sums: a checksum covers what is read: any other result is silent.
        counts: the format says how much there is: another result of a file that is cut off is silent.
        whole: the format says which files there are: another result without one of them is silent.
        seal: how a file is opened, damaged inside and closed again so that its checksums fit: "zip", "gzip", "png".
        text: a text, whose numbers may be damaged as words.
        needs: modules without which the kind cannot be made.
        damage: how it is damaged, where that is not by the bytes of a file.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Result]
    files: tuple[str, ...] = ("*",)
    sums: bool = False
    counts: bool = False
    whole: bool = False
    seal: str = ""
    text: bool = False
    needs: tuple[str, ...] = ()
    damage: Callable[[random.Random, Path], Damage] | None = None


@dataclass
class Result:
    """What was read: a hash of each item, whether all numbers were finite, and what was said."""

    items: list[str]
    finite: bool = True
    said: str = ""

    def same(self, other: Result) -> bool:
        return self.items == other.items


# ---------------------------------------------------------------- what is read, as hashes


class _Hash:
    """SHA-256 of nested values; notes numbers that are not finite."""

    def __init__(self) -> None:
        self.digest, self.finite = hashlib.sha256(), True

    def add(self, value: Any) -> _Hash:
        if isinstance(value, Mapping):
            for key in sorted(value, key=str):
                self.add(str(key)).add(value[key])
        elif isinstance(value, (list, tuple)):
            self.digest.update(f"[{len(value)}".encode())
            for inner in value:
                self.add(inner)
        elif isinstance(value, (str, int, float, bytes, type(None))):
            self.finite &= not isinstance(value, float) or bool(np.isfinite(value))
            self.digest.update(repr(value).encode())
        else:
            if hasattr(value, "convert") and hasattr(value, "mode"):
                self.digest.update(value.mode.encode())
            elif hasattr(value, "sample_rate"):
                self.digest.update(repr(value.sample_rate).encode())
            array = np.ascontiguousarray(value.numpy() if hasattr(value, "numpy") else np.asarray(value))
            if array.dtype.kind == "f":
                self.finite &= bool(np.isfinite(array).all())
            self.digest.update(f"{array.shape}{array.dtype}".encode() + array.tobytes())
        return self


def result(items: Sequence[Any]) -> Result:
    hashes = [_Hash().add(item) for item in items]
    return Result([h.digest.hexdigest()[:16] for h in hashes], all(h.finite for h in hashes))


def data_of(domain: str, name: str = "", **options: Any) -> Callable[[Path], Result]:
    """A reader of training data: all items of the domain's dataset, and what their labels are called."""

    def read(folder: Path) -> Result:
        from zoo.contract.registry import get_domain

        dataset = get_domain(domain).dataset(folder / name if name else folder, "train", **options)
        found = [dataset[i] for i in range(min(len(dataset), 200))]
        return result([*found, len(dataset), dict(dataset.labels)])

    return read


# ---------------------------------------------------------------- whole inputs


def _pixels(mode: str = "L") -> Any:
    from PIL import Image

    rng = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray((rng.random((12, 14)) * 65535).astype(np.uint16))
    if mode == "F":
        return Image.fromarray(rng.random((12, 14)).astype(np.float32))
    shape = (12, 14, 3) if mode == "RGB" else (12, 14)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


def picture(suffix: str, mode: str = "L", **save: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        _pixels(mode).save(folder / f"a{suffix}", **save)
        _pixels().save(folder / "b.png")

    return make


def _tone(channels: int = 1, n: int = 800) -> np.ndarray:
    t = np.arange(n) / 8000
    x = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.05 * np.random.default_rng(0).standard_normal(n)
    return x if channels == 1 else np.stack([x, 0.5 * x], 1)


def sound(suffix: str, subtype: str, channels: int = 1) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import soundfile

        form = "OGG" if suffix == ".opus" else None
        soundfile.write(folder / f"a{suffix}", _tone(channels), 8000, subtype=subtype, format=form)
        soundfile.write(folder / "b.wav", _tone()[::-1], 8000)

    return make


def _mesh() -> Any:
    import trimesh

    return trimesh.creation.icosphere(subdivisions=1, radius=1.0)


def mesh(suffix: str, **export: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        _mesh().export(folder / f"a{suffix}", **export)
        _mesh().export(folder / "b.off")

    return make


def gltf(folder: Path) -> None:
    import trimesh

    made = trimesh.exchange.gltf.export_gltf(trimesh.Scene(_mesh()))
    for name, data in made.items():
        (folder / name.replace("model", "a")).write_bytes(data)
    _mesh().export(folder / "b.off")


def _points(n: int = 100) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((n, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cloud(suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        points, path = _points(), folder / f"a{suffix}"
        rows = "".join(f"{x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in points)
        head = (
            "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
            f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA "
        )
        if suffix == ".npy":
            np.save(path, points.astype(np.float32))
        elif suffix == ".npz":
            np.savez_compressed(path, points=points.astype(np.float32))
        elif suffix == ".pts":
            path.write_text(f"{len(points)}\n{rows}")
        elif suffix == ".pcd":
            path.write_text(f"{head}ascii\n{rows}")
        elif suffix == ".bin.pcd":
            (folder / "a.pcd").write_bytes(f"{head}binary\n".encode() + points.astype("<f4").tobytes())
        else:
            path.write_text(rows)
        _mesh().export(folder / "b.off")

    return make


def _chain(n: int = 40) -> np.ndarray:
    """Backbone atoms (n, 3, 3) of a helix in Angstrom."""
    rows = []
    for i in range(n):
        for radius, phase, rise in ((1.55, -0.46, -0.9), (2.28, 0.0, 0.0), (1.66, 0.46, 1.1)):
            angle = np.deg2rad(100 * i) + phase
            rows.append((radius * np.cos(angle), radius * np.sin(angle), 1.5 * i + rise))
    return np.array(rows).reshape(n, 3, 3)


def structure(suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import gemmi

        made = gemmi.Structure()
        model, chain = gemmi.Model(1), gemmi.Chain("A")
        for i, residue in enumerate(_chain()):
            new = gemmi.Residue()
            new.name, new.seqid = "ALA", gemmi.SeqId(str(i + 1))
            for name, element, place in zip(("N", "CA", "C"), ("N", "C", "C"), residue, strict=True):
                atom = gemmi.Atom()
                atom.name, atom.element, atom.pos = name, gemmi.Element(element), gemmi.Position(*place)
                atom.occ = 1.0
                new.add_atom(atom)
            chain.add_residue(new)
        model.add_chain(chain)
        made.add_model(model)
        made.setup_entities()
        text = made.make_pdb_string() if ".pdb" in suffix else made.make_mmcif_document().as_string()
        data = text.encode()
        (folder / f"a{suffix}").write_bytes(gzip.compress(data, mtime=0) if suffix.endswith(".gz") else data)
        (folder / "b.pdb").write_text(made.make_pdb_string())

    return make


def _episodes(n: int = 3, steps: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    observation = rng.standard_normal((n * steps, 2)).cumsum(0).astype(np.float32)
    return observation, np.roll(observation, -1, 0), np.arange(1, n + 1) * steps


def policy_npz(folder: Path) -> None:
    observation, action, ends = _episodes()
    np.savez_compressed(folder / "episodes.npz", observation=observation, action=action, episode_ends=ends, rate=10.0)


def lerobot(folder: Path, version: str = "v3.0") -> None:
    import pyarrow
    import pyarrow.parquet

    observation, action, ends = _episodes()
    steps = int(ends[0])
    feature = {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    number = {"dtype": "int64", "shape": [1], "names": None}
    names = ("episode_index", "frame_index", "index", "task_index")
    info = {
        "codebase_version": version, "robot_type": "test", "total_episodes": len(ends), "total_frames": len(action), "fps": 10,
        "total_tasks": 1, "chunks_size": 1000, "data_files_size_in_mb": 100, "splits": {"train": f"0:{len(ends)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "features": {"observation.state": feature, "action": feature, "timestamp": {"dtype": "float32", "shape": [1]}}
        | dict.fromkeys(names, number),
    }  # fmt: skip
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    data = folder / "data" / "chunk-000"
    data.mkdir(parents=True)
    if version == "v2.1":
        lines = [json.dumps({"episode_index": i, "tasks": ["push"], "length": steps}) for i in range(len(ends))]
        (folder / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    for file, episodes in enumerate(([0, 1], [2]) if version == "v3.0" else ([0], [1], [2])):
        rows = np.concatenate([np.arange(e * steps, (e + 1) * steps) for e in episodes])
        table = pyarrow.table(
            {
                "observation.state": list(observation[rows]),
                "action": list(action[rows]),
                "timestamp": (rows % steps / 10).astype(np.float32),
                "frame_index": rows % steps,
                "episode_index": rows // steps,
                "index": rows,
                "task_index": 0 * rows,
            }
        )
        pyarrow.parquet.write_table(table, data / f"{'file' if version == 'v3.0' else 'episode'}-{file:03d}.parquet")


def old_lerobot(folder: Path) -> None:
    lerobot(folder, "v2.1")


def hdf5(folder: Path) -> None:
    import h5py

    observation, action, ends = _episodes()
    with h5py.File(folder / "low_dim.hdf5", "w") as file:
        group = file.create_group("data")
        for i, end in enumerate(ends):
            demo, rows = group.create_group(f"demo_{i}"), slice(int(end) - 12, int(end))
            demo.attrs["num_samples"] = 12
            demo["actions"], demo["obs/robot0_eef_pos"] = action[rows], observation[rows]
        group.attrs["total"] = int(ends[-1])


def image_table(suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        buffer = io.BytesIO()
        _pixels().save(buffer, "png")
        rows = {"image": [{"bytes": buffer.getvalue(), "path": None}] * 4, "label": [0, 1, 0, 1]}
        if suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.table(rows), folder / "a.parquet")
        else:
            table = pyarrow.table(rows)
            with pyarrow.ipc.new_stream(str(folder / "a.arrow"), table.schema) as writer:
                writer.write_table(table)

    return make


def table_read(folder: Path) -> Result:
    with tempfile.TemporaryDirectory(prefix="zoo-fuzz-cache-") as cache:
        os.environ["ZOO_CACHE"] = cache
        return data_of("image")(folder)


def idx(folder: Path) -> None:
    rows, rng = 5_010, np.random.default_rng(0)
    for part, n in (("train", rows), ("t10k", 10)):
        pixels, labels = np.zeros((n, 28, 28), np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(s.to_bytes(4, "big") for s in array.shape)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes(), 1, mtime=0))


def fashion(folder: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 10, 5_010).astype(np.uint8)
    arrays = {"train_images": np.zeros((5_010, 28, 28), np.uint8), "train_labels": labels}
    np.savez_compressed(folder / "fashion_mnist.npz", **arrays, test_images=arrays["train_images"][:9], test_labels=labels[:9])


def digits_npz(folder: Path) -> None:
    from zoo.audio.recipes import SPEAKERS

    clips = [(32767 * _tone(n=n)).astype(np.int16) for n in range(400, 440)]
    np.savez_compressed(
        folder / "fsdd_8k.npz", audio=np.concatenate(clips), offsets=np.cumsum([0, *map(len, clips)]),
        digit=(np.arange(40) % 10).astype(np.uint8), speaker=(np.arange(40) % 6).astype(np.uint8),
        speaker_names=np.array(SPEAKERS),
        take=(10 + np.arange(40)).astype(np.uint8), sample_rate=8000,
    )  # fmt: skip


def shapes_npz(folder: Path) -> None:
    points = (32767 * _points(2048)).astype(np.int16)[None].repeat(12, 0)
    np.savez_compressed(
        folder / "pointcloud_furniture_cc.npz", points=points, labels=np.arange(12) % 2, is_test=np.arange(12) == 11,
        categories=np.array(["chair", "table"]),
    )  # fmt: skip


def chains_npz(folder: Path) -> None:
    coords = np.concatenate([_chain(), _chain()]).astype(np.float32)
    np.savez_compressed(
        folder / "protein_backbones.npz", coords=coords, offsets=np.array([0, 40, 80]), ids=np.array(["1abcA", "2abcA"]),
        is_test=np.zeros(2, bool), cluster25=np.array([0, 1]), globular=np.ones(2, bool),
    )  # fmt: skip


def model(folder: Path) -> None:
    import zoo

    zoo.create("image/fashion-ddpm", **SMALL).save_pretrained(folder / "m")


def old_model(folder: Path) -> None:
    model(folder)
    without_hashes(folder / "m" / "config.json", "recipe", "versions")


def without_hashes(path: Path, *keys: str) -> None:
    """Write the JSON of a folder as format 1 had it."""
    found = json.loads(path.read_text())
    path.write_text(json.dumps({"format_version": 1} | {k: found[k] for k in keys}, indent=2))


def measured_model(folder: Path) -> None:
    old_model(folder)
    metric = {"value": 0.9, "ceiling": 0.95, "floor": 0.1, "better": "higher", "interval": [0.88, 0.92]}
    found = {"metrics": {"accuracy": metric}, "protocol": {"samples": 500, "steps": 9, "sampler": "ddim"}}
    (folder / "m" / "evaluation.json").write_text(json.dumps(found))


def model_read(folder: Path) -> Result:
    import zoo

    found = zoo.load(folder / "m")
    found.verify()
    config = found.recipe.model_dump(mode="json")
    return result([{k: v.numpy() for k, v in found.state_dict().items()}, json.dumps(config, sort_keys=True)])


def their_policy(layout: str) -> Callable[[Path], None]:
    """A folder that lerobot wrote, of its older or newer layout (tests/interop/lerobot)."""

    def make(folder: Path) -> None:
        shutil.copytree(Path(__file__).parents[1] / "tests" / "interop" / "lerobot" / layout, folder / "m")

    return make


def seeing_policy(folder: Path) -> None:
    """One that sees pictures; its weights are not what is stored, and are not what is damaged here."""
    from lerobot_goldens import SEEING, whole

    whole(SEEING / "0-4-4_one", folder / "m")


def chis_policy(folder: Path) -> None:
    """A folder that the converter of Diffusion Policy's checkpoints writes (tests/interop/diffusion_policy)."""
    from convert_pickle import written
    from convert_policy import policy_of
    from policy_goldens import GOLDENS

    written(folder / "m", *policy_of(GOLDENS / "limits.ckpt"), format="diffusion-policy")


def converted(name: str) -> Callable[[Path], None]:
    """A folder that a converter of pickles writes (tests/interop/goldens)."""

    def make(folder: Path) -> None:
        from interop_goldens import Golden

        Golden(name).converted(folder).rename(folder / "m")
        for path in folder.glob("*.pt"):  # what it was made of
            path.unlink()

    return make


def theirs_read(folder: Path) -> Result:
    import zoo

    found = zoo.load(folder / "m")
    config = found.recipe.model_dump(mode="json")
    return result([{k: v.numpy() for k, v in found.state_dict().items()}, json.dumps(config, sort_keys=True)])


def folding(folder: Path) -> None:
    """A folder of FoldingDiff as the converter writes it (tests/interop/goldens)."""
    from interop_goldens import Golden

    with redirect_stdout(io.StringIO()):
        Golden("folding-relative").converted(folder)
    (folder / "theirs").rename(folder / "m")
    shutil.rmtree(folder / "results")


def genie(folder: Path) -> None:
    """A folder of Genie as the converter writes it (tests/interop/goldens)."""
    from interop_goldens import Golden

    with redirect_stdout(io.StringIO()):
        Golden("genie-bare").converted(folder)
    (folder / "theirs").rename(folder / "m")
    shutil.rmtree(folder / "run")


def recipe_read(folder: Path) -> Result:
    import zoo

    card = zoo.info(str(folder / "m"))
    return result([json.dumps(card.config, sort_keys=True), str(card)])


def judge(folder: Path) -> None:
    from zoo.image.judge import PACKAGED

    shutil.copytree(PACKAGED, folder / "j", ignore=lambda _, names: [n for n in names if not n.startswith("judge.")])


def old_judge(folder: Path) -> None:
    judge(folder)
    without_hashes(folder / "j" / "judge.json", "config", "card")


def judge_read(folder: Path) -> Result:
    from zoo.image.judge import load_judge

    found = load_judge(folder / "j")
    return result([{k: v.numpy() for k, v in found.state_dict().items()}, json.dumps(found.config), json.dumps(found.card)])


def card_read(folder: Path) -> Result:
    from zoo.hub.card import edited, model_card, renew, split
    from zoo.model.checkpoint import read_recipe

    old = (folder / "m" / "README.md").read_bytes().decode(errors="replace")
    data, text = split(old)
    return result([json.dumps(data, default=str), text, edited(old), renew(old, model_card(read_recipe(folder / "m")))])


def _dataset() -> Any:
    from zoo.contract.conditions import Label
    from zoo.contract.dataset import Items

    rng = np.random.default_rng(0)
    pictures = [(rng.integers(0, 256, (28, 28), dtype=np.uint8), {"label": i % 2}) for i in range(6)]
    return Items(pictures, conditions={"label": Label(values=("a", "b"))}, origin="six made-up pictures")


def _fit(folder: Path, steps: int, *, resume: bool) -> Any:
    import zoo

    conditions = {"label": {"values": ["a", "b"]}}
    start = zoo.create("image/fashion-ddpm", **SMALL, **{"training.batch_size": 2, "conditions": conditions})
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return zoo.fit(start, _dataset(), steps=steps, out=folder / "run", resume=resume, cpu=True, preview_every=0)


def run(folder: Path) -> None:
    _fit(folder, 2, resume=False)


def run_read(folder: Path) -> Result:
    return result([{k: v.numpy() for k, v in _fit(folder, 2, resume=True).state_dict().items()}])


# ---------------------------------------------------------------- answers of the Hub


class Hub:
    """The Hub of the tests, on this machine, whose `nth` answer of a call is damaged; one a process."""

    one: Hub | None = None

    def __init__(self) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "hub"))
        import hubserver
        import huggingface_hub.constants
        import huggingface_hub.utils

        self.tests, self.constants = hubserver, huggingface_hub.constants
        self.server, self.nth, self.rng, self.count = hubserver.Server(), 0, random.Random(0), 0
        self.answers: dict[str, int] = {}  # of a whole call of each kind, which comes first
        self.call = ""
        huggingface_hub.utils.disable_progress_bars()
        self.constants.ENDPOINT = self.server.url
        self.constants.HUGGINGFACE_CO_URL_TEMPLATE = self.server.url + "/{repo_id}/resolve/{revision}/{filename}"
        time.sleep = lambda seconds: None  # between tries
        whole = hubserver._Handler.answer

        def answer(handler: Any, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
            headers = {k.lower(): v for k, v in (headers or {}).items()}
            if not isinstance(body, bytes):
                body, headers = json.dumps(body).encode(), {"content-type": "application/json"} | headers
            self.count += 1
            if self.count == self.nth:
                status, body, headers = odd_answer(self.rng, status, body, headers)
            whole(handler, status, body, headers)

        hubserver._Handler.answer = answer

    @classmethod
    def at(cls, folder: Path, call: str) -> Hub:
        """The server, empty, with the fault that the folder asks for and an empty cache."""
        hub = cls.one = cls.one or cls()
        if hub.call:
            hub.answers.setdefault(hub.call, hub.count)
        hub.server.reset()
        asked = json.loads((folder / "fault.json").read_text())
        hub.call, hub.count, hub.rng = call, 0, random.Random(asked["seed"])
        hub.nth = 0 if asked["part"] is None else 1 + int(asked["part"] * hub.answers[call])
        hub.constants.HF_HUB_CACHE = str(folder / "cache")
        return hub


def odd_answer(rng: random.Random, status: int, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
    """An answer of which the status, a header or the body is odd."""
    what = rng.random()
    if what < 0.15:
        return rng.choice((200, 204, 206, 301, 302, 304, 400, 401, 403, 404, 409, 412, 416, 418, 429, 500, 503)), body, headers
    if what < 0.5:
        name = rng.choice(
            sorted(
                {
                    *headers,
                    "etag",
                    "x-repo-commit",
                    "x-linked-etag",
                    "x-linked-size",
                    "location",
                    "content-type",
                    "x-error-code",
                    "x-error-message",
                    "retry-after",
                    "content-encoding",
                }
            )
        )
        value = rng.choice(
            (
                "",
                "x",
                "-1",
                "0",
                "99999999999999",
                '"../../x"',
                "/etc/passwd",
                "a" * 60_000,
                "é".encode().decode("latin-1"),
                "gzip",
                "text/html",
                "http://127.0.0.1:9/x",
                "//",
                "1e9",
                '"' + "0" * 40 + '"',
            )
        )
        return status, body, headers | {name: value}
    if body[:1] in (b"{", b"[") and rng.random() < 0.75:
        return status, odd_json(rng, body), headers
    if not body:
        return status, PAGE, headers
    return (
        status,
        rng.choice((flip, gone, repeated, filled, lambda r, d: d[: r.randrange(len(d))], lambda r, d: PAGE))(rng, body),
        headers,
    )


def fault(rng: random.Random, folder: Path) -> Damage:
    """Which answer of a call is damaged, as a part of all of them."""
    return Damage("an answer", json.dumps({"part": rng.random(), "seed": rng.randrange(1 << 32)}).encode())


def hub_model(folder: Path) -> None:
    model(folder)
    (folder / "fault.json").write_text(json.dumps({"part": None, "seed": 0}))


def pull_read(folder: Path) -> Result:
    import zoo

    hub = Hub.at(folder, "pull")
    hub.server.add("me/m", {p.name: p.read_bytes() for p in (folder / "m").iterdir()})
    found = zoo.load("hub:me/m", token=False)
    return result([{k: v.numpy() for k, v in found.state_dict().items()}, found.recipe.model_dump_json()])


def push_read(folder: Path) -> Result:
    from zoo.model.publish import push

    hub = Hub.at(folder, "push")
    push(folder / "m", "me/new", token=hub.tests.OWNER, samples=False)
    files = hub.server.repos["model", "me/new"].files
    return result([{k: v for k, v in files.items() if k != ".gitattributes"}])


# ---------------------------------------------------------------- the kinds


def _kinds() -> list[Kind]:
    found = []
    for suffix, mode, save in (
        (".png", "L", {}), (".png", "I;16", {}), (".jpg", "RGB", {}), (".jfif", "L", {"format": "jpeg"}), (".webp", "RGB", {}),
        (".bmp", "L", {}), (".tif", "L", {}), (".tiff", "F", {"compression": "tiff_deflate"}), (".gif", "L", {}),
        (".avif", "RGB", {}),
    ):  # fmt: skip
        name, counts = f"image {suffix} {mode}", suffix in (".png", ".bmp", ".tif")
        seal = "png" if suffix == ".png" else ""
        found.append(
            Kind(
                name, picture(suffix, mode, **save), data_of("image"), ("a.*",), sums=suffix == ".png", counts=counts, seal=seal
            )
        )
    found += [
        Kind("image idx.gz", idx, data_of("image"), ("train*",), sums=True, seal="gzip"),
        Kind("image npz", fashion, data_of("image", "fashion_mnist.npz"), sums=True, seal="zip"),
        Kind("image parquet", image_table(".parquet"), table_read),
        Kind("image arrow", image_table(".arrow"), table_read),
    ]
    for suffix, subtype, channels in (
        (".wav", "PCM_16", 1), (".wav", "FLOAT", 2), (".wav", "PCM_24", 1), (".aiff", "PCM_16", 1), (".flac", "PCM_16", 1),
        (".ogg", "VORBIS", 1), (".mp3", "MPEG_LAYER_III", 1), (".opus", "OPUS", 1),
    ):  # fmt: skip
        counts, sums = suffix != ".mp3", suffix in (".flac", ".ogg", ".opus")
        name = f"audio {suffix} {subtype.split('_')[-1].lower()}"
        found.append(Kind(name, sound(suffix, subtype, channels), data_of("audio"), ("a.*",), sums=sums, counts=counts))
    for name, make, counts, text in (
        ("off", mesh(".off"), True, True),
        ("ply", mesh(".ply", encoding="ascii"), True, True),
        ("ply binary", mesh(".ply"), True, False),
        ("obj", mesh(".obj"), False, True),
        ("stl", mesh(".stl", file_type="stl_ascii"), False, True),
        ("stl binary", mesh(".stl"), True, False),
        ("glb", mesh(".glb"), True, False),
        ("pcd", cloud(".pcd"), True, True),
        ("pcd binary", cloud(".bin.pcd"), True, False),
        ("xyz", cloud(".xyz"), False, True),
        ("txt", cloud(".txt"), False, True),
        ("pts", cloud(".pts"), True, True),
        ("npy", cloud(".npy"), True, False),
    ):
        found.append(Kind(f"point3d {name}", make, data_of("point3d"), ("a.*",), counts=counts, text=text))
    found += [
        Kind("audio archive", digits_npz, data_of("audio", "fsdd_8k.npz"), sums=True, seal="zip"),
        Kind("point3d gltf", gltf, data_of("point3d"), ("a.gltf", "*.bin"), whole=True, counts=True),
        Kind("point3d npz", cloud(".npz"), data_of("point3d"), ("a.*",), sums=True, seal="zip"),
        Kind("point3d archive", shapes_npz, data_of("point3d", "pointcloud_furniture_cc.npz"), sums=True, seal="zip"),
        Kind("protein pdb", structure(".pdb"), data_of("protein"), ("a.*",), text=True),
        Kind("protein cif", structure(".cif"), data_of("protein"), ("a.*",), text=True),
        Kind("protein pdb.gz", structure(".pdb.gz"), data_of("protein"), ("a.*",), sums=True, seal="gzip"),
        Kind("protein cif.gz", structure(".cif.gz"), data_of("protein"), ("a.*",), sums=True, seal="gzip"),
        Kind("protein archive", chains_npz, data_of("protein", "protein_backbones.npz"), sums=True, seal="zip"),
        Kind("policy npz", policy_npz, data_of("policy", "episodes.npz"), sums=True, seal="zip"),
        Kind("policy lerobot", lerobot, data_of("policy"), ("meta/*.json", "data/*/*.parquet"), whole=True, counts=True),
        Kind(
            "policy lerobot 2.1", old_lerobot, data_of("policy"), ("meta/*.json*", "data/*/*.parquet"), whole=True, counts=True
        ),
        Kind("policy hdf5", hdf5, data_of("policy", "low_dim.hdf5"), needs=("h5py",)),
        Kind("model folder", model, model_read, ("m/config.json", "m/*.safetensors"), sums=True, whole=True),
        Kind("model format 1", old_model, model_read, ("m/config.json", "m/*.safetensors"), counts=True, whole=True),
        Kind("lerobot policy", their_policy("0-4-4_ddpm"), theirs_read, ("m/*",), counts=True, whole=True),
        Kind("lerobot policy 0.3", their_policy("0-3-3_ddim"), theirs_read, ("m/*",), counts=True, whole=True),
        Kind("lerobot policy with pictures", seeing_policy, theirs_read, ("m/*.json", "m/policy*"), counts=True, whole=True),
        Kind("diffusion policy", chis_policy, theirs_read, ("m/*",), counts=True, whole=True),
        Kind("foldingdiff", folding, theirs_read, ("m/*",), counts=True, whole=True),
        Kind("genie", genie, theirs_read, ("m/*",), counts=True, whole=True),
        Kind("guided-diffusion", converted("guided-plain"), theirs_read, ("m/*",), counts=True, whole=True),
        Kind("k-diffusion", converted("k-patched"), theirs_read, ("m/*",), counts=True, whole=True),
        Kind("EDM", converted("edm-song"), theirs_read, ("m/*",), counts=True, whole=True),
        Kind("judge", judge, judge_read, ("j/*",), sums=True, whole=True),
        Kind("judge format 1", old_judge, judge_read, ("j/*",), counts=True, whole=True),
        Kind("recipe", measured_model, recipe_read, ("m/config.json", "m/evaluation.json"), text=True),
        Kind("card", model, card_read, ("m/README.md",), text=True),
        Kind("hub pull", hub_model, pull_read, ("fault.json",), sums=True, damage=fault),
        Kind("hub push", hub_model, push_read, ("fault.json",), sums=True, damage=fault),
        Kind("training run", run, run_read, ("run/checkpoint*",), sums=True),
    ]
    return found


KINDS = {kind.name: kind for kind in _kinds()}


# ---------------------------------------------------------------- readers that do wrong, to see that it is seen


def _text(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"whole " * 20)


def _wrong(what: Callable[[bytes], Any]) -> Callable[[Path], Result]:
    def read(folder: Path) -> Result:
        data = (folder / "a.txt").read_bytes()
        return result([data if data in (b"whole " * 20, b"") else what(data)])

    return read


def _refused(data: bytes) -> None:
    from zoo.errors import DataError

    raise DataError("damaged")


WRONG = {
    name: Kind(name, _text, _wrong(what), sums=True)
    for name, what in {
        "refuses": _refused,
        "is silent": lambda data: b"another",
        "gives nan": lambda data: float("nan"),
        "repairs": lambda data: b"whole " * 20,
        "raises": lambda data: 1 / 0,
        "takes all memory": lambda data: np.ones(2 * MEMORY // 8),
        "dies": lambda data: os._exit(3),
        "waits": lambda data: time.sleep(10_000),
    }.items()
}
KNOWN = KINDS | WRONG


# ---------------------------------------------------------------- damage


@dataclass
class Damage:
    """What was done to a file.

    Attributes:
        name: of the damage. data: the file's new bytes, None for a file that is gone.
        cut: the file ends early. sealed: its checksums fit what it says now.
    """

    name: str
    data: bytes | None
    cut: bool = False
    sealed: bool = False


#: what is damaged inside by a file's suffix, without a checksum that must fit
SEALS = {".parquet": "parquet", ".safetensors": "safetensors", ".glb": "glb"}
HUGE = (
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\x7f\xff\xff\xff",
    b"\xff\xff",
    b"\x00" * 8,
    struct.pack("<Q", 10**12),
    struct.pack("<I", 10**9),
    struct.pack("<d", float("nan")),
)
WORDS = (
    "",
    "-1",
    "0",
    "nan",
    "inf",
    "1e999",
    "1e38",
    "99999999999",
    "18446744073709551616",
    "0x10",
    "1,5",
    "--3",
    "1.2.3",
    "é",
    "\x00",
    "-99999999",
    "9" * 400,
    "()",
    "%s",
    "None",
)
PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"


def flip(rng: random.Random, data: bytes, most: int = 8, within: int | None = None) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        changed[rng.randrange(min(len(data), within or len(data)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def blocks(rng: random.Random, data: bytes) -> tuple[int, int]:
    size = rng.randint(1, max(1, min(len(data) // 3, 4096)))
    start = rng.randrange(max(1, len(data) - size))
    return start, start + size


def swapped(rng: random.Random, data: bytes) -> bytes:
    (a, b), (c, d) = sorted((blocks(rng, data), blocks(rng, data)))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def repeated(rng: random.Random, data: bytes) -> bytes:
    a, b = blocks(rng, data)
    return data[:b] + data[a:b] * rng.choice((1, 1, 2, 40)) + data[b:]


def gone(rng: random.Random, data: bytes) -> bytes:
    a, b = blocks(rng, data)
    return data[:a] + data[b:]


def filled(rng: random.Random, data: bytes) -> bytes:
    a, b = blocks(rng, data)
    return data[:a] + (bytes(b - a) if rng.random() < 0.5 else rng.randbytes(b - a)) + data[b:]


def huge(rng: random.Random, data: bytes) -> bytes:
    number = rng.choice(HUGE)
    within = len(data) if rng.random() < 0.3 else min(len(data), 512)
    place = rng.randrange(within)
    return data[:place] + number + data[place + len(number) :]


def reworded(rng: random.Random, data: bytes) -> bytes:
    """A text of which a word is another one, or a line is there twice, gone, very long, or broken."""
    lines = data.split(b"\n")
    i = rng.randrange(len(lines))
    what = rng.randrange(5)
    if what == 0:
        lines.insert(i, lines[i])
    elif what == 1:
        del lines[i]
    elif what == 2:
        lines[i] += b" 1" * 100_000
    elif what == 3:
        lines[i] = lines[i][: rng.randint(0, len(lines[i]))]
    else:
        words = lines[i].split(b" ")
        words[rng.randrange(len(words))] = rng.choice(WORDS).encode()
        lines[i] = b" ".join(words)
    return b"\n".join(lines)


def odd_json(rng: random.Random, data: bytes) -> bytes:
    """JSON of which one value is odd, or a key is missing, unknown or there twice; or what a parser chokes on."""
    if rng.random() < 0.15:
        return rng.choice(
            (
                b"[" * 100_000,
                b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
                b"null",
                b"[]",
                b"3",
                b'"x"',
                b"{}",
                b"\xff\xfe{}",
                b"\xef\xbb\xbf" + data,
                data + data,
                data.replace(b":", b": NaN,", 1),
                b"9" * 10_000,
                data.replace(b"{", b"{\x00", 1),
            )
        )
    root = json.loads(data)
    node, key, place = {"": root}, "", root
    while isinstance(place, (dict, list)) and place and (place is root or rng.random() < 0.75):
        key_of = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        node, key, place = place, key_of, place[key_of]
    odd: tuple[Any, ...] = (
        None,
        True,
        -1,
        0,
        10**12,
        10**30,
        1e308,
        "",
        "x",
        [],
        {},
        [[]],
        "é" * 1000,
        [0] * 1000,
        0.5,
        {"a": 1},
        -(10**9),
        "../../x",
        "\x00",
        float("nan"),
        float("inf"),
        {"kind": "x"},
        [[[[[1]]]]],
        str(place),
        [place],
        1,
    )
    what = rng.random()
    if what < 0.7 or not isinstance(node, dict):
        node[key] = rng.choice(odd)
    elif what < 0.8:
        del node[key]
    elif what < 0.9:
        node[f"{key}2"] = rng.choice(odd)
    else:  # the same key twice: parsers take the last one
        text, mark = json.dumps(root), f"{json.dumps(key)}:"
        return text.replace(mark, f"{mark} {json.dumps(rng.choice(odd))}, {mark}", 1).encode()
    return json.dumps(root).encode()


def odd_table(rng: random.Random, data: bytes) -> bytes:
    """A whole Parquet file: a column of another kind, an odd cell, or rows that are gone, there twice or in another order."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(data))
    columns = {name: table.column(name).to_pylist() for name in table.schema.names}
    name, n = rng.choice(list(columns)), table.num_rows
    what, row = rng.randrange(8), rng.randrange(n)
    cells = columns[name]
    if what == 0:
        del columns[name]
    elif what == 1:
        cells[row] = None
    elif what == 2:
        columns[name] = [str(cell) for cell in cells]
    elif what == 3 and isinstance(cells[row], list):
        cells[row] = rng.choice(
            ([], cells[row] * 2, cells[row][:1], [None] * len(cells[row]), [float("nan")] * len(cells[row]))
        )
    elif what == 4 and isinstance(cells[row], (int, float)):
        cells[row] = type(cells[row])(rng.choice((-1, 0, 10**15, 2**31, -(10**9))))
    elif what == 5:
        columns = {k: v[:row] + v[row + 1 :] for k, v in columns.items()}
    elif what == 6:
        columns = {k: v[: row + 1] + v[row:] for k, v in columns.items()}
    else:
        order = rng.sample(range(n), n)
        columns = {k: [v[i] for i in order] for k, v in columns.items()}
    memory = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), memory)
    return memory.getvalue()


def resealed(rng: random.Random, data: bytes, seal: str, text: bool) -> bytes:
    """A file that is damaged inside, with checksums that fit."""

    def inner(found: bytes) -> bytes:
        if not found:
            return found
        if rng.random() < 0.4:  # the header of an array, or of a chunk
            return huge(rng, found) if rng.random() < 0.5 else flip(rng, found, 2, 128)
        return rng.choice((flip, gone, repeated, filled, reworded if text else flip))(rng, found)

    if seal == "parquet":
        return odd_table(rng, data)
    if seal == "safetensors":
        size = int.from_bytes(data[:8], "little")
        head = odd_json(rng, data[8 : 8 + size])
        return len(head).to_bytes(8, "little") + head + data[8 + size :]
    if seal == "glb":
        size = int.from_bytes(data[12:16], "little")
        head = odd_json(rng, data[20 : 20 + size])
        head += b" " * (-len(head) % 4)
        rest = data[20 + size :]
        return (
            data[:8]
            + (20 + len(head) + len(rest)).to_bytes(4, "little")
            + len(head).to_bytes(4, "little")
            + b"JSON"
            + head
            + rest
        )
    if seal == "gzip":
        return gzip.compress(inner(gzip.decompress(data)), 1, mtime=0)
    if seal == "png":
        chunks, at = [], 8
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
            at += 12 + size
        chosen = rng.choice([c for c in chunks if c[1]])
        chosen[1] = inner(chosen[1])
        return data[:8] + b"".join(
            len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in chunks
        )
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        members = {i.filename: old.read(i) for i in old.infolist()}
    name = rng.choice(list(members))
    what = rng.random()
    if what < 0.1:
        del members[name]
    elif what < 0.25:  # numpy's header is a Python literal, padded by blanks to a multiple of 64
        body = members[name]
        end = 10 + int.from_bytes(body[8:10], "little")
        odd = rng.choice(
            (
                b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000,), }",
                b"{'descr': '<U99999999', 'fortran_order': False, 'shape': (9,), }",
                b"{'descr': 3}",
                b"(" * 3000,
                b"{'shape': (-1,)}",
                b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
                b"{'descr': '<c8', 'fortran_order': True, 'shape': (), }",
                b"{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (0, 2), }",
                b"'''",
                b"\xff\xfe",
            )
        )
        members[name] = body[:8] + len(odd).to_bytes(2, "little") + odd + body[end:]
    else:
        members[name] = inner(members[name])
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as new:
        for member, body in members.items():
            new.writestr(zipfile.ZipInfo(member), body)
    return memory.getvalue()


def damaged(rng: random.Random, kind: Kind, path: Path) -> Damage:
    """One damage of one file."""
    data = path.read_bytes()
    choice: list[tuple[str, float]] = [
        ("flip", 4), ("flip in the header", 3), ("cut", 3), ("cut near the end", 1.5), ("swap", 1), ("repeat", 1), ("gap", 1.5),
        ("fill", 1.5), ("huge", 2.5), ("append", 1), ("empty", 0.3), ("page", 0.3),
    ]  # fmt: skip
    seal = kind.seal or SEALS.get(path.suffix, "")
    if seal:
        choice.append(("sealed", 5))
    if kind.text:
        choice.append(("word", 6))
    if path.suffix == ".json":
        choice.append(("json", 12))
    if kind.whole:
        choice.append(("gone", 0.7))
    name = rng.choices([c for c, _ in choice], [w for _, w in choice])[0]
    if name == "flip":
        return Damage(name, flip(rng, data, rng.choice((1, 1, 8))))
    if name == "flip in the header":
        return Damage(name, flip(rng, data, 2, 256))
    if name == "cut":
        return Damage(name, data[: rng.randrange(len(data))], cut=True)
    if name == "cut near the end":
        return Damage(name, data[: -rng.randint(1, min(len(data), 32))], cut=True)
    if name == "append":
        more = rng.choice((rng.randbytes(rng.randint(1, 200)), b"\n", bytes(100), data))
        # packed twice, one after the other, is a whole file of gzip whose checksums fit
        return Damage(name, data + more, sealed=kind.seal == "gzip" and more == data)
    if name == "empty":
        return Damage(name, b"", cut=True)
    if name == "page":
        return Damage(name, PAGE)
    if name == "gone":
        return Damage(name, None)
    if name == "sealed":
        text = kind.text or ".cif" in path.name or ".pdb" in path.name
        # the hash of a model's weights is in another file, which stays as it is
        return Damage(name, resealed(rng, data, seal, text), sealed=bool(kind.seal))
    simple = {
        "swap": swapped,
        "repeat": repeated,
        "gap": gone,
        "fill": filled,
        "huge": huge,
        "word": reworded,
        "json": odd_json,
    }
    return Damage(name, simple[name](rng, data))


# ---------------------------------------------------------------- trials


@dataclass
class Trial:
    """What came of one trial."""

    number: int
    kind: str
    outcome: str = ""
    damage: str = ""
    detail: str = ""


def attempt(kind: Kind, folder: Path) -> tuple[str, Result | None, str]:
    """("ok" | "clear" | "foreign", what was read, detail)."""
    from zoo.errors import ZooError

    spoken = io.StringIO()
    try:
        with warnings.catch_warnings(record=True) as caught, redirect_stdout(spoken), redirect_stderr(spoken):
            warnings.simplefilter("always")
            found = kind.read(folder)
    except ZooError as error:
        return "clear", None, f"{type(error).__name__}: {error}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = next((f for f in reversed(where) if f"{os.sep}zoo{os.sep}" in f.filename), where[-1])
        place = f"{Path(ours.filename).name}:{ours.lineno}"
        return "foreign", None, f"{type(error).__name__}: {str(error)[:200]} (at {place}, from {Path(where[-1].filename).name})"
    # what the reader itself says of the data; libraries' deprecations are not about them
    said = [str(w.message) for w in caught if not issubclass(w.category, (DeprecationWarning, FutureWarning))]
    found.said = "\n".join([*said, spoken.getvalue()]).replace(str(folder), "").strip()
    return "ok", found, ""


def _shortened(before: bytes, damage: Damage) -> bool:
    """Whether a cut of a text took nothing but a part of its last word, which no count of words can tell."""
    return damage.cut and damage.data is not None and len(before.split()) == len(damage.data.split())


def judged(kind: Kind, damage: Damage, before: bytes, whole: Result, found: Result) -> str:
    """Which of the outcomes a result is that was read without an error."""
    if not found.finite:
        return "silent"
    if found.same(whole):
        return "right"
    if found.said and found.said != whole.said:
        return "visible"
    if kind.text and _shortened(before, damage):
        return "visible"
    if (kind.sums and not damage.sealed) or (kind.counts and damage.cut) or (kind.whole and damage.data is None):
        return "silent"
    return "visible"


def one(number: int, seed: int, kind: Kind, template: Path, whole: Result, folder: Path) -> Trial:
    """Trial `number` of a seed: the same damage of the same input each time."""
    rng = random.Random(f"{seed}/{number}/{kind.name}")
    shutil.copytree(template, folder, dirs_exist_ok=True)
    files = sorted(p for pattern in kind.files for p in folder.glob(pattern) if p.is_file() and p.stat().st_size)
    path = rng.choice(files)
    before = path.read_bytes()
    for _ in range(20):
        damage = damaged(rng, kind, path) if kind.damage is None else kind.damage(rng, path)
        if damage.data != before:
            break
    if damage.data is None:
        path.unlink()
    else:
        path.write_bytes(damage.data)
    trial = Trial(number, kind.name, damage=f"{damage.name} of {path.relative_to(folder)}")
    how, found, trial.detail = attempt(kind, folder)
    trial.outcome = how if found is None else judged(kind, damage, before, whole, found)
    return trial


def not_read(kind: Kind, folder: Path, whole: Result) -> bool:
    """Whether a kind's files are left out by the reader: the same comes where any of them is empty."""
    for path in sorted(p for pattern in kind.files for p in folder.glob(pattern)):
        data = path.read_bytes()
        path.write_bytes(b"")
        found = attempt(kind, folder)[1]
        path.write_bytes(data)
        if found is None or not found.same(whole):
            return False
    return True


def worker(pipe: Any, root: Path, seed: int) -> None:
    """Trials, one after the other, as they are asked for: (number, kind)."""
    # what clients read from the environment at their import: no network, no cache and no token of the user
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_ENDPOINT"), "http://127.0.0.1:9")
    no = dict.fromkeys(("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_TELEMETRY"), "1")
    os.environ.update(nowhere | no | {"NO_PROXY": "127.0.0.1,localhost", "HF_HOME": str(root / "hf")})
    import torch

    import zoo.contract.registry

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries of C speak of what they meet
    zoo.contract.registry.domain_names()
    wholes: dict[str, Result] = {}
    limited = False
    while (job := pipe.recv()) is not None:
        number, name = job
        kind, template = KNOWN[name], root / "whole" / name.replace(" ", "_")
        with tempfile.TemporaryDirectory(prefix="trial-", dir=root) as temporary:
            if name not in wholes:
                shutil.copytree(template, Path(temporary) / "whole")
                how, found, detail = attempt(kind, Path(temporary) / "whole")
                if found is not None and kind.damage is None and not_read(kind, Path(temporary) / "whole", found):
                    found, how, detail = None, "unread", "an empty file in its place changes nothing"
                if found is None:
                    pipe.send(Trial(number, name, how, "", detail))
                    continue
                wholes[name] = found
            if number == PROBE:
                pipe.send(Trial(number, name, "right"))
                continue
            if not limited:
                size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
                limited = True
            try:
                pipe.send(one(number, seed, kind, template, wholes[name], Path(temporary) / "input"))
            except Exception:
                pipe.send(Trial(number, name, "broken", "", traceback.format_exc()))


@dataclass
class _Runner:
    """A process that makes trials, and the one it is at."""

    root: Path
    seed: int
    job: tuple[int, str] | None = None
    since: float = 0.0
    first: bool = True
    pipe: Any = field(init=False)
    process: Any = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=worker, args=(theirs, self.root, self.seed), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, job: tuple[int, str]) -> None:
        self.job, self.since = job, time.monotonic()
        self.pipe.send(job)

    def end(self) -> None:
        if self.job is None:
            with suppress(OSError):
                self.pipe.send(None)
            self.process.join(5)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def fuzz(
    n: int,
    seed: int,
    root: Path,
    *,
    kinds: Sequence[str] = (),
    workers: int = 2,
    seconds: float = SECONDS,
    only: int | None = None,
) -> tuple[list[Trial], dict[str, str]]:
    """(the trials, {kind: why it was left out})."""
    chosen = {name: KNOWN[name] for name in (kinds or KINDS)}
    left_out = {
        name: f"{NEEDS} {need}"
        for name, kind in chosen.items()
        for need in kind.needs
        if importlib.util.find_spec(need) is None
    }
    for name, kind in chosen.items():
        if name not in left_out:
            folder = root / "whole" / name.replace(" ", "_")
            folder.mkdir(parents=True)
            kind.make(folder)
    runners: list[_Runner] = []
    try:
        probes = [(PROBE, name) for name in chosen if name not in left_out]
        for probe in _run(probes, runners, root, seed, workers, seconds):
            if probe.outcome != "right":
                left_out[probe.kind] = f"the whole input is not read: {probe.detail}"
        names = [name for name in chosen if name not in left_out]
        numbers = range(n) if only is None else [only]
        jobs = [(i, names[i % len(names)]) for i in numbers] if names else []
        return sorted(_run(jobs, runners, root, seed, workers, seconds), key=lambda t: t.number), left_out
    finally:
        for runner in runners:
            runner.end()


def _run(
    jobs: list[tuple[int, str]], runners: list[_Runner], root: Path, seed: int, workers: int, seconds: float
) -> list[Trial]:
    """All jobs on the runners, of which there are more where there are not `workers`; one that dies or hangs is replaced."""
    jobs, trials = list(jobs), []
    runners += [_Runner(root, seed) for _ in range(min(workers, len(jobs)) - len(runners))]
    while jobs or any(r.job for r in runners):
        for i, runner in enumerate(runners):
            if runner.job is None and jobs:
                runner.give(jobs.pop(0))
            # the first trial of a process loads everything
            limit = seconds + (120 if runner.first else 0)
            if runner.job and time.monotonic() - runner.since > limit:
                trials.append(Trial(*runner.job, "hang", "", f"no end after {limit:.0f} s"))
                runner.end()
                runners[i] = _Runner(root, seed)
        busy = {r.pipe: r for r in runners if r.job}
        for pipe in multiprocessing.connection.wait(list(busy), timeout=1):
            runner = busy[pipe]
            try:
                trial = pipe.recv()
                if trial.outcome == "broken":
                    raise RuntimeError(f"the fuzzer itself is broken, in trial {trial.number} of {trial.kind}: {trial.detail}")
                trials.append(trial)
                runner.job, runner.first = None, False
            except EOFError:
                runner.process.join()
                trials.append(Trial(*runner.job, "foreign", "", f"the process died with code {runner.process.exitcode}"))
                runner.end()
                runners[runners.index(runner)] = _Runner(root, seed)
    return trials


def table(trials: Sequence[Trial]) -> str:
    """Counts of each outcome for each kind, and in all."""
    counts: dict[str, Counter[str]] = {}
    for trial in trials:
        counts.setdefault(trial.kind, Counter())[trial.outcome] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    lines = [f"{'kind':24} {'tried':>6} " + " ".join(f"{o:>8}" for o in OUTCOMES)]
    for name, count in [*counts.items(), ("all", total)]:
        lines.append(f"{name:24} {count.total():6} " + " ".join(f"{count[o]:8}" for o in OUTCOMES))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", help="only these, with commas between (see the table)")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of one trial")
    parser.add_argument("--trial", type=int, help="only this trial")
    parser.add_argument("--keep", type=Path, help="keep the damaged files of --trial here")
    parser.add_argument("--json", type=Path, help="write every trial to this file")
    args = parser.parse_args()
    kinds = [k.strip() for k in args.kinds.split(",")] if args.kinds else list(KINDS)
    if unknown := [k for k in kinds if k not in KINDS]:
        parser.error(f"unknown kinds {', '.join(unknown)}; there are {', '.join(KINDS)}")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zoo-fuzz-") as temporary:
        root = Path(temporary)
        trials, left_out = fuzz(
            args.n, args.seed, root, kinds=kinds, workers=args.workers, seconds=args.seconds, only=args.trial
        )
        if args.keep and trials:
            template = root / "whole" / trials[0].kind.replace(" ", "_")
            with suppress(Exception):  # it is there to be looked at
                one(trials[0].number, args.seed, KINDS[trials[0].kind], template, Result([]), args.keep)
    print(table(trials))
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    bad = [t for t in trials if t.outcome in BAD]
    for trial in bad if args.trial is None else trials:
        print(f"{trial.outcome}: trial {trial.number}, {trial.kind}, {trial.damage}: {trial.detail}")
    if args.json:
        args.json.write_text(json.dumps([vars(t) for t in trials], indent=1))
    print(f"{len(trials)} trials of seed {args.seed} in {time.monotonic() - start:.0f} s")
    return 1 if bad or not all(why.startswith(NEEDS) for why in left_out.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

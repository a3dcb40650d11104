"""How fast files become batches, from made-up photos and songs, and how long nets wait for their data.

    OMP_NUM_THREADS=1 python benchmarks/loading.py photos
    OMP_NUM_THREADS=1 python benchmarks/loading.py songs --rate 16000
    python benchmarks/loading.py wait image/fashion-ddpm audio/spec-ddpm --data DIR

photos: 64 of twelve megapixels with the spectrum of nature, as JPEG of quality 90. songs: ten of three minutes, stereo at
44.1 kHz, as WAV, FLAC and MP3, with silence in them. They are written once, into --folder. The first epoch counts the opening
of the folder, the second one does not, as in training; batches are encoded by the codec and made by --workers processes. The
cache is a new one for each run; with --no-cache there is none. wait: some steps of packaged recipes on data of a folder that is
laid out as $ZOO_DATA, and the share of their time in which the next batch was not there yet.

A line of JSON is printed for each result, with the load of the machine; on a busy one the processor time of a sample
(cpu_ms, by a further epoch in this process) says more than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from zoo.contract.dataset import Batch
from zoo.contract.registry import get_domain, get_recipe
from zoo.training.batches import Batches
from zoo.training.train import train

PHOTOS, SONGS, MINUTES, RATE = 64, 10, 3, 44_100
#: data of packaged recipes below $ZOO_DATA
DATA = {
    "image/fashion-ddpm": "image/fashion_mnist.npz",
    "audio/spec-ddpm": "audio/fsdd_8k.npz",
    "audio/words-ddpm": "audio/speech_commands_4w_16k.npz",
    "point3d/shapes-ddpm": "point3d/pointcloud_furniture_cc.npz",
    "policy/pusht-keypoints": "policy/pusht_demos.npz",
    "protein/backbone-ddpm": "protein/protein_backbones.npz",
}


# ---------------------------------------------------------------- made-up data


def photo(seed: int, width: int = 4000, height: int = 3000) -> Image.Image:
    """Noise whose power falls with the square of the frequency, as that of nature does, flat regions with edges, and grain."""
    rng, x = np.random.default_rng(seed), np.zeros((height, width, 3), np.float32)
    for octave in range(1, 11):
        size = (width * 2**octave // 1024 + 2, height * 2**octave // 1024 + 2)
        for c in range(3):
            small = Image.fromarray(rng.normal(size=size[::-1]).astype(np.float32) * 1.6**-octave)
            x[..., c] += np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
    x = (x - x.min()) / (x.max() - x.min())
    for _ in range(40):
        left, top = rng.integers(width), rng.integers(height)
        across, down = rng.integers(50, 900, 2)
        x[top : top + down, left : left + across] *= rng.uniform(0.3, 1.3, 3)
    x += rng.normal(size=(height, width, 1)).astype(np.float32) * 0.012
    return Image.fromarray((x.clip(0, 1) * 255).astype(np.uint8))


def make_photos(folder: Path) -> None:
    """Eight pictures, and eight views of each."""
    for k in range(PHOTOS):
        if k % 8 == 0:
            whole = np.asarray(photo(k))
        view = np.roll(whole, (k % 8) * 371, 1)[:, :: 1 - 2 * (k % 2)]
        Image.fromarray(np.ascontiguousarray(view)).save(folder / f"{k:02d}.jpg", quality=90)


def make_songs(folder: Path) -> None:
    """Chords of decaying tones over a little noise, and ten seconds of nothing at the beginning and in the middle."""
    import soundfile

    count = 60 * MINUTES * RATE
    for k in range(SONGS):
        rng = np.random.default_rng(k)
        x = 0.002 * rng.standard_normal((count, 2)).astype(np.float32)
        beat = np.arange(RATE // 2) / RATE
        for start in range(0, count - len(beat), len(beat)):
            for _ in range(3):
                tone = np.sin(2 * np.pi * 110 * 2 ** (rng.integers(36) / 12) * beat) * np.exp(-4 * beat)
                x[start : start + len(beat)] += 0.15 * tone[:, None] * rng.uniform(0.3, 1, 2)
        for start in (0, count // 2):
            x[start : start + 10 * RATE] = 0
        soundfile.write(folder / f"{k}{('.wav', '.flac', '.mp3')[k % 3]}", x.astype(np.float32), RATE)


def made(folder: Path, what: str) -> Path:
    """The folder of photos or songs, written if it is not there."""
    place = folder / what
    if not place.is_dir():
        begun = folder / f"{what}-begun"
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir(parents=True)
        {"photos": make_photos, "songs": make_songs}[what](begun)
        begun.rename(place)
    return place


# ---------------------------------------------------------------- how fast they are read


def tell(**facts: Any) -> None:
    """One line of JSON, with the load of the machine over the last minute."""
    print(json.dumps(facts | {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}), flush=True)


def epochs(args: argparse.Namespace, recipe: Any, source: Path, unit: str) -> None:
    """Open a folder and go through it several times, as training does."""
    if args.no_cache:
        os.environ["ZOO_CACHE_GB"] = "0"
    with tempfile.TemporaryDirectory(prefix="zoo-loading-", dir=args.folder) as cache:
        os.environ["ZOO_CACHE"] = cache
        domain, start, used = get_domain(recipe.domain), time.perf_counter(), time.process_time()
        data = domain.dataset(source, "train", **domain.data_options(recipe))
        codec = domain.codec(recipe.codec)
        data.prepare_for(codec, recipe)
        opened, used = time.perf_counter() - start, time.process_time() - used
        codec.fit(data)
        batches = Batches(data, codec, recipe, 0, None, 1)
        size, files = recipe.training.batch_size, len(getattr(data, "readable", data))
        speed = {"files_per_s": round(files / opened, 1), "cpu_ms": round(1e3 * used / files, 2)}
        tell(what=f"opening {source.name}", seconds=round(opened, 2), samples=len(data), **speed)
        first, later = -(-min(len(data), args.samples) // size), -(-args.samples // size)
        # each by a loader of its own: nothing is made ahead before the clock runs
        for epoch, positions in enumerate([range(first), *[range(first, first + later)] * (args.epochs - 1)]):
            start = time.perf_counter()
            count = size * sum(1 for _ in batches.ahead(positions, args.workers))
            seconds = time.perf_counter() - start
            per_second = {f"{unit}_per_s": round(count / seconds, 1)}
            if epoch == 0:
                per_second |= {f"{unit}_per_s_with_opening": round(count / (seconds + opened), 1)}
            tell(what=f"epoch {epoch + 1}", workers=args.workers, cache=not args.no_cache, **per_second)
        used = time.process_time()
        for position in range(first):
            batches[position]
        used = (time.process_time() - used) / (first * size)
        tell(what="a further epoch", workers=0, cpu_ms=round(1e3 * used, 2))


# ---------------------------------------------------------------- how long nets wait


def wait(name: str, data: Path, steps: int, workers: int | None) -> None:
    """Train some steps, and print the share of their time in which the next batch was waited for."""
    waited, chosen, count = 0.0, workers, 0
    ahead = Batches.ahead

    def timed(self: Batches, positions: range, workers: int) -> Iterator[Batch]:
        nonlocal waited, chosen, count
        chosen, batches = workers, ahead(self, positions, workers)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            count += 1
            if count > steps // 4:  # the first ones are of a pipe that fills
                waited += time.perf_counter() - start
            else:
                begun.append(time.perf_counter())
            yield batch

    begun = list[float]()
    with tempfile.TemporaryDirectory() as out, mock.patch.object(Batches, "ahead", timed):
        train(
            name, data=data, steps=steps, out=Path(out) / "run", log_every=steps, save_every=0, preview_every=0, workers=workers
        )
        total = time.perf_counter() - begun[-1]
    tell(
        what=name,
        workers=chosen,
        steps=steps,
        step_ms=round(1e3 * total / (steps - steps // 4)),
        waited=round(waited / total, 4),
    )


def main() -> None:
    """Read the command line, measure, print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("what", choices=("photos", "songs", "wait"))
    p.add_argument("recipes", nargs="*", help="of wait; default: all that are known here")
    p.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "zoo-loading", help="of the made-up files")
    p.add_argument("--workers", type=int, help="default: 2, and for wait what training chooses")
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--samples", type=int, default=640, help="that a later epoch is measured on, and at most the first")
    p.add_argument("--size", type=int, default=64, help="pixels")
    p.add_argument("--rate", type=int, default=8000, help="Hz of the codec")
    p.add_argument("--no-cache", action="store_true")
    p.add_argument("--data", type=Path, default=os.environ.get("ZOO_DATA"), help="of wait")
    p.add_argument("--steps", type=int, default=20, help="of wait")
    args = p.parse_args()
    if args.what == "wait":
        for name in args.recipes or DATA:
            wait(name, Path(args.data) / DATA[name], args.steps, args.workers)
        return
    args.workers = 2 if args.workers is None else args.workers
    source = made(args.folder, args.what)
    if args.what == "photos":
        recipe = get_recipe("image/fashion-ddpm").override(
            {"codec.size": args.size, "codec.channels": 3, "training.batch_size": 16}
        )
        epochs(args, recipe, source, "pictures")
    else:
        recipe = get_recipe("audio/spec-ddpm").override({"codec.sample_rate": args.rate, "training.batch_size": 32})
        epochs(args, recipe.model_copy(update={"conditions": {}}), source, "windows")


if __name__ == "__main__":
    main()

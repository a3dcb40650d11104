"""Batches of files: the same to the bit in every state of the cache, whoever makes them; as many workers as are of use."""

import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from zoo import files
from zoo.audio import recordings
from zoo.contract.dataset import Batch, Items
from zoo.contract.registry import get_domain, get_recipe
from zoo.data import decoded
from zoo.data.decoded import Store, switched_off
from zoo.training import batches
from zoo.training.batches import Batches
from zoo.training.train import loop_options
from zoo.training.trainer import CHECKPOINT


def photos(root):
    """Two classes of small JPEG photos, large enough to be decoded at a part of their size."""
    for k in range(10):
        path = root / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = np.random.default_rng(k).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(small).resize((180, 150), Image.Resampling.BICUBIC).save(path, quality=90)
    return get_recipe("image/fashion-ddpm").override({"training.batch_size": 4})


def songs(root):
    """Recordings of which each is several windows, in formats that seek and that do not."""
    root.mkdir()
    for k, suffix in enumerate((".wav", ".flac", ".mp3")):
        rng = np.random.default_rng(k)
        soundfile.write(root / f"{k}{suffix}", 0.1 * rng.standard_normal(4 * 16000), 16000)
    return get_recipe("audio/spec-ddpm").override({"training.batch_size": 4}).model_copy(update={"conditions": {}})


@pytest.fixture(params=[photos, pytest.param(songs, marks=pytest.mark.slow)], ids=["photos", "songs"])
def made(request, tmp_path, monkeypatch):
    """(folder, recipe, cache): all is kept there, also of files that are quick to decode."""
    monkeypatch.setattr(decoded, "SETTLED", -1e9)
    monkeypatch.setattr(recordings, "SHORT", 2.0)
    cache = Store(tmp_path / "cache", 10**9, worth=0)
    monkeypatch.setattr(decoded, "_store", lambda *key: cache)
    return tmp_path / "data", request.param(tmp_path / "data"), cache


def opened(made):
    folder, recipe, _ = made
    domain = get_domain(recipe.domain)
    data, codec = domain.dataset(folder, "train", **domain.data_options(recipe)), domain.codec(recipe.codec)
    data.prepare_for(codec, recipe)
    return Batches(data, codec, recipe, 0, None, 1)


def bytes_of(found: list[Batch]):
    return [(b.x0.numpy().tobytes(), [(k, v.numpy().tobytes()) for k, v in b.cond.items()]) for b in found]


def test_batches_are_the_same_in_every_state_of_the_cache_whoever_makes_them(made):
    positions, cache = range(3, 6), made[2]
    first = bytes_of(opened(made).ahead(positions, 0))
    made_once = cache.misses
    assert made_once == len(opened(made).dataset.readable) and len(set(map(str, first))) == len(first)
    for workers in (0, 1, 2):
        assert bytes_of(opened(made).ahead(positions, workers)) == first
        with switched_off():
            none = opened(made)
        assert bytes_of(none.ahead(positions, workers)) == first
    assert cache.misses == made_once
    for path in cache.folder.glob("??/*"):
        path.unlink()
    cache._mapped.clear()
    ready = Batches(none.dataset, none.codec, none.recipe, 0, None, 1)
    ready.dataset.cache = cache  # workers that fill it
    assert bytes_of(ready.ahead(positions, 2)) == first and any(cache.folder.glob("??/*"))
    assert bytes_of([ready[5], ready[3]]) == [first[2], first[0]]


def test_workers_hear_that_the_disk_is_full_and_go_on(made, monkeypatch):
    first = bytes_of(opened(made).ahead(range(4), 0))
    monkeypatch.setattr(decoded, "RESERVE", 1 << 60)
    for path in made[2].folder.glob("??/*"):
        path.unlink()
    made[2]._mapped.clear()
    made[2]._spare = 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        full = opened(made)
    assert sum("takes nothing more: the disk has less than" in str(w.message) for w in said) == 1
    assert bytes_of(full.ahead(range(4), 2)) == first and not list(made[2].folder.glob("??/*"))


@pytest.mark.parametrize(
    ("seconds", "step", "expected"),
    [(0, 1.0, 0), (0.01, 0.2, 1), (0.02, 0.01, 2), (0.0005, None, 0), (0.004, None, 1), (0.03, None, 2)],
)
def test_as_many_workers_as_keep_the_net_from_waiting(monkeypatch, seconds, step, expected):
    recipe = (
        get_recipe("image/fashion-ddpm")
        .override({"training.batch_size": 2, "codec.size": 4})
        .model_copy(update={"conditions": {}})
    )
    data, clock = Items([(np.zeros((4, 4), np.uint8), {})] * 8), itertools.count()
    monkeypatch.setattr(batches, "time", SimpleNamespace(perf_counter=lambda: seconds * next(clock)))
    found = Batches(data, get_domain("image").codec(recipe.codec), recipe, 0, None, 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert found.workers(range(100), step) == expected
    if expected:
        monkeypatch.setattr(batches, "_shared_memory", lambda: 100.0)
        assert found.workers(range(100), step) == 0
        monkeypatch.setattr(batches, "_shared_memory", lambda: 1e9)
        monkeypatch.setattr(torch.multiprocessing, "get_start_method", lambda: "spawn")
        assert found.workers(range(100), step) == 0


def test_the_number_of_workers_is_the_user_s_to_say():
    assert "workers" not in loop_options({"workers": None}) and loop_options({"workers": 0}) == {"workers": 0}


# ---------------------------------------------------------------- killed and resumed

RUN = """
    import sys, warnings
    sys.path.insert(0, {here!r})
    import torch
    torch.set_num_threads(1)
    from zoo.data import decoded
    decoded.WORTH, decoded.SETTLED = 0, -1e9
    decoded.Store.__init__.__defaults__ = (0,)
    from zoo.training.command import main
    sys.exit(main("image/fashion-ddpm", {argv!r}))
"""
TINY = (
    "net.channels=16", "net.multipliers=[1]", "net.attention=[true]", "net.emb_dim=32", "training.batch_size=4",
    "training.warmup=2", "training.precision=fp32",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_weights_whatever_cache_and_workers(tmp_path):
    photos(tmp_path / "data")
    here, rng = str(Path(__file__).parents[2]), random.Random(0)

    def start(out, *more):
        argv = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / out), "--steps", "30", "--save-every", "3", "--cpu"]
        argv += ["--preview-every", "0", *more, *(text for part in TINY for text in ("--set", part))]
        environment = os.environ | {"ZOO_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        code = textwrap.dedent(RUN.format(here=here, argv=argv))
        return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)

    with start("whole", "--no-cache", "--workers", "0") as process:
        assert process.wait(300) == 0, process.stderr.read()
    # a run that was killed before its first checkpoint is not there: it begins again
    kinds = [("--workers", "2"), ("--no-cache", "--workers", "1"), ("--workers", "0"), ()]
    for attempt in range(8):
        there = (tmp_path / "killed" / CHECKPOINT).exists()
        with start("killed", *kinds[attempt % 4], *(["--resume"] if there else [])) as process:
            end = time.monotonic() + 60
            stamp = (tmp_path / "killed" / CHECKPOINT).stat().st_mtime_ns if there else 0
            while time.monotonic() < end and process.poll() is None:
                path = tmp_path / "killed" / CHECKPOINT
                if path.exists() and path.stat().st_mtime_ns != stamp:
                    break
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
    with start("killed", "--resume") as process:
        assert process.wait(300) == 0, process.stderr.read()
    one, two = (files.load_tensors(tmp_path / out / CHECKPOINT) for out in ("whole", "killed"))
    assert one.keys() == two.keys() and [k for k in one if not torch.equal(one[k], two[k])] == []

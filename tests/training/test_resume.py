"""What a training checkpoint is trusted for, one run at a time in a folder, signals, and disks that give up."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from zoo import files
from zoo.contract.codec import Codec
from zoo.contract.dataset import Items
from zoo.contract.recipe import Training
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import FlowSchedule
from zoo.errors import CheckpointError, ConfigError, ResourceError
from zoo.image.codec import ImageCodec
from zoo.image.data import ImageFolder
from zoo.training import fingerprint as prints
from zoo.training import trainer as training
from zoo.training.command import finished
from zoo.training.fingerprint import fingerprint
from zoo.training.lock import LOCK, Lock


class Net(nn.Module):
    """A few numbers, one of which no loss depends on."""

    def __init__(self):
        super().__init__()
        self.inner, self.idle = nn.Linear(2, 2), nn.Parameter(torch.ones(3))

    def forward(self, x_t, t, cond, *, mask=None):
        return self.inner(x_t) + t[:, None]


class PlaneCodec(Codec):
    shape = (2,)

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def encode(self, item, rng=None):
        return torch.as_tensor(item) / self.scale


def points(n=8, shift=0.0):
    return Items([(np.float32([i + shift, -i]), {}) for i in range(n)])


def fit(out, steps=3, *, net=None, data=None, optimizer="adamw", **options):
    torch.manual_seed(0)
    settings = Training(batch_size=2, warmup=1, precision="fp32", optimizer=optimizer)
    model = zoo.Model.of(Diffusion(FlowSchedule(), "v"), Net() if net is None else net, PlaneCodec(), training=settings)
    return zoo.fit(model, points() if data is None else data, steps=steps, out=out, cpu=True, **{"preview_every": 0} | options)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "a"
    fit(out, max_minutes=0.0)
    return out


@pytest.fixture
def run(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "a")
    return tmp_path / "a"


def rewrite(run, change):
    """A checkpoint with other content, and the hash that belongs to it."""
    path = run / training.CHECKPOINT
    tensors, meta, _ = files.load_sealed(path)
    facts = json.loads(meta["zoo"])
    change(tensors, facts)
    files.save_sealed(path, tensors, meta | {"zoo": json.dumps(facts)})


# ---------------------------------------------------------------- the checkpoint


def test_any_flipped_bit_of_a_checkpoint_is_an_error(run):
    path, rng = run / training.CHECKPOINT, random.Random(0)
    data = path.read_bytes()
    for place in [*range(9), *(rng.randrange(len(data)) for _ in range(40))]:
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(CheckpointError):
            fit(run, resume=True)
    path.write_bytes(data)
    fit(run, resume=True)


CHANGES = {
    "no average": (lambda t, f: t.pop("ema.inner.bias"), "missing inner.bias"),
    "one average more": (lambda t, f: t.update({"ema.more": torch.ones(1)}), "unexpected more"),
    "average of another shape": (lambda t, f: t.update({"ema.inner.bias": torch.ones(3)}), "shape"),
    "average of another dtype": (lambda t, f: t.update({"ema.inner.bias": torch.ones(2).double()}), "dtype float64"),
    "average not finite": (lambda t, f: t["ema.inner.bias"].fill_(torch.nan), "not finite"),
    "net of another dtype": (lambda t, f: t.update({"net.inner.bias": torch.ones(2).half()}), "dtype float16"),
    "no moment": (lambda t, f: t.pop("optimizer.inner.bias.exp_avg"), "missing inner.bias.exp_avg"),
    "no state": (lambda t, f: [t.pop(k) for k in list(t) if k.startswith("optimizer.inner.bias")], "missing inner.bias"),
    "a moment more": (lambda t, f: t.update({"optimizer.idle.exp_avg": torch.ones(3)}), "unexpected idle.exp_avg"),
    "a moment of Muon": (lambda t, f: t.update({"optimizer.inner.bias.momentum": torch.ones(2)}), "unexpected"),
    "moment not finite": (lambda t, f: t["optimizer.inner.bias.exp_avg"].fill_(torch.inf), "not finite"),
    "negative square": (lambda t, f: t["optimizer.inner.bias.exp_avg_sq"].fill_(-1), "negative"),
    "step of the optimizer": (lambda t, f: t["optimizer.inner.bias.step"].fill_(7), "of a run of 1 steps"),
    "foreign key": (lambda t, f: t.update(more=torch.ones(1)), "foreign key"),
    "no codec": (lambda t, f: t.pop("codec.scale"), "missing scale"),
    "negative step": (lambda t, f: f.update(step=-1), "step"),
    "step past the end": (lambda t, f: f.update(step=4), "step 4 of 3"),
    "half a step": (lambda t, f: f.update(step=1.5), "step"),
    "step true": (lambda t, f: f.update(step=True), "step"),
    "no processes": (lambda t, f: f.update(processes=0), "processes"),
    "more processes": (lambda t, f: f.update(processes=2), "processes was 2, now 1"),
    "negative time": (lambda t, f: f.update(seconds=-1.0), "seconds"),
    "a fact more": (lambda t, f: f.update(more=1), "more"),
    "a fact less": (lambda t, f: f.pop("seed"), "seed"),
    "newer": (lambda t, f: f.update(format=3), "Upgrade"),
    "a format without a hash": (lambda t, f: f.update(format=1), "format 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_what_a_checkpoint_lacks_or_has_too_much_is_named(run, kind):
    change, message = CHANGES[kind]
    rewrite(run, change)
    before = (run / training.CHECKPOINT).read_bytes()
    with pytest.raises(CheckpointError, match=message):
        fit(run, resume=True)
    assert (run / training.CHECKPOINT).read_bytes() == before


def test_an_older_checkpoint_still_resumes_with_a_note(run, tmp_path, capsys):
    path = run / training.CHECKPOINT
    tensors, meta, _ = files.load_sealed(path)
    facts = json.loads(meta["zoo"])
    for key in ("format", "data", "stateless"):
        del facts[key]
    files.save_tensors(path, tensors, meta | {"zoo": json.dumps(facts)})
    again = fit(run, resume=True)
    assert "before data were compared" in capsys.readouterr().out
    whole = fit(tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_parameter_that_no_loss_depends_on_resumes(tmp_path, optimizer):
    fit(tmp_path / "a", optimizer=optimizer, max_minutes=0.0)
    again = fit(tmp_path / "a", optimizer=optimizer, resume=True)
    whole = fit(tmp_path / "whole", optimizer=optimizer)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))


class Compiled(nn.Module):
    """As `torch.compile` wraps a net."""

    def __init__(self, net):
        super().__init__()
        self._orig_mod = net

    def forward(self, *args, **kwargs):
        return self._orig_mod(*args, **kwargs)


def test_a_compiled_net_resumes_and_is_resumed_as_the_plain_one(tmp_path):
    whole = fit(tmp_path / "whole")
    torch.manual_seed(0)
    fit(tmp_path / "a", net=Compiled(Net()), max_minutes=0.0)
    assert not any("_orig_mod" in k for k in files.load_tensors(tmp_path / "a" / training.CHECKPOINT))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for out, net in (("a", Net()), ("b", Compiled(Net()))):
        again = fit(tmp_path / out, net=net, resume=True)
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))
    assert zoo.load(tmp_path / "b", net=Net(), codec=PlaneCodec()).verify() == 0.0


# ---------------------------------------------------------------- the data


def test_other_data_of_the_same_number_do_not_resume(run):
    with pytest.raises(CheckpointError, match="data are others than before, though as many"):
        fit(run, data=points(shift=0.5), resume=True)
    fit(run, data=points(), resume=True)


def pictures(folder: Path, change: bool = False) -> ImageFolder:
    for i in range(4):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * i + change * (i == 3), np.uint8)).save(folder / "ab"[i % 2] / f"{i}.png")
    return ImageFolder(folder)


def test_the_same_files_in_another_folder_are_the_same_data(tmp_path):
    codec = ImageCodec(8, 1)
    one = fingerprint(pictures(tmp_path / "one"), codec)
    assert one == fingerprint(pictures(tmp_path / "deep" / "two"), codec)
    assert one != fingerprint(pictures(tmp_path / "three", change=True), codec)
    (tmp_path / "one" / "a" / "0.png").rename(tmp_path / "one" / "a" / "1.png")
    assert one != fingerprint(ImageFolder(tmp_path / "one"), codec)


def test_labels_order_and_content_count_and_a_sample_of_much_data(monkeypatch):
    def of(items, **labels):
        return fingerprint(Items(items, labels=labels), PlaneCodec())

    items = [(np.float32([i, i]), {"label": i % 2}) for i in range(6)]
    one = of(items, label=["a", "b"])
    assert one == of([(torch.tensor(x).numpy(), dict(c)) for x, c in items], label=["a", "b"])
    assert one != of(items, label=["a", "c"]) and one != of(items[::-1], label=["a", "b"])
    assert one != of([(x, {"label": 0}) for x, _ in items], label=["a", "b"])
    monkeypatch.setattr(prints, "SAMPLED", 3)
    few = of(items, label=["a", "b"])
    assert few == of(items, label=["a", "b"]) != one
    values = [b"ab", "ab", ["a", "b"], ["ab"], 1, 1.0, True, None, {"a": 1}, np.float32(1), np.float64(1), torch.ones(1)]
    assert len({of([(np.float32([0, 0]), {"c": v})]) for v in values}) == len(values)


def test_data_that_are_drawn_anew_are_compared_by_their_number(tmp_path, capsys):
    class Drawn(Items):
        def __getitem__(self, i):
            return np.float32(np.random.default_rng().normal(size=2)), {}

    data = Drawn(points().items)
    fit(tmp_path / "a", data=data, max_minutes=0.0)
    fit(tmp_path / "a", data=data, resume=True)
    assert "drawn anew each time" in capsys.readouterr().out


# ---------------------------------------------------------------- one run at a time


HOLD = """
import sys, time
from pathlib import Path
from zoo.training.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_the_second_of_two_runs_is_refused_and_a_killed_one_leaves_its_place(tmp_path):
    out = tmp_path / "a"
    out.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        owner = json.loads((out / LOCK).read_text())
        assert owner["pid"] == other.pid and owner["host"] == socket.gethostname() and owner["start"]
        with pytest.raises(CheckpointError, match=rf"another run is in .* \(process {other.pid} on "):
            fit(out)
        assert sorted(p.name for p in out.iterdir()) == [LOCK], "nothing was written"
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        fit(out)  # also while nobody has asked how the killed one ended
    assert not (out / LOCK).exists()


def test_two_runs_of_one_process_are_two_runs(tmp_path):
    with Lock(tmp_path), pytest.raises(CheckpointError, match="another run is in"):
        Lock(tmp_path).take()
    Lock(tmp_path).take()


@pytest.mark.parametrize(
    ("owner", "age", "refused"),
    [
        ({"pid": os.getppid(), "host": socket.gethostname()}, 0, True),
        ({"pid": os.getppid(), "host": socket.gethostname(), "born": 1}, 0, False),  # the number went to another process
        ({"pid": 2**22 + 1, "host": socket.gethostname()}, 0, False),
        ({"pid": 1, "host": "elsewhere"}, 0, True),
        ({"pid": 1, "host": "elsewhere"}, 3600, False),
        ({"pid": "x"}, 0, False),
        ([], 0, False),
        (None, 0, False),
    ],
)
def test_a_lock_that_a_file_alone_holds(tmp_path, owner, age, refused):
    path = tmp_path / LOCK
    path.write_text("" if owner is None else json.dumps(owner))
    os.utime(path, (time.time() - age,) * 2)
    if refused:
        with pytest.raises(CheckpointError, match="another run"):
            Lock(tmp_path).take()
        assert path.exists()
    else:
        with Lock(tmp_path):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert not path.exists()


def test_an_error_gives_the_folder_free(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "train_step", lambda self, coming: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(tmp_path / "a")
    assert not (tmp_path / "a" / LOCK).exists()
    fit(tmp_path / "a", resume=True)


# ---------------------------------------------------------------- signals, options, disks


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_a_signal_ends_is_saved_and_exits_with_its_code(tmp_path, monkeypatch, capsys, number, code):
    real = training.Trainer.train_step

    def step(self, coming):
        os.kill(os.getpid(), number)
        return real(self, coming)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "train_step", step)
        assert finished(lambda args: (fit(tmp_path / "a"), print("the model is in")), None) == code
    said = capsys.readouterr().out
    assert "stopped at step 1 of 3" in said and "the model is in" not in said
    assert zoo.load(tmp_path / "a", net=Net(), codec=PlaneCodec()).verify() == 0.0
    fit(tmp_path / "a", resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_evry": 1}, "save_every"),
        ({"log_every": -1}, "log_every"),
        ({"log_every": 1.5}, "log_every"),
        ({"save_every": True}, "save_every"),
        ({"preview_every": None}, "preview_every"),
        ({"max_minutes": float("nan")}, "max_minutes"),
        ({"max_minutes": -1}, "max_minutes"),
    ],
)
def test_how_a_run_is_watched_is_checked_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_zero_means_at_the_end_alone(tmp_path):
    fit(tmp_path / "a", save_every=0, log_every=0)
    assert (tmp_path / "a" / "log.csv").read_text().count("\n") == 2
    assert json.loads(files.load_metadata(tmp_path / "a" / training.CHECKPOINT)["zoo"])["step"] == 3


def test_a_folder_that_is_removed_in_the_middle_is_made_again(tmp_path, monkeypatch, capsys):
    real = training.Trainer.train_step

    def step(self, coming):
        shutil.rmtree(self.out, ignore_errors=True)
        return real(self, coming)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "train_step", step)
        fit(tmp_path / "a", save_every=0)
    assert "was removed while the run was in it" in capsys.readouterr().out
    assert zoo.load(tmp_path / "a", net=Net(), codec=PlaneCodec()).verify() == 0.0


@pytest.mark.parametrize("text", ["step,loss\n1,2\nx,3\n2,4\n", "step,loss\n1\n2,4\n", "\0", "a,b\n1,2\n3,4\n"])
def test_a_log_of_something_else_is_named(run, text):
    (run / "log.csv").write_text(text)
    with pytest.raises(CheckpointError, match="log"):
        fit(run, resume=True)


def test_a_log_that_ends_in_the_middle_of_a_row_goes_on(run):
    path = run / "log.csv"
    head = "step,loss,lr,grad_norm,samples_per_s,gflop_per_s,minutes\n"
    path.write_text(head + "1,2,3,4,5,6,7\n1,2")
    fit(run, resume=True, log_every=1)
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["step", "1", "2", "3"]


def test_a_full_disk_while_the_log_is_written_is_one_error(tmp_path, monkeypatch):
    from zoo.training.log import Log

    def full(self, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Log, "_row", full)
    with pytest.raises(ResourceError, match=r"no room on the disk to write .*log.csv"):
        fit(tmp_path / "a")


def test_another_run_in_a_folder_that_was_removed_keeps_what_it_wrote(tmp_path, monkeypatch):
    real, out = training.Trainer.train_step, tmp_path / "a"

    def step(self, coming):
        out.rename(tmp_path / "gone")
        monkeypatch.setattr(training.Trainer, "train_step", real)
        fit(out, steps=3)  # came and went
        return real(self, coming)

    monkeypatch.setattr(training.Trainer, "train_step", step)
    with pytest.raises(CheckpointError, match="holds another run now"):
        fit(out, steps=2)
    meta = files.load_metadata(out / training.CHECKPOINT)
    assert json.loads(meta["zoo"])["steps"] == 3 and not (out / LOCK).exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_workers_of_a_killed_run_do_not_hold_its_place(tmp_path):
    lock = Lock(tmp_path)
    lock.take()
    reading, writing = os.pipe()
    worker = os.fork()
    if not worker:
        os.write(writing, b"!")
        time.sleep(20)
        os._exit(0)
    os.read(reading, 1)  # it is at work
    try:
        os.close(lock._file)  # as the kernel does when a process is killed
        with Lock(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        os.close(reading)
        os.close(writing)

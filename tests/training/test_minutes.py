"""Runs of so many minutes: they end in time, resume exactly, show something early, and their folder loads meanwhile."""

import csv
import functools
import json
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
import zoo.testing
from zoo import files
from zoo.contract.codec import Codec
from zoo.contract.dataset import Items
from zoo.contract.recipe import Sampling, Training
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import FlowSchedule
from zoo.errors import CheckpointError, ConfigError
from zoo.model.loading import build
from zoo.model.unfinished import UnfinishedWarning
from zoo.training import budget, size
from zoo.training import trainer as training
from zoo.training.objective import Denoise
from zoo.training.train import as_begun
from zoo.training.watch import Due


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x_t, t, cond, *, mask=None):
        return self.inner(x_t) + t[:, None]


class PlaneCodec(Codec):
    shape = (2,)

    def encode(self, item, rng=None):
        return torch.as_tensor(item)

    def decode(self, x0, cond):
        return [Point(x) for x in x0]


class Point:
    def __init__(self, x):
        self.x = x

    def numpy(self):
        return self.x.numpy()

    def plot(self, ax=None):
        return Image.new("RGB", (4, 4))

    def save(self, path):
        path.write_bytes(b"")
        return path


def points(n=8, shift=0.0):
    return Items([(np.float32([i + shift, -i]), {}) for i in range(n)])


def fit(out, *, warmup=20, **options):
    torch.manual_seed(0)
    settings = Training(batch_size=2, warmup=warmup, precision="fp32")
    model = zoo.Model.of(Diffusion(FlowSchedule(), "v"), Net(), PlaneCodec(), training=settings)
    return zoo.fit(model, points(), out=out, cpu=True, **{"preview_every": 0, "log_every": 10} | options)


def facts(out):
    return json.loads(files.load_metadata(out / training.CHECKPOINT)["zoo"])


def rows(out):
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same(a, b):
    one, two = (files.load_tensors(out / training.CHECKPOINT) for out in (a, b))
    assert one.keys() == two.keys() and [k for k in one if not torch.equal(one[k], two[k])] == []


def replay(out, again, monkeypatch, train=fit, **options):
    """A run that is never stopped and has the plans of another, whatever the clock says."""
    plans = {at: (at, steps) for at, steps in facts(out)["plan"]}
    with monkeypatch.context() as patch:
        patch.setattr(budget.Budget, "look", lambda self, step, done: plans.get(step))
        train(again, minutes=60.0, **options)
    assert facts(again)["plan"] == facts(out)["plan"]


class Machine:
    """A clock that only work moves: each step takes `each` seconds, or what a function of the step says."""

    def __init__(self, patch, each=0.1):
        self.time, real = 0.0, training.Trainer.train_step

        def step(run, coming):
            self.time += each(run.step) if callable(each) else each
            return real(run, coming)

        patch.setattr(training.Trainer, "train_step", step)
        patch.setattr(budget, "clock_time", lambda: self.time)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("minutes") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch, lambda step: 0.1 if step < 30 else 0.2)
        fit(out, minutes=0.2, held_out=points(shift=0.5))
    return out, machine.time


def test_a_run_of_minutes_ends_in_time_with_the_rate_at_zero(whole):
    out, took = whole
    found = facts(out)
    assert found["step"] == found["steps"] == found["plan"][-1][1] and found["minutes"] == 0.2
    assert 9.0 < found["seconds"] <= took <= 12.0 and len(found["plan"]) > 1
    rates = [float(row["lr"]) for row in rows(out)]
    assert rates[-1] < 0.1 * max(rates) and int(rows(out)[-1]["step"]) == found["steps"]
    assert zoo.load(out, net=Net(), codec=PlaneCodec()).verify() == 0.0


def test_held_out_data_are_logged_and_the_curve_is_a_picture(whole):
    out, _ = whole
    values = [float(row["held_out_loss"]) for row in rows(out) if row["held_out_loss"]]
    assert len(values) >= 2 and rows(out)[-1]["held_out_loss"]
    assert Image.open(out / "loss.png").size == (700, 500)


def test_a_run_without_matplotlib_has_no_curve_and_no_fault(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    fit(tmp_path / "a", steps=3, log_every=1)
    assert len(rows(tmp_path / "a")) == 3 and not (tmp_path / "a" / "loss.png").exists()


def test_the_same_plans_give_the_same_weights_also_without_anything_to_see(whole, tmp_path, monkeypatch):
    out, _ = whole
    replay(out, tmp_path / "again", monkeypatch)
    assert_same(out, tmp_path / "again")


class Killed(BaseException):
    pass


def test_killed_at_random_moments_and_resumed_it_has_the_weights_of_its_plans(tmp_path, monkeypatch):
    rng, out = random.Random(0), tmp_path / "killed"

    def each(last):
        def seconds(step):
            if step == last:
                raise Killed
            return rng.uniform(0.05, 0.25)

        return seconds

    last = 0
    for k in range(6):
        last += rng.randrange(0, 15)
        with monkeypatch.context() as patch:
            Machine(patch, each(last))
            with pytest.raises(Killed):
                fit(out, minutes=0.2, resume=k > 0, save_every=7, held_out=points(shift=0.5))
        last = facts(out)["step"]
    with monkeypatch.context() as patch:
        Machine(patch, each(-1))
        fit(out, resume=True)  # it knows how long it is
    found = facts(out)
    assert found["step"] == found["steps"] and found["minutes"] == 0.2 and len(found["plan"]) > 1
    replay(out, tmp_path / "again", monkeypatch)
    assert_same(out, tmp_path / "again")


SCRIPT = """
    import sys
    sys.path.insert(0, {here!r})
    import torch
    torch.set_num_threads(1)
    import zoo.training.trainer as training
    real = training.Trainer.train_step
    def step(self, coming):
        result = real(self, coming)
        print("step", self.step, flush=True)
        return result
    training.Trainer.train_step = step
    import test_trainer
    test_trainer.train(test_trainer.Path({out!r}), None, resume={resume}, workers=2, minutes={minutes}, save_every=5)
"""


@pytest.mark.slow
def test_twenty_times_killed_with_workers_it_has_the_weights_of_its_plans(tmp_path, monkeypatch):
    rng, out, kills = random.Random(1), tmp_path / "killed", 0

    def start(resume):
        here = str(Path(__file__).parent)
        code = SCRIPT.format(here=here, out=str(out), resume=resume, minutes="None" if resume else 1.0)
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    while kills < 20:
        with start(resume=kills > 0) as process:
            assert process.stdout.readline().startswith("data:"), process.stderr.read()
            time.sleep(rng.uniform(0.0, 3.0))
            process.send_signal(signal.SIGKILL)
        kills += (out / training.CHECKPOINT).exists()
    with start(resume=True) as process:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    import test_trainer

    assert facts(out)["step"] == facts(out)["steps"]
    replay(out, tmp_path / "again", monkeypatch, lambda again, **options: test_trainer.train(again, None, **options))
    assert_same(out, tmp_path / "again")


# ---------------------------------------------------------------- what may be asked for


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give steps, or minutes"),
        ({"steps": 3, "minutes": 1.0}, "give one of them"),
        ({"minutes": 0}, "above 0"),
        ({"minutes": -1.0}, "minutes=-1"),
        ({"minutes": float("nan")}, "minutes"),
        ({"minutes": "long"}, "minutes"),
        ({"resume": True}, "no run to go on with"),
    ],
)
def test_how_long_a_run_is_is_checked_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path / "a", **options)
    assert not (tmp_path / "a" / training.CHECKPOINT).exists()


def test_the_length_changes_only_before_the_rate_falls(tmp_path, monkeypatch):
    Machine(monkeypatch)
    fit(tmp_path / "a", minutes=0.2, max_minutes=0.04)
    before = facts(tmp_path / "a")
    assert before["step"] < 0.6 * before["steps"]
    fit(tmp_path / "a", minutes=0.12, resume=True, max_minutes=0.03)
    now = facts(tmp_path / "a")
    assert now["minutes"] == 0.12 and now["plan"][0] == before["plan"][0] and now["steps"] < before["steps"]
    fit(tmp_path / "a", resume=True)
    assert facts(tmp_path / "a")["seconds"] <= 60 * 0.12
    for change in ({"minutes": 5.0}, {"steps": 10**6}):
        with pytest.raises(CheckpointError, match="already falls"):
            fit(tmp_path / "a", resume=True, **change)


def test_steps_take_the_place_of_minutes_and_minutes_that_of_steps(tmp_path, monkeypatch):
    Machine(monkeypatch)
    fit(tmp_path / "a", minutes=0.2, max_minutes=0.03)
    first = facts(tmp_path / "a")["plan"][0]
    fit(tmp_path / "a", steps=60, resume=True)
    found = facts(tmp_path / "a")
    assert found["steps"] == found["step"] == 60 and found["minutes"] is None and found["plan"][0] == first
    fit(tmp_path / "b", steps=60, max_minutes=0.02)
    fit(tmp_path / "b", minutes=0.2, resume=True)
    found = facts(tmp_path / "b")
    assert found["minutes"] == 0.2 and found["steps"] != 60 and found["seconds"] <= 12


def test_a_run_of_steps_resumes_without_saying_them_again(tmp_path):
    fit(tmp_path / "a", steps=9, max_minutes=0.0)
    fit(tmp_path / "a", resume=True)
    fit(tmp_path / "whole", steps=9)
    assert facts(tmp_path / "a")["step"] == 9 and "plan" not in facts(tmp_path / "a")
    assert_same(tmp_path / "a", tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [
        {"plan": [[5, 9]]},
        {"plan": [[0, 9], [0, 9]]},
        {"plan": [[0, 8]]},
        {"plan": [[0, 0]]},
        {"plan": [[0]]},
        {"minutes": 0.0},
        {"minutes": "1"},
        {"steps": None},
    ],
)
def test_a_plan_that_fits_not_is_a_damaged_checkpoint(tmp_path, change):
    fit(tmp_path / "a", steps=9, max_minutes=0.0)
    path = tmp_path / "a" / training.CHECKPOINT
    tensors, meta, _ = files.load_sealed(path)
    files.save_sealed(path, tensors, meta | {"zoo": json.dumps(json.loads(meta["zoo"]) | change)})
    with pytest.raises(CheckpointError):
        fit(tmp_path / "a", resume=True)


# ---------------------------------------------------------------- a folder in which a run is at work


def test_the_newest_checkpoint_loads_while_the_run_goes_on(tmp_path, monkeypatch):
    out, real, seen = tmp_path / "a", training.Trainer.save, []

    def save(self):
        real(self)
        if self.step:
            with pytest.warns(UnfinishedWarning, match=f"step {self.step} of 6"):
                model = zoo.load(out, net=Net(), codec=PlaneCodec())
            shadow = self.ema.shadow
            assert all(torch.equal(p, shadow[k]) for k, p in model.denoiser.named_parameters())
            seen.append((model.progress, model.folder, "checkpoint of step" in repr(model)))
            with pytest.raises(CheckpointError, match="finished model"):
                model.verify()

    monkeypatch.setattr(training.Trainer, "save", save)
    fit(out, steps=6, save_every=2)
    assert seen[:2] == [("step 2 of 6", None, True), ("step 4 of 6", None, True)]
    model = zoo.load(out, net=Net(), codec=PlaneCodec())  # the finished one is newer
    assert model.progress is None and model.folder == out and model.verify() == 0.0


def test_a_flipped_byte_of_the_checkpoint_is_an_error_not_another_model(tmp_path):
    fit(tmp_path / "a", steps=3, max_minutes=0.0)
    (tmp_path / "a" / files.CONFIG).unlink()
    path = tmp_path / "a" / training.CHECKPOINT
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256"):
        zoo.load(tmp_path / "a", net=Net(), codec=PlaneCodec())


def test_previews_by_time_and_a_last_one(tmp_path, monkeypatch):
    Machine(monkeypatch, 2.0)
    torch.manual_seed(0)
    settings = Training(batch_size=2, warmup=2, precision="fp32")
    parts = (Diffusion(FlowSchedule(), "v"), Net(), PlaneCodec())
    model = zoo.Model.of(*parts, training=settings, sampling=Sampling(sampler="euler", steps=1))
    zoo.fit(model, points(), out=tmp_path / "a", cpu=True, minutes=5, log_every=0, save_every=0)
    found = sorted(int(p.stem) for p in (tmp_path / "a" / "previews").glob("*.png"))
    assert found == [28, 60, 120, facts(tmp_path / "a")["steps"]]


def test_the_lines_say_what_was_found_and_what_is_planned(tmp_path, capsys, monkeypatch):
    Machine(monkeypatch)
    fit(tmp_path / "a", minutes=0.1, held_out=points(3, shift=0.5))
    said = capsys.readouterr().out
    assert "data: 8 samples; no labels; held out: 3" in said
    assert "model: own/mine, own, 0.00 M parameters; samples of 2;" in said
    steps = facts(tmp_path / "a")["plan"][0][1]
    assert f"plan: {steps:,} steps in 0.1 minutes (0.1 s a step, 20 samples/s, {steps / 4:.3g} epochs of 8)" in said


def sized(tmp_path, step_seconds, minutes, batch=64, **options):
    """A trainer on a machine where a pass takes so long, after it chose its batch."""
    now = [0.0]
    settings = Training(batch_size=batch, precision="fp32", **options)
    model = zoo.Model.of(Diffusion(FlowSchedule(), "v"), Net(), PlaneCodec(), training=settings)
    loss = Denoise()

    class Slow:
        def loss(self, model, batch, rng):
            now[0] += step_seconds * len(batch.x0) / 64
            return loss.loss(model, batch, rng)

    trainer = training.Trainer(model, points(128), tmp_path, None, 0, cpu=True, minutes=minutes, objective=Slow())
    trainer.clock = budget.Clock(now=lambda: now[0])
    size.fit_sizes(trainer, ("batch",))
    return trainer


@pytest.mark.parametrize(
    ("step_seconds", "minutes", "batch"),
    [(2.8, 10, 16), (0.5, 10, 64), (0.7, 10, 32), (1.5, 10, 16), (0.01, 1, 64), (100, 1, 16)],
)
def test_a_short_run_has_smaller_batches_so_that_it_has_more_steps(tmp_path, step_seconds, minutes, batch):
    trainer = sized(tmp_path, step_seconds, minutes)
    assert trainer.options.batch_size == trainer.model.recipe.training.batch_size == batch
    assert len(trainer.batches()[0].x0) == batch


def test_where_nothing_may_be_chosen_nothing_is_measured():
    size.fit_sizes(SimpleNamespace(), ())  # it looks at no part of the run


def test_a_recipe_of_small_batches_keeps_them(tmp_path):
    assert sized(tmp_path, 50, 1, batch=8).options.batch_size == 8


def test_parts_of_a_step_count_in_its_time(tmp_path):
    assert sized(tmp_path, 0.5, 10, accumulate=4).options.batch_size == 16


def small(tmp_path, **options):
    """A run by the package's recipe with a net that is small, on a machine so slow that its batch shrinks."""
    pictures = Items([(np.full((28, 28), 9 * i, np.uint8), {"label": i % 10}) for i in range(20)], labels=LABELS)
    tiny = {"net": {"channels": 16, "multipliers": [1], "blocks": 1, "attention": [False], "patch": 4, "emb_dim": 16}}
    where = {"data": pictures, "out": tmp_path, "cpu": True, "preview_every": 0, "workers": 0}
    return zoo.train("image/fashion-ddpm", **where, **{"overrides": tiny} | options)


LABELS = {"label": list(zoo.contract.registry.get_recipe("image/fashion-ddpm").classes("label"))}


def test_a_run_that_goes_on_keeps_the_batch_that_it_chose(tmp_path, monkeypatch):
    monkeypatch.setattr(size, "ENOUGH_STEPS", 10**9)
    small(tmp_path, minutes=0.03)
    assert small(tmp_path, minutes=0.03, resume=True).recipe.training.batch_size == 16


def test_the_batch_of_a_run_stays_where_nobody_says_one_also_when_it_is_no_run_of_minutes_any_more(tmp_path):
    fit(tmp_path, steps=1)
    recipe = zoo.contract.registry.get_recipe("image/fashion-ddpm")
    found = [as_begun(recipe, tmp_path, None, fitted).training.batch_size for fitted in (("batch",), ())]
    assert found == [2, recipe.training.batch_size]


def test_a_checkpoint_of_a_run_of_steps_holds_what_older_versions_read(tmp_path):
    fit(tmp_path, steps=1)
    assert not {"minutes", "plan", "pace"} & facts(tmp_path).keys()


def test_processes_agree_on_plans_of_any_length():
    accelerator = SimpleNamespace(num_processes=2, reduce=lambda given, how: given)
    run = SimpleNamespace(accelerator=accelerator, main=True, stop="", device="cpu")
    run.agreed = functools.partial(training.Trainer.agreed, run)
    plan, due = (2**24 + 1, 2**40 + 1), Due(held_out=True, save_by_time=True, preview=7)
    assert training.Trainer._agree(run, plan, due) == (plan, due)


def test_a_batch_that_was_asked_for_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(size, "ENOUGH_STEPS", 10**9)
    net = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.patch": 4}
    assert small(tmp_path, minutes=0.03, overrides=net | {"training.batch_size": 20}).recipe.training.batch_size == 20


def with_widths(tmp_path, monkeypatch, **options):
    """A run by the package's recipe on a machine so slow that batch and net get smaller; the net is small to begin with."""
    monkeypatch.setattr(size, "ENOUGH_STEPS", 10**9)
    recipe = zoo.contract.registry.get_recipe("image/fashion-ddpm")
    net = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [False, False], "patch": 2, "emb_dim": 16}
    monkeypatch.setitem(zoo.contract.registry._recipes("image"), "fashion-ddpm", recipe.model_copy(update={"net": net}))
    return small(tmp_path, overrides={}, **{"minutes": 0.03} | options)


def test_a_run_of_too_few_steps_has_a_narrower_net_and_keeps_it(tmp_path, monkeypatch, capsys):
    model = with_widths(tmp_path, monkeypatch)
    assert model.recipe.net["channels"] == 4 and model.recipe.net["multipliers"] == [1, 2]  # halved twice, and no more
    said = "a narrower net, channels 4 in place of 16 (--set net.channels=16 keeps it), and batches of 16 in place of 64"
    assert said in capsys.readouterr().out
    widths = {len(p) for k, p in model.denoiser.named_parameters() if k.endswith("conv1.weight")}
    assert widths == {4, 8}
    again = with_widths(tmp_path, monkeypatch, resume=True)
    assert again.recipe.net == model.recipe.net
    assert zoo.load(tmp_path).recipe.net == model.recipe.net


def test_the_same_narrower_net_is_made_again():
    def narrower(seed):
        trainer = SimpleNamespace(model=zoo.create("image/fashion-ddpm"), seed=seed, set_up=lambda: None)
        assert size._narrower(trainer)
        return torch.cat([p.flatten() for p in trainer.model.denoiser.parameters()])

    assert torch.equal(narrower(3), narrower(3)) and not torch.equal(narrower(3), narrower(4))


@pytest.mark.parametrize(
    "overrides", [{"net.channels": 16}, {"net": {"channels": 16, "multipliers": [1], "attention": [False]}}]
)
def test_a_net_that_was_asked_for_stays(overrides):
    recipe = zoo.contract.registry.get_recipe("image/fashion-ddpm").override(overrides)
    assert size.free_sizes(recipe, overrides, None) == {"batch"}


def test_what_a_run_may_choose():
    recipe = zoo.contract.registry.get_recipe("image/fashion-ddpm")
    assert size.free_sizes(recipe, {}, None) == {"batch", "net"}
    assert size.free_sizes(recipe, {"training.batch_size": 8, "training.lr": 1e-3}, None) == {"net"}
    assert size.free_sizes(recipe, {}, "image/fashion-ddpm") == {"batch"}
    frozen = recipe.override({"training.freeze": ["net.down.*"]})
    assert size.free_sizes(frozen, {}, None) == {"batch"}


@pytest.mark.parametrize("name", zoo.list_models())
def test_the_widths_of_every_net_are_its_own_and_can_be_halved(name):
    recipe = zoo.contract.registry.get_recipe(name)
    domain = zoo.contract.registry.get_domain(recipe.domain)
    shape = build(recipe, zoo.testing.untrained_stage(domain, recipe)).codec.shape

    def weights(**net):
        with torch.device("meta"):
            found = domain.denoiser(recipe.model_copy(update={"net": {**recipe.net, **net}}), shape)
        return sum(p.numel() for p in found.parameters())

    widths = domain.widths(recipe)
    assert widths and weights() == weights(**widths)  # the defaults that a class names are those of its code
    assert weights(**{k: v // 2 for k, v in widths.items()}) < 0.65 * weights()

"""The trainer: exact resume, signals, guards, averages, several processes."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo import files
from zoo.contract.recipe import Training
from zoo.contract.registry import get_recipe
from zoo.errors import CheckpointError, ConfigError, DataError, NumericsError
from zoo.image.data import ArrayImages
from zoo.model.loading import build
from zoo.training import batches
from zoo.training import trainer as training
from zoo.training.objective import Denoise
from zoo.training.train import loop_options

TINY = {
    "net.channels": 16, "net.multipliers": [1], "net.attention": [True], "net.emb_dim": 32, "training.batch_size": 4,
    "training.warmup": 2, "training.precision": "fp32",
}  # fmt: skip


def pictures(n: int = 12) -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    return ArrayImages(pixels, np.arange(n) % 10, get_recipe("image/fashion-ddpm").conditions["label"].values)


def train(out: Path, steps: int = 6, **options):
    options = {"data": pictures(), "preview_every": 0, "cpu": True, "save_every": 2} | options
    overrides = TINY | options.pop("overrides", {})
    return zoo.train("image/fashion-ddpm", out=out, steps=steps, overrides=overrides, **options)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return files.load_tensors(out / training.CHECKPOINT)


def assert_same(a: Path, b: Path) -> None:
    one, two = weights(a), weights(b)
    assert one.keys() == two.keys()
    assert [k for k in one if not torch.equal(one[k], two[k])] == []


# a run in a process of its own, so that it can be killed; the steps are slowed so that the signal meets it in the middle
SCRIPT = """
    import sys, time
    sys.path.insert(0, {here!r})
    import torch
    torch.set_num_threads(1)
    import zoo.training.trainer as training
    step = training.Trainer.train_step
    def slow(self, coming):
        result = step(self, coming)
        print("step", self.step, flush=True)
        time.sleep({pause})
        return result
    training.Trainer.train_step = slow
    import test_trainer
    from zoo.training import trainer as training
    test_trainer.train(test_trainer.Path({out!r}), steps={steps}, resume={resume}, workers={workers})
"""


def start(out: Path, *, steps: int = 6, resume: bool = False, pause: float = 0.0, workers: int = 0) -> subprocess.Popen:
    """The run as a process, which leads a group of its own, as the one that a terminal starts does."""
    here = str(Path(__file__).parent)
    code = SCRIPT.format(here=here, out=str(out), steps=steps, resume=resume, pause=pause, workers=workers)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen, line: str) -> None:
    for text in process.stdout:
        if text.strip() == line:
            return
    pytest.fail(f"no {line!r}: {process.stderr.read()}")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(tmp_path):
    train(tmp_path / "a", steps=3)
    train(tmp_path / "b", steps=3)
    assert_same(tmp_path / "a", tmp_path / "b")
    train(tmp_path / "c", steps=3, seed=1)
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "a", tmp_path / "c")


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [3, 5])
def test_killed_and_resumed_ends_with_the_same_weights(tmp_path, killed_at):
    with start(tmp_path / "whole") as process:
        assert process.wait(120) == 0, process.stderr.read()
    with start(tmp_path / "killed", pause=0.2) as process:
        wait_for(process, f"step {killed_at}")
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / files.CONFIG).exists()
    with start(tmp_path / "killed", resume=True) as process:
        assert process.wait(120) == 0, process.stderr.read()
    assert_same(tmp_path / "whole", tmp_path / "killed")
    with (tmp_path / "killed" / "log.csv").open() as f:
        assert [row["step"] for row in csv.DictReader(f)][-1] == "6"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(tmp_path, number, workers):
    out = tmp_path / "run"
    with start(out, steps=1000, pause=0.1, workers=workers) as process:
        wait_for(process, "step 3")
        os.killpg(process.pid, number)  # as a terminal does: the workers get it, too
        # Python gives an interrupt that nobody handles on to itself
        assert process.wait(60) == {signal.SIGTERM: 143, signal.SIGINT: -signal.SIGINT}[number], process.stderr.read()
    _, meta = files.load_tensors_metadata(out / training.CHECKPOINT)
    assert '"step": 3' in meta["zoo"] or '"step": 4' in meta["zoo"]
    assert zoo.load(out).verify() == 0.0


def test_stopped_by_the_clock_and_resumed_it_is_the_whole_run(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "parts", max_minutes=0.0)
    assert '"step": 1' in files.load_tensors_metadata(tmp_path / "parts" / training.CHECKPOINT)[1]["zoo"]
    train(tmp_path / "parts", resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    for name in (files.WEIGHTS, files.CONFIG, files.GOLDEN):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A run of two steps, from which none of its users gets further."""
    out = tmp_path_factory.mktemp("run") / "a"
    train(out, steps=2)
    return out


def test_a_run_is_never_overwritten_by_accident(two_steps):
    before = (two_steps / training.CHECKPOINT).read_bytes()
    with pytest.raises(CheckpointError, match="already holds a run"):
        train(two_steps, steps=1)
    assert (two_steps / training.CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "seed was 0, now 3"),
        ({"data": pictures(9)}, "rows was 12, now 9"),
        ({"overrides": {"training.lr": 0.5}}, "training was"),
        ({"overrides": {"net.channels": 32}}, "net was"),
    ],
)
def test_resume_refuses_what_would_be_another_run(two_steps, change, message):
    before = weights(two_steps)
    with pytest.raises(CheckpointError, match=message):
        train(two_steps, steps=2, resume=True, **change)
    after = weights(two_steps)
    assert all(torch.equal(v, after[k]) for k, v in before.items())


@pytest.mark.slow
def test_the_length_may_change_only_before_the_learning_rate_falls(tmp_path):
    train(tmp_path / "a", steps=10, max_minutes=0.0)
    train(tmp_path / "a", steps=6, resume=True)
    with pytest.raises(CheckpointError, match="already falls"):
        train(tmp_path / "a", steps=8, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path, monkeypatch):
    whole = Denoise.loss

    def broken(self, model, batch, rng):
        loss = whole(self, model, batch, rng)
        calls.append(1)
        return loss * math.nan if len(calls) == 5 else loss  # the first call counts the operations

    calls: list[int] = []
    monkeypatch.setattr(Denoise, "loss", broken)
    with pytest.raises(NumericsError, match=r"step 3: loss nan"):
        train(tmp_path / "a")
    assert '"step": 2' in files.load_tensors_metadata(tmp_path / "a" / training.CHECKPOINT)[1]["zoo"]
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "a").values())
    assert not (tmp_path / "a" / files.CONFIG).exists(), "a broken run leaves no model"


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    train(tmp_path / "a", steps=4, max_minutes=0.0)
    before = (tmp_path / "a" / training.CHECKPOINT).read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(zoo.ZooError, match="no room on the disk"):
        train(tmp_path / "a", steps=4, resume=True)
    monkeypatch.undo()
    assert (tmp_path / "a" / training.CHECKPOINT).read_bytes() == before
    assert not list((tmp_path / "a").glob(".checkpoint*")), "nothing half-written is left"
    train(tmp_path / "a", steps=4, resume=True)


def test_the_average_is_the_formula(tmp_path):
    module = torch.nn.Linear(2, 1, bias=False)
    ema = training.EMA(module, 0.9)
    expected = module.weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            module.weight.fill_(float(step))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        ema.update(module, step)
        torch.testing.assert_close(ema.shadow["weight"], expected)
    torch.testing.assert_close(ema.shadow["weight"], expected)
    with ema.applied(module):
        torch.testing.assert_close(module.weight.detach(), expected)
    assert (module.weight == 199).all()


def test_the_learning_rate_rises_stays_and_falls():
    options = Training(lr=2.0, warmup=10, decay=0.5)
    rates = [training.learning_rate(k, 100, options) for k in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9:51] == [2.0] * 42
    assert rates[75] == pytest.approx(1.0) and rates[99] == pytest.approx(0.04)


@pytest.mark.slow
def test_batches_made_ahead_by_workers_are_the_same_and_resume(tmp_path):
    train(tmp_path / "alone", steps=3)
    train(tmp_path / "ahead", steps=3, workers=2, max_minutes=0.0)
    train(tmp_path / "ahead", steps=3, workers=1, resume=True)
    assert_same(tmp_path / "alone", tmp_path / "ahead")


class Torn(ArrayImages):
    """Pictures of which one cannot be read any more."""

    def __getitem__(self, i):
        if i == 7:
            raise DataError("picture 7 is gone.")
        return super().__getitem__(i)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_told_as_itself_also_by_a_worker(tmp_path, workers):
    whole, recipe = pictures(), get_recipe("image/fashion-ddpm").override(TINY)
    data = Torn(whole.pixels, whole.targets, whole.labels["label"])
    found = batches.Batches(data, build(recipe).codec, recipe, 0, None, 4)
    with pytest.raises(DataError) as error:
        list(found.ahead(range(3), workers))
    assert str(error.value) == "picture 7 is gone."


def test_epochs_see_every_row_once_in_their_own_order():
    rows = [i for step in range(6) for i in batches.indices(step, 5, 10, seed=0)]
    epochs = [rows[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(e) == list(range(10)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert batches.indices(2, 5, 10, 0) == rows[10:15]
    assert batches.indices(0, 25, 10, 0) == rows[:25], "a batch may be larger than the data"


def test_batches_of_like_sizes_see_every_row_and_resume():
    sizes = torch.randint(30, 130, (53,), generator=torch.Generator().manual_seed(0))
    steps = [batches.indices(step, 4, 53, 1, sizes, 8) for step in range(24)]  # two processes of 4, 6 groups an epoch
    assert steps[17] == batches.indices(17, 4, 53, 1, sizes, 8)
    epochs = [[row for batch in steps[i : i + 12] for row in batch] for i in (0, 12)]
    for epoch in epochs:
        assert len(set(epoch)) == 48, "each row once; five are left out"
        groups = [sizes[epoch[i : i + 8]] for i in range(0, 48, 8)]
        spans = sorted((int(g.min()), int(g.max())) for g in groups)
        assert all(high <= low for (_, high), (low, _) in pairwise(spans)), "groups are cut from the sorted rows"
        assert any(g.tolist() != sorted(g.tolist()) for g in groups), "in a group the order is random"
        assert [int(g.min()) for g in groups] != [low for low, _ in spans], "and so is that of the groups"
    assert set(epochs[0]) != set(epochs[1]) and epochs[0] != epochs[1]
    assert batches.indices(0, 4, 53, 1, sizes, 64) == batches.indices(0, 4, 53, 1), "too few rows to sort"


def test_accumulated_parts_are_a_mean_not_a_sum(tmp_path, monkeypatch):
    monkeypatch.setattr(Denoise, "loss", lambda self, model, batch, rng: model.denoiser.net.exit.bias.sum())
    for parts in (1, 3):
        change = {"training.accumulate": parts, "training.clip_norm": 100.0, "training.optimizer": "adamw"}
        train(tmp_path / str(parts), steps=1, overrides=change)
        moment = weights(tmp_path / str(parts))["optimizer.net.exit.bias.exp_avg"]
        torch.testing.assert_close(moment, torch.full_like(moment, 0.1))  # (1 - beta_1) times a gradient of 1


def test_the_log_says_speed_and_the_preview_is_drawn(tmp_path):
    train(tmp_path / "a", steps=4, preview_every=4, log_every=2)
    with (tmp_path / "a" / "log.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert all(
        float(row[k]) > 0 for row in rows for k in ("loss", "lr", "grad_norm", "samples_per_s", "gflop_per_s", "minutes")
    )
    assert list((tmp_path / "a").glob("events.out.tfevents*")) or list((tmp_path / "a").rglob("*tfevents*"))
    assert (tmp_path / "a" / "previews" / "0000004.png").stat().st_size > 1000


@pytest.mark.slow
def test_work_is_counted_forward_and_backward_and_a_first_guess_once(tmp_path):
    def counted(name, **overrides):
        recipe = get_recipe("image/fashion-ddpm").override(TINY | overrides)
        model = build(recipe).train()
        trainer = training.Trainer(model, pictures(), tmp_path / name, 1, 0, cpu=True)
        work = trainer.flops(trainer.batches()[0])
        assert all(p.grad is None for p in model.parameters()), "nothing is left for the first step"
        with torch.no_grad(), FlopCounterMode(display=False) as forward:
            model.diffusion.denoise(model.denoiser, torch.zeros(4, 1, 28, 28), model.diffusion.schedule.draw(4), {})
        return work / forward.get_total_flops()

    plain, hearing = counted("a"), counted("b", **{"diffusion.self_condition": True})
    assert 2.8 < plain <= 3  # the picture itself has no gradient
    assert hearing - plain == pytest.approx(0.5, abs=0.01), "half of the rows, forward alone"


@pytest.mark.slow
def test_a_memorised_batch_has_a_small_loss(tmp_path):
    flat = ArrayImages(np.full((4, 28, 28), 255, np.uint8), None, ())
    train(tmp_path / "a", steps=30, data=flat, log_every=5, overrides={"training.lr": 3e-3})
    with (tmp_path / "a" / "log.csv").open() as f:
        losses = [float(row["loss"]) for row in csv.DictReader(f)]
    assert losses[-1] < 0.6 * losses[0]
    assert zoo.load(tmp_path / "a").recipe.conditions == {}, "data without labels make an unconditional model"


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_must_be_a_positive_whole_number(tmp_path, steps):
    with pytest.raises(ConfigError, match="steps="):
        train(tmp_path / "a", steps=steps)
    assert not (tmp_path / "a").exists()


PROCESSES = """
    import os, signal, sys
    sys.path.insert(0, {here!r})
    import torch
    torch.set_num_threads(1)
    import test_trainer
    from zoo.training import trainer as training

    whole = training.Trainer.train_step

    def step(self, coming):
        if self.step == {signalled} and not self.main:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, coming)

    training.Trainer.train_step = step
    test_trainer.train(test_trainer.Path({out!r}), steps=3, cpu={cpu}, overrides={{"training.batch_size": 2}})
    training.leave_group()
"""


def two_processes(tmp_path: Path, cpu: bool = True, signalled: int = -1) -> dict:
    """The facts of the checkpoint that two processes leave; one of them gets a SIGTERM in step `signalled`."""
    script = tmp_path / "run.py"
    words = {"here": str(Path(__file__).parent), "out": str(tmp_path / "two"), "cpu": cpu, "signalled": signalled}
    script.write_text(textwrap.dedent(PROCESSES.format(**words)))
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert (launched.returncode == 0) == (signalled < 0), launched.stderr[-3000:]
    return json.loads(files.load_tensors_metadata(tmp_path / "two" / training.CHECKPOINT)[1]["zoo"])


@pytest.mark.slow
@pytest.mark.parametrize("cpu", [True, False], ids=["--cpu", "no accelerator"])
def test_two_processes_train_the_model_of_one(tmp_path, cpu):
    if not cpu and torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    facts = two_processes(tmp_path, cpu)
    assert (facts["processes"], facts["step"]) == (2, 3)
    assert zoo.load(tmp_path / "two").verify() == 0.0


@pytest.mark.slow
def test_a_signal_to_one_process_stops_them_all_with_a_checkpoint(tmp_path):
    assert two_processes(tmp_path, signalled=1)["step"] == 2


def test_processes_that_would_train_apart_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as a launcher sets it, but without the rest that joins them
    with pytest.raises(ConfigError, match="2 processes were started"):
        train(tmp_path / "a", steps=1)


@pytest.mark.slow
def test_previews_are_pictures_and_the_domains_own_files(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo.create("image/fashion-ddpm", **TINY).domain, "suffix", ".webp", raising=False)
    train(tmp_path / "a", steps=2, preview_every=2)
    previews = tmp_path / "a" / "previews"
    assert (previews / "0000002.png").exists() and len(list((previews / "0000002").glob("*.webp"))) == 20


@pytest.mark.slow
def test_a_resumed_run_still_says_where_it_started_from(tmp_path):
    train(tmp_path / "a", steps=1)
    train(tmp_path / "b", steps=2, init=tmp_path / "a", max_minutes=0.0)
    train(tmp_path / "b", steps=2, resume=True)
    _, meta = files.load_tensors_metadata(tmp_path / "b" / training.CHECKPOINT)
    facts = json.loads(meta["zoo"])
    assert facts["step"] == 2 and facts["init"] == str(tmp_path / "a")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_both_optimizers_resume_exactly(tmp_path, optimizer):
    change = {"overrides": {"training.optimizer": optimizer}}
    train(tmp_path / "whole", steps=4, **change)
    train(tmp_path / "parts", steps=4, max_minutes=0.0, **change)
    train(tmp_path / "parts", steps=4, resume=True, **change)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_net_with_dropout_resumes_exactly(tmp_path):
    change = {"overrides": {"net.dropout": 0.5, "net.attention": [False], "training.batch_size": 2}, "log_every": 0}
    train(tmp_path / "whole", steps=2, **change)
    train(tmp_path / "parts", steps=2, max_minutes=0.0, **change)
    train(tmp_path / "parts", steps=2, resume=True, **change)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_counting_the_work_of_a_step_is_no_part_of_training(tmp_path):
    model = zoo.create("image/fashion-ddpm", **TINY).train()
    model.denoiser.counts = torch.nn.BatchNorm1d(1)
    model.denoiser.register_forward_pre_hook(lambda net, given: (net.counts(torch.ones(2, 1)), None)[1])
    trainer = training.Trainer(model, pictures(), tmp_path, 2, 0, cpu=True, minutes=1e-9)
    trainer.flops(trainer.batches()[0])
    assert model.denoiser.counts.num_batches_tracked == 0 and model.denoiser.counts.running_mean == 0


@pytest.mark.slow
def test_a_recipe_and_a_model_folder_train_as_their_name_does(tmp_path):
    train(tmp_path / "name", steps=2)
    options = {"data": pictures(), "steps": 2, "preview_every": 0, "cpu": True}
    zoo.train(get_recipe("image/fashion-ddpm").override(TINY), out=tmp_path / "recipe", **options)
    zoo.train(str(tmp_path / "name"), out=tmp_path / "folder", **options)
    assert_same(tmp_path / "name", tmp_path / "recipe")
    assert_same(tmp_path / "name", tmp_path / "folder")


@pytest.mark.slow
def test_numbers_of_numpy_and_torch_set_a_run(tmp_path):
    train(tmp_path / "a", steps=2)
    train(tmp_path / "b", steps=np.int64(2), seed=torch.tensor(0), save_every=np.int32(2))
    assert_same(tmp_path / "a", tmp_path / "b")


def test_a_run_follows_the_objective_that_is_given(tmp_path):
    class Nothing(Denoise):
        def loss(self, model, batch, rng):
            return 0 * super().loss(model, batch, rng)

    model = build(get_recipe("image/fashion-ddpm").override(TINY | {"training.optimizer": "adamw"}))
    before = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
    zoo.fit(model, pictures(), steps=2, objective=Nothing(), cpu=True)
    assert all(torch.equal(v, before[k]) for k, v in model.denoiser.state_dict().items())
    zoo.fit(model, pictures(), steps=2, cpu=True)
    assert any(not torch.equal(v, before[k]) for k, v in model.denoiser.state_dict().items())


def test_an_empty_dataset_is_refused(tmp_path):
    with pytest.raises(DataError, match="empty"):
        zoo.fit(build(get_recipe("image/fashion-ddpm").override(TINY)), pictures(0), steps=1)


@pytest.mark.slow
def test_a_fast_run_ends_within_the_noise_of_bf16(tmp_path, monkeypatch):
    """Compiled, fused and prefetched, 50 steps on the same seeds: nearer to the plain run than that run in bf16 is.

    Resume of the plain path is exact, see above; only compiled sums, and a fused optimizer, round in other places.
    """
    small = {
        "net.blocks": 1,
        "net.channels": 8,
        "net.attention": [False],
        "training.batch_size": 2,
    }  # compiled in half a minute
    options = {"steps": 50, "log_every": 0, "save_every": 0}
    train(tmp_path / "plain", workers=0, overrides=small, **options)
    train(tmp_path / "half", workers=0, overrides=small | {"training.precision": "bf16"}, **options)
    plain_optimizer, made = training.Trainer.make_optimizer, []

    def fused(self):
        found = plain_optimizer(self)
        found.defaults["fused"] = True
        for group in found.param_groups:
            group["fused"] = True
        made.append(found)
        return found

    monkeypatch.setattr(training.Trainer, "make_optimizer", fused)
    train(tmp_path / "fast", workers=1, compile=True, overrides=small, **options)
    assert made and all(torch.is_tensor(s["step"]) for s in made[0].state.values() if "step" in s)
    plain, half, fast = (files.load_tensors(tmp_path / name / files.WEIGHTS) for name in ("plain", "half", "fast"))

    def apart(other):
        return math.sqrt(sum(float((plain[k] - other[k]).double().square().sum()) for k in plain))

    moved = math.sqrt(sum(float(v.double().square().sum()) for v in plain.values()))
    print(f"of the weights' size: bf16 {apart(half) / moved:.1e}, fast {apart(fast) / moved:.1e}")
    assert 0 < apart(fast) < apart(half) < 0.1 * moved


@pytest.mark.parametrize("given", [True, False, "default", "reduce-overhead"])
def test_a_net_is_compiled_in_a_way_that_torch_knows(given):
    assert loop_options({"compile": given}) == {"compile": given}


@pytest.mark.parametrize("given", ["reduce", "", 1.5, None])
def test_another_way_to_compile_is_refused(given):
    with pytest.raises(ConfigError, match="reduce-overhead"):
        loop_options({"compile": given})


@pytest.mark.parametrize(("asked", "mode"), [(True, "default"), ("reduce-overhead", "reduce-overhead")])
def test_the_way_is_handed_to_torch(tmp_path, monkeypatch, asked, mode):
    modes = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: modes.append(options))
    train(tmp_path / "run", steps=1, compile=asked, workers=0, log_every=0, save_every=0)
    assert modes == [{"mode": mode}]

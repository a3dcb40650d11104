"""Nets that are shared out over processes (FSDP): the numbers of data-parallel training, the same files, clear refusals."""

import csv
import os
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import zoo
from zoo import files
from zoo.errors import CheckpointError, ConfigError
from zoo.image.data import ArrayImages
from zoo.training import sharded
from zoo.training import trainer as training

HERE = Path(__file__).parent
UNET = {"net.channels": 16, "net.multipliers": [1, 2], "net.attention": [False, True], "net.blocks": 1, "net.emb_dim": 32}
NETS = {"fashion-ddpm": UNET, "fashion-dit": {"net.dim": 48, "net.depth": 2, "net.heads": 4, "net.emb_dim": 32}}
SIZES = {"training.batch_size": 2, "training.warmup": 2, "training.precision": "fp32"}


def pictures(n: int = 12) -> ArrayImages:
    pixels = torch.randint(256, (n, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    names = zoo.contract.registry.get_recipe("image/fashion-ddpm").conditions["label"].values
    return ArrayImages(pixels.numpy(), (torch.arange(n) % 10).numpy(), names)


def train(out: Path, name: str = "fashion-ddpm", optimizer: str = "muon", steps: int = 10, **options):
    options = {"data": pictures(), "preview_every": 0, "cpu": True, "save_every": 0, "log_every": 1, "workers": 0} | options
    overrides = NETS[name] | SIZES | {"training.optimizer": optimizer} | options.pop("overrides", {})
    return zoo.train(f"image/{name}", out=out, steps=steps, overrides=overrides, **options)


#: what two processes do, one thing after the other: a start of them takes longer than all of it
SCRIPT = """
    import os, signal, sys
    sys.path.insert(0, {here!r})
    import torch
    torch.set_num_threads(1)
    import test_sharded as given
    from zoo.errors import ConfigError
    from zoo.training import trainer as training

    training.native_bf16 = lambda: False  # in bf16 the last digit of a gradient may change the third of an update
    out = given.Path({out!r})
    rank = int(os.environ["RANK"])
    for name in given.NETS:
        for optimizer in ("adamw", "muon"):
            for fsdp in (False, True):
                given.train(out / f"{{name}} {{optimizer}} {{fsdp}}", name, optimizer, fsdp=fsdp)

    # stopped, and gone on with in the other way
    given.train(out / "shared out, then not", max_minutes=0, fsdp=True)
    given.train(out / "shared out, then not", resume=True)
    given.train(out / "not, then shared out", max_minutes=0)
    given.train(out / "not, then shared out", resume=True, fsdp=True)
    # in bf16, with what is seen of a run, and parts of the net that are not trained
    more = {{"training.precision": "bf16", "training.freeze": ["net.down.0"], "training.accumulate": 2}}
    looks = {{"held_out": given.pictures(5), "preview_every": 2, "overrides": more, "steps": 3}}
    plain = given.train(out / "bf16 False", **looks)
    model = given.train(out / "bf16 True", fsdp=True, **looks)
    assert all(p.requires_grad for p in model.denoiser.parameters())
    one, two = (m.sample(1, seed=0, steps=2).tensor for m in (plain, model))
    torch.testing.assert_close(one, two, atol=0.02, rtol=0)
    try:
        model.save_pretrained(out / "again")
    except ConfigError as error:
        print(error)

    whole = training.Trainer.train_step

    def step(self, coming):
        if self.step == 1 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, coming)

    training.Trainer.train_step = step
    try:
        given.train(out / "signal", fsdp=True)
    except SystemExit as end:
        print(rank, "left with", end.code)
    training.leave_group()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, str]:
    """The folder of all runs, and what was said."""
    out = tmp_path_factory.mktemp("sharded")
    (script := out / "run.py").write_text(textwrap.dedent(SCRIPT.format(here=str(HERE), out=str(out))))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)],
        capture_output=True,
        text=True,
        timeout=1800,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return out, done.stdout


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return files.load_tensors(folder / training.CHECKPOINT)


def losses(folder: Path, column: str = "loss") -> list[float]:
    with (folder / "log.csv").open() as f:
        return [float(row[column]) for row in csv.DictReader(f) if row[column]]


def assert_close(a: Path, b: Path, rtol: float = 1e-4, atol: float = 5e-6) -> None:
    """Within the rounding of float32, which Muon's iteration makes several times as large; an update is of 1e-3."""
    one, two = tensors(a), tensors(b)
    assert one.keys() == two.keys()
    for k in one:
        torch.testing.assert_close(one[k], two[k], rtol=rtol, atol=atol, msg=lambda text, k=k: f"{k}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", NETS)
def test_a_net_that_is_shared_out_has_the_losses_and_weights_of_one_that_is_not(runs, name, optimizer):
    plain, shared = (runs[0] / f"{name} {optimizer} {fsdp}" for fsdp in (False, True))
    assert losses(plain) == pytest.approx(losses(shared), rel=1e-5) and len(losses(plain)) == 10
    assert_close(plain, shared)
    assert zoo.load(shared).verify() < 1e-5, "the folder is whole, and its golden output is of all processes together"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shared out, then not", "not, then shared out"])
def test_a_run_goes_on_in_the_other_way(runs, kind):
    assert_close(runs[0] / "fashion-ddpm muon False", runs[0] / kind)


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_in_one_that_makes_both_parts_of_a_step(runs, monkeypatch):
    folder = runs[0] / "signal"
    monkeypatch.setattr(training, "native_bf16", lambda: False)
    with pytest.raises(CheckpointError, match=r"processes was 2, now 1 \(--set training.accumulate=2 makes the same steps\)"):
        train(folder, resume=True)
    train(folder, resume=True, overrides={"training.accumulate": 2})
    assert_close(runs[0] / "fashion-ddpm muon False", folder)


@pytest.mark.slow
def test_what_is_seen_of_a_run_is_made_by_all_processes_and_is_the_same(runs):
    plain, shared = (runs[0] / f"bf16 {fsdp}" for fsdp in (False, True))
    assert losses(plain) == pytest.approx(losses(shared), rel=1e-3)
    assert losses(plain, "held_out_loss") == pytest.approx(losses(shared, "held_out_loss"), rel=1e-3)
    assert {p.name for p in (shared / "previews").iterdir()} == {p.name for p in (plain / "previews").iterdir()} != set()
    start, frozen = (tensors(folder)["net.net.down.0.0.conv1.weight"] for folder in (plain, shared))
    assert torch.equal(start, frozen)
    assert "shared out over processes (fsdp=True)" in runs[1], "a model that is shared out does not save itself"


@pytest.mark.slow
def test_a_signal_to_one_process_stops_a_net_that_is_shared_out_with_a_checkpoint(runs):
    assert "stopped at step 2 of 10: another process stops" in runs[1] and "1 left with 143" in runs[1]


# ---------------------------------------------------------------- without processes


class Blocks(nn.Module):
    """Parts of all kinds: in a list, in a list of lists, in a sequence, and two with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.ModuleList([Pair(), nn.Linear(2, 2)]), Pair()])
        self.sequence = nn.Sequential(Pair(), nn.ReLU(), nn.Linear(2, 2))
        self.named = nn.ModuleDict({"label": nn.Linear(2, 2)})
        self.tied = nn.ModuleList([nn.Linear(2, 2)])
        self.exit = nn.Linear(2, 2)
        self.exit.weight = self.tied[0].weight
        self.idle = nn.ModuleList([nn.GELU()])


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2)])
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.layers[0](x) * self.scale


def test_the_parts_of_a_net_are_the_elements_of_lists_inner_ones_first():
    net = Blocks()
    names = {id(m): name for name, m in net.named_modules()}
    found = [names[id(m)] for m in sharded.units(net)]
    assert sorted(found) == [
        "sequence.0", "sequence.0.layers.0", "stages.0.0", "stages.0.0.layers.0", "stages.0.1", "stages.1", "stages.1.layers.0"
    ]  # fmt: skip
    assert found.index("stages.0.0.layers.0") < found.index("stages.0.0")


def test_a_net_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ConfigError, match=r"float32, torch\.float64; make them of one kind"):
        sharded.check_net(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))
    wrapped = nn.Module()
    wrapped._orig_mod = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="compiled"):
        sharded.check_net(wrapped)


def test_what_does_not_go_together_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="here is one"):
        train(tmp_path / "a", fsdp=True)
    with pytest.raises(ConfigError, match="fsdp=1: give True or False"):
        train(tmp_path / "a", fsdp=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="compile=True"):
        train(tmp_path / "a", fsdp=True, compile=True)
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match="give out"):
        zoo.fit(zoo.create("image/fashion-ddpm", **UNET), pictures(), steps=1, fsdp=True)


def test_narrow_copies_of_weights_are_not_kept_and_gradients_are_the_same(monkeypatch):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 16), nn.Linear(16, 4, bias=False))
    x, found, packed = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), [], []
    whole = sharded._pack
    monkeypatch.setattr(sharded, "_pack", lambda x: packed.append(whole(x)) or packed[-1])
    for context in (nullcontext(), sharded.narrowed_again()):
        with context, sharded.uncached(), torch.autocast("cpu", torch.bfloat16):
            loss = net(x).square().sum()
        found.append(torch.autograd.grad(loss, list(net.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    weights = {p[0].shape for p in packed if isinstance(p, tuple)}
    assert {net[0].weight.shape, net[2].weight.shape, net[3].weight.shape} <= weights


def test_several_processes_end_where_all_know_that_they_do():
    one, two = (SimpleNamespace(accelerator=SimpleNamespace(num_processes=n), stop="SIGTERM", ends=False) for n in (1, 2))
    assert training.Trainer._over(one) and not training.Trainer._over(two), "the signal came after they had agreed"

"""The one trainer: loop, EMA, exact resume, one or several processes through accelerate.

Every random number of step k comes from generators seeded by (seed, k), and every batch from permutations seeded by
(seed, epoch). So a run that is killed at any moment and resumed from its last checkpoint ends with the same weights
as one that was never stopped.
"""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from zoo import files
from zoo.contract.dataset import Batch, Dataset
from zoo.contract.recipe import Recipe, Training
from zoo.contract.samples import Samples
from zoo.core import seeds
from zoo.core.device import native_bf16
from zoo.disk import CHECKPOINT
from zoo.errors import CheckpointError, ConfigError, NumericsError
from zoo.model import unfinished
from zoo.model.first_stage import Latent
from zoo.model.model import Model
from zoo.model.unfinished import FORMAT_VERSION, Facts
from zoo.training import budget
from zoo.training.batches import Batches
from zoo.training.ema import EMA
from zoo.training.fingerprint import fingerprint
from zoo.training.heldout import HeldOut
from zoo.training.lock import Lock
from zoo.training.log import Log
from zoo.training.muon import Muon
from zoo.training.objective import Objective, objective_of
from zoo.training.watch import Due, Watch

#: what of a recipe is only said of a model: it may change within a run
ABOUT = ("sampling", "description", "data", "licence", "paper")
#: samples of a preview
PREVIEWED = 20
# streams of random numbers that must never meet, beside that of the batches
NOISE, WEIGHTS = 2, 3
#: what the net itself draws in training (dropout), from torch's global generators
DROPOUT = 5


def learning_rate(step: int, steps: int, training: Training) -> float:
    """The learning rate of a run of so many steps, see `zoo.training.budget.learning_rate`."""
    return budget.learning_rate(step, [(0, steps)], training)


class Loss(nn.Module):
    """A model under its objective, as the one module that several processes train together: batch -> loss."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Tensor:
        return self.objective.loss(self.model, batch, rng)


class Trainer:
    """One training run in the folder `out`.

    Args:
        model: a fresh model; its denoiser is trained.
        dataset: training data of its domain.
        out: folder of the checkpoint, logs, previews and, at the end, the model itself.
        steps: length of the run; the learning rate falls to 0 at its end. None: as long as `minutes` say.
        cpu: stay on the CPU even where there is a GPU.
        minutes: the time of the whole run, its preparation and its end included: the steps are planned by it.
        began: when the run began (`budget.clock_time`), where that was before now.
        held_out: data that nothing trains on, whose loss is logged.

    Where neither steps nor minutes are given, a run that is resumed has those that it had.
    """

    #: whether a pass of the net, and a look at its weights, is something that all processes do together
    together = False

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        out: Path,
        steps: int | None,
        seed: int,
        *,
        cpu: bool = False,
        objective: Objective | None = None,
        minutes: float | None = None,
        began: float | None = None,
        held_out: Dataset | None = None,
    ) -> None:
        try:
            from accelerate import Accelerator
        except ImportError:
            raise ConfigError('training needs accelerate: pip install "diffusion-zoo[train]".') from None
        self.model, self.dataset, self.out, self.seed = model, dataset, out, seed
        #: how long the run is, as it was said or planned, see `zoo.training.budget`
        self.plans: list[budget.Plan] = [] if steps is None else [(0, steps)]
        self.minutes, self.held_out = minutes, held_out
        self.options, self.sizes = model.recipe.training, dataset.sizes()
        self.objective = objective_of(self.options) if objective is None else objective
        self.precision = self.options.precision
        if self.precision == "auto":
            self.precision = "bf16" if native_bf16() else "fp32"
        started = int(os.environ.get("WORLD_SIZE", 1))
        if started > 1 and not os.environ.get("MASTER_ADDR"):  # accelerate would fail, and leave its state half made
            raise ConfigError(
                f"{started} processes were started, but they train apart: WORLD_SIZE is set and MASTER_ADDR is not. "
                "Start them by accelerate launch or torchrun, which set both."
            )
        # mixed precision is ours, below: accelerate's would patch the net's forward, and only once a process
        # accelerate starts a group of CPU processes only when it is told that there is nothing but CPUs
        self.accelerator = Accelerator(mixed_precision="no", cpu=cpu or not torch.accelerator.is_available())
        if started != self.accelerator.num_processes:
            raise ConfigError(
                f"{started} processes were started, but they train apart, each as one of {self.accelerator.num_processes}: "
                "start them by accelerate launch or torchrun, with --cpu where the GPUs are not for them."
            )
        if self.accelerator.distributed_type.value in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
            raise ConfigError(
                f"accelerate is set to {self.accelerator.distributed_type.value}, which zoo does not train with: choose "
                "several processes and nothing else (accelerate config, or torchrun). For a net that no device holds give "
                "fsdp=True (--fsdp)."
            )
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        self.set_up()
        self.step = 0
        self.clock = budget.Clock(began=began, wait=self.wait)
        #: (loss, gradient norm) of the steps since the last check, added up: not finite as soon as one of them is not
        self.unchecked = torch.zeros(2, device=self.device)
        self.graphs = False  # whether the net is replayed as CUDA graphs
        self.stop = ""  # why the loop ends before its last step
        self.ends = False  # after this step, as all processes know
        self.signal = 0  # the one that asked for it
        self.init = ""  # what the weights started from
        self.pace = 1.0  # share of the recipe's learning rate
        self.data: str | None = None  # what the data are, see `fingerprint`
        self.lock: Lock | None = None
        self.stamp: tuple[int, int] | None = None  # of the checkpoint as this run left it

    def set_up(self) -> None:
        """All that belongs to the net, on its device: its optimizer and its average, too. Those of a net before are let go."""
        self.accelerator.free_memory()
        self.model.to(self.device)
        self.optimizer = self.make_optimizer()
        self.ema = EMA(self.model.denoiser, self.options.ema)
        self.net, self.optimizer = self.accelerator.prepare(Loss(self.model, self.objective), self.optimizer)

    @property
    def steps(self) -> int | None:
        """The length of the run; None while it is not planned."""
        return self.plans[-1][1] if self.plans else None

    def wait(self) -> None:
        """Until the device has done what it was told to do."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that the recipe names, over the denoiser's parameters."""
        options: dict[str, Any] = {k: getattr(self.options, k) for k in ("lr", "betas", "weight_decay")}
        options["fused"] = True if self.device.type == "cuda" else None
        if self.options.optimizer == "adamw":
            return torch.optim.AdamW([p for _, p in self._parameters() if p.requires_grad], **options)
        return self._muon(dtype=torch.bfloat16 if native_bf16() else torch.float32, **options)

    def _muon(self, **options: Any) -> torch.optim.Optimizer:
        return Muon(self.model.denoiser, processes=self.accelerator.num_processes, **options)

    def compile_net(self, mode: str) -> None:
        """Run the net through `torch.compile` from now on, in one of `zoo.training.COMPILED`."""
        self.model.denoiser.compile(mode=mode)
        self.graphs = mode != "default" and self.device.type == "cuda"

    # ------------------------------------------------------------ one step

    def batches(self) -> Batches:
        """All batches of the run, on the CPU."""
        # one group for the batches of one step: no process waits for another's longer samples
        group = self.options.batch_size * self.accelerator.num_processes * self.options.accumulate
        inner = self.model.codec.inner  # latents are made on the device, by the objective
        codec = inner if self.device.type == "cpu" else copy.deepcopy(inner).cpu()
        recipe = self.model.recipe
        augment = self.model.domain.augment(recipe.augment)
        return Batches(self.dataset, codec, recipe, self.seed, self.sizes, group, augment)

    def positions(self, steps: range) -> range:
        """Where the batches of this process in these steps are: one after the other for each part of a step."""
        each = self.options.accumulate * self.accelerator.num_processes
        first = self.accelerator.process_index
        return range(steps.start * each + first, steps.stop * each + first, self.accelerator.num_processes)

    def train_step(self, batches: Iterator[Batch]) -> tuple[Tensor, Tensor]:
        """One optimizer step; returns (loss, gradient norm), scalars that stay on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.pace * budget.learning_rate(self.step, self.plans, self.options)
        parts = self.options.accumulate
        total = torch.zeros((), dtype=torch.float32 if self.device.type == "mps" else torch.float64, device=self.device)
        for part in range(parts):
            batch = next(batches).to(self.device)
            # by where the batch is in the step alone: several processes, and one that makes as many parts, do the same
            place = self.step, part * self.accelerator.num_processes + self.accelerator.process_index, 0
            rng = seeds.generator(self.seed, NOISE, *place)
            torch.manual_seed(seeds.derive_seed(self.seed, DROPOUT, *place))
            last = part == parts - 1
            if self.graphs:  # what the last pass left in their memory is no longer asked for
                torch.compiler.cudagraph_mark_step_begin()
            with nullcontext() if last else self.accelerator.no_sync(self.net):
                with self._autocast():
                    loss = self.net(batch, rng) / parts
                self.accelerator.backward(loss)
            total += loss.detach()
        norm = self._clip().detach()
        if self.accelerator.num_processes > 1:
            total = self.accelerator.reduce(total, "mean")
        self.unchecked += torch.stack([total.to(norm.dtype), norm])
        if self.device.type == "cpu":  # there is nothing to wait for, and the weights stay as they were before this step
            self.check_finite()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.model.denoiser, self.step)
        self.step += 1
        return total, norm

    def _clip(self) -> Tensor:
        """Make gradients smaller that are too large; returns the norm that they had."""
        norm: Tensor = self.accelerator.clip_grad_norm_(self.model.denoiser.parameters(), self.options.clip_norm)
        return norm

    def check_finite(self) -> None:
        """Stop where loss or gradient of a step since the last check were not finite. No checkpoint is made without it."""
        loss, norm = self.unchecked.tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NumericsError(
                f"step {self.step}: loss {loss}, gradient norm {norm}. Stopped; the checkpoint in {self.out} is from "
                "before. Lower training.lr or use training.precision=fp32."
            )
        self.unchecked.zero_()

    def flops(self, batch: Batch) -> float:
        """Floating point operations of one optimizer step on such batches, counted forward and backward."""
        with FlopCounterMode(display=False) as counter:
            self.trial(batch.to(self.device))
        return float(counter.get_total_flops() * self.options.accumulate * self.accelerator.num_processes)

    def trial(self, batch: Batch) -> None:
        """One pass forward and backward that is no part of the run: what a net counts in training is as before.

        Gradients are taken, not accumulated: several processes would wait for each other's.
        """
        kept = {name: b.clone() for name, b in self.model.denoiser.named_buffers()}
        try:
            with self._autocast():
                loss = self.objective.loss(self.model, batch, seeds.generator(0))
            self._backward_alone(loss)
        finally:
            for name, b in self.model.denoiser.named_buffers():
                if name in kept:
                    b.data.copy_(kept[name])

    def _backward_alone(self, loss: Tensor) -> None:
        """The gradients of a loss, which nobody wants."""
        torch.autograd.grad(loss, [p for p in self.model.denoiser.parameters() if p.requires_grad], allow_unused=True)

    def _autocast(self) -> AbstractContextManager[None]:
        """In what the net multiplies in training."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    # ------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Checkpoint of everything that the next step depends on, in one atomic file that holds its own hash."""
        self.check_finite()
        if self.main or self.together:
            with self.clock.doing("save"):
                self._save()

    def _save(self) -> None:
        if self.main:
            self.keep_place()
        state = {f"net.{k}": self._whole(k, v) for k, v in files.state_of(self.model.denoiser).items()}
        state |= {f"codec.{k}": v for k, v in files.state_of(self.model.codec).items()}
        state |= {f"ema.{files.plain_name(k)}": self._whole(k, v) for k, v in self.ema.shadow.items()}
        stateless = []
        for name, p in self._parameters():
            if not p.requires_grad:
                continue
            state |= {f"optimizer.{name}.{k}": self._whole(name, v) for k, v in self._optimizer().state[p].items()}
            if not self._optimizer().state[p]:
                stateless.append(name)
        if not self.main:
            return
        facts = Facts(
            step=self.step,
            steps=self.steps,
            seed=self.seed,
            seconds=self.clock.seconds,
            rows=len(self.dataset),
            processes=self.accelerator.num_processes,
            init=self.init,
            pace=self.pace,
            format=FORMAT_VERSION,
            data=self.data,
            stateless=stateless,
            minutes=self.minutes,
            plan=self.plans if self.minutes is not None or self.plans != [(0, self.steps)] else [],
        )
        given = facts.model_dump()
        if self.minutes is None and not given["plan"]:  # a run of so many steps: as every version of zoo reads it
            del given["minutes"], given["plan"]
        if self.pace == 1:
            del given["pace"]
        meta = {"zoo": json.dumps(given), "recipe": self.model.recipe.model_dump_json()}
        files.save_sealed(self.out / CHECKPOINT, state, meta)
        self.stamp = self._stamp()

    def keep_place(self) -> None:
        """Before the folder is written: one that was removed is made again, unless another run is or was there since then.

        Raises:
            CheckpointError: the folder holds another run.
        """
        if self.lock is None or self.lock.holds():
            return
        if self._stamp() not in (None, self.stamp):
            raise CheckpointError(
                f"{self.out} was removed while the run was in it, and holds another run now: nothing is written there. "
                "Give each run a folder of its own."
            )
        if not self.out.is_dir():
            self.note(f"{self.out} was removed while the run was in it: it is made again, with what the run still has.")
            with files.disk_errors(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
        self.lock.leave()
        self.lock.take()

    def _stamp(self) -> tuple[int, int] | None:
        """What tells one checkpoint in the folder from another."""
        try:
            stat = (self.out / CHECKPOINT).stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    def note(self, text: str) -> None:
        """Say something above the bar, once for all processes."""
        if self.main:
            tqdm.write(text)

    def _optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The denoiser's parameters under the names that they have where it is not compiled, as the optimizer sees them."""
        return [(files.plain_name(k), p) for k, p in self.model.denoiser.named_parameters()]

    def _whole(self, name: str, value: Tensor) -> Tensor:
        """What a checkpoint holds of this process's part of a parameter's weights, average or moment."""
        return value

    def _part(self, name: str, value: Tensor) -> Tensor:
        """The inverse of `_whole`: this process's part of what a checkpoint holds."""
        return value

    def _like(self, name: str, value: Tensor) -> Tensor:
        """A tensor of the shape and the kind of numbers that `_whole` gives."""
        return value

    def _fill(self, tensors: dict[str, Tensor], path: Path) -> None:
        """The net's own state from a checkpoint, checked."""
        files.load_strict(self.model.denoiser, tensors, path, exact=True)

    def resume(self) -> None:
        """Go on from the checkpoint in `out`; a different recipe, seed or dataset is an error.

        Raises:
            CheckpointError: a file that is damaged, lacks something or holds more, or is of another run.
        """
        path = self.out / CHECKPOINT
        found = unfinished.read(path, mapped=self.together)
        facts = found.facts
        before, after = found.recipe, self.model.recipe
        now = {"seed": self.seed, "rows": len(self.dataset)}
        changed = [f"{k} was {getattr(facts, k)}, now {v}" for k, v in now.items() if getattr(facts, k) != v]
        changed += self._processes(facts, before.training)
        if not changed:  # other processes that together make as many parts of a step
            accumulate = before.training.accumulate * facts.processes // self.accelerator.num_processes
            alike = before.training.model_copy(update={"accumulate": accumulate})
            before = before.model_copy(update={"training": alike})
        said = [recipe.shown() for recipe in (before, after)]
        changed += [
            f"{k} was {getattr(said[0], k)!r}, now {getattr(said[1], k)!r}"
            for k in Recipe.model_fields
            if k not in ABOUT and getattr(before, k) != getattr(after, k)
        ]
        changed += self._length(facts)
        if changed:
            raise CheckpointError(f"cannot resume {self.out}: " + "; ".join(changed) + ".")

        parts = {name: found.part(name) for name in unfinished.PARTS}
        moments = self._moments(parts["optimizer"], facts, path)
        shadow = {files.plain_name(k): v for k, v in self.ema.shadow.items()}
        files.check_tensors(parts["ema"], {k: self._like(k, v) for k, v in shadow.items()}, path, exact=True)
        files.check_finite(parts["ema"], path)
        self._fill(parts["net"], path)
        files.load_strict(self.model.codec, parts["codec"], path, exact=True)
        if isinstance(self.model.codec, Latent):
            self.model.codec.seal()
        self.data = fingerprint(self.dataset, self.model.codec)
        if facts.data is None:
            why = "was written before data were compared" if facts.format < 2 else "is of data that are drawn anew each time"
            self.note(f"{path} {why}: only their number is.")
        elif facts.data != self.data:
            raise CheckpointError(
                f"cannot resume {self.out}: the data are others than before, though as many ({facts.rows}). Give those that "
                "the run began with, from any folder; or start a new one from its weights, with init (--init)."
            )
        for key, value in parts["ema"].items():
            shadow[key].copy_(self._part(key, value))
        fused = bool(self._optimizer().defaults["fused"])  # else AdamW counts its steps on the CPU
        for name, p in self._parameters():
            own = {k: self._part(name, v) for k, v in moments[name].items()}
            if own:
                self._optimizer().state[p] = {k: v if k == "step" and not fused else v.to(p.device) for k, v in own.items()}
        self.stamp = self._stamp()
        self.step, self.clock.before, self.init, self.pace = facts.step, facts.seconds, facts.init, facts.pace

    def _processes(self, facts: Facts, before: Training) -> list[str]:
        """What is wrong with the number of processes: parts of a step may be made one after the other, but must be as many."""
        processes, parts = self.accelerator.num_processes, facts.processes * before.accumulate
        if facts.processes == processes or parts == processes * self.options.accumulate:
            return []
        each = f" (--set training.accumulate={parts // processes} makes the same steps)" if parts % processes == 0 else ""
        return [f"processes was {facts.processes}, now {processes}{each}"]

    def _length(self, facts: Facts) -> list[str]:
        """Take over how long the run is, or what was changed of it; returns what may not be changed any more.

        The length sets when the learning rate starts to fall: it may change until that has begun.
        """
        before: list[budget.Plan] = list(facts.plan) or ([] if facts.steps is None else [(0, facts.steps)])
        asked, steps, minutes = self.plans, self.steps, self.minutes
        self.plans = before
        if steps is None and minutes is None:
            self.minutes = facts.minutes
            return []
        said = []
        if minutes is not None and minutes != facts.minutes:
            said = [f"minutes was {facts.minutes or 'not given'}, now {minutes:g}"]
        elif steps is not None and steps != facts.steps:
            said = [f"steps was {facts.steps}, now {steps}"]
        falling = budget.falls(facts.step, before, self.options.decay) or (
            steps is not None and facts.step > (1 - self.options.decay) * steps
        )
        if said and falling:
            return [f"{said[0]}, and the learning rate already falls"]
        if steps is not None and steps != facts.steps:
            # one that was planned keeps how its learning rate rose
            earlier = [plan for plan in before if plan[0] < facts.step]
            self.plans = [*earlier, (facts.step, steps)] if earlier and earlier[0][0] else asked
        return []

    def _moments(self, given: dict[str, Tensor], facts: Facts, path: Path) -> dict[str, dict[str, Tensor]]:
        """The optimizer's state of each parameter, checked: {parameter: {what: tensor}}, empty where it had none."""
        matrices = {id(p) for g in self._optimizer().param_groups if g.get("matrices") for p in g["params"]}
        wanted: dict[str, Tensor] = {}
        for name, p in self._parameters():
            if not p.requires_grad:
                continue
            kinds = ("momentum",) if id(p) in matrices else ("step", "exp_avg", "exp_avg_sq")
            own = {f"{name}.{k}": torch.zeros(()) if k == "step" else self._like(name, p) for k in kinds}
            # older files do not say which parameters never had a gradient: all of a parameter's state is there, or none of it
            absent = facts.step == 0 or (name in facts.stateless if facts.format >= 2 else own.keys().isdisjoint(given))
            wanted |= {} if absent else own
        if facts.step and not wanted and facts.format < 2:
            raise CheckpointError(f"{path} lacks the state of the optimizer.")
        files.check_tensors(given, wanted, path, exact=True)
        files.check_finite(given, path)
        found: dict[str, dict[str, Tensor]] = {name: {} for name, _ in self._parameters()}
        for key, value in given.items():
            name, _, kind = key.rpartition(".")
            if kind == "step" and not (1 <= float(value) <= facts.step and float(value).is_integer()):
                raise CheckpointError(f"{path}: {key} is {float(value):g}, of a run of {facts.step} steps.")
            if kind == "exp_avg_sq" and bool((value < 0).any()):
                raise CheckpointError(f"{path}: {key} holds negative numbers, and it is a mean of squares.")
            found[name][kind] = value
        return found

    # ------------------------------------------------------------ the loop

    def run(
        self,
        *,
        max_minutes: float | None = None,
        log_every: int = 50,
        save_every: int = 500,
        preview_every: int | None = None,
        workers: int | None = None,
        compile: bool | str = False,
    ) -> None:
        """Train until the last step, a signal, or the time is up; then leave a checkpoint and the model folder in `out`.

        Args:
            max_minutes: stop and save after so long; None for no limit.
            log_every, save_every: steps between lines of the log, and between checkpoints, which also come by time: every
                two minutes at first, later up to ten apart. 0: none before the end.
            preview_every: steps between previews, 0 for none; None: by time, after about 1, 2, 4, 8, ... minutes.
            workers: processes that make the batches ahead; the batches are the same. None: as many as keep the net from
                waiting, see `Batches.workers`.
            compile: run the net through `torch.compile`, True or one of `zoo.training.COMPILED`: "reduce-overhead" replays its
                kernels as CUDA graphs, for small nets on a GPU, whose kernels take less time than their launches. It rounds
                in other places: weights are not the same to the bit.

        Raises:
            KeyboardInterrupt: SIGINT ended it. SystemExit: SIGTERM did, with the code 143. Everything is saved then.
        """
        batches = self.batches()
        first_batch, start = batches[0], time.perf_counter()
        flops = self.flops(first_batch)
        # a first pass on an accelerator compiles and asks for memory, and says nothing of the others
        seconds = (time.perf_counter() - start) * self.options.accumulate if self.device.type == "cpu" else None
        # a run of minutes may be planned anew, and be longer then
        last = budget.ENDLESS if self.minutes is not None or self.steps is None else self.steps
        positions = self.positions(range(self.step, last))
        if workers is None:
            workers = batches.workers(positions, seconds, self.accelerator.num_processes)
        coming = batches.ahead(positions, workers)
        held = None
        if self.held_out is not None and (self.main or self.together) and log_every:
            held = HeldOut(self.held_out, batches.codec, self.model.recipe)
        slow_start = bool(compile) or self.device.type != "cpu"
        self.watch = Watch(self, log_every, save_every, preview_every, held, flops, slow_start)
        self.watch.introduce(len(self.held_out) if held and self.held_out is not None else 0)
        if compile:
            self.compile_net("default" if compile is True else compile)
        start = self.clock.now()
        logs = closing(Log(self.out, self.step, self.watch.columns())) if self.main else nullcontext()
        total, first = self.steps, self.step
        with logs as log, self._signals(), tqdm(total=total, initial=first, unit="step", disable=not self.main) as bar:
            self.watch.begin(log, bar)
            while (self.steps is None or self.step < self.steps) and not self._over():
                self.watch.add(*self.train_step(coming))
                bar.update()
                wanted = self.watch.look()
                if max_minutes is not None and self.clock.now() - start > 60 * max_minutes:
                    self.stop = f"{max_minutes:g} minutes are over"
                plan, due = self._agree(wanted, self.watch.due())
                if plan is not None:
                    self.plans.append(plan)
                    self.watch.planned()
                self.watch.after_step(due)
                if self.lock is not None:
                    self.lock.pulse()
            self.model.denoiser._compiled_call_impl, self.graphs = None, False
            self.save()
            self.watch.end()
            if self.stop:
                length = "a number that is not planned yet" if self.steps is None else f"{self.steps}"
                self.note(f"stopped at step {self.step} of {length}: {self.stop}. Go on with --resume.")
            self.export()
        self.accelerator.wait_for_everyone()

    def _over(self) -> bool:
        """Whether the loop ends. Several processes end it where all know: a signal may come to one of them at any time."""
        return self.ends if self.accelerator.num_processes > 1 else bool(self.stop)

    def _agree(self, wanted: budget.Plan | None, due: Due) -> tuple[budget.Plan | None, Due]:
        """All processes stop together, have the same plans, and save and show together."""
        if self.accelerator.num_processes == 1:
            return wanted, due
        plan, asked = (0, 0) if wanted is None else wanted, due.numbers()
        stop, at, steps, *numbers = self.agreed(int(bool(self.stop)), *[n if self.main else 0 for n in (*plan, *asked)])
        if stop and not self.stop:
            self.stop = "another process stops"
        self.ends = bool(stop)
        return ((at, steps) if steps else None), Due.of(numbers)

    def agreed(self, *numbers: int) -> list[int]:
        """The sum of each number over all processes: each of them asks, also the one that knows the answer."""
        if self.accelerator.num_processes == 1:
            return list(numbers)
        # whole numbers: a float of 32 bits does not hold a step beyond 2**24
        found: list[int] = self.accelerator.reduce(torch.tensor(numbers, device=self.device), "sum").tolist()
        return found

    def preview(self, n: int = PREVIEWED) -> None:
        """n samples of the averaged weights, always from the same seed: a picture, and files where that is not all."""
        if not (self.main or self.together):
            return
        if self.main:
            self.keep_place()
        domain = self.model.domain
        path = self.out / "previews" / f"{self.step:07d}.png"
        with self.evaluated():
            try:
                samples = self._previewed(n)
                if not self.main:
                    return
                samples.plot(path)
                if domain.suffix != path.suffix:
                    samples.save(path.with_suffix(""))
            except NumericsError as error:
                self.note(f"no preview at step {self.step}: {error}")

    def _previewed(self, n: int) -> Samples:
        """What a preview shows: n samples, or what the objective of a model that samples nothing makes."""
        shows = getattr(self.objective, "preview", None)
        if shows is not None:
            found: Samples = shows(self.model, self.held_out or self.dataset, n)
            return found
        return self.model.sample(n, seed=0, progress=False, **self._shown(n))

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """The model with averaged weights, in evaluation mode and not compiled, inside the block."""
        with self.ema.applied(self.model.denoiser), self._plain():
            self.model.eval()
            try:
                yield
            finally:
                self.model.train()

    @contextmanager
    def _plain(self) -> Iterator[None]:
        """The net as it is inside the block: for a few samples nothing is compiled."""
        net = self.model.denoiser
        compiled, net._compiled_call_impl = net._compiled_call_impl, None
        try:
            yield
        finally:
            net._compiled_call_impl = compiled

    def _shown(self, n: int) -> dict[str, Any]:
        """Conditions for n samples of a preview: those that show what the model can do, and real ones for the others.

        Where one is made of samples, all are those of real ones.
        """
        conditions, rows = self.model.recipe.conditions, [i % len(self.dataset) for i in range(n)]
        given = self.dataset.given(0)
        derived = [k for k, c in conditions.items() if c.derived and k not in given]
        found: dict[str, Any] = {} if derived else dict(self.model.recipe.showcase(n))
        for name in conditions:
            if name in derived:
                found[name] = torch.stack([self.model.codec.inner.encode(self.dataset[i][0]) for i in rows])
            elif name not in found:
                found[name] = [self.dataset.given(i)[name] for i in rows]
        return found

    def export(self) -> None:
        """The model folder with the averaged weights."""
        if self.main:
            self.keep_place()
            with self.ema.applied(self.model.denoiser):
                self.model.eval().save_pretrained(self.out)

    def finish(self) -> None:
        """After the run: the model has averaged weights, and is in evaluation mode."""
        self.ema.copy_to(self.model.denoiser)
        self.model.eval()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the loop after the running step; a second one ends the process as usual."""
        old: dict[int, Any] = {}

        def ask(number: int, frame: Any) -> None:
            self.stop, self.signal = signal.Signals(number).name, number
            signal.signal(number, old[number])

        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                old[number] = signal.signal(number, ask)
        except ValueError:
            pass  # not in the main thread: the caller keeps its own handling
        try:
            yield
        finally:
            for caught, handler in old.items():
                signal.signal(caught, handler)


def leave_group() -> None:
    """What a program of several processes does after its last training: left to the interpreter's end, it may abort there."""
    from accelerate import PartialState

    if PartialState._shared_state:  # else there is none, and asking for it would start one
        PartialState().destroy_process_group()

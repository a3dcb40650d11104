"""The one trainer: loop, EMA, exact resume, one or several processes through accelerate.

Every random number of step k comes from generators seeded by (seed, k), and every batch from permutations seeded by
(seed, epoch). So a run that is killed at any moment and resumed from its last checkpoint ends with the same weights
as one that was never stopped.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, StrictInt, ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from zoo import files
from zoo.contract.dataset import Batch, Dataset
from zoo.contract.part import Part
from zoo.contract.recipe import Recipe, Training
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError, NumericsError
from zoo.model.model import Model
from zoo.training.batches import BATCHES, indices
from zoo.training.ema import EMA
from zoo.training.fingerprint import fingerprint
from zoo.training.lock import Lock
from zoo.training.log import Log
from zoo.training.muon import Muon
from zoo.training.objective import OBJECTIVES, Objective

CHECKPOINT = "checkpoint.safetensors"
#: of its facts; 1 had neither a hash nor `data` and `stateless`
FORMAT_VERSION = 2
#: what of a recipe is only said of a model: it may change within a run
ABOUT = ("sampling", "description", "data", "licence", "paper")
# streams of random numbers that must never meet, beside that of the batches
NOISE, WEIGHTS = 2, 3


def native_bf16() -> bool:
    """Whether this machine multiplies bf16 in hardware; elsewhere it is emulated, 10 to 50 times slower than fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.backends.cpu.get_cpu_capability()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()) and found != "AVX2"


def learning_rate(step: int, steps: int, training: Training) -> float:
    """Linear warm-up, a plateau, then a linear way down to 0 over the last `decay` share of the steps."""
    up = (step + 1) / max(training.warmup, 1)
    down = (steps - step) / max(training.decay * steps, 1)
    return training.lr * min(up, down, 1.0)


class Loss(nn.Module):
    """A model under its objective, as the one module that several processes train together: batch -> loss."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Tensor:
        return self.objective.loss(self.model, batch, rng)


class Facts(Part):
    """What a checkpoint knows beside its tensors and the recipe.

    Attributes:
        step, steps: done, and in all.
        seconds: of training until now.
        rows, data: how many samples the dataset has, and what they are (None: not known).
        processes: that train together.
        init: what the weights started from.
        stateless: parameters of which the optimizer keeps nothing, since they never had a gradient.
    """

    step: StrictInt = Field(ge=0)
    steps: StrictInt = Field(ge=1)
    seed: StrictInt
    seconds: float = Field(ge=0, strict=True)
    rows: StrictInt = Field(ge=1)
    processes: StrictInt = Field(1, ge=1)
    init: str = ""
    format: StrictInt = Field(1, ge=1)
    data: str | None = None
    stateless: list[str] = []

    @classmethod
    def parse(cls, text: str, path: Path) -> Facts:
        """The facts of a checkpoint; what is not one is a CheckpointError."""
        data = files.parse_json(text, path)
        version = data.get("format") if isinstance(data, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format {version}; this zoo reads up to {FORMAT_VERSION}. Upgrade: pip install -U diffusion-zoo."
            )
        try:
            facts = cls.model_validate(data)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'facts'}: {e['msg']}" for e in error.errors()]
            raise CheckpointError(f"{path} is not a training checkpoint of zoo: {'; '.join(lines[:5])}.") from None
        if facts.step > facts.steps:
            raise CheckpointError(f"{path} is damaged: it is of step {facts.step} of {facts.steps}.")
        return facts


@dataclass
class Window:
    """What was measured since the last line of the log."""

    since: float
    step: int
    loss: float = 0.0
    norm: float = 0.0

    def add(self, loss: float, norm: float) -> None:
        """One more step."""
        self.loss += loss
        self.norm = max(self.norm, norm)


class Trainer:
    """One training run in the folder `out`.

    Args:
        model: a fresh model; its denoiser is trained.
        dataset: training data of its domain.
        out: folder of the checkpoint, logs, previews and, at the end, the model itself.
        steps: length of the run; the learning rate falls to 0 at its end.
        cpu: stay on the CPU even where there is a GPU.
    """

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        out: Path,
        steps: int,
        seed: int,
        *,
        cpu: bool = False,
        objective: Objective | None = None,
    ) -> None:
        try:
            from accelerate import Accelerator
        except ImportError:
            raise ConfigError('training needs accelerate: pip install "diffusion-zoo[train]".') from None
        self.model, self.dataset, self.out, self.steps, self.seed = model, dataset, out, steps, seed
        self.options, self.sizes = model.recipe.training, dataset.sizes()
        self.objective = OBJECTIVES[self.options.objective]() if objective is None else objective
        self.precision = self.options.precision
        if self.precision == "auto":
            self.precision = "bf16" if native_bf16() else "fp32"
        # mixed precision is ours, below: accelerate's would patch the net's forward, and only once a process
        # accelerate starts a group of CPU processes only when it is told that there is nothing but CPUs
        self.accelerator = Accelerator(mixed_precision="no", cpu=cpu or not torch.accelerator.is_available())
        if (started := int(os.environ.get("WORLD_SIZE", 1))) != self.accelerator.num_processes:
            raise ConfigError(
                f"{started} processes were started, but they train apart, each as one of {self.accelerator.num_processes}: "
                "start them by accelerate launch or torchrun, with --cpu where the GPUs are not for them."
            )
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        model.to(self.device)
        self.optimizer = self.make_optimizer()
        self.ema = EMA(model.denoiser, self.options.ema)
        self.net, self.optimizer = self.accelerator.prepare(Loss(model, self.objective), self.optimizer)
        self.step, self.seconds = 0, 0.0
        self.stop = ""  # why the loop ends before its last step
        self.signal = 0  # the one that asked for it
        self.init = ""  # what the weights started from
        self.data: str | None = None  # what the data are, see `fingerprint`
        self.lock: Lock | None = None

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that the recipe names, over the denoiser's parameters."""
        options = {k: getattr(self.options, k) for k in ("lr", "betas", "weight_decay")}
        if self.options.optimizer == "adamw":
            return torch.optim.AdamW(self.model.denoiser.parameters(), **options)
        exact = torch.bfloat16 if native_bf16() else torch.float32
        return Muon(self.model.denoiser, dtype=exact, processes=self.accelerator.num_processes, **options)

    # ------------------------------------------------------------ one step

    def batch(self, step: int, part: int) -> Batch:
        """The share of this process in part `part` of step `step` (parts: gradient accumulation)."""
        size, count = self.options.batch_size, self.accelerator.num_processes
        position = (step * self.options.accumulate + part) * count + self.accelerator.process_index
        # one group for the batches of one step: no process waits for another's longer samples
        group = size * count * self.options.accumulate
        rows = indices(position, size, len(self.dataset), self.seed, self.sizes, group)
        rng = seeds.generator(self.seed, BATCHES, -1, position)
        return self.model.batch([self.dataset[i] for i in rows], rng).to(self.device)

    def train_step(self) -> tuple[float, float]:
        """One optimizer step; returns (loss, gradient norm)."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.options)
        total, parts = 0.0, self.options.accumulate
        for part in range(parts):
            batch = self.batch(self.step, part)
            rng = seeds.generator(self.seed, NOISE, self.step, part, self.accelerator.process_index)
            last = part == parts - 1
            with nullcontext() if last else self.accelerator.no_sync(self.net):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    loss = self.net(batch, rng) / parts
                self.accelerator.backward(loss)
            total += loss.item()
        norm = float(self.accelerator.clip_grad_norm_(self.model.denoiser.parameters(), self.options.clip_norm))
        total = float(self.accelerator.reduce(torch.tensor(total, device=self.device), "mean"))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise NumericsError(
                f"step {self.step}: loss {total}, gradient norm {norm}. Stopped; the checkpoint in {self.out} is from "
                "before. Lower training.lr or use training.precision=fp32."
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.model.denoiser, self.step)
        self.step += 1
        return total, norm

    def flops(self) -> float:
        """Floating point operations of one optimizer step, counted forward and backward."""
        batch, parameters = self.batch(0, 0), list(self.model.denoiser.parameters())
        with FlopCounterMode(display=False) as counter:
            # gradients are taken, not accumulated: several processes would wait for each other's
            loss = self.objective.loss(self.model, batch, seeds.generator(0))
            torch.autograd.grad(loss, parameters, allow_unused=True)
        return float(counter.get_total_flops() * self.options.accumulate * self.accelerator.num_processes)

    # ------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Checkpoint of everything that the next step depends on, in one atomic file that holds its own hash."""
        if not self.main:
            return
        if not self.out.is_dir():
            self.note(f"{self.out} was removed while the run was in it: it is made again, with what the run still has.")
        state = {f"net.{k}": v for k, v in files.state_of(self.model.denoiser).items()}
        state |= {f"codec.{k}": v for k, v in files.state_of(self.model.codec).items()}
        state |= {f"ema.{files.plain_name(k)}": v for k, v in self.ema.shadow.items()}
        stateless = []
        for name, p in self._parameters():
            state |= {f"optimizer.{name}.{k}": v for k, v in self._optimizer().state[p].items()}
            if not self._optimizer().state[p]:
                stateless.append(name)
        facts = Facts(
            step=self.step,
            steps=self.steps,
            seed=self.seed,
            seconds=self.seconds,
            rows=len(self.dataset),
            processes=self.accelerator.num_processes,
            init=self.init,
            format=FORMAT_VERSION,
            data=self.data,
            stateless=stateless,
        )
        meta = {"zoo": json.dumps(facts.model_dump()), "recipe": self.model.recipe.model_dump_json()}
        files.save_sealed(self.out / CHECKPOINT, state, meta)

    def note(self, text: str) -> None:
        """Say something above the bar, once for all processes."""
        if self.main:
            tqdm.write(text)

    def _optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The denoiser's parameters under the names that they have where it is not compiled."""
        return [(files.plain_name(k), p) for k, p in self.model.denoiser.named_parameters()]

    def resume(self) -> None:
        """Go on from the checkpoint in `out`; a different recipe, seed or dataset is an error.

        Raises:
            CheckpointError: a file that is damaged, lacks something or holds more, or is of another run.
        """
        path = self.out / CHECKPOINT
        state, meta, sealed = files.load_sealed(path)
        if set(meta) != {"zoo", "recipe"}:
            raise CheckpointError(f"{path} is not a training checkpoint of zoo: its metadata are {', '.join(meta) or 'empty'}.")
        facts = Facts.parse(meta["zoo"], path)
        if (facts.format >= 2) != sealed:
            raise CheckpointError(f"{path} is damaged: format {facts.format} goes {'with' * (not sealed) or 'without'} a hash.")
        recipe = files.parse_json(meta["recipe"], path)
        if not isinstance(recipe, dict):
            raise CheckpointError(f"{path} is damaged: its recipe is not one.")
        before, after = Recipe.parse(recipe), self.model.recipe
        now = {"seed": self.seed, "rows": len(self.dataset), "processes": self.accelerator.num_processes}
        changed = [f"{k} was {getattr(facts, k)}, now {v}" for k, v in now.items() if getattr(facts, k) != v]
        changed += [
            f"{k} was {getattr(before, k)!r}, now {getattr(after, k)!r}"
            for k in Recipe.model_fields
            if k not in ABOUT and getattr(before, k) != getattr(after, k)
        ]
        # the number of steps sets when the learning rate starts to fall: it may change until that has begun
        falling = (1 - self.options.decay) * min(facts.steps, self.steps)
        if facts.steps != self.steps and facts.step > falling:
            changed.append(f"steps was {facts.steps}, now {self.steps}, and the learning rate already falls")
        if changed:
            raise CheckpointError(f"cannot resume {self.out}: " + "; ".join(changed) + ".")

        parts: dict[str, dict[str, Tensor]] = {k: {} for k in ("net", "codec", "ema", "optimizer")}
        for key, value in state.items():
            prefix, _, name = key.partition(".")
            if prefix not in parts:
                raise CheckpointError(f"{path} has the foreign key {key}.")
            parts[prefix][files.plain_name(name)] = value
        moments = self._moments(parts["optimizer"], facts, path)
        shadow = {files.plain_name(k): v for k, v in self.ema.shadow.items()}
        files.check_tensors(parts["ema"], shadow, path, exact=True)
        files.check_finite(parts["ema"], path)
        files.load_strict(self.model.denoiser, parts["net"], path, exact=True)
        files.load_strict(self.model.codec, parts["codec"], path, exact=True)
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
            shadow[key].copy_(value)
        for name, p in self._parameters():
            own = {k: v if k == "step" else v.to(p.device) for k, v in moments[name].items()}
            if own:
                self._optimizer().state[p] = own
        self.step, self.seconds, self.init = facts.step, facts.seconds, facts.init

    def _moments(self, given: dict[str, Tensor], facts: Facts, path: Path) -> dict[str, dict[str, Tensor]]:
        """The optimizer's state of each parameter, checked: {parameter: {what: tensor}}, empty where it had none."""
        matrices = {id(p) for g in self._optimizer().param_groups if g.get("matrices") for p in g["params"]}
        wanted: dict[str, Tensor] = {}
        for name, p in self._parameters():
            kinds = ("momentum",) if id(p) in matrices else ("step", "exp_avg", "exp_avg_sq")
            own = {f"{name}.{k}": torch.zeros(()) if k == "step" else p for k in kinds}
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
        self, *, max_minutes: float | None = None, log_every: int = 50, save_every: int = 500, preview_every: int = 2000
    ) -> None:
        """Train until `steps`, a signal, or the time is up; then leave a checkpoint and the model folder in `out`.

        Args:
            max_minutes: the time, see above; None for no limit.
            log_every, save_every, preview_every: steps between lines of the log, checkpoints and previews. 0: none before
                the end, and no preview at all.

        Raises:
            KeyboardInterrupt: SIGINT ended it. SystemExit: SIGTERM did, with the code 143. Everything is saved then.
        """
        flops = self.flops()
        start, before = time.monotonic(), self.seconds
        window = Window(start, self.step)
        logs = closing(Log(self.out, self.step)) if self.main else nullcontext()
        total, first = self.steps, self.step
        with logs as log, self._signals(), tqdm(total=total, initial=first, unit="step", disable=not self.main) as bar:
            while self.step < self.steps and not self.stop:
                window.add(*self.train_step())
                now = time.monotonic()
                self.seconds = before + now - start
                bar.update()
                if (log_every and self.step % log_every == 0) or self.step == self.steps:
                    row = self.measured(window, now, flops)
                    if log is not None:
                        log.write(row)
                    speed = f"{row['samples_per_s']:.0f} samples/s, {row['gflop_per_s']:.0f} GFLOP/s"
                    bar.set_postfix_str(f"loss {row['loss']:.4f}, {speed}")
                    window = Window(now, self.step)
                if save_every and self.step % save_every == 0:
                    self.save()
                if self.lock is not None:
                    self.lock.pulse()
                if preview_every and self.step % preview_every == 0:
                    self.preview()
                if max_minutes is not None and now - start > 60 * max_minutes:
                    self.stop = f"{max_minutes:g} minutes are over"
                self._agree_to_stop()
        self.save()
        if self.stop:
            self.note(f"stopped at step {self.step} of {self.steps}: {self.stop}. Go on with --resume.")
        self.export()
        self.accelerator.wait_for_everyone()

    def measured(self, window: Window, now: float, flops: float) -> dict[str, Any]:
        """A line of the log: what the steps of a window did, and how fast."""
        steps = self.step - window.step
        rate = steps / (now - window.since)
        samples = self.options.batch_size * self.options.accumulate * self.accelerator.num_processes
        return {
            "step": self.step,
            "loss": window.loss / steps,
            "lr": learning_rate(self.step - 1, self.steps, self.options),
            "grad_norm": window.norm,
            "samples_per_s": rate * samples,
            "gflop_per_s": rate * flops / 1e9,
            "minutes": self.seconds / 60,
        }

    def _agree_to_stop(self) -> None:
        """All processes leave the loop together: each of them asks, also the one that knows the answer."""
        if self.accelerator.num_processes == 1:
            return
        flag = torch.tensor(float(bool(self.stop)), device=self.device)
        if bool(self.accelerator.reduce(flag, "max") > 0) and not self.stop:
            self.stop = "another process stops"

    def preview(self) -> None:
        """A few samples of the averaged weights, always from the same seed: a picture, and files where that is not all."""
        if not self.main:
            return
        n, domain = 20, self.model.domain
        path = self.out / "previews" / f"{self.step:07d}.png"
        with self.ema.applied(self.model.denoiser):
            try:
                samples = self.model.eval().sample(n, seed=0, progress=False, **self._shown(n))
                samples.plot(path)
                if domain.suffix != path.suffix:
                    samples.save(path.with_suffix(""))
            except NumericsError as error:
                self.note(f"no preview at step {self.step}: {error}")
        self.model.train()

    def _shown(self, n: int) -> dict[str, Any]:
        """Conditions for n samples of a preview: those that show what the model can do, and real ones for the others."""
        recipe = self.model.recipe
        found: dict[str, Any] = dict(recipe.showcase(n))
        for name in recipe.conditions:
            if name not in found:
                found[name] = [self.dataset[i % len(self.dataset)][1][name] for i in range(n)]
        return found

    def export(self) -> None:
        """The model folder with the averaged weights."""
        if self.main:
            with self.ema.applied(self.model.denoiser):
                self.model.eval().save_pretrained(self.out)

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

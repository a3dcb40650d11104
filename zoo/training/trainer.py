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
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from zoo import files
from zoo.contract.dataset import Batch, Dataset
from zoo.contract.recipe import Recipe, Training
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError, NumericsError
from zoo.model.model import Model
from zoo.training.batches import Batches
from zoo.training.ema import EMA
from zoo.training.log import Log
from zoo.training.muon import Muon
from zoo.training.objective import OBJECTIVES, Objective

CHECKPOINT = "checkpoint.safetensors"
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


@dataclass
class Window:
    """What was measured since the last line of the log."""

    since: float
    step: int
    loss: Tensor | float = 0.0
    norm: Tensor | float = 0.0

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """One more step. Nothing is read from the device here: that would wait for it."""
        self.loss = self.loss + loss
        self.norm = torch.maximum(norm, torch.as_tensor(self.norm, device=norm.device))


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
        #: (loss, gradient norm) of the steps since the last check, added up: not finite as soon as one of them is not
        self.unchecked = torch.zeros(2, device=self.device)
        self.stop = ""  # why the loop ends before its last step
        self.init = ""  # what the weights started from

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that the recipe names, over the denoiser's parameters."""
        options: dict[str, Any] = {k: getattr(self.options, k) for k in ("lr", "betas", "weight_decay")}
        options["fused"] = True if self.device.type == "cuda" else None
        if self.options.optimizer == "adamw":
            return torch.optim.AdamW(self.model.denoiser.parameters(), **options)
        exact = torch.bfloat16 if native_bf16() else torch.float32
        return Muon(self.model.denoiser, dtype=exact, processes=self.accelerator.num_processes, **options)

    # ------------------------------------------------------------ one step

    def batches(self) -> Batches:
        """All batches of the run, on the CPU."""
        # one group for the batches of one step: no process waits for another's longer samples
        group = self.options.batch_size * self.accelerator.num_processes * self.options.accumulate
        codec = self.model.codec if self.device.type == "cpu" else copy.deepcopy(self.model.codec).cpu()
        return Batches(self.dataset, codec, self.model.recipe, self.seed, self.sizes, group)

    def positions(self, steps: range) -> range:
        """Where the batches of this process in these steps are: one after the other for each part of a step."""
        each = self.options.accumulate * self.accelerator.num_processes
        first = self.accelerator.process_index
        return range(steps.start * each + first, steps.stop * each + first, self.accelerator.num_processes)

    def train_step(self, batches: Iterator[Batch]) -> tuple[Tensor, Tensor]:
        """One optimizer step; returns (loss, gradient norm), scalars that stay on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.options)
        parts = self.options.accumulate
        total = torch.zeros((), dtype=torch.float32 if self.device.type == "mps" else torch.float64, device=self.device)
        for part in range(parts):
            batch = next(batches).to(self.device)
            rng = seeds.generator(self.seed, NOISE, self.step, part, self.accelerator.process_index)
            last = part == parts - 1
            with nullcontext() if last else self.accelerator.no_sync(self.net):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    loss = self.net(batch, rng) / parts
                self.accelerator.backward(loss)
            total += loss.detach()
        norm = self.accelerator.clip_grad_norm_(self.model.denoiser.parameters(), self.options.clip_norm).detach()
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
        parameters = list(self.model.denoiser.parameters())
        with FlopCounterMode(display=False) as counter:
            # gradients are taken, not accumulated: several processes would wait for each other's
            loss = self.objective.loss(self.model, batch.to(self.device), seeds.generator(0))
            torch.autograd.grad(loss, parameters, allow_unused=True)
        return float(counter.get_total_flops() * self.options.accumulate * self.accelerator.num_processes)

    # ------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Checkpoint of everything that the next step depends on, in one atomic file."""
        self.check_finite()
        if not self.main:
            return
        state = {f"net.{k}": v for k, v in self.model.denoiser.state_dict().items()}
        state |= {f"codec.{k}": v for k, v in self.model.codec.state_dict().items()}
        state |= {f"ema.{k}": v for k, v in self.ema.shadow.items()}
        for name, p in self.model.denoiser.named_parameters():
            state |= {f"optimizer.{name}.{k}": v for k, v in self._optimizer().state[p].items()}
        facts: dict[str, Any] = {
            "step": self.step,
            "steps": self.steps,
            "seed": self.seed,
            "seconds": self.seconds,
            "rows": len(self.dataset),
        }
        facts |= {"processes": self.accelerator.num_processes, "init": self.init}
        meta = {"zoo": json.dumps(facts), "recipe": self.model.recipe.model_dump_json()}
        files.save_tensors(self.out / CHECKPOINT, state, meta)

    def _optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def resume(self) -> None:
        """Go on from the checkpoint in `out`; a different recipe, seed or dataset size is an error."""
        path = self.out / CHECKPOINT
        state, meta = files.load_tensors_metadata(path)
        if "zoo" not in meta:
            raise CheckpointError(f"{path} is not a training checkpoint of zoo.")
        facts = json.loads(meta["zoo"])
        now = {"seed": self.seed, "rows": len(self.dataset), "processes": self.accelerator.num_processes}
        changed = [f"{k} was {facts[k]}, now {v}" for k, v in now.items() if facts[k] != v]
        before, after = Recipe.parse(json.loads(meta["recipe"])), self.model.recipe
        changed += [
            f"{k} was {getattr(before, k)!r}, now {getattr(after, k)!r}"
            for k in Recipe.model_fields
            if k not in ("sampling", "description") and getattr(before, k) != getattr(after, k)
        ]
        # the number of steps sets when the learning rate starts to fall: it may change until that has begun
        falling = (1 - self.options.decay) * min(facts["steps"], self.steps)
        if facts["steps"] != self.steps and facts["step"] > falling:
            changed.append(f"steps was {facts['steps']}, now {self.steps}, and the learning rate already falls")
        if changed:
            raise CheckpointError(f"cannot resume {self.out}: " + "; ".join(changed) + ".")

        def pick(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        files.load_strict(self.model.denoiser, pick("net."), path)
        files.load_strict(self.model.codec, pick("codec."), path)
        for key, value in pick("ema.").items():
            self.ema.shadow[key].copy_(value)
        moments = pick("optimizer.")
        for name, p in self.model.denoiser.named_parameters():
            entries = {
                k: moments[f"{name}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq", "momentum") if f"{name}.{k}" in moments
            }
            # AdamW counts steps on the CPU, unless it is fused
            fused = bool(self._optimizer().defaults["fused"])
            self._optimizer().state[p] = {k: v if k == "step" and not fused else v.to(p.device) for k, v in entries.items()}
        self.step, self.seconds, self.init = facts["step"], facts["seconds"], facts.get("init", "")

    # ------------------------------------------------------------ the loop

    def run(
        self,
        *,
        max_minutes: float | None = None,
        log_every: int = 50,
        save_every: int = 500,
        preview_every: int = 2000,
        workers: int = 0,
        compile: bool = False,
    ) -> None:
        """Train until `steps`, a signal, or the time is up; then leave a checkpoint and the model folder in `out`.

        Args:
            workers: processes that make the batches ahead; the batches are the same.
            compile: run the net through `torch.compile`. It rounds in other places: weights are not the same to the bit.
        """
        batches = self.batches()
        flops = self.flops(batches[0])
        coming = batches.ahead(self.positions(range(self.step, self.steps)), workers)
        if compile:
            self.model.denoiser.compile()
        start, before = time.monotonic(), self.seconds
        window = Window(start, self.step)
        logs = closing(Log(self.out, self.step)) if self.main else nullcontext()
        total, first = self.steps, self.step
        with logs as log, self._signals(), tqdm(total=total, initial=first, unit="step", disable=not self.main) as bar:
            while self.step < self.steps and not self.stop:
                window.add(*self.train_step(coming))
                now = time.monotonic()
                self.seconds = before + now - start
                bar.update()
                if self.step % log_every == 0 or self.step == self.steps:
                    self.check_finite()
                    now = time.monotonic()  # the device has done the steps by now, not only been told to do them
                    row = self.measured(window, now, flops)
                    if log is not None:
                        log.write(row)
                    speed = f"{row['samples_per_s']:.0f} samples/s, {row['gflop_per_s']:.0f} GFLOP/s"
                    bar.set_postfix_str(f"loss {row['loss']:.4f}, {speed}")
                    window = Window(now, self.step)
                if save_every and self.step % save_every == 0:
                    self.save()
                if preview_every and self.step % preview_every == 0:
                    self.preview()
                if max_minutes is not None and now - start > 60 * max_minutes:
                    self.stop = f"{max_minutes:g} minutes are over"
                self._agree_to_stop()
        self.model.denoiser._compiled_call_impl = None
        self.save()
        if self.stop and self.main:
            tqdm.write(f"stopped at step {self.step} of {self.steps}: {self.stop}. Go on with --resume.")
        self.export()
        self.accelerator.wait_for_everyone()

    def measured(self, window: Window, now: float, flops: float) -> dict[str, Any]:
        """A line of the log: what the steps of a window did, and how fast."""
        steps = self.step - window.step
        rate = steps / (now - window.since)
        samples = self.options.batch_size * self.options.accumulate * self.accelerator.num_processes
        return {
            "step": self.step,
            "loss": float(window.loss) / steps,
            "lr": learning_rate(self.step - 1, self.steps, self.options),
            "grad_norm": float(window.norm),
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
        with self.ema.applied(self.model.denoiser), self._plain():
            try:
                samples = self.model.eval().sample(n, seed=0, progress=False, **self._shown(n))
                samples.plot(path)
                if domain.suffix != path.suffix:
                    samples.save(path.with_suffix(""))
            except NumericsError as error:
                tqdm.write(f"no preview at step {self.step}: {error}")
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
            self.stop = signal.Signals(number).name
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

    PartialState().destroy_process_group()

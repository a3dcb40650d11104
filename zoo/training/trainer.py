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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from zoo import files
from zoo.contract.domain import Batch, Dataset
from zoo.contract.recipe import Recipe, Training
from zoo.contract.registry import get_domain, get_recipe, load
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError, DataError, NumericsError
from zoo.model.model import Model
from zoo.training.batches import BATCHES, indices
from zoo.training.log import Log
from zoo.training.muon import Muon

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


class EMA:
    """Exponential moving average of a module's parameters, with the short memory at the start of Karras et al.'s code."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: p.detach().clone() for k, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """After optimizer step `step` (0-based)."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.shadow.values()), [p.detach() for p in module.parameters()], weight)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module with averaged weights inside the block."""
        own = {k: p.data for k, p in module.named_parameters()}
        for k, p in module.named_parameters():
            p.data = self.shadow[k]
        try:
            yield
        finally:
            for k, p in module.named_parameters():
                p.data = own[k]


class Trainer:
    """One training run in the folder `out`.

    Args:
        model: a fresh model; its denoiser is trained.
        dataset: training data of its domain.
        out: folder of the checkpoint, logs, previews and, at the end, the model itself.
        steps: length of the run; the learning rate falls to 0 at its end.
        cpu: stay on the CPU even where there is a GPU.
    """

    def __init__(self, model: Model, dataset: Dataset, out: Path, steps: int, seed: int, *, cpu: bool = False) -> None:
        try:
            from accelerate import Accelerator
        except ImportError:
            raise ConfigError('training needs accelerate: pip install "diffusion-zoo[train]".') from None
        self.model, self.dataset, self.out, self.steps, self.seed = model, dataset, out, steps, seed
        self.options, self.sizes = model.recipe.training, dataset.sizes()
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
        self.net, self.optimizer = self.accelerator.prepare(model.denoiser, self.optimizer)
        self.step, self.seconds, self.stop, self.init = 0, 0.0, "", ""

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
        generator = seeds.generator(self.seed, BATCHES, -1, position)
        return self.model.codec.batch([self.dataset[i] for i in rows], generator).to(self.device)

    def train_step(self) -> tuple[float, float]:
        """One optimizer step; returns (loss, gradient norm)."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.options)
        total, parts = 0.0, self.options.accumulate
        for part in range(parts):
            batch = self.batch(self.step, part)
            generator = seeds.generator(self.seed, NOISE, self.step, part, self.accelerator.process_index)
            last = part == parts - 1
            with nullcontext() if last else self.accelerator.no_sync(self.net):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    loss = self.model.loss(batch, generator=generator, denoiser=self.net) / parts
                self.accelerator.backward(loss)
            total += loss.item()
        norm = float(self.accelerator.clip_grad_norm_(self.net.parameters(), self.options.clip_norm))
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
            torch.autograd.grad(self.model.loss(batch, generator=seeds.generator(0)), parameters, allow_unused=True)
        return float(counter.get_total_flops() * self.options.accumulate * self.accelerator.num_processes)

    # ------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Checkpoint of everything that the next step depends on, in one atomic file."""
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
            raise CheckpointError(f"{path} is no training checkpoint of zoo.")
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
            self._optimizer().state[p] = {k: v if k == "step" else v.to(p.device) for k, v in entries.items()}
        self.step, self.seconds, self.init = facts["step"], facts["seconds"], facts.get("init", "")

    # ------------------------------------------------------------ the loop

    def run(
        self, *, max_minutes: float | None = None, log_every: int = 50, save_every: int = 500, preview_every: int = 2000
    ) -> None:
        """Train until `steps`, a signal, or the time is up; then leave a checkpoint and the model folder in `out`."""
        log = Log(self.out, self.step) if self.main else None
        flops, world = self.flops(), self.accelerator.num_processes
        size = self.options.batch_size * self.options.accumulate * world
        start, mark, marked, sums, norms = time.monotonic(), time.monotonic(), self.step, 0.0, 0.0
        before = self.seconds
        with self._signals(), tqdm(total=self.steps, initial=self.step, unit="step", disable=not self.main) as bar:
            while self.step < self.steps and not self.stop:
                loss, norm = self.train_step()
                sums, norms = sums + loss, max(norms, norm)
                now = time.monotonic()
                self.seconds = before + now - start
                bar.update()
                if self.step % log_every == 0 or self.step == self.steps:
                    rate = (self.step - marked) / (now - mark)
                    row = {
                        "step": self.step,
                        "loss": sums / (self.step - marked),
                        "lr": learning_rate(self.step - 1, self.steps, self.options),
                        "grad_norm": norms,
                        "samples_per_s": rate * size,
                        "gflop_per_s": rate * flops / 1e9,
                        "minutes": self.seconds / 60,
                    }
                    if log is not None:
                        log.write(row)
                    speed = f"{row['samples_per_s']:.0f} samples/s, {row['gflop_per_s']:.0f} GFLOP/s"
                    bar.set_postfix_str(f"loss {row['loss']:.4f}, {speed}")
                    mark, marked, sums, norms = now, self.step, 0.0, 0.0
                if self.step % save_every == 0:
                    self.save()
                if preview_every and self.step % preview_every == 0:
                    self.preview()
                if max_minutes is not None and now - start > 60 * max_minutes:
                    self.stop = f"{max_minutes:g} minutes are over"
                if world > 1:  # all processes must leave together
                    flag = torch.tensor(float(bool(self.stop)), device=self.device)
                    leave = bool(self.accelerator.reduce(flag, "max") > 0)  # asked by all, also by who knows the answer
                    self.stop = self.stop or ("another process stops" if leave else "")
        if log is not None:
            log.close()
        self.save()
        if self.stop and self.main:
            tqdm.write(f"stopped at step {self.step} of {self.steps}: {self.stop}. Go on with --resume.")
        self.export()
        self.accelerator.wait_for_everyone()

    def preview(self) -> None:
        """A few samples of the averaged weights, always from the same seed: a picture, and files where that is not all."""
        if not self.main:
            return
        with self.ema.applied(self.model.denoiser):
            recipe, rows = self.model.recipe, range(20)
            asked: dict[str, Any] = {k: [i % len(c.values) for i in rows] for k, c in recipe.labels.items()}
            real = [self.dataset[i % len(self.dataset)][1] for i in rows] if recipe.arrays else []
            asked |= {k: torch.stack([torch.as_tensor(cond[k]) for cond in real]) for k in recipe.arrays}
            path = self.out / "previews" / f"{self.step:07d}.png"
            try:
                samples = self.model.eval().sample(len(rows), seed=0, progress=False, **asked)
                samples.plot(path)
                if self.model.domain.suffix != path.suffix:
                    samples.save(path.with_suffix(""))
            except NumericsError as error:
                tqdm.write(f"no preview at step {self.step}: {error}")
        self.model.train()

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


def train(
    name: str,
    *,
    data: Dataset | str | Path,
    steps: int,
    out: str | Path,
    seed: int = 0,
    resume: bool = False,
    init: str | Path | None = None,
    cpu: bool = False,
    data_options: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    **loop: Any,
) -> Model:
    """Train a recipe on data and return the model with averaged weights.

    Args:
        name: a registry name, e.g. "image/fashion-ddpm".
        data: a dataset, or what the domain's `dataset` takes: a file or a folder.
        steps: optimizer steps.
        out: folder of checkpoint, logs, previews and the finished model; must be empty unless `resume`.
        init: a model (name or folder) of the same net and codec, whose weights the run starts from.
        overrides: dotted recipe paths, e.g. {"training.lr": 2e-4}.
        **loop: max_minutes, log_every, save_every, preview_every.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"steps={steps!r}: give a whole number of at least 1.")
    recipe = get_recipe(name).override(overrides or {})
    domain = get_domain(recipe.domain)
    options = domain.data_options(recipe) | dict(data_options or {})
    dataset = data if isinstance(data, Dataset) else domain.dataset(data, "train", **options)
    if len(dataset) == 0:
        raise DataError("the dataset is empty.")
    recipe = dataset.attributed(domain.adapt(recipe, dataset))
    out = Path(out)
    has = (out / CHECKPOINT).exists()
    if has and not resume:
        raise CheckpointError(f"{out} already holds a run. Go on with resume=True (--resume), or give another folder.")
    torch.manual_seed(seeds.derive_seed(seed, WEIGHTS))
    model = domain.model(recipe).train()
    if init is not None:
        files.load_strict(model, load(str(init)).state_dict(), Path(init))
    with files.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(model, dataset, out, steps, seed, cpu=cpu)
    trainer.init = str(init or "")
    if has:
        trainer.resume()
    else:
        if init is None:
            model.codec.fit(dataset)
        trainer.save()
    trainer.run(**loop)
    with torch.no_grad():
        for k, p in model.denoiser.named_parameters():
            p.copy_(trainer.ema.shadow[k])
    return model.eval()

"""What is measured, said, shown and saved while a run goes on, and when. Nothing of it changes what is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.training import budget, curve, report
from zoo.training.heldout import HeldOut
from zoo.training.log import Log

#: what of a new plan is said: a change by more than this share of the steps
TELLING = 0.1
#: seconds between lines of the log, at most
LINES = 15.0
#: seconds between two looks at the held-out data, at least; and what share of the time they take, at most
HELD_OUT, HELD_OUT_SHARE = 15.0, 0.02
#: samples of a preview: the most, and fewer where they take more than so many seconds, or this share of a budget or the run
MOST_SHOWN, SHOWN_SECONDS, SHOWN_SHARE = 20, 15.0, 0.04


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


@dataclass(frozen=True)
class Due:
    """What is to be done after a step, where it is not the last.

    Attributes:
        line, held_out: a line of the log, and the loss on held-out data in it.
        save: a checkpoint, by the number of steps; save_by_time: by the clock.
        preview: how many samples are to be seen.
    """

    line: bool = False
    held_out: bool = False
    save: bool = False
    save_by_time: bool = False
    preview: int = 0

    def numbers(self) -> list[int]:
        """All of it as numbers, for `of`."""
        return [int(n) for n in astuple(self)]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Due:
        """The inverse of `numbers`."""
        line, held_out, save, save_by_time, preview = numbers
        return cls(bool(line), bool(held_out), bool(save), bool(save_by_time), preview)


class Watch:
    """The watch over a run.

    Args:
        run: the `zoo.training.trainer.Trainer` that it is over.
        log_every, save_every, preview_every: see `Trainer.run`.
        held: held-out data, if there are any.
        flops: floating point operations of a step.
        slow_start: see `zoo.training.budget.Budget`.
    """

    def __init__(
        self,
        run: Any,
        log_every: int,
        save_every: int,
        preview_every: int | None,
        held: HeldOut | None,
        flops: float,
        slow_start: bool = False,
    ) -> None:
        self.run, self.clock, self.held, self.flops = run, run.clock, held, flops
        self.log_every, self.save_every, self.preview_every = log_every, save_every, preview_every
        self.seconds = None if run.minutes is None else 60 * run.minutes
        whole = math.inf if self.seconds is None else self.seconds
        self.budget = budget.Budget(whole, self.clock, run.options.decay, self.rest, slow_start)
        self.previews, self.saves = budget.preview_times(self.seconds), budget.save_times(self.seconds)
        self.previews.done(self.clock.before)
        self.saves.done(self.clock.before)
        self.drawn = False  # a preview of this session
        self.told = False  # how fast the machine is
        self.said = 0  # how many steps the run has
        self.next_held_out = 0.0
        self.samples = run.options.batch_size * run.options.accumulate * run.accelerator.num_processes
        self.log: Log | None = None
        self.bar: Any = None

    # ------------------------------------------------------------ before

    def introduce(self, held_out: int) -> None:
        """Say what the data and the model are."""
        run = self.run
        if not run.main:
            return
        recipe, codec = run.model.recipe, run.model.codec
        axes: Any = dict(zip(codec.axes, codec.shape, strict=True)) if len(codec.axes) == len(codec.shape) else codec.shape
        run.note(report.of_data(run.dataset, run.model.domain, held_out))
        name = f"{recipe.domain}/{recipe.name}"
        run.note(report.of_model(name, run.model.denoiser, recipe.denoiser, axes, self.flops, self.samples))

    def columns(self) -> tuple[str, ...]:
        """Of the log."""
        found = ("step", "loss", *(["held_out_loss"] if self.held is not None else []), "lr", "grad_norm")
        return (*found, "samples_per_s", "gflop_per_s", "minutes")

    def begin(self, log: Log | None, bar: Any) -> None:
        """The first step comes now."""
        self.log, self.bar = log, bar
        self.window = Window(self.clock.now(), self.run.step)
        self.budget.ready(self.run.step)

    # ------------------------------------------------------------ after each step

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """What a step was like."""
        self.window.add(loss, norm)

    def look(self) -> budget.Plan | None:
        """A new plan of the run, where its time asks for one."""
        run = self.run
        if self.seconds is not None:
            return self.budget.look(run.step, run.plans) if run.main else None
        if not self.told and self.budget.ready(run.step):
            self.tell()
        return None

    def planned(self) -> None:
        """There is a new plan, which is in a checkpoint before anything follows from it."""
        run = self.run
        run.save()
        self.bar.total = run.steps
        self.bar.refresh()
        if not self.told:
            self.tell()
        elif run.steps is not None and abs(run.steps - self.said) > TELLING * self.said:
            before, steps, self.said = self.said, run.steps, run.steps
            why = "slower" if steps < before else "faster"
            run.note(f"plan: {steps:,} steps instead of {before:,}, since the machine is {why} than thought.")

    def tell(self) -> None:
        """Say how fast the machine is, and what is planned."""
        run, self.told = self.run, True
        if run.steps is None:
            return
        self.said = run.steps
        begins = budget.begin_of_fall(run.step, run.plans, run.options.decay)
        seconds, rows = self.clock.seconds, len(run.dataset)
        run.note(report.of_plan(run.step, run.steps, self.budget.each(), self.samples, rows, seconds, run.minutes, begins))

    def due(self) -> Due:
        """What is due after a step, by this process's clock."""
        step, seconds = self.run.step, self.clock.seconds
        line = self.log_every and (step % self.log_every == 0 or self.clock.now() - self.window.since > LINES)
        timed = self.preview_every is None and self.previews.due(seconds)
        counted = bool(self.preview_every) and step % (self.preview_every or 1) == 0
        save = self.save_every and step % self.save_every == 0
        return Due(
            line=bool(line),
            held_out=self.held is not None and seconds >= self.next_held_out,
            save=bool(save),
            save_by_time=bool(self.save_every and not save and (self.saves.due(seconds) or timed)),
            preview=self.shown() if timed or counted else 0,
        )

    def after_step(self, due: Due) -> None:
        """What is due after a step, as all processes know it: a line of the log, a checkpoint, a preview."""
        run, last = self.run, self.run.step == self.run.steps
        if due.line or last:
            self.line(due.held_out or last)
        seconds = self.clock.seconds
        if (due.save or due.save_by_time) and not last:
            run.save()
            if due.save_by_time:
                self.saves.done(seconds)
                self.curve()
        if due.preview and not (last and self.preview_every is None):
            self.preview(due.preview)
            self.previews.done(seconds)

    def end(self) -> None:
        """After the last step: what was learnt, as pictures."""
        if self.preview_every is None and (self.drawn or self.seconds is not None):
            stopped, n = self.run.agreed(int(bool(self.run.signal)), self.shown() if self.run.main else 0)
            if not stopped:
                self.preview(n)
        self.curve()

    # ------------------------------------------------------------ what is done

    def line(self, held_out: bool) -> None:
        """A line of the log, and the loss on held-out data where it is time for it."""
        run = self.run
        run.check_finite()
        now = self.clock.now()  # the device has done the steps by now, not only been told to do them
        row = self.measured(now)
        if self.held is not None:
            row["held_out_loss"] = ""
            if held_out:
                with self.clock.doing("held_out"), run.evaluated():
                    row["held_out_loss"] = self.held.loss(run.model, run.objective, run.device, run.precision == "bf16")
                self.next_held_out = self.clock.seconds + self.held_out_pause()
        if self.log is not None:
            run.keep_place()
            self.log.write({k: row[k] for k in self.columns()})
        speed = f"{row['samples_per_s']:.0f} samples/s, {row['gflop_per_s']:.0f} GFLOP/s"
        self.bar.set_postfix_str(f"loss {row['loss']:.4f}, {speed}")
        self.window = Window(self.clock.now(), run.step)

    def measured(self, now: float) -> dict[str, Any]:
        """A line of the log: what the steps of a window did, and how fast."""
        run, window = self.run, self.window
        steps = run.step - window.step
        rate = steps / (now - window.since)
        return {
            "step": run.step,
            "loss": float(window.loss) / steps,
            "lr": run.pace * budget.learning_rate(run.step - 1, run.plans, run.options),
            "grad_norm": float(window.norm),
            "samples_per_s": rate * self.samples,
            "gflop_per_s": rate * self.flops / 1e9,
            "minutes": self.clock.seconds / 60,
        }

    def curve(self) -> None:
        """The loss curve as a picture."""
        if self.run.main and self.log_every:
            with self.clock.doing("curve"):
                self.run.keep_place()
                curve.draw(self.run.out)

    def preview(self, n: int) -> None:
        """n samples."""
        with self.clock.doing("preview"):
            self.run.preview(n)
        self.clock.cost["sample"] = self.clock.cost["preview"] / n
        self.drawn = True

    # ------------------------------------------------------------ what it costs

    def shown(self) -> int:
        """How many samples a preview has: where it comes by time, as many as can be made in a time that fits the run."""
        if self.preview_every is not None:
            return MOST_SHOWN
        patience = SHOWN_SECONDS
        if self.seconds is not None:
            patience = min(patience, SHOWN_SHARE * self.seconds)
        patience = max(patience, SHOWN_SHARE * self.clock.seconds)
        return max(1, min(MOST_SHOWN, int(patience / max(self.sample_cost(), 1e-9))))

    def sample_cost(self) -> float:
        """Seconds of one sample of a preview: measured, or thought of a step's, which is three forward passes."""
        if "sample" in self.clock.cost:
            return self.clock.cost["sample"]
        if self.run.model.is_first_stage:
            return self.budget.each() / self.samples
        sampling = self.run.model.recipe.sampling
        passes = sampling.steps * (2 if sampling.guidance_weight else 1) * (2 if sampling.sampler == "heun" else 1)
        return self.budget.each() / self.samples * passes / 3

    def held_out_pause(self) -> float:
        """Seconds until the next look at the held-out data."""
        usual = HELD_OUT if self.seconds is None else min(HELD_OUT, self.seconds / 20)
        return max(usual, self.clock.cost.get("held_out", 0.0) / HELD_OUT_SHARE)

    def rest(self) -> float:
        """Seconds that everything but the steps still takes until the end of a run that has a budget, the end included."""
        run, cost, seconds, whole = self.run, self.clock.cost, self.clock.seconds, self.seconds or 0.0
        save, curve, held = cost.get("save", 0.1), cost.get("curve", 0.5), cost.get("held_out", 0.0)
        preview = self.sample_cost() * self.shown()
        steps = (run.steps or run.step) - run.step
        found = 3 * save + curve + held + cost.get("export", 1.0)  # the end
        if self.save_every:
            found += self.saves.until(whole) * (save + curve) + steps // self.save_every * save
        if self.preview_every is None:
            found += (self.previews.until(whole) + 1) * (preview + save)
        elif self.preview_every:
            found += steps // self.preview_every * preview
        if self.held is not None:
            found += max(whole - seconds, 0.0) / self.held_out_pause() * held
        return found

"""What the page does, without the page: models and runs whose steps are kept, and their limits in time and memory."""

from __future__ import annotations

import io
import pprint
import secrets
import tempfile
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.contract.domain import Held
from zoo.contract.page import View
from zoo.contract.samples import Samples
from zoo.core import seeds
from zoo.core.inpaint import Method
from zoo.errors import ConfigError, DataError, ResourceError, one_of
from zoo.model.loading import load
from zoo.model.model import Model
from zoo.model.plan import Chunk, Plan

#: models that are kept in memory, and steps that are kept of a run
MODELS, KEPT = 4, 60
#: bytes of all runs together; the oldest go first
BYTES = 256 * 1024 * 1024
#: samples and steps of a run
MOST_SAMPLES, MOST_STEPS = 16, 1000


@dataclass(frozen=True)
class Limits:
    """What one person may take of a machine that several share.

    Attributes:
        seconds: of one run.
        upload: bytes of a file.
        queue: how many wait.
    """

    seconds: float = 120.0
    upload: int = 16 * 1024 * 1024
    queue: int = 32


@dataclass(frozen=True)
class Source:
    """An object to work on, and the file that it was read from, which others can read again.

    Attributes:
        suffix: of the file. contents: of it, or where it lies.
    """

    item: Any
    suffix: str
    contents: bytes | Path

    def read(self) -> bytes:
        """The file's contents."""
        return self.contents if isinstance(self.contents, bytes) else self.contents.read_bytes()


@dataclass
class Run:
    """One run whose steps can be gone through.

    Attributes:
        model, plan, chunk: what was sampled.
        asked: arguments of `Model.sample` but for the settings that the plan has.
        states: (step number from 1, log-SNR, x, x0) of steps, encoded; at most `KEPT` of them, the last one always.
        held, method: the known parts of in-painting, and how they are held.
        files: what the lines of `code` read, {name: contents}.
    """

    model: Model
    name: str
    plan: Plan
    chunk: Chunk
    asked: Mapping[str, Any]
    states: list[tuple[int, float, Tensor, Tensor]] = field(default_factory=list)
    samples: Samples | None = None
    code: str = ""
    held: Held | None = None
    method: Method | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many steps are made."""
        return (self.method or Method()).steps(self.plan.steps)

    @property
    def finished(self) -> Samples:
        """Its samples; a ConfigError before there are any."""
        if self.samples is None:
            raise ConfigError("the sampler made no step.")
        return self.samples

    @property
    def size(self) -> int:
        """Bytes of the states."""
        return sum(t.numel() * t.element_size() for _, _, *pair in self.states for t in pair)

    def shown(self, x: Tensor) -> Samples:
        """Encoded values of the run's samples as objects."""
        items = self.model.decoded(x.float(), self.chunk)
        return Samples.of(items, domain=self.model.domain, conditions=self.plan.names)

    def views(self, at: int) -> tuple[tuple[View, ...], tuple[View, ...]]:
        """x_t and the belief in x0 at a kept state, as views of the domain."""
        _, _, x, x0 = self.states[at]
        return self.model.domain.view(self.shown(x)), self.model.domain.view(self.shown(x0))

    def at(self, share: float) -> int:
        """The kept state at a share 0..1 of the run."""
        return round(min(max(share, 0.0), 1.0) * (len(self.states) - 1))


class Engine:
    """Models and runs of a page.

    Args:
        names: models that can be chosen: names, folders, hub: names. Folders are never taken from a request.
        hub: whether a request may name a hub: repository that is not among them.
    """

    def __init__(self, names: Sequence[str], limits: Limits | None = None, *, hub: bool = False, bytes_: int = BYTES) -> None:
        self.names, self.limits, self.hub, self.bytes = list(names), limits or Limits(), hub, bytes_
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._examples: OrderedDict[str, Source] = OrderedDict()
        self._lock = threading.RLock()
        self._ended, self._busy = threading.Event(), 0

    def model(self, name: Any) -> Model:
        """A model that can be chosen, from memory where it is there.

        Raises:
            ConfigError: the name of none: a request opens no path.
        """
        if not isinstance(name, str) or (name not in self.names and not (self.hub and name.startswith("hub:"))):
            extra = " A folder is given when the page is started: zoo demo --models ./folder." if isinstance(name, str) else ""
            error = one_of("model of this page", name, self.names)
            raise ConfigError(f"{error}{extra}")
        with self._lock:
            found = self._models.get(name)
            if found is None:
                found = load(name)
                if found.is_first_stage:
                    raise ConfigError(f"{name} is a first stage: nothing is sampled from it.")
            self._models[name] = found
            self._models.move_to_end(name)
            while len(self._models) > MODELS:
                self._models.popitem(last=False)
            return found

    # ---------------------------------------------------------------- runs

    def keep(self, run: Run) -> str:
        """Keep a run; returns its key. The oldest are forgotten where all together are too large."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._runs[key] = run
            while len(self._runs) > 1 and sum(r.size for r in self._runs.values()) > self.bytes:
                self._runs.popitem(last=False)
        return key

    def run(self, key: Any) -> Run:
        """A kept run.

        Raises:
            ConfigError: one that was forgotten.
        """
        with self._lock:
            if not isinstance(key, str) or key not in self._runs:
                raise ConfigError("the steps of this run are not kept any more. Start it again.")
            self._runs.move_to_end(key)
            return self._runs[key]

    def clock(self) -> Callable[[], None]:
        """A function that raises a ResourceError once the time of a run is over."""
        end = time.monotonic() + self.limits.seconds

        def check() -> None:
            if self._ended.is_set():
                raise ResourceError("stopped: the page was closed.")
            if time.monotonic() > end:
                raise ResourceError(
                    f"stopped: it took longer than {self.limits.seconds:g} s, the limit of this page. Take fewer steps or "
                    "samples."
                )

        return check

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended.is_set()

    def end(self, seconds: float = 5.0) -> None:
        """Stop all runs, and wait for them: Python aborts where it ends while another thread is inside of torch."""
        self._ended.set()
        until = time.monotonic() + seconds
        while self._busy and time.monotonic() < until:
            time.sleep(0.02)

    @contextmanager
    def working(self) -> Iterator[None]:
        """While work is done for which `end` waits."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    def start(self, name: str, n: int, asked: Mapping[str, Any], settings: Mapping[str, Any]) -> Run:
        """A run that is planned: every argument checked.

        Args:
            asked: the model's conditions and size. settings: seed, sampler, steps, guidance_weight and so on; None is left out.
        """
        model = self.model(name)
        check_count(n, settings.get("steps"))
        given = {k: v for k, v in settings.items() if v is not None}
        plan = model.plan(n, **asked, **given)
        run = Run(model, name, plan, plan.chunk(range(n)), asked)
        run.code = code(name, n, asked, plan)
        return run

    def steps(self, run: Run) -> Iterator[int]:
        """Make the run's steps; yields after each how many there are, and in the end has its samples.

        Raises:
            ResourceError: it took too long.
        """
        check, every = self.clock(), -(-run.total // KEPT)
        held = None if run.held is None else run.held.steer
        for i, step in enumerate(run.model.run(run.plan, run.chunk, held=held, method=run.method), 1):
            check()
            last = i == run.total
            if i % every == 0 or i == 1 or last:
                snr = 2 * float(step.level.lam)
                run.states.append((i, snr, step.x.detach().cpu(), step.x0.detach().cpu()))
            if last:
                items = run.model.finished(step.x, run.chunk, held=run.held)
                run.samples = Samples.of(items, domain=run.model.domain, conditions=run.plan.names, plan=run.plan)
            yield i

    # ---------------------------------------------------------------- the other way

    def source(self, name: str, path: Any = None) -> Source:
        """An object to work on: that of a file, or, for those who bring none, one that the model itself made, always the same.

        Raises:
            ConfigError: a model that is not trained makes what is not read as an object of its domain.
        """
        model = self.model(name)
        if path:
            return Source(model.domain.read(path, model.recipe), Path(path).suffix.lower(), Path(path))
        with self._lock:
            found = self._examples.get(name)
        if found is None:
            asked = model.domain.situation(model, 0)
            run = self.start(name, 1, asked, {"seed": 0})
            for _ in self.steps(run):
                pass
            with tempfile.TemporaryDirectory(prefix="zoo-example-") as folder:
                file = run.finished[0].save(Path(folder) / f"example{model.domain.suffix}")
                try:
                    found = Source(model.domain.read(file, model.recipe), model.domain.suffix, file.read_bytes())
                except DataError:
                    raise ConfigError(
                        f"what {name} makes for an example is not read as an object of its domain. Is it trained? Else give a "
                        "file of your own."
                    ) from None
        with self._lock:
            self._examples[name] = found
            while len(self._examples) > MODELS:
                self._examples.popitem(last=False)
        return found

    def noised(self, name: str, item: Any, share: float, seed: int) -> tuple[Samples, float, list[float]]:
        """An object with noise at a share 0 (clean) .. 1 (all noise) of the schedule.

        Returns:
            it as samples, the log-SNR there, and that of a hundred places of the schedule from noise to clean.
        """
        model = self.model(name)
        x0 = model.encoded(item)[None]
        schedule = model.diffusion.schedule
        levels = schedule.levels(min(100, schedule.max_steps))
        curve = [2 * float(level.lam) for level in levels if level.sigma]
        place = round((1 - min(max(float(share), 0.0), 1.0)) * (len(levels) - 1))
        level = levels[place]
        sizes = None if model.codec.size_name is None else [model.codec.size_of(x0[0])]
        rng = seeds.SampleRng(seeds.check_seed(seed), [0], sizes, model.codec.size_axis if sizes else 0)
        eps = model.codec.project(rng.normal(x0))
        x = model.diffusion.q_sample(x0, level, eps)
        items = model.decoded(x, Chunk({}, rng, sizes))
        snr = 2 * float(level.lam)
        return Samples.of(items, domain=model.domain), snr, curve

    def edit(
        self,
        name: str,
        source: Source,
        answers: Mapping[str, Any],
        asked: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> Run:
        """A run of in-painting that is planned, as `model.inpaint` does it.

        Args:
            source: of the object. answers: those to the domain's `edits`.
            asked, settings: see `start`.
        """
        model = self.model(name)
        check_count(1, settings.get("steps"))
        wanted = model.domain.edited(model, source.item, answers)
        given = {**asked, **{k: v for k, v in settings.items() if v is not None}}
        plan, held, method = model.inpaint_plan(**wanted, **given)
        run = Run(model, name, plan, plan.chunk(range(1)), asked, held=held, method=method)
        arrays = {f"{k}.npy": np.asarray(v) for k, v in answers.items() if isinstance(v, np.ndarray)}
        file = f"given{source.suffix}"
        run.files = {file: source.read()} | {k: as_npy(v) for k, v in arrays.items()}
        run.code = edit_code(name, file, answers, asked, plan)
        return run


def check_count(n: Any, steps: Any) -> None:
    """Refuse more than a page makes."""
    if not isinstance(n, int) or not 1 <= n <= MOST_SAMPLES:
        raise ConfigError(f"samples: {n!r}; give 1 to {MOST_SAMPLES}.")
    if steps is not None and not 1 <= steps <= MOST_STEPS:
        raise ConfigError(f"steps: {steps!r}; give 1 to {MOST_STEPS}.")


def code(name: str, n: int, asked: Mapping[str, Any], plan: Plan) -> str:
    """The Python lines that make exactly the samples of a plan."""
    lines = ["import zoo", "", f"model = zoo.load({name!r})", "samples = model.sample(", f"    {n},", *_arguments(asked, plan)]
    return "\n".join([*lines, ")", 'samples.save("out")'])


def edit_code(name: str, file: str, answers: Mapping[str, Any], asked: Mapping[str, Any], plan: Plan) -> str:
    """The Python lines that make exactly the sample of an edit, beside the files that they read."""
    arrays = [k for k, v in answers.items() if isinstance(v, np.ndarray)]
    told = [f"    {k!r}: " + (f'np.load("{k}.npy")' if k in arrays else repr(v)) + "," for k, v in answers.items()]
    lines = [
        *(["import numpy as np"] if arrays else []),
        "import zoo",
        "",
        f"model = zoo.load({name!r})",
        f"item = model.domain.read({file!r}, model.recipe)",
        "answers = {",
        *told,
        "}",
        "samples = model.inpaint(",
        "    **model.domain.edited(model, item, answers),",
        *_arguments(asked, plan),
    ]
    return "\n".join([*lines, ")", 'samples.save("out")'])


def _arguments(asked: Mapping[str, Any], plan: Plan) -> list[str]:
    """Lines of a call with the conditions, the seed and all settings of a plan."""
    settings = {k: v for k, v in plan.settings().items() if k != "shard"}
    given = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in asked.items()}
    arguments = {**given, "seed": plan.seed, **settings}
    return [f"    {k}={pprint.pformat(v, width=110, compact=True, indent=1)}," for k, v in arguments.items()]


def as_npy(array: NDArray[Any]) -> bytes:
    """An array as the contents of a .npy file."""
    memory = io.BytesIO()
    np.save(memory, array, allow_pickle=False)
    return memory.getvalue()


def export(run: Run, folder: Path) -> Path:
    """A run's samples in the file format of their domain: one file; or a zip of several, and of what its lines read.

    Args:
        folder: an empty one.

    Raises:
        ConfigError: a run that is not finished.
    """
    run.finished.save(folder)
    files = sorted(folder.iterdir())  # a domain may write files beside its samples, such as a map of a motif
    if len(files) == 1 and not run.files:
        return files[0]
    path = folder / "samples.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for file in files:
            packed.write(file, file.name)
        if run.files:
            packed.writestr("again.py", run.code)
        for name, contents in run.files.items():
            packed.writestr(name, contents)
    return path


def in_words(snr: float) -> str:
    """A log-SNR in words."""
    return "clean" if snr == float("inf") else "no signal" if snr == float("-inf") else f"{snr:.2f}"

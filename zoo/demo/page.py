"""The page: a tab for each domain, made of what the domain says of itself."""

from __future__ import annotations

import functools
import html
import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from zoo.contract.domain import Domain
from zoo.contract.page import Film, Gallery, Picture, Question
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain
from zoo.core.samplers import SAMPLERS
from zoo.demo import board as boards
from zoo.demo import parts
from zoo.demo.engine import MOST_SAMPLES, MOST_STEPS, Engine, Run, export, in_words
from zoo.errors import ConfigError, ZooError, one_of
from zoo.model.loading import info
from zoo.model.model import Model

log = logging.getLogger(__name__)
#: conditions that a tab can ask, of choices and of texts; a model's further ones are left to the model
CHOICES, TEXTS = 3, 2
#: what a choice shows where nothing is asked for
FREE = "(any)"
#: seconds between two pictures of a run, at least
REFRESH = 0.3
#: what nobody's browser keeps from looking elsewhere: no font of another machine
FONTS = ["system-ui", "sans-serif"]
#: a label is above what it names, where gradio lays it over the first lines of a picture; and a picture alone is shown whole
STYLE = """
label.float { position: static; display: inline-flex; width: max-content; }
label.float + .image-container, label.float + .gallery-container { height: calc(100% - 26px); }
.gallery-container .grid-wrap { height: 100% !important; overflow: auto; }
.gallery-container .thumbnail-item { max-height: 290px; }
"""
TITLE = "zoo: diffusion models, step by step"


def told(work: Callable[..., Any], during: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Callable[..., Any]:
    """A handler whose errors are our text in the page, and never end it. Names of temporary folders are left out.

    Args:
        during: what it works in; not while it waits between two pictures.
    """
    g = parts.gr()

    def error(found: Exception) -> Exception:
        if isinstance(found, ZooError):
            text = str(found)
        elif isinstance(found, g.Error):
            return found
        else:
            log.exception("the page failed")
            text = f"the page failed ({type(found).__name__}). What it did is in the log of the process."
        own = parts.own_folder()
        if own:
            text = " ".join(Path(word).name if own in word else word for word in text.split(" "))
        return g.Error(html.escape(text), duration=None, title="zoo", print_exception=False)

    if inspect.isgeneratorfunction(work):

        @functools.wraps(work)
        def steps(*given: Any) -> Iterator[Any]:
            try:
                made = work(*given)
                while True:
                    with during():
                        try:
                            shown = next(made)
                        except StopIteration:
                            return
                    yield shown
            except Exception as found:
                raise error(found) from None

        return steps

    @functools.wraps(work)
    def once(*given: Any) -> Any:
        try:
            with during():
                return work(*given)
        except Exception as found:
            raise error(found) from None

    return once


def no_addresses(blocks: Any) -> None:
    """Let no part of a page take an address in place of a file: gradio would fetch it, from this machine."""
    g = parts.gr()

    def guarded(move: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def moved(path: Any) -> Any:
            if isinstance(path, str) and "://" in path:
                raise g.Error("give a file, not an address: nothing is fetched.", print_exception=False)
            return await move(path)

        return moved

    for block in blocks.blocks.values():
        if hasattr(block, "async_move_resource_to_block_cache"):
            block.async_move_resource_to_block_cache = guarded(block.async_move_resource_to_block_cache)


class Tab:
    """One domain's part of the page.

    Args:
        engine: what does the work. domain: whose tab it is. names: its models, the first one chosen at the start.
    """

    def __init__(self, engine: Engine, domain: Domain, names: Sequence[str]) -> None:
        self.engine, self.domain, self.names = engine, domain, list(names)
        self.g = parts.gr()
        self.told = functools.partial(told, during=engine.working)
        self.recipe = info(self.names[0]).recipe
        self.id = domain.name
        self.edit_ids = f"{self.id}-edit-"
        self.busy: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
        self.build()

    # ---------------------------------------------------------------- conditions

    def slots(self, recipe: Recipe) -> tuple[list[tuple[str, Question]], list[tuple[str, Question]]]:
        """The conditions of a recipe that are asked as choices, and as texts."""
        asked = [(name, c.question()) for name, c in recipe.conditions.items()]
        choices = [(k, q) for k, q in asked if q.kind == "choice"][:CHOICES]
        own = set(self.domain.situation_names)
        texts = [(k, q) for k, q in asked if q.kind == "text" and k not in own][:TEXTS]
        return choices, texts

    def own(self, name: Any) -> Model:
        """A model of this tab's domain.

        Raises:
            ConfigError: one of another domain, or none of the page.
        """
        model = self.engine.model(name)
        if model.domain.name != self.domain.name:
            raise ConfigError(f"{name} is a model of the domain {model.domain.name}, see that tab.")
        return model

    def chosen(self, name: Any) -> list[Any]:
        """What the fields become when a model is chosen."""
        g, model = self.g, self.own(name)
        recipe = model.recipe
        choices, texts = self.slots(recipe)
        found: list[Any] = []
        for i in range(CHOICES):
            if i < len(choices):
                key, q = choices[i]
                found.append(g.Dropdown(choices=[FREE, *q.choices], value=FREE, label=_title(key), visible=True))
            else:
                found.append(g.Dropdown(visible=False))
        for i in range(TEXTS):
            if i < len(texts):
                key, q = texts[i]
                found.append(g.Textbox(label=_title(key), placeholder=next(iter(q.choices), ""), visible=True))
            else:
                found.append(g.Textbox(visible=False))
        sampling = recipe.sampling
        found += [g.Number(visible=model.codec.size_name is not None, label=_size(model.codec.size_name))]
        found += 2 * [sampling.sampler, sampling.steps, _weight(recipe)]
        asked = model.domain.edits(recipe)
        for key, known in self.asked.items():
            ask = asked.get(key)
            if ask is None or known.kind != "number":
                found.append(g.update(visible=ask is not None))
            else:
                found.append(g.Number(value=ask.value, minimum=ask.low, maximum=ask.high, visible=True))
        if self.boards is not None:
            shown = model.domain.board(recipe)
            found.append(g.HTML(boards.drawing(shown, self.edit_ids), visible=shown is not None))
        return [*found, html.escape(recipe.description)]

    def answered(self, recipe: Recipe, given: Sequence[Any]) -> dict[str, Any]:
        """What a model asks before an edit, as the page's fields say it; what no field asks is as at the start.

        Raises:
            ConfigError: no number, or one out of its range.
        """
        there = dict(zip(self.asked, given, strict=True))
        found: dict[str, Any] = {}
        for key, q in self.domain.edits(recipe).items():
            value = parts.answer(q, there.get(key, q.value))
            if q.kind == "number":
                value = _number(value, q.label or key)
                if not q.low <= value <= q.high:
                    raise ConfigError(f"{q.label or key}: {value:g}; give {q.low:g} to {q.high:g}.")
            found[key] = value
        return found

    def asked_for(self, name: str, seed: int, given: Sequence[Any]) -> dict[str, Any]:
        """The model's conditions and size as the fields say them."""
        model = self.own(name)
        choices, texts = self.slots(model.recipe)
        found: dict[str, Any] = self.domain.situation(model, seed)
        for (key, q), v in zip(choices, given[:CHOICES], strict=False):
            if v not in (None, "", FREE):
                if v not in q.choices:
                    raise one_of(key, v, q.choices)
                found[key] = v
        for (key, _), v in zip(texts, given[CHOICES : CHOICES + TEXTS], strict=False):
            if v:
                found[key] = model.recipe.conditions[key].parse(str(v)[:10_000])
        size = given[CHOICES + TEXTS]
        if size and model.codec.size_name is not None:
            found[model.codec.size_name] = _whole(size, model.codec.size_name)
        return found

    # ---------------------------------------------------------------- the page

    def build(self) -> None:
        """The tab's fields and what they do."""
        g, d = self.g, self.domain
        with g.Row():
            free = {"allow_custom_value": True} if self.engine.hub else {}
            self.model = g.Dropdown(self.names, value=self.names[0], label="Model", elem_id=f"{self.id}-model", **free)
            self.seed = g.Number(0, label="Seed", precision=0, minimum=0, elem_id=f"{self.id}-seed")
            self.n = g.Number(
                d.shown,
                label="Samples",
                precision=0,
                minimum=1,
                maximum=MOST_SAMPLES,
                visible=d.shown > 1,
                elem_id=f"{self.id}-n",
            )
        self.about = g.Markdown(html.escape(self.recipe.description), elem_id=f"{self.id}-about")
        choices, texts = self.slots(self.recipe)
        self.fields = []
        with g.Row():
            for i in range(CHOICES):
                key, q = choices[i] if i < len(choices) else ("", Question("choice"))
                field = g.Dropdown(
                    [FREE, *q.choices], value=FREE, label=_title(key), visible=i < len(choices), elem_id=f"{self.id}-choice{i}"
                )
                self.fields.append(field)
            for i in range(TEXTS):
                key, q = texts[i] if i < len(texts) else ("", Question("text"))
                hint = next(iter(q.choices), "")
                self.fields.append(
                    g.Textbox(label=_title(key), placeholder=hint, visible=i < len(texts), elem_id=f"{self.id}-text{i}")
                )
            size = d.codec(self.recipe.codec).size_name
            self.fields.append(g.Number(label=_size(size), precision=0, visible=size is not None, elem_id=f"{self.id}-size"))
        # of all models of the tab: what the chosen one does not ask is hidden
        self.asked = {}
        for name in self.names:
            for key, q in d.edits(info(name).recipe).items():
                self.asked.setdefault(key, q)
        self.plays = type(d).played is not Domain.played
        with g.Tabs():
            with g.Tab("Reverse", id=f"{self.id}-reverse"):
                self.reverse()
            with g.Tab("Forward", id=f"{self.id}-forward"):
                self.forward()
            if self.asked:
                with g.Tab("Play" if self.plays else "Edit", id=f"{self.id}-edit"):
                    self.edit()
            with g.Tab("Guidance", id=f"{self.id}-guidance"):
                self.guidance()
        board = [] if self.boards is None else [self.boards]
        outputs = [*self.fields, *self.settings[0], *self.settings[1], *self.answers, *board, self.about]
        self.model.change(self.told(self.chosen), self.model, outputs, api_name=f"{self.id}_model", show_progress="hidden")

    answers: Sequence[Any] = ()
    boards: Any = None
    asked: Mapping[str, Question] = {}
    plays = False

    def how(self, which: str) -> list[Any]:
        """Fields of sampler, steps and guidance weight."""
        g, sampling = self.g, self.recipe.sampling
        with g.Row():
            sampler = g.Dropdown(list(SAMPLERS), value=sampling.sampler, label="Sampler", elem_id=f"{self.id}-sampler{which}")
            steps = g.Number(
                sampling.steps, label="Steps", precision=0, minimum=1, maximum=MOST_STEPS, elem_id=f"{self.id}-steps{which}"
            )
            weight = g.Number(_weight(self.recipe), label="Guidance weight", step=0.1, elem_id=f"{self.id}-weight{which}")
        return [sampler, steps, weight]

    def reverse(self) -> None:
        """The sample forms step by step."""
        g = self.g
        self.settings = [self.how("")]
        both = g.Checkbox(False, label="Compare with other settings, same seed", elem_id=f"{self.id}-compare")
        with g.Group(visible=False) as second:
            self.settings.append(self.how("2"))
        with g.Row():
            go = g.Button("Sample", variant="primary", elem_id=f"{self.id}-go")
            stop = g.Button("Cancel", elem_id=f"{self.id}-stop")
        said = g.Markdown("", elem_id=f"{self.id}-said")
        slider = g.Slider(0, 1, 1, step=1, label="Step", elem_id=f"{self.id}-slider", interactive=True)
        shown = [self.pair("")]
        with g.Group(visible=False) as other:
            g.Markdown("Other settings")
            shown.append(self.pair("2"))
        file, lines = self.exported("", "The samples in their file format")
        key = g.State(None, time_to_live=1800)
        flat = [*shown[0], *shown[1]]
        inputs = [self.model, self.n, self.seed, both, *self.settings[0], *self.settings[1], *self.fields]
        event = go.click(
            self.told(self.on_reverse),
            inputs,
            [said, key, slider, file, lines, *flat],
            api_name=f"{self.id}_reverse",
            show_progress="minimal",
            show_progress_on=[said],
            **self.busy,
        )
        stop.click(None, cancels=[event], api_visibility="private")
        both.change(
            lambda on: (g.Group(visible=on), g.Group(visible=on)), both, [second, other], api_visibility="private", queue=False
        )
        slider.input(
            self.told(self.on_step),
            [key, slider],
            [said, *flat],
            api_name=f"{self.id}_step",
            trigger_mode="always_last",
            show_progress="hidden",
            concurrency_id="look",
            concurrency_limit=2,
        )

    def source(self, name: str) -> Any:
        """A field for the user's own file, where the domain reads one."""
        opens = list(self.domain.opens)
        hint = "Your own (none: an example that the model made)"
        return self.g.File(label=hint, file_types=opens or None, visible=bool(opens), height=120, elem_id=f"{self.id}-{name}")

    def row(self, which: str, label: str) -> list[Any]:
        """Parts for the views of one thing."""
        with self.g.Row():
            return [parts.place(kind, label, f"{self.id}-{which}-{kind.__name__.lower()}") for kind in self.domain.views]

    def exported(self, which: str, label: str) -> tuple[Any, Any]:
        """Parts for the file of what was made, and for the lines that make it."""
        g = self.g
        with g.Row():
            file = g.File(label=label, interactive=False, elem_id=f"{self.id}{which}-file")
            lines = g.Code(
                label="Python that makes exactly these", language="python", elem_id=f"{self.id}{which}-code", interactive=False
            )
        return file, lines

    def forward(self) -> None:
        """An object becomes noise."""
        g = self.g
        file = self.source("upload")
        share = g.Slider(0, 100, 0, step=1, label="Noise, % of the schedule", elem_id=f"{self.id}-noise")
        go = g.Button("Add noise", variant="primary", elem_id=f"{self.id}-forward-go")
        said = g.Markdown("", elem_id=f"{self.id}-forward-said")
        shown = self.row("forward", "x_t")
        curve = g.Plot(label="log-SNR along the schedule", elem_id=f"{self.id}-curve")
        inputs, outputs = [self.model, self.seed, file, share], [said, curve, *shown]
        go.click(
            self.told(self.on_forward), inputs, outputs, api_name=f"{self.id}_forward", show_progress_on=[said], **self.busy
        )
        quiet: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private"}
        share.input(self.told(self.on_forward), inputs, outputs, **quiet, **self.busy)

    def edit(self) -> None:
        """A part of an object is made anew; or a policy acts from a start that was asked for."""
        g = self.g
        masked = any(q.kind == "mask" for q in self.asked.values())
        file = None if self.plays else self.source("edit-upload")
        look = g.Button("Show it", elem_id=f"{self.id}-edit-show", visible=not self.plays)
        shown = [] if self.plays or masked else self.row("known", "known")
        if any(self.domain.board(info(name).recipe) for name in self.names):
            self.boards = boards.part(self.domain.board(self.recipe), self.edit_ids, f"{self.id}-board")
        with g.Row():
            first = self.domain.edits(self.recipe)
            self.answers = [parts.ask(q, key, f"{self.edit_ids}{key}", key in first) for key, q in self.asked.items()]
        with g.Row():
            go = g.Button("Act" if self.plays else "Make anew", variant="primary", elem_id=f"{self.id}-edit-go")
            stop = g.Button("Cancel", elem_id=f"{self.id}-edit-stop")
        said = g.Markdown("", elem_id=f"{self.id}-edit-said")
        if self.plays:
            with g.Row():
                made = [parts.place(kind, "simulation", f"{self.id}-play-{kind.__name__.lower()}") for kind in (Picture, Film)]
        else:
            views = self.row("made", "made anew")
            made = [*self.exported("-edit", "The sample in its file format, and what the lines read"), *views]
        progress: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": [said]}
        settings = [self.model, self.seed, *self.settings[0], *self.fields]
        if self.plays:
            event = go.click(
                self.told(self.on_play),
                [*settings, *self.answers],
                [said, *made],
                api_name=f"{self.id}_play",
                **progress,
                **self.busy,
            )
        else:
            event = go.click(
                self.told(self.on_edit),
                [file, *settings, *self.answers],
                [said, *made],
                api_name=f"{self.id}_edit",
                **progress,
                **self.busy,
            )
            told_look = self.told(self.on_known)
            targets = [a for a, q in zip(self.answers, self.asked.values(), strict=True) if q.kind == "mask"] or shown
            look.click(
                told_look,
                [self.model, file, *([] if masked else self.answers)],
                targets,
                api_name=f"{self.id}_known",
                show_progress="minimal",
                **self.busy,
            )
        stop.click(None, cancels=[event], api_visibility="private")

    def guidance(self) -> None:
        """A row of weights with the same seed."""
        g = self.g
        weights = g.Textbox("0, 1, 3, 6", label="Guidance weights", elem_id=f"{self.id}-weights")
        with g.Row():
            go = g.Button("Compare", variant="primary", elem_id=f"{self.id}-guidance-go")
            stop = g.Button("Cancel", elem_id=f"{self.id}-guidance-stop")
        row = parts.place(Gallery, "the same seed at each weight", f"{self.id}-guidance-row")
        inputs = [self.model, self.n, self.seed, weights, *self.settings[0][:2], *self.fields]
        event = go.click(self.told(self.on_guidance), inputs, [row], api_name=f"{self.id}_guidance", **self.busy)
        stop.click(None, cancels=[event], api_visibility="private")

    def pair(self, which: str) -> list[Any]:
        """Parts for the views of x_t and of x0, side by side."""
        g, found = self.g, []
        with g.Row():
            for name, label in (("x", "x_t, what there is"), ("x0", "x0, what the net believes")):
                with g.Column(min_width=280):
                    found += [
                        parts.place(kind, label, f"{self.id}-{name}{which}-{kind.__name__.lower()}")
                        for kind in self.domain.views
                    ]
        return found

    # ---------------------------------------------------------------- handlers

    def planned(self, name: Any, n: Any, seed: Any, how: Sequence[Any], fields: Sequence[Any]) -> Run:
        """A run as the fields say it."""
        asked = self.asked_for(name, _whole(seed, "seed"), fields)
        return self.engine.start(name, _whole(n, "samples"), asked, _settings(seed, *how))

    def views(self, run: Run, at: int) -> list[Any]:
        """x_t and x0 of a kept state as values of the page's parts."""
        return [parts.value(v) for side in run.views(at) for v in side]

    def on_reverse(self, name: Any, n: Any, seed: Any, both: Any, *given: Any) -> Iterator[Any]:
        """Sample, and show the steps while they are made."""
        g = self.g
        count = 2 * len(self.domain.views)
        hows = [given[:3], given[3:6]][: 2 if both else 1]
        runs = [self.planned(name, n, seed, how, given[6:]) for how in hows]
        panes: list[list[Any]] = [[g.skip()] * count, [g.skip()] * count]
        rest = [g.skip()] * 4
        for k, run in enumerate(runs):
            due = 0.0
            for i in self.engine.steps(run):
                if time.monotonic() >= due and i < run.plan.steps:
                    mark = time.monotonic()
                    panes[k] = self.views(run, len(run.states) - 1)
                    yield [f"Step {i} of {run.plan.steps}", *rest, *panes[0], *panes[1]]
                    panes[k] = [g.skip()] * count
                    # no more than half of the time goes into pictures
                    due = time.monotonic() + max(REFRESH, time.monotonic() - mark)
            panes[k] = self.views(run, len(run.states) - 1)
            if k < len(runs) - 1:
                yield [f"Step {run.plan.steps} of {run.plan.steps}", *rest, *panes[0], *panes[1]]
                panes[k] = [g.skip()] * count
        last = len(runs[0].states) - 1
        slider = g.Slider(minimum=0, maximum=max(last, 1), value=last, step=1)
        keys = [self.engine.keep(run) for run in runs]
        files = export(runs[0], parts.new_folder())
        lines = "\n\n".join(run.code for run in runs)
        yield [_said(runs[0], last), keys, slider, str(files), lines, *panes[0], *panes[1]]

    def on_step(self, keys: Any, at: Any) -> list[Any]:
        """A step of a run that is kept."""
        runs = [self.engine.run(k) for k in keys or [None]]
        last = max(len(runs[0].states) - 1, 1)
        share = float(at or 0) / last
        shown = [self.views(run, run.at(share)) for run in runs]
        if len(shown) == 1:
            shown.append([self.g.skip()] * len(shown[0]))
        return [_said(runs[0], runs[0].at(share)), *shown[0], *shown[1]]

    def on_forward(self, name: Any, seed: Any, path: Any, share: Any) -> list[Any]:
        """An object at a share of the noise, in per cent."""
        self.own(name)
        share = float(share or 0) / 100
        samples, snr, curve = self.engine.noised(name, self.engine.source(name, path).item, share, _whole(seed, "seed"))
        views = [parts.value(v) for v in self.domain.view(samples)]
        return [f"log-SNR {in_words(snr)}", parts.curve(curve, share, snr), *views]

    def on_known(self, name: Any, path: Any, *answers: Any) -> Any:
        """An object as the model knows it, what the codec keeps of it, with what the answers choose marked."""
        model = self.own(name)
        samples, *_ = self.engine.noised(name, self.engine.source(name, path).item, 0.0, 0)
        if any(q.kind == "mask" for q in self.domain.edits(model.recipe).values()):
            return {"background": samples[0].plot().convert("RGBA"), "layers": [], "composite": None}
        try:
            seen = self.domain.chosen(samples, self.answered(model.recipe, answers)) if answers else self.domain.view(samples)
        except ConfigError:  # whoever looks at it looks for the right answers
            seen = self.domain.view(samples)
        views = [parts.value(v) for v in seen]
        return views if len(views) > 1 else views[0]

    def on_edit(self, path: Any, name: Any, seed: Any, *given: Any) -> Iterator[Any]:
        """What was not kept of an object, made anew."""
        seed = _whole(seed, "seed")
        how, fields, answers = given[:3], given[3 : 3 + len(self.fields)], given[3 + len(self.fields) :]
        model = self.own(name)
        asked = self.asked_for(name, seed, fields)
        asked.pop(model.codec.size_name or "", None)
        read = self.answered(model.recipe, answers)
        settings = _settings(seed, *how)
        run, g = self.engine.edit(name, self.engine.source(name, path), read, asked, settings), self.g
        due = 0.0
        for i in self.engine.steps(run):
            if time.monotonic() >= due and i < run.total:
                mark = time.monotonic()
                views = run.views(len(run.states) - 1)[1]
                yield [f"Step {i} of {run.total}", g.skip(), g.skip(), *map(parts.value, views)]
                due = time.monotonic() + max(REFRESH, time.monotonic() - mark)
        file = export(run, parts.new_folder())
        views = self.domain.view(run.finished)
        yield [f"Step {run.total} of {run.total}, {run.plan.cost}", str(file), run.code, *map(parts.value, views)]

    def on_play(self, name: Any, seed: Any, *given: Any) -> Iterator[Any]:
        """A policy acts in its simulation."""
        g = self.g
        how, answers = given[:3], given[3 + len(self.fields) :]
        model = self.own(name)
        settings = {k: v for k, v in _settings(seed, *how[:2]).items() if v is not None}
        check = self.engine.clock()
        views = self.domain.played(model, self.answered(model.recipe, answers), **settings)
        if views is None:
            raise ConfigError(f"{name} has no simulation.")
        for count, view in enumerate(views, 1):
            check()
            film = isinstance(view, Film)
            yield [
                "Done" if film else f"Picture {count}",
                g.skip() if film else parts.value(view),
                parts.value(view) if film else None,
            ]

    def on_guidance(self, name: Any, n: Any, seed: Any, weights: Any, sampler: Any, steps: Any, *fields: Any) -> Iterator[Any]:
        """The same noise under each weight."""
        try:
            numbers = [float(w) for w in str(weights)[:200].replace(";", ",").split(",") if w.strip()]
        except ValueError:
            raise ConfigError(f"weights: {str(weights)[:200]!r}; give numbers with commas between, such as 0, 1, 3.") from None
        if not 1 <= len(numbers) <= 8:
            raise ConfigError(f"weights: {len(numbers)} of them; give 1 to 8.")
        seed, n = _whole(seed, "seed"), _whole(n, "samples")
        asked, shown = self.asked_for(name, seed, fields), []
        for weight in numbers:
            run = self.engine.start(name, n, asked, _settings(seed, sampler, steps) | {"guidance_weight": weight})
            for _ in self.engine.steps(run):
                pass
            shown.append((self.domain.plot(run.finished), f"w = {weight:g}"))
            yield list(shown)


def _said(run: Run, at: int) -> str:
    step, snr, *_ = run.states[at]
    return f"Step {step} of {run.plan.steps}, log-SNR {in_words(snr)}"


def _title(name: str) -> str:
    """A name as a label: gradio takes some words in small letters, such as "image", for keys of its translations."""
    return name.replace("_", " ").capitalize()


def _size(name: str | None) -> str:
    """The label of a size, whose field shows a 0 where nothing is asked."""
    return f"{_title(name or 'size')} (0: the model draws it)"


def _weight(recipe: Recipe) -> float:
    """The recipe's guidance weight, where it is one for all conditions."""
    weight = recipe.sampling.guidance_weight
    return float(weight) if isinstance(weight, (int, float)) else 0.0


def _whole(value: Any, name: str) -> int:
    """A field's whole number."""
    try:
        if value is None or int(value) != value or value < 0:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name}: {value!r}; give a whole number, 0 or more.") from None
    return int(value)


def _settings(seed: Any, sampler: Any, steps: Any, weight: Any = None) -> dict[str, Any]:
    """Fields of a run as arguments of `sample`; None is left to the model."""
    number = None if steps is None else _whole(steps, "steps")
    told = None if weight is None else _number(weight, "guidance weight")
    return {"seed": _whole(seed, "seed"), "sampler": sampler or None, "steps": number, "guidance_weight": told}


def _number(value: Any, name: str) -> float:
    """A field's number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name}: {str(value)[:200]!r}; give a number.")
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{name}: {str(value)[:200]}; give a smaller number.") from None


def page(engine: Engine) -> Any:
    """The page of an engine's models, not yet served."""
    g = parts.gr()
    domains: dict[str, list[str]] = {}
    for name in engine.names:
        domains.setdefault(info(name).domain, []).append(name)
    # what a person leaves behind goes: states of closed pages, files of an hour ago
    with g.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        g.Markdown(
            f"# {TITLE}\nNoise becomes an object step by step, and an object becomes noise. Nothing leaves this machine."
        )
        with g.Tabs(elem_id="domains"):
            for domain, names in sorted(domains.items(), key=lambda pair: (pair[0] != "image", pair[0])):
                with g.Tab(_title(domain), id=domain, elem_id=f"tab-{domain}"):
                    Tab(engine, get_domain(domain), names)
    no_addresses(blocks)
    return blocks.queue(max_size=engine.limits.queue, default_concurrency_limit=2)

"""Training runs: a model on a dataset (`fit`), a recipe on data (`train`), each in a folder of its own."""

from __future__ import annotations

import json
import signal
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from zoo import files
from zoo.contract.dataset import Bare, Dataset
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain, get_recipe, list_models
from zoo.core import seeds
from zoo.errors import CheckpointError, ConfigError, DataError, one_of
from zoo.model import unfinished
from zoo.model.checkpoint import read_recipe
from zoo.model.loading import build, is_folder, open_stage
from zoo.model.model import Model
from zoo.training import COMPILED, budget
from zoo.training.fingerprint import fingerprint
from zoo.training.freeze import frozen, matching
from zoo.training.heldout import held_out as find_held_out
from zoo.training.init import Start, continued, grouped, opened, start, started
from zoo.training.lock import Lock
from zoo.training.objective import Objective
from zoo.training.size import fit_sizes, free_sizes
from zoo.training.trainer import CHECKPOINT, WEIGHTS, Facts, Trainer
from zoo.values import number, whole


def fit(
    model: Model,
    dataset: Dataset,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    cpu: bool = False,
    fsdp: bool = False,
    objective: Objective | None = None,
    held_out: Dataset | None = None,
    **loop: Any,
) -> Model:
    """Train a model on a dataset and return it with averaged weights. The codec is fitted to the data first.

    Args:
        model: of `zoo.create`, `zoo.load` or `zoo.Model.of`; its net is trained from the weights that it has.
        dataset: `len`, and `dataset[i]` -> (object, {condition: value}).
        steps: optimizer steps.
        minutes: in place of steps: the time of the whole run. Some steps are measured, and their number is planned so that
            the learning rate falls to 0 in time. A run that is resumed without either goes on with what it had.
        out: folder of checkpoint, logs, previews and the finished model, empty unless `resume`; None keeps nothing.
        resume: go on from the checkpoint in `out`, bit for bit.
        held_out: data that nothing trains on; the loss on some of them is logged.
        cpu: stay on the CPU even where there is a GPU.
        fsdp: share the net out over the processes that train together, for one that does not fit on a device; `out` is then
            needed. The model that comes back is shared out, too: load it from `out`.
        objective: what is made smaller; default: the recipe's.
        **loop: max_minutes, log_every, save_every, preview_every, workers, compile, see `Trainer.run`.

    Raises:
        ConfigError, DataError, CheckpointError: an invalid argument, an empty dataset, a folder that holds a run, or one in
            which another run is at work.
        KeyboardInterrupt, SystemExit: SIGINT or SIGTERM ended it (code 143), after everything was saved.
        NumericsError: a loss that is not finite.
    """
    began = budget.clock_time()
    steps, minutes = length(steps, minutes, resume)
    loop = loop_options(loop)
    if check_fsdp(fsdp, loop) and out is None:
        raise ConfigError("fsdp=True: give out. No process holds the whole net, which is written there.")
    dataset = objects_of(dataset, model.recipe)
    held_out = None if held_out is None else objects_of(held_out, model.recipe)
    check_data(dataset, model.recipe)
    if held_out is not None:
        check_data(held_out, model.recipe)
    seed = whole(seed, "seed")
    torch.manual_seed(seeds.derive_seed(seed, WEIGHTS))
    how: dict[str, Any] = {"minutes": minutes, "began": began, "cpu": cpu, "objective": objective, "held_out": held_out}
    how["fsdp"] = fsdp
    if out is not None:
        folder = files.path_of(out, "out")
        run_in(model, dataset, folder, steps, seed, resume=resume, **how, **loop)
        return model
    if resume:
        raise ConfigError("resume=True goes on from a checkpoint: give out, the folder that holds it.")
    loop = {"preview_every": 0, "save_every": 0} | loop
    with tempfile.TemporaryDirectory(prefix="zoo-fit-") as temporary:
        run_in(model, dataset, Path(temporary), steps, seed, **how, **loop)
    return model


def length(steps: int | None, minutes: float | None, resume: bool) -> tuple[int | None, float | None]:
    """How long a run is, checked: (steps, None), (None, minutes), or neither for one that goes on with what it had.

    Raises:
        ConfigError: both, neither, or a number that is none.
    """
    if steps is not None and minutes is not None:
        raise ConfigError(
            f"steps={steps!r} and minutes={minutes!r}: give one of them. max_minutes stops a run of so many steps when "
            "the time is up, and its learning rate has not fallen then."
        )
    if steps is None and minutes is None and not resume:
        raise ConfigError("how long is the run? Give steps, or minutes, by which the steps are planned.")
    if minutes is not None:
        minutes = float(number(minutes, "minutes", 0))
        if minutes <= 0:
            raise ConfigError(f"minutes={minutes:g}: give a time above 0.")
    return None if steps is None else whole(steps, "steps", 1), minutes


#: what `fit` and `train` hand on to `Trainer.run`
LOOP = ("max_minutes", "log_every", "save_every", "preview_every", "workers", "compile")


def loop_options(loop: Mapping[str, Any]) -> dict[str, Any]:
    """How a run is watched, checked before anything is written: `LOOP`.

    Raises:
        ConfigError: another name, or a number that is none.
    """
    for name in loop:
        if name not in LOOP:
            raise one_of("option of training", name, LOOP)
    loop = {k: v for k, v in loop.items() if (k, v) != ("workers", None)}
    found: dict[str, Any] = {k: whole(v, k, 0) for k, v in loop.items() if k not in ("max_minutes", "compile")}
    if "compile" in loop:
        if not isinstance(loop["compile"], bool) and loop["compile"] not in COMPILED:
            raise ConfigError(f"compile={loop['compile']!r}: give True, False, or one of {', '.join(COMPILED)}.")
        found["compile"] = loop["compile"]
    if (minutes := loop.get("max_minutes")) is not None:
        found["max_minutes"] = number(minutes, "max_minutes", 0)
    return found


def check_fsdp(fsdp: bool, loop: Mapping[str, Any]) -> bool:
    """Whether the net is shared out over processes, checked before anything is read or written.

    Raises:
        ConfigError: not True or False, or what does not go together with it.
    """
    if not isinstance(fsdp, bool):
        raise ConfigError(f"fsdp={fsdp!r}: give True or False.")
    if fsdp:
        from zoo.training.sharded import check_sharded

        check_sharded(loop)
    return fsdp


def objects_of(dataset: Dataset, recipe: Recipe) -> Dataset:
    """Data as a model of this recipe sees them: a first stage takes the objects alone, whatever is known of them."""
    if recipe.role != "first_stage" or not isinstance(dataset, Dataset) or isinstance(dataset, Bare):
        return dataset
    return Bare(dataset)


def check_data(dataset: Dataset, recipe: Recipe) -> None:
    """Refuse data that a model of this recipe cannot be trained on: a condition that one of them lacks would be ignored.

    Raises:
        ConfigError: not a dataset, other conditions than the recipe's, or labels that mean something else.
        DataError: an empty dataset, or one whose members are not (object, conditions).
    """
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"dataset: a {type(dataset).__name__}; give a Dataset, such as zoo.contract.dataset.Items.")
    if len(dataset) == 0:
        raise DataError("the dataset is empty.")
    first = dataset[0]
    if not (isinstance(first, tuple) and len(first) == 2 and isinstance(first[1], Mapping)):
        raise DataError(f"dataset[0] is a {type(first).__name__}; it must be (object, {{condition: value}}).")
    has, wants = sorted(first[1]), sorted(recipe.conditions)
    if has != wants:
        raise ConfigError(
            f"the data carry the conditions {', '.join(has) or 'none'}, the model has {', '.join(wants) or 'none'}: "
            "give the model conditions=dataset.conditions(), or data with those of the model."
        )
    for name, condition in dataset.conditions().items():
        theirs, ours = condition.classes, recipe.conditions[name].classes if name in recipe.conditions else ()
        if theirs and ours and theirs != ours:
            raise ConfigError(
                f"{name}: the data have the labels {', '.join(theirs)}, the model {', '.join(ours)}; they must be the same, "
                "in the same order."
            )


def run_in(
    model: Model,
    dataset: Dataset,
    out: Path,
    steps: int | None,
    seed: int,
    *,
    minutes: float | None = None,
    began: float | None = None,
    resume: bool = False,
    begun: Start | None = None,
    cpu: bool = False,
    fsdp: bool = False,
    objective: Objective | None = None,
    held_out: Dataset | Callable[[], Dataset | None] | None = None,
    said: str = "",
    fitted: Collection[str] = (),
    **loop: Any,
) -> None:
    """One run in the folder `out`; the model has averaged weights afterwards and is in evaluation mode.

    Args:
        begun: what the weights of a new run started from.
        began: when the run began (`zoo.training.budget.clock_time`).
        held_out: data that nothing trains on, or what opens them once the codec is fitted.
        said: what is to be said of the recipe when the run begins.
        fitted: what of the recipe a short run may have smaller, "batch" and "net", see `zoo.training.size.fit_sizes`.
    """
    going_on = has_run(out, resume)
    dataset.prepare_for(model.codec.inner, model.recipe)
    patterns = model.recipe.training.freeze
    names = [files.plain_name(k) for k, _ in model.denoiser.named_parameters()]
    chosen = matching(names, patterns)  # before anything is written
    if begun is not None and (untrained := [name for name in chosen if name in begun.new]):
        shown = ", ".join(grouped(untrained, begun.sizes))
        warnings.warn(f"frozen, but new and never trained: {shown}. Freeze only what {begun.source} gave.", stacklevel=3)
    with files.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    if steps is None and minutes is None and not going_on:
        raise ConfigError(f"{out} holds no run to go on with: give steps, or minutes.")
    with frozen(model.denoiser, patterns) as count:
        made = trainer_class(fsdp)
        trainer = made(model.train(), dataset, out, steps, seed, cpu=cpu, objective=objective, minutes=minutes, began=began)
        if said:
            trainer.note(said)
        if patterns:
            total = sum(p.numel() for p in model.denoiser.parameters())
            trainer.note(f"frozen: {count:,} of {total:,} parameters ({', '.join(patterns)}).")
        _run(trainer, going_on, resume, begun, held_out, fitted, loop)
    trainer.finish()
    if trainer.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if trainer.signal:
        raise SystemExit(128 + trainer.signal)


def _run(
    trainer: Trainer,
    going_on: bool,
    resume: bool,
    begun: Start | None,
    held_out: Dataset | Callable[[], Dataset | None] | None,
    fitted: Collection[str],
    loop: Mapping[str, Any],
) -> None:
    """A new run, or one that goes on, with its folder locked."""
    model, dataset, out = trainer.model, trainer.dataset, trainer.out
    with Lock(out) if trainer.main else nullcontext() as trainer.lock:
        if trainer.main:
            if has_run(out, resume) != going_on:
                raise CheckpointError(f"another run came and went in {out} while this one began. Look at it, and start again.")
            for folder in (out, out / "previews"):
                files.clear_leftovers(folder)
        if going_on:
            trainer.resume()
        else:
            model.codec.fit(dataset)
            if begun is not None:
                trainer.init, trainer.pace = begun.source, begun.pace
                for line in [*begun.lines(), *continued(model.codec, begun.codec)]:
                    trainer.note(line)
            trainer.data = fingerprint(dataset, model.codec)
            fit_sizes(trainer, fitted)
            trainer.save()
        trainer.held_out = held_out() if callable(held_out) else held_out
        if trainer.held_out is not None:
            trainer.held_out.prepare_for(model.codec.inner, model.recipe)
        trainer.run(**loop)


def trainer_class(fsdp: bool) -> type[Trainer]:
    """What trains: a net that each process has, or one that is shared out over them."""
    if not fsdp:
        return Trainer
    from zoo.training.sharded import ShardedTrainer

    return ShardedTrainer


def has_run(out: Path, resume: bool) -> bool:
    """Whether a folder holds a run, which only `resume` may touch."""
    found = (out / CHECKPOINT).exists()
    if found and not resume:
        raise CheckpointError(f"{out} already holds a run. Go on with resume=True (--resume), or give another folder.")
    return found


def train(
    source: str | Path | Recipe | None = None,
    *,
    data: Dataset | str | Path,
    steps: int | None = None,
    minutes: float | None = None,
    out: str | Path,
    seed: int = 0,
    resume: bool = False,
    init: str | Path | None = None,
    cpu: bool = False,
    fsdp: bool = False,
    data_options: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
    held_out: Dataset | None = None,
    began: float | None = None,
    **loop: Any,
) -> Model:
    """Train a recipe on data and return the model with averaged weights.

    Args:
        source: a registry name, e.g. "image/fashion-ddpm", a model folder, or a recipe.
        config: in place of a source: a recipe's JSON file, or the config.json of a model folder.
        data: a dataset, or what the domain's `dataset` takes: a file or a folder.
        steps, minutes: optimizer steps, or the time of the whole run, by which they are planned, see `fit`.
        out: folder of checkpoint, logs, previews and the finished model; must be empty unless `resume`.
        init: a model of the domain (a name, a folder or hub:owner/name) whose weights the run starts from, as far as they
            fit; what was adapted and what is new is printed, see `zoo.training.init`. The learning rate is then a part of
            the recipe's, unless overrides say it. A run that goes on does not read it.
        fsdp: share the net out over the processes that train together, for one that does not fit on a device. The model that
            comes back is shared out, too: load it from `out`.
        overrides: dotted recipe paths, e.g. {"training.lr": 2e-4}.
        held_out: data that nothing trains on, whose loss is logged; default: the validation part of `data`, where they
            have one.
        began: when the run began by `time.monotonic`, where that was before this call: `minutes` count from there.
        **loop: max_minutes, log_every, save_every, preview_every, workers, compile, see `Trainer.run`.

    Raises: as `fit`.
    """
    began = budget.clock_time() if began is None else began
    steps, minutes = length(steps, minutes, resume)
    seed, out, loop = whole(seed, "seed"), files.path_of(out, "out"), loop_options(loop)
    check_fsdp(fsdp, loop)
    if source is not None and config is None:
        recipe = recipe_of(source)
    elif config is not None and source is None:
        recipe = read_recipe_file(config)
    else:
        raise ConfigError("what is trained? Give a model's name, its folder or a recipe; or config, a recipe's JSON file.")
    recipe = recipe.override(overrides or {})
    if isinstance(data, (str, Path)) and out.exists() and Path(data).exists() and out.samefile(data):
        raise ConfigError(f"{out} holds the data: the run's pictures would be data as well. Give it a folder of its own.")
    going_on, said = has_run(out, resume), ""  # before anything is read
    recipe, stage, filled = staged(recipe, source, out if going_on else None, overrides or {})
    other = None if init is None or going_on else opened(init, recipe)
    domain = get_domain(recipe.domain)
    packaged = isinstance(source, str) and source in list_models()
    fitted = free_sizes(recipe, overrides or {}, init) if packaged else ()
    if packaged and not isinstance(data, Dataset):
        # a recipe of the package, which has not been made for these data
        recipe, said = domain.suited(recipe, data, overrides or {})
    options = domain.data_options(recipe) | dict(data_options or {})
    dataset = data if isinstance(data, Dataset) else domain.dataset(data, "train", **options)
    if len(dataset) == 0:
        raise DataError("the dataset is empty.")
    dataset = objects_of(dataset, recipe)
    recipe = dataset.attributed(domain.adapt(recipe, dataset))
    if init is not None and other is not None:
        recipe = recipe.model_copy(update={"description": started(recipe.description, init, other.recipe)})
    if going_on:
        recipe = as_begun(recipe, out, init, fitted)
    torch.manual_seed(seeds.derive_seed(seed, WEIGHTS))
    model = build(recipe, stage, filled=filled).train()
    begun = None if init is None or other is None else start(model, other, init)
    if begun is not None and not {"training", "training.lr"} & set(overrides or {}):
        begun.slow(recipe.training.lr)

    def validation() -> Dataset | None:
        if isinstance(data, Dataset):
            return data.held_out()
        return find_held_out(domain, data, options, dataset, recipe, model.codec)

    run_in(
        model,
        dataset,
        out,
        steps,
        seed,
        resume=resume,
        begun=begun,
        cpu=cpu,
        fsdp=fsdp,
        minutes=minutes,
        began=began,
        held_out=validation if held_out is None else held_out,
        said=said,
        fitted=fitted,
        **loop,
    )
    return model


def staged(
    recipe: Recipe, source: str | Path | Recipe | None, run: Path | None, overrides: Mapping[str, Any]
) -> tuple[Recipe, Model | None, bool]:
    """The recipe with objects as its first stage takes them, that one, opened, and whether it has its weights.

    Args:
        source: what the recipe was read from.
        run: the folder of a run that goes on: it has its own copy of the first stage, whatever became of the named one.
        overrides: what the user set: the options of the codec of objects among them stay, others are those of a first stage
            that the user named.
    """
    named = recipe.stage
    if named is None:
        return recipe, None, True
    if run is not None:
        before = unfinished.read_recipe(run)
        if before.stage is not None and before.stage.name == named.name and named.sha256 in (None, before.stage.sha256):
            options = before.codec | {k: v for k, v in recipe.codec.items() if f"codec.{k}" in overrides and k != "stage"}
            return recipe.model_copy(update={"codec": options}), Model.first_stage_of(before), False
    home = None
    if isinstance(source, (str, Path)) and (isinstance(source, Path) or is_folder(source)):
        home = Path(source).expanduser()
    stage = open_stage(recipe, home)
    if "codec.stage" in overrides:
        own = {k: v for k, v in recipe.codec.items() if f"codec.{k}" in overrides}
        recipe = recipe.model_copy(update={"codec": stage.recipe.codec | own})
    return recipe, stage, True


def as_begun(recipe: Recipe, out: Path, init: str | Path | None, fitted: Collection[str]) -> Recipe:
    """The recipe of a run that goes on: its description still says which weights the run started from.

    Args:
        fitted: what nobody says the size of, "batch" or "net": then it is that of the run, which may have chosen it.

    Warns:
        of an init that is not the one that the run started from: none is read again.
    """
    try:
        meta = files.load_metadata(out / CHECKPOINT)
        facts, before = Facts.parse(meta["zoo"], out / CHECKPOINT), Recipe.parse(json.loads(meta["recipe"]))
    except (CheckpointError, ConfigError, KeyError, ValueError):
        return recipe  # what is wrong with the file is said where it is read as a whole
    if init is not None and str(init) != facts.init:
        begun = f"with the weights of {facts.init}" if facts.init else "from scratch"
        warnings.warn(f"the run in {out} began {begun} and goes on from its checkpoint: {init} is not read.", stacklevel=3)
    if "net" in fitted and before.denoiser == recipe.denoiser:
        recipe = recipe.model_copy(update={"net": before.net})
    if "batch" in fitted:
        training = recipe.training.model_copy(update={"batch_size": before.training.batch_size})
        recipe = recipe.model_copy(update={"training": training})
    return recipe.model_copy(update={"description": before.description}) if facts.init else recipe


def read_recipe_file(path: str | Path) -> Recipe:
    """A recipe from its JSON, or from the config.json of a model folder, which may have been edited: nothing else is read.

    Raises:
        ConfigError: the file is not there, or holds no recipe.
    """
    path = files.path_of(path, "config")
    if path.is_dir():
        raise ConfigError(f"config={str(path)!r} is a folder: give it as the model, or its {files.CONFIG}.")
    try:
        found = files.read_json(path)
    except CheckpointError as error:
        raise ConfigError(f"config: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("recipe"), dict):
        found = found["recipe"]
    if not isinstance(found, dict) or not {"domain", "denoiser"} <= found.keys():
        raise ConfigError(f"config: {path} holds no recipe: a JSON object with name, domain, denoiser and more, see zoo info.")
    return Recipe.parse(found)


def recipe_of(source: str | Path | Recipe) -> Recipe:
    """The recipe itself, that of a model folder, or that of a registry name."""
    if isinstance(source, Recipe):
        return source
    if isinstance(source, Path) or is_folder(source):
        return read_recipe(Path(source).expanduser())
    return get_recipe(source)

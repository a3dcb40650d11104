"""Make a finished run the packaged model of its recipe: weights, evaluation on test data, pictures, card.

    python benchmarks/package.py RUN image/fashion-ddpm --n 5000 --data fashion_mnist.npz
    python benchmarks/package.py RUN protein/backbone-ddpm --n 200 --data protein_backbones.npz tm_samples=200
    python benchmarks/package.py protein/backbone-ddpm protein/backbone-ddpm --n 200 ...  # the packaged one, measured anew
    python benchmarks/package.py audio/words-ddpm audio/words-ddpm --few                  # its defaults for few steps alone

The sampling defaults come from the recipe of today, everything else from the run, with curves.json (see curves.py) where
it has one. The evaluation is of the rounded weights that are shipped. Nothing in the card is typed: it is made from the
evaluation's JSON and the run's checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from curves import settings
from readme import card
from train_packaged import HISTORY

from zoo import files
from zoo.contract.recipe import Recipe
from zoo.contract.registry import CHECKPOINTS, get_recipe, list_models, packaged_folder, read_evaluation
from zoo.evaluation.evaluate import evaluate
from zoo.hub.push import PICTURE
from zoo.model.checkpoint import read_config, read_recipe, save
from zoo.model.first_stage import digest
from zoo.model.loading import build, info, open_stage
from zoo.model.model import Model
from zoo.training.objective import Autoencode
from zoo.training.trainer import CHECKPOINT

LIMIT = 10_000_000  # bytes of model.safetensors
CURVES = "curves.json"


def with_defaults(run: Path, name: str) -> Model:
    """A finished run's model, sampling as the recipe of today does."""
    trained, today = Model.from_folder(run), get_recipe(name)
    recipe = trained.recipe.model_copy(update={"sampling": today.sampling})
    if recipe.schedule.kind == "edm" == today.schedule.kind:  # where its grid begins and ends, training does not see
        ends = {k: getattr(today.schedule, k) for k in ("sigma_min", "sigma_max", "rho")}
        recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=ends)})
    stage = None
    if recipe.stage is not None and today.stage is not None:
        stage = trained.first_stage()
        if packaged_alone(recipe, today):
            recipe = recipe.staged(recipe.stage.model_copy(update={"name": today.stage.name}))
    model = build(recipe, stage)
    model.load_state_dict(trained.state_dict())
    return model


def packaged_alone(recipe: Recipe, today: Recipe) -> bool:
    """Whether the first stage of a latent model is, weight by weight, the packaged model that the recipe of today names."""
    if recipe.stage is None or today.stage is None or packaged_folder(today.stage.name) is None:
        return False
    return digest(open_stage(today).denoiser.state_dict()) == recipe.stage.sha256


def training(run: Path) -> str:
    """How a run was trained: from its checkpoint, or from what `train_packaged.py` or this program wrote beside the model.

    One that started from another run or model tells that one's training too.
    """
    if (run / HISTORY).exists():
        facts = json.loads((run / HISTORY).read_text())
        device = "" if facts["device"] == "CPU" else f" on one {facts['device']}"
        text = f"{facts['steps']} steps of {facts['samples']} samples in {facts['seconds'] / 60:.0f} minutes{device}"
        return f"{before(facts['init'])}; from there {text}" if facts["init"] else text
    if not (run / CHECKPOINT).exists() and (evaluation := read_evaluation(run)):  # a packaged model
        return str(evaluation["protocol"]["training"])
    _, meta = files.load_tensors_metadata(run / CHECKPOINT)
    facts, options = json.loads(meta["zoo"]), Recipe.parse(json.loads(meta["recipe"])).training
    size = options.batch_size * options.accumulate * facts["processes"]
    text = f"{facts['step']} steps of {size} samples in {facts['seconds'] / 60:.0f} minutes"
    if not (init := facts.get("init")):
        return text
    return f"{before(init)}; from there {text}"


def before(init: str) -> str:
    """The training of what a run started from, a folder of a run or a packaged model."""
    if (Path(init) / CHECKPOINT).exists() or (Path(init) / HISTORY).exists():
        return training(Path(init))
    evaluation = info(init).evaluation if init in list_models() else None
    return str(evaluation["protocol"]["training"]) if evaluation else f"the training of {init}"


def take_few(folder: Path, today: Recipe) -> None:
    """Today's defaults for few steps, and what warns of too few, into a packaged model.

    It is measured at its usual number of steps, so that all of its figures stay true.
    """
    kept = read_config(folder)
    found = Recipe.parse(kept["recipe"])
    recipe = found.model_copy(
        update={"sampling": found.sampling.model_copy(update={"few": today.sampling.few, "least": today.sampling.least})}
    )
    if recipe.sampling != today.sampling:
        raise SystemExit(f"{folder}: other defaults have changed, too; measure it anew.")
    with files.new_folder(folder) as new:
        shutil.copytree(folder, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        hashes = {name: digest for name, digest in kept.pop(files.HASH).items() if name != files.CONFIG}
        kept["recipe"] = recipe.model_dump(mode="json")
        files.write_atomic(new / files.CONFIG, files.seal(kept, files.CONFIG, hashes))
        files.write_atomic(new / files.CARD, card(new).encode())


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("run", type=Path, help="a folder, or the name again: the packaged model itself, measured anew")
    p.add_argument("name")
    p.add_argument("settings", nargs="*", help="name=value of the evaluation")
    p.add_argument("--n", type=int, default=5000)
    p.add_argument("--data", help="real data of the domain; a policy is measured in its environment, without any")
    p.add_argument("--bits", type=int, default=16, choices=(8, 16), help="of a stored weight")
    p.add_argument("--few", action="store_true", help="only take the recipe's defaults for few steps: all figures stay true")
    p.add_argument("--fp32", action="store_true", help="never bf16, which the evaluation uses where the machine has it")
    args = p.parse_intermixed_args()

    folder = CHECKPOINTS / args.name
    if args.few:
        take_few(folder, get_recipe(args.name))
        return
    again = str(args.run) == args.name
    run = folder if again else args.run
    model, history = with_defaults(run, args.name), training(run)
    written = not again or model.recipe != read_recipe(folder)
    with files.new_folder(folder) as new:  # nothing of it is in its place before all of it is measured
        if written:
            save(model, new, bits=args.bits, with_stage=not packaged_alone(model.recipe, get_recipe(args.name)))
        else:  # only the figures change: golden values and pictures stay those of the machine that made them
            shutil.copytree(folder, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        size = (new / files.WEIGHTS).stat().st_size
        if size > LIMIT:
            raise SystemExit(f"{args.name}: the weights have {size} bytes, the limit is {LIMIT}")

        model = Model.from_folder(new)
        model.precision = "fp32" if args.fp32 else "auto"
        options = {k: v for text in args.settings for k, v in settings(text).items()}
        result = evaluate(model, args.n, data=args.data, split="test", **options)
        data = f" --data {Path(args.data).name}" if args.data else ""
        source = args.name if again else "RUN"
        command = f"python benchmarks/package.py {source} {args.name} --n {args.n}{data}"
        bits = [] if args.bits == 16 else [f"--bits {args.bits}"]
        result["protocol"] |= {"training": history, "command": " ".join([command, *bits, *args.settings])}
        figures = {k: v for k, v in result.items() if k != "prompts"}  # of 1,246 pictures: zoo eval --json tells them
        files.write_atomic(new / "evaluation.json", files.dump_json(figures))
        if written:
            if model.is_first_stage:
                held = model.domain.dataset(args.data, "test")
                held.prepare_for(model.codec, model.recipe)
                Autoencode().preview(model, held, 18).plot(new / PICTURE)
            else:
                model.domain.showcase(model, new)
        if not again and (run / CURVES).exists():
            shutil.copyfile(run / CURVES, new / CURVES)
        files.write_atomic(new / files.CARD, card(new).encode())
    if again and written and (folder / CURVES).exists():
        print(f"{folder / CURVES} was measured at other defaults: make it anew (curves.py), or remove it")
    print(f"{folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

"""The `zoo` command: list info sample train eval verify push pull publish. Torch loads only where needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, ZooError, one_of

#: parts of a sample that a Hub dataset may keep in a column of another name; a domain takes those that it knows
COLUMNS = ("image", "audio", "label")


def number(text: str) -> int | float | str:
    """A command-line value as the number it looks like, else the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """["a.b=1", ...] as a dictionary."""
    for text in texts:
        if "=" not in text:
            raise ConfigError(f"{text!r}: give path=value, e.g. training.batch_size=32.")
    return dict(t.split("=", 1) for t in texts)


def conditions(rest: Sequence[str]) -> dict[str, str]:
    """["--speaker", "jackson", "--pitch=low"] as a dictionary: the model's own conditions, which no parser knows."""
    found: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        name, equals, text = word.partition("=")
        value = text if equals else next(words, None)
        if not name.startswith("--") or value is None:
            raise ConfigError(f"{word!r}: give a condition of the model as --NAME VALUE, e.g. --label sneaker.")
        found[name[2:].replace("-", "_")] = value
    return found


def list_(args: argparse.Namespace) -> None:
    """zoo list"""
    from zoo.contract.registry import list_models
    from zoo.model.loading import info

    for name in list_models(args.pattern, args.domain):
        card = info(name)
        print(f"{name:24} {'packaged' if card.packaged else 'recipe':10} {card.description}")


def info(args: argparse.Namespace) -> None:
    """zoo info NAME"""
    from zoo.model.loading import info

    print(info(args.name))


def sample(args: argparse.Namespace) -> None:
    """zoo sample NAME"""
    from zoo.model.loading import load

    model = load(args.name)
    options: dict[str, Any] = {k: number(v) for k, v in pairs(args.option).items()}
    given = conditions(args.rest) | ({"label": args.label} if args.label is not None else {})
    size = model.codec.size_name
    for name, text in given.items():
        if name in model.recipe.conditions:
            options[name] = model.recipe.conditions[name].parse(text)
        elif name == size:
            sizes = [number(v) for v in text.split(",")]
            options[name] = sizes if len(sizes) > 1 else sizes[0]
        else:
            known = [*model.recipe.conditions, *([size] if size else [])]
            raise one_of(f"option or condition of {args.name}", name, known)
    samples = model.sample(
        args.n,
        sampler=args.sampler,
        steps=args.steps,
        guidance_weight=args.guidance_weight,
        guidance_scale=args.guidance_scale,
        seed=args.seed,
        batch_size=args.batch_size,
        **options,
    )
    out = Path(args.out)
    files = samples.save(out)
    samples.plot(out / "samples.png")
    print(f"{len(files)} samples in {out}/, all in one picture: {out / 'samples.png'}")


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was said of the data, as options of the domain's `dataset`."""
    names = [*(f"{c}_column" for c in COLUMNS), "config", "max_rows", "skip_unreadable"]
    return {n: getattr(args, n) for n in names if getattr(args, n) not in (None, False)}


def train(args: argparse.Namespace) -> None:
    """zoo train NAME"""
    from zoo.training.trainer import leave_group, train

    train(
        args.name,
        data=args.data,
        steps=args.steps,
        out=args.out,
        seed=args.seed,
        resume=args.resume,
        init=args.init,
        cpu=args.cpu,
        data_options=data_options(args),
        overrides=pairs(args.set),
        max_minutes=args.max_minutes,
        save_every=args.save_every,
        preview_every=args.preview_every,
    )
    leave_group()
    print(f"the model is in {args.out}. Sample it: zoo sample {args.out} -n 16 -o out/")


def evaluate(args: argparse.Namespace) -> None:
    """zoo eval NAME"""
    from zoo.evaluation.evaluate import evaluate as measure
    from zoo.evaluation.table import format_table
    from zoo.files import dump_json, write_atomic
    from zoo.model.loading import load

    model = load(args.name)
    settings: dict[str, Any] = {k: number(v) for k, v in pairs(args.option).items()}
    given = {"steps": args.steps, "sampler": args.sampler, "guidance_weight": args.guidance_weight, "video": args.video}
    settings |= {k: v for k, v in given.items() if v is not None}
    result = measure(model, args.n, data=args.data, seed=args.seed, split=args.split, **settings)
    if args.json:
        write_atomic(Path(args.json), dump_json(result))
        print(format_table(result["metrics"]))
        print(f"written to {args.json}")
    else:  # what there is of each sample would hide the rest
        print(dump_json({k: v for k, v in result.items() if not isinstance(v, list)}).decode(), end="")


def verify(args: argparse.Namespace) -> None:
    """zoo verify NAME"""
    from zoo.model.loading import load

    error = load(args.name).verify()
    print(f"{args.name}: weights read strictly, golden output reproduced within {error:.1e}")


def pull(args: argparse.Namespace) -> None:
    """zoo pull NAME"""
    from zoo.contract.registry import get_recipe
    from zoo.hub import client as hub
    from zoo.hub.address import PREFIX

    if not args.name.startswith(PREFIX):
        get_recipe(args.name)  # an unknown name is answered with the nearest, before anything is asked
    folder = hub.pull(args.name, local_files_only=args.offline)
    if args.out:
        folder = hub.copy(folder, Path(args.out))
    print(f"{args.name} is in {folder}. Load it: zoo.load({str(folder if args.out else args.name)!r})")


def push(args: argparse.Namespace) -> None:
    """zoo push MODEL OWNER/NAME"""
    from zoo.model.loading import locate
    from zoo.model.publish import push

    print(push(locate(args.name), args.repo, private=args.private, tag=args.tag, samples=not args.no_samples))


def publish(args: argparse.Namespace) -> None:
    """zoo publish"""
    from zoo.model.publish import publish

    for name, pushed in publish(
        args.namespace, private=args.private, pattern=args.pattern, **({"tag": args.tag} if args.tag else {})
    ):
        print(f"{name} -> {pushed}", flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line; every option is described in its help."""
    main = argparse.ArgumentParser(prog="zoo", description="The diffusion model zoo that goes beyond images.")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], text: str, *, model: bool = True
    ) -> argparse.ArgumentParser:
        p = commands.add_parser(name, help=text, description=text)
        p.set_defaults(run=run)
        if model:
            p.add_argument("name", help="a model name (see: zoo list), a model folder, or hub:owner/name[@revision]")
        return p

    p = command("list", list_, "List the models.", model=False)
    p.add_argument("pattern", nargs="?", default="*", help='e.g. "image/*"')
    p.add_argument("--domain", help="only this domain")

    command("info", info, "What a model is, its conditions and its measured quality.")

    p = command("sample", sample, "Generate samples into a folder.")
    p.add_argument("-n", type=int, default=4, help="how many (default 4)")
    p.add_argument("-o", "--out", default="out", help="folder (default out/)")
    p.add_argument(
        "--label",
        help="a label for all samples, or n of them with commas between; the model's other conditions (zoo info NAME) likewise",
    )
    p.add_argument("--sampler", help="ddpm, ddim, dpmpp or heun (default: the model's)")
    p.add_argument("--steps", type=int, help="sampling steps (default: the model's)")
    p.add_argument("--guidance-weight", type=float, help="w of the paper; 0 is plain conditional")
    p.add_argument("--guidance-scale", type=float, help="the same as 1 + w")
    p.add_argument("--seed", type=int, help="default: a random one")
    p.add_argument("--batch-size", type=int, help="samples made at a time")
    p.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="more of Model.sample: eta=1, spacing=karras"
    )

    p = command("train", train, "Train a recipe on your own data.")
    p.add_argument(
        "--data", required=True, help="a file, a folder (class subfolders become labels), or hub:owner/name[@revision]"
    )
    for name in COLUMNS:
        p.add_argument(f"--{name}-column", metavar="NAME", help=f"column of a Hub dataset that holds the {name}")
    p.add_argument("--data-config", dest="config", metavar="NAME", help="configuration of a Hub dataset that has several")
    p.add_argument("--max-rows", type=int, metavar="N", help="take only the first N rows of a Hub dataset")
    p.add_argument("--out", required=True, help="folder of the run and of the finished model")
    p.add_argument("--steps", type=int, default=20_000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, bit for bit")
    p.add_argument("--init", metavar="MODEL", help="start from the weights of this model (a name or a folder) of the same net")
    p.add_argument("--max-minutes", type=float, help="stop and save after so long")
    p.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    p.add_argument("--preview-every", type=int, default=2000, help="steps between preview pictures, 0 for none")
    p.add_argument("--skip-unreadable", action="store_true", help="leave unreadable files out instead of stopping")
    p.add_argument("--cpu", action="store_true", help="stay on the CPU")
    p.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override the recipe: training.lr=2e-4")

    p = command("eval", evaluate, "Measure a model, beside real data and a trivial baseline.")
    p.add_argument("--n", "--episodes", type=int, dest="n", help="samples, or a policy's episodes (default: the domain's)")
    p.add_argument("--video", metavar="FILE", help="of a policy: a .gif or .mp4 of its first episodes")
    p.add_argument("--data", help="the real data to compare with (default: from $ZOO_DATA)")
    p.add_argument("--split", default="test", choices=["test", "validation"], help="choose on validation, report on test")
    p.add_argument("--sampler")
    p.add_argument("--steps", type=int)
    p.add_argument("--guidance-weight", type=float)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    p.add_argument("--json", help="write the whole result to this file, with what there is of each sample")

    command("verify", verify, "Read a model strictly and recompute its golden output.")

    p = command("pull", pull, "Fetch a model from the Hub; afterwards it loads offline.")
    p.add_argument("-o", "--out", help="also copy it into this folder")
    p.add_argument("--offline", action="store_true", help="make no request: only say whether it is in the cache")

    token = "The token is the user's own ($HF_TOKEN, `hf auth login`): an argument would show it to every process."
    p = command("push", push, f"Push a model to the Hub, in one commit. {token}")
    p.add_argument("repo", metavar="OWNER/NAME", help="the repository; made when it is not there")
    p.add_argument("--private", action="store_true", help="make it private")
    p.add_argument("--tag", help="a name for this state, set last, e.g. v1.0")
    p.add_argument("--no-samples", action="store_true", help="draw no sample picture where the folder has none")

    p = command("publish", publish, f"Push every packaged model to the Hub; what is there already stays. {token}", model=False)
    p.add_argument("--namespace", metavar="OWNER", help="default: $ZOO_HUB_NAMESPACE, else that of zoo")
    p.add_argument("--pattern", default="*", help='only these names, e.g. "image/*"')
    p.add_argument("--private", action="store_true", help="make the repositories private")
    p.add_argument("--tag", help="default: the version of zoo")
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a ZooError is printed as one line. Returns the exit code."""
    line = parser()
    args, rest = line.parse_known_args(argv)
    args.rest = rest
    if args.rest and args.command != "sample":  # which has a model's conditions
        line.error(f"unrecognized arguments: {' '.join(args.rest)}")
    try:
        args.run(args)
    except ZooError as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The `zoo` command: list info sample inpaint vary train data judge eval demo verify push pull convert publish.

Torch loads only where needed.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo import __version__
from zoo.contract.typed import typed
from zoo.errors import ConfigError, UnknownModelError, one_of
from zoo.training.command import add_arguments as train_arguments
from zoo.training.command import column_arguments, data_arguments, data_options, finished, piped, recipe_arguments
from zoo.training.command import run as train
from zoo.values import pairs

DEVICE = "cpu (default), cuda (each process of torchrun has its own), cuda:1, ..."
PRECISION = "in what the net multiplies: fp32, bf16 (faster where the machine does so in hardware) or auto (default: fp32)"
#: the folder of a run's judge within it
JUDGE = "judge"


def conditions(rest: Sequence[str]) -> dict[str, str]:
    """["--speaker", "jackson", "--pitch=low"] as a dictionary: the model's own conditions, which no parser knows."""
    found: dict[str, str] = {}
    left = iter(rest)
    for part in left:
        name, equals, text = part.partition("=")
        value = text if equals else next(left, None)
        if not name.startswith("--") or value is None:
            raise ConfigError(f"{part!r}: give a condition of the model as --NAME VALUE, e.g. --label sneaker.")
        key = name[2:].replace("-", "_")
        if key in found:
            raise ConfigError(f"{name} is given twice, as {found[key]!r} and as {value!r}. Give it once.")
        found[key] = value
    return found


def said(args: argparse.Namespace, own: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for by options of its own and by --option together; the same by both is a ConfigError."""
    given = {k: getattr(args, k) for k in own if getattr(args, k) is not None}
    for name in ("n", *given):
        if name in options:
            raise ConfigError(
                f"--option {name}=...: {name} is given by {'-n' if name == 'n' else '--' + name.replace('_', '-')}."
            )
    return given | dict(options)


def list_(args: argparse.Namespace) -> None:
    """zoo list"""
    from zoo.contract.registry import list_models
    from zoo.model.loading import info

    names = list_models(args.pattern, args.domain)
    if not names and not args.json:  # a program that reads JSON asks whether there are any
        raise one_of("model", args.pattern, list_models(domain=args.domain), UnknownModelError)
    cards = [info(name) for name in names]
    if args.json:
        keys = ("name", "domain", "description", "packaged", "first_stage")
        print(_json([{k: getattr(card, k) for k in keys} for card in cards]), end="")
        return
    for card in cards:
        what = "First stage. " if card.first_stage else ""
        print(f"{card.name:24} {'packaged' if card.packaged else 'recipe':10} {what}{card.description}")


def info(args: argparse.Namespace) -> None:
    """zoo info NAME"""
    from zoo.model.loading import info

    card = info(args.name)
    if args.json:
        keys = ("name", "domain", "description", "packaged", "first_stage", "config", "evaluation")
        print(_json({k: getattr(card, k) for k in keys}), end="")
    else:
        print(card)


def _json(data: Any) -> str:
    from zoo.files import dump_json

    return dump_json(data).decode()


def opened(args: argparse.Namespace) -> Any:
    """The model that is named, and a line where it is a run that is not at its end."""
    from zoo.model.loading import load
    from zoo.model.unfinished import UnfinishedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfinishedWarning)  # it is said below
        model = load(args.name, device=own_device(args.device))
    if model.progress is not None:
        print(
            f"{args.name} is a run that is not at its end: sampling the averaged weights of its checkpoint, {model.progress}."
        )
    return model


def asked(args: argparse.Namespace, model: Any, further: Sequence[str] = ()) -> dict[str, Any]:
    """The arguments for a method of the model: its conditions, and everything else that the command line says.

    Args:
        further: names of the method's own arguments, which are given as conditions are.
    """
    options: dict[str, Any] = {k: typed(v) for k, v in pairs(args.option).items()}
    given = conditions(args.rest) | ({"label": args.label} if args.label is not None else {})
    size = model.codec.size_name
    for name, text in given.items():
        away = name.removeprefix("negative_")
        if away != name and away in model.recipe.conditions:
            options.setdefault("negative", {})[away] = model.recipe.conditions[away].parse(text)
        elif name in model.recipe.conditions:
            options[name] = model.recipe.conditions[name].parse(text)
        elif name == size or name in further:
            options[name] = typed(text)
        else:
            known = [*model.recipe.conditions, *([size] if size else []), *further]
            raise one_of(f"option or condition of {args.name}", name, known)
    args.shard = args.shard or own_shard()
    own = ("sampler", "steps", "guidance_weight", "guidance_scale", "seed", "batch_size", "precision", "shard")
    found = said(args, own, options)
    if args.steer and "steer" in found:
        raise ConfigError("--option steer=...: steer is given by --steer.")
    return found | ({"steer": [steer_of(model, text) for text in args.steer]} if args.steer else {})


def steer_of(model: Any, text: str) -> Any:
    """A steer by name, NAME or NAME=VALUE: one of the model's domain, or of another package.

    VALUE is JSON or words, as of --option: {"name": value} gives arguments by name, [a, b] or a,b one after the other.
    """
    from zoo.core.steer import NAMED, STEERS

    name, equals, value = text.partition("=")
    own = {**NAMED, **model.domain.steers}
    makers = {**STEERS, **own} if name in STEERS else own
    if name not in makers:
        raise one_of("steer", name, [*own, *STEERS])
    given = typed(value) if equals else []
    positional = given if isinstance(given, list) else [] if isinstance(given, Mapping) else [given]
    named = given if isinstance(given, Mapping) else {}
    try:
        return makers[name](*positional, **named)
    except TypeError as error:
        raise ConfigError(f"--steer {name}: {error}.") from None


def mask_of(text: str, shape: Sequence[int]) -> Any:
    """The mask of what is known, as `--where` says it, for encoded objects of a shape.

    A file: .npy of bool, or a picture, of which what is brighter than the middle is known. Or slices along the axes as numpy
    writes them, ":, :, :14" or "..., 0:14" (a range alone is that of the first axis); "~" in front: all but this.
    """
    import numpy as np

    rest = text.strip().removeprefix("~")
    path = Path(rest)
    mask: Any
    if path.suffix == ".npy" or (path.suffix and path.is_file()):
        from zoo.image.data import read_mask

        mask = read_mask(path)
    else:
        try:
            parts = [part.strip() for part in rest.split(",")]
            slices = tuple(... if p == "..." else slice(*(int(v) if v else None for v in p.split(":"))) for p in parts)
            if any(isinstance(s, slice) and ":" not in p for s, p in zip(slices, parts, strict=True)):
                raise ValueError
            mask = np.zeros(tuple(shape), dtype=bool)
            mask[slices] = True
        except (ValueError, TypeError, IndexError):
            raise ConfigError(
                f"--where {text!r}: give a .npy of bool, a picture, or ranges along the axes of {tuple(shape)}, such as "
                '"0:10" or "..., :14"; with "~" in front, all but this.'
            ) from None
    return ~mask if text.strip().startswith("~") else mask


def written(args: argparse.Namespace, samples: Any) -> None:
    """Write the samples into the folder that is named, and say so."""
    out = Path(args.out)
    files = samples.save(out)
    if samples.plan.shard is not None:  # a picture of all is of no use to a part
        print(f"{len(files)} of {args.n} samples in {out}/, the shard {'/'.join(map(str, samples.plan.shard))}")
        return
    samples.plot(out / "samples.png")
    drawn = "" if args.seed is not None else f" (drawn; the same again: --seed {samples.plan.seed})"
    print(f"{len(files)} samples in {out}/, all in one picture: {out / 'samples.png'}, seed {samples.plan.seed}{drawn}")


def sample(args: argparse.Namespace) -> None:
    """zoo sample NAME"""
    model = opened(args)
    arguments = asked(args, model)
    args.seed = arguments.get("seed")
    written(args, model.sample(args.n, **arguments))


def inpaint(args: argparse.Namespace) -> None:
    """zoo inpaint NAME"""
    from zoo.core.inpaint import OPTIONS

    model = opened(args)
    own = model.domain.inpaint_options
    arguments = asked(args, model, (*own, *OPTIONS))
    args.seed = arguments.get("seed")
    known = None if args.known is None else model.domain.read(args.known, model.recipe)
    where = None
    if args.where is not None:
        if known is None:
            raise ConfigError("--where: the part of an object that is known; give the object, --known FILE.")
        where = mask_of(args.where, model.objects_encoded(known).shape)
    samples = model.inpaint(known, where, args.n, method=args.method, **arguments)
    written(args, samples)
    print(f"method {samples.plan.method['method']}: {samples.plan.cost}")


def vary(args: argparse.Namespace) -> None:
    """zoo vary NAME FILE"""
    model = opened(args)
    arguments = asked(args, model)
    args.seed = arguments.get("seed")
    item = model.domain.read(args.item, model.recipe)
    written(args, model.vary(item, args.strength, args.n, **arguments))


def own_shard() -> str | None:
    """Which part of a call is this process's, where torchrun or accelerate started several; None for one alone."""
    of = os.environ.get("WORLD_SIZE", "1")
    return None if of == "1" else f"{os.environ.get('RANK', '')}/{of}"


def own_device(device: str | None) -> str | None:
    """The device that is asked for; of several processes on a machine each has a GPU of its own."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if device == "cuda" and rank else device


def evaluate(args: argparse.Namespace) -> None:
    """zoo eval NAME"""
    from zoo.evaluation.evaluate import evaluate as measure
    from zoo.evaluation.table import format_table
    from zoo.files import dump_json, write_atomic
    from zoo.model.loading import load

    model = load(args.name, device=own_device(args.device))
    settings: dict[str, Any] = {k: typed(v) for k, v in pairs(args.option).items()}
    settings = said(args, ("steps", "sampler", "guidance_weight", "precision", "video"), settings)
    shared = own_shard() is not None
    result = measure(
        model,
        args.n,
        data=args.data,
        seed=args.seed,
        split=args.split,
        judge=args.judge,
        skip_unreadable=args.skip_unreadable,
        shared=shared,
        **settings,
    )
    if shared and os.environ.get("RANK") != "0":  # all have the same figures, and one tells them
        return
    if args.json:
        write_atomic(Path(args.json), dump_json(result))
        print(format_table(result["metrics"]))
        print(f"written to {args.json}")
    else:  # what there is of each sample would hide the rest
        print(dump_json({k: v for k, v in result.items() if not isinstance(v, list)}).decode(), end="")


def judge(args: argparse.Namespace) -> None:
    """zoo judge"""
    from zoo.contract.registry import domain_names, get_domain
    from zoo.evaluation.judge import CARD
    from zoo.evaluation.own import train_judge
    from zoo.training.command import data_options
    from zoo.training.train import recipe_of

    if (args.model is None) == (args.domain is None):
        raise ConfigError("zoo judge: give --for MODEL, a name or a folder, or --domain NAME: it says what the judge sees.")
    if args.model is not None:
        recipe = recipe_of(args.model)
    else:
        if args.domain not in domain_names():
            raise one_of("domain", args.domain, domain_names())
        recipe = next(iter(get_domain(args.domain).recipes().values()))
    recipe = recipe.override({f"codec.{k}": v for k, v in pairs(args.codec).items()})
    found = train_judge(
        get_domain(recipe.domain),
        recipe,
        args.data,
        args.out,
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        condition=args.condition,
        natural=args.model is None and not args.codec,
        data_options=data_options(args),
        augment={k: typed(v) for k, v in pairs(args.augment).items()},
    )
    for split, share in found.card["accuracy"].items():
        low, high = share["interval"]
        what = "held out" if split == "test" else split
        print(f"{what:8} accuracy {share['value']:.3f} (95 %: {low:.3f} to {high:.3f}) of {share['n']}")
    print(f"chance {found.card['chance']['value']:.3f}; {len(found.class_names)} classes; {args.out}/{CARD} says more")


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


def convert(args: argparse.Namespace) -> None:
    """zoo convert SOURCE FOLDER"""
    out = Path(args.out)
    if args.to is not None:
        if args.licence is not None or args.origin is not None:
            raise ConfigError(
                "--licence, --origin: of a model that becomes one of zoo's; one that goes out keeps its own. Leave them out."
            )
        from zoo.model.loading import load

        load(args.name, format=args.format).export(args.to, out)
        print(f"{args.name} is in {out}, in the format {args.to}")
        return
    from zoo.interop.convert import convert

    model, golden = convert(args.name, out, format=args.format, licence=args.licence, origin=args.origin)
    off = model.verify()
    print(f"{args.name} is in {out}: {model!r}. It gives the golden output of {golden} within {off:.1e}.")


def publish(args: argparse.Namespace) -> None:
    """zoo publish"""
    if args.space is not None:
        from zoo.hub.space import push_space

        if args.namespace or args.tag:
            raise ConfigError("--space pushes the page of zoo demo alone, to owner/name: leave --namespace and --tag out.")
        print(push_space(args.space, args.pattern, private=args.private))
        return
    from zoo.model.publish import publish

    for name, pushed in publish(
        args.namespace, private=args.private, pattern=args.pattern, **({"tag": args.tag} if args.tag else {})
    ):
        print(f"{name} -> {pushed}", flush=True)


def demo(args: argparse.Namespace) -> None:
    """zoo demo"""
    from zoo.demo.serve import launch

    launch(args.models, port=args.port, share=args.share, browser=not args.no_browser, host=args.host)


def data(args: argparse.Namespace) -> None:
    """zoo data SOURCE"""
    from zoo.training.look import look

    overrides = {k: typed(v) for k, v in pairs(args.set).items()}
    found = look(
        args.data,
        model=args.name,
        domain=args.domain,
        split=args.split,
        n=args.n,
        out=args.out,
        data_options=data_options(args),
        overrides=overrides,
    )
    print(_json(found) if args.json else "\n".join(found["text"]), end="" if args.json else "\n")


def parser() -> argparse.ArgumentParser:
    """The command line; every option is described in its help."""
    main = argparse.ArgumentParser(prog="zoo", description="The diffusion model zoo that goes beyond images.")
    main.add_argument("--version", action="version", version=f"zoo {__version__}")
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
    p.add_argument("--json", action="store_true", help="as JSON, for programs")

    p = command("info", info, "What a model is, its conditions and its measured quality.")
    p.add_argument("--json", action="store_true", help="as JSON, with the whole recipe and the measured figures")

    def sampling(p: argparse.ArgumentParser) -> None:
        """The options of all commands that sample."""
        p.add_argument("-n", type=int, default=4, help="how many (default 4)")
        p.add_argument("-o", "--out", default="out", help="folder (default out/)")
        p.add_argument(
            "--label",
            help="a label for all samples, or n of them with commas between; the model's other conditions (zoo info NAME) "
            "likewise",
        )
        p.add_argument("--sampler", help="ddpm, ddim, dpmpp, plms, heun or euler (default: the model's)")
        p.add_argument("--steps", type=int, help="sampling steps (default: the model's)")
        p.add_argument("--guidance-weight", type=float, help="w of the paper; 0 is plain conditional")
        p.add_argument("--guidance-scale", type=float, help="the same as 1 + w")
        p.add_argument("--seed", type=int, help="default: a random one, which is printed")
        p.add_argument("--batch-size", type=int, help="samples made at a time")
        p.add_argument(
            "--shard",
            metavar="R/N",
            help="of N processes that share the call this is number R, from 0: it makes its part, under the same file names "
            "(default: as torchrun or accelerate launch say)",
        )
        p.add_argument("--device", help=DEVICE)
        p.add_argument("--precision", help=PRECISION)
        p.add_argument(
            "--option",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="more of Model.sample; VALUE is a word, none, a pair or JSON: eta=1, clip=none, guidance_interval=[0.2,5]",
        )
        p.add_argument(
            "--steer",
            action="append",
            default=[],
            metavar="NAME[=VALUE]",
            help="a steer by name, of the model's domain or of another package; VALUE is what it takes, as of --option",
        )

    p = command("sample", sample, "Generate samples into a folder.")
    sampling(p)

    p = command("inpaint", inpaint, "Samples that agree with what is known of an object.")
    p.add_argument("--known", metavar="FILE", help="the object: a picture, a sound, a cloud or mesh, a structure file")
    p.add_argument(
        "--where",
        metavar="MASK",
        help='what of it is known: a .npy of bool, a picture (bright: known), or ranges along the encoded axes, "..., :14"; '
        '"~..." is all but this',
    )
    p.add_argument(
        "--method",
        help="replace, resample (RePaint), posterior, particles (TDS), or select (of motifs); default: posterior for pictures, "
        "select for motifs, and replace for others; --times, --jump, --products, --particles and --candidates are theirs. A "
        "domain's own ways, too: --motif 1abc.pdb:A20-35 --length 80",
    )
    sampling(p)

    p = command("vary", vary, "Variations of an object: noise is added, then taken away again.")
    p.add_argument("item", metavar="FILE", help="the object: a picture, a sound, a cloud or mesh, a structure file")
    p.add_argument("--strength", type=float, default=0.5, help="share of the steps that are run, above 0 up to 1 (default 0.5)")
    sampling(p)

    p = command("train", train, "Train a recipe on your own data.", model=False)
    p.add_argument("name", nargs="?", help="a model name (see: zoo list), a model folder, or a run's folder")
    p.add_argument("--config", dest="recipe_file", metavar="FILE", help="in place of a model: the JSON of a recipe")
    train_arguments(p)

    p = command("data", data, "What data are, and a sheet of what a net will see of them.", model=False)
    p.add_argument("data", help="a file, a folder (class subfolders become labels), or hub:owner/name[@revision]")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--domain", help="what they are data of (default: as the files' names say)")
    which.add_argument("--for", dest="name", metavar="MODEL", help="the recipe or model that is to be trained on them")
    p.add_argument("--split", default="train", choices=["train", "validation", "test"])
    p.add_argument("-n", type=int, default=36, help="samples on the sheet (default 36)")
    p.add_argument("-o", "--out", default="sheet.png", help="the sheet (default sheet.png)")
    p.add_argument("--json", action="store_true", help="as JSON, for programs")
    column_arguments(p)
    recipe_arguments(p)

    p = command("eval", evaluate, "Measure a model, beside real data and a trivial baseline.")
    p.add_argument(
        "-n", "--n", "--episodes", type=int, dest="n", help="samples, or a policy's episodes (default: the domain's)"
    )
    p.add_argument("--video", metavar="FILE", help="of a policy: a .gif or .mp4 of its first episodes")
    p.add_argument("--data", help="the real data to compare with (default: from $ZOO_DATA)")
    p.add_argument("--skip-unreadable", action="store_true", help="leave unreadable files of the data out instead of stopping")
    p.add_argument("--judge", metavar="DIR", help="a judge of the data's labels, see zoo judge (default: the model's own)")
    p.add_argument("--split", default="test", choices=["test", "validation"], help="choose on validation, report on test")
    p.add_argument("--sampler")
    p.add_argument("--steps", type=int)
    p.add_argument("--guidance-weight", type=float)
    p.add_argument("--precision", help=PRECISION)
    p.add_argument("--device", help=DEVICE)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="more of the evaluation or Model.sample, see zoo sample",
    )
    p.add_argument("--json", metavar="FILE", help="write the whole result to this file, with what there is of each sample")

    p = command("judge", judge, "Train a judge of your data's labels, for zoo eval.", model=False)
    data_arguments(p)
    p.add_argument("--for", dest="model", metavar="MODEL", help="a model that is to be judged: a name or a folder")
    p.add_argument("--domain", help="in place of a model: image, audio or point3d")
    p.add_argument("--out", required=True, help=f"folder of the judge; zoo eval finds it by itself in RUN/{JUDGE}")
    p.add_argument("--minutes", type=float, default=3.0, help="for measuring the speed and training (default 3)")
    p.add_argument("--steps", type=int, help="so many instead: the same judge again on the same machine")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--condition", default="label", help="whose labels are learnt (default label)")
    p.add_argument(
        "--codec", action="append", default=[], metavar="NAME=VALUE", help="what it sees: size=32, sample_rate=16000"
    )
    p.add_argument(
        "--augment", action="append", default=[], metavar="NAME=VALUE", help="of the domain's augmentations: flip=0.5"
    )

    p = command("demo", demo, "Watch every model in the browser; nothing leaves this machine.", model=False)
    p.add_argument(
        "--models",
        default="*",
        help="patterns of packaged models, folders and hub:owner/name, with commas between (default: all packaged ones)",
    )
    p.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    p.add_argument(
        "--host", default="127.0.0.1", help="who may come: 127.0.0.1 this machine alone (default), 0.0.0.0 the network"
    )
    p.add_argument("--share", action="store_true", help="an address at gradio.live for everybody; needs the internet")
    p.add_argument("--no-browser", action="store_true", help="open no browser")

    command("verify", verify, "Read a model strictly and recompute its golden output.")

    p = command("pull", pull, "Fetch a model from the Hub; afterwards it loads offline.")
    p.add_argument("-o", "--out", help="also copy it into this folder")
    p.add_argument("--offline", action="store_true", help="make no request: only say whether it is in the cache")

    p = command("convert", convert, "Make a model folder of another package's model, or the other way round.")
    p.add_argument("out", metavar="FOLDER", help="to write")
    p.add_argument("--format", help="of the source, such as diffusers (default: by its files)")
    p.add_argument("--to", metavar="FORMAT", help="write this format in place of zoo's own, such as diffusers")
    p.add_argument("--licence", help="of the model, where it does not come with one: mit, cc-by-nc-4.0 (default: unknown)")
    p.add_argument("--origin", metavar="TEXT", help="where the model is from, where it does not say so: an address, a paper")

    token = "The token is the user's own ($HF_TOKEN, `hf auth login`): an argument would show it to every process."
    p = command("push", push, f"Push a model to the Hub, in one commit. {token}")
    p.add_argument("repo", metavar="OWNER/NAME", help="the repository; made when it is not there")
    p.add_argument("--private", action="store_true", help="make it private")
    p.add_argument("--tag", help="a name for this state, set last, e.g. v1.0")
    p.add_argument("--no-samples", action="store_true", help="draw no sample picture where the folder has none")

    p = command("publish", publish, f"Push every packaged model to the Hub; what is there already stays. {token}", model=False)
    p.add_argument("--namespace", metavar="OWNER", help="default: $ZOO_HUB_NAMESPACE, else that of zoo")
    p.add_argument("--space", metavar="OWNER/NAME", help="in place of models: the page of zoo demo, as a Space")
    p.add_argument("--pattern", default="*", help='only these names, e.g. "image/*"; of a Space also hub:owner/name')
    p.add_argument("--private", action="store_true", help="make the repositories private")
    p.add_argument("--tag", help="default: the version of zoo")
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a ZooError is printed as one line. Returns the exit code."""
    return piped(functools.partial(_main, argv))


def _main(argv: Sequence[str] | None) -> int:
    line = parser()
    args, rest = line.parse_known_args(argv)
    args.rest = rest
    if args.rest and args.command not in ("sample", "inpaint", "vary"):  # which have a model's conditions
        line.error(f"unrecognized arguments: {' '.join(args.rest)}")
    return finished(args.run, args)


if __name__ == "__main__":
    sys.exit(main())

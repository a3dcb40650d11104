"""The command that trains: its options, and what they do. Torch loads only when it runs."""

from __future__ import annotations

import argparse
import errno
import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from zoo.contract.typed import NAMED
from zoo.errors import ConfigError, ZooError
from zoo.training import COMPILED
from zoo.values import pairs

#: how a value of nothing is spelt, as for every option of the command line
NONE = [k for text, value in NAMED.items() if value is None for k in (text, text.capitalize())]
#: what a shell reports of a program whose reader went away: 128 and the number of SIGPIPE
BROKEN_PIPE = 141
#: of a run whose length nobody says
STEPS = 20_000
#: parts of a sample that a Hub dataset may keep in a column of another name; a domain takes those that it knows
COLUMNS = ("image", "audio", "label")


def data_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say what the data are."""
    parser.add_argument(
        "--data", required=True, help="a file, a folder (class subfolders become labels), or hub:owner/name[@revision]"
    )
    column_arguments(parser)


def column_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say how the data are to be read."""
    for name in COLUMNS:
        parser.add_argument(f"--{name}-column", metavar="NAME", help=f"column of a Hub dataset that holds the {name}")
    parser.add_argument(
        "--captions",
        metavar="FILE",
        help="what the pictures of a folder show: metadata.jsonl (file_name, text), a CSV or a TSV, by its name in the folder",
    )
    parser.add_argument("--data-config", dest="config", metavar="NAME", help="configuration of a Hub dataset that has several")
    parser.add_argument("--max-rows", type=int, metavar="N", help="take only the first N rows of a Hub dataset")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave unreadable files out instead of stopping")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of training; every one is described in its help."""
    data_arguments(parser)
    parser.add_argument("--out", required=True, help="folder of the run and of the finished model")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help=f"optimizer steps (default {STEPS}; with --resume those that the run had)")
    length.add_argument(
        "--minutes", type=float, metavar="M", help="the time of the whole run: the steps are planned so that it ends in time"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, bit for bit")
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="start from the weights of this model (a name, a folder or hub:owner/name); what fits is taken, the rest is said",
    )
    parser.add_argument(
        "--freeze",
        action="append",
        metavar="PATTERN",
        help="do not train the parameters or modules whose names fit: 'net.down.*'; several times for several patterns",
    )
    parser.add_argument("--max-minutes", type=float, help="stop and save after so long, wherever the run is")
    parser.add_argument(
        "--save-every",
        type=int,
        default=500,
        help="steps between checkpoints, which also come by time; 0 for one at the end alone",
    )
    parser.add_argument(
        "--preview-every", type=int, help="steps between preview pictures, 0 for none (default: after 1, 2, 4, 8, ... minutes)"
    )
    parser.add_argument(
        "--workers", type=int, help="processes that read and prepare the data ahead; default: what keeps the net from waiting"
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="decode files anew each time: keep nothing of them in $ZOO_CACHE/decoded"
    )
    parser.add_argument(
        "--compile",
        nargs="?",
        const="default",
        default=False,
        choices=COMPILED,
        help="run the net through torch.compile, worth minutes of waiting; reduce-overhead: as CUDA graphs, for small nets",
    )
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    parser.add_argument(
        "--fsdp",
        action="store_true",
        help="share the net out over the processes of torchrun or accelerate launch: for one that does not fit on a device",
    )
    recipe_arguments(parser)


def recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """The option that changes a recipe."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="override the recipe; VALUE is a word, none or JSON: training.lr=2e-4",
    )


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was said of the data, as options of the domain's `dataset`."""
    names = [*(f"{c}_column" for c in COLUMNS), "captions", "config", "max_rows", "skip_unreadable"]
    return {n: getattr(args, n) for n in names if getattr(args, n) not in (None, False)}


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """What was said of the recipe."""
    found: dict[str, Any] = {k: None if v in NONE else v for k, v in pairs(args.set).items()}
    return found | ({"training.freeze": list(args.freeze)} if args.freeze else {})


def run(args: argparse.Namespace) -> None:
    """zoo train NAME"""
    began = time.monotonic()  # torch loads for seconds, and they are the run's
    from zoo.data.decoded import switched_off
    from zoo.training.train import train
    from zoo.training.trainer import leave_group

    if (args.name is None) == (args.recipe_file is None):
        raise ConfigError("what is trained? Give a model (see: zoo list), its folder, or --config with a recipe's JSON file.")
    steps = STEPS if args.steps is None and args.minutes is None and not args.resume else args.steps
    try:
        with switched_off() if args.no_cache else nullcontext():
            model = train(
                args.name,
                config=args.recipe_file,
                data=args.data,
                steps=steps,
                minutes=args.minutes,
                began=began,
                out=args.out,
                seed=args.seed,
                resume=args.resume,
                init=args.init,
                cpu=args.cpu,
                fsdp=args.fsdp,
                data_options=data_options(args),
                overrides=overrides(args),
                max_minutes=args.max_minutes,
                save_every=args.save_every,
                workers=args.workers,
                compile=args.compile,
                **({} if args.preview_every is None else {"preview_every": args.preview_every}),
            )
    except (KeyboardInterrupt, SystemExit):
        leave_group()  # a signal ended the run, and everything is saved
        raise
    leave_group()
    if model.is_first_stage:
        print(
            f"the first stage is in {args.out}. Measure it: zoo eval {args.out} --data {args.data}. Train a model on its "
            f"latents: zoo train MODEL --data {args.data} --set codec.stage={args.out}"
        )
    else:
        print(f"the model is in {args.out}. Sample it: zoo sample {args.out} -n 16 -o out/")


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """`python -m zoo.<domain>.train`: the command for one recipe. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"zoo train {name}", description=f"Train {name} on your own data.")
    parser.set_defaults(name=name, recipe_file=None)
    add_arguments(parser)
    return piped(functools.partial(_main, parser, argv))


def _main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    return finished(run, parser.parse_args(argv))


def piped(command: Callable[[], int]) -> int:
    """Run a command whose output may go to a reader that stops early (`head`), or to a full disk. Returns the exit code."""
    try:
        try:
            return command()
        finally:
            if sys.stdout is not None:  # it is where the program was started with it closed
                sys.stdout.flush()
    except BrokenPipeError:
        _silence()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _silence()
        print("zoo: no room on the disk for the output.", file=sys.stderr)
        return 2


def _silence() -> None:
    """Let go what is left in the buffer and has nowhere to go: the interpreter would complain of it as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def finished(run: Any, args: argparse.Namespace) -> int:
    """Run a command; a ZooError is printed as one line. Returns the exit code; after a signal 128 and its number."""
    try:
        run(args)
    except ZooError as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 2
    except SystemExit as end:  # a run that SIGTERM ended, see `zoo.training.train.fit`
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        return 130
    return 0

"""A checkpoint of EDM as a folder of safetensors and JSON, which zoo reads.

    python benchmarks/convert_edm.py edm/ edm-cifar10-32x32-uncond-vp.pkl out/

edm/ is a checkout of NVlabs/edm. Its `.pkl` files hold the source code of their classes, and to open one runs that code, with
all that you may do on this machine: do it only with a file that you trust, better on a machine or in a container that holds
nothing of value. This program needs torch and safetensors and does not import zoo, which opens no pickle. `zoo convert out/
mine/` makes a model folder of zoo's of what it writes. `--licence` and `--origin` say whose weights these are, which goes into
README.md, and from there into the card; a licence that nobody says is "unknown" there.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import pickle
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file


def given(part: Any) -> dict[str, Any]:
    """All options that a module of theirs was made with, also those that nobody gave: their pickles keep the given ones."""
    plain = type(part).__mro__[1] if hasattr(type(part), "init_kwargs") else type(part)
    known = [p for p in list(inspect.signature(plain.__init__).parameters.values())[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    found = {p.name: p.default for p in known if p.default is not p.empty}
    return found | dict(zip((p.name for p in known), part.init_args, strict=False)) | dict(part.init_kwargs)


def options_of(net: Any) -> dict[str, Any]:
    """What is to be known of a network: the options of its preconditioning and of the net inside."""
    inside = {k: v for k, v in given(net.model).items() if k not in ("in_channels", "out_channels")}
    found = inside | given(net) | {"precond": type(net).__name__}
    # what has no number in JSON: no upper end
    return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in found.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="a checkout of NVlabs/edm")
    parser.add_argument("checkpoint", type=Path, help="a .pkl that you trust")
    parser.add_argument("folder", type=Path, help="to write; it must be new")
    parser.add_argument("--licence", help="of these weights, as their publisher says: cc-by-nc-sa-4.0, ...")
    parser.add_argument("--origin", help="where they are from: an address, a paper")
    args = parser.parse_args(arguments)
    if args.folder.exists():
        print(f"error: {args.folder} exists: give the name of a new folder.", file=sys.stderr)
        return 1
    sys.path.insert(0, str(args.sources))
    with args.checkpoint.open("rb") as file:
        held = pickle.load(file)
    net = held["ema"] if isinstance(held, dict) else held
    config = {"format": "edm", "options": options_of(net)}
    tensors = {k: v.detach().cpu().float().clone().contiguous() for k, v in net.state_dict().items()}
    text = json.dumps(config, indent=1)
    args.folder.mkdir(parents=True)
    save_file(tensors, args.folder / "model.safetensors")
    (args.folder / "config.json").write_text(text + "\n", encoding="utf-8")
    facts = {k: v.strip() for k, v in (("license", args.licence), ("origin", args.origin)) if v and v.strip()}
    if facts:  # a card's metadata: texts of JSON are texts of YAML
        lines = "".join(f"{k}: {json.dumps(v)}\n" for k, v in facts.items())
        (args.folder / "README.md").write_text(f"---\n{lines}---\n", encoding="utf-8")
    print(f"{args.folder}: {type(net).__name__} of {type(net.model).__name__}. Now: zoo convert {args.folder} mine/")
    return 0


if __name__ == "__main__":
    sys.exit(main())

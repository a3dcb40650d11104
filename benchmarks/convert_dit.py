"""A checkpoint of DiT (DiT-XL-2-256x256.pt) or of SiT (SiT-XL-2-256x256.pt) as a model folder of zoo.

    python benchmarks/convert_dit.py DiT-XL-2-256x256.pt out/ --vae vae/
    python benchmarks/convert_dit.py SiT-XL-2-256x256.pt out/ --vae vae/ --kind sit

A `.pt` file is a pickle, which can run code, and zoo opens none. This program does, and only with torch's weights-only loader,
which takes tensors and plain containers and refuses everything else. What it reads goes into a folder of safetensors, and from
there on nothing is a pickle any more.

vae/ is the autoencoder that the net was trained with, as diffusers writes it (config.json and safetensors; DiT's is
stabilityai/sd-vae-ft-ema or -mse). The number of heads is not in the weights: 16 in DiT-XL and DiT-L, 12 in B, 6 in S.

Nor do the weights say whether they are DiT's or SiT's, whose tensors are the same: say --kind sit. Of SiT's options of training
there are --path-type Linear and --prediction velocity, which are its defaults and those of what is published; others are
refused.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import torch
from pickles import opened, state
from torch import Tensor

import zoo
from zoo import files
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain
from zoo.errors import CheckpointError, ZooError
from zoo.interop.dit import positions
from zoo.interop.origin import UNKNOWN, Origin, told
from zoo.model.budget import limited
from zoo.model.model import Model

#: hidden size -> heads of attention, of the published sizes
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
#: of what is published under each name, the name in full, and what the recipe says of it
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dit": (
        "DiT",
        {
            "paper": "Peebles & Xie 2022, Scalable diffusion models with transformers.",
            # of its sampler: betas from 1e-4 to 0.02 in a line, and the noise is predicted
            "schedule": {"kind": "discrete", "curve": "linear", "T": 1000},
            "sampling": {"sampler": "ddim", "steps": 250, "guidance_weight": 3.0},
        },
    ),
    "sit": (
        "SiT",
        {
            "paper": "Ma et al. 2024, SiT: Exploring flow and diffusion-based generative models with scalable interpolant "
            "transformers.",
            "schedule": {"kind": "flow"},
            "sampling": {"sampler": "euler", "steps": 250, "guidance_weight": 3.0},
        },
    ),
}
#: options of SiT's training, the only ones that are read
PATH, PREDICTION = "Linear", "velocity"


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: of its averaged weights where it has several sets.

    Raises:
        CheckpointError: it holds something else than tensors and plain containers, or no net of DiT.
    """
    found = opened(path)
    for key in ("ema", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    tensors = state(found, path)
    needed = (
        "x_embedder.proj.weight",
        "y_embedder.embedding_table.weight",
        "final_layer.linear.weight",
        "blocks.0.mlp.fc1.weight",
    )
    if missing := [k for k in needed if k not in tensors]:
        raise CheckpointError(f"{path} is no checkpoint of DiT or SiT: it has no {', '.join(missing)}.")
    return tensors


def shapes_of(tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """What the shapes of the weights say of the net, and the side and channels of its latents.

    Raises:
        CheckpointError: shapes that no DiT has.
    """
    width, channels, patch, across = tensors["x_embedder.proj.weight"].shape
    depth = 1 + max(int(m[1]) for k in tensors if (m := re.match(r"blocks\.(\d+)\.", k)))
    out = tensors["final_layer.linear.weight"].shape[0]
    place = tensors.get("pos_embed")
    if place is None:
        raise CheckpointError(f"{path} has no pos_embed, which says how large its latents are.")
    side = round(place.shape[1] ** 0.5)
    if patch != across or side * side != place.shape[1] or out not in (patch**2 * channels, 2 * patch**2 * channels):
        raise CheckpointError(
            f"{path}: shapes that no DiT has: patches {patch} x {across}, {place.shape[1]} places, {out} numbers."
        )
    if not torch.allclose(place.float(), positions(width, side), atol=1e-4):
        raise CheckpointError(f"{path}: its pos_embed are not the sines and cosines of DiT: another net.")
    return {
        "width": width, "depth": depth, "patch": patch, "inner": tensors["blocks.0.mlp.fc1.weight"].shape[0],
        "learned_variance": out == 2 * patch**2 * channels, "side": side * patch, "channels": channels,
        "labels": tensors["y_embedder.embedding_table.weight"].shape[0] - 1,
    }  # fmt: skip


def convert(
    path: Path,
    folder: Path,
    vae: Path,
    heads: int | None = None,
    name: str | None = None,
    kind: str = "dit",
    licence: str | None = None,
    origin: str | None = None,
) -> Model:
    """Write a checkpoint as a model folder; returns the model as it is read from there.

    Args:
        kind: "dit" or "sit": whose it is, which the tensors do not say.
        licence, origin: of the weights, as their publisher says; a licence that nobody says is "unknown".

    Raises:
        CheckpointError: a file that is not one of DiT, or an autoencoder of other latents. ConfigError: an empty text.
    """
    known = told(Origin(path.stem, path.name), licence, origin)
    tensors = read(path)
    options = shapes_of(tensors, path)
    side, channels, labels, learned = (options.pop(k) for k in ("side", "channels", "labels", "learned_variance"))
    tensors.pop("pos_embed")
    heads = HEADS.get(options["width"]) if heads is None else heads
    if heads is None:
        raise CheckpointError(f"{path}: a width of {options['width']} is none of the published ones: say the heads, --heads N.")
    stage = zoo.load(vae, format="diffusers")
    if not stage.is_first_stage or stage.denoiser.latent_shape[0] != channels:  # type: ignore[union-attr,index]
        raise CheckpointError(f"{vae} is no autoencoder with latents of {channels} channels, as {path} has.")
    factor = stage.codec.shape[-1] // stage.denoiser.latent_shape[-1]  # type: ignore[union-attr,index]
    own = stage.recipe.override({"codec.size": side * factor})
    with torch.no_grad():
        sized = Model(own, get_domain("image"))
        sized.denoiser.load_state_dict(stage.denoiser.state_dict())
    full, process = KINDS[kind]
    second, prediction = ({"learn_sigma": learned}, "flow") if kind == "sit" else ({}, "eps")
    recipe = Recipe.parse(
        {
            "name": name or re.sub(r"[^\w.-]+", "-", path.stem),
            "domain": "image",
            "description": f"{full}, converted from {known.place}.",
            "licence": known.licence,
            "codec": {
                "size": side * factor,
                "channels": stage.codec.shape[0],
                "stage": {"name": str(vae), "recipe": own.model_dump(mode="json") | {"licence": own.licence or UNKNOWN}},
            },
            "denoiser": kind,
            "net": options | {"heads": heads} | second,
            "conditions": {"label": {"values": [str(i) for i in range(labels)]}},
            "diffusion": {"prediction": prediction, "learned_variance": learned and kind == "dit"},
        }
        | process
    )
    with limited({k: tuple(v.shape) for k, v in tensors.items()} | _shapes(sized), path.parent, weights=path.name):
        model = Model(recipe, get_domain("image"), stage=sized, filled=False)
    files.load_strict(model.denoiser, tensors, path)
    config = stage.recipe.net["config"]
    codec: Any = model.codec
    codec.deviation.fill_(1 / config["scaling_factor"])
    codec.mean.fill_(config["shift_factor"] or 0.0)
    model.recipe = model.recipe.staged(codec.seal().spec)
    model.save_pretrained(folder)
    return zoo.load(folder)


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {f"stage.{k}": tuple(v.shape) for k, v in model.denoiser.state_dict().items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path, help="to write")
    parser.add_argument("--vae", type=Path, required=True, help="the autoencoder's folder, as diffusers writes it")
    parser.add_argument("--heads", type=int, help="of attention (default: those of the published sizes)")
    parser.add_argument("--name", help="of the model (default: that of the file)")
    parser.add_argument("--kind", choices=KINDS, default="dit", help="whose checkpoint it is, which its tensors do not say")
    parser.add_argument("--path-type", default=PATH, help="of SiT's training")
    parser.add_argument("--prediction", default=PREDICTION, help="of SiT's training")
    parser.add_argument("--licence", help="of these weights, as their publisher says: cc-by-nc-4.0, ... (default: unknown)")
    parser.add_argument("--origin", help="where they are from: an address, a paper")
    args = parser.parse_args(arguments)
    try:
        if (args.path_type, args.prediction) != (PATH, PREDICTION):
            raise CheckpointError(
                f"--path-type {args.path_type} --prediction {args.prediction} is not supported: of SiT, and only there, "
                f"--path-type {PATH} with --prediction {PREDICTION} is."
            )
        model = convert(args.checkpoint, args.folder, args.vae, args.heads, args.name, args.kind, args.licence, args.origin)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{args.folder}: {model!r}; golden output again within {model.verify():.0e}. zoo sample {args.folder} --label 0 -o out/"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

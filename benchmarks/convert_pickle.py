"""A checkpoint that is a pickle as a folder of safetensors and JSON, which zoo reads.

    python benchmarks/convert_pickle.py guided-diffusion 64x64_diffusion.pt out/ $MODEL_FLAGS
    python benchmarks/convert_pickle.py improved-diffusion ema_0.9999_500000.pt out/ $MODEL_FLAGS $DIFFUSION_FLAGS
    python benchmarks/convert_pickle.py k-diffusion model_00100000.pth out/ [--config config.json] [--weights model]
    python benchmarks/convert_pickle.py foldingdiff results/ out/ [--weights train]
    python benchmarks/convert_pickle.py genie weights/scope_l_128/ out/ [--config configuration]
    python benchmarks/convert_pickle.py diffusion-policy epoch=0500-....ckpt out/ [--weights model]
    python benchmarks/convert_pickle.py dit DiT-XL-2-256x256.pt out/ --vae vae/          # see convert_dit.py
    python benchmarks/convert_pickle.py sit SiT-XL-2-256x256.pt out/ --vae vae/          # the same with --kind sit

A `.pt` file is a pickle, which can run code, and zoo opens none. This program does, and only with torch's weights-only loader,
which takes tensors and plain containers and refuses everything else. What it reads is written into a new folder, which zoo then
loads; where that fails, no folder is left. `zoo convert out/ mine/` makes a model folder of zoo's of it.

guided-diffusion and improved-diffusion: a file holds no flags. Give those of the README that the model was published with, as
its sample scripts take them. What the tensors say (num_channels, channel_mult, num_res_blocks, attention_resolutions,
learn_sigma, class_cond, use_scale_shift_norm, resblock_updown) is read off them, and compared where you give it. They do not
say image_size, num_heads or num_head_channels, and noise_schedule: these must be given. All others are that package's defaults.

k-diffusion: the config is inside the file, or beside it. The averaged weights (model_ema) are taken unless you say model.

foldingdiff: the folder that its training wrote, or that was published: config.json, training_args.json,
training_mean_offset.npy and models/best_by_valid/*.ckpt, of which the latest epoch is taken, as by its authors.
`--weights train` takes models/best_by_train. The three files beside the weights stay as they are.

genie: the folder of a run, with its `configuration` and version_N/checkpoints/epoch=N.ckpt, of which the latest version and its
latest epoch are taken, as by its authors; or a folder as published, with epoch=N.ckpt beside the configuration; or a file.
Options that the configuration leaves out are its package's defaults, and written into the config.

diffusion-policy: a `.ckpt` of real-stanford/diffusion_policy's DiffusionUnetLowdimPolicy, see convert_policy.py. The averaged
weights (ema_model) are taken where it was trained with them, unless you say model.

`--licence cc-by-nc-4.0 --origin https://...` say whose weights these are, in all formats: it is written into the folder's
README.md, and from there into the card of what `zoo convert` makes. A licence that nobody says is "unknown" there. The licence
of a package's code need not be that of weights: none is guessed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from convert_policy import AVERAGED, policy_of
from pickles import opened, state
from torch import Tensor

import zoo
from zoo import files
from zoo.errors import CheckpointError, ConfigError, ZooError, one_of
from zoo.interop import diffusion_policy, foldingdiff, genie, guided_diffusion, k_diffusion
from zoo.interop.converted import FORMAT, OPTIONS
from zoo.interop.origin import LICENCE_FILES, Origin, read_origin, told, written_card
from zoo.interop.reading import FITS, read_object

#: flags that no tensor says, and without which such a net is not known
GIVEN = ("image_size", "noise_schedule")
#: defaults of flags in guided-diffusion (22e0df8); those of improved-diffusion (1bc7bbb) differ in one
DEFAULTS: dict[str, Any] = {
    "num_heads": 4, "num_head_channels": None, "num_heads_upsample": None, "dropout": 0.0, "use_new_attention_order": False,
    "diffusion_steps": 1000, "timestep_respacing": "", "predict_xstart": False, "rescale_timesteps": False,
    "sigma_small": False, "use_ddim": False,
}  # fmt: skip
PACKAGES = {"guided-diffusion": {}, "improved-diffusion": {"rescale_timesteps": True}}
#: by which loss a checkpoint of foldingdiff was the best, and the epoch in its name
BEST, EPOCH = ("valid", "train"), re.compile(r"epoch=(\d+)")
#: defaults of the configuration of genie (42e4c99), as its texts would say them; it must say maximumNumResidues
GENIE: dict[str, Any] = {
    "minimumNumResidues": None, "numTimesteps": 1000, "schedule": "cosine", "singleFeatureDimension": 128,
    "pairFeatureDimension": 128, "positionalEmbeddingDimension": 128, "timestepEmbeddingDimension": 128,
    "relativePositionK": 32, "templateType": "v1", "numPairTransformLayers": 5, "includeTriangularMultiplicativeUpdate": True,
    "includeTriangularAttention": False, "triangularMultiplicativeHiddenDimension": 128,
    "triangularAttentionHiddenDimension": 32, "triangularAttentionNumHeads": 4, "triangularDropout": 0.25, "pairTransitionN": 4,
    "numStructureLayers": 5, "numStructureBlocks": 1, "ipaHiddenDimension": 16, "ipaNumHeads": 12, "ipaNumQkPoints": 4,
    "ipaNumVPoints": 8, "ipaDropout": 0.1, "numStructureTransitionLayers": 1, "structureTransitionDropout": 0.1,
}  # fmt: skip
CONFIGURATION, EPOCHS, VERSION = "configuration", re.compile(r"epoch=(\d+)\.ckpt"), re.compile(r"version_(\d+)")
TRUE, FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


def written(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    weights: str = files.WEIGHTS,
    format: str = k_diffusion.NAME,
    beside: Iterable[Path] = (),
    card: str = "",
) -> Any:
    """A new folder with these weights and this config, as zoo loads it; none is left where it does not.

    Args:
        format: where the config does not say it.
        beside: further files, which are copied.
        card: text of its README.md, see `zoo.interop.origin.written_card`; empty for none.

    Raises:
        CheckpointError: the folder exists; and what `zoo.load` raises.
    """
    if folder.exists() or folder.is_symlink():
        raise CheckpointError(f"{folder} exists: give the name of a new folder.")
    try:
        text = json.dumps(config, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the config of {folder} is not plain data, as JSON holds it: {error}.") from None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be made: {error}. Give the name of a new folder.") from None
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as place:
        made = Path(place) / folder.name
        made.mkdir()
        # a tensor that others share memory with, or that is a part of a larger one, is written for itself
        files.save_tensors(made / weights, {k: v.clone().contiguous() for k, v in tensors.items()})
        (made / files.CONFIG).write_text(text, encoding="utf-8")
        for path in beside:
            shutil.copyfile(path, made / path.name)
        if card:
            (made / files.CARD).write_text(card, encoding="utf-8")
        try:
            model = zoo.load(made, format=str(config.get(FORMAT, format)))
        except ZooError as error:  # of files that are gone by the time that anybody reads it
            raise CheckpointError(f"{folder} is not written. " + str(error).replace(f"{made}/", "")) from None
        shutil.move(made, folder)
    return model


def flag(name: str, text: str) -> Any:
    """The value of a flag of guided-diffusion, as its scripts read it.

    Raises:
        ConfigError: a name or a value that they do not take.
    """
    kinds = guided_diffusion.KINDS
    if name not in kinds:
        raise one_of("flag", name, sorted([*kinds, *guided_diffusion.WITHOUT_EFFECT]))
    kind = kinds[name].removesuffix("?")
    said, fits = FITS[kind]
    value: Any = text
    try:
        if kind == "flag":
            value = {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[text.lower()]
        elif kind in ("list", "wholes"):
            numbers = [float(n) for n in text.split(",") if n.strip()]
            value = [int(n) if n.is_integer() else n for n in numbers]
        elif kind in ("whole", "number"):
            value = int(text) if kind == "whole" else float(text)
    except (KeyError, ValueError):
        value = None
    if value == [] or (value == -1 and kinds[name].endswith("?")):  # which stand for the default
        return None
    if not fits(value):
        raise ConfigError(f"--{name} {text}: it must be {said}.")
    return value


def flags_of(words: list[str]) -> dict[str, Any]:
    """{name: value} of what stands behind the folder: --num_channels 128 --learn_sigma True.

    Raises:
        ConfigError: a flag without a value, or one that is not known.
    """
    found: dict[str, Any] = {}
    left = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    while left:
        name = left.pop(0)
        if not name.startswith("--") or not left:
            raise ConfigError(f"{name}: give flags as their scripts take them: --num_channels 128 --learn_sigma True.")
        name, text = name.removeprefix("--"), left.pop(0)
        if name in guided_diffusion.WITHOUT_EFFECT:
            continue
        if (value := flag(name, text)) is not None:  # -1 and an empty text stand for the default
            found[name] = value
    return found


def convert_guided(
    path: Path, folder: Path, flags: Mapping[str, Any], package: str = "guided-diffusion", card: str = ""
) -> Any:
    """Write a checkpoint of guided-diffusion or improved-diffusion as a folder; returns the model.

    Args:
        card: as of `written`.

    Raises:
        CheckpointError, ConfigError: another file, flags that are missing, or that do not fit it.
    """
    tensors = state(opened(path), path)
    said = guided_diffusion.structure({k: tuple(v.shape) for k, v in tensors.items()}, path)
    missing = [name for name in GIVEN if name not in flags]
    if "num_heads" not in flags and "num_head_channels" not in flags:
        missing.append("num_heads (or num_head_channels)")
    if missing:
        raise ConfigError(
            f"{path} does not say {', '.join(missing)}, and zoo does not guess: give the flags that the model was published "
            "with. Where these leave them out, its scripts took --image_size 64 --num_heads 4 --noise_schedule linear."
        )
    options = DEFAULTS | PACKAGES[package] | {k: v for k, v in said.items() if k in guided_diffusion.KINDS} | dict(flags)
    options.setdefault("attention_resolutions", [options["image_size"] // rate for rate in said["attention"]])
    # with one level alone it changes nothing
    options.setdefault("resblock_updown", False)
    return written(folder, tensors, {FORMAT: guided_diffusion.NAME, OPTIONS: options}, card=card)


def convert_k(path: Path, folder: Path, config: Path | None = None, weights: str = "model_ema", card: str = "") -> Any:
    """Write a checkpoint of k-diffusion as a folder; returns the model.

    Args:
        config: its JSON; default: what is inside the file.
        weights: "model_ema", the averaged ones, or "model".
        card: as of `written`.

    Raises:
        CheckpointError: another file, or none of these weights.
    """
    found = opened(path)
    if not isinstance(found, dict) or weights not in found:
        there = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(f"{path} is no checkpoint of k-diffusion with the weights {weights!r}: it holds {there[:200]}.")
    said = found.get("config") if config is None else files.read_json(config)
    if not isinstance(said, dict):
        raise CheckpointError(f"{path} holds no config: give the file that it was trained with, --config config.json.")
    return written(folder, state(found[weights], path), said, f"{weights}.safetensors", card=card)


def convert_folding(
    path: Path, folder: Path, weights: str = "valid", licence: str | None = None, origin: str | None = None
) -> Any:
    """Write the results of a training of FoldingDiff as a folder; returns the model.

    Args:
        path: their folder.
        weights: "valid" or "train": by which loss the checkpoint was the best.
        licence, origin: where the folder's own README.md does not say them.

    Raises:
        CheckpointError: another folder, or none of these checkpoints. ConfigError: another licence than it says.
    """
    found = {int(n[1]): p for p in (path / "models" / f"best_by_{weights}").glob("*.ckpt") if (n := EPOCH.search(p.name))}
    if not found:
        raise CheckpointError(f"{path} holds no models/best_by_{weights}/epoch=N-....ckpt: give the folder of its results.")
    held = opened(chosen := found[max(found)])
    if not isinstance(held, dict) or "state_dict" not in held:
        raise CheckpointError(f"{chosen} is no checkpoint of Lightning: it holds no state_dict.")
    config = read_object(path / files.CONFIG)
    kept = (foldingdiff.ARGUMENTS, foldingdiff.MEANS, files.CARD, *LICENCE_FILES)
    beside = [path / name for name in kept if (path / name).is_file()]
    card = ""
    if licence is not None or origin is not None:
        known = read_origin(path)
        told(known, licence, origin)
        card = written_card(known.licence or licence, origin, known.text)
    return written(folder, state(held["state_dict"], chosen), config, format=foldingdiff.NAME, beside=beside, card=card)


def configured(path: Path) -> dict[str, Any]:
    """The options of a configuration file of Genie: a name and a value a line; those of training alone are left out.

    Raises:
        CheckpointError: no such file, a line of something else, an unknown name, one that comes twice, or a wrong value.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}, the configuration, cannot be read ({error}). Say which it is: --config FILE.") from None
    found: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        if not (words := line.split()):
            continue
        if len(words) != 2 or words[0] in found:
            what = "comes a second time" if words[0] in found else "has not one name and one value: theirs would pass it over"
            raise CheckpointError(f"{path}: line {number}, {line.strip()[:60]!r}, {what}. Correct it.")
        name, text = words
        if name not in genie.KINDS and name not in genie.WITHOUT_EFFECT:
            raise one_of(f"option of {path}", name, sorted(genie.KINDS), CheckpointError)
        said, fits = FITS[genie.KINDS.get(name, "text").removesuffix("?")]
        value: Any = {"True": True, "False": False}.get(text, text)
        try:
            if genie.KINDS.get(name, "") in ("whole", "count", "count?"):
                value = int(text)
            elif genie.KINDS.get(name) == "number":
                value = float(text)
        except ValueError:
            value = None
        if name in genie.KINDS and not fits(value):
            raise CheckpointError(f"{path}: line {number}: {name} {text}: it must be {said}.")
        found[name] = value
    return {k: v for k, v in found.items() if k in genie.KINDS}


def latest(run: Path) -> Path:
    """The checkpoint of a folder of Genie: the latest epoch, in a run that of its latest version.

    Raises:
        CheckpointError: there is none.
    """
    versions = {int(n[1]): p / "checkpoints" for p in run.glob("version_*") if (n := VERSION.fullmatch(p.name))}
    place = versions[max(versions)] if versions else run
    found = {int(n[1]): p for p in place.glob("epoch=*.ckpt") if (n := EPOCHS.fullmatch(p.name))}
    if not found:
        raise CheckpointError(f"{place} holds no epoch=N.ckpt: give the folder of a run, that of published weights, or a file.")
    return found[max(found)]


def convert_genie(path: Path, folder: Path, config: Path | None = None, card: str = "") -> Any:
    """Write a checkpoint of Genie as a folder; returns the model.

    Args:
        path: the folder of a run, or of published weights, or a checkpoint.
        config: its configuration; default: beside the checkpoint, or in the folder of its run.
        card: the text of the folder's README.md, see `zoo.interop.origin.written_card`; none where it is empty.

    Raises:
        CheckpointError: another folder or file, or an option that is missing, unknown or of another kind.
    """
    chosen = latest(path) if path.is_dir() else path
    beside = [p / CONFIGURATION for p in (chosen.parent, chosen.parent.parent.parent)]
    said = configured(config or next((p for p in beside if p.is_file()), beside[0]))
    if "maximumNumResidues" not in said:
        raise CheckpointError(
            "the configuration does not say maximumNumResidues, and zoo does not guess: the net knows places along a chain as "
            "shares of it. Add the length that the model was trained with."
        )
    held = opened(chosen)
    if not isinstance(held, dict) or "state_dict" not in held:
        raise CheckpointError(f"{chosen} is no checkpoint of Lightning: it holds no state_dict.")
    tensors = state(held["state_dict"], chosen)
    if odd := [k for k in tensors if not k.startswith("model.")]:
        raise CheckpointError(f"{chosen} is no checkpoint of genie: {odd[0]} is not of its model.")
    options = {**GENIE, **said}
    own = {k.removeprefix("model."): v for k, v in tensors.items()}
    return written(folder, own, {FORMAT: genie.NAME, OPTIONS: options}, card=card)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] in (["dit"], ["sit"]):
        import convert_dit

        return convert_dit.main([*arguments[1:], "--kind", arguments[0]])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = [*PACKAGES, k_diffusion.NAME, foldingdiff.NAME, genie.NAME, diffusion_policy.NAME, "dit", "sit"]
    parser.add_argument("format", choices=kinds)
    parser.add_argument("checkpoint", type=Path, help="a file; of foldingdiff and genie the folder of a run")
    parser.add_argument("folder", type=Path, help="to write; it must be new")
    parser.add_argument("--config", type=Path, help="k-diffusion: the JSON of its training; genie: its configuration")
    which = "k-diffusion: model_ema (the default) or model; foldingdiff: valid (the default) or train; diffusion-policy: "
    which += "ema_model (the default where there is one) or model"
    parser.add_argument("--weights", choices=list(dict.fromkeys([*k_diffusion.WEIGHTS, *BEST, *AVERAGED])), help=which)
    parser.add_argument("--licence", help="of these weights, as their publisher says: mit, cc-by-nc-4.0, ...")
    parser.add_argument("--origin", help="where they are from: an address, a paper")
    args, words = parser.parse_known_args(arguments)
    try:
        told(Origin("", ""), args.licence, args.origin)
        card = written_card(args.licence, args.origin)
        if args.format == k_diffusion.NAME:
            if words:
                raise ConfigError(f"{' '.join(words)}: k-diffusion takes --config and --weights alone.")
            model = convert_k(args.checkpoint, args.folder, args.config, args.weights or k_diffusion.WEIGHTS[0], card)
        elif args.format == foldingdiff.NAME:
            if words or args.config or args.weights not in (None, *BEST):
                raise ConfigError(f"foldingdiff takes --weights {' or '.join(BEST)} alone.")
            model = convert_folding(args.checkpoint, args.folder, args.weights or BEST[0], args.licence, args.origin)
        elif args.format == genie.NAME:
            if words or args.weights:
                raise ConfigError("genie takes --config alone.")
            model = convert_genie(args.checkpoint, args.folder, args.config, card)
        elif args.format == diffusion_policy.NAME:
            if words or args.config or args.weights not in (None, *AVERAGED):
                raise ConfigError(f"diffusion-policy takes --weights {' or '.join(AVERAGED)} alone.")
            made = policy_of(args.checkpoint, args.weights)
            model = written(args.folder, *made, format=diffusion_policy.NAME, card=card)
        elif args.config is not None or args.weights is not None:
            raise ConfigError(f"--config and --weights are not of {args.format}, which takes its own flags alone.")
        else:
            model = convert_guided(args.checkpoint, args.folder, flags_of(words), args.format, card)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.folder}: {model!r}. zoo sample {args.folder} -n 4 -o samples/")
    return 0


if __name__ == "__main__":
    sys.exit(main())

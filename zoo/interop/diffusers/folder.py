"""A folder of diffusers: which parts it has, where each one lies, and what its card says."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from zoo.core.diffusion import Diffusion
from zoo.errors import CheckpointError
from zoo.interop.diffusers.schedulers import SCHEDULER, Process, read_scheduler
from zoo.interop.origin import Origin
from zoo.interop.reading import read_object
from zoo.model.own import kind_of

INDEX, CONFIG, STEM = "model_index.json", "config.json", "diffusion_pytorch_model"
#: the weights of a text encoder, which is of transformers
TEXT_STEM = "model"
#: packages whose classes a folder may name; every other name is code of the repository
PACKAGES = ("diffusers", "transformers")
#: the class of our own nets in folders that we wrote, and its module, which is never run here: the config says what it builds
OWN_CLASS, MODULE = "ZooDenoiser", "zoo_denoiser"
#: the class between sounds and pictures, and what an index calls its module: that of diffusers itself, of the pipeline's
#: folder in its first versions, and of its author's package. It is known by its name, and none of them is run here.
MEL, MEL_HOMES = "Mel", ("diffusers", "audio_diffusion", "audiodiffusion.mel")
#: the class of first stages
AUTOENCODER = "AutoencoderKL"
#: names of parts: words, which lead nowhere else
_PART = re.compile(r"[a-z]\w{0,63}", re.ASCII | re.IGNORECASE)
#: of attention in weights of the first versions -> of today
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(\battentions\.\d+\.)(query|key|value|proj_attn)(\.(?:weight|bias))$")


@dataclass(frozen=True)
class Part:
    """One part of a pipeline.

    Attributes:
        name, class_name: "unet", "UNet2DModel".
        folder: where its files lie.
    """

    name: str
    class_name: str
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json.

        Raises:
            CheckpointError: it is missing, or is that of another class.
        """
        data = read_object(self.folder / CONFIG)
        found = data.get("_class_name", self.class_name)
        if found != self.class_name:
            raise CheckpointError(f"{self.folder / CONFIG} is that of a {found}; {INDEX} says {self.class_name}.")
        return data


@dataclass(frozen=True)
class Pipeline:
    """What a folder holds.

    Attributes:
        folder: all of it.
        class_name: of the pipeline; None for a net alone.
        version: of diffusers, which wrote it.
        parts: by name; a scheduler among them is known by its file alone.
        index: the rest of model_index.json.
    """

    folder: Path
    class_name: str | None
    version: str
    parts: dict[str, Part]
    index: Mapping[str, Any]

    def part(self, *names: str) -> Part | None:
        """The first of these parts that is there."""
        return next((self.parts[n] for n in names if n in self.parts), None)

    @property
    def scheduler(self) -> Path:
        """The scheduler's file.

        Raises:
            CheckpointError: it is missing.
        """
        known = self.part("scheduler")
        places = [known.folder] if known is not None else [self.folder / "scheduler", self.folder]
        for place in places:
            if (place / SCHEDULER).is_file():
                return place / SCHEDULER
        raise CheckpointError(
            f"{self.folder} holds {self.found} and no {SCHEDULER}: which noise the net was trained on is not said, and is not "
            "guessed. Put the file beside it, or say it: "
            "zoo.load(folder, diffusion=Diffusion(DiscreteSchedule('linear'), 'eps'))."
        )

    @property
    def found(self) -> str:
        """What it is, in words."""
        parts = ", ".join(f"{p.name} ({p.class_name})" for p in self.parts.values())
        return f"{self.class_name} of {parts}" if self.class_name else parts


def is_ours(folder: Path) -> bool:
    """Whether the files are those of diffusers: model_index.json, or a config.json that says that package's version."""
    try:
        if (folder / INDEX).is_file():
            return "_class_name" in read_object(folder / INDEX)
        if (folder / CONFIG).is_file():
            data = read_object(folder / CONFIG)
            return "_class_name" in data and "_diffusers_version" in data
    except CheckpointError:
        pass
    return False


def read_pipeline(folder: Path) -> Pipeline:
    """The parts of a folder.

    Raises:
        CheckpointError: a part that is missing, or that is code of the repository.
    """
    if not (folder / INDEX).is_file():
        data = read_object(folder / CONFIG)
        name = str(data["_class_name"])
        part = Part("vae" if name == AUTOENCODER else "unet", name, folder)
        return Pipeline(folder, None, str(data.get("_diffusers_version", "")), {part.name: part}, {})
    index = read_object(folder / INDEX)
    parts: dict[str, Part] = {}
    rest: dict[str, Any] = {}
    for key, value in index.items():
        if key.startswith("_") or not (isinstance(value, list) and len(value) == 2):
            rest[key] = value
            continue
        package, name = value
        if package is None and name is None:  # a part that this pipeline can have and has not
            continue
        ours = (package, name) == (MODULE, OWN_CLASS) or (name == MEL and package in MEL_HOMES)
        if (package not in PACKAGES and not ours) or not isinstance(name, str):
            raise CheckpointError(
                f"{folder / INDEX}: its {key} is {name} of {package}, which is code of the repository: zoo runs none. Load it "
                "in its own package, and make a folder of a class of diffusers."
            )
        if not _PART.fullmatch(key):
            raise CheckpointError(
                f"{folder / INDEX}: {key[:80]!r} names no part of a pipeline: a part is a folder beside the file."
            )
        # the first versions put all files into one folder
        parts[key] = Part(key, name, folder / key if (folder / key).is_dir() else folder)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise CheckpointError(f"{folder / INDEX}: the pipeline {pipeline} is code of the repository: zoo runs none.")
    return Pipeline(folder, pipeline, str(index.get("_diffusers_version", "")), parts, rest)


def files_of(names: Collection[str]) -> list[str] | None:
    """Which files of a repository are needed, by their names alone; None where it is not one of diffusers."""
    listed = set(names)
    nets = ("", "unet/", "transformer/", "vae/", "text_encoder/")
    if INDEX in listed and (stage := sorted(n for n in listed if n.startswith("vqvae/"))):
        # before hundreds of megabytes are fetched
        raise CheckpointError(f"a pipeline on the latents of a vqvae ({stage[0]}) is not supported, so nothing is fetched.")
    if INDEX not in listed and not any(f"{net}{STEM}{end}" in listed for net in nets for end in (".safetensors", ".bin")):
        return None
    wanted = [n for n in listed if n.endswith(".json") and n.count("/") <= 1 and not n.endswith(".index.json")]
    wanted += [n for n in listed if n == "README.md" or (n.startswith("tokenizer/") and n.endswith(".txt"))]
    for net in nets:
        # the text encoder is of another package, which calls its files otherwise
        stem, pickles = (TEXT_STEM, "pytorch_model") if net == "text_encoder/" else (STEM, STEM)
        whole = [f"{net}{stem}.safetensors", f"{net}{stem}.fp16.safetensors"]
        part = re.compile(rf"{re.escape(net + stem)}-\d{{5}}-of-\d{{5}}\.safetensors")
        found = next(([n] for n in whole if n in listed), None) or [n for n in listed if part.fullmatch(n)]
        wanted += found
        pickle = re.compile(rf"{re.escape(net + pickles)}(\.fp16)?(-\d{{5}}-of-\d{{5}})?\.bin")
        if not found and (there := sorted(n for n in listed if pickle.fullmatch(n))):
            raise CheckpointError(
                f"the weights {there[0]} of this repository are a pickle, which can run code: zoo never opens one, "
                "and it holds no safetensors. Where you trust it, convert it with diffusers itself: load the pipeline "
                "there (DiffusionPipeline.from_pretrained(name, use_safetensors=False)), save it (save_pretrained(folder)) "
                "and load the folder."
            )
    return sorted(wanted)


def about(pipeline: Pipeline, origin: Origin, notes: Iterable[str] = ()) -> str:
    """A recipe's description of an imported model."""
    part = pipeline.part("unet", "transformer", "vae")
    whole = {"vae", "mel"} & pipeline.parts.keys()
    kind = pipeline.class_name if whole and pipeline.class_name else ("" if part is None else part.class_name)
    further = "".join(f" {n[0].upper()}{n[1:]}." for n in notes)
    return f"{kind} of diffusers (written by version {pipeline.version}), imported from {origin.place}.{further}"


def renamed(key: str) -> str:
    """The name of a tensor today."""
    return _OLD.sub(lambda m: f"{m[1]}{OLD_NAMES[m[2]]}{m[3]}", key)


def how_to_convert(part: Part, package: str = "diffusers") -> str:
    """What to do with pickles, in one line that is run where the folder is trusted."""
    kind = part.class_name
    return (
        f'Where you trust it, convert it with {package} itself: python -c "from {package} import {kind}; '
        f'{kind}.from_pretrained({str(part.folder)!r}, use_safetensors=False).save_pretrained({str(part.folder)!r})"'
    )


def process_of(pipeline: Pipeline, diffusion: Diffusion | None) -> Process:
    """What a pipeline's scheduler says, or `diffusion` in its place.

    Raises:
        CheckpointError: no scheduler's file, or one that we do not know.
    """
    if diffusion is None:
        named = pipeline.part("scheduler")
        return read_scheduler(pipeline.scheduler, None if named is None else named.class_name)
    return Process(
        {"kind": kind_of(diffusion.schedule), **diffusion.schedule.options},
        {f.name: getattr(diffusion, f.name) for f in fields(diffusion) if f.name != "schedule"},
        {},
    )

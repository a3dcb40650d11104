"""The format: what `zoo.load` and `model.export` find under the name "lerobot"."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from zoo import files
from zoo.contract.conditions import Array, Condition, Views
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain
from zoo.errors import CheckpointError
from zoo.interop.diffusers.schedulers import Process, read_said
from zoo.interop.lerobot.folder import (
    ACTION,
    CONSTANT,
    EYES,
    HOW,
    NATIVE,
    NET,
    NET_OPTIONS,
    NOISE,
    STATISTICS,
    STEM,
    Config,
    Scaling,
    files_of,
    is_ours,
    read_config,
    renamed,
    scalings,
)
from zoo.interop.lerobot.unet import sizes_of
from zoo.interop.origin import Origin, read_origin
from zoo.interop.reading import looked_up, read_weights, shapes_in, weights_in
from zoo.model.budget import limited
from zoo.model.golden import golden_output
from zoo.model.model import Model

#: names of its noise schedulers -> the class of diffusers that it makes of the options, and what else that class needs: the
#: defaults of diffusers, which lerobot leaves as they are
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDPM": ("DDPMScheduler", {"variance_type": "fixed_small"}),
    "DDIM": ("DDIMScheduler", {"set_alpha_to_one": True, "steps_offset": 0}),
}
#: a range that is not known, see `zoo.policy.codec.PolicyCodec`
UNKNOWN = (1.0, -1.0)


class LeRobotFormat:
    """Folders of diffusion policies that lerobot writes, by `save_pretrained` and `push_to_hub`."""

    def recognises(self, folder: Path) -> bool:
        """By the features that config.json says a policy of lerobot has."""
        return is_ours(folder)

    def wanted(self, names: Collection[str]) -> list[str] | None:
        """Which files of a repository are needed; None where it is not known as one of lerobot by their names."""
        return files_of(names)

    def load(self, folder: Path) -> Model:
        """The policy of a folder.

        Raises:
            CheckpointError, ConfigError: what is missing, or what of it we do not know; the message names it.
        """
        config = read_config(folder)
        paths = weights_in(folder, STEM, HOW)
        weights = read_weights(paths, files.plain_name)
        own = (NET, EYES) if config.cameras else (NET,)
        foreign = sorted(k for k in weights if not k.startswith((*own, *STATISTICS)))
        if foreign:
            raise CheckpointError(f"{paths[0]} holds tensors that no such policy has: {', '.join(foreign[:5])}.")
        scaled = scalings(folder, config, weights)
        recipe = recipe_of(config, scaled, read_origin(folder))
        shapes = {f"denoiser.{renamed(k)}": v for k, v in shapes_in(paths).items() if k.startswith(own)}
        with limited(shapes, folder, weights=paths[0].name):
            model = Model(recipe, get_domain("policy"), filled=False)
        net = {renamed(k): v for k, v in weights.items() if k.startswith(own)}
        files.load_strict(model.denoiser, net, paths[0])
        files.load_strict(model.codec, codec_state(config, scaled), paths[0])
        return model

    def export(self, model: Model, folder: Path, *, sampler: str | None = None, steps: int | None = None) -> Path:
        """Write a policy of ours as a folder of lerobot, see `zoo.interop.lerobot.export`.

        Args:
            sampler, steps: "ddpm" or "ddim", and how many steps, of the folder; default: those of the model.
        """
        from zoo.interop.lerobot.export import export

        return export(model, folder, sampler=sampler, steps=steps)

    def card(self, folder: Path) -> str:
        """The text of a folder's own card."""
        return read_origin(folder).text

    def golden(self, model: Model, folder: Path, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """What lerobot's own net says to inputs of `zoo.model.golden`; None where it is not installed.

        Args:
            folder: the model's own, of lerobot.
        """
        peer = peer_net(model, folder)
        if peer is None:
            return None
        theirs = copy.copy(model)
        theirs.__dict__ = model.__dict__ | {"_modules": dict(model._modules)}
        theirs.denoiser = peer
        return golden_output(theirs, inputs)


class _Peer(torch.nn.Module):
    """lerobot's net and eyes, called as ours are; a window that is not given is zeros, as in ours.

    Args:
        parts: (name, shape) of what lies in a row of an observation.
    """

    def __init__(self, diffusion: torch.nn.Module, parts: list[tuple[str, tuple[int, ...]]]) -> None:
        super().__init__()
        self.diffusion, self.parts = diffusion, parts

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        diffusion: Any = self.diffusion
        rows = cond["observation"].nan_to_num(0.0).split([math.prod(shape) for _, shape in self.parts], -1)
        seen = {name: row.unflatten(-1, shape) for (name, shape), row in zip(self.parts, rows, strict=True)}
        if pictures := [seen.pop(name) for name, shape in self.parts if len(shape) == 3]:
            seen["observation.images"] = torch.stack(pictures, -4)
        out: Tensor = diffusion.unet(x_t, t, global_cond=diffusion._prepare_global_conditioning(seen))
        return out


def peer_net(model: Model, folder: Path) -> torch.nn.Module | None:
    """lerobot's own net with the weights of a folder; None where lerobot is not installed, or does not read the folder."""
    try:
        from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

        policy = DiffusionPolicy.from_pretrained(folder)
    except Exception:  # its imports end in many, beside versions of others that it does not know
        return None
    device, codec = next(iter(model.denoiser.parameters())).device, cast(Any, model.codec)
    parts: list[tuple[str, tuple[int, ...]]]
    parts = [(name, (size,)) for name, size in sizes_of(model.recipe.net.get("parts", ()), len(codec.observation_names))]
    parts += [(name, (3, height, width)) for name, height, width in codec.cameras]
    return _Peer(policy.diffusion.to(device), parts).eval()


def process_of(config: Config) -> Process:
    """The noise, and how it is sampled.

    Raises:
        CheckpointError: a scheduler, or an option of it, that we do not know.
    """
    where = f"noise_scheduler_type of the diffusion policy in {config.path}"
    name, further = looked_up(config.options["noise_scheduler_type"], SCHEDULERS, where)
    said = {key: config.options[key] for key in NOISE} | further | {"timestep_spacing": "leading"}
    found = read_said(said, name, config.path)
    steps, T = config.options["num_inference_steps"], found.schedule["T"]
    if steps is not None and steps > T:
        raise CheckpointError(
            f"{config.path}: num_inference_steps={steps}; there are {T} training steps. Give as many at most."
        )
    return Process(found.schedule, found.diffusion, found.sampling | {"steps": T if steps is None else steps})


def recipe_of(config: Config, scaled: Mapping[str, Scaling], origin: Origin) -> Recipe:
    """The recipe of a policy.

    Raises:
        CheckpointError: a scheduler that we do not know. ConfigError: numbers that do not fit together.
    """
    process, o = process_of(config), config.options
    seen = {name: size for name, size in config.sizes.items() if name != ACTION}
    words = {name: name.removeprefix("observation.") for name in config.sizes}
    names = {name: [f"{words[name]}_{i}" for i in range(size)] for name, size in config.sizes.items()}
    norms = [scaled[name].norm for name, size in seen.items() for _ in range(size)]
    bound, cameras = process.sampling["clip"], [[name, *size] for name, size in config.cameras.items()]
    told = [f"{name} ({size})" for name, size in seen.items()] + [f"pictures {name} ({h} x {w})" for name, h, w in cameras]
    condition: Condition = Array(shape=(o["n_obs_steps"], sum(seen.values())))
    if cameras:
        width = sum(seen.values()) + sum(3 * height * width for height, width in config.cameras.values())
        parts = {"numbers": list(seen.items()), "cameras": cameras}
        condition = Views.model_validate({"shape": (o["n_obs_steps"], width), **parts})
    codec = {
        "horizon": o["horizon"],
        "n_obs": o["n_obs_steps"],
        "executed": o["n_action_steps"],
        "observation_names": [n for name in seen for n in names[name]],
        "action_names": names[ACTION],
        "keys": list(seen),
        "action_norm": scaled[ACTION].norm,
        "observation_norm": norms[0] if len(set(norms)) == 1 else norms,
        "constant": CONSTANT,
        # theirs does not clip actions; where x0 is bounded by the range of its data, there is nothing to clip
        "clip": scaled[ACTION].norm == "min_max" and bound is not None and bound <= 1,
    }
    net = {key: o[key] for key in NET_OPTIONS} | {"parts": [[name, size] for name, size in seen.items()]}
    if cameras:
        codec |= {"cameras": cameras, "picture_norm": [scaled[name].norm for name in config.cameras]}
        net["vision"] = config.vision
    licence = origin.licence or config.further.get("license")
    return Recipe.parse(
        {
            "name": origin.name,
            "domain": "policy",
            "description": f"Diffusion policy of lerobot, which sees {' and '.join(told)}; imported from {origin.place}.",
            "licence": licence if isinstance(licence, str) else "",
            "data": origin.data,
            "paper": "Diffusion Policy (Chi et al. 2023, arXiv:2303.04137).",
            "codec": codec,
            "denoiser": NATIVE,
            "net": net,
            "conditions": {"observation": condition},
            "schedule": process.schedule,
            "diffusion": process.diffusion,
            "sampling": process.sampling,
            "training": {"condition_dropout": 0.0},  # the net has no null
        }
    )


def codec_state(config: Config, scaled: Mapping[str, Scaling]) -> dict[str, Tensor]:
    """The statistics as the codec's buffers."""
    seen = [name for name in config.sizes if name != ACTION]
    found: dict[str, Tensor] = {}
    for what, names in (("action", [ACTION]), ("observation", seen), ("picture", list(config.cameras))):
        if not names:
            continue
        spread = any(scaled[name].norm == "mean_std" for name in names)
        ends = {"low": ("min", UNKNOWN[0]), "high": ("max", UNKNOWN[1])}
        ends |= {"mean": ("mean", 0.0), "std": ("std", 1.0)} if spread else {}
        for end, (key, unknown) in ends.items():
            parts = [_known(scaled[name], key, config.shape(name)[0], unknown) for name in names]
            found[f"{what}_{end}"] = torch.cat(parts)
    return found


def _known(scaling: Scaling, key: str, size: int, unknown: float) -> Tensor:
    """One statistic of a feature; `unknown` where it, or its partner, is not known, or a mean that nothing is scaled by."""
    pair = ("min", "max") if key in ("min", "max") else ("mean", "std")
    if any(k not in scaling.statistics for k in pair) or (key not in ("min", "max") and scaling.norm != "mean_std"):
        return torch.full((size,), unknown)
    return scaling.statistics[key]

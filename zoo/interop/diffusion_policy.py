"""Checkpoints of Diffusion Policy's own code: its U-Net on actions, told a window of numbers.

Chi et al. 2023, "Diffusion Policy" (real-stanford/diffusion_policy), `DiffusionUnetLowdimPolicy` with observations as global
condition. A `.ckpt` of theirs is a pickle, and zoo opens none: `benchmarks/convert_pickle.py diffusion-policy` makes a folder
of safetensors and a config.json of the policy's options, which is what is read here. The net is lerobot's, which was made of
it: the tensors get the names that they have there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import files
from zoo.contract.conditions import Array
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain
from zoo.errors import CheckpointError, brief
from zoo.interop.converted import agree, marked, read_marked
from zoo.interop.diffusers.schedulers import Process, read_said
from zoo.interop.origin import Origin, read_origin
from zoo.interop.reading import Options, checked, looked_up, read_weights, shapes_in, weights_in
from zoo.model.budget import limited
from zoo.model.model import Model

#: the name of the format
NAME = "diffusion-policy"
HOW = f"Where you trust it: python benchmarks/convert_pickle.py {NAME} FILE FOLDER (of zoo's sources)."
#: numbers that an observation or an action may have: each has a name in the recipe; and steps of a chunk
MOST_NUMBERS, MOST_STEPS = 100_000, 100_000
#: the net's tensors, and those of the statistics: {place}{obs or action}.{which}
NET, STATISTICS = "model.", "normalizer.params_dict."
FIELDS = {"observation": "obs", "action": "action"}
SCALE, OFFSET = "scale", "offset"
KNOWN = ("min", "max", "mean", "std")
#: how far the ends of a range may lie from -1 and 1
NEAR = 1e-3
#: options of the policy and of its net, and their kinds
KINDS = {
    "horizon": "whole", "obs_dim": "whole", "action_dim": "whole", "n_obs_steps": "whole", "n_action_steps": "whole",
    "num_inference_steps": "whole?", "diffusion_step_embed_dim": "whole", "down_dims": "wholes", "kernel_size": "whole",
    "n_groups": "whole", "cond_predict_scale": "flag",
}  # fmt: skip
#: the ways of which we have one, and why
ONLY: dict[str, tuple[bool, str]] = {
    "obs_as_global_cond": (True, "its net is then told observations by in-painting them, or beside each action"),
    "obs_as_local_cond": (False, "its net is then told observations beside each action"),
    "pred_action_steps_only": (False, "its chunks then begin with the first action that is carried out"),
    "oa_step_convention": (True, "its first action is then that of the step after the last observation"),
}
SCHEDULERS = {"DDPMScheduler": "DDPMScheduler", "DDIMScheduler": "DDIMScheduler"}
#: their names of a net's parts -> lerobot's
_RENAMED = (
    (re.compile(r"\.blocks\.0\."), ".conv1."),
    (re.compile(r"\.blocks\.1\."), ".conv2."),
    (re.compile(r"^((?:down|up)_modules\.\d+\.2)\.conv\."), r"\1."),
)


class DiffusionPolicyFormat:
    """Folders of `benchmarks/convert_pickle.py diffusion-policy`."""

    def recognises(self, folder: Path) -> bool:
        """By the mark in config.json."""
        return marked(folder, NAME)

    def load(self, folder: Path) -> Model:
        """The policy of a folder.

        Raises:
            CheckpointError, ConfigError: an option that is missing, unknown or not supported; wrong weights or statistics.
        """
        options, process = read_options(folder)
        paths = weights_in(folder, "model", HOW)
        weights = read_weights(paths)
        foreign = sorted(k for k in weights if not k.startswith((NET, STATISTICS)))
        if foreign:
            raise CheckpointError(f"{paths[0]} holds tensors that no such policy has: {', '.join(foreign[:5])}.")
        sizes = {"observation": options["obs_dim"], "action": options["action_dim"]}
        left = {k.removeprefix(STATISTICS): v for k, v in weights.items() if k.startswith(STATISTICS)}
        scaled = {what: _scaling(left, FIELDS[what], size, paths[0]) for what, size in sizes.items()}
        if left:
            raise CheckpointError(f"{paths[0]} has statistics that no such policy needs: {', '.join(sorted(left)[:5])}.")
        recipe = recipe_of(options, process, scaled, read_origin(folder))
        shapes = {f"denoiser.{renamed(k)}": v for k, v in shapes_in(paths).items() if k.startswith(NET)}
        _agree(options, shapes, folder / files.CONFIG)
        with limited(shapes, folder, weights=paths[0].name):
            model = Model(recipe, get_domain("policy"), filled=False)
        net = {renamed(k): v for k, v in weights.items() if k.startswith(NET)}
        files.load_strict(model.denoiser, net, paths[0])
        known = {f"{what}_{k}": v for what, scaling in scaled.items() for k, v in scaling.buffers().items()}
        files.load_strict(model.codec, known, paths[0])
        return model

    def card(self, folder: Path) -> str:
        """The text of a folder's own card."""
        return read_origin(folder).text


@dataclass(frozen=True)
class _Scaling:
    """How the numbers of one field are scaled: for each of them one of ours, and (D,) float32 of each statistic."""

    norms: list[str]
    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor

    def buffers(self) -> dict[str, Tensor]:
        """What the codec keeps of it."""
        found = {"low": self.low, "high": self.high}
        return found | ({"mean": self.mean, "std": self.std} if "mean_std" in self.norms else {})


def _scaling(left: dict[str, Tensor], field: str, size: int, path: Path) -> _Scaling:
    """The scaling of a field, whose tensors are taken out of `left`.

    Theirs is x * scale + offset. Where that takes the data's range to [-1, 1], or a number that does not move to 0, it is our
    "min_max"; all else is "mean_std" with the mean that goes to 0, and one over the scale.

    Raises:
        CheckpointError: a tensor is missing, or is no statistics of `size` numbers.
    """
    found: dict[str, Tensor] = {}
    for key in (SCALE, OFFSET, *(f"input_stats.{k}" for k in KNOWN)):
        name = f"{field}.{key}"
        tensor = left.pop(name, None)
        if tensor is None:
            raise CheckpointError(
                f"{path} has no {STATISTICS}{name}, without which its numbers are not known. Convert a checkpoint of a trained "
                "policy."
            )
        if not tensor.is_floating_point() or tuple(tensor.shape) != (size,):
            raise CheckpointError(
                f"{path}: {STATISTICS}{name} is {tensor.dtype} {tuple(tensor.shape)}; it must be ({size},) numbers."
            )
        found[key.removeprefix("input_stats.")] = tensor.float()
        if not torch.isfinite(found[key.removeprefix("input_stats.")]).all():
            raise CheckpointError(f"{path}: {STATISTICS}{name} is not finite.")
    scale, offset, low, high = (found[k] for k in (SCALE, OFFSET, "min", "max"))
    if not (scale > 0).all() or (low > high).any():
        raise CheckpointError(f"{path}: {field} of the normalizer has a scale that is not above 0, or a min above its max.")
    ends = ((low * scale + offset + 1).abs() < NEAR) & ((high * scale + offset - 1).abs() < NEAR)
    still = (low == high) & (scale == 1) & (offset == -low)
    norms = ["min_max" if ranged else "mean_std" for ranged in (ends | still).tolist()]
    return _Scaling(norms, low, high, -offset / scale, 1 / scale)


def renamed(name: str) -> str:
    """Their name of a tensor of the net -> ours."""
    name = name.removeprefix(NET)
    for pattern, to in _RENAMED:
        name = pattern.sub(to, name)
    return name


def read_options(folder: Path) -> tuple[dict[str, Any], Process]:
    """The options of a policy and of its net, and its noise.

    Raises:
        CheckpointError: one is missing, is not known, is none, or says what we do not have.
    """
    path = folder / files.CONFIG
    o = Options(read_marked(folder, NAME), NAME, path)
    options = {key: o.needed(key) for key in KINDS}
    for key, (wanted, otherwise) in ONLY.items():
        # the convention came later; what was before is another one
        value = o.later(key, False) if key == "oa_step_convention" else o.needed(key)
        if value is not wanted:
            raise CheckpointError(f"{path}: {key}={brief(value)} of {NAME} is not supported: {otherwise}. Supported: {wanted}.")
    said = o.needed("noise_scheduler")
    o.end()
    checked(options, KINDS, NAME, path)
    for key, most in (("obs_dim", MOST_NUMBERS), ("action_dim", MOST_NUMBERS), ("horizon", MOST_STEPS)):
        if options[key] > most:
            raise CheckpointError(f"{path}: {key}={options[key]:,}; zoo has up to {most:,}.")
    if not isinstance(said, dict):
        raise CheckpointError(f"{path}: noise_scheduler={brief(said)} of {NAME}; it must be an object with a _target_.")
    name = str(said.get("_target_", "")).rpartition(".")[2]
    looked_up(name, SCHEDULERS, f"noise_scheduler of {NAME} in {path}")
    found = read_said({k: v for k, v in said.items() if k != "_target_"}, name, path)
    steps, T = options["num_inference_steps"], found.schedule["T"]
    if steps is not None and steps > T:
        raise CheckpointError(f"{path}: num_inference_steps={steps}; there are {T} training steps. Give as many at most.")
    return options, Process(found.schedule, found.diffusion, found.sampling | {"steps": T if steps is None else steps})


def _agree(options: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Refuse options that are not those of the tensors, by name; of tensors that are missing the loader tells."""
    last, first = shapes.get("denoiser.final_conv.1.weight"), shapes.get("denoiser.down_modules.0.0.conv1.block.0.weight")
    facts = {}
    if last and first and len(first) == len(last) == 3:
        facts = {"action_dim": (options["action_dim"], last[0]), "kernel_size": (options["kernel_size"], first[2])}
    if any(k.startswith("denoiser.local_cond_encoder.") for k in shapes):
        facts["obs_as_local_cond"] = (False, True)
    agree(facts, path)


def recipe_of(options: Mapping[str, Any], process: Process, scaled: Mapping[str, _Scaling], origin: Origin) -> Recipe:
    """The recipe of a policy.

    Raises:
        ConfigError: numbers that do not fit together.
    """
    o, bound = options, process.sampling["clip"]
    moving = bool((scaled["action"].low < scaled["action"].high).all())
    norms = {what: s.norms[0] if len(set(s.norms)) == 1 else s.norms for what, s in scaled.items()}
    return Recipe.parse(
        {
            "name": origin.name,
            "domain": "policy",
            "description": (
                f"Diffusion Policy of its authors' code, which sees {o['obs_dim']} numbers; imported from {origin.place}."
            ),
            "licence": origin.licence,
            "data": origin.data,
            "paper": "Diffusion Policy (Chi et al. 2023, arXiv:2303.04137).",
            "codec": {
                "horizon": o["horizon"],
                "n_obs": o["n_obs_steps"],
                "executed": o["n_action_steps"],
                "observation_names": [f"obs_{i}" for i in range(o["obs_dim"])],
                "action_names": [f"action_{i}" for i in range(o["action_dim"])],
                "keys": ["obs"],
                "action_norm": norms["action"],
                "observation_norm": norms["observation"],
                # theirs does not clip actions; where x0 is bounded by the range of its data, there is nothing to clip
                "clip": norms["action"] == "min_max" and moving and bound is not None and bound <= 1,
            },
            "denoiser": "lerobot-unet1d",
            "net": {
                "down_dims": o["down_dims"],
                "kernel_size": o["kernel_size"],
                "n_groups": o["n_groups"],
                "diffusion_step_embed_dim": o["diffusion_step_embed_dim"],
                "use_film_scale_modulation": o["cond_predict_scale"],
            },
            "conditions": {"observation": Array(shape=(o["n_obs_steps"], o["obs_dim"]))},
            "schedule": process.schedule,
            "diffusion": process.diffusion,
            "sampling": process.sampling,
            "training": {"condition_dropout": 0.0},  # the net has no null
        }
    )


FORMAT = DiffusionPolicyFormat()

"""A folder of lerobot's diffusion policy: its configuration, and the statistics that it normalises with.

There are three layouts. In 2024 the configuration had `input_shapes` and a mode for each of them. Then (up to 0.3) features
with a type, and a mode for each type. In both the statistics lie among the weights. From 0.4 on they lie in the files of two
processors beside them, whose own modes count.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import files
from zoo.errors import CheckpointError, brief, one_of
from zoo.interop.lerobot.unet import ENVIRONMENT, STATE
from zoo.interop.lerobot.vision import BACKBONES, SEPARATE
from zoo.interop.reading import Options, checked, is_whole, looked_up, read_object
from zoo.model.loading import PICKLES

CONFIG, STEM, ACTION = files.CONFIG, "model", "action"
BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"
#: the one type of policy that is read
TYPE = "diffusion"
#: the name of its net in recipes of ours
NATIVE = "lerobot-unet1d"
#: numbers that a feature may have: each has a name in the recipe; and steps of a chunk, which no tensor says
MOST_NUMBERS, MOST_STEPS = 100_000, 100_000
#: what it takes a number that never moves to
CONSTANT = -1.0
#: the net's tensors in the weights, those of its eyes, which have this name in ours; then those of the statistics
NET, EYES = "diffusion.unet.", "diffusion.rgb_encoder."
STATISTICS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
#: what a config of lerobot's has, today and until 2024: by this a folder is known
MARKS = ({"input_features", "output_features"}, {"input_shapes", "output_shapes"})
#: files by which a repository is known, as each has a config.json
SIGNS = (BEFORE, AFTER, "train_config.json", "config.yaml")
#: lerobot's word for a way to scale -> ours
MODES = {"MIN_MAX": "min_max", "MEAN_STD": "mean_std", "IDENTITY": "identity"}
#: the type of each feature, but for cameras, and theirs; no camera has more pixels a side
TYPES = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"}
VISUAL, MOST_SIDE = "VISUAL", 4096
#: statistics of each way to scale
NEEDED = {"min_max": ("min", "max"), "mean_std": ("mean", "std"), "identity": ()}
#: options that say where or how it was trained: crops are random in training alone, and its weights are no longer those that
#: a backbone began with
WITHOUT_EFFECT = (
    "device", "use_amp", "push_to_hub", "repo_id", "private", "tags", "license", "pretrained_path", "pretrained_revision",
    "crop_is_random", "pretrained_backbone_weights", "drop_n_last_frames", "compile_model", "compile_mode",
    "gradient_checkpointing", "do_mask_loss_for_padding", "optimizer_lr", "optimizer_betas", "optimizer_eps",
    "optimizer_weight_decay", "scheduler_name", "scheduler_warmup_steps",
)  # fmt: skip
#: options of what becomes of pictures, which say nothing where there are none
VISION = (
    "vision_backbone", "use_group_norm", "spatial_softmax_num_keypoints", SEPARATE, "resize_shape", "crop_ratio", "crop_shape",
)  # fmt: skip
#: options of the net
NET_OPTIONS = ("down_dims", "kernel_size", "n_groups", "diffusion_step_embed_dim", "use_film_scale_modulation")
#: options of the noise, by their names in a scheduler of diffusers
NOISE = (
    "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type", "clip_sample", "clip_sample_range",
)  # fmt: skip
KINDS = {
    "n_obs_steps": "whole", "horizon": "whole", "n_action_steps": "whole", "down_dims": "wholes", "kernel_size": "whole",
    "n_groups": "whole", "diffusion_step_embed_dim": "whole", "use_film_scale_modulation": "flag",
    "num_inference_steps": "whole?", "noise_scheduler_type": "text", "vision_backbone": "text", "use_group_norm": "flag",
    "spatial_softmax_num_keypoints": "whole", SEPARATE: "flag", "resize_shape": "wholes?", "crop_shape": "wholes?",
    "crop_ratio": "positive",
}  # fmt: skip
_STATE_FILE = re.compile(r"[\w-]{1,120}\.safetensors", re.ASCII)
_READ_STEPS = re.compile(r"policy_(pre|post)processor(_step_\d+_[\w-]+)?\.(json|safetensors)", re.ASCII)


@dataclass(frozen=True)
class Scaling:
    """How the numbers of one feature are scaled, or the colours of a camera.

    Attributes:
        norm: one of ours, see `MODES`.
        statistics: {"min", "max", "mean", "std"}: (D,) float32, of a camera (3,), as far as they are known.
    """

    norm: str
    statistics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """What config.json says, in lerobot's words.

    Attributes:
        sizes: {feature: how many numbers}, the action last; without cameras.
        modes: {feature: way to scale}, ours, cameras among them; of a folder with processors theirs count.
        options: the others that change what the policy does.
        further: those without an effect here, such as the rate of learning.
        cameras: {feature: (height, width) of its pictures}, in their order.
        vision: the options of the eyes, see `zoo.interop.lerobot.vision.vision_options`; None without cameras.
    """

    path: Path
    sizes: dict[str, int]
    modes: dict[str, str]
    options: dict[str, Any]
    further: dict[str, Any]
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)
    vision: dict[str, Any] | None = None

    def shape(self, name: str) -> list[int]:
        """The shape of a feature, as lerobot says it: a camera's has the channels first."""
        return [3, *self.cameras[name]] if name in self.cameras else [self.sizes[name]]

    def type(self, name: str) -> str:
        """The type of a feature."""
        return VISUAL if name in self.cameras else TYPES[name]


def is_ours(folder: Path) -> bool:
    """Whether the files are those of a policy of lerobot: by the keys of config.json, whatever its type."""
    try:
        data = read_object(folder / CONFIG)
    except CheckpointError:
        return False
    return any(marks <= data.keys() for marks in MARKS)


def files_of(names: Collection[str]) -> list[str] | None:
    """Which files of a repository are needed, by their names alone; None where it is not known as one of lerobot by them.

    A repository that has only config.json and model.safetensors is fetched as those two.
    """
    listed = set(names)
    if CONFIG not in listed or not listed & set(SIGNS):
        return None
    if f"{STEM}.safetensors" not in listed:
        if pickles := sorted(n for n in listed if n.endswith(PICKLES) and "/" not in n):
            raise CheckpointError(
                f"the weights {pickles[0]} of this repository are a pickle, and it holds no safetensors. {HOW}"
            )
        return None
    fixed = {CONFIG, files.CARD, f"{STEM}.safetensors"}
    return sorted(n for n in listed if n in fixed or _READ_STEPS.fullmatch(n))


HOW = (
    "zoo never opens a pickle, which can run code. Where you trust it, load it in lerobot itself and save it: "
    "policy.save_pretrained(folder) writes model.safetensors."
)


def read_config(folder: Path) -> Config:
    """config.json.

    Raises:
        CheckpointError: another type of policy, a key that is missing or not known, or a value that is none.
    """
    path = folder / CONFIG
    o = Options(read_object(path), "diffusion policy", path)
    old = "input_shapes" in o
    kind = o.later("type", TYPE) if old else o.needed("type")
    if kind != TYPE:
        raise one_of(f"type of policy in {path}", kind, [TYPE], CheckpointError, listed="Supported")
    sizes, cameras, modes = (_old_features if old else _features)(o)
    names = ("n_obs_steps", "horizon", "n_action_steps", "noise_scheduler_type", "num_inference_steps", *NET_OPTIONS, *NOISE)
    options = {name: o.needed(name) for name in names}
    o.only("use_peft", False)
    further = {name: o.later(name, None) for name in WITHOUT_EFFECT if name in o}
    vision = _vision(o, cameras) if cameras else None
    o.end(VISION)
    checked(options, KINDS, "diffusion policy", path)
    if options["horizon"] > MOST_STEPS:
        raise CheckpointError(f"{path}: horizon={options['horizon']:,} steps; zoo plans up to {MOST_STEPS:,}.")
    return Config(path, sizes, modes, options, further, cameras, vision)


def _vision(o: Options, cameras: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The options of the eyes.

    Raises:
        CheckpointError: one is missing, is none, or does not fit the pictures.
    """
    before = {SEPARATE: False, "resize_shape": None, "crop_ratio": 1.0}
    given = {name: o.later(name, before[name]) if name in before else o.needed(name) for name in VISION}
    checked(given, KINDS, "diffusion policy", o.path)
    looked_up(given["vision_backbone"], BACKBONES, f"vision_backbone in {o.path}")
    resize, crop, ratio = given["resize_shape"], given["crop_shape"], given.pop("crop_ratio")
    for name, shape in (("resize_shape", resize), ("crop_shape", crop)):
        if shape is not None and (len(shape) != 2 or max(shape) > MOST_SIDE):
            raise CheckpointError(f"{o.path}: {name}={brief(shape)}; it must be [height, width], up to {MOST_SIDE:,} each.")
    if ratio > 1:
        raise CheckpointError(f"{o.path}: crop_ratio={ratio}; it must be above 0, and 1 at most.")
    if resize is not None:  # then the ratio alone says what is cropped
        meant = [int(size * ratio) for size in resize] if ratio < 1 else None
        if crop not in (None, meant) or (meant and min(meant) < 1):
            raise CheckpointError(
                f"{o.path}: crop_shape={brief(crop)} beside resize_shape={resize} and crop_ratio={ratio}, which make it "
                f"{meant}: what the policy was trained with is not known."
            )
        given["crop_shape"] = meant
    height, width = resize or next(iter(cameras.values()))
    if crop is not None and (crop[0] > height or crop[1] > width):
        raise CheckpointError(f"{o.path}: crop_shape={crop} of pictures {[height, width]}; it must lie in them.")
    return given


def _features(o: Options) -> tuple[dict[str, int], dict[str, tuple[int, int]], dict[str, str]]:
    """Sizes, cameras and ways to scale, from features with a type and a mode for each type."""
    given = {}
    for key in ("input_features", "output_features"):
        features = o.needed(key)
        if not isinstance(features, dict) or not all(isinstance(f, dict) for f in features.values()):
            raise CheckpointError(
                f"{o.path}: {key}={str(features)[:100]}; it must hold features, each with a type and a shape."
            )
        given[key] = {k: (f.get("type"), f.get("shape")) for k, f in features.items()}
    mapping = o.needed("normalization_mapping")
    if not isinstance(mapping, dict):
        raise CheckpointError(f"{o.path}: normalization_mapping={brief(mapping)}; it must say a mode for each type.")
    cameras = _cameras(given["input_features"], o.path)
    sizes = _sizes({k: f for k, f in given["input_features"].items() if k not in cameras}, given["output_features"], o.path)
    modes = {name: _mode(mapping.get(TYPES[name], "IDENTITY"), o.path) for name in sizes}
    return sizes, cameras, modes | {name: _mode(mapping.get(VISUAL, "IDENTITY"), o.path) for name in cameras}


def _old_features(o: Options) -> tuple[dict[str, int], dict[str, tuple[int, int]], dict[str, str]]:
    """Sizes, cameras and ways to scale, from shapes and a mode for each of them."""
    found: dict[str, dict[str, Any]] = {}
    for key in ("input_shapes", "output_shapes", "input_normalization_modes", "output_normalization_modes"):
        value = o.needed(key)
        if not isinstance(value, dict):
            raise CheckpointError(f"{o.path}: {key}={str(value)[:100]}; it must be an object by names of features.")
        found[key] = value

    def typed(name: str) -> str:
        return VISUAL if name.startswith("observation.image") else TYPES.get(name, "STATE")

    inputs = {k: (typed(k), shape) for k, shape in found["input_shapes"].items()}
    outputs = {k: (typed(k), shape) for k, shape in found["output_shapes"].items()}
    cameras = _cameras(inputs, o.path)
    sizes = _sizes({k: f for k, f in inputs.items() if k not in cameras}, outputs, o.path)
    said = found["input_normalization_modes"] | found["output_normalization_modes"]
    return sizes, cameras, {name: _mode(str(said.get(name, "identity")).upper(), o.path) for name in (*sizes, *cameras)}


def _mode(value: Any, path: Path) -> str:
    return str(looked_up(value, MODES, f"normalisation in {path}"))


def _cameras(inputs: Mapping[str, Any], path: Path) -> dict[str, tuple[int, int]]:
    """{camera: (height, width)} of the features that are pictures.

    Raises:
        CheckpointError: pictures that are not RGB, or of several sizes, which lerobot does not have either.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, (kind, shape) in inputs.items():
        if kind != VISUAL:
            continue
        right = isinstance(shape, list) and len(shape) == 3 and all(is_whole(n) and 1 <= n <= MOST_SIDE for n in shape)
        if not right or shape[0] != 3:
            raise CheckpointError(
                f"{path}: the shape {brief(shape)} of {name}; pictures must be RGB, [3, height, width], up to {MOST_SIDE:,} "
                "a side."
            )
        found[name] = (shape[1], shape[2])
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {list(size)}" for name, size in found.items())
        raise CheckpointError(f"{path}: the pictures are {said}; those of all cameras must have the same size.")
    return found


def _sizes(inputs: Mapping[str, Any], outputs: Mapping[str, Any], path: Path) -> dict[str, int]:
    """{feature: size}: the state, the environment's state where there is one, the action.

    Raises:
        CheckpointError: features that this policy does not have.
    """
    odd = [f"{name} ({kind})" for name, (kind, _) in inputs.items() if TYPES.get(name) != kind or name == ACTION]
    odd += [f"{name} ({kind})" for name, (kind, _) in outputs.items() if (name, kind) != (ACTION, "ACTION")]
    missing = [name for name, there in ((STATE, inputs), (ACTION, outputs)) if name not in there]
    if odd or missing:
        raise CheckpointError(
            f"{path}: its features are {', '.join([*inputs, *outputs]) or 'none'}; of {', '.join(odd + missing)} zoo does not "
            f"know what lerobot's diffusion policy does. Read are {STATE} (STATE), {ENVIRONMENT} (ENV), {ACTION} (ACTION) and "
            f"pictures ({VISUAL})."
        )
    found, both = {}, {**inputs, **outputs}
    for name in (STATE, ENVIRONMENT, ACTION):
        if name in both:
            _, shape = both[name]
            one = isinstance(shape, list) and len(shape) == 1 and is_whole(shape[0])
            if not one or not 1 <= shape[0] <= MOST_NUMBERS:
                raise CheckpointError(
                    f"{path}: the shape {brief(shape)} of {name}; it must be one whole number from 1 to {MOST_NUMBERS:,}, [2]."
                )
            found[name] = int(shape[0])
    return found


def renamed(name: str) -> str:
    """lerobot's name of a tensor of the net -> ours: the eyes are a part of the U-Net."""
    return name.removeprefix("diffusion.") if name.startswith(EYES) else name.removeprefix(NET)


def theirs(name: str) -> str:
    """The way back of `renamed`."""
    return f"diffusion.{name}" if f"diffusion.{name}".startswith(EYES) else f"{NET}{name}"


def scalings(folder: Path, config: Config, weights: Mapping[str, Tensor]) -> dict[str, Scaling]:
    """{feature: how it is scaled}, from the processors' files or from the weights.

    Args:
        weights: all tensors of model.safetensors.

    Raises:
        CheckpointError: statistics that are missing, twice, or none; or a processor that does something else.
    """
    path = folder / f"{STEM}.safetensors"
    inside = {k: v for k, v in weights.items() if k.startswith(STATISTICS)}
    there = [(folder / name).is_file() for name in (BEFORE, AFTER)]
    if any(there) and not all(there):
        raise CheckpointError(
            f"{folder} holds {BEFORE if there[0] else AFTER} without {AFTER if there[0] else BEFORE}: get both."
        )
    found = _inside(inside, config, path) if inside or not any(there) else {}
    if any(there):
        read = _processors(folder, config)
        for name in found.keys() & read.keys():
            if not _same(found[name], read[name]):
                raise CheckpointError(
                    f"{folder} holds two sets of statistics of {name}, in {path.name} and in {BEFORE} or {AFTER}, that differ: "
                    "which of them the policy was trained with is not known. Take one of them away."
                )
        found = read
    return found


def _same(a: Scaling, b: Scaling) -> bool:
    keys = NEEDED[a.norm]
    return a.norm == b.norm and all(torch.equal(a.statistics[k], b.statistics[k]) for k in keys)


def _inside(tensors: Mapping[str, Tensor], config: Config, path: Path) -> dict[str, Scaling]:
    """The statistics among the weights."""
    left, found = dict(tensors), {}
    for name, norm in config.modes.items():
        places = ["normalize_inputs."] if name != ACTION else ["unnormalize_outputs.", "normalize_targets."]
        taken: list[dict[str, Tensor]] = []
        for place in places:
            stem = f"{place}buffer_{name.replace('.', '_')}."
            taken.append({k: left.pop(f"{stem}{k}") for k in NEEDED[norm] if f"{stem}{k}" in left})
            taken[-1] = statistics(taken[-1], norm, name, config.shape(name), path)
        if any(not torch.equal(taken[0][k], more[k]) for more in taken[1:] for k in NEEDED[norm]):
            raise CheckpointError(f"{path}: {name} is normalised with other statistics in training than when it is sampled.")
        found[name] = Scaling(norm, taken[0])
    if left:
        raise CheckpointError(f"{path} has statistics that its {CONFIG} has no use for: {', '.join(sorted(left)[:5])}.")
    return found


def statistics(given: Mapping[str, Tensor], norm: str, name: str, shape: list[int], path: Path) -> dict[str, Tensor]:
    """Statistics of one feature, checked, float32: (D,), or of pictures one for each channel.

    Raises:
        CheckpointError: one that `norm` needs is missing, of another shape, or is not the statistics of anything.
    """
    missing = [k for k in NEEDED[norm] if k not in given]
    if missing:
        raise CheckpointError(
            f"{path} has no {' and no '.join(missing)} of {name}, without which its numbers are not known: the policy is not "
            "complete. Save it anew in lerobot, with the statistics of its data."
        )
    found = {k: v for k, v in given.items() if k in ("min", "max", "mean", "std")}
    wanted = (shape[0], 1, 1) if len(shape) == 3 else (shape[0],)
    for key, tensor in found.items():
        if not tensor.is_floating_point() or tuple(tensor.shape) != wanted:
            raise CheckpointError(
                f"{path}: {key} of {name} is {tensor.dtype} {tuple(tensor.shape)}; it must be {wanted} numbers."
            )
        found[key] = tensor.float().flatten()  # first: what float64 holds may be infinite here
        if not torch.isfinite(found[key]).all():
            raise CheckpointError(f"{path}: {key} of {name} is not finite: lerobot's mark of statistics that were never set.")
    if {"min", "max"} <= found.keys() and (found["min"] > found["max"]).any():
        raise CheckpointError(f"{path}: min of {name} lies above its max.")
    if "std" in found and (found["std"] < 0).any():
        raise CheckpointError(f"{path}: std of {name} is below 0.")
    return found


#: what lerobot adds to what it divides by, and the options of a step that scales
EPS, _SAID = 1e-8, {"eps", "features", "norm_map", "normalize_observation_keys"}
#: steps of processors that do nothing to the numbers
_PLAIN = ("to_batch_processor", "device_processor")


def _processors(folder: Path, config: Config) -> dict[str, Scaling]:
    """The statistics in the files of both processors."""
    before = _steps(folder / BEFORE, "normalizer_processor")
    after = _steps(folder / AFTER, "unnormalizer_processor")
    found = {name: _scaling(before, name, config, folder / BEFORE) for name in (*config.sizes, *config.cameras)}
    action = _scaling(after, ACTION, config, folder / AFTER)
    if not _same(found[ACTION], action):
        raise CheckpointError(
            f"{folder}: {BEFORE} and {AFTER} scale {ACTION} with different modes or statistics: the policy was trained on "
            "other numbers than it gives. Get both from one save."
        )
    return found | {ACTION: action}


def _scaling(step: tuple[dict[str, Any], dict[str, Tensor]], name: str, config: Config, path: Path) -> Scaling:
    """How one step of a processor scales a feature."""
    said, tensors = step
    if odd := sorted(said.keys() - _SAID):
        raise CheckpointError(f"{path}: its normalisation has options that zoo does not know: {', '.join(odd)}.")
    if said.get("eps", EPS) != EPS:
        raise CheckpointError(f"{path}: eps={brief(said['eps'])} of its normalisation is not supported. Supported: {EPS!r}.")
    features, modes = said.get("features"), said.get("norm_map")
    feature = features.get(name) if isinstance(features, dict) else None
    if not isinstance(feature, dict) or not isinstance(modes, dict):
        raise CheckpointError(f"{path}: its normalisation says no feature {name}, or no mode for it.")
    kind, shape = config.type(name), config.shape(name)
    if feature.get("type") != kind or feature.get("shape") != shape:
        raise CheckpointError(f"{path}: the feature {name} is {brief(feature)}; {CONFIG} says {kind} {shape}.")
    norm = _mode(modes.get(kind, "IDENTITY"), path)
    among = said.get("normalize_observation_keys")
    if among is not None and name != ACTION and name not in among:
        norm = "identity"
    given = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.rpartition(".")[0] == name}
    return Scaling(norm, statistics(given, norm, name, shape, path))


def _steps(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The options and tensors of the step that scales; every other one must do nothing."""
    steps = read_object(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(s, dict) for s in steps):
        raise CheckpointError(f"{path} has no list of steps.")
    found = None
    for step in steps:
        name, said = step.get("registry_name"), step.get("config", {})
        if name is None or not isinstance(said, dict):
            raise CheckpointError(f"{path}: the step {brief(step.get('class'))} is code of somebody's: zoo runs none.")
        if name == kind and found is None:
            found = (said, _tensors(path, step))
        elif name == "rename_observations_processor" and not said.get("rename_map"):
            continue
        elif name == "rename_observations_processor":
            raise CheckpointError(
                f"{path}: its rename_map is {brief(said['rename_map'])}, and zoo renames nothing. Give observations the names "
                f"{STATE} and {ENVIRONMENT}, and make the map empty."
            )
        elif name not in _PLAIN:
            raise one_of(f"step in {path}", name, [kind, "rename_observations_processor", *_PLAIN], CheckpointError)
    if found is None:
        raise CheckpointError(f"{path} has no step {kind}: the statistics of the policy are missing.")
    return found


def _tensors(path: Path, step: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a step's own file, which lies beside the processor's."""
    name = step.get("state_file")
    if name is None:
        return {}
    if not isinstance(name, str) or not _STATE_FILE.fullmatch(name):
        raise CheckpointError(f"{path}: {str(name)[:80]!r} names no file of statistics: it lies beside, as safetensors.")
    return files.load_tensors(path.parent / name)

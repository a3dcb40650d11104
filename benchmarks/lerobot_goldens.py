"""Small policies of lerobot, written by its own save_pretrained, and what it computes with them: tests/interop/lerobot.

Policies that see pictures are beside them, in tests/interop/lerobot_pictures, without their weights: the smallest ResNet has 45
MB. `made` makes each tensor of its name and shape alone, there and in the tests; what is stored are the configuration, the
files of processors, the names and shapes of lerobot's own tensors, its statistics, and what it computes of `pictures`.

    python -m pip download --no-deps -d /tmp/wheels lerobot==0.3.3 lerobot==0.4.4
    python -m pip install --no-deps --target /tmp/lerobot-deps draccus==0.10.0 mergedeep pyyaml-include toml typing-inspect \
        mypy_extensions
    unzip -d /tmp/lerobot-0.3.3 /tmp/wheels/lerobot-0.3.3-py3-none-any.whl
    PYTHONPATH=/tmp/lerobot-deps python benchmarks/lerobot_goldens.py /tmp/lerobot-0.3.3

lerobot pins an older torch than zoo is tested with, and imports cameras, simulators and data sets long before its policies.
So its sources are unpacked, not installed; what a policy does not need is an empty stand-in. One folder is one run: a
checkout of its repository is as good as an unpacked wheel, as of the commit 66f8736 for what was before the releases. (0.6.2,
of the commit 7427f31, asks for Python 3.12 and draccus 0.11.6; what is stored of it was written by Python 3.11, with its type
parameters in the older syntax.) The noise is stored with what was made of it, so that nothing depends on a generator.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import json
import shutil
import sys
import types
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

GOLDENS = Path(__file__).parent.parent / "tests" / "interop" / "lerobot"
SEEING = GOLDENS.parent / "lerobot_pictures"
#: packages, and parts of lerobot itself, that no policy of this kind calls
NEEDLESS = (
    "jsonlines", "datasets", "av", "torchcodec", "deepdiff", "serial", "wandb", "zarr", "rerun", "cv2", "gymnasium", "pynput",
    "accelerate",
)  # fmt: skip
PARTS = ("lerobot.datasets.lerobot_dataset", "lerobot.datasets.utils", "lerobot.configs.train")
STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
N, SIZES = 2, {STATE: 2, ENVIRONMENT: 5, ACTION: 2}
SMALL: dict[str, Any] = {
    "n_obs_steps": 2, "horizon": 8, "n_action_steps": 4, "down_dims": (8, 12), "n_groups": 4, "kernel_size": 3,
    "diffusion_step_embed_dim": 6, "num_train_timesteps": 20,
}  # fmt: skip
#: name -> (further options, how each kind of number is normalised; a kind that is not named is left as it is)
CASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "ddpm": ({}, {"STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"}),
    "ddim": (
        {
            "noise_scheduler_type": "DDIM", "num_train_timesteps": 50, "num_inference_steps": 10, "prediction_type": "sample",
            "use_film_scale_modulation": False, "clip_sample": False, "down_dims": (8, 8, 8), "beta_schedule": "linear",
            "n_obs_steps": 1, "kernel_size": 5,
        },
        {"STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    ),
}  # fmt: skip
#: those that see pictures: name -> (further options, how each kind is normalised, (height, width) of each camera)
PICTURES: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, tuple[int, int]]]] = {
    "one": (
        {
            "vision_backbone": "resnet18", "use_group_norm": True, "spatial_softmax_num_keypoints": 4, "crop_shape": (40, 55),
            "use_separate_rgb_encoder_per_camera": False, "pretrained_backbone_weights": None,
        },
        {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
        {"observation.image": (47, 64)},
    ),
    "two": (
        {
            "vision_backbone": "resnet18", "use_group_norm": False, "spatial_softmax_num_keypoints": 3, "crop_shape": None,
            "use_separate_rgb_encoder_per_camera": True, "pretrained_backbone_weights": None, "n_obs_steps": 1,
            "noise_scheduler_type": "DDIM", "num_inference_steps": 10, "prediction_type": "sample", "clip_sample": False,
        },
        {"VISUAL": "MIN_MAX", "STATE": "MEAN_STD", "ENV": "MEAN_STD", "ACTION": "MEAN_STD"},
        {"observation.images.wrist": (40, 72), "observation.images.front": (40, 72)},
    ),
    "resized": (  # from 0.4.4 on
        {
            "vision_backbone": "resnet34", "use_group_norm": True, "spatial_softmax_num_keypoints": 2, "resize_shape": (50, 36),
            "crop_ratio": 0.9, "use_separate_rgb_encoder_per_camera": False, "pretrained_backbone_weights": None,
        },
        {"VISUAL": "IDENTITY", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
        {"observation.images.b": (33, 70), "observation.images.a": (33, 70)},
    ),
}  # fmt: skip


def made(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of a net by its name in lerobot, none of it zero; numpy keeps the numbers of this generator for ever."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        drawn = 4 + np.abs(drawn)  # so that what goes through many blocks does not grow
    elif len(shape) > 1:  # as large as what goes in, after a ReLU
        drawn = drawn * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("weight"):  # of a norm
        drawn = 1 + 0.1 * drawn
    else:
        drawn = 0.1 * drawn
    return torch.from_numpy(np.asarray(drawn, np.float32))


def is_made(name: str) -> bool:
    """Whether a tensor of lerobot's is a weight: its statistics and what is constant in it are stored."""
    return "normalize" not in name and not name.endswith(("pos_grid", "num_batches_tracked"))


def pictures(camera: str, count: int, steps: int, height: int, width: int) -> Any:
    """Windows of what a camera sees: (count, steps, height, width, 3) uint8."""
    return np.random.RandomState(zlib.crc32(camera.encode())).randint(0, 256, (count, steps, height, width, 3), np.uint8)


class _Nothing(types.ModuleType):
    """A module that has every name."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in NEEDLESS or name in PARTS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Nothing(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def policies(sources: Path) -> types.SimpleNamespace:
    """The classes of a lerobot whose sources lie in a folder: Config, Policy, processors (None before 0.4) and version."""
    home = next((p for p in (sources / "src", sources) if (p / "lerobot").is_dir()), None)
    if home is None:
        raise SystemExit(f"{sources} holds no package lerobot.")
    old = (home / "lerobot" / "common" / "policies").is_dir()
    name = "lerobot.common.policies" if old else "lerobot.policies"
    for module in ("torchvision", "diffusers", "huggingface_hub"):  # before their own dependencies are stand-ins
        importlib.import_module(module)
    if not old:
        importlib.import_module("draccus")
    sys.path.insert(0, str(home))
    sys.meta_path.insert(0, _Finder())
    version = importlib.import_module("lerobot").__version__
    if not old:  # its own imports every policy
        bare = types.ModuleType(name)
        bare.__path__ = [str(home / "lerobot" / "policies")]
        sys.modules[name] = bare
    found = types.SimpleNamespace(version=version, old=old, processors=None)
    found.Config = importlib.import_module(f"{name}.diffusion.configuration_diffusion").DiffusionConfig
    found.Policy = importlib.import_module(f"{name}.diffusion.modeling_diffusion").DiffusionPolicy
    if (home / "lerobot" / "policies" / "diffusion" / "processor_diffusion.py").is_file():
        module = importlib.import_module(f"{name}.diffusion.processor_diffusion")
        found.processors = module.make_diffusion_pre_post_processors
    if not old:
        types_ = importlib.import_module("lerobot.configs.types")
        found.Feature, found.Type, found.Mode = types_.PolicyFeature, types_.FeatureType, types_.NormalizationMode
    return found


def config_of(
    lerobot: Any, options: dict[str, Any], modes: dict[str, str], cameras: Mapping[str, tuple[int, int]] | None = None
) -> Any:
    """A configuration, in the words of this version."""
    options, cameras = SMALL | options, cameras or {}
    seen = [STATE, *([ENVIRONMENT] if "ENV" in modes or not cameras else [])]
    if lerobot.old:
        named = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"} | dict.fromkeys(cameras, "VISUAL")
        said = {k: modes[v].lower() for k, v in named.items() if v in modes and k in (*seen, *cameras, ACTION)}
        inputs, outputs = {k: [SIZES[k]] for k in seen}, {ACTION: [SIZES[ACTION]]}
        inputs |= {k: [3, *size] for k, size in cameras.items()}
        shapes = {"input_shapes": inputs, "output_shapes": outputs}
        norms = {
            "input_normalization_modes": {k: v for k, v in said.items() if k != ACTION},
            "output_normalization_modes": {ACTION: said[ACTION]},
        }
        return lerobot.Config(**shapes, **norms, **{"crop_shape": None} | options)
    types_ = {k: v for k, v in {STATE: "STATE", ENVIRONMENT: "ENV"}.items() if k in seen} | {ACTION: "ACTION"}
    features = {k: lerobot.Feature(type=lerobot.Type[v], shape=(SIZES[k],)) for k, v in types_.items()}
    features |= {k: lerobot.Feature(type=lerobot.Type.VISUAL, shape=(3, *size)) for k, size in cameras.items()}
    return lerobot.Config(
        input_features={k: v for k, v in features.items() if k != ACTION},
        output_features={ACTION: features[ACTION]},
        normalization_mapping={k: lerobot.Mode[v] for k, v in modes.items()},
        device="cpu",
        **options,
    )


def statistics() -> dict[str, dict[str, torch.Tensor]]:
    """Of made-up data; one number of the environment never moves."""
    rng = torch.Generator().manual_seed(1)
    found = {}
    for name, size in SIZES.items():
        rows = 200 + 300 * torch.rand(64, size, generator=rng)
        if name == ENVIRONMENT:
            rows[:, 3] = 7.5
        found[name] = {"min": rows.amin(0), "max": rows.amax(0), "mean": rows.mean(0), "std": rows.std(0)}
    return found


def colours(cameras: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, torch.Tensor]]:
    """Of what the cameras saw, each in a light of its own: (3, 1, 1)."""
    found = {}
    for i, name in enumerate(cameras):
        low = torch.tensor([0.02, 0.1, 0.05])[:, None, None] * (i + 1)
        found[name] = {"min": low, "max": 1 - 2 * low, "mean": 0.4 + low, "std": 0.3 - low}
    return found


@contextmanager
def recorded() -> Iterator[list[torch.Tensor]]:
    """All noise that is drawn meanwhile."""
    drawn: list[torch.Tensor] = []
    plain = torch.randn

    def randn(*shape: Any, **options: Any) -> torch.Tensor:
        drawn.append(plain(*shape, **options))
        return drawn[-1].clone()

    torch.randn = randn  # type: ignore[assignment]
    try:
        yield drawn
    finally:
        torch.randn = plain


def awake(module: torch.nn.Module) -> None:
    """Random weights everywhere: norms that are 1 and biases that are 0 would hide a wrong one."""
    rng = torch.Generator().manual_seed(2)
    for name, tensor in module.named_parameters():
        if "normalize" not in name:
            tensor.data = tensor.data + 0.1 * torch.randn(tensor.shape, generator=rng)


@torch.no_grad()
def computed(lerobot: Any, policy: Any, processors: Any) -> dict[str, torch.Tensor]:
    """What it says to inputs, chunks of actions and the first actions of an episode, with the noise of each."""
    before, after = processors or (policy.normalize_inputs, None)

    def actions(x: torch.Tensor) -> torch.Tensor:
        return policy.unnormalize_outputs({ACTION: x})[ACTION] if after is None else after(x)

    config, rng = policy.config, torch.Generator().manual_seed(3)
    shape = (N, config.horizon, SIZES[ACTION])
    sizes = {k: f.shape for k, f in config.input_features.items()} if not lerobot.old else config.input_shapes
    numbers = [k for k in (STATE, ENVIRONMENT) if k in sizes]
    seen = {k: 200 + 300 * torch.rand(N, config.n_obs_steps, sizes[k][0], generator=rng) for k in numbers}
    if ENVIRONMENT in seen:
        seen[ENVIRONMENT][..., 3] = 7.5
    stored = dict(seen)
    cameras = {k: size[1:] for k, size in sizes.items() if len(size) == 3}
    for name, size in cameras.items():  # as its environments give them
        found = torch.from_numpy(pictures(name, N, config.n_obs_steps, *size))
        seen[name] = found.movedim(-1, -3).contiguous().float() / 255
    scaled = {k: v for k, v in before(dict(seen)).items() if k in seen}
    if cameras:
        scaled["observation.images"] = torch.stack([scaled[k] for k in cameras], -4)
    told = policy.diffusion._prepare_global_conditioning(scaled)
    x, t = torch.randn(shape, generator=rng), torch.tensor([0, config.num_train_timesteps - 1])
    out = policy.diffusion.unet(x, t, global_cond=told)
    found = {"net.x": x, "net.t": t, "net.told": told, "net.out": out, **stored}
    torch.manual_seed(4)
    with recorded() as noise:
        found["actions"] = actions(policy.diffusion.conditional_sample(N, global_cond=told))
    found["noise"] = torch.stack(noise)
    policy.reset()
    first = {k: v[:, 0] for k, v in seen.items()}
    with recorded() as noise:
        if processors:
            steps = [after(policy.select_action(before(dict(first)))) for _ in range(config.n_action_steps)]
        else:  # it normalises by itself
            steps = [policy.select_action(dict(first)) for _ in range(config.n_action_steps)]
    found["first.actions"] = torch.stack(steps, 1)
    found["first.noise"] = torch.stack(noise)
    return {k: v.clone().contiguous() for k, v in found.items()}


def write(lerobot: Any, name: str, folder: Path) -> Path:
    """One case by lerobot's own save_pretrained, and beside it what it computes."""
    options, modes = CASES[name]
    config = config_of(lerobot, options, modes)
    torch.manual_seed(0)
    if lerobot.processors is None:
        policy, processors = lerobot.Policy(config, dataset_stats=statistics()), None
    else:
        policy, processors = lerobot.Policy(config), lerobot.processors(config, dataset_stats=statistics())
    awake(policy)
    policy.eval().save_pretrained(folder)
    for processor in processors or ():
        processor.save_pretrained(folder)
    save_file(
        computed(lerobot, policy, processors),
        folder.with_suffix(".expected.safetensors"),
        {"lerobot": lerobot.version, "torch": torch.__version__.split("+")[0]},
    )
    return folder


def write_seeing(lerobot: Any, name: str, folder: Path) -> Path:
    """The same of one that sees pictures, without its weights, see `made`."""
    options, modes, cameras = PICTURES[name]
    config = config_of(lerobot, options, modes, cameras)
    known = {k: v for k, v in statistics().items() if k != ENVIRONMENT or "ENV" in modes} | colours(cameras)
    if lerobot.processors is None:
        policy, processors = lerobot.Policy(config, dataset_stats=known), None
    else:
        policy, processors = lerobot.Policy(config), lerobot.processors(config, dataset_stats=known)
    state = policy.state_dict()
    policy.load_state_dict({k: made(k, tuple(v.shape)) if is_made(k) else v for k, v in state.items()})
    policy.eval().save_pretrained(folder)
    for processor in processors or ():
        processor.save_pretrained(folder)
    # of 2024, saving sorts the cameras: what was an eye of the first is then one of another, and that is what the file says
    found = computed(lerobot, lerobot.Policy.from_pretrained(folder).eval(), processors)
    (folder / "model.safetensors").unlink()
    found |= {f"state.{k}": v.clone().contiguous() for k, v in state.items() if not is_made(k)}
    save_file(
        found,
        folder.with_suffix(".expected.safetensors"),
        {
            "lerobot": lerobot.version,
            "torch": torch.__version__.split("+")[0],
            "shapes": json.dumps({k: list(v.shape) for k, v in state.items() if is_made(k)}),
        },
    )
    return folder


def whole(stored: Path, folder: Path) -> Path:
    """A folder of `SEEING` with its weights, as lerobot wrote it."""
    expected = stored.with_suffix(".expected.safetensors")
    shutil.copytree(stored, folder)
    with safe_open(expected, "pt") as file:
        shapes = json.loads(file.metadata()["shapes"])
        state = {k.removeprefix("state."): file.get_tensor(k) for k in file.keys() if k.startswith("state.")}  # noqa: SIM118
    save_file({k: made(k, tuple(shape)) for k, shape in shapes.items()} | state, folder / "model.safetensors")
    return folder


def loaded(lerobot: Any, folder: Path) -> tuple[Any, Any]:
    """The policy of a folder by lerobot's own from_pretrained, and its processors from 0.4 on."""
    policy = lerobot.Policy.from_pretrained(folder)
    if lerobot.processors is None:
        return policy, None
    pipeline = importlib.import_module("lerobot.processor").PolicyProcessorPipeline
    convert = importlib.import_module("lerobot.processor.converters")
    before = pipeline.from_pretrained(folder, config_filename="policy_preprocessor.json")
    after = pipeline.from_pretrained(
        folder,
        config_filename="policy_postprocessor.json",
        to_transition=convert.policy_action_to_transition,
        to_output=convert.transition_to_policy_action,
    )
    return policy, (before, after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="an unpacked wheel or a checkout of lerobot")
    parser.add_argument("--name", help="of the folders; default: its version")
    parser.add_argument("--version", help="what a checkout is, which does not know its version")
    parser.add_argument("--out", type=Path, default=GOLDENS)
    parser.add_argument("--pictures", action="store_true", help="write only those that see pictures")
    arguments = parser.parse_args()
    lerobot = policies(arguments.sources)
    lerobot.version = arguments.version or lerobot.version
    version = (arguments.name or lerobot.version).replace(".", "-")
    for case in CASES if not arguments.pictures else ():
        print(write(lerobot, case, arguments.out / f"{version}_{case}"))
    for case, (options, *_) in PICTURES.items():
        if set(options) <= {f.name for f in dataclasses.fields(lerobot.Config)}:
            print(write_seeing(lerobot, case, (arguments.out.parent / SEEING.name) / f"{version}_{case}"))


if __name__ == "__main__":
    main()

"""Small policies of lerobot, written by its own save_pretrained, and what it computes with them: tests/interop/lerobot.

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
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from safetensors.torch import save_file

GOLDENS = Path(__file__).parent.parent / "tests" / "interop" / "lerobot"
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


def config_of(lerobot: Any, options: dict[str, Any], modes: dict[str, str]) -> Any:
    """A configuration, in the words of this version."""
    options = SMALL | options
    if lerobot.old:
        named = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"}
        said = {k: modes[v].lower() for k, v in named.items() if v in modes}
        inputs, outputs = {k: [SIZES[k]] for k in (STATE, ENVIRONMENT)}, {ACTION: [SIZES[ACTION]]}
        shapes = {"input_shapes": inputs, "output_shapes": outputs}
        norms = {
            "input_normalization_modes": {k: v for k, v in said.items() if k != ACTION},
            "output_normalization_modes": {ACTION: said[ACTION]},
        }
        return lerobot.Config(crop_shape=None, **shapes, **norms, **options)
    types_ = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"}
    features = {k: lerobot.Feature(type=lerobot.Type[v], shape=(SIZES[k],)) for k, v in types_.items()}
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
    sizes = {k: f.shape[0] for k, f in config.input_features.items()} if not lerobot.old else SIZES
    seen = {k: 200 + 300 * torch.rand(N, config.n_obs_steps, sizes[k], generator=rng) for k in (STATE, ENVIRONMENT)}
    seen[ENVIRONMENT][..., 3] = 7.5
    told = policy.diffusion._prepare_global_conditioning({k: v for k, v in before(dict(seen)).items() if k in seen})
    x, t = torch.randn(shape, generator=rng), torch.tensor([0, config.num_train_timesteps - 1])
    out = policy.diffusion.unet(x, t, global_cond=told)
    found = {"net.x": x, "net.t": t, "net.told": told, "net.out": out, **seen}
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
    arguments = parser.parse_args()
    lerobot = policies(arguments.sources)
    lerobot.version = arguments.version or lerobot.version
    for case in CASES:
        name = f"{(arguments.name or lerobot.version).replace('.', '-')}_{case}"
        print(write(lerobot, case, arguments.out / name))


if __name__ == "__main__":
    main()

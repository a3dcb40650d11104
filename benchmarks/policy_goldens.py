"""Small checkpoints of Diffusion Policy, as its own code writes them, and what it computes: tests/interop/diffusion_policy.

    python -m pip install --no-deps --target PEER omegaconf==2.2.3 dill==0.3.6 antlr4-python3-runtime==4.9.3
    PYTHONPATH=PEER python benchmarks/policy_goldens.py SOURCES
    python benchmarks/policy_goldens.py             # measures ours against what is stored: a table of docs/interop.md

SOURCES is a checkout of real-stanford/diffusion_policy at 5ba07ac. Its configuration files, policy, normalizer and
`BaseWorkspace.save_checkpoint` run as they are, with the diffusers that is installed; what they import and do not need here
(hydra, zarr) is an empty stand-in. The noise is stored with what was made of it.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
import tempfile
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from lerobot_goldens import awake, recorded
from safetensors.torch import save_file

GOLDENS = Path(__file__).parent.parent / "tests" / "interop" / "diffusion_policy"
COMMIT = "5ba07ac"
N = 2
_DDPM, _DDIM = "train_diffusion_unet_lowdim_workspace", "train_diffusion_unet_ddim_lowdim_workspace"
#: name -> (their configuration, what is changed in it, how the normalizer is fitted, whether there are averaged weights).
#: A norm over few numbers, in a net that is not trained, would make rounding grow from step to step where nothing bounds x0
CASES: dict[str, tuple[str, dict[str, Any], str, bool]] = {
    "limits": (
        _DDPM,
        {
            "task.obs_dim": 5, "horizon": 8, "n_action_steps": 4, "policy.model.down_dims": [8, 8],
            "policy.model.kernel_size": 3,
            "policy.model.diffusion_step_embed_dim": 6, "policy.model.n_groups": 4, "policy.num_inference_steps": 20,
            "policy.noise_scheduler.num_train_timesteps": 20,
        },
        "limits",
        True,
    ),
    "gaussian": (
        _DDIM,
        {
            "task.obs_dim": 3, "task.action_dim": 4, "horizon": 16, "n_action_steps": 4, "n_obs_steps": 1,
            "n_latency_steps": 2, "obs_as_global_cond": True, "policy.model.down_dims": [8, 8],
            "policy.model.diffusion_step_embed_dim": 8, "policy.model.n_groups": 2,
            "policy.model.cond_predict_scale": False, "policy.noise_scheduler.clip_sample": False,
            "policy.noise_scheduler.prediction_type": "sample", "policy.noise_scheduler.num_train_timesteps": 50,
        },
        "gaussian",
        False,
    ),
}  # fmt: skip


def peer(sources: Path) -> types.SimpleNamespace:
    """Their classes."""
    for module in ("ddpm", "ddim"):  # before their own dependencies are stand-ins
        importlib.import_module(f"diffusers.schedulers.scheduling_{module}")
    for module in ("hydra", "hydra.core", "hydra.core.hydra_config", "zarr"):
        sys.modules[module] = MagicMock(__spec__=None)
    sys.modules["zarr"].Array = type("Array", (), {})  # type: ignore[attr-defined]
    sys.path.insert(0, str(sources))
    found = types.SimpleNamespace(sources=sources, OmegaConf=importlib.import_module("omegaconf").OmegaConf)
    found.OmegaConf.register_new_resolver("eval", eval, replace=True)
    home = "diffusion_policy"
    found.Policy = importlib.import_module(f"{home}.policy.diffusion_unet_lowdim_policy").DiffusionUnetLowdimPolicy
    found.Net = importlib.import_module(f"{home}.model.diffusion.conditional_unet1d").ConditionalUnet1D
    found.Normalizer = importlib.import_module(f"{home}.model.common.normalizer").LinearNormalizer
    found.Workspace = importlib.import_module(f"{home}.workspace.base_workspace").BaseWorkspace
    return found


def data(obs_dim: int, action_dim: int) -> dict[str, torch.Tensor]:
    """Made-up recordings; one number of an observation never moves."""
    rng = torch.Generator().manual_seed(1)
    found = {"obs": 200 + 300 * torch.rand(64, obs_dim, generator=rng)}
    found["obs"][:, 1] = 7.5
    return found | {"action": 100 * torch.rand(64, action_dim, generator=rng) - 20}


def made(peer: Any, case: str) -> tuple[Any, Any]:
    """A workspace with policies of a case, and its configuration."""
    base, changes, mode, averaged = CASES[case]
    folder = peer.sources / "diffusion_policy" / "config"
    config = peer.OmegaConf.load(folder / f"{base}.yaml")
    config.task = peer.OmegaConf.load(folder / "task" / "pusht_lowdim.yaml")
    for key, value in changes.items():
        peer.OmegaConf.update(config, key, value)
    config.training.use_ema = averaged
    said = peer.OmegaConf.to_container(config.policy, resolve=True)
    scheduler = importlib.import_module(said["noise_scheduler"]["_target_"].rpartition(".")[0])
    kind = said["noise_scheduler"].pop("_target_").rpartition(".")[2]
    torch.manual_seed(0)
    net = peer.Net(**{k: v for k, v in said["model"].items() if k != "_target_"})
    further = {k: v for k, v in said.items() if k not in ("_target_", "model", "noise_scheduler")}
    policy = peer.Policy(net, getattr(scheduler, kind)(**said["noise_scheduler"]), **further)
    normalizer = peer.Normalizer()
    normalizer.fit(data(config.task.obs_dim, config.task.action_dim), mode=mode)
    policy.set_normalizer(normalizer)
    workspace = peer.Workspace(config, output_dir=".")
    workspace.global_step, workspace.epoch, workspace.include_keys = 10, 1, ("global_step", "epoch")
    workspace.model = policy.eval()
    awake(policy.model)
    if averaged:
        workspace.ema_model = copy.deepcopy(policy)
        for tensor in workspace.ema_model.model.parameters():
            tensor.data = 0.9 * tensor.data
    return workspace, config


@torch.no_grad()
def computed(policy: Any) -> dict[str, torch.Tensor]:
    """What the net says, and actions, with their noise."""
    rng = torch.Generator().manual_seed(3)
    obs = 200 + 300 * torch.rand(N, policy.n_obs_steps, policy.obs_dim, generator=rng)
    obs[..., 1] = 7.5
    x, T = torch.randn(N, policy.horizon, policy.action_dim, generator=rng), policy.noise_scheduler.config.num_train_timesteps
    t = torch.tensor([0, T - 1])
    told = policy.normalizer["obs"].normalize(obs).reshape(N, -1)
    found = {"obs": obs, "net.x": x, "net.t": t, "net.told": told, "net.out": policy.model(x, t, global_cond=told)}
    torch.manual_seed(4)
    with recorded() as noise:
        said = policy.predict_action({"obs": obs})
    found |= {"noise": torch.stack(noise), "actions": said["action_pred"], "carried": said["action"]}
    return {k: v.clone().contiguous() for k, v in found.items()}


def write(peer: Any, case: str, folder: Path) -> Path:
    """A checkpoint by their own code, and what its policy computes."""
    folder.mkdir(parents=True, exist_ok=True)
    workspace, _ = made(peer, case)
    path = folder / f"{case}.ckpt"
    workspace.save_checkpoint(path, use_thread=False)
    policy = getattr(workspace, "ema_model", workspace.model)
    facts = {"commit": COMMIT, "torch": torch.__version__.split("+")[0]}
    save_file(computed(policy), folder / f"{case}.expected.safetensors", facts)
    return path


@torch.no_grad()
def measure(case: str) -> str:
    """A line of the table."""
    # here, since zoo is not imported where their code runs
    from convert_pickle import written
    from convert_policy import policy_of
    from interop import Stored

    from zoo import files
    from zoo.interop.diffusion_policy import NAME
    from zoo.model.plan import Chunk

    with tempfile.TemporaryDirectory() as temporary:
        model = written(Path(temporary) / case, *policy_of(GOLDENS / f"{case}.ckpt"), format=NAME)
    stored = files.load_tensors(GOLDENS / f"{case}.expected.safetensors")
    told = model.codec.condition("observation", {"obs": stored["obs"]})
    out = model.denoiser(stored["net.x"], stored["net.t"].float(), {"observation": told})
    *_, last = model.run(model.plan(N), Chunk({"observation": told}, Stored(stored["noise"])))  # type: ignore[arg-type]
    found = torch.stack([torch.from_numpy(a.values) for a in model.codec.decode(last.x, {})])
    apart = float((found - stored["actions"]).abs().max() / stored["actions"].std())
    off, (_, _, mode, averaged), sampling = float((out - stored["net.out"]).abs().max()), CASES[case], model.recipe.sampling
    film, prediction = model.recipe.net["use_film_scale_modulation"], model.recipe.diffusion.prediction
    options = f"cond_predict_scale={film}, {prediction}, clip_sample={sampling.clip is not None}"
    weights = "ema_model" if averaged else "model"
    return f"| {options} | {mode} | {weights} | {sampling.sampler}, {sampling.steps} | {off:.1e} | {apart:.1e} |"


def table() -> None:
    """Measure ours, and write the table into the page."""
    from pages import fill

    head = f"Diffusion Policy {COMMIT}, as above; actions as a share of the deviation of theirs.\n\n"
    head += "| policy | normalizer | weights | sampler, steps | net off by | actions off by |\n"
    head += "| --- | --- | --- | --- | --- | --- |\n"
    text = head + "\n".join(map(measure, CASES))
    fill(GOLDENS.parents[2] / "docs" / "interop.md", "policies", text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="?", help="a checkout of real-stanford/diffusion_policy")
    parser.add_argument("--out", type=Path, default=GOLDENS)
    arguments = parser.parse_args()
    if arguments.sources is None:
        return table()
    found = peer(arguments.sources)
    for case in CASES:
        print(write(found, case, arguments.out))


if __name__ == "__main__":
    main()

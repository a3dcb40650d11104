"""What a checkpoint of Diffusion Policy's own code holds, for `convert_pickle.py diffusion-policy`.

A `.ckpt` of real-stanford/diffusion_policy is written by torch.save with dill: the states of two policies (the trained one,
and the averaged one), and its configuration as objects of omegaconf. torch's weights-only loader reads it: for the eight
names that such a configuration is made of it gets classes of this file, which hold what they are given. So nothing of dill,
omegaconf, hydra or diffusion_policy is imported, and no code of the file runs; a file that names anything else is refused.

The configuration refers to itself (`${task.obs_dim}`). Such references are looked up. What it would have Python compute
(`${eval:'8+0'}`) is not run: sums of whole numbers are added up, and anything else that the policy needs is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pickles import opened, state
from torch import Tensor

from zoo.errors import CheckpointError, brief
from zoo.interop.converted import FORMAT, OPTIONS
from zoo.interop.diffusion_policy import KINDS, NAME, NET, ONLY, STATISTICS

#: the states of a checkpoint, the preferred one first
AVERAGED = ("ema_model", "model")
POLICY, INNER = "DiffusionUnetLowdimPolicy", "ConditionalUnet1D"
#: references in references
DEEPEST = 20
_REFERENCE, _SUM = re.compile(r"\$\{([\w.]+)\}"), re.compile(r"\$\{eval: *'?\s*(\d+(?:\s*\+\s*\d+)*)\s*'?\}")


class Held:
    """What a configuration's object holds, in the place of its own class: the loader fills its __dict__."""

    def __init__(self, *given: Any) -> None:
        self.given = given


#: for which classes, and functions that give some, it stands
STAND_INS = [
    (Held, name)
    for name in (
        "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode", "typing.Any", "dill._dill._load_type",
        "collections.defaultdict",
    )
]  # fmt: skip


def policy_of(path: Path, weights: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a policy, and the config.json that zoo reads with them.

    Args:
        weights: "ema_model" or "model"; default: the averaged ones, where it was trained with them.

    Raises:
        CheckpointError: another file, another policy, none of these weights, or a configuration that is not plain.
    """
    held = opened(path, STAND_INS)
    states = held.get("state_dicts") if isinstance(held, dict) else None
    if not isinstance(held, dict) or not isinstance(states, dict) or not isinstance(held.get("cfg"), Held):
        there = ", ".join(map(str, held)) if isinstance(held, dict) else type(held).__name__
        raise CheckpointError(f"{path} is no checkpoint of {NAME}: it holds {there[:200]}, and no cfg with state_dicts.")
    try:
        config = plain(held["cfg"])
    except RecursionError:
        raise CheckpointError(f"{path}: its configuration holds itself.") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: its configuration is {brief(config)}; it must be an object.")
    name = weights or next((w for w in AVERAGED if w in states), AVERAGED[1])
    if name not in states:
        raise CheckpointError(f"{path} holds no weights {name!r}; it holds {', '.join(map(str, states))[:200]}.")
    # parameters without numbers, by which theirs knows its device
    tensors = {k: v for k, v in state(states[name], path).items() if not k.endswith("_dummy_variable")}
    foreign = sorted(k for k in tensors if not k.startswith((NET, STATISTICS)))
    if foreign:
        raise CheckpointError(f"{path}: {name} is no state of a {POLICY}: it holds {', '.join(foreign[:5])}.")
    return tensors, {FORMAT: NAME, OPTIONS: options_of(config, path)}


def options_of(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The options of the policy and of its net, from a whole configuration.

    Raises:
        CheckpointError: another policy or net, or an option that is not a plain value.
    """
    policy = config.get("policy")
    net = policy.get("model") if isinstance(policy, dict) else None
    for part, wanted in ((policy, POLICY), (net, INNER)):
        target = part.get("_target_") if isinstance(part, dict) else None
        if str(target).rpartition(".")[2] != wanted:
            raise CheckpointError(f"{path}: its policy is made of {brief(target)}; read is a {POLICY} with a {INNER} alone.")
    whole = ("input_dim", "local_cond_dim", "global_cond_dim", "_target_")  # sizes, which the tensors say
    found = {k: v for k, v in {**policy, **net}.items() if k not in ("model", *whole)}
    found = {k: resolved(v, config, f"policy.{k}", path) for k, v in found.items()}
    if missing := [k for k in (*KINDS, "noise_scheduler") if k not in found]:
        raise CheckpointError(f"{path}: its configuration has no {', '.join(missing)} of the policy.")
    return {k: found[k] for k in sorted(found, key=lambda k: (k not in KINDS, k not in ONLY))}


def plain(value: Any) -> Any:
    """What objects of omegaconf hold, as dictionaries and lists."""
    if isinstance(value, Held):
        inside = vars(value)
        return plain(inside.get("_content", inside.get("_val")))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value


def resolved(value: Any, config: Mapping[str, Any], name: str, path: Path, depth: int = 0) -> Any:
    """A value whose references are looked up.

    Args:
        name: of the option, for messages.

    Raises:
        CheckpointError: a reference to nothing or to itself, or something to compute.
    """
    if isinstance(value, dict):
        return {k: resolved(v, config, f"{name}.{k}", path, depth) for k, v in value.items()}
    if isinstance(value, list):
        return [resolved(v, config, name, path, depth) for v in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    if depth < DEEPEST:
        if whole := _REFERENCE.fullmatch(value):
            return resolved(_found(whole[1], config, name, path), config, name, path, depth + 1)
        if total := _SUM.fullmatch(value):
            return sum(map(int, total[1].split("+")))
        inner = _REFERENCE.sub(lambda m: str(_found(m[1], config, name, path)), value)
        if inner != value:
            return resolved(inner, config, name, path, depth + 1)
    raise CheckpointError(
        f"{path}: {name} is {brief(value)}, which is to be computed: no code of a checkpoint is run here. Load it in its own "
        "package, write the value into its cfg, and save it again."
    )


def _found(place: str, config: Mapping[str, Any], name: str, path: Path) -> Any:
    """What a configuration has at a place."""
    found: Any = config
    for key in place.split("."):
        if not isinstance(found, dict) or key not in found:
            raise CheckpointError(f"{path}: {name} refers to {place!r}, which its configuration does not have.")
        found = found[key]
    return found

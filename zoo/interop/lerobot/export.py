"""Our policies as folders that lerobot loads.

The folder serves its releases from 0.3 on alike: the statistics lie among the weights, as they did until 0.3, and in the
files of two processors, as they do since.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from zoo import files
from zoo.errors import ConfigError, one_of
from zoo.interop.diffusers.schedulers import CURVES, PREDICTIONS
from zoo.interop.lerobot.folder import (
    ACTION,
    AFTER,
    BEFORE,
    CONFIG,
    CONSTANT,
    EPS,
    MODES,
    NATIVE,
    NEEDED,
    NET_OPTIONS,
    STEM,
    TYPE,
    TYPES,
    VISUAL,
    theirs,
)
from zoo.interop.lerobot.unet import ENVIRONMENT, ConditionalUNet1D, sizes_of
from zoo.model.model import Model
from zoo.values import whole

#: files of the processors' statistics
STATE_BEFORE = "policy_preprocessor_step_3_normalizer_processor.safetensors"
STATE_AFTER = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
WRITTEN = {CONFIG, f"{STEM}.safetensors", BEFORE, AFTER, STATE_BEFORE, STATE_AFTER, files.CARD}
#: options that each release asks for, and that change nothing of what a policy does
REST = {
    "device": "cpu", "use_amp": False, "crop_is_random": True, "pretrained_backbone_weights": None,
    "do_mask_loss_for_padding": False, "drop_n_last_frames": 7,
}  # fmt: skip
#: and those of the eyes of one without pictures
BLIND = {
    "vision_backbone": "resnet18", "crop_shape": None, "use_group_norm": True, "spatial_softmax_num_keypoints": 32,
    "use_separate_rgb_encoder_per_camera": False,
}  # fmt: skip


def export(model: Model, folder: Path, *, sampler: str | None = None, steps: int | None = None) -> Path:
    """Write a policy's folder: config.json, model.safetensors, both processors and a card.

    Args:
        sampler, steps: "ddpm" or "ddim" (eta 0), and how many steps, of the folder; default: those of the model.

    Raises:
        ConfigError: a model that lerobot's diffusion policy does not express, or a folder that holds other things.
    """
    there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    if odd := sorted(there - WRITTEN) or (sorted(there) if there and BEFORE not in there else []):
        held = ", ".join(odd[:5])
        raise ConfigError(f"{folder} holds other things ({held}), which would be mixed with the model. Give a new folder.")
    parts = _parts(model)
    sizes = _sizes(model) | _vision(model)
    config = {"type": TYPE, **_features(model, parts), **sizes, **_noise(model, sampler, steps), **REST}
    scaled = _statistics(model, parts) | _colours(model)
    weights = {theirs(k): v for k, v in files.state_of(model.denoiser).items()}
    for name, (norm, found) in scaled.items():
        for place in ("unnormalize_outputs.", "normalize_targets.") if name == ACTION else ("normalize_inputs.",):
            weights |= {f"{place}buffer_{name.replace('.', '_')}.{k}": found[k].clone() for k in NEEDED[norm]}
    flat = {f"{name}.{k}": v for name, (_, found) in scaled.items() for k, v in found.items()}
    said = {"eps": EPS, "norm_map": config["normalization_mapping"]}
    inputs, outputs = config["input_features"], config["output_features"]
    device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
    before = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        device,
        _scaling("normalizer_processor", said | {"features": inputs | outputs}, STATE_BEFORE),
    ]
    after = [_scaling("unnormalizer_processor", said | {"features": outputs}, STATE_AFTER), device]
    with files.new_folder(folder) as new:
        files.save_tensors(new / f"{STEM}.safetensors", weights, {"format": "pt"})
        for name in (STATE_BEFORE, STATE_AFTER):
            files.save_tensors(new / name, flat)
        for name, steps_ in ((BEFORE, before), (AFTER, after)):
            files.write_atomic(new / name, files.dump_json({"name": name.removesuffix(".json"), "steps": steps_}))
        files.write_atomic(new / CONFIG, files.dump_json(config))
        files.write_atomic(new / files.CARD, _card(model).encode())
    return folder


def _scaling(kind: str, said: Mapping[str, Any], file: str) -> dict[str, Any]:
    return {"registry_name": kind, "config": dict(said), "state_file": file}


def _parts(model: Model) -> list[tuple[str, int]]:
    """lerobot's features of what the model observes, in the model's order.

    Raises:
        ConfigError: a model that lerobot's diffusion policy is not, by name.
    """
    recipe, diffusion = model.recipe, model.diffusion
    codec: Any = model.codec
    if recipe.domain != "policy" or model.own_parts:
        raise ConfigError(f"{model!r}: lerobot has policies alone, with a net that a recipe describes.")
    if recipe.denoiser != NATIVE:
        raise ConfigError(
            f"{model!r}: its net {recipe.denoiser!r} is another one than lerobot's, which no weights of it fit. What lerobot "
            f"loads is trained with its net: zoo train {recipe.domain}/{recipe.name} --set denoiser={NATIVE} --set "
            f'net=\'{{"parts": [["{ENVIRONMENT}", 16], ["observation.state", 2]]}}\', with the sizes of your robot.'
        )
    if diffusion.self_condition or diffusion.learned_variance or diffusion.precondition:
        raise ConfigError(f"{model!r}: lerobot's policies have no self-conditioning, learned variance or preconditioning.")
    parts = sizes_of(recipe.net.get("parts", ()), len(codec.observation_names))
    if ENVIRONMENT not in dict(parts) and not codec.cameras:
        raise ConfigError(
            f"{model!r}: lerobot loads no diffusion policy that sees neither pictures nor {ENVIRONMENT}. Say which numbers are "
            "that: net.parts."
        )
    if codec.constant not in (0, CONSTANT):
        raise ConfigError(f"{model!r}: codec.constant={codec.constant}; lerobot has {CONSTANT:g}, and 0 can be written.")
    return parts


def _modes(model: Model, parts: list[tuple[str, int]]) -> dict[str, str]:
    """{feature: how it is scaled}, ours."""
    codec: Any = model.codec
    found: dict[str, str] = {}
    first = 0
    for name, size in parts:
        norms = set(codec.norms["observation"][first : first + size])
        if len(norms) > 1:
            raise ConfigError(
                f"{model!r}: {name} is scaled by {', '.join(sorted(norms))}; lerobot scales a feature in one way."
            )
        found[name], first = norms.pop(), first + size
    norms = set(codec.norms["action"])
    if len(norms) > 1:
        raise ConfigError(f"{model!r}: actions are scaled by {', '.join(sorted(norms))}; lerobot scales them in one way.")
    return found | {ACTION: norms.pop()}


def _features(model: Model, parts: list[tuple[str, int]]) -> dict[str, Any]:
    words, modes = {ours: theirs for theirs, ours in MODES.items()}, _modes(model, parts)
    codec: Any = model.codec
    sizes = dict(parts) | {ACTION: len(codec.action_names)}
    features: dict[str, Any] = {n: {"type": kind, "shape": [sizes[n]]} for n, kind in TYPES.items() if n in sizes}
    features |= {name: {"type": VISUAL, "shape": [3, height, width]} for name, height, width in codec.cameras}
    norms = {words[norm] for norm in codec.norms.get("picture", ())} or {"MEAN_STD"}
    if len(norms) > 1:
        raise ConfigError(
            f"{model!r}: its cameras are scaled by {', '.join(sorted(norms))}; lerobot scales all pictures in one way."
        )
    return {
        "input_features": {n: f for n, f in features.items() if n != ACTION},
        "output_features": {ACTION: features[ACTION]},
        "normalization_mapping": {VISUAL: norms.pop()} | {TYPES[n]: words[mode] for n, mode in modes.items()},
    }


def _vision(model: Model) -> dict[str, Any]:
    """The options of the eyes.

    Raises:
        ConfigError: a crop of resized pictures that no ratio makes.
    """
    given = model.recipe.net.get("vision")
    if given is None:
        return BLIND
    found = {key: list(v) if isinstance(v, list | tuple) else v for key, v in given.items()}
    if (resize := found.pop("resize_shape")) is None:  # an option that releases before 0.4.4 do not know
        return found
    ratio = 1.0
    if (crop := found["crop_shape"]) is not None:
        # theirs makes the crop of this ratio, and rounds down: the middle of those that make this one
        low = max(c / r for c, r in zip(crop, resize, strict=True))
        high = min((c + 1) / r for c, r in zip(crop, resize, strict=True))
        ratio = (low + min(high, 1.0)) / 2
        if [int(r * ratio) for r in resize] != crop or ratio >= 1:
            raise ConfigError(
                f"{model!r}: it crops {crop} from pictures that are resized to {resize}; lerobot crops the same share of both."
            )
    return found | {"resize_shape": resize, "crop_ratio": ratio}


def _sizes(model: Model) -> dict[str, Any]:
    codec: Any = model.codec
    if codec.horizon % 2 ** len(down := _net(model)["down_dims"]):
        raise ConfigError(
            f"{model!r}: horizon={codec.horizon}; lerobot loads {len(down)} levels only with a horizon that divides by "
            f"{2 ** len(down)}."
        )
    sizes = {"n_obs_steps": codec.n_obs, "horizon": codec.horizon, "n_action_steps": codec.executed}
    return sizes | _net(model)


def _net(model: Model) -> dict[str, Any]:
    """The options of the net, those that its recipe leaves out with their defaults."""
    usual = inspect.signature(ConditionalUNet1D.__init__).parameters
    found = {key: model.recipe.net.get(key, usual[key].default) for key in NET_OPTIONS}
    return found | {"down_dims": list(found["down_dims"])}


def _noise(model: Model, sampler: str | None, steps: int | None) -> dict[str, Any]:
    """The noise scheduler's options.

    Raises:
        ConfigError: a schedule, prediction or way to sample that lerobot does not have.
    """
    recipe, sampling = model.recipe, model.recipe.sampling
    options = model.diffusion.schedule.options if recipe.schedule.kind == "discrete" else {}
    words, curves = ({ours: theirs for theirs, ours in table.items()} for table in (PREDICTIONS, CURVES))
    prediction = recipe.diffusion.prediction
    if not options or options["betas"] is not None or options["curve"] not in curves or options["zero_terminal_snr"]:
        raise ConfigError(
            f"{model!r}: lerobot has the discrete schedules {', '.join(CURVES.values())} alone, ending in some noise."
        )
    if options["final"] != "clean" or options["steps_offset"]:
        raise ConfigError(f"{model!r}: lerobot's schedules end clean and have no steps_offset.")
    if prediction not in ("eps", "x0"):
        raise ConfigError(f"{model!r}: its net predicts {prediction!r}; lerobot's policies predict 'eps' or 'x0'.")
    T = options["T"]
    asked = sampler is not None or steps is not None
    own = sampling.options if sampler is None else {}
    sampler = sampling.sampler if sampler is None else sampler
    steps = min(sampling.steps, T) if steps is None else whole(steps, "steps", 1, T)
    if sampler not in ("ddpm", "ddim"):
        raise one_of("sampler of lerobot", sampler, ("ddpm", "ddim"))
    noisy = own.get("eta", 0.0) if sampler == "ddim" else 1.0
    if sampling.guidance_weight:
        raise ConfigError(
            f"{model!r}: sampling.guidance_weight={sampling.guidance_weight:g}; lerobot's policies have no guidance."
        )
    odd = noisy not in (0, 1) or own.get("variance", "small") != "small"
    if odd or (steps < T and not asked and (sampling.spacing or "trailing") != "leading"):
        raise ConfigError(
            f"{model!r}: it samples by {sampler} in {steps} steps, {sampling.spacing or 'trailing'} spacing, "
            f"{own or 'no options'}; lerobot has leading spacing alone, and ddpm with the small variance or ddim with eta 0 "
            "or 1. Say what the folder is to have: "
            f"export('lerobot', folder, sampler='ddpm', steps={T})."
        )
    return {
        # DDIM with eta 1 is DDPM with the small variance (Song et al. 2020, section 4.1)
        "noise_scheduler_type": "DDPM" if noisy else "DDIM",
        "num_train_timesteps": T,
        "beta_schedule": curves[options["curve"]],
        "beta_start": options["beta_start"],
        "beta_end": options["beta_end"],
        "prediction_type": words[prediction],
        "clip_sample": sampling.clip is not None,
        "clip_sample_range": sampling.clip or 1.0,
        "num_inference_steps": steps,
    }


def _statistics(model: Model, parts: list[tuple[str, int]]) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """{feature: (how it is scaled, {"min", "max", "mean", "std"} as far as they are known)}."""
    codec: Any = model.codec
    modes, first = _modes(model, parts), 0
    found: dict[str, tuple[str, dict[str, Tensor]]] = {}
    codec.check_fitted()
    for name, size in [*parts, (ACTION, len(codec.action_names))]:
        what = "action" if name == ACTION else "observation"
        first = 0 if name == ACTION else first
        buffers = {k.removeprefix(f"{what}_"): v[first : first + size] for k, v in codec.named_buffers() if k.startswith(what)}
        first += size
        low, high = buffers["low"].float().cpu(), buffers["high"].float().cpu()
        if name != ACTION and modes[name] == "min_max" and not codec.constant:
            # theirs takes a number that never moves to -1, the low end of its range; in the middle of one it is 0, as here
            still = (low == high).float()
            low, high = low - still, high + still
        known = {"min": low, "max": high} if bool((high >= low).all()) else {}
        if modes[name] == "mean_std":
            known |= {k: buffers[k].float().cpu() for k in ("mean", "std")}
        if missing := [k for k in NEEDED[modes[name]] if k not in known]:
            raise ConfigError(f"{model!r}: {' and '.join(missing)} of {name} are not known, and lerobot scales by them.")
        found[name] = (modes[name], known)
    return found


def _colours(model: Model) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """`_statistics` of pictures: (3, 1, 1) of each camera."""
    codec: Any = model.codec
    found: dict[str, tuple[str, dict[str, Tensor]]] = {}
    for i, (name, _, _) in enumerate(codec.cameras):
        norm, own = codec.norms["picture"][3 * i], slice(3 * i, 3 * i + 3)
        buffers = {k: v[own, None, None].float().cpu() for k, v in codec.named_buffers() if k.startswith("picture_")}
        low, high = buffers["picture_low"], buffers["picture_high"]
        known = {"min": low, "max": high} if bool((high >= low).all()) else {}
        if norm == "mean_std":
            known |= {"mean": buffers["picture_mean"], "std": buffers["picture_std"]}
        found[name] = (norm, known)
    return found


def _card(model: Model) -> str:
    """The card: licence and origin stay."""
    recipe = model.recipe
    facts: dict[str, Any] = {"library_name": "lerobot", "pipeline_tag": "robotics", "tags": ["lerobot", "robotics", TYPE]}
    if recipe.licence:
        facts["license"] = recipe.licence
    text = (
        f"# {recipe.domain}/{recipe.name}\n\n{recipe.description}\n\n```python\n"
        "from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy\n\n"
        'policy = DiffusionPolicy.from_pretrained("./folder")\n```\n'
    )
    lines = [f"## {title}\n\n{said}\n" for title, said in (("Data", recipe.data), ("Licence", recipe.licence)) if said]
    return "---\n" + yaml.safe_dump(facts, sort_keys=False) + "---\n\n" + "\n".join([text, *lines])

"""Our models of pictures, and of mel pictures of sounds, as folders that diffusers loads, and what came from there.

A net that came from there goes back as the class that it was. A net of ours goes with a module beside it, which is a class of
diffusers around it: it needs the package diffusion-zoo where it runs, and diffusers asks for `trust_remote_code=True`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from zoo import files
from zoo.errors import ConfigError
from zoo.interop.diffusers.folder import CONFIG, INDEX, MEL, MODULE, OWN_CLASS, STEM
from zoo.interop.diffusers.mel import MEL_CONFIG, mel_of
from zoo.interop.diffusers.mel import PIPELINE as OF_SOUNDS
from zoo.interop.diffusers.raw import PIPELINE as OF_RAW
from zoo.interop.diffusers.raw import is_raw
from zoo.interop.diffusers.schedulers import CURVES, IPNDM, PREDICTIONS, RANGE, SCHEDULER
from zoo.model.model import Model

#: the version of diffusers whose files these are: the options that are written are those which it has
VERSION = "0.32.0"
TIMES = 1000
MODULE_TEXT = '''"""A net of zoo as a model of diffusers. It needs the package: pip install diffusion-zoo."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput


class ZooDenoiser(ModelMixin, ConfigMixin):
    """The net that a recipe of zoo describes, called as a UNet2DModel is.

    Args:
        recipe: of the model, as plain data.
        time_scale: what the scheduler's times are divided by.
    """

    @register_to_config
    def __init__(self, recipe, sample_size, in_channels, out_channels, time_scale=1.0):
        super().__init__()
        from zoo.contract.recipe import Recipe
        from zoo.model.loading import build

        self.net = build(Recipe.parse(recipe)).denoiser

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """sample (B,C,H,W); class_labels (B,) whole numbers, -1 for none, or None for none at all."""
        t = torch.as_tensor(timestep, device=sample.device, dtype=torch.float32) / self.config.time_scale
        cond = {} if class_labels is None else {"label": class_labels}
        out = self.net(sample, t.expand(len(sample)), cond)
        if isinstance(out, tuple):  # the prediction, and the variance
            out = torch.cat(out, 1)
        return UNet2DOutput(sample=out) if return_dict else (out,)
'''


def export(model: Model, folder: Path) -> Path:
    """Write a model's folder: model_index.json, unet/, scheduler/, of sounds mel/, and a card.

    Raises:
        ConfigError: a model of something else than pictures or mel pictures, a latent model, or one that no scheduler there
            fits; or a folder that holds other things.
    """
    _check_free(folder)
    recipe = model.recipe
    mel, raw = mel_of(recipe), is_raw(recipe)
    if (
        (recipe.domain != "image" and mel is None and not raw)
        or model.is_first_stage
        or model.codec.inner is not model.codec
        or model.own_parts
    ):
        raise ConfigError(
            f"{model!r}: only models of pictures, or of mel pictures of sounds (codec.kind=mel-picture), with a net that a "
            "recipe describes are written for diffusers, and of raw sound those whose net is a UNet1DModel."
        )
    if model.diffusion.self_condition or recipe.conditions.keys() - {"label"}:
        told = ", ".join(recipe.conditions.keys() - {"label"}) or "its own last guess"
        raise ConfigError(f"{model!r}: its net is told {told}, which no pipeline of diffusers gives.")
    kind, scheduler = scheduler_of(model)
    package, name, config = net_of(model)
    pipeline = {"DDPMScheduler": "DDPMPipeline", "DDIMScheduler": "DDIMPipeline"}.get(kind, "DDPMPipeline")
    pipeline = OF_RAW if raw else OF_SOUNDS if mel else pipeline
    if raw and kind != IPNDM:
        raise ConfigError(
            f"{model!r}: it samples as a {kind} does, and a {OF_RAW} of diffusers is one of an {IPNDM}: a schedule "
            "'cosine' with crash, the prediction 'v', and plms with start='zero' on trailing steps."
        )
    index: dict[str, Any] = {
        "_class_name": pipeline,
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", kind],
        "unet": [package, name],
    }
    if mel is not None:
        index |= {"mel": ["diffusers", MEL], "vqvae": [None, None]}
    weights = files.state_of(model.denoiser)
    if name == OWN_CLASS:
        weights = {f"net.{k}": v for k, v in weights.items()}
    elif recipe.denoiser == "diffusers-class":
        weights = {k.removeprefix("net."): v for k, v in weights.items()}
    with files.new_folder(folder) as new:
        for part in ("unet", "scheduler", *(["mel"] if mel else [])):
            (new / part).mkdir()
        files.save_tensors(new / "unet" / f"{STEM}.safetensors", weights, {"format": "pt"})
        files.write_atomic(
            new / "unet" / CONFIG, files.dump_json({"_class_name": name, "_diffusers_version": VERSION, **config})
        )
        if name == OWN_CLASS:
            files.write_atomic(new / "unet" / f"{MODULE}.py", MODULE_TEXT.encode())
        if mel is not None:
            between = {"_class_name": MEL, "_diffusers_version": VERSION, **mel}
            files.write_atomic(new / "mel" / MEL_CONFIG, files.dump_json(between))
        said = {"_class_name": kind, "_diffusers_version": VERSION, **scheduler}
        files.write_atomic(new / "scheduler" / SCHEDULER, files.dump_json(said))
        files.write_atomic(new / INDEX, files.dump_json(index))
        files.write_atomic(new / files.CARD, _card(model, pipeline, name).encode())
    return folder


def _check_free(folder: Path) -> None:
    """Refuse a folder of something else, which would be mixed with the model: its card, its recipe, its parts of weights.

    A folder that was written before is written anew.
    """
    there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    parts = {p.name for p in (folder / "unet").iterdir()} if (folder / "unet").is_dir() else set()
    odd = sorted(there - {INDEX, "unet", "scheduler", "mel", files.CARD})
    odd += [f"unet/{name}" for name in sorted(parts - {CONFIG, f"{STEM}.safetensors", f"{MODULE}.py"})]
    if odd or (there and INDEX not in there):
        held = ", ".join(odd[:5] or sorted(there)[:5])
        raise ConfigError(f"{folder} holds other things ({held}), which would be mixed with the model. Give a new folder.")


def _card(model: Model, pipeline: str, name: str) -> str:
    """The card: licence and origin stay."""
    recipe = model.recipe
    facts: dict[str, Any] = {"library_name": "diffusers", "tags": ["diffusion", recipe.domain]}
    if recipe.licence:
        facts["license"] = recipe.licence
    trust = ", trust_remote_code=True" if name == OWN_CLASS else ""
    needs = "\nIt needs the package diffusion-zoo: the module in unet/ builds its net.\n" if name == OWN_CLASS else ""
    made = "audios" if pipeline in (OF_SOUNDS, OF_RAW) else "images"
    text = (
        f"# {recipe.domain}/{recipe.name}\n\n{recipe.description}\n{needs}\n```python\nfrom diffusers import {pipeline}\n\n"
        f'{made} = {pipeline}.from_pretrained("./folder"{trust})(4).{made}\n```\n'
    )
    lines = [f"## {title}\n\n{said}\n" for title, said in (("Data", recipe.data), ("Licence", recipe.licence)) if said]
    return "---\n" + yaml.safe_dump(facts, sort_keys=False) + "---\n\n" + "\n".join([text, *lines])


def net_of(model: Model) -> tuple[str, str, dict[str, Any]]:
    """(package, class, options) of a model's net."""
    recipe = model.recipe
    options = {k: v for k, v in recipe.net.items() if k not in ("time_scale", "sign")}
    if recipe.denoiser == "diffusers-class":
        return "diffusers", options["class_name"], dict(options["config"])
    channels, height, width = model.codec.shape
    size = width if height == width else [height, width]
    if recipe.denoiser == "unet2d":
        fixed = {
            "sample_size": size, "in_channels": channels, "time_embedding_type": "positional", "class_embed_type": None,
            "num_train_timesteps": None, "downsample_type": "conv", "upsample_type": "conv",
        }  # fmt: skip
        return "diffusers", "UNet2DModel", fixed | options
    scale = float(TIMES) if recipe.schedule.kind == "flow" else 1.0
    said = {"recipe": recipe.model_dump(mode="json"), "sample_size": size, "in_channels": channels}
    said["out_channels"] = channels * (2 if model.diffusion.learned_variance else 1)
    return MODULE, OWN_CLASS, said | {"time_scale": scale}


def scheduler_of(model: Model) -> tuple[str, dict[str, Any]]:
    """(class, options) of the scheduler that samples as a model does by default, every option said.

    Raises:
        ConfigError: none there does.
    """
    kind, said = _scheduler_of(model)
    if not model.diffusion.learned_variance:
        return kind, said
    # one that expects the second half of the net's output; that of DPM-Solver++ keeps three channels, whatever there are
    if said.get("variance_type") == RANGE:
        return kind, said
    if kind == "DPMSolverMultistepScheduler" and model.codec.shape[0] == 3:
        return kind, said | {"variance_type": RANGE}
    raise ConfigError(
        f"{model!r}: its net has a second output, the variance, with which a {kind} of diffusers fails. Written are nets that "
        "are sampled by default with ddpm and variance='learned' (any grid but Karras's), or, in colour, with dpmpp."
    )


def _scheduler_of(model: Model) -> tuple[str, dict[str, Any]]:
    """As `scheduler_of`, whether or not the net has a second output."""
    recipe = model.recipe
    schedule, sampling, prediction = recipe.schedule, recipe.sampling, recipe.diffusion.prediction
    if schedule.kind == "flow" and prediction == "flow":
        # a net from there has the number of times that it was trained with; of ours the module divides by as many
        from_there = recipe.denoiser in ("unet2d", "diffusers-class")
        times = int(recipe.net.get("time_scale", TIMES)) if from_there else TIMES
        flags = ("use_dynamic_shifting", "invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
        said = {"num_train_timesteps": times, "shift": model.diffusion.schedule.options["shift"]}
        return "FlowMatchEulerDiscreteScheduler", said | dict.fromkeys(flags, False) | {"shift_terminal": None}
    if (schedule.kind, prediction) == ("cosine", "v") and model.diffusion.schedule.options["crash"]:
        started = sampling.options.get("start") == "zero" and sampling.spacing in (None, "trailing") and sampling.clip is None
        if sampling.sampler == "plms" and started:
            return IPNDM, {"num_train_timesteps": TIMES, "trained_betas": None}
    words = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if schedule.kind != "discrete" or prediction not in words:
        raise ConfigError(
            f"{model!r}: no pipeline of diffusers samples a schedule {schedule.kind!r} with the prediction {prediction!r}. "
            "Written are discrete schedules with 'eps', 'x0' or 'v', flows with 'flow', and a schedule 'cosine' with crash and "
            "'v' whose default is plms, start='zero', on trailing steps."
        )
    options = model.diffusion.schedule.options
    curves = {ours: theirs for theirs, ours in CURVES.items()}
    betas, curve = options["betas"], curves.get(options["curve"], "linear")
    if betas is None and options["curve"] not in curves:
        plain = type(model.diffusion.schedule)(**options | {"zero_terminal_snr": False}).alpha_bar  # type: ignore[attr-defined]
        betas = [1 - plain[0].item(), *(1 - plain[1:] / plain[:-1]).tolist()]
    said = {
        "num_train_timesteps": options["T"], "beta_start": options["beta_start"], "beta_end": options["beta_end"],
        "beta_schedule": curve, "trained_betas": None if betas is None else list(betas),
        "rescale_betas_zero_snr": options["zero_terminal_snr"], "prediction_type": words[prediction],
        "steps_offset": options["steps_offset"], "thresholding": False,
    }  # fmt: skip
    spacing = sampling.spacing or "trailing"
    clip = {"clip_sample": sampling.clip is not None, "clip_sample_range": sampling.clip or 1.0}
    clean, usual = options["final"] == "clean", spacing in ("leading", "trailing", "linspace")
    if sampling.sampler == "ddpm" and clean and usual:
        variance = sampling.options.get("variance", "small")
        variance_type = RANGE if variance == "learned" else f"fixed_{variance}"
        return "DDPMScheduler", said | clip | {"variance_type": variance_type, "timestep_spacing": spacing}
    open_ = {"open-leading": "leading", "open-linspace": "linspace", "trailing": "trailing"}
    if sampling.sampler == "dpmpp" and spacing in open_ and sampling.clip is None:
        return "DPMSolverMultistepScheduler", said | {
            "algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint",
            "lower_order_final": sampling.options.get("lower_order_final", True), "timestep_spacing": open_[spacing],
            "final_sigmas_type": "zero" if clean else "sigma_min",
        }  # fmt: skip
    return "DDIMScheduler", said | clip | {"set_alpha_to_one": clean, "timestep_spacing": spacing if usual else "trailing"}

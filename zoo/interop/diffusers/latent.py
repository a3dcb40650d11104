"""Pipelines of diffusers on latents: texts to pictures (Rombach et al. 2022), labels to pictures (Peebles & Xie 2022).

The autoencoder becomes a first stage of ours, with its scale as the deviation of the latents; nets and text encoder are the
other packages' classes, whose weights the model holds. Of parts that only look at finished pictures nothing is read.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo import files
from zoo.contract.conditions import Condition, Label
from zoo.contract.recipe import FirstStage, Recipe
from zoo.contract.registry import get_domain
from zoo.core.diffusion import Diffusion
from zoo.errors import CheckpointError
from zoo.interop.diffusers.folder import (
    AUTOENCODER,
    CONFIG,
    INDEX,
    STEM,
    TEXT_STEM,
    Part,
    Pipeline,
    about,
    how_to_convert,
    process_of,
    renamed,
)
from zoo.interop.diffusers.peer import described, text_described
from zoo.interop.diffusers.prompt import Prompt, read_tokenizer
from zoo.interop.diffusers.schedulers import Process
from zoo.interop.origin import Origin, read_origin
from zoo.interop.reading import Options, checked, is_whole, read_object, read_weights, shapes_in, weights_in
from zoo.model.budget import limited
from zoo.model.first_stage import Latent
from zoo.model.model import Model

#: names of the denoisers in recipes
LABELLED, PROMPTED, STAGE = "diffusers-class", "diffusers-prompted", "diffusers-autoencoder"
#: pipeline -> its parts and their classes; the first one is the net
PIPELINES: dict[str, dict[str, tuple[str, ...]]] = {
    "StableDiffusionPipeline": {
        "unet": ("UNet2DConditionModel",),
        "vae": (AUTOENCODER,),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "scheduler": (),
    },
    "DiTPipeline": {
        "transformer": ("DiTTransformer2DModel", "Transformer2DModel"),
        "vae": (AUTOENCODER,),
        "scheduler": (),
    },
}
#: parts that look at finished pictures, and change none of those that they let pass
LOOKERS = ("safety_checker", "feature_extractor")
#: the weight of guidance in their usual call, where a scale of 1 is none
WEIGHTS = {"StableDiffusionPipeline": 6.5, "DiTPipeline": 3.0}

VAE = {
    "in_channels": "whole", "out_channels": "whole", "down_block_types": "texts", "up_block_types": "texts",
    "block_out_channels": "wholes", "layers_per_block": "whole", "act_fn": "text", "latent_channels": "whole",
    "norm_num_groups": "whole", "sample_size": "whole",
}  # fmt: skip
#: options that came later -> (kind, what was so before)
VAE_LATER: dict[str, tuple[str, Any]] = {
    "scaling_factor": ("positive", 0.18215), "shift_factor": ("number?", None), "force_upcast": ("flag", True),
    "use_quant_conv": ("flag", True), "use_post_quant_conv": ("flag", True), "mid_block_add_attention": ("flag", True),
}  # fmt: skip
UNET = {
    "sample_size": "whole", "in_channels": "whole", "out_channels": "whole", "center_input_sample": "flag",
    "flip_sin_to_cos": "flag", "freq_shift": "number", "down_block_types": "texts", "up_block_types": "texts",
    "block_out_channels": "wholes", "layers_per_block": "whole|wholes", "downsample_padding": "count",
    "mid_block_scale_factor": "positive", "act_fn": "text", "norm_num_groups": "whole?", "norm_eps": "positive",
    "cross_attention_dim": "whole", "attention_head_dim": "whole|wholes",
}  # fmt: skip
UNET_LATER: dict[str, tuple[str, Any]] = {
    "mid_block_type": ("text?", "UNetMidBlock2DCrossAttn"), "only_cross_attention": ("flag|list", False),
    "dual_cross_attention": ("flag", False), "use_linear_projection": ("flag", False), "upcast_attention": ("flag", False),
    "resnet_time_scale_shift": ("text", "default"), "resnet_skip_time_act": ("flag", False),
    "resnet_out_scale_factor": ("positive", 1.0), "dropout": ("number", 0.0), "time_embedding_dim": ("whole?", None),
    "time_embedding_act_fn": ("text?", None), "timestep_post_act": ("text?", None), "conv_in_kernel": ("whole", 3),
    "conv_out_kernel": ("whole", 3), "attention_type": ("text", "default"), "cross_attention_norm": ("text?", None),
    "transformer_layers_per_block": ("whole|list", 1), "reverse_transformer_layers_per_block": ("list?", None),
    "mid_block_only_cross_attention": ("flag?", None), "class_embeddings_concat": ("flag", False),
    "addition_embed_type_num_heads": ("whole", 64),
}  # fmt: skip
#: what a net may be told further, which no recipe here tells it
UNET_WITHOUT = (
    "encoder_hid_dim", "encoder_hid_dim_type", "class_embed_type", "addition_embed_type", "addition_time_embed_dim",
    "num_class_embeds", "time_cond_proj_dim", "projection_class_embeddings_input_dim", "num_attention_heads",
)  # fmt: skip
DIT = {
    "num_attention_heads": "whole", "attention_head_dim": "whole", "in_channels": "whole", "out_channels": "whole?",
    "num_layers": "whole", "dropout": "number", "norm_num_groups": "whole", "attention_bias": "flag", "sample_size": "whole",
    "patch_size": "whole", "activation_fn": "text", "num_embeds_ada_norm": "whole", "norm_type": "text",
    "norm_elementwise_affine": "flag",
}  # fmt: skip
DIT_LATER: dict[str, tuple[str, Any]] = {"upcast_attention": ("flag", False), "norm_eps": ("positive", 1e-5)}
#: options of the class that DiTTransformer2DModel was taken out of, and the values with which it is that one
DIT_BEFORE: dict[str, tuple[Any, ...]] = {
    "cross_attention_dim": (None,), "num_vector_embeds": (None,), "use_linear_projection": (False,),
    "only_cross_attention": (False,), "double_self_attention": (False,), "attention_type": ("default",),
    "caption_channels": (None,), "interpolation_scale": (None, 1.0), "use_additional_conditions": (None, False),
}  # fmt: skip
TEXT = {
    "vocab_size": "whole", "hidden_size": "whole", "intermediate_size": "whole", "num_hidden_layers": "whole",
    "num_attention_heads": "whole", "max_position_embeddings": "whole", "hidden_act": "text", "layer_norm_eps": "positive",
}  # fmt: skip
TEXT_LATER: dict[str, tuple[str, Any]] = {
    "projection_dim": ("whole", 512), "attention_dropout": ("number", 0.0), "bos_token_id": ("count?", None),
    "eos_token_id": ("count?", None), "pad_token_id": ("count?", None),
}  # fmt: skip
#: options of a text encoder that say how it was made, or what nobody here asks it for
TEXT_DEAD = (
    "architectures", "dropout", "dtype", "initializer_factor", "initializer_range", "torch_dtype", "transformers_version",
)  # fmt: skip


def latent_model(pipeline: Pipeline, diffusion: Diffusion | None = None) -> Model:
    """The model of a pipeline on latents.

    Args:
        diffusion: in place of what the scheduler's file says.

    Raises:
        CheckpointError: a pipeline that is not in `PIPELINES`, a part that is missing, or something in a part that we do not
            know; the message names it. ConfigError: a package that is not installed.
    """
    name = _check_parts(pipeline)
    stage = first_stage(pipeline, _side(pipeline))
    origin, process = read_origin(pipeline.folder), process_of(pipeline, diffusion)
    net_part = pipeline.parts[next(iter(PIPELINES[name]))]
    size, channels = stage.codec.shape[-1], int(stage.denoiser.latent_shape[0])  # type: ignore[union-attr,index,arg-type]
    further: dict[str, Any] = {k: v for k, v in (("time_scale", process.time_scale), ("sign", process.sign)) if v != 1}
    conditions: dict[str, Condition]
    parts: list[tuple[str, list[Path], Callable[[str], str]]]
    paths = weights_in(net_part.folder, STEM, how_to_convert(net_part))
    if name == "DiTPipeline":
        config = _dit(net_part, channels)
        conditions = {"label": _labels(pipeline, config["num_embeds_ada_norm"])}
        denoiser, options = LABELLED, described("DiTTransformer2DModel", config) | further
        parts = [("net.", paths, renamed)]
    else:
        prompt = read_tokenizer(pipeline.parts["tokenizer"].folder)
        text = _text(pipeline.parts["text_encoder"], prompt)
        config = _unet(net_part, channels, text["hidden_size"])
        conditions = {"text": prompt}
        denoiser = PROMPTED
        options = described("UNet2DConditionModel", config) | further | {"text": text_described(text)}
        encoder = pipeline.parts["text_encoder"]
        text_paths = weights_in(encoder.folder, TEXT_STEM, how_to_convert(encoder, "transformers"))
        parts = [("net.", paths, renamed), ("text.", text_paths, lambda key: key.removeprefix("text_model."))]
    looked = [p for p in LOOKERS[:1] if p in pipeline.parts]
    notes = [*process.notes, *(f"its {p} is left out" for p in looked)]
    noise = process.of_net(channels, config["out_channels"] or channels, net_part.folder / CONFIG)
    recipe = _recipe(pipeline, origin, process, noise, notes).model_copy(
        update={
            "codec": {"size": size, "channels": 3, "stage": _stage_of(pipeline, stage).model_dump(mode="json")},
            "denoiser": denoiser,
            "net": options,
            "conditions": conditions,
        }
    )
    recipe = Recipe.parse(recipe.model_dump())
    shapes = {f"{prefix}{k}": v for prefix, found, _ in parts for k, v in shapes_in(found).items()}
    shapes |= {f"codec.{k}": tuple(v.shape) for k, v in stage.denoiser.state_dict().items()}
    with limited(shapes, net_part.folder, weights=paths[0].name):
        model = Model(recipe, get_domain("image"), stage=stage, filled=False)
    tensors: dict[str, Tensor] = {}
    for prefix, found, rename in parts:
        read = read_weights(found, rename)
        read.pop("embeddings.position_ids", None)  # numbers in their order, which the first versions kept
        tensors |= {f"{prefix}{k}": v for k, v in read.items()}
    files.load_strict(model.denoiser, tensors, paths[0])
    codec = model.codec
    if isinstance(codec, Latent):
        given = stage.recipe.net["config"]
        codec.deviation.fill_(1 / given["scaling_factor"])
        codec.mean.fill_(given["shift_factor"] or 0.0)
        model.recipe = model.recipe.staged(codec.seal().spec)
    if looked:
        warnings.warn(
            f"{pipeline.folder}: its {', '.join(looked)} is left out: zoo looks at no finished picture.", stacklevel=4
        )
    return model


def first_stage(pipeline: Pipeline, side: int | None = None) -> Model:
    """The autoencoder of a folder, as a model of its own.

    Args:
        side: of its latents, where a net says it; default: of its pictures, as the autoencoder itself says.

    Raises:
        CheckpointError: an option that is missing or unknown, or weights that do not fit. ConfigError: diffusers is not
            installed.
    """
    part = pipeline.parts["vae"]
    if part.class_name != AUTOENCODER:
        raise CheckpointError(f"{part.folder} holds a {part.class_name}; a first stage is an {AUTOENCODER}.")
    path = part.folder / CONFIG
    o = Options(part.config, AUTOENCODER, path)
    o.only("latents_mean", None)
    o.only("latents_std", None)
    config = _taken(o, VAE, VAE_LATER)
    if config["in_channels"] != config["out_channels"] or config["in_channels"] not in (1, 3):
        raise CheckpointError(
            f"{path}: in_channels={config['in_channels']}, out_channels={config['out_channels']}; pictures have 1 (grey) or 3 "
            "(RGB)."
        )
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    size = config["sample_size"] if side is None else side * factor
    if not 1 <= size <= 16_384:
        raise CheckpointError(f"{path}: pictures of {size} x {size}; give a size from 1 to 16,384.")
    origin = read_origin(pipeline.folder)
    recipe = Recipe.parse(
        {
            "name": origin.name if side is None else f"{origin.name}-vae",
            "domain": "image",
            "role": "first_stage",
            "description": f"{AUTOENCODER} of diffusers (written by version {pipeline.version}), imported from {origin.place}.",
            "licence": origin.licence,
            "data": origin.data,
            "codec": {"size": size, "channels": config["in_channels"]},
            "denoiser": STAGE,
            "net": {k: v for k, v in described(AUTOENCODER, config).items() if k != "class_name"},
            "training": {"objective": "autoencode"},
        }
    )
    paths = weights_in(part.folder, STEM, how_to_convert(part))
    with limited({f"net.{k}": v for k, v in shapes_in(paths).items()}, part.folder, weights=paths[0].name):
        model = Model(recipe, get_domain("image"), filled=False)
    files.load_strict(model.denoiser, {f"net.{k}": v for k, v in read_weights(paths, renamed).items()}, paths[0])
    return model


def _check_parts(pipeline: Pipeline) -> str:
    """The name of a pipeline whose parts are those that we know.

    Raises:
        CheckpointError: another pipeline, or a part that is missing, too much, or of another class.
    """
    name, folder = pipeline.class_name, pipeline.folder
    if name not in PIPELINES:
        raise CheckpointError(
            f"{folder} holds {pipeline.found}. On latents: {', '.join(PIPELINES)}; the autoencoder alone is read from "
            "its own folder."
        )
    wanted = PIPELINES[name]
    if missing := [p for p in wanted if p not in pipeline.parts and p != "scheduler"]:
        raise CheckpointError(f"{folder / INDEX}: a {name} without {', '.join(missing)}: the folder is not complete.")
    if odd := sorted(pipeline.parts.keys() - wanted.keys() - set(LOOKERS)):
        raise CheckpointError(f"{folder} holds {pipeline.found}; not supported: {', '.join(odd)}.")
    for key, kinds in wanted.items():
        if kinds and (found := pipeline.parts[key].class_name) not in kinds:
            raise CheckpointError(f"{folder / INDEX}: its {key} is a {found}; supported: {', '.join(kinds)}.")
    if odd := sorted(k for k in pipeline.index if not k.startswith("_") and k not in ("requires_safety_checker", "id2label")):
        shown = ", ".join(f"{k}={pipeline.index[k]!r}"[:100] for k in odd[:5])
        raise CheckpointError(f"{folder / INDEX} has options of a {name} that zoo does not know: {shown}.")
    return name


def _side(pipeline: Pipeline) -> int:
    """The side of a net's latents, by its config.

    Raises:
        CheckpointError: they are not square, or it is not said.
    """
    part = pipeline.part("unet", "transformer") or pipeline.parts["vae"]
    size: Any = part.config.get("sample_size")
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or sides[0] != sides[1] or not is_whole(sides[0]) or not 1 <= sides[0] <= 16_384:
        raise CheckpointError(
            f"{part.folder / CONFIG}: sample_size={size!r}; zoo has square latents of a known size. Write it there: "
            '"sample_size": 64.'
        )
    return int(sides[0])


def _taken(o: Options, first: Mapping[str, str], later: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """All options of a class, checked; those that nobody knows are an error."""
    found = {k: o.needed(k) for k in first} | {k: o.later(k, before) for k, (_, before) in later.items()}
    o.end()
    checked(found, {**first, **{k: kind for k, (kind, _) in later.items()}}, o.what, o.path)
    return found


def _unet(part: Part, channels: int, width: int) -> dict[str, Any]:
    """The options of a UNet2DConditionModel on latents that is told a text alone."""
    path = part.folder / CONFIG
    given = part.config
    given["sample_size"] = given["sample_size"][0] if isinstance(given.get("sample_size"), list) else given.get("sample_size")
    o = Options(given, part.class_name, path)
    for key in UNET_WITHOUT:
        o.only(key, None)
    o.only("time_embedding_type", "positional")
    config = _taken(o, UNET, UNET_LATER)
    _fits_latents(config, channels, path, (channels,))
    if config["cross_attention_dim"] != width:
        raise CheckpointError(
            f"{path}: cross_attention_dim={config['cross_attention_dim']}, and its text encoder has hidden_size={width}: they "
            "do not belong together."
        )
    return config


def _dit(part: Part, channels: int) -> dict[str, Any]:
    """The options of a DiTTransformer2DModel on latents."""
    path = part.folder / CONFIG
    o = Options(part.config, part.class_name, path)
    if part.class_name != "DiTTransformer2DModel":
        for key, values in DIT_BEFORE.items():
            o.only(key, *values)
    config = _taken(o, DIT, DIT_LATER)
    _fits_latents(config | {"out_channels": config["out_channels"] or channels}, channels, path, (channels, 2 * channels))
    return config


def _fits_latents(config: Mapping[str, Any], channels: int, path: Path, outs: tuple[int, ...]) -> None:
    """Refuse a net of other channels than the latents have: one that is told a picture, or a mask, beside them."""
    if config["in_channels"] != channels or config["out_channels"] not in outs:
        raise CheckpointError(
            f"{path}: in_channels={config['in_channels']}, out_channels={config['out_channels']}, and the latents of its "
            f"autoencoder have {channels}: a net that is told more than they are is not supported."
        )


def _text(part: Part, prompt: Prompt) -> dict[str, Any]:
    """The options of a CLIPTextModel."""
    path = part.folder / CONFIG
    o = Options(read_object(path), part.class_name, path)
    o.only("use_attention_mask", False, None)
    o.only("model_type", "clip_text_model")
    found = {k: o.needed(k) for k in TEXT} | {k: o.later(k, before) for k, (_, before) in TEXT_LATER.items()}
    o.end(TEXT_DEAD)
    checked(found, {**TEXT, **{k: kind for k, (kind, _) in TEXT_LATER.items()}}, o.what, path)
    if prompt.length > found["max_position_embeddings"] or prompt.size > found["vocab_size"]:
        raise CheckpointError(
            f"{path}: {found['max_position_embeddings']} tokens of {found['vocab_size']}, and its tokenizer gives "
            f"{prompt.length} of {prompt.size}: they do not belong together."
        )
    return found


def _labels(pipeline: Pipeline, count: int) -> Label:
    """The labels of a pipeline: their names as far as it says them, short where that is enough to tell them apart."""
    path, table = pipeline.folder / INDEX, pipeline.index.get("id2label")
    if count > 100_000:
        raise CheckpointError(f"{path}: {count} labels; zoo has at most 100,000.")
    if table is None:
        return Label(values=tuple(map(str, range(count))))
    numbers = {str(i) for i in range(count)}
    if not isinstance(table, dict) or table.keys() != numbers or not all(isinstance(v, str) and v for v in table.values()):
        raise CheckpointError(f"{path}: id2label must name the {count} labels of its net, '0' to '{count - 1}'.")
    full = [table[str(i)] for i in range(count)]
    short = [name.partition(",")[0].strip() or name for name in full]
    times = Counter(short)
    named = [s if times[s] == 1 else f for s, f in zip(short, full, strict=True)]
    times = Counter(named)
    return Label(values=tuple(n if times[n] == 1 else f"{n} ({i})" for i, n in enumerate(named)))


def _stage_of(pipeline: Pipeline, stage: Model) -> FirstStage:
    """What the recipe of a latent model says of its first stage: where it lies, and its recipe."""
    origin = read_origin(pipeline.folder)
    name = origin.place if origin.place.startswith("hub:") else str(pipeline.parts["vae"].folder)
    return FirstStage(name=name, recipe=stage.recipe.model_dump(mode="json"))


def _recipe(pipeline: Pipeline, origin: Origin, process: Process, noise: Mapping[str, Any], notes: list[str]) -> Recipe:
    """What the recipes of all pipelines on latents have; `noise` is their part `diffusion`."""
    weight = {"guidance_weight": WEIGHTS[pipeline.class_name or ""]}
    prompted = pipeline.class_name == "StableDiffusionPipeline"
    return Recipe.parse(
        {
            "name": origin.name,
            "domain": "image",
            "description": about(pipeline, origin, notes),
            "licence": origin.licence,
            "data": origin.data,
            "denoiser": PROMPTED,
            "schedule": process.schedule,
            "diffusion": noise,
            "sampling": process.sampling | weight,
            # text encoders stay as they are when their net is trained on
            "training": ({"freeze": ["text"]} if prompted else {})
            | ({"objective": "hybrid"} if noise.get("learned_variance") else {}),
        }
    )

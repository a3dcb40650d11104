"""The format: what `zoo.load` and `model.export` find under the name "diffusers"."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo import files
from zoo.contract.conditions import Condition, Label
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain
from zoo.core.diffusion import Diffusion
from zoo.errors import CheckpointError, ConfigError
from zoo.interop.diffusers import unet
from zoo.interop.diffusers.folder import (
    AUTOENCODER,
    INDEX,
    OWN_CLASS,
    STEM,
    Part,
    about,
    files_of,
    how_to_convert,
    is_ours,
    process_of,
    read_pipeline,
    renamed,
)
from zoo.interop.diffusers.latent import PIPELINES, first_stage, latent_model
from zoo.interop.diffusers.mel import PIPELINE as OF_SOUNDS
from zoo.interop.diffusers.mel import fitting, read_mel
from zoo.interop.diffusers.peer import PeerNet, described
from zoo.interop.diffusers.raw import NET as NET_OF_RAW
from zoo.interop.diffusers.raw import PIPELINE as OF_RAW
from zoo.interop.diffusers.raw import raw_sound
from zoo.interop.diffusers.schedulers import Process
from zoo.interop.origin import Origin, read_origin
from zoo.interop.reading import Options, checked, is_whole, read_weights, shapes_in, weights_in
from zoo.model.budget import limited
from zoo.model.golden import golden_output
from zoo.model.model import Model

#: names of the denoisers in recipes
NATIVE, PEER = "unet2d", "diffusers-class"
#: options of a UNet2DModel that came after its first version -> what was so before
LATER = {
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "mid_block_type": "UNetMidBlock2D",
    "attn_norm_num_groups": None,
    "time_embedding_dim": None,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
}
#: no picture is larger
MOST_SIDE = 16_384
#: what a value of an option may be, see `checked`
KINDS = {
    "out_channels": "whole", "layers_per_block": "whole", "norm_num_groups": "whole?", "attention_head_dim": "whole?",
    "attn_norm_num_groups": "whole?", "time_embedding_dim": "whole?", "num_train_timesteps": "whole?",
    "downsample_padding": "count", "norm_eps": "positive", "mid_block_scale_factor": "positive", "freq_shift": "number",
    "dropout": "number", "center_input_sample": "flag", "flip_sin_to_cos": "flag", "add_attention": "flag", "act_fn": "text",
    "time_embedding_type": "text", "resnet_time_scale_shift": "text", "downsample_type": "text", "upsample_type": "text",
    "mid_block_type": "text?", "block_out_channels": "wholes", "down_block_types": "texts", "up_block_types": "texts",
}  # fmt: skip
FIRST = (
    "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block",
    "norm_num_groups", "norm_eps", "act_fn", "attention_head_dim", "downsample_padding", "mid_block_scale_factor",
    "center_input_sample", "freq_shift", "flip_sin_to_cos", "time_embedding_type",
)  # fmt: skip


class DiffusersFormat:
    """Folders that diffusers writes, by `save_pretrained` of a pipeline or of a net."""

    def recognises(self, folder: Path) -> bool:
        """By model_index.json, or by a config.json that names a class and a version of diffusers."""
        return is_ours(folder)

    def wanted(self, names: Collection[str]) -> list[str] | None:
        """Which files of a repository are needed; None where it is not one of diffusers."""
        return files_of(names)

    def load(self, folder: Path, *, diffusion: Diffusion | None = None) -> Model:
        """The model of a folder.

        Args:
            diffusion: of a net without a scheduler's file.

        Raises:
            CheckpointError, ConfigError: what is missing, or what of it we do not know; the message names it.
        """
        pipeline = read_pipeline(folder)
        net = pipeline.part("unet", "transformer")
        if "vae" in pipeline.parts:
            if diffusion is not None and net is None:
                raise ConfigError(f"diffusion=: {folder} holds an autoencoder alone, which has no noise. Leave it out.")
            return first_stage(pipeline) if net is None else latent_model(pipeline, diffusion)
        if net is None:
            raise CheckpointError(f"{folder} holds {pipeline.found}: no unet, and nothing else that zoo can sample with.")
        if net.class_name == NET_OF_RAW:
            return raw_sound(pipeline, diffusion)
        mel = read_mel(pipeline)
        odd = sorted(pipeline.parts.keys() - {"unet", "scheduler"} - ({"mel"} if mel else set()))
        if net.class_name == OWN_CLASS and not odd and diffusion is None:
            return self._own(net, mel)
        if net.class_name != "UNet2DModel" or odd:
            raise CheckpointError(
                f"{folder} holds {pipeline.found}. Supported are pipelines of a UNet2DModel and a scheduler, the net alone, "
                f"{', '.join((*PIPELINES, OF_SOUNDS, OF_RAW))}, and an {AUTOENCODER} alone; not supported: "
                f"{', '.join(odd) or net.class_name}."
            )
        origin = read_origin(folder)
        given = net.config
        process = process_of(pipeline, diffusion)
        recipe = read_unet(given, net, process, about(pipeline, origin, process.notes), origin, mel)
        paths = weights_in(net.folder, STEM, how_to_convert(net))
        domain = get_domain(recipe.domain)
        shapes = {f"denoiser.{k}": v for k, v in shapes_in(paths).items()}
        with limited(shapes, net.folder, weights=paths[0].name):
            model = Model(recipe, domain, filled=False)
        tensors = read_weights(paths, renamed)
        if recipe.denoiser == PEER:
            tensors = {f"net.{k}": v for k, v in tensors.items()}
        files.load_strict(model.denoiser, tensors, paths[0])
        return model

    def _own(self, net: Part, mel: Mapping[str, Any] | None) -> Model:
        """A model that we exported: its recipe is in the config of its net, and nothing of the module beside it is run."""
        said = net.config.get("recipe")
        if not isinstance(said, dict):
            raise CheckpointError(f"{net.folder / files.CONFIG} has no recipe, which a {OWN_CLASS} is built from.")
        paths = weights_in(net.folder, STEM, how_to_convert(net))
        recipe = Recipe.parse(said)
        if mel is not None and recipe.codec != mel:
            raise CheckpointError(f"{net.folder.parent}: its mel is not that of the recipe in {net.folder / files.CONFIG}.")
        with limited(shapes_in(paths), net.folder, weights=paths[0].name):
            model = Model(recipe, get_domain(recipe.domain), filled=False)
        own = {k.removeprefix("net."): v for k, v in read_weights(paths).items()}
        files.load_strict(model.denoiser, own, paths[0])
        return model

    def export(self, model: Model, folder: Path) -> Path:
        """Write a model of ours as a folder of diffusers, see `zoo.interop.diffusers.export`."""
        from zoo.interop.diffusers.export import export

        return export(model, folder)

    def card(self, folder: Path) -> str:
        """The text of a folder's own card."""
        return read_origin(folder).text

    def golden(self, model: Model, folder: Path, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """What diffusers' own net says to inputs of `zoo.model.golden`; None where it is not installed, or not needed.

        Args:
            folder: the model's own, of diffusers.
        """
        net = read_pipeline(folder).part("unet", "transformer")
        if model.recipe.denoiser != NATIVE or net is None:
            return None
        config = {k: v for k, v in net.config.items() if not k.startswith("_")}
        options: dict[str, Any] = {k: model.recipe.net[k] for k in ("time_scale", "sign") if k in model.recipe.net}
        options["learned_variance"] = model.diffusion.learned_variance
        try:
            peer = PeerNet(model.codec.shape, model.recipe.conditions, class_name="UNet2DModel", config=config, **options)
        except ConfigError:
            return None
        paths = weights_in(net.folder, STEM, how_to_convert(net))
        files.load_strict(peer.net, read_weights(paths, renamed), paths[0])
        theirs = copy.copy(model)
        theirs.__dict__ = model.__dict__ | {"_modules": dict(model._modules)}
        theirs.denoiser = peer.eval()
        return golden_output(theirs, inputs)


def read_unet(
    given: Mapping[str, Any],
    part: Part,
    process: Process,
    description: str,
    origin: Origin,
    mel: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe of a UNet2DModel of pictures.

    Args:
        mel: options of the codec of the sounds that the pictures are of.

    Raises:
        CheckpointError: a key that is missing or unknown, or a net that makes something else than pictures.
        ConfigError: kinds of parts that ours has not, where diffusers is not installed.
    """
    path = part.folder / files.CONFIG
    o = Options(given, "UNet2DModel", path)
    size = o.needed("sample_size")
    net = {k: o.needed(k) for k in FIRST} | {k: o.later(k, before) for k, before in LATER.items()}
    o.end()
    checked(net, KINDS, "UNet2DModel", path)
    channels = net.pop("in_channels")
    domain, codec = ("audio", dict(fitting(mel, size, channels, path))) if mel else ("image", pictures(size, channels, path))
    conditions: dict[str, Condition] = {}
    if net["class_embed_type"] is not None:
        raise CheckpointError(f"{path}: class_embed_type={net['class_embed_type']!r} is not supported; supported: null.")
    if (count := net["num_class_embeds"]) is not None:
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 100_000:
            raise CheckpointError(f"{path}: num_class_embeds={count!r}; it must be a whole number.")
        # the net knows no null: each sample draws a label where nobody gives one
        conditions["label"] = Label(values=tuple(map(str, range(count))), free="draw")
    reasons, noise = beyond(net), process.of_net(channels, net["out_channels"], path)
    further: dict[str, Any] = {k: v for k, v in (("time_scale", process.time_scale), ("sign", process.sign)) if v != 1}
    if not reasons:
        for key in ("time_embedding_type", "class_embed_type", "num_train_timesteps", "downsample_type", "upsample_type"):
            net.pop(key)
        denoiser, options = NATIVE, net | further
    else:
        config = {k: v for k, v in given.items() if not k.startswith("_")}
        try:
            denoiser, options = PEER, described("UNet2DModel", config) | further
        except ConfigError as error:
            raise ConfigError(
                f"{path}: zoo's own net does not have {', '.join(reasons)}, and diffusers' is not there: {error}"
            ) from None
    return Recipe.parse(
        {
            "name": origin.name,
            "domain": domain,
            "description": description,
            "licence": origin.licence,
            "data": origin.data,
            "codec": codec,
            "denoiser": denoiser,
            "net": options,
            "conditions": conditions,
            "schedule": process.schedule,
            "diffusion": noise,
            "sampling": process.sampling,
            "training": {"objective": "hybrid"} if noise.get("learned_variance") else {},
        }
    )


def pictures(size: Any, channels: Any, path: Path) -> dict[str, Any]:
    """The options of the codec of pictures, by what a net says of them.

    Raises:
        CheckpointError: pictures that the image domain does not have.
    """
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or sides[0] != sides[1] or not all(is_whole(n) and 1 <= n <= MOST_SIDE for n in sides):
        raise CheckpointError(
            f'{path}: sample_size={size!r}; zoo has square pictures of a known size. Write it there: "sample_size": 32.'
        )
    if channels not in (1, 3):
        raise CheckpointError(
            f"{path}: in_channels={channels!r}; pictures have 1 (grey) or 3 (RGB). A net on latents is read together with its "
            f"autoencoder, from the folder of a pipeline ({INDEX})."
        )
    return {"size": sides[0], "channels": channels}


def beyond(net: Mapping[str, Any]) -> list[str]:
    """Which options of a UNet2DModel our own net does not have."""
    found = [f"{k}={net[k]!r}" for k in ("downsample_type", "upsample_type") if net[k] != "conv"]
    for key, allowed in (("down_block_types", unet.DOWN), ("up_block_types", unet.UP)):
        found += [f"{key} with {name}" for name in dict.fromkeys(net[key]) if name not in allowed]
    if net["time_embedding_type"] != "positional":
        found.append(f"time_embedding_type={net['time_embedding_type']!r}")
    if net["resnet_time_scale_shift"] not in ("default", "scale_shift"):
        found.append(f"resnet_time_scale_shift={net['resnet_time_scale_shift']!r}")
    if net["act_fn"] not in unet.ACTIVATIONS:
        found.append(f"act_fn={net['act_fn']!r}")
    if net["norm_num_groups"] is None:
        found.append("norm_num_groups=None")
    if net["mid_block_type"] not in (None, "UNetMidBlock2D"):
        found.append(f"mid_block_type={net['mid_block_type']!r}")
    return found

"""Checkpoints of k-diffusion, whose model is `image_v1`: its U-Net by the names of its own weights, and its JSON config.

Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", is the preconditioning. A folder holds
the config and safetensors, or one safetensors file with the config in its metadata, as that package's convert_for_inference
writes it. Its training checkpoints are pickles, which `benchmarks/convert_pickle.py k-diffusion` makes such a folder of.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo import files
from zoo.contract.recipe import Recipe
from zoo.errors import CheckpointError, ConfigError, ShapeError, brief
from zoo.interop.converted import agree, built, pictures
from zoo.interop.origin import Origin, read_origin
from zoo.interop.reading import Options, checked, looked_up, read_object, shapes_in, weights_in
from zoo.model.model import Model
from zoo.nets.blocks import attend, end
from zoo.nets.unet import Stage

#: the name of the format, and of the denoiser in recipes
NAME = "k-diffusion"
#: names of the two sets of weights of a training checkpoint, the averaged one first, which is what its scripts sample with
WEIGHTS = ("model_ema", "model")
#: files of the averaged ones, whole or in parts
_AVERAGED = re.compile(rf"{WEIGHTS[0]}(\.fp16|-\d{{5}}-of-\d{{5}})?\.safetensors", re.ASCII)
#: features of a group of a norm, and of a head of attention, and numbers that say how a picture was augmented: no option
#: changes them
GROUP, HEAD, AUGMENTED = 32, 64, 9
#: of the config's model: options with their kinds, see `checked`; without these a model is not known
NEEDED = {
    "input_channels": "whole", "input_size": "wholes", "mapping_out": "whole", "depths": "wholes", "channels": "wholes",
    "self_attn_depths": "list", "sigma_data": "positive", "sigma_min": "positive", "sigma_max": "positive",
}  # fmt: skip
#: options that the package itself fills in, since it has them
LATER = {"patch_size": ("whole", 1), "augment_wrapper": ("flag", True), "has_variance": ("flag", False)}
#: options that change training alone
WITHOUT_EFFECT = (
    "augment_prob", "loss_config", "loss_weighting", "loss_scales", "sigma_sample_density",
)  # fmt: skip
#: a picture is halved and doubled with this kernel along each side
KERNEL = (1 / 8, 3 / 8, 3 / 8, 1 / 8)


class ModulatedNorm(nn.Module):
    """Group norm of x (B,C,H,W) without weights of its own, scaled and moved by what the mapping net says."""

    def __init__(self, told: int, channels: int, groups: int) -> None:
        super().__init__()
        self.groups, self.mapper = groups, nn.Linear(told, 2 * channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B,C,H,W), cond (B,told) -> the same shape."""
        scale, shift = self.mapper(cond)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, F.group_norm(x, self.groups), 1 + scale)


def _norm(told: int, channels: int) -> ModulatedNorm:
    groups = max(1, channels // GROUP)
    if channels % groups:
        raise ConfigError(f"{NAME}: {channels} channels do not divide by {groups} groups.")
    return ModulatedNorm(told, channels, groups)


class Residual(nn.Module):
    """norm, GELU, conv, dropout, twice, plus the input."""

    def __init__(self, told: int, cin: int, mid: int, cout: int, dropout: float) -> None:
        super().__init__()
        self.main = nn.ModuleList(
            [
                *(_norm(told, cin), nn.GELU(), nn.Conv2d(cin, mid, 3, padding=1), nn.Dropout2d(dropout)),
                *(_norm(told, mid), nn.GELU(), nn.Conv2d(mid, cout, 3, padding=1), nn.Dropout2d(dropout)),
            ]
        )
        self.skip = nn.Identity() if cin == cout else nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B,cin,H,W), cond (B,told) -> (B,cout,H,W)."""
        h = x
        for part in self.main:
            h = part(h, cond) if isinstance(part, ModulatedNorm) else part(h)
        out: Tensor = h + self.skip(x)
        return out


class SelfAttention(nn.Module):
    """Self-attention over all positions of x (B,C,H,W), added to it."""

    def __init__(self, told: int, channels: int) -> None:
        super().__init__()
        self.heads, self.norm_in = max(1, channels // HEAD), _norm(told, channels)
        if channels % self.heads:
            raise ConfigError(f"{NAME}: {channels} channels do not divide by {self.heads} heads of attention.")
        self.qkv_proj, self.out_proj = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B,C,H,W), cond (B,told) -> the same shape."""
        height, width = x.shape[2:]
        q, k, v = rearrange(
            self.qkv_proj(self.norm_in(x, cond)), "b (three n d) h w -> three b n (h w) d", three=3, n=self.heads
        )
        y = rearrange(attend(q, k, v, None), "b n (h w) d -> b (n d) h w", h=height, w=width)
        out: Tensor = x + self.out_proj(y)
        return out


class Resized(nn.Module):
    """Halve (gain 1) or double (gain 2) the sides of a picture with a fixed kernel, its edges reflected."""

    kernel: Tensor

    def __init__(self, gain: int) -> None:
        super().__init__()
        line = gain * torch.tensor(KERNEL)
        self.gain = gain
        self.register_buffer("kernel", line[:, None] * line[None])

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B,C,H,W); what the mapping net says goes unused -> half or twice its sides."""
        channels = x.shape[1]
        x, weight = F.pad(x, (1, 1, 1, 1), "reflect"), self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        if self.gain == 1:
            return F.conv2d(x, weight, stride=2, groups=channels)
        return F.conv_transpose2d(x, weight, stride=2, padding=3, groups=channels)


class Same(nn.Module):
    """Nothing is done to x, whose level is as large as the one before."""

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x -> x."""
        return x


class Fourier(nn.Module):
    """Numbers (B,1) -> (B, size): cosines, then sines, of random frequencies that are part of the weights."""

    weight: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(size // 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        angles = 2 * math.pi * x @ self.weight.T
        return torch.cat([angles.cos(), angles.sin()], -1)


class Levels(nn.Module):
    """The way down and the way up."""

    def __init__(self, down: list[nn.Module], up: list[nn.Module]) -> None:
        super().__init__()
        self.d_blocks, self.u_blocks = nn.ModuleList(down), nn.ModuleList(up)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B,C,H,W), cond (B,told) -> (B,C',H,W)."""
        kept = []
        for block in self.d_blocks:
            x = block(x, cond)
            kept.append(x)
        for i, block in enumerate(self.u_blocks):
            skip = kept.pop()
            x = block(torch.cat([x, skip], 1) if i else x, cond)
        return x


class KarrasUNet(nn.Module):
    """ImageDenoiserModelV1 of k-diffusion on x_t (B,C,H,W), inside its preconditioning: it is told ln(sigma) / 4.

    Args:
        shape: of a sample (C,H,W).
        conditions: none.
        mapping_out: what the mapping net says of the noise, in numbers.
        depths, channels: residual blocks and features of each level.
        self_attn_depths: for each level, whether its blocks are followed by self-attention.
        patch_size: so many places a side are folded into channels at the entry.
        augment_wrapper: the net was told how its training pictures were augmented (Karras et al. 2022, appendix F.2); here
            it is told that they were not.
        has_variance: there is one more channel, which weighed its training loss and is left out.
        dropout: probability, within the residual blocks. Sampling is without.

    Raises:
        ConfigError: numbers that do not fit together, or conditions. ShapeError: sizes that it cannot halve so often.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        mapping_out: int,
        depths: Sequence[int],
        channels: Sequence[int],
        self_attn_depths: Sequence[bool],
        patch_size: int = 1,
        augment_wrapper: bool = True,
        has_variance: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        colours, *sides = shape
        count, factor = len(channels), patch_size * 2 ** (len(channels) - 1)
        if conditions:
            raise ConfigError(f"{NAME}: the net is told nothing but the noise, and its recipe has {', '.join(conditions)}.")
        if not count or not len(depths) == len(self_attn_depths) == count or mapping_out % 2:
            raise ConfigError(
                f"{NAME}: {len(depths)} depths, {count} channels and {len(self_attn_depths)} self_attn_depths, "
                f"mapping_out={mapping_out}: give as many of each, and an even number."
            )
        if any(n % factor for n in sides):
            raise ShapeError(f"pictures of {' x '.join(map(str, sides))} do not divide by {factor}, as this net needs.")
        self.patch, self.colours, told = patch_size, colours, mapping_out
        folded = colours * patch_size**2

        def stage(i: int, cin: int, cout: int) -> list[nn.Module]:
            parts: list[nn.Module] = []
            for k in range(depths[i]):
                width = cout if k == depths[i] - 1 else channels[i]
                parts.append(Residual(told, cin if k == 0 else channels[i], channels[i], width, dropout))
                parts += [SelfAttention(told, width)] if self_attn_depths[i] else []
            return parts

        above = [channels[max(0, i - 1)] for i in range(count)]
        self.timestep_embed = Fourier(told)
        self.mapping_cond = nn.Linear(AUGMENTED, told, bias=False) if augment_wrapper else None
        self.mapping = nn.Sequential(nn.Linear(told, told), nn.GELU(), nn.Linear(told, told), nn.GELU())
        self.proj_in = end(nn.Conv2d(folded, channels[0], 1), (colours, patch_size, patch_size))
        self.proj_out = end(nn.Conv2d(channels[0], folded + has_variance, 1))
        self.u_net = Levels(
            [Stage(Resized(1) if i else Same(), *stage(i, above[i], channels[i])) for i in range(count)],
            [
                Stage(*stage(i, (1 + (i < count - 1)) * channels[i], above[i]), Resized(2) if i else Same())
                for i in reversed(range(count))
            ],
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        """x_t (B,C,H,W), t (B,) -> the prediction (B,C,H,W)."""
        told = self.timestep_embed(t[:, None].to(x_t.dtype))
        if self.mapping_cond is not None:  # a picture as it is
            told = told + self.mapping_cond(told.new_zeros(len(told), AUGMENTED))
        told = self.mapping(told)
        x = F.pixel_unshuffle(x_t, self.patch).contiguous(memory_format=torch.channels_last)
        x = self.proj_out(self.u_net(self.proj_in(x), told))
        return F.pixel_shuffle(x[:, : self.colours * self.patch**2], self.patch).contiguous()


def _in_metadata(path: Path) -> dict[str, Any] | None:
    """The config in the metadata of a safetensors file; None where there is none.

    Raises:
        CheckpointError: it is not JSON.
    """
    text = files.load_metadata(path).get("config")
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        raise CheckpointError(f"{path}: the config in its metadata is not JSON. Convert the checkpoint again.") from None
    return found if isinstance(found, dict) else None


def _config(folder: Path) -> tuple[dict[str, Any], Path] | None:
    """What a folder's config says and the file that it stands in; None where it is not one of k-diffusion."""
    single = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    for path in [folder / files.CONFIG, *(single if len(single) == 1 else [])]:
        if path.is_file():
            said = read_object(path) if path.name == files.CONFIG else _in_metadata(path)
            model = (said or {}).get("model")
            if said is not None and isinstance(model, dict) and "input_channels" in model and "type" in model:
                return said, path
    return None


class KarrasFormat:
    """Folders of k-diffusion: config.json and model_ema.safetensors (or model), or one slim inference checkpoint."""

    def recognises(self, folder: Path) -> bool:
        """By a config whose model has a type and input_channels."""
        try:
            return _config(folder) is not None
        except CheckpointError:
            return False

    def wanted(self, names: Collection[str]) -> list[str] | None:
        """Which files of a repository are needed: its averaged weights, by whose name it is known; None where it has none.

        One that holds other weights alone is fetched as config.json and model.safetensors.
        """
        found = [n for n in names if _AVERAGED.fullmatch(n)]
        if files.CONFIG not in names or not found:
            return None
        return sorted([*found, *({files.CONFIG, files.CARD} & set(names))])

    def load(self, folder: Path) -> Model:
        """The model of a folder: its averaged weights where it has both sets.

        Raises:
            CheckpointError, ConfigError: an option that is missing, unknown or not supported; wrong weights.
        """
        found = _config(folder)
        if found is None:
            raise CheckpointError(f"{folder} holds no config of {NAME}.")
        said, path = found
        stem = path.stem
        if path.name == files.CONFIG:
            stem = next((w for w in WEIGHTS if list(folder.glob(f"{w}.safetensors"))), WEIGHTS[0])
        how = f"Where you trust it: python benchmarks/convert_pickle.py {NAME} FILE FOLDER (of zoo's sources)."
        paths = weights_in(folder, stem, how)
        recipe = read_config(said, shapes_in(paths), path, paths[0], read_origin(folder))
        return built(recipe, paths, lambda key: key.removeprefix("inner_model."))

    def card(self, folder: Path) -> str:
        """The text of a folder's own card."""
        return read_origin(folder).text


def read_config(
    said: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path, weights: Path, origin: Origin
) -> Recipe:
    """The recipe of a config.

    Args:
        shapes: of the tensors.
        path, weights: of the config and of the tensors, for messages.

    Raises:
        CheckpointError: an option that is missing, unknown, not supported, or another than the tensors say.
    """
    o = Options(said["model"], f"model of {NAME}", path)
    looked_up(o.needed("type"), {"image_v1": True}, f"type of the model of {NAME} in {path}")
    given = {key: o.needed(key) for key in NEEDED} | {key: o.later(key, before) for key, (_, before) in LATER.items()}
    for key in ("mapping_cond_dim", "unet_cond_dim", "cross_cond_dim", "skip_stages"):
        o.only(key, 0)
    o.later("cross_attn_depths", None)  # has no effect without a cross_cond_dim
    dropout = o.number("dropout_rate", before=0.0)
    o.end(WITHOUT_EFFECT)
    checked(given, NEEDED | {k: kind for k, (kind, _) in LATER.items()}, f"model of {NAME}", path)
    data = said.get("dataset")
    if isinstance(data, dict) and data.get("num_classes", 0) != 0:
        raise CheckpointError(
            f"{path}: num_classes={brief(data['num_classes'])} of the dataset: the nets image_v1 of {NAME} are told no label."
        )
    if any(not isinstance(flag, bool) for flag in given["self_attn_depths"]) or not 0 <= dropout < 1:
        raise CheckpointError(
            f"{path}: self_attn_depths={brief(given['self_attn_depths'])}, dropout_rate={dropout!r} of a model of {NAME}; they "
            "must be a list of true and false, and a number from 0 to below 1."
        )
    size = given["input_size"]
    if len(size) != 2 or size[0] != size[1]:
        raise CheckpointError(f"{path}: input_size={brief(size)}; zoo has square pictures: two equal numbers.")
    if not given["sigma_min"] < given["sigma_max"]:
        raise CheckpointError(
            f"{path}: sigma_min={given['sigma_min']}, sigma_max={given['sigma_max']}: the first is the smaller."
        )
    _compared(given, shapes, path, weights)
    net = {k: given[k] for k in ("mapping_out", "depths", "channels", "self_attn_depths", "patch_size")}
    net |= {k: given[k] for k in ("augment_wrapper", "has_variance")} | {"dropout": dropout}
    return pictures(
        origin,
        f"image_v1 of {NAME} ({weights.name})",
        path,
        size=size[0],
        channels=given["input_channels"],
        denoiser=NAME,
        net=net,
        schedule={"kind": "edm", "sigma_min": given["sigma_min"], "sigma_max": given["sigma_max"]},
        diffusion={"prediction": "x0", "weighting": "edm", "sigma_data": given["sigma_data"], "precondition": True},
        sampling={"sampler": "dpmpp", "steps": 50, "spacing": "karras"},
        paper="Karras et al. 2022, Elucidating the design space of diffusion-based generative models.",
    )


def _compared(given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path, weights: Path) -> None:
    """Refuse options that are not those of the tensors, as far as these say them.

    Raises:
        CheckpointError: it names all of them, or tensors of another net.
    """
    inside = "inner_model." if any(k.startswith("inner_model.") for k in shapes) else ""
    entry, last, times = (shapes.get(f"{inside}{k}.weight") for k in ("proj_in", "proj_out", "timestep_embed"))
    if entry is None or last is None or times is None or not len(entry) == len(last) == 4 or len(times) != 2:
        raise CheckpointError(
            f"{weights} holds no net of {NAME}: its tensors are {', '.join(sorted(shapes)[:4]) or 'none'}, and those begin "
            "with proj_in, proj_out, timestep_embed, mapping and u_net, or with inner_model and these."
        )
    folded = given["input_channels"] * given["patch_size"] ** 2
    agree(
        {
            "augment_wrapper": (given["augment_wrapper"], bool(inside)),
            "mapping_out": (given["mapping_out"], 2 * times[0]),
            "channels[0]": ((given["channels"] or [0])[0], entry[0]),
            "input_channels * patch_size^2": (folded, entry[1]),
            "has_variance": (given["has_variance"], last[0] == entry[1] + 1),
        },
        path,
    )


FORMAT = KarrasFormat()

"""Checkpoints of guided-diffusion and improved-diffusion: their U-Net by the names of its own weights, and the flags beside it.

Nichol & Dhariwal 2021, "Improved denoising diffusion probabilistic models"; Dhariwal & Nichol 2021, "Diffusion models beat
GANs on image synthesis". Their `.pt` files are pickles, which zoo opens none of, and hold no flags:
`benchmarks/convert_pickle.py guided-diffusion` makes a folder of safetensors with all flags in a config.json, and that is what
is read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.contract.recipe import Recipe
from zoo.errors import CheckpointError, ConfigError, ShapeError, brief
from zoo.interop.converted import ConvertedFormat, agree, label_of, pictures
from zoo.interop.diffusers.unet import Classes, Larger, sinusoid
from zoo.interop.origin import Origin
from zoo.interop.reading import Options, checked, looked_up
from zoo.nets.blocks import attend, end
from zoo.nets.unet import Stage

#: the name of the format, which config.json says, and of the denoiser in recipes
NAME = "guided-diffusion"
HOW = f"Where you trust it: python benchmarks/convert_pickle.py {NAME} FILE FOLDER (of zoo's sources)."
#: groups of all norms of the net, which no flag changes
GROUPS = 32
#: training steps that a schedule may have, and beyond which their own scaled betas of the linear one are below 1
MOST_TIMES, FEWEST_TIMES = 100_000, 21
#: what each flag may be, see `checked`
KINDS = {
    "image_size": "whole", "num_channels": "whole", "num_res_blocks": "whole", "channel_mult": "list", "num_heads": "whole",
    "num_head_channels": "whole?", "num_heads_upsample": "whole?", "attention_resolutions": "wholes", "dropout": "number",
    "class_cond": "flag", "learn_sigma": "flag", "use_scale_shift_norm": "flag", "resblock_updown": "flag",
    "use_new_attention_order": "flag", "diffusion_steps": "whole", "noise_schedule": "text", "timestep_respacing": "text",
    "predict_xstart": "flag", "rescale_timesteps": "flag", "sigma_small": "flag", "use_ddim": "flag",
}  # fmt: skip
#: flags that change training, speed or memory alone
WITHOUT_EFFECT = ("use_kl", "rescale_learned_sigmas", "use_checkpoint", "use_fp16")
CURVES = {"linear": "linear", "cosine": "cosine"}
_BLOCK = re.compile(r"output_blocks\.(\d+)\.")


class Residual(nn.Module):
    """norm, SiLU, conv, the embedding added (or FiLM by it around the second norm), norm, SiLU, conv, plus the input.

    Args:
        resample: what halves or doubles the sizes of the input and of what was made of it, before the first convolution.
    """

    def __init__(
        self, cin: int, cout: int, emb_dim: int, *, film: bool, dropout: float, resample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.film, self.resample = film, resample
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_dim, (1 + film) * cout))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, cout), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(cout, cout, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if cin == cout else nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B,cin,H,W), emb (B,emb_dim) -> (B,cout,H,W), or half or twice those sizes."""
        norm, act, conv = self.in_layers
        h = act(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h, told = conv(h), self.emb_layers(emb)[:, :, None, None]
        first, *rest = self.out_layers
        if self.film:
            scale, shift = told.chunk(2, 1)
            h = torch.addcmul(shift, first(h), 1 + scale)
        else:
            h = first(h + told)
        for part in rest:
            h = part(h)
        out: Tensor = self.skip_connection(x) + h
        return out


class SelfAttention(nn.Module):
    """Self-attention over all positions of x (B,C,H,W), added to it.

    Args:
        split_first: queries, keys and values are split before the heads ("new attention order"), not within each head.
    """

    def __init__(self, channels: int, heads: int, split_first: bool) -> None:
        super().__init__()
        self.order = "b (three h d) n -> three b h n d" if split_first else "b (h three d) n -> three b h n d"
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv, self.proj_out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B,C,H,W); the embedding goes unused -> the same shape."""
        tokens = self.qkv(rearrange(self.norm(x), "b c h w -> b c (h w)"))
        q, k, v = rearrange(tokens, self.order, three=3, h=self.heads)
        y = self.proj_out(rearrange(attend(q, k, v, None), "b h n d -> b (h d) n"))
        return x + y.reshape(x.shape)


class Halving(nn.Module):
    """Halve height and width by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B,C,H,W); the embedding goes unused -> (B,C,H / 2,W / 2)."""
        out: Tensor = self.op(x)
        return out


class Doubling(Larger):
    """Double height and width: repeat, then a convolution."""

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """x (B,C,H,W); the embedding goes unused -> (B,C,2 H,2 W)."""
        out: Tensor = super().forward(x)
        return out


class GuidedUNet(nn.Module):
    """The U-Net of guided-diffusion on x_t (B,C,H,W), which is told a label or nothing.

    Args:
        shape: of a sample (C,H,W).
        conditions: none, or "label".
        model_channels, channel_mult, num_res_blocks: level i has model_channels * channel_mult[i] features and num_res_blocks
            residual blocks on the way down.
        attention_resolutions: the levels with self-attention, by how much smaller they are than a sample: 1, 2, 4, ...
        num_heads, num_head_channels, num_heads_upsample: heads of attention, or features of each, and heads on the way up.
        use_scale_shift_norm: FiLM by the embedding; else it is added.
        resblock_updown: residual blocks halve and double; else convolutions.
        use_new_attention_order: see `SelfAttention`.
        dropout: probability, before the last convolution of each residual block.
        learned_variance: there is a second output, see `zoo.core.diffusion.Denoiser`: the same numbers (Nichol & Dhariwal
            2021, Eq. 15).
        time_scale: multiplies t first.

    Raises:
        ConfigError: numbers that do not fit together, or other conditions. ShapeError: sizes that cannot be halved so often.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        model_channels: int,
        channel_mult: Sequence[float],
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        num_heads: int = 1,
        num_head_channels: int | None = None,
        num_heads_upsample: int | None = None,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
        dropout: float = 0.0,
        learned_variance: bool = False,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        channels, *sides = shape
        widths = [int(model_channels * m) for m in channel_mult]
        if not widths or min(model_channels, num_res_blocks) < 1 or any(w < 1 or w % GROUPS for w in widths):
            raise ConfigError(
                f"guided-diffusion: num_channels={model_channels}, channel_mult={brief(list(channel_mult))}, "
                f"num_res_blocks={num_res_blocks}: give positive numbers, and widths that divide by {GROUPS}."
            )
        label = label_of(conditions, NAME)
        factor = 2 ** (len(widths) - 1)
        if any(n % factor for n in sides):
            raise ShapeError(f"pictures of {' x '.join(map(str, sides))} do not divide by {factor}, as this net needs.")
        self.channels, self.features, self.time_scale = channels, model_channels, time_scale
        emb_dim, film, lookers = 4 * model_channels, bool(use_scale_shift_norm), set(attention_resolutions)

        def res(cin: int, cout: int, resample: nn.Module | None = None) -> nn.Module:
            return Residual(cin, cout, emb_dim, film=film, dropout=dropout, resample=resample)

        def look(width: int, heads: int) -> nn.Module:
            count, rest = (heads, width % heads) if num_head_channels is None else divmod(width, num_head_channels)
            if rest or count < 1:
                raise ConfigError(
                    f"guided-diffusion: {width} features do not divide by num_heads={heads}, "
                    f"num_head_channels={num_head_channels}."
                )
            return SelfAttention(width, count, bool(use_new_attention_order))

        self.time_embed = nn.Sequential(nn.Linear(model_channels, emb_dim), nn.SiLU(), nn.Linear(emb_dim, emb_dim))
        if label is not None:
            self.label_emb = Classes(len(label.values), emb_dim)
        width, kept = widths[0], [widths[0]]
        entry = end(nn.Conv2d(channels, width, 3, padding=1), (channels, 1, 1))
        self.input_blocks = nn.ModuleList([nn.ModuleList([entry])])
        for i, w in enumerate(widths):
            for _ in range(num_res_blocks):
                self.input_blocks.append(Stage(res(width, w), look(w, num_heads) if 2**i in lookers else None))
                width = w
                kept.append(w)
            if i < len(widths) - 1:
                self.input_blocks.append(Stage(res(w, w, nn.AvgPool2d(2)) if resblock_updown else Halving(w)))
                kept.append(w)
        self.middle_block = Stage(res(width, width), look(width, num_heads), res(width, width))
        self.output_blocks = nn.ModuleList()
        for i, w in reversed(list(enumerate(widths))):
            for k in range(num_res_blocks + 1):
                parts = [res(width + kept.pop(), w)]
                width = w
                if 2**i in lookers:
                    parts.append(look(w, num_heads if num_heads_upsample is None else num_heads_upsample))
                if i and k == num_res_blocks:
                    parts.append(res(w, w, nn.Upsample(scale_factor=2.0)) if resblock_updown else Doubling(w))
                self.output_blocks.append(Stage(*parts))
        outputs = channels * (2 if learned_variance else 1)
        last = end(nn.Conv2d(width, outputs, 3, padding=1), (outputs, 1, 1))
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), last)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x_t (B,C,H,W), t (B,) -> the prediction (B,C,H,W), or two of them with a learned variance."""
        emb = self.time_embed(sinusoid(self.time_scale * t, self.features, flip=True, shift=0).to(x_t.dtype))
        label = cond.get("label")
        if label is not None and hasattr(self, "label_emb"):
            emb = emb + self.label_emb(label)
        x = self.input_blocks[0][0](x_t.contiguous(memory_format=torch.channels_last))  # type: ignore[index]  # a list
        kept = [x]
        for stage in self.input_blocks[1:]:
            x = stage(x, emb)
            kept.append(x)
        x = self.middle_block(x, emb)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, kept.pop()], 1), emb)
        out, *more = (part.contiguous() for part in self.out(x).split(self.channels, dim=1))
        return (out, more[0]) if more else out


def structure(shapes: Mapping[str, tuple[int, ...]], path: Path) -> dict[str, Any]:
    """What the shapes of the weights say of the net: flags by name, with `labels` and `channels` of the pictures.

    `attention` are the levels with attention, as in `GuidedUNet`. Where there is one level alone, resblock_updown is left out.

    Raises:
        CheckpointError: they are not those of such a net.
    """
    count = len({found[1] for key in shapes if (found := _BLOCK.match(key))})
    if (label := shapes.get("label_emb.weight")) is not None and len(label) != 2:
        raise CheckpointError(f"{path}: label_emb.weight has shape {label}, which no net of {NAME} has.")
    try:
        joints = [i for i in range(count) if any(f"output_blocks.{i}.{k}.{w}" in shapes for k in (1, 2) for w in _UP)]
        blocks, levels = (joints[0] if joints else count - 1), len(joints) + 1
        width = shapes["time_embed.0.weight"][1]
        first = [1 + i * (blocks + 1) for i in range(levels)]
        widths = [shapes[f"input_blocks.{i}.0.in_layers.2.weight"][0] for i in first]
        entry, last = shapes["input_blocks.0.0.weight"], shapes["out.2.weight"]
        told = shapes[f"input_blocks.{first[0]}.0.emb_layers.1.weight"][0]
        known = {
            "num_channels": width,
            "channel_mult": [int(w / width) if w % width == 0 else w / width for w in widths],
            "num_res_blocks": blocks,
            "attention": [2**i for i, place in enumerate(first) if f"input_blocks.{place}.1.qkv.weight" in shapes],
            "class_cond": label is not None,
            "learn_sigma": last[0] == 2 * entry[1],
            "use_scale_shift_norm": told == 2 * widths[0],
            "labels": label[0] if label is not None else 0,
            "channels": entry[1],
        }
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise CheckpointError(
            f"{path} holds no net of {NAME} or improved-diffusion: its tensors are "
            f"{', '.join(sorted(shapes)[:4]) or 'none'}, and those begin with time_embed, input_blocks, middle_block, "
            "output_blocks and out. (Classifiers are not read.)"
        ) from None
    if entry[1] not in (1, 3) or last[0] not in (entry[1], 2 * entry[1]):
        raise CheckpointError(
            f"{path} takes {entry[1]} channels and gives {last[0]}: no net of pictures alone. Nets for super-resolution, whose "
            "input has twice the channels, are not read yet."
        )
    if joints:
        known["resblock_updown"] = f"input_blocks.{blocks + 1}.0.op.weight" not in shapes
    return known


#: what ends a level on the way up: a convolution, or a residual block
_UP = ("conv.weight", "in_layers.2.weight")


def compared(flags: Mapping[str, Any], said: Mapping[str, Any], path: Path) -> None:
    """Refuse flags that are not those of the tensors.

    Args:
        said: by `structure`.

    Raises:
        CheckpointError: it names all of them.
    """
    facts = {k: (flags[k], said[k]) for k in flags if k in said}
    if "attention_resolutions" in flags:
        size, rates = flags["image_size"], {2**i for i in range(len(said["channel_mult"]))}
        # sides that no level has are without effect there
        if {size // side for side in flags["attention_resolutions"]} & rates != set(said["attention"]):
            seen = [size // rate for rate in said["attention"]]
            facts["attention_resolutions"] = (flags["attention_resolutions"], seen)
    agree(facts, path)


def read_flags(given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path, origin: Origin) -> Recipe:
    """The recipe of a checkpoint.

    Args:
        given: the flags, all of them: their defaults differ between the two packages.
        shapes: of the weights.
        path: of the flags, for messages.

    Raises:
        CheckpointError: a flag that is missing, of another kind, unknown, or another than the tensors say.
    """
    o = Options(given, NAME, path)
    flags = {key: o.needed(key) for key in KINDS}
    o.end(WITHOUT_EFFECT)
    checked(flags, KINDS, NAME, path)
    said = structure(shapes, path.parent)
    if any(isinstance(m, bool) or not isinstance(m, (int, float)) or not 0 < m < 1000 for m in flags["channel_mult"]):
        raise CheckpointError(f"{path}: channel_mult={brief(flags['channel_mult'])}; it must be a list of numbers above 0.")
    compared(flags, said, path)
    steps, learned = flags["diffusion_steps"], flags["learn_sigma"]
    if not FEWEST_TIMES <= steps <= MOST_TIMES:
        raise CheckpointError(
            f"{path}: diffusion_steps={steps} of a {NAME}; it must be a whole number from {FEWEST_TIMES} to {MOST_TIMES:,}."
        )
    curve = looked_up(flags["noise_schedule"], CURVES, f"noise_schedule of the {NAME} in {path}")
    net = {
        "model_channels": flags["num_channels"],
        "attention_resolutions": said["attention"],
        "time_scale": 1000.0 / steps if flags["rescale_timesteps"] else 1.0,
    } | {k: flags[k] for k in ("channel_mult", "num_res_blocks", "num_heads", "num_head_channels", "num_heads_upsample")}
    net |= {k: flags[k] for k in ("use_scale_shift_norm", "resblock_updown", "use_new_attention_order", "dropout")}
    # their linear betas stay alike where there are more or fewer steps
    ends = {"beta_start": 0.1 / steps, "beta_end": 20.0 / steps} if curve == "linear" else {}
    variance = "learned" if learned else "small" if flags["sigma_small"] else "large"
    return pictures(
        origin,
        f"U-Net of {NAME}",
        path,
        size=flags["image_size"],
        channels=said["channels"],
        labels=said["labels"],
        denoiser=NAME,
        net=net,
        schedule={"kind": "discrete", "curve": curve, "T": steps} | ends,
        diffusion={"prediction": "x0" if flags["predict_xstart"] else "eps", "learned_variance": learned},
        training={"objective": "hybrid"} if learned else {},
        sampling=respaced(flags["timestep_respacing"], steps, path)
        | {"clip": 1.0}
        | ({"sampler": "ddim"} if flags["use_ddim"] else {"sampler": "ddpm", "options": {"variance": variance}}),
        paper="Dhariwal & Nichol 2021, Diffusion models beat GANs on image synthesis.",
    )


def respaced(said: str, T: int, path: Path) -> dict[str, Any]:
    """Steps and spacing of a `timestep_respacing`: nothing, "250", or "ddim25".

    Raises:
        CheckpointError: sections of different numbers of steps, or other grids that zoo has not.
    """
    plain = re.fullmatch(r"(ddim)?(\d{1,6})", said)
    if said == "":
        return {"steps": T, "spacing": "linspace"}
    if plain is None or not 2 <= int(plain[2]) <= T or (plain[1] and T % int(plain[2])):
        raise CheckpointError(
            f"{path}: timestep_respacing={brief(said)} of a {NAME} is a grid that zoo does not have: one number of 2 to {T} "
            'steps, or "ddim" and a number that divides them. Leave it empty, "", and choose the steps when you sample.'
        )
    return {"steps": int(plain[2]), "spacing": "leading" if plain[1] else "linspace"}


FORMAT = ConvertedFormat(NAME, HOW, read_flags)

"""Checkpoints of EDM (Karras et al. 2022, "Elucidating the design space of diffusion-based generative models"): its two U-Nets.

Its `.pkl` files hold the code of their classes beside the weights, so that to open one is to run it: zoo opens none, and no
weights-only loader could. `benchmarks/convert_edm.py`, which runs with their sources and without zoo, writes a folder of
safetensors and JSON, and that is what is read here: EDMPrecond with SongUNet (DDPM++, NCSN++) or DhariwalUNet (ADM).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.contract.recipe import Recipe
from zoo.errors import CheckpointError, ConfigError, ShapeError, brief, one_of
from zoo.interop.converted import ConvertedFormat, agree, label_of, pictures
from zoo.interop.diffusers.unet import sinusoid
from zoo.interop.origin import Origin
from zoo.interop.reading import Options, checked, looked_up
from zoo.nets.blocks import attend, end

#: the name of the format, and of the denoiser in recipes
NAME = "edm"
HOW = "Where you trust it: python benchmarks/convert_edm.py SOURCES FILE FOLDER (of zoo's sources)."
#: features of a head of ADM; SongUNet has one head
HEAD = 64
#: options of both nets, and those of SongUNet alone, with their kinds, see `checked`
BOTH = {
    "augment_dim": "count", "model_channels": "whole", "channel_mult": "wholes", "channel_mult_emb": "whole",
    "num_blocks": "whole", "attn_resolutions": "wholes", "dropout": "number", "label_dropout": "number",
}  # fmt: skip
SONG = {
    "embedding_type": "text", "channel_mult_noise": "whole", "encoder_type": "text", "decoder_type": "text",
    "resample_filter": "wholes",
}  # fmt: skip
#: of the preconditioning
OUTER = {
    "img_resolution": "whole", "img_channels": "whole", "label_dim": "count", "sigma_min": "number", "sigma_max": "positive?",
    "sigma_data": "positive",
}  # fmt: skip
KINDS = ("SongUNet", "DhariwalUNet")
EMBEDDINGS, ENCODERS = ("positional", "fourier"), ("standard", "residual")


def _norm(channels: int, eps: float) -> nn.GroupNorm:
    """At most 32 groups, of at least 4 channels."""
    groups = min(32, channels // 4)
    if not groups or channels % groups:
        raise ConfigError(f"{NAME}: {channels} features do not divide by {max(groups, 1)} groups of at least 4.")
    return nn.GroupNorm(groups, channels, eps)


class Conv(nn.Module):
    """A convolution of x (B,cin,H,W) that may double or halve the sizes with a fixed filter first, or have no weights.

    Args:
        kernel: odd side of its weights; 0 for the filter alone.
        up, down: the filter doubles or halves.
        line: the filter along a side.
        late: the filter halves what the convolution gives, not what it is given.
    """

    resample_filter: Tensor | None

    def __init__(
        self, cin: int, cout: int, kernel: int, *, up: bool = False, down: bool = False, line: Sequence[int] = (1, 1),
        late: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.up, self.down, self.late = up, down, late
        self.weight = nn.Parameter(torch.empty(cout, cin, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.zeros(cout)) if kernel else None
        if self.weight is not None:
            nn.init.kaiming_uniform_(self.weight, math.sqrt(5))
        taps = torch.tensor(line, dtype=torch.float32)
        taps = taps[:, None] * taps[None] / taps.sum() ** 2
        self.register_buffer("resample_filter", taps[None, None] if up or down else None)

    def _filtered(self, x: Tensor, padding: int) -> Tensor:
        if self.resample_filter is None:
            return x
        taps, channels = self.resample_filter.to(x.dtype).expand(x.shape[1], 1, -1, -1), x.shape[1]
        if self.up:
            return F.conv_transpose2d(x, 4 * taps, stride=2, padding=padding, groups=channels)
        return F.conv2d(x, taps, stride=2, padding=padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B,cin,H,W) -> (B,cout,H,W), or half or twice those sizes."""
        pad = 0 if self.resample_filter is None else (self.resample_filter.shape[-1] - 1) // 2
        if self.weight is None:
            return self._filtered(x, pad)
        half = self.weight.shape[-1] // 2
        if self.late:
            return self._filtered(F.conv2d(x, self.weight, padding=half + pad), 0) + self._shift
        return F.conv2d(self._filtered(x, pad), self.weight, self.bias, padding=half)

    @property
    def _shift(self) -> Any:
        """The bias (1,cout,1,1): a filter that adds up to 1 leaves it as it is."""
        return 0.0 if self.bias is None else self.bias[None, :, None, None]


class Block(nn.Module):
    """A residual block that may double or halve the sizes, and self-attention after it.

    Args:
        heads: of the attention; 0 for none.
        song: as in SongUNet: the embedding is added, what comes out is divided by sqrt(2), and each path that resizes has
            weights. Else as in DhariwalUNet: FiLM by the embedding.
    """

    def __init__(
        self, cin: int, cout: int, emb_dim: int, *, song: bool, heads: int, dropout: float, line: Sequence[int],
        up: bool = False, down: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        eps = 1e-6 if song else 1e-5
        self.song, self.heads, self.scale = song, heads, math.sqrt(0.5) if song else 1.0
        self.norm0, self.conv0 = _norm(cin, eps), Conv(cin, cout, 3, up=up, down=down, line=line)
        self.affine = nn.Linear(emb_dim, cout if song else 2 * cout)
        self.norm1, self.conv1 = _norm(cout, eps), Conv(cout, cout, 3)
        self.dropout = nn.Dropout(dropout)
        self.skip = None
        if cin != cout or up or down:
            self.skip = Conv(cin, cout, int(song or cin != cout), up=up, down=down, line=line)
        if heads:
            self.norm2, self.qkv, self.proj = _norm(cout, eps), Conv(cout, 3 * cout, 1), Conv(cout, cout, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B,cin,H,W), emb (B,emb_dim) -> (B,cout,H,W), or half or twice those sizes."""
        h, told = self.conv0(F.silu(self.norm0(x))), self.affine(emb)[:, :, None, None]
        if self.song:
            h = self.norm1(h + told)
        else:
            scale, shift = told.chunk(2, 1)
            h = torch.addcmul(shift, self.norm1(h), 1 + scale)
        x = (self.conv1(self.dropout(F.silu(h))) + (x if self.skip is None else self.skip(x))) * self.scale
        if self.heads:
            height, width = x.shape[2:]
            q, k, v = rearrange(self.qkv(self.norm2(x)), "b (n d three) h w -> three b n (h w) d", three=3, n=self.heads)
            y = rearrange(attend(q, k, v, None), "b n (h w) d -> b (n d) h w", h=height, w=width)
            x = (self.proj(y) + x) * self.scale
        return x


class Fourier(nn.Module):
    """Numbers (B,) -> (B, size): sines, then cosines, of random frequencies that are part of the weights."""

    freqs: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(size // 2))

    def forward(self, t: Tensor) -> Tensor:
        angles = 2 * math.pi * t[:, None] * self.freqs[None]
        return torch.cat([angles.sin(), angles.cos()], 1)


class EDMUNet(nn.Module):
    """SongUNet or DhariwalUNet of EDM on x_t (B,C,H,W), inside its preconditioning: it is told ln(sigma) / 4, and a label.

    Args:
        shape: of a sample (C,H,W), square.
        conditions: none, or "label". A label that is not given is a vector of zeros.
        kind: "SongUNet" or "DhariwalUNet".
        model_channels, channel_mult, num_blocks: level i has model_channels * channel_mult[i] features and num_blocks residual
            blocks on the way down.
        channel_mult_emb, channel_mult_noise: sizes of the embedding and of what is known of the noise, times model_channels.
        attn_resolutions: sides of the levels with self-attention.
        augment_dim: numbers that said how a training picture was augmented (their appendix F.2); it is told that none was.
        dropout: probability, within the residual blocks.
        embedding_type, encoder_type, resample_filter: of SongUNet: "positional" or "fourier", "standard" or "residual", and
            the filter along a side.

    Raises:
        ConfigError: numbers that do not fit together, or other conditions. ShapeError: sizes that cannot be halved so often.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        kind: str,
        model_channels: int,
        channel_mult: Sequence[int],
        channel_mult_emb: int,
        num_blocks: int,
        attn_resolutions: Sequence[int],
        augment_dim: int = 0,
        dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        for what, value, allowed in (
            ("kind", kind, KINDS), ("embedding_type", embedding_type, EMBEDDINGS), ("encoder_type", encoder_type, ENCODERS)
        ):  # fmt: skip
            if value not in allowed:
                raise one_of(f"{what} of {NAME}", value, allowed)
        label = label_of(conditions, NAME)
        (channels, *sides), levels, self.song = shape, len(channel_mult), kind == "SongUNet"
        if not levels or min(model_channels, channel_mult_emb, num_blocks, channel_mult_noise, *channel_mult) < 1:
            raise ConfigError(
                f"{NAME}: model_channels={model_channels}, channel_mult={brief(list(channel_mult))}, num_blocks={num_blocks}, "
                f"channel_mult_emb={channel_mult_emb}, channel_mult_noise={channel_mult_noise}: give positive whole numbers."
            )
        if len(resample_filter) % 2 or not resample_filter:
            raise ConfigError(f"{NAME}: resample_filter={brief(list(resample_filter))}; give an even number of weights.")
        if sides[0] != sides[1] or sides[0] % 2 ** (levels - 1):
            raise ShapeError(f"pictures of {sides[0]} x {sides[1]}: this net needs squares that divide by {2 ** (levels - 1)}.")
        side, width, emb_dim = sides[0], model_channels, model_channels * channel_mult_emb
        noise = model_channels * (channel_mult_noise if self.song else 1)
        if noise % 2 or (self.song and noise < 4):
            raise ConfigError(f"{NAME}: {noise} features of the noise; give an even number of at least 4.")
        self.noise, self.labels = noise, 0 if label is None else len(label.values)
        self.map_noise = Fourier(noise) if self.song and embedding_type == "fourier" else None
        self.map_label = None
        if self.labels:
            self.map_label = nn.Linear(self.labels, noise if self.song else emb_dim, bias=self.song)
        self.map_augment = nn.Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = nn.Linear(noise, emb_dim), nn.Linear(emb_dim, emb_dim)

        def block(cin: int, cout: int, look: bool = False, **resized: bool) -> nn.Module:
            heads = int(look) if self.song else cout // HEAD * look
            if heads and cout % heads:
                raise ConfigError(f"{NAME}: {cout} features do not divide by {heads} heads of attention.")
            line = resample_filter if self.song else (1, 1)
            return Block(cin, cout, emb_dim, song=self.song, heads=heads, dropout=dropout, line=line, **resized)

        names = [f"{side >> i}x{side >> i}" for i in range(levels)]
        looks = [side >> i in set(attn_resolutions) for i in range(levels)]
        residual = self.song and encoder_type == "residual"
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        kept: list[int] = []
        beside = channels
        for i, multiple in enumerate(channel_mult):
            if i == 0:
                first = model_channels * (1 if self.song else multiple)
                self.enc[f"{names[i]}_conv"], width = end(Conv(channels, first, 3), (channels, 1, 1)), first
            else:
                self.enc[f"{names[i]}_down"] = block(width, width, down=True)
                if residual:  # what was there before this level, its picture at first, halved beside it
                    self.enc[f"{names[i]}_aux_residual"] = Conv(beside, width, 3, down=True, line=resample_filter, late=True)
                    beside = width
            kept.append(width)
            for k in range(num_blocks):
                self.enc[f"{names[i]}_block{k}"] = block(width, model_channels * multiple, looks[i])
                width = model_channels * multiple
                kept.append(width)
        for i, multiple in reversed(list(enumerate(channel_mult))):
            if i == levels - 1:
                self.dec[f"{names[i]}_in0"], self.dec[f"{names[i]}_in1"] = block(width, width, True), block(width, width)
            else:
                self.dec[f"{names[i]}_up"] = block(width, width, up=True)
            for k in range(num_blocks + 1):
                look = looks[i] and (k == num_blocks or not self.song)
                self.dec[f"{names[i]}_block{k}"] = block(width + kept.pop(), model_channels * multiple, look)
                width = model_channels * multiple
        norm, last = _norm(width, 1e-6 if self.song else 1e-5), end(Conv(width, channels, 3), (channels, 1, 1))
        if self.song:
            self.dec[f"{names[0]}_aux_norm"], self.dec[f"{names[0]}_aux_conv"] = norm, last
        else:
            self.out_norm, self.out_conv = norm, last
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _told(self, t: Tensor, label: Tensor | None) -> Tensor:
        """The embedding (B,emb_dim) of the noise and of labels (B,), -1 for none."""
        dtype = self.map_layer0.weight.dtype
        if self.map_noise is not None:
            emb = self.map_noise(t.to(dtype))
        else:
            emb = sinusoid(t, self.noise, flip=not self.song, shift=int(self.song)).to(dtype)
        named = None
        if self.map_label is not None:
            label = torch.full((len(t),), -1, device=t.device) if label is None else label
            chosen = F.one_hot(label.clamp(min=0), self.labels) * (label >= 0)[:, None]
            named = self.map_label(chosen.to(dtype) * (math.sqrt(self.labels) if self.song else 1.0))
        if self.song:
            emb = emb if named is None else emb + named
        if self.map_augment is not None:  # a picture as it is
            emb = emb + self.map_augment(emb.new_zeros(len(emb), self.map_augment.in_features))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        return F.silu(emb if self.song or named is None else emb + named)

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        """x_t (B,C,H,W), t (B,) -> the prediction (B,C,H,W)."""
        emb = self._told(t, cond.get("label"))
        x = beside = x_t.contiguous(memory_format=torch.channels_last)
        kept: list[Tensor] = []
        for name, part in self.enc.items():
            if name.endswith("_aux_residual"):
                x = kept[-1] = beside = (x + part(beside)) * math.sqrt(0.5)
            else:
                x = part(x) if name.endswith("_conv") else part(x, emb)
                kept.append(x)
        for name, part in self.dec.items():
            if isinstance(part, Block):
                x = part(torch.cat([x, kept.pop()], 1) if "_block" in name else x, emb)
            else:
                x = part(x) if name.endswith("_conv") else F.silu(part(x))
        return (x if self.song else self.out_conv(F.silu(self.out_norm(x)))).contiguous()


def read_options(given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path, origin: Origin) -> Recipe:
    """The recipe of a checkpoint.

    Args:
        given: the options of EDMPrecond and of its net, all of them.
        shapes: of the weights.
        path: of the options, for messages.

    Raises:
        CheckpointError: an option that is missing, of another kind, unknown, not supported, or another than the tensors say.
    """
    o = Options(given, NAME, path)
    looked_up(o.needed("precond"), {"EDMPrecond": True}, f"precond of the {NAME} in {path}")
    kind = looked_up(o.needed("model_type"), dict(zip(KINDS, KINDS, strict=True)), f"model_type of the {NAME} in {path}")
    kinds = OUTER | BOTH | (SONG if kind == "SongUNet" else {})
    found = {key: o.needed(key) for key in kinds}
    o.end(("use_fp16",))
    checked(found, kinds, NAME, path)
    if kind == "SongUNet":
        looked_up(found["decoder_type"], {"standard": True}, f"decoder_type of the {NAME} in {path}")
    side, channels, labels = found["img_resolution"], found["img_channels"], found["label_dim"]
    entry, mapped = shapes.get(f"model.enc.{side}x{side}_conv.weight"), shapes.get("model.map_layer0.weight")
    if entry is None or mapped is None or len(entry) != 4 or len(mapped) != 2:
        raise CheckpointError(
            f"{path.parent} holds no net of {NAME} for pictures of {side} x {side}: its tensors are "
            f"{', '.join(sorted(shapes)[:4]) or 'none'}, and there are model.enc.{side}x{side}_conv.weight and "
            "model.map_layer0.weight in such a net."
        )
    width = found["model_channels"]
    label, augment = shapes.get("model.map_label.weight"), shapes.get("model.map_augment.weight")
    agree(
        {
            "img_channels": (channels, entry[1]),
            "model_channels": (width * (1 if kind == "SongUNet" else (found["channel_mult"] or [0])[0]), entry[0]),
            "model_channels * channel_mult_emb": (width * found["channel_mult_emb"], mapped[0]),
            "label_dim": (labels, label[-1] if label else 0),
            "augment_dim": (found["augment_dim"], augment[-1] if augment else 0),
        },
        path,
    )
    # of their sampler
    low, high = max(0.002, found["sigma_min"]), min(80.0, found["sigma_max"] or math.inf)
    if not low < high:
        raise CheckpointError(f"{path}: sigma_min={found['sigma_min']}, sigma_max={found['sigma_max']}: no noise between them.")
    net = {k: v for k, v in found.items() if k not in OUTER and k not in ("label_dropout", "decoder_type")}
    return pictures(
        origin,
        f"{kind} of {NAME}",
        path,
        size=side,
        channels=channels,
        labels=labels,
        denoiser=NAME,
        net=net | {"kind": kind},
        schedule={"kind": "edm", "sigma_min": low, "sigma_max": high},
        diffusion={"prediction": "x0", "weighting": "edm", "sigma_data": found["sigma_data"], "precondition": True},
        sampling={"sampler": "heun", "steps": 18, "spacing": "karras"},
        paper="Karras et al. 2022, Elucidating the design space of diffusion-based generative models.",
    )


FORMAT = ConvertedFormat(NAME, HOW, read_options, lambda key: key.removeprefix("model."))

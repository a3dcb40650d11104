"""What a run takes from the weights of another model (`zoo train --init`), and what becomes of the rest.

Both nets are looked at tensor by tensor, under the names that they have. A tensor of the same shape is taken. Rows that
belong to labels are matched by the labels' names. The first and the last layer are adapted to other channels (grey,
colour) and other patches, and tables of positions to other sizes. Everything else is made new: nothing is cut to fit.

How a net of your own says what its tensors are, where names and shapes do not: `zoo.nets.blocks.end(layer, folded)` for
its first and last layers; labels in an `nn.Embedding` (or what `Condition.embedding` gives) under the condition's name;
positions under a name with "pos" in it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import files
from zoo.contract.codec import Codec
from zoo.contract.recipe import Recipe
from zoo.errors import ConfigError
from zoo.model.loading import load
from zoo.model.model import Model
from zoo.nets.blocks import Conditioning, LabelEmbedding, folded

#: share of the parameters under which a start is hardly one: a warning says so
FEW = 0.5
#: share of a recipe's learning rate for weights that are trained already
PACE = 0.2
#: how a description says which weights a model started from
BEGUN = "Started from the weights of "
#: why a tensor is new
OTHER = "another shape"
#: tensors of another shape of which a line shows the shapes; of more it would be too long to read
FEW_SHAPES = 4
#: parts of a recipe that say what a net's numbers mean beside their shapes
MEANING = ("diffusion", "schedule", "net", "codec")


def opened(source: str | Path, recipe: Recipe) -> Model:
    """The model that a run starts from, on the CPU in float32.

    Raises:
        ConfigError: a model of another domain. And everything that `zoo.load` raises.
    """
    found = load(source, device="cpu", dtype="float32")
    if found.recipe.domain != recipe.domain:
        raise ConfigError(
            f"init: {source} is a model of the domain {found.recipe.domain}, and {recipe.domain}/{recipe.name} is one of "
            f"{recipe.domain}: nothing of it fits. Give a model of {recipe.domain}; zoo list shows them."
        )
    return found


def started(description: str, source: str | Path, other: Recipe) -> str:
    """What a card says of a model that started from another one's weights, whose licence still counts."""
    licence = f" ({other.licence.strip().rstrip('.')})" if other.licence.strip() else ""
    earlier = other.description.partition(BEGUN)[2].rstrip(".")
    chain = f"; those started from the weights of {earlier}" if earlier else ""
    return f"{description.partition(BEGUN)[0].strip()} {BEGUN}{source}{licence}{chain}.".strip()


@dataclass
class Start:
    """What a model's net took from another one.

    Attributes:
        source: the other model, as it was given.
        codec: the other model's.
        sizes, there: {tensor: numbers in it}, of the net and of the other one's.
        shapes: {tensor: (there, here)} of those of another shape.
        taken, adapted, new: {tensor of the net: how it was adapted, or why it is new}.
        notes: what else there is to say, a line each.
        pace: share of the recipe's learning rate that the run takes.
    """

    source: str
    codec: Codec
    sizes: dict[str, int]
    there: dict[str, int]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pace: float = 1.0

    @property
    def share(self) -> float:
        """How many of the net's parameters were taken, as they are or adapted."""
        return 1 - sum(self.sizes[k] for k in self.new) / max(sum(self.sizes.values()), 1)

    def slow(self, lr: float) -> None:
        """Take `PACE` of the learning rate `lr`, unless most of the net is new and starts as any other."""
        if self.share >= FEW:
            self.pace = PACE
            self.notes.append(
                f"learning rate: {PACE * lr:.2g}, {_percent(PACE)} of the recipe's {lr:g}, since the weights are trained "
                "already; --set training.lr=... sets another."
            )

    def lines(self) -> list[str]:
        """All that was taken, adapted, made new and left out, a line each kind, with counts of parameters."""
        count = sum(self.sizes.values())
        known = count - sum(self.sizes[k] for k in self.new)
        found = [f"init: {known:,} of {count:,} parameters come from {self.source} ({_percent(self.share)})."]
        for word, kind in (("adapted", self.adapted), ("new", self.new)):
            reasons: dict[str, list[str]] = {}
            for name, reason in kind.items():
                reasons.setdefault(reason, []).append(name)
            for reason, names in reasons.items():
                total, shown = sum(self.sizes[k] for k in names), grouped(names, self.sizes)
                if reason == OTHER and len(names) <= FEW_SHAPES:
                    shown = [f"{k} {self.shapes[k][0]} there, {self.shapes[k][1]} here" for k in names]
                found.append(f"  {word}: {', '.join(shown)} ({total:,} parameters): {reason}")
        left = [k for k in self.there if k not in self.sizes]
        if left:
            total = sum(self.there[k] for k in left)
            found.append(f"  left out: {', '.join(grouped(left, self.there))} ({total:,} parameters): there is none here")
        return [*found, *(f"  {note}" for note in self.notes)]


def _percent(share: float) -> str:
    """A share in words, never all of it where something is missing."""
    return f"{math.floor(1000 * share) / 10:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def grouped(names: Sequence[str] | Mapping[str, Any], among: Mapping[str, Any]) -> list[str]:
    """Names of tensors in as few words as there are: a module stands for all of its tensors among those that there are."""
    chosen, found = set(names), []

    def walk(prefix: str, below: list[str]) -> None:
        if all(name in chosen for name in below):
            found.append(prefix)
            return
        parts: dict[str, list[str]] = {}
        for name in below:
            rest = name[len(prefix) + 1 :] if prefix else name
            parts.setdefault(f"{prefix}.{rest.split('.')[0]}" if prefix else rest.split(".")[0], []).append(name)
        for part, inner in parts.items():
            if any(name in chosen for name in inner):
                walk(part, inner)

    walk("", list(among))
    return [name or "all of the net" for name in found]


def start(model: Model, other: Model, source: str | Path) -> Start:
    """Fill a fresh model's net from another one's as far as that fits; its codec is left to `continued`.

    Raises:
        ConfigError: nothing of the other model fits.
    """
    net, theirs = model.denoiser, files.state_of(other.denoiser)
    own = files.state_of(net)
    sizes, there = ({k: v.numel() for k, v in tensors.items()} for tensors in (own, theirs))
    found = Start(str(source), other.codec, sizes, there)
    filled = dict(own)
    for name, value in own.items():
        before = theirs.get(name)
        made = Tensors(model, other, name).made(value, before)
        if made.value is None:
            found.new[name] = made.how
            if before is not None:
                found.shapes[name] = tuple(before.shape), tuple(value.shape)
            continue
        filled[name] = made.value.to(value.dtype)
        (found.adapted if made.how else found.taken)[name] = made.how
    _check(found, model, other)
    net.load_state_dict({k: filled[files.plain_name(k)] for k in net.state_dict()})
    found.notes += _labels(model.recipe, other.recipe, found)
    found.notes += _conditions(net, other.denoiser, found, other.recipe)
    found.notes += _meaning(model, other)
    return found


def _check(found: Start, model: Model, other: Model) -> None:
    """Refuse a start that is none, and warn of one that is hardly one."""
    one, two = type(model.denoiser), type(other.denoiser)
    alike = issubclass(one, two) or issubclass(two, one)
    if (not found.taken and not found.adapted) or (not alike and found.share < FEW):
        raise ConfigError(
            f"init: nothing of {found.source} fits: its net is a {two.__name__} ({other.recipe.denoiser}) with the options "
            f"{other.recipe.net}, and this one a {one.__name__} ({model.recipe.denoiser}) with {model.recipe.net}. Train the "
            f"recipe of that model (zoo train {found.source}), or leave init out."
        )
    if found.share < FEW:
        warnings.warn(
            f"init: only {_percent(found.share)} of the net's parameters come from {found.source}, the others are new: its net "
            f"has the options {other.recipe.net}, this one {model.recipe.net}. Training starts nearly from scratch.",
            stacklevel=4,
        )


def _meaning(model: Model, other: Model) -> list[str]:
    """What tensors of the same shape were trained for, where this model asks for something else."""
    old, new = (m.recipe.shown().model_dump(mode="json") for m in (other, model))
    return [
        f"{part}.{key} was {old[part].get(key, 'the default')}, is {new[part].get(key, 'the default')}."
        for part in MEANING
        for key in sorted({*old[part], *new[part]})
        if key != "weighting" and old[part].get(key, ...) != new[part].get(key, ...)
    ]


# ---------------------------------------------------------------- one tensor


@dataclass(frozen=True)
class Made:
    """A tensor that was taken (no `how`), adapted, or not found: then `how` says why it is new."""

    value: Tensor | None
    how: str = ""


class Tensors:
    """One tensor of a new net beside the one of that name of the net that it starts from.

    Args:
        model, other: new and old.
        name: of the tensor, in both nets.
    """

    def __init__(self, model: Model, other: Model, name: str) -> None:
        self.model, self.other, self.name = model, other, name
        path, _, self.leaf = name.rpartition(".")
        self.parts = name.split(".")
        self.module, self.before = _module(model.denoiser, path), _module(other.denoiser, path)

    def made(self, value: Tensor, before: Tensor | None) -> Made:
        """The tensor made of the old one `before`, by the first way that fits."""
        if before is None:
            return Made(None, "there is none there")
        if value.is_floating_point() != before.is_floating_point() or value.ndim != before.ndim:
            return Made(None, OTHER)
        for name in self.inside():
            if type(self.model.recipe.conditions[name]) is not type(self.other.recipe.conditions[name]):
                return Made(None, f"{name} is a condition of another kind now")
        if value.ndim == 0:
            return Made(before)
        for way in (self.by_labels, self.as_it_is, self.by_channels, self.by_positions):
            if (found := way(value, before)) is not None:
                return found
        return Made(None, OTHER)

    # ------------------------------------------------------------ labels

    def by_labels(self, value: Tensor, before: Tensor) -> Made | None:
        """Rows of a table of labels, matched by name; None for another tensor, or for the same labels."""
        name = self.condition(len(value), len(before))
        if name is None:
            return None
        new, old = self.model.recipe.conditions[name], self.other.recipe.conditions[name]
        if not new.classes or new.classes == old.classes:
            return None
        rows, null = matched(new.classes, old.classes), len(value) - len(new.classes)
        if null not in (0, 1) or null != len(before) - len(old.classes) or value.shape[1:] != before.shape[1:]:
            return None
        made = torch.empty_like(value)
        unknown = self.unknown(before, null)
        for i, row in enumerate(rows):
            made[i] = unknown if row is None else before[row]
        if null:
            made[-1] = before[-1]
        known = sum(row is not None for row in rows)
        return Made(made, f"{name}: {known} of {len(rows)} labels by their names" + (", and the row of no label" * null))

    def unknown(self, before: Tensor, null: int) -> Tensor:
        """The row of a label that the old model did not know."""
        trained = null and null_is_trained(self.other.recipe)
        return before[-1] if trained else before[: len(before) - null].mean(0)

    def inside(self) -> list[str]:
        """The conditions of both models that the tensor's name holds, the innermost last."""
        both = self.model.recipe.conditions.keys() & self.other.recipe.conditions.keys()
        return [part for part in self.parts if part in both]

    def condition(self, rows: int, before: int) -> str | None:
        """The condition whose labels a tensor's rows are: the one that its name holds, else the one whose number fits."""
        inside = self.inside()
        plain = isinstance(self.module, nn.Embedding)
        if inside and (plain or not isinstance(self.module, LAYERS)):
            return inside[-1]
        if not plain:
            return None
        both = self.model.recipe.conditions.keys() & self.other.recipe.conditions.keys()
        fits = [k for k in both if self._rows(k, rows, before) in (0, 1)]
        return fits[0] if len(fits) == 1 else None

    def _rows(self, name: str, rows: int, before: int) -> int | None:
        """How many rows more than labels a table has; None where it is not that of these labels."""
        new, old = self.model.recipe.conditions[name].classes, self.other.recipe.conditions[name].classes
        return rows - len(new) if new and old and rows - len(new) == before - len(old) else None

    # ------------------------------------------------------------ shapes

    def as_it_is(self, value: Tensor, before: Tensor) -> Made | None:
        """The old tensor, where its shape is the same and so is what its axes are."""
        if value.shape != before.shape:
            return None
        new, old = self.ends()
        # the axis of data of another make may have the same size by chance: 4 channels, and patches of 2 x 2
        chance = new and old and new != old and math.prod(new) == math.prod(old) and math.prod(new) in value.shape[:2]
        return Made(None, OTHER) if chance else Made(before)

    def by_channels(self, value: Tensor, before: Tensor) -> Made | None:
        """The weight or bias of a first or last layer for other channels or other patches."""
        new, old = self.ends()
        if not new or not old or len(new) != len(old) or not isinstance(self.module, LAYERS):
            return None
        axes = [k for k, (a, b) in enumerate(zip(value.shape, before.shape, strict=True)) if a != b]
        if len(axes) != 1 or axes[0] > 1 or (value.shape[axes[0]], before.shape[axes[0]]) != (math.prod(new), math.prod(old)):
            return None
        one = 1 in (new[0], old[0])
        if new[0] != old[0] and not (one and self.channels() == (new[0], old[0])):
            return None
        made = refolded(before, axes[0], old, new, first=axes[0] == 1)
        said = [f"{old[0]} channels to {new[0]}"] if new[0] != old[0] else []
        if new[1:] != old[1:]:
            said.append(f"patches of {' x '.join(map(str, old[1:]))} to {' x '.join(map(str, new[1:]))}")
        return Made(made, " and ".join(said).replace("1 channels", "1 channel") + ", so that the response stays")

    def ends(self) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """What the data's axis of this layer is made of, in both nets: channels, then the places of a patch."""
        new, old = folded(self.module), folded(self.before)
        channels = self.channels()
        if new is None and old is None and channels is not None:
            return channels[:1], channels[1:]  # a layer that says nothing, and whose axis is the channels alone
        return new, old

    def channels(self) -> tuple[int, int] | None:
        """How many channels the samples of both models have; None where their codecs name no such axis."""
        found = []
        for codec in (self.model.codec, self.other.codec):
            if "channel" not in codec.axes:
                return None
            found.append(codec.shape[codec.axes.index("channel")])
        return found[0], found[1]

    def by_positions(self, value: Tensor, before: Tensor) -> Made | None:
        """A table of learnt positions on a grid, interpolated to another size."""
        if "pos" not in self.leaf.lower() and not any("pos" in part.lower() for part in self.parts[-2:]):
            return None
        axes = [k for k, (a, b) in enumerate(zip(value.shape, before.shape, strict=True)) if a != b]
        if len(axes) != 1:
            return None
        new, old = _grid(self.model.codec, value.shape[axes[0]]), _grid(self.other.codec, before.shape[axes[0]])
        if new is None or old is None or len(new) != len(old):
            return None
        moved = before.movedim(axes[0], -1)
        mode = "bicubic" if len(new) == 2 else "linear"
        made = F.interpolate(moved.reshape(1, -1, *old).float(), size=new, mode=mode, align_corners=False)
        sizes = [" x ".join(map(str, g)) for g in (old, new)]
        return Made(
            made.reshape(*moved.shape[:-1], -1).movedim(-1, axes[0]), f"positions of {sizes[0]} interpolated to {sizes[1]}"
        )


#: layers whose rows are features, never labels
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def _module(net: nn.Module, path: str) -> nn.Module | None:
    try:
        return net.get_submodule(path)
    except AttributeError:
        return None


def _grid(codec: Codec, count: int) -> tuple[int, ...] | None:
    """The grid of `count` patches of a codec's samples, all sides of a patch alike; None where there is none."""
    if "channel" not in codec.axes:
        return None
    sides = [n for n, axis in zip(codec.shape, codec.axes, strict=True) if axis != "channel"]
    if not sides or count < 1 or len(sides) > 2:
        return None
    patch = round((math.prod(sides) / count) ** (1 / len(sides)))
    if patch < 1 or any(n % patch for n in sides) or math.prod(n // patch for n in sides) != count:
        return None
    return tuple(n // patch for n in sides)


def matched(new: Sequence[str], old: Sequence[str]) -> list[int | None]:
    """For each new label the number of the old one of that name, upper and lower case alike; None for an unknown one."""
    found: list[int | None] = []
    for name in new:
        alike = [i for i, known in enumerate(old) if known.casefold() == name.casefold()]
        found.append(old.index(name) if name in old else alike[0] if len(alike) == 1 else None)
    return found


def refolded(value: Tensor, axis: int, old: Sequence[int], new: Sequence[int], *, first: bool) -> Tensor:
    """A layer's weight or bias for data that are folded otherwise: old (channels, *patch) along `axis` becomes new.

    A first layer gives the same for a picture in all new channels at once (or for their mean), and for one whose patches
    are resized; a last one says the same in all channels (or the mean of them), in patches that are resized.
    """
    x = value.movedim(axis, -1).unflatten(-1, tuple(old))
    for k in range(1, len(old)):
        if old[k] != new[k]:
            matrix = _resize(new[k], old[k]) if first else _resize(old[k], new[k]).T
            x = torch.tensordot(x, matrix.to(x), dims=([x.ndim - len(old) + k], [0])).movedim(-1, x.ndim - len(old) + k)
    place = x.ndim - len(old)
    if new[0] > old[0]:
        x = x.repeat_interleave(new[0], place) / (new[0] if first else 1)
    elif new[0] < old[0]:
        x = x.sum(place, keepdim=True) if first else x.mean(place, keepdim=True)
    return x.flatten(place).movedim(-1, axis)


def _resize(count: int, other: int) -> Tensor:
    """The matrix (other, count) that resizes a row of `count` values to `other` of them, as a picture is resized."""
    eye = torch.eye(count)[None, :, None]
    return F.interpolate(eye, size=(1, other), mode="bilinear", antialias=True, align_corners=False)[0, :, 0].T


# ---------------------------------------------------------------- conditions


def _labels(recipe: Recipe, before: Recipe, begun: Start) -> list[str]:
    """What became of the labels of each condition that both models have."""
    found = []
    for name, condition in recipe.conditions.items():
        old = before.classes(name)
        if not condition.classes or not old or condition.classes == old:
            continue
        if not any(how.startswith(f"{name}: ") for how in begun.adapted.values()):
            found.append(f"{name}: the labels are others, and no table of them was found in the net: look at what was taken.")
            continue
        rows = matched(condition.classes, old)
        known = [c for c, row in zip(condition.classes, rows, strict=True) if row is not None]
        new = [c for c, row in zip(condition.classes, rows, strict=True) if row is None]
        left = [c for i, c in enumerate(old) if i not in rows]
        kinds = {"known by name": known, "new, starting as no label does": new, "left out": left}
        found.append(f"{name}: " + "; ".join(f"{len(v)} {k} ({', '.join(v)})" for k, v in kinds.items() if v))
    return found


def null_is_trained(recipe: Recipe) -> bool:
    """Whether a model was trained on samples whose conditions were left out: else its nulls mean nothing."""
    training = recipe.training
    return training.condition_dropout > 0 or (len(recipe.conditions) > 1 and training.single_dropout > 0)


def _conditions(net: nn.Module, before: nn.Module, found: Start, recipe: Recipe) -> list[str]:
    """Make conditions that came and went change nothing at first, in nets whose conditions are a sum (`Conditioning`)."""
    lines = []
    old = dict(before.named_modules())
    for path, module in net.named_modules():
        earlier = old.get(path)
        if not isinstance(module, Conditioning) or not isinstance(earlier, Conditioning):
            continue
        for name in module.labels.keys() - earlier.labels.keys():
            if module.start_as_nothing(name):
                lines.append(f"{name}: a new condition; it starts as nothing, so that the net does at first what it did.")
        for name in sorted(earlier.labels.keys() - module.labels.keys()):
            if module.absorb(_usual(earlier.labels[name], recipe)):
                bias = f"{path}.time.net.2.bias".lstrip(".")
                found.taken.pop(bias, None)
                found.adapted[bias] = "holds what the net was told where a condition that is gone was not given"
                lines.append(f"{name}: the condition is gone; the net is told from now on that it is not given.")
    return lines


@torch.no_grad()
def _usual(embedding: nn.Module, recipe: Recipe) -> Tensor:
    """What a condition adds (dim,) where it is not given; the mean over its labels, where a model never left it out."""
    if not null_is_trained(recipe) and isinstance(embedding, LabelEmbedding):
        return embedding.table.weight[:-1].mean(0)
    found: Tensor = embedding(None, 1)[0]
    return found


# ---------------------------------------------------------------- codec


def continued(codec: Codec, before: Codec) -> list[str]:
    """Give a codec that was fitted to the data the statistics of the model that a run starts from, where they hold the data.

    Returns: what was kept and what is of the new data, a line each.
    """
    if not any(True for _ in codec.buffers()):
        return []
    kept = codec.continued(before) if type(codec) is type(before) else []
    fitted = [name for name, _ in codec.named_buffers() if name not in kept]
    lines = [f"codec: {', '.join(kept)} as there: the net sees what it knows."] if kept else []
    if fitted:
        lines.append(f"codec: {', '.join(fitted)} fitted to the new data.")
    return lines

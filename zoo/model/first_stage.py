"""Latent models: a trained autoencoder (the first stage) between a model's net and the objects of its domain.

The codec of objects encodes and decodes as ever, in the loader and after sampling; `Latent` lifts what it encodes to latents on
the model's device, in batches, and lowers them again. The autoencoder is a model of its own, with its recipe, weights, golden
output and card (`Recipe.role` is "first_stage"); a latent model holds a frozen copy of it, so that its folder is whole.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import files
from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.contract.recipe import FirstStage, Recipe
from zoo.core import seeds
from zoo.core.device import exact, send
from zoo.errors import CheckpointError, ConfigError

#: training objects by which the latents' mean and deviation are measured, and how many at a time
FITTED, CHUNK = 1024, 64
#: the least deviation of a channel of latents: one that is constant stays as it is
LEAST = 1e-3


class Autoencoder(Protocol):
    """The net of a first stage. Its `forward` is a denoiser's, see `zoo.training.objective.Autoencode`.

    Attributes:
        latent_shape: of one latent (*S).
    """

    latent_shape: tuple[int, ...]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded objects (B,*I) -> mean and log variance of their latents, each (B,*S)."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B,*S) -> encoded objects (B,*I)."""
        ...


class Staged(Protocol):
    """A model of a first stage, as `Latent` takes it."""

    recipe: Recipe
    codec: Codec
    denoiser: nn.Module


def digest(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of weights: names, shapes and values, whatever precision they are stored in."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().float().contiguous()
        found.update(f"{name}{tuple(value.shape)}".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()


def check_role(recipe: Recipe, source: str) -> None:
    """Refuse a model that is not a first stage."""
    if recipe.role != "first_stage":
        raise ConfigError(
            f"codec.stage={source!r} is the model {recipe.domain}/{recipe.name}, which is not a first stage. Give an "
            "autoencoder: zoo list shows them, and zoo train image/autoencoder --data DIR --out runs/autoencoder makes one."
        )


class Latent(Codec):
    """A codec whose samples are latents of a first stage (Rombach et al. 2022, section 3), of zero mean and unit deviation.

    Args:
        codec: of objects.
        stage: a model of a first stage; its weights are copied and stay as they are.
        spec: what the recipe says of it; default: the model's own recipe and weights.

    Attributes:
        shape: of one latent.
        spec: where the first stage comes from, its recipe, and the SHA-256 of its weights.

    Raises:
        ConfigError: a first stage of other objects. CheckpointError: one with other weights than `spec` says.
    """

    axes: tuple[str, ...] = ("channel", "height", "width")
    mean: Tensor
    deviation: Tensor

    def __init__(self, codec: Codec, stage: Staged, spec: FirstStage | None = None) -> None:
        super().__init__()
        source = (spec.name if spec else "") or f"{stage.recipe.domain}/{stage.recipe.name}"
        check_role(stage.recipe, source)
        _check_objects(codec, stage, source)
        net = copy.deepcopy(stage.denoiser).requires_grad_(False).eval()
        self.add_module("objects", codec)
        self.stage: Any = net
        self.shape = tuple(net.latent_shape)  # type: ignore[arg-type]
        if len(self.shape) != len(self.axes):
            self.axes = ()
        wide = (self.shape[0], *[1] * (len(self.shape) - 1))
        self.register_buffer("mean", torch.zeros(wide))
        self.register_buffer("deviation", torch.ones(wide))
        own = stage.recipe.model_dump(mode="json")
        self.spec = FirstStage(name=source, sha256=spec.sha256 if spec else None, recipe=own)

    @property
    def inner(self) -> Codec:
        found = self._modules["objects"]
        if not isinstance(found, Codec):
            raise ConfigError("a latent codec without a codec of objects.")
        return found

    def seal(self) -> Latent:
        """Take the weights of the first stage as those that the recipe names; returns the codec.

        Raises:
            CheckpointError: the recipe names others.
        """
        found = digest(self.stage.state_dict())
        if self.spec.sha256 not in (None, found):
            raise CheckpointError(
                f"the first stage {self.spec.name} has weights with the SHA-256 {found[:16]}..., and the model was made for "
                f"{str(self.spec.sha256)[:16]}...: latents of another autoencoder mean something else. Give the right one, or "
                "train a new model on this one: --set codec.stage=FOLDER."
            )
        self.spec = self.spec.model_copy(update={"sha256": found})
        return self

    def train(self, mode: bool = True) -> Latent:
        """The first stage is never in training mode."""
        super().train(mode)
        self.stage.eval()
        return self

    # ------------------------------------------------------------ statistics

    @torch.no_grad()
    def fit(self, dataset: Dataset) -> None:
        """Mean and deviation of each channel of the latents, over up to `FITTED` training objects and all places."""
        self.inner.fit(dataset)
        rows = torch.randperm(len(dataset), generator=seeds.generator(0))[:FITTED].tolist()
        device = self.mean.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        total, squares, count = torch.zeros(3, self.shape[0], device=device, dtype=wide).unbind(0)
        axes = [0, *range(2, 1 + len(self.shape))]
        for first in range(0, len(rows), CHUNK):
            x = torch.stack([self.inner.encode(dataset[i][0]) for i in rows[first : first + CHUNK]])
            mean, log_variance = self._posterior(x.to(device))
            mean, variance = mean.to(wide), log_variance.to(wide).exp()
            total += mean.sum(axes)
            squares += (mean.square() + variance).sum(axes)
            count += mean[:, 0].numel()
        average = total / count
        self.mean.copy_(average.reshape(self.mean.shape))
        self.deviation.copy_((squares / count - average.square()).clamp(min=LEAST**2).sqrt().reshape(self.mean.shape))

    def continued(self, before: Codec) -> list[str]:
        """Statistics of another latent codec count only where its latents mean the same."""
        if not isinstance(before, Latent) or before.spec.sha256 != self.spec.sha256:
            return []
        for name in ("mean", "deviation"):
            getattr(self, name).copy_(getattr(before, name))
        return ["mean", "deviation"]

    # ------------------------------------------------------------ between objects and latents

    def encode(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """As the codec of objects does; `lift` makes latents of it."""
        return self.inner.encode(item, rng)

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Any]:
        """As the codec of objects does, of what `lower` made of latents."""
        return self.inner.decode(x0, cond)

    def condition(self, name: str, value: Any) -> Tensor:
        return self.inner.condition(name, value)

    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.stage.parameters()), torch.float32)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.stage.encode(x.to(self._dtype()))
        return found

    def lift(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Encoded objects (B,*I) -> latents (B,*S) of unit deviation: a draw of the posterior with `rng`, else its mean."""
        mean, log_variance = self._posterior(x)
        z = mean.to(x.dtype)
        if rng is not None:
            noise = send(torch.randn(z.shape, generator=rng, dtype=x.dtype), x.device)
            z = z + torch.exp(0.5 * log_variance.to(x.dtype)) * noise
        return (z - self.mean.to(z)) / self.deviation.to(z)

    def lower(self, x0: Tensor) -> Tensor:
        """Latents (B,*S) of unit deviation -> encoded objects (B,*I)."""
        z = x0 * self.deviation.to(x0) + self.mean.to(x0)
        found: Tensor = self.stage.decode(z.to(self._dtype()))
        return found.to(x0.dtype)

    def in_units(self, x0: Tensor) -> Tensor:
        """As the codec of objects has them, of what `lower` makes of latents."""
        return self.inner.in_units(self.lower(x0))

    @torch.no_grad()
    def lift_known(self, x: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Known pixels as known latents: a cell is known where all of its pixels are.

        The encoder looks beyond a cell's own pixels. What is not known is first filled from the nearest known pixels, so that
        it has no influence, whatever stands there.
        """
        known = where.expand_as(x)
        sides = [(a, b) for a, b in zip(x.shape[1:], self.shape[1:], strict=True)]
        if any(a % b for a, b in sides):
            raise ConfigError(f"inpaint: latents {self.shape} of objects {tuple(x.shape)} are no cells of whole pixels.")
        cells = known.all(0)
        for axis, (a, b) in enumerate(sides):
            cells = cells.unflatten(axis, (b, a // b)).all(axis + 1)
        with exact() if x.device.type == "cuda" else nullcontext():
            x0 = self.lift(filled(x, known)[None])[0]
        return x0, cells.expand(self.shape)


def _check_objects(codec: Codec, stage: Staged, source: str) -> None:
    """Refuse a first stage that was made for other objects."""
    ours, theirs = codec.shape, stage.codec.shape
    if stage.codec.inner is not stage.codec or codec.inner is not codec:
        raise ConfigError(f"codec.stage={source!r} on a codec that has a first stage already: only one is supported.")
    if codec.size_name is not None:
        raise ConfigError(f"codec.stage={source!r}: objects with sizes of their own ({codec.size_name}) have no first stage.")
    if ours != theirs or type(codec) is not type(stage.codec):
        sets = " ".join(f"--set codec.{k}={v}" for k, v in stage.recipe.codec.items())
        raise ConfigError(
            f"codec.stage={source!r} is an autoencoder of {type(stage.codec).__name__} samples {theirs}, the recipe's are "
            f"{type(codec).__name__} samples {ours}. Give another first stage, or the recipe its samples: {sets}."
        )


def filled(x: Tensor, known: Tensor) -> Tensor:
    """x (C,*places) with the mean of the known values around in the place of unknown ones, from as near as there are any.

    Args:
        known: bool, shaped like x.
    """
    rows, mask = x[None], known[None]
    pool = {3: F.avg_pool1d, 4: F.avg_pool2d}.get(rows.ndim)
    if pool is None:
        return torch.where(known, x, 0.0)
    values, weight = torch.where(mask, rows, 0.0), mask.to(rows.dtype)
    out, done = values.clone(), mask.clone()
    width = 1
    while not bool(done.all()) and width < 2 * max(rows.shape[2:]):
        side = 2 * width + 1
        near = pool(weight, side, stride=1, padding=width, count_include_pad=True)
        mean = pool(values, side, stride=1, padding=width, count_include_pad=True) / near.clamp(min=1e-12)
        new = ~done & (near > 0.5 / side ** (rows.ndim - 2))
        out, done = torch.where(new, mean, out), done | new
        width *= 2
    return out.reshape(x.shape)


# ---------------------------------------------------------------- in files

#: before the names of a first stage's tensors, in a latent model's weights
PREFIX = "codec.stage."


def stored(codec: Codec, half: bool) -> dict[str, Tensor]:
    """A codec's tensors as a weights file holds them: statistics in full, a first stage in half where nothing is lost by it.

    A first stage is never rounded, else it would not be the one that the recipe names.
    """
    found = files.state_of(codec)
    if not isinstance(codec, Latent) or not half:
        return found
    stage = {k: v for k, v in found.items() if k.startswith("stage.")}
    narrow = {k: v.half() if v.is_floating_point() else v for k, v in stage.items()}
    lossless = all(torch.equal(narrow[k].to(v.dtype), v) for k, v in stage.items())
    return found | narrow if lossless else found

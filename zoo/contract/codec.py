"""The codec: between a domain's objects and encoded samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zoo.contract.conditions import Condition, Reading, tensor_of
from zoo.contract.dataset import Batch, Dataset
from zoo.core.likelihood import Units
from zoo.core.schedule import Level
from zoo.errors import ConfigError, DataError


class Codec(nn.Module):
    """Between domain objects and encoded samples of `shape`. Its buffers are saved with the weights.

    Samples of some domains have sizes of their own: so many points, residues or frames along one axis, of which `shape`
    then holds only the usual size. `size_name` is the argument of `sample` that asks for one, and `sample_size` checks it.

    Attributes:
        shape: of one encoded sample (*S).
        axes: the names of its axes, e.g. ("channel", "mel", "frame"); empty where nobody needs them.
        size_name: what a size is asked for by, e.g. "n_points"; None where all samples have the same.
        size_axis: which axis of `shape` has a size of its own.
        options: the arguments that built this codec, for its recipe.
        kind: its name among its domain's codecs, see `Domain.codec_kinds`; empty for the one that a recipe does not name.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...] = ()
    size_name: str | None = None
    size_axis: int = 0
    options: dict[str, Any]
    kind: str = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Codec:
        """Remember the arguments: a recipe is written from them, whoever builds the codec."""
        self = super().__new__(cls)
        try:
            given = inspect.signature(cls.__init__).bind(self, *args, **kwargs).arguments
        except TypeError:  # a copy is made without arguments; a wrong call raises in __init__
            given = {}
        found = {k: v for k, v in given.items() if v is not self and k not in ("args", "kwargs")}
        object.__setattr__(self, "options", found | given.get("kwargs", {}))
        return self

    @property
    def inner(self) -> Codec:
        """The codec of objects: this one; of a latent model the one whose samples are lifted to latents.

        Its `shape` is that of what `encode` makes and `decode` takes; the net sees this codec's own `shape`.
        """
        return self

    def lift(self, x: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """What `encode` made of objects, stacked (B,*I), on any device -> x0 (B,*S), as the net sees it. The default: the same.

        Args:
            rng: CPU generator of what is random in training, such as draws of latents; None means none of it.
        """
        return x

    def lower(self, x0: Tensor) -> Tensor:
        """x0 (B,*S) -> what `decode` takes (B,*I); the way back of `lift`. The default: the same."""
        return x0

    def lift_known(self, x: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """What is known of an object, as `encode` makes it (*I), and where (bool, broadcast to *I), as the net sees it.

        Returns:
            (x0 (*S), bool that broadcasts to it). What is not known has no influence on known values.
        """
        return x, where

    def sample_size(self, value: int | None, rng: torch.Generator) -> int:
        """The size of one sample: the one asked for, checked, or for None the usual one or one drawn as the data's are.

        Raises:
            ConfigError: a size that is not allowed; the message says what is.
        """
        raise NotImplementedError

    def size_of(self, x0: Tensor) -> int:
        """How many elements an encoded sample (*S) has along the axis of sizes."""
        return int(x0.shape[self.size_axis])

    def spread(self, mask: Tensor, ndim: int) -> Tensor:
        """A mask of elements (B,N) ready to broadcast to samples (B,*S) of `ndim` axes."""
        shape = [mask.shape[0], *[1] * (ndim - 1)]
        shape[1 + self.size_axis] = mask.shape[1]
        return mask.reshape(shape)

    def fit(self, dataset: Dataset) -> None:
        """Fill the buffers from training data. The default has none."""

    def continued(self, before: Codec) -> list[str]:
        """Take statistics of `before` in place of those of the data that this codec was just fitted to.

        A run that starts from another model's weights calls it with that model's codec, one of the same class. The default
        takes all buffers where they have the same shapes, so that the net sees what it knows. A codec whose statistics
        would lose something of the new data, or that count the data, keeps its own.

        Returns: the names of the buffers that were taken.
        """
        own, others = dict(self.named_buffers()), dict(before.named_buffers())
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in others.items()}:
            return []
        for name, buffer in own.items():
            buffer.copy_(others[name])
        return list(own)

    def encode(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        """A domain object -> x0 (*S). `rng` feeds random crops and augmentation; None means none of it."""
        raise NotImplementedError

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Any]:
        """x0 (B,*S) -> B samples in domain units. Samples with sizes of their own come one by one, without padding."""
        raise NotImplementedError

    def in_units(self, x0: Tensor) -> Tensor:
        """x0 (B,*S), as the net sees it, in the units of what `decode` makes of it, with gradients: what steers see.

        Raises:
            ConfigError: decoding has no gradient, which is the default.
        """
        raise ConfigError(
            f"{type(self).__name__} decodes samples in a way that has no gradient, so a steer cannot see them in the domain's "
            "units. Give it units='encoded': it then sees x0 as the net does."
        )

    def condition(self, name: str, value: Any) -> Tensor:
        """A condition's value in encoded units: a label's number as it is, an array checked.

        For arrays, `value` may be one sample's or a stack of them: (*shape) or (n, *shape) comes back.
        """
        array = tensor_of(value)
        return array.float() if array.is_floating_point() else array

    def reading(self, name: str, rng: Callable[[int], torch.Generator] | None = None) -> Reading:
        """What a condition of this name is read with."""
        return Reading(name, lambda value: self.condition(name, value), rng)

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Linear projector for x0, noise and x_T: the identity, or e.g. a zero centre of mass."""
        return x

    def density_units(self, x0: Tensor) -> Units:
        """How the density of an encoded sample (*S) becomes that of its object, for `Model.log_likelihood`.

        A codec overrides it where `encode` is an invertible affine map, or another one whose derivative it can tell.

        Raises:
            ConfigError: there is no such map, as the default says.
        """
        raise ConfigError(
            f"{type(self).__name__} does not say how a density of its encoded samples becomes one of objects (no invertible "
            "map between the two, or no method `density_units`). Give units='encoded' for the density of what the net sees; it "
            "compares only with others of the same codec."
        )

    def free(self, x0: Tensor) -> int:
        """How many numbers of an encoded sample (*S) are free: all of them, less those that `project` takes away."""
        return x0.numel()

    def auxiliary(self, guess: Tensor, x0: Tensor, level: Level, mask: Tensor | None = None) -> Tensor | float:
        """A further loss of the net's guess of x0 (B,*S), a scalar; the default is none.

        Args:
            guess, x0: what the net says and what it should (B,*S).
            level: the noise of each row, float64 (B,).
        """
        return 0.0

    def hint(self, guess: Tensor, x0: Tensor, mask: Tensor | None, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """What a net that conditions itself receives for its guess of x0 (B,*S) in training, and which parts are known.

        The default is the guess, of which nothing is known. A codec whose samples are built around known parts puts true
        parts of x0 into some rows, as in-painting will.

        Returns:
            (guess, known), both (B,*S); known is bool.
        """
        return guess, torch.zeros_like(guess, dtype=torch.bool)

    def held(self, known: Tensor, where: Tensor) -> Tensor | Callable[[Tensor], Tensor]:
        """How in-painting puts known values (*S) into a prediction where `where` is True, see `zoo.core.steer.hold`.

        The default is the values themselves. A codec whose values hang together gives a function that moves the rest to fit.
        """
        return known

    def stack(self, items: Sequence[Any], rng: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """Encode objects and stack them: (x0 (B,*S), mask (B,N) or None where every element is real).

        Samples of different sizes are padded with zeros.
        """
        encoded = [self.encode(item, rng) for item in items]
        if self.size_name is None:
            return torch.stack(encoded), None
        sizes = torch.tensor([self.size_of(x) for x in encoded])
        padded = pad_sequence([x.movedim(self.size_axis, 0) for x in encoded], batch_first=True)
        mask = torch.arange(int(sizes.max())) < sizes[:, None]
        return padded.movedim(1, 1 + self.size_axis), None if bool(mask.all()) else mask

    def batch(
        self,
        items: Sequence[tuple[Any, dict[str, Any]]],
        rng: torch.Generator | None = None,
        conditions: Mapping[str, Condition] | None = None,
    ) -> Batch:
        """Encode and stack dataset items.

        Args:
            conditions: of the recipe, each of which makes a tensor of what the data give; without them numbers are stacked.
        """
        x0, mask = self.stack([item for item, _ in items], rng)
        cond = {}
        names = set(items[0][1])
        for _, given in items:
            if set(given) != names:
                raise DataError(f"data with the conditions {sorted(names)} and {sorted(given)}; all must have the same ones.")
        for name in items[0][1]:
            values = [given[name] for _, given in items]
            if conditions is not None and name in conditions:
                cond[name] = conditions[name].batch(values, self.reading(name))
            else:
                cond[name] = self.condition(name, np.stack([np.asarray(v) for v in values]))
        return Batch(x0, cond, mask)

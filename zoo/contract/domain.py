"""The plug-in contract: what a modality brings (data, codec, denoisers, recipes, metrics) and what comes back to users.

Shapes: B batch, *S the shape of one encoded sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from zoo.contract.recipe import Recipe
    from zoo.core.guidance import Known
    from zoo.core.schedule import Level
    from zoo.evaluation.judged import Evaluator
    from zoo.model.model import Model


@dataclass
class Batch:
    """Encoded training samples.

    Attributes:
        x0: (B,*S) clean samples.
        cond: {name: (B,...)} conditions; a label of -1 and an array of NaN mean "none".
        mask: (B,N) bool, True for real points or residues; None where every element is real.
    """

    x0: Tensor
    cond: dict[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        return Batch(self.x0.to(device), {k: v.to(device) for k, v in self.cond.items()}, mask)


@runtime_checkable
class Denoiser(Protocol):
    """Any `nn.Module` with this forward.

    x_t (B,*S); t (B,) the schedule's noise coordinate (step index, or ln sigma / 4, or a flow's time);
    cond {name: (B,...)}; drop (B,) bool: rows whose conditions are replaced by the net's learned null;
    mask (B,N) bool. The output is shaped like x_t.
    """

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, drop: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor: ...


@runtime_checkable
class Sample(Protocol):
    """One generated object in its domain's units."""

    def save(self, path: str | Path) -> Path:
        """Write the sample to a file whose suffix names the format; returns the path."""
        ...

    def plot(self, ax: Any = None) -> Any:
        """Draw the sample; returns a picture."""
        ...

    def numpy(self) -> Any:
        """The sample as an array in domain units."""
        ...


class Dataset(ABC):
    """Training or evaluation data of a domain: `len`, and `dataset[i]` -> (object, conditions)."""

    #: {condition: class names} of the labels that the data carry
    labels: dict[str, list[str]] = {}
    #: what a card says of data that are the user's own; None: they are the recipe's, and so is what it says of them
    origin: str | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int) -> tuple[Any, dict[str, Any]]: ...

    def sizes(self) -> Tensor | None:
        """How many elements each sample has (n,) int64, where that differs: the trainer makes batches of like sizes."""
        return None

    def attributed(self, recipe: Recipe) -> Recipe:
        """The recipe with what its card says of the data. Of a user's own data no licence is known, and none is claimed."""
        if self.origin is None:
            return recipe
        about = f"The recipe {recipe.domain}/{recipe.name}, trained on other data."
        return recipe.model_copy(update={"data": self.origin, "licence": "", "description": about})


class Codec(nn.Module):
    """Between domain objects and encoded samples of `shape`. Its buffers are saved with the weights.

    Samples of some domains have sizes of their own: so many points or residues along the first axis of `shape`, which
    then is only the usual size. `size_name` is the argument of `sample` that asks for one, and `sample_size` checks it.
    """

    shape: tuple[int, ...]
    size_name: str | None = None

    def sample_size(self, value: int | None, generator: torch.Generator) -> int:
        """The size of one sample: the one asked for, checked, or for None the usual one or one drawn as the data's are.

        Raises:
            ConfigError: a size that cannot be: what is allowed.
        """
        raise NotImplementedError

    def fit(self, dataset: Dataset) -> None:
        """Fill the buffers from training data. The default has none."""

    def encode(self, item: Any, generator: torch.Generator | None = None) -> Tensor:
        """A domain object -> x0 (*S). `generator` feeds random crops and augmentation; None means none of it."""
        raise NotImplementedError

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Any]:
        """x0 (B,*S) -> B samples in domain units. Samples with sizes of their own come one by one, without padding."""
        raise NotImplementedError

    def condition(self, name: str, value: Any) -> Tensor:
        """A condition's value as the denoiser takes it: a label's number as it is, an array checked and in encoded units.

        For arrays, `value` may be one sample's or a stack of them: (*shape) or (n, *shape) comes back.
        """
        array = torch.as_tensor(value)
        return array.float() if array.is_floating_point() else array

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Linear projector for x0, noise and x_T: the identity, or e.g. a zero centre of mass."""
        return x

    def auxiliary(self, guess: Tensor, x0: Tensor, level: Level, mask: Tensor | None = None) -> Tensor | float:
        """A further loss of the net's guess of x0 (B,*S), a scalar; the default is none.

        Args:
            guess, x0: what the net says and what it should (B,*S). level: the noise of each row, float64 (B,).
        """
        return 0.0

    def hint(self, guess: Tensor, x0: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """What a net that conditions itself hears for its guess of x0 (B,*S) in training, and which parts of it are known.

        The default is the guess, of which nothing is known. A codec whose samples are built around known parts puts true
        parts of x0 into some rows, as in-painting will.
        """
        return guess, torch.zeros_like(guess, dtype=torch.bool)

    def held(self, known: Tensor, where: Tensor) -> Known:
        """How in-painting puts known values (*S) into a prediction where `where` is True, see `zoo.core.guidance.constrain`.

        The default is the values themselves. A codec whose values hang together gives a function that moves the rest to fit.
        """
        return known

    def batch(self, items: Sequence[tuple[Any, dict[str, Any]]], generator: torch.Generator | None = None) -> Batch:
        """Encode and stack dataset items. Codecs of ragged samples override this and set the mask."""
        x0 = torch.stack([self.encode(item, generator) for item, _ in items])
        names = items[0][1]
        return Batch(x0, {k: torch.stack([self.condition(k, cond[k]) for _, cond in items]) for k in names})


class Samples(Sequence[Any]):
    """What `model.sample` returns: a sequence of samples that can be saved and drawn together.

    Attributes:
        tensor: (n, ...) all samples stacked in domain units; ragged ones are padded and `mask` (n, N) marks the real part.
        conditions: what each sample was asked to be, {name: [value, ...]}.
    """

    def __init__(
        self,
        items: Sequence[Any],
        tensor: Tensor,
        *,
        domain: Domain,
        mask: Tensor | None = None,
        conditions: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self._items, self.tensor, self.mask, self._domain = list(items), tensor, mask, domain
        self.conditions = {k: list(v) for k, v in (conditions or {}).items()}

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, i: int) -> Any: ...
    @overload
    def __getitem__(self, i: slice) -> list[Any]: ...
    def __getitem__(self, i: int | slice) -> Any:
        return self._items[i]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"Samples(n={len(self)}, domain={self._domain.name!r}, tensor={tuple(self.tensor.shape)})"

    def words(self, i: int) -> list[str]:
        """What sample i was asked to be, without what was left out."""
        return [str(v[i]) for v in self.conditions.values() if v[i] is not None]

    def name(self, i: int) -> str:
        """A file stem that sorts and says what the sample is: "0003-sneaker"."""
        safe = ["".join(c if c.isalnum() else "_" for c in w).strip("_") for w in self.words(i)]
        return "-".join([f"{i:04d}", *safe])

    def save(self, folder: str | Path) -> list[Path]:
        """Write one file a sample into `folder` (made when missing); returns the paths."""
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise DataError(f"cannot save into {folder}: it is a file. Give a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        return [s.save(folder / f"{self.name(i)}{self._domain.suffix}") for i, s in enumerate(self)]

    @classmethod
    def of(cls, items: Sequence[Any], *, domain: Domain, conditions: Mapping[str, Sequence[Any]] | None = None) -> Samples:
        """Samples from decoded items; those of different sizes are padded with zeros, with a mask."""
        arrays = [torch.as_tensor(item.numpy()) for item in items]
        sizes = torch.tensor([len(a) for a in arrays])
        if len({tuple(a.shape) for a in arrays}) == 1:
            return cls(items, torch.stack(arrays), domain=domain, conditions=conditions)
        padded = torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True)
        return cls(items, padded, domain=domain, conditions=conditions, mask=torch.arange(padded.shape[1]) < sizes[:, None])

    def plot(self, path: str | Path | None = None) -> Any:
        """One picture of all samples (a PIL image), also written to `path` when given."""
        picture = self._domain.plot(self)
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        return picture

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()


class Domain(ABC):
    """A modality. One package exposes one instance as `DOMAIN` through the entry-point group `zoo.domains`."""

    name: str
    #: file suffix of a saved sample
    suffix: str
    #: how many samples `zoo eval` measures by itself
    measured: int = 1000
    #: {name: class}; how one is built, see `denoiser`
    denoisers: Mapping[str, Callable[..., nn.Module]]
    #: what `codec` builds
    codecs: type[Codec]

    @abstractmethod
    def recipes(self) -> Mapping[str, Recipe]:
        """The domain's recipes by name."""

    @abstractmethod
    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        """Data by folder or file; split is "train", "validation" or "test"."""

    @abstractmethod
    def plot(self, samples: Samples) -> Any:
        """All samples in one PIL image."""

    def showcase(self, model: Model, folder: Path) -> None:
        """What a model makes, for its card: samples.png, and other files beside it where a picture is not all."""
        labels: dict[str, Any] = {k: [i % len(c.values) for i in range(40)] for k, c in model.recipe.labels.items()}
        model.sample(40, seed=0, **labels).plot(folder / "samples.png")

    @abstractmethod
    def metrics(self, model: Model, n: int, **options: Any) -> dict[str, Any]:
        """Quality figures of a model from n samples, each with ceiling and floor, ready for JSON."""

    def evaluator(self, data: str | Path | None = None, split: str = "test", model: Model | None = None) -> Evaluator:
        """What `metrics(judge=...)` measures with: real data and judge, read once for many settings of a model.

        `model` gives its codec, for domains whose real samples go through it; the others do without.
        """
        raise ConfigError(f"the domain {self.name!r} has no evaluator.")

    def model(self, recipe: Recipe) -> Model:
        """An untrained model of a recipe; a domain whose models can do more returns its own subclass."""
        from zoo.model.model import Model

        return Model(recipe, self)

    def data_options(self, recipe: Recipe) -> dict[str, Any]:
        """What `dataset` must know of a recipe, such as the length of its windows."""
        return {}

    def adapt(self, recipe: Recipe, dataset: Dataset) -> Recipe:
        """The recipe fitted to a dataset before training; the default takes its labels."""
        from zoo.contract.recipe import Condition

        conditions = {k: Condition(values=tuple(v)) for k, v in dataset.labels.items()}
        return recipe if conditions == recipe.conditions else recipe.model_copy(update={"conditions": conditions})

    def codec(self, options: Mapping[str, Any]) -> Codec:
        """The codec of a recipe's options; unknown or impossible ones are a ConfigError."""
        try:
            return self.codecs(**options)
        except TypeError as error:
            raise ConfigError(f"{self.name} codec: {error}.") from error

    def denoiser(self, recipe: Recipe, shape: tuple[int, ...]) -> nn.Module:
        """The recipe's denoiser of encoded samples of `shape`.

        Its class is built with `shape`, `classes` {label condition: how many labels}, `arrays` {array condition: shape}
        where the recipe has such, and the recipe's `net` options.
        """
        from zoo.errors import one_of

        if recipe.denoiser not in self.denoisers:
            raise one_of(f"{self.name} denoiser", recipe.denoiser, self.denoisers)
        told: dict[str, Any] = {"classes": {k: len(c.values) for k, c in recipe.labels.items()}}
        if recipe.arrays:
            told["arrays"] = {k: c.shape for k, c in recipe.arrays.items()}
        try:
            return self.denoisers[recipe.denoiser](shape=shape, **told, **recipe.net)
        except TypeError as error:
            raise ConfigError(f"denoiser {recipe.denoiser!r} of the domain {self.name!r}: {error}.") from error

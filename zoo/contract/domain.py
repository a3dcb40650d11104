"""The plug-in contract: what a modality brings (data, codec, denoisers, recipes, evaluation).

Shapes: B batch, *S the shape of one encoded sample.
"""

from __future__ import annotations

import inspect
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zoo.contract.augment import Augment, augment_of
from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset, Items
from zoo.contract.page import Board, Picture, Question, View
from zoo.contract.recipe import Recipe
from zoo.contract.samples import Samples
from zoo.core import seeds
from zoo.core.predict import Steering
from zoo.core.steer import broadcasts, hold, mask_of
from zoo.errors import ConfigError, ShapeError, one_of
from zoo.extras import Registry
from zoo.values import known_arguments

#: denoisers that every domain can use by name, beside its own: another package's, or a program's
DENOISERS: Registry[Callable[..., nn.Module]] = Registry("denoiser", "zoo.denoisers")


class Generator(Protocol):
    """What a domain and an evaluation see of a model."""

    recipe: Recipe
    domain: Domain
    codec: Codec

    def sample(self, n: int = 1, **arguments: Any) -> Samples:
        """n samples."""
        ...

    def encoded(self, item: Any) -> Tensor:
        """A domain object, or an encoded tensor (*S), as an encoded tensor on the model's device."""
        ...

    def is_encoded(self, item: Any) -> bool:
        """Whether this is an encoded tensor, as the net sees it."""
        ...

    def objects_encoded(self, item: Any) -> Tensor:
        """A domain object as the codec of objects encodes it (*I), on the model's device."""
        ...


@dataclass(frozen=True)
class Held:
    """What in-painting holds.

    Attributes:
        steer: puts the known parts into each prediction.
        size: how many elements the samples have; None where all have the same, or the caller says it.
        put_back: what is known, in samples as `Codec.decode` takes them (B,*I) -> the same with the known parts in them; None
            where the steer holds all of it, as in models without a first stage.
    """

    steer: Steering
    size: int | None = None
    put_back: Callable[[Tensor], Tensor] | None = None


class Domain(ABC):
    """A modality. One package exposes one instance as `DOMAIN` through the entry-point group `zoo.domains`.

    A program registers one by `zoo.register`, without a package.
    """

    name: str
    #: file suffix of a saved sample
    suffix: str
    #: suffixes of the files that `dataset` reads, in lower case, by which `zoo data` knows whose they are
    reads: tuple[str, ...] = ()
    #: whole names of files that hold data of this domain alone, whatever their suffix
    archives: tuple[str, ...] = ()
    #: how many samples `zoo eval` measures by itself
    measured: int = 1000
    #: {name: class}; how one is built, see `denoiser`
    denoisers: Mapping[str, Callable[..., nn.Module]]
    #: what `codec` builds
    codecs: type[Codec] | None = None
    #: {kind: class} of further codecs, one of which a recipe names by `codec.kind`
    codec_kinds: Mapping[str, type[Codec]] = {}
    #: what training may do to objects, see `augment`
    augmentations: type[Augment] = Augment
    #: the Hub's task of the models (None where it has none for what they do), and tags by which people search
    hub_task: str | None = None
    hub_tags: tuple[str, ...] = ()
    #: further arguments of `model.inpaint`, which `hold` receives
    inpaint_options: tuple[str, ...] = ()
    #: the method of in-painting where nobody asks for one, and its arguments, as of `model.inpaint`; chosen by measurement
    #: (benchmarks/completion.py). Nothing: "replace", which is also taken where known parts may lie anywhere, and in latents.
    inpainting: Mapping[str, Any] = {}
    #: what a model of this domain can do beyond sampling: {name: function(model, ...)}, called as `model.name(...)`
    methods: Mapping[str, Callable[..., Any]] = {}
    #: steers of this domain's objects by name: makers of what `steer` takes, for `zoo sample --steer NAME=VALUE`
    steers: Mapping[str, Callable[..., Steering]] = {}
    #: kinds of what `view` gives, in its order, and how many samples a page in the browser shows at a time
    views: tuple[type[View], ...] = (Picture,)
    shown: int = 1
    #: suffixes of the files that `read` reads one object from; none: a page asks for no file
    opens: tuple[str, ...] = ()
    #: the conditions that `situation` gives, which a page then does not ask
    situation_names: tuple[str, ...] = ()

    @abstractmethod
    def recipes(self) -> Mapping[str, Recipe]:
        """The domain's recipes by name."""

    @abstractmethod
    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        """Data by folder or file; split is "train", "validation" or "test"."""

    def read(self, path: str | Path, recipe: Recipe) -> Any:
        """The object of one file, as a model of this recipe encodes it: what `zoo inpaint`, `zoo vary` and a page start from.

        Raises:
            ConfigError: the domain reads no single objects, which is the default. DataError: a file that cannot be read.
        """
        raise ConfigError(f"the domain {self.name!r} reads no single objects of files: call the model's method in a program.")

    @abstractmethod
    def plot(self, samples: Samples) -> Any:
        """All samples in one PIL image."""

    def view(self, samples: Samples) -> tuple[View, ...]:
        """Samples as a page in the browser shows them, a view of each kind of `views`; the default is their picture."""
        return (Picture(self.plot(samples)),)

    def situation(self, model: Generator, seed: int) -> dict[str, Any]:
        """Conditions that nobody types: what a robot sees at the start of an episode, say; the default has none."""
        return {}

    def edits(self, recipe: Recipe) -> dict[str, Question]:
        """What a page asks before a part of an object is made anew: {name: question}; the default edits nothing."""
        return {}

    def chosen(self, samples: Samples, answers: Mapping[str, Any]) -> tuple[View, ...]:
        """An object as `view` shows it, in which one sees what the answers to `edits` choose of it; the default marks nothing.

        Raises:
            ConfigError: answers that are none, as of `edited`; the page then shows it as `view` does.
        """
        return self.view(samples)

    def board(self, recipe: Recipe) -> Board | None:
        """A board on which some of the numbers of `edits` are dragged as well; None, the default, for none."""
        return None

    def edited(self, model: Generator, item: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `model.inpaint` for an object and the answers to `edits`.

        Raises:
            ConfigError: answers that leave nothing to make.
        """
        raise ConfigError(f"the domain {self.name!r} edits nothing.")

    def played(self, model: Generator, answers: Mapping[str, Any], **settings: Any) -> Iterator[View] | None:
        """What a model does in a simulation that starts as the answers to `edits` say: a view every few steps, the last one
        of all of it. None, the default, for a domain whose edits are those of an object.
        """
        return None

    def showcase(self, model: Generator, folder: Path) -> None:
        """What a model makes, for its card: samples.png, and other files beside it where a picture is not all."""
        if model.recipe.role == "first_stage":
            return  # it makes nothing by itself
        model.sample(40, seed=0, **model.recipe.showcase(40)).plot(folder / "samples.png")

    def evaluator(self, data: str | Path | None = None, split: str = "test", model: Generator | None = None) -> Any:
        """What measures models of this domain: real data and judge, read once for many settings of a model.

        Returns:
            a `zoo.evaluation.evaluate.Evaluator`.

        Args:
            model: gives its codec, for domains whose real samples go through it; the others do without.

        A domain whose models are measured with a judge, or whose data are folders of files, takes `judge` and `skip_unreadable`
        besides, see `zoo.evaluation.evaluate.evaluate`: what a user gives and a domain does not take is refused.

        Raises:
            ConfigError: the domain has none.
        """
        raise ConfigError(f"the domain {self.name!r} has no evaluator.")

    def sight(self, recipe: Recipe, dataset: Dataset | None = None) -> Any:
        """What a judge of the user's own labels sees of objects that models of this recipe make.

        Args:
            dataset: what the recipe leaves open is chosen as these data are, such as the size of pictures; None: all is the
                recipe's.

        Returns:
            a `zoo.evaluation.own.Sight`.

        Raises:
            ConfigError: the domain has no judges.
        """
        raise ConfigError(f"the domain {self.name!r} has no judges of labels.")

    def traits(self, item: Any) -> dict[str, float | str]:
        """What is to be said of an object of the user's data: {"width": 640, "mode": "RGB"}; the default is nothing.

        Of many objects, numbers become a range and words are counted.
        """
        return {}

    def suited(self, recipe: Recipe, source: str | Path, chosen: Collection[str] = ()) -> tuple[Recipe, str]:
        """A packaged recipe as a user's own data ask for it, before they are opened: pictures in colour, say.

        Args:
            source: as for `dataset`.
            chosen: dotted paths of the recipe that the user has set, which stay.

        Returns:
            the recipe, and what was changed in words for the user; the default changes nothing and says "".
        """
        return recipe, ""

    def data_options(self, recipe: Recipe) -> dict[str, Any]:
        """What `dataset` must know of a recipe, such as the length of its windows."""
        return {}

    def adapt(self, recipe: Recipe, dataset: Dataset) -> Recipe:
        """The recipe fitted to a dataset before training; the default takes its conditions, see `Condition.among`."""
        own = recipe.conditions
        conditions = {k: own[k].among(c) if k in own else c for k, c in dataset.conditions().items()}
        conditions |= {k: c for k, c in own.items() if c.derived and k not in conditions}
        return recipe if conditions == recipe.conditions else recipe.model_copy(update={"conditions": conditions})

    def codec(self, options: Mapping[str, Any]) -> Codec:
        """The codec of objects by a recipe's options; unknown or invalid ones are a ConfigError.

        The option `kind` names one of `codec_kinds`, where the domain has any. A first stage among them (`stage`) belongs to
        models, which put it around this codec: `zoo.model.first_stage`.
        """
        codecs, options = self.codecs, {k: v for k, v in options.items() if k != "stage"}
        if self.codec_kinds and "kind" in options:
            kind = options.pop("kind")
            if not isinstance(kind, str) or kind not in self.codec_kinds:
                raise one_of(f"{self.name} codec kind", kind, self.codec_kinds)
            codecs = self.codec_kinds[kind]
        if codecs is None:
            raise ConfigError(f"the domain {self.name!r} builds no codec: give yours, codec=YourCodec(...).")
        known_arguments(codecs, options, f"{self.name} codec option")
        try:
            return codecs(**options)
        except TypeError as error:
            raise ConfigError(f"{self.name} codec: {error}.") from error

    def codec_options(self, codec: Codec) -> dict[str, Any] | None:
        """The options of a recipe that build such a codec here; None for a codec of another kind."""
        if type(codec) is self.codecs:
            return dict(codec.options)
        named = [kind for kind, found in self.codec_kinds.items() if found is type(codec)]
        return {"kind": named[0], **codec.options} if named else None

    def augment(self, options: Mapping[str, Any]) -> Augment:
        """The augmentations of a recipe; unknown or invalid ones are a ConfigError."""
        return augment_of(self.augmentations, options, self.name)

    def denoiser(self, recipe: Recipe, shape: tuple[int, ...]) -> nn.Module:
        """The recipe's denoiser of encoded samples of `shape`: one of the domain's, or of `DENOISERS`.

        Its class is built with `shape`, `conditions` {name: condition} and the recipe's `net` options; where the diffusion has
        a learned variance also with `learned_variance=True`, which says that it has a second output.
        """
        known = self.denoisers
        if recipe.denoiser not in known and recipe.denoiser in DENOISERS:
            known = DENOISERS
        if recipe.denoiser not in known:
            raise one_of(f"{self.name} denoiser", recipe.denoiser, [*self.denoisers, *DENOISERS])
        own = {"shape", "conditions", "learned_variance"}
        known_arguments(known[recipe.denoiser], recipe.net, f"{recipe.denoiser} option", own)
        given: dict[str, Any] = {"shape": shape, "conditions": recipe.conditions}
        if recipe.diffusion.learned_variance:
            if "learned_variance" not in inspect.signature(known[recipe.denoiser]).parameters:
                raise ConfigError(
                    f"diffusion.learned_variance: the denoiser {recipe.denoiser!r} of the domain {self.name!r} has no second "
                    "output. Take one that has (unet or transformer of pictures and sounds), or leave it out."
                )
            given["learned_variance"] = True
        try:
            return known[recipe.denoiser](**given, **recipe.net)
        except TypeError as error:
            # options that a class hands on to what it is made of are known to nobody but Python
            odd = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if odd is not None and odd[1] in recipe.net:
                used = [k for k in recipe.net if k != odd[1]]
                raise one_of(f"{recipe.denoiser} option", odd[1], used, listed="Options in use") from error
            raise ConfigError(f"denoiser {recipe.denoiser!r} of the domain {self.name!r}: {error}.") from error

    def widths(self, recipe: Recipe) -> dict[str, int]:
        """{option of the recipe's denoiser: its value} of those that say how wide it is; {} where its class names none.

        A class names them, with their defaults, in its attribute `widths`: a short run may halve them together.
        """
        kind = self.denoisers.get(recipe.denoiser) or DENOISERS.get(recipe.denoiser)
        named: Mapping[str, int] = getattr(kind, "widths", {})
        return {name: recipe.net.get(name, default) for name, default in named.items()}

    def hold(self, model: Generator, known: Any, where: Any, arguments: Mapping[str, Any], **options: Any) -> Held:
        """What `model.inpaint` holds.

        Args:
            known: a domain object, or an encoded tensor (*S).
            where: bool, broadcast to the encoded shape (*S), True where the object is kept. Of an object of a latent model it
                is broadcast to the shape of what its codec encodes: pixels, not cells of latents.
            arguments: those for `model.sample`, to look at.
            **options: those of `inpaint_options` that were given.

        Raises:
            ConfigError, ShapeError: something missing, or a mask that does not fit.
        """
        if known is None or where is None:
            raise ConfigError("inpaint: give `known`, an object of the domain, and `where`, True where it is kept.")
        if model.codec.inner is not model.codec and not model.is_encoded(known):
            return self._hold_lifted(model, known, where)
        x0, mask = model.encoded(known), mask_of(where)
        if not broadcasts(mask.shape, x0.shape):
            raise ShapeError(f"where {tuple(mask.shape)} does not broadcast to {tuple(x0.shape)}.")
        mask = mask.to(x0.device)
        size = None if model.codec.size_name is None else model.codec.size_of(x0)
        return Held(hold(model.codec.held(x0, mask), mask), size)

    def _hold_lifted(self, model: Generator, known: Any, where: Any) -> Held:
        """What is held of an object of a latent model: the latents that it says all of, and at the end what it says itself."""
        x, mask = model.objects_encoded(known), mask_of(where)
        if not broadcasts(mask.shape, x.shape):
            raise ShapeError(f"where {tuple(mask.shape)} does not broadcast to {tuple(x.shape)}.")
        mask = mask.to(x.device).expand_as(x)
        x0, cells = model.codec.lift_known(x, mask)
        if bool(mask.any()) and not bool(cells.any()):
            warnings.warn(
                "inpaint: no cell of the latents lies within the known part as a whole, so that the samples do not follow it: "
                "it is only laid over them. Give a larger known part, or use a model without a first stage.",
                stacklevel=5,
            )
        return Held(hold(x0, cells), put_back=lambda samples: torch.where(mask, x.to(samples), samples))

    def example_data(self, recipe: Recipe, n: int = 8) -> Dataset:
        """n made-up objects with conditions, for tests and dry runs; the default decodes noise.

        Objects that have sizes of their own come in two sizes, so that a batch of them has padding. A codec that decodes
        nothing before it was fitted needs another way: see the policies.
        """
        codec, rng = self.codec(recipe.codec), seeds.generator(n)
        x0 = torch.randn(n, *codec.shape, generator=rng).clamp(-1, 1)
        if codec.size_name is None:
            objects = codec.decode(codec.project(x0), {})
        else:
            usual, objects = codec.shape[codec.size_axis], []
            for i in range(n):
                size = usual if i % 2 == 0 else max(1, 3 * usual // 4)
                own = x0[i : i + 1].narrow(1 + codec.size_axis, 0, size)
                objects += codec.decode(codec.project(own), {})
        given = {k: c.example(n, rng) for k, c in recipe.conditions.items()}
        items = [(item, {k: v[i] for k, v in given.items()}) for i, item in enumerate(objects)]
        return Items(items, conditions=recipe.conditions, origin=f"{n} made-up objects")


@dataclass
class OwnDomain(Domain):
    """The domain of models that a program puts together from parts of its own, see `zoo.Model.of`.

    Attributes:
        suffix: of saved samples, for those that have `save`.
    """

    name: str = "own"
    suffix: str = ".npz"
    denoisers: Mapping[str, Callable[..., nn.Module]] = field(default_factory=dict)

    def recipes(self) -> Mapping[str, Recipe]:
        return {}

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        raise ConfigError("a model of your own parts has no reader of files: give a Dataset, e.g. zoo.fit(model, dataset).")

    def plot(self, samples: Samples) -> Any:
        """The samples' own pictures, side by side."""
        from PIL import Image

        pictures = [sample.plot() for sample in samples]
        sheet = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), "white")
        left = 0
        for picture in pictures:
            sheet.paste(picture, (left, 0))
            left += picture.width
        return sheet

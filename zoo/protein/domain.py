"""The protein plug-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.contract.dataset import Dataset
from zoo.contract.domain import Domain, Generator, Held
from zoo.contract.page import Question, Scene, View
from zoo.contract.recipe import Recipe
from zoo.contract.samples import Samples
from zoo.errors import ConfigError
from zoo.figure import grid, to_picture
from zoo.protein.angles import AngleCodec
from zoo.protein.augment import BackboneAugment
from zoo.protein.backbone import Backbone
from zoo.protein.codec import BackboneCodec
from zoo.protein.copies import symmetry
from zoo.protein.data import CHAINS_FILE, SUFFIXES, open_chains, read_chains
from zoo.protein.denoiser import BackboneNet
from zoo.protein.evaluate import LIMITS, evaluator
from zoo.protein.motif import read_motif, scaffold, told
from zoo.protein.recipes import RECIPES
from zoo.protein.trace import TraceCodec, lacking
from zoo.protein.wishes import STEERS

#: chains on one picture
SHOWN = 40
#: the kind of codec whose chains are CA alone
TRACE = "trace"


class ProteinDomain(Domain):
    """Protein backbones."""

    name = "protein"
    suffix = ".pdb"
    reads = tuple(s for s in SUFFIXES if s != ".gz")
    archives = (CHAINS_FILE,)
    hub_tags = ("biology",)
    inpaint_options = ("motif", "start", "gaps", "pose")
    measured = 200
    denoisers = {"residues": BackboneNet}
    codecs = BackboneCodec
    codec_kinds = {"atoms": BackboneCodec, "angles": AngleCodec, TRACE: TraceCodec}
    augmentations = BackboneAugment
    steers = {"symmetry": symmetry, **STEERS}
    views = (Scene,)
    opens = tuple(s for s in SUFFIXES if s != ".gz")

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_chains(source, split, **options)

    def read(self, path: str | Path, recipe: Recipe) -> Any:
        """The first chain of a file whose length the model takes; "1abc.pdb:A20-85" says which residues, as of a motif."""
        text = str(path)
        if ":" in Path(text).name:  # residues that are whole; CA of them, where a model takes no more
            return read_motif(text)
        return read_chains(text, **self.data_options(recipe))[0][0]

    def data_options(self, recipe: Recipe) -> dict[str, Any]:
        own = {k: recipe.codec[k] for k in LIMITS if k in recipe.codec}
        return own | ({"trace": True} if recipe.codec.get("kind") == TRACE else {})

    def plot(self, samples: Samples) -> Any:
        shown = list(samples)[:SHOWN]
        figure, axes = grid(len(shown), 2.6, "protein")
        for ax, chain in zip(axes, shown, strict=True):
            chain.plot(ax)
        return to_picture(figure)

    def hold(  # type: ignore[override]  # the options are those of `inpaint_options`
        self,
        model: Generator,
        known: Any,
        where: Any,
        arguments: Mapping[str, Any],
        *,
        motif: Backbone | str | Sequence[Backbone | str] | None = None,
        start: int | Sequence[int] | None = None,
        gaps: Sequence[Any] | None = None,
        pose: str = "fixed",
    ) -> Held:
        """What chains around a motif hold, or with `known` and `where` what those of other domains do.

        Args:
            motif: residues of a file, "1abc.pdb:A20-35", or a `Backbone`; or a list of such pieces.
            start, gaps, pose: where the pieces lie, see `zoo.protein.motif.scaffold`; default: in the middle, evenly apart.
            arguments: their `length` is needed; their `seed` draws what `gaps` leaves open.

        Raises:
            ConfigError: no length, or a motif that does not fit into it. DataError: a motif that cannot be read.
        """
        if motif is None:
            if known is None or where is None:
                raise ConfigError('inpaint: give motif="file.pdb:A20-35" and a length, or known and where.')
            if start is not None or gaps is not None:
                raise ConfigError("inpaint: start and gaps say where a motif lies: give motif=, too.")
            return super().hold(model, known, where, arguments)
        return Held(scaffold(model, motif, arguments.get("length"), start, gaps, pose, arguments.get("seed")))

    def view(self, samples: Samples) -> tuple[View, ...]:
        return (Scene(samples[0].ca, samples[0].colours(), line=True),)

    def edits(self, recipe: Recipe) -> dict[str, Question]:
        if recipe.codec.get("kind") == TRACE:
            return {}
        longest = int(recipe.codec.get("max_length", 128))
        numbers = {
            "first": ("Motif from residue", 1, longest, 10),
            "last": ("to residue", 1, longest, 25),
            "length": ("Length of the new chain", 2, longest, min(64, longest)),
            "start": ("Number of the motif's first residue in it", 1, longest, 20),
        }
        return {k: Question("number", label, low=a, high=b, value=v) for k, (label, a, b, v) in numbers.items()}

    def chosen(self, samples: Samples, answers: Mapping[str, Any]) -> tuple[View, ...]:
        """The chain with the motif in green."""
        chain = samples[0]
        if not isinstance(chain, Backbone):
            return self.view(samples)
        motif = told(_motif(chain, answers), int(answers["first"]) - 1)
        return (Scene(chain.ca, chain.marked([motif]), line=True),)

    def edited(self, model: Generator, item: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
        """Residues `first` to `last` of a chain, counted from 1, stay as a motif within a new chain."""
        if isinstance(model.codec, TraceCodec):
            raise lacking("motif")
        return {"motif": _motif(item, answers)} | {k: int(answers[k]) for k in ("length", "start")}

    def showcase(self, model: Generator, folder: Path) -> None:
        model.sample(SHOWN, seed=0).plot(folder / "samples.png")

    def evaluator(
        self,
        data: str | Path | None = None,
        split: str = "test",
        model: Generator | None = None,
        skip_unreadable: bool = False,
    ) -> Any:
        return evaluator(data, split, model, skip_unreadable)


def _motif(chain: Backbone, answers: Mapping[str, Any]) -> Backbone:
    """Residues `first` to `last` of a chain, counted from 1.

    Raises:
        ConfigError: the chain has no such residues.
    """
    first, last = (int(answers[k]) for k in ("first", "last"))
    if not 1 <= first <= last <= len(chain):
        raise ConfigError(f"a motif of residues {first} to {last}: the chain has 1 to {len(chain)}.")
    return Backbone(chain.atoms[first - 1 : last], "motif")


DOMAIN = ProteinDomain()

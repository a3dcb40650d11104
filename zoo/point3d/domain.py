"""The point3d plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.contract.dataset import Dataset
from zoo.contract.domain import Domain, Generator, Held
from zoo.contract.page import Question, Scene, View
from zoo.contract.recipe import Recipe
from zoo.contract.samples import Samples
from zoo.core.steer import mask_of
from zoo.errors import ConfigError, DataError, ShapeError, one_of
from zoo.point3d.augment import PointAugment
from zoo.point3d.cloud import contact_sheet
from zoo.point3d.codec import FEWEST, PointCodec
from zoo.point3d.data import AIRPLANES, FURNITURE, MESHES, POINTS, open_clouds, read_shape
from zoo.point3d.denoiser import PointLatents
from zoo.point3d.recipes import RECIPES
from zoo.point3d.steers import box, depth_view, mirror
from zoo.values import whole

#: who made the packaged models' training shapes (benchmarks/point_attribution.py)
ATTRIBUTION = Path(__file__).with_name("ATTRIBUTION.md")
#: clouds on one picture; more would be too small to see
SHOWN = 60
#: the half of a cloud that a page takes away: axis and sign
HALVES = {"left": (0, -1), "right": (0, 1), "lower": (1, -1), "upper": (1, 1), "back": (2, -1), "front": (2, 1)}
#: colours of points that stay, and of those that are made anew
STAYS, GOES = "#1f77b4", "#dddddd"


class Point3dDomain(Domain):
    """Point clouds."""

    name = "point3d"
    suffix = ".ply"
    reads = (*MESHES, *POINTS)
    archives = (FURNITURE, AIRPLANES)
    hub_tags = ("point-cloud", "3d")
    inpaint_options = ("keep",)
    measured = 300
    denoisers = {"latents": PointLatents}
    codecs = PointCodec
    augmentations = PointAugment
    steers = {"depth_view": depth_view, "box": box, "mirror": mirror}
    views = (Scene,)
    opens = (*MESHES, *POINTS)

    def recipes(self) -> Mapping[str, Recipe]:
        return RECIPES

    def hold(  # type: ignore[override]  # the options are those of `inpaint_options`
        self, model: Generator, known: Any, where: Any, arguments: Mapping[str, Any], *, keep: Any = None
    ) -> Held:
        """What completions of a cloud hold: points that are kept come first to last as they are, others are made anew.

        Args:
            known: a PointCloud in the model's frame (a unit sphere, y up), or encoded points (N, 3).
            where: as for other domains; `keep` says the same in one word a point.
            arguments: `n_points` of them says how many points each sample has, at least N; default: N, or with nothing to
                remake the usual number.
            keep: (N,) bool, True for points to keep; default: all of them, so that only further ones are made.

        Raises:
            ShapeError: a mask that does not fit.
            ConfigError: both masks, or nothing left to make.
            DataError: fewer points are kept than a model needs to see a shape (64).
        """
        if known is None:
            raise ConfigError("inpaint: give `known`, a cloud, and `keep`, True for each point that stays.")
        x0 = model.encoded(known)
        if where is not None:
            if keep is not None:
                raise ConfigError("where and keep are two forms of one mask: give one of them.")
            return super().hold(model, x0, where, arguments)
        kept = torch.ones(len(x0), dtype=torch.bool) if keep is None else mask_of(keep, "keep")
        if kept.shape != (len(x0),):
            raise ShapeError(f"keep {tuple(kept.shape)} must be ({len(x0)},) bool, one for each point.")
        if kept.sum() < FEWEST:
            raise DataError(f"{int(kept.sum())} points are kept; at least {FEWEST} tell a shape.")
        usual = max(len(x0), model.codec.shape[0]) if keep is None else len(x0)
        asked = arguments.get("n_points")
        total = usual if asked is None else whole(asked, "n_points", 1)
        if total < len(x0) or kept.sum() == total:
            raise ConfigError(f"n_points={total} for a cloud of {len(x0)} with {int(kept.sum())} kept leaves nothing to make.")
        missing = total - len(x0)
        padded = torch.nn.functional.pad(x0, (0, 0, 0, missing))
        return super().hold(model, padded, torch.nn.functional.pad(kept, (0, missing))[:, None], arguments)

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Dataset:
        return open_clouds(source, split, **options)

    def read(self, path: str | Path, recipe: Recipe) -> Any:
        """A cloud, or points drawn of a mesh, in the models' unit sphere, with as many points as their samples have."""
        codec: Any = self.codec(recipe.codec)
        return read_shape(path, codec.shape[0])

    def traits(self, item: Any) -> dict[str, float | str]:
        """How many points a cloud has, or were drawn of a mesh."""
        return {"points": len(item)}

    def plot(self, samples: Samples) -> Any:
        """Three views of each cloud with its conditions; the first 60 of more."""
        shown = samples[:SHOWN]
        return contact_sheet(shown, [" ".join(samples.words(i)) for i in range(len(shown))])

    def view(self, samples: Samples) -> tuple[View, ...]:
        return (Scene(samples[0].points),)

    def edits(self, recipe: Recipe) -> dict[str, Question]:
        return {"half": Question("choice", "Half that is made anew", choices=tuple(HALVES), value="right")}

    def chosen(self, samples: Samples, answers: Mapping[str, Any]) -> tuple[View, ...]:
        """The cloud with the points that stay dark, and those that are made anew light."""
        cloud = samples[0]
        stays = _other_half(cloud, answers)
        return (Scene(cloud.points, [STAYS if kept else GOES for kept in stays]),)

    def edited(self, model: Generator, item: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
        """The points of the other half stay, those of this one are made anew."""
        return {"known": item, "keep": _other_half(item, answers)}

    def showcase(self, model: Generator, folder: Path) -> None:
        """Five of each category, and who made the shapes that the model was trained on, which their licences ask for."""
        label = [v for v in model.recipe.classes("label") for _ in range(5)]
        model.sample(len(label), seed=0, label=label).plot(folder / "samples.png")
        (folder / ATTRIBUTION.name).write_bytes(ATTRIBUTION.read_bytes())

    def sight(self, recipe: Recipe, dataset: Dataset | None = None) -> Any:
        from zoo.point3d.sight import PointSight

        return PointSight()

    def evaluator(
        self,
        data: str | Path | None = None,
        split: str = "test",
        model: Generator | None = None,
        judge: str | Path | None = None,
        skip_unreadable: bool = False,
    ) -> Any:
        from zoo.point3d.evaluate import evaluator

        return evaluator(data, split, model, judge, skip_unreadable)


def _other_half(cloud: Any, answers: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Which points of a cloud are not in the half that is made anew.

    Raises:
        ConfigError: no such half.
    """
    half = answers.get("half")
    if half not in HALVES:
        raise one_of("half", half, HALVES)
    axis, sign = HALVES[half]
    found: NDArray[np.bool_] = cloud.points[:, axis] * sign <= 0
    return found


DOMAIN = Point3dDomain()

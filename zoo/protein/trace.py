"""Chains of CA alone: files, pictures, what they are like, and the codec between them and encoded samples (N,3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.core.likelihood import Units
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.figure import check_axis, new_figure, to_picture, turning_line
from zoo.protein.backbone import Backbone, check_saved, draw_line, need, write_residues
from zoo.protein.lengths import LengthsCodec
from zoo.protein.metrics import SHORTEST as MEASURED
from zoo.protein.metrics import measure_ca
from zoo.protein.rigid import random_rotation

#: matplotlib's colours of a chain from its first residue to its last
COLOURS = "coolwarm"


def lacking(what: str) -> ConfigError:
    """The refusal of what CA alone do not say."""
    return ConfigError(
        f"{what}: a CA trace has no N and no C, by which hydrogen bonds, torsions and motifs are known. Build its other atoms "
        "by another program and read the file as a backbone, or take a model of backbones."
    )


class Trace:
    """One chain of CA alone.

    Args:
        ca: (N, 3) float, angstrom: CA of each residue. They are kept at the 3 decimals that files have.
        name: where it is from.
        remark: what its file is to say of it.

    Raises:
        ShapeError, DataError: another shape, or NaN or infinity.
    """

    def __init__(self, ca: NDArray[Any], name: str = "", remark: str = "") -> None:
        ca = np.asarray(ca)
        if ca.ndim != 2 or ca.shape[1] != 3 or not len(ca):
            raise ShapeError(f"a CA trace is (residues, 3), got {ca.shape}.")
        if not np.isfinite(ca).all():
            raise DataError(f"{name or 'a CA trace'} holds NaN or infinity.")
        self.ca, self.name, self.remark = ca.astype(np.float64).round(3).astype(np.float32), name, remark

    def __len__(self) -> int:
        return len(self.ca)

    def __repr__(self) -> str:
        return f"Trace({self.name or 'sample'}, {len(self)} residues)"

    def numpy(self) -> NDArray[np.float32]:
        """(N, 3), angstrom."""
        return self.ca

    @property
    def atoms(self) -> NoReturn:
        """Refused: N and C are not known.

        Raises:
            ConfigError: always.
        """
        raise lacking("atoms")

    def measures(self) -> dict[str, float]:
        """What it is like, see `zoo.protein.metrics.measure_ca`: steps and clashes of CA, turns, radius, contact order."""
        return measure_ca(self.ca)

    def save(self, path: str | Path) -> Path:
        """Write PDB (.pdb, .ent) or mmCIF (.cif): CA of glycines of a chain A, numbered from 1, measures as remarks.

        Raises:
            DataError: another suffix, or what PDB files have no columns for.
        """
        path = Path(path)
        check_saved(path, self.ca, "a CA trace")
        found = self.measures() if len(self) >= MEASURED else {}
        lines = ["CA only; glycine stands for any residue", *([self.remark] if self.remark else [])]
        write_residues(path, self.ca[:, None], ("CA",), lines + [f"{k} {v:.4f}" for k, v in found.items()])
        return path

    def colours(self) -> list[str]:
        """The colour of each step (N - 1): from blue at the first residue to red at the last."""
        shades, rgb = need("matplotlib").colormaps[COLOURS], need("matplotlib.colors").to_hex
        return [rgb(shades(i / max(len(self) - 2, 1))) for i in range(len(self) - 1)]

    def plot(self, ax: Any = None) -> Any:
        """The trace, seen along the axis of least extent, from blue to red; returns the picture."""
        own = ax is None
        check_axis(ax)
        ax = new_figure(4, 4, "protein").subplots() if own else ax
        draw_line(ax, self.ca, self.colours())
        return to_picture(ax.figure) if own else ax

    def _repr_html_(self) -> str:
        return turning_line(self.ca, self.colours())

    def structure(self) -> NoReturn:
        """Refused: secondary structure is that of hydrogen bonds.

        Raises:
            ConfigError: always.
        """
        raise lacking("structure")

    def idealised(self) -> NoReturn:
        """Refused: bonds and angles are those of N, CA and C.

        Raises:
            ConfigError: always.
        """
        raise lacking("idealised")

    def ramachandran(self, ax: Any = None) -> NoReturn:
        """Refused: phi and psi are torsions of N, CA and C.

        Raises:
            ConfigError: always.
        """
        raise lacking("ramachandran")


class TraceCodec(LengthsCodec):
    """Chains as coordinates of CA around their mean, in angstrom (Lin & AlQuraishi 2023, "Genie").

    What is encoded is a `Trace`, or CA of a `Backbone`; what is decoded is a `Trace`.

    Args:
        min_length, max_length, usual: as of `LengthsCodec`.
    """

    axes = ("residue", "coordinate")

    def __init__(self, min_length: int = 32, max_length: int = 128, usual: tuple[int, int] | None = None) -> None:
        super().__init__(min_length, max_length, usual, (3,))

    def fit(self, dataset: Dataset) -> None:
        self.count([dataset[i][0] for i in range(len(dataset))])

    def continued(self, before: Codec) -> list[str]:
        """Nothing: how many chains have each length is about the data, and coordinates are not scaled."""
        return []

    def encode(self, item: Trace | Backbone, rng: torch.Generator | None = None) -> Tensor:
        """CA of a chain -> (N,3); with a generator in a random orientation, never mirrored."""
        x = torch.from_numpy(item.ca).float()
        if rng is not None:
            x = x @ random_rotation(rng)
        return self.project(x[None])[0]

    def in_units(self, x0: Tensor) -> Tensor:
        """Coordinates (B,N,3) of CA in angstrom."""
        return x0

    def decode(self, x0: Tensor, cond: Mapping[str, Any]) -> list[Trace]:
        return [Trace(x) for x in x0.detach().float().cpu().numpy()]

    def density_units(self, x0: Tensor) -> Units:
        """Angstrom, of CA around their mean."""
        return Units("angstrom", 0.0)

    def free(self, x0: Tensor) -> int:
        return x0.numel() - x0.shape[-1]  # the mean is always 0

    def project(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return x - x.mean(1, keepdim=True)
        keep = mask[:, :, None]
        x = torch.where(keep, x, 0)
        return torch.where(keep, x - x.sum(1, keepdim=True) / keep.sum(1, keepdim=True).clamp(min=1), 0)

    def stack(self, items: Sequence[Any], rng: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """As other codecs, but always with a mask: sums under a mask and plain means differ in the last digit."""
        x0, mask = super().stack(items, rng)
        return x0, torch.ones(x0.shape[:2], dtype=torch.bool) if mask is None else mask

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
from zoo.protein.codec import SHORTEST, asked_length
from zoo.protein.metrics import SHORTEST as MEASURED
from zoo.protein.metrics import measure_ca
from zoo.protein.rigid import random_rotation
from zoo.values import several, whole

#: the longest chain that is known of
LONGEST = 4096
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


class TraceCodec(Codec):
    """Chains as coordinates of CA around their mean, in angstrom (Lin & AlQuraishi 2023, "Genie").

    What is encoded is a `Trace`, or CA of a `Backbone`; what is decoded is a `Trace`.

    Args:
        min_length, max_length: the lengths that are trained on. Longer chains are refused, shorter ones are sampled with a
            warning.
        usual: (low, high) the lengths between which one is drawn where nobody says it; default: all that are trained on.

    Attributes:
        lengths: (max_length + 1,) int64, how many training chains have each length.
    """

    axes = ("residue", "coordinate")
    size_name = "length"
    lengths: Tensor

    def __init__(self, min_length: int = 32, max_length: int = 128, usual: tuple[int, int] | None = None) -> None:
        super().__init__()
        ends = several(usual) if usual is not None else [min_length, max_length]
        if ends is None or len(ends) != 2:
            raise ConfigError(f"protein codec: usual={usual!r}; give the least and the largest usual length.")
        low, high, first, last = (whole(v, "length") for v in (min_length, max_length, *ends))
        if not 1 <= low <= high <= LONGEST or not low <= first <= last <= high or high < SHORTEST:
            raise ConfigError(
                f"protein codec: lengths {low} to {high}, usually {first} to {last}; give 1 <= min <= max <= {LONGEST}, the "
                f"usual ones within them, and a max of {SHORTEST} or more."
            )
        self.min_length, self.max_length, self.usual = low, high, (max(first, SHORTEST), max(last, SHORTEST))
        self.shape = (min(max(64, self.usual[0]), self.usual[1]), 3)
        self.register_buffer("lengths", torch.zeros(high + 1, dtype=torch.int64))

    def sample_size(self, value: int | None, rng: torch.Generator) -> int:
        """The length asked for, or one drawn as those of the training chains are; before `fit` any usual one."""
        if value is None:
            if self.lengths.any():
                return int(torch.multinomial(self.lengths.cpu().double(), 1, generator=rng))
            return int(torch.randint(self.usual[0], self.usual[1] + 1, (), generator=rng))
        return asked_length(value, self.max_length, self.min_length, self.max_length)

    def fit(self, dataset: Dataset) -> None:
        sizes = [len(dataset[i][0]) for i in range(len(dataset))]
        if odd := [n for n in sizes if n > self.max_length]:
            raise ConfigError(f"a chain of {odd[0]} residues: this codec takes up to {self.max_length}. Set codec.max_length.")
        self.lengths.copy_(torch.bincount(torch.tensor(sizes), minlength=self.max_length + 1))

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

"""One chain's backbone: files, pictures, and what it is like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.errors import DataError, ShapeError
from zoo.figure import new_figure, to_picture
from zoo.protein.geometry import place_oxygen, secondary_structure

#: colours of coil, helix and strand
COLOURS = ("0.6", "tab:red", "tab:blue")


class Backbone:
    """The backbone of one chain.

    Args:
        atoms: (N, 3, 3) float, angstrom: N, CA and C of each residue. They are kept at the 3 decimals that files have.
        name: where it is from.
    """

    def __init__(self, atoms: NDArray[Any], name: str = "") -> None:
        atoms = np.asarray(atoms)
        if atoms.ndim != 3 or atoms.shape[1:] != (3, 3) or not len(atoms):
            raise ShapeError(f"a backbone is (residues, 3, 3) for N, CA and C, got {atoms.shape}.")
        if not np.isfinite(atoms).all():
            raise DataError("a backbone holds NaN or infinity.")
        self.atoms, self.name = atoms.astype(np.float64).round(3).astype(np.float32), name

    def __len__(self) -> int:
        return len(self.atoms)

    def __repr__(self) -> str:
        return f"Backbone({self.name or 'sample'}, {len(self)} residues)"

    def numpy(self) -> NDArray[np.float32]:
        """(N, 3, 3), angstrom."""
        return self.atoms

    def structure(self) -> NDArray[np.int64]:
        """Secondary structure (N,): 0 coil, 1 helix, 2 strand."""
        return secondary_structure(torch.from_numpy(self.atoms)).numpy()

    def oxygen(self) -> NDArray[np.float32]:
        """(N, 3): O of each residue, placed."""
        return place_oxygen(torch.from_numpy(self.atoms)).numpy()

    def save(self, path: str | Path) -> Path:
        """Write PDB."""
        path = Path(path)
        lines = []
        atoms = np.concatenate([self.atoms, self.oxygen()[:, None]], 1)
        for i, residue in enumerate(atoms):
            for k, name in enumerate(("N", "CA", "C", "O")):
                x, y, z = residue[k]
                lines.append(
                    f"ATOM  {4 * i + k + 1:5d}  {name:3s} GLY A{i + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           {name[0]:1s}"
                )
        path.write_text("\n".join([*lines, "TER", "END", ""]))
        return path

    def plot(self, ax: Any = None) -> Any:
        """The CA trace, seen along the axis of least extent, coloured by secondary structure; returns the picture."""
        own = ax is None
        if ax is None:
            figure = new_figure(4, 4, "protein")
            ax = figure.subplots()
        ca = self.atoms[:, 1] - self.atoms[:, 1].mean(0)
        axes = np.linalg.svd(ca, full_matrices=False)[2]
        axes[2] *= np.sign(np.linalg.det(axes))  # never a mirror image
        ca, kind = ca @ axes.T, self.structure()
        for i in np.argsort(ca[:-1, 2] + ca[1:, 2]):
            k = kind[i] if kind[i] == kind[i + 1] else 0
            ax.plot(ca[i : i + 2, 0], ca[i : i + 2, 1], color="w", lw=5 if k else 3, solid_capstyle="round")
            ax.plot(ca[i : i + 2, 0], ca[i : i + 2, 1], color=COLOURS[k], lw=3.5 if k else 1.8, solid_capstyle="round")
        ax.set_aspect("equal")
        ax.set_axis_off()
        return to_picture(ax.figure) if own else ax

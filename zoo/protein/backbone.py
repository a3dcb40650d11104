"""One chain's backbone: files, pictures, and what it is like."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo import extras
from zoo.disk import dump_json, read_json, write_atomic
from zoo.errors import DataError, ShapeError, ZooError
from zoo.figure import check_axis, new_figure, to_picture, turning_line
from zoo.protein.geometry import idealise, place_oxygen, secondary_structure, torsions
from zoo.protein.metrics import SHORTEST, measure

need = partial(extras.need, extra="protein")
#: colours of coil, helix and strand
COLOURS = ("#999999", "#d62728", "#1f77b4")
#: and of residues that were given, whatever they are
GIVEN = "#2ca02c"
#: suffix -> Biopython's writer
WRITERS = {".pdb": "PDBIO", ".ent": "PDBIO", ".cif": "MMCIFIO"}
#: names of chains
NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Given:
    """Residues of a chain that were given, such as a motif's.

    Attributes:
        first: number of the first of them in the chain, from 1.
        source: where they are from, "1abc.pdb:A20-35".
        labels, names: of each residue there, "A20" and "TRP".
    """

    first: int
    source: str
    labels: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def last(self) -> int:
        """Number of the last of them in the chain."""
        return self.first + len(self.labels) - 1


def is_map(path: Path) -> bool:
    """Whether a file is what `Backbone.map` says of a chain."""
    try:
        found = read_json(path)
    except ZooError:
        return False
    return isinstance(found, dict) and set(found) == {"length", "given"}


def check_saved(path: Path, xyz: NDArray[Any], what: str) -> None:
    """Refuse a file that residues (N, A, 3) in angstrom cannot be written into.

    Raises:
        DataError: another suffix than PDB's and mmCIF's, or what PDB files have no columns for; `what` they are.
    """
    if path.suffix.lower() not in WRITERS:
        raise DataError(f"cannot save {path}: {what} is saved as {', '.join(WRITERS)}.")
    low, high = float(xyz.min()), float(xyz.max())
    if path.suffix.lower() != ".cif" and not (low > -999.9995 and high < 9999.9995 and len(xyz) <= 9999):
        raise DataError(
            f"cannot save {path}: a PDB file has no columns for {len(xyz)} residues at {low:.3f} to {high:.3f} angstrom. "
            "Save it as .cif."
        )


def write_residues(
    path: Path,
    xyz: NDArray[Any],
    atoms: Sequence[str],
    remarks: Sequence[str],
    copies: int = 1,
    given: Mapping[int, str] | None = None,
) -> None:
    """Write residues as chains A, B, C, ..., each numbered from 1, into a PDB or mmCIF file.

    Args:
        xyz: (N, A, 3) in angstrom, of the A `atoms` of each residue.
        remarks: lines of its head.
        copies: how many chains of one length they are, one after the other.
        given: {number from 1: name} of residues with a B-factor of 1; others are glycines with 0.
    """
    names, size = given or {}, len(xyz) // copies
    builder = need("Bio.PDB.StructureBuilder").StructureBuilder()
    builder.init_structure("backbone")
    builder.init_model(0)
    for i, residue in enumerate(xyz):
        if i % size == 0:
            builder.init_chain(NAMES[i // size])
            builder.init_seg("    ")
        builder.init_residue(names.get(i + 1, "GLY"), " ", i % size + 1, " ")
        for k, (atom, place) in enumerate(zip(atoms, residue, strict=True)):
            number = len(atoms) * i + k + 1
            builder.init_atom(atom, place, float(i + 1 in names), 1.0, " ", f" {atom:3}", number, atom[0])
    writer = getattr(need("Bio.PDB"), WRITERS[path.suffix.lower()])()
    writer.set_structure(builder.get_structure())
    text = io.StringIO()
    for line in remarks:
        text.write(f"# {line}\n" if path.suffix.lower() == ".cif" else f"REMARK   6 {line}\n")
    writer.save(text)
    write_atomic(path, text.getvalue().encode())


def draw_line(ax: Any, ca: NDArray[Any], colours: Sequence[str], ends: Collection[int] = ()) -> None:
    """Draw a line through CA (N, 3), seen along the axis of least extent, onto a matplotlib axis.

    Args:
        colours: of each step (N - 1); steps that are not grey are wide.
        ends: steps that are left out, between two chains.
    """
    ca = ca - ca.mean(0)
    axes = np.linalg.svd(ca, full_matrices=True)[2]
    axes[2] *= np.sign(np.linalg.det(axes))  # never a mirror image
    ca = ca @ axes.T
    for i in (k for k in np.argsort(ca[:-1, 2] + ca[1:, 2]) if k not in ends):
        width = 2.0 if colours[i] == COLOURS[0] else 4.0
        for colour, edge in (("white", 1.5), (colours[i], 0.0)):
            ax.plot(*ca[i : i + 2, :2].T, color=colour, lw=width + edge, solid_capstyle="round")
    ax.set_aspect("equal")
    ax.set_axis_off()


class Backbone:
    """The backbone of one chain, or of several copies of one.

    Args:
        atoms: (N, 3, 3) float, angstrom: N, CA and C of each residue. They are kept at the 3 decimals that files have.
        name: where it is from.
        remark: what its file is to say of it.
        copies: how many chains of one length they are, one after the other.
        given: the residues of it that were given, of which files say so.

    Raises:
        ShapeError, DataError: another shape, or NaN or infinity; residues that are not so many copies.
    """

    def __init__(
        self, atoms: NDArray[Any], name: str = "", remark: str = "", copies: int = 1, given: Sequence[Given] = ()
    ) -> None:
        atoms = np.asarray(atoms)
        if atoms.ndim != 3 or atoms.shape[1:] != (3, 3) or not len(atoms):
            raise ShapeError(f"a backbone is (residues, 3, 3) for N, CA and C, got {atoms.shape}.")
        if not np.isfinite(atoms).all():
            raise DataError(f"{name or 'a backbone'} holds NaN or infinity.")
        if not 1 <= copies <= len(NAMES) or len(atoms) % copies:
            raise ShapeError(f"{len(atoms)} residues are not {copies} copies of one length.")
        self.atoms, self.name, self.remark = atoms.astype(np.float64).round(3).astype(np.float32), name, remark
        self.copies, self.given = copies, tuple(given)

    def __len__(self) -> int:
        return len(self.atoms)

    def __repr__(self) -> str:
        return f"Backbone({self.name or 'sample'}, {len(self)} residues)"

    def numpy(self) -> NDArray[np.float32]:
        """(N, 3, 3), angstrom."""
        return self.atoms

    @property
    def ca(self) -> NDArray[np.float32]:
        """CA of each residue (N, 3), angstrom."""
        return self.atoms[:, 1]

    def structure(self) -> NDArray[np.int64]:
        """Secondary structure (N,): 0 coil, 1 helix, 2 strand."""
        return secondary_structure(torch.from_numpy(self.atoms)).numpy()

    def chains(self) -> list[NDArray[np.float32]]:
        """The atoms of each chain (N / copies, 3, 3)."""
        return np.split(self.atoms, self.copies)

    def measures(self) -> dict[str, float]:
        """What it is like, see `zoo.protein.metrics.MEASURES`; of several copies what the first one is."""
        return measure(self.chains()[0])

    def idealised(self) -> Backbone:
        """With ideal bond lengths and angles, see `zoo.protein.geometry.idealise`; its remark says how far atoms moved."""
        x = torch.from_numpy(self.atoms).double()
        y = torch.cat([idealise(chain) for chain in x.chunk(self.copies)])
        moved = float((y - x).square().sum(-1).mean().sqrt())
        remark = f"bonds and angles idealised, atoms moved by {moved:.3f} angstrom (RMS)"
        return Backbone(y.numpy(), self.name, remark, self.copies, self.given)

    def save(self, path: str | Path) -> Path:
        """Write PDB (.pdb, .ent) or mmCIF (.cif): glycines of a chain A, numbered from 1, O placed, measures as remarks.

        Copies are chains A, B, C, ..., each numbered from 1. Residues that were given keep their names and have a B-factor of 1
        where others have 0; remarks say where they are from, and so does a JSON file beside it, residue by residue. The map of
        a chain that is written over goes with it.

        Raises:
            DataError: another suffix, what PDB files have no columns for, or a JSON file of that name that is no such map.
        """
        path = Path(path)
        beside = path.with_suffix(".json")
        if self.given and beside.exists() and not is_map(beside):
            raise DataError(
                f"cannot save {path}: the map of its given residues would be written over {beside.name}, which is another "
                "file. Save it under another name."
            )
        check_saved(path, self.atoms, "a backbone")
        oxygen = np.concatenate([place_oxygen(torch.from_numpy(chain)).numpy() for chain in self.chains()])
        write_residues(
            path,
            np.concatenate([self.atoms, oxygen[:, None]], 1),
            ("N", "CA", "C", "O"),
            self._remarks(),
            copies=self.copies,
            given=self._names(path.suffix.lower() == ".cif"),
        )
        if self.given:
            write_atomic(beside, dump_json(self.map()))
        elif beside.is_file() and is_map(beside):
            beside.unlink()
        return path

    def _names(self, long: bool) -> dict[int, str]:
        """{number from 1: name} of residues that were given; a PDB file has three columns for it."""
        own = {g.first + k: name for g in self.given for k, name in enumerate(g.names)}
        return {k: name if name and (long or len(name) <= 3) else "UNK" for k, name in own.items()}

    def map(self) -> dict[str, Any]:
        """Where the residues that were given are from, for a JSON file."""
        rows = [
            {
                "source": g.source,
                "residues": [g.first, g.last],
                "map": [
                    {"residue": g.first + k, "from": label, "name": name}
                    for k, (label, name) in enumerate(zip(g.labels, g.names, strict=True))
                ],
            }
            for g in self.given
        ]
        return {"length": len(self), "given": rows}

    def _remarks(self) -> list[str]:
        found = self.measures() if len(self) // self.copies >= SHORTEST else {}
        lines = ["backbone only, O placed; glycine stands for any residue", *([self.remark] if self.remark else [])]
        lines += [f"given: {g.first}-{g.last} from {g.source}" for g in self.given]
        return lines + [f"{k} {v:.4f}" for k, v in found.items()]

    def plot(self, ax: Any = None) -> Any:
        """The CA trace, seen along the axis of least extent, in its `colours`; returns the picture."""
        own = ax is None
        check_axis(ax)
        ax = new_figure(4, 4, "protein").subplots() if own else ax
        ends = {k * len(self) // self.copies - 1 for k in range(1, self.copies)}
        draw_line(ax, self.ca, self.colours(), ends)
        return to_picture(ax.figure) if own else ax

    def colours(self) -> list[str]:
        """The colour of each step of the CA trace (N - 1): helix red, strand blue, the rest grey.

        Where a part was given, and another was made, the given residues are green.
        """
        rows = {k for g in self.given for k in range(g.first, g.last + 1)}
        return self.marked(()) if len(rows) == len(self) else self.marked(self.given)

    def marked(self, parts: Sequence[Given]) -> list[str]:
        """As `colours`, with the residues of some parts green; of one residue the step to the next."""
        found = [COLOURS[a if a == b else 0] for a, b in pairwise(self.structure())]
        for part in parts:
            for k in range(part.first, max(part.last, part.first + 1)):
                if k <= len(found):
                    found[k - 1] = GIVEN
        return found

    def ramachandran(self, ax: Any = None) -> Any:
        """phi against psi of every inner residue (of the first of several copies), in degrees; returns the picture."""
        own = ax is None
        check_axis(ax)
        ax = new_figure(4, 4, "protein").subplots() if own else ax
        first = self.chains()[0]
        phi, psi = np.degrees(torsions(torch.from_numpy(first))[1:-1, :2].numpy()).T
        ax.scatter(phi, psi, s=8, c=[COLOURS[k] for k in self.structure()[1 : len(first) - 1]])
        ax.set(xlim=(-180, 180), ylim=(-180, 180), xlabel="phi", ylabel="psi", aspect="equal")
        return to_picture(ax.figure) if own else ax

    def _repr_html_(self) -> str:
        return turning_line(self.ca, self.colours())

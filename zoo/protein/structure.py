"""Structure files as chains of residues: PDB and mmCIF, packed or not, as they are found in the wild.

mmCIF is taken apart by Biopython. A PDB file is read by its columns here: Biopython's reader keeps only the first of two
residues with one number, stops at CONECT, and knows neither hybrid-36 numbers nor chains of two letters.
"""

from __future__ import annotations

import codecs
import io
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zoo.data.archive import read_gzip
from zoo.disk import opened
from zoo.errors import DataError
from zoo.protein.backbone import need

#: bytes of the largest file that is read, unpacked
LARGEST = 512 * 2**20
#: the atoms of a backbone, in order
BACKBONE = ("N", "CA", "C")
#: those of a CA trace
ALONE = ("CA",)
#: a bond C-N longer than this, in angstrom, is a gap
GAP = 1.8
#: in a CA trace two CA farther apart than this, in angstrom, are no neighbours: they are 3.8 apart, or 2.9
STEP = 4.5
#: a residue whose own bond N-CA or CA-C is longer than this, in angstrom, is not whole
BOND = 2.0
#: two residues with one number whose CA are closer than this, in angstrom, are alternatives for one place
ONE_PLACE = 2.0
#: numbers that do not fit their columns go on with a letter in front (hybrid-36, cci.lbl.gov/hybrid_36)
UPPER, LOWER = re.compile(r"[A-Z][0-9A-Z]{3}"), re.compile(r"[a-z][0-9a-z]{3}")


#: chain, number and insertion code of a residue
Key = tuple[str, int, str]


class Atom(NamedTuple):
    """One line of a file."""

    key: Key
    residue: str
    hetero: bool
    name: str
    letter: str  # of an alternative location, "" where there is none
    occupancy: float
    xyz: tuple[float, float, float]


@dataclass(frozen=True)
class Residue:
    """A residue that has N, CA and C: what the file calls it, and their coordinates (3, 3) in angstrom; or CA alone (1, 3)."""

    number: int
    code: str
    name: str
    hetero: bool
    atoms: NDArray[np.float64]

    @property
    def label(self) -> str:
        """Number and insertion code, "52A"."""
        return f"{self.number}{self.code}"


@dataclass
class Chain:
    """The residues of one chain in the order of the file.

    Attributes:
        id: as the authors name it; "" where the file leaves it blank.
        residues: those that have the atoms that were asked for.
        trace: whether there are residues with CA but without N or C.
    """

    id: str
    residues: list[Residue] = field(default_factory=list)
    trace: bool = False

    def runs(self) -> Iterator[range]:
        """Unbroken runs of residues, as rows of `residues`: from each C to the next N is a bond, see `bonded`."""
        first = 0
        for i in range(1, len(self.residues) + 1):
            if i == len(self.residues) or not bonded(self.residues[i - 1], self.residues[i]):
                yield range(first, i)
                first = i

    def closed(self, run: range) -> bool:
        """Whether the end of a run is bonded to its start: a cyclic chain."""
        return len(run) > 2 and bonded(self.residues[run[-1]], self.residues[run[0]])

    def name(self, run: range) -> str:
        """How a motif names a run: "A20-35", or by index "A#20-35" where a number comes twice in the chain."""
        first, last = self.residues[run[0]], self.residues[run[-1]]
        labels = [r.label for r in self.residues]
        # where chain and number would run into each other, a slash stands between
        chain = self.id if len(self.id) == 1 and not self.id.isdigit() else f"{self.id}/"
        if labels.count(first.label) == labels.count(last.label) == 1:
            return f"{chain}{first.label}-{last.label}"
        return f"{chain}#{run[0] + 1}-{run[-1] + 1}"


def bonded(first: Residue, second: Residue) -> bool:
    """Whether the C of one residue is bonded to the N of the other; of CA alone, whether they are as near as neighbours are."""
    apart = np.linalg.norm(second.atoms[0] - first.atoms[-1])
    return bool(apart <= STEP if len(first.atoms) == len(ALONE) else apart <= GAP)


def read_structure(path: str | Path, atoms: tuple[str, ...] = BACKBONE) -> list[Chain]:
    """The chains of the first model of a PDB or mmCIF file, packed with gzip or not, whatever its name.

    Any residue with N, CA and C counts, also one with a modified or protonated name (MSE, HSD, CYX). Of alternative residues or
    locations for one place the fullest counts, one and the same for all atoms of a residue. Chains and numbers are the authors'
    ("auth" in mmCIF).

    Args:
        atoms: what a residue must have: `BACKBONE`, or `ALONE`, for CA traces as well.

    Raises:
        DataError: empty, truncated, too large or no structure file; the message names it.
    """
    path = Path(path)
    text = _text(path)
    try:
        found = list(_cif_atoms(text) if _is_cif(text) else _pdb_atoms(text))
        if not found:
            raise DataError(f"it has no atoms{_what_it_is(text)}")
        return _chains(found, atoms)
    except DataError as error:
        raise DataError(f"{path}: no readable structure: {error}") from error
    except Exception as error:  # Biopython raises whatever the broken line led to
        raise DataError(f"{path}: no readable structure ({type(error).__name__}: {error})") from error


# ---------------------------------------------------------------- bytes and text


def _text(path: Path) -> str:
    """The text of a file, unpacked, without byte order mark, lines ended by a newline alone."""
    try:
        with opened(path) as file:
            data = file.read(2)
            packed = data == b"\x1f\x8b"
            data += b"" if packed else file.read(LARGEST)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if packed:
        data = read_gzip(path, LARGEST, "a packed structure")
    if len(data) > LARGEST:
        raise DataError(f"{path}: more than {LARGEST:,} bytes. Give the chains that you need in a file of their own")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:  # remarks in another code page; atoms are plain ASCII
            text = data.decode("latin-1")
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_cif(text: str) -> bool:
    """Whether a text is mmCIF: its first line that is no comment starts a data block."""
    first = next((line for line in text.split("\n", 2000) if line.strip() and not line.startswith("#")), "")
    return first.lower().startswith("data_")


def _what_it_is(text: str) -> str:
    """What a text without atoms is, as far as its start tells."""
    start = text.lstrip()[:500].lower()
    if start.startswith("<") and "html" in start:
        return ": it is a web page (HTML). Download the structure itself again"
    if start.startswith("<"):
        return ": it is XML. Give the PDB or mmCIF file"
    return ". Give a PDB file, with its atoms in ATOM and HETATM lines, or an mmCIF file"


# ---------------------------------------------------------------- lines into atoms


def _pdb_atoms(text: str) -> Iterator[Atom]:
    """The atoms of the first model of a PDB file, by its fixed columns (wwPDB format 3.3)."""
    standard, seen = need("Bio.Data.PDBData").protein_letters_3to1, False
    for i, line in enumerate(text.split("\n")):
        if line.startswith(("MODEL ", "ENDMDL")) and seen:
            return
        if not line.startswith(("ATOM", "HETATM")):
            continue
        if len(line) < 54:
            raise DataError(f"line {i + 1} is truncated in the middle of an atom")
        seen = True
        residue, chain = line[17:20].strip(), line[20:22].strip()
        if line[20] != " " and residue not in standard and line[18:21] in standard:  # Amber's names of ends: NALA, CGLU
            residue, chain = line[17:21], line[21].strip()
        try:
            number = _number(line[22:26])
            xyz = _real(line[30:38]), _real(line[38:46]), _real(line[46:54])
            occupancy = _real(line[54:60]) if line[54:60].strip() else 1.0
            if line[:6] not in ("ATOM  ", "HETATM"):
                raise ValueError(f"it starts with {line[:6]!r}")
        except ValueError as error:
            raise DataError(f"line {i + 1} is not an atom in the columns of a PDB file ({error})") from error
        key, name, letter = (chain, number, line[26].strip()), line[12:16].strip(), line[16].strip()
        yield Atom(key, residue, line.startswith("HETATM"), name, letter, occupancy, xyz)


def _real(text: str) -> float:
    """A finite number as files have it; a ValueError for anything else that Python would take."""
    value = float(text)
    if "_" in text or not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def _number(text: str) -> int:
    """A residue number of four columns, in decimal or hybrid-36: after 9999 comes A000, after ZZZZ comes a000."""
    if UPPER.fullmatch(text):
        return int(text, 36) - 10 * 36**3 + 10**4
    if LOWER.fullmatch(text):
        return int(text, 36) + 16 * 36**3 + 10**4
    if "_" in text:  # int() would take it for a separator
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def _cif_atoms(text: str) -> Iterator[Atom]:
    """The atoms of the first model of an mmCIF file."""
    # Biopython reads one block; refinement writes others behind it, of ligands
    blocks = [b for b in re.split(r"(?mi)^(?=data_)", text) if re.search(r"(?m)^_atom_site\.", b)]
    if len(blocks) > 1 or len(re.findall(r"(?m)^_atom_site\.Cartn_x\b", text)) > 1:
        raise DataError("it holds several data blocks with atoms. Give each its own file")
    if not blocks:
        return
    table = need("Bio.PDB.MMCIF2Dict").MMCIF2Dict(io.StringIO(f"data_{blocks[0][5:]}"))
    site = {k.removeprefix("_atom_site."): v for k, v in table.items() if k.startswith("_atom_site.")}
    if not site:
        return
    lengths = {len(v) for v in site.values()}
    if len(lengths) > 1:
        raise DataError(f"it is truncated: the columns of its atoms have {min(lengths)} to {max(lengths)} rows")
    rows = lengths.pop()

    def column(*names: str, default: str = ".") -> list[str]:
        """The first of some columns that is there; "." and "?" of it are taken from the next one."""
        found = [site[name] for name in names if name in site]
        if not found:
            return [default] * rows
        return [next((v for v in values if v not in (".", "?")), ".") for values in zip(*found, strict=True)]

    if missing := [name for name in ("Cartn_x", "Cartn_y", "Cartn_z") if name not in site]:
        raise DataError(f"its atoms lack {', '.join(missing)}")
    model = column("pdbx_PDB_model_num")
    columns = zip(
        column("auth_asym_id", "label_asym_id"),
        column("auth_seq_id", "label_seq_id"),
        column("pdbx_PDB_ins_code"),
        column("auth_comp_id", "label_comp_id"),
        column("group_PDB"),
        column("auth_atom_id", "label_atom_id"),
        column("label_alt_id"),
        column("occupancy"),
        zip(site["Cartn_x"], site["Cartn_y"], site["Cartn_z"], strict=True),
        strict=True,
    )
    for i, (chain, number, code, residue, group, name, letter, occupancy, xyz) in enumerate(columns):
        if model[i] != model[0]:
            return
        if number == ".":
            continue  # not part of a polymer, and without a number of the authors
        try:
            place = _real(xyz[0]), _real(xyz[1]), _real(xyz[2])
            share = 1.0 if occupancy == "." else _real(occupancy)
            key = chain.replace(".", ""), int(number), code.replace(".", "")
        except ValueError as error:
            raise DataError(f"row {i + 1} of its atoms is damaged ({error})") from error
        yield Atom(key, residue, group == "HETATM", name, letter.replace(".", ""), share, place)


# ---------------------------------------------------------------- atoms into residues


class _Place:
    """One place in a chain and the atoms of all that may be there: {(residue, alternative location): {atom: Atom}}."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, str], dict[str, Atom]] = {}
        self.others: list[_Place] = []  # written apart from it, with all their atoms

    def takes(self, atom: Atom) -> bool:
        """Whether an atom with this place's number belongs to it: to an alternative, or to a residue that lacks it yet."""
        if atom.letter:
            return atom.name not in self.parts.get((atom.residue, atom.letter), {})
        same, plain = self.parts.get((atom.residue, ""), {}), any(not letter for _, letter in self.parts)
        return atom.name not in same and (bool(same) or not plain)

    def add(self, atom: Atom) -> None:
        self.parts.setdefault((atom.residue, atom.letter), {})[atom.name] = atom

    def forms(self) -> Iterator[dict[str, Atom]]:
        """Each residue that may be here in each of its conformations, with the atoms that all of them share."""
        for residue, letter in self.parts:
            yield self.parts.get((residue, ""), {}) | self.parts[residue, letter]
        for other in self.others:
            yield from other.forms()

    def names(self) -> set[str]:
        return {residue for residue, _ in self.parts}

    def letters(self) -> set[str]:
        return {letter for _, letter in self.parts}

    def atoms(self) -> dict[str, Atom]:
        """One atom of each name."""
        return {name: atom for part in self.parts.values() for name, atom in part.items()}

    def join(self, other: _Place) -> bool:
        """Take another place with the same number, where it is an alternative of this one; returns whether it is."""
        mine, its = self.letters(), other.letters()
        if "" not in its and mine - {""} and not mine & its:  # a file that lists conformation A whole, then B
            self.parts |= other.parts
            return True
        one, two = self.atoms(), other.atoms()
        common = next((name for name in ("CA", *one) if name in one and name in two), None)
        if common is None or math.dist(one[common].xyz, two[common].xyz) > ONE_PLACE:
            return False
        self.others.append(other)
        return True

    def residue(self, atoms: tuple[str, ...]) -> Residue | None:
        """The fullest of the whole forms: by the occupancy of these atoms, the number of all, the order in the file."""
        found, best = None, (-math.inf, 0)
        for form in self.forms():
            if not all(name in form for name in atoms):
                continue
            xyz = np.array([form[name].xyz for name in atoms])
            rank = round(sum(form[name].occupancy for name in atoms), 6), len(form)
            if rank > best and np.linalg.norm(np.diff(xyz, axis=0), axis=1).max(initial=0.0) <= BOND:
                best, ca = rank, form["CA"]
                found = Residue(ca.key[1], ca.key[2], ca.residue, ca.hetero, xyz)
        return found


def _places(atoms: Iterable[Atom]) -> dict[str, list[_Place]]:
    """{chain: its places in the order of the file}.

    Residues of one number are alternatives where they lie in one place and stand side by side, or have other names or letters;
    else each is a residue of its own, so that a chain whose numbers start again keeps all, even where it lies upon itself.
    """
    found: list[tuple[Key, _Place]] = []
    for atom in atoms:
        if not found or found[-1][0] != atom.key or not found[-1][1].takes(atom):
            found.append((atom.key, _Place()))
        found[-1][1].add(atom)
    chains: dict[str, list[_Place]] = {}
    by_key: dict[Key, list[_Place]] = {}
    for key, place in found:
        kept, mates = chains.setdefault(key[0], []), by_key.setdefault(key, [])
        others = [m for m in mates if m is kept[-1] or not m.names() & place.names() or not m.letters() & place.letters()]
        if not any(m.join(place) for m in others):
            kept.append(place)
            mates.append(place)
    return chains


def _chains(atoms: Iterable[Atom], wanted: tuple[str, ...]) -> list[Chain]:
    known = need("Bio.Data.PDBData").protein_letters_3to1_extended
    result = []
    for name, places in _places(atoms).items():
        chain, alone = Chain(name), set()
        for place in places:
            residue = None if place.names() == {"CA"} else place.residue(wanted)  # calcium is no residue
            if residue is None:
                chain.trace |= "CA" in place.atoms() and place.names() != {"CA"}
                continue
            if residue.hetero and residue.name not in known:
                alone.add(len(chain.residues))
            chain.residues.append(residue)
        # a ligand may have atoms N, CA and C as well: what is not bonded to a neighbour is none of the chain's residues
        ligands = {run[0] for run in chain.runs() if len(run) == 1} & alone
        chain.residues = [r for i, r in enumerate(chain.residues) if i not in ligands]
        result.append(chain)
    return result

"""Structure files as they are found in the wild: no residue is lost, and any can be named."""

import gzip
import os
from contextlib import suppress

import gemmi
import numpy as np
import pytest
from chains import atoms_of, changed, put

import zoo
from zoo.errors import ConfigError, DataError
from zoo.protein import structure
from zoo.protein.backbone import Backbone
from zoo.protein.data import read_chains
from zoo.protein.motif import read_motif
from zoo.protein.structure import read_structure


@pytest.fixture
def lines(pdb_lines):
    """The ATOM lines of 40 residues, 4 each."""
    return atoms_of(pdb_lines, range(1, 41))


def number(line):
    return int(line[22:26])


def renumbered(lines, text):
    """Lines whose residue number and insertion code (5 columns) are `text(number)`."""
    return [f"{line[:22]}{text(number(line)):5}{line[27:]}" for line in lines]


def shifted(lines, by):
    return [f"{line[:30]}{float(line[30:38]) + by:8.3f}{line[38:]}" for line in lines]


def occupied(lines, share, letter=" "):
    return [f"{line[:16]}{letter}{line[17:54]}{share:6.2f}{line[60:]}" for line in lines]


def cif(lines, chain="A", **columns):
    """An mmCIF table of PDB lines, with further or other columns: a function of the line, or None to leave one out."""
    base = {
        "group_PDB": lambda a: a[:6].strip(),
        "id": lambda a: a[6:11].strip(),
        "label_atom_id": lambda a: a[12:16].strip(),
        "label_alt_id": lambda a: a[16].strip() or ".",
        "label_comp_id": lambda a: a[17:20],
        "label_asym_id": lambda a: "X",
        "label_seq_id": lambda a: str(number(a)),
        "pdbx_PDB_ins_code": lambda a: a[26].strip() or "?",
        "Cartn_x": lambda a: a[30:38].strip(),
        "Cartn_y": lambda a: a[38:46].strip(),
        "Cartn_z": lambda a: a[46:54].strip(),
        "occupancy": lambda a: a[54:60].strip(),
        "auth_seq_id": lambda a: str(number(a) + 100),
        "auth_asym_id": lambda a: chain,
    } | columns
    base = {k: v for k, v in base.items() if v is not None}
    rows = [" ".join(value(line) for value in base.values()) for line in lines]
    return ["data_x", "#", "loop_", *(f"_atom_site.{k}" for k in base), *rows, "#"]


def one(path, helix, atol=1e-3):
    (chain,), rejected = read_chains(path)
    np.testing.assert_allclose(chain.atoms, helix.atoms, atol=atol)
    assert not rejected
    return chain.name.partition(":")[2]


# ---------------------------------------------------------------- names


NAMES = ["HIE", "HID", "HIP", "HSD", "HSE", "HSP", "CYX", "CYM", "CYS", "ASH", "GLH", "LYN", "UNK", "MSE", "TPO", "XYZ", "  A"]


@pytest.mark.parametrize("record", ["ATOM  ", "HETATM"])
@pytest.mark.parametrize("name", NAMES)
def test_no_name_cuts_a_chain(lines, helix, tmp_path, name, record):
    odd = [f"{record}{a[6:17]}{name}{a[20:]}" if number(a) in (7, 8, 40) else a for a in lines]
    assert one(put(tmp_path / "a.pdb", odd), helix) == "A1-40"


def test_names_of_four_letters_and_chains_of_two(lines, helix, tmp_path):
    amber = [a[:17] + {1: "NALA", 40: "CGLU"}.get(number(a), "GLY ") + a[21:] for a in lines]
    assert one(put(tmp_path / "a.pdb", amber), helix) == "A1-40"
    both = [*changed(lines, 20, "AB"), *shifted(changed(lines, 20, "CB"), 60)]
    assert [c.id for c in read_structure(put(tmp_path / "b.pdb", both))] == ["AB", "CB"]
    assert len(read_motif(f"{tmp_path / 'b.pdb'}:CB20-35")) == 16


def test_ligands_with_a_backbones_atoms_are_none_of_the_chain(lines, helix, tmp_path):
    ligand = [f"HETATM{a[6:17]}SAM A 901{a[26:]}" for a in shifted(lines[:3], 50)]
    calcium = "HETATM  901  CA   CA A 902      99.000  99.000  90.000  1.00  0.00          CA"
    assert one(put(tmp_path / "a.pdb", [*lines, *ligand, calcium]), helix) == "A1-40"


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("end", [[], ["TER"], ["END"], ["END   "], ["CONECT    1    2"]])
def test_numbers_that_start_again_lose_nothing(lines, helix, tmp_path, end):
    path = put(tmp_path / "a.pdb", [*lines, *end, *shifted(lines, 60)])
    found, rejected = read_chains(path)
    assert [(c.name, len(c)) for c in found] == [("a.pdb:A#1-40", 40), ("a.pdb:A#41-80", 40)] and not rejected
    np.testing.assert_allclose(found[1].atoms, helix.atoms + np.array([60, 0, 0]), atol=2e-3)
    with pytest.raises(DataError, match=r"2 such runs.*A#20-35, A#60-75"):
        read_motif(f"{path}:A20-35")
    np.testing.assert_allclose(read_motif(f"{path}:A#60-75").atoms, found[1].atoms[19:35])
    with pytest.raises(DataError, match="unbroken"):
        read_motif(f"{path}:A#35-45")


def test_a_chain_that_lies_upon_itself_stays_two(lines, tmp_path):
    found, _ = read_chains(put(tmp_path / "a.pdb", [*lines, "TER", *shifted(lines, 0.4)]))
    assert [len(c) for c in found] == [40, 40]


def test_residues_that_share_a_number_are_all_kept(lines, helix, tmp_path):
    """Insertion codes that were lost: 20 stands for 20, 21 and 22."""
    path = put(tmp_path / "a.pdb", renumbered(lines, lambda k: f"{k if k < 20 else max(20, k - 2):4d} "))
    assert one(path, helix) == "A1-38"
    assert len(read_motif(f"{path}:A#20-22")) == 3
    with pytest.raises(DataError, match="3 such runs"):
        read_motif(f"{path}:A20-25")


def test_insertion_codes_and_negative_numbers_name_residues(lines, helix, tmp_path):
    path = put(tmp_path / "a.pdb", renumbered(lines, lambda k: f"{k - 10:4d} " if k < 30 else f"  19{'ABCDEFGHIJK'[k - 30]}"))
    assert one(path, helix) == "A-9-19K"
    for text, rows in {"A-3-2": (6, 12), "A18-19": (27, 29), "A19-19C": (28, 32), "A19B-19D": (30, 33)}.items():
        np.testing.assert_allclose(read_motif(f"{path}:{text}").atoms, helix.atoms[slice(*rows)], atol=1e-3)


def test_numbers_that_go_down_are_taken_in_the_order_of_the_file(lines, helix, tmp_path):
    """A circular permutant: 21 to 40, then 1 to 20."""
    path = put(tmp_path / "a.pdb", renumbered(lines, lambda k: f"{k + 20 if k <= 20 else k - 20:4d} "))
    assert one(path, helix) == "A21-20"
    np.testing.assert_allclose(read_motif(f"{path}:A35-5").atoms, helix.atoms[14:25], atol=1e-3)


def test_a_motif_may_go_over_the_end_of_a_cyclic_chain(tmp_path):
    """Residues on a circle, so that the last C is bonded to the first N."""
    turn = np.arange(36) * 2 * np.pi / 36
    radius = 1.4 / (2 * np.sin(np.pi / 36))
    ring = np.stack([radius * np.cos(turn), radius * np.sin(turn), 0 * turn], 1).reshape(12, 3, 3)
    path = Backbone(ring).save(tmp_path / "a.pdb")
    for text in ("A11-2", "A#11-2"):
        np.testing.assert_allclose(read_motif(f"{path}:{text}").atoms, ring[[10, 11, 0, 1]], atol=1e-3)


def test_hybrid_numbers_are_read_as_gemmi_reads_them(lines, helix, tmp_path):
    text = {1: "9999", 2: "A000", 3: "A001", 4: "A00Z", 5: "ZZZZ", 6: "B1C2"}
    path = put(
        tmp_path / "a.pdb", [a[:6] + "A0000" + a[11:] for a in renumbered(lines, lambda k: text.get(k, f"{k:4d}") + " ")]
    )
    one(path, helix)
    theirs = [r.seqid.num for r in gemmi.read_structure(str(path))[0]["A"]]
    assert [r.number for r in read_structure(path)[0].residues] == theirs
    np.testing.assert_allclose(read_motif(f"{path}:A9999-10001").atoms, helix.atoms[:3], atol=1e-3)
    # gemmi has no small letters: after ZZZZ comes a000
    low = {1: "ZZZZ", 2: "a000", 3: "a001", 4: "zzzz"}
    residues = read_structure(put(path, renumbered(lines, lambda k: low.get(k, f"{k:4d}") + " ")))[0].residues
    assert [r.number for r in residues[:4]] == [1223055, 1223056, 1223057, 2436111]


# ---------------------------------------------------------------- alternatives


def test_one_conformation_counts_for_all_atoms_of_a_residue(lines, helix, tmp_path):
    """B is fuller for CA alone; A is it in the sum."""
    mixed = []
    for a in lines:
        if number(a) == 20:
            ca = a[12:16].strip() == "CA"
            mixed += [*occupied([a], 0.4 if ca else 0.6, "A"), *occupied(shifted([a], 1.2), 0.6 if ca else 0.4, "B")]
        else:
            mixed.append(a)
    one(put(tmp_path / "a.pdb", mixed), helix)


@pytest.mark.parametrize("far", [1.0, 9.0])
def test_conformations_may_stand_one_after_the_other(lines, helix, tmp_path, far):
    part = [a for a in lines if 10 <= number(a) <= 15]
    a, b = occupied(shifted(part, far), 0.3, "A"), occupied(part, 0.7, "B")
    one(put(tmp_path / "a.pdb", [*lines[:36], *a, *b, *lines[60:]]), helix)


@pytest.mark.parametrize("letters", ["AB", "  ", " B"])
@pytest.mark.parametrize("order", [1, -1])
def test_of_two_residues_in_one_place_the_fuller_counts(lines, helix, tmp_path, letters, order):
    """Alternatives of other names, in either order, with letters or without."""
    here = [a for a in lines if number(a) == 20]
    other = changed(occupied(shifted(here, 0.8), 0.3, letters[0]), 17, "SER")
    both = [other, occupied(here, 0.7, letters[1])][::order]
    one(put(tmp_path / "a.pdb", [*lines[:76], *both[0], *both[1], *lines[80:]]), helix)
    mixed = [a for pair in zip(*both, strict=True) for a in pair] if letters != "  " else both[0] + both[1]
    one(put(tmp_path / "b.pdb", [*lines[:76], *mixed, *lines[80:]]), helix)


def test_of_equally_full_residues_the_one_with_more_atoms_counts(lines, helix, tmp_path):
    here = [a for a in lines if number(a) == 20]
    poor = changed(shifted(here[:3], 0.8), 17, "SER")
    one(put(tmp_path / "a.pdb", [*lines[:76], *poor, *here, *lines[80:]]), helix)


def test_a_residue_whose_own_bonds_are_broken_ends_a_run(lines, tmp_path):
    far = [f"{a[:30]}{99:8.3f}{a[38:]}" if number(a) == 5 and a[12:16].strip() == "C" else a for a in lines]
    ((chain,), rejected) = read_chains(put(tmp_path / "a.pdb", far))
    assert chain.name == "a.pdb:A6-40" and "A1-4" in rejected[0]


# ---------------------------------------------------------------- bytes


WRAPPED = {
    "bom.pdb": lambda x: b"\xef\xbb\xbf" + x,
    "utf16.pdb": lambda x: x.decode().encode("utf-16"),
    "crlf.pdb": lambda x: x.replace(b"\n", b"\r\n"),
    "cr.pdb": lambda x: x.replace(b"\n", b"\r"),
    "latin.pdb": lambda x: b"REMARK 3 \xc5ngstr\xf6m\n" + x,
    "packed.pdb": gzip.compress,
    "plain.pdb.gz": lambda x: x,
    "PACKED.PDB.GZ": gzip.compress,
    "padded.pdb": lambda x: b"\n".join(line.ljust(80) for line in x.split(b"\n")),
    "short.pdb": lambda x: b"\n".join(line[:54] for line in x.split(b"\n")),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_file_is_known_by_what_it_holds(lines, helix, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(WRAPPED[name]("\n".join([*lines, "TER", "END", ""]).encode()))
    assert one(path, helix) == "A1-40"


def test_mmcif_under_the_name_of_a_pdb_and_the_reverse(lines, helix, tmp_path):
    assert one(put(tmp_path / "a.pdb", cif(lines)), helix) == "A101-140"
    assert one(put(tmp_path / "b.cif", lines), helix) == "A1-40"


# ---------------------------------------------------------------- mmCIF


def test_the_authors_chains_and_numbers_count_in_mmcif(lines, helix, tmp_path):
    path = put(tmp_path / "a.cif", cif(lines, "AAA"))
    assert one(path, helix) == "AAA/101-140"
    for text in ("AAA/120-135", "AAA120-135", "AAA#20-35", "AAA/#20-35", "#1/120-135"):
        np.testing.assert_allclose(read_motif(f"{path}:{text}").atoms, helix.atoms[19:35], atol=1e-3)
    with pytest.raises(ConfigError, match="Allowed: AAA"):
        read_motif(f"{path}:X20-35")


@pytest.mark.parametrize("value", [None, lambda a: "?"])
def test_label_names_stand_in_for_missing_ones_of_the_authors(lines, helix, tmp_path, value):
    gone = dict.fromkeys(("auth_asym_id", "auth_seq_id", "pdbx_PDB_ins_code", "label_alt_id", "occupancy"), value)
    assert one(put(tmp_path / "a.cif", cif(lines, **gone)), helix) == "X1-40"


def test_of_an_mmcif_ensemble_the_first_model_counts(lines, helix, tmp_path):
    both = [*changed(lines, 66, "1"), *changed(shifted(lines, 9), 66, "2")]
    assert one(put(tmp_path / "a.cif", cif(both, pdbx_PDB_model_num=lambda a: a[66])), helix) == "A101-140"


def test_a_chain_number_that_may_end_in_two_places_needs_a_slash(lines, tmp_path):
    both = [*changed(lines, 66, "1"), *changed(shifted(lines, 60), 66, "2")]
    path = put(
        tmp_path / "a.cif", cif(both, auth_asym_id=lambda a: {"1": "2", "2": "21"}[a[66]], auth_seq_id=lambda a: str(number(a)))
    )
    assert [c.name.partition(":")[2] for c in read_chains(path)[0]] == ["2/1-40", "21/1-40"]
    assert len(read_motif(f"{path}:25-9")) == 5, "residue 25 of no chain, 5 of chain 2"
    with pytest.raises(DataError, match="2 such runs"):
        read_motif(f"{path}:212-15")
    assert len(read_motif(f"{path}:21/2-15")) == 14


# ---------------------------------------------------------------- motifs


@pytest.mark.parametrize("text", ["20-35", "_20-35", "/20-35", " 20-35", "#20-35", "_#20-35", "#1/20-35"])
def test_a_chain_without_a_name_can_be_named(lines, helix, tmp_path, text):
    path = put(tmp_path / "a.pdb", [*changed(lines, 21, " "), *changed(shifted(lines, 60), 21, "B")])
    np.testing.assert_allclose(read_motif(f"{path}:{text}").atoms, helix.atoms[19:35], atol=1e-3)


def test_what_no_motif_is_says_how(lines, tmp_path):
    path = put(tmp_path / "a.pdb", lines)
    for text in ("a.pdb", f"{path}:", f"{path}:A", f"{path}:A20", f"{path}:A20-", "A20-35"):
        with pytest.raises(ConfigError, match=r"1abc\.pdb:A20-35"):
            read_motif(text)
    for text in ("A35-20", "A20-99", "A#0-5", "A#30-41", "A20A-25"):
        with pytest.raises(DataError, match="There are: A1-40"):
            read_motif(f"{path}:{text}")


def test_a_motif_in_pieces_is_refused(helix):
    small = {"net.dim": 16, "net.depth": 1, "net.heads": 1, "net.pair": 8}
    model = zoo.create("protein/backbone-ddpm", **small)
    gap = Backbone(np.concatenate([helix.atoms[:10], helix.atoms[12:20]]))
    with pytest.raises(DataError, match="from C of its residue 10 to the next N"):
        model.inpaint(motif=gap, length=40, steps=2, progress=False)
    with pytest.raises(ConfigError, match="or give a Backbone"):
        model.inpaint(motif=5, length=40, steps=2, progress=False)


# ---------------------------------------------------------------- damage


def bad(lines):
    good = "\n".join(lines)
    table = "\n".join(cif(lines))
    return {
        "html.pdb": ("<html><body>404 Not Found</body></html>", "web page"),
        "html.cif.gz": (gzip.compress(b"<!DOCTYPE html><html>"), "web page"),
        "xml.pdb": ("<?xml version='1.0'?><PDBx:datablock/>", "XML"),
        "words.pdb": ("hello", "no atoms"),
        "cut.pdb": (good + "\n" + lines[0][:50], "line 161 is truncated"),
        "nan.pdb": (good.replace(lines[7][30:38], "     nan"), "line 8 .*nan"),
        "under.pdb": (good.replace(lines[7][30:38], "   1_0.0"), "line 8 .*1_0"),
        "free.pdb": (good + "\nATOM 1 N GLY A 41 1.000 2.000 3.000 1.00 0.00 some more columns", "line 161 is not an atom"),
        "number.pdb": (good.replace("GLY A   9", "GLY A  9_"), "9_"),
        "table.cif": (table.replace("\n#\n", "\n")[:-100], "truncated|damaged"),
        "place.cif": (table.replace(lines[7][30:38].strip(), "nan"), "row 8 .*nan"),
        "blocks.cif": (table + "\n" + table, "several data blocks"),
        "xyz.cif": (table.replace("_atom_site.Cartn_z", "_atom_site.other"), "lack Cartn_z"),
        "quote.cif": (table + "\n_x.y 'open", "no readable structure"),
        "cut.gz": (gzip.compress(good.encode())[:300], "cannot be read"),
        "flipped.gz": (gzip.compress(good.encode())[:60] + b"\xff" * 40, "cannot be read"),
    }


@pytest.mark.parametrize("name", bad(["ATOM      1  N   GLY A   1       1.000   2.000   3.000  1.00  0.00           N"] * 9))
def test_damage_is_one_error_that_names_the_file(lines, tmp_path, name):
    content, message = bad(lines)[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=rf"{name}.*({message})"):
        read_chains(tmp_path / name)


def test_a_small_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(structure, "LARGEST", 10_000)
    (tmp_path / "a.pdb.gz").write_bytes(gzip.compress(b"REMARK\n" * 10_000))
    with pytest.raises(DataError, match=r"a\.pdb\.gz.* more than 10,000 bytes"):
        read_chains(tmp_path / "a.pdb.gz")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pdb")
    with pytest.raises(DataError, match="pipe"):
        read_structure(tmp_path / "a.pdb")


@pytest.mark.parametrize("kind", ["pdb", "cif", "gz"])
def test_flipped_bytes_end_in_one_error_or_chains(lines, tmp_path, kind):
    whole = "\n".join(cif(lines) if kind == "cif" else lines).encode()
    whole, rng = gzip.compress(whole) if kind == "gz" else whole, np.random.default_rng(0)
    path = tmp_path / f"a.{kind}"
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        for data in (damaged, whole[: rng.integers(len(whole))]):
            path.write_bytes(data)
            with suppress(DataError):
                assert all(np.isfinite(c.atoms).all() for c in read_chains(path)[0])


def test_blocks_without_atoms_in_an_mmcif_are_passed_over(lines, helix, tmp_path):
    """As refinement writes them behind the atoms, for ligands; and "data_" may be in capitals."""
    (tmp_path / "a.cif").write_text("DATA_x\n" + "\n".join(cif(lines)[1:]) + "\ndata_comp_list\nloop_\n_chem_comp.id\nALA\n")
    one(tmp_path / "a.cif", helix)

import gzip

import numpy as np
import pytest
from chains import atoms_of, changed, put

from zoo.errors import ConfigError, DataError
from zoo.protein.backbone import Backbone
from zoo.protein.data import open_chains, read_chains
from zoo.protein.motif import read_motif


def test_formats_give_the_same_chain(helix, tmp_path):
    pdb, cif = helix.save(tmp_path / "a.pdb"), helix.save(tmp_path / "a.cif")
    for path in (pdb, cif):
        packed = tmp_path / f"{path.name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        for file in (path, packed):
            (chain,), rejected = read_chains(file)
            np.testing.assert_allclose(chain.atoms, helix.atoms, atol=1e-3)
            assert chain.name == f"{file.name}:A1-40" and not rejected


def test_chains_are_split_and_reported(pdb_lines, tmp_path):
    a = atoms_of(pdb_lines, range(1, 41))
    far = [f"{line[:30]}{float(line[30:38]) + 60:8.3f}{line[38:]}" for line in changed(a, 21, "B")]
    broken = [line for line in changed(a, 21, "C") if not (int(line[22:26]) == 36 and line[12:16].strip() == "CA")]
    short = atoms_of(changed(a, 21, "D"), range(1, 11))
    trace = [line for line in changed(a, 21, "E") if line[12:16].strip() == "CA"]
    path = put(tmp_path / "many.pdb", [*a, "TER", *far, "TER", *broken, "TER", *short, "TER", *trace, "END"])
    chains, rejected = read_chains(path)
    assert [(c.name, len(c)) for c in chains] == [("many.pdb:A1-40", 40), ("many.pdb:B1-40", 40), ("many.pdb:C1-35", 35)]
    assert len(rejected) == 3
    assert "C37-40: an unbroken run of 4" in rejected[0] and "D1-10" in rejected[1] and "chain E: no residue has" in rejected[2]


def test_a_gap_ends_a_run(pdb_lines, tmp_path):
    path = put(tmp_path / "gap.pdb", atoms_of(pdb_lines, [*range(1, 20), *range(22, 41)]))
    chains, _ = read_chains(path, 10, 40)
    assert [c.name for c in chains] == ["gap.pdb:A1-19", "gap.pdb:A22-40"]


def test_ensembles_waters_ligands_and_odd_residues(pdb_lines, helix, tmp_path):
    a = atoms_of(pdb_lines, range(1, 41))
    odd = [line.replace("ATOM  ", "HETATM").replace("GLY", "MSE") if int(line[22:26]) == 7 else line for line in a]
    code = [
        f"{line[:22]}{int(line[22:26]) - (int(line[22:26]) > 20):4d}{'A' if int(line[22:26]) == 21 else ' '}{line[27:]}"
        for line in odd
    ]
    shift = [f"{line[:30]}{float(line[30:38]) + 5:8.3f}{line[38:]}" for line in a]
    water = "HETATM  900  O   HOH A 201      99.000  99.000  99.000  1.00  0.00           O"
    ligand = "HETATM  901  CA   CA A 202      99.000  99.000  90.000  1.00  0.00          CA"
    path = put(
        tmp_path / "nmr.pdb", ["MODEL        1", *code, "TER", water, ligand, "ENDMDL", "MODEL        2", *shift, "ENDMDL"]
    )
    (chain,), rejected = read_chains(path)
    np.testing.assert_allclose(chain.atoms, helix.atoms, atol=1e-3)
    assert not rejected and chain.name == "nmr.pdb:A1-39"


def test_of_alternative_places_the_fullest_counts(pdb_lines, helix, tmp_path):
    lines = []
    for line in atoms_of(pdb_lines, range(1, 41)):
        if int(line[22:26]) == 5 and line[12:16].strip() == "CA":
            other = f"{line[:16]}B{line[17:30]}{float(line[30:38]) + 1:8.3f}{line[38:54]}  0.30{line[60:]}"
            lines += [f"{line[:16]}A{line[17:54]}  0.70{line[60:]}", other]
        else:
            lines.append(line)
    (chain,), _ = read_chains(put(tmp_path / "alt.pdb", lines))
    np.testing.assert_allclose(chain.atoms, helix.atoms, atol=1e-3)


def test_bad_files_are_one_error_that_names_them(pdb_lines, helix, tmp_path):
    a = atoms_of(pdb_lines, range(1, 41))
    trace = put(tmp_path / "trace.pdb", [line for line in a if line[12:16].strip() == "CA"])
    packed = tmp_path / "cut.pdb.gz"
    packed.write_bytes(gzip.compress("\n".join(a).encode())[:500])
    cif = helix.save(tmp_path / "whole.cif").read_text()
    cases = {
        "CA trace": trace,
        "empty": put(tmp_path / "none.pdb", [""]),
        "truncated": put(tmp_path / "cut.pdb", [*a[:-1], a[-1][:40]]),
        "cannot be read": packed,
        "no readable structure|holds no protein": put(tmp_path / "cut.cif", [cif[: len(cif) // 2]]),
        "holds no protein|no readable": put(tmp_path / "text.pdb", ["hello"]),
        "run of 9 residues, not 32 to 128": put(tmp_path / "short.pdb", atoms_of(a, range(1, 10))),
    }
    for match, path in cases.items():
        with pytest.raises(DataError, match=match) as error:
            read_chains(path)
        assert path.name in str(error.value)
    with pytest.raises(DataError, match="gone"):
        read_chains(tmp_path / "gone.pdb")


def test_a_folder_is_a_dataset_with_a_report(pdb_lines, helix, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(12):
        helix.save(folder / f"{i:02d}.pdb")
    mixed = [*atoms_of(pdb_lines, range(1, 41)), *changed(atoms_of(pdb_lines, range(1, 10)), 21, "B")]
    put(folder / "00.pdb", mixed)
    put(folder / "bad.ent", ["hello"])
    with pytest.raises(DataError, match=r"bad\.ent"):
        open_chains(folder)
    with pytest.warns(UserWarning, match="2 chains are left out"):
        data = open_chains(folder, skip_unreadable=True)
    assert len(data) == 11 and data.sizes().tolist() == [40] * 11 and isinstance(data[0][0], Backbone)
    assert len(data.rejected) == 2 and "11 chains" in (data.origin or "")
    with pytest.warns(UserWarning, match="left out"):
        assert len(open_chains(folder, "validation", skip_unreadable=True)) == 1
    with pytest.raises(ConfigError, match="split"):
        open_chains(folder, "rest")
    with pytest.raises(DataError, match="no data at"):
        open_chains(tmp_path / "gone")


def test_folders_of_scope_and_cath_are_read(helix, tmp_path):
    """SCOPe: d1dlwa_.ent in subfolders of two letters; CATH: 12asA00, without a suffix."""
    for name in ("scope/dl/d1dlwa_.ent", "scope/as/d12asa_.ent", "cath/12asA00", "cath/1oaiA01"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        helix.save(tmp_path / "x.pdb").rename(tmp_path / name)
    (tmp_path / "cath" / "README").write_text("no structure")
    for folder in ("scope", "cath"):
        assert len(open_chains(tmp_path / folder)) == 2


def test_motifs(pdb_lines, helix, tmp_path):
    a = atoms_of(pdb_lines, range(1, 41))
    path = put(tmp_path / "m.pdb", [*a, *changed(atoms_of(a, [*range(1, 10), *range(15, 30)]), 21, "B")])
    np.testing.assert_allclose(read_motif(f"{path}:A20-35").atoms, helix.atoms[19:35], atol=1e-3)
    with pytest.raises(DataError, match="There are: B1-9, B15-29"):
        read_motif(f"{path}:B5-20")
    with pytest.raises(ConfigError, match=r"chain of .*Allowed: A, B"):
        read_motif(f"{path}:C1-5")
    for text in (f"{path}:A", "m.pdb", f"{path}:A5"):
        with pytest.raises(ConfigError, match=r"1abc\.pdb:A20-35"):
            read_motif(text)
    with pytest.raises(DataError, match="unbroken"):
        read_motif(f"{path}:A9-5")


@pytest.mark.data
def test_the_collected_chains_are_what_their_readme_says(data_file):
    parts = [open_chains(data_file, split) for split in ("train", "validation", "test")]
    assert [len(p) for p in parts] == [1067, 108, 136]
    names = [{c.name for c, _ in (p[i] for i in range(len(p)))} for p in parts]
    assert not names[0] & names[1] and not names[0] & names[2]
    with np.load(data_file) as z:
        cluster = dict(zip(z["ids"].tolist(), z["cluster25"].tolist(), strict=True))
    groups = [{cluster[n] for n in found} for found in names]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]

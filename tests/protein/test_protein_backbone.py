import gemmi
import numpy as np
import pytest
from Bio.PDB import MMCIFParser, PDBParser
from chains import chain

from zoo.errors import ConfigError, DataError, ShapeError
from zoo.protein.backbone import Backbone
from zoo.protein.data import read_chains
from zoo.protein.metrics import MEASURES


@pytest.mark.parametrize(("suffix", "parser"), [(".pdb", PDBParser), (".cif", MMCIFParser), (".ent", PDBParser)])
def test_files_reopen_in_biopython_and_gemmi(coil, tmp_path, suffix, parser):
    path = coil.save(tmp_path / f"x{suffix}")
    residues = list(
        parser(QUIET=True, **({} if suffix == ".cif" else {"PERMISSIVE": False})).get_structure("x", str(path))[0]["A"]
    )
    atoms = np.array([[r[a].coord for a in ("N", "CA", "C")] for r in residues])
    np.testing.assert_allclose(atoms, coil.numpy(), atol=1e-3)
    assert [r.id[1] for r in residues] == list(range(1, 41))
    assert {r.resname for r in residues} == {"GLY"} and all(a.element == a.id[0] for r in residues for a in r)
    assert all(a.occupancy == 1 for r in residues for a in r)
    other = gemmi.read_structure(str(path))[0]["A"]
    again = np.array([[r[a][0].pos.tolist() for a in ("N", "CA", "C")] for r in other])
    np.testing.assert_allclose(again, coil.numpy(), atol=1e-3)
    assert [r.seqid.num for r in other] == list(range(1, 41))
    assert {r[3].element.name for r in other} == {"O"}
    text = path.read_text()
    assert all(k in text for k in MEASURES) and "glycine stands for any" in text
    if suffix != ".cif":
        assert all(len(line.rstrip()) <= 80 for line in text.splitlines())


def test_coordinates_are_kept_as_files_have_them():
    x = chain(10) + 0.00049
    backbone = Backbone(x)
    assert np.array_equal(backbone.numpy(), x.round(3).astype(np.float32))
    assert len(backbone) == 10 and backbone.numpy().dtype == np.float32


def test_idealised_says_how_far_it_moved(helix, tmp_path):
    rng = np.random.default_rng(0)
    rough = Backbone(helix.atoms + rng.normal(0, 0.05, helix.atoms.shape))
    ideal = rough.idealised()
    assert ideal.measures()["bond_error"] < 0.003 < rough.measures()["bond_error"]
    assert "atoms moved by 0.0" in ideal.save(tmp_path / "x.pdb").read_text()


def test_pictures(helix, tmp_path):
    assert helix.plot().size == (400, 400) and helix.ramachandran().size == (400, 400)
    page = helix._repr_html_()
    assert page.count("<canvas") == 1 and "http" not in page, "the viewer loads nothing"
    Backbone(chain(2)).plot()
    Backbone(chain(3)).save(tmp_path / "short.pdb")


def test_bad_backbones(tmp_path, helix):
    with pytest.raises(ShapeError, match=r"\(residues, 3, 3\)"):
        Backbone(np.zeros((5, 4, 3)))
    with pytest.raises(DataError, match="NaN"):
        Backbone(np.full((5, 3, 3), np.nan))
    with pytest.raises(DataError, match=r"\.pdb, \.ent, \.cif"):
        helix.save(tmp_path / "x.xyz")


def test_what_no_pdb_file_has_columns_for_is_saved_as_mmcif(helix, tmp_path):
    for atoms in (helix.atoms + 10_000, helix.atoms - 1_000, np.zeros((10_000, 3, 3))):
        with pytest.raises(DataError, match=r"no columns for .*\.cif"):
            Backbone(atoms).save(tmp_path / "a.pdb")
    far = Backbone(helix.atoms + 10_000)
    np.testing.assert_allclose(read_chains(far.save(tmp_path / "a.cif"))[0][0].atoms, far.atoms, atol=2e-3)


def test_a_file_name_is_not_an_axis(helix):
    for draw in (helix.plot, helix.ramachandran):
        with pytest.raises(ConfigError, match=r"plot\('x\.xyz'\): give a matplotlib axis.*save"):
            draw("x.xyz")

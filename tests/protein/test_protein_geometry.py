import math
from itertools import pairwise

import pytest
import torch
from Bio.PDB import PDBParser
from Bio.PDB.vectors import calc_angle, calc_dihedral
from chains import chain, mirrored

from zoo.protein import geometry, rigid


def test_torsions_are_biopythons(coil, tmp_path):
    residues = list(PDBParser(QUIET=True).get_structure("x", coil.save(tmp_path / "x.pdb"))[0]["A"])
    vectors = [{a.id: a.get_vector() for a in r} for r in residues]
    ours = geometry.torsions(torch.from_numpy(coil.atoms).double())
    for i in range(1, len(residues) - 1):
        before, here, after = vectors[i - 1 : i + 2]
        phi = calc_dihedral(before["C"], here["N"], here["CA"], here["C"])
        psi = calc_dihedral(here["N"], here["CA"], here["C"], after["N"])
        omega = calc_dihedral(here["CA"], here["C"], after["N"], after["CA"])
        turn = torch.remainder(ours[i] - torch.tensor([phi, psi, omega]) + math.pi, 2 * math.pi) - math.pi
        assert turn.abs().max() < 1e-4
    assert ours[0, 0].isnan() and ours[-1, 1:].isnan().all()
    for v in vectors:  # the oxygen: its bond and angle, in the peptide's plane
        assert (v["O"] - v["C"]).norm() == pytest.approx(1.231, abs=2e-3)
        assert math.degrees(calc_angle(v["CA"], v["C"], v["O"])) == pytest.approx(120.4, abs=0.2)
    for v, w in pairwise(vectors):
        assert abs(calc_dihedral(w["N"], v["CA"], v["C"], v["O"])) == pytest.approx(math.pi, abs=0.01)


def test_a_chain_is_built_from_its_angles(coil):
    x = torch.from_numpy(coil.atoms).double()
    angles = geometry.torsions(x)
    again = geometry.build(angles.nan_to_num())
    torch.testing.assert_close(geometry.torsions(again), angles, equal_nan=True)
    assert rigid.rmsd(again.flatten(0, 1), x.flatten(0, 1)) < 0.03, "the chain was built with ideal bonds"
    bonds = again.flatten(0, 1).diff(dim=0).norm(dim=1)
    torch.testing.assert_close(bonds.view(-1)[:3], torch.tensor(geometry.LENGTHS, dtype=torch.float64))


def test_a_helix_is_as_the_books_say():
    x = torch.from_numpy(chain(30, -57.0, -47.0))
    ca = x[:, 1]
    rise = (ca[25] - ca[7]).norm() / 18
    assert rise.item() == pytest.approx(1.5, abs=0.1)
    assert (geometry.secondary_structure(x)[2:-2] == 1).all()
    assert not geometry.secondary_structure(torch.from_numpy(mirrored(chain(30, 57.0, 47.0)))).eq(0).all()
    assert (geometry.secondary_structure(torch.from_numpy(mirrored(x.numpy()))) == 2).sum() == 0
    assert (geometry.secondary_structure(torch.from_numpy(chain(30, -120.0, 130.0))) == 0).all(), "a lone strand is none"


def test_frames_turn_with_the_chain_and_tell_mirror_images(coil):
    x = torch.from_numpy(coil.atoms).double()
    turn = rigid.random_rotation(torch.Generator().manual_seed(0)).double()
    r = geometry.frames(x)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(len(r), dtype=torch.float64))
    torch.testing.assert_close(geometry.frames(x @ turn.T + 3.0), r @ turn.T)

    def seen(x):
        return (x[1:, 1] - x[:-1, 1])[:, None] @ geometry.frames(x)[:-1].mT

    torch.testing.assert_close(seen(x @ turn.T), seen(x))
    assert (seen(torch.from_numpy(mirrored(coil.atoms)).double()) - seen(x)).abs().max() > 1.0


def test_ideal_bonds_come_with_small_moves(helix):
    noise = 0.05 * torch.randn(40, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(helix.atoms).double() + noise
    y = geometry.idealise(x)
    line = y.flatten(0, 1)
    assert (line.diff(dim=0).norm(dim=1) - torch.tensor(geometry.LENGTHS).repeat(40)[:119]).abs().max() < 2e-3
    assert 0.02 < (y - x).square().sum(-1).mean().sqrt() < 0.1
    assert (geometry.secondary_structure(y)[2:-2] == 1).all()

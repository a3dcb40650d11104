"""Copies around an axis: the group, what the net sees of them, where they lie, and their files."""

import numpy as np
import pytest
import torch

import zoo
from zoo.core import seeds
from zoo.core.schedule import Level
from zoo.errors import ConfigError, ShapeError
from zoo.protein.backbone import Backbone
from zoo.protein.copies import TOUCH, moved, symmetry, turns
from zoo.protein.rigid import rmsd
from zoo.protein.structure import read_structure

QUICK = {"steps": 3, "seed": 0, "progress": False}


@pytest.mark.parametrize(("name", "many"), [("C2", 2), ("c3", 3), ("C12", 12), ("D2", 4), ("D5", 10)])
def test_members_are_a_group_of_rotations(name, many):
    found = turns(name)
    assert len(found) == many
    torch.testing.assert_close(found @ found.mT, torch.eye(3).double().expand(many, -1, -1), atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(many).double())
    assert torch.equal(found[0], torch.eye(3).double())
    steer, x = symmetry(name), torch.randn(1, 5 * many, 3, 3, dtype=torch.float64, generator=seeds.generator(0))
    for a, first in zip(found, steer.moves, strict=True):
        for b, second in zip(found, steer.moves, strict=True):
            (k,) = ((found - a @ b).abs().amax((1, 2)) < 1e-9).nonzero()[:, 0].tolist()
            torch.testing.assert_close(first(second(x)), steer.moves[k](x))


def test_a_symmetric_chain_stays_and_its_noise_is_of_unit_deviation():
    one = torch.randn(1, 9, 3, 3, dtype=torch.float64, generator=seeds.generator(1))
    trimer = torch.cat([one @ turn.T for turn in turns("C3")], 1)
    steer = symmetry("C3")
    for move in steer.moves:
        torch.testing.assert_close(move(trimer), trimer)
    torch.testing.assert_close(moved(trimer, turns("C3")[1], torch.arange(3)), torch.roll(trimer, -9, 1))
    noise = steer.noise(torch.randn(1000, 24, 3, 3, generator=seeds.generator(2)))
    assert abs(noise.std() - 1) < 0.02
    torch.testing.assert_close(steer.moves[1](noise), noise)


@pytest.mark.parametrize(("name", "length"), [("C3", [30, 45]), ("D2", 40)])
def test_copies_are_alike_and_touch(model, name, length):
    samples = model.sample(2, length=length, steer=[zoo.protein.symmetry(name)], **QUICK)
    for sample in samples:
        first, *others = (torch.from_numpy(c).double() for c in sample.chains())
        assert len(others) + 1 == len(turns(name)) == sample.copies
        for turn, other in zip(turns(name)[1:], others, strict=True):
            torch.testing.assert_close(first @ turn.T, other, atol=2e-3, rtol=0)
            assert rmsd(first.flatten(0, 1), other.flatten(0, 1)) < 2e-3
        nearest = min(float(torch.cdist(first[:, 1], other[:, 1]).min()) for other in others)
        assert TOUCH - 0.01 <= nearest < TOUCH + 1.5


def test_samples_do_not_depend_on_their_batch(model):
    how = {"length": [30, 45, 30], "steer": zoo.protein.symmetry("C3")}
    together, apart = (model.sample(3, batch_size=size, **how, **QUICK) for size in (3, 1))
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_allclose(a.atoms, b.atoms, atol=5e-3)


def test_the_net_sees_each_copy_by_itself(model):
    """What is said of a copy is what is said of a chain that is alone, around its own mean."""
    copy = torch.randn(1, 12, 3, 3, generator=seeds.generator(3))
    copy = copy - copy.mean((1, 2), keepdim=True)
    other = torch.randn(1, 12, 3, 3, generator=seeds.generator(4)) + 3
    level = model.diffusion.schedule.of(torch.tensor([0.5]))
    cond = {"x0": torch.full((1, 24, 3, 3), torch.nan), "known": torch.zeros(1, 24, 3, 3, dtype=torch.bool)}
    steer = symmetry("C2")
    told = steer.told(torch.zeros(1, 24, 3, 3), Level(0.5, 1.0, 1.0))
    assert told["copies"].tolist() == [[list(range(12)), list(range(12, 24))]]
    with torch.no_grad():
        both = model.diffusion.denoise(model.denoiser, torch.cat([copy + 2, other], 1), level, cond | told)
        alone = {k: v[:, :12] for k, v in cond.items()}
        single = model.diffusion.denoise(model.denoiser, copy, level, alone)
    found = both[:, :12] - both[:, :12].mean((1, 2), keepdim=True)
    torch.testing.assert_close(found, single - single.mean((1, 2), keepdim=True), atol=1e-3, rtol=1e-3)


def test_files_hold_a_chain_for_each_copy(helix, tmp_path):
    one = torch.from_numpy(helix.atoms[:12]).double() + torch.tensor([20.0, 0.0, 0.0])
    sample = symmetry("C3").marked(Backbone(torch.cat([one @ turn.T for turn in turns("C3")]).numpy()))
    for suffix in (".pdb", ".cif"):
        chains = read_structure(sample.save(tmp_path / f"a{suffix}"))
        assert [chain.id for chain in chains] == ["A", "B", "C"]
        assert [r.number for r in chains[1].residues] == list(range(1, 13))
        found = np.concatenate([[r.atoms for r in chain.residues] for chain in chains])
        np.testing.assert_allclose(found, sample.atoms, atol=1e-3)
    assert "symmetry C3" in (tmp_path / "a.pdb").read_text()
    assert sample.measures() == Backbone(sample.atoms[:12]).measures()
    assert sample.idealised().copies == 3 and np.abs(sample.idealised().atoms - sample.atoms).max() < 0.1
    sample.plot()
    sample.ramachandran()
    with pytest.raises(ShapeError, match="12 residues are not 5 copies"):
        Backbone(sample.atoms[:12], copies=5)


@pytest.mark.parametrize("name", ["C1", "C13", "D1", "D7", "T", "", 3, "C0003", "C3x"])
def test_unknown_groups(name):
    with pytest.raises(ConfigError, match="give a cyclic group"):
        symmetry(name)


@pytest.mark.parametrize(("length", "match"), [(40, "give length=39, which is 3 chains of 13"), (12, "give length=24")])
def test_lengths_that_are_no_copies(model, length, match):
    with pytest.raises(ConfigError, match=match):
        model.sample(1, length=length, steer=[symmetry("C3")], **QUICK)

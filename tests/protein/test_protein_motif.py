import numpy as np
import pytest
import torch

import zoo
from zoo.core import seeds
from zoo.core.samplers import SAMPLERS
from zoo.errors import ConfigError, ShapeError
from zoo.protein.backbone import Backbone
from zoo.protein.geometry import LENGTHS
from zoo.protein.rigid import rmsd


@pytest.fixture(scope="module")
def model():
    small = {"net.dim": 32, "net.depth": 1, "net.heads": 2, "net.pair": 8}
    model = zoo.create("protein/backbone-ddpm", **small)
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=seeds.generator(i))
    return model


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_motif_comes_out_as_it_went_in(model, helix, tmp_path, sampler):
    path = helix.save(tmp_path / "m.pdb")
    found = model.inpaint(motif=f"{path}:A20-35", length=50, start=11, n=3, sampler=sampler, steps=4, seed=0, progress=False)
    held = torch.from_numpy(helix.atoms[19:35]).double().flatten(0, 1)
    for chain in found:
        assert len(chain) == 50
        assert rmsd(torch.from_numpy(chain.atoms[10:26]).double().flatten(0, 1), held) < 2e-3
        assert abs(chain.atoms.mean((0, 1))).max() < 2e-3, "still centred"
    assert rmsd(*(torch.from_numpy(c.atoms[26:]).double().flatten(0, 1) for c in found[:2])) > 0.1, "the rest is each one's own"


def test_mixed_precision_keeps_a_motif(model, helix):
    motif = Backbone(helix.atoms[:12])
    with torch.autocast("cpu", torch.bfloat16):
        (chain,) = model.inpaint(motif=motif, length=40, start=5, steps=2, seed=0, progress=False)
    assert rmsd(*(torch.from_numpy(x).double().flatten(0, 1) for x in (chain.atoms[4:16], motif.atoms))) < 2e-3


def test_the_net_hears_the_motif_where_it_lies(model, helix, monkeypatch):
    heard, marked, forward = [], [], model.denoiser.forward

    def listen(x, t, cond, **options):
        heard.append(cond["x0"])
        marked.append(cond["known"].flatten(2).all(2))
        return forward(x, t, cond, **options)

    monkeypatch.setattr(model.denoiser, "forward", listen)
    model.inpaint(motif=Backbone(helix.atoms[:12]), length=40, start=5, n=2, steps=4, seed=0, progress=False)
    held = model.codec.encode(Backbone(helix.atoms[:12])).flatten(0, 1)
    assert heard[0].isnan().all()
    for guess in heard[1:]:
        assert rmsd(guess[:, 4:16].flatten(1, 2), held.expand(2, -1, -1)).max() < 1e-4
    place = torch.arange(40)
    assert not marked[0].any() and all(torch.equal(m[1], (place >= 4) & (place < 16)) for m in marked[1:])


@pytest.mark.slow
def test_a_motif_hangs_in_its_chain(helix):
    """With the packaged weights: were neighbours left where they are predicted, one of these bonds would be 1.5 A too long."""
    packaged, how = zoo.load("protein/backbone-ddpm"), {"n": 6, "steps": 50, "seed": 0, "progress": False}
    (whole,) = packaged.sample(1, length=44, seed=3, progress=False)
    where = torch.zeros(44, 1, 1, dtype=torch.bool)
    where[16:28] = True
    for found in (
        packaged.inpaint(motif=Backbone(helix.atoms[:12]), length=44, start=17, **how),
        packaged.inpaint(whole, where, **how),
    ):
        bonds = np.array([np.linalg.norm(c.atoms[1:, 0] - c.atoms[:-1, 2], axis=1)[[15, 27]] for c in found])
        assert np.abs(bonds - LENGTHS[2]).max() < 0.3
        assert np.median(np.abs(bonds - LENGTHS[2])) < 0.05


def test_where_a_motif_goes(model, helix):
    motif = Backbone(helix.atoms[:12])
    held = torch.from_numpy(motif.atoms).double().flatten(0, 1)
    (chain,) = model.inpaint(motif=motif, length=40, steps=2, seed=0, progress=False)
    assert rmsd(torch.from_numpy(chain.atoms[14:26]).double().flatten(0, 1), held) < 2e-3, "in the middle"
    (whole,) = model.inpaint(motif=helix, length=40, steps=2, seed=0, progress=False)
    assert rmsd(*(torch.from_numpy(c.atoms).double().flatten(0, 1) for c in (whole, helix))) < 2e-3


def test_what_is_known_in_place_works_as_for_other_models(model, helix):
    where = torch.zeros(40, 1, 1, dtype=torch.bool)
    where[5:20] = True
    (chain,) = model.inpaint(helix, where, steps=3, seed=0, progress=False)
    known = torch.from_numpy(helix.atoms - helix.atoms.mean((0, 1)))
    torch.testing.assert_close(torch.from_numpy(chain.atoms)[5:20], known[5:20], atol=2e-3, rtol=0)
    (flat,) = model.inpaint(helix, torch.tensor([True, False, False]), steps=3, seed=0, progress=False)
    torch.testing.assert_close(torch.from_numpy(flat.atoms)[..., 0], known[..., 0], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"motif": "helix"}, "needs one length"),
        ({"motif": "helix", "length": [50, 60]}, "needs one length"),
        ({"motif": "helix", "length": 39}, "40 residues does not fit into length=39"),
        ({"motif": "helix", "length": 50, "start": 12}, "from residue 12"),
        ({"motif": "helix", "length": 50, "start": 0}, "from residue 0"),
        ({"motif": "helix", "length": 300}, "8 to 256"),
        ({}, "give motif"),
    ],
)
def test_bad_motifs(model, helix, options, match):
    with pytest.raises((ConfigError, ShapeError), match=match):
        model.inpaint(**{k: helix if v == "helix" else v for k, v in options.items()})

import json
import random

import chains
import numpy as np
import pytest
import torch

import zoo
from zoo.core import seeds
from zoo.core.samplers import SAMPLERS
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.protein.backbone import GIVEN, Backbone, Given
from zoo.protein.geometry import LENGTHS
from zoo.protein.motif import _drawn, _even, layout, mended, read_motif
from zoo.protein.rigid import rmsd
from zoo.protein.structure import read_structure
from zoo.protein.wishes import overlap


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


def test_of_several_candidates_the_one_with_fewer_clashes_is_the_sample(model, helix):
    motif, how = Backbone(helix.atoms[:12]), {"length": 40, "start": 5, "n": 2, "steps": 8, "seed": 0, "progress": False}

    def overlaps(chains):
        return overlap(torch.stack([torch.from_numpy(c.atoms) for c in chains]))

    (one, two), many = model.inpaint(motif=motif, method="replace", **how), {}
    for count in (2, 8):
        many[count] = model.inpaint(motif=motif, method="select", candidates=count, **how)
        assert many[count].plan.cost == f"{8 * count} evaluations of the net a sample"
        for chain in many[count]:
            assert rmsd(*(torch.from_numpy(x).double().flatten(0, 1) for x in (chain.atoms[4:16], motif.atoms))) < 2e-3
    assert overlaps(many[8]).mean() < overlaps([one, two]).mean()
    usual = model.inpaint(motif=motif, **how)
    assert usual.plan.method == {"method": "select", "candidates": 4}, "what is taken where nobody says a method"
    (alone,) = model.inpaint(motif=motif, method="select", candidates=2, **how | {"n": 1})
    np.testing.assert_allclose(alone.atoms, many[2][0].atoms, atol=2e-3)


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
    how = {"length": 40, "start": 5, "n": 2, "steps": 4, "seed": 0, "progress": False}
    model.inpaint(motif=Backbone(helix.atoms[:12]), method="replace", **how)
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


def pieces_of(helix):
    """Two runs of a helix, whose ends are 17 angstrom apart."""
    return [Backbone(helix.atoms[:8], "first"), Backbone(helix.atoms[19:29], "second")]


@pytest.mark.parametrize("pose", ["fixed", "free"])
def test_pieces_of_a_motif_come_out_as_they_went_in(model, helix, pose):
    pieces = pieces_of(helix)
    (chain,) = model.inpaint(motif=pieces, length=50, start=[4, 25], pose=pose, steps=3, seed=0, progress=False)
    found, held = (
        [torch.from_numpy(x).double().flatten(0, 1) for x in atoms]
        for atoms in ((chain.atoms[3:11], chain.atoms[24:34]), [p.atoms for p in pieces])
    )
    for a, b in zip(found, held, strict=True):
        assert rmsd(a, b) < 2e-3
    together = rmsd(torch.cat(found), torch.cat(held))
    assert together < 2e-3 if pose == "fixed" else together > 0.1
    assert abs(chain.atoms.mean((0, 1))).max() < 2e-3, "still centred"


def test_where_pieces_go(helix):
    pieces = pieces_of(helix)
    # the ends are 18 angstrom from each other: 5 residues of 3.5 reach from one to the other
    assert layout(pieces, 40, None, None, True, None) == [7, 22]  # 7, 7 and 8 around them
    assert layout(pieces, 23, None, None, True, None) == [0, 13]  # what is needed between them is there
    assert layout(pieces, 40, 3, None, True, None) == [2, 20]
    assert layout(pieces, 60, [3, 30], None, True, None) == [2, 29]
    assert layout(pieces, 40, None, [0, 5, None], True, 0) == [0, 13]
    for seed in range(20):
        first, second = layout(pieces, 60, None, ["3-9", (5, 7), None], True, seed)
        assert 3 <= first <= 9 and 5 <= second - first - 8 <= 7
    drawn = {tuple(layout(pieces, 60, None, [None, "5-40", None], True, seed)) for seed in range(20)}
    assert len(drawn) > 15 and layout(pieces, 60, None, [None, "5-40", None], True, 3) in [list(d) for d in drawn]


def test_every_layout_is_as_likely():
    bounds, rng = [(0, 2), (1, 3), (0, 9)], random.Random(0)
    every = {(a, b, 4 - a - b) for a in range(3) for b in range(1, 4) if 4 - a - b >= 0}
    counts = dict.fromkeys(every, 0)
    for _ in range(4000):
        counts[tuple(_drawn(bounds, 4, rng))] += 1
    expected = 4000 / len(every)
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 27.9  # chi square of 8 degrees, one in 2,000
    assert _even([(0, 9), (5, 9), (0, 1)], 12) == [5, 6, 1]


def test_files_say_what_was_given(model, tmp_path):
    lines = Backbone(np.concatenate([helix_atoms() for _ in range(1)])).save(tmp_path / "bare.pdb").read_text()
    named = lines.replace("GLY A  20", "TRP A  20").replace("GLY A  21", "MSE A  21")
    path = tmp_path / "named.pdb"
    path.write_text(named)
    pieces = [f"{path}:A20-27", f"{path}:A35-40"]
    samples = model.inpaint(motif=pieces, length=44, start=[3, 30], steps=2, seed=0, progress=False)
    kept = samples[0].given
    assert [(g.first, g.last, g.source) for g in kept] == [(3, 10, "named.pdb:A20-27"), (30, 35, "named.pdb:A35-40")]
    sample = Backbone(np.concatenate([helix_atoms(), helix_atoms()[:4] + 60]), given=kept)
    for suffix in (".pdb", ".cif"):
        made = sample.save(tmp_path / f"made{suffix}")
        names = [r.name for chain in read_structure(made) for r in chain.residues]
        assert names[2:4] == ["TRP", "MSE"] and set(names[:2] + names[4:]) == {"GLY"}
    text = (tmp_path / "made.pdb").read_text()
    assert "given: 3-10 from named.pdb:A20-27" in text
    marks = [line[60:66].strip() for line in text.splitlines() if line.startswith("ATOM") and line[13:15] == "CA"]
    assert marks == ["1.00" if i in {*range(3, 11), *range(30, 36)} else "0.00" for i in range(1, 45)]
    told = json.loads((tmp_path / "made.json").read_text())
    assert told["length"] == 44 and [row["residues"] for row in told["given"]] == [[3, 10], [30, 35]]
    assert told["given"][0]["map"][1] == {"residue": 4, "from": "A21", "name": "MSE"}
    whole = read_motif(pieces[0])
    assert whole.given[0].names[0] == "TRP"
    green = [k for k, colour in enumerate(sample.colours(), 1) if colour == GIVEN]
    assert green == [*range(3, 10), *range(30, 35)] and len(sample.colours()) == 43
    assert GIVEN not in whole.colours() + Backbone(sample.atoms).colours()
    one = [Given(k, "", ("A1",) * n, ("GLY",) * n) for k, n in ((4, 1), (4, 1), (44, 1), (42, 9))]
    odd = Backbone(sample.atoms, given=one).colours()  # of one residue, of one twice, at the end and beyond it
    assert [k for k, colour in enumerate(odd, 1) if colour == GIVEN] == [4, 42, 43] and len(odd) == 43
    plain = model.inpaint(motif=pieces[0], length=44, steps=2, seed=0, progress=False)
    assert plain[0].idealised().given == plain[0].given and not Backbone(helix_atoms()).given
    assert not (tmp_path / "bare.json").exists()


def test_the_map_beside_a_chain_goes_with_it_and_other_files_stay(tmp_path):
    given = [Given(3, "named.pdb:A20-21", ("A20", "A21"), ("TRP", "MSE"))]
    marked, plain = Backbone(helix_atoms(), given=given), Backbone(helix_atoms())
    marked.save(tmp_path / "made.pdb")
    plain.save(tmp_path / "made.pdb")
    assert not (tmp_path / "made.json").exists(), "it would be said of a chain that it is not of"
    for text in ('{"mine": 1}', "no JSON", "[]"):
        (tmp_path / "own.json").write_text(text)
        with pytest.raises(DataError, match=r"own\.json, which is another file"):
            marked.save(tmp_path / "own.pdb")
        plain.save(tmp_path / "own.pdb")
        assert (tmp_path / "own.json").read_text() == text
        (tmp_path / "own.pdb").unlink()


def helix_atoms():
    return chains.chain(40)


def test_bonds_to_a_motif_are_mended_by_their_neighbours(helix):
    """Residues of a helix are moved as a whole: the bonds to them come back, they and what is far away stay."""
    atoms = helix.atoms.astype(np.float64)
    atoms[15:23] += 0.15 * (atoms[15, 0] - atoms[14, 2])
    given = [Given(16, "m", ("",) * 8, ("GLY",) * 8)]

    def off(x):
        return np.abs(np.linalg.norm(x[1:, 0] - x[:-1, 2], axis=1)[[14, 22]] - LENGTHS[2])

    found = mended(atoms, given)
    assert off(atoms).max() > 0.1 and off(found).max() < 0.02
    shift = found[0] - atoms[0]
    np.testing.assert_allclose(found[15:23] - atoms[15:23], np.broadcast_to(shift[0], (8, 3, 3)), atol=1e-9)
    np.testing.assert_allclose(found[:10] - atoms[:10], np.broadcast_to(shift[0], (10, 3, 3)), atol=1e-9)
    assert np.abs(found[10:15] - atoms[10:15] - shift[0]).max() < 0.3 and abs(found.mean((0, 1))).max() < 1e-9
    torn = helix.atoms.copy()
    torn[15:23] += 3
    assert mended(torn, given) is torn
    assert mended(helix.atoms, given) is helix.atoms


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
        ({"motif": [], "length": 40}, "motif"),
        ({"motif": ["short", 3], "length": 40}, "or give a Backbone"),
        ({"motif": ["short", "short"], "length": 13}, "12 residues, and 2 or more between its pieces, does not fit"),
        ({"motif": ["short", "short"], "length": 40, "start": [5, 8]}, "one after the other"),
        ({"motif": ["short", "short"], "length": 40, "start": [5, 6, 7]}, "one number, or one for each"),
        ({"motif": "short", "length": 40, "gaps": [3]}, "give 2, before"),
        ({"motif": "short", "length": 40, "gaps": ["9-3", None]}, "the least number"),
        ({"motif": "short", "length": 40, "gaps": ["a", None]}, "gaps"),
        ({"motif": "short", "length": 40, "gaps": ["2-3", "2-3"]}, "does not fit into length=40"),
        ({"motif": "short", "length": 40, "gaps": [None, None], "start": 2}, "give one of them"),
        ({"motif": "short", "length": 40, "pose": "loose"}, "pose"),
        ({"motif": "far", "length": 60, "gaps": [None, 2, None]}, "at least 5 are needed"),
        ({"known": "helix", "where": True, "gaps": [1, 2]}, "give motif="),
    ],
)
def test_bad_motifs(model, helix, options, match):
    stand = {"helix": helix, "far": pieces_of(helix), "short": Backbone(helix.atoms[:6])}
    given = {k: stand.get(v, v) if isinstance(v, str) else v for k, v in options.items()}
    if isinstance(options.get("motif"), list):
        given["motif"] = [stand.get(m, m) for m in options["motif"]]
    with pytest.raises((ConfigError, ShapeError), match=match):
        model.inpaint(**given)

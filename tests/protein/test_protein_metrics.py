import json
import math

import numpy as np
import pytest
from chains import chain, mirrored

import zoo
from zoo.contract.registry import get_domain
from zoo.contract.samples import Samples
from zoo.errors import ConfigError, DataError
from zoo.evaluation.evaluate import evaluate
from zoo.protein import evaluate as protein_evaluate
from zoo.protein.backbone import Backbone
from zoo.protein.data import open_chains
from zoo.protein.evaluate import BETTER, Evaluator, designability
from zoo.protein.metrics import MEASURES, glued, measure, ramachandran, tm_score


def test_measures_of_an_ideal_helix(helix):
    found = measure(helix.atoms)
    assert set(found) == set(MEASURES)
    assert found["bond_error"] < 1e-3 and found["angle_error"] < 0.1 and found["step_error"] < 0.05
    assert (
        found["ca_clashes"] == found["backbone_clash"] == found["left_turns"] == found["positive_phi"] == found["strand"] == 0
    )
    assert found["helix"] == found["ordered"] == pytest.approx(38 / 40, abs=0.03)
    ca = helix.atoms[:, 1]
    radius = np.sqrt(((ca - ca.mean(0)) ** 2).sum(1).mean())
    assert found["radius"] == pytest.approx(radius / (2.2 * 40**0.38), rel=1e-5)


def test_each_measure_sees_its_own_fault(helix):
    x = helix.atoms.astype(float)
    other = measure(mirrored(x))
    assert other["positive_phi"] == 1 and other["left_turns"] > 0.8
    assert other["bond_error"] == pytest.approx(measure(x)["bond_error"], abs=1e-6)
    rng = np.random.default_rng(0)
    noisy = measure(x + rng.normal(0, 0.1, x.shape))
    assert noisy["bond_error"] == pytest.approx(0.1 * math.sqrt(2) * math.sqrt(2 / math.pi), rel=0.3)
    folded = x.copy()
    folded[30:] = x[:10] + 0.5  # the end lies upon the start
    assert measure(folded)["ca_clashes"] >= 10 / 40 and measure(folded)["backbone_clash"] == 1
    shuffled = measure(x[rng.permutation(40)])
    assert shuffled["step_error"] > 3 and shuffled["helix"] == 0
    with pytest.raises(DataError, match="at least 6"):
        measure(x[:5])


def test_ramachandran_bins(helix):
    counts = ramachandran([helix.atoms, helix.atoms]).reshape(24, 24)
    assert (
        counts.sum() == 2 * 38
        and counts[(180 - 60) // 15 - 1 : (180 - 60) // 15 + 1, (180 - 45) // 15 - 1 : (180 - 45) // 15 + 1].sum() == 76
    )


def test_tm_scores(helix, coil):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    assert tm_score(helix.atoms, helix.atoms @ turn.T + 9) == pytest.approx(1.0, abs=1e-4)
    assert tm_score(helix.atoms, coil.atoms) < 0.5
    assert tm_score(helix.atoms[:20], helix.atoms) == pytest.approx(1.0, abs=1e-3), "over the length of the first"
    assert tm_score(helix.atoms, helix.atoms[:20]) == pytest.approx(0.5, abs=0.03)


def test_glued_fragments_have_real_angles_and_ideal_bonds(helix):
    made = glued([helix.atoms], [33, 50], seed=0)
    assert [len(x) for x in made] == [33, 50]
    assert measure(made[1])["bond_error"] < 1e-6 and measure(made[1])["helix"] > 0.9


def test_sets_are_measured_against_the_training_chains(helix):
    real = [chain(n, seed=n) for n in range(36, 48)]
    judge = Evaluator(real[:4], real[4:])
    own = judge.compare(real[4:])
    assert own["ramachandran"] == pytest.approx(0, abs=1e-9) and own["plausible"] > 0
    assert not judge.plausible([mirrored(x) for x in real]).any()
    broken = real[4].copy()
    broken[20:] += 3.0
    outside = judge.outside([real[4], broken])
    assert outside["bond_error"].tolist() == [False, True] and set(outside) <= set(BETTER)
    assert judge.compare([mirrored(x) for x in real])["ramachandran"] > 0.5
    folds = judge.folds(real[4:7])
    assert folds["nearest_tm"] == pytest.approx(1.0, abs=1e-3) and folds["copy_rate"] == 1.0
    assert set(own | folds) == set(BETTER)


def test_designability_is_the_best_of_the_designs(helix, coil):
    folded = {"AAA": coil.atoms, "GGG": helix.atoms + 5.0}
    assert designability([helix.atoms], lambda x: ["AAA", "GGG"], folded.__getitem__)[0] == pytest.approx(0, abs=1e-3)
    assert designability([helix.atoms], lambda x: ["AAA"], folded.__getitem__)[0] > 2.0


@pytest.mark.data
def test_real_chains_pass_and_spoilt_ones_do_not(data_file):
    parts = [[c.atoms for c in open_chains(data_file, split).items] for split in ("test", "train")]
    judge = Evaluator(*parts)
    real = parts[0][:60]
    found, rng = judge.compare(real), np.random.default_rng(0)
    assert found["plausible"] > 0.5
    assert found["bond_error"] < 0.015 and found["ca_clashes"] < 0.001 and found["backbone_clash"] < 0.05
    assert 0.3 < found["helix"] < 0.42 and 0.15 < found["strand"] < 0.27 and 1.0 < found["radius"] < 1.15
    spoilt = {
        "mirrored": [mirrored(x) for x in real],
        "noised": [x + rng.normal(0, 0.2, x.shape) for x in real],
        "shuffled": [x[rng.permutation(len(x))] for x in real],
        "glued": glued(parts[1], [len(x) for x in real], 0),
    }
    for name, chains in spoilt.items():
        assert judge.plausible(chains).mean() < (0.2 if name == "glued" else 0.02), name


@pytest.mark.data
def test_secondary_structure_agrees_with_the_datas_own(data_file):
    import torch

    from zoo.protein.geometry import place_oxygen, secondary_structure

    with np.load(data_file) as z:
        coords, off, ss = (z[k] for k in ("coords", "offsets", "ss"))
    rows = np.random.default_rng(0).choice(len(off) - 1, 100, replace=False)
    same, count, error = 0, 0, []
    for i in rows:
        x, own = torch.from_numpy(coords[off[i] : off[i + 1]]), ss[off[i] : off[i + 1]]
        found = secondary_structure(x[:, :3], x[:, 3]).numpy()
        same, count = same + (found == own).sum(), count + len(own)
        assert not ((found == 1) & (own == 2)).any() and not ((found == 2) & (own == 1)).sum() > 2
        error.append((place_oxygen(x[:, :3]) - x[:, 3])[:-1].norm(dim=1).mean())
    assert same / count > 0.97 and float(np.mean(error)) < 0.05


@pytest.mark.slow
def test_a_model_is_measured_with_its_protocol():
    small = {"net.dim": 16, "net.depth": 1, "net.heads": 1, "net.pair": 8, "sampling.steps": 3}
    model = zoo.create("protein/backbone-ddpm", **small)
    real = [chain(n, seed=n) for n in range(40, 52)]
    result = evaluate(model, 4, evaluator=Evaluator(real[:4], real[4:]), tm_samples=2, seed=1)
    assert list(result["metrics"]) == list(BETTER)
    for name, m in result["metrics"].items():
        assert {"value", "ceiling", "floor", "better"} <= m.keys() and math.isfinite(m["value"]), name
    assert result["metrics"]["bond_error"]["idealised"] < result["metrics"]["bond_error"]["value"]
    assert result["metrics"]["nearest_tm"]["ceiling"] < 1.0 and 0 <= result["metrics"]["plausible"]["interval"][1] <= 1
    protocol = result["protocol"]
    assert (protocol["samples"], protocol["sampler"], protocol["steps"]) == (4, "euler", 3) and "4 test chains" in protocol[
        "reference"
    ]
    assert protocol["seed"] == 0 and "2 samples, 2 real and 2 glued chains, drawn at random (seed 0)" in protocol["tm"]
    assert 44 <= int(protocol["length"].split()[0]) <= 51, "lengths of the training chains"
    json.dumps(result)


@pytest.mark.slow
def test_the_chains_for_tm_scores_are_drawn_and_as_many_as_samples(helix, monkeypatch):
    """In the file a family of 8 stands in front: the first chains would be each other's copies."""
    family = [chain(40, seed=1)] * 8
    others = [chain(40 + k % 9, seed=100 + k) for k in range(24)]
    judge = Evaluator([*family, *others], [helix.atoms, *others[:8]])
    seen = []
    monkeypatch.setattr(Backbone, "idealised", lambda self: self)
    monkeypatch.setattr(protein_evaluate, "glued", lambda chains, lengths, seed: others[: len(lengths)])
    monkeypatch.setattr(
        judge, "folds", lambda chains: seen.append(chains) or {"nearest_tm": 0.0, "copy_rate": 0.0, "pairwise_tm": 0.0}
    )
    monkeypatch.setattr(judge, "compare", lambda chains: dict.fromkeys(MEASURES, 0.0) | {"plausible": 0.0, "ramachandran": 0.0})
    made = [Backbone(x) for x in others[:16]]
    samples = Samples.of(made, domain=get_domain("protein"))
    protocol = judge.measure(samples, tm_samples=12)["protocol"]
    assert [len(chains) for chains in seen] == [12] * 3 and "12 samples, 12 real and 12 glued chains" in protocol["tm"]
    first = sum(any(x is y for y in family) for x in seen[1])
    assert 1 <= first <= 6, f"{first} of 12 from the quarter that stands in front"
    assert not all(x is y.atoms for x, y in zip(seen[0], made, strict=False)), "of the samples, too"
    drawn = [x.tobytes() for x in seen[1]]
    seen.clear()
    judge.measure(samples, tm_samples=12)
    assert [x.tobytes() for x in seen[1]] == drawn, "the same for the same seed"
    assert "tm" not in judge.measure(samples, tm_samples=0)["protocol"]
    with pytest.raises(ConfigError, match="tm_samples"):
        judge.measure(samples, tm_samples=-1)

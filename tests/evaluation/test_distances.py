"""Metrics on features against known answers: a wrong term, direction or constant turns one red."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
import torch

from zoo.errors import ConfigError, DataError, ShapeError, ZooError
from zoo.evaluation.distances import (
    frechet_distance,
    jensen_shannon,
    kernel_distance,
    nearest_distances,
    neighbour_radii,
    precision_recall,
    wilson_interval,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices this small are slower on several threads, and far slower where other work shares the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(n: int, d: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift


def with_moments(mean: torch.Tensor, cov: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """Rows whose sample mean and unbiased covariance are exactly these."""
    x = draw(n, len(mean), seed)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / (n - 1)), x.T, upper=False)
    return mean + (torch.linalg.cholesky(cov) @ white).T


# ---- Frechet distance --------------------------------------------------------------------------------------


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    mean_a, mean_b = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
    std_a, std_b = torch.tensor([1.0, 2.0, 0.1]).double(), torch.tensor([3.0, 0.5, 0.1]).double()
    a = with_moments(mean_a, torch.diag(std_a**2), 40, seed=1)
    b = with_moments(mean_b, torch.diag(std_b**2), 70, seed=2)
    truth = ((mean_a - mean_b) ** 2).sum() + ((std_a - std_b) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(truth.item(), rel=1e-10)
    assert frechet_distance(b, a) == pytest.approx(truth.item(), rel=1e-10)


def test_frechet_of_correlated_gaussians_needs_the_matrix_root():
    # covariances that do not commute: roots of the diagonals would give another number
    a_cov = torch.tensor([[2.0, 1.2], [1.2, 1.0]]).double()
    b_cov = torch.tensor([[1.0, -0.7], [-0.7, 3.0]]).double()
    # 2x2: the trace of a root is sqrt(tr + 2 sqrt(det))
    product = a_cov @ b_cov
    root = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    truth = (a_cov.trace() + b_cov.trace()).item() - 2 * root
    zero = torch.zeros(2).double()
    got = frechet_distance(with_moments(zero, a_cov, 30, seed=3), with_moments(zero, b_cov, 50, seed=4))
    assert got == pytest.approx(truth, rel=1e-10)


def test_frechet_of_equal_sets_is_zero_and_of_a_shift_its_square():
    a = draw(200, 8, seed=5)
    assert frechet_distance(a, a.clone()) < 1e-9
    assert frechet_distance(a, a + 0.5) == pytest.approx(8 * 0.25, rel=1e-9)


def test_frechet_keeps_its_digits_far_from_the_origin():
    a, b = draw(300, 4, seed=6), draw(300, 4, seed=7, scale=1.5)
    assert frechet_distance(a + 1e6, b + 1e6) == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_frechet_takes_dead_features_and_float32():
    a, b = draw(100, 6, seed=8), draw(100, 6, seed=9)
    a[:, 2] = b[:, 2] = 0  # a ReLU that never fires: singular covariances
    keep = [0, 1, 3, 4, 5]
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(a[:, keep], b[:, keep]), rel=1e-6)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(frechet_distance(a, b), rel=1e-5)


# ---- kernel distance ---------------------------------------------------------------------------------------


def test_kernel_distance_is_the_unbiased_formula():
    a, b = draw(12, 3, seed=10), draw(12, 3, seed=11, shift=0.3)
    total = 0.0
    for i in range(12):
        for j in range(12):
            k = lambda x, y: ((x @ y).item() / 3 + 1) ** 3  # noqa: E731
            total += (k(a[i], a[j]) + k(b[i], b[j])) / (12 * 11) if i != j else 0.0
            total -= 2 * k(a[i], b[j]) / 144
    got = kernel_distance(a, b, subsets=4, subset_size=12)  # every subset is the whole set
    assert got.mean == pytest.approx(total, rel=1e-10)
    assert got.std == pytest.approx(0, abs=1e-10)


def test_kernel_distance_has_no_bias():
    values = [kernel_distance(draw(60, 4, s), draw(60, 4, s + 1000), subsets=1, subset_size=60).mean for s in range(80)]
    mean, error = torch.tensor(values).mean(), torch.tensor(values).std() / math.sqrt(len(values))
    assert abs(mean) < 3 * error  # with the diagonal left in, the mean is some 30 errors away
    assert min(values) < 0 < max(values)


def test_kernel_distance_sees_a_shift_and_leaves_the_global_state_alone():
    a, b = draw(300, 4, seed=12), draw(300, 4, seed=13)
    torch.manual_seed(77)
    expected = torch.rand(3)
    torch.manual_seed(77)
    near = kernel_distance(a, b, subsets=20, subset_size=100, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert near == kernel_distance(a, b, subsets=20, subset_size=100, seed=1)
    assert near != kernel_distance(a, b, subsets=20, subset_size=100, seed=2)
    assert kernel_distance(a, b + 1, subsets=20, subset_size=100).mean > 0.3 > abs(near.mean) + near.std


# ---- precision and recall ----------------------------------------------------------------------------------


def test_radii_leave_the_row_itself_out():
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_radii(line, 1).tolist() == pytest.approx([1, 1, 2, 4])
    assert neighbour_radii(line, 2).tolist() == pytest.approx([3, 2, 3, 6])
    x = draw(50, 3, seed=14)
    assert torch.allclose(neighbour_radii(x, 3, chunk=7), neighbour_radii(x, 3, chunk=1000))


def test_disjoint_sets_have_neither_precision_nor_recall():
    assert precision_recall(draw(60, 4, seed=15), draw(80, 4, seed=16, shift=100)) == (0, 0)


def test_equal_sets_have_both():
    x = draw(60, 4, seed=17)
    assert precision_recall(x, x.clone()) == (1, 1)


def test_a_generator_that_knows_one_of_two_modes_is_precise_but_not_complete():
    real = torch.cat([draw(100, 3, seed=18), draw(100, 3, seed=19, shift=50)])
    assert precision_recall(real[:100], real) == (1, 0.5)
    assert precision_recall(real, real[:100]) == (0.5, 1)  # the other way round: half of the samples are junk


def test_a_wide_generator_covers_and_a_narrow_one_does_not():
    real = draw(400, 2, seed=20)
    wide, narrow = precision_recall(draw(400, 2, seed=21, scale=4), real), precision_recall(real * 0.2, real)
    assert wide.precision < 0.5
    assert narrow.precision > 0.9
    assert narrow.recall < 0.4


def test_precision_recall_counts_by_hand():
    real = torch.tensor([[0.0], [1.0], [10.0], [12.0]])  # radii for k = 1: 1 1 2 2
    generated = torch.tensor([[-0.5], [2.5], [13.5], [14.5]])  # radii 3 3 1 1
    # within: -0.5 (of 0), 13.5 (of 12); not 2.5 and 14.5. Covered: 0 and 1 (by -0.5), not 10 and 12
    assert precision_recall(generated, real, k=1) == (0.5, 0.5)
    radii = {"generated_radii": neighbour_radii(generated, 1), "real_radii": neighbour_radii(real, 1)}
    assert precision_recall(generated, real, k=1, chunk=3, **radii) == (0.5, 0.5)


def test_torch_fidelity_agrees_where_it_is_installed():
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    a, b = draw(200, 5, seed=22, scale=0.8), draw(300, 5, seed=23)
    got = precision_recall(a, b)
    peer = prc.prc_features_to_metric(a, b, prc_neighborhood=3, verbose=False)
    assert (peer["precision"], peer["recall"]) == pytest.approx(got, abs=1e-6)


# ---- copies and intervals ----------------------------------------------------------------------------------


def test_nearest_distances_are_exact_for_copies_and_chunks():
    b = draw(300, 50, seed=24).float()
    a = torch.cat([b[[7, 200]], draw(30, 50, seed=25).float(), b[[4]] + 1e-3])
    distance, index = nearest_distances(a, b, chunk=8)
    brute = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert torch.allclose(distance, brute.values, rtol=1e-12)
    assert torch.equal(index, brute.indices)
    assert distance[:2].tolist() == [0, 0]
    assert index[:2].tolist() == [7, 200]
    assert distance[-1].item() == pytest.approx(1e-3 * math.sqrt(50), rel=1e-3)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # the first three from Newcombe 1998 (Statistics in Medicine 17:857), Table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0)],
)
def test_wilson_interval(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "n", "confidence"), [(3, 17, 0.9), (930, 1000, 0.95), (1, 2, 0.99), (4999, 10000, 0.5)])
def test_the_ends_of_an_interval_lie_z_deviations_from_the_share(successes, n, confidence):
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), successes / n
    for end in wilson_interval(successes, n, confidence):  # Wilson's definition, before it is solved for the end
        assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-10)


def test_counts_may_be_scalars_of_numpy_and_torch():
    expected = wilson_interval(15, 148)
    for kind in (np.int64, np.uint8, np.float32, torch.tensor, lambda x: torch.tensor(float(x))):
        assert wilson_interval(kind(15), kind(148)) == expected
    assert all(type(end) is float for end in expected)


# ---- refusals ----------------------------------------------------------------------------------------------

SET_METRICS = [frechet_distance, kernel_distance, precision_recall]


@pytest.mark.parametrize("metric", [*SET_METRICS, nearest_distances])
def test_bad_features_are_refused(metric):
    good, nan = draw(20, 3, seed=26), draw(20, 3, seed=27)
    nan[4, 1] = math.nan
    with pytest.raises(ShapeError, match=r"\(20, 3\) and \(20, 4\)"):
        metric(good, draw(20, 4, seed=28))
    with pytest.raises(ShapeError):
        metric(good[0], good)
    with pytest.raises(ShapeError, match="rows"):
        metric(good[:0], good)
    with pytest.raises(DataError, match="floating"):
        metric(good.long(), good.long())
    with pytest.raises(DataError, match="NaN"):
        metric(nan, good)


def test_bad_options_are_refused():
    x = draw(20, 3, seed=29)
    with pytest.raises(ConfigError, match=r"2\.\.20"):
        kernel_distance(x, x, subset_size=21)
    with pytest.raises(ShapeError, match="at least 21 rows"):
        precision_recall(x, x, k=20)
    with pytest.raises(ShapeError, match="real_radii"):
        precision_recall(x, x, real_radii=torch.ones(3))
    for call in (
        lambda: precision_recall(x, x, k=0),
        lambda: nearest_distances(x, x, chunk=0),
    ):
        with pytest.raises(ConfigError):
            call()


@pytest.mark.parametrize(
    ("successes", "n", "confidence"),
    [
        (3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 1.0), (1, 2, 0.0), (1.5, 2, 0.95), (1, math.nan, 0.95),
        (1, math.inf, 0.95), ("one", 2, 0.95), (torch.tensor([1, 2]), 2, 0.95), (np.array([1, 2]), 2, 0.95),
    ],
)  # fmt: skip
def test_counts_that_are_not_valid_are_refused(successes, n, confidence):
    with pytest.raises(ConfigError, match="give whole numbers"):
        wilson_interval(successes, n, confidence)


@pytest.mark.parametrize(
    ("p", "q", "error", "message"),
    [
        ([1, 2], [1, 2, 3], ShapeError, r"\(2,\) and \(3,\)"),
        ([[1, 2]], [[1, 2]], ShapeError, "same bins"),
        ([1, 2], [0, 0], DataError, "above zero"),
        ([], [], DataError, "above zero"),
        ([1, -1], [1, 2], DataError, "negative"),
        ([1, 2], [1, math.nan], DataError, "finite"),
        ([1, math.inf], [1, 2], DataError, "finite"),
    ],
)
def test_what_is_not_a_distribution_is_refused(p, q, error, message):
    with pytest.raises(error, match=message):
        jensen_shannon(torch.tensor(p), torch.tensor(q))


def test_a_missing_library_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    for module in ("torchmetrics.image", "torchmetrics.image.fid", "torchmetrics.image.kid"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for metric in (frechet_distance, lambda a, b: kernel_distance(a, b, subset_size=10)):
        with pytest.raises(ZooError, match=r"diffusion-zoo\[eval\]"):
            metric(draw(20, 3, seed=30), draw(20, 3, seed=31))
    for module in ("scipy.stats", "scipy.spatial.distance"):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: wilson_interval(1, 2), lambda: jensen_shannon(torch.ones(2), torch.ones(2))):
        with pytest.raises(ConfigError, match=r"scipy is needed.*diffusion-zoo\[eval\]"):
            call()


@pytest.mark.slow
def test_the_import_is_light():
    code = "import sys, json, zoo.evaluation.distances; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert not {"torchmetrics", "scipy", "torchvision"} & set(loaded)


def test_jensen_shannon_is_the_entropy_of_the_mean_less_the_mean_entropy():
    def entropy(x: list[float]) -> float:
        return -sum(v * math.log(v) for v in x if v)

    p, q = torch.tensor([3, 0, 5, 2]), torch.tensor([1, 4, 0, 15])
    a, b = (p.double() / 10).tolist(), (q.double() / 20).tolist()
    middle = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
    assert jensen_shannon(p, q) == pytest.approx(entropy(middle) - (entropy(a) + entropy(b)) / 2, rel=1e-12)
    assert jensen_shannon(p, q) == jensen_shannon(q, p) == jensen_shannon(p.float(), 2 * q)
    assert jensen_shannon(torch.tensor([1, 0]), torch.tensor([0, 1])) == pytest.approx(math.log(2))


def test_distributions_that_differ_by_rounding_have_no_divergence():
    """The sum under scipy's root can round to a number below zero, and the root is then NaN."""
    for seed in range(20):
        p = draw(400, 1, seed).flatten().abs()
        q = 0.3 * p * (1 + 1e-12 * draw(400, 1, seed + 100).flatten())
        assert jensen_shannon(p, p) == 0
        assert 0 <= jensen_shannon(p, q) < 1e-12

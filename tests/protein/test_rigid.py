import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from zoo.protein import rigid

G = torch.Generator().manual_seed(0)
A, B = (torch.randn(4, 9, 3, dtype=torch.float64, generator=G) for _ in range(2))


def test_random_rotations_are_rotations_and_uniform():
    turns = torch.stack([rigid.random_rotation(G) for _ in range(1000)])
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand_as(turns), atol=1e-5, rtol=0)
    assert (torch.linalg.det(turns) > 0.99).all()
    assert turns.mean(0).abs().max() < 0.07, "every direction goes everywhere"
    # the angle of a uniform rotation has density (1 - cos) / pi, so its mean is pi / 2 + 2 / pi
    angle = torch.acos(((turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))
    assert angle.mean().item() == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.07)


def test_superposition_is_scipys():
    for a, b, laid, error in zip(A, B, rigid.superpose(A, B), rigid.rmsd(A, B), strict=True):
        turn, root = Rotation.align_vectors((b - b.mean(0)).numpy(), (a - a.mean(0)).numpy())
        np.testing.assert_allclose(laid, turn.apply(a - a.mean(0)) + b.mean(0).numpy(), atol=1e-9)
        assert error.item() == pytest.approx(root / math.sqrt(9), abs=1e-9)


def test_superposition_undoes_motion_but_no_mirror():
    turn = rigid.random_rotation(G).double()
    assert rigid.rmsd(A @ turn.T + 7.0, A).max() < 1e-6
    assert rigid.rmsd(A * torch.tensor([1.0, 1.0, -1.0]), A).min() > 0.1


def test_a_part_is_laid_where_the_whole_has_it():
    part = A[0, 2:6] + 5.0
    out = rigid.lay(part, B, 2, reach=2.0)
    torch.testing.assert_close(out[:, 2:6], rigid.superpose(part.expand(4, -1, -1), B[:, 2:6]))
    moved = out - B
    for end, beside in ((2, (1, 0)), (5, (6, 7, 8))):
        for k, i in enumerate(beside):
            torch.testing.assert_close(moved[:, i], moved[:, end] * math.exp(-k / 2.0))
    for first in (0, 5):
        laid = rigid.lay(part, B, first, reach=1e-3)
        rest = torch.tensor([i for i in range(9) if not first - 1 <= i < first + 5])
        assert torch.equal(laid[:, rest], B[:, rest]), "at a short reach only the next point follows"


def test_points_between_two_that_are_put_follow_both():
    points, where = B + torch.randn(4, 9, 3, dtype=torch.float64, generator=G), torch.zeros(9, dtype=torch.bool)
    torch.testing.assert_close(rigid.put(points, B, where, 2.0), B, rtol=0, atol=0)
    where[[1, 6]] = True
    out, moved = rigid.put(points, B, where, 2.0), points - B
    torch.testing.assert_close(out[:, where], points[:, where], rtol=0, atol=0)
    torch.testing.assert_close((out - B)[:, 0], moved[:, 1])
    torch.testing.assert_close((out - B)[:, 3], moved[:, 1] * math.exp(-1 / 2) + moved[:, 6] * math.exp(-2 / 2))
    torch.testing.assert_close((out - B)[:, 8], moved[:, 6] * math.exp(-1 / 2))


def test_smoothing_is_the_posterior_mean_of_a_random_walk():
    """Solved with its precision matrix, far from the ends; the noise of a point is heard by its neighbours alone."""
    step, sigma, n = 1.2, 2.5, 120
    x = torch.randn(1, n, 3, generator=G, dtype=torch.float64).cumsum(1)
    walk = torch.diff(torch.eye(n, dtype=torch.float64), dim=0)
    wanted = torch.linalg.solve(walk.T @ walk / step + torch.eye(n, dtype=torch.float64) / sigma**2, x[0] / sigma**2)
    mask = torch.ones(1, n, dtype=torch.bool)
    found = rigid.smooth(x, torch.tensor([sigma], dtype=torch.float64), mask, step)[0]
    torch.testing.assert_close(found[45:75], wanted[45:75], atol=1e-6, rtol=0)
    mask[:, 100:] = False
    padded = rigid.smooth(torch.where(mask[..., None], x, 1e3), torch.tensor([sigma], dtype=torch.float64), mask, step)[0]
    torch.testing.assert_close(padded[:60], found[:60], atol=1e-5, rtol=0)


def test_mixed_precision_does_not_round_a_shape():
    a, b = A.float(), B.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert rigid.rmsd(rigid.superpose(a, b), a).max() < 1e-5
        torch.testing.assert_close(rigid.superpose(a, b).double(), rigid.superpose(A, B), atol=1e-5, rtol=0)


def test_a_point_is_placed_where_length_angle_and_dihedral_say():
    torsion = torch.tensor([-2.5, -0.3, 1.0, 3.0], dtype=torch.float64)
    a, b, c = A[:, 0], A[:, 1], A[:, 2]
    d = rigid.extend(a, b, c, 1.5, 2.0, torsion)
    torch.testing.assert_close((d - c).norm(dim=1), torch.full((4,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(rigid.dihedral(a, b, c, d), torsion)
    cosine = (rigid.unit(b - c) * rigid.unit(d - c)).sum(1)
    torch.testing.assert_close(cosine, torch.full((4,), math.cos(2.0), dtype=torch.float64))


def test_distances_are_held_with_little_movement():
    chain = torch.cumsum(torch.nn.functional.normalize(A[0], dim=1), 0)
    wanted = {1: torch.ones(8, dtype=torch.float64), 2: torch.full((7,), 1.4, dtype=torch.float64)}
    rough = rigid.hold(chain, wanted, 500)
    held = rigid.hold(rough + 0.01 * A[1], wanted, 300)
    for k, lengths in wanted.items():
        torch.testing.assert_close((held[k:] - held[:-k]).norm(dim=1), lengths, atol=1e-3, rtol=0)
    assert (held - rough).norm(dim=1).max() < 0.06


def test_smooth_lddt_of_known_errors():
    x = torch.tensor([[[0.0, 0, 0], [4.0, 0, 0], [40.0, 0, 0], [7.0, 7, 7]]])
    mask = torch.tensor([[True, True, True, False]])

    def loss(shift):
        moved = x + torch.tensor([[[0.0, 0, 0], [shift, 0, 0], [9.0, 0, 0], [5.0, 0, 0]]])
        return rigid.smooth_lddt(moved, x, mask, 15.0, torch.ones(1)).item()

    for shift in (0.0, 1.0, 3.0):  # one pair is near: the third point is far, the fourth is padding
        expected = 1 - sum(1 / (1 + math.exp(shift - limit)) for limit in (0.5, 1, 2, 4)) / 4
        assert loss(shift) == pytest.approx(expected, abs=1e-5)


def test_angles_of_points_that_coincide_have_a_gradient():
    """Padding lies on one point; gradients through the net may not turn into NaN by it."""
    for apart in (0.0, 1e-12):  # rounding leaves some of it
        points = apart * torch.arange(12.0).reshape(4, 3).sin()
        points.requires_grad_()
        angle = rigid.dihedral(*points)
        (slope,) = torch.autograd.grad(angle, points)
        assert abs(float(angle)) < 1e-6 and torch.isfinite(slope).all()

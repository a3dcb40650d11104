"""Directions, angles, rotations and superposition of points in space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def random_rotation(rng: torch.Generator | None = None) -> Tensor:
    """A rotation matrix (3, 3), uniform: a normal draw of four numbers is a uniform quaternion (Shoemake 1992)."""
    w, x, y, z = torch.nn.functional.normalize(torch.randn(4, generator=rng), dim=0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row) for row in rows])


def superpose(moving: Tensor, fixed: Tensor) -> Tensor:
    """`moving` (..., P, 3), turned and shifted so that it lies best on `fixed` (..., P, 3) (Kabsch 1976).

    The best shift makes the two means equal. Mixed precision does not round it: shapes come out as they went in.
    """
    with torch.autocast(moving.device.type, enabled=False):
        here, there = moving.mean(-2, keepdim=True), fixed.mean(-2, keepdim=True)
        u, _, vh = torch.linalg.svd((fixed - there).mT @ (moving - here))
        sign = torch.ones_like(u[..., 0, :])
        sign[..., 2] = torch.linalg.det(u) * torch.linalg.det(vh)
        turn = (u * sign[..., None, :]) @ vh
        laid: Tensor = (moving - here) @ turn.mT + there
    return laid


def put(points: Tensor, whole: Tensor, where: Tensor, reach: float) -> Tensor:
    """A chain `whole` (..., N, 3) with `points` (..., N, 3) where `where` (N,) is True, and the others moved along.

    A point moves as the last one put before it and the first one after it did, by exp(-(k - 1) / reach) of that if it is the
    k-th from there, so that no bond breaks.
    """
    place, N = torch.arange(len(where), device=where.device), len(where)
    out = torch.where(where[:, None], points, whole)
    moved = out - whole
    before = torch.where(where, place, -1).cummax(0).values
    after = torch.where(where, place, N).flip(0).cummin(0).values.flip(0)
    for end, there in ((before, before >= 0), (after, after < N)):
        share = torch.where(there & ~where, ((1 - (place - end).abs()) / reach).exp(), 0.0).to(whole)
        out = out + share[:, None] * moved[..., end.clamp(0, N - 1), :]
    return out


def lay(part: Tensor, whole: Tensor, first: int, reach: float) -> Tensor:
    """A chain `whole` (..., N, 3) whose points from `first` on are `part` (P, 3), turned and shifted to lie best on them.

    The others move along, see `put`.
    """
    where = torch.zeros(whole.shape[-2], dtype=torch.bool, device=whole.device)
    where[first : first + len(part)] = True
    return lay_bodies([(part, where)], whole, reach)


def lay_bodies(bodies: Sequence[tuple[Tensor, Tensor]], whole: Tensor, reach: float) -> Tensor:
    """A chain `whole` (..., N, 3) of which parts are rigid bodies, each turned and shifted to lie best on what it replaces.

    Args:
        bodies: (points (P, 3), where (N,) bool with P times True), of which a body may be several runs of the chain.
        reach: by which the others move along, see `put`.
    """
    points, held = whole.clone(), torch.zeros(whole.shape[-2], dtype=torch.bool, device=whole.device)
    for part, where in bodies:
        points[..., where, :] = superpose(part.expand_as(points[..., where, :]), points[..., where, :])
        held = held | where
    return put(points, whole, held, reach)


def smooth(x: Tensor, sigma: Tensor, mask: Tensor, step: float) -> Tensor:
    """Noisy points of a chain (B, N, 3) averaged along it: the best linear guess if a chain were a random walk.

    Its steady-state smoother weighs points by exp(-k |a - b|) with cosh k = 1 + step / (2 sigma^2).

    Args:
        sigma: (B,) the noise. mask: (B, N) bool, real points. step: mean square step of the walk, in one coordinate.
    """
    k = torch.acosh(1 + step / (2 * sigma.square()))
    place = torch.arange(x.shape[1], device=x.device)
    weight = torch.exp((-k[:, None, None] * (place[:, None] - place).abs()).clamp(min=-60)) * mask[:, None]
    return (weight / weight.sum(2, keepdim=True).clamp(min=1e-6)) @ x


def rmsd(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square distance (...) of the points a, b (..., P, 3) after superposition."""
    return (superpose(a, b) - b).square().sum(-1).mean(-1).sqrt()


def unit(v: Tensor) -> Tensor:
    """v (..., 3) at length 1; 0 stays 0."""
    return v * torch.rsqrt(v.square().sum(-1, keepdim=True) + 1e-12)


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The angle (...) in -pi..pi around b-c of four points (..., 3), by the rule of IUPAC."""
    u, v, w = b - a, c - b, d - c
    left, right = torch.linalg.cross(u, v), torch.linalg.cross(v, w)
    sine, cosine = (torch.linalg.cross(left, right) * unit(v)).sum(-1), (left * right).sum(-1)
    # points that coincide, up to rounding, as padding does, have no angle: it is 0 there, and its gradient, else NaN, is finite
    none = sine.square() + cosine.square() < 1e-20
    return torch.atan2(sine, torch.where(none, torch.ones_like(cosine), cosine))


def extend(a: Tensor, b: Tensor, c: Tensor, length: Tensor | float, angle: Tensor | float, torsion: Tensor) -> Tensor:
    """The point d (..., 3) at `length` from c, with the angle b-c-d and the dihedral a-b-c-d (Parsons et al. 2005, NeRF)."""
    angle = torch.as_tensor(angle, dtype=c.dtype, device=c.device)
    forward = unit(c - b)
    normal = unit(torch.linalg.cross(b - a, forward))
    side = torch.linalg.cross(normal, forward)
    local = torch.stack(
        [-torch.cos(angle).expand_as(torsion), torch.sin(angle) * torch.cos(torsion), torch.sin(angle) * torch.sin(torsion)], -1
    )
    step: Tensor = local[..., :1] * forward + local[..., 1:2] * side + local[..., 2:] * normal
    return c + torch.as_tensor(length, dtype=c.dtype, device=c.device) * step


def hold(x: Tensor, wanted: Mapping[int, Tensor], rounds: int, fixed: Tensor | None = None) -> Tensor:
    """Points (N, 3) of a chain moved a little until distances are as wanted: (SHAKE, Ryckaert et al. 1977, all bonds at once).

    Args:
        wanted: {k: distances (N - k,) of each point to the k-th after it}.
        rounds: how often both ends of each bond are moved towards it.
        fixed: (N,) bool, points that stay where they are; None: none.
    """
    for _ in range(rounds):
        move = torch.zeros_like(x)
        for k, lengths in wanted.items():
            between = x[k:] - x[:-k]
            half = 0.5 * (torch.linalg.vector_norm(between, dim=-1) - lengths)[:, None] * unit(between)
            move[:-k] += half
            move[k:] -= half
        if fixed is not None:
            move = torch.where(fixed[:, None], 0, move)
        x = x + 0.4 * move  # less than half: a point is moved by four bonds at once
    return x


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance (...) of points (..., 3), with a finite gradient at 0."""
    apart: Tensor = ((a - b).square().sum(-1) + 1e-8).sqrt()
    return apart


def smooth_lddt(guess: Tensor, true: Tensor, mask: Tensor, cutoff: float, weight: Tensor) -> Tensor:
    """1 - smooth lDDT of points (B,N,3) in angstrom, a scalar (Abramson et al. 2024, Algorithm 27).

    Pairs closer than `cutoff` count; a distance that is off by 0.5, 1, 2 or 4 loses up to a quarter each.

    Args:
        mask: (B,N) bool, real points. weight: (B,) of each sample.
    """
    apart = distance(true[:, None], true[:, :, None])
    error = (distance(guess[:, None], guess[:, :, None]) - apart).abs()
    same = torch.eye(true.shape[1], dtype=torch.bool, device=true.device)
    near = (apart < cutoff) & mask[:, None] & mask[:, :, None] & ~same
    score = torch.stack([torch.sigmoid(limit - error) for limit in (0.5, 1.0, 2.0, 4.0)]).mean(0)
    loss: Tensor = ((1 - score) * near * weight[:, None, None]).sum() / near.sum().clamp(min=1)
    return loss

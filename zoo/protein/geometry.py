"""Geometry of protein backbones in torch, in angstrom; atoms come in the order N, CA, C along the last axis but one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.protein.rigid import dihedral, extend, hold, unit

#: C=O and the angle CA-C-O (Engh & Huber 1991)
C_O, CA_C_O = 1.231, math.radians(120.4)
#: ideal lengths of N-CA, CA-C, C-N and angles at N, CA, C (Engh & Huber 1991)
LENGTHS = (1.458, 1.525, 1.329)
ANGLES = tuple(math.radians(a) for a in (121.7, 111.0, 117.2))


def frames(x: Tensor) -> Tensor:
    """Right-handed axes of each residue: x (..., N, 3, 3) -> R (..., N, 3, 3), whose rows are unit vectors.

    Gram-Schmidt from C - CA and N - CA (Jumper et al. 2021, Algorithm 21): R @ (p - CA) is p seen by the residue. Mirror
    images have different coordinates in their frames, rotated copies the same.
    """
    n, ca, c = x.unbind(-2)
    first = unit(c - ca)
    second = n - ca
    second = unit(second - (second * first).sum(-1, keepdim=True) * first)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)


def torsions(x: Tensor) -> Tensor:
    """phi, psi, omega (..., N, 3) of x (..., N, 3, 3), omega of the bond to the next residue; NaN where there is none."""
    n, ca, c = x.unbind(-2)
    phi = dihedral(c[..., :-1, :], n[..., 1:, :], ca[..., 1:, :], c[..., 1:, :])
    psi = dihedral(n[..., :-1, :], ca[..., :-1, :], c[..., :-1, :], n[..., 1:, :])
    omega = dihedral(ca[..., :-1, :], c[..., :-1, :], n[..., 1:, :], ca[..., 1:, :])
    none = math.nan
    return torch.stack([F.pad(phi, (1, 0), value=none), F.pad(psi, (0, 1), value=none), F.pad(omega, (0, 1), value=none)], -1)


def build(angles: Tensor) -> Tensor:
    """A chain (N, 3, 3) with ideal bonds from phi, psi, omega (N, 3); the first phi and the last psi and omega are not used."""
    zero = torch.zeros(3, dtype=angles.dtype)
    atoms = [zero, zero + torch.tensor([LENGTHS[0], 0, 0], dtype=angles.dtype)]
    start = atoms[1] + LENGTHS[1] * torch.tensor([-math.cos(ANGLES[1]), math.sin(ANGLES[1]), 0], dtype=angles.dtype)
    atoms.append(start)
    for i in range(1, len(angles)):
        phi, (_, psi, omega) = angles[i, 0], angles[i - 1]
        for length, angle, torsion in zip(
            (LENGTHS[2], LENGTHS[0], LENGTHS[1]), (ANGLES[2], ANGLES[0], ANGLES[1]), (psi, omega, phi), strict=True
        ):
            atoms.append(extend(atoms[-3], atoms[-2], atoms[-1], length, angle, torsion))
    return torch.stack(atoms).view(-1, 3, 3)


def bends(x: Tensor) -> Tensor:
    """Angles of bonds along a backbone (..., N, 3) of x (..., N, 3, 3), as FoldingDiff counts them; NaN in the last row.

    Row i holds N-CA-C of residue i + 1, CA-C-N from residue i to the next, and C-N-CA there: what places residue i + 1.
    """
    n, ca, c = x.unbind(-2)
    further = n[..., 1:, :], ca[..., 1:, :], c[..., 1:, :]
    here = ca[..., :-1, :], c[..., :-1, :]
    found = [_bend(*further), _bend(*here, further[0]), _bend(here[1], *further[:2])]
    return F.pad(torch.stack(found, -1), (0, 0, 0, 1), value=math.nan)


def _bend(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The angle a-b-c (...) of points (..., 3)."""
    u, v = a - b, c - b
    return torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1))


def grown(angles: Tensor, lengths: tuple[float, float, float], first: Tensor) -> Tensor:
    """Atoms (..., N, 3, 3) of six angles a residue (..., N, 6), in radians: natural extension (Parsons et al. 2005, NeRF).

    The last axis is phi, psi, omega as of `torsions`, and the three of `bends`. What no atom hangs on is not used.

    Args:
        lengths: of the bonds N-CA, CA-C, C-N in angstrom.
        first: N, CA and C of the first residue (3, 3) in angstrom.
    """
    phi, psi, omega, tau, ca_c_n, c_n_ca = angles.unbind(-1)
    # of each atom from the second residue on, N, CA, C: its torsion, the angle of its bond, and the bond's length
    torsion = torch.stack([psi[..., :-1], omega[..., :-1], phi[..., 1:]], -1).flatten(-2)
    bend = torch.stack([ca_c_n[..., :-1], c_n_ca[..., :-1], tau[..., :-1]], -1).flatten(-2)
    length = angles.new_tensor([lengths[2], lengths[0], lengths[1]]).repeat(angles.shape[-2] - 1)
    first = first.to(angles).expand(*angles.shape[:-2], 3, 3)
    # axes at the last bond: along it, away from the atom before it in their plane, and across that plane
    along = unit(first[..., 2, :] - first[..., 1, :])
    across = unit(torch.linalg.cross(first[..., 1, :] - first[..., 0, :], along))
    axes = torch.stack([along, torch.linalg.cross(across, along), across], -1)
    sine, cosine, s, c = bend.sin(), bend.cos(), torsion.sin(), torsion.cos()
    # an angle below 0, which only a net can say, turns the plane around
    side = torch.where(sine < 0, -1.0, 1.0).to(angles)
    rows = [
        torch.stack([-cosine, -side * sine, torch.zeros_like(s)], -1),
        torch.stack([sine * c, -side * cosine * c, -side * s], -1),
        torch.stack([sine * s, -side * cosine * s, side * c], -1),
    ]
    turns, steps = torch.stack(rows, -2), []
    for k in range(turns.shape[-3]):
        axes = axes @ turns[..., k, :, :]
        steps.append(axes[..., 0])
    if not steps:
        return first[..., None, :, :]
    placed = first[..., 2:, :] + (torch.stack(steps, -2) * length[:, None]).cumsum(-2)
    return torch.cat([first, placed], -2).unflatten(-2, (-1, 3))


def place_oxygen(x: Tensor) -> Tensor:
    """O (..., N, 3) of x (..., N, 3, 3): in the plane of CA, C and the next N, on its far side.

    The last residue has no next N: its O is put opposite its own N (psi = 180 degrees), as in a strand.
    """
    n, ca, c = x.unbind(-2)
    flat = torch.full_like(n[..., 0], math.pi)
    beyond = extend(n, ca, c, LENGTHS[2], ANGLES[2], flat)[..., -1:, :]
    following = torch.cat([n[..., 1:, :], beyond], -2)
    return extend(following, ca, c, C_O, CA_C_O, flat)


def hydrogen_bonds(x: Tensor, oxygen: Tensor) -> Tensor:
    """bond[i, j] (N, N) bool: the C=O of residue i holds the N-H of residue j (Kabsch & Sander 1983: below -0.5 kcal/mol).

    Args:
        x: (N, 3, 3) backbone. oxygen: (N, 3).
    """
    n, _, c = x.unbind(1)
    hydrogen = torch.cat([n[:1], n[1:] + unit(c[:-1] - oxygen[:-1])])  # N-H is opposite to the C=O before it, 1 angstrom long

    def near(a: Tensor, b: Tensor) -> Tensor:
        return 1 / torch.cdist(a[None], b[None], compute_mode="donot_use_mm_for_euclid_dist")[0].clamp(min=0.5)

    energy = 27.888 * (near(oxygen, n) + near(c, hydrogen) - near(oxygen, hydrogen) - near(c, n))
    place = torch.arange(len(x), device=x.device)
    apart = (place[:, None] - place[None]).abs() > 1
    energy[:, 0] = 0  # the first residue has no N-H whose place is known
    return (energy < -0.5) & apart


def bridges(bond: Tensor) -> tuple[Tensor, Tensor]:
    """Parallel and antiparallel bridges (N, N) bool, symmetric, of residues three or more apart (Kabsch & Sander 1983).

    Args:
        bond: (N, N) bool, see `hydrogen_bonds`.
    """
    N = len(bond)
    padded = F.pad(bond, (1, 1, 1, 1))  # padded[i + 1, j + 1] is bond[i, j]: neighbours past the ends have no bond
    here, after, before = slice(1, N + 1), slice(2, N + 2), slice(0, N)
    one_way = padded[before, here] & padded[here, after].mT  # i - 1 bound to j, and j to i + 1
    parallel = one_way | one_way.mT
    both = padded[here, here] & padded[here, here].mT  # i bound to j, and j to i
    around = padded[before, after] & padded[before, after].mT  # i - 1 bound to j + 1, and j - 1 to i + 1
    place = torch.arange(N, device=bond.device)
    apart = (place[:, None] - place[None]).abs() > 2
    return parallel & apart, (both | around) & apart


def secondary_structure(x: Tensor, oxygen: Tensor | None = None) -> Tensor:
    """0 coil, 1 alpha helix, 2 strand for each residue (N,) int64, by hydrogen bonds (Kabsch & Sander 1983).

    Only alpha helices (two 4-turns in a row) and ladders of two or more bridges count.

    Args:
        x: (N, 3, 3) backbone. oxygen: (N, 3), default placed.
    """
    N, out = len(x), torch.zeros(len(x), dtype=torch.int64, device=x.device)
    if N < 6:
        return out
    bond = hydrogen_bonds(x, place_oxygen(x) if oxygen is None else oxygen)
    turn = torch.zeros(N, dtype=torch.bool, device=x.device)
    turn[:-4] = bond.diagonal(4)
    parallel, anti = bridges(bond)
    here, after, before = slice(1, N + 1), slice(2, N + 2), slice(0, N)
    along = F.pad(parallel, (1, 1, 1, 1))
    across = F.pad(anti, (1, 1, 1, 1))
    parallel_ladder = along[here, here] & (along[after, after] | along[before, before])
    anti_ladder = across[here, here] & (across[after, before] | across[before, after])
    out[(parallel_ladder | anti_ladder).any(1)] = 2
    for start in (turn[1:] & turn[:-1]).nonzero()[:, 0].tolist():
        out[start + 1 : start + 5] = 1
    return out


#: distances held by `idealise`: atoms apart along the backbone -> from N, from CA, from C
IDEAL = {
    1: LENGTHS,
    2: tuple(
        math.sqrt(a * a + b * b - 2 * a * b * math.cos(angle))
        for a, b, angle in zip(LENGTHS, (*LENGTHS[1:], LENGTHS[0]), (ANGLES[1], ANGLES[2], ANGLES[0]), strict=True)
    ),
}


def idealise(x: Tensor, rounds: int = 500, fixed: Tensor | None = None) -> Tensor:
    """x (N, 3, 3) with ideal bond lengths and angles, by small moves, see `zoo.protein.rigid.hold`.

    Errors above about 0.2 angstrom are not to be mended so: what comes out may have lost its strands.

    Args:
        fixed: (N,) bool, residues that stay where they are; None: none.
    """
    held = None if fixed is None else fixed.repeat_interleave(3)
    atoms = x.reshape(-1, 3)
    wanted = {k: torch.tensor(v, dtype=x.dtype, device=x.device).repeat(len(x))[: len(atoms) - k] for k, v in IDEAL.items()}
    return hold(atoms, wanted, rounds, held).view_as(x)

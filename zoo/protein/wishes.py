"""What chains are asked to be: their radius, secondary structure, contacts, and no clashes, as steers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.core.correction import INTERVAL, Setting
from zoo.core.energy import Energy, energy
from zoo.core.measure import Measured, measure
from zoo.errors import ConfigError
from zoo.protein.metrics import CA_CLASH, CLASH
from zoo.protein.rigid import distance
from zoo.values import number, whole

#: CA of residues that face each other in a sheet are no farther apart, and by how much they may be, angstrom
FACING, LOOSE = 5.2, 1.0
#: residues four apart along a strand are farther apart than this, and how sharply it is told, angstrom
STRETCHED, SHARP = 11.0, 0.7
#: CA distances of residues 2, 3 and 4 apart in an alpha helix, and by how much they may be off, angstrom
HELIX, SLACK = (5.5, 5.1, 6.2), 1.2
#: the triple product above which a CA trace turns right, and how sharply it is told
TURN, SHARPLY = 0.2, 0.1
#: the power of the turn in how much a residue is of a helix: blurred guesses of a helix have its distances long before its turn
HAND = 0.25
#: share of residues by hydrogen bonds -> line (at 0, slope) that makes it of the smooth one; fitted to a third of the training
#: chains of 40 to 100 residues
LINES = {"strands": (-0.003, 1.18), "helices": (-0.011, 1.18)}
#: letters of a pattern: strand, helix, neither; and one that says nothing
LETTERS, ANY = "EHL", "-"
#: least probability of a letter, so that the slope stays finite
LEAST = 0.02
#: margin in angstrom within which a clash is pushed apart before it is one
MARGIN = 0.3


def alphas(x: Tensor) -> Tensor:
    """CA (B,N,3) of chains (B,N,3,3), or of chains of CA alone (B,N,3)."""
    return x[:, :, 1] if x.ndim == 4 else x


def gyration(x: Tensor) -> Tensor:
    """Radius of gyration (B,) of CA of chains (B,N,3,3) or (B,N,3), in their units: sqrt(mean |CA - mean|^2)."""
    ca = alphas(x)
    return (ca - ca.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt()


def stranded(x: Tensor) -> Tensor:
    """How much each residue is of a strand (B,N), 0 to 1, smooth, of chains in angstrom, by CA alone.

    A strand is stretched, CA(i-2) to CA(i+2), and in a ladder: CA(i) and CA(j) face each other, and so do CA(i+1) and CA(j+1)
    and CA(i-1) and CA(j-1), or i+1 and j-1, i-1 and j+1. It reads blurred guesses as well as clean chains, where hydrogen bonds
    (`zoo.protein.geometry.secondary_structure`) are only seen in clean ones.
    """
    ca, N = alphas(x), x.shape[1]
    if N < 5:
        return x.new_zeros(x.shape[:2])
    stretched = F.pad(torch.sigmoid((distance(ca[:, 4:], ca[:, :-4]) - STRETCHED) / SHARP), (2, 2))
    off = -F.relu(distance(ca[:, :, None], ca[:, None]) - FACING).square() / (2 * LOOSE**2)
    around = F.pad(off, (1, 1, 1, 1), value=-50.0)
    after, before = slice(2, N + 2), slice(0, N)
    along = off + around[:, after, after] + around[:, before, before]
    across = off + around[:, after, before] + around[:, before, after]
    place = torch.arange(N, device=x.device)
    apart = (place[:, None] - place).abs() > 3
    return stretched * (1 - torch.exp(-((along.exp() + across.exp()) * apart).sum(2)))


def helical(x: Tensor) -> Tensor:
    """How much each residue is of an alpha helix (B,N), 0 to 1, smooth, of chains in angstrom, by CA alone."""
    ca, N = alphas(x), x.shape[1]
    if N < 5:
        return x.new_zeros(x.shape[:2])
    two, three, four = (distance(ca[:, k:], ca[:, :-k]) for k in (2, 3, 4))
    off = (two[:, :-2] - HELIX[0]).square() + (three[:, :-1] - HELIX[1]).square() + (four - HELIX[2]).square()
    return F.pad(torch.exp(-off / (2 * SLACK**2)) * right_handed(ca).pow(HAND), (2, 2))


def right_handed(ca: Tensor) -> Tensor:
    """Whether five CA (B,N,3) in a row turn right, (B,N-4), 0 to 1: distances are the same in a mirror.

    By the triple product of the directions of three steps, which is .77 in an alpha helix, and -.77 in its mirror image.
    """
    step = ca.diff(dim=1)
    step = step / (step.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    turn = (torch.linalg.cross(step[:, :-2], step[:, 1:-1]) * step[:, 2:]).sum(-1)
    right = torch.sigmoid((turn - TURN) / SHARPLY)
    return right[:, :-1] * right[:, 1:]


#: kind of structure -> how much each residue is of it
KINDS: Mapping[str, Callable[[Tensor], Tensor]] = {"strands": stranded, "helices": helical}


def share(kind: str, x: Tensor) -> Tensor:
    """About the share (B,) of residues of chains (B,N,3,3), in angstrom, that are of a kind by hydrogen bonds."""
    start, slope = LINES[kind]
    return start + slope * KINDS[kind](x).mean(1)


def radius(value: float, noise: float = 0.1) -> Measured:
    """Chains of a radius of gyration, of CA, in angstrom: a measurement that the net's own covariance is told of.

    Args:
        value: above 0. A compact chain of L residues has about 2.2 L^0.38 (Skolnick et al. 1997): 10.7 for 64.
        noise: standard deviation, angstrom.

    Raises:
        ConfigError: an argument that is invalid.
    """
    value = number(value, "radius", what="radius of gyration in angstrom")
    if not value > 0:
        raise ConfigError(f"radius={value:g}: give a radius of gyration in angstrom, above 0, such as 12.0.")
    return measure(torch.tensor(value), gyration, noise, products=1)


def secondary(*, strands: float | None = None, helices: float | None = None, noise: float = 0.02) -> Measured:
    """Chains of which a share of the residues is of strands, of alpha helices, or of each so many.

    The share is a smooth one of the distances of CA, see `stranded` and `helical`, on the scale of that by hydrogen bonds.

    Args:
        strands, helices: 0 to 1, together at most 1; None: as the net likes.
        noise: standard deviation of each share.

    Raises:
        ConfigError: no share, or one that is invalid.
    """
    asked = {k: number(v, k, 0, 1) for k, v in (("strands", strands), ("helices", helices)) if v is not None}
    if not asked or sum(asked.values()) > 1:
        given = ", ".join(f"{k}={v:g}" for k, v in asked.items()) or "nothing"
        raise ConfigError(f"secondary: {given}; give strands=, helices= or both, shares of residues that add up to 1 at most.")

    def shares(x: Tensor) -> Tensor:
        return torch.stack([share(kind, x) for kind in asked], 1)

    return measure(torch.tensor(list(asked.values())), shares, noise, products=len(asked))


def strands(value: float, noise: float = 0.02) -> Measured:
    """Chains of which this share of the residues, 0 to 1, is of strands, see `secondary`."""
    return secondary(strands=number(value, "strands", 0, 1), noise=noise)


def helices(value: float, noise: float = 0.02) -> Measured:
    """Chains of which this share of the residues, 0 to 1, is of alpha helices, see `secondary`."""
    return secondary(helices=number(value, "helices", 0, 1), noise=noise)


class Pattern(Energy):
    """What `pattern` makes, see there."""

    def __init__(self, text: str, weight: float, interval: tuple[float, float]) -> None:
        letters = text.strip().upper().replace("C", "L") if isinstance(text, str) else ""
        odd = [c for c in letters if c not in LETTERS + ANY]
        if not letters or odd or set(letters) == {ANY}:
            found = f"{odd[0]!r} in it" if odd else "no letter of a structure in it"
            raise ConfigError(
                f"pattern={text!r}: {found}; give a letter for each residue: E strand, H alpha helix, L neither, - any, as in "
                '"--EEEEELLLHHHHHHHH--".'
            )
        super().__init__(self.surprise, weight, interval, True, "domain")
        self.letters = letters
        self.classes = torch.tensor([LETTERS.find(c) for c in letters])

    def bound(self, setting: Setting) -> Pattern:
        found = super().bound(setting)
        found.loss = found.surprise
        return found

    def surprise(self, x: Tensor) -> Tensor:
        """-sum log p(letter | chain), (B,)."""
        if x.shape[1] != len(self.letters):
            raise ConfigError(f"pattern: {len(self.letters)} letters for a chain of {x.shape[1]} residues: give one for each.")
        classes = self.classes.to(x.device)
        said = classes >= 0
        p = kinds(x)[:, said].gather(2, classes[said].expand(len(x), -1)[..., None])[..., 0]
        return -(LEAST + (1 - LEAST) * p).log().sum(1)


def kinds(x: Tensor) -> Tensor:
    """How much each residue is of a strand, of a helix and of neither (B,N,3), which add up to 1, of chains in angstrom."""
    e, h = stranded(x), helical(x)
    both = torch.stack([e * (1 - h), h * (1 - e), (1 - e) * (1 - h)], 2)
    return both / both.sum(2, keepdim=True).clamp(min=1e-6)


def pattern(text: str, weight: float = 1.0, interval: tuple[float, float] = INTERVAL) -> Pattern:
    """Chains whose residues are of the structure that a text says, a letter for each: an energy -w sum log p(letter | x0).

    Args:
        text: E strand, H alpha helix, L (or C) neither, - any: "--EEEEELLLEEEEE--". Its length is that of the chain.
        weight, interval: as of `zoo.steer.energy`.

    Raises:
        ConfigError: an argument that is invalid; when it samples, a chain of another length.
    """
    return Pattern(text, weight, interval)


class Near(Measured):
    """What `contact` makes: a distance that is to be at most so long."""

    def target(self, value: Tensor) -> Tensor:
        return torch.minimum(super().target(value).expand_as(value), value)


def contact(i: int, j: int, distance: float = 8.0, noise: float = 0.2) -> Measured:
    """Chains in which CA of two residues are at most so far from each other; nearer ones are left as they are.

    Args:
        i, j: numbers of the residues in the chain, from 1.
        distance: angstrom. noise: its standard deviation.

    Raises:
        ConfigError: an argument that is invalid; when it samples, a residue that the chain does not have.
    """
    first, second = whole(i, "i", 1) - 1, whole(j, "j", 1) - 1
    most = number(distance, "distance", what="angstrom between CA")
    if abs(first - second) < 2:
        raise ConfigError(f"contact: residues {i} and {j}; give two that are not neighbours in the chain.")
    if not most >= CA_CLASH:
        raise ConfigError(f"contact: distance={most:g}; give at least {CA_CLASH} angstrom, below which CA clash.")

    def apart(x: Tensor) -> Tensor:
        if max(first, second) >= x.shape[1]:
            raise ConfigError(f"contact: residues {i} and {j} of a chain that has {x.shape[1]}.")
        ca = alphas(x)
        return (ca[:, first] - ca[:, second]).square().sum(1).add(1e-8).sqrt()

    return Near(torch.tensor(most), apart, noise, "posterior", 1, None, 1.0, INTERVAL, "domain")


def overlap(x: Tensor) -> Tensor:
    """By how much atoms of chains in angstrom are too near (B,): sum of squares, over pairs of CA and over pairs of N, CA, C.

    Residues that are neighbours do not count; distances are those by which `zoo.protein.metrics` counts clashes, and a margin.
    Of chains of CA alone (B,N,3) there are pairs of CA alone.
    """
    place = torch.arange(x.shape[1], device=x.device)
    apart = (place[:, None] - place) > 1
    alone = alphas(x)
    ca = distance(alone[:, :, None], alone[:, None])
    near = (F.relu(CA_CLASH + MARGIN - ca).square() * apart).sum((1, 2))
    if x.ndim == 3:
        return near
    atoms, far = x.flatten(1, 2), apart.repeat_interleave(3, 0).repeat_interleave(3, 1)
    every = distance(atoms[:, :, None], atoms[:, None])
    return near + (F.relu(CLASH + MARGIN - every).square() * far).sum((1, 2))


def clash(weight: float = 0.02, interval: tuple[float, float] = (0.0, 0.5)) -> Energy:
    """Chains with fewer clashes: an energy of how much atoms overlap, see `overlap`.

    Args:
        weight: as of `zoo.steer.energy`, per square angstrom. At most about .02: at 3 angstrom of noise it moves atoms by half
            of what they overlap, and much more of it tears chains.
        interval: in sigma / alpha; by default below 3.3 angstrom of noise: a more blurred guess has no true distances.

    Raises:
        ConfigError: an argument that is invalid.
    """
    return energy(overlap, weight, interval=interval)


#: the steers of backbones by name, as `zoo sample --steer NAME=VALUE` takes them
STEERS: Mapping[str, Callable[..., Any]] = {
    "radius": radius,
    "strands": strands,
    "helices": helices,
    "secondary": secondary,
    "pattern": pattern,
    "contact": contact,
    "clash": clash,
}

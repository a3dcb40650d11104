"""Several copies of one chain around an axis: cyclic and dihedral symmetry of backbones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.core.predict import Predict, noise_of
from zoo.core.schedule import Level
from zoo.core.steer import Symmetry
from zoo.errors import ConfigError
from zoo.protein.backbone import Backbone
from zoo.protein.codec import SCALE

#: residues of the shortest copy, and the most copies
SHORTEST, MOST = 8, 12
#: CA of two copies come at least so near, and not nearer, angstrom
TOUCH = 6.0
#: by how much copies are moved at most along the line from the middle, angstrom, and in which steps
FAR, STEP = 30.0, 0.5


def turns(name: str) -> Tensor:
    """The rotations (G, 3, 3) of a point group, the identity first: "C3" around z, "D2" with two-fold axes across it."""
    found = re.fullmatch(r"([CD])(\d{1,3})", name.strip().upper()) if isinstance(name, str) else None
    n = int(found[2]) if found else 0
    if not found or n < 2 or n * (1 + (found[1] == "D")) > MOST:
        groups = f'a cyclic group, "C2" to "C{MOST}", or a dihedral one, "D2" to "D{MOST // 2}"'
        raise ConfigError(f"symmetry: {name!r}; give {groups}.")
    rows = []
    for k in range(n):
        c, s = math.cos(2 * math.pi * k / n), math.sin(2 * math.pi * k / n)
        rows.append([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    around = torch.tensor(rows, dtype=torch.float64)
    if found[1] == "C":
        return around
    across = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    return torch.cat([around, around @ across])


def moved(x: Tensor, turn: Tensor, order: Tensor) -> Tensor:
    """A member of the group acting on chains x (B,N,3,3): each copy is turned, and takes the place of the one it comes to."""
    copies = x.unflatten(1, (len(order), -1))
    return (copies @ turn.to(x).T)[:, order.to(x.device)].flatten(1, 2)


class Copies(Symmetry):
    """What `symmetry` makes, see there."""

    def __init__(self, name: str, interval: tuple[float, float]) -> None:
        self.name, self.turns = name, turns(name)
        each = self.turns[:, None] @ self.turns[None]  # [h, g] is h after g
        # copy g goes to the place of h g: order[h][hg] = g
        same = (each[:, :, None] - self.turns).abs().amax((-1, -2)) < 1e-6
        order = same.double().argmax(2).argsort(1)
        super().__init__([partial(moved, turn=r, order=o) for r, o in zip(self.turns, order, strict=True)], True, interval)

    @property
    def many(self) -> int:
        """How many copies there are."""
        return len(self.turns)

    def _mean(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            what = "CA alone" if x.shape[-1] == 3 else "angles"
            raise ConfigError(f"symmetry: this model makes {what}, and copies are of N, CA and C: take a model of backbones.")
        self._fits(x.shape[1])
        return super()._mean(x)

    def _fits(self, length: int) -> int:
        """Residues of one copy."""
        own, rest = divmod(length, self.many)
        if rest or own < SHORTEST:
            near = self.many * max(SHORTEST, round(length / self.many))
            raise ConfigError(
                f"symmetry {self.name}: a length of {length} is not {self.many} copies of one length, {SHORTEST} residues or "
                f"more: give length={near}, which is {self.many} chains of {near // self.many}."
            )
        return own

    def told(self, x: Tensor, level: Level) -> Mapping[str, Tensor]:
        """Which residues are one chain: the net sees each by itself."""
        sizes = self.setting.sizes or [x.shape[1]] * len(x)
        own = torch.tensor([self._fits(size) for size in sizes], device=x.device)[:, None, None]
        place = torch.arange(int(own.max()), device=x.device)
        rows = own * torch.arange(self.many, device=x.device)[:, None] + place
        return {"copies": torch.where(place < own, rows, -1)}

    def __call__(self, predict: Predict) -> Predict:
        inner = super().__call__(predict)

        def touching(x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
            x0, eps = inner(x, level)
            if not self.interval[0] < level.ratio <= self.interval[1]:
                return x0, eps
            x0 = self.placed(x0)
            return x0, noise_of(x, x0, level)

        return touching

    def marked(self, item: Any) -> Any:
        """The sample with its copies as chains of their own."""
        return Backbone(item.atoms, item.name, f"symmetry {self.name}", self.many, item.given)

    def placed(self, x0: Tensor) -> Tensor:
        """Copies moved along the lines from the middle to them: the nearest CA of two are TOUCH apart, or up to STEP more."""
        return torch.cat([self._placed(self.setting.own(x0, i), x0.shape[1]) for i in range(len(x0))])

    def _placed(self, row: Tensor, length: int) -> Tensor:
        copies = row[0].unflatten(0, (self.many, -1))
        centre = copies.mean((1, 2))
        out = centre / centre.norm(dim=1, keepdim=True).clamp(min=1e-6)
        ca = copies[:, :, 1]
        steps = torch.arange(-FAR, FAR + STEP, STEP, device=row.device, dtype=row.dtype) / SCALE
        shifted = ca[None] + steps[:, None, None, None] * out[None, :, None]
        nearest = torch.cdist(shifted[:, :1].flatten(1, 2), shifted[:, 1:].flatten(1, 2)).amin((1, 2)) * SCALE
        free = (nearest >= TOUCH) & (steps + centre[0].norm() > 0)
        blocked = (~free).flip(0).cumsum(0).flip(0) > 0  # from outside inwards, they get no farther than where they touch
        best = steps[(~blocked).to(torch.int64).argmax()] if bool((~blocked).any()) else steps[-1]
        placed = (copies + best * out[:, None, None]).flatten(0, 1)
        return F.pad(placed, (0, 0, 0, 0, 0, length - len(placed)))[None]


def symmetry(group: str, interval: tuple[float, float] = (0.0, math.inf)) -> Copies:
    """Several copies of one chain, which a group of rotations takes to one another: symmetric design of oligomers.

    Noise and x0 are symmetric at all times (Watson et al. 2023, RFdiffusion, supplement: noise of one copy, turned onto the
    others), so that all copies come out alike, exactly. The net has seen single chains alone: it is told which residues are one
    chain, and sees each by itself around its own mean. Copies are moved along the lines from the middle to them until the
    nearest CA of two are 6 angstrom apart. How they are turned to the axis is drawn with the noise: they touch without
    clashes, and no interface is designed.
    A sample holds all copies, one after the other, and is saved with a chain for each.

    Args:
        group: "C2", "C3", ... around the z axis; "D2", "D3", ... with two-fold axes across it.
        interval: in sigma / alpha, as of `zoo.steer.symmetry`; with 0 in it copies are alike exactly.

    Raises:
        ConfigError: an unknown group; when it samples, a length that is not so many copies of 8 residues or more.
    """
    return Copies(group, interval)

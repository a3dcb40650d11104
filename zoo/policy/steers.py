"""Steers of a policy's plans: obstacles, a goal, a speed limit. Actions are places, in the robot's own units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.core.correction import INTERVAL, Correction
from zoo.core.measure import measure
from zoo.core.within import Within
from zoo.errors import ConfigError, ShapeError
from zoo.values import number, numbers, plain, several, whole

#: standard deviations of the bump, in steps of a plan, over which a place that is moved takes its neighbours along
ALONG, SHORT = 2.0, 0.5
#: how often the deepest place of a plan is moved with its neighbours, then nearly alone
BENT, SHARP = 24, 48
#: depth, as a share of the obstacle's radius, that counts as outside
TOUCH = 1e-3


@dataclass(frozen=True)
class Obstacle:
    """A circle that is not to be entered, in the robot's units.

    Raises:
        ConfigError: numbers that are not finite, or a radius that is not above 0.
    """

    x: float
    y: float
    radius: float

    def __post_init__(self) -> None:
        for name in ("x", "y", "radius"):
            number(getattr(self, name), name, what="of an obstacle, in the robot's units")
        if not self.radius > 0:
            raise ConfigError(f"radius={self.radius!r}: an obstacle has one above 0.")


def obstacles_of(value: Any) -> list[Obstacle]:
    """One obstacle or several: Obstacle, or x, y and radius."""
    if isinstance(value, Obstacle):
        return [value]
    rows = several(value) or []
    flat = rows and not any(isinstance(row, Obstacle) or several(row) is not None for row in rows)
    found = []
    for row in [rows] if flat else rows:
        if isinstance(row, Obstacle):
            found.append(row)
            continue
        x, y, radius = numbers(row, 3, "avoid: an obstacle is x, y and radius")
        found.append(Obstacle(x, y, radius))
    if not found:
        raise ConfigError(f"avoid: {value!r}; give an obstacle, (x, y, radius), or a list of them.")
    return found


def axes_of(axes: Any) -> tuple[int, int]:
    """Which two numbers of an action are x and y."""
    found = [whole(a, "axes", 0) for a in several(axes) or []]
    if len(found) != 2 or found[0] == found[1]:
        raise ConfigError(f"axes={axes!r}: give the two numbers of an action that are x and y, counted from 0.")
    return found[0], found[1]


def places(actions: Tensor, axes: tuple[int, int]) -> Tensor:
    """Where actions (B, horizon, Da) lead: (B, horizon, 2)."""
    if actions.ndim != 3 or max(axes) >= actions.shape[-1]:
        raise ShapeError(f"axes={axes} of plans {tuple(actions.shape)}: (B, horizon, Da) with such numbers are needed.")
    return actions[..., list(axes)]


def put(actions: Tensor, found: Tensor, axes: tuple[int, int]) -> Tensor:
    """Actions with other places."""
    made = actions.clone()
    made[..., list(axes)] = found
    return made


def deepest(path: Tensor, centre: Tensor, reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each path (B, H, 2), H >= 2, the place that lies deepest in any of its circles, between its points too.

    Args:
        centre, reach: (B, K, 2) and (B, K), circles of each path.

    Returns:
        (depth (B,), above 0 inside; where along the path (B,), in steps; the way out (B, 2), of length 1).
    """
    a, step = path[:, :-1, None], (path[:, 1:] - path[:, :-1])[:, :, None]
    length = step.square().sum(-1)
    share = (((centre[:, None] - a) * step).sum(-1) / length.clamp(min=1e-12)).clamp(0, 1)
    away = a + share[..., None] * step - centre[:, None]
    depth = (reach[:, None] - away.norm(dim=-1)).flatten(1)
    worst, index = depth.max(1)
    rows = torch.arange(len(path), device=path.device)
    segment, circle = index // centre.shape[1], index % centre.shape[1]
    out = away[rows, segment, circle]
    # through the very centre: to the left of the way, or anywhere
    side = step[rows, segment, 0].flip(-1) * torch.tensor([-1.0, 1.0]).to(path)
    side = torch.where(side.norm(dim=-1, keepdim=True) > 1e-9, side, torch.tensor([1.0, 0.0]).to(path))
    out = torch.where(out.norm(dim=-1, keepdim=True) > 1e-6 * reach[rows, circle, None], out, side)
    return worst, segment + share[rows, segment, circle], torch.nn.functional.normalize(out, dim=-1)


def cleared(path: Tensor, centre: Tensor, reach: Tensor) -> Tensor:
    """Paths (B, H, 2) moved out of circles (B, K, 2), (B, K): the deepest place first, and its neighbours with it."""
    if path.shape[1] < 2:  # a place alone is a way of no length
        return cleared(path.repeat(1, 2, 1), centre, reach)[:, :1]
    steps = torch.arange(path.shape[1], device=path.device, dtype=path.dtype)
    for turn in range(BENT + SHARP):
        depth, at, out = deepest(path, centre, reach)
        if not bool((depth > TOUCH * float(reach.min())).any()):
            break
        bump = (-((steps - at[:, None]) ** 2) / (2 * (ALONG if turn < BENT else SHORT) ** 2)).exp()
        # the deepest place itself, which may lie between two points, moves by the whole depth
        before = at.floor().clamp(max=path.shape[1] - 2).long()[:, None]
        share = at[:, None] - before
        own = (1 - share) * bump.gather(1, before) + share * bump.gather(1, before + 1)
        move = depth.clamp(min=0)[:, None] * (1 + TOUCH) * bump / own
        path = path + move[..., None] * out[:, None]
    return path


class Avoid(Within):
    """What `avoid` makes, see there."""

    def __init__(self, obstacles: list[Obstacle], body: float, axes: tuple[int, int], interval: tuple[float, float]) -> None:
        self.obstacles, self.body, self.axes = obstacles, body, axes
        super().__init__(self.out, interval, "domain", "avoid")

    def out(self, actions: Tensor) -> Tensor:
        """Plans (B, horizon, Da) outside of the obstacles."""
        path = places(actions, self.axes).double()
        centre = path.new_tensor([[o.x, o.y] for o in self.obstacles]).expand(len(path), -1, -1)
        reach = path.new_tensor([o.radius + self.body for o in self.obstacles]).expand(len(path), -1)
        return put(actions, cleared(path, centre, reach).to(actions), self.axes)


def avoid(
    obstacle: Any,
    *,
    body: float = 0.0,
    axes: Sequence[int] = (0, 1),
    interval: tuple[float, float] = (0.0, math.inf),
) -> Avoid:
    """Plans that go around obstacles: places of a plan that lie in one, or on the way between two, are moved out of it.

    The deepest place of a plan goes first, straight out of the circle, and takes those before and after it along (a bump of
    2 steps), until none is left; then the net makes a plan of that. The net itself is not asked: what it has learnt of
    obstacles is nothing. See `zoo.core.within` for when it acts.

    Args:
        obstacle: an Obstacle, or (x, y, radius), in the robot's units; or a list of them.
        body: how much larger an obstacle is taken, at least 0: the robot's own radius, and how far it strays from its plan.
        axes: which two numbers of an action are x and y; actions must be places, not speeds or steps.
        interval: (lo, hi): acts where lo < sigma / alpha <= hi.

    Raises:
        ConfigError: what is no obstacle. ShapeError: when it plans, actions without such numbers.
    """
    return Avoid(obstacles_of(obstacle), number(body, "body", 0, what="in the robot's units"), axes_of(axes), interval)


def speed_limit(
    most: float, *, axes: Sequence[int] | None = None, interval: tuple[float, float] = (0.0, math.inf)
) -> Correction:
    """Plans of which no action is further than `most` from the one before: each one follows at that pace, from the first on.

        q_0 = p_0,    q_i = q_{i-1} + d min(1, most / |d|),  d = p_i - q_{i-1}

    Args:
        most: distance of two actions, one step apart, in the robot's units, above 0.
        axes: which numbers of an action count; None: all.
        interval: as of `avoid`.

    Raises:
        ConfigError: a pace that is not above 0. ShapeError: when it plans, actions without such numbers.
    """
    pace = number(most, "most", 0, what="in the robot's units a step")
    if not pace > 0:
        raise ConfigError(f"most={most!r}: give a distance a step above 0.")
    chosen = None if axes is None else [whole(a, "axes", 0) for a in several(axes) or [axes]]

    def slowed(actions: Tensor) -> Tensor:
        own = list(range(actions.shape[-1])) if chosen is None else chosen
        if max(own) >= actions.shape[-1]:
            raise ShapeError(f"axes={axes!r} of actions of {actions.shape[-1]} numbers.")
        made = actions.clone()
        for i in range(1, actions.shape[1]):
            away = made[:, i, own] - made[:, i - 1, own]
            far = away.norm(dim=-1, keepdim=True)
            made[:, i, own] = made[:, i - 1, own] + away * (pace / far.clamp(min=pace))
        return made

    return Within(slowed, interval, "domain", f"speed_limit {pace:g}")


def goal(
    place: Sequence[float],
    *,
    noise: float = 1.0,
    step: int = -1,
    axes: Sequence[int] | None = None,
    interval: tuple[float, float] = INTERVAL,
) -> Correction:
    """Plans that are at a place at one of their steps, by default the last: one action is measured, see `zoo.steer.measure`.

    Args:
        place: what the action is to be, in the robot's units.
        noise: how near, as standard deviation in the robot's units.
        step: of the plan, counted from its end where negative.
        axes: which numbers of an action they are; default: the first ones.
        interval: (lo, hi): acts where lo < sigma / alpha <= hi; default: up to 80.

    Raises:
        ConfigError: no numbers. ShapeError: when it plans, actions that have no such numbers or steps.
    """
    wanted = several(place) or []
    wanted = numbers(wanted, max(len(wanted), 1), "goal")
    chosen = list(range(len(wanted))) if axes is None else [whole(a, "axes", 0) for a in several(axes) or []]
    if len(chosen) != len(wanted):
        raise ConfigError(f"goal: {len(wanted)} numbers for axes={axes!r}; give one for each.")
    if plain(step) is True or not isinstance(plain(step), int):
        raise ConfigError(f"step={step!r}: give a whole number, from the end where negative.")

    def action(plans: Tensor) -> Tensor:
        if plans.ndim != 3 or max(chosen) >= plans.shape[-1] or not -plans.shape[1] <= step < plans.shape[1]:
            raise ShapeError(f"goal: step={step}, axes={chosen} of plans {tuple(plans.shape)}.")
        return plans[:, step, chosen]

    return measure(wanted, action, number(noise, "noise", 0, what="in the robot's units"), interval=interval)

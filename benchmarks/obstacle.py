"""Does a steered policy keep out of an obstacle, and do its plans join? Push-T in closed loop, by the same starts.

    python benchmarks/obstacle.py --n 40 --split validation --json obstacle.json
    python benchmarks/obstacle.py --json obstacle.json --page      # writes what is there into docs/policy.md

Each episode has an obstacle of its own, a circle that the arm is not to touch (nothing in the simulator is there). It lies on
the way that the free policy took from this start with other noise (seed 0), at a step that is drawn by the episode's seed among
those where it leaves the arm room: between it and the arm's start, the T's start and the T's goal. The arm is a circle itself,
of 15 pixels; an episode collides where the arm enters the obstacle anywhere on the way between two steps. All rows run from the
same starts with the same noise (seed 1): they differ in the steers alone.

A jump is how far the first action of a plan is from what the last plan had for the same step, in pixels. A jolt is what is
carried out there: the second difference of the actions, the larger one of those at a plan's first and second action.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pages import fill
from torch import Tensor

import zoo
from zoo import files
from zoo.core.within import Within
from zoo.errors import ZooError
from zoo.evaluation.distances import wilson_interval
from zoo.extras import need
from zoo.policy.envs import TASKS, Episode, rollout
from zoo.policy.evaluate import FIRST_SEED
from zoo.policy.steers import Obstacle, avoid

PAGE = Path(__file__).resolve().parents[1] / "docs" / "policy.md"
NAME = "pusht-keypoints"
#: pixels: the arm's radius, the obstacle's, and how far it keeps from the arm's start
ARM, RADIUS, CLEAR = 15.0, 20.0, 15.0
#: how much larger the obstacle is taken: the arm's radius, and what it cuts of a corner, since it follows its actions about two
#: steps late (chosen on ten validation episodes: with 5 pixels for that, half of them still touched)
BODY = ARM + 11.0
#: what steers in each row: settings of the controller, and of `avoid` where it is given
WAYS: dict[str, dict[str, Any]] = {
    "free": {},
    "free, overlap": {"replan": "overlap"},
    "avoid": {"avoid": {"body": BODY}},
    "avoid, overlap": {"avoid": {"body": BODY}, "replan": "overlap"},
}


class Each(Within):
    """Obstacles of many episodes in one batch: each plan avoids that of its own."""

    def __init__(self, own: list[Obstacle], body: float, **settings: Any) -> None:
        self.ways, self.running = [avoid(o, body=body, **settings) for o in own], list(range(len(own)))
        super().__init__(self.out, self.ways[0].interval, "domain", "avoid")

    def out(self, plans: Tensor) -> Tensor:
        if len(plans) != len(self.running):
            raise ZooError(f"{len(plans)} plans for {len(self.running)} episodes: they do not plan together.")
        return torch.cat([self.ways[i].nearest(plan[None]) for i, plan in zip(self.running, plans, strict=True)])


def drive(policy: Any, seeds: list[int], own: list[Obstacle], **settings: Any) -> dict[str, Any]:
    """Episodes of these seeds: them, the arm's ways (steps, 2), and the jumps and jolts where plans join."""
    body = settings.pop("avoid", None)
    steer = None if body is None else Each(own, **body)
    controller = policy.controller(len(seeds), streams=seeds, steer=[] if steer is None else [steer], **settings)
    ways: list[list[NDArray[Any]]] = [[] for _ in seeds]
    jumps: list[float] = []
    jolts: list[float] = []
    carried: list[list[NDArray[Any]]] = [[] for _ in seeds]
    begun: list[list[int]] = [[] for _ in seeds]

    def act(observed: Any, running: Any) -> NDArray[np.float32]:
        robots = [controller.robots[i] for i in running]
        before = [(robot.chunks, None if robot.queue or not robot.spare else robot.spare[0]) for robot in robots]
        if steer is not None:
            steer.running = list(running)
        actions = controller.act(observed, which=running)
        for row, (i, robot, (chunks, old)) in enumerate(zip(running, robots, before, strict=True)):
            ways[i].append(np.array(observed["agent_pos"][row]))
            if old is not None and 0 < chunks < robot.chunks:
                jumps.append(float(np.linalg.norm(actions[row] - old)))
                begun[i].append(len(carried[i]))
            carried[i].append(actions[row])
        return actions

    episodes = rollout(TASKS[NAME], act, seeds)
    for done, joins in zip(carried, begun, strict=True):
        size = np.linalg.norm(np.diff(np.stack(done), 2, axis=0), axis=1)  # its element i is of the action i + 2
        jolts += [float(size[k - 2 : k].max()) for k in joins]
    return {"episodes": episodes, "ways": [np.stack(way) for way in ways], "jumps": jumps, "jolts": jolts}


def touches(way: NDArray[Any], obstacle: Obstacle, reach: float) -> NDArray[Any]:
    """Of each step of a way (N, 2): whether it enters a circle that is `reach` larger, between two places too: (N - 1,)."""
    a, step, centre = way[:-1], np.diff(way, axis=0), np.array([obstacle.x, obstacle.y])
    share = np.clip(((centre - a) * step).sum(1) / np.maximum((step**2).sum(1), 1e-12), 0, 1)
    return np.linalg.norm(a + share[:, None] * step - centre, axis=1) < obstacle.radius + reach


def pieces(seed: int) -> tuple[Any, Any]:
    """The T at the start of an episode, and its goal, as polygons."""
    shapely, pusht = need("shapely", "policy"), need("gym_pusht.envs.pusht", "policy")
    env = TASKS[NAME].make(seed, False)
    try:
        env.reset(seed=seed)
        task = env.unwrapped
        bodies = task.block, task.get_goal_pose_body(task.goal_pose)
        start, goal = (shapely.unary_union(pusht.pymunk_to_shapely(body, task.block.shapes)) for body in bodies)
        return start, goal
    finally:
        env.close()


def placed(seed: int, way: NDArray[Any]) -> Obstacle | None:
    """An obstacle on a way, with room for the arm between it and the T, and the T's goal; None where there is no such place."""
    shapely, parts = need("shapely", "policy"), pieces(seed)
    room = RADIUS + 2 * ARM
    far = [place for place in way if np.linalg.norm(place - way[0]) >= RADIUS + ARM + CLEAR]
    fits = [place for place in far if all(part.distance(shapely.Point(*place)) >= room for part in parts)]
    if not fits:
        return None
    x, y = fits[int(np.random.default_rng(seed).integers(len(fits)))]
    return Obstacle(float(x), float(y), RADIUS)


def row_of(way: str, found: dict[str, Any], own: list[Obstacle], about: dict[str, Any]) -> dict[str, Any]:
    """Figures of one row."""
    hits = [touches(path, o, ARM) for path, o in zip(found["ways"], own, strict=True)]
    episodes: list[Episode] = found["episodes"]
    n, success = len(episodes), sum(e.success is not None for e in episodes)
    collided = sum(bool(hit.any()) for hit in hits)
    return about | {
        "way": way,
        "collided": collided,
        "touching": float(np.concatenate(hits).mean()),
        "success": success,
        "reward": float(np.mean([e.reward for e in episodes])),
        "jump": float(np.mean(found["jumps"])),
        "jolt": float(np.mean(found["jolts"])),
        "joins": len(found["jumps"]),
        "intervals": {"collided": wilson_interval(collided, n), "success": wilson_interval(success, n)},
    }


def page(rows: list[dict[str, Any]]) -> str:
    """Rows as a table."""
    lines = [
        "| controller | episodes | that touch the obstacle | steps in it | success | best reward | jump (px) | jolt (px) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        shares = [
            f"{row[k] / row['n']:.2f} [{row['intervals'][k][0]:.2f}, {row['intervals'][k][1]:.2f}]".replace("0.", ".")
            for k in ("collided", "success")
        ]
        lines.append(
            f"| {row['way']} | {row['n']} | {shares[0]} | {row['touching']:.1%} | {shares[1]} | {row['reward']:.2f} | "
            f"{row['jump']:.1f} | {row['jolt']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line, print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--n", type=int, default=40, help="episodes; those without room for an obstacle are left out")
    p.add_argument("--split", choices=list(FIRST_SEED), default="validation")
    p.add_argument("--ways", default="*", help="patterns of rows, with semicolons between")
    p.add_argument("--json", type=Path)
    p.add_argument("--page", action="store_true", help=f"write the rows that are there into {PAGE.name}")
    args = p.parse_args()
    table: list[dict[str, Any]] = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    if not args.page:
        policy = zoo.load(f"policy/{NAME}")
        seeds = [FIRST_SEED[args.split] + i for i in range(args.n)]
        there = next((r["obstacles"] for r in table if (r["split"], r["asked"]) == (args.split, args.n)), None)
        if there is None:
            first = drive(policy, seeds, [], seed=0)
            found = [(s, placed(s, way)) for s, way in zip(seeds, first["ways"], strict=True)]
            there = [[s, o.x, o.y, o.radius] for s, o in found if o is not None]
        seeds, own = [int(row[0]) for row in there], [Obstacle(*row[1:]) for row in there]
        about = {"n": len(own), "split": args.split, "asked": args.n, "obstacles": there}
        for way in [w for w in WAYS if any(fnmatch.fnmatch(w, p) for p in args.ways.split(";"))]:
            start = time.perf_counter()
            row = row_of(way, drive(policy, seeds, own, seed=1, **WAYS[way]), own, about)
            table = [r for r in table if (r["way"], r["split"], r["asked"]) != (way, args.split, args.n)] + [row]
            figures = {
                k: round(v, 3) if isinstance(v, float) else v for k, v in row.items() if k not in ("intervals", "obstacles")
            }
            print(*(f"{k} {v}" for k, v in figures.items()), f"{time.perf_counter() - start:.0f} s", flush=True)
            if args.json:
                files.write_atomic(args.json, files.dump_json(table))
    if args.page:
        fill(PAGE, "obstacle", page(table))


if __name__ == "__main__":
    main()

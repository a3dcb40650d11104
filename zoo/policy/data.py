"""Demonstrations to train on: Push-T, `episodes.npz` files, and LeRobotDataset folders.

A training sample is a window of one episode (Chi et al. 2023, section 3 and figure 3), here with 2 observations, a
horizon of 16 and 8 executed actions:

    step of the window   0   1   2   3   4   5   6   7   8   9  10 ... 15
    observation          o   o
    predicted action     a   a   a   a   a   a   a   a   a   a   a ...  a
    executed                 x   x   x   x   x   x   x   x

The observation of step 1 is the newest, so execution starts at index n_obs - 1 = 1. A window never leaves its episode: it
starts up to n_obs - 1 steps before the episode and ends up to executed - 1 steps after it, where the edges repeat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.contract.conditions import Array, Condition
from zoo.contract.dataset import Dataset
from zoo.data.archive import read_archive
from zoo.data.folder import existing, rows_of
from zoo.errors import DataError, one_of
from zoo.extras import need

NUMBERED = ("episode_index", "frame_index")  # LeRobot's columns that put rows in order
HELD_OUT = 20  # every so many episodes one is for validation

#: corners of gym-pusht's T in pixels from the block's position, at angle 0, in the order of its `get_keypoints`
T_CORNERS = np.array([[-60, 0], [60, 0], [60, 30], [-60, 30], [-15, 30], [15, 30], [15, 120], [-15, 120]], np.float64)
T_MIRROR = [1, 0, 3, 2, 5, 4, 7, 6, 8]  # which corner each becomes in a mirror on the T's axis; the last is the agent


@dataclass(frozen=True)
class Robot:
    """What the numbers are: names of the observation's and the action's dimensions, unit of the action, steps a second."""

    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    unit: str = ""
    rate: float | None = None


class Episodes(Dataset):
    """Windows of demonstrations.

    Args:
        observations, actions: float (steps, Do) and (steps, Da), all episodes one after another.
        ends: (episodes,) exclusive end of each episode.
        robot: names, unit and rate.
        horizon, n_obs, executed: sizes of the window, see the module.
        split: "validation" (and "test") is every twentieth episode, "train" the others.
        mirror: (observations, actions) of an episode -> those of its mirror image, which then is one more episode.

    Raises:
        DataError: arrays that do not fit each other, numbers that are not finite, episodes shorter than a window's
            executed part.
    """

    def __init__(
        self,
        observations: NDArray[Any],
        actions: NDArray[Any],
        ends: NDArray[Any],
        robot: Robot,
        *,
        horizon: int = 16,
        n_obs: int = 2,
        executed: int = 8,
        split: str = "train",
        mirror: Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]] | None = None,
        source: str = "the data",
    ) -> None:
        observations, actions, ends = check(observations, actions, ends, executed, source)
        self.robot, self.horizon, self.n_obs, self.labels = robot, horizon, n_obs, {}
        starts = np.concatenate([[0], ends[:-1]])
        bounds = list(zip(starts.tolist(), ends.tolist(), strict=True))
        if len(bounds) >= HELD_OUT:
            bounds = [bounds[i] for i in rows_of(split, len(bounds), HELD_OUT)]
        self.episodes = [(observations[a:b], actions[a:b]) for a, b in bounds]
        if mirror is not None:  # after the split: an image of a held-out episode is held out, too
            self.episodes += [mirror(*episode) for episode in self.episodes]
        self.windows = [
            (i, first) for i, (_, a) in enumerate(self.episodes) for first in range(1 - n_obs, len(a) - horizon + executed)
        ]

    def __len__(self) -> int:
        return len(self.windows)

    def conditions(self) -> dict[str, Condition]:
        return {"observation": Array(shape=(self.n_obs, len(self.robot.observation_names)))}

    def __getitem__(self, i: int) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        episode, first = self.windows[i]
        observations, actions = self.episodes[episode]
        steps = np.clip(np.arange(first, first + self.horizon), 0, len(actions) - 1)
        return actions[steps], {"observation": observations[steps[: self.n_obs]]}


def check(
    observations: NDArray[Any], actions: NDArray[Any], ends: NDArray[Any], shortest: int, source: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """The three arrays of a set of episodes, or a DataError that names what is wrong with `source`."""
    steps = len(actions)
    if observations.ndim != 2 or actions.ndim != 2 or len(observations) != steps:
        raise DataError(
            f"{source}: observation {observations.shape} and action {actions.shape} must be (steps, size) with as many steps."
        )
    ends = np.asarray(ends)
    if ends.ndim != 1 or not len(ends) or not np.issubdtype(ends.dtype, np.integer) or ends[-1] != steps:
        raise DataError(f"{source}: episode_ends must be whole numbers whose last is the number of steps, {steps}.")
    lengths = np.diff(ends, prepend=0)
    if lengths.min() < shortest:
        short = int(lengths.argmin())
        raise DataError(f"{source}: episode {short} has {lengths[short]} steps; at least {shortest} are needed.")
    for name, array in (("observation", observations), ("action", actions)):
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
            raise DataError(
                f"{source}: {name} of step {row} (episode {int(np.searchsorted(ends, row, 'right'))}) is not finite."
            )
    return observations.astype(np.float32), actions.astype(np.float32), ends.astype(np.int64)


def keypoints(pose: NDArray[Any]) -> NDArray[np.float64]:
    """The T's eight corners (..., 8, 2) in pixels, in gym-pusht's order, from its pose (..., 3): x, y, angle in rad.

    Unlike the angle they never jump.
    """
    x, y, angle = pose[..., 0], pose[..., 1], pose[..., 2]
    cos, sin = np.cos(angle)[..., None], np.sin(angle)[..., None]
    u, v = T_CORNERS[:, 0], T_CORNERS[:, 1]
    return np.stack([cos * u - sin * v + x[..., None], sin * u + cos * v + y[..., None]], -1)


def pusht_observation(state: NDArray[Any]) -> NDArray[np.float64]:
    """(..., 18): the corners and the agent's position, from Push-T's state (..., 5): agent x, y, block x, y, angle."""
    corners = keypoints(state[..., 2:5])
    return np.concatenate([corners.reshape(*corners.shape[:-2], 16), state[..., :2]], -1)


def pusht_mirrored(observation: NDArray[Any], action: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A Push-T episode in the mirror x + y = 512, which leaves goal and walls as they are: a demonstration, too."""
    points = 512 - observation.reshape(-1, 9, 2)[:, T_MIRROR, ::-1]
    return points.reshape(-1, 18), 512 - action[:, ::-1]


PUSHT = Robot((*(f"corner_{i}_{axis}" for i in range(8) for axis in "xy"), "agent_x", "agent_y"), ("x", "y"), "pixel", 10.0)


def open_npz(path: Path, **window: Any) -> Episodes:
    """Episodes of a file.

    `episodes.npz` holds `observation` (steps, Do), `action` (steps, Da) and `episode_ends` (episodes,), and where known
    `observation_names`, `action_names`, `unit` and `rate`. A Push-T file has `state` (steps, 5) for its observation.
    """
    arrays = read_archive(path, what="demonstrations")
    missing = {"action", "episode_ends"} - arrays.keys()
    if missing or not {"observation", "state"} & arrays.keys():
        names = ", ".join(sorted(missing or {"observation"}))
        raise DataError(f"{path} lacks {names}: needed are observation, action and episode_ends (see the documentation).")
    if "observation" not in arrays:
        if arrays["state"].shape[1:] != (5,):
            raise DataError(f"{path}: state {arrays['state'].shape} must be (steps, 5) as in Push-T; or give `observation`.")
        observation, robot = pusht_observation(arrays["state"].astype(np.float64)), PUSHT
        window["mirror"] = pusht_mirrored
    else:
        observation = arrays["observation"]
        robot = Robot(
            _names(arrays.get("observation_names"), observation, "observation"),
            _names(arrays.get("action_names"), arrays["action"], "action"),
            str(arrays.get("unit", "")),
            float(arrays["rate"]) if "rate" in arrays else None,
        )
    return Episodes(observation, arrays["action"], arrays["episode_ends"], robot, source=str(path), **window)


def _names(given: NDArray[Any] | None, array: NDArray[Any], what: str) -> tuple[str, ...]:
    """The names of an array's columns, or numbered ones."""
    width = array.shape[1] if array.ndim == 2 else 0
    names = tuple(str(n) for n in given) if given is not None else tuple(f"{what}_{i}" for i in range(width))
    if len(names) != width:
        raise DataError(f"{what}_names: {len(names)} names for {width} columns.")
    return names


def open_lerobot(folder: Path, **window: Any) -> Episodes:
    """Episodes of a LeRobotDataset folder (format v2.1 and v3): its numbers, without pictures.

    Observations are all columns `observation.*` of numbers in the order of meta/info.json.
    """
    parquet = need("pyarrow.dataset", "policy")
    info_path = folder / "meta" / "info.json"
    try:
        info = json.loads(info_path.read_text(encoding="utf-8"))
        features, rate = info["features"], float(info["fps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{info_path} cannot be read as LeRobot's: {type(error).__name__}: {error}.") from error
    numbers = [k for k, f in features.items() if f["dtype"] in ("float32", "float64") and len(f["shape"]) == 1]
    observed = [k for k in numbers if k.startswith("observation.")]
    if "action" not in numbers or not observed:
        raise DataError(f"{info_path}: needs action and at least one observation.* of numbers; it has {', '.join(features)}.")
    try:
        rows = parquet.dataset(folder / "data", format="parquet").to_table(
            ["episode_index", "frame_index", "action", *observed]
        )
        rows = rows.sort_by([(k, "ascending") for k in NUMBERED])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder / 'data'} cannot be read as parquet files: {error}.") from error
    columns = {k: np.asarray(rows.column(k).to_pylist()) for k in ("episode_index", "action", *observed)}
    ends = np.append(np.flatnonzero(np.diff(columns["episode_index"])) + 1, rows.num_rows)
    observation = np.concatenate([columns[k].reshape(rows.num_rows, -1) for k in observed], 1)
    robot = Robot(
        tuple(name for k in observed for name in _feature_names(k, features[k])),
        tuple(_feature_names("action", features["action"])),
        "",
        rate,
    )
    return Episodes(observation, columns["action"], ends, robot, source=str(folder), **window)


def _feature_names(key: str, feature: dict[str, Any]) -> Sequence[str]:
    """LeRobot's names of a feature's dimensions: a list, a dictionary of one list, or nothing."""
    names, size = feature.get("names"), int(feature["shape"][0])
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    if isinstance(names, list) and len(names) == size:
        return [str(n) for n in names]
    return [f"{key.removeprefix('observation.')}_{i}" for i in range(size)]


def open_episodes(source: str | Path, split: str = "train", **window: Any) -> Episodes:
    """An `episodes.npz`, a Push-T file, a folder with one of them, or a LeRobotDataset folder."""
    if split not in ("train", "validation", "test"):
        raise one_of("split", split, ("train", "validation", "test"))
    wanted = "an episodes.npz, pusht_demos.npz or a LeRobotDataset folder"
    path = existing(source, wanted)
    if (path / "meta" / "info.json").exists():
        return open_lerobot(path, split=split, **window)
    for name in ("pusht_demos.npz", "episodes.npz"):
        if (path / name).exists():
            path = path / name
    if not path.is_file():
        raise DataError(f"no demonstrations at {path}. Give {wanted}.")
    return open_npz(path, split=split, **window)

"""Demonstrations to train on: Push-T, `episodes.npz` files, LeRobotDataset folders, and HDF5 of robomimic.

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

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.contract.conditions import Array, Condition
from zoo.contract.dataset import Dataset
from zoo.data.archive import read_archive
from zoo.data.folder import existing, rows_of
from zoo.errors import DataError, one_of
from zoo.policy.recordings import (
    LARGEST,
    NUMBERS,
    Recording,
    Robot,
    as_rate,
    check_times,
    foreign,
    read_lerobot,
    read_robomimic,
    tell_left_out,
)

__all__ = ["PUSHT", "Episodes", "Robot", "check", "keypoints", "open_episodes", "pusht_mirrored", "pusht_observation"]

#: what becomes of episodes that are too short for a window
SHORT = ("refuse", "skip", "pad")
HELD_OUT = 20  # every so many episodes one is for validation

#: corners of gym-pusht's T in pixels from the block's position, at angle 0, in the order of its `get_keypoints`
T_CORNERS = np.array([[-60, 0], [60, 0], [60, 30], [-60, 30], [-15, 30], [15, 30], [15, 120], [-15, 120]], np.float64)
T_MIRROR = [1, 0, 3, 2, 5, 4, 7, 6, 8]  # which corner each becomes in a mirror on the T's axis; the last is the agent


class Episodes(Dataset):
    """Windows of demonstrations.

    Args:
        observations, actions: float (steps, Do) and (steps, Da), all episodes one after another.
        ends: (episodes,) exclusive end of each episode.
        robot: names, unit and rate.
        horizon, n_obs, executed: sizes of the window, see the module.
        split: "validation" (and "test") is every twentieth episode, "train" the others.
        mirror: (observations, actions) of an episode -> those of its mirror image, which then is one more episode.
        short: what becomes of episodes that are too short for a window: "refuse", "skip", or "pad", which repeats their last
            step, as windows do at the end of an episode.
        skip_unreadable: skip short episodes, and those with numbers that are not finite.
        names: of the episodes, for messages.
        hold_out: whether some of the episodes are held out; False where all are of the split.

    Attributes:
        episodes: (observations, actions) of each episode of the split.
        skipped: {episode: why} of all splits. padded: how many episodes were made longer.

    Raises:
        DataError: arrays that do not fit each other, numbers that are not finite, episodes too short for a window.
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
        short: str = "refuse",
        skip_unreadable: bool = False,
        names: Sequence[str] = (),
        hold_out: bool = True,
        source: str = "the data",
    ) -> None:
        if short not in SHORT:
            raise one_of("short", short, SHORT)
        if skip_unreadable and short == "refuse":
            short = "skip"
        # below, an episode has no window: see the range of `windows`
        least = max(executed, horizon - executed - n_obs + 2)
        observations, actions, ends = check(observations, actions, ends, 1, source)
        observations, actions, ends, self.skipped, self.padded = fitted(
            observations, actions, ends, least, short, skip_unreadable, names, source
        )
        self.robot, self.horizon, self.n_obs, self.labels = robot, horizon, n_obs, {}
        starts = np.concatenate([[0], ends[:-1]])
        bounds = list(zip(starts.tolist(), ends.tolist(), strict=True))
        if len(bounds) >= HELD_OUT and hold_out:
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
    """The three arrays of a set of episodes, or a DataError that names what is wrong with their shapes in `source`."""
    steps = len(actions) if actions.ndim else 0
    if observations.ndim != 2 or actions.ndim != 2 or len(observations) != steps or not steps:
        raise DataError(
            f"{source}: observation {observations.shape} and action {actions.shape} must be (steps, size) with as many steps."
        )
    for name, array in (("observation", observations), ("action", actions)):
        if array.dtype.kind not in NUMBERS or not array.shape[1]:
            raise DataError(f"{source}: {name} holds {array.shape[1]} columns of {array.dtype}; it must hold numbers.")
    ends = np.asarray(ends)
    if ends.ndim != 1 or not len(ends) or not np.issubdtype(ends.dtype, np.integer) or ends[-1] != steps:
        raise DataError(f"{source}: episode_ends must be whole numbers whose last is the number of steps, {steps}.")
    ends = ends.astype(np.int64)
    lengths = np.diff(ends, prepend=0)
    if lengths.min() < shortest:
        at = int(lengths.argmin())
        raise DataError(f"{source}: episode_ends must rise: episode {at} has {lengths[at]} steps.")
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, which is found
        return observations.astype(np.float32), actions.astype(np.float32), ends


def fitted(
    observations: NDArray[np.float32],
    actions: NDArray[np.float32],
    ends: NDArray[np.int64],
    least: int,
    short: str,
    skip: bool,
    names: Sequence[str],
    source: str,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], dict[str, str], int]:
    """Episodes of at least so many steps and of finite numbers; and {episode: why} of those left out, and how many were padded.

    Raises:
        DataError: an episode that is neither, where it is not to be skipped or padded; the message names all of them.
    """
    wrong, skipped, padded, kept = dict[str, str](), dict[str, str](), 0, []
    begin = 0
    for i, end in enumerate(ends.tolist()):
        name = names[i] if i < len(names) else f"episode {i}"
        o, a = observations[begin:end], actions[begin:end]
        reason = next(
            (
                f"{what} of step {begin + int(np.flatnonzero(~np.isfinite(part).all(1))[0])} ({name}) is not finite"
                for what, part in (("observation", o), ("action", a))
                if not np.isfinite(part).all()
            ),
            "",
        )
        begin = end
        if reason:
            (skipped if skip else wrong)[name] = reason
        elif len(a) >= least:
            kept.append((o, a))
        elif short == "pad":
            steps = np.minimum(np.arange(least), len(a) - 1)
            kept.append((o[steps], a[steps]))
            padded += 1
        else:
            (skipped if short == "skip" else wrong)[name] = f"{name} has {len(a)} steps; at least {least} are needed"
    if wrong:
        told = "; ".join(list(wrong.values())[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise DataError(
            f"{source}: {told}. Remove such episodes or use --skip-unreadable; short ones can be padded: short='pad'."
        )
    if not kept:
        raise DataError(f"{source}: no episode is left: {'; '.join(list(skipped.values())[:5])}.")
    if skipped or padded:
        told = f"{len(skipped)} left out: {'; '.join(list(skipped.values())[:5])}. " if skipped else ""
        told += f"{padded} padded to {least} steps." if padded else ""
        warnings.warn(f"{source}: of {len(ends)} episodes {told.strip()}", stacklevel=4)
        observations, actions = (np.concatenate([episode[k] for episode in kept]) for k in (0, 1))
        ends = np.cumsum([len(a) for _, a in kept])
    return observations, actions, ends, skipped, padded


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
    `observation_names`, `action_names`, `unit`, `rate`, and `timestamp` (steps,) in seconds, which must be even. One number a
    step may come as (steps,), tables of numbers as (steps, a, b). A Push-T file has `state` (steps, 5) for its observation.
    """
    arrays = read_archive(path, what="demonstrations")
    missing = {"action", "episode_ends"} - arrays.keys()
    if missing or not {"observation", "state"} & arrays.keys():
        names = ", ".join(sorted(missing or {"observation"}))
        raise DataError(f"{path} lacks {names}: needed are observation, action and episode_ends (see the documentation).")
    action = _rows(arrays["action"])
    if "observation" not in arrays:
        state = arrays["state"]
        if state.shape[1:] != (5,) or state.dtype.kind not in NUMBERS:
            raise DataError(f"{path}: state {state.shape} must be (steps, 5) as in Push-T; or give `observation`.")
        observation, robot = pusht_observation(state.astype(np.float64)), PUSHT
        window["mirror"] = pusht_mirrored
    else:
        observation = _rows(arrays["observation"])
        robot = Robot(
            _names(arrays.get("observation_names"), observation, "observation"),
            _names(arrays.get("action_names"), action, "action"),
            str(arrays.get("unit", "")),
            as_rate(arrays["rate"], path) if "rate" in arrays else None,
        )
        known = {"observation", "action", "timestamp"}
        left = {
            k: f"{v.dtype} {v.shape}"
            for k, v in arrays.items()
            if v.shape[:1] == action.shape[:1] and v.ndim and k not in known
        }
        tell_left_out(path, {k: v for k, v in left.items() if not k.endswith("_names") and k != "episode_ends"})
    found = Episodes(observation, action, arrays["episode_ends"], robot, source=str(path), **window)
    if "timestamp" in arrays:
        _check_stamps(path, arrays["timestamp"], arrays["episode_ends"], robot.rate)
    return found


def _check_stamps(path: Path, stamps: NDArray[Any], ends: NDArray[Any], rate: float | None) -> None:
    """Times (steps,) in seconds that are even, at the rate or, where none is given, as most of them are."""
    if stamps.dtype.kind not in NUMBERS or stamps.shape != (int(ends[-1]),):
        raise DataError(
            f"{path}: timestamp {stamps.shape} of {stamps.dtype}; give seconds, one number for each of {ends[-1]} steps."
        )
    steps = np.arange(len(stamps))
    episode = np.searchsorted(ends, steps, "right")
    usual = np.median(np.diff(stamps.astype(np.float64))) if len(stamps) > 1 else 1.0
    if rate is None and not usual > 0:
        raise DataError(f"{path}: timestamp does not rise from step to step.")
    check_times(path, episode, steps - np.concatenate([[0], ends])[episode], stamps.astype(np.float64), rate or 1 / usual)


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    """Numbers a step as (steps, size): single ones and tables; pictures stay as they are, and are refused."""
    few = array.ndim in (1, 3) and 0 < math.prod(array.shape[1:]) <= LARGEST and len(array)
    return array.reshape(len(array), -1) if few else array


def _names(given: NDArray[Any] | None, array: NDArray[Any], what: str) -> tuple[str, ...]:
    """The names of an array's columns, or numbered ones."""
    width = array.shape[1] if array.ndim == 2 else 0
    if given is not None and given.ndim != 1:
        raise DataError(f"{what}_names: shape {given.shape}; give one name for each of {width} columns.")
    names = tuple(str(n) for n in given) if given is not None else tuple(f"{what}_{i}" for i in range(width))
    if len(names) != width:
        raise DataError(f"{what}_names: {len(names)} names for {width} columns.")
    return names


def _of_recording(found: Recording, source: Path, window: dict[str, Any]) -> Episodes:
    """The episodes of a recording; where it names its own splits, those of the split."""
    own = bool(found.splits)
    if own:
        found = found.of_split(window["split"])
    arrays = (found.observations, found.actions, found.ends)
    return Episodes(*arrays, found.robot, names=found.names, hold_out=not own, source=str(source), **window)


def open_episodes(source: str | Path, split: str = "train", **window: Any) -> Episodes:
    """An `episodes.npz`, a Push-T file, a LeRobotDataset folder, an HDF5 file of robomimic, or a folder with one of them.

    Args:
        **window: of `Episodes`: horizon, n_obs, executed, short, skip_unreadable.
    """
    if split not in ("train", "validation", "test"):
        raise one_of("split", split, ("train", "validation", "test"))
    known = ("horizon", "n_obs", "executed", "short", "skip_unreadable")
    for name in window:
        if name not in known:
            raise one_of("option of demonstrations", name, known)
    wanted = "an episodes.npz, pusht_demos.npz, a LeRobotDataset folder or an HDF5 file of robomimic"
    path = existing(source, wanted)
    window["split"] = split
    if (path / "meta" / "info.json").exists():
        return _of_recording(read_lerobot(path), path, window)
    if why := foreign(path):
        raise DataError(f"{path} cannot be read as demonstrations: {why}.")
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise DataError(f"no demonstrations at {path}. Give {wanted}.")
    with path.open("rb") as file:
        start = file.read(8)
    if start == b"\x89HDF\r\n\x1a\n" or path.suffix.lower() in (".hdf5", ".h5"):
        return _of_recording(read_robomimic(path), path, window)
    return open_npz(path, **window)


def _in_folder(folder: Path) -> Path:
    """The one file of demonstrations in a folder; where there is none, the folder itself."""
    for name in ("pusht_demos.npz", "episodes.npz"):
        if (folder / name).exists():
            return folder / name
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".hdf5", ".h5") and not p.name.startswith("."))
    if len(found) > 1:
        raise DataError(f"{folder} holds {len(found)} HDF5 files ({', '.join(p.name for p in found[:5])}): give one of them.")
    for inner in sorted(folder.iterdir()):
        if not found and (why := foreign(inner)):
            raise DataError(f"{inner} cannot be read as demonstrations: {why}.")
    return found[0] if found else folder

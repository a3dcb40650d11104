"""Demonstrations in the formats of other projects: LeRobotDataset folders, robomimic's HDF5, and what is refused by name."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.disk import read_json
from zoo.errors import CheckpointError, ConfigError, DataError
from zoo.extras import need
from zoo.values import number

#: how numbers may be stored: numpy's kinds of float, whole number and bool
NUMBERS = "fiub"
#: LeRobot's names of them
FEATURES = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float16", "float32", "float64")
#: share of the time between two steps by which their times may be off
UNEVEN = 0.1
#: numbers of one step that a part of the observation may have; what has more is a picture
LARGEST = 4096
#: how far HDF5 can press numbers together: deflate's limit
DEFLATE = 1032


@dataclass(frozen=True)
class Robot:
    """What the numbers are: names of the observation's and the action's dimensions, unit of the action, steps a second."""

    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    unit: str = ""
    rate: float | None = None


@dataclass(frozen=True)
class Recording:
    """Episodes as they were read, one after another: observations (steps, Do), actions (steps, Da), ends (episodes,)."""

    observations: NDArray[Any]
    actions: NDArray[Any]
    ends: NDArray[np.int64]
    robot: Robot
    names: tuple[str, ...] = ()  # of the episodes, for messages
    splits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # which episodes, where the data say so

    def of_split(self, split: str) -> Recording:
        """The episodes of a split that the data name; "validation" and "test" stand for each other where one is missing."""
        chosen = self.splits.get(split) or self.splits["test" if split == "validation" else "validation"]
        bounds = np.stack([np.concatenate([[0], self.ends[:-1]]), self.ends], 1)[list(chosen)]
        rows = np.concatenate([np.arange(a, b) for a, b in bounds])
        ends = np.cumsum(bounds[:, 1] - bounds[:, 0])
        names = tuple(self.names[i] for i in chosen)
        return Recording(self.observations[rows], self.actions[rows], ends, self.robot, names)


#: what other projects call the splits
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


def tell_left_out(source: Path, left: Mapping[str, str]) -> None:
    """Warn of what stands in the data and is no part of the observation: {name: why}."""
    if left:
        warnings.warn(f"{source}: left out: {', '.join(f'{k} ({why})' for k, why in left.items())}.", stacklevel=3)


def as_rate(value: Any, source: Path) -> float:
    """Steps a second, or a DataError."""
    try:
        found = float(number(value, "rate"))
    except ConfigError:
        found = math.nan
    if not found > 0:
        raise DataError(f"{source}: rate {value!r} must be a number of steps a second, above 0.")
    return found


# ---------------------------------------------------------------- LeRobot


def read_lerobot(folder: Path) -> Recording:
    """A LeRobotDataset folder (format v2 and v3): its numbers, without pictures.

    Observations are all features `observation.*` of numbers in the order of meta/info.json; true and false are 1 and 0, and
    features of several axes come one row after the other. Others are named in a warning.

    Raises:
        DataError: columns that are missing, hold nothing in places or have other shapes than info.json says; an episode that
            is in two files, frames that are missing or there twice, times that are not even.
    """
    features, info = _lerobot_info(folder)
    rate = as_rate(info.get("fps"), folder / "meta" / "info.json")
    observed = {k: f for k, f in features.items() if k == "observation" or k.startswith("observation.")}
    taken = {k: _shape(f) for k, f in observed.items() if f["dtype"] in FEATURES and math.prod(_shape(f)) <= LARGEST}
    if "action" not in features or not taken:
        known = ", ".join(features) or "nothing"
        raise DataError(f"{folder}: needs action and at least one observation.* of numbers; info.json has {known}.")
    action = features["action"]
    if action["dtype"] not in FEATURES:
        raise DataError(f"{folder}: action is {action['dtype']}; it must be of numbers.")
    left = {k: str(f["dtype"]) for k, f in observed.items() if k not in taken}
    left |= {k: str(f["dtype"]) for k, f in features.items() if k.startswith("action.")}
    tell_left_out(folder, left)
    shapes = {"action": _shape(action), **taken}
    columns, file, stamps = _lerobot_rows(folder, shapes, features)
    order = np.lexsort((columns["frame_index"], columns["episode_index"]))
    columns = {k: v[order] for k, v in columns.items()}
    file = file[order]
    episode, frame = columns["episode_index"], columns["frame_index"]
    ends = np.append(np.flatnonzero(np.diff(episode)) + 1, len(episode))
    _check_frames(folder, episode, frame, ends, file)
    _check_counts(folder, info, episode, ends)
    if stamps is not None:
        check_times(folder, episode, frame, stamps[order], rate)
    robot = Robot(
        tuple(name for k in taken for name in _feature_names(k, features[k])),
        tuple(_feature_names("action", action)),
        "",
        rate,
    )
    observations = np.concatenate([columns[k] for k in taken], 1)
    names = tuple(f"episode {episode[end - 1]}" for end in ends)
    splits = _lerobot_splits(folder, info.get("splits"), episode[ends - 1])
    return Recording(observations, columns["action"], ends.astype(np.int64), robot, names, splits)


def _lerobot_splits(folder: Path, said: Any, numbers: NDArray[Any]) -> dict[str, tuple[int, ...]]:
    """{split: places of its episodes} of info.json's {"train": "0:20", "val": "20:25"}; {} where it holds nothing out."""
    if not isinstance(said, dict) or not any(SPLITS.get(name, "train") != "train" for name in said):
        return {}
    found = dict[str, tuple[int, ...]]()
    for name, text in said.items():
        begin, colon, end = str(text).partition(":")
        if name not in SPLITS or not (colon and begin.isdecimal() and end.isdecimal()):
            raise DataError(f'{folder}: info.json has the split {name!r}: {text!r}; known are {", ".join(SPLITS)}, as "0:20".')
        chosen = np.flatnonzero((numbers >= int(begin)) & (numbers < int(end))).tolist()
        found[SPLITS[name]] = tuple(chosen)
    return checked_splits(found, folder, len(numbers))


def checked_splits(found: dict[str, tuple[int, ...]], source: Path, count: int) -> dict[str, tuple[int, ...]]:
    """Splits of which none is empty, with episodes to train on, and no episode in two of them; or a DataError.

    Warns of those of `count` episodes that are in none.
    """
    places = [i for chosen in found.values() for i in chosen]
    if "train" not in found or not all(found.values()) or len(set(places)) < len(places):
        told = ", ".join(f"{len(chosen)} of {name}" for name, chosen in found.items())
        raise DataError(
            f"{source}: its splits hold {told} episodes; each needs some, train too, and none may be in two splits."
        )
    if count > len(places):
        tell_left_out(source, {f"{count - len(places)} of {count} episodes": "in no split"})
    return found


def _lerobot_info(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """(features, all) of meta/info.json, checked as far as it is used."""
    path = folder / "meta" / "info.json"
    try:
        info = read_json(path)
        features = {str(k): dict(f) for k, f in info["features"].items()}
        for name, feature in features.items():
            if not isinstance(feature["dtype"], str):
                raise ValueError(f"the dtype of {name} is {feature['dtype']!r}")
            _shape(feature)
        return features, info
    except CheckpointError as error:  # that it is missing, is no JSON, or says one thing twice
        raise DataError(f"{error} It is needed of a LeRobotDataset.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as LeRobot's: {type(error).__name__}: {error}.") from error


def _shape(feature: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of a feature; () is as good as (1,)."""
    shape = tuple(feature["shape"] or (1,))
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
        raise ValueError(f"shape {feature['shape']!r}")
    return shape


def _lerobot_rows(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], features: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[np.float64] | None]:
    """({column: rows}, the file of each row, its time in seconds or None), in the order of the files."""
    parquet, pyarrow = need("pyarrow.dataset", "policy"), need("pyarrow", "policy")
    data = folder / "data"
    try:
        checked = parquet.ParquetFragmentScanOptions(page_checksum_verification=True)  # of files that have checksums
        dataset = parquet.dataset(data, format=parquet.ParquetFileFormat(default_fragment_scan_options=checked))
        wanted = ["episode_index", "frame_index", *shapes]
        if not dataset.files:
            raise DataError(f"{data} cannot be read as parquet files: it holds none.")
        if missing := [k for k in wanted if k not in dataset.schema.names]:
            raise DataError(f"{data} lacks the column(s) {', '.join(missing)}; it has {', '.join(dataset.schema.names)}.")
        unknown = [k for k in dataset.schema.names if k.startswith(("observation.", "action.")) and k not in features]
        tell_left_out(folder, dict.fromkeys(unknown, "not in info.json"))
        timed = ["timestamp"] if "timestamp" in dataset.schema.names else []
        table = dataset.to_table([*wanted, *timed, "__filename"])
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, pyarrow.ArrowException) as error:
        raise DataError(f"{data} cannot be read as parquet files: {error}.") from error
    if not table.num_rows:
        raise DataError(f"{data} holds no rows.")
    start = len(data.as_posix()) + 1
    file = np.array([name[start:] for name in table.column("__filename").to_pylist()])
    columns = {k: _values(table, k, shape, folder, file) for k, shape in shapes.items()}
    for name in ("episode_index", "frame_index"):
        rows = _values(table, name, (1,), folder, file)[:, 0]
        if not (rows == np.floor(rows)).all() or rows.min() < 0 or rows.max() > 2**52:
            raise DataError(f"{data}: {name} must be whole numbers of at least 0.")
        columns[name] = rows.astype(np.int64)
    return columns, file, _values(table, "timestamp", (1,), folder, file)[:, 0] if timed else None


def _values(table: Any, name: str, shape: tuple[int, ...], folder: Path, file: NDArray[Any]) -> NDArray[np.float64]:
    """A column of numbers as (rows, size); scalars are as good as lists of one, and lists of lists are flattened."""
    types = need("pyarrow.types", "policy")
    column = table.column(name).combine_chunks()
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    parts, size = [], math.prod(shape)
    first = 0
    for chunk in chunks:
        array = getattr(chunk, "storage", chunk)  # of an extension type
        rows, sizes = len(array), list[int]()
        while True:
            width = math.prod(sizes)
            if array.null_count:
                row = first + int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0]) // width
                raise DataError(f"{folder}: {name} of row {row} ({file[row]}) is empty (null). Mend or remove that episode.")
            if not (types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type)):
                break
            lengths = np.asarray(array.value_lengths().to_numpy(zero_copy_only=False))
            if len(lengths) and (lengths != lengths[0]).any():
                row = first + int(np.flatnonzero(lengths != lengths[0])[0]) // width
                raise DataError(f"{folder}: {name} of row {row} ({file[row]}) has another length than the rows before it.")
            sizes.append(int(lengths[0]) if len(lengths) else 1)
            array = array.flatten()
        kind = array.type
        if not (types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)):
            raise DataError(f"{folder}: {name} holds {kind} in its files; info.json promises numbers.")
        if rows and (width != size or (len(sizes) > 1 and tuple(sizes) != shape)):
            found = " x ".join(map(str, sizes or [1]))
            raise DataError(
                f"{folder}: {name} has {found} numbers a step in {file[first]}, but info.json says shape {list(shape)}. "
                "Mend info.json or the data."
            )
        parts.append(array.to_numpy(zero_copy_only=False).astype(np.float64).reshape(rows, size))
        first += rows
    return np.concatenate(parts)


def _check_frames(folder: Path, episode: NDArray[Any], frame: NDArray[Any], ends: NDArray[Any], file: NDArray[Any]) -> None:
    """Every episode lies in one file and has the frames 0, 1, 2, ... once each."""
    begin = 0
    for end in ends.tolist():
        name, frames = f"episode {episode[begin]}", frame[begin:end]
        files = sorted(set(file[begin:end].tolist()))
        if len(files) > 1:
            raise DataError(f"{folder}: {name} is in {len(files)} files ({', '.join(files[:3])}): its number was given twice.")
        if (twice := np.flatnonzero(np.diff(frames) == 0)).size:
            raise DataError(f"{folder}: {name} ({files[0]}) has frame {frames[twice[0]]} twice: its number was given twice.")
        wrong = np.flatnonzero(frames != np.arange(len(frames)))
        if wrong.size:
            raise DataError(f"{folder}: {name} ({files[0]}) lacks frame {wrong[0]}. Mend or remove it.")
        begin = end


def _check_counts(folder: Path, info: Mapping[str, Any], episode: NDArray[Any], ends: NDArray[Any]) -> None:
    """As many episodes and frames as the metadata say, where they do."""
    found = {"total_episodes": len(ends), "total_frames": len(episode)}
    for name, count in found.items():
        said = info.get(name)
        if isinstance(said, int) and said != count:
            there = set(episode.tolist())
            # the first five; the number in the metadata may be any
            lacking = islice((i for i in range(said) if i not in there), 5 if name == "total_episodes" else 0)
            shown = ", ".join(map(str, lacking))
            which = f" (episode {shown} is not there)" if shown else ""
            raise DataError(f"{folder}: info.json says {name} {said}, but the data hold {count}{which}. Is a file missing?")
    lengths = dict(zip(episode[ends - 1].tolist(), np.diff(ends, prepend=0).tolist(), strict=True))
    for number_, said in _said_lengths(folder).items():
        if lengths.get(number_, 0) != said:
            raise DataError(f"{folder}: episode {number_} has {lengths.get(number_, 0)} frames, but its metadata say {said}.")


def _said_lengths(folder: Path) -> dict[int, int]:
    """{episode: frames} of meta/episodes.jsonl (v2) or meta/episodes (v3); {} where there is neither."""
    lines, tables = folder / "meta" / "episodes.jsonl", folder / "meta" / "episodes"
    try:
        if lines.is_file():
            rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
        elif tables.is_dir():
            table = need("pyarrow.dataset", "policy").dataset(tables, format="parquet")
            if not {"episode_index", "length"} <= set(table.schema.names):
                return {}
            rows = table.to_table(["episode_index", "length"]).to_pylist()
        else:
            return {}
        return {int(row["episode_index"]): int(row["length"]) for row in rows if "length" in row}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{folder / 'meta'}: its list of episodes cannot be read: {type(error).__name__}: {error}.") from error


def check_times(source: Path, episode: NDArray[Any], frame: NDArray[Any], stamps: NDArray[Any], rate: float) -> None:
    """The steps of an episode are 1 / rate apart."""
    if not np.isfinite(stamps).all():
        row = int(np.flatnonzero(~np.isfinite(stamps))[0])
        raise DataError(f"{source}: timestamp of episode {episode[row]}, frame {frame[row]} is not finite.")
    gaps = np.diff(stamps)
    within = np.diff(episode) == 0
    # times are often float32, whose steps grow with the time
    allowed = np.maximum(UNEVEN / rate, 2 * np.spacing(np.abs(stamps[1:]).astype(np.float32)).astype(np.float64))
    wrong = np.flatnonzero(within & (np.abs(gaps - 1 / rate) > allowed))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"{source}: frames {frame[row]} and {frame[row + 1]} of episode {episode[row]} are {gaps[row]:g} s apart, at "
            f"{rate:g} Hz it must be {1 / rate:g} s ({wrong.size} such gaps). Resample or remove such episodes."
        )


def _feature_names(key: str, feature: Mapping[str, Any]) -> Sequence[str]:
    """LeRobot's names of a feature's dimensions: a list, a dictionary of one list, or nothing."""
    names, size = feature.get("names"), math.prod(_shape(feature))
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    if isinstance(names, list) and len(names) == size:
        return [str(n) for n in names]
    return [f"{key.removeprefix('observation.')}_{i}" for i in range(size)]


# ---------------------------------------------------------------- robomimic


def read_robomimic(path: Path) -> Recording:
    """A file of robomimic's layout: data/demo_N with `actions` and `obs/<part>`, in HDF5.

    Observations are all parts of numbers, by name; pictures and others are named in a warning. What a file points to outside
    of itself (links, external storage) is never followed.

    Raises:
        ConfigError: h5py is not installed.
        DataError: another layout, a damaged file, parts that differ between demonstrations.
    """
    h5py = need("h5py", "policy")
    try:
        with h5py.File(path, "r") as file:
            return _robomimic(h5py, file, path)
    except DataError:
        raise
    except Exception as error:  # the reader of HDF5 raises whatever a damaged byte led to
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise DataError(f"{path} cannot be read as HDF5 of robomimic: {reason}.") from error


def _robomimic(h5py: Any, file: Any, path: Path) -> Recording:
    """As `read_robomimic`, of an open file."""
    data = _inside(h5py, file, "data", path)
    if not isinstance(data, h5py.Group):
        raise DataError(f"{path} is HDF5, but not robomimic's: it lacks the group data; it has {', '.join(file) or 'nothing'}.")
    demos = sorted((k for k in data if k.startswith("demo_")), key=lambda k: (len(k), k))
    if not demos:
        raise DataError(f"{path}: the group data holds no demo_0, demo_1, ... of robomimic.")
    actions, observations, shapes = [], [], dict[str, tuple[int, ...]]()
    left, parts = dict[str, str](), list[str]()
    for i, demo in enumerate(demos):
        group = _inside(h5py, data, demo, path)
        if not isinstance(group, h5py.Group) or not {"actions", "obs"} <= set(group):
            raise DataError(f"{path}: {demo} lacks actions or obs (hint: robomimic's dataset_states_to_obs.py makes obs).")
        obs = _inside(h5py, group, "obs", path)
        sets = {k: _inside(h5py, obs, k, path) for k in sorted(obs)} if isinstance(obs, h5py.Group) else {}
        found = {"actions": _inside(h5py, group, "actions", path), **sets}
        for name, item in found.items():
            if not isinstance(item, h5py.Dataset):
                raise DataError(f"{path}: {demo}/{name} is not an array.")
            if (name in shapes or i) and shapes.get(name, ()) != item.shape[1:] and name not in left:
                raise DataError(
                    f"{path}: {name} of {demo} has shape {item.shape[1:]} a step, that of {demos[0]} {shapes.get(name)}."
                )
            shapes[name] = item.shape[1:]
            if i == 0 and name != "actions" and not _small_numbers(item):
                left[name] = f"{item.dtype} {item.shape[1:]}"
        if i == 0:
            parts = [k for k in sets if k not in left]
            if not parts:
                raise DataError(f"{path}: {demo}/obs holds no numbers of at most {LARGEST} a step; it has {', '.join(sets)}.")
        if gone := [k for k in parts if k not in sets]:
            raise DataError(f"{path}: {demo} lacks obs/{gone[0]}, which {demos[0]} has.")
        steps = {k: len(found[k]) for k in ("actions", *parts)}
        if len(set(steps.values())) > 1 or int(group.attrs.get("num_samples", steps["actions"])) != steps["actions"]:
            said = f"; num_samples says {group.attrs['num_samples']}" if "num_samples" in group.attrs else ""
            raise DataError(f"{path}: {demo} has {', '.join(f'{n} steps of {k}' for k, n in steps.items())}{said}.")
        actions.append(_array(found["actions"], path))
        observations.append(np.concatenate([_array(found[k], path) for k in parts], 1))
    said = data.attrs.get("total")
    if isinstance(said, (int, np.integer)) and said != sum(map(len, actions)):
        raise DataError(
            f"{path}: it says {said} steps in all, but its {len(demos)} demonstrations have {sum(map(len, actions))}."
        )
    tell_left_out(path, left | {k: "no demonstration" for k in data if k not in demos})
    names = tuple(name for k in parts for name in _numbered(k, math.prod(shapes[k])))
    robot = Robot(names, tuple(_numbered("action", actions[0].shape[1])), "", _control_rate(data))
    ends = np.cumsum([len(a) for a in actions])
    splits = _masks(h5py, file, demos, path)
    return Recording(np.concatenate(observations), np.concatenate(actions), ends, robot, tuple(demos), splits)


def _masks(h5py: Any, file: Any, demos: Sequence[str], path: Path) -> dict[str, tuple[int, ...]]:
    """{split: places of its demonstrations} of robomimic's mask/train and mask/valid; {} where nothing is held out."""
    mask = _inside(h5py, file, "mask", path)
    known = [k for k in mask if k in SPLITS] if isinstance(mask, h5py.Group) else []
    if not any(SPLITS[k] != "train" for k in known):
        return {}
    places = {demo: i for i, demo in enumerate(demos)}
    found = dict[str, tuple[int, ...]]()
    for name in known:
        item = _inside(h5py, mask, name, path)
        if not isinstance(item, h5py.Dataset) or item.ndim != 1 or item.dtype.kind not in "SO":
            raise DataError(f"{path}: mask/{name} is not a list of demonstrations.")
        texts = [t.decode(errors="replace") if isinstance(t, bytes) else str(t) for t in item[()]]
        if unknown := [t for t in texts if t not in places]:
            raise DataError(f"{path}: mask/{name} names {unknown[0]}, which the file does not hold.")
        found[SPLITS[name]] = tuple(places[t] for t in texts)
    return checked_splits(found, path, len(demos))


def _inside(h5py: Any, group: Any, name: str, path: Path) -> Any:
    """A member of a group of this file, never of another one; None where there is none."""
    link = group.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise DataError(f"{path}: {name} is a link to {getattr(link, 'filename', 'another place')}: links are not followed.")
    return group[name]


def _small_numbers(item: Any) -> bool:
    return item.dtype.kind in NUMBERS and item.ndim >= 1 and math.prod(item.shape[1:]) <= LARGEST and item.ndim < 4


def _array(item: Any, path: Path) -> NDArray[np.float64]:
    """A dataset (steps, ...) as (steps, size), checked before it is read: tiny files can promise terabytes."""
    if item.dtype.kind not in NUMBERS or item.ndim < 1:
        raise DataError(f"{path}: {item.name} holds {item.dtype} of {item.ndim} axes, not numbers a step.")
    if item.external or item.is_virtual:
        raise DataError(f"{path}: {item.name} lies in another file: links are not followed.")
    stored = item.id.get_storage_size()
    if item.size * item.dtype.itemsize > DEFLATE * stored:
        raise DataError(f"{path}: {item.name} {item.shape} was never written: its file holds {stored} bytes of it.")
    array: NDArray[Any] = item[()]
    return array.reshape(len(array), -1).astype(np.float64)


def _numbered(name: str, size: int) -> list[str]:
    return [name] if size == 1 else [f"{name}_{i}" for i in range(size)]


def _control_rate(data: Any) -> float | None:
    """Steps a second of robomimic's environment, where it says so."""
    try:
        rate = json.loads(data.attrs["env_args"])["env_kwargs"]["control_freq"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return float(rate) if isinstance(rate, (int, float)) and not isinstance(rate, bool) and rate > 0 else None


# ---------------------------------------------------------------- what is refused by name


def foreign(path: Path) -> str:
    """What a file or a folder that we do not read is, and what to do; "" where it is not known."""
    name = path.name.lower()
    if name.endswith((".zarr", ".zarr.zip")) or any((path / mark).exists() for mark in (".zgroup", "zarr.json", ".zattrs")):
        return (
            "it is a zarr store, as of diffusion_policy. Convert it once, where zarr is installed: "
            "z = zarr.open(path, 'r'); np.savez('episodes.npz', observation=z['data/state'][:], action=z['data/action'][:], "
            "episode_ends=z['meta/episode_ends'][:])"
        )
    if (path / "features.json").exists() or (path / "dataset_info.json").exists() or name.endswith((".tfrecord", ".riegeli")):
        return "it is a TensorFlow data set (RLDS): convert it to a LeRobotDataset first"
    if name.endswith((".bag", ".db3", ".mcap")):
        return "it is a recording of ROS: convert it to a LeRobotDataset first"
    if name.endswith((".parquet", ".jsonl")):
        return "it is one file of a data set: give the folder that holds meta/info.json"
    if name.endswith((".pkl", ".pickle", ".pt", ".pth")):
        return "such files run code when they are read, and are never opened: save the arrays as episodes.npz"
    return ""

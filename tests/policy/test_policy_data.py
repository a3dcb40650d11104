"""Demonstrations: windows, files, LeRobot folders, and what is wrong with them."""

import json
import sys

import numpy as np
import pytest

from zoo.errors import ConfigError, DataError
from zoo.policy.data import PUSHT, Episodes, Robot, keypoints, open_episodes, pusht_mirrored, pusht_observation

ROBOT = Robot(("o",), ("a", "b"), "metre", 20.0)


def arrays(lengths=(12, 9)):
    """The observation counts the steps of all episodes, the action its episode and its step there."""
    steps = sum(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    return np.arange(steps)[:, None] * 1.0, np.stack([episode, step], 1) * 1.0, np.cumsum(lengths)


def test_windows_stay_in_their_episode_and_repeat_its_edges():
    data = Episodes(*arrays(), ROBOT, horizon=4, n_obs=2, executed=2)
    assert len(data) == (12 + 9) - 2 * (4 - 2) + 2 * 1
    for actions, cond in data:
        assert actions.shape == (4, 2) and cond["observation"].shape == (2, 1)
        episode, steps = actions[:, 0], actions[:, 1]
        assert (episode == episode[0]).all() and set(np.diff(steps)) <= {0.0, 1.0}
    first, cond = data[0]
    assert first[:, 1].tolist() == [0, 0, 1, 2] and cond["observation"][:, 0].tolist() == [0, 0]
    last, cond = data[len(data) - 1]
    assert last[:, 1].tolist() == [7, 8, 8, 8][-4:] or last[:, 1].tolist() == [6, 7, 8, 8]
    assert cond["observation"][0, 0] == 12 + last[0, 1], "observations are those of the window's first steps"


def test_every_action_is_executed_by_some_window():
    data = Episodes(*arrays(), ROBOT, horizon=4, n_obs=2, executed=2)
    executed = {tuple(row) for actions, _ in data for row in actions[1:3].tolist()}
    assert executed == {tuple(row) for row in arrays()[1].tolist()}


def test_whole_episodes_are_held_out():
    lengths = (8,) * 45
    splits = {s: Episodes(*arrays(lengths), ROBOT, split=s) for s in ("train", "validation")}
    episodes = {s: {int(a[0, 0]) for a, _ in d} for s, d in splits.items()}
    assert episodes["validation"] == {19, 39} and episodes["train"] == set(range(45)) - {19, 39}


WRONG = [
    (lambda o, a, e: (o[:-1], a, e), "as many steps"),
    (lambda o, a, e: (o[:, 0], a, e), "as many steps"),
    (lambda o, a, e: (o, a, e - 1), "last is the number of steps"),
    (lambda o, a, e: (o, a, e.astype(float)), "whole numbers"),
    (lambda o, a, e: (o, a, np.array([3, *e[1:]])), "episode 0 has 3 steps; at least 8"),
    (lambda o, a, e: (np.where(o == 15, np.nan, o), a, e), r"observation of step 15 \(episode 1\) is not finite"),
    (lambda o, a, e: (o, np.where(a == 11, np.inf, a), e), r"action of step 11 \(episode 0\) is not finite"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_arrays_are_one_clear_error(change, message):
    with pytest.raises(DataError, match=message):
        Episodes(*change(*arrays()), ROBOT, source="mine.npz")


def test_an_npz_of_ones_own(tmp_path):
    observation, action, ends = arrays()
    names = {"observation_names": ["depth"], "action_names": ["left", "right"], "unit": "metre", "rate": 20.0}
    np.savez(tmp_path / "episodes.npz", observation=observation, action=action, episode_ends=ends, **names)
    for source in (tmp_path, tmp_path / "episodes.npz"):
        data = open_episodes(source)
        assert data.robot == Robot(("depth",), ("left", "right"), "metre", 20.0)
    np.savez(tmp_path / "plain.npz", observation=observation, action=action, episode_ends=ends)
    assert open_episodes(tmp_path / "plain.npz").robot == Robot(("observation_0",), ("action_0", "action_1"))


def test_bad_files_are_named(tmp_path):
    observation, action, ends = arrays()
    np.savez(tmp_path / "a.npz", observation=observation, action=action)
    np.savez(tmp_path / "b.npz", state=observation, action=action, episode_ends=ends)
    np.savez(tmp_path / "c.npz", observation=observation, action=action, episode_ends=ends, action_names=["one"])
    (tmp_path / "d.npz").write_bytes(b"PK nothing")
    np.savez(tmp_path / "e.npz", observation=np.array([{}], object), action=action, episode_ends=ends)
    for name, message in {
        "a": "episode_ends",
        "b": "Push-T",
        "c": "1 names for 2",
        "d": "cannot be read as demonstrations",
        "e": "cannot be read as demonstrations",
    }.items():
        with pytest.raises(DataError, match=message):
            open_episodes(tmp_path / f"{name}.npz")
    with pytest.raises(DataError, match="no data at"):
        open_episodes(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="validation"):
        open_episodes(tmp_path, "dev")


def lerobot(folder, version):
    """A LeRobotDataset as its two formats lay it out, the rows out of order."""
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    observation, action, ends = arrays()
    lengths = np.diff(ends, prepend=0)
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "observation.environment_state": {"dtype": "float32", "shape": [1], "names": {"keys": ["depth"]}},
        "observation.image": {"dtype": "video", "shape": [96, 96, 3], "names": None},
        "action": {"dtype": "float32", "shape": [2], "names": None},
        "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    }
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps({"codebase_version": version, "fps": 10, "features": features}))
    rows = {
        "observation.state": np.repeat(observation, 2, 1) + np.array([0.0, 0.5]),
        "observation.environment_state": -observation,
        "action": action,
        "episode_index": np.repeat(np.arange(2), lengths),
        "frame_index": np.concatenate([np.arange(n) for n in lengths]),
    }
    table = pa.table({k: pa.array(v.tolist()) for k, v in rows.items()})
    chunk = folder / "data" / "chunk-000"
    chunk.mkdir(parents=True)
    if version == "v2.1":
        for i in range(2):
            pq.write_table(table.filter(pa.array(rows["episode_index"] == i)), chunk / f"episode_{i:06d}.parquet")
    else:
        pq.write_table(table.take(np.random.default_rng(0).permutation(len(action))), chunk / "file-000.parquet")
    return folder


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_folders(tmp_path, version):
    observation, action, ends = arrays()
    data = open_episodes(lerobot(tmp_path / "d", version))
    assert data.robot == Robot(("x", "y", "depth"), ("action_0", "action_1"), "", 10.0)
    assert [len(a) for _, a in data.episodes] == np.diff(ends, prepend=0).tolist()
    np.testing.assert_array_equal(np.concatenate([a for _, a in data.episodes]), action)
    expected = np.concatenate([observation, observation + 0.5, -observation], 1)
    np.testing.assert_array_equal(np.concatenate([o for o, _ in data.episodes]), expected)


def test_a_broken_lerobot_folder_is_named(tmp_path):
    folder = lerobot(tmp_path / "d", "v3.0")
    file = folder / "data" / "chunk-000" / "file-000.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="file-000"):
        open_episodes(folder)
    file.unlink()
    with pytest.raises(DataError, match="cannot be read as parquet"):
        open_episodes(folder)
    (folder / "meta" / "info.json").write_text("{}")
    with pytest.raises(DataError, match=r"info\.json"):
        open_episodes(folder)


COLUMNS = {
    "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
    "action": {"dtype": "float32", "shape": [2], "names": ["left", "right"]},
}


def recorded(folder, rows, features=COLUMNS, *, lengths=(12, 9), files=None, stamps=True, fps=10, info=None, meta=True):
    """A LeRobotDataset of any columns: {name: rows}, and the episodes of each file; those of index and time are added."""
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    episode = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.concatenate([np.arange(n) for n in lengths])
    rows = {"episode_index": episode, "frame_index": frame} | ({"timestamp": frame / fps} if stamps else {}) | rows
    said = {"fps": fps, "features": features, "total_episodes": len(lengths), "total_frames": len(episode)} | (info or {})
    chunk = folder / "data" / "chunk-000"
    chunk.mkdir(parents=True)
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps(said))
    if meta:
        lines = [json.dumps({"episode_index": i, "length": n}) for i, n in enumerate(lengths)]
        (folder / "meta" / "episodes.jsonl").write_text("\n".join(lines))
    table = pa.table({k: v if isinstance(v, pa.Array) else pa.array(np.asarray(v).tolist()) for k, v in rows.items()})
    for i, held in enumerate(files or [range(len(lengths))]):
        pq.write_table(table.filter(pa.array(np.isin(episode, list(held)))), chunk / f"file-{i:03d}.parquet")
    return folder


def state(steps=21):
    return {
        "observation.state": np.arange(2 * steps).reshape(steps, 2) / 8,
        "action": np.arange(2 * steps).reshape(steps, 2) / 4,
    }


def feature(kind, *shape):
    return {"dtype": kind, "shape": list(shape), "names": None}


def test_numbers_of_every_kind_are_read(tmp_path):
    grip, table, count = np.arange(21) % 3 == 0, np.arange(126).reshape(21, 2, 3), np.arange(21)
    features = {
        "observation.grip": feature("bool", 1),
        "observation.table": feature("float64", 2, 3),
        "observation.count": feature("int64"),
        "action": feature("int32", 1),
    }
    rows = {"observation.grip": grip, "observation.table": table, "observation.count": count, "action": -count}
    data = open_episodes(recorded(tmp_path / "d", rows, features))
    names = ("grip_0", *(f"table_{i}" for i in range(6)), "count_0")
    assert data.robot.observation_names == names and data.robot.action_names == ("action_0",)
    expected = np.concatenate([grip[:, None], table.reshape(21, 6), count[:, None]], 1)
    np.testing.assert_array_equal(np.concatenate([o for o, _ in data.episodes]), expected)
    np.testing.assert_array_equal(np.concatenate([a for _, a in data.episodes])[:, 0], -count)


def test_scalars_and_lists_of_one_are_the_same(tmp_path):
    features = COLUMNS | {"action": feature("float32", 1)}
    steps = np.arange(21) / 2
    a = open_episodes(recorded(tmp_path / "a", state() | {"action": steps}, features))
    b = open_episodes(recorded(tmp_path / "b", state() | {"action": steps[:, None]}, features))
    np.testing.assert_array_equal(a.episodes[1][1], b.episodes[1][1])


def test_what_is_no_number_is_named(tmp_path):
    features = COLUMNS | {"observation.image": feature("video", 96, 96, 3), "observation.task": feature("string", 1)}
    rows = state() | {"observation.task": ["push"] * 21}
    with pytest.warns(UserWarning, match=r"left out: observation\.image \(video\), observation\.task \(string\)"):
        data = open_episodes(recorded(tmp_path / "d", rows, features))
    assert data.robot.observation_names == ("x", "y")


def test_an_episode_in_two_files_is_refused(tmp_path):
    folder = recorded(tmp_path / "d", state(), lengths=(7, 7, 7), files=[(0,), (1,), (2,)], meta=False)
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    second = folder / "data" / "chunk-000" / "file-001.parquet"
    table = pq.read_table(second)
    place = table.schema.get_field_index("episode_index")
    pq.write_table(table.set_column(place, "episode_index", pa.array([0] * 7)), second)
    with pytest.raises(DataError, match=r"episode 0 is in 2 files \(chunk-000/file-000.parquet, chunk-000/file-001.parquet\)"):
        open_episodes(folder, executed=2, horizon=4)
    elsewhere = folder / "data" / "chunk-001" / "file-000.parquet"
    elsewhere.parent.mkdir()
    second.rename(elsewhere)
    with pytest.raises(DataError, match="episode 0 is in 2 files"):
        open_episodes(folder, executed=2, horizon=4)


EPISODE = np.repeat([0, 1], [12, 9])
FRAME = np.concatenate([np.arange(12), np.arange(9)])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({"episode_index": np.repeat(0, 21)}, {}, r"episode 0 \(.*file-000\.parquet\) has frame 0 twice"),
        ({"frame_index": np.where(FRAME > 4, FRAME + 1, FRAME)}, {}, r"episode 0 .* lacks frame 5"),
        ({"frame_index": FRAME + 1}, {}, r"episode 0 .* lacks frame 0"),
        ({"frame_index": FRAME - 1}, {}, "frame_index must be whole numbers of at least 0"),
        ({"frame_index": FRAME + 0.5}, {}, "frame_index must be whole numbers"),
        ({"timestamp": np.where(FRAME == 7, 0.63, FRAME / 10)}, {}, r"frames 6 and 7 of episode 0 are 0\.03 s apart, at 10 Hz"),
        ({"timestamp": FRAME / 20}, {}, r"0\.05 s apart, at 10 Hz it must be 0\.1 s \(19 such gaps\)"),
        ({"timestamp": np.where(FRAME == 7, np.nan, FRAME / 10)}, {}, "timestamp of episode 0, frame 7 is not finite"),
        ({}, {"info": {"total_episodes": 4}}, r"total_episodes 4, but the data hold 2 \(episode 2, 3 is not there\)"),
        ({}, {"info": {"total_frames": 22}}, "total_frames 22, but the data hold 21"),
        ({}, {"info": {"fps": 0}}, "rate 0 must be a number of steps a second"),
        ({}, {"info": {"fps": "ten"}}, "rate 'ten' must be"),
        ({}, {"info": {"features": {"action": 3}}}, r"info\.json cannot be read"),
        ({}, {"info": {"features": {"action": {"dtype": "float32"}}}}, r"info\.json cannot be read"),
        ({}, {"info": {"features": {"action": {"dtype": "float32", "shape": [-1]}}}}, r"info\.json cannot be read"),
        ({}, {"info": {"features": COLUMNS | {"observation.b": feature("float32", 1)}}}, r"lacks the column.*observation\.b;"),
        ({}, {"info": {"features": COLUMNS | {"action": feature("string", 1)}}}, "action is string"),
        ({}, {"info": {"features": {"action": COLUMNS["action"]}}}, "at least one observation"),
        ({"action": ["left"] * 21}, {}, "action holds string in its files"),
        ({"action": np.zeros((21, 3))}, {}, r"action has 3 numbers a step in .*, but info\.json says shape \[2\]"),
        ({"observation.state": np.zeros((21, 2, 3))},
         {"info": {"features": COLUMNS | {"observation.state": feature("float32", 3, 2)}}}, r"has 2 x 3 numbers .* \[3, 2\]"),
        ({"action": np.where(FRAME == 3, 1e300, 0.0)[:, None].repeat(2, 1)}, {}, r"action of step 3 .* is not finite"),
    ],
)  # fmt: skip
def test_recordings_with_faults_are_refused_by_name(tmp_path, rows, options, message):
    folder = recorded(tmp_path / "d", state() | rows, **options)
    with pytest.raises(DataError, match=message):
        open_episodes(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0]] * 5 + [None] + [[1.0, 2.0]] * 15, r"action of row 5 \(.*\) is empty \(null\)"),
        ([[1.0, 2.0]] * 5 + [[1.0, None]] + [[1.0, 2.0]] * 15, r"action of row 5 \(.*\) is empty \(null\)"),
        ([[1.0, 2.0]] * 5 + [[1.0]] + [[1.0, 2.0]] * 15, "action of row 5 .* has another length"),
        ([[[1.0, 2.0]]] * 5 + [[[1.0, 2.0, 3.0]]] + [[[1.0, 2.0]]] * 15, "action of row 5 .* has another length"),
    ],
)
def test_nulls_and_ragged_rows_are_refused_by_name(tmp_path, values, message):
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=message):
        open_episodes(recorded(tmp_path / "d", state() | {"action": pa.array(values)}))


def test_frames_that_the_metadata_count_are_missed(tmp_path):
    folder = recorded(tmp_path / "d", state(), info={"total_frames": None})
    (folder / "meta" / "episodes.jsonl").write_text('{"episode_index": 1, "length": 11}')
    with pytest.raises(DataError, match="episode 1 has 9 frames, but its metadata say 11"):
        open_episodes(folder)
    (folder / "meta" / "episodes.jsonl").write_text("[")
    with pytest.raises(DataError, match="its list of episodes cannot be read"):
        open_episodes(folder)


def test_an_episode_that_only_the_metadata_know_is_missed(tmp_path):
    folder = recorded(tmp_path / "d", state(), info={"total_frames": None, "total_episodes": None})
    with (folder / "meta" / "episodes.jsonl").open("a") as file:
        file.write('\n{"episode_index": 2, "length": 11}')
    with pytest.raises(DataError, match="episode 2 has 0 frames, but its metadata say 11"):
        open_episodes(folder)


def test_what_only_the_data_know_is_named(tmp_path):
    with pytest.warns(UserWarning, match=r"left out: observation\.force \(not in info\.json\)"):
        open_episodes(recorded(tmp_path / "d", state() | {"observation.force": np.zeros(21)}))
    info = {"splits": {"train": "0:2", "test": "3:4"}}
    with pytest.warns(UserWarning, match=r"left out: 1 of 4 episodes \(in no split\)"):
        open_episodes(recorded(tmp_path / "e", state(40), lengths=(10,) * 4, info=info))


def test_times_of_a_long_recording_may_be_float32(tmp_path):
    stamps = (np.float32(1_000_000) + np.arange(21, dtype=np.float32) / np.float32(10)).astype(float)
    open_episodes(recorded(tmp_path / "d", state(), lengths=(21,)))
    folder = recorded(tmp_path / "e", state() | {"timestamp": stamps}, lengths=(21,))
    assert len(open_episodes(folder).episodes) == 1


def test_short_episodes_are_skipped_or_padded_on_request(tmp_path):
    lengths = (12, 1, 9, 3)
    observation, action, ends = arrays(lengths)
    np.savez(tmp_path / "episodes.npz", observation=observation, action=action, episode_ends=ends)
    with pytest.raises(DataError, match=r"episode 1 has 1 steps; at least 8 .*; episode 3 has 3 .*--skip-unreadable.*pad"):
        open_episodes(tmp_path)
    for options in ({"short": "skip"}, {"skip_unreadable": True}):
        with pytest.warns(UserWarning, match="of 4 episodes 2 left out: episode 1 has 1 steps"):
            data = open_episodes(tmp_path, **options)
        assert list(data.skipped) == ["episode 1", "episode 3"] and data.padded == 0
        assert [len(a) for _, a in data.episodes] == [12, 9]
        assert {int(a[0, 0]) for a, _ in data} == {0, 2}
    with pytest.warns(UserWarning, match="of 4 episodes 2 padded to 8 steps"):
        data = open_episodes(tmp_path, short="pad")
    assert [len(a) for _, a in data.episodes] == [12, 8, 9, 8] and data.padded == 2 and not data.skipped
    assert data.episodes[3][1][:, 1].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    with pytest.raises(ConfigError, match="refuse, skip, pad"):
        open_episodes(tmp_path, short="drop")
    with pytest.raises(ConfigError, match=r"unknown option of demonstrations 'shorts'.*'short'"):
        open_episodes(tmp_path, shorts="pad")
    np.savez(tmp_path / "episodes.npz", observation=observation[:1], action=action[:1], episode_ends=[1])
    with pytest.raises(DataError, match="no episode is left: episode 0 has 1 steps"):
        open_episodes(tmp_path, short="skip")


def test_no_episode_is_left_without_a_window():
    for sizes in ({"horizon": 32}, {"n_obs": 1}, {"horizon": 16, "executed": 15}):
        least = max(sizes.get("executed", 8), sizes.get("horizon", 16) - sizes.get("executed", 8) - sizes.get("n_obs", 2) + 2)
        assert len(Episodes(*arrays((least,)), ROBOT, **sizes)) == 1 or sizes.get("executed", 8) == least
        with pytest.raises(DataError, match=f"at least {least} are needed"):
            Episodes(*arrays((least, least - 1)), ROBOT, **sizes)


def test_unreadable_episodes_are_skipped_on_request():
    observation, action, ends = arrays((12, 9, 10))
    action[14] = np.nan
    with pytest.warns(UserWarning, match=r"1 left out: action of step 14 \(episode 1\) is not finite"):
        data = Episodes(observation, action, ends, ROBOT, skip_unreadable=True)
    assert [len(a) for _, a in data.episodes] == [12, 10]
    with pytest.raises(DataError, match="not finite"):
        Episodes(observation, action, ends, ROBOT, short="pad")


def test_an_npz_of_other_shapes_and_kinds(tmp_path):
    observation, action, ends = arrays()
    path = tmp_path / "episodes.npz"

    def write(**changed):
        np.savez(path, **{"observation": observation, "action": action, "episode_ends": ends} | changed)
        return path

    assert open_episodes(write(action=action[:, 0])).robot.action_names == ("action_0",)
    assert open_episodes(write(observation=observation[:, 0] > 3)).episodes[0][0].dtype == np.float32
    assert open_episodes(write(observation=np.zeros((21, 2, 3)))).episodes[0][0].shape == (12, 6)
    assert open_episodes(write(action=action.astype(np.int16))).episodes[1][1][3, 1] == 3
    with pytest.warns(UserWarning, match=r"left out: grip \(bool \(21,\)\)"):
        open_episodes(write(grip=np.zeros(21, bool)))
    with pytest.warns(UserWarning, match=r"left out: state \(float64 \(21, 5\)\)"):
        open_episodes(write(state=np.zeros((21, 5))))
    even = FRAME / 20
    assert len(open_episodes(write(timestamp=even, rate=20.0))) and len(open_episodes(write(timestamp=even)))
    for changed, message in [
        ({"timestamp": even, "rate": 10.0}, r"0\.05 s apart, at 10 Hz"),
        ({"timestamp": np.where(FRAME == 7, 0.3, even)}, r"frames 6 and 7 of episode 0 are 0 s apart, at 20 Hz"),
        ({"timestamp": even[:5]}, "one number for each of 21 steps"),
        ({"timestamp": np.zeros(21)}, "does not rise"),
        ({"observation": np.zeros((21, 2, 2, 3))}, r"must be \(steps, size\)"),
        ({"observation": np.zeros((21, 96, 96))}, r"must be \(steps, size\)"),
        ({"observation": np.zeros((21, 0))}, "0 columns"),
        ({"observation": np.zeros((21, 2), complex)}, "complex128; it must hold numbers"),
        ({"action": np.array([["a", "b"]] * 21)}, "it must hold numbers"),
        ({"action": np.float64(3)}, r"must be \(steps, size\)"),
        ({"observation": np.zeros((0, 2)), "action": np.zeros((0, 2))}, r"must be \(steps, size\)"),
        ({"episode_ends": [12, 9, 21]}, "must rise: episode 1 has -3 steps"),
        ({"rate": -5.0}, "rate"),
        ({"rate": "fast"}, "rate"),
        ({"action_names": "ab"}, "give one name for each of 2 columns"),
        ({"observation": observation * 1e300}, "not finite"),
    ]:
        with pytest.raises(DataError, match=message):
            open_episodes(write(**changed))


def robomimic(path, change=lambda file, h5py: None, lengths=(12, 9, 10)):
    """A file of robomimic's layout."""
    h5py = pytest.importorskip("h5py")
    _, action, ends = arrays(lengths)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for i, n in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = n
            rows = action[ends[i] - n : ends[i]]
            demo["actions"] = rows
            demo["obs/eef_pos"] = np.concatenate([rows, rows[:, :1]], 1)
            demo["obs/gripper"] = rows[:, 1] > 3
            demo["obs/agentview_image"] = np.zeros((n, 84, 84, 3), np.uint8)
        change(file, h5py)
    return path


def test_robomimic_files(tmp_path):
    path = robomimic(tmp_path / "low_dim.hdf5", lengths=(12, 9, 10, *[8] * 8))
    _, action, _ = arrays((12, 9, 10, *[8] * 8))
    for source in (path, tmp_path):
        with pytest.warns(UserWarning, match="left out: agentview_image"):
            data = open_episodes(source)
        assert data.robot == Robot(("eef_pos_0", "eef_pos_1", "eef_pos_2", "gripper"), ("action_0", "action_1"), "", 20.0)
        np.testing.assert_array_equal(np.concatenate([a for _, a in data.episodes]), action), "demo_10 comes after demo_9"
        assert data.episodes[0][0][:, 3].tolist() == (np.arange(12) > 3).tolist()


def test_what_is_no_demonstration_is_named(tmp_path):
    with pytest.warns(UserWarning, match=r"left out: .*episode_7 \(no demonstration\)"):
        open_episodes(robomimic(tmp_path / "a.hdf5", lambda f, h: f["data"].copy("demo_0", "episode_7")))


def test_splits_that_the_data_name_are_taken(tmp_path):
    lengths = (8,) * 25
    folder = recorded(tmp_path / "d", state(200), lengths=lengths, info={"splits": {"train": "0:22", "val": "22:25"}})
    counts = {s: [len(open_episodes(folder, s).episodes), open_episodes(folder, s).episodes[0][1][0, 0]] for s in
              ("train", "validation", "test")}  # fmt: skip
    assert counts == {"train": [22, 0.0], "validation": [3, 88.0], "test": [3, 88.0]}
    usual = recorded(tmp_path / "u", state(200), lengths=lengths, info={"splits": {"train": "0:25"}})
    assert [len(open_episodes(usual, s).episodes) for s in ("train", "validation")] == [24, 1]
    for i, (splits, message) in enumerate([
        ({"train": "0:22", "val": "20:25"}, "none may be in two"),
        ({"train": "0:25", "test": "25:30"}, "0 of test"),
        ({"val": "0:25"}, "train too"),
        ({"train": "all", "val": "22:25"}, "'train': 'all'"),
        ({"train": "0:9", "test": "9:12", "kitchen": "12:25"}, "kitchen"),
    ]):  # fmt: skip
        folder = recorded(tmp_path / str(i), state(200), lengths=lengths, info={"splits": splits})
        with pytest.raises(DataError, match=message):
            open_episodes(folder)


def test_masks_of_robomimic_are_taken(tmp_path):
    def masked(file, h5py, valid=b"demo_1"):
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
        file["mask/valid"] = np.array([valid])

    path = robomimic(tmp_path / "a.hdf5", masked)
    assert [len(a) for _, a in open_episodes(path).episodes] == [12, 10]
    assert [len(a) for _, a in open_episodes(path, "validation").episodes] == [9]
    for valid, message in ((b"demo_2", "none may be in two"), (b"demo_7", "demo_7, which the file does not hold")):
        with pytest.raises(DataError, match=message):
            open_episodes(robomimic(tmp_path / "a.hdf5", lambda f, h, valid=valid: masked(f, h, valid)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, h: f.move("data", "runs"), "lacks the group data; it has runs"),
        (lambda f, h: [f["data"].pop(k) for k in list(f["data"])], "no demo_0"),
        (lambda f, h: f["data/demo_1"].pop("obs"), "demo_1 lacks actions or obs"),
        (lambda f, h: f["data/demo_1/obs"].pop("gripper"), "demo_1 lacks obs/gripper"),
        (lambda f, h: (f["data/demo_1"].pop("actions"), f.create_dataset("data/demo_1/actions", data=np.zeros((8, 2)))),
         "demo_1 has 8 steps of actions, 9 steps of eef_pos"),
        (lambda f, h: f["data/demo_1"].attrs.__setitem__("num_samples", 7), "num_samples says 7"),
        (lambda f, h: f["data"].attrs.__setitem__("total", 40), "40 steps in all, but its 3 demonstrations have 31"),
        (lambda f, h: (f["data/demo_2/obs"].pop("eef_pos"), f.create_dataset("data/demo_2/obs/eef_pos", data=[[1] * 4] * 9)),
         "eef_pos of demo_2 has shape"),
        (lambda f, h: (f["data/demo_2"].pop("actions"), f["data/demo_2"].__setitem__("actions", h.ExternalLink("/x.h5", "/a"))),
         r"a link to /x\.h5: links are not followed"),
        (lambda f, h: (f["data/demo_0"].pop("actions"), f.create_dataset("data/demo_0/actions", (12, 2), "f8", chunks=(1, 2))),
         "was never written"),
        (lambda f, h: (f["data/demo_0"].pop("actions"), f.create_dataset("data/demo_0/actions", data=[b"a"] * 12)), "not n"),
        (lambda f, h: f["data/demo_1/actions"].__setitem__(3, np.nan), r"action of step 15 \(demo_1\) is not finite"),
    ],
)  # fmt: skip
def test_robomimic_files_with_faults_are_refused_by_name(tmp_path, change, message):
    path = robomimic(tmp_path / "a.hdf5", change)
    with pytest.raises(DataError, match=message):
        open_episodes(path)


def test_a_damaged_hdf5_file_is_one_error(tmp_path):
    pytest.importorskip("h5py")
    path = robomimic(tmp_path / "a.hdf5")
    whole = path.read_bytes()
    for content in (whole[:8] + bytes(100), whole[: len(whole) // 2], whole[:2000] + bytes(4000) + whole[6000:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.hdf5") as found:
            open_episodes(path)
        assert "pickle" not in str(found.value)
    (tmp_path / "b.h5").write_bytes(whole)
    with pytest.raises(DataError, match="2 HDF5 files"):
        open_episodes(tmp_path)


def test_hdf5_without_its_reader_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "low_dim.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ConfigError, match=r"h5py is needed.*diffusion-zoo\[policy\]"):
        open_episodes(tmp_path)


@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        ("pusht.zarr/.zgroup", "pusht.zarr", "zarr store.*np.savez"),
        ("pusht.zarr/data/.zgroup", "pusht.zarr", "zarr store"),
        ("pusht.zarr/.zgroup", ".", "zarr store"),
        ("replay/zarr.json", "replay", "zarr store"),
        ("pusht.zarr.zip", "pusht.zarr.zip", "zarr store"),
        ("rlds/features.json", "rlds", "RLDS"),
        ("run.mcap", "run.mcap", "ROS"),
        ("demos.pkl", "demos.pkl", "never opened"),
        ("episode_000000.parquet", "episode_000000.parquet", "give the folder"),
        ("notes.txt", ".", "no demonstrations at"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, made, given, message):
    (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / made).write_text("{}")
    with pytest.raises(DataError, match=message):
        open_episodes(tmp_path / given)


def test_the_corners_are_those_of_the_environment():
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("gym_pusht")
    env = gymnasium.make("gym_pusht/PushT-v0", obs_type="environment_state_agent_pos")
    for seed in range(20):
        observation, info = env.reset(seed=seed)
        np.testing.assert_allclose(keypoints(info["block_pose"]).reshape(-1), observation["environment_state"], atol=1e-9)
    x, y, angle = info["block_pose"]
    turned = pusht_observation(np.array([7.0, 8.0, x, y, angle + 2 * np.pi]))
    np.testing.assert_allclose(turned, [*observation["environment_state"], 7, 8], atol=1e-9)


def pushes(env, pose, agent, actions):
    """(observations, coverages) of actions from a start."""
    env.reset(seed=0)
    base = env.unwrapped
    base.block.angle, base.block.position = pose[2], tuple(pose[:2])  # the angle first: it moves the position
    base.agent.position, base.agent.velocity = tuple(agent), (0, 0)
    base.space.step(1e-6)
    rows, coverages = [], []
    for action in actions:
        observation, _, _, _, info = env.step(action)
        rows.append(np.concatenate([observation["environment_state"], observation["agent_pos"]]))
        coverages.append(info["coverage"])
    return np.array(rows), np.array(coverages)


def test_the_environment_moves_a_mirror_image_like_the_original():
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("gym_pusht")
    env = gymnasium.make("gym_pusht/PushT-v0", obs_type="environment_state_agent_pos")
    pose, agent = np.array([230.0, 290.0, 0.4]), np.array([120.0, 330.0])
    actions = np.linspace([150, 330], [330, 300], 25)  # through the T: it turns and moves
    seen, coverage = pushes(env, pose, agent, actions)
    image, mirrored = pusht_mirrored(seen, actions)
    turned = np.array([512 - pose[1], 512 - pose[0], np.pi / 2 - pose[2]])
    replayed, same = pushes(env, turned, 512 - agent[::-1], mirrored)
    assert np.abs(seen[-1] - seen[0]).max() > 50, "the T is pushed"
    np.testing.assert_allclose(replayed, image, atol=0.5)
    np.testing.assert_allclose(same, coverage, atol=0.01)
    np.testing.assert_allclose(pusht_mirrored(image, mirrored)[0], seen)


def test_images_are_of_the_same_split():
    lengths = (8,) * 40
    observation, action, ends = arrays(lengths)
    mirror = lambda o, a: (-o, -a)  # noqa: E731
    for split, count in (("train", 38), ("validation", 2)):
        data = Episodes(observation, action, ends, ROBOT, split=split, mirror=mirror)
        assert len(data.episodes) == 2 * count and len({i for i, _ in data.windows}) == 2 * count
        own, images = data.episodes[:count], data.episodes[count:]
        assert all((a == -b).all() for (_, a), (_, b) in zip(own, images, strict=True))


@pytest.mark.data
def test_the_demonstrations(zoo_data):
    data = open_episodes(zoo_data / "policy")
    assert data.robot == PUSHT and len(data.episodes) == 2 * 196 and len(data.episodes[0][0]) == len(data.episodes[0][1])
    assert len(open_episodes(zoo_data / "policy", "validation").episodes) == 2 * 10
    raw = np.load(zoo_data / "policy" / "pusht_demos.npz")
    np.testing.assert_allclose(data.episodes[0][0][:, 16:], raw["state"][: len(data.episodes[0][0]), :2])

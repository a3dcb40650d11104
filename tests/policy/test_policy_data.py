"""Demonstrations: windows, files, LeRobot folders, and what is wrong with them."""

import json

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

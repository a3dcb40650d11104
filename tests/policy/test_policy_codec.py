"""Units, ranges and refusals of the policy codec; actions as files and pictures."""

import numpy as np
import pytest
import torch

import zoo
import zoo.contract.registry
from zoo.errors import CheckpointError, ConfigError, DataError, ShapeError
from zoo.policy.actions import Actions
from zoo.policy.codec import PolicyCodec
from zoo.policy.data import Episodes, Robot

OPTIONS = {
    "horizon": 4, "n_obs": 2, "executed": 2, "observation_names": ["p", "q", "r"], "action_names": ["x", "y"],
    "unit": "metre", "rate": 10.0, "keys": ["far", "near"],
}  # fmt: skip


@pytest.fixture
def codec():
    rng = np.random.default_rng(0)
    observations, actions = rng.uniform([0, 10, 5], [1, 30, 5], (40, 3)), rng.uniform([-2, 0], [2, 8], (40, 2))
    data = Episodes(observations, actions, np.array([20, 40]), Robot(("p", "q", "r"), ("x", "y")), horizon=4, executed=2)
    codec = PolicyCodec(**OPTIONS)
    codec.fit(data)
    return codec, observations.astype(np.float32), actions.astype(np.float32)


def test_the_datas_range_becomes_minus_1_to_1(codec):
    codec, observations, actions = codec
    chunks = torch.stack([codec.encode(actions[i : i + 4]) for i in range(36)])
    assert chunks.amin((0, 1)).tolist() == pytest.approx([-1, -1]) and chunks.amax((0, 1)).tolist() == pytest.approx([1, 1])
    windows = codec.condition("observation", np.stack([observations[i : i + 2] for i in range(38)]))
    assert windows.shape == (38, 2, 3) and windows.abs().max() <= 1 + 1e-6
    assert (windows[..., 2] == 0).all(), "a dimension that never moves is 0, not NaN"
    back = codec.decode(chunks, {})
    np.testing.assert_allclose(back[5].numpy(), actions[5:9], atol=1e-5)
    assert (back[5].unit, back[5].rate, back[5].names, back[5].clipped) == ("metre", 10.0, ("x", "y"), 0)


def test_actions_outside_the_range_are_clipped_and_counted(codec):
    codec, _, actions = codec
    x0 = torch.zeros(2, 4, 2)
    x0[1, 0, 0], x0[1, 3, 1] = 1.5, -7.0
    inside, outside = codec.decode(x0, {})
    assert (inside.clipped, outside.clipped) == (0, 2)
    assert outside.values[0, 0] == pytest.approx(actions[:, 0].max()) and outside.values[3, 1] == pytest.approx(
        actions[:, 1].min()
    )


def test_observations_may_be_dictionaries(codec):
    codec, observations, _ = codec
    parts = {"near": observations[:2, 2:], "far": observations[:2, :2]}
    assert torch.equal(codec.condition("observation", parts), codec.condition("observation", observations[:2]))
    with pytest.raises(ShapeError, match="give far, near"):
        codec.condition("observation", {"far": observations[:2]})


def test_observations_that_cannot_be_are_refused(codec):
    codec, observations, _ = codec
    good = observations[:2]
    nan = np.where(good == good[1, 1], np.nan, good)
    for value, error, message in [
        (good[:1], ShapeError, "the last 2 of them, oldest first"),
        (good[0], ShapeError, "the last 2"),
        (good[:, :2], ShapeError, "its last axis must hold 3: p, q, r"),
        (nan, ConfigError, "q is NaN or infinite; a robot must not move"),
        (good * 1000, ConfigError, "are these its units"),
    ]:
        with pytest.raises(error, match=message):
            codec.condition("observation", value)


def test_statistics_are_needed_and_saved(codec, tmp_path):
    with pytest.raises(CheckpointError, match="no statistics"):
        PolicyCodec(**OPTIONS).condition("observation", np.zeros((2, 3)))
    fresh = PolicyCodec(**OPTIONS)
    fresh.load_state_dict(codec[0].state_dict())
    assert torch.equal(fresh.condition("observation", codec[1][:2]), codec[0].condition("observation", codec[1][:2]))


@pytest.mark.parametrize(
    "change", [{"horizon": 0}, {"executed": 4}, {"n_obs": 0}, {"rate": -1.0}, {"action_names": []}, {"observation_names": []}]
)
def test_options_that_do_not_fit(change):
    with pytest.raises(ConfigError, match="policy codec"):
        PolicyCodec(**OPTIONS | change)


def test_actions_save_and_draw(tmp_path):
    values = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    actions = Actions(values, names=("x", "y", "grip"), unit="metre", rate=20.0)
    with np.load(actions.save(tmp_path / "a.npz")) as z:
        np.testing.assert_array_equal(z["action"], values)
        assert (list(z["action_names"]), str(z["unit"]), float(z["rate"])) == (["x", "y", "grip"], "metre", 20.0)
    pytest.importorskip("matplotlib")
    assert actions.plot().size == Actions(values[:, :2]).plot().size and "metre" in repr(actions)
    assert np.ptp(np.asarray(actions.plot()).astype(int) - np.asarray(Actions(values[::-1].copy()).plot())) > 100
    with pytest.raises(DataError, match="npz"):
        actions.save(tmp_path / "a.csv")
    with pytest.raises(ShapeError):
        Actions(values[0])


def test_a_recipe_adapts_to_other_robots():
    rng = np.random.default_rng(0)
    robot = Robot(("p", "q", "r"), ("x",), "volt", 50.0)
    data = Episodes(rng.normal(size=(60, 3)), rng.normal(size=(60, 1)), np.array([30, 60]), robot)
    recipe = zoo.contract.registry.get_recipe("policy/pusht-keypoints")
    adapted = zoo.contract.registry.get_domain("policy").adapt(recipe, data)
    assert adapted.codec["unit"] == "volt" and adapted.codec["keys"] == [] and adapted.conditions["observation"].shape == (2, 3)
    model = zoo.model.loading.build(adapted)
    model.codec.fit(data)
    assert model.sample(2, observation=data[0][1]["observation"], steps=2, progress=False).tensor.shape == (2, 16, 1)

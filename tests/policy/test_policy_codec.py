"""Units, ranges and refusals of the policy codec; actions as files and pictures."""

import numpy as np
import pytest
import torch

import zoo
import zoo.contract.registry
from zoo.errors import CheckpointError, ConfigError, DataError, ShapeError
from zoo.model.loading import build
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
    model = build(adapted)
    model.codec.fit(data)
    assert model.sample(2, observation=data[0][1]["observation"], steps=2, progress=False).tensor.shape == (2, 16, 1)


def test_one_observation_is_the_start_of_an_episode(codec):
    codec, observations, _ = codec
    one = observations[5]
    start = codec.condition("observation", np.stack([one, one]))
    assert torch.equal(codec.condition("observation", one), start) and start.shape == (2, 3)
    assert torch.equal(codec.condition("observation", {"far": one[:2], "near": one[2:]}), start)
    assert torch.equal(codec.condition("observation", {"far": one[:2], "near": one[2]}), start), "a part may be a number"
    assert torch.equal(codec.condition("observation", one.tolist()), start)
    assert torch.equal(codec.condition("observation", torch.tensor(one, requires_grad=True)), start)


def test_sample_takes_one_observation_as_the_controller_does():
    rng = np.random.default_rng(0)
    data = Episodes(rng.uniform(1, 9, (40, 18)), rng.uniform(1, 9, (40, 2)), np.array([20, 40]), Robot(("o",) * 18, ("x", "y")))
    model = zoo.create("policy/pusht-keypoints", **{"net.channels": 16, "net.emb_dim": 16})
    model.codec.fit(data)
    one = data.episodes[0][0][0]
    a, b = (model.sample(2, observation=o, steps=1, seed=0).tensor for o in (one, np.stack([one, one])))
    assert torch.equal(a, b)


def test_what_is_not_an_array_of_numbers_is_refused(codec):
    codec, observations, _ = codec
    good = observations[:2]
    masked = np.ma.masked_array(good, mask=good == good[0, 0])
    for value, error, message in [
        (None, ConfigError, "got NoneType; give an array of real numbers"),
        ("0.1 0.2 0.3", ConfigError, "got str"),
        (object(), ConfigError, "got object"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0]], ConfigError, "ragged"),
        ([None, 1.0, 2.0], ConfigError, "got list"),
        ([{"far": 1}, {"far": 2}], ConfigError, "got list"),
        (good + 1j, ConfigError, "array of complex"),
        (np.array(["a", "b", "c"]), ConfigError, "array of <U1"),
        (np.zeros(3, "datetime64[s]"), ConfigError, "array of datetime64"),
        (masked, ConfigError, "masked values"),
        ({"far": None, "near": good[:, 2:]}, ConfigError, "observation 'far': got NoneType"),
        ({"far": good[:, :2], "near": good[0, 2:]}, ShapeError, r"far \(2, 2\), near \(1,\)"),
        ({}, ShapeError, "has nothing; give far, near"),
        (1.0, ShapeError, "its last axis must hold 3"),
        ([], ShapeError, "its last axis must hold 3"),
        (np.full(3, 1e300), ConfigError, "NaN or infinite"),
    ]:
        with pytest.raises(error, match=message):
            codec.condition("observation", value)
    assert codec.condition("observation", np.array([1, 20, 5])).isfinite().all(), "whole numbers are numbers"


def pixels():
    """A codec of 4 dimensions from 50 to 450, one of which never moves, and one observation."""
    rng = np.random.default_rng(0)
    observations = np.concatenate([rng.uniform(50, 450, (40, 3)), np.full((40, 1), 300.0)], 1)
    codec = PolicyCodec(observation_names=list("abcd"), action_names=["x"])
    codec.fit(Episodes(observations, rng.normal(size=(40, 1)), np.array([20, 40]), Robot(tuple("abcd"), ("x",))))
    return codec, observations[7].astype(np.float32)


@pytest.mark.parametrize("change", [lambda o: o / 512, lambda o: o / 256 - 1, lambda o: o * 0, lambda o: o / 100 - 1])
def test_observations_of_a_smaller_scale_are_doubted(change):
    codec, one = pixels()
    with pytest.warns(UserWarning, match=r"far smaller than the training data's .* are these its units"):
        codec.condition("observation", change(one))
    assert codec.too_small(torch.tensor(change(one))[None])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o + np.array([900, 0, 0, 0]), r"a = \d+.* lies far outside the training range"),
        (lambda o: o + np.array([0, 0, 0, 9]), r"d = 309 \(300 to 300\) never moved"),
    ],
)
def test_single_numbers_outside_their_range_are_doubted_by_name(change, message):
    codec, one = pixels()
    with pytest.warns(UserWarning, match=message):
        codec.condition("observation", change(one))


def test_another_origin_is_doubted():
    codec, one = pixels()
    with pytest.warns(UserWarning, match="most numbers .* lie outside the training range"):
        codec.condition("observation", np.array([-60.0, -40.0, -90.0, 300.0], np.float32))
    assert not codec.doubt(torch.tensor(one)[None])


def test_all_numbers_near_zero_are_doubted_where_the_range_goes_around_it():
    rng = np.random.default_rng(0)
    degrees = rng.uniform(-180, 180, (40, 3))
    codec = PolicyCodec(observation_names=list("abc"), action_names=["x"])
    codec.fit(Episodes(degrees, rng.normal(size=(40, 1)), np.array([20, 40]), Robot(tuple("abc"), ("x",))))
    with pytest.warns(UserWarning, match="near zero"):
        codec.condition("observation", degrees[0] / 400)


def test_usual_observations_are_not_doubted(codec, recwarn):
    codec, observations, _ = codec
    codec.condition("observation", observations[:2])
    codec, one = pixels()
    codec.condition("observation", one)
    codec.condition("observation", one - np.array([90, 0, 0, 0], np.float32))  # a little outside
    assert not [w for w in recwarn if "observation" in str(w.message)]


def test_one_strange_window_of_many_is_refused(codec):
    codec, observations, _ = codec
    windows = np.stack([observations[i : i + 2] for i in range(30)])
    windows[17] *= 1000
    with pytest.raises(ConfigError, match="are these its units"):
        codec.condition("observation", windows)


def constant(value, others=(0.0, 1.0)):
    rng = np.random.default_rng(0)
    actions = np.stack([np.full(40, value), rng.uniform(*others, 40)], 1)
    codec = PolicyCodec(horizon=4, executed=2, observation_names=["o"], action_names=["a", "b"])
    data = Episodes(rng.normal(size=(40, 1)), actions, np.array([20, 40]), Robot(("o",), ("a", "b")), horizon=4, executed=2)
    codec.fit(data)
    return codec, actions.astype(np.float32)


@pytest.mark.parametrize("value", [0.3, 0.0, -7.1, 1e-3, 123456.7])
def test_an_action_that_is_constant_comes_out_exactly(value):
    codec, actions = constant(value)
    (found,) = codec.decode(torch.randn(1, 4, 2) * 3, {})
    assert (found.values[:, 0] == np.float32(value)).all()
    assert found.values[:, 1].min() >= actions[:, 1].min() and found.values[:, 1].max() <= actions[:, 1].max()
    x0 = torch.zeros(1, 4, 2)
    x0[0, :, 0], x0[0, 0, 1] = 0.5, 2.0
    assert codec.decode(x0, {})[0].clipped == 1, "what has no range does not lie outside of it"
    assert not codec.encode(actions[:4])[:, 0].any()


def test_actions_that_are_constant_throughout_are_statistics_too():
    codec, _ = constant(0.3, (0.5, 0.5))
    (found,) = codec.decode(torch.randn(1, 4, 2), {})
    assert (found.values == np.float32([0.3, 0.5])).all()
    nothing = Episodes(np.zeros((40, 1)), np.zeros((40, 2)), np.array([40]), Robot(("o",), ("a", "b")), horizon=4, executed=2)
    with pytest.raises(DataError, match="zeros throughout"):
        codec.fit(nothing)


def test_the_edges_are_exact():
    codec, actions = constant(0.3, (0.1, 0.7))
    x0 = torch.ones(1, 4, 2)
    assert codec.decode(x0, {})[0].values[0, 1] == actions[:, 1].max()
    assert codec.decode(-x0, {})[0].values[0, 1] == actions[:, 1].min()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_ranges_stay_whole_in_every_dtype(dtype):
    codec, _ = pixels()
    ranges = [b.clone() for b in codec.buffers()]
    codec.to(dtype)
    assert all(torch.equal(a, b) and b.dtype == torch.float32 for a, b in zip(ranges, codec.buffers(), strict=True))
    codec.to("meta")
    assert all(b.is_meta for b in codec.buffers())


@pytest.mark.parametrize("name", ["policy/pusht-keypoints", pytest.param("policy/metaworld-push", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_packaged_policies_act_in_every_dtype(name, dtype):
    plain = zoo.load(name)
    low, high = plain.codec.observation_low.numpy(), plain.codec.observation_high.numpy()
    one = low + (high - low) * np.linspace(0.2, 0.8, len(low)).astype(np.float32)
    expected = plain.sample(1, observation=one, seed=0, steps=3)[0].values
    span = (plain.codec.action_high - plain.codec.action_low).numpy()
    for model in (zoo.load(name, dtype=dtype), plain.to(dtype)):
        found = model.sample(1, observation=one, seed=0, steps=3)[0].values
        assert np.abs((found - expected) / span).max() < {torch.bfloat16: 0.1, torch.float16: 0.01}.get(dtype, 1e-4)
        assert model.controller(steps=1, seed=0).act(one).dtype == np.float32
        assert model.codec.action_low.dtype == torch.float32


# ---- other ways to scale, and ranges that are not known --------------------------------------------------------------------


def scaled(**options):
    """A codec of three observed numbers and two actions of made-up data, of which one each never moves."""
    rng = np.random.default_rng(0)
    observations = np.concatenate([rng.normal([300, -4], [50, 2], (40, 2)), np.full((40, 1), 7.5)], 1)
    actions = np.stack([rng.normal(100, 30, 40), np.full(40, 0.3)], 1)
    codec = PolicyCodec(horizon=4, executed=2, observation_names=list("abc"), action_names=["x", "y"], **options)
    codec.fit(Episodes(observations, actions, np.array([20, 40]), Robot(tuple("abc"), ("x", "y")), horizon=4, executed=2))
    return codec, observations.astype(np.float32), actions.astype(np.float32)


def test_numbers_are_scaled_by_mean_and_deviation():
    codec, observations, actions = scaled(action_norm="mean_std", observation_norm="mean_std")
    told = codec.condition("observation", observations.reshape(20, 2, 3))
    assert torch.allclose(told.mean((0, 1)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(told[..., :2].std((0, 1), correction=0), torch.ones(2), atol=1e-5)
    x0 = codec.encode(actions[:4])
    wanted = (actions[:4, 0] - actions[:, 0].mean()) / actions[:, 0].std()
    assert np.allclose(x0[:, 0], wanted, atol=1e-4)
    (found,) = codec.decode(x0[None], {})
    assert np.allclose(found.values, actions[:4], atol=1e-4) and found.clipped == 0
    assert np.allclose(codec.in_units(x0[None])[0], actions[:4], atol=1e-4)


def test_numbers_that_are_not_scaled_and_each_in_a_way_of_its_own():
    codec, observations, actions = scaled(action_norm="identity", observation_norm=["identity", "mean_std", "min_max"])
    told = codec.condition("observation", observations[:2])
    assert torch.equal(told[:, 0], torch.from_numpy(observations[:2, 0])) and float(told[:, 1].abs().max()) < 4
    assert not told[:, 2].any()
    assert np.array_equal(codec.encode(actions[:4]), actions[:4])
    assert np.array_equal(codec.decode(torch.from_numpy(actions[None, :4]), {})[0].values, actions[:4])


@pytest.mark.parametrize("norm", ["min_max", "mean_std", "identity"])
def test_actions_outside_the_data_are_clipped_where_they_are_to_be(norm):
    codec, _, actions = scaled(action_norm=norm)
    far = codec.encode(np.stack([np.linspace(-900, 900, 4), np.full(4, 0.3)], 1).astype(np.float32))[None]
    (found,) = codec.decode(far, {})
    assert found.clipped == 4 and found.values[0, 0] == actions[:, 0].min() and found.values[3, 0] == actions[:, 0].max()
    assert (found.values[:, 1] == np.float32(0.3)).all()
    codec.clip = False
    (found,) = codec.decode(far, {})
    assert found.clipped == 0 and np.allclose(found.values[:, 0], np.linspace(-900, 900, 4), atol=1e-3)


@pytest.mark.parametrize("value", [0.3, 7.1, 123456.7])
def test_a_number_that_never_moves_is_what_is_asked_for(value):
    codec, observations, actions = scaled(constant=-1.0)
    observations[:, 2] = actions[:, 1] = codec.observation_low[2] = codec.observation_high[2] = value
    codec.action_low[1] = codec.action_high[1] = value
    assert (codec.condition("observation", observations[:2])[:, 2] == -1).all()
    assert (codec.encode(actions[:4])[:, 1] == -1).all()
    for codec.clip in (True, False):
        found = codec.decode(codec.encode(actions[:4])[None], {})[0].values[:, 1]
        assert (found == np.float32(value)).all()


def test_a_range_that_is_not_known_doubts_nothing_and_clips_nothing(recwarn):
    codec, observations, _ = scaled(action_norm="mean_std", observation_norm="mean_std")
    for what in ("action", "observation"):
        getattr(codec, f"{what}_low").fill_(1.0)
        getattr(codec, f"{what}_high").fill_(-1.0)
    codec.condition("observation", observations[:2])
    codec.condition("observation", observations[:2] * 100)
    assert not [w for w in recwarn if "observation" in str(w.message)]
    assert codec.too_small(torch.zeros(1, 3)) == "" and not codec.half_range.any()
    (found,) = codec.decode(torch.full((1, 4, 2), 50.0), {})
    assert found.clipped == 0 and found.values[0, 0] > 1000 and found.low is None
    found.plot()
    codec.observation_low[0], codec.observation_high[0] = 200.0, 400.0  # one of three is known
    assert codec.doubt(torch.tensor([[350.0, 1e6, 1e6]])) == ""
    assert "a = 900 (200 to 400) lies far outside" in codec.doubt(torch.tensor([[900.0, 0, 0]]))
    codec.observation_low[0] = -10.0
    assert codec.too_small(torch.tensor([[5.0, 0, 0]])) == "", "it lies within the one range that is known"


def test_a_run_goes_on_with_the_mean_and_deviation_of_the_last_one():
    before, observations, actions = scaled(action_norm="mean_std", observation_norm="mean_std")
    codec = PolicyCodec(**before.options)
    robot = Robot(tuple("abc"), ("x", "y"))
    codec.fit(Episodes(observations[:30], actions[:30], np.array([30]), robot, horizon=4, executed=2))
    own = codec.action_mean.clone()
    assert "action range of x" in codec.continued(before) and not torch.equal(own, before.action_mean)
    # the number that never moves has no range to take
    assert codec.action_mean[0] == before.action_mean[0] and codec.observation_std[1] == before.observation_std[1]
    other = PolicyCodec(**before.options | {"action_norm": "min_max"})
    other.fit(Episodes(observations[:30], actions[:30], np.array([30]), robot, horizon=4, executed=2))
    assert not [name for name in other.continued(before) if name.startswith("action")]


def test_ways_to_scale_that_are_none():
    for norm, message in (("log", "unknown action_norm 'log'"), (["min_max"], "1 norms of 2 numbers"), (3, "0 norms of 2")):
        with pytest.raises(ConfigError, match=message):
            scaled(action_norm=norm)
    with pytest.raises(ConfigError, match="constant"):
        scaled(constant=float("nan"))


def test_parts_by_name_of_a_robot_that_has_none_are_refused():
    for parts in ({}, {"state": np.zeros(4)}):
        with pytest.raises(ShapeError, match="give an array"):
            pixels()[0].flat(parts)

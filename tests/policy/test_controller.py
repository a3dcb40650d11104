"""The controller: queue, seeds, ensembling, warm start, deadline, refusals; and rollouts in the real environment."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.cli import main
from zoo.core import seeds
from zoo.errors import ConfigError, DataError, NumericsError, ShapeError
from zoo.evaluation.evaluate import evaluate
from zoo.model.plan import Chunk
from zoo.policy.envs import TASKS, Episode, delayed, picture, rollout, save_video
from zoo.policy.evaluate import run

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16, "net.kernel": 3}


def observations(n, seed=1):
    return np.random.default_rng(seed).uniform(50, 450, (n, 18)).astype(np.float32)


class Clock:
    """A clock that only the net moves: `step` seconds a call, and `stalls` {number of the call: seconds} beside it."""

    def __init__(self, monkeypatch, policy, step=0.003, stalls=None):
        self.now, self.calls, self.step, self.stalls = 0.0, 0, step, stalls or {}
        forward = policy.denoiser.forward

        def timed(*args, **kwargs):
            self.calls += 1
            self.now += self.step + self.stalls.get(self.calls, 0.0)
            return forward(*args, **kwargs)

        monkeypatch.setattr(policy.denoiser, "forward", timed)
        monkeypatch.setattr("zoo.policy.controller.time", self)

    def perf_counter(self):
        return self.now


def test_a_chunk_is_carried_out_from_the_newest_observation_on(policy):
    seen = observations(20)
    controller = policy.controller(steps=3, seed=4)
    acted = np.stack([controller.act(o) for o in seen])
    assert acted.shape == (20, 2) and acted.dtype == np.float32
    # the same by hand: plans at steps 0, 8 and 16, of the last two observations, with the noise of chunk 0, 1 and 2
    for chunk, step in enumerate((0, 8, 16)):
        window = np.stack([seen[max(step - 1, 0)], seen[step]])
        plan = controller.plan
        rng = seeds.SampleRng(4, [seeds.derive_seed(0, chunk)])
        *_, last = policy.run(plan, Chunk({"observation": policy.codec.condition("observation", window)[None]}, rng))
        (expected,) = policy.codec.decode(last.x, {})
        np.testing.assert_allclose(acted[step : step + 8], expected.values[1 : 1 + len(acted[step : step + 8])], atol=1e-4)


def test_a_batch_acts_as_each_alone_and_seeds_differ(policy):
    seen = np.stack([observations(10, s) for s in (1, 2, 3)], 1)
    together = policy.controller(3, steps=2, seed=0)
    acted = np.stack([together.act(o) for o in seen])
    again = policy.controller(3, steps=2, seed=0)
    np.testing.assert_array_equal(acted, np.stack([again.act(o) for o in seen]))
    other = policy.controller(3, steps=2, seed=1)
    assert np.abs(acted - np.stack([other.act(o) for o in seen])).max() > 1
    alone = policy.controller(steps=2, seed=0)
    np.testing.assert_allclose(acted[:, 0], np.stack([alone.act(o) for o in seen[:, 0]]), atol=1e-2)


def test_reset_forgets_one_episode(policy):
    controller = policy.controller(2, steps=2, seed=0)
    seen = np.stack([observations(5, s) for s in (1, 2)], 1)
    for o in seen[:3]:
        controller.act(o)
    controller.reset([1])
    controller.act(seen[3])
    assert [r.step for r in controller.robots] == [4, 1] and [r.chunks for r in controller.robots] == [1, 2]
    np.testing.assert_array_equal(controller.robots[1].history[0], controller.robots[1].history[1])


def test_ensembling_averages_what_all_chunks_say(policy):
    seen = observations(4)
    controller = policy.controller(steps=2, ensemble=0.5, seed=0)
    chunks, acted = [], []
    for o in seen:
        acted.append(controller.act(o))
        chunks.append(controller.robots[0].past[-1][1])
    votes = np.stack([chunks[0][3], chunks[1][2], chunks[2][1], chunks[3][0]])
    weights = np.exp(-0.5 * np.arange(4))
    np.testing.assert_allclose(acted[3], weights @ votes / weights.sum(), rtol=1e-5)
    assert controller.robots[0].chunks == 4, "a plan at every step"


def test_a_warm_start_runs_fewer_steps_from_the_last_chunk(policy, monkeypatch):
    calls = []
    forward = policy.denoiser.forward
    monkeypatch.setattr(policy.denoiser, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1])
    controller = policy.controller(steps=10, warm_start=0.3, seed=0)
    counts = []
    for o in observations(9):
        calls.clear()
        controller.act(o)
        counts.append(len(calls))
    assert counts == [10, 0, 0, 0, 0, 0, 0, 0, 3]


def test_a_deadline_is_kept(policy, monkeypatch):
    Clock(monkeypatch, policy, step=0.03)
    controller = policy.controller(steps=10, deadline=0.15, seed=0)
    controller.act(observations(1)[0])
    assert controller.cut == 1 and controller.seconds == [pytest.approx(0.15)]
    controller.deadline = 0.01
    seen = observations(25)
    spare = list(controller.robots[0].spare)
    held = [controller.act(o) for o in seen]
    assert controller.late == len(held) - 7 and max(controller.seconds[1:]) == 0, "no plan fits: the chunk goes on"
    np.testing.assert_array_equal(held[7:14], spare)
    np.testing.assert_array_equal(held[-1], spare[-1])
    controller.reset()
    controller.act(seen[0])
    assert controller.robots[0].chunks == 2, "the first plan of an episode is made, however long it takes"
    assert controller.seconds[-1] == pytest.approx(0.06) and controller.overran >= 1, "of two steps: one gives noise"


def test_what_a_controller_refuses(policy):
    good = observations(1)[0]
    controller = policy.controller(steps=1)
    for value, error, message in [
        (np.where(good == good[3], np.nan, good), ConfigError, "corner_1_y is NaN"),
        (good[:5], ShapeError, "its last axis must hold 18"),
        (np.stack([good, good]), ShapeError, "give one of 1"),
        ({"pixels": good}, ShapeError, "environment_state, agent_pos"),
        (good * 512, ConfigError, "units"),
    ]:
        with pytest.raises(error, match=message):
            controller.act(value)
    assert controller.robots[0].history == [] and controller.robots[0].step == 0, "a refused observation leaves no trace"
    controller.act(good, time_s=1.0)
    controller.act(good, time_s=1.1)
    with pytest.raises(ConfigError, match="10 Hz"):
        controller.act(good, time_s=2.1)
    for settings in (
        {"delay": 15}, {"delay": -1}, {"delay": 10}, {"join": "soft"}, {"streams": [1, 2]}, {"deadline": "soon"},
        {"n": 0}, {"executed": 16}, {"ensemble": -1.0}, {"deadline": 0.0}, {"warm_start": 2.0}, {"steps": 0},
        {"sampler": "leapfrog"}, {"colour": 1},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            policy.controller(**settings)


@pytest.mark.parametrize("executed", [1, 8])
@pytest.mark.parametrize("stalled", [3, 5, 9, 13, 14, 16, 24])
def test_after_one_stall_it_plans_again_within_two_calls(policy, monkeypatch, executed, stalled):
    clock = Clock(monkeypatch, policy, stalls={stalled: 1.0})  # call 1 to 4 are made to know the net's speed
    controller = policy.controller(steps=10, deadline=0.05, executed=executed, join=False)
    whole, slow = [], None
    for i, one in enumerate(observations(5 if executed == 1 else 20)):
        before, cut = clock.calls, controller.cut
        controller.act(one)
        if before < stalled <= clock.calls:
            slow = i
        whole.append(clock.calls - before == 10 and controller.cut == cut)
    if slow is None:  # while the net's speed was measured
        assert whole[0]
    else:
        assert whole[slow] or any(whole[slow + 1 : slow + 3]), "a whole plan in one of the two calls after it"
    assert controller.overran == (slow is not None) and sum(whole) >= len(whole) // executed - 1


def test_a_stall_between_two_calls_costs_nothing_later(policy, monkeypatch):
    clock = Clock(monkeypatch, policy)
    controller = policy.controller(steps=10, deadline=0.05, executed=1)
    encode = policy.codec.encode_windows

    def late(windows):
        clock.now += 1.0
        return encode(windows)

    seen = observations(4)
    controller.act(seen[0])
    with monkeypatch.context() as patch:
        patch.setattr(policy.codec, "encode_windows", late)
        controller.act(seen[1])
    assert (controller.late, controller.robots[0].chunks) == (1, 1)
    controller.act(seen[2])
    assert (controller.late, controller.robots[0].chunks) == (1, 2)


def test_a_first_call_that_is_late_plans_all_the_same(policy, monkeypatch):
    clock = Clock(monkeypatch, policy)
    controller = policy.controller(steps=1, deadline=0.05, executed=1)
    encode = policy.codec.encode_windows
    monkeypatch.setattr(policy.codec, "encode_windows", lambda w: (setattr(clock, "now", clock.now + 1), encode(w))[1])
    seen = observations(23)
    for one in seen:
        controller.act(one)
    assert (controller.late, controller.robots[0].chunks) == (21, 2)


def test_a_net_that_stalls_in_every_plan_is_not_waited_for(policy, monkeypatch):
    clock = Clock(monkeypatch, policy)
    controller = policy.controller(steps=10, deadline=0.05, executed=8)
    seen = observations(40)
    for one in seen:
        clock.stalls = {clock.calls + 2: 1.0}  # in the second step, should this call plan
        controller.act(one)
    assert controller.robots[0].chunks == 3, "a chunk of 15 actions has an end"


@pytest.mark.parametrize("stalls", [{5: 1.0}, {6: 1.0}])
def test_a_plan_of_one_step_is_never_carried_out(policy, monkeypatch, stalls):
    """From one step of pure noise come actions at the edges of their range."""
    clock = Clock(monkeypatch, policy, stalls=stalls)
    steps = []
    run = policy.run
    monkeypatch.setattr(policy, "run", lambda *a, **k: (steps.append(step) or step for step in run(*a, **k)))
    controller = policy.controller(steps=10, deadline=0.05)
    del steps[:]
    controller.act(observations(1)[0])
    assert len(steps) == 2 and controller.cut == 1 and clock.now > 1
    slow = policy.controller(steps=10, deadline=1e-6)
    del steps[:]
    slow.act(observations(1)[0])
    assert len(steps) == 2


def test_after_a_slow_spell_it_plans_again(policy, monkeypatch):
    clock = Clock(monkeypatch, policy)
    controller = policy.controller(steps=2, deadline=0.05, executed=1)
    clock.step = 0.2
    for one in observations(45):
        controller.act(one)
    assert controller.late > 20 and controller.robots[0].chunks >= 2, "too slow for one step, but now and then one is tried"
    clock.step = 0.003
    before, chunks = controller.late, controller.robots[0].chunks
    for one in observations(25):
        controller.act(one)
    assert controller.late - before <= 20 and controller.robots[0].chunks - chunks >= 5


def test_the_first_plan_after_a_reset_is_always_made(policy, monkeypatch):
    Clock(monkeypatch, policy, step=0.2)
    controller = policy.controller(2, steps=10, deadline=0.05)
    seen = np.stack([observations(30, s) for s in (1, 2)], 1)
    for one in seen[:20]:
        controller.act(one)
    assert controller.late > 1 and [r.chunks for r in controller.robots] == [1, 1]
    controller.reset([1])
    controller.act(seen[20])
    assert [r.chunks for r in controller.robots] == [2, 2] or [r.chunks for r in controller.robots] == [1, 2]


def test_the_last_action_is_held_where_a_whole_chunk_is_carried_out(policy, monkeypatch):
    clock = Clock(monkeypatch, policy)
    for settings in ({"executed": 15}, {"ensemble": 0.1}):
        clock.step = 0.003
        controller = policy.controller(steps=2, deadline=0.05, **settings)
        controller.act(observations(1)[0])
        last = policy.codec.decode(controller.robots[0].chunk[None], {})[0].values[-1]
        clock.step = 9.0
        controller._recent.extend([9.0] * 50)
        acted = [controller.act(one) for one in observations(18)]
        np.testing.assert_allclose(acted[14:], [last] * 4, rtol=1e-6)
        assert controller.robots[0].chunks == 1


def test_one_late_observation_refuses_one_call(policy):
    good = observations(6)
    controller = policy.controller(steps=1, executed=2)
    controller.act(good[0], time_s=1.0)
    with pytest.raises(ConfigError, match=r"1\.1 s apart; this policy was trained at 10 Hz"):
        controller.act(good[1], time_s=2.1)
    assert controller.robots[0].queue == [], "the plan was of another time"
    controller.act(good[2], time_s=2.2)
    assert controller.robots[0].chunks == 2
    np.testing.assert_array_equal(controller.robots[0].history, good[1:3])
    with pytest.raises(ConfigError, match="apart"):
        controller.act(good[3], time_s=2.21)  # twice the same, nearly
    np.testing.assert_array_equal(controller.robots[0].history, good[1:3])
    controller.act(good[4], time_s=2.3)
    with pytest.raises(ConfigError, match="apart"):
        controller.act(good[4], time_s=0.0)  # the clock began anew
    controller.act(good[5], time_s=0.1)
    for odd in (float("nan"), "now", float("inf"), True):
        with pytest.raises(ConfigError, match="time_s"):
            controller.act(good[5], time_s=odd)


def test_a_late_observation_of_one_robot_does_not_stop_the_others(policy):
    seen = np.stack([observations(6, s) for s in (1, 2)], 1)
    controller = policy.controller(2, steps=1)
    controller.act(seen[0], time_s=0.0)
    controller.act(seen[1][:1], [0], time_s=0.1)
    controller.act(seen[2][:1], [0], time_s=0.2)
    with pytest.raises(ConfigError, match=r"0\.3 s apart"):
        controller.act(seen[3], time_s=0.3)
    controller.act(seen[4], time_s=0.4)
    assert [r.step for r in controller.robots] == [4, 1]


def test_which_names_environments_once(policy):
    controller = policy.controller(3, steps=1)
    seen = observations(3)
    for which in ([0, 0, 1], [0, 1, 3], [-1, 0, 1], [0, 1, True], "abc", [0.5, 1, 2], None.__class__):
        with pytest.raises(ConfigError, match="which"):
            controller.act(seen, which)
        with pytest.raises(ConfigError, match="which"):
            controller.reset(which)
    with pytest.raises(ShapeError, match="give one of 0"):
        controller.act(seen, [])
    with pytest.raises(ShapeError, match="at least one"):
        controller.act(seen[:0], [])
    controller.reset(1)
    controller.act(seen, np.array([2, 0, 1]))


@pytest.mark.parametrize("value", [None, "left", object(), [None] * 18, [[1.0], [2.0, 3.0]], {}, 3, [], np.zeros((18, 18, 18))])
def test_bad_observations_are_one_error_and_leave_no_trace(policy, value):
    controller = policy.controller(steps=1)
    with pytest.raises((ConfigError, ShapeError), match="observation"):
        controller.act(value)
    assert controller.robots[0].history == [] and controller.robots[0].seen == 0


@pytest.mark.parametrize("change", [lambda o: o / 512, lambda o: o / 256 - 1, lambda o: o * 100])
def test_a_robot_does_not_move_on_another_scale(policy, change):
    with pytest.raises(ConfigError, match="are these its units"):
        policy.controller(steps=1).act(change(observations(1)[0]))


def test_doubtful_observations_are_counted_and_the_first_is_told(policy, recwarn):
    controller = policy.controller(steps=1)
    one = observations(1)[0]
    strange = one.copy()
    strange[4] += 900
    for _ in range(3):
        controller.act(strange)
    found = [str(w.message) for w in recwarn if "observation" in str(w.message)]
    assert len(found) == 1 and "corner_2_x = " in found[0] and controller.doubtful == 3


def test_an_episode_that_does_not_move_is_doubted(policy):
    controller = policy.controller(steps=1)
    rng = np.random.default_rng(0)
    for _ in range(49):
        controller.act(250 + rng.uniform(-1, 1, 18))
    assert controller.doubtful == 0
    with pytest.warns(UserWarning, match="the first 50 of an episode hardly move"):
        controller.act(np.full(18, 250.0))
    assert controller.doubtful == 1


def test_actions_that_are_not_finite_are_refused(policy, monkeypatch):
    monkeypatch.setattr(policy.denoiser, "forward", lambda x, *a, **k: x * np.nan)
    with pytest.raises(NumericsError, match="not finite"):
        policy.controller(steps=2).act(observations(1)[0])


def test_a_joined_plan_goes_on_with_the_last_one(policy):
    seen = observations(5)
    controller = policy.controller(steps=4, executed=4, seed=2)
    assert controller.join and not policy.controller().join, "by default where plans come more often than the recipe's"
    for one in seen[:4]:
        controller.act(one)
    last, binds = controller._moved_on(controller.robots[0])
    old = controller.robots[0].chunk
    assert torch.equal(last[:12], old[4:]) and torch.equal(last[12:], old[-1:].expand(4, -1))
    assert binds[0] == 1 and 1 > binds[1] > binds[6] > binds[11] > 0 and not binds[12:].any()
    controller.act(seen[4])
    new = controller.robots[0].chunk
    torch.testing.assert_close(new[0], old[4], msg="what was carried out is held")
    loose = policy.controller(steps=4, executed=4, seed=2, join=False)
    for one in seen:
        loose.act(one)
    assert (new - last)[1:4].abs().mean() < (loose.robots[0].chunk - last)[1:4].abs().mean()


def test_a_plan_after_a_stall_goes_on_with_the_last_one(policy, monkeypatch):
    clock = Clock(monkeypatch, policy, stalls={16: 1.0, 31: 1.0})  # in the second step of the second plan, and late in a third
    controller = policy.controller(steps=10, deadline=0.05, executed=8, seed=2)
    robot, seen = controller.robots[0], observations(12)
    for one in seen[:9]:
        controller.act(one)
    assert robot.early and robot.chunks == 1 and clock.calls == 4 + 10 + 2
    old = robot.chunk
    assert controller._moved_on(robot)[1][0] == 1
    controller.act(seen[9])
    torch.testing.assert_close(robot.chunk[0], old[9], msg="the action of the last plan that was carried out is held")
    assert robot.chunks == 2 and not robot.early and not controller._moved_on(robot)[1].any()


def test_robots_join_their_plans_each_for_itself(policy):
    seen = np.stack([observations(9, s) for s in (1, 2)], 1)
    controller, alone = policy.controller(2, steps=3, executed=4), policy.controller(steps=3, executed=4)
    for i, one in enumerate(seen):
        if i == 4:
            controller.reset([1])  # both plan, one of them anew
        acted = controller.act(one)
        np.testing.assert_allclose(acted[0], alone.act(one[0]), atol=1e-2)


def test_a_delayed_plan_begins_after_what_is_carried_out_by_then(policy):
    controller = policy.controller(steps=4, executed=5, delay=2, seed=2)
    seen = observations(11)
    acted = [controller.act(one) for one in seen]
    robot = controller.robots[0]
    assert robot.chunks == 3 and controller.join
    chunk = policy.codec.decode(robot.chunk[None], {})[0].values
    # of the last plan: its first action is one step before its observation's, the next two are under way
    np.testing.assert_allclose(chunk[:3], acted[-4:-1], rtol=1e-4)
    np.testing.assert_allclose(chunk[3], acted[-1], rtol=1e-4)


def test_a_rollout_can_be_delayed():
    given = []
    act = delayed(lambda observed, running: given.append(np.asarray(observed["a"]).tolist()) or np.zeros((len(running), 1)), 2)
    for step, running in enumerate([[0, 1], [0, 1], [0, 1], [1], [1]]):
        act({"a": np.array([[10 * i + step] for i in running])}, running)
    assert given == [[[0], [10]], [[0], [10]], [[0], [10]], [[11]], [[12]]]
    assert delayed(given.append, 0) == given.append


def test_a_deadline_that_no_plan_can_keep_is_told_at_once(policy, monkeypatch, recwarn):
    Clock(monkeypatch, policy, step=0.012)
    policy.controller(steps=10, deadline=0.2)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"deadline=0\.05 s: a plan of 10 steps takes about 0\.12 s here"):
        policy.controller(steps=10, deadline=0.05)


@pytest.mark.parametrize("settings", [{}, {"warm_start": 0.6}, {"join": True}, {"sampler": "dpmpp"}])
def test_where_a_whole_plan_does_not_fit_one_of_fewer_steps_is_made(policy, monkeypatch, settings):
    seen = observations(9)
    free = policy.controller(steps=5, seed=3, **settings)
    expected = [free.act(one) for one in seen]
    clock = Clock(monkeypatch, policy, step=0.02)
    with pytest.warns(UserWarning, match="fewer are made"):
        controller = policy.controller(steps=10, seed=3, deadline=0.105, **settings)
    clock.calls = 0
    acted = [controller.act(one) for one in seen]
    np.testing.assert_array_equal(acted[:8], expected[:8])
    assert controller.overran == 0 and clock.calls == 10, "5 steps a plan"
    if settings != {"warm_start": 0.6}:  # 5 of 8 steps, not 3 of 5
        assert controller.cut == 2
        np.testing.assert_array_equal(acted[8], expected[8])


def test_latency_is_of_the_calls_that_planned(policy, monkeypatch):
    Clock(monkeypatch, policy, stalls={25: 1.0})
    controller = policy.controller(steps=10)
    for one in observations(33):
        controller.act(one)
    assert controller.latency() == {"median": 30.0, "p95": pytest.approx(900, abs=100), "largest": 1030.0}


pusht = pytest.mark.skipif("not __import__('importlib').util.find_spec('gym_pusht')", reason="gym-pusht is not installed")


@pytest.mark.slow
@pusht
def test_episodes_are_reproducible_and_end_at_300_steps(policy):
    task = TASKS["pusht-keypoints"]
    first, _ = run(policy, task, [100_000, 100_001], steps=2, seed=0)
    second, _ = run(policy, task, [100_001], steps=2, seed=0)
    assert [e.length for e in first] == [300, 300] and first[0].score != first[1].score
    assert second[0].score == pytest.approx(first[1].score, abs=1e-3), "an episode does not depend on what runs beside it"


@pytest.mark.slow
@pusht
def test_the_best_reward_is_the_largest_coverage_over_095_andpictures_are_kept(tmp_path):
    task = TASKS["pusht-keypoints"]
    episodes = rollout(task, lambda o, running: np.full((len(running), 2), 256.0), [100_000, 100_003], record=1)
    for e in episodes:
        assert e.reward == pytest.approx(min(e.score / 0.95, 1.0)) and e.success is None
    assert len(episodes[0].frames) == 300 and episodes[1].frames == []
    path = save_video(episodes, tmp_path / "e.gif")
    with Image.open(path) as film:
        assert film.n_frames > 1 and film.size == (192, 192)


def test_videos_needpictures(tmp_path):
    with pytest.raises(DataError, match="recorded"):
        save_video([Episode(0)], tmp_path / "a.gif")
    with pytest.raises(DataError, match="mp4"):
        save_video([Episode(0, frames=[np.zeros((8, 8, 3), np.uint8)])], tmp_path / "a.avi")


@pusht
@pytest.mark.slow
def test_the_evaluation_says_how_it_was_made(policy, tmp_path):
    result = evaluate(policy, 3, steps=2, video=tmp_path / "v.mp4")
    metrics, protocol = result["metrics"], result["protocol"]
    assert {"best_reward", "success", "success_90"} == metrics.keys(), "an untrained one succeeds never: no time to success"
    assert metrics["success"]["ceiling"] == pytest.approx(7 / 206) and metrics["best_reward"]["floor"] >= 0
    assert "seeds 100000 to 100002" in protocol["reference"] and protocol["steps"] == 2
    assert protocol["precision"] == "fp32"
    assert "3 of these episodes, drawn at random (seed 0)" in protocol["floor"]
    assert (tmp_path / "v.mp4").stat().st_size > 1000
    json.dumps(result, allow_nan=False)


def test_a_model_without_an_environment_is_refused(policy):
    with pytest.raises(ConfigError, match="n=0: give a whole number of at least 1"):
        evaluate(policy, 0)
    other = zoo.create("image/fashion-ddpm", **SMALL)
    with pytest.raises(ConfigError, match="not a policy"):
        evaluate(other, 1, evaluator=policy.domain.evaluator(model=policy))
    with pytest.raises(ConfigError, match="not a policy"):
        policy.domain.evaluator(model=other)
    with pytest.raises(AttributeError, match="controller"):
        other.controller()


def test_data_that_are_not_there_are_an_error_also_where_there_is_an_environment(policy, tmp_path):
    with pytest.raises(DataError, match=r"no data at X\.npz"):
        evaluate(policy, 1, data="X.npz")
    policy.save_pretrained(tmp_path / "m")
    assert main(["eval", str(tmp_path / "m"), "--n", "1", "--data", "X.npz"]) == 2


def test_an_environment_that_cannot_draw_is_said():
    class Blind:
        def render(self):
            raise RuntimeError("no OpenGL")

    with pytest.raises(ConfigError, match=r"no OpenGL.*MUJOCO_GL=egl"):
        picture(Blind())


def test_a_simulator_that_could_draw_nothing_is_not_asked_again(monkeypatch):
    """MuJoCo without OpenGL ends the whole program at its second try."""

    class Arm:
        asked = 0

        def render(self):
            Arm.asked += 1
            raise RuntimeError("no OpenGL")

    Arm.__module__ = "metaworld.envs"
    monkeypatch.setattr("zoo.policy.envs._undrawn", [])
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"no OpenGL.*MUJOCO_GL=egl"):
            picture(Arm())
    assert Arm.asked == 1

"""The controller: queue, seeds, ensembling, warm start, deadline, refusals; and rollouts in the real environment."""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.cli import main
from zoo.core import seeds
from zoo.errors import ConfigError, DataError, ShapeError
from zoo.evaluation.evaluate import evaluate
from zoo.model.plan import Chunk
from zoo.policy.data import PUSHT, Episodes
from zoo.policy.envs import TASKS, Episode, _picture, rollout, save_video
from zoo.policy.evaluate import run

SMALL = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16, "net.kernel": 3}


@pytest.fixture(scope="module")
def policy():
    rng = np.random.default_rng(0)
    data = Episodes(rng.uniform(50, 450, (60, 18)), rng.uniform(50, 450, (60, 2)), np.array([30, 60]), PUSHT)
    model = zoo.create("policy/pusht-keypoints", **SMALL)
    model.codec.fit(data)
    with torch.no_grad():
        for i, p in enumerate(model.denoiser.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=seeds.generator(i))
    return model


def observations(n, seed=1):
    return np.random.default_rng(seed).uniform(50, 450, (n, 18)).astype(np.float32)


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
    forward = policy.denoiser.forward

    def slow(*args, **kwargs):
        time.sleep(0.03)
        return forward(*args, **kwargs)

    monkeypatch.setattr(policy.denoiser, "forward", slow)
    controller = policy.controller(steps=10, deadline=0.15, seed=0)
    controller.act(observations(1)[0])
    assert controller.cut == 1 and controller.seconds[0] < 0.15 + 0.05
    controller.deadline = 0.01
    seen = observations(25)
    spare = list(controller.robots[0].spare)
    held = [controller.act(o) for o in seen]
    assert controller.late == len(held) - 7 and max(controller.seconds[1:]) < 0.03, "no plan fits: the chunk goes on"
    np.testing.assert_array_equal(held[7:14], spare)
    np.testing.assert_array_equal(held[-1], spare[-1])
    fresh = policy.controller(deadline=0.01)
    fresh._step_seconds = 1.0
    with pytest.raises(ConfigError, match="no time for a first plan"):
        fresh.act(seen[0])


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
        {"n": 0}, {"executed": 16}, {"ensemble": -1.0}, {"deadline": 0.0}, {"warm_start": 2.0}, {"steps": 0},
        {"sampler": "leapfrog"}, {"colour": 1},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            policy.controller(**settings)


pusht = pytest.mark.skipif("not __import__('importlib').util.find_spec('gym_pusht')", reason="gym-pusht is not installed")


@pusht
def test_episodes_are_reproducible_and_end_at_300_steps(policy):
    task = TASKS["pusht-keypoints"]
    first, _ = run(policy, task, [100_000, 100_001], steps=2, seed=0)
    second, _ = run(policy, task, [100_001], steps=2, seed=0)
    assert [e.length for e in first] == [300, 300] and first[0].score != first[1].score
    assert second[0].score == pytest.approx(first[1].score, abs=1e-3), "an episode does not depend on what runs beside it"


@pusht
def test_the_best_reward_is_the_largest_coverage_over_095_and_pictures_are_kept(tmp_path):
    task = TASKS["pusht-keypoints"]
    episodes = rollout(task, lambda o, running: np.full((len(running), 2), 256.0), [100_000, 100_003], record=1)
    for e in episodes:
        assert e.reward == pytest.approx(min(e.score / 0.95, 1.0)) and e.success is None
    assert len(episodes[0].frames) == 300 and episodes[1].frames == []
    path = save_video(episodes, tmp_path / "e.gif")
    with Image.open(path) as film:
        assert film.n_frames > 1 and film.size == (192, 192)


def test_videos_need_pictures(tmp_path):
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


def test_data_are_refused_since_a_policy_is_measured_in_its_environment(policy, tmp_path):
    with pytest.raises(ConfigError, match=r"X\.npz.*in its environment, not by data"):
        evaluate(policy, 1, data="X.npz")
    policy.save_pretrained(tmp_path / "m")
    assert main(["eval", str(tmp_path / "m"), "--n", "1", "--data", "X.npz"]) == 2


def test_an_environment_that_cannot_draw_is_said():
    class Blind:
        def render(self):
            raise RuntimeError("no OpenGL")

    with pytest.raises(ConfigError, match=r"no OpenGL.*MUJOCO_GL=egl"):
        _picture(Blind())

"""Steers of plans: out of circles in closed form, paces, goals; plans that overlap."""

import math

import numpy as np
import pytest
import torch

import zoo
from zoo.cli import steer_of
from zoo.core import seeds
from zoo.errors import ConfigError, ShapeError
from zoo.policy.steers import Obstacle, avoid, cleared, deepest, goal, speed_limit

SEEN = np.random.default_rng(1).uniform(50, 450, (12, 18)).astype(np.float32)


def circle(x, y, reach, n=1):
    return torch.tensor([[[x, y]]] * n, dtype=torch.float64), torch.tensor([[reach]] * n, dtype=torch.float64)


def test_a_place_is_moved_out_of_a_circle_straight():
    still = torch.tensor([[[203.0, 204.0]] * 4], dtype=torch.float64)  # 5 from the centre, along (3, 4)
    moved = cleared(still, *circle(200, 200, 10)) - 200
    assert ((moved.norm(dim=-1) > 9.99) & (moved.norm(dim=-1) < 11.5)).all()
    torch.testing.assert_close(moved / moved.norm(dim=-1, keepdim=True), still.new_tensor([0.6, 0.8]).expand(1, 4, 2))
    assert torch.equal(cleared(still, *circle(200, 200, 4)), still), "what lies outside stays"
    centre = torch.full((1, 1, 2), 200.0, dtype=torch.float64)
    assert 9.99 < (cleared(centre, *circle(200, 200, 10)) - centre).norm() < 11.5


def test_a_way_between_two_places_counts():
    way = torch.tensor([[[180.0, 204.0], [220.0, 204.0]]], dtype=torch.float64)  # both outside, between them 4 from the centre
    depth, at, out = deepest(way, *circle(200, 200, 10))
    assert (depth.item(), at.item(), out[0].tolist()) == (pytest.approx(6), pytest.approx(0.5), [0, 1])
    found = cleared(way, *circle(200, 200, 10))
    torch.testing.assert_close(found, way + torch.tensor([0.0, 6.0], dtype=torch.float64), rtol=0, atol=0.05)


def test_ways_go_around_all_circles_and_far_places_stay():
    steps = torch.linspace(0, 1, 16, dtype=torch.float64)[:, None]
    straight = torch.cat([100 + 200 * steps, 200 + 0 * steps], 1)
    drawn = torch.randn(40, 16, 2, dtype=torch.float64, generator=seeds.generator(0)).mul(12).cumsum(1) + 200
    ways = torch.cat([straight[None], drawn])
    centre = torch.tensor([[[200.0, 200.0], [270.0, 150.0]]], dtype=torch.float64).expand(41, -1, -1)
    reach = torch.tensor([[45.0, 20.0]], dtype=torch.float64).expand(41, -1)
    found = cleared(ways, centre, reach)
    assert deepest(found, centre, reach)[0].max() < 0.05
    assert (found[0, 0] - ways[0, 0]).norm() < 1, "the beginning of the way is not moved"
    assert (found[0].diff(dim=0).norm(dim=1)).max() < 2 * 200 / 15, "no leap"


def test_plans_keep_out_of_obstacles(policy):
    obstacle = Obstacle(250, 250, 60)
    centre, reach = circle(250, 250, 75, 8)
    free = policy.sample(8, observation=SEEN[0], steps=4, seed=0)
    inside = deepest(torch.from_numpy(np.stack([a.values for a in free])).double(), centre, reach)[0]
    assert (inside > 1).any()
    for steer in (avoid(obstacle, body=15), avoid([(250, 250, 75)]), steer_of(policy, 'avoid={"obstacle": [250, 250, 75]}')):
        plans = policy.sample(8, observation=SEEN[0], steps=4, seed=0, steer=[steer])
        values = torch.from_numpy(np.stack([a.values for a in plans])).double()
        assert deepest(values, centre, reach)[0].max() < 1.5  # these plans leap about, and the edges of the data bound them
    controller = policy.controller(steps=4, seed=0, steer=avoid(obstacle))
    acted = np.stack([controller.act(o) for o in SEEN])
    assert np.linalg.norm(acted - 250, axis=1).min() > 59.9


def test_an_obstacle_is_larger_by_the_robots_body():
    still = torch.tensor([[[203.0, 204.0]] * 4])
    for steer in (avoid(Obstacle(200, 200, 10), body=5), avoid((200, 200, 15))):
        away = (steer.nearest(still) - 200).norm(dim=-1)
        assert ((away > 14.9) & (away < 19)).all()


def test_a_plan_does_not_exceed_its_pace(policy):
    line = torch.tensor([[[0.0, 0.0], [30.0, 40.0], [33.0, 44.0]]])
    found = speed_limit(10.0).nearest(line)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0.0], [6.0, 8.0], [12.0, 16.0]]]))
    assert torch.equal(speed_limit(60.0).nearest(line), line)
    torch.testing.assert_close(speed_limit(10.0, axes=[1]).nearest(line)[0, 1], torch.tensor([30.0, 10.0]))
    plans = policy.sample(4, observation=SEEN[0], steps=4, seed=0, steer=[steer_of(policy, "speed_limit=5")])
    assert max(np.linalg.norm(np.diff(a.values, axis=0), axis=1).max() for a in plans) < 5.01


def test_a_goal_is_where_a_plan_ends():
    policy = zoo.load("policy/pusht-keypoints")
    free = np.stack([a.values for a in policy.sample(4, observation=SEEN[0], steps=10, seed=0)])
    place = free[:, -1].mean(0) + np.array([20.0, -15.0])
    steer = goal(place, noise=3.0)
    plans = np.stack([a.values for a in policy.sample(4, observation=SEEN[0], steps=10, seed=0, steer=steer)])
    near, far = (np.linalg.norm(v[:, -1] - place, axis=1).mean() for v in (plans, free))
    assert near < 6 < far


def test_plans_that_overlap_go_on_with_the_last(policy):
    controller = policy.controller(steps=4, seed=2, replan="overlap")
    assert controller.join and controller.frozen == 0
    for one in SEEN[:8]:
        controller.act(one)
    robot = controller.robots[0]
    old, spare = robot.chunk, robot.spare[0]
    last, binds = controller._moved_on(robot)
    assert torch.equal(last[:8], old[8:])
    # Black et al. 2025, Eq. 5: what was carried out is held; of the 7 others c = 7/8, 6/8, ... and c (e^c - 1) / (e - 1)
    expected = [c / 8 * (math.exp(c / 8) - 1) / (math.e - 1) for c in range(7, 0, -1)]
    assert binds[:, 0].tolist() == pytest.approx([1.0, *expected, *[0.0] * 8], abs=1e-6)
    action = controller.act(SEEN[8])
    torch.testing.assert_close(robot.chunk[0], old[8], msg="what was carried out is held")
    anew = policy.controller(steps=4, seed=2, replan="anew")
    loose = [anew.act(one) for one in SEEN[:9]][-1]
    assert not anew.join and np.linalg.norm(action - spare) < 0.5 * np.linalg.norm(loose - spare)


def test_frozen_actions_are_those_of_the_last_plan(policy):
    controller = policy.controller(steps=4, seed=2, replan="overlap", frozen=2)
    for one in SEEN[:8]:
        controller.act(one)
    coming = controller.robots[0].spare[:3]
    acted = [controller.act(one) for one in SEEN[8:11]]
    np.testing.assert_allclose(acted[:2], coming[:2], atol=1e-3)
    assert np.linalg.norm(acted[2] - coming[2]) > 0.01


def test_what_they_refuse(policy):
    bad = [
        lambda: avoid(3), lambda: avoid([]), lambda: avoid((1, 2)), lambda: avoid((1, 2, -3)), lambda: avoid((1, 2, math.nan)),
        lambda: avoid((1, 2, 3), body=-1), lambda: avoid((1, 2, 3), axes=(0, 0)), lambda: Obstacle("a", 2, 3),
        lambda: speed_limit(0), lambda: speed_limit("fast"), lambda: goal("here"), lambda: goal([1, 2], axes=[0]),
        lambda: goal([1, 2], step=0.5), lambda: steer_of(policy, "avoid"), lambda: steer_of(policy, "avoids=1"),
        lambda: policy.controller(replan="later"), lambda: policy.controller(replan="overlap", join=True),
        lambda: policy.controller(frozen=2), lambda: policy.controller(steer=3),
    ]  # fmt: skip
    for make in bad:
        with pytest.raises(ConfigError):
            make()
    for steer in (avoid((1, 2, 3), axes=(0, 5)), goal([1.0, 2.0, 3.0]), goal([1.0], step=40), speed_limit(1.0, axes=[4])):
        with pytest.raises(ShapeError):
            policy.sample(1, observation=SEEN[0], steps=2, seed=0, steer=[steer])

"""What the page does, without a page: steps are those of `sample`, limits hold, no path is taken from a request."""

import ast
import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.contract.page import Film, Picture, Scene
from zoo.contract.registry import get_domain, get_recipe
from zoo.contract.samples import Samples
from zoo.demo import engine as engines
from zoo.demo.engine import Engine, Limits, Source, code, export
from zoo.errors import ConfigError, ResourceError
from zoo.point3d.domain import GOES, STAYS
from zoo.protein.backbone import GIVEN, Backbone


@pytest.fixture(scope="module")
def engine(pictures):
    return Engine([pictures])


def finished(engine, run):
    assert list(engine.steps(run))[-1] == run.total
    return run


def test_the_last_step_is_the_sample(engine, pictures):
    run = finished(engine, engine.start(pictures, 2, {"label": "bag"}, {"seed": 3, "steps": 4}))
    expected = zoo.load(pictures).sample(2, label="bag", seed=3, steps=4)
    assert torch.equal(run.samples.tensor, expected.tensor)
    assert [s[0] for s in run.states] == [1, 2, 3, 4]
    assert np.isinf(run.states[-1][1]) and run.states[0][1] < run.states[2][1]  # less noise from step to step
    _, x0 = run.views(len(run.states) - 1)
    assert x0[0].image.size == expected.plot().size


def test_of_a_long_run_only_so_many_steps_are_kept(engine, pictures, monkeypatch):
    monkeypatch.setattr(engines, "KEPT", 4)
    run = finished(engine, engine.start(pictures, 1, {}, {"seed": 0, "steps": 9, "sampler": "ddim"}))
    assert [s[0] for s in run.states] == [1, 3, 6, 9]


def test_the_lines_make_exactly_the_samples(engine, pictures, tmp_path, monkeypatch):
    run = finished(engine, engine.start(pictures, 2, {"label": "bag"}, {"seed": 3, "steps": 2, "guidance_weight": 1.0}))
    ast.parse(run.code)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(run.code, names)
    assert torch.equal(names["samples"].tensor, run.samples.tensor)
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_condition_that_is_code_stays_a_text(engine, pictures):
    odd = '"); import os; ("\n'
    text = code(pictures, 1, {"text": odd}, engine.start(pictures, 1, {}, {"seed": 0}).plan)
    call = ast.parse(text).body[2].value
    assert {k.arg: ast.literal_eval(k.value) for k in call.keywords}["text"] == odd


def test_export_is_the_domains_own_format(engine, pictures, tmp_path):
    one = finished(engine, engine.start(pictures, 1, {"label": "bag"}, {"seed": 0, "steps": 1}))
    assert export(one, tmp_path / "one").name == "0000-bag.png"
    two = finished(engine, engine.start(pictures, 2, {}, {"seed": 0, "steps": 1}))
    assert zipfile.ZipFile(export(two, tmp_path / "two")).namelist() == ["0000.png", "0001.png"]


@pytest.mark.parametrize("name", ["/etc", "./runs", "../m", "hub:me/x", "image/none", "", None, 3, ["a"], {"path": "/etc"}])
def test_no_path_and_no_repository_comes_from_a_request(engine, name):
    with pytest.raises(ConfigError, match="model of this page"):
        engine.model(name)


def test_a_run_ends_at_its_time(pictures):
    slow = Engine([pictures], Limits(seconds=0))
    with pytest.raises(ResourceError, match="limit of this page"):
        list(slow.steps(slow.start(pictures, 1, {}, {"seed": 0, "steps": 2})))


@pytest.mark.parametrize(("n", "steps"), [(0, 1), (17, 1), (True, 0), ("2", 1), (1, 0), (1, 1001)])
def test_a_request_for_too_much_is_refused(engine, pictures, n, steps):
    with pytest.raises(ConfigError):
        engine.start(pictures, n, {}, {"steps": steps})


def test_runs_are_forgotten_where_they_are_too_large(pictures):
    engine = Engine([pictures], bytes_=1)
    first, second = (engine.keep(finished(engine, engine.start(pictures, 1, {}, {"seed": 0, "steps": 1}))) for _ in "ab")
    assert engine.run(second).samples is not None
    with pytest.raises(ConfigError, match="not kept any more"):
        engine.run(first)
    for key in (None, 3, "x", ["a"]):
        with pytest.raises(ConfigError, match="not kept any more"):
            engine.run(key)


def test_models_are_forgotten_too(pictures, clouds, monkeypatch):
    monkeypatch.setattr(engines, "MODELS", 1)
    engine = Engine([pictures, clouds])
    first = engine.model(pictures)
    assert engine.model(pictures) is first
    engine.model(clouds)
    assert engine.model(pictures) is not first


def test_forward_is_the_schedule(engine, pictures):
    model, item = zoo.load(pictures), np.full((28, 28), 200, np.uint8)
    clean, snr, curve = engine.noised(pictures, item, 0.0, 0)
    assert np.isinf(snr) and np.array_equal(clean[0].pixels, item)
    assert curve == sorted(curve) and len(curve) == 100
    half, snr, _ = engine.noised(pictures, item, 0.5, 0)
    level = model.diffusion.schedule.levels(100)[50]
    assert snr == pytest.approx(2 * level.lam)
    noise = half[0].numpy().astype(np.float64) - level.alpha * float(model.encoded(item)[0, 0, 0])
    assert np.std(noise[np.abs(half[0].numpy()) < 1]) < level.sigma * 1.1
    assert np.array_equal(half[0].pixels, engine.noised(pictures, item, 0.5, 0)[0][0].pixels)


def png(pixels):
    """A picture as a source of an edit."""
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "png")
    return Source(pixels, ".png", memory.getvalue())


def test_an_edit_keeps_what_is_not_painted(engine, pictures):
    item, mask = png(np.full((28, 28), 200, np.uint8)), np.zeros((280, 280), bool)
    mask[:, 141:] = True
    run = engine.edit(pictures, item, {"mask": mask}, {"label": "bag"}, {"seed": 0, "steps": 3})
    pixels = finished(engine, run).samples[0].pixels
    assert (pixels[:, :14] == 200).all() and (pixels[:, 14:] != 200).any()
    with pytest.raises(ConfigError, match="nothing is painted"):
        engine.edit(pictures, item, {"mask": None}, {}, {})


def test_half_a_cloud_stays(clouds):
    engine = Engine([clouds])
    source = engine.source(clouds)
    cloud = source.item
    assert engine.source(clouds).item is cloud
    run = engine.edit(clouds, source, {"half": "upper"}, {}, {"seed": 1, "steps": 2})
    made = finished(engine, run).samples[0]
    lower = cloud.points[:, 1] <= 0
    np.testing.assert_allclose(made.points[lower], cloud.points[lower], atol=1e-5)
    with pytest.raises(ConfigError, match="unknown half"):
        engine.edit(clouds, source, {"half": "other"}, {}, {})


def painted(size):
    mask = np.zeros(size, bool)
    mask[: size[0] // 2] = True
    return mask


def extended(size):
    """A stretched chain with bonds of their lengths, angstrom."""
    apart = np.array([[0.0, 0.0, 0.0], [1.2, 0.8, 0.0], [2.4, -0.1, 0.0]])
    return Backbone(np.stack([apart + np.array([3.6 * i, 0, 0]) for i in range(size)]))


EDITS = {
    "image": ({"mask": painted((56, 56))}, {"label": "bag"}, "posterior"),
    "audio": ({"first": 0.2, "last": 0.5}, {"label": "seven"}, "replace"),
    "point3d": ({"half": "upper"}, {}, "replace"),
    "protein": ({"first": 3, "last": 12, "length": 40, "start": 9}, {}, "select"),
}


@pytest.mark.parametrize("domain", EDITS)
def test_the_lines_and_files_of_an_edit_make_exactly_its_sample(domain, request, tmp_path, monkeypatch):
    """In the zip that the page gives away, by the library's own call and its own method of in-painting."""
    answers, asked, method = EDITS[domain]
    small = {"image": "pictures", "audio": "sounds", "point3d": "clouds", "protein": "chains"}
    name = request.getfixturevalue(small[domain])
    engine, own = Engine([name]), get_domain(domain)
    # what an untrained model makes is no chain
    source = engine.source(name, extended(40).save(tmp_path / "mine.pdb") if domain == "protein" else None)
    run = engine.edit(name, source, answers, asked, {"seed": 4, "steps": 3})
    assert run.plan.method["method"] == method
    made = finished(engine, run).samples
    with zipfile.ZipFile(export(run, tmp_path / "out")) as packed:
        packed.extractall(tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    names = {}
    exec(Path("again.py").read_text(), names)
    assert torch.equal(names["samples"].tensor, made.tensor)
    assert Path("again.py").read_text() == run.code
    files = [sorted(p for p in folder.glob(f"*{own.suffix}") if p.stem != "given") for folder in (Path(), Path("out"))]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]] != []


def test_a_model_whose_example_is_no_object_is_told(chains):
    """An untrained one may make what no reader takes for a chain."""
    with pytest.raises(ConfigError, match="give a file of your own"):
        Engine([chains]).source(chains)


def test_the_steps_of_an_edit_are_those_of_its_method(engine, pictures, monkeypatch):
    """One that takes each step several times is gone through to its end."""
    monkeypatch.setattr(type(get_domain("image")), "inpainting", {"method": "resample", "times": 3, "jump": 2})
    source, answers = engine.source(pictures), {"mask": painted((28, 28))}
    run = finished(engine, engine.edit(pictures, source, answers, {}, {"seed": 0, "steps": 4}))
    assert run.total == 12 and run.states[-1][0] == 12 and np.isinf(run.states[-1][1])
    expected = zoo.load(pictures).inpaint(source.item, ~answers["mask"][None], seed=0, steps=4)
    assert torch.equal(run.samples.tensor, expected.tensor)


@pytest.mark.parametrize("name", ["image/fashion-ddpm", "audio/spec-ddpm", "point3d/shapes-ddpm", "protein/backbone-ddpm"])
def test_a_domain_gives_the_views_that_it_declares(name):
    recipe = get_recipe(name)
    domain = get_domain(recipe.domain)
    (item, _), *_ = domain.example_data(recipe, 2)
    samples = Samples.of([item], domain=domain)
    assert tuple(type(v) for v in domain.view(samples)) == domain.views
    assert all(q.label for q in domain.edits(recipe).values())


@pytest.mark.parametrize(
    ("name", "answers", "wanted"),
    [
        ("audio/spec-ddpm", {"first": 0.9, "last": 0.2}, "a gap"),
        ("audio/spec-ddpm", {"first": 0, "last": 99}, "a gap"),
        ("protein/backbone-ddpm", {"first": 5, "last": 3, "length": 64, "start": 1}, "a motif"),
        ("protein/backbone-ddpm", {"first": 1, "last": 9999, "length": 64, "start": 1}, "a motif"),
    ],
)
def test_answers_that_leave_nothing_are_told(name, answers, wanted):
    recipe = get_recipe(name)
    domain = get_domain(recipe.domain)
    (item, _), *_ = domain.example_data(recipe, 2)
    codec = domain.codec(recipe.codec)
    with pytest.raises(ConfigError, match=wanted):
        domain.edited(SimpleNamespace(codec=SimpleNamespace(inner=codec)), item, answers)


def test_what_an_edit_chooses_is_seen():
    def shown(name, **answers):
        recipe = get_recipe(name)
        domain = get_domain(recipe.domain)
        (item, _), *_ = domain.example_data(recipe, 2)
        views = domain.chosen(Samples.of([item], domain=domain), answers)
        assert tuple(type(v) for v in views) == domain.views
        return item, list(views[-1].colours) if isinstance(views[-1], Scene) else None

    chain, colours = shown("protein/backbone-ddpm", first=5, last=9, length=64, start=1)
    assert [k for k, c in enumerate(colours, 1) if c == GIVEN] == [5, 6, 7, 8] and len(colours) == len(chain) - 1
    cloud, colours = shown("point3d/shapes-ddpm", half="upper")
    assert [c == GOES for c in colours] == (cloud.points[:, 1] > 0).tolist() and set(colours) == {GOES, STAYS}
    for first, last, green in ((5, 5, [5]), (1, len(chain), [*range(1, len(chain))]), (len(chain), len(chain), [])):
        _, colours = shown("protein/backbone-ddpm", first=first, last=last, length=64, start=1)
        assert [k for k, c in enumerate(colours, 1) if c == GIVEN] == green
    shown("audio/spec-ddpm", first=0.1, last=0.2)
    for name, answers in (("protein/backbone-ddpm", {"first": 5, "last": 9999}), ("point3d/shapes-ddpm", {"half": "none"})):
        with pytest.raises(ConfigError):
            shown(name, **answers)


def test_a_start_off_the_table_is_told():
    from zoo.policy.play import PUSHT, start

    middle = {name: value for name, (_, _, _, value) in PUSHT.items()}
    seed, options = start(middle)
    assert options["options"]["reset_to_state"][:4] == [220, 400, 200, 300] and seed == 0
    with pytest.raises(ConfigError, match="T x: 900"):
        start(middle | {"block_x": 900})


def test_what_is_dragged_lies_where_the_simulation_has_it():
    """The corners of the board's T and goal are those of the simulation, at places and angles that were asked for."""
    pytest.importorskip("gym_pusht")
    from zoo.policy import play
    from zoo.policy.envs import TASKS

    answers = {"agent_x": 90, "agent_y": 80, "block_x": 170, "block_y": 310, "angle": -70}
    goal = {"goal_x": 330, "goal_y": 140, "goal_angle": 120}

    def corners(handle):
        degrees, pivot = np.radians((answers | goal)[handle.angle]), np.array(handle.pivot)
        turn = np.array([[np.cos(degrees), -np.sin(degrees)], [np.sin(degrees), np.cos(degrees)]])
        return (np.array(handle.outline) - pivot) @ turn.T + pivot + [(answers | goal)[handle.x], (answers | goal)[handle.y]]

    ends, tee, agent = play.board("pusht-keypoints").handles
    seed, options = play.start(answers | goal)
    env = TASKS["pusht-keypoints"].make(seed, False)
    seen, _ = env.reset(seed=seed, **options)
    points = seen["environment_state"].reshape(-1, 2)
    # its points are those of two rectangles; all of ours are among them
    assert np.abs(corners(tee)[:, None] - points[None]).sum(-1).min(1).max() < 0.1
    body = env.unwrapped.get_goal_pose_body(np.array(play.goal_of(goal)))
    there = np.array([body.local_to_world(v) for shape in env.unwrapped.block.shapes for v in shape.get_vertices()])
    assert np.abs(corners(ends)[:, None] - there[None]).sum(-1).min(1).max() < 1e-6
    assert np.allclose(seen["agent_pos"], [90, 80]) and agent.angle == "" and np.ptp(agent.outline) == pytest.approx(30)
    assert play.board("metaworld-push") is None


def test_another_goal_is_the_usual_one_on_a_table_that_was_moved():
    """What the policy sees of a T on the goal is what it always saw of that, and what it does comes back to the table."""
    from zoo.policy.play import LEARNT, Moved, goal_of

    assert goal_of({}) is None and goal_of({"goal_x": 256, "goal_y": 256, "goal_angle": 45}) is None
    x, y, angle = goal_of({"goal_x": 150, "goal_y": 300, "goal_angle": -100})
    moved = Moved((x, y, angle))

    def at(x, y, angle, points):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return points @ turn.T + [x, y]

    *usual, degrees = LEARNT
    tee = np.random.default_rng(0).normal(0, 50, (8, 2))
    seen = moved.seen({"environment_state": at(x, y, angle, tee).ravel(), "agent_pos": np.array([150.0, 300.0])})
    np.testing.assert_allclose(seen["environment_state"].reshape(8, 2), at(*usual, np.radians(degrees), tee), atol=1e-9)
    np.testing.assert_allclose(seen["agent_pos"], usual)
    place = np.array([140.0, 320.0])
    np.testing.assert_allclose(moved.done(moved.seen({"p": place})["p"]), place, atol=1e-3)
    assert moved.done([5000.0, -5000.0]).min() >= 0 and moved.done([5000.0, -5000.0]).max() <= 512


@pytest.mark.slow
def test_the_goal_lies_where_it_was_asked_for():
    """In the pictures of the simulation, which are drawn with it."""
    from zoo.policy.play import PUSHT

    model = zoo.load("policy/pusht-keypoints")
    answers = {name: value for name, (_, _, _, value) in PUSHT.items()} | {"most": 11}
    usual, other = (
        next(iter(model.domain.played(model, answers | goal, seed=0, steps=2))).image
        for goal in ({}, {"goal_x": 130, "goal_y": 140, "goal_angle": 0})
    )
    green = [(np.asarray(p).astype(int)[..., 1] - np.asarray(p)[..., 0] > 40) for p in (usual, other)]
    assert np.argwhere(green[1]).mean(0)[1] < 140 < np.argwhere(green[0]).mean(0)[1]


@pytest.mark.slow
def test_a_policy_acts_from_the_start_that_is_asked_for():
    from zoo.policy.play import PUSHT

    model = zoo.load("policy/pusht-keypoints")
    answers = {name: value for name, (_, _, _, value) in PUSHT.items()} | {"most": 20}
    views = list(model.domain.played(model, answers, seed=0, steps=2))
    assert [type(v) for v in views] == [Picture, Picture, Film] and len(views[-1].frames) == 21
    seen = model.domain.situation(model, 3)["observation"]
    assert seen.shape == (2, 18) and (seen[0] == seen[1]).all()

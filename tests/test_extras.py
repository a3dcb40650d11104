"""Packages of the extras, and what other packages offer."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo import extras
from zoo.errors import ConfigError
from zoo.extras import Registry, need
from zoo.figure import new_figure


def test_what_is_there_is_imported():
    assert need("math", "audio") is math


def test_what_is_missing_names_its_extra(monkeypatch):
    with pytest.raises(ConfigError, match=r'nowhere is needed.*pip install "diffusion-zoo\[point3d\]"'):
        need("nowhere.at.all", "point3d")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"matplotlib is needed.*\[policy\]"):
        new_figure(1, 1, "policy")


class Entry:
    """An entry point of another package, imported when it is first asked for."""

    def __init__(self, name, value):
        self.name, self.value, self.loads = name, value, 0

    def load(self):
        self.loads += 1
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.fixture
def things(monkeypatch):
    found = [Entry("theirs", "their thing"), Entry("broken", ImportError("no such module"))]
    monkeypatch.setattr(extras, "entry_points", lambda group: found if group == "zoo.things" else [])
    registry = extras.Registry("thing", "zoo.things")
    registry.register("ours", "our thing")
    return registry, found


def test_a_registry_has_ours_and_what_other_packages_offer(things):
    registry, found = things
    assert list(registry) == ["ours", "theirs", "broken"] and len(registry) == 3
    assert registry["ours"] == "our thing" and found[0].loads == 0
    assert registry["theirs"] == registry["theirs"] == "their thing" and found[0].loads == 1
    assert "theirs" in registry and "nobodys" not in registry
    with pytest.raises(ConfigError, match=r"unknown thing 'our'. Did you mean 'ours'"):
        _ = registry["our"]
    with pytest.raises(ConfigError, match=r"'broken' of another package cannot be imported: no such module"):
        _ = registry["broken"]


def test_a_name_is_given_once(things):
    registry, _ = things
    assert registry.register("ours", registry["ours"]) == "our thing", "the same again is no second one"
    with pytest.raises(ConfigError, match="'ours' exists already"):
        registry.register("ours", "another")
    registry.remove("ours")
    assert "ours" not in registry


def test_a_sampler_of_another_package_is_found_by_its_name(monkeypatch):
    import zoo
    from zoo.core.samplers import SAMPLERS, Sampler, get_sampler

    theirs = Sampler("theirs", get_sampler("ddim").run, ("eta",))
    monkeypatch.setattr(SAMPLERS, "_offered", {"theirs": Entry("theirs", theirs)})
    try:
        small = {"net.channels": 16, "net.multipliers": [1], "net.attention": [False], "net.emb_dim": 16}
        model = zoo.create("image/fashion-ddpm", **small)
        settings = {"seed": 0, "steps": 2, "progress": False}
        a, b = (model.sample(1, sampler=name, **settings).tensor for name in ("theirs", "ddim"))
        assert (a == b).all()
    finally:
        SAMPLERS.remove("theirs")


#: one thing of each group of entry points, as the whole of a package in one file
THEIRS = """
import torch
from torch import nn

import zoo
from zoo.contract.codec import Codec
from zoo.contract.conditions import Label, condition
from zoo.contract.domain import OwnDomain
from zoo.contract.recipe import Recipe
from zoo.core.samplers import get_sampler, sampler
from zoo.core.schedule import FlowSchedule, schedule
from zoo.training.objective import Denoise, objective


@sampler("their-sampler")
def their_sampler(predict, x, levels, *, rng):
    yield from get_sampler("ddim").run(predict, x, levels, rng=rng)


@schedule("their-schedule")
class TheirSchedule(FlowSchedule):
    pass


def their_steer(share):
    return lambda predict: lambda x, level: tuple(share * part for part in predict(x, level))


@objective("their-objective")
class TheirObjective(Denoise):
    pass


@condition("their-condition")
class TheirCondition(Label):
    kind: str = "their-condition"


class TheirNet(nn.Module):
    def __init__(self, shape, conditions=None):
        super().__init__()
        self.net = nn.Linear(shape[-1], shape[-1])

    def forward(self, x_t, t, cond, *, mask=None):
        return self.net(x_t)


class TheirCodec(Codec):
    shape = (2,)

    def encode(self, item, rng=None):
        return torch.as_tensor(item)


class TheirDomain(OwnDomain):
    codecs = TheirCodec

    def recipes(self):
        return {"small": Recipe(name="small", domain="their-domain", denoiser="their-denoiser")}


class TheirFormat:
    def recognises(self, folder):
        return (folder / "theirs.json").exists()

    def load(self, folder):
        return zoo.create("their-domain/small")


DOMAIN, FORMAT = TheirDomain("their-domain"), TheirFormat()
"""
#: group of entry points -> what of the package it names
OFFERED = {
    "samplers": "their_sampler",
    "schedules": "TheirSchedule",
    "steers": "their_steer",
    "objectives": "TheirObjective",
    "conditions": "TheirCondition",
    "denoisers": "TheirNet",
    "domains": "DOMAIN",
    "formats": "FORMAT",
}
#: a program that imports zoo alone, and asks for each by its name
USES = """
import sys
from pathlib import Path

import zoo
from zoo.core.diffusion import Diffusion
from zoo.core.schedule import FlowSchedule

assert "their-domain/small" in zoo.list_models()
wide = {"denoiser": "their-denoiser", "net": {}, "training.objective": "their-objective", "sampling.sampler": "their-sampler"}
small = {"codec": {"size": 4}, "schedule": {"kind": "their-schedule"}, "sampling.spacing": None, "sampling.clip": None}
label = {"conditions": {"label": {"kind": "their-condition", "values": ["cat", "dog"]}}}
pictures = zoo.create("image/fashion-ddpm", **wide, **small, **label)
zoo.fit(pictures, pictures.domain.example_data(pictures.recipe), steps=1, cpu=True)
made = pictures.sample(1, label="DOG", steer=zoo.steer.offered(0.5), steps=2, seed=0, progress=False)
assert made.conditions == {"label": ["dog"]}
import their_package

codec = their_package.TheirCodec()
assert zoo.Model.of(Diffusion(FlowSchedule(), "flow"), their_package.TheirNet((2,)), codec).domain is their_package.DOMAIN
Path("folder").mkdir()
Path("folder/theirs.json").write_text("{}")
assert zoo.load("./folder").recipe.name == "small"
print("all of them")
"""


@pytest.mark.slow
def test_an_installed_package_offers_one_of_each(tmp_path):
    documented = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`zoo\.(\w+)` \|$", documented, re.MULTILINE)) == set(OFFERED)
    (tmp_path / "their_package.py").write_text(THEIRS)
    meta = tmp_path / "their_package-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    names = {group: f"their-{group.removesuffix('s')}" for group in OFFERED} | {"steers": "offered"}
    groups = [f"[zoo.{group}]\n{names[group]} = their_package:{thing}\n" for group, thing in OFFERED.items()]
    (meta / "entry_points.txt").write_text("\n".join(groups))
    path = os.pathsep.join([str(Path(zoo.__file__).parents[1]), str(tmp_path)])
    run = subprocess.run(
        [sys.executable, "-c", USES],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0 and "all of them" in run.stdout, run.stderr


def test_a_registry_gives_the_default_for_a_name_that_nobody_has():
    assert Registry("thing", "zoo.nothing").get("x", 5) == 5
    assert Registry("thing", "zoo.nothing").get("x") is None

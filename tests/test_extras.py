"""Packages of the extras."""

import math

import pytest

from zoo import extras
from zoo.errors import ConfigError
from zoo.extras import need
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

"""Packages of the extras."""

import math

import pytest

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

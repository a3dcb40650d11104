"""What chains are asked to be: closed forms of what is measured, and that steers lead there."""

import math

import numpy as np
import pytest
import torch
from chains import chain

import zoo
from zoo.cli import steer_of
from zoo.core import seeds
from zoo.errors import ConfigError
from zoo.protein import wishes
from zoo.protein.geometry import build
from zoo.protein.wishes import contact, gyration, helical, helices, kinds, overlap, pattern, radius, secondary, share, stranded

QUICK = {"steps": 4, "seed": 0, "progress": False}


def sheet():
    """Two antiparallel strands of 8 residues, 4.8 angstrom apart, in one chain (16, 3, 3)."""
    up = build(torch.tensor([-math.pi * 2 / 3, math.pi * 3 / 4, math.pi]).double().repeat(8, 1))
    axis = torch.nn.functional.normalize(up[-1, 1] - up[0, 1], dim=0)
    side = torch.nn.functional.normalize(torch.linalg.cross(axis, torch.tensor([0.0, 0.0, 1.0]).double()), dim=0)
    middle = up[:, 1].mean(0)
    turned = middle + (2 * ((up - middle) @ side)[..., None] * side - (up - middle))  # half a turn around the side
    return torch.cat([up, turned + 4.8 * side])[None]


def test_radius_of_known_chains():
    line = torch.zeros(1, 5, 3, 3)
    line[0, :, 1, 0] = torch.arange(5) * 3.8
    torch.testing.assert_close(gyration(line), torch.tensor([3.8 * math.sqrt(2)]))
    ring = torch.zeros(1, 12, 3, 3)
    angle = torch.arange(12) * math.pi / 6
    ring[0, :, 1, 0], ring[0, :, 1, 1] = 7 * angle.cos(), 7 * angle.sin()
    torch.testing.assert_close(gyration(ring), torch.tensor([7.0]))


def test_what_is_a_helix_and_what_is_a_strand(helix, coil):
    x = torch.from_numpy(helix.atoms)[None]
    assert helical(x)[0, 2:-2].min() > 0.9 and stranded(x).max() < 0.01
    assert share("helices", x) > 0.9
    assert helical(x * torch.tensor([1.0, 1.0, -1.0])).max() < 0.01, "left-handed"
    flat = torch.from_numpy(chain(40, -120.0, 135.0))[None]
    assert stranded(flat).max() < 0.01, "stretched, and beside nothing"
    assert helical(flat).max() < 0.01
    found = stranded(sheet())[0]
    assert found[2:6].min() > 0.5 and found[10:14].min() > 0.5
    whole = kinds(torch.from_numpy(coil.atoms)[None])
    torch.testing.assert_close(whole.sum(2), torch.ones(1, 40))
    assert stranded(x[:, :4]).eq(0).all() and helical(x[:, :4]).eq(0).all()


def test_nothing_depends_on_where_a_chain_lies():
    x = sheet()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=seeds.generator(0)).double())[0]
    for value in (gyration, stranded, helical, overlap):
        torch.testing.assert_close(value(x @ turn + 3), value(x))


def test_clashes_of_known_chains(helix):
    assert overlap(torch.from_numpy(helix.atoms)[None]) == 0
    x = torch.zeros(1, 3, 3, 3, dtype=torch.float64)
    x[0, :, :, 0] = torch.tensor([[0.0, 50, 100], [200, 250, 300], [400, 2.0, 500]])  # N of 1 and CA of 3 are 2 apart
    torch.testing.assert_close(overlap(x), torch.tensor([1.1**2]).double(), atol=1e-6, rtol=0)
    x[0, 2, 1, 0] = 52.0  # CA of 1 and of 3: they count as CA and as atoms
    torch.testing.assert_close(overlap(x), torch.tensor([1.1**2 + 1.8**2]).double(), atol=1e-6, rtol=0)


def test_samples_are_as_asked(model):
    """With a net that knows nothing: where a steer asks for it, it is so."""
    free = model.sample(3, length=36, **QUICK)
    assert all(gyration(torch.from_numpy(c.atoms)[None]) < 11.5 for c in free)
    for c in model.sample(3, length=36, steer=radius(13.0), **QUICK):
        assert abs(float(gyration(torch.from_numpy(c.atoms)[None])) - 13) < 0.3
    gaps, held = ([float(np.linalg.norm(c.atoms[2, 1] - c.atoms[29, 1])) for c in s] for s in (free, near(model)))
    assert max(gaps) > 7 and max(held) < 5.5


def near(model):
    return model.sample(3, length=36, steer=contact(3, 30, 5.0), **QUICK)


def test_contacts_that_are_there_are_left_alone(model):
    free = model.sample(2, length=36, **QUICK)
    far = 1 + max(float(np.linalg.norm(c.atoms[2, 1] - c.atoms[29, 1])) for c in free)
    near = model.sample(2, length=36, steer=contact(3, 30, 100 * far), **QUICK)
    np.testing.assert_allclose(near.tensor, free.tensor, atol=2e-3)


def test_a_pattern_is_likelier_where_it_is_followed(helix):
    x = torch.from_numpy(helix.atoms)[None]
    said = {c: float(pattern(c * 40).surprise(x)) for c in "EHL"}
    assert said["H"] < said["L"] and said["H"] < said["E"]
    assert float(pattern("-" * 39 + "H").surprise(x)) < float(pattern("H" * 40).surprise(x))
    torch.testing.assert_close(pattern("C" * 40).surprise(x), pattern("l" * 40).surprise(x))


def test_strands_and_helices_come_out(model):
    """With the packaged weights and few steps: the mean moves where it is asked to.

    How far it moves is told in docs/protein.md. A steer without effect gives the same chains twice; rounding, which the sampler
    amplifies, leaves of a few chains' mean some hundredths from machine to machine.
    """
    packaged, how = zoo.load("protein/backbone-ddpm"), {"n": 6, "length": 48, "steps": 25, "seed": 0, "progress": False}

    def mean(kind, steer):
        return np.mean([np.mean(c.structure() == kind) for c in packaged.sample(**how, steer=steer)])

    assert mean(2, wishes.strands(0.5)) > mean(2, wishes.strands(0.0)) + 0.05
    assert mean(1, helices(0.6)) > mean(1, helices(0.0)) + 0.05


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: radius(0), "above 0, such as 12"),
        (lambda: radius("wide"), "radius"),
        (lambda: secondary(), "nothing; give strands="),
        (lambda: secondary(strands=0.7, helices=0.5), "add up to 1"),
        (lambda: wishes.strands(1.4), "strands"),
        (lambda: helices(-0.1), "helices"),
        (lambda: pattern("EEXH"), "'X' in it"),
        (lambda: pattern("---"), "no letter"),
        (lambda: pattern(4), "a letter for each residue"),
        (lambda: contact(0, 9), "i=0"),
        (lambda: contact(4, 5), "not neighbours"),
        (lambda: contact(4, 9, 2.0), "at least 3.5"),
        (lambda: wishes.clash(-1.0), "weight"),
    ],
)
def test_bad_wishes(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


@pytest.mark.parametrize(
    ("steer", "match"),
    [(pattern("EEE"), "3 letters for a chain of 36"), (contact(3, 40), "residues 3 and 40 of a chain that has 36")],
)
def test_wishes_that_do_not_fit_a_chain(model, steer, match):
    with pytest.raises(ConfigError, match=match):
        model.sample(1, length=36, steer=steer, **QUICK)


def test_steers_of_the_command_line(model):
    for text in (
        "radius=12",
        'strands={"value": 0.4}',
        'secondary={"strands": 0.2, "helices": 0.4}',
        "contact=4,30",
        "clash",
        "symmetry=C3",
    ):
        assert callable(steer_of(model, text))
    for text, match in (
        ("radius=wide", "radius"),
        ("radii=3", "radius"),
        ("strands=2", "strands"),
        ("symmetry=X", "cyclic"),
        ("contact=4", "--steer contact"),
    ):
        with pytest.raises(ConfigError, match=match):
            steer_of(model, text)


def test_names_of_the_domain(model):
    assert sorted(model.domain.steers) == sorted(["symmetry", *wishes.STEERS])
    for name, make in model.domain.steers.items():
        assert getattr(zoo.protein, name) is make
    with pytest.raises(AttributeError, match="radii"):
        _ = zoo.protein.radii

"""The mutations themselves: each must still find what it changes."""

from pathlib import Path

import mutations
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", mutations.MUTATIONS)
def test_a_mutation_finds_its_place_and_its_tests(name):
    file, before, after, tests = mutations.MUTATIONS[name]
    text = (ROOT / file).read_text(encoding="utf-8")
    assert mutations.mutated(text, before, after, name) != text
    places = tests.partition(" -")[0].split()  # what follows are options of pytest
    assert places and all((ROOT / t).exists() for t in places)


def test_a_place_is_found_however_its_lines_are_broken_and_only_once():
    text = "a = f(\n    x,\n    y\n)\n"
    assert mutations.mutated(text, "f(x, y)", "g(y)", "here") == "a = g(y)\n"
    for wrong in ("f(x, z)", "x"):
        with pytest.raises(SystemExit, match="mend the mutation"):
            mutations.mutated(text + "x = 1", wrong, "", "here")

"""The mutations themselves: each must still find what it changes."""

from pathlib import Path

import mutations
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", mutations.MUTATIONS)
def test_a_mutation_finds_its_place_and_its_tests(name):
    file, before, after, tests = mutations.MUTATIONS[name]
    assert (ROOT / file).read_text(encoding="utf-8").count(before) == 1 and before != after
    assert all((ROOT / t).exists() for t in tests.split())

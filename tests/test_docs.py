"""The code of the documentation runs, page by page."""

import re
from contextlib import contextmanager
from pathlib import Path

import pytest

import zoo
from zoo import testing
from zoo.contract.conditions import CONDITIONS
from zoo.contract.domain import DENOISERS
from zoo.contract.formats import FORMATS
from zoo.contract.registry import get_domain, get_recipe
from zoo.core.samplers import SAMPLERS
from zoo.core.schedule import SCHEDULES
from zoo.core.steer import STEERS
from zoo.model.loading import build
from zoo.training.objective import OBJECTIVES

DOCS = Path(__file__).parents[1] / "docs"
REGISTRIES = (CONDITIONS, DENOISERS, FORMATS, OBJECTIVES, SAMPLERS, SCHEDULES, STEERS)


@contextmanager
def taken_back(names):
    """What a program of these names registers is gone behind it: other tests of the process go through all samplers."""
    before = [set(registry) for registry in REGISTRIES]
    yield
    for registry, known in zip(REGISTRIES, before, strict=True):
        # the others are of modules of zoo that it imported first
        for name in [n for n in set(registry) - known if any(registry[n] is thing for thing in names.values())]:
            registry.remove(name)


def test_what_a_program_registers_is_gone_behind_it():
    names, before = {}, [set(registry) for registry in REGISTRIES]
    with taken_back(names):
        exec("from zoo.core.samplers import sampler\n@sampler('fleeting')\ndef own(*_, rng): yield", names)
        assert "fleeting" in SAMPLERS
    assert [set(registry) for registry in REGISTRIES] == before


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda p: p.stem)
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    load = zoo.load

    def loaded(name, *args, **options):
        """A model without packaged weights is built without any: what the page shows of it has to run all the same."""
        if name in zoo.list_models() and not zoo.info(name).packaged:
            recipe = get_recipe(name)
            return build(recipe, testing.untrained_stage(get_domain(recipe.domain), recipe))
        return load(name, *args, **options)

    monkeypatch.setattr(zoo, "load", loaded)
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict[str, object] = {}
    with taken_back(names):
        for block in blocks:
            exec(compile(block, f"{page.name}: {block.splitlines()[0]}", "exec"), names)

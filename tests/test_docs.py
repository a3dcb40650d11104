"""The code of the documentation runs, page by page."""

import re
from pathlib import Path

import pytest

import zoo
from zoo import testing
from zoo.contract.registry import get_domain, get_recipe
from zoo.model.loading import build

DOCS = Path(__file__).parents[1] / "docs"


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
    for block in blocks:
        exec(compile(block, f"{page.name}: {block.splitlines()[0]}", "exec"), names)

"""The examples run, and are as short as they are said to be."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import nbformat
import notebooks
import pytest

import zoo
import zoo.testing
from zoo.contract import registry

EXAMPLES = Path(__file__).parents[1] / "examples"
#: notebook -> its settings in tests: all cells run, with as little work as they can do
SMALL = {
    "audio": {"N": 2, "STEPS": 2},
    "image": {"N": 2, "STEPS": 2},
    "own_data": {"MINUTES": 0.05, "EACH": 4, "SMALL": {"training.batch_size": 4}},
    "own_net": {"STEPS": 2},
    "point3d": {"POINTS": 256, "STEPS": 2},
    "policy": {"MOST": 12},
    "protein": {"LENGTH": 34},  # with few steps a chain is torn, and no motif
    "steer": {"N": 2, "STEPS": 2},
}


def example(name):
    """An example as a module."""
    spec = spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_notebook_is_that_of_its_script():
    scripts = notebooks.scripts()
    assert [p.stem for p in scripts] == sorted(SMALL) == sorted(p.stem for p in EXAMPLES.glob("*.ipynb"))
    for script in scripts:
        committed = script.with_suffix(".ipynb").read_text(encoding="utf-8")
        assert committed == notebooks.text(script), f"{script.name} has changed: python benchmarks/notebooks.py"


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_notebook_is_short_and_holds_no_outputs(name):
    code = [c for c in nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4).cells if c.cell_type == "code"]
    assert sum(bool(line.strip()) for cell in code for line in cell.source.splitlines()) < 60
    assert not any(cell.outputs or cell.execution_count for cell in code)
    (settings,) = [cell.source for cell in code if cell.metadata.get("tags") == ["parameters"]]
    given = {}
    exec(settings, given)
    assert given.keys() - {"__builtins__"} >= SMALL[name].keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    (at,) = [i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", [])]
    settings = "\n".join(f"{k} = {v!r}" for k, v in SMALL[name].items())
    book.cells.insert(at + 1, nbformat.v4.new_code_cell(settings))
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs if out.output_type != "stream"]
    assert shown and not any(out.output_type == "error" for out in shown)


@pytest.fixture
def toy():
    module = example("own_domain")
    zoo.register(module.DOMAIN)
    yield module
    registry.unregister("toy")


def test_a_domain_of_ones_own_takes_one_file(toy, tmp_path):
    assert "toy/moons" in zoo.list_models()
    figures = toy.main(tmp_path, steps=60)["distance"]
    assert figures["ceiling"] < figures["value"] < figures["floor"]
    assert (tmp_path / "moons.png").exists()


def test_it_keeps_the_contract(toy):
    assert zoo.testing.check_domain(toy.DOMAIN)

"""The fast suite is what `pytest` runs by itself; what it leaves out is measured (benchmarks/slow_tests.py)."""

from types import SimpleNamespace

import pytest
import slow_tests

NAMES = slow_tests.LIST.read_text(encoding="utf-8").splitlines()


def test_the_list_names_tests_that_are_there():
    root = slow_tests.LIST.parents[1]
    for line in NAMES:
        file, _, name = line.partition("::")
        assert f"def {name}(" in (root / file).read_text(encoding="utf-8"), f"python benchmarks/slow_tests.py: {line}"


def test_the_dearest_functions_are_left_out_until_the_rest_is_quick(tmp_path):
    report = tmp_path / "tests.xml"
    cases = [
        ("a", "test_one[x]", 3.0),
        ("a", "test_one[y]", 4.0),
        ("b", "test_two", 5.0),
        ("b", "test_three", 1.0),
        ("c", "t", 0.2),
    ]
    rows = "".join(f'<testcase classname="tests.{file}" name="{name}" time="{took}"/>' for file, name, took in cases)
    report.write_text(f"<testsuites><testsuite>{rows}</testsuite></testsuites>")
    found = slow_tests.functions(report)
    assert found["tests/a.py::test_one"] == 7.0 and sum(found.values()) == pytest.approx(13.2)
    assert slow_tests.dear(found, 6.5) == ["tests/a.py::test_one"]
    assert slow_tests.dear(found, 2.0) == ["tests/a.py::test_one", "tests/b.py::test_two"]
    assert "tests/c.py::t" not in slow_tests.dear(found, 0.0)  # it would save nothing


def test_what_the_list_names_is_marked_with_all_of_its_parameters(request):
    own = next(p for p in request.config.pluginmanager.get_plugins() if hasattr(p, "SLOW"))
    marked = []
    names = [NAMES[0], f"{NAMES[-1]}[a-1]", f"{NAMES[0]}_too", "tests/test_slow.py::test_other"]
    items = [
        SimpleNamespace(nodeid=name, add_marker=lambda mark, name=name: marked.append((name, mark.name))) for name in names
    ]
    own.pytest_collection_modifyitems(items)
    assert marked == [(name, "slow") for name in names[:2]]

"""Which tests are left out of the fast suite, by what they took: tests/slow.txt.

    python -m pytest -n 2 --dist loadfile -m "not gpu and not online and not data" --junitxml tests.xml
    python benchmarks/slow_tests.py tests.xml --seconds 130

The dearest test functions, all their parameters together, go into the list until those that are left take no more than so many
seconds on one core. tests/conftest.py marks what the list names as slow, as `pytest.mark.slow` does for what is slow anywhere.
`make test` runs all of them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

LIST = Path(__file__).resolve().parents[1] / "tests" / "slow.txt"
#: a function below this is never left out: it would save nothing
LEAST = 0.3


def functions(report: Path) -> dict[str, float]:
    """{file::function: seconds, set-up included} of a JUnit report of pytest."""
    found: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "").partition("[")[0]
        found[case.get("classname", "").replace(".", "/") + f".py::{name}"] += float(case.get("time", 0))
    return dict(found)


def dear(found: dict[str, float], seconds: float) -> list[str]:
    """The dearest functions, without which the others take at most so many seconds."""
    left, chosen = sum(found.values()), []
    for name, took in sorted(found.items(), key=lambda item: -item[1]):
        if left <= seconds or took < LEAST:
            break
        chosen.append(name)
        left -= took
    return sorted(chosen)


def main() -> None:
    """Read the command line, write the list."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("report", type=Path, help="of pytest --junitxml")
    p.add_argument("--seconds", type=float, default=130.0, help="on one core, for all that is left")
    args = p.parse_args()
    found = functions(args.report)
    chosen = dear(found, args.seconds)
    LIST.write_text("".join(f"{name}\n" for name in chosen), encoding="utf-8")
    left = sum(found.values()) - sum(found[name] for name in chosen)
    print(f"{len(chosen)} of {len(found)} functions are slow; the others take {left:.0f} s of {sum(found.values()):.0f} s")


if __name__ == "__main__":
    main()

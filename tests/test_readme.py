"""What README says is what the programs say."""

from pathlib import Path

import pytest
import readme

ROOT = Path(__file__).parents[1]


def test_picture_models_and_metrics_are_made_from_the_packaged_models():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.render(text) == text, "run: python benchmarks/readme.py"


def test_a_missing_marker_is_said():
    with pytest.raises(SystemExit, match="picture"):
        readme.render("# zoo")


def test_links_of_the_readme_exist():
    import re

    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert target.startswith("http") or (ROOT / target).exists(), target

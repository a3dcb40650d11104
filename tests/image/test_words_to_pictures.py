"""The sheet of captions by styles."""

from types import SimpleNamespace

import numpy as np
import pytest
import words_to_pictures as script
from PIL import Image

from zoo.errors import ConfigError

STYLES = ("flat", "blob", "outline")


class Fake:
    """Answers each caption and style with a grey of their own, and keeps what it was asked."""

    def __init__(self, conditions=("text", "style")):
        self.recipe = SimpleNamespace(conditions=conditions, classes=lambda name: STYLES if name in conditions else ())

    def sample(self, n, *, seed, text, style=None, **settings):
        self.asked = {"n": n, "seed": seed, "text": text, "style": style} | settings
        greys = [10 * (i + 1) for i in range(n)]
        return [SimpleNamespace(pil=lambda g=g: Image.new("RGB", (8, 8), (g, g, g))) for g in greys]


def test_rows_are_captions_and_columns_are_styles():
    model = Fake()
    rows = script.pictures_of(model, ["rocket", "red car"], STYLES, 3, steps=5)
    assert model.asked == {
        "n": 6, "seed": 3, "steps": 5, "text": ["rocket"] * 3 + ["red car"] * 3, "style": [*STYLES, *STYLES],
    }  # fmt: skip
    page = np.asarray(script.sheet(rows, STYLES, side=20))
    left = page.shape[1] - 3 * (20 + script.GAP)
    top = page.shape[0] - 2 * (20 + script.GAP)
    seen = [[int(page[top + r * 26 + 10, left + c * 26 + 10, 0]) for c in range(3)] for r in range(2)]
    assert seen == [[10, 20, 30], [40, 50, 60]]
    assert (page[top:, :left] < 128).any() and (page[:top, left:] < 128).any(), "captions on the left, styles above"


def test_the_script_writes_a_picture_with_the_models_own_styles(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script.zoo, "load", lambda name: Fake(), raising=False)
    script.main(["runs/mine", "--text", "rocket", "--text", "cat", "--out", str(tmp_path / "words.png"), "--side", "16"])
    assert Image.open(tmp_path / "words.png").size[1] == 18 + script.GAP + 2 * (16 + script.GAP)
    assert "2 captions in 3 styles" in capsys.readouterr().out
    monkeypatch.setattr(script.zoo, "load", lambda name: Fake(("label",)), raising=False)
    with pytest.raises(ConfigError, match="no condition 'text'"):
        script.main(["runs/mine", "--out", str(tmp_path / "none.png")])
    assert not (tmp_path / "none.png").exists()

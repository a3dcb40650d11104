"""The documentation as a site: what is laid, what the check of its pages finds, the README's film. `make docs` builds it."""

import base64
import json
import re
from pathlib import Path

import docs_site
import gallery
import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.contract.registry import CHECKPOINTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

HEAD = '<html><head><link rel="stylesheet" href="style.css"><script src="own.js"></script></head><body id="top">'


@pytest.fixture
def site(tmp_path):
    (tmp_path / "style.css").write_text("body { background: url(data:image/png;base64,AAAA) }")
    (tmp_path / "own.js").write_text("")
    (tmp_path / "other.html").write_text(HEAD + '<h2 id="here"></h2>')

    def page(body):
        (tmp_path / "index.html").write_text(HEAD + body)
        return docs_site.faults(tmp_path)

    return page


def test_a_page_that_stays_within_the_site_has_no_faults(site):
    assert site('<a href="other.html#here">x</a> <a href="#top">y</a> <a href="https://elsewhere.example/page">z</a>') == []


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<script src="//cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example/css?family=X">',
        '<link rel="preload" as="font" href="http://fonts.example/x.woff2">',
        '<img src="https://img.shields.example/badge.svg">',
        '<img srcset="https://img.example/badge.svg">',
        '<audio src="https://sounds.example/x.wav"></audio>',
        '<iframe src="https://video.example/x"></iframe>',
        '<object data="https://x.example/x.svg"></object>',
        '<div style="background: url(https://x.example/x.png)"></div>',
        "<style>@import 'https://fonts.example/x.css';</style>",
        '<style>@font-face { src: url("https://fonts.example/x.woff2") }</style>',
        '<a href="https://x.example/same.js">x</a><script src="https://x.example/same.js"></script>',
    ],
)
def test_what_another_host_is_asked_for_is_found(site, body):
    (fault,) = site(body)
    assert fault.startswith("index.html asks another host: ") and ".example" in fault


def test_a_style_that_asks_another_host_is_found(site, tmp_path):
    (tmp_path / "style.css").write_text("@import 'https://fonts.example/x.css'; body { src: url( //cdn.example/x.woff ) }")
    assert site("") == [
        "style.css asks another host: https://fonts.example/x.css",
        "style.css asks another host: //cdn.example/x.woff",
    ]


@pytest.mark.parametrize("body", ['<a href="gone.html">x</a>', '<img src="gone.png">', '<a href="other.html#gone">x</a>'])
def test_a_link_that_leads_nowhere_is_found(site, body):
    (fault,) = site(body)
    assert "gone" in fault and "lead" in fault


def test_a_model_and_a_room_have_a_page_each(tmp_path):
    docs_site.lay_models(tmp_path / "models")
    docs_site.lay_reference(tmp_path / "api")
    pages = {p.stem for p in (tmp_path / "models").glob("*.md")} - {"index"}
    assert pages == {name.replace("/", "-") for name in zoo.list_models()}
    card = (tmp_path / "models" / "image-fashion-ddpm.md").read_text(encoding="utf-8")
    assert card.lstrip().startswith("# image/fashion-ddpm") and "model-index" not in card
    for page in (tmp_path / "models").glob("*.md"):
        for target in re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', page.read_text(encoding="utf-8")):
            assert (page.parent / "".join(target)).exists(), (page.name, target)
    rooms = {p.parent.name for p in Path(zoo.__path__[0]).glob("*/__init__.py")}
    assert {p.stem for p in (tmp_path / "api").glob("*.md")} == rooms | {"index", "zoo", "ground"}
    assert ".. automodule:: zoo.core.samplers" in (tmp_path / "api" / "core.md").read_text(encoding="utf-8")


def test_every_page_has_its_place_in_the_contents():
    listed = set(re.findall(r"^([\w/]+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed >= {p.stem for p in DOCS.glob("*.md")} - {"index"}


def test_every_metric_of_a_packaged_model_is_explained():
    text = (DOCS / "numbers.md").read_text(encoding="utf-8")
    for path in CHECKPOINTS.glob("*/*/evaluation.json"):
        for metric in json.loads(path.read_text(encoding="utf-8"))["metrics"]:
            assert f"`{metric}`" in text, f"{metric} of {path.parent.name} is not in docs/numbers.md"


def test_the_code_of_the_gallery_is_code_and_samples_every_packaged_model():
    for part in gallery.PARTS:
        compile(part.code, part.title, "exec")
    loaded = set(re.findall(r'zoo\.load\("([^"]+)"\)', "\n".join(part.code for part in gallery.PARTS)))
    packaged = {n for n in zoo.list_models() if zoo.info(n).packaged and not zoo.info(n).first_stage}
    assert loaded == packaged


def test_what_was_drawn_fills_its_places_in_the_page(tmp_path, monkeypatch):
    def show(names, folder):
        return gallery.seen(f"{names['x']}.png", "a <b>")

    parts = [gallery.Part(f"Part {i}", "", f"x = {i}", show) for i in "12"]
    monkeypatch.setattr(gallery, "PARTS", parts)
    drawn, html = tmp_path / "drawn", tmp_path / "html"
    for folder in (drawn, html, tmp_path / "source"):
        folder.mkdir()
    gallery.draw(drawn)
    (drawn / "1.png").touch()
    gallery.lay(tmp_path / "source")
    text = (tmp_path / "source" / "gallery.md").read_text(encoding="utf-8")
    (html / "gallery.html").write_text(text, encoding="utf-8")
    gallery.fill(html / "gallery.html", drawn)
    filled = (html / "gallery.html").read_text(encoding="utf-8")
    assert filled.index("x = 1") < filled.index('_static/gallery/1.png" alt="a &lt;b&gt;"') < filled.index("x = 2")
    assert [p.name for p in (html / "_static" / "gallery").iterdir()] == ["1.png"]
    (html / "gallery.html").write_text("no place", encoding="utf-8")
    with pytest.raises(SystemExit, match="no place for what 'Part 1' made"):
        gallery.fill(html / "gallery.html", drawn)


def test_a_page_that_names_a_folder_of_this_machine_is_found(site):
    (fault,) = site(f"<p>{docs_site.ROOT}/zoo</p>")
    assert "names a folder of this machine" in fault


def test_a_turning_shape_holds_its_points():
    points = np.array([[1.0, 2, 3], [4, 6, 3], [-2, 0, 3]])
    canvas = gallery.turning(points, ["#fff", "#000"])
    data = np.frombuffer(base64.b64decode(re.search('data-points="([^"]+)"', canvas)[1]), "<i2").reshape(-1, 3)
    centred = points - points.mean(0)
    assert np.allclose(data / 32767, centred / np.linalg.norm(centred, axis=1).max(), atol=1e-4)
    assert json.loads(re.search("data-colours='([^']+)'", canvas)[1]) == ["#fff", "#000"]


@pytest.mark.skipif(not gallery.FILM.exists(), reason="docs/reverse.gif is not drawn: python benchmarks/gallery.py")
def test_the_film_shows_noise_that_becomes_something_and_is_small():
    assert gallery.FILM.stat().st_size < gallery.MOST
    with Image.open(gallery.FILM) as film:
        assert film.n_frames == gallery.STEPS
        frames = []
        for i in (0, film.n_frames - 1):
            film.seek(i)
            frames.append(np.asarray(film.convert("L"), np.float32))
    noise, picture = (np.abs(np.diff(f[20:, : gallery.PANEL])).mean() for f in frames)
    assert noise > 1.5 * picture

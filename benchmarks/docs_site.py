"""The documentation as a site: python benchmarks/docs_site.py [FOLDER]. `make docs` installs what it needs, and calls it.

FOLDER (docs/_build) then holds `source/`, which Sphinx reads, `gallery/` and `html/`. The sources are the pages of docs/ as
they are, the gallery (benchmarks/gallery.py), the examples, a page for each model (its card), and one for each room of the
package, whose texts are the docstrings. Every warning is an error. No page may ask another host for a script, a style, a font
or a picture, and no link within the site may lead nowhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from pkgutil import iter_modules
from urllib.parse import unquote, urlsplit

import gallery

import zoo
from zoo.contract.recipe import Recipe
from zoo.contract.registry import CHECKPOINTS, get_recipe
from zoo.hub.card import model_card, split

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: rooms of the package, in the order of their pages, with what they hold; a room that is not named here comes last
ROOMS = {
    "core": "Mathematics on tensors: schedules, predictions, guidance, steers, samplers, seeds.",
    "nets": "Backbones that two domains or more share.",
    "contract": "What a plug-in sees: domain, codec, dataset, samples, conditions, recipe, names.",
    "model": "Plan, sampling, golden outputs, folders in and out, loading, publishing.",
    "training": "Objectives, trainer, batches, averages, Muon.",
    "evaluation": "The frame, judges, distances.",
    "data": "Folders of files, tables of rows, archives, the cache.",
    "hub": "Addresses, the client, pushes, cards.",
}
#: what the first page shows of the film of the README, where it has been drawn
FILM = """![noise becomes samples of the packaged models, step by step](reverse.gif)

Noise becomes a sample step by step: what you see are the steps of the samplers."""
#: what of a model's folder its page shows
SHOWN = (".png", ".gif", ".wav")


def lay(source: Path) -> None:
    """Write all pages into an empty folder."""
    shutil.copytree(DOCS / "_static", source / "_static")
    for path in [*DOCS.glob("*.md"), *DOCS.glob("*.png"), *DOCS.glob("*.gif"), DOCS / "conf.py"]:
        shutil.copyfile(path, source / path.name)
    if gallery.FILM.exists():
        text = (source / "index.md").read_text(encoding="utf-8")
        (source / "index.md").write_text(text.replace("<!-- film -->", FILM), encoding="utf-8")
    lay_examples(source / "examples")
    lay_models(source / "models")
    lay_reference(source / "api")


def contents(title: str, text: str, pages: list[str]) -> str:
    """A page that leads to others."""
    return "\n".join([f"# {title}", "", text, "", "```{toctree}", ":maxdepth: 1", "", *pages, "```", ""])


def lay_examples(folder: Path) -> None:
    """A page for each notebook: its words, and its code as blocks."""
    import jupytext

    folder.mkdir()
    names = sorted(p.stem for p in (ROOT / "examples").glob("*.ipynb"))
    for name in names:
        cells = jupytext.read(ROOT / "examples" / f"{name}.py", fmt="py:percent").cells
        parts = [c.source if c.cell_type == "markdown" else f"```python\n{c.source}\n```" for c in cells]
        where = f"This is `examples/{name}.ipynb`, and `examples/{name}.py` beside it."
        (folder / f"{name}.md").write_text("\n\n".join([*parts, where, ""]), encoding="utf-8")
    text = (
        "Notebooks, each with a script of the same cells beside it: `jupyter lab examples/`. They run without data of your own."
    )
    (folder / "index.md").write_text(contents("Examples", text, names), encoding="utf-8")


def lay_models(folder: Path) -> None:
    """A page for each model: the card, without its metadata, and what of its folder the card shows."""
    folder.mkdir()
    pages = []
    for name in zoo.list_models():
        recipe, packaged = get_recipe(name), CHECKPOINTS / name
        pages.append(page := name.replace("/", "-"))
        if (card := packaged / "README.md").is_file():
            text = split(card.read_text(encoding="utf-8"))[1]
            files = [p for p in packaged.rglob("*") if p.suffix in SHOWN or p.name == "ATTRIBUTION.md"]
        else:
            text, files = untrained(recipe), []
        for path in files:
            (there := folder / page / path.relative_to(packaged)).parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".md":  # a page that its card leads to, in no contents
                there.write_text("---\norphan: true\n---\n\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
            else:
                shutil.copyfile(path, there)
        for path in files:  # the card stands beside its files, its page one folder above them
            beside = path.relative_to(packaged).as_posix()
            text = re.sub(rf"""(?<=[("]){re.escape(beside)}(?=[)"])""", f"{page}/{beside}", text)
        (folder / f"{page}.md").write_text(text, encoding="utf-8")
    text = "What each model is, how good it is beside its ceiling and floor, what it learnt from, and its licence."
    (folder / "index.md").write_text(contents("Models", text, pages), encoding="utf-8")


def untrained(recipe: Recipe) -> str:
    """The page of a model whose weights are not there."""
    text = split(model_card(recipe))[1]
    title, _, rest = text.lstrip().partition("\n")
    name = f"{recipe.domain}/{recipe.name}"
    note = f"Its weights are not packaged: `zoo train {name} --data DIR --out runs/mine` makes some from data of yours."
    return f"{title}\n\n{note}\n{rest}"


def lay_reference(folder: Path) -> None:
    """A page for each room of the package, and one for what `import zoo` gives."""
    folder.mkdir()
    top = [m for m in iter_modules(zoo.__path__) if not m.name.startswith("_")]
    rooms = sorted((m.name for m in top if m.ispkg and m.name != "checkpoints"), key=lambda n: ([*ROOMS, n].index(n), n))
    public = [name for name in zoo.__all__ if not name.startswith("_")]
    lines = ["# zoo", "", "```{eval-rst}", ".. currentmodule:: zoo", "", *directives(public), "```", ""]
    (folder / "zoo.md").write_text("\n".join(lines), encoding="utf-8")
    for room in rooms:
        modules = sorted(m.name for m in iter_modules([str(Path(zoo.__path__[0], room))]) if not m.name.startswith("_"))
        lines = [f"# {room}", "", ROOMS.get(room, ""), ""]
        for module in modules:
            lines += [f"## {room}.{module}", "", "```{eval-rst}", f".. automodule:: zoo.{room}.{module}", "```", ""]
        (folder / f"{room}.md").write_text("\n".join(lines), encoding="utf-8")
    lines = ["# The ground", "", "Modules that lie in `zoo/` itself.", ""]
    for module in (m.name for m in top if not m.ispkg):
        lines += [f"## {module}", "", "```{eval-rst}", f".. automodule:: zoo.{module}", "```", ""]
    (folder / "ground.md").write_text("\n".join(lines), encoding="utf-8")
    text = "Every public name by the room of the package that it lives in; `zoo` itself has what most programs need."
    (folder / "index.md").write_text(contents("Reference", text, ["zoo", *rooms, "ground"]), encoding="utf-8")


def directives(names: list[str]) -> Iterator[str]:
    """What autodoc is asked for public names of `zoo`; modules have their place in their room, and are only named."""
    for name in names:
        value = getattr(zoo, name)
        if isinstance(value, type):
            yield f".. autoclass:: {name}\n   :no-index:\n"
        elif callable(value):
            yield f".. autofunction:: {name}\n   :no-index:\n"
        else:
            yield f"``zoo.{name}`` is the module :mod:`{value.__name__}`.\n"


class Page(HTMLParser):
    """What a page asks for (`asked`), where it leads to (`links`), and the places in it (`ids`)."""

    LINKS = {"a": "href", "area": "href"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.in_style = tag == "style"
        found = {k: v or "" for k, v in attributes}
        self.ids |= {found[k] for k in ("id", "name") if k in found}
        for key in ("src", "href", "data", "poster", "srcset", "action"):
            if key in found and not found[key].startswith("data:"):
                (self.links if self.LINKS.get(tag) == key else self.asked).append(found[key])
        if "style" in found:
            self.asked += styled(found["style"])

    def handle_endtag(self, tag: str) -> None:
        self.in_style = False

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.asked += styled(data)


def styled(text: str) -> list[str]:
    """Addresses that a style asks for."""
    found = re.findall(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""", text)
    return [address.strip() for pair in found for address in pair if address and not address.startswith("data:")]


def faults(html: Path) -> list[str]:
    """What is wrong with a built site: pages that ask other hosts, links and files within it that are not there."""
    pages = {p: Page(p.read_text(encoding="utf-8")) for p in sorted(html.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for address in dict.fromkeys(page.asked + page.links):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:  # a link may lead elsewhere, nothing may be loaded from there
                if address in page.asked:
                    found.append(f"{path.relative_to(html)} asks another host: {address}")
                continue
            target, place = (path.parent / unquote(parts.path)).resolve() if parts.path else path, unquote(parts.fragment)
            if not target.exists():
                found.append(f"{path.relative_to(html)} leads nowhere: {address}")
            elif address in page.links and place and target in pages and place not in pages[target].ids:
                found.append(f"{path.relative_to(html)} leads to no such place: {address}")
        if str(ROOT) in path.read_text(encoding="utf-8"):
            found.append(f"{path.relative_to(html)} names a folder of this machine: {ROOT}")
    for style in sorted(html.rglob("*.css")):
        asked = styled(style.read_text(encoding="utf-8"))
        found += [f"{style.relative_to(html)} asks another host: {a}" for a in asked if urlsplit(a).netloc]
    return found


def stay_here() -> None:
    """No connection to another machine from here on: a build that needs one ends with an error."""
    os.environ |= {"HF_HUB_OFFLINE": "1"}

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.getaddrinfo", "socket.gethostbyname") or (
            event == "socket.connect" and isinstance(arguments[1], tuple)
        ):
            raise RuntimeError(f"the documentation is built without a network: {event}{arguments[:2]}")

    sys.addaudithook(watch)


@contextmanager
def drawing(folder: Path) -> Iterator[Callable[[], str | None]]:
    """Draw the gallery into a folder, in a process of its own beside Sphinx: each takes one of two cores.

    Yields:
        what waits for its end, and then says what went wrong.
    """
    folder.mkdir(parents=True)
    once = {"OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with subprocess.Popen([sys.executable, __file__, "--gallery", str(folder)], env=os.environ | once) as process:

        def ended() -> str | None:
            code = process.wait()
            print(f"gallery: {time.monotonic() - began:.0f} s", flush=True)
            return f"the gallery could not be drawn, see above: it ended with {code}" if code else None

        try:
            yield ended
        finally:
            process.kill()


def build(folder: Path) -> list[str]:
    """Lay the sources, build them, and say what is wrong."""
    from sphinx.cmd.build import build_main

    source, html, drawn = (folder / name for name in ("source", "html", "gallery"))
    for path in (source, html, drawn):
        shutil.rmtree(path, ignore_errors=True)
    source.mkdir(parents=True)
    with drawing(drawn) as ended:
        began = time.monotonic()
        lay(source)
        gallery.lay(source)
        how = ["--fail-on-warning", "--keep-going", "--fresh-env", "--quiet", "-d", str(folder / "doctrees")]
        if build_main([*how, str(source), str(html)]):
            return ["Sphinx gave warnings or errors, see above"]
        print(f"pages: {time.monotonic() - began:.0f} s", flush=True)
        if wrong := ended():
            return [wrong]
    gallery.fill(html / "gallery.html", drawn)
    for page in html.rglob("*.html"):  # a default or a value that is a path: where the package lies here is nobody's business
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(f"PosixPath('{ROOT}/", "Path('"), encoding="utf-8")
    for sound in (source / "models").rglob(
        "*.wav"
    ):  # players of cards are plain HTML, whose files Sphinx leaves where they are
        (there := html / sound.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sound, there)
    found = faults(html)
    if "inpaint" not in (html / "searchindex.js").read_text(encoding="utf-8"):
        found.append("the search does not know the word inpaint")
    return found


if __name__ == "__main__":
    stay_here()
    if sys.argv[1:2] == ["--gallery"]:
        gallery.draw(Path(sys.argv[2]))
        sys.exit()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else DOCS / "_build").resolve()
    began = time.monotonic()
    if wrong := build(folder):
        sys.exit("\n".join(wrong))
    print(f"{folder / 'html' / 'index.html'}: {time.monotonic() - began:.0f} s")

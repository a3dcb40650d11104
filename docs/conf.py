"""Sphinx's settings. `make docs` lays the sources (benchmarks/docs_site.py), builds them strictly, and checks the pages."""

import re

from docutils import nodes
from sphinx.domains.python import PythonDomain

import zoo

project = "zoo"
author = "the authors of zoo"
copyright = "the authors of zoo, Apache-2.0"
version = release = zoo.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
default_role = "code"
exclude_patterns = ["_static"]

myst_heading_anchors = 3

# Google's style of docstrings. Attributes are written as fields: autodoc finds some of them in the class as well, and two
# descriptions of one thing are a warning.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # an override without a text of its own is described where it comes from
# of each signature autodoc would read the source twice more: for types in comments, of which there are none, and for names of
# defaults, where their values say as much
autodoc_use_type_comments = False
autodoc_preserve_defaults = False
# the contents of a page are its headings: with each function and field among them, which furo copies of all pages for every
# page, this was what took longest
toc_object_entries = False
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "no-value": True, "show-inheritance": True}
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "zoo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("turn.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
# the system's fonts and scripts of this site only: a page asks no other host for anything
html_math_renderer = "none"


def as_rest(lines):
    """The lines of a docstring as reStructuredText. Ours are plain text: `code`, indented programs, stars and bars as signs."""
    blocks, program = [[]], False  # text and programs in turns
    for i, line in enumerate(lines):
        if program and line.strip() and not line.startswith(" "):
            program = False
            blocks.append([])
        elif not program and line.startswith("    ") and i > 1 and not lines[i - 1].strip():
            before = next((other for other in reversed(lines[:i]) if other.strip()), " ")
            if not before.startswith(" "):
                program = True
                blocks[-1] += ["::", ""]
                blocks.append([])
        blocks[-1].append(line)
    for text in blocks[::2]:
        parts = re.split(r"(``.+?``|`[^`]+`)", "\n".join(text), flags=re.DOTALL)
        parts[::2] = [re.sub(r"(?m)(?<!\\)[*|](?!(?<=^\*) )", r"\\\g<0>", part) for part in parts[::2]]
        text[:] = "".join(parts).split("\n") if text else []
    return [line for block in blocks for line in block]


def one_by_one(lines):
    """A docstring whose "a, b: text" below "Attributes:" is an entry for each name, as napoleon reads arguments: of attributes
    it would take the first name for the type of the last, and link it to whatever has that name.
    """
    out, names, entry, inside = [], [], [], False
    for line in [*lines, ""]:
        if names and not line.startswith("     "):
            out += [text for name in names for text in (f"    {name}: {entry[0]}", *entry[1:])]
            names = []
        inside = line == "Attributes:" or (inside and (not line or line.startswith(" ")))
        found = re.match(r"    (\w+(?:, \w+)+): (.*)", line) if inside else None
        if found:
            names, entry = found[1].split(", "), [found[2]]
        elif names:
            entry.append(line)
        else:
            out.append(line)
    return out[:-1]


class Names(PythonDomain):
    """Python's names, which Sphinx looks for in all that there are for each name of a type. Most are of other packages: what no
    name ends with is not looked for.
    """

    ends, counted = frozenset(), 0

    def find_obj(self, env, modname, classname, name, type, searchmode=0):
        if self.counted != len(self.objects):
            self.ends, self.counted = frozenset(n.rpartition(".")[2] for n in self.objects), len(self.objects)
        known = name.removesuffix("()").rpartition(".")[2] in self.ends
        return super().find_obj(env, modname, classname, name, type, searchmode) if known else []


def setup(app):
    """Docstrings are plain text; formulas stay as they are written: scripts that draw them would come from another host."""

    def docstring(app, what, name, thing, options, lines):
        lines[:] = as_rest(one_by_one(lines))

    def plain(translator, node):
        translator.body.append(translator.starttag(node, "code") + translator.encode(node.astext()) + "</code>")
        raise nodes.SkipNode

    app.add_domain(Names, override=True)
    app.connect("autodoc-process-docstring", docstring, priority=400)  # before napoleon reads the sections
    app.add_html_math_renderer("none", inline_renderers=(plain, None), block_renderers=(plain, None))

"""The rules of the house (docs: CONTRIBUTING.md): who may import whom, what is banned, how fast it starts.

Who imports whom is read by import-linter and grimp, what is banned by ruff: the rules are in pyproject.toml. Each is tried
on the real tree, where it must find nothing, and on a small wrong tree, where it must find the fault: a rule that cannot
fail guards nothing.
"""

import contextlib
import graphlib
import io
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
import pytest_socket
from importlinter import api as importlinter
from importlinter.application import use_cases

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
PROJECT = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
FLOORS = importlinter.read_configuration(str(PYPROJECT))["contracts_options"][0]["layers"]

# ---- who imports whom --------------------------------------------------------------------------------------


@contextlib.contextmanager
def seen_from(root: Path) -> Iterator[None]:
    """Let the parsers find root/zoo, and not the zoo that this process runs. Nothing of it is imported."""
    loaded, path = sys.modules.pop("zoo", None), list(sys.path)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path[:] = path
        if loaded is not None:
            sys.modules["zoo"] = loaded


def graph(root: Path) -> grimp.ImportGraph:
    """Every import of root/zoo: at the top of a file, in a function, for types only."""
    with seen_from(root):
        return grimp.build_graph("zoo", cache_dir=None)


def floor_rules(root: Path) -> list[str]:
    """What import-linter says against the contracts of pyproject.toml, the same as the command `lint-imports`."""
    said = io.StringIO()
    with seen_from(root), contextlib.redirect_stdout(said):
        kept = use_cases.lint_imports(str(PYPROJECT), cache_dir=None, is_debug_mode=True)
    return [] if kept else [said.getvalue().partition("Broken contracts")[2] or said.getvalue()]


def circle_rules(root: Path) -> list[str]:
    """No circle of files. import-linter's own contract compares folders, and sees none of a package and its own files."""
    imports = graph(root)
    try:
        graphlib.TopologicalSorter({m: imports.find_modules_directly_imported_by(m) for m in imports.modules}).prepare()
    except graphlib.CycleError as error:
        return ["a circle of imports: " + " -> ".join(reversed(error.args[1]))]
    return []


def hidden_rules(root: Path) -> list[str]:
    """No import that the parsers cannot follow: by a string, or through the lazy names of zoo/__init__.py."""
    imports, found = graph(root), []
    banned = PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    dynamic = re.compile(rf"""\b(?:import_module|__import__|need)\(\s*[rf]*["']({"|".join(["zoo", *banned])})\b""")
    for file in files(root):
        found += [f"{file}: imports {m[1]} by a string: use an import statement" for m in dynamic.finditer(text(root, file))]
    top_floor = {f"zoo.{name}" for name in names(FLOORS[0])}
    for importer in sorted(imports.find_modules_that_directly_import("zoo") - top_floor):
        for line in imports.get_import_details(importer=importer, imported="zoo"):
            if line["line_contents"] != "from zoo import __version__":
                found.append(f"{importer}, line {line['line_number']}: import the module that holds the name, not zoo itself")
    return found


def names(floor: str) -> list[str]:
    """The names of a floor of pyproject.toml."""
    return re.findall(r"\w+", floor)


def files(root: Path) -> list[str]:
    """The modules of root/zoo as paths below root."""
    return [path.relative_to(root).as_posix() for path in sorted((root / "zoo").rglob("*.py"))]


def text(root: Path, file: str) -> str:
    """The text of a file."""
    return (root / file).read_text(encoding="utf-8")


# ---- what else a tree may not have -------------------------------------------------------------------------


def array_rules(root: Path) -> list[str]:
    """No array of numpy that is a pickle. ruff has no rule for an argument, so any other word after its name is refused."""
    wrong = re.compile(r"allow_pickle(?!\s*=\s*False\b)")
    return [f"{file}: allow_pickle: an array file may hold a pickle" for file in files(root) if wrong.search(text(root, file))]


def root_rules(root: Path) -> list[str]:
    """at most 10 modules outside the rooms."""
    modules = sorted(path.name for path in (root / "zoo").glob("*.py"))
    return [f"zoo/ holds {len(modules)} modules, at most 10: {', '.join(modules)}"] if len(modules) > 10 else []


def long_files(root: Path) -> list[str]:
    """A hint, not a rule: a long file may hold two things."""
    lengths = {file: len(text(root, file).splitlines()) for file in files(root)}
    return [f"{file}: {n} lines. Does it hold two things?" for file, n in lengths.items() if n >= 400]


RULES = [floor_rules, circle_rules, hidden_rules, array_rules, root_rules]


@pytest.mark.parametrize("rule", RULES)
def test_the_tree_keeps_the_rule(rule):
    found = rule(ROOT)
    assert not found, "\n".join(found)


def test_a_long_file_is_named_and_nothing_more(tmp_path):
    put(tmp_path, "zoo/a.py", "x = 1\n" * 399)
    put(tmp_path, "zoo/b.py", "x = 1\n" * 400)
    assert long_files(tmp_path) == ["zoo/b.py: 400 lines. Does it hold two things?"]
    for hint in long_files(ROOT):
        warnings.warn(hint, stacklevel=1)


def test_the_rules_read_the_real_tree():
    read = graph(ROOT).modules
    assert read == {file.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for file in files(ROOT)}
    assert {"zoo", "zoo.cli", "zoo.core.schedule", "zoo.nets.unet", "zoo.image.codec"} <= read


def test_every_domain_of_the_entry_points_is_on_the_floor_of_the_domains():
    points = PROJECT["project"]["entry-points"]["zoo.domains"].values()
    (floor,) = [f for f in FLOORS if "image" in names(f)]
    assert sorted(names(floor)) == sorted(p.split(":")[0].removeprefix("zoo.") for p in points)
    assert ":" not in floor, "domains divided by a colon may import each other"


WRONG = [
    (floor_rules, "zoo/core/a.py", "from zoo.nets.unet import UNet", "zoo.core is not allowed to import zoo.nets"),
    (floor_rules, "zoo/core/a.py", "def f():\n    from ..image import codec", "zoo.core is not allowed to import zoo.image"),
    (floor_rules, "zoo/nets/a.py", "from zoo.core.schedule import Level", "zoo.nets is not allowed to import zoo.core"),
    (floor_rules, "zoo/nets/a.py", "from .. import contract", "zoo.nets is not allowed to import zoo.contract"),
    (floor_rules, "zoo/errors.py", "from zoo.core import schedule", "zoo.errors is not allowed to import zoo.core"),
    (floor_rules, "zoo/contract/a.py", "from zoo.hub import card", "zoo.contract is not allowed to import zoo.hub"),
    (floor_rules, "zoo/hub/a.py", "import zoo.data.table", "zoo.hub is not allowed to import zoo.data"),
    (floor_rules, "zoo/data/a.py", "from zoo.model.model import Model", "zoo.data is not allowed to import zoo.model"),
    (
        floor_rules,
        "zoo/model/a.py",
        "def f():\n    from zoo.training import log",
        "zoo.model is not allowed to import zoo.training",
    ),
    (
        floor_rules,
        "zoo/training/a.py",
        "from zoo.evaluation import judge",
        "zoo.training is not allowed to import zoo.evaluation",
    ),
    (
        floor_rules,
        "zoo/evaluation/a.py",
        "from zoo.training import log",
        "zoo.evaluation is not allowed to import zoo.training",
    ),
    (
        floor_rules,
        "zoo/interop/__init__.py",
        "from zoo.training import log",
        "zoo.interop is not allowed to import zoo.training",
    ),
    (floor_rules, "zoo/evaluation/a.py", "from zoo.image import codec", "zoo.evaluation is not allowed to import zoo.image"),
    (floor_rules, "zoo/image/a.py", "import zoo.audio.codec", "zoo.image is not allowed to import zoo.audio"),
    (floor_rules, "zoo/image/a.py", "from ..audio.codec import x", "zoo.image is not allowed to import zoo.audio"),
    (floor_rules, "zoo/image/__init__.py", "from ..audio import x", "zoo.image is not allowed to import zoo.audio"),
    (floor_rules, "zoo/image/a.py", "from zoo import audio", "zoo.image is not allowed to import zoo.audio"),
    (floor_rules, "zoo/image/a.py", "from zoo.cli import main", "zoo.image is not allowed to import zoo.cli"),
    (
        floor_rules,
        "zoo/model/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from zoo.image.codec import x",
        "zoo.model is not allowed to import zoo.image",
    ),
    (floor_rules, "zoo/weather/__init__.py", "", "not listed as layers: - zoo.weather"),
    (floor_rules, "zoo/seeds.py", "", "not listed as layers: - zoo.seeds"),
    (floor_rules, "zoo/core/a.py", "from pathlib import Path", "zoo.core is not allowed to import pathlib"),
    (floor_rules, "zoo/core/a.py", "def f():\n    import urllib.request", "zoo.core is not allowed to import urllib"),
    (floor_rules, "zoo/core/a.py", "from zoo import files", "zoo.core is not allowed to import zoo.files"),
    (floor_rules, "zoo/errors.py", "import os", "zoo.core is not allowed to import os"),
    (floor_rules, "zoo/files.py", "from huggingface_hub import HfApi", "zoo is not allowed to import huggingface_hub"),
    (floor_rules, "zoo/image/a.py", "import huggingface_hub.utils", "zoo is not allowed to import huggingface_hub"),
    (circle_rules, "zoo/core/seeds.py", "from zoo.core import schedule", "zoo.core.schedule -> zoo.core.seeds"),
    (circle_rules, "zoo/core/seeds.py", "def f():\n    from .schedule import x", "zoo.core.schedule -> zoo.core.seeds"),
    (
        circle_rules,
        "zoo/core/seeds.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from zoo.core import guidance",
        "zoo.core.guidance -> zoo.core.schedule",
    ),
    (circle_rules, "zoo/core/__init__.py", "from zoo.core import guidance", "zoo.core -> zoo.core.guidance"),
    (hidden_rules, "zoo/image/a.py", "import importlib\nimportlib.import_module('zoo.audio')", "imports zoo by a string"),
    (hidden_rules, "zoo/a.py", "from zoo import extras\nextras.need('joblib', 'all')", "imports joblib by a string"),
    (hidden_rules, "zoo/a.py", "__import__(\n    'pickle'\n)", "imports pickle by a string"),
    (hidden_rules, "zoo/model/a.py", "import zoo\nzoo.load('x')", "zoo.model.a, line 1: import the module that holds"),
    (hidden_rules, "zoo/model/a.py", "def f():\n    from zoo import load", "zoo.model.a, line 2: import the module that holds"),
    (hidden_rules, "zoo/hub/a.py", "from .. import load", "zoo.hub.a, line 1: import the module that holds"),
    (array_rules, "zoo/a.py", "import numpy as np\nnp.load('a', allow_pickle=True)", "zoo/a.py: allow_pickle"),
    (array_rules, "zoo/a.py", "import numpy as np\nnp.load('a', **{'allow_pickle': 1})", "zoo/a.py: allow_pickle"),
    (root_rules, "zoo/a.py", "", "zoo/ holds 11 modules, at most 10: __init__.py, a.py, b0.py"),
]
RIGHT = [
    ("zoo/core/a.py", "import math\nimport torch\nfrom zoo.errors import ConfigError\nfrom .schedule import Level"),
    ("zoo/core/corelike.py", "from zoo.core import schedule"),
    ("zoo/nets/a.py", "from zoo.nets.blocks import x\nfrom zoo import errors"),
    ("zoo/image/a.py", "from zoo.core import seeds\nfrom zoo.nets import unet\nfrom zoo import contract\nfrom . import codec"),
    ("zoo/evaluation/a.py", "from zoo.model.model import Model\nfrom zoo.hub import card"),
    ("zoo/hub/a.py", "import huggingface_hub\nfrom zoo import __version__\nimport os"),
    ("zoo/testing.py", "import zoo\nfrom zoo.image import codec\nzoo.load('x')"),
    ("zoo/values.py", "import numpy"),
    ("zoo/interop/__init__.py", "from zoo.model.model import Model"),
    ("zoo/data/a.py", "import numpy as np\nnp.load('a', allow_pickle=False)\n" + "x = 1\n" * 400),
    ("zoo/contract/a.py", "from importlib import import_module\nname = f'zoo.{1}'\nimport_module(name)"),
]


def small_tree(root: Path, file: str, content: str) -> Path:
    """A tree that has every room and keeps every rule, plus one file."""
    for floor in FLOORS:
        for name in re.findall(r"(?<!\()\b\w+", floor):
            put(root, f"zoo/{name}.py" if (ROOT / f"zoo/{name}.py").exists() else f"zoo/{name}/__init__.py", "")
    # the parsers leave out an import of what does not exist
    for name in ("__init__", "core/seeds", "nets/unet", "model/model", "image/codec", "audio/codec"):
        put(root, f"zoo/{name}.py", "")
    put(root, "zoo/core/schedule.py", "from zoo.errors import x\ndef f():\n    from zoo.core.seeds import x")
    put(root, "zoo/core/guidance.py", "from zoo.core import schedule, x")
    # what the contracts let through
    put(root, "zoo/hub/client.py", "import huggingface_hub")
    put(root, "zoo/image/train.py", "from zoo.training.command import main")
    put(root, file, content)
    return root


def put(root: Path, file: str, content: str) -> None:
    """Write a file and the folders above it."""
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(("rule", "file", "content", "complaint"), WRONG)
def test_a_wrong_tree_is_found(rule, file, content, complaint, tmp_path):
    tree = small_tree(tmp_path, file, content)
    if rule is root_rules:
        for i in range(10 - len(list(tree.glob("zoo/*.py"))) + 1):
            put(tree, f"zoo/b{i}.py", "")
    (found,) = rule(tree)
    assert complaint in " ".join(found.split())


@pytest.mark.parametrize(("file", "content"), RIGHT)
def test_a_right_tree_is_left_alone(file, content, tmp_path):
    tree = small_tree(tmp_path, file, content)
    assert [found for rule in RULES for found in rule(tree)] == []


# ---- what ruff bans ----------------------------------------------------------------------------------------

BANS = "S101,S301,TID251,PTH123,INP001"


def ruff(*arguments: str, given: str | None = None) -> str:
    """What ruff says, a line a complaint, by the settings of pyproject.toml."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--quiet", "--output-format", "concise", *arguments]
    run = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stderr
    return run.stdout


def test_the_package_keeps_the_bans_and_no_comment_lifts_them():
    assert ruff("--select", BANS, "--ignore-noqa", "zoo") == ""


BANNED = [
    ("def f(x):\n    assert x > 0", "2:5: S101"),
    ("import pickle", "TID251 `pickle` is banned"),
    ("def f():\n    from pickle import loads", "TID251 `pickle` is banned"),
    ("import pickle\npickle.loads(b'')", "2:1: S301"),
    ("import pandas\npandas.read_pickle('a')", "2:1: S301"),
    *((f"import {m}", f"TID251 `{m}` is banned") for m in ("cloudpickle", "dill", "joblib", "marshal", "shelve")),
    ("import torch\nx = torch.load('a')", "TID251 `torch.load` is banned"),
    ("import torch\nf = torch.save", "TID251 `torch.save` is banned"),
    ("from torch import load", "TID251 `torch.load` is banned"),
    ("from torch.serialization import save", "TID251 `torch.serialization"),
    ("open('a')", "1:1: PTH123"),
    ("", "INP001"),  # zoo/room has no __init__.py
]


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """What ruff says of a tree that breaks each ban in the package and beside it, a text a file."""
    tree = tmp_path_factory.mktemp("tree")
    put(tree, "pyproject.toml", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for i, (content, _) in enumerate(BANNED):
        for place in ("zoo", "tests", "benchmarks", "examples"):
            put(tree, f"{place}/room{i}/a.py", content)
    found = {}
    for line in ruff(str(tree)).splitlines():  # by the pyproject.toml that is nearest
        path, rest = line.split(":", 1)
        name = Path(path).relative_to(tree).as_posix()
        found[name] = found.get(name, "") + rest + "\n"
    return found


@pytest.mark.parametrize(("row", "complaint"), list(enumerate(complaint for _, complaint in BANNED)))
def test_a_ban_is_seen_in_the_package_only(row, complaint, complaints):
    assert complaint in complaints[f"zoo/room{row}/a.py"]
    code = re.search(r"[A-Z]+\d+", complaint)[0]
    for elsewhere in ("tests", "benchmarks", "examples"):
        assert code not in complaints.get(f"{elsewhere}/room{row}/a.py", "")


def test_a_right_file_is_not_banned():
    right = '"""pickle, torch.load and assert in a text."""\n\nfrom safetensors.torch import load, save\n\nx = [load, save]\n'
    assert ruff("--stdin-filename", "zoo/core/a.py", "-", given=right) == ""


# ---- what starts, and how fast -----------------------------------------------------------------------------


def python(*arguments: str, path: Path = ROOT) -> str:
    """Run this Python on the tree at `path`, and return what it printed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(path)}
    run = subprocess.run([sys.executable, *arguments], env=environment, cwd=path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def seconds(limit: float, *arguments: str, path: Path = ROOT, runs: int = 5) -> float:
    """The fastest of up to `runs` runs, after one that fills the caches; stops at the first below the limit."""
    python(*arguments, path=path)
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        python(*arguments, path=path)
        best = min(best, time.perf_counter() - start)
        if best < limit:
            break
    return best


def import_seconds(limit: float, path: Path = ROOT) -> float:
    """What `import zoo` costs above an interpreter that imports nothing."""
    bare = seconds(0, "-c", "pass", path=path)  # 0: all runs, the least
    return seconds(limit + bare, "-c", "import zoo", path=path) - bare


HEAVY = "import sys; print(*sorted({'torch', 'numpy', 'pydantic', 'PIL', 'huggingface_hub'} & set(sys.modules)))"


def heavy(code: str, path: Path = ROOT) -> list[str]:
    """The large packages that are loaded after running `code`."""
    return python("-c", f"{code}\n{HEAVY}", path=path).splitlines()[-1].split()


def test_import_zoo_loads_nothing_large_and_is_quick():
    assert heavy("import zoo") == []
    assert import_seconds(0.15) < 0.15


@pytest.mark.parametrize("command", ["--help", "list", "info image/fashion-ddpm"])
def test_the_command_starts_without_torch_and_the_hubs_client(command):
    code = f"import zoo.cli\ntry:\n    zoo.cli.main({command.split()!r})\nexcept SystemExit:\n    pass"
    assert not {"torch", "PIL", "huggingface_hub"} & set(heavy(code))


@pytest.mark.parametrize("command", ["--help", "list"])
def test_the_command_starts_quickly(command):
    assert seconds(0.7, "-m", "zoo.cli", command) < 0.7


def test_a_slow_or_heavy_import_is_found(tmp_path):
    put(tmp_path, "torch.py", "")
    put(tmp_path, "zoo/__init__.py", "import time\nimport torch\ntime.sleep(0.2)")
    assert heavy("import zoo", tmp_path) == ["torch"]
    assert import_seconds(0.15, tmp_path) >= 0.15


# ---- what the README says ----------------------------------------------------------------------------------


def promised(text: str) -> list[list[str]]:
    """The arguments of each `zoo ...` command line of a text."""
    found = re.findall(r"`zoo ([^`]+)`", text) + re.findall(r"^ +zoo ([^|#\n]+)", text, re.MULTILINE)
    return [shlex.split(line) for line in found]


def unknown(commands: list[list[str]]) -> list[str]:
    """The command lines that the parser refuses."""
    from zoo.cli import parser
    from zoo.contract.registry import get_recipe

    found = []
    for arguments in commands:
        try:
            args, rest = parser().parse_known_args(arguments)
        except SystemExit as leave:
            if leave.code:
                found.append(" ".join(arguments))
            continue
        # what the parser leaves are conditions, of which the model of the line has to know
        conditions = get_recipe(args.name).conditions if rest else {}
        if not all(flag.removeprefix("--") in conditions for flag in rest[::2]):
            found.append(" ".join(arguments))
    return found


def test_every_command_of_the_readme_parses():
    commands = promised((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {"list", "info", "sample", "train", "eval", "verify", "pull", "push", "publish"} <= {c[0] for c in commands}
    assert unknown(commands) == []
    assert unknown(promised("`zoo list` and `zoo dance --fast`")) == ["dance --fast"]
    odd = "`zoo sample image/fashion-ddpm --mood glad`"
    assert unknown(promised(odd)) == ["sample image/fashion-ddpm --mood glad"]


# ---- the guard of conftest.py ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:A test tried")  # pytest-socket's errors warn as well
def test_the_network_guard_lets_nothing_out(network_guard, monkeypatch, pytestconfig):
    guard = type(network_guard)()
    # so that nothing leaves if the guard fails; the guard that is there comes back after the test
    monkeypatch.setattr(pytest_socket, "_true_connect", lambda *_: "let through")
    for owner, name in guard.originals:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    guard.originals = dict.fromkeys(guard.originals, lambda *_, **__: "let through")
    guard.install()

    for here in ("127.0.0.1", "127.0.1.1", "localhost", "::1"):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            for reach in (tcp.connect, tcp.connect_ex, lambda to, udp=udp: udp.sendto(b"", to)):
                assert reach((here, 9)) == "let through"
        assert socket.getaddrinfo(here, 9) == socket.gethostbyname(here) == "let through"
    with socket.socket(socket.AF_UNIX) as unix:
        assert unix.connect("/a") == unix.connect_ex("/a") == "let through"

    away = ("192.0.2.1", 80)
    ways_out = [
        lambda: tcp.connect(away),  # it closes the socket
        lambda: tcp.connect_ex(away),
        lambda: udp.sendto(b"", away),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: socket.gethostbyname("example.org"),
        lambda: socket.gethostbyname_ex("example.org"),
    ]
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        for way_out in ways_out:
            with pytest.raises(RuntimeError, match="A test tried to"):
                way_out()
    assert guard.stopped == ["192.0.2.1"] * 3 + ["example.org"] * 3
    with pytest.raises(pytest.fail.Exception, match=r"tried to reach 192\.0\.2\.1, .*example\.org"):
        guard.settle()
    guard.settle()  # said once

    assert network_guard.stopped == []
    assert not pytestconfig.pluginmanager.hasplugin("socket"), "it would take the guard away after each test"


@pytest.mark.filterwarnings("ignore:A test tried")
@pytest.mark.parametrize("again", [1, 2])  # the end of a test leaves the guard where it is
def test_the_network_guard_is_on(network_guard, again, monkeypatch):
    monkeypatch.setattr(pytest_socket, "_true_connect", lambda *_: pytest.fail("let through"))
    with socket.socket() as tcp, pytest.raises(pytest_socket.SocketConnectBlockedError):
        tcp.connect(("192.0.2.1", 80))
    assert network_guard.stopped == ["192.0.2.1"]
    network_guard.stopped.clear()

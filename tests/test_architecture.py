"""The rules of the folders (docs: CONTRIBUTING.md): who may import whom, sizes, what is banned, how fast it starts.

Every rule is a function from a source tree to a list of complaints. Each is tried on the real tree, where it must find
nothing, and on a small wrong tree, where it must find the fault: a rule that cannot fail guards nothing.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = {"core", "nets", "checkpoints"}
FILE_ACCESS = {"csv", "fileinput", "glob", "h5py", "io", "json", "os", "pathlib", "PIL", "safetensors", "shutil", "tempfile"}
NETWORK = {"ftplib", "http", "httpx", "huggingface_hub", "requests", "socket", "urllib"}
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}

# ---- reading a tree ----------------------------------------------------------------------------------------


def modules(root: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """(dotted name, file, syntax tree) of each module of root/zoo."""
    for path in sorted((root / "zoo").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path, ast.parse(path.read_text(encoding="utf-8"))


def imports(name: str, path: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of each import: at the top, in a function, relative, or import_module("...")."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{a.name}") for a in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if isinstance(first, ast.JoinedStr) and first.values:  # f"torchmetrics.{x}": what is known of it
                first = first.values[0]
            if function in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def within(name: str, *packages: str) -> bool:
    """True if the dotted name is one of the packages or lies in one."""
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def domains(root: Path) -> set[str]:
    """The folders of zoo/ that are plug-ins: all that nobody else owns."""
    return {p.parent.name for p in (root / "zoo").glob("*/__init__.py")} - SHARED


def lines(path: Path) -> int:
    """The number of lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


# ---- the rules ---------------------------------------------------------------------------------------------


def import_rules(root: Path) -> list[str]:
    """Core, nets and the shared modules know no domain; domains do not know each other; one file knows the Hub."""
    plugins, found = {f"zoo.{d}" for d in domains(root)}, []
    for name, path, tree in modules(root):
        own = ".".join(name.split(".")[:2])
        for line, target in imports(name, path, tree):
            top = target.partition(".")[0]
            if top == "zoo" and own == "zoo.core" and not within(target, "zoo.core", "zoo.errors"):
                why = "core imports only core and errors"
            elif top in FILE_ACCESS | NETWORK and own == "zoo.core":
                why = "core touches no files and no network"
            elif top == "zoo" and own == "zoo.nets" and not within(target, "zoo.nets", "zoo.errors"):
                why = "nets import only nets and errors"
            elif within(target, *(plugins - {own})):
                why = "domains never import each other" if own in plugins else "shared modules know no domain"
            elif top == "huggingface_hub" and name != "zoo.hub.client":
                why = "only zoo/hub/client.py imports huggingface_hub"
            else:
                continue
            found.append(f"{path.relative_to(root)}:{line}: imports {target}: {why}")
    return found


def ban_rules(root: Path) -> list[str]:
    """No pickle in any form, no assert (python -O drops it), no files opened in core."""
    found = []
    for name, path, tree in modules(root):
        bad = [(n, f"imports {t}: no pickle") for n, t in imports(name, path, tree) if t.partition(".")[0] in PICKLES]
        bad += [(n, f"imports {t}: pickle") for n, t in imports(name, path, tree) if t in ("torch.load", "torch.save")]
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if text in ("torch.load", "torch.save"):
                bad.append((node.lineno, f"{text}: pickle; use zoo.files"))
            elif isinstance(node, ast.Assert):
                bad.append((node.lineno, "assert: raise an error of zoo.errors"))
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    bad.append((node.value.lineno, "allow_pickle: pickle"))
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "open" and within(name, "zoo.core"):
                bad.append((node.lineno, "open(): core touches no files"))
        found += [f"{path.relative_to(root)}:{line}: {why}" for line, why in bad]
    return found


def size_rules(root: Path) -> list[str]:
    """A file below 400 lines, core and nets below 2,500, a domain below 1,200."""
    sizes = {path: lines(path) for _, path, _ in modules(root)}
    found = [f"{p.relative_to(root)}: {n} lines, the limit is 399" for p, n in sizes.items() if n >= 400]
    budgets = [(("core", "nets"), 2500), *(((d,), 1200) for d in sorted(domains(root)))]
    for folders, budget in budgets:
        total = sum(n for p, n in sizes.items() if p.relative_to(root / "zoo").parts[0] in folders)
        if total >= budget:
            found.append(f"zoo/{' and zoo/'.join(folders)}: {total} lines, the budget is {budget - 1}")
    return found


@pytest.mark.parametrize("rule", [import_rules, ban_rules, size_rules])
def test_the_tree_keeps_the_rule(rule):
    assert rule(ROOT) == []


def test_the_rules_read_the_real_tree():
    names = {name for name, _, _ in modules(ROOT)}
    assert {"zoo", "zoo.cli", "zoo.core.schedule", "zoo.nets.unet", "zoo.image.codec"} <= names
    assert "image" in domains(ROOT) and not SHARED & domains(ROOT)


WRONG = [
    (import_rules, "zoo/core/a.py", "from zoo.nets.unet import UNet", "core imports only"),
    (import_rules, "zoo/core/a.py", "def f():\n    from ..image import codec", "core imports only"),
    (import_rules, "zoo/core/a.py", "from zoo import store", "core imports only"),
    (import_rules, "zoo/core/a.py", "from pathlib import Path", "no files"),
    (import_rules, "zoo/core/a.py", "import urllib.request", "no network"),
    (import_rules, "zoo/nets/a.py", "from zoo.core.schedule import Level", "nets import only"),
    (import_rules, "zoo/nets/a.py", "from .. import domain", "nets import only"),
    (import_rules, "zoo/image/a.py", "import zoo.audio.codec", "never import each other"),
    (import_rules, "zoo/image/a.py", "from ..audio.codec import x", "never import each other"),
    (import_rules, "zoo/image/__init__.py", "from ..audio import x", "never import each other"),
    (import_rules, "zoo/image/a.py", "from zoo import audio", "never import each other"),
    (import_rules, "zoo/image/a.py", "import importlib\nimportlib.import_module('zoo.audio')", "never import each other"),
    (import_rules, "zoo/model/model.py", "def f():\n    from zoo.image.codec import x", "know no domain"),
    (import_rules, "zoo/files.py", "from huggingface_hub import HfApi", "only zoo/hub/client.py"),
    (import_rules, "zoo/files.py", "import huggingface_hub.utils", "only zoo/hub/client.py"),
    (ban_rules, "zoo/a.py", "import pickle", "pickle"),
    (ban_rules, "zoo/image/a.py", "def f():\n    from pickle import loads", "pickle"),
    (ban_rules, "zoo/a.py", "import torch\nx = torch.load('a')", "torch.load"),
    (ban_rules, "zoo/a.py", "import torch\nf = torch.save", "torch.save"),
    (ban_rules, "zoo/a.py", "from torch import load", "pickle"),
    (ban_rules, "zoo/a.py", "import numpy as np\nnp.load('a', allow_pickle=True)", "allow_pickle"),
    (ban_rules, "zoo/a.py", "def f(x):\n    assert x > 0", "assert"),
    (ban_rules, "zoo/core/a.py", "def f():\n    return open('a')", "open()"),
    (size_rules, "zoo/a.py", "x = 1\n" * 400, "400 lines"),
    (size_rules, "zoo/core/a.py", "x = 1\n" * 300, "core and zoo/nets: 2500 lines"),
    (size_rules, "zoo/image/a.py", "x = 1\n" * 200, "zoo/image: 1200 lines"),
]
RIGHT = [
    ("zoo/core/a.py", "import math\nimport torch\nfrom zoo.errors import ConfigError\nfrom .schedule import Level"),
    ("zoo/core/corelike.py", "from zoo.core import schedule"),
    ("zoo/nets/a.py", "from zoo.nets.blocks import x\nfrom zoo import errors"),
    ("zoo/image/a.py", "from zoo.core import rng\nfrom zoo.nets import unet\nfrom zoo import domain\nfrom . import codec"),
    ("zoo/hub/client.py", "import huggingface_hub"),
    ("zoo/a.py", "'''pickle, torch.load and assert in a text'''\nimport numpy as np\nnp.load('a', allow_pickle=False)"),
    ("zoo/a.py", "x = 1\n" * 399),
    ("zoo/imagery.py", "from zoo.errors import x"),
]


def small_tree(root: Path, file: str, text: str) -> Path:
    """A tree that keeps every rule and lies just below each budget, plus one file."""
    filler = {"zoo/core/f": (6, 366), "zoo/nets/f": (1, 4), "zoo/image/f": (5, 200)}
    for stem, (count, size) in filler.items():
        for i in range(count):
            put(root, f"{stem}{i}.py", "x = 1\n" * size)
    for package in ("core", "nets", "image", "audio"):
        put(root, f"zoo/{package}/__init__.py", "")
    put(root, file, text)
    return root


def put(root: Path, file: str, text: str) -> None:
    """Write a file and the folders above it."""
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("rule", "file", "text", "complaint"), WRONG)
def test_a_wrong_tree_is_found(rule: Callable[[Path], list[str]], file, text, complaint, tmp_path):
    (found,) = rule(small_tree(tmp_path, file, text))
    assert found.replace(os.sep, "/").startswith(file if rule is not size_rules else "zoo/")
    assert complaint in found


@pytest.mark.parametrize(("file", "text"), RIGHT)
def test_a_right_tree_is_left_alone(file, text, tmp_path):
    tree = small_tree(tmp_path, file, text)
    assert import_rules(tree) + ban_rules(tree) + size_rules(tree) == []


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


HEAVY = "import sys; print(*sorted({'torch', 'numpy', 'pydantic', 'PIL'} & set(sys.modules)))"


def heavy(code: str, path: Path = ROOT) -> list[str]:
    """The large packages that are loaded after running `code`."""
    return python("-c", f"{code}\n{HEAVY}", path=path).splitlines()[-1].split()


def test_import_zoo_loads_nothing_large_and_is_quick():
    assert heavy("import zoo") == []
    assert import_seconds(0.15) < 0.15


@pytest.mark.parametrize("command", ["--help", "list"])
def test_the_command_starts_without_torch_and_quickly(command):
    code = f"import zoo.cli\ntry:\n    zoo.cli.main([{command!r}])\nexcept SystemExit:\n    pass"
    assert not {"torch", "PIL"} & set(heavy(code))
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

    found = []
    for arguments in commands:
        try:
            parser().parse_args(arguments)
        except SystemExit as leave:
            if leave.code:
                found.append(" ".join(arguments))
    return found


def test_every_command_of_the_readme_parses():
    commands = promised((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {"list", "info", "sample", "train", "eval", "verify", "pull", "push", "publish"} <= {c[0] for c in commands}
    assert unknown(commands) == []
    assert unknown(promised("`zoo list` and `zoo dance --fast`")) == ["dance --fast"]


# ---- the guard of conftest.py ------------------------------------------------------------------------------


def test_the_network_guard_lets_nothing_out(network_guard, monkeypatch):
    import socket

    guard = type(network_guard)()
    if not {"connect", "connect_ex", "sendto"} <= set(guard.originals):
        pytest.fail("a way out is not guarded")
    guard.originals = dict.fromkeys(guard.originals, lambda *_: "let through")  # so that nothing leaves if it fails
    guard.getaddrinfo = lambda *_, **__: "let through"
    for name in guard.originals:  # undone after the test
        monkeypatch.setattr(socket.socket, name, getattr(socket.socket, name))
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)
    guard.install()
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        for reach in (tcp.connect, tcp.connect_ex, lambda to: udp.sendto(b"", to)):
            assert reach(("127.0.0.1", 9)) == reach(("localhost", 9)) == "let through"
            with pytest.raises(RuntimeError, match="stay on this machine"):
                reach(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match="stay on this machine"):
        socket.getaddrinfo("example.org", 443)
    assert guard.stopped == ["192.0.2.1"] * 3 + ["example.org"]
    assert network_guard.stopped == []

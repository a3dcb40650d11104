"""Start the page: which models, which port, what is not allowed."""

from __future__ import annotations

import atexit
import fnmatch
import gc
import inspect
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, reduce
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.contract.registry import list_models, packaged_folder
from zoo.demo.uploads import Limited
from zoo.errors import ConfigError, ZooError
from zoo.extras import need
from zoo.hub import client as hub
from zoo.model.loading import info, is_folder
from zoo.values import whole

if TYPE_CHECKING:
    from zoo.demo.engine import Engine, Limits

PORT = 7860
#: seconds after which a page that is asked for at once has been sent
OPENED = 1.0
#: one page is made at a time: meanwhile functions of gradio are others
LAUNCHING = threading.Lock()


def chosen(models: str | Sequence[str] = "*") -> list[str]:
    """The models of a page: patterns of packaged ones, folders and hub:owner/name, with commas between.

    Raises:
        ConfigError: a pattern that names none, or nothing at all.
    """
    wanted = models.split(",") if isinstance(models, str) else list(models)
    packaged = [n for n in list_models() if packaged_folder(n) is not None and not info(n).first_stage]
    found: list[str] = []
    for name in (w.strip() for w in wanted):
        if name.startswith("hub:") or is_folder(name):
            found.append(name)
            continue
        matched = [n for n in packaged if fnmatch.fnmatch(n, name)]
        if not matched:
            raise ConfigError(f"--models {name}: no packaged model is called so. There are: {', '.join(packaged)}.")
        found += matched
    return list(dict.fromkeys(found))


def check_share(share: bool) -> None:
    """Refuse an address for everybody where there is no network.

    Raises:
        ConfigError: the reason.
    """
    if share and hub.offline():
        raise ConfigError(
            "--share needs the internet: the page would get an address at gradio.live, through which others reach this "
            "machine. HF_HUB_OFFLINE is set, so nothing is asked. Unset it, or leave --share out: the page then is on this "
            "machine alone."
        )


def launch(
    models: str | Sequence[str] = "*",
    *,
    port: int | None = None,
    share: bool = False,
    browser: bool = False,
    host: str = "127.0.0.1",
    limits: Limits | None = None,
    block: bool = True,
) -> Any:
    """Serve the page.

    Args:
        models: see `chosen`.
        port: default: the first free one from 7860 on.
        share: give it an address at gradio.live, for three days.
        browser: open it in the user's browser.
        host: who may come: 127.0.0.1 this machine alone.
        block: wait until it ends; else the gradio app is returned, whose `close` ends it.

    Raises:
        ConfigError: gradio is missing, a port that is taken, or --share without a network.
    """
    check_share(share)
    port = None if port is None else whole(port, "port", 1, 65535)
    names = chosen(models)  # before gradio and torch, whose imports take seconds
    # read when gradio is imported, or when a page is made
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ["GRADIO_TEMP_DIR"] = folder = tempfile.mkdtemp(prefix="zoo-demo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    local = host in ("127.0.0.1", "localhost", "::1") and not share
    with LAUNCHING, quick_import():
        from zoo.demo.engine import Engine, Limits
        from zoo.demo.page import FONTS, STYLE, page
        from zoo.demo.parts import gr

        limits = limits or Limits()
        engine = Engine(names, limits, hub=local and not hub.offline())
        with unserved():
            blocks = page(engine)
    g = gr()
    try:
        with LAUNCHING, quick_import(), configured_once():
            blocks.launch(
                server_name=host,
                server_port=port,
                share=share,
                inbrowser=browser,
                prevent_thread_lock=True,
                quiet=True,
                show_error=True,
                max_file_size=limits.upload,
                theme=g.themes.Base(font=FONTS, font_mono=["ui-monospace", "monospace"]),
                css=STYLE,
                footer_links=[],
                ssr_mode=False,
                max_threads=8,
                state_session_capacity=64,
                enable_monitoring=False,
                app_kwargs={"middleware": [need("starlette.middleware", "demo").Middleware(Limited, upload=limits.upload)]},
                _frontend=False,  # else it asks the page itself, and gives up where a busy machine takes 3 s to answer
            )
    except OSError as error:
        raise ConfigError(f"the page cannot be served on port {port or PORT}: {error}. Give another one: --port.") from error
    # not before: on two cores it would take from the first page what it gives to the first click
    warming = threading.Timer(OPENED, _warm, (engine, names[0], blocks))
    warming.daemon = True
    warming.start()
    if block:
        # before the page is told of: who reads that may end it at once
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # what ends a service ends it as Ctrl-C does
        try:
            print(f"the page is at {blocks.local_url}. Ctrl-C ends it.", flush=True)
            blocks.block_thread()
        except KeyboardInterrupt:  # before gradio waits for it
            blocks.close()
        warming.cancel()
        engine.end()
    return blocks


class _Unwritten(MetaPathFinder):
    """Modules of gradio that write what only editors read, without the writing."""

    #: module -> what in it writes: stubs of every component beside its source, and the text of every event of each component
    WRITERS: ClassVar = {"gradio.component_meta": "create_or_modify_pyi", "gradio.events": "EventListener.set_doc"}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The module as it is found without this finder, but for one function that does nothing."""
        spec = PathFinder.find_spec(name, path) if name in self.WRITERS else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            *inside, function = self.WRITERS[name].split(".")
            owner = reduce(lambda thing, part: getattr(thing, part, None), inside, module)
            if hasattr(owner, function):  # another gradio may write elsewhere, and is then imported more slowly
                setattr(owner, function, lambda *_, **__: None)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def quick_import() -> Iterator[None]:
    """Import gradio and torch, make a page and serve it, sooner: nothing is written for editors, as each import of gradio
    would, no garbage is looked for, and signatures are read once, where gradio reads that of its class for each part of a page.
    """
    finder, collects, read = _Unwritten(), gc.isenabled(), inspect.signature
    known, ended = cache(read), threading.Event()

    def signature(*args: Any, **options: Any) -> inspect.Signature:
        try:  # a module that was imported meanwhile may have taken this function for its own
            return read(*args, **options) if ended.is_set() else known(*args, **options)
        except TypeError:  # what has no hash; and what has no signature, of which this says so again
            return read(*args, **options)

    sys.meta_path.insert(0, finder)
    gc.disable()
    try:
        with _instead(inspect, "signature", signature):
            yield
    finally:
        ended.set()
        known.cache_clear()
        sys.meta_path.remove(finder)
        if collects:
            gc.enable()


@contextmanager
def unserved() -> Iterator[None]:
    """Make a page without a server and its configuration: gradio makes both when the page is there and a server when it has a
    queue, and the ones that serve when it is launched. On a slow machine each takes most of a second.
    """
    app: Any = need("gradio.routes", "demo").App
    with (
        _instead(app, "create_app", staticmethod(lambda *_, **__: None)),
        _instead(need("gradio", "demo").Blocks, "get_config_file", lambda _: {}),
    ):
        yield


@contextmanager
def configured_once() -> Iterator[None]:
    """Launch a page without making its configuration again for a server of tools, which it has not, whatever gradio's
    variables of the environment say.
    """
    routes: Any = need("gradio.routes", "demo")
    with _instead(routes.App, "setup_mcp_server", staticmethod(lambda *_, **__: f"{routes.API_PREFIX}/mcp")):
        yield


@contextmanager
def _instead(owner: Any, name: str, other: Any) -> Iterator[None]:
    """Something else under a name, for a while; where another gradio has no such name, nothing."""
    if name not in vars(owner):
        yield
        return
    kept = vars(owner)[name]
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def _warm(engine: Engine, name: str, blocks: Any) -> None:
    """The first model is in memory by the time of the first click, unless the page has been closed."""
    with suppress(ZooError), engine.working():
        if blocks.is_running and not engine.ended:
            engine.model(name)

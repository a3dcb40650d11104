"""The page by its handlers, and over HTTP as a browser's program talks to it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from zoo.contract.page import Film, Gallery, Picture, Question, Scene, Sound
from zoo.contract.registry import get_domain, get_recipe

gradio = pytest.importorskip("gradio", reason="the extra `demo` is not installed")

from zoo.demo import parts, serve  # noqa: E402  # gradio first
from zoo.demo.engine import Engine, Limits  # noqa: E402
from zoo.demo.page import Tab, _whole, page, told  # noqa: E402
from zoo.demo.uploads import Limited  # noqa: E402
from zoo.errors import ConfigError, DataError, ResourceError  # noqa: E402
from zoo.protein.backbone import GIVEN  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(pictures):
    app = serve.launch(pictures, block=False, limits=Limits(upload=100_000))
    yield app
    app.close()


@pytest.fixture(scope="module")
def client(served):
    from gradio_client import Client

    return Client(served.local_url, verbose=False, analytics_enabled=False)


FIELDS = ["bag", "(any)", "(any)", "", "", None]


def test_a_sound_keeps_its_length_and_its_loudness():
    samples = np.array([0.0, 0.5, -1.0, 1.0], np.float32)
    rate, values = parts.value(Sound(samples, 8000))
    assert rate == 8000 and values.tolist() == [0, 16384, -32768, 32767]


def test_a_scene_is_a_figure_of_webgl():
    found = json.loads(parts.scene(Scene(np.eye(3), ["#ff0000", "#00ff00"], line=True)).plot)
    (trace,) = found["data"]
    assert trace["type"] == "scatter3d" and trace["mode"] == "lines" and trace["x"] == [1, 0, 0]
    assert trace["line"]["color"] == ["#ff0000", "#00ff00", "#00ff00"]


def test_a_painted_mask_is_where_any_layer_was_painted():
    layers = [Image.new("RGBA", (4, 3)) for _ in range(2)]
    layers[1].putpixel((2, 1), (255, 0, 0, 255))
    mask = parts.answer(Question("mask"), {"layers": layers, "background": None})
    assert mask.shape == (3, 4) and np.argwhere(mask).tolist() == [[1, 2]]
    assert parts.answer(Question("mask"), None) is None


@pytest.mark.parametrize("kind", [Picture, Gallery, Sound, Scene, Film])
def test_there_is_a_part_for_each_kind_of_view(kind):
    assert parts.place(kind, "label", "name").elem_id == "name"


def test_our_errors_are_the_text_of_the_page_without_markup_and_without_folders(own_folder):
    def broken():
        raise DataError(f"{own_folder}/abc/<b>cat</b>.png: not a picture")

    with pytest.raises(gradio.Error) as error:
        told(broken)()
    assert error.value.message == "&lt;b&gt;cat&lt;/b&gt;.png: not a picture" or "/abc/" not in error.value.message
    assert "<b>" not in error.value.message

    def wrong():
        yield 1
        raise KeyError("x")

    steps = told(wrong)()
    assert next(steps) == 1
    with pytest.raises(gradio.Error, match="the page failed"):
        next(steps)


def test_reverse_over_http(client, pictures):
    how = ["ddim", 3, 0.0]
    *_, last = client.submit(pictures, 2, 0, False, *how, *how, *FIELDS, api_name="/image_reverse")
    assert "Step 3 of 3" in last[0]
    assert "zoo.load" in str(last)


def test_a_wrong_label_is_told(client, pictures):
    from gradio_client.exceptions import AppError

    how = ["ddim", 1, 0.0]
    with pytest.raises(AppError):
        client.predict(pictures, 1, 0, False, *how, *how, "cow", *FIELDS[1:], api_name="/image_reverse")


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "http://127.0.0.1:9/x.png", "../../etc/passwd"])
def test_no_file_and_no_address_comes_from_a_request(served, pictures, path):
    """Neither through a field for a file, nor through the address of the page's own files."""
    import httpx

    base = served.local_url.rstrip("/")
    answer = httpx.get(f"{base}/gradio_api/file={path}", timeout=60)
    assert answer.status_code in (302, 307, 403, 404)  # an address: the browser is sent there, and this machine is not
    body = {"data": [pictures, 0, {"path": path, "meta": {"_type": "gradio.FileData"}}, 50]}
    call = httpx.post(f"{base}/gradio_api/call/image_forward", json=body, timeout=60)
    if call.status_code == 200:
        event = call.json()["event_id"]
        found = httpx.get(f"{base}/gradio_api/call/image_forward/{event}", timeout=120).text
        assert "event: error" in found and "root:" not in found and "[project]" not in found


def test_a_large_file_is_refused(served):
    import httpx

    large = io.BytesIO(b"x" * 200_000)
    answer = httpx.post(f"{served.local_url}gradio_api/upload", files={"files": ("a.png", large)}, timeout=60)
    assert answer.status_code == 413


def kept(folder) -> list:
    """Files of the page's own folder."""
    return [p for p in Path(folder).rglob("*") if p.is_file()]


@pytest.mark.parametrize("at", ["upload", "component_server"])
def test_many_files_in_one_request_are_refused_and_none_stays(served, at):
    import httpx

    before, address = kept(os.environ["GRADIO_TEMP_DIR"]), f"{served.local_url}gradio_api/{at}"
    answer = httpx.post(address, files=[("files", (f"{i}.png", b"x" * 50)) for i in range(500)], timeout=60)
    assert answer.status_code == 400 and "the request holds too many files: give one file at a time." in answer.text
    assert kept(os.environ["GRADIO_TEMP_DIR"]) == before
    assert httpx.post(address.replace(at, "upload"), files=[("files", ("a.png", b"x"))], timeout=60).status_code == 200


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("at", ["upload", "queue/join"])
def test_a_body_larger_than_a_file_may_be_is_refused_at_every_address(served, at, told):
    """Also where its length is not told before."""
    import httpx

    def body():
        for _ in range(30):
            yield b"x" * 50_000

    kind = {"content-type": "multipart/form-data; boundary=y" if at == "upload" else "application/json"}
    content = b"".join(body()) if told else body()
    answer = httpx.post(f"{served.local_url}gradio_api/{at}", content=content, headers=kind, timeout=60)
    assert answer.status_code == 413 if told else answer.status_code in (400, 413)
    assert not told or answer.text == "the request exceeds the maximum allowed size: a file may have 100,000 bytes."


def test_the_first_kind_of_a_request_counts():
    """As it does for gradio: a second one would hide the form."""
    import asyncio

    seen, sent = [], []

    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            seen.append(1)

    async def ask():
        parts = iter([b"--y\r\n--", b"y\r\n"] * 8)

        async def receive():
            return {"type": "http.request", "body": next(parts), "more_body": True}

        async def send(message):
            sent.append(message)

        heads = [(b"content-type", b'multipart/form-data; boundary="y"'), (b"content-type", b"text/plain")]
        await Limited(app, 1000)({"type": "http", "headers": heads}, receive, send)

    asyncio.run(ask())
    assert len(seen) == 5 and sent[0]["status"] == 400  # a mark that two pieces share is one


def test_a_damaged_file_shows_our_text_and_the_page_lives_on(client, pictures, tmp_path):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"damaged" * 20)
    with pytest.raises(AppError, match=r"cat\.png"):
        client.predict(pictures, 0, handle_file(tmp_path / "cat.png"), 50, api_name="/image_forward")
    Image.new("L", (28, 28), 200).save(tmp_path / "good.png")
    said, *_ = client.predict(pictures, 0, handle_file(tmp_path / "good.png"), 50, api_name="/image_forward")
    assert said.startswith("log-SNR")


def test_the_page_asks_no_other_machine(served):
    import httpx

    text = httpx.get(served.local_url, timeout=60).text
    fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', text)
    assert [u for u in fetched if "127.0.0.1" not in u] == []
    assert "fonts.googleapis" not in text


def test_share_is_refused_offline_with_the_reason(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="--share needs the internet"):
        serve.launch("*", share=True)


def test_models_are_named_by_patterns():
    assert serve.chosen("image/fashion*,audio/spec*") == ["image/fashion-ddpm", "audio/spec-ddpm"]
    assert serve.chosen("image/*") == ["image/emoji-text", "image/fashion-ddpm"]  # and no first stage
    with pytest.raises(ConfigError, match="no packaged model"):
        serve.chosen("imag/*")


def test_every_packaged_model_has_its_tab(own_folder):
    names = serve.chosen()
    blocks = page(Engine(names))
    called = {d.api_name for d in blocks.fns.values()}
    for domain in ("image", "audio", "point3d", "protein", "policy"):
        assert {f"{domain}_reverse", f"{domain}_step", f"{domain}_forward", f"{domain}_guidance"} <= called
    assert "policy_play" in called and {f"{d}_edit" for d in ("image", "audio", "point3d", "protein")} <= called


@pytest.mark.slow
def test_ten_people_at_once_are_all_served_in_the_order_in_which_they_came(served, pictures, monkeypatch):
    """Each with a session of its own, and all of them in the queue before the first is done."""
    import httpx

    order, start = [], Engine.start
    monkeypatch.setattr(Engine, "start", lambda self, *given: order.append(given[3]["seed"]) or start(self, *given))
    base, how = f"{served.local_url}gradio_api/queue", ["ddim", 4, 0.0]
    (at,) = (d["id"] for d in served.config["dependencies"] if d["api_name"] == "image_reverse")
    for i in range(10):
        body = {"data": [pictures, 1, i, False, *how, *how, *FIELDS], "fn_index": at, "session_hash": f"person{i}"}
        assert httpx.post(f"{base}/join", json=body, timeout=60).status_code == 200
    for i in range(10):
        with httpx.stream("GET", f"{base}/data", params={"session_hash": f"person{i}"}, timeout=600) as answer:
            told = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
        (last,) = (t for t in told if t["msg"] == "process_completed")
        assert last["success"], last
    assert order == list(range(10))


@pytest.mark.slow
def test_a_slider_goes_back_and_guidance_is_a_row(client, pictures):
    how = ["ddim", 3, 0.0]
    client.predict(pictures, 1, 0, False, *how, *how, *FIELDS, api_name="/image_reverse")
    said, *_ = client.predict(0, api_name="/image_step")
    assert "Step 1 of 3" in said
    shown = client.predict(pictures, 1, 0, "0, 2", "ddim", 2, *FIELDS, api_name="/image_guidance")
    assert [row["caption"] for row in shown] == ["w = 0", "w = 2"]


@pytest.fixture
def edits(pictures, own_folder):
    """What the tab of pictures makes of an edit with these settings."""
    with gradio.Blocks():
        tab = Tab(Engine([pictures]), get_domain("image"), [pictures])
    layer = Image.new("RGBA", (28, 28))
    layer.paste((255, 0, 0, 255), (0, 0, 28, 14))

    def edited(sampler="ddim", steps=2, weight=0.0, layers=(layer,)):
        *_, last = tab.on_edit(None, pictures, 0, sampler, steps, weight, *FIELDS, {"layers": list(layers)})
        return last

    return edited


def test_an_edit_has_all_settings_of_the_page(edits):
    """Also the guidance weight, which stands beside sampler and steps."""
    said, file, code, *_ = edits("plms", 2, 1.5)
    assert said.startswith("Step 2 of 2, 3 evaluations")
    assert "guidance_weight=1.5" in code and "sampler='plms'" in code and file.endswith(".zip")
    with pytest.raises(ConfigError, match="guidance weight: 'x'; give a number"):
        edits(weight="x")


def test_an_edit_of_nothing_is_told(edits):
    with pytest.raises(ConfigError):
        edits(layers=())


@pytest.mark.parametrize(
    "ask",
    [
        lambda tab, name: tab.on_forward(name, 0, None, 50),
        lambda tab, name: tab.on_known(name, None),
        lambda tab, name: next(tab.on_edit(None, name, 0, "ddim", 2, 0.0, *FIELDS, {"layers": []})),
        lambda tab, name: next(tab.on_play(name, 0, "ddim", 2, 0.0, *FIELDS)),
    ],
    ids=["forward", "known", "edit", "play"],
)
def test_a_model_of_another_tab_is_told_to_go_there(pictures, clouds, own_folder, ask):
    """A program may ask what no button of the page does."""
    with gradio.Blocks():
        tab = Tab(Engine([pictures, clouds]), get_domain("image"), [pictures])
    with pytest.raises(ConfigError, match="see that tab"):
        ask(tab, clouds)


@pytest.fixture
def policies(own_folder):
    """The tab of both packaged policies, whose starts are asked in different ways."""
    names = ["policy/metaworld-push", "policy/pusht-keypoints"]
    with gradio.Blocks():
        return Tab(Engine(names), get_domain("policy"), names)


def test_each_policys_own_start_is_asked(policies):
    asked = dict(zip(policies.asked, policies.answers, strict=True))
    assert asked["seed"].visible and not asked["angle"].visible
    *_, board, _ = found = policies.chosen("policy/pusht-keypoints")
    changes = dict(zip(policies.asked, found[-2 - len(asked) : -2], strict=True))
    assert changes["angle"].visible and changes["block_x"].value == 200 and not changes["seed"]["visible"]
    assert changes["most"].maximum == 300
    # Push-T's table is there for Push-T alone, and each of its fields is a field of the page
    assert board.visible and not policies.boards.visible and not policies.chosen("policy/metaworld-push")[-2].visible
    ids = re.findall(r'data-(?:x|y|angle)="([^"]+)"', board.value)
    assert len(ids) == 8 and set(ids) <= {a.elem_id for a in policies.answers}


def test_answers_are_those_that_the_chosen_model_asks_and_in_their_ranges(policies):
    pusht, push = (get_recipe(f"policy/{n}") for n in ("pusht-keypoints", "metaworld-push"))
    given = {k: q.value for k, q in policies.asked.items()} | {"angle": 90, "seed": 7}
    assert policies.answered(push, list(given.values())) == {"seed": 7, "most": 100}
    assert policies.answered(pusht, list(given.values())) == {
        "agent_x": 220,
        "agent_y": 400,
        "block_x": 200,
        "block_y": 300,
        "angle": 90,
        "goal_x": 256,
        "goal_y": 256,
        "goal_angle": 45,
        "most": 100,
    }
    for wrong, text in ((None, "give a number"), (900, "900; give -180 to 180"), (float("nan"), "give -180 to 180")):
        with pytest.raises(ConfigError, match=text):
            policies.answered(pusht, list((given | {"angle": wrong}).values()))


def test_what_no_field_of_the_page_asks_is_as_at_the_start(own_folder):
    with gradio.Blocks():
        tab = Tab(Engine(["policy/metaworld-push"]), get_domain("policy"), ["policy/metaworld-push"])
    assert tab.answered(get_recipe("policy/pusht-keypoints"), [3, 50])["angle"] == 45


@pytest.mark.parametrize("weight", ["a", [1], {}, True, 10**400])
def test_a_guidance_weight_that_is_no_number_is_told(client, pictures, weight):
    from gradio_client.exceptions import AppError

    how = ["ddim", 1, weight]
    with pytest.raises(AppError, match=r"give a number|smaller number|preprocess"):
        client.predict(pictures, 1, 0, False, *how, *how, *FIELDS, api_name="/image_reverse")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1.5, -1, None, "x", [1]])
def test_what_is_no_whole_number_is_told(value):
    with pytest.raises(ConfigError, match="whole number"):
        _whole(value, "seed")


def test_the_page_ends_after_the_work_that_is_under_way(pictures):
    import threading
    import time

    engine, began, done = Engine([pictures]), threading.Event(), []

    def work():
        began.set()
        time.sleep(0.2)
        done.append(1)

    thread = threading.Thread(target=told(work, engine.working))
    thread.start()
    began.wait()
    engine.end()
    assert done == [1]
    thread.join()
    with pytest.raises(ResourceError, match="the page was closed"):
        list(engine.steps(engine.start(pictures, 1, {}, {"seed": 0, "steps": 2})))


def test_gradio_is_imported_without_writing_what_editors_read():
    """It would do so in each process, for half of the time of its import."""
    import subprocess
    import sys

    program = (
        "import gc\nfrom zoo.demo.serve import quick_import\nwith quick_import():\n    import gradio\n"
        "from gradio import component_meta as m\nassert m.create_or_modify_pyi(None, None, None) is None\n"
        "assert '{{' in gradio.Textbox.change.__doc__\n"
        "assert gc.isenabled()\nimport sys\nassert not [f for f in sys.meta_path if 'Unwritten' in type(f).__name__]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_what_is_slow_is_imported_after_the_models_are_known_and_while_no_garbage_is_looked_for():
    """A wrong name is told at once, and the page comes sooner."""
    program = (
        "import gc, sys\nfrom zoo.demo import serve\nfrom zoo.errors import ConfigError\n"
        "try:\n    serve.launch('imag/*')\nexcept ConfigError:\n    pass\n"
        "assert not {'torch', 'gradio'} & set(sys.modules)\nseen = []\n"
        "class Watch:\n    def find_spec(self, name, *given):\n"
        "        if name in ('torch', 'gradio', 'zoo.demo.page'):\n            seen.append(gc.isenabled())\n"
        "sys.meta_path.insert(0, Watch())\nserve.launch('image/fashion-ddpm', block=False).close()\n"
        "assert seen == 3 * [False] and gc.isenabled(), seen"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


def test_a_page_is_configured_as_gradio_does_it_alone_and_nothing_of_gradio_stays_changed():
    import inspect

    from gradio import Blocks, routes

    def owned():
        app = vars(routes.App)
        return inspect.signature, Blocks.get_config_file, app["create_app"], app["setup_mcp_server"]

    before = owned()
    app = serve.launch("image/fashion-ddpm", block=False)
    try:
        assert owned() == before
        assert app.config["components"] and app.config == app.get_config_file()
    finally:
        app.close()


def test_signatures_are_read_once_and_what_has_none_says_so():
    import inspect

    class Unhashable:
        __hash__ = None

        def __call__(self, a):
            pass

    def owned(a, b=1):
        pass

    with serve.quick_import():
        assert inspect.signature(owned) is inspect.signature(owned)
        assert list(inspect.signature(Unhashable()).parameters) == ["a"]
        with pytest.raises(TypeError, match="not a callable object"):
            inspect.signature(3)
        from inspect import signature as kept  # as a module does that is imported meanwhile
    assert kept is not inspect.signature and list(kept(owned).parameters) == ["a", "b"]
    owned.__signature__ = inspect.Signature()
    assert kept(owned) == inspect.Signature()


def test_a_page_that_is_closed_loads_no_model(pictures):
    engine = Engine([pictures])
    for running, ended in ((False, False), (True, True)):
        if ended:
            engine.end()
        serve._warm(engine, pictures, SimpleNamespace(is_running=running))
        assert not engine._models
    engine = Engine([pictures])
    serve._warm(engine, pictures, SimpleNamespace(is_running=True))
    assert engine._models


def test_pages_that_are_made_at_once_leave_nothing_changed(pictures):
    import inspect

    from gradio import Blocks

    before, apps = (inspect.signature, Blocks.get_config_file), []
    threads = [threading.Thread(target=lambda: apps.append(serve.launch(pictures, block=False))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(apps) == 2 and all(app.config["components"] for app in apps)
    for app in apps:
        app.close()
    assert (inspect.signature, Blocks.get_config_file) == before


def test_what_is_shown_needs_no_right_answers(own_folder):
    """Whoever looks at a chain looks for the right ones."""
    with gradio.Blocks():
        tab = Tab(Engine(["protein/backbone-ddpm"]), get_domain("protein"), ["protein/backbone-ddpm"])
    shown = [tab.on_known("protein/backbone-ddpm", None, *answers) for answers in ((), (5, 9, None, 1), (5, 5000, 64, 1))]
    assert GIVEN not in shown[0].plot and all(other.plot == shown[0].plot for other in shown[1:])
    assert tab.on_known("protein/backbone-ddpm", None, 5, 9, 64, 1).plot.count(GIVEN) == 4


def test_another_gradio_without_the_names_that_are_changed_for_a_while_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(serve._Unwritten, "WRITERS", {"colorsys": "Elsewhere.write"})
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with serve.quick_import():
        import colorsys
    assert not hasattr(colorsys, "Elsewhere")
    with serve._instead(colorsys, "nothing", 1):
        assert not hasattr(colorsys, "nothing")
    with serve._instead(colorsys, "ONE_THIRD", 1):
        assert colorsys.ONE_THIRD == 1
    assert colorsys.ONE_THIRD == 1 / 3


@pytest.mark.parametrize("port", [0, -1, 65536, "8000", 80.5])
def test_a_port_that_is_none_is_refused_before_anything_starts(port):
    with pytest.raises(ConfigError, match="port"):
        serve.launch("image/fashion-ddpm", port=port, block=False)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_page_that_is_told_to_end_leaves_no_files(tmp_path):
    """As a service manager ends it, and Ctrl-C."""
    command = [sys.executable, "-m", "zoo", "demo", "--models", "image/fashion-ddpm", "--no-browser"]
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True) as page:
        try:
            assert "the page is at" in page.stdout.readline()
            assert len(list(tmp_path.glob("zoo-demo-*"))) == 1
            page.send_signal(signal.SIGTERM)
            assert page.wait(60) == 0
        finally:
            page.kill()
    assert not list(tmp_path.glob("zoo-demo-*"))

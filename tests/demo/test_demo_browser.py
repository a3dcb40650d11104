"""The page in a real browser without a window: what is seen and heard, what is asked for, what is said in the console.

Chromium is Debian's own (`apt install chromium`); playwright brings none, and its own cannot be fetched everywhere. Without
either the tests are skipped. $ZOO_BROWSER names another Chromium.
"""

import io
import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="the extra `demo` is not installed")

from zoo.contract.domain import Domain  # noqa: E402
from zoo.contract.page import Gallery, Picture, Scene, Sound  # noqa: E402
from zoo.contract.registry import get_domain, get_recipe  # noqa: E402
from zoo.demo import serve  # noqa: E402  # gradio first
from zoo.errors import ConfigError  # noqa: E402
from zoo.point3d.domain import GOES  # noqa: E402
from zoo.policy.envs import TASKS, picture  # noqa: E402
from zoo.policy.evaluate import FIRST_SEED  # noqa: E402
from zoo.protein.backbone import GIVEN  # noqa: E402

CHROMIUM = os.environ.get("ZOO_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = os.environ.get("ZOO_SCREENSHOTS")
#: milliseconds: a busy machine draws slowly
PATIENCE = int(os.environ.get("ZOO_BROWSER_PATIENCE", "120000"))
#: every packaged model that samples
NAMES = serve.chosen()
#: a chain of so many residues, a clip of so much sound: what a model makes is short, so that the tests are
SIZES = {"point3d": 256, "protein": 64}
#: before anything of the page runs: what a WebGL canvas has drawn stays to be read back
KEPT = """{ const get = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, how) {
  return get.call(this, kind, /webgl/.test(kind) ? { ...how, preserveDrawingBuffer: true } : how); }; }"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium, or set ZOO_BROWSER"),
]


@pytest.fixture(scope="module")
def served():
    app = serve.launch(block=False)
    yield app.local_url
    app.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        # WebGL without a graphics card; no sandbox where the tests run as root
        options = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        found = play.chromium.launch(executable_path=CHROMIUM, args=[*options, "--autoplay-policy=no-user-gesture-required"])
        yield found
        found.close()


class Watched:
    """A page, every address that it asked for, and every error of its console."""

    def __init__(self, browser, address: str) -> None:
        self.page = browser.new_page(viewport={"width": 1400, "height": 1800})
        self.page.add_init_script(KEPT)
        self.page.set_default_timeout(PATIENCE)
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on(
            "console",
            lambda m: self.errors.append(m.text) if m.type == "error" or "i18n" in m.text else None,
        )
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        began = time.monotonic()
        self.page.goto(address)
        self.page.wait_for_selector("#image-go")
        #: seconds until there was a page
        self.took = time.monotonic() - began

    def tab(self, domain: str) -> None:
        self.page.get_by_role("tab", name=domain.capitalize(), exact=True).first.click()
        self.page.wait_for_selector(f"#{domain}-go", state="visible")

    def inner(self, domain: str, name: str) -> None:
        visible = self.page.get_by_role("tab", name=name, exact=True)
        for i in range(visible.count()):
            if visible.nth(i).is_visible():
                return visible.nth(i).click()
        raise AssertionError(f"no tab {name} of {domain}")

    def choose(self, domain: str, name: str) -> None:
        """Choose a model, and wait for what the page then says of it."""
        about = self.page.locator(f"#{domain}-about")
        field = self.page.locator(f"#{domain}-model input")
        if field.input_value() != name:
            before = about.inner_text()
            field.click()
            self.page.get_by_role("option", name=name, exact=True).click()
            self.page.wait_for_function(
                "([s, t]) => document.querySelector(s).innerText != t", arg=[f"#{domain}-about", before]
            )
        assert field.input_value() == name

    def fill(self, values: Mapping[str, object]) -> None:
        """Type into fields until all of it stays: a tab that was just opened is drawn twice, and forgets what came between."""
        wanted = {self.page.locator(f"#{name} input").first: str(value) for name, value in values.items()}
        stays = 0.0
        while stays < self.took / 3:  # the busier the machine, the later the second time
            wrong = {field: value for field, value in wanted.items() if field.input_value() != value}
            for field, value in wrong.items():
                field.fill(value)
                field.blur()
            self.page.wait_for_timeout(300)
            stays = 0.0 if wrong else stays + 0.3

    def upload(self, name: str, path) -> None:
        """Give a file away until the page keeps it, see `fill`."""
        kept = self.page.locator(f"#{name} .file-preview")
        stays, until = 0.0, time.monotonic() + PATIENCE / 1000
        while stays < self.took / 3:
            assert time.monotonic() < until, f"{path.name} does not stay"
            if not kept.is_visible():
                self.page.set_input_files(f"#{name} input[type=file]", str(path))
                with suppress(sync_api.TimeoutError):
                    kept.wait_for(timeout=PATIENCE / 6)
                stays = 0.0
            self.page.wait_for_timeout(300)
            stays = stays + 0.3 if kept.is_visible() else 0.0
        assert path.stem in kept.inner_text()

    def shot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)

    def done(self, domain: str) -> None:
        self.page.wait_for_selector(f"#{domain}-code .cm-line", timeout=PATIENCE)

    def outside(self) -> list[str]:
        return [u for u in self.asked if u.startswith("http") and urlsplit(u).hostname not in ("127.0.0.1", "localhost")]


@pytest.fixture
def watched(browser, served):
    found = Watched(browser, served)
    yield found
    outside, errors = found.outside(), found.errors
    found.page.close()
    assert outside == [], "the page asked another machine"
    assert errors == [], "errors in the console"


def pixels(page, selector: str) -> list:
    """A picture of the page as the browser has it: width, height and how many of its bytes differ from the first."""
    return page.evaluate(
        """async s => { const i = document.querySelector(s + " img"); await i.decode();
        const c = document.createElement("canvas"); c.width = i.naturalWidth; c.height = i.naturalHeight;
        const g = c.getContext("2d"); g.drawImage(i, 0, 0);
        const d = g.getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let k = 0; k < d.length; k++) if (d[k] != d[k % 4]) n++;
        return [c.width, c.height, n]; }""",
        selector,
    )


def sound(page, selector: str) -> list:
    """The clip of a player as the page decodes it at 8 kHz: its seconds, its loudest value, and its address."""
    page.wait_for_selector(f"{selector} a[download], {selector} audio[src]", state="attached")
    return page.evaluate(
        """async s => { const e = document.querySelector(s);
        const u = (e.querySelector("audio[src]") || {}).src || e.querySelector("a[download]").href;
        const data = await (await fetch(u)).arrayBuffer();
        const clip = await new OfflineAudioContext(1, 8000, 8000).decodeAudioData(data);
        return [clip.duration, Math.max(...clip.getChannelData(0).map(Math.abs)), u]; }""",
        selector,
    )


#: the WebGL canvases of a part of the page, read back: bytes that differ from the first pixel, and a sum over their places
READ_BACK = """s => { let n = 0, sum = 0;
for (const c of document.querySelectorAll(s + " canvas")) {
  const g = c.getContext("webgl") || c.getContext("webgl2"); if (!g || !c.width) continue;
  const d = new Uint8Array(4 * c.width * c.height); g.readPixels(0, 0, c.width, c.height, g.RGBA, g.UNSIGNED_BYTE, d);
  for (let k = 0; k < d.length; k++) if (d[k] != d[k % 4]) { n++; sum = (sum + k * d[k]) % 1e9; } }
return [n, sum]; }"""


def drawn(page, selector: str, other: list | None = None) -> list:
    """What the WebGL canvas of a part of the page holds, once it holds something, and something else than `other`."""
    handle = page.wait_for_function(
        f"([s, other]) => {{ const found = ({READ_BACK})(s); return found[0] > 1000 && found[1] != other && found; }}",
        arg=[selector, other and other[1]],
        polling=300,
    )
    return handle.json_value()


def source(page, selector: str) -> str:
    """The address of a part's picture."""
    return page.locator(f"{selector} img").first.get_attribute("src")


def changed(page, selector: str, before: str) -> None:
    """Wait until a part's picture is another one."""
    page.wait_for_function("([s, u]) => document.querySelector(s + ' img').src != u", arg=[selector, before])


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_each_packaged_model_appears_and_the_slider_goes_back(watched, name):
    """What its domain shows is there to be seen and heard, and is another thing at the first step."""
    page, domain = watched.page, get_domain(name.partition("/")[0])
    at = domain.name
    watched.tab(at)
    watched.choose(at, name)
    fields = {"steps": 3} | ({"n": 2} if domain.shown > 1 else {}) | ({"size": SIZES[at]} if at in SIZES else {})
    watched.fill({f"{at}-{field}": value for field, value in fields.items()})
    page.click(f"#{at}-go")
    watched.done(at)
    assert f'zoo.load("{name}")' in page.locator(f"#{at}-code").inner_text().replace("'", '"')
    shown = {}
    for view in domain.views:
        part = f"#{at}-x0-{view.__name__.lower()}"
        if view is Picture:
            width, height, different = pixels(page, part)
            assert width > 50 and height > 50 and different > 1000
            shown[part] = source(page, part)
        elif view is Gallery:
            assert page.locator(f"{part} img").count() == 2
            assert pixels(page, part)[2] > 1000
        elif view is Sound:
            seconds, loudest, shown[part] = sound(page, part)
            codec = domain.codec(get_recipe(name).codec)
            assert abs(seconds - codec.samples / codec.sample_rate) < 0.01 and loudest > 0.001
        elif view is Scene:
            shown[part] = drawn(page, part)
        else:
            raise AssertionError(f"a sample is shown as {view.__name__}: say here how it is looked at")
    watched.shot(name.replace("/", "-"))
    slider = page.locator(f"#{at}-slider input[type=range]")
    slider.focus()
    slider.press("Home")
    page.wait_for_selector(f"#{at}-said >> text=Step 1 of 3")
    for part, before in shown.items():
        if part.endswith("scene"):
            drawn(page, part, before)
        elif part.endswith("sound"):
            page.wait_for_function(
                """([s, u]) => { const e = document.querySelector(s), a = e.querySelector("audio[src]");
                return (a ? a.src : e.querySelector("a[download]").href) != u; }""",
                arg=[part, before],
            )
        else:
            changed(page, part, before)


def can_draw(name: str) -> bool:
    """Whether this machine can draw a policy's simulation."""
    env = TASKS[name.partition("/")[2]].make(FIRST_SEED["test"], True)
    try:
        env.reset(seed=0)
        picture(env)
    except ConfigError:
        return False
    finally:
        env.close()
    return True


@pytest.mark.parametrize("name", [n for n in NAMES if type(get_domain(n.partition("/")[0])).played is not Domain.played])
def test_a_policys_rollout_plays(watched, name):
    """In its simulation, until a film of it runs in the page."""
    page, there = watched.page, can_draw(name)  # before the click: an error is shown for some seconds
    at = name.partition("/")[0]
    watched.tab(at)
    watched.choose(at, name)
    watched.fill({f"{at}-steps": 2})
    watched.inner(at, "Play")
    watched.fill({f"{at}-edit-most": 20})
    page.click(f"#{at}-edit-go")
    if not there:
        page.wait_for_selector("text=MUJOCO_GL=egl")
        pytest.skip("Meta-World's pictures need OpenGL, which is not here: the page says so")
    page.wait_for_selector(f"#{at}-play-picture img")
    assert pixels(page, f"#{at}-play-picture")[2] > 1000
    page.wait_for_selector(f"#{at}-play-film video", state="attached")
    page.wait_for_function(
        f"() => {{ const v = document.querySelector('#{at}-play-film video'); return v.readyState > 1 && v.currentTime > 0; }}"
    )
    width, seconds, different = page.evaluate(
        """s => { const v = document.querySelector(s), c = document.createElement("canvas");
        c.width = v.videoWidth; c.height = v.videoHeight; const g = c.getContext("2d"); g.drawImage(v, 0, 0);
        const d = g.getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let k = 0; k < d.length; k++) if (Math.abs(d[k] - d[k % 4]) > 8) n++;
        return [v.videoWidth, v.duration, n]; }""",
        f"#{at}-play-film video",
    )
    assert width >= 100 and seconds > 1 and different > 1000
    watched.shot(f"{name.replace('/', '-')}-play")


def given_away(page, at: str, folder) -> dict[str, bytes]:
    """The files that an edit gives away, {name: contents}."""
    page.wait_for_selector(f"#{at}-edit-code .cm-line")
    link = page.locator(f"#{at}-edit-file a[href]").first
    with page.expect_download() as download:
        link.click()
    with zipfile.ZipFile(download.value.path()) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def test_a_mask_in_paints(watched, tmp_path):
    """What is painted over in the page is made anew, and the rest of one's own picture stays."""
    page = watched.page
    Image.fromarray(np.full((28, 28), 200, np.uint8)).save(tmp_path / "mine.png")
    watched.fill({"image-steps": 3})
    watched.inner("image", "Edit")
    watched.upload("image-edit-upload", tmp_path / "mine.png")
    page.click("#image-edit-show")
    brush = page.locator("#image-edit-mask button[aria-label='Brush']")
    brush.wait_for()
    page.wait_for_timeout(2000)  # the picture slides into the editor's middle
    brush.click()
    box = page.locator("#image-edit-mask canvas").first.bounding_box()
    middle, height = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle - 10, height)
    page.mouse.down()
    for x in range(-10, 11, 2):
        page.mouse.move(middle + x, height)
    page.mouse.up()
    page.click("#image-edit-go")
    found = given_away(page, "image", tmp_path)
    watched.shot("edit-image")
    assert {"again.py", "given.png", "mask.npy", "0000.png"} == set(found)
    made = np.asarray(Image.open(io.BytesIO(found["0000.png"])))
    new = (made != 200).mean()
    assert 0 < new < 0.9, "a stroke across the middle is not all of the picture"
    assert (made[0] == 200).all() and (made[-1] == 200).all()
    assert pixels(page, "#image-made-gallery")[2] > 0


@pytest.mark.parametrize(("at", "part"), [("audio", "sound"), ("point3d", "scene"), ("protein", "scene")])
def test_a_part_is_made_anew(watched, tmp_path, at, part):
    """Of the model's own example: a gap of a sound, half a cloud, all of a chain but a motif."""
    page = watched.page
    watched.tab(at)
    watched.fill({f"{at}-steps": 3})
    watched.inner(at, "Edit")
    page.click(f"#{at}-edit-show")
    here = f"#{at}-known-{part}"
    drawn(page, here) if part == "scene" else sound(page, here)
    if part == "scene":  # what stays, or goes, has a colour of its own
        colour = {"protein": GIVEN, "point3d": GOES}[at]
        colours = page.evaluate(
            "s => { const d = document.querySelector(s).data[0]; return d.mode == 'lines' ? d.line.color : d.marker.color }",
            f"{here} .js-plotly-plot",
        )
        assert 0 < colours.count(colour) < len(colours)
    page.click(f"#{at}-edit-go")
    found = given_away(page, at, tmp_path)
    watched.shot(f"edit-{at}")
    assert "again.py" in found and len(found) == 3 + (at == "protein")
    here = f"#{at}-made-{part}"
    drawn(page, here) if part == "scene" else sound(page, here)


def test_a_run_is_cancelled_and_the_next_one_is_served(watched):
    """Its steps end where they were, long before the last one."""
    page = watched.page
    watched.fill({"image-steps": 1000})
    page.click("#image-go")
    page.wait_for_selector("#image-said >> text=/^Step [0-9]+ of 1000$/")
    page.click("#image-stop")
    said = page.locator("#image-said")
    page.wait_for_timeout(3000)
    before = said.inner_text()
    page.wait_for_timeout(3000)
    assert said.inner_text() == before
    watched.fill({"image-steps": 2})
    page.click("#image-go")
    page.wait_for_selector("#image-said >> text=Step 2 of 2")


def test_what_is_dragged_on_the_table_is_in_the_fields(watched):
    """The T is dragged and turned, and what is typed moves the goal."""
    page = watched.page
    watched.tab("policy")
    watched.choose("policy", "policy/pusht-keypoints")
    watched.inner("policy", "Play")
    page.wait_for_selector("#policy-board svg g[transform]")
    box = page.locator("#policy-board svg").bounding_box()
    unit = box["width"] / 512

    def drag(start, end):
        (a, b), (c, d) = ((box["x"] + x * unit, box["y"] + y * unit) for x, y in (start, end))
        page.mouse.move(a, b)
        page.mouse.down()
        page.mouse.move((a + c) / 2, (b + d) / 2)
        page.mouse.move(c, d)
        page.mouse.up()

    def value(name):
        return float(page.locator(f"#policy-edit-{name} input").input_value())

    watched.fill({"policy-edit-angle": 0, "policy-edit-block_x": 200, "policy-edit-block_y": 300})
    page.wait_for_function(
        """() => document.querySelector('#policy-board g[data-x$="block_x"]').getAttribute("transform").startsWith(
        "translate(200 300) rotate(0 ")"""
    )
    watched.shot("board")
    drag((200, 310), (300, 210))
    assert abs(value("block_x") - 300) <= 2 and abs(value("block_y") - 200) <= 2
    drag((value("block_x"), value("block_y") + 120 + 26), (value("block_x") + 150, value("block_y") + 45))
    assert abs(value("angle") + 90) <= 3
    drag((300, 245), (3000, 245))
    assert value("block_x") == 400  # and no farther than the simulation has it
    watched.fill({"policy-edit-goal_x": 150})
    page.wait_for_function(
        """() => document.querySelector('#policy-board g[data-x$="goal_x"]').getAttribute("transform").startsWith(
        "translate(150 256) rotate(45 ")"""
    )
    watched.shot("board-dragged")


def test_an_upload_is_noised_and_a_damaged_one_is_told(watched, tmp_path):
    page = watched.page
    watched.inner("image", "Forward")
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"damaged" * 20)
    watched.upload("image-upload", tmp_path / "cat.png")
    page.click("#image-forward-go")
    page.wait_for_selector("text=cat.png: ")
    watched.shot("damaged")
    page.reload()
    page.wait_for_selector("#image-go")
    watched.inner("image", "Forward")
    Image.fromarray(np.full((28, 28), 200, np.uint8)).save(tmp_path / "good.png")
    watched.upload("image-upload", tmp_path / "good.png")
    page.click("#image-forward-go")
    page.wait_for_selector("#image-forward-picture img")
    page.wait_for_selector("#image-curve .js-plotly-plot")
    watched.shot("forward")


def test_guidance_is_a_row_of_pictures(watched):
    page = watched.page
    watched.fill({"image-steps": 2})
    watched.inner("image", "Guidance")
    page.locator("#image-weights textarea, #image-weights input").first.fill("0, 2")
    page.click("#image-guidance-go")
    page.wait_for_selector("#image-guidance-row >> text=w = 2")
    watched.shot("guidance")

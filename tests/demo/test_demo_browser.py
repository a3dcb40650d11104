"""The page in a real browser without a window: what is seen and heard, what is asked for, what is said in the console.

Chromium is Debian's own (`apt install chromium`); playwright brings none, and its own cannot be fetched everywhere. Without
either the tests are skipped. $ZOO_BROWSER names another Chromium.
"""

import os
import shutil
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="the extra `demo` is not installed")

from zoo.demo import serve  # noqa: E402  # gradio first

CHROMIUM = os.environ.get("ZOO_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = os.environ.get("ZOO_SCREENSHOTS")
#: milliseconds: a busy machine draws slowly
PATIENCE = int(os.environ.get("ZOO_BROWSER_PATIENCE", "120000"))
MODELS = {
    "image": "image/fashion-ddpm",
    "audio": "audio/spec-ddpm",
    "point3d": "point3d/shapes-ddpm",
    "protein": "protein/backbone-ddpm",
    "policy": "policy/pusht-keypoints",
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium, or set ZOO_BROWSER"),
]


@pytest.fixture(scope="module")
def served():
    app = serve.launch(",".join(MODELS.values()), block=False)
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
        self.page.set_default_timeout(PATIENCE)
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on(
            "console",
            lambda m: self.errors.append(m.text) if m.type == "error" or "i18n" in m.text else None,
        )
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.goto(address)
        self.page.wait_for_selector("#image-go")

    def tab(self, domain: str) -> None:
        self.page.get_by_role("tab", name=domain.capitalize(), exact=True).first.click()
        self.page.wait_for_selector(f"#{domain}-go", state="visible")

    def inner(self, domain: str, name: str) -> None:
        visible = self.page.get_by_role("tab", name=name, exact=True)
        for i in range(visible.count()):
            if visible.nth(i).is_visible():
                return visible.nth(i).click()
        raise AssertionError(f"no tab {name} of {domain}")

    def fill(self, name: str, value: object) -> None:
        field = self.page.locator(f"#{name} input").first
        field.fill(str(value))
        field.press("Tab")

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


def drawn(page, selector: str) -> int:
    """How many pixels of a WebGL canvas differ from its corner."""
    page.wait_for_selector(f"{selector} canvas")
    page.wait_for_timeout(1500)
    import io

    picture = np.asarray(Image.open(io.BytesIO(page.locator(f"{selector} .js-plotly-plot").first.screenshot())).convert("RGB"))
    return int((np.abs(picture.astype(int) - picture[2, 2]).sum(-1) > 30).sum())


def wait_for_webgl(page, selector: str) -> None:
    """Until there is a canvas that draws so: the scene's script begins after its file has come."""
    page.wait_for_function(
        """s => [...document.querySelectorAll(s + " canvas")].some(c => c.getContext("webgl") || c.getContext("webgl2"))""",
        arg=selector,
        timeout=PATIENCE,
    )


def test_a_picture_forms_and_the_slider_goes_back(watched):
    page = watched.page
    watched.fill("image-steps", 4)
    page.click("#image-go")
    watched.done("image")
    width, height, different = pixels(page, "#image-x0-picture")
    assert width > 100 and height > 100 and different > 100
    last = page.locator("#image-x0-picture img").get_attribute("src")
    slider = page.locator("#image-slider input[type=range]")
    slider.focus()
    slider.press("Home")
    page.wait_for_function("s => document.querySelector('#image-x0-picture img').src != s", arg=last, timeout=PATIENCE)
    assert "Step 1 of 4" in page.locator("#image-said").inner_text()
    watched.shot("image")


def test_a_clip_has_a_sound_of_the_right_length(watched):
    page = watched.page
    watched.tab("audio")
    watched.fill("audio-steps", 4)
    page.click("#audio-go")
    watched.done("audio")
    address = page.locator("#audio-x0-sound").evaluate(
        "e => (e.querySelector('audio') || {}).src || e.querySelector('a[download]').href"
    )
    seconds, loudest = page.evaluate(
        """async u => { const data = await (await fetch(u)).arrayBuffer();
        const sound = await new OfflineAudioContext(1, 8000, 8000).decodeAudioData(data);
        return [sound.duration, Math.max(...sound.getChannelData(0).map(Math.abs))]; }""",
        address,
    )
    import zoo

    codec = zoo.load(MODELS["audio"]).codec
    assert abs(seconds - codec.samples / codec.sample_rate) < 0.01 and loudest > 0.001
    assert pixels(page, "#audio-x0-picture")[2] > 1000
    watched.shot("audio")


@pytest.mark.parametrize("domain", ["point3d", "protein"])
def test_clouds_and_chains_are_drawn_with_webgl(watched, domain):
    page = watched.page
    watched.tab(domain)
    watched.fill(f"{domain}-steps", 4)
    watched.fill(f"{domain}-size", 64)
    page.click(f"#{domain}-go")
    watched.done(domain)
    wait_for_webgl(page, f"#{domain}-x0-scene")
    assert drawn(page, f"#{domain}-x0-scene") > 200
    watched.shot(domain)


def test_a_policy_plans(watched):
    page = watched.page
    watched.tab("policy")
    page.click("#policy-go")
    watched.done("policy")
    assert pixels(page, "#policy-x0-picture")[2] > 1000
    watched.shot("policy")


def test_an_upload_is_noised_and_a_damaged_one_is_told(watched, tmp_path):
    page = watched.page
    watched.inner("image", "Forward")
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"damaged" * 20)
    page.set_input_files("#image-upload input[type=file]", str(tmp_path / "cat.png"))
    page.wait_for_selector("#image-upload >> text=cat.png")
    page.click("#image-forward-go")
    page.wait_for_selector("text=cat.png: ")
    watched.shot("damaged")
    page.reload()
    page.wait_for_selector("#image-go")
    watched.inner("image", "Forward")
    Image.fromarray(np.full((28, 28), 200, np.uint8)).save(tmp_path / "good.png")
    page.set_input_files("#image-upload input[type=file]", str(tmp_path / "good.png"))
    page.wait_for_selector("#image-upload >> text=good.png")
    page.click("#image-forward-go")
    page.wait_for_selector("#image-forward-picture img")
    page.wait_for_selector("#image-curve .js-plotly-plot")
    watched.shot("forward")


def test_guidance_is_a_row_of_pictures(watched):
    page = watched.page
    watched.fill("image-steps", 2)
    watched.inner("image", "Guidance")
    page.locator("#image-weights textarea, #image-weights input").first.fill("0, 2")
    page.click("#image-guidance-go")
    page.wait_for_selector("#image-guidance-row >> text=w = 2")
    watched.shot("guidance")

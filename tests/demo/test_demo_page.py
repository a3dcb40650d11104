"""The page by its handlers, and over HTTP as a browser's program talks to it."""

import io

import numpy as np
import pytest
from PIL import Image

from zoo.contract.page import Film, Gallery, Picture, Question, Scene, Sound

gradio = pytest.importorskip("gradio", reason="the extra `demo` is not installed")

from zoo.demo import parts, serve  # noqa: E402  # gradio first
from zoo.demo.engine import Engine, Limits  # noqa: E402
from zoo.demo.page import page, told  # noqa: E402
from zoo.errors import ConfigError, DataError  # noqa: E402


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
    import json

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
    import re

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
    assert serve.chosen("image/*,audio/spec*") == ["image/fashion-ddpm", "audio/spec-ddpm"]
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
def test_ten_people_at_once_are_all_served(client, pictures):
    how = ["ddim", 2, 0.0]
    jobs = [client.submit(pictures, 1, i, False, *how, *how, *FIELDS, api_name="/image_reverse") for i in range(10)]
    assert all("Step 2 of 2" in job.result(timeout=600)[0] for job in jobs)


@pytest.mark.slow
def test_a_slider_goes_back_and_an_edit_keeps(client, pictures):
    how = ["ddim", 3, 0.0]
    client.predict(pictures, 1, 0, False, *how, *how, *FIELDS, api_name="/image_reverse")
    said, *_ = client.predict(0, api_name="/image_step")
    assert "Step 1 of 3" in said
    shown = client.predict(pictures, 1, 0, "0, 2", "ddim", 2, *FIELDS, api_name="/image_guidance")
    assert [row["caption"] for row in shown] == ["w = 0", "w = 2"]

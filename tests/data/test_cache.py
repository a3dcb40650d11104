"""What is fetched: whole, in time and as its sum says, or one error with a piece of advice."""

import functools
import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from zoo.data.cache import cache_folder, download, file_sha256
from zoo.errors import DataError

ADVICE = "Put it there by hand."


@pytest.fixture
def server():
    """(address, answers): loopback HTTP that sends answers["bytes"] and announces answers["length"] of them."""
    answers = {"bytes": b"a file", "length": 6}
    wait = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/silent":
                wait.wait(20)
                return
            self.send_response(404 if self.path == "/missing" else 200)
            self.send_header("Content-Length", str(answers["length"]))
            self.end_headers()
            self.wfile.write(answers["bytes"])

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler))
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", answers
    wait.set()
    running.shutdown()
    running.server_close()


def test_the_cache_is_where_the_user_says(monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", "~/elsewhere")
    assert cache_folder("fsdd") == Path.home() / "elsewhere" / "fsdd"
    for unset in (lambda: monkeypatch.setenv("ZOO_CACHE", ""), lambda: monkeypatch.delenv("ZOO_CACHE")):
        unset()
        assert cache_folder("fsdd") == Path.home() / ".cache" / "zoo" / "fsdd"


def test_a_file_comes_whole_and_with_its_sum(server):
    home, _ = server
    assert download(f"{home}/a", advice=ADVICE) == b"a file"
    digest = hashlib.md5(b"a file").hexdigest()
    assert download(f"{home}/a", advice=ADVICE, expected_md5=digest) == b"a file"
    with pytest.raises(DataError, match=rf"{home}/a has MD5 {digest}, expected {'0' * 32}: not kept"):
        download(f"{home}/a", advice=ADVICE, expected_md5="0" * 32)


def test_what_cannot_be_fetched_names_the_address_and_the_advice(server):
    home, answers = server
    answers["length"] = 9  # and the answer ends before
    for url in (f"{home}/a", f"{home}/missing", "http://127.0.0.1:9/a", "nonsense"):
        with pytest.raises(DataError, match=rf"^cannot fetch {url}: .+ {ADVICE}$"):
            download(url, advice=ADVICE)


def test_a_server_that_says_nothing_is_given_up(server):
    home, _ = server
    with pytest.raises(DataError, match="timed out"):
        download(f"{home}/silent", advice=ADVICE, seconds=0.2)


def test_a_server_that_never_ends_is_given_up(server):
    home, answers = server
    answers["bytes"], answers["length"] = bytes(3 * 2**20), 3 * 2**20
    with pytest.raises(DataError, match=rf"it sends more than 1,000 bytes\. {ADVICE}"):
        download(f"{home}/a", advice=ADVICE, most=1000)
    with pytest.raises(DataError, match=rf"bytes in 0 seconds, and no end\. {ADVICE}"):
        download(f"{home}/a", advice=ADVICE, total=0)


def test_the_sum_of_a_file_is_that_of_its_content(tmp_path):
    for content in (b"a", b"b", bytes(2**21)):
        (tmp_path / "a").write_bytes(content)
        assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()

"""No request waits for ever, no answer is taken at its word: at each request of a push, a pull and a dataset, one HubError."""

import os
import shutil
import socket
import ssl
import stat
import threading
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hubserver import OWNER
from test_hub_push import STEPS

import zoo
from zoo.errors import CheckpointError, ConfigError, HubError
from zoo.files import new_folder, save_tensors, write_atomic
from zoo.hub import client, limits
from zoo.hub.address import Address
from zoo.hub.push import model_files, push

#: seconds in all, in these tests; a third of it for a request, a sixth without a byte
TOTAL = 0.6
#: seconds that a busy machine may need on top of it
SLACK = 1.5

PULL = [
    ("GET", "/api/models/me/m$"), ("HEAD", "/resolve/.*/config.json"), ("GET", "/resolve/.*/config.json"),
    ("HEAD", "/resolve/.*/model.safetensors"), ("GET", "/resolve/.*/model.safetensors"), ("GET", "/cdn/"),
]  # fmt: skip
PUSH = [
    *STEPS, ("GET", "/api/models/me/new/revision/"), ("HEAD", "/resolve/.*/README.md"), ("GET", "/resolve/.*/README.md"),
]  # fmt: skip
KINDS = ["silent", "drip", "drip-body", "wait"]
#: of each kind some in the quick suite, the others in the slow one
QUICK = {
    ("silent", "/resolve/.*/config.json"), ("silent", "/commit/"), ("drip", "/api/models/me/m$"), ("drip", "/preupload/"),
    ("drip-body", "/cdn/"), ("wait", "/lfs/"), ("wait", "/resolve/.*/model.safetensors"),
}  # fmt: skip


def combinations(requests):
    found = []
    for method, pattern in requests:
        for kind in KINDS:
            if method in ("HEAD", "PUT") and kind == "drip-body":  # there is no body
                continue
            marks = () if (kind, pattern) in QUICK else pytest.mark.slow
            found.append(pytest.param(method, pattern, kind, marks=marks, id=f"{method}-{pattern}-{kind}"))
    return found


@pytest.fixture
def short(hub, monkeypatch):
    for name in ("CommitOperationAdd", "ModelCard"):  # what is imported at the first request takes a second
        getattr(huggingface_hub, name)
    with pytest.raises(HubError):
        client.resolve(Address("me/none"))
    with pytest.raises(HubError):
        client.fetch(client.Snapshot(Address("me/none"), "0" * 40, {"config.json": "0" * 40}), "config.json")
    hub.log.clear()
    monkeypatch.setenv("ZOO_HUB_TIMEOUT", str(TOTAL))
    monkeypatch.setattr(limits, "RATE", 10**9)  # no further time for the files


def spoil(hub, method: str, pattern: str, kind: str):
    place = hub.cdn if pattern in ("/cdn/", "/lfs/") else hub
    if kind == "wait":
        place.fault(pattern, "status", method=method, status=429, times=99, Retry_After="100000")
    else:
        place.fault(pattern, kind, method=method, times=99)
    return place.faults[0]


def ends(hub, call, total: float = TOTAL) -> str:
    """The text of the one error with which a call ends, in time."""
    started = time.monotonic()
    with pytest.raises(HubError) as caught:
        call()
    assert time.monotonic() - started < total + SLACK
    assert sum(hub.slept) <= total, "no pause that goes over the limit was begun"
    text = str(caught.value)
    assert "\n" not in text and len(text) < 900 and "Traceback" not in text
    assert caught.value.__cause__ is None and OWNER not in text
    return text


@pytest.mark.parametrize(("method", "pattern", "kind"), combinations(PULL))
def test_a_pull_ends_in_time_whichever_request_hangs(repo, hub, short, method, pattern, kind):
    hub.redirect = pattern == "/cdn/"
    fault = spoil(hub, method, pattern, kind)
    text = ends(hub, lambda: client.pull("hub:me/m", ["model.safetensors"]))
    assert fault.times < 99, "the fault was met"
    assert "of me/m@main" in text or "find me/m@main" in text
    assert "The limits: 0.1 s without an answer, 0.2 s for a request, 0.6 s in all" in text and "ZOO_HUB_TIMEOUT" in text


@pytest.mark.parametrize(("method", "pattern", "kind"), combinations(PUSH))
def test_a_push_ends_in_time_whichever_request_hangs(hub, ready, short, monkeypatch, method, pattern, kind):
    files, recipe, card = ready
    if "README" in pattern:
        hub.add("me/new", {"README.md": b"my own words"})
    fault = spoil(hub, method, pattern, kind)
    text = ends(hub, lambda: push(Address("me/new"), files, recipe, card, token=OWNER, tag="v1"))
    words = "The limits: 0.1 s without an answer, 0.2 s for a request, 0.6 s in all"
    if fault.times == 99:  # a busy machine was at its limit before this request
        monkeypatch.setenv("ZOO_HUB_TIMEOUT", "6")
        text = ends(hub, lambda: push(Address("me/new"), files, recipe, card, token=OWNER, tag="v1"), 6)
        words = "The limits: 1 s without an answer, 2 s for a request, 6 s in all"
    assert fault.times < 99, "the fault was met"
    assert "me/new@" in text and words in text
    hub.faults.clear()
    hub.cdn.faults.clear()
    hub.stop_stalling.set()
    os.environ.pop("ZOO_HUB_TIMEOUT")
    push(Address("me/new"), files, recipe, card, token=OWNER, tag="v1")
    assert hub.repos["model", "me/new"].tags, "and afterwards all is well"


def test_these_are_all_requests_of_a_push_and_a_pull(hub, ready):
    """So that a request that is new does not stay without a test."""
    import re

    files, recipe, card = ready
    hub.add("me/new", {"README.md": b"my own words"})
    push(Address("me/new"), files, recipe, card, token=OWNER, tag="v1")
    hub.redirect = True
    pulled = [*PULL, ("HEAD", "/resolve/"), ("GET", "/resolve/")]
    client.pull("hub:me/new", ["model.safetensors"])
    seen = {(s.method, s.path) for s in hub.log + hub.cdn.log}
    known = [*PUSH, *((m, p.replace("me/m", "me/new")) for m, p in pulled)]
    assert not [s for s in seen if not any(m == s[0] and re.search(p, s[1]) for m, p in known)]


def test_limits_are_of_an_exchange_and_not_of_others(repo, hub, short):
    """What another thread asks of the Hub by the client itself is not touched."""
    done = threading.Event()
    got = []

    def other():
        done.wait(5)
        got.append(limits.current())

    thread = threading.Thread(target=other)
    thread.start()
    with limits.exchange() as here:
        worker = []
        mine = threading.Thread(target=lambda: worker.append(limits.current()))
        mine.start()
        mine.join()
        done.set()
        thread.join()
    assert worker == [here] and got == [None] and limits.current() is None


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_a_limit_that_is_none(hub, monkeypatch, text):
    monkeypatch.setenv("ZOO_HUB_TIMEOUT", text)
    with pytest.raises(ConfigError, match=r"ZOO_HUB_TIMEOUT=.*seconds, more than 0"):
        zoo.load("hub:me/m")


def test_a_large_file_has_more_time(repo, hub, monkeypatch):
    monkeypatch.setenv("ZOO_HUB_TIMEOUT", "30")
    monkeypatch.setattr(limits, "RATE", 1000)
    with limits.exchange() as here:
        client.pull("hub:me/m")
        size = sum(len(d) for n, d in repo.files.items() if n.endswith((".safetensors", ".json", ".md")))
        assert here.allowance == pytest.approx(size / 1000)
        client.pull("hub:me/m")
        assert here.allowance == pytest.approx(size / 1000), "once for each file"


@pytest.mark.parametrize("value", ["9" * 5000, "\xb2", "-1", "1e9", "Wed, 21 Oct 2099 07:28:00 GMT", "7, 8", ""])
def test_a_wish_to_wait_that_is_none(repo, hub, value):
    for method, pattern in (("GET", "/api/models"), ("HEAD", "config.json"), ("GET", "config.json")):
        hub.fault(pattern, "status", method=method, status=429, Retry_After=value, RateLimit='"api";r=0;t=99999')
    client.pull("hub:me/m", ())
    assert hub.slept and max(hub.slept) <= limits.LONGEST_WAIT + 1


def test_a_wish_to_wait_is_kept_up_to_a_limit(repo, hub):
    for method, pattern in (
        ("GET", "/api/models"),
        ("GET", "config.json"),
    ):  # after the first we wait, after the other the client
        hub.fault(pattern, "status", method=method, status=429, Retry_After="86400", RateLimit='"api";r=0;t=99999')
    client.pull("hub:me/m", ())
    assert hub.slept == [limits.LONGEST_WAIT, limits.LONGEST_WAIT + 1]


# ---------------------------------------------------------------- other ways without an end


def test_a_circle_of_redirects(repo, hub):
    for method, pattern in (("GET", "/api/models"), ("GET", "config.json"), ("HEAD", "config.json")):
        hub.faults.clear()
        hub.fault(pattern, "circle", method=method, times=999)
        with pytest.raises(HubError, match=r"me/m@main: .*(in a circle|does not answer like a Hub|cannot be reached)"):
            client.pull("hub:me/m", ())


@pytest.mark.parametrize("pattern", ["/api/models", "config.json"])
def test_a_body_without_end(repo, hub, monkeypatch, pattern):
    monkeypatch.setattr(limits, "MOST_LISTED", 1 << 20)
    hub.fault(pattern, "endless", times=99)
    with pytest.raises(HubError, match=r"me/m@main: .*(not files|does not end). It ends here|bytes. It ends here"):
        client.pull("hub:me/m", ())
    assert not list(Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_a_body_longer_than_the_listing_says(repo, hub):
    hub.fault("config.json", "answer", body=b"x" * 100_000, times=99)
    with pytest.raises(HubError, match="the answer has 100000 bytes, the listing says"):
        client.pull("hub:me/m", ())


def test_another_process_that_holds_a_file_for_ever(repo, hub, short):
    from filelock import FileLock

    blob = client.resolve(Address("me/m")).files["config.json"]
    lock = Path(huggingface_hub.constants.HF_HUB_CACHE) / ".locks" / "models--me--m" / f"{blob}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        started = time.monotonic()
        with pytest.raises(HubError, match=r"waiting for another process that fetches config.json"):
            client.pull("hub:me/m", ())
    assert time.monotonic() - started < TOTAL + SLACK


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_accepts_and_says_nothing(hub, monkeypatch, short, scheme):
    """Also in the middle of TLS."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"{scheme}://127.0.0.1:{listening.getsockname()[1]}")
        assert "cannot find me/m@main" in ends(hub, lambda: client.pull("hub:me/m"))


def test_a_server_that_does_not_take_a_connection(hub, monkeypatch, short):
    with socket.socket() as listening, socket.socket() as one, socket.socket() as two:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for full in (one, two):  # the queue of the kernel
            full.setblocking(False)
            full.connect_ex(listening.getsockname())
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert "The limits" in ends(hub, lambda: client.pull("hub:me/m"))


def test_the_wait_of_every_kind_is_the_request_s(monkeypatch):
    """Connecting, TLS, reading and writing are all under it, whatever the client asks for."""
    asked = []

    class Inner:
        def __getattr__(self, name):
            def call(*args, timeout=None, **options):
                asked.append((name, timeout))
                return self if name in ("connect_tcp", "start_tls") else b""

            return call

    here = limits.Exchange(6.0)
    with limits._Request(here, "GET", "http://x/y", 0).at_work():
        stream = limits._Backend(Inner()).connect_tcp("x", 1, timeout=None).start_tls(ssl.create_default_context(), timeout=99)
        stream.read(10, timeout=0.5)
        stream.write(b"x" * 70_000, timeout=None)
    assert [(n, t if t == 0.5 else round(t, 1)) for n, t in asked] == [
        ("connect_tcp", 1.0), ("start_tls", 1.0), ("read", 0.5), ("write", 1.0), ("write", 1.0),
    ]  # fmt: skip
    here.started -= 6.0
    with pytest.raises(HubError, match="took too long"), limits._Request(here, "GET", "http://x/y", 0).at_work():
        stream.read(10)


# ---------------------------------------------------------------- names from the server


def tree(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*")}


ETAGS = [
    '"../../../../evil"', '"/tmp/zoo-evil"', "../../evil", 'W/"../x"', '"a/b"', f'"{"0" * 40}/../../x"', '"a\\b"',
    '"\xff\xfe"', '"."', '".."', '"CON"', f'"{"a" * 5000}"', f'"{"A" * 64}"', '" "', '"a\tb"', '"%2e%2e%2fevil"', "0",
    f'"{"0" * 41}"',
]  # fmt: skip


@pytest.mark.parametrize("name", ["ETag", "X-Linked-Etag"])
@pytest.mark.parametrize("etag", ETAGS)
def test_an_etag_is_never_a_name_of_a_file(repo, hub, tmp_path, etag, name):
    client.resolve(Address("me/m"))
    before = tree(tmp_path)
    hub.fault("config.json", "answer", method="HEAD", times=99, **{name.replace("-", "_"): etag})
    with pytest.raises(HubError, match=r"cannot fetch config.json of me/m@main: HEAD .*config.json: ETag is .*not a hash"):
        client.pull("hub:me/m", ())
    assert tree(tmp_path) == before and not Path("/tmp/zoo-evil").exists()


def test_an_etag_of_other_content(repo, hub, tmp_path):
    client.resolve(Address("me/m"))
    before = tree(tmp_path)
    hub.fault("config.json", "answer", method="HEAD", times=99, ETag=f'"{"0" * 40}"')
    with pytest.raises(HubError, match=r"the content is 0{40}, the listing says [0-9a-f]{40}"):
        client.pull("hub:me/m", ())
    assert tree(tmp_path) == before


def test_an_etag_on_the_way_to_the_storage(repo, hub, tmp_path):
    """A redirect to another host has the file's facts in itself."""
    hub.redirect = True
    client.resolve(Address("me/m"))
    for etag in ('"../../../../evil"', f'"{"0" * 64}"'):
        hub.faults.clear()
        hub.fault("model.safetensors", "answer", method="HEAD", times=99, X_Linked_Etag=None, ETag=etag)
        with pytest.raises(HubError, match=r"cannot fetch model.safetensors of me/m@main: .*does not answer like a Hub"):
            client.pull("hub:me/m", ["model.safetensors"])
    assert not [p for p in tree(tmp_path) if "evil" in p or "0" * 64 in p]


@pytest.mark.parametrize("commit", ["../../../evil", "/tmp/zoo-evil", "0" * 40, "main", "a" * 41, "\xff", " "])
@pytest.mark.parametrize("status", [200, 404])
def test_a_commit_is_never_a_name_of_a_file(repo, hub, tmp_path, commit, status):
    client.resolve(Address("me/m"))
    before = tree(tmp_path)
    if status == 200:
        hub.fault("config.json", "answer", method="HEAD", times=99, X_Repo_Commit=commit)
    else:
        hub.fault(
            "config.json", "status", method="HEAD", times=99, status=404, X_Repo_Commit=commit, X_Error_Code="EntryNotFound"
        )
    with pytest.raises(HubError, match=r"me/m@main: .*(not a commit|not of the one that was asked for)"):
        client.pull("hub:me/m", ())
    assert tree(tmp_path) == before and not Path("/tmp/zoo-evil").exists()


def test_a_commit_in_the_answer_to_a_branch(repo, hub, tmp_path):
    """Also where the client is used without a commit, as by the library for datasets."""
    hub.fault("config.json", "answer", method="HEAD", times=99, X_Repo_Commit="../../../evil")
    with pytest.raises(HubError, match="not a commit"), client.explained(Address("me/m"), "fetch", None):
        huggingface_hub.hf_hub_download("me/m", "config.json", endpoint=hub.url)
    assert not [p for p in tree(tmp_path) if "evil" in p]


def test_a_reference_that_another_tool_wrote(repo, hub, tmp_path, monkeypatch):
    reference = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--me--m" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_bytes(b"../../../../\xff")
    with pytest.raises(HubError, match="offline, and not in the cache"):
        client.pull("hub:me/m", local_files_only=True)
    assert client.pull("hub:me/m", ()).is_dir()


@pytest.mark.parametrize("header", ["../../x", "A" * 64, "", "0" * 63])
def test_a_hash_of_xet_is_one(repo, hub, header):
    hub.fault("config.json", "answer", method="HEAD", times=99, X_Xet_Hash=header)
    with pytest.raises(HubError, match="X-Xet-Hash is"):
        client.pull("hub:me/m", ())


# ---------------------------------------------------------------- where the server sends us

HOSTS = [
    ("https://hub.example", "http://hub.example/x", "without encryption"),
    ("https://hub.example", "https://127.0.0.1/x", "your own network"),
    ("https://hub.example", "https://[::1]/x", "your own network"),
    ("https://hub.example", "https://169.254.169.254/latest", "your own network"),
    ("https://hub.example", "https://192.168.0.1/x", "your own network"),
    ("https://hub.example", "https://2130706433/x", "your own network"),
    ("https://hub.example", "https://127.1/x", "your own network"),
    ("https://hub.example", "https://localhost/x", "your own network"),
    ("https://hub.example", "https://[::ffff:10.0.0.1]/x", "your own network"),
    ("https://hub.example", "https://storage.example/x", None),
    ("https://hub.example", "https://huggingface.co/x", None),
    ("http://127.0.0.1:1", "http://localhost:2/x", None),
]


@pytest.mark.parametrize(("endpoint", "target", "message"), HOSTS)
def test_where_a_redirect_may_lead(monkeypatch, endpoint, target, message):
    httpx = huggingface_hub.utils.httpx
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    request = httpx.Request("GET", target, headers={"authorization": f"Bearer {OWNER}"})
    here = limits.Exchange(1.0)
    if message:
        with pytest.raises(HubError, match=message):
            limits._check_target(here, request)
    else:
        limits._check_target(here, request)
        assert ("authorization" in request.headers) == ("huggingface.co" in target), "the token is for the Hub alone"


def test_the_token_does_not_follow_an_upload_to_another_host(hub, ready, monkeypatch):
    """The storage may ask for a confirmation at any address: it gets no token there."""
    import json

    files, recipe, card = ready
    upload = {"href": f"{hub.cdn.url}/lfs/{'0' * 64}"}
    size = files["model.safetensors"].stat().st_size
    answer = {"objects": [{"oid": "0" * 64, "size": size, "actions": {"upload": upload, "verify": upload}}]}
    hub.fault("objects/batch", "answer", method="POST", times=9, body=json.dumps(answer).encode())
    with pytest.raises(HubError, match="cannot push to me/new@main"):
        push(Address("me/new"), files, recipe, card, token=OWNER)
    assert all(s.authorization is None for s in hub.cdn.log)


# ---------------------------------------------------------------- links, and who may read a file


LINKS = [
    ("curves.json", "secret.json"), ("samples.png", "../secret.json"), ("samples", "pictures"),
    ("evaluation.json", "/etc/passwd"), ("samples.png", "not there"),
]  # fmt: skip


@pytest.mark.parametrize(("link", "target"), LINKS)
def test_a_link_out_of_the_folder_is_not_pushed(folder, tmp_path, link, target):
    (tmp_path / "secret.json").write_text('{"password": 1}')
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "me.png").write_bytes(b"\x89PNG")
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    (mine / link).symlink_to(target if target.startswith("..") else tmp_path / target)
    with pytest.raises(CheckpointError, match=r"is a link to .*, outside of the folder: it is not pushed"):
        model_files(mine)


@pytest.mark.slow
def test_nothing_is_sent_of_a_folder_with_a_link_out_of_it(hub, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "mine")
    (tmp_path / "mine" / "evaluation.json").symlink_to("/etc/passwd")
    (tmp_path / "mine" / "samples.png").symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match="outside of the folder"):
        zoo.load(tmp_path / "mine").push_to_hub("me/new", token=OWNER)
    assert hub.log == []


def test_a_link_within_the_folder_is_pushed_as_the_file(tmp_path):
    inner = tmp_path / "mine"
    (inner / "samples").mkdir(parents=True)
    (inner / "plain.png").write_bytes(b"\x89PNG")
    (inner / "samples" / "x.png").symlink_to("../plain.png")
    (inner / "other.txt").symlink_to("/etc/passwd")
    assert model_files(inner) == {n: (inner / "plain.png").resolve() for n in ("plain.png", "samples/x.png")}
    (tmp_path / "linked").symlink_to(inner)
    assert "plain.png" in model_files(tmp_path / "linked"), "the folder that was named may be a link itself"
    for name, target in (("gone.png", "nothing.png"), ("circle.png", "circle.png")):
        (inner / name).symlink_to(target)
        with pytest.raises(CheckpointError, match="a link to nothing"):
            model_files(inner)
        (inner / name).unlink()


@pytest.mark.slow
def test_a_pulled_model_can_be_pushed(repo, hub, model):
    """In the client's cache the files of a model are links."""
    pulled = zoo.load("hub:me/m")
    assert (pulled.folder / "model.safetensors").is_symlink()
    pulled.push_to_hub("me/new", token=OWNER, samples=False)
    assert hub.repos["model", "me/new"].files["model.safetensors"] == repo.files["model.safetensors"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_user_s_umask(hub, tmp_path, mask):
    """What is pulled, cached, copied and saved."""
    hub.add("me/m", {"config.json": b"{}", "model.safetensors": b"x", "samples/a.png": b"y"})
    before = os.umask(mask)
    try:
        client.copy(client.pull("hub:me/m"), tmp_path / "copy")
        save_tensors(tmp_path / "saved" / "x.safetensors", {"a": torch.ones(1)})
        with new_folder(tmp_path / "saved") as temporary:
            write_atomic(temporary / "config.json", b"{}")
        write_atomic(tmp_path / "saved" / "config.json", b"[]")  # over it
    finally:
        os.umask(before)
    paths = [p for top in ("copy", "saved", "cache") for p in (tmp_path / top).rglob("*") if not p.is_symlink()]
    files = [p for p in paths if p.is_file() and ".locks" not in p.parts]
    assert len(files) > 8
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in files if stat.S_IMODE(p.stat().st_mode) != 0o666 & ~mask} == {}
    assert [p.name for p in paths if p.is_dir() and stat.S_IMODE(p.stat().st_mode) != 0o777 & ~mask] == []

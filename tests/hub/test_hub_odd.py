"""Answers that no Hub gives, to each request of a push, a pull and a dataset: a right result or one clear error."""

import json
import random
import re
import zlib

import huggingface_hub.constants
import pytest
from hubserver import OWNER, equal
from test_hub_limits import PULL, PUSH

import zoo
from zoo.errors import DataError, HubError, ZooError
from zoo.hub import client
from zoo.hub.address import Address
from zoo.hub.push import push

DEEP = b"[" * 100_000 + b"]" * 100_000
#: name -> (body, headers)
BODIES = {
    "empty": (b"", {}),
    "null": (b"null", {}),
    "list": (b"[]", {}),
    "list of null": (b"[null]", {}),
    "text": (b'"ok"', {}),
    "number": (b"1", {}),
    "huge number": (b"9" * 5000, {}),
    "infinity": (b'{"size": 1e999, "sha": NaN}', {}),
    "object": (b"{}", {}),
    "error": (b'{"error": {"a": [1, null]}, "errors": 3}', {}),
    "deep": (DEEP, {}),
    "deep objects": (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, {}),
    "cut off": (b'{"id": "me/m", "sha": "', {}),
    "not UTF-8": (b'{"id": "\xff\xfe"}', {}),
    "lone surrogate": (b'{"id": "\\ud800", "sha": "\\ud800", "siblings": [{"rfilename": "\\ud800"}]}', {}),
    "BOM": (b"\xef\xbb\xbf{}", {}),
    "NUL": (b"\0" * 50, {}),
    "login page": (b"<html><body>Please log in</body></html>", {"Content_Type": "text/html"}),
    "bad gzip": (b"\x1f\x8b\x08garbage", {"Content_Encoding": "gzip"}),
    "good gzip": (zlib.compress(b"{}", wbits=31), {"Content_Encoding": "gzip"}),
    "bomb": (zlib.compress(b" " * (1 << 24), wbits=31), {"Content_Encoding": "gzip"}),
    "bad deflate": (b"garbage", {"Content_Encoding": "deflate"}),
    "unknown coding": (b"{}", {"Content_Encoding": "x-unknown"}),
}
STATUSES = [100, 204, 205, 206, 300, 301, 304, 305, 307, 400, 402, 404, 405, 410, 416, 418, 451, 501, 511, 599, 999]


def changed(rng: random.Random, data, depth: int = 0):
    """JSON with one or two values replaced by values of another kind."""
    odd = [None, True, 0, -1, 10**30, 1.5, "", "x", "../../x", [], {}, [None], {"a": None}, "\ud800", "9" * 5000, [[]] * 3]
    if isinstance(data, dict) and data and rng.random() < 0.9:
        key = rng.choice(sorted(data))
        if rng.random() < 0.15:
            return {k: v for k, v in data.items() if k != key}
        return data | {key: changed(rng, data[key], depth + 1)}
    if isinstance(data, list) and data and rng.random() < 0.9:
        i = rng.randrange(len(data))
        return [*data[:i], changed(rng, data[i], depth + 1), *data[i + 1 :]]
    return rng.choice(odd)


def check(hub, tmp_path, call, doing: str):
    """Run a call: whether it ended well; it may end in one clear error too, and in nothing else."""
    before = {p for p in tmp_path.rglob("*") if "cache" not in p.parts}
    error = None
    try:
        call()
    except ZooError as caught:
        error = caught
    assert {p for p in tmp_path.rglob("*") if "cache" not in p.parts} == before, "it wrote elsewhere"
    assert all(p.resolve().is_relative_to(hub.root) for p in hub.root.rglob("*")), "it wrote out of the cache"
    if error is None:
        return True
    text = str(error)
    assert isinstance(error, (HubError, DataError)) and "\n" not in text and len(text) < 1000, text
    assert text.isprintable() and OWNER not in text, text
    assert re.match(doing, text), text
    return False


@pytest.fixture
def rooted(hub, tmp_path, monkeypatch):
    hub.root = (tmp_path / "cache").resolve()
    monkeypatch.setenv("ZOO_HUB_TIMEOUT", "6")  # some answers leave the client waiting for more
    return hub


def fresh(hub, monkeypatch, tmp_path, i: int):
    """Another empty cache, and no fault."""
    hub.faults.clear()
    hub.cdn.faults.clear()
    hub.cdn.objects.clear()
    hub.root = (tmp_path / "cache" / str(i)).resolve()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub.root))


def pull_ends_well(hub, tmp_path, model) -> bool:
    folder = []
    well = check(hub, tmp_path, lambda: folder.append(client.pull("hub:me/m")), r"cannot \w+ .*me/m@|.*me/m@.*")
    if well:
        assert equal(zoo.load(folder[0]), model), "another model came in silence"
    return well


def push_ends_well(hub, tmp_path, files, recipe, card) -> bool:
    pushed = []
    call = lambda: pushed.append(push(Address("me/new"), files, recipe, card, token=OWNER, tag="v1"))  # noqa: E731
    well = check(hub, tmp_path, call, r"cannot \w+ .*me/new@|.*me/new.*|README.md: its metadata")
    if well:
        repo = hub.repos["model", "me/new"]
        assert pushed[0].commit == repo.branches["main"] == repo.tags["v1"]
        assert all(repo.files[n] == p.read_bytes() for n, p in files.items() if n != "README.md"), "less was pushed in silence"
    return well


def where(hub, pattern: str):
    return hub.cdn if pattern in ("/cdn/", "/lfs/") else hub


def odd_bodies(hub, pattern, method):
    for name, (body, headers) in BODIES.items():
        yield (
            name,
            lambda body=body, headers=headers: where(hub, pattern).fault(
                pattern, "answer", method=method, times=99, body=body, **headers
            ),
        )


#: the listing in the quick suite, the other requests in the slow one
READS = [PULL[0], *(pytest.param(*r, marks=pytest.mark.slow) for r in PULL[1:])]


@pytest.mark.parametrize(("method", "pattern"), [r for r in READS if getattr(r, "values", r)[0] == "GET"])
def test_odd_bodies_in_a_pull(rooted, repo, hub, model, monkeypatch, tmp_path, method, pattern):
    hub.redirect = pattern == "/cdn/"
    for i, (name, make) in enumerate(odd_bodies(hub, pattern, method)):
        fresh(hub, monkeypatch, tmp_path, i)
        make()
        assert not pull_ends_well(hub, tmp_path, model), name


WRITES = [r for r in PUSH if r[0] not in ("HEAD",)]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "pattern"), WRITES)
def test_odd_bodies_in_a_push(rooted, hub, ready, monkeypatch, tmp_path, method, pattern):
    files, recipe, card = ready
    for i, (_, make) in enumerate(odd_bodies(hub, pattern, method)):
        fresh(hub, monkeypatch, tmp_path, i)
        hub.repos.clear()
        if "README" in pattern:
            hub.add("me/new", {"README.md": b"my own words"})
        make()
        push_ends_well(hub, tmp_path, files, recipe, card)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "pattern"), [*PULL, *WRITES])
def test_odd_statuses(rooted, repo, hub, ready, model, monkeypatch, tmp_path, method, pattern):
    files, recipe, card = ready
    for i, status in enumerate(STATUSES):
        fresh(hub, monkeypatch, tmp_path, i)
        hub.redirect = pattern == "/cdn/"
        where(hub, pattern).fault(pattern, "status", method=method, status=status, times=99)
        if (method, pattern) in PULL:
            pull_ends_well(hub, tmp_path, model)
        else:
            hub.repos.pop(("model", "me/new"), None)
            if "README" in pattern:
                hub.add("me/new", {"README.md": b"my own words"})
            push_ends_well(hub, tmp_path, files, recipe, card)


LOCATIONS = [
    None, "", "/", "//", "///x", "http://", "http://[", "https://[::1", "file:///etc/passwd", "ftp://x/y", "\xff", "x" * 20_000,
    "http://127.0.0.1:99999/x", "http://127.0.0.1:9/x", "javascript:x", "http://user:pass@127.0.0.1:9/", "?", "#",
    "http://a b/",
]  # fmt: skip


@pytest.mark.parametrize(("method", "pattern"), READS)
def test_odd_redirects(rooted, repo, hub, model, monkeypatch, tmp_path, method, pattern):
    for i, location in enumerate(LOCATIONS):
        fresh(hub, monkeypatch, tmp_path, i)
        hub.redirect = pattern == "/cdn/"
        headers = {} if location is None else {"Location": location}
        where(hub, pattern).fault(pattern, "status", method=method, status=302, times=99, **headers)
        assert not pull_ends_well(hub, tmp_path, model), location


def real_answers(hub, call) -> dict[str, bytes]:
    """{method and path: the right JSON} of the requests that a call makes, as the server gave them."""
    hub.keep = {}
    call()
    kept, hub.keep = hub.keep, None
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_listing_with_values_of_another_kind(rooted, repo, hub, model, monkeypatch, tmp_path, seed):
    rng = random.Random(seed)
    right = real_answers(hub, lambda: client.resolve(Address("me/m")))
    (answer,) = right.values()
    for i in range(25):
        fresh(hub, monkeypatch, tmp_path, i)
        body = json.dumps(changed(rng, json.loads(answer))).encode()
        hub.fault("/api/models/me/m$", "answer", times=99, body=body)
        pull_ends_well(hub, tmp_path, model)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 20))])
def test_answers_to_a_push_with_values_of_another_kind(rooted, hub, ready, monkeypatch, tmp_path, seed):
    rng = random.Random(seed)
    files, recipe, card = ready
    right = real_answers(hub, lambda: push(Address("me/new"), files, recipe, card, token=OWNER, tag="v1"))
    for i in range(15):
        fresh(hub, monkeypatch, tmp_path, i)
        hub.repos.clear()
        (method, path), answer = rng.choice(sorted(right.items()))
        body = json.dumps(changed(rng, json.loads(answer))).encode()
        path = re.sub(r"revision/[0-9a-f]{40}", "revision/", re.escape(path))
        hub.fault(path, "answer", method=method, times=99, body=body)
        push_ends_well(hub, tmp_path, files, recipe, card)


def test_a_key_that_comes_twice(repo, hub):
    answer = real_answers(hub, lambda: client.resolve(Address("me/m")))
    (body,) = answer.values()
    hub.fault("/api/models/me/m$", "answer", body=body.replace(b'"sha":', b'"sha": "' + b"0" * 40 + b'", "sha":', 1))
    with pytest.raises(HubError, match=r"cannot find me/m@main: .*not valid JSON \(a key comes twice\)"):
        client.resolve(Address("me/m"))


def test_a_file_that_the_hub_leaves_out_of_a_commit_is_noticed(hub, ready):
    files, recipe, card = ready
    ask = [{"path": n, "uploadMode": "regular", "shouldIgnore": n == "config.json", "oid": None} for n in [*files, "README.md"]]
    hub.fault("/preupload/", "answer", method="POST", times=99, body=json.dumps({"files": ask}).encode())
    with pytest.raises(HubError, match=r"the new commit does not hold what was sent: config.json"):
        push(Address("me/new"), files, recipe, card, token=OWNER, tag="v1")
    assert not hub.repos["model", "me/new"].tags

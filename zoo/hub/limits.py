"""How long the Hub may take and what its answers may say: put below its client, so that every request is under it.

The client waits without end where no limit is given (a commit, an upload, a lock), starts its clock again with each byte
that comes, and waits as long as `Retry-After` says. It also takes the server's word for names of files (`ETag`,
`X-Repo-Commit`), and for where it is sent to. So each request that is made inside `exchange()` passes through here: the
transport of the client's HTTP session is wrapped, and below it each read and write on the network.

Requests of the same process that are no part of an exchange are passed on as they are.
"""

from __future__ import annotations

import contextvars
import functools
import ipaddress
import json
import math
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from zoo.errors import ConfigError, HubError
from zoo.hub.address import COMMIT, HASH

#: seconds for a push or a pull in all, without the time for its files; $ZOO_HUB_TIMEOUT replaces it
SECONDS = 180.0
#: bytes a second: a file may take so much longer than an answer without one
RATE = 50_000
LONGEST_WAIT = 30.0  # seconds: the most that a server may ask for
AGAIN = (408, 429, 500, 502, 503, 504)  # answers that may be better the next time
LONGEST_PAUSE = 8.0  # seconds: the most that the client itself waits before another try; it begins with one
#: bytes of answers that are not files, in one push or pull; a listing of 100,000 files has some 40 MB
MOST_LISTED = 128 << 20
#: hosts that a token may be sent to beside the endpoint
HUB_HOSTS = ("huggingface.co", "hf.co")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LOCAL_NAME = re.compile(r"localhost\.?|.*\.(?:localhost|local|internal)\.?", re.IGNORECASE)


class StoppedError(HubError):
    """An exchange that was ended below the client. `zoo.hub.client.explained` adds what was done, of which repository."""


def seconds() -> float:
    """The limit of a push or a pull in all ($ZOO_HUB_TIMEOUT)."""
    text = os.environ.get("ZOO_HUB_TIMEOUT")
    if not text:
        return SECONDS
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"ZOO_HUB_TIMEOUT={text!r}: give seconds, more than 0; without it they are {SECONDS:g}.")
    return value


class Exchange:
    """A push, a pull or the reading of a dataset: its limits, and what is known of the files that it fetches.

    Attributes:
        total, request, quiet: seconds for all of it, for one request, and without a byte.
        deadline: on the clock of `time.monotonic`.
    """

    def __init__(self, total: float) -> None:
        self.total, self.request, self.quiet = total, total / 3, total / 6
        self.allowance = 0.0  # for files
        self.started = time.monotonic()
        self.hashes: dict[tuple[str, str], Mapping[str, str]] = {}
        self.expected: set[str] = set()
        self.file: int | None = None  # bytes of the one that is fetched, where they are known
        self.listed = 0
        self.failures: dict[str, int] = {}
        self.stopped: StoppedError | None = None
        # threads that the client makes for a part of its work have no context of ours; those that were there have others' work
        self.others = weakref.WeakSet(threading.enumerate())
        self.others.discard(threading.current_thread())

    @property
    def deadline(self) -> float:
        """When all of it must be done."""
        return self.started + self.total + self.allowance

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def restart(self) -> None:
        """Begin the whole time again: something of use has come."""
        self.started = time.monotonic()

    def expect(self, name: str, size: int) -> None:
        """Give time for a file that is fetched or sent, once for each name."""
        if name not in self.expected:
            self.expected.add(name)
            self.allowance += size / RATE

    @contextmanager
    def fetching(self, name: str, size: int | None) -> Iterator[None]:
        """The block fetches a file of so many bytes, if that is known: an answer with more is cut off."""
        if size is not None:
            self.expect(name, size)
        before, self.file = self.file, size
        try:
            yield
        finally:
            self.file = before

    def know(self, repo: str, commit: str, hashes: Mapping[str, str]) -> None:
        """Say which hash each file of a commit has: an answer with another one is refused before anything is written."""
        self.hashes[repo, commit] = hashes

    def words(self) -> str:
        """The limits, and how to raise them, for an error."""
        return (
            f"The limits: {self.quiet:.3g} s without an answer, {self.request:.3g} s for a request, "
            f"{self.total + self.allowance:.3g} s in all. Check the network, then do it again; if it is slow, set "
            f"ZOO_HUB_TIMEOUT to more than {self.total:.3g} (seconds in all)."
        )

    def stop(self, text: str) -> StoppedError:
        """The error that ends this exchange: whatever is asked for after it ends with it too."""
        if self.stopped is None:
            self.stopped = StoppedError(text)
        return self.stopped

    def late(self, what: str) -> StoppedError:
        """The error for what did not end in time."""
        return self.stop(f"{what} took too long. {self.words()}")

    def pause(self, what: str) -> float:
        """How long the client will wait now that a request failed once more: it does not ask whether there is time for it."""
        self.failures[what] = self.failures.get(what, 0) + 1
        return min(2.0 ** (self.failures[what] - 1), LONGEST_PAUSE)

    def check(self, what: str, pause: float = 0.0) -> None:
        """Raise if the exchange was stopped, or if it is over after a pause."""
        if self.stopped is not None:
            raise self.stopped
        if self.left() <= 0:
            raise self.late(what)
        if pause and self.left() < pause:
            raise self.stop(f"{what} failed, and another try would not end in time. {self.words()}")


_CURRENT: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("zoo_hub_exchange", default=None)
_RUNNING: list[Exchange] = []
_HERE = threading.local()  # the request whose bytes this thread reads or writes


def current() -> Exchange | None:
    """The exchange that this thread works for."""
    found = _CURRENT.get()
    if found is not None:
        return found
    thread = threading.current_thread()
    return next((e for e in reversed(_RUNNING) if thread not in e.others), None)


@contextmanager
def exchange() -> Iterator[Exchange]:
    """All requests in the block are one exchange; a block within another belongs to that."""
    found = _CURRENT.get()
    if found is not None:
        yield found
        return
    _install()
    found = Exchange(seconds())
    token = _CURRENT.set(found)
    _RUNNING.append(found)
    try:
        yield found
    finally:
        _RUNNING.remove(found)
        _CURRENT.reset(token)


@contextmanager
def watched(what: str) -> Iterator[None]:
    """End Xet's transfers in the block at the deadline: its own network code passes by the session that is wrapped here."""
    here = current()
    try:
        from huggingface_hub.utils._runtime import is_xet_available
        from huggingface_hub.utils._xet import abort_xet_session
    except ImportError:
        here = None
    if here is None or not is_xet_available():
        yield
        return
    over = threading.Event()

    def abort() -> None:
        over.set()
        abort_xet_session()

    timer = threading.Timer(max(here.left(), 0), abort)
    timer.daemon = True
    timer.start()
    try:
        yield
    except BaseException:
        if over.is_set():
            raise here.late(what) from None
        raise
    finally:
        timer.cancel()


# ---------------------------------------------------------------- the session


def _install() -> None:
    """Wrap what makes the client's HTTP sessions, also one that the user set; once, unless somebody sets another."""
    from huggingface_hub.utils import _http

    before = _http._GLOBAL_CLIENT_FACTORY
    if getattr(before, "zoo", False):
        return

    @functools.wraps(before)
    def factory() -> Any:
        session = before()
        session._transport = _wrapped(session._transport)
        session._mounts = {k: v if v is None else _wrapped(v) for k, v in session._mounts.items()}
        return session

    factory.zoo = True  # type: ignore[attr-defined]
    _http.set_client_factory(factory)


def _wrapped(transport: Any) -> Any:
    pool: Any = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if backend is not None:  # else it is a transport of the user's own, without sockets that we know of
        pool._network_backend = _Backend(backend)
    return _types()[0](transport)


class _Request:
    """One request: its time, and the errors that end it."""

    def __init__(self, here: Exchange, method: str, url: str, size: int) -> None:
        self.here, self.what = here, f"{method} {urlsplit(url).path}"
        self.started, self.size = time.monotonic(), size

    def left(self) -> float:
        own = self.started + self.here.request + self.size / RATE - time.monotonic()
        return min(own, self.here.left())

    def wait(self, asked: float | None) -> float:
        """The longest that the network may be silent now."""
        self.check()
        return min(self.left(), self.here.quiet, asked or math.inf)

    def check(self) -> None:
        self.here.check(self.what)
        if self.left() <= 0:
            raise self.here.late(self.what)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Reads and writes of this thread are this request's; one that fails at the end of the time is out of time."""
        before = getattr(_HERE, "request", None)
        _HERE.request = self
        try:
            yield
        except StoppedError:
            raise
        except _types()[2] as error:
            self.check()
            if isinstance(error, _types()[3]):  # the client tries again by itself, after a pause
                self.here.check(f"{self.what} ({type(error).__name__})", self.here.pause(self.what))
            raise
        finally:
            _HERE.request = before


@functools.cache
def _types() -> tuple[Any, ...]:
    """(transport, body, errors of HTTP, those after which the client tries again), of the HTTP library that the client uses."""
    from huggingface_hub.utils import httpx

    class Transport(httpx.BaseTransport):  # type: ignore[misc, name-defined]
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def handle_request(self, request: Any) -> Any:
            here = current()
            return self.inner.handle_request(request) if here is None else _send(here, self.inner, request)

        def close(self) -> None:
            self.inner.close()

    class Body(httpx.SyncByteStream):  # type: ignore[misc, name-defined]
        """The bytes of an answer, under the limits of its request and not more than `most`."""

        def __init__(self, inner: Any, request: _Request, count: Callable[[int], None]) -> None:
            self.inner, self.request, self.count = inner, request, count

        def __iter__(self) -> Iterator[bytes]:
            parts = iter(self.inner)
            while True:
                with self.request.at_work():
                    try:
                        part = next(parts)
                    except StopIteration:
                        return
                self.count(len(part))
                yield part

        def close(self) -> None:
            self.inner.close()

    again = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
    return Transport, Body, httpx.HTTPError, again, httpx.Response, httpx.ByteStream


def _send(here: Exchange, inner: Any, request: Any) -> Any:
    """One request, not following a redirect: what is asked is checked, then what comes."""
    _, body, _, _, response_type, byte_stream = _types()
    url = str(request.url)
    timed = _Request(here, request.method, url, _number(request.headers.get("Content-Length")) or 0)
    timed.check()
    _check_target(here, request)
    # a file's size is then what comes, and nothing small unpacks into something large
    request.headers["Accept-Encoding"] = "identity"
    asked = request.extensions.get("timeout") or {}
    limits = {k: min(asked.get(k) or math.inf, here.quiet) for k in ("connect", "read", "write", "pool")}
    request.extensions = dict(request.extensions) | {"timeout": limits}
    with timed.at_work():
        answer = inner.handle_request(request)
    try:
        _check_headers(here, timed, request, answer)
        count = _counted(here, timed, request, answer)
        stream = body(answer.stream, timed, count)
        if request.method != "HEAD" and _is_json(request, answer):
            data = b"".join(stream)
            answer.stream.close()
            _check_json(here, timed.what, data)
            stream = byte_stream(data)
    except BaseException:
        answer.stream.close()
        raise
    return response_type(answer.status_code, headers=answer.headers, stream=stream, extensions=answer.extensions)


# ---------------------------------------------------------------- what is asked


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_private(host: str) -> bool:
    """Whether a host is this machine or one of its network, as far as its name says it."""
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        pass
    try:
        return not ipaddress.ip_address(socket.inet_aton(host)).is_global  # "127.1" and "2130706433" are addresses too
    except (OSError, ValueError):
        return _LOCAL_NAME.fullmatch(host) is not None


def _check_target(here: Exchange, request: Any) -> None:
    """Where a redirect, a next page or an upload may lead: not to the user's own network, nor to where all can listen."""
    from huggingface_hub import constants

    own, to = _origin(str(constants.ENDPOINT)), _origin(str(request.url))
    if own == to:
        return
    if own[0] == "https" and to[0] != "https":
        raise here.stop(f"the Hub sends us on to {to[1]} without encryption ({to[0]}): not followed.")
    if not _is_private(own[1]) and _is_private(to[1]):
        raise here.stop(f"the Hub sends us on to {to[1]}, a machine of your own network: not followed.")
    trusted = to[0] == "https" and (to[1] in HUB_HOSTS or to[1].endswith(".huggingface.co"))
    if not trusted and "authorization" in request.headers:
        del request.headers["authorization"]  # the storage needs none: its addresses are signed


# ---------------------------------------------------------------- what comes


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None


def _check_headers(here: Exchange, timed: _Request, request: Any, answer: Any) -> None:
    headers = answer.headers
    if answer.status_code in AGAIN:
        # the client would wait as long as these say
        asked = _number(headers.get("Retry-After"))
        for name in ("Retry-After", "RateLimit", "RateLimit-Policy"):
            headers.pop(name, None)
        if asked is not None:
            headers["Retry-After"] = str(min(asked, int(LONGEST_WAIT)))
        pause = here.pause(timed.what)
        if asked is not None:
            pause = min(asked, LONGEST_WAIT) + 1
        if here.left() < pause:
            wish = "" if asked is None else f", with the wish to wait {asked} s"
            raise here.stop(f"{timed.what}: answer {answer.status_code}{wish}; there is no time for that. {here.words()}")
    encoding = headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        if answer.status_code < 300:
            raise here.stop(f"{timed.what}: the answer is packed ({encoding[:40]!r}), not as it was asked for.{_not_a_hub()}")
        del headers["Content-Encoding"]
    # names of files in the client's cache
    commit = headers.get("X-Repo-Commit")
    found = _FILE.search(request.url.path)
    if commit is not None and not COMMIT.fullmatch(commit):
        raise here.stop(f"{timed.what}: X-Repo-Commit is {_shown(commit)}, not a commit.{_not_a_hub()}")
    if found is None:
        return
    repo, revision, name = found.groups()
    if commit is not None and COMMIT.fullmatch(revision) and commit != revision:
        raise here.stop(f"{timed.what}: the answer is of commit {commit}, not of the one that was asked for.{_not_a_hub()}")
    xet = headers.get("X-Xet-Hash")
    if xet is not None and not re.fullmatch(r"[0-9a-f]{64}", xet):
        raise here.stop(f"{timed.what}: X-Xet-Hash is {_shown(xet)}, not a hash.{_not_a_hub()}")
    linked = headers.get("X-Linked-Etag")
    etag = linked or headers.get("ETag")
    if request.method != "HEAD" or etag is None or answer.status_code >= 400:
        return
    etag = etag.removeprefix("W/").strip('"')
    known = here.hashes.get((repo, revision), {}).get(name)
    if 300 <= answer.status_code < 400 and linked is None:
        # of a renamed repository: this ETag is the page's own, and the file's comes next; in no case is it a name
        if not HASH.fullmatch(etag) or known not in (None, etag):
            del headers["ETag"]
        return
    if not HASH.fullmatch(etag):
        raise here.stop(f"{timed.what}: ETag is {_shown(etag)}, not a hash.{_not_a_hub()}")
    if known is not None and etag != known:
        raise here.stop(f"{timed.what}: the content is {etag}, the listing says {known}. Try again later.")


def _counted(here: Exchange, timed: _Request, request: Any, answer: Any) -> Callable[[int], None]:
    """What to call with the length of each part that comes: it raises when it is too much."""
    length = _number(answer.headers.get("Content-Length"))
    if request.method != "GET" or answer.status_code not in (200, 206) or _is_api(request):

        def count(n: int) -> None:
            here.listed += n
            if here.listed > MOST_LISTED:
                raise here.stop(f"{timed.what}: more than {MOST_LISTED >> 20} MB came that are not files. It ends here.")

        return count
    known = here.file
    if known is not None and length is not None and length > known:
        raise here.stop(f"{timed.what}: the answer has {length} bytes, the listing says {known}. Try again later.")
    timed.size += length if length is not None else known or 0
    most = known if known is not None else length if length is not None else MOST_LISTED
    taken = 0

    def count_file(n: int) -> None:
        nonlocal taken
        taken += n
        if known is None:
            here.allowance += n / RATE  # of a known one the time is given in advance
        if taken > most:
            raise here.stop(f"{timed.what}: the answer does not end after {most} bytes. It ends here.")

    return count_file


def _is_api(request: Any) -> bool:
    return "/api/" in request.url.path or request.url.path.endswith("/info/lfs/objects/batch")


def _is_json(request: Any, answer: Any) -> bool:
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return _is_api(request) and answer.status_code < 300 and (kind == "application/json" or kind.endswith("+json"))


def _check_json(here: Exchange, what: str, data: bytes) -> None:
    """JSON that says one thing: no key twice, no number that is none, not nested without end."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError("a key comes twice")
        return found

    def constant(text: str) -> None:
        raise ValueError(f"{text} is not a number of JSON")

    try:
        json.loads(data, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise here.stop(f"{what}: the answer is not valid JSON ({reason[:120]}).{_not_a_hub()}") from None


def _shown(text: str) -> str:
    return repr(text[:80])


def _not_a_hub() -> str:
    from huggingface_hub import constants

    return f" {constants.ENDPOINT} does not answer like a Hub. Check HF_ENDPOINT, and what is between (a proxy, a login page)."


# ---------------------------------------------------------------- the network


def _limited(asked: float | None) -> float | None:
    """The longest that this thread may wait now: as asked outside an exchange."""
    request: _Request | None = getattr(_HERE, "request", None)
    return asked if request is None else request.wait(asked)


class _Stream:
    """An open connection, each of whose waits ends with its request: headers too may come byte by byte."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self.inner.read(max_bytes, timeout=_limited(timeout))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), 1 << 16):
            self.inner.write(buffer[start : start + (1 << 16)], timeout=_limited(timeout))

    def start_tls(self, *args: Any, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self.inner.start_tls(*args, timeout=_limited(timeout), **options))

    def close(self) -> None:
        self.inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


class _Backend:
    """Opens connections; a name with many addresses does not have the whole time for each."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def connect_tcp(self, *args: Any, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self.inner.connect_tcp(*args, timeout=_limited(timeout), **options))

    def connect_unix_socket(self, *args: Any, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self.inner.connect_unix_socket(*args, timeout=_limited(timeout), **options))

    def sleep(self, seconds: float) -> None:
        self.inner.sleep(seconds)

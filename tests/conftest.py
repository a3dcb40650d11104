"""Set-up of all tests: no network, a fixed number of threads, real data only when asked for.

ZOO_DATA=DIR lets the tests marked `data` run, ZOO_ONLINE=1 those marked `online` (and lifts the guard for all).
"""

import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket

ONLINE = os.environ.get("ZOO_ONLINE") == "1"

# The Hub's client reads these once, at its import: an address of this machine where nothing listens, a cache of its
# own, no token of the user. A process that a test starts inherits them, and the proxy that stops its other requests.
NOWHERE = "http://127.0.0.1:9"
_HF_HOME = tempfile.TemporaryDirectory(prefix="zoo-tests-hf-")
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"):
    os.environ.pop(name, None)
#: what files decode to is kept here, not among the user's own
_ZOO_CACHE = tempfile.TemporaryDirectory(prefix="zoo-tests-cache-")
os.environ |= {
    "ZOO_CACHE": _ZOO_CACHE.name,
    "HF_HOME": _HF_HOME.name,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
if not ONLINE:
    proxies = {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "ALL_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1,localhost,::1"}
    os.environ |= {"HF_ENDPOINT": NOWHERE} | proxies | {k.lower(): v for k, v in proxies.items()}

import torch  # noqa: E402  # after the environment is set

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))


#: functions of tests that are left out of the fast suite: `benchmarks/slow_tests.py` writes them down
SLOW = set((Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").split())


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.partition("[")[0] in SLOW:
            item.add_marker(pytest.mark.slow)


#: what a test may connect to
LOOPBACK = ["localhost", "127.0.0.0/8", "::1"]


def is_local(host: str | bytes | None) -> bool:
    """True for names and numbers of this machine; no name is looked up."""
    text = host.decode() if isinstance(host, bytes) else host
    if text in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


class Guard:
    """No way out of this machine: pytest-socket stops `connect`, the rest is here.

    pytest-socket with a list of hosts leaves open what needs no `connect` (a look-up of a name, `connect_ex`, a datagram),
    and forgets what it stopped, so that code under test can hide an attempt. Its errors are no OSError: no client takes
    them for a network that is down.
    """

    SENDS = ("connect_ex", "sendto")
    LOOK_UPS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex")

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.originals = {(socket.socket, name): getattr(socket.socket, name) for name in ("connect", *self.SENDS)}
        self.originals |= {(socket, name): getattr(socket, name) for name in self.LOOK_UPS}

    def check(self, host: str | bytes | None, way: str) -> None:
        """Raise pytest-socket's error unless the host is this machine."""
        if not is_local(host):
            self.stopped.append(str(host))
            raise pytest_socket.SocketBlockedError(
                f"A test tried to reach {host!r} by {way}: tests stay on this machine (or are marked `online`)"
            )

    def install(self) -> None:
        """Guard this process."""
        pytest_socket.socket_allow_hosts(LOOPBACK, allow_unix_socket=True)
        blocked = socket.socket.connect

        def connect(sock, address):
            try:
                return blocked(sock, address)
            except pytest_socket.SocketConnectBlockedError:
                self.stopped.append(str(address[0]))
                raise

        def guarded_send(name, original):
            def send(sock, *args):
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    self.check(args[-1][0], name)  # the address comes last
                return original(sock, *args)

            return send

        def guarded_look_up(name, original):
            def look_up(host, *args, **kwargs):
                self.check(host, name)
                return original(host, *args, **kwargs)

            return look_up

        socket.socket.connect = connect
        for name in self.SENDS:
            setattr(socket.socket, name, guarded_send(name, self.originals[socket.socket, name]))
        for name in self.LOOK_UPS:
            setattr(socket, name, guarded_look_up(name, self.originals[socket, name]))

    def remove(self) -> None:
        """Take the guard away."""
        for (owner, name), original in self.originals.items():
            setattr(owner, name, original)

    def settle(self) -> None:
        """Fail the test that tried to leave, also where the code under test hid the error."""
        stopped, self.stopped = self.stopped, []
        if stopped:
            pytest.fail(f"tried to reach {', '.join(stopped)}: tests stay on this machine")


GUARD = Guard()
if not ONLINE:
    GUARD.install()  # from here on: the import of a test file is guarded too


def pytest_configure(config: pytest.Config) -> None:
    """Leave out pytest-socket's plug-in: it guards only from set-up to tear-down, and would take our guard away each time."""
    config.pluginmanager.set_blocked("socket")


def pytest_unconfigure() -> None:
    """Leave `socket` as it was."""
    GUARD.remove()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Online tests need both their marker and the switch."""
    if item.get_closest_marker("online") and not ONLINE:
        pytest.skip("set ZOO_ONLINE=1 to let tests use the internet")


@pytest.fixture(autouse=True)
def network_guard() -> Iterator[Guard]:
    """No test reaches another machine, and none hides that it tried."""
    GUARD.stopped.clear()
    yield GUARD
    GUARD.settle()


@pytest.fixture(scope="session")
def zoo_data() -> Path:
    """The folder of real data, absolute; the test is skipped without ZOO_DATA, and fails when that is no folder."""
    root = os.environ.get("ZOO_DATA")
    if not root:
        pytest.skip("set ZOO_DATA to the folder of real data")
    path = Path(root).resolve()
    if not path.is_dir():
        pytest.fail(f"ZOO_DATA={root} is no folder")
    return path

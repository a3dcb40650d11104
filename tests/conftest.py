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

ONLINE = os.environ.get("ZOO_ONLINE") == "1"

# The Hub's client reads these once, at its import: an address of this machine where nothing listens, a cache of its
# own, no token of the user. A process that a test starts inherits them, and the proxy that stops its other requests.
NOWHERE = "http://127.0.0.1:9"
_HF_HOME = tempfile.TemporaryDirectory(prefix="zoo-tests-hf-")
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"):
    os.environ.pop(name, None)
os.environ |= {
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


class NetworkError(RuntimeError):
    """A test tried to leave this machine. No OSError, so that no client takes it for a network that is down."""


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
    """Replaces the ways of `socket` out of this machine; remembers what it stopped, also when the caller hides it."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.originals = {n: getattr(socket.socket, n) for n in ("connect", "connect_ex", "sendto")}
        self.getaddrinfo = socket.getaddrinfo

    def check(self, host: str | bytes | None) -> None:
        """Raise NetworkError unless the host is this machine."""
        if not is_local(host):
            self.stopped.append(str(host))
            raise NetworkError(f"a test tried to reach {host!r}: tests stay on this machine (or are marked `online`)")

    def install(self) -> None:
        """Guard this process."""

        def guarded(original):
            def method(sock, *args):
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    self.check(args[-1][0])  # the address comes last
                return original(sock, *args)

            return method

        def getaddrinfo(host, *args, **kwargs):
            self.check(host)
            return self.getaddrinfo(host, *args, **kwargs)

        for name, original in self.originals.items():
            setattr(socket.socket, name, guarded(original))
        socket.getaddrinfo = getaddrinfo

    def remove(self) -> None:
        """Take the guard away."""
        for name, original in self.originals.items():
            setattr(socket.socket, name, original)
        socket.getaddrinfo = self.getaddrinfo


GUARD = Guard()
if not ONLINE:
    GUARD.install()  # from here on: the import of a test file is guarded too


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
    stopped, GUARD.stopped = GUARD.stopped, []
    if stopped:
        pytest.fail(f"tried to reach {', '.join(stopped)}: tests stay on this machine")


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

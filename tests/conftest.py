"""Set-up of all tests: no network, a fixed number of threads, real data only when asked for."""

import os
import socket
from pathlib import Path

import pytest

# before anything imports a client of the Hub
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
os.environ.pop("HF_TOKEN", None)

import torch

torch.set_num_threads(os.cpu_count() or 1)


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Connections leave this machine in no test."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to reach {address}: tests stay on this machine")
        return connect(self, address)

    socket.socket.connect = guarded
    yield
    socket.socket.connect = connect


@pytest.fixture(scope="session")
def zoo_data() -> Path:
    """The folder of real data; the test is skipped without it."""
    root = os.environ.get("ZOO_DATA")
    if not root:
        pytest.skip("set ZOO_DATA to the folder of real data")
    return Path(root)

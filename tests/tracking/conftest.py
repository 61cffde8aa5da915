"""One tracking server for all tests that need a real one."""

from __future__ import annotations

import pytest
from servers import Proxy, Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server):
    """An undisturbed proxy before the server."""
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()

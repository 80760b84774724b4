"""Java's stock HTTPS server is asked through a route, by Node and by Java."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.builds import Builds
from tests.support.certificates import Certificate
from tests.support.clients import Clients
from tests.support.https import Tools, check
from tests.support.servers import free_port
from tests.support.services import HOST, HOST_ON_IPV6, Services


@pytest.fixture(scope="module")
def tools(certificate: Certificate, builds: Builds) -> Tools:
    """Return what the programs are made of."""
    return Tools(certificate, builds)


@pytest.fixture(scope="module")
def java(services: Services, tools: Tools) -> Iterator[int]:
    """Return the port of Java's server under meshfd; it has IPv6 sockets alone."""
    port = free_port()
    with services.serving(tools.java("serve", HOST, str(port)), port, host=HOST_ON_IPV6):
        yield port


@pytest.mark.parametrize("name", ["node-https", "java-http1"])
def test_java(name: str, java: int, clients: Clients, services: Services, tools: Tools) -> None:
    """Java's server answers, by HTTP/1.1."""
    check(name, java, clients, services, tools)

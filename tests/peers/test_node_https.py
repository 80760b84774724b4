"""Node's stock HTTPS and HTTP/2 server is asked through a route, by Node and by Java."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.builds import Builds
from tests.support.certificates import Certificate
from tests.support.clients import Clients
from tests.support.https import Tools, check
from tests.support.servers import free_port
from tests.support.services import HOST, Services


@pytest.fixture(scope="module")
def tools(certificate: Certificate, builds: Builds) -> Tools:
    """Return what the programs are made of."""
    return Tools(certificate, builds)


@pytest.fixture(scope="module")
def node(services: Services, tools: Tools) -> Iterator[int]:
    """Return the port of Node's server under meshfd."""
    port = free_port()
    keys = (str(tools.certificate.key), str(tools.certificate.cert))
    with services.serving(tools.node("serve", HOST, str(port), *keys), port):
        yield port


@pytest.mark.parametrize("name", ["node-https", "node-http2", "node-fetch", "java-http2"])
def test_node(name: str, node: int, clients: Clients, services: Services, tools: Tools) -> None:
    """Node's server answers all of them, by HTTP/1.1 and HTTP/2."""
    check(name, node, clients, services, tools)

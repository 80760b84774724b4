"""openssl's s_client talks TLS through a route to its s_server, which turns lines around."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.certificates import Certificate
from tests.support.clients import Clients
from tests.support.command import Way
from tests.support.need import require_tool
from tests.support.processes import Finished
from tests.support.servers import free_port
from tests.support.services import HOST, Services
from tests.support.waiting import wait_until

WRONG_ADDRESS: Final = "127.66.0.99"  # the certificate does not name it
LINES: Final = "hello\nworld\nCLOSE\n"  # the last ends it
TURNED: Final = ["olleh", "dlrow"]


def seen(done: Finished) -> tuple[int, str, list[str]]:
    """Return what s_client ended with and said; its errors begin with a thread's number."""
    said = [line for line in done.err.splitlines() if ":error:" not in line]
    return done.code, done.out, said


@pytest.fixture(scope="module")
def port(services: Services, certificate: Certificate) -> Iterator[int]:
    """Return the port of s_server under meshfd."""
    found = free_port()
    keys = ["-cert", str(certificate.cert), "-key", str(certificate.key)]
    command = [require_tool("openssl"), "s_server", "-accept", f"{HOST}:{found}", *keys, "-rev"]
    with services.serving(command, found):
        yield found


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client(
    version: str, port: int, clients: Clients, services: Services, certificate: Certificate
) -> None:
    """Handshake, verification and data are as they are bare; a wrong name is found out."""

    def client(way: Way, expected: str) -> list[str]:
        words = [require_tool("openssl"), "s_client", version, "-brief", "-ign_eof"]
        words += ["-connect", f"{way.host}:{way.port}", "-CAfile", str(certificate.cert)]
        return [*words, "-verify_return_error", "-verify_ip", expected]

    good = clients.compare(lambda way: client(way, way.host), port, seen=seen, text=LINES)
    assert (good.code, good.lines) == (0, TURNED), good.err
    bad = clients.compare(lambda way: client(way, WRONG_ADDRESS), port, seen=seen)
    assert (bad.code, bad.out) == (1, ""), bad.err

    def ends() -> list[int]:
        log = services.log()
        return [log.count("CONNECTION CLOSED"), log.count("CONNECTION FAILURE")]

    wait_until(lambda: ends() == [2, 2], "s_server's view: bare and routed, well and badly ended")

"""The stock HTTPS and HTTP/2 programs of Node and Java, and what servers have to answer them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.builds import Builds
from tests.support.certificates import PASSWORD, Certificate
from tests.support.clients import Clients
from tests.support.command import Way
from tests.support.need import require_tool
from tests.support.services import HOST, Services
from tests.support.waiting import wait_until

NODE_SCRIPT: Final = Path(__file__).parent / "node" / "tls.js"


@dataclass(frozen=True, slots=True)
class Tools:
    """What the programs are made of."""

    certificate: Certificate
    builds: Builds

    def node(self, *words: str) -> list[str]:
        """Return a command of Node."""
        known = f"NODE_EXTRA_CA_CERTS={self.certificate.cert}"
        return ["env", known, require_tool("node"), str(NODE_SCRIPT), *words]

    def java(self, *words: str) -> list[str]:
        """Return a command of Java."""
        return [*self.builds.java("Tls"), *words, str(self.certificate.store), PASSWORD]


Client = Callable[[Tools, str], list[str]]

CLIENTS: dict[str, Client] = {
    "node-https": lambda tools, url: tools.node("https", url, str(tools.certificate.cert)),
    "node-http2": lambda tools, url: tools.node("http2", url, str(tools.certificate.cert)),
    "node-fetch": lambda tools, url: tools.node("fetch", url, str(tools.certificate.cert)),
    "java-http1": lambda tools, url: tools.java("HTTP_1_1", url),
    "java-http2": lambda tools, url: tools.java("HTTP_2", url),
}
SPEAK_HTTP2: Final = {"node-http2", "java-http2"}  # Java's server does not


def check(name: str, port: int, clients: Clients, services: Services, tools: Tools) -> None:
    """Three requests are answered as they are bare, and the server has seen them."""

    def command(way: Way) -> list[str]:
        return CLIENTS[name](tools, f"https://{way.host}:{way.port}")

    done = clients.compare(command, port)
    protocol = "HTTP/2.0" if name in SPEAK_HTTP2 else "HTTP/1.1"
    answers = [f"served /{number} by {protocol}" for number in (1, 2, 3)]
    assert (done.code, done.lines) == (0, answers), done.err
    expected = sorted([f"seen {HOST}:{port} {protocol} /{number}" for number in (1, 2, 3)] * 2)
    wait_until(
        lambda: sorted(line for line in services.log().splitlines() if "seen" in line) == expected,
        "the server's view of both",
    )

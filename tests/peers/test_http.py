"""curl, wget and ab fetch through a route from nginx: HTTP/1.1 and HTTP/2, plain and by TLS."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.certificates import Certificate
from tests.support.clients import Clients
from tests.support.command import VIRTUAL, Way
from tests.support.need import require_tool
from tests.support.processes import Finished
from tests.support.servers import free_port
from tests.support.services import HOST, TRANSPARENT, Mode, Services
from tests.support.waiting import wait_until

BIG_BYTES: Final = 3_000_000  # many times what socket buffers hold
N_REQUESTS: Final = 200  # of ab
N_AT_ONCE: Final = 20

NGINX: Final = """\
daemon off;
worker_processes 2;
{user}
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format seen "seen $server_addr:$server_port $server_protocol $ssl_protocol $uri $status";
  access_log /dev/stdout seen;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  ssl_protocols TLSv1.3;
  ssl_certificate {certificate.cert};
  ssl_certificate_key {certificate.key};
  root {directory}/www;
  server {{
    listen {host}:{clear};
    listen {host}:{tls} ssl http2;
    location /text {{ return 200 "served $uri by $server_protocol\\n"; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """An nginx that runs; its ports for clear text and for TLS."""

    services: Services
    clear: int
    tls: int

    def port(self, scheme: str) -> int:
        """Return the one for URLs that begin so."""
        return self.tls if scheme == "https" else self.clear

    def lines(self) -> list[str]:
        """Return what it has logged of requests: by address, protocols and path."""
        lines = self.services.log().splitlines()
        return [line.removeprefix("seen ") for line in lines if line.startswith("seen ")]


@pytest.fixture(scope="module")
def nginx(services: Services, certificate: Certificate) -> Iterator[Nginx]:
    """Return nginx under meshfd, with two listening sockets handed to it."""
    running = Nginx(services, free_port(), free_port())
    www = services.directory / "www"
    www.mkdir()
    (www / "big").write_bytes(random.Random(BIG_BYTES).randbytes(BIG_BYTES))
    configuration = services.directory / "nginx.conf"
    configuration.write_text(
        NGINX.format(
            user="user root;" if os.geteuid() == 0 else "",
            directory=services.directory,
            certificate=certificate,
            host=HOST,
            clear=running.clear,
            tls=running.tls,
        )
    )
    errors = services.directory / "error.log"
    command = [require_tool("nginx"), "-e", str(errors), "-c", str(configuration)]
    with services.serving(command, running.clear, running.tls):
        yield running


# What curl is told, by the protocols that the server sees then.
CURLS = {
    "HTTP/1.1 -": ("http", "--http1.1"),
    "HTTP/1.1 TLSv1.3": ("https", "--http1.1"),
    "HTTP/2.0 TLSv1.3": ("https", "--http2"),
}
FACTS = "%{http_version} %{response_code} %{num_connects} %{ssl_verify_result} %{remote_ip}\\n"


@pytest.mark.parametrize("protocols", CURLS)
def test_curl(
    protocols: str, mode: Mode, nginx: Nginx, clients: Clients, certificate: Certificate
) -> None:
    """Curl is answered as it is bare, on one connection, whose peer a transparent mode renames."""
    scheme, option = CURLS[protocols]
    port = nginx.port(scheme)

    def client(way: Way) -> list[str]:
        place = f"{scheme}://{way.host}:{way.port}"
        words = [require_tool("curl"), "-sS", "--cacert", str(certificate.cert), option]
        return [*words, "-w", FACTS, f"{place}/text/1", f"{place}/text/2"]

    done = clients.compare(client, port)
    assert done.code == 0, done.err
    protocol = protocols.split(maxsplit=1)[0]
    texts = [f"served /text/{number} by {protocol}" for number in (1, 2)]
    assert done.lines[::2] == texts
    peer = VIRTUAL if mode is TRANSPARENT else HOST
    assert {line.split()[-1] for line in done.lines[1::2]} == {peer}
    expected = [f"{HOST}:{port} {protocols} /text/{number} 200" for number in (1, 1, 2, 2)]
    wait_until(lambda: sorted(nginx.lines()) == expected, "nginx's view of both")


def test_curl_at_once(
    nginx: Nginx, clients: Clients, certificate: Certificate, tmp_path: Path
) -> None:
    """Eight downloads at once arrive whole, by many connections and by one of HTTP/2."""
    expected = (nginx.services.directory / "www" / "big").read_bytes()
    numbers = range(1, 9)
    for option in ("--http1.1", "--http2"):

        def client(way: Way, option: str = option) -> list[str]:
            words = [require_tool("curl"), "-sS", "-Z", "--cacert", str(certificate.cert), option]
            return [*words, f"https://{way.host}:{way.port}/big?[1-8]", "-o", f"{tmp_path}/got-#1"]

        done = clients.routed(client, nginx.tls)
        assert done.code == 0, done.err
        for number in numbers:
            got = tmp_path / f"got-{number}"
            assert got.read_bytes() == expected
            got.unlink()
    wait_until(lambda: len(nginx.lines()) == 2 * len(numbers), "nginx's view of both")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_wget(scheme: str, nginx: Nginx, clients: Clients, certificate: Certificate) -> None:
    """Wget gets what it gets bare, and its exit status says that one file is missing."""

    def client(way: Way) -> list[str]:
        place = f"{scheme}://{way.host}:{way.port}"
        words = [require_tool("wget"), "-nv", "-O", "-", f"--ca-certificate={certificate.cert}"]
        return [*words, f"{place}/text/1", f"{place}/missing", f"{place}/text/2"]

    port = nginx.port(scheme)
    done = clients.compare(client, port)
    lines = [f"served /text/{number} by HTTP/1.1" for number in (1, 2)]
    assert (done.code, done.lines) == (8, lines), done.err
    wait_until(lambda: len(nginx.lines()) == 6, "nginx's view of both")
    assert {line.split()[0] for line in nginx.lines()} == {f"{HOST}:{port}"}


def counted(done: Finished) -> tuple[int, list[str]]:
    """Return ab's exit status, and what it counted, without what it measured."""
    facts = ("Server Software", "Document Length", "Complete", "Failed", "Keep-Alive", "HTML")
    return done.code, [line for line in done.lines if line.startswith(facts)]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_ab(scheme: str, nginx: Nginx, clients: Clients) -> None:
    """Ab makes a connection for each request, twenty at a time, and all are answered."""

    def client(way: Way) -> list[str]:
        words = [require_tool("ab"), "-n", str(N_REQUESTS), "-c", str(N_AT_ONCE)]
        return [*words, f"{scheme}://{way.host}:{way.port}/text/ab"]

    port = nginx.port(scheme)
    done = clients.compare(client, port, seen=counted)
    assert done.code == 0, done.err
    assert f"Complete requests:      {N_REQUESTS}" in done.lines
    assert "Failed requests:        0" in done.lines
    wait_until(lambda: len(nginx.lines()) == 2 * N_REQUESTS, "nginx's view of both")
    assert {line.split()[0] for line in nginx.lines()} == {f"{HOST}:{port}"}

"""Chromium, without a screen, loads a page through a route.

It runs with its own sandbox, namespaces and filters, as an ordinary user: as root it refuses to
start without --no-sandbox, so root's tests run it as "nobody", and once more as root without.
"""

from __future__ import annotations

import contextlib
import http.server
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import pytest

from tests.support.clients import Clients
from tests.support.command import Way
from tests.support.need import require, require_root, require_tool
from tests.support.ordinary_user import as_nobody
from tests.support.processes import Finished, Program, descendants_of
from tests.support.waiting import DEADLINE_S, wait_until

# A browser fetches six at once, by as many connections.
SCRIPTS: Final = tuple(f"/{number}.js" for number in range(12))
RELEASE: Final = "/last.js"  # is not answered before the browser has been looked at

OPTIONS: Final = (
    "--disable-background-networking",
    "--disable-gpu",
    "--no-first-run",
    "--no-proxy-server",
    "--dump-dom",
)
PAGE: Final = "".join(f"<script src={name}></script>" for name in (*SCRIPTS, RELEASE))


class _Answer(http.server.BaseHTTPRequestHandler):
    """The page and its scripts, each of which writes its own name into the page."""

    protocol_version = "HTTP/1.1"
    server: PageServer

    def do_GET(self) -> None:
        """Answer."""
        self.server.asked.append(self.path)
        if self.path == RELEASE:
            self.server.released.wait(DEADLINE_S)
        is_page = self.path == "/"
        text = PAGE if is_page else f"document.write('<p>{self.path}<' + '/p>')"
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if is_page else "text/javascript")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *unused: object) -> None:
        """Stay quiet."""


class PageServer(http.server.ThreadingHTTPServer):
    """Serves the page; the last script only once it is ``released``."""

    daemon_threads = True

    def __init__(self) -> None:
        """Serve from now until the block's end."""
        super().__init__(("127.0.0.1", 0), _Answer)
        self.begin()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    def begin(self) -> None:
        """Forget what was asked, and hold the last script back."""
        self.asked: list[str] = []
        self.released = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


@pytest.fixture
def page_server() -> Iterator[PageServer]:
    """Return a server of the page."""
    with PageServer() as server:
        yield server


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a process of the browser's is confined by: filters, and namespaces of its own."""

    n_filters: int
    namespaces: frozenset[str]


def _namespaces(pid: int | str) -> dict[str, str]:
    names = ("user", "pid", "net")
    return {name: str(Path("/proc", str(pid), "ns", name).readlink()) for name in names}


def renderers_below(pid: int) -> set[Confinement]:
    """Return how each process below that renders pages is confined."""
    found = set()
    ours = _namespaces("self")
    for one in descendants_of(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"--type=renderer" not in Path("/proc", str(one), "cmdline").read_bytes():
                continue
            status = Path("/proc", str(one), "status").read_text().splitlines()
            facts = dict(line.split(":\t", 1) for line in status if ":\t" in line)
            theirs = _namespaces(one)
            own = frozenset(name for name in ours if theirs[name] != ours[name])
            found.add(Confinement(int(facts["Seccomp_filters"]), own))
    return found


def browser(directory: Path, way: Way, *words: str) -> list[str]:
    """Return the command that prints the page, once all of its scripts have run."""
    program = require_tool("chromium-headless-shell")
    where = [f"--user-data-dir={directory}/browser", f"http://{way.host}:{way.port}/"]
    home = ["env", f"HOME={directory}", f"TMPDIR={directory}"]
    return [*home, program, *OPTIONS, *words, *where]


def need_user_namespaces() -> None:
    """Skip where an ordinary user cannot make the namespaces of a sandbox."""
    command = as_nobody([require_tool("unshare"), "--user", "--pid", "--net", "--fork", "true"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"no user namespaces: {done.stderr.strip()}")


def written(page: str) -> list[str]:
    """Return what the scripts have written into the page."""
    return re.findall("<p>(.*?)</p>", page)


def look(program: Program, server: PageServer) -> tuple[Finished, set[Confinement]]:
    """Let a browser finish, having looked at its renderers while it waits for the last script."""

    def waits() -> bool:
        if program.popen.poll() is not None:
            program.give_up("the browser has ended")
        return RELEASE in server.asked

    wait_until(waits, "the request for the last script")
    confined = renderers_below(program.pid)
    server.released.set()
    done = program.finish()
    assert sorted(server.asked) == sorted(["/", *SCRIPTS, RELEASE]), server.asked
    server.begin()
    return done, confined


def test_in_its_sandbox(clients: Clients, page_server: PageServer, users_directory: Path) -> None:
    """The page is as it is bare, and so is the sandbox, with one filter more: meshfd's."""
    need_user_namespaces()
    port = page_server.server_port

    def client(way: Way) -> list[str]:
        return as_nobody(browser(users_directory, way))

    bare, bare_confined = look(clients.start_bare(client, port), page_server)
    done, confined = look(clients.start_routed(client, port), page_server)
    assert (done.code, done.out) == (bare.code, bare.out)
    assert done.code == 0, done.err
    assert written(done.out) == [*SCRIPTS, RELEASE]
    assert bare_confined, bare.err
    assert all({"user", "pid", "net"} <= one.namespaces for one in bare_confined), bare_confined
    assert confined == {replace(one, n_filters=one.n_filters + 1) for one in bare_confined}


def test_as_root(clients: Clients, page_server: PageServer, tmp_path: Path) -> None:
    """Without its sandbox, which is how root can run it, the page is as it is bare, too."""
    require_root()
    port = page_server.server_port

    def client(way: Way) -> list[str]:
        return browser(tmp_path, way, "--no-sandbox")

    bare, _ = look(clients.start_bare(client, port), page_server)
    done, _ = look(clients.start_routed(client, port), page_server)
    assert (done.code, done.out) == (bare.code, bare.out)
    assert done.code == 0, done.err

"""The examples of conf/: each is checked, and each is run as a user would run it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.command import COMMAND
from tests.support.need import require_tool
from tests.support.netns import in_new_network
from tests.support.processes import Finished, Processes, Program
from tests.support.servers import free_port
from tests.support.waiting import DEADLINE_S, wait_until

ROOT: Final = Path(__file__).parents[1]
EXAMPLES: Final = sorted(path.name for path in (ROOT / "conf").glob("*.toml"))
RUN_HERE: Final = [
    "activation.toml",
    "demo.toml",
    "namespaces.toml",
    "redirect.toml",
    "services.toml",
    "unix-and-udp.toml",
]
PORT: Final = re.compile(r"\b18\d\d\d\b")  # what the examples listen on

Status = dict[str, Any]


class Example:
    """A copy of conf/ whose ports are free ones, and a runtime directory of its own."""

    def __init__(self, processes: Processes, directory: Path) -> None:
        """Copy it."""
        self._processes = processes
        self._directory = directory
        self._ports: dict[str, str] = {}
        runtime = directory / "run"
        runtime.mkdir(mode=0o700)
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "MESHFD_CONTROL"},
            "XDG_RUNTIME_DIR": str(runtime),
            "PYTHONPATH": str(ROOT),
        }
        shutil.copytree(ROOT / "conf", directory / "conf")
        for path in (directory / "conf").rglob("*"):
            if path.suffix in {".toml", ".py"}:
                path.write_text(PORT.sub(self._replaced, path.read_text()))

    def _replaced(self, match: re.Match[str]) -> str:
        return str(self.port(int(match[0])))

    def port(self, written: int) -> int:
        """Return the port that stands where the example has ``written``."""
        if str(written) not in self._ports:
            self._ports[str(written)] = str(free_port())
        return int(self._ports[str(written)])

    def run(self, name: str, *, prefix: Sequence[str] = ()) -> Program:
        """Start ``meshfd run``. ``prefix``: a command that runs it."""
        return self._processes.start(
            [*prefix, *COMMAND, "run", str(self._directory / "conf" / name)],
            env=self._environment,
        )

    def meshfd(self, *words: str) -> str:
        """Run another meshfd command; its standard output."""
        done = subprocess.run(
            [*COMMAND, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def services(self) -> dict[str, Status]:
        """Return what ``meshfd status`` says of each service; nothing before it answers."""
        done = subprocess.run(
            [*COMMAND, "status", "--json"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
        found: Mapping[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return {service["name"]: service for service in found.get("services", [])}

    def wait_for_ready(self, *names: str) -> dict[str, Status]:
        """Return the services once those named are ready."""

        def look() -> dict[str, Status]:
            services = self.services()
            return services if all(services.get(name, {}).get("ready") for name in names) else {}

        return wait_until(look, f"readiness of {', '.join(names)}")

    def stop(self, running: Program) -> Finished:
        """Stop it by SIGTERM; nothing may be left then, not even the control socket."""
        running.signal(signal.SIGTERM)
        done = running.finish()
        assert done.code == 0, done.err
        self.see_nothing_left()
        return done

    def see_nothing_left(self) -> None:
        """See that no process and no socket is left."""
        assert self._processes.running() == []
        assert not list(self._directory.rglob("*.sock"))


@pytest.fixture
def example(processes: Processes, tmp_path: Path) -> Example:
    """Return the copy."""
    return Example(processes, tmp_path)


def exchange(port: int, request: bytes) -> bytes:
    """Send a request; the first line of the answer."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as reader:
            return reader.readline()


def fetch(port: int) -> bytes:
    """Return the status line of an HTTP server's answer."""
    return exchange(port, b"GET / HTTP/1.0\r\n\r\n")


def lines_up_to(running: Program, beginning: str) -> list[str]:
    """Return the lines of output up to one that begins so."""
    lines = [running.line()]
    while not lines[-1].startswith(beginning):
        lines.append(running.line())
    return lines


def test_all_examples_are_run_here() -> None:
    """There is no example without a test."""
    assert EXAMPLES == RUN_HERE


@pytest.mark.parametrize("name", EXAMPLES)
def test_check(name: str, processes: Processes) -> None:
    """`meshfd check` finds no fault in an example."""
    done = processes.run([*COMMAND, "check", str(ROOT / "conf" / name)])
    assert done.code == 0, done.err
    assert done.err == ""


@pytest.mark.live
def test_demo(example: Example) -> None:
    """The demo ends by itself, with status 0 and a summary by which nobody was refused."""
    done = example.run("demo.toml").finish()
    assert done.code == 0, done.err
    assert "8 clients connected while it was stopped; then it was started." in done.out
    assert "8 of them were answered." in done.out
    clients = re.search(r"(\d+) clients: (\d+) answered, (\d+) refused, (\d+) cut off", done.out)
    assert clients is not None, done.out
    total, answered, refused, cut_off = map(int, clients.groups())
    assert refused == 0
    assert total == answered + cut_off
    assert "100 requests were answered: 50 by blue, 50 by green." in done.out
    assert re.search(r"That was meshfd, in \d+\.\d s\.", done.out)
    example.see_nothing_left()


@pytest.mark.live
def test_redirect(example: Example) -> None:
    """Its client reaches both servers by addresses that nobody has, is refused, and that is all."""
    done = example.run("redirect.toml").finish()
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if line.startswith("127.66.")]
    assert lines == [
        *["127.66.0.1:80: 200"] * 4,
        "127.66.0.2:80: 200",
        "127.66.0.3:80: 200",
        "127.66.7.7:9: [Errno 113] No route to host",
    ]
    example.see_nothing_left()


@pytest.mark.live
def test_unix_and_udp(example: Example) -> None:
    """Its client reaches a unix socket and a UDP port, under the addresses that it asked for."""
    done = example.run("unix-and-udp.toml").finish()
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if " says " in line] == [
        "app says hello and is 127.66.0.1 80",
        "clock says late and is 127.66.0.1 37",
    ]
    example.see_nothing_left()


@pytest.mark.live
def test_namespaces(example: Example, processes: Processes) -> None:
    """Its client reaches the shop by the router, with both families."""
    done = example.run("namespaces.toml", prefix=in_new_network(processes)).finish()
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if " was reached " in line] == [
        "10.66.0.2 was reached from 10.67.0.2",
        "fd00:66::2 was reached from fd00:67::2",
    ]
    example.see_nothing_left()


@pytest.mark.live
def test_activation(example: Example) -> None:
    """The web server is reachable, and again after it was killed; then everything stops."""
    running = example.run("activation.toml")
    before = example.wait_for_ready("web")["web"]
    port = example.port(18080)
    assert fetch(port).startswith(b"HTTP/1.0 200 ")
    os.kill(before["pid"], signal.SIGKILL)
    assert fetch(port).startswith(b"HTTP/1.0 200 ")  # it waited for the next one
    after = example.wait_for_ready("web")["web"]
    assert (after["restarts"], after["listening"][0]["handed"]) == (1, 2)
    assert after["pid"] != before["pid"]
    assert example.services()["cache"]["state"] == "stopped"
    example.stop(running)


@pytest.mark.live
def test_activation_cache(example: Example) -> None:
    """The cache starts when it is asked for, and serves a client that came before."""
    require_tool("redis-server")
    running = example.run("activation.toml")
    example.wait_for_ready("web")
    with socket.create_connection(("127.0.0.1", example.port(18079)), DEADLINE_S) as early:
        early.sendall(b"PING\r\n")
        example.meshfd("start", "cache")
        with early.makefile("rb") as reader:
            assert reader.readline() == b"+PONG\r\n"
    example.wait_for_ready("web", "cache")
    example.stop(running)


@pytest.mark.live
def test_services(example: Example) -> None:
    """They start in order and have their environment; one starts on demand; all stop."""
    running = example.run("services.toml")
    services = example.wait_for_ready("store", "api")
    assert services["report"]["state"] == "stopped"
    assert fetch(example.port(18201)).startswith(b"HTTP/1.0 200 ")
    lines_up_to(running, "hello from the file: store answers 200")
    example.meshfd("start", "report")
    lines_up_to(running, "All is well: ")
    example.stop(running)

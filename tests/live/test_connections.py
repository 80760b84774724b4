"""`meshfd status --connections`: whose each socket is, in namespaces that services share."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.command import COMMAND, written
from tests.support.configured import report_of, start_run, toml_command
from tests.support.need import require_root, require_tool
from tests.support.netns import open_named
from tests.support.processes import Processes, held_fds
from tests.support.servers import Greeter, free_port, port_of
from tests.support.transition import EGRESS4, SERVER4, Transition, open_transition
from tests.support.waiting import wait_until

# Has one socket of each kind, and names them by cookie and port. A child holds one of them alone.
HOLDER: Final = """
import json, os, pathlib, socket, sys, time
server, port, home, report = sys.argv[1:]
listening = socket.create_server(("0.0.0.0", 0))
stream = socket.create_connection((server, int(port)), 20)
mapped = None
if server != "127.0.0.1":
    mapped = socket.create_connection(("::ffff:" + server, int(port)), 20)
accepting = socket.create_connection(("127.0.0.1", listening.getsockname()[1]), 20)
accepted, _ = listening.accept()
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.connect((server, 9))
unconnected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
unconnected.bind(("0.0.0.0", 0))
made = {
    "listen": listening, "established": stream, "accepting": accepting, "accepted": accepted,
    "connected": datagram, "unconnected": unconnected,
}
if mapped:
    made["mapped"] = mapped
if home == "inet6":
    made["home"] = socket.create_server(("::1", 0), family=socket.AF_INET6)
def told(one):
    cookie = int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 57, 8), "little")  # SO_COOKIE
    return [cookie, one.getsockname()[1]]
said = {kind: told(one) for kind, one in made.items()}
if os.fork():
    listening.close()
pathlib.Path(f"{report}.{os.getpid()}").write_text(json.dumps(said))
os.rename(f"{report}.{os.getpid()}", report)
time.sleep(1000)
"""
# Has many sockets of IPv4, and one of IPv6. Their rows are more than a socket's queue takes.
MANY: Final = """
import json, os, pathlib, resource, socket, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2000)]
for one in made:
    one.bind(("127.0.0.1", 0))
made.append(socket.create_server(("::1", 0), family=socket.AF_INET6))
cookies = [int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 57, 8), "little") for one in made]
report = sys.argv[1]
pathlib.Path(report + ".new").write_text(json.dumps({"cookies": cookies}))
os.rename(report + ".new", report)
time.sleep(1000)
"""
STATES: Final = {"listen": "listen", "connected": "connected", "unconnected": "unconnected"}


def connections(processes: Processes, directory: Path, *words: str) -> str:
    """Return what the command says."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    done = processes.run([*COMMAND, "status", "--connections", *words], env=environment)
    assert done.code == 0, done.err
    return done.out


def rows_by_cookie(processes: Processes, directory: Path) -> dict[int, dict[str, Any]]:
    """Return them as JSON has them."""
    answer = json.loads(connections(processes, directory, "--json"))
    assert answer["left_out"] == 0
    rows = {row["cookie"]: row for row in answer["connections"]}
    assert len(rows) == len(answer["connections"])
    return rows


def is_answered(processes: Processes, directory: Path) -> bool:
    """Whether somebody runs there."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    return processes.run([*COMMAND, "status"], env=environment).code == 0


@pytest.fixture(scope="module")
def place() -> Iterator[Transition]:
    """Make the namespaces. Needs root."""
    require_root()
    with open_transition() as made:
        yield made


def test_shared_namespace(processes: Processes, tmp_path: Path, place: Transition) -> None:
    """Two services share the namespace that has IPv4: each socket there is told to be its own's."""
    with Greeter("four", host=SERVER4) as four:
        port = str(port_of(four.listening))

        def holder(name: str) -> str:
            words = [SERVER4, port, "inet6", str(tmp_path / name)]
            return place.configuration([sys.executable, "-c", HOLDER, *words], name=name)

        running = start_run(processes, tmp_path, holder("one") + holder("two"))
        said = {name: report_of(running, tmp_path / name) for name in ("one", "two")}
        rows = rows_by_cookie(processes, tmp_path)
        text = connections(processes, tmp_path)
        running.signal(signal.SIGTERM)
        assert running.finish().code == 0
    for name, sockets in said.items():
        for kind, (cookie, local_port) in sockets.items():
            row = rows.pop(cookie)
            assert row["service"] == name
            assert row["netns"] == (place.service if kind == "home" else place.egress)
            assert row["local"].endswith(f":{local_port}")
            if kind == "established":
                assert (row["remote"], row["protocol"]) == (written(SERVER4, int(port)), "tcp")
            if kind in STATES:
                assert row["state"] == STATES[kind]
            words = [name, row["protocol"], row["local"], row["remote"] or "-"]
            assert words in [line.split()[:4] for line in text.splitlines()]
    assert not rows


def test_name_is_gone(processes: Processes, tmp_path: Path) -> None:
    """Sockets are told where they are, by what the kernel calls it, when the names are others'."""
    require_root()
    ip = require_tool("ip")
    with open_named() as home, open_named() as there:
        assert processes.run([ip, "-n", there, "addr", "add", EGRESS4, "dev", "lo"]).code == 0
        place = Transition(home, there)
        report = tmp_path / "report"
        words = [sys.executable, "-c", MANY, str(report)]
        running = start_run(processes, tmp_path, place.configuration(words))
        cookies = report_of(running, report)["cookies"]
        inodes = {one: Path("/run/netns", one).stat().st_ino for one in (home, there)}
        for name in (home, there):
            for verb in ("delete", "add"):
                assert processes.run([ip, "netns", verb, name]).code == 0
        rows = rows_by_cookie(processes, tmp_path)
        running.signal(signal.SIGTERM)
        assert running.finish().code == 0
    assert {rows[cookie]["netns"] for cookie in cookies} == {
        f"net:[{inode}]" for inode in inodes.values()
    }


def test_own_namespace(processes: Processes, tmp_path: Path) -> None:
    """An ordinary user's services are told likewise, where meshfd itself is."""
    with Greeter("here") as here:
        report = tmp_path / "report"
        words = ["127.0.0.1", str(port_of(here.listening)), "-", str(report)]
        command = toml_command([sys.executable, "-c", HOLDER, *words])
        running = start_run(processes, tmp_path, f"[service.web]\n{command}")
        said = report_of(running, report)
        rows = rows_by_cookie(processes, tmp_path)
        running.signal(signal.SIGTERM)
        assert running.finish().code == 0
    assert set(rows) == {cookie for cookie, _ in said.values()}
    assert {(row["service"], row["netns"]) for row in rows.values()} == {("web", "-")}
    assert {row["uid"] for row in rows.values()} == {os.geteuid()}


def test_no_fd_left(processes: Processes, tmp_path: Path) -> None:
    """Where meshfd may open nothing more, that is said; its services run on, no fd is lost."""
    report = tmp_path / "report"
    command = toml_command([sys.executable, "-c", MANY, str(report)])
    running = start_run(processes, tmp_path, f"[service.web]\n{command}")
    cookies = set(report_of(running, report)["cookies"])
    held = held_fds(running.pid)
    soft, hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    free = [number for number in range(soft) if str(number) not in held]
    # The one that is left is the client's connection.
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (free[1], hard))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = processes.run([*COMMAND, "status", "--connections"], env=environment)
    assert (done.code, done.err) == (
        1,
        "meshfd: no helper process can be started: Too many open files\n",
    )
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert set(rows_by_cookie(processes, tmp_path)) == cookies
    wait_until(lambda: held_fds(running.pid) == held, "the end of the clients")
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0


def test_nothing_runs(processes: Processes, tmp_path: Path) -> None:
    """A listening socket that nobody has been handed is its service's; else there is nothing.

    An ordinary user may not look into an agent, which alone has it then (README, limits).
    """
    keys = '[service.web]\ncommand = ["true"]\nautostart = false\n'
    address = f"127.0.0.1:{free_port()}"
    text = f'{keys}[[service.web.listen]]\naddress = "{address}"\n'
    running = start_run(processes, tmp_path, text)
    wait_until(lambda: is_answered(processes, tmp_path), "an answer")
    told = [
        (row["service"], row["local"], row["state"])
        for row in rows_by_cookie(processes, tmp_path).values()
    ]
    assert told == ([("web", address, "listen")] if os.geteuid() == 0 else [])
    (tmp_path / "meshfd.toml").write_text(keys)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    assert processes.run([*COMMAND, "reload"], env=environment).code == 0
    assert connections(processes, tmp_path) == "no connections\n"
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0

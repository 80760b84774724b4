"""A service's cgroup: all its sockets belong there, whoever made them, and nothing of it is left.

sock_diag(7) tells each socket's cgroup, which is the inode of the cgroup's directory.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from meshfd.cgroup_paths import find_own
from tests.support.cgroups import Place, new_place, processes_in
from tests.support.command import VIRTUAL, address_of
from tests.support.configured import refused, report_of, start_run, toml_command
from tests.support.ordinary_user import NOBODY, as_ordinary_user
from tests.support.processes import Processes, Program
from tests.support.servers import Greeter, free_port
from tests.support.sock_diag import find_sockets
from tests.support.waiting import wait_until

# A program with a socket of each kind: it names them by their inodes, and waits.
SOCKETS: Final = """
import json, os, pathlib, socket, sys, time
virtual, port, nested, report = sys.argv[1:]
if nested != "-":
    where = pathlib.Path(nested, "below")
    where.mkdir()
    (where / "cgroup.procs").write_text("0")
made = {"created": socket.socket(), "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM)}
made["redirected"] = socket.create_connection((virtual, 80))
made["udp"].bind(("127.0.0.1", 0))
made["created"].bind(("127.0.0.1", 0))
made["created"].listen()
if port != "-":
    made["handed"] = socket.create_server(("127.0.0.1", int(port)))
    client = socket.create_connection(("127.0.0.1", int(port)))
    made["accepted"], _ = made["handed"].accept()
inodes = {kind: os.fstat(one.fileno()).st_ino for kind, one in made.items()}
pathlib.Path(report + ".new").write_text(json.dumps(inodes))
os.rename(report + ".new", report)
time.sleep(1000)
"""


@pytest.fixture
def place() -> Iterator[Place]:
    """Make a cgroup."""
    with new_place() as made:
        yield made


def cgroups_of(inodes: dict[str, int]) -> dict[str, int | None]:
    """Return the cgroup of each of these sockets, as sock_diag tells it."""
    found = find_sockets(socket.AF_INET)
    return {kind: found[inode].cgroup for kind, inode in inodes.items()}


class Run:
    """A service "web" in a cgroup."""

    def __init__(self, processes: Processes, directory: Path) -> None:
        """Nothing is started yet."""
        self._processes = processes
        self.directory = directory
        self.report = directory / "report"

    def start(
        self,
        cgroup: str,
        command: list[str],
        more: str = "",
        upper: str = "",
        prefix: Sequence[str] = (),
    ) -> Program:
        """Start ``meshfd run``."""
        text = f'{upper}\n[service.web]\ncgroup = "{cgroup}"\n{toml_command(command)}{more}\n'
        return start_run(self._processes, self.directory, text, prefix=prefix)


@pytest.fixture
def run(processes: Processes, tmp_path: Path) -> Run:
    """Return a service that is not started."""
    return Run(processes, tmp_path)


@pytest.mark.parametrize("track", ["connect", "create"])
@pytest.mark.parametrize("nested", [False, True], ids=["", "nested"])
def test_sockets_belong(nested: bool, track: str, run: Run, place: Place) -> None:
    """Created, redirected, handed and accepted sockets are the service's own, or its program's."""
    inner = place.directory / "web"
    port = free_port()
    listen = f'[[service.web.listen]]\naddress = "127.0.0.1:{port}"\n'
    with Greeter() as greeter:
        words = [VIRTUAL, "-" if nested else str(port), str(inner) if nested else "-"]
        running = run.start(
            f"{place.path}/web",
            [sys.executable, "-c", SOCKETS, *words, str(run.report)],
            f'track = "{track}"\n' + ("" if nested else listen),
            f'[upstream.u]\naddresses = ["{VIRTUAL}:80"]\n'
            f'endpoints = ["{address_of(greeter.listening)}"]\n',
        )
        inodes = report_of(running, run.report)
        found = cgroups_of(inodes)
        where = inner / "below" if nested else inner
        expected = where.stat().st_ino
        assert set(found) == set(inodes)
        assert found == dict.fromkeys(found, expected)
        assert len(found) == (3 if nested else 5)
        running.signal(signal.SIGTERM)
        assert running.finish().code == 0
    assert not inner.exists()  # nor what the program has made in it


def test_made_and_removed(run: Run, place: Place) -> None:
    """What is missing of the path is made, and removed when the service is no more."""
    running = run.start(f"{place.path}/a/b/web", ["sleep", "1000"])
    inner = place.directory / "a" / "b" / "web"
    wait_until(lambda: inner.exists() and len(processes_in(inner)) == 2, "agent and program")
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0
    assert [one for one in place.directory.iterdir() if one.is_dir()] == []


def test_own_cgroup_is_the_base(run: Run, place: Place) -> None:
    """A path without a leading slash is below meshfd's own cgroup."""
    running = run.start("x/web", ["sleep", "1000"], prefix=place.prefix)
    inner = place.directory / "x" / "web"
    wait_until(lambda: inner.exists() and len(processes_in(inner)) == 2, "agent and program")
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0
    assert not inner.parent.exists()


def test_what_was_there_stays(run: Run, place: Place) -> None:
    """A cgroup that meshfd has not made is used, and left as it was."""
    inner = place.directory / "there"
    inner.mkdir()
    running = run.start(f"{place.path}/there", ["sleep", "1000"])
    wait_until(lambda: len(processes_in(inner)) == 2, "agent and program")
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0
    assert processes_in(inner) == []


def test_after_sigkill(run: Run, place: Place) -> None:
    """The agent of a meshfd that was killed removes what that has made, as the last who is left."""
    parent = place.directory / "shop"
    running = run.start(f"{place.path}/shop/web", ["sleep", "1000"])
    wait_until(lambda: len(processes_in(parent / "web")) == 2, "the service")
    (parent / "web" / "below").mkdir()
    running.signal(signal.SIGKILL)
    running.wait()
    wait_until(lambda: not parent.exists(), "the end of the cgroups")


def test_after_a_crash(run: Run, place: Place) -> None:
    """What is left of a meshfd that was killed, and its agent, is used by the next, and removed."""
    inner = place.directory / "web"
    for stop in (signal.SIGKILL, signal.SIGTERM):
        running = run.start(f"{place.path}/web", ["sleep", "1000"])
        wait_until(lambda: inner.exists() and len(processes_in(inner)) == 2, "the service")
        if stop is signal.SIGKILL:
            running.signal(signal.SIGSTOP)  # or it would see to it
            (inner / "cgroup.kill").write_text("1")
        running.signal(stop)
        running.wait()
        assert inner.exists() == (stop is signal.SIGKILL)
        wait_until(lambda: not inner.exists() or processes_in(inner) == [], "the service's end")


def test_what_escapes_is_killed(run: Run, place: Place) -> None:
    """A process that has left everything but the cgroup goes with it, even without an agent."""
    running = run.start(
        f"{place.path}/web", ["sh", "-c", "setsid sh -c 'sleep 1000 & exit' & exec sleep 1000"]
    )
    inner = place.directory / "web"
    wait_until(lambda: inner.exists() and len(processes_in(inner)) == 3, "the service")
    agent = next(pid for pid in processes_in(inner) if _name_of(pid) == "meshfd-agent")
    os.kill(running.pid, signal.SIGSTOP)  # it must not see the agent's end before its own
    os.kill(agent, signal.SIGKILL)
    os.kill(running.pid, signal.SIGTERM)
    os.kill(running.pid, signal.SIGCONT)
    running.wait()
    assert not inner.exists()


def _name_of(pid: int) -> str:
    return Path("/proc", str(pid), "comm").read_text().strip()


# --- what cannot be used --------------------------------------------------------------------------


def test_no_permission(run: Run, place: Place) -> None:
    """An ordinary user is told what is needed; nothing is started."""
    os.chown(run.directory, NOBODY, NOBODY)
    run.directory.chmod(0o755)
    running = run.start(f"{place.path}/web", ["sleep", "1000"], prefix=as_ordinary_user([]))
    done = running.finish()
    assert done.code != 0
    (line,) = done.err.splitlines()
    assert f"service web: cgroup {place.directory / 'web'} cannot be used: Permission" in line
    assert "Delegate=yes" in line


def test_delegated(run: Run, place: Place) -> None:
    """An ordinary user's own, delegated cgroup serves: no privilege is needed below it."""
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        os.chown(place.directory / name, NOBODY, NOBODY)
    os.chown(run.directory, NOBODY, NOBODY)
    prefix = [*place.prefix, *as_ordinary_user([])]
    running = run.start("web", ["sleep", "1000"], prefix=prefix)
    inner = place.directory / "web"
    wait_until(lambda: inner.exists() and len(processes_in(inner)) == 2, "agent and program")
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0
    assert not inner.exists()


def test_file(run: Run, place: Place) -> None:
    """A file of the kernel's is no cgroup, for root either."""
    line = refused(run.start(f"{place.path}/cgroup.stat", ["sleep", "1000"]))
    assert line == (
        f"meshfd: service web: cgroup {place.directory / 'cgroup.stat'} cannot be used: "
        "Not a directory"
    )


def test_in_use(run: Run, place: Place, processes: Processes, tmp_path: Path) -> None:
    """Two meshfds cannot have the same cgroup; the second says so and starts nothing."""
    inner = place.directory / "web"
    running = run.start(f"{place.path}/web", ["sleep", "1000"])
    wait_until(lambda: inner.exists() and len(processes_in(inner)) == 2, "the service")
    other = tmp_path / "other"
    other.mkdir()
    second = Run(processes, other).start(f"{place.path}/web", ["sleep", "1000"]).finish()
    assert second.code != 0
    assert "processes of another meshfd are in it" in second.err
    assert len(processes_in(inner)) == 2
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0
    assert not inner.exists()


def test_one_in_another(run: Run, place: Place) -> None:
    """A cgroup within another service's own is refused, however it is written."""
    own = find_own(Path("/proc/self/cgroup").read_text())
    relative = os.path.relpath(place.path, own)
    upper = f'[service.a]\ncgroup = "{relative}/x"\ncommand = ["sleep", "1000"]'
    done = run.start(f"{place.path}/x/web", ["sleep", "1000"], upper=upper).finish()
    assert done.code != 0
    assert "service web: cgroup" in done.err
    assert "is a's own" in done.err
    assert [one for one in place.directory.iterdir() if one.is_dir()] == []

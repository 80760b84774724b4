"""A service in a network namespace of its own: all its sockets are there, whoever made them.

Needs root, as entering a namespace does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.configured import refused, report_of, start_run, toml_command
from tests.support.need import require_root
from tests.support.ordinary_user import NOBODY, as_ordinary_user
from tests.support.processes import Processes, agents_of, children_of
from tests.support.waiting import wait_until

# Says where its sockets are: made, UDP, handed, redirected to its own server, and accepted there.
SOCKETS: Final = """
import json, os, pathlib, socket, sys, time
port, report = int(sys.argv[1]), sys.argv[2]
made = {"created": socket.socket(), "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM)}
made["handed"] = socket.create_server(("127.0.0.1", port))
made["redirected"] = socket.create_connection(("127.66.0.1", 80), 20)
made["accepted"], _ = made["handed"].accept()
def netns(one):  # SO_NETNS_COOKIE
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 71, 8), "little")
said = {kind: netns(one) for kind, one in made.items()}
said["inode"] = os.stat("/proc/self/ns/net").st_ino
pathlib.Path(report + ".new").write_text(json.dumps(said))
os.rename(report + ".new", report)
time.sleep(1000)
"""
PORT: Final = 18900  # nobody else is in these namespaces


OURS: Final = "/proc/self/ns/net"


def inode_of(*parts: str) -> int:
    """Return what a namespace is known by."""
    return Path(*parts).stat().st_ino


def netns_cookie() -> int:
    """Return the cookie of our own namespace."""
    with socket.socket() as one:
        return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 71, 8), "little")


def service(netns: str, command: list[str], more: str = "") -> str:
    """Return a service's configuration."""
    return f'[service.web]\nnetns = "{netns}"\n{toml_command(command)}{more}\n'


@pytest.mark.parametrize("track", ["connect", "create"])
@pytest.mark.parametrize("where", ["name", "path", "new"])
def test_sockets_are_there(
    where: str, track: str, processes: Processes, tmp_path: Path, named: str
) -> None:
    """Created, handed, accepted, redirected and UDP sockets are in the service's namespace."""
    report = tmp_path / "report"
    netns = {"name": named, "path": f"/run/netns/{named}", "new": "new"}[where]
    more = (
        f'track = "{track}"\n[[service.web.listen]]\naddress = "127.0.0.1:{PORT}"\n'
        f'[service.web.routes]\n"127.66.0.1:80" = "127.0.0.1:{PORT}"\n'
    )
    command = [sys.executable, "-c", SOCKETS, str(PORT), str(report)]
    running = start_run(processes, tmp_path, service(netns, command, more))
    answers = report_of(running, report)
    inode = answers.pop("inode")
    assert len(answers) == 5
    assert len(set(answers.values())) == 1
    assert netns_cookie() not in answers.values()
    if where == "new":
        assert inode not in {inode_of("/run/netns", named), inode_of(OURS)}
    else:
        assert inode == inode_of("/run/netns", named)
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0


def test_new_one_outlives_a_restart(processes: Processes, tmp_path: Path) -> None:
    """A new namespace is the service's, not one process's: it stays when that is restarted."""
    require_root()
    report = tmp_path / "report"
    code = "import os, sys; print(os.stat('/proc/self/ns/net').st_ino, file=open(sys.argv[1], 'a'))"
    command = [sys.executable, "-c", code, str(report)]
    more = 'restart = "always"\nbackoff = "10ms"\n'
    running = start_run(processes, tmp_path, service("new", command, more))
    wait_until(
        lambda: report.exists() and len(report.read_text().splitlines()) >= 3, "three starts"
    )
    inodes = set(report.read_text().split())
    assert len(inodes) == 1
    assert inodes != {str(inode_of(OURS))}
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0


def test_new_one_ends_with_the_service(processes: Processes, tmp_path: Path) -> None:
    """Nobody is left in a new namespace when the service has ended."""
    require_root()
    running = start_run(processes, tmp_path, service("new", ["sleep", "1000"]))
    (agent,) = wait_until(lambda: agents_of(running.pid), "the agent")
    wait_until(lambda: children_of(agent), "the program")
    with Path("/proc", str(agent), "ns/net").open("rb") as held:  # its inode is not given again
        running.signal(signal.SIGTERM)
        assert running.finish().code == 0
        assert os.fstat(held.fileno()).st_ino not in list(_namespaces_in_use())


def _namespaces_in_use() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield (entry / "ns/net").stat().st_ino


# --- what cannot be used --------------------------------------------------------------------------


def test_missing(processes: Processes, tmp_path: Path) -> None:
    """A namespace that is not there is named, with what makes it."""
    line = refused(start_run(processes, tmp_path, service("meshfd-none", ["sleep", "1000"])))
    assert "network namespace /run/netns/meshfd-none: No such file or directory" in line
    assert "ip netns add meshfd-none" in line


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/ns/mnt", "meshfd.toml"])
def test_something_else(path: str, processes: Processes, tmp_path: Path) -> None:
    """A file that is no network namespace is refused."""
    path = path if path.startswith("/") else f"./{path}"
    line = refused(start_run(processes, tmp_path, service(path, ["sleep", "1000"])))
    assert "this file is no network namespace" in line


@pytest.mark.parametrize("netns", ["new", "/proc/1/ns/net"])
def test_without_privilege(netns: str, processes: Processes, tmp_path: Path) -> None:
    """An ordinary user is told which privilege is needed."""
    if os.geteuid() == 0:
        os.chown(tmp_path, NOBODY, NOBODY)
    text = service(netns, ["sleep", "1000"])
    line = refused(start_run(processes, tmp_path, text, prefix=as_ordinary_user([])))
    assert "CAP_SYS_ADMIN" in line or "Permission denied" in line

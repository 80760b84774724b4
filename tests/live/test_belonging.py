"""A service's sockets are its own for whoever looks at them from outside: as without meshfd.

One program, which has a socket of each kind, is run bare, and under meshfd with `cgroup`, `netns`
and `user`: in the same cgroup, network namespace and identity. What sock_diag tells of each socket,
and what BPF programs, firewalls and net_cls count of them, is compared.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.cgroups import Place, entering, new_place, open_class
from tests.support.command import VIRTUAL
from tests.support.configured import report_of, start_run, toml_command
from tests.support.firewall import (
    iptables_counts,
    nft_cgroup,
    nft_counts,
    set_iptables,
    set_nft,
)
from tests.support.need import require_tool
from tests.support.netns import ask_within, open_named, within
from tests.support.ordinary_user import NOBODY, open_to_all
from tests.support.processes import Processes, Program
from tests.support.programs import Programs
from tests.support.servers import Echo
from tests.support.sock_diag import find_sockets

PORT: Final = 18900  # nobody else is in the namespace
UDP_PORT: Final = 18901
TO_UNIX: Final = "127.66.0.2:80"
CLASS_ID: Final = 0x00104711
INET_KINDS: Final = {
    "listening",
    "handed",
    "connected",
    "accepted",
    "server",
    "sender",
    "associated",
}

both_tracks = pytest.mark.parametrize("track", ["connect", "create"])


@dataclass(frozen=True, slots=True)
class Who:
    """Whom the service runs as, and whom its program becomes by itself; None: as it was."""

    user: int | None
    becomes: int | None

    def __str__(self) -> str:
        return "user" if self.becomes is None else "drops"


USER: Final = Who(NOBODY, None)
DROPS: Final = Who(None, NOBODY)


class Stage:
    """A cgroup, a network namespace, and a program that is run there in two ways."""

    def __init__(
        self, place: Place, netns: str, program: Path, processes: Processes, directory: Path
    ) -> None:
        """Nothing runs yet; the program reports to ``directory``."""
        self.netns = netns
        self.cgroup = place.directory / "web"
        self.cgroup.mkdir()
        self.path = f"{place.path}/web"
        self.prefix: list[str] = []  # a command that runs the program, or meshfd
        self.program_prefix: list[str] = []  # a command that runs the program, in either case
        self._program = program
        self._processes = processes
        self.directory = directory
        self._n_runs = 0

    def bare(self, who: Who = USER, unix: str = "-") -> tuple[Program, dict[str, Any]]:
        """Run the program without meshfd; returns it, and what it says of its sockets."""
        report = self._new_report()
        ids = "" if who.user is None else f"--reuid={who.user} --regid={who.user} --clear-groups"
        running = self._processes.start(
            [
                *self.prefix,
                *entering([self.cgroup]),
                *within(self.netns),
                *([require_tool("setpriv"), *ids.split(), "--"] if ids else []),
                *self._command(report, ("127.0.0.1", PORT, UDP_PORT), unix, who),
            ]
        )
        return running, report_of(running, report)

    def meshfd(
        self, track: str, who: Who = USER, unix: str = "-"
    ) -> tuple[Program, dict[str, Any]]:
        """Run it as a service."""
        report = self._new_report()
        way = "-" if unix == "-" else TO_UNIX
        lines = [
            "[service.web]",
            toml_command(self._command(report, (VIRTUAL, 80, 53), way, who)),
            f'cgroup = "{self.path}"',
            f'netns = "{self.netns}"',
            f'track = "{track}"',
            "" if who.user is None else f'user = "{who.user}"',
            "[[service.web.listen]]",
            f'address = "127.0.0.1:{PORT}"',
            "[service.web.routes]",
            f'"{VIRTUAL}:80" = "127.0.0.1:{PORT}"',
            f'"udp:{VIRTUAL}:53" = "127.0.0.1:{UDP_PORT}"',
            "" if unix == "-" else f'"{TO_UNIX}" = "unix:{unix}"',
        ]
        text = "\n".join(lines) + "\n"
        running = start_run(self._processes, self.directory, text, prefix=self.prefix)
        return running, report_of(running, report)

    def end(self, running: Program) -> None:
        """End what runs; nothing of it is left in the cgroup."""
        running.signal(signal.SIGTERM)
        running.wait()
        assert (self.cgroup / "cgroup.procs").read_text() == ""

    def told(self, said: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return what the kernel tells of each of these sockets, and in which namespace it is."""
        families = (socket.AF_INET, socket.AF_UNIX)
        found = ask_within(self.netns, lambda: find_sockets(*families))
        return {
            kind: asdict(found[one["inode"]]) | {"netns": one["netns"], "owner": one["uid"]}
            for kind, one in said.items()
        }

    def _new_report(self) -> Path:
        self._n_runs += 1
        return self.directory / f"report-{self._n_runs}"

    def _command(self, report: Path, way: tuple[str, int, int], unix: str, who: Who) -> list[str]:
        host, port, udp_port = way
        numbers = [host, str(port), host, str(udp_port), str(UDP_PORT)]
        becomes = "-" if who.becomes is None else str(who.becomes)
        program = [str(self._program), str(report), str(PORT), *numbers, unix, becomes]
        return [*self.program_prefix, *program]


@pytest.fixture
def place() -> Iterator[Place]:
    """Make a cgroup."""
    with new_place() as made:
        yield made


@pytest.fixture
def stage(place: Place, program: Programs, processes: Processes, tmp_path: Path) -> Iterator[Stage]:
    """Make a stage. Needs root."""
    open_to_all(tmp_path).chmod(0o777)  # the user reports there
    with open_named() as netns:
        yield Stage(place, netns, program("belonging"), processes, tmp_path)


def compared(stage: Stage, track: str, who: Who, unix: str = "-") -> tuple[Any, Any]:
    """Return what is told of the sockets without meshfd, and with it."""
    running, said = stage.bare(who, unix)
    bare = stage.told(said)
    stage.end(running)
    running, said = stage.meshfd(track, who, unix)
    told = stage.told(said)
    stage.end(running)
    return bare, told


def class_ids(told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the class of each of these sockets."""
    return {kind: one["class_id"] for kind, one in told.items()}


@both_tracks
@pytest.mark.parametrize("who", [USER, DROPS], ids=str)
def test_sock_diag(who: Who, track: str, stage: Stage) -> None:
    """State, user, cgroup, namespace and all else that is told of a socket is as without meshfd.

    A unix socket that stands for a TCP socket is like one that the program has made. The server
    sees the program's user.
    """
    unix = str(stage.directory / "unix")
    with Echo(unix) as server:
        bare, told = compared(stage, track, who, unix)
    assert set(bare) == {*INET_KINDS, "unix"}
    assert {one["uid"] for one in bare.values()} == {NOBODY}
    assert {bare[kind]["cgroup"] for kind in INET_KINDS} == {stage.cgroup.stat().st_ino}
    if who is DROPS:  # by then it is there: it belongs to whom the service was started as
        assert (told["handed"]["uid"], told["handed"]["owner"]) == (0, 0)
        told["handed"] |= {"uid": NOBODY, "owner": NOBODY}
    assert told == bare
    assert [peer[1] for peer in server.peers] == [NOBODY, NOBODY]


@both_tracks
@pytest.mark.parametrize("who_is_in_it", ["meshfd", "program"])
def test_net_cls(who_is_in_it: str, track: str, stage: Stage) -> None:
    """A program's sockets have its class of net_cls, whether meshfd is in that class or not.

    The kernel gives a socket the class of each process that gets hold of it, and the agent does
    (net/core/sock.c, __receive_sock). So it does with net_prio; that knows interfaces of the
    initial network namespace alone (net/core/netprio_cgroup.c), where no test goes.
    """
    with open_class(CLASS_ID) as directory:
        if who_is_in_it == "meshfd":
            stage.prefix = entering([directory])
        else:
            stage.program_prefix = entering([directory])
        bare, told = compared(stage, track, DROPS)
        by_class = {"class": f"meta cgroup {CLASS_ID}"}
        counted = []
        for run in (stage.bare, partial(stage.meshfd, track)):
            set_nft(stage.netns, by_class)
            running, _ = run(DROPS)
            counted.append(nft_counts(stage.netns))
            stage.end(running)
    assert {one["class_id"] for one in bare.values()} == {CLASS_ID}
    assert class_ids(told) == class_ids(bare)
    assert counted[0]["class_SYN"] == 1
    assert counted[0]["class_datagrams"] == 2
    assert counted[1] == counted[0]


@both_tracks
def test_bpf(track: str, stage: Stage, program: Programs, processes: Processes) -> None:
    """BPF programs of the cgroup see the same calls and packets.

    connect() that is redirected is the agent's, who is in the same cgroup and calls it on the
    program's own socket. What they see more is a listening socket: it was made before the program
    made its own, in whose place it was put.
    """
    counted = []
    for run in (stage.bare, partial(stage.meshfd, track)):
        counting = processes.start([program("bpf_count"), stage.cgroup])
        assert counting.line() == "attached"
        running, _ = run()
        counting.tell()
        counted.append(json.loads(counting.line()))
        counting.finish()
        stage.end(running)
    bare, told = counted
    assert 0 not in bare.values()
    assert told == bare | {"stream sockets": bare["stream sockets"] + 1}


@both_tracks
def test_firewalls(track: str, stage: Stage) -> None:
    """Rules of nft and iptables about user, group and cgroup match the same packets."""
    cgroup = nft_cgroup(stage.cgroup, stage.path)
    counted = []
    for run in (stage.bare, partial(stage.meshfd, track)):
        set_nft(
            stage.netns,
            {"user": f"meta skuid {NOBODY}", "group": f"meta skgid {NOBODY}", "cgroup": cgroup},
        )
        set_iptables(
            stage.netns,
            {
                "user": f"-m owner --uid-owner {NOBODY}",
                "group": f"-m owner --gid-owner {NOBODY}",
                "cgroup": f"-m cgroup --path {stage.path}",
            },
        )
        running, _ = run()
        counted.append((nft_counts(stage.netns), iptables_counts(stage.netns)))
        stage.end(running)
    bare, told = counted
    for one in bare:  # a SYN+ACK has no full socket, and so no cgroup, for nft
        assert {name for name, count in one.items() if count == 0} <= {"cgroup_SYN_ACK"}
    assert told == bare

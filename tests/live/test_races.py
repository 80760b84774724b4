"""In the middle of meshfd's own work a child dies, or threads change what is looked at."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.command import Meshfd
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import free_port
from tests.support.waiting import wait_until

# Stops of the child, two a system call, up to its exec and a little beyond.
N_STOPS = 32
N_STOPS_QUICK = 12
N_HANDOVERS = 400
N_HANDOVERS_QUICK = 100


def test_killed_before_exec(
    meshfd: Meshfd, program: Programs, processes: Processes, tmp_path: Path, quick: bool
) -> None:
    """Killed at any step between clone and exec, the command has ended: 137, or 125 and one line.

    No agent stays behind.
    """
    meshfd.need()
    from meshfd.agent_process import agent_path  # noqa: PLC0415 -- see above: not without meshfd

    killer = tmp_path / "agent"
    codes = []
    for n in range(N_STOPS_QUICK if quick else N_STOPS):
        killer.write_text(f'#!/bin/sh\nexec {program("killed_child")} {n} {agent_path()} "$@"\n')
        killer.chmod(0o755)
        environment = {**os.environ, "MESHFD_AGENT": str(killer)}
        done = processes.run(meshfd.exec("sleep", "1000"), env=environment)
        assert done.out == ""
        assert len(done.err.splitlines()) == (1 if done.code == 125 else 0), done
        wait_until(lambda: not processes.running(), "the end of all that meshfd had started")
        codes.append(done.code)
    assert codes[0] == 125, "it had not begun"
    assert set(codes) == {125, 137}
    assert sorted(codes) == codes, "the filter is installed, or not, once"


def test_epoll_instances_that_come_and_go(
    meshfd: Meshfd, program: Programs, processes: Processes, quick: bool
) -> None:
    """bind() receives the socket, whatever other threads do to epoll instances meanwhile."""
    port = free_port()
    n_handovers = N_HANDOVERS_QUICK if quick else N_HANDOVERS
    done = processes.run(
        meshfd.exec(
            program("epoll_churn"),
            "127.0.0.1",
            str(port),
            str(n_handovers),
            options=("--listen", f"127.0.0.1:{port}"),
        )
    )
    assert done.lines == ["failed: 0"], done.err
    assert done.code == 0

"""Limits of a service hold from its program's first moment; meshfd and its agent keep theirs."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

from tests.support.configured import start_run, toml_command
from tests.support.ordinary_user import NOBODY, as_ordinary_user
from tests.support.processes import Processes, agents_of, children_of
from tests.support.waiting import wait_until


def configuration(rlimits: str, command: list[str]) -> str:
    """Return a service that ends with its program."""
    return f'[service.a]\non_exit = "stop-all"\nrlimits = {rlimits}\n{toml_command(command)}'


def test_in_force(processes: Processes, tmp_path: Path) -> None:
    """Soft and hard limits are as configured; the others are inherited."""
    report = tmp_path / "limits"
    text = configuration(
        '{ nofile = [100, 200], core = 0, stack = ["4MiB", "8MiB"] }',
        ["cp", "/proc/self/limits", str(report)],
    )
    assert start_run(processes, tmp_path, text).finish().code == 0
    said = {
        line[:26].strip(): tuple(line[26:].split()[:2])
        for line in report.read_text().splitlines()[1:]
    }
    assert said["Max open files"] == ("100", "200")
    assert said["Max core file size"] == ("0", "0")
    assert said["Max stack size"] == (str(4 << 20), str(8 << 20))
    own = resource.getrlimit(resource.RLIMIT_NPROC)
    words = tuple("unlimited" if one == resource.RLIM_INFINITY else str(one) for one in own)
    assert said["Max processes"] == words


def test_agent_keeps_its_own(processes: Processes, tmp_path: Path) -> None:
    """A service with few open files leaves its agent all that it needs."""
    text = configuration("{ nofile = 10 }", ["sleep", "1000"])
    running = start_run(processes, tmp_path, text)
    (agent,) = wait_until(lambda: agents_of(running.pid), "the agent")
    (program,) = wait_until(lambda: children_of(agent), "the program")
    wait_until(  # at first it is the agent's copy
        lambda: resource.prlimit(program, resource.RLIMIT_NOFILE) == (10, 10), "its own limit"
    )
    assert resource.prlimit(agent, resource.RLIMIT_NOFILE)[1] > 10
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0


def test_not_allowed(processes: Processes, tmp_path: Path) -> None:
    """An ordinary user cannot raise a hard limit: the service fails, and says why."""
    if os.geteuid() == 0:
        os.chown(tmp_path, NOBODY, NOBODY)
    text = configuration("{ nice = 40, rtprio = 99 }", ["true"])
    done = start_run(processes, tmp_path, text, prefix=as_ordinary_user([])).finish()
    assert done.code != 0
    assert "true: cannot take on its limits: Operation not permitted" in done.err


FEW = 128  # fds that a supervisor of N_SERVICES could not do with
N_SERVICES = 40


def test_few_files_are_no_limit_for_services(processes: Processes, tmp_path: Path) -> None:
    """A supervisor raises its soft limit of open files; its services have the one it was given."""
    text = "".join(
        f'[service.s{i}]\nlog = "{tmp_path}/s{i}"\n'
        f"{toml_command(['sh', '-c', 'ulimit -Sn; exec sleep 1000'])}\n"
        for i in range(N_SERVICES)
    )
    prefix = ["sh", "-c", f'ulimit -Sn {FEW}; exec "$@"', "sh"]
    running = start_run(processes, tmp_path, text, prefix=prefix)

    def said() -> list[str]:
        logs = [tmp_path / f"s{i}" for i in range(N_SERVICES)]
        return [log.read_text() if log.exists() else "" for log in logs]

    wait_until(lambda: all(said()), "what every service says")
    assert said() == [f"{FEW}\n"] * N_SERVICES
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert resource.prlimit(running.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0

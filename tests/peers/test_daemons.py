"""Real daemons that know nothing of activation are handed their listening socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.support.builds import Builds
from tests.support.command import COMMAND, Meshfd
from tests.support.daemons import DAEMONS, Daemon, nginx
from tests.support.load import Load, ask_once
from tests.support.processes import Processes, Program, children_of, descendants_of, state_of
from tests.support.servers import free_port
from tests.support.waiting import DEADLINE_S, wait_until

N_EARLY = 5  # as many as the smallest backlog among the daemons, http.server's
N_CLIENTS = 4
N_RESTARTS = 50
N_RESTARTS_QUICK = 5
N_KILLS = 10
N_RELOADS = 10

SERVICE = """\
[service.d]
command = {command}
restart = "always"
backoff = {{ first = "1ms", last = "1ms" }}
stop_signal = "{stop_signal}"
ready = "listen"
log = "daemon.log"

[[service.d.listen]]
address = "127.0.0.1:{port}"
"""


@pytest.fixture
def daemon(request: pytest.FixtureRequest, tmp_path: Path, builds: Builds) -> Daemon:
    """Return the daemon that the test's parameter names, not started, on a free port."""
    return DAEMONS[request.param](free_port(), tmp_path, builds)


def all_daemons() -> pytest.MarkDecorator:
    """Run a test with each daemon."""
    return pytest.mark.parametrize("daemon", DAEMONS, indirect=True)


@all_daemons()
def test_clients_before(daemon: Daemon, meshfd: Meshfd, processes: Processes) -> None:
    """Clients that connected, and asked, before the daemon ran are served when it does."""
    meshfd.need()
    script = 'echo up; read go; exec "$@" >&2'
    running = processes.start(
        meshfd.exec(
            "sh",
            "-c",
            script,
            "sh",
            *daemon.command,
            options=("--listen", f"127.0.0.1:{daemon.port}"),
        )
    )
    assert running.line() == "up"
    early = [
        socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S) for _ in range(N_EARLY)
    ]
    with ThreadPoolExecutor(N_EARLY) as clients:
        answers = [clients.submit(daemon.exchange, connection) for connection in early]
        running.tell()
        try:
            assert [answer.result() for answer in answers] == [True] * N_EARLY
        finally:
            for connection in early:
                connection.close()
    assert ask_once(daemon.port, daemon.exchange)
    running.signal(signal.Signals[daemon.stop_signal])
    running.wait()


@all_daemons()
def test_bare(daemon: Daemon, processes: Processes) -> None:
    """(The same daemon without meshfd serves: the configuration is right.)."""
    processes.start(daemon.command, stdout=None)
    wait_until(lambda: ask_once(daemon.port, daemon.exchange), "the daemon's service")


class Supervised:
    """A daemon as the service "d" of `meshfd run`."""

    def __init__(self, daemon: Daemon, directory: Path, processes: Processes) -> None:
        """Start it."""
        self._processes = processes
        configuration = directory / "d.toml"
        words = ", ".join(_quoted(word) for word in daemon.command)
        configuration.write_text(
            SERVICE.format(
                command=f"[{words}]",
                stop_signal=daemon.stop_signal,
                port=daemon.port,
            )
        )
        self._environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
        self.meshfd: Program = self._start("run", str(configuration))
        wait_until(lambda: self._answers(daemon), "the first answer")

    def _answers(self, daemon: Daemon) -> bool:
        if self.meshfd.popen.poll() is not None:
            self.meshfd.give_up("meshfd run has ended")
        return ask_once(daemon.port, daemon.exchange)

    def _start(self, *words: str) -> Program:
        return self._processes.start([*COMMAND, *words], env=self._environment)

    def restart(self) -> None:
        """Restart the daemon; returns when meshfd says that it is ready."""
        done = self._start("restart", "d").finish()
        assert done.code == 0, done.err

    def kill(self) -> None:
        """Kill the daemon; returns when meshfd has started it again."""
        victim = wait_until(self.main_pid, "the daemon's process")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: self.main_pid() not in {0, victim}, "the next process")

    def freeze(self) -> list[int]:
        """Stop all of the daemon's processes (SIGSTOP), so that they accept nobody; their pids."""

        def all_stopped() -> list[int]:
            pids = [pid for agent in children_of(self.meshfd.pid) for pid in descendants_of(agent)]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            return pids if pids and all(state_of(pid) == "T" for pid in pids) else []

        return wait_until(all_stopped, "the daemon's standstill")

    def main_pid(self) -> int:
        """Return the pid of the daemon's first process."""
        agents = children_of(self.meshfd.pid)
        return next((pid for agent in agents for pid in children_of(agent)), 0)

    def is_ready(self) -> bool:
        """Whether meshfd says that the daemon is ready."""
        done = self._start("status", "--json").finish()
        assert done.code == 0, done.err
        return bool(json.loads(done.out)["services"][0]["ready"])

    def stop(self) -> None:
        """Stop meshfd, and with it the daemon."""
        self.meshfd.signal(signal.SIGTERM)
        assert self.meshfd.wait() == 0, self.meshfd.errors()
        wait_until(lambda: not self._processes.running(), "the end of the daemon")


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@pytest.fixture
def supervised(
    daemon: Daemon, meshfd: Meshfd, tmp_path: Path, processes: Processes
) -> Iterator[Supervised]:
    """Return the daemon, serving under `meshfd run`."""
    meshfd.need()
    running = Supervised(daemon, tmp_path, processes)
    yield running
    running.stop()


def n_restarts(*, quick: bool) -> int:
    """Return how often to restart."""
    usual = N_RESTARTS_QUICK if quick else N_RESTARTS
    return int(os.environ.get("MESHFD_RESTARTS", usual))


def check(load: Load, *, n_ends: int, graceful: bool) -> None:
    """Nobody was refused and nobody who queued was lost; what was cut had been accepted.

    A client has one connection at a time, so each end of the daemon can cut one of each client.
    """
    outcome = load.outcome
    assert outcome.refused == 0, outcome
    assert outcome.lost == 0, outcome
    assert outcome.served > 0, outcome
    assert outcome.cut <= (0 if graceful else n_ends * N_CLIENTS), outcome


@all_daemons()
def test_ready(daemon: Daemon, supervised: Supervised) -> None:
    """It counts as ready once it listens.

    That includes haproxy, which asks for SO_ACCEPTCONN first, and does not call listen() on a
    socket that is listening already.
    """
    assert ask_once(daemon.port, daemon.exchange)
    wait_until(supervised.is_ready, "the daemon's readiness")


@all_daemons()
def test_restarts(
    daemon: Daemon,
    supervised: Supervised,
    quick: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """Restarted 50 times under constant load, it refuses no client and loses none that queues."""
    n_ends = n_restarts(quick=quick)
    with Load(daemon.port, daemon.exchange, N_CLIENTS) as load:
        for _ in range(n_ends):
            supervised.restart()
            load.wait_for_service()
    record_property("outcome", load.outcome)
    check(load, n_ends=n_ends, graceful=daemon.graceful)


@all_daemons()
def test_queue_outlives_kill(daemon: Daemon, supervised: Supervised) -> None:
    """Clients that a daemon has not accepted when it is killed are served by its next start."""
    victims = supervised.freeze()
    queued = [
        socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S) for _ in range(N_EARLY)
    ]
    with ThreadPoolExecutor(N_EARLY) as clients:
        answers = [clients.submit(daemon.exchange, connection) for connection in queued]
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):  # meshfd was quicker with what is left
                os.kill(victim, signal.SIGKILL)
        try:
            assert [answer.result() for answer in answers] == [True] * N_EARLY
        finally:
            for connection in queued:
                connection.close()


@pytest.mark.parametrize("daemon", ["redis", "http.server", "go"], indirect=True)
def test_kills(daemon: Daemon, supervised: Supervised) -> None:
    """Killed under load, the daemon is started again and no client is refused."""
    with Load(daemon.port, daemon.exchange, N_CLIENTS) as load:
        for _ in range(N_KILLS):
            supervised.kill()
            load.wait_for_service()
    check(load, n_ends=N_KILLS, graceful=False)


def _replaced(master: int, old_workers: set[int]) -> bool:
    workers = set(children_of(master))
    return len(workers) == len(old_workers) and not workers & old_workers


def test_nginx_reload(meshfd: Meshfd, tmp_path: Path, builds: Builds, processes: Processes) -> None:
    """Nginx changes its workers on SIGHUP, sent to meshfd, and no client notices."""
    daemon = nginx(free_port(), tmp_path, builds)
    running = processes.start(
        meshfd.exec(*daemon.command, options=("--listen", f"127.0.0.1:{daemon.port}")), stdout=None
    )
    wait_until(lambda: ask_once(daemon.port, daemon.exchange), "the first answer")
    master = int((tmp_path / "nginx.pid").read_text())
    with Load(daemon.port, daemon.exchange, N_CLIENTS) as load:
        for _ in range(N_RELOADS):
            old_workers = set(children_of(master))
            running.signal(signal.SIGHUP)
            wait_until(partial(_replaced, master, old_workers), "two new workers and no old one")
            load.wait_for_service()
    check(load, n_ends=N_RELOADS, graceful=True)
    running.signal(signal.SIGQUIT)
    assert running.wait() == 0

"""How long a program takes to start, to open its sockets, and to stop.

Theory of operation: it is holder.c, as a child of ours, or as a service of `meshfd run` whose
sockets the agent makes and whose connections are redirected; that is started and stopped over the
control socket. A start lasts to the program's first word, a stop until nothing of it runs any more,
as whoever asked for it is told. The program is stopped as soon as its last socket is open, which is
when the agent holds the most. How long opening takes is only said of many sockets: the first is
open before we have heard that the program has begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from tests.bench.errors import BenchError
from tests.bench.metrics import Metric, Pair, Sample
from tests.bench.part import Measure, Part, Stage, each_in_turn
from tests.bench.programs import PATIENCE_S, SERVER_ADDRESS, VIRTUAL_ADDRESS
from tests.bench.supervisor import Supervisor, supervise
from tests.support.servers import free_port

NAME: Final = "holder"


@dataclass(frozen=True, slots=True)
class Life:
    """How the program lives, and what it holds."""

    is_service: bool
    n_sockets: int
    connected: bool = False


LIVES: Final = {
    "bare, 1 socket": Life(is_service=False, n_sockets=1),
    "bare, 1,000 sockets": Life(is_service=False, n_sockets=1000),
    "bare, 1,000 connections": Life(is_service=False, n_sockets=1000, connected=True),
    "service, 1 socket": Life(is_service=True, n_sockets=1),
    "service, 1,000 sockets": Life(is_service=True, n_sockets=1000),
    "service, 1,000 connections": Life(is_service=True, n_sockets=1000, connected=True),
}
METRICS: Final = (
    Metric("start_ns", "start, to the first word", "ms", 1e6),
    Metric("open_each_ns", "opening each socket", "us", 1e3),
    Metric("stop_ns", "stop, to nothing left", "ms", 1e6),
)
PAIRS: Final = (
    Pair("bare, 1,000 sockets", "bare, 1 socket"),
    Pair("service, 1,000 sockets", "service, 1 socket"),
    Pair("service, 1 socket", "bare, 1 socket"),
    Pair("service, 1,000 sockets", "bare, 1,000 sockets"),
    Pair("service, 1,000 connections", "bare, 1,000 connections"),
)


class _Keeper(Protocol):
    """Starts and stops the program; ``stop`` returns when nothing of it is left."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class _Child:
    """The program as a child of ours."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._running = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._running is not None:
            self._running.send_signal(signal.SIGTERM)
            self._running.wait(PATIENCE_S)


class _Service:
    """The program as a service of a `meshfd run` that is there."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def start(self) -> None:
        self._supervisor.ask("start", NAME)

    def stop(self) -> None:
        self._supervisor.ask("stop", NAME)


def _measure(kind: Life, n_starts: int, directory: Path) -> Sample:
    """Start and stop the program; ``directory`` has holder. Medians, of times in nanoseconds."""
    fifo = directory / "report"
    with contextlib.suppress(FileExistsError):
        os.mkfifo(fifo)
    report_fd = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    try:
        port = free_port()
        address = VIRTUAL_ADDRESS if kind.is_service else SERVER_ADDRESS
        command = [str(directory / "holder"), str(kind.n_sockets), str(fifo)]
        command += [address, str(port)] if kind.connected else []
        with _serve(command, port, directory) if kind.is_service else _have(command) as keeper:
            lives = [_live(keeper, report_fd, kind.n_sockets) for _ in range(n_starts + 1)]
    finally:
        os.close(report_fd)
    del lives[0]  # the first warms up
    return {key: statistics.median(life[key] for life in lives) for key in lives[0]}


def _live(keeper: _Keeper, report_fd: int, n_sockets: int) -> Sample:
    begin = time.monotonic_ns()
    keeper.start()
    _wait_for_report(report_fd)
    began = time.monotonic_ns()
    _wait_for_report(report_fd)
    opened = time.monotonic_ns()
    keeper.stop()
    times = {"start_ns": float(began - begin), "stop_ns": float(time.monotonic_ns() - opened)}
    if n_sockets > 1:
        times["open_each_ns"] = (opened - began) / n_sockets
    return times


def _wait_for_report(report_fd: int) -> None:
    if not select.select([report_fd], [], [], PATIENCE_S)[0]:
        raise BenchError(f"holder said nothing for {PATIENCE_S:.0f} s")
    os.read(report_fd, 1)


@contextlib.contextmanager
def _have(command: list[str]) -> Iterator[_Keeper]:
    child = _Child(command)
    try:
        yield child
    finally:
        child.stop()


@contextlib.contextmanager
def _serve(command: list[str], port: int, directory: Path) -> Iterator[_Keeper]:
    toml = (
        f'[service.{NAME}]\nautostart = false\ntrack = "create"\ncommand = {json.dumps(command)}\n'
        f'[service.{NAME}.routes]\n"{VIRTUAL_ADDRESS}:{port}" = "{SERVER_ADDRESS}:{port}"\n'
    )
    with supervise(directory, toml) as supervisor:
        yield _Service(supervisor)


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    n_starts = stage.effort(10, 1)
    yield each_in_turn(
        {name: partial(_measure, kind, n_starts, stage.directory) for name, kind in LIVES.items()}
    )


PART: Final = Part("lives", "Starts and stops of a service", METRICS, PAIRS, 5, _open)

"""How long a program takes to start, to open its sockets, and to stop.

Theory of operation: a mode is a way to run holder.c, and what it holds.

    bare-...          as a child of ours
    service-...       as a service of `meshfd run`, track = "create", its connections redirected;
                      started and stopped over the control socket
    ...-1, -1000      as many TCP sockets
    ...-1000-connected  the same, connected

A start lasts to the program's first word, a stop until nothing of it runs any more, as whoever
asked for it is told. The program is stopped as soon as its last socket is open, which is when the
agent holds the most. How long opening takes is only said of many sockets: the first is open before
we have heard that the program has begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from meshfd.client import ask
from meshfd.errors import MeshfdError
from meshfd.protocol import Request
from tests.bench.errors import BenchError
from tests.bench.metrics import Sample
from tests.support.servers import free_port

SERVER_ADDRESS: Final = "127.0.0.1"
VIRTUAL_ADDRESS: Final = "127.66.0.1"
NAME: Final = "holder"
PATIENCE_S: Final = 60.0
PAUSE_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Life:
    """A mode."""

    is_service: bool
    n_sockets: int
    connected: bool = False


LIVES: Final = {
    "bare-1": Life(is_service=False, n_sockets=1),
    "bare-1000": Life(is_service=False, n_sockets=1000),
    "bare-1000-connected": Life(is_service=False, n_sockets=1000, connected=True),
    "service-1": Life(is_service=True, n_sockets=1),
    "service-1000": Life(is_service=True, n_sockets=1000),
    "service-1000-connected": Life(is_service=True, n_sockets=1000, connected=True),
}


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

    def __init__(self, control: Path) -> None:
        self._control = control

    def start(self) -> None:
        self._ask("start")

    def stop(self) -> None:
        self._ask("stop")

    def _ask(self, command: str) -> None:
        try:
            ask(Request(command, (NAME,)), path=self._control, timeout_s=PATIENCE_S)
        except MeshfdError as error:
            raise BenchError(str(error)) from error


def measure(mode: str, n_starts: int, directory: Path) -> Sample:
    """Start and stop the program; ``directory`` has holder. Medians, of times in nanoseconds."""
    kind = LIVES[mode]
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
    file = directory / "service.toml"
    file.write_text(
        f'[service.{NAME}]\nautostart = false\ntrack = "create"\ncommand = {json.dumps(command)}\n'
        f'[service.{NAME}.routes]\n"{VIRTUAL_ADDRESS}:{port}" = "{SERVER_ADDRESS}:{port}"\n'
    )
    control = directory / "meshfd" / "control.sock"
    with subprocess.Popen(
        [sys.executable, "-m", "meshfd", "run", str(file)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "XDG_RUNTIME_DIR": str(directory)},
    ) as running:
        try:
            _wait_for_answer(control, running)
            yield _Service(control)
        finally:
            running.terminate()
            running.communicate(timeout=PATIENCE_S)


def _wait_for_answer(control: Path, running: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            ask(Request("status"), path=control, timeout_s=PATIENCE_S)
        except MeshfdError as error:
            if running.poll() is not None or time.monotonic() > end_s:
                raise BenchError(str(error)) from error
            time.sleep(PAUSE_S)
        else:
            return

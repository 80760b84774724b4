"""How long it takes to start: a command that does nothing, and a server until it has answered.

The server can be connected to as soon as `meshfd run` has opened its listening socket; what counts
is its first answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from tests.bench.errors import BenchError
from tests.bench.metrics import Metric, Pair, Sample
from tests.bench.part import Measure, Part, Stage, each_in_turn
from tests.bench.peers.need import tool
from tests.bench.programs import PATIENCE_S, SERVER_ADDRESS, meshfd, run
from tests.support.servers import free_port

PAUSE_S: Final = 0.0005
ECHO: Final = b"e"  # server.c
PYTHON: Final = "python -c pass"
EXEC: Final = "meshfd exec true"
EXEC_ROUTE: Final = "meshfd exec true, a route"
PROXYCHAINS: Final = "proxychains4 true"
SERVER: Final = "server"
RUN: Final = "meshfd run, server"

METRICS: Final = (
    Metric("start_ns", "to its end", "ms", 1e6),
    Metric("answer_ns", "to the first answer", "ms", 1e6),
)
PAIRS: Final = (
    Pair(EXEC, PYTHON),
    Pair(EXEC_ROUTE, PYTHON),
    Pair(EXEC, PROXYCHAINS),
    Pair(PROXYCHAINS, "true"),
    Pair(RUN, SERVER),
)


def _measure_start(command: Sequence[str]) -> Sample:
    begin = time.monotonic_ns()
    run(command)
    return {"start_ns": float(time.monotonic_ns() - begin)}


def _wait_for_answer(port: int, running: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with socket.create_connection((SERVER_ADDRESS, port), PATIENCE_S) as connection:
                connection.sendall(ECHO + b"x")
                if connection.recv(1):
                    return
                why = "the connection was closed"
        except (ConnectionError, TimeoutError) as error:
            why = str(error)
        if running.poll() is not None or time.monotonic() > end_s:
            raise BenchError(f"{running.args!r}: no answer at port {port}: {why}")
        time.sleep(PAUSE_S)


def _measure_answer(stage: Stage, port: int, command: Sequence[str]) -> Sample:
    begin = time.monotonic_ns()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "XDG_RUNTIME_DIR": str(stage.directory)},
    ) as running:
        try:
            _wait_for_answer(port, running)
            answered = time.monotonic_ns()
        finally:
            running.terminate()
            running.communicate(timeout=PATIENCE_S)
    return {"answer_ns": float(answered - begin)}


def _supervised(stage: Stage, port: int, command: Sequence[str]) -> list[str]:
    """The same server as a service, on a listening socket that was opened beforehand."""
    file = stage.directory / "start.toml"
    file.write_text(
        f"[service.server]\ncommand = {json.dumps(command)}\n"
        f'[[service.server.listen]]\naddress = "{SERVER_ADDRESS}:{port}"\n'
    )
    return [sys.executable, "-m", "meshfd", "run", str(file)]


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    port = free_port()
    server = [str(stage.directory / "server"), "-", str(port)]
    commands = {"true": ["true"], PYTHON: [sys.executable, "-c", "pass"]}
    with stage.optional(PROXYCHAINS):
        commands[PROXYCHAINS] = [tool("proxychains4", "proxychains4"), "-q", "true"]
    commands[EXEC] = meshfd("exec", "--", "true")
    commands[EXEC_ROUTE] = meshfd("exec", "--route", "127.66.0.1:1=127.0.0.1:1", "--", "true")
    subjects: dict[str, Callable[[], Sample]] = {
        name: partial(_measure_start, command) for name, command in commands.items()
    }
    subjects[SERVER] = partial(_measure_answer, stage, port, server)
    supervised = _supervised(stage, port, server)
    for command in commands.values():  # what is compiled and read from disk once is no start
        run(command)
    subjects[RUN] = partial(_measure_answer, stage, port, supervised)
    yield each_in_turn(subjects)


PART: Final = Part("start", "Starts", METRICS, PAIRS, 25, _open, ("start_ns",))

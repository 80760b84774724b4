"""Many services of one supervisor, a probe in each.

Theory of operation: a service has no standard input of ours, so each probe reads its commands from
one FIFO and answers into another. We open both before it runs and nobody waits for anybody: the
first for reading and writing, the second for reading alone, so that it ends with the probe.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tests.bench.answers import read_answer
from tests.bench.metrics import Sample
from tests.bench.part import Stage
from tests.bench.programs import PATIENCE_S, SERVER_ADDRESS, VIRTUAL_ADDRESS
from tests.bench.supervisor import supervise
from tests.support.processes import agents_of

FDS_OF_EACH: Final = 6  # the supervisor has so many of each service
_READ: Final = os.O_RDONLY | os.O_NONBLOCK  # which is not to wait for somebody who writes


class ServiceProbe:
    """A probe that is a service."""

    def __init__(self, directory: Path, index: int, stack: contextlib.ExitStack) -> None:
        """Make its FIFOs."""
        self.name = f"s{index}"
        self._told = ""
        self._pipes = []
        for end, mode, flags in (("in", "r+b", os.O_RDWR), ("out", "rb", _READ)):
            path = directory / f"{self.name}.{end}"
            os.mkfifo(path)
            stack.callback(path.unlink)
            pipe: IO[bytes] = stack.enter_context(
                os.fdopen(os.open(path, flags | os.O_CLOEXEC), mode, buffering=0)
            )
            self._pipes.append((path, pipe))

    def toml(self, stage: Stage, port: int) -> str:
        """The service as the configuration has it."""
        words = [str(stage.directory / "probe"), VIRTUAL_ADDRESS, str(port)]
        paths = [shlex.quote(str(path)) for path, _ in self._pipes]
        script = f"exec {shlex.join(words)} <{paths[0]} >{paths[1]}"
        return (
            f'[service.{self.name}]\ncommand = ["sh", "-c", {json.dumps(script)}]\n'
            f'routes = {{ "{VIRTUAL_ADDRESS}:{port}" = "{SERVER_ADDRESS}:{port}" }}\n'
        )

    def tell(self, words: str) -> None:
        """Have it measure something."""
        self._told = words
        self._pipes[0][1].write(f"{words}\n".encode())

    def answer(self, timeout_s: float = PATIENCE_S) -> Sample:
        """What it measured.

        Raises:
            BenchError: it has ended, or took too long.

        """
        return read_answer(self._pipes[1][1], f"service {self.name}: {self._told}", timeout_s)


@dataclass(frozen=True, slots=True)
class Services:
    """All of them run."""

    supervisor: int
    agents: Sequence[int]
    probes: Sequence[ServiceProbe]


@contextlib.contextmanager
def run_services(stage: Stage, n: int, port: int) -> Iterator[Services]:
    """Run as many services, whose connections lead to the server at ``port``."""
    with contextlib.ExitStack() as stack:
        probes = [ServiceProbe(stage.directory, index, stack) for index in range(n)]
        toml = "".join(probe.toml(stage, port) for probe in probes)
        supervisor = stack.enter_context(supervise(stage.directory, toml))
        for probe in probes:
            probe.tell("connect 1")
        for probe in probes:
            probe.answer()
        yield Services(supervisor.pid, agents_of(supervisor.pid), probes)

"""`meshfd run` with services of the benchmark's own."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meshfd.client import ask
from meshfd.errors import MeshfdError
from meshfd.protocol import Request
from tests.bench.errors import BenchError
from tests.bench.peers.daemon import running
from tests.bench.programs import PATIENCE_S


@dataclass(frozen=True, slots=True)
class Supervisor:
    """A `meshfd run` that answers."""

    pid: int
    control: Path

    def ask(self, command: str, name: str) -> None:
        """Start or stop a service; returns when that is done.

        Raises:
            BenchError: it could not be.

        """
        try:
            ask(Request(command, (name,)), path=self.control, timeout_s=PATIENCE_S)
        except MeshfdError as error:
            raise BenchError(str(error)) from error


@contextlib.contextmanager
def supervise(directory: Path, toml: str) -> Iterator[Supervisor]:
    """Run the services of this configuration until the block ends.

    Raises:
        BenchError: it cannot be.

    """
    file = directory / "services.toml"
    file.write_text(toml)
    control = directory / "meshfd" / "control.sock"

    def answers() -> bool:
        try:
            ask(Request("status"), path=control, timeout_s=PATIENCE_S)
        except MeshfdError:
            return False
        return True

    with running(
        [sys.executable, "-m", "meshfd", "run", str(file)],
        directory / "meshfd-run.log",
        answers,
        timeout_s=PATIENCE_S,
        end_timeout_s=PATIENCE_S,
        environment={**os.environ, "XDG_RUNTIME_DIR": str(directory)},
    ) as pid:
        yield Supervisor(pid, control)

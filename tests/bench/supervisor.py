"""`meshfd run` with services of the benchmark's own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshfd.client import ask
from meshfd.errors import MeshfdError
from meshfd.protocol import Request
from tests.bench.errors import BenchError
from tests.bench.programs import PATIENCE_S
from tests.bench.tether import tethered

_PAUSE_S: Final = 0.005


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
    """Run the services of this configuration until the block ends."""
    file = directory / "services.toml"
    file.write_text(toml)
    control = directory / "meshfd" / "control.sock"
    log = directory / "meshfd-run.log"
    command = [sys.executable, "-m", "meshfd", "run", str(file)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            tethered(command, signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env={**os.environ, "XDG_RUNTIME_DIR": str(directory)},
        ) as running,
    ):
        try:
            _wait_for_answer(control, running, log)
            yield Supervisor(running.pid, control)
        finally:
            running.terminate()
            running.wait(PATIENCE_S)


def _wait_for_answer(control: Path, running: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            ask(Request("status"), path=control, timeout_s=PATIENCE_S)
        except MeshfdError as error:
            if running.poll() is not None or time.monotonic() > end_s:
                raise BenchError(f"meshfd run: {error}; {log.read_text()}") from error
            time.sleep(_PAUSE_S)
        else:
            return

"""A daemon that runs for as long as a block lasts.

Theory of operation: it is started in the foreground, looked at until it is ready, and ended by its
pid, whatever becomes of the block. What it says goes to a file, which is read when it fails.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.bench.errors import BenchError
from tests.bench.tether import tethered
from tests.support.waiting import wait_until

END_TIMEOUT_S: Final = 10.0


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    is_ready: Callable[[], bool],
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[int]:
    """Run a daemon; its pid.

    Raises:
        BenchError: it ended before it was ready, with its words.

    """
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            tethered(command, stop_signal),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def look() -> bool:
        if daemon.poll() is not None:
            said = log.read_text(errors="replace").strip()
            raise BenchError(f"{' '.join(command)}: it ended ({daemon.returncode}): {said}")
        return is_ready()

    try:
        wait_until(look, f"the readiness of {command[0]}")
        yield daemon.pid
    finally:
        daemon.send_signal(stop_signal)
        try:
            daemon.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

"""A daemon that runs for as long as a block lasts.

Theory of operation: it is started in the foreground, looked at until it is ready, and ended by its
pid, whatever becomes of the block. What it says goes to a file, which is read when it fails.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from tests.bench.errors import BenchError
from tests.bench.tether import tethered
from tests.support.waiting import DEADLINE_S, PAUSE_S, Deadline

END_TIMEOUT_S: Final = 10.0


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    is_ready: Callable[[], bool],
    stop_signal: signal.Signals = signal.SIGTERM,
    timeout_s: float = DEADLINE_S,
    end_timeout_s: float = END_TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a daemon; its pid. It is killed ``end_timeout_s`` after its stop signal.

    ``environment``: None: ours.

    Raises:
        BenchError: it ended before it was ready, or was not ready in time, with its words.

    """
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            tethered(command, stop_signal),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
        )

    def fail(why: str) -> NoReturn:
        said = log.read_text(errors="replace").strip()
        raise BenchError(f"{' '.join(command)}: {why}: {said}")

    try:
        deadline = Deadline(timeout_s)
        while daemon.poll() is None and not is_ready():
            if not deadline.left_s:
                fail(f"it was not ready within {timeout_s:.0f} s")
            time.sleep(PAUSE_S)
        if daemon.returncode is not None:
            fail(f"it ended ({daemon.returncode})")
        yield daemon.pid
    finally:
        daemon.send_signal(stop_signal)
        try:
            daemon.wait(end_timeout_s)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

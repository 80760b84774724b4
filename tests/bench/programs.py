"""The C programs of the benchmark: compiled, and run.

Theory of operation: probe.c measures from inside whatever it is started under. It is asked for one
measurement after another over its standard input.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.bench.answers import read_answer
from tests.bench.errors import BenchError
from tests.bench.metrics import Sample
from tests.bench.tether import tethered
from tests.support.processes import descendants_of

SOURCES: Final = Path(__file__).parent / "c"
PROGRAMS: Final = {
    "floor": ("floor.c",),
    "holder": ("holder.c",),
    "probe": ("probe.c", "connects.c", "crowd.c", "calls.c", "path.c", "times.c"),
    "redirect_bpf": ("redirect_bpf.c",),
    "server": ("server.c",),
}
CFLAGS: Final = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-pthread")
SERVER_ADDRESS: Final = "127.0.0.1"
VIRTUAL_ADDRESS: Final = "127.66.0.1"  # nobody serves it, so a connection there proves the redirect
PATIENCE_S: Final = 120.0
_numbers = itertools.count()


def build(directory: Path) -> None:
    """Compile the C programs into ``directory``.

    Raises:
        BenchError: with the compiler's words.

    """
    for name, sources in PROGRAMS.items():
        compile_program(directory, name, [SOURCES / source for source in sources])


def compile_program(directory: Path, name: str, sources: Sequence[Path]) -> None:
    """Compile one.

    Raises:
        BenchError: with the compiler's words.

    """
    try:
        compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    except ValueError as error:
        raise BenchError(f"CC: {error}") from error
    run([*compiler, *CFLAGS, "-o", str(directory / name), *map(str, sources)])


def run(command: Sequence[str], *, timeout_s: float = PATIENCE_S) -> str:
    """Run a program to its end; its output.

    Raises:
        BenchError: it failed, or took too long.

    """
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=timeout_s
        )
    except OSError as error:
        raise BenchError(f"{command[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        text = f"{' '.join(command)}: exit status {error.returncode}: {error.stderr.strip()}"
        raise BenchError(text) from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(command)}: not done after {timeout_s:.0f} s") from error
    return done.stdout


def meshfd(*words: str) -> list[str]:
    """The meshfd command, as it is installed beside this Python.

    Raises:
        BenchError: it is not.

    """
    script = Path(sys.executable).with_name("meshfd")
    if not script.exists():
        raise BenchError(f"{script} is missing: install meshfd into this Python's environment")
    return [str(script), *words]


@dataclass(frozen=True, slots=True)
class Server:
    """server.c: at a port of 127.0.0.1, and at a unix socket."""

    port: int
    path: Path


@contextlib.contextmanager
def serve(directory: Path, prefix: Sequence[str] = ()) -> Iterator[Server]:
    """Run the server, by way of ``prefix``; its socket's file goes with it."""
    path = directory / f"{next(_numbers)}.sock"  # short: the kernel takes 107 bytes
    with (
        contextlib.ExitStack() as stack,
        subprocess.Popen(
            tethered([*prefix, str(directory / "server"), str(path)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        stack.callback(path.unlink, missing_ok=True)
        assert server.stdin is not None
        assert server.stdout is not None
        stack.callback(server.stdin.close)  # which ends it
        line = server.stdout.readline()
        if not line:
            raise BenchError("the server did not start")
        yield Server(int(line), path)


class Probe:
    """A running probe.c; ``command`` is all of its command line, and what it is started under."""

    def __init__(self, command: Sequence[str], others: Sequence[int] = ()) -> None:
        """Start it. ``others``: processes that work for it besides those it is started under."""
        self._command = command
        self._others = others
        self._running = subprocess.Popen(
            tethered(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        """It ends with the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End it, for sure where the block failed."""
        if kind:
            self.kill()
        else:
            self.close()

    def ask(self, words: str, timeout_s: float = PATIENCE_S) -> Sample:
        """Measure.

        Raises:
            BenchError: it failed, or took too long.

        """
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._running.stdin.write(f"{words}\n")
        asked = f"{' '.join(self._command)}: {words}"
        return read_answer(self._running.stdout, asked, timeout_s)

    def pids(self) -> list[int]:
        """The processes that it consists of."""
        return [self._running.pid, *descendants_of(self._running.pid), *self._others]

    def close(self) -> None:
        """End it.

        Raises:
            BenchError: it does not by itself.

        """
        try:
            self._running.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise BenchError(f"{' '.join(self._command)}: it does not end") from error

    def kill(self) -> None:
        """End it for sure."""
        for pid in reversed(self.pids()[: -len(self._others) or None]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._running.communicate()

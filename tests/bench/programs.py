"""The C programs of the benchmark: compiled, and run.

Theory of operation: probe.c measures from inside whatever it is started under. It is asked for one
measurement after another over its standard input. All subjects of a part run at once, and each is
asked for the same in turn, so that what is compared lies within a fraction of a second; the others
sleep meanwhile. What a measurement takes of the CPU is that of all processes that the subject
consists of, but for what has ended meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.bench.answers import read_answer
from tests.bench.errors import BenchError
from tests.bench.metrics import Round, Sample
from tests.bench.part import Measure, Stage, rotated
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
READY: Final = "ready"  # a probe's answer says that all of its start is over
_numbers = itertools.count()
_CPU_CLOCK: Final = 2  # CPUCLOCK_SCHED, include/linux/posix-timers.h


def build(directory: Path) -> None:
    """Compile the C programs into ``directory``.

    Raises:
        BenchError: with the compiler's words.

    """
    for name, sources in PROGRAMS.items():
        compile_program(directory, name, [SOURCES / source for source in sources])


def compile_program(directory: Path, name: str, sources: Sequence[Path]) -> None:
    """Compile one."""
    compiler = os.environ.get("CC", "cc")
    run([compiler, *CFLAGS, "-o", str(directory / name), *map(str, sources)])


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
            [*prefix, directory / "server", path],
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
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
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
                os.kill(pid, 9)
        self._running.communicate()


def cpu_ns(pids: Sequence[int]) -> int:
    """What these processes have had of the CPU, ended threads included. Source: clock_getres(2)."""
    return sum(time.clock_gettime_ns((~pid << 3) | _CPU_CLOCK) for pid in pids)


@dataclass(frozen=True, slots=True)
class Question:
    """Asked of a probe: its words, and under which names the answer's figures go.

    ``cpu_key`` with ``n``: that, too, by each of the n things that it does.
    """

    words: str
    keys: Mapping[str, str]
    cpu_key: str | None = None
    n: int = 1

    def ask(self, probe: Probe) -> Sample:
        """Ask it."""
        pids = probe.pids() if self.cpu_key else []
        before = cpu_ns(pids)
        answer = probe.ask(self.words)
        sample = {key: answer[name] for name, key in self.keys.items()}
        if self.cpu_key:
            sample[self.cpu_key] = (cpu_ns(pids) - before) / self.n
        return sample


@dataclass(frozen=True, slots=True)
class Subject:
    """A probe to be: how it is started, and what it is asked.

    ``first``: asked before, for the sake of what it does.
    """

    command: Sequence[str]
    questions: Sequence[Question]
    others: Sequence[int] = ()
    first: Sequence[str] = ()


def ask_all(subjects: Mapping[str, Subject]) -> Measure:
    """Start all, ask each of them the same in turn, and end all; every round anew."""

    def measure(number: int) -> Round:
        samples: dict[str, dict[str, float]] = {name: {} for name in subjects}
        with contextlib.ExitStack() as stack:
            probes = {}
            for name, subject in subjects.items():
                probes[name] = stack.enter_context(Probe(subject.command, subject.others))
            for name, probe in probes.items():
                for words in (READY, *subjects[name].first):
                    probe.ask(words)
            n_questions = max(len(subject.questions) for subject in subjects.values())
            for index in range(n_questions):
                for name in rotated(list(subjects), number + index):
                    if index < len(subjects[name].questions):
                        question = subjects[name].questions[index]
                        samples[name].update(question.ask(probes[name]))
        return samples

    return measure


def probe_command(stage: Stage, address: str, port: int) -> list[str]:
    """The command line of a probe by itself."""
    return [str(stage.directory / "probe"), address, str(port)]

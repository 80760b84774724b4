"""Start programs, read what they say, and leave none behind.

The test process makes itself the one to whom orphans are given (PR_SET_CHILD_SUBREAPER), so that
everything that a test started, however deep, stays findable below it and is ended by its exact pid
when the test is over, also after a failure.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import Deadline

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
CHUNK_BYTES = 65536

Command = Sequence[str | os.PathLike[str]]


def adopt_orphans() -> None:
    """Make this process the parent of all orphans below it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def _parents() -> dict[int, int]:
    """Return the parent of each process."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    return parents


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    return [child for child, parent in _parents().items() if parent == pid]


def agents_of(pid: int) -> list[int]:
    """Return the pids of a supervisor's agents; Python starts other programs for a moment, too."""

    def name(child: int) -> str:
        try:
            return Path("/proc", str(child), "comm").read_text()
        except OSError:  # it ended meanwhile
            return ""

    return [child for child in children_of(pid) if name(child) == "meshfd-agent\n"]


def descendants_of(pid: int, but: frozenset[int] = frozenset()) -> list[int]:
    """Return the pids below a process, without those ``but`` and what is below them."""
    parents = _parents()
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one and child not in but]
    return found[1:]


def state_of(pid: int) -> str:
    """Return the letter of a process's state, as in proc(5)."""
    return Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()[0]


def call_of(pid: int) -> int | None:
    """Return the number of the system call that a thread sleeps in; None: it runs, or faults.

    An intercepted call is told like another. Source: proc(5), /proc/PID/syscall.
    """
    first = Path("/proc", str(pid), "syscall").read_text().split()[0]
    return None if first in {"running", "-1"} else int(first)


def sleeps_in_select(pid: int, name: str) -> bool:
    """Whether a thread of a program of this name, below a process, sleeps in select(2)."""
    for one in descendants_of(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if not Path(f"/proc/{one}/comm").read_text().startswith(name):
                continue  # the agent sleeps in poll(2), which looks the same
            for task in Path(f"/proc/{one}/task").iterdir():
                where = (task / "wchan").read_text()
                if where.startswith("poll_schedule_timeout"):
                    return True
    return False


def held_fds(pid: int) -> list[str]:
    """Return the numbers of the fds that a process has open."""
    return sorted(entry.name for entry in Path("/proc", str(pid), "fd").iterdir())


def resident_kib(pid: int) -> int:
    """Return how much memory a process has."""
    return _status_kib(pid, "VmRSS:")


def written_kib(pid: int) -> int:
    """Return the same without what is of files: its code, as far as it was used."""
    return _status_kib(pid, "RssAnon:") + _status_kib(pid, "RssShmem:")


def _status_kib(pid: int, name: str) -> int:
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise LookupError(pid)


def switches(pids: Iterable[int]) -> Counter[str]:
    """Return how often each thread of these processes has gone to sleep or was put to sleep.

    Source: proc(5), /proc/PID/task/TID/status.
    """
    counts: Counter[str] = Counter()
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    counts[task.name] += int(line.split()[1])
    return counts


def _end(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left: its exit code (minus a signal's number), and its two outputs."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Standard output's lines."""
        return self.out.splitlines()


class Program:
    """A running program: its output line by line, its input, its end.

    Standard error goes to a file, so that nobody has to read it while the program runs.
    """

    def __init__(self, popen: subprocess.Popen[bytes], err: Path | None, command: Command) -> None:
        """Own ``popen``."""
        self.popen = popen
        self.err = err
        self._command = [os.fspath(word) for word in command]
        self._unread = b""
        self._seen = b""

    @property
    def pid(self) -> int:
        """Its pid; with meshfd in front, meshfd's."""
        return self.popen.pid

    def errors(self) -> str:
        """Return what it wrote to standard error so far."""
        return "" if self.err is None else self.err.read_text(errors="replace")

    def give_up(self, what: str) -> None:
        """Fail with everything that is known of the program."""
        pytest.fail(
            f"{what}\ncommand: {self._command}\nexit code: {self.popen.poll()}\n"
            f"output: {self._seen.decode(errors='replace')}\nerrors: {self.errors()}"
        )

    def _read(self, deadline: Deadline) -> bytes:
        assert self.popen.stdout is not None
        fd = self.popen.stdout.fileno()
        if not select.select([fd], [], [], deadline.left_s)[0]:
            self.give_up("no more output came in time")
        got = os.read(fd, CHUNK_BYTES)
        self._seen += got
        return got

    def line(self) -> str:
        """Return the next line of output, without its end."""
        deadline = Deadline()
        while b"\n" not in self._unread:
            got = self._read(deadline)
            if not got:
                self.give_up("the output ended; a line was expected")
            self._unread += got
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace")

    def value(self, step: str) -> str:
        """Return the result of the next line, which must be about ``step``."""
        name, _, result = (line := self.line()).partition(": ")
        if name != step:
            self.give_up(f"step {step!r} was expected, not {line!r}")
        return result

    def tell(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def signal(self, signo: signal.Signals) -> None:
        """Send it a signal."""
        self.popen.send_signal(signo)

    def wait(self) -> int:
        """Return its exit code once it has ended; output is left alone."""
        try:
            return self.popen.wait(Deadline().left_s)
        except subprocess.TimeoutExpired:
            self.give_up("it did not end in time")
            raise

    def finish(self) -> Finished:
        """Close its input, read the rest of its output, and wait for its end."""
        deadline = Deadline()
        if self.popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.popen.stdin.close()
        out = self._unread
        self._unread = b""
        if self.popen.stdout is not None:
            while got := self._read(deadline):
                out += got
        code = self.wait()
        return Finished(code, out.decode(errors="replace"), self.errors())


class Processes:
    """The programs of one test."""

    def __init__(self, directory: Path) -> None:
        """Keep standard error of each in ``directory``."""
        self._directory = directory
        self._programs: list[Program] = []
        self._before = frozenset(descendants_of(os.getpid()))

    def start(
        self,
        command: Command,
        *,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Program:
        """Start a program; ``options`` are `subprocess.Popen`'s."""
        err = None
        with contextlib.ExitStack() as stack:
            if stderr is None:
                err = self._directory / f"stderr-{len(self._programs)}"
                stderr = stack.enter_context(err.open("wb"))
            popen = subprocess.Popen(
                [os.fspath(word) for word in command],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=env,
                bufsize=0,
                **options,
            )
        program = Program(popen, err, command)
        self._programs.append(program)
        return program

    def run(self, command: Command, *, text: str = "", **options: Any) -> Finished:
        """Run a program to its end, with ``text`` as its input."""
        program = self.start(command, **options)
        if text:
            assert program.popen.stdin is not None
            program.popen.stdin.write(text.encode())
        return program.finish()

    def left(self) -> list[int]:
        """Return the processes that the test started, and what they started, that still exist.

        What was there before may go on starting others: a daemon of the whole module does.
        """
        return descendants_of(os.getpid(), self._before)

    def running(self) -> list[int]:
        """Return those of `left` that have not ended; what has ended is taken off the table."""
        for pid in children_of(os.getpid()):
            if pid not in self._before and pid not in {program.pid for program in self._programs}:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        for program in self._programs:
            program.popen.poll()
        return self.left()

    def end(self) -> None:
        """End all that is left."""
        deadline = Deadline()
        while left := self.left():
            if not deadline.left_s:
                pytest.fail(f"processes {left} do not end")
            _end(left)
            for program in self._programs:
                if program.pid in left:
                    program.popen.wait()
            for pid in children_of(os.getpid()):
                if pid in left:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, 0)
        for program in self._programs:
            program.popen.wait()
            for pipe in (program.popen.stdin, program.popen.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

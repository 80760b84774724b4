"""What a command inherits through meshfd is what it would inherit from the caller itself."""

from __future__ import annotations

import os
import re
import select
import signal
from collections.abc import Sequence

import pytest

from tests.support.command import Meshfd
from tests.support.need import require_tool
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.terminal import Terminal
from tests.support.waiting import Deadline, wait_until

# Each is a shell's way to change something and then become the rest of its arguments.
CHANGES = {
    "nothing": 'exec "$@"',
    "umask": 'umask 027; exec "$@"',
    "directory": 'cd /usr; exec "$@"',
    "environment": 'exec env -u HOME EMPTY= TWO="a\nb" É=ß "$@"',
    "soft-limit": 'ulimit -Sn 64; exec "$@"',
    "hard-limit": 'ulimit -n 64; ulimit -c 0; exec "$@"',
    "ignored": 'trap "" HUP INT TERM USR1; exec "$@"',
    "ignored-ends-of-children": 'trap "" CHLD; exec "$@"',
    "closed-input": 'exec "$@" <&-',
    "closed-output-of-errors": 'exec "$@" 2>&-',
    "file-as-input": 'exec "$@" </etc/passwd',
    "extra-fds": 'exec 7</etc/passwd 9>>/dev/null; exec "$@" 4<&7',
    "many-arguments": 'exec "$@" "" "a b" -- --route "*"',
    "nice": 'exec nice -n 5 "$@"',
    "nohup": 'exec nohup "$@" </dev/null',
    "new-session": 'exec setsid -w "$@"',
    "one-cpu": 'exec taskset -c 0 "$@"',
}
CHANGES_WITH_TOOLS = {"nohup": "nohup", "new-session": "setsid", "one-cpu": "taskset"}

# Pipes of the test itself, made anew for each run; the pid of who leads.
PIPE = re.compile(r"(pipe|socket):\[\d+\]|/stderr-\d+")


def described(lines: Sequence[str], pid: int) -> list[str]:
    """Return describe.c's lines without what differs from run to run."""
    return [re.sub(f": {pid}$", ": itself", PIPE.sub(r"\1...", line)) for line in lines]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", [(), ("--strict", "--listen", "127.0.0.1:0")], ids=["", "all"])
def test_same(
    change: str,
    options: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """Environment, directory, umask, limits, signals, fds, group, session: nothing is different."""
    if change in CHANGES_WITH_TOOLS:
        require_tool(CHANGES_WITH_TOOLS[change])
    if "--listen" in options:
        options = ("--strict", "--route", "127.66.0.1:80=127.0.0.1:9")
    command = [str(program("describe")), "word"]
    seen = []
    for words in (command, meshfd.exec(*command, options=options)):
        running = processes.start(["sh", "-c", CHANGES[change], "sh", *words])
        done = running.finish()
        assert done.code == 0, done.err
        seen.append(described(done.lines, running.pid))
    if change == "new-session":  # setsid forks when it must: who leads is then the new process
        seen = [[re.sub(r"(session|group): .*", r"\1", line) for line in lines] for lines in seen]
    assert seen[1] == seen[0]


@pytest.mark.parametrize("blocked", [set(), {signal.SIGUSR1, signal.SIGCHLD, signal.SIGRTMIN}])
def test_signal_state(
    blocked: set[signal.Signals],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """The signal mask arrives as the caller has it, and SIGPIPE is not ignored.

    (Of SIGPIPE and SIGXFSZ Python cannot say whether they were ignored when it started.)
    """
    path = program("describe")
    seen = []
    for words in ([str(path)], meshfd.exec(path)):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            running = processes.start(words)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        lines = described(running.finish().lines, running.pid)
        seen.append([line for line in lines if line.startswith("Sig")])
    assert seen[1] == seen[0]
    assert len(seen[0]) == 3


def test_own_group(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """In a process group of its own, meshfd leads and the command belongs to it."""
    running = processes.start(meshfd.exec(program("describe")), process_group=0)
    assert "group: itself" in described(running.finish().lines, running.pid)


def test_terminal(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """On a terminal the command has it as its own, in the foreground."""
    seen = []
    for words in ([str(program("describe"))], meshfd.exec(program("describe"))):
        with Terminal(processes, words) as terminal:
            terminal.expect("parent death signal: .*\n")
            lines = described(terminal.seen.splitlines(), terminal.program.pid)
            seen.append([re.sub("/dev/pts/[0-9]+", "terminal", line) for line in lines])
            assert terminal.program.wait() == 0
    assert "terminal: yes" in seen[0]
    assert "foreground group: ours" in seen[0]
    assert seen[1] == seen[0]


def test_input_and_output(meshfd: Meshfd, processes: Processes) -> None:
    """Input reaches the command whole, and its two outputs come out apart, byte for byte."""
    text = "".join(f"line {number}\n" for number in range(5000))
    done = processes.run(meshfd.exec("sh", "-c", "tee /dev/stderr"), text=text)
    assert (done.code, done.out, done.err) == (0, text, text)


def read_all(fd: int) -> bytes:
    """Read to the end; fail when that does not come in time."""
    deadline = Deadline()
    got = b""
    while True:
        assert select.select([fd], [], [], deadline.left_s)[0], f"no end of file after {got!r}"
        chunk = os.read(fd, 65536)
        if not chunk:
            return got
        got += chunk


@pytest.mark.parametrize("fd", [1, 9])
def test_reader_sees_end(fd: int, meshfd: Meshfd, processes: Processes) -> None:
    """Whoever reads a pipe from the command sees its end when the command closes it, not later."""
    reader, writer = os.pipe()
    script = f"echo words >&{fd}; exec {fd}>&-; read go"
    command = meshfd.exec("sh", "-c", script)
    if fd == 1:
        running = processes.start(command, stdout=writer)
    else:  # put at its number by a shell
        script = f'exec {fd}>&{writer} {writer}>&-; exec "$@"'
        place = [require_tool("bash"), "-c", script, "bash", *command]
        running = processes.start(place, pass_fds=(writer,))
    os.close(writer)
    try:
        assert read_all(reader) == b"words\n"
        assert running.popen.poll() is None, "the command is to be alive still"
    finally:
        os.close(reader)
    running.tell()
    assert running.finish().code == 0


def test_writer_sees_end(meshfd: Meshfd, processes: Processes) -> None:
    """Whoever writes to the command's input is told when the command has closed it."""
    running = processes.start(meshfd.exec("sh", "-c", "exec <&-; echo closed; exec sleep 1000"))
    assert running.line() == "closed"
    assert running.popen.stdin is not None
    fd = running.popen.stdin.fileno()

    def told() -> bool:  # soon: meshfd lets go of its own copy once the command has started
        try:
            os.write(fd, b"x")
        except BrokenPipeError:
            return True
        return False

    wait_until(told, "a broken pipe")

"""`meshfd exec` ends as its command ends, and says in one line what else went wrong."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.support.command import COMMAND, Meshfd, Way, address_of
from tests.support.processes import Finished, Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter
from tests.support.waiting import wait_until

SIGNALS = {"TERM": 143, "KILL": 137, "INT": 130, "SEGV": 139, "PIPE": 141}


@pytest.fixture(autouse=True)
def _about_meshfd(meshfd: Meshfd) -> None:
    meshfd.need()


def one_line(done: Finished) -> str:
    """Return the only line of standard error."""
    assert done.out == ""
    assert len(done.err.splitlines()) == 1, done.err
    return done.err.strip()


@pytest.mark.parametrize("code", [0, 1, 7, 125, 126, 127, 128, 255])
def test_status(code: int, meshfd: Meshfd, processes: Processes) -> None:
    """The command's exit status is meshfd's."""
    done = processes.run(meshfd.exec("sh", "-c", f"exit {code}"))
    assert (done.code, done.out, done.err) == (code, "", "")


@pytest.mark.parametrize("name", SIGNALS)
def test_signal_status(name: str, meshfd: Meshfd, processes: Processes) -> None:
    """A command that died by a signal gives 128 and the signal's number."""
    done = processes.run(meshfd.exec("sh", "-c", f"ulimit -c 0; kill -{name} $$"))
    assert done.code == SIGNALS[name]


def test_not_found(meshfd: Meshfd, processes: Processes) -> None:
    """A command that does not exist gives 127 and one line with its name."""
    done = processes.run(meshfd.exec("no-such-command-anywhere"))
    assert done.code == 127
    assert "no-such-command-anywhere" in one_line(done)


def test_path_not_found(meshfd: Meshfd, processes: Processes, tmp_path: Path) -> None:
    """So does a path that leads nowhere."""
    done = processes.run(meshfd.exec(tmp_path / "nothing"))
    assert done.code == 127
    assert str(tmp_path / "nothing") in one_line(done)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_not_executable(what: str, meshfd: Meshfd, processes: Processes, tmp_path: Path) -> None:
    """A command that cannot be executed gives 126 and one line with its name."""
    path = tmp_path / "thing"
    if what == "directory":
        path.mkdir()
    else:
        path.write_text("echo ran\n")
    done = processes.run(meshfd.exec(path))
    assert done.code == 126
    assert str(path) in one_line(done)


def test_script_without_interpreter_line(
    meshfd: Meshfd, processes: Processes, tmp_path: Path
) -> None:
    """A script that names no interpreter is run by sh, as a shell would."""
    path = tmp_path / "script"
    path.write_text("echo $1\n")
    path.chmod(0o755)
    assert processes.run(meshfd.exec(path, "word")).out == "word\n"


def test_script_with_many_arguments(meshfd: Meshfd, processes: Processes, tmp_path: Path) -> None:
    """So is one that has 60,000 arguments."""
    path = tmp_path / "script"
    path.write_text('echo "$# $1 ${60000}"\n')
    path.chmod(0o755)
    done = processes.run(meshfd.exec(path, *map(str, range(60_000))))
    assert (done.out, done.err) == ("60000 0 59999\n", "")


def test_arguments(meshfd: Meshfd, processes: Processes) -> None:
    """The command's arguments arrive as they were given, whatever they look like."""
    words = ["--route", "--", "", " ", "a b", "$HOME", "-x", "é", "not text: \udcff"]
    done = processes.run(meshfd.exec("printf", "%s|", *words))
    assert done.code == 0, done.err
    assert done.out == "".join(f"{word}|" for word in words).replace("\udcff", "\ufffd")


@pytest.mark.parametrize(
    "options",
    [
        ("--route", "nonsense"),
        ("--route", "127.66.0.1:80=nowhere"),
        ("--route", "127.66.0.1:80=127.0.0.1"),
        ("--route", "127.66.0.1:99999=127.0.0.1:1"),
        ("--route", "127.66.0.1/33:1=127.0.0.1:1"),
        ("--deny", "not an address"),
        ("--route", "127.66.0.1:80=deny=ENOTANERRNO"),
        ("--route", "127.66.0.1:80=deny=EINTR"),
        ("--listen", "127.0.0.1"),
        ("--track", "sometimes"),
        ("--no-such-option",),
    ],
)
def test_bad_options(options: tuple[str, ...], meshfd: Meshfd, processes: Processes) -> None:
    """An option that makes no sense gives 125, names it, and runs nothing."""
    done = processes.run(meshfd.exec("echo", "ran", options=options))
    assert done.code == 125
    assert done.out == ""
    assert options[-1].partition("=")[2].partition("=")[2] in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 2, "usage may come along, a page of it may not"


def test_no_command(processes: Processes) -> None:
    """Without a command there is nothing to do: 125 and a line that says so."""
    done = processes.run([*COMMAND, "exec", "--"])
    assert done.code == 125
    assert "Traceback" not in done.err
    assert "command" in done.err.lower()


def test_listen_address_taken(meshfd: Meshfd, processes: Processes, greeter: Greeter) -> None:
    """A listening socket that cannot be opened gives 125 and one line with its address and why."""
    address = address_of(greeter.listening)
    done = processes.run(meshfd.exec("echo", "ran", options=("--listen", address)))
    assert done.code == 125
    line = one_line(done)
    assert address in line
    assert "in use" in line


def twice(program: Programs, way: Way) -> tuple[str, ...]:
    """Return a command that connects twice, each of which is logged, and ends with status 7."""
    dial = shlex.join([str(program("dial")), *way.words])
    return "sh", "-c", f"{dial}; {dial}; exit 7"


GREETED_TWICE = ["connect: 0", "greeting: hello"] * 2


def test_log_that_is_full(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """A log that cannot be written is given up, in one line; the command runs on to its own end."""
    way = meshfd.way(greeter.listening)
    options = (*way.options, "--log", "/dev/full")
    done = processes.run(meshfd.exec(*twice(program, way), options=options))
    assert (done.code, done.lines) == (7, GREETED_TWICE)
    assert len(done.err.splitlines()) == 1, done.err
    assert "log" in done.err


def test_log_that_nobody_reads(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """So it is when the log is standard error, a pipe whose reader has gone."""
    way = meshfd.way(greeter.listening)
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = processes.run(
            meshfd.exec(*twice(program, way), options=(*way.options, "--log", "-")), stderr=theirs
        )
    finally:
        os.close(theirs)
    assert (done.code, done.lines) == (7, GREETED_TWICE)


# Prints its parent's pid, which is the agent's; ends when it is told to, and says so.
OBEDIENT = """
import os, signal, sys
def end(*_):
    print("told to end", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
print(os.getppid(), flush=True)
while True:
    signal.pause()
"""


def test_killed_agent(meshfd: Meshfd, processes: Processes) -> None:
    """When the agent is killed the command is told to end: 125, and one line."""
    running = processes.start(meshfd.exec(sys.executable, "-c", OBEDIENT))
    os.kill(int(running.line()), signal.SIGKILL)
    done = running.finish()
    assert (done.code, done.out) == (125, "told to end\n")
    assert len(done.err.splitlines()) == 1, done.err
    assert "agent" in done.err
    wait_until(lambda: not processes.running(), "the end of the command")


def test_meshfd_in_meshfd(meshfd: Meshfd, processes: Processes) -> None:
    """A second meshfd below the first gives 125 and one line that says why."""
    done = processes.run(meshfd.exec(*meshfd.exec("echo", "ran")))
    assert done.code == 125
    line = one_line(done)
    assert "meshfd" in line
    assert "seccomp" in line

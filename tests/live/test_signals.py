"""Signals and job control: a command under meshfd is to its shell what it would be alone."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshfd.agent_process import AGENT_VARIABLE, agent_path
from tests.support.command import Meshfd
from tests.support.need import require_tool
from tests.support.processes import Processes, state_of
from tests.support.programs import Programs
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

PROMPT = "ready> "
N_PRESSES = 5
FORWARDED = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH]


def test_forwarded(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """Signals sent to meshfd reach the command, and its end is meshfd's end."""
    running = processes.start(meshfd.exec(program("signals")))
    assert running.line() == "ready"
    for signo in FORWARDED:
        running.signal(signo)
        assert running.line() == signo.name
    running.signal(signal.SIGTERM)
    assert running.line() == "SIGTERM"
    assert running.finish().code == 3


def test_deadly(meshfd: Meshfd, processes: Processes) -> None:
    """A command that does not mind its signals is ended by one that is sent to meshfd."""
    running = processes.start(meshfd.exec("sh", "-c", "echo ready; exec sleep 1000"))
    assert running.line() == "ready"
    running.signal(signal.SIGTERM)
    assert running.wait() == (-signal.SIGTERM if meshfd.bare else 143)


def test_keyboard(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """Ctrl-C and Ctrl-Backslash on a terminal reach the command once each, not twice."""
    with Terminal(processes, meshfd.exec(program("signals"))) as terminal:
        terminal.expect("ready")
        for key, name in (("\x03", "SIGINT"), ("\x1c", "SIGQUIT")):
            for _ in range(N_PRESSES):
                terminal.type(key)
                terminal.expect(name)
        terminal.program.signal(signal.SIGTERM)
        terminal.expect("SIGTERM")
        assert terminal.program.wait() == 3
        assert terminal.seen.count("SIGINT") == N_PRESSES
        assert terminal.seen.count("SIGQUIT") == N_PRESSES


def test_window_size(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A change of the terminal's size reaches the command."""
    with Terminal(processes, meshfd.exec(program("signals"))) as terminal:
        terminal.expect("ready")
        terminal.resize(rows=30, columns=90)
        terminal.expect("SIGWINCH")
        terminal.program.signal(signal.SIGTERM)
        assert terminal.program.wait() == 3


def test_stop_without_a_terminal(meshfd: Meshfd, processes: Processes) -> None:
    """When the command stops itself, meshfd stops, and SIGCONT to meshfd wakes both."""
    running = processes.start(meshfd.exec("sh", "-c", "echo $$; kill -STOP $$; echo awake"))
    command = int(running.line())
    wait_until(lambda: state_of(running.pid) == "T", "meshfd's stop")
    assert state_of(command) == "T"
    running.signal(signal.SIGCONT)
    assert running.line() == "awake"
    assert running.finish().code == 0


def test_command_continued_by_its_own_pid(meshfd: Meshfd, processes: Processes) -> None:
    """When somebody wakes the command itself, meshfd wakes, as often as that happens."""
    running = processes.start(meshfd.exec("sh", "-c", "echo $$; while read go; do echo $go; done"))
    command = int(running.line())
    for turn in range(N_PRESSES):
        os.kill(command, signal.SIGSTOP)
        wait_until(lambda: state_of(running.pid) == "T", "meshfd's stop")
        os.kill(command, signal.SIGCONT)
        wait_until(lambda: state_of(running.pid) != "T", "meshfd's going on")
        running.tell(f"turn {turn}")
        assert running.line() == f"turn {turn}"
    for _ in range(1000):  # changes that overtake each other
        os.kill(command, signal.SIGSTOP)
        os.kill(command, signal.SIGCONT)
    assert running.finish().code == 0


def test_stopped_command_that_is_killed(meshfd: Meshfd, processes: Processes) -> None:
    """When the command ends while it is stopped, that is meshfd's end."""
    running = processes.start(meshfd.exec("sh", "-c", "echo $$; exec sleep 1000"))
    command = int(running.line())
    os.kill(command, signal.SIGSTOP)
    wait_until(lambda: state_of(running.pid) == "T", "meshfd's stop")
    os.kill(command, signal.SIGKILL)
    assert running.wait() == (-signal.SIGKILL if meshfd.bare else 137)


# Tells that it is there, waits for a word, and becomes the agent.
LATE_AGENT = """#!{python}
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGINT}})
open("{there}", "w").close()
open("{go}").close()
os.execv("{agent}", ["meshfd-agent", *sys.argv[1:]])
"""


def test_key_that_is_pressed_early(meshfd: Meshfd, processes: Processes, tmp_path: Path) -> None:
    """Ctrl-C that is typed before the command runs reaches it all the same."""
    meshfd.need()
    late, there, go = (tmp_path / name for name in ("late", "there", "go"))
    os.mkfifo(there)
    os.mkfifo(go)
    late.write_text(
        LATE_AGENT.format(python=sys.executable, there=there, go=go, agent=agent_path())
    )
    late.chmod(0o755)
    environment = {**os.environ, AGENT_VARIABLE: str(late)}
    with Terminal(processes, meshfd.exec("sleep", "1000"), env=environment) as terminal:
        there.read_bytes()
        terminal.type("\x03")
        status = Path(f"/proc/{terminal.program.pid}/status")
        interrupt = 1 << (signal.SIGINT - 1)

        def pending() -> bool:
            (line,) = (one for one in status.read_text().splitlines() if one.startswith("ShdPnd"))
            return bool(int(line.split()[1], 16) & interrupt)

        wait_until(pending, "the signal")
        go.write_bytes(b"")
        assert terminal.program.wait() == 130


@pytest.fixture
def shell(processes: Processes) -> Iterator[Terminal]:
    """Return a terminal with an interactive bash."""
    command = [require_tool("bash"), "--noprofile", "--norc", "--noediting", "-i"]
    environment = {**os.environ, "PS1": PROMPT, "HISTFILE": "/dev/null", "TERM": "dumb"}
    with Terminal(processes, command, env=environment) as terminal:
        terminal.expect(PROMPT)
        yield terminal
        terminal.hang_up()


def typed(meshfd: Meshfd, *command: str | os.PathLike[str]) -> str:
    """Return a command under meshfd as it is typed at a shell, without the line's end."""
    return shlex.join(meshfd.exec(*command))


def test_stop_and_foreground(meshfd: Meshfd, shell: Terminal) -> None:
    """Ctrl-Z stops the command and gives the shell back; fg goes on with it; Ctrl-D ends it."""
    shell.type(f"{typed(meshfd, 'cat')}\n")
    for _ in range(3):
        shell.type("some words\n")
        shell.expect("some words\r\nsome words\r\n")
        shell.type("\x1a")
        shell.expect("Stopped")
        shell.expect(PROMPT)
        shell.type("fg\n")
        shell.expect("cat\r\n")
    shell.type("at last\n")
    shell.expect("at last\r\nat last\r\n")
    shell.type("\x04")
    shell.expect(PROMPT)
    shell.type("echo status $?\n")
    shell.expect("status 0")


def test_stop_and_background(meshfd: Meshfd, program: Programs, shell: Terminal) -> None:
    """A stopped command goes on in the background, and can be killed there."""
    shell.type(f"{typed(meshfd, program('signals'))}\n")
    shell.expect("ready\r\n")
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.expect(PROMPT)
    shell.type("bg\n")
    shell.expect(PROMPT)
    shell.type("jobs\n")
    shell.expect("Running")
    shell.expect(PROMPT)
    shell.type("kill -USR1 %1\n")
    shell.expect("SIGUSR1")
    shell.type("kill %1; wait %1; echo status $?\n")
    shell.expect("status 3")


def test_ctrl_c_at_a_shell(meshfd: Meshfd, shell: Terminal) -> None:
    """Ctrl-C ends the command, not the shell, which sees status 130."""
    shell.type(f"{typed(meshfd, 'sh', '-c', 'echo up; exec sleep 1000')}\n")
    shell.expect("\nup\r\n")
    shell.type("\x03")
    shell.expect(PROMPT)
    shell.type("echo status $?\n")
    shell.expect("status 130")


def test_pipeline(meshfd: Meshfd, shell: Terminal) -> None:
    """A pipeline of commands under meshfd is one job: stopped, continued and ended together."""
    shell.type(f"{typed(meshfd, 'cat')} | {typed(meshfd, 'cat')}\n")
    shell.type("first\n")
    shell.expect("first\r\nfirst\r\n")
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.expect(PROMPT)
    shell.type("fg\n")
    shell.expect("cat\r\n")
    shell.type("second\n")
    shell.expect("second\r\nsecond\r\n")
    shell.type("\x04")
    shell.expect(PROMPT)
    shell.type("echo status $?\n")
    shell.expect("status 0")


def test_own_stop_at_a_shell(meshfd: Meshfd, shell: Terminal) -> None:
    """A command that stops itself, as editors do, gives the shell back."""
    shell.type(f"{typed(meshfd, 'sh', '-c', 'echo up; kill -STOP $$; echo again')}\n")
    shell.expect("\nup\r\n")
    shell.expect("Stopped")
    shell.expect(PROMPT)
    shell.type("fg\n")
    shell.expect("again\r\n")
    shell.expect(PROMPT)

"""`meshfd exec`: one program in the foreground, as a child of the shell would be.

Theory of operation: no trio here, because the program should start soon. We start an agent that
inherits all our fds, have it spawn the command with them, and let go of them ourselves, so that a
pipe ends when the command closes it. Then we wait for two things: the agent's reports, and signals.

Signals. We are in the command's process group, so what the terminal sends (Ctrl-C) reaches the
command without us: siginfo says SI_KERNEL, and we do nothing. What somebody sends to our pid is
passed on, and so is what came, from the terminal too, before the command was there to get it; a
key that is pressed in the very moment of its start may be lost. Job control: Ctrl-Z stops the
command (or the command stops itself, having put its terminal in order); the agent then stops us,
which is what the shell waits for, and wakes us when the command goes on or ends.
At a SIGCONT that is not the agent's we wake the command, if the shell's signal to the group has not
done so: one SIGCONT too many could undo the next Ctrl-Z.

The end. We exit as the command did, and leave at once; the agent serves what the command left in
the background until it is gone. If we are killed the agent stops the command: SIGTERM, then
SIGKILL.
Source: credentials(7), wait(2), sigaction(2) si_code; coreutils env(1) for 125, 126 and 127.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
from functools import partial

from meshfd import engine
from meshfd.agent_process import check_done, check_listen, check_spawn, start_agent
from meshfd.channel import receive_packet, send_packet
from meshfd.engine import Done, SignalReader
from meshfd.errors import AgentLostError, MeshfdError, SpawnError
from meshfd.events import Denied, Event, Exited, Mismatched, Notice, Redirected
from meshfd.program import Program
from meshfd.standard_files import STDERR

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final, TextIO

    from meshfd.features import Features
    from meshfd.model import ListeningSocket, Route

EXIT_FAILURE: Final = 125
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127
EXIT_SIGNAL: Final = 128

LOST_STOP_TIMEOUT_S: Final = 10.0
FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGWINCH,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
)


def describe(event: Event, listening: Sequence[ListeningSocket]) -> str | None:
    """One line for the log, or None for what needs none."""
    match event:
        case Redirected():
            outcome = (
                "" if event.errno in {0, errno.EINPROGRESS} else f": {os.strerror(event.errno)}"
            )
            tries = f" after {event.attempts} attempts" if event.attempts > 1 else ""
            cost_us = event.cost_ns / 1000
            return (
                f"pid {event.pid}: connect {event.asked} -> {event.given}{tries}{outcome} "
                f"({cost_us:.1f} us)"
            )
        case Denied():
            return f"pid {event.pid}: connect {event.asked} refused: {os.strerror(event.errno)}"
        case Mismatched():
            configured = listening[event.index].address
            return (
                f"pid {event.pid}: bind {event.address} has the port of listening socket "
                f"{configured}, but another address: not handed over"
            )
        case Notice():
            where = "" if event.address is None else f" ({event.address})"
            why = "" if event.errno == 0 else f": {os.strerror(event.errno)}"
            return f"pid {event.pid}: {event.kind.value}{where}{why}"
        case _:
            return None


class Foreground:
    """One command under an agent, driven synchronously."""

    def __init__(self, listening: Sequence[ListeningSocket], log: TextIO | None) -> None:
        """Start the agent.

        Raises:
            NotSupportedError: there is no agent to run.

        """
        self._listening = listening
        self._log = log
        self._seq = 0
        self._early: list[Event] = []
        self._agent_pid, self._channel_fd = start_agent(inherit=True)

    def prepare(self, routes: Sequence[Route], features: Features) -> None:
        """Set the agent up: routes and listening sockets.

        Raises:
            ListenError, NotSupportedError, AgentLostError: it cannot be.

        """
        done = self._request(
            lambda seq: engine.encode_setup(
                seq,
                features,
                report_decisions=self._log is not None,
                ask_open=False,
                ask_timeout_s=0,
                stop_signal=signal.SIGTERM,
                stop_timeout_s=LOST_STOP_TIMEOUT_S,
            )
        )
        check_done(done)
        if routes:
            from meshfd.route_table import compile_routes  # noqa: PLC0415 -- seldom needed

            table = compile_routes(routes)
            done = self._request(engine.encode_routes, fds=(table.table_fd,))
            table.close()
            if done.errno:
                raise MeshfdError(f"the agent refused the routes: {os.strerror(done.errno)}")
        for one in self._listening:
            check_listen(self._request(partial(engine.encode_listen, listening=one)), one)

    def spawn(self, program: Program, signals: SignalReader) -> int:
        """Start the command with our own fds; its pid. It gets the signals that came before it.

        Raises:
            SpawnError, NotSupportedError, AgentLostError: it cannot be.

        """
        block_fd = engine.program_block(program)
        early = []
        while (received := signals.receive_nowait()) is not None:
            early.append(received.signo)
        done = self._request(
            lambda seq: engine.encode_spawn(seq, inherit=True, new_session=False, ready_any=False),
            fds=(block_fd,),
        )
        os.close(block_fd)
        pid = check_spawn(done, program.argv[0])
        for signo in early:
            if signo != signal.SIGCONT:
                self._send_signal(signo)
        return pid

    def wait(self, pid: int, signals: SignalReader) -> int:
        """Serve signals and reports until the command has ended; its wait status.

        Raises:
            AgentLostError: the agent ended before it.

        """
        for event in self._early:
            self._note(event)
        poller = select.poll()
        poller.register(self._channel_fd, select.POLLIN)
        poller.register(signals.fd, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == signals.fd:
                    self._forward(pid, signals)
                    continue
                message, _ = receive_packet(self._channel_fd)
                if isinstance(message, Exited) and message.pid == pid:
                    return message.status
                if not isinstance(message, Done):
                    self._note(message)

    def leave(self) -> None:
        """Let the agent go; wait for it when nothing is left for it to serve."""
        with contextlib.suppress(AgentLostError):
            done = self._request(engine.encode_detach)
            os.close(self._channel_fd)
            if done.value == 0:
                with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored: it is gone
                    os.waitpid(self._agent_pid, 0)

    def _request(self, encode: Callable[[int], bytes], *, fds: tuple[int, ...] = ()) -> Done:
        self._seq += 1
        send_packet(self._channel_fd, encode(self._seq), fds)
        while True:
            message, received = receive_packet(self._channel_fd)
            for fd in received:
                os.close(fd)  # the statistics: nobody asks for them here
            if isinstance(message, Done):
                return message
            self._early.append(message)

    def _note(self, event: Event) -> None:
        line = describe(event, self._listening)
        if line is None:
            return
        if self._log is None and not isinstance(event, Mismatched | Notice):
            return
        try:
            if self._log is not None:
                print(line, file=self._log, flush=True)
            else:
                sys.stderr.write(f"meshfd: {line}\n")
        except OSError as error:
            self._give_up_log(error)

    def _give_up_log(self, error: OSError) -> None:
        """A full disk, or a pipe that nobody reads, is not the command's concern."""
        if self._log is not None and self._log is not sys.stderr:
            with contextlib.suppress(OSError):  # it has what could not be written
                self._log.close()
        self._log = None
        with contextlib.suppress(OSError):
            sys.stderr.write(f"meshfd: the log cannot be written any more: {error.strerror}\n")

    def _forward(self, pid: int, signals: SignalReader) -> None:
        continued = False
        while (received := signals.receive_nowait()) is not None:
            if received.signo == signal.SIGCONT and received.pid == self._agent_pid:
                continue
            if received.signo == signal.SIGCONT:
                _let_sender_finish()
                continued = _is_stopped(pid)
            elif not received.from_kernel:
                self._send_signal(received.signo)
            elif received.signo == signal.SIGTSTP:
                continued = False  # stopped anew since
        if continued:
            self._send_signal(signal.SIGCONT)

    def _send_signal(self, signo: int) -> None:
        self._seq += 1
        seq = self._seq
        send_packet(self._channel_fd, engine.encode_signal(seq, signo, everything=False), ())


@contextlib.contextmanager
def _ended_without_agent(pid: int) -> Iterator[None]:
    """Without its agent no call of the command's is answered: it is ended, not left half alive."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:  # it has ended, and been reaped
        yield
        return
    try:
        yield
    except AgentLostError:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        raise AgentLostError("the agent ended unexpectedly: the command was told to end") from None
    finally:
        os.close(pidfd)


def _let_sender_finish() -> None:
    """Wait until a signal to our group has reached the command, too.

    kill(2) goes through a process group under the kernel's task list lock; setpgid(2), here to
    where we are, takes the same lock for writing, and so returns after it.
    Source: kernel/signal.c (__kill_pgrp_info), kernel/sys.c (setpgid).
    """
    with contextlib.suppress(OSError):  # EPERM for a session's leader, after the lock
        os.setpgid(0, os.getpgrp())


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _let_go_of_inherited(kept: set[int]) -> None:
    """Our copies of the command's fds: a pipe is to end when the command closes it."""
    null_fd = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null_fd, fd)
    os.close(null_fd)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        fd = int(name)
        if fd > STDERR and fd not in kept:  # standard error stays for our last words
            with contextlib.suppress(OSError):
                if os.get_inheritable(fd):
                    os.close(fd)


def _open_log(log: str | None) -> TextIO | None:
    if log is None:
        return None
    if log == "-":
        return sys.stderr
    try:
        return open(log, "a", encoding="utf-8")  # noqa: PTH123 -- lives as long as we do
    except OSError as error:
        raise MeshfdError(f"cannot open log {log}: {error.strerror}") from error


def run(
    *,
    routes: Sequence[Route],
    listen: Sequence[ListeningSocket],
    features: Features,
    log: str | None,
    argv: Sequence[str],
) -> int:
    """Run a command to its end; returns the exit status for the shell.

    Raises:
        MeshfdError: it could not be started; `exit_status_of` tells its exit status.

    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    log_file = _open_log(log)
    signals = SignalReader((*FORWARDED, signal.SIGCONT))
    program = Program(
        argv=tuple(argv),
        environment=tuple(os.environ.items()),
        blocked_signals=frozenset(blocked),
    )
    foreground = Foreground(listen, log_file)
    foreground.prepare(routes, features)
    pid = foreground.spawn(program, signals)
    _let_go_of_inherited({signals.fd})
    with _ended_without_agent(pid):
        status = foreground.wait(pid, signals)
    foreground.leave()
    if os.WIFSIGNALED(status):
        return EXIT_SIGNAL + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def exit_status_of(error: MeshfdError) -> int:
    """What `meshfd exec` exits with when it fails, as env(1) does."""
    if isinstance(error, SpawnError) and error.stage == "exec":
        return EXIT_NOT_FOUND if error.errno == errno.ENOENT else EXIT_NOT_EXECUTABLE
    return EXIT_FAILURE

"""One agent as a trio object.

Theory of operation: `open_agent` starts the process and two tasks. One reads the control channel:
answers wake whoever waits for them (by sequence number), events go to ``Agent.events``, calls that
wait for a verdict go to the decider. The other reaps the process. Requests are sent under a lock, a packet
each, so that several tasks may use one agent.

Events are buffered without losing any that matter: the channel to ``events`` holds EVENTS_MAX; past
that, reports about single connections are dropped and counted (`Agent.events_dropped`), and the
rest waits, which in time makes the agent keep them itself. So nothing grows without bound when
nobody reads.

Leaving the context ends the agent and everything that it runs: SIGKILL, then the agent's own exit,
shielded from cancellation and bounded by the kernel alone.
Source: native/control.c, native/agent.c.
"""

from __future__ import annotations

import array
import contextlib
import enum
import os
import signal
from dataclasses import dataclass
from math import inf
from socket import CMSG_SPACE, MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET
from typing import TYPE_CHECKING, Final

import trio

from meshfd import engine
from meshfd.agent_process import check_done, check_listen, check_spawn, split_packet, start_agent
from meshfd.engine import FDS_MAX, PACKET_MAX, Done, RouteTable, SharedStatistics
from meshfd.errors import AgentLostError
from meshfd.events import Call, Denied, Event, Redirected, Statistics
from meshfd.model import Deny, ListeningSocket, Pass, Redirect, Route, Track

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from meshfd.program import Program

EVENTS_MAX: Final = 1024

Decision = Pass | Deny | Redirect
Decider = "Callable[[Call], Awaitable[Decision]]"


class Scope(enum.Enum):
    """Whom a signal is for."""

    MAIN = "main"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How an agent treats its programs.

    ``report_decisions``: `Redirected` and `Denied` events are wanted. ``ask_timeout_s`` and
    ``ask_open``: how long a call waits for a verdict, and whether it then passes or is refused.
    ``stop_signal`` and ``stop_timeout_s``: how the agent ends its programs when we vanish.
    """

    strict: bool = False
    track: Track = Track.CREATE
    report_decisions: bool = True
    ask_timeout_s: float = 5.0
    ask_open: bool = False
    stop_signal: int = signal.SIGTERM
    stop_timeout_s: float = 10.0


class Agent:
    """A running agent; made by `open_agent`.

    ``pid`` is the agent's; ``events`` ends when the agent has ended.
    """

    def __init__(self, pid: int, channel: trio.socket.SocketType, options: AgentOptions) -> None:
        """Use `open_agent`."""
        self.pid = pid
        self.events_dropped = 0
        self.table: RouteTable | None = None
        self._options = options
        self._channel = channel
        self._send_lock = trio.Lock()
        self._last_seq = 0
        self._waiting: dict[int, tuple[trio.Event, list[Done]]] = {}
        self._lost = False
        self._statistics: SharedStatistics | None = None
        self._events_in, self.events = trio.open_memory_channel[Event](EVENTS_MAX)
        self._calls_in, self.calls = trio.open_memory_channel[Call](inf)  # MFD_ASKS_MAX wait at most

    # --- requests ------------------------------------------------------------------------------

    async def set_routes(self, routes: Sequence[Route]) -> None:
        """Replace the route table. Connections that were made stay as they are.

        Raises:
            OSError: the table cannot be compiled (`engine.compile_routes`).
            AgentLostError: the agent is gone.

        """
        table = engine.compile_routes(routes)
        try:
            fds = (table.table_fd, table.tally_fd)
            done = await self._request(engine.encode_routes, fds=fds)
            if done.errno:
                raise OSError(done.errno, os.strerror(done.errno))
        except BaseException:
            table.close()
            raise
        if self.table is not None:
            self.table.close()
        self.table = table

    async def open_listening(self, listening: ListeningSocket) -> int:
        """Open a listening socket; returns its index.

        Raises:
            ListenError: it cannot be opened; the text names the address and why.
            AgentLostError: the agent is gone.

        """
        done = await self._request(lambda seq: engine.encode_listen(seq, listening))
        return check_listen(done, listening)

    async def close_listening(self, index: int) -> None:
        """Close it; what a program was handed stays with the program. No such index: no effect."""
        await self._request(lambda seq: engine.encode_unlisten(seq, index))

    async def spawn(self, program: Program, *, stdio: tuple[int, int, int]) -> int:
        """Start a program with these standard files; returns its pid, once it has been exec'ed.

        Raises:
            SpawnError: it cannot be started; ``errno`` and ``stage`` tell why.
            NotSupportedError: the kernel does not let us install the filter.
            AgentLostError: the agent is gone.

        """
        block_fd = engine.program_block(program)
        try:
            done = await self._request(
                lambda seq: engine.encode_spawn(
                    seq, inherit=False, new_session=program.new_session, ready_any=True
                ),
                fds=(block_fd, *stdio),
            )
        finally:
            os.close(block_fd)
        return check_spawn(done, program.argv[0])

    async def signal(self, signo: int, scope: Scope = Scope.MAIN) -> None:
        """Send a signal to the program spawned last, or to everything; nothing there: no effect.

        SIGKILL to `Scope.ALL` goes on until nothing is left.
        """
        everything = scope is Scope.ALL
        await self._request(lambda seq: engine.encode_signal(seq, signo, everything=everything))

    async def verdict(self, call: Call, verdict: Decision) -> None:
        """Decide a call. One that has timed out, or whose program is gone, is passed over."""
        await self._send(engine.encode_verdict(call, verdict), ())

    def statistics(self) -> Statistics:
        """The counters as they are now; also after the end."""
        if self._statistics is None:
            raise RuntimeError("statistics() before open_agent() has returned")
        return self._statistics.read()

    # --- the channel ---------------------------------------------------------------------------

    async def _setup(self) -> None:
        options = self._options
        done = await self._request(
            lambda seq: engine.encode_setup(
                seq,
                strict=options.strict,
                create=options.track is Track.CREATE,
                report_decisions=options.report_decisions,
                ask_open=options.ask_open,
                ask_timeout_s=options.ask_timeout_s,
                stop_signal=options.stop_signal,
                stop_timeout_s=options.stop_timeout_s,
            )
        )
        check_done(done)

    async def _request(
        self, encode: Callable[[int], bytes], *, fds: tuple[int, ...] = ()
    ) -> Done:
        self._last_seq += 1
        seq = self._last_seq
        answered = trio.Event()
        answer: list[Done] = []
        self._waiting[seq] = (answered, answer)
        try:
            await self._send(encode(seq), fds)
            await answered.wait()
        finally:
            del self._waiting[seq]
        if not answer:
            raise AgentLostError("the agent ended unexpectedly")
        return answer[0]

    async def _send(self, packet: bytes, fds: tuple[int, ...]) -> None:
        rights = [(SOL_SOCKET, SCM_RIGHTS, array.array("i", fds))] if fds else []
        async with self._send_lock:
            if self._lost:
                raise AgentLostError("the agent ended unexpectedly")
            try:
                await self._channel.sendmsg([packet], rights, MSG_NOSIGNAL)
            except ConnectionError as error:
                raise AgentLostError("the agent ended unexpectedly") from error

    async def _receive(self) -> None:
        space = CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
        try:
            while True:
                data, ancillary, _, _ = await self._channel.recvmsg(PACKET_MAX, space)
                message, fds = split_packet(data, ancillary)
                self._keep(fds)
                await self._take(message)
        except (AgentLostError, ConnectionError):
            pass
        finally:
            self._lost = True
            self._events_in.close()
            self._calls_in.close()
            for answered, _ in self._waiting.values():
                answered.set()

    def _keep(self, fds: tuple[int, ...]) -> None:
        for fd in fds:
            if self._statistics is None:
                self._statistics = SharedStatistics(fd)
            os.close(fd)

    async def _take(self, message: Done | Event) -> None:
        if isinstance(message, Done):
            if message.seq in self._waiting:
                answered, answer = self._waiting[message.seq]
                answer.append(message)
                answered.set()
        elif isinstance(message, Call):
            self._calls_in.send_nowait(message)
        else:
            await self._publish(message)

    async def _publish(self, event: Event) -> None:
        try:
            self._events_in.send_nowait(event)
        except trio.BrokenResourceError:
            pass  # whoever opened the agent reads no more
        except trio.WouldBlock:
            if isinstance(event, Redirected | Denied):
                self.events_dropped += 1
            else:
                with contextlib.suppress(trio.BrokenResourceError):
                    await self._events_in.send(event)

    def _close(self) -> None:
        self._channel.close()
        if self.table is not None:
            self.table.close()


async def _wait_for_exit(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
    os.waitpid(pid, 0)


async def _end(agent: Agent) -> None:
    """Kill what it runs, then let it go; it exits when the last process is gone."""
    with contextlib.suppress(AgentLostError):
        await agent.signal(signal.SIGKILL, Scope.ALL)


@contextlib.asynccontextmanager
async def open_agent(options: AgentOptions) -> AsyncIterator[Agent]:
    """Start an agent; it, and all that it runs, is gone when the context ends.

    Raises:
        NotSupportedError: there is no agent to run, or one of another version.
        AgentLostError: it ended before it was set up.

    """
    pid, blocking = start_agent(inherit=False)
    channel = trio.socket.from_stdlib_socket(blocking)
    agent = Agent(pid, channel, options)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent._receive)  # noqa: SLF001 -- this module's own
            try:
                await agent._setup()  # noqa: SLF001
                yield agent
            finally:
                with trio.CancelScope(shield=True):
                    await _end(agent)
                    nursery.cancel_scope.cancel()
    finally:
        agent._close()  # noqa: SLF001
        with trio.CancelScope(shield=True):
            await _wait_for_exit(pid)

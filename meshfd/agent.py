"""One agent as a trio object.

Theory of operation: `open_agent` starts the process and a task that reads the control channel:
answers wake whoever waits for them (by sequence number), events go to ``Agent.events``, calls that
wait for a verdict to ``Agent.calls``. Requests are sent under a lock, a packet each, so several
tasks may use one agent. Whoever is cancelled while it waits leaves its request behind: the agent
carries it out all the same, and what follows from that follows when its answer comes.

Events are buffered up to EVENTS_MAX; when nobody reads, later ones are dropped and counted
(`Agent.events_dropped`), but for the end of a program and of the last process, of which there are
no more than spawns. So nothing grows without bound, and no answer waits behind an event.

Leaving the context ends everything that the agent runs, by SIGKILL, and then the agent; it is
shielded from cancellation. An agent that does not answer within END_S is killed itself.
Source: native/control.c, native/agent.c.
"""

from __future__ import annotations

import array
import contextlib
import enum
import os
import signal
from collections import Counter
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from socket import CMSG_SPACE, MSG_CTRUNC, MSG_NOSIGNAL, MSG_TRUNC, SCM_RIGHTS, SOL_SOCKET, socket
from typing import TYPE_CHECKING, Final

import trio

from meshfd import engine
from meshfd.agent_process import check_done, check_listen, check_spawn, start_agent
from meshfd.channel import read_packet
from meshfd.durations import DURATION_MAX_S
from meshfd.engine import FDS_MAX, PACKET_MAX, Done, SharedStatistics, WireError
from meshfd.errors import AgentLostError, MeshfdError, ServiceError
from meshfd.events import Call, Emptied, Event, Exited, Statistics
from meshfd.features import Features, features_of
from meshfd.model import (
    Destination,
    Endpoint,
    ListeningSocket,
    Redirect,
    Route,
    SocketAddress,
    Upstream,
    Verdict,
    is_ipv4,
)
from meshfd.netns import NEW, OWN_PATH, identity_of, open_netns, refusal, title_of
from meshfd.route_table import RouteTable, compile_routes
from meshfd.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from meshfd.program import Program

EVENTS_MAX: Final = 1024
CALLS_MAX: Final = 256  # MFD_ASKS_MAX in native/meshfd.h
END_S: Final = 10.0


class _Request:
    """What was asked of the agent, until it is settled: by an answer, or by there being none.

    ``settle`` is called then, at once and once, whether or not anybody still waits.
    """

    def __init__(self, settle: Callable[[Done | None], None] | None) -> None:
        self.settled = trio.Event()
        self.answer: Done | None = None
        self._settle = settle

    def settle(self, answer: Done | None) -> None:
        self.answer = answer
        if self._settle is not None:
            self._settle(answer)
        self.settled.set()


class Scope(enum.Enum):
    """Whom a signal is for."""

    MAIN = "main"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How an agent treats its programs.

    ``features``: what their filter traps; see `meshfd.features.features_of`.
    ``report_decisions``: `Redirected` and `Denied` events are wanted. ``ask_timeout_s`` and
    ``ask_open``: how long a call waits for a verdict, and whether it then passes or is refused.
    ``stop_signal`` and ``stop_timeout_s``: how the agent ends its programs when we vanish.
    ``netns``: the network namespace to live in, see `meshfd.netns`; None: ours. ``ipv4_netns``: the
    one that IPv4 is in, if it is another. ``open_netns`` opens them, and what listening sockets and
    upstreams name.
    ``uid`` and ``gid``: whose the listening sockets are that are opened before the first program
    runs; None: ours. Afterwards they are that program's.
    """

    features: Features = field(default_factory=Features)
    report_decisions: bool = False
    ask_timeout_s: float = 5.0
    ask_open: bool = False
    stop_signal: int = signal.SIGTERM
    stop_timeout_s: float = 10.0
    netns: str | None = None
    ipv4_netns: str | None = None
    open_netns: Callable[[str], int] = open_netns
    uid: int | None = None
    gid: int | None = None

    def __post_init__(self) -> None:
        """Refuse what the agent cannot count.

        Raises:
            ValueError: a time is negative, not a number, or longer than DURATION_MAX_S.

        """
        for name in ("ask_timeout_s", "stop_timeout_s"):
            if not 0 <= getattr(self, name) <= DURATION_MAX_S:
                text = f"{name} is a number of seconds, 0 to {DURATION_MAX_S} (30 days)"
                raise ValueError(text)


class Agent:
    """A running agent; made by `open_agent`.

    ``pid`` is the agent's; ``events`` ends when the agent has ended.
    """

    def __init__(self, pid: int, channel: trio.socket.SocketType, options: AgentOptions) -> None:
        """Use `open_agent`."""
        self.pid = pid
        self.events_dropped = 0
        self._options = options
        self._channel = channel
        self._send_lock = trio.Lock()
        self._routes_lock = trio.Lock()
        self._routes_settled = trio.Event()
        self._routes_settled.set()
        self._netns_lock = trio.Lock()
        self._last_seq = 0
        self._requests: dict[int, _Request] = {}  # sent, or about to be, and not settled
        self._lost = False
        self._table: RouteTable | None = None
        self._sessions: set[int] = set()
        self._turns = Turns()
        self._netns: dict[tuple[int, int], int] = {}  # by identity: the agent's index
        self._statistics: SharedStatistics | None = None
        self._failure: MeshfdError = AgentLostError("the agent ended unexpectedly")
        self._program_pidfd: int | None = None
        self._events_in, self.events = trio.open_memory_channel[Event](inf)  # see _publish
        # the agent bounds what waits; what has timed out there may still lie here
        self._calls_in, self.calls = trio.open_memory_channel[Call](CALLS_MAX)

    # --- requests ------------------------------------------------------------------------------

    async def set_routes(self, routes: Sequence[Route]) -> None:
        """Replace the route table. Connections that were made stay as they are.

        Cancelled, it has replaced it or not; the counts are those of the table in force.

        Raises:
            ValueError: they need what this agent's filters do not trap (`AgentOptions.features`).
            OSError: the table cannot be compiled (`compile_routes`).
            ServiceError: a network namespace that they name cannot be used.
            AgentLostError: the agent is gone.

        """
        if not self._options.features.cover(features_of(routes)):
            raise ValueError(
                "UDP routes, unix sockets and other network namespaces need a program that was "
                "started with such a route"
            )
        async with self._routes_lock:  # the last to be sent is the one in force
            await self._routes_settled.wait()  # whoever sent the one before may not have waited
            places = await self._places(routes)
            table = await trio.to_thread.run_sync(
                compile_routes, tuple(routes), places, self._table
            )
            self._routes_settled = trio.Event()
            done = await self._request(
                engine.encode_routes,
                fds=(table.table_fd, table.tally_fd),
                settle=lambda answer: self._settle_routes(table, answer),
            )
            if done.errno:
                raise OSError(done.errno, os.strerror(done.errno))

    async def prepare_routes(self, routes: Sequence[Route]) -> None:
        """Try the network namespaces that `set_routes` will need for these; the agent holds them.

        Raises:
            ServiceError: one cannot be used.
            AgentLostError: the agent is gone.

        """
        async with self._routes_lock:
            await self._places(routes)

    async def open_listening(self, listening: ListeningSocket) -> int:
        """Open a listening socket; returns its index.

        Raises:
            ListenError: it cannot be opened; the text names the address and why.
            ServiceError: its network namespace cannot be used.
            AgentLostError: the agent is gone.

        """
        ipv4_netns = self._options.ipv4_netns
        if listening.netns is None and ipv4_netns is not None and is_ipv4(listening.address.ip):
            listening = replace(listening, netns=ipv4_netns)
        netns = engine.NETNS_OWN if listening.netns is None else await self._place(listening.netns)
        done = await self._request(lambda seq: engine.encode_listen(seq, listening, netns))
        return check_listen(done, listening)

    async def close_listening(self, index: int) -> None:
        """Close it; what a program was handed stays with the program. No such index: no effect."""
        await self._request(lambda seq: engine.encode_unlisten(seq, index))

    async def spawn(
        self, program: Program, *, stdio: tuple[int, int, int], report_listen: bool = True
    ) -> int:
        """Start a program with these standard files; returns its pid, once it has been exec'ed.

        ``report_listen``: `Listening` is wanted for sockets of the program's own, too.

        Raises:
            SpawnError: it cannot be started; ``errno`` and ``stage`` tell why.
            NotSupportedError: the kernel does not let us install the filter.
            AgentLostError: the agent is gone.

        """
        block_fd = engine.program_block(program)
        try:
            done = await self._request(
                lambda seq: engine.encode_spawn(
                    seq, inherit=False, new_session=program.new_session, ready_any=report_listen
                ),
                fds=(block_fd, *stdio),
            )
        finally:
            os.close(block_fd)
        pid = check_spawn(done, program.argv[0])
        if program.new_session:
            self._sessions.add(pid)
        self._forget_program()
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._program_pidfd = os.pidfd_open(pid)
        return pid

    async def signal(self, signo: int, scope: Scope = Scope.MAIN) -> None:
        """Send a signal to the program spawned last, or to everything; nothing there: no effect.

        SIGKILL to `Scope.ALL` goes on until nothing is left.

        Raises:
            OSError: EINVAL, EPERM (a program that has become another user's).
            AgentLostError: the agent is gone.

        """
        everything = scope is Scope.ALL
        done = await self._request(
            lambda seq: engine.encode_signal(seq, signo, everything=everything)
        )
        if done.errno:
            raise OSError(done.errno, os.strerror(done.errno))

    async def verdict(self, call: Call, verdict: Verdict) -> None:
        """Decide a call. One that has timed out, or whose program is gone, is passed over.

        Of a redirect's endpoints those whose turn it is are given, at most ENDPOINTS_MAX
        (`meshfd.turns`).

        Raises:
            ValueError: the verdict is `Ask`, or no endpoint of it has a weight, or one is a unix
                socket or in another network namespace, where no route of the program names one
                (`AgentOptions.features`).
            ServiceError: a network namespace that it names cannot be used.
            AgentLostError: the agent is gone.

        """
        needed = features_of((Route(Destination(None), verdict),))
        if not self._options.features.cover(needed):
            raise ValueError(
                "a verdict can name a unix socket, or another network namespace, only if some "
                "route does"
            )
        if isinstance(verdict, Redirect):
            upstream = verdict.upstream
            chosen = self._turns.take(upstream, engine.ENDPOINTS_MAX)
            verdict = Redirect(replace(upstream, endpoints=chosen))
        netns_of = await self._places((Route(Destination(None), verdict),))
        await self._send(engine.encode_verdict(call, verdict, netns_of), ())

    def statistics(self) -> Statistics:
        """The counters as they are now; also after the end."""
        if self._statistics is None:
            raise RuntimeError("statistics() before open_agent() has returned")
        return self._statistics.read()

    def route_counts(self) -> Counter[Route]:
        """How many calls each route of the table in force has decided since it was first set."""
        return Counter() if self._table is None else self._table.route_counts()

    def endpoint_counts(self) -> Counter[tuple[Upstream, Endpoint]]:
        """How many connections went to each endpoint of the table in force, likewise."""
        return Counter() if self._table is None else self._table.endpoint_counts()

    def _settle_routes(self, table: RouteTable, answer: Done | None) -> None:
        """Hold the table that is in force, and no other."""
        self._routes_settled.set()
        if answer is None or answer.errno:
            table.close()
            return
        if self._table is not None:
            self._table.close()
        self._table = table

    # --- the channel ---------------------------------------------------------------------------

    async def _setup(self) -> None:
        options = self._options
        fds = () if options.netns in {None, NEW} else (options.open_netns(str(options.netns)),)
        if options.netns != NEW:
            self._netns[identity_of(fds[0] if fds else OWN_PATH)] = engine.NETNS_OWN
        try:
            done = await self._request(
                lambda seq: engine.encode_setup(
                    seq,
                    options.features,
                    report_decisions=options.report_decisions,
                    ask_open=options.ask_open,
                    ask_timeout_s=options.ask_timeout_s,
                    stop_signal=options.stop_signal,
                    stop_timeout_s=options.stop_timeout_s,
                    enter_netns=bool(fds),
                    new_netns=options.netns == NEW,
                    uid=options.uid,
                    gid=options.gid,
                ),
                fds=fds,
            )
        finally:
            for fd in fds:
                os.close(fd)
        check_done(done)
        if done.errno and options.netns is not None:
            raise refusal(options.netns, done.errno)
        if options.ipv4_netns is not None:
            await self._place(options.ipv4_netns, engine.NETNS_IPV4)

    async def _place(self, name: str, index: int | None = None) -> int:
        """The index that a network namespace has for the agent, which is told of it if need be.

        Raises:
            ServiceError: it cannot be used.
            AgentLostError: the agent is gone.

        """
        async with self._netns_lock:  # each index is one's
            fd = self._options.open_netns(name)
            try:
                return await self._place_at(fd, name, index)
            finally:
                os.close(fd)

    async def _place_at(self, fd: int, name: str, index: int | None) -> int:
        identity = identity_of(fd)
        if index is not None and identity in self._netns:
            raise ServiceError(
                f"{title_of(name)}: the service lives there, with its IPv4; leave the "
                "transition out"
            )
        if identity not in self._netns:
            if index is None:
                index = engine.NETNS_OTHER + sum(
                    one >= engine.NETNS_OTHER for one in self._netns.values()
                )
            if index >= engine.NETNS_MAX:
                raise ServiceError(
                    f"{title_of(name)}: {engine.NETNS_MAX} are the most that one "
                    "service can have sockets in"
                )
            done = await self._request(lambda seq: engine.encode_netns(seq, index), fds=(fd,))
            if done.errno:
                raise refusal(name, done.errno)
            self._netns[identity] = index
        return self._netns[identity]

    async def _places(self, routes: Sequence[Route]) -> Callable[[Upstream, Endpoint], int]:
        """Where endpoints are reached from, as `compile_routes` wants it."""
        upstreams = {one.verdict.upstream for one in routes if isinstance(one.verdict, Redirect)}
        names = {one.netns for one in upstreams if one.netns is not None}
        places = {name: await self._place(name) for name in sorted(names)}
        ipv4 = engine.NETNS_OWN if self._options.ipv4_netns is None else engine.NETNS_IPV4

        def netns_of(upstream: Upstream, endpoint: Endpoint) -> int:
            address = endpoint.address
            if upstream.netns is not None:
                return places[upstream.netns]
            if isinstance(address, SocketAddress) and is_ipv4(address.ip):
                return ipv4
            return engine.NETNS_OWN

        return netns_of

    async def _request(
        self,
        encode: Callable[[int], bytes],
        *,
        fds: tuple[int, ...] = (),
        settle: Callable[[Done | None], None] | None = None,
    ) -> Done:
        self._last_seq += 1
        seq = self._last_seq
        request = self._requests[seq] = _Request(settle)
        try:
            await self._send(encode(seq), fds)
        except BaseException:  # it was not sent
            if self._requests.pop(seq, None) is not None:
                request.settle(None)
            raise
        await request.settled.wait()
        if request.answer is None:
            raise self._failure
        return request.answer

    async def _send(self, packet: bytes, fds: tuple[int, ...]) -> None:
        rights = [(SOL_SOCKET, SCM_RIGHTS, array.array("i", fds))] if fds else []
        async with self._send_lock:
            if self._lost:
                raise self._failure
            try:
                await self._channel.sendmsg([packet], rights, MSG_NOSIGNAL)
            except ConnectionError as error:
                raise AgentLostError("the agent ended unexpectedly") from error

    async def _receive(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._receive_all()

    async def _receive_all(self) -> None:
        space = CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
        try:
            while True:
                data, ancillary, flags, _ = await self._channel.recvmsg(PACKET_MAX, space)
                self._keep(_fds_in(ancillary))
                if flags & (MSG_TRUNC | MSG_CTRUNC):
                    raise WireError("a packet of the agent's, or a file with it, was lost")
                self._take(read_packet(data))
        except ConnectionError:
            pass
        except MeshfdError as error:  # its end, or a packet that makes no sense: told to requests
            self._failure = error
        finally:
            self._lost = True
            self._events_in.close()
            self._calls_in.close()
            while self._requests:
                self._requests.popitem()[1].settle(None)

    def _keep(self, fds: tuple[int, ...]) -> None:
        for fd in fds:
            if self._statistics is None:
                self._statistics = SharedStatistics(fd)
            os.close(fd)

    def _take(self, message: Done | Event) -> None:
        if isinstance(message, Done):
            request = self._requests.pop(message.seq, None)
            if request is not None:
                request.settle(message)
        elif isinstance(message, Call):
            # without room, or anybody to decide, it times out, which the agent reports
            with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError):
                self._calls_in.send_nowait(message)
        else:
            self._publish(message)

    def _publish(self, event: Event) -> None:
        n_unread = self._events_in.statistics().current_buffer_used
        if n_unread >= EVENTS_MAX and not isinstance(event, Exited | Emptied):
            self.events_dropped += 1
            return
        with contextlib.suppress(trio.BrokenResourceError):  # whoever opened it reads no more
            self._events_in.send_nowait(event)

    async def _end_orphans(self) -> None:
        """End what the agent ran; it is no more, or does not answer."""
        if self._program_pidfd is not None:
            with contextlib.suppress(ProcessLookupError), trio.move_on_after(END_S):
                signal.pidfd_send_signal(self._program_pidfd, signal.SIGKILL)
                await trio.lowlevel.wait_readable(self._program_pidfd)
        await _end_sessions(self._sessions)

    def _forget_program(self) -> None:
        if self._program_pidfd is not None:
            os.close(self._program_pidfd)
            self._program_pidfd = None

    def _close(self) -> None:
        self._channel.close()
        self._forget_program()
        if self._table is not None:
            self._table.close()  # its counts stay


async def _wait_for_exit(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:  # see _reap
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
    _reap(pid)


def _reap(pid: int) -> None:
    """Bury a child that has ended: does not wait. With SIGCHLD ignored the kernel has done it."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


async def _end(agent: Agent) -> None:
    """Kill what it runs, then let it go; it exits when the last process is gone."""
    agent.events.close()  # nobody reads on, and the answer must not wait behind them
    agent.calls.close()
    with trio.move_on_after(END_S) as waiting:
        try:
            await agent.signal(signal.SIGKILL, Scope.ALL)
        except MeshfdError:
            await agent._end_orphans()  # noqa: SLF001 -- this module's own
    if waiting.cancelled_caught:
        # A program can make it wait in the kernel for memory that never comes (userfaultfd(2)).
        with contextlib.suppress(ProcessLookupError):  # see _reap
            os.kill(agent.pid, signal.SIGKILL)
        await agent._end_orphans()  # noqa: SLF001


def _session_of(pid: int) -> int | None:
    """Its session; None when it is gone, or a zombie. Source: proc(5), /proc/PID/stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, _, _, session, *_ = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else int(session)


def _members_of(sessions: set[int]) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _session_of(pid) in sessions]


async def _end_sessions(sessions: set[int]) -> None:
    """Kill what an agent has left that is no more: all processes of the sessions it began.

    A process that has begun a session of its own is not found.
    """
    while found := _members_of(sessions):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    if _session_of(pid) in sessions:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                        await trio.lowlevel.wait_readable(pidfd)
                finally:
                    os.close(pidfd)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Let an exception that is alone in its group go on by itself.

    A nursery groups what its tasks raise; where it is a detail of ours, callers expect the error
    that the docstring names. Source: trio, "Strict versus loose ExceptionGroup semantics".
    """
    try:
        yield
    except BaseExceptionGroup as group:
        alone: BaseException = group
        while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
            alone = alone.exceptions[0]
        if alone is group:
            raise
        raise alone from alone.__cause__


def _fds_in(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, ...]:
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return tuple(fds)


@contextlib.asynccontextmanager
async def open_agent(
    options: AgentOptions, *, settle: Callable[[int], None] | None = None
) -> AsyncIterator[Agent]:
    """Start an agent; it, and all that it runs, is gone when the context ends.

    ``settle`` is called with its pid before it makes anything: where it shall live, so will what it
    makes. What that raises is raised here.

    Raises:
        NotSupportedError: there is no agent to run, or one of another version.
        AgentLostError: it ended before it was set up.

    """
    pid, channel_fd = start_agent(inherit=False)
    if settle is not None:
        try:
            settle(pid)
        except BaseException:
            os.close(channel_fd)
            with trio.CancelScope(shield=True):
                await _wait_for_exit(pid)
            raise
    channel = trio.socket.from_stdlib_socket(socket(fileno=channel_fd))
    agent = Agent(pid, channel, options)
    try:
        with plain_errors():
            async with trio.open_nursery() as nursery:
                receiving = trio.CancelScope(shield=True)  # answers are needed to the very end
                nursery.start_soon(agent._receive, receiving)  # noqa: SLF001 -- this module's own
                try:
                    await agent._setup()  # noqa: SLF001
                    yield agent
                finally:
                    with trio.CancelScope(shield=True):
                        await _end(agent)
                    receiving.cancel()
    finally:
        agent._close()  # noqa: SLF001
        with trio.CancelScope(shield=True):
            await _wait_for_exit(pid)

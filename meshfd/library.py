"""The library: one program under routes, listening sockets, and decisions of your own.

Theory of operation: `spawn` opens an agent, gives it the routes and listening sockets, and starts
the program. A task reads the agent's events and hands them on; each call that waits for a verdict
gets a task of its own that awaits ``decide``, so a slow decision holds up one connect(), no more.
The agent bounds how many wait (MFD_ASKS_MAX in native/meshfd.h) and how long (``ask_timeout_s``).

Leaving the context ends the program, and everything that it has started, with SIGKILL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import IO, Final

import trio

from meshfd.agent import Agent, AgentOptions, open_agent, plain_errors
from meshfd.errors import AgentLostError
from meshfd.events import Call, Event, Exited, Statistics
from meshfd.features import features_of
from meshfd.model import Ask, Destination, IoUring, ListeningSocket, Route, Track, Verdict
from meshfd.program import Program
from meshfd.routes import check_route, parse_listen, parse_route
from meshfd.standard_files import STDERR, is_inheritable

Decider = Callable[[Call], Awaitable[Verdict]]
Stdio = int | IO[bytes] | IO[str] | None

EVENTS_MAX: Final = 1024


class RunningProgram:
    """A program that `spawn` has started; iterate over it for its events.

    ``pid`` is the program's. Iteration ends with its end; events that nobody takes are dropped once
    EVENTS_MAX wait, and counted in ``n_events_dropped``.
    """

    def __init__(self, agent: Agent, pid: int) -> None:
        """Use `spawn`."""
        self.pid = pid
        self.n_events_dropped = 0
        self._agent = agent
        self._code: int | None = None
        self._ended = trio.Event()
        self._events_in, self._events = trio.open_memory_channel[Event](EVENTS_MAX)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def wait(self) -> int:
        """Wait for the program's end: its exit code, or minus the signal that ended it.

        Raises:
            AgentLostError: the agent ended first, so that nobody knows.

        """
        await self._ended.wait()
        if self._code is None:
            raise AgentLostError("the agent ended unexpectedly")
        return self._code

    async def signal(self, signo: int) -> None:
        """Send the program a signal; if it has ended, nothing happens."""
        await self._agent.signal(signo)

    async def set_routes(self, routes: Sequence[Route | str]) -> None:
        """Replace the routes, at once and for all that it has started. Connections stay.

        Raises:
            ValueError: one is for UDP, or to a unix socket, and none was at the program's start.

        """
        await self._agent.set_routes(_routes_of(routes))

    def statistics(self) -> Statistics:
        """What the agent has counted."""
        return self._agent.statistics()

    async def _follow(self) -> None:
        """Take events to the agent's end; the program's own end is the last to be handed on."""
        async for event in self._agent.events:
            if self._ended.is_set():
                continue
            try:
                self._events_in.send_nowait(event)
            except trio.WouldBlock:
                self.n_events_dropped += 1
            if isinstance(event, Exited) and event.pid == self.pid:
                self._code = event.code
                self._ended.set()
                self._events_in.close()
        self._ended.set()
        self._events_in.close()

    async def _decide(self, decide: Decider, timeout_s: float, nursery: trio.Nursery) -> None:
        async def decide_one(call: Call) -> None:
            with trio.move_on_after(timeout_s):  # later nobody waits for it
                await self._agent.verdict(call, await decide(call))

        async for call in self._agent.calls:
            nursery.start_soon(decide_one, call)


def _routes_of(routes: Sequence[Route | str]) -> tuple[Route, ...]:
    table = tuple(
        parse_route(route, allow_ask=True) if isinstance(route, str) else route for route in routes
    )
    for route in table:
        check_route(route)
    return table


def _fd_of(stdio: Stdio, standard: int) -> int:
    if stdio is None:
        return standard
    return stdio if isinstance(stdio, int) else stdio.fileno()


@contextmanager
def _open_stdio(*files: Stdio) -> Iterator[tuple[int, int, int]]:
    """Standard input, output and error by number, looked at before we open files of our own."""
    missing = [fd for fd in range(STDERR + 1) if not is_inheritable(fd)]
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        stdin, stdout, stderr = (
            null_fd if file is None and standard in missing else _fd_of(file, standard)
            for standard, file in enumerate(files)
        )
        yield stdin, stdout, stderr
    finally:
        os.close(null_fd)


@asynccontextmanager
async def spawn(  # noqa: PLR0913 -- each is optional and has a name
    argv: Sequence[str],
    *,
    routes: Sequence[Route | str] = (),
    listen: Sequence[ListeningSocket | str] = (),
    decide: Decider | None = None,
    ask_timeout_s: float = 5.0,
    ask_open: bool = False,
    strict: bool = False,
    track: Track = Track.CONNECT,
    transparent: bool = False,
    io_uring: IoUring = IoUring.REFUSE,
    netns: str | None = None,
    ipv4_netns: str | None = None,
    environment: Mapping[str, str] | None = None,
    working_dir: str = "",
    stdin: Stdio = None,
    stdout: Stdio = None,
    stderr: Stdio = None,
) -> AsyncIterator[RunningProgram]:
    """Run a program under meshfd for as long as the context lasts.

    ``routes`` and ``listen`` are written as on the command line, or records of `meshfd.model`; the
    target of a route may also be ``ask``. ``decide`` is awaited for each connect() whose route is
    `Ask`; where no route says so, for each that no route matches. It answers with a `Pass`, `Deny`
    or `Redirect`; what it raises ends the context with that exception. A call that has no verdict
    after ``ask_timeout_s`` seconds (at most 30 days) is refused, or passes with ``ask_open``. Of a
    `Redirect` at most 8 endpoints are tried, by turns, as its balance and their weights say.
    ``netns`` is the network namespace to run in: "new", a name of ip-netns(8), or a path;
    ``ipv4_netns`` the one that its IPv4 is in, if that is another. Upstreams and listening sockets
    may have their own.
    Standard files are ours (/dev/null for one that is closed), or the given fds or files.

    Raises:
        RouteSyntaxError: a route or listening socket is not written as it should be.
        ListenError: a listening socket cannot be opened.
        SpawnError: the program cannot be started.
        ServiceError: a network namespace cannot be used.
        NotSupportedError: the kernel lacks something, and the text says what.
        ValueError: a route says ask, and there is no ``decide``; ``ask_timeout_s`` is out of range.

    """
    table = _routes_of(routes)
    if decide is None and any(isinstance(route.verdict, Ask) for route in table):
        raise ValueError("a route says ask, but there is no decide() to be asked")
    if decide is not None and not any(isinstance(route.verdict, Ask) for route in table):
        table = (*table, Route(Destination(None), Ask()))
    sockets = [parse_listen(one) if isinstance(one, str) else one for one in listen]
    features = features_of(
        table,
        strict=strict,
        track=track,
        transparent=transparent,
        io_uring=io_uring,
        ipv4=ipv4_netns is not None,
    )
    options = AgentOptions(
        features=features,
        netns=netns,
        ipv4_netns=ipv4_netns,
        report_decisions=True,
        ask_timeout_s=ask_timeout_s,
        ask_open=ask_open,
    )
    program = Program(
        argv=tuple(argv),
        environment=tuple((os.environ if environment is None else environment).items()),
        working_dir=working_dir,
    )
    with plain_errors(), _open_stdio(stdin, stdout, stderr) as stdio:
        async with open_agent(options) as agent, trio.open_nursery() as nursery:
            if table:
                await agent.set_routes(table)
            for one in sockets:
                await agent.open_listening(one)
            running = RunningProgram(agent, await agent.spawn(program, stdio=stdio))
            nursery.start_soon(running._follow)  # noqa: SLF001 -- this module's own
            if decide is not None:
                nursery.start_soon(running._decide, decide, ask_timeout_s, nursery)  # noqa: SLF001
            yield running
            nursery.cancel_scope.cancel()

"""One agent and the program it runs: started, watched, stopped, and started again.

Theory of operation: a runner lives as long as its agent. `Runner.watch` takes the agent's events
and keeps what they say as plain state (``pid``, ``code``, what was listened on), telling the pulse;
the service's own task waits on the pulse and acts. A start goes through

    spawn()                running: pid is set, code is None
    the main process ends  code is set; others of the service may be left
    sweep()                nothing of the service is left, and it can be spawned again

`stop` asks the main process to end, waits, and then kills everything of the service. ``hurry`` cuts
every wait short, for an operator who asks twice.

Limits: after SIGKILL the kernel is given GONE_S to bury the dead; a process in an uninterruptible
sleep can stay longer, which is logged and left behind.
"""

from __future__ import annotations

import errno
import logging
import signal
from typing import TYPE_CHECKING, Final

import trio

from meshfd.agent import Agent, Scope
from meshfd.errors import AgentLostError, ListenError, MeshfdError, ServiceError
from meshfd.events import (
    Emptied,
    Event,
    Exited,
    HandedOver,
    Listening,
    Mismatched,
    Notice,
)
from meshfd.logs import event as log
from meshfd.model import ListeningSocket, Ready, Route, Service
from meshfd.redirects import RedirectCount, count_redirects
from meshfd.sparing import Sparing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from meshfd.events import Statistics
    from meshfd.program import Program
    from meshfd.pulse import Pulse

GONE_S: Final = 5.0


class Runner:
    """A program under an agent. All attributes are for reading.

    ``pid`` is None before the first spawn, ``code`` as in `os.waitstatus_to_exitcode` and None
    while the main process lives; ``lost`` tells that the agent ended unasked; ``handed`` counts
    handovers per listening socket.
    """

    def __init__(self, name: str, agent: Agent, pulse: Pulse, hurry: Callable[[], bool]) -> None:
        self.name = name
        self.pid: int | None = None
        self.code: int | None = None
        self.lost = False
        self.handed: dict[ListeningSocket, int] = {}
        self._agent = agent
        self._pulse = pulse
        self._hurry = hurry
        self._indices: dict[int, ListeningSocket] = {}
        self._listened: set[int | None] = set()
        self._early: dict[int, int] = {}
        self._emptied = False
        self._sparing = Sparing()

    @property
    def agent_pid(self) -> int:
        """The agent's pid; the service's processes are its descendants."""
        return self._agent.pid

    @property
    def running(self) -> bool:
        """Whether the main process lives."""
        return self.pid is not None and self.code is None and not self.lost

    def is_ready(self, ready: Ready) -> bool:
        """Whether the program has done what counts as ready, even if it has ended since."""
        if ready is Ready.EXEC:
            return True
        if self._indices:
            return self._listened.issuperset(self._indices)
        return bool(self._listened)

    def statistics(self) -> Statistics:
        """The agent's counters."""
        return self._agent.statistics()

    def redirects(self) -> list[RedirectCount]:
        """Where connections went, by the routes in force."""
        return count_redirects(self._agent.route_counts(), self._agent.endpoint_counts())

    async def open(
        self, listening: Sequence[ListeningSocket], *, awaited_ports: Collection[int] = ()
    ) -> tuple[ListeningSocket, ...]:
        """Open listening sockets; either all are open then, or none of these.

        Those whose address is taken, but whose port is awaited, are left out and returned.

        Raises:
            ListenError: one cannot be opened.

        """
        opened: dict[int, ListeningSocket] = {}
        held_back: list[ListeningSocket] = []
        try:
            for one in listening:
                try:
                    opened[await self._agent.open_listening(one)] = one
                except ListenError as error:
                    if error.errno != errno.EADDRINUSE or one.address.port not in awaited_ports:
                        raise
                    held_back.append(one)
        except BaseException:
            with trio.CancelScope(shield=True):
                for index in opened:
                    await self._agent.close_listening(index)
            raise
        self._indices.update(opened)
        self.handed.update(dict.fromkeys(opened.values(), 0))
        return tuple(held_back)

    async def close(self, listening: Sequence[ListeningSocket]) -> None:
        """Close listening sockets; a program that was handed one keeps it."""
        for index, one in list(self._indices.items()):
            if one in listening:
                del self._indices[index]
                self.handed.pop(one, None)
                await self._agent.close_listening(index)

    async def prepare_routes(self, routes: Sequence[Route]) -> None:
        """See to it that `set_routes` will have what these need of the machine.

        Raises:
            ServiceError: it is not to be had.
            AgentLostError: the agent is lost.

        """
        try:
            await self._agent.prepare_routes(routes)
        except ServiceError as error:
            raise ServiceError(f"service {self.name}: {error}") from error

    async def set_routes(self, routes: Sequence[Route]) -> None:
        """Replace the routes; connections that were made stay.

        Raises:
            MeshfdError: they cannot be compiled, or the agent is lost.

        """
        try:
            await self._agent.set_routes(routes)
        except OSError as error:
            raise MeshfdError(f"the routes cannot be used: {error.strerror}") from error

    async def spawn(self, program: Program, *, stdio: tuple[int, int, int], ready: Ready) -> int:
        """Start the program; its pid. Nothing of an earlier start is left when this is called.

        Raises:
            SpawnError, NotSupportedError: it could not be started.

        """
        self.pid = self.code = None
        self._emptied = False
        self._listened.clear()
        self._early.clear()
        report_listen = ready is Ready.LISTEN and not self._indices
        pid = await self._agent.spawn(program, stdio=stdio, report_listen=report_listen)
        self.pid = pid
        # The task that takes events may have come to its end before this one got its pid.
        self.code = self._early.pop(pid, None)
        self._emptied = self._emptied and self.code is not None
        return pid

    async def stop(self, service: Service) -> None:
        """End the program: its stop signal, and after its time is up SIGKILL to all of it."""
        if self.running:
            await self._signal(service.stop_signal, Scope.MAIN)
            await self._signal(signal.SIGCONT, Scope.MAIN)  # a stopped process cannot act on it
            await self._pulse.until_within(
                service.stop_timeout_s, lambda: not self.running or self._hurry()
            )
            if self.running:
                if not self._hurry():
                    text = "did not end in time: killed"
                    log(logging.WARNING, text, service=self.name, after_s=service.stop_timeout_s)
                await self._kill()
        await self.sweep(service)

    async def sweep(self, service: Service) -> None:
        """End what the main process has left behind, so that nothing of the service is there."""
        if self.pid is None or self.lost:
            return
        await self._signal(signal.SIGTERM, Scope.ALL)
        await self._signal(signal.SIGCONT, Scope.ALL)
        await self._pulse.until_within(service.stop_timeout_s, self._is_swept)
        if not self._emptied:
            await self._kill()

    async def watch(self) -> None:
        """Take the agent's events until it ends."""
        async for event in self._agent.events:
            self._take(event)
        self.lost = True
        self._pulse.beat()

    async def _kill(self) -> None:
        await self._signal(signal.SIGKILL, Scope.ALL)
        await self._pulse.until_within(GONE_S, lambda: self.lost or self._emptied)
        if not self._emptied and not self.lost:
            log(logging.ERROR, "processes are still there after SIGKILL", service=self.name)

    async def _signal(self, signo: int, scope: Scope) -> None:
        try:
            await self._agent.signal(signo, scope)
        except AgentLostError:
            self.lost = True
        except OSError as error:
            text = f"cannot be sent {signal.Signals(signo).name}: {error.strerror}"
            log(logging.ERROR, text, service=self.name)

    def _is_swept(self) -> bool:
        return self._emptied or self.lost or self._hurry()

    def _take(self, event: Event) -> None:
        match event:
            case Exited() | Emptied() | Listening():
                self._take_progress(event)
                self._pulse.beat()
            case HandedOver(index=index) if index in self._indices:
                self.handed[self._indices[index]] += 1
                # It listens already, and haproxy, which looks, does not call listen() any more.
                self._listened.add(index)
                self._pulse.beat()
            case Mismatched():
                self._warn_mismatch(event)
            case Notice():
                self._warn_notice(event)
            case _:
                pass

    def _take_progress(self, event: Exited | Emptied | Listening) -> None:
        match event:
            case Exited(pid=pid) if self.pid is None:
                self._early[pid] = event.code
            case Exited(pid=pid) if pid == self.pid:
                self.code = event.code
            case Emptied():
                # One that is left over from a spawn that failed says nothing about this run.
                self._emptied = self.pid is None or self.code is not None
            case Listening(index=index) if index is None or index in self._indices:
                self._listened.add(index)
            case _:
                pass

    def _warn_mismatch(self, event: Mismatched) -> None:
        one = self._indices.get(event.index)
        if one is None or (held_back := self._admit(Mismatched)) is None:
            return
        text = f"binds {event.address}, but its listening socket is {one.address}: not handed over"
        log(logging.WARNING, text, service=self.name, pid=event.pid, more=held_back or None)

    def _warn_notice(self, event: Notice) -> None:
        if (held_back := self._admit(event.kind)) is None:
            return
        log(
            logging.WARNING,
            event.kind.value,
            service=self.name,
            pid=event.pid or None,
            address=event.address,
            errno=event.errno or None,
            more=held_back or None,
        )

    def _admit(self, kind: object) -> int | None:
        return self._sparing.admit(kind, trio.current_time())

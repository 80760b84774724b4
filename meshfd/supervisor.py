"""`meshfd run`: all services of a configuration, from the first socket to the last process.

Theory of operation: the agents are started and every listening socket is opened before any program
is, so that clients can queue from the first moment, and what cannot be opened stops everything
while nothing runs; network namespaces are made before that. Then services start, and the supervisor
waits for its end, which is the first of

    SIGTERM, SIGINT                       status 0; a second one kills at once
    a service with on_exit = "stop-all"   its status, 128+n for a signal
    no service left that runs or will     0, or 1 if one of them failed

and stops everything in order. SIGHUP and `meshfd reload` read the same files again
(`meshfd.reload`). Files are read in a thread, one reading at a time, and the end waits for none: a
file system may never answer. What changes the fleet holds ``_changing``: start, reload, end.

Signals that come before all this is up are held back by who starts us (`meshfd.cli`), and taken as
if they came then. Requests of the control socket are carried out here, in the supervisor's own
nursery: a client that hangs up does not leave them half done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from meshfd.changes import plan_changes, restrict
from meshfd.connections import report_connections
from meshfd.control import serve_control
from meshfd.errors import ControlError, MeshfdError
from meshfd.fd_limit import raise_own
from meshfd.fleet import Fleet
from meshfd.logs import event as log
from meshfd.model import Configuration
from meshfd.order import start_order
from meshfd.protocol import Request, Result
from meshfd.pulse import Pulse
from meshfd.reload import apply_plan, check_launches
from meshfd.report import report_status
from meshfd.service import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Iterator, Mapping, Sequence
    from pathlib import Path

    from meshfd.service import ManagedService

Load = Callable[[], "Configuration"]

SIGNAL_STATUS: Final = 128
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """Runs the services of what ``load`` reads; ``load`` is asked again at each reload.

    ``control`` is where to make the control socket, ``environment`` what programs inherit.
    """

    def __init__(self, load: Load, control: Path, environment: Mapping[str, str]) -> None:
        self._load = load
        self._control = control
        self._environment = environment
        self._pulse = Pulse()
        self._loading = trio.Lock()
        self._changing = trio.Lock()
        self._load_scope = trio.CancelScope()
        self._configuration = Configuration(())
        self._status: int | None = None

    async def run(self) -> int:
        """Run until the end; the exit status.

        Raises:
            MeshfdError: something could not be read or opened; nothing was started.

        """
        failure: MeshfdError | None = None
        with trio.open_signal_receiver(*SIGNALS) as signals, _signals_let_in():
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._fleet = Fleet(
                    nursery, self._pulse, self._control, self._environment, self._note_end
                )
                nursery.start_soon(self._take_signals, signals)
                try:
                    await self._start()
                    await self._pulse.until(lambda: self._status is not None)
                    async with self._changing:
                        await self._fleet.remove([managed.name for managed in self._fleet.all()])
                    log(logging.INFO, "all services have stopped")
                except MeshfdError as error:
                    failure = error
                nursery.cancel_scope.cancel()
            await self._fleet.namespaces.close()
        if failure is not None:
            raise failure
        return self._status or 0

    async def _start(self) -> None:
        """Open everything, and have the services start."""
        async with self._loading, self._changing:
            configuration = await self._load_files()
            if configuration is None:
                return
            services = {one.name: one for one in configuration.services}
            check_launches(list(services.values()), self._environment, self._control)
            if not await self._make_namespaces(configuration):
                return
            for name in start_order({n: one.depends_on for n, one in services.items()}):
                await self._fleet.add(services[name])
            self._configuration = configuration
            await self._nursery.start(serve_control, self._control, self.handle)
            if self._status is None:
                self._fleet.ask_to_start(one.name for one in services.values() if one.autostart)

    async def _load_files(self) -> Configuration | None:
        """Read the files; None when the end comes first."""
        with trio.CancelScope() as self._load_scope:
            if self._status is None:
                return await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)
        return None

    async def _make_namespaces(self, configuration: Configuration) -> bool:
        """Make what services shall live in; False when the end comes first."""
        with trio.CancelScope() as self._load_scope:
            if self._status is None:
                await self._fleet.namespaces.change(configuration)
                await self._fleet.namespaces.settle()
        return self._status is None

    async def _take_signals(self, signals: AsyncIterable[int]) -> None:
        async for signo in signals:
            name = signal.Signals(signo).name
            if signo == signal.SIGHUP:
                self._nursery.start_soon(self._reload_quietly)
            elif self._status is None:
                log(logging.INFO, f"{name}: stopping all services")
                self._finish(0)
            else:
                log(logging.WARNING, f"{name} again: killing all services")
                self._fleet.hurry()

    def _finish(self, status: int) -> None:
        if self._status is None:
            self._status = status
            self._load_scope.cancel()
            self._pulse.beat()

    def _note_end(self, managed: ManagedService, code: int) -> None:
        """A service has ended with no restart to come."""
        if managed.service.on_exit.value == "stop-all":
            if self._status is None:
                log(logging.INFO, "has ended: stopping all services", service=managed.name)
            self._finish(SIGNAL_STATUS - code if code < 0 else code)
        elif not any(other.active for other in self._fleet.all()):
            failed = any(other.state is State.FAILED for other in self._fleet.all())
            self._finish(1 if failed else 0)

    async def handle(self, request: Request) -> Result:
        """Carry out a request of the control socket."""
        names = list(request.names)
        if request.command == "status":
            return report_status(self._chosen(names))
        if request.command == "connections":
            asked = self._chosen(names)
            namespaces = self._fleet.namespaces
            return _taken(await _outcome(lambda: report_connections(asked, namespaces)))
        if self._status is not None:
            raise ControlError("meshfd is stopping")
        if request.command == "reload":
            return await self._in_own_nursery(lambda: self._reload(names))
        chosen = [managed.name for managed in self._chosen(names)]
        commands: dict[str, Callable[[list[str]], Awaitable[None]]] = {
            "start": self._fleet.start,
            "stop": self._fleet.stop,
            "restart": self._fleet.restart,
        }
        command = commands[request.command]

        async def carry_out() -> Result:
            await command(chosen)
            return {"services": chosen}

        return await self._in_own_nursery(carry_out)

    def _chosen(self, names: Sequence[str]) -> list[ManagedService]:
        return [self._fleet.find(name) for name in names] if names else self._fleet.all()

    async def _in_own_nursery(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do the work to its end, even when the caller is cancelled while it waits."""
        done = trio.Event()
        outcome: list[Result | MeshfdError] = []

        async def carry_out() -> None:
            try:
                outcome.append(await _outcome(work))
            finally:
                done.set()

        self._nursery.start_soon(carry_out)
        await done.wait()
        if not outcome:
            raise ControlError("meshfd is stopping")
        return _taken(outcome[0])

    async def _reload_quietly(self) -> None:
        try:
            await self._reload([])
        except MeshfdError as error:
            for line in str(error).splitlines():
                log(logging.ERROR, f"reload refused: {line}")

    async def _reload(self, names: Sequence[str]) -> Result:
        """Read the files again and carry out what changed.

        Raises:
            MeshfdError: the new configuration cannot be; nothing has changed.

        """
        async with self._loading:
            loaded = await self._load_files()
            async with self._changing:
                if loaded is None or self._status is not None:
                    raise ControlError("meshfd is stopping")
                new = restrict(self._configuration, loaded, names) if names else loaded
                plan = plan_changes(self._configuration, new)
                summary = await apply_plan(plan, new, self._fleet, self._environment, self._control)
                self._configuration = new
            changed = (
                f"{verb} {', '.join(some)}"
                for verb, some in summary.items()
                if some and verb != "unchanged"
            )
            log(logging.INFO, f"reloaded: {'; '.join(changed) or 'nothing has changed'}")
            return summary


async def _outcome(work: Callable[[], Awaitable[Result]]) -> Result | MeshfdError:
    """What comes of it; a mistake of ours must not end the services."""
    try:
        return await work()
    except MeshfdError as error:
        return error
    except Exception as error:  # noqa: BLE001 -- see above
        log(logging.ERROR, f"internal error: {error!r}", at=traceback.format_exc())
        return ControlError(f"internal error: {error!r}")


def _taken(outcome: Result | MeshfdError) -> Result:
    if isinstance(outcome, MeshfdError):
        raise outcome
    return outcome


@contextlib.contextmanager
def _signals_let_in() -> Iterator[None]:
    """Take what was held back; held back again afterwards, the last of them cannot kill us."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def supervise(load: Load, control: Path) -> int:
    """Run the services of what ``load`` reads, controlled at ``control``; the exit status.

    Raises:
        MeshfdError: something could not be read or opened; nothing was started.

    """
    raise_own()
    return trio.run(Supervisor(load, control, dict(os.environ)).run)

"""All services of `meshfd run`, and what is done to several of them in order.

Theory of operation: a service is started after what it depends on is ready, in parallel where
nothing orders them; each waits for its own dependencies (`meshfd.lifecycle`), so `start` only tells
all of them at once. Stopping goes the other way: each is told to stop when those that depend on it,
and are stopped too, have stopped.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import trio

from meshfd.cgroups import Cgroups
from meshfd.errors import ControlError
from meshfd.lifecycle import Lifecycle
from meshfd.namespaces import Namespaces
from meshfd.order import start_order, with_dependencies
from meshfd.service import ManagedService, State, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from meshfd.model import Service
    from meshfd.pulse import Pulse


class Fleet:
    """The services by name. Their tasks run in the nursery that is given.

    ``namespaces`` are those that they live in; who changes the configuration changes them.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        pulse: Pulse,
        control: Path,
        environment: Mapping[str, str],
        on_ended: Callable[[ManagedService, int], None],
    ) -> None:
        self._nursery = nursery
        self._services: dict[str, ManagedService] = {}
        self.namespaces = Namespaces()
        self._around = Surroundings(
            pulse, Cgroups(), self.namespaces, control, environment, self.find, on_ended
        )

    def find(self, name: str) -> ManagedService:
        """The service of this name.

        Raises:
            ControlError: there is none.

        """
        try:
            return self._services[name]
        except KeyError:
            raise ControlError(f"no service is called {name}") from None

    def all(self) -> list[ManagedService]:
        """Every service."""
        return list(self._services.values())

    async def add(self, service: Service, *, tolerant: bool = False) -> ManagedService:
        """Open the service's agent and listening sockets; nothing is started.

        Raises:
            MeshfdError: that failed, and the service is not there; with ``tolerant`` it is there,
                and failed.

        """
        managed = ManagedService(service, self._around)
        self._services[service.name] = managed
        try:
            await self._open(managed, tolerant=tolerant)
        except BaseException:
            self._services.pop(service.name, None)
            raise
        return managed

    async def stage(self, service: Service, awaited_ports: frozenset[int]) -> ManagedService:
        """Do as `add` does, beside a service that may have the same name and these ports.

        It is not one of us before `adopt`; listening sockets that cannot be opened yet are its
        ``held_back``.

        Raises:
            MeshfdError: something cannot be opened, and waiting for the ports would not help.

        """
        managed = ManagedService(service, self._around, awaited_ports)
        await self._open(managed, tolerant=False)
        return managed

    def adopt(self, managed: ManagedService) -> None:
        """Take in what was staged; the one of its name was removed before."""
        managed.awaited_ports = frozenset()
        managed.held_back = ()
        self._services[managed.name] = managed

    async def discard(self, managed: ManagedService) -> None:
        """End what was staged and not adopted."""
        managed.close()
        await self._around.pulse.until(lambda: managed.gone)

    async def remove(self, names: Iterable[str]) -> None:
        """Stop these services in order and forget them, listening sockets included."""
        going = [self.find(name) for name in names]
        await self.stop([managed.name for managed in going])
        for managed in going:
            managed.close()
        await self._around.pulse.until(lambda: all(managed.gone for managed in going))
        for managed in going:
            self._services.pop(managed.name, None)

    async def start(self, names: Iterable[str]) -> None:
        """Start these services and what they depend on; wait until all are ready.

        Raises:
            ControlError: one ended instead, or there is no such service.

        """
        goals = self.ask_to_start(names)
        for name, goal in goals.items():
            await self.find(name).started(goal)

    def ask_to_start(self, names: Iterable[str]) -> dict[str, int]:
        """Tell these services and what they depend on to start; what `started` has to wait for."""
        order = with_dependencies(self._dependencies(), [self.find(name).name for name in names])
        # A service that is ready already has nothing to reach.
        goals = {name: self._goal(self.find(name)) for name in order}
        for name in order:
            self.find(name).start()
        return goals

    async def stop(self, names: Iterable[str]) -> None:
        """Stop these services, each after those of them that depend on it, and wait."""
        order = self._order(names)
        async with trio.open_nursery() as nursery:
            for name in order:
                nursery.start_soon(self._stop_after_dependents, name, order)

    async def restart(self, names: Iterable[str]) -> None:
        """Stop these services in order, start them in order, and wait until they are ready.

        Raises:
            ControlError: one ended instead, or there is no such service.

        """
        order = self._order(names)
        if len(order) == 1:
            # Alone it goes through one wish, so that a service ended meanwhile is not overtaken.
            managed = self.find(order[0])
            goal = managed.n_ready
            self.ask_to_start(managed.service.depends_on)
            managed.restart()
            await managed.started(goal)
            return
        await self.stop(order)
        await self.start(order)

    def hurry(self) -> None:
        """Have every stop that is under way kill at once."""
        for managed in self.all():
            managed.hurry()

    async def _open(self, managed: ManagedService, *, tolerant: bool) -> None:
        await self._nursery.start(functools.partial(self._live, managed, tolerant=tolerant))

    async def _live(
        self, managed: ManagedService, *, tolerant: bool, task_status: trio.TaskStatus[None]
    ) -> None:
        try:
            await Lifecycle(managed).run(tolerant=tolerant, task_status=task_status)
        finally:
            managed.gone = True
            self._around.pulse.beat()

    async def _stop_after_dependents(self, name: str, stopping: tuple[str, ...]) -> None:
        managed = self.find(name)
        waits_for = [
            other
            for other in map(self.find, stopping)
            if name in other.service.depends_on and other is not managed
        ]
        await self._around.pulse.until(lambda: not any(other.active for other in waits_for))
        managed.stop()
        await managed.stopped()

    def _order(self, names: Iterable[str]) -> tuple[str, ...]:
        wanted = {self.find(name).name for name in names}
        return tuple(name for name in start_order(self._dependencies()) if name in wanted)

    def _dependencies(self) -> dict[str, tuple[str, ...]]:
        return {managed.name: managed.service.depends_on for managed in self.all()}

    @staticmethod
    def _goal(managed: ManagedService) -> int:
        ready = managed.state is State.RUNNING and managed.wishes.running
        return managed.n_ready - 1 if ready else managed.n_ready

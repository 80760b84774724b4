"""Carry a new configuration out while services run.

Theory of operation: everything that can be refused is tried first, and then nothing has changed:
programs are looked up, network namespaces made, new agents started, the namespaces of new routes
opened, limits of cgroups written and new listening sockets opened beside the old. Only a socket
whose address is taken, and whose port one of ours gives up, has to wait. Then, in this order:
services that went, or need a new agent, are stopped; what had to wait is opened; routes are
replaced and sockets that went closed; programs whose description changed are restarted and new
services started. Whether they get ready is not waited for: the log and the status say it.

If something is refused, everything is put back: limits are as they were, and where what had to wait
cannot be opened after all, the sockets and services that had to go are there again, as they were,
with new agents, and those that ran are started.

Unchanged services are not touched at all. See `meshfd.changes` for how deep a change goes.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from meshfd.changes import Change, Depth, Plan
from meshfd.errors import AgentLostError, MeshfdError, ServiceError
from meshfd.launch import plan_launch
from meshfd.logs import event as log
from meshfd.order import start_order
from meshfd.service import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from pathlib import Path

    from meshfd.cgroup_limits import Limit
    from meshfd.cgroups import Cgroup
    from meshfd.fleet import Fleet
    from meshfd.model import Configuration, ListeningSocket, Service
    from meshfd.runner import Runner
    from meshfd.service import ManagedService


async def apply_plan(
    plan: Plan, new: Configuration, fleet: Fleet, environment: Mapping[str, str], control: Path
) -> dict[str, list[str]]:
    """Bring the fleet from what it was to the new configuration; what was done, as `Plan.summary`.

    Raises:
        MeshfdError: something of it cannot be; nothing has changed, or all is put back.

    """
    start_order({service.name: service.depends_on for service in new.services})
    check_launches(_launched(plan), environment, control)
    replaced = plan.at(Depth.AGENT)
    kept = [change for change in plan.changed if change.depth < Depth.AGENT]
    running = {change.new.name for change in plan.changed if _runs(change, fleet)}
    failed = {change.new.name for change in plan.changed if _tries_again(change, fleet)}

    await fleet.namespaces.change(new)
    attempt = _Attempt(fleet, _ports_given_up(plan))
    try:
        for service in [*plan.added, *(change.new for change in replaced)]:
            await attempt.stage(service)
        for change in kept:
            await attempt.begin(change)
        for change in kept:
            await attempt.give_up(change)
        await attempt.remove([*plan.removed, *(change.old for change in replaced)])
        await attempt.open_held_back()
    except MeshfdError as error:
        again = await attempt.put_back()
        if again:
            raise ServiceError(f"{error}; started again as before: {', '.join(again)}") from error
        raise
    await fleet.namespaces.settle()
    for managed in attempt.staged:
        fleet.adopt(managed)
    for change in kept:
        await _update(change, fleet)

    restarted = {c.new.name for c in plan.changed if c.depth >= Depth.PROCESS} & running
    for change in plan.at(Depth.PROCESS):
        if change.new.name in restarted:
            fleet.find(change.new.name).restart()
    replaced_and_ran = [change.new.name for change in replaced if change.new.name in running]
    autostarted = [service.name for service in plan.added if service.autostart]
    fleet.ask_to_start([*autostarted, *replaced_and_ran, *failed])
    return plan.summary(restarted=restarted, started=failed)


class _Attempt:
    """What of a reload may be refused: limits, agents and listening sockets.

    They are written, opened and given up, and put back as they were.
    """

    def __init__(self, fleet: Fleet, ports_given_up: frozenset[int]) -> None:
        self.staged: list[ManagedService] = []
        self._fleet = fleet
        self._ports = ports_given_up
        self._held_back: list[tuple[Runner, Sequence[ListeningSocket]]] = []
        self._opened: list[tuple[Runner, Sequence[ListeningSocket]]] = []
        self._closed: list[tuple[Runner, Sequence[ListeningSocket]]] = []
        self._removed: Sequence[Service] = ()
        self._ran: list[str] = []
        self._limited: list[tuple[Cgroup, Sequence[Limit]]] = []

    async def stage(self, service: Service) -> None:
        """Open a new service's agent and sockets."""
        self.staged.append(await self._fleet.stage(service, self._ports))

    async def begin(self, change: Change) -> None:
        """Limit the cgroup of a service that keeps its agent, and open what it gets anew."""
        runner = self._fleet.find(change.new.name).runner
        if runner is not None and change.reroutes:
            with contextlib.suppress(AgentLostError):  # the next one will take them
                await runner.prepare_routes(change.new.routes)
        cgroup = self._fleet.find(change.new.name).cgroup
        if cgroup is not None and change.relimits:  # without one: it takes the new limits
            await cgroup.limit(change.new.cgroup_limits)
            self._limited.append((cgroup, change.old.cgroup_limits))
        if runner is None or not change.opened:  # without an agent: the next one opens them
            return
        self._opened.append((runner, change.opened))
        held_back = await runner.open(change.opened, awaited_ports=self._ports)
        self._held_back.append((runner, held_back))

    async def give_up(self, change: Change) -> None:
        """Close what such a service loses, where another waits for its port.

        Raises:
            ServiceError: its program, which runs on, has the socket and would keep the port.

        """
        runner = self._fleet.find(change.new.name).runner
        waiting = {one.address.port for _, some in self._all_held_back() for one in some}
        closed = [one for one in change.closed if one.address.port in waiting]
        if runner is None or not closed:
            return
        for one in closed:
            if runner.running and runner.handed.get(one):
                raise ServiceError(
                    f"{one.address} cannot be given up: service {change.new.name}, which runs on, "
                    "listens there; stop it first"
                )
        self._closed.append((runner, closed))
        await runner.close(closed)

    async def remove(self, services: Sequence[Service]) -> None:
        """Stop these services in order; their agents end."""
        names = [service.name for service in services]
        ran = [name for name in names if self._fleet.find(name).wishes.running]
        await self._fleet.remove(names)
        self._ran, self._removed = ran, services

    async def open_held_back(self) -> None:
        """Open what had to wait for the ports of others."""
        for managed in self.staged:
            if managed.runner is None:
                raise ServiceError(f"service {managed.name}: its agent is lost")
        for runner, listening in self._all_held_back():
            await runner.open(listening)

    def _all_held_back(self) -> list[tuple[Runner, Sequence[ListeningSocket]]]:
        """What waits for a port."""
        staged = [(one.runner, one.held_back) for one in self.staged]
        return [(runner, some) for runner, some in staged if runner is not None] + self._held_back

    async def put_back(self) -> list[str]:
        """Have everything as it was; the names of services that had to be started again."""
        for managed in self.staged:
            await self._fleet.discard(managed)
        await self._fleet.namespaces.put_back()
        for runner, listening in self._opened:
            await _quietly(runner.close(listening))
        for runner, listening in self._closed:
            await _quietly(runner.open(listening))
        for cgroup, limits in self._limited:
            await _quietly(cgroup.limit(limits))
        for service in self._removed:
            await self._fleet.add(service, tolerant=True)
        self._fleet.ask_to_start(self._ran)
        return self._ran


async def _quietly(work: Awaitable[object]) -> None:
    """Log what cannot be put back, and go on."""
    try:
        await work
    except MeshfdError as error:
        log(logging.ERROR, f"cannot be put back: {error}")


def _runs(change: Change, fleet: Fleet) -> bool:
    return fleet.find(change.new.name).wishes.running


def _tries_again(change: Change, fleet: Fleet) -> bool:
    state = fleet.find(change.new.name).state
    return change.depth >= Depth.PROCESS and state is State.FAILED and change.new.autostart


def check_launches(services: list[Service], environment: Mapping[str, str], control: Path) -> None:
    """Look up every user, directory and command.

    Raises:
        ServiceError: some are not there; each that is missing has a line.

    """
    faults = []
    for service in services:
        try:
            plan_launch(service, environment, control)
        except MeshfdError as error:
            faults.append(str(error))
    if faults:
        raise ServiceError("\n".join(faults))


def _launched(plan: Plan) -> list[Service]:
    return [*plan.added, *(c.new for c in plan.changed if c.depth >= Depth.PROCESS)]


def _ports_given_up(plan: Plan) -> frozenset[int]:
    going = [*plan.removed, *(change.old for change in plan.at(Depth.AGENT))]
    ports = {one.address.port for service in going for one in service.listen}
    ports |= {one.address.port for change in plan.changed for one in change.closed}
    return frozenset(ports)


async def _update(change: Change, fleet: Fleet) -> None:
    managed = fleet.find(change.new.name)
    managed.renew(change.new)
    if managed.runner is None:  # a new agent is on its way, and takes the new values
        return
    try:
        if change.relimits:
            log(logging.INFO, "cgroup limits written", service=managed.name)
        if change.reroutes:
            await managed.runner.set_routes(change.new.routes)
            log(logging.INFO, "routes replaced", service=managed.name)
        await managed.runner.close(change.closed)
    except MeshfdError as error:
        log(logging.ERROR, str(error), service=managed.name)

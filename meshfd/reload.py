"""Carry a new configuration out while services run.

Theory of operation: everything that can be refused is tried first, and then nothing has changed:
programs are looked up, new agents started and new listening sockets opened beside the old. Then, in
this order: routes are replaced, sockets that went are closed, services that went are stopped;
what had to wait for a port of theirs is opened; programs whose description changed are restarted
and new services started. Whether they get ready is not waited for: the log and the status say it.

Unchanged services are not touched at all. See `meshfd.changes` for how deep a change goes.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from meshfd.changes import Change, Depth, Plan
from meshfd.errors import MeshfdError, ServiceError
from meshfd.launch import plan_launch
from meshfd.logs import event as log
from meshfd.order import start_order

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from meshfd.fleet import Fleet
    from meshfd.model import Configuration, Service


async def apply_plan(
    plan: Plan, new: Configuration, fleet: Fleet, environment: Mapping[str, str], control: Path
) -> None:
    """Bring the fleet from what it was to the new configuration.

    Raises:
        MeshfdError: something of it cannot be; nothing has changed.

    """
    start_order({service.name: service.depends_on for service in new.services})
    check_launches(_launched(plan), environment, control)
    ports_given_up = _ports_given_up(plan)
    early = [one for one in plan.added if not _takes(one, ports_given_up)]
    late = [one for one in plan.added if _takes(one, ports_given_up)]
    await _open_ahead(plan, early, fleet, ports_given_up)

    replaced = plan.at(Depth.AGENT)
    kept = [change for change in plan.changed if change.depth < Depth.AGENT]
    for change in kept:
        await _update(change, fleet)
    wanted = {c.new.name for c in replaced if fleet.find(c.new.name).wishes.running}
    await fleet.remove([one.name for one in plan.removed] + [c.new.name for c in replaced])
    for service in [*late, *(change.new for change in replaced)]:
        await fleet.add(service, tolerant=True)
    for change in kept:
        await _open_late(change, fleet, ports_given_up)

    for change in plan.at(Depth.PROCESS):
        managed = fleet.find(change.new.name)
        if managed.wishes.running:
            managed.restart()
    fleet.ask_to_start([*(one.name for one in plan.added if one.autostart), *wanted])


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


def _takes(service: Service, ports: frozenset[int]) -> bool:
    return any(one.address.port in ports for one in service.listen)


async def _open_ahead(
    plan: Plan, added: list[Service], fleet: Fleet, ports_given_up: frozenset[int]
) -> None:
    """Open what needs no port of another; undone as a whole when one part fails."""
    async with contextlib.AsyncExitStack() as undo:
        for service in added:
            await fleet.add(service)
            undo.push_async_callback(fleet.remove, [service.name])
        for change in plan.changed:
            runner = fleet.find(change.new.name).runner
            opened = [one for one in change.opened if one.address.port not in ports_given_up]
            if change.depth < Depth.AGENT and opened and runner is not None:
                await runner.open(opened)
                undo.push_async_callback(runner.close, opened)
        undo.pop_all()


async def _update(change: Change, fleet: Fleet) -> None:
    managed = fleet.find(change.new.name)
    managed.service = change.new
    if managed.runner is None:  # a new agent is on its way, and takes the new values
        return
    try:
        if change.reroutes:
            await managed.runner.set_routes(change.new.routes)
            log(logging.INFO, "routes replaced", service=managed.name)
        await managed.runner.close(change.closed)
    except MeshfdError as error:
        log(logging.ERROR, str(error), service=managed.name)


async def _open_late(change: Change, fleet: Fleet, ports_given_up: frozenset[int]) -> None:
    managed = fleet.find(change.new.name)
    opened = [one for one in change.opened if one.address.port in ports_given_up]
    if not opened or managed.runner is None:
        return
    try:
        await managed.runner.open(opened)
    except MeshfdError as error:
        log(logging.ERROR, str(error), service=managed.name)

"""What a reload has to do: two configurations compared.

Theory of operation: services are frozen records, so each is compared field by field, and the
difference decides how deep the change goes:

    the same                                     nothing is done
    restart, backoff, ready, stop_*, routes...   the service runs on; new values hold from now on
    cgroup_limits                                likewise: they are written
    listen                                       sockets are opened and closed; it runs on
    command, user, environment, log...           the program is restarted, its sockets stay open
    strict, track, transparent, io_uring         a new agent, because a filter cannot be changed
    cgroup, netns                                likewise: sockets stay where they were made
    a network namespace that meshfd makes        likewise, for all services in it
    routes that need another filter              likewise (`meshfd.features`)

Listening sockets are the same when name, address and backlog are. A socket that takes the port of
one that goes cannot be opened before the old program has let go of it, so that needs a new agent
too. A program that does not run has nothing to be restarted, however deep its change goes; if it
has failed and is one that starts by itself, a change of what is started is a reason to try again.
Pure: the supervisor carries the plan out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from meshfd.errors import ControlError
from meshfd.features import features_of_service
from meshfd.model import Configuration, ListeningSocket, Service
from meshfd.netns_plan import mix_namespaces, netns_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Depth(enum.IntEnum):
    """How deep a change of a service goes; each includes those before it."""

    NONE = 0
    LIVE = 1
    PROCESS = 2
    AGENT = 3


# Service's fields by how deep their change goes. Every field is in one of these: a test sees to it.
LIVE_FIELDS = frozenset(
    {
        "depends_on",
        "restart",
        "backoff",
        "stop_signal",
        "stop_timeout_s",
        "ready",
        "on_exit",
        "autostart",
        "listen",
        "routes",
        "cgroup_limits",
    }
)
PROCESS_FIELDS = frozenset(
    {"command", "working_dir", "user", "group", "environment", "log", "rlimits"}
)
AGENT_FIELDS = frozenset(
    {"cgroup", "netns", "transition", "strict", "track", "transparent", "io_uring"}
)


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one service that was there and stays."""

    old: Service
    new: Service
    depth: Depth

    @property
    def opened(self) -> tuple[ListeningSocket, ...]:
        """Listening sockets that are new."""
        return tuple(one for one in self.new.listen if one not in self.old.listen)

    @property
    def closed(self) -> tuple[ListeningSocket, ...]:
        """Listening sockets that go."""
        return tuple(one for one in self.old.listen if one not in self.new.listen)

    @property
    def relimits(self) -> bool:
        """Whether its cgroup, if it stays, gets other limits."""
        return self.old.cgroup_limits != self.new.cgroup_limits

    @property
    def reroutes(self) -> bool:
        """Whether the agent needs a new route table."""
        return self.old.routes != self.new.routes


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a reload does; the order is the new configuration's."""

    added: tuple[Service, ...]
    removed: tuple[Service, ...]
    changed: tuple[Change, ...]
    unchanged: tuple[str, ...]

    def at(self, depth: Depth) -> tuple[Change, ...]:
        """The changes of just this depth."""
        return tuple(change for change in self.changed if change.depth is depth)

    def summary(
        self, *, restarted: Collection[str] = (), started: Collection[str] = ()
    ) -> dict[str, list[str]]:
        """Names of services by what was done to them, for the answer to a reload request.

        ``restarted`` and ``started`` are those of the changed ones that were.
        """
        changed = [change.new.name for change in self.changed]
        return {
            "added": [service.name for service in self.added],
            "removed": [service.name for service in self.removed],
            "restarted": [name for name in changed if name in restarted],
            "started": [name for name in changed if name in started],
            "updated": [n for n in changed if n not in restarted and n not in started],
            "unchanged": list(self.unchanged),
        }


def plan_changes(old: Configuration, new: Configuration) -> Plan:
    """Compare what runs with what shall."""
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    remade = _remade(old, new)
    kept = [
        Change(before[name], service, _depth(before[name], service, remade))
        for name, service in after.items()
        if name in before
    ]
    return Plan(
        added=tuple(service for name, service in after.items() if name not in before),
        removed=tuple(service for name, service in before.items() if name not in after),
        changed=tuple(change for change in kept if change.depth is not Depth.NONE),
        unchanged=tuple(change.new.name for change in kept if change.depth is Depth.NONE),
    )


def restrict(old: Configuration, new: Configuration, names: Iterable[str]) -> Configuration:
    """The new configuration for the named services, the old one for all others.

    Raises:
        ControlError: a name is in neither configuration.

    """
    named = set(names)
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    unknown = sorted(named - before.keys() - after.keys())
    if unknown:
        message = f"no service is called {', '.join(unknown)}"
        raise ControlError(message)
    kept = [
        after[name] if name in named else service
        for name, service in before.items()
        if name not in named or name in after
    ]
    kept += [service for name, service in after.items() if name in named - before.keys()]
    unnamed = [service for service in kept if service.name not in named]
    return replace(new, services=tuple(kept), namespaces=mix_namespaces(old, new, unnamed))


def _remade(old: Configuration, new: Configuration) -> set[str]:
    """Names of the namespaces that are there, and are made anew."""
    before = {one.name: one for one in old.namespaces}
    return {one.name for one in new.namespaces if before.get(one.name, one) != one}


def _depth(old: Service, new: Service, remade: Collection[str]) -> Depth:
    differing = {f.name for f in fields(Service) if getattr(old, f.name) != getattr(new, f.name)}
    if not netns_of(new).isdisjoint(remade):
        return Depth.AGENT
    if not differing:
        return Depth.NONE
    change = Change(old, new, Depth.LIVE)
    ports_given_up = {one.address.port for one in change.closed}
    if (
        differing & AGENT_FIELDS
        or features_of_service(old) != features_of_service(new)
        or any(one.address.port in ports_given_up for one in change.opened)
    ):
        return Depth.AGENT
    return Depth.PROCESS if differing & PROCESS_FIELDS else Depth.LIVE

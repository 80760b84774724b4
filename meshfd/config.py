"""From TOML files to a `Configuration`, or to every reason why there is none.

Theory of operation: each file is parsed by itself; then upstreams are read, because routes name
them, and network namespaces; and then services. A fault is recorded where it is found and reading
goes on with what is left, so that one run shows all there is to mend. Where a file could not be
parsed, names that are not known are not held against the others. Only when no fault was found is
there a result.

Relative paths are relative to the folder of the file that they stand in. Nothing of the process's
environment counts, but for that folder and the environment files: two configurations are equal
when they mean the same, which is what a reload compares.

Limits: `LISTEN_MAX` listening sockets of one service (native/wire.h); those of `meshfd.routes`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from graphlib import CycleError, TopologicalSorter
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from msgspec import Meta

from meshfd.cgroup_paths import is_within
from meshfd.config_keys import (
    LISTEN_KEYS,
    NETNS_HINT,
    SERVICE_KEYS,
    Table,
    choice,
    existing_netns,
    read_endpoints,
)
from meshfd.errors import ConfigError, Fault, RouteSyntaxError
from meshfd.model import (
    Balance,
    Configuration,
    Destination,
    IPAddress,
    ListeningSocket,
    Namespace,
    Redirect,
    Route,
    Service,
    UnixAddress,
    Upstream,
    is_ipv4,
)
from meshfd.netns import NEW, OWN_PATH
from meshfd.netns_keys import NamespaceReader
from meshfd.netns_plan import NAMESPACES_MAX, used_namespaces
from meshfd.routes import check_name, check_route, parse_destination, parse_target
from meshfd.toml_tables import Key, Place, Source, convert, parse_each, read_source, read_table
from meshfd.wording import quote, suggest

LISTEN_MAX = 64
"""Listening sockets of one service (native/wire.h)."""

_DESTINATION_HINT = 'a destination such as "10.0.0.1:80"'
_TARGET_HINT = 'a target, such as "10.0.0.1:80" = "127.0.0.1:8080", with the destination quoted'
_SECTIONS = {
    "netns": Key("netns", Table, "[netns.NAME] tables"),
    "service": Key("service", Table, "[service.NAME] tables"),
    "upstream": Key("upstream", Table, "[upstream.NAME] tables"),
}


def load_configuration(paths: Sequence[Path]) -> Configuration:
    """Read configuration files as one configuration.

    Raises:
        ConfigError: with every fault that was found in any of them.

    """
    loader = _Loader()
    configuration = loader.load(paths)
    if not loader.faults and not configuration.services:
        file = str(paths[0]) if paths else "(no file)"
        loader.faults.append(Fault(file, None, "", "there is no service; write a [service.NAME]"))
    if loader.faults:
        raise ConfigError(list(dict.fromkeys(loader.faults)))
    return configuration


@dataclass(slots=True)
class _Loader:
    """What is known while the files of one configuration are read."""

    faults: list[Fault] = field(default_factory=list)
    is_complete: bool = True  # every file could be parsed
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    destinations: dict[Destination, Place] = field(default_factory=dict)  # of all upstreams
    listening: dict[tuple[str, int], list[tuple[ListeningSocket, Place]]] = field(
        default_factory=dict
    )  # by network namespace and port
    cgroups: list[tuple[str, Place]] = field(default_factory=list)

    def load(self, paths: Iterable[Path]) -> Configuration:
        """Read everything; what comes back counts only if there are no faults."""
        sources = self._read_sources(paths)
        netns_places = _declared(sources, "netns")
        for source in sources:
            source.netns.update(netns_places)
        for name, place in _declared(sources, "upstream").items():
            self.upstreams[name] = self._upstream(name, place)
        reader = NamespaceReader()
        namespaces = tuple(reader.read(name, place) for name, place in netns_places.items())
        places = _declared(sources, "service")
        services = tuple(self._service(name, place) for name, place in places.items())
        self._check_dependencies(services, places)
        self._check_namespaces(namespaces, services, netns_places)
        return Configuration(services, tuple(self.upstreams.values()), namespaces)

    def _read_sources(self, paths: Iterable[Path]) -> list[Source]:
        sources = []
        seen: set[Path] = set()
        for path in paths:
            if path.absolute() in seen:
                self.faults.append(Fault(str(path), None, "", "this file is given twice; drop one"))
                continue
            seen.add(path.absolute())
            source = read_source(path, self.faults)
            if source is None:
                self.is_complete = False
                continue
            sources.append(source)
            read_table(source.document, _SECTIONS, Place(source))
        return sources

    def _upstream(self, name: str, place: Place) -> Upstream:
        keys = {
            "addresses": Key(
                "addresses",
                list[Any],
                'an array of destinations such as ["10.0.0.1:80"]',
                self._addresses,
            ),
            "endpoints": Key(
                "endpoints",
                Annotated[list[Any], Meta(min_length=1)],
                'an array of endpoints such as ["127.0.0.1:8080", "127.0.0.1:8081"]',
                read_endpoints,
                required=True,
            ),
            "balance": choice("balance", Balance),
            "netns": Key("netns", str, NETNS_HINT, existing_netns),
        }
        upstream = Upstream(
            **({"name": name, "endpoints": ()} | read_table(place.value, keys, place))
        )
        if upstream.netns is not None:
            for endpoint in upstream.endpoints:
                if isinstance(endpoint.address, UnixAddress):
                    place.at("netns").fault(
                        f"{quote(str(endpoint.address))} is in no other network namespace; "
                        "take this out"
                    )
        for address in upstream.addresses:
            try:
                check_route(Route(address, Redirect(upstream)))
            except RouteSyntaxError as error:
                self.destinations[address].fault(str(error))
        return upstream

    def _addresses(self, values: list[Any], place: Place) -> tuple[Destination, ...]:
        def parse(value: object, here: Place) -> Destination:
            destination = parse_destination(convert(value, str, _DESTINATION_HINT))
            first = self.destinations.setdefault(destination, here)
            if first is not here:
                raise ValueError(f"this is already an address of {first.key} ({first}); drop one")
            return destination

        return parse_each(enumerate(values), place, parse)

    def _service(self, name: str, place: Place) -> Service:
        keys = SERVICE_KEYS | {
            "listen": Key(
                "listen",
                Annotated[list[Table], Meta(max_length=LISTEN_MAX)],
                f"[[service.NAME.listen]] tables, at most {LISTEN_MAX}",
                partial(self._listen, homes=_homes_of(name, place)),
            ),
            "routes": Key("routes", Table, 'a table of "DEST" = "TARGET"', self._routes),
        }
        fields = {"name": name, "command": ()} | read_table(place.value, keys, place)
        variables = fields.pop("env_file", {}) | fields.get("environment", {})
        # Sorted, because their order means nothing, and a reload compares.
        fields["environment"] = tuple(sorted(variables.items()))
        fields["routes"] = fields.get("routes", ()) + tuple(
            Route(address, Redirect(upstream))
            for upstream in self.upstreams.values()
            for address in upstream.addresses
        )
        if "cgroup" in fields:
            self._check_cgroup(fields["cgroup"], place.at("cgroup"))
        elif "cgroup_limits" in fields and "cgroup" not in place.value:
            text = 'a service without "cgroup" has none of its own to limit; write that, too'
            place.at("cgroup_limits").fault(text)
        return Service(**fields)

    def _check_namespaces(
        self,
        namespaces: Sequence[Namespace],
        services: Iterable[Service],
        places: Mapping[str, Place],
    ) -> None:
        for one in namespaces[NAMESPACES_MAX:]:
            places[one.name].fault(f"{NAMESPACES_MAX} namespaces are the most; drop some")
        used = used_namespaces(namespaces, services)
        for one in namespaces:
            if one not in used and self.is_complete:
                places[one.name].fault(
                    f"no service uses it; drop it, or give a service netns = {quote(one.name)}"
                )

    def _check_cgroup(self, path: str, place: Place) -> None:
        """A cgroup is one service's own, with all that is in it."""
        for other, where in self.cgroups:
            if is_within(PurePosixPath(path), PurePosixPath(other)):
                place.fault(
                    f"{where.key} ({where}) has {quote(other)} for itself; "
                    "choose a cgroup beside it"
                )
        self.cgroups.append((path, place))

    def _listen(
        self, tables: list[Table], place: Place, *, homes: Mapping[bool, str]
    ) -> tuple[ListeningSocket, ...]:
        """``homes``: the service's own network namespace, and (True) the one of its IPv4."""
        names: dict[str, Place] = {}

        def parse(table: Table, here: Place) -> ListeningSocket | None:
            fields = read_table(table, LISTEN_KEYS, here)
            fields.pop("handover", None)
            if "address" not in fields:
                return None
            socket = ListeningSocket(**({"name": str(fields["address"])} | fields))
            home = homes[is_ipv4(socket.address.ip)]
            self._check_listening(socket, socket.netns or home, here)
            first = names.setdefault(socket.name, here)
            if first is not here:
                here.at("name").fault(
                    f"{quote(socket.name)} is already the name of {first.key} ({first}); "
                    "choose another"
                )
            return socket

        return parse_each(enumerate(tables), place, parse)

    def _check_listening(self, socket: ListeningSocket, netns: str, here: Place) -> None:
        """Only one socket can listen on an address; a wildcard's are all of its family."""
        place = here.at("address")
        if socket.v6only and isinstance(_as_ipv4(socket.address.ip), IPv4Address):
            here.at("v6only").fault("this is for IPv6 addresses; drop it")
        others = self.listening.setdefault((netns, socket.address.port), [])
        for other, where in others:
            if _is_within(socket, other) or _is_within(other, socket):
                place.fault(
                    f"{where.key} ({where}) already listens on {other.address}; "
                    "change the address or port of one of them"
                )
                break
        others.append((socket, place))

    def _routes(self, table: Table, place: Place) -> tuple[Route, ...]:
        seen: dict[Destination, Place] = {}
        known: Mapping[str, Upstream] = self.upstreams
        if not self.is_complete:
            known = defaultdict(lambda: Upstream("", ()), known)

        def parse(text: str, here: Place) -> Route:
            target = convert(table[text], str, _TARGET_HINT)
            destination = parse_destination(text)
            first = seen.setdefault(destination, here)
            if first is not here:
                raise ValueError(f"this destination has a route already, {first.key} ({first})")
            route = Route(destination, parse_target(target, known))
            check_route(route)
            return route

        return parse_each(((text, text) for text in table), place, parse)

    def _check_dependencies(self, services: Iterable[Service], places: Mapping[str, Place]) -> None:
        graph: dict[str, list[str]] = {}
        for service in services:
            graph[service.name] = [name for name in service.depends_on if name in places]
            others = [name for name in places if name != service.name]
            for name in service.depends_on:
                if name not in places and self.is_complete:
                    advice = suggest(name, others, none="this is the only service")
                    places[service.name].at("depends_on").fault(
                        f"there is no service {quote(name)}; {advice}"
                    )
        while cycle := _find_cycle(graph):
            places[cycle[0]].at("depends_on").fault(
                f"services wait for each other: {' -> '.join(cycle)}; take one of these out"
            )
            graph[cycle[0]].remove(cycle[1])


def _declared(sources: Iterable[Source], section: str) -> dict[str, Place]:
    """Where each service, or upstream, is written; only the first place, if there are several."""
    places: dict[str, Place] = {}
    for source in sources:
        tables = source.document.get(section)
        for name in tables if isinstance(tables, dict) else ():
            place = Place(source, (section, name))
            first = places.setdefault(name, place)
            if first is not place:
                place.fault(f"{first.key} is already there ({first}); choose another name")
                continue
            try:
                check_name(name)
            except ValueError as error:
                place.fault(str(error))
    return places


def _homes_of(name: str, place: Place) -> dict[bool, str]:
    """Where a service's sockets are, and (True) those of IPv4, as ``netns`` would name it."""
    keys = place.value if isinstance(place.value, dict) else {}
    transition = keys.get("transition")
    ipv4 = transition.get("ipv4_netns") if isinstance(transition, dict) else None
    netns, own = keys.get("netns"), OWN_PATH
    if netns == NEW:
        own = f"{NEW} {name}"
    elif isinstance(netns, str):
        own = _named(netns, place)
    return {False: own, True: _named(ipv4, place) if isinstance(ipv4, str) else own}


def _named(netns: str, place: Place) -> str:
    try:
        return existing_netns(netns, place)
    except ValueError:
        return netns  # it is a fault, and told as one


def _is_within(socket: ListeningSocket, other: ListeningSocket) -> bool:
    """Whether ``other`` takes connections to the address of ``socket``."""
    ip, other_ip = _as_ipv4(socket.address.ip), _as_ipv4(other.address.ip)
    if other_ip == IPv6Address(0):
        return isinstance(ip, IPv6Address) or not other.v6only
    return ip == other_ip or (other_ip == IPv4Address(0) and isinstance(ip, IPv4Address))


def _as_ipv4(ip: IPAddress) -> IPAddress:
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def _find_cycle(graph: Mapping[str, Sequence[str]]) -> list[str]:
    """Some services of which each depends on the next, and the last on the first; or none.

    The first is the one that was declared first, and comes again at the end.
    """
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        members = error.args[1][:0:-1]  # each before what it depends on, and the first once
        order = list(graph)
        start = members.index(min(members, key=order.index))
        return [*members[start:], *members[: start + 1]]
    return []

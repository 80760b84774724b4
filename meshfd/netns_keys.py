"""The keys of ``[netns.NAME]``: a network namespace that meshfd makes, and its links.

What the kernel would refuse whatever the machine is like is refused here already, with its line.
Which interface names are taken, and whether a namespace that a peer names is there, is known only
when they are made.
Source: netdevice(7), veth(4), linux/net/core/dev.c (dev_valid_name).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, ip_address, ip_interface, ip_network
from typing import Annotated, Any, Final

from msgspec import Meta

from meshfd.config_keys import NETNS_HINT, Table, existing_netns
from meshfd.model import IPAddress, IPInterface, IPNetwork, Link, LinkEnd, Namespace
from meshfd.netns import HOST, NEW, OWN_PATH
from meshfd.toml_tables import Key, Place, convert, parse_each, read_table
from meshfd.wording import quote

INTERFACE_BYTES_MAX: Final = 15
"""Bytes of an interface's name (linux/if.h, IFNAMSIZ, which counts the NUL)."""

MTU_MIN: Final = 68
MTU_MAX: Final = 65535
"""Bytes of an IP packet on a veth (linux/drivers/net/veth.c)."""

MTU_MIN_IPV6: Final = 1280
"""RFC 8200, section 5."""

_NEVER: Final = {".", "..", "all", "default"}  # have a meaning of their own in /proc/sys/net
_UNFIT: Final = frozenset("/:%")

Interface = tuple[str | None, str]
"""Namespace and name."""

Route = tuple[str | None, IPNetwork]
"""Namespace and destination."""


@dataclass(frozen=True, slots=True)
class NamespaceReader:
    """Reads the namespaces of one configuration.

    ``interfaces`` is where each interface was named first, ``routes`` each destination.
    """

    interfaces: dict[Interface, Place] = field(default_factory=dict)
    routes: dict[Route, Place] = field(default_factory=dict)

    def read(self, name: str, place: Place) -> Namespace:
        """A namespace; what is wrong in it is left out, and recorded."""
        if name in {NEW, HOST}:
            place.fault(
                f"{quote(name)} has a meaning of its own in netns = {quote(name)}; rename this"
            )

        def read_links(table: Table, here: Place) -> tuple[Link, ...]:
            return parse_each(
                ((one, one) for one in table),
                here,
                lambda one, at: self._link(LinkEnd(name, check_interface(one)), table[one], at),
            )

        keys = {
            "links": Key("links", Table, "[netns.NAME.links.INTERFACE] tables", read_links),
            "forwarding": Key("forwarding", bool, "true or false"),
        }
        return Namespace(**({"name": name} | read_table(place.value, keys, place)))

    def _link(self, named: LinkEnd, value: object, place: Place) -> Link | None:
        keys = _END_KEYS | {
            "mtu": Key(
                "mtu",
                Annotated[int, Meta(ge=MTU_MIN, le=MTU_MAX)],
                f"a whole number from {MTU_MIN} to {MTU_MAX}",
            ),
            "peer": Key("peer", Table, 'a table such as { name = "eth0" }', self._peer, True),
        }
        fields = read_table(value, keys, place)
        mtu, peer = fields.pop("mtu", None), fields.pop("peer", None)
        end = self._checked(replace(named, **fields), place)
        if peer is None:
            return None
        ends = (end, peer)
        if mtu is not None and mtu < MTU_MIN_IPV6 and any(_has_ipv6(one) for one in ends):
            place.at("mtu").fault(f"IPv6 needs {MTU_MIN_IPV6} at least; write that, or more")
        return Link(end, peer, mtu)

    def _peer(self, table: Table, place: Place) -> LinkEnd | None:
        keys = _END_KEYS | {
            "netns": Key("netns", _Text, NETNS_HINT, _peer_netns),
            "name": Key("name", _Text, "an interface's name", _interface, required=True),
        }
        fields = {"netns": None} | read_table(table, keys, place)
        return self._checked(LinkEnd(**fields), place) if "name" in fields else None

    def _checked(self, end: LinkEnd, place: Place) -> LinkEnd:
        first = self.interfaces.setdefault((end.netns, end.name), place)
        if first is not place:
            place.fault(
                f"{first.key} ({first}) is {quote(end.name)} in the same namespace; "
                "choose another name"
            )
        self._check_routes(end, place.at("routes"))
        return end

    def _check_routes(self, end: LinkEnd, place: Place) -> None:
        networks = [one.network for one in end.addresses]
        for network, gateway in end.routes:
            first = self.routes.setdefault((end.netns, network), place)
            if first is not place:
                place.fault(
                    f"{first.key} ({first}) leads to {network} from the same namespace; drop one"
                )
            if not any(gateway in one for one in networks) and not gateway.is_link_local:
                place.fault(
                    f"no address of {end.name} is in a network with {gateway}, the gateway to "
                    f"{network}; give it one, or name another gateway"
                )


def check_interface(name: str) -> str:
    """The name of an interface, as it is.

    Raises:
        ValueError: the kernel would refuse it, or it is there already.

    """
    if name == "lo":
        raise ValueError('"lo" is in every namespace, and is up; choose another name')
    fits = name.isprintable() and not _UNFIT.intersection(name) and " " not in name
    if not fits or name in _NEVER or not 0 < len(name.encode()) <= INTERFACE_BYTES_MAX:
        raise ValueError(
            f"{quote(name)} is no name of an interface; write 1 to {INTERFACE_BYTES_MAX} bytes "
            'without blanks, "/", ":" or "%"'
        )
    return name


def _peer_netns(text: str, place: Place) -> str | None:
    """As a `LinkEnd` has it."""
    netns = existing_netns(text, place)
    return None if netns == OWN_PATH else netns


def _interface(name: str, place: Place) -> str:  # noqa: ARG001 -- a Key's
    return check_interface(name)


def _has_ipv6(end: LinkEnd) -> bool:
    networks = [network for network, _ in end.routes]
    return any(one.version == 6 for one in (*end.addresses, *networks))  # noqa: PLR2004 -- IP's


def _addresses(values: list[Any], place: Place) -> tuple[IPInterface, ...]:
    seen: set[IPInterface] = set()

    def parse(value: object, _: Place) -> IPInterface:
        address = _parse_address(convert(value, str, _ADDRESS_HINT))
        if address in seen:
            raise ValueError(f"{address} is there twice; drop one")
        seen.add(address)
        return address

    return parse_each(enumerate(values), place, parse)


def _parse_address(text: str) -> IPInterface:
    """An address with its prefix, which has to be written."""
    try:
        address = ip_interface(text)
    except ValueError:
        address = None
    if address is None or "/" not in text or "%" in text:
        raise ValueError(f"{quote(text)} is not {_ADDRESS_HINT}")
    if address.ip.is_unspecified or address.ip.is_multicast:
        raise ValueError(f"{quote(text)} is an address that no interface can have")
    return address


def _routes(table: Table, place: Place) -> tuple[tuple[IPNetwork, IPAddress], ...]:
    """Destinations and gateways; sorted, because their order means nothing."""
    seen: dict[IPNetwork, Place] = {}

    def parse(text: str, here: Place) -> tuple[IPNetwork, IPAddress]:
        network = _parse_network(text)
        first = seen.setdefault(network, here)
        if first is not here:
            raise ValueError(f"this destination is there already, {first.key} ({first}); drop one")
        gateway = _parse_gateway(convert(table[text], str, _GATEWAY_HINT))
        if gateway.version != network.version:
            raise ValueError(
                f"the gateway {gateway} is of another family; write an IPv{network.version} address"
            )
        return network, gateway

    routes = parse_each(((text, text) for text in table), place, parse)
    return tuple(sorted(routes, key=lambda one: (one[0].version, one[0])))


def _parse_network(text: str) -> IPNetwork:
    try:
        network = ip_network(text, strict=False)
        exact = network.network_address == ip_interface(text).ip
    except ValueError:
        hint = '; for all destinations write "0.0.0.0/0" or "::/0"' if text == "default" else ""
        raise ValueError(f"{quote(text)} is not a network such as 10.0.0.0/8{hint}") from None
    if not exact:
        raise ValueError(f"{quote(text)}: the address has bits beyond the prefix; write {network}")
    return network


def _parse_gateway(text: str) -> IPAddress:
    try:
        gateway = ip_address(text)
    except ValueError:
        gateway = None
    if gateway is None or (isinstance(gateway, IPv6Address) and gateway.scope_id is not None):
        raise ValueError(f"{quote(text)} is not {_GATEWAY_HINT}")
    return gateway


_Text = Annotated[str, Meta(min_length=1)]
_ADDRESS_HINT: Final = 'an address with its prefix, such as "10.0.0.2/24"'
_GATEWAY_HINT: Final = 'a gateway\'s address, such as "10.0.0.1"'
_END_KEYS: Final = {
    "addresses": Key(
        "addresses", list[Any], 'an array of addresses such as ["10.0.0.2/24"]', _addresses
    ),
    "routes": Key(
        "routes", Table, 'a table of "DEST" = "GATEWAY" such as { "::/0" = "fd00::1" }', _routes
    ),
}

"""Routes, destinations, targets and addresses as text; and which route wins.

Theory of operation: people write routes on a command line and in TOML, in one notation.

    DEST    ADDR[/PREFIX][:PORT[-PORT]]    an IPv6 ADDR[/PREFIX] in brackets; :PORT for any address
            udp:DEST                       for UDP; tcp:DEST, the default, is not written back
    TARGET  ENDPOINT[,ENDPOINT...]         redirect to these endpoints, each in its turn
            upstream:NAME                  redirect to the endpoints of that upstream
            pass                           connect where the program asked
            deny[=ERRNO]                   fail with ERRNO, or else with ECONNREFUSED
            ask                            the library's caller decides; in the library only
    ENDPOINT  ADDR:PORT                    or, for TCP, unix:/PATH, or unix:@NAME (abstract)
    LISTEN  [NAME=]ADDR:PORT               :PORT and *:PORT are [::]:PORT, for IPv4 and IPv6

What is parsed is canonical: equal meanings give equal records. An IPv4-mapped IPv6 address means
the IPv4 address, so it becomes one; only a listening socket keeps it, where it chooses the socket's
family. ``format_x``, and ``str()`` of an address, write what ``parse_x`` reads. Names are never
looked up: an answer could change between reading the text and using it.

`match` is the definition of which route wins. It looks at every route; the agent's table
(native/routes.c) gives the same answers quickly and is tested against it.

Limits: `ENDPOINTS_MAX`, `WEIGHT_MAX` and `SCHEDULE_MAX` bound one upstream. A unix socket's path
with a comma can be written in a file's ``endpoints`` alone.
Source: connect(2), ip(7), ipv6(7), unix(7), RFC 4291 (section 2.5.5.2: mapped addresses).
"""

from __future__ import annotations

import errno
import math
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType

from meshfd.errors import RouteSyntaxError
from meshfd.model import (
    PORT_MAX,
    Ask,
    Deny,
    Destination,
    Endpoint,
    EndpointAddress,
    IPAddress,
    IPNetwork,
    ListeningSocket,
    Pass,
    Protocol,
    Redirect,
    Route,
    SocketAddress,
    UnixAddress,
    Upstream,
    Verdict,
    format_host,
    format_ip,
)
from meshfd.records import Record
from meshfd.wording import alternatives, quote, suggest

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ENDPOINTS_MAX = 1024
"""Endpoints of one upstream."""

WEIGHT_MAX = 1000
"""Weight of one endpoint."""

SCHEDULE_MAX = 65536
"""Turns after which an upstream's order of endpoints repeats (native/routes.h)."""

UNIX_NAME_MAX = 107
"""Bytes of a unix socket's path, or of ``@`` and an abstract name: sun_path but a NUL, unix(7)."""

DENY_ERRNOS: Mapping[str, int] = MappingProxyType(
    {
        name: getattr(errno, name)
        for name in (
            "ECONNREFUSED",
            "ENETUNREACH",
            "EHOSTUNREACH",
            "ETIMEDOUT",
            "EACCES",
            "EPERM",
            "EADDRNOTAVAIL",
        )
    }
)
"""Errors that programs expect of a connect() that did not succeed, by name.

All are documented in connect(2), but EHOSTUNREACH, for which it leaves the word to ip(7).
"""

DENY_DEFAULT = Deny(errno.ECONNREFUSED)

NAME_MAX = 60
"""Characters of a name; a listening socket's must fit MFD_NAME_MAX (native/wire.h)."""

_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{NAME_MAX - 1}}}")
_BARE_IPV6 = re.compile(r"[0-9A-Fa-f:./%-]+")
_MAPPED_PREFIX = 96
_NO_UPSTREAMS: Mapping[str, Upstream] = MappingProxyType({})
_TARGETS = "ADDR:PORT[,ADDR:PORT...], unix:/PATH, upstream:NAME, pass or deny[=ERRNO]"
_UNIX = "unix:"
_PARTS = re.compile(
    r"""(?: \[ (?P<inside>[^\[\]]*) \] | (?P<bare>[^\[\]:/]*) )
        (?: / (?P<prefix>[^:]*) )?
        (?: : (?P<ports>[^:]*) )?""",
    re.VERBOSE,
)


def check_name(name: str) -> str:
    """``name``, if a service, an upstream or a listening socket can be called that.

    Raises:
        RouteSyntaxError: it cannot.

    """
    if _NAME.fullmatch(name) is None:
        raise RouteSyntaxError(
            f"{quote(name)} cannot be a name: write 1 to {NAME_MAX} letters, digits, "
            '"_", "." or "-", with a letter, digit or "_" first'
        )
    return name


def parse_address(text: str) -> SocketAddress:
    """Read ``ADDR:PORT`` or ``[IPV6]:PORT``.

    Raises:
        RouteSyntaxError: it is neither.

    """
    return _unmapped(_parse_exact(text))


def parse_endpoint(text: str) -> EndpointAddress:
    """Read an ENDPOINT: as `parse_address`, but the port is not 0; or a unix socket.

    Raises:
        RouteSyntaxError: nothing can be connected to it.

    """
    stripped = text.strip()
    if stripped.startswith(_UNIX):
        return _parse_unix(stripped.removeprefix(_UNIX), text)
    address = parse_address(text)
    if address.port == 0:
        raise RouteSyntaxError(f"{quote(text)}: nothing listens on port 0; write 1 to {PORT_MAX}")
    return address


def parse_destination(text: str) -> Destination:
    """Read a DEST: an address or network and its ports; what is left out means "all".

    Raises:
        RouteSyntaxError: the text is not a DEST, or its address has bits beyond the prefix.

    """
    protocol, plain = _split_protocol(text)
    example = "10.0.0.1:80, 10.0.0.0/8, [2001:db8::/32]:80-90 or :80"
    parts = _split(plain, "a destination", example, whole=text)
    first_port, last_port = 0, PORT_MAX
    if parts.ports is not None:
        first, dash, last = parts.ports.partition("-")
        first_port = _parse_port(first, text)
        last_port = _parse_port(last, text) if dash else first_port
    if first_port > last_port:
        raise RouteSyntaxError(
            f"{quote(text)}: the ports run backwards; write {last_port}-{first_port}"
        )
    return Destination(_parse_network(parts, text), first_port, last_port, protocol)


def format_destination(destination: Destination) -> str:
    """Write a destination so that `parse_destination` reads it."""
    network = destination.network
    first, last = destination.first_port, destination.last_port
    protocol = "" if destination.protocol is Protocol.TCP else f"{destination.protocol.value}:"
    host = protocol + ("" if network is None else _format_network(network))
    if (first, last) == (0, PORT_MAX):
        return f"{host}*" if network is None else host
    return f"{host}:{first}" if first == last else f"{host}:{first}-{last}"


def parse_target(
    text: str, upstreams: Mapping[str, Upstream] = _NO_UPSTREAMS, *, allow_ask: bool = False
) -> Verdict:
    """Read a TARGET; ``upstreams`` are those that ``upstream:NAME`` can mean.

    Endpoints that are written out become an upstream of their own, named by its endpoints.

    Raises:
        RouteSyntaxError: the text is not a TARGET, or names what there is not.

    """
    stripped = text.strip()
    if stripped == "pass":
        return Pass()
    if stripped == "ask":
        if allow_ask:
            return Ask()
        raise RouteSyntaxError(
            f'"ask" needs a program that answers (library only); write {_TARGETS}'
        )
    if stripped == "deny":
        return DENY_DEFAULT
    if stripped.startswith("deny="):
        return _parse_deny(stripped.removeprefix("deny="))
    scheme, colon, name = stripped.partition(":")
    if scheme == "upstream" and colon:
        return Redirect(_find_upstream(name, upstreams))
    if not colon:
        raise RouteSyntaxError(f"{quote(text)} is not a target; write {_TARGETS}")
    addresses = [parse_endpoint(part) for part in text.split(",")]
    endpoints = tuple(Endpoint(address) for address in addresses)
    check_endpoints(endpoints)
    return Redirect(Upstream(",".join(map(str, addresses)), endpoints))


def parse_route(
    text: str, upstreams: Mapping[str, Upstream] = _NO_UPSTREAMS, *, allow_ask: bool = False
) -> Route:
    """Read ``DEST=TARGET``; the arguments are `parse_target`'s.

    Raises:
        RouteSyntaxError: either half is wrong, or one is missing.

    """
    destination, equals, target = text.partition("=")
    if not equals:
        raise RouteSyntaxError(
            f"{quote(text)} is not a route; write DEST=TARGET, such as 10.0.0.1:80=127.0.0.1:8080"
        )
    route = Route(
        parse_destination(destination), parse_target(target, upstreams, allow_ask=allow_ask)
    )
    check_route(route)
    return route


def parse_listen(text: str) -> ListeningSocket:
    """Read ``[NAME=]ADDRESS``; without a name, the address is the name.

    Raises:
        RouteSyntaxError: the name or the address is wrong.

    """
    before, equals, after = text.partition("=")
    address = parse_listen_address(after if equals else text)
    name = check_name(before.strip()) if equals else str(address)
    return ListeningSocket(name, address)


def parse_listen_address(text: str) -> SocketAddress:
    """Read the ADDRESS of a listening socket; a mapped IPv6 address stays IPv6.

    Raises:
        RouteSyntaxError: the text is not one, or leaves the port open.

    """
    host, colon, port = text.strip().partition(":")
    if not colon and host.isdecimal():
        raise RouteSyntaxError(f"{quote(text)}: write :{host} for this port of any address")
    if colon and host in ("", "*") and ":" not in port:
        address = SocketAddress(IPv6Address(0), _parse_port(port, text))
    else:
        address = _parse_exact(text)
    if address.port == 0:
        raise RouteSyntaxError(f"{quote(text)}: write the port that the program binds, not 0")
    return address


def check_endpoints(endpoints: Sequence[Endpoint]) -> None:
    """Refuse what cannot be the endpoints of one upstream.

    Raises:
        RouteSyntaxError: none gets connections, one is there twice, or a limit is passed.

    """
    if not endpoints:
        raise RouteSyntaxError("there is no endpoint; write at least one")
    if len(endpoints) > ENDPOINTS_MAX:
        raise RouteSyntaxError(
            f"{len(endpoints)} endpoints are too many; write at most {ENDPOINTS_MAX}"
        )
    seen: set[EndpointAddress] = set()
    for endpoint in endpoints:
        if endpoint.address in seen:
            raise RouteSyntaxError(
                f"endpoint {endpoint.address} is there twice; write it once "
                "(in a configuration, a weight gives it more connections)"
            )
        seen.add(endpoint.address)
        if not 0 <= endpoint.weight <= WEIGHT_MAX:
            raise RouteSyntaxError(
                f"weight {endpoint.weight} of {endpoint.address} is not from 0 to {WEIGHT_MAX}"
            )
    weights = [endpoint.weight for endpoint in endpoints]
    if not any(weights):
        raise RouteSyntaxError("every weight is 0, so no endpoint gets connections; raise one")
    turns = sum(weights) // math.gcd(*weights)
    if turns > SCHEDULE_MAX:
        raise RouteSyntaxError(
            f"these weights repeat after {turns} turns, at most {SCHEDULE_MAX} can be kept; "
            "write smaller weights, or weights with a common factor"
        )


def check_route(route: Route) -> None:
    """Refuse a target that the destination's protocol cannot reach.

    Raises:
        RouteSyntaxError: UDP is to go to a unix socket.

    """
    if route.destination.protocol is not Protocol.UDP or not isinstance(route.verdict, Redirect):
        return
    if route.verdict.upstream.netns is not None:
        raise RouteSyntaxError(
            f"{quote(format_destination(route.destination))}: UDP cannot go through the network "
            f"namespace of upstream {route.verdict.upstream.name}; only TCP can"
        )
    for endpoint in route.verdict.upstream.endpoints:
        if isinstance(endpoint.address, UnixAddress):
            raise RouteSyntaxError(
                f"{quote(format_destination(route.destination))}: UDP cannot go to a unix socket, "
                f"{quote(str(endpoint.address))}; write ADDR:PORT"
            )


def route_rank(route: Route, index: int) -> tuple[int, int, int]:
    """How specific a route is: of those that match, the one with the lowest rank decides.

    First the longest prefix wins (``any`` counts as /0 in both families), then the smallest number
    of ports, then the route that was given first: ``index`` is its place among all.
    """
    destination = route.destination
    prefix = 0 if destination.network is None else destination.network.prefixlen
    return -prefix, destination.last_port - destination.first_port, index


def match(
    routes: Iterable[Route], address: SocketAddress, protocol: Protocol = Protocol.TCP
) -> Route | None:
    """The route that decides connections to ``address``; None means that they pass."""
    asked = _unmapped(address)
    ranked = [
        (route_rank(route, index), route)
        for index, route in enumerate(routes)
        if route.destination.protocol is protocol and _covers(route.destination, asked)
    ]
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


class _Parts(Record):
    """``HOST[/PREFIX][:PORTS]``, cut but not yet read."""

    host: str
    bracketed: bool
    prefix: str | None
    ports: str | None


def _split_protocol(text: str) -> tuple[Protocol, str]:
    stripped = text.strip()
    for protocol in Protocol:
        prefix = f"{protocol.value}:"
        if stripped.startswith(prefix):
            return protocol, stripped.removeprefix(prefix)
    return Protocol.TCP, stripped


def _split(text: str, what: str, example: str, *, whole: str) -> _Parts:
    """Cut; ``whole`` is what was written, for the fault."""
    found = _PARTS.fullmatch(text.strip())
    if found is None or not text.strip():
        brackets = (
            "an IPv6 address goes in brackets"
            if text.count(":") > 1 and _BARE_IPV6.fullmatch(text.strip())
            else f"this is not {what}"
        )
        raise RouteSyntaxError(f"{quote(whole)}: {brackets}; write {example}")
    inside = found["inside"]
    if inside is None:
        return _Parts(found["bare"], bracketed=False, prefix=found["prefix"], ports=found["ports"])
    host, slash, prefix = inside.partition("/")
    if slash and found["prefix"] is not None:
        raise RouteSyntaxError(f"{quote(whole)}: there are two prefixes; write one")
    return _Parts(
        host, bracketed=True, prefix=prefix if slash else found["prefix"], ports=found["ports"]
    )


def _parse_exact(text: str) -> SocketAddress:
    """As `parse_address`, with mapped addresses left as they are."""
    parts = _split(
        text, "an address and a port", "ADDR:PORT, such as 127.0.0.1:80 or [::1]:80", whole=text
    )
    if parts.prefix is not None:
        raise RouteSyntaxError(f"{quote(text)}: a prefix has no place here; write ADDR:PORT")
    ip = _parse_ip(parts, text)
    if parts.ports is None:
        raise RouteSyntaxError(f"{quote(text)}: the port is missing; write {text.strip()}:PORT")
    return SocketAddress(ip, _parse_port(parts.ports, text))


def _parse_unix(name: str, text: str) -> UnixAddress:
    if not name.isprintable():  # NUL would end it early, a line's end would break the log
        raise RouteSyntaxError(f"{quote(text)}: a unix socket's name is plain text; rename it")
    if name in ("", "/", "@") or name[0] not in "/@":
        raise RouteSyntaxError(
            f"{quote(text)}: write an absolute path, such as unix:/run/app.sock, "
            "or unix:@NAME for an abstract one"
        )
    size = len(name.encode())
    if size > UNIX_NAME_MAX:
        raise RouteSyntaxError(
            f"{quote(text)}: the kernel takes {UNIX_NAME_MAX} bytes of a unix socket's name, "
            f"this has {size}; make it shorter"
        )
    return UnixAddress(name)


def _parse_ip(parts: _Parts, text: str) -> IPAddress:
    if "%" in parts.host:
        raise RouteSyntaxError(
            f"{quote(text)}: scope ids are not supported; write a global or unique local address"
        )
    try:
        return IPv6Address(parts.host) if parts.bracketed else IPv4Address(parts.host)
    except ValueError:
        pass
    if parts.bracketed:
        raise RouteSyntaxError(
            f"{quote(text)}: {quote(parts.host)} is not an IPv6 address; "
            "brackets are for IPv6, such as [::1]:80"
        )
    raise RouteSyntaxError(
        f"{quote(text)}: {quote(parts.host)} is not an IPv4 address; "
        "names are not looked up, write the address, such as 127.0.0.1"
    )


def _parse_port(text: str, whole: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", text) is None or int(text) > PORT_MAX:
        raise RouteSyntaxError(
            f"{quote(whole)}: {quote(text)} is not a port; write a number from 1 to {PORT_MAX}"
        )
    return int(text)


def _parse_network(parts: _Parts, text: str) -> IPNetwork | None:
    if not parts.bracketed and parts.host in ("", "*"):
        if parts.prefix is not None:
            raise RouteSyntaxError(
                f"{quote(text)}: a prefix needs an address; write it, or leave the prefix out"
            )
        return None
    ip = _parse_ip(parts, text)
    prefix = ip.max_prefixlen if parts.prefix is None else _parse_prefix(parts.prefix, ip, text)
    network = _network(ip, prefix)
    if network.network_address != ip:
        raise RouteSyntaxError(
            f"{quote(text)}: the address has bits beyond the prefix; "
            f"write {_format_network(network)} for the network, or leave the prefix out"
        )
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None and prefix >= _MAPPED_PREFIX:
        return _network(ip.ipv4_mapped, prefix - _MAPPED_PREFIX)
    return network


def _parse_prefix(prefix: str, ip: IPAddress, text: str) -> int:
    if re.fullmatch(r"[0-9]{1,3}", prefix) is None or int(prefix) > ip.max_prefixlen:
        raise RouteSyntaxError(
            f"{quote(text)}: {quote(prefix)} is not a prefix of IPv{ip.version}; "
            f"write a number from 0 to {ip.max_prefixlen}"
        )
    return int(prefix)


def _network(ip: IPAddress, prefix: int) -> IPNetwork:
    """The network of ``prefix`` bits that ``ip`` is in."""
    if isinstance(ip, IPv4Address):
        return IPv4Network((ip, prefix), strict=False)
    return IPv6Network((ip, prefix), strict=False)


def _parse_deny(name: str) -> Deny:
    number = DENY_ERRNOS.get(name.upper())
    if number is None:
        raise RouteSyntaxError(
            f"connect() is not expected to fail with {quote(name)}; "
            f"write deny={alternatives(DENY_ERRNOS)}"
        )
    return Deny(number)


def _find_upstream(name: str, upstreams: Mapping[str, Upstream]) -> Upstream:
    try:
        return upstreams[name]
    except KeyError:
        advice = suggest(name, upstreams, none="none is defined, write ADDR:PORT")
        raise RouteSyntaxError(f"there is no upstream {quote(name)}; {advice}") from None


def _unmapped(address: SocketAddress) -> SocketAddress:
    ip = address.ip
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return SocketAddress(ip.ipv4_mapped, address.port)
    return address


def _covers(destination: Destination, address: SocketAddress) -> bool:
    if not destination.first_port <= address.port <= destination.last_port:
        return False
    return destination.network is None or address.ip in destination.network


def _format_network(network: IPNetwork) -> str:
    ip = network.network_address
    if network.prefixlen == network.max_prefixlen:
        return format_host(ip)
    if isinstance(ip, IPv4Address):
        return f"{ip}/{network.prefixlen}"
    return f"[{format_ip(ip)}/{network.prefixlen}]"

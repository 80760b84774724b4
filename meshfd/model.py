"""The words of the configuration as records: what is asked for, never how it is done.

Everything here is frozen, so that a reload can compare an old service with a new one by ``==``.
Nothing here imports trio or the engine. IPv4-mapped IPv6 addresses are kept as IPv4, but for a
`ListeningSocket`, where writing ``[::ffff:127.0.0.1]:80`` asks for an AF_INET6 socket.
"""

from __future__ import annotations

import enum
import signal
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from meshfd.records import Record

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from pathlib import Path

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
IPInterface = IPv4Interface | IPv6Interface

PORT_MAX = 65535


class Protocol(enum.Enum):
    """The transport that a route is about."""

    TCP = "tcp"
    UDP = "udp"


def format_ip(ip: IPAddress) -> str:
    """As ``str()``; mapped addresses the same in every version of Python (3.13 changed them)."""
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return f"::ffff:{ip.ipv4_mapped}"
    return str(ip)


def format_host(ip: IPAddress) -> str:
    """An address where a port may follow: IPv6 in brackets."""
    return str(ip) if isinstance(ip, IPv4Address) else f"[{format_ip(ip)}]"


def is_ipv4(ip: IPAddress) -> bool:
    """Whether it is an address of IPv4, mapped into IPv6 or not."""
    return isinstance(ip, IPv4Address) or ip.ipv4_mapped is not None


class SocketAddress(Record):
    """An IP address and a port in host order; ``str()`` writes what `parse_address` reads."""

    ip: IPAddress
    port: int

    def __str__(self) -> str:
        return f"{format_host(self.ip)}:{self.port}"


class UnixAddress(Record):
    """A stream unix socket: an absolute path, or ``@`` and a name (unix(7), abstract).

    ``str()`` writes what `parse_endpoint` reads.
    """

    name: str

    def __str__(self) -> str:
        return f"unix:{self.name}"


EndpointAddress = SocketAddress | UnixAddress


class Destination(Record):
    """What programs connect to: a network (None: any address of both families) and its ports."""

    network: IPNetwork | None
    first_port: int = 0
    last_port: int = PORT_MAX
    protocol: Protocol = Protocol.TCP


class Balance(enum.Enum):
    """How an upstream spreads connections over its endpoints."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"


class Endpoint(Record):
    """One server of an upstream; a weight of 0 gets no new connections."""

    address: EndpointAddress
    weight: int = 1


class Upstream(Record):
    """A named destination: the addresses programs use, and the endpoints that serve them.

    ``netns`` is the network namespace that its endpoints are reached from; None: the service's.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    addresses: tuple[Destination, ...] = ()
    balance: Balance = Balance.ROUND_ROBIN
    netns: str | None = None


class Pass(Record):
    """The connection goes where the program asked."""


class Deny(Record):
    """connect(2) fails with this errno, one of those that it documents."""

    errno: int


class Redirect(Record):
    """The connection goes to an endpoint of this upstream."""

    upstream: Upstream


class Ask(Record):
    """The program's supervisor decides each call (library only)."""


Verdict = Pass | Deny | Redirect | Ask


class Route(Record):
    """What happens to connections to a destination."""

    destination: Destination
    verdict: Verdict


class ListeningSocket(Record):
    """A TCP listening socket that is opened before its daemon starts and handed to it on bind().

    ``backlog`` is capped by net.core.somaxconn, as in listen(2). Without ``v6only``, ``[::]`` takes
    IPv4 connections, too. ``netns`` is the network namespace that it is in; None: the service's.
    """

    name: str
    address: SocketAddress
    backlog: int = 4096
    v6only: bool = False
    netns: str | None = None


class Restart(enum.Enum):
    """When a service that ended is started again."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Ready(enum.Enum):
    """When a service counts as started."""

    EXEC = "exec"
    LISTEN = "listen"


class Track(enum.Enum):
    """Where meshfd takes a socket up: when it is created, or at its first trapped call."""

    CREATE = "create"
    CONNECT = "connect"


class IoUring(enum.Enum):
    """Whether programs may use io_uring, whose requests no filter sees."""

    REFUSE = "refuse"
    ALLOW = "allow"


class OnExit(enum.Enum):
    """What the end of a service (with no restart to come) means for the others."""

    NOTHING = "nothing"
    STOP_ALL = "stop-all"


class Backoff(Record):
    """Delay before restarts, in seconds: doubles from first to last.

    A run that lasted longer than ``reset_s`` starts again at ``first_s``.
    """

    first_s: float = 0.1
    last_s: float = 30.0
    reset_s: float = 10.0


class Transition(Record):
    """A service without IPv4 of its own: its IPv4 is in this network namespace."""

    ipv4_netns: str


class Service(Record):
    """One service as its configuration describes it.

    ``environment`` is what is added to meshfd's own environment, env_file's content included
    (``environment`` wins). ``log`` is "inherit", "null" or a file's path. Without ``autostart``
    it waits for `meshfd start`, or for a service that depends on it.
    """

    name: str
    command: tuple[str, ...]
    working_dir: Path | None = None
    user: str | None = None
    group: str | None = None
    cgroup: str | None = None
    cgroup_limits: tuple[tuple[str, tuple[str, ...]], ...] = ()
    netns: str | None = None
    transition: Transition | None = None
    rlimits: tuple[tuple[int, int, int], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    depends_on: tuple[str, ...] = ()
    restart: Restart = Restart.NO
    backoff: Backoff = Backoff()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    ready: Ready = Ready.EXEC
    on_exit: OnExit = OnExit.NOTHING
    strict: bool = False
    track: Track = Track.CONNECT
    transparent: bool = False
    io_uring: IoUring = IoUring.REFUSE
    log: str = "inherit"
    listen: tuple[ListeningSocket, ...] = ()
    routes: tuple[Route, ...] = ()
    autostart: bool = True


class LinkEnd(Record):
    """One end of a link: an interface. ``netns`` is as a service's; None: meshfd's own.

    ``routes`` are destinations, each with the gateway that leads there, of the same family.
    """

    netns: str | None
    name: str
    addresses: tuple[IPInterface, ...] = ()
    routes: tuple[tuple[IPNetwork, IPAddress], ...] = ()


class Link(Record):
    """A wire between two interfaces (veth(4)); ``end`` is in the namespace that has the link.

    ``mtu`` is in bytes, of both ends; None: as the kernel has it.
    """

    end: LinkEnd
    peer: LinkEnd
    mtu: int | None = None


class Namespace(Record):
    """A network namespace that meshfd makes; with ``forwarding`` it is a router."""

    name: str
    links: tuple[Link, ...] = ()
    forwarding: bool = False


class Configuration(Record):
    """Everything that `meshfd run` was given, in the order of the files.

    A service's ``routes`` already hold the routes of every upstream's addresses, after its own.
    Where a ``netns`` is the name of one of ``namespaces``, that one is meant; else it is a path.
    """

    services: tuple[Service, ...]
    upstreams: tuple[Upstream, ...] = ()
    namespaces: tuple[Namespace, ...] = ()

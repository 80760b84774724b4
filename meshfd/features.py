"""What a service needs of its filter: derived once, because a filter cannot be changed.

Theory of operation: a seccomp filter is installed with the program and stays for its life, and each
trapped call costs; so only what routes and keys ask for is trapped. `features_of` is the one place
that says what that is. A reload that changes the answer means a new agent (`meshfd.changes`).
"""

from __future__ import annotations

from meshfd.model import IoUring, Protocol, Redirect, Track, UnixAddress
from meshfd.records import Record

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshfd.model import Route, Service


class Features(Record):
    """MFD_SETUP_* of native/wire.h, those that the filter depends on.

    ``create``: sockets are made by the agent. ``udp``: some route is for UDP. ``standins``: some
    endpoint is a unix socket. ``io_uring``: it is allowed. ``elsewhere``: some endpoint is reached
    from another network namespace. ``ipv4``: the service's IPv4 is in another one.
    """

    strict: bool = False
    create: bool = False
    udp: bool = False
    standins: bool = False
    transparent: bool = False
    io_uring: bool = False
    elsewhere: bool = False
    ipv4: bool = False

    def cover(self, other: Features) -> bool:
        """Whether a service with these has all that ``other`` needs of routes."""
        return (
            self.udp >= other.udp
            and self.standins >= other.standins
            and self.elsewhere >= other.elsewhere
        )


def features_of(  # noqa: PLR0913 -- one key each
    routes: Iterable[Route],
    *,
    strict: bool = False,
    track: Track = Track.CONNECT,
    transparent: bool = False,
    io_uring: IoUring = IoUring.REFUSE,
    ipv4: bool = False,
) -> Features:
    """What these routes and keys need; ``ipv4``: the service's IPv4 is elsewhere."""
    udp = standins = elsewhere = False
    for route in routes:
        udp = udp or route.destination.protocol is Protocol.UDP
        if isinstance(route.verdict, Redirect):
            elsewhere = elsewhere or route.verdict.upstream.netns is not None
            endpoints = route.verdict.upstream.endpoints
            standins = standins or any(isinstance(one.address, UnixAddress) for one in endpoints)
    return Features(
        strict=strict,
        create=track is Track.CREATE,
        udp=udp,
        standins=standins,
        transparent=transparent,
        io_uring=io_uring is IoUring.ALLOW,
        elsewhere=elsewhere,
        ipv4=ipv4,
    )


def features_of_service(service: Service) -> Features:
    """What this service needs."""
    return features_of(
        service.routes,
        strict=service.strict,
        track=service.track,
        transparent=service.transparent,
        io_uring=service.io_uring,
        ipv4=service.transition is not None,
    )

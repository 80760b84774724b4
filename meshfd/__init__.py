"""meshfd: redirect the connections of unmodified programs, and hand them their listening sockets.

The library in one call: `meshfd.spawn` runs a program under routes, listening sockets and an async
function of your own that decides its connections.

Names are imported when they are first used: the command `meshfd exec` stands in front of other
programs and has no time for trio.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from meshfd.errors import (
        AgentLostError,
        ListenError,
        MeshfdError,
        NotSupportedError,
        RouteSyntaxError,
        SpawnError,
    )
    from meshfd.events import (
        Call,
        Denied,
        Emptied,
        Event,
        Exited,
        HandedOver,
        Listening,
        Mismatched,
        Notice,
        Redirected,
        Statistics,
        Stopped,
    )
    from meshfd.library import RunningProgram, spawn
    from meshfd.model import (
        Ask,
        Deny,
        Destination,
        Endpoint,
        IoUring,
        ListeningSocket,
        Pass,
        Protocol,
        Redirect,
        Route,
        SocketAddress,
        Track,
        UnixAddress,
        Upstream,
        Verdict,
    )
    from meshfd.routes import parse_address, parse_listen, parse_route, parse_target

_HOMES = {
    "meshfd.errors": (
        "AgentLostError",
        "ListenError",
        "MeshfdError",
        "NotSupportedError",
        "RouteSyntaxError",
        "SpawnError",
    ),
    "meshfd.events": (
        "Call",
        "Denied",
        "Emptied",
        "Event",
        "Exited",
        "HandedOver",
        "Listening",
        "Mismatched",
        "Notice",
        "Redirected",
        "Statistics",
        "Stopped",
    ),
    "meshfd.model": (
        "Ask",
        "Deny",
        "Destination",
        "Endpoint",
        "IoUring",
        "ListeningSocket",
        "Pass",
        "Protocol",
        "Redirect",
        "Route",
        "SocketAddress",
        "Track",
        "UnixAddress",
        "Upstream",
        "Verdict",
    ),
    "meshfd.routes": ("parse_address", "parse_listen", "parse_route", "parse_target"),
    "meshfd.library": ("RunningProgram", "spawn"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AgentLostError",
    "Ask",
    "Call",
    "Denied",
    "Deny",
    "Destination",
    "Emptied",
    "Endpoint",
    "Event",
    "Exited",
    "HandedOver",
    "IoUring",
    "ListenError",
    "Listening",
    "ListeningSocket",
    "MeshfdError",
    "Mismatched",
    "NotSupportedError",
    "Notice",
    "Pass",
    "Protocol",
    "Redirect",
    "Redirected",
    "Route",
    "RouteSyntaxError",
    "RunningProgram",
    "SocketAddress",
    "SpawnError",
    "Statistics",
    "Stopped",
    "Track",
    "UnixAddress",
    "Upstream",
    "Verdict",
    "parse_address",
    "parse_listen",
    "parse_route",
    "parse_target",
    "spawn",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 -- `meshfd exec` has no use for it

    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value

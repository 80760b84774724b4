"""What an agent reports, as records.

The agent sends these over its control channel; `meshfd.engine` decodes them. Reports about
connections are dropped, and counted in the statistics, when nobody reads them fast enough; the end
of a process, readiness and handovers never are.
"""

from __future__ import annotations

import enum
import os

from meshfd.model import EndpointAddress, SocketAddress
from meshfd.records import Record


class Exited(Record):
    """A process that was spawned has ended; ``status`` is as waitpid(2) gives it."""

    pid: int
    status: int

    @property
    def code(self) -> int:
        """The exit code, or minus the signal's number, as in `os.waitstatus_to_exitcode`."""
        return os.waitstatus_to_exitcode(self.status)


class Stopped(Record):
    """A process that was spawned has been stopped by ``signo`` (job control)."""

    pid: int
    signo: int


class Listening(Record):
    """The program called listen(): on listening socket ``index``, or on one of its own (None)."""

    pid: int
    index: int | None
    address: SocketAddress | None


class HandedOver(Record):
    """bind() to ``address`` received listening socket ``index``."""

    pid: int
    index: int
    address: SocketAddress


class Mismatched(Record):
    """bind() to ``address``: listening socket ``index`` has its port, but another address."""

    pid: int
    index: int
    address: SocketAddress


class Redirected(Record):
    """connect() to ``asked`` was made to ``given``.

    ``rule`` is the route's index in the table in force, None when decided in Python; ``errno`` is
    what the program was given (0, or EINPROGRESS while the attempt goes on); ``attempts`` counts
    the endpoints that were tried; ``cost_ns`` is the time from the call's receipt to its answer.
    """

    pid: int
    rule: int | None
    asked: SocketAddress
    given: EndpointAddress
    errno: int
    attempts: int
    cost_ns: int


class Denied(Record):
    """connect() to ``asked`` was answered ``errno``."""

    pid: int
    rule: int | None
    asked: SocketAddress
    errno: int
    cost_ns: int


class Call(Record):
    """connect() to ``asked`` waits for a verdict; ``cookie`` is the socket's SO_COOKIE."""

    call: int
    pid: int
    rule: int | None
    cookie: int
    asked: SocketAddress


class NoticeKind(enum.Enum):
    """Situations worth a line in the log; the value is that line."""

    UNREADABLE = (
        "the program made itself unreadable (non-dumpable): its connections are not routed, and it "
        "is handed no listening socket"
    )
    NO_ENDPOINT = "no endpoint of the route has an address family that the program's socket can use"
    ASK_FULL = "too many calls wait for a verdict: this one was answered by the default"
    ASK_TIMEOUT = "no verdict came in time: the call was answered by the default"
    REARMED = "the program had shut its listening socket down: it was opened again"
    FOREIGN_PID = (
        "a call came from a pid namespace that the agent cannot see into: it was let through"
    )
    HANDOVER = "a listening socket could not be handed over"
    PARKED = "a registration in an epoll instance could not be made when its socket was connected"
    WAITED_FOR = "a thread waits for the socket that was to be replaced: it was not connected"
    STANDIN = "the program's socket could not be replaced"
    SHARED = "another process shares the socket that was replaced: there it stays unconnected"
    FORBIDDEN = (
        "a program of the service has forbidden itself this port (Landlock): the call was left to "
        "the kernel"
    )
    EXHAUSTED = (
        "the agent has no fd or memory left to look into a call with: what it cannot look into is "
        "not routed, and fails in a strict service"
    )
    CLASS = (
        "the agent cannot put a process into the program's cgroup of net_cls or net_prio: sockets "
        "that it looks at lose that class; start meshfd itself in that cgroup"
    )


class Notice(Record):
    """Something that the operator should see; ``errno`` is 0 where none applies."""

    kind: NoticeKind
    pid: int
    errno: int
    index: int | None
    address: SocketAddress | None


class Emptied(Record):
    """The last process of the service is gone."""


Event = (
    Exited
    | Stopped
    | Listening
    | HandedOver
    | Mismatched
    | Redirected
    | Denied
    | Call
    | Notice
    | Emptied
)


class Statistics(Record):
    """Counters of one agent, as `struct mfd_stats` in native/wire.h describes them.

    ``leases``, ``asks``, ``waits``, ``listeners`` and ``parked`` are gauges; the rest only grow.
    Histograms are counts per bucket: bucket b holds times of 2**b to 2**(b+1)-1 nanoseconds.
    """

    calls: int
    sockets: int
    connects: int
    passed: int
    redirected: int
    denied: int
    asked: int
    refused: int
    retried: int
    repinned: int
    binds: int
    handed: int
    mismatched: int
    listens: int
    adopted: int
    vanished: int
    out_of_reach: int
    events_lost: int
    leases: int
    asks: int
    waits: int
    listeners: int
    standins: int
    parked: int
    connect_ns: tuple[int, ...]
    socket_ns: tuple[int, ...]

"""What `meshfd status --json` says: a promise to scripts.

Fields are added, never renamed or given another meaning; a reader passes over those that it does
not know. Times that end in ``_s`` are seconds, in ``_ns`` nanoseconds.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from meshfd.histogram import percentile_ns
from meshfd.logs import format_rfc3339
from meshfd.model import IoUring
from meshfd.redirects import RedirectCount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshfd.runner import Runner
    from meshfd.service import ManagedService


@dataclass(frozen=True, slots=True)
class LastExit:
    """How the main process ended last: ``code``, or the name of the ``signal`` that ended it."""

    code: int | None
    signal: str | None


@dataclass(frozen=True, slots=True)
class ListeningReport:
    """A listening socket, and how often it was handed to a bind() since the agent started."""

    name: str
    address: str
    handed: int


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """Counters since the service's agent started; see `meshfd.events.Statistics`.

    ``leases``, ``asks``, ``waits``, ``parked`` and ``filters`` are what there is now.
    ``connect_p50_ns`` and ``_p99_ns`` are the agent's time from receiving a connect() to answering
    it, from a log2 histogram; None before the first.
    """

    connects: int = 0
    redirected: int = 0
    passed: int = 0
    denied: int = 0
    refused: int = 0
    retried: int = 0
    repinned: int = 0
    handed: int = 0
    mismatched: int = 0
    sockets: int = 0
    events_lost: int = 0
    out_of_reach: int = 0
    leases: int = 0
    asks: int = 0
    waits: int = 0
    filters: int = 0
    standins: int = 0
    parked: int = 0
    connect_p50_ns: float | None = None
    connect_p99_ns: float | None = None
    redirects: tuple[RedirectCount, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """One service.

    ``state`` is stopped, starting, running, stopping, waiting (for its restart) or failed;
    ``since`` is when it came to that, RFC 3339 in UTC, and ``state_s`` how long ago, by the
    monotonic clock. ``pid`` is the main process, None when there is none. ``restarts`` counts those
    that its policy made. ``reason`` says why it does not run, "" when nothing is wrong.
    ``io_uring`` is "refuse", or "allow": then what goes through io_uring goes unseen.
    """

    name: str
    state: str
    since: str
    state_s: float
    ready: bool
    pid: int | None
    restarts: int
    last_exit: LastExit | None
    reason: str
    io_uring: str = IoUring.REFUSE.value
    listening: tuple[ListeningReport, ...] = ()
    connections: ConnectionReport = field(default_factory=ConnectionReport)


def report_status(services: Iterable[ManagedService]) -> dict[str, Any]:
    """The status of `meshfd run` as JSON has it: ``pid`` of meshfd itself, and ``services``."""
    now_s = time.monotonic()
    return {
        "pid": os.getpid(),
        "services": [asdict(report_service(managed, now_s)) for managed in services],
    }


def report_service(managed: ManagedService, now_s: float) -> ServiceReport:
    """One service, at this monotonic time."""
    runner = managed.runner
    code = managed.last_code
    return ServiceReport(
        name=managed.name,
        state=managed.state.value,
        since=format_rfc3339(managed.since[0]),
        state_s=round(now_s - managed.since[1], 3),
        ready=managed.ready,
        pid=runner.pid if runner is not None and runner.running else None,
        restarts=managed.n_restarts,
        last_exit=None if code is None else describe_exit(code),
        reason=managed.reason,
        io_uring=managed.service.io_uring.value,
        listening=tuple(
            ListeningReport(one.name, str(one.address), 0 if runner is None else runner.handed[one])
            for one in (managed.service.listen if runner is None else runner.handed)
        ),
        connections=ConnectionReport() if runner is None else _report_connections(runner),
    )


def describe_exit(code: int) -> LastExit:
    """An exit code, or minus a signal's number, in the words of the report."""
    if code >= 0:
        return LastExit(code, None)
    try:
        return LastExit(None, signal.Signals(-code).name)
    except ValueError:
        return LastExit(None, f"SIG{-code}")


def _report_connections(runner: Runner) -> ConnectionReport:
    counters = runner.statistics()
    return ConnectionReport(
        connects=counters.connects,
        redirected=counters.redirected,
        passed=counters.passed,
        denied=counters.denied,
        refused=counters.refused,
        retried=counters.retried,
        repinned=counters.repinned,
        handed=counters.handed,
        mismatched=counters.mismatched,
        sockets=counters.sockets,
        events_lost=counters.events_lost,
        out_of_reach=counters.out_of_reach,
        leases=counters.leases,
        asks=counters.asks,
        waits=counters.waits,
        filters=counters.listeners,
        standins=counters.standins,
        parked=counters.parked,
        connect_p50_ns=percentile_ns(counters.connect_ns, 50),
        connect_p99_ns=percentile_ns(counters.connect_ns, 99),
        redirects=tuple(runner.redirects()),
    )

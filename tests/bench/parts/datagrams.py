"""Calls that are intercepted in services with routes for UDP, and in transparent ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from tests.bench.metrics import Metric, Pair
from tests.bench.part import Measure, Part, Stage
from tests.bench.programs import serve
from tests.bench.questions import Question, Subject, ask_all
from tests.bench.ways import BARE, bare, floor, redirected, route_to

LOOP: Final = "CONTINUE loop, told"
MESHFD: Final = "meshfd, transparent"

METRICS: Final = (
    Metric("sendto_ns", "sendto with an address, p50", "us", 1e3),
    Metric("sendto_p99_ns", "p99", "us", 1e3),
    Metric("getpeername_ns", "getpeername, p50", "us", 1e3),
    Metric("getpeername_p99_ns", "p99", "us", 1e3),
)
PAIRS: Final = (Pair(LOOP, BARE), Pair(MESHFD, BARE), Pair(MESHFD, LOOP))


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    with serve(stage.directory) as server:
        port = server.port
        ways = {
            BARE: bare(port),
            LOOP: floor(stage, "told", port),
            MESHFD: redirected(port, "--transparent", "--route", f"udp:{route_to(port)}"),
        }
        n = stage.effort(2_000, 100)
        questions = [
            Question(f"{name} {n}", {"p50_ns": f"{name}_ns", "p99_ns": f"{name}_p99_ns"})
            for name in ("sendto", "getpeername")
        ]
        yield ask_all({name: Subject(way.probe(stage), questions) for name, way in ways.items()})


PART: Final = Part("datagrams", "Datagrams and names", METRICS, PAIRS, 9, _open)

"""Calls that meshfd leaves alone, under its filter.

Any filter at all sends a process through a slower entry into the kernel; the smallest filter there
is, one instruction that allows everything, shows how much of the cost that is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from tests.bench.metrics import Metric, Pair
from tests.bench.part import Measure, Part, Stage
from tests.bench.programs import serve
from tests.bench.questions import Question, Subject, ask_all
from tests.bench.ways import BARE, MESHFD, MESHFD_CREATE, bare, floor, redirected

CALLS: Final = {  # probe.c's names, and how many of them are asked for
    "getppid": 200_000,
    "read": 200_000,
    "write": 200_000,
    "epoll_wait": 100_000,
    "accept": 1_000,
    "close": 50_000,
}
QUICK: Final = 200
FILTER: Final = "allow-all filter"


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    with serve(stage.directory) as server:
        ways = {
            BARE: bare(server.port),
            FILTER: floor(stage, "allow", server.port),
            MESHFD: redirected(server.port),
            MESHFD_CREATE: redirected(server.port, "--track", "create"),
        }
        questions = [
            Question(f"calls {name} {stage.effort(n, QUICK)}", {"per_s": f"{name}_per_s"})
            for name, n in CALLS.items()
        ]
        yield ask_all({name: Subject(way.probe(stage), questions) for name, way in ways.items()})


METRICS: Final = tuple(Metric(f"{name}_per_s", name, "k/s", 1e3, is_rate=True) for name in CALLS)
PAIRS: Final = (Pair(FILTER, BARE), Pair(MESHFD, BARE), Pair(MESHFD, FILTER))
PART: Final = Part(
    "untouched", "Calls that are not intercepted", METRICS, PAIRS, 21, _open, ("read_per_s",)
)

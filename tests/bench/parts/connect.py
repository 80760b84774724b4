"""What a connection costs: by itself, under meshfd in every way, and under what others would use.

The subjects that are refused compare among themselves: nothing is connected there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from tests.bench.metrics import Metric, Pair
from tests.bench.part import Measure, Part, Stage
from tests.bench.programs import Question, Subject, ask_all, serve
from tests.bench.ways import (
    BARE,
    LOOP,
    MESHFD,
    Way,
    asked,
    bare,
    floor,
    passed,
    redirected,
    redirected_to_unix,
)
from tests.support.servers import free_port

N_THREADS: Final = (1, 2, 8, 64)
REFUSED: Final = "refused"
SLOW_RATES: Final = {"meshfd, ask": 320}  # how many connects tell a rate, where it takes long

METRICS: Final = (
    Metric("p50_ns", "socket + connect, p50", "us", 1e3),
    Metric("p99_ns", "p99", "us", 1e3),
    Metric("cpu_ns", "CPU each", "us", 1e3),
    *(
        Metric(f"per_s_{n}", f"{n} thread{'s' * (n > 1)}", "k/s", 1e3, is_rate=True)
        for n in N_THREADS
    ),
)

PAIRS: Final = (
    Pair(LOOP, BARE),
    Pair(MESHFD, BARE),
    Pair(MESHFD, LOOP),
    Pair("meshfd, pass", LOOP),
    Pair("meshfd, strict", LOOP),
    Pair("meshfd, create", "CONTINUE loop, create"),
    Pair("meshfd, unix socket", LOOP),
    Pair("meshfd, ask", LOOP),
    Pair("meshfd, deny", "CONTINUE loop, refused"),
)


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    with serve(stage.directory) as server:
        port = server.port
        ways = {
            BARE: bare(port),
            LOOP: floor(stage, "connect", port),
            "CONTINUE loop, create": floor(stage, "create", port),
            MESHFD: redirected(port),
            "meshfd, pass": passed(port),
            "meshfd, strict": passed(port, "--strict"),
            "meshfd, create": redirected(port, "--track", "create"),
            "meshfd, unix socket": redirected_to_unix(server),
            "meshfd, ask": asked(port),
        }
        nobody = free_port()
        refusals = {
            "bare, refused": bare(nobody),
            "CONTINUE loop, refused": floor(stage, "connect", nobody),
            "meshfd, deny": redirected(port, target="deny=ECONNREFUSED"),
        }
        subjects = {name: _subject(stage, name, way) for name, way in ways.items()}
        for name, way in refusals.items():
            subjects[name] = Subject(way.probe(stage), (_times(stage, REFUSED),))
        yield ask_all(subjects)


def _times(stage: Stage, word: str) -> Question:
    n = stage.effort(1_000, 50)
    return Question(f"{word} {n}", {"p50_ns": "p50_ns", "p99_ns": "p99_ns"}, "cpu_ns", n)


def _subject(stage: Stage, name: str, way: Way) -> Subject:
    n = stage.effort(SLOW_RATES.get(name, 2_000), N_THREADS[-1])
    rates = [Question(f"rate {n} {m}", {"per_s": f"per_s_{m}"}) for m in N_THREADS]
    return Subject(way.probe(stage), (_times(stage, "connect"), *rates), way.others)


PART: Final = Part("connect", "A connection", METRICS, PAIRS, 9, _open, ("p50_ns", "per_s_8"))

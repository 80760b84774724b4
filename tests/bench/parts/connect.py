"""What a connection costs: by itself, under meshfd in every way, and under what others would use.

The subjects that are refused compare among themselves: nothing is connected there. With a sidecar
connect() is done as soon as the sidecar's own port has answered, and so are rates: a sidecar that
is reset at once may never have gone to the server. What its connection to the server takes shows
in the first byte that comes back, during which the CPU is measured, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from tests.bench.metrics import Metric, Pair
from tests.bench.part import Measure, Part, Stage
from tests.bench.peers import bpf, proxychains
from tests.bench.peers.bpf import BPF
from tests.bench.peers.nat import DNAT, IPTABLES, REDIRECT, open_ways, probed
from tests.bench.peers.proxychains import PROXYCHAINS
from tests.bench.peers.sidecar import ENVOY, HAPROXY, SIDECARS
from tests.bench.programs import serve
from tests.bench.questions import WARM_UP, Question, Subject, ask_all
from tests.bench.ways import (
    BARE,
    LOOP,
    LOOP_CREATE,
    MESHFD,
    MESHFD_CREATE,
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
SLOW_RATES: Final = {
    "meshfd, ask": 320,
    PROXYCHAINS: 320,
}  # how many connects tell a rate, where it takes long

METRICS: Final = (
    Metric("p50_ns", "socket + connect, p50", "us", 1e3),
    Metric("p99_ns", "p99", "us", 1e3),
    Metric("byte_ns", "to the first byte, p50", "us", 1e3),
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
    Pair(MESHFD_CREATE, LOOP_CREATE),
    Pair("meshfd, unix socket", LOOP),
    Pair("meshfd, ask", LOOP),
    Pair("meshfd, deny", "CONTINUE loop, refused"),
    *(Pair(peer, BARE) for peer in (REDIRECT, DNAT, BPF, PROXYCHAINS, HAPROXY, ENVOY)),
    *(Pair(MESHFD, peer) for peer in (REDIRECT, BPF, PROXYCHAINS)),
)


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve(stage.directory))
        port = server.port
        ways = {
            BARE: bare(port),
            LOOP: floor(stage, "connect", port),
            LOOP_CREATE: floor(stage, "create", port),
            MESHFD: redirected(port),
            "meshfd, pass": passed(port),
            "meshfd, strict": passed(port, "--strict"),
            MESHFD_CREATE: redirected(port, "--track", "create"),
            "meshfd, unix socket": redirected_to_unix(server),
            "meshfd, ask": asked(port),
        }
        with stage.optional(BPF):
            ways[BPF] = stack.enter_context(bpf.redirected(stage, port))
        with stage.optional(PROXYCHAINS):
            ways[PROXYCHAINS] = stack.enter_context(proxychains.redirected(stage, port))
        ways |= stack.enter_context(open_ways(stage, IPTABLES | SIDECARS, probed(stage)))
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
    n = stage.effort(250, 50)
    keys = {"p50_ns": "p50_ns", "p99_ns": "p99_ns"}
    return Question(f"{word} {n}", keys, times=stage.effort(4, 1))


def _first_byte(stage: Stage) -> Question:
    n = stage.effort(250, 50)
    n_all = n + WARM_UP + 1  # one until all is settled
    return Question(f"first-byte {n}", {"p50_ns": "byte_ns"}, n_all, stage.effort(4, 1))


def _subject(stage: Stage, name: str, way: Way) -> Subject:
    n = stage.effort(SLOW_RATES.get(name, 2_000), N_THREADS[-1])
    rates = [Question(f"rate {n} {m}", {"per_s": f"per_s_{m}"}) for m in N_THREADS]
    questions = (_times(stage, "connect"), _first_byte(stage), *rates)
    return Subject(way.probe(stage), questions, way.others)


PART: Final = Part("connect", "A connection", METRICS, PAIRS, 9, _open, ("p50_ns", "byte_ns"))

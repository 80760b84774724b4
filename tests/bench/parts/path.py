"""What a connection carries once it is made: round trips, and one stream.

meshfd is done when connect() returns, so over a redirected connection the program talks to the
server by itself; a sidecar carries every byte over two connections. The CPU is that of the stream,
the client's and the sidecar's, not the server's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from tests.bench.metrics import Metric, Pair
from tests.bench.part import Measure, Part, Stage
from tests.bench.peers.nat import open_ways, probed
from tests.bench.peers.sidecar import SIDECARS
from tests.bench.programs import serve
from tests.bench.questions import Question, Subject, ask_all
from tests.bench.ways import MESHFD, bare, redirected, redirected_to_unix

DIRECT: Final = "direct"
UNIX: Final = "meshfd, unix socket"

METRICS: Final = (
    Metric("p50_ns", "round trip of 64 B, p50", "us", 1e3),
    Metric("p99_ns", "p99", "us", 1e3),
    Metric("mib_per_s", "one stream", "MiB/s", is_rate=True),
    Metric("cpu_ns", "CPU", "us/MiB", 1e3),
)
PAIRS: Final = tuple(Pair(way, DIRECT) for way in (MESHFD, UNIX, *SIDECARS))


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    n, mib = stage.effort(3_000, 50), stage.effort(256, 4)
    questions = (
        Question(f"round-trip {n}", {"p50_ns": "p50_ns", "p99_ns": "p99_ns"}),
        Question(f"stream {mib}", {"per_s": "mib_per_s"}, n_with_cpu=mib),
    )
    with (
        serve(stage.directory) as server,
        open_ways(stage, SIDECARS, probed(stage)) as sidecars,
    ):
        ways = {
            DIRECT: bare(server.port),
            MESHFD: redirected(server.port),
            UNIX: redirected_to_unix(server),
            **sidecars,
        }
        yield ask_all(
            {name: Subject(way.probe(stage), questions, way.others) for name, way in ways.items()}
        )


PART: Final = Part("path", "A connection's data", METRICS, PAIRS, 9, _open, ("p50_ns", "mib_per_s"))

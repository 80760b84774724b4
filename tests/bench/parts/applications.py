"""Real servers under load by their own benchmarks: what of a redirect or a sidecar is left there.

It is the client that is intercepted. Each server runs in our network, and once more in one that
has the rules for the sidecars. A load whose server or client is not installed is left out by name.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Final

from tests.bench.loads.load import Ask, Load
from tests.bench.loads.pgbench import PGBENCH
from tests.bench.loads.redis_benchmark import REDIS
from tests.bench.loads.wrk import WRK
from tests.bench.metrics import Metric, Pair, Round
from tests.bench.part import Measure, Part, Stage, shuffled
from tests.bench.parts.path import DIRECT
from tests.bench.peers.nat import open_ways
from tests.bench.peers.place import HERE
from tests.bench.peers.sidecar import SIDECARS
from tests.bench.ways import MESHFD, Way, bare, redirected

LOADS: Final = (WRK, REDIS, PGBENCH)
METRICS: Final[tuple[Metric, ...]] = tuple(one for load in LOADS for one in load.metrics)
PAIRS: Final = tuple(Pair(way, DIRECT) for way in (MESHFD, *SIDECARS))


@contextlib.contextmanager
def _open_ways(stage: Stage, load: Load) -> Iterator[Mapping[str, Way]]:
    serve = functools.partial(load.serve, stage)
    with serve(HERE) as port, open_ways(stage, SIDECARS, serve) as sidecars:
        yield {DIRECT: bare(port), MESHFD: redirected(port), **sidecars}


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    asked: list[tuple[Ask, Mapping[str, Way]]] = []

    def measure(number: int) -> Round:
        samples: dict[str, dict[str, float]] = {
            name: {} for name in (DIRECT, MESHFD, *SIDECARS) if name not in stage.missing
        }
        for index, (ask, ways) in enumerate(asked):
            for name in shuffled(list(ways), number, index):
                samples[name].update(ask(stage, ways[name]))
        return samples

    with contextlib.ExitStack() as stack:
        for load in LOADS:
            with stage.optional(load.name):
                ways = stack.enter_context(_open_ways(stage, load))
                asked += [(ask, ways) for ask in load.asks]
        yield measure


PART: Final = Part(
    "applications", "Real servers and clients", METRICS, PAIRS, 5, _open, ("wrk_per_s",)
)

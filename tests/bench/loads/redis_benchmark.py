"""redis-benchmark on redis-server: GET, over connections that stay."""

from __future__ import annotations

import csv
from typing import Final

from tests.bench.loads.load import Load, serving
from tests.bench.metrics import Metric, Sample
from tests.bench.part import Stage
from tests.bench.peers.need import tool
from tests.bench.programs import run
from tests.bench.ways import Way
from tests.support.daemons import redis

N_CONNECTIONS: Final = 16
FULL: Final = 40_000  # requests
QUICK: Final = 1_000


def read_report(text: str) -> Sample:
    """Read its CSV, which has one line and its heading."""
    (line,) = csv.DictReader(text.splitlines())
    return {"redis_per_s": float(line["rps"]), "redis_p99_ms": float(line["p99_latency_ms"])}


def _ask(stage: Stage, way: Way) -> Sample:
    command = [tool("redis-benchmark", "redis-tools"), "-h", way.address, "-p", str(way.port)]
    command += ["-t", "get", "-c", str(N_CONNECTIONS), "-n", str(stage.effort(FULL, QUICK))]
    return read_report(run([*way.prefix, *command, "--csv"]))


REDIS: Final = Load(
    "redis-benchmark",
    serving(redis, {"redis-benchmark": "redis-tools", "redis-server": "redis-server"}),
    (_ask,),
    (
        Metric("redis_per_s", "redis GET", "k/s", 1e3, is_rate=True),
        Metric("redis_p99_ms", "redis GET, p99", "us", 1e-3),
    ),
)

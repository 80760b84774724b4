"""wrk on nginx: a few bytes of answer, over connections that stay, and over one for each request.

wrk ends after whole seconds; an interrupt makes it say before what it has until then.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from tests.bench.errors import BenchError
from tests.bench.loads.load import Load, serving
from tests.bench.metrics import Metric, Sample
from tests.bench.part import Stage
from tests.bench.peers.need import tool
from tests.bench.programs import run
from tests.bench.ways import Way
from tests.support.daemons import nginx

N_CONNECTIONS: Final = 16
FULL_MS: Final = 1_000
QUICK_MS: Final = 300
LIMIT_S: Final = 5  # when it ends by itself
CLOSE: Final = ("-H", "Connection: close")

_RATE: Final = re.compile(r"^Requests/sec: +([\d.]+)$", re.MULTILINE)
_P99: Final = re.compile(r"^ +99% +([\d.]+)(us|ms|s)$", re.MULTILINE)
_FAULTS: Final = re.compile(r"^ +(Socket errors: .*|Non-2xx .*)$", re.MULTILINE)
_US: Final = {"us": 1.0, "ms": 1e3, "s": 1e6}


def read_report(text: str, key: str) -> Sample:
    """Read what wrk says, under names that begin with ``key``.

    Raises:
        BenchError: a request failed.

    """
    rate, p99, faults = _RATE.search(text), _P99.search(text), _FAULTS.search(text)
    if rate is None or p99 is None or faults is not None:
        raise BenchError(f"wrk: {text}")
    return {f"{key}_per_s": float(rate[1]), f"{key}_p99_us": float(p99[1]) * _US[p99[2]]}


def _ask(key: str, options: tuple[str, ...], stage: Stage, way: Way) -> Sample:
    seconds = stage.effort(FULL_MS, QUICK_MS) / 1e3
    interrupt = ["timeout", "--foreground", "--preserve-status", "--signal=INT", f"{seconds}"]
    wrk = [tool("wrk", "wrk"), "-t1", f"-c{N_CONNECTIONS}", f"-d{LIMIT_S}s", "--latency"]
    url = f"http://{way.address}:{way.port}/"
    return read_report(run([*way.prefix, *interrupt, *wrk, *options, url]), key)


def _metrics(key: str, label: str) -> tuple[Metric, Metric]:
    rate = Metric(f"{key}_per_s", label, "k/s", 1e3, is_rate=True)
    return rate, Metric(f"{key}_p99_us", f"{label}, p99", "us")


WRK: Final = Load(
    "wrk",
    serving(nginx, {"wrk": "wrk", "nginx": "nginx-light"}),
    (
        functools.partial(_ask, "wrk", ()),
        functools.partial(_ask, "wrk_close", CLOSE),
    ),
    (*_metrics("wrk", "wrk"), *_metrics("wrk_close", "wrk, close")),
)

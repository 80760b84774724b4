"""Real servers' own benchmarks run to the end, what they say is understood, and nothing is left."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.bench.errors import BenchError
from tests.bench.loads import pgbench, redis_benchmark, wrk
from tests.bench.loads.load import Load
from tests.bench.part import Stage
from tests.bench.parts.applications import LOADS
from tests.bench.peers.place import HERE
from tests.bench.ways import redirected
from tests.support.command import Meshfd
from tests.support.need import require_tool
from tests.support.ordinary_user import open_to_all
from tests.support.postgres import tool
from tests.support.processes import descendants_of, held_fds

TOOLS = {
    "wrk": ("wrk", "nginx"),
    "redis-benchmark": ("redis-benchmark", "redis-server"),
    "pgbench": (),
}

WRK_REPORT = """\
Running 1s test @ http://127.0.0.1:8080/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   328.18us  694.47us   6.16ms   89.51%
    Req/Sec   117.34k    15.11k  133.25k    72.73%
  Latency Distribution
     50%   68.00us
     75%  157.00us
     90%    1.09ms
     99%    3.46ms
  128165 requests in 1.10s, 18.82MB read
Requests/sec: 116550.08
Transfer/sec:     17.12MB
"""
REDIS_REPORT = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms",\
"p99_latency_ms","max_latency_ms"
"GET","85178.88","0.104","0.032","0.103","0.151","0.231","3.239"
"""
PGBENCH_REPORT = """\
pgbench (15.14)
number of transactions actually processed: 100/100
number of failed transactions: 0 (0.000%)
latency average = 0.5 ms
initial connection time = 5.1 ms
tps = 7812.500000 (without initial connection time)
"""


@pytest.mark.parametrize("unit", ["us", "ms", "s"])
def test_wrk_report(unit: str) -> None:
    """The rate, and a latency in whichever unit."""
    us = {"us": 3.46, "ms": 3460.0, "s": 3460000.0}[unit]
    found = wrk.read_report(WRK_REPORT.replace("3.46ms", f"3.46{unit}"), "k")
    assert found == {"k_per_s": 116550.08, "k_p99_us": pytest.approx(us)}


@pytest.mark.parametrize(
    "fault",
    [
        "  Socket errors: connect 1, read 0, write 0, timeout 0\n",
        "  Non-2xx or 3xx responses: 5\n",
    ],
)
def test_wrk_faults(fault: str) -> None:
    """Requests that failed have no rate."""
    with pytest.raises(BenchError, match=re.escape(fault.strip())):
        wrk.read_report(WRK_REPORT.replace("Requests/sec", f"{fault}Requests/sec"), "k")


def test_redis_report() -> None:
    """The rate and the latency, by the names of their columns."""
    found = redis_benchmark.read_report(REDIS_REPORT)
    assert found == {"redis_per_s": 85178.88, "redis_p99_ms": 0.231}


def test_pgbench_report() -> None:
    """The rate; transactions that failed have none."""
    assert pgbench.read_report(PGBENCH_REPORT) == 7812.5
    with pytest.raises(BenchError, match="failed transactions: 1 "):
        pgbench.read_report(PGBENCH_REPORT.replace("transactions: 0 (", "transactions: 1 ("))


def test_pgbench_log() -> None:
    """The time that 99 of 100 transactions take at most, by the third field, in any order."""
    lines = [f"0 {n} {101 - n} 0 1700000000 {n}\n" for n in range(1, 101)]
    assert pgbench.read_p99_us("".join(lines)) == 99


def test_pgbench_log_with_connections() -> None:
    """The time between the ends of a client's transactions, also across seconds."""
    ends = [(0, 1700000000, 999_000), (1, 1700000000, 999_500), (0, 1700000001, 2_000)]
    lines = [f"{client} 1 7 0 {s} {us}\n" for client, s, us in ends]
    assert pgbench.read_connecting_p99_us("".join(lines)) == 3_000
    ends_us = [sum(range(n)) for n in range(102)]  # 0 to 100 apart
    lines = [f"0 1 7 0 1700000000 {us}\n" for us in ends_us]
    assert pgbench.read_connecting_p99_us("".join(lines)) == 99


def test_missing_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A load without its client is left out, and the package named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    stage = Stage(tmp_path, is_quick=True)
    for load in (wrk.WRK, redis_benchmark.REDIS):
        with stage.optional(load.name), load.serve(stage, HERE):
            pytest.fail("it was to be missing")
    assert stage.missing == {
        "wrk": "wrk is not installed (Debian: wrk)",
        "redis-benchmark": "redis-benchmark is not installed (Debian: redis-tools)",
    }


def test_data_that_cannot_be_made(tmp_path: Path) -> None:
    """A cluster that initdb refuses to make is an error with its words."""
    tool("initdb")
    (tmp_path / "cluster").write_text("no directory")
    open_to_all(tmp_path)
    with pytest.raises(BenchError, match=r"^initdb: .*cluster"):
        pgbench._make_data(tmp_path)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_load(load: Load, meshfd: Meshfd, tmp_path: Path) -> None:
    """Redirected, the benchmark gives all figures; then no process, fd or file is left."""
    meshfd.need()
    for one in TOOLS[load.name]:
        require_tool(one)
    if load is pgbench.PGBENCH:
        tool("postgres")
    before = descendants_of(os.getpid()), held_fds(os.getpid())
    stage = Stage(tmp_path, is_quick=True)
    figures: dict[str, float] = {}
    with load.serve(stage, HERE) as port:
        for ask in load.asks:
            figures |= ask(stage, redirected(port))
    assert set(figures) == {metric.key for metric in load.metrics}
    assert min(figures.values()) > 0
    assert (descendants_of(os.getpid()), held_fds(os.getpid())) == before
    assert list(tmp_path.iterdir()) == []

"""pgbench on PostgreSQL: a SELECT each transaction, over connections that stay, and one for each.

Theory of operation: the server stores nothing durably and is reached by TCP alone. PostgreSQL
refuses to be root: it is "nobody" then, for whose sake everybody may enter the benchmark's
directory. What 99 of 100 transactions take at most is read from the log that pgbench keeps of all.
The times there are without connecting; where that belongs to each, what counts is the time from the
end of a client's transaction to the end of its next. pgbench waits for each connection before it
looks at another client, so that time has the others' connections in it, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.errors import BenchError
from tests.bench.loads.load import Load
from tests.bench.metrics import Metric, Sample
from tests.bench.part import Stage
from tests.bench.peers.daemon import running
from tests.bench.peers.need import skips_as_missing
from tests.bench.peers.place import Place
from tests.bench.programs import SERVER_ADDRESS, run
from tests.bench.tether import tethered
from tests.bench.ways import Way
from tests.support.ordinary_user import NOBODY, as_nobody, open_to_all
from tests.support.postgres import USER, make_data, tool

OPTIONS: Final = {
    "listen_addresses": SERVER_ADDRESS,
    "unix_socket_directories": "",
    "fsync": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",  # all of the data
}
LOAD: Final = ("-n", "-S", "-c", "4", "-j", "1")
FULL: Final = ("-T", "1")  # seconds
QUICK: Final = ("-t", "25")  # transactions of each client

_TPS: Final = re.compile(r"^tps = ([\d.]+) ", re.MULTILINE)
_CLIENT, _TIME_US, _END_S, _END_US = 0, 2, 4, 5  # the fields of a line. Source: pgbench(1)
US_PER_S: Final = 1_000_000


def read_report(text: str) -> float:
    """Read the transactions a second.

    Raises:
        BenchError: a transaction failed.

    """
    tps = _TPS.search(text)
    if tps is None or "number of failed transactions: 0 " not in text:
        raise BenchError(f"pgbench: {text}")
    return float(tps[1])


def read_p99_us(log: str) -> float:
    """Read what 99 of 100 transactions took at most, without connecting."""
    return _p99(int(line.split()[_TIME_US]) for line in log.splitlines())


def read_connecting_p99_us(log: str) -> float:
    """Read the same, from the end of each client's last transaction to the end of the next."""
    ends_us: dict[str, list[int]] = {}
    for fields in map(str.split, log.splitlines()):
        end_us = int(fields[_END_S]) * US_PER_S + int(fields[_END_US])
        ends_us.setdefault(fields[_CLIENT], []).append(end_us)
    return _p99(next_us - us for ends in ends_us.values() for us, next_us in pairwise(ends))


def _p99(values: Iterable[int]) -> float:
    ascending = sorted(values)
    return float(ascending[(len(ascending) - 1) * 99 // 100])


def _pgbench(address: str, port: int, *words: str) -> list[str]:
    return [tool("pgbench"), "-h", address, "-p", str(port), "-U", USER, *words, "postgres"]


def _run(stage: Stage, way: Way, *options: str) -> tuple[float, str]:
    """Run it: the transactions a second, and the log."""
    effort = QUICK if stage.is_quick else FULL
    with TemporaryDirectory(dir=stage.directory) as name:
        words = [*LOAD, *effort, *options, "--log", f"--log-prefix={name}/log"]
        text = run([*way.prefix, *_pgbench(way.address, way.port, *words)])
        (log,) = Path(name).iterdir()  # one for each thread
        return read_report(text), log.read_text()


def _ask(stage: Stage, way: Way) -> Sample:
    rate, log = _run(stage, way)
    return {"pgbench_per_s": rate, "pgbench_p99_us": read_p99_us(log)}


def _ask_connecting(stage: Stage, way: Way) -> Sample:
    rate, log = _run(stage, way, "-C")
    return {"pgbench_c_per_s": rate, "pgbench_c_p99_us": read_connecting_p99_us(log)}


def _make_data(directory: Path) -> Path:
    try:
        return make_data(directory)
    except AssertionError as why:
        raise BenchError(f"initdb: {why}") from why


@contextlib.contextmanager
def _serve(stage: Stage, place: Place) -> Iterator[int]:
    with skips_as_missing():
        for name in ("initdb", "postgres", "pg_isready", "pgbench"):
            tool(name)
    port = place.free_port()
    with TemporaryDirectory(dir=open_to_all(stage.directory)) as name:
        if os.geteuid() == 0:
            shutil.chown(name, NOBODY, NOBODY)
        data = _make_data(Path(name))
        command = [tool("postgres"), "-D", str(data), "-p", str(port)]
        command += [f"--{key}={value}" for key, value in OPTIONS.items()]
        ready = [*place.prefix, tool("pg_isready"), "-q", "-h", SERVER_ADDRESS, "-p", str(port)]

        def is_ready() -> bool:
            return subprocess.run(ready, check=False).returncode == 0

        command = [*place.prefix, *as_nobody(tethered(command, signal.SIGINT))]
        with running(command, Path(name, "said"), is_ready, signal.SIGINT):  # it waits for nobody
            run([*place.prefix, *_pgbench(SERVER_ADDRESS, port, "-i", "-q")])
            yield port


PGBENCH: Final = Load(
    "pgbench",
    _serve,
    (_ask, _ask_connecting),
    (
        Metric("pgbench_per_s", "pgbench -S", "k/s", 1e3, is_rate=True),
        Metric("pgbench_p99_us", "pgbench -S, p99", "us"),
        Metric("pgbench_c_per_s", "pgbench -S -C", "1/s", is_rate=True),
        Metric("pgbench_c_p99_us", "pgbench -S -C, p99", "ms", 1e3),
    ),
)

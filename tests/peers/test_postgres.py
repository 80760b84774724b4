"""PostgreSQL under meshfd, with its listening socket handed to it, and psql and pgbench as well."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.support.clients import Clients
from tests.support.command import VIRTUAL, Way
from tests.support.postgres import Cluster, tool
from tests.support.processes import Finished
from tests.support.servers import free_port
from tests.support.services import HOST, Services
from tests.support.waiting import wait_until

SQL: Final = """\
\\conninfo
select ssl, version from pg_stat_ssl where pid = pg_backend_pid();
create temporary table t (n int);
\\copy t from stdin
1
41
\\.
select sum(n) from t;
select n, repeat('x', 100) from generate_series(1, 20000) n;
\\connect -
select 1 / 0;
select 'not reached';
"""
WHERE: Final = "select inet_server_addr(), inet_server_port()"  # the server's own view
STOPPED_BY_ERROR: Final = 3  # psql(1), with ON_ERROR_STOP

N_TRANSACTIONS: Final = 10  # of each of pgbench's clients
N_CLIENTS: Final = 8
LOAD: Final = ["-n", "-c", str(N_CLIENTS), "-j", "2", "-t", str(N_TRANSACTIONS)]
ALL_PROCESSED: Final = (
    "number of transactions actually processed: "
    f"{N_CLIENTS * N_TRANSACTIONS}/{N_CLIENTS * N_TRANSACTIONS}"
)


@dataclass(frozen=True, slots=True)
class Served:
    """The cluster, which is served at ``port``."""

    cluster: Cluster
    port: int

    def client(self, way: Way, name: str, *words: str) -> list[str]:
        """Return a command of psql or pgbench."""
        return [tool(name), *words, self.cluster.place(way)]


@pytest.fixture(scope="module")
def served(cluster: Cluster, services: Services) -> Iterator[Served]:
    """Return the cluster, served under meshfd."""
    port = free_port()
    with services.serving(cluster.command(port), port, toml=cluster.toml):
        wait_until(lambda: "ready to accept" in services.log(), "the server's readiness")
        yield Served(cluster, port)


def test_psql(served: Served, clients: Clients) -> None:
    """A script's output, errors and exit status are those of a bare run, over verified TLS."""

    def client(way: Way, *words: str) -> list[str]:
        return served.client(way, "psql", "-X", "-A", "-t", *words)

    done = clients.compare(
        lambda way: client(way, "-v", "ON_ERROR_STOP=1", "-f", "-"),
        served.port,
        seen=lambda done: done,
        text=SQL,
    )
    assert done.code == STOPPED_BY_ERROR, done.err
    assert done.lines[0].startswith("You are connected to database")
    assert f'"{VIRTUAL}"' in done.lines[0]
    assert "division by zero" in done.err
    where = clients.compare(lambda way: client(way, "-c", WHERE), served.port)
    assert where.lines == [f"{HOST}|{served.port}"]


def test_cancel(served: Served, clients: Clients, services: Services) -> None:
    """Ctrl-C in psql ends the query: its signal handler makes a connection that is routed, too."""
    client = clients.start_routed(
        lambda way: served.client(way, "psql", "-X", "-c", "select pg_sleep(600)"), served.port
    )
    wait_until(lambda: "statement: select pg_sleep" in services.log(), "the query")
    client.signal(signal.SIGINT)
    done = client.finish()
    assert (done.code, done.out) == (1, ""), done.err
    assert done.err.splitlines() == [
        "Cancel request sent",
        "ERROR:  canceling statement due to user request",
    ]


def counted(done: Finished) -> tuple[int, list[str]]:
    """Return pgbench's exit status, and what it counted, without what it measured."""
    facts = ("transaction type", "number of", "query mode")
    return done.code, [line for line in done.lines if line.startswith(facts)]


def test_pgbench(served: Served, clients: Clients) -> None:
    """Eight clients of two threads are served, with a connection each, and with one each time."""

    def client(way: Way, *words: str) -> list[str]:
        return served.client(way, "pgbench", *words)

    made = clients.routed(lambda way: client(way, "-i", "-q"), served.port)
    assert made.code == 0, made.err

    def check(*how: str) -> None:
        done = clients.compare(lambda way: client(way, *LOAD, *how), served.port, seen=counted)
        assert done.code == 0, done.err
        assert ALL_PROCESSED in done.lines

    check()
    check("-C", "-S")

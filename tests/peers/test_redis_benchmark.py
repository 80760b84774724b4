"""redis-benchmark, many clients with requests in a pipeline, through a route to redis-server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.builds import Builds
from tests.support.clients import Clients
from tests.support.command import Way
from tests.support.daemons import redis
from tests.support.need import require_tool
from tests.support.processes import Finished, Processes
from tests.support.servers import free_port
from tests.support.services import HOST, Services

N_CLIENTS = 50
N_REQUESTS = 400  # of each kind

# What is measured, and how: with requests in a pipeline, by threads, with a connection each time.
PIPELINED = ("-t", "set,get,lpush,mset", "-P", "16")
BY_THREADS = ("-t", "set,get", "-P", "4", "--threads", "2")
CONNECTING = ("-t", "ping_inline,get", "-k", "0")
KINDS = {"pipelined": PIPELINED, "threads": BY_THREADS, "connecting": CONNECTING}


def measured(done: Finished) -> tuple[int, list[str]]:
    """Return the exit status, and the names of what was measured, without the figures."""
    return done.code, [line.partition(",")[0] for line in done.lines]


@pytest.fixture(scope="module")
def port(services: Services, builds: Builds) -> Iterator[int]:
    """Return the port of redis-server under meshfd."""
    found = free_port()
    with services.serving(redis(found, services.directory, builds).command, found):
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_redis_benchmark(kind: str, port: int, clients: Clients, processes: Processes) -> None:
    """The server has carried out each request once, for as many clients as it does bare."""
    cli = [require_tool("redis-cli"), "-h", HOST, "-p", str(port)]

    def client(way: Way) -> list[str]:
        words = [require_tool("redis-benchmark"), "--csv", "-h", way.host, "-p", str(way.port)]
        return [*words, "-n", str(N_REQUESTS), "-c", str(N_CLIENTS), *KINDS[kind]]

    def counted(done: Finished) -> tuple[dict[str, int], int]:
        assert done.code == 0, done
        stats = processes.run([*cli, "info", "everything"]).out
        assert processes.run([*cli, "config", "resetstat"]).lines == ["OK"]
        calls = re.findall(r"^cmdstat_(ping|get|set|lpush|mset):calls=(\d+)", stats, re.MULTILINE)
        connections = re.search(r"^total_connections_received:(\d+)", stats, re.MULTILINE)
        assert connections is not None, stats
        return {name: int(number) for name, number in calls}, int(connections[1])

    assert processes.run([*cli, "config", "resetstat"]).lines == ["OK"]
    bare = clients.bare(client, port)
    bare_calls, bare_connections = counted(bare)
    routed = clients.routed(client, port)
    calls, connections = counted(routed)
    assert measured(routed) == measured(bare)
    assert calls == bare_calls
    assert set(calls.values()) == {N_REQUESTS}
    assert connections == bare_connections

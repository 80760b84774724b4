"""Sockets that are to belong to another cgroup or network namespace; needs root.

In a namespace of its own, with a route through the server's, each connect() puts another socket in
the place of the program's. With transition, sockets of AF_INET are made in a third namespace. A
program in a cgroup below the agent's makes its sockets itself; those for another namespace are made
by a child of the agent's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from tests.bench.metrics import Metric, Pair
from tests.bench.part import Measure, Part, Stage
from tests.bench.peers.need import skips_as_missing
from tests.bench.programs import serve
from tests.bench.questions import Question, Subject, ask_all
from tests.bench.ways import (
    LOOP_CREATE,
    MESHFD,
    MESHFD_CREATE,
    Way,
    floor,
    redirected,
    route_to,
    run_by,
)
from tests.support.cgroups import Place, new_place

OWN: Final = "create, own cgroup"
NESTED: Final = "create, nested cgroup"
ELSEWHERE: Final = "server elsewhere"
IPV4: Final = "transition"
IPV4_NESTED: Final = "transition, nested cgroup"

METRICS: Final = (
    Metric("socket_ns", "socket, p50", "us", 1e3),
    Metric("connect_ns", "socket + connect, p50", "us", 1e3),
    Metric("connect_p99_ns", "p99", "us", 1e3),
)
PAIRS: Final = (
    Pair(MESHFD_CREATE, LOOP_CREATE),
    Pair(OWN, MESHFD_CREATE),
    Pair(NESTED, MESHFD_CREATE),
    Pair(ELSEWHERE, MESHFD),
    Pair(IPV4, MESHFD_CREATE),
    Pair(IPV4_NESTED, IPV4),
)


def _elsewhere(port: int, kind: str) -> Way:
    return run_by("elsewhere", port, kind, route_to(port), "--")


def _in_cgroup(way: Way, place: Place, name: str, *, nested: bool = False) -> Way:
    """Put what runs the program into a cgroup of its own, and the program into one below."""
    own = place.below(name)
    inner: Sequence[str] = own.below("inner").prefix if nested else ()
    return replace(way, prefix=[*own.prefix, *way.prefix, *inner])


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serve(stage.directory)).port
        create = redirected(port, "--track", "create")
        ways = {
            LOOP_CREATE: floor(stage, "create", port),
            MESHFD: redirected(port),
            MESHFD_CREATE: create,
        }
        with stage.optional("other cgroups"):
            with skips_as_missing():
                place = stack.enter_context(new_place())
            ways[OWN] = _in_cgroup(create, place, "own")
            ways[NESTED] = _in_cgroup(create, place, "nested", nested=True)
            ipv4 = _elsewhere(port, "ipv4")
            ways[IPV4_NESTED] = _in_cgroup(ipv4, place, "ipv4", nested=True)
        if os.geteuid() == 0:
            ways[ELSEWHERE] = _elsewhere(port, "elsewhere")
            ways[IPV4] = _elsewhere(port, "ipv4")
        else:
            stage.missing["other network namespaces"] = "needs root"
        n = stage.effort(500, 50)
        questions = (
            Question(f"socket {n}", {"p50_ns": "socket_ns"}),
            Question(f"connect {n}", {"p50_ns": "connect_ns", "p99_ns": "connect_p99_ns"}),
        )
        yield ask_all({name: Subject(way.probe(stage), questions) for name, way in ways.items()})


PART: Final = Part("belonging", "Sockets that belong elsewhere", METRICS, PAIRS, 5, _open)

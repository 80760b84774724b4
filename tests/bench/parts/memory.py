"""How much memory agents and a supervisor have resident.

An agent's sockets are connected and stay open. What each of them takes is the agent's growth since
it had none, by their number; a transparent agent does not remember more than a table has room for,
and that table is spread over its pages by a hash, so that few sockets make all of it resident.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from tests.bench.errors import BenchError
from tests.bench.metrics import Metric, Pair, Sample
from tests.bench.part import Measure, Part, Stage, each_in_turn
from tests.bench.peers.need import need_fds
from tests.bench.programs import Probe, serve
from tests.bench.services import FDS_OF_EACH, run_services
from tests.bench.ways import MESHFD, Way, redirected, services
from tests.support.processes import agents_of, resident_kib

KIB: Final = 1024
REMEMBERED_MAX: Final = 8_192  # MFD_NAMES_MAX in native/meshfd.h
SOCKETS: Final = (0, 1_000, 10_000)
SERVICES: Final = (1, 50, 200)
TRACKS: Final = {
    "connect": (),
    "create": ("--track", "create"),
    "transparent": ("--transparent", "--route", "udp::9=127.0.0.1:9"),
}

METRICS: Final = (
    Metric("agent", "an agent", "KiB", KIB),
    Metric("each_socket", "each socket", "bytes"),
    Metric("supervisor", "the supervisor", "KiB", KIB),
)


def sockets(track: str, n: int) -> str:
    """Name the subject with so many sockets."""
    return f"{MESHFD}, {track}, {n:,} sockets"


PAIRS: Final = (
    *(Pair(sockets(track, SOCKETS[-1]), sockets(track, 0)) for track in TRACKS),
    *(Pair(services(n), services(1)) for n in SERVICES[1:]),
)


def _agent_of(probe: Probe) -> int:
    for pid in probe.pids():
        for agent in agents_of(pid):
            return agent
    raise BenchError("there is no agent")


def _measure_sockets(stage: Stage, way: Way, n: int) -> Sample:
    with Probe(way.probe(stage)) as probe:
        probe.ask("connect 1")
        agent = _agent_of(probe)
        before = resident_kib(agent) * KIB
        sample = {"agent": float(before)}
        if n > 0:
            probe.ask(f"sockets {n}")
            sample["agent"] = float(resident_kib(agent) * KIB)
            sample["each_socket"] = (sample["agent"] - before) / min(n, REMEMBERED_MAX)
    return sample


def _measure_services(stage: Stage, port: int, n: int) -> Sample:
    with run_services(stage, n, port) as running:
        agents = [resident_kib(pid) * KIB for pid in running.agents]
        return {
            "agent": sum(agents) / len(agents),
            "supervisor": float(resident_kib(running.supervisor) * KIB),
        }


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    with serve(stage.directory) as server:
        subjects: dict[str, Callable[[], Sample]] = {}
        for track, options in TRACKS.items():
            way = redirected(server.port, *options)
            for n in SOCKETS[: stage.effort(len(SOCKETS), 2)]:
                with stage.optional(sockets(track, n)):
                    need_fds(n)
                    subjects[sockets(track, n)] = partial(_measure_sockets, stage, way, n)
        for n in SERVICES[: stage.effort(len(SERVICES), 1)]:
            with stage.optional(services(n)):
                need_fds(FDS_OF_EACH * n)
                subjects[services(n)] = partial(_measure_services, stage, server.port, n)
        yield each_in_turn(subjects)


PART: Final = Part("memory", "Resident memory", METRICS, PAIRS, 5, _open, ("agent",))
